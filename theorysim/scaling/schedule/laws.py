"""Losses along whole learning-rate schedules: two published laws.

After s updates the rates rates[0], ..., rates[s - 1] have been used, and S1 is their sum. The drop rates[k - 1] -
rates[k] lowers the loss, by the more the longer ago it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.checks import is_traced, require_positive
from theorysim.scaling.law import Parameter, power
from theorysim.scaling.schedule.rates import Rates, Steps, annealed_drops, drops, require_rates, require_steps
from theorysim.typing import Scalar, ScalarLike


def annealed_area(rates: Rates, memory: ScalarLike, *, count_warm_up: bool = False) -> Float[Array, " length"]:
    """S2 after each step: the sum of m_i = lam m_(i-1) + drop_i, with lam = 1 - 1 / memory (arXiv:2408.11029).

    Each drop weighs 1 - lam^(steps since), times `memory`. In O(length), by a scan. A warm-up that counts
    begins with the rise from 0 to rates[0].

    **Raises:** `ValueError` for negative rates, and a memory below 1.
    """
    require_rates(rates)
    _require_memory(memory)
    down = annealed_drops(rates, count_warm_up=count_warm_up)
    lam = 1 - 1 / jnp.asarray(memory, down.dtype)

    def after(state: Any, drop: Array) -> Any:
        momentum = lam * state[0] + drop
        return (momentum, state[1] + momentum), state[1] + momentum

    return jax.lax.scan(after, (jnp.zeros_like(lam), jnp.zeros_like(lam)), down)[1]


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

    **Raises:** `ValueError` for negative rates, a memory below 1, and steps outside of the schedule.
    """
    steps = require_steps(steps, rates)
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

    **Raises:** `ValueError` for negative rates, and steps outside of the schedule.
    """
    require_rates(rates)
    steps = require_steps(steps, rates)
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
        earned = response(jnp.log(jnp.where(seen, area, 1.0)) - gamma * log_rate, C, beta)
        return jnp.sum(jnp.where(seen, down * jnp.where(rates > 0, earned, 1.0), 0))

    return L0 + A * power(s1[steps - 1], -alpha) - B * jax.lax.map(gain, steps, batch_size=32)


def response(log_area: Array, C: ScalarLike, beta: ScalarLike) -> Array:
    """G of the exponential: 1 - (1 + C u)^-beta, to rounding of one: expm1 and log1p would take twice the time."""
    return 1 - jnp.exp(-beta * jnp.log(1 + C * jnp.exp(log_area)))


@dataclass(frozen=True, eq=False)
class ScheduleLaw:
    """loss = fn(rates, steps, **parameters): of `rates`, one per update, after so many `steps`, all of one run.

    `parameters` hold the ranges of a fit's starts, in units of the longest run and the highest rate. For a fit to
    curves, [`law_of`][theorysim.scaling.schedule.law_of] makes a [`Law`][theorysim.scaling.Law] of their losses.
    """

    name: str
    fn: Callable[..., Array]
    parameters: Mapping[str, Parameter]
    source: str

    def __call__(self, *, rates: Rates, steps: Steps, **parameters: ScalarLike) -> Float[Array, " steps"]:
        """The losses after these numbers of steps."""
        missing = [name for name in self.parameters if name not in parameters]
        if missing:
            raise ValueError(f"{self.name}: missing {missing}: it takes the parameters {list(self.parameters)}")
        return self.fn(rates, steps, **parameters)


def steps_to_loss(law: ScheduleLaw, rates: Rates, loss: ScalarLike, **parameters: ScalarLike) -> Scalar:
    """The inverse of a law in its steps: after how many the loss is first reached; NaN where it never is.

    Losses between steps are on lines, which makes it differentiable; a loss that the first step goes below takes 1.

    **Raises:** `ValueError` for a loss <= 0.
    """
    require_positive(loss=loss)
    losses = law(rates=rates, steps=jnp.arange(1, len(rates) + 1), **parameters)
    below = losses <= loss
    after = jnp.argmax(below)
    before = jnp.maximum(after - 1, 0)
    fall = jnp.where(after > 0, losses[before] - losses[after], 1.0)
    steps = (before + 1).astype(losses.dtype) + jnp.where(after > 0, (losses[before] - loss) / fall, 0.0)
    return jnp.where(below.any(), steps, jnp.nan)


def powers(*units: str) -> dict[str, Parameter]:
    """The parameters of L0 + A S1^-alpha, with S1 in these units."""
    return {
        "L0": Parameter(0.1, 0.95, {"loss": 1}),
        "A": Parameter(0.02, 1.5, {"loss": 1, **dict.fromkeys(units, lambda values: values["alpha"])}),
        "alpha": Parameter(0.1, 1.0, positive=False),
    }


SHAPE = {"beta": Parameter(0.2, 1.0, positive=False), "gamma": Parameter(0.2, 0.9, positive=False)}
ANNEALING = ScheduleLaw(
    "annealing",
    annealing,
    {
        **powers("rates", "steps"),
        "C": Parameter(0.1, 100, {"loss": 1, "rates": -1, "steps": -1}),
        "memory": Parameter(0.002, 0.5, {"steps": 1}),
    },
    "arXiv:2408.11029",
)
MULTI_POWER = ScheduleLaw(
    "multi_power",
    multi_power,
    {
        **powers("rates", "steps"),
        "B": Parameter(0.02, 1, {"loss": 1, "rates": -1}),
        "C": Parameter(1, 1e4, {"rates": lambda values: values["gamma"] - 1, "steps": -1}),
        **SHAPE,
    },
    "arXiv:2503.12811",
)


LAWS = {law.name: law for law in (ANNEALING, MULTI_POWER)}
"""The laws of schedules by name."""


def _require_memory(memory: Any) -> None:
    if not is_traced(memory) and not np.all(np.asarray(memory) >= 1):
        raise ValueError(f"memory={memory}: give 1 / (1 - lam) >= 1 steps")
