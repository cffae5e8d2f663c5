"""`fn` at the points of a grid: one trace, one executable of fixed shape, any number of devices."""

import functools
import hashlib
import io
import itertools
import pickle
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from typing_extensions import override

Rows = dict[str, np.ndarray]
Traced = Mapping[
    str, tuple[int, Any]
]  # argument of fn: position of its axis, values along it (arrays, or trees of them)
Operands = tuple[dict[str, Any], jax.Array | None]  # values along the axes, and the key
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

        points = {name: jax.tree.map(_one_of, values) for name, (_, values) in traced.items()}
        key_type = None if key is None else jax.ShapeDtypeStruct(key.shape, key.dtype)
        # Traced here once. Under `shard_map` a jitted `fn` would be traced again: another mesh, another cache entry.
        self._jaxpr, self.outputs = jax.make_jaxpr(named, return_shape=True)(points, key_type)
        self._positions = {name: position for name, (position, _) in traced.items()}
        self._compiled: dict[Any, tuple[jax.stages.Compiled, int]] = {}
        # The lowered text shows closed-over constants too: two programs with one fingerprint are one program.
        text = jax.jit(self._point).lower(points, key_type).as_text()
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.calls_lapack = "custom_call @lapack_" in text

    def executable(
        self, operands: Operands, axes: int, folded: Sequence[int], lanes: int, devices: list[Device]
    ) -> "Executable":
        """An executable of `lanes` points per device, for a grid of so many axes; compiled once.

        A point's key is folded from its index along the axes `folded`.

        Every device runs the same program of the same shape however many there are, so that a point's
        value depends neither on the devices nor on the block it is computed in. (It may depend on the
        lanes: matrix products of 16 and of 64 rows round differently.)
        """
        mesh = Mesh(np.array(devices), ("lane",), axis_types=(AxisType.Auto,))
        operands = jax.device_put(operands, NamedSharding(mesh, PartitionSpec()))
        sharding = NamedSharding(mesh, PartitionSpec("lane"))
        tile = jax.ShapeDtypeStruct((lanes * len(devices), axes), np.int32, sharding=sharding)
        shape = (lanes, axes, tuple(folded), mesh)
        if shape not in self._compiled:
            sharded = jax.shard_map(
                jax.vmap(functools.partial(self._lane, folded), in_axes=(None, None, 0)),
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec("lane")),
                out_specs=PartitionSpec("lane"),
                check_vma=False,
            )
            compiled = jax.jit(sharded).lower(*operands, tile).compile()
            self._compiled[shape] = compiled, _bytes(compiled)
        return Executable(*self._compiled[shape], operands, tile)

    def _lane(self, folded: Sequence[int], along: dict[str, Any], key: jax.Array | None, index: jax.Array):
        """The outputs at one index of the grid."""
        if key is not None:
            for axis in folded:
                key = jax.random.fold_in(key, index[axis])
        values = {
            name: jax.tree.map(lambda array, i=index[position]: array.at[i].get(mode="promise_in_bounds"), along[name])
            for name, position in self._positions.items()
        }
        return self._point(values, key)

    def _point(self, values: dict[str, Any], key: jax.Array | None) -> dict[str, Any]:
        leaves = jaxpr_as_fun(self._jaxpr)(*jax.tree.leaves((values, key)))
        return jax.tree.unflatten(jax.tree.structure(self.outputs), leaves)


def configured(name: str) -> Any:
    """JAX's setting `name` where this line runs, `with jax.enable_x64(...)` included."""
    return getattr(jax.config, name)


_programs: weakref.WeakKeyDictionary[Callable, dict[Any, tuple[Program, list[Any]]]] = weakref.WeakKeyDictionary()


def program_of(fn: Callable, static_values: Mapping[str, Any], traced: Traced, key: jax.Array | None) -> Program:
    """The `Program` of `fn`: as with `jax.jit`, one function object is traced once for each kind of input."""
    kinds = tuple((name, position, jax.tree.structure(values)) for name, (position, values) in traced.items())
    types = tuple((array.shape, str(array.dtype)) for _, values in traced.values() for array in jax.tree.leaves(values))
    setting = (configured("jax_enable_x64"), configured("jax_default_matmul_precision"))
    try:
        known = _programs.setdefault(fn, {})
        content, named = _content(static_values)
    except Exception:  # `fn` has no weak reference, or no hash; or a static value cannot be pickled, for its own reason
        return Program(fn, static_values, traced, key)
    kind = (id(fn), kinds, types, content, key is not None and key.dtype, setting)
    if kind not in known:
        known[kind] = Program(fn, static_values, traced, key), named
    return known[kind][0]


class _Pickler(pickle.Pickler):
    """Functions and classes by their identity: another function may have the same name."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.named: list[Any] = []

    @override
    def persistent_id(self, obj: Any) -> int | None:
        if not hasattr(obj, "__name__"):
            return None
        self.named.append(obj)
        return id(obj)


def _content(static_values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """A digest of static values: 1, 1.0 and True are three programs, and a list that was changed is another one.

    With it, what went in by its identity: a cache holds on to that, so that no other object gets the same.
    """
    pickler = _Pickler(file := io.BytesIO())
    pickler.dump(dict(static_values))
    return hashlib.sha256(file.getvalue()).hexdigest(), pickler.named


def _one_of(array: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape[1:], array.dtype)


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

        Blocks of any size are laid end to end and cut into full tiles, so that no lane idles between them.
        """
        ahead, blocks = itertools.tee(blocks)
        computed = self._computed(_tiles((index for _, index in ahead), self.width))
        ready: deque[Rows] = deque()
        for block, index in blocks:
            while (rows := _take(ready, len(index))) is None:
                ready.append(next(computed))
            yield block, rows

    def _computed(self, tiles: Iterable[np.ndarray]) -> Iterator[Rows]:
        """The rows of each tile; two are on the devices while the host takes care of the one before."""
        flying: deque[tuple[dict[str, jax.Array], int]] = deque()

        def land() -> Rows:
            tile, points = flying.popleft()
            return {name: np.asarray(rows)[:points] for name, rows in tile.items()}

        for index in tiles:
            flying.append((self(index), len(index)))
            if len(flying) > 2:
                yield land()
        while flying:
            yield land()


def _tiles(indices: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """All points in order, `width` at a time; the last tile has what is left."""
    queue: list[np.ndarray] = []
    for index in indices:
        queue.append(index)
        while sum(map(len, queue)) >= width:
            points = np.concatenate(queue)
            yield points[:width]
            queue = [points[width:]]
    if sum(map(len, queue)):
        yield np.concatenate(queue)


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
