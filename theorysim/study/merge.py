"""The data of a study, put together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


def tree(*, theory: "xr.Dataset", simulation: "xr.Dataset", **others: "xr.Dataset") -> "xr.DataTree":
    """What `simulate` returns: what is predicted, what is simulated, and what else the claims and figures need."""
    import xarray as xr

    return xr.DataTree.from_dict({"theory": theory, "simulation": simulation, **others})


def stack(datasets: "Mapping[str, xr.Dataset]", dim: str) -> "xr.Dataset":
    """Along a new first dimension, whose labels are the names."""
    import xarray as xr

    return xr.concat(list(datasets.values()), xr.DataArray(list(datasets), dims=dim, name=dim))
