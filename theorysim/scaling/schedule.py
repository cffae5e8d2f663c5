"""Losses of whole learning-rate schedules: two published laws, their fits, and the schedule that each likes best.

A schedule is an array of learning rates, one a step. After s steps the rates rates[0], ..., rates[s - 1] have been
used, and S1 = their sum. Rate k differs from the one before by the drop rates[k - 1] - rates[k], which the laws reward
the later the more. Curves of one run, all its losses under one schedule, have errors in common: bootstrap them by
`groups=runs["curve"]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from theorysim.checks import is_traced, require_nonnegative, require_positive
from theorysim.scaling.law import Law, Parameter, Power, power
from theorysim.typing import Scalar, ScalarLike

Rates = Float[Array, " length"] | Float[np.ndarray, " length"]
ZERO = 1e-200  # a rate or an area whose logarithm is taken
BINS = 16  # of the drops that a loss remembers
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
    """[`constant`], with the rate `second` from step `switch` on."""
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


def annealed_area(rates: Rates, memory: ScalarLike, *, count_warm_up: bool = False) -> Float[Array, " length"]:
    """S2 after each step: the sum of m_i = lam m_(i-1) + drop_i, with lam = 1 - 1 / memory (arXiv:2408.11029).

    Each drop weighs 1 - lam^(steps since), times `memory`. In O(length), by a scan. A warm-up that counts
    begins with the rise from 0 to rates[0].
    """
    _require_rates(rates)
    _require_memory(memory)
    down = _annealed_drops(rates, count_warm_up)
    lam = 1 - 1 / jnp.asarray(memory, down.dtype)

    def after(state: Any, drop: Array) -> Any:
        momentum = lam * state[0] + drop
        return (momentum, state[1] + momentum), state[1] + momentum

    return jax.lax.scan(after, (jnp.zeros_like(lam), jnp.zeros_like(lam)), down)[1]


def _annealed_drops(rates: Rates, count_warm_up: bool) -> Array:
    down = drops(rates, count_warm_up=count_warm_up)
    return down.at[0].set(-rates[0]) if count_warm_up else down


def annealing(
    rates: Rates,
    steps: Steps,
    *,
    L0: ScalarLike,
    A: ScalarLike,
    alpha: ScalarLike,
    C: ScalarLike,
    memory: ScalarLike,
    n: ScalarLike = 1.0,
    B: ScalarLike = 0.0,
    beta: ScalarLike = 0.0,
    count_warm_up: bool = False,
) -> Float[Array, " steps"]:
    """Loss L0 + A S1^-alpha - C S2 (+ B n^-beta) after each number of steps (Tissue et al., arXiv:2408.11029).

    S2 is the [`annealed_area`]; `memory` = 1 / (1 - lam), in steps. The annealing starts after the warm-up, whose rise
    would else make S2 negative for ever after; `count_warm_up` counts it, as some code of the paper's readers does.
    """
    steps = _require_steps(steps, rates)
    area = annealed_area(rates, memory, count_warm_up=count_warm_up)
    s1 = jnp.cumsum(jnp.asarray(rates))[steps - 1]
    return L0 + A * power(s1, -alpha) - C * area[steps - 1] + B * power(jnp.asarray(n, s1.dtype), -beta)


def multi_power(
    rates: Rates,
    steps: Steps,
    *,
    L0: ScalarLike,
    A: ScalarLike,
    alpha: ScalarLike,
    B: ScalarLike,
    C: ScalarLike,
    beta: ScalarLike,
    gamma: ScalarLike,
    count_warm_up: bool = True,
) -> Float[Array, " steps"]:
    """Loss L0 + A S1^-alpha - B sum_k drop_k G(rates[k]^-gamma S_k) after each number of steps, with

    G(u) = 1 - (1 + C u)^-beta and S_k the sum of rates from k on (Luo et al., arXiv:2503.12811). Exact, in
    O(steps length). The paper's step t is t + 1 here (it counts from 0). Its constants count the rises of the warm-up
    as negative drops: without them, they miss its losses by 0.1 nats.
    """
    _require_rates(rates)
    steps = _require_steps(steps, rates)
    rates = jnp.asarray(rates)
    down = drops(rates, count_warm_up=count_warm_up)
    s1 = jnp.cumsum(rates)
    before = s1 - rates
    log_rate = jnp.log(jnp.where(rates > 0, rates, 1))
    index = jnp.arange(len(rates))

    def gain(step: Array) -> Array:
        # A drop to zero earns nothing until a later step moves, and then all.
        area = s1[step - 1] - before
        seen = (index < step) & (area > 0)
        response = _response(jnp.log(jnp.where(seen, area, 1.0)) - gamma * log_rate, C, beta)
        return jnp.sum(jnp.where(seen, down * jnp.where(rates > 0, response, 1.0), 0))

    return L0 + A * power(s1[steps - 1], -alpha) - B * jax.lax.map(gain, steps, batch_size=32)


def _response(log_area: Array, C: ScalarLike, beta: ScalarLike) -> Array:
    """G of the exponential: 1 - (1 + C u)^-beta, to rounding of one: expm1 and log1p would take twice the time."""
    return 1 - jnp.exp(-beta * jnp.log(1 + C * jnp.exp(log_area)))


class Curve(NamedTuple):
    """Losses of one run: its schedule, the numbers of steps at which the loss was taken, and the model's size."""

    rates: Float[np.ndarray, " length"]
    steps: Int[np.ndarray, " observations"]
    loss: Float[np.ndarray, " observations"]
    n: float | None = None


