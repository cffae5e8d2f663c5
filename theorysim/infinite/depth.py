"""Networks of infinite width and depth, as classifiers of inputs on the unit sphere.

With a_j the Hermite coefficients of phi / rms(phi), a layer maps the cosine z of two inputs to
psi(z) = sum_j a_j^2 z^j. The kernels of L hidden layers are S_L = psi^L(z) and Theta_L, where
Theta_{L+1} = S_{L+1} + psi'(S_L) Theta_L. As L -> infinity, what they predict is one of three rules (Radhakrishnan,
Belkin & Uhler, arXiv:2204.14126): where a_0 is not 0, the majority vote; where a_0 = a_1 = 0, the label of the nearest
neighbour; else that of a kernel of its own, singular at z = 1,

    kappa(z) = lim S_L(z) / a_1^(2 L) = lim Theta_L(z) / (a_1^(2 L) (L + 1)) ~ |x - x'|^-alpha,
    alpha = -4 log a_1 / log B,    B = psi'(1) = E phi'^2 / E phi^2.

That limit is the Koenigs function of psi at 0: kappa(psi(z)) = a_1^2 kappa(z), with kappa'(0) = 1. A few steps of this
equation lead to small z, where a power series has it. Deep kernels themselves need L far above 1 / (1 - z).
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.checks import require_count, require_finite, require_in
from theorysim.infinite.activation import Activation, angle, as_activation
from theorysim.infinite.covariance import of_inputs
from theorysim.infinite.named import hermite
from theorysim.quadrature import chebyshev, chebyshev_sum, gaussian_mean, hermite_coefficients, legendre

NEAREST_NEIGHBOUR, MAJORITY_VOTE, SINGULAR_KERNEL, LINEAR = range(4)
LABELS = ("nearest neighbour", "majority vote", "singular kernel", "linear")

DEGREE = 384  # of the Hermite series, before what is below rounding is cut
ANGLES = 96  # of a table, on either side of z = 0
SMALL, TERMS = 0.25, 40  # below SMALL, the kernel by TERMS of its power series: SMALL^TERMS = 1e-24


class Limit(NamedTuple):
    """What infinite depth makes of an activation.

    `code`: the rule, an index into `LABELS`. `mean` = a_0 and `slope` = a_1 = E[z phi(z)], of the activation divided by
    its root mean square. `expansion` = B, by which a layer multiplies small squared distances; infinite where the
    activation jumps. `alpha`: the exponent of the kernel's singularity, NaN unless the rule is the singular kernel.
    """

    code: int
    mean: float
    slope: float
    expansion: float
    alpha: float

    @property
    def label(self) -> str:
        """The rule in words."""
        return LABELS[self.code]


def limit(activation: Activation | Callable[[Array], Array]) -> Limit:
    """The rule that infinite depth tends to, and its exponent (arXiv:2204.14126, theorem 1).

    Any activation, normalised or not, with kinks or jumps. Coefficients below eps^(3/4) of the root mean square count
    as 0.

    **Raises:** `ValueError` for an activation that is 0, or that quadrature does not resolve.
    """
    return _limit(as_activation(activation))


@cache
def _limit(activation: Activation) -> Limit:
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())

        def mean(fn):
            return float(gaussian_mean(fn, one, activation.kinks))

        fn, derivative = activation.fn, activation.derivative
        square = mean(lambda x: fn(x) ** 2)
        if not square > 0:
            raise ValueError(
                f"activation {activation.name!r} has the mean square {square}: it is 0, or quadrature does not resolve "
                "it, since it is too steep or its kinks are not named"
            )
        rms = math.sqrt(square)
        a0, a1 = mean(fn) / rms, mean(lambda x: x * fn(x)) / rms
        nothing = float(jnp.finfo(one.dtype).eps) ** 0.75
        # Stein's lemma, E phi' = E z phi, fails for a derivative that does not see the jumps.
        continuous = abs(mean(derivative) / rms - a1) <= nothing**0.5
        expansion = mean(lambda x: derivative(x) ** 2) / square if continuous else math.inf
    if abs(a0) > nothing:
        code = MAJORITY_VOTE
    elif abs(a1) <= nothing:
        code = NEAREST_NEIGHBOUR
    else:
        code = LINEAR if 1 - a1**2 <= nothing else SINGULAR_KERNEL
    alpha = -4 * math.log(abs(a1)) / math.log(expansion) if code == SINGULAR_KERNEL else math.nan
    return Limit(code, a0, a1, expansion, alpha)


def activation_of(alpha: float | int) -> Activation:
    """An activation whose singular kernel has the exponent `alpha` > 0, and B = 2.

    Its power is 2^(-alpha / 2) on the first Hermite polynomial; the rest is on two more, of degrees j and j + 1. For
    alpha = d >= 2 it is the construction of arXiv:2204.14126, of degrees 1, 2 and 3, which classifies inputs on a
    manifold of dimension d as well as can be.

    **Raises:** `ValueError` for an alpha that is not in [0.2, 60]: its polynomial would have a degree above 16, or a
    first coefficient of no weight.
    """
    require_in(0.2, 60, alpha=alpha)
    first = 2 ** (-alpha / 2)
    rest = -math.expm1(-alpha / 2 * math.log(2))
    degree = (1 + rest) / rest  # the mean over the rest: first + rest degree = 2
    low = math.floor(degree)
    powers = {1: first, low: rest * (low + 1 - degree), low + 1: rest * (degree - low)}
    terms = [(math.sqrt(power), hermite(j)) for j, power in powers.items() if power > 0]

    def fn(x):
        return sum((coefficient * polynomial(x) for coefficient, polynomial in terms), jnp.zeros_like(x))

    return Activation(f"alpha = {alpha:g}", fn)


def koenigs(activation: Activation | Callable[[Array], Array], deficit: Float[Array, "..."]) -> Float[Array, "..."]:
    """Kappa at z = 1 - deficit, elementwise; infinite at z = 1.

    As exact as `deficit` is, at both ends of (0, 2): relative error below 1e-12 in float64, with kinks 1e-10.
    Differentiable forwards.

    **Raises:** `ValueError` for an activation whose limit is not the singular (or linear) kernel. So for relu: psi has
    the slope 1 at its only fixed point z = 1, and deep kernels are constant; less its mean, 1 / sqrt(2 pi), it has a
    kappa. Also for an activation with jumps, with kinks too near each other to be resolved, or too steep, and for a
    deficit outside of [0, 2].
    """
    activation = as_activation(activation)
    _series(activation)
    require_in(0, 2, deficit=deficit)
    return _koenigs(activation, jnp.asarray(deficit))


def kernel(
    activation: Activation | Callable[[Array], Array], x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None
) -> Float[Array, "n1 n2"]:
    """Kappa between the directions of inputs; infinite where they are the same. `x2=None` is x1 again.

    **Raises:** `ValueError` for inputs that are not finite, and as [`koenigs`].
    """
    require_finite(x1=x1, x2=x2)
    return koenigs(activation, of_inputs(x1, x2).deficit)


class Deep(NamedTuple):
    """Kernels of a deep network in units of their limit: S_L / a_1^(2 L) and Theta_L / (a_1^(2 L) (L + 1))."""

    nngp: Float[Array, "..."]
    ntk: Float[Array, "..."]


def deep(activation: Activation | Callable[[Array], Array], deficit: Float[Array, "..."], *, depth: int) -> Deep:
    """The kernels of `depth` hidden layers, layer by layer, at z = 1 - deficit: what [`koenigs`] is the limit of.

    Their errors fall like a_1^(2 depth) and 1 / depth, once depth is above 1 / (1 - z).

    **Raises:** `ValueError` for a depth that is no whole number >= 0, and for activations as [`koenigs`].
    """
    require_count(least=0, depth=depth)
    return _deep(as_activation(activation), jnp.asarray(deficit), depth)


def classify(similarity: Float[Array, "m n"], targets: Float[Array, " n"]) -> Float[Array, " m"]:
    """The sign of sum_j kappa(x, x_j) y_j: the limit of kernel regression, since kappa is infinite on the diagonal.

    A training input keeps its own label; its duplicates vote. 0 is a tie.
    """
    same = jnp.isinf(similarity)
    weights = jnp.where(same.any(1, keepdims=True), same.astype(similarity.dtype), similarity)
    return jnp.sign(weights @ targets)


def nearest_neighbour(similarity: Float[Array, "m n"], targets: Float[Array, " n"]) -> Float[Array, " m"]:
    """The label of the most similar training input: of the largest cosine, or kernel entry."""
    return jnp.sign(targets[jnp.argmax(similarity, 1)])


def majority_vote(targets: Float[Array, " n"]) -> Float[Array, ""]:
    """The label of most training inputs, for any input; 0 is a tie."""
    return jnp.sign(jnp.sign(targets).sum())


class Table(NamedTuple):
    """The gaps 1 - |psi| per gap 1 - |z|, and psi', by Chebyshev polynomials in the angle: from z = 1 and from z = -1.

    Where psi(-1) is not -1, what is per gap is psi(z) - psi(-1).
    """

    ratios: Float[np.ndarray, "2 terms"]
    slopes: Float[np.ndarray, "2 terms"]


class Series(NamedTuple):
    """Psi and kappa as power series, from z^1 on; all of the coefficients are positive but the `alternating` ones.

    `powers` = a_j^2, `tails` = sums of the powers from j on, `alternating` = those of (-1)^(j + 1) a_j^2, `koenigs` =
    coefficients of kappa; `even`: sum of the even powers. With kinks, the series of psi is of use for small z alone.
    """

    powers: Float[np.ndarray, " degrees"]
    tails: Float[np.ndarray, " degrees"]
    alternating: Float[np.ndarray, " degrees"]
    koenigs: Float[np.ndarray, " terms"]
    even: float
    table: Table | None = None


@cache
def _series(activation: Activation) -> Series:
    found = limit(activation)
    if found.code not in (SINGULAR_KERNEL, LINEAR):
        raise ValueError(
            f"activation {activation.name!r} has no singular kernel: infinitely deep, its rule is the {found.label}"
            + "; subtract its mean under a standard Gaussian" * (found.code == MAJORITY_VOTE)
        )
    if found.expansion == math.inf:
        raise ValueError(f"activation {activation.name!r} jumps, or its kinks are not named: psi'(1) is infinite")
    if activation.kinks:
        return _kinked(activation)
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())
        square = float(gaussian_mean(lambda x: activation.fn(x) ** 2, one, activation.kinks))
        powers = np.asarray(hermite_coefficients(activation.fn, one, DEGREE), float)[1:] ** 2 / square
    eps = float(jnp.finfo(one.dtype).eps)
    if abs(powers.sum() - 1) > 1e3 * eps:
        raise ValueError(
            f"the Hermite series of {activation.name!r} holds {powers.sum():.10f} of its power up to the degree "
            f"{DEGREE}: name its kinks, or give a less steep one"
        )
    powers = np.trim_zeros(np.where(powers > 1e-4 * eps, powers, 0.0), "b")
    powers /= powers.sum()
    signed = powers * (-1.0) ** np.arange(len(powers))
    tails, alternating = (np.cumsum(row[::-1])[::-1] for row in (powers, signed))
    return Series(powers, tails, alternating, _koenigs_series(powers), float(powers[1::2].sum()))


def _kinked(activation: Activation) -> Series:
    """With kinks, powers fall like j^(-5/2). But psi' is smooth in the angle, and its integral keeps all digits."""
    nodes, to_coefficients = chebyshev(ANGLES)
    angles = np.pi / 4 * (1 + nodes)
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())
        mirrored = tuple({sign * kink for kink in activation.kinks for sign in (-1, 1)})

        def mean(fn):
            return float(gaussian_mean(fn, one, mirrored))

        square = mean(lambda x: activation.fn(x) ** 2)
        even = mean(lambda x: (activation.fn(x) + activation.fn(-x)) ** 2) / 4 / square
        polynomials = [np.polynomial.HermiteE.basis(j) / math.sqrt(math.factorial(j)) for j in range(1, TERMS + 1)]
        powers = [mean(lambda x, h=h: activation.fn(x) * h(np.asarray(x))) ** 2 / square for h in polynomials]
        cosines = jnp.asarray(np.cos(np.stack([angles, np.pi - angles])))
        slopes = np.asarray(activation.dual_derivative(one, one, cosines), float) / square
    eps = float(jnp.finfo(one.dtype).eps)
    slopes = slopes @ to_coefficients.T
    if np.abs(slopes[:, -4:]).max() > max(1e-11, 100 * eps) * np.abs(slopes).max():
        raise ValueError(
            f"psi' of {activation.name!r} is not resolved by {ANGLES} angles: give an activation whose kinks, here "
            f"{activation.kinks}, are further apart"
        )
    turns, weights = legendre(24)
    inner = np.multiply.outer(angles, (1 + turns) / 2)
    ratios = []
    for row in slopes:
        integrand = np.polynomial.chebyshev.chebval(4 / np.pi * inner - 1, row) * np.sin(inner)
        ratios.append(to_coefficients @ (angles * (integrand @ weights) / 2 / (2 * np.sin(angles / 2) ** 2)))
    found = np.array(powers)
    return Series(found, found, found, _koenigs_series(found), even, Table(np.stack(ratios), slopes))


