"""Fits of planted surfaces: the optimum beside scipy's, what certifies it, and what is refused."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares as scipy_least_squares
from scipy.optimize import linprog

import theorysim.scaling as sc
from theorysim.scaling.minimise import Residuals, advance, begin

TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def surface(seed, runs=240, outliers=0.02):
    """Chinchilla-like runs: Student-t residuals of 0.4 %, and a few runs that went wrong."""
    rng = np.random.default_rng(seed)
    compute = 10 ** rng.uniform(18.5, 21.7, runs)
    d = np.sqrt(compute / 6 * np.exp(rng.uniform(0, np.log(400), runs)))
    n = compute / 6 / d
    residual = 0.004 * rng.standard_t(2.5, runs)
    residual += (rng.uniform(size=runs) < outliers) * rng.uniform(0.03, 0.15, runs)
    return {"n": n, "d": d, "loss": np.asarray(sc.LAWS["chinchilla"](n=n, d=d, **TRUTH)) * np.exp(residual)}


@pytest.fixture(scope="module")
def runs():
    return surface(0)


@pytest.fixture(scope="module")
def fit(runs):
    return sc.fit("chinchilla", runs)


def residuals(point, runs):
    """Of log losses, at log E, log A, log B, alpha, beta."""
    e, a, b, alpha, beta = point
    terms = [np.full(len(runs["n"]), e), a - alpha * np.log(runs["n"]), b - beta * np.log(runs["d"])]
    return np.log(runs["loss"]) - np.logaddexp.reduce(terms, axis=0)


def huber(r, delta=1e-3):
    size = np.abs(r)
    return np.where(size <= delta, r**2 / 2, delta * (size - delta / 2)).sum()


def scipy_optimum(runs, point, delta=1e-3):
    """The best of ten starts about the point, by scipy's trust region on the same objective, in its own coordinates."""
    # Scales at the middle of the data: raw logarithms of A and B hold hands with the exponents.
    mean_n, mean_d = np.log(runs["n"]).mean(), np.log(runs["d"]).mean()

    def raw(z):
        return np.array([z[0], z[1] + z[3] * mean_n, z[2] + z[4] * mean_d, z[3], z[4]])

    rng = np.random.default_rng(3)
    ends = [
        scipy_least_squares(
            lambda z: residuals(raw(z), runs) / delta,
            np.array([0.5, -1.0, -1.0, 0.35, 0.35]) + rng.uniform(-0.1, 0.1, 5),
            loss="huber",
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        for _ in range(10)
    ]
    return min(huber(residuals(raw(end.x), runs), delta) for end in ends)


def log_point(parameters):
    return np.array(
        [*np.log([parameters["E"], parameters["A"], parameters["B"]]), parameters["alpha"], parameters["beta"]]
    )


def test_the_optimum_is_scipys_or_better(runs, fit):
    assert fit.converged
    assert fit.gradient_norm < 1e-6
    assert fit.basin_share == 1
    assert fit.rank == 5
    np.testing.assert_allclose(fit.value, huber(residuals(log_point(fit.parameters), runs)), rtol=1e-12)
    assert fit.value < scipy_optimum(runs, fit.parameters) * (1 + 1e-9)


def test_least_absolute_deviations_are_a_linear_programs(runs):
    """A sequence of linear programs in a shrinking box, started elsewhere, ends in the same point."""
    fit = sc.fit("chinchilla", runs, objective=sc.least_absolute())
    point, radius = log_point(TRUTH), 0.1
    step = 1e-7
    for _ in range(60):
        r = residuals(point, runs)
        jacobian = np.stack(
            [(residuals(point + e, runs) - residuals(point - e, runs)) / (2 * step) for e in step * np.eye(5)], 1
        )
        count = len(r)
        cost = np.r_[np.zeros(5), np.ones(count)]
        upper = np.block([[jacobian, -np.eye(count)], [-jacobian, -np.eye(count)]])
        bounds = [(-radius * s, radius * s) for s in (0.1, 1, 1, 0.05, 0.05)] + [(0, None)] * count
        move = linprog(cost, A_ub=upper, b_ub=np.r_[-r, r], bounds=bounds).x[:5]
        if np.abs(residuals(point + move, runs)).sum() < np.abs(r).sum():
            point = point + move
        else:
            radius /= 3
        if radius < 1e-10:
            break
    best = np.abs(residuals(point, runs)).sum()
    found = np.abs(fit.residuals).sum()
    assert abs(found / best - 1) < 2e-6  # five residuals within the knee of 1e-7 of their zero
    np.testing.assert_allclose(fit.parameters["alpha"], point[3], rtol=1e-4)


def test_least_squares_are_scipys(runs):
    fit = sc.fit("chinchilla", runs, objective=sc.least_squares())
    assert fit.value < scipy_optimum(runs, fit.parameters, delta=1e3) * (1 + 1e-9)


def test_overestimates_weigh_more_as_often_as_they_are_there(runs):
    """Runs whose prediction is too high counted three times, by hand, have the same optimum."""
    fit = sc.fit("chinchilla", runs, objective=sc.huber(overestimate=3.0))
    weights = np.where(fit.residuals < 0, 3.0, 1.0)
    again = sc.fit("chinchilla", runs, weights=weights)
    np.testing.assert_allclose(again.point, fit.point, atol=1e-7)
    assert (fit.residuals > 0).mean() > 0.7


def test_units_and_order_of_runs_do_not_matter(runs, fit):
    order = np.random.default_rng(0).permutation(240)
    scaled = {"n": 1e-3 * runs["n"][order], "d": 1e3 * runs["d"][order], "loss": runs["loss"][order] / np.log(2)}
    again = sc.fit("chinchilla", scaled)
    p, q = fit.parameters, again.parameters
    np.testing.assert_allclose([q["alpha"], q["beta"]], [p["alpha"], p["beta"]], rtol=1e-7)
    np.testing.assert_allclose(q["E"], p["E"] / np.log(2), rtol=1e-8)
    np.testing.assert_allclose(q["A"], p["A"] / np.log(2) * 1e-3 ** p["alpha"], rtol=1e-6)


def test_starts_and_fixed_parameters_in_the_users_units(runs, fit):
    starts = {name: np.array([value, 1.3 * value]) for name, value in TRUTH.items()}
    again = sc.fit("chinchilla", runs, starts=starts)
    np.testing.assert_allclose(again.value, fit.value, rtol=1e-10)
    fixed = sc.fit("chinchilla", runs, fixed={"A": fit.parameters["A"], "alpha": fit.parameters["alpha"]})
    np.testing.assert_allclose(fixed.value, fit.value, rtol=1e-10)
    assert fixed.rank == 3
    np.testing.assert_allclose(fixed.parameters["A"], fit.parameters["A"], rtol=1e-12)


def test_coefficients_need_no_starts(runs, fit):
    """The 25 pairs of exponents of the published grid, 0 to 2: with coefficients of the data's size, all arrive."""
    alpha, beta = (grid.ravel() for grid in np.meshgrid(np.arange(0, 2.1, 0.5), np.arange(0, 2.1, 0.5)))
    again = sc.fit("chinchilla", runs, starts={"alpha": alpha, "beta": beta})
    np.testing.assert_allclose(again.value, fit.value, rtol=1e-10)
    assert again.basin_share == 1


def test_starts_from_far_away_arrive(runs, fit):
    """Every 45th of the 4500 published starts (arXiv:2203.15556, appendix D.3)."""
    grid = np.arange(-1, 1.1, 0.5), np.arange(0, 26, 5.0), np.arange(0, 26, 5.0), *2 * [np.arange(0, 2.1, 0.5)]
    e, a, b, alpha, beta = np.stack([axis.ravel() for axis in np.meshgrid(*grid)])[:, ::45]
    starts = {"E": np.exp(e), "A": np.exp(a), "B": np.exp(b), "alpha": alpha, "beta": beta}
    again = sc.fit("chinchilla", runs, starts=starts)
    np.testing.assert_allclose(again.value, fit.value, rtol=1e-10)
    assert again.basin_share > 0.9


def test_a_users_own_function_is_fitted_the_same_way(runs, fit):
    mine = sc.Law(
        "mine",
        lambda n, d, E, A, B, alpha, beta: E + A / n**alpha + B / d**beta,
        {"n": "n", "d": "d"},
        {
            "E": sc.Parameter(0.1, 3.0),
            "A": sc.Parameter(10.0, 1e4),
            "B": sc.Parameter(10.0, 1e4),
            "alpha": sc.Parameter(0.1, 0.8, positive=False),
            "beta": sc.Parameter(0.1, 0.8, positive=False),
        },
    )
    own = sc.fit(mine, runs)
    np.testing.assert_allclose(own.value, fit.value, rtol=1e-9)
    np.testing.assert_allclose(own(n=1e9, d=2e10), fit(n=1e9, d=2e10), rtol=1e-8)


def test_one_program_serves_all_fits_of_one_size(runs):
    law, traces = sc.LAWS["chinchilla"], []

    def counted(**values):
        traces.append(None)
        return law.fn(**values)

    counting = sc.Law("counting", counted, law.inputs, law.parameters)
    first = sc.fit(counting, runs)
    seen = len(traces)
    sc.fit(counting, surface(1), objective=sc.huber(1e-2))
    sc.bootstrap(first, key=jax.random.key(0), samples=100)
    # Units are checked, residuals and predictions of the result evaluated once a fit, and nothing is compiled again.
    assert len(traces) - seen <= 6


def test_a_law_whose_parameters_lack_their_units_is_refused(runs):
    """Its fit would hold in the units of the data alone."""
    law = sc.Law(
        "mine",
        lambda n, d, E, A, a, b: E + A * n**-a * d**-b,
        {"n": "n", "d": "d"},
        {
            "E": sc.Parameter(0.1, 3.0, {"loss": 1}),
            "A": sc.Parameter(0.1, 10.0, {"n": lambda values: values["a"], "d": lambda values: values["b"]}),
            "a": sc.Parameter(0.1, 0.8, positive=False),
            "b": sc.Parameter(0.1, 0.8, positive=False),
        },
    )
    with pytest.raises(sc.RunsError, match=r"mine: in other units of .*'loss'.* give each Parameter the powers"):
        sc.fit(law, runs)


def test_a_start_that_is_not_finite_is_a_nan_and_no_minimum():
    x = jnp.linspace(1.0, 2.0, 20)

    def log_prediction(z):
        return jnp.log(z[0] * x)

    one, ones = jnp.ones(1), jnp.ones(20)
    end = advance(
        Residuals(log_prediction, jnp.log(2 * x), ones, sc.huber(), free=one, reach=one), begin(-one), iterations=300
    )
    assert jnp.isnan(end.value)
    assert not end.converged


@pytest.mark.slow
def test_the_global_optimum_of_a_thousand_surfaces():
    """The fit a user calls, beside four times as many starts elsewhere: within 1e-9 on 1000 of 1000."""
    gradients = []
    for seed in range(1000):
        runs = surface(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit = sc.fit("chinchilla", runs)
        rng = np.random.default_rng(seed)
        starts = {
            "E": rng.uniform(0.3, 2.2, 256),
            "alpha": rng.uniform(0.1, 1.2, 256),
            "beta": rng.uniform(0.1, 1.2, 256),
        }
        starts["A"] = rng.uniform(0.1, 2.0, 256) * np.exp(starts["alpha"] * np.log(runs["n"]).mean())
        starts["B"] = rng.uniform(0.1, 2.0, 256) * np.exp(starts["beta"] * np.log(runs["d"]).mean())
        other = sc.fit("chinchilla", runs, starts=starts)
        assert fit.value < other.value * (1 + 1e-9), seed
        gradients.append(fit.gradient_norm)
    assert max(gradients) < 1e-4


def changed(runs, **columns):
    return {**runs, **columns}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"loss": None}, r"runs lack \['loss'\]: chinchilla needs the columns \['n', 'd', 'loss'\]"),
        ({"n": -1.0}, r"n holds 1 values that are not positive and finite, the first in run 7: -1.0: drop or repair"),
        ({"loss": np.nan}, r"loss holds 1 values that are not positive and finite, the first in run 7: nan"),
    ],
)
def test_unfit_columns_are_refused(runs, columns, message):
    table = dict(runs)
    for name, value in columns.items():
        if value is None:
            del table[name]
        else:
            table[name] = runs[name].copy()
            table[name][7] = value
    with pytest.raises(sc.RunsError, match=message):
        sc.fit("chinchilla", table)


