"""Roots of functions of one number, elementwise, by a Newton's method that cannot leave its bracket."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from theorysim.typing import Scalar, ScalarLike

STEPS = 200  # six to twelve are usual; halving alone needs sixty


class Search(NamedTuple):
    """A bracket of the root, the best x in it, and how far x went in the last two steps."""

    x: Array
    low: Array
    high: Array
    moved: Array
    moved_before: Array
    searching: Array
    iterations: Array | int


def root(excess: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The x in [low, high] with excess(x) = 0, elementwise; NaN where the signs at both ends agree.

    Newton's method from the middle, which halves the bracket instead where a step would leave it, or is not half as
    long as the last but one. Differentiable to any order in what `excess` closes over, by the implicit function
    theorem: the search itself is never differentiated.
    """

    def search(excess: Callable[[Array], Array], start: Array) -> Array:
        ends = jnp.sign(excess(low)), jnp.sign(excess(high))
        bracketed, rise = ends[0] * ends[1] <= 0, ends[1] - ends[0]
        begin = Search(start, low, high, high - low, high - low, bracketed, 0)
        found = jax.lax.while_loop(
            lambda state: state.searching.any() & (state.iterations < STEPS),
            lambda state: _step(excess, rise, state),
            begin,
        )
        return jnp.where(bracketed, found.x, jnp.nan)

    def solve_slope(slope: Callable[[Array], Array], value: Array) -> Array:
        return value / slope(jnp.ones_like(value))

    low, high = jax.lax.stop_gradient(jnp.broadcast_arrays(low, high))
    return jax.lax.custom_root(excess, (low + high) / 2, search, solve_slope)


def _step(excess: Callable[[Array], Array], rise: Array, state: Search) -> Search:
    """x - excess / excess', or the middle of the bracket."""
    x = state.x
    value, slope = jax.jvp(excess, (x,), (jnp.ones_like(x),))
    below = rise * value <= 0
    low, high = jnp.where(below, x, state.low), jnp.where(below, state.high, x)
    trial = x - value / slope
    newton = (trial >= low) & (trial <= high) & (2 * jnp.abs(trial - x) <= state.moved_before)
    new = jnp.where(state.searching, jnp.where(newton, trial, (low + high) / 2), x)
    moved = jnp.abs(new - x)
    # The error of a Newton step is of the order of its square.
    epsilon = jnp.finfo(x.dtype).eps
    close = jnp.where(newton, epsilon ** (2 / 3), epsilon) * jnp.maximum(1, jnp.abs(x))
    return Search(new, low, high, moved, state.moved, state.searching & (moved > close), state.iterations + 1)


def log_root(excess: Callable[[Array], Array], low: ScalarLike, high: ScalarLike) -> Scalar:
    """The x in [low, high] with excess(log x) = 0: [`root`] in the logarithm."""
    low, high = (jnp.log(jnp.asarray(end, float)) for end in (low, high))
    return jnp.exp(root(excess, low, high))
