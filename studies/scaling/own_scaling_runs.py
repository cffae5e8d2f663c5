"""Do small networks scale as large ones do? Two tasks, many sizes and amounts of data: a law fitted to the smaller runs
predicts the largest, within the interval that its own scatter gives.
"""

# %% [markdown]
# # Scaling laws of small networks
#
# Classifiers of digits, with one hidden layer, and linear students of a teacher with a power-law spectrum, through
# random features: of $n$ parameters, on $d$ examples. Fitted without the largest size and the largest amount of data,
# $$L(n, d) = E + A\, n^{-\alpha} + B\, d^{-\beta}$$
# predicts the run that has both. Its interval is made of fits to resampled runs, and of the scatter about a fit. The
# floor $E$ of the teacher is known, the variance of its noise.
#
# The runs of the laptop preset are in `studies/data/own_runs.csv`, for `theorysim fit studies/data/own_runs.csv
# --group task`. They are what `table(data)` yields, written by
# `pd.DataFrame(table(data)).to_csv("studies/data/own_runs.csv", index=False, float_format="%.6g")`.

# %%
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr

import theorysim as ts

TITLE = "Scaling laws of small networks"
SOURCES = ("arXiv:2203.15556", "arXiv:2001.08361", "arXiv:2402.01092")


class Preset(NamedTuple):
    """Sizes (widths) and amounts of data, a factor of sqrt(2) or 2 apart up to the largest; seeds; laws; resamples."""

    sizes: int
    amounts: int
    repeats: int
    laws: tuple[str, ...]
    samples: int


LAWS = ("chinchilla", "kaplan_nd", "gadre")
PRESETS = {
    "smoke": Preset(sizes=5, amounts=5, repeats=4, laws=LAWS[:1], samples=64),
    "laptop": Preset(sizes=7, amounts=7, repeats=4, laws=LAWS, samples=512),
    "paper": Preset(sizes=9, amounts=9, repeats=64, laws=LAWS, samples=4096),
}
TASKS = ("digits", "teacher")
WIDEST = {"digits": 32, "teacher": 64}
MOST = {"digits": 1280, "teacher": 4096}
TRAINED, EPOCH = 1297, 300  # images to draw from, the others are the test; steps of training on them
BATCH = {"digits": 32, "teacher": 16}
NOISE = 0.1
FLOOR = {"digits": {}, "teacher": {"E": NOISE}}
LAW = "chinchilla"


def amounts(task, preset):
    return np.round(MOST[task] / (2.0 if task == "teacher" else np.sqrt(2)) ** np.arange(preset.amounts)[::-1])


def widths(task, preset):
    return np.round(WIDEST[task] / np.sqrt(2) ** np.arange(preset.sizes)[::-1])


def parameters(task, width):
    return 64 * width + width + 10 * width + 10 if task == "digits" else width


# %% [markdown]
# ## Networks
#
# All widths are one program: a narrower network is the widest with neurons that are silent.


