"""Gaussian expectations by the trapezoid rule.

For an integrand that is analytic in a strip of half-width a, the error is exp(-2 pi a / step): for
tanh(sqrt(q) z), a = pi / (2 sqrt(q)). Gauss-Hermite quadrature is far behind: at q = 4 and 100 nodes it still
errs by 2e-6, where the trapezoid rule reaches 1e-14 with 121.
"""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.typing import Scalar

# To |z| = 12, since a Hermite function of high degree reaches far: it meets exp(-z^2 / 4) there, not exp(-z^2 / 2).
NODES = np.linspace(-12.0, 12.0, 481)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.sqrt(2 * np.pi) * (NODES[1] - NODES[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def gaussian_mean(fn: Callable[[Array], Array], variance: Scalar) -> Scalar:
    """E fn(sqrt(variance) z), z ~ N(0, 1), for an elementwise `fn` that is smooth on the scale of 0.05 sqrt(variance).

    Differentiable in the variance to any order, at 0 too: d/dq E fn(sqrt(q) z) = E fn''(sqrt(q) z) / 2 (Price 1958).
    """
    nodes, weights = (jnp.asarray(a, variance.dtype) for a in (NODES, WEIGHTS))
    return jnp.dot(fn(jnp.sqrt(variance) * nodes), weights)


@gaussian_mean.defjvp
def _(fn, primals, tangents):
    (variance,), (tangent,) = primals, tangents
    return gaussian_mean(fn, variance), gaussian_mean(derivative(derivative(fn)), variance) / 2 * tangent


def derivative(fn: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """fn', of an elementwise function."""
    return lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]


def hermite_coefficients(fn: Callable[[Array], Array], variance: Scalar, degree: int) -> Float[Array, " degree"]:
    """Coefficients a_j = E[fn(sqrt(variance) z) h_j(z)], j < degree, on the orthonormal Hermite polynomials.

    Their squares sum to E fn^2 (Parseval): what is missing is the truncation.
    """
    polynomials, nodes = (jnp.asarray(a, variance.dtype) for a in (_weighted_hermite(degree), NODES))
    return polynomials @ fn(jnp.sqrt(variance) * nodes)


@cache
def _weighted_hermite(degree: int) -> np.ndarray:
    """h_j(z) w(z) at the nodes, by the recursion of the orthonormal polynomials; shape (degree, nodes)."""
    # Half of the Gaussian is carried along, so that nothing overflows.
    half = np.sqrt(WEIGHTS)
    rows = [half, NODES * half]
    for j in range(1, degree - 1):
        rows.append((NODES * rows[j] - np.sqrt(j) * rows[j - 1]) / np.sqrt(j + 1))
    return np.stack(rows[:degree]) * half
