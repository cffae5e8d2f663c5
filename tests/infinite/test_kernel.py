"""Kernels of wide networks: neural-tangents, Monte Carlo over finite networks, many digits, symmetry, positivity."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp

from theorysim import infinite
from theorysim.infinite import (
    Activation,
    by_rows,
    dynamics,
    erf,
    fully_connected,
    neural_tangents,
    posterior,
    relu,
    tanh,
)
from theorysim.infinite.covariance import Covariance, activate
from theorysim.infinite.neural_tangents import stax
from theorysim.networks import MLP, empirical_ntk
from theorysim.networks.transfer import transfer_network

X1 = jax.random.normal(jax.random.key(0), (5, 8))
X2 = jax.random.normal(jax.random.key(1), (3, 8))
ON_SPHERE = X1 / jnp.linalg.norm(X1, axis=1, keepdims=True) * np.sqrt(8)
STAX = {
    relu: stax.Relu(),
    infinite.leaky_relu(0.1): stax.LeakyRelu(0.1),
    infinite.piecewise_linear(-1.0, 1.0): stax.Abs(),
    erf: stax.Erf(),
    infinite.gelu: stax.Gelu(),
    infinite.sin: stax.Sin(),
    infinite.rbf(0.5): stax.Rbf(0.5),
    infinite.exponential(0.4): stax.Exp(1.0, 0.4),
}


def reference(*layers):
    """The kernels of neural-tangents between two different sets: on a diagonal it loses half the digits for relu."""
    return jax.jit(partial(stax.serial(*layers)[2], get=("nngp", "ntk")))(X1, X2)


@pytest.mark.parametrize(
    ("activation", "depth", "parametrisation"),
    [
        *((relu, depth, parametrisation) for depth in (0, 2) for parametrisation in ("ntk", "standard")),
        *((activation, 2, "standard") for activation in STAX if activation is not relu),
        # The parametrisation does not know the activation.
        *(pytest.param(activation, 2, "ntk", marks=pytest.mark.slow) for activation in STAX if activation is not relu),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_kernels_are_those_of_neural_tangents(activation, depth, parametrisation):
    layer = [stax.Dense(64, np.sqrt(1.7), np.sqrt(0.2), parameterization=parametrisation), STAX[activation]]
    peer = reference(*layer * depth, layer[0])
    width = {"width": 64} if parametrisation == "standard" else {}
    setting = {"weight_var": 1.7, "bias_var": 0.2, "parametrisation": parametrisation, **width}
    ours = fully_connected(activation, X1, X2, depth=depth, **setting)
    np.testing.assert_allclose(ours.nngp, peer.nngp, rtol=1e-12)
    np.testing.assert_allclose(ours.ntk, peer.ntk, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:`FanIn` layers assume independent inputs")
@pytest.mark.parametrize("layer_norm", [False, True])
def test_residual_networks_are_those_of_neural_tangents(layer_norm):
    def dense(weight_var, bias_var):
        return stax.Dense(1, np.sqrt(weight_var), np.sqrt(bias_var))

    weights, biases, scale = jnp.array([1.7, 1.2, 0.8, 1.0]), jnp.array([0.2, 0.0, 0.3, 0.1]), 0.6
    before = [stax.LayerNorm()] if layer_norm else []
    blocks = [
        stax.serial(
            stax.FanOut(2),
            stax.parallel(
                stax.Identity(), stax.serial(*before, stax.Relu(), dense(scale**2 * weights[i], scale**2 * biases[i]))
            ),
            stax.FanInSum(),
        )
        for i in (1, 2)
    ]
    peer = reference(dense(weights[0], biases[0]), *blocks, *before, stax.Relu(), dense(weights[3], biases[3]))
    setting = {"weight_var": weights, "bias_var": biases, "residual": scale, "layer_norm": layer_norm}
    ours = fully_connected(relu, X1, X2, depth=3, **setting)
    np.testing.assert_allclose(ours.nngp, peer.nngp, rtol=1e-12)
    np.testing.assert_allclose(ours.ntk, peer.ntk, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "normalised"),
    [
        (infinite.gelu, True),
        (relu, True),
        (erf, False),
        (relu, False),
        pytest.param(erf, True, marks=pytest.mark.slow),
        pytest.param(infinite.gelu, False, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_kernels_without_closed_forms_are_those_with(activation, normalised):
    """By table for inputs of one norm, by Hermite series or, with kinks, by quadrature for any."""
    plain = Activation("plain", activation.fn, kinks=activation.kinks)
    x = ON_SPHERE if normalised else X1[:2]
    setting = {"depth": 2, "weight_var": 0.8, "bias_var": 0.1}
    ours = fully_connected(plain, x, normalised=normalised, **setting)
    for kernel, exact in zip(ours, fully_connected(activation, x, **setting), strict=True):
        np.testing.assert_allclose(kernel, exact, rtol=1e-10)


def test_tables_keep_their_digits_at_large_variances():
    """One layer of erf, near duplicates too, against its closed form in 40 digits; at 100, no number at all."""
    plain = Activation("plain", erf.fn)
    angles = np.array([1e-7, 1e-3, 0.1, 0.7, 1.5, 2.5, 3.14])
    deficit = jnp.asarray(2 * np.sin(angles / 2) ** 2)[None, :]

    @jax.jit
    def activated(variance):
        std = jnp.sqrt(variance)
        return activate(plain, Covariance(jnp.full(1, std), jnp.full(7, std), deficit), normalised=True)

    for variance in (0.1, 1.0, 3.0, 20.0):
        features, slope = activated(variance)
        with mp.workdps(40):
            q, lost = mp.mpf(float(np.sqrt(variance))) ** 2, [mp.mpf(float(d)) for d in deficit[0]]
            same = mp.asin(2 * q / (1 + 2 * q))
            duals = [1 - mp.asin(2 * q * (1 - d) / (1 + 2 * q)) / same for d in lost]
            slopes = [4 / mp.pi / mp.sqrt((1 + 2 * q) ** 2 - 4 * (q * (1 - d)) ** 2) for d in lost]
        np.testing.assert_allclose(features.deficit[0], [float(d) for d in duals], rtol=1e-10)
        np.testing.assert_allclose(slope[0], [float(s) for s in slopes], rtol=1e-10)
    assert np.isnan(activated(100.0).slope).all()


def test_tables_of_functions_with_kinks_are_their_duals():
    clip = Activation("hard_tanh", lambda x: jnp.clip(x, -1.0, 1.0), kinks=(-1.0, 1.0))
    q, angles = jnp.asarray(1.5), np.array([0.05, 1.0, 2.8])
    deficit = jnp.asarray(2 * np.sin(angles / 2) ** 2)[None, :]
    std = jnp.sqrt(q)
    covariance = Covariance(jnp.full(1, std), jnp.full(3, std), deficit)
    features, slope = jax.jit(partial(activate, clip, normalised=True))(covariance)
    np.testing.assert_allclose(features.matrix[0], clip.dual(q, q, q * (1 - deficit[0])), rtol=1e-10)
    np.testing.assert_allclose(slope[0], clip.dual_derivative(q, q, q * (1 - deficit[0])), rtol=1e-10)


def exact_relu_ntk(angle, depth, weight_var, bias_var):
    """1 - Theta(x, x') / Theta(x, x) and the angle of the outputs, for inputs of variance 1; 60 digits."""
    with mp.workdps(60):
        weight_var, bias_var = mp.mpf(weight_var), mp.mpf(bias_var)
        c, q = mp.cos(mp.mpf(angle)), weight_var + bias_var
        same, k = q, weight_var * c + bias_var
        ntk = k
        for _ in range(depth):
            a = mp.acos(k / q)
            slope = (mp.pi - a) / (2 * mp.pi)
            k = weight_var * q * (mp.sin(a) + (mp.pi - a) * mp.cos(a)) / (2 * mp.pi) + bias_var
            q = weight_var * q / 2 + bias_var
            ntk, same = k + weight_var * slope * ntk, q + weight_var * same / 2
        return float(1 - ntk / same), float(mp.acos(k / q))


@pytest.mark.parametrize(
    ("angle", "dtype", "rtol"), [(1e-8, jnp.float64, 1e-6), (1e-4, jnp.float64, 1e-9), (1e-4, jnp.float32, 5e-2)]
)
def test_near_duplicates_keep_their_angle(angle, dtype, rtol):
    x = jnp.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], dtype) * math.sqrt(2)
    kernels = fully_connected(relu, x, depth=3, weight_var=1.7, bias_var=0.2)
    lost, outputs = exact_relu_ntk(float(np.arcsin(np.asarray(x[1, 1], float) / np.sqrt(2))), 3, 1.7, 0.2)
    np.testing.assert_allclose(kernels.angle[0, 1], outputs, rtol=1e-6 if dtype == jnp.float64 else 1e-4)
    np.testing.assert_allclose(1 - kernels.ntk[0, 1] / kernels.ntk[0, 0], lost, rtol=rtol)
    assert kernels.angle[0, 0] == 0


