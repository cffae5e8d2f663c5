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
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.special import zeta

import theorysim as ts

TITLE = "When the ranking of small runs reverses"
SOURCES = ("arXiv:2409.15156", "arXiv:2311.14646")


class Preset(NamedTuple):
    """Modes of the target, draws of random features that make one run; planted data sets, resamples of each."""

    modes: int
    draws: int
    repeats: int
    samples: int


PRESETS = {
    "smoke": Preset(400, draws=8, repeats=64, samples=63),
    "laptop": Preset(1000, draws=32, repeats=160, samples=199),
    "paper": Preset(20_000, draws=256, repeats=4000, samples=1023),
}
SMALL = np.array([8, 11, 16, 23, 32, 45])  # features: up to half of the crossover, which the laws see
FEATURES = np.array([*SMALL, 64, 91, 128, 181])
RUNS, RESAMPLES = 5, 512  # runs of each small size and method, each the mean over draws of its own; resamples of them
METHODS = {"knows much": (0.1, 1.3), "begins with nothing": (1.0, 1.8)}  # what is left to learn, decay of its power
DECAY, FLOOR = 3.0, 0.1

CROSSOVER = 1e21  # of the planted law, in flops
PLANTED = {"E": 1.7, "A1": 0.3 * CROSSOVER**0.25, "A2": 0.3 * CROSSOVER**0.4, "alpha1": 0.25, "alpha2": 0.4}
REACH = np.array([1e-4, 1e-3, 1e-2, 1e-1])  # the largest run, over the crossover
DECADES, SIZES, SEEDS = 3, 9, 3  # of each method's runs, below the largest
NOISE = 0.006  # standard deviation of log losses
LEVELS = np.array([0.5, 0.8, 0.9, 0.95])


def spectrum(modes, weight, decay):
    """Powers that sum to the weight: what lies beyond the modes counts as a whole."""
    rank = np.arange(1.0, modes + 1)
    power = weight / zeta(decay) * rank**-decay
    return ts.scaling.kernel_regression.Spectrum(rank**-DECAY, power, tail_power=weight - power.sum())


def inverse_log(parameters):
    """1 / log c*, and 0 where the exponents agree; negative where method 2 does not catch up."""
    ratio = jnp.log(parameters["A2"]) - jnp.log(parameters["A1"])
    return (parameters["alpha2"] - parameters["alpha1"]) / ratio


def scale_of(inverse):
    """c* from 1 / log c*: infinite where it is not positive."""
    return np.where(inverse > 0, np.exp(1 / np.maximum(inverse, 1e-3)), np.inf)


# %% [markdown]
# ## Random features, and laws of the small ones


# %%
def simulate(preset):
    learners = ts.labelled({name: spectrum(preset.modes, *method) for name, method in METHODS.items()})
    numbers = np.union1d(np.geomspace(FEATURES[0], FEATURES[-1], 60), FEATURES)

    def expected(learner, features):
        """Of random features and unlimited data."""
        return {"loss": FLOOR + ts.scaling.kernel_regression.random_features(learner, 1e9, features).error}

    def drawn(numbers, **random):
        def losses(learner, key):
            return {"loss": projected(key, learner, numbers)}

        labels = {"dims": {"loss": ["features"]}, "coords": {"features": numbers}}
        return ts.sweep(losses, ts.Grid(learner=learners), **random, **labels)

    simulation = drawn(FEATURES, key=jax.random.key(0), repeats=preset.draws)
    small = drawn(SMALL, key=jax.random.key(1), repeats=len(SMALL) * RUNS * preset.draws)
    lines = ts.sweep(expected, ts.Grid(learner=learners, features=numbers))
    ahead = np.log(lines["loss"][1] / lines["loss"][0]).values
    lines["crossover"] = np.exp(np.interp(0, -ahead, np.log(numbers)))
    return ts.study.tree(
        theory=lines, simulation=simulation, forecast=forecast(small["loss"]), planted=recovered(preset)
    )


def projected(key, of, numbers):
    """Losses at increasing numbers of features: each draw goes on from its first features to more of them.

    Cholesky's factor of all products, the target's last, has in its last row the target's part along each new feature.
    """
    draws = jax.random.normal(key, (len(of.power) * numbers[-1],)).reshape(-1, numbers[-1])
    features = jnp.sqrt(of.eigenvalues)[:, None] * draws
    columns = jnp.concatenate([features, jnp.sqrt(of.power)[:, None]], 1)
    taken = jnp.linalg.cholesky(columns.T @ columns)[-1, :-1]
    missed = of.power.sum() + of.tail_power - jnp.cumsum(jnp.square(taken))
    return FLOOR + missed[numbers - 1]


