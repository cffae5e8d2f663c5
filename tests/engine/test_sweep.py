"""The sweep: labels, keys, traces, equal numbers however it is cut, clear refusals."""

import signal
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from theorysim.engine import Grid, labelled, nonfinite, static, sweep, zipped
from theorysim.engine.plan import machine_of, whole
from theorysim.engine.program import Executable

KEY = jax.random.key(7)


def hand_written(fn, key, *arrays):
    """`fn` over a product of arrays, keyed as the sweep keys it."""
    points = np.stack(np.meshgrid(*[np.arange(len(a)) for a in arrays], indexing="ij"), -1).reshape(-1, len(arrays))

    def one(index):
        k = key
        for i in index:
            k = jax.random.fold_in(k, i)
        return fn(*[jnp.asarray(a)[i] for a, i in zip(arrays, index, strict=True)], k)

    return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(points))).reshape([len(a) for a in arrays])


def noisy(x, y, key):
    return {"z": jnp.sin(x) * y + jax.random.normal(key)}


def test_equals_the_hand_written_vmap():
    x, y = np.linspace(0, 1, 7), np.linspace(1, 2, 5)
    data = sweep(noisy, Grid(x=x, y=y), key=KEY)
    assert data["z"].dims == ("x", "y")
    np.testing.assert_array_equal(data["x"], x)
    expected = hand_written(lambda x, y, k: jnp.sin(x) * y + jax.random.normal(k), KEY, x, y)
    np.testing.assert_allclose(data["z"], expected, rtol=1e-14)  # other widths round differently


def test_repeats_have_keys_of_their_own_and_points_keep_theirs_when_an_axis_grows():
    grid, longer = Grid(x=[1.0, 2.0], y=[3.0]), Grid(x=[1.0, 2.0, 4.0], y=[3.0, 5.0])
    data = sweep(noisy, grid, key=KEY, repeats=3)
    assert data["z"].dims == ("x", "y", "repeat")
    assert len(np.unique(data["z"])) == 6
    more = sweep(noisy, longer, key=KEY, repeats=4)
    xr.testing.assert_equal(data["z"], more["z"].isel(x=slice(2), y=slice(1), repeat=slice(3)))


def test_common_random_numbers_are_one_key_a_repeat():
    grid = Grid(x=[0.0, 1.0, 2.0], width=static(2, 3))

    def fn(x, width, key):
        return {"z": x + jax.random.normal(key)}

    data = sweep(fn, grid, key=KEY, repeats=4, common_random_numbers=True)
    noise = jnp.stack([jax.random.normal(jax.random.fold_in(KEY, repeat)) for repeat in range(4)])
    np.testing.assert_allclose(data["z"] - data["x"], np.broadcast_to(noise, (3, 2, 4)), rtol=1e-14, atol=1e-15)
    assert data.attrs["key"] == "threefry2x32 [0, 7], common to all points"


def test_common_random_numbers_are_not_mixed_with_others(tmp_path):
    def fn(x, key):
        return {"z": x + jax.random.normal(key)}

    grid, store = Grid(x=[0.0, 1.0]), tmp_path / "runs.zarr"
    common = {"key": KEY, "repeats": 2, "common_random_numbers": True}
    data = sweep(fn, grid, store=store, **common).load()
    with pytest.raises(ValueError, match=r"another key: .*7\], common to all points there, threefry2x32 \[0, 7\] here"):
        sweep(fn, grid, key=KEY, repeats=2, store=store)
    with pytest.raises(ValueError, match=r"computed with the key .* common to all points"):
        sweep(fn, grid, key=KEY, repeats=2, keep=data)
    more = sweep(fn, Grid(x=[0.0, 1.0, 2.0]), store=store, **common | {"repeats": 3})
    xr.testing.assert_equal(more.isel(x=slice(2), repeat=slice(2)).load(), data)


class Law(NamedTuple):
    power: jax.Array
    floor: jax.Array


LAWS = {"smooth": Law(np.array([1.0, 0.5, 0.1]), np.array(0.1)), "rough": Law(np.array([1.0, 0.9, 0.8]), np.array(0.2))}


