"""What a fit to runs should make its reader doubt, in sentences."""

from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from scipy.stats import binomtest, norm

from theorysim.scaling import Fit
from theorysim.scaling.problem import LANES, slopes_at, solve_all

DECADES = 2.0  # of an interval: more is no estimate
CHANCE = 1e-3  # below which signs of residuals are no accident
FEW = 20  # runs: a test of signs says little about fewer
PART = 5  # the lowest fifth of the losses
MOVES = 2.5  # errors of a parameter, half its interval of 68 %: more, and a handful of runs decides it


def doubts(fit: Fit, draws: Mapping[str, np.ndarray], level: float | int) -> Iterator[str]:
    """Intervals that span decades or miss their estimate, a handful of runs that decide, residuals with a trend."""
    ends = {name: _ends(draws[name], level) for name in draws}
    for name, (low, high) in ends.items():
        if not fit.law.parameters[name].positive or fit.law.parameters[name].unit == {"loss": 1}:
            continue
        if not (np.isfinite(high) and low > 0 and np.log10(high / low) < DECADES):
            yield f"{name} lies between {low:.2g} and {high:.2g}: the runs do not say how large it is"
    for name, (low, high) in ends.items():
        if not low <= fit.parameters[name] <= high:
            yield (
                f"the estimate {name} = {fit.parameters[name]:.4g} lies outside of its own interval, {low:.4g} to "
                f"{high:.4g}: a few runs decide it, or it is on a border"
            )
    yield from decisive_runs(fit, {name: float(np.diff(_ends(draws[name], 0.6827)).item() / 2) for name in draws})
    yield from trends(fit)


def _ends(drawn: np.ndarray, level: float | int) -> np.ndarray:
    """The ends of the interval; infinite draws are themselves and not between others."""
    return np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="nearest")


def decisive_runs(fit: Fit, errors: Mapping[str, float]) -> Iterator[str]:
    """Of each parameter, the runs (5 % of them, at most five) that move it most to one side: fitted again without them.

    Which they are follows from the influence function of the fit, H^-1 J psi (Hampel 1974; H as in
    [`sandwich`][theorysim.scaling.sandwich]). It is a doubt where the parameter moves by 2.5 of its
    errors: of 100 runs with Gaussian residuals and one parameter, five move it by one.
    """
    problem, count = fit.problem, len(fit.residuals)
    names = [name for name, free in zip(fit.law.parameters, np.asarray(problem.free), strict=True) if free]
    few = int(np.clip(count // 20, 1, 5))
    moves = _influence(fit)
    order = np.argsort(moves, axis=0)
    places = [list(fit.law.parameters).index(name) for name in names]
    sets = [rows[:, place] for place in places for rows in (order[:few], order[-few:])]
    weights = np.tile(np.asarray(problem.weights), (len(sets), 1))
    for row, without in zip(weights, sets, strict=True):
        row[without] = 0
    starts = jnp.broadcast_to(fit.point, (LANES, len(fit.point)))  # as many as a fit's: its program

    def of(rows: np.ndarray) -> np.ndarray:
        return weights[np.minimum(rows, len(sets) - 1)]

    found = solve_all(problem, starts, of)
    for i, without in enumerate(sets):
        name = names[i // 2]
        value = float(problem.values(found.point[i])[name])
        if bool(found.converged[i]) and abs(value - fit.parameters[name]) > MOVES * errors[name]:
            rows = ", ".join(map(str, sorted(without.tolist())))
            yield (
                f"{few} of {count} runs decide {name}: {value:.3g} without runs {rows}, {fit.parameters[name]:.3g} "
                f"with them (error {errors[name]:.2g}); see whether they are as good as the others"
            )


def _influence(fit: Fit) -> np.ndarray:
    """How much each run moves each coordinate of the fit, up to a factor."""
    problem = fit.problem
    jacobian = np.asarray(slopes_at(problem, problem.inputs, fit.point))
    size = np.abs(fit.residuals)
    inside = size <= max(float(problem.objective.delta), float(np.median(size)))
    weights = np.asarray(problem.weights)
    curvature = np.linalg.pinv((jacobian.T * (weights * inside)) @ jacobian)
    delta = float(problem.objective.delta)
    return (weights * np.clip(fit.residuals, -delta, delta))[:, None] * (jacobian @ curvature)


def trends(fit: Fit) -> Iterator[str]:
    """Residuals whose signs stay the same for long along an input, or at the lowest losses.

    Along an input, the number of runs of one sign beside its law for random signs (Wald & Wolfowitz 1940), of residuals
    averaged where the input is the same; at the lowest fifth of predictions, a sign test. A chance of 1e-3 each.
    """
    sign_of = fit.residuals
    for name in fit.law.inputs:
        distinct, which = np.unique(fit.runs[name], return_inverse=True)
        signs = np.sign(np.bincount(which, sign_of) / np.bincount(which))
        signs = signs[signs != 0]
        up, down = int((signs > 0).sum()), int((signs < 0).sum())
        if min(up, down) < FEW // 4 or len(distinct) < FEW:
            continue
        changes = 1 + int((signs[1:] != signs[:-1]).sum())
        expected = 1 + 2 * up * down / (up + down)
        spread = np.sqrt((expected - 1) * (expected - 2) / (up + down - 1))
        if norm.cdf((changes - expected) / spread) < CHANCE:
            yield (
                f"residuals have a trend along {name}: their sign changes {changes - 1} times, and {expected - 1:.0f} "
                "times by chance: another law, or runs that are not alike"
            )
    predicted = fit.runs["loss"] * np.exp(-fit.residuals)
    lowest = fit.residuals[np.argsort(predicted)[: len(predicted) // PART]]
    above = int((lowest > 0).sum())
    if len(lowest) and binomtest(above, len(lowest)).pvalue < CHANCE:
        yield (
            f"of the {len(lowest)} lowest losses, {above} lie above the law and {len(lowest) - above} below: it "
            "bends otherwise than the runs where it is extrapolated from"
        )


def repeated(inputs: Mapping[str, np.ndarray], loss: np.ndarray) -> Iterator[str]:
    """Several losses of one configuration: learning rates, repeats, or checkpoints."""
    rows = np.stack(list(inputs.values()), 1)
    _, which, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    which = which.ravel()
    if len(counts) == len(rows):
        return
    best, worst = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(best, which, loss)
    np.maximum.at(worst, which, loss)
    spread = float(np.median((worst / best - 1)[counts > 1]))
    if spread > 0:
        yield (
            f"{int(counts[counts > 1].sum())} runs share their {', '.join(inputs)} with others, and differ in loss by "
            f"{spread:.1%} (median): if they are learning rates that were tried, fit the best of each (--best)"
        )
