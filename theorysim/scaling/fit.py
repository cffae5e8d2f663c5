"""Fit a law to runs: every start to its end, and a result that says how sure it is of its optimum."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

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

LANES = 64  # starts or resamples that one loop advances in lockstep: their arrays stay in the cache,
FEW = 16  # or so many where there are no more: each size is a program of its own
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
        residuals = Residuals(
            self.log_prediction, self.log_loss, weights, self.objective, free=self.free, reach=(high - low) / 2
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


def solve_all(problem: Problem, starts: Any, weights: Any) -> Search:
    """One optimum for each start and set of weights.

    Rows go through one compiled program in blocks of one size, the last filled up, and runs are filled up with copies
    of no weight: a fit, its bootstrap and fits of about as many runs share it. After some iterations those which have
    not ended form blocks anew, so that few lanes wait for a slow one.
    """
    runs = len(problem.log_loss)
    problem = problem.filled()
    padded = np.pad(weights, ((0, 0), (0, len(problem.log_loss) - runs)))
    first = begin(jnp.asarray(starts[0]))
    found = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], len(starts), 0), first)
    found = found._replace(point=np.array(starts))
    lanes = FEW if len(starts) <= FEW else LANES
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


class View(NamedTuple):
    """What a problem is at a point: parameters, log predictions, and their slopes by the free parameters, else zero.

    `off` is what the predictions would change by in the units of the runs: nothing, if the law's units are right.
    """

    parameters: dict[str, Any]
    log_prediction: np.ndarray
    slopes: np.ndarray
    off: np.ndarray


def view(problem: Problem, point: Any, inputs: Mapping[str, Any] | None = None) -> View:
    """A problem at a point, for its own inputs or others (in units of the data); one program for about as many runs."""
    filled = problem.filled()
    if inputs is None:
        count, inputs = len(problem.log_loss), filled.inputs
    else:
        count = len(next(iter(inputs.values())))
        inputs = {name: _repeat_last(values, -count % LANES) for name, values in inputs.items()}
    parameters, *columns = _view(filled, inputs, jnp.asarray(point))
    return View({name: parameters[name] for name in problem.law.parameters}, *(np.asarray(c)[:count] for c in columns))


@jax.jit
def _view(
    problem: Problem, inputs: Mapping[str, Float[Array, " runs"]], point: Float[Array, " parameters"]
) -> tuple[dict[str, Array], Array, Array, Array]:
    law, zero = problem.law, jnp.zeros(())
    parameters, log_prediction = problem.values(point), problem.log_prediction_at(inputs, point)
    in_units = {
        name: values * jnp.exp(problem.log_scale.get(law.inputs[name], zero)) for name, values in inputs.items()
    }
    off = jnp.abs(jnp.log(law.fn(**in_units, **parameters)) - problem.log_scale.get("loss", zero) - log_prediction)
    slopes = jax.jacfwd(problem.log_prediction_at, argnums=1)(inputs, point) * problem.free[None]
    return parameters, log_prediction, slopes, off


def values_at(problem: Problem, points: Any) -> dict[str, Array]:
    """Parameters at many points, in the units of the runs."""
    found = _values_at(problem.filled(), jnp.asarray(points))
    return {name: found[name] for name in problem.law.parameters}


@jax.jit
def _values_at(problem: Problem, points: Float[Array, "rows parameters"]) -> dict[str, Array]:
    return jax.vmap(problem.values)(points)


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
    _require_units(problem)
    points = _starts(problem, starts, fixed or {})
    ends = solve_all(problem, points, np.broadcast_to(problem.weights, (len(points), len(loss))))
    values = np.asarray(ends.value)
    if not np.isfinite(values).any():
        raise RunsError(
            f"{law.name} is not finite and positive at any of {len(values)} starts: check the ranges of its parameters"
        )
    best = jax.tree.map(lambda leaf: np.asarray(leaf)[np.nanargmin(values)], ends)
    if not best.converged:
        again = solve_all(problem, best.point[None], np.asarray(problem.weights)[None])
        best = jax.tree.map(lambda leaf: np.asarray(leaf)[0], again)
    seen = view(problem, best.point)
    result = Fit(
        law=law,
        parameters={name: float(value) for name, value in seen.parameters.items()},
        value=float(best.value * np.sum(problem.weights)),
        gradient_norm=float(best.gradient_norm),
        converged=bool(best.converged),
        basin_share=float(np.mean(values <= float(best.value) * (1 + SAME) + np.finfo(float).tiny)),
        residuals=np.asarray(problem.log_loss) - seen.log_prediction,
        runs={**inputs, "loss": loss},
        problem=problem,
        point=jnp.asarray(best.point),
        **_certify(problem, best.point, seen.slopes),
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


def _require_units(problem: Problem) -> None:
    """Refuse a law whose parameters do not carry the units that its function gives them."""
    law = problem.law
    off = view(problem, law.box().mean(0)).off
    if (off > UNITS).any():
        raise RunsError(
            f"{law.name}: in other units of {list(law.units)} it would predict other losses (their logarithms "
            f"differ by {np.nanmax(off):.2g}): give each Parameter the powers that it carries, as in "
            "unit={'loss': 1, 'n': lambda values: values['alpha']}"
        )


def _starts(problem: Problem, starts: Any, fixed: Mapping[str, float]) -> np.ndarray:
    law, problem = problem.law, problem.filled()
    if isinstance(starts, int):
        if starts < 1:
            raise RunsError(f"starts={starts}: give at least one")
        low, high = law.box()
        unit = qmc.Sobol(len(law.parameters), rng=0).random_base2((starts - 1).bit_length())[:starts]
        points = low + (high - low) * unit
        if not fixed:
            return points
        starts = values_at(problem, points)
    given = {**starts, **fixed}
    unknown = [name for name in given if name not in law.parameters]
    if unknown or not starts:
        raise RunsError(f"starts={list(starts)}: give arrays for some of {list(law.parameters)}")
    count = len(next(iter(starts.values())))
    given = {name: jnp.asarray(np.broadcast_to(np.asarray(value, float), (count,))) for name, value in given.items()}
    return np.asarray(_complete(problem, given))


@jax.jit
def _complete(problem: Problem, given: Mapping[str, Float[Array, " starts"]]) -> Float[Array, "starts parameters"]:
    """Starts where some parameters are given, in the users' units, and others lie in the middle of their ranges."""
    law = problem.law
    middle = dict(zip(law.parameters, law.box().mean(0), strict=True))

    def complete(given: Mapping[str, Array]) -> Array:
        """With each start's own exponents, which the units of its coefficients depend on."""
        bare = {name: value for name, value in given.items() if not law.parameters[name].unit}
        bare = {name: jnp.log(value) if law.parameters[name].positive else value for name, value in bare.items()}
        point = jnp.stack([bare[name] if name in bare else jnp.asarray(middle[name]) for name in law.parameters])
        return law.point({**problem.values(point), **given}, problem.log_scale)

    return jax.vmap(complete)(given)


