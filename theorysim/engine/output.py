"""Where a sweep's results go: arrays in memory, or a zarr store that survives the process."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from typing_extensions import override

from theorysim.engine.finite import nonfinite_points
from theorysim.engine.layout import Layout
from theorysim.engine.plan import Block, Blocks
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

    def missing(self) -> list[Block]:
        """Blocks that are not computed, or not with all the points they have now."""
        points = self.points[...]
        return [b for b in self.layout.blocks if points[b.place] != math.prod(b.shape)]

    def write(self, block: Block, rows: Rows) -> None:
        """Keep a finished block; nothing else is touched when that fails."""
        for number, name in enumerate(self.arrays):
            values = rows[name]
            self.arrays[name][block.slices] = values.reshape(*block.shape, *values.shape[1:])
            self.nonfinite[(*block.place, number)] = nonfinite_points(values, 1).sum()
        self.points[block.place] = math.prod(block.shape)

    def fix_lanes(self, program: str, lanes: int) -> None:
        """Remember the lanes of a program: a point's last digits may depend on them."""
        self.lanes[program] = lanes

    def finish(self, start: float, seconds: float, points: int) -> None:
        """Close the books of one call: when it began, how long it took, how many points it computed."""

    def mark_computed(self) -> int:
        """Add the coordinate `computed` to the results; return how many points are."""
        points = self.points[...]
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
        return self.nonfinite[...].reshape(-1, len(self.arrays)).sum(0).tolist()


