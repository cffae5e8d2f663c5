"""Infinitely deep kernels against their functional equation, published numbers, mpmath and finite depth."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theorysim.infinite import Activation, cos, depth, erf, fully_connected, gelu, hermite, identity, relu, tanh

TWO = depth.activation_of(2.0)
HARD = Activation("hard tanh", lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0))
CENTRED = Activation("centred relu", lambda x: jnp.maximum(x, 0) - 1 / math.sqrt(2 * math.pi), kinks=(0.0,))
ERF_SQUARE = 2 / math.pi * math.asin(2 / 3)  # E erf(z)^2


@pytest.mark.parametrize(
    ("activation", "label"),
    [(relu, "majority vote"), (gelu, "majority vote"), (cos, "majority vote"), (hermite(2), "nearest neighbour"),
     (hermite(3), "nearest neighbour"), (erf, "singular kernel"), (identity, "linear")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_rules(activation, label):
    assert depth.limit(activation).label == label


def test_exponents_of_activations_known_in_closed_form():
    """Of erf: E z phi = 2 / sqrt(3 pi), E phi^2 = 2 / pi asin(2 / 3), E phi'^2 = 4 / (pi sqrt(5)). A jump: B = inf."""
    exponent = -2 * math.log(4 / (3 * math.pi) / ERF_SQUARE) / math.log(4 / math.pi / math.sqrt(5) / ERF_SQUARE)
    np.testing.assert_allclose(depth.limit(erf).alpha, exponent, rtol=1e-12)
    sign = depth.limit(Activation("sign", jnp.sign, kinks=(0.0,)))
    assert sign.expansion == math.inf
    assert sign.alpha == 0
    np.testing.assert_allclose(sign.slope, math.sqrt(2 / math.pi), rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 1.7, 2.0, 4.0, 8.0, 40.0])
def test_activations_of_any_exponent(alpha):
    limit = depth.limit(depth.activation_of(alpha))
    np.testing.assert_allclose([limit.alpha, limit.expansion], [alpha, 2], rtol=1e-9)


def test_the_construction_of_dimension_two_is_the_published_one():
    x = jnp.linspace(-3, 3, 13)
    published = 2**-0.5 * x + 2**-0.5 * (x**3 - 3 * x) / math.sqrt(6)
    np.testing.assert_allclose(TWO(x), published, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("dim", "values"), [(2, [5.591, 60.06, 604.7]), (4, [128.5, 14466, 1.463e6])])
def test_kernels_of_the_constructions(dim, values):
    ours = depth.koenigs(depth.activation_of(dim), jnp.array([0.1, 0.01, 0.001]))
    np.testing.assert_allclose(ours, values, rtol=5e-4)


@pytest.mark.parametrize(
    "activation", [TWO, depth.activation_of(0.5), erf, tanh], ids=lambda value: getattr(value, "name", value)
)
def test_functional_equation(activation):
    """kappa(psi(z)) = a_1^2 kappa(z), with 1 - psi in 50 digits from the Hermite coefficients."""
    deficit = [1e-12, 1e-10, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1.3, 1.7, 1.99]
    powers = depth._series(activation).powers
    with mpmath.workdps(50):
        psi = [sum(p * (1 - mpmath.mpf(d)) ** (j + 1) for j, p in enumerate(map(float, powers))) for d in deficit]
        mapped = jnp.array([float(sum(map(mpmath.mpf, powers.tolist())) - value) for value in psi])
    after, before = depth.koenigs(activation, mapped), depth.koenigs(activation, jnp.array(deficit))
    np.testing.assert_allclose(after, depth.limit(activation).slope ** 2 * before, rtol=1e-11)


def psi_of_centred_relu(z):
    """Cho & Saul's arc-cosine kernel, less the product of the means."""
    lost = mpmath.sqrt(1 - z * z) + (mpmath.pi - mpmath.acos(z)) * z - 1
    return lost / (mpmath.pi - 1)


