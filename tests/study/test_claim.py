"""Claims that can fail, and the fits behind them."""

import numpy as np
import pytest

from theorysim.study import Claim, exponent, extrapolate


@pytest.mark.parametrize(
    ("predicted", "measured", "tolerance", "holds"),
    [
        (1, 1.05, 0.1, True),
        (1, 0.85, 0.1, False),
        (1, np.nan, 1e9, False),
        (np.nan, 1, 1e9, False),
        (np.inf, np.inf, 1, False),
    ],
)
def test_a_claim_holds_within_its_tolerance(predicted, measured, tolerance, holds):
    assert Claim("a sentence", predicted, measured, tolerance, "a reason").holds == holds


def noisy(mean, spread, repeats, seed):
    rng = np.random.default_rng(seed)
    return mean[:, None] * np.exp(spread[:, None] * rng.normal(size=(len(mean), repeats)))


def test_exponents_scatter_by_their_standard_error():
    """2000 fits to planted power laws: bias below 3 standard errors of the mean.

    The stated error is that of the spread, times a factor of mean 1.13 for scatter about the line on 2 degrees of
    freedom: E max(1, sqrt(x)), x exponential.
    """
    sizes, spread = np.array([64.0, 128, 256, 512]), np.array([0.1, 0.2, 0.3, 0.4])
    fits = [exponent(sizes, noisy(3 * sizes**-0.7, spread, 50, seed)) for seed in range(2000)]
    values, errors = np.array(fits).T
    assert abs(values.mean() + 0.7) < 3 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose(errors.mean(), 1.13 * values.std(), rtol=0.1)


def test_extrapolation_finds_the_limit_and_its_error():
    sizes = np.array([64.0, 128, 256, 512])

    def fit(seed):
        rng = np.random.default_rng(seed)
        return extrapolate(sizes, 2 + 30 / sizes[:, None] + rng.normal(size=(4, 50)))

    values, errors = np.array([fit(seed) for seed in range(2000)]).T
    assert abs(values.mean() - 2) < 3 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose(errors.mean(), 1.13 * values.std(), rtol=0.1)
