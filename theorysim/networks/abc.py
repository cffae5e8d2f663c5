"""Finite networks in any abc-parametrisation, and the coordinate check; the theory is `theorysim.infinite.abc`."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from theorysim.estimate import Estimate, exponent
from theorysim.networks.scaled import Elementwise, ScaledMLP
from theorysim.networks.training import train
from theorysim.parametrisation import Parametrisation
from theorysim.typing import Scalar, ScalarLike


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
    exponent: Estimate


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

    The theory's exponents have the opposite sign, and finite widths bend the measured ones. A fifth of a decade of
    scatter from one network to the next is common: take 40 `repeats` or more. Compiles once per width.
    """

    def one(width: int, key: Array) -> Array:
        options = {"activation": activation, "learning_rate": learning_rate, "steps": jnp.array([steps])}
        return coordinate_change(parametrisation, x, y, key=key, width=width, **options)[0]

    keys = [jax.random.split(jax.random.fold_in(key, width), repeats) for width in widths]
    change = jnp.stack([jax.jit(jax.vmap(lambda k, n=n: one(n, k)))(k) for n, k in zip(widths, keys, strict=True)])
    return CoordinateCheck(change, jax.vmap(partial(exponent, jnp.array(widths)), in_axes=2)(change))


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

    def loss(params: Any, _: Any) -> Scalar:
        return jnp.square(observe(params)[-1] - y).sum(1).mean() / 2

    seen = train(loss, params, optax.sgd(rate), jnp.concatenate([jnp.zeros_like(steps[:1]), steps]), observe)
    return jnp.stack([jnp.sqrt(jnp.square(layer[1:] - layer[:1]).mean((1, 2))) for layer in seen], 1)
