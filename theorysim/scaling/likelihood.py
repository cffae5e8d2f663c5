"""The maximum of a concave log likelihood of few parameters, by Newton's method or Fisher's scoring."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from theorysim.typing import Scalar

HALVINGS = 12
STEPS = 100
TOLERANCE = 50  # roundings of the dtype that the last step may still gain


class Maximum(NamedTuple):
    """Where the likelihood is largest, its logarithm there, and whether the search arrived."""

    point: Float[Array, " parameters"]
    value: Scalar
    converged: Bool[Array, ""]


class _Search(NamedTuple):
    point: Array
    value: Array
    gain: Array
    iterations: Array | int


def maximise(
    log_likelihood: Callable[[Array], Scalar],
    information: Callable[[Array], Float[Array, "parameters parameters"]],
    start: Float[Array, " parameters"],
) -> Maximum:
    """A step is information^-1 gradient, halved until the likelihood rises.

    `information` is minus the Hessian (Newton), or its mean (Fisher's scoring). Not differentiable in reverse.
    """
    epsilon = jnp.finfo(start.dtype).eps
    halvings = 2.0 ** -jnp.arange(HALVINGS, dtype=start.dtype)

    def step(search: _Search) -> _Search:
        gradient = jax.grad(log_likelihood)(search.point)
        move = jnp.linalg.solve(information(search.point), gradient)
        trials = search.point[None] + halvings[:, None] * move[None]
        values = jax.vmap(log_likelihood)(trials)
        gain = gradient @ move
        # Near the maximum, the likelihood cannot tell points apart that the gradient still can.
        near = gain < jnp.sqrt(epsilon)
        best = jnp.where(near, 0, jnp.argmax(jnp.where(jnp.isfinite(values), values, -jnp.inf)))
        better = near | (values[best] > search.value)
        point, value = jnp.where(better, trials[best], search.point), jnp.where(better, values[best], search.value)
        return _Search(point, value, gain, search.iterations + 1)

    begin = _Search(start, log_likelihood(start), jnp.asarray(jnp.inf, start.dtype), 0)
    found = jax.lax.while_loop(lambda s: (s.gain > TOLERANCE * epsilon) & (s.iterations < STEPS), step, begin)
    return Maximum(found.point, found.value, found.gain <= TOLERANCE * epsilon)
