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
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.checks import is_traced, require_finite, require_positive
from theorysim.infinite.activation import Activation, hermite
from theorysim.infinite.covariance import of_inputs
from theorysim.quadrature import gaussian_mean, hermite_coefficients

NEAREST_NEIGHBOUR, MAJORITY_VOTE, SINGULAR_KERNEL, LINEAR = range(4)
LABELS = ("nearest neighbour", "majority vote", "singular kernel", "linear")

DEGREE = 384  # of the Hermite series, before what is below rounding is cut
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


@cache
def limit(activation: Activation) -> Limit:
    """The rule that infinite depth tends to, and its exponent (arXiv:2204.14126, theorem 1).

    Any activation, normalised or not, with kinks or jumps. Coefficients below eps^(3/4) of the root mean square count
    as 0.
    """
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())

        def mean(fn):
            return float(gaussian_mean(fn, one, activation.kinks))

        fn, derivative = activation.fn, activation.derivative
        square = mean(lambda x: fn(x) ** 2)
        require_positive(**{f"mean square of {activation.name}": square})
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
    if not 0.2 <= alpha <= 60:
        raise ValueError(f"alpha={alpha}: give an exponent in [0.2, 60]")
    first = 2 ** (-alpha / 2)
    rest = -math.expm1(-alpha / 2 * math.log(2))
    degree = (1 + rest) / rest  # the mean over the rest: first + rest degree = 2
    low = math.floor(degree)
    powers = {1: first, low: rest * (low + 1 - degree), low + 1: rest * (degree - low)}
    terms = [(math.sqrt(power), hermite(j)) for j, power in powers.items() if power > 0]

    def fn(x):
        return sum((coefficient * polynomial(x) for coefficient, polynomial in terms), jnp.zeros_like(x))

    return Activation(f"alpha = {alpha:g}", fn)


def koenigs(activation: Activation, deficit: Float[Array, "..."]) -> Float[Array, "..."]:
    """Kappa at z = 1 - deficit, elementwise; infinite at z = 1.

    As exact as `deficit` is, at both ends of (0, 2): relative error below 1e-12 in float64. Differentiable forwards.

    **Raises:** `ValueError` for an activation whose limit is not the singular (or linear) kernel, or whose Hermite
    series does not converge in double precision (it has kinks), and for a deficit outside of [0, 2].
    """
    _series(activation)
    if not is_traced(deficit) and not ((np.asarray(deficit) >= 0) & (np.asarray(deficit) <= 2)).all():
        raise ValueError(f"deficit={deficit}: give 1 - z with a cosine z, in [0, 2]")
    return _koenigs(activation, jnp.asarray(deficit))


def kernel(
    activation: Activation, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None
) -> Float[Array, "n1 n2"]:
    """Kappa between the directions of inputs; infinite where they are the same. `x2=None` is x1 again."""
    require_finite(x1=x1, **({} if x2 is None else {"x2": x2}))
    return koenigs(activation, of_inputs(x1, x2).deficit)


class Deep(NamedTuple):
    """Kernels of a deep network in units of their limit: S_L / a_1^(2 L) and Theta_L / (a_1^(2 L) (L + 1))."""

    nngp: Float[Array, "..."]
    ntk: Float[Array, "..."]


def deep(activation: Activation, deficit: Float[Array, "..."], *, depth: int) -> Deep:
    """The kernels of `depth` hidden layers, layer by layer, at z = 1 - deficit: what [`koenigs`] is the limit of.

    Their errors fall like a_1^(2 depth) and 1 / depth, once depth is above 1 / (1 - z).
    """
    if depth < 0:
        raise ValueError(f"depth={depth}: give a whole number >= 0")
    return _deep(activation, jnp.asarray(deficit), depth)


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


class Series(NamedTuple):
    """Psi and kappa as power series, from z^1 on; all of the coefficients are positive but the `alternating` ones.

    `powers` = a_j^2, `tails` = sums of the powers from j on, `alternating` = those of (-1)^(j + 1) a_j^2, `koenigs` =
    coefficients of kappa; `even`: sum of the even powers.
    """

    powers: Float[np.ndarray, " degrees"]
    tails: Float[np.ndarray, " degrees"]
    alternating: Float[np.ndarray, " degrees"]
    koenigs: Float[np.ndarray, " terms"]
    even: float


@cache
def _series(activation: Activation) -> Series:
    found = limit(activation)
    if found.code not in (SINGULAR_KERNEL, LINEAR):
        raise ValueError(
            f"activation {activation.name!r} has no singular kernel: infinitely deep, its rule is the {found.label}"
        )
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())
        square = float(gaussian_mean(lambda x: activation.fn(x) ** 2, one, activation.kinks))
        powers = np.asarray(hermite_coefficients(activation.fn, one, DEGREE), float)[1:] ** 2 / square
    eps = float(jnp.finfo(one.dtype).eps)
    if abs(powers.sum() - 1) > 1e3 * eps:
        raise ValueError(
            f"the Hermite series of {activation.name!r} holds {powers.sum():.10f} of its power up to the degree "
            f"{DEGREE}: give an activation without kinks, or a less steep one"
        )
    powers = np.trim_zeros(np.where(powers > 1e-4 * eps, powers, 0.0), "b")
    powers /= powers.sum()
    signed = powers * (-1.0) ** np.arange(len(powers))
    tails, alternating = (np.cumsum(row[::-1])[::-1] for row in (powers, signed))
    return Series(powers, tails, alternating, _koenigs_series(powers), float(powers[1::2].sum()))


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
    new, m = z * _sum(series.powers, z), jnp.abs(z)
    above = gap * _sum(series.tails, m)
    below = 2 * series.even + gap * _sum(series.alternating, m)
    gap = jnp.where(z >= 0, above, jnp.where(new < 0, below, 1 - new))
    return jnp.where(gap < 0.5, jnp.copysign(1 - gap, new), new), gap  # near 1, layers would multiply errors of z


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
    of_derivative = series.powers * np.arange(1, len(series.powers) + 1)

    def layer(state, _):
        z, gap, nngp, ntk = state
        nngp = nngp * _sum(series.powers, z) / slope
        return (*_layer(series, z, gap), nngp, nngp + ntk * _sum(of_derivative, z) / slope), None

    z, gap = _ends(deficit)
    (_, _, nngp, ntk), _ = jax.lax.scan(layer, (z, gap, z, z), None, length=depth)
    return Deep(nngp, ntk / (depth + 1))
