"""Positively homogeneous activations: one wedge, brute force, the plane in more dimensions, closed forms."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from theorysim.infinite import leaky_relu, mup, piecewise_linear, relu
from theorysim.infinite.mup import cone

X = jnp.array([[1.0, 0.3, -0.5], [0.2, -0.9, 0.8]])
Y = jnp.array([1.0, -0.7])
SPACE = jnp.array([[1.0, 0.3, -0.5, 0.4], [0.2, -0.9, 0.8, 1.0], [0.5, 0.6, 0.1, -1.2]])
TARGETS = jnp.array([1.0, -0.7, 0.4])
BY_RANK = {2: X, 3: SPACE}
TRAINING = {"gamma0": 1.0, "learning_rate": 0.3, "steps": 8}


def descend(h, z, weights, inputs, targets, slopes, gamma0, learning_rate, steps):
    """Particles, one after another in time."""
    kernel, rate = inputs @ inputs.T / inputs.shape[1], learning_rate * gamma0 / len(inputs)
    outputs, phi, g = [], h, h
    for _ in range(steps + 1):
        slope = np.where(h > 0, slopes[1], slopes[0])
        phi, g = slope * h, slope * z
        outputs.append(phi @ (weights * z) / gamma0)
        error = targets - outputs[-1]
        h, z = h + rate * kernel @ (error[:, None] * g), z + rate * error @ phi
    return np.array(outputs), phi, g


def test_one_input_is_a_wedge():
    """Neurons with h > 0 stay linear in (h, z) until h vanishes, and never come back: two numbers tell which do not."""
    kernel, target, gamma0, rate = 1.7, 1.3, 2.0, 0.4
    exact = mup.particles(relu, jnp.sqrt(jnp.array([[kernel]])), jnp.array([target]), gamma0=gamma0,
                          learning_rate=rate, steps=8)  # fmt: skip
    h, z = np.array([np.sqrt(kernel), 0.0]), np.array([0.0, 1.0])  # in (cos, sin) of the angle
    lowest, highest = -np.pi / 2, np.pi / 2
    for f in exact.value.outputs[:, 0]:
        zero = (np.arctan2(-h[0], h[1]) + np.pi / 2) % np.pi - np.pi / 2
        if lowest < zero < highest:
            middle = (zero + highest) / 2
            above = h @ [np.cos(middle), np.sin(middle)] > 0
            lowest, highest = (zero, highest) if above else (lowest, zero)
        mean = quad(lambda t, h=h, z=z: (z @ [np.cos(t), np.sin(t)]) * (h @ [np.cos(t), np.sin(t)]) / np.pi,
                    lowest, highest, epsabs=1e-14)[0] / gamma0  # fmt: skip
        np.testing.assert_allclose(f, mean, atol=1e-13)
        h, z = h + rate * gamma0 * kernel * (target - mean) * z, z + rate * gamma0 * (target - mean) * h
    assert float(exact.error.outputs.max()) == 0.0


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (-0.4, 1.2)])
def test_one_direction_is_a_fine_circle(slopes):
    inputs, targets = np.array([[1.0], [-0.7], [1.6]]), np.array([1.0, 0.5, -0.3])
    training = {"gamma0": 1.5, "learning_rate": 0.5, "steps": 6}
    angle = 2 * np.pi * (np.arange(2**20) + 0.5) / 2**20
    h, z = inputs * np.cos(angle), np.sin(angle)
    weights = np.full(len(angle), 2 / len(angle))  # the mean square radius is 2
    outputs, phi, g = descend(h, z, weights, inputs, targets, slopes, **training)
    exact = mup.particles(piecewise_linear(*slopes), jnp.asarray(inputs), jnp.asarray(targets), **training).value
    # A jump is seen within a step of the angle, of 6e-6.
    np.testing.assert_allclose(exact.outputs, outputs, atol=2e-6)
    np.testing.assert_allclose(exact.features[0, -1, :, -1], weights * phi @ phi.T, atol=2e-5)
    np.testing.assert_allclose(exact.gradients[0, -1, :, -1], weights * g @ g.T, atol=2e-5)


def strong(rank):
    return {"gamma0": 2.0, "learning_rate": 0.15 * rank, "steps": 8}


@cache
def trained(activation, rank):
    return mup.particles(activation, BY_RANK[rank], TARGETS[:rank], **strong(rank)).value


@pytest.mark.parametrize("rank", BY_RANK)
@pytest.mark.parametrize(("activation", "slopes"), [(relu, (0.0, 1.0)), (leaky_relu(0.2), (0.2, 1.0))])
def test_particles_are_neurons_drawn_at_random(activation, slopes, rank):
    rng = np.random.default_rng(0)
    count, batches = 100_000, 8
    inputs, targets = np.array(BY_RANK[rank]), np.array(TARGETS[:rank])
    runs = []
    for _ in range(batches):
        h = inputs @ rng.standard_normal((inputs.shape[1], count // 2)) / np.sqrt(inputs.shape[1])
        z = rng.standard_normal(count // 2)
        h, z = np.concatenate([h, h], 1), np.concatenate([z, -z])
        weights = np.full(count, 1 / count)
        outputs, phi, g = descend(h, z, weights, inputs, targets, slopes, **strong(rank))
        runs.append([outputs[1:], phi @ phi.T / count, g @ g.T / count])
    exact = trained(activation, rank)
    ours = [exact.outputs[1:], exact.features[0, -1, :, -1], exact.gradients[0, -1, :, -1]]
    for run, number in zip(zip(*runs, strict=True), ours, strict=True):
        error = np.std(run, 0, ddof=1) / np.sqrt(batches)
        # Root mean square deviation, in standard errors of 7 degrees of freedom: 1.18 on average.
        assert np.sqrt((((np.mean(run, 0) - number) / error) ** 2).mean()) < 2.5


def test_initial_kernels_are_the_duals():
    one = jnp.array([[1.0], [-0.7]])
    training = {"gamma0": 1.0, "learning_rate": 0.1, "steps": 1}
    found = {rank: (inputs, trained(relu, rank)) for rank, inputs in BY_RANK.items()}
    found[1] = one, mup.particles(relu, one, jnp.ones(2), **training).value
    for rank, error in {1: 1e-12, 2: 1e-9, 3: 1e-6}.items():
        inputs, trajectory = found[rank]
        kernel = np.array(inputs @ inputs.T) / inputs.shape[1]
        norms = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        angle = np.arccos(np.clip(kernel / norms, -1, 1))
        arccosine = norms * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        np.testing.assert_allclose(trajectory.features[0, 0, :, 0], arccosine, atol=error)
        np.testing.assert_allclose(trajectory.gradients[0, 0, :, 0], (np.pi - angle) / (2 * np.pi), atol=error)


# The numbers of half circles are those of the tests around: what they compile is taken again.
@pytest.mark.parametrize(
    ("rank", "points", "errors"), [(2, 2**11, [1.2e-7, 5e-7, 1.2e-7, 2.5e-6]), (3, 2**12, [1e-6, 5e-6, 2e-6, 1e-4])]
)
def test_directions_converge(rank, points, errors):
    inputs, targets = BY_RANK[rank], TARGETS[:rank]
    coarse, fine = (mup.particles(relu, inputs, targets, **TRAINING, points=n) for n in (points, 4 * points))
    np.testing.assert_allclose(fine.value.outputs[0], 0, atol=1e-15)
    for found, exact, error in zip(coarse.value, fine.value, errors, strict=True):
        np.testing.assert_allclose(found, exact, atol=error)
    assert jnp.abs(coarse.value.outputs - fine.value.outputs).max() < coarse.error.outputs.max()


@pytest.mark.parametrize("rank", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_inputs_in_a_plane_have_the_same_limit_in_more_dimensions(rank):
    plane = jnp.array([[1.0, 0.6], [-0.2, 1.1], [0.7, -0.9], [-0.8, -0.5]])[:rank]
    targets = jnp.array([1.0, -0.7, 0.4, 0.2])[:rank]
    padded = jnp.sqrt(4 / 2) * jnp.pad(plane, ((0, 0), (0, 4 - 2)))  # the same kernel
    exact = mup.particles(relu, plane, targets, **TRAINING).value
    found = mup.particles(relu, padded, targets, **TRAINING, points=[2**12, 2**13][rank - 3]).value
    np.testing.assert_allclose(found.outputs[0], 0, atol=1e-15)
    np.testing.assert_allclose(found.loss, exact.loss, atol=[2e-6, 2e-5][rank - 3])
    np.testing.assert_allclose(found.features, exact.features, atol=[5e-6, 5e-5][rank - 3])


def test_hyperparameters_are_vmapped_and_differentiated():
    def loss(gamma0, learning_rate):
        return mup.particles(relu, X, Y, gamma0=gamma0, learning_rate=learning_rate, steps=4, points=64).value.loss

    def last(gamma0, learning_rate):
        losses = loss(gamma0, learning_rate)
        return losses[-1], losses

    gamma0, learning_rate = jnp.array([0.5, 2.0, 1.0]), jnp.array([0.3, 0.1, 0.3])
    (_, together), slopes = jax.jit(jax.vmap(jax.value_and_grad(last, has_aux=True)))(gamma0, learning_rate)
    for i in range(2):
        np.testing.assert_allclose(together[i], loss(gamma0[i], learning_rate[i]), rtol=1e-12)
    numeric = (loss(1.0001, 0.3)[-1] - loss(0.9999, 0.3)[-1]) / 0.0002
    np.testing.assert_allclose(slopes[2], numeric, rtol=1e-6)


def test_numbers_are_not_traced_again(monkeypatch):
    traces, axes = [], cone._axes
    monkeypatch.setattr(cone, "_axes", lambda root: traces.append(root) or axes(root))
    for activation, gamma0, rate in [(relu, 1.0, 0.3), (relu, 2.0, 0.3), (leaky_relu(0.1), 2.0, 0.1)]:
        mup.particles(activation, X[:1], Y[:1], gamma0=gamma0, learning_rate=rate, steps=3)
    assert len(traces) == 1


def test_too_many_arcs_are_never_silent(monkeypatch):
    def run(gamma0):
        return mup.particles(relu, SPACE, jnp.ones(3), gamma0=gamma0, learning_rate=0.5, steps=3, points=64)

    exact = run(1.0)
    monkeypatch.setattr(cone, "AMPLE", 1)
    assert jnp.isinf(jax.jit(run)(1.0).error.outputs).all()
    monkeypatch.setattr(cone, "RATIOS", (1, *cone.RATIOS))
    grown = run(1.0)
    assert jnp.isfinite(grown.error.outputs).all()
    np.testing.assert_allclose(grown.value.outputs, exact.value.outputs, atol=1e-13)


def test_half_circles_are_for_activations_that_name_their_slopes():
    """A bare relu goes by Sobol's points, 1e-4 off, and is warned of; its slopes make it exact."""
    named = mup.particles(relu, X, Y, **TRAINING)
    with pytest.warns(
        UserWarning, match=r"activation 'relu' has kinks, .*name them, as in Activation\('relu', fn, kinks="
    ):
        bare = mup.particles(jax.nn.relu, X, Y, **TRAINING)
    error = jnp.abs(bare.value.loss - named.value.loss).max()
    assert 1e-9 < error < 1e-3
