"""Fully connected flax networks in NTK parametrisation (Jacot et al., arXiv:1806.07572)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

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
