"""The report on a user's training runs: a scaling law, how sure it is, its frontier, and what it says of other runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theorysim import scaling
from theorysim.report import folder as folders
from theorysim.report import table as tables
from theorysim.scaling.fit import named as law_named
from theorysim.scaling.interval import require_level, require_samples
from theorysim.scaling.minimise import Objective

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
AHEAD = 100.0  # how far beyond the largest run, in compute, the frontier is drawn
FAR = 10.0  # times the runs: beyond, a prediction says so
SIZES = {"n", "d"}


class Prediction(NamedTuple):
    """The law's loss, the interval of the law, and that of one more run, which scatters about it as the others do."""

    loss: np.ndarray
    law: np.ndarray
    run: np.ndarray


@dataclass(frozen=True, eq=False)
class Report:
    """A fitted law with the parameters of its bootstrap; the same after it was written and loaded.

    `runs` and `residuals` (log loss minus log prediction) are those fitted, `certificate` says how the optimum was
    found, `notes` what was taken for what.
    """

    law: scaling.Law
    parameters: dict[str, float]
    draws: dict[str, np.ndarray]
    runs: dict[str, np.ndarray]
    residuals: np.ndarray
    certificate: dict[str, Any]
    notes: tuple[str, ...] = ()
    level: float = 0.95
    group: str = ""

    @property
    def title(self) -> str:
        """The law and the group."""
        return f"{self.law.name} {self.group}".strip()

    def interval(self, name: str) -> np.ndarray:
        """Percentiles of a parameter over resamples."""
        return self._percentiles(self.draws[name])

    def predict(self, **inputs: Any) -> Prediction:
        """The loss at inputs of one shape, with intervals at the report's level."""
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
        loss = np.asarray(self.law.fn(**at, **self.parameters))
        drawn = self._over_draws(lambda parameters: self.law.fn(**at, **parameters))
        scatter = np.random.default_rng(0).choice(self.residuals, drawn.shape)
        return Prediction(loss, self._percentiles(drawn), self._percentiles(drawn * np.exp(scatter)))

    def beyond(self, **inputs: Any) -> list[str]:
        """The inputs that lie more than a factor of 10 beyond the runs, in words."""
        return [
            sentence
            for name, value in inputs.items()
            if self.law.inputs[name] in self.law.units
            for sentence in beyond(name, value, self.runs[name], "run")
        ]

    def frontier(self, compute: Any = None) -> "pd.DataFrame | None":
        """The best size, data and loss for each compute (6 n d), with bands; None for a law without both sizes."""
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

        middle = np.asarray(best(self.parameters))
        low, high = self._percentiles(self._over_draws(best))
        columns = {"compute": np.asarray(grid)}
        for i, name in enumerate(("n", "d", "loss")):
            columns |= {name: middle[i], f"{name}_low": low[i], f"{name}_high": high[i]}
        return pd.DataFrame(columns)

    def table(self) -> "pd.DataFrame":
        """Estimate, interval and standard error of each parameter, and of the frontier's exponent."""
        rows, drawn = dict(self.parameters), dict(self.draws)
        if self.law.name == "chinchilla":
            rows["n* ~ C^"] = float(scaling.exponent(self.parameters))
            drawn["n* ~ C^"] = np.asarray(scaling.exponent(self.draws))
        return parameter_table(rows, drawn, self.level)

    def write(self, folder: Path | str) -> Path:
        """Write fit.json, frontier.csv and the figures to a folder, all or nothing; those of an earlier report go."""
        from theorysim.report import draw

        def fill(new: Path) -> None:
            (new / "fit.json").write_text(self.to_json())
            frontier = self.frontier()
            if frontier is not None:
                frontier.to_csv(new / "frontier.csv", index=False)
            draw.save_all(self, new)

        return folders.write(folder, fill)

    def to_json(self) -> str:
        """All of the report but its figures."""
        return json.dumps(
            {
                "format": FORMAT,
                "theorysim": version("theorysim"),
                "law": self.law.name,
                "source": self.law.source,
                "group": self.group,
                "level": self.level,
                "parameters": self.parameters,
                "intervals": {name: self.interval(name).tolist() for name in self.parameters},
                "certificate": self.certificate,
                "notes": self.notes,
                "runs": {name: column.tolist() for name, column in self.runs.items()},
                "residuals": self.residuals.tolist(),
                "draws": {name: column.tolist() for name, column in self.draws.items()},
            },
            indent=1,
        )

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
        return lines

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in (*self.notes, *self.sentences()))
        return f"<h4>{escape(self.title)}</h4>{self.table().to_html(float_format='{:.4g}'.format)}<ul>{notes}</ul>"

    def _over_draws(self, quantity: Any) -> np.ndarray:
        return np.asarray(jax.jit(jax.vmap(quantity))({name: jnp.asarray(draw) for name, draw in self.draws.items()}))

    def _percentiles(self, drawn: np.ndarray) -> np.ndarray:
        return np.nanquantile(drawn, [(1 - self.level) / 2, (1 + self.level) / 2], axis=0)


