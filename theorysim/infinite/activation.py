"""Activation functions, and the maps they induce on Gaussian covariances.

With (u, v) ~ N(0, [[q1, k], [k, q2]]), the dual of an activation phi is T = E[phi(u) phi(v)], and the dual of its
derivative is T' = E[phi'(u) phi'(v)] = dT/dk (Cho & Saul 2009; Daniely, Frostig & Singer, arXiv:1602.05897).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.checks import is_traced, require_nonnegative
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
    jumps_mean,
    jumps_of,
    kinked_mean,
)
from theorysim.typing import Scalar, ScalarLike, as_floats

Covariance = Float[Array, "..."]
CovarianceLike = Covariance | Float[np.ndarray, "..."] | float | int
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
    - `kinks`: where `fn` or its derivative jumps. Where `fn` itself jumps, T' is infinite between equal inputs.
    - `slopes`: (left, right), of a function that is linear on both sides of 0. It has its own formulas.
    - `costly`: the closed duals are sums of many terms; quadrature and tables are taken where they resolve `fn`.

    Parameters of `fn` may be traced where the duals are closed: kernels then have derivatives in them.

    **Raises:** `ValueError` where E phi(z)^2 is not finite for standard Gaussian z. Warns of kinks that are not named,
    which its Hermite series shows: quadrature across them errs by percents.
    """

    name: str
    fn: Callable[[Array], Array]
    closed_dual: Dual | None = None
    closed_dual_derivative: Dual | None = None
    kinks: tuple[float, ...] = ()
    slopes: tuple[ScalarLike, ScalarLike] | None = None
    costly: bool = False
    traced: bool = field(default=False, init=False, compare=False)

    def __post_init__(self):
        with jax.ensure_compile_time_eval():
            values = self.fn(jnp.asarray(NODES))
        if is_traced(values):
            object.__setattr__(self, "traced", True)
            return
        squares = np.asarray(values, float) ** 2 * WEIGHTS
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

    @property
    def tabulated(self) -> bool:
        """Whether quadrature and tables are the faster way to the duals."""
        return self.closed_dual is None or self.costly

    @cached_property
    def jumps(self) -> bool:
        """Whether phi itself jumps at one of its kinks."""
        return not self.traced and any(jumps_of(self.fn, self.kinks))

    def dual(self, q1: CovarianceLike, q2: CovarianceLike, k: CovarianceLike) -> Covariance:
        """T(q1, q2, k) = E[phi(u) phi(v)], elementwise over the broadcast arguments.

        Relative error below 1e-10 up to variances of 20, at correlations up to 1, and at any variance where the duals
        are closed. NaN where quadrature does not resolve phi.

        **Raises:** `ValueError` for a negative variance, for k^2 > q1 q2 by more than rounding, and for traced
        parameters of an activation without closed duals.
        """
        triple = _checked(q1, q2, k)
        return self.closed_dual(*triple) if self.closed_dual else self._by_quadrature(_mean, *triple)

    def dual_derivative(self, q1: CovarianceLike, q2: CovarianceLike, k: CovarianceLike) -> Covariance:
        """T'(q1, q2, k) = E[phi'(u) phi'(v)], elementwise over the broadcast arguments; as accurate.

        Of jumps, it holds the delta functions.

        **Raises:** as [`dual`]: `ValueError` for a negative variance, and for k^2 > q1 q2.
        """
        triple, closed = _checked(q1, q2, k), self.closed_dual_derivative
        return closed(*triple) if closed else self._by_quadrature(_slope_mean, *triple)

    def _by_quadrature(self, mean: Callable[..., Covariance], *covariances: Covariance) -> Covariance:
        refuse_traced(self)
        return mean(self, *covariances)

    def over_angles(self, q: Scalar, angles: Float[np.ndarray, " angles"]) -> "OverAngles":
        """The duals at one variance, over angles > 0 that are known beforehand: what tables are made of."""
        if not self.tabulated:
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