def fill(dtype: np.dtype) -> float:
    """What stands where nothing is computed: NaN where the dtype has it."""
    return np.nan if np.issubdtype(dtype, np.inexact) else 0.0


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
    `xarray.open_zarr` reads it without a warning.
    """

    def __init__(self, layout: Layout, path: Path):
        import zarr

        with _explained(path, "open"):
            self.path, self.group = path, zarr.open_group(path, mode="r+", use_consolidated=False)
        arrays = {name: self.group[name] for name in layout.shapes}
        super().__init__(layout, arrays, self.group["ledger/points"], self.group["ledger/nonfinite"])
        self.lanes = json.loads(str(self.group.attrs["lanes"]))

    @override
    def write(self, block: Block, rows: Rows) -> None:
        with _explained(self.path, f"write block {block.number} of"):
            super().write(block, rows)

    @override
    def missing(self) -> list[Block]:
        """Blocks that are not computed, and those that a broken machine tore after all."""
        missing = super().missing()
        torn = [b for b in self.layout.blocks if b not in missing and not self._is_readable(b)]
        return sorted(missing + torn)

    def _is_readable(self, block: Block) -> bool:
        try:
            for array in self.arrays.values():
                array[block.slices]
        except (OSError, RuntimeError, ValueError):  # what zarr's codecs raise on half a chunk
            return False
        return True

    @override
    def fix_lanes(self, program: str, lanes: int) -> None:
        super().fix_lanes(program, lanes)
        if jax.process_index() == 0 and self.group.attrs["lanes"] != json.dumps(self.lanes):
            with _explained(self.path, "write attributes of"):
                self.group.attrs["lanes"] = json.dumps(self.lanes)

    @override
    def labelled(self) -> "xr.Dataset":
        import xarray as xr

        return xr.open_zarr(self.path, chunks=None).assign_coords(self.coords)

    @override
    def finish(self, start: float, seconds: float, points: int) -> None:
        import zarr

        with _explained(self.path, "write attributes of"):
            for array, count in zip(self.arrays.values(), self._counts(), strict=True):
                array.attrs["nonfinite"] = count
            zarr.consolidate_metadata(self.path, zarr_format=2)
            # Beside the store, so that two runs leave the same store.
            with self.path.with_suffix(".times.jsonl").open("a") as times:
                times.write(json.dumps({"start": start, "seconds": seconds, "points": points}) + "\n")


def create_or_extend(path: Path, layout: Layout) -> Layout:
    """Make the store at `path`, or make the one that is there as large as the grid; return its layout.

    **Raises:** `ValueError` that says which of grid, dtype, key or program the store does not share.
    """
    if not path.exists():
        with _explained(path, "create"):
            _create(path, layout)
        return layout

    import zarr

    with _explained(path, "open"):
        group: Any = zarr.open_group(path, mode="r+", use_consolidated=False) if (path / ".zgroup").exists() else None
    if group is None or "theorysim" not in group.attrs:
        raise ValueError(f"{path} is not the store of a sweep: choose another store=, or remove it")
    refuse_if_other(path, layout, group)
    block = tuple(group.attrs["block"])
    layout = layout._replace(blocks=Blocks(layout.blocks.shape, block))
    stored = dict(group.attrs)
    if (
        any(stored.get(name) != value for name, value in _attrs(layout).items())
        or tuple(group["ledger/points"].shape) != layout.blocks.counts
    ):
        with _explained(path, "extend"):
            for name, shape in layout.shapes.items():
                group[name].resize(shape)
            group["ledger/points"].resize(layout.blocks.counts)
            group["ledger/nonfinite"].resize((*layout.blocks.counts, len(layout.shapes)))
            for name, coord in layout.coords.items():
                _put(group, name, coord, overwrite=True)
            group.attrs.update(_attrs(layout))
            zarr.consolidate_metadata(path, zarr_format=2)
    return layout


def points_in(path: Path) -> int:
    """How many points the store at `path` holds; 0 where there is none."""
    import zarr

    return int(np.sum(zarr.open_array(path / "ledger/points", mode="r")[...])) if path.exists() else 0


def refuse_if_other(path: Path, layout: Layout, group: Any) -> None:
    """Raise where the store at `path` was written by another grid, dtype, key or program."""

    def refuse(what: str, stored: Any, given: Any) -> None:
        raise ValueError(
            f"the store {path} holds another {what}: {stored} there, {given} here; "
            "choose another store=, or remove it to start again"
        )

    stored, given = json.loads(group.attrs["grid"]), json.loads(layout.attrs["grid"])
    if stored != given:
        refuse("grid", stored, given)
    dtypes = {name: str(group[name].dtype) for name in layout.shapes if name in group}
    dtypes |= {name: str(group[name].dtype) for name in layout.coords if name in group}
    wanted = {name: str(dtype) for name, dtype in layout.dtypes.items()}
    wanted |= {name: str(array.dtype) for name, (_, array) in layout.coords.items()}
    for name, dtype in dtypes.items():
        if dtype != wanted[name] and not dtype.startswith("<U"):
            refuse(f"dtype of {name!r}", dtype, wanted[name])
    for name, (_, array) in layout.coords.items():
        old = group[name][...]
        if len(old) > len(array) or not np.array_equal(old, array[: len(old)], equal_nan=array.dtype.kind in "fc"):
            refuse(f"grid along {name!r}", f"{len(old)} values {_brief(old)}", f"{len(array)} values {_brief(array)}")
    if group.attrs["key"] != layout.attrs["key"]:
        refuse("key", group.attrs["key"], layout.attrs["key"])
    old, new = json.loads(group.attrs["fingerprint"]), json.loads(layout.attrs["fingerprint"])
    for label in old.keys() & new.keys():
        if old[label] != new[label]:
            versions = [f"{old[label]} (jax {group.attrs['jax']})", f"{new[label]} (jax {layout.attrs['jax']})"]
            refuse(f"program{label and f' at {label}'}", *versions)


def _create(path: Path, layout: Layout) -> None:
    """Under another name first: a store is whole, or it is not there."""
    import zarr

    path.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        group = zarr.open_group(building, mode="w", zarr_format=2)
        for name, shape in layout.shapes.items():
            group.create_array(
                name,
                shape=shape,
                chunks=(*layout.blocks.block, *shape[len(layout.blocks.block) :]),
                dtype=layout.dtypes[name],
                # An integer's fill would be read as a missing value.
                fill_value=np.nan if np.isnan(fill(layout.dtypes[name])) else None,
                attributes={"_ARRAY_DIMENSIONS": list(layout.dims[name])},
            )
        for name, coord in layout.coords.items():
            _put(group, name, coord)
        ledger, counts = group.create_group("ledger"), layout.blocks.counts
        shapes = {"points": counts, "nonfinite": (*counts, len(layout.shapes))}
        for name, shape in shapes.items():
            one = (1,) * len(counts) + shape[len(counts) :]
            ledger.create_array(name, shape=shape, chunks=one, dtype=np.int64, fill_value=0)
        group.attrs.update({**_attrs(layout), "lanes": "{}"})
        zarr.consolidate_metadata(building, zarr_format=2)
        building.chmod(0o755)  # mkdtemp makes it private
        building.rename(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _put(group: Any, name: str, coord: tuple[str | tuple[str, ...], np.ndarray], overwrite: bool = False) -> None:
    dims, values = coord
    dims = [dims] if isinstance(dims, str) else list(dims)
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        fill_value=None,
        attributes={"_ARRAY_DIMENSIONS": dims},
        overwrite=overwrite,
    )
    array[...] = values


def _attrs(layout: Layout) -> dict[str, Any]:
    """Attributes of a store: the provenance, its block, and which arrays are coordinates."""
    others = " ".join(name for name, (dims, _) in layout.coords.items() if name != dims)
    return {**layout.attrs, "block": list(layout.blocks.block), **({"coordinates": others} if others else {})}


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"could not {doing} the store {path} ({error.strerror or error}); every block finished before is "
            "kept: free or repair the disk and make the same call again",
        ) from error


def _brief(values: np.ndarray) -> str:
    return np.array2string(values, threshold=4, edgeitems=2, precision=6)