@pytest.mark.parametrize("activation", [erf, tanh, infinite.gelu, infinite.silu], ids=lambda a: a.name)
@pytest.mark.parametrize("stretch", [0.0, 1e-8])
def test_near_duplicates_of_smooth_networks_part_at_the_slope(activation, stretch):
    """angle^2 <- angle^2 weight_var q E phi'^2 / new q, and a term for unequal norms, from one input in float64."""
    x = jnp.array([[1.0, 0.0], [np.cos(1e-8), np.sin(1e-8)]]) * np.sqrt(2)
    x = x.at[1].multiply(1 + stretch)
    weight_var, bias_var = 1.7, 0.2
    kernels = fully_connected(activation, x, depth=1, weight_var=weight_var, bias_var=bias_var)

    with mp.workdps(40):
        # Jacobian of the unit vector of (features, bias) along the difference of the inputs, in 40 digits.
        q = mp.mpf(weight_var) + mp.mpf(bias_var)
        fn = PLAIN[activation.name]
        mean = lambda f: mp.quad(lambda z: f(mp.sqrt(q) * z) * mp.npdf(z), [-12, 0, 12])  # noqa: E731
        slope = lambda u: mp.diff(fn, u)  # noqa: E731
        square, twist = mean(lambda u: fn(u) ** 2), mean(lambda u: slope(u) ** 2)
        along, overlap = mean(lambda u: (slope(u) * u) ** 2) / q, mean(lambda u: fn(u) * slope(u) * u) / mp.sqrt(q)
        turned = weight_var * mp.mpf(1e-8) ** 2  # |dz|^2 across the direction of the first input
        stretched = weight_var * mp.mpf(stretch) / mp.sqrt(q)  # change of the std
        across = turned + weight_var * mp.mpf(stretch) ** 2 - stretched**2
        distance = twist * across + along * stretched**2
        total = weight_var * square + bias_var
        exact = mp.sqrt((weight_var * distance - (weight_var * overlap * stretched) ** 2 / total) / total)
    np.testing.assert_allclose(kernels.angle[0, 1], float(exact), rtol=1e-6)


