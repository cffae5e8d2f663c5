"""Finite networks in abc-parametrisation: the gauge, the coordinate check against theory, muTransfer's optimisers."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theorysim.estimate import exponent
from theorysim.infinite.abc import Parametrisation, changes, integrable, mean_field, mup, ntk, shift, standard, transfer
from theorysim.networks import train
from theorysim.networks.abc import abc_network, coordinate_change, coordinate_check
from theorysim.networks.transfer import role, transfer_adam, transfer_network, transfer_sgd

X = jnp.array([[1.0, 0.3, -0.5], [0.2, -1.0, 0.6]])
Y = jnp.array([[5.0], [-5.0]])  # large, so that the random output at initialisation hardly matters
SMALL = {"learning_rate": 0.02, "activation": jnp.tanh}
CHECK = {"widths": (64, 256), "repeats": 40, **SMALL}


def stacked(*parametrisations):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parametrisations)


@pytest.mark.parametrize("width", [64, 512])
def test_a_shift_changes_nothing(width):
    """muP, theta = 1/4, five steps: the same initial draw, so the same function to rounding."""
    options = {"key": jax.random.key(0), "width": width, "steps": jnp.array([1, 5]), "learning_rate": 0.5}
    change = jax.jit(lambda p: coordinate_change(p, X, Y, activation=jnp.tanh, **options))
    moved, shifted = change(mup(2)), change(shift(mup(2), 0.25))
    assert (moved > 0.1).all()
    np.testing.assert_allclose(moved, shifted, rtol=1e-12)


def test_a_network_is_its_formula():
    parametrisation = Parametrisation(jnp.array([-0.5, 0.25, 0.5]), jnp.array([0.5, 0.25, 1.0]), 0.0)
    network = abc_network(parametrisation, width=256, activation=(jnp.tanh, jnp.sin), outputs=300)
    params = jax.jit(network.init)(jax.random.key(1), X)
    w = [params["params"][name]["weights"] for name in ("input", "hidden_2", "readout")]
    assert [m.shape for m in w] == [(3, 256), (256, 256), (256, 300)]
    for m, b in zip(w, (0.5, 0.25, 1.0), strict=True):
        np.testing.assert_allclose(jnp.square(m).mean(), 256 ** (-2 * b), rtol=3 * np.sqrt(2 / m.size))
    h1 = X @ w[0] * 256**0.5
    h2 = jnp.tanh(h1) @ w[1] * 256**-0.25
    f = jnp.sin(h2) @ w[2] * 256**-0.5
    found = network.apply(params, X, method="preactivations")
    for got, wanted in zip(found, (h1, h2, f), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10)
    np.testing.assert_array_equal(network.apply(params, X), found[-1])


def test_coordinate_check_finds_the_exponents_of_every_layer(quick_jit):
    """One step; muP, NTP, SP with c = 1 and with c = 0. Three standard errors, and 0.02 of finite width."""
    parametrisations = stacked(mup(2), ntk(2), standard(2, c=1.0), standard(2)._replace(c=jnp.asarray(0.0)))
    with jax.enable_x64(False):  # the networks are drawn in float32
        single = jax.tree.map(lambda leaf: leaf.astype(np.float32), (parametrisations, X, Y))
        check = jax.vmap(lambda p: coordinate_check(p, *single[1:], key=jax.random.key(2), **CHECK))
        found = quick_jit(check)(single[0])
    theory = jax.jit(jax.vmap(lambda p: changes(p, first_step=True)))(parametrisations)
    wanted = -np.concatenate([theory.hidden, theory.output[:, None]], 1)
    assert found.change.shape == (4, 2, 40, 3)
    stable = slice(0, 3)  # the output of SP with c = 0 is no longer linear in the step
    assert (found.exponent.standard_error[stable] < 0.05).all()
    np.testing.assert_array_less(
        abs(found.exponent.value - wanted)[stable], 3 * found.exponent.standard_error[stable] + 0.02
    )
    np.testing.assert_allclose(found.exponent.value[3, :2], [-0.5, 0.5], atol=0.1)


def test_the_first_step_where_signals_shrink(quick_jit):
    """IP and MFP of three hidden layers: three standard errors, and 0.02 of finite width."""
    parametrisations = stacked(integrable(3), mean_field(3))
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: leaf.astype(np.float32), (parametrisations, X, Y))
        check = jax.vmap(lambda p: coordinate_check(p, *single[1:], key=jax.random.key(4), **CHECK))
        found = quick_jit(check)(single[0])
    theory = jax.jit(jax.vmap(lambda p: changes(p, first_step=True)))(parametrisations)
    wanted = -np.concatenate([theory.hidden, theory.output[:, None]], 1)
    assert (found.exponent.standard_error < 0.05).all()
    np.testing.assert_array_less(abs(found.exponent.value - wanted), 3 * found.exponent.standard_error + 0.02)


def test_a_quiet_readout_learns_before_the_features_do(quick_jit):
    """muP with b_3 = 3/2: the last hidden layer changes by 1 / n in the first step, by O(1) in three."""
    quiet = mup(2)._replace(b=jnp.array([0.5, 0.5, 1.5]))
    options = {"activation": jnp.tanh, "learning_rate": 0.05, "steps": jnp.array([1, 3])}
    widths = (64, 256)

    def second(width, key):
        return coordinate_change(quiet, X, Y, key=key, width=width, **options)[:, 1]

    moved = [quick_jit(jax.vmap(partial(second, n)))(jax.random.split(jax.random.key(n), 40)) for n in widths]
    slopes = jax.jit(jax.vmap(partial(exponent, jnp.array(widths)), in_axes=2))(jnp.stack(moved))
    np.testing.assert_array_less(abs(slopes.value - jnp.array([-1.0, 0.0])), 3 * slopes.standard_error + 0.02)


def scaled(base_width):
    sizes = {"width": 32, "base_width": base_width, "depth": 2, "dim": 3, "outputs": 2}
    return transfer_network(activation=jnp.tanh, **sizes)


@cache
def started():
    network = scaled(8)

    @jax.jit
    def start(key):
        params = network.init(key, X)
        return params, jax.grad(lambda p: jnp.square(network.apply(p, X) - 1.0).sum())(params)

    return network, *start(jax.random.key(5))


def test_roles_are_read_from_the_tree():
    labels = jax.tree_util.tree_map_with_path(lambda path, _: role(path), started()[1])["params"]
    assert labels == {
        "input": {"weights": "input", "biases": "bias"},
        "hidden_2": {"weights": "hidden", "biases": "bias"},
        "readout": {"weights": "readout", "biases": "fixed"},
    }


@pytest.mark.parametrize(
    ("optimizer", "plain"), [(transfer_sgd, optax.sgd), (transfer_adam, lambda rate: optax.adamw(rate, weight_decay=0))]
)
def test_optimisers_scale_each_update_by_its_role(optimizer, plain):
    """At the base width they are optax's own; elsewhere each update has its factor of the table."""
    _, params, gradient = started()
    kind = optimizer.__name__.removeprefix("transfer_")
    usual = jax.jit(plain(0.1).update)(gradient, plain(0.1).init(params), params)[0]
    for ratio in (1.0, 4.0):
        transformation = optimizer(0.1, ratio)
        updates = jax.jit(transformation.update)(gradient, transformation.init(params), params)[0]

        def wanted(path, update, ratio=ratio):
            return update * transfer(role(path), ratio, optimizer=kind).learning_rate

        for got, want in zip(
            jax.tree.leaves(updates),
            jax.tree.leaves(jax.tree_util.tree_map_with_path(wanted, usual)),
            strict=True,
        ):
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_weight_decay_is_the_same_in_every_role():
    _, params, _ = started()
    transformation = transfer_adam(0.1, 4.0, weight_decay=0.5)
    still = jax.tree.map(jnp.zeros_like, params)
    updates = transformation.update(still, transformation.init(params), params)[0]
    for update, param in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(update, -0.05 * param, rtol=1e-12)


