"""Learning-rate schedules: one rate per update, and by how much each is below the one before."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from theorysim.checks import is_traced, require_nonnegative
from theorysim.typing import ScalarLike

Rates = Float[Array, " length"] | Float[np.ndarray, " length"]
Steps = Int[Array, " steps"] | Int[np.ndarray, " steps"]


def linear(progress: Float[Array, "*steps"]) -> Float[Array, "*steps"]:
    """1 - progress."""
    return 1 - progress


def one_minus_sqrt(progress: Float[Array, "*steps"]) -> Float[Array, "*steps"]:
    """1 - sqrt(progress): down fast, and slowly to the end (Hägele et al., arXiv:2405.18392)."""
    return 1 - jnp.sqrt(progress)


def half_cosine(progress: Float[Array, "*steps"]) -> Float[Array, "*steps"]:
    """(1 + cos(pi progress)) / 2."""
    return (1 + jnp.cos(jnp.pi * progress)) / 2


def stable_decay(
    peak: ScalarLike,
    length: int,
    *,
    decay: int,
    final: ScalarLike = 0.0,
    shape: Callable[[Array], Array] = linear,
    warm_up: int = 0,
) -> Float[Array, " length"]:
    """Warm-up, stable, decay (Hu et al., arXiv:2404.06395): linearly up to the peak in `warm_up` steps, stay, and come
    down over the last `decay` steps by `shape` of their progress in [0, 1).

    Rate `final` would be the next after the last, so that no step is wasted on a final rate of zero.

    **Raises:** `ValueError` for negative rates, and phases longer than the schedule.
    """
    require_nonnegative(peak=peak, final=final, warm_up=warm_up, decay=decay)
    if length < 1 or warm_up + decay > length:
        raise ValueError(f"length={length}: give at least 1, and warm_up + decay = {warm_up + decay}")
    rising = jnp.arange(1, warm_up + 1) / max(warm_up, 1)
    falling = shape(jnp.arange(decay) / max(decay, 1))
    return jnp.concatenate([peak * rising, peak * jnp.ones(length - warm_up - decay), final + (peak - final) * falling])


def constant(peak: ScalarLike, length: int, *, warm_up: int = 0) -> Float[Array, " length"]:
    """Up to the peak in `warm_up` steps, and stay."""
    return stable_decay(peak, length, decay=0, warm_up=warm_up)


def cosine(peak: ScalarLike, length: int, *, final: ScalarLike = 0.0, warm_up: int = 0) -> Float[Array, " length"]:
    """Up to the peak in `warm_up` steps, and down to `final` by half a cosine (arXiv:1608.03983)."""
    return stable_decay(peak, length, decay=length - warm_up, final=final, shape=half_cosine, warm_up=warm_up)


def two_stage(
    peak: ScalarLike, second: ScalarLike, length: int, *, switch: int, warm_up: int = 0
) -> Float[Array, " length"]:
    """[`constant`], with the rate `second` from step `switch` on.

    **Raises:** `ValueError` for a negative rate, and a switch outside of the schedule.
    """
    require_nonnegative(second=second)
    if not warm_up <= switch <= length:
        raise ValueError(f"switch={switch}: give a step between warm_up = {warm_up} and length = {length}")
    return jnp.where(jnp.arange(length) < switch, constant(peak, length, warm_up=warm_up), second)


def drops(rates: Rates, *, count_warm_up: bool) -> Float[Array, " length"]:
    """How much each rate is below the one before; zero up to the first highest rate, unless the warm-up counts.

    The first rate has none before it, and its drop is zero. Differentiable where the first highest rate stays in place.
    """
    rates = jnp.asarray(rates)
    found = jnp.concatenate([jnp.zeros_like(rates[:1]), rates[:-1] - rates[1:]])
    return found if count_warm_up else jnp.where(jnp.arange(len(rates)) > jnp.argmax(rates), found, 0)


def annealed_drops(rates: Rates, *, count_warm_up: bool) -> Float[Array, " length"]:
    """[`drops`], of which a warm-up that counts begins with the rise from 0 to rates[0]."""
    down = drops(rates, count_warm_up=count_warm_up)
    return down.at[0].set(-rates[0]) if count_warm_up else down


def require_rates(rates: Any) -> None:
    """Refuse what is no schedule."""
    if np.ndim(rates) != 1 or np.shape(rates)[0] < 1:
        raise ValueError(f"rates has the shape {np.shape(rates)}: give one learning rate per update, at least one")
    if not is_traced(rates):
        bad = ~(np.asarray(rates) >= 0) | ~np.isfinite(np.asarray(rates))
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(f"rates[{first}]={np.asarray(rates)[first]}: give learning rates >= 0")


def require_steps(steps: Any, rates: Any) -> Array:
    """The numbers of updates as an array; refused outside of the schedule."""
    length = np.shape(rates)[0]
    if not is_traced(steps):
        bad = (np.asarray(steps) < 1) | (np.asarray(steps) > length)
        if bad.any():
            raise ValueError(f"steps holds {np.asarray(steps)[bad][0]}: give steps in 1, ..., {length}, the schedule's")
    return jnp.asarray(steps)
