"""Roots of monotone functions of a logarithm, with derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from theorysim.typing import Scalar, ScalarLike


def log_root(excess: Callable[..., Array], low: ScalarLike, high: ScalarLike, *arguments: Any) -> Scalar:
    """The x in [low, high] with excess(log x, *arguments) = 0; NaN where the signs at both ends agree.

    Bisection of the logarithm, then two Newton steps, which make the first two derivatives by the arguments exact.
    """
    frozen = jax.lax.stop_gradient(arguments)
    ends = jnp.log(jnp.stack([jnp.asarray(low, float), jnp.asarray(high, float)]))
    first, last = excess(ends[0], *frozen), excess(ends[1], *frozen)

    def halve(_: Any, ends: Array) -> Array:
        middle = ends.mean()
        before = (excess(middle, *frozen) > 0) == (first > 0)
        return jnp.where(before, jnp.stack([middle, ends[1]]), jnp.stack([ends[0], middle]))

    root = jax.lax.stop_gradient(jax.lax.fori_loop(0, 60, halve, ends).mean())
    for _ in range(2):
        value, slope = jax.value_and_grad(excess)(root, *arguments)
        root = root - value / slope
    return jnp.where(jnp.sign(first) != jnp.sign(last), jnp.exp(root), jnp.nan)
