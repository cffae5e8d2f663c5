"""Dual activations against mpmath, closed forms, exact limits, and each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy import integrate, special

from theorysim import infinite
from theorysim.infinite import Activation, erf, relu, tanh
from theorysim.infinite.activation import angle, as_activation, sine
from theorysim.quadrature import NODES, WEIGHTS, chebyshev_sum, gaussian_mean, hermite_coefficients

variances = st.floats(0.05, 5.0)
correlations = st.floats(-1.0, 1.0)


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def mish(x):
    return x * mp.tanh(mp.log1p(mp.exp(x)))


ANALYTIC = {
    erf: (mp.erf, lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-(x**2))),
    infinite.gelu: (lambda x: x * mp.ncdf(x), lambda x: mp.ncdf(x) + x * mp.npdf(x)),
    infinite.sin: (mp.sin, mp.cos),
    infinite.cos: (mp.cos, lambda x: -mp.sin(x)),
    infinite.exponential(0.5): (lambda x: mp.exp(x / 2), lambda x: mp.exp(x / 2) / 2),
    infinite.rbf(0.3): (
        lambda x: mp.sqrt(2) * mp.sin(mp.sqrt(0.6) * x + mp.pi / 4),
        lambda x: mp.sqrt(1.2) * mp.cos(mp.sqrt(0.6) * x + mp.pi / 4),
    ),
    infinite.hermite(3): (lambda x: (x**3 - 3 * x) / mp.sqrt(6), lambda x: (3 * x**2 - 3) / mp.sqrt(6)),
    tanh: (mp.tanh, lambda x: mp.sech(x) ** 2),
    infinite.silu: (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
    infinite.softplus: (lambda x: mp.log1p(mp.exp(x)), sigmoid),
    infinite.mish: (mish, lambda x: mp.diff(mish, x)),
}


def exact_dual(fn, q1, q2, k, nodes=121):
    """E[fn(u) fn(v)] by mpmath: the trapezoid rule over the two independent normals that make up u and v."""
    q1, q2, k = map(mp.mpf, (q1, q2, k))
    slope, rest = k / mp.sqrt(q1), mp.sqrt(q2 - k**2 / q1)
    z = [mp.mpf(16) * i / (nodes - 1) - 8 for i in range(nodes)]
    weights = [mp.npdf(x) * 16 / (nodes - 1) for x in z]
    total = mp.mpf(0)
    for x, weight in zip(z, weights, strict=True):
        inner = mp.fdot(weights, [fn(slope * x + rest * y) for y in z])
        total += weight * fn(mp.sqrt(q1) * x) * inner
    return float(total)


@pytest.mark.parametrize("rho", [0.4, 1 - 1e-12])
@pytest.mark.parametrize("activation", [a for a in ANALYTIC if a is not infinite.mish], ids=lambda a: a.name)
def test_duals_are_those_of_mpmath(activation, rho):
    check_against_mpmath(activation, (1.3, 1.3, rho * 1.3))


@pytest.mark.slow
@pytest.mark.parametrize("point", [(0.2, 0.2, 0.2 * (1 - 1e-12)), (4.0, 0.3, -0.9), (5.0, 5.0, 4.5)])
@pytest.mark.parametrize("activation", ANALYTIC, ids=lambda a: a.name)
def test_duals_are_those_of_mpmath_at_other_variances(activation, point):
    check_against_mpmath(activation, point)


def check_against_mpmath(activation, point):
    arrays = tuple(map(jnp.asarray, point))
    for dual, fn in zip((activation.dual, activation.dual_derivative), ANALYTIC[activation], strict=True):
        np.testing.assert_allclose(dual(*arrays), exact_dual(fn, *point), rtol=1e-10)


def exact_relu(q1, q2, k):
    """Cho and Saul's formulas in 40 digits, at the numbers that float64 holds."""
    with mp.workdps(40):
        q1, q2, k = map(mp.mpf, (q1, q2, k))
        a = mp.acos(k / mp.sqrt(q1 * q2))
        return (
            float(mp.sqrt(q1 * q2) * (mp.sin(a) + (mp.pi - a) * mp.cos(a)) / (2 * mp.pi)),
            float((mp.pi - a) / (2 * mp.pi)),
        )


