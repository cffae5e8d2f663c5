"""Runs that no law should be fitted to without a word."""

import warnings

import jax
import numpy as np
import pytest

import theorysim.scaling as sc

TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def surface(count, seed=0, scale=0.003):
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(7, 9.5, count), 10 ** rng.uniform(9, 11.5, count)
    loss = np.asarray(sc.LAWS["chinchilla"](n=n, d=d, **TRUTH)) * np.exp(scale * rng.standard_normal(count))
    return {"n": n, "d": d, "loss": loss}


RUNS = surface(60)


@pytest.mark.parametrize(
    ("law", "runs", "message"),
    [
        ("chinchilla", {**RUNS, "loss": np.full(60, 2.81)}, r"loss is 2.81 in all runs, and depends on no n or d"),
        ("m2", {"x": RUNS["loss"], "loss": RUNS["loss"]}, r"x and loss are the same 60 numbers: give x a column of"),
        (
            "chinchilla",
            {**RUNS, "loss": 8 - RUNS["loss"]},
            r"the loss rises with n and d: is the column an accuracy\? Give a loss, or 1 - accuracy",
        ),
        ("m1", {"x": RUNS["n"], "loss": RUNS["n"] ** 0.1}, r"the loss rises with x"),
    ],
)
def test_losses_that_say_nothing_are_refused(law, runs, message):
    with pytest.raises(sc.RunsError, match=message):
        sc.fit(law, runs)


def test_runs_without_weight_do_not_count():
    weights = (np.arange(60) < 5).astype(float)
    with pytest.raises(sc.RunsError, match=r"5 runs for 5 free parameters of chinchilla: give at least 6"):
        sc.fit("chinchilla", RUNS, weights=weights)


def test_losses_that_rise_with_one_size_are_doubted():
    rng = np.random.default_rng(0)
    loss = 3 * RUNS["d"] ** -0.1 * RUNS["n"] ** 0.05 * np.exp(0.003 * rng.standard_normal(60))
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        sc.fit("chinchilla", {**RUNS, "loss": loss})
    assert any("the loss rises with n: is the column an accuracy" in str(doubt.message) for doubt in doubts)


def test_a_handful_of_runs_is_doubted():
    with pytest.warns(sc.RunsWarning, match=r"8 runs for 5 free parameters .* give at least 10, or fix parameters"):
        sc.fit("chinchilla", surface(8))


def test_two_samples_make_no_interval():
    x = np.geomspace(1e6, 1e9, 20)
    fit = sc.fit("m1", {"x": x, "loss": 40 * x**-0.2 * (1 + 0.01 * (-1) ** np.arange(20))}, starts=4)
    with pytest.raises(sc.RunsError, match=r"samples=2: give at least 20 for a 95% interval"):
        sc.bootstrap(fit, key=jax.random.key(0), samples=2)
    draws = sc.bootstrap(fit, key=jax.random.key(0), samples=20)
    assert draws.interval("c")[0] < 0.2 < draws.interval("c")[1]
    with pytest.raises(sc.RunsError, match=r"samples=20: give at least 100 for a 99% interval"):
        draws.interval("c", 0.99)


def sparse_curve(seed):
    """Six to twelve losses with noise of 1 to 10 %; those of odd seeds have a break."""
    rng = np.random.default_rng(seed)
    x = np.geomspace(1e6, 10 ** rng.uniform(8, 10), rng.integers(6, 13))
    noise = 10 ** rng.uniform(-2, -1)
    smooth = 0.5 + 30 * x**-0.3
    broken = 0.5 + 30 * x**-0.1 * (1 + (x / 10**7.5) ** 2) ** -0.1
    return {"x": x, "loss": (broken if seed % 2 else smooth) * np.exp(noise * rng.standard_normal(len(x)))}


def predicts(law, seeds):
    """Every curve is predicted, and a search without an end says what it runs to, or that it creeps."""
    for seed in seeds:
        runs = sparse_curve(seed)
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always")
            fit = sc.fit(law, runs, allow_open=True)
        assert np.isfinite(np.asarray(fit(x=runs["x"]))).all(), seed
        said = [str(doubt.message) for doubt in doubts]
        assert fit.converged or any("runs to a border" in doubt or "creeps" in doubt for doubt in said), (seed, said)


def test_sparse_curves_are_predicted():
    predicts("m4", (0, 31))


@pytest.mark.slow
@pytest.mark.parametrize("law", ["m4", "broken"])
def test_many_sparse_curves_are_predicted(law):
    """A broken law of six parameters takes seven losses."""
    predicts(law, [seed for seed in range(40) if len(sparse_curve(seed)["x"]) > 6])
