"""The schedule that a law likes best."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from theorysim.checks import require_positive
from theorysim.typing import Scalar, ScalarLike


class Optimised(NamedTuple):
    """A schedule, the loss predicted at its end, and a bound on what any small change of it could still win.

    `gap` is the largest decrease that the derivative promises on the way to any monotone schedule, in units of the
    loss; zero at a minimum (Frank & Wolfe 1956; Jaggi 2013).
    """

    rates: Float[Array, " length"]
    loss: Scalar
    gap: Scalar


def optimise(
    final_loss: Callable[[Float[Array, " length"]], Scalar],
    *,
    peak: ScalarLike,
    length: int,
    iterations: int = 2000,
    learning_rate: ScalarLike = 0.3,
) -> Optimised:
    """The schedule that never rises, from at most `peak` down to at least 0, with the least final loss.

    As arXiv:2503.12811 does it: by gradients through the law. Drops are a softmax's shares of the peak, and Adam, its
    own learning rate annealed, moves the logits from those of a linear decay. A law need not be convex in the schedule
    ([`multi_power`] is not, and likes staircases of few large drops): the end is a minimum, not proven to be the least.
    Close a warm-up into `final_loss`. Of order iterations times the cost of the law; jittable, vmappable over the peak
    and what `final_loss` closes over.

    **Raises:** `ValueError` for a peak or learning rate <= 0, and less than 2 steps.
    """
    require_positive(peak=peak, learning_rate=learning_rate)
    if length < 2:
        raise ValueError(f"length={length}: give at least 2 steps")

    def schedule(logits: Array) -> Array:
        # Reversed sums: a small rate at the end is a sum of small shares, not a difference.
        return peak * jnp.cumsum(jax.nn.softmax(logits)[::-1])[::-1][1:]

    annealed = optax.cosine_decay_schedule(1.0, iterations)
    optimizer = optax.adam(lambda count: learning_rate * annealed(count))

    def step(state: Any, _: Any) -> tuple[Any, None]:
        logits, memory = state
        updates, memory = optimizer.update(jax.grad(lambda z: final_loss(schedule(z)))(logits), memory, logits)
        return (optax.apply_updates(logits, updates), memory), None

    start = jnp.zeros(length + 1)
    (logits, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=iterations)
    rates = schedule(logits)
    loss, slope = jax.value_and_grad(final_loss)(rates)
    # The corners of the set of schedules: the peak for some steps, then nothing.
    corners = peak * jnp.cumsum(slope)
    return Optimised(rates, loss, slope @ rates - jnp.minimum(corners.min(), 0.0))