class Fittable(NamedTuple):
    """A law of given curves and the table of their losses, for `fit(law, runs)`.

    Each row of `runs` is one loss; `curve` and `step` say which. A part of the rows is a table, too: fit some curves,
    predict others.
    """

    law: Law
    runs: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class ScheduleLaw(Law):
    """A law of `rates`, one a step, and `steps` after which losses are taken; all its parameters are of one run.

    `of_curves` makes of it a law of the losses of given curves, to fit.
    """

    of_curves: Callable[..., Fittable] = field(kw_only=True)


def first_step(law: ScheduleLaw, rates: Rates, loss: ScalarLike, **parameters: ScalarLike) -> Scalar:
    """The inverse of a law in its steps: after how many the loss is first reached; NaN where it never is.

    Losses between steps are on lines, which makes it differentiable; a loss that the first step goes below takes 1.
    """
    require_positive(loss=loss)
    losses = law(rates=rates, steps=jnp.arange(1, len(rates) + 1), **parameters)
    below = losses <= loss
    after = jnp.argmax(below)
    before = jnp.maximum(after - 1, 0)
    fall = jnp.where(after > 0, losses[before] - losses[after], 1.0)
    steps = before + 1 + jnp.where(after > 0, (losses[before] - loss) / fall, 0.0)
    return jnp.where(below.any(), steps, jnp.nan)


def annealing_law(curves: Sequence[Curve], *, count_warm_up: bool = False) -> Fittable:
    """[`annealing`] as a law to fit; with sizes n in all curves, the term B n^-beta is fitted, too.

    Before each loss, drops are put together to some 34 that weigh as all do: S2 moves by up to 5e-6 of the memory times
    the peak.
    """
    down = [_annealed_drops(curve.rates, count_warm_up) for curve in _checked(curves)]
    runs, past = _observe(curves, down, by_area=False)
    sized = "n" in runs
    weight, distance = jnp.asarray(past.weight), jnp.asarray(past.distance)

    def fn(
        s1: Array,
        row: Array,
        L0: ScalarLike,
        A: ScalarLike,
        alpha: ScalarLike,
        C: ScalarLike,
        memory: ScalarLike,
        n: Array | float = 1.0,
        B: ScalarLike = 0.0,
        beta: ScalarLike = 0.0,
    ) -> Array:
        row = row.astype(int)
        forgotten = -jnp.expm1(distance[row] * jnp.log1p(-1 / memory))
        area = memory * jnp.sum(weight[row] * forgotten, -1)
        capacity = B * power(n, -beta) if sized else 0.0
        return L0 + A * power(s1, -alpha) - C * area + capacity

    memory = _of_curves(ANNEALING.parameters["memory"], past)
    size = {"B": Parameter(0.02, 1.5, {"loss": 1, "n": _beta}), "beta": Parameter(0.05, 1.0, positive=False)}
    law = Law(
        "annealing",
        fn,
        {"s1": "s1", "row": "row"} | ({"n": "n"} if sized else {}),
        {
            **_powers("s1"),
            "C": _of_curves(ANNEALING.parameters["C"], past),
            "memory": Parameter(max(2.0, memory.low), max(4.0, memory.high)),
            **(size if sized else {}),
        },
        "arXiv:2408.11029",
    )
    return Fittable(law, runs)


