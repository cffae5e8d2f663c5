"""Deep kernel machines: deep Gaussian processes of infinite width whose kernels still learn.

A deep Gaussian process draws the N_l columns of F_l from N(0, K(G_{l-1})), and G_l = F_l F_l^T / N_l: a network with
N_l linear units between two layers of infinitely many neurons. As all N_l grow in proportion to the number of outputs,
the posterior's Gram matrices are those that maximise

    log P(Y | G_L) - sum_l nu_l KL(N(0, G_l) || N(0, K(G_{l-1}))),    P(Y | G_L): columns y_k ~ N(0, K(G_L) + noise_var)

(Yang et al., arXiv:2108.13097), with K(G) = weight_var T(G) + bias_var, T the dual of the activation. The first layer
reads the inputs themselves: K = weight_var X X^T / d + bias_var. As nu -> infinity, all layers stay at the NNGP of
[`fully_connected`]. Where the activation is not the identity, a network with N_l neurons instead of linear units has
preactivations that are not Gaussian in the posterior: for it, this is an approximation.

With C C^T = K(G_{l-1}) and G_l = C A_l A_l^T C^T, a layer's KL is (|A_l|^2 - log det A_l A_l^T - n) / 2: the search is
over lower triangular A_l with a positive diagonal, and starts at 1, the NNGP. At new inputs the likelihood asks for
nothing, so that given the training inputs they follow the conditional of the prior: of all inputs together, the factors
are A_l with 1 in place of the new rows.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int

from theorysim.checks import (
    require_count,
    require_finite,
    require_float64,
    require_nonnegative,
    require_positive,
    require_targets,
)
from theorysim.infinite.activation import Activation, as_activation, deficit_of
from theorysim.infinite.covariance import Covariance, activate
from theorysim.typing import Scalar, ScalarLike

Factors = Float[Array, "layers n n"]


class Objective(NamedTuple):
    """`value` = `log_likelihood` - sum_l nu_l `divergence`[l], in nats."""

    value: Scalar
    log_likelihood: Scalar
    divergence: Float[Array, " layers"]


class DeepKernel(NamedTuple):
    """A maximum: A_l, G_l, and the objective; `converged` where `gradient` fell below the tolerance.

    `gradient` is the largest entry of the objective's gradient in sqrt(nu_l) A_l, the unit in which the KL curves by 1.
    """

    factors: Factors
    grams: Float[Array, "layers n n"]
    objective: Objective
    gradient: Scalar
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


class Prediction(NamedTuple):
    """Mean of each output at m inputs, their common covariance (without noise), and the Gram matrices of all layers.

    The Gram matrices are those of training inputs, then new ones.
    """

    mean: Float[Array, "m *outputs"]
    covariance: Float[Array, "m m"]
    grams: Float[Array, "layers total total"]


def fit(
    activation: Activation | Callable[[Array], Array],
    x: Float[Array, "n d"],
    targets: Float[Array, "n *outputs"],
    *,
    depth: int,
    nu: ScalarLike | Float[Array, " layers"],
    noise_var: ScalarLike,
    weight_var: ScalarLike = 1.0,
    bias_var: ScalarLike = 0.0,
    start: Factors | None = None,
    tolerance: float = 1e-6,
    steps: int = 5000,
) -> DeepKernel:
    """The Gram matrices that maximise the objective, by L-BFGS over their Cholesky factors.

    `nu` is a layer's width over the network's, in the unit in which each column of the targets counts once. With the
    identity as activation the maximum is the only one; otherwise it is the one reached from the NNGP, or from `start`.
    A step costs O(depth n^3). At nu = 1 and 10 outputs of digits, two layers take some 250 steps at n = 50, 500 at 100
    and 900 at 200; a tenth of that at nu = 10.

    **Raises:** `ValueError` for an activation with jumps, less than float64, values that are not finite, targets that
    are not one row per input, `noise_var` or `nu` <= 0, a negative variance, and a depth below 1.
    """
    activation = as_activation(activation, continuous=True)
    require_count(depth=depth)
    require_targets(len(x), targets=targets)
    require_float64("the search over Cholesky factors", x=x, targets=targets)
    require_finite(x=x, targets=targets)
    require_positive(nu=nu, noise_var=noise_var, weight_var=weight_var)
    require_nonnegative(bias_var=bias_var)
    start = jnp.tile(jnp.eye(len(x), dtype=x.dtype)[None], (depth, 1, 1)) if start is None else start
    nu = jnp.broadcast_to(jnp.asarray(nu, x.dtype), (depth,))
    return _fit(activation, x, _columns(targets), nu, noise_var, weight_var, bias_var, start, tolerance, steps)


def _columns(targets: Float[Array, "n *outputs"]) -> Float[Array, "n outputs"]:
    return targets.reshape(len(targets), -1)


@partial(jax.jit, static_argnums=0)
def _fit(activation, x, targets, nu, noise_var, weight_var, bias_var, start, tolerance, steps) -> DeepKernel:
    diagonal = jnp.eye(len(x), dtype=bool)
    # Near the prior the objective's curvature is nu, and 2 nu on the diagonal: the unknowns have their own units.
    unit = jnp.sqrt(nu)[:, None, None]

    def factors_of(unknowns):
        logs = jnp.where(diagonal, unknowns, 0.0) / (np.sqrt(2) * unit)
        return jnp.where(diagonal, jnp.exp(logs), jnp.tril(unknowns) / unit)

    def at(unknowns):
        factors = factors_of(unknowns)
        kernel, layers = _propagate(activation, x, factors, weight_var, bias_var)
        return _objective(kernel, targets, factors, nu, noise_var), factors, layers

    def loss(unknowns):
        return -at(unknowns)[0].value

    logs = np.sqrt(2) * unit * jnp.log(jnp.where(diagonal, start, 1.0))
    unknowns = jnp.where(diagonal, logs, unit * jnp.tril(start))
    found = _minimise(jax.value_and_grad(loss), unknowns, tolerance, steps)
    best, factors, layers = at(found.at)
    steepest = jnp.abs(found.gradient).max()
    return DeepKernel(factors, layers, best, steepest, steepest <= tolerance, found.step)


class _Search(NamedTuple):
    """The best point and what was found there; a line from it, between `low` and `high` of which `rate` is next."""

    at: Array
    value: Scalar
    gradient: Array
    memory: optax.OptState
    line: Array
    low: Scalar
    rate: Scalar
    high: Scalar
    step: Int[Array, ""]


def _minimise(evaluate: Callable[[Array], tuple[Array, Array]], start: Array, tolerance, steps) -> _Search:
    """L-BFGS with bisection for the weak Wolfe conditions (Lewis & Overton 2013), one evaluation per step.

    optax's own line search holds three copies of the objective, and takes three times as long to compile.
    """
    solver = optax.scale_by_lbfgs(memory_size=20)
    zero, one, far = (jnp.asarray(a, start.dtype) for a in (0.0, 1.0, jnp.inf))

    def searching(now):
        # A gradient that is not a number ends the search.
        return (now.step == 0) | (now.step < steps) & (jnp.abs(now.gradient).max() > tolerance)

    def improve(now):
        at = now.at + now.rate * now.line
        value, gradient = evaluate(at)
        before, after = jnp.vdot(now.gradient, now.line), jnp.vdot(gradient, now.line)
        # Where the value's rounding hides its fall, the slopes tell it (Hager & Zhang 2005).
        falls = value <= now.value + 1e-4 * now.rate * before
        falls |= (value <= now.value + 1e-10 * jnp.abs(now.value)) & (after <= 0.9998 * jnp.abs(before))
        flat = after >= 0.9 * before

        def turn(_):
            line, memory = solver.update(gradient, now.memory, at)
            return _Search(at, value, gradient, memory, -jnp.asarray(line), zero, one, far, now.step + 1)

        def bisect(_):
            low, high = jnp.where(falls, now.rate, now.low), jnp.where(falls, now.high, now.rate)
            rate = jnp.where(high < far, (low + high) / 2, 2 * low)
            return now._replace(low=low, rate=rate, high=high, step=now.step + 1)

        return jax.lax.cond(falls & flat, turn, bisect, None)

    first = _Search(
        start, far, jnp.zeros_like(start), solver.init(start), jnp.zeros_like(start), zero, one, far, jnp.array(0)
    )
    return jax.lax.while_loop(searching, improve, first)


def objective(
    activation: Activation | Callable[[Array], Array],
    x: Float[Array, "n d"],
    targets: Float[Array, "n *outputs"],
    factors: Factors,
    *,
    nu: ScalarLike | Float[Array, " layers"],
    noise_var: ScalarLike,
    weight_var: ScalarLike = 1.0,
    bias_var: ScalarLike = 0.0,
) -> Objective:
    """The objective at factors A_l, lower triangular with a positive diagonal; at A = 1, the evidence of the NNGP.

    **Raises:** `ValueError` for targets that are not one row per input.
    """
    require_targets(len(x), targets=targets)
    kernel, _ = _propagate(as_activation(activation), x, factors, weight_var, bias_var)
    return _objective(kernel, _columns(targets), factors, nu, noise_var)


def _objective(kernel, targets, factors, nu, noise_var) -> Objective:
    n = len(kernel)
    root = jnp.linalg.cholesky(kernel + noise_var * jnp.eye(n, dtype=kernel.dtype))
    white = solve_triangular(root, targets, lower=True)
    logdet = 2 * jnp.log(jnp.diagonal(root)).sum()
    log_likelihood = -(jnp.square(white).sum() + targets.shape[1] * (logdet + n * np.log(2 * np.pi))) / 2
    diagonal = jnp.diagonal(factors, axis1=1, axis2=2)
    divergence = (jnp.square(factors).sum((1, 2)) - n) / 2 - jnp.log(diagonal).sum(1)
    return Objective(log_likelihood - (jnp.asarray(nu) * divergence).sum(), log_likelihood, divergence)


def grams(
    activation: Activation | Callable[[Array], Array],
    x: Float[Array, "n d"],
    factors: Factors,
    *,
    weight_var: ScalarLike = 1.0,
    bias_var: ScalarLike = 0.0,
) -> Float[Array, "layers n n"]:
    """G_1, ..., G_L of the factors: G_l = C A_l A_l^T C^T with C C^T = K(G_{l-1})."""
    return _propagate(as_activation(activation), x, factors, weight_var, bias_var)[1]


def _propagate(activation, x, factors, weight_var, bias_var) -> tuple[Array, Float[Array, "layers n n"]]:
    """K(G_L), and all G_l."""

    def layer(prior, factor):
        # The prior of more inputs than dimensions is singular: a jitter of 1e-10 of its mean diagonal.
        jitter = 1e-10 * jnp.trace(prior) / len(x) * jnp.eye(len(x), dtype=x.dtype)
        root = jnp.linalg.cholesky(prior + jitter) @ factor
        gram = root @ root.T
        return _prior(activation, gram, weight_var, bias_var), gram

    return jax.lax.scan(layer, weight_var * x @ x.T / x.shape[1] + bias_var, factors)


def _prior(activation: Activation, gram: Float[Array, "n n"], weight_var: ScalarLike, bias_var: ScalarLike) -> Array:
    """K(G)."""
    variance = jnp.diagonal(gram)
    if not activation.tabulated:
        dual = activation.dual(variance[:, None], variance[None, :], gram)
    else:
        deficit = deficit_of(variance[:, None], variance[None, :], gram)
        deficit = deficit * (1 - jnp.eye(len(gram), dtype=gram.dtype))
        std = jnp.sqrt(variance)
        dual = activate(activation, Covariance(std, std, deficit), normalised=False).features.matrix
    return weight_var * dual + bias_var


@partial(jax.jit, static_argnums=0)
def predict(
    activation: Activation | Callable[[Array], Array],
    train: Float[Array, "n d"],
    targets: Float[Array, "n *outputs"],
    factors: Factors,
    x: Float[Array, "m d"],
    *,
    noise_var: ScalarLike,
    weight_var: ScalarLike = 1.0,
    bias_var: ScalarLike = 0.0,
) -> Prediction:
    """The outputs at new inputs, from the factors that [`fit`] found at the training inputs.

    Exact: the KL of the joint Gram matrices is that of the training block and of the conditional; the latter is zero at
    G_*l = K_*l K_l^-1 G_l and so on, which the joint Cholesky factor with A_l and 1 on its diagonal is.

    **Raises:** `ValueError` for targets that are not one row per training input.
    """
    require_targets(len(train), targets=targets)
    n, total = len(train), len(train) + len(x)
    joint = jnp.tile(jnp.eye(total, dtype=x.dtype)[None], (len(factors), 1, 1)).at[:, :n, :n].set(factors)
    kernel, layers = _propagate(as_activation(activation), jnp.concatenate([train, x]), joint, weight_var, bias_var)
    root = jnp.linalg.cholesky(kernel[:n, :n] + noise_var * jnp.eye(n, dtype=x.dtype))
    white, cross = (solve_triangular(root, a, lower=True) for a in (targets, kernel[:n, n:]))
    return Prediction(cross.T @ white, kernel[n:, n:] - cross.T @ cross, layers)