@pytest.mark.parametrize("rho", [-0.9999, -0.5, 0.0, 0.9, 1 - 1e-6, 1 - 1e-12, 1.0])
@pytest.mark.parametrize("q", [1e-3, 1.3, 20.0])
def test_relu_keeps_its_digits_at_any_correlation(q, rho):
    point = q, q, rho * q
    for dual, reference in zip((relu.dual, relu.dual_derivative), exact_relu(*point), strict=True):
        np.testing.assert_allclose(dual(*map(jnp.asarray, point)), reference, rtol=1e-10)


@pytest.mark.parametrize(
    "activation",
    [relu, infinite.leaky_relu(0.2), erf, infinite.gelu, infinite.cos, infinite.hermite(4)],
    ids=lambda a: a.name,
)
def test_quadrature_meets_the_closed_forms_without_knowing_them(activation):
    """Every closed form as a plain function, those with kinks included, up to a variance of 20."""
    plain = Activation("plain", activation.fn, kinks=activation.kinks)
    rho = jnp.array([-0.999, -0.3, 0.0, 0.5, 0.99, 1 - 1e-12, 1.0])
    for q1, q2 in ((1e-2, 1e-2), (1.0, 3.0), (20.0, 20.0)):
        # Of one shape, to be compiled once; k = sqrt(q1 q2) is not a number that float64 has.
        representable = rho if q1 == q2 else rho.at[-1].set(0.9)
        q1, q2, k = jnp.asarray(q1), jnp.asarray(q2), representable * np.sqrt(q1 * q2)
        scale = jnp.sqrt(activation.dual(q1, q1, q1) * activation.dual(q2, q2, q2))
        assert (abs(plain.dual(q1, q2, k) - activation.dual(q1, q2, k)) < 1e-10 * scale).all()
        slopes = plain.dual_derivative(q1, q2, k), activation.dual_derivative(q1, q2, k)
        np.testing.assert_allclose(*slopes, rtol=1e-9, atol=1e-12)


def hard_tanh(x):
    return jnp.clip(x, -1.0, 1.0)


def test_a_function_with_declared_kinks():
    """Clipping at -1 and 1: T by nested adaptive quadrature from kink to kink, and T' = share of both inside."""
    clip = Activation("hard_tanh", hard_tanh, kinks=(-1.0, 1.0))
    q1, q2, k = 1.5, 0.8, 0.7
    slope, rest = k / q1, math.sqrt(q2 - k**2 / q1)

    def conditional(u):
        """E[clip(v) | u] in closed form: clip(v) = integral of 1[v > t] dt - 1."""
        upper, lower = ((t - slope * u) / rest for t in (1.0, -1.0))
        first = special.ndtr(lower) * -1 + special.ndtr(-upper)
        density = lambda t: np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)  # noqa: E731
        middle = slope * u * (special.ndtr(upper) - special.ndtr(lower)) + rest * (density(lower) - density(upper))
        return first + middle

    def integrand(u):
        return np.clip(u, -1, 1) * conditional(u) * np.exp(-(u**2) / 2 / q1) / np.sqrt(2 * np.pi * q1)

    pieces = [integrate.quad(integrand, a, b, epsabs=1e-14)[0] for a, b in ((-12, -1), (-1, 1), (1, 12))]
    point = tuple(map(jnp.asarray, (q1, q2, k)))
    np.testing.assert_allclose(clip.dual(*point), sum(pieces), rtol=1e-11)
    inside = special.ndtr(1 / math.sqrt(q1)) * 2 - 1
    q = jnp.asarray(q1)
    np.testing.assert_allclose(clip.dual_derivative(q, q, q), inside, rtol=1e-11)
    # Near duplicates: T = E phi^2 - deficit q E phi'^2 + O(deficit^(3/2)).
    near = clip.dual(q, q, q * (1 - 1e-12))
    np.testing.assert_allclose(near, clip.dual(q, q, q), rtol=1e-11)
    gradient = jax.grad(clip.dual, argnums=(0, 1, 2))(*point)
    step = 1e-5
    for i in range(3):
        ends = [clip.dual(*(p + sign * step * (i == j) for j, p in enumerate(point))) for sign in (1, -1)]
        np.testing.assert_allclose(gradient[i], (ends[0] - ends[1]) / (2 * step), rtol=1e-7)


