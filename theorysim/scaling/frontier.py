"""The compute-optimal frontier: which model, on how much data, for a compute; and what another size costs.

For Chinchilla's law and 6 flops per parameter and token all is in closed form (Hoffmann et al., arXiv:2203.15556,
section 3.3). With G = (alpha A / (beta B))^(1 / (alpha + beta)) and C the compute,

    n* = G (C / 6)^(beta / (alpha + beta)),    d* = (C / 6) / n*,

and the loss above its floor falls like C^(-alpha beta / (alpha + beta)). Any law of n and d, and any count of flops,
goes through [`allocate`]. Both are pure functions of the parameters: `jax.vmap` them over a fit's [`Draws`] for a band.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.checks import require_positive
from theorysim.root import log_root
from theorysim.scaling.law import Law
from theorysim.typing import Numbers, Scalar, ScalarLike

FlopsPerToken = Callable[[Any], Any]


class Allocation(NamedTuple):
    """Model size, tokens and loss of the best run for a compute."""

    n: Float[Array, "*shape"]
    d: Float[Array, "*shape"]
    loss: Float[Array, "*shape"]


class Overhead(NamedTuple):
    """Tokens and compute over those of the optimum."""

    d: Float[Array, "*shape"]
    compute: Float[Array, "*shape"]


def six_n(n: ScalarLike) -> ScalarLike:
    """6 flops per parameter and token: two forwards, four backwards (Kaplan et al., arXiv:2001.08361, section 2.1)."""
    return 6 * n


@dataclass(frozen=True)
class Transformer:
    """Training flops per token of a transformer whose n counts the matrices of its blocks, n = 12 depth width^2.

    The shape follows from width = aspect * depth. What n leaves out can be added: `embedding` counts the table as if it
    were multiplied by (as 6 N D does where N includes it), `head` the readout to the vocabulary, `attention` the
    products of keys and queries with a context (arXiv:2001.08361, table 1, three times its forward pass). Leaving out
    the head is what tilted Kaplan's exponent (Porian et al., arXiv:2406.19146).
    """

    vocabulary: int
    context: int
    aspect: float = 128.0
    embedding: bool = False
    head: bool = True
    attention: bool = False

    def __post_init__(self):
        require_positive(vocabulary=self.vocabulary, context=self.context, aspect=self.aspect)

    def __call__(self, n: Any) -> Any:
        """Flops per token."""
        width = (n * self.aspect / 12) ** (1 / 3)
        tables = (int(self.embedding) + int(self.head)) * self.vocabulary * width
        return 6 * (n + tables + int(self.attention) * self.context * width**2 / self.aspect)


def frontier_exponent(parameters: Mapping[str, Any]) -> Numbers:
    """The a = beta / (alpha + beta) of n* ~ C^a."""
    return parameters["beta"] / (parameters["alpha"] + parameters["beta"])


def chinchilla_frontier(parameters: Mapping[str, Any], compute: Numbers) -> Allocation:
    """The frontier of [`chinchilla`] at 6 n d flops.

    **Raises:** `ValueError` for a compute <= 0.
    """
    require_positive(compute=compute)
    alpha, beta, A, B = (parameters[name] for name in ("alpha", "beta", "A", "B"))
    pairs = jnp.asarray(compute, float) / 6
    log_g = jnp.log(alpha * A / (beta * B)) / (alpha + beta)
    n = jnp.exp(log_g + frontier_exponent(parameters) * jnp.log(pairs))
    d = pairs / n
    return Allocation(n, d, parameters["E"] + A * n**-alpha + B * d**-beta)


def chinchilla_compute(parameters: Mapping[str, Any], loss: Numbers) -> Float[Array, "*shape"]:
    """The inverse: the least compute for a loss, in flops; NaN at and below the floor E."""
    alpha, beta, A, B = (parameters[name] for name in ("alpha", "beta", "A", "B"))
    log_g = jnp.log(alpha * A / (beta * B)) / (alpha + beta)
    scale = A * jnp.exp(-alpha * log_g) + B * jnp.exp(beta * log_g)
    above = jnp.asarray(loss) - parameters["E"]
    return 6 * jnp.where(above > 0, above / scale, jnp.nan) ** (-(alpha + beta) / (alpha * beta))


def overhead(parameters: Mapping[str, Any], ratio: Numbers) -> Overhead:
    """What a model `ratio` times the optimal size needs for the optimum's loss, over what the optimum needs.

    d / d* = [1 - (beta / alpha) (ratio^-alpha - 1)]^(-1 / beta). Below ratio = (1 + alpha / beta)^(-1 / alpha) no data
    suffice, and the overhead is infinite.

    **Raises:** `ValueError` for a ratio <= 0.
    """
    require_positive(ratio=ratio)
    alpha, beta = parameters["alpha"], parameters["beta"]
    ratio = jnp.asarray(ratio, float)
    left = 1 - beta / alpha * jnp.expm1(-alpha * jnp.log(ratio))
    d = jnp.where(left > 0, jnp.where(left > 0, left, 1.0) ** (-1 / beta), jnp.inf)
    return Overhead(d, ratio * d)


def allocate(
    law: Law,
    parameters: Mapping[str, Any],
    compute: ScalarLike,
    *,
    flops_per_token: FlopsPerToken = six_n,
    low: ScalarLike = 1.0,
    high: ScalarLike | None = None,
    **given: Any,
) -> Allocation:
    """The best n and d = compute / flops_per_token(n) under any law of n and d, by the root of the loss' slope.

    The loss along the budget must have one minimum in n between `low` and `high`, the compute itself unless given; NaN
    where it has none. Other inputs of the law are `given`. Differentiable in parameters and compute.

    **Raises:** `ValueError` for a law without n and d, and for numbers <= 0.
    """
    _require_sizes(law)
    high = compute if high is None else high
    require_positive(compute=compute, low=low, high=high)

    def data(log_n: Array) -> Array:
        return compute / flops_per_token(jnp.exp(log_n))

    def loss(log_n: Array) -> Array:
        return jnp.squeeze(law.fn(n=jnp.exp(log_n), d=data(log_n), **given, **parameters))

    n = log_root(jax.grad(loss), low, high)
    return Allocation(n, data(jnp.log(n)), loss(jnp.log(n)))


def compute_for(
    law: Law,
    parameters: Mapping[str, Any],
    loss: ScalarLike,
    *,
    flops_per_token: FlopsPerToken = six_n,
    low: ScalarLike = 1e9,
    high: ScalarLike = 1e33,
    **options: Any,
) -> Scalar:
    """The inverse of [`allocate`]: the least compute that reaches a loss; NaN where none in [low, high] does.

    **Raises:** `ValueError` as [`allocate`].
    """
    require_positive(loss=loss, low=low, high=high)

    def excess(log_compute: Array) -> Array:
        best = allocate(law, parameters, jnp.exp(log_compute), flops_per_token=flops_per_token, **options)
        return best.loss - loss

    return log_root(excess, low, high)


def crossover(parameters: Mapping[str, Any]) -> Scalar:
    """Where two methods with losses E + A_i c^-alpha_i are equal: c = (A1 / A2)^(1 / (alpha1 - alpha2)).

    Beyond it the ranking of small runs reverses (Xiao, arXiv:2409.15156). Infinite where the exponents agree.
    """
    gap = jnp.asarray(parameters["alpha1"] - parameters["alpha2"], float)
    log_ratio = jnp.log(parameters["A1"]) - jnp.log(parameters["A2"])
    return jnp.where(gap == 0, jnp.inf, jnp.exp(log_ratio / jnp.where(gap == 0, 1.0, gap)))


def _require_sizes(law: Law) -> None:
    if not {"n", "d"} <= set(law.inputs):
        raise ValueError(f"law={law.name}: it has the inputs {list(law.inputs)}; a frontier needs a law of n and d")
