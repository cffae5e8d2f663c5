"""Order and chaos: published and independent values, closed forms, limits, implicit derivatives."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import optimize

from theorysim.infinite import Activation, erf, gelu, phase, relu, silu, tanh
from theorysim.networks import propagate

HARD_TANH = Activation("hard_tanh", lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0))


class Settled(NamedTuple):
    q: jax.Array
    slope: jax.Array
    c: jax.Array
    length: jax.Array


@partial(jax.jit, static_argnums=0)
def settled(activation, weight_var, bias_var):
    """One program for what deep layers settle at: most of these tests' time is compilation."""
    q = phase.fixed_point(activation, weight_var=weight_var, bias_var=bias_var)
    c = phase.fixed_correlation(activation, q, weight_var=weight_var)
    slope = phase.chi(activation, q, weight_var=weight_var)
    return Settled(q, slope, c, phase.correlation_length(activation, q, c, weight_var=weight_var))


def test_fixed_points_of_erf_solve_its_closed_form():
    for weight_var, bias_var in [(0.8, 0.1), (1.6, 0.1), (4.0, 0.0), (4.0, 1.0)]:

        def closed(q, weight_var=weight_var, bias_var=bias_var):
            return weight_var * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) + bias_var - q

        q = optimize.brentq(closed, 1e-3, 10, xtol=1e-15, rtol=1e-15)
        found = phase.fixed_point(erf, weight_var=weight_var, bias_var=bias_var)
        np.testing.assert_allclose(found, q, rtol=1e-12)
        np.testing.assert_allclose(
            phase.chi(erf, found, weight_var=weight_var), weight_var * 4 / np.pi / np.sqrt(1 + 4 * q), rtol=1e-12
        )


def test_a_chaotic_tanh_network():
    """Independent solution by nested mpmath quadrature: weight_var = 2.5^2, bias_var = 0.3^2."""
    found = settled(tanh, 6.25, 0.09)
    np.testing.assert_allclose(found, [4.079124, 1.585225, 0.122104, 5.10892], rtol=3e-6)
    with mpmath.workdps(20):
        mean = 2 * mpmath.quad(
            lambda z: mpmath.tanh(mpmath.sqrt(mpmath.mpf(float(found.q))) * z) ** 2 * mpmath.npdf(z), [0, 1, 2, 4, 12]
        )
    np.testing.assert_allclose(found.q, float(6.25 * mean + 0.09), rtol=1e-13)


@pytest.mark.parametrize(
    ("activation", "linear", "weight_std"),
    [(tanh, 1, [1.122539, 1.193401, 1.327010, 1.549674]), (erf, np.pi / 4, [0.993686, 1.055595, 1.172962, 1.371330])],
)
def test_critical_line(activation, linear, weight_std):
    """It starts at the linear network."""

    def line(bias_var):
        weight_var = phase.critical_weight_var(activation, bias_var=bias_var)
        return weight_var, phase.chi(
            activation, phase.fixed_point(activation, weight_var=weight_var, bias_var=bias_var), weight_var=weight_var
        )

    weight_var, slope = jax.jit(jax.vmap(line))(jnp.array([1e-10, 0.0025, 0.01, 0.05, 0.25]))
    np.testing.assert_allclose(weight_var[0], linear, atol=1e-3)
    np.testing.assert_allclose(jnp.sqrt(weight_var[1:]), weight_std, rtol=1e-6)
    np.testing.assert_allclose(slope[1:], 1, rtol=1e-12)


def test_correlations_settle_at_one_in_order_and_below_in_chaos():
    @jax.jit
    def iterate(q, weight_var, bias_var):
        def layer(_, c):
            return phase.correlation_map(tanh, c, q, weight_var=weight_var, bias_var=bias_var)

        return jax.lax.fori_loop(0, 4000, layer, 0.5)

    for variances in [(1.0, 0.3), (1.3, 0.05), (2.0, 0.05), (4.0, 0.0), (4.0, 0.9)]:
        found = settled(tanh, *variances)
        np.testing.assert_allclose(found.c, iterate(found.q, *variances), rtol=1e-9, atol=1e-12)
        assert (found.c < 1) == (found.slope > 1)


def test_a_quiet_network_without_biases_dies_out():
    found = settled(tanh, 0.7, 0.0)
    np.testing.assert_allclose(found.q, 0, atol=1e-9)
    np.testing.assert_allclose(found.slope, 0.7, rtol=1e-8)
    assert found.c == 1
    np.testing.assert_allclose(found.length, -1 / np.log(0.7), rtol=1e-7)


def test_no_fixed_point_is_nan():
    linear = Activation("linear", lambda x: x)
    np.testing.assert_allclose(phase.fixed_point(linear, weight_var=0.5, bias_var=1.0), 2, rtol=1e-12)
    assert np.isnan(phase.fixed_point(linear, weight_var=1.5, bias_var=1.0))
    assert np.isnan(phase.critical_weight_var(linear, bias_var=0.1))