def test_labelled_values_reach_fn_traced_in_one_program(tmp_path):
    traces = []

    def fn(law, activation, x):
        traces.append(law)
        y = jax.lax.switch(activation, [jnp.tanh, jax.nn.relu], x)
        return {"y": (law.power * y).sum() + law.floor}

    grid = Grid(law=labelled(LAWS), activation=labelled(tanh=0, relu=1), x=[-1.0, 0.5])
    data = sweep(fn, grid)
    assert len(traces) == 1
    assert data["y"].dims == ("law", "activation", "x")
    assert data["y"].sel(law="rough", activation="tanh", x=0.5) == pytest.approx(2.7 * np.tanh(0.5) + 0.2, rel=1e-14)
    store = tmp_path / "runs.zarr"
    xr.testing.assert_identical(sweep(fn, grid, store=store).load().drop_attrs(), data.drop_attrs())


def test_other_values_behind_the_labels_are_refused(tmp_path):
    def fn(law):
        return {"y": law.power.sum()}

    store, grown = tmp_path / "runs.zarr", LAWS | {"a third one": Law(np.zeros(3), np.array(0.0))}
    sweep(fn, Grid(law=labelled(LAWS)), store=store)
    data = sweep(fn, Grid(law=labelled(grown)), store=store).load()
    assert data["law"].values.tolist() == list(grown)
    assert data["y"].sel(law="rough") == pytest.approx(2.7)
    changed = grown | {"rough": Law(np.ones(3), np.array(0.2))}
    with pytest.raises(ValueError, match="holds another value at law=rough: "):
        sweep(fn, Grid(law=labelled(changed)), store=store)
    with pytest.raises(ValueError, match="other values behind its labels"):
        sweep(fn, Grid(law=labelled(changed)), keep=data)


def test_zipped_arguments_advance_together():
    data = sweep(lambda a, b: {"s": a + b}, Grid(run=zipped(a=[1.0, 2.0], b=[10.0, 20.0])))
    assert data["s"].dims == ("run",)
    assert set(data.coords) == {"a", "b"}
    np.testing.assert_array_equal(data["s"], [11.0, 22.0])


class Curve(NamedTuple):
    loss: jax.Array
    steps: jax.Array


def test_outputs_carry_their_own_dimensions_and_coordinates():
    def fn(rate):
        return {"curve": Curve(jnp.exp(-rate * jnp.arange(4.0)), jnp.int32(4)), "matrix": jnp.eye(2) * rate}

    dims = {"curve.loss": ("step",), "matrix": ("row", "column")}
    data = sweep(fn, Grid(rate=[0.5, 1.0]), dims=dims, coords={"step": np.arange(4)})
    assert data["curve.loss"].dims == ("rate", "step")
    assert data["matrix"].dims == ("rate", "row", "column")
    assert data["curve.steps"].dtype == np.int32
    np.testing.assert_allclose(data["curve.loss"].sel(step=3), np.exp([-1.5, -3.0]), rtol=1e-12)
    unnamed = sweep(fn, Grid(rate=[0.5, 1.0]))
    assert unnamed["matrix"].dims == ("rate", "matrix_0", "matrix_1")


def test_static_axes_reach_fn_as_python_values():
    def fn(x, width, activation):
        assert isinstance(width, int)
        return {"y": activation(x) * jnp.ones(width).sum()}

    data = sweep(fn, Grid(activation=static(jnp.tanh, jnp.sin), x=[0.5, 1.0], width=static(2, 3)))
    assert data["y"].dims == ("activation", "x", "width")
    np.testing.assert_allclose(data["y"].sel(activation="sin", width=3), 3 * np.sin([0.5, 1.0]), rtol=1e-15)


@pytest.mark.parametrize("points", [3, 50, 5000])
def test_one_trace_for_each_static_combination_whatever_the_size_of_the_grid(points):
    traced = []

    def fn(x, key, width, depth):
        traced.append((width, depth))
        return {"y": x + jax.random.normal(key, (width * depth,)).sum()}

    grid = Grid(x=np.linspace(0, 1, points), width=static(2, 3), depth=static(1, 2))
    sweep(fn, grid, key=KEY, repeats=2)
    assert sorted(traced) == [(2, 1), (2, 2), (3, 1), (3, 2)]


def test_a_second_sweep_of_the_same_function_is_not_traced_again():
    traces = []

    def fn(x):
        traces.append(x)
        return {"y": x * 2}

    for start in (0.0, 1.0):
        data = sweep(fn, Grid(x=start + np.arange(10.0)))
        np.testing.assert_array_equal(data["y"], 2 * (start + np.arange(10.0)))
    assert len(traces) == 1


