"""Dynamical mean-field theory: exact limits, finite networks, honest errors, many devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.infinite import Activation, dynamics, fully_connected, mup, relu, tanh
from theorysim.infinite.mup.dmft import extend
from theorysim.networks import train_mup

X = jnp.array([[1.0, 0.3, -0.5], [0.2, -0.9, 0.8]])
Y = jnp.array([1.0, -0.7])
TRAINING = {"gamma0": 1.0, "learning_rate": 0.3, "steps": 16}
SMALL = {"learning_rate": 0.3, "steps": 4, "samples": 256, "batches": 8, "key": jax.random.key(0)}


def distances(estimate, reference, error=None):
    """Of each field, and of the kernels layer by layer: distance over its standard error (both root mean square)."""
    error = jax.tree.map(jnp.zeros_like, reference) if error is None else error
    found = {}
    for name, mean, own, exact, other in zip(
        reference._fields, estimate.value, estimate.error, reference, error, strict=True
    ):
        layered = name in ("features", "gradients")
        rows = [np.reshape(a, (len(a) if layered else 1, -1)) for a in (mean - exact, jnp.hypot(own, other))]
        found[name] = np.linalg.norm(rows[0], axis=1) / np.linalg.norm(rows[1], axis=1)
    return found


def within(found, most):
    return all((value < most).all() for value in found.values())


@pytest.mark.parametrize("gamma0", [0.1, 1.0, 3.0])
def test_one_layer_is_the_particle_system(gamma0):
    training = {**TRAINING, "gamma0": gamma0}
    estimate = mup.dmft(jnp.tanh, X, Y, depth=1, **training, samples=1024, batches=16, key=jax.random.key(0))
    found = distances(estimate, mup.particles(jnp.tanh, X, Y, **training).value)
    assert within(found, 3), found


@pytest.mark.parametrize("gamma0", [0.1, 2.0])
def test_identity_is_the_linear_algebra(gamma0):
    training = {"gamma0": gamma0, "learning_rate": 0.3, "steps": 6}
    estimate = mup.dmft(identity, X, Y, depth=3, **training, samples=1024, batches=16, key=jax.random.key(1))
    found = distances(estimate, mup.deep_linear(X, Y, depth=3, **training).value)
    assert within(found, 3), found


def identity(h):
    return h


def test_small_gamma0_is_the_tangent_kernel():
    kernel = jax.jit(lambda: fully_connected(tanh, X, X, depth=2, weight_var=1.0, bias_var=0.0).ntk)()
    modes = dynamics.modes(kernel)
    lazy = jax.vmap(lambda t: dynamics.response(modes, kernel, steps=t, learning_rate=0.3) @ Y)(jnp.arange(5))
    estimate = mup.dmft(jnp.tanh, X, Y, depth=2, gamma0=0.01, **SMALL)
    error = estimate.error.outputs
    np.testing.assert_array_equal(estimate.value.outputs[0], 0)
    assert jnp.linalg.norm(estimate.value.outputs - lazy) < 3 * jnp.linalg.norm(error)
    assert jnp.linalg.norm(error) < 0.02 * jnp.linalg.norm(lazy)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def networks(activation, width, depth, steps, count, gamma0, key):
    def network(key):
        return train_mup(
            activation, X, Y, width=width, depth=depth, gamma0=gamma0, learning_rate=0.3, steps=steps, key=key
        )

    return jax.lax.map(network, jax.random.split(key, count))


def mean_and_error(trajectories):
    count = len(trajectories.loss)
    mean = jax.tree.map(lambda a: a.mean(0), trajectories)
    return mean, jax.tree.map(lambda a: a.std(0, ddof=1) / jnp.sqrt(count), trajectories)


@pytest.mark.parametrize(
    ("activation", "depth", "gamma0"),
    [(jnp.tanh, 3, 2.0), pytest.param(jax.nn.silu, 2, 1.0, marks=pytest.mark.slow)],
)
def test_wide_networks(activation, depth, gamma0):
    """Kernels too: without the equal-time part of B, the first layer's features are off by 14 standard errors."""
    steps = 10
    finite, error = mean_and_error(networks(activation, 512, depth, steps, 24, gamma0, jax.random.key(3)))
    estimate = mup.dmft(
        activation, X, Y, depth=depth, gamma0=gamma0, learning_rate=0.3, steps=steps,
        samples=1024, batches=8, key=jax.random.key(4),
    )  # fmt: skip
    found = distances(estimate, finite, error)
    assert within(found, 3), found
    assert (abs(estimate.value.loss - finite.loss) < 0.01 * finite.loss[0]).all()
    moved = [jnp.linalg.norm(k[-1, :, -1] - k[0, :, 0]) / jnp.linalg.norm(k[0, :, 0]) for k in finite.features]
    assert min(moved) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("gamma0", [1.0, 2.0])
