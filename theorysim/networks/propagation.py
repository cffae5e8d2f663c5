"""Two inputs on their way through a deep random network of finite width."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.typing import ScalarLike


class Moments(NamedTuple):
    """Layer by layer: the variance of the first input's preactivations, and the inputs' correlation."""

    variance: Float[Array, " depth"]
    correlation: Float[Array, " depth"]


def propagate(
    activation: Callable[[Array], Array],
    *,
    weight_var: ScalarLike,
    bias_var: ScalarLike,
    key: Array,
    width: int,
    depth: int,
    variance: ScalarLike = 1.0,
    correlation: ScalarLike = 0.5,
) -> Moments:
    """Empirical q and c of the preactivations in each layer (arXiv:1606.05340, section 2).

    The first layer's preactivations are Gaussian, of the given `variance` and `correlation`.
    """
    first, key = jax.random.split(key)
    z = jax.random.normal(first, (2, width))
    mixed = jnp.stack([z[0], correlation * z[0] + jnp.sqrt(1 - jnp.square(correlation)) * z[1]])

    def layer(z, key):
        weight_key, bias_key = jax.random.split(key)
        weights = jnp.sqrt(weight_var / width) * jax.random.normal(weight_key, (width, width))
        z = activation(z) @ weights + jnp.sqrt(bias_var) * jax.random.normal(bias_key, (1, width))
        products = z @ z.T / width
        return z, Moments(products[0, 0], products[0, 1] / jnp.sqrt(products[0, 0] * products[1, 1]))

    return jax.lax.scan(layer, jnp.sqrt(variance) * mixed, jax.random.split(key, depth))[1]
