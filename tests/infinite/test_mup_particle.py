"""The particle system: brute force, refined quadrature, the linear algebra, the lazy limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.infinite import dynamics, fully_connected, mup, tanh
from theorysim.infinite.mup.particle import lattice
from theorysim.infinite.mup.solution import check

X = jnp.array([[1.0, 0.3, -0.5], [0.2, -0.9, 0.8]])
Y = jnp.array([1.0, -0.7])
TRAINING = {"gamma0": 1.0, "learning_rate": 0.3, "steps": 16}


def trajectory(activation, inputs, targets, **training):
    return mup.particles(activation, inputs, targets, **training).value


def largest_error(found, reference):
    return [float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in zip(found, reference, strict=True)]


def test_particles_are_neurons_drawn_at_random():
    rng = np.random.default_rng(0)
    count, batches, gamma0 = 100_000, 8, 2.0
    kernel = np.array(X @ X.T / 3)
    runs = []
    for _ in range(batches):
        h = np.linalg.cholesky(kernel) @ rng.standard_normal((2, count // 2))
        z = rng.standard_normal(count // 2)
        h, z = np.concatenate([h, h], 1), np.concatenate([z, -z])
        outputs, histories = [], []
        for _ in range(17):
            f = np.tanh(h) @ z / count / gamma0
            outputs.append(f)
            histories.append((np.tanh(h), z / np.cosh(h) ** 2))
            error = np.array(Y) - f
            h, z = (
                h + 0.15 * gamma0 * kernel @ (error[:, None] * z / np.cosh(h) ** 2),
                z + 0.15 * gamma0 * error @ np.tanh(h),
            )
        first, last = histories[0], histories[-1]
        runs.append([np.array(outputs), first[0] @ last[0].T / count, first[1] @ last[1].T / count])
    exact = trajectory(jnp.tanh, X, Y, gamma0=gamma0, learning_rate=0.3, steps=16)
    ours = [exact.outputs, exact.features[0, 0, :, -1], exact.gradients[0, 0, :, -1]]
    for run, number in zip(zip(*runs, strict=True), ours, strict=True):
        run = np.array(run)
        error = run.std(0, ddof=1) / np.sqrt(batches)
        # Root mean square deviation, in standard errors of 7 degrees of freedom: 1.18 on average.
        assert np.sqrt((((run.mean(0) - number) / np.maximum(error, 1e-12)) ** 2).mean()) < 2.5


@pytest.mark.parametrize(("gamma0", "error"), [(0.1, 1e-13), (1.0, 1e-13), (3.0, 1e-9)])
def test_quadrature_has_converged_at_two_inputs(gamma0, error):
    coarse, fine = (
        trajectory(jnp.tanh, X, Y, gamma0=gamma0, learning_rate=0.3, steps=16, points=n) for n in (None, 2**20)
    )
    assert largest_error(coarse, fine)[0] < error
    assert max(largest_error(coarse, fine)) < 1e4 * error


@pytest.mark.parametrize(("inputs", "error"), [(X[:1], 1e-13), (jnp.eye(3), 1e-10)])
def test_quadrature_has_converged_at_ranks_one_and_three(inputs, error):
    targets = jnp.arange(1.0, 1.0 + len(inputs))
    coarse, fine = (
        trajectory(jnp.tanh, inputs, targets, gamma0=1.0, learning_rate=0.3, steps=2, points=n) for n in (None, 2**20)
    )
    assert max(largest_error(coarse, fine)) < error


RANKS = [4, pytest.param(5, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]


def on_a_sphere(count, dim):
    x = np.random.default_rng(1).standard_normal((count, dim))
    return jnp.asarray(x * np.sqrt(dim) / np.linalg.norm(x, axis=1, keepdims=True))


@pytest.mark.parametrize("rank", RANKS)
def test_inputs_in_a_plane_have_the_same_limit_in_more_dimensions(rank):
    """A rule for two directions, and one for as many as there are inputs, turned with them."""
    plane = on_a_sphere(rank, 2)
    targets = jnp.tanh(plane @ jnp.array([0.7, -0.4]))
    training = {"gamma0": 1.0, "learning_rate": 0.15 * rank, "steps": 12}
    padded = jnp.sqrt(rank / 2) * jnp.pad(plane, ((0, 0), (0, rank - 2)))  # the same kernel
    exact, found = (mup.particles(jnp.tanh, x, targets, **training) for x in (plane, padded))
    exact, error = exact.value, jnp.abs(exact.value.loss - found.value.loss).max()
    assert error < 1e-6 * exact.loss[0]
    np.testing.assert_allclose(found.value.outputs, exact.outputs, atol=5e-6)
    np.testing.assert_allclose(found.value.features, exact.features, atol=1e-4)


@pytest.mark.parametrize("rank", RANKS)
def test_an_orthogonal_input_without_target_changes_nothing(rank):
    """Its output stays 0, so that the others train alone: at the learning rate over their number."""
    targets = jnp.array([1.0, -0.7])
    alone = trajectory(jnp.tanh, jnp.sqrt(2.0) * jnp.eye(2), targets, **TRAINING)
    training = {**TRAINING, "learning_rate": 0.3 * rank / 2}
    padded = jnp.pad(targets, (0, rank - 2))
    among = mup.particles(jnp.tanh, jnp.sqrt(float(rank)) * jnp.eye(rank), padded, **training)
    np.testing.assert_allclose(among.value.outputs, jnp.pad(alone.outputs, ((0, 0), (0, rank - 2))), atol=1e-6)
    assert among.error.outputs.max() < 1e-5


@pytest.mark.parametrize("activation", [jnp.tanh, lambda h: jnp.tanh(h) + 0.3 * h**2 / (1 + h**2)], ids=["odd", "not"])
def test_the_error_that_comes_along_is_above_that_of_the_outputs(activation):
    inputs, targets = on_a_sphere(4, 6), jnp.array([1.0, -0.7, 0.5, 0.2])
    training = {"gamma0": 1.0, "learning_rate": 0.6, "steps": 4}
    exact = trajectory(activation, inputs, targets, **training, points=2**20)
    coarse = mup.particles(activation, inputs, targets, **training, points=2**15)
    error = jnp.abs(coarse.value.outputs - exact.outputs).max()
    assert 1e-6 < error < coarse.error.outputs.max()


def test_sobol_points_agree_with_the_lattice():
    inputs, targets = on_a_sphere(7, 2), jnp.array([1.0, -0.7, 0.5, 0.2, -0.1, 0.6, 0.9])
    training = {"gamma0": 1.0, "learning_rate": 0.6, "steps": 4}
    exact = trajectory(jnp.tanh, inputs, targets, **training)
    padded = jnp.sqrt(7 / 2) * jnp.pad(inputs, ((0, 0), (0, 5)))  # the same kernel
    sobol = mup.particles(jnp.tanh, padded, targets, **training)
    np.testing.assert_allclose(sobol.value.outputs[0], 0, atol=1e-13)
    np.testing.assert_allclose(sobol.value.loss, exact.loss, atol=2e-4 * float(exact.loss[0]))


def test_a_lattice_is_half_a_ball_of_the_law():
    """Its weights sum to 1, its second moments are those of the Gaussian, and points come near to what is asked for."""
    for odd in (False, True):
        points, weights = lattice(4, 2**16, on_a_sphere(4, 6), odd=odd)
        flat = points.swapaxes(0, 1).reshape(5, -1)
        for row in weights.swapaxes(0, 1).reshape(2, -1):
            np.testing.assert_allclose((flat * row[None]) @ flat.T, np.eye(5), atol=1e-4)
        assert abs((weights[:, 0] > 0).sum() - 2**16) < 2**11


def test_identity_is_the_linear_algebra():
    linear = mup.deep_linear(X, Y, depth=1, **TRAINING).value
    assert max(largest_error(trajectory(lambda h: h, X, Y, **TRAINING), linear)) < 1e-12


def test_small_gamma0_is_the_tangent_kernel():
    kernel = fully_connected(tanh, X, X, depth=1, weight_var=1.0, bias_var=0.0).ntk
    modes = dynamics.modes(kernel)
    lazy = jax.vmap(lambda t: dynamics.response(modes, kernel, steps=t, learning_rate=0.3) @ Y)(jnp.arange(17))
    errors = [
        jnp.abs(trajectory(jnp.tanh, X, Y, **{**TRAINING, "gamma0": gamma0}).outputs - lazy).max()
        for gamma0 in (0.01, 0.02)
    ]
    assert errors[0] < 1e-4
    np.testing.assert_allclose(errors[1] / errors[0], 4, rtol=1e-3)  # the correction is O(gamma0^2)


def test_hyperparameters_are_vmapped_and_differentiated():
    def loss(gamma0, learning_rate):
        return trajectory(jnp.tanh, X, Y, gamma0=gamma0, learning_rate=learning_rate, steps=3, points=2**12).loss

    def last(gamma0, learning_rate):
        losses = loss(gamma0, learning_rate)
        return losses[-1], losses

    gamma0, learning_rate = jnp.array([0.5, 2.0, 1.0]), jnp.array([0.3, 0.1, 0.3])
    (_, together), slopes = jax.jit(jax.vmap(jax.value_and_grad(last, has_aux=True)))(gamma0, learning_rate)
    for i in range(2):
        np.testing.assert_allclose(together[i], loss(gamma0[i], learning_rate[i]), rtol=1e-12)
    numeric = (loss(1.001, 0.3)[-1] - loss(0.999, 0.3)[-1]) / 0.002
    np.testing.assert_allclose(slopes[2], numeric, rtol=1e-5)


def test_inputs_may_be_traced():
    """Then the lattice does not know them: its error is another."""
    found = jax.jit(lambda inputs: mup.particles(jnp.tanh, inputs, Y, **TRAINING, points=2**17).value.loss)(X)
    np.testing.assert_allclose(found, trajectory(jnp.tanh, X, Y, **TRAINING).loss, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma0": 0.0}, "gamma0=0.0: give a value > 0"),
        ({"learning_rate": -0.3}, "learning_rate=-0.3: give a value > 0"),
        ({"x": X.at[0, 1].set(jnp.nan)}, "x holds 1 values that are not finite"),
        ({"steps": 0}, "steps=0: give a whole number >= 1"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"x": X, "targets": Y, **TRAINING, **change}
    with pytest.raises(ValueError, match=message):
        mup.particles(jnp.tanh, **arguments)


def test_shapes_are_checked():
    """Here without the tests' own checks of shapes, which come first."""
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\), targets \(1,\): give"):
        check(X, Y[:1], **TRAINING)
