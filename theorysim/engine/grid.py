"""A grid of hyperparameters: named axes, multiplied out."""

import itertools
from collections.abc import Iterator, Mapping
from numbers import Number
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike


class static:  # noqa: N801 (reads as a word in `Grid(width=static(64, 128))`)
    """Values that `fn` sees as Python objects, one compile each: widths, depths, activations."""

    def __init__(self, *values: Any):
        self.values = values

    def labels(self) -> list[Any]:
        """Numbers as they are, anything else by its name."""
        if all(isinstance(v, Number) and not isinstance(v, bool) for v in self.values):
            return list(self.values)
        return [getattr(v, "__name__", str(v)) for v in self.values]


class zipped:  # noqa: N801
    """Arrays of one length that advance together: one dimension, several arguments of `fn`."""

    def __init__(self, **arrays: ArrayLike):
        self.arrays = arrays


class Axis(NamedTuple):
    """One dimension of a grid: either traced arrays or static values."""

    size: int
    arrays: Mapping[str, np.ndarray]
    loop: static | None = None


class Grid:
    """Named axes, multiplied out in the order they are given.

    **Arguments:**

    - an array of shape `(n,)`: a traced axis. `fn` sees one number at a time; one compile for all.
    - [`zipped`](`lr=..., batch_size=...`): a dimension along which several arguments advance together.
    - [`static`](`64, 128`): a Python loop, one compile a value. Outputs must have equal shapes.

    The keyword names the dimension, and the argument of `fn` (for `zipped`, its own keywords do).

    **Raises:** `ValueError` for an axis that is empty, not one-dimensional, not numeric, or zipped
    unevenly, and for an argument that is named twice.

    ```python
    Grid(weight_var=jnp.linspace(0.5, 4, 200), run=zipped(lr=lrs, seed=seeds), width=static(64, 128))
    ```
    """

    def __init__(self, **axes: ArrayLike | zipped | static):
        if not axes:
            raise ValueError("a Grid needs at least one axis, as in Grid(weight_var=[1.0, 2.0])")
        self.axes = {dim: _axis(dim, axis) for dim, axis in axes.items()}
        self.argument_names = [name for dim in self.axes for name in self.arguments(dim)]
        for name in (*self.argument_names, *self.axes):
            if self.argument_names.count(name) > 1:
                raise ValueError(f"the argument {name!r} stands on two axes of the grid: rename one")
            if name in self.axes and name in self.argument_names and name not in self.arguments(name):
                raise ValueError(f"{name!r} names one axis and is an argument on another: rename one")
            if name in ("key", "repeat"):
                raise ValueError(f"{name!r} is the sweep's own name: give the axis another one")

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimension names, in order."""
        return tuple(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return tuple(axis.size for axis in self.axes.values())

    @property
    def size(self) -> int:
        """Number of grid points."""
        return int(np.prod(self.shape, dtype=object))

    def arguments(self, dim: str) -> list[str]:
        """The arguments of `fn` that the dimension `dim` feeds."""
        return [dim] if self.axes[dim].loop else list(self.axes[dim].arrays)

    def traced(self) -> dict[str, tuple[int, np.ndarray]]:
        """Each traced argument: the position of its dimension, and its values as JAX will see them."""
        return {
            name: (position, _as_jax_sees(name, array))
            for position, axis in enumerate(self.axes.values())
            for name, array in axis.arrays.items()
        }

    def static_points(self) -> Iterator[tuple[dict[int, int], dict[str, Any]]]:
        """Each combination of static values: the index by dimension position, and the values by name."""
        loops = [
            [(position, i, dim, value) for i, value in enumerate(axis.loop.values)]
            for position, (dim, axis) in enumerate(self.axes.items())
            if axis.loop
        ]
        for combination in itertools.product(*loops):
            yield (
                {position: i for position, i, _, _ in combination},
                {dim: value for _, _, dim, value in combination},
            )

    def coords(self) -> dict[str, tuple[str, np.ndarray]]:
        """Coordinates by name, each with its dimension."""
        traced = {name: (self.dims[i], array) for name, (i, array) in self.traced().items()}
        labels = {d: (d, np.asarray(a.loop.labels())) for d, a in self.axes.items() if a.loop}
        return {**traced, **labels}

    def __repr__(self) -> str:
        kinds = (f"{d}: {a.size}{' static' if a.loop else ''}" for d, a in self.axes.items())
        return f"Grid({', '.join(kinds)})"


def _axis(dim: str, axis: ArrayLike | zipped | static) -> Axis:
    if isinstance(axis, static):
        if not axis.values:
            raise ValueError(f"the static axis {dim!r} is empty: give it at least one value")
        labels = list(map(str, axis.labels()))
        if len(set(labels)) < len(labels):
            raise ValueError(
                f"the static axis {dim!r} has values of one name, {labels}: name each (`f.__name__ = ...`)"
            )
        return Axis(len(axis.values), {}, axis)
    if not isinstance(axis, zipped):
        return Axis(_numeric(dim, axis).shape[0], {dim: _numeric(dim, axis)})
    if not axis.arrays:
        raise ValueError(f"the zipped axis {dim!r} is empty: name its arrays, as in zipped(lr=[0.1, 0.2])")
    arrays = {name: _numeric(name, array) for name, array in axis.arrays.items()}
    sizes = {name: array.size for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the arrays zipped along {dim!r} have unequal lengths {sizes}: make them equal")
    return Axis(next(iter(sizes.values())), arrays)


def _as_jax_sees(name: str, array: np.ndarray) -> np.ndarray:
    seen = np.asarray(jnp.asarray(array))
    if array.dtype.kind in "iu" and not np.array_equal(seen, array):
        raise ValueError(f"axis {name!r} holds integers that {seen.dtype} cannot: turn x64 on, or give floats")
    return seen


def _numeric(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biufc" and not jnp.issubdtype(array.dtype, jnp.number):
        raise ValueError(
            f"axis {name!r} holds {array.dtype} values, which cannot be traced: "
            f"make it static, as in Grid({name}=static(...)), or give numbers"
        )
    if array.ndim != 1:
        raise ValueError(
            f"axis {name!r} has shape {array.shape}, not (n,): "
            "give a list of numbers; sweep vectors by their index, and look them up in `fn`"
        )
    if array.size == 0:
        raise ValueError(f"axis {name!r} is empty: give it at least one value")
    return array
