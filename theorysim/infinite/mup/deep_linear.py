"""Deep linear networks in the feature-learning limit: a closed algebra of kernels, exact to rounding.

The fields of a layer are linear in its Gaussian sources u^l (covariance Phi^{l-1}) and r^l (covariance G^{l+1}),

    h^l = Hu u + Hr r,    z^l = Zu u + Zr r,

with matrices over pairs (time, input) that are deterministic and causal: a row of them, and of the kernels, follows
from earlier rows. (Bordelon & Pehlevan, arXiv:2205.09653, section on deep linear networks, at discrete time and solved
in one pass.) The responses of [`theorysim.infinite.mup.dmft`] are here A^l = Hr^l and B^l = Zu^{l+1}.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theorysim.infinite.mup.trajectory import Trajectory, check
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


def deep_linear(
    inputs: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    *,
    depth: int,
    gamma0: ScalarLike,
    learning_rate: ScalarLike,
    steps: int,
) -> Trajectory:
    """Gradient descent on a linear network with `depth` hidden layers of infinite width, exact at any learning rate.

    Time O(depth steps^3 inputs^3). Finite networks differ by O(1 / width) in the mean.

    **Raises:** `ValueError` for shapes that do not match, `gamma0` or `learning_rate` <= 0, `depth` or `steps` < 1.
    """
    inputs, targets, gamma0, learning_rate = as_floats(inputs, targets, gamma0, learning_rate)
    check(inputs, targets, gamma0, learning_rate, depth=depth, steps=steps)
    return _solve(inputs, targets, gamma0, learning_rate, depth, steps)


@partial(jax.jit, static_argnums=(4, 5))
def _solve(
    inputs: Float[Array, "inputs dim"],
    targets: Float[Array, " inputs"],
    gamma0: Scalar,
    learning_rate: Scalar,
    depth: int,
    steps: int,
) -> Trajectory:
    count, times = inputs.shape[0], steps + 1
    pairs = times * count
    data = inputs @ inputs.T / inputs.shape[1]
    rate = learning_rate * gamma0 / count

    def empty(layer):
        def zeros(sources):
            return jnp.zeros((pairs, sources), inputs.dtype)

        # The first layer's u is one vector over inputs, the last layer's r one number: neither changes in time.
        u, r = count if layer == 0 else pairs, 1 if layer == depth - 1 else pairs
        return Layer(zeros(u), zeros(r), zeros(u), zeros(r), zeros(pairs), zeros(pairs))

    def step(carry, t):
        layers, pull = carry  # pull = rate * error at earlier times, 0 later
        row = t * count
        nothing = jnp.zeros((count, pairs), inputs.dtype)
        itself = jax.lax.dynamic_update_slice_in_dim(nothing, jnp.eye(count, dtype=inputs.dtype), row, 1)

        def put(matrix, rows):
            return jax.lax.dynamic_update_slice_in_dim(matrix, rows, row, 0)

        def put_both(kernel, rows):
            return jax.lax.dynamic_update_slice_in_dim(put(kernel, rows), rows.T, row, 1)

        def forward(i, features, a):
            layer, gain = layers[i], a + pull[None, :] * features
            u = (jnp.eye(count, dtype=inputs.dtype) if i == 0 else itself) + gain @ layer.z_u
            r = gain @ layer.z_r
            layer = layer._replace(h_u=put(layer.h_u, u), h_r=put(layer.h_r, r))
            features = u @ below(i) @ layer.h_u.T + r @ above(i) @ layer.h_r.T
            layers[i] = layer._replace(features=put_both(layer.features, features))
            return features, r

        def backward(i, gradients, b):
            layer, gain = layers[i], b + pull[None, :] * gradients
            u = gain @ layer.h_u
            r = (jnp.ones((count, 1), inputs.dtype) if i == depth - 1 else itself) + gain @ layer.h_r
            layer = layer._replace(z_u=put(layer.z_u, u), z_r=put(layer.z_r, r))
            gradients = u @ below(i) @ layer.z_u.T + r @ above(i) @ layer.z_r.T
            layers[i] = layer._replace(gradients=put_both(layer.gradients, gradients))
            return gradients, u

        def below(i):
            return data if i == 0 else layers[i - 1].features

        def above(i):
            return jnp.ones((1, 1), inputs.dtype) if i == depth - 1 else layers[i + 1].gradients

        layers = list(layers)
        features, a = jnp.tile(data, times), nothing
        for i in range(depth):
            features, a = forward(i, features, a)
        gradients, b = jnp.ones_like(nothing), nothing
        for i in reversed(range(depth)):
            gradients, b = backward(i, gradients, b)
        h_u, h_r, z_u, z_r = (jax.lax.dynamic_slice_in_dim(m, row, count, 0) for m in layers[-1][:4])
        outputs = ((z_u @ below(depth - 1) * h_u).sum(1) + (z_r * h_r).sum(1)) / gamma0
        pull = jax.lax.dynamic_update_slice(pull, rate * (targets - outputs), (row,))
        return (layers, pull), outputs

    start = ([empty(layer) for layer in range(depth)], jnp.zeros(pairs, inputs.dtype))
    (layers, _), outputs = jax.lax.scan(step, start, jnp.arange(times))
    loss = jnp.square(targets[None, :] - outputs).mean(1) / 2
    kernels = (jnp.stack([getattr(layer, name) for layer in layers]) for name in ("features", "gradients"))
    return Trajectory(loss, outputs, *[k.reshape(depth, times, count, times, count) for k in kernels])
