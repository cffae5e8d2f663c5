"""How sure a fit is: the bootstrap (the default), the sandwich, and the profile of the likelihood.

All three take a fit and speak of any quantity: the name of a parameter, or a function of the parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import chi2, norm

from theorysim.scaling.compare import log_likelihood
from theorysim.scaling.fit import Fit
from theorysim.scaling.problem import Problem, RowWeights, slopes_at, solve_all, values_at
from theorysim.scaling.runs import RunsError
from theorysim.typing import ScalarLike

Quantity = str | Callable[[Mapping[str, Any]], Any]


class Draws(NamedTuple):
    """Parameters of the fits to resampled runs, and the share of those fits that ended."""

    parameters: dict[str, Float[Array, " samples"]]
    converged: float

    def of(self, quantity: Quantity) -> Float[np.ndarray, "samples *shape"]:
        """The quantity in each resample."""
        if isinstance(quantity, str):
            return np.asarray(value_of(quantity, self.parameters))
        return np.asarray(jax.jit(jax.vmap(quantity))(self.parameters))

    def interval(self, quantity: Quantity, level: float = 0.95) -> Float[np.ndarray, "2 *shape"]:
        """Lower and upper percentile.

        **Raises:** `RunsError` for a level outside of (0, 1), fewer resamples than it needs (20 for 0.95), and a
        quantity that does not exist.
        """
        require_level(level)
        values = self.of(quantity)
        require_samples(len(values), level)
        return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)

    def standard_error(self, quantity: Quantity) -> Float[np.ndarray, "*shape"]:
        """Standard deviation over resamples."""
        return np.asarray(self.of(quantity).std(0, ddof=1))


def bootstrap(fit: Fit, *, key: Array, samples: int = 1000, groups: Int[np.ndarray, " runs"] | None = None) -> Draws:
    """Fit again to runs drawn with replacement, `samples` times; each fit starts from the optimum and goes to its end.

    Resampling is by multinomial weights, so that all fits share one compiled program (Efron, Annals of Statistics 7,
    1979). Runs of one group (steps of one training curve) have errors in common: they are drawn together.

    **Raises:** `RunsError` for fewer than 20 samples, and groups of another length than the runs.
    """
    require_samples(samples)
    weights = _resampled(key, fit.problem.weights, groups)
    starts = jnp.broadcast_to(fit.point, (samples, len(fit.point)))
    ends = solve_all(fit.problem, starts, weights)
    return Draws(values_at(fit.problem, ends.point), float(ends.converged.mean()))


def bootstrap_weights(
    key: Array, weights: Float[Array, " runs"], samples: int, groups: Int[np.ndarray, " members"] | None = None
) -> Float[Array, "samples runs"]:
    """How often each run is drawn, times its weight.

    **Raises:** `RunsError` for groups of another length than the runs.
    """
    return jnp.asarray(_resampled(key, weights, groups)(np.arange(samples)))


def _resampled(key: Array, weights: Float[Array, " runs"], groups: np.ndarray | None) -> RowWeights:
    """The weights of some resamples; each has a generator of its own, so that they need not all be held."""
    members = np.arange(len(weights)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(members.max()) + 1
    if len(members) != len(weights):
        raise RunsError(f"groups has {len(members)} entries for {len(weights)} runs: give one each")
    if count < 2:
        raise RunsError("groups: all runs are in one group, and resampling it says nothing; give at least two")
    seed, chances, each = np.asarray(jax.random.key_data(key)).tolist(), np.full(count, 1 / count), np.asarray(weights)

    def drawn(rows: np.ndarray) -> np.ndarray:
        """On the host: nothing to compile."""
        counts = [np.random.default_rng([*seed, row]).multinomial(count, chances) for row in rows.tolist()]
        return np.stack(counts)[:, members] * each

    return drawn


class Sandwich(NamedTuple):
    """Covariance of the fit's coordinates (logarithms of positive parameters) and how to carry it to quantities."""

    covariance: Float[np.ndarray, "parameters parameters"]
    problem: Problem
    point: Float[Array, " parameters"]

    def standard_error(self, quantity: Quantity) -> float:
        """By the delta method; that of a positive parameter A is A times that of log A."""
        slope = np.asarray(
            jax.grad(lambda point: jnp.squeeze(value_of(quantity, self.problem.values(point))))(self.point)
        )
        return float(np.sqrt(slope @ self.covariance @ slope))

    def interval(self, quantity: Quantity, level: float = 0.95) -> Float[np.ndarray, " 2"]:
        """Symmetric about the estimate.

        **Raises:** `RunsError` for a level outside of (0, 1), and a quantity that does not exist.
        """
        require_level(level)
        middle = float(value_of(quantity, self.problem.values(self.point)))
        return middle + norm.ppf([(1 - level) / 2, (1 + level) / 2]) * self.standard_error(quantity)


