"""Laws of schedules beside loops over steps, published constants beside published runs, and the best schedule."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import theorysim.scaling as sc
from theorysim.scaling import schedule

ANNEALING = {"L0": 2.6, "A": 0.5, "alpha": 0.5, "C": 0.9, "memory": 40.0}
MULTI_POWER = {"L0": 2.4, "A": 0.6, "alpha": 0.45, "B": 40.0, "C": 2.0, "beta": 0.6, "gamma": 0.6}
PEAK = 0.01
SCHEDULES = {
    "constant": schedule.constant(PEAK, 300, warm_up=20),
    "cosine": schedule.cosine(PEAK, 300, final=1e-3, warm_up=20),
    "linear": schedule.stable_decay(PEAK, 300, decay=60),
    "sqrt": schedule.stable_decay(PEAK, 300, decay=60, shape=schedule.one_minus_sqrt, warm_up=20),
    "two stages": schedule.two_stage(PEAK, 0.003, 300, switch=150),
    "rising again": schedule.two_stage(PEAK, 0.009, 300, switch=150).at[100:150].set(0.002),
    "to zero and back": schedule.constant(PEAK, 300).at[50:60].set(0.0),
}
STEPS = np.array([1, 2, 20, 21, 55, 151, 290, 300])


def annealing_by_hand(rates, step, p, count_warm_up):
    """The recursion of the paper, in steps from 1."""
    eta = dict(enumerate(map(float, rates), start=1))
    eta[0] = 0.0
    last = 0 if count_warm_up else max(eta, key=lambda i: (eta[i], -i))
    lam, m, s2 = 1 - 1 / p["memory"], 0.0, 0.0
    for i in range(1, step + 1):
        m = lam * m + (eta[i - 1] - eta[i] if i > last else 0.0)
        s2 += m
    return p["L0"] + p["A"] * sum(eta[i] for i in range(step + 1)) ** -p["alpha"] - p["C"] * s2


def multi_power_by_hand(rates, step, p, count_warm_up):
    """The sum of the paper, in steps from 0."""
    eta, t = [float(rate) for rate in rates], step - 1
    total = 0.0
    first = 1 if count_warm_up else eta.index(max(eta)) + 1
    for k in range(first, t + 1):
        area = sum(eta[k : t + 1])
        if area == 0:
            continue
        u = math.inf if eta[k] == 0 else eta[k] ** -p["gamma"] * area
        total += (eta[k - 1] - eta[k]) * (1 - (1 + p["C"] * u) ** -p["beta"])
    return p["L0"] + p["A"] * sum(eta[: t + 1]) ** -p["alpha"] - p["B"] * total


# One program for each number of steps, where eager ones would be dozens.
annealing, multi_power = (
    jax.jit(law, static_argnames="count_warm_up") for law in (schedule.annealing, schedule.multi_power)
)
LAWS = {
    "annealing": (annealing, annealing_by_hand, ANNEALING),
    "multi_power": (multi_power, multi_power_by_hand, MULTI_POWER),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count_warm_up", [True, False])
def test_a_law_is_its_sum_over_steps(law, count_warm_up):
    fast, by_hand, values = LAWS[law]
    for name, rates in SCHEDULES.items():
        expected = [by_hand(rates, int(step), values, count_warm_up) for step in STEPS]
        np.testing.assert_allclose(
            fast(rates, STEPS, **values, count_warm_up=count_warm_up), expected, rtol=1e-12, err_msg=name
        )


def test_the_size_adds_its_power():
    rates = SCHEDULES["cosine"]
    sized = annealing(rates, STEPS, **ANNEALING, n=1e6, B=30.0, beta=0.3)
    alone = annealing(rates, STEPS, **ANNEALING)
    np.testing.assert_allclose(sized - alone, 30 * 1e6**-0.3, rtol=1e-12)


def test_a_warm_up_that_counts_makes_the_annealing_negative():
    """-.236 after 1600 steps of 3e-4, 100 of them warm-up, with lam = .999: a number of the specification."""
    rates = schedule.constant(3e-4, 1600, warm_up=100)
    area = jax.jit(schedule.annealed_area, static_argnames="count_warm_up")
    assert abs(area(rates, 1000.0, count_warm_up=True)[-1] + 0.236) < 5e-4
    np.testing.assert_array_equal(area(rates, 1000.0), 0)


@pytest.mark.parametrize("law", LAWS)
def test_gradients_are_finite_differences(law):
    fast, _, values = LAWS[law]
    rates = schedule.stable_decay(PEAK, 300, decay=280, warm_up=20)
    direction = (jnp.asarray(np.random.default_rng(0).uniform(-1, 1, 300)) * rates).at[:21].set(0)  # the peak stays

    def final(rates, values):
        return fast(rates, np.array([300]), **values)[0]

    step = 1e-5
    by_rates, by_values = jax.jit(jax.grad(final, argnums=(0, 1)))(rates, values)
    numeric = (final(rates + step * direction, values) - final(rates - step * direction, values)) / (2 * step)
    np.testing.assert_allclose(by_rates @ direction, numeric, rtol=1e-7)
    for name, value in values.items():
        above, below = (final(rates, {**values, name: value * (1 + sign * step)}) for sign in (1, -1))
        np.testing.assert_allclose(by_values[name], (above - below) / (2 * step * value), rtol=1e-7)


@pytest.mark.parametrize("law", LAWS)
def test_second_derivatives_of_a_law_to_fit_are_finite_differences(law):
    """Of what `fit` differentiates: the sum over drops put together."""
    _, _, values = LAWS[law]
    steps = np.arange(30, 301, 30)
    made, runs = schedule.law_of(
        schedule.LAWS[law], [schedule.Curve(np.asarray(SCHEDULES["cosine"]), steps, np.ones(10))]
    )
    inputs = {name: jnp.asarray(runs[name]) for name in made.inputs}
    none = {unit: jnp.zeros(()) for unit in made.units}
    point = made.point(values, none)

    @jax.jit
    def total(point):
        return jnp.log(made.fn(**inputs, **made.values(point, none))).sum()

    slope = jax.jit(jax.grad(total))
    step = 1e-4 * jnp.asarray(np.random.default_rng(0).standard_normal(len(point)))
    np.testing.assert_allclose(slope(point) @ step, (total(point + step) - total(point - step)) / 2, rtol=1e-6)
    second = (slope(point + step) - slope(point - step)) / 2
    np.testing.assert_allclose(jax.jit(jax.hessian(total))(point) @ step, second, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("law", LAWS)
def test_the_registry_holds_the_law_and_its_inverse(law):
    fast, _, values = LAWS[law]
    rates, registered = SCHEDULES["cosine"], schedule.LAWS[law]
    losses = fast(rates, np.arange(1, 301), **values)
    found = jax.jit(lambda values: registered(rates=rates, steps=np.arange(1, 301), **values))(values)
    np.testing.assert_array_equal(found, losses)

    @jax.jit
    def inverse(loss):
        return schedule.steps_to_loss(registered, rates, loss, **values)

    assert inverse(losses[149]) == pytest.approx(150, abs=1e-9)
    middle = (losses[149] + losses[150]) / 2
    assert inverse(middle) == pytest.approx(150.5, abs=1e-9)
    assert jax.grad(inverse)(middle) == pytest.approx(float(1 / (losses[150] - losses[149])), rel=1e-9)
    assert inverse(losses[0] + 1) == 1
    assert jnp.isnan(inverse(losses.min() - 0.01))
    with pytest.raises(sc.RunsError, match=rf"law='{law}' is a law of schedules: fit what schedule.law_of\("):
        sc.fit(law, {"loss": losses})


@pytest.mark.parametrize("law", LAWS)
def test_a_drop_earns_more_the_longer_ago(law):
    """At equal S1: the drop's part of the loss only grows with time, up to a limit."""
    fast, _, values = LAWS[law]
    rates = schedule.two_stage(PEAK, 0.003, 4000, switch=100)
    steps = np.arange(100, 4001)
    s1 = np.cumsum(np.asarray(rates))[steps - 1]
    earned = values["L0"] + values["A"] * s1 ** -values["alpha"] - np.asarray(fast(rates, steps, **values))
    assert (np.diff(earned) > -1e-14).all()
    most = 0.007 * (values["C"] * values["memory"] if law == "annealing" else values["B"])
    assert 0.7 * most < earned[-1] < most * (1 + 1e-9)