def _at(table: Float[np.ndarray, "2 terms"], z: Array, gap: Array) -> Array:
    x = 4 / np.pi * angle(gap) - 1
    above, below = (chebyshev_sum(jnp.asarray(row, z.dtype), x) for row in table)
    return jnp.where(z >= 0, above, below)


def _koenigs_series(powers: Float[np.ndarray, " degrees"]) -> Float[np.ndarray, " terms"]:
    """k_1 = 1 and k_j (p_1 - p_1^j) = sum_{i < j} k_i [z^j] psi(z)^i: a sum of positive terms."""
    psi = np.zeros(TERMS + 1)
    psi[1 : len(powers) + 1] = powers[:TERMS]
    power, known, k = psi, psi.copy(), np.zeros(TERMS + 1)  # psi^i, sum_{i < j} k_i psi^i
    k[1], slope = 1.0, psi[1]
    for j in range(2, TERMS + 1):
        k[j] = known[j] / (slope * -math.expm1((j - 1) * math.log(slope))) if slope < 1 else 0.0
        power = np.convolve(power, psi)[: TERMS + 1]
        known += k[j] * power
    return k[1:]


def _sum(coefficients: Float[np.ndarray, " terms"], z: Array) -> Array:
    """sum_i coefficients[i] z^i."""
    return jnp.polyval(jnp.asarray(coefficients[::-1], z.dtype), z, unroll=8)


