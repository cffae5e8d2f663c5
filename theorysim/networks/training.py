"""The one training loop that studies compare with theory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from theorysim.checks import is_traced, require_nonnegative

Params = PyTree[Array]
Steps = Int[Array, " times"] | Int[np.ndarray, " times"]


def train(
    loss: Callable[[Params, Int[Array, ""]], Float[Array, ""]],
    params: Params,
    optimizer: optax.GradientTransformation,
    steps: Steps,
    observe: Callable[[Params], Any],
) -> Any:
    """What `observe` sees of the parameters after each number of `steps`, stacked along a first axis.

    `loss` takes the parameters and the number of the update, 0, 1, ..., which says which batch it is of; full-batch
    training ignores it. `steps` increase, from 0 on. For `jax.vmap` over anything that its arguments hold.

    **Raises:** `ValueError` for steps that decrease or are negative.
    """
    if not is_traced(steps) and (np.diff(np.asarray(steps), prepend=0) < 0).any():
        raise ValueError(f"steps={steps}: give increasing numbers, from 0 on")

    def update(i: Any, state: Any) -> Any:
        params, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(params, i), memory, params)
        return optax.apply_updates(params, updates), memory

    def until(state: Any, between: Array) -> Any:
        state = jax.lax.fori_loop(between[0], between[1], update, state)
        return state, observe(state[0])

    steps = jnp.asarray(steps)
    between = jnp.stack([jnp.concatenate([jnp.zeros_like(steps[:1]), steps[:-1]]), steps], 1)
    return jax.lax.scan(until, (params, optimizer.init(params)), between)[1]


def schedule(rates: Float[Array, " length"]) -> optax.Schedule:
    """One learning rate per update, for any optimiser of optax: `optax.adam(schedule(rates))`.

    Beyond the last rate, NaN: training for longer than the schedule is never silently something else.

    **Raises:** `ValueError` for negative rates.
    """
    require_nonnegative(rates=rates)
    return lambda count: rates.at[count].get(mode="fill", fill_value=jnp.nan)