@pytest.mark.parametrize("base_width", [8, 32])
def test_initial_weights_and_multipliers(base_width):
    """Usual at the base width; four times wider, the hidden std is halved and the output a quarter of the sum."""
    network = scaled(base_width)
    hidden, readout = 32**-0.5, base_width**-0.5
    np.testing.assert_allclose(network.initial_stds, [3**-0.5, hidden, readout])
    np.testing.assert_allclose(network.multipliers, [1, 1, base_width / 32])


def test_transferred_sgd_is_training_in_mup():
    """Without biases: a network in mup that starts as the same function takes the same steps."""
    network, params, _ = started()
    layers = params["params"]

    def apply(weights, x):
        return network.apply(
            {"params": {name: weights[name] | {"biases": layers[name]["biases"]} for name in weights}}, x
        )

    ratio = 4.0
    plain = network.clone(multipliers=ratio ** -mup(2).a, biases=False)
    weights = {name: {"weights": layer["weights"]} for name, layer in layers.items()}
    gauge = network.multipliers / plain.multipliers
    names = ("input", "hidden_2", "readout")
    twin = {name: {"weights": weights[name]["weights"] * gauge[i]} for i, name in enumerate(names)}
    steps = jnp.array([0, 1, 4])

    def trajectory(apply, params, optimizer):
        return train(lambda p, _: jnp.square(apply(p, X) - 1.0).sum(), params, optimizer, steps, lambda p: apply(p, X))

    @jax.jit
    def trajectories(weights, twin):
        ours = trajectory(apply, weights, transfer_sgd(0.02, ratio))
        return ours, trajectory(lambda p, x: plain.apply({"params": p}, x), twin, optax.sgd(0.02))

    ours, theirs = trajectories(weights, twin)
    assert abs(ours[2] - ours[0]).min() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_adam_moves_every_layer_alike_under_mup_and_by_powers_in_standard_parametrisation(quick_jit):
    """One small step: changes of 1 in each layer; of 1, width and width^(3/2) where each width is its own base.

    (In the last layer two coherent sums over the width meet weights of 1 / sqrt(width).)
    """
    widths = (64, 256)

    def change(width, base_width, key):
        sizes = {"width": width, "base_width": base_width, "depth": 2, "dim": 3, "outputs": 1}
        network = transfer_network(activation=jnp.tanh, **sizes)

        def observe(params):
            return network.apply(params, X, method="preactivations")

        def loss(params, _):
            return jnp.square(observe(params)[-1] - Y).mean()

        optimizer = transfer_adam(1e-5, width / base_width)
        moved = train(loss, network.init(key, X), optimizer, jnp.array([0, 1]), observe)
        return jnp.stack([jnp.sqrt(jnp.square(layer[1] - layer[0]).mean()) for layer in moved])

    moved = []
    for width in widths:
        bases, keys = jnp.array([64.0, width]), jax.random.split(jax.random.key(width), 20)
        moved.append(quick_jit(jax.vmap(jax.vmap(partial(change, width), (None, 0)), (0, None)))(bases, keys))
    fit = jax.jit(jax.vmap(jax.vmap(partial(exponent, jnp.array(widths)), 2), 1))(jnp.stack(moved))
    wanted = jnp.array([[0, 0, 0], [0, 1, 1.5]])
    np.testing.assert_array_less(abs(fit.value - wanted), 3 * fit.standard_error + 0.05)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"activation has 2 functions: give one, or 3, one per hidden layer"):
        abc_network(mup(3), width=8, activation=(jnp.tanh, jnp.sin)).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"depth=0: give a whole number >= 1"):
        transfer_network(width=8, base_width=8, depth=0, dim=3, outputs=1, activation=jnp.tanh)