def test_a_constant_rate_is_a_power_law():
    rates = schedule.constant(PEAK, 300)
    expected = 2.4 + 0.6 * (PEAK * STEPS) ** -0.45
    np.testing.assert_allclose(multi_power(rates, STEPS, **MULTI_POWER), expected, rtol=1e-12)


def test_schedules_are_their_formulas():
    peak, length, warm_up, decay, final = 0.02, 50, 5, 12, 0.001
    common = {"final": final, "warm_up": warm_up}
    found = {
        "cosine": schedule.cosine(peak, length, **common),
        "linear": schedule.stable_decay(peak, length, decay=decay, **common),
        "sqrt": schedule.stable_decay(peak, length, decay=decay, shape=schedule.one_minus_sqrt, **common),
        "two stages": schedule.two_stage(peak, final, length, switch=30, warm_up=warm_up),
    }
    for t in range(length):
        x = (t - (length - decay)) / decay
        values = {
            "cosine": final + (peak - final) * (1 + math.cos(math.pi * (t - warm_up) / (length - warm_up))) / 2,
            "linear": peak if x < 0 else final + (peak - final) * (1 - x),
            "sqrt": peak if x < 0 else final + (peak - final) * (1 - math.sqrt(x)),
            "two stages": peak if t < 30 else final,
        }
        for name, value in values.items():
            expected = peak * (t + 1) / warm_up if t < warm_up else value
            np.testing.assert_allclose(found[name][t], expected, rtol=1e-12, err_msg=f"{name} {t}")


