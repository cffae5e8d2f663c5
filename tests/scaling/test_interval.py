"""Bootstrap, sandwich and profile beside each other, theory and resampling by hand; comparisons; the next run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import theorysim.scaling as sc
from theorysim.scaling.interval import bootstrap_weights

LINE = {"b": 40.0, "c": 0.2}


def power_law_runs(seed, runs=80, law=stats.norm, scale=0.01):
    rng = np.random.default_rng(seed)
    x = np.exp(rng.uniform(np.log(1e6), np.log(1e9), runs))
    return {"x": x, "loss": LINE["b"] * x ** -LINE["c"] * np.exp(scale * law.rvs(size=runs, random_state=rng))}


@pytest.fixture(scope="module")
def fit():
    return sc.fit("m1", power_law_runs(0), objective=sc.least_squares())


def test_least_squares_have_the_errors_of_linear_regression(fit):
    """log loss = log b - c log x: the sandwich is White's heteroscedastic covariance, in closed form."""
    x = np.log(fit.runs["x"])
    line = stats.linregress(x, np.log(fit.runs["loss"]))
    np.testing.assert_allclose(fit.parameters["c"], -line.slope, rtol=1e-9)
    centred = x - x.mean()
    white = np.sqrt((centred**2 * fit.residuals**2).sum()) / (centred**2).sum()
    np.testing.assert_allclose(sc.sandwich(fit).standard_error("c"), white, rtol=1e-9)
    np.testing.assert_allclose(
        sc.sandwich(fit).standard_error("b") / fit.parameters["b"], _white_b(x, fit.residuals), rtol=1e-9
    )


def _white_b(x, residuals):
    design = np.stack([np.ones_like(x), -x], 1)
    inverse = np.linalg.inv(design.T @ design)
    covariance = inverse @ (design.T * residuals**2) @ design @ inverse
    return np.sqrt(covariance[0, 0])


def test_the_bootstrap_is_resampling_by_hand(fit):
    draws = sc.bootstrap(fit, key=jax.random.key(0), samples=400)
    assert draws.converged == 1
    rng = np.random.default_rng(0)
    slopes = []
    for _ in range(2000):
        rows = rng.integers(0, 80, 80)
        slopes.append(-stats.linregress(np.log(fit.runs["x"][rows]), np.log(fit.runs["loss"][rows])).slope)
    # The standard deviation of 400 draws is known to 1 / sqrt(800).
    np.testing.assert_allclose(draws.standard_error("c"), np.std(slopes), rtol=4 / np.sqrt(800))
    low, high = draws.interval("c", 0.8)
    error = np.std(slopes) * 1.7 / np.sqrt(400)  # of a 10 % quantile, in units of the deviation
    np.testing.assert_allclose([low, high], np.quantile(slopes, [0.1, 0.9]), atol=4 * error)


def test_all_weights_of_a_resample(fit):
    weights = np.asarray(bootstrap_weights(jax.random.key(0), jnp.ones(80), 50, None))
    np.testing.assert_array_equal(weights.sum(1), 80)
    groups = np.repeat(np.arange(8), 10)
    together = np.asarray(bootstrap_weights(jax.random.key(0), jnp.ones(80), 50, groups)).reshape(50, 8, 10)
    assert (together == together[:, :, :1]).all()
    np.testing.assert_array_equal(together[:, :, 0].sum(1), 8)


def test_groups_widen_the_interval_of_runs_with_common_errors():
    rng = np.random.default_rng(2)
    runs = power_law_runs(1, runs=120, scale=1e-4)
    groups = np.repeat(np.arange(12), 10)
    runs["loss"] = runs["loss"] * np.exp(0.02 * rng.standard_normal(12)[groups])
    runs["x"] = np.sort(runs["x"])
    runs["loss"] = LINE["b"] * runs["x"] ** -LINE["c"] * np.exp(0.02 * rng.standard_normal(12)[groups])
    fit = sc.fit("m1", runs, objective=sc.least_squares())
    single = sc.bootstrap(fit, key=jax.random.key(0), samples=300).standard_error("c")
    grouped = sc.bootstrap(fit, key=jax.random.key(0), samples=300, groups=groups).standard_error("c")
    assert grouped > 2 * single


