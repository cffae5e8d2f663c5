"""Activation functions, and the maps they induce on Gaussian covariances.

With (u, v) ~ N(0, [[q1, k], [k, q2]]), the dual of an activation phi is T = E[phi(u) phi(v)], and the dual of its
derivative is T' = E[phi'(u) phi'(v)] (Cho & Saul 2009; Daniely, Frostig & Singer, arXiv:1602.05897).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, Float

from theorysim.quadrature import hermite_coefficients

Covariance = Float[Array, "..."]
Dual = Callable[[Covariance, Covariance, Covariance], Covariance]


@dataclass(frozen=True)
class Activation:
    """A scalar function with its dual maps: in closed form where there is one, else by Hermite series.

    The series holds for a function that is analytic and of moderate growth; with the default degree its relative
    error is below 1e-11 for tanh at variances up to 5.
    """

    name: str
    fn: Callable[[Array], Array]
    closed_dual: Dual | None = None
    closed_dual_derivative: Dual | None = None
    degree: int = 384

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """phi(x), elementwise."""
        return self.fn(x)

    def derivative(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """phi'(x), elementwise."""
        return jax.jvp(self.fn, (x,), (jnp.ones_like(x),))[1]

    def coefficients(self, q: Float[Array, ""]) -> Float[Array, " degree"]:
        """Hermite coefficients a_j(q) = E[phi(sqrt(q) z) h_j(z)]."""
        return hermite_coefficients(lambda z: self.fn(jnp.sqrt(q) * z), self.degree)

    def dual(self, q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
        """T(q1, q2, k) = E[phi(u) phi(v)], elementwise over the broadcast arguments."""
        return _broadcast(self.closed_dual or _series(self.fn, self.degree), q1, q2, k)

    def dual_derivative(self, q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
        """T'(q1, q2, k) = E[phi'(u) phi'(v)], elementwise over the broadcast arguments."""
        return _broadcast(self.closed_dual_derivative or _series(self.derivative, self.degree), q1, q2, k)


def _broadcast(dual: Dual, *covariances: Covariance) -> Covariance:
    return dual(*jnp.broadcast_arrays(*covariances))


def _series(fn: Callable[[Array], Array], degree: int) -> Dual:
    """T = sum_j a_j(q1) a_j(q2) rho^j with rho = k / sqrt(q1 q2)."""

    def one(q1, q2, k):
        first, second = (hermite_coefficients(lambda z, q=q: fn(jnp.sqrt(q) * z), degree) for q in (q1, q2))
        rho = k / jnp.sqrt(jnp.maximum(q1 * q2, jnp.finfo(k.dtype).tiny))  # k = 0 where a variance is 0
        return jnp.polyval((first * second)[::-1], rho)

    return jnp.vectorize(one)


def _erf_dual(q1, q2, k):
    return 2 / jnp.pi * jnp.arcsin(2 * k / jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2)))


def _erf_dual_derivative(q1, q2, k):
    return 4 / jnp.pi / jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2) - 4 * k**2)


erf = Activation("erf", special.erf, _erf_dual, _erf_dual_derivative)
"""The error function; closed forms of Williams (1997)."""

tanh = Activation("tanh", jnp.tanh)
"""The hyperbolic tangent; no closed form is known."""
