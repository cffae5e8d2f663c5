"""Roots of functions of one number, elementwise, by a Newton's method that cannot leave its bracket."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from theorysim.typing import Scalar, ScalarLike

STEPS = 200  # six to twelve are usual; halving alone needs sixty


def root(excess: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The x in [low, high] with excess(x) = 0, elementwise; NaN where the signs at both ends agree.

    Newton's method from the middle, which halves the bracket instead where a step would leave it, or is not half as
    long as the last but one. Differentiable to any order in what `excess` closes over, by the implicit function
    theorem: the search itself is never differentiated.
    """

    def search(excess: Callable[[Array], Array], start: Array) -> Array:
        ends = jnp.sign(excess(low)), jnp.sign(excess(high))
        bracketed, rise = ends[0] * ends[1] <= 0, ends[1] - ends[0]
        epsilon = jnp.finfo(start.dtype).eps

        def step(state: tuple) -> tuple:
            x, low, high, move, last, searching, count = state
            value, slope = jax.jvp(excess, (x,), (jnp.ones_like(x),))
            left = rise * value <= 0
            low, high = jnp.where(left, x, low), jnp.where(left, high, x)
            trial = x - value / slope
            newton = (trial >= low) & (trial <= high) & (2 * jnp.abs(trial - x) <= last)
            new = jnp.where(searching, jnp.where(newton, trial, (low + high) / 2), x)
            moved = jnp.abs(new - x)
            # The error of a Newton step is of the order of its square.
            close = jnp.where(newton, epsilon ** (2 / 3), epsilon) * jnp.maximum(1, jnp.abs(x))
            return new, low, high, moved, move, searching & (moved > close), count + 1

        width = high - low
        begin = (start, low, high, width, width, bracketed, 0)
        x = jax.lax.while_loop(lambda s: s[5].any() & (s[6] < STEPS), step, begin)[0]
        return jnp.where(bracketed, x, jnp.nan)

    def solve_slope(slope: Callable[[Array], Array], value: Array) -> Array:
        return value / slope(jnp.ones_like(value))

    low, high = jax.lax.stop_gradient(jnp.broadcast_arrays(low, high))
    return jax.lax.custom_root(excess, (low + high) / 2, search, solve_slope)


def log_root(excess: Callable[[Array], Array], low: ScalarLike, high: ScalarLike) -> Scalar:
    """The x in [low, high] with excess(log x) = 0: [`root`] in the logarithm."""
    low, high = (jnp.log(jnp.asarray(end, float)) for end in (low, high))
    return jnp.exp(root(excess, low, high))
