"""Activation functions by name, with the duals that are known in closed form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special

from theorysim.checks import is_traced, require_count
from theorysim.infinite import logistic
from theorysim.infinite.activation import Activation, Covariance, angle, deficit_of, sine
from theorysim.typing import ScalarLike, as_floats


def _named(function: str, *parameters: ScalarLike) -> str:
    return function if any(map(is_traced, parameters)) else f"{function}({', '.join(f'{p:g}' for p in parameters)})"


def piecewise_linear(left: ScalarLike, right: ScalarLike, name: str | None = None) -> Activation:
    """phi(x) = left x for x < 0, right x for x > 0: relu is (0, 1), leaky relu (0.01, 1), the modulus (-1, 1).

    T = (right - left)^2 sqrt(q1 q2) (sin a + (pi - a) cos a) / 2 pi + left right k, with cos a = k / sqrt(q1 q2)
    (Cho & Saul 2009, of degree 1).
    """

    def dual(q1, q2, k):
        low, high, q1, q2, k = as_floats(left, right, q1, q2, k)
        deficit = deficit_of(q1, q2, k)
        a = angle(deficit)
        # Near a = pi the two terms cancel: with b = pi - a they are sin b - b cos b.
        b = np.pi - a
        rectified = jnp.where(b > 0.1, sine(deficit) + b * (1 - deficit), b**3 / 3 * (1 - b**2 / 10 * (1 - b**2 / 28)))
        return (high - low) ** 2 * jnp.sqrt(q1 * q2) * rectified / (2 * np.pi) + low * high * k

    def dual_derivative(q1, q2, k):
        low, high, q1, q2, k = as_floats(left, right, q1, q2, k)
        return (high - low) ** 2 * (np.pi - angle(deficit_of(q1, q2, k))) / (2 * np.pi) + low * high

    def fn(x):
        return jnp.where(x > 0, right * x, left * x)

    name = name or _named("piecewise_linear", left, right)
    linear = not is_traced(left) and not is_traced(right) and left == right
    return Activation(name, fn, dual, dual_derivative, kinks=() if linear else (0.0,), slopes=(left, right))


def leaky_relu(slope: ScalarLike = 0.01) -> Activation:
    """phi(x) = x for x > 0, slope x below."""
    return piecewise_linear(slope, 1.0, _named("leaky_relu", slope))


def sinusoid(
    frequency: ScalarLike = 1.0, phase: ScalarLike = 0.0, amplitude: ScalarLike = 1.0, name: str | None = None
) -> Activation:
    """phi(x) = amplitude sin(frequency x + phase)."""
    sine = not is_traced(phase) and math.cos(2 * phase) == 1

    def waves(q1, q2, k):
        square, q1, q2, k = as_floats(jnp.square(frequency), q1, q2, k)
        even = jnp.exp(-square * (q1 + q2 - 2 * k) / 2)
        odd = jnp.exp(-square * (q1 + q2 + 2 * k) / 2) * jnp.cos(jnp.asarray(2 * phase, k.dtype))
        return even, odd

    def dual(q1, q2, k):
        even, odd = waves(q1, q2, k)
        scale = jnp.asarray(amplitude, even.dtype) ** 2
        if sine:  # near k = 0 the two cancel: their difference is a hyperbolic sine
            square, q1, q2, k = as_floats(jnp.square(frequency), q1, q2, k)
            return scale * jnp.where(
                square * jnp.abs(k) < 1, jnp.exp(-square * (q1 + q2) / 2) * jnp.sinh(square * k), (even - odd) / 2
            )
        return scale * (even - odd) / 2

    def dual_derivative(q1, q2, k):
        even, odd = waves(q1, q2, k)
        return jnp.asarray(amplitude * frequency, even.dtype) ** 2 * (even + odd) / 2

    def fn(x):
        return amplitude * jnp.sin(frequency * x + phase)

    return Activation(name or _named("sin", frequency, phase), fn, dual, dual_derivative)


def rbf(gamma: ScalarLike = 1.0) -> Activation:
    """phi(x) = sqrt(2) sin(sqrt(2 gamma) x + pi / 4), whose dual is exp(-gamma (q1 + q2 - 2 k))."""
    root = jnp.sqrt(2 * gamma) if is_traced(gamma) else math.sqrt(2 * gamma)
    return sinusoid(root, math.pi / 4, math.sqrt(2), _named("rbf", gamma))


def exponential(rate: ScalarLike = 1.0) -> Activation:
    """phi(x) = exp(rate x)."""

    def dual(q1, q2, k):
        square, q1, q2, k = as_floats(jnp.square(rate), q1, q2, k)
        return jnp.exp(square * ((q1 + q2) / 2 + k))

    def dual_derivative(q1, q2, k):
        return jnp.asarray(jnp.square(rate), k.dtype) * dual(q1, q2, k)

    return Activation(_named("exponential", rate), lambda x: jnp.exp(rate * x), dual, dual_derivative)


def hermite(degree: int) -> Activation:
    """The Hermite polynomial of a degree, orthonormal under the standard Gaussian; T = rho^degree at q1 = q2 = 1.

    At a variance q it is a sum over the polynomials of degree - 2 i, with the coefficients
    sqrt(degree!) sqrt(q)^(degree - 2 i) (q - 1)^i / (2^i i! sqrt((degree - 2 i)!)).

    **Raises:** `ValueError` for a degree that is no whole number >= 0.
    """
    require_count(least=0, degree=degree)

    def terms(q: Covariance):
        for i in range(degree // 2 + 1):
            rest = degree - 2 * i
            log = (math.lgamma(degree + 1) - math.lgamma(rest + 1)) / 2 - i * math.log(2) - math.lgamma(i + 1)
            yield rest, math.exp(log) * (q - 1) ** i

    # The factors sqrt(q)^rest of the coefficients make k^rest of rho^rest.
    def dual(q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
        pairs = zip(terms(q1), terms(q2), strict=True)
        return sum((first * second * k**rest for (rest, first), (_, second) in pairs), 0.0 * k)

    def dual_derivative(q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
        pairs = zip(terms(q1), terms(q2), strict=True)
        return sum((rest * first * second * k ** max(rest - 1, 0) for (rest, first), (_, second) in pairs), 0.0 * k)

    def fn(x):
        below, value = jnp.zeros_like(x), jnp.ones_like(x)
        for j in range(degree):
            below, value = value, (x * value - math.sqrt(j) * below) / math.sqrt(j + 1)
        return value

    return Activation(f"hermite({degree})", fn, dual, dual_derivative)


def _difference(q1, q2, k):
    """q1 q2 - k^2: 0, where it is 0."""
    return q1 * q2 - k * k


def _erf_dual(q1, q2, k):
    return 2 / jnp.pi * jnp.arctan2(2 * k, jnp.sqrt(1 + 2 * (q1 + q2) + 4 * _difference(q1, q2, k)))


def _erf_dual_derivative(q1, q2, k):
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * (q1 + q2) + 4 * _difference(q1, q2, k))


def _gelu_terms(q1, q2, k):
    both = (1 + q1) * (1 + q2)
    root = jnp.sqrt(1 + q1 + q2 + _difference(q1, q2, k))
    return both, root, k / 4 + k * jnp.arctan(k / root) / (2 * np.pi)


def _gelu_dual(q1, q2, k):
    both, root, linear = _gelu_terms(q1, q2, k)
    return linear + (k**2 + q1 * q2 * root**2) / (both * root) / (2 * np.pi)


def _gelu_dual_derivative(q1, q2, k):
    both, root, _ = _gelu_terms(q1, q2, k)
    smooth = k / root * (1 / root**2 + (1 - q1 * q2) / both + 1)
    return 0.25 + (jnp.arctan(k / root) + smooth) / (2 * np.pi)


def _sign_dual(q1, q2, k):
    return 2 / jnp.pi * jnp.arctan2(k, jnp.sqrt(_difference(q1, q2, k)))


def _sign_dual_derivative(q1, q2, k):
    return 2 / jnp.pi / jnp.sqrt(_difference(q1, q2, k))


def _mish(x):
    return x * jnp.tanh(jax.nn.softplus(x))


relu = piecewise_linear(0.0, 1.0, "relu")
"""max(x, 0); the arc-cosine kernels of Cho & Saul (2009)."""

identity = piecewise_linear(1.0, 1.0, "identity")
"""x: deep linear networks."""

erf = Activation("erf", special.erf, _erf_dual, _erf_dual_derivative)
"""The error function; closed forms of Williams (1997)."""

gelu = Activation("gelu", lambda x: x * special.ndtr(x), _gelu_dual, _gelu_dual_derivative)
"""x times the Gaussian distribution function, not its tanh approximation; closed forms of Tsuchida et al. (2021)."""

sin = sinusoid(name="sin")
"""The sine."""

cos = sinusoid(phase=math.pi / 2, name="cos")
"""The cosine."""

tanh = Activation("tanh", jnp.tanh, *logistic.duals(_sign_dual, _sign_dual_derivative, 1.0), costly=True)
"""The hyperbolic tangent; duals as sums ([`theorysim.infinite.logistic`])."""

softplus = Activation("softplus", jax.nn.softplus, *logistic.duals(relu.dual, relu.dual_derivative, 2.0), costly=True)
"""log(1 + exp(x)); duals as sums ([`theorysim.infinite.logistic`])."""

silu = Activation("silu", jax.nn.silu, *logistic.scaled_duals(_gelu_dual, _gelu_dual_derivative, 2.0), costly=True)
"""x / (1 + exp(-x)), swish; duals as sums ([`theorysim.infinite.logistic`])."""

mish = Activation("mish", _mish)
"""x tanh(log(1 + exp(x))); no closed form is known."""
