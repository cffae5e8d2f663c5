"""Named axes and what they refuse."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theorysim.engine import Grid, labelled, static, zipped


def test_axes_multiply_out_in_the_order_they_are_given():
    grid = Grid(weight_var=jnp.linspace(0, 1, 5), run=zipped(lr=[0.1, 0.2], batch_size=[8, 16]), width=static(64, 128))
    assert grid.dims == ("weight_var", "run", "width")
    assert grid.shape == (5, 2, 2)
    assert grid.size == 20
    assert grid.argument_names == ["weight_var", "lr", "batch_size", "width"]
    assert {name: dim for name, (dim, _) in grid.coords().items()} == {
        "weight_var": "weight_var",
        "lr": "run",
        "batch_size": "run",
        "width": "width",
    }
    assert [values for _, values in grid.static_points()] == [{"width": 64}, {"width": 128}]
    assert repr(grid) == "Grid(weight_var: 5, run: 2, width: 2 static)"


def test_static_values_are_labelled_by_number_or_name():
    coords = Grid(activation=static(jnp.tanh, jax.nn.relu), width=static(1, 2)).coords()
    assert coords["activation"][1].tolist() == ["tanh", "relu"]
    assert coords["width"][1].tolist() == [1, 2]


class Law(NamedTuple):
    power: jax.Array
    floor: float


def test_labelled_values_are_numbers_arrays_or_trees_behind_labels():
    laws = {"smooth": Law(jnp.arange(3.0), 0.1), "rough one": Law(jnp.ones(3), 0.2)}
    grid = Grid(
        activation=labelled(tanh=0, relu=1), law=labelled(laws), reach=labelled({0.5: [1.0, 2.0], 2.0: [3.0, 4.0]})
    )
    assert grid.shape == (2, 2, 2)
    assert grid.argument_names == ["activation", "law", "reach"]
    assert [labels.tolist() for _, labels in grid.coords().values()] == [["tanh", "relu"], [*laws], [0.5, 2.0]]
    position, law = grid.traced()["law"]
    assert position == 1
    assert isinstance(law, Law)
    np.testing.assert_array_equal(law.power, [[0, 1, 2], [1, 1, 1]])
    np.testing.assert_array_equal(law.floor, [0.1, 0.2])
    assert repr(grid) == "Grid(activation: 2 labelled, law: 2 labelled, reach: 2 labelled)"


def test_dtypes_are_those_that_jax_will_see():
    with jax.enable_x64(False):
        assert Grid(x=np.linspace(0, 1, 3)).traced()["x"][1].dtype == np.float32
    assert Grid(x=np.linspace(0, 1, 3)).traced()["x"][1].dtype == np.float64


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "needs at least one axis"),
        ({"x": []}, "axis 'x' is empty"),
        ({"x": static()}, "static axis 'x' is empty"),
        ({"x": zipped()}, "zipped axis 'x' is empty"),
        ({"x": labelled()}, "labelled axis 'x' is empty"),
        ({"x": labelled({})}, "labelled axis 'x' is empty"),
        ({"x": labelled({None: 1.0})}, r"labels along 'x' are \[None\]: give names, or numbers"),
        ({"x": labelled(a=jnp.tanh)}, "the value at x='a' is .* cannot be traced.*make the axis static"),
        ({"x": labelled(a=[1.0, 2.0], b=[1.0])}, r"'x' are unequal: PyTreeDef\(\[\*, \*\]\) .* at 'b'"),
        (
            {"x": labelled(a=np.ones(2), b=np.ones(3))},
            r"unequal: .* shapes \[\(2,\)\] at 'a', .* shapes \[\(3,\)\] at 'b'",
        ),
        ({"f": static(functools.partial(lambda x: x, 1))}, "'f' holds 'functools.partial.*memory address.*__name__ = "),
        ({"f": static(object())}, "'f' holds '<object object at 0x.*give its class a __str__"),
        ({"x": np.array(1.0)}, r"axis 'x' has shape \(\), not \(n,\)"),
        ({"x": np.eye(2)}, r"axis 'x' has shape \(2, 2\)"),
        ({"x": ["tanh", "relu"]}, r"axis 'x' holds <U4 values.*make it static"),
        ({"x": [None, jnp.tanh]}, r"axis 'x' holds object values.*make it static"),
        ({"run": zipped(a=[1, 2], b=[1, 2, 3])}, r"unequal lengths \{'a': 2, 'b': 3\}"),
        ({"a": [1], "run": zipped(a=[1])}, "'a' stands on two axes"),
        ({"key": [1]}, "'key' is the sweep's own name"),
        ({"repeat": [1]}, "'repeat' is the sweep's own name"),
    ],
)
def test_bad_axes_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        Grid(**axes)
