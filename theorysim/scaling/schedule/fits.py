"""Laws of schedules as laws of the losses of given curves, for `scaling.fit`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from theorysim.scaling.law import Law, Parameter, Power, power
from theorysim.scaling.schedule.laws import ANNEALING, MULTI_POWER, SHAPE, ScheduleLaw, powers, response
from theorysim.scaling.schedule.memory import Curve, Past, observe
from theorysim.scaling.schedule.rates import annealed_drops, drops, require_rates, require_steps
from theorysim.typing import ScalarLike


class Fittable(NamedTuple):
    """A law of given curves and the table of their losses, for `fit(law, runs)`.

    Each row of `runs` is one loss; `curve` and `step` say which. A part of the rows is a table, too: fit some curves,
    predict others.
    """

    law: Law
    runs: dict[str, np.ndarray]


def annealing_law(curves: Sequence[Curve], *, count_warm_up: bool = False) -> Fittable:
    """[`annealing`] as a law to fit; with sizes n in all curves, the term B n^-beta is fitted, too.

    The drops before each loss are binned into at most 34, with each bin's sum, mean and variance kept: S2 changes by at
    most 5e-6 of the memory times the peak.

    **Raises:** `ValueError` for no curves, and for rates, steps or losses that make no curve.
    """
    down = [annealed_drops(curve.rates, count_warm_up=count_warm_up) for curve in _checked(curves)]
    runs, past = observe(curves, down, by_area=False)
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
    size = {
        "B": Parameter(0.02, 1.5, {"loss": 1, "n": lambda values: values["beta"]}),
        "beta": Parameter(0.05, 1.0, positive=False),
    }
    law = Law(
        "annealing",
        fn,
        {"s1": "s1", "row": "row"} | ({"n": "n"} if sized else {}),
        {
            **powers("s1"),
            "C": _of_curves(ANNEALING.parameters["C"], past),
            "memory": Parameter(max(2.0, memory.low), max(4.0, memory.high)),
            **(size if sized else {}),
        },
        "arXiv:2408.11029",
    )
    return Fittable(law, runs)


def multi_power_law(curves: Sequence[Curve], *, count_warm_up: bool = True) -> Fittable:
    """[`multi_power`] as a law to fit.

    The drops before each loss are binned into at most 34, with each bin's sum, mean and variance kept: the sum changes
    by at most 5e-6 of the peak.

    **Raises:** as [`annealing_law`].
    """
    down = [drops(curve.rates, count_warm_up=count_warm_up) for curve in _checked(curves)]
    runs, past = observe(curves, down, by_area=True)
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
            **powers("s1"),
            "B": _of_curves(MULTI_POWER.parameters["B"], past),
            "C": _of_curves(MULTI_POWER.parameters["C"], past),
            **SHAPE,
        },
        "arXiv:2503.12811",
    )
    return Fittable(law, runs)


def _gain(shape: Array, down: Array, log_area: Array, log_rate: Array) -> Array:
    C, beta, gamma = shape
    return jnp.sum(down * response(log_area - gamma * log_rate, C, beta), -1)


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


def _of_curves(parameter: Parameter, past: Past) -> Parameter:
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
        require_rates(curve.rates)
        require_steps(curve.steps, curve.rates)
        if len(curve.steps) != len(curve.loss):
            raise ValueError(f"curve {number} has {len(curve.loss)} losses at {len(curve.steps)} steps: give one each")
    return curves


def law_of(law: ScheduleLaw, curves: Sequence[Curve]) -> Fittable:
    """One of `LAWS` as a law of the losses of given curves, to fit.

    **Raises:** `ValueError` for a law that is not one of them, and as [`annealing_law`] does.
    """
    makers = {ANNEALING: annealing_law, MULTI_POWER: multi_power_law}
    if law not in makers:
        raise ValueError(f"law={law.name}: give one of {', '.join(known.name for known in makers)}")
    return makers[law](curves)
