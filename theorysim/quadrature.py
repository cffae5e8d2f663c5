"""Gaussian expectations, in one variable and in two.

In one variable, by the trapezoid rule. For an integrand that is analytic in a strip of half-width a, its error is
exp(-2 pi a / step): for tanh(sqrt(q) z), a = pi / (2 sqrt(q)). Gauss-Hermite quadrature is far behind: at q = 4 and
100 nodes it still errs by 2e-6, where the trapezoid rule reaches 1e-14 with 121.

In two, in polar coordinates. With u = s1 r cos(phi) and v = s2 r cos(phi - angle), where cos(angle) is the
correlation,

    E[f(u) g(v)] = sum_m cos(m angle) int_0^inf r exp(-r^2 / 2) F_m(r) G_m(r) dr,

where F_m and G_m are the cosine coefficients of f(s1 r cos(phi)) and g(s2 r cos(phi)). One transform of each function
serves every correlation, up to 1. A function with kinks is integrated from kink to kink instead, along two axes.
"""

import math
from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.typing import Scalar


def trapezoid(reach: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes from -reach to reach, and their weights in a mean over the standard Gaussian."""
    nodes = np.linspace(-reach, reach, count)
    return nodes, np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi) * (nodes[1] - nodes[0])


def legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss's nodes on [-1, 1], and their weights."""
    return np.polynomial.legendre.leggauss(count)


# To |z| = 12, since a Hermite function of high degree reaches far: it meets exp(-z^2 / 4) there, not exp(-z^2 / 2).
NODES, WEIGHTS = trapezoid(12.0, 481)
LEGENDRE = legendre(72)
PANEL = legendre(40)  # between two kinks
FARTHEST = 10.0  # standard deviations; exp(-50) of the Gaussian lies beyond
RADII = (LEGENDRE[0] + 1) * FARTHEST / 2
RADIAL_WEIGHTS = LEGENDRE[1] * FARTHEST / 2 * RADII * np.exp(-(RADII**2) / 2)
HARMONICS = 512

Function = Callable[[Array], Array]


def gaussian_mean(fn: Function, variance: Scalar, kinks: tuple[float, ...] = ()) -> Scalar:
    """E fn(sqrt(variance) z), z ~ N(0, 1), for an elementwise `fn`, analytic but at its `kinks`.

    It may jump at the kinks. NaN where the nodes do not resolve it: where fewer of them, whose error is about the root
    of the error, differ by more than eps^(1/4). Without kinks, that is at a scale below 0.05 sqrt(variance).
    Differentiable in the variance: without kinks to any order, at 0 too, by
    d/dq E fn(sqrt(q) z) = E fn''(sqrt(q) z) / 2 (Price 1958).
    """
    if not kinks:
        return _smooth_mean(fn, variance)
    zero = jnp.zeros_like(variance)
    fine, coarse, size = (_mean_between(fn, zero, _sqrt(variance), kinks, rule) for rule in (LEGENDRE, PANEL, None))
    return _resolved(fine, coarse, size)


def _resolved(fine: Scalar, coarse: Scalar, size: Scalar) -> Scalar:
    """NaN where two rules differ by much of the mean `size` of what they integrate."""
    gap = jax.lax.stop_gradient(jnp.abs(fine - coarse))
    return jnp.where(gap <= jnp.finfo(fine.dtype).eps ** 0.25 * jax.lax.stop_gradient(size), fine, jnp.nan)


def _mean_between(fn, mean: Scalar, std: Scalar, kinks: tuple[float, ...], rule) -> Scalar:
    """E fn(mean + std z), panel by panel; of |fn| without a rule."""
    breaks = [jnp.clip((kink - mean) / std, -FARTHEST, FARTHEST) for kink in sorted(kinks)]
    points, measure = rule or LEGENDRE
    nodes, weights = _between([-FARTHEST, *breaks, FARTHEST], points, measure, std.dtype)
    values = fn(mean + std * nodes)
    values = values if rule else jnp.abs(values)
    return jnp.sum(values * jnp.exp(-(nodes**2) / 2) * weights) / math.sqrt(2 * math.pi)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _smooth_mean(fn: Function, variance: Scalar) -> Scalar:
    nodes, weights = (jnp.asarray(a, variance.dtype) for a in (NODES, WEIGHTS))
    values = fn(jnp.sqrt(variance) * nodes)
    fine = jnp.dot(values, weights)
    return _resolved(fine, 2 * jnp.dot(values[::2], weights[::2]), jnp.dot(jnp.abs(values), weights))


@_smooth_mean.defjvp
def _(fn, primals, tangents):
    (variance,), (tangent,) = primals, tangents
    return _smooth_mean(fn, variance), _smooth_mean(derivative(derivative(fn)), variance) / 2 * tangent


def derivative(fn: Function) -> Function:
    """fn', of an elementwise function."""
    return lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]