# Of arXiv:2503.12811, as its code's README prints them; R2 and the mean absolute error are means over six test curves.
PUBLISHED = {
    "25": ({"L0": 3.040, "A": 0.525, "alpha": 0.508, "B": 363.8, "C": 2.066, "beta": 0.583, "gamma": 0.641}, 0.00376),
    "100": ({"L0": 2.651, "A": 0.601, "alpha": 0.453, "B": 437.9, "C": 2.132, "beta": 0.598, "gamma": 0.655}, 0.00435),
}
R2 = {"25": 0.9988, "100": 0.9983}
TESTS = ("constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3", "wsdcon_18")
DATA = Path(__file__).parents[3] / "shared" / "data" / "multipowerlaw"


def published(size, name, every=1):
    """One of the paper's runs: 2160 steps of warm-up to 3e-4, and down to 3e-5."""
    table = np.genfromtxt(DATA / f"csv_{size}" / f"{name}.csv", delimiter=",", names=True)[::every]
    kind, *numbers = name.split("_")
    length = 24000 if kind == "wsdcon" else int(numbers[-1])
    t, peak, low = np.arange(length), 3e-4, 3e-5
    progress = np.clip((t - 20000) / 4000, 0, 1)
    rates = {
        "constant": np.full(length, peak),
        "cosine": low + (peak - low) * (1 + np.cos(np.pi * (t - 2160) / (length - 2160))) / 2,
        "wsd": peak * (low / peak) ** progress,
        "wsdld": peak + (low - peak) * progress,
        "wsdcon": np.where(t < 8000, peak, 1e-5 * float(numbers[0])),
    }[kind]
    rates[:2160] = np.linspace(0, peak, 2160)
    steps = table["step"].astype(int)
    np.testing.assert_allclose(rates[steps], table["lr"], rtol=1e-12)
    return schedule.Curve(rates, steps + 1, table["loss"])


