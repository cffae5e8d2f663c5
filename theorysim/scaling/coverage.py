"""Do the intervals of a fit cover? Data sets are planted about a law, fitted, and resampled.

Runs on the law itself, without noise, are in units of the data, and their optimum is known. A data set adds noise to
the log losses; its fit and those of its resamples start from that optimum. For `jax.vmap` over noise and keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from theorysim.scaling.fit import named
from theorysim.scaling.law import Law
from theorysim.scaling.minimise import Objective, huber
from theorysim.scaling.problem import Problem, problem_of
from theorysim.typing import Scalar

BATCH = 8  # resamples at once: their arrays stay in the cache


class Planted(NamedTuple):
    """Runs on a law, as a fit sees them, and the law's own point in the fit's coordinates."""

    problem: Problem
    point: Float[Array, " parameters"]


def planted(
    law: Law | str,
    inputs: Mapping[str, Float[np.ndarray, " runs"]],
    parameters: Mapping[str, Any],
    *,
    objective: Objective | None = None,
) -> Planted:
    """Runs at the `inputs` whose losses are the law's with these `parameters`: what [`recover`] adds noise to.

    `objective` is [`huber`][theorysim.scaling.huber] unless given, as for a fit.

    **Raises:** `RunsError` for a law that the registry lacks, `ValueError` for inputs and parameters not the law's.
    """
    law = law if isinstance(law, Law) else named(law)
    loss = np.asarray(law(**inputs, **parameters))
    free = np.ones(len(law.parameters))
    problem = problem_of(law, inputs, loss, None, objective or huber(), free)
    return Planted(problem, law.point(parameters, problem.log_scale))


class Recovered(NamedTuple):
    """Quantities of the fit to one data set, percentiles over its resamples at each level, and the share that ended."""

    estimate: Float[Array, "*shape"]
    low: Float[Array, "levels *shape"]
    high: Float[Array, "levels *shape"]
    converged: Scalar

    def covers(self, truth: Float[Array, "*shape"] | float) -> Bool[Array, "levels *shape"]:
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

    - `problem`, `point`: of runs on the law ([`planted`]); runs of no weight ([`Problem.padded`]) are never drawn.
    - `noise`: of the log losses.
    - `quantity`: of the parameters, in the units of the runs.
    - `levels`: of the percentile intervals, such as 0.95.
    - `samples`: bootstrap resamples; 1 / (1 - level) or more, for the interval to have its level.
    """
    problem = replace(problem, log_loss=problem.log_loss + noise)
    most, count = len(noise), (problem.weights > 0).sum()
    # Uniform numbers in one dimension compile in a fifth of the time of integers in two.
    drawn = jax.random.uniform(key, (samples * most,)).reshape(samples, most) * count.astype(float)
    # Of `most` draws the first `count`: a resample has as many runs as there are.
    counted = jnp.where(jnp.arange(most) < count, 1.0, 0.0)
    resampled = (
        jax.vmap(lambda drawn: jnp.zeros(most).at[drawn].add(counted))(drawn.astype(int)) * problem.weights[None]
    )
    weights = jnp.concatenate([problem.weights[None], resampled])
    ends = jax.lax.map(lambda weights: problem.solve(point, weights), weights, batch_size=BATCH)
    values = jax.vmap(lambda point: quantity(problem.values(point)))(ends.point)
    low, high = jnp.split(jnp.quantile(values[1:], jnp.concatenate([1 - levels, 1 + levels]) / 2, axis=0), 2)
    return Recovered(values[0], low, high, ends.converged.mean())
