"""Order and chaos: how the variance and the correlation of two inputs travel through a deep random network.

Weights have variance weight_var / fan_in, biases bias_var. A layer maps the variance q of its preactivations and
the correlation c of two inputs to

    V(q) = weight_var E[phi(sqrt(q) z)^2] + bias_var,
    C(c) = (weight_var E[phi(u) phi(v)] + bias_var) / q      at the fixed point q = V(q).

The slope chi = C'(1) decides: in the ordered phase (chi < 1) all inputs become alike, in the chaotic phase (chi > 1)
they part to a correlation c* < 1. (Poole et al., arXiv:1606.05340; Schoenholz et al., arXiv:1611.01232.)

All functions broadcast over their numbers; an activation is to be continuous, or chi is infinite.
"""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from theorysim.checks import require_correlation, require_nonnegative
from theorysim.infinite.activation import Activation, Dual, angle, as_activation
from theorysim.quadrature import chebyshev, chebyshev_sum, gaussian_mean
from theorysim.root import root
from theorysim.typing import Scalar, ScalarLike, as_floats

LARGEST = 40.0  # variance that is tabulated
MEANS_OF_PHI = ("variance_map", "fixed_point")  # which an activation with jumps has, too
P = ParamSpec("P")
ANGLES, VARIANCES = 48, 80  # Chebyshev polynomials along the two


def _checked(fn: Callable[P, Array]) -> Callable[P, Array]:
    """Refuse numbers out of range while they are still numbers; broadcast; jit, for eager calls to be traced once."""
    signature = inspect.signature(fn)
    scalar: Callable[..., Array] = fn

    @partial(jax.jit, static_argnums=0)
    def broadcast(activation: Activation, numbers: dict[str, Array]) -> Array:
        def at(*values):
            return scalar(activation, **dict(zip(numbers, values, strict=True)))

        shape = np.broadcast_shapes(*(number.shape for number in numbers.values()))
        return jnp.vectorize(at)(*(jnp.broadcast_to(number, shape) for number in numbers.values()))

    @wraps(fn)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Array:
        given = dict(signature.bind(*args, **kwargs).arguments)
        activation = as_activation(given.pop("activation"), continuous=fn.__name__ not in MEANS_OF_PHI)
        require_nonnegative(**{name: given[name] for name in ("q", "weight_var", "bias_var") if name in given})
        require_correlation(**{name: given[name] for name in ("c",) if name in given})
        return broadcast(activation, dict(zip(given, as_floats(*given.values()), strict=True)))

    return checked


@_checked
def variance_map(activation: Activation, q: ScalarLike, *, weight_var: ScalarLike, bias_var: ScalarLike) -> Scalar:
    """V(q): the variance of the next layer's preactivations (arXiv:1606.05340, eq. 3).

    From a closed dual at any q; of others, and of tanh, softplus and silu, by quadrature, to 1e-8, and NaN where its
    nodes do not resolve phi(sqrt(q) z): for tanh from about q = 100 on.

    **Raises:** `ValueError` for a negative variance.
    """
    return weight_var * _mean_square(activation, q) + bias_var


@_checked
def fixed_point(activation: Activation, *, weight_var: ScalarLike, bias_var: ScalarLike) -> Scalar:
    """q* = V(q*), the smallest variance that deep layers settle at; NaN where there is none up to 40.

    V crosses the diagonal downwards there; NaN, too, where every variance is fixed, as of relu at weight_var = 2
    without biases. From a table of V, shared by all points of a grid: for tanh and erf, error below 1e-13.
    Differentiable in both variances, by the implicit function theorem.

    **Raises:** `ValueError` for a negative variance.
    """
    weight_var, bias_var = as_floats(weight_var, bias_var)
    if activation.slopes is not None:
        gain = weight_var * _mean_square_slope(activation, weight_var)
        found = bias_var / jnp.where(gain < 1, 1 - gain, 1.0)
        return jnp.where((gain < 1) & (found <= LARGEST), found, jnp.nan)
    mean_squares = _mean_squares(activation, weight_var.dtype)

    def excess(q: Array) -> Array:
        return q - weight_var * _at(mean_squares, jnp.maximum(q, 0.0)) - bias_var

    grid = jnp.asarray(_unstretch(np.linspace(0, 1, 128)), weight_var.dtype)
    rising = jax.vmap(excess)(grid).at[0].set(0.0)  # V(0) >= 0, to rounding
    low, high, crosses = _first_crossing(grid, rising > 1e3 * jnp.finfo(grid.dtype).eps * grid)
    return jnp.where(crosses, jnp.maximum(root(excess, low, high), 0.0), jnp.nan)


@_checked
def chi(activation: Activation, q: ScalarLike, *, weight_var: ScalarLike) -> Scalar:
    """chi = weight_var E[phi'(sqrt(q) z)^2]: above 1 in the chaotic phase (arXiv:1606.05340, eq. 6).

    Also the factor by which a layer multiplies the mean square of a gradient (arXiv:1611.01232, section 4). By
    quadrature where it has no closed dual, as [`variance_map`].

    **Raises:** `ValueError` for a negative variance.
    """
    return weight_var * _mean_square_slope(activation, q)


