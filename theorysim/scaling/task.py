"""How the pass rate of a task grows with scale, from draws until it is passed (Hu et al., arXiv:2310.03262).

A model that passes a task with a small probability p is asked until it has passed r times: K draws, a negative
binomial number, resolve any p, where a fixed number of draws sees zero. Over sizes n the task law says

    p(n) = exp(-c n^-alpha),    log(-log p) = log c - alpha log n.

All is elementwise in p and r, or for one task, for `jax.vmap`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from theorysim.checks import is_traced, require_finite, require_positive
from theorysim.scaling.likelihood import maximise
from theorysim.typing import Numbers, Scalar, ScalarLike, as_floats

NODES = np.arange(-180, 181)  # of the trapezoid rule over log x, a quarter apart: its error is exp(-39)


def pass_rate_law(n: Numbers, c: ScalarLike, alpha: ScalarLike) -> Float[Array, "*shape"]:
    """The pass rate exp(-c n^-alpha) of a task (arXiv:2310.03262)."""
    return jnp.exp(-c * jnp.exp(-alpha * jnp.log(n)))


def mle(successes: Numbers, draws: Numbers) -> Float[Array, "*shape"]:
    """Successes over draws, r / K, the maximum of the likelihood: too high by [`mle_bias`].

    **Raises:** `ValueError` for less than 1 success, and more successes than draws.
    """
    _check_counts(successes, draws)
    successes, draws = as_floats(successes, draws)
    return successes / draws


def unbiased_estimate(successes: Numbers, draws: Numbers) -> Float[Array, "*shape"]:
    """(r - 1) / (K - 1), whose mean is p; for r >= 2.

    **Raises:** `ValueError` for less than 2 successes, and more successes than draws.
    """
    _check_counts(successes, draws, least=2)
    successes, draws = as_floats(successes, draws)
    return (successes - 1) / (draws - 1)


def mle_bias(rate: ScalarLike, successes: int) -> Scalar:
    """E[r / K] / p - 1 at the true rate p: -log(p) / (1 - p) - 1 for r = 1, about (1 - p) / (r - 1) for many.

    E[r / K] / p is the hypergeometric function 2F1(1, 1; r + 1; 1 - p): by its recursion in r up to p = 1/2, by its
    series beyond; neither loses digits.

    **Raises:** `ValueError` for a rate outside of (0, 1), and less than 1 success.
    """
    _check_rate(rate)
    if not successes >= 1:
        raise ValueError(f"successes={successes}: give at least 1")
    (p,) = as_floats(rate)
    low = jnp.minimum(p, 0.5)
    first = -jnp.log(low) / (1 - low) - 1
    recursion = jax.lax.fori_loop(1, successes, lambda r, bias: (1 - (r + 1) * low / (1 - low) * bias) / r, first)
    failure = 1 - jnp.maximum(p, 0.5)
    k = jnp.arange(1.0, 60.0, dtype=p.dtype)
    series = jnp.sum(jnp.cumprod(failure * k / (successes + k)))
    return jnp.where(p <= 0.5, recursion, series)


class LogEstimate(NamedTuple):
    """Of log(r / K): its mean less log p, and its variance."""

    bias: Scalar
    variance: Scalar


def log_estimate(rate: ScalarLike, successes: ScalarLike) -> LogEstimate:
    """Exact moments of log(r / K): the variance is (1 - p) / r for many successes, trigamma(r) for p -> 0.

    For an exponential X of mean 1, log(X / K) has the distribution function 1 - E exp(-x K) in x, which is a power of
    an elementary function: both moments are integrals over log x of analytic functions, exact to rounding (1e-14).

    **Raises:** `ValueError` for a rate outside of (0, 1), and `successes` <= 0.
    """
    _check_rate(rate)
    require_positive(successes=successes)
    p, r = as_floats(rate, successes)
    log_x = jnp.asarray(NODES / 4, p.dtype) + jnp.log(p / r)
    x = jnp.exp(log_x)
    # Beyond the last term that can matter exp(x) would overflow: there, the density is zero.
    grown = jnp.expm1(jnp.minimum(x, 600.0))
    density = jnp.exp(-r * jnp.log1p(grown / p)) * r * x * (1 + grown) / (grown + p) / 4
    mean = jnp.sum(density * log_x)
    variance = jnp.sum(density * jnp.square(log_x - mean))
    return LogEstimate(jnp.log(r / p) + mean + jnp.euler_gamma, variance - jnp.pi**2 / 6)


def weights(rate: Numbers, successes: Numbers) -> Float[Array, "*shape"]:
    """One over the variance of log(-log(r / K)) for many successes: r (log p)^2 / (1 - p).

    It is also the Fisher information of log(-log p) in the draws, at any number of successes.

    **Raises:** `ValueError` for a rate outside of (0, 1).
    """
    _check_rate(rate)
    p, r = as_floats(rate, successes)
    return r * jnp.square(jnp.log(p)) / (1 - p)


class TaskFit(NamedTuple):
    """log(-log p) = offset - alpha z - curvature z^2, with z = log(n) - log(centre), by maximum likelihood.

    `covariance` is that of (offset, alpha, curvature), the inverse of the Fisher information; the curvature and its
    rows are zero where it was not fitted. `c` is the coefficient of the task law, `log_likelihood` up to a constant.
    """

    c: Scalar
    alpha: Scalar
    curvature: Scalar
    offset: Scalar
    centre: Scalar
    covariance: Float[Array, "3 3"]
    log_likelihood: Scalar
    converged: Bool[Array, ""]

    def rate(self, n: Numbers) -> Float[Array, "*shape"]:
        """The pass rate at sizes n."""
        z = jnp.log(n) - jnp.log(self.centre)
        return jnp.exp(-jnp.exp(self.offset - self.alpha * z - self.curvature * z**2))


def fit_task(
    n: Float[Array, " sizes"],
    successes: Float[Array, " sizes"],
    draws: Float[Array, " sizes"],
    *,
    curved: bool = False,
) -> TaskFit:
    """Fit the task law to successes and draws at each size, by the exact likelihood sum r log p + (K - r) log(1 - p).

    It is the same whether draws or successes were fixed beforehand; it needs no logarithm of an estimate, and takes
    sizes without a success. It is concave in the logarithms, so that Fisher's scoring with halved steps finds its only
    maximum. `curved` adds a term in (log n)^2. Where all draws succeed, or none, there is no maximum: `converged` is
    false.

    **Raises:** `ValueError` for columns of unequal length, fewer sizes than parameters, and more successes than draws.
    """
    _check_fit(n, successes, draws, 2 + curved)
    return _fit_task(n, successes, draws, jnp.array([1.0, 1.0, float(curved)], n.dtype))


@jax.jit
def _fit_task(n: Array, successes: Array, draws: Array, free: Array) -> TaskFit:
    log_n = jnp.log(n)
    z = log_n - log_n.mean()
    design = jnp.stack([jnp.ones_like(z), -z, -jnp.square(z)], 1) * free[None]
    failures = draws - successes

    def log_likelihood(point: Array) -> Array:
        size = jnp.exp(design @ point)  # -log p
        return jnp.sum(jax.scipy.special.xlogy(failures, -jnp.expm1(-size)) - successes * size)

    def information(point: Array) -> Array:
        size = jnp.exp(design @ point)
        return design.T @ ((draws * jnp.square(size) / jnp.expm1(size))[:, None] * design) + jnp.diag(1 - free)

    # Half a success more keeps the start finite where there was none, or no failure.
    start_size = -jnp.log((successes + 0.25) / (draws + 0.5))
    weight = jnp.minimum(successes, failures) + 0.1
    start = jnp.linalg.solve(
        design.T @ (weight[:, None] * design) + jnp.diag(1 - free), design.T @ (weight * jnp.log(start_size))
    )
    point, value, converged = maximise(log_likelihood, information, start)
    covariance = jnp.linalg.inv(information(point)) * jnp.outer(free, free)
    return TaskFit(
        c=jnp.exp(point[0] + point[1] * log_n.mean()),
        alpha=point[1],
        curvature=point[2] * free[2],
        offset=point[0],
        centre=jnp.exp(log_n.mean()),
        covariance=covariance,
        log_likelihood=value,
        converged=converged & (failures.sum() > 0) & (successes.sum() > 0),
    )


class Emergence(NamedTuple):
    """Whether a task emerges faster than its law: curvature > 0 makes log(-log p) concave in log n.

    `deviance`: twice the log likelihood that the curvature gains, chi^2 with one degree of freedom where the law holds;
    `p_value`: the probability of as much by chance.
    """

    curvature: Scalar
    standard_error: Scalar
    deviance: Scalar
    p_value: Scalar


def emergence(n: Float[Array, " sizes"], successes: Float[Array, " sizes"], draws: Float[Array, " sizes"]) -> Emergence:
    """Test the task law against one more term in (log n)^2, by the likelihood ratio (arXiv:2310.03262, section 6).

    Concave is accelerated emergence, convex slower than the law.

    **Raises:** as [`fit_task`].
    """
    law, curved = fit_task(n, successes, draws), fit_task(n, successes, draws, curved=True)
    deviance = 2 * jnp.maximum(curved.log_likelihood - law.log_likelihood, 0)
    return Emergence(
        curved.curvature,
        jnp.sqrt(curved.covariance[2, 2]),
        deviance,
        jax.scipy.special.erfc(jnp.sqrt(deviance / 2)),
    )


def _check_rate(rate: Any) -> None:
    if not is_traced(rate) and not ((np.asarray(rate) > 0) & (np.asarray(rate) < 1)).all():
        raise ValueError(f"rate={rate}: give a pass rate above 0 and below 1")


def _check_counts(successes: Any, draws: Any, least: int = 1) -> None:
    if is_traced(successes) or is_traced(draws):
        return
    if not (np.asarray(successes) >= least).all():
        raise ValueError(f"successes={successes}: give at least {least}")
    if not (np.asarray(draws) >= np.asarray(successes)).all():
        raise ValueError(f"successes={successes} in draws={draws}: no more can succeed than are drawn")


def _check_fit(n: Any, successes: Any, draws: Any, parameters: int) -> None:
    if len({len(n), len(successes), len(draws)}) > 1:
        raise ValueError(f"n, successes, draws have {len(n)}, {len(successes)}, {len(draws)} values: give one per size")
    if len(n) < parameters:
        raise ValueError(f"{len(n)} sizes for {parameters} parameters: give at least {parameters}")
    require_finite(n=n, successes=successes, draws=draws)
    require_positive(n=n, draws=draws)
    _check_counts(successes, draws, least=0)
