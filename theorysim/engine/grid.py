"""A grid of hyperparameters: named axes, multiplied out."""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from numbers import Number
from typing import Any, NamedTuple

import jax
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


class labelled:  # noqa: N801
    """Values behind labels, given as to `dict`: `fn` sees a value, traced, and the result's coordinate is its label.

    A value is a number, an array, or a tree of them (a dict, a tuple, a NamedTuple): equal in structure and
    shapes for all labels, so that one compile serves them all.

    ```python
    Grid(target=labelled(smooth=jnp.array([1.0, 0.1]), rough=jnp.array([1.0, 0.7])))
    Grid(reach=labelled({0.5: {"n": n, "loss": low}, 2.0: {"n": n, "loss": high}}))
    ```
    """

    def __init__(self, values: Mapping[Any, Any] | None = None, /, **named: Any):
        self.values = {**(values or {}), **named}


class Axis(NamedTuple):
    """One dimension of a grid: static values, or by argument what is traced, stacked along the first axis."""

    size: int
    arrays: Mapping[str, Any]
    loop: static | None = None
    labels: np.ndarray | None = None


class Grid:
    """Named axes, multiplied out in the order they are given.

    **Arguments:**

    - an array of shape `(n,)`: a traced axis. `fn` sees one number at a time; one compile for all.
    - [`zipped`](`lr=..., batch_size=...`): a dimension along which several arguments advance together.
    - [`labelled`](`smooth=..., rough=...`): numbers, arrays or trees of them behind labels; one compile for all.
    - [`static`](`64, 128`): a Python loop, one compile per value. Outputs must have equal shapes.

    The keyword names the dimension, and the argument of `fn` (for `zipped`, its own keywords do).

    **Raises:** `ValueError` for an axis that is empty, not one-dimensional, not numeric, or zipped
    unevenly, for labelled values of unequal shapes, for a static value without a name that lasts, and for an
    argument that is named twice.

    ```python
    Grid(weight_var=jnp.linspace(0.5, 4, 200), run=zipped(lr=lrs, seed=seeds), width=static(64, 128))
    ```
    """

    def __init__(self, **axes: ArrayLike | zipped | labelled | static):
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

    def traced(self) -> dict[str, tuple[int, Any]]:
        """Each traced argument: the position of its dimension, and its values as JAX will see them."""
        return {
            name: (position, jax.tree.map(lambda array, name=name: _as_jax_sees(name, array), values))
            for position, axis in enumerate(self.axes.values())
            for name, values in axis.arrays.items()
        }

    def digests(self) -> dict[str, str]:
        """A digest of what stands behind each label, which no coordinate shows."""
        traced = self.traced()
        return {
            f"{dim}={label}": _digest(jax.tree.map(lambda array, i=i: array[i], traced[dim][1]))
            for dim, axis in self.axes.items()
            if axis.labels is not None
            for i, label in enumerate(axis.labels)
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
        traced = {name: (self.dims[i], values) for name, (i, values) in self.traced().items()}
        loops = {d: (d, np.asarray(a.loop.labels())) for d, a in self.axes.items() if a.loop}
        labels = {d: (d, a.labels) for d, a in self.axes.items() if a.labels is not None}
        return {**traced, **loops, **labels}

    def __repr__(self) -> str:
        def kind(axis: Axis) -> str:
            return " static" if axis.loop else "" if axis.labels is None else " labelled"

        return f"Grid({', '.join(f'{dim}: {axis.size}{kind(axis)}' for dim, axis in self.axes.items())})"


def _axis(dim: str, axis: ArrayLike | zipped | labelled | static) -> Axis:
    if isinstance(axis, static):
        return _static(dim, axis)
    if isinstance(axis, labelled):
        return _labelled(dim, axis.values)
    if not isinstance(axis, zipped):
        return Axis(_numeric(dim, axis).shape[0], {dim: _numeric(dim, axis)})
    if not axis.arrays:
        raise ValueError(f"the zipped axis {dim!r} is empty: name its arrays, as in zipped(lr=[0.1, 0.2])")
    arrays = {name: _numeric(name, array) for name, array in axis.arrays.items()}
    sizes = {name: array.size for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the arrays zipped along {dim!r} have unequal lengths {sizes}: make them equal")
    return Axis(next(iter(sizes.values())), arrays)


def _static(dim: str, axis: static) -> Axis:
    if not axis.values:
        raise ValueError(f"the static axis {dim!r} is empty: give it at least one value")
    labels = list(map(str, axis.labels()))
    if len(set(labels)) < len(labels):
        raise ValueError(f"the static axis {dim!r} has values of one name, {labels}: name each (`f.__name__ = ...`)")
    if passing := [label for label in labels if re.search(r"\b0x[0-9a-f]+", label)]:
        raise ValueError(
            f"the static axis {dim!r} holds {passing[0]!r}, a name with a memory address, which no other run repeats: "
            "name the value (`f.__name__ = ...`), or give its class a __str__"
        )
    return Axis(len(axis.values), {}, axis)


def _labelled(dim: str, values: Mapping[Any, Any]) -> Axis:
    if not values:
        raise ValueError(f"the labelled axis {dim!r} is empty: give it at least one, as in labelled(a=0.1, b=0.2)")
    labels = np.asarray(list(values))
    if labels.dtype.kind not in "biufU" or labels.ndim != 1:
        raise ValueError(f"the labels along {dim!r} are {list(values)}: give names, or numbers")
    first, *others = ((label, *_leaves(dim, label, value)) for label, value in values.items())
    for label, leaves, structure in others:
        shapes, those = ([leaf.shape for leaf in leaves] for leaves in (first[1], leaves))
        if structure != first[2] or shapes != those:
            raise ValueError(
                f"the values labelled along {dim!r} are unequal: {first[2]} of shapes {shapes} at {first[0]!r}, "
                f"{structure} of shapes {those} at {label!r}; give arrays of one shape (padded, with a mask), or a "
                "static axis"
            )
    stacked = [np.stack(leaves) for leaves in zip(first[1], *(leaves for _, leaves, _ in others), strict=True)]
    return Axis(len(labels), {dim: jax.tree.unflatten(first[2], stacked)}, labels=labels)


def _leaves(dim: str, label: Any, value: Any) -> tuple[list[np.ndarray], Any]:
    leaves, structure = jax.tree.flatten(value)
    arrays = [np.asarray(leaf) for leaf in leaves]
    if not arrays or not all(_is_number(array.dtype) for array in arrays):
        raise ValueError(
            f"the value at {dim}={label!r} is {value!r}, which cannot be traced: give numbers or arrays, or make the "
            f"axis static, as in Grid({dim}=static(...))"
        )
    return arrays, structure


def _is_number(dtype: np.dtype) -> bool:
    return dtype.kind in "biufc" or bool(jnp.issubdtype(dtype, jnp.number))


def _digest(value: Any) -> str:
    content = [f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes() for leaf in jax.tree.leaves(value)]
    return hashlib.sha256(b"".join(content)).hexdigest()[:16]


def _as_jax_sees(name: str, array: np.ndarray) -> np.ndarray:
    seen = np.asarray(jnp.asarray(array))
    if array.dtype.kind in "iu" and not np.array_equal(seen, array):
        raise ValueError(f"axis {name!r} holds integers that {seen.dtype} cannot: turn x64 on, or give floats")
    return seen


def _numeric(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if not _is_number(array.dtype):
        raise ValueError(
            f"axis {name!r} holds {array.dtype} values, which cannot be traced: "
            f"make it static, as in Grid({name}=static(...)), or give numbers"
        )
    if array.ndim != 1:
        raise ValueError(
            f"axis {name!r} has shape {array.shape}, not (n,): "
            f"give a list of numbers, or arrays behind labels, as in Grid({name}=labelled(...))"
        )
    if array.size == 0:
        raise ValueError(f"axis {name!r} is empty: give it at least one value")
    return array