def test_profile_of_a_line_is_its_likelihood(fit):
    """For least squares the deviance of a slope is n log(1 + (c - c*)^2 S / RSS): Wilks in closed form."""
    found = sc.profile(fit, "c")
    x = np.log(fit.runs["x"])
    spread, misfit = ((x - x.mean()) ** 2).sum(), (fit.residuals**2).sum()
    expected = 80 * np.log1p((found.values - fit.parameters["c"]) ** 2 * spread / misfit)
    np.testing.assert_allclose(found.deviance, expected, rtol=1e-6, atol=1e-6)
    half = np.sqrt(np.expm1(stats.chi2.ppf(0.95, 1) / 80) * misfit / spread)
    np.testing.assert_allclose(found.interval, fit.parameters["c"] + half * np.array([-1, 1]), atol=0.02 * half)


def test_three_intervals_of_a_robust_fit_agree():
    fit = sc.fit("m1", power_law_runs(3, runs=400, law=stats.t(2.5)))
    draws = sc.bootstrap(fit, key=jax.random.key(0))
    widths = [
        np.diff(i)[0] for i in (draws.interval("c"), sc.sandwich(fit).interval("c"), sc.profile(fit, "c").interval)
    ]
    # A density at zero from 400 residuals, and 1000 draws: a tenth each.
    np.testing.assert_allclose(widths, widths[0], rtol=0.2)


def test_quantities_are_functions_of_parameters(fit):
    draws = sc.bootstrap(fit, key=jax.random.key(0), samples=100)
    at = draws.of(lambda p: p["b"] * jnp.array([1e7, 1e8]) ** -p["c"])
    assert at.shape == (100, 2)
    assert draws.interval(lambda p: p["b"] * jnp.array([1e7, 1e8]) ** -p["c"]).shape == (2, 2)
    twice = sc.sandwich(fit).standard_error(lambda p: 2 * p["c"])
    np.testing.assert_allclose(twice, 2 * sc.sandwich(fit).standard_error("c"), rtol=1e-12)


@pytest.mark.slow
def test_nineteen_of_twenty_bootstrap_intervals_cover():
    """On 80 runs of a power law with heavy tails, over 400 data sets; three standard errors of a share."""
    inside = 0
    for seed in range(400):
        fit = sc.fit("m1", power_law_runs(seed, law=stats.t(2.5)), starts=8)
        low, high = sc.bootstrap(fit, key=jax.random.key(seed), samples=500).interval("c")
        inside += low < LINE["c"] < high
    assert abs(inside / 400 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 400)


def test_likelihoods_have_gauss_and_laplace_as_limits():
    r = 0.01 * np.random.default_rng(0).standard_t(3, 300)
    gauss = stats.norm.logpdf(r, scale=np.sqrt((r**2).mean())).sum()
    np.testing.assert_allclose(sc.log_likelihood(r, sc.least_squares()), gauss, rtol=1e-12)
    np.testing.assert_allclose(sc.log_likelihood(r, sc.huber(50.0)), gauss, rtol=1e-9)
    laplace = stats.laplace.logpdf(r, scale=np.abs(r).mean()).sum()
    np.testing.assert_allclose(sc.log_likelihood(r, sc.least_absolute()), laplace, rtol=1e-6)
    np.testing.assert_allclose(sc.log_likelihood(r, sc.huber(1e-4)), laplace, rtol=1e-4)


def test_the_likelihood_integrates_to_one():
    s, delta = 0.7, 1.3
    grid = np.linspace(-60, 60, 400_001)
    size = np.abs(grid / s)
    rho = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    z = np.sqrt(2 * np.pi) * (1 - 2 * stats.norm.sf(delta)) + 2 * np.exp(-(delta**2) / 2) / delta
    np.testing.assert_allclose(np.trapezoid(np.exp(-rho) / (s * z), grid), 1, rtol=1e-8)


