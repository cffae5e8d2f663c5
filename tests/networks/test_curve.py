"""Training under a schedule beside recursions by hand; the teacher's losses beside samples and least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import theorysim as ts

learning_curve = ts.networks.learning_curve
TEACHER = ts.networks.power_law_teacher(256, spectrum=1.5, target=2.0, noise_var=0.1)
RATES = jnp.asarray(np.random.default_rng(0).uniform(0, 0.3, 12))
STEPS = np.array([0, 1, 5, 12])


def quadratic(params, step):
    """Another minimum at each step: its batch."""
    return 0.5 * jnp.sum(jnp.array([1.0, 3.0]) * (params - 0.1 * step) ** 2)


def test_sgd_is_its_recursion():
    found = learning_curve(quadratic, jnp.ones(2), RATES, STEPS, observe=lambda params: params)
    params, expected = np.ones(2), [np.ones(2)]
    for step, rate in enumerate(np.asarray(RATES)):
        params = params - rate * np.array([1.0, 3.0]) * (params - 0.1 * step)
        if step + 1 in STEPS:
            expected.append(params)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_adamw_is_optax_with_that_schedule():
    direction = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1))
    found = learning_curve(quadratic, jnp.ones(2), RATES, STEPS, observe=lambda params: params, direction=direction)
    optimizer = optax.adamw(lambda count: RATES[count], weight_decay=0.1)
    params = jnp.ones(2)
    memory = optimizer.init(params)
    for step in range(12):
        updates, memory = optimizer.update(jax.grad(quadratic)(params, step), memory, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(found[-1], params, rtol=1e-10)


def test_schedules_and_seeds_in_one_program():
    traces = []

    def curve(start, rates):
        traces.append(None)
        return learning_curve(quadratic, start, rates, STEPS, observe=lambda params: quadratic(params, 0))

    starts, rates = jnp.stack([jnp.ones(2), -jnp.ones(2)]), jnp.stack([RATES, RATES[::-1]])
    together = jax.jit(jax.vmap(jax.vmap(curve, (None, 0)), (0, None)))(starts, rates)
    assert len(traces) == 1
    np.testing.assert_allclose(together[1, 1], curve(starts[1], rates[1]), rtol=1e-12)


def test_the_teachers_loss_is_the_mean_over_data():
    features = TEACHER.features(jax.random.key(0), 16)
    readout = jax.random.normal(jax.random.key(1), (16,), jnp.float32)
    x, y = TEACHER.draw(jax.random.key(2), 20000)
    errors = np.square(np.asarray(x @ features.T @ readout - y, np.float64))
    standard_error = errors.std() / np.sqrt(len(errors))
    assert abs(errors.mean() - TEACHER.loss(features, readout)) < 4 * standard_error
    norms = np.square(np.asarray(x @ features.T)).sum(1)
    assert abs(norms.mean() / np.asarray(TEACHER.variances).sum() - 1) < 0.3


def test_the_best_readout_falls_as_the_theory_of_random_features():
    """sum a_i^2 kappa / (kappa + n eta_i) with 1 = sum eta_i / (n eta_i + kappa), beside least squares, 20 draws."""
    teacher = ts.networks.power_law_teacher(1000, spectrum=1.5, target=2.0)
    variances = np.asarray(teacher.variances, float)
    signal = variances * np.asarray(teacher.weights, float) ** 2
    for width in (20, 80):
        losses = []
        for seed in range(20):
            features = np.asarray(teacher.features(jax.random.key(seed), width), float)
            covariance = (features * variances) @ features.T
            best = np.linalg.solve(covariance, (features * variances) @ np.asarray(teacher.weights, float))
            losses.append(float(teacher.loss(jnp.asarray(features, jnp.float32), jnp.asarray(best, jnp.float32))))
        kappa = 1.0
        for _ in range(2000):
            kappa = (variances * kappa / (width * variances + kappa)).sum()
        predicted = (signal * kappa / (kappa + width * variances)).sum()
        standard_error = np.std(losses, ddof=1) / np.sqrt(20)
        # The theory's own error is of order 1 / width.
        assert abs(np.mean(losses) - predicted) < 4 * standard_error + predicted / width


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: learning_curve(quadratic, jnp.ones(2), RATES, np.array([5, 3]), observe=jnp.sum),
            r"steps=\[5 3\]: give increasing numbers from 0 to the schedule's length, 12",
        ),
        (
            lambda: learning_curve(quadratic, jnp.ones(2), RATES, np.array([5, 13]), observe=jnp.sum),
            r"steps=\[ 5 13\]: .* length, 12",
        ),
        (
            lambda: learning_curve(quadratic, jnp.ones(2), -RATES, STEPS, observe=jnp.sum),
            r"(?s)rates=.*: give a value >= 0",
        ),
        (lambda: ts.networks.power_law_teacher(9, spectrum=1.0, target=1.0), r"target=1.0: give an exponent > 1"),
        (lambda: ts.networks.power_law_teacher(9, spectrum=0.0, target=2.0), r"spectrum=0.0: give a value > 0"),
        (
            lambda: ts.networks.power_law_teacher(9, spectrum=1.0, target=2.0, noise_var=-1.0),
            r"noise_var=-1.0: give a value >= 0",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