@pytest.mark.skipif(not DATA.exists(), reason="the published runs are not part of theorysim")
@pytest.mark.parametrize("size", ["25", pytest.param("100", marks=pytest.mark.slow)])
def test_published_constants_at_the_published_runs(size):
    values, mean_error = PUBLISHED[size]
    curves = [published(size, name) for name in TESTS]
    misses = jax.jit(lambda curve, values: multi_power(curve.rates, curve.steps, **values) - curve.loss)
    errors = [np.asarray(misses(curve, values)) for curve in curves]

    # The constants are printed to a few digits: half a unit of the last of each, by the constant run's thinned losses.
    few = published(size, TESTS[0], every=8)
    rounded = {name: {**values, name: values[name] + (0.05 if name == "B" else 5e-4)} for name in values}
    slack = sum(np.abs(misses(few, other) - misses(few, values)).mean() for other in rounded.values())
    assert slack < 3e-3
    assert abs(np.mean([np.abs(error).mean() for error in errors]) - mean_error) < slack
    scores = [1 - np.sum(e**2) / np.sum((c.loss - c.loss.mean()) ** 2) for e, c in zip(errors, curves, strict=True)]
    assert abs(np.mean(scores) - R2[size]) < 5e-4
    without = multi_power(few.rates, few.steps, **values, count_warm_up=False) - few.loss
    assert abs(np.mean(without - misses(few, values)) + {"25": 0.11, "100": 0.13}[size]) < 5e-3


@pytest.mark.skipif(not DATA.exists(), reason="the published runs are not part of theorysim")
@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_published_runs_are_predicted_from_three_of_them(law):
    """Fitted on constant, cosine and one two-stage run of a third of the length, as in arXiv:2503.12811."""
    names = ("constant_24000", "cosine_24000", "wsdcon_9", "wsd_20000_24000", "wsdld_20000_24000")
    curves = [published("25", name, every=8) for name in names]
    make = schedule.annealing_law if law == "annealing" else schedule.multi_power_law
    made, runs = make(curves)
    train = runs["curve"] < 3
    fit = sc.fit(made, {name: column[train] for name, column in runs.items()})
    for number in (3, 4):
        held_out = runs["curve"] == number
        predicted = fit(**{name: runs[name][held_out] for name in made.inputs})
        loss = runs["loss"][held_out]
        assert 1 - np.sum((predicted - loss) ** 2) / np.sum((loss - loss.mean()) ** 2) > 0.998


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count_warm_up", [True, False])
def test_drops_put_together_keep_the_law(law, count_warm_up):
    fast, _, values = LAWS[law]
    make = schedule.annealing_law if law == "annealing" else schedule.multi_power_law
    steps = np.arange(30, 301, 10)
    curves = [schedule.Curve(np.asarray(rates), steps, np.ones(len(steps))) for rates in SCHEDULES.values()]
    made, runs = make(curves, count_warm_up=count_warm_up)
    found = jax.jit(made.fn)(**{name: jnp.asarray(runs[name]) for name in made.inputs}, **values)
    exact = [fast(rates, steps, **values, count_warm_up=count_warm_up) for rates in SCHEDULES.values()]
    most = PEAK * (values["C"] * values["memory"] if law == "annealing" else values["B"])
    np.testing.assert_allclose(found, np.concatenate(exact), rtol=0, atol=5e-6 * most)


@pytest.fixture(scope="module")
def planted():
    """Constant and cosine runs of the annealing law with noise of 0.1 %, and a decay that is held out."""
    rates = {name: np.asarray(SCHEDULES[name]) for name in ("constant", "cosine", "linear")}
    steps, rng = np.arange(30, 301, 15), np.random.default_rng(0)

    def observed(rates):
        exact = np.asarray(annealing(rates, steps, **ANNEALING))
        return schedule.Curve(rates, steps, exact * np.exp(1e-3 * rng.standard_normal(len(steps))))

    return schedule.annealing_law([observed(of) for of in rates.values()])


def test_a_planted_law_is_found_and_predicts_another_schedule(planted):
    law, runs = planted
    train = runs["curve"] < 2
    fit = sc.fit(law, {name: column[train] for name, column in runs.items()})
    assert fit.converged
    assert fit.rank == 5
    draws = sc.bootstrap(fit, key=jax.random.key(0), samples=64)
    for name, value in ANNEALING.items():
        assert abs(fit.parameters[name] - value) < 4 * draws.standard_error(name), name
    held_out = {name: runs[name][~train] for name in law.inputs}
    exact = annealing(SCHEDULES["linear"], np.arange(30, 301, 15), **ANNEALING)
    error = draws.standard_error(lambda values: law.fn(**jax.tree.map(jnp.asarray, held_out), **values))
    assert (np.abs(fit(**held_out) - exact) < 4 * error + 5e-5).all()


