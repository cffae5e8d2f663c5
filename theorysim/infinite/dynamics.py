"""Training an infinitely wide network by full-batch gradient descent on the mean squared error.

The network is linear in its parameters, so that each eigenvector of the tangent kernel relaxes on its own
(Jacot et al., arXiv:1806.07572): after one eigendecomposition, any time of any of these rules costs O(n) per mode.
Lee et al., arXiv:1902.06720, eqs. 14 to 16, treat gradient flow; in discrete time the learning rate need not be small.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.checks import require_finite, require_nonnegative
from theorysim.typing import ScalarLike


class Modes(NamedTuple):
    """The tangent kernel of the training set in its eigenbasis: kernel = vectors * values @ vectors.T."""

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]


def modes(ntk: Float[Array, "n n"]) -> Modes:
    """Eigendecomposition of the training set's tangent kernel: O(n^3) once, for any number of times.

    **Raises:** `ValueError` for a kernel that is not finite.
    """
    require_finite(ntk=ntk)
    return Modes(*jnp.linalg.eigh(ntk))


def largest_learning_rate(modes: Modes, momentum: ScalarLike = 0.0) -> Float[Array, ""]:
    """2 (1 + momentum) n / lambda_max: gradient descent on the mean over n inputs of (f - y)^2 / 2 diverges above."""
    return 2 * (1 + momentum) * modes.values.size / modes.values[-1]


def response(
    modes: Modes,
    cross: Float[Array, "m n"],
    *,
    steps: ScalarLike,
    learning_rate: ScalarLike,
    momentum: ScalarLike | None = None,
) -> Float[Array, "m n"]:
    """M with f_t(x) = f_0(x) + M (y - f_0(X)), after `steps` of gradient descent.

    M = Theta(x, X) Theta^-1 (1 - (1 - learning_rate Theta / n)^steps): exact at any learning rate, for the loss
    mean (f - y)^2 / 2.

    **Arguments:** `cross` = Theta(x, X). `steps` is a whole number. With `momentum`, a step is -learning_rate v, with
    v <- momentum v + gradient (Polyak 1964; optax.sgd).

    **Raises:** `ValueError` for negative steps or learning rate.
    """
    require_nonnegative(steps=steps, learning_rate=learning_rate)
    rate = learning_rate * _floored(modes) / modes.values.size
    learnt = _descended(rate, jnp.asarray(steps, rate.dtype)) if momentum is None else _rolled(rate, steps, momentum)
    return _respond(modes, cross, learnt)


def flow_response(modes: Modes, cross: Float[Array, "m n"], *, time: ScalarLike) -> Float[Array, "m n"]:
    """The same under gradient flow, df/dt = -gradient: M = Theta(x, X) Theta^-1 (1 - exp(-Theta time / n)).

    `time` is learning_rate * steps, of small steps; it may be infinite.

    **Raises:** `ValueError` for a negative time.
    """
    require_nonnegative(time=time)
    values = _floored(modes)
    rate = jnp.where(values > 0, time * jnp.where(values > 0, values, 1.0) / values.size, 0.0)
    return _respond(modes, cross, -jnp.expm1(-rate))


def _floored(modes: Modes) -> Float[Array, " n"]:
    """Eigenvalues >= 0: a null mode's rounding must not grow."""
    return jnp.maximum(modes.values, 0)


def _respond(modes: Modes, cross: Float[Array, "m n"], learnt: Float[Array, " n"]) -> Float[Array, "m n"]:
    floor = jnp.finfo(learnt.dtype).eps * modes.values[-1]
    return ((cross @ modes.vectors) * (learnt / jnp.maximum(modes.values, floor))[None, :]) @ modes.vectors.T


def _descended(rate: Float[Array, " n"], steps: ScalarLike) -> Float[Array, " n"]:
    """1 - (1 - rate)^steps: what each mode has learnt."""
    # log1p keeps the slow modes' digits; a mode that overshoots (rate > 1) alternates in sign.
    slow = rate < 0.5
    return jnp.where(
        slow,
        -jnp.expm1(steps * jnp.log1p(-jnp.where(slow, rate, 0.0))),
        1 - jnp.where(slow, 0.5, 1 - rate) ** steps,
    )


def _rolled(rate: Float[Array, " n"], steps: ScalarLike, momentum: ScalarLike) -> Float[Array, " n"]:
    """With momentum: learnt <- learnt + gain, gain <- momentum gain + rate (1 - learnt), by repeated squaring."""
    one, zero = jnp.ones_like(rate), jnp.zeros_like(rate)
    rolling = momentum * one
    # Acts on (learnt, gain, 1); no row subtracts numbers that are nearly equal.
    matrix = jnp.stack(
        [jnp.stack(row, -1) for row in ((1 - rate, rolling, rate), (-rate, rolling, rate), (zero, zero, one))], -2
    )

    def bit(_, carry):
        power, square, left = carry
        power = jnp.where(left % 2 == 1, power @ square, power)
        return power, square @ square, left // 2

    unit = jnp.broadcast_to(jnp.eye(3, dtype=rate.dtype), matrix.shape)
    return jax.lax.fori_loop(0, 31, bit, (unit, matrix, jnp.asarray(steps, jnp.int32)))[0][:, 0, 2]


class Ensemble(NamedTuple):
    """Outputs of randomly initialised networks after training: Gaussian, with this mean and variance."""

    mean: Float[Array, "m outputs"]
    variance: Float[Array, " m"]


def ensemble(
    response: Float[Array, "m n"],
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, " m"],
    targets: Float[Array, "n outputs"],
) -> Ensemble:
    """Mean and variance of the trained outputs over initialisations (arXiv:1902.06720, eqs. 14 to 16).

    `response` is M of [`response`]; `kernel` = K(X, X), `cross` = K(x, X) and `prior` = K(x, x) are the NNGP
    covariances of the outputs at initialisation. The variance is that of each output.
    """
    variance = prior + ((response @ kernel - 2 * cross) * response).sum(1)
    return Ensemble(response @ targets, variance)


def ensemble_covariance(
    response: Float[Array, "m n"],
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior: Float[Array, "m m"],
) -> Float[Array, "m m"]:
    """Covariance of the trained outputs at m inputs over initialisations, K(x, x') being the `prior`.

    S_t = K + M K(X, X) M^T - M K(X, x') - K(x, X) M^T (arXiv:1902.06720, eq. 15); its diagonal is the variance of
    [`ensemble`].
    """
    mixed = response @ cross.T
    return prior + response @ kernel @ response.T - mixed - mixed.T
