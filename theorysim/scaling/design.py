"""Which run to do next: the one that narrows a chosen quantity most, for its compute."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from theorysim.scaling.fit import Fit
from theorysim.scaling.interval import Quantity, sandwich, value_of
from theorysim.scaling.problem import slopes_at
from theorysim.scaling.runs import RunsError, columns


class Design(NamedTuple):
    """The quantity's standard error now and after each candidate; `gain`, the fall of its logarithm per unit of cost.

    `best` lists the candidates, the most useful for its cost first.
    """

    standard_error: float
    after: Float[np.ndarray, " candidates"]
    gain: Float[np.ndarray, " candidates"]
    best: np.ndarray


def next_run(
    fit: Fit,
    quantity: Quantity,
    candidates: Mapping[str, Float[np.ndarray, " candidates"]],
    *,
    cost: Float[np.ndarray, " candidates"] | None = None,
) -> Design:
    """Judge one more run at each candidate's inputs, by the local information of the fit.

    With V the [`sandwich`] covariance, j the derivative of the candidate's log prediction and v the variance that a run
    is worth, V becomes V - V j j^T V / (v + j^T V j); v is that of the runs there are, tr(V J^T J) / parameters, the
    classical c-optimal design (Chaloner & Larntz 1989) for a robust estimator. `cost` is in units of choice; 1 each
    unless given.

    **Raises:** `RunsError` for candidates that lack an input of the law.
    """
    problem, law = fit.problem, fit.law
    missing = [name for name in law.inputs if name not in candidates]
    if missing:
        raise RunsError(f"candidates lack {missing}: give {list(law.inputs)}")
    given, _ = columns(law, {**candidates, "loss": np.ones_like(candidates[next(iter(law.inputs))], float)})
    own = sandwich(fit)
    covariance = own.covariance
    slope = np.asarray(jax.grad(lambda point: jnp.squeeze(value_of(quantity, problem.values(point))))(fit.point))

    rows = np.asarray(slopes_at(problem, problem.inputs, fit.point))
    information = (rows.T * np.asarray(problem.weights)) @ rows
    worth = np.trace(covariance @ information) / float(problem.free.sum())
    inputs = {
        name: jnp.asarray(given[name]) * jnp.exp(-problem.log_scale.get(unit, jnp.zeros(())))
        for name, unit in law.inputs.items()
    }
    new = np.asarray(slopes_at(problem, inputs, fit.point))
    spread = new @ covariance
    lost = (spread @ slope) ** 2 / (worth + np.einsum("ij,ij->i", spread, new))
    before = slope @ covariance @ slope
    after = np.sqrt(before - lost)
    gain = np.log(np.sqrt(before) / after) / (np.ones(len(after)) if cost is None else np.asarray(cost))
    return Design(float(np.sqrt(before)), after, gain, np.argsort(-gain))
