"""Finite networks in the maximal-update parametrisation: a plain loop with the gradients written out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.networks import train_mup
from theorysim.networks.mup import initial_mup

X = jnp.array([[1.0, 0.3, -0.5], [0.2, -0.9, 0.8]])
Y = jnp.array([1.0, -0.7])


@partial(jax.jit, static_argnames="width")
def train(gamma0, width, key):
    return train_mup(jnp.tanh, X, Y, width=width, depth=2, gamma0=gamma0, learning_rate=0.3, steps=6, key=key)


@pytest.mark.parametrize("gamma0", [0.01, 2.0])
def test_training_is_that_of_a_plain_loop(gamma0):
    width, key, rate = 20, jax.random.key(0), 0.3
    trained = train(gamma0, width, key)
    params = initial_mup(key, width=width, depth=2, dim=3)
    first, hidden, readout = np.array(params.first), np.array(params.hidden[0]), np.array(params.readout)
    x, y, outputs, features, gradients = np.array(X) / np.sqrt(3), np.array(Y), [], [], []
    initial = np.tanh(np.tanh(x @ first.T) @ hidden.T / np.sqrt(width)) @ readout / (gamma0 * width)
    for _ in range(7):
        a1 = np.tanh(x @ first.T)
        a2 = np.tanh(a1 @ hidden.T / np.sqrt(width))
        f = a2 @ readout / (gamma0 * width) - initial
        outputs.append(f)
        g2 = (1 - a2**2) * readout
        g1 = (1 - a1**2) * (g2 @ hidden) / np.sqrt(width)
        features.append((a1, a2))
        gradients.append((g1, g2))
        push = rate * gamma0 / 2 * (y - f)[:, None]
        first = first + (push * g1).T @ x
        hidden = hidden + (push * g2).T @ a1 / np.sqrt(width)
        readout = readout + (push * a2).sum(0)
    np.testing.assert_allclose(trained.outputs, outputs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(trained.loss, ((np.array(outputs) - y) ** 2).mean(1) / 2, rtol=1e-10)
    for ours, plain in ((trained.features, features), (trained.gradients, gradients)):
        assert ours.shape == (2, 7, 2, 7, 2)
        for layer in range(2):
            fields = np.concatenate([step[layer] for step in plain])
            np.testing.assert_allclose(ours[layer].reshape(14, 14), fields @ fields.T / width, rtol=1e-9, atol=1e-12)


def test_parameters_are_standard_normal():
    params = initial_mup(jax.random.key(1), width=200, depth=3, dim=50)
    assert [w.shape for w in jax.tree.leaves(params)] == [(200, 50), (200, 200), (200, 200), (200,)]
    flat = jnp.concatenate([w.ravel() for w in jax.tree.leaves(params)])
    np.testing.assert_allclose(flat.mean(), 0, atol=3 / np.sqrt(flat.size))
    np.testing.assert_allclose(flat.var(), 1, atol=3 * np.sqrt(2 / flat.size))
    assert (
        initial_mup(jax.random.key(1), width=4, depth=2, dim=3, dtype=jnp.dtype("float32")).first.dtype == jnp.float32
    )


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"gamma0=0\.0: give a value > 0"):
        train_mup(jnp.tanh, X, Y, width=4, depth=1, gamma0=0.0, learning_rate=0.3, steps=2, key=jax.random.key(0))
