"""Does drawing again until a verifier accepts replace a better model? Where the verifier errs, the share of correct
answers has a ceiling that no number of draws lifts, and mistakes that cost make the best number of draws finite.
"""

# %% [markdown]
# # Resampling with an imperfect verifier
#
# A draw solves a task with probability $p$; right answers are accepted with probability $t$, wrong ones with $f$, so
# that $q = p t + (1 - p) f$ of all draws are. With at most $K$ draws an answer is accepted with probability
# $1 - (1 - q)^K$, and a share $p t / q$ of the accepted is right, whatever $K$. Draw $K$ adds to the utility
#
# $$\mathrm{mean}\big[(p t - c\, (1 - p) f)\, (1 - q)^{K - 1}\big],$$
#
# where an accepted mistake costs $c$. The hard tasks of a population last longest: where they lose, so do many draws.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import theorysim as ts

TITLE = "Resampling with an imperfect verifier"
SOURCES = ("arXiv:2411.17501",)


class Preset(NamedTuple):
    """Tasks that are tried in each batch, batches, and draws of each task at most."""

    tries: int
    batches: int
    draws: int


PRESETS = {
    "smoke": Preset(2048, batches=16, draws=64),
    "laptop": Preset(8192, batches=32, draws=256),
    "paper": Preset(2**18, batches=256, draws=2048),
}
MODELS = {"weak": 0.15, "middle": 0.35, "strong": 1.0}  # Beta(shape, 1) of the chance to solve a task
COSTS = (0.25, 1.0, 4.0)
TRUE_POSITIVE, FALSE_POSITIVE = 0.95, 0.05  # of the panels over draws
TASKS = 1000


def population(shape):
    """Equally likely quantiles of the chance to solve a task."""
    return jnp.asarray(stats.beta(shape, 1).ppf((np.arange(TASKS) + 0.5) / TASKS))


# %% [markdown]
# ## Draws, one by one


# %%
def simulate(preset):
    models = ts.labelled({model: population(shape) for model, shape in MODELS.items()})
    numbers = np.unique(np.round(np.geomspace(1, preset.draws, 60))).astype(float)
    shown = 2.0 ** np.arange(int(np.log2(preset.draws)) + 1)
    verifier = ts.scaling.verifier

    def of_model(model, draws):
        found = verifier.resample(model, TRUE_POSITIVE, FALSE_POSITIVE, draws)
        return {"accepted": found.accepted.mean(), "correct": found.correct.mean()}

    def tasks(success):
        return verifier.Tasks(success, jnp.ones(TASKS))

    def utility(cost, draws):
        options = {"true_positive": TRUE_POSITIVE, "false_positive": FALSE_POSITIVE, "cost": cost}
        return {"utility": verifier.utility(tasks(population(MODELS["middle"])), draws, **options)}

    def best(model, false_positive, cost):
        found = verifier.best_draws(tasks(model), true_positive=TRUE_POSITIVE, false_positive=false_positive, cost=cost)
        return {"best": found.draws, "utility": found.utility, "unlimited": found.unlimited, "certain": found.certain}

    def tried(model, key):
        """When each try was accepted, and whether it was right; one draw after the other."""
        of_tasks, of_draws = jax.random.split(key)
        p = model[jax.random.randint(of_tasks, (preset.tries,), 0, TASKS)]

        def attempt(state, key):
            solved, judged = jax.random.uniform(key, (2, preset.tries), jnp.float32)
            right = solved < p
            accepted = ~state[0] & (judged < jnp.where(right, TRUE_POSITIVE, FALSE_POSITIVE))
            state = state[0] | accepted, state[1] | (accepted & right)
            return state, jnp.stack([state[0].mean(dtype=p.dtype), state[1].mean(dtype=p.dtype)])

        no = jnp.zeros(preset.tries, bool)
        _, shares = jax.lax.scan(attempt, (no, no), jax.random.split(of_draws, preset.draws))
        at = jnp.asarray(shown, int) - 1
        return {"accepted": shares[at, 0], "correct": shares[at, 1]}

    simulation = ts.sweep(
        tried,
        ts.Grid(model=models),
        key=jax.random.key(0),
        repeats=preset.batches,
        dims={"accepted": ["draws"], "correct": ["draws"]},
        coords={"draws": shown},
    )
    lines = ts.sweep(of_model, ts.Grid(model=models, draws=np.union1d(numbers, shown)))
    grid = ts.Grid(model=models, false_positive=np.geomspace(1e-4, 0.5, 48), cost=np.array(COSTS))
    return ts.study.tree(
        theory=lines,
        simulation=simulation,
        utility=ts.sweep(utility, ts.Grid(cost=np.array(COSTS), draws=np.union1d(numbers, shown))),
        best=ts.sweep(best, grid),
    )


