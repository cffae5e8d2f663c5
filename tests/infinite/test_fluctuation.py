"""Fluctuations of networks: Wishart moments of linear ones, random ones, and switches in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from theorysim.infinite import Activation, cdf_correction, nngp_variance

X = jax.random.normal(jax.random.key(0), (4, 6))


def test_linear_networks_have_the_moments_of_wishart_matrices():
    """One layer: Var(u v) = q1 q2 + k^2. Each layer more multiplies K by weight_var, and adds its own."""
    weight_var, bias_var = 1.5, 0.2
    kernel, variance = weight_var * X @ X.T / 6 + bias_var, jnp.zeros((4, 4))
    for depth in (1, 2, 3):
        own = jnp.outer(jnp.diag(kernel), jnp.diag(kernel)) + kernel**2
        variance = weight_var**2 * (own + variance)
        ours = nngp_variance(lambda u: u, X, depth=depth, weight_var=weight_var, bias_var=bias_var)
        np.testing.assert_allclose(ours, variance, rtol=1e-6)
        kernel = weight_var * kernel + bias_var


def test_random_networks_scatter_as_much():
    """2000 tanh networks of width 128 with two hidden layers, within four standard errors and 4 / width."""
    width, count, weight_var, bias_var = 128, 2000, 1.5, 0.1

    def kernel(key):
        h = X
        for layer in range(2):
            weights, biases = jax.random.split(jax.random.fold_in(key, layer))
            z = jnp.sqrt(weight_var / h.shape[1]) * h @ jax.random.normal(weights, (h.shape[1], width))
            h = jnp.tanh(z + jnp.sqrt(bias_var) * jax.random.normal(biases, (1, width)))
        return weight_var * h @ h.T / width + bias_var

    kernels = jax.lax.map(kernel, jax.random.split(jax.random.key(1), count), batch_size=250)
    squares = width * jnp.square(kernels - kernels.mean(0)[None])
    exact = nngp_variance(jnp.tanh, X, depth=2, weight_var=weight_var, bias_var=bias_var)
    error = squares.std(0, ddof=1) / np.sqrt(count)
    assert (abs(squares.mean(0) - exact) < 4 * error + 4 / width * exact).all()


@pytest.mark.parametrize("law", ["norm", "t"])
def test_outputs_of_networks_of_switches_deviate_as_much(law):
    """Neurons that are 1 with the chance p and else 0: r is binomial / (width p), and E F a finite sum."""
    p, x = 0.8, np.array([-1.5, 0.4, 2.5])
    limit, density = {
        "norm": (stats.norm, jax.scipy.stats.norm.pdf),
        "t": (stats.t(4), lambda x: jax.scipy.stats.t.pdf(x, 4)),
    }[law]
    first_order = cdf_correction(density, jnp.asarray(x), kernel_variance=(1 - p) / p)

    def deviation(width):
        """Width times that of E F, after the output of no neurons, 0, which is rarer than rounding."""
        count = np.arange(1, width + 1)
        exact = limit.cdf(x[:, None] / np.sqrt(count / (width * p))) @ stats.binom(width, p).pmf(count)
        return width * (exact - limit.cdf(x))

    small, large = (deviation(width) - first_order for width in (100, 200))
    assert abs(large).max() < 0.05 * abs(first_order).max()
    np.testing.assert_allclose(small / large, 2, rtol=0.1)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="depth=0: give a whole number >= 1"):
        nngp_variance(jnp.tanh, X, depth=0)
    with pytest.raises(ValueError, match=r"weight_var=-1\.0: give a value >= 0"):
        nngp_variance(jnp.tanh, X, depth=1, weight_var=-1.0)
    with pytest.raises(ValueError, match=r"kernel_variance=-1\.0: give a value >= 0"):
        cdf_correction(jax.scipy.stats.norm.pdf, X[0], kernel_variance=-1.0)
    with pytest.raises(ValueError, match="x holds 1 values that are not finite"):
        nngp_variance(jnp.tanh, X.at[0, 0].set(jnp.nan), depth=1)


def test_a_single_input_has_the_variance_that_it_has_among_others():
    setting = {"depth": 2, "weight_var": 1.5, "bias_var": 0.2}
    alone, among = (nngp_variance(jnp.tanh, x, **setting) for x in (X[:1], X))
    np.testing.assert_allclose(alone[0, 0], among[0, 0], rtol=1e-10)


@pytest.mark.parametrize(
    ("activation", "x", "message"),
    [
        (jnp.tanh, jnp.concatenate([X, -2 * X[:1]]), "x holds two inputs on one line"),
        (jnp.tanh, 100 * X, "57 nodes do not resolve 'tanh' at the variance"),
        (Activation("sign", jnp.sign, kinks=(0.0,)), X, "'sign' jumps at one of its kinks"),
    ],
)
def test_inputs_that_quadrature_does_not_hold_are_refused(activation, x, message):
    with pytest.raises(ValueError, match=message):
        nngp_variance(activation, x, depth=1)