def forecast(losses):
    """The laws of small models, and where they cross."""
    shape = (len(METHODS), len(SMALL), len(SMALL), RUNS, -1)
    draws = losses.transpose("learner", "features", "repeat").values.reshape(shape)
    runs = np.einsum("lssrd->lsr", draws) / draws.shape[-1]  # each size has its own share of the draws
    method, size, _ = (i.ravel() for i in np.indices(runs.shape))
    table = {"c": SMALL[size].astype(float), "method": method + 1.0, "loss": runs.ravel()}
    fit = ts.scaling.fit("crossing", table, objective=ts.scaling.least_squares())
    resampled = ts.scaling.bootstrap(fit, key=jax.random.key(2), samples=RESAMPLES)
    low, high = resampled.interval(inverse_log)
    method, c = np.meshgrid([1.0, 2.0], FEATURES.astype(float), indexing="ij")
    return xr.Dataset(
        {
            "loss": (("learner", "features"), np.asarray(fit(c=c, method=method))),
            "interval": ("end", scale_of(np.array([high, low]))),
            "inverse_log": float(inverse_log(fit.parameters)),
            "standard_error": float(resampled.standard_error(inverse_log)),
        },
        {"learner": list(METHODS), "features": FEATURES, "end": ["low", "high"]},
    )


# %% [markdown]
# ## Planted laws, whose runs end at a share of the crossover


# %%
def recovered(preset):
    c = np.tile(np.geomspace(10.0**-DECADES, 1, SIZES) * CROSSOVER, 2 * SEEDS)
    method = np.tile(np.repeat([1.0, 2.0], SIZES), SEEDS)
    coverage, objective = ts.scaling.coverage, ts.scaling.least_squares()

    def recover(reach, key):
        noise_key, sample_key = jax.random.split(key)
        noise = NOISE * jax.random.normal(noise_key, c.shape)
        options = {"key": sample_key, "levels": jnp.asarray(LEVELS), "samples": preset.samples}
        return coverage.recover(*reach, noise, inverse_log, **options)._asdict()

    def runs_up_to(reach):
        return coverage.planted("crossing", {"c": reach * c, "method": method}, PLANTED, objective=objective)

    return ts.sweep(
        recover,
        ts.Grid(reach=ts.labelled({float(reach): runs_up_to(reach) for reach in REACH})),
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
    inside = covered(data["planted"].to_dataset()).sel(level=0.95)
    yield ts.study.agrees(
        "cover",
        "planted laws, runs up to shares of the crossover from 1e-4 to 0.1: cover of its 95 % bootstrap interval, mean "
        "over the four shares",
        0.95,
        ts.study.mean_estimate(inside, over=("reach", "repeat")),
        span=(0, 1),
    )


# %% [markdown]
# ## Theory as lines, finite systems and fits as points


# %%
def draw(data):
    panels = curves_panel, cover_panel, width_panel
    return {"law_crossover": ts.study.drawn(data, *panels, columns=3, height_to_width=1.05)}


def curves_panel(panel, data):
    lines, losses, cast = (data[node].to_dataset() for node in ("theory", "simulation", "forecast"))
    panel.axvspan(*cast["interval"].values, ymax=0.6, color="0.88", linewidth=0, label="$c^*$, 95 % interval")
    for color, method in zip(ts.study.PALETTE, METHODS, strict=False):
        line, samples = (of["loss"].sel(learner=method) for of in (lines, losses))
        seen = samples["features"] <= SMALL[-1]
        ts.study.line_and_points(panel, line, samples, color, filled=seen, label=method)
        panel.plot(cast["features"], cast["loss"].sel(learner=method), "--", color="0.3", linewidth=0.8)
    panel.axvline(float(lines["crossover"]), ymax=0.6, color="k", linewidth=0.8)
    panel.set(title="(a) laws (dashed) of filled sizes", xlabel="features $N$", ylabel="loss")
    panel.set(xscale="log", yscale="log")
    ts.study.plain_ticks(panel.xaxis, [10, 30, 100])
    ts.study.plain_ticks(panel.yaxis, [0.15, 0.2, 0.3, 0.4])
    panel.legend(loc="upper right")


def cover_panel(panel, data):
    planted = data["planted"].to_dataset()
    panel.axhline(0, color="0.4")
    for i, (color, reach) in enumerate(zip(ts.study.PALETTE[2:], REACH, strict=False)):
        style = {"fmt": "os^D"[i], "color": color, "label": rf"$10^{{{round(np.log10(reach))}}}$"}
        ts.study.cover_points(panel, covered(planted).sel(reach=reach), shift=0.01 * (i - 1.5), **style)
    panel.set_title("(b) cover of intervals of $c^*$")
    panel.legend(title="largest run / $c^*$", loc="upper center", ncol=2, columnspacing=1.0)
    panel.set_ylim(top=abs(panel.get_ylim()[0]) * 1.3)


def width_panel(panel, data):
    planted = data["planted"].to_dataset()
    panel.axhline(1, color="k", linewidth=0.8)
    for i, (color, reach) in enumerate(zip(ts.study.PALETTE[2:], REACH, strict=False)):
        middle = planted.sel(reach=reach).median("repeat")
        ends = middle["high"].sel(level=0.95), middle["estimate"], middle["low"].sel(level=0.95)
        low, value, high = (scale_of(end.item()) / CROSSOVER for end in ends)
        panel.errorbar(reach, value, [[value - low], [high - value]], fmt="os^D"[i], color=color)
    panel.set(title="(c) median 95 % interval", xlabel="largest run / $c^*$", ylabel="estimated / true $c^*$")
    panel.set(xscale="log", yscale="log", xlim=(4e-5, 0.25))
    ts.study.plain_ticks(panel.yaxis, [0.5, 0.7, 1, 1.4, 2])


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
