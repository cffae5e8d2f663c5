"""Where a sweep's results go: arrays in memory, or a zarr store that survives the process."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from typing_extensions import override

from theorysim.engine.finite import is_inexact, nonfinite_points
from theorysim.engine.layout import Layout
from theorysim.engine.plan import Block, Blocks
from theorysim.engine.program import Rows

if TYPE_CHECKING:
    import xarray as xr


_TORN = (OSError, RuntimeError, ValueError)  # what zarr's codecs raise on half a chunk


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
        return int(_readable(self.points).sum())

    def missing(self) -> list[Block]:
        """Blocks that are not computed, or not with all the points they have now."""
        points = _readable(self.points)
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
        points = _readable(self.points)
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
        return _readable(self.nonfinite).reshape(-1, len(self.arrays)).sum(0).tolist()


def fill(dtype: np.dtype) -> float:
    """What stands where nothing is computed: NaN where the dtype has it."""
    return np.nan if is_inexact(dtype) else 0.0


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
        import zarr

        # A chunk of fill values is written too: a block without a file is a lost one.
        with (
            _explained(self.path, f"write block {block.number} of"),
            zarr.config.set({"array.write_empty_chunks": True}),
        ):
            super().write(block, rows)

    @override
    def missing(self) -> list[Block]:
        """Blocks that are not computed, and those that a broken machine tore or lost after all."""
        missing = {block.number for block in super().missing()}
        return [b for b in self.layout.blocks if b.number in missing or not self._is_readable(b)]

    def _is_readable(self, block: Block) -> bool:
        try:
            for name, array in self.arrays.items():
                chunk = (*block.place, *(0,) * (array.ndim - len(block.place)))
                if not (self.path / name / ".".join(map(str, chunk))).exists():
                    return False
                array[block.slices]
        except _TORN:
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

        return xr.open_zarr(self.path, chunks=None).drop_encoding().assign_coords(self.coords)

    @override
    def finish(self, start: float, seconds: float, points: int) -> None:
        import zarr

        with _explained(self.path, "write attributes of"):
            for array, count in zip(self.arrays.values(), self._counts(), strict=True):
                array.attrs["nonfinite"] = count
            zarr.consolidate_metadata(self.path, zarr_format=2)
            # Beside the store, so that two runs leave the same store.
            with self.path.with_name(f"{self.path.name}.times.jsonl").open("a") as times:
                times.write(json.dumps({"start": start, "seconds": seconds, "points": points}) + "\n")


def create_or_extend(path: Path, layout: Layout) -> Layout:
    """Make the store at `path`, or make the one that is there as large as the grid; return its layout.

    **Raises:** `ValueError` that says which of grid, dtype, key or program the store does not share.
    """
    if not path.exists():
        with _explained(path, "create"):
            _create(path, layout)
        return layout

    group = opened(path)
    refuse_if_other(path, layout, group)
    layout = layout._replace(blocks=Blocks(layout.blocks.shape, tuple(group.attrs["block"])))
    attrs = _attrs(layout, group.attrs)
    if any(group.attrs.get(name) != value for name, value in attrs.items()):
        with _explained(path, "extend"):
            _extend(group, layout, attrs)
    return layout


def opened(path: Path) -> Any:
    """The zarr group of the store at `path`; `ValueError` where it is not the store of a sweep."""
    import zarr

    with _explained(path, "open"):
        group: Any = zarr.open_group(path, mode="r+", use_consolidated=False) if (path / ".zgroup").exists() else None
    if group is None or "lengths" not in group.attrs:
        raise ValueError(f"{path} is not the store of a sweep: choose another store=, or remove it")
    return group


def points_in(path: Path, layout: Layout) -> int:
    """How many points the store at `path` holds; 0 where there is none, refused where it is another's."""
    if not path.exists():
        return 0
    group = opened(path)
    refuse_if_other(path, layout, group)
    return int(_readable(group["ledger/points"]).sum())


