"""abc-parametrisations: how initialisation, multipliers and learning rate scale with the width of a network.

The weights of layer l = 1 ... L + 1 of a network of width n are W^l = n^-a_l w^l with w^l ~ N(0, n^-2b_l), trained by
gradient descent on w at the learning rate learning_rate n^-c (Yang & Hu, arXiv:2011.14522). Layer 1 reads inputs of
fixed dimension, layer L + 1 is the readout. Two exponents per layer are all that matters, since

    W^l(0) ~ n^-(a_l + b_l),    a step of W^l is -learning_rate n^-(2 a_l + c) dLoss/dW^l.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.checks import require_count
from theorysim.typing import ScalarLike, as_floats


class Parametrisation(NamedTuple):
    """Exponents of the width: multipliers n^-a, standard deviations n^-b, one per layer; learning rate n^-c."""

    a: Float[Array, " layers"]
    b: Float[Array, " layers"]
    c: ScalarLike


def standard(depth: int, *, c: ScalarLike = 0.0) -> Parametrisation:
    """SP, the usual initialisation, with `depth` hidden layers: stable from c = 1 on, and then a kernel method."""
    return _named(depth, a=(0.0, 0.0, 0.0), b=(0.0, 0.5, 0.5), c=c)


def ntk(depth: int) -> Parametrisation:
    """NTP (Jacot et al., arXiv:1806.07572): the largest learning rate of the kernel regime."""
    return _named(depth, a=(0.0, 0.5, 0.5), b=(0.0, 0.0, 0.0), c=0.0)


def mean_field(depth: int) -> Parametrisation:
    """MFP: 1 / n in front of every sum. With one hidden layer it is [`mup`]; with more, its initial signal vanishes."""
    return _named(depth, a=(0.0, 1.0, 1.0), b=(0.0, 0.0, 0.0), c=-1.0)


def mup(depth: int) -> Parametrisation:
    """The maximal update parametrisation (arXiv:2011.14522, table 1): every layer learns, at any width."""
    return _named(depth, a=(-0.5, 0.0, 0.5), b=(0.5, 0.5, 0.5), c=0.0)


def integrable(depth: int) -> Parametrisation:
    """IP (Hajjar, Chizat & Giraud, arXiv:2110.15596): [`mean_field`] whose inner layers step n times further.

    There w^l has the learning rate n in the outer layers and n^2 in the inner ones; here, one rate and another gauge.
    """
    return _named(depth, a=(0.0, 0.5, 1.0), b=(0.0, 0.5, 0.0), c=-1.0)


def _named(depth: int, a: tuple, b: tuple, c: ScalarLike) -> Parametrisation:
    require_count(depth=depth)

    def layers(exponents: tuple) -> Array:
        first, inner, last = exponents
        return jnp.array([first, *[inner] * (depth - 1), last])

    return Parametrisation(layers(a), layers(b), jnp.asarray(c, jnp.result_type(float)))


def shift(parametrisation: Parametrisation, theta: ScalarLike) -> Parametrisation:
    """(a + theta, b - theta, c - 2 theta): the same network, trained to the same functions."""
    a, b, c = exponents_of(parametrisation)
    return Parametrisation(a + theta, b - theta, c - 2 * theta)


class Invariants(NamedTuple):
    """What [`shift`] leaves alone: W(0) ~ n^-initial, and a step of W is -learning_rate n^-rate dLoss/dW."""

    initial: Float[Array, " layers"]
    rate: Float[Array, " layers"]


def invariants(parametrisation: Parametrisation) -> Invariants:
    """`initial` = a + b and `rate` = 2 a + c, one per layer."""
    a, b, c = exponents_of(parametrisation)
    return Invariants(a + b, 2 * a + c)


def from_invariants(initial: Float[Array, " layers"], rate: Float[Array, " layers"]) -> Parametrisation:
    """The parametrisation with c = 0 that has these [`Invariants`]. Any two vectors are possible."""
    initial, rate = as_floats(initial, rate)
    return Parametrisation(*exponents_of(Parametrisation(rate / 2, initial - rate / 2, 0.0)))


def exponents_of(parametrisation: Parametrisation) -> tuple[Array, Array, Array]:
    """a, b and c as arrays; `ValueError` where their shapes are not those of one parametrisation."""
    a, b, c = as_floats(*parametrisation)
    if a.shape != b.shape or a.ndim != 1 or a.size < 2 or c.ndim:
        raise ValueError(
            f"a has shape {a.shape}, b {b.shape}, c {c.shape}: give (layers,), (layers,) and (), with layers >= 2; "
            "jax.vmap over many parametrisations"
        )
    return a, b, c
