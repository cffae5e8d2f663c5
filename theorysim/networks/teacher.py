"""A teacher whose loss falls as powers of width and data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.checks import is_traced, require_count, require_nonnegative, require_positive
from theorysim.typing import Scalar, ScalarLike


class PowerLawTeacher(NamedTuple):
    """y = weights . x + noise, with Gaussian x_i of variances i^-alpha, seen through random features.

    The target's variance along i is i^-a: alpha is `eigenvalue_decay`, a `target_decay`. A linear student of `width`
    random features can come as close as width^-min(a - 1, alpha), and SGD on fresh data takes the loss down like
    steps^-(a - 1) / alpha, up to the width (Bordelon, Atanasov & Pehlevan, arXiv:2402.01092; the exponent of the width
    holds where data and time do not limit). Losses are mean squares, with the noise in: they end at noise_var.
    """

    variances: Float[Array, " dim"]
    weights: Float[Array, " dim"]
    noise_var: ScalarLike

    def draw(self, key: Array, count: int) -> tuple[Float[Array, "count dim"], Float[Array, " count"]]:
        """Fresh data: inputs and noisy targets."""
        of_inputs, noise = jax.random.split(key)
        x = _normal(of_inputs, (count, len(self.variances)), self.variances.dtype) * jnp.sqrt(self.variances)[None]
        spread = jnp.sqrt(jnp.asarray(self.noise_var, x.dtype))
        return x, x @ self.weights + spread * jax.random.normal(noise, (count,), x.dtype)

    def features(self, key: Array, width: int) -> Float[Array, "width dim"]:
        """Random features: rows F_j such that x -> F x, whose mean square norm is the trace of the variances."""
        return _normal(key, (width, len(self.variances)), self.variances.dtype) / jnp.sqrt(1.0 * width)

    def loss(self, features: Float[Array, "width dim"], readout: Float[Array, " width"]) -> Scalar:
        """The mean square error on all data there could be, exactly."""
        return jnp.sum(self.variances * jnp.square(readout @ features - self.weights)) + self.noise_var


def power_law_teacher(
    dim: int, *, eigenvalue_decay: ScalarLike, target_decay: ScalarLike, noise_var: ScalarLike = 0.0
) -> PowerLawTeacher:
    """A [`PowerLawTeacher`] of the two exponents, in single precision, as networks are trained in.

    **Raises:** `ValueError` for `eigenvalue_decay` <= 0, `target_decay` <= 1, and a negative `noise_var`.
    """
    require_count(dim=dim)
    require_positive(eigenvalue_decay=eigenvalue_decay)
    require_nonnegative(noise_var=noise_var)
    if not is_traced(target_decay) and not np.asarray(target_decay) > 1:
        raise ValueError(
            f"target_decay={target_decay}: give an exponent > 1, with which the target's variance is finite"
        )
    i = jnp.arange(1, dim + 1, dtype=jnp.float32)
    variances = i ** -jnp.asarray(eigenvalue_decay, i.dtype)
    return PowerLawTeacher(variances, jnp.sqrt(i ** -jnp.asarray(target_decay, i.dtype) / variances), noise_var)


def _normal(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """The numbers of `jax.random.normal`, drawn in one dimension: it compiles in half the time."""
    return jax.random.normal(key, (shape[0] * shape[1],), dtype).reshape(shape)
