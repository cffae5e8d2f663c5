"""The theory of kernel regression beside regressions on random features, mpmath, and the limits that are known."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theorysim.scaling import kernel_regression as kr

MODES = 400
RANK = np.arange(1.0, MODES + 1)


def normalised(values):
    return jnp.asarray(values / values.sum())


SPECTRUM = kr.Spectrum(normalised(RANK**-1.5), normalised(RANK**-2.0))


def regression(rng, spectrum, samples, features, ridge, noise_var):
    """Exact error of one ridge regression on Gaussian inputs, and its training error; all modes where features=None."""
    eta, power = np.asarray(spectrum.eigenvalues), np.asarray(spectrum.power)
    phi, truth = rng.standard_normal((samples, len(power))), np.sqrt(power)
    y = phi @ truth + np.sqrt(noise_var) * rng.standard_normal(samples)
    mixing = np.sqrt(eta)[:, None]
    if features is not None:
        mixing = mixing * rng.standard_normal((len(truth), features)) / math.sqrt(features)
    z = phi * mixing[:, 0] if features is None else phi @ mixing
    weights = z.T @ np.linalg.solve(z @ z.T + ridge * np.eye(samples), y)
    found = mixing[:, 0] * weights if features is None else mixing @ weights
    return np.square(found - truth).sum(), np.square(phi @ found - y).mean()


def simulated(draws, *arguments):
    """By NumPy: of few draws, a program of each size would take longer to compile than to run."""
    rng = np.random.default_rng(0)
    errors = np.array([regression(rng, *arguments) for _ in range(draws)])
    return list(zip(errors.mean(0), errors.std(0, ddof=1) / math.sqrt(draws), strict=True))


@pytest.mark.parametrize(("samples", "finite"), [(10, 0.05), (50, 0.03), (200, 0.03)])
def test_the_curve_is_that_of_regressions(samples, finite):
    """`finite`: the theory's own error at few samples, as measured once with thousands of draws (0.037 at 10)."""
    theory = kr.learning_curve(SPECTRUM, samples, ridge=1e-3, noise_var=0.01)
    errors = simulated(600 if samples < 200 else 30, SPECTRUM, samples, None, 1e-3, 0.01)
    for (mean, error), predicted in zip(errors, (theory.error, theory.train_error), strict=True):
        assert abs(mean - predicted) < finite * predicted + 3 * error


def test_the_curve_at_the_values_of_the_specification():
    found = [kr.learning_curve(SPECTRUM, p, ridge=1e-3, noise_var=0.01).error for p in (10, 50, 200)]
    np.testing.assert_allclose(found, [0.1569, 0.03626, 0.01888], rtol=3e-4)


@pytest.mark.parametrize(
    ("samples", "features", "ridge"), [(60, 100, 1e-3), (100, 60, 1e-3), (80, 80, 1e-2), (40, 160, 1e-12)]
)
def test_random_features_are_those_of_regressions(samples, features, ridge):
    theory = kr.random_features(SPECTRUM, samples, features, ridge=ridge, noise_var=0.05)
    errors = simulated(150, SPECTRUM, samples, features, ridge, 0.05)
    for (mean, error), predicted in zip(errors, (theory.error, theory.train_error), strict=True):
        assert abs(mean - predicted) < 0.03 * predicted + 3 * error + 1e-15


@pytest.mark.parametrize("ridge", [0.0, 1e-9, 1e-3, 10.0])
@pytest.mark.parametrize("samples", [3, 50, 399])
def test_the_effective_ridge_in_thirty_digits(samples, ridge):
    eta = [mpmath.mpf(float(e)) for e in SPECTRUM.eigenvalues]

    def excess(log_kappa):
        kappa = mpmath.exp(log_kappa)
        return mpmath.log(ridge / kappa + mpmath.fsum(e / (samples * e + kappa) for e in eta))

    found = float(kr.effective_ridge(SPECTRUM, samples, ridge=ridge))
    with mpmath.workdps(30):
        exact = mpmath.exp(mpmath.findroot(excess, mpmath.log(found)))
    assert found == pytest.approx(float(exact), rel=2e-13)