def multi_power_law(curves: Sequence[Curve], *, count_warm_up: bool = True) -> Fittable:
    """[`multi_power`] as a law to fit.

    Before each loss, drops are put together to some 34 that weigh as all do: the sum moves by up to 5e-6 of the peak.
    """
    down = [drops(curve.rates, count_warm_up=count_warm_up) for curve in _checked(curves)]
    runs, past = _observe(curves, down, by_area=True)
    weight, log_area, log_rate = jnp.asarray(past.weight), jnp.asarray(past.log_area), jnp.asarray(past.log_rate)

    def fn(
        s1: Array,
        row: Array,
        L0: ScalarLike,
        A: ScalarLike,
        alpha: ScalarLike,
        B: ScalarLike,
        C: ScalarLike,
        beta: ScalarLike,
        gamma: ScalarLike,
    ) -> Array:
        seen = (of[row.astype(int)] for of in (weight, log_area, log_rate))
        return L0 + A * power(s1, -alpha) - B * _by_jacobian(_gain)(jnp.stack([C, beta, gamma]), *seen)

    law = Law(
        "multi_power",
        fn,
        {"s1": "s1", "row": "row"},
        {
            **_powers("s1"),
            "B": _of_curves(MULTI_POWER.parameters["B"], past),
            "C": _of_curves(MULTI_POWER.parameters["C"], past),
            **SHAPE,
        },
        "arXiv:2503.12811",
    )
    return Fittable(law, runs)


def _gain(shape: Array, down: Array, log_area: Array, log_rate: Array) -> Array:
    C, beta, gamma = shape
    return jnp.sum(down * _response(log_area - gamma * log_rate, C, beta), -1)


def _by_jacobian(fn: Callable[..., Array]) -> Callable[..., Array]:
    """A function of few numbers and given data, whose derivatives of all orders are Jacobians times tangents.

    However many tangents, the sums that fn takes are differentiated once, by its own numbers alone. Data have none.
    """

    @jax.custom_jvp
    def wrapped(point: Array, *data: Array) -> Array:
        return fn(point, *data)

    @wrapped.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        return wrapped(*primals), _by_jacobian(jax.jacfwd(fn))(*primals) @ tangents[0]

    return wrapped


def _powers(*units: str) -> dict[str, Parameter]:
    return {
        "L0": Parameter(0.1, 0.95, {"loss": 1}),
        "A": Parameter(0.02, 1.5, {"loss": 1, **dict.fromkeys(units, lambda values: values["alpha"])}),
        "alpha": Parameter(0.1, 1.0, positive=False),
    }


def _beta(values: Any) -> Any:
    return values["beta"]


class _Past(NamedTuple):
    """What each loss remembers: drops put together, their distance in steps, log S_k and log rate; scales of all."""

    weight: np.ndarray
    distance: np.ndarray
    log_area: np.ndarray
    log_rate: np.ndarray
    length: int
    peak: float


def _of_curves(parameter: Parameter, past: _Past) -> Parameter:
    """With its range in the units of the longest run and the highest rate, where gamma = 1/2."""

    def of(power: Power) -> Any:
        return power({"gamma": 0.5}) if callable(power) else power

    unit = dict(parameter.unit)
    scale = past.peak ** of(unit.pop("rates", 0)) * past.length ** of(unit.pop("steps", 0))
    return Parameter(parameter.low * scale, parameter.high * scale, unit)


def _checked(curves: Sequence[Curve]) -> Sequence[Curve]:
    if not curves:
        raise ValueError("curves=[]: give at least one Curve(rates, steps, loss)")
    for number, curve in enumerate(curves):
        _require_rates(curve.rates)
        _require_steps(curve.steps, curve.rates)
        if len(curve.steps) != len(curve.loss):
            raise ValueError(f"curve {number} has {len(curve.loss)} losses at {len(curve.steps)} steps: give one each")
    return curves


def _observe(curves: Sequence[Curve], down: Sequence[Array], *, by_area: bool) -> tuple[dict[str, np.ndarray], _Past]:
    columns: dict[str, list] = {name: [] for name in ("curve", "step", "s1", "loss", "n")}
    pasts = []
    for number, curve in enumerate(curves):
        steps, rates = np.asarray(curve.steps), np.asarray(curve.rates, np.float64)
        s1 = np.cumsum(rates)
        fallen = np.asarray(down[number])
        pasts += [_past(rates, s1, fallen, int(step), by_area) for step in steps]
        ones = np.ones(len(steps))
        values = (number * ones, steps, s1[steps - 1], curve.loss, np.nan * ones if curve.n is None else curve.n * ones)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(np.asarray(value, np.float64))
    runs = {name: np.concatenate(parts) for name, parts in columns.items()}
    runs["row"] = np.arange(len(pasts), dtype=np.float64)
    if np.isnan(runs["n"]).any():
        del runs["n"]
    widest = max(len(past[0]) for past in pasts)
    padded = np.stack([np.pad(past, ((0, 0), (0, widest - past.shape[1]))) for past in pasts], 1)
    longest = max(len(curve.rates) for curve in curves)
    return runs, _Past(*padded, length=longest, peak=float(max(np.max(curve.rates) for curve in curves)))


