"""Can a task that small models almost never pass be predicted? Draws until it is passed resolve any rate; how they are
averaged and weighted decides whether the exponent that they give is right, and how sure it is.
"""

# %% [markdown]
# # Task laws from draws until success
#
# A model of size $n$ passes a task with probability $p = \exp(-c\, n^{-\alpha})$, so that $\log(-\log p)$ is linear in
# $\log n$. It is drawn from until it has passed $r$ times, after $K$ draws. The usual estimate $r / K$ is too high by
# $E[r / K] / p = {}_2F_1(1, 1; r + 1; 1 - p)$, which is $-\log p / (1 - p)$ for one success; $(r - 1) / (K - 1)$ is
# unbiased. A fit of $\log(-\log(r / K))$ without weights wastes draws: its terms have the variances
# $(1 - p) / (r \log^2 p)$. The exact likelihood $r \log p + (K - r) \log(1 - p)$ reaches the Fisher information.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import theorysim as ts

TITLE = "Task laws from draws until success"
SOURCES = ("arXiv:2310.03262",)


class Preset(NamedTuple):
    """Batches of experiments, and experiments in each."""

    batches: int
    experiments: int


PRESETS = {
    "smoke": Preset(batches=16, experiments=128),
    "laptop": Preset(batches=32, experiments=512),
    "paper": Preset(batches=256, experiments=8192),
}
SIZES = np.geomspace(3e7, 3e9, 7)
ALPHA, RATE = 0.27, 1e-3  # of the law, and its pass rate at the smallest size
C = -np.log(RATE) * SIZES[0] ** ALPHA
RARE = np.geomspace(1e-4, 0.5, 7)
SUCCESSES = (1, 2, 5, 20)
METHODS = ("likelihood", "weighted", "unweighted")


def draws_until(key, rate, successes):
    """Sums of geometric numbers; successes beyond the wanted count nothing."""
    u = jax.random.uniform(key, (rate.size * SUCCESSES[-1],), rate.dtype, jnp.finfo(rate.dtype).tiny)
    u = u.reshape(*rate.shape, SUCCESSES[-1])
    counted = jnp.arange(SUCCESSES[-1]) < successes
    return jnp.where(counted, jnp.ceil(jnp.log(u) / jnp.log1p(-rate)[..., None]), 0).sum(-1)


# %% [markdown]
# ## Estimates of rates, and of the exponent


