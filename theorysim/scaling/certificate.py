"""What certifies an optimum: its rank, the direction that the runs see least, and the borders that it lies on."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theorysim.scaling.problem import Problem, slopes_at
from theorysim.scaling.runs import RunsWarning, UnidentifiedError

RANK = 1e-7  # of the largest singular value: a direction that the runs do not see


def certify(problem: Problem, point: Float[Array, " parameters"], *, allow_open: bool = False) -> dict[str, Any]:
    """Rank, condition and weakest direction; refused where a direction is open that is not a vanishing coefficient."""
    law = problem.law
    free = np.asarray(problem.free) > 0
    names = [name for name, is_free in zip(law.parameters, free, strict=True) if is_free]
    # Filled up as for `solve_all`, so that fits of about as many runs share this program, too.
    filled = problem.filled()
    jacobian = np.asarray(slopes_at(filled, filled.inputs, point))[:, free]
    # Of the triangular factor, which has as many rows as parameters, and not as runs.
    triangle = np.linalg.qr(jacobian * np.sqrt(np.asarray(filled.weights))[:, None], mode="r")
    _, singular, directions = np.linalg.svd(triangle)
    rank = int((singular > RANK * singular[0]).sum())
    weakest = dict(zip(names, directions[-1].tolist(), strict=True))
    if rank < len(names) and not _vanishes(problem, point, weakest):
        moving = ", ".join(f"{value:+.2f} {name}" for name, value in weakest.items() if abs(value) > 0.1)
        message = (
            f"{law.name}: the runs leave the direction ({moving}) open, in units of the data and logarithms of "
            f"positive parameters; {_remedy(problem, point, directions[-1], free)}"
        )
        if not allow_open:
            raise UnidentifiedError(message, weakest)
        warnings.warn(f"{message}; the law predicts among the runs, and its parameters say nothing", RunsWarning, 4)
    condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf
    return {"rank": rank, "condition": condition, "weakest": weakest}


def _vanishes(problem: Problem, point: Array, direction: Mapping[str, float]) -> bool:
    """Whether the open direction is one coefficient on its way to zero or infinity: a border, warned of elsewhere."""
    name = max(direction, key=lambda name: abs(direction[name]))
    index = list(problem.law.parameters).index(name)
    low, high = problem.law.box()[:, index]
    outside = not bool(low <= point[index] <= high)
    return problem.law.parameters[name].positive and abs(direction[name]) > 0.99 and outside


def _remedy(problem: Problem, point: Array, direction: np.ndarray, free: np.ndarray) -> str:
    """The run, an input moved by ten or a hundred from the middle of the data, at which the open direction shows."""
    law = problem.law
    middle = {name: float(np.exp(np.mean(np.log(np.abs(values) + 1e-300)))) for name, values in problem.inputs.items()}
    factors = {name: (0.01, 0.1, 10.0, 100.0) for name, unit in law.inputs.items() if unit in law.units}
    candidates = [{**middle, name: middle[name] * factor} for name in factors for factor in factors[name]]
    if not candidates:
        return "fix a parameter"

    def shows(candidate: dict[str, float]) -> float:
        arrays = {name: jnp.asarray([value]) for name, value in candidate.items()}
        seen = abs(np.asarray(slopes_at(problem, arrays, point))[0, free] @ direction)
        return float(np.nan_to_num(seen))

    best = max(candidates, key=shows)
    if shows(best) < RANK:
        return "no other run would tell: fix a parameter"
    units = {name: float(np.exp(problem.log_scale.get(law.inputs[name], 0.0))) for name in best}
    where = ", ".join(f"{name} = {best[name] * units[name]:.3g}" for name in factors)
    return f"a run at {where} would tell, or fix a parameter"