def test_the_effective_ridge_where_spectra_have_gaps():
    """Newton's method alone would leave for minus infinity on the plateau between both groups of modes."""
    eta = jnp.concatenate([jnp.full(20, 1.0), jnp.full(1000, 1e-12)])
    for samples in (19.0, 20.0, 21.0, 500.0, 1019.0):
        kappa = kr.effective_ridge(kr.Spectrum(eta, eta), samples)
        assert float(jnp.sum(eta / (samples * eta + kappa))) == pytest.approx(1, abs=1e-12)


def test_limits():
    def error(samples, **options):
        return float(kr.learning_curve(SPECTRUM, samples, **options).error)

    assert error(50, ridge=1e12) == pytest.approx(1, rel=1e-9)  # nothing is learned
    assert error(1e9, ridge=1e-3) == pytest.approx(0, abs=1e-9)
    # Least squares with more samples than modes: noise M / (P - M), training error noise (1 - M / P).
    ordinary = kr.learning_curve(SPECTRUM, 1000.0, noise_var=0.3)
    assert float(ordinary.error) == pytest.approx(0.3 * 400 / 600, rel=1e-12)
    assert float(ordinary.train_error) == pytest.approx(0.3 * 0.6, rel=1e-12)
    assert error(400, noise_var=0.3) == math.inf
    assert error(400) == 0
    # A flat kernel learns P of M modes and no others.
    flat = kr.Spectrum(jnp.ones(MODES), SPECTRUM.power)
    assert float(kr.learning_curve(flat, 100).error) == pytest.approx(0.75, rel=1e-12)


def test_random_features_in_their_limits():
    many = kr.random_features(SPECTRUM, 50, 1e9, ridge=1e-3, noise_var=0.02)
    kernel = kr.learning_curve(SPECTRUM, 50, ridge=1e-3, noise_var=0.02)
    np.testing.assert_allclose(jnp.stack(many), jnp.stack(kernel), rtol=1e-6)
    # The projection on features, of the specification: 1500 modes, 40 and 160 features.
    rank = np.arange(1.0, 1501)
    steep = kr.Spectrum(jnp.asarray(rank**-1.5), jnp.asarray(rank**-3.2))
    found = [float(kr.random_features(steep, 1e9, n).error) for n in (40, 160)]
    np.testing.assert_allclose(found, [0.0226, 0.00263], rtol=2e-3)
    for n, error in zip((40, 160), found, strict=True):
        kappa = kr.effective_ridge(steep, n)
        projected = (steep.power * kappa / (kappa + n * steep.eigenvalues)).sum()
        assert error == pytest.approx(float(projected), rel=1e-6)
    # More of both than modes: ordinary least squares.
    assert float(kr.random_features(SPECTRUM, 1000, 500, noise_var=0.3).error) == pytest.approx(0.2, rel=1e-12)
    assert float(kr.random_features(SPECTRUM, 70, 70, noise_var=0.3).error) == math.inf


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_samples_and_features_change_places_where_the_target_follows_the_kernel(ridge):
    """The duality of Maloney et al. (arXiv:2210.16859): a^2 ~ eta, and the ridge on the sum over features."""
    spectrum = kr.Spectrum(SPECTRUM.eigenvalues, SPECTRUM.eigenvalues)
    one = kr.random_features(spectrum, 70, 120, ridge=ridge / 120)
    other = kr.random_features(spectrum, 120, 70, ridge=ridge / 70)
    assert float(one.error) == pytest.approx(float(other.error), rel=1e-11)


@jax.jit
def least_error(spectrum, n, k):
    """Over ridges."""
    log_ridge = jnp.linspace(-30, 1, 125)
    return jax.vmap(lambda log: kr.random_features(spectrum, n, k, ridge=jnp.exp(log)).error)(log_ridge).min()


