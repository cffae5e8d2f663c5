"""The report on a user's training runs: a scaling law, how sure it is, its frontier, and what it says of other runs."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from theorysim import scaling
from theorysim.report import table as tables
from theorysim.report.doubts import doubts, repeated
from theorysim.report.extrapolation import HeldOut, held_out, reach
from theorysim.report.report import (
    Prediction,
    Report,
    beyond,
    common_of,
    parameter_table,
    require_intervals,
    require_same_length,
)
from theorysim.scaling.approaches import PowerLaw, isoflop
from theorysim.scaling.fit import named as law_named
from theorysim.scaling.minimise import Objective

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

AHEAD = 100.0  # how far beyond the largest run, in compute, the frontier is drawn
SIZES = {"n", "d"}


@dataclass(frozen=True, eq=False, kw_only=True)
class RunReport(Report):
    """A law fitted to runs. `runs` and `residuals` (log loss minus log prediction) are those fitted.

    `held_out` says how the smaller runs predict the largest, which prediction beyond the runs goes by; `compute` is
    that of the runs where a column gave it.
    """

    law: scaling.Law
    runs: dict[str, np.ndarray]
    residuals: np.ndarray
    held_out: HeldOut
    compute: np.ndarray | None = None
    group: str = ""

    @property
    def title(self) -> str:
        """The law and the group."""
        return f"{self.law.name} {self.group}".strip()

    def predict(self, **inputs: Any) -> Prediction:
        """The loss at inputs of one shape, with intervals at the report's level.

        **Raises:** `DataError` for inputs that are missing, unknown, or out of range.
        """
        missing = [name for name in self.law.inputs if name not in inputs]
        unknown = [name for name in inputs if name not in self.law.inputs]
        if missing or unknown:
            raise scaling.RunsError(
                f"{self.law.name} takes {list(self.law.inputs)}: missing {missing}, unknown {unknown}"
            )
        at = {name: np.atleast_1d(np.asarray(value, float)) for name, value in inputs.items()}
        for name, values in at.items():
            positive = self.law.inputs[name] in self.law.units
            if not np.isfinite(values).all() or (values < 0).any() or (positive and (values == 0).any()):
                kind = "positive numbers" if positive else "numbers >= 0"
                raise scaling.RunsError(f"{name}={values.tolist()}: give {kind}")
        at = dict(zip(at, np.broadcast_arrays(*at.values()), strict=True))
        loss, drawn = self.over_draws(lambda parameters: self.law.fn(**at, **parameters))
        scatter = np.random.default_rng(0).choice(self.residuals, drawn.shape)
        in_sample = self.percentiles(drawn * np.exp(scatter))
        wider = np.exp(self._widening(at))
        return Prediction(loss, self.percentiles(drawn), in_sample * np.stack([1 / wider, wider]), in_sample)

    def _widening(self, inputs: Mapping[str, Any]) -> np.ndarray:
        """By how much the log loss of a run is less sure beyond the runs than among them."""
        return self.held_out.widening(reach(self.law, inputs) - reach(self.law, self.runs).max())

    def beyond(self, **inputs: Any) -> list[str]:
        """The inputs that lie more than a factor of 10 beyond the runs, in words."""
        return [
            sentence
            for name, value in inputs.items()
            if self.law.inputs[name] in self.law.units
            for sentence in beyond(name, value, self.runs[name], "run")
        ]

    def frontier(self, compute: Any = None) -> "pd.DataFrame | None":
        """The best size, data and loss for each compute (6 n d), with bands; None for a law without both sizes.

        The loss' band is wider beyond the runs, as a run's; those of sizes are the law's own.
        """
        import pandas as pd

        if set(self.law.inputs) != SIZES:
            return None
        if compute is None:
            own = 6 * self.runs["n"] * self.runs["d"]
            compute = np.geomspace(own.min(), own.max() * AHEAD, 41)
        grid = jnp.asarray(compute, float)

        def best(parameters: Mapping[str, Any]) -> Any:
            if self.law.name == "chinchilla":
                return jnp.stack(scaling.chinchilla_frontier(parameters, grid))
            return jnp.stack(jax.vmap(lambda c: jnp.stack(scaling.allocate(self.law, parameters, c)), out_axes=1)(grid))

        middle, drawn = self.over_draws(best)
        low, high = self.percentiles(drawn)
        columns = {"compute": np.asarray(grid)}
        for i, name in enumerate(("n", "d", "loss")):
            wider = np.exp(self._widening({"n": middle[0], "d": middle[1]})) if name == "loss" else 1.0
            columns |= {name: middle[i], f"{name}_low": low[i] / wider, f"{name}_high": high[i] * wider}
        return pd.DataFrame(columns)

    def table(self) -> "pd.DataFrame":
        """Estimate, interval and standard error of each parameter, and of the frontier's exponent."""
        rows, drawn = dict(self.parameters), dict(self.draws)
        if self.law.name == "chinchilla":
            rows["n* ~ C^"] = float(scaling.frontier_exponent(self.parameters))
            drawn["n* ~ C^"] = np.asarray(scaling.frontier_exponent(self.draws))
        return parameter_table(rows, drawn, self.level)

    def tables(self) -> "dict[str, pd.DataFrame]":
        """The frontier, of a law with both sizes."""
        frontier = self.frontier()
        return {} if frontier is None else {"frontier": frontier}

    def figures(self) -> "dict[str, Figure]":
        """The figures that the law allows."""
        from theorysim.report import draw

        return draw.figures(self)

    def record(self) -> dict[str, Any]:
        """The law, its runs, and their residuals."""
        return {
            "law": self.law.name,
            "source": self.law.source,
            "group": self.group,
            "runs": {name: column.tolist() for name, column in self.runs.items()},
            "residuals": self.residuals.tolist(),
            "held_out": self.held_out._asdict(),
            "compute": None if self.compute is None else self.compute.tolist(),
        }

    def parabolas(self, name: str) -> "PowerLaw | str":
        """Approach 2 for n or d, by the compute that was given, else 6 n d; or why there is none."""
        compute = 6 * self.runs["n"] * self.runs["d"] if self.compute is None else self.compute
        try:
            return isoflop(compute, self.runs[name], self.runs["loss"])
        except scaling.RunsError as error:
            return str(error)

    def sentences(self) -> list[str]:
        """The certificate and the frontier, in words."""
        facts = self.certificate
        share = facts["share_of_starts_in_the_optimum"]
        weakest = facts["weakest_direction"]
        lines = [
            f"{len(self.residuals)} runs, {share:.0%} of starts end in the optimum, "
            f"gradient {facts['gradient_norm']:.0e}, residuals {facts['median_absolute_residual']:.2%} (median)",
            f"rank {facts['rank']} of {len(weakest)}, condition {facts['condition']:.0f}, loosest direction "
            + ", ".join(f"{value:+.2f} {name}" for name, value in weakest.items() if abs(value) > 0.1),
        ]
        lines.append(self.held_out.sentence())
        largest = 6 * self.runs["n"] * self.runs["d"] if set(self.law.inputs) == SIZES else None
        if largest is not None:
            at = np.array([10 * largest.max()])
            best = self.frontier(at)
            assert best is not None
            row = best.iloc[0]
            lines.append(
                f"at {at[0]:.2g} flops, ten times the largest run: n* = {row.n:.3g} "
                f"({row.n_low:.3g} to {row.n_high:.3g}), d* = {row.d:.3g} "
                f"({row.d_low:.3g} to {row.d_high:.3g}), loss {row.loss:.4g} "
                f"({row.loss_low:.4g} to {row.loss_high:.4g})"
            )
            lines += _of_parabolas(self.parabolas("n"))
        return lines


