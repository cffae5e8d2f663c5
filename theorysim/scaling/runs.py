"""What a fit refuses and what it warns of: runs that cannot say, and runs that look as if they meant something else."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from theorysim.checks import DataError, DataWarning
from theorysim.scaling.law import Law

SMALLEST = {"n": 1e4, "d": 1e5}  # below, a number is likely to count in millions or billions
SAME_RAY = 0.02
SAME_LOSS = 1e-9  # of log losses
SIZES = ("n", "d", "c", "x", "s")  # with which a loss falls
CLEAR = 4.0  # standard errors of a slope


class RunsError(DataError):
    """The runs cannot be fitted; the message names what is wrong, and the remedy."""


class UnidentifiedError(RunsError):
    """The runs leave a direction of the parameters open: `direction` holds its components, by name."""

    def __init__(self, message: str, direction: Mapping[str, float]):
        super().__init__(message)
        self.direction = dict(direction)


class RunsWarning(DataWarning):
    """The fit goes on, and its result may not mean what it seems to."""


def columns(law: Law, runs: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The law's inputs and the losses, as float64 arrays, refused where no fit could use them."""
    needed = [*law.inputs, "loss"]
    missing = [name for name in needed if name not in runs]
    if missing:
        raise RunsError(f"runs lack {missing}: {law.name} needs the columns {needed}, and these have {list(runs)}")
    arrays = {name: np.asarray(runs[name], np.float64) for name in needed}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or arrays["loss"].ndim != 1:
        raise RunsError(f"columns have the shapes {shapes}: give one number per run in each")
    for name, array in arrays.items():
        # An input without unit (a sparsity, a count of repetitions) may be zero; what enters as a logarithm may not.
        positive = name == "loss" or law.inputs[name] in law.units
        bad = ~np.isfinite(array) | (positive & (array <= 0))
        if bad.any():
            first = int(np.argmax(bad))
            raise RunsError(
                f"{name} holds {bad.sum()} values that are not {'positive and ' * positive}finite, the first in run "
                f"{first}: {array[first]}: drop or repair them"
            )
    return {name: arrays[name] for name in law.inputs}, arrays["loss"]


def require_telling(inputs: Mapping[str, np.ndarray], loss: np.ndarray) -> None:
    """Refuse losses of several runs that are all the same, and an input for a loss.

    **Raises:** `RunsError`.
    """
    if len(loss) > 1 and np.ptp(np.log(loss)) < SAME_LOSS:
        raise RunsError(
            f"loss is {loss[0]:.4g} in all runs, and depends on no {' or '.join(inputs)}: is it the right column?"
        )
    for name, values in inputs.items():
        if np.array_equal(values, loss):
            raise RunsError(f"{name} and loss are the same {len(loss)} numbers: give {name} a column of its own")


def require_falling(law: Law, inputs: Mapping[str, np.ndarray], loss: np.ndarray) -> None:
    """Refuse losses that rise with all sizes, warn of those that rise with one, by a plane through logarithms.

    Of a law that is not of the registry they are warned of; one that `rises` is let pass. A slope counts from four of
    its standard errors on.

    **Raises:** `RunsError`.
    """
    sizes = {name: np.log(values) for name, values in inputs.items() if name in SIZES}
    if law.rises or not sizes or len(loss) < len(sizes) + 3:
        return
    design = np.stack([*sizes.values(), np.ones(len(loss))], 1)
    design[:, :-1] -= design[:, :-1].mean(0)
    slopes, _, _, _ = np.linalg.lstsq(design, np.log(loss))
    residuals = np.log(loss) - design @ slopes
    variance = residuals @ residuals / (len(loss) - len(slopes)) * np.diag(np.linalg.pinv(design.T @ design))
    rising = [name for name, rises in zip(sizes, slopes > CLEAR * np.sqrt(variance), strict=False) if rises]
    if not rising:
        return
    what = f"the loss rises with {' and '.join(rising)}: is the column an accuracy? Give a loss, or 1 - accuracy"
    if len(rising) == len(sizes) and law.source:
        raise RunsError(what)
    warnings.warn(f"{what}; or are the learning rates of large runs too large?", RunsWarning, stacklevel=3)


def require_enough(law: Law, inputs: Mapping[str, np.ndarray], free: int, count: int) -> None:
    """Refuse fewer runs (`count` of some weight) than free parameters plus one, and inputs of one value or one ray.

    Warns of fewer than twice as many.

    **Raises:** `RunsError`, and `UnidentifiedError` for inputs.
    """
    if free < count < 2 * free:
        warnings.warn(
            f"{count} runs for {free} free parameters of {law.name}: estimates and their intervals hang on single "
            f"runs; give at least {2 * free}, or fix parameters",
            RunsWarning,
            stacklevel=3,
        )
    if count < free + 1:
        raise RunsError(
            f"{count} runs for {free} free parameters of {law.name}: give at least {free + 1}, or fix parameters"
        )
    varied = {}
    for name, values in inputs.items():
        if law.inputs[name] not in law.units:
            continue
        varied[name] = np.log(values)
        if np.ptp(varied[name]) < SAME_RAY:
            carried = [key for key, parameter in law.parameters.items() if law.inputs[name] in parameter.unit]
            raise UnidentifiedError(
                f"{name} is {values[0]:.4g} in all runs: the term of {', '.join(carried)} cannot be told from a "
                f"constant; add runs with another {name}, ten times as large or small",
                dict.fromkeys(carried, 1.0),
            )
    names = list(varied)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if law.inputs[first] == law.inputs[second]:
                continue
            for sign, word in ((-1, "ratio"), (1, "product")):
                along = varied[second] + sign * varied[first]
                if np.ptp(along) < SAME_RAY:
                    symbol = "/" if sign < 0 else "*"
                    raise UnidentifiedError(
                        f"all runs have the same {word} {second} {symbol} {first} = {np.exp(along[0]):.4g}: the terms "
                        f"in {first} and in {second} cannot be told apart; add runs at another {word}, "
                        "ten times as large or small",
                        {first: 1.0, second: float(sign)},
                    )


def warn_of_doubts(inputs: Mapping[str, np.ndarray], loss: np.ndarray) -> None:
    """Warn of runs that are there twice, and of counts that look like millions or billions."""
    rows = np.stack([*inputs.values(), loss], 1)
    twice = len(rows) - len(np.unique(rows, axis=0))
    if twice:
        warnings.warn(
            f"{twice} runs are exact copies of others: each counts again, and intervals come out too narrow; drop them",
            RunsWarning,
            stacklevel=3,
        )
    for name, least in SMALLEST.items():
        if name in inputs and np.median(inputs[name]) < least:
            what = "tokens" if name == "d" else "parameters"
            warnings.warn(
                f"the median {name} is {np.median(inputs[name]):.4g} {what}: is the column in millions or billions? "
                "Coefficients and frontiers mean what they say only in plain counts",
                RunsWarning,
                stacklevel=3,
            )
