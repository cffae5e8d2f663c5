"""Networks and optimisers scaled by muTransfer: hyperparameters found at one width are right at all.

The rules are those of [`transfer`][theorysim.transfer.transfer] (Yang et al., arXiv:2203.03466).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from theorysim.checks import require_count
from theorysim.networks.scaled import Elementwise, ScaledMLP
from theorysim.transfer import transfer
from theorysim.typing import ScalarLike


def transfer_network(
    *,
    width: int,
    base_width: ScalarLike,
    depth: int,
    dim: int,
    outputs: int,
    activation: Elementwise | tuple[Elementwise, ...],
) -> ScaledMLP:
    """A network with biases whose initial stds and multipliers follow [`transfer`][theorysim.transfer.transfer].

    At the base width it is the usual network, of std 1 / sqrt(fan_in); a width that is its own base is in standard
    parametrisation. Train it with [`transfer_sgd`] or [`transfer_adam`].

    **Raises:** `ValueError` for a depth that is no whole number >= 1.
    """
    require_count(depth=depth)
    base_width, fan_in = jnp.asarray(base_width, float), jnp.asarray(dim, float)
    roles = ["input", *["hidden"] * (depth - 1), "readout"]
    scales = [transfer(role, width / base_width, optimizer="sgd") for role in roles]
    base = jnp.stack([fan_in, *[base_width] * depth]) ** -0.5
    stds = base * jnp.stack([scale.initial_std for scale in scales])
    return ScaledMLP(width, activation, jnp.stack([scale.multiplier for scale in scales]), stds, outputs, biases=True)


def role(path: tuple[Any, ...]) -> str:
    """The role of a parameter of [`ScaledMLP`], from its path in the tree, as `jax.tree_util` gives it.

    `jax.tree_util.tree_map_with_path(lambda path, _: role(path), params)` labels parameters for `optax.partition`.
    """
    layer, kind = (entry.key for entry in path[-2:])
    if kind == "biases":
        return "fixed" if layer == "readout" else "bias"
    return layer.partition("_")[0]


def transfer_sgd(learning_rate: ScalarLike, ratio: ScalarLike) -> optax.GradientTransformation:
    """Gradient descent whose rates follow [`transfer`][theorysim.transfer.transfer]; `ratio` = width / base width."""
    return optax.chain(_scale_by_role(ratio, "sgd"), optax.scale_by_learning_rate(learning_rate))


def transfer_adam(
    learning_rate: ScalarLike, ratio: ScalarLike, *, weight_decay: ScalarLike = 0.0
) -> optax.GradientTransformation:
    """AdamW whose rates follow [`transfer`][theorysim.transfer.transfer]; `ratio` = width / base width.

    A step decays every weight by learning_rate * weight_decay, whatever its role: the table's factor is in it.
    """
    return optax.chain(
        optax.scale_by_adam(),
        _scale_by_role(ratio, "adam"),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _scale_by_role(ratio: ScalarLike, optimizer: str) -> optax.GradientTransformation:
    def scaled(path: tuple[Any, ...], update: Array) -> Array:
        factor = transfer(role(path), ratio, optimizer=optimizer).learning_rate
        return update * factor.astype(update.dtype)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))
