"""Deep kernel machines against stationarity, Monte Carlo, Gaussian processes, and the joint optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy import optimize, stats
from sklearn.datasets import load_digits

from theorysim.infinite import deep_kernel, erf, fully_connected, identity, posterior, relu

pytestmark = pytest.mark.promotion  # L-BFGS is optax's

N, OUTPUTS, NOISE = 5, 2, 0.2
X = jax.random.normal(jax.random.key(0), (N, 8))
Y = jax.random.normal(jax.random.key(1), (N, OUTPUTS))
ENTRIES = 0.3 * jax.random.normal(jax.random.key(2), (2, N, N))
FACTORS = jnp.tril(ENTRIES, -1) + jnp.eye(N)[None] * jnp.exp(ENTRIES)


def features(gram):
    variance = jnp.diag(gram)
    return 2 * relu.dual(variance[:, None], variance[None, :], gram)


def linear(nu, start=None, depth=2):
    return deep_kernel.fit(identity, X, Y, depth=depth, nu=nu, noise_var=NOISE, start=start)


def test_divergence_is_that_of_gaussians_by_monte_carlo():
    """E log N(g; 0, G_l) - log N(g; 0, K(G_{l-1})) over g ~ N(0, G_l); and the likelihood by scipy."""
    value = deep_kernel.objective(relu, X, Y, FACTORS, nu=0.7, noise_var=NOISE, weight_var=2.0)
    first, second = deep_kernel.grams(relu, X, FACTORS, weight_var=2.0)
    priors = [2 * X @ X.T / 8, features(first)]
    for layer, (gram, prior) in enumerate(zip((first, second), priors, strict=True)):
        g = np.random.default_rng(0).multivariate_normal(np.zeros(N), gram, 100_000, method="cholesky")
        ratio = stats.multivariate_normal(cov=gram).logpdf(g) - stats.multivariate_normal(cov=prior).logpdf(g)
        assert abs(ratio.mean() - value.divergence[layer]) < 4 * ratio.std() / np.sqrt(len(g))
    evidence = stats.multivariate_normal(cov=features(second) + NOISE * np.eye(N)).logpdf(np.asarray(Y).T).sum()
    np.testing.assert_allclose(value.log_likelihood, evidence, rtol=1e-8)
    np.testing.assert_allclose(value.value, evidence - 0.7 * value.divergence.sum(), rtol=1e-8)


def test_one_linear_layer_and_one_input_solve_the_scalar_equation():
    """y^2 / (g + s)^2 - 1 / (g + s) = nu (1 / g0 - 1 / g), arXiv:2108.13097, by bisection."""
    g0, y, nu = 0.8, 1.7, 0.6
    x, targets = jnp.full((1, 1), np.sqrt(g0)), jnp.full((1, 1), y)
    fitted = deep_kernel.fit(identity, x, targets, depth=1, nu=nu, noise_var=NOISE)

    def residual(g, _):
        return y**2 / (g + NOISE) ** 2 - 1 / (g + NOISE) - nu * (1 / g0 - 1 / g)

    root = optx.root_find(residual, optx.Bisection(1e-12, 1e-12), jnp.array(1.0), options={"lower": 0.5, "upper": 3.0})
    np.testing.assert_allclose(fitted.grams[0, 0, 0], root.value, rtol=1e-7)


def test_linear_layers_are_stationary():
    """S^-1 Y Y^T S^-1 - k S^-1 = nu (G_1^-1 - G_2^-1) in the last of two, and G_2 = G_1 G_0^-1 G_1 in the first."""
    fitted = linear(0.7)
    assert fitted.converged
    assert fitted.gradient < 1e-6
    g0, (g1, g2) = X @ X.T / 8, fitted.grams
    inverse = jnp.linalg.inv
    s = inverse(g2 + NOISE * jnp.eye(N))
    pull = s @ Y @ Y.T @ s - OUTPUTS * s
    np.testing.assert_allclose(0.7 * (inverse(g1) - inverse(g2)), pull, atol=1e-5 * float(jnp.abs(pull).max()))
    np.testing.assert_allclose(g1 @ inverse(g0) @ g1, g2, rtol=1e-5, atol=1e-6)


def test_the_maximum_of_linear_layers_is_unique():
    one, other = linear(0.7), linear(0.7, FACTORS)
    np.testing.assert_allclose(other.grams, one.grams, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.objective.value, one.objective.value, rtol=1e-9)
    worse = deep_kernel.objective(identity, X, Y, FACTORS, nu=0.7, noise_var=NOISE)
    assert worse.value < one.objective.value


def nonlinear(start=None, **options):
    return deep_kernel.fit(relu, X, Y, depth=2, nu=0.7, noise_var=NOISE, weight_var=2.0, start=start, **options)


def in_numpy(entries):
    """Minus the objective of two layers of relu, in the Cholesky factors of G_1 and G_2 themselves."""

    def divergence(gram, prior):
        ratio = np.linalg.solve(prior, gram)
        return (np.trace(ratio) - np.linalg.slogdet(ratio)[1] - N) / 2

    def arc_cosine(gram):
        std = np.sqrt(np.diag(gram))
        angle = np.arccos(np.clip(gram / np.outer(std, std), -1, 1))
        np.fill_diagonal(angle, 0.0)
        return np.outer(std, std) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi

    below = np.tril_indices(N)
    roots = np.zeros((2, N, N))
    roots[:, *below] = entries.reshape(2, -1)
    first, second = (root @ root.T for root in roots)
    covariance = arc_cosine(second) + NOISE * np.eye(N)
    evidence = stats.multivariate_normal(cov=covariance).logpdf(np.asarray(Y).T).sum()
    x = np.asarray(X)
    return 0.7 * (divergence(first, 2 * x @ x.T / 8) + divergence(second, arc_cosine(first))) - evidence


def test_the_maximum_of_nonlinear_layers_is_the_one_that_scipy_finds():
    fitted = nonlinear()
    assert fitted.converged
    assert fitted.gradient < 1e-6
    below = np.tril_indices(N)
    entries = np.asarray(jnp.linalg.cholesky(fitted.grams))[:, *below].ravel()
    np.testing.assert_allclose(-in_numpy(entries), fitted.objective.value, rtol=1e-8)
    start = np.tile(np.eye(N)[below], 2)
    found = optimize.minimize(in_numpy, start, jac="3-point", method="BFGS", options={"gtol": 1e-5})
    np.testing.assert_allclose(-found.fun, fitted.objective.value, rtol=1e-8)
    np.testing.assert_allclose(abs(found.x), abs(entries), atol=1e-4)


def test_nonlinear_layers_reach_one_maximum_from_several_starts():
    best = nonlinear()
    for key in jax.random.split(jax.random.key(4), 3):
        entries = jax.random.normal(key, (2, N, N)) / 2
        start = jnp.tril(entries, -1) + jnp.eye(N)[None] * jnp.exp(entries)
        other = nonlinear(start)
        assert other.converged
        np.testing.assert_allclose(other.objective.value, best.objective.value, rtol=1e-10)
        np.testing.assert_allclose(other.grams, best.grams, atol=1e-5)


def test_a_search_cut_short_says_so():
    fitted = nonlinear(steps=3)
    assert not fitted.converged
    assert fitted.gradient > 1e-6
    assert fitted.steps == 3


@pytest.mark.slow
def test_hundreds_of_inputs():
    """200 images in two layers of erf; the gradient is that of the objective, in sqrt(nu) A."""
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean(0))[:200]
    x = jnp.asarray(images / np.sqrt((images**2).mean(1, keepdims=True)))
    y = jnp.asarray(np.eye(10)[labels[:200]] - 0.1)
    fitted = deep_kernel.fit(erf, x, y, depth=2, nu=10.0, noise_var=0.1)
    assert fitted.converged

    def value(factors):
        return deep_kernel.objective(erf, x, y, factors, nu=10.0, noise_var=0.1).value

    assert abs(jnp.tril(jax.grad(value)(fitted.factors))).max() < 2 * np.sqrt(10) * 1e-6
    assert fitted.objective.value > value(jnp.tile(jnp.eye(200)[None], (2, 1, 1)))


def test_stiff_layers_are_the_gaussian_process_and_the_distance_falls_like_one_over_nu():
    nngp = fully_connected(identity, X, depth=2).nngp
    gaussian = [posterior.gaussian(nngp, nngp, nngp, y, noise_var=NOISE) for y in Y.T]
    evidence = sum(g.log_evidence for g in gaussian)
    stiff = [linear(nu) for nu in (1e3, 1e4)]
    gains = [float(fitted.objective.value - evidence) for fitted in stiff]
    assert 0 < gains[1] < gains[0]
    np.testing.assert_allclose(gains[0] / gains[1], 10, rtol=0.05)
    prior = deep_kernel.predict(identity, X, Y, jnp.tile(jnp.eye(N)[None], (2, 1, 1)), X, noise_var=NOISE)
    np.testing.assert_allclose(prior.mean, jnp.stack([g.mean for g in gaussian], 1), atol=1e-6)


def test_predictions_follow_from_the_conditional_of_the_prior():
    """G_*l = K_*l K_l^-1 G_l and G_** = K_** - K_*l K_l^-1 (K_l - G_l) K_l^-1 K_l*, layer by layer."""
    new = jax.random.normal(jax.random.key(3), (2, 8))
    everything = jnp.concatenate([X, new])
    predicted = deep_kernel.predict(identity, X, Y, FACTORS, new, noise_var=NOISE)
    trained = deep_kernel.grams(identity, X, FACTORS)
    kernel = everything @ everything.T / 8
    for layer in range(2):
        gain = kernel[N:, :N] @ jnp.linalg.inv(kernel[:N, :N])
        gram = trained[layer]
        cross = gain @ gram
        corner = kernel[N:, N:] - gain @ (kernel[:N, :N] - gram) @ gain.T
        kernel = jnp.block([[gram, cross.T], [cross, corner]])
        np.testing.assert_allclose(predicted.grams[layer], kernel, rtol=1e-6, atol=1e-7)
    gaussian = posterior.gaussian(kernel[:N, :N], kernel[N:, :N], kernel[N:, N:], Y[:, 0], noise_var=NOISE)
    np.testing.assert_allclose(predicted.mean[:, 0], gaussian.mean, rtol=1e-6)
    np.testing.assert_allclose(predicted.covariance, gaussian.covariance, rtol=1e-6, atol=1e-7)


def test_bad_input_is_refused():
    arguments = {"depth": 2, "nu": 1.0, "noise_var": NOISE}
    for change, message in (
        ({"nu": -1.0}, "nu=-1.0: give a value > 0"),
        ({"noise_var": 0.0}, "noise_var=0.0: give a value > 0"),
        ({"depth": 0}, "depth=0: give a whole number >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            deep_kernel.fit(identity, X, Y, **{**arguments, **change})
    with pytest.raises(ValueError, match="x is float32"):
        deep_kernel.fit(identity, X.astype("float32"), Y, **arguments)


@pytest.mark.usefixtures("untyped")
def test_targets_are_one_row_per_input():
    setting = {"depth": 2, "nu": 1.0, "noise_var": NOISE}
    column, flat = (deep_kernel.fit(identity, X, y, **setting) for y in (Y[:, :1], Y[:, 0]))
    np.testing.assert_array_equal(flat.factors, column.factors)
    predicted = deep_kernel.predict(identity, X, Y[:, 0], flat.factors, X[:2], noise_var=NOISE)
    assert predicted.mean.shape == (2,)
    with pytest.raises(ValueError, match=r"targets has shape \(2, 5\): give \(5,\), or \(5, outputs\)"):
        deep_kernel.fit(identity, X, Y.T, **setting)
