"""The figures of a report: the fit, its residuals, losses along budgets, and the frontier with its band."""

from typing import TYPE_CHECKING, Any

import numpy as np

from theorysim.figure import PALETTE, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from theorysim.report.curves import CurveReport
    from theorysim.report.scaling import RunReport

NAMES = {
    "n": "parameters",
    "d": "tokens",
    "c": "compute (flops)",
    "x": "scale",
    "s": "steps",
    "b": "batch (tokens)",
    "unique": "unique tokens",
    "experts": "experts",
    "loss": "loss",
}
CURVES = 6


def curves(report: "CurveReport") -> "Figure":
    """Schedules, losses with the law through them, and residuals."""
    figure, (rate, loss, residual) = _axes(3, 0.95)
    for i, (name, curve) in enumerate(report.curves.items()):
        colour = PALETTE[i % len(PALETTE)]
        shown = np.unique(np.linspace(0, len(curve.rates) - 1, 400).astype(int))
        rate.plot(shown, curve.rates[shown], color=colour, label=name)
        some = np.unique(np.linspace(0, len(curve.steps) - 1, 60).astype(int))
        loss.plot(curve.steps[some], curve.loss[some], ".", color=colour, markersize=2.5, alpha=0.6)
        loss.plot(curve.steps, curve.loss * np.exp(-report.residuals[name]), color=colour, linewidth=0.9)
        residual.plot(curve.steps, 100 * np.expm1(report.residuals[name]), color=colour, linewidth=0.7)
    residual.axhline(0, color="0.6", linewidth=0.8)
    rate.set(xlabel="step", ylabel="learning rate", title="schedules")
    rate.legend(fontsize=6)
    loss.set(xlabel="step", ylabel="loss", yscale="log", title=f"{report.law}: law as lines")
    _plain_ticks(loss.yaxis)
    residual.set(xlabel="step", ylabel="loss above prediction (%)", title="residuals")
    return figure


def figures(report: "RunReport") -> "dict[str, Figure]":
    """The figures that the law allows."""
    drawn = {"fit": _fit(report), "residuals": _residuals(report)}
    if set(report.law.inputs) == {"n", "d"}:
        drawn |= {"isoflop": _isoflop(report), "frontier": _frontier(report)}
    return drawn


def _axes(columns: int = 1, height_to_width: float = 0.75) -> Any:
    import matplotlib.pyplot as plt

    width, height = page(1, 2, height_to_width)
    return plt.subplots(1, columns, figsize=(width * columns / 2, height))


def _fit(report: "RunReport") -> "Figure":
    if set(report.law.inputs) == {"n", "d"}:
        return _families(report)
    if len(report.law.inputs) == 1:
        return _curve(report)
    return _observed_against_predicted(report)


def _curve(report: "RunReport") -> "Figure":
    figure, panel = _axes()
    ((name, x),) = ((name, report.runs[name]) for name in report.law.inputs)
    grid = np.geomspace(x.min(), x.max() * 10, 200)
    predicted = report.predict(**{name: grid})
    panel.fill_between(grid, *predicted.law, color=PALETTE[0], alpha=0.25, linewidth=0)
    panel.plot(grid, predicted.loss, color=PALETTE[0], label=report.law.name)
    panel.plot(x, report.runs["loss"], "o", color=PALETTE[1], alpha=0.7, label="runs")
    _log(panel, NAMES.get(name, name), "loss")
    panel.legend()
    return figure


