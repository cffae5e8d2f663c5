"""Robust least squares on log losses: a damped Newton method that finds its way through an almost absolute objective.

The residuals r = log loss - log prediction of training runs have heavy tails, so they are fitted by the Huber function
of a knee delta far below their size (Hoffmann et al., arXiv:2203.15556: 1e-3), which is close to least absolute
deviations, stiff, and flat far from the optimum. Three devices make one start nearly always enough:

- the knee begins at the largest residual (least squares) and halves down to delta, each stage starting from the last;
- while the knee is of the size of the residuals, a step is that of reweighted least squares, which majorises the
  objective; below that, and once the last stage has settled, it is Newton's, whose Hessian sees the curvature of the
  law, and ends in a handful of steps;
- the damping is Marquardt's, and the method is blind to the units of the parameters up to it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from theorysim.typing import Scalar, ScalarLike

LEAST_ABSOLUTE = 1e-7
ZERO = 1e-14  # of a log loss: the rounding of a prediction


class Objective(NamedTuple):
    """sum_i w_i rho(r_i): rho = r^2 / 2 up to |r| = delta, delta (|r| - delta / 2) beyond; all of it times `scale`.

    Residuals below zero, where the prediction lies above the loss, count `overestimate` times.
    """

    delta: ScalarLike
    scale: ScalarLike = 1.0
    overestimate: ScalarLike = 1.0

    def rho(self, residual: Float[Array, " runs"]) -> Float[Array, " runs"]:
        """The loss of each residual."""
        size = jnp.abs(residual)
        inner = jnp.minimum(size, self.delta)
        return self.scale * self.side(residual) * inner * (size - inner / 2)

    def side(self, residual: Float[Array, " runs"]) -> Float[Array, " runs"]:
        """1, or `overestimate` for a prediction above the loss."""
        return jnp.where(residual < 0, self.overestimate, 1.0)


def huber(delta: ScalarLike = 1e-3, *, overestimate: ScalarLike = 1.0) -> Objective:
    """The objective of Hoffmann et al. (arXiv:2203.15556, appendix D)."""
    return Objective(delta, 1.0, overestimate)


def least_absolute(*, overestimate: ScalarLike = 1.0) -> Objective:
    """The sum of |r|, whose optimum Besiroglu et al. (arXiv:2404.10102) print: a Huber function of knee 1e-7."""
    return Objective(LEAST_ABSOLUTE, 1 / LEAST_ABSOLUTE, overestimate)


def least_squares(*, overestimate: ScalarLike = 1.0) -> Objective:
    """The sum of r^2 / 2."""
    return Objective(jnp.inf, 1.0, overestimate)


class Optimum(NamedTuple):
    """A stationary point, the objective there, the norm of its gradient relative to it, and whether the search ended.

    The gradient is of the logarithm of the objective, in the fit's coordinates.
    """

    point: Float[Array, " parameters"]
    value: Scalar
    gradient_norm: Scalar
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class _Search(NamedTuple):
    point: Float[Array, " parameters"]
    knee: Scalar
    damping: Scalar
    gradient_norm: Scalar
    iterations: Int[Array, ""]
    settled: Bool[Array, ""]
    converged: Bool[Array, ""]


def minimise(
    log_prediction: Callable[[Float[Array, " parameters"]], Float[Array, " runs"]],
    start: Float[Array, " parameters"],
    log_loss: Float[Array, " runs"],
    weights: Float[Array, " runs"],
    objective: Objective,
    *,
    free: Float[Array, " parameters"] | None = None,
    max_iterations: int = 300,
    tolerance: float = 1e-13,
) -> Optimum:
    """Minimise sum_i weights_i rho(log_loss_i - log_prediction(point)_i), from one start.

    Coordinates with free = 0 stay at the start; weights may be zero. A start without finite predictions returns NaN.
    It ends where a Newton step would lower the objective by less than `tolerance` of itself.
    """
    weights = weights / weights.sum()
    free = jnp.ones_like(start) if free is None else free

    def residual(point: Array) -> Array:
        return log_loss - log_prediction(point)

    # In units of the knee, so that it can shrink: |r| - knee / 2 far beyond it.
    def value_of(r: Array, knee: Array) -> Array:
        return weights @ Objective(knee, 1 / knee, objective.overestimate).rho(r)

    def step(search: _Search) -> _Search:
        point, knee = search.point, search.knee
        r = residual(point)
        value = value_of(r, knee)
        near = search.settled | (knee < 0.3 * value)
        jacobian = jax.jacfwd(log_prediction)(point) * free[None]
        weight = weights * objective.side(r) / knee
        slope = weight * jnp.clip(r, -knee, knee)
        curved = jax.jacfwd(jax.grad(lambda point: slope @ log_prediction(point)))(point) * jnp.outer(free, free)

        def gram(weight: Array) -> Array:
            return jacobian.T @ (weight[:, None] * jacobian)

        majoriser = gram(weight * jnp.minimum(1, knee / jnp.maximum(jnp.abs(r), ZERO)))
        hessian = jnp.where(near, gram(weight * (jnp.abs(r) <= knee)) - curved, majoriser)
        gradient = -slope @ jacobian

        # The majoriser damps along what the runs see, its diagonal where they see nothing.
        ridge = majoriser + jnp.diag(jnp.diag(majoriser)) + 1e-12 * jnp.eye(len(point))
        factor = jnp.linalg.cholesky(hessian + search.damping * ridge + jnp.diag(1 - free))
        move = jax.scipy.linalg.cho_solve((factor, True), -gradient)
        decrease = -gradient @ move
        stalled = search.damping > 1e9
        exact = value * knee < ZERO**2
        last_stage = (knee <= last) & near
        ended = (decrease < jnp.where(last_stage, tolerance, 1e-2) * value) | stalled | exact
        trial = value_of(residual(point + move), knee)
        accepted = (trial <= value) & jnp.isfinite(trial)
        good = value - trial > decrease / 2 - move @ hessian @ move / 4
        damping = jnp.where(good, search.damping / 10, search.damping)
        damping = jnp.where(accepted, damping, jnp.maximum(search.damping * 8, 1e-6))
        return _Search(
            point=jnp.where(accepted & ~(ended & last_stage), point + move, point),
            knee=jnp.where(ended, jnp.maximum(knee / 2, last), knee),
            damping=jnp.where(stalled, 1e-2, jnp.maximum(damping, 1e-14)),
            gradient_norm=jnp.linalg.norm(gradient) / (value + ZERO),
            iterations=search.iterations + 1,
            settled=ended & (knee <= last),
            converged=(ended & last_stage) | exact,
        )

    widest = jnp.max(jnp.abs(residual(start)) * (weights > 0))
    last = jnp.minimum(jnp.asarray(objective.delta, start.dtype), jnp.maximum(widest * 10, LEAST_ABSOLUTE))
    no, nan = jnp.asarray(False), jnp.asarray(jnp.nan, start.dtype)
    begin = _Search(start, jnp.maximum(widest, last), jnp.asarray(1e-2), nan, jnp.asarray(0), no, no)
    found = jax.lax.while_loop(lambda s: ~s.converged & (s.iterations < max_iterations), step, begin)
    value = weights @ objective.rho(residual(found.point))
    return Optimum(found.point, value, found.gradient_norm, found.iterations, found.converged)
