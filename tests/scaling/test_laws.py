"""Every law beside a formula written anew, and found again from losses that it made itself."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import theorysim.scaling as sc
from theorysim.scaling.laws import broken_law

RANGES = {
    "n": (1e7, 3e10),
    "d": (1e9, 1e12),
    "unique": (1e8, 1e11),
    "c": (1e17, 1e22),
    "s": (3e3, 1e6),
    "b": (3e4, 1e7),
    "x": (1e5, 3e10),
    "experts": (1.0, 512.0),
    "k": (1.0, 300.0),
}
CHINCHILLA = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
VALUES = {
    "hestness": {"a": 20.0, "b": -0.25, "c": 1.5},
    "kaplan_n": {"Nc": 8.8e13, "alpha": 0.076},
    "kaplan_d": {"Dc": 5.4e13, "alpha": 0.095},
    "kaplan_c": {"Cc": 2e28, "alpha": 0.05},
    "kaplan_nd": {"Nc": 6.4e13, "Dc": 1.8e13, "alpha_n": 0.076, "alpha_d": 0.103},
    "kaplan_ns": {"Nc": 6.5e13, "Sc": 2.1e3, "alpha_n": 0.077, "alpha_s": 0.76},
    "su": {"Nc": 1.5e14, "Sc": 2.6e3, "Bc": 1.7e8, "alpha_n": 0.076, "alpha_s": 0.67, "alpha_b": 0.205},
    "henighan": {"E": 2.0, "x0": 5.1e3, "alpha": 0.16},
    "chinchilla": CHINCHILLA,
    "muennighoff": {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.36, "R_n": 5.31, "R_d": 15.4},
    "gadre": {"E": 1.8, "a": 150.0, "b": 120.0, "eta": 0.121},
    "crossing": {"E": 1.5, "A1": 900.0, "A2": 6000.0, "alpha1": 0.15, "alpha2": 0.2},
    "broken": {"a": 0.5, "b": 30.0, "c0": 0.2, "d1": 1e8, "f1": 0.3, "c1": 0.2},
    "m1": {"b": 30.0, "c": 0.2},
    "m2": {"b": 30.0, "c": 0.2, "E": 0.7},
    "m3": {"b": 30.0, "c": 0.2, "gamma": 3e-9},
    "m4": {"b": 200.0, "c": 0.3, "E": 0.2, "E0": 2.0, "alpha": 0.8},
    "routed": {"a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.847, "E_max": 314.5},
    "sparse": {
        **{"A": 16612.5, "B": 5455.67, "C": 0.4598, "D": 17.26, "E": 0.94},
        **{"alpha": 0.5962, "beta": 0.3954, "lam": -0.1666, "delta": 0.1603, "gamma": 0.1595},
    },
    "pass_rate": {"c": 400.0, "alpha": 0.27},
    "resampling": {"ceiling": 0.7, "rate": 0.02},
}


def inputs_of(law, runs=300):
    rng = np.random.default_rng(0)
    inputs = {}
    for name in law.inputs:
        if name == "method":
            inputs[name] = rng.integers(1, 3, runs).astype(float)
        elif name == "sparsity":
            inputs[name] = rng.uniform(0, 0.97, runs)
        else:
            inputs[name] = np.exp(rng.uniform(*np.log(RANGES[name]), runs))
    return inputs


# Each law is a program of its own to compile.
FAST = {"chinchilla", "muennighoff", "broken", "m4"}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in VALUES]
)
def test_a_law_is_found_again_from_its_own_losses(name):
    law = sc.LAWS[name]
    inputs = inputs_of(law)
    noise = 1e-3 * np.random.default_rng(1).standard_normal(300)
    fit = sc.fit(law, {**inputs, "loss": np.asarray(law(**inputs, **VALUES[name])) * np.exp(noise)}, starts=16)
    assert fit.converged
    assert fit.rank == len(law.parameters)
    # The noise is Gaussian and the law nearly linear within it: the misfit has a chi^2 of as many degrees of freedom
    # as parameters, up to the efficiency of the robust objective (0.9).
    point = law.point(VALUES[name], fit.problem.log_scale)
    distance = np.asarray(fit.point - point) @ np.linalg.solve(sc.sandwich(fit).covariance, fit.point - point)
    assert distance < len(point) + 5 * math.sqrt(2 * len(point))


def test_every_published_law_is_tested():
    assert set(VALUES) | {"broken2"} == set(sc.LAWS)
    for law in sc.LAWS.values():
        if not law.name.startswith("broken"):
            assert set(inspect.signature(law.fn).parameters) == set(law.inputs) | set(law.parameters)


def by_hand(name, p, x):
    """Each law once more, one run at a time, in powers and roots of numbers."""
    if name == "hestness":
        return p["a"] * x["d"] ** p["b"] + p["c"]
    if name.startswith("kaplan_") and name[-1] in "ndc" and len(name) == 8:
        scale = p[name[-1].upper() + "c"]
        return (scale / x[name[-1]]) ** p["alpha"]
    if name == "kaplan_nd":
        return ((p["Nc"] / x["n"]) ** (p["alpha_n"] / p["alpha_d"]) + p["Dc"] / x["d"]) ** p["alpha_d"]
    if name == "kaplan_ns":
        return (p["Nc"] / x["n"]) ** p["alpha_n"] + (p["Sc"] / x["s"]) ** p["alpha_s"]
    if name == "su":

        def excess(loss):
            critical = p["Bc"] / loss ** (1 / p["alpha_b"])
            enough = x["s"] / (1 + critical / x["b"])
            return (p["Nc"] / x["n"]) ** p["alpha_n"] + (p["Sc"] / enough) ** p["alpha_s"] - loss

        return brentq(excess, 1e-2, 1e3, xtol=1e-14, rtol=1e-14)
    if name == "pass_rate":
        return math.exp(-p["c"] * x["n"] ** -p["alpha"])
    if name == "resampling":
        return p["ceiling"] * (1 - math.exp(-p["rate"]) ** x["k"])
    if name == "henighan":
        return p["E"] + (p["x0"] / x["x"]) ** p["alpha"]
    if name == "chinchilla":
        return p["E"] + p["A"] / x["n"] ** p["alpha"] + p["B"] / x["d"] ** p["beta"]
    if name == "gadre":
        m, c = x["d"] / x["n"], 6 * x["n"] * x["d"]
        return p["E"] + (p["a"] * m ** p["eta"] + p["b"] * m ** -p["eta"]) * c ** -p["eta"]
    if name == "crossing":
        i = int(x["method"])
        return p["E"] + p[f"A{i}"] * x["c"] ** -p[f"alpha{i}"]
    if name == "broken":
        bend = (1 + (x["x"] / p["d1"]) ** (1 / p["f1"])) ** (-p["c1"] * p["f1"])
        return p["a"] + p["b"] * x["x"] ** -p["c0"] * bend
    if name == "m1":
        return p["b"] * x["x"] ** -p["c"]
    if name == "m2":
        return p["b"] * x["x"] ** -p["c"] + p["E"]
    if name == "m3":
        return p["b"] * (1 / x["x"] + p["gamma"]) ** p["c"]
    if name == "m4":

        def excess(loss):
            return (loss - p["E"]) - p["b"] * x["x"] ** -p["c"] * (p["E0"] - loss) ** p["alpha"]

        return brentq(excess, p["E"], p["E0"], xtol=1e-15, rtol=1e-15)
    if name == "routed":
        hat = 1 / (1 / (x["experts"] - 1 + 1 / (1 / p["E_start"] - 1 / p["E_max"])) + 1 / p["E_max"])
        log_n, log_e = math.log10(x["n"]), math.log10(hat)
        return 10 ** (p["a"] * log_n + p["b"] * log_e + p["c"] * log_n * log_e + p["d"])
    if name == "sparse":
        active = 1 - x["sparsity"]
        dense = p["A"] * x["n"] ** -p["alpha"] + p["B"] * x["d"] ** -p["beta"] + p["E"]
        mixed = p["D"] * active ** -p["delta"] * x["n"] ** -p["gamma"]
        return dense + p["C"] * active ** -p["lam"] + mixed
    unique = min(x["unique"], x["d"])
    alpha, beta = p["alpha"], p["beta"]
    # The compute whose optimal data are the unique tokens, by a search, instead of the closed form.
    log_budget = brentq(
        lambda log_c: float(sc.chinchilla_frontier(p, math.exp(log_c)).d) - unique, math.log(1e10), math.log(1e35)
    )
    best = min(x["n"], float(sc.chinchilla_frontier(p, math.exp(log_budget)).n))
    n = best + best * p["R_n"] * (1 - math.exp(-max(x["n"] / best - 1, 0) / p["R_n"]))
    d = unique + unique * p["R_d"] * (1 - math.exp(-max(x["d"] / unique - 1, 0) / p["R_d"]))
    return p["E"] + p["A"] / n**alpha + p["B"] / d**beta


@pytest.mark.parametrize("name", VALUES)
def test_a_law_is_its_formula(name):
    law = sc.LAWS[name]
    inputs = inputs_of(law, runs=20)
    found = np.asarray(law(**inputs, **VALUES[name]))
    expected = [by_hand(name, VALUES[name], {key: float(v[i]) for key, v in inputs.items()}) for i in range(20)]
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["su", "m4"])
def test_first_and_second_derivatives_of_implicit_laws(name):
    law = sc.LAWS[name]
    inputs = {key: jnp.asarray(values) for key, values in inputs_of(law, runs=5).items()}
    point = law.point(VALUES[name], {unit: jnp.zeros(()) for unit in law.units})

    def total(point):
        return jnp.log(law.fn(**inputs, **law.values(point, {unit: jnp.zeros(()) for unit in law.units}))).sum()

    step = 1e-4 * jnp.asarray(np.random.default_rng(0).standard_normal(len(point)))
    first = (total(point + step) - total(point - step)) / 2
    second = (jax.grad(total)(point + step) - jax.grad(total)(point - step)) / 2
    np.testing.assert_allclose(jax.grad(total)(point) @ step, first, rtol=1e-6)
    np.testing.assert_allclose(jax.hessian(total)(point) @ step, second, rtol=1e-5, atol=1e-12)


def test_repeated_tokens_at_the_published_checks():
    """Values of the datablations notebook's constants (arXiv:2305.16264), recomputed for the specification."""
    log_e, log_a, log_b, alpha = 0.6254804, 6.255414, 7.3049974, 0.3526596
    values = {"E": math.exp(log_e), "A": math.exp(log_a), "B": math.exp(log_b), "alpha": alpha, "beta": alpha}
    values |= {"R_n": 5.309743, "R_d": 15.387756}
    n, d = np.array([6.34e9, 8.67e9]), np.array([242e9, 178e9])
    loss = sc.LAWS["muennighoff"](n=n, d=d, unique=np.full(2, 25e9), **values)
    np.testing.assert_allclose(loss, [2.2256440890, 2.2269634075], rtol=1e-9)