def psi_of_hard_tanh(z):
    """By quadrature of psi', the probability that two Gaussians are both below 1 (Plackett's integral), and psi'(0)."""
    inside = mpmath.erf(1 / mpmath.sqrt(2))

    def slope(r):
        def density(t):
            both = mpmath.exp(-1 / (1 + t)) - mpmath.exp(-1 / (1 - t))
            return both / mpmath.sqrt(1 - t * t) / mpmath.pi

        return inside**2 + mpmath.quad(density, [0, r])

    square = inside - mpmath.sqrt(2 / mpmath.pi) * mpmath.exp(-mpmath.mpf(1) / 2) + 1 - inside
    return mpmath.quad(slope, [0, z]) / square


@pytest.mark.parametrize(
    ("activation", "psi", "deficit"),
    [
        (CENTRED, psi_of_centred_relu, [1e-14, 1e-12, 1e-8, 1e-4, 0.1, 0.5, 0.9, 1.3, 1.7, 1.99, 2.0]),
        (HARD, psi_of_hard_tanh, [1e-3, 0.1, 0.5, 0.9, 1.7]),
    ],
    ids=["relu", "hard tanh"],
)
def test_functional_equation_with_kinks(activation, psi, deficit):
    with mpmath.workdps(40 if activation is CENTRED else 20):
        mapped = jnp.array([float(1 - psi(1 - mpmath.mpf(d))) for d in deficit])
    after, before = depth.koenigs(activation, mapped), depth.koenigs(activation, jnp.array(deficit))
    np.testing.assert_allclose(after, depth.limit(activation).slope ** 2 * before, rtol=1e-10)


def test_brute_force_with_a_kink():
    with mpmath.workdps(50):
        for deficit in (1e-8, 0.1, 1.5):
            z, slope = 1 - mpmath.mpf(deficit), mpmath.pi / 2 / (mpmath.pi - 1)
            for _ in range(240):
                z = psi_of_centred_relu(z)
            exact = float(z / slope**240)
            np.testing.assert_allclose(depth.koenigs(CENTRED, jnp.array(deficit)), exact, rtol=1e-10)


def test_deep_kernels_with_kinks_are_those_of_networks():
    x = jax.random.normal(jax.random.key(0), (5, 3))
    x = jnp.sqrt(3.0) * x / jnp.linalg.norm(x, axis=1, keepdims=True)
    off = ~np.eye(5, dtype=bool)
    limit = depth.limit(CENTRED)
    square = 0.5 - 0.5 / math.pi
    finite = fully_connected(CENTRED, x, depth=4, weight_var=1 / square, layer_norm=True)
    ours = depth.deep(CENTRED, 1 - x @ x.T / 3, depth=4)
    np.testing.assert_allclose(limit.slope**8 * ours.nngp[off], finite.nngp[off], rtol=1e-9)
    np.testing.assert_allclose(limit.slope**8 * 5 * ours.ntk[off], finite.ntk[off], rtol=1e-9)
    deep = depth.deep(CENTRED, jnp.array([0.1, 0.7, 1.4]), depth=150)
    np.testing.assert_allclose(deep.nngp, depth.koenigs(CENTRED, jnp.array([0.1, 0.7, 1.4])), rtol=1e-10)


def test_brute_force_in_50_digits():
    with mpmath.workdps(50):
        half = mpmath.mpf(1) / 2
        for z in (0.05, 0.6, 0.99, 1 - 2.0**-30):
            value = mpmath.mpf(z)
            for _ in range(160):
                value = half * value + half * value**3
            np.testing.assert_allclose(
                depth.koenigs(TWO, jnp.array(1 - z)), float(value * 2**160), rtol=1e-13, err_msg=str(z)
            )


