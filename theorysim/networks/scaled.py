"""Fully connected networks whose layers have multipliers and initial standard deviations of their own."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Elementwise = Callable[[Array], Array]


class ScaledDense(nn.Module):
    """z = multiplier x w + bias, with w ~ N(0, initial_std^2) and the bias 0 at first, or none."""

    features: int
    multiplier: Any
    initial_std: Any
    biases: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n fan_in"]) -> Float[Array, "n features"]:
        """Shape (n, fan_in) to (n, features)."""
        multiplier, std = (jnp.asarray(scale, x.dtype) for scale in (self.multiplier, self.initial_std))
        normal, zeros = nn.initializers.normal(1.0), nn.initializers.zeros

        def draw(key: Array, shape: tuple[int, ...]) -> Array:
            return std * normal(key, shape, x.dtype)

        z = multiplier * (x @ self.param("weights", draw, (x.shape[1], self.features)))
        return z + self.param("biases", zeros, (1, self.features), x.dtype) if self.biases else z


class ScaledMLP(nn.Module):
    """Hidden layers of one width and a linear readout, each with a multiplier and an initial std; both may be traced.

    `activation` is one function for all hidden layers, or a tuple with one for each. Layers are called `input`,
    `hidden_2` ... and `readout`; [`role`] reads them.
    """

    width: int
    activation: Elementwise | tuple[Elementwise, ...]
    multipliers: Float[Array, " layers"]
    initial_stds: Float[Array, " layers"]
    outputs: int = 1
    biases: bool = False

    @nn.compact
    def preactivations(self, x: Float[Array, "n d"]) -> tuple[Float[Array, "n _"], ...]:
        """What each layer computes, the output last.

        **Raises:** `ValueError` for another number of activations than hidden layers.
        """
        depth = len(self.multipliers) - 1
        names = ["input", *(f"hidden_{layer}" for layer in range(2, depth + 1)), "readout"]
        functions = self.activation if isinstance(self.activation, tuple) else (self.activation,) * depth
        if len(functions) != depth:
            raise ValueError(f"activation has {len(functions)} functions: give one, or {depth}, one per hidden layer")
        found = []
        for i, name in enumerate(names):
            features = self.outputs if name == "readout" else self.width
            x = functions[i - 1](x) if i else x
            x = ScaledDense(features, self.multipliers[i], self.initial_stds[i], self.biases, name=name)(x)
            found.append(x)
        return tuple(found)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        """Shape (n, d) to (n, outputs)."""
        return self.preactivations(x)[-1]