def fit(
    source: "Path | str | pd.DataFrame | Mapping[str, Any]",
    law: scaling.Law | str = "chinchilla",
    *,
    columns: Mapping[str, str] | None = None,
    group: Sequence[str] = (),
    objective: Objective | None = None,
    samples: int = 1000,
    level: float | int = 0.95,
    seed: int = 0,
) -> list[Report]:
    """Fit a law to the runs of a file or table, one report for each configuration.

    `columns` says which column is an input of the law (or "loss") where its name does not; `group` names the columns
    that tell configurations apart. Intervals are percentiles of `samples` bootstrap fits. Raises and warns as
    [`theorysim.scaling.fit`] does, each message led by the configuration's name.
    """
    law = law if isinstance(law, scaling.Law) else law_named(law)
    require_intervals(samples, level)
    found = tables.find(tables.read(source), law, named=columns, group=group)
    return [fit_runs(runs, law, objective=objective, samples=samples, level=level, seed=seed) for runs in found]


def fit_runs(
    runs: tables.Runs,
    law: scaling.Law,
    *,
    objective: Objective | None = None,
    samples: int = 1000,
    level: float | int = 0.95,
    seed: int = 0,
) -> Report:
    """Fit a law to the runs of one configuration that [`find`][theorysim.report.find] found."""
    require_intervals(samples, level)
    try:
        fitted = scaling.fit(law, runs.columns, objective=objective)
    except scaling.RunsError as error:
        if runs.group:
            error.args = (f"{runs.group}: {error.args[0]}", *error.args[1:])
        raise
    draws = scaling.bootstrap(fitted, key=jax.random.key(seed), samples=samples)
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
    return Report(
        law=law,
        parameters=fitted.parameters,
        draws={name: np.asarray(column) for name, column in draws.parameters.items()},
        runs=fitted.runs,
        residuals=fitted.residuals,
        certificate=certificate,
        notes=runs.notes,
        level=level,
        group=runs.group,
    )


def require_intervals(samples: int, level: float | int) -> None:
    """Refuse too few resamples, and percentages."""
    require_samples(samples)
    require_level(level)


def parameter_table(
    estimates: Mapping[str, float], draws: Mapping[str, np.ndarray], level: float | int
) -> "pd.DataFrame":
    """Estimate, ends of the interval, and standard error, a row each."""
    import pandas as pd

    ends = [(1 - level) / 2, (1 + level) / 2]
    rows = {
        name: (value, *np.nanquantile(draws[name], ends), draws[name].std(ddof=1)) for name, value in estimates.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "low", "high", "error"])


def parameters_of(saved: dict[str, Any], law: scaling.Law) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """A saved report's parameters and their draws, refused where they are not those of the law."""
    parameters = {name: float(saved["parameters"][name]) for name in law.parameters}
    draws = {name: np.asarray(saved["draws"][name], float) for name in law.parameters}
    _require_same_length("draws", draws)
    require_intervals(len(next(iter(draws.values()))), saved["level"])
    return parameters, draws


def _require_same_length(what: str, columns: Mapping[str, np.ndarray]) -> None:
    """Refuse saved columns that do not belong together, and empty ones."""
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 or shape == (0,) for shape in shapes.values()):
        raise scaling.RunsError(f"{what} have the shapes {shapes}; fit again")


def beyond(what: str, value: Any, own: Any, kind: str) -> list[str]:
    """Sentences where a value is more than 10 times the largest of `own`, or less than a tenth of the smallest."""
    above, below = np.max(value) / np.max(own), np.min(value) / np.min(own)
    return [
        *([f"{what} = {np.max(value):.4g} is {above:.2g} times the largest {kind}'s"] if above > FAR else []),
        *([f"{what} = {np.min(value):.4g} is {below:.2g} times the smallest {kind}'s"] if below < 1 / FAR else []),
    ]


def of_json(saved: dict[str, Any]) -> Report:
    """A report from what [`Report.to_json`] wrote."""
    law = law_named(saved["law"])
    parameters, draws = parameters_of(saved, law)
    runs = {name: np.asarray(saved["runs"][name], float) for name in (*law.inputs, "loss")}
    residuals = np.asarray(saved["residuals"], float)
    _require_same_length("runs", {**runs, "residuals": residuals})
    return Report(
        law=law,
        parameters=parameters,
        draws=draws,
        runs=runs,
        residuals=residuals,
        certificate=saved["certificate"],
        notes=tuple(saved["notes"]),
        level=saved["level"],
        group=saved["group"],
    )