def test_too_few_runs_are_refused(runs):
    few = {name: column[:5] for name, column in runs.items()}
    with pytest.raises(sc.RunsError, match=r"5 runs for 5 free parameters of chinchilla: give at least 6, or fix"):
        sc.fit("chinchilla", few)


def test_a_single_size_is_refused(runs):
    with pytest.raises(sc.UnidentifiedError, match=r"n is 1e\+08 in all runs: the term of A .* another n") as caught:
        sc.fit("chinchilla", changed(runs, n=np.full(240, 1e8)))
    assert set(caught.value.direction) == {"A"}


def test_a_ray_is_refused(runs):
    with pytest.raises(sc.UnidentifiedError, match=r"all runs have the same ratio d / n = 20: .* at another ratio"):
        sc.fit("chinchilla", changed(runs, d=20 * runs["n"]))


def test_an_isoflop_line_is_refused(runs):
    with pytest.raises(sc.UnidentifiedError, match=r"the same product d \* n = 1e\+20"):
        sc.fit("chinchilla", changed(runs, d=1e20 / runs["n"]))


def test_an_open_direction_is_named_with_the_run_that_would_settle_it(runs):
    """Two parameters that only occur as a product."""
    product = sc.Law(
        "product",
        lambda n, A, B, alpha: A * B * n**-alpha,
        {"n": "n"},
        {
            "A": sc.Parameter(0.1, 10.0, {"loss": 1}),
            "B": sc.Parameter(0.1, 10.0, {"n": lambda values: values["alpha"]}),
            "alpha": sc.Parameter(0.05, 1.0, positive=False),
        },
    )
    with pytest.raises(
        sc.UnidentifiedError, match=r"leave the direction \(.*0.71 A.* B\) open.* fix a parameter"
    ) as caught:
        sc.fit(product, {"n": runs["n"], "loss": 5 * runs["n"] ** -0.1})
    assert abs(caught.value.direction["A"] + caught.value.direction["B"]) < 1e-3


