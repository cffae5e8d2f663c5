"""How far finite networks are from their limits, to leading order in 1 / width: their kernels, and their outputs' law.

Neurons of a layer are independent given the layer before. The covariance V / width of kappa = (K_aa, K_ab, K_bb), for
two inputs a and b, so obeys

    V <- weight_var^2 Cov[(phi(u)^2, phi(u) phi(v), phi(v)^2)] + J V J^T,    (u, v) ~ N(0, kappa),

where J is the Jacobian of the map from one layer's kappa to the next (Roberts, Yaida & Hanin, arXiv:2106.10165).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.checks import is_traced, require_count, require_finite, require_nonnegative
from theorysim.infinite.activation import Activation, as_activation
from theorysim.quadrature import trapezoid
from theorysim.typing import Scalar, ScalarLike

NODES, WEIGHTS = trapezoid(7.0, 57)  # in both variables: covariances need few digits


def nngp_variance(
    activation: Activation | Callable[[Array], Array],
    x: Float[Array, "n d"],
    *,
    depth: int,
    weight_var: ScalarLike = 1.0,
    bias_var: ScalarLike = 0.0,
) -> Float[Array, "n n"]:
    """Width times the variance, over networks, of the covariance that their readout gives the outputs.

    That is K_ij = weight_var phi(h_i) . phi(h_j) / width + bias_var, in a network of `depth` hidden layers of one
    width. Inputs are to be pairwise independent: no two along one line. By quadrature: relative error below 1e-6 for
    functions as smooth as tanh at variances up to 2, 4e-3 for relu.

    **Raises:** `ValueError` for an activation with jumps, inputs that are not finite or of which two are on one line, a
    negative variance, a depth below 1, and variances at which the quadrature does not hold E phi^2 to 1e-3.
    """
    activation = as_activation(activation, continuous=True)
    require_count(depth=depth)
    require_finite(x=x)
    require_nonnegative(weight_var=weight_var, bias_var=bias_var)
    covariance = weight_var * x @ x.T / x.shape[1] + bias_var
    _check(activation, covariance, weight_var, bias_var, depth)
    if len(x) == 1:  # beside an independent partner
        q = covariance[0, 0]
        first, second = np.zeros((2, 1), int)
        kappas = jnp.stack([q, jnp.zeros_like(q), q])[None]
    else:
        first, second = np.triu_indices(len(x), 1)
        kappas = jnp.stack([covariance[first, first], covariance[first, second], covariance[second, second]], 1)
    step = partial(_layer, activation, weight_var, bias_var)

    def pair(kappa):
        return jax.lax.fori_loop(0, depth, step, (kappa, jnp.zeros((3, 3), x.dtype)))[1]

    spread = jax.lax.map(pair, kappas)
    variance = jnp.zeros_like(covariance).at[first, second].set(spread[:, 1, 1]).at[second, first].set(spread[:, 1, 1])
    return variance.at[first, first].set(spread[:, 0, 0]).at[second, second].set(spread[:, 2, 2])


def _check(activation: Activation, covariance: Float[Array, "n n"], weight_var, bias_var, depth: int) -> None:
    if is_traced(covariance) or is_traced(weight_var) or is_traced(bias_var):
        return
    q = np.diag(covariance)
    gap = np.outer(q, q) - np.square(covariance)
    alike = (gap <= 1e-10 * np.outer(q, q)) & ~np.eye(len(q), dtype=bool)
    if alike.any() or (q == 0).any():
        raise ValueError("x holds two inputs on one line, or one that is 0: their kernels vary together, so drop one")
    for _ in range(depth):
        variances = jnp.asarray(q)
        fine = np.asarray(activation.dual(variances, variances, variances))
        coarse = [float((np.asarray(activation(jnp.asarray(np.sqrt(v) * NODES))) ** 2) @ WEIGHTS) for v in q]
        if not np.allclose(coarse, fine, rtol=1e-3):
            raise ValueError(
                f"57 nodes do not resolve {activation.name!r} at the variance {q.max():.3g} of some layer: divide the "
                "inputs by their root mean square, or lower weight_var"
            )
        q = np.asarray(weight_var * fine + bias_var)


def cdf_correction(
    density: Callable[[Scalar], Scalar], x: Float[Array, "..."], *, kernel_variance: ScalarLike
) -> Float[Array, "..."]:
    """Width times the deviation of an output's distribution function from its limit F, to leading order in 1 / width.

    Given its hidden weights, a network has the kernel r K with E r = 1 and Var r = `kernel_variance` / width, and its
    outputs have the distribution function

        E F(x / sqrt(r)) = F(x) + kernel_variance / (8 width) (3 x F'(x) + x^2 F''(x)) + O(1 / width^2).

    For any F that scales with the kernel, the Gaussian or Student's t; `density` = F'. The variance of one input's
    kernel K is [`nngp_variance`] / K^2.

    **Raises:** `ValueError` for a `kernel_variance` that is negative, and an x that is not finite.
    """
    require_nonnegative(kernel_variance=kernel_variance)
    require_finite(x=x)
    slope = jnp.vectorize(jax.grad(density))
    return kernel_variance / 8 * (3 * x * density(x) + x**2 * slope(x))


def _layer(activation, weight_var, bias_var, _, state):
    """Kappa and V of the next layer."""
    kappa, spread = state
    measure = jnp.asarray(np.outer(WEIGHTS, WEIGHTS), kappa.dtype)

    def mean(kappa):
        return weight_var * jnp.einsum("imn,mn->i", _products(activation, kappa), measure)

    seen = weight_var * _products(activation, kappa)
    sampled = jnp.einsum("imn,jmn,mn->ij", seen, seen, measure) - jnp.outer(mean(kappa), mean(kappa))
    jacobian = jax.jacfwd(mean)(kappa)
    return mean(kappa) + bias_var, sampled + jacobian @ spread @ jacobian.T


def _products(activation, kappa: Float[Array, "3"]) -> Float[Array, "3 nodes nodes"]:
    """phi(u)^2, phi(u) phi(v), phi(v)^2 at the nodes of (u, v) ~ N(0, kappa)."""
    q1, k, q2 = kappa
    first, second = jnp.asarray(NODES, kappa.dtype)[:, None], jnp.asarray(NODES, kappa.dtype)[None, :]
    u = jnp.sqrt(q1) * first + 0 * second
    v = k / jnp.sqrt(q1) * first + jnp.sqrt(q2 - k**2 / q1) * second
    u, v = activation(u), activation(v)
    return jnp.stack([u * u, u * v, v * v])