def hermite_coefficients(fn: Function, variance: Scalar, degree: int) -> Float[Array, " degree"]:
    """Coefficients a_j = E[fn(sqrt(variance) z) h_j(z)], j < degree, on the orthonormal Hermite polynomials.

    Their squares sum to E fn^2 (Parseval): what is missing is the truncation.
    """
    polynomials, nodes = (jnp.asarray(a, variance.dtype) for a in (_weighted_hermite(degree), NODES))
    return polynomials @ fn(jnp.sqrt(variance) * nodes)


def hermite_tails(fn: Function, degrees: tuple[int, ...]) -> list[float]:
    """The shares of E fn(z)^2 beyond so many Hermite coefficients (Parseval), of a function that is not traced.

    Where the p-th derivative jumps they fall like degree^-(p + 1/2); of an analytic function exponentially.
    """
    with jax.ensure_compile_time_eval():
        values = np.asarray(fn(jnp.asarray(NODES)), float)
    powers = np.cumsum((_weighted_hermite(max(degrees)) @ values) ** 2)
    return [float(1 - powers[degree - 1] / (values**2 @ WEIGHTS)) for degree in degrees]


@cache
def _weighted_hermite(degree: int) -> np.ndarray:
    """h_j(z) w(z) at the nodes, by the recursion of the orthonormal polynomials; shape (degree, nodes)."""
    # Half of the Gaussian is carried along, so that nothing overflows.
    half = np.sqrt(WEIGHTS)
    rows = [half, NODES * half]
    for j in range(1, degree - 1):
        rows.append((NODES * rows[j] - np.sqrt(j) * rows[j - 1]) / np.sqrt(j + 1))
    return np.stack(rows[:degree]) * half