PLAIN = {
    "erf": mp.erf,
    "tanh": mp.tanh,
    "gelu": lambda x: x * mp.ncdf(x),
    "silu": lambda x: x / (1 + mp.exp(-x)),
}


@pytest.mark.parametrize("activation", [pytest.param(erf, marks=pytest.mark.slow), tanh], ids=lambda a: a.name)
def test_finite_networks_scatter_about_the_limit(activation):
    """Mean kernels of 400 networks of width 300, within four standard errors and 2 / width."""
    network = MLP(width=300, depth=2, activation=activation, weight_var=1.5, bias_var=0.3)

    def one(key):
        params = network.init(key, X1)
        f = network.apply(params, X1)[:, 0]
        return empirical_ntk(network.apply, params, X1, X1), jnp.outer(f, f)

    limit = fully_connected(activation, X1, X1, depth=2, weight_var=1.5, bias_var=0.3)
    samples = jax.lax.map(one, jax.random.split(jax.random.key(2), 400), batch_size=50)
    for kernels, exact in zip(samples, (limit.ntk, limit.nngp), strict=True):
        error = kernels.std(0, ddof=1) / 20
        scale = jnp.sqrt(jnp.outer(jnp.diag(exact), jnp.diag(exact)))
        assert (jnp.abs(kernels.mean(0) - exact) < 4 * error + 2 / 300 * scale).all()


def test_finite_networks_with_biases_from_zero_scatter_about_the_limit():
    """Mean kernels of 400 networks of width 300 in standard parametrisation, within four standard errors."""
    width, outputs = 300, 8
    network = transfer_network(width=width, base_width=width, depth=2, dim=8, outputs=outputs, activation=erf)
    setting = {"depth": 2, "parametrisation": "standard", "width": width}
    limit = fully_connected(erf, X1, **setting, biases=True)

    def one(key):
        return empirical_ntk(network.apply, network.init(key, X1), X1)

    kernels = jax.lax.map(one, jax.random.split(jax.random.key(2), 400), batch_size=50)
    error = kernels.std(0, ddof=1) / 20
    assert (jnp.abs(kernels.mean(0) - limit.ntk) < 4 * error).all()
    # Biases are a hundredth of the kernel, which without them is off by more.
    without = fully_connected(erf, X1, **setting)
    np.testing.assert_array_equal(limit.nngp, without.nngp)
    assert (jnp.diag(kernels.mean(0) - without.ntk) > 4 * jnp.diag(error)).all()