# %%
def simulate(preset):
    task = ts.scaling.task
    sizes = jnp.asarray(SIZES)
    rate = task.pass_rate_law(sizes, C, ALPHA)
    z = jnp.log(sizes) - jnp.log(sizes).mean()

    def bias(rate):
        return {"usual": jnp.stack([1 + task.mle_bias(rate, r) for r in SUCCESSES])}

    def sampled_bias(rate, key):
        def of(successes):
            draws = draws_until(key, jnp.full((preset.experiments,), rate), successes)
            unbiased = jnp.where(successes > 1, (successes - 1) / jnp.maximum(draws - 1, 1), jnp.nan)
            return (successes / draws).mean() / rate, unbiased.mean() / rate

        usual, unbiased = jax.vmap(of)(jnp.array(SUCCESSES, float))
        return {"usual": usual, "unbiased": unbiased}

    def spread(successes):
        """Standard deviation of alpha: Fisher's, and that of a line without weights."""
        variance = 1 / task.weights(rate, successes)
        design = jnp.stack([jnp.ones_like(z), -z], 1)
        fisher = jnp.linalg.inv(design.T @ (design / variance[:, None]))
        return {"fisher": jnp.sqrt(fisher[1, 1]), "unweighted": jnp.sqrt(z**2 @ variance) / (z @ z)}

    def experiment(successes, key):
        counts = jnp.full(len(SIZES), successes)

        def alphas(key):
            draws = draws_until(key, rate, successes)
            # All draws passed: the usual estimate is one, and its logarithm no use.
            estimate = jnp.minimum(successes / draws, 1 - 0.5 / (draws + 1))
            line = jnp.log(-jnp.log(estimate))
            fit = task.fit_task(sizes, counts, draws)
            found = [fit.alpha, slope(line, task.weights(estimate, successes)), slope(line, jnp.ones_like(z))]
            return jnp.stack(found), task.emergence(sizes, counts, draws).p_value

        values, p_values = jax.vmap(alphas)(jax.random.split(key, preset.experiments))
        return {"mean": values.mean(0), "spread": values.std(0, ddof=1), "rejected": (p_values < 0.05).mean()}

    def slope(line, weights):
        centred = z - weights @ z / weights.sum()
        return -(weights * centred) @ line / (weights @ centred**2)

    many, every = np.array(SUCCESSES[1:], float), {"coords": {"successes": np.array(SUCCESSES)}}
    bias_labels = {"dims": {"usual": ["successes"], "unbiased": ["successes"]}, **every}
    fit_labels = {"dims": {"mean": ["fit"], "spread": ["fit"]}, "coords": {"fit": list(METHODS)}}
    biases, fits = ({"key": jax.random.key(i), "repeats": preset.batches} for i in (0, 1))
    rates = np.union1d(np.geomspace(RARE[0], RARE[-1], 60), RARE)
    return ts.study.tree(
        theory=ts.sweep(bias, ts.Grid(rate=rates), dims={"usual": ["successes"]}, **every),
        simulation=ts.sweep(sampled_bias, ts.Grid(rate=RARE), **biases, **bias_labels),
        spread_theory=ts.sweep(spread, ts.Grid(successes=np.union1d(np.geomspace(2, 20, 30), many))),
        spread=ts.sweep(experiment, ts.Grid(successes=many), **fits, **fit_labels),
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, points = data["theory"]["usual"], data["simulation"].to_dataset()
    for successes in SUCCESSES:
        at = {"successes": successes, "rate": RARE[1]}
        yield ts.study.agrees(
            f"likelihood estimate, {successes} successes",
            f"{successes} successes at a rate of {RARE[1]:.1e}: mean estimate by maximum likelihood, over the rate",
            float(theory.sel(at)),
            ts.study.mean_estimate(points["usual"].sel(at)),
        )
    yield ts.study.agrees(
        "unbiased estimate",
        "20 successes: ratio of the mean unbiased estimate to the rate, mean over rates",
        1.0,
        ts.study.mean_estimate(points["unbiased"].sel(successes=20).mean("rate")),
    )
    lines, fits = data["spread_theory"].to_dataset(), data["spread"].to_dataset()
    for method, line in (("likelihood", "fisher"), ("unweighted", "unweighted")):
        predicted = float(lines[line].sel(successes=20))
        yield ts.study.agrees(
            f"spread, {method}",
            f"20 successes, {method}: standard deviation of the fitted exponent",
            predicted,
            ts.study.mean_estimate(fits["spread"].sel(successes=20, fit=method)),
            next_order=predicted / 20,
            why="1 / successes, relatively: the next order",
        )
    yield ts.study.agrees(
        "false alarms",
        "20 successes: share of experiments whose law is rejected at the level of 5 %",
        0.05,
        ts.study.mean_estimate(fits["rejected"].sel(successes=20)),
        next_order=0.05 / 20,
        why="1 / successes, relatively: the next order",
        span=(0, 1),
    )


# %% [markdown]
# ## Theory as lines, experiments as points


# %%
def draw(data):
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.05))
    bias_panel(panels[0], data["theory"]["usual"], data["simulation"]["usual"])
    lines, fits = data["spread_theory"].to_dataset(), data["spread"].to_dataset()
    for color, method, line in zip(ts.study.PALETTE, METHODS, ("fisher", None, "unweighted"), strict=False):
        if line:
            panels[1].plot(lines["successes"], lines[line], color=color)
        for panel, name in ((panels[1], "spread"), (panels[2], "mean")):
            ts.study.points(panel, fits[name].sel(fit=method), color=color, label=method)
    panels[2].axhline(ALPHA, color="0.5", zorder=0)
    for panel in panels[1:]:
        panel.set(xlabel="successes $r$", xscale="log")
        ts.study.plain_ticks(panel.xaxis, SUCCESSES[1:])
    panels[1].set(title=r"(b) spread of the exponent", ylabel=r"standard deviation of $\alpha$", yscale="log")
    ts.study.plain_ticks(panels[1].yaxis, [0.02, 0.05, 0.1])
    panels[2].set(title="(c) its mean, line: truth", ylabel=r"mean of $\alpha$")
    panels[2].legend()
    return {"task_emergence": figure}


def bias_panel(panel, theory, points):
    for color, successes in zip(ts.study.PALETTE[3:], SUCCESSES, strict=False):
        line, samples = (of.sel(successes=successes) for of in (theory, points))
        ts.study.line_and_points(panel, line, samples, color, label=f"$r$ = {successes}")
    panel.set(title="(a) bias of $r / K$", xlabel="pass rate $p$", ylabel="mean of $r / K$, over $p$")
    panel.set(xscale="log", ylim=(0.8, None))
    panel.legend()


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