# %%
def simulate(preset):
    data = ts.study.digits(scale="set", seed=0)
    images, labels = jnp.asarray(data.images, "float32"), jnp.asarray(data.labels)
    teacher = ts.networks.power_law_teacher(512, spectrum=1.5, target=2.0, noise_var=NOISE)

    def classifier(width, d, key):
        """AdamW, early stopping: the lowest test loss on the way."""
        init, batches, sample = jax.random.split(key, 3)
        widest = WIDEST["digits"]
        alive = jnp.where(jnp.arange(widest) < width, jnp.sqrt(widest / width), 0)[None].astype(images.dtype)
        network = ts.networks.MLP(widest, 1, lambda z: jax.nn.relu(z) * alive, weight_var=2.0, outputs=10)
        chosen = jax.random.permutation(sample, TRAINED)

        def loss(params, rows):
            logits = network.apply(params, images[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

        def batch_loss(params, step):
            rows = jax.random.randint(jax.random.fold_in(batches, step), (BATCH["digits"],), 0, d.astype(int))
            return loss(params, chosen[rows])

        def test_loss(params):
            return loss(params, jnp.arange(TRAINED, len(images)))

        rates = ts.networks.schedule(ts.scaling.schedule.cosine(0.3, EPOCH))
        adamw, times = optax.adamw(rates, weight_decay=0.1), np.arange(15, EPOCH + 1, 15)
        return {"loss": ts.networks.train(batch_loss, network.init(init, images[:1]), adamw, times, test_loss).min()}

    def student(width, d, key):
        """SGD on fresh data, once through: a linear decay that ends with them."""
        init, data = jax.random.split(key)
        widest, batch = WIDEST["teacher"], BATCH["teacher"]
        alive = jnp.where(jnp.arange(widest) < width, jnp.sqrt(widest / width), 0)[:, None]
        features = teacher.features(init, widest) * alive.astype("float32")
        steps = MOST["teacher"] // batch

        def loss(readout, step):
            x, y = teacher.draw(jax.random.fold_in(data, step), batch)
            return jnp.square(x @ features.T @ readout - y).mean() / 2

        rates = jnp.maximum(1 - jnp.arange(steps) * batch / d, 0)
        sgd = optax.sgd(ts.networks.schedule(rates))
        trained = ts.networks.train(
            loss, jnp.zeros(widest, "float32"), sgd, np.array([steps]), lambda readout: teacher.loss(features, readout)
        )
        return {"loss": trained[-1]}

    runs = {}
    for task, network, key in zip(TASKS, (classifier, student), (3, 4), strict=True):
        grid = ts.Grid(width=widths(task, preset), d=amounts(task, preset))
        options = {"key": jax.random.key(key), "repeats": preset.repeats, "common_random_numbers": True}
        runs[task] = by_place(ts.sweep(network, grid, **options), task)
    simulation = xr.concat(list(runs.values()), xr.DataArray(list(TASKS), dims="task", name="task"))
    return xr.DataTree.from_dict({"theory": theory(simulation, preset), "simulation": simulation})


def by_place(found, task):
    """Sizes and amounts by their place, their values as variables."""
    n, d = parameters(task, found["width"].values), found["d"].values
    found = found.rename(width="size", d="amount").drop_vars(["size", "amount"])
    return found.assign(n=("size", n), d=("amount", d))


def table(data):
    """One row a run: task, n, d, seed, loss, and the flops of its training, 6 n a sample."""
    runs = data["simulation"].to_dataset()
    for task, size, amount, seed in np.ndindex(*(runs.sizes[dim] for dim in ("task", "size", "amount", "repeat"))):
        of = runs.isel(task=task, size=size, amount=amount)
        name, n, d = str(of["task"].item()), int(of["n"]), int(of["d"])
        samples = EPOCH * BATCH["digits"] if name == "digits" else d
        loss = float(of["loss"].transpose("repeat")[seed])
        yield {"task": name, "n": n, "d": d, "seed": seed, "loss": loss, "flops": 6 * n * samples}


# %% [markdown]
# ## Fits to the smaller runs
#
# Runs of one size and amount of data are drawn together. A prediction is that of a resample's fit, times the scatter of
# one of the sizes and amounts about the fit to all.


# %%
def theory(simulation, preset):
    results = [of_task(simulation.sel(task=task), preset, FLOOR[task]) for task in TASKS]
    return xr.concat(results, xr.DataArray(list(TASKS), dims="task", name="task"))


def of_task(runs, preset, floor):
    loss = runs["loss"].transpose("size", "amount", "repeat").values
    n, d = np.meshgrid(runs["n"].values, runs["d"].values, indexing="ij")
    smaller = np.ones_like(n, bool)
    smaller[-1], smaller[:, -1] = False, False
    train = {
        "n": np.repeat(n[smaller], loss.shape[2]).astype(float),
        "d": np.repeat(d[smaller], loss.shape[2]).astype(float),
        "loss": loss[smaller].ravel().astype(float),
    }
    group = np.repeat(np.arange(smaller.sum()), loss.shape[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ts.scaling.RunsWarning)  # sizes as small as these look like millions
        known = {law: floor if "E" in ts.scaling.LAWS[law].parameters else {} for law in preset.laws}
        fits = {law: ts.scaling.fit(law, train, fixed=known[law]) for law in preset.laws}
    mean = np.log(loss).mean(2)
    missed = {law: mean - np.log(np.asarray(fit(n=n, d=d))) for law, fit in fits.items()}
    fit = fits[LAW]
    draws = ts.scaling.bootstrap(fit, key=jax.random.key(0), samples=preset.samples, groups=group)
    predicted = draws.of(lambda values: fit.law.fn(jnp.asarray(n, float), jnp.asarray(d, float), **values))
    scatter = np.random.default_rng(0).choice(missed[LAW][smaller], (preset.samples, 1, 1))
    low, high = np.quantile(np.log(predicted) + scatter, [0.025, 0.975], axis=0)
    fine = np.geomspace(d.min(), d.max(), 60)
    lines = ts.sweep(lambda n, d: {"line": fit(n=n, d=d)}, ts.Grid(n=runs["n"].values.astype(float), d=fine))
    lines = lines.rename(n="size", d="along").drop_vars(["size", "along"])
    errors = [np.sqrt(np.mean(missed[law][~smaller] ** 2)) for law in preset.laws]
    return lines.assign(
        along_d=("along", fine),
        predicted=(("size", "amount"), np.asarray(fit(n=n, d=d))),
        low=(("size", "amount"), np.exp(low)),
        high=(("size", "amount"), np.exp(high)),
        smaller=(("size", "amount"), smaller),
        error=("law", errors),
        estimate=("parameter", [fit.parameters[name] for name in fit.law.parameters]),
        standard_error=("parameter", [float(draws.standard_error(name)) for name in fit.law.parameters]),
    ).assign_coords(law=list(preset.laws), parameter=list(fit.law.parameters))


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, runs = data["theory"].to_dataset(), data["simulation"].to_dataset()
    for task in TASKS:
        of, largest = theory.sel(task=task), {"size": -1, "amount": -1}
        low, high = (np.log(of[end].isel(largest).item()) for end in ("low", "high"))
        losses = np.log(runs["loss"].sel(task=task).astype(float))
        loss = ts.study.mean_estimate(losses.isel(largest))
        yield ts.study.agrees(
            f"prediction, {task}",
            f"{LABELS[task]}: log loss of the largest size on the most data, from fits without either",
            (low + high) / 2,
            loss,
            next_order=(high - low) / 2,
            why="half of the 95 % predictive interval",
        )
    # The interval of the digits is as wide as their improvement: it is drawn, and this is claimed of the teacher alone.
    of = theory.sel(task="teacher").isel(size=-1, amount=-1)
    losses = np.log(runs["loss"].sel(task="teacher").astype(float))
    gain = ts.study.mean_estimate(losses.isel(size=-2, amount=-2) - losses.isel(size=-1, amount=-1))
    yield ts.study.exceeds(
        "informative, teacher",
        f"{LABELS['teacher']}: fall of the log loss from the largest fitted run to the one predicted, for half of the "
        "predictive interval at least: the law says more than 'no further improvement'",
        float(np.log(of["high"] / of["low"]) / 2),
        gain,
    )


# %% [markdown]
# ## Runs as points, the law as lines


# %%
def draw(data):
    theory, runs = data["theory"].to_dataset(), data["simulation"].to_dataset()
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.0))
    for panel, task, letter in zip(panels, TASKS, "ab", strict=False):
        loss_panel(panel, theory.sel(task=task), runs.sel(task=task))
        panel.set_title(f"({letter}) {LABELS[task]}")
    prediction_panel(panels[2], theory, runs)
    panels[2].set_title("(c) held out, 95 % intervals")
    return {"own_scaling_runs": figure}


LABELS = {"digits": "digits", "teacher": "power-law teacher"}


def loss_panel(panel, theory, runs):
    sizes = range(0, runs.sizes["size"], 2)
    for size, color in zip(sizes, plt.get_cmap("viridis")(np.linspace(0, 0.85, len(sizes))), strict=True):
        of, line = runs.isel(size=size), theory["line"].isel(size=size)
        mean, error = ts.study.mean_and_error(of["loss"])
        panel.plot(theory["along_d"], line, color=color)
        inside = theory["smaller"].isel(size=size).values.astype(bool)
        for chosen, face in ((inside, color), (~inside, "white")):
            panel.errorbar(
                of["d"][chosen], mean[chosen], error[chosen], fmt="o", color=color, markerfacecolor=face, zorder=3
            )
        where = {
            "xytext": (5, -1),
            "textcoords": "offset points",
            "va": "top" if size == sizes[-1] else "bottom",
            "color": color,
            "fontsize": "small",
        }
        panel.annotate(f"{int(of['n'])}", (float(of["d"][-1]), float(line[-1])), **where)
    low, high = runs["d"].values[[0, -1]]
    panel.set(xscale="log", yscale="log", xlabel="examples $d$", ylabel="test loss, by size $n$")
    panel.set(xlim=(low / 1.2, high * (high / low) ** 0.2))
    ts.study.plain_ticks(panel.xaxis, within([100, 300, 1000, 4000], panel.get_xlim()))
    ts.study.plain_ticks(panel.yaxis, within([0.1, 0.2, 0.5, 1], panel.get_ylim()))


def within(ticks, limits):
    return [tick for tick in ticks if limits[0] <= tick <= limits[1]]


def prediction_panel(panel, theory, runs):
    for color, task, apart in zip(ts.study.PALETTE, TASKS, (1, 1.02), strict=False):
        of = theory.sel(task=task)
        out = ~of["smaller"].values.astype(bool)
        mean, error = ts.study.mean_and_error(runs["loss"].sel(task=task).transpose("size", "amount", "repeat"))
        predicted, low, high = (of[name].values[out] for name in ("predicted", "low", "high"))
        panel.vlines(predicted * apart, low / predicted, high / predicted, color=color, alpha=0.25, linewidth=3)
        ratio, spread = mean.values[out] / predicted, error.values[out] / predicted
        panel.errorbar(predicted * apart, ratio, spread, fmt="o", color=color, label=LABELS[task], markersize=3)
    panel.axhline(1, color="0.5", linewidth=0.8, zorder=0)
    panel.set(xscale="log", xlabel="predicted loss", ylabel="measured / predicted")
    bottom, top = panel.get_ylim()
    panel.set_ylim(bottom, top + 0.3 * (top - bottom))
    ts.study.plain_ticks(panel.xaxis, within([0.1, 0.2, 0.5], panel.get_xlim()))
    panel.legend(loc="upper center")


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
