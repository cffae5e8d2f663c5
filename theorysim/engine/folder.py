"""The folder of a sweep's zarr store: made, extended, repaired, locked; another sweep's is refused."""

import errno
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from theorysim.engine.finite import is_inexact
from theorysim.engine.layout import Layout
from theorysim.engine.plan import Blocks

TORN = (OSError, RuntimeError, ValueError)  # what zarr's codecs raise on a damaged chunk
PATIENCE = 60.0  # seconds that another process may take to make or extend a store


def folder_of(store: str | Path) -> Path:
    """The path of a store; `ValueError` for an address."""
    if re.match(r"\w{2,}:/", str(store)):
        raise ValueError(
            f"store={str(store)!r} is an address, and a store is a folder, which is locked and repaired file by file: "
            "mount the bucket, or copy the finished store there"
        )
    return Path(store).expanduser()


def create_or_extend(path: Path, layout: Layout) -> None:
    """Make the store at `path`, or make the one that is there as large as the grid, and what it lost of its metadata.

    **Raises:** `ValueError` that says what of grid, dtype, key, program or labelled values the store does not share.
    """
    with explained(path, "extend" if path.exists() else "create"), locked(path):
        if not path.exists():
            _create(path, layout)
            return
        layout = layout_in(path, layout)
        group = opened(path)
        attrs = _attrs(layout, group.attrs)
        if any(group.attrs.get(name) != value for name, value in attrs.items()) or not _is_whole(group, layout):
            _extend(group, layout, attrs)


def layout_in(path: Path, layout: Layout) -> Layout:
    """The layout with the blocks of the store at `path`; `ValueError` where that is another sweep's."""
    group = opened(path)
    _refuse_if_other(path, layout, group)
    return layout._replace(blocks=Blocks(layout.blocks.shape, tuple(group.attrs["block"])))


def points_in(path: Path, layout: Layout) -> int:
    """How many points the store at `path` holds; 0 where there is none, refused where it is another's."""
    if not path.exists():
        return 0
    group = opened(path)
    _refuse_if_other(path, layout, group)
    return int(readable(group["ledger/points"]).sum()) if "ledger/points" in group else 0


def opened(path: Path) -> Any:
    """The zarr group of the store at `path`; `ValueError` where it is not the store of a sweep."""
    import zarr

    for name in (".zgroup", ".zattrs", "ledger"):
        if not (path / name).exists():
            raise ValueError(
                f"{path} is not the store of a sweep, or it lost {name!r}: choose another store=, put {name!r} back "
                "from a copy, or remove the store to start again"
            )
    _check_metadata(path)
    group: Any = zarr.open_group(path, mode="r+", use_consolidated=False)
    if "coords" not in group.attrs:
        raise ValueError(f"{path} is not the store of a sweep: choose another store=, or remove it")
    return group


def _check_metadata(path: Path) -> None:
    folders = (path, *path.iterdir(), path / "ledger/points", path / "ledger/nonfinite")
    for file in (folder / name for folder in folders for name in (".zgroup", ".zarray", ".zattrs", ".zmetadata")):
        try:
            if file.exists():
                json.loads(file.read_text())
        except ValueError as error:
            remedy = "remove it, and the same call writes it again"
            if file.parent == path and file.name != ".zmetadata":
                remedy = "put it back from a copy, or remove the store to start again"
            raise ValueError(f"{file} is damaged: {remedy}") from error


def array_in(group: Any, name: str) -> Any:
    """An array of a store that writes chunks of fill values too: a block without a file is a lost one."""
    import zarr

    with zarr.config.set({"array.write_empty_chunks": True}):  # zarr reads it as an array opens
        return group[name]


def readable(ledger: Any) -> np.ndarray:
    """The ledger as an array; a cell that a broken machine tore counts as 0."""
    try:
        return np.asarray(ledger[...])
    except TORN:
        return np.array([cell(ledger, place) for place in np.ndindex(ledger.shape)], np.int64).reshape(ledger.shape)


