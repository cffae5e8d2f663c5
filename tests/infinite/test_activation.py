"""Dual activations against closed forms, quadrature in many digits, and each other."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theorysim.infinite import Activation, erf, tanh
from theorysim.quadrature import NODES, WEIGHTS, gaussian_mean, hermite_coefficients

variances = st.floats(0.05, 5.0)
correlations = st.floats(-1.0, 1.0)


PIECES, RULE = [-9, -3, 0, 3, 9], {"method": "gauss-legendre", "maxdegree": 4}


def exact_dual(fn, q1, q2, k):
    """E[fn(u) fn(v)] by mpmath, over the two independent normals that make up u and v."""
    slope, rest = k / mpmath.sqrt(q1), mpmath.sqrt(q2 - k**2 / q1)

    def inner(z):
        u = fn(mpmath.sqrt(q1) * z)
        return u * mpmath.quad(lambda w: fn(slope * z + rest * w) * mpmath.npdf(w), PIECES, **RULE) * mpmath.npdf(z)

    return float(mpmath.quad(inner, PIECES, **RULE))


@pytest.mark.parametrize("point", [(1.0, 1.0, 0.5), (4.0, 0.3, -0.9), (5.0, 5.0, 4.5)])
def test_tanh_dual_is_that_of_mpmath(point):
    value, derivative = tanh.dual(*map(jnp.asarray, point)), tanh.dual_derivative(*map(jnp.asarray, point))
    np.testing.assert_allclose(value, exact_dual(mpmath.tanh, *point), rtol=1e-11)
    np.testing.assert_allclose(derivative, exact_dual(lambda x: mpmath.sech(x) ** 2, *point), rtol=1e-11)


@settings(max_examples=30, deadline=None)
@given(variances, variances, correlations)
def test_series_meets_the_closed_forms_of_erf(q1, q2, rho):
    point = jnp.asarray(q1), jnp.asarray(q2), rho * jnp.sqrt(q1 * q2)
    series = Activation("series", jax.scipy.special.erf)
    np.testing.assert_allclose(erf.dual(*point), series.dual(*point), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(erf.dual_derivative(*point), series.dual_derivative(*point), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(variances, variances, st.floats(-0.99, 0.99))
def test_dual_of_the_derivative_is_the_derivative_of_the_dual(q1, q2, rho):
    q1, q2, k = jnp.asarray(q1), jnp.asarray(q2), rho * jnp.sqrt(q1 * q2)
    for activation in (erf, tanh):
        slope = jax.grad(activation.dual, argnums=2)(q1, q2, k)
        np.testing.assert_allclose(activation.dual_derivative(q1, q2, k), slope, rtol=1e-8)


def test_duals_broadcast():
    q1, q2, k = jnp.ones((3, 1)), jnp.full((1, 2), 2.0), jnp.full((3, 2), 0.3)
    for activation in (erf, tanh):
        assert activation.dual(q1, q2, k).shape == (3, 2)


def test_gaussian_moments_are_exact():
    for order, moment in [(0, 1), (1, 0), (2, 1), (4, 3), (10, 945)]:
        mean = gaussian_mean(lambda z, n=order: z**n, jnp.asarray(4.0))
        np.testing.assert_allclose(mean, moment * 2**order, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose((WEIGHTS * np.cos(5 * NODES)).sum(), np.exp(-12.5), rtol=1e-9)


def test_gaussian_means_have_derivatives_in_the_variance_at_zero_too():
    """E cos(sqrt(q) z) = exp(-q / 2)."""
    mean = lambda q: gaussian_mean(jnp.cos, q)  # noqa: E731
    for q in (0.0, 1.3):
        for order, nth in enumerate((mean, jax.grad(mean), jax.grad(jax.grad(mean)))):
            np.testing.assert_allclose(nth(jnp.asarray(q)), (-0.5) ** order * np.exp(-q / 2), rtol=1e-12)


def test_hermite_coefficients_are_orthonormal_and_complete():
    one = jnp.ones(())
    cubic = hermite_coefficients(lambda z: (z**3 - 3 * z) / np.sqrt(6), one, 8)
    np.testing.assert_allclose(cubic, np.eye(8)[3], atol=1e-13)
    exponential = hermite_coefficients(lambda z: jnp.exp(0.7 * z - 0.245), one, 40)  # a_j = 0.7^j / sqrt(j!)
    factorials = np.cumprod(np.r_[1, np.arange(1, 40)].astype(float))
    np.testing.assert_allclose(exponential, 0.7 ** np.arange(40) / np.sqrt(factorials), atol=1e-13)


@pytest.mark.parametrize(("q", "value", "slope"), [(5.0, 5e-12, 1e-9), (10.0, 5e-9, 5e-6), (20.0, 2e-6, 3e-4)])
def test_the_series_loses_the_digits_it_says_at_equal_inputs(q, value, slope):
    q = jnp.asarray(q)
    for dual, fn, bound in ((tanh.dual, jnp.tanh, value), (tanh.dual_derivative, tanh.derivative, slope)):
        exact = gaussian_mean(lambda x, fn=fn: fn(x) ** 2, q)
        error = abs(dual(q, q, q) / exact - 1)
        assert bound / 1000 < error < bound


def test_a_series_of_many_pairs_costs_coefficients_of_the_inputs_only():
    q = jnp.linspace(0.5, 2, 300)
    compiled = jax.jit(tanh.dual).lower(q[:, None], q[None, :], 0.3 * jnp.ones((300, 300))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2e7  # one coefficient a pair and degree would be 276 MB


@pytest.mark.parametrize("activation", [erf, tanh])
def test_dtype_follows_the_inputs(activation):
    q = jnp.asarray(1.5, jnp.float32)
    assert activation.dual(q, q, 0.5 * q).dtype == np.float32
    assert activation.dual_derivative(q, q, 0.5 * q).dtype == np.float32
