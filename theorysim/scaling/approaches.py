"""The three ways to a frontier of Hoffmann et al. (arXiv:2203.15556): envelopes, parabolas, and the parametric fit.

The third is [`fit`] of "chinchilla" with [`frontier_exponent`]. The second is biased even without noise: a parabola in
log n is not the loss along a budget.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from theorysim.scaling.runs import RunsError
from theorysim.typing import Scalar, ScalarLike

SAME_BUDGET = 0.02  # in log flops: runs of one budget


class PowerLaw(NamedTuple):
    """size = coefficient compute^exponent, fitted to the best size of each compute."""

    exponent: float
    coefficient: float
    compute: Float[np.ndarray, " budgets"]
    size: Float[np.ndarray, " budgets"]


def vertex(log_n: Float[Array, " runs"], loss: Float[Array, " runs"]) -> Scalar:
    """The log n at the vertex of the parabola that fits one budget's losses best; for `jax.vmap` over budgets."""
    middle = log_n.mean()
    x = log_n - middle
    columns = jnp.stack([jnp.ones_like(x), x, x**2], 1)
    _, slope, curvature = jnp.linalg.lstsq(columns, loss)[0]
    return middle - slope / (2 * curvature)


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

    Runs whose computes differ by less than 2 % are one budget; budgets of fewer than three sizes, and those whose
    parabola opens downwards or has its vertex outside of its sizes, are left out. Give n or d for `size`.

    **Raises:** `RunsError` for values that are not positive, and fewer than two budgets with a minimum.
    """
    _require_runs(compute=compute, size=size, loss=loss)
    order = np.argsort(compute)
    ends = np.flatnonzero(np.diff(np.log(compute[order])) > SAME_BUDGET) + 1
    budgets, sizes = [], []
    for members in np.split(order, ends):
        log_size = np.log(size[members])
        if len(np.unique(log_size)) < 3:
            continue
        best = float(vertex(jnp.asarray(log_size), jnp.asarray(loss[members])))
        inside = log_size.min() < best < log_size.max()
        if inside and loss[members].min() <= loss[members][[log_size.argmin(), log_size.argmax()]].min():
            budgets.append(np.exp(np.log(compute[members]).mean()))
            sizes.append(np.exp(best))
    return _line(np.array(budgets), np.array(sizes), "budgets with a minimum inside of their sizes")


def envelope(
    curve: Int[np.ndarray, " points"],
    compute: Float[np.ndarray, " points"],
    size: Float[np.ndarray, " points"],
    loss: Float[np.ndarray, " points"],
    *,
    budgets: int = 100,
) -> PowerLaw:
    """Approach 1: at each compute the training curve with the lowest loss, and a line through log sizes.

    `curve` says which run a point belongs to; losses are interpolated in log compute. Computes where the lowest curve
    is that of the smallest or the largest size say nothing of an optimum, and are left out.

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
    best = scales[losses.argmin(0)]
    inside = np.isfinite(losses.min(0)) & (best > scales.min()) & (best < scales.max())
    return _line(grid[inside], best[inside], "computes whose lowest curve is of a middle size")


def _line(compute: np.ndarray, size: np.ndarray, what: str) -> PowerLaw:
    if len(compute) < 2:
        raise RunsError(f"{len(compute)} {what}: give at least two")
    slope, intercept = np.polyfit(np.log(compute), np.log(size), 1)
    return PowerLaw(float(slope), float(np.exp(intercept)), compute, size)


def _require_runs(**columns: np.ndarray) -> None:
    for name, column in columns.items():
        if not (np.isfinite(column) & (column > 0)).all():
            raise RunsError(f"{name} holds values that are not positive and finite: drop or repair them")