def _ends(deficit: Array) -> tuple[Array, Array]:
    """The cosine z, and its gap 1 - |z|."""
    return 1 - deficit, jnp.minimum(deficit, 2 - deficit)


def _layer(series: Series, z: Array, gap: Array) -> tuple[Array, Array]:
    """The next z and gap, without a difference of numbers that are nearly equal.

    1 - psi(z) = (1 - z) sum_i tails_i z^i, and 1 + psi(z) = 2 even + (1 + z) sum_i alternating_i (-z)^i.
    """
    if series.table is not None:
        per_gap = gap * _at(series.table.ratios, z, gap)
        new = jnp.where(z >= 0, 1 - per_gap, 2 * series.even + per_gap - 1)
        gap = jnp.where(z >= 0, per_gap, jnp.where(new < 0, 1 + new, 1 - new))
        return new, gap
    new, m = z * _sum(series.powers, z), jnp.abs(z)
    above = gap * _sum(series.tails, m)
    below = 2 * series.even + gap * _sum(series.alternating, m)
    gap = jnp.where(z >= 0, above, jnp.where(new < 0, below, 1 - new))
    return jnp.where(gap < 0.5, jnp.copysign(1 - gap, new), new), gap  # near 1, layers would multiply errors of z


def _per_z(series: Series, z: Array, psi: Array) -> Array:
    """Psi(z) / z."""
    if series.table is None:
        return _sum(series.powers, z)
    far = jnp.abs(z) > SMALL
    return jnp.where(far, psi / jnp.where(far, z, 1.0), _sum(series.powers, jnp.where(far, 0.0, z)))


