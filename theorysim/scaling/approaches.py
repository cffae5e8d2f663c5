"""The three ways to a frontier of Hoffmann et al. (arXiv:2203.15556): envelopes, parabolas, and the parametric fit.

The third is [`fit`] of "chinchilla" with [`frontier_exponent`]. The second is biased even without noise: a parabola in
log n is not the loss along a budget.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from theorysim.scaling.runs import RunsError
from theorysim.typing import Scalar, ScalarLike

SAME_BUDGET = 0.02  # in log flops: runs of one budget


class PowerLaw(NamedTuple):
    """size = coefficient compute^exponent, fitted to the best size of each compute.

    `dropped` says of each budget that was left out, by its compute, why.
    """

    exponent: float
    coefficient: float
    compute: Float[np.ndarray, " budgets"]
    size: Float[np.ndarray, " budgets"]
    dropped: Mapping[float, str] = {}


class Parabola(NamedTuple):
    """Where a budget's parabola is flat, in log n, and the coefficient of its square: a maximum if negative."""

    vertex: Scalar
    curvature: Scalar


def parabola(log_n: Float[Array, " runs"], loss: Float[Array, " runs"]) -> Parabola:
    """The parabola in log n that fits one budget's losses best; for `jax.vmap` over budgets."""
    middle = log_n.mean()
    x = log_n - middle
    columns = jnp.stack([jnp.ones_like(x), x, x**2], 1)
    _, slope, curvature = jnp.linalg.lstsq(columns, loss)[0]
    return Parabola(middle - slope / (2 * curvature), curvature)


def vertex(log_n: Float[Array, " runs"], loss: Float[Array, " runs"]) -> Scalar:
    """The log n at the vertex of [`parabola`], which is a minimum only where the curvature is positive."""
    return parabola(log_n, loss).vertex


def vertex_shift(alpha: ScalarLike, beta: ScalarLike, offsets: Float[Array, " runs"]) -> Scalar:
    """How far [`vertex`] lies from the true log n* on a grid log n* + offsets, symmetric about zero.

    (alpha - beta) m4 / (6 m2) to leading order, m_k the mean of offsets^k: the same for each budget, so that the
    exponent is not biased, and the size is, by one factor.
    """
    return (alpha - beta) * (offsets**4).mean() / (6 * (offsets**2).mean())


def isoflop(
    compute: Float[np.ndarray, " runs"], size: Float[np.ndarray, " runs"], loss: Float[np.ndarray, " runs"]
) -> PowerLaw:
    """Approach 2: a parabola in log size for each budget, and a line through the logarithms of their vertices.

    A budget is the runs at most 2 % above its smallest compute: give the compute that was planned or measured, not one
    made of sizes that were rounded. Budgets of fewer than three sizes, and those whose parabola opens downwards or has
    its vertex outside of its sizes, are left out; `dropped` says which and why. Give n or d for `size`.

    **Raises:** `RunsError` for values that are not positive, and fewer than two budgets with a minimum.
    """
    _require_runs(compute=compute, size=size, loss=loss)
    budgets, sizes, dropped = [], [], {}
    for members in _budgets(compute):
        budget = float(np.exp(np.log(compute[members]).mean()))
        best, reason = _optimum(np.log(size[members]), loss[members])
        if reason:
            dropped[budget] = reason
        else:
            budgets.append(budget)
            sizes.append(np.exp(best))
    return _line(np.array(budgets), np.array(sizes), "budgets with a minimum inside of their sizes", dropped)


def _budgets(compute: np.ndarray) -> list[np.ndarray]:
    """Runs of each budget, from the smallest up: a chain of computes, each close to the next, is not one budget."""
    order = np.argsort(compute)
    ends, first = [], compute[order[0]]
    for place, value in enumerate(compute[order]):
        if np.log(value / first) > SAME_BUDGET:
            ends.append(place)
            first = value
    return np.split(order, ends)


def _optimum(log_size: np.ndarray, loss: np.ndarray) -> tuple[float, str]:
    """The log size at the minimum of a budget's parabola, or why there is none."""
    count = len(np.unique(log_size))
    if count < 3:
        return np.nan, f"{count} sizes: a parabola takes three"
    found = parabola(jnp.asarray(log_size), jnp.asarray(loss))
    if not found.curvature > 0:
        return np.nan, "its parabola opens downwards"
    if not log_size.min() < found.vertex < log_size.max():
        return np.nan, f"its minimum, at {np.exp(found.vertex):.3g}, lies outside of the sizes tried"
    return float(found.vertex), ""


def envelope(
    curve: Int[np.ndarray, " points"],
    compute: Float[np.ndarray, " points"],
    size: Float[np.ndarray, " points"],
    loss: Float[np.ndarray, " points"],
    *,
    budgets: int = 100,
) -> PowerLaw:
    """Approach 1: at each compute the training curve with the lowest loss, and a line through log sizes.

    `curve` says which run a point belongs to; losses are interpolated in log compute. Computes where the next smaller
    or the next larger size than that of the lowest curve has no loss say nothing of an optimum, and are left out.

    ```python
    from theorysim.scaling import approaches

    n, d = np.repeat(np.geomspace(1e7, 1e10, 40), 100), np.tile(np.geomspace(1e8, 1e12, 100), 40)
    loss = 1.8 + 480 / n**0.35 + 2100 / d**0.37
    found = approaches.envelope(np.repeat(np.arange(40), 100), 6 * n * d, n, loss)
    assert abs(found.exponent - 0.37 / 0.72) < 0.02
    ```

    **Raises:** `RunsError` for values that are not positive, and fewer than two computes with an optimum.
    """
    _require_runs(compute=compute, size=size, loss=loss)
    members = [np.flatnonzero(curve == name) for name in np.unique(curve)]
    members = [points[np.argsort(compute[points])] for points in members]
    scales = np.array([size[points[0]] for points in members])
    grid = np.geomspace(compute.min(), compute.max(), budgets)
    losses = np.stack(
        [
            np.interp(np.log(grid), np.log(compute[points]), loss[points], left=np.inf, right=np.inf)
            for points in members
        ]
    )
    # One row per size, below and above them rows without a loss: the best has neighbours on both sides.
    distinct, of = np.unique(scales, return_inverse=True)
    lowest = np.full((len(distinct) + 2, budgets), np.inf)
    np.minimum.at(lowest, of + 1, losses)
    best = lowest.argmin(0)
    columns = np.arange(budgets)
    inside = np.isfinite(lowest[[np.maximum(best - 1, 0), best, np.minimum(best + 1, len(distinct) + 1)], columns]).all(
        0
    )
    return _line(grid[inside], distinct[best[inside] - 1], "computes whose lowest curve is of a middle size", {})


def _line(compute: np.ndarray, size: np.ndarray, what: str, dropped: Mapping[float, str]) -> PowerLaw:
    if len(compute) < 2:
        reasons = "".join(f"; {budget:.3g}: {reason}" for budget, reason in dropped.items())
        raise RunsError(f"{len(compute)} {what}: give at least two{reasons}")
    slope, intercept = np.polyfit(np.log(compute), np.log(size), 1)
    return PowerLaw(float(slope), float(np.exp(intercept)), compute, size, dropped)


def _require_runs(**columns: np.ndarray) -> None:
    for name, column in columns.items():
        if not (np.isfinite(column) & (column > 0)).all():
            raise RunsError(f"{name} holds values that are not positive and finite: drop or repair them")
