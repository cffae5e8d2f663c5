"""abc-parametrisations: exact rational arithmetic, named ones, the gauge, the dichotomy, the muTransfer table."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.infinite import abc

NAMED = {
    "standard": abc.standard,
    "ntk": abc.ntk,
    "mean_field": abc.mean_field,
    "mup": abc.mup,
    "integrable": abc.integrable,
}


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_named_parametrisations(depth):
    """arXiv:2011.14522, table 1."""
    slow = abc.standard(depth, c=1.0)
    cases = [
        (abc.standard(depth), 0 if depth == 1 else -1, "unstable"),
        (slow, 1.5 if depth == 1 else 0.5, "kernel"),
        (abc.ntk(depth), 0.5, "kernel"),
        (abc.mup(depth), 0, "feature"),
        (abc.mean_field(depth), 0, "feature" if depth == 1 else "unstable"),
        (abc.integrable(depth), 0, "feature" if depth == 1 else "unstable"),
    ]
    for parametrisation, r, regime in cases:
        assert parametrisation.a.shape == parametrisation.b.shape == (depth + 1,)
        np.testing.assert_allclose(abc.feature_exponent(parametrisation), r, atol=1e-15)
        assert abc.REGIMES[int(abc.regime(parametrisation))] == regime


def test_mean_field_with_one_hidden_layer_is_mup():
    for other in (abc.mean_field(1), abc.integrable(1)):
        for found, wanted in zip(abc.invariants(other), abc.invariants(abc.mup(1)), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_published_changes_by_layer():
    """Measured slopes of one step, width 64 to 1024 (tests/networks/test_abc_networks.py measures them again)."""
    for parametrisation, hidden, output in [
        (abc.mup(2), [0, 0], 0),
        (abc.ntk(2), [0.5, 0.5], 0),
        (abc.standard(2, c=1.0), [1.5, 0.5], 0),
        (abc.standard(2), [0.5, -0.5], -1),
        (abc.integrable(3), [1, 0.5, 1], 1),
        (abc.mean_field(2), [0.5, 1], 1),
    ]:
        found = abc.changes(parametrisation, first_step=True)
        np.testing.assert_allclose(found.hidden, hidden, atol=1e-15)
        np.testing.assert_allclose(found.output, output, atol=1e-15)


def exactly(a, b, c):
    """The regime by arXiv:2011.14522, section 3, in rational numbers."""
    a, b, c = [Fraction(x) for x in a], [Fraction(x) for x in b], Fraction(c)
    r = min(a[-1] + b[-1], 2 * a[-1] + c) + c - 1 + min(2 * x + (i == 0) for i, x in enumerate(a[:-1]))
    starts = a[0] + b[0] == 0 and all(x + y == Fraction(1, 2) for x, y in zip(a[1:-1], b[1:-1], strict=True))
    ends = (2 * a[-1] + c, a[-1] + b[-1] + r)
    if not (starts and a[-1] + b[-1] >= Fraction(1, 2) and r >= 0 and min(ends) >= 1):
        return r, "unstable"
    return r, "trivial" if min(ends) > 1 else "feature" if r == 0 else "kernel"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 3])
def test_thousands_at_once_against_rational_arithmetic(depth, dtype):
    """On quarters, where equalities abound; a shift that rounds changes nothing."""
    rng = np.random.default_rng(depth)
    a = rng.integers(-4, 7, (4000, depth + 1)) / 4
    start = np.array([0.0] + [0.5] * (depth - 1) + [0.0])
    b = start - a
    b[:, -1] += rng.integers(1, 8, 4000) / 4
    b[::5] += rng.integers(0, 2, b[::5].shape) / 4  # some that do not start well
    c = rng.integers(-8, 9, 4000) / 4
    many = abc.Parametrisation(*(jnp.asarray(x, dtype) for x in (a, b, c)))
    classify = jax.jit(jax.vmap(lambda p: (abc.feature_exponent(p), abc.regime(p))))
    r, regimes = classify(many)
    assert r.dtype == dtype
    wanted = [exactly(*p) for p in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(r, np.array([float(value) for value, _ in wanted]))
    labels = [abc.REGIMES[i] for i in regimes]
    assert labels == [label for _, label in wanted]
    assert set(labels) == set(abc.REGIMES)
    shifted = jax.vmap(abc.shift)(many, jnp.asarray(rng.normal(size=4000), dtype))
    np.testing.assert_array_equal(classify(shifted)[1], regimes)
    nontrivial = jax.vmap(abc.is_nontrivial)(many)
    np.testing.assert_array_equal(nontrivial, regimes >= abc.REGIMES.index("kernel"))  # the dichotomy
    np.testing.assert_array_equal(jax.vmap(abc.is_stable)(many), regimes > 0)


def test_invariants_know_the_parametrisation_up_to_a_shift():
    for family in NAMED.values():
        parametrisation = family(3)
        shifted = abc.shift(parametrisation, parametrisation.c / 2)
        for found, wanted in zip(abc.from_invariants(*abc.invariants(parametrisation)), shifted, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-15)


def test_a_late_step_feels_the_learnt_readout():
    mup = abc.mup(2)
    quiet = mup._replace(b=mup.b.at[-1].set(1.5))
    np.testing.assert_allclose(abc.changes(quiet, first_step=True).hidden, [1, 1])
    np.testing.assert_allclose(abc.changes(quiet).hidden, [0, 0])


def test_transfer_for_sgd_is_mup_layer_by_layer():
    """multiplier * std = ratio^-(a + b) and multiplier^2 * rate = ratio^-(2 a + c), since every layer has a gauge."""
    initial, rate = abc.invariants(abc.mup(2))
    for layer, role in enumerate(("input", "hidden", "readout")):
        scaling = abc.transfer(role, 8.0, optimizer="sgd")
        np.testing.assert_allclose(scaling.multiplier * scaling.initial_std, 8 ** -initial[layer])
        np.testing.assert_allclose(scaling.multiplier**2 * scaling.learning_rate, 8 ** -rate[layer])


def test_transfer_for_adam_moves_every_layer_by_one():
    """A step of Adam is of one sign along a coherent sum of `width` terms, or of the fixed input dimension."""
    for role, terms in (("input", 1), ("hidden", 8), ("readout", 8), ("bias", 1), ("fixed", 1)):
        scaling = abc.transfer(role, 8.0, optimizer="adam")
        np.testing.assert_allclose(scaling.multiplier * scaling.learning_rate * terms, 1)


def test_transfer_table():
    """Learning rate, std, multiplier at four times the width, as mup 1.0 sets them."""
    for optimizer, rows in {
        "sgd": {"input": (4, 1, 1), "hidden": (1, 0.5, 1), "readout": (4, 1, 0.25), "bias": (4, 1, 1)},
        "adam": {"input": (1, 1, 1), "hidden": (0.25, 0.5, 1), "readout": (1, 1, 0.25), "bias": (1, 1, 1)},
    }.items():
        for role, row in {**rows, "fixed": (1, 1, 1)}.items():
            scaling = abc.transfer(role, 4, optimizer=optimizer)
            np.testing.assert_allclose(scaling[:3], row)
            np.testing.assert_allclose(scaling.learning_rate * scaling.weight_decay, 1)
            np.testing.assert_array_equal(abc.transfer(role, 1, optimizer=optimizer), 1)


def test_transfer_is_traced_in_the_ratio():
    ratios = jnp.array([1.0, 2.0, 4.0])
    many = jax.jit(jax.vmap(lambda ratio: abc.transfer("hidden", ratio, optimizer="adam")))(ratios)
    np.testing.assert_allclose(many.learning_rate, 1 / ratios)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"depth=0: give a whole number >= 1"):
        abc.mup(0)
    with pytest.raises(ValueError, match=r"a has shape \(3,\), b \(2,\), c \(\): give \(layers,\), \(layers,\) and"):
        abc.regime(abc.Parametrisation(jnp.zeros(3), jnp.zeros(2), 0.0))
    with pytest.raises(ValueError, match=r"layers >= 2; jax\.vmap over many"):
        jax.jit(abc.feature_exponent)(abc.Parametrisation(jnp.zeros(1), jnp.zeros(1), 0.0))
    for wrong, message in [
        ({"role": "output"}, r"role='output': give one of input, hidden, readout, bias, fixed"),
        ({"optimizer": "lion"}, r"optimizer='lion': give one of sgd, adam"),
    ]:
        with pytest.raises(ValueError, match=message):
            abc.transfer(**{"role": "input", "ratio": 2.0, "optimizer": "sgd"} | wrong)


@pytest.mark.usefixtures("untyped")
def test_lists_are_exponents():
    given = abc.Parametrisation([0.0, 0.5, 0.5], [0.0, 0.0, 0.0], 0.0)
    assert abc.REGIMES[int(abc.regime(given))] == "kernel"
