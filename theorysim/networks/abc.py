"""Finite networks in any abc-parametrisation, or scaled by muTransfer, and the coordinate check.

The theory of both is `theorysim.infinite.abc`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from theorysim.infinite.abc import Parametrisation, transfer
from theorysim.networks.train import train
from theorysim.typing import Scalar, ScalarLike

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
        """What each layer computes, the output last."""
        depth = len(self.multipliers) - 1
        names = ["input", *(f"hidden_{layer}" for layer in range(2, depth + 1)), "readout"]
        functions = self.activation if isinstance(self.activation, tuple) else (self.activation,) * depth
        if len(functions) != depth:
            raise ValueError(f"activation has {len(functions)} functions: give one, or {depth}, one a hidden layer")
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


def abc_network(
    parametrisation: Parametrisation,
    *,
    width: int,
    activation: Elementwise | tuple[Elementwise, ...],
    outputs: int = 1,
) -> ScaledMLP:
    """A network with W^l = width^-a_l w^l and w^l ~ N(0, width^-2b_l) (arXiv:2011.14522).

    Train it by gradient descent at the rate learning_rate * width^-c. Inputs enter as they are: scale them such that
    |x|^2 is about 1. A gain sqrt(2) for relu is part of the activation.
    """
    a, b = (float(width) ** -exponents for exponents in parametrisation[:2])
    return ScaledMLP(width, activation, a, b, outputs)


class CoordinateCheck(NamedTuple):
    """Root mean square changes of each layer's preactivations, the output last, and their exponents in the width."""

    change: Float[Array, "widths repeats layers"]
    slope: Float[Array, " layers"]
    standard_error: Float[Array, " layers"]


def coordinate_check(
    parametrisation: Parametrisation,
    x: Float[Array, "n d"],
    y: Float[Array, "n outputs"],
    *,
    key: Array,
    activation: Elementwise | tuple[Elementwise, ...],
    widths: tuple[int, ...],
    repeats: int,
    learning_rate: ScalarLike = 1.0,
    steps: int = 1,
) -> CoordinateCheck:
    """How the change in `steps` of gradient descent scales with the width; theory: `infinite.abc.changes`.

    The slope for layer l is minus its exponent, up to finite widths. A fifth of a decade of scatter from one network
    to the next is common: take 40 `repeats` or more. Compiles once a width.
    """

    def one(width: int, key: Array) -> Array:
        options = {"activation": activation, "learning_rate": learning_rate, "steps": jnp.array([steps])}
        return coordinate_change(parametrisation, x, y, key=key, width=width, **options)[0]

    keys = [jax.random.split(jax.random.fold_in(key, width), repeats) for width in widths]
    change = jnp.stack([jax.jit(jax.vmap(lambda k, n=n: one(n, k)))(k) for n, k in zip(widths, keys, strict=True)])
    return CoordinateCheck(change, *jax.vmap(lambda samples: slope(jnp.array(widths), samples), in_axes=2)(change))


def coordinate_change(
    parametrisation: Parametrisation,
    x: Float[Array, "n d"],
    y: Float[Array, "n outputs"],
    *,
    key: Array,
    width: int,
    activation: Elementwise | tuple[Elementwise, ...],
    learning_rate: ScalarLike,
    steps: Int[Array, " times"],
) -> Float[Array, "times layers"]:
    """Root mean square change of each layer's preactivations, the output last, after increasing numbers of `steps`.

    By full-batch gradient descent on the mean over n of |f - y|^2 / 2, at the rate learning_rate * width^-c.
    """
    network = abc_network(parametrisation, width=width, activation=activation, outputs=y.shape[1])
    rate = jnp.asarray(learning_rate * float(width) ** -jnp.asarray(parametrisation.c), x.dtype)
    params = network.init(key, x)

    def observe(params: Any) -> Any:
        return network.apply(params, x, method="preactivations")

    def loss(params: Any) -> Scalar:
        return jnp.square(observe(params)[-1] - y).sum(1).mean() / 2

    seen = train(loss, params, optax.sgd(rate), jnp.concatenate([jnp.zeros_like(steps[:1]), steps]), observe)
    return jnp.stack([jnp.sqrt(jnp.square(layer[1:] - layer[:1]).mean((1, 2))) for layer in seen], 1)


class Slope(NamedTuple):
    """An exponent in the width, and its standard error."""

    value: Scalar
    standard_error: Scalar


def slope(widths: Int[Array, " widths"], samples: Float[Array, "widths repeats"]) -> Slope:
    """The exponent of the root mean square over repeats, by weighted least squares on its logarithm.

    Weights and standard error come from the spread over repeats.
    """
    squares = jnp.square(samples)
    mean = squares.mean(1)
    weights = samples.shape[1] * jnp.square(2 * mean) / squares.var(1, ddof=1)
    x = jnp.log(widths.astype(samples.dtype))
    x = x - (weights * x).sum() / weights.sum()
    value = (weights * x * jnp.log(mean) / 2).sum() / (weights * x**2).sum()
    return Slope(value, 1 / jnp.sqrt((weights * x**2).sum()))


def transfer_network(
    *,
    width: int,
    base_width: ScalarLike,
    depth: int,
    inputs: int,
    outputs: int,
    activation: Elementwise | tuple[Elementwise, ...],
) -> ScaledMLP:
    """A network with biases whose initial stds and multipliers follow `infinite.abc.transfer`.

    At the base width it is the usual network, of std 1 / sqrt(fan_in); a width that is its own base is in standard
    parametrisation. Train it with [`transfer_sgd`] or [`transfer_adam`].
    """
    if depth < 1:
        raise ValueError(f"depth={depth}: give at least one hidden layer")
    base_width, fan_in = jnp.asarray(base_width, float), jnp.asarray(inputs, float)
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
    """Gradient descent whose rates follow `infinite.abc.transfer`; `ratio` = width / base width."""
    return optax.chain(_scale_by_role(ratio, "sgd"), optax.scale_by_learning_rate(learning_rate))


def transfer_adam(
    learning_rate: ScalarLike, ratio: ScalarLike, *, weight_decay: ScalarLike = 0.0
) -> optax.GradientTransformation:
    """AdamW whose rates follow `infinite.abc.transfer`; `ratio` = width / base width.

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
