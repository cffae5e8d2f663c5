"""Order and chaos: how the variance and the correlation of two inputs travel through a deep random network.

Weights have variance weight_var / fan_in, biases bias_var. A layer maps the variance q of its preactivations and
the correlation c of two inputs to

    V(q) = weight_var E[phi(sqrt(q) z)^2] + bias_var,
    C(c) = (weight_var E[phi(u) phi(v)] + bias_var) / q      at the fixed point q = V(q).

The slope chi = C'(1) decides: in the ordered phase (chi < 1) all inputs become alike, in the chaotic phase (chi > 1)
they part to a correlation c* < 1. (Poole et al., arXiv:1606.05340; Schoenholz et al., arXiv:1611.01232.)
"""

import jax.numpy as jnp
import optimistix as optx

from theorysim.infinite.activation import Activation
from theorysim.infinite.covariance import HERMITE_DEGREE
from theorysim.quadrature import gaussian_mean, hermite_coefficients
from theorysim.typing import Scalar, ScalarLike, as_floats


def variance_map(activation: Activation, q: ScalarLike, weight_var: ScalarLike, bias_var: ScalarLike) -> Scalar:
    """V(q): the variance of the next layer's preactivations (arXiv:1606.05340, eq. 3).

    By quadrature: for tanh and erf, relative error below 1e-13 up to q = 35.
    """
    return weight_var * _mean_square(activation.fn, q) + bias_var


def fixed_point(activation: Activation, weight_var: ScalarLike, bias_var: ScalarLike) -> Scalar:
    """q* = V(q*), the variance that deep layers settle at; NaN where there is none.

    Newton's method from above, where V is concave, as it is for sigmoidal functions; exact to 1e-12 while q* < 35.
    Differentiable in both variances, by the implicit function theorem.
    """
    weight_var, bias_var, above = as_floats(weight_var, bias_var, 100.0)
    start = variance_map(activation, above, weight_var, bias_var)
    tolerance = _tolerance(start)

    def residual(q, variances):
        return variance_map(activation, jnp.maximum(q, 0.0), *variances) - q

    solver = optx.Newton(rtol=tolerance, atol=tolerance)
    root = optx.root_find(residual, solver, start, (weight_var, bias_var), max_steps=100, throw=False)
    found = (root.result == optx.RESULTS.successful) & (root.value > -1e5 * tolerance)
    return jnp.where(found, jnp.maximum(root.value, 0.0), jnp.nan)


def slope(activation: Activation, q: ScalarLike, weight_var: ScalarLike) -> Scalar:
    """Chi = weight_var E[phi'(sqrt(q) z)^2]: above 1 in the chaotic phase (arXiv:1606.05340, eq. 6).

    Also the factor by which a layer multiplies the mean square of a gradient (arXiv:1611.01232, section 4). By
    quadrature: for tanh, relative error below 1e-12 up to q = 25.
    """
    return weight_var * _mean_square(activation.derivative, q)


def correlation_map(
    activation: Activation, c: ScalarLike, q: ScalarLike, weight_var: ScalarLike, bias_var: ScalarLike
) -> Scalar:
    """C(c): the correlation in the next layer, where the variance has settled at q > 0 (arXiv:1606.05340)."""
    (q,) = as_floats(q)
    return (weight_var * activation.dual(q, q, c * q) + bias_var) / q


def fixed_correlation(activation: Activation, q: ScalarLike, weight_var: ScalarLike) -> Scalar:
    """c* = C(c*), the correlation that two inputs settle at: 1 in the ordered phase, below 1 in the chaotic.

    C(c) = 1 is always a root at c = 1. It is divided out: with C(c) = sum_j m_j c^j, (C(1) - C(c)) / (1 - c) is a
    polynomial with the positive coefficients sum_{j > i} m_j, increasing and convex, so that Newton's method from
    c = 1 falls onto the other root. The series loses digits as q grows: for tanh, error 1e-10 at q = 10, 1e-6 at 20.
    NaN where Newton's method fails, and 1 at q = 0.
    """
    (q,) = as_floats(q)
    settled = jnp.where(q > 0, q, 1.0)
    coefficients = hermite_coefficients(activation.fn, settled, HERMITE_DEGREE)
    tails = jnp.cumsum((weight_var * coefficients**2 / settled)[::-1])[::-1][1:]
    tolerance = _tolerance(q)

    def residual(c, tails):
        # In the ordered phase the other root lies above 1, or nowhere: stay at 1.
        return jnp.polyval(tails[::-1], c) - jnp.minimum(tails.sum(), 1.0)

    solver = optx.Newton(rtol=tolerance, atol=tolerance)
    root = optx.root_find(residual, solver, jnp.ones_like(q), tails, max_steps=100, throw=False)
    chaotic = (q > 0) & (tails.sum() > 1)
    return jnp.where(chaotic, jnp.where(root.result == optx.RESULTS.successful, root.value, jnp.nan), jnp.ones_like(q))


def correlation_length(activation: Activation, q: ScalarLike, c: ScalarLike, weight_var: ScalarLike) -> Scalar:
    """Xi = -1 / log C'(c*), in layers: how deep a difference of inputs is still seen (arXiv:1611.01232, eq. 9).

    Infinite on the critical line, and rising to it from both sides; networks train to a depth of about 6 xi.
    """
    (q,) = as_floats(q)
    return 1 / jnp.maximum(-jnp.log(weight_var * activation.dual_derivative(q, q, c * q)), 0.0)


def critical_weight_var(activation: Activation, bias_var: ScalarLike) -> Scalar:
    """The weight_var at which chi = 1 for a given bias_var > 0; NaN where there is none up to q* = 25.

    chi = 1 gives weight_var = 1 / E[phi'^2]; with it, q = V(q) is one equation in q. Differentiable in bias_var.
    """
    lowest, highest = 1e-6, 25.0

    def residual(log_q, bias_var):
        q = jnp.exp(log_q)
        return q - _mean_square(activation.fn, q) / _mean_square(activation.derivative, q) - bias_var

    (bias_var,) = as_floats(bias_var)
    tolerance = _tolerance(bias_var)
    # flip=False: the residual rises. (To detect that would raise where there is no root, instead of NaN.)
    solver = optx.Bisection(rtol=tolerance, atol=tolerance, flip=False)
    bracket = {"lower": jnp.log(lowest), "upper": jnp.log(highest)}
    start = jnp.zeros_like(bias_var)
    root = optx.root_find(residual, solver, start, bias_var, options=bracket, max_steps=200, throw=False)
    q = jnp.exp(root.value)
    inside = (root.result == optx.RESULTS.successful) & (q > 1.001 * lowest) & (q < 0.999 * highest)
    return jnp.where(inside, 1 / _mean_square(activation.derivative, q), jnp.nan)


def _mean_square(fn, q: ScalarLike) -> Scalar:
    (q,) = as_floats(q)
    return gaussian_mean(lambda x: fn(x) ** 2, q)


def _tolerance(x: Scalar) -> float:
    """64 times the rounding of the dtype: about 1e-14 in float64, 1e-5 in float32."""
    return 64 * float(jnp.finfo(x.dtype).eps)
