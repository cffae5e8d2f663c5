"""What a study claims: a sentence, two numbers, and how far apart they may be."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


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


def exponent(sizes: Float[np.ndarray, " sizes"], samples: Float[np.ndarray, "sizes repeats"]) -> Estimate:
    """The exponent a of samples ~ sizes^a, by weighted least squares on the mean logarithm at each size.

    Weights and standard error come from the spread over repeats.
    """
    return _line(np.log(sizes), np.log(samples))[1]


def extrapolate(sizes: Float[np.ndarray, " sizes"], samples: Float[np.ndarray, "sizes repeats"]) -> Estimate:
    """The limit of infinite size of a mean that approaches it like 1 / size, by weighted least squares.

    Weights and standard error come from the spread over repeats.
    """
    return _line(1 / sizes, samples)[0]


def _line(x: np.ndarray, samples: np.ndarray) -> tuple[Estimate, Estimate]:
    """Intercept and slope of the mean of the samples at each x."""
    weights = samples.shape[1] / samples.var(1, ddof=1)
    design = np.stack([np.ones_like(x), x], 1)
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    values = covariance @ (design.T @ (weights * samples.mean(1)))
    intercept, slope = zip(values, np.sqrt(np.diag(covariance)), strict=True)
    return Estimate(*map(float, intercept)), Estimate(*map(float, slope))
