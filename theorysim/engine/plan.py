"""How a grid is cut: blocks that are written at once, lanes that are computed at once."""

import itertools
import math
import operator
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from theorysim.engine.program import Device, Executable

FEWEST_LANES = 8
MANY_POINTS = 2**16  # held in memory by a CPU: each must be cheap, and a tile starts slowly there (0.7 ms)
BLOCKS = 64  # and into about so many blocks, for a killed sweep to lose little
BLOCK_BYTES = 2**22
MARGIN = 1.1  # allocators round up


class Tiling(NamedTuple):
    """Into how many tiles the points go where memory allows, and the most lanes of one."""

    tiles: int
    most_lanes: int


FINE = Tiling(16, 2**18)  # for several devices to share, and for a killed sweep to lose little
COARSE = Tiling(3, 2**19)


class Block(NamedTuple):
    """A rectangle of the grid: its number, its place among the blocks, its extent along each axis."""

    number: int
    place: tuple[int, ...]
    slices: tuple[slice, ...]

    def points(self) -> np.ndarray:
        """Grid indices of its points, shape (points, axes)."""
        grid = np.indices([s.stop - s.start for s in self.slices], dtype=np.int32)
        origin = np.array([s.start for s in self.slices], np.int32)
        return grid.reshape(len(self.slices), -1).T + origin

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(s.stop - s.start for s in self.slices)


class Blocks(NamedTuple):
    """A grid of shape `shape`, cut into rectangles of shape `block` (smaller at the far edges)."""

    shape: tuple[int, ...]
    block: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(math.ceil(n / b) for n, b in zip(self.shape, self.block, strict=True))

    def __iter__(self) -> Iterator[Block]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for number, place in enumerate(itertools.product(*map(range, self.counts))):
            sides = zip(place, self.block, self.shape, strict=True)
            yield Block(number, place, tuple(slice(i * b, min(i * b + b, n)) for i, b, n in sides))


def cut(shape: tuple[int, ...], static_axes: set[int], bytes_per_point: int, memory: int) -> Blocks:
    """Blocks of about 1/64 of the points with equal static values, longest along the last axes."""
    traced = math.prod(n for axis, n in enumerate(shape) if axis not in static_axes)
    room = min(BLOCK_BYTES, memory / 16) / max(bytes_per_point, 1)
    left = max(1, min(max(FEWEST_LANES, traced // BLOCKS), int(room)))
    block = []
    for axis in reversed(range(len(shape))):
        block.append(1 if axis in static_axes else min(shape[axis], left))
        left = max(1, left // block[-1])
    return Blocks(shape, tuple(reversed(block)))


def fit_to_memory(
    executable: Callable[[int, list[Device]], Executable],
    points: int,
    memory: int,
    devices: list[Device],
    lanes: int | None = None,
    tiling: Tiling = FINE,
) -> Executable:
    """The widest executable that `points` can use and `memory` (bytes) can hold.

    The lanes per device are fixed by the program, the grid and the memory, never by the number of
    devices: where the memory holds fewer tiles than there are devices, fewer devices work.
    """
    room = memory / 2 / MARGIN
    if lanes is None:
        lanes = _lanes_for(points, tiling)
        wide = executable(lanes, devices)
        if wide.bytes > room:
            # The footprint is affine in the lanes: a second probe gives its slope.
            narrow = executable(FEWEST_LANES, devices)
            slope = max(wide.bytes - narrow.bytes, 1) / max(lanes - FEWEST_LANES, 1)
            fitting = FEWEST_LANES + (room - narrow.bytes) / slope
            if fitting < FEWEST_LANES:
                raise MemoryError(
                    f"{FEWEST_LANES} points of this sweep need {narrow.bytes:,} bytes on one device, more than "
                    f"half of memory={memory:,}: raise memory=, or sweep with lanes=1"
                )
            lanes = _power_of_two(int(fitting))
    fitted = executable(lanes, devices)
    if devices[0].platform == "cpu" and fitted.bytes * len(devices) > room:
        # Forced host devices share one memory.
        return executable(lanes, devices[: max(1, int(room / fitted.bytes))])
    return fitted


class Machine(NamedTuple):
    """What a sweep runs on: devices, the memory of one (on CPU: of all) in bytes, and the lanes that were asked for."""

    devices: list[Device]
    memory: int
    lanes: int | None

    def fit(
        self,
        executable: Callable[[int, list[Device]], Executable],
        points: int,
        calls_lapack: bool,
        stored: bool,
        lanes: int | None = None,
    ) -> Executable:
        """The widest executable for so many points, or the one of `lanes`."""
        on_cpu = self.devices[0].platform == "cpu"
        # Tiles are coarse where their start would show.
        tiling = COARSE if points > MANY_POINTS and not stored and on_cpu else FINE
        # Each of several host devices can wait in their one thread pool for what the others would do there.
        devices = self.devices[:1] if calls_lapack and on_cpu else self.devices
        return fit_to_memory(executable, points, self.memory, devices, lanes or self.lanes, tiling)


def machine_of(devices: Any, memory: Any, lanes: Any) -> Machine:
    """The machine as the user describes it; `ValueError` where that is none."""
    try:
        given = list(jax.local_devices() if devices is None else devices)
    except TypeError:  # a single device
        given = [None]
    if not all(isinstance(device, Device) for device in given):
        raise ValueError(f"devices={devices!r}: pass a list of devices, as in jax.devices('cpu'), or None")
    if not given:
        raise ValueError("devices=[] leaves nothing to compute on: pass jax.local_devices(), or None")
    if memory is not None and not (isinstance(memory, (int, float, np.number)) and 0 < memory < math.inf):
        raise ValueError(
            f"memory={memory!r}: give a number of bytes, as in memory=2**30, or None for half of what is there"
        )
    return Machine(given, _available_memory(given[0]) if memory is None else int(memory), whole("lanes", lanes))


def whole(name: str, value: Any) -> int | None:
    """A positive whole number of any integer type, or None; `ValueError` for anything else."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}={value!r}: give a whole number, at least 1, or None")
    return number


def _available_memory(device: Device) -> int:
    """Half the memory of one device, in bytes: of the machine on CPU."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return (limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2


def _lanes_for(points: int, tiling: Tiling) -> int:
    """An equal share of the points, rounded up with little padding."""
    share = min(math.ceil(points / tiling.tiles), tiling.most_lanes)
    return math.ceil(share / 64) * 64 if share > 64 else max(FEWEST_LANES, _power_of_two(2 * share - 1))


def _power_of_two(n: int) -> int:
    """The largest power of two that is at most `n`."""
    return 1 << max(n.bit_length() - 1, 0)
