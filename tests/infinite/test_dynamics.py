"""Training in closed form: brute-force iteration, neural-tangents, limits in time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theorysim.infinite import dynamics, erf, fully_connected, spectral
from theorysim.infinite.neural_tangents import predict, stax

X = jax.random.normal(jax.random.key(0), (9, 6))
TRAIN, TARGETS = 6, jax.random.normal(jax.random.key(1), (6, 2))
KERNELS = fully_connected(erf, X, X, depth=2, weight_var=1.5, bias_var=0.1)
MODES = dynamics.modes(KERNELS.ntk[:TRAIN, :TRAIN])
CROSS = KERNELS.ntk[:, :TRAIN]
NNGP = KERNELS.nngp[:TRAIN, :TRAIN], KERNELS.nngp[:, :TRAIN]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.97])
@pytest.mark.parametrize("steps", [0, 1, 2, 17])
def test_response_is_that_of_iterated_gradient_descent(share, steps):
    learning_rate = share * dynamics.largest_learning_rate(MODES)
    initial = jax.random.normal(jax.random.key(2), (9, 2))
    f = initial
    for _ in range(steps):
        f = f - learning_rate / TRAIN * CROSS @ (f[:TRAIN] - TARGETS)
    response = dynamics.response(MODES, CROSS, steps=steps, learning_rate=learning_rate)
    np.testing.assert_allclose(initial + response @ (TARGETS - initial[:TRAIN]), f, rtol=1e-9, atol=1e-12)


def test_beyond_the_largest_learning_rate_training_diverges():
    largest = dynamics.largest_learning_rate(MODES)
    for share, grows in [(0.999, False), (1.001, True)]:
        response = dynamics.response(MODES, CROSS, steps=20_000, learning_rate=share * largest)
        assert (jnp.abs(response).max() > 1e6) == grows


def test_ensemble_is_that_of_neural_tangents():
    _, _, kernel = stax.serial(
        *[stax.Dense(1, np.sqrt(1.5), np.sqrt(0.1)), stax.Erf()] * 2, stax.Dense(1, np.sqrt(1.5), np.sqrt(0.1))
    )
    reference = predict.gradient_descent_mse_ensemble(kernel, X[:TRAIN], TARGETS, diag_reg=0)
    time = 3.0
    expected = reference(t=time, x_test=X, get="ntk", compute_cov=True)
    # Gradient flow is the limit of small steps; neural-tangents divides the loss by all outputs.
    steps = 2_000_000
    response = dynamics.response(MODES, CROSS, steps=steps, learning_rate=time / steps / TARGETS.shape[1])
    ours = dynamics.ensemble(
        response, KERNELS.nngp[:TRAIN, :TRAIN], KERNELS.nngp[:, :TRAIN], jnp.diag(KERNELS.nngp), TARGETS
    )
    np.testing.assert_allclose(ours.mean, expected.mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours.variance, jnp.diag(expected.covariance), rtol=1e-5)


def test_at_the_start_an_ensemble_is_its_prior_and_at_the_end_it_interpolates():
    nngp, cross, prior = KERNELS.nngp[:TRAIN, :TRAIN], KERNELS.nngp[:, :TRAIN], jnp.diag(KERNELS.nngp)
    rate = dynamics.largest_learning_rate(MODES) / 2
    start, end = (dynamics.response(MODES, CROSS, steps=t, learning_rate=rate) for t in (0, 10**9))
    before, after = (dynamics.ensemble(m, nngp, cross, prior, TARGETS) for m in (start, end))
    np.testing.assert_array_equal(before.mean, 0)
    np.testing.assert_allclose(before.variance, prior, rtol=1e-14)
    np.testing.assert_allclose(after.mean[:TRAIN], TARGETS, rtol=1e-9)
    np.testing.assert_allclose(after.variance[:TRAIN], 0, atol=1e-11)
    assert (after.variance[TRAIN:] > 0).all()


def test_null_modes_do_not_grow():
    """Two equal inputs in float32: an eigenvalue that should be 0 is rounding, of either sign."""
    x = jnp.concatenate([X[:6], X[:2]]).astype(np.float32)
    kernels = fully_connected(erf, x, x, depth=2, weight_var=1.5, bias_var=0.1)
    modes = dynamics.modes(kernels.ntk)
    rate = dynamics.largest_learning_rate(modes) / 2
    response = dynamics.response(modes, kernels.ntk, steps=10**9, learning_rate=rate)
    assert jnp.abs(response).max() < 2


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [0, 1, 2, 29])
def test_momentum_is_that_of_optax(steps, momentum):
    learning_rate = 0.6 * dynamics.largest_learning_rate(MODES, momentum)
    optimizer = optax.sgd(learning_rate, momentum)
    f = initial = jax.random.normal(jax.random.key(2), (9, 2))
    state = optimizer.init(f)
    for _ in range(steps):
        updates, state = optimizer.update(CROSS @ (f[:TRAIN] - TARGETS) / TRAIN, state)
        f = optax.apply_updates(f, updates)
    response = dynamics.response(MODES, CROSS, steps=steps, learning_rate=learning_rate, momentum=momentum)
    np.testing.assert_allclose(initial + response @ (TARGETS - initial[:TRAIN]), f, rtol=1e-8, atol=1e-10)


def test_with_momentum_too_training_diverges_beyond_the_largest_learning_rate():
    largest = dynamics.largest_learning_rate(MODES, 0.8)
    for share, grows in [(0.999, False), (1.001, True)]:
        response = dynamics.response(MODES, CROSS, steps=100_000, learning_rate=share * largest, momentum=0.8)
        assert (not jnp.abs(response).max() < 1e6) == grows


def test_gradient_flow_is_that_of_neural_tangents_and_the_limit_of_small_steps():
    _, _, kernel = stax.serial(
        *[stax.Dense(1, np.sqrt(1.5), np.sqrt(0.1)), stax.Erf()] * 2, stax.Dense(1, np.sqrt(1.5), np.sqrt(0.1))
    )
    reference = predict.gradient_descent_mse_ensemble(kernel, X[:TRAIN], TARGETS, diag_reg=0)
    nngp, cross = KERNELS.nngp[:TRAIN, :TRAIN], KERNELS.nngp[:, :TRAIN]
    for time in (0.5, 5.0, 50.0):
        expected = reference(t=time, x_test=X, get="ntk", compute_cov=True)
        # neural-tangents divides the loss by the number of outputs, too.
        flow = dynamics.flow_response(MODES, CROSS, time=time / TARGETS.shape[1])
        np.testing.assert_allclose(flow @ TARGETS, expected.mean, rtol=1e-10, atol=1e-12)
        covariance = dynamics.ensemble_covariance(flow, nngp, cross, KERNELS.nngp)
        np.testing.assert_allclose(covariance, expected.covariance, rtol=1e-10, atol=1e-12)
        variance = dynamics.ensemble(flow, nngp, cross, jnp.diag(KERNELS.nngp), TARGETS).variance
        np.testing.assert_allclose(variance, jnp.diag(covariance), rtol=1e-10, atol=1e-13)
    end = dynamics.flow_response(MODES, CROSS, time=jnp.inf)
    np.testing.assert_allclose(end[:TRAIN], np.eye(TRAIN), atol=1e-9)


def test_bad_times_are_refused():
    with pytest.raises(ValueError, match="steps=-1: give a whole number from 0 to"):
        dynamics.response(MODES, CROSS, steps=-1, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"time=-1\.0: give a value >= 0"):
        dynamics.flow_response(MODES, CROSS, time=-1.0)
    with pytest.raises(ValueError, match="ntk holds 1 values that are not finite"):
        dynamics.modes(jnp.eye(2).at[0, 1].set(jnp.nan))


RESPONSES = {
    "flow": lambda modes, cross: dynamics.flow_response(modes, cross, time=3.0),
    "flow to the end": lambda modes, cross: dynamics.flow_response(modes, cross, time=jnp.inf),
    "descent": lambda modes, cross: dynamics.response(modes, cross, steps=7, learning_rate=1.0),
    "momentum": lambda modes, cross: dynamics.response(modes, cross, steps=7, learning_rate=0.5, momentum=0.5),
}


def test_gradients_pass_equal_eigenvalues():
    """Of one-hot inputs: eigenvectors of the kernel have no derivative there, what is learnt has one."""

    def learnt(weight_var):
        ntk = fully_connected(erf, jnp.eye(6), depth=2, weight_var=weight_var, bias_var=0.1).ntk
        modes = dynamics.modes(ntk[:4, :4])
        return jnp.stack([response(modes, ntk[4:, :4])[1].sum() for response in RESPONSES.values()])

    at, step = 1.5, 1e-5
    values = jax.jit(learnt)
    difference = (values(at + step) - values(at - step)) / (2 * step)
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(derivative(learnt))(at), difference, rtol=1e-6)


def test_divided_differences_keep_their_digits():
    """d/dA of exp(-A), for pairs of eigenvalues from equal to far apart; expm1 has the digits."""
    values = jnp.array([0.0, 1e-13, 1e-9, 1e-5, 0.3, 0.3, 0.3 + 1e-12, 0.3 + 1e-7, 0.3003, 0.31, 2.0, 50.0])
    gap = values[:, None] - values[None, :]
    exact = -jnp.exp(-values)[None, :] * jnp.where(gap == 0, 1.0, -jnp.expm1(-gap) / jnp.where(gap == 0, 1.0, gap))
    np.testing.assert_allclose(spectral._divided_differences(lambda x: jnp.exp(-x), values), exact, rtol=1e-10)


@pytest.mark.parametrize("time", [1e6, 1e14, 1e16, 1e18, jnp.inf])
def test_duplicates_of_conflicting_targets_are_learnt_as_their_mean(time):
    """The pseudo-inverse, at any time: an eigenvalue that is rounding is not learnt, however late it is."""
    x = jnp.concatenate([X[:6], X[:1]])
    targets = jnp.concatenate([TARGETS[:, 0], -TARGETS[:1, 1]])
    ntk = fully_connected(erf, x, depth=2, weight_var=1.5, bias_var=0.1).ntk
    cross = fully_connected(erf, X[6:], x, depth=2, weight_var=1.5, bias_var=0.1).ntk
    expected = np.asarray(cross) @ np.linalg.pinv(ntk, rcond=1e-12) @ np.asarray(targets)
    modes = dynamics.modes(ntk)
    learnt = [dynamics.flow_response(modes, cross, time=time)]
    if time < np.inf:
        learnt += [dynamics.response(modes, cross, steps=time, learning_rate=0.5, momentum=m) for m in (None, 0.5)]
    for response in learnt:
        np.testing.assert_allclose(response @ targets, expected, rtol=1e-7)


def test_a_few_steps_learn_of_null_modes_what_the_inputs_say():
    """The derivative in an input of a duplicate, which separates it: at a finite time, null modes count."""

    def learnt(shift):
        x = jnp.concatenate([X[:4], X[:1] + shift])
        ntk = fully_connected(erf, jnp.concatenate([x, X[5:6]]), depth=1).ntk
        return dynamics.flow_response(dynamics.modes(ntk[:5, :5]), ntk[5:, :5], time=2.0)[0, 4]

    step, value = 1e-4, jax.jit(learnt)
    difference = (value(step) - value(-step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(learnt))(0.0), difference, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dynamics.response(MODES, CROSS, steps=2.5, learning_rate=0.1), "steps=2.5: give a whole number"),
        (lambda: dynamics.response(MODES, CROSS, steps=1e20, learning_rate=0.1), r"steps=1e\+20: give a whole number"),
        (lambda: dynamics.ensemble(CROSS, *NNGP, KERNELS.nngp, TARGETS), r"prior_var has shape \(9, 9\): give \(9,\)"),
        (lambda: dynamics.ensemble(CROSS, *NNGP, NNGP[0][0], TARGETS[0]), r"prior_var has shape \(6,\): give \(9,\)"),
        (lambda: dynamics.ensemble_covariance(CROSS, *NNGP, jnp.ones(9)), r"prior has shape \(9,\): give \(9, 9\)"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_shapes_and_steps_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()
