"""Which law, and is the difference real: likelihoods, the likelihood ratio, and errors of extrapolation."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.stats import chi2, norm

from theorysim.scaling.fit import Fit, fit
from theorysim.scaling.law import Law
from theorysim.scaling.minimise import Objective
from theorysim.scaling.runs import RunsError, RunsWarning


def log_likelihood(
    residuals: Float[np.ndarray, " runs"], objective: Objective, weights: Float[np.ndarray, " runs"] | None = None
) -> float:
    """Of residuals under the density exp(-rho(r / s)) / (s Z) whose s fits them best.

    rho is the Huber function of the objective's knee and Z = sqrt(2 pi) (1 - 2 sf(delta)) + 2 exp(-delta^2 / 2) / delta
    (sf the survival function of the normal law), as Besiroglu et al. (arXiv:2404.10102) compare fits. Its limits are
    Gauss's law (delta = inf) and Laplace's (delta -> 0). Overestimates count as in the objective's absence.
    """
    weights = np.ones_like(residuals) if weights is None else weights
    delta, size = float(objective.delta), np.abs(residuals)
    count = weights.sum()
    if np.isinf(delta):
        variance = weights @ size**2 / count
        return float(-count / 2 * (np.log(2 * np.pi * variance) + 1))
    log_z = np.log(np.sqrt(2 * np.pi) * (1 - 2 * norm.sf(delta)) + 2 * np.exp(-(delta**2) / 2) / delta)

    def negative(log_s: float) -> float:
        inner = np.minimum(size / np.exp(log_s), delta)
        return float(weights @ (inner * (size / np.exp(log_s) - inner / 2)) + count * (log_s + log_z))

    middle = np.log(delta * (weights @ size) / count)
    scale = np.log(np.sqrt(weights @ size**2 / count))
    low, high = min(middle, scale) - 3, max(middle, scale) + 3
    best: Any = minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    return -float(best.fun)


class Ratio(NamedTuple):
    """Twice the difference of log likelihoods, its degrees of freedom, and the chance of so large a value."""

    statistic: float
    degrees: int
    p_value: float


def likelihood_ratio(larger: Fit, smaller: Fit | Mapping[str, float]) -> Ratio:
    """Test a fit against a restriction of it: the same law with parameters fixed, or at given parameters.

    Both are judged by [`log_likelihood`] under the larger fit's objective (Wilks 1938; arXiv:2404.10102 tests the
    parameters that Hoffmann et al. printed).

    **Raises:** `RunsError` where the smaller fit is not a restriction of the larger one.
    """
    problem = larger.problem
    weights = np.asarray(problem.weights)
    if isinstance(smaller, Fit):
        if smaller.law is not larger.law or any(
            not np.array_equal(smaller.runs[name], column) for name, column in larger.runs.items()
        ):
            raise RunsError("smaller: give a fit of the same law to the same runs, with parameters fixed")
        residuals, fixed = smaller.residuals, float(larger.problem.free.sum() - smaller.problem.free.sum())
    else:
        inputs = {name: larger.runs[name] for name in larger.law.inputs}
        residuals = np.log(larger.runs["loss"]) - np.log(np.asarray(larger.law(**inputs, **smaller)))
        fixed = float(problem.free.sum())
    degrees = int(fixed)
    if degrees < 1:
        raise RunsError("smaller: it has as many free parameters as the larger fit, and nothing is tested")
    statistic = 2 * (
        log_likelihood(larger.residuals, problem.objective, weights)
        - log_likelihood(residuals, problem.objective, weights)
    )
    return Ratio(statistic, degrees, float(chi2.sf(statistic, degrees)))


class Extrapolation(NamedTuple):
    """The fit to the smaller runs, the log losses it misses the larger ones by, and their root mean square."""

    fit: Fit
    held_out: Float[np.ndarray, " runs"]
    errors: Float[np.ndarray, " held_out"]
    rms: float


def hold_out(
    law: Law | str, runs: Mapping[str, Any], by: Float[np.ndarray, " runs"], *, beyond: float, **options: Any
) -> Extrapolation:
    """Fit where `by` (a compute, a size) is at most `beyond`, judge where it is more: the honest score of a law.

    `options` go to [`fit`].

    **Raises:** `RunsError` where `beyond` leaves no run on one side, and as [`fit`].
    """
    by = np.asarray(by)
    held_out = by > beyond
    if not held_out.any() or held_out.all():
        raise RunsError(
            f"beyond={beyond:.4g}: {held_out.sum()} of {len(by)} runs lie beyond it; "
            f"give a value in ({by.min():.4g}, {by.max():.4g})"
        )
    columns = {name: np.asarray(runs[name]) for name in runs}
    fitted = fit(law, {name: column[~held_out] for name, column in columns.items()}, **options)
    test = {name: columns[name][held_out] for name in fitted.law.inputs}
    errors = np.log(columns["loss"][held_out]) - np.log(np.asarray(fitted(**test)))
    return Extrapolation(fitted, held_out, errors, float(np.sqrt(np.mean(errors**2))))


class Score(NamedTuple):
    """One law of a comparison: free parameters, objective, Akaike's criterion, and error of extrapolation."""

    law: str
    parameters: int
    value: float
    akaike: float
    extrapolation: float


def compare(
    laws: tuple[Law | str, ...],
    runs: Mapping[str, Any],
    by: Float[np.ndarray, " runs"],
    *,
    beyond: float,
    **options: Any,
) -> list[Score]:
    """Fit each law to all runs and to the smaller ones; best extrapolation first."""
    scores = []
    for law in laws:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RunsWarning)
            whole = fit(law, runs, **options)
            judged = hold_out(law, runs, by, beyond=beyond, **options)
        free = int(whole.problem.free.sum())
        likelihood = log_likelihood(whole.residuals, whole.problem.objective, np.asarray(whole.problem.weights))
        scores.append(Score(whole.law.name, free, whole.value, 2 * (free + 1) - 2 * likelihood, judged.rms))
    return sorted(scores, key=lambda score: score.extrapolation)
