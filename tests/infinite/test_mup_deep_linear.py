"""Deep linear networks: singular vectors of the hidden weights, finite networks, the lazy limit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.infinite import dynamics, mup
from theorysim.networks import train_mup

X = jnp.array([[1.0, 0.3, -0.5], [0.2, -0.9, 0.8], [0.1, 0.4, 0.9]])
Y = jnp.array([1.0, -0.7, 0.4])


def identity(h):
    return h


def two_layers_by_singular_vectors(gamma0, learning_rate, steps):
    """The limit without mean-field theory.

    The singular values s of W^1(0) / sqrt(N) follow the quarter-circle law, and the rows of W^0(0) and w(0) are white
    in its singular vectors. A vector of either side is a profile over s for each of the white vectors; mirrored to
    s < 0 the law is Wigner's semicircle, and the rule of Gauss and Chebyshev (second kind) is exact for polynomials.
    Shape (white vectors, nodes).
    """
    nodes = 200
    angle = np.arange(1, nodes + 1) * np.pi / (nodes + 1)
    s, law = 2 * np.cos(angle), 2 / (nodes + 1) * np.sin(angle) ** 2
    x, y = np.array(X) / np.sqrt(X.shape[1]), np.array(Y)
    count, dim = x.shape

    def inner(a, b):
        return np.einsum("aks,bks,s->ab", a, b, law)

    first = np.zeros((dim, dim + 1, nodes))  # columns of W^0, on the right of W^1
    first[np.arange(dim), np.arange(dim)] = 1
    readout = np.zeros((1, dim + 1, nodes))
    readout[0, dim] = 1
    left, right = np.zeros((0, dim + 1, nodes)), np.zeros((0, dim + 1, nodes))  # updates of W^1
    outputs, fields = [], []
    for _ in range(steps + 1):
        h1 = np.tensordot(x, first, 1)
        h2 = s * h1 + np.tensordot(inner(h1, right), left, 1)
        g1 = s * readout + np.tensordot(inner(readout, left), right, 1)
        f = inner(h2, readout)[:, 0] / gamma0
        outputs.append(f)
        fields.append((h1, h2, g1, readout))
        push = learning_rate * gamma0 / count * (y - f)
        first = first + (push @ x)[:, None, None] * g1
        left, right = np.concatenate([left, readout]), np.concatenate([right, np.tensordot(push, h1, 1)[None]])
        readout = readout + np.tensordot(push, h2, 1)[None]
    h1, h2, g1, g2 = (np.concatenate([field[i] for field in fields]) for i in range(4))
    return np.array(outputs), [inner(h1, h1), inner(h2, h2)], [inner(g1, g1), inner(g2, g2)]


@pytest.mark.parametrize("gamma0", [0.1, 1.0, 3.0])
def test_two_layers_are_exact(gamma0):
    steps = 12
    outputs, features, gradients = two_layers_by_singular_vectors(gamma0, 0.3, steps)
    limit = mup.deep_linear(X, Y, depth=2, gamma0=gamma0, learning_rate=0.3, steps=steps).value
    np.testing.assert_allclose(limit.outputs, outputs, atol=1e-12)
    np.testing.assert_allclose(limit.features.reshape(2, 39, 39), features, rtol=1e-12, atol=1e-12)
    gradients = [np.kron(g, np.ones((3, 3))) for g in gradients]  # the same for all inputs
    np.testing.assert_allclose(limit.gradients.reshape(2, 39, 39), gradients, rtol=1e-12, atol=1e-12)


def test_one_layer_is_a_network_of_width_dim_plus_one():
    """Words and readout are white vectors; the network acts on their coordinates (Yang & Hu, arXiv:2011.14522)."""
    gamma0, rate = 2.0, 0.3
    first, readout = np.eye(4, 3), np.eye(4)[3]
    x, y, outputs = np.array(X) / np.sqrt(3), np.array(Y), []
    for _ in range(11):
        f = x @ first.T @ readout / gamma0
        outputs.append(f)
        push = rate * gamma0 / 3 * (y - f) @ x
        first, readout = first + np.outer(readout, push), readout + first @ push
    limit = mup.deep_linear(X, Y, depth=1, gamma0=gamma0, learning_rate=rate, steps=10).value
    np.testing.assert_allclose(limit.outputs, outputs, atol=1e-13)


def test_finite_networks_converge_like_one_over_width():
    """Three layers; Richardson's extrapolation from two widths."""
    steps, gamma0 = 5, 1.0

    @partial(jax.jit, static_argnums=0)
    def trained(width):
        def network(key):
            return train_mup(
                identity, X, Y, width=width, depth=3, gamma0=gamma0, learning_rate=0.3, steps=steps, key=key
            )

        keys = jax.random.split(jax.random.key(width), 1024)
        return jax.lax.map(network, keys, batch_size=64)

    limit = mup.deep_linear(X, Y, depth=3, gamma0=gamma0, learning_rate=0.3, steps=steps).value
    narrow, wide = trained(32), trained(64)
    bias, z = 0.0, {}
    for name in limit._fields:
        a, b, exact = (np.array(getattr(t, name)) for t in (narrow, wide, limit))
        mean = 2 * b.mean(0) - a.mean(0)
        error = np.sqrt(4 * b.var(0) + a.var(0)) / np.sqrt(1024)
        moves = error > 1e-10
        z[name] = ((mean - exact)[moves] / error[moves]) ** 2
        bias = max(bias, (abs(b.mean(0) - exact)[moves] / (b.std(0)[moves] / 32)).max())
    assert bias > 5  # there is something to extrapolate
    assert all(np.sqrt(v.mean()) < 2 for v in z.values()), {k: np.sqrt(v.mean()) for k, v in z.items()}


@pytest.mark.parametrize("depth", [1, 4])
def test_small_gamma0_is_the_tangent_kernel(depth):
    kernel = (depth + 1) * X @ X.T / 3
    modes = dynamics.modes(kernel)
    lazy = jax.vmap(lambda t: dynamics.response(modes, kernel, steps=t, learning_rate=0.2) @ Y)(jnp.arange(9))
    errors = [
        jnp.abs(mup.deep_linear(X, Y, depth=depth, gamma0=g, learning_rate=0.2, steps=8).value.outputs - lazy).max()
        for g in (0.01, 0.02)
    ]
    assert errors[0] < 1e-3
    np.testing.assert_allclose(errors[1] / errors[0], 4, rtol=1e-2)


def test_hyperparameters_are_vmapped():
    def loss(gamma0, learning_rate):
        return mup.deep_linear(X, Y, depth=3, gamma0=gamma0, learning_rate=learning_rate, steps=4).value.loss

    gamma0, learning_rate = jnp.array([0.5, 2.0]), jnp.array([0.3, 0.1])
    together = jax.vmap(loss)(gamma0, learning_rate)
    for i in range(2):
        np.testing.assert_allclose(together[i], loss(gamma0[i], learning_rate[i]), rtol=1e-12)


def test_depth_is_checked():
    with pytest.raises(ValueError, match="depth=0: give a whole number >= 1"):
        mup.deep_linear(X, Y, depth=0, gamma0=1.0, learning_rate=0.3, steps=4)
