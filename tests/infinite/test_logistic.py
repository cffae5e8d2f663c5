"""Sums over Kolmogorov's law against its moments, and against quadrature in u and v at any variance."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from theorysim import infinite
from theorysim.infinite.logistic import kolmogorov

SLOPES = {
    infinite.tanh: lambda x: np.cosh(np.clip(x, -300, 300)) ** -2.0,
    infinite.softplus: special.expit,
    infinite.silu: lambda x: special.expit(x) * (1 + x * special.expit(-x)),
}


def test_the_rule_has_the_moments_of_kolmogorovs_law():
    scales, weights = kolmogorov()
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(weights @ scales, np.sqrt(np.pi / 2) * np.log(2), rtol=1e-8)
    np.testing.assert_allclose(weights @ scales**2, np.pi**2 / 12, rtol=1e-7)
    u = np.linspace(0.1, 12, 50)
    np.testing.assert_allclose(weights @ special.erf(u[None] / scales[:, None] / np.sqrt(2)), np.tanh(u), rtol=1e-9)


def trapezoid(reach, count):
    nodes = np.linspace(-reach, reach, count)
    return nodes, np.full(count, nodes[1] - nodes[0])


@pytest.mark.parametrize("activation", SLOPES, ids=lambda activation: activation.name)
@pytest.mark.parametrize("q", [0.01, 1.0, 20.0, 300.0])
def test_duals_are_those_of_quadrature(activation, q):
    """By the trapezoid rule in both variables, with 9 standard deviations and a step of 0.0045 of them."""
    q1, q2, rho = q, 1.5 * q, -0.6
    z, step = trapezoid(9, 4001)
    weights = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * step
    u, v = np.sqrt(q1) * z[:, None], np.sqrt(q2) * (rho * z[:, None] + np.sqrt(1 - rho**2) * z[None, :])
    k = rho * np.sqrt(q1 * q2)
    duals = activation.dual, activation.dual_derivative
    for fn, dual in zip((lambda x: np.asarray(activation(jnp.asarray(x))), SLOPES[activation]), duals, strict=True):
        np.testing.assert_allclose(dual(q1, q2, k), weights @ (fn(u) * fn(v)) @ weights, rtol=1e-11)


@pytest.mark.parametrize("q", [5000.0, 1e6])
@pytest.mark.parametrize("rho", [-0.7, 0.3, 0.9999])
def test_tanh_at_large_variances(q, rho):
    """T' by quadrature over the few units in which tanh bends; T is its integral over the covariance."""
    q1, q2 = q, 2 * q
    size = np.sqrt(q1 * q2)
    u, step = trapezoid(20, 801)
    slopes = SLOPES[infinite.tanh](u) * step

    def slope(angle):
        k = size * np.sin(angle)
        form = (q2 * u[:, None] ** 2 - 2 * k * u[:, None] * u[None, :] + q1 * u[None, :] ** 2) / (q1 * q2 - k**2)
        return slopes @ np.exp(-form / 2) @ slopes / (2 * np.pi * np.sqrt(q1 * q2 - k**2))

    angle = np.arcsin(rho)
    points, weights = np.polynomial.legendre.leggauss(60)
    angles = angle * (1 + points) / 2
    integral = sum(w * slope(a) * size * np.cos(a) for w, a in zip(weights * angle / 2, angles, strict=True))
    np.testing.assert_allclose(infinite.tanh.dual_derivative(q1, q2, rho * size), slope(angle), rtol=1e-9)
    np.testing.assert_allclose(infinite.tanh.dual(q1, q2, rho * size), integral, rtol=1e-9)
