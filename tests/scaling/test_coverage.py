"""Intervals of planted data sets: against resampling by hand, and their cover of the truth."""

import jax
import jax.numpy as jnp
import numpy as np

import theorysim.scaling as sc

X = np.geomspace(1e6, 1e9, 40)
TRUTH = {"b": 30.0, "c": 0.2}
LEVELS = jnp.array([0.5, 0.95])


def test_planted_runs_are_those_of_a_fit_to_losses_without_noise():
    found = sc.coverage.planted("m1", {"x": X}, TRUTH, objective=sc.least_squares())
    loss = np.asarray(sc.LAWS["m1"](x=X, **TRUTH))
    fit = sc.fit("m1", {"x": X, "loss": loss}, objective=sc.least_squares(), starts=4)
    np.testing.assert_allclose(found.point, fit.point, atol=1e-8)
    np.testing.assert_allclose(found.problem.log_prediction(found.point), fit.problem.log_loss, atol=1e-12)


def test_the_intervals_of_a_line_cover_as_they_say():
    """Of a power law, a line in the logarithms, where least squares is in closed form.

    200 data sets of 40 runs; a percentile interval of n runs is too narrow by a share of about 1 / n.
    """
    problem, point = sc.coverage.planted("m1", {"x": X}, TRUTH, objective=sc.least_squares())
    problem = problem.padded(44)

    def one(key):
        noise_key, sample_key = jax.random.split(key)
        noise = 0.02 * jax.random.normal(noise_key, (44,))
        options = {"key": sample_key, "levels": LEVELS, "samples": 79}
        return sc.coverage.recover(problem, point, noise, lambda parameters: parameters["c"], **options), noise

    found, noise = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(0), 200))
    assert (found.converged == 1).all()
    centred = np.log(X) - np.log(X).mean()
    expected = TRUTH["c"] - np.asarray(noise)[:, :40] @ centred / (centred @ centred)
    np.testing.assert_allclose(found.estimate, expected, rtol=1e-8)
    share = np.asarray(found.covers(TRUTH["c"]).mean(0))
    error = np.sqrt(np.asarray(LEVELS * (1 - LEVELS)) / 200)
    assert (abs(share - np.asarray(LEVELS)) < 3 * error + 1 / 40).all(), share