def _extend(group: Any, layout: Layout, attrs: dict[str, Any]) -> None:
    """Make room. The attributes, which hold the valid length of each coordinate, come last: a kill before changes
    nothing that counts, and this runs again.
    """
    import zarr

    counts = layout.blocks.counts
    sizes = {**layout.shapes, "ledger/points": counts, "ledger/nonfinite": (*counts, len(layout.shapes))}
    for name, shape in sizes.items():
        group[name].resize(shape)
    for name, (_, values) in layout.coords.items():
        old = json.loads(group.attrs["lengths"]).get(name, 0)
        if name not in group or group[name].dtype != values.dtype:  # longer labels, or a new coordinate
            _put(group, name, layout.coords[name])
        elif old < len(values):
            group[name].resize(values.shape)
            group[name][old:] = values[old:]
    group.attrs.update(attrs)
    zarr.consolidate_metadata(group.store, zarr_format=2)


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
        old = group[name][: json.loads(group.attrs["lengths"]).get(name, 0)] if name in group else array[:0]
        if len(old) > len(array) or not np.array_equal(old, array[: len(old)], equal_nan=array.dtype.kind in "fc"):
            refuse(f"grid along {name!r}", f"{len(old)} values {_brief(old)}", f"{len(array)} values {_brief(array)}")
    if group.attrs["key"] != layout.attrs["key"]:
        refuse("key", group.attrs["key"], layout.attrs["key"])
    old, new = json.loads(group.attrs["fingerprint"]), json.loads(layout.attrs["fingerprint"])
    for label in new:
        if label in old and old[label] != new[label]:
            versions = [f"{old[label]} (jax {group.attrs['jax']})", f"{new[label]} (jax {layout.attrs['jax']})"]
            refuse(f"program{label and f' at {label}'}", *versions)


def _create(path: Path, layout: Layout) -> None:
    """Under another name first: a store is whole, or it is not there."""
    import zarr

    for name, dtype in {**layout.dtypes, **{name: values.dtype for name, (_, values) in layout.coords.items()}}.items():
        if dtype.kind not in "biufcU" or dtype.isbuiltin == 2:  # 2: one of ml_dtypes'
            raise ValueError(f"{name!r} is {dtype}, for which zarr has no type: return it as float32 or int32")
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


def _put(group: Any, name: str, coord: tuple[str, np.ndarray]) -> None:
    dim, values = coord
    attributes = {"_ARRAY_DIMENSIONS": [dim]}
    array = group.create_array(
        name, shape=values.shape, dtype=values.dtype, fill_value=None, attributes=attributes, overwrite=True
    )
    array[...] = values


_COMPUTED_BY = ("theorysim", "jax", "jaxlib", "device", "x64", "matmul_precision", "xla_flags")


def _attrs(layout: Layout, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Attributes of a store: the provenance, its block, which arrays are coordinates and how long they are.

    What goes on with a store under other versions or on another device is added, in `also_computed_by`.
    """
    attrs = {
        **layout.attrs,
        "block": list(layout.blocks.block),
        "lengths": json.dumps({name: len(values) for name, (_, values) in layout.coords.items()}),
    }
    if others := " ".join(name for name, (dim, _) in layout.coords.items() if name != dim):
        attrs["coordinates"] = others
    if stored is not None:
        ours = {name: attrs[name] for name in _COMPUTED_BY}
        theirs = {name: stored[name] for name in _COMPUTED_BY}
        later = json.loads(stored.get("also_computed_by", "[]"))
        if ours != theirs and ours not in later:
            attrs["also_computed_by"] = json.dumps([*later, ours])
        attrs |= theirs
    return attrs


def _readable(ledger: Any) -> np.ndarray:
    """The ledger as an array; a cell that a broken machine tore counts as 0."""
    try:
        return np.asarray(ledger[...])
    except _TORN:
        cells = np.zeros(ledger.shape, np.int64)
        for place in np.ndindex(ledger.shape):
            with suppress(*_TORN):
                cells[place] = ledger[place]
        return cells


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