@pytest.mark.slow
def test_a_second_break_is_found():
    law = broken_law(2)
    x = np.geomspace(1e4, 1e11, 300)
    values = {"a": 0.5, "b": 30.0, "c0": 0.2, "d1": 3e6, "f1": 0.3, "c1": -0.15, "d2": 1e9, "f2": 0.3, "c2": 0.3}
    loss = np.asarray(law(x=x, **values))
    fit = sc.fit(law, {"x": x, "loss": loss})
    assert np.abs(fit.residuals).max() < 1e-5
    found = sorted([fit.parameters["d1"], fit.parameters["d2"]])
    np.testing.assert_allclose(found, [3e6, 1e9], rtol=1e-2)


@pytest.mark.parametrize(("name", "solved"), [("chinchilla", "d"), ("kaplan_nd", "n"), ("su", "s")])
def test_inverse(name, solved):
    law = sc.LAWS[name]
    inputs = {key: float(values[0]) for key, values in inputs_of(law).items()}
    loss = float(law(**{key: jnp.asarray(value) for key, value in inputs.items()}, **VALUES[name]))
    given = {**inputs, **VALUES[name]}
    del given[solved]
    given = {key: jnp.asarray(value) for key, value in given.items()}
    inverse = jax.jit(lambda loss: sc.invert(law, solved, loss, **given))
    np.testing.assert_allclose(inverse(loss), inputs[solved], rtol=1e-9)
    step = 1e-5 * loss
    ends = [inverse(loss + sign * step) for sign in (1, -1)]
    slope = jax.grad(inverse)(loss)
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


def test_an_unreachable_loss_has_no_input():
    assert jnp.isnan(sc.invert(sc.LAWS["chinchilla"], "d", 1.0, n=jnp.asarray(1e9), **CHINCHILLA))


def test_bad_calls_are_named():
    law = sc.LAWS["chinchilla"]
    with pytest.raises(ValueError, match=r"chinchilla: missing \[.d., .E.\], unknown \['tokens'\]"):
        law(n=1e9, tokens=1e10, A=1.0, B=1.0, alpha=0.3, beta=0.3)
    with pytest.raises(ValueError, match=r"name='x': chinchilla has the inputs \['n', 'd'\]"):
        sc.invert(law, "x", 2.0)
    with pytest.raises(ValueError, match=r"Parameter\(2, 1\): give positive low < high"):
        sc.Parameter(2, 1)
