"""What every report on a user's data can do: a table, sentences, figures, and files written whole or not at all."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theorysim.checks import DataError
from theorysim.report import folder as folders
from theorysim.scaling.interval import require_level, require_samples

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT = 1
CENTRAL = [0.15866, 0.84134]  # of Gauss's law within one deviation
FAR = 10.0  # times the data: beyond, a prediction says so


class Prediction(NamedTuple):
    """The law's loss, the interval of the law, and that of one more run.

    `in_sample` is that of a run that scatters about the law as the others do; `run` is wider, beyond the runs, by what
    extrapolation has cost. The law's own interval says what the runs say of it, were it true.
    """

    loss: np.ndarray
    law: np.ndarray
    run: np.ndarray
    in_sample: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(ABC):
    """Estimates with the draws of their bootstrap; the same after it was written and loaded.

    `certificate` says how the estimates were found, `notes` what was taken for what.
    """

    parameters: dict[str, float]
    draws: dict[str, np.ndarray]
    certificate: dict[str, Any]
    notes: tuple[str, ...] = ()
    level: float | int = 0.95

    @property
    @abstractmethod
    def title(self) -> str:
        """What was fitted."""

    @abstractmethod
    def sentences(self) -> list[str]:
        """The certificate, and what follows, in words."""

    @abstractmethod
    def figures(self) -> "dict[str, Figure]":
        """The figures by name."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What is needed to load the report again, beside the fields that all have."""

    def tables(self) -> "dict[str, pd.DataFrame]":
        """Further tables to write, by name."""
        return {}

    def table(self) -> "pd.DataFrame":
        """Estimate, interval and standard error of each parameter."""
        return parameter_table(self.parameters, self.draws, self.level)

    def interval(self, name: str) -> np.ndarray:
        """Percentiles of a parameter over resamples."""
        return self.percentiles(self.draws[name])

    def percentiles(self, drawn: np.ndarray) -> np.ndarray:
        """The ends of the interval of a quantity, from its values over resamples."""
        return _quantiles(drawn, ends_of(self.level))

    def over_draws(self, quantity: Any) -> tuple[np.ndarray, np.ndarray]:
        """A quantity of the parameters, at their estimates and at those of each resample, by one program."""
        rows = {name: jnp.asarray(np.append(value, self.draws[name])) for name, value in self.parameters.items()}
        found = np.asarray(jax.jit(jax.vmap(quantity))(rows))
        return found[0], found[1:]

    def write(self, folder: Path | str) -> Path:
        """Write fit.json, the tables and the figures to a folder, all or nothing; those of an earlier report go."""
        import matplotlib as mpl
        import matplotlib.pyplot as plt

        from theorysim.figure import save, style

        def fill(new: Path) -> None:
            (new / "fit.json").write_text(self.to_json())
            for name, table in self.tables().items():
                table.to_csv(new / f"{name}.csv", index=False)
            with mpl.rc_context(style()):
                for name, figure in self.figures().items():
                    save(figure, new / name)
                    plt.close(figure)

        return folders.write(folder, fill)

    def to_json(self) -> str:
        """All of the report but its figures."""
        record = {
            "format": FORMAT,
            "theorysim": version("theorysim"),
            "level": self.level,
            "parameters": self.parameters,
            "intervals": {name: self.interval(name).tolist() for name in self.parameters},
            "certificate": self.certificate,
            "notes": self.notes,
            "draws": {name: column.tolist() for name, column in self.draws.items()},
        }
        return json.dumps(record | self.record(), indent=1)

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in (*self.notes, *self.sentences()))
        return f"<h4>{escape(self.title)}</h4>{self.table().to_html(float_format='{:.4g}'.format)}<ul>{notes}</ul>"


def common_of(saved: dict[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that all reports have, from what was saved; refused where `names` are not its parameters."""
    parameters = {name: float(saved["parameters"][name]) for name in names}
    draws = {name: np.asarray(saved["draws"][name], float) for name in names}
    require_same_length("draws", draws)
    require_intervals(len(next(iter(draws.values()))), saved["level"])
    return {
        "parameters": parameters,
        "draws": draws,
        "certificate": saved["certificate"],
        "notes": tuple(saved["notes"]),
        "level": saved["level"],
    }


def require_same_length(what: str, columns: Mapping[str, np.ndarray]) -> None:
    """Refuse saved columns that do not belong together, and empty ones."""
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 or shape == (0,) for shape in shapes.values()):
        raise DataError(f"{what} have the shapes {shapes}; fit again")


def require_intervals(samples: int, level: float | int) -> None:
    """Refuse too few resamples, and percentages."""
    require_level(level)
    require_samples(samples, level)


def parameter_table(
    estimates: Mapping[str, float], draws: Mapping[str, np.ndarray], level: float | int
) -> "pd.DataFrame":
    """Estimate, ends of the interval, and error, one row each.

    The error is half the interval of 68 %: the standard deviation of draws from Gauss's law, and that of most draws
    where a few run away, to 1e140, say.
    """
    import pandas as pd

    rows = {
        name: (value, *_quantiles(draws[name], ends_of(level)), np.diff(_quantiles(draws[name], CENTRAL)).item() / 2)
        for name, value in estimates.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "low", "high", "error"])


def _quantiles(drawn: np.ndarray, shares: "list[float]") -> np.ndarray:
    """Along the first axis, undefined draws aside; an end between infinite draws is infinite."""
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.nanquantile(drawn, shares, axis=0)
    return np.where(np.isnan(ends), np.nanquantile(drawn, shares, axis=0, method="nearest"), ends)


def ends_of(level: float | int) -> list[float]:
    """The two quantiles of an equal-tailed interval."""
    return [(1 - level) / 2, (1 + level) / 2]


def beyond(what: str, value: Any, own: Any, kind: str) -> list[str]:
    """Sentences where a value is more than 10 times the largest of `own`, or less than a tenth of the smallest."""
    above, below = np.max(value) / np.max(own), np.min(value) / np.min(own)
    return [
        *([f"{what} = {np.max(value):.4g} is {above:.2g} times the largest {kind}'s"] if above > FAR else []),
        *([f"{what} = {np.min(value):.4g} is {below:.2g} times the smallest {kind}'s"] if below < 1 / FAR else []),
    ]