def test_sizes_are_fitted_where_all_curves_have_one():
    rates, steps = np.asarray(SCHEDULES["cosine"]), np.arange(30, 301, 30)
    curves = [schedule.Curve(rates, steps, np.ones(10), n=size) for size in (1e6, 1e7)]
    law, runs = schedule.annealing_law(curves)
    assert set(law.parameters) == {*ANNEALING, "B", "beta"}
    np.testing.assert_array_equal(np.unique(runs["n"]), [1e6, 1e7])


@pytest.mark.promotion
@pytest.mark.parametrize("law", LAWS)
def test_no_search_of_scipys_finds_a_better_schedule(law):
    fast, _, values = LAWS[law]
    length = 24

    def final(rates):
        return fast(rates, jnp.array([length]), **values)[0]

    best = jax.jit(lambda: schedule.optimise(final, peak=PEAK, length=length, learning_rate=1.0))()
    assert (jnp.diff(best.rates) <= 0).all()
    assert best.rates.max() <= PEAK * (1 + 1e-12)
    assert best.rates.min() >= 0
    assert 0 <= best.gap < 1e-5
    np.testing.assert_allclose(best.loss, final(best.rates), rtol=1e-12)

    # Drops as variables: all at least zero, their sum at most the peak.
    def of_drops(z):
        return final(PEAK - jnp.cumsum(z))

    both = jax.jit(jax.value_and_grad(of_drops))
    found = min(
        minimize(
            lambda z: tuple(map(np.asarray, both(z))),
            start,
            jac=True,
            method="SLSQP",
            bounds=[(0, None)] * length,
            constraints={
                "type": "ineq",
                "fun": lambda z: PEAK * (1 - 1e-6) - z.sum(),
                "jac": lambda z: -np.ones(length),
            },
            options={"maxiter": 500, "ftol": 1e-12},
        ).fun
        for start in (np.full(length, 1e-4), np.r_[np.zeros(length - 6), np.full(6, PEAK / 8)])
    )
    assert best.loss < found + best.gap


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: schedule.annealing(np.array([0.1, -0.2]), np.array([1]), **ANNEALING),
            r"rates\[1\]=-0.2: give learning rates >= 0",
        ),
        (
            lambda: schedule.multi_power(np.array([0.1, np.nan]), np.array([1]), **MULTI_POWER),
            r"rates\[1\]=nan: give learning rates >= 0",
        ),
        (
            lambda: schedule.annealing(np.ones(3), np.array([1, 4]), **ANNEALING),
            r"steps holds 4: give steps in 1, ..., 3, the schedule's",
        ),
        (
            lambda: schedule.multi_power(np.ones(3), np.array([0]), **MULTI_POWER),
            r"steps holds 0: give steps in 1, ..., 3",
        ),
        (
            lambda: schedule.annealed_area(np.zeros(0), 10.0),
            r"rates has the shape \(0,\): give one learning rate per update",
        ),
        (lambda: schedule.annealed_area(np.ones(3), 0.5), r"memory=0.5: give 1 / \(1 - lam\) >= 1 steps"),
        (lambda: schedule.constant(0.1, 0), r"length=0: give at least 1"),
        (lambda: schedule.constant(-0.1, 10), r"peak=-0.1: give a value >= 0"),
        (lambda: schedule.stable_decay(0.1, 10, decay=8, warm_up=3), r"length=10: .* warm_up \+ decay = 11"),
        (lambda: schedule.two_stage(0.1, 0.01, 10, switch=11), r"switch=11: give a step between"),
        (lambda: schedule.optimise(jnp.sum, peak=0.0, length=10), r"peak=0.0: give a value > 0"),
        (lambda: schedule.optimise(jnp.sum, peak=0.1, length=1), r"length=1: give at least 2 steps"),
        (lambda: schedule.annealing_law([]), r"curves=\[\]: give at least one Curve\(rates, steps, loss\)"),
        (
            lambda: schedule.multi_power_law([schedule.Curve(np.ones(5), np.array([1, 2]), np.ones(3))]),
            r"curve 0 has 3 losses at 2 steps: give one each",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
