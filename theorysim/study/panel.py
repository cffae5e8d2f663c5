"""What panels of studies share: lines of theory, points with error bars, axes of widths, ticks as plain numbers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from theorysim.figure import page
from theorysim.study.claim import mean_and_error

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def drawn(
    data: Any, *panels: "Callable[[Axes, Any], None]", columns: int = 2, height_to_width: float = 0.8
) -> "Figure":
    """A figure as wide as a page; each function draws the data into a panel of its own, row by row."""
    import matplotlib.pyplot as plt

    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=page(rows, columns, height_to_width), squeeze=False)
    for panel, draw in zip(axes.flat, panels, strict=True):
        draw(panel, data)
    return figure


def points(panel: "Axes", samples: "xr.DataArray", x: Any = None, *, filled: Any = True, **style: Any) -> None:
    """The mean over `repeat` with its standard error, at `x`, or along the only other dimension.

    `filled` says of all points, or of each, whether it is drawn full or open.
    """
    mean, error = mean_and_error(samples)
    x = np.broadcast_to(mean[mean.dims[0]] if x is None else x, mean.shape)
    filled = np.broadcast_to(filled, mean.shape)
    faces = [(filled, {}), (~filled, {"markerfacecolor": "white"})]
    for chosen, face in [(chosen, face) for chosen, face in faces if chosen.any()]:
        panel.errorbar(x[chosen], mean.values[chosen], error.values[chosen], **{"fmt": "o", **face, **style})
        style = {**style, "label": None}


def line_and_points(panel: "Axes", line: "xr.DataArray", samples: "xr.DataArray", color: Any, **style: Any) -> None:
    """Theory as a line along its only dimension, and beside it [`points`], in one color."""
    panel.plot(line[line.dims[0]], line, color=color)
    points(panel, samples, color=color, **style)


def narrow_and_wide(panel: "Axes", samples: "xr.DataArray", color: Any, *, apart: float = 1.0, label: str = "") -> None:
    """[`points`] of the narrowest networks, open squares, and of the widest, set `apart` by this factor."""
    for index, marker, filled, shift in ((0, "s", False, 1 / apart), (-1, "o", True, apart)):
        of = samples.isel(width=index)
        x = of[of.isel(repeat=0).dims[0]] * shift
        style = {"fmt": marker, "color": color, "linewidth": 0.7}
        points(panel, of, x, filled=filled, label=f"{label}width {int(of['width'])}", **style)


def mean_and_band(panel: "Axes", batches: "xr.DataArray", color: Any, **style: Any) -> None:
    """A line through the means over `repeat` of a theory that samples, and a band of two standard errors."""
    mean, error = mean_and_error(batches)
    x = mean[mean.dims[0]]
    panel.plot(x, mean, color=color, **style)
    panel.fill_between(x, mean - 2 * error, mean + 2 * error, color=color, alpha=0.2, linewidth=0)


def density_points(panel: "Axes", samples: "xr.DataArray", edges: np.ndarray, **style: Any) -> None:
    """The density of all values of a `repeat` in bins between the edges: its mean and standard error over repeats."""
    import xarray as xr

    counts = np.stack([np.histogram(values, edges)[0] for values in samples.transpose("repeat", ...)])
    density = counts / (np.diff(edges) * samples.isel(repeat=0).size)
    points(panel, xr.DataArray(density, {"x": (edges[1:] + edges[:-1]) / 2}, ("repeat", "x")), **style)


def power_line(panel: "Axes", size: Any, mean: Any, power: float, **style: Any) -> None:
    """The line `size`^`power` through the geometric mean of the points (`size`, `mean`)."""
    size, mean = np.asarray(size, float), np.asarray(mean)
    panel.plot(size, np.exp(np.mean(np.log(mean) - power * np.log(size))) * size**power, **style)


def rms_points(panel: "Axes", samples: "xr.DataArray", **style: Any) -> None:
    """The root mean square over `repeat` with its standard error, along the only other dimension."""
    square, error = mean_and_error(samples**2)
    rms = square**0.5
    panel.errorbar(rms[rms.dims[0]], rms, error / (2 * rms), **{"fmt": "o", **style})


def cover_points(panel: "Axes", inside: "xr.DataArray", *, shift: float = 0.0, **style: Any) -> None:
    """By how many percent intervals cover more than their `level`, with the standard error that exact ones have.

    `inside` says of each `repeat` whether its interval holds the truth; points of several kinds are set apart by a
    `shift`.
    """
    level = inside["level"]
    error = np.sqrt(level * (1 - level) / inside.sizes["repeat"])
    panel.errorbar(level + shift, 100 * (inside.mean("repeat") - level), 100 * error, **style)
    panel.set(xlabel="nominal cover", ylabel="cover minus nominal (%)")


def percentile_bar(panel: "Axes", place: float, samples: Any, **style: Any) -> None:
    """The median of samples and the 95 % of them about it, along x, at this `place` of y."""
    low, middle, high = np.quantile(samples, [0.025, 0.5, 0.975])
    panel.errorbar(middle, place, xerr=[[middle - low], [high - middle]], **style)


def width_axis(panel: "Axes", widths: Sequence[int] | np.ndarray, label: str = "width $N$") -> None:
    """A binary logarithmic axis with a tick at each width."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(widths, [f"{width}" for width in widths])
    panel.set_xlabel(label)


def plain_ticks(axis: "Axis", ticks: Sequence[float | int] | np.ndarray, *, inside: bool = False) -> None:
    """These ticks, as plain numbers, and no others; or those of them that lie `inside` of the axis as it is."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in ticks if not inside or low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
