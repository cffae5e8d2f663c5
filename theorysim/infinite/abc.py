"""abc-parametrisations: which wide networks learn features, and how hyperparameters move with width.

The weights of layer l = 1 ... L + 1 of a network of width n are W^l = n^-a_l w^l with w^l ~ N(0, n^-2b_l), trained by
gradient descent on w at the learning rate learning_rate n^-c (Yang & Hu, arXiv:2011.14522). Layer 1 reads inputs of
fixed dimension, layer L + 1 is the readout. Two exponents a layer are all that matters, since

    W^l(0) ~ n^-(a_l + b_l),    a step of W^l is -learning_rate n^-(2 a_l + c) dLoss/dW^l.

Every function takes one parametrisation of arrays (layers,) and a number: `jax.vmap` it over thousands. Conditions
between exponents hold up to the root of the dtype's rounding, 1e-8 in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from theorysim.typing import Scalar, ScalarLike, as_floats


class Parametrisation(NamedTuple):
    """Exponents of the width: multipliers n^-a, standard deviations n^-b, one a layer; learning rate n^-c."""

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
    if depth < 1:
        raise ValueError(f"depth={depth}: give at least one hidden layer")

    def layers(exponents: tuple) -> Array:
        first, inner, last = exponents
        return jnp.array([first, *[inner] * (depth - 1), last])

    return Parametrisation(layers(a), layers(b), jnp.asarray(c, jnp.result_type(float)))


def shift(parametrisation: Parametrisation, theta: ScalarLike) -> Parametrisation:
    """(a + theta, b - theta, c - 2 theta): the same network, trained to the same functions."""
    a, b, c = _exponents(parametrisation)
    return Parametrisation(a + theta, b - theta, c - 2 * theta)


class Invariants(NamedTuple):
    """What [`shift`] leaves alone: W(0) ~ n^-initial, and a step of W is -learning_rate n^-rate dLoss/dW."""

    initial: Float[Array, " layers"]
    rate: Float[Array, " layers"]


def invariants(parametrisation: Parametrisation) -> Invariants:
    """`initial` = a + b and `rate` = 2 a + c, one a layer."""
    a, b, c = _exponents(parametrisation)
    return Invariants(a + b, 2 * a + c)


def from_invariants(initial: Float[Array, " layers"], rate: Float[Array, " layers"]) -> Parametrisation:
    """The parametrisation with c = 0 that has these [`Invariants`]. Any two vectors are possible."""
    initial, rate = as_floats(initial, rate)
    return Parametrisation(*_exponents(Parametrisation(rate / 2, initial - rate / 2, 0.0)))


class Changes(NamedTuple):
    """Exponents of what training does in O(1) steps: coordinates of h^l change by n^-hidden[l - 1], f by n^-output."""

    hidden: Float[Array, " depth"]
    output: Scalar


def changes(parametrisation: Parametrisation, *, first_step: bool = False) -> Changes:
    """How the changes of preactivations and output scale with the width, for activations without symmetries like tanh.

    A hidden layer moves by its own step, and with the layers below it; both are driven by the readout, at first the
    initial one, later what has been learnt as well (arXiv:2011.14522, section 3):

        hidden_l = drive - 1 + min_{m <= l} (2 a_m + c + [m = 1]),
        drive    = min(a_{L+1} + b_{L+1}, 2 a_{L+1} + c), without the second of the two in the `first_step`,
        output   = min(2 a_{L+1} + c, a_{L+1} + b_{L+1} + hidden_L) - 1.

    Valid where the initial signal neither vanishes nor explodes: a_1 + b_1 = 0, inner a_l + b_l = 1/2. From the second
    step on where also [`is_stable`].

    In the `first_step` signals may also shrink, on the way up and on the way down, as those of [`integrable`] and
    [`mean_field`] do: by n^-s_l up to layer l, s_l = sum_{1 < m <= l} (a_m + b_m - 1/2) with a_1 + b_1 = 0. Then

        hidden_l = s_l + drive - 1 + min_{m <= l} (2 a_m + c + [m = 1] + s_L - 2 s_m + 2 s_{m-1}),
        output   = min(2 a_{L+1} + c + 2 s_L, a_{L+1} + b_{L+1} + hidden_L) - 1

    for an activation with phi(0) = 0 and phi'(0) != 0.
    """
    initial, rate = invariants(parametrisation)
    drive = initial[-1] if first_step else jnp.minimum(initial[-1], rate[-1])
    shrunk = jnp.cumsum((initial[:-1] - 0.5).at[0].set(0.0)) if first_step else jnp.zeros_like(rate[:-1])
    below = jnp.roll(shrunk, 1).at[0].set(0.0)
    steps = rate[:-1].at[0].add(1.0) + shrunk[-1] - 2 * shrunk + 2 * below
    hidden = shrunk + drive - 1 + jax.lax.cummin(steps)
    return Changes(hidden, jnp.minimum(rate[-1] + 2 * shrunk[-1], initial[-1] + hidden[-1]) - 1)


def exponent(parametrisation: Parametrisation) -> Scalar:
    """The r of arXiv:2011.14522: the last hidden layer changes by n^-r. Features are learnt where r = 0."""
    return changes(parametrisation).hidden[-1]


def is_stable(parametrisation: Parametrisation) -> Bool[Array, ""]:
    """Whether signals are O(1) in the hidden layers and at most O(1) in the output, initially and throughout training.

    a_1 + b_1 = 0, inner a_l + b_l = 1/2, a_{L+1} + b_{L+1} >= 1/2, r >= 0, and output >= 0 in [`changes`].
    """
    initial, _ = invariants(parametrisation)
    hidden, output = changes(parametrisation)
    wanted = jnp.full_like(initial[:-1], 0.5).at[0].set(0.0)
    starts = _equal(initial[:-1], wanted).all() & _at_least(initial[-1], 0.5)
    return starts & _at_least(hidden[-1], 0.0) & _at_least(output, 0.0)


def is_nontrivial(parametrisation: Parametrisation) -> Bool[Array, ""]:
    """Whether it is stable and its output moves by O(1): output = 0 in [`changes`]."""
    return is_stable(parametrisation) & _equal(changes(parametrisation).output, 0.0)


REGIMES = ("unstable", "trivial", "kernel", "feature")
"""The names of what [`regime`] returns."""


def regime(parametrisation: Parametrisation) -> Int[Array, ""]:
    """Index into [`REGIMES`]; a stable, nontrivial network either learns features or is a kernel method.

    (arXiv:2011.14522, the dynamical dichotomy.) "unstable" covers initial signals that vanish in the hidden layers.
    """
    learns = _equal(exponent(parametrisation), 0.0)
    moves = jnp.where(is_nontrivial(parametrisation), jnp.where(learns, 3, 2), 1)
    return jnp.where(is_stable(parametrisation), moves, 0)


def _exponents(parametrisation: Parametrisation) -> tuple[Array, Array, Array]:
    a, b, c = as_floats(*parametrisation)
    if a.shape != b.shape or a.ndim != 1 or a.size < 2 or c.ndim:
        raise ValueError(
            f"a has shape {a.shape}, b {b.shape}, c {c.shape}: give (layers,), (layers,) and (), with layers >= 2; "
            "jax.vmap over many parametrisations"
        )
    return a, b, c


def _equal(x: Array, y: ScalarLike | Array) -> Array:
    return abs(x - y) < jnp.finfo(x.dtype).eps ** 0.5


def _at_least(x: Array, y: ScalarLike) -> Array:
    return x > y - jnp.finfo(x.dtype).eps ** 0.5


ROLES = ("input", "hidden", "readout", "bias", "fixed")
"""What a parameter's dimensions do as the width grows; see [`transfer`]."""


