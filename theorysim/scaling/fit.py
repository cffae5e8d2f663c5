"""Fit a law to runs: every start to its end, and a result that says how sure it is of its optimum."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import qmc

from theorysim.checks import require_float64
from theorysim.scaling import schedule
from theorysim.scaling.law import Law
from theorysim.scaling.laws import LAWS
from theorysim.scaling.minimise import Objective, Residuals, Search, advance, begin, huber
from theorysim.scaling.runs import (
    RunsError,
    RunsWarning,
    UnidentifiedError,
    columns,
    require_enough,
    warn_of_doubts,
)

LANES = 64  # starts or resamples that one loop advances in lockstep: their arrays stay in the cache
ROUND, ROUNDS = 30, 10  # iterations before lanes are dealt out anew, and how often at most
SAME = 1e-9  # of the best objective: the same optimum
UNITS = 1e-6  # of a log loss: more is not rounding
RANK = 1e-7  # of the largest singular value: a direction that the runs do not see


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
            inputs={name: jnp.pad(values, (0, more), mode="edge") for name, values in self.inputs.items()},
            log_loss=jnp.pad(self.log_loss, (0, more), mode="edge"),
            weights=jnp.pad(self.weights, (0, more)),
        )

    def solve(self, start: Float[Array, " parameters"], weights: Float[Array, " runs"]) -> Search:
        """The optimum that one start leads to; for `jax.vmap`."""
        return self.advance(begin(start), weights, ROUND * ROUNDS)

    def advance(self, search: Search, weights: Float[Array, " runs"], iterations: int) -> Search:
        """A search, so many iterations on."""
        low, high = self.law.box()
        residuals = Residuals(
            self.log_prediction, self.log_loss, weights, self.objective, free=self.free, reach=(high - low) / 2
        )
        return advance(residuals, search, iterations=iterations)


jax.tree_util.register_dataclass(
    Problem,
    data_fields=["inputs", "log_loss", "weights", "log_scale", "objective", "free"],
    meta_fields=["law"],
)


def solve_all(problem: Problem, starts: Float[Array, "rows parameters"], weights: Float[Array, "rows runs"]) -> Search:
    """One optimum for each start and set of weights.

    Rows go through one compiled program in blocks of one size, the last filled up, and runs are filled up with copies
    of no weight: a fit, its bootstrap and fits of about as many runs share it. After some iterations those which have
    not ended form blocks anew, so that few lanes wait for a slow one.
    """
    missing = -len(problem.log_loss) % LANES
    problem = problem.padded(len(problem.log_loss) + missing)
    padded = np.pad(weights, ((0, 0), (0, missing)))
    found = jax.tree.map(np.array, jax.vmap(begin)(starts))
    lanes = min(LANES, len(starts))
    left = np.arange(len(starts))
    for _ in range(ROUNDS):
        for rows in np.pad(left, (0, -len(left) % lanes), mode="edge").reshape(-1, lanes):
            block = _advance(problem, jax.tree.map(lambda leaf, rows=rows: leaf[rows], found), padded[rows])
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


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted law and its certificate.

    `value` is the objective in the paper's own sum over runs; `gradient_norm` that of its logarithm, in units of the
    data; `basin_share` the share of starts that end in the optimum (within 1e-9 of it); `rank` and `condition` those of
    the derivative of log predictions by the parameters, and `weakest` the direction that the runs see least.
    """

    law: Law
    parameters: dict[str, float]
    value: float
    gradient_norm: float
    converged: bool
    basin_share: float
    rank: int
    condition: float
    weakest: dict[str, float]
    residuals: np.ndarray
    runs: dict[str, np.ndarray]
    problem: Problem
    point: Float[Array, " parameters"]

    def __call__(self, **inputs: Any) -> Float[Array, "*shape"]:
        """The fitted loss at inputs of one shape."""
        at = {name: jnp.asarray(inputs[name], float) for name in self.law.inputs}
        return _predict(self.law, at, self.parameters)


@partial(jax.jit, static_argnums=0)
def _predict(law: Law, inputs: Mapping[str, Array], values: Mapping[str, Any]) -> Array:
    return law.fn(**inputs, **values)


@jax.jit
def _log_prediction(problem: Problem, point: Float[Array, " parameters"]) -> Float[Array, " runs"]:
    return problem.log_prediction(point)