def test_networks_of_width_2048_within_one_percent(gamma0):
    finite, error = mean_and_error(networks(jnp.tanh, 2048, 2, 16, 24, gamma0, jax.random.key(5)))
    estimate = mup.dmft(
        jnp.tanh, X, Y, depth=2, **{**TRAINING, "gamma0": gamma0}, samples=4096, batches=16, key=jax.random.key(6)
    )
    assert (abs(estimate.value.loss - finite.loss) < 0.01 * finite.loss[0]).all()
    assert within(found := distances(estimate, finite, error), 3), found


def test_standard_errors_are_those_of_repetition():
    runs = [
        mup.dmft(jnp.tanh, X, Y, depth=2, gamma0=1.0, **{**SMALL, "key": key})
        for key in jax.random.split(jax.random.key(7), 24)
    ]
    runs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
    for name in ("loss", "features", "gradients"):
        spread = jnp.sqrt(getattr(runs.value, name).var(0, ddof=1).mean())
        claimed = jnp.sqrt((getattr(runs.error, name) ** 2).mean())
        # A variance from 24 runs of correlated numbers has a relative error of sqrt(2 / 23) at most: three of them.
        assert abs(spread**2 / claimed**2 - 1) < 3 * np.sqrt(2 / 23)


def test_samples_are_spread_over_devices():
    mesh = jax.make_mesh((8,), ("samples",))
    alone = mup.dmft(jnp.tanh, X, Y, depth=2, gamma0=1.0, **SMALL)
    spread = mup.dmft(jnp.tanh, X, Y, depth=2, gamma0=1.0, **SMALL, mesh=mesh)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), alone, spread)


def test_a_curve_over_gamma0_has_common_noise_and_one_trace():
    traces = []

    def counted(h):
        traces.append(h)
        return jnp.tanh(h)

    activation = Activation("counted", counted)

    def loss(gamma0):
        return mup.dmft(activation, X, Y, depth=2, gamma0=gamma0, **SMALL).value.loss

    gamma0 = jnp.array([0.5, 1.0, 2.0])
    together = jax.vmap(loss)(gamma0)
    once = len(traces)
    beside = jax.vmap(loss)(gamma0 + 1e-6)
    assert len(traces) == once
    alone = mup.dmft(jnp.tanh, X, Y, depth=2, gamma0=1.0, **SMALL).value.loss
    np.testing.assert_allclose(together[1], alone, rtol=1e-9)
    assert (jnp.abs(beside - together) < 1e-5).all()


@pytest.mark.slow
def test_losses_are_differentiated_through_their_noise():
    def last_loss(gamma0):
        return mup.dmft(jnp.tanh, X, Y, depth=2, gamma0=gamma0, **SMALL).value.loss[-1]

    slope, step = jax.grad(last_loss)(1.0), 1e-4
    np.testing.assert_allclose(slope, (last_loss(1 + step) - last_loss(1 - step)) / (2 * step), rtol=1e-5)


def test_factors_grow_row_by_row():
    root = np.random.default_rng(0).standard_normal((12, 20))
    kernel, factor = jnp.asarray(root @ root.T), jnp.zeros((12, 12))
    for start in range(0, 12, 3):
        known = jnp.arange(12) < start + 3
        factor = extend(factor, jnp.where(known[None, :], kernel[start : start + 3], 0.0), jnp.asarray(start))
    np.testing.assert_allclose(factor, np.linalg.cholesky(kernel + 1e-10 * np.diag(np.diag(kernel))), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 63}, "samples=63: give a multiple of 2"),
        ({"batches": 0}, "batches=0: give a whole number >= 1"),
        ({"gamma0": -1.0}, "gamma0=-1.0: give a value > 0"),
        (
            {"x": X.astype("float32"), "targets": Y.astype("float32")},
            "x is float32, and a second hidden layer, .* needs float64",
        ),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"x": X, "targets": Y, "depth": 2, "gamma0": 1.0, **SMALL, **change}
    with pytest.raises(ValueError, match=message):
        mup.dmft(jnp.tanh, **arguments)


def test_kinks_are_refused():
    with pytest.raises(ValueError, match=r"activation .relu. has kinks, .* take `mup\.particles`"):
        mup.dmft(relu, X, Y, depth=2, gamma0=1.0, **SMALL)
