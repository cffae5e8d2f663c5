"""Which of two methods will be ahead at scale? Small runs rank them wrongly where the one that starts ahead improves
more slowly; laws fitted to those same runs say where the ranking reverses, and how far ahead that can be said.
"""

# %% [markdown]
# # When the ranking of small runs reverses
#
# Two methods reach losses $E + A_i c^{-\alpha_i}$ at scale $c$. The first, of the smaller $A$ and the smaller $\alpha$,
# is ahead up to $c^* = (A_2 / A_1)^{1 / (\alpha_2 - \alpha_1)}$ and behind beyond it.
#
# The finite system: a target $\sum_i a_i \phi_i$ is projected on $N$ random features of covariance
# $\sum_i \eta_i \phi_i \phi_i'$ with $\eta_i = i^{-3}$. The first method knows most of the target beforehand, and what
# it has left to learn is rough ($a_i^2 \propto i^{-1.3}$); the second begins with nothing, and what it has to learn is
# smooth ($a_i^2 \propto i^{-1.8}$). With $1 = \sum_i \eta_i / (N \eta_i + \kappa)$ the loss is
#
# $$L(N) = E + \sum_i a_i^2 \frac{\kappa}{\kappa + N \eta_i} \approx E + A N^{-\alpha}, \quad \alpha = 0.3, 0.8.$$
#
# The laws see models up to half of $c^*$. Then planted laws, hundreds of times, whose runs end at a share of $c^*$: do
# the intervals of $c^*$ cover, and how wide are they? In the resamples $1 / \log c^*$ is smooth where the exponents
# agree and $c^*$ is infinite, so its percentiles are taken.

# %%
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.special import zeta

import theorysim as ts

TITLE = "When the ranking of small runs reverses"
SOURCES = ("arXiv:2409.15156", "arXiv:2311.14646")


class Preset(NamedTuple):
    """Modes of the target, draws of random features (as many make one run); planted data sets, resamples of each."""

    modes: int
    draws: int
    repeats: int
    samples: int


PRESETS = {
    "smoke": Preset(400, draws=16, repeats=64, samples=63),
    "laptop": Preset(1000, draws=32, repeats=160, samples=199),
    "paper": Preset(20_000, draws=256, repeats=4000, samples=1023),
}
SMALL = np.array([8, 11, 16, 23, 32, 45])  # features: up to half of the crossover, which the laws see
FEATURES = np.array([*SMALL, 64, 91, 128, 181])
RUNS = 5  # of each small size and method, each the mean over draws of its own
RESAMPLES = 512  # of those runs
METHODS = {"knows much": (0.1, 1.3), "begins with nothing": (1.0, 1.8)}  # what is left to learn, decay of its power
DECAY, FLOOR = 3.0, 0.1
FINITE = 0.03  # the theory's own error from 50 features on

PLANTED = {"E": 1.7, "A1": 0.3, "A2": 0.3, "alpha1": 0.25, "alpha2": 0.4}  # in units of the crossover
CROSSOVER = 1e21
REACH = np.array([1e-4, 1e-3, 1e-2, 1e-1])  # the largest run, over the crossover
DECADES, SIZES, SEEDS = 3, 9, 3  # of each method's runs, below the largest
NOISE = 0.006  # standard deviation of log losses
LEVELS = np.array([0.5, 0.8, 0.9, 0.95])


def spectrum(modes, weight, decay):
    """Powers that sum to the weight: what lies beyond the modes counts as a whole."""
    rank = jnp.arange(1.0, modes + 1)
    power = weight / zeta(decay) * rank**-decay
    return ts.scaling.kernel_regression.Spectrum(rank**-DECAY, power, tail_power=weight - power.sum())


def loss_of(features, of):
    """Random features and unlimited data."""
    return FLOOR + ts.scaling.kernel_regression.random_features(of, 1e9, features).error


def inverse_log(parameters):
    """1 / log c*, and 0 where the exponents agree; negative where method 2 does not catch up."""
    ratio = jnp.log(parameters["A2"]) - jnp.log(parameters["A1"])
    return (parameters["alpha2"] - parameters["alpha1"]) / ratio