@pytest.mark.parametrize("decay", [1.5, 2.0, 2.6])
def test_the_joint_power_law_is_that_of_random_features_at_the_best_ridge(decay):
    """Its sums are integrals: it is a share of order one over the modes learned away, here at most 2 / min(n, k)."""
    spectrum = kr.power_law(decay, decay, modes=100_000)
    for n, k in ((100.0, 100.0), (100.0, 300.0), (400.0, 400.0)):
        assert kr.joint_power_law(n, k, decay) == pytest.approx(float(least_error(spectrum, n, k)), rel=2 / min(n, k))


def test_the_joint_power_law_in_its_limits():
    sizes = jnp.geomspace(10, 1e4, 7)
    law = jax.vmap(jax.vmap(lambda n, k: kr.joint_power_law(n, k, 1.6), (None, 0)), (0, None))(sizes, sizes)
    np.testing.assert_allclose(law, law.T, rtol=1e-13)
    slope = jax.grad(lambda log_n: jnp.log(kr.joint_power_law(jnp.exp(log_n), 1e12, 1.6)))(jnp.log(50.0))
    assert slope == pytest.approx(-0.6, abs=1e-9)
    # Kernel regression at its best ridge, by another function.
    spectrum = kr.power_law(1.6, 1.6, modes=100_000)
    curve = jax.jit(jax.vmap(lambda log, of: kr.learning_curve(of, 400.0, ridge=jnp.exp(log)).error, (0, None)))
    kernel = float(curve(jnp.linspace(-12, 2, 57), spectrum).min())
    assert kr.joint_power_law(400.0, 1e12, 1.6) == pytest.approx(kernel, rel=0.01)
    with pytest.raises(ValueError, match="decay=1: give a value > 1, or the sum over modes diverges"):
        kr.joint_power_law(10.0, 10.0, 1)


@jax.jit
@jax.grad
def slope_in_samples(log_size, spectrum):
    return jnp.log(kr.learning_curve(spectrum, jnp.exp(log_size)).error)


@jax.jit
@jax.grad
def slope_in_features(log_size, spectrum):
    return jnp.log(kr.random_features(spectrum, 1e12, jnp.exp(log_size)).error)


@pytest.mark.parametrize(("decay", "target"), [(1.5, 2.0), (1.5, 4.6), (2.0, 1.7)])
def test_exponents_of_power_laws(decay, target):
    """Local exponents at 1000 samples or features, with 200 000 modes: corrections go like a power of 1 / 1000."""
    spectrum = kr.power_law(decay, target, modes=200_000)
    exponents = kr.power_law_exponents(decay, target)

    size = jnp.log(1e3)
    assert -slope_in_samples(size, spectrum) == pytest.approx(float(exponents.samples), rel=0.03)
    assert -slope_in_features(size, spectrum) == pytest.approx(float(exponents.features), rel=0.03)


def test_compute_exponents():
    found = kr.power_law_exponents(1.5, 2.0)
    assert found.time == pytest.approx(1 / 1.5)
    assert found.compute == pytest.approx(1 / 2.5)  # (a - 1) / (1 + b)


def test_tails_stand_for_all_modes_beyond():
    with mpmath.workdps(20):
        exact = [float(mpmath.zeta(s, 1001)) for s in (1.5, 2.7)]
    short, long = kr.power_law(1.5, 2.7, modes=1000), kr.power_law(1.5, 2.7, modes=100_000)
    np.testing.assert_allclose([float(short.tail_eigenvalues), float(short.tail_power)], exact, rtol=1e-12)
    curves = [kr.learning_curve(s, 20, ridge=1e-3, noise_var=0.1) for s in (short, long)]
    np.testing.assert_allclose(*(jnp.stack(c) for c in curves), rtol=1e-3)
    features = [kr.random_features(s, 20, 30, ridge=1e-3, noise_var=0.1) for s in (short, long)]
    np.testing.assert_allclose(*(jnp.stack(c) for c in features), rtol=1e-3)


