"""Intervals of planted data sets: against resampling by hand, and their cover of the truth."""

import jax
import jax.numpy as jnp
import numpy as np

import theorysim.scaling as sc

X = np.geomspace(1e6, 1e9, 40)
TRUTH = {"b": 30.0, "c": 0.2}
LEVELS = jnp.array([0.5, 0.95])


def planted():
    """A power law, a line in the logarithms: least squares is in closed form."""
    loss = np.asarray(sc.LAWS["m1"](x=X, **TRUTH))
    return sc.fit("m1", {"x": X, "loss": loss}, objective=sc.least_squares(), starts=4)


def test_the_intervals_of_a_line_cover_as_they_say():
    """200 data sets of 40 runs; a percentile interval of n runs is too narrow by a share of about 1 / n."""
    fit = planted()
    problem = fit.problem.padded(44)

    def one(key):
        noise_key, sample_key = jax.random.split(key)
        noise = 0.02 * jax.random.normal(noise_key, (44,))
        options = {"key": sample_key, "levels": LEVELS, "samples": 79}
        return sc.coverage.recover(problem, fit.point, noise, lambda parameters: parameters["c"], **options), noise

    found, noise = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(0), 200))
    assert (found.converged == 1).all()
    centred = np.log(X) - np.log(X).mean()
    expected = TRUTH["c"] - np.asarray(noise)[:, :40] @ centred / (centred @ centred)
    np.testing.assert_allclose(found.estimate, expected, rtol=1e-8)
    share = np.asarray(found.covers(TRUTH["c"]).mean(0))
    error = np.sqrt(np.asarray(LEVELS * (1 - LEVELS)) / 200)
    assert (abs(share - np.asarray(LEVELS)) < 3 * error + 1 / 40).all(), share
