"""Posteriors against scikit-learn, quadrature over the scale, scipy's t law, and finite networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from theorysim.infinite import erf, fully_connected, posterior

X = jax.random.normal(jax.random.key(0), (9, 3))
TRAIN = 6
TARGETS = jax.random.normal(jax.random.key(1), (TRAIN,))
NNGP = fully_connected(erf, X, depth=2, weight_var=1.5, bias_var=0.1).nngp
BLOCKS = NNGP[:TRAIN, :TRAIN], NNGP[TRAIN:, :TRAIN], NNGP[TRAIN:, TRAIN:]


def test_gaussian_posterior_is_that_of_scikit_learn():
    kernel = ConstantKernel(1.7, "fixed") * RBF(1.3, "fixed")
    peer = GaussianProcessRegressor(kernel, alpha=0.2).fit(X[:TRAIN], TARGETS)
    mean, covariance = peer.predict(X[TRAIN:], return_cov=True)
    full = jnp.asarray(kernel(X))
    ours = posterior.gaussian(full[:TRAIN, :TRAIN], full[TRAIN:, :TRAIN], full[TRAIN:, TRAIN:], TARGETS, noise_var=0.2)
    np.testing.assert_allclose(ours.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(ours.covariance, covariance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours.log_evidence, peer.log_marginal_likelihood_value_, rtol=1e-12)


def test_student_posterior_is_the_mixture_of_gaussian_ones():
    """By adaptive quadrature over the scale: evidence, mean, covariance, and the density of one output."""
    shape, rate = 3.0, 2.0
    ours = posterior.student(*BLOCKS, TARGETS, shape=shape, rate=rate)
    train = np.asarray(BLOCKS[0])

    def weight(scale):
        return np.exp(stats.multivariate_normal(np.zeros(TRAIN), scale * train).logpdf(TARGETS)) * stats.invgamma(
            shape, scale=rate
        ).pdf(scale)

    def integral(f):
        return integrate.quad(lambda u: f(np.exp(u)) * np.exp(u), -6, 8, epsabs=0, epsrel=1e-11, limit=200)[0]

    evidence = integral(weight)
    np.testing.assert_allclose(ours.log_evidence, np.log(evidence), rtol=1e-9)
    gaussian = posterior.gaussian(*BLOCKS, TARGETS)
    mean_scale = integral(lambda s: s * weight(s)) / evidence
    np.testing.assert_allclose(ours.mean, gaussian.mean, rtol=1e-12)
    np.testing.assert_allclose(ours.covariance, mean_scale * gaussian.covariance, rtol=1e-8)
    at, deviation = float(ours.mean[0]) + 0.4, float(jnp.sqrt(gaussian.covariance[0, 0]))

    def density(scale):
        return stats.norm(float(ours.mean[0]), np.sqrt(scale) * deviation).pdf(at) * weight(scale)

    t = stats.t(float(ours.degrees_of_freedom), float(ours.mean[0]), float(jnp.sqrt(ours.scale[0, 0])))
    np.testing.assert_allclose(t.pdf(at), integral(density) / evidence, rtol=1e-8)


def test_student_without_data_is_its_prior_and_with_a_sharp_prior_the_gaussian():
    none = jnp.zeros((0, 0)), jnp.zeros((3, 0)), BLOCKS[2]
    prior = posterior.student(*none, jnp.zeros(0), shape=2.0, rate=3.0)
    assert prior.degrees_of_freedom == 4
    np.testing.assert_allclose(prior.scale, 1.5 * BLOCKS[2], rtol=1e-14)
    sharp, gaussian = posterior.student(*BLOCKS, TARGETS, shape=1e8, rate=1e8), posterior.gaussian(*BLOCKS, TARGETS)
    np.testing.assert_allclose(sharp.covariance, gaussian.covariance, rtol=1e-6)
    np.testing.assert_allclose(sharp.log_evidence, gaussian.log_evidence, rtol=1e-6)
    assert jnp.isinf(posterior.StudentT(prior.mean, prior.scale, jnp.asarray(1.5), jnp.zeros(())).covariance[0, 0])


def test_a_mixture_over_quantiles_of_the_prior_is_the_student_posterior():
    shape, rate = 3.0, 2.0
    quantiles = stats.invgamma(shape, scale=rate).ppf((np.arange(20_000) + 0.5) / 20_000)
    mixture = posterior.scale_mixture(*BLOCKS, TARGETS, scales=jnp.asarray(quantiles))
    student = posterior.student(*BLOCKS, TARGETS, shape=shape, rate=rate)
    np.testing.assert_allclose(mixture.log_evidence, student.log_evidence, rtol=1e-4)
    np.testing.assert_allclose(mixture.mean, student.mean, rtol=1e-9)
    np.testing.assert_allclose(mixture.covariance, student.covariance, rtol=1e-3)
    np.testing.assert_allclose(mixture.weights.sum(), 1, rtol=1e-12)


def test_the_readout_scale_enters_the_kernels_as_it_says():
    def kernels(scale):
        weights = jnp.array([1.5, 1.5, scale])
        biases = jnp.array([0.1, 0.1, 0.0])
        return fully_connected(erf, X, depth=2, weight_var=weights, bias_var=biases)

    scaled = posterior.with_readout_scale(kernels(1.0), 2.3)
    # In NTK parametrisation the readout's own part carries the scale too; trained directly it does not.
    exact = kernels(2.3)
    np.testing.assert_allclose(scaled.nngp, exact.nngp, rtol=1e-13)
    np.testing.assert_allclose(scaled.ntk, exact.ntk - exact.nngp + kernels(1.0).nngp, rtol=1e-12)


@pytest.mark.parametrize(
    ("train", "setting", "message"),
    [
        (
            jnp.ones((3, 3)),
            {},
            r"\(float64, n = 3\) has a condition number of about inf.*: give a noise_var, drop duplicate",
        ),
        (jnp.eye(3).at[0, 0].set(jnp.inf), {}, "kernel holds 1 values that are not finite"),
        (jnp.eye(3), {"noise_var": -1.0}, "noise_var=-1.0: give a value >= 0"),
        (jnp.diag(jnp.array([1.0, 1.0, 1e-9], jnp.float32)), {}, "float32, n = 3.* or use float64"),
    ],
)
def test_bad_kernels_are_refused(train, setting, message):
    row = jnp.ones((1, 3), train.dtype)
    with pytest.raises(ValueError, match=message):
        posterior.gaussian(train, row, jnp.ones((1, 1), train.dtype), jnp.ones(3, train.dtype), **setting)


def test_a_t_prior_needs_positive_parameters():
    with pytest.raises(ValueError, match=r"shape=0\.0: give a value > 0"):
        posterior.student(*BLOCKS, TARGETS, shape=0.0, rate=1.0)


def test_posteriors_are_differentiable_in_the_hyperparameters(quick_jit):
    def evidence(weight_var):
        kernel = fully_connected(erf, X, depth=2, weight_var=weight_var, bias_var=0.1).nngp
        blocks = kernel[:TRAIN, :TRAIN], kernel[TRAIN:, :TRAIN], kernel[TRAIN:, TRAIN:]
        return posterior.student(*blocks, TARGETS, shape=2.0, rate=2.0).log_evidence

    at, step, value = jnp.asarray(1.5), 1e-5, quick_jit(evidence)
    difference = (value(at + step) - value(at - step)) / (2 * step)
    np.testing.assert_allclose(quick_jit(jax.grad(evidence))(at), difference, rtol=1e-6)


ONE_HOT = jnp.eye(6)  # a kernel with equal eigenvalues, whose eigenvectors have no derivative
LAWS = {
    "gaussian": lambda *blocks: posterior.gaussian(*blocks, noise_var=0.1),
    "student": lambda *blocks: posterior.student(*blocks, shape=2.0, rate=2.0),
    "mixture": lambda *blocks: posterior.scale_mixture(*blocks, scales=jnp.array([0.5, 1.0, 2.0]), noise_var=0.1),
}


def test_gradients_pass_equal_eigenvalues():
    def scalars(weight_var):
        kernel = fully_connected(erf, ONE_HOT, depth=2, weight_var=weight_var, bias_var=0.1).nngp
        found = [law(kernel[:4, :4], kernel[4:, :4], kernel[4:, 4:], TARGETS[:4]) for law in LAWS.values()]
        return jnp.stack([law.log_evidence + law.mean.sum() + law[1][0, 1] for law in found])

    at, step = 1.5, 1e-5
    values = jax.jit(scalars)
    difference = (values(at + step) - values(at - step)) / (2 * step)
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(derivative(scalars))(at), difference, rtol=1e-7)


@pytest.mark.parametrize("law", LAWS)
def test_outputs_are_columns_of_the_targets(law):
    """One column is (n, 1); of two, the Gaussian ones are independent, the others share their scale."""
    columns = jnp.stack([TARGETS, TARGETS[::-1]], 1)
    alone, column, both = (LAWS[law](*BLOCKS, targets) for targets in (TARGETS, TARGETS[:, None], columns))
    np.testing.assert_allclose(column.mean[:, 0], alone.mean, rtol=1e-13)
    np.testing.assert_allclose(column.log_evidence, alone.log_evidence, rtol=1e-13)
    assert both.mean.shape == (3, 2)
    if law == "gaussian":
        apart = [LAWS[law](*BLOCKS, y) for y in columns.T]
        np.testing.assert_allclose(both.mean.T, [found.mean for found in apart], rtol=1e-13)
        np.testing.assert_allclose(both.log_evidence, sum(found.log_evidence for found in apart), rtol=1e-13)
    if law == "student":
        density = stats.multivariate_t(None, jnp.kron(jnp.eye(2), BLOCKS[0]), df=4).logpdf(columns.T.ravel())
        np.testing.assert_allclose(both.log_evidence, density, rtol=1e-12)
    if law == "mixture":
        apart = [
            posterior.scale_mixture(*BLOCKS, columns, scales=both.weights[:1] * 0 + s, noise_var=0.1)
            for s in (0.5, 1, 2)
        ]
        spread = sum(w * (part.mean[:, 1] - both.mean[:, 1]) ** 2 for w, part in zip(both.weights, apart, strict=True))
        within = sum(w * jnp.diag(part.covariance[1]) for w, part in zip(both.weights, apart, strict=True))
        np.testing.assert_allclose(jnp.diag(both.covariance[1]), spread + within, rtol=1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: TARGETS[:2]}, r"targets has shape \(2,\): give \(6,\), or \(6, outputs\), one row per input"),
        ({3: TARGETS[None]}, r"targets has shape \(1, 6\): give \(6,\), or"),
        ({2: jnp.diag(BLOCKS[2])}, r"prior has shape \(3,\): give \(3, 3\)"),
        ({1: BLOCKS[1].T}, r"kernel has shape \(6, 6\): give \(3, 3\)"),
    ],
)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.usefixtures("untyped")
def test_shapes_that_do_not_belong_together_are_refused(law, change, message):
    arguments = [change.get(i, argument) for i, argument in enumerate((*BLOCKS, TARGETS))]
    with pytest.raises(ValueError, match=message):
        LAWS[law](*arguments)
