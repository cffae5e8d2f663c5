"""Deep linear networks in the feature-learning limit: a closed algebra of kernels, exact to rounding.

The fields of a layer are linear in its Gaussian sources u^l (covariance Phi^{l-1}) and r^l (covariance G^{l+1}),

    h^l = Hu u + Hr r,    z^l = Zu u + Zr r,

with matrices over pairs (time, input) that are deterministic and causal: a row of them, and of the kernels, follows
from earlier rows. (Bordelon & Pehlevan, arXiv:2205.09653, section on deep linear networks, at discrete time and solved
in one pass.) The responses of [`theorysim.infinite.mup.dmft`] are here A^l = Hr^l and B^l = Zu^{l+1}.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.infinite.mup.solution import Solution, check
from theorysim.trajectory import Trajectory
from theorysim.typing import Scalar, ScalarLike, as_floats

Kernel = Float[Array, "pairs pairs"]


class Layer(NamedTuple):
    """Responses of h and z to the sources u and r; kernels Phi and G. Rows of the future are 0."""

    h_u: Float[Array, "pairs sources_u"]
    h_r: Float[Array, "pairs sources_r"]
    z_u: Float[Array, "pairs sources_u"]
    z_r: Float[Array, "pairs sources_r"]
    features: Kernel
    gradients: Kernel


class Present(NamedTuple):
    """The time t: its first pair, rate * (y - f) at earlier times (0 later), and unit vectors of its own pairs."""

    row: Array
    pull: Float[Array, " pairs"]
    itself: Float[Array, "inputs pairs"]

    def put(self, history: Float[Array, "pairs columns"], rows: Float[Array, "inputs columns"]) -> Array:
        """The history with the rows of this time."""
        return jax.lax.dynamic_update_slice_in_dim(history, rows, self.row, 0)

    def put_both(self, kernel: Kernel, rows: Float[Array, "inputs pairs"]) -> Kernel:
        """The kernel with the rows and columns of this time."""
        return jax.lax.dynamic_update_slice_in_dim(self.put(kernel, rows), rows.T, self.row, 1)


def deep_linear(
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    *,
    depth: int,
    gamma0: ScalarLike,
    learning_rate: ScalarLike,
    steps: int,
) -> Solution:
    """Gradient descent on a linear network with `depth` hidden layers of infinite width, exact at any learning rate.

    Time O(depth steps^3 inputs^3). Finite networks differ by O(1 / width) in the mean.

    **Raises:** `ValueError` for shapes that do not match, `gamma0` or `learning_rate` <= 0, `depth` or `steps` < 1.
    """
    x, targets, gamma0, learning_rate = as_floats(x, targets, gamma0, learning_rate)
    check(x, targets, gamma0, learning_rate, depth=depth, steps=steps)
    value = _solve(x, targets, gamma0, learning_rate, depth, steps)
    return Solution(value, jax.tree.map(jnp.zeros_like, value), jnp.array(True))


@partial(jax.jit, static_argnums=(4, 5))
def _solve(
    x: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    depth: int,
    steps: int,
) -> Trajectory:
    count, times = x.shape[0], steps + 1
    data = x @ x.T / x.shape[1]
    rate = learning_rate * gamma0 / count

    def step(carry: Any, t: Array) -> Any:
        layers, pull = carry
        now = Present(t * count, pull, _rows_at(t * count, count, times * count, x.dtype))
        layers = _pass(list(layers), data, now)
        outputs = _outputs(layers, data, now) / gamma0
        return (layers, jax.lax.dynamic_update_slice(pull, rate * (targets - outputs), (now.row,))), outputs

    start = [_empty(layer, depth, count, times, x.dtype) for layer in range(depth)]
    (layers, _), outputs = jax.lax.scan(step, (start, jnp.zeros(times * count, x.dtype)), jnp.arange(times))
    loss = jnp.square(targets[None, :] - outputs).mean(1) / 2
    kernels = (jnp.stack([getattr(layer, name) for layer in layers]) for name in ("features", "gradients"))
    return Trajectory(loss, outputs, *[k.reshape(depth, times, count, times, count) for k in kernels])


def _empty(layer: int, depth: int, count: int, times: int, dtype: Any) -> Layer:
    # The first layer's u is one vector over inputs, the last layer's r one number: neither changes in time.
    pairs = times * count
    u, r = count if layer == 0 else pairs, 1 if layer == depth - 1 else pairs
    return Layer(*[jnp.zeros((pairs, sources), dtype) for sources in (u, r, u, r, pairs, pairs)])


def _rows_at(row: Array, count: int, pairs: int, dtype: Any) -> Float[Array, "inputs pairs"]:
    nothing = jnp.zeros((count, pairs), dtype)
    return jax.lax.dynamic_update_slice_in_dim(nothing, jnp.eye(count, dtype=dtype), row, 1)


def _pass(layers: list[Layer], data: Float[Array, "inputs inputs"], now: Present) -> list[Layer]:
    """All layers at one time: forward, where features and A come from below; backward, gradients and B from above."""
    nothing = jnp.zeros_like(now.itself)
    features, a = jnp.tile(data, now.itself.shape[1] // len(data)), nothing
    for i in range(len(layers)):
        layers[i], features, a = _forward(layers, i, data, features, a, now)
    gradients, b = jnp.ones_like(nothing), nothing
    for i in reversed(range(len(layers))):
        layers[i], gradients, b = _backward(layers, i, data, gradients, b, now)
    return layers


def _forward(layers: list[Layer], i: int, data: Array, features: Array, a: Array, now: Present) -> tuple:
    """h = u + (A + c Delta Phi) z; with its rows, Phi of this layer, and A for the next."""
    layer, gain = layers[i], a + now.pull[None, :] * features
    u = (jnp.eye(len(data), dtype=data.dtype) if i == 0 else now.itself) + gain @ layer.z_u
    r = gain @ layer.z_r
    layer = layer._replace(h_u=now.put(layer.h_u, u), h_r=now.put(layer.h_r, r))
    features = u @ _below(layers, i, data) @ layer.h_u.T + r @ _above(layers, i) @ layer.h_r.T
    return layer._replace(features=now.put_both(layer.features, features)), features, r


def _backward(layers: list[Layer], i: int, data: Array, gradients: Array, b: Array, now: Present) -> tuple:
    """z = r + (B + c Delta G) h; with its rows, G of this layer, and B for the one below."""
    layer, gain = layers[i], b + now.pull[None, :] * gradients
    last = i == len(layers) - 1
    u = gain @ layer.h_u
    r = (jnp.ones((len(data), 1), data.dtype) if last else now.itself) + gain @ layer.h_r
    layer = layer._replace(z_u=now.put(layer.z_u, u), z_r=now.put(layer.z_r, r))
    gradients = u @ _below(layers, i, data) @ layer.z_u.T + r @ _above(layers, i) @ layer.z_r.T
    return layer._replace(gradients=now.put_both(layer.gradients, gradients)), gradients, u


def _outputs(layers: list[Layer], data: Array, now: Present) -> Float[Array, " inputs"]:
    """gamma0 f = <z h> in the last layer."""
    last = len(layers) - 1
    rows = (jax.lax.dynamic_slice_in_dim(m, now.row, len(data), 0) for m in layers[last][:4])
    h_u, h_r, z_u, z_r = rows
    return (z_u @ _below(layers, last, data) * h_u).sum(1) + (z_r * h_r).sum(1)


def _below(layers: list[Layer], i: int, data: Array) -> Array:
    """The covariance of u."""
    return data if i == 0 else layers[i - 1].features


def _above(layers: list[Layer], i: int) -> Array:
    """The covariance of r."""
    return jnp.ones((1, 1), layers[i].features.dtype) if i == len(layers) - 1 else layers[i + 1].gradients