@_checked
def correlation_map(
    activation: Activation, c: ScalarLike, q: ScalarLike, *, weight_var: ScalarLike, bias_var: ScalarLike
) -> Scalar:
    """C(c): the correlation in the next layer, where the variance has settled at q > 0 (arXiv:1606.05340).

    V(q) / q - (1 - c) weight_var gap(c), with the gap from the table of [`fixed_correlation`].

    **Raises:** `ValueError` for a negative variance, and a correlation outside of [-1, 1].
    """
    c, q, weight_var, bias_var = as_floats(c, q, weight_var, bias_var)
    gap = _in_angle(_table(activation, q.dtype).gap, q)
    same = (weight_var * _at(_mean_squares(activation, q.dtype), q) + bias_var) / q
    return same - (1 - c) * weight_var * _at_angle(gap, angle(1 - c))


@_checked
def fixed_correlation(activation: Activation, q: ScalarLike, *, weight_var: ScalarLike) -> Scalar:
    """c* = C(c*), the correlation that two inputs settle at: 1 in the ordered phase, below 1 in the chaotic.

    C(c) = 1 is always a root at c = 1. It is divided out: with gap = (T(1) - T(c)) / (q (1 - c)), the other root is
    that of weight_var gap = 1, and gap falls with the angle, from E phi'^2 at 0. It comes from a table over the angle
    and q, shared by all points of a grid: for tanh, error below 1e-12 up to q = 8 and 1e-9 up to 40; 1e-6 with kinks
    away from 0, where the table takes a second. NaN beyond 40.

    **Raises:** `ValueError` for a negative variance.
    """
    q, weight_var = as_floats(q, weight_var)
    gap = _in_angle(_table(activation, q.dtype).gap, jnp.where(q > 0, q, 1.0))
    chaotic = (q > 0) & (weight_var * _at_angle(gap, jnp.zeros_like(q)) > 1)
    # In the ordered phase there is no such root. One at pi / 4 in its place keeps NaN out of derivatives.
    weight_var = jnp.where(chaotic, weight_var, 1 / _at_angle(gap, jnp.full_like(q, np.pi / 4)))
    # c* >= 0, since C(0) is.
    angle_found = root(lambda a: 1 - weight_var * _at_angle(gap, a), jnp.zeros_like(q), jnp.full_like(q, 0.51 * np.pi))
    return jnp.where(q <= LARGEST, jnp.where(chaotic, jnp.cos(angle_found), 1.0), jnp.nan)


@_checked
def correlation_length(activation: Activation, q: ScalarLike, c: ScalarLike, *, weight_var: ScalarLike) -> Scalar:
    """xi = -1 / log C'(c*), in layers: how deep a difference of inputs is still seen (arXiv:1611.01232, eq. 9).

    Infinite on the critical line, and rising to it from both sides.

    **Raises:** `ValueError` for a negative variance, and a correlation outside of [-1, 1].
    """
    q, c, weight_var = as_floats(q, c, weight_var)
    slope = _in_angle(_table(activation, q.dtype).slope, q)
    return _length(weight_var * _at_angle(slope, angle(jnp.clip(1 - c, 0.0, 2.0))))


@_checked
def variance_length(activation: Activation, q: ScalarLike, *, weight_var: ScalarLike) -> Scalar:
    """-1 / log V'(q*), in layers: how fast a variance settles (arXiv:1611.01232, eq. 7).

    V' = weight_var E[phi'^2 + phi phi'']. Shorter than the correlation length, but in linear networks.

    **Raises:** `ValueError` for a negative variance.
    """
    q, weight_var = as_floats(q, weight_var)
    return _length(jax.grad(lambda q: variance_map(activation, q, weight_var=weight_var, bias_var=0.0))(q))


@_checked
def gradient_length(activation: Activation, q: ScalarLike, *, weight_var: ScalarLike) -> Scalar:
    """1 / |log chi|, in layers: gradients vanish over it in order, and explode in chaos (arXiv:1611.01232).

    **Raises:** `ValueError` for a negative variance.
    """
    return 1 / jnp.abs(jnp.log(chi(activation, q, weight_var=weight_var)))


@_checked
def trainable_depth(activation: Activation, q: ScalarLike, c: ScalarLike, *, weight_var: ScalarLike) -> Scalar:
    """6 xi: about the deepest network that trains, where signals reach (arXiv:1611.01232, section 5).

    **Raises:** `ValueError` for a negative variance, and a correlation outside of [-1, 1].
    """
    return 6 * correlation_length(activation, q, c, weight_var=weight_var)