def test_biases_count_alike_whatever_their_variance():
    setting = {"depth": 3, "parametrisation": "standard", "width": 64}
    tiny, zero = (fully_connected(erf, X1, X2, bias_var=var, biases=True, **setting).ntk for var in (1e-15, 0.0))
    np.testing.assert_allclose(tiny, zero, rtol=1e-11)
    np.testing.assert_array_equal(tiny, fully_connected(erf, X1, X2, bias_var=1e-15, **setting).ntk)
    fixed = fully_connected(erf, X1, X2, bias_var=1e-15, biases=False, **setting).ntk
    np.testing.assert_allclose(fixed, fully_connected(erf, X1, X2, **setting).ntk, rtol=1e-11)


def test_a_kernel_is_symmetric_positive_and_traced_in_its_variances():
    @jax.jit
    def kernels(weight_var, bias_var):
        return fully_connected(tanh, X1, depth=3, weight_var=weight_var, bias_var=bias_var)

    for kernel in kernels(2.0, 0.1)[:2]:
        np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
        assert (jnp.linalg.eigvalsh(kernel) > 0).all()


@pytest.mark.parametrize(("activation", "normalised", "depth"), [(relu, False, 2), (erf, False, 1), (tanh, True, 1)])
def test_gradients_are_finite_on_the_diagonal_and_right(activation, normalised, depth, quick_jit):
    """With respect to every hyperparameter, duplicates and a bias of variance 0 included, against differences."""
    x = (ON_SPHERE if normalised else X1)[jnp.array([0, 1, 1])]
    at = {"weight_var": jnp.asarray(1.5), "bias_var": jnp.asarray(0.0), "residual": jnp.asarray(0.7)}

    def kernels(setting):
        found = fully_connected(activation, x, depth=depth, normalised=normalised, **setting)[:2]
        return found, found

    gradients_and_values = quick_jit(jax.jacrev(kernels, has_aux=True))
    gradients, step = gradients_and_values(at)[0], 1e-6
    for name in at:
        ahead = gradients_and_values({**at, name: at[name] + step})[1]
        behind = gradients_and_values({**at, name: at[name] - (step if at[name] > 0 else 0)})[1]
        width = step * (2 if at[name] > 0 else 1)
        for exact, high, low in zip(gradients, ahead, behind, strict=True):
            assert jnp.isfinite(exact[name]).all()
            np.testing.assert_allclose(exact[name], (high - low) / width, rtol=1e-4, atol=1e-4)


def test_one_compile_serves_every_setting_depth_included():
    traces = []

    @jax.jit
    def kernel(depth, weight_var, bias_var):
        traces.append(None)
        return fully_connected(relu, X1, X2, depth=depth, weight_var=weight_var, bias_var=bias_var).ntk

    for depth in (0, 1, 4):
        exact = fully_connected(relu, X1, X2, depth=depth, weight_var=1.3, bias_var=0.1).ntk
        np.testing.assert_allclose(kernel(depth, 1.3, 0.1), exact, rtol=1e-13)
    assert len(traces) == 1


@pytest.mark.parametrize("devices", [1, 8])
def test_a_kernel_by_rows_is_the_kernel(devices):
    test = jax.random.normal(jax.random.key(2), (37, 8))
    weights = jnp.arange(5.0)

    def predict(block):
        return fully_connected(relu, block, X1, depth=2).ntk @ weights

    blocked = by_rows(predict, test, rows=4, devices=jax.devices()[:devices])
    np.testing.assert_allclose(blocked, predict(test), rtol=1e-12)


