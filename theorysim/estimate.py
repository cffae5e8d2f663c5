"""Numbers read off samples at several sizes: an exponent in the size, the limit of infinite size."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from theorysim.typing import Scalar

Sizes = Real[Array, " sizes"] | Real[np.ndarray, " sizes"]
Samples = Float[Array, "sizes repeats"] | Float[np.ndarray, "sizes repeats"]


class Estimate(NamedTuple):
    """A number read off samples, and its standard error."""

    value: Scalar | float
    standard_error: Scalar | float


def exponent(sizes: Sizes, samples: Samples) -> Estimate:
    """The exponent a of samples ~ sizes^a, by weighted least squares on the mean logarithm at each size.

    Weights and standard error come from the spread over repeats; where the means scatter about the line by more, the
    standard error is raised to it. Of a root mean square, take the squares' exponent and halve it.
    """
    return _line(jnp.log(sizes), jnp.log(samples))[1]


def extrapolate(sizes: Sizes, samples: Samples) -> Estimate:
    """The limit of infinite size of a mean that approaches it like 1 / size, by weighted least squares.

    Weights and standard error as in [`exponent`].
    """
    return _line(1 / jnp.asarray(sizes), jnp.asarray(samples))[0]


def _line(x: Float[Array, " sizes"], samples: Float[Array, "sizes repeats"]) -> tuple[Estimate, Estimate]:
    """Intercept and slope of the mean of the samples at each x."""
    weights, means = samples.shape[1] / samples.var(1, ddof=1), samples.mean(1)
    middle = (weights @ x) / weights.sum()
    spread = weights @ (x - middle) ** 2
    slope = weights @ ((x - middle) * means) / spread
    intercept = (weights @ means) / weights.sum() - slope * middle
    freedom = len(x) - 2
    scatter = weights @ (means - intercept - slope * x) ** 2 / freedom if freedom else jnp.zeros(())
    # The spread over repeats is the least that the standard error can be.
    excess = jnp.sqrt(jnp.maximum(scatter, 1.0))
    return (
        Estimate(intercept, excess * jnp.sqrt(1 / weights.sum() + middle**2 / spread)),
        Estimate(slope, excess / jnp.sqrt(spread)),
    )
