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
LABELS = {"digits": "digits", "teacher": "power-law teacher"}
PLACE = ("size", "amount")


def sizes_and_amounts(task, preset):
    apart = {"digits": np.sqrt(2), "teacher": 2.0}[task]
    widths = WIDEST[task] / np.sqrt(2) ** np.arange(preset.sizes)[::-1]
    return {"width": np.round(widths), "d": np.round(MOST[task] / apart ** np.arange(preset.amounts)[::-1])}


def alive(task, width):
    """Which neurons of the widest network speak, and how loud, so that their mean square is that of all."""
    widest = WIDEST[task]
    return jnp.where(jnp.arange(widest) < width, jnp.sqrt(widest / width), 0).astype("float32")


def parameters(task, width):
    return 64 * width + width + 10 * width + 10 if task == "digits" else width


# %% [markdown]
# ## Networks
#
# All widths are one program: a narrower network is the widest with neurons that are silent.


# %%
def simulate(preset):
    digits = ts.study.digits(scale="set", seed=0)
    images, labels = jnp.asarray(digits.images, "float32"), jnp.asarray(digits.labels)
    teacher = ts.networks.power_law_teacher(512, eigenvalue_decay=1.5, target_decay=2.0, noise_var=NOISE)

    def classifier(width, d, key):
        """AdamW, early stopping: the lowest test loss on the way."""
        init, batches, sample = jax.random.split(key, 3)
        loud = alive("digits", width)[None]
        network = ts.networks.MLP(WIDEST["digits"], 1, lambda z: jax.nn.relu(z) * loud, weight_var=2.0, outputs=10)
        chosen = jnp.argsort(jax.random.uniform(sample, (TRAINED,)))

        def loss(params, rows):
            logits = network.apply(params, images[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

        def batch_loss(params, step):
            rows = d * jax.random.uniform(jax.random.fold_in(batches, step), (BATCH["digits"],))
            return loss(params, chosen[rows.astype(int)])

        def test_loss(params):
            return loss(params, jnp.arange(TRAINED, len(images)))

        rates = ts.networks.schedule(ts.scaling.schedule.cosine(0.3, EPOCH))
        adamw, times = optax.adamw(rates, weight_decay=0.1), np.arange(15, EPOCH + 1, 15)
        params = ts.networks.standard_normal_params(network, images[:1], key=init)
        return {"loss": ts.networks.train(batch_loss, params, adamw, times, test_loss).min()}

    def student(width, d, key):
        """SGD on fresh data, once through: a linear decay that ends with them."""
        init, data = jax.random.split(key)
        widest, batch = WIDEST["teacher"], BATCH["teacher"]
        features = teacher.features(init, widest) * alive("teacher", width)[:, None]
        steps = MOST["teacher"] // batch

        def loss(readout, step):
            x, y = teacher.draw(jax.random.fold_in(data, step), batch)
            return jnp.square(x @ features.T @ readout - y).mean() / 2

        def test_loss(readout):
            return teacher.loss(features, readout)

        sgd = optax.sgd(ts.networks.schedule(jnp.maximum(1 - jnp.arange(steps) * batch / d, 0)))
        trained = ts.networks.train(loss, jnp.zeros(widest, "float32"), sgd, np.array([steps]), test_loss)
        return {"loss": trained[-1]}

    runs = {}
    for task, network, key in zip(TASKS, (classifier, student), (3, 4), strict=True):
        grid = ts.Grid(**sizes_and_amounts(task, preset))
        options = {"key": jax.random.key(key), "repeats": preset.repeats, "common_random_numbers": True}
        runs[task] = by_place(ts.sweep(network, grid, **options), task)
    simulation = ts.study.stack(runs, "task")
    laws = {task: fitted(simulation.sel(task=task), preset, FLOOR[task]) for task in TASKS}
    return ts.study.tree(theory=ts.study.stack(laws, "task"), simulation=simulation)


def by_place(found, task):
    """Sizes and amounts by their place, their values as variables."""
    n, d = parameters(task, found["width"].values), found["d"].values
    found = found.rename(width="size", d="amount").drop_vars(["size", "amount"])
    return found.assign(n=("size", n), d=("amount", d))


def table(data):
    """One row a run: task, n, d, seed, loss, and the flops of its training, 6 n a sample."""
    runs = data["simulation"].to_dataset()
    for task, size, amount, seed in np.ndindex(*(runs.sizes[dim] for dim in ("task", *PLACE, "repeat"))):
        of = runs.isel(task=task, size=size, amount=amount, repeat=seed)
        name, n, d = str(of["task"].item()), int(of["n"]), int(of["d"])
        samples = EPOCH * BATCH["digits"] if name == "digits" else d
        yield {"task": name, "n": n, "d": d, "seed": seed, "loss": float(of["loss"]), "flops": 6 * n * samples}


# %% [markdown]
# ## Fits to the smaller runs
#
# Runs of one size and amount of data are drawn together. A prediction is that of a resample's fit, times the scatter of
# one of the sizes and amounts about the fit to all.


# %%
def fitted(runs, preset, floor):
    loss = runs["loss"].transpose(*PLACE, "repeat").values.astype(float)
    n, d = np.meshgrid(runs["n"].values.astype(float), runs["d"].values.astype(float), indexing="ij")
    smaller = np.ones_like(n, bool)
    smaller[-1], smaller[:, -1] = False, False
    group = np.repeat(np.arange(smaller.sum()), loss.shape[2])
    train = {"n": n[smaller][group], "d": d[smaller][group], "loss": loss[smaller].ravel()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ts.scaling.RunsWarning)  # sizes as small as these look like millions
        known = {law: floor if "E" in ts.scaling.LAWS[law].parameters else {} for law in preset.laws}
        fits = {law: ts.scaling.fit(law, train, fixed=known[law]) for law in preset.laws}
    missed = {law: np.log(loss).mean(2) - np.log(fit(n=n, d=d)) for law, fit in fits.items()}
    fit = fits[LAW]
    draws = ts.scaling.bootstrap(fit, key=jax.random.key(0), samples=preset.samples, groups=group)
    predicted = draws.of(lambda values: fit.law.fn(jnp.asarray(n), jnp.asarray(d), **values))
    scatter = np.random.default_rng(0).choice(missed[LAW][smaller], (preset.samples, 1, 1))
    low, high = np.exp(np.quantile(np.log(predicted) + scatter, [0.025, 0.975], axis=0))
    fine, names = np.geomspace(d.min(), d.max(), 60), list(fit.law.parameters)
    return xr.Dataset(
        {
            "line": (("size", "along"), np.asarray(fit(n=n[:, :1] + 0 * fine, d=0 * n[:, :1] + fine))),
            "along_d": ("along", fine),
            **{"predicted": (PLACE, np.asarray(fit(n=n, d=d))), "smaller": (PLACE, smaller)},
            **{"low": (PLACE, low), "high": (PLACE, high)},
            "error": ("law", [np.sqrt(np.mean(of[~smaller] ** 2)) for of in missed.values()]),
            "estimate": ("parameter", [fit.parameters[name] for name in names]),
            "standard_error": ("parameter", [float(draws.standard_error(name)) for name in names]),
        },
        {"law": list(preset.laws), "parameter": names},
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    last = {"size": -1, "amount": -1}
    interval = np.log(data["theory"].to_dataset()[["low", "high"]].isel(last))
    middle, half = (interval["low"] + interval["high"]) / 2, (interval["high"] - interval["low"]) / 2
    losses = np.log(data["simulation"]["loss"].astype(float))
    for task in TASKS:
        yield ts.study.agrees(
            f"prediction, {task}",
            f"{LABELS[task]}: log loss of the largest size on the most data, from fits without either",
            middle.sel(task=task).item(),
            ts.study.mean_estimate(losses.sel(task=task).isel(last)),
            next_order=half.sel(task=task).item(),
            why="half of the 95 % predictive interval",
        )
    # The interval of the digits is as wide as their improvement: it is drawn, and this is claimed of the teacher alone.
    gain = (losses.isel(size=-2, amount=-2) - losses.isel(last)).sel(task="teacher")
    yield ts.study.exceeds(
        "informative, teacher",
        f"{LABELS['teacher']}: fall of the log loss from the largest fitted run to the one predicted, for half of the "
        "predictive interval at least: the law says more than 'no further improvement'",
        half.sel(task="teacher").item(),
        ts.study.mean_estimate(gain),
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
    return {"own_scaling_runs": figure}


def loss_panel(panel, theory, runs):
    sizes = range(0, runs.sizes["size"], 2)
    for size, color in zip(sizes, plt.get_cmap("viridis")(np.linspace(0, 0.85, len(sizes))), strict=True):
        of, line, inside = (data.isel(size=size) for data in (runs, theory["line"], theory["smaller"]))
        panel.plot(theory["along_d"], line, color=color)
        ts.study.points(panel, of["loss"], of["d"], filled=inside.astype(bool), color=color, zorder=3)
        style = {"va": "top" if size == sizes[-1] else "bottom", "color": color, "fontsize": "small"}
        end = float(of["d"][-1]), float(line[-1])
        panel.annotate(f"{int(of['n'])}", end, xytext=(5, -1), textcoords="offset points", **style)
    low, high = runs["d"].values[[0, -1]]
    panel.set(xscale="log", yscale="log", xlabel="examples $d$", ylabel="test loss, by size $n$")
    panel.set_xlim(low / 1.2, high * (high / low) ** 0.2)
    ts.study.plain_ticks(panel.xaxis, [100, 300, 1000, 4000], inside=True)
    ts.study.plain_ticks(panel.yaxis, [0.1, 0.2, 0.5, 1], inside=True)


def prediction_panel(panel, theory, runs):
    for color, task, apart in zip(ts.study.PALETTE, TASKS, (1, 1.02), strict=False):
        out = ~theory["smaller"].sel(task=task).values.astype(bool)
        predicted, low, high = (theory[name].sel(task=task).values[out] for name in ("predicted", "low", "high"))
        panel.vlines(predicted * apart, low / predicted, high / predicted, color=color, alpha=0.25, linewidth=3)
        losses = runs["loss"].sel(task=task).stack(run=PLACE)[:, out.ravel()] / predicted
        ts.study.points(panel, losses, predicted * apart, color=color, label=LABELS[task], markersize=3)
    panel.axhline(1, color="0.5", linewidth=0.8, zorder=0)
    panel.set(title="(c) held out, 95 % intervals", xlabel="predicted loss", ylabel="measured / predicted")
    bottom, top = panel.get_ylim()
    panel.set(xscale="log", ylim=(bottom, top + 0.3 * (top - bottom)))
    ts.study.plain_ticks(panel.xaxis, [0.1, 0.2, 0.5], inside=True)
    panel.legend(loc="upper center")


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