class Scaling(NamedTuple):
    """Factors on the hyperparameters of a parameter, as the width grows to `ratio` times the base width.

    `learning_rate`; `initial_std`; `multiplier` in front of the weights. `weight_decay` is the factor where the decay
    of a step is learning_rate * weight_decay, as in `optax.adamw`; a decay that is its own rate needs none.
    """

    learning_rate: Scalar
    initial_std: Scalar
    multiplier: Scalar
    weight_decay: Scalar


def transfer(role: str, ratio: ScalarLike, *, optimizer: str) -> Scaling:
    """How to scale hyperparameters found at a base width: at every width the best ones are then the same.

    Powers of `ratio` = width / base width, as in version 1.0 of Microsoft's `mup` (Yang et al., arXiv:2203.03466):

    | role      | learning rate (SGD) | (Adam) | initial std | multiplier | what                                    |
    |-----------|---------------------|--------|-------------|------------|-----------------------------------------|
    | `input`   | 1                   | 0      | 0           | 0          | weights from a fixed dimension to width |
    | `hidden`  | 0                   | -1     | -1/2        | 0          | from width to width                     |
    | `readout` | 1                   | 0      | 0           | -1         | from width to a fixed dimension         |
    | `bias`    | 1                   | 0      | 0           | 0          | vectors of length width                 |
    | `fixed`   | 0                   | 0      | 0           | 0          | no dimension grows: the readout's bias  |

    The usual scaling, an initial std of 1 / sqrt(fan_in) and nothing else, is each width as its own base: `ratio` = 1.
    Attention logits also need 1 / head dimension in place of its root.

    **Raises:** `ValueError` for an unknown `role`, and for an `optimizer` other than "sgd" and "adam".
    """
    for what, value, known in (("role", role, ROLES), ("optimizer", optimizer, ("sgd", "adam"))):
        if value not in known:
            raise ValueError(f"{what}={value!r}: give one of {', '.join(known)}")
    vector_like = role in ("input", "readout", "bias")
    rate = {"sgd": 1.0 if vector_like else 0.0, "adam": -1.0 if role == "hidden" else 0.0}[optimizer]
    std, multiplier = -0.5 if role == "hidden" else 0.0, -1.0 if role == "readout" else 0.0
    (ratio,) = as_floats(ratio)
    return Scaling(*(ratio**power for power in (rate, std, multiplier, -rate)))
