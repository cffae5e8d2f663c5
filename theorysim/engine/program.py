"""`fn` at the points of a grid: one trace, one executable of fixed shape, any number of devices."""

import hashlib
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Rows = dict[str, np.ndarray]
Traced = Mapping[str, tuple[int, np.ndarray]]  # argument of fn: position of its axis, values along it
Operands = tuple[dict[str, np.ndarray], jax.Array | None]  # values along the axes, and the key
Block = TypeVar("Block")
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm] (jaxlib has no stub of it)


class Program:
    """`fn` at one combination of static values: its output shapes, its fingerprint, its executables."""

    def __init__(
        self,
        fn: Callable,
        static_values: Mapping[str, Any],
        traced: Traced,
        key: jax.Array | None,
    ):
        def named(values, key):
            keyed = {} if key is None else {"key": key}
            return _named(fn(**values, **static_values, **keyed))

        scalars = {name: jax.ShapeDtypeStruct((), array.dtype) for name, (_, array) in traced.items()}
        key_type = None if key is None else jax.ShapeDtypeStruct(key.shape, key.dtype)
        # Traced here once. Under `shard_map` a jitted `fn` would be traced again: another mesh, another cache entry.
        jaxpr, outputs = jax.make_jaxpr(named, return_shape=True)(scalars, key_type)
        self.outputs: dict[str, jax.ShapeDtypeStruct] = outputs

        def point(values, key):
            leaves = jaxpr_as_fun(jaxpr)(*jax.tree.leaves((values, key)))
            return jax.tree.unflatten(jax.tree.structure(outputs), leaves)

        def lane(arrays, key, index):
            if key is not None:
                for i in range(index.shape[0]):
                    key = jax.random.fold_in(key, index[i])
            values = {
                name: arrays[name].at[index[position]].get(mode="promise_in_bounds")
                for name, (position, _) in traced.items()
            }
            return point(values, key)

        self._tile = jax.vmap(lane, in_axes=(None, None, 0))
        self._compiled: dict[Any, tuple[jax.stages.Compiled, int]] = {}
        # The lowered text shows closed-over constants too: two programs with one fingerprint are one program.
        text = jax.jit(point).lower(scalars, key_type).as_text()
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def executable(self, operands: Operands, lanes: int, axes: int, devices: list[Device]) -> "Executable":
        """An executable of `lanes` points a device, for a grid of so many axes; compiled once.

        Every device runs the same program of the same shape however many there are, so that a point's
        value depends neither on the devices nor on the block it is computed in. (It may depend on the
        lanes: matrix products of 16 and of 64 rows round differently.)
        """
        mesh = Mesh(np.array(devices), ("lane",), axis_types=(AxisType.Auto,))
        operands = jax.device_put(operands, NamedSharding(mesh, PartitionSpec()))
        sharding = NamedSharding(mesh, PartitionSpec("lane"))
        tile = jax.ShapeDtypeStruct((lanes * len(devices), axes), np.int32, sharding=sharding)
        if (lanes, axes, mesh) not in self._compiled:
            sharded = jax.shard_map(
                self._tile,
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec("lane")),
                out_specs=PartitionSpec("lane"),
                check_vma=False,
            )
            compiled = jax.jit(sharded).lower(*operands, tile).compile()
            self._compiled[lanes, axes, mesh] = compiled, _bytes(compiled)
        return Executable(*self._compiled[lanes, axes, mesh], operands, tile)


def configured(name: str) -> Any:
    """JAX's setting `name` where this line runs, `with jax.enable_x64(...)` included."""
    return getattr(jax.config, name)


_programs: weakref.WeakKeyDictionary[Callable, dict[Any, tuple[Program, Mapping[str, Any]]]] = (
    weakref.WeakKeyDictionary()
)


def program_of(fn: Callable, static_values: Mapping[str, Any], traced: Traced, key: jax.Array | None) -> Program:
    """The `Program` of `fn`: as with `jax.jit`, one function object is traced once for each kind of input."""
    kinds = tuple((name, position, array.shape, str(array.dtype)) for name, (position, array) in traced.items())
    setting = (configured("jax_enable_x64"), configured("jax_default_matmul_precision"))
    # By identity: 1, 1.0 and True are equal, and mean three programs. The kept values keep their identities.
    static = tuple((name, id(value)) for name, value in static_values.items())
    kind = (id(fn), kinds, static, key is not None and key.dtype, setting)
    try:
        known = _programs.setdefault(fn, {})
    except TypeError:  # an `fn` that has no weak reference, or no hash
        return Program(fn, static_values, traced, key)
    if kind not in known:
        known[kind] = Program(fn, static_values, traced, key), static_values
    return known[kind][0]