def _of_parabolas(found: PowerLaw | str) -> list[str]:
    """Approach 2 and the budgets that it leaves out, in words; none where runs have no budgets."""
    if isinstance(found, str):
        return []
    left_out = "".join(f"; {budget:.2g} flops left out: {reason}" for budget, reason in found.dropped.items())
    many = len(found.dropped) > 2 * len(found.compute)
    more = f"; {len(found.dropped)} left out" if many else left_out
    return [f"parabolas (approach 2) of {len(found.compute)} budgets: n* ~ C^{found.exponent:.3f}{more}"]


def fit(
    source: "Path | str | pd.DataFrame | Mapping[str, Any]",
    law: scaling.Law | str = "chinchilla",
    *,
    columns: Mapping[str, str] | None = None,
    group: Sequence[str] = (),
    best: bool = False,
    objective: Objective | None = None,
    samples: int = 1000,
    level: float | int = 0.95,
    seed: int = 0,
) -> list[RunReport]:
    """Fit a law to the runs of a file or table, one report for each configuration.

    `columns` says which column is an input of the law (or "loss") where its name does not; `group` names the columns
    that tell configurations apart; `best` keeps the lowest loss of each size and data (of learning rates tried, say).
    Intervals are percentiles of `samples` bootstrap fits. Raises and warns as
    [`theorysim.scaling.fit`] does, each message led by the configuration's name.
    """
    law = law if isinstance(law, scaling.Law) else law_named(law)
    require_intervals(samples, level)
    found = tables.find(tables.read(source), law, named=columns, group=group, best=best)
    return [fit_runs(runs, law, objective=objective, samples=samples, level=level, seed=seed) for runs in found]


