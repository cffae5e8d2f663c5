"""`sweep`: a function over a grid, jitted once, vmapped, spread over devices, resumable, labelled."""

import functools
import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import jax
from jax.experimental import multihost_utils
from numpy.typing import ArrayLike

from theorysim.engine.finite import Kept
from theorysim.engine.folder import create_or_extend, folder_of, layout_in, points_in
from theorysim.engine.grid import Grid
from theorysim.engine.interrupt import heeded
from theorysim.engine.layout import Layout, Part, layout_of, parts_of
from theorysim.engine.output import Memory, Output, Store
from theorysim.engine.plan import Block, machine_of, whole
from theorysim.engine.program import Device, Executable

if TYPE_CHECKING:
    import xarray as xr


def sweep(
    fn: Callable,
    grid: Grid,
    *,
    key: jax.Array | None = None,
    repeats: SupportsIndex | None = None,
    common_random_numbers: bool = False,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    store: str | Path | None = None,
    keep: "xr.Dataset | None" = None,
    memory: int | float | None = None,
    lanes: SupportsIndex | None = None,
    devices: Sequence[Device] | None = None,
    progress: bool | None = None,
    dry_run: bool = False,
) -> Any:
    """Evaluate `fn` at every point of `grid`.

    ```python
    grid = Grid(weight_var=jnp.linspace(0.5, 4.0, 200), bias_var=jnp.linspace(0.0, 1.0, 200))
    data = sweep(lambda weight_var, bias_var: {"q": fixed_point(erf, weight_var, bias_var)}, grid)
    data["q"].plot()
    ```

    **Arguments:**

    - `fn`: takes one grid point by keyword (and `key` where one is given); returns a dict or NamedTuple of
      arrays. Pure and jittable; traced once per combination of static values, whatever the grid's size.
    - `grid`: the [`Grid`].
    - `key`: a typed PRNG key. Each point's key is folded from its index along every axis of the grid, so it
      stays the same when an axis grows.
    - `repeats`: adds the dimension `repeat`, with a key for each.
    - `common_random_numbers`: in one repeat, all points of the grid see one key, `jax.random.fold_in(key, repeat)`:
      differences between points are freed of the noise they share, and their errors are errors in common.
    - `dims`, `coords`: names of the outputs' own dimensions, `dims={"loss": ("step",)}`, and their coordinates.
    - `store`: folder of a zarr store. Each finished block is written as it finishes; the same call goes on where
      a killed one was; more points along an axis reuse what is there. The result reads the store when it is
      used: `.load()` takes it into memory.
    - `keep`: an earlier result on this grid, with this key. Its finite points are kept, the others computed.
    - `memory`: budget in bytes; half the machine's or the device's by default.
    - `lanes`: points computed at once per device; from the compiled program's memory analysis by default.
    - `devices`: this process's devices by default. Of several forced host devices, one is used where `fn` calls LAPACK:
      they share one thread pool, and in jaxlib 0.10 each can wait in it for the others, for ever.
    - `progress`: a bar over points; by default on a terminal only.
    - `dry_run`: return a [`Plan`] instead.

    **Returns:** an `xarray.Dataset` over the grid's dimensions, `repeat`, and the outputs' own. Its attributes
    hold the provenance; each variable's attribute `nonfinite` counts its points that are not finite, which
    [`nonfinite`] lists. Ctrl-C returns what is done, with a warning and the coordinate `computed`.

    With several processes (`jax.distributed`), block i goes to process i mod n; all need one `store`.

    **Raises:** `ValueError` for a grid that does not fit `fn`, and for a store of another sweep; `MemoryError`
    where eight lanes exceed the budget; `OSError` where a block cannot be written.
    """
    machine, count = machine_of(devices, memory, lanes), whole("repeats", repeats)
    store = None if store is None else folder_of(store)
    _check(fn, grid, key, count, common_random_numbers)
    parts = parts_of(fn, grid, key)
    layout = layout_of(
        grid,
        parts,
        key=key,
        repeats=count,
        common_random_numbers=common_random_numbers,
        dims=dims or {},
        coords=coords or {},
        memory=machine.memory,
    )
    kept = None if keep is None else Kept(keep, layout)
    operands = ({name: values for name, (_, values) in grid.traced().items()}, key)
    axes = range(len(layout.grid_dims))
    folded = axes[-1:] if common_random_numbers else axes

    def compiled(part: Part, lanes: int | None = None) -> Executable:
        executable = functools.partial(part.program.executable, operands, len(axes), folded)
        points = layout.points // len(parts)
        return machine.fit(executable, points, part.program.calls_lapack, store is not None, lanes)

    if dry_run:
        return _plan(layout, store, {part.label: compiled(part) for part in parts})

    with _output(layout, store, machine.memory) as out, heeded() as heed_interrupt, _bar(out, progress) as bar:
        missing = [block for block in out.missing() if _is_mine(block)]
        for part in parts:
            blocks = [block for block in missing if part.owns(block)]
            if not blocks:
                continue
            program = compiled(part, out.lanes.get(part.label))
            out.fix_lanes(part.label, program.lanes)
            every = ((block, block.points()) for block in blocks)
            for block, rows in program.stream(every) if kept is None else kept.stream(program, blocks):
                out.write(block, rows)
                bar.update(math.prod(block.shape))
                heed_interrupt()
    return out.labelled()


