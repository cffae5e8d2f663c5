"""What a solver of the feature-learning limit yields, and what it asks of its arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from theorysim.checks import require_count, require_finite, require_positive
from theorysim.trajectory import Trajectory


class Solution(NamedTuple):
    """A limit, and how far it can be trusted.

    `error` is of each number of `value`: 0 where only rounding is left, a standard error where neurons are sampled, an
    estimate where integrals are sums over points, NaN where there is none. `converged` is false where it is infinite.
    """

    value: Trajectory
    error: Trajectory
    converged: Bool[Array, ""]


def solution_of(value: Trajectory, of_half: Float[Array, "times inputs"], targets: Float[Array, " inputs"]) -> Solution:
    """A trajectory by a rule of points, whose error is estimated from the outputs that every second point gives.

    An estimate, not a bound: it does not see what both rules miss. Kernels have none.
    """
    loss = jnp.square(targets[None, :] - of_half).mean(1) / 2
    unknown = (jnp.full_like(kernel, jnp.nan) for kernel in (value.features, value.gradients))
    error = Trajectory(jnp.abs(loss - value.loss), jnp.abs(of_half - value.outputs), *unknown)
    return Solution(value, error, jnp.isfinite(error.outputs).all())


def check(x: Any, targets: Any, gamma0: Any, learning_rate: Any, **counts: int) -> None:
    """Refuse arguments that no limit belongs to; traced numbers pass."""
    if x.ndim != 2 or targets.shape != x.shape[:1]:
        raise ValueError(f"x has shape {x.shape}, targets {targets.shape}: give (inputs, dim) and (inputs,)")
    require_finite(x=x, targets=targets)
    require_positive(gamma0=gamma0, learning_rate=learning_rate)
    require_count(**counts)


def covariance_root(x: Float[Array, "inputs dim"]) -> Float[Array, "inputs rank"]:
    """R with R R^T = X X^T / D, along principal axes."""
    axes, scales, _ = jnp.linalg.svd(x, full_matrices=False)
    return axes * scales[None, :] / jnp.sqrt(x.shape[1])


def total(fn: Callable[..., tuple[Any, Any]], *chunks: Any) -> tuple[Any, Any]:
    """The sum of fn over chunks, and what else it returns, stacked."""
    shape = jax.eval_shape(fn, *jax.tree.map(lambda a: a[0], chunks))[0]
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape)

    def add(partial_sum, chunk):
        term, rest = fn(*chunk)
        return jax.tree.map(jnp.add, partial_sum, term), rest

    return jax.lax.scan(add, zero, chunks)
