"""What is a learning-rate schedule worth? Two laws, fitted to networks under three schedules, predict others; and the
schedule that the better law likes best is trained, too.
"""

# %% [markdown]
# # Laws of learning-rate schedules
#
# Linear students of a teacher with a power-law spectrum and noisy labels, trained by SGD on fresh data. Their loss
# falls with the sum of learning rates, $S_1$, above a floor of noise that falls when the learning rate $\eta$ does. Two
# laws say how:
#
# $$L = L_0 + A S_1^{-\alpha} - C S_2, \qquad
# L = L_0 + A S_1^{-\alpha} - B \sum_k (\eta_{k-1} - \eta_k)\,[1 - (1 + C \eta_k^{-\gamma} S_k)^{-\beta}].$$
#
# $S_2$ adds up drops that are remembered for some steps; the multi-power law counts $S_k$, the sum of rates since the
# drop. For SGD on a quadratic loss, each mode forgets by the sum of rates alone, so that $\gamma = 0$.
#
# They are fitted to a constant rate, a cosine and one drop (without which one cosine leaves how long a drop is
# remembered open), and predict decays and another drop. A law that remembers by steps rewards even a rate of zero, at
# which nothing is learnt; the multi-power law does not, and it chooses the schedule that is trained.

# %%
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import theorysim as ts

TITLE = "Laws of learning-rate schedules"
SOURCES = ("arXiv:2408.11029", "arXiv:2503.12811")


class Preset(NamedTuple):
    """Steps of training, students under each schedule, and times at which their loss is taken."""

    steps: int
    repeats: int
    times: int


PRESETS = {
    "smoke": Preset(steps=512, repeats=64, times=8),
    "laptop": Preset(steps=768, repeats=128, times=12),
    "paper": Preset(steps=8192, repeats=2048, times=24),
}
INPUTS, BATCH, NOISE, PEAK = 128, 8, 3.0, 0.15
FITTED = ("constant", "cosine", "drop")
PREDICTED = ("linear decay", "sqrt decay", "late drop")
LAWS = {
    "annealing": (ts.scaling.schedule.annealing_law, {}),
    "multi_power": (ts.scaling.schedule.multi_power_law, {"gamma": 0.0}),
}
LABELS = {"annealing": "annealing law", "multi_power": "multi-power law"}