def network(x, key):
    weights = jax.random.normal(key, (24, 24), x.dtype) / 5
    steps = jax.lax.scan(lambda h, _: (jnp.tanh(weights @ h + x), None), jnp.ones(24, x.dtype), None, length=5)
    return {"h": steps[0], "norm": jax.lax.while_loop(lambda c: c < 10, lambda c: c * (1.1 + x), jnp.ones((), x.dtype))}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_are_bit_equal_for_any_block_size_and_number_of_devices(dtype, tmp_path):
    grid = Grid(x=np.linspace(0, 1, 37).astype(dtype), y=static(0, 1))  # 37 divides by nothing

    def fn(x, y, key):
        return network(x + y, key)

    reference = sweep(fn, grid, key=KEY, repeats=3, lanes=16, devices=jax.devices()[:1])
    for devices in (2, 8):
        other = sweep(fn, grid, key=KEY, repeats=3, lanes=16, devices=jax.devices()[:devices])
        xr.testing.assert_equal(reference, other)
    for number, memory in enumerate((6e6, 2**40)):  # blocks of a few points; of a sixteenth of the grid
        store = tmp_path / f"{number}.zarr"
        other = sweep(fn, grid, key=KEY, repeats=3, lanes=16, memory=memory, store=store, devices=jax.devices()[:1])
        xr.testing.assert_equal(reference, other.load())


def test_lanes_do_not_depend_on_the_number_of_devices():
    lanes = {sweep(network, Grid(x=np.linspace(0, 1, 300)), key=KEY, devices=jax.devices()[:n]).lanes for n in (1, 8)}
    assert lanes == {'{"": 32}'}


def test_lanes_come_from_the_memory_of_the_compiled_program():
    def hungry(x):
        matrix = jnp.outer(jnp.arange(300.0), jnp.full(300, x))
        return {"y": jnp.linalg.norm(jnp.sin(matrix) @ jnp.cos(matrix))}

    grid = Grid(x=np.linspace(0, 1, 2000))
    one = jax.devices()[:1]
    roomy = sweep(hungry, grid, devices=one, dry_run=True, memory=2**34)
    budget = roomy.device_bytes  # however much a program takes: half of the budget is for one call
    tight = sweep(hungry, grid, devices=one, dry_run=True, memory=budget)
    assert roomy.lanes[""] == 128
    assert 8 <= tight.lanes[""] < roomy.lanes[""]
    assert tight.device_bytes <= budget / 2
    with pytest.raises(MemoryError, match=r"8 points of this sweep need .* bytes on one device"):
        sweep(hungry, grid, devices=one, memory=budget / 100)


def test_a_result_larger_than_the_budget_asks_for_a_store():
    with pytest.raises(MemoryError, match="pass store="):
        sweep(lambda x: {"y": jnp.full(1000, x)}, Grid(x=np.arange(1000.0)), memory=5e6)


def test_diverging_points_are_counted_listed_and_run_again():
    grid = Grid(rate=np.array([0.5, 1.5, 3.0]), start=np.array([1.0, 1e300]))
    data = sweep(lambda rate, start: {"x": start * rate**1000, "n": jnp.int32(1)}, grid)
    assert data["x"].attrs["nonfinite"] == 3
    assert data["n"].attrs["nonfinite"] == 0
    listed = nonfinite(data)
    assert listed.to_dataframe()[["rate", "start"]].values.tolist() == [[1.5, 1e300], [3.0, 1.0], [3.0, 1e300]]

    computed = []

    def careful(rate, start):
        jax.debug.callback(lambda r: computed.append(float(r)), rate)
        return {"x": jnp.log(start) + 1000 * jnp.log(rate), "n": jnp.int32(2)}

    again = sweep(careful, grid, keep=data)
    assert again["x"].attrs["nonfinite"] == 0
    kept = np.isfinite(data["x"].values)
    np.testing.assert_array_equal(again["x"].values[kept], data["x"].values[kept])
    np.testing.assert_allclose(again["x"].sel(rate=3.0, start=1.0), 1000 * np.log(3), rtol=1e-14)
    assert set(computed) == {1.5, 3.0}


def test_an_interrupt_returns_what_is_done(interrupted):
    with pytest.warns(UserWarning, match=r"interrupted: .* of 1,000 points"):
        data = sweep(lambda x: {"y": 2 * x}, Grid(x=np.arange(1000.0)), devices=jax.devices()[:1])
    done = data["computed"].values
    assert 0 < done.sum() < 1000
    np.testing.assert_array_equal(data["y"].values[done], 2 * data["x"].values[done])
    assert np.isnan(data["y"].values[~done]).all()