class Plan(NamedTuple):
    """What a sweep would do, from `sweep(..., dry_run=True)`."""

    points: int
    missing: int
    blocks: int
    lanes: dict[str, int]
    device_bytes: int
    result_bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.missing:,} of {self.points:,} points to compute, in {self.blocks:,} blocks, "
            f"{max(self.lanes.values()):,} at once per device; {self.device_bytes / 2**20:,.1f} MiB on a device, "
            f"{self.result_bytes / 2**20:,.1f} MiB of results; about {self.seconds:.2g} s after compiling"
        )


def _plan(layout: Layout, store: Path | None, programs: dict[str, Executable]) -> Plan:
    missing = layout.points - (points_in(store, layout) if store is not None else 0)
    seconds = 0.0
    for program in programs.values():
        index = next(iter(layout.blocks)).points()[: program.width]
        jax.block_until_ready(program(index))
        start = time.perf_counter()
        jax.block_until_ready(program(index))
        seconds += (time.perf_counter() - start) * missing / len(programs) / program.width
    return Plan(
        points=layout.points,
        missing=missing,
        blocks=math.prod(layout.blocks.counts),
        lanes={label: program.lanes for label, program in programs.items()},
        device_bytes=max(program.bytes for program in programs.values()),
        result_bytes=layout.bytes,
        seconds=seconds,
    )


def _check(fn: Callable, grid: Grid, key: Any, repeats: int | None, common_random_numbers: bool) -> None:
    if not isinstance(grid, Grid):
        raise ValueError(f"grid is {type(grid).__name__}: pass a Grid, as in Grid(weight_var=[1.0, 2.0])")
    if key is None and repeats is not None:
        raise ValueError(f"repeats={repeats} without a key repeats one number: pass key=jax.random.key(0)")
    if common_random_numbers and repeats is None:
        raise ValueError("common_random_numbers=True without repeats, which they are common to: pass key= and repeats=")
    if key is not None and not (isinstance(key, jax.Array) and jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"key={key!r}: pass one typed key, jax.random.key(0)")
    if key is not None and key.shape:
        raise ValueError(f"key has shape {key.shape}: pass one typed key, jax.random.key(0)")
    parameters = inspect.signature(fn).parameters.values()
    given = {*grid.argument_names, *([] if key is None else ["key"])}
    takes = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    missing = {p.name for p in parameters if p.name in takes - given and p.default is p.empty}
    if missing == {"key"}:
        raise ValueError("`fn` takes a key and the sweep has none: pass key=jax.random.key(0)")
    if missing:
        raise ValueError(f"`fn` takes {sorted(missing)}, which {grid} lacks: add an axis, or give `fn` a default")
    if given - takes and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(
            f"`fn` does not take {sorted(given - takes)}, which the sweep passes; it takes {sorted(takes)}"
        )


def _is_mine(block: Block) -> bool:
    return block.number % jax.process_count() == jax.process_index()


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextmanager
def _output(layout: Layout, store: Path | None, memory: int) -> Iterator[Output]:
    """The place of the results; an interrupt leaves it with what is done."""
    if store is None:
        if jax.process_count() > 1:
            raise ValueError("a sweep over several processes needs a store= that all of them can write")
        if layout.bytes > memory:
            raise MemoryError(f"the results need {layout.bytes:,} bytes, more than memory={memory:,}: pass store=")
        out = Memory(layout)
    else:
        if jax.process_index() == 0:
            create_or_extend(store, layout)
        _barrier("store")
        out = Store(layout_in(store, layout), store)
    start, before = time.time(), out.computed
    try:
        yield out
    except KeyboardInterrupt:
        if jax.process_count() > 1:  # the others wait for the blocks of this one
            raise
        points = out.mark_computed()
        warnings.warn(f"sweep interrupted: {points:,} of {layout.points:,} points are computed", stacklevel=4)
    _barrier("blocks")
    if jax.process_index() == 0:
        out.finish(start, time.time() - start, out.computed - before)
    _barrier("attributes")


def _bar(out: Output, progress: bool | None) -> Any:
    """Points per second and time left; on a terminal unless asked."""
    from tqdm import tqdm

    return tqdm(
        total=out.layout.points,
        initial=out.computed,
        unit=" points",
        unit_scale=True,
        disable=None if progress is None else not progress,
    )
