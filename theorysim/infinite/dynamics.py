"""Training an infinitely wide network by full-batch gradient descent on the mean squared error.

The network is linear in its parameters, so that each eigenvector of the tangent kernel relaxes on its own
(Jacot et al., arXiv:1806.07572): after one eigendecomposition, any time of any of these rules costs O(n) per mode.
Lee et al., arXiv:1902.06720, eqs. 14 to 16, treat gradient flow; in discrete time the learning rate need not be small.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.checks import require_finite, require_nonnegative, require_shape, require_targets, require_whole
from theorysim.infinite.spectral import Modes, eigenbasis, times
from theorysim.typing import ScalarLike


def modes(ntk: Float[Array, "n n"]) -> Modes:
    """Eigendecomposition of the training set's tangent kernel: O(n^3) once, for any number of times.

    **Raises:** `ValueError` for a kernel that is not finite.
    """
    require_finite(ntk=ntk)
    return eigenbasis(ntk)


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
    mean (f - y)^2 / 2. What the network cannot tell apart, such as duplicates with different targets, it does not
    learn, however many the steps: eigenvalues below n eps lambda_max, which are rounding, then count as 0. They do
    where steps learning_rate lambda_max > 1 / sqrt(eps); below, either choice errs by sqrt(eps), 1e-8 in float64.

    **Arguments:** `cross` = Theta(x, X). `steps` is a whole number. With `momentum`, a step is -learning_rate v, with
    v <- momentum v + gradient (Polyak 1964; optax.sgd).

    **Raises:** `ValueError` for steps that are no whole number >= 0, as many as the dtype cannot count, and a negative
    learning rate.
    """
    require_whole(steps=steps)
    require_nonnegative(learning_rate=learning_rate)
    rate = jnp.asarray(learning_rate, modes.values.dtype) / modes.values.size
    if momentum is None:
        steps = jnp.asarray(steps, rate.dtype)
        return times(_descended, cross, modes, rate, steps, _null(modes, rate * steps))
    momentum = jnp.asarray(momentum, rate.dtype)
    total = rate * jnp.asarray(steps, rate.dtype) / jnp.maximum(1 - momentum, jnp.finfo(rate.dtype).tiny)
    return times(_rolled, cross, modes, rate, jnp.asarray(steps, jnp.result_type(int)), momentum, _null(modes, total))


def flow_response(modes: Modes, cross: Float[Array, "m n"], *, time: ScalarLike) -> Float[Array, "m n"]:
    """The same under gradient flow, df/dt = -gradient: M = Theta(x, X) Theta^-1 (1 - exp(-Theta time / n)).

    `time` is learning_rate * steps, of small steps; it may be infinite.

    **Raises:** `ValueError` for a negative time.
    """
    require_nonnegative(time=time)
    rate = jnp.asarray(time, modes.values.dtype) / modes.values.size
    return times(_flowed, cross, modes, rate, _null(modes, rate))


# What the modes have learnt, per eigenvalue. Those at or below `null` count as 0.


def _null(modes: Modes, rate: Array) -> Float[Array, ""]:
    """An eigenvalue that is rounding, n eps lambda_max; -infinity where nothing has been learnt of it yet."""
    eps = jnp.finfo(modes.values.dtype).eps
    null = modes.values.size * eps * jnp.abs(modes.values).max()
    return jax.lax.stop_gradient(jnp.where(rate * null < eps**0.5, -jnp.inf, null))


def _per_value(learnt: Array, values: Array, null: Array) -> Array:
    return jnp.where(values > null, learnt / values, 0.0)


def _positive(values: Array) -> Array:
    """Rounding of either sign, or 0, becomes a positive number so small that only the first order of it is learnt."""
    return jnp.maximum(values, jnp.finfo(values.dtype).tiny ** 0.5)


def _flowed(values: Array, rate: Array, null: Array) -> Array:
    """(1 - exp(-value rate)) / value, up to infinite rates."""
    values, ends = _positive(values), jnp.isinf(rate)
    learnt = jnp.where(ends, 1.0, -jnp.expm1(-values * jnp.where(ends, 0.0, rate)))
    return _per_value(learnt, values, null)


def _descended(values: Array, rate: Array, steps: Array, null: Array) -> Array:
    """(1 - (1 - value rate)^steps) / value."""
    # log1p keeps the slow modes' digits; a mode that overshoots (value rate > 1) alternates in sign.
    values, steps = _positive(values), jax.lax.stop_gradient(steps)  # whole numbers
    step = values * rate
    slow = step < 0.5
    learnt = jnp.where(
        slow,
        -jnp.expm1(steps * jnp.log1p(-jnp.where(slow, step, 0.0))),
        1 - jnp.where(slow, 0.5, 1 - step) ** steps,
    )
    return _per_value(learnt, values, null)


def _rolled(values: Array, rate: Array, steps: Array, momentum: Array, null: Array) -> Array:
    """With momentum: learnt <- learnt + gain, gain <- momentum gain + value rate (1 - learnt), by repeated squaring."""
    values = _positive(values)
    step = values * rate
    one, zero = jnp.ones_like(step), jnp.zeros_like(step)
    rolling = momentum * one
    # Acts on (learnt, gain, 1); no row subtracts numbers that are nearly equal.
    matrix = jnp.stack(
        [jnp.stack(row, -1) for row in ((1 - step, rolling, step), (-step, rolling, step), (zero, zero, one))], -2
    )

    def bit(_, carry):
        power, square, left = carry
        power = jnp.where(left % 2 == 1, power @ square, power)
        return power, square @ square, left // 2

    unit = jnp.broadcast_to(jnp.eye(3, dtype=step.dtype), matrix.shape)
    learnt = jax.lax.fori_loop(0, jnp.iinfo(steps.dtype).bits - 1, bit, (unit, matrix, steps))[0][..., 0, 2]
    return _per_value(learnt, values, null)


class Ensemble(NamedTuple):
    """Outputs of randomly initialised networks after training: Gaussian, with this mean and variance of each."""

    mean: Float[Array, "m *outputs"]
    variance: Float[Array, " m"]


def ensemble(
    response: Float[Array, "m n"],
    kernel: Float[Array, "n n"],
    cross: Float[Array, "m n"],
    prior_var: Float[Array, " m"],
    targets: Float[Array, "n *outputs"],
) -> Ensemble:
    """Mean and variance of the trained outputs over initialisations (arXiv:1902.06720, eqs. 14 to 16).

    `response` is M of [`response`]; `kernel` = K(X, X), `cross` = K(x, X) and `prior_var` = K(x, x), the variances
    alone, are the NNGP covariances of the outputs at initialisation.

    **Raises:** `ValueError` for shapes that do not belong together.
    """
    _check_blocks(response, kernel, cross)
    require_shape((len(response),), prior_var=prior_var)
    require_targets(len(kernel), targets=targets)
    variance = prior_var + ((response @ kernel - 2 * cross) * response).sum(1)
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

    **Raises:** `ValueError` for shapes that do not belong together.
    """
    _check_blocks(response, kernel, cross)
    require_shape((len(response), len(response)), prior=prior)
    mixed = response @ cross.T
    return prior + response @ kernel @ response.T - mixed - mixed.T


def _check_blocks(response: Array, kernel: Array, cross: Array) -> None:
    m, n = response.shape
    require_shape((n, n), kernel=kernel)
    require_shape((m, n), cross=cross)