def fit(
    law: Law | str,
    runs: Mapping[str, Any],
    *,
    objective: Objective | None = None,
    weights: Float[np.ndarray, " runs"] | None = None,
    fixed: Mapping[str, float] | None = None,
    starts: int | Mapping[str, Float[np.ndarray, " starts"]] = LANES,
) -> Fit:
    """Fit a law to runs, a table with a column for each of its inputs and one named `loss`.

    `objective` is [`huber`] with delta = 1e-3 unless given, on log losses; `weights` count runs; parameters named in
    `fixed` keep the values given. Starts are points of a Sobol sequence in the ranges of the law's parameters; or give
    your own, an array for each of some parameters (exponents, say): others start in the middle of their ranges.

    Raises `RunsError` where the runs are unfit for any fit, and `UnidentifiedError` (with the direction, and a run that
    would settle it) where they leave a combination of parameters open. Warns (`RunsWarning`) of copies, of suspicious
    units, of an optimum on the border, and of a search that did not end. Needs float64.
    """
    law = law if isinstance(law, Law) else named(law)
    inputs, loss = columns(law, runs)
    free = _free(law, fixed or {})
    require_enough(law, inputs, int(free.sum()))
    warn_of_doubts(inputs, loss)
    problem = problem_of(law, inputs, loss, weights, objective or huber(), free)
    _require_units(problem, inputs)
    points = _starts(problem, starts, fixed or {})
    all_weights = jnp.broadcast_to(problem.weights, (len(points), len(loss)))
    ends = solve_all(problem, points, all_weights)
    values = np.asarray(ends.value)
    if not np.isfinite(values).any():
        raise RunsError(
            f"{law.name} is not finite and positive at any of {len(values)} starts: check the ranges of its parameters"
        )
    best = jax.tree.map(lambda leaf: leaf[np.nanargmin(values)], ends)
    if not best.converged:
        again = jnp.broadcast_to(best.point, points.shape)  # as many lanes: the same program
        best = jax.tree.map(lambda leaf: leaf[0], solve_all(problem, again, all_weights))
    result = Fit(
        law=law,
        parameters={name: float(value) for name, value in problem.values(best.point).items()},
        value=float(best.value * problem.weights.sum()),
        gradient_norm=float(best.gradient_norm),
        converged=bool(best.converged),
        basin_share=float(np.mean(values <= float(best.value) * (1 + SAME) + np.finfo(float).tiny)),
        residuals=np.asarray(problem.log_loss - _log_prediction(problem, best.point)),
        runs={**inputs, "loss": loss},
        problem=problem,
        point=best.point,
        **_certify(problem, best.point),
    )
    _warn_of_the_optimum(result)
    return result


def named(law: str) -> Law:
    """A law of the registry.

    **Raises:** `RunsError` for a name that the registry lacks.
    """
    if law in schedule.LAWS:
        raise RunsError(
            f"law={law!r} is a law of schedules: fit what schedule.law_of(schedule.LAWS[{law!r}], curves) makes of "
            "curves, schedule.Curve(rates, steps, loss) for each run"
        )
    if law not in LAWS:
        raise RunsError(f"law={law!r}: theorysim knows {', '.join(LAWS)}; or pass a Law of your own")
    return LAWS[law]


def _free(law: Law, fixed: Mapping[str, float]) -> np.ndarray:
    unknown = [name for name in fixed if name not in law.parameters]
    if unknown:
        raise RunsError(f"fixed={unknown}: {law.name} has the parameters {list(law.parameters)}")
    return np.array([float(name not in fixed) for name in law.parameters])


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
    log_loss = jnp.log(jnp.asarray(loss))
    require_float64("a fit", loss=log_loss)
    log_scale = {unit: jnp.zeros(()) for unit in law.units}
    for name, unit in law.inputs.items():
        if unit in log_scale and name == unit:
            log_scale[unit] = jnp.asarray(np.log(inputs[name]).mean())
    if "loss" in log_scale:
        log_scale["loss"] = log_loss.mean()
    return Problem(
        law=law,
        inputs={
            name: jnp.asarray(values) * jnp.exp(-log_scale.get(law.inputs[name], jnp.zeros(())))
            for name, values in inputs.items()
        },
        log_loss=log_loss - log_scale.get("loss", jnp.zeros(())),
        weights=jnp.ones(len(loss)) if weights is None else jnp.asarray(weights),
        log_scale=log_scale,
        objective=Objective(*(jnp.asarray(value, float) for value in objective)),
        free=jnp.asarray(free),
    )


def _require_units(problem: Problem, inputs: Mapping[str, np.ndarray]) -> None:
    """Refuse a law whose parameters do not carry the units that its function gives them."""
    law, middle = problem.law, problem.law.box().mean(0)
    in_units = {name: jnp.asarray(values) for name, values in inputs.items()}
    prediction = np.log(_predict(law, in_units, problem.values(middle))) - problem.log_scale.get("loss", 0.0)
    off = np.abs(np.asarray(prediction - _log_prediction(problem, middle)))
    if (off > UNITS).any():
        raise RunsError(
            f"{law.name}: in other units of {list(law.units)} it would predict other losses (their logarithms "
            f"differ by {np.nanmax(off):.2g}): give each Parameter the powers that it carries, as in "
            "unit={'loss': 1, 'n': lambda values: values['alpha']}"
        )


