"""The report on a user's training curves: a law of learning-rate schedules, and what it says of another schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theorysim import scaling
from theorysim.checks import DataError
from theorysim.report import table as tables
from theorysim.report.report import Prediction, Report, beyond, common_of, require_intervals
from theorysim.scaling import schedule

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LAWS = schedule.LAWS
USUAL = {
    "step": ("step", "steps", "iteration", "iter", "update"),
    "lr": ("lr", "learning_rate", "learning_rates", "eta"),
    "loss": tables.USUAL["loss"],
}
BLOCKS = 8  # of consecutive losses per curve; a resample draws each together
LOSSES = 48  # of a curve that are fitted, evenly in steps: neighbours say the same, and each sums over its past


@dataclass(frozen=True, eq=False, kw_only=True)
class CurveReport(Report):
    """A law of schedules fitted to training curves."""

    law: str
    curves: dict[str, schedule.Curve]
    residuals: dict[str, np.ndarray]

    @property
    def title(self) -> str:
        """The law."""
        return self.law

    def predict(self, rates: Any, steps: Any = None) -> Prediction:
        """Losses under another schedule, one learning rate per update, after so many steps (all of them by default)."""
        fn = LAWS[self.law].fn
        rates = jnp.asarray(rates, float)
        steps = np.array([len(rates)]) if steps is None else np.asarray(steps)
        loss, drawn = self.over_draws(lambda parameters: fn(rates, steps, **parameters))
        scatter = np.random.default_rng(0).choice(np.concatenate(list(self.residuals.values())), drawn.shape)
        run = self.percentiles(drawn * np.exp(scatter))
        return Prediction(loss, self.percentiles(drawn), run, run)

    def beyond(self, rates: Any) -> list[str]:
        """What of a schedule lies more than a factor of 10 beyond the curves, in words."""
        own = self.curves.values()
        return [
            *beyond("the number of steps", len(rates), [len(curve.rates) for curve in own], "curve"),
            *beyond("the largest lr", np.max(rates), [curve.rates.max() for curve in own], "curve"),
        ]

    def figures(self) -> "dict[str, Figure]":
        """Schedules, losses and residuals."""
        from theorysim.report import draw

        return {"fit": draw.curves(self)}

    def record(self) -> dict[str, Any]:
        """The law, the curves, and their residuals."""
        return {
            "law": self.law,
            "curves": {
                name: {"rates": curve.rates.tolist(), "steps": curve.steps.tolist(), "loss": curve.loss.tolist()}
                for name, curve in self.curves.items()
            },
            "residuals": {name: column.tolist() for name, column in self.residuals.items()},
        }

    def sentences(self) -> list[str]:
        """The certificate in words."""
        facts = self.certificate
        return [
            f"{facts['losses']} losses of {len(self.curves)} curves, "
            f"{facts['share_of_starts_in_the_optimum']:.0%} of starts end in the optimum, "
            f"gradient {facts['gradient_norm']:.0e}, residuals {facts['median_absolute_residual']:.2%} (median)",
            *(f"{name}: residuals {np.abs(column).mean():.2%} (mean)" for name, column in self.residuals.items()),
        ]


def are_curves(table: "pd.DataFrame") -> bool:
    """Whether a table has a step and a learning rate, but not a size and data each: a training curve, not runs."""
    curve = all(tables.matches(table, USUAL[name]) for name in ("step", "lr"))
    return curve and not all(tables.matches(table, tables.USUAL[name]) for name in ("n", "d"))


class Curves(NamedTuple):
    """Training curves by name, and what was taken for what."""

    curves: dict[str, schedule.Curve]
    notes: tuple[str, ...]


def read_curves(sources: "Sequence[Path | str | pd.DataFrame]", *, warmup: int = 0) -> Curves:
    """Training curves with columns step, lr and loss, one per file, called by the files' names.

    Steps count from 0, and the rates between those written are interpolated. `warmup` steps rise linearly from 0 to the
    largest rate; what lies before the first written step, and after them, has its rate. At most 48 losses of a curve
    are kept, evenly spread.

    **Raises:** `DataError` for a curve that lacks a column, holds words, steps that do not increase, or losses that
    are not positive.
    """
    notes: list[str] = []
    names = [Path(s).stem if isinstance(s, (str, Path)) else f"curve {i}" for i, s in enumerate(sources)]
    curves = {name: _curve(tables.read(s), name, warmup, notes) for name, s in zip(names, sources, strict=True)}
    if len(curves) < len(names):
        raise DataError(f"curves {names}: give files of different names")
    return Curves(curves, tuple(dict.fromkeys(notes)))


def fit_curves(
    sources: "Sequence[Path | str | pd.DataFrame]",
    law: str = "annealing",
    *,
    warmup: int = 0,
    samples: int = 200,
    level: float | int = 0.95,
    seed: int = 0,
) -> CurveReport:
    """Fit a law of schedules, "annealing" or "multi_power", to training curves that [`read_curves`] reads.

    A resample draws blocks of consecutive losses, an eighth of its curve each: neighbours have errors in common.
    """
    return fit_read(read_curves(sources, warmup=warmup), law, samples=samples, level=level, seed=seed)


def fit_read(
    found: Curves, law: str = "annealing", *, samples: int = 200, level: float | int = 0.95, seed: int = 0
) -> CurveReport:
    """[`fit_curves`] of curves that were read.

    **Raises:** `DataError` for a law that is not one of schedules, too few `samples`, and a `level` outside of (0,
    1).
    """
    require_intervals(samples, level)
    if law not in LAWS:
        raise DataError(f"law={law!r}: curves of step, lr and loss go to {' or '.join(LAWS)}")
    fittable = schedule.law_of(LAWS[law], list(found.curves.values()))
    fitted = scaling.fit(fittable.law, fittable.runs, starts=16)
    which = fittable.runs["curve"].astype(int)
    draws = scaling.bootstrap(
        fitted, key=jax.random.key(seed), samples=samples, groups=_blocks(which, fittable.runs["row"])
    )
    return CurveReport(
        law=law,
        parameters=fitted.parameters,
        draws={name: np.asarray(column) for name, column in draws.parameters.items()},
        curves=found.curves,
        residuals={name: fitted.residuals[which == i] for i, name in enumerate(found.curves)},
        certificate={
            "losses": len(which),
            "objective": fitted.value,
            "gradient_norm": fitted.gradient_norm,
            "converged": fitted.converged,
            "share_of_starts_in_the_optimum": fitted.basin_share,
            "resamples_converged": draws.converged,
            "median_absolute_residual": float(np.median(np.abs(fitted.residuals))),
        },
        notes=found.notes,
        level=level,
    )


def _blocks(which: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The block of consecutive losses that each loss belongs to."""
    counts = np.bincount(which)
    place = order - np.concatenate([[0], np.cumsum(counts)[:-1]])[which]
    return BLOCKS * which + (place * BLOCKS // counts[which]).astype(int)


def read_rates(table: "pd.DataFrame", warmup: int, name: str = "the schedule") -> np.ndarray:
    """One learning rate per update, from a table of some of them; messages call it by its `name`.

    **Raises:** `DataError` for rows that are no schedule, and a `warmup` beyond it.
    """
    taken = _columns(table, ("step", "lr"), name)
    step, lr = (tables.numbers(table, column, f"{name}: ").to_numpy() for column in taken.values())
    _require(np.isfinite(step) & (step >= 0) & (step == np.floor(step)), step, f"{name}: step", "whole numbers >= 0")
    if (np.diff(step) <= 0).any():
        raise DataError(f"{name}: steps must increase: sort the rows, and keep one of each step")
    _require(np.isfinite(lr) & (lr >= 0), lr, f"{name}: {taken['lr']}", "learning rates >= 0")
    if not lr.any():
        raise DataError(f"{name}: {taken['lr']} is 0 in all rows: give the learning rates that were used")
    if not 0 <= warmup <= step[-1] + 1:
        raise DataError(f"warmup={warmup}: give a number of steps up to {int(step[-1]) + 1}")
    rates = np.interp(np.arange(int(step[-1]) + 1), step, lr)
    rates[:warmup] = np.linspace(0, lr.max(), warmup)
    return rates


def _columns(table: "pd.DataFrame", needed: Sequence[str], name: str) -> dict[str, str]:
    found = {column: tables.matches(table, USUAL[column]) for column in needed}
    missing = [column for column, names in found.items() if not names]
    if missing:
        kind = "curve" if "loss" in needed else "schedule"
        columns = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise DataError(f"{name} lacks {', '.join(missing)}: a {kind} has the columns {columns}")
    return {column: names[0] for column, names in found.items()}


def _require(good: np.ndarray, values: np.ndarray, what: str, kind: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(f"{what} is {values[row]:g} in row {row}: give {kind}, or drop the row")


def _curve(table: "pd.DataFrame", name: str, warmup: int, notes: list[str]) -> schedule.Curve:
    taken = _columns(table, ("step", "lr", "loss"), name)
    notes += [f"{column} is the column {found!r}" for column, found in taken.items()]
    rates = read_rates(table, warmup, name)
    step = tables.numbers(table, taken["step"]).to_numpy().astype(int)
    loss = tables.numbers(table, taken["loss"], f"{name}: ").to_numpy()
    _require(np.isfinite(loss) & (loss > 0), loss, f"{name}: {taken['loss']}", "positive losses")
    still = int((np.cumsum(rates)[step] == 0).sum())
    if still:
        raise DataError(
            f"{name}: the learning rate, its warm-up included, is 0 up to row {still - 1}, where no law has a loss: "
            "drop the rows up to it"
        )
    if step[0] > warmup:
        notes.append(f"{name}: steps {warmup} to {step[0] - 1} have the first rate written, {rates[step[0]]:.3g}")
    some = np.unique(np.linspace(0, len(step) - 1, LOSSES).astype(int))
    return schedule.Curve(rates, step[some] + 1, loss[some])


def of_json(saved: dict[str, Any]) -> CurveReport:
    """A report from what its `to_json` wrote."""
    return CurveReport(
        law=saved["law"],
        curves={
            name: schedule.Curve(np.asarray(curve["rates"]), np.asarray(curve["steps"]), np.asarray(curve["loss"]))
            for name, curve in saved["curves"].items()
        },
        residuals={name: np.asarray(column) for name, column in saved["residuals"].items()},
        **common_of(saved, LAWS[saved["law"]].parameters),
    )