def test_a_run_elsewhere_is_named_where_it_would_tell():
    """A bend that all runs lie below."""
    x = np.geomspace(1e6, 1e8, 60)
    law = sc.Law(
        "bent",
        lambda x, A, alpha, gamma, bend: A * x**-alpha * jnp.exp(-gamma * jnp.maximum(jnp.log(x / bend), 0)),
        {"x": "x"},
        {
            "A": sc.Parameter(0.3, 3.0, {"loss": 1, "x": lambda values: values["alpha"]}),
            "alpha": sc.Parameter(0.05, 1.0, positive=False),
            "gamma": sc.Parameter(0.1, 1.0, positive=False),
            "bend": sc.Parameter(10, 100, {"x": 1}),
        },
    )
    with pytest.raises(sc.UnidentifiedError, match=r"1.00 gamma\) open.*; a run at x = 1e\+09 would tell, or fix a"):
        sc.fit(law, {"x": x, "loss": 30 * x**-0.2}, fixed={"bend": 5e8})


def test_doubts_are_warned_of(runs):
    twice = {name: np.append(column, column[:3]) for name, column in runs.items()}
    with pytest.warns(sc.RunsWarning, match=r"3 runs are exact copies of others: .* drop them"):
        sc.fit("chinchilla", twice)
    with pytest.warns(sc.RunsWarning, match=r"the median d is .* tokens: is the column in millions or billions"):
        sc.fit("chinchilla", changed(runs, d=runs["d"] / 1e9))


def test_a_vanishing_term_is_warned_of(runs):
    """Losses without a floor."""
    with pytest.warns(sc.RunsWarning, match=r"E = .* vanishes: the optimum is on the border; fix E, or drop its term"):
        sc.fit("m2", {"x": runs["n"], "loss": 40 * runs["n"] ** -0.2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fixed": {"gamma": 1.0}},
            r"fixed=\['gamma'\]: chinchilla has the parameters \['E', 'A', 'B', 'alpha', 'beta'\]",
        ),
        ({"weights": np.zeros(240)}, r"weights: give one finite number >= 0 per run, not all zero"),
        ({"starts": 0}, r"starts=0: give at least one"),
        ({"starts": {"x": np.ones(2)}}, r"starts=\['x'\]: give arrays for some of \['E', 'A', 'B', 'alpha', 'beta'\]"),
    ],
)
def test_bad_options_are_refused(runs, options, message):
    with pytest.raises(sc.RunsError, match=message):
        sc.fit("chinchilla", runs, **options)


def test_an_unknown_law_is_refused(runs):
    with pytest.raises(sc.RunsError, match=r"law='chincilla': theorysim knows hestness, .*; or pass a Law of your own"):
        sc.fit("chincilla", runs)