def sandwich(fit: Fit, *, bandwidth: float | None = None) -> Sandwich:
    """H^-1 [sum psi^2 J J^T] H^-1 with psi the clipped residuals and H = (delta / h) sum over |r| <= h of J J^T.

    Below the knee lie few runs, so that the density of residuals at zero is estimated in a band of half-width h
    (`bandwidth`; Powell 1984), by default the median |r|. On Chinchilla's data the standard errors of A, alpha and E
    agree with the bootstrap's, and those of B and beta, whose distribution is skewed, are half or four fifths of it;
    the one of alpha moves by a third with h. Prefer the bootstrap.

    **Raises:** `RunsError` where the runs leave a direction open.
    """
    problem = fit.problem
    delta = float(problem.objective.delta)
    size = np.abs(fit.residuals)
    h = float(np.median(size)) if bandwidth is None else bandwidth
    if not h > 0:
        raise RunsError(f"bandwidth={h}: give a value > 0, of the order of the residuals")
    jacobian = np.asarray(slopes_at(problem, problem.inputs, fit.point))
    weights = np.asarray(problem.weights) * np.asarray(problem.objective.side(jnp.asarray(fit.residuals)))
    psi = weights * np.clip(fit.residuals, -delta, delta)
    # Where the knee is wider than the band, the objective is smooth at the scale of the residuals.
    inside, height = (size <= delta, 1.0) if delta >= h else (size <= h, delta / h)
    curvature = np.linalg.pinv((jacobian.T * (weights * inside * height)) @ jacobian)
    return Sandwich(curvature @ ((jacobian.T * psi**2) @ jacobian) @ curvature, problem, fit.point)


class Profile(NamedTuple):
    """Twice the loss of log likelihood where a parameter is held at each value, and the interval it leaves."""

    values: Float[np.ndarray, " values"]
    deviance: Float[np.ndarray, " values"]
    interval: Float[np.ndarray, " 2"]


def profile(fit: Fit, name: str, *, level: float = 0.95, reach: float = 6.0, points: int = 41) -> Profile:
    """Hold a parameter at values around its estimate, fit all others again, and compare likelihoods.

    The likelihood is [`log_likelihood`], the interval where its deviance is below the quantile of chi^2 with one degree
    of freedom. The values reach `reach` sandwich errors to both sides; an end that they do not reach is infinite.

    **Raises:** `RunsError` for a parameter that is not free, and a level outside of (0, 1).
    """
    require_level(level)
    law = fit.law
    if name not in law.parameters:
        raise RunsError(f"name={name!r}: {law.name} has the parameters {list(law.parameters)}")
    positive = law.parameters[name].positive
    # In the runs' own units a parameter is a coordinate, whatever the others do.
    problem = _in_own_units(fit.problem)
    index = list(law.parameters).index(name)
    center = law.point(fit.parameters, problem.log_scale)
    error = sandwich(fit).standard_error(name)
    error = error / fit.parameters[name] if positive else error
    at = center[index] + error * jnp.linspace(-reach, reach, points)
    half = points // 2
    downwards, upwards = at[half::-1], at[half:]
    found = jnp.concatenate(
        [_walk(problem, center, index, downwards)[::-1], _walk(problem, center, index, upwards)[1:]]
    )
    residuals = np.asarray(jax.vmap(lambda point: problem.log_loss - problem.log_prediction(point))(found))
    weights = np.asarray(problem.weights)
    likelihood = np.array([log_likelihood(row, fit.problem.objective, weights) for row in residuals])
    deviance = 2 * (likelihood.max() - likelihood)
    values = np.asarray(jnp.exp(at) if positive else at)
    threshold = float(chi2.ppf(level, 1))
    low, high = (
        _crossing(values[half::-1], deviance[half::-1], threshold),
        _crossing(values[half:], deviance[half:], threshold),
    )
    return Profile(values, deviance, np.array([-np.inf if np.isnan(low) else low, np.inf if np.isnan(high) else high]))


def _in_own_units(problem: Problem) -> Problem:
    scale, zero = problem.log_scale, jnp.zeros(())
    return replace(
        problem,
        inputs={
            name: values * jnp.exp(scale.get(problem.law.inputs[name], zero)) for name, values in problem.inputs.items()
        },
        log_loss=problem.log_loss + scale.get("loss", zero),
        log_scale=dict.fromkeys(scale, zero),
    )


@jax.jit
def _walk(
    problem: Problem, center: Float[Array, " parameters"], index: ScalarLike, at: Float[Array, " values"]
) -> Float[Array, "values parameters"]:
    """Optima with one coordinate held at each value; each starts from its neighbour's."""
    held = replace(problem, free=problem.free.at[index].set(0.0))

    def move(point: Array, value: Array) -> tuple[Array, Array]:
        end = held.solve(point.at[index].set(value), held.weights).point
        return end, end

    return jax.lax.scan(move, center, at)[1]


def _crossing(values: np.ndarray, deviance: np.ndarray, threshold: float) -> float:
    above = np.flatnonzero(deviance > threshold)
    if not len(above):
        return np.nan
    last = above[0]
    share = (threshold - deviance[last - 1]) / (deviance[last] - deviance[last - 1])
    return float(values[last - 1] + share * (values[last] - values[last - 1]))


def value_of(quantity: Quantity, parameters: Mapping[str, Any]) -> Any:
    """A parameter by its name, or a function of all.

    **Raises:** `RunsError` for a name that is none of the parameters.
    """
    if isinstance(quantity, str) and quantity not in parameters:
        raise RunsError(f"quantity={quantity!r}: give one of {list(parameters)}, or a function of them")
    return parameters[quantity] if isinstance(quantity, str) else quantity(parameters)


def require_samples(samples: int, level: float | int = 0.95) -> None:
    """Refuse too few to have percentiles: one resample beyond both ends of the interval together."""
    least = int(np.ceil(1 / (1 - level) - 1e-9))
    if samples < least:
        raise RunsError(f"samples={samples}: give at least {least} for a {level:.0%} interval, and 1000 for its ends")


def require_level(level: float | int) -> None:
    """Refuse what is no share: 95 for 0.95."""
    if not 0 < level < 1:
        raise RunsError(f"level={level}: give a share in (0, 1)")
