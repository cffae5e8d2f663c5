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
import warnings
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
    with np.errstate(divide="ignore"):
        return np.exp(1 / np.maximum(inverse, 0.0))


# %% [markdown]
# ## Random features, and laws of the small ones


# %%
def simulate(preset):
    learners = ts.labelled({name: spectrum(preset.modes, *method) for name, method in METHODS.items()})
    numbers = np.union1d(np.geomspace(FEATURES[0], FEATURES[-1], 60), FEATURES)
    simulation = ts.sweep(
        lambda learner, key: {"loss": projected(key, learner, FEATURES)},
        ts.Grid(learner=learners),
        key=jax.random.key(0),
        repeats=preset.draws,
        dims={"loss": ["features"]},
        coords={"features": FEATURES},
    )

    def run(learner, size, key):
        keys = jax.random.split(key, preset.draws)
        losses = jax.lax.map(lambda key: projected(key, learner, SMALL), keys)
        return {"loss": losses.mean(0)[size]}

    grid = ts.Grid(learner=learners, size=np.arange(len(SMALL)))
    runs = ts.sweep(run, grid, key=jax.random.key(1), repeats=RUNS)
    lines = ts.sweep(
        lambda learner, features: {"loss": loss_of(features, learner)}, ts.Grid(learner=learners, features=numbers)
    )
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
            "inverse_log": float(inverse_log(fit.parameters)),
            "standard_error": float(draws.standard_error(inverse_log)),
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
    c = np.tile(np.geomspace(10.0**-DECADES, 1, SIZES) * reach * CROSSOVER, 2 * SEEDS)
    runs = {"c": c, "method": np.tile(np.repeat([1.0, 2.0], SIZES), SEEDS)}
    loss = np.asarray(ts.scaling.LAWS["crossing"](**runs, **planted_law()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ts.scaling.RunsWarning)  # without noise, seeds are copies
        return ts.scaling.fit("crossing", {**runs, "loss": loss}, objective=ts.scaling.least_squares())


def recovered(preset):
    fits = {float(reach): on_the_law(reach) for reach in REACH}
    count = 2 * SIZES * SEEDS

    def recover(reach, key):
        problem, point = reach
        noise_key, sample_key = jax.random.split(key)
        options = {"key": sample_key, "levels": jnp.asarray(LEVELS), "samples": preset.samples}
        noise = NOISE * jax.random.normal(noise_key, (count,))
        return ts.scaling.coverage.recover(problem, point, noise, inverse_log, **options)._asdict()

    return ts.sweep(
        recover,
        ts.Grid(reach=ts.labelled({reach: (fit.problem, fit.point) for reach, fit in fits.items()})),
        key=jax.random.key(3),
        repeats=preset.repeats,
        dims={"low": ["level"], "high": ["level"]},
        coords={"level": LEVELS},
        lanes=8,  # times 8 resamples: loops in lockstep, and arrays in the cache
    )


def covered(planted):
    truth = 1 / np.log(CROSSOVER)
    return (planted["low"] < truth) & (truth < planted["high"])


# %% [markdown]
# ## What must hold


# %%
def claims(data):
    lines, losses = data["theory"].to_dataset(), data["simulation"]["loss"]
    for method in METHODS:
        many = losses.sel(learner=method, features=slice(50, None))
        ratio = (many - FLOOR) / (lines["loss"].sel(learner=method, features=many["features"]) - FLOOR)
        yield ts.study.agrees(
            f"error, {method}",
            f"the method that {method}: ratio of the error to theory, mean over sizes from 50 features on",
            1.0,
            ts.study.mean_estimate(ratio.mean("features")),
            next_order=1 / 50,
            why="1 / features of the smallest size, the order of the theory's error",
        )
    ahead = np.log(losses.sel(learner="begins with nothing") / losses.sel(learner="knows much"))
    ranking = "models: logarithm of the ratio of the losses, whose sign is the ranking"
    smallest, largest = (ts.study.mean_estimate(ahead.sel(features=FEATURES[i])) for i in (0, -1))
    yield ts.study.exceeds("ranking, smallest", f"smallest {ranking}", 0, smallest)
    yield ts.study.stays_below("ranking, largest", f"largest {ranking}", 0, largest)
    cast = data["forecast"].to_dataset()
    yield ts.study.agrees(
        "forecast",
        r"laws of models up to half of the crossover: $1 / \log c^*$ of the size at which they cross",
        float(1 / np.log(lines["crossover"])),
        ts.study.Estimate(cast["inverse_log"].item(), cast["standard_error"].item()),
    )
    planted = data["planted"].to_dataset()
    inside = covered(planted).sel(level=0.95).stack(data_set=("reach", "repeat"))
    yield ts.study.agrees(
        "cover",
        "planted laws, runs up to shares of the crossover from 1e-4 to 0.1: cover of its 95 % bootstrap interval, mean "
        "over the four shares",
        0.95,
        ts.study.mean_estimate(inside.drop_vars(("reach", "repeat", "data_set")).rename(data_set="repeat")),
        span=(0, 1),
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
    ts.study.plain_ticks(panel.xaxis, [10, 30, 100])
    ts.study.plain_ticks(panel.yaxis, [0.15, 0.2, 0.3, 0.4])
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
    ts.study.plain_ticks(panel.yaxis, [0.5, 0.7, 1, 1.4, 2])


# %%
if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    plt.rcParams.update(ts.study.style())
    data = simulate(PRESETS["smoke"])
    draw(data)
    for claim in claims(data):
        print(claim)
