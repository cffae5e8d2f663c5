"""Which wide networks learn features: the regimes of abc-parametrisations (Yang & Hu, arXiv:2011.14522).

[`Parametrisation`] says what the exponents a, b and c are. Every function takes one parametrisation of arrays
(layers,) and a number: `jax.vmap` it over thousands. Conditions between exponents hold up to the root of the dtype's
rounding, 1e-8 in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from theorysim.parametrisation import Invariants as Invariants
from theorysim.parametrisation import Parametrisation as Parametrisation
from theorysim.parametrisation import from_invariants as from_invariants
from theorysim.parametrisation import integrable as integrable
from theorysim.parametrisation import invariants as invariants
from theorysim.parametrisation import mean_field as mean_field
from theorysim.parametrisation import mup as mup
from theorysim.parametrisation import ntk as ntk
from theorysim.parametrisation import shift as shift
from theorysim.parametrisation import standard as standard
from theorysim.transfer import ROLES as ROLES
from theorysim.transfer import Scaling as Scaling
from theorysim.transfer import transfer as transfer
from theorysim.typing import Scalar, ScalarLike


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


def feature_exponent(parametrisation: Parametrisation) -> Scalar:
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
    learns = _equal(feature_exponent(parametrisation), 0.0)
    moves = jnp.where(is_nontrivial(parametrisation), jnp.where(learns, 3, 2), 1)
    return jnp.where(is_stable(parametrisation), moves, 0)


def _equal(x: Array, y: ScalarLike | Array) -> Array:
    return abs(x - y) < jnp.finfo(x.dtype).eps ** 0.5


def _at_least(x: Array, y: ScalarLike) -> Array:
    return x > y - jnp.finfo(x.dtype).eps ** 0.5