def test_a_prediction_by_rows_never_holds_the_kernel():
    test, train = jnp.ones((4096, 4)), jnp.ones((1024, 4))

    def predict(test):
        return by_rows(lambda x: fully_connected(relu, x, train, depth=2).ntk @ jnp.ones(1024), test, rows=64)

    compiled = jax.jit(predict).lower(test).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4e6  # the kernel alone takes 34 MB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x2": jnp.ones((3, 7))}, r"x1 has shape \(5, 8\), x2 \(3, 7\): give inputs of one dimension"),
        ({"x1": X1.at[2, 1].set(jnp.nan)}, r"x1 holds 1 values that are not finite, the first at \(2, 1\): drop"),
        ({"weight_var": -1.0}, "weight_var=-1.0: give a value >= 0"),
        ({"bias_var": -0.5}, "bias_var=-0.5: give a value >= 0"),
        ({"depth": -1}, "depth=-1: give a whole number from 0"),
        ({"depth": 2.5}, "depth=2.5: give a whole number from 0"),
        ({"parametrisation": "mup"}, "parametrisation='mup': give one of ntk, standard"),
        ({"width": 64}, 'width=64 is of parametrisation="standard"'),
        ({"x1": X1[0]}, r"x1 has shape \(8,\): give \(inputs, dim\), a single input as x\[None\]"),
        ({"x1": X1.reshape(5, 2, 2, 2)}, r"x1 has shape \(5, 2, 2, 2\): give \(inputs, dim\), .* x.reshape"),
        ({"weight_var": jnp.ones(3)}, r"weight_var has shape \(3,\) with depth=3: give one number, or 4"),
        ({"parametrisation": "standard"}, 'parametrisation="standard" needs width='),
        ({"biases": True}, 'biases=True: that is of parametrisation="standard"'),
        ({"normalised": True}, "normalised=True, but the inputs' norms go from .* divide each input by its norm"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fully_connected(relu, **{"x1": X1, "depth": 3, **change})


IMAGES = jax.random.normal(jax.random.key(3), (7, 4, 4, 2))
CONVOLUTION = [stax.Conv(1, (3, 3), padding="SAME"), stax.Relu(), stax.AvgPool((2, 2), (2, 2))]
ATTENTION = [stax.GlobalSelfAttention(1, 1, 1, 1, linear_scaling=True)]


@pytest.mark.promotion
@pytest.mark.filterwarnings("ignore:Linear scaling attention used")
@pytest.mark.parametrize("layers", [CONVOLUTION, [*CONVOLUTION[:2], *ATTENTION]], ids=["convolution", "attention"])
def test_architectures_have_the_same_kernels_and_predictors(layers):
    """Trained to the end: the mean and covariance of neural-tangents, from our kernels by our predictors."""
    kernel_fn = stax.serial(*layers, stax.Flatten(), stax.Dense(1, 1.0, 0.1))[2]
    train, targets = IMAGES[:5], jnp.linspace(-1.0, 1.0, 5)
    ours = jax.jit(partial(neural_tangents.kernels, kernel_fn))(IMAGES)
    assert (jnp.diag(ours.angle) == 0).all()
    np.testing.assert_allclose(jnp.cos(ours.angle), correlation(ours.nngp), atol=1e-12)
    blocked = jax.jit(partial(neural_tangents.kernels, kernel_fn, rows=1))(IMAGES[5:], train)
    np.testing.assert_allclose(blocked.ntk, ours.ntk[5:, :5], rtol=1e-12)

    predictor = neural_tangents.predict.gradient_descent_mse_ensemble(kernel_fn, train, targets[:, None], diag_reg=0)
    expected = jax.jit(lambda: predictor(x_test=IMAGES[5:], get=("nngp", "ntk"), compute_cov=True))()
    flow = dynamics.flow_response(dynamics.modes(ours.ntk[:5, :5]), blocked.ntk, time=jnp.inf)
    np.testing.assert_allclose(flow @ targets, expected.ntk.mean[:, 0], rtol=1e-8)
    bayes = posterior.gaussian(ours.nngp[:5, :5], blocked.nngp, ours.nngp[5:, 5:], targets)
    np.testing.assert_allclose(bayes.mean, expected.nngp.mean[:, 0], rtol=1e-8)
    np.testing.assert_allclose(bayes.covariance, expected.nngp.covariance, rtol=1e-8, atol=1e-12)


def correlation(covariance):
    std = jnp.sqrt(jnp.diag(covariance))
    return covariance / std[:, None] / std[None, :]


def test_a_network_that_does_not_end_in_a_row_is_refused():
    with pytest.raises(ValueError, match=r"kernel has shape \(7, 7, 4, 4, 4, 4\): end it in Flatten or GlobalAvgPool"):
        jax.eval_shape(partial(neural_tangents.kernels, stax.serial(*CONVOLUTION[:2])[2]), IMAGES)


def test_without_neural_tangents_the_error_says_what_to_do(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "neural_tangents"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps neural-tangents frozendict"):
        _ = neural_tangents.stax
    with pytest.raises(AttributeError, match="it has stax and predict"):
        _ = neural_tangents.empirical


def second_moment(slope, x, weight_var, bias_var):
    """weight_var E[phi'(w . x + b)^2 w w^T], by quadrature along x, the bias, and across."""
    nodes = np.linspace(-9, 9, 401)
    weights = np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi) * (nodes[1] - nodes[0])
    norm, variance = np.linalg.norm(x), weight_var / len(x)
    u = np.sqrt(variance) * norm * nodes[:, None] + np.sqrt(bias_var) * nodes[None, :]
    squares = np.asarray(slope(jnp.asarray(u))) ** 2 @ weights
    along = np.outer(x, x) / norm**2
    return (
        weight_var * variance * ((weights * nodes**2) @ squares * along + weights @ squares * (np.eye(len(x)) - along))
    )


@pytest.mark.parametrize(
    "activation",
    [erf, tanh, *(pytest.param(getattr(infinite, a), marks=pytest.mark.slow) for a in ("gelu", "softplus", "mish"))],
    ids=lambda activation: activation.name,
)
def test_mixed_derivatives_at_equal_inputs_are_those_of_features(activation):
    """d^2 K(x, z) / dx dz at z = x: what Gaussian processes of derivatives are made of."""
    x, setting = jnp.array([0.4, -1.1, 0.8]), {"weight_var": 1.7, "bias_var": 0.3}

    def nngp(x, z):
        return fully_connected(activation, x[None], z[None], depth=1, **setting).nngp[0, 0]

    expected = second_moment(activation.derivative, np.asarray(x), **setting)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(jax.grad(nngp), 1))(x, x), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("activation", [erf, tanh], ids=lambda activation: activation.name)