def cell(ledger: Any, place: tuple[int, ...]) -> int:
    """One cell of the ledger."""
    try:
        return int(ledger[place])
    except TORN:
        return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time changes the store at `path`, which has its lock beside it. Nobody does on a disk that can
    only be read.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=PATIENCE)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """What the system says of the disk, with what stands there and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"could not {doing} the store {path} ({error.strerror or error}); every block finished before is "
            "kept: free or repair the disk and make the same call again",
        ) from error


def fill(dtype: np.dtype) -> float:
    """What stands where nothing is computed: NaN where the dtype has it."""
    return np.nan if is_inexact(dtype) else 0.0


def _create(path: Path, layout: Layout) -> None:
    """Under another name first: a store is whole, or it is not there."""
    import zarr

    for name, dtype in _dtypes(layout).items():
        if dtype.kind not in "biufcU" or dtype.isbuiltin == 2:  # 2: one of ml_dtypes'
            raise ValueError(f"{name!r} is {dtype}, for which zarr has no type: return it as float32 or int32")
    building = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        group = zarr.open_group(building, mode="w", zarr_format=2)
        _add_arrays(group, layout)
        for name in layout.coords:
            _put(group, name, layout)
        group.attrs.update({**_attrs(layout), "lanes": "{}"})
        zarr.consolidate_metadata(building, zarr_format=2)
        building.chmod(0o755)  # mkdtemp makes it private
        building.rename(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _extend(group: Any, layout: Layout, attrs: dict[str, Any]) -> None:
    """Make room. The attributes, which hold the valid length of each coordinate, come last: a kill before changes
    nothing that counts, and this runs again.
    """
    import zarr

    _add_arrays(group, layout)
    for name, shape in {**layout.shapes, **_ledger(layout)}.items():
        group[name].resize(shape)
    lengths = json.loads(group.attrs["coords"])
    for name, (_, values) in layout.coords.items():
        old, _ = lengths.get(name, (0, ""))
        if not _holds(group, name, layout, old):  # longer labels, a new coordinate, or a damaged one
            _put(group, name, layout)
        elif old < len(values):
            array = array_in(group, name)
            array.resize(values.shape)
            array[old:] = values[old:]
    group.attrs.update(attrs)
    zarr.consolidate_metadata(group.store, zarr_format=2)


def _dtypes(layout: Layout) -> dict[str, np.dtype]:
    """Of results and coordinates."""
    return layout.dtypes | {name: values.dtype for name, (_, values) in layout.coords.items()}


def _ledger(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Shapes of the ledger's arrays."""
    counts = layout.blocks.counts
    return {"ledger/points": counts, "ledger/nonfinite": (*counts, len(layout.shapes))}


def _add_arrays(group: Any, layout: Layout) -> None:
    """The arrays of results and of the ledger that the group lacks, chunks that are there untouched."""
    group.require_group("ledger")
    block, counts = layout.blocks.block, layout.blocks.counts
    for name, shape in layout.shapes.items():
        attributes = {"_ARRAY_DIMENSIONS": list(layout.dims[name])}
        if name not in group:
            # An integer's fill would be read as a missing value.
            empty = np.nan if np.isnan(fill(layout.dtypes[name])) else None
            chunks = (*block, *shape[len(block) :])
            _add(group, name, shape, chunks, layout.dtypes[name], empty, attributes)
        elif "_ARRAY_DIMENSIONS" not in group[name].attrs:
            group[name].attrs.update(attributes)
    for name, shape in _ledger(layout).items():
        if name not in group:
            _add(group, name, shape, (1,) * len(counts) + shape[len(counts) :], np.dtype(np.int64), 0)


def _put(group: Any, name: str, layout: Layout) -> None:
    """Write a coordinate, in place of what is there."""
    dim, values = layout.coords[name]
    shutil.rmtree(Path(group.store.root) / name, ignore_errors=True)
    array = _add(group, name, values.shape, values.shape, values.dtype, None, {"_ARRAY_DIMENSIONS": [dim]})
    array[...] = values