@pytest.mark.parametrize("features", [None, pytest.param(90.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("samples", "ridge"), [(50.0, 0.0), pytest.param(500.0, 1e-3, marks=pytest.mark.slow)])
def test_derivatives(samples, ridge, features):
    @jax.jit
    def log_error(point):
        eta = SPECTRUM.eigenvalues * jnp.exp(point[0] * jnp.log(RANK))
        arguments = kr.Spectrum(eta, SPECTRUM.power), samples * jnp.exp(point[1])
        options = {"ridge": ridge + point[2], "noise_var": 0.1}
        if features is None:
            return jnp.log(kr.learning_curve(*arguments, **options).error)
        return jnp.log(kr.random_features(*arguments, features, **options).error)

    zero = jnp.array([0.0, 0.0, 1e-3])
    step = 1e-4 * jnp.array([0.3, 0.5, 0.01])
    gradient = jax.jit(jax.grad(log_error))
    first = (log_error(zero + step) - log_error(zero - step)) / 2
    second = (gradient(zero + step) - gradient(zero - step)) / 2
    np.testing.assert_allclose(gradient(zero) @ step, first, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(gradient, (zero,), (step,))[1], second, rtol=1e-5, atol=1e-11)


def test_a_grid_is_one_program():
    samples, ridge = jnp.array([10.0, 100.0, 1000.0]), jnp.array([0.0, 1e-3])

    def error(p, r):
        return kr.learning_curve(SPECTRUM, p, ridge=r, noise_var=0.1).error

    grid = jax.jit(jax.vmap(jax.vmap(error, (None, 0)), (0, None)))(samples, ridge)
    for i, p in enumerate(samples):
        for j, r in enumerate(ridge):
            assert grid[i, j] == pytest.approx(float(error(p, r)), rel=1e-13)


def test_single_precision():
    single = kr.Spectrum(*(jnp.asarray(values, jnp.float32) for values in SPECTRUM[:2]))
    found = kr.learning_curve(single, 50.0, ridge=1e-3, noise_var=0.01)
    assert found.error.dtype == jnp.float32
    assert float(found.error) == pytest.approx(0.03626, rel=3e-4)


def test_a_measured_spectrum_keeps_trace_and_power():
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.standard_normal((60, 8))), jnp.asarray(rng.standard_normal((60, 3)))
    spectrum = kr.measured_spectrum(x @ x.T, y)
    assert float(spectrum.eigenvalues.sum()) == pytest.approx(float(jnp.square(x).sum() / 60))
    assert float(spectrum.power.sum()) == pytest.approx(float(jnp.square(y).sum() / 60))
    assert (spectrum.eigenvalues[8:] < 1e-12).all()


@pytest.mark.parametrize("samples", [40, 200, 320])
def test_inputs_left_over_of_a_finite_set(samples):
    """Eigenvectors of a random rotation are free of the choice of inputs, and the theory is exact for many."""
    n, ridge, draws = 400, 0.05, 20
    rng = np.random.default_rng(1)
    vectors = np.linalg.qr(rng.standard_normal((n, n)))[0]
    eta, power = n * np.asarray(SPECTRUM.eigenvalues), np.asarray(SPECTRUM.power)
    kernel, y = (vectors * eta) @ vectors.T, vectors @ np.sqrt(n * power)

    def left_over():
        order = rng.permutation(n)
        train, test = order[:samples], order[samples:]
        weights = np.linalg.solve(kernel[np.ix_(train, train)] + ridge * np.eye(samples), y[train])
        return np.square(kernel[np.ix_(test, train)] @ weights - y[test]).mean()

    errors = np.array([left_over() for _ in range(draws)])
    predicted = kr.held_out_error(kr.measured_spectrum(jnp.asarray(kernel), jnp.asarray(y)), samples, ridge=ridge)
    # One rotation and one target: its own deviation counts like another standard error of one draw in n.
    spread = float(errors.std(ddof=1))
    assert abs(float(errors.mean()) - predicted) < 0.03 * predicted + 3 * spread / math.sqrt(draws)


def test_few_of_many_inputs_are_a_gaussian_sample():
    spectrum = kr.power_law(1.5, 2.0, modes=200_000)
    spectrum = kr.Spectrum(spectrum.eigenvalues, spectrum.power)
    few = kr.held_out_error(spectrum, 20, ridge=0.1)
    assert float(few) == pytest.approx(float(kr.learning_curve(spectrum, 20, ridge=0.1).error), rel=1e-4)


def test_decays_are_found_with_their_errors(quick_jit):
    rank = np.arange(1.0, 1001)
    values = 3 * rank**-1.7 * np.random.default_rng(0).chisquare(1, (100, 1000))
    fits = quick_jit(jax.vmap(lambda values: kr.decay(values, 10, 500)))(jnp.asarray(values))
    spread = float(fits.exponent.std(ddof=1))
    assert abs(float(fits.exponent.mean()) - 1.7) < 3 * spread / math.sqrt(100) + 0.01
    # Gamma regression is efficient: chi^2 with one degree of freedom has a dispersion of 2.
    x = np.log(rank[9:500])
    assert spread == pytest.approx(math.sqrt(2 / ((x - x.mean()) ** 2).sum()), rel=0.25)
    spectrum = kr.Spectrum(jnp.asarray(rank**-1.5), jnp.asarray(rank**-2.2))
    exact = jax.jit(lambda spectrum: kr.predicted_exponent(spectrum, 10, 500))(spectrum)
    assert exact.exponent == pytest.approx(1.2, abs=1e-9)
    assert exact.standard_error < 1e-9


def test_refusals():
    with pytest.raises(ValueError, match=r"ridge=-1\.0: give a value >= 0"):
        kr.learning_curve(SPECTRUM, 10, ridge=-1.0)
    with pytest.raises(ValueError, match=r"noise_var=-1\.0: give a value >= 0"):
        kr.random_features(SPECTRUM, 10, 20, noise_var=-1.0)
    with pytest.raises(ValueError, match="samples=0: give a value > 0"):
        kr.effective_ridge(SPECTRUM, 0)
    with pytest.raises(ValueError, match=r"eigenvalues have shape \(3,\), power \(4,\): give one of each per mode"):
        kr.learning_curve(kr.Spectrum(jnp.ones(3), jnp.ones(4)), 2)
    with pytest.raises(ValueError, match=r"target_decay=0\.9: give a value > 1, or the sum over modes diverges"):
        kr.power_law(1.5, 0.9, modes=10)
    with pytest.raises(ValueError, match="samples=400 of 400 inputs: leave at least one to predict"):
        kr.held_out_error(SPECTRUM, 400)
    with pytest.raises(ValueError, match="first=10, last=12 of 400 ranks: give a window of 8 or more among them"):
        kr.decay(SPECTRUM.power, 10, 12)
    with pytest.raises(ValueError, match="kernel holds 1 values that are not finite"):
        kr.measured_spectrum(jnp.array([[jnp.nan]]), jnp.ones(1))


def test_a_decay_is_differentiated_by_the_implicit_function_theorem():
    rng = np.random.default_rng(0)
    values = jnp.asarray(np.arange(1, 61.0) ** -1.5 * rng.chisquare(1, 60))
    direction = values * jnp.asarray(rng.normal(size=60))

    @jax.jit
    def exponent(values):
        return kr.decay(values, 5, 50).exponent

    numeric = (exponent(values + 1e-5 * direction) - exponent(values - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(exponent))(values) @ direction, numeric, rtol=1e-8)
    np.testing.assert_allclose(jax.jvp(exponent, (values,), (direction,))[1], numeric, rtol=1e-8)


def test_a_masked_regression_is_that_of_the_inputs_used():
    x = jax.random.normal(jax.random.key(9), (12, 20))
    kernel, used = x @ x.T, jnp.arange(12) % 3 > 0
    targets = jnp.stack([x[:, 0], x[:, 1] ** 2], 1)
    found = kr.solve_used(kernel, targets, used, ridge=0.3)
    rows = np.flatnonzero(used)
    expected = np.linalg.solve(np.asarray(kernel)[np.ix_(rows, rows)] + 0.3 * np.eye(len(rows)), targets[rows])
    np.testing.assert_allclose(found[rows], expected, rtol=1e-9)
    assert (np.asarray(found)[~np.asarray(used)] == 0).all()
    np.testing.assert_allclose(kr.solve_used(kernel, targets[:, 0], used, ridge=0.3)[rows], expected[:, 0], rtol=1e-9)
