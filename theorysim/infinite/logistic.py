"""Duals of functions made of the logistic function, at any variance.

The logistic law is a normal law of random scale (Andrews & Mallows 1974): with K of Kolmogorov's law, of density
f(K) = 8 K sum_j (-1)^(j - 1) j^2 exp(-2 j^2 K^2), and a standard normal e,

    tanh(x) = E sign(x + K e),    log(1 + exp(x)) = E relu(x + 2 K e),    x / (1 + exp(-x)) = E x Phi(x / (2 K)).

For u and v with a noise of their own each, the dual of tanh so is a mean over two scales of the arcsine law's,

    T(q1, q2, k) = sum_ab w_a w_b 2 / pi arcsin(k / sqrt((q1 + K_a^2) (q2 + K_b^2))),

and likewise T', by Gauss's rule for Kolmogorov's law.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import eigh_tridiagonal

from theorysim.typing import as_floats

NODES = 12  # tanh to 2e-10, its dual and that of its derivative to 1e-14
Dual = Callable[[Array, Array, Array], Array]


@cache
def kolmogorov() -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Scales K and weights of Gauss's rule for polynomials in K / (1 + K), by Lanczos's recursion."""
    logs = np.linspace(np.log(0.08), np.log(6.0), 400)  # the trapezoid rule in log K errs by 1e-16
    scales = np.exp(logs)
    weights = scales * _density(scales)
    weights /= weights.sum()
    points = scales / (1 + scales)
    basis, diagonal, beside = [np.sqrt(weights)], [], []
    for _ in range(NODES):
        vector = points * basis[-1]
        diagonal.append(vector @ basis[-1])
        for _ in range(2):
            for other in basis:
                vector = vector - (vector @ other) * other
        beside.append(np.linalg.norm(vector))
        basis.append(vector / beside[-1])
    nodes, vectors = eigh_tridiagonal(diagonal, beside[:-1])
    return nodes / (1 - nodes), vectors[0] ** 2


def _density(scales: Float[np.ndarray, " scales"]) -> Float[np.ndarray, " scales"]:
    """Kolmogorov's, by the series above, and for small K by that which Poisson's sum makes of it."""
    j = np.arange(1, 12)[:, None]
    large = 8 * scales * ((-1.0) ** (j - 1) * j**2 * np.exp(-2 * j**2 * scales**2)).sum(0)
    rate = ((2 * j - 1) * np.pi / scales) ** 2 / 8
    small = np.sqrt(2 * np.pi) / scales**2 * (np.exp(-rate) * (2 * rate - 1)).sum(0)
    return np.where(scales < 1, small, large)


def duals(dual: Dual, dual_derivative: Dual, scale: float) -> tuple[Dual, Dual]:
    """T and T' of E phi(x + scale K e), from those of phi: noise adds to the variances."""

    def noisy(of: Dual) -> Dual:
        return _mean_over_scales(lambda q1, q2, k, a, b: of(q1 + (scale * a) ** 2, q2 + (scale * b) ** 2, k))

    return noisy(dual), noisy(dual_derivative)


def scaled_duals(dual: Dual, dual_derivative: Dual, scale: float) -> tuple[Dual, Dual]:
    """T and T' of E scale K phi(x / (scale K)), from those of phi."""

    def stretched(q1: Array, q2: Array, k: Array, a: Array, b: Array) -> tuple[Array, Array, Array]:
        a, b = scale * a, scale * b
        return q1 / a**2, q2 / b**2, k / (a * b)

    return (
        _mean_over_scales(lambda q1, q2, k, a, b: scale**2 * a * b * dual(*stretched(q1, q2, k, a, b))),
        _mean_over_scales(lambda q1, q2, k, a, b: dual_derivative(*stretched(q1, q2, k, a, b))),
    )


def _mean_over_scales(term: Callable[..., Array]) -> Dual:
    def mean(q1: Array, q2: Array, k: Array) -> Array:
        q1, q2, k = as_floats(q1, q2, k)
        scales, weights = kolmogorov()
        first, second = np.repeat(scales, NODES), np.tile(scales, NODES)
        pairs = [jnp.asarray(a, k.dtype) for a in (first, second, np.outer(weights, weights).ravel())]

        @jax.checkpoint  # 144 terms need not be stored for a gradient
        def add(total: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, None]:
            a, b, weight = pair
            return total + weight * term(q1, q2, k, a, b), None

        shape = jnp.broadcast_shapes(q1.shape, q2.shape, k.shape)
        return jax.lax.scan(add, jnp.zeros(shape, k.dtype), tuple(pairs))[0]

    return mean
