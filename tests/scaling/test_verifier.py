"""Resampling with an imperfect verifier beside enumeration, simulation and mpmath."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import theorysim.scaling as sc
from theorysim.scaling import verifier

# Half of the tasks are easy, half almost hopeless.
TWO = verifier.Tasks(jnp.array([0.5, 0.01]), jnp.array([0.5, 0.5]))
OPTIONS = {"true_positive": 1.0, "false_positive": 0.1, "cost": 1.0}


def enumerated(tasks, draws, true_positive, false_positive, cost):
    """Step by step: each draw is accepted and right, accepted and wrong, or rejected."""
    total = 0.0
    for p, share in zip(np.asarray(tasks.success), np.asarray(tasks.share), strict=True):
        alive = 1.0
        for _ in range(draws):
            right, wrong = p * true_positive, (1 - p) * false_positive
            total += share * alive * (right - cost * wrong)
            alive *= 1 - right - wrong
    return total


def test_utility_is_that_of_every_draw():
    for draws in (0, 1, 2, 3, 10, 100):
        found = float(verifier.utility(TWO, draws, **OPTIONS))
        assert found == pytest.approx(enumerated(TWO, draws, **OPTIONS), rel=1e-12, abs=1e-15)


def test_the_best_number_of_draws_is_that_of_every_number():
    rng = np.random.default_rng(0)
    numbers, count = jnp.arange(60.0), 4
    for _ in range(12):
        tasks = verifier.Tasks(jnp.asarray(rng.beta(0.3, 1.0, count)), jnp.asarray(rng.dirichlet(np.ones(count))))
        options = {
            **{"true_positive": rng.uniform(0.5, 1), "false_positive": rng.uniform(0, 0.4)},
            "cost": rng.uniform(0, 3),
        }
        best = verifier.best_draws(tasks, **options)
        values = np.asarray(jax.vmap(lambda k, t=tasks, o=options: verifier.utility(t, k, **o))(numbers))
        assert float(best.utility) >= max(values) - 1e-13
        if math.isfinite(best.draws) and best.draws < 60:
            assert values[int(best.draws)] == pytest.approx(max(values), rel=1e-12, abs=1e-14)
        assert float(best.unlimited) == pytest.approx(float(verifier.utility(tasks, math.inf, **options)), rel=1e-12)


def test_a_two_type_population_by_enumeration():
    values = [enumerated(TWO, k, **OPTIONS) for k in range(200)]
    best = verifier.best_draws(TWO, **OPTIONS)
    assert int(best.draws) == int(np.argmax(values))
    assert float(best.utility) == pytest.approx(max(values), rel=1e-12)
    assert best.certain
    # The best is finite exactly where the hard tasks lose: not where mistakes are cheap.
    cheap = verifier.best_draws(TWO, true_positive=1.0, false_positive=0.1, cost=0.01 / 0.099 * 0.999)
    assert cheap.draws == math.inf
    assert math.isfinite(
        verifier.best_draws(TWO, true_positive=1.0, false_positive=0.1, cost=0.01 / 0.099 * 1.001).draws
    )


def test_tasks_that_are_all_lost_are_not_drawn():
    best = verifier.best_draws(verifier.Tasks(jnp.array([0.01]), jnp.ones(1)), false_positive=0.5, cost=1.0)
    assert float(best.draws) == 0
    assert float(best.utility) == 0


def test_resampling_in_simulation():
    p, t, f, most, runs = 0.1, 0.9, 0.05, 12, 400_000
    solved, judged = jax.random.uniform(jax.random.key(0), (2, runs, most))
    right = solved < p
    accepted = judged < jnp.where(right, t, f)
    first = jnp.argmax(accepted, 1)
    any_accepted = accepted.any(1)
    correct = any_accepted & jnp.take_along_axis(right, first[:, None], 1)[:, 0]
    draws = jnp.where(any_accepted, first + 1, most).astype(float)
    found = verifier.resample(p, t, f, float(most))
    for sample, value in ((any_accepted, found.accepted), (correct, found.correct), (draws, found.draws)):
        assert abs(float(sample.mean()) - value) < 4 * float(sample.std()) / math.sqrt(runs)
    assert float(found.ceiling) == pytest.approx(0.09 / 0.135)


def test_digits_at_rare_acceptance_and_many_draws():
    with mpmath.workdps(50):
        p, f, k = mpmath.mpf(3e-13), mpmath.mpf(7e-13), mpmath.mpf(1e12)
        q = p + (1 - p) * f
        accepted = 1 - (1 - q) ** k
        exact = [float(accepted), float(p / q * accepted), float(p / q), float(accepted / q)]
    np.testing.assert_allclose(jnp.stack(verifier.resample(3e-13, 1.0, 7e-13, 1e12)), exact, rtol=1e-12)
    # The best number of such draws: the last one whose gain is positive.
    tasks = verifier.Tasks(jnp.array([1e-11, 0.0]), jnp.array([0.5, 0.5]))
    best = verifier.best_draws(tasks, false_positive=1e-12, cost=1.0)
    with mpmath.workdps(50):
        q1, q2 = 1e-11 + (1 - mpmath.mpf(1e-11)) * mpmath.mpf(1e-12), mpmath.mpf(1e-12)
        won = mpmath.mpf(1e-11) - (1 - mpmath.mpf(1e-11)) * mpmath.mpf(1e-12)
        exact = mpmath.ceil(mpmath.log(q2 / won) / (mpmath.log1p(-q1) - mpmath.log1p(-q2)))
    assert float(best.draws) == pytest.approx(float(exact), rel=1e-9)
    assert best.certain


def test_limits_and_derivatives():
    never = verifier.resample(0.0, 1.0, 0.0, 7.0)
    assert [float(v) for v in never] == [0, 0, 0, 7]
    always = verifier.resample(1.0, 1.0, 0.3, 7.0)
    assert [float(v) for v in always] == [1, 1, 1, 1]
    assert float(verifier.resample(0.3, 0.5, 0.1, math.inf).draws) == pytest.approx(1 / 0.22)

    def value(x):
        return verifier.utility(TWO, 5.0, true_positive=0.9, false_positive=x, cost=1.0)

    slope = (value(0.1 + 1e-5) - value(0.1 - 1e-5)) / 2e-5
    assert float(jax.grad(value)(0.1)) == pytest.approx(float(slope), rel=1e-7)
    grid = jax.jit(jax.vmap(lambda f: verifier.best_draws(TWO, false_positive=f, cost=1.0).draws))(
        jnp.array([0.05, 0.1, 0.3])
    )
    assert (jnp.diff(grid) < 0).all()


def test_the_law_is_in_the_registry():
    k = np.array([1.0, 2, 4, 8, 16, 32, 64, 128])
    share = np.asarray(verifier.resample(0.05, 0.9, 0.02, jnp.asarray(k)).correct)
    fit = sc.fit("resampling", {"k": k, "loss": share})
    q = 0.05 * 0.9 + 0.95 * 0.02
    np.testing.assert_allclose(
        [fit.parameters["ceiling"], fit.parameters["rate"]], [0.045 / q, -math.log1p(-q)], rtol=1e-6
    )


def test_refusals():
    with pytest.raises(ValueError, match=r"false_positive=1\.2: give a value in \[0, 1\]"):
        verifier.resample(0.5, 1.0, 1.2, 3.0)
    with pytest.raises(ValueError, match=r"draws=-1\.0: give a value >= 0"):
        verifier.resample(0.5, 1.0, 0.2, -1.0)
    with pytest.raises(ValueError, match=r"cost=-1\.0: give a value >= 0"):
        verifier.best_draws(TWO, false_positive=0.1, cost=-1.0)
    with pytest.raises(ValueError, match=r"success has shape \(2,\), share \(1,\): give one per task"):
        verifier.utility(verifier.Tasks(jnp.ones(2), jnp.ones(1)), 1.0, false_positive=0.1, cost=1.0)