def schedules(steps):
    schedule, decay = ts.scaling.schedule, steps // 5
    return {
        "constant": schedule.constant(PEAK, steps),
        "cosine": schedule.cosine(PEAK, steps),
        "drop": schedule.two_stage(PEAK, 0.3 * PEAK, steps, switch=steps // 2),
        "linear decay": schedule.stable_decay(PEAK, steps, decay=decay),
        "sqrt decay": schedule.stable_decay(PEAK, steps, decay=decay, shape=schedule.one_minus_sqrt),
        "late drop": schedule.two_stage(PEAK, 0.1 * PEAK, steps, switch=3 * steps // 4),
    }


# %% [markdown]
# ## Students, fits, and the best schedule


# %%
def simulate(preset):
    teacher = ts.networks.power_law_teacher(INPUTS, eigenvalue_decay=1.0, target_decay=1.5, noise_var=NOISE)
    steps = np.unique(np.round(np.geomspace(preset.steps / 8, preset.steps, preset.times)).astype(int))
    identity = jnp.eye(INPUTS, dtype="float32")

    def students(schedules):
        """The same data for all schedules."""

        def student(schedule, key):
            def loss(readout, step):
                x, y = teacher.draw(jax.random.fold_in(key, step), BATCH)
                return jnp.square(x @ readout - y).mean() / 2

            start, sgd = jnp.zeros(INPUTS, "float32"), optax.sgd(ts.networks.schedule(schedule))
            return {"loss": ts.networks.train(loss, start, sgd, steps, lambda w: teacher.loss(identity, w))}

        options = {"key": jax.random.key(0), "repeats": preset.repeats, "common_random_numbers": True}
        grid = ts.Grid(schedule=ts.labelled(schedules))
        return ts.sweep(student, grid, **options, dims={"loss": ["step"]}, coords={"step": steps})

    given = schedules(preset.steps)
    trained = students(given)
    mean = trained["loss"].mean("repeat").transpose("schedule", "step").values.astype(float)
    curves = [
        ts.scaling.schedule.Curve(np.asarray(rates), steps, loss)
        for rates, loss in zip(given.values(), mean, strict=True)
    ]
    fits, predicted = zip(*(of_law(*law, curves) for law in LAWS.values()), strict=True)

    def best(peak):
        def final(rates):
            return ts.scaling.schedule.multi_power(rates, jnp.array([preset.steps]), **fits[-1].parameters)[0]

        return ts.scaling.schedule.optimise(final, peak=peak, length=preset.steps)._asdict()

    theory = ts.sweep(best, ts.Grid(peak=np.array([PEAK])), dims={"rates": ["time"]}).squeeze("peak", drop=True)
    own = students({"optimised": jnp.asarray(theory["rates"].values)})
    theory = theory.assign(
        predicted=(("law", "schedule", "step"), np.stack(predicted)),
        residual=("law", [np.sqrt(np.mean(fit.residuals**2)) for fit in fits]),
    ).assign_coords(law=list(LAWS), schedule=list(given), step=steps)
    return ts.study.tree(theory=theory, simulation=xr.concat([trained, own], "schedule"))


def of_law(make, fixed, curves):
    """A fit to the first three curves, and its predictions of all."""
    law, runs = make(curves)
    train = {column: values[runs["curve"] < len(FITTED)] for column, values in runs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ts.scaling.RunsWarning)
        fit = ts.scaling.fit(law, train, objective=ts.scaling.least_squares(), starts=16, fixed=fixed)
    return fit, np.asarray(fit(**{column: runs[column] for column in law.inputs})).reshape(len(curves), -1)


# %% [markdown]
# ## What must agree
#
# A law is as good as its residuals at the schedules that it was fitted to, and students have standard errors.


# %%
def claims(data):
    theory, loss = data["theory"].to_dataset(), final(data)
    residual = float(theory["residual"].sel(law="multi_power"))
    predicted = theory["predicted"].isel(step=-1)
    optimised = {"optimised": float(theory["loss"])}
    for name in (*PREDICTED, "optimised"):
        expected = optimised.get(name) or float(predicted.sel(law="multi_power", schedule=name))
        yield ts.study.agrees(
            f"final loss, {name}",
            f"multi-power law: final loss under the schedule '{name}', to which it is not fitted",
            expected,
            ts.study.mean_estimate(loss.sel(schedule=name)),
            next_order=2 * residual * expected,
            why="twice the residuals of the law where it is fitted",
        )
    yield better_law(predicted.sel(schedule=list(PREDICTED)), loss.sel(schedule=list(PREDICTED)))
    best = min(others(loss), key=lambda name: float(loss.sel(schedule=name).mean()))
    saved = ts.study.mean_estimate(loss.sel(schedule=best) - loss.sel(schedule="optimised"))
    yield ts.study.exceeds(
        "optimised schedule",
        "the schedule that the multi-power law likes best ends at a lower loss than the best of all others, "
        f"{best}: difference of the losses on the same data",
        0,
        saved,
    )


def better_law(predicted, loss):
    """Where the annealing law is furthest off: by how much further than the multi-power law."""
    mean, error = ts.study.mean_and_error(loss)
    off = abs(predicted - mean)
    worst = off.sel(law="annealing").idxmax("schedule").item()
    annealing, multi_power = (off.sel(law=law, schedule=worst).item() for law in ("annealing", "multi_power"))
    return ts.study.exceeds(
        "better law",
        f"error of the annealing law for the schedule '{worst}', less that of the multi-power law: these students "
        "forget by the sum of rates, not by steps",
        0,
        ts.study.Estimate(annealing - multi_power, error.sel(schedule=worst).item()),
    )


def final(data):
    return data["simulation"]["loss"].isel(step=-1).astype(float)


def others(loss):
    return [name for name in loss["schedule"].values if name != "optimised"]


# %% [markdown]
# ## Schedules, curves, and final losses


# %%
def draw(data):
    panels = schedule_panel, curve_panel, final_panel
    return {"annealing_law": ts.study.drawn(data, *panels, columns=3, height_to_width=1.0)}


COLORS = dict(zip((*FITTED, *PREDICTED), ts.study.PALETTE, strict=False)) | {"optimised": "black"}
STYLES = {"annealing": ":", "multi_power": "-"}


def schedule_panel(panel, data):
    best = data["theory"]["rates"].values
    for name, rates in schedules(len(best)).items():
        panel.plot(np.arange(len(best)), rates / PEAK, color=COLORS[name], linewidth=1)
    panel.plot(np.arange(len(best)), best / PEAK, color=COLORS["optimised"], linewidth=1.6, label="optimised")
    panel.legend(loc="lower left")
    panel.set(title="(a) schedules", xlabel="step", ylabel="learning rate / peak", ylim=(0, 1.05))


def curve_panel(panel, data):
    theory, loss = data["theory"].to_dataset(), data["simulation"]["loss"]
    late = {"step": np.flatnonzero(loss["step"] > loss["step"][-1] / 4)}
    theory, loss = theory.isel(late), loss.isel(late)
    for name in ("constant", "cosine", "sqrt decay", "late drop"):
        for law, style in STYLES.items():
            line = theory["predicted"].sel(law=law, schedule=name)
            panel.plot(line["step"], line, style, color=COLORS[name], linewidth=1)
        ts.study.points(panel, loss.sel(schedule=name), color=COLORS[name], markersize=3)
    for law, style in STYLES.items():
        panel.plot([], [], style, color="0.3", label=LABELS[law])
    panel.set(title="(b) training curves", xlabel="step", ylabel="loss")
    panel.legend(loc="upper right")


def final_panel(panel, data):
    theory, loss = data["theory"].to_dataset(), final(data)
    names = [*FITTED, *PREDICTED, "optimised"]
    markers = {"annealing": ("x", 4), "multi_power": ("|", 12)}
    for place, name in enumerate(reversed(names)):
        mean, error = ts.study.mean_and_error(loss.sel(schedule=name))
        panel.errorbar(mean, place, xerr=error, fmt="o", color=COLORS[name])
        for law, (marker, size) in markers.items():
            if name != "optimised":
                value = theory["predicted"].sel(law=law, schedule=name).isel(step=-1)
                panel.plot(value, place, marker, color="0.3", markersize=size)
    panel.plot(theory["loss"], 0, markers["multi_power"][0], color="0.3", markersize=12)
    handles = [
        panel.plot([], [], marker, color="0.3", markersize=min(size, 8), label=LABELS[law])[0]
        for law, (marker, size) in markers.items()
    ]
    panel.axhline(len(PREDICTED) + 0.5, color="0.8", linewidth=0.8)
    for side, word in ((1, "fitted"), (-1, "predicted")):
        corner = (0.97, len(PREDICTED) + 0.5 + 0.3 * side)
        panel.text(*corner, word, transform=panel.get_yaxis_transform(), ha="right", va="center", fontsize="small")
    panel.set_yticks(range(len(names)), names[::-1])
    panel.set(title="(c) final loss", xlabel="loss", ylim=(-0.6, len(names) - 0.4))
    panel.legend(handles=handles, loc="lower right")


# %%
if __name__ == "__main__":
    ts.study.set_up()
    data = simulate(PRESETS["smoke"])
    draw(data)
    print(*claims(data), sep="\n")
