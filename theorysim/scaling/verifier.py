"""Resampling a model until a verifier accepts, where the verifier errs (Stroebl, Kapoor & Narayanan, arXiv:2411.17501).

A draw solves its task with probability p. The verifier accepts what is right with probability t and what is wrong with
f: q = p t + (1 - p) f of all draws. At most K are drawn. More draws are accepted more often, but no more correctly: the
share of right ones among the accepted stays p t / q, and tasks that are only ever solved wrongly cost more and more.

The formulas are derived here for the setting of that paper. They hold to rounding for q of 1e-12 and K of 1e12.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from theorysim.checks import is_traced, require_in, require_nonnegative, require_positive
from theorysim.typing import Numbers, Scalar, ScalarLike, as_floats

SCAN = 256  # numbers of draws, in equal ratios from 1 to FARTHEST, between which changes of sign are looked for
MAXIMA = 4  # of them followed to the draw; populations of two kinds of tasks have one
FARTHEST = 2.0**53  # beyond, doubles skip whole numbers


class Resampling(NamedTuple):
    """Of one task: probabilities that a draw is accepted, and that one is and is right; its limit; draws on average.

    `ceiling`: of the share of correct answers, which is the precision p t / q of the verifier on this task.
    """

    accepted: Float[Array, "*shape"]
    correct: Float[Array, "*shape"]
    ceiling: Float[Array, "*shape"]
    draws: Float[Array, "*shape"]


class Tasks(NamedTuple):
    """A population: chance to solve each task, and its share of all."""

    success: Float[Array, " tasks"]
    share: Float[Array, " tasks"]


class BestDraws(NamedTuple):
    """The number of draws of largest utility (infinite where more is always better), and the utility it gives.

    `unlimited` is the utility of drawing until one is accepted. `certain`: no other maximum can have been overlooked.
    """

    draws: Scalar
    utility: Scalar
    unlimited: Scalar
    certain: Bool[Array, ""]


def resampling_law(k: Numbers, ceiling: ScalarLike, rate: ScalarLike) -> Float[Array, "*shape"]:
    """Share of correct answers with k draws, ceiling (1 - exp(-rate k)); rate is -log(1 - q) (arXiv:2411.17501)."""
    return -ceiling * jnp.expm1(-rate * k)


def resample(success: Numbers, true_positive: Numbers, false_positive: Numbers, draws: Numbers) -> Resampling:
    """Draw until the verifier accepts, at most `draws` times; elementwise, arguments of one shape or numbers.

    **Raises:** `ValueError` for probabilities outside of [0, 1] and draws below 0.
    """
    require_in(0, 1, success=success, true_positive=true_positive, false_positive=false_positive)
    require_nonnegative(draws=draws)
    p, t, f, k = as_floats(success, true_positive, false_positive, draws)
    q = p * t + (1 - p) * f
    ceiling = jnp.where(q > 0, p * t / jnp.where(q > 0, q, 1.0), 0.0)
    tried = _expected_draws(q, k)
    return Resampling(q * tried, p * t * tried, ceiling, tried)


def utility(
    tasks: Tasks,
    draws: ScalarLike,
    *,
    true_positive: ScalarLike = 1.0,
    false_positive: ScalarLike,
    cost: ScalarLike,
) -> Scalar:
    """Mean over tasks of P(accepted and right) - cost P(accepted and wrong), with at most `draws` draws (or infinity).

    **Raises:** `ValueError` for probabilities outside of [0, 1], and a negative cost or number of draws.
    """
    _check_population(tasks, true_positive, false_positive, cost)
    require_nonnegative(draws=draws)
    q, worth = _of_draws(tasks, true_positive, false_positive, cost)
    return _total(q, worth, jnp.asarray(draws, q.dtype))


def best_draws(
    tasks: Tasks, *, true_positive: ScalarLike = 1.0, false_positive: ScalarLike, cost: ScalarLike
) -> BestDraws:
    """The number of draws that maximises [`utility`].

    Draw K adds sum share (p t - cost (1 - p) f) (1 - q)^(K - 1): exponentials in K, whose sum changes sign at most as
    often as the coefficients do in the order of q. Between changes of sign on a fine grid up to 2^53 it is searched by
    bisection over whole numbers. The best is finite exactly where the tasks of smallest q, the hard ones where t > f,
    lose by being tried. Needs float64 beyond 2^24 draws.

    **Raises:** as [`utility`].
    """
    _check_population(tasks, true_positive, false_positive, cost)
    return _best_draws(tasks, true_positive, false_positive, cost)


@jax.jit
def _best_draws(tasks: Tasks, true_positive: ScalarLike, false_positive: ScalarLike, cost: ScalarLike) -> BestDraws:
    q, worth = _of_draws(tasks, true_positive, false_positive, cost)
    live = worth != 0
    log_miss = jnp.log1p(-jnp.where(live, q, 1.0))
    slowest = jnp.max(log_miss)

    def gain(draws: Array) -> Array:
        """What one draw more after so many adds, in units of the slowest exponential: its sign alone matters."""
        decay = jnp.where(draws > 0, draws * jnp.where(jnp.isfinite(log_miss), log_miss - slowest, -jnp.inf), 0.0)
        return worth @ jnp.where(live, jnp.exp(decay), 0.0)

    scan = jnp.concatenate([jnp.zeros(1, q.dtype), jnp.floor(jnp.geomspace(1.0, FARTHEST, SCAN, dtype=q.dtype))])
    gains = jax.lax.map(gain, scan)
    turns = (gains[:-1] > 0) & (gains[1:] <= 0)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = jnp.floor((low + high) / 2)
        rising = jax.lax.map(gain, middle) > 0
        return jnp.where(rising, middle, low), jnp.where(rising, high, middle)

    # gain(low) > 0 >= gain(high): the best number is low + 1, where the last draw that adds is included.
    (at,) = jnp.nonzero(turns, size=MAXIMA, fill_value=SCAN - 1)
    _, tops = jax.lax.fori_loop(0, 54, halve, (scan[at], scan[at + 1]))
    tops = jnp.where(jnp.arange(MAXIMA) < turns.sum(), tops, 0.0)
    candidates = jnp.concatenate([jnp.zeros(1, q.dtype), tops, jnp.full(1, jnp.inf, q.dtype)])
    values = jax.lax.map(lambda draws: _total(q, worth, draws), candidates)
    best = jnp.argmax(values)

    possible = _changes(jnp.sign(worth[jnp.argsort(q)]))
    certain = (_changes(jnp.sign(gains)) >= possible) & (turns.sum() <= MAXIMA)
    return BestDraws(candidates[best], values[best], values[-1], certain)


def _changes(signs: Float[Array, " values"]) -> Array:
    """How often a sequence changes sign, zeros left out."""

    def step(last: Array, sign: Array) -> tuple[Array, Array]:
        return jnp.where(sign == 0, last, sign), last * sign < 0

    return jax.lax.scan(step, jnp.zeros((), signs.dtype), signs)[1].sum()


def _of_draws(
    tasks: Tasks, true_positive: ScalarLike, false_positive: ScalarLike, cost: ScalarLike
) -> tuple[Float[Array, " tasks"], Float[Array, " tasks"]]:
    """The chance that a draw of each task is accepted, and what a draw is worth."""
    p, share = as_floats(tasks.success, tasks.share)
    right, wrong = p * true_positive, (1 - p) * false_positive
    return right + wrong, share / share.sum() * (right - cost * wrong)


def _total(q: Array, worth: Array, draws: Array) -> Array:
    """What all draws are worth; a task that is never accepted counts nothing, even if drawn for ever."""
    return jnp.where(worth != 0, worth * _expected_draws(q, draws), 0.0).sum()


def _expected_draws(q: Array, draws: Array) -> Array:
    """(1 - (1 - q)^K) / q: K for q -> 0, 1 / q for K -> infinity."""
    some = q > 0
    safe = jnp.where(some, q, 0.5)
    sure = safe >= 1
    exponent = jnp.where(draws > 0, draws * jnp.log1p(-jnp.where(sure, 0.5, safe)), 0.0)
    accepted = jnp.where(sure, jnp.where(draws > 0, 1.0, 0.0), -jnp.expm1(exponent))
    return jnp.where(some, accepted / safe, draws)


def _check_population(tasks: Tasks, true_positive: Any, false_positive: Any, cost: Any) -> None:
    require_in(0, 1, success=tasks.success, true_positive=true_positive, false_positive=false_positive)
    require_nonnegative(share=tasks.share, cost=cost)
    if jnp.shape(tasks.success) != jnp.shape(tasks.share):
        raise ValueError(
            f"success has shape {jnp.shape(tasks.success)}, share {jnp.shape(tasks.share)}: give one per task"
        )
    if not is_traced(tasks.share):
        require_positive(sum_of_share=np.asarray(tasks.share).sum())
