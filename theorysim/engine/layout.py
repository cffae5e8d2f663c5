"""What a sweep will produce: its parts, its arrays with their names, and where they come from."""

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from theorysim.engine.grid import Grid
from theorysim.engine.plan import Block, Blocks, cut
from theorysim.engine.program import Program, configured, program_of

version = functools.cache(metadata.version)


class Part(NamedTuple):
    """The sweep at one combination of static values."""

    label: str
    static: dict[int, int]
    program: Program

    def owns(self, block: Block) -> bool:
        """Whether a block lies in this part of the grid."""
        return all(block.place[axis] == i for axis, i in self.static.items())


class Layout(NamedTuple):
    """The arrays of a sweep: one a variable, over the grid's dimensions and its own."""

    blocks: Blocks
    dims: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]
    coords: dict[str, tuple[str, np.ndarray]]
    attrs: dict[str, Any]

    @property
    def points(self) -> int:
        """Points of the grid, repeats included."""
        return math.prod(self.blocks.shape)

    @property
    def bytes(self) -> int:
        """Size of the results."""
        return sum(math.prod(self.shapes[name]) * self.dtypes[name].itemsize for name in self.shapes)

    @property
    def grid_dims(self) -> tuple[str, ...]:
        """The grid's dimensions, `repeat` included."""
        return next(iter(self.dims.values()))[: len(self.blocks.shape)]


def parts_of(fn: Callable, grid: Grid, key: jax.Array | None) -> list[Part]:
    """Trace `fn` once per combination of static values; `ValueError` where their outputs differ in shape."""
    traced, parts = grid.traced(), []
    labels = [axis.loop.labels() if axis.loop else [] for axis in grid.axes.values()]
    for index, values in grid.static_points():
        label = ", ".join(f"{grid.dims[axis]}={labels[axis][i]}" for axis, i in index.items())
        parts.append(Part(label, index, program_of(fn, values, traced, key)))
    first = parts[0]
    for part in parts[1:]:
        if part.program.outputs != first.program.outputs:
            raise ValueError(
                f"static values give unequal outputs: {_brief(first)} at {first.label}, {_brief(part)} at "
                f"{part.label}; return arrays of one shape and dtype, or make a sweep of each value"
            )
    return parts


def layout_of(
    grid: Grid,
    parts: list[Part],
    *,
    key: jax.Array | None,
    repeats: int | None,
    common_random_numbers: bool,
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, ArrayLike],
    memory: int,
) -> Layout:
    """Names, shapes, coordinates and provenance; `ValueError` where `dims` or `coords` do not fit."""
    outputs = parts[0].program.outputs
    shape, grid_dims = grid.shape, grid.dims
    axes = {dim: grid.arguments(dim) for dim in grid.dims}
    named: dict[str, tuple[str, np.ndarray]] = dict(grid.coords())
    if repeats is not None:
        shape, grid_dims = (*shape, repeats), (*grid_dims, "repeat")
        named["repeat"] = ("repeat", np.arange(repeats))
    own_dims = _own_dims(outputs, dims, grid_dims)
    sizes = {dim: n for name, own in own_dims.items() for dim, n in zip(own, outputs[name].shape, strict=True)}
    for name, values in coords.items():
        array = np.asarray(values)
        if array.shape != (sizes.get(name),):
            raise ValueError(f"coords[{name!r}] has shape {array.shape}; the outputs' own dimensions are {sizes}")
        named[name] = (name, array)
    taken = {*named, *grid_dims, *sizes, "repeat", "computed", "ledger"}
    if clash := taken & outputs.keys():
        raise ValueError(f"`fn` returns {sorted(clash)}, the names of coordinates or dimensions: rename these outputs")
    if odd := [name for name in (*outputs, *taken) if "/" in name or name.startswith(".")]:
        raise ValueError(f"the names {odd} cannot be stored: use no slash, and no dot in front")
    variables = {name: grid_dims + own_dims[name] for name in outputs}
    point_bytes = sum(out.size * out.dtype.itemsize for out in outputs.values())
    return Layout(
        blocks=cut(shape, set(parts[0].static), point_bytes, memory),
        dims=variables,
        shapes={name: shape + out.shape for name, out in outputs.items()},
        dtypes={name: np.dtype(out.dtype) for name, out in outputs.items()},
        coords=named,
        attrs={
            "grid": json.dumps({"axes": axes, "variables": variables}),
            "key": "" if key is None else _key_name(key, common_random_numbers),
            "values": json.dumps(grid.digests()),
            "fingerprint": json.dumps({part.label: part.program.fingerprint for part in parts}),
            "theorysim": version("theorysim"),
            "jax": version("jax"),
            "jaxlib": version("jaxlib"),
            "device": jax.local_devices()[0].device_kind,
            "x64": int(configured("jax_enable_x64")),
            "matmul_precision": str(configured("jax_default_matmul_precision")),
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
        },
    )


def _key_name(key: jax.Array, common_random_numbers: bool) -> str:
    common = ", common to all points" if common_random_numbers else ""
    return f"{jax.random.key_impl(key)} {jax.random.key_data(key).tolist()}{common}"


def _own_dims(
    outputs: Mapping[str, jax.ShapeDtypeStruct], dims: Mapping[str, Sequence[str]], grid_dims: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    if unknown := dims.keys() - outputs.keys():
        raise ValueError(f"dims= names {sorted(unknown)}, which `fn` does not return: it returns {sorted(outputs)}")
    own: dict[str, tuple[str, ...]] = {}
    sizes: dict[str, int] = {}
    for name, out in outputs.items():
        if isinstance(dims.get(name), str):
            raise ValueError(f"dims[{name!r}] is the string {dims[name]!r}: give a list of names, [{dims[name]!r}]")
        own[name] = tuple(dims.get(name, [f"{name}_{i}" for i in range(out.ndim)]))
        if len(set(own[name]) - set(grid_dims)) != out.ndim:
            raise ValueError(
                f"dims[{name!r}] is {own[name]}, and one grid point gives shape {out.shape}: "
                f"name each of its dimensions once, by none of the grid's names {grid_dims}"
            )
        for dim, size in zip(own[name], out.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"the dimension {dim!r} has length {sizes[dim]}, but {size} in {name!r}: rename one")
    return own


def _brief(part: Part) -> str:
    return ", ".join(f"{name}: {out.dtype}{list(out.shape)}" for name, out in part.program.outputs.items())