def test_an_interrupt_inside_a_callback_of_jax_counts():
    def fn(x):
        def called(x):
            if x == 500:
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.1)  # the handler runs in the main thread
            return x

        return {"y": jax.pure_callback(called, jax.ShapeDtypeStruct((), x.dtype), x, vmap_method="sequential")}

    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match=r"interrupted: .* of 1,000 points"):
        data = sweep(fn, Grid(x=np.arange(1000.0)), devices=jax.devices()[:1], lanes=8)
    done = data["computed"].values
    assert done.sum() < 1000
    np.testing.assert_array_equal(data["y"].values[done], data["x"].values[done])
    assert signal.getsignal(signal.SIGINT) is before


class Interrupting:
    """Ctrl-C in a finaliser, where Python drops exceptions."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)


def test_an_interrupt_that_python_drops_counts(monkeypatch):
    dropped = []
    monkeypatch.setattr("sys.unraisablehook", dropped.append)

    def interrupting(self, index, call=Executable.__call__):
        tiles.append(index)
        if len(tiles) == 6:
            Interrupting()
        return call(self, index)

    tiles = []
    monkeypatch.setattr(Executable, "__call__", interrupting)
    with pytest.warns(UserWarning, match=r"interrupted: .* of 1,000 points"):
        data = sweep(lambda x: {"y": 2 * x}, Grid(x=np.arange(1000.0)), devices=jax.devices()[:1])
    assert [error.exc_type for error in dropped] == [KeyboardInterrupt]
    assert 0 < data["computed"].sum() < 1000


def test_a_dry_run_says_what_would_be_done(tmp_path):
    grid = Grid(x=np.arange(1000.0))
    plan = sweep(lambda x: {"y": x}, grid, store=tmp_path / "s.zarr", dry_run=True)
    assert (plan.points, plan.missing, plan.result_bytes) == (1000, 1000, 8000)
    assert plan.seconds > 0
    assert "1,000 of 1,000 points to compute" in str(plan)
    assert not (tmp_path / "s.zarr").exists()


def test_provenance_stands_in_the_attributes():
    attrs = sweep(noisy, Grid(x=[1.0], y=[2.0]), key=KEY).attrs
    assert attrs["jax"] == jax.__version__
    assert attrs["key"] == "threefry2x32 [0, 7]"
    assert attrs["x64"] == 1
    assert {"grid", "fingerprint", "theorysim", "jaxlib", "device", "xla_flags", "lanes"} <= attrs.keys()


def test_the_fingerprint_sees_closed_over_constants():
    def with_constant(c):
        return sweep(lambda x: {"y": x * c}, Grid(x=[1.0])).attrs["fingerprint"]

    assert with_constant(jnp.arange(3.0)[2]) == with_constant(jnp.arange(3.0)[2])
    assert with_constant(np.arange(5000.0)) != with_constant(np.arange(5000.0) + (np.arange(5000) == 4321))


def one(x):
    return {"y": x}


@pytest.mark.parametrize(
    ("fn", "grid", "options", "message"),
    [
        (one, Grid(z=[1.0]), {}, r"`fn` takes \['x'\], which Grid\(z: 1\) lacks"),
        (one, Grid(x=[1.0], z=[1.0]), {}, r"`fn` does not take \['z'\]"),
        (one, Grid(x=[1.0]), {"repeats": 2}, "repeats=2 without a key"),
        (one, Grid(x=[1.0]), {"key": KEY}, r"`fn` does not take \['key'\]"),
        (noisy, Grid(x=[1.0], y=[1.0]), {}, "takes a key and the sweep has none"),
        (noisy, Grid(x=[1.0], y=[1.0]), {"key": KEY, "repeats": 0}, "repeats=0"),
        (noisy, Grid(x=[1.0], y=[1.0]), {"key": jax.random.split(KEY)}, "pass one typed key"),
        (noisy, Grid(x=[1.0], y=[1.0]), {"key": jnp.zeros(2, jnp.uint32)}, "pass one typed key"),
        (one, Grid(x=[1.0]), {"lanes": 0}, "lanes=0: give a whole number"),
        (
            noisy,
            Grid(x=[1.0], y=[1.0]),
            {"key": KEY, "common_random_numbers": True},
            "common to: pass key= and repeats=",
        ),
        (one, Grid(x=[1.0]), {"common_random_numbers": True}, "common to: pass key= and repeats="),
        (one, Grid(x=[1.0]), {"memory": np.inf}, "memory=inf: give a number of bytes"),
        (one, Grid(x=[1.0]), {"memory": -1}, "memory=-1: give a number of bytes"),
        (one, Grid(x=[1.0]), {"keep": 3}, "keep=3: pass an earlier result"),
        (one, Grid(x=[1.0]), {"devices": []}, "leaves nothing to compute on"),
        (lambda x: {"a.b": x, "a": {"b": x}}, Grid(x=[1.0]), {}, "two outputs of one name"),
        (lambda x: {"a/b": x}, Grid(x=[1.0]), {}, "cannot be stored"),
        (lambda x: {"y": jnp.ones(4)}, Grid(x=[1.0]), {"dims": {"y": "step"}}, "give a list of names"),
        (lambda x: x, Grid(x=[1.0]), {}, "return named arrays"),
        (lambda x: {"x": x}, Grid(x=[1.0]), {}, "the names of coordinates or dimensions"),
        (lambda x: {"k": KEY}, Grid(x=[1.0]), {}, "output 'k' is a PRNG key"),
        (one, Grid(x=[1.0]), {"dims": {"q": ("a",)}}, r"dims= names \['q'\]"),
        (one, Grid(x=[1.0]), {"dims": {"y": ("a",)}}, r"one grid point gives shape \(\)"),
        (lambda x: {"y": jnp.ones(3)}, Grid(x=[1.0]), {"dims": {"y": ("x",)}}, "none of the grid's names"),
        (lambda x: {"y": jnp.ones(3)}, Grid(x=[1.0]), {"coords": {"s": [1]}}, r"coords\['s'\] has shape"),
        (
            lambda x: {"y": jnp.ones(3), "z": jnp.ones(2)},
            Grid(x=[1.0]),
            {"dims": {"y": ("t",), "z": ("t",)}},
            "dimension 't' has length 3, but 2 in 'z'",
        ),
        (
            lambda w: {"y": jnp.ones(w)},
            Grid(w=static(2, 3)),
            {},
            r"unequal outputs: y: float64\[2\] at w=2, y: float64\[3\] at w=3",
        ),
    ],
)
def test_bad_input_is_refused(fn, grid, options, message):
    with pytest.raises(ValueError, match=message):
        sweep(fn, grid, **options)


def test_options_of_other_types_are_refused_or_understood():
    assert sweep(one, Grid(x=[1.0]), lanes=np.int64(4)).attrs["lanes"] == '{"": 4}'
    assert whole("repeats", np.int32(2)) == 2
    for value in (2.0, "2", [2]):
        with pytest.raises(ValueError, match=r"lanes=.*: give a whole number, at least 1, or None"):
            machine_of(None, None, value)
    for devices in ("cpu", jax.devices()[0], 1):
        with pytest.raises(ValueError, match=r"devices=.*: pass a list of devices"):
            machine_of(devices, None, None)
    for memory in ("4GB", np.nan, 0):
        with pytest.raises(ValueError, match=r"memory=.*: give a number of bytes"):
            machine_of(None, memory, None)


@pytest.fixture
def devices(monkeypatch):
    """Devices at work, one entry a tile."""
    counts = []

    def counting(self, index, call=Executable.__call__):
        counts.append(self.width // self.lanes)
        return call(self, index)

    monkeypatch.setattr(Executable, "__call__", counting)
    return counts


def test_a_program_that_calls_lapack_uses_one_of_several_host_devices(devices):
    """And its numbers are those that all devices give, as of any program."""
    grid = Grid(x=np.linspace(1, 2, 64))
    sweep(lambda x: {"y": x * x}, grid)
    assert set(devices) == {8}
    devices.clear()

    def factors(x):
        steps = jax.lax.scan(lambda a, _: (jnp.linalg.cholesky(a @ a), None), x * jnp.eye(3), length=2)
        return {"y": steps[0]}

    data = sweep(factors, grid)
    assert set(devices) == {1}
    xr.testing.assert_equal(sweep(factors, grid, devices=jax.devices()[:1]), data)


def test_the_bar_is_quiet_unless_asked_or_on_a_terminal(capfd):
    grid = Grid(x=np.arange(100.0))
    sweep(one, grid)
    assert capfd.readouterr() == ("", "")
    sweep(one, grid, progress=True)
    assert "100/100" in capfd.readouterr().err


def test_static_values_need_no_hash():
    data = sweep(lambda layers: {"y": jnp.sum(jnp.asarray(layers))}, Grid(layers=static([1, 2], [3, 4])))
    assert data["layers"].values.tolist() == ["[1, 2]", "[3, 4]"]
    np.testing.assert_array_equal(data["y"], [3, 7])


def test_equal_static_values_of_other_types_are_other_programs():
    def fn(x, n):
        return {"y": x + (10 if n is True else 20 if isinstance(n, float) else 30)}

    for value, shift in ((1, 30), (True, 10), (1.0, 20)):
        np.testing.assert_array_equal(sweep(fn, Grid(x=[1.0], n=static(value)))["y"], [[1 + shift]])
    with pytest.raises(ValueError, match=r"static axis 'f' has values of one name, \['<lambda>', '<lambda>'\]"):
        Grid(f=static(lambda x: x, lambda x: 2 * x))


class Slope:
    def __init__(self, value):
        self.value = value

    def __str__(self):
        return "slope"

    def __call__(self, x):
        return self.value * x


def test_a_static_value_that_was_changed_is_another_program():
    def fn(x, layers, slope):
        return {"y": slope(x) + sum(layers["widths"])}

    layers, slope = {"widths": [1, 2]}, Slope(1.0)
    for change, expected in (
        (lambda: None, 5.0),
        (lambda: layers["widths"].append(3), 8.0),
        (lambda: setattr(slope, "value", 5.0), 16.0),
    ):
        change()
        data = sweep(fn, Grid(x=[2.0], layers=static(layers), slope=static(slope)))
        assert data["y"].item() == expected


def test_functions_of_one_name_are_other_programs_and_equal_values_are_one():
    traces = []

    def fn(x, f, layers):
        traces.append(f)
        return {"y": f(x) + len(layers)}

    def scaled(factor):
        def named(x):
            return factor * x

        return named

    for factor in (1.0, 2.0):
        assert sweep(fn, Grid(x=[1.0], f=static(scaled(factor)), layers=static([1])))["y"].item() == factor + 1
    f = scaled(3.0)
    for _ in range(2):
        sweep(fn, Grid(x=[1.0], f=static(f), layers=static([1, 2])))
    assert len(traces) == 3


def test_what_cannot_be_pickled_is_traced_each_time():
    def fn(x, numbers):
        return {"y": x + next(numbers)}

    class Numbers:
        def __init__(self):
            self.left = iter(lambda: 1, 2)

        def __str__(self):
            return "numbers"

        def __next__(self):
            return next(self.left)

        def __reduce__(self):
            raise TypeError("no")

    for _ in range(2):
        assert sweep(fn, Grid(x=[1.0], numbers=static(Numbers())))["y"].item() == 2


def test_what_is_kept_fits_the_grid_the_key_and_the_outputs():
    grid = Grid(x=[1.0, 2.0, 3.0], z=[1.0, 2.0])

    def fn(x, z, key):
        return {"y": 10 * x + z + 0 * jax.random.normal(key)}

    data = sweep(fn, grid, key=KEY)
    xr.testing.assert_equal(sweep(fn, grid, key=KEY, keep=data.transpose()), data)
    for other, key, message in (
        (data.sortby("x", ascending=False), KEY, "other values along 'x'"),
        (data, jax.random.key(8), r"computed with the key 'threefry2x32 \[0, 7\]'"),
        (data.isel(x=slice(2)), KEY, r"'y' over \{'x': 2, 'z': 2\}: keep a result of the same grid"),
        (data.astype(np.float32), KEY, "'y' as float32, `fn` returns float64"),
        (data.rename(y="q"), KEY, "this sweep gives"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(fn, grid, key=key, keep=other)


def test_points_that_an_interrupt_left_out_are_computed_with_keep(monkeypatch):
    grid = Grid(x=np.arange(1, 65))
    whole = sweep(lambda x: {"n": 2 * x}, grid)
    partial = whole.copy(deep=True).assign_coords(computed=("x", np.arange(64) < 8))
    partial["n"][8:] = 0
    xr.testing.assert_equal(sweep(lambda x: {"n": 2 * x}, grid, keep=partial), whole)


def test_bfloat16_has_nan_too():
    data = sweep(lambda x: {"y": (x * jnp.nan).astype(jnp.bfloat16)}, Grid(x=[1.0, 2.0]))
    assert data["y"].attrs["nonfinite"] == 2