class Executable(NamedTuple):
    """A compiled tile of points: grid indices of shape (lanes * devices, axes), to rows of output."""

    compiled: jax.stages.Compiled
    bytes: int  # that one call takes on one device
    operands: tuple
    tile: jax.ShapeDtypeStruct

    @property
    def width(self) -> int:
        """Points in one call, all devices together."""
        return self.tile.shape[0]

    @property
    def lanes(self) -> int:
        """Points in one call on one device."""
        return self.tile.sharding.shard_shape(self.tile.shape)[0]  # pyright: ignore[reportOptionalMemberAccess]

    def __call__(self, index: np.ndarray) -> dict[str, jax.Array]:
        """Start computing the points of `index` (at most `width` of them; the rest is padding)."""
        if len(index) < self.width:
            index = np.pad(index, ((0, self.width - len(index)), (0, 0)), mode="edge")
        return self.compiled(*self.operands, jax.device_put(index, self.tile.sharding))

    def stream(self, blocks: Iterable[tuple[Block, np.ndarray]]) -> Iterator[tuple[Block, Rows]]:
        """The rows of each block, as they are ready.

        Blocks of any size are laid end to end and cut into full tiles, so that no lane idles between
        them; two tiles are on the devices while the host takes care of the one before.
        """
        waiting: deque[tuple[Block, int]] = deque()
        todo: list[np.ndarray] = []
        flying: deque[tuple[dict[str, jax.Array], int]] = deque()
        ready: deque[Rows] = deque()

        def land() -> Iterator[tuple[Block, Rows]]:
            tile, points = flying.popleft()
            ready.append({name: np.asarray(rows)[:points] for name, rows in tile.items()})
            while waiting and (rows := _take(ready, waiting[0][1])) is not None:
                yield waiting.popleft()[0], rows

        for block, index in blocks:
            waiting.append((block, len(index)))
            todo.append(index)
            while sum(map(len, todo)) >= self.width:
                queue = np.concatenate(todo)
                flying.append((self(queue[: self.width]), self.width))
                todo = [queue[self.width :]]
                if len(flying) > 2:
                    yield from land()
        if rest := sum(map(len, todo)):
            flying.append((self(np.concatenate(todo)), rest))
        while flying:
            yield from land()


def _bytes(compiled: jax.stages.Compiled) -> int:
    """Arguments, outputs and temporaries; 0 where the backend keeps it to itself."""
    use = compiled.memory_analysis()
    # peak_memory_in_bytes would leave the temporaries out on CPU.
    return (use and use.temp_size_in_bytes + use.argument_size_in_bytes + use.output_size_in_bytes) or 0


def _take(ready: deque[Rows], count: int) -> Rows | None:
    """The first `count` rows of the finished tiles, or None while there are fewer."""
    lengths = [len(next(iter(rows.values()))) for rows in ready]
    if sum(lengths) < count:
        return None
    parts = []
    for length in lengths:
        rows = ready.popleft()
        parts.append({name: array[:count] for name, array in rows.items()})
        if length > count:
            ready.appendleft({name: array[count:] for name, array in rows.items()})
        count -= min(length, count)
        if count == 0:
            break
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _named(out: Any) -> dict[str, jax.Array]:
    """The leaves of a dict, NamedTuple or dataclass by name; a nested leaf is called `outer.inner`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(out)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    if len(named) < len(leaves):
        raise ValueError(f"`fn` returns two outputs of one name among {sorted(named)}: rename one")
    if not named or "" in named:
        raise ValueError(
            f"`fn` returned {type(out).__name__}: return named arrays, as in {{'loss': loss}} or a NamedTuple"
        )
    for name, leaf in named.items():
        if jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.dtypes.prng_key):
            raise ValueError(f"output {name!r} is a PRNG key: return jax.random.key_data of it")
    return named
