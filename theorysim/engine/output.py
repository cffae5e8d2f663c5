"""Where a sweep's results go: arrays in memory, or a zarr store that survives the process."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from typing_extensions import override

from theorysim.engine.finite import nonfinite_points
from theorysim.engine.folder import TORN, array_in, cell, explained, fill, locked, opened, readable
from theorysim.engine.layout import Layout
from theorysim.engine.plan import Block
from theorysim.engine.program import Rows

if TYPE_CHECKING:
    import xarray as xr


class Output:
    """Arrays by name, and a ledger of the points that each block holds.

    The ledger is written after its block: what it lacks is computed again.
    """

    def __init__(self, layout: Layout, arrays: Mapping[str, Any], points: Any, nonfinite: Any):
        self.layout, self.arrays = layout, arrays
        self.points, self.nonfinite = points, nonfinite
        self.lanes: dict[str, int] = {}
        self.coords: dict[str, Any] = {}

    @property
    def computed(self) -> int:
        """How many points are computed."""
        return int(readable(self.points).sum())

    def missing(self) -> list[Block]:
        """Blocks that are not computed, or not with all the points they have now."""
        points = readable(self.points)
        return [b for b in self.layout.blocks if points[b.place] != math.prod(b.shape)]

    def write(self, block: Block, rows: Rows) -> None:
        """Keep a finished block; nothing else is touched when that fails."""
        for name, array in self.arrays.items():
            array[block.slices] = rows[name].reshape(*block.shape, *rows[name].shape[1:])
        self.nonfinite[block.place] = [nonfinite_points(rows[name], 1).sum() for name in self.arrays]
        self.points[block.place] = math.prod(block.shape)

    def fix_lanes(self, program: str, lanes: int) -> None:
        """Remember the lanes of a program: a point's last digits may depend on them."""
        self.lanes[program] = lanes

    def finish(self, start: float, seconds: float, points: int) -> None:
        """Close the books of one call: when it began, how long it took, how many points it computed."""

    def mark_computed(self) -> int:
        """Add the coordinate `computed` to the results; return how many points are."""
        points = readable(self.points)
        mask = np.zeros(self.layout.blocks.shape, bool)
        for block in self.layout.blocks:
            mask[block.slices] = points[block.place] == math.prod(block.shape)
        self.coords["computed"] = (self.layout.grid_dims, mask)
        return int(mask.sum())

    def labelled(self) -> "xr.Dataset":
        """The results with their coordinates and provenance."""
        import xarray as xr

        layout = self.layout
        variables = {
            name: (layout.dims[name], array, {"nonfinite": count})
            for (name, array), count in zip(self.arrays.items(), self._counts(), strict=True)
        }
        return xr.Dataset(variables, layout.coords | self.coords, {**layout.attrs, "lanes": json.dumps(self.lanes)})

    def _counts(self) -> list[int]:
        return readable(self.nonfinite).reshape(-1, len(self.arrays)).sum(0).tolist()


class Memory(Output):
    """Results as NumPy arrays."""

    def __init__(self, layout: Layout):
        arrays = {name: np.empty(shape, layout.dtypes[name]) for name, shape in layout.shapes.items()}
        counts = layout.blocks.counts
        super().__init__(layout, arrays, np.zeros(counts, np.int64), np.zeros((*counts, len(arrays)), np.int64))

    @override
    def mark_computed(self) -> int:
        for block in self.missing():
            for array in self.arrays.values():
                array[block.slices] = fill(array.dtype)
        return super().mark_computed()


class Store(Output):
    """Results in a zarr store: a chunk is a block, and the ledger is a group of its own.

    Format 2, since its specification covers fixed-length strings and consolidated metadata: plain
    `xarray.open_zarr` reads it without a warning. Each chunk carries a checksum.
    """

    def __init__(self, layout: Layout, path: Path):
        with explained(path, "open"):
            self.path, group = path, opened(path)
            arrays = {name: array_in(group, name) for name in layout.shapes}
            super().__init__(layout, arrays, *(array_in(group, f"ledger/{name}") for name in ("points", "nonfinite")))
        self.lanes = json.loads(str(group.attrs["lanes"]))

    @override
    def write(self, block: Block, rows: Rows) -> None:
        with explained(self.path, f"write block {block.number} of"):
            if block.shape == self.layout.blocks.block:
                super().write(block, rows)
                return
            # At the grid's edge, a process with a larger grid may have written more points of this block.
            with locked(self.path):
                if cell(self.points, block.place) <= math.prod(block.shape):
                    super().write(block, rows)

    @override
    def missing(self) -> list[Block]:
        """Blocks that are not computed, and those that a broken machine tore or lost after all."""
        missing = {block.number for block in super().missing()}
        return [b for b in self.layout.blocks if b.number in missing or not self._is_readable(b)]

    def _is_readable(self, block: Block) -> bool:
        try:
            for name, array in {**self.arrays, "ledger/nonfinite": self.nonfinite}.items():
                chunk = (*block.place, *(0,) * (array.ndim - len(block.place)))
                if not (self.path / name / ".".join(map(str, chunk))).exists():
                    return False
                array.blocks[chunk]
        except TORN:
            return False
        return True

    @override
    def fix_lanes(self, program: str, lanes: int) -> None:
        super().fix_lanes(program, lanes)
        if jax.process_index() == 0:
            with explained(self.path, "write attributes of"), locked(self.path):
                attrs = opened(self.path).attrs  # afresh: another process may have extended the store
                if program not in (stored := json.loads(attrs["lanes"])):
                    attrs["lanes"] = json.dumps({**stored, program: lanes})

    @override
    def labelled(self) -> "xr.Dataset":
        import xarray as xr

        data = xr.open_zarr(self.path, chunks=None).drop_encoding()
        shape = zip(self.layout.grid_dims, self.layout.blocks.shape, strict=True)
        return data.isel({dim: slice(size) for dim, size in shape}).assign_coords(self.coords)

    @override
    def finish(self, start: float, seconds: float, points: int) -> None:
        import zarr

        if not points and not os.access(self.path, os.W_OK):  # a finished store on a disk that can only be read
            return
        with explained(self.path, "write attributes of"), locked(self.path):
            group = opened(self.path)  # afresh: another process may have extended the store
            self.nonfinite = group["ledger/nonfinite"]
            for name, count in zip(self.arrays, self._counts(), strict=True):
                group[name].attrs["nonfinite"] = count
            zarr.consolidate_metadata(self.path, zarr_format=2)
            # Beside the store, so that two runs leave the same store.
            with self.path.with_name(f"{self.path.name}.times.jsonl").open("a") as times:
                times.write(json.dumps({"start": start, "seconds": seconds, "points": points}) + "\n")