def _starts(problem: Problem, starts: Any, fixed: Mapping[str, float]) -> Float[Array, "starts parameters"]:
    law = problem.law
    if isinstance(starts, int):
        if starts < 1:
            raise RunsError(f"starts={starts}: give at least one")
        low, high = np.asarray(law.box())
        unit = qmc.Sobol(len(law.parameters), rng=0).random_base2((starts - 1).bit_length())[:starts]
        points = jnp.asarray(low + (high - low) * unit)
        if not fixed:
            return points
        starts = jax.vmap(problem.values)(points)
    given = {**starts, **fixed}
    unknown = [name for name in given if name not in law.parameters]
    if unknown or not starts:
        raise RunsError(f"starts={list(starts)}: give arrays for some of {list(law.parameters)}")
    count = len(next(iter(starts.values())))
    given = {name: jnp.broadcast_to(jnp.asarray(value, float), (count,)) for name, value in given.items()}
    middle = dict(zip(law.parameters, law.box().mean(0), strict=True))

    def complete(given: dict[str, Array]) -> Array:
        """With each start's own exponents, which the units of its coefficients depend on."""
        bare = {name: value for name, value in given.items() if not law.parameters[name].unit}
        bare = {name: jnp.log(value) if law.parameters[name].positive else value for name, value in bare.items()}
        point = jnp.stack([bare[name] if name in bare else middle[name] for name in law.parameters])
        return law.point({**problem.values(point), **given}, problem.log_scale)

    return jax.vmap(complete)(given)


def _certify(problem: Problem, point: Float[Array, " parameters"]) -> dict[str, Any]:
    """Rank, condition and weakest direction; refused where a direction is open that is not a vanishing coefficient."""
    law = problem.law
    free = np.asarray(problem.free) > 0
    names = [name for name, is_free in zip(law.parameters, free, strict=True) if is_free]
    # Filled up as for `solve_all`, so that fits of about as many runs share this program, too.
    filled = problem.padded(-(-len(problem.log_loss) // LANES) * LANES)
    jacobian = np.asarray(slopes_at(filled, filled.inputs, point))[:, free]
    _, singular, directions = np.linalg.svd(jacobian * np.sqrt(np.asarray(filled.weights))[:, None])
    rank = int((singular > RANK * singular[0]).sum())
    weakest = dict(zip(names, directions[-1].tolist(), strict=True))
    if rank < len(names) and not _vanishes(problem, point, weakest):
        moving = ", ".join(f"{value:+.2f} {name}" for name, value in weakest.items() if abs(value) > 0.1)
        raise UnidentifiedError(
            f"{law.name}: the runs leave the direction ({moving}) open, in units of the data and logarithms of "
            f"positive parameters; {_remedy(problem, point, directions[-1], free)}",
            weakest,
        )
    condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf
    return {"rank": rank, "condition": condition, "weakest": weakest}


def _vanishes(problem: Problem, point: Array, direction: Mapping[str, float]) -> bool:
    """Whether the open direction is one coefficient on its way to zero or infinity: a border, warned of elsewhere."""
    name = max(direction, key=lambda name: abs(direction[name]))
    index = list(problem.law.parameters).index(name)
    low, high = problem.law.box()[:, index]
    outside = not bool(low <= point[index] <= high)
    return problem.law.parameters[name].positive and abs(direction[name]) > 0.99 and outside


def _remedy(problem: Problem, point: Array, direction: np.ndarray, free: np.ndarray) -> str:
    """The run, an input moved by ten or a hundred from the middle of the data, at which the open direction shows."""
    law = problem.law
    middle = {name: float(np.exp(np.mean(np.log(np.abs(values) + 1e-300)))) for name, values in problem.inputs.items()}
    factors = {name: (0.01, 0.1, 10.0, 100.0) for name, unit in law.inputs.items() if unit in law.units}
    candidates = [{**middle, name: middle[name] * factor} for name in factors for factor in factors[name]]
    if not candidates:
        return "fix a parameter"

    def shows(candidate: dict[str, float]) -> float:
        arrays = {name: jnp.asarray([value]) for name, value in candidate.items()}
        seen = abs(np.asarray(slopes_at(problem, arrays, point))[0, free] @ direction)
        return float(np.nan_to_num(seen))

    best = max(candidates, key=shows)
    if shows(best) < RANK:
        return "no other run would tell: fix a parameter"
    units = {name: float(np.exp(problem.log_scale.get(law.inputs[name], 0.0))) for name in best}
    where = ", ".join(f"{name} = {best[name] * units[name]:.3g}" for name in factors)
    return f"a run at {where} would tell, or fix a parameter"


def _warn_of_the_optimum(fit: Fit) -> None:
    if not fit.converged:
        _warn(f"the search of {fit.law.name} did not end: gradient {fit.gradient_norm:.1e}; try more starts")
    low, high = np.asarray(fit.law.box())
    reach = high - low
    for i, (name, parameter) in enumerate(fit.law.parameters.items()):
        at, is_free = float(fit.point[i]), bool(fit.problem.free[i])
        if is_free and (at < low[i] - reach[i] or at > high[i] + reach[i]):
            limit = "vanishes" if parameter.positive and at < low[i] else "lies far outside of its starts"
            _warn(
                f"{name} = {fit.parameters[name]:.3g} {limit}: the optimum is on the border; fix {name}, or drop its "
                "term from the law"
            )


def _warn(message: str) -> None:
    warnings.warn(message, RunsWarning, stacklevel=4)
