"""The points of a result that are not finite: list them, compute them again."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
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
    if not is_inexact(values.dtype):
        return np.zeros(values.shape[:axes], bool)
    return np.asarray(~np.isfinite(values).all(tuple(range(axes, values.ndim))))


def is_inexact(dtype: np.dtype) -> bool:
    """Whether a dtype has NaN; bfloat16 and its kin, which NumPy does not know, too."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


class Kept:
    """An earlier result whose finite points are kept."""

    def __init__(self, data: "xr.Dataset", layout: Layout):
        import xarray as xr

        if not isinstance(data, xr.Dataset):
            raise ValueError(f"keep={data!r}: pass an earlier result of sweep, or None")
        if not {*layout.dims, *layout.coords} <= {*data.variables}:
            raise ValueError(f"keep= holds {list(data.variables)}, this sweep gives {[*layout.dims, *layout.coords]}")
        for name, dims in layout.dims.items():
            given = data[name]
            if set(given.dims) != set(dims) or given.transpose(*dims).shape != layout.shapes[name]:
                raise ValueError(f"keep= holds {name!r} over {dict(given.sizes)}: keep a result of the same grid")
            if given.dtype != layout.dtypes[name]:
                raise ValueError(f"keep= holds {name!r} as {given.dtype}, `fn` returns {layout.dtypes[name]}")
        for name, (_, values) in layout.coords.items():
            if not np.array_equal(data[name].values, values, equal_nan=values.dtype.kind in "fc"):
                raise ValueError(f"keep= has other values along {name!r}: keep a result of the same grid")
        if data.attrs.get("values") != layout.attrs["values"]:
            raise ValueError("keep= was computed with other values behind its labels: keep a result of the same grid")
        if data.attrs.get("key") != layout.attrs["key"]:
            raise ValueError(f"keep= was computed with the key {data.attrs.get('key')!r}, not {layout.attrs['key']!r}")
        self.layout = layout
        self.data = {name: data[name].transpose(*dims) for name, dims in layout.dims.items()}
        computed = data.coords.get("computed")
        self.computed = None if computed is None else computed.transpose(*layout.grid_dims)

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
        if self.computed is not None:  # of an interrupted sweep
            bad |= ~self.computed[block.slices].values.ravel()
        for name, dtype in self.layout.dtypes.items():
            values = np.array(self.data[name][block.slices], dtype)
            rows[name] = values.reshape(len(bad), *values.shape[len(block.shape) :])
            bad |= nonfinite_points(rows[name], 1)
        return rows, bad
