"""Finite networks in the maximal-update parametrisation, and their training by full-batch gradient descent.

    h^1 = W^0 x / sqrt(D),    h^{l+1} = W^l phi(h^l) / sqrt(N),    f = w . phi(h^L) / (gamma0 N),

all parameters drawn from N(0, 1), learning rate `learning_rate` gamma0^2 N, loss mean (y - f)^2 / 2: gamma0 = 1 is
muP (Yang & Hu, arXiv:2011.14522), and gamma0 -> 0 the lazy limit (Bordelon & Pehlevan, arXiv:2205.09653).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from theorysim.checks import require_positive
from theorysim.networks.training import train
from theorysim.trajectory import Trajectory
from theorysim.typing import ScalarLike, as_floats


class MuP(NamedTuple):
    """Parameters: W^0 of shape (width, dim), W^1, ..., W^{L-1} of shape (width, width), w of shape (width,)."""

    first: Float[Array, "width dim"]
    hidden: list[Float[Array, "width width"]]
    readout: Float[Array, " width"]


def train_mup(
    activation: Callable[[Array], Array],
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    *,
    width: int,
    depth: int,
    gamma0: ScalarLike,
    learning_rate: ScalarLike,
    steps: int,
    key: Array,
) -> Trajectory:
    """One network with `depth` hidden layers, from its own random start, by `steps` of gradient descent.

    The output at the start is subtracted from the network, in training too: it vanishes with the width, but like
    1 / (gamma0 sqrt(width)), which would swamp the lazy limit.

    **Raises:** `ValueError` for a number among `gamma0`, `learning_rate`, `width`, `depth` and `steps` that is not > 0.
    """
    x, targets = as_floats(x, targets)
    require_positive(gamma0=gamma0, learning_rate=learning_rate, width=width, depth=depth, steps=steps)
    params = initial_mup(key, width=width, depth=depth, dim=x.shape[1], dtype=x.dtype)
    nothing = [jnp.zeros((len(x), width), x.dtype)] * depth
    network = partial(apply_mup, activation=activation, gamma0=gamma0)
    initial, _ = network(params, x, nothing)

    def loss(params, _):
        outputs = network(params, x, nothing)[0] - initial
        return jnp.square(targets - outputs).mean() / 2

    def fields(params):
        outputs, pullback, features = jax.vjp(lambda shifts: network(params, x, shifts), nothing, has_aux=True)
        (sensitivities,) = pullback(jnp.ones_like(outputs))
        return outputs - initial, features, [gamma0 * width * g for g in sensitivities]

    optimizer = optax.sgd(learning_rate * jnp.square(gamma0) * width)
    outputs, features, gradients = train(loss, params, optimizer, np.arange(steps + 1), fields)
    return Trajectory(
        jnp.square(targets[None, :] - outputs).mean(1) / 2, outputs, _kernels(features), _kernels(gradients)
    )


def initial_mup(key: Array, *, width: int, depth: int, dim: int, dtype: jnp.dtype | None = None) -> MuP:
    """Standard normal parameters."""
    shapes = [(width, dim), *[(width, width)] * (depth - 1), (width,)]
    sizes = [math.prod(shape) for shape in shapes]
    flat = jax.random.normal(key, (sum(sizes),), dtype)  # one draw: each costs time to compile
    pieces = jnp.split(flat, np.cumsum(sizes)[:-1])
    first, *hidden, readout = (piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True))
    return MuP(first, hidden, readout)


def apply_mup(
    params: MuP,
    x: Float[Array, "inputs dim"],
    shifts: list[Float[Array, "inputs width"]],
    *,
    activation: Callable[[Array], Array],
    gamma0: ScalarLike,
) -> tuple[Float[Array, " inputs"], list[Float[Array, "inputs width"]]]:
    """The outputs, and each layer's features phi(h + shift). The derivative by a shift is that by h."""
    width, dim = params.first.shape
    h = x @ params.first.T / jnp.sqrt(dim)
    features = [activation(h + shifts[0])]
    for weights, shift in zip(params.hidden, shifts[1:], strict=True):
        features.append(activation(features[-1] @ weights.T / jnp.sqrt(width) + shift))
    return features[-1] @ params.readout / (gamma0 * width), features


def _kernels(histories: list[Float[Array, "times inputs width"]]) -> Float[Array, "depth times inputs times inputs"]:
    return jnp.stack([jnp.einsum("tan,sbn->tasb", h, h) / h.shape[2] for h in histories])
