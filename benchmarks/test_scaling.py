"""Fits of Chinchilla's law beside scipy's and the published script's algorithm, in one run; ratios are ours by theirs.

`make bench` prints seconds and ratios; give it one core (`taskset -c 0`) for the numbers of one.
"""

import time
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import theorysim.scaling as sc

jax.config.update("jax_enable_x64", True)
TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
DELTA = 1e-3
SAME = 1e-9  # of the best objective
CENTRED = 60  # starts of L-BFGS-B in centred coordinates
CLOSE = 1e-6  # of the best objective: the optimum, for a method of first order
TIGHT = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 10_000, "maxfun": 100_000}
TIMED = 100  # of a peer's many fits; the others are extrapolated

# The published grid (Hoffmann et al., arXiv:2203.15556, appendix D.3): log E, log A, log B, alpha, beta.
AXES = (
    np.arange(-1, 1.1, 0.5),
    np.arange(0, 26, 5.0),
    np.arange(0, 26, 5.0),
    np.arange(0, 2.1, 0.5),
    np.arange(0, 2.1, 0.5),
)
GRID = np.array(list(product(*AXES)))


@pytest.fixture(scope="module")
def runs():
    """240 Chinchilla-like runs: Student-t residuals of 0.4 %, and a few runs that went wrong."""
    rng = np.random.default_rng(0)
    compute = 10 ** rng.uniform(18.5, 21.7, 240)
    d = np.sqrt(compute / 6 * np.exp(rng.uniform(0, np.log(400), 240)))
    n = compute / 6 / d
    residual = 0.004 * rng.standard_t(2.5, 240)
    residual += (rng.uniform(size=240) < 0.02) * rng.uniform(0.03, 0.15, 240)
    return {"n": n, "d": d, "loss": np.asarray(sc.LAWS["chinchilla"](n=n, d=d, **TRUTH)) * np.exp(residual)}


@pytest.fixture(scope="module")
def fit(runs):
    """It compiles what is timed."""
    return sc.fit("chinchilla", runs)


def seconds(run):
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - start, result


def terms(point, log_n, log_d):
    e, a, b, alpha, beta = point
    return np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])


def objective(point, log_n, log_d, log_loss, weights):
    """The script's: the sum of Huber functions of log loss minus logsumexp."""
    residual = log_loss - np.logaddexp.reduce(terms(point, log_n, log_d), axis=0)
    size = np.abs(residual)
    return weights @ np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2))


def gradient(point, log_n, log_d, log_loss, weights):
    """Exact, as the script has it from autograd."""
    each = terms(point, log_n, log_d)
    prediction = np.logaddexp.reduce(each, axis=0)
    share = np.exp(each - prediction) * weights * -np.clip(log_loss - prediction, -DELTA, DELTA)
    return np.array([*share.sum(1), -share[1] @ log_n, -share[2] @ log_d])


def centred_arguments(runs):
    """Logarithms less their means, the coordinates in which ours searches: coefficients of the data's size."""
    return *(column - column.mean() for column in logs(runs)), np.ones(240)


def logs(runs):
    return np.log(runs["n"]), np.log(runs["d"]), np.log(runs["loss"])


