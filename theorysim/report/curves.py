"""The report on a user's training curves: a law of learning-rate schedules, and what it says of another schedule."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from theorysim import scaling
from theorysim.report import folder as folders
from theorysim.report import table as tables
from theorysim.report.scaling import FORMAT, Prediction, beyond, parameter_table, parameters_of, require_intervals
from theorysim.scaling import schedule

if TYPE_CHECKING:
    import pandas as pd

LAWS = {name: law for name, law in scaling.LAWS.items() if isinstance(law, schedule.ScheduleLaw)}
USUAL = {
    "step": ("step", "steps", "iteration", "iter", "update"),
    "lr": ("lr", "learning_rate", "learning_rates", "eta"),
    "loss": tables.USUAL["loss"],
}
BLOCKS = 8  # of consecutive losses that a resample draws together, a curve
LOSSES = 48  # of a curve that are fitted, evenly in steps: neighbours say the same, and each sums over its past


@dataclass(frozen=True, eq=False)
class CurveReport:
    """A law of schedules fitted to curves, with the parameters of its bootstrap."""

    law: str
    parameters: dict[str, float]
    draws: dict[str, np.ndarray]
    curves: dict[str, schedule.Curve]
    residuals: dict[str, np.ndarray]
    certificate: dict[str, Any]
    notes: tuple[str, ...] = ()
    level: float | int = 0.95

    @property
    def title(self) -> str:
        """The law."""
        return self.law

    def predict(self, rates: Any, steps: Any = None) -> Prediction:
        """Losses under another schedule, one learning rate a step, after so many steps (all of them by default)."""
        fn = LAWS[self.law].fn
        rates = jnp.asarray(rates, float)
        steps = np.array([len(rates)]) if steps is None else np.asarray(steps)
        loss = np.asarray(fn(rates, steps, **self.parameters))
        drawn = jax.jit(jax.vmap(lambda parameters: fn(rates, steps, **parameters)))(
            {name: jnp.asarray(column) for name, column in self.draws.items()}
        )
        drawn = np.asarray(drawn)
        scatter = np.random.default_rng(0).choice(np.concatenate(list(self.residuals.values())), drawn.shape)
        ends = [(1 - self.level) / 2, (1 + self.level) / 2]
        return Prediction(loss, np.quantile(drawn, ends, axis=0), np.quantile(drawn * np.exp(scatter), ends, axis=0))

    def beyond(self, rates: Any) -> list[str]:
        """What of a schedule lies more than a factor of 10 beyond the curves, in words."""
        own = self.curves.values()
        return [
            *beyond("the number of steps", len(rates), [len(curve.rates) for curve in own], "curve"),
            *beyond("the largest lr", np.max(rates), [curve.rates.max() for curve in own], "curve"),
        ]

    def table(self) -> "pd.DataFrame":
        """Estimate, interval and standard error of each parameter."""
        return parameter_table(self.parameters, self.draws, self.level)

    def write(self, folder: Path | str) -> Path:
        """Write fit.json and the figure to a folder, all or nothing; those of an earlier report go."""
        from theorysim.report import draw

        def fill(new: Path) -> None:
            (new / "fit.json").write_text(self.to_json())
            draw.save_curves(self, new)

        return folders.write(folder, fill)

    def to_json(self) -> str:
        """All of the report but its figure."""
        return json.dumps(
            {
                "format": FORMAT,
                "theorysim": version("theorysim"),
                "law": self.law,
                "level": self.level,
                "parameters": self.parameters,
                "intervals": {name: row.tolist() for name, row in self.table()[["low", "high"]].iterrows()},
                "certificate": self.certificate,
                "notes": self.notes,
                "curves": {
                    name: {"rates": curve.rates.tolist(), "steps": curve.steps.tolist(), "loss": curve.loss.tolist()}
                    for name, curve in self.curves.items()
                },
                "residuals": {name: column.tolist() for name, column in self.residuals.items()},
                "draws": {name: column.tolist() for name, column in self.draws.items()},
            }
        )

    def sentences(self) -> list[str]:
        """The certificate in words."""
        facts = self.certificate
        return [
            f"{facts['losses']} losses of {len(self.curves)} curves, "
            f"{facts['share_of_starts_in_the_optimum']:.0%} of starts end in the optimum, "
            f"gradient {facts['gradient_norm']:.0e}, residuals {facts['median_absolute_residual']:.2%} (median)",
            *(f"{name}: residuals {np.abs(column).mean():.2%} (mean)" for name, column in self.residuals.items()),
        ]

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in (*self.notes, *self.sentences()))
        return f"<h4>{self.law}</h4>{self.table().to_html(float_format='{:.4g}'.format)}<ul>{notes}</ul>"


def are_curves(table: "pd.DataFrame") -> bool:
    """Whether a table has a step and a learning rate, but not a size and data each: a training curve, not runs."""
    curve = all(tables.matches(table, USUAL[name]) for name in ("step", "lr"))
    return curve and not all(tables.matches(table, tables.USUAL[name]) for name in ("n", "d"))


def fit_curves(
    sources: "Sequence[Path | str | pd.DataFrame]",
    law: str = "annealing",
    *,
    warmup: int = 0,
    samples: int = 200,
    level: float | int = 0.95,
    seed: int = 0,
) -> CurveReport:
    """Fit a law of schedules, "annealing" or "multi_power", to training curves with columns step, lr and loss.

    Steps count from 0, and the rates between those written are interpolated. `warmup` steps rise linearly from 0 to the
    largest rate; what lies before the first written step, and after them, has its rate. At most 48 losses of a curve
    are fitted, evenly spread. A resample draws blocks of consecutive losses, an eighth of a curve each: neighbours have
    errors in common.
    """
    require_intervals(samples, level)
    if law not in LAWS:
        raise scaling.RunsError(f"law={law!r}: curves of step, lr and loss go to {' or '.join(LAWS)}")
    notes: list[str] = []
    names = [Path(s).stem if isinstance(s, (str, Path)) else f"curve {i}" for i, s in enumerate(sources)]
    curves = {name: _curve(tables.read(s), name, warmup, notes) for name, s in zip(names, sources, strict=True)}
    if len(curves) < len(names):
        raise scaling.RunsError(f"curves {names}: give files of different names")
    fittable = LAWS[law].of_curves(list(curves.values()))
    found = scaling.fit(fittable.law, fittable.runs, starts=16)
    which, order = fittable.runs["curve"].astype(int), fittable.runs["row"]
    counts = np.bincount(which)
    place = order - np.concatenate([[0], np.cumsum(counts)[:-1]])[which]
    blocks = BLOCKS * which + (place * BLOCKS // counts[which]).astype(int)
    draws = scaling.bootstrap(found, key=jax.random.key(seed), samples=samples, groups=blocks)
    return CurveReport(
        law=law,
        parameters=found.parameters,
        draws={name: np.asarray(column) for name, column in draws.parameters.items()},
        curves=curves,
        residuals={name: found.residuals[which == i] for i, name in enumerate(curves)},
        certificate={
            "losses": len(which),
            "objective": found.value,
            "gradient_norm": found.gradient_norm,
            "converged": found.converged,
            "share_of_starts_in_the_optimum": found.basin_share,
            "resamples_converged": draws.converged,
            "median_absolute_residual": float(np.median(np.abs(found.residuals))),
        },
        notes=tuple(dict.fromkeys(notes)),
        level=level,
    )


def read_rates(table: "pd.DataFrame", warmup: int, name: str = "the schedule") -> np.ndarray:
    """One learning rate a step, from a table of some of them; messages call it by its `name`."""
    taken = _columns(table, ("step", "lr"), name)
    step, lr = (tables.numbers(table, column, f"{name}: ").to_numpy() for column in taken.values())
    _require(np.isfinite(step) & (step >= 0) & (step == np.floor(step)), step, f"{name}: step", "whole numbers >= 0")
    if (np.diff(step) <= 0).any():
        raise scaling.RunsError(f"{name}: steps must increase: sort the rows, and keep one of each step")
    _require(np.isfinite(lr) & (lr >= 0), lr, f"{name}: {taken['lr']}", "learning rates >= 0")
    if not lr.any():
        raise scaling.RunsError(f"{name}: {taken['lr']} is 0 in all rows: give the learning rates that were used")
    if not 0 <= warmup <= step[-1] + 1:
        raise scaling.RunsError(f"warmup={warmup}: give a number of steps up to {int(step[-1]) + 1}")
    rates = np.interp(np.arange(int(step[-1]) + 1), step, lr)
    rates[:warmup] = np.linspace(0, lr.max(), warmup)
    return rates


def _columns(table: "pd.DataFrame", needed: Sequence[str], name: str) -> dict[str, str]:
    found = {column: tables.matches(table, USUAL[column]) for column in needed}
    missing = [column for column, names in found.items() if not names]
    if missing:
        kind = "curve" if "loss" in needed else "schedule"
        columns = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise scaling.RunsError(f"{name} lacks {', '.join(missing)}: a {kind} has the columns {columns}")
    return {column: names[0] for column, names in found.items()}


def _require(good: np.ndarray, values: np.ndarray, what: str, kind: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise scaling.RunsError(f"{what} is {values[row]:g} in row {row}: give {kind}, or drop the row")


def _curve(table: "pd.DataFrame", name: str, warmup: int, notes: list[str]) -> schedule.Curve:
    taken = _columns(table, ("step", "lr", "loss"), name)
    notes += [f"{column} is the column {found!r}" for column, found in taken.items()]
    rates = read_rates(table, warmup, name)
    step = tables.numbers(table, taken["step"]).to_numpy().astype(int)
    loss = tables.numbers(table, taken["loss"], f"{name}: ").to_numpy()
    _require(np.isfinite(loss) & (loss > 0), loss, f"{name}: {taken['loss']}", "positive losses")
    still = int((np.cumsum(rates)[step] == 0).sum())
    if still:
        raise scaling.RunsError(
            f"{name}: the learning rate, its warm-up included, is 0 up to row {still - 1}, where no law has a loss: "
            "drop the rows up to it"
        )
    if step[0] > warmup:
        notes.append(f"{name}: steps {warmup} to {step[0] - 1} have the first rate written, {rates[step[0]]:.3g}")
    some = np.unique(np.linspace(0, len(step) - 1, LOSSES).astype(int))
    return schedule.Curve(rates, step[some] + 1, loss[some])


def of_json(saved: dict[str, Any]) -> CurveReport:
    """A report from what [`CurveReport.to_json`] wrote."""
    parameters, draws = parameters_of(saved, LAWS[saved["law"]])
    return CurveReport(
        law=saved["law"],
        parameters=parameters,
        draws=draws,
        curves={
            name: schedule.Curve(np.asarray(curve["rates"]), np.asarray(curve["steps"]), np.asarray(curve["loss"]))
            for name, curve in saved["curves"].items()
        },
        residuals={name: np.asarray(column) for name, column in saved["residuals"].items()},
        certificate=saved["certificate"],
        notes=tuple(saved["notes"]),
        level=saved["level"],
    )