def angular_spectrum(fn: Function, variance: Scalar) -> Float[Array, "radii harmonics"]:
    """The coefficients F_m(r) of an analytic `fn`, each with the root of its weight.

    E[f(u) g(v)] = sum_m cos(m angle) c_m with c = (F * G).sum(0). For tanh and its derivative, relative error below
    1e-12 up to a variance of 20, and 1e-10 at 50, at any correlation. NaN where the last eighth of the harmonics holds
    more than 1e-14 of the power: of the derivative of tanh beyond 120, at an error of 1e-8.
    """
    angles = np.pi * np.arange(HARMONICS + 1) / HARMONICS
    values = fn(_sqrt(variance) * jnp.asarray(np.outer(RADII, np.cos(angles)), variance.dtype))
    circle = jnp.concatenate([values, values[:, -2:0:-1]], 1)
    twice = np.r_[1.0, np.full(HARMONICS - 1, 2.0), 1.0]  # cos(m phi) stands for two harmonics
    weights = np.sqrt(np.outer(RADIAL_WEIGHTS, twice)) / circle.shape[1]
    spectrum = jnp.fft.rfft(circle, axis=1).real * jnp.asarray(weights, variance.dtype)
    power = jax.lax.stop_gradient(jnp.square(spectrum).sum(0))
    most = max(1e-14, 100 * float(jnp.finfo(variance.dtype).eps) ** 2)
    return jnp.where(power[-HARMONICS // 8 :].sum() > most * power.sum(), jnp.nan, spectrum)


@cache
def chebyshev(terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes on [-1, 1], and the matrix from values there to coefficients."""
    turns = np.pi * (np.arange(terms) + 0.5) / terms
    transform = 2 / terms * np.cos(np.outer(np.arange(terms), turns))
    transform[0] /= 2
    return np.cos(turns), transform


def chebyshev_sum(coefficients: Float[Array, "terms ..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sum_m coefficients[m] T_m(x), by Clenshaw's recursion; coefficients[m] and x broadcast."""

    def down(carry, coefficient):
        ahead, behind = carry
        return (coefficient + 2 * x * ahead - behind, ahead), None

    zero = jnp.zeros(jnp.broadcast_shapes(x.shape, coefficients.shape[1:]), x.dtype)
    (ahead, behind), _ = jax.lax.scan(down, (zero, zero), coefficients[1:], reverse=True, unroll=8)
    return coefficients[0] + x * ahead - behind


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def kinked_mean(
    fn1: Function, fn2: Function, kinks: tuple[float, ...], variance1: Scalar, variance2: Scalar, angle: Scalar
) -> Scalar:
    """E[fn1(u) fn2(v)] for functions with common `kinks`, where they may jump; cos(angle) is the correlation.

    With u = std1 (c x + s y), v = std2 (c x - s y), c and s of half the angle, kinks are lines in the plane of x and y:
    along x the integrand is analytic from line to line, and that integral analytic in y but where two lines cross.
    Differentiable, jumps included.
    """
    std1, std2 = _sqrt(variance1), _sqrt(variance2)
    # Beyond a right angle, in -v: lines along x would have a slope of 1 / c.
    sign = jnp.where(angle > np.pi / 2, -1.0, 1.0)
    half = jnp.minimum(angle, np.pi - angle) / 2
    c, s = jnp.cos(half), jnp.sin(half)
    lines = [(kink / std1, -s) for kink in kinks] + [(sign * kink / std2, s) for kink in kinks]
    apart = jnp.maximum(2 * s, jnp.finfo(angle.dtype).tiny)
    crossings = [(first - second) / apart for first, _ in lines[: len(kinks)] for second, _ in lines[len(kinks) :]]

    def panels(breaks):
        inner = jnp.sort(jnp.clip(jnp.stack(breaks), -FARTHEST, FARTHEST))
        return _between([-FARTHEST, *inner, FARTHEST], *PANEL, angle.dtype)

    def along(y):
        x, weights = panels([(offset + slope * y) / c for offset, slope in lines])
        values = fn1(std1 * (c * x + s * y)) * fn2(sign * std2 * (c * x - s * y))
        return jnp.sum(values * jnp.exp(-(x**2) / 2) * weights)

    y, weights = panels(crossings)
    return jnp.sum(jax.vmap(along)(y) * jnp.exp(-(y**2) / 2) * weights) / (2 * np.pi)


@kinked_mean.defjvp
def _(fn1, fn2, kinks, primals, tangents):
    """With T' = E[fn1'(u) fn2'(v)]: dT/d(angle) = -std1 std2 sin(angle) T', dT/dq1 = E[u fn1'(u) fn2(v)] / (2 q1)."""
    variance1, variance2, angle = primals
    slope1, slope2 = derivative(fn1), derivative(fn2)
    std1, std2, turned = _sqrt(variance1), _sqrt(variance2), (variance2, variance1, angle)
    of_jumps = jumps_mean(fn1, fn2, kinks, *primals)
    slopes = (
        (
            kinked_mean(lambda x: slope1(x) * x, fn2, kinks, *primals)
            + _pinned_mean(fn1, fn2, kinks, *primals, weight=lambda x: x)
        )
        / (2 * variance1),
        (
            kinked_mean(fn1, lambda x: slope2(x) * x, kinks, *primals)
            + _pinned_mean(fn2, fn1, kinks, *turned, weight=lambda x: x)
        )
        / (2 * variance2),
        -std1 * std2 * (jnp.sin(angle) * kinked_mean(slope1, slope2, kinks, *primals) + of_jumps),
    )
    value = kinked_mean(fn1, fn2, kinks, *primals)
    return value, sum(slope * tangent for slope, tangent in zip(slopes, tangents, strict=True))


def jumps_of(fn: Function, kinks: tuple[float, ...]) -> tuple[float, ...]:
    """By how much `fn` jumps at each kink; 0 where it does not, or by no more than a slope makes of rounding."""
    if not kinks:
        return ()
    with jax.ensure_compile_time_eval():
        at = jnp.asarray(kinks, float)
        step = float(jnp.finfo(at.dtype).eps) ** 0.75 * jnp.maximum(1.0, jnp.abs(at))
        above, below = (np.asarray(fn(at + sign * step), float) for sign in (1, -1))
    heights = above - below
    seen = np.abs(heights) > float(jnp.finfo(at.dtype).eps) ** 0.5 * (1 + np.abs(above) + np.abs(below))
    return tuple(np.where(seen, heights, 0.0).tolist())


def jumps_mean(
    fn1: Function, fn2: Function, kinks: tuple[float, ...], variance1: Scalar, variance2: Scalar, angle: Scalar
) -> Scalar:
    """sin(angle) times what jumps add to E[fn1'(u) fn2'(v)]: their delta functions with the slopes, and each other.

    With jumps J_i and J'_j at the kinks a_i, and p the density of (u, v):

        sum_i J_i p(u = a_i) E[fn2'(v) | u = a_i] + the same of fn2 + sum_ij J_i J'_j p(a_i, a_j).

    p(a_i, a_j) sin(angle) stays finite where the angle vanishes; without the factor, its mean is infinite.
    """
    first, second = jumps_of(fn1, kinks), jumps_of(fn2, kinks)
    if not any(first) and not any(second):
        return jnp.zeros_like(angle)
    std1, std2, s = _sqrt(variance1), _sqrt(variance2), jnp.sin(angle)
    tiny, sign = jnp.finfo(angle.dtype).tiny, jnp.where(angle > np.pi / 2, -1.0, 1.0).astype(angle.dtype)
    total = s * (
        _pinned_mean(fn1, derivative(fn2), kinks, variance1, variance2, angle)
        + _pinned_mean(fn2, derivative(fn1), kinks, variance2, variance1, angle)
    )
    for a, jump1 in zip(kinks, first, strict=True):
        for b, jump2 in zip(kinks, second, strict=True):
            # (x^2 + y^2 - 2 x y cos) / (2 sin^2), without 0 / 0 at angles of 0 and pi
            x, y = a / std1, sign * b / std2
            exponent = (x - y) ** 2 / jnp.maximum(2 * s**2, tiny) + x * y / (1 + sign * jnp.cos(angle))
            total = total + jump1 * jump2 * jnp.exp(-exponent) / (2 * np.pi * std1 * std2)
    return total


def _pinned_mean(fn1, fn2, kinks, variance1, variance2, angle, *, weight=jnp.ones_like) -> Scalar:
    """sum_i J_i weight(a_i) p(u = a_i) E[fn2(v) | u = a_i], over the jumps J_i of fn1 at the kinks a_i."""
    std1, std2 = _sqrt(variance1), _sqrt(variance2)
    total = jnp.zeros_like(angle)
    for a, jump in zip(kinks, jumps_of(fn1, kinks), strict=True):
        if jump:
            u = jnp.asarray(a, angle.dtype)
            density = jnp.exp(-((u / std1) ** 2) / 2) / (math.sqrt(2 * math.pi) * std1)
            mean, std = std2 / std1 * jnp.cos(angle) * u, std2 * jnp.sin(angle)
            std = jnp.maximum(std, jnp.finfo(angle.dtype).tiny ** 0.5)
            total = total + jump * weight(u) * density * _mean_between(fn2, mean, std, kinks, LEGENDRE)
    return total


def _between(breaks: list, nodes: np.ndarray, weights: np.ndarray, dtype) -> tuple[Array, Array]:
    """A rule of [-1, 1], repeated between each two of the breaks."""
    edges = jnp.stack([jnp.asarray(b, dtype) for b in breaks])
    half = (edges[1:] - edges[:-1])[:, None] / 2
    middle = (edges[1:] + edges[:-1])[:, None] / 2
    rule, measure = (jnp.asarray(a, dtype)[None, :] for a in (nodes, weights))
    return (middle + half * rule).ravel(), (half * measure).ravel()


def _sqrt(variance: Scalar) -> Scalar:
    """The root, with a finite derivative at 0."""
    return jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))
