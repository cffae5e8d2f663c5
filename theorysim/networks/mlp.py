"""Fully connected flax networks in NTK parametrisation (Jacot et al., arXiv:1806.07572)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from theorysim.networks.training import Params
from theorysim.typing import ScalarLike


class NTKDense(nn.Module):
    """z = sqrt(weight_var / fan_in) x W + sqrt(bias_var) b, with all parameters drawn from N(0, 1)."""

    features: int
    weight_var: Any = 1.0
    bias_var: Any = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "n fan_in"]) -> Float[Array, "n features"]:
        """Shape (n, fan_in) to (n, features)."""
        normal = nn.initializers.normal(1.0)
        weights = self.param("weights", normal, (x.shape[1], self.features), x.dtype)
        biases = self.param("biases", normal, (1, self.features), x.dtype)
        return jnp.sqrt(self.weight_var / x.shape[1]) * x @ weights + jnp.sqrt(self.bias_var) * biases


class MLP(nn.Module):
    """`depth` hidden layers of one width and a linear readout; the variances may be traced."""

    width: int
    depth: int
    activation: Callable[[Array], Array]
    weight_var: ScalarLike = 1.0
    bias_var: ScalarLike = 0.0
    outputs: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        """Shape (n, d) to (n, outputs)."""
        for _ in range(self.depth):
            x = self.activation(NTKDense(self.width, self.weight_var, self.bias_var)(x))
        return NTKDense(self.outputs, self.weight_var, self.bias_var)(x)


def standard_normal_params(network: nn.Module, x: Float[Array, "n d"], *, key: Array) -> Params:
    """Initial parameters of an [`MLP`]: those of `network.init` in law, N(0, 1), by one draw in single precision.

    A draw for each of its leaves takes seconds to compile.
    """
    shapes = jax.eval_shape(network.init, key, x)
    flat, unflatten = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    return unflatten(jax.random.normal(key, flat.shape, jnp.float32).astype(flat.dtype))
