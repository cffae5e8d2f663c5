"""What training in the feature-learning limit yields, and what it asks of its arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.checks import require_finite, require_positive


class Trajectory(NamedTuple):
    """Training at times 0, ..., `steps`: outputs f, loss mean (y - f)^2 / 2, and the kernels of each hidden layer.

    `features` is Phi^l(t, a; s, b) = <phi(h^l_a(t)) phi(h^l_b(s))>, and `gradients` G^l the same of
    g^l = gamma0 N df/dh^l: averages over the neurons of layer l, for inputs a, b and times t, s.
    """

    loss: Float[Array, " times"]
    outputs: Float[Array, "times inputs"]
    features: Float[Array, "depth times inputs times inputs"]
    gradients: Float[Array, "depth times inputs times inputs"]


class Estimate(NamedTuple):
    """A trajectory known by Monte Carlo, and the standard error of each of its numbers."""

    mean: Trajectory
    standard_error: Trajectory


def check(inputs: Any, targets: Any, gamma0: Any, learning_rate: Any, **counts: int) -> None:
    """Refuse arguments that no limit belongs to; traced numbers pass."""
    if inputs.ndim != 2 or targets.shape != inputs.shape[:1]:
        raise ValueError(
            f"inputs of shape {inputs.shape} and targets of shape {targets.shape}: give (inputs, dim) and (inputs,)"
        )
    require_finite(inputs=inputs, targets=targets)
    require_positive(gamma0=gamma0, learning_rate=learning_rate)
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}: give a whole number >= 1")


def covariance_root(inputs: Float[Array, "inputs dim"]) -> Float[Array, "inputs rank"]:
    """R with R R^T = X X^T / D, along principal axes."""
    axes, scales, _ = jnp.linalg.svd(inputs, full_matrices=False)
    return axes * scales[None, :] / jnp.sqrt(inputs.shape[1])


def total(fn: Callable[..., tuple[Any, Any]], *chunks: Any) -> tuple[Any, Any]:
    """The sum of fn over chunks, and what else it returns, stacked."""
    shape = jax.eval_shape(fn, *jax.tree.map(lambda a: a[0], chunks))[0]
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape)

    def add(partial_sum, chunk):
        term, rest = fn(*chunk)
        return jax.tree.map(jnp.add, partial_sum, term), rest

    return jax.lax.scan(add, zero, chunks)