# %% [markdown]
# ## What must agree


# %%
def claims(data):
    theory, points = data["theory"].to_dataset(), data["simulation"].to_dataset()
    most = points["draws"].values[-1]
    for model in points["model"].values:
        yield ts.study.agrees(
            f"correct, {model}",
            f"{model} model: share of correct answers with {most:.0f} draws",
            float(theory["correct"].sel(model=model, draws=most)),
            ts.study.mean_estimate(points["correct"].sel(model=model, draws=most)),
            span=(0, 1),
        )
    for cost in COSTS:
        line = data["utility"]["utility"].sel(cost=cost, draws=points["draws"])
        utility = utility_of(points, cost).sel(model="middle")
        yield ts.study.agrees(
            f"utility, cost {cost:g}",
            f"middle model, mistakes cost {cost:g}: utility, mean over numbers of draws",
            float(line.mean()),
            ts.study.mean_estimate(utility.mean("draws")),
        )
        best = float(line.idxmax("draws"))
        if best < most:
            yield ts.study.exceeds(
                f"best number, cost {cost:g}",
                f"middle model, mistakes cost {cost:g}: utility of the best number of draws in theory, {best:.0f}, "
                f"less that of {most:.0f}; more draws do harm",
                0,
                ts.study.mean_estimate(utility.sel(draws=best) - utility.sel(draws=most)),
            )


def utility_of(points, cost):
    return points["correct"] - cost * (points["accepted"] - points["correct"])


# %% [markdown]
# ## Theory as lines, draws as points


# %%
def draw(data):
    figure, panels = plt.subplots(1, 3, figsize=ts.study.page(1, 3, 1.05))
    theory, points = data["theory"].to_dataset(), data["simulation"].to_dataset()
    for color, model in zip(ts.study.PALETTE, theory["model"].values, strict=False):
        line, samples = (of["correct"].sel(model=model) for of in (theory, points))
        ts.study.line_and_points(panels[0], line, samples, color, label=f"{model} model")
        best = data["best"]["best"].sel(model=model, cost=1.0)
        panels[2].plot(best["false_positive"], best.where(np.isfinite(best)), color=color)
    for color, cost in zip(ts.study.PALETTE[3:], COSTS, strict=False):
        line, samples = data["utility"]["utility"].sel(cost=cost), utility_of(points, cost).sel(model="middle")
        ts.study.line_and_points(panels[1], line, samples, color, label=f"$c$ = {cost:g}")
        top = line[int(line.argmax("draws"))]
        panels[1].plot(top["draws"], top, marker="v", color="0.2", zorder=3, linestyle="none")
    for panel in panels[:2]:
        panel.set_xscale("log", base=2)
        panel.set_xlabel("draws $K$")
    panels[0].set(title="(a) correct answers", ylabel="share of tasks", ylim=(0, 1))
    panels[0].legend(loc="lower right")
    panels[1].set(title="(b) utility, middle model", ylabel="correct $-$ $c$ $\\times$ wrong")
    panels[1].legend(loc="lower left")
    panels[2].set(title="(c) best number, $c$ = 1", xlabel="false positives $f$", ylabel="draws $K^*$")
    panels[2].set(xscale="log", yscale="log")
    return {"verifier_ceiling": figure}


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
