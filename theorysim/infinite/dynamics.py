"""Training an infinitely wide network by full-batch gradient descent on the mean squared error.

The network is linear in its parameters, so that each eigenvector of the tangent kernel relaxes on its own
(Jacot et al., arXiv:1806.07572). Lee et al., arXiv:1902.06720, eqs. 14 to 16, give it for gradient flow; here time
is discrete, and the learning rate need not be small.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.typing import ScalarLike


class Modes(NamedTuple):
    """The tangent kernel of the training set in its eigenbasis: kernel = vectors * values @ vectors.T."""

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]


def modes(ntk: Float[Array, "n n"]) -> Modes:
    """Eigendecomposition of the training set's tangent kernel: O(n^3) once, for any number of times."""
    return Modes(*jnp.linalg.eigh(ntk))


def largest_learning_rate(modes: Modes) -> Float[Array, ""]:
    """2 n / lambda_max: gradient descent on the mean over n inputs of (f - y)^2 / 2 diverges above."""
    return 2 * modes.values.size / modes.values[-1]


def response(
    modes: Modes,
    cross: Float[Array, "m n"],
    *,
    step: ScalarLike,
    learning_rate: ScalarLike,
) -> Float[Array, "m n"]:
    """M with f_t(x) = f_0(x) + M (y - f_0(X)), after `step` steps of gradient descent.

    M = Theta(x, X) Theta^-1 (1 - (1 - learning_rate Theta / n)^step): exact at any learning rate, for the loss
    mean (f - y)^2 / 2. `cross` = Theta(x, X); `step` is a whole number.
    """
    values = jnp.maximum(modes.values, 0)  # a null mode's rounding must not grow
    rate = learning_rate * values / values.size
    # log1p keeps the slow modes' digits; a mode that overshoots (rate > 1) alternates in sign.
    slow = rate < 0.5
    learnt = jnp.where(
        slow,
        -jnp.expm1(step * jnp.log1p(-jnp.where(slow, rate, 0.0))),
        1 - jnp.where(slow, 0.5, 1 - rate) ** step,
    )
    floor = jnp.finfo(rate.dtype).eps * values[-1]
    return ((cross @ modes.vectors) * (learnt / jnp.maximum(values, floor))[None, :]) @ modes.vectors.T


class Ensemble(NamedTuple):
    """Outputs of randomly initialised networks after training: Gaussian, with this mean and variance."""

    mean: Float[Array, "m outputs"]
    variance: Float[Array, " m"]


def ensemble(
    response: Float[Array, "m n"],
    train: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, " m"],
    targets: Float[Array, "n outputs"],
) -> Ensemble:
    """Mean and variance of the trained outputs over initialisations (arXiv:1902.06720, eqs. 14 to 16).

    `response` is M of [`response`]; `train` = K(X, X), `cross` = K(x, X) and `prior` = K(x, x) are the NNGP
    covariances of the outputs at initialisation. The variance is that of each output.
    """
    variance = prior + ((response @ train - 2 * cross) * response).sum(1)
    return Ensemble(response @ targets, variance)