def _certify(problem: Problem, point: np.ndarray, slopes: np.ndarray) -> dict[str, Any]:
    """Rank, condition and weakest direction; refused where a direction is open that is not a vanishing coefficient."""
    law = problem.law
    free = np.asarray(problem.free) > 0
    names = [name for name, is_free in zip(law.parameters, free, strict=True) if is_free]
    jacobian = slopes[:, free]
    _, singular, directions = np.linalg.svd(jacobian * np.sqrt(np.asarray(problem.weights))[:, None])
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


def _vanishes(problem: Problem, point: np.ndarray, direction: Mapping[str, float]) -> bool:
    """Whether the open direction is one coefficient on its way to zero or infinity: a border, warned of elsewhere."""
    name = max(direction, key=lambda name: abs(direction[name]))
    index = list(problem.law.parameters).index(name)
    low, high = problem.law.box()[:, index]
    outside = not bool(low <= point[index] <= high)
    return problem.law.parameters[name].positive and abs(direction[name]) > 0.99 and outside


def _remedy(problem: Problem, point: np.ndarray, direction: np.ndarray, free: np.ndarray) -> str:
    """The run, an input moved by ten or a hundred from the middle of the data, at which the open direction shows."""
    law = problem.law
    middle = {name: float(np.exp(np.mean(np.log(np.abs(values) + 1e-300)))) for name, values in problem.inputs.items()}
    factors = {name: (0.01, 0.1, 10.0, 100.0) for name, unit in law.inputs.items() if unit in law.units}
    candidates = [{**middle, name: middle[name] * factor} for name in factors for factor in factors[name]]
    if not candidates:
        return "fix a parameter"

    def shows(candidate: dict[str, float]) -> float:
        slopes = view(problem, point, {name: [value] for name, value in candidate.items()}).slopes
        return float(np.nan_to_num(abs(slopes[0, free] @ direction)))

    best = max(candidates, key=shows)
    if shows(best) < RANK:
        return "no other run would tell: fix a parameter"
    units = {name: float(np.exp(problem.log_scale.get(law.inputs[name], 0.0))) for name in best}
    where = ", ".join(f"{name} = {best[name] * units[name]:.3g}" for name in factors)
    return f"a run at {where} would tell, or fix a parameter"


def _warn_of_the_optimum(fit: Fit) -> None:
    if not fit.converged:
        _warn(f"the search of {fit.law.name} did not end: gradient {fit.gradient_norm:.1e}; try more starts")
    low, high = fit.law.box()
    reach = high - low
    point, free = np.asarray(fit.point), np.asarray(fit.problem.free)
    for i, (name, parameter) in enumerate(fit.law.parameters.items()):
        at, is_free = float(point[i]), bool(free[i])
        if is_free and (at < low[i] - reach[i] or at > high[i] + reach[i]):
            limit = "vanishes" if parameter.positive and at < low[i] else "lies far outside of its starts"
            _warn(
                f"{name} = {fit.parameters[name]:.3g} {limit}: the optimum is on the border; fix {name}, or drop its "
                "term from the law"
            )


def _warn(message: str) -> None:
    warnings.warn(message, RunsWarning, stacklevel=4)