@partial(jax.jit, static_argnums=0)
def _mean(activation: Activation, q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
    return _mean_of(activation.fn, activation.kinks, q1, q2, k)


@partial(jax.jit, static_argnums=0)
def _slope_mean(activation: Activation, q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
    mean = _mean_of(activation.derivative, activation.kinks, q1, q2, k)
    if not activation.jumps:
        return mean
    flat = _flat(q1, q2, k)
    jumps = jax.lax.map(lambda args: jumps_mean(activation.fn, activation.fn, activation.kinks, *args), flat)
    return mean + jumps.reshape(mean.shape) / jnp.sin(flat[2]).reshape(mean.shape)


def _mean_of(fn: Callable[[Array], Array], kinks: tuple[float, ...], q1, q2, k) -> Covariance:
    shape = jnp.broadcast_shapes(q1.shape, q2.shape, k.shape)
    if kinks:
        return jax.lax.map(lambda args: kinked_mean(fn, fn, kinks, *args), _flat(q1, q2, k)).reshape(shape)

    def coefficients(variances):
        first, second = (angular_spectrum(fn, q) for q in variances)
        return (first * second).sum(0)

    pairs = jnp.broadcast_arrays(q1, q2)
    flat = jax.lax.map(coefficients, tuple(q.ravel() for q in pairs), batch_size=16)
    return chebyshev_sum(flat.T.reshape(-1, *pairs[0].shape), 1 - deficit_of(q1, q2, k))


def _flat(q1: Covariance, q2: Covariance, k: Covariance) -> tuple[Array, Array, Array]:
    """The variances and angles of all pairs."""
    q1, q2, a = jnp.broadcast_arrays(q1, q2, angle(deficit_of(q1, q2, k)))
    return q1.ravel(), q2.ravel(), a.ravel()


def as_activation(
    activation: Activation | Callable[[Array], Array], *, traceable: bool = False, continuous: bool = False
) -> Activation:
    """An activation as it is, or a bare elementwise function as one without kinks or closed duals.

    **Raises:** `ValueError` for one with traced parameters unless `traceable`, and with jumps if `continuous`.
    """
    if not isinstance(activation, Activation):
        activation = Activation(getattr(activation, "__name__", repr(activation)), activation)
    if not traceable:
        refuse_traced(activation)
    if continuous and activation.jumps:
        raise ValueError(
            f"activation {activation.name!r} jumps at one of its kinks, {activation.kinks}: E phi'^2 is infinite; give "
            "a continuous activation, or take `fully_connected`, whose kernels between different inputs are finite"
        )
    return activation


def refuse_traced(activation: Activation) -> None:
    """Where tables and programs are cached per activation, its parameters must be numbers.

    **Raises:** `ValueError` for traced ones.
    """
    if activation.traced:
        raise ValueError(
            f"activation {activation.name!r} has traced parameters, which only closed duals and the kernels of "
            "`fully_connected` made of them take: give numbers here, and loop over them"
        )


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


def _checked(q1: CovarianceLike, q2: CovarianceLike, k: CovarianceLike) -> tuple[Covariance, Covariance, Covariance]:
    require_nonnegative(q1=q1, q2=q2)
    if not any(map(is_traced, (q1, q2, k))):
        product = np.asarray(q1) * np.asarray(q2)
        if (np.asarray(k) ** 2 > product * (1 + 1e-6)).any():
            raise ValueError(f"k={k} is no covariance of variances q1={q1} and q2={q2}: give k^2 <= q1 q2")
    q1, q2, k = as_floats(q1, q2, k)
    return q1, q2, k


def deficit_of(q1: Covariance, q2: Covariance, k: Covariance) -> Covariance:
    """1 - k / sqrt(q1 q2): exact where q1 = q2, since then the root is, and 1 where a variance is 0."""
    product = q1 * q2
    root = jnp.sqrt(jnp.where(product > 0, product, 1.0))
    return clipped(jnp.where(product > 0, (root - k) / root, 1.0))


def clipped(deficit: Covariance) -> Covariance:
    """Into [0, 2]. Unlike that of `jnp.clip`, its derivative at 0, where inputs are equal, is 1."""
    return jnp.where(deficit < 0, 0.0, jnp.where(deficit > 2, 2.0, deficit))


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
