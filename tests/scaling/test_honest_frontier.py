"""Approach 2 and its neighbours where they have no optimum to show: each budget that is left out says why."""

import numpy as np
import pytest

import theorysim.scaling as sc
from theorysim.scaling.approaches import envelope, isoflop

EPOCH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
OFFSETS = np.linspace(-1, 1, 7)


def along(compute, offsets=OFFSETS):
    """Runs of one budget, about its optimum."""
    n = float(sc.chinchilla_frontier(EPOCH, compute).n) * np.exp(offsets)
    return n, np.asarray(sc.LAWS["chinchilla"](n=n, d=compute / 6 / n, **EPOCH))


def test_a_parabola_that_opens_downwards_is_no_optimum():
    """Three budgets with a minimum, and two whose losses are mirrored: a maximum inside of the sizes."""
    budgets = np.geomspace(1e18, 1e22, 5)
    rows = [along(budget) for budget in budgets]
    for i in (0, 4):
        n, loss = rows[i]
        rows[i] = n[::-1] * np.exp(2 * (i - 2)), 2 * loss.max() - loss
    n, loss = (np.concatenate(column) for column in zip(*rows, strict=True))
    found = isoflop(np.repeat(budgets, 7), n, loss)
    np.testing.assert_allclose(found.compute, budgets[1:4])
    np.testing.assert_allclose(found.exponent, sc.frontier_exponent(EPOCH), atol=1e-8)
    assert list(found.dropped.values()) == ["its parabola opens downwards"] * 2
    np.testing.assert_allclose(list(found.dropped), budgets[[0, 4]])


def test_each_budget_left_out_says_why():
    budgets = np.array([1e18, 1e19, 1e20])
    offsets = (OFFSETS, OFFSETS + 4, OFFSETS[:2])
    rows = [along(budget, offset) for budget, offset in zip(budgets, offsets, strict=True)]
    n, loss = (np.concatenate(column) for column in zip(*rows, strict=True))
    compute = np.repeat(budgets, [7, 7, 2])
    with pytest.raises(
        sc.RunsError, match=r"1 budgets .* two; 1e\+19: its minimum, at .*, lies outside .*; 1e\+20: 2 sizes"
    ):
        isoflop(compute, n, loss)


def test_a_chain_of_computes_is_not_one_budget():
    """Each compute 1 % above the last: budgets are of 2 %, and computes within a budget do not shift it."""
    chain = 1e19 * 1.01 ** np.arange(60)
    n, loss = (
        np.concatenate(column) for column in zip(*(along(budget, OFFSETS[::3]) for budget in chain), strict=True)
    )
    found = isoflop(np.repeat(chain, 3), n, loss)
    assert len(found.compute) == 20
    np.testing.assert_allclose(found.exponent, sc.frontier_exponent(EPOCH), atol=1e-3)


def test_an_envelope_wants_neighbours_on_both_sides():
    """A curve that is lowest because the next larger size has not begun there."""
    n = np.repeat(np.geomspace(1e8, 1e10, 5), 200)
    d = np.tile(np.geomspace(1e9, 1e12, 200), 5) * np.where(n > 2e9, 1e3, 1.0)
    loss = np.asarray(sc.LAWS["chinchilla"](n=n, d=d, **EPOCH))
    found = envelope(np.repeat(np.arange(5), 200), 6 * n * d, n, loss)
    later = 6 * n[-400] * d[-400]
    assert (found.compute[found.size > 9e8] >= later).all()
