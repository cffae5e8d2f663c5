"""Claims that can fail, and the fits behind them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from theorysim.study import (
    Claim,
    Estimate,
    agrees,
    exceeds,
    exponent,
    exponent_agrees,
    exponents,
    extrapolate,
    lies_below,
    limit_agrees,
    mean_estimate,
    mean_of_points,
    scatter_agrees,
    stays_below,
)


def claim(predicted=1, measured=1.05, tolerance=0.1, **options):
    return Claim("name", "a sentence", predicted, measured, tolerance, "a reason", **options)


@pytest.mark.parametrize(
    ("predicted", "measured", "kind", "holds"),
    [
        (1, 1.05, "equal", True),
        (1, 0.85, "equal", False),
        (1, np.nan, "equal", False),
        (np.nan, 1, "equal", False),
        (np.inf, np.inf, "equal", False),
        (1, 1.15, "at least", True),
        (1, 1.05, "at least", False),
        (1, 0.5, "at least", False),
        (1, np.nan, "at least", False),
        (1, 0.85, "at most", True),
        (1, 0.95, "at most", False),
        (1, 1.5, "at most", False),
    ],
)
def test_a_claim_holds_within_its_tolerance_or_beyond_its_margin(predicted, measured, kind, holds):
    assert claim(predicted, measured, kind=kind).holds == holds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, "give a finite number > 0"),
        ({"tolerance": np.inf}, "give a finite number > 0"),
        ({"tolerance": np.nan}, "give a finite number > 0"),
        ({"measured": True}, "claim a number, not a truth value"),
        ({"predicted": 0.95, "span": (0, 1)}, r"admits 1, an end of its span \(0, 1\).* below 0.05, or claim one side"),
        ({"predicted": 0.05, "span": (0, 1)}, "admits 0"),
    ],
)
def test_a_claim_that_cannot_fail_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        claim(**options)


def test_a_claim_says_its_numbers():
    assert str(claim(0.8, 0.91, 0.05, kind="at least")) == "holds: a sentence: 0.91 for at least 0.8 + 0.05"
    assert str(claim(0.8, 0.91, 0.05, kind="at most")) == "fails: a sentence: 0.91 for at most 0.8 - 0.05"
    assert claim(0.8, -0.0, 0.05).numbers == "0 for 0.8 within 0.05"


def test_an_end_of_the_span_may_be_predicted():
    assert claim(predicted=1, measured=0.95, span=(0, 1)).holds
    assert not claim(predicted=1, measured=0.8, span=(0, 1)).holds


def test_agreement_is_within_three_standard_errors_and_the_next_order():
    within = agrees("a", "b", 1.0, Estimate(1.35, 0.1), next_order=0.06, why="1 / width")
    assert within.holds
    assert within.why == "three standard errors, and 1 / width"
    np.testing.assert_allclose((within.tolerance, within.deviation), (0.36, 3.5))
    sampled = agrees("a", "b", Estimate(1.0, 0.3), Estimate(1.35, 0.4))
    np.testing.assert_allclose((sampled.tolerance, sampled.standard_error), (1.5, 0.5))
    with pytest.raises(ValueError, match="give a next order > 0 with its name, or neither"):
        agrees("a", "b", 1.0, Estimate(1.35, 0.1), next_order=0.06)


def test_limits_and_exponents_of_labelled_samples():
    width = np.array([64, 128, 256, 512])
    noise = np.random.default_rng(0).normal(size=(50, 4))
    line = xr.DataArray(2 + 30 / width + 0.1 * noise, {"width": width}, ("repeat", "width"))
    power = xr.DataArray(width**-0.5 * np.exp(0.1 * noise), {"width": width}, ("repeat", "width"))
    assert limit_agrees("limit", "the limit", 2.0, line).holds
    assert not limit_agrees("limit", "the limit", 2.2, line).holds
    assert exponent_agrees("exponent", "the exponent", -0.5, power).holds
    assert not exponent_agrees("exponent", "the exponent", -0.4, power).holds


def noisy(mean, spread, seed, repeats=50):
    return mean[:, None] * jnp.exp(spread[:, None] * jax.random.normal(jax.random.key(seed), (len(mean), repeats)))


def test_exponents_scatter_by_their_standard_error():
    """2000 fits to planted power laws: bias below 3 standard errors of the mean.

    The stated error is that of the spread, times a factor of mean 1.13 for scatter about the line on 2 degrees of
    freedom: E max(1, sqrt(x)), x exponential.
    """
    sizes, spread = np.array([64.0, 128, 256, 512]), np.array([0.1, 0.2, 0.3, 0.4])
    values, errors = jax.vmap(lambda seed: exponent(sizes, noisy(3 * sizes**-0.7, spread, seed)))(np.arange(2000))
    assert abs(values.mean() + 0.7) < 3 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose(errors.mean(), 1.13 * values.std(), rtol=0.1)


def test_extrapolation_finds_the_limit_and_its_error():
    sizes = np.array([64.0, 128, 256, 512])

    def fit(seed):
        return extrapolate(sizes, 2 + 30 / sizes[:, None] + jax.random.normal(jax.random.key(seed), (4, 50)))

    values, errors = jax.vmap(fit)(np.arange(2000))
    assert abs(values.mean() - 2) < 3 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose(errors.mean(), 1.13 * values.std(), rtol=0.1)


def test_one_sided_claims_clear_their_bound_by_three_standard_errors():
    assert exceeds("a", "b", 0, Estimate(0.31, 0.1)).holds
    assert not exceeds("a", "b", 0, Estimate(0.29, 0.1)).holds
    assert stays_below("a", "b", 1, Estimate(0.69, 0.1)).holds
    assert not stays_below("a", "b", 1, Estimate(0.71, 0.1)).holds


def table(values, **coords):
    return xr.DataArray(values, coords, (*coords, "repeat"))


def test_means_over_independent_samples_of_several_dimensions():
    values = np.random.default_rng(0).normal(size=(3, 8))
    found = mean_estimate(table(values, design=[1, 2, 3]), over=("design", "repeat"))
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(24))
    with pytest.raises(ValueError, match="can only convert an array of size 1"):
        mean_estimate(table(values, design=[1, 2, 3]))


def test_means_of_points_leave_out_those_that_are_undefined():
    values = np.random.default_rng(0).normal(size=(3, 8))
    values[1] = np.nan
    found = mean_of_points(table(values, point=[1, 2, 3]))
    kept = values[[0, 2]]
    assert found.value == pytest.approx(kept.mean())
    errors = kept.std(1, ddof=1) / np.sqrt(8)
    assert found.standard_error == pytest.approx(np.sqrt((errors**2).sum()) / 2)


def test_pairs_are_compared_by_their_differences():
    noise = np.random.default_rng(0).normal(size=8)
    difference = 0.01 * np.random.default_rng(1).normal(size=8)
    found = lies_below("name", "a sentence", table(noise), table(noise + 0.1 + difference))
    assert found.holds
    assert found.standard_error == pytest.approx(difference.std(ddof=1) / np.sqrt(8))
    assert not lies_below("name", "a sentence", table(noise), table(noise - 0.1 + difference)).holds


@pytest.mark.parametrize(("scale", "holds"), [(1.0, True), (0.8, False)])
def test_scatter_is_that_of_students_t(scale, holds):
    """4000 points of 5 samples each; where theory is off by as much as the means scatter, the claim fails."""
    samples = np.random.default_rng(0).normal(size=(4000, 5))
    off = np.random.default_rng(1).normal(size=4000) * np.sqrt((1 / scale**2 - 1) / 5)
    claim = scatter_agrees("name", "what", table(samples, point=np.arange(4000)), xr.DataArray(off, dims="point"))
    assert claim.holds == holds


def test_exponents_of_all_indices():
    sizes = np.array([2.0, 4.0, 8.0])
    powers = np.array([0.5, 1.0])
    noise = 1 + 0.01 * np.random.default_rng(0).normal(size=(2, 3, 6))
    samples = sizes[None, :, None] ** powers[:, None, None] * noise
    value, error = exponents(table(samples, case=[1, 2], width=sizes))
    assert value.dims == error.dims == ("case",)
    alone = exponent(sizes, samples[1])
    assert value[1].item() == pytest.approx(float(alone.value))
    assert error[1].item() == pytest.approx(float(alone.standard_error))
    assert (abs(value.values - powers) < 4 * error.values).all()