SLOPES = {activation: jax.jit(jax.grad(activation.dual, argnums=2)) for activation in (erf, tanh, relu, infinite.gelu)}


@settings(max_examples=20, deadline=None)
@given(variances, variances, st.floats(-0.99, 0.99))
def test_dual_of_the_derivative_is_the_derivative_of_the_dual(q1, q2, rho):
    q1, q2, k = jnp.asarray(q1), jnp.asarray(q2), rho * jnp.sqrt(q1 * q2)
    for activation, slope in SLOPES.items():
        np.testing.assert_allclose(activation.dual_derivative(q1, q2, k), slope(q1, q2, k), rtol=1e-8)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-300, 2.0))
def test_the_angle_is_the_arc_cosine(deficit):
    with mp.workdps(30):
        exact = 2 * mp.asin(mp.sqrt(mp.mpf(deficit) / 2))
        a, s = angle(jnp.asarray(deficit)), sine(jnp.asarray(deficit))
        np.testing.assert_allclose(a, float(exact), rtol=1e-15)
        np.testing.assert_allclose(s, float(mp.sin(exact)), rtol=1e-15, atol=1e-30)
    for fn in (angle, sine):
        assert jnp.isfinite(jax.grad(fn)(jnp.asarray(deficit)))


def test_duals_broadcast():
    q1, q2, k = jnp.ones((3, 1)), jnp.full((1, 2), 2.0), jnp.full((3, 2), 0.3)
    clip = Activation("hard_tanh", hard_tanh, kinks=(-1.0, 1.0))
    for activation in (erf, tanh, relu, clip):
        values = activation.dual(q1, q2, k)
        assert values.shape == (3, 2)
        np.testing.assert_allclose(values[1, 1], activation.dual(*map(jnp.asarray, (1.0, 2.0, 0.3))), rtol=1e-14)


def test_a_vanishing_variance_leaves_the_value_at_zero():
    zero, one = jnp.zeros(()), jnp.ones(())
    np.testing.assert_allclose(infinite.softplus.dual(zero, zero, zero), np.log(2) ** 2, rtol=1e-13)
    mean = gaussian_mean(infinite.softplus.fn, one)
    np.testing.assert_allclose(infinite.softplus.dual(zero, one, zero), np.log(2) * mean, rtol=1e-13)


def test_an_activation_without_second_moment_is_refused():
    with pytest.raises(
        ValueError, match="'bell' has no finite second moment under a standard Gaussian: give a function"
    ):
        Activation("bell", lambda x: jnp.exp(x**2 / 3))
    with pytest.raises(ValueError, match="'log' has no finite second moment"):
        Activation("log", lambda x: jnp.log(jnp.maximum(x, 0.0)))
    with pytest.raises(ValueError, match="degree=-1: give a whole number >= 0"):
        infinite.hermite(-1)


