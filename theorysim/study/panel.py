"""What panels of studies share: points with error bars, axes of widths, ticks as plain numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from theorysim.study.claim import mean_and_error

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def points(panel: "Axes", samples: "xr.DataArray", x: Any = None, **style: Any) -> None:
    """The mean over `repeat` with its standard error, at `x`, or along the only other dimension."""
    mean, error = mean_and_error(samples)
    panel.errorbar(mean[mean.dims[0]] if x is None else x, mean, error, **{"fmt": "o", **style})


def width_axis(panel: "Axes", widths: Sequence[int] | np.ndarray, label: str = "width $N$") -> None:
    """A binary logarithmic axis with a tick at each width."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(widths, [f"{width}" for width in widths])
    panel.set_xlabel(label)


def plain_ticks(axis: "Axis", ticks: Sequence[float] | np.ndarray) -> None:
    """These ticks, as plain numbers, and no others."""
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
