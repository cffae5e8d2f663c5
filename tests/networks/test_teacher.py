"""The teacher's losses beside samples and least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theorysim as ts

TEACHER = ts.networks.power_law_teacher(256, eigenvalue_decay=1.5, target_decay=2.0, noise_var=0.1)


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
    teacher = ts.networks.power_law_teacher(1000, eigenvalue_decay=1.5, target_decay=2.0)
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
            lambda: ts.networks.power_law_teacher(9, eigenvalue_decay=1.0, target_decay=1.0),
            r"target_decay=1.0: give an exponent > 1",
        ),
        (
            lambda: ts.networks.power_law_teacher(9, eigenvalue_decay=0.0, target_decay=2.0),
            r"eigenvalue_decay=0.0: give a value > 0",
        ),
        (
            lambda: ts.networks.power_law_teacher(9, eigenvalue_decay=1.0, target_decay=2.0, noise_var=-1.0),
            r"noise_var=-1.0: give a value >= 0",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