def test_derivatives_are_implicit_and_right(quick_jit):
    """On a grid, of which a point with a vanishing variance spoils no other."""
    points = np.array([[0.7, 0.0], [0.7, 0.1], [0.7, 0.5], [3.0, 0.2]])

    def length(point):
        return settled(tanh, *point).length

    gradient = quick_jit(jax.vmap(jax.grad(length)))(points)[1:]
    shifts = np.array([[1e-5, 0.0], [0.0, 1e-5]])
    near = quick_jit(jax.vmap(length))(
        np.concatenate([points[1:, None] + shifts, points[1:, None] - shifts]).reshape(-1, 2)
    )
    up, down = near.reshape(2, 3, 2)
    np.testing.assert_allclose(gradient, (up - down) / 2e-5, rtol=1e-6)

    critical = quick_jit(jax.value_and_grad(lambda bias_var: phase.critical_weight_var(tanh, bias_var=bias_var)))
    up, down = critical(0.1 + 1e-5)[0], critical(0.1 - 1e-5)[0]
    np.testing.assert_allclose(critical(0.1)[1], (up - down) / 2e-5, rtol=1e-6)


def test_random_networks_follow_the_maps():
    """Variance and correlation after five layers of width 400; 64 networks, three standard errors."""
    weight_var, bias_var = 2.0, 0.2
    keys = jax.random.split(jax.random.key(0), 64)
    options = {"width": 400, "depth": 5, "variance": 0.5, "correlation": 0.3}
    nets = jax.jit(jax.vmap(lambda key: propagate(tanh, weight_var=weight_var, bias_var=bias_var, key=key, **options)))(
        keys
    )

    # The inputs of the first layer have no biases in common: follow both variances and the covariance.
    @jax.jit
    def layer(q, covariance):
        covariance = weight_var * tanh.dual(q, q, covariance) + bias_var
        return phase.variance_map(tanh, q, weight_var=weight_var, bias_var=bias_var), covariance

    q, covariance = jnp.asarray(0.5), jnp.asarray(0.15)
    for i in range(5):
        q, covariance = layer(q, covariance)
        for measured, theory in ((nets.variance, q), (nets.correlation, covariance / q)):
            mean, error = measured[:, i].mean(), measured[:, i].std(ddof=1) / 8
            np.testing.assert_allclose(mean, theory, atol=3 * float(error))


def test_derivatives_at_a_vanishing_variance():
    """V'(0) = weight_var and slope'(0) = -2 weight_var for tanh; dq*/dbias_var = 1 / (1 - weight_var)."""
    np.testing.assert_allclose(
        jax.grad(lambda q: phase.variance_map(tanh, q, weight_var=0.7, bias_var=0.0))(0.0), 0.7, rtol=1e-12
    )
    np.testing.assert_allclose(jax.grad(lambda q: phase.chi(tanh, q, weight_var=0.7))(0.0), -1.4, rtol=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda b: phase.fixed_point(tanh, weight_var=0.7, bias_var=b))(0.0), 1 / 0.3, rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_the_inputs_and_the_line_is_reached_from_both_sides(dtype):
    bias_var = jnp.linspace(0.01, 1, 20).astype(dtype)

    @jax.jit
    @jax.vmap
    def line(bias_var):
        weight_var = phase.critical_weight_var(tanh, bias_var=bias_var)
        return weight_var, settled(tanh, weight_var, bias_var)

    weight_var, found = line(bias_var)
    assert {weight_var.dtype, *(values.dtype for values in found)} == {np.dtype(dtype)}
    assert (found.length > 100).all()


def test_whole_numbers_are_numbers():
    assert phase.fixed_correlation(erf, 3, weight_var=4) < 1
    assert phase.correlation_length(erf, 1, 1, weight_var=1) > 0


def test_lengths_are_the_rates_of_the_maps():
    """Distances to the fixed point shrink by exp(-1 / length) a layer; gradients by chi."""
    step = 1e-5

    @partial(jax.jit, static_argnums=0)
    def lengths_and_layers(activation, q, c, weight_var, bias_var):
        lengths = [
            phase.variance_length(activation, q, weight_var=weight_var),
            phase.trainable_depth(activation, q, c, weight_var=weight_var),
            phase.gradient_length(activation, q, weight_var=weight_var),
        ]
        layer = phase.variance_map(activation, 1.0001 * q, weight_var=weight_var, bias_var=bias_var)
        return lengths, layer, phase.correlation_map(activation, c - step, q, weight_var=weight_var, bias_var=bias_var)

    for activation, *variances in ((tanh, 3.0, 0.2), (tanh, 1.2, 0.1), (gelu, 1.5, 0.3)):
        q, slope, c, length = settled(activation, *variances)
        lengths, layer, below = lengths_and_layers(activation, q, c, *variances)
        np.testing.assert_allclose(lengths[0], -1 / np.log((layer - q) / (0.0001 * q)), rtol=1e-3)
        np.testing.assert_allclose(length, -1 / np.log((c - below) / step), rtol=1e-2)
        np.testing.assert_allclose(lengths[1], 6 * length, rtol=1e-14)
        np.testing.assert_allclose(lengths[2], 1 / abs(np.log(slope)), rtol=1e-14)


