"""Fit a law to runs: every start to its end, and a result that says how sure it is of its optimum."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import qmc

from theorysim.scaling import schedule
from theorysim.scaling.certificate import certify
from theorysim.scaling.law import Law
from theorysim.scaling.laws import LAWS
from theorysim.scaling.minimise import Objective, huber
from theorysim.scaling.problem import LANES, Problem, log_prediction, predict, problem_of, solve_all
from theorysim.scaling.runs import (
    RunsError,
    RunsWarning,
    columns,
    require_enough,
    require_falling,
    require_telling,
    warn_of_doubts,
)

SAME = 1e-9  # of the best objective: the same optimum
CREEPING = 1e-4  # of the objective in the last iterations: predictions do not move any more
UNITS = 1e-6  # of a log loss: more is not rounding


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
        return predict(self.law, at, self.parameters)


def fit(
    law: Law | str,
    runs: Mapping[str, Any],
    *,
    objective: Objective | None = None,
    weights: Float[np.ndarray, " runs"] | None = None,
    fixed: Mapping[str, float] | None = None,
    starts: int | Mapping[str, Float[np.ndarray, " starts"]] = LANES,
    allow_open: bool = False,
) -> Fit:
    """Fit a law to runs, a table with a column for each of its inputs and one named `loss`.

    `objective` is [`huber`] with delta = 1e-3 unless given, on log losses; `weights` count runs; parameters named in
    `fixed` keep the values given. Starts are points of a Sobol sequence in the ranges of the law's parameters; or give
    your own, an array for each of some parameters (exponents, say): others start in the middle of their ranges.

    Raises `RunsError` where the runs are unfit for any fit, and `UnidentifiedError` (with the direction, and a run that
    would settle it) where they leave a combination of parameters open; with `allow_open` that is a warning, and the
    fit predicts where the runs are, and says nothing by its parameters. Warns (`RunsWarning`) of copies, of suspicious
    units, of an optimum on the border, and of a search that did not end. Needs float64.
    """
    law = law if isinstance(law, Law) else named(law)
    inputs, loss = columns(law, runs)
    problem = problem_of(law, inputs, loss, weights, objective or huber(), _free(law, fixed or {}))
    require_telling(inputs, loss)
    require_enough(law, inputs, int(problem.free.sum()), int((problem.weights > 0).sum()))
    require_falling(law, inputs, loss)
    warn_of_doubts(inputs, loss)
    _require_units(problem, inputs)
    points = _starts(problem, starts, fixed or {})

    def same(rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(problem.weights, (len(rows), len(loss)))

    ends = solve_all(problem, points, same)
    values = np.asarray(ends.value)
    if not np.isfinite(values).any():
        raise RunsError(
            f"{law.name} is not finite and positive at any of {len(values)} starts: check the ranges of its parameters"
        )
    best = jax.tree.map(lambda leaf: leaf[np.nanargmin(values)], ends)
    before = float(best.value)
    if not best.converged:
        again = jnp.broadcast_to(best.point, points.shape)  # as many lanes: the same program
        best = jax.tree.map(lambda leaf: leaf[0], solve_all(problem, again, same))
    result = Fit(
        law=law,
        parameters={name: float(value) for name, value in problem.values(best.point).items()},
        value=float(best.value * problem.weights.sum()),
        gradient_norm=float(best.gradient_norm),
        converged=bool(best.converged),
        basin_share=float(np.mean(values <= float(best.value) * (1 + SAME) + np.finfo(float).tiny)),
        residuals=np.asarray(problem.log_loss - log_prediction(problem, best.point)),
        runs={**inputs, "loss": loss},
        problem=problem,
        point=best.point,
        **certify(problem, best.point, allow_open=allow_open),
    )
    _warn_of_the_optimum(result, before / float(best.value) - 1 if best.value > 0 else 0.0)
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


def _require_units(problem: Problem, inputs: Mapping[str, np.ndarray]) -> None:
    """Refuse a law whose parameters do not carry the units that its function gives them."""
    law, middle = problem.law, jnp.asarray(problem.law.box().mean(0))
    in_units = {name: jnp.asarray(values) for name, values in inputs.items()}
    prediction = np.log(predict(law, in_units, problem.values(middle))) - problem.log_scale.get("loss", 0.0)
    off = np.abs(np.asarray(prediction - log_prediction(problem, middle)))
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


def _warn_of_the_optimum(fit: Fit, last_gain: float) -> None:
    """Of borders, and of a search whose last 300 iterations lowered the objective by a share `last_gain`."""
    low, high = np.asarray(fit.law.box())
    reach = high - low
    far = [
        f"{name} = {fit.parameters[name]:.3g}"
        for name, at, least, most in zip(fit.law.parameters, fit.point, low - reach, high + reach, strict=True)
        if not least <= at <= most
    ]
    if not fit.converged and far:
        _warn(
            f"the search of {fit.law.name} did not end: it runs to a border, {', '.join(far)}: the runs do not hold "
            "these, though the fit may predict among the runs; fix them, or fit a law without them"
        )
    elif not fit.converged and last_gain < CREEPING:
        _warn(
            f"the search of {fit.law.name} creeps along a valley: {last_gain:.0e} of the objective in its last 300 "
            "iterations; predictions among the runs are settled, parameters are not: fix some, or fit a simpler law"
        )
    elif not fit.converged:
        _warn(f"the search of {fit.law.name} did not end: gradient {fit.gradient_norm:.1e}; try more starts")
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