def test_gaussian_moments_are_exact():
    for order, moment in [(0, 1), (1, 0), (2, 1), (4, 3), (10, 945)]:
        mean = gaussian_mean(lambda z, n=order: z**n, jnp.asarray(4.0))
        np.testing.assert_allclose(mean, moment * 2**order, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose((WEIGHTS * np.cos(5 * NODES)).sum(), np.exp(-12.5), rtol=1e-9)


def test_gaussian_means_split_at_kinks():
    """E max(u - 1, 0) = s pdf(1 / s) - cdf(-1 / s), and its derivative in the variance, pdf(1 / s) / (2 s)."""

    @jax.jit
    def mean(q):
        return gaussian_mean(lambda u: jnp.maximum(u - 1, 0.0), q, kinks=(1.0,))

    for q in (0.04, 1.0, 9.0):
        s = math.sqrt(q)
        density = math.exp(-1 / (2 * q)) / math.sqrt(2 * math.pi)
        np.testing.assert_allclose(mean(jnp.asarray(q)), s * density - special.ndtr(-1 / s), rtol=1e-9)
        np.testing.assert_allclose(jax.grad(mean)(jnp.asarray(q)), density / (2 * s), rtol=1e-9)


def test_gaussian_means_have_derivatives_in_the_variance_at_zero_too():
    """E cos(sqrt(q) z) = exp(-q / 2)."""
    mean = lambda q: gaussian_mean(jnp.cos, q)  # noqa: E731
    for q in (0.0, 1.3):
        for order, nth in enumerate((mean, jax.grad(mean), jax.grad(jax.grad(mean)))):
            np.testing.assert_allclose(nth(jnp.asarray(q)), (-0.5) ** order * np.exp(-q / 2), rtol=1e-12)


def test_chebyshev_sums_are_those_of_numpy():
    coefficients, x = np.random.default_rng(0).normal(size=7), np.linspace(-1, 1, 5)
    expected = np.polynomial.chebyshev.chebval(x, coefficients)
    np.testing.assert_allclose(chebyshev_sum(jnp.asarray(coefficients)[:, None], jnp.asarray(x)), expected, rtol=1e-13)


def test_hermite_coefficients_are_orthonormal_and_complete():
    one = jnp.ones(())
    cubic = hermite_coefficients(lambda z: (z**3 - 3 * z) / np.sqrt(6), one, 8)
    np.testing.assert_allclose(cubic, np.eye(8)[3], atol=1e-13)
    exponential = hermite_coefficients(lambda z: jnp.exp(0.7 * z - 0.245), one, 40)  # a_j = 0.7^j / sqrt(j!)
    factorials = np.cumprod(np.r_[1, np.arange(1, 40)].astype(float))
    np.testing.assert_allclose(exponential, 0.7 ** np.arange(40) / np.sqrt(factorials), atol=1e-13)


@pytest.mark.parametrize("activation", [erf, tanh, relu, infinite.silu])
def test_dtype_follows_the_inputs(activation):
    q = jnp.asarray(1.5, jnp.float32)
    assert activation.dual(q, q, 0.5 * q).dtype == np.float32
    assert activation.dual_derivative(q, q, 0.5 * q).dtype == np.float32
    exact = activation.dual(*(jnp.asarray(v, jnp.float64) for v in (1.5, 1.5, 0.75)))
    np.testing.assert_allclose(activation.dual(q, q, 0.5 * q), exact, rtol=1e-5)


@pytest.mark.parametrize("fn", [jax.nn.relu, jnp.abs, jax.nn.elu, lambda x: jnp.clip(x, -1, 1), jnp.sign])
def test_kinks_that_are_not_named_are_warned_of(fn):
    with pytest.warns(UserWarning, match="has kinks, or is steeper than quadrature resolves"):
        as_activation(fn)


@pytest.mark.parametrize("fn", [jnp.tanh, jax.nn.gelu, jax.nn.silu, jax.nn.sigmoid, lambda x: jnp.tanh(5 * x), jnp.sin])
def test_smooth_functions_are_activations_as_they_are(fn):
    """Without a warning (warnings are errors here), also where they are steep."""
    wrapped = as_activation(fn)
    assert wrapped.fn is fn
    assert wrapped == as_activation(fn)
    assert as_activation(wrapped) is wrapped


def test_the_limits_take_bare_functions():
    x = jnp.array([[1.0, 0.3], [-0.2, 0.8]])
    bare, named = (infinite.fully_connected(fn, x, depth=1) for fn in (jnp.tanh, tanh))
    np.testing.assert_allclose(bare.ntk, named.ntk, rtol=1e-13)


SIGN = Activation("sign", jnp.sign, kinks=(0.0,))
STEP = Activation("step", lambda x: jnp.where(x > 0.5, 1 + x, 0.2 * x), kinks=(0.5,))
HARD = Activation("hard tanh", lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0))


