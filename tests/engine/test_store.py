"""A sweep into a store: resumed, extended, shared, refused; what is finished is never lost."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from theorysim import Grid, static, sweep, zipped
from theorysim.engine import folder, output
from theorysim.engine.layout import layout_of, parts_of

KEY = jax.random.key(3)


def fn(x, y, width, key):
    return {
        "z": jnp.sin(x) * y + width * jax.random.normal(key),
        "n": jnp.int32(x * 10),
        "trace": jnp.arange(3.0) * x,
    }


def grid(x=40, y=(1.0, 2.0), width=(1, 2)):
    return Grid(x=np.arange(x) / 10, run=zipped(y=np.array(y)), width=static(*width))


PLAIN = {"key": None, "repeats": None, "common_random_numbers": False, "dims": {}, "coords": {}, "memory": 10**9}
OPTIONS = {"key": KEY, "repeats": 2, "dims": {"trace": ["time"]}, "coords": {"time": np.arange(3)}}


@pytest.fixture
def store(tmp_path):
    return tmp_path / "runs.zarr"


def test_equals_the_sweep_in_memory_and_opens_plainly(store, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # as a user has it
    stored = sweep(fn, grid(), store=store, **OPTIONS)
    in_memory = sweep(fn, grid(), **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for opened in (stored, xr.open_zarr(store, chunks=None), xr.open_dataset(store), xr.open_zarr(str(store))):
            xr.testing.assert_equal(opened.load(), in_memory)
            assert opened["z"].attrs == in_memory["z"].attrs == {"nonfinite": 0}
            assert in_memory.attrs.items() <= opened.attrs.items()
            assert opened["n"].dtype == np.int32
    times = [json.loads(line) for line in store.with_name("runs.zarr.times.jsonl").read_text().splitlines()]
    assert [entry["points"] for entry in times] == [320]


def test_a_finished_sweep_is_not_computed_again(store, computed):
    first = sweep(fn, grid(), store=store, **OPTIONS).load()
    computed.clear()
    xr.testing.assert_identical(sweep(fn, grid(), store=store, **OPTIONS).load(), first)
    assert computed == []
    assert sweep(fn, grid(), store=store, dry_run=True, **OPTIONS).missing == 0


def test_longer_axes_reuse_what_is_there(store, computed):
    sweep(fn, grid(), store=store, **OPTIONS)
    computed.clear()
    more = OPTIONS | {"repeats": 3}
    larger = grid(x=48, y=(1.0, 2.0, 3.0), width=(1, 2, 5))
    extended = sweep(fn, larger, store=store, **more).load()
    assert sum(computed) < 48 * 3 * 3 * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.testing.assert_equal(xr.open_zarr(store, chunks=None).load(), extended)
    computed.clear()
    xr.testing.assert_equal(sweep(fn, larger, **more), extended)


def test_only_the_new_points_of_a_longer_axis_are_computed(store, computed):
    points = np.arange(640.0)
    sweep(lambda x: {"y": 2 * x}, Grid(x=points[:320]), store=store)
    computed.clear()
    data = sweep(lambda x: {"y": 2 * x}, Grid(x=points), store=store)
    assert sum(computed) == 320
    np.testing.assert_array_equal(data["y"], 2 * points)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: (lambda **kw: {**fn(**kw), "z": kw["x"]}, grid(), OPTIONS), "another program at width=1"),
        (lambda: (fn, grid(), OPTIONS | {"key": jax.random.key(4)}), r"another key: threefry2x32 \[0, 3\] there"),
        (lambda: (fn, grid(y=(1.0, 2.5)), OPTIONS), r"another grid along 'y': 2 values \[1. 2.\] there"),
        (lambda: (fn, grid(x=30), OPTIONS), "another grid along 'x': 40 values .* there, 30 values"),
        (lambda: (fn, grid(width=(1, 3)), OPTIONS), "another grid along 'width'"),
        (lambda: (fn, grid(), OPTIONS | {"dims": {"trace": ["t"]}, "coords": {}}), "another grid: .*time.* there"),
        (
            lambda: (
                fn,
                Grid(x=np.arange(40, dtype=np.float32) / 10, run=zipped(y=[1.0, 2.0]), width=static(1, 2)),
                OPTIONS,
            ),
            "another dtype of 'x': float64 there, float32 here",
        ),
    ],
)
def test_the_store_of_another_sweep_is_refused(store, change, message):
    before = sweep(fn, grid(), store=store, **OPTIONS).load()
    changed, axes, options = change()
    with pytest.raises(ValueError, match=message):
        sweep(changed, axes, store=store, **options)
    xr.testing.assert_identical(xr.open_zarr(store, chunks=None).load(), before)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is not the store of a sweep, or it lost .*choose another store="):
        sweep(lambda x: {"y": x}, Grid(x=[1.0]), store=tmp_path)


def test_a_few_points_more_within_the_last_block(store):
    def double(x):
        return {"y": 2 * x}

    sweep(double, Grid(x=np.arange(316.0)), store=store)
    data = sweep(double, Grid(x=np.arange(320.0)), store=store)
    np.testing.assert_array_equal(data["y"], 2 * np.arange(320.0))


def test_a_kill_in_the_middle_of_an_extension_loses_nothing(store, monkeypatch):
    import zarr

    def double(x):
        return {"y": 2 * x}

    def kill_at(count, method):
        call = getattr(zarr.Array, method)

        def counting(self, *args, **kwargs):
            calls.append(method)
            if len(calls) == count:
                raise KeyboardInterrupt
            return call(self, *args, **kwargs)

        return counting

    for count in range(1, 6):
        path = store.with_name(f"{count}.zarr")
        sweep(double, Grid(x=np.arange(320.0)), store=path)
        calls = []
        with monkeypatch.context() as patch:
            for method in ("resize", "__setitem__"):
                patch.setattr(zarr.Array, method, kill_at(count, method))
            with pytest.raises(KeyboardInterrupt):
                folder.create_or_extend(path, _layout_of(double, 400))
        data = sweep(double, Grid(x=np.arange(400.0)), store=path)
        np.testing.assert_array_equal(data["y"], 2 * np.arange(400.0))


def _layout_of(fn, points):
    axes = Grid(x=np.arange(float(points)))
    return layout_of(axes, parts_of(fn, axes, None), **PLAIN)


def test_lost_chunks_and_torn_ledger_cells_are_computed_again(store, computed):
    first = sweep(fn, grid(), store=store, **OPTIONS).load()
    places = sorted(path for path in (store / "ledger/points").iterdir() if not path.name.startswith("."))
    places[2].write_bytes(b"")
    sorted(path for path in (store / "n").iterdir() if not path.name.startswith("."))[5].unlink()
    computed.clear()
    xr.testing.assert_identical(sweep(fn, grid(), store=store, **OPTIONS).load(), first)
    assert 0 < sum(computed) < 320


def test_a_result_can_be_saved_elsewhere(store, tmp_path):
    data = sweep(fn, grid(), store=store, **OPTIONS)
    data.to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    xr.testing.assert_equal(xr.open_dataset(tmp_path / "copy.nc", engine="h5netcdf").load(), data.load())
    copy = tmp_path / "copy.zarr"
    data.to_zarr(copy, zarr_format=2)
    with pytest.raises(ValueError, match=r"another key|is not the store of a sweep"):
        sweep(fn, grid(), store=copy, **(OPTIONS | {"key": jax.random.key(4)}))
    with pytest.raises(ValueError, match="another key"):
        sweep(fn, grid(), store=store, dry_run=True, **(OPTIONS | {"key": jax.random.key(4)}))


def test_a_dtype_that_zarr_lacks_is_refused(store):
    with pytest.raises(ValueError, match="'y' is bfloat16, for which zarr has no type"):
        sweep(lambda x: {"y": x.astype(jnp.bfloat16)}, Grid(x=[1.0]), store=store)


def test_a_torn_block_is_computed_again(store, computed):
    first = sweep(fn, grid(), store=store, **OPTIONS).load()
    torn = sorted(path for path in (store / "z").iterdir() if not path.name.startswith("."))[3]
    torn.write_bytes(torn.read_bytes()[:7])
    computed.clear()
    xr.testing.assert_identical(sweep(fn, grid(), store=store, **OPTIONS).load(), first)
    assert 0 < sum(computed) < 320


def test_a_failing_write_is_explained_and_keeps_what_was_written(store, monkeypatch, computed):
    write = output.Output.write
    written = []

    def failing(self, block, rows):
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        written.append(block)
        write(self, block, rows)

    with monkeypatch.context() as patch:
        patch.setattr(output.Output, "write", failing)
        with pytest.raises(OSError, match=r"could not write block \d+ of the store .*No space left.*kept: free"):
            sweep(fn, grid(), store=store, **OPTIONS)
    kept = sum(int(np.prod(block.shape)) for block in written)
    assert sweep(fn, grid(), store=store, dry_run=True, **OPTIONS).missing == 320 - kept
    xr.testing.assert_equal(sweep(fn, grid(), store=store, **OPTIONS).load(), sweep(fn, grid(), **OPTIONS))


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="could not create the store"):
        sweep(lambda x: {"y": x}, Grid(x=[1.0]), store=tmp_path / "file" / "runs.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_store_returns_what_is_done_and_goes_on(store, interrupted):
    with pytest.warns(UserWarning, match="sweep interrupted"):
        partial = sweep(fn, grid(), store=store, devices=jax.devices()[:1], **OPTIONS).load()
    interrupted.undo()
    whole = sweep(fn, grid(), store=store, **OPTIONS).load()
    done = partial["computed"].values
    assert 0 < done.sum() < done.size
    np.testing.assert_array_equal(partial["z"].values[done], whole["z"].values[done])
    assert "computed" not in whole.coords


SCRIPT = """
import sys, jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import theorysim as ts