def scale_of(inverse):
    """c* from 1 / log c*: infinite where it is not positive."""
    return np.exp(np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1.0), np.inf))


# %% [markdown]
# ## Random features, and laws of the small ones


# %%
def simulate(preset):
    targets = [spectrum(preset.modes, *method) for method in METHODS.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *targets)

    def target(learner):
        return jax.tree.map(lambda leaf: leaf[learner], stacked)

    def theory(learner, features):
        return {"loss": loss_of(features, target(learner))}

    which = np.arange(len(METHODS))
    numbers = np.union1d(np.geomspace(FEATURES[0], FEATURES[-1], 60), FEATURES)
    simulation = ts.sweep(
        lambda learner, key: {"loss": projected(key, target(learner), FEATURES)},
        ts.Grid(learner=which),
        key=jax.random.key(0),
        repeats=preset.draws,
        devices=jax.devices()[:1],
        dims={"loss": ["features"]},
        coords={"features": FEATURES},
    ).assign_coords(learner=list(METHODS))

    def run(learner, size, key):
        keys = jax.random.split(key, preset.draws)
        losses = jax.lax.map(lambda key: projected(key, target(learner), SMALL), keys)
        return {"loss": losses.mean(0)[size]}

    runs = ts.sweep(
        run,
        ts.Grid(learner=which, size=np.arange(len(SMALL))),
        key=jax.random.key(1),
        repeats=RUNS,
        devices=jax.devices()[:1],
    )
    lines = ts.sweep(theory, ts.Grid(learner=which, features=numbers)).assign_coords(learner=list(METHODS))
    ahead = np.log(lines["loss"][1] / lines["loss"][0]).values
    lines["crossover"] = np.exp(np.interp(0, -ahead, np.log(numbers)))
    return xr.DataTree.from_dict(
        {
            "theory": lines,
            "simulation": simulation,
            "forecast": forecast(runs["loss"].values),
            "planted": recovered(preset),
        }
    )


def projected(key, of, numbers):
    """Losses at increasing numbers of features: each draw goes on from its first features to more of them.

    Cholesky's factor of all products, the target's last, has in its last row the target's part along each new feature.
    """
    features = jnp.sqrt(of.eigenvalues)[:, None] * jax.random.normal(key, (len(of.power), numbers[-1]))
    columns = jnp.concatenate([features, jnp.sqrt(of.power)[:, None]], 1)
    taken = jnp.linalg.cholesky(columns.T @ columns)[-1, :-1]
    missed = of.power.sum() + of.tail_power - jnp.cumsum(jnp.square(taken))
    return FLOOR + missed[numbers - 1]


def forecast(losses):
    """The laws of small models, and where they cross."""
    learner, size, _ = (i.ravel() for i in np.indices(losses.shape))
    runs = {"c": SMALL[size].astype(float), "method": learner + 1.0, "loss": losses.ravel()}
    fit = ts.scaling.fit("crossing", runs, objective=ts.scaling.least_squares())
    draws = ts.scaling.bootstrap(fit, key=jax.random.key(2), samples=RESAMPLES)
    low, high = draws.interval(inverse_log)
    lines = [fit(c=FEATURES.astype(float), method=np.full(len(FEATURES), i + 1.0)) for i in range(len(METHODS))]
    return xr.Dataset(
        {
            "loss": (("learner", "features"), np.stack(lines)),
            "crossover": float(ts.scaling.crossover(fit.parameters)),
            "interval": ("end", scale_of(np.array([high, low]))),
        },
        {"learner": list(METHODS), "features": FEATURES, "end": ["low", "high"]},
    )


# %% [markdown]
# ## Planted laws, whose runs end at a share of the crossover


# %%
def planted_law():
    """In units of flops."""
    scales = {f"A{i}": PLANTED[f"A{i}"] * CROSSOVER ** PLANTED[f"alpha{i}"] for i in (1, 2)}
    return {**PLANTED, **scales}