def fit_runs(
    runs: tables.Runs,
    law: scaling.Law,
    *,
    objective: Objective | None = None,
    samples: int = 1000,
    level: float | int = 0.95,
    seed: int = 0,
) -> RunReport:
    """Fit a law to the runs of one configuration that [`find`][theorysim.report.find] found.

    **Raises:** `DataError` as [`theorysim.scaling.fit`] does, led by the configuration's name.
    """
    require_intervals(samples, level)
    open_too = set(law.inputs) != SIZES  # a frontier hangs on parameters, a prediction may not
    try:
        fitted = scaling.fit(law, runs.columns, objective=objective, allow_open=open_too)
    except scaling.RunsError as error:
        if runs.group:
            error.args = (f"{runs.group}: {error.args[0]}", *error.args[1:])
        raise
    draws = scaling.bootstrap(fitted, key=jax.random.key(seed), samples=samples)
    drawn = {name: np.asarray(column) for name, column in draws.parameters.items()}
    inputs = {name: fitted.runs[name] for name in law.inputs}
    for doubt in (*repeated(inputs, fitted.runs["loss"]), *doubts(fitted, drawn, level)):
        warnings.warn(doubt, scaling.RunsWarning, stacklevel=2)
    certificate = {
        "objective": fitted.value,
        "delta": float(fitted.problem.objective.delta),
        "gradient_norm": fitted.gradient_norm,
        "converged": fitted.converged,
        "share_of_starts_in_the_optimum": fitted.basin_share,
        "rank": fitted.rank,
        "condition": fitted.condition,
        "weakest_direction": fitted.weakest,
        "resamples_converged": draws.converged,
        "rms_residual": float(np.sqrt(np.mean(fitted.residuals**2))),
        "median_absolute_residual": float(np.median(np.abs(fitted.residuals))),
    }
    return RunReport(
        law=law,
        parameters=fitted.parameters,
        draws=drawn,
        runs=fitted.runs,
        residuals=fitted.residuals,
        held_out=held_out(law, fitted.runs, objective=objective, allow_open=open_too),
        compute=runs.compute,
        certificate=certificate,
        notes=runs.notes,
        level=level,
        group=runs.group,
    )


def of_json(saved: dict[str, Any]) -> RunReport:
    """A report from what its `to_json` wrote.

    **Raises:** `DataError` for columns that do not belong together.
    """
    law = law_named(saved["law"])
    common = common_of(saved, law.parameters)
    runs = {name: np.asarray(saved["runs"][name], float) for name in (*law.inputs, "loss")}
    residuals = np.asarray(saved["residuals"], float)
    require_same_length("runs", {**runs, "residuals": residuals})
    compute = saved["compute"] if saved["compute"] is None else np.asarray(saved["compute"], float)
    if compute is not None:
        require_same_length("compute", {"compute": compute, "residuals": residuals})
    return RunReport(
        law=law,
        runs=runs,
        residuals=residuals,
        held_out=HeldOut(**saved["held_out"]),
        compute=compute,
        group=saved["group"],
        **common,
    )
