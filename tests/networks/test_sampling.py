"""Sampled posteriors against quadrature, and the prior's exact moments."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, stats

from theorysim.infinite import erf
from theorysim.networks import sample_posterior

CHAINS = 16


def chains(jit, kernel, x, targets, **options):
    """Means over each chain, their mean over chains and its standard error."""
    keys = jax.random.split(jax.random.key(0), CHAINS)
    draws = jit(jax.vmap(lambda key: sample_posterior(kernel, x, targets, key=key, **options)))(keys)
    means = np.asarray(draws.grams.mean(1))
    assert (draws.acceptance > 0.6).all()
    return means.mean(0), means.std(0, ddof=1) / np.sqrt(CHAINS), draws


def linear(f):
    return f @ f.T / f.shape[1]


def neurons(f):
    return linear(erf(f))


def test_one_input_and_one_layer_have_a_posterior_in_one_variable(quick_jit):
    """Its Gram matrix is g0 times a chi-square over the width, weighed by the likelihood to the power width / nu."""
    g0, y, width, nu, noise_var = 0.8, 1.7, 12, 2.0, 0.3
    x, targets = jnp.full((1, 1), np.sqrt(g0)), jnp.full((1, 1), y)
    mean, error, _ = chains(
        quick_jit, linear, x, targets, width=width, depth=1, nu=nu, noise_var=noise_var, draws=400, warmup=50, step=0.3
    )

    def weight(g, power):
        likelihood = stats.norm.pdf(y, scale=np.sqrt(g + noise_var)) ** (width / nu)
        return g**power * stats.chi2.pdf(g * width / g0, width) * likelihood

    exact = integrate.quad(weight, 0, 10, args=(1,))[0] / integrate.quad(weight, 0, 10, args=(0,))[0]
    assert abs(exact - g0) > 20 * error[0, 0]
    np.testing.assert_allclose(mean[0, 0], exact, atol=4 * error[0, 0])


def test_without_data_the_chain_draws_from_the_prior(quick_jit):
    """E G_2 = weight_var E phi phi^T + bias_var over Gaussian preactivations of the first layer."""
    x = jax.random.normal(jax.random.key(1), (3, 5))
    mean, error, draws = chains(
        quick_jit,
        neurons,
        x,
        x[:, :1],
        width=8,
        depth=2,
        nu=1e12,
        noise_var=1.0,
        weight_var=1.5,
        bias_var=0.1,
        draws=300,
        warmup=20,
    )
    prior = 1.5 * x @ x.T / 5 + 0.1
    variance = jnp.diag(prior)
    second = 1.5 * erf.dual(variance[:, None], variance[None, :], prior) + 0.1
    assert (draws.acceptance > 0.99).all()
    assert (error < 0.05).all()
    assert (abs(mean - second) < 4 * error).all()