def test_singularity_has_the_exponent():
    deficit = jnp.array([1e-8, 1e-10])
    for activation in (TWO, erf):
        first, second = depth.koenigs(activation, deficit)
        slope = jnp.log(second / first) / jnp.log(10.0)  # of 1 / distance, which grows by 10
        np.testing.assert_allclose(slope, depth.limit(activation).alpha, rtol=1e-6)
    first, second = depth.koenigs(CENTRED, jnp.array([1e-12, 1e-14]))  # with a kink, up to O(sqrt(deficit))
    np.testing.assert_allclose(jnp.log(second / first) / jnp.log(10.0), depth.limit(CENTRED).alpha, rtol=2e-6)
    assert depth.koenigs(TWO, jnp.array(0.0)) == jnp.inf
    assert depth.koenigs(TWO, jnp.array(2.0)) == -jnp.inf
    assert depth.koenigs(TWO, jnp.array(1.0)) == 0


def test_deep_kernels_are_those_of_networks_and_reach_the_limit():
    """Theta_L (L + 1) grows by the limit a layer; layer_norm keeps the variance of the network at 1."""
    x = jax.random.uniform(jax.random.key(0), (5, 3))
    x = jnp.sqrt(3.0) * x / jnp.linalg.norm(x, axis=1, keepdims=True)
    off = ~np.eye(5, dtype=bool)
    deficit = 1 - x @ x.T / 3
    layers, slope = 8, depth.limit(erf).slope ** 2
    finite = fully_connected(erf, x, depth=layers, layer_norm=True, weight_var=1 / ERF_SQUARE)
    ours = depth.deep(erf, deficit, depth=layers)
    np.testing.assert_allclose(slope**layers * ours.nngp[off], finite.nngp[off], rtol=1e-9)
    np.testing.assert_allclose(slope**layers * (layers + 1) * ours.ntk[off], finite.ntk[off], rtol=1e-9)
    limit = depth.kernel(TWO, x)[off]
    deep = [depth.deep(TWO, deficit[off], depth=L) for L in (120, 121)]
    np.testing.assert_allclose(deep[0].nngp, limit, rtol=1e-12)
    np.testing.assert_allclose(122 * deep[1].ntk - 121 * deep[0].ntk, limit, rtol=1e-9)


def test_kernel_maps_and_differentiates():
    deficit = jnp.array([0.01, 0.3, 1.2])
    together = depth.koenigs(TWO, deficit)
    np.testing.assert_allclose(jax.vmap(lambda d: depth.koenigs(TWO, d))(deficit), together, rtol=1e-14)
    _, slope = jax.jvp(lambda d: depth.koenigs(TWO, d), (deficit,), (jnp.ones(3),))
    step = 1e-6 * deficit
    numeric = (depth.koenigs(TWO, deficit + step) - depth.koenigs(TWO, deficit - step)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-7)


def test_classifiers():
    targets = jnp.array([1.0, 1.0, -1.0])
    similarity = jnp.array([[jnp.inf, 2.0, 9.0], [1.0, 1.0, 3.0], [2.0, 1.0, 2.9]])
    np.testing.assert_array_equal(depth.classify(similarity, targets), [1, -1, 1])
    np.testing.assert_array_equal(depth.nearest_neighbour(similarity, targets), [1, -1, -1])
    assert depth.majority_vote(targets) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: depth.koenigs(relu, jnp.array(0.5)), "its rule is the majority vote; subtract its mean"),
        (lambda: depth.koenigs(TWO, jnp.array(-0.1)), "deficit=-0.1: give a value in"),
        (lambda: depth.koenigs(Activation("sign", jnp.sign, kinks=(0.0,)), jnp.array(0.5)), "jumps, or its"),
        (lambda: depth.koenigs(Activation("steep", lambda x: jnp.clip(x, -0.01, 0.01), kinks=(-0.01, 0.01)),
                               jnp.array(0.5)), "not resolved by 96 angles"),
        (lambda: depth.activation_of(0.1), r"alpha=0.1: give a value in \[0.2, 60\]"),
        (lambda: depth.deep(TWO, jnp.array(0.5), depth=-1), "depth=-1: give a whole number >= 0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_kinks_that_are_not_named_are_warned_of_and_refused():
    with pytest.warns(UserWarning, match="'hidden kinks' has kinks"):
        hidden = Activation("hidden kinks", HARD.fn)
    with pytest.raises(ValueError, match="its kinks are not named"):
        depth.koenigs(hidden, jnp.array(0.5))