def on_the_law(reach):
    """A fit without noise: it carries its runs in units of the data, and data sets are noise about it."""
    c = np.tile(np.geomspace(10.0**-DECADES, 1, SIZES) * reach * CROSSOVER, 2)
    runs = {"c": c, "method": np.repeat([1.0, 2.0], SIZES)}
    loss = np.asarray(ts.scaling.LAWS["crossing"](**runs, **planted_law()))
    return ts.scaling.fit("crossing", {**runs, "loss": loss}, objective=ts.scaling.least_squares())


def recovered(preset):
    fits = [on_the_law(reach) for reach in REACH]
    problems = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(fit.problem for fit in fits))
    points = jnp.stack([fit.point for fit in fits])
    count = 2 * SIZES * SEEDS

    def recover(design, key):
        noise_key, sample_key = jax.random.split(key)
        problem = jax.tree.map(lambda leaf: leaf[design], problems)
        noise = NOISE * jax.random.normal(noise_key, (count,))
        problem = replace(
            problem,
            inputs={name: jnp.tile(values, SEEDS) for name, values in problem.inputs.items()},
            log_loss=jnp.tile(problem.log_loss, SEEDS) + noise,
        )
        weights = jnp.ones((1, count))
        weights = jnp.concatenate([weights, ts.scaling.resample(sample_key, weights[0], preset.samples)])
        ends = jax.lax.map(lambda weights: problem.solve(points[design], weights), weights, batch_size=8)
        inverse = jax.vmap(lambda point: inverse_log(problem.values(point)))(ends.point)
        low, high = (jnp.quantile(inverse[1:], jnp.asarray(q)) for q in ((1 - LEVELS) / 2, (1 + LEVELS) / 2))
        return {"estimate": inverse[0], "low": low, "high": high, "converged": ends.converged.mean()}

    data = ts.sweep(
        recover,
        ts.Grid(design=np.arange(len(REACH))),
        key=jax.random.key(3),
        repeats=preset.repeats,
        dims={"low": ["level"], "high": ["level"]},
        coords={"level": LEVELS},
        lanes=8,  # times 8 resamples: loops in lockstep, and arrays in the cache
        devices=jax.devices()[:1],
    )
    return data.rename(design="reach").assign_coords(reach=REACH)


def covered(planted):
    truth = 1 / np.log(CROSSOVER)
    return (planted["low"] < truth) & (truth < planted["high"])


# %% [markdown]
# ## What must hold


# %%
def claims(data):
    lines, losses = data["theory"].to_dataset(), data["simulation"]["loss"]
    exact, cast = float(lines["crossover"]), data["forecast"].to_dataset()
    for method in METHODS:
        many = losses.sel(learner=method, features=slice(50, None))
        ratio = (many - FLOOR) / (lines["loss"].sel(learner=method, features=many["features"]) - FLOOR)
        mean, error = ts.study.mean_and_error(ratio.mean("features"))
        yield ts.study.Claim(
            f"the method that {method}: error over theory, mean over sizes from 50 features on",
            predicted=1,
            measured=float(mean),
            tolerance=FINITE + 3 * float(error),
            why="three standard errors over draws, and 3 % of a theory for many features",
        )
    ahead = np.log(losses.sel(learner="begins with nothing") / losses.sel(learner="knows much"))
    for place, features in (("smallest", FEATURES[0]), ("largest", FEATURES[-1])):
        mean, error = ts.study.mean_and_error(ahead.sel(features=features))
        line = lines["loss"].sel(features=features)
        yield ts.study.Claim(
            f"{place} models: log ratio of the losses, whose sign is the ranking",
            predicted=float(np.log(line[1] / line[0])),
            measured=float(mean),
            tolerance=float(3 * error + FINITE * abs(np.log(line[1] / line[0]))),
            why="three standard errors over draws, and 3 % of a theory for many features",
        )
    low, high = np.log(cast["interval"].values)
    yield ts.study.Claim(
        "laws of models up to half of the crossover: log of where they cross, middle of the 95 % bootstrap interval",
        predicted=float(np.log(exact)),
        measured=float((low + high) / 2),
        tolerance=float((high - low) / 2),
        why="half of the interval",
    )
    planted = data["planted"].to_dataset()
    share = covered(planted).sel(level=0.95).mean("repeat")
    for reach in REACH:
        yield ts.study.Claim(
            f"planted laws, runs up to {reach:g} of the crossover: cover of its 95 % bootstrap interval",
            predicted=0.95,
            measured=float(share.sel(reach=reach)),
            tolerance=float(0.02 + 2 * np.sqrt(0.95 * 0.05 / planted.sizes["repeat"])),
            why="two points for a finite number of runs and of resamples, and two binomial standard errors",
        )


