"""The covariance of one layer's preactivations between two sets of inputs, and what a layer does to it.

Two nearly equal inputs have a covariance that is nearly the geometric mean of their variances; the difference decides
how deep networks tell them apart, and rounding eats it. So it is carried as a number of its own: the deficit
1 - cos(angle). A layer maps deficits to deficits without subtracting numbers that are nearly equal.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.infinite.activation import Activation, angle, clipped, sine
from theorysim.quadrature import chebyshev, derivative, gaussian_mean, hermite_coefficients
from theorysim.typing import ScalarLike

HERMITE_DEGREE = 384
SERIES_VARIANCE = 5.0  # up to which Hermite series hold tanh to 1e-9; beyond, its duals are sums
UNRESOLVED = 1e-6  # of the mean square beyond the series, it is no dual
POWERS = 8  # of a table: the functions T_{8 b}(x) x^r, r < 8


class Covariance(NamedTuple):
    """Covariance of two sets of Gaussian variables: std1[i] std2[j] (1 - deficit[i, j])."""

    std1: Float[Array, " n1"]
    std2: Float[Array, " n2"]
    deficit: Float[Array, "n1 n2"]

    @property
    def matrix(self) -> Float[Array, "n1 n2"]:
        """The covariance itself."""
        return outer(self.std1, self.std2) * (1 - self.deficit)

    @property
    def angle(self) -> Float[Array, "n1 n2"]:
        """The angle between inputs i and j: arccos of their correlation."""
        return angle(self.deficit)


def outer(first: Float[Array, " n1"], second: Float[Array, " n2"]) -> Float[Array, "n1 n2"]:
    """first[i] second[j]."""
    return first[:, None] * second[None, :]


def of_inputs(x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None) -> Covariance:
    """x1 x2^T / d; the deficits of near-duplicates from their differences. `x2=None` is x1 again."""
    (unit1, std1), (unit2, std2) = (_normalise(x) for x in (x1, x1 if x2 is None else x2))
    deficit = 1 - jnp.matmul(unit1, unit2.T, precision="highest")
    near = deficit < jnp.finfo(deficit.dtype).eps ** 0.4
    if x2 is None:
        near = near & ~jnp.eye(len(x1), dtype=bool)

    def row(args):
        unit, deficits, near = args
        return jnp.where(near, jnp.square(unit[None, :] - unit2).sum(1) / 2, deficits)

    def from_differences():
        return jax.lax.map(row, (unit1, deficit, near))

    deficit = jax.lax.cond(near.any(), from_differences, lambda: deficit)
    if x2 is None:
        deficit = deficit * (1 - jnp.eye(len(x1), dtype=deficit.dtype))
    return Covariance(std1, std2, clipped(deficit))


def _normalise(x: Float[Array, "n d"]) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    square = jnp.square(x).sum(1)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return x / jnp.where(norm > 0, norm, 1.0)[:, None], norm / math.sqrt(x.shape[1])


def total(*parts: tuple[ScalarLike, Covariance]) -> Covariance:
    """The covariance of sum_p sqrt(variance_p) z_p, of independent z_p.

    1 - cos = sum_p variance_p ((a_p[i] - a_p[j])^2 / 2 + a_p[i] a_p[j] deficit_p), where a_p = std_p / total std.
    """

    def std(which):
        return jnp.sqrt(sum(variance * getattr(part, which) ** 2 for variance, part in parts))

    stds = std("std1"), std("std2")
    safe1, safe2 = (jnp.where(s > 0, s, 1.0) for s in stds)

    def lost(variance, part):
        a1, a2 = part.std1 / safe1, part.std2 / safe2
        return variance * ((a1[:, None] - a2[None, :]) ** 2 / 2 + outer(a1, a2) * part.deficit)

    return Covariance(*stds, sum((lost(*part) for part in parts), jnp.zeros_like(parts[0][1].deficit)))


def constant_like(covariance: Covariance) -> Covariance:
    """The covariance of one standard normal number for all inputs: a bias."""
    return jax.tree.map(jnp.ones_like, covariance)._replace(deficit=jnp.zeros_like(covariance.deficit))


class Activated(NamedTuple):
    """Covariance of phi(u) and phi(v), and slope[i, j] = E[phi'(u_i) phi'(v_j)]."""

    features: Covariance
    slope: Float[Array, "n1 n2"]


def activate(activation: Activation, covariance: Covariance, *, normalised: bool) -> Activated:
    """What an activation makes of Gaussian preactivations.

    `normalised`: all variances are equal, so that both maps depend on the angle alone and are tabulated, to 1e-10 in
    float64, while 160 terms suffice: up to variances of about 25 for tanh. Beyond, closed duals are taken where there
    are any, and NaN where there are none. Under `vmap` over variances all of these ways are evaluated.
    """
    if activation.slopes is not None:
        return _piecewise_linear(*activation.slopes, covariance)
    if activation.tabulated and normalised and not activation.jumps:
        return _tabulated(activation, covariance)
    return _general(activation, covariance, _duals)


def _piecewise_linear(left: ScalarLike, right: ScalarLike, covariance: Covariance) -> Activated:
    a, deficit = angle(covariance.deficit), covariance.deficit
    left, right = (jnp.asarray(slope, deficit.dtype) for slope in (left, right))
    rectified = (a - sine(deficit) + (np.pi - a) * deficit) / np.pi
    mean_square = (left**2 + right**2) / 2
    bend = (right - left) ** 2 / 2
    scale = jnp.sqrt(mean_square)
    features = Covariance(
        scale * covariance.std1,
        scale * covariance.std2,
        (bend * rectified + left * right * deficit) / mean_square,
    )
    return Activated(features, left * right + bend * (np.pi - a) / np.pi)


def _tabulated(activation: Activation, covariance: Covariance) -> Activated:
    """Interpolation of the slope and of the ratio of the deficits, which has no zero.

    In the deficit where phi is analytic: the dual then is singular beyond 0 and 2 only, for erf 1 / (2 variance) away,
    and the larger the variance the more terms it takes. With kinks it is singular at 0, but smooth in the angle.
    """
    variance = covariance.std1[0] ** 2
    sizes, tolerance = ((40, 80, 160), 2e-12) if variance.dtype == np.float64 else ((24, 48, 96), 5e-7)
    nodes, transform = chebyshev(sizes[-1])
    if activation.kinks:
        angles, x = np.pi / 2 * (1 + nodes), 2 / np.pi * covariance.angle - 1
    else:
        angles, x = np.arccos(-nodes), covariance.deficit - 1
    mean_square, lost, slope = activation.over_angles(variance, angles)
    ratio = lost / (mean_square * jnp.asarray(2 * np.sin(angles / 2) ** 2, lost.dtype))
    values = jnp.stack([ratio, slope], 1)
    coefficients = jnp.asarray(transform, x.dtype) @ values
    # What each size leaves out; what the largest does, shows in its last terms.
    beyond = jax.lax.cummax(jnp.abs(coefficients), reverse=True)[np.array([*sizes[:-1], sizes[-1] - 8])]
    enough = beyond <= tolerance * jnp.abs(values).max(0, keepdims=True)
    short = (~enough).any(1).sum()

    def table(size):
        ratio, slope = _interpolate(size, coefficients, x)
        std = jnp.sqrt(mean_square)
        stds = jnp.full_like(covariance.std1, std), jnp.full_like(covariance.std2, std)
        return Activated(Covariance(*stds, ratio * covariance.deficit), slope)

    def undefined():
        return jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), Activated(covariance, x))

    exact = undefined if activation.closed_dual is None else partial(_general, activation, covariance, _direct)
    return jax.lax.switch(short, [*(partial(table, size) for size in sizes), exact])


@cache
def _blocks(size: int) -> np.ndarray:
    """From coefficients on T_j(x), j < size, to those on T_{8 b}(x) x^r.

    Horner's rule in each block takes half the operations of Clenshaw's, and the blocks do not wait for each other;
    powers up to x^7 keep it as exact.
    """
    turns = np.pi * (np.arange(size) + 0.5) / size
    functions = [np.cos(POWERS * b * turns) * np.cos(turns) ** r for b in range(size // POWERS) for r in range(POWERS)]
    return np.linalg.solve(np.stack(functions, 1), np.cos(np.outer(turns, np.arange(size))))


def _interpolate(
    size: int, coefficients: Float[Array, "terms 2"], x: Float[Array, "n1 n2"]
) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
    """The two functions of which the first `size` Chebyshev coefficients are taken."""
    table = jnp.asarray(_blocks(size), x.dtype) @ coefficients[:size]
    eighth = x
    for _ in range(POWERS.bit_length() - 1):
        eighth = 2 * eighth**2 - 1

    def add(carry, table):
        before, block, first, second = carry
        horners = [jnp.zeros_like(x)] * 2
        for r in reversed(range(POWERS)):
            horners = [horner * x + table[r, which] for which, horner in enumerate(horners)]
        first, second = (total + block * horner for total, horner in zip((first, second), horners, strict=True))
        return (block, 2 * eighth * block - before, first, second), None

    zero, one = jnp.zeros_like(x), jnp.ones_like(x)
    blocks = table.reshape(-1, POWERS, 2)
    return jax.lax.scan(add, (eighth, one, zero, zero), blocks, unroll=5)[0][2:]  # T_{-8} = T_8


def _general(
    activation: Activation, covariance: Covariance, duals: Callable[[Activation, Covariance], tuple[Array, Array]]
) -> Activated:
    q1, q2 = covariance.std1**2, covariance.std2**2
    dual, slope = duals(activation, covariance)
    (std1, twist1, stretch1), (std2, twist2, stretch2) = (_on_the_diagonal(activation, q) for q in (q1, q2))
    # Where the features are nearly equal, the first order of their difference has more digits than the difference.
    first_order = (
        outer(covariance.std1, covariance.std2) * covariance.deficit * (twist1[:, None] + twist2[None, :])
        + (covariance.std1[:, None] - covariance.std2[None, :]) ** 2 * (stretch1[:, None] + stretch2[None, :]) / 2
    ) / 2
    product = outer(std1, std2)
    difference = 1 - dual / jnp.where(product > 0, product, 1.0)
    near = first_order < jnp.sqrt(jnp.finfo(dual.dtype).eps)
    if activation.jumps:  # E phi'^2 is infinite: features part like the root of the deficit
        near = (covariance.deficit == 0) & (covariance.std1[:, None] == covariance.std2[None, :])
    return Activated(Covariance(std1, std2, jnp.where(near, first_order, difference)), slope)


def _on_the_diagonal(activation: Activation, q: Float[Array, " n"]) -> tuple[Float[Array, " n"], ...]:
    """Std of phi, and twice the deficit of two features per deficit and per (difference of std)^2, over the variance.

    With u = s z: E phi'^2 / E phi^2, and (E[(phi' z)^2] - E[phi phi' z]^2 / E phi^2) / E phi^2.
    """
    square, slope_square, along, overlap = (_closed if activation.closed_dual else _integrated)(activation, q)
    safe = jnp.where(square > 0, square, 1.0)
    return jnp.sqrt(square), slope_square / safe, (along - overlap**2 / safe) / safe


def _closed(activation: Activation, q: Float[Array, " n"]) -> tuple[Float[Array, " n"], ...]:
    """E phi^2, E phi'^2, E[(phi' z)^2] and E[phi phi' z]: the last two are derivatives of E phi(s z) phi(t z)."""

    def mean(s, t):
        return activation.dual(s * s, t * t, s * t)

    def overlap(s, t):
        return jax.jvp(lambda s: mean(s, t), (s,), (jnp.ones_like(s),))[1]

    s = jnp.sqrt(jnp.where(q > 0, q, 1.0))
    along = jax.jvp(lambda t: overlap(s, t), (s,), (jnp.ones_like(s),))[1]
    slope_square = activation.dual_derivative(q, q, q)
    # At a variance of 0 both are first orders in s: phi'(0)^2 E z^2, and phi(0) phi'(0) E z = 0.
    square = activation.dual(q, q, q)
    return square, slope_square, jnp.where(q > 0, along, slope_square), jnp.where(q > 0, overlap(s, s), 0.0)


def _integrated(activation: Activation, q: Float[Array, " n"]) -> tuple[Float[Array, " n"], ...]:
    """The same four, by quadrature."""

    def mean(fn):
        return jax.vmap(lambda q: gaussian_mean(fn, q, activation.kinks))(q)

    fn, slope = activation.fn, activation.derivative
    safe_q = jnp.where(q > 0, q, 1.0)
    square, slope_square = mean(lambda x: fn(x) ** 2), mean(lambda x: slope(x) ** 2)
    along = mean(lambda x: (slope(x) * x) ** 2) / safe_q
    return square, slope_square, along, mean(lambda x: fn(x) * slope(x) * x) / jnp.sqrt(safe_q)


def _direct(activation: Activation, covariance: Covariance) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
    triple = covariance.std1[:, None] ** 2, covariance.std2[None, :] ** 2, covariance.matrix
    return activation.dual(*triple), activation.dual_derivative(*triple)


def _by_series(activation: Activation, covariance: Covariance) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
    return _series(activation.fn, covariance), _series(derivative(activation.fn), covariance)


def _duals(activation: Activation, covariance: Covariance) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
    if not activation.tabulated or activation.kinks:
        return _direct(activation, covariance)
    if activation.closed_dual is None:
        return _by_series(activation, covariance)
    largest = jnp.maximum(covariance.std1.max(), covariance.std2.max()) ** 2
    by_series, direct = (partial(way, activation, covariance) for way in (_by_series, _direct))
    return jax.lax.cond(largest <= SERIES_VARIANCE, by_series, direct)


def _series(fn: Callable[[Array], Array], covariance: Covariance) -> Float[Array, "n1 n2"]:
    """sum_j a_j(q1) a_j(q2) rho^j over Hermite coefficients; NaN where those of an input leave out too much."""

    def coefficients(std):
        def at(q):
            found = hermite_coefficients(fn, q, HERMITE_DEGREE)
            missing = gaussian_mean(lambda x: fn(x) ** 2, q) - jnp.square(found).sum()
            most = max(UNRESOLVED, 1e3 * float(jnp.finfo(q.dtype).eps)) * jnp.square(found).sum()
            return found.at[0].add(jax.lax.stop_gradient(jnp.where(missing <= most, 0.0, jnp.nan)))

        return jax.vmap(at, out_axes=1)(std**2)

    rho = 1 - covariance.deficit

    def horner(total, pair):
        return total * rho + outer(*pair), None

    pairs = coefficients(covariance.std1), coefficients(covariance.std2)
    return jax.lax.scan(horner, jnp.zeros_like(rho), pairs, reverse=True)[0]