def test_likelihood_ratio_has_its_law():
    """A true restriction is rejected at 5 % one time in twenty."""
    p_values = []
    for seed in range(60):
        runs = power_law_runs(seed)
        larger = sc.fit("m1", runs, objective=sc.least_squares(), starts=4)
        smaller = sc.fit("m1", runs, objective=sc.least_squares(), starts=4, fixed={"c": LINE["c"]})
        found = sc.likelihood_ratio(larger, smaller)
        assert found.degrees == 1
        p_values.append(found.p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    at_truth = sc.likelihood_ratio(larger, LINE)
    assert at_truth.degrees == 2
    assert at_truth.p_value > 1e-3


def test_extrapolation_tells_a_bend_from_a_line():
    x = np.geomspace(1e6, 1e10, 60)
    noise = np.exp(1e-3 * np.random.default_rng(0).standard_normal(60))
    runs = {"x": x, "loss": (0.7 + 30 * x**-0.2) * noise}
    scores = sc.compare(("m1", "m2"), runs, x, beyond=1e9)
    assert [score.law for score in scores] == ["m2", "m1"]
    assert scores[0].extrapolation < 3e-3 < scores[1].extrapolation
    assert scores[0].akaike < scores[1].akaike
    with pytest.raises(
        sc.RunsError, match=r"beyond=1e\+11: 0 of 60 runs lie beyond it; give a value in \(1e\+06, 1e\+10\)"
    ):
        sc.hold_out("m2", runs, x, beyond=1e11)


def test_the_next_run_is_worth_what_it_says():
    """Many copies of the candidate, added and fitted again, narrow the slope as the local information has it."""
    errors, fits = [], []
    for seed in range(150):
        runs = power_law_runs(seed)
        fits.append(sc.fit("m1", runs, objective=sc.least_squares(), starts=4))
        rng = np.random.default_rng(1000 + seed)
        more = np.full(8, 1e11)
        loss = LINE["b"] * more ** -LINE["c"] * np.exp(0.01 * rng.standard_normal(8))
        added = {"x": np.append(runs["x"], more), "loss": np.append(runs["loss"], loss)}
        errors.append(sc.fit("m1", added, objective=sc.least_squares(), starts=4).parameters["c"])
    fit = fits[0]
    design = sc.next_run(fit, "c", {"x": np.array([3e7, 1e11])}, cost=np.array([1.0, 1.0]))
    assert list(design.best) == [1, 0]
    assert design.after[0] / design.standard_error > 0.99  # in the middle of the runs, and blind to the slope
    x = np.log(fit.runs["x"])
    one = 1 / (1 + (np.log(1e11) - x.mean()) ** 2 / (1 + 1 / 80) / ((x - x.mean()) ** 2).sum())
    np.testing.assert_allclose((design.after[1] / design.standard_error) ** 2, one, rtol=0.1)
    before = np.std([f.parameters["c"] for f in fits])
    shrink = np.std(errors) / before
    eight = 1 / (1 + 8 * (np.log(1e11) - x.mean()) ** 2 / (1 + 8 / 80) / ((x - x.mean()) ** 2).sum())
    np.testing.assert_allclose(shrink, np.sqrt(eight), rtol=3 / np.sqrt(150))


def test_bad_requests_are_refused(fit):
    with pytest.raises(sc.RunsError, match=r"samples=1: give at least 2"):
        sc.bootstrap(fit, key=jax.random.key(0), samples=1)
    with pytest.raises(sc.RunsError, match=r"groups: all runs are in one group"):
        sc.bootstrap(fit, key=jax.random.key(0), groups=np.zeros(80, int))
    with pytest.raises(sc.RunsError, match=r"groups has 5 entries for \d+ runs: give one each"):
        sc.bootstrap(fit, key=jax.random.key(0), groups=np.arange(5))
    with pytest.raises(sc.RunsError, match=r"level=95.0: give a share in \(0, 1\)"):
        sc.sandwich(fit).interval("b", 95.0)
    with pytest.raises(sc.RunsError, match=r"quantity='E': give one of \['b', 'c'\], or a function of them"):
        sc.sandwich(fit).interval("E")
    with pytest.raises(
        sc.RunsError, match=r"x holds 1 values that are not positive and finite, the first in run 1: -2"
    ):
        sc.next_run(fit, "b", {"x": np.array([1.0, -2.0])})
    with pytest.raises(sc.RunsError, match=r"bandwidth=0.0: give a value > 0"):
        sc.sandwich(fit, bandwidth=0.0)
    with pytest.raises(sc.RunsError, match=r"name='E': m1 has the parameters \['b', 'c'\]"):
        sc.profile(fit, "E")
    with pytest.raises(sc.RunsError, match=r"candidates lack \['x'\]: give \['x'\]"):
        sc.next_run(fit, "c", {"n": np.ones(3)})
    with pytest.raises(sc.RunsError, match=r"smaller: it has as many free parameters"):
        sc.likelihood_ratio(fit, fit)
