"""What a study claims: a sentence, two numbers, and how far apart they may be."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from theorysim.checks import require_one_of
from theorysim.estimate import Estimate, exponent, extrapolate

if TYPE_CHECKING:
    import xarray as xr

SIGMAS = 3
THREE = "three standard errors"
WITHIN = {"equal": "{} within {}", "at least": "at least {} + {}", "at most": "at most {} - {}"}


@dataclass(frozen=True)
class Claim:
    """A checked number.

    **Arguments:**

    - `name`: a few words that stay the same when the sentence is improved; one of each in a study.
    - `sentence`: what agrees, in a theorist's words.
    - `predicted`, `measured`: numbers, none of them a truth value.
    - `tolerance`: > 0. `kind="equal"` holds where `measured` lies within it of `predicted`. A one-sided claim holds
      where `measured` lies beyond `predicted` by at least so much, its margin: above for "at least", below for
      "at most".
    - `why`: where the tolerance comes from, the theory's own error term or a standard error.
    - `standard_error`: of measured - predicted, from the simulation alone.
    - `span`: the range that `measured` can take, such as (0, 1) for a share.

    **Raises:** `ValueError` for a tolerance that is not positive and finite, for what is no number, for a missing name,
    sentence or reason, and for a tolerance that reaches an end of the span: the claim could not fail on that side.
    """

    name: str
    sentence: str
    predicted: float | int
    measured: float | int
    tolerance: float | int
    why: str
    standard_error: float | int = math.nan
    kind: Literal["equal", "at least", "at most"] = "equal"
    span: tuple[float | int, float | int] = (-math.inf, math.inf)

    def __post_init__(self):
        for field in ("predicted", "measured", "tolerance", "standard_error"):
            value: Any = getattr(self, field)
            if np.asarray(value).dtype.kind not in "iuf" or np.size(value) != 1:
                raise ValueError(f"the claim {self.name!r} has {field}={value}: claim a number, not a truth value")
            object.__setattr__(self, field, float(np.asarray(value).item()))
        for field in ("name", "sentence", "why"):
            if not isinstance(text := getattr(self, field), str) or not text:
                raise ValueError(f"a claim has {field}={text!r}: give its name, its sentence and why its tolerance")
        require_one_of(WITHIN, kind=self.kind)
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise ValueError(f"the claim {self.name!r} has tolerance={self.tolerance}: give a finite number > 0")
        if admitted := [end for end in self.span if self._admits(end) and end != self.predicted]:
            raise ValueError(
                f"the claim {self.name!r} admits {admitted[0]:g}, an end of its span {self.span}: it cannot fail on "
                f"that side; take a tolerance below {abs(admitted[0] - self.predicted):.3g}, or claim one side"
            )

    @property
    def holds(self) -> bool:
        """False too where a number is NaN."""
        return math.isfinite(self.predicted) and self._holds_for(self.measured)

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'fails'}: {self.sentence}: {self.numbers}"

    @property
    def numbers(self) -> str:
        """The comparison in words: "0.91 for at least 0.8 + 0.05"."""
        within = WITHIN[self.kind].format(number(self.predicted), number(self.tolerance, 2))
        return f"{number(self.measured)} for {within}"

    @property
    def deviation(self) -> float:
        """Measured less predicted, in standard errors; NaN where none is given."""
        return (self.measured - self.predicted) / self.standard_error if self.standard_error > 0 else math.nan

    def _holds_for(self, measured: float | int) -> bool:
        above = measured - self.predicted
        return {
            "equal": abs(above) <= self.tolerance,
            "at least": above >= self.tolerance,
            "at most": -above >= self.tolerance,
        }[self.kind]

    def _admits(self, end: float | int) -> bool:
        """An end of the span, where the claim is two-sided."""
        return self.kind == "equal" and math.isfinite(end) and self._holds_for(end)


def number(value: float | int | None, digits: int = 4) -> str:
    """A few digits, without the sign of zero; "undefined" for None and NaN."""
    return "undefined" if value is None or math.isnan(value) else f"{value + 0.0:.{digits}g}"


def agrees(
    name: str,
    sentence: str,
    predicted: Any,
    measured: Estimate,
    *,
    next_order: float | int = 0.0,
    why: str = "",
    span: tuple[float | int, float | int] = (-math.inf, math.inf),
) -> Claim:
    """A simulation's number is the theory's, to three standard errors and the `next_order` of the theory.

    `predicted` may be an [`Estimate`] itself, where theory samples. `why` names the next order: "1 / width".

    **Raises:** `ValueError` for a next order without its name, or a name without one.
    """
    if (next_order > 0) != bool(why):
        raise ValueError(f"next_order={next_order} and why={why!r}: give a next order > 0 with its name, or neither")
    expected = predicted if isinstance(predicted, Estimate) else Estimate(predicted, 0.0)
    error = float(np.hypot(measured.standard_error, expected.standard_error))
    return Claim(
        name,
        sentence,
        predicted=float(expected.value),
        measured=float(measured.value),
        tolerance=SIGMAS * error + next_order,
        why=f"{THREE}, and {why}" if why else THREE,
        standard_error=error,
        span=span,
    )


def exceeds(name: str, sentence: str, bound: float | int, measured: Estimate) -> Claim:
    """A simulation's number lies above the bound, by three standard errors."""
    return _one_sided(name, sentence, bound, measured, "at least")


