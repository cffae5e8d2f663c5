"""Finite networks: their initial law, their training loop, their tangent kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theorysim.infinite import erf
from theorysim.networks import MLP, empirical_ntk, propagate, standard_normal_params, train

X = jax.random.normal(jax.random.key(0), (6, 4))
TARGETS = jax.random.normal(jax.random.key(1), (6,))
NETWORK = MLP(width=16, depth=2, activation=jnp.tanh, weight_var=1.5, bias_var=0.2)
PARAMS = jax.jit(NETWORK.init)(jax.random.key(2), X)


def loss(params, _=None):
    return jnp.square(NETWORK.apply(params, X)[:, 0] - TARGETS).mean() / 2


def test_parameters_are_standard_normal_and_scaled_in_the_forward_pass():
    network = MLP(width=300, depth=2, activation=jnp.tanh, weight_var=1.5, bias_var=0.2)
    params = jax.jit(network.init)(jax.random.key(3), X)["params"]
    assert {name: layer["weights"].shape for name, layer in params.items()} == {
        "NTKDense_0": (4, 300),
        "NTKDense_1": (300, 300),
        "NTKDense_2": (300, 1),
    }
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    np.testing.assert_allclose(flat.mean(), 0, atol=3 / np.sqrt(flat.size))
    np.testing.assert_allclose(flat.var(), 1, atol=3 * np.sqrt(2 / flat.size))
    first, second, readout = (params[f"NTKDense_{i}"] for i in range(3))
    h = jnp.tanh(np.sqrt(1.5 / 4) * X @ first["weights"] + np.sqrt(0.2) * first["biases"])
    h = jnp.tanh(np.sqrt(1.5 / 300) * h @ second["weights"] + np.sqrt(0.2) * second["biases"])
    f = np.sqrt(1.5 / 300) * h @ readout["weights"] + np.sqrt(0.2) * readout["biases"]
    np.testing.assert_allclose(network.apply({"params": params}, X), f, rtol=1e-12, atol=1e-14)


def test_one_draw_has_the_law_of_the_initial_parameters():
    network = MLP(width=300, depth=2, activation=jnp.tanh)
    params = jax.jit(lambda key: standard_normal_params(network, X, key=key))(jax.random.key(3))
    shapes = jax.eval_shape(network.init, jax.random.key(3), X)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {X.dtype}
    for leaf in jax.tree.leaves(params):
        if leaf.size > 1:
            np.testing.assert_allclose(leaf.mean(), 0, atol=4 / np.sqrt(leaf.size))
            np.testing.assert_allclose(leaf.var(), 1, atol=4 * np.sqrt(2 / leaf.size))


def test_variances_may_be_traced():
    def output(weight_var, bias_var):
        network = MLP(width=16, depth=2, activation=jnp.tanh, weight_var=weight_var, bias_var=bias_var)
        return network.apply(PARAMS, X)

    traced = jax.jit(jax.vmap(output))(jnp.array([1.5, 2.0]), jnp.array([0.2, 0.1]))
    np.testing.assert_allclose(traced[0], NETWORK.apply(PARAMS, X), rtol=1e-12)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.3), optax.adam(0.01)])
def test_training_is_that_of_a_plain_loop(optimizer):
    steps = [0, 1, 5, 6]
    observed = jax.jit(lambda p: train(loss, p, optimizer, jnp.array(steps), loss))(PARAMS)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    params, state, losses = PARAMS, optimizer.init(PARAMS), []
    for _ in range(7):
        params, state, value = step(params, state)
        losses.append(value)
    np.testing.assert_allclose(observed, np.array(losses)[steps], rtol=1e-10)


def test_a_small_step_changes_the_outputs_by_the_kernel():
    rate = 1e-6

    @jax.jit
    def outputs_and_kernel(params):
        outputs = train(loss, params, optax.sgd(rate), jnp.array([0, 1]), lambda p: NETWORK.apply(p, X)[:, 0])
        return outputs, empirical_ntk(NETWORK.apply, params, X, X)

    (before, after), kernel = outputs_and_kernel(PARAMS)
    predicted = -rate / 6 * kernel @ (before - TARGETS)
    np.testing.assert_allclose(after - before, predicted, rtol=1e-4)


def test_propagation_keeps_the_inputs_apart_by_their_correlation():
    """First layer: mean over 2000 networks of width 50, three standard errors and 1 / width."""
    keys = jax.random.split(jax.random.key(4), 2000)
    options = {"width": 50, "depth": 1, "variance": 2.0, "correlation": -0.4}
    moments = jax.jit(jax.vmap(lambda key: propagate(erf, weight_var=1.3, bias_var=0.0, key=key, **options)))(keys)
    q = 1.3 * 2 / np.pi * np.arcsin(4 / 5)
    c = 1.3 * 2 / np.pi * np.arcsin(-1.6 / 5) / q
    np.testing.assert_allclose(moments.variance.mean(), q, atol=3 * float(moments.variance.std()) / np.sqrt(2000))
    error = 3 * float(moments.correlation.std()) / np.sqrt(2000) + 1 / 50
    np.testing.assert_allclose(moments.correlation.mean(), c, atol=error)