# %% [markdown]
# ## Theory as lines, finite systems and fits as points


# %%
def draw(data):
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.05))
    curves_panel(panels[0], data)
    cover_panel(panels[1], data["planted"].to_dataset())
    width_panel(panels[2], data["planted"].to_dataset())
    return {"law_crossover": figure}


def curves_panel(panel, data):
    lines, points, cast = (data[node].to_dataset() for node in ("theory", "simulation", "forecast"))
    mean, error = ts.study.mean_and_error(points["loss"])
    panel.axvspan(*cast["interval"].values, ymax=0.6, color="0.88", linewidth=0, label="$c^*$, 95 % interval")
    for color, method in zip(ts.study.PALETTE, METHODS, strict=False):
        line = lines["loss"].sel(learner=method)
        panel.plot(line["features"], line, color=color)
        law = cast["loss"].sel(learner=method)
        panel.plot(law["features"], law, "--", color="0.3", linewidth=0.8)
        seen = mean["features"].values <= SMALL[-1]
        for some, face in ((seen, color), (~seen, "white")):
            at = mean.sel(learner=method).isel(features=some)
            bars = error.sel(learner=method).isel(features=some)
            label = method if face == color else None
            panel.errorbar(at["features"], at, bars, fmt="o", color=color, markerfacecolor=face, label=label)
    panel.axvline(float(lines["crossover"]), ymax=0.6, color="k", linewidth=0.8)
    panel.set(
        title="(a) laws (dashed) of filled sizes", xlabel="features $N$", ylabel="loss", xscale="log", yscale="log"
    )
    panel.set_xticks([10, 30, 100], ["10", "30", "100"])
    panel.set_yticks([0.15, 0.2, 0.3, 0.4], ["0.15", "0.2", "0.3", "0.4"])
    panel.minorticks_off()
    panel.legend(loc="upper right")


def cover_panel(panel, planted):
    panel.axhline(0, color="0.4")
    share = covered(planted).mean("repeat")
    for i, (color, reach) in enumerate(zip(ts.study.PALETTE[2:], REACH, strict=False)):
        error = np.sqrt(LEVELS * (1 - LEVELS) / planted.sizes["repeat"])
        style = {"fmt": "os^D"[i], "color": color, "label": rf"$10^{{{round(np.log10(reach))}}}$"}
        panel.errorbar(LEVELS + 0.01 * (i - 1.5), 100 * (share.sel(reach=reach) - LEVELS), 100 * error, **style)
    panel.set(title="(b) cover of intervals of $c^*$", xlabel="nominal cover", ylabel="cover minus nominal (%)")
    panel.legend(title="largest run / $c^*$", loc="upper center", ncol=2, columnspacing=1.0)
    panel.set_ylim(top=abs(panel.get_ylim()[0]) * 1.3)


def width_panel(panel, planted):
    panel.axhline(1, color="k", linewidth=0.8)
    for i, (color, reach) in enumerate(zip(ts.study.PALETTE[2:], REACH, strict=False)):
        at = planted.sel(reach=reach)
        ends = [scale_of(at[end].sel(level=0.95).median("repeat").values) for end in ("high", "low")]
        middle = scale_of(at["estimate"].median("repeat").values)
        low, middle, high = (value / CROSSOVER for value in (ends[0], middle, ends[1]))
        panel.errorbar(reach, middle, [[middle - low], [high - middle]], fmt="os^D"[i], color=color)
    panel.set(title="(c) median 95 % interval", xlabel="largest run / $c^*$", ylabel="estimated / true $c^*$")
    panel.set(xscale="log", yscale="log", xlim=(4e-5, 0.25))
    panel.set_yticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
    panel.minorticks_off()


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