def test_duals_of_the_sign_are_the_arcsine_law():
    rho = jnp.array([-1.0, -0.9, 0.0, 0.3, 1 - 1e-9, 1.0])
    np.testing.assert_allclose(SIGN.dual(2.0, 2.0, 2 * rho), 2 / np.pi * np.arcsin(rho), rtol=1e-8, atol=1e-13)
    slope = SIGN.dual_derivative(2.0, 2.0, 2 * rho)
    np.testing.assert_allclose(slope[1:-1], 1 / (np.pi * np.sqrt(1 - np.square(rho[1:-1]))), rtol=1e-6)
    assert slope[0] > 1e15  # sin(pi) is rounding
    assert np.isinf(slope[-1])
    assert [SIGN.jumps, STEP.jumps, HARD.jumps, relu.jumps, tanh.jumps] == [True, True, False, False, False]


@pytest.mark.parametrize("activation", [STEP, HARD], ids=lambda activation: activation.name)
@pytest.mark.parametrize("k", [0.4, -0.9])
def test_derivatives_of_duals_see_the_jumps(activation, k):
    """T' is dT/dk, jumps of phi included, and its own derivatives include those of phi'."""
    at, step = np.array([1.3, 0.8, k]), 1e-5

    def differences(fn):
        return [(fn(*(at + step * e)) - fn(*(at - step * e))) / (2 * step) for e in np.eye(3)]

    for dual in (activation.dual, activation.dual_derivative):
        found = jax.jit(jax.grad(dual, (0, 1, 2)))(*map(jnp.asarray, at))
        np.testing.assert_allclose(found, differences(dual), rtol=1e-6)
    np.testing.assert_allclose(activation.dual_derivative(*at), differences(activation.dual)[2], rtol=1e-8)


def test_a_dual_of_piecewise_linear_functions_has_derivatives_in_each_variance():
    """Where q1 = q2 too, at which the angle has a formula that keeps its digits."""
    found = jax.grad(relu.dual, (0, 1))(jnp.asarray(1.3), jnp.asarray(1.3), jnp.asarray(0.4))
    beside = jax.grad(relu.dual, (0, 1))(jnp.asarray(1.3), jnp.asarray(1.3 + 1e-12), jnp.asarray(0.4))
    np.testing.assert_allclose(found, beside, rtol=1e-10)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-14)


def test_quadrature_that_does_not_resolve_its_function_is_nan():
    assert jnp.isnan(gaussian_mean(lambda x: jnp.tanh(x) ** 2, jnp.asarray(1e4)))
    assert jnp.isnan(gaussian_mean(jax.nn.relu, jnp.asarray(1.0)))
    assert jnp.isnan(infinite.mish.dual(1e5, 1e5, 5e4))
    np.testing.assert_allclose(gaussian_mean(lambda x: jnp.tanh(x) ** 2, jnp.asarray(60.0)), tanh.dual(60, 60, 60))


def test_traced_parameters_go_through_closed_duals_and_are_refused_elsewhere():
    def slope(frequency):
        return infinite.sinusoid(frequency, 0.3).dual_derivative(1.0, 1.2, 0.4)

    step = 1e-6
    difference = (slope(0.7 + step) - slope(0.7 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(slope)(0.7), difference, rtol=1e-8)
    with pytest.raises(ValueError, match="'scaled' has traced parameters"):
        jax.grad(lambda a: Activation("scaled", lambda x: jnp.tanh(a * x)).dual(1.0, 1.0, 0.5))(1.0)
    with pytest.raises(ValueError, match="'leaky_relu' has traced parameters"):
        jax.grad(lambda a: infinite.phase.chi(infinite.leaky_relu(a), 1.0, weight_var=1.0))(0.1)
