"""Do the intervals of a fit cover? Data sets are planted about a law, fitted, and resampled.

A fit to losses without noise carries its runs in units of the data, and its optimum. A data set adds noise to the log
losses; its fit and those of its resamples start from that optimum. For `jax.vmap` over noise and keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from theorysim.scaling.fit import Problem
from theorysim.typing import Scalar

BATCH = 8  # resamples at once: their arrays stay in the cache


class Recovered(NamedTuple):
    """Quantities of the fit to one data set, percentiles over its resamples at each level, and the share that ended."""

    estimate: Float[Array, "*shape"]
    low: Float[Array, "levels *shape"]
    high: Float[Array, "levels *shape"]
    converged: Scalar

    def covers(self, truth: Float[Array, "*shape"]) -> Bool[Array, "levels *shape"]:
        """Whether each interval holds the truth."""
        return (self.low < truth) & (truth < self.high)


def recover(
    problem: Problem,
    point: Float[Array, " parameters"],
    noise: Float[Array, " runs"],
    quantity: Callable[[Mapping[str, Any]], Float[Array, "*shape"]],
    *,
    key: Array,
    levels: Float[Array, " levels"],
    samples: int,
) -> Recovered:
    """Fit one data set and resample it.

    **Arguments:**

    - `problem`, `point`: of a fit to losses without noise; runs of no weight ([`Problem.padded`]) are never drawn.
    - `noise`: of the log losses.
    - `quantity`: of the parameters, in the units of the runs.
    - `levels`: of the percentile intervals, such as 0.95.
    - `samples`: bootstrap resamples; 1 / (1 - level) or more, for the interval to have its level.
    """
    problem = replace(problem, log_loss=problem.log_loss + noise)
    most, count = len(noise), (problem.weights > 0).sum()
    drawn = jax.random.randint(key, (samples, most), 0, count)
    # Of `most` draws the first `count`: a resample has as many runs as there are.
    counted = jnp.where(jnp.arange(most) < count, 1.0, 0.0)
    resampled = jax.vmap(lambda drawn: jnp.zeros(most).at[drawn].add(counted))(drawn) * problem.weights[None]
    weights = jnp.concatenate([problem.weights[None], resampled])
    ends = jax.lax.map(lambda weights: problem.solve(point, weights), weights, batch_size=BATCH)
    values = jax.vmap(lambda point: quantity(problem.values(point)))(ends.point)
    low, high = (jnp.quantile(values[1:], q, axis=0) for q in ((1 - levels) / 2, (1 + levels) / 2))
    return Recovered(values[0], low, high, ends.converged.mean())
