"""Order and chaos: published and independent values, closed forms, limits, implicit derivatives."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import optimize

from theorysim.infinite import Activation, erf, gelu, phase, relu, silu, tanh
from theorysim.networks import propagate

HARD_TANH = Activation("hard_tanh", lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0))


def test_fixed_points_of_erf_solve_its_closed_form():
    for weight_var, bias_var in [(0.8, 0.1), (1.6, 0.1), (4.0, 0.0), (4.0, 1.0)]:

        def closed(q, weight_var=weight_var, bias_var=bias_var):
            return weight_var * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) + bias_var - q

        q = optimize.brentq(closed, 1e-3, 10, xtol=1e-15, rtol=1e-15)
        found = phase.fixed_point(erf, weight_var, bias_var)
        np.testing.assert_allclose(found, q, rtol=1e-12)
        np.testing.assert_allclose(
            phase.slope(erf, found, weight_var), weight_var * 4 / np.pi / np.sqrt(1 + 4 * q), rtol=1e-12
        )


def test_a_chaotic_tanh_network():
    """Independent solution by nested mpmath quadrature: weight_var = 2.5^2, bias_var = 0.3^2."""
    q = phase.fixed_point(tanh, 6.25, 0.09)
    c = phase.fixed_correlation(tanh, q, 6.25)
    values = [q, phase.slope(tanh, q, 6.25), c, phase.correlation_length(tanh, q, c, 6.25)]
    np.testing.assert_allclose(values, [4.079124, 1.585225, 0.122104, 5.10892], rtol=3e-6)
    with mpmath.workdps(20):
        mean = 2 * mpmath.quad(
            lambda z: mpmath.tanh(mpmath.sqrt(mpmath.mpf(float(q))) * z) ** 2 * mpmath.npdf(z), [0, 1, 2, 4, 12]
        )
    np.testing.assert_allclose(q, float(6.25 * mean + 0.09), rtol=1e-13)


@pytest.mark.parametrize(
    ("activation", "weight_std"),
    [(tanh, [1.122539, 1.193401, 1.327010, 1.549674]), (erf, [0.993686, 1.055595, 1.172962, 1.371330])],
)
def test_critical_line(activation, weight_std):
    bias_var = jnp.array([0.0025, 0.01, 0.05, 0.25])
    weight_var = jax.vmap(lambda b: phase.critical_weight_var(activation, b))(bias_var)
    np.testing.assert_allclose(jnp.sqrt(weight_var), weight_std, rtol=1e-6)
    for w, b in zip(weight_var, bias_var, strict=True):
        np.testing.assert_allclose(phase.slope(activation, phase.fixed_point(activation, w, b), w), 1, rtol=1e-12)


def test_critical_line_starts_at_the_linear_network():
    np.testing.assert_allclose(phase.critical_weight_var(tanh, 1e-10), 1, atol=1e-3)
    np.testing.assert_allclose(phase.critical_weight_var(erf, 1e-10), np.pi / 4, atol=1e-3)


def test_correlations_settle_at_one_in_order_and_below_in_chaos():
    for weight_var, bias_var in [(1.0, 0.3), (1.3, 0.05), (2.0, 0.05), (4.0, 0.0), (4.0, 0.9)]:
        q = phase.fixed_point(tanh, weight_var, bias_var)
        c = phase.fixed_correlation(tanh, q, weight_var)
        iterated = jax.lax.fori_loop(
            0, 4000, lambda _, c, q=q, w=weight_var, b=bias_var: phase.correlation_map(tanh, c, q, w, b), 0.5
        )
        np.testing.assert_allclose(c, iterated, rtol=1e-9, atol=1e-12)
        assert (c < 1) == (phase.slope(tanh, q, weight_var) > 1)


def test_a_quiet_network_without_biases_dies_out():
    q = phase.fixed_point(tanh, 0.7, 0.0)
    np.testing.assert_allclose(q, 0, atol=1e-9)
    np.testing.assert_allclose(phase.slope(tanh, q, 0.7), 0.7, rtol=1e-8)
    np.testing.assert_allclose(phase.correlation_length(tanh, q, jnp.ones(()), 0.7), -1 / np.log(0.7), rtol=1e-7)


def test_no_fixed_point_is_nan():
    linear = Activation("linear", lambda x: x)
    np.testing.assert_allclose(phase.fixed_point(linear, 0.5, 1.0), 2, rtol=1e-12)
    assert np.isnan(phase.fixed_point(linear, 1.5, 1.0))
    assert np.isnan(phase.critical_weight_var(linear, 0.1))


def test_derivatives_are_implicit_and_right():
    def length(weight_var, bias_var):
        q = phase.fixed_point(tanh, weight_var, bias_var)
        return phase.correlation_length(tanh, q, phase.fixed_correlation(tanh, q, weight_var), weight_var)

    for fn, point in [(length, (3.0, 0.2)), (lambda b: phase.critical_weight_var(tanh, b), (0.1,))]:
        gradient = jax.grad(fn, argnums=tuple(range(len(point))))(*point)
        for i, slope in enumerate(gradient):
            up, down = (fn(*[p + (h if j == i else 0) for j, p in enumerate(point)]) for h in (1e-5, -1e-5))
            np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-6)


def test_random_networks_follow_the_maps():
    """Variance and correlation after five layers of width 400; 64 networks, three standard errors."""
    weight_var, bias_var = 2.0, 0.2
    keys = jax.random.split(jax.random.key(0), 64)
    options = {"width": 400, "depth": 5, "variance": 0.5, "correlation": 0.3}
    nets = jax.vmap(lambda key: propagate(tanh, weight_var, bias_var, key=key, **options))(keys)
    # The inputs of the first layer have no biases in common: follow both variances and the covariance.
    q, covariance = jnp.asarray(0.5), jnp.asarray(0.15)
    for layer in range(5):
        covariance = weight_var * tanh.dual(q, q, covariance) + bias_var
        q = phase.variance_map(tanh, q, weight_var, bias_var)
        for measured, theory in ((nets.variance, q), (nets.correlation, covariance / q)):
            mean, error = measured[:, layer].mean(), measured[:, layer].std(ddof=1) / 8
            np.testing.assert_allclose(mean, theory, atol=3 * float(error))


def test_derivatives_at_a_vanishing_variance():
    """V'(0) = weight_var and slope'(0) = -2 weight_var for tanh; dq*/dbias_var = 1 / (1 - weight_var)."""
    np.testing.assert_allclose(jax.grad(lambda q: phase.variance_map(tanh, q, 0.7, 0.0))(0.0), 0.7, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda q: phase.slope(tanh, q, 0.7))(0.0), -1.4, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda b: phase.fixed_point(tanh, 0.7, b))(0.0), 1 / 0.3, rtol=1e-6)


def test_a_grid_with_a_vanishing_variance_has_derivatives_everywhere_else():
    def length(weight_var, bias_var):
        q = phase.fixed_point(tanh, weight_var, bias_var)
        return phase.correlation_length(tanh, q, phase.fixed_correlation(tanh, q, weight_var), weight_var)

    gradient = jax.vmap(jax.grad(length), (None, 0))(0.7, jnp.array([0.0, 0.1, 0.5]))
    assert np.isfinite(gradient[1:]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_the_inputs_and_the_line_is_reached_from_both_sides(dtype):
    bias_var = jnp.linspace(0.01, 1, 20).astype(dtype)
    weight_var = jax.vmap(lambda b: phase.critical_weight_var(tanh, b))(bias_var)
    q = jax.vmap(lambda w, b: phase.fixed_point(tanh, w, b))(weight_var, bias_var)
    c = jax.vmap(lambda q, w: phase.fixed_correlation(tanh, q, w))(q, weight_var)
    length = jax.vmap(lambda q, c, w: phase.correlation_length(tanh, q, c, w))(q, c, weight_var)
    assert weight_var.dtype == q.dtype == c.dtype == length.dtype == dtype
    assert (length > 100).all()


def test_whole_numbers_are_numbers():
    assert phase.fixed_correlation(tanh, 3, 4) < 1
    assert phase.correlation_length(tanh, 1, 1, 1) > 0


def test_lengths_are_the_rates_of_the_maps():
    """Distances to the fixed point shrink by exp(-1 / length) a layer; gradients by chi."""
    for activation, weight_var, bias_var in ((tanh, 3.0, 0.2), (tanh, 1.2, 0.1), (gelu, 1.5, 0.3)):
        q = phase.fixed_point(activation, weight_var, bias_var)
        c = phase.fixed_correlation(activation, q, weight_var)
        layer = phase.variance_map(activation, 1.0001 * q, weight_var, bias_var)
        rate = (layer - q) / (0.0001 * q)
        np.testing.assert_allclose(phase.variance_length(activation, q, weight_var), -1 / np.log(rate), rtol=1e-3)
        step = 1e-5
        below = phase.correlation_map(activation, c - step, q, weight_var, bias_var)
        length = phase.correlation_length(activation, q, c, weight_var)
        np.testing.assert_allclose(length, -1 / np.log((c - below) / step), rtol=1e-2)
        np.testing.assert_allclose(phase.trainable_depth(activation, q, c, weight_var), 6 * length, rtol=1e-14)
        chi = phase.slope(activation, q, weight_var)
        np.testing.assert_allclose(phase.gradient_length(activation, q, weight_var), 1 / abs(np.log(chi)), rtol=1e-14)


def test_a_relu_network_has_closed_forms():
    """q* = bias_var / (1 - weight_var / 2), chi = weight_var / 2, and no critical line but the point (2, 0)."""
    q = phase.fixed_point(relu, 1.6, 0.2)
    np.testing.assert_allclose(q, 1.0, rtol=1e-12)
    np.testing.assert_allclose(phase.slope(relu, q, 1.6), 0.8, rtol=1e-12)
    assert phase.fixed_correlation(relu, q, 1.6) == 1
    assert np.isnan(phase.fixed_point(relu, 2.1, 0.2))
    assert np.isnan(phase.critical_weight_var(relu, 0.2))
    for c in (-0.5, 0.3, 1 - 1e-6):
        mapped = (1.6 * relu.dual(*map(jnp.asarray, (1.0, 1.0, c))) + 0.2) / q
        np.testing.assert_allclose(phase.correlation_map(relu, c, q, 1.6, 0.2), mapped, rtol=1e-10)


@pytest.mark.parametrize(
    ("activation", "rtol"),
    [(tanh, 1e-9), (silu, 1e-9), pytest.param(HARD_TANH, 1e-5, marks=pytest.mark.slow)],
)
def test_tables_are_the_duals_they_tabulate(activation, rtol):
    weight_var, bias_var = 1.4, 0.3
    q, c = jnp.array([0.05, 1.0, 12.0]), jnp.array([-0.3, 0.6, 0.999])

    def map_and_rate(q, c):
        length = phase.correlation_length(activation, q, c, 0.01)
        return phase.correlation_map(activation, c, q, weight_var, bias_var), jnp.exp(-1 / length) / 0.01

    mapped, rate = jax.jit(jax.vmap(map_and_rate))(q, c)
    np.testing.assert_allclose(rate, activation.dual_derivative(q, q, c * q), rtol=rtol)
    np.testing.assert_allclose(mapped, (weight_var * activation.dual(q, q, c * q) + bias_var) / q, rtol=rtol)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phase.fixed_point(tanh, -1.0, 0.1), r"weight_var=-1\.0: give a value >= 0"),
        (lambda: phase.critical_weight_var(tanh, -0.1), r"bias_var=-0\.1: give a value >= 0"),
        (lambda: phase.slope(tanh, -1.0, 1.0), r"q=-1\.0: give a value >= 0"),
        (lambda: phase.correlation_map(tanh, 1.1, 1.0, 1.0, 0.0), r"c=1\.1: give a correlation in \[-1, 1\]"),
        (lambda: relu.dual(*map(jnp.asarray, (1.0, 1.0, 1.1))), r"k=1\.1 is no covariance of variances q1=1\.0"),
        (lambda: relu.dual_derivative(*map(jnp.asarray, (-1.0, 1.0, 0.0))), r"q1=-1\.0: give a value >= 0"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