def fn(x, key):
    return {{"y": jax.lax.fori_loop(0, {steps}, lambda i, c: jnp.cos(c + x), jax.random.normal(key))}}

print("ready", flush=True)
ts.sweep(fn, ts.Grid(x=np.arange(512.0)), key=jax.random.key(0), store=sys.argv[1])
"""


def blocks_done(store: Path) -> int:
    points = store / "ledger" / "points"
    return sum(not path.name.startswith(".") for path in points.iterdir()) if points.exists() else 0


def test_a_killed_sweep_goes_on_where_it_was(tmp_path, computed):
    steps, store = 200_000, tmp_path / "killed.zarr"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(steps=steps), str(store)])
    deadline = time.time() + 120
    while blocks_done(store) < 5 and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = blocks_done(store)
    assert 5 <= done < 64, "the sweep was not killed in the middle"

    def same(x, key):
        return {"y": jax.lax.fori_loop(0, steps, lambda i, c: jnp.cos(c + x), jax.random.normal(key))}

    axes = Grid(x=np.arange(512.0))
    data = sweep(same, axes, key=jax.random.key(0), store=store).load()
    assert sum(computed) <= 512 - 8 * (done - 1)
    xr.testing.assert_equal(data, sweep(same, axes, key=jax.random.key(0)))


PROCESS = """
import sys, jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:" + sys.argv[2], num_processes=2, process_id=int(sys.argv[3]))
import theorysim as ts

