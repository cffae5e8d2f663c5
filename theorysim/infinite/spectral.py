"""Functions of a symmetric matrix, differentiable where eigenvalues coincide.

With A = V diag(lambda) V^T, the derivative of f(A) along dA is

    V (Gamma * (V^T dA V)) V^T,    Gamma_ij = (f(lambda_i) - f(lambda_j)) / (lambda_i - lambda_j), or f'(lambda_i)

(Daleckii & Krein 1965; Higham, Functions of Matrices, 2008, theorem 3.11). That of the eigenvectors alone has a pole
where two eigenvalues are equal.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.quadrature import derivative


class Modes(NamedTuple):
    """A symmetric matrix and its eigenbasis: matrix = vectors * values @ vectors.T, eigenvalues rising.

    Differentiate through [`times`], not through the vectors.
    """

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]
    matrix: Float[Array, "n n"]


def eigenbasis(matrix: Float[Array, "n n"]) -> Modes:
    """By `jnp.linalg.eigh`: O(n^3) once, for any number of functions."""
    return Modes(*jnp.linalg.eigh(matrix), matrix)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def times(fn: Callable[..., Array], left: Float[Array, "m n"], modes: Modes, *parameters: Any) -> Float[Array, "m n"]:
    """left @ f(A), f(A) = V diag(fn(lambda, *parameters)) V^T, with `fn` elementwise in lambda."""
    return ((left @ modes.vectors) * fn(modes.values, *parameters)[None, :]) @ modes.vectors.T


@times.defjvp
def _(fn, primals, tangents):
    (left, modes, *parameters), (left_change, modes_change, *changes) = primals, tangents
    values, vectors, _ = modes
    of_values, of_parameters = jax.jvp(partial(fn, values), parameters, changes)
    slopes = _divided_differences(lambda x: fn(x, *parameters), values)
    change = jnp.diag(of_parameters) + slopes * (vectors.T @ modes_change.matrix @ vectors)
    onto = left @ vectors
    rotated = (left_change @ vectors) * of_values[None, :] + onto @ change
    return (onto * of_values[None, :]) @ vectors.T, rotated @ vectors.T


def _divided_differences(fn: Callable[[Array], Array], values: Float[Array, " n"]) -> Float[Array, "n n"]:
    """(f(x) - f(y)) / (x - y) for all pairs; where they are near each other, the mean of f' between (Simpson's rule).

    At relative distances below 1e-3 in float64 the quotient would lose more digits than the rule.
    """
    x, y = values[:, None], values[None, :]
    eps = float(jnp.finfo(values.dtype).eps)
    near = jnp.abs(x - y) <= eps**0.2 * (jnp.abs(x) + jnp.abs(y)) + eps**0.5 * jnp.abs(values).max()
    slope = derivative(fn)
    ends = slope(values)
    mean = (ends[:, None] + 4 * slope((x + y) / 2) + ends[None, :]) / 6
    at = fn(values)
    return jnp.where(near, mean, (at[:, None] - at[None, :]) / jnp.where(near, 1.0, x - y))