def _families(report: "RunReport") -> "Figure":
    """Loss against data, one colour per size: the runs, and the law at their sizes."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    figure, panel = _axes(1, 0.8)
    n, d, loss = (report.runs[name] for name in ("n", "d", "loss"))
    norm = LogNorm(n.min(), n.max())
    colours = mpl.colormaps["viridis"]
    for size in _representatives(n):
        grid = np.geomspace(d.min(), d.max(), 100)
        predicted = report.law.fn(n=np.full(100, size), d=grid, **report.parameters)
        panel.plot(grid, predicted, color=colours(norm(size)), linewidth=0.9)
    points = panel.scatter(d, loss, c=n, norm=norm, cmap=colours, s=7, linewidths=0.3, edgecolors="white", zorder=3)
    figure.colorbar(points, ax=panel, label=NAMES["n"])
    _log(panel, NAMES["d"], "loss")
    panel.set_title(f"{report.law.name}: law as lines, runs as points")
    return figure


def _observed_against_predicted(report: "RunReport") -> "Figure":
    figure, panel = _axes(1, 0.9)
    loss = report.runs["loss"]
    predicted = loss * np.exp(-report.residuals)
    ends = [loss.min(), loss.max()]
    panel.plot(ends, ends, color="0.6")
    panel.plot(predicted, loss, "o", color=PALETTE[1], alpha=0.7)
    _log(panel, f"loss by {report.law.name}", "loss")
    return figure


def _residuals(report: "RunReport") -> "Figure":
    import matplotlib.pyplot as plt

    width, height = page(1, 2, 0.7)
    figure, (panel, sides) = plt.subplots(1, 2, figsize=(width, height), width_ratios=(2, 1), sharey=True)
    predicted = report.runs["loss"] * np.exp(-report.residuals)
    percent = 100 * np.expm1(report.residuals)
    panel.axhline(0, color="0.6", linewidth=0.8)
    panel.plot(predicted, percent, "o", color=PALETTE[1], alpha=0.7)
    panel.set(xlabel="predicted loss", ylabel="loss above prediction (%)")
    panel.set_xscale("log")
    _plain_ticks(panel.xaxis)
    sides.hist(percent, bins="fd" if len(percent) > 20 else 10, orientation="horizontal", color=PALETTE[0], alpha=0.8)
    sides.set(xlabel="runs")
    panel.set_title(f"{report.law.name}: residuals")
    return figure


def _isoflop(report: "RunReport") -> "Figure":
    """Loss against size along budgets: the law, its minimum, and the runs nearest to each."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    figure, panel = _axes(1, 0.8)
    n, d, loss = (report.runs[name] for name in ("n", "d", "loss"))
    compute = 6 * n * d
    budgets = _representatives(compute)
    norm, colours = LogNorm(budgets[0], budgets[-1] * 1.5), mpl.colormaps["plasma"]
    nearest = np.abs(np.log(compute)[:, None] - np.log(budgets)[None]).argmin(1)
    # A run's distance from its budget is taken out by the law, so that all lie on one curve.
    moved = np.asarray(report.law.fn(n=n, d=budgets[nearest] / (6 * n), **report.parameters)) * np.exp(report.residuals)
    for i, budget in enumerate(budgets):
        mine = nearest == i
        if not mine.any():
            continue
        grid = np.geomspace(n[mine].min() / 1.5, n[mine].max() * 1.5, 100)
        colour = colours(norm(budget))
        panel.plot(grid, report.law.fn(n=grid, d=budget / (6 * grid), **report.parameters), color=colour, linewidth=0.9)
        panel.plot(n[mine], moved[mine], "o", color=colour, alpha=0.7)
    frontier = report.frontier(budgets)
    assert frontier is not None
    panel.plot(frontier["n"], frontier["loss"], "k*", markersize=6, label="optimum")
    seen = loss.max() / loss.min()
    panel.set_ylim(loss.min() / seen**0.1, loss.max() * seen**0.1)
    _log(panel, NAMES["n"], "loss")
    figure.colorbar(ScalarMappable(norm, colours), ax=panel, label=NAMES["c"])
    panel.legend()
    panel.set_title(f"{report.law.name}: losses along budgets")
    return figure


def _frontier(report: "RunReport") -> "Figure":
    figure, panels = _axes(2, 0.75)
    band = report.frontier()
    assert band is not None
    n, d = report.runs["n"], report.runs["d"]
    compute = 6 * n * d
    for panel, name, column in ((panels[0], "n", n), (panels[1], "d", d)):
        panel.fill_between(
            band["compute"], band[f"{name}_low"], band[f"{name}_high"], color=PALETTE[0], alpha=0.25, lw=0
        )
        panel.plot(band["compute"], band[name], color=PALETTE[0], label=f"{report.law.name}, {report.level:.0%} band")
        panel.plot(compute, column, ".", color="0.7", markersize=2, zorder=0, label="runs")
        vertices = report.parabolas(name)
        if not isinstance(vertices, str):  # runs without budgets have no parabolas
            left_out = f", {len(vertices.dropped)} budgets left out" * bool(vertices.dropped)
            panel.plot(vertices.compute, vertices.size, "o", color=PALETTE[1], label=f"approach 2{left_out}")
        panel.axvline(compute.max(), color="0.6", linewidth=0.7, linestyle=":")
        panel.set(xscale="log", yscale="log", xlabel=NAMES["c"], ylabel=f"optimal {NAMES[name]}")
    panels[0].legend()
    return figure


def _representatives(values: np.ndarray) -> np.ndarray:
    """A few values, spread in the logarithm over those there are."""
    distinct = np.unique(values)
    if len(distinct) <= CURVES:
        return distinct
    wanted = np.linspace(np.log(distinct[0]), np.log(distinct[-1]), CURVES)
    return np.unique(distinct[np.abs(np.log(distinct)[:, None] - wanted[None]).argmin(0)])


def _log(panel: "Axes", x: str, y: str) -> None:
    panel.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    _plain_ticks(panel.yaxis)


def _plain_ticks(axis: Any) -> None:
    """A loss spans less than a decade: 2, 3, 4 instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
