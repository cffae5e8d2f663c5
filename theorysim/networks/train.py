"""The small training loop that studies compare with theory."""

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
