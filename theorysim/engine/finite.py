"""The points of a result that are not finite: list them, compute them again."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from theorysim.engine.layout import Layout
from theorysim.engine.plan import Block
from theorysim.engine.program import Executable, Rows

if TYPE_CHECKING:
    import xarray as xr


def nonfinite(data: "xr.Dataset") -> "xr.Dataset":
    """The grid points of a sweep's result where some output is not finite.

    **Returns:** their coordinates along the dimension `point`; `.to_dataframe()` prints them as a table. To
    compute just these points again, with a more careful `fn`: `sweep(fn, grid, keep=data)`.
    """
    import xarray as xr

    variables = json.loads(data.attrs["grid"])["variables"]
    dims = list(json.loads(data.attrs["grid"])["axes"]) + ["repeat"] * ("repeat" in data.dims)
    shape = tuple(data.sizes[dim] for dim in dims)
    bad = np.zeros(shape, bool)
    for name in variables:
        bad |= nonfinite_points(data[name].transpose(*dims, ...).values, len(dims))
    index = np.argwhere(bad)
    coords = {
        name: ("point", coord.values[index[:, dims.index(str(coord.dims[0]))]])
        for name, coord in data.coords.items()
        if set(coord.dims) <= set(dims) and coord.ndim == 1
    }
    return xr.Dataset(coords=coords)


def nonfinite_points(values: np.ndarray, axes: int) -> np.ndarray:
    """Whether a point holds a value that is not finite, over the first `axes` axes of `values`."""
    if not np.issubdtype(values.dtype, np.inexact):
        return np.zeros(values.shape[:axes], bool)
    return np.asarray(~np.isfinite(values).all(tuple(range(axes, values.ndim))))


class Kept:
    """An earlier result whose finite points are kept."""

    def __init__(self, data: "xr.Dataset", layout: Layout):
        sizes = {d: n for name in layout.dims for d, n in zip(layout.dims[name], layout.shapes[name], strict=True)}
        given = {name: dict(data[name].sizes) for name in layout.dims if name in data}
        wanted = {name: {dim: sizes[dim] for dim in dims} for name, dims in layout.dims.items()}
        if given != wanted:
            raise ValueError(f"keep= holds {given}, this sweep gives {wanted}: keep a result of the same grid")
        self.data, self.layout = data, layout

    def stream(self, program: Executable, blocks: Sequence[Block]) -> Iterator[tuple[Block, Rows]]:
        """The rows of each block: the finite ones from the earlier result, the others from the program."""
        todo = []
        for block in blocks:
            kept, bad = self._read(block)
            if bad.any():
                todo.append((block, block.points()[bad]))
            else:
                yield block, kept
        for block, rows in program.stream(todo):
            kept, bad = self._read(block)
            for name, values in kept.items():
                values[bad] = rows[name]
            yield block, kept

    def _read(self, block: Block) -> tuple[Rows, np.ndarray]:
        rows, bad = {}, np.zeros(math.prod(block.shape), bool)
        for name, dtype in self.layout.dtypes.items():
            values = np.array(self.data[name][block.slices], dtype)
            rows[name] = values.reshape(len(bad), *values.shape[len(block.shape) :])
            bad |= nonfinite_points(rows[name], 1)
        return rows, bad