def _past(rates: np.ndarray, s1: np.ndarray, down: np.ndarray, step: int, by_area: bool) -> np.ndarray:
    """Weight, distance, log S_k and log rate of the drops before a step, as pairs of drops that stand for bins of them.

    A bin's pair has its total, and its mean and variance in the logarithms that the law sees: what is lost is of third
    order in its width. Bins are narrow where many drops are, by the fifth root of their density, which spreads errors
    of fourth order evenly.
    """
    area = s1[step - 1] - (s1[:step] - rates[:step])
    k = np.flatnonzero((down[:step] != 0) & ((area > 0) if by_area else True))
    if not len(k):
        return np.zeros((4, 1))
    places = np.log(np.maximum([area[k], rates[k]] if by_area else [step - k], ZERO))
    size = np.abs(down[k])
    apart = np.abs(np.diff(places, append=places[:, -1:])).sum(0)
    share = size**0.2 * apart**0.8
    along = (np.cumsum(share) - share / 2) / max(share.sum(), ZERO)
    bins = np.unique([np.sign(down[k]), np.floor(BINS * along)], axis=1, return_inverse=True)[1]

    def mean(of: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(bins, size * row) for row in of]) / np.bincount(bins, size)

    middle = mean(places)
    off = places - middle[:, bins]
    spread = np.sqrt(mean(off**2)) * np.where(mean(off * off[:1]) < 0, -1, 1)
    pairs = np.concatenate([middle - spread, middle + spread], 1)
    weight = np.tile(np.bincount(bins, down[k]) / 2, 2)
    zero = np.zeros_like(weight)
    return np.stack([weight, zero, *pairs] if by_area else [weight, np.exp(pairs[0]), zero, zero])


SHAPE = {"beta": Parameter(0.2, 1.0, positive=False), "gamma": Parameter(0.2, 0.9, positive=False)}
INPUTS = {"rates": "rates", "steps": "steps"}
ANNEALING = ScheduleLaw(
    "annealing",
    annealing,
    INPUTS,
    {
        **_powers("rates", "steps"),
        "C": Parameter(0.1, 100, {"loss": 1, "rates": -1, "steps": -1}),
        "memory": Parameter(0.002, 0.5, {"steps": 1}),
    },
    "arXiv:2408.11029",
    of_curves=annealing_law,
)
MULTI_POWER = ScheduleLaw(
    "multi_power",
    multi_power,
    INPUTS,
    {
        **_powers("rates", "steps"),
        "B": Parameter(0.02, 1, {"loss": 1, "rates": -1}),
        "C": Parameter(1, 1e4, {"rates": lambda values: values["gamma"] - 1, "steps": -1}),
        **SHAPE,
    },
    "arXiv:2503.12811",
    of_curves=multi_power_law,
)


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


def _require_rates(rates: Any) -> None:
    if np.ndim(rates) != 1 or np.shape(rates)[0] < 1:
        raise ValueError(f"rates has the shape {np.shape(rates)}: give one learning rate a step, at least one")
    if not is_traced(rates):
        bad = ~(np.asarray(rates) >= 0) | ~np.isfinite(np.asarray(rates))
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(f"rates[{first}]={np.asarray(rates)[first]}: give learning rates >= 0")


def _require_memory(memory: Any) -> None:
    if not is_traced(memory) and not np.all(np.asarray(memory) >= 1):
        raise ValueError(f"memory={memory}: give 1 / (1 - lam) >= 1 steps")


def _require_steps(steps: Any, rates: Any) -> Array:
    length = np.shape(rates)[0]
    if not is_traced(steps):
        bad = (np.asarray(steps) < 1) | (np.asarray(steps) > length)
        if bad.any():
            raise ValueError(f"steps holds {np.asarray(steps)[bad][0]}: give steps in 1, ..., {length}, the schedule's")
    return jnp.asarray(steps)
