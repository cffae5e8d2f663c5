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


class Exponent(NamedTuple):
    """The exponent of a power law, and its standard error."""

    value: float
    standard_error: float


def exponent(sizes: Float[np.ndarray, " sizes"], errors: Float[np.ndarray, "sizes repeats"]) -> Exponent:
    """Fit errors ~ sizes^value: weighted least squares on the mean log error of each size.

    The weights, and the standard error of the exponent, come from the spread over repeats.
    """
    logs = np.log(errors)
    variance = logs.var(1, ddof=1) / logs.shape[1]
    x = np.log(sizes)
    centred = x - np.average(x, weights=1 / variance)
    precision = (centred**2 / variance).sum()
    return Exponent(float((centred * logs.mean(1) / variance).sum() / precision), float(precision**-0.5))
