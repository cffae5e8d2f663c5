"""Gaussian expectations by the trapezoid rule.

For an integrand that is analytic in a strip of half-width a, the error is exp(-2 pi a / step): for
tanh(sqrt(q) z), a = pi / (2 sqrt(q)). Gauss-Hermite quadrature is far behind: at q = 4 and 100 nodes it still
errs by 2e-6, where the trapezoid rule reaches 1e-14 with 121.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# To |z| = 12, since a Hermite function of high degree reaches far: it meets exp(-z^2 / 4) there, not exp(-z^2 / 2).
NODES = np.linspace(-12.0, 12.0, 481)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.sqrt(2 * np.pi) * (NODES[1] - NODES[0])


def gaussian_mean(fn: Callable[[Float[Array, " nodes"]], Float[Array, " nodes"]]) -> Float[Array, ""]:
    """E fn(z), z ~ N(0, 1), for an `fn` that is smooth on the scale of the step, 0.05."""
    return jnp.dot(fn(jnp.asarray(NODES)), jnp.asarray(WEIGHTS))


def hermite_coefficients(
    fn: Callable[[Float[Array, " nodes"]], Float[Array, " nodes"]], degree: int
) -> Float[Array, " degree"]:
    """Coefficients a_j = E[fn(z) h_j(z)], j < degree, on the orthonormal Hermite polynomials.

    Their squares sum to E fn(z)^2 (Parseval): what is missing is the truncation.
    """
    return jnp.asarray(_weighted_hermite(degree)) @ fn(jnp.asarray(NODES))


def _weighted_hermite(degree: int) -> np.ndarray:
    """h_j(z) w(z) at the nodes, by the recursion of the orthonormal polynomials; shape (degree, nodes)."""
    # Half of the Gaussian is carried along, so that nothing overflows.
    half = np.sqrt(WEIGHTS)
    rows = [half, NODES * half]
    for j in range(1, degree - 1):
        rows.append((NODES * rows[j] - np.sqrt(j) * rows[j - 1]) / np.sqrt(j + 1))
    return np.stack(rows[:degree]) * half