def test_kernels_of_raw_pixels_are_those_of_the_duals(activation):
    """Inputs from 0 to 255; of the network by two compositions of T and T', which were tested by themselves."""
    x = jax.random.uniform(jax.random.key(0), (4, 64), maxval=255.0)
    unit = 200 * x / jnp.sqrt(jnp.square(x).mean(1, keepdims=True))
    for inputs, options in ((x, {}), (unit, {"normalised": True})):
        kernel = inputs @ inputs.T / 64
        ntk = kernel
        for _ in range(2):
            q = jnp.diag(kernel)
            triple = q[:, None], q[None, :], kernel
            kernel, ntk = activation.dual(*triple), activation.dual_derivative(*triple) * ntk
            ntk = ntk + kernel
        found = fully_connected(activation, inputs, depth=2, **options)
        np.testing.assert_allclose(found.nngp, kernel, rtol=1e-9)
        np.testing.assert_allclose(found.ntk, ntk, rtol=1e-8)
        assert np.linalg.eigvalsh(found.nngp)[0] > 0


def test_inputs_at_which_quadrature_fails_are_refused():
    with pytest.raises(ValueError, match="quadrature does not resolve 'mish' at the variances"):
        fully_connected(infinite.mish, 300 * X1, depth=1)
    with pytest.warns(UserWarning, match="has kinks"), pytest.raises(ValueError, match="name the activation's kinks"):
        fully_connected(lambda x: jnp.maximum(x, 0.1 * x), X1, depth=1)


@pytest.mark.parametrize("options", [{}, {"normalised": True}])
def test_kernels_of_a_jump_are_the_arcsine_laws(options):
    sign = Activation("sign", jnp.sign, kinks=(0.0,))
    rho = ON_SPHERE @ ON_SPHERE.T / 8
    found = fully_connected(sign, ON_SPHERE, depth=1, **options)
    off = ~np.eye(5, dtype=bool)
    nngp = 2 / np.pi * np.arcsin(np.clip(rho, -1, 1))
    np.testing.assert_allclose(found.nngp[off], nngp[off], atol=1e-13)
    np.testing.assert_allclose(jnp.diag(found.nngp), 1, rtol=1e-13)
    ntk = nngp[off] + rho[off] * 2 / np.pi / np.sqrt(1 - rho[off] ** 2)
    np.testing.assert_allclose(found.ntk[off], ntk, rtol=1e-11)
    assert np.isinf(jnp.diag(found.ntk)).all()


def test_a_slope_may_be_traced():
    def ntk(slope):
        return fully_connected(infinite.leaky_relu(slope), X1, depth=2).ntk.sum()

    step = 1e-6
    difference = (ntk(0.1 + step) - ntk(0.1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.value_and_grad(ntk))(0.1), (ntk(0.1), difference), rtol=1e-8)
