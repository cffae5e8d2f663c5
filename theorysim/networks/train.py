"""The small training loop that studies compare with theory, and the kernel it starts from."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

Params = PyTree[Array]


def train(
    loss: Callable[[Params], Float[Array, ""]],
    params: Params,
    optimizer: optax.GradientTransformation,
    steps: Int[Array, " times"],
    observe: Callable[[Params], Any],
) -> Any:
    """Full-batch training: what `observe` sees of the parameters after each number of `steps`.

    `steps` increase from 0. The observations are stacked along a first axis, one entry a time.
    """

    def step(_, state):
        params, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(params), memory, params)
        return optax.apply_updates(params, updates), memory

    def until(state, count):
        state = jax.lax.fori_loop(0, count, step, state)
        return state, observe(state[0])

    state = (params, optimizer.init(params))
    return jax.lax.scan(until, state, jnp.diff(steps, prepend=0))[1]


def empirical_ntk(
    apply: Callable[[Params, Float[Array, "n d"]], Float[Array, "n 1"]],
    params: Params,
    x1: Float[Array, "n1 d"],
    x2: Float[Array, "n2 d"],
) -> Float[Array, "n1 n2"]:
    """Sum over parameters of df(x1)/dp df(x2)/dp, of a network with one output (arXiv:1806.07572).

    One gradient is held at a time: memory as of one training step, time of n2 steps.
    """

    def column(x):
        gradient = jax.grad(lambda p: apply(p, x[None])[0, 0])(params)
        return jax.jvp(lambda p: apply(p, x1)[:, 0], (params,), (gradient,))[1]

    return jax.lax.map(column, x2).T