def test_a_fit_from_64_starts(benchmark, capsys, runs, fit):
    """scipy's trust region has the exact Jacobian, and the same box and units of the data: its best case."""
    log_n, log_d, log_loss = logs(runs)
    log_n, log_d, log_loss = log_n - log_n.mean(), log_d - log_d.mean(), log_loss - log_loss.mean()
    low, high = np.asarray(fit.law.box())
    starts = np.random.default_rng(1).uniform(low, high, (64, 5))

    def residuals(point):
        return log_loss - np.logaddexp.reduce(terms(point, log_n, log_d), axis=0)

    def jacobian(point):
        each = terms(point, log_n, log_d)
        share = np.exp(each - np.logaddexp.reduce(each, axis=0))
        return -np.stack([*share, -share[1] * log_n, -share[2] * log_d], 1)

    def theirs():
        options: Any = {"jac": jacobian, "loss": "huber", "f_scale": DELTA, "xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
        # scipy's cost is 0.5 delta^2 rho((r / delta)^2), which is the sum of Huber functions.
        return np.array([optimize.least_squares(residuals, start, **options).cost for start in starts])

    rounds = [(seconds(lambda: sc.fit("chinchilla", runs).value), seconds(theirs)) for _ in range(3)]
    mine, scipys = (np.median([row[i][0] for row in rounds]) for i in range(2))
    ratio = np.median([row[0][0] / row[1][0] for row in rounds])
    costs = rounds[0][1][1]
    assert fit.value <= costs.min() * (1 + SAME)
    with capsys.disabled():
        print(
            f"\n64 starts, 240 runs: {mine:.2f} s, {fit.basin_share:.0%} reach the optimum; scipy least_squares "
            f"{scipys:.2f} s, {np.mean(costs <= fit.value * (1 + SAME)):.0%}; ratio {ratio:.2f}"
        )
    benchmark.pedantic(lambda: sc.fit("chinchilla", runs), rounds=1)


def test_the_published_grid(benchmark, capsys, runs, fit):
    e, a, b, alpha, beta = GRID.T
    starts = {"E": np.exp(e), "A": np.exp(a), "B": np.exp(b), "alpha": alpha, "beta": beta}
    mine, found = seconds(lambda: sc.fit("chinchilla", runs, starts=starts))
    # Coefficients follow from exponents: 25 starts are distinct.
    pairs = np.unique(GRID[:, 3:], axis=0).T
    projected = dict(zip(("alpha", "beta"), pairs, strict=True))
    sc.fit("chinchilla", runs, starts=projected)
    distinct, same = seconds(lambda: sc.fit("chinchilla", runs, starts=projected))
    np.testing.assert_allclose(same.value, found.value, rtol=SAME)
    arguments = *logs(runs), np.ones(240)
    sample = GRID[np.random.default_rng(2).choice(len(GRID), TIMED, replace=False)]
    theirs_of_some, ends = seconds(
        lambda: [optimize.minimize(objective, start, arguments, method="L-BFGS-B").fun for start in sample]
    )
    theirs = theirs_of_some / TIMED * len(GRID)
    centred = centred_arguments(runs)
    in_ours, centred_ends = seconds(
        lambda: [
            optimize.minimize(objective, start, centred, jac=gradient, method="L-BFGS-B", options=TIGHT).fun
            for start in np.random.default_rng(1).uniform(*np.asarray(fit.law.box()), (CENTRED, 5))
        ]
    )
    np.testing.assert_allclose(found.value, fit.value, rtol=SAME)
    assert found.value <= min(ends) * (1 + SAME)
    with capsys.disabled():
        print(
            f"\n{len(GRID)} starts, 240 runs: {mine:.1f} s, {found.basin_share:.1%} reach the optimum; its "
            f"{pairs.shape[1]} distinct exponents: {distinct:.2f} s, {same.basin_share:.0%}; L-BFGS-B with "
            f"finite differences {theirs:.0f} s (from {TIMED} starts), "
            f"{np.mean(np.array(ends) <= found.value * (1 + SAME)):.0%} of them reach it, and the best of them lies "
            f"{min(ends) / found.value - 1:.1e} above; ratio {mine / theirs:.3f}. Its coordinates stop it: in "
            f"centred ones, with exact gradients, L-BFGS-B takes {in_ours:.1f} s from {CENTRED} starts in our box, and "
            f"{np.mean(np.array(centred_ends) <= found.value * (1 + CLOSE)):.0%} of them end within {CLOSE:g} of it"
        )
    benchmark.pedantic(lambda: sc.fit("chinchilla", runs, starts=starts), rounds=1)


def test_4000_bootstrap_fits(benchmark, capsys, runs, fit):
    def ours():
        return sc.bootstrap(fit, key=jax.random.key(0), samples=4000)

    ours()
    mine, draws = seconds(ours)
    weights = np.asarray(sc.bootstrap_weights(jax.random.key(0), jnp.ones(240), 4000))
    start = np.array([*np.log([fit.parameters[name] for name in ("E", "A", "B")]), *fit.point[3:]])

    def theirs():
        arguments = [(*logs(runs), weights[i]) for i in range(TIMED)]
        return [optimize.minimize(objective, start, of, jac=gradient, method="BFGS") for of in arguments]

    theirs_of_some, ends = seconds(theirs)
    extrapolated = theirs_of_some / TIMED * 4000
    best = [objective(np.asarray(at), *logs(runs), weights[i]) for i, at in enumerate(log_points(draws)[:TIMED])]
    excess = np.array([end.fun for end in ends]) / best - 1
    assert excess.min() > -SAME
    with capsys.disabled():
        print(
            f"\n4000 bootstrap fits, 240 runs: {mine:.1f} s, {draws.converged:.1%} converge; BFGS with exact gradients "
            f"{extrapolated:.0f} s (from {TIMED} fits), which end {np.median(excess):.1e} (median) and "
            f"{excess.max():.1e} (most) above our optima; ratio {mine / extrapolated:.3f}"
        )
    benchmark.pedantic(ours, rounds=1)


def log_points(draws):
    values = draws.parameters
    return np.stack([*(np.log(values[name]) for name in ("E", "A", "B")), values["alpha"], values["beta"]], 1)
