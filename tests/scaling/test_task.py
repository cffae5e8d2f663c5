"""Estimates from draws until success beside sums over all outcomes, simulations and mpmath; the fit beside scipy."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import kstest, nbinom

import theorysim.scaling as sc
from theorysim.scaling import task

N = jnp.asarray(np.geomspace(1e7, 3e9, 7))
LAW = {"c": 400.0, "alpha": 0.27}


def moments(rate, successes):
    """E[r / K] and mean and variance of log(r / K), by the sum over all numbers of draws."""
    draws = np.arange(successes, successes + int(80 / rate))
    share = nbinom.pmf(draws - successes, successes, rate)
    log = np.log(successes / draws)
    mean = share @ log
    return share @ (successes / draws), mean, share @ (log - mean) ** 2


@pytest.mark.parametrize("successes", [1, 2, 5, 20])
@pytest.mark.parametrize("rate", [1e-3, 0.05, 0.5, 0.6, 0.97])
def test_moments_of_estimates_are_sums_over_all_outcomes(rate, successes):
    estimate, mean, variance = moments(rate, successes)
    assert float(task.mle_bias(rate, successes)) == pytest.approx(estimate / rate - 1, rel=1e-9, abs=1e-12)
    found = task.log_estimate(rate, successes)
    assert float(found.bias) == pytest.approx(mean - math.log(rate), rel=1e-9, abs=1e-12)
    assert float(found.variance) == pytest.approx(variance, rel=1e-9, abs=1e-12)


def test_the_bias_at_the_values_of_the_specification():
    found = [float(1 + task.mle_bias(p, r)) for p, r in ((0.05, 1), (1e-3, 1), (0.05, 2), (1e-3, 2))]
    np.testing.assert_allclose(found, [3.15, 6.9, 1.77, 1.99], rtol=4e-3)
    with mpmath.workdps(40):
        exact = [float(mpmath.hyp2f1(1, 1, r + 1, 1 - mpmath.mpf(1e-12)) - 1) for r in (1, 3, 30)]
        near_one = float(mpmath.hyp2f1(1, 1, 4, 1 - mpmath.mpf(0.999999)) - 1)
    np.testing.assert_allclose([float(task.mle_bias(1e-12, r)) for r in (1, 3, 30)], exact, rtol=1e-13)
    assert float(task.mle_bias(0.999999, 3)) == pytest.approx(near_one, rel=1e-10)


def test_the_variance_has_its_limits():
    rare = [float(task.log_estimate(1e-15, r).variance) for r in (1, 2, 5, 20)]
    np.testing.assert_allclose(rare, [float(mpmath.psi(1, r)) for r in (1, 2, 5, 20)], rtol=1e-10)
    assert float(task.log_estimate(0.3, 1e6).variance) == pytest.approx(0.7 / 1e6, rel=1e-5)
    simulated = [float(task.log_estimate(1e-3, r).variance) for r in (1, 2, 5, 20)]  # of the specification
    np.testing.assert_allclose(simulated, [1.613, 0.644, 0.220, 0.0511], rtol=5e-3)


def draw(key, rate, successes):
    """Numbers of draws until so many successes: sums of geometric numbers."""
    u = jax.random.uniform(key, (*rate.shape, successes), minval=jnp.finfo(rate.dtype).tiny)
    return jnp.ceil(jnp.log(u) / jnp.log1p(-rate)[..., None]).sum(-1)


def test_estimates_in_simulation():
    draws = draw(jax.random.key(0), jnp.full(400_000, 0.05), 2)
    for estimates, mean in (
        (task.mle(2.0, draws), 0.05 * (1 + float(task.mle_bias(0.05, 2)))),
        (task.unbiased_estimate(2.0, draws), 0.05),
    ):
        assert abs(float(estimates.mean()) - mean) < 5 * float(estimates.std()) / math.sqrt(400_000)


def test_the_fit_is_scipys_maximum():
    rate = task.pass_rate_law(N, **LAW)
    draws = draw(jax.random.key(1), rate, 6)
    fit = task.fit_task(N, jnp.full(7, 6.0), draws)

    def loss(point):
        size = np.exp(point[0] - point[1] * (np.log(N) - np.log(N).mean()))
        return -(-6 * size + (np.asarray(draws) - 6) * np.log(-np.expm1(-size))).sum()

    best = minimize(loss, [0.0, 0.2], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000})
    assert fit.converged
    np.testing.assert_allclose([fit.offset, fit.alpha], best.x, rtol=1e-6)
    assert float(fit.log_likelihood) == pytest.approx(-best.fun, rel=1e-12)
    np.testing.assert_allclose(fit.rate(N), task.pass_rate_law(N, fit.c, fit.alpha), rtol=1e-10)


def test_the_fit_is_as_sharp_as_the_fisher_information():
    """Over 1000 experiments: spread of alpha, its own standard errors, and the law of the likelihood ratio."""
    rate = task.pass_rate_law(N, **LAW)
    draws = draw(jax.random.key(2), jnp.broadcast_to(rate, (1000, 7)), 20)
    successes = jnp.full(7, 20.0)
    fits = jax.vmap(lambda draws: task.fit_task(N, successes, draws))(draws)
    z = jnp.log(N) - jnp.log(N).mean()
    design = jnp.stack([jnp.ones(7), -z], 1)
    information = design.T @ (task.weights(rate, 20.0)[:, None] * design)
    predicted = float(jnp.sqrt(jnp.linalg.inv(information)[1, 1]))
    assert fits.converged.all()
    assert float(fits.alpha.std()) == pytest.approx(predicted, rel=0.1)
    assert float(jnp.sqrt(fits.covariance[:, 1, 1]).mean()) == pytest.approx(predicted, rel=0.1)
    tests = jax.vmap(lambda draws: task.emergence(N, successes, draws))(draws)
    assert kstest(np.asarray(tests.p_value), "uniform").pvalue > 1e-3
    pull = tests.curvature / tests.standard_error
    assert abs(float(pull.mean())) < 5 / math.sqrt(1000) + 0.1
    assert float(pull.std()) == pytest.approx(1, abs=0.1)


def test_accelerated_emergence_is_seen():
    z = jnp.log(N) - jnp.log(N).mean()
    rate = jnp.exp(-jnp.exp(0.9 - 0.3 * z - 0.08 * z**2))
    for sign, rates in ((1, rate), (-1, jnp.exp(-jnp.exp(0.9 - 0.3 * z + 0.08 * z**2)))):
        found = task.emergence(N, jnp.full(7, 200.0), draw(jax.random.key(3), rates, 200))
        assert found.p_value < 1e-6
        assert abs(float(found.curvature) - sign * 0.08) < 4 * float(found.standard_error)


def test_the_law_is_in_the_registry():
    losses = task.pass_rate_law(N, **LAW) * jnp.exp(1e-3 * jax.random.normal(jax.random.key(0), (7,)))
    fit = sc.fit("pass_rate", {"n": np.asarray(N), "loss": np.asarray(losses)}, objective=sc.least_squares())
    assert fit.parameters["alpha"] == pytest.approx(0.27, rel=0.02)


def test_what_has_no_maximum_says_so():
    n = jnp.asarray([1e7, 1e8, 1e9])
    assert not task.fit_task(n, jnp.zeros(3), jnp.full(3, 100.0)).converged
    assert not task.fit_task(n, jnp.full(3, 100.0), jnp.full(3, 100.0)).converged
    # A size without a success counts.
    assert task.fit_task(n, jnp.array([0.0, 3.0, 40.0]), jnp.full(3, 100.0)).converged


def test_refusals():
    with pytest.raises(ValueError, match=r"successes=1\.0: give at least 2"):
        task.unbiased_estimate(1.0, 5.0)
    with pytest.raises(ValueError, match=r"successes=6\.0 in draws=5\.0: no more can succeed than are drawn"):
        task.mle(6.0, 5.0)
    with pytest.raises(ValueError, match=r"rate=0\.0: give a pass rate above 0 and below 1"):
        task.log_estimate(0.0, 2)
    with pytest.raises(ValueError, match="successes=0: give at least 1"):
        task.mle_bias(0.1, 0)
    with pytest.raises(ValueError, match="2 sizes for 3 parameters: give at least 3"):
        task.fit_task(jnp.ones(2), jnp.ones(2), jnp.full(2, 3.0), curved=True)
    with pytest.raises(ValueError, match="n, successes, draws have 3, 2, 3 values: give one per size"):
        task._check_fit(jnp.ones(3), jnp.ones(2), jnp.full(3, 3.0), 2)
