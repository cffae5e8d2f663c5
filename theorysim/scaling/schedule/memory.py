"""The drops that each loss of a curve remembers, binned."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

ZERO = 1e-200  # a rate or an area whose logarithm is taken
BINS = 16  # of the drops that a loss remembers


class Curve(NamedTuple):
    """Losses of one run: its schedule, the numbers of steps at which the loss was taken, and the model's size."""

    rates: Float[np.ndarray, " length"]
    steps: Int[np.ndarray, " observations"]
    loss: Float[np.ndarray, " observations"]
    n: float | None = None


class Past(NamedTuple):
    """What each loss remembers: binned drops, their distance in steps, log S_k and log rate; scales of all curves."""

    weight: np.ndarray
    distance: np.ndarray
    log_area: np.ndarray
    log_rate: np.ndarray
    length: int
    peak: float


def observe(curves: Sequence[Curve], down: Sequence[Array], *, by_area: bool) -> tuple[dict[str, np.ndarray], Past]:
    """The table of all losses, and what each remembers: by the area since a drop, or by the steps."""
    columns: dict[str, list] = {name: [] for name in ("curve", "step", "s1", "loss", "n")}
    pasts = []
    for number, curve in enumerate(curves):
        steps, rates = np.asarray(curve.steps), np.asarray(curve.rates, np.float64)
        s1 = np.cumsum(rates)
        fallen = np.asarray(down[number])
        pasts += [_past(rates, s1, fallen, int(step), by_area) for step in steps]
        ones = np.ones(len(steps))
        values = (number * ones, steps, s1[steps - 1], curve.loss, np.nan * ones if curve.n is None else curve.n * ones)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(np.asarray(value, np.float64))
    runs = {name: np.concatenate(parts) for name, parts in columns.items()}
    runs["row"] = np.arange(len(pasts), dtype=np.float64)
    if np.isnan(runs["n"]).any():
        del runs["n"]
    widest = max(len(past[0]) for past in pasts)
    padded = np.stack([np.pad(past, ((0, 0), (0, widest - past.shape[1]))) for past in pasts], 1)
    longest = max(len(curve.rates) for curve in curves)
    return runs, Past(*padded, length=longest, peak=float(max(np.max(curve.rates) for curve in curves)))


def _past(rates: np.ndarray, s1: np.ndarray, down: np.ndarray, step: int, by_area: bool) -> np.ndarray:
    """Weight, distance, log S_k and log rate of the drops before a step, as pairs of drops that stand for bins of them.

    A bin's pair has its total, and its mean and variance in the logarithms that the law sees: what is lost is of third
    order in its width. Bins are narrow where many drops are, by the fifth root of their density, which spreads errors
    of fourth order evenly.
    """
    area = s1[step - 1] - (s1[:step] - rates[:step])
    k = np.flatnonzero((down[:step] != 0) & ((area > 0) if by_area else True))
    if not len(k):
        return np.zeros((4, 1))
    places = np.log(np.maximum([area[k], rates[k]] if by_area else [step - k], ZERO))
    size = np.abs(down[k])
    apart = np.abs(np.diff(places, append=places[:, -1:])).sum(0)
    share = size**0.2 * apart**0.8
    along = (np.cumsum(share) - share / 2) / max(share.sum(), ZERO)
    bins = np.unique([np.sign(down[k]), np.floor(BINS * along)], axis=1, return_inverse=True)[1]

    def mean(of: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(bins, size * row) for row in of]) / np.bincount(bins, size)

    middle = mean(places)
    off = places - middle[:, bins]
    spread = np.sqrt(mean(off**2)) * np.where(mean(off * off[:1]) < 0, -1, 1)
    pairs = np.concatenate([middle - spread, middle + spread], 1)
    weight = np.tile(np.bincount(bins, down[k]) / 2, 2)
    zero = np.zeros_like(weight)
    return np.stack([weight, zero, *pairs] if by_area else [weight, np.exp(pairs[0]), zero, zero])
