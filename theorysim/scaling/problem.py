"""Runs in units of themselves, and the searches for optima of a law on them, many in lockstep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from theorysim.checks import require_float64
from theorysim.scaling.law import Law
from theorysim.scaling.minimise import Objective, Residuals, Search, advance, begin
from theorysim.scaling.runs import RunsError

LANES = 64  # starts or resamples that one loop advances in lockstep: their arrays stay in the cache,
FEW = 16  # or so many where there are no more: each size is a program of its own
CELLS = 2**18  # lanes times runs of one block, beyond which it has fewer lanes
BORDER = 10.0  # widths of the range of starts beyond it: where an optimum at infinity is left
ROUND, ROUNDS = 30, 10  # iterations before lanes are dealt out anew, and how often at most


@dataclass(frozen=True, eq=False)
class Problem:
    """Runs in units of themselves, the objective and the coordinates that are free: what the optimiser sees."""

    law: Law
    inputs: Mapping[str, Float[Array, " runs"]]
    log_loss: Float[Array, " runs"]
    weights: Float[Array, " runs"]
    log_scale: Mapping[str, Float[Array, ""]]
    objective: Objective
    free: Float[Array, " parameters"]

    def log_prediction(self, point: Float[Array, " parameters"]) -> Float[Array, " runs"]:
        """The logarithm of the law at the runs, in units of the data."""
        return self.log_prediction_at(self.inputs, point)

    def log_prediction_at(self, inputs: Mapping[str, Any], point: Float[Array, " parameters"]) -> Array:
        """The same elsewhere."""
        bare = self.law.values(point, dict.fromkeys(self.log_scale, jnp.zeros(())))
        return jnp.log(self.law.fn(**inputs, **bare))

    def values(self, point: Float[Array, " parameters"]) -> dict[str, Array]:
        """Parameters in the units of the runs."""
        return self.law.values(point, self.log_scale)

    def padded(self, count: int) -> "Problem":
        """With copies of the last run, of no weight, up to so many: problems of one size share one program."""
        more = count - len(self.log_loss)
        return replace(
            self,
            inputs={name: _repeat_last(values, more) for name, values in self.inputs.items()},
            log_loss=_repeat_last(self.log_loss, more),
            weights=jnp.asarray(np.pad(self.weights, (0, more))),
        )

    def filled(self) -> "Problem":
        """Padded to the next size that has a program: a multiple of 64 runs."""
        return self.padded(len(self.log_loss) + -len(self.log_loss) % LANES)

    def solve(self, start: Float[Array, " parameters"], weights: Float[Array, " runs"]) -> Search:
        """The optimum that one start leads to; for `jax.vmap`."""
        return self.advance(begin(start), weights, ROUND * ROUNDS)

    def advance(self, search: Search, weights: Float[Array, " runs"], iterations: int) -> Search:
        """A search, so many iterations on."""
        low, high = self.law.box()
        width = high - low
        residuals = Residuals(
            self.log_prediction,
            self.log_loss,
            weights,
            self.objective,
            free=self.free,
            reach=width / 2,
            border=jnp.stack([low - BORDER * width, high + BORDER * width]),
        )
        return advance(residuals, search, iterations=iterations)


jax.tree_util.register_dataclass(
    Problem,
    data_fields=["inputs", "log_loss", "weights", "log_scale", "objective", "free"],
    meta_fields=["law"],
)


def _repeat_last(values: Any, more: int) -> Array:
    # By numpy: on the device each length would be a program of its own.
    return jnp.asarray(np.pad(values, (0, more), mode="edge"))


RowWeights = Callable[[Int[np.ndarray, " rows"]], Float[np.ndarray, "rows runs"]]


def solve_all(problem: Problem, starts: Float[Array, "rows parameters"], weights: RowWeights) -> Search:
    """One optimum for each start, with the weights of its row.

    Rows go through one compiled program in blocks of one size, the last filled up, and runs are filled up with copies
    of no weight: a fit, its bootstrap and fits of about as many runs share it. After some iterations those which have
    not ended form blocks anew, so that few lanes wait for a slow one. Blocks of many runs have fewer lanes, and weights
    are made for one block at a time, so that a million runs take the memory of one lane.
    """
    missing = -len(problem.log_loss) % LANES
    problem = problem.filled()
    first = begin(jnp.asarray(starts[0]))
    found = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], len(starts), 0), first)
    found = found._replace(point=np.array(starts))
    lanes = min(FEW if len(starts) <= FEW else LANES, max(1, CELLS // len(problem.log_loss)))
    left = np.arange(len(starts))
    for _ in range(ROUNDS):
        for rows in np.pad(left, (0, -len(left) % lanes), mode="edge").reshape(-1, lanes):
            padded = np.pad(weights(rows), ((0, 0), (0, missing)))
            block = _advance(problem, jax.tree.map(lambda leaf, rows=rows: leaf[rows], found), padded)
            for leaf, values in zip(found, block, strict=True):
                leaf[rows] = values
        left = left[~(found.converged | np.isnan(found.value))[left]]
        if not left.size:
            break
    return jax.tree.map(jnp.asarray, found)


@jax.jit
def _advance(problem: Problem, searches: Search, weights: Float[Array, "lanes runs"]) -> Search:
    return jax.vmap(lambda search, weights: problem.advance(search, weights, ROUND))(searches, weights)


@jax.jit
def slopes_at(
    problem: Problem, inputs: Mapping[str, Float[Array, " runs"]], point: Float[Array, " parameters"]
) -> Float[Array, "runs parameters"]:
    """The derivative of log predictions at inputs (in units of the data) by the free parameters, else zero."""
    return jax.jacfwd(problem.log_prediction_at, argnums=1)(inputs, point) * problem.free[None]


@partial(jax.jit, static_argnums=0)
def predict(law: Law, inputs: Mapping[str, Array], values: Mapping[str, Any]) -> Array:
    """The loss at inputs, by a program that fits of one law share."""
    return law.fn(**inputs, **values)


def log_prediction(problem: Problem, point: Any) -> Float[np.ndarray, " runs"]:
    """[`Problem.log_prediction`], by one program for about as many runs."""
    return np.asarray(_log_prediction(problem.filled(), jnp.asarray(point)))[: len(problem.log_loss)]


@jax.jit
def _log_prediction(problem: Problem, point: Float[Array, " parameters"]) -> Float[Array, " runs"]:
    return problem.log_prediction(point)


def values_at(problem: Problem, points: Float[Array, "rows parameters"]) -> dict[str, Array]:
    """Parameters at many points, in the units of the runs."""
    found = _values_at(problem.filled(), points)
    return {name: found[name] for name in problem.law.parameters}


@jax.jit
def _values_at(problem: Problem, points: Float[Array, "rows parameters"]) -> dict[str, Array]:
    return jax.vmap(problem.values)(points)


def problem_of(
    law: Law, inputs: Mapping[str, np.ndarray], loss: np.ndarray, weights: Any, objective: Objective, free: np.ndarray
) -> Problem:
    """Runs in units of themselves: inputs over their geometric means, log losses less their mean.

    **Raises:** `RunsError` for weights that are not one finite number >= 0 per run.
    """
    if weights is not None:
        weights = np.asarray(weights, float)
        if weights.shape != loss.shape or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise RunsError("weights: give one finite number >= 0 per run, not all zero")
    log_loss = np.log(loss)
    require_float64("a fit", loss=jnp.asarray(log_loss))
    log_scale = dict.fromkeys(law.units, 0.0)
    for name, unit in law.inputs.items():
        if unit in log_scale and name == unit:
            log_scale[unit] = np.log(inputs[name]).mean()
    if "loss" in log_scale:
        log_scale["loss"] = log_loss.mean()
    return Problem(
        law=law,
        inputs={
            name: jnp.asarray(values * np.exp(-log_scale.get(law.inputs[name], 0.0))) for name, values in inputs.items()
        },
        log_loss=jnp.asarray(log_loss - log_scale.get("loss", 0.0)),
        weights=jnp.asarray(np.ones(len(loss)) if weights is None else weights),
        log_scale={unit: jnp.asarray(value) for unit, value in log_scale.items()},
        objective=Objective(*(jnp.asarray(value, float) for value in objective)),
        free=jnp.asarray(free),
    )