def fn(x, width, key):
    return {"y": jnp.tanh(jax.random.normal(key, (width, width)) @ jnp.full(width, x)).sum()}

grid = ts.Grid(x=np.linspace(0, 1, 101), width=ts.static(3, 8))
try:
    ts.sweep(fn, grid, key=jax.random.key(1))
except ValueError as error:
    assert "needs a store=" in str(error)
data = ts.sweep(fn, grid, key=jax.random.key(1), store=sys.argv[1]).load()
print(float(data["y"].sum()), int(np.isfinite(data["y"]).sum()))
"""


def test_two_processes_share_a_store_and_agree_with_one(tmp_path, free_port):
    store = tmp_path / "shared.zarr"
    command = [sys.executable, "-W", "ignore", "-c", PROCESS, str(store), str(free_port)]
    processes = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(2)]
    printed = [process.communicate(timeout=240)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1]
    assert printed[0].endswith(" 202")

    def same(x, width, key):
        return {"y": jnp.tanh(jax.random.normal(key, (width, width)) @ jnp.full(width, x)).sum()}

    axes = Grid(x=np.linspace(0, 1, 101), width=static(3, 8))
    xr.testing.assert_equal(xr.open_zarr(store, chunks=None).load(), sweep(same, axes, key=jax.random.key(1)))


MEMORY = """
import resource, sys, numpy as np
import theorysim as ts

grid = ts.Grid(x=np.arange(int(sys.argv[2]), dtype=np.float32), y=np.arange(2500, dtype=np.float32))
ts.sweep(lambda x, y: {"z": x * y * np.arange(8)}, grid, store=sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_ten_million_points_run_in_flat_memory(tmp_path):
    def peak(rows):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / f"{rows}.zarr"), str(rows)]
        env = {**os.environ, "XLA_FLAGS": ""}  # one device: eight keep eight times the points in flight
        return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)

    # In MiB. The larger result has 192 MB more than the smaller one.
    assert peak(4000) - peak(1600) < 80
