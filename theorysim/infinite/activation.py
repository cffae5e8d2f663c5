"""Activation functions, and the maps they induce on Gaussian covariances.

With (u, v) ~ N(0, [[q1, k], [k, q2]]), the dual of an activation phi is T = E[phi(u) phi(v)], and the dual of its
derivative is T' = E[phi'(u) phi'(v)] = dT/dk (Cho & Saul 2009; Daniely, Frostig & Singer, arXiv:1602.05897).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array, Float

from theorysim.checks import is_traced, require_count, require_nonnegative
from theorysim.quadrature import (
    HARMONICS,
    LEGENDRE,
    NODES,
    WEIGHTS,
    angular_spectrum,
    chebyshev,
    chebyshev_sum,
    derivative,
    gaussian_mean,
    hermite_tails,
    kinked_mean,
)
from theorysim.typing import Scalar, as_floats

Covariance = Float[Array, "..."]
Dual = Callable[[Covariance, Covariance, Covariance], Covariance]
TURNS = 64  # angles at which a dual with kinks is integrated
KINK_DEGREES = (128, 256)  # of Hermite polynomials, beyond which little of an analytic function is left;
KINK_RATIO = 2**-3.75  # where a third derivative jumps, 2^-3.5 of what is left at 128 is left at 256


@dataclass(frozen=True)
class Activation:
    """A scalar function with its dual maps: in closed form where there is one, else by quadrature.

    ```python
    softsign = Activation("softsign", lambda x: x / (1 + jnp.abs(x)), kinks=(0.0,))
    ```

    **Arguments:**

    - `name`: for tables and figures.
    - `fn`: elementwise, analytic but at its kinks.
    - `closed_dual`, `closed_dual_derivative`: T(q1, q2, k) and T'(q1, q2, k), elementwise, where they are known.
    - `kinks`: where `fn` or its derivative jumps.
    - `slopes`: (left, right), of a function that is linear on both sides of 0. It has its own formulas.

    **Raises:** `ValueError` where E phi(z)^2 is not finite for standard Gaussian z. Warns of kinks that are not named,
    which its Hermite series shows: quadrature across them errs by percents.
    """

    name: str
    fn: Callable[[Array], Array]
    closed_dual: Dual | None = None
    closed_dual_derivative: Dual | None = None
    kinks: tuple[float, ...] = ()
    slopes: tuple[float, float] | None = None

    def __post_init__(self):
        with jax.ensure_compile_time_eval():
            squares = np.asarray(self.fn(jnp.asarray(NODES)), float) ** 2 * WEIGHTS
        if not (np.isfinite(squares).all() and squares[[0, -1]].max() <= 1e-6 * squares.sum()):
            raise ValueError(
                f"activation {self.name!r} has no finite second moment under a standard Gaussian: "
                "give a function that grows more slowly than exp(x^2 / 4)"
            )
        if self.closed_dual is None and not self.kinks:
            _warn_of_unnamed_kinks(self.name, self.fn)

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """phi(x), elementwise."""
        return self.fn(x)

    def derivative(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """phi'(x), elementwise."""
        return derivative(self.fn)(x)

    def dual(self, q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
        """T(q1, q2, k) = E[phi(u) phi(v)], elementwise over the broadcast arguments.

        Relative error below 1e-10 up to variances of 20, at correlations up to 1.

        **Raises:** `ValueError` for a negative variance, and for k^2 > q1 q2 by more than rounding.
        """
        _check(q1, q2, k)
        return self.closed_dual(q1, q2, k) if self.closed_dual else self._mean(self.fn, q1, q2, k)

    def dual_derivative(self, q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
        """T'(q1, q2, k) = E[phi'(u) phi'(v)], elementwise over the broadcast arguments; as accurate.

        **Raises:** as [`dual`]: `ValueError` for a negative variance, and for k^2 > q1 q2.
        """
        _check(q1, q2, k)
        closed = self.closed_dual_derivative
        return closed(q1, q2, k) if closed else self._mean(self.derivative, q1, q2, k)

    def over_angles(self, q: Scalar, angles: Float[np.ndarray, " angles"]) -> "OverAngles":
        """The duals at one variance, over angles > 0 that are known beforehand: what tables are made of."""
        if self.closed_dual is not None:
            k = q * jnp.asarray(np.cos(angles), q.dtype)
            mean_square = self.dual(q, q, q)
            return OverAngles(mean_square, mean_square - self.dual(q, q, k), self.dual_derivative(q, q, k))
        if self.kinks:
            # T' is smooth in the angle, and q T' sin(angle) the derivative of what is lost.
            nodes, transform = chebyshev(TURNS)
            at_nodes = self.dual_derivative(q, q, q * jnp.asarray(np.cos(np.pi / 2 * (1 + nodes)), q.dtype))

            def read(angles):
                return np.polynomial.chebyshev.chebvander(2 / np.pi * angles - 1, TURNS - 1) @ transform

            points, weights = LEGENDRE
            inside = np.outer(angles, (1 + points) / 2)
            rule = np.outer(angles, weights / 2) * np.sin(inside)
            integral = np.einsum("ag,agn->an", rule, read(inside))
            lost = q * jnp.asarray(integral, q.dtype) @ at_nodes
            mean_square = gaussian_mean(lambda x: self.fn(x) ** 2, q, self.kinks)
            return OverAngles(mean_square, lost, jnp.asarray(read(angles), q.dtype) @ at_nodes)
        power, slope_power = (jnp.square(angular_spectrum(fn, q)).sum(0) for fn in (self.fn, self.derivative))
        waves = np.outer(angles, np.arange(HARMONICS + 1))
        lost = jnp.asarray(2 * np.sin(waves / 2) ** 2, q.dtype) @ power
        return OverAngles(power.sum(), lost, jnp.asarray(np.cos(waves), q.dtype) @ slope_power)

    @partial(jax.jit, static_argnums=(0, 1))
    def _mean(self, fn: Callable[[Array], Array], q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
        q1, q2, k = as_floats(q1, q2, k)
        if self.kinks:
            flat = jnp.broadcast_arrays(q1, q2, angle(deficit_of(q1, q2, k)))
            means = jax.lax.map(lambda args: kinked_mean(fn, fn, self.kinks, *args), tuple(a.ravel() for a in flat))
            return means.reshape(flat[0].shape)

        def coefficients(variances):
            first, second = (angular_spectrum(fn, q) for q in variances)
            return (first * second).sum(0)

        pairs = jnp.broadcast_arrays(q1, q2)
        flat = jax.lax.map(coefficients, tuple(q.ravel() for q in pairs), batch_size=16)
        return chebyshev_sum(flat.T.reshape(-1, *pairs[0].shape), 1 - deficit_of(q1, q2, k))


def as_activation(activation: Activation | Callable[[Array], Array]) -> Activation:
    """An activation as it is, or a bare elementwise function as one without kinks or closed duals."""
    if isinstance(activation, Activation):
        return activation
    return Activation(getattr(activation, "__name__", repr(activation)), activation)


def _warn_of_unnamed_kinks(name: str, fn: Callable[[Array], Array]) -> None:
    low, high = hermite_tails(fn, KINK_DEGREES)
    if high > 1e-10 and high > KINK_RATIO * low:
        warnings.warn(
            f"activation {name!r} has kinks, or is steeper than quadrature resolves: {high:.1e} of its mean square "
            f"lies beyond its first {KINK_DEGREES[1]} Hermite polynomials; name them, as in "
            f"Activation({name!r}, fn, kinks=(0.0,))",
            stacklevel=4,
        )


class OverAngles(NamedTuple):
    """E phi^2, the loss T(q, q, q) - T(q, q, q cos(angle)), and T', over angles.

    From a closed dual the loss is a difference, which has lost digits at small angles; otherwise it has all.
    """

    mean_square: Scalar
    lost: Float[Array, " angles"]
    slope: Float[Array, " angles"]


def _check(q1: Covariance, q2: Covariance, k: Covariance) -> None:
    require_nonnegative(q1=q1, q2=q2)
    if not any(map(is_traced, (q1, q2, k))):
        product = np.asarray(q1) * np.asarray(q2)
        if (np.asarray(k) ** 2 > product * (1 + 1e-6)).any():
            raise ValueError(f"k={k} is no covariance of variances q1={q1} and q2={q2}: give k^2 <= q1 q2")


def deficit_of(q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
    """1 - k / sqrt(q1 q2): exact where q1 = q2, and 1 where a variance is 0."""
    product = q1 * q2
    safe = jnp.where(product > 0, product, 1.0)
    same = jnp.where(q1 > 0, q1, 1.0)
    deficit = jnp.where(q1 == q2, (same - k) / same, 1 - k / jnp.sqrt(safe))
    return jnp.clip(jnp.where(product > 0, deficit, 1.0), 0.0, 2.0)


# arcsin(sqrt(t)) / sqrt(t) on [0, 1/2], Chebyshev interpolation in 50 digits; error 2e-16.
_ARCSINE = (
    0.9999999999999999, 0.166666666666762, 0.07499999997954958, 0.04464285887635292, 0.03038186720347429,
    0.022374245713577247, 0.01731559954431618, 0.014425198539078435, 0.007444628520337835, 0.03675841815436629,
    -0.12408231204352452, 0.4950065878219168, -1.3361380175788322, 2.733327968715509, -3.974232006625551,
    3.9651660247789384, -2.4213345116985456, 0.7052735073244606,
)  # fmt: skip


def angle(deficit: Covariance) -> Covariance:
    """The angle, arccos(1 - deficit), for a deficit in [0, 2]; all digits near 0, its derivative at 0 and 2 set to 0.

    A polynomial: `jnp.arccos` would take most of a kernel's time.
    """
    t = jnp.minimum(deficit, 2 - deficit) / 2
    inside = t > 0
    safe = jnp.where(inside, t, 0.25)
    series = jnp.full_like(safe, _ARCSINE[-1])
    for coefficient in _ARCSINE[-2::-1]:
        series = series * safe + coefficient
    below = jnp.where(inside, 2 * jnp.sqrt(safe) * series, 0.0)
    return jnp.where(deficit <= 1, below, np.pi - below)


def sine(deficit: Covariance) -> Covariance:
    """The sine of the angle; its derivative at a deficit of 0 and 2 is set to 0."""
    square = deficit * (2 - deficit)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def piecewise_linear(left: float, right: float, name: str | None = None) -> Activation:
    """phi(x) = left x for x < 0, right x for x > 0: relu is (0, 1), leaky relu (0.01, 1), the modulus (-1, 1).

    T = (right - left)^2 sqrt(q1 q2) (sin a + (pi - a) cos a) / 2 pi + left right k, with cos a = k / sqrt(q1 q2)
    (Cho & Saul 2009, of degree 1).
    """

    def dual(q1, q2, k):
        q1, q2, k = as_floats(q1, q2, k)
        deficit = deficit_of(q1, q2, k)
        a = angle(deficit)
        # Near a = pi the two terms cancel: with b = pi - a they are sin b - b cos b.
        b = np.pi - a
        rectified = jnp.where(b > 0.1, sine(deficit) + b * (1 - deficit), b**3 / 3 * (1 - b**2 / 10 * (1 - b**2 / 28)))
        return (right - left) ** 2 * jnp.sqrt(q1 * q2) * rectified / (2 * np.pi) + left * right * k

    def dual_derivative(q1, q2, k):
        return (right - left) ** 2 * (np.pi - angle(deficit_of(*as_floats(q1, q2, k)))) / (2 * np.pi) + left * right

    def fn(x):
        return jnp.where(x > 0, right * x, left * x)

    name = name or f"piecewise_linear({left:g}, {right:g})"
    return Activation(name, fn, dual, dual_derivative, kinks=(0.0,), slopes=(left, right))


def leaky_relu(slope: float = 0.01) -> Activation:
    """phi(x) = x for x > 0, slope x below."""
    return piecewise_linear(slope, 1.0, f"leaky_relu({slope:g})")


def sinusoid(frequency: float = 1.0, phase: float = 0.0, amplitude: float = 1.0, name: str | None = None) -> Activation:
    """phi(x) = amplitude sin(frequency x + phase)."""

    def waves(q1, q2, k):
        even = jnp.exp(-(frequency**2) * (q1 + q2 - 2 * k) / 2)
        odd = jnp.exp(-(frequency**2) * (q1 + q2 + 2 * k) / 2) * math.cos(2 * phase)
        return even, odd

    def dual(q1, q2, k):
        even, odd = waves(q1, q2, k)
        # Near k = 0 the two cancel for a sine: their difference is a hyperbolic one.
        if math.cos(2 * phase) == 1:
            return amplitude**2 * jnp.exp(-(frequency**2) * (q1 + q2) / 2) * jnp.sinh(frequency**2 * k)
        return amplitude**2 * (even - odd) / 2

    def dual_derivative(q1, q2, k):
        even, odd = waves(q1, q2, k)
        return (amplitude * frequency) ** 2 * (even + odd) / 2

    def fn(x):
        return amplitude * jnp.sin(frequency * x + phase)

    return Activation(name or f"sin({frequency:g} x + {phase:g})", fn, dual, dual_derivative)


def rbf(gamma: float = 1.0) -> Activation:
    """phi(x) = sqrt(2) sin(sqrt(2 gamma) x + pi / 4), whose dual is exp(-gamma (q1 + q2 - 2 k))."""
    return sinusoid(math.sqrt(2 * gamma), math.pi / 4, math.sqrt(2), f"rbf({gamma:g})")


def exponential(rate: float = 1.0) -> Activation:
    """phi(x) = exp(rate x)."""

    def dual(q1, q2, k):
        return jnp.exp(rate**2 * ((q1 + q2) / 2 + k))

    return Activation(f"exp({rate:g} x)", lambda x: jnp.exp(rate * x), dual, lambda *q: rate**2 * dual(*q))


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


def _erf_dual(q1, q2, k):
    return 2 / jnp.pi * jnp.arcsin(2 * k / jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2)))


def _erf_dual_derivative(q1, q2, k):
    return 4 / jnp.pi / jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2) - 4 * k**2)


def _gelu_terms(q1, q2, k):
    both = (1 + q1) * (1 + q2)
    root = jnp.sqrt(both - k**2)
    return both, root, k / 4 + k * jnp.arctan(k / root) / (2 * np.pi)


def _gelu_dual(q1, q2, k):
    both, root, linear = _gelu_terms(q1, q2, k)
    return linear + (k**2 + q1 * q2 * root**2) / (both * root) / (2 * np.pi)


def _gelu_dual_derivative(q1, q2, k):
    both, root, _ = _gelu_terms(q1, q2, k)
    smooth = k / root * (1 / root**2 + (1 - q1 * q2) / both + 1)
    return 0.25 + (jnp.arctan(k / root) + smooth) / (2 * np.pi)


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

tanh = Activation("tanh", jnp.tanh)
"""The hyperbolic tangent; no closed form is known."""

silu = Activation("silu", jax.nn.silu)
"""x / (1 + exp(-x)), swish; no closed form is known."""

softplus = Activation("softplus", jax.nn.softplus)
"""log(1 + exp(x)); no closed form is known."""

mish = Activation("mish", _mish)
"""x tanh(log(1 + exp(x))); no closed form is known."""
