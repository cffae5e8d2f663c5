"""Datasets of several cases as one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


def stack(datasets: "Mapping[str, xr.Dataset]", dim: str) -> "xr.Dataset":
    """Along a new first dimension, whose labels are the names."""
    import xarray as xr

    return xr.concat(list(datasets.values()), xr.DataArray(list(datasets), dims=dim, name=dim))