@_checked
def critical_weight_var(activation: Activation, *, bias_var: ScalarLike) -> Scalar:
    """The weight_var at which chi = 1 for a given bias_var > 0; NaN where there is none up to q* = 25.

    chi = 1 gives weight_var = 1 / E[phi'^2]; with it, q = V(q) is one equation in q, of which the smallest solution is
    taken. Differentiable in bias_var.

    **Raises:** `ValueError` for a negative variance.
    """
    (bias_var,) = as_floats(bias_var)

    def excess(log_q: Array) -> Array:
        q = jnp.exp(log_q)
        ratio = _mean_square(activation, q) / _mean_square_slope(activation, q)
        return q - ratio - bias_var

    grid = jnp.asarray(np.linspace(np.log(1e-6), np.log(25.0), 128), bias_var.dtype)
    low, high, crosses = _first_crossing(grid, jax.vmap(excess)(grid) > 0)
    q = jnp.exp(root(excess, low, high))
    return jnp.where(crosses, 1 / _mean_square_slope(activation, q), jnp.nan)


def _first_crossing(grid: Float[Array, " grid"], above: Bool[Array, " grid"]) -> tuple[Scalar, Scalar, Bool[Array, ""]]:
    """The first two neighbours on the grid of which only the second is above; whether there are any."""
    crosses = ~above[:-1] & above[1:]
    first = jnp.argmax(crosses)
    return grid[first], grid[first + 1], crosses.any()


def _length(rate: Scalar) -> Scalar:
    """Layers over which rate^layers falls by e; infinite where it does not fall."""
    return 1 / jnp.maximum(-jnp.log(rate), 0.0)


def _mean_square(activation: Activation, q: ScalarLike) -> Scalar:
    """E phi(sqrt(q) z)^2."""
    (q,) = as_floats(q)
    if activation.slopes is not None:
        return _mean_square_slope(activation, q) * q
    return _mean(activation, lambda x: activation.fn(x) ** 2, activation.closed_dual, q)


def _mean_square_slope(activation: Activation, q: ScalarLike) -> Scalar:
    """E phi'(sqrt(q) z)^2."""
    (q,) = as_floats(q)
    if activation.slopes is not None:
        return jnp.full_like(q, (activation.slopes[0] ** 2 + activation.slopes[1] ** 2) / 2)
    return _mean(activation, lambda x: activation.derivative(x) ** 2, activation.closed_dual_derivative, q)


def _mean(activation: Activation, square: Callable[[Array], Array], closed: Dual | None, q: Scalar) -> Scalar:
    """E square(sqrt(q) z): a closed dual, or quadrature, which is faster than a costly one."""
    if closed is None or activation.costly:
        return gaussian_mean(square, q, activation.kinks)
    return closed(q, q, q)


# Tables: functions of the variance are entire on the scale of asinh(sqrt(q)), and even in it. They depend on the
# activation alone, so that under vmap one serves all points.


class Table(NamedTuple):
    """Chebyshev coefficients over the angle and the variance, of (T(1) - T(c)) / (q (1 - c)) and of T'."""

    gap: Float[Array, "angles variances"]
    slope: Float[Array, "angles variances"]


def _table(activation: Activation, dtype) -> Table:
    turns, to_angles = chebyshev(ANGLES)
    angles = np.pi * (1 + turns) / 2
    stretched, to_variances = chebyshev(VARIANCES)
    variances = _unstretch((1 + stretched) / 2)
    haversines = 2 * np.sin(angles / 2) ** 2

    def over_angles(q):
        _, lost, slope = activation.over_angles(q, angles)
        return lost / (q * jnp.asarray(haversines, dtype)), slope

    values = jax.lax.map(over_angles, jnp.asarray(variances, dtype))
    left, right = (jnp.asarray(a, dtype) for a in (to_angles, to_variances))
    return Table(*(left @ v.T @ right.T for v in values))


def _mean_squares(activation: Activation, dtype) -> Float[Array, " variances"]:
    stretched, transform = chebyshev(VARIANCES)
    nodes = jnp.asarray(_unstretch((1 + stretched) / 2), dtype)
    return jnp.asarray(transform, dtype) @ jax.vmap(lambda q: _mean_square(activation, q))(nodes)


def _at(coefficients: Float[Array, " variances"], q: Scalar) -> Scalar:
    return chebyshev_sum(coefficients, _stretch(q))


def _in_angle(coefficients: Float[Array, "angles variances"], q: Scalar) -> Float[Array, " angles"]:
    """Coefficients over the angle, at one variance."""
    x = _stretch(q)

    def following(pair: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        return (pair[1], 2 * x * pair[1] - pair[0]), pair[0]

    _, polynomials = jax.lax.scan(following, (jnp.ones_like(q), x), length=VARIANCES)
    return coefficients @ polynomials


def _at_angle(coefficients: Float[Array, " angles"], a: Scalar) -> Scalar:
    return chebyshev_sum(coefficients, 2 / np.pi * a - 1)


def _stretch(q: Scalar) -> Scalar:
    """asinh(sqrt(q))^2, from -1 at 0 to 1 at the largest variance; smooth in q at 0."""
    small = q < 1e-6
    root = jnp.arcsinh(jnp.sqrt(jnp.where(small, 1.0, q)))
    square = jnp.where(small, q * (1 - q / 3), root**2)
    return 2 / float(np.arcsinh(np.sqrt(LARGEST))) ** 2 * square - 1


def _unstretch(share: np.ndarray) -> np.ndarray:
    return np.sinh(np.arcsinh(np.sqrt(LARGEST)) * np.sqrt(share)) ** 2