def test_a_relu_network_has_closed_forms():
    """q* = bias_var / (1 - weight_var / 2), chi = weight_var / 2, and no critical line but the point (2, 0)."""
    q, slope, c, _ = settled(relu, 1.6, 0.2)
    np.testing.assert_allclose(q, 1.0, rtol=1e-12)
    np.testing.assert_allclose(slope, 0.8, rtol=1e-12)
    assert c == 1
    assert np.isnan(settled(relu, 2.1, 0.2).q)
    assert np.isnan(phase.critical_weight_var(relu, bias_var=0.2))
    angles = np.arccos(correlations := np.array([-0.5, 0.3, 1 - 1e-6]))
    dual = (np.sin(angles) + (np.pi - angles) * correlations) / (2 * np.pi)
    mapped = jax.jit(jax.vmap(lambda c: phase.correlation_map(relu, c, 1.0, weight_var=1.6, bias_var=0.2)))(
        correlations
    )
    np.testing.assert_allclose(mapped, 1.6 * dual + 0.2, rtol=1e-10)


@pytest.mark.parametrize(
    ("activation", "rtol"),
    [(tanh, 1e-9), (silu, 1e-9), pytest.param(HARD_TANH, 1e-5, marks=pytest.mark.slow)],
)
def test_tables_are_the_duals_they_tabulate(activation, rtol):
    weight_var, bias_var = 1.4, 0.3
    q, c = jnp.array([0.05, 1.0, 12.0]), jnp.array([-0.3, 0.6, 0.999])

    def map_and_rate(q, c):
        length = phase.correlation_length(activation, q, c, weight_var=0.01)
        return phase.correlation_map(activation, c, q, weight_var=weight_var, bias_var=bias_var), jnp.exp(
            -1 / length
        ) / 0.01

    mapped, rate = jax.jit(jax.vmap(map_and_rate))(q, c)
    np.testing.assert_allclose(rate, activation.dual_derivative(q, q, c * q), rtol=rtol)
    np.testing.assert_allclose(mapped, (weight_var * activation.dual(q, q, c * q) + bias_var) / q, rtol=rtol)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phase.fixed_point(tanh, weight_var=-1.0, bias_var=0.1), r"weight_var=-1\.0: give a value >= 0"),
        (lambda: phase.critical_weight_var(tanh, bias_var=-0.1), r"bias_var=-0\.1: give a value >= 0"),
        (lambda: phase.chi(tanh, -1.0, weight_var=1.0), r"q=-1\.0: give a value >= 0"),
        (
            lambda: phase.correlation_map(tanh, 1.1, 1.0, weight_var=1.0, bias_var=0.0),
            r"c=1\.1: give a correlation in \[-1, 1\]",
        ),
        (lambda: relu.dual(*map(jnp.asarray, (1.0, 1.0, 1.1))), r"k=1\.1 is no covariance of variances q1=1\.0"),
        (lambda: relu.dual_derivative(*map(jnp.asarray, (-1.0, 1.0, 0.0))), r"q1=-1\.0: give a value >= 0"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_where_every_variance_is_fixed_there_is_no_fixed_point():
    unknown = Activation("relu without slopes", jax.nn.relu, kinks=(0.0,))
    for activation in (relu, unknown):
        assert jnp.isnan(phase.fixed_point(activation, weight_var=2.0, bias_var=0.0))
        np.testing.assert_allclose(phase.fixed_point(activation, weight_var=1.5, bias_var=0.1), 0.4, rtol=1e-12)


def test_numbers_are_broadcast():
    weight_vars, biases = np.array([[1.5], [3.0]]), [0.1, 0.2, 0.4]
    q = phase.fixed_point(erf, weight_var=weight_vars, bias_var=biases)
    assert q.shape == (2, 3)
    one = phase.fixed_point(erf, weight_var=3.0, bias_var=0.4)
    np.testing.assert_allclose(q[1, 2], one, rtol=1e-13)
    np.testing.assert_allclose(phase.chi(erf, q, weight_var=weight_vars)[1, 2], 12 / np.pi / np.sqrt(1 + 4 * one))


def test_the_slope_of_a_jump_is_refused_but_not_its_variance():
    sign = Activation("sign", jnp.sign, kinks=(0.0,))
    np.testing.assert_allclose(phase.fixed_point(sign, weight_var=1.5, bias_var=0.2), 1.7, rtol=1e-13)
    with pytest.raises(ValueError, match="'sign' jumps at one of its kinks"):
        phase.chi(sign, 1.0, weight_var=1.0)


def test_variance_maps_hold_at_large_variances_or_are_nan():
    np.testing.assert_allclose(
        phase.variance_map(erf, 1e6, weight_var=1.0, bias_var=0.0), 2 / np.pi * np.arcsin(2e6 / (1 + 2e6)), rtol=1e-12
    )
    assert jnp.isnan(phase.variance_map(Activation("plain", erf.fn), 1e6, weight_var=1.0, bias_var=0.0))
