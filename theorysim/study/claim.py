"""What a study claims: a sentence, two numbers, and how far apart they may be."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import xarray as xr


class Claim(NamedTuple):
    """A checked number: `measured` lies within `tolerance` of `predicted`.

    `why` says where the tolerance comes from: the theory's own error term, or a standard error.
    """

    sentence: str
    predicted: float
    measured: float
    tolerance: float
    why: str

    @property
    def holds(self) -> bool:
        """False too where a number is NaN."""
        return math.isfinite(self.predicted) and abs(self.measured - self.predicted) <= self.tolerance


class Estimate(NamedTuple):
    """A number read off simulations, and its standard error."""

    value: float
    standard_error: float


def mean_and_error(samples: "xr.DataArray") -> "tuple[xr.DataArray, xr.DataArray]":
    """Mean over the dimension `repeat`, and its standard error."""
    repeats = samples.sizes["repeat"]
    return samples.mean("repeat"), samples.std("repeat", ddof=1) / np.sqrt(repeats)


def exponent(sizes: Float[np.ndarray, " sizes"], samples: Float[np.ndarray, "sizes repeats"]) -> Estimate:
    """The exponent a of samples ~ sizes^a, by weighted least squares on the mean logarithm at each size.

    Weights and standard error come from the spread over repeats; where the means scatter about the line by more, the
    standard error is raised to it.
    """
    return _line(np.log(sizes), np.log(samples))[1]


def extrapolate(sizes: Float[np.ndarray, " sizes"], samples: Float[np.ndarray, "sizes repeats"]) -> Estimate:
    """The limit of infinite size of a mean that approaches it like 1 / size, by weighted least squares.

    Weights and standard error as in [`exponent`].
    """
    return _line(1 / sizes, samples)[0]


def _line(x: np.ndarray, samples: np.ndarray) -> tuple[Estimate, Estimate]:
    """Intercept and slope of the mean of the samples at each x."""
    weights = samples.shape[1] / samples.var(1, ddof=1)
    design = np.stack([np.ones_like(x), x], 1)
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    values = covariance @ (design.T @ (weights * samples.mean(1)))
    freedom = len(x) - 2
    scatter = (weights * (samples.mean(1) - design @ values) ** 2).sum() / freedom if freedom else 0.0
    covariance = covariance * max(scatter, 1.0)
    intercept, slope = zip(values, np.sqrt(np.diag(covariance)), strict=True)
    return Estimate(*map(float, intercept)), Estimate(*map(float, slope))