def stays_below(name: str, sentence: str, bound: float | int, measured: Estimate) -> Claim:
    """A simulation's number lies below the bound, by three standard errors."""
    return _one_sided(name, sentence, bound, measured, "at most")


def _one_sided(
    name: str, sentence: str, bound: float | int, measured: Estimate, kind: Literal["at least", "at most"]
) -> Claim:
    error = float(measured.standard_error)
    return Claim(name, sentence, bound, float(measured.value), SIGMAS * error, THREE, standard_error=error, kind=kind)


def limit_agrees(
    name: str, sentence: str, predicted: Any, samples: "xr.DataArray", *, along: str = "width", **options: Any
) -> Claim:
    """The mean over `repeat`, extrapolated in 1 / size, is the theory's limit; `options` are those of [`agrees`]."""
    return agrees(name, sentence, predicted, extrapolate(*_table(samples, along)), **options)


def exponent_agrees(
    name: str, sentence: str, predicted: Any, samples: "xr.DataArray", *, along: str = "width", **options: Any
) -> Claim:
    """The samples' exponent in the size is the theory's; `options` are those of [`agrees`]."""
    return agrees(name, sentence, predicted, exponent(*_table(samples, along)), **options)


def lies_below(name: str, sentence: str, samples: "xr.DataArray", other: "xr.DataArray") -> Claim:
    """The mean over `repeat` lies below that of others, by three standard errors of the difference of pairs."""
    error = mean_estimate(samples - other).standard_error
    return stays_below(name, sentence, other.mean().item(), Estimate(samples.mean().item(), error))


def scatter_agrees(name: str, what: str, samples: "xr.DataArray", theory: "xr.DataArray") -> Claim:
    """Points scatter about theory as their standard errors say: a claim for all points of a grid at once.

    With R repeats of Gaussian samples, the distance of a mean from its expectation, in units of its standard error, is
    Student's t of f = R - 1 degrees of freedom: |t| has the mean 2 sqrt(f) / ((f - 1) B(f / 2, 1 / 2)), and the mean
    square f / (f - 2). Points are independent.
    """
    from scipy.special import beta

    mean, error = mean_and_error(samples)
    distance, freedom = abs((mean - theory) / error), samples.sizes["repeat"] - 1
    expected = 2 * math.sqrt(freedom) / ((freedom - 1) * beta(freedom / 2, 1 / 2))
    spread = math.sqrt((freedom / (freedom - 2) - expected**2) / distance.size)
    sentence = f"{what}: mean distance of networks from theory, in standard errors, is that of Student's t"
    return agrees(name, sentence, expected, Estimate(distance.mean().item(), spread), span=(0, math.inf))


def mean_of_points(samples: "xr.DataArray") -> Estimate:
    """Over those points of a grid that are not NaN, each an independent mean over `repeat`."""
    mean, error = mean_and_error(samples)
    return Estimate(mean.mean().item(), math.sqrt((error**2).sum().item()) / error.count().item())


def exponents(samples: "xr.DataArray", along: str = "width") -> "tuple[xr.DataArray, xr.DataArray]":
    """The exponent in the size for each index of the other dimensions, and its standard error."""
    samples = samples.transpose(..., along, "repeat")
    shape = samples.shape[:-2]
    found = [exponent(samples[along].values, table) for table in samples.values.reshape(-1, *samples.shape[-2:])]
    empty = samples.isel({along: 0, "repeat": 0}, drop=True)
    value, error = (np.array(part, float).reshape(shape) for part in zip(*found, strict=True))
    return empty.copy(data=value), empty.copy(data=error)


def mean_estimate(samples: "xr.DataArray", over: tuple[str, ...] = ("repeat",)) -> Estimate:
    """Mean over dimensions along which samples are independent, all that are left, and its standard error."""
    count = math.prod(samples.sizes[dim] for dim in over)
    return Estimate(samples.mean(over).item(), samples.std(over, ddof=1).item() / math.sqrt(count))


def mean_and_error(samples: "xr.DataArray") -> "tuple[xr.DataArray, xr.DataArray]":
    """Mean over the dimension `repeat`, and its standard error."""
    repeats = samples.sizes["repeat"]
    return samples.mean("repeat"), samples.std("repeat", ddof=1) / np.sqrt(repeats)


def _table(samples: "xr.DataArray", along: str) -> tuple[np.ndarray, np.ndarray]:
    return samples[along].values, samples.transpose(along, "repeat").values