def _derivative(series: Series, z: Array, gap: Array) -> Array:
    """Psi'(z)."""
    if series.table is None:
        return _sum(series.powers * np.arange(1, len(series.powers) + 1), z)
    return _at(series.table.slopes, z, gap)


@partial(jax.jit, static_argnums=0)
def _koenigs(activation: Activation, deficit: Array) -> Array:
    series = _series(activation)
    slope = series.powers[0]
    z, gap = _ends(deficit)
    if slope == 1:
        return z
    singular = (deficit == 0) | ((deficit == 2) & (series.even == 0))

    def step(state):
        z, gap, scale = state
        far = jnp.abs(z) > SMALL
        new = _layer(series, z, gap)
        return jnp.where(far, new[0], z), jnp.where(far, new[1], gap), jnp.where(far, scale / slope, scale)

    state = (jnp.where(singular, 0.0, z), gap, jnp.ones_like(z))  # at |z| = 1, nothing would change
    small, _, scale = jax.lax.while_loop(lambda state: (jnp.abs(state[0]) > SMALL).any(), step, state)
    return jnp.where(singular, jnp.sign(z) * jnp.inf, scale * small * _sum(series.koenigs, small))


@partial(jax.jit, static_argnums=(0, 2))
def _deep(activation: Activation, deficit: Array, depth: int) -> Deep:
    series = _series(activation)
    slope = series.powers[0]

    def layer(state, _):
        z, gap, nngp, ntk = state
        new = _layer(series, z, gap)
        nngp = nngp * _per_z(series, z, new[0]) / slope
        return (*new, nngp, nngp + ntk * _derivative(series, z, gap) / slope), None

    z, gap = _ends(deficit)
    (_, _, nngp, ntk), _ = jax.lax.scan(layer, (z, gap, z, z), None, length=depth)
    return Deep(nngp, ntk / (depth + 1))