def _add(group: Any, name: str, shape: Any, chunks: Any, dtype: np.dtype, fill: Any, attributes: Any = None) -> Any:
    """An array whose chunks are all written, each with a checksum: half a chunk can pass for a whole one."""
    from numcodecs import Zstd

    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill,
        attributes=attributes,
        compressors=Zstd(checksum=True),
        config={"write_empty_chunks": True},
    )


def _is_whole(group: Any, layout: Layout) -> bool:
    """Whether all metadata is there, and all coordinates."""
    return (
        all("_ARRAY_DIMENSIONS" in group[name].attrs if name in group else False for name in layout.shapes)
        and all(name in group for name in ("ledger", *_ledger(layout)))
        and all(_holds(group, name, layout, len(values)) for name, (_, values) in layout.coords.items())
    )


def _holds(group: Any, name: str, layout: Layout, length: int) -> bool:
    """Whether the first values of a coordinate can be read and are those of the layout."""
    dim, values = layout.coords[name]
    try:
        array = group[name]
        stored = array[:length]
    except (KeyError, *TORN):
        return False
    return (
        array.attrs.get("_ARRAY_DIMENSIONS") == [dim]
        and array.dtype == values.dtype
        and _digest(stored) == _digest(values[:length])
    )


def _refuse_if_other(path: Path, layout: Layout, group: Any) -> None:
    """Raise where the store at `path` was written by another grid, dtype, key, program or value behind a label."""

    def refuse(what: str, stored: Any, given: Any) -> None:
        raise ValueError(
            f"the store {path} holds another {what}: {stored} there, {given} here; "
            "choose another store=, or remove it to start again"
        )

    stored, given = json.loads(group.attrs["grid"]), json.loads(layout.attrs["grid"])
    if stored != given:
        refuse("grid", stored, given)
    for name, dtype in _dtypes(layout).items():
        if name in group and group[name].dtype != dtype and dtype.kind != "U":
            refuse(f"dtype of {name!r}", group[name].dtype, dtype)
    lengths = json.loads(group.attrs["coords"])
    for name, (_, values) in layout.coords.items():
        length, digest = lengths.get(name, (0, _digest(values[:0])))
        if length > len(values) or _digest(values[:length]) != digest:
            refuse(f"grid along {name!r}", _stored(group, name, length), f"{len(values)} values {_brief(values)}")
    if group.attrs["key"] != layout.attrs["key"]:
        refuse("key", group.attrs["key"], layout.attrs["key"])
    for what, attribute in (("program", "fingerprint"), ("value", "values")):
        old, new = json.loads(group.attrs[attribute]), json.loads(layout.attrs[attribute])
        for label in new:
            if label in old and old[label] != new[label]:
                versions = [f"{old[label]} (jax {group.attrs['jax']})", f"{new[label]} (jax {layout.attrs['jax']})"]
                refuse(f"{what}{label and f' at {label}'}", *versions)


def _stored(group: Any, name: str, length: int) -> str:
    try:
        return f"{length} values {_brief(group[name][:length])}"
    except (KeyError, *TORN):
        return f"{length} values"


_COMPUTED_BY = ("theorysim", "jax", "jaxlib", "device", "x64", "matmul_precision", "xla_flags")


def _attrs(layout: Layout, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Attributes of a store: the provenance, its block, and each coordinate's length and digest.

    What goes on with a store under other versions or on another device is added, in `also_computed_by`.
    """
    attrs = {
        **layout.attrs,
        "block": list(layout.blocks.block),
        "coords": json.dumps({name: (len(values), _digest(values)) for name, (_, values) in layout.coords.items()}),
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


def _digest(values: np.ndarray) -> str:
    """Of a coordinate's values: labels count whatever their width."""
    content = json.dumps(values.tolist()).encode() if values.dtype.kind == "U" else values.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _brief(values: np.ndarray) -> str:
    return np.array2string(values, threshold=4, edgeitems=2, precision=6)
