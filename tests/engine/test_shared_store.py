"""Two processes and one store: each race as it would happen, one step of the other inside a step of the first."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import xarray as xr

from theorysim import Grid, sweep
from theorysim.engine import folder, output
from theorysim.engine.layout import layout_of, parts_of
from theorysim.engine.program import Executable

PLAIN = {"key": None, "repeats": None, "common_random_numbers": False, "dims": {}, "coords": {}, "memory": 10**9}


def double(x):
    return {"y": 2 * x, "trace": x + np.arange(2.0)}


def grid(points):
    return Grid(x=np.arange(float(points)))


@pytest.fixture
def store(tmp_path):
    return tmp_path / "runs.zarr"


def meanwhile(monkeypatch, owner, name, action, when=lambda *args: True):
    """Let another do `action` just before the first call of `owner.name`."""
    call = getattr(owner, name)
    done = []

    def interleaved(*args, **kwargs):
        if not done and when(*args):
            done.append(True)
            action()
        return call(*args, **kwargs)

    monkeypatch.setattr(owner, name, interleaved)


def is_whole(store, points, monkeypatch):
    """Whether the larger sweep has all its numbers and computes none again."""
    tiles = []
    monkeypatch.setattr(Executable, "__call__", lambda self, index: tiles.append(index))
    data = sweep(double, grid(points), store=store).load()
    np.testing.assert_array_equal(data["y"], 2 * np.arange(float(points)))
    np.testing.assert_array_equal(data["x"], np.arange(float(points)))
    assert tiles == []
    assert xr.open_zarr(store, chunks=None).sizes["x"] == points


def test_one_of_two_creators_waits_for_the_other(store, monkeypatch):
    layout = layout_of(grid(64), parts_of(double, grid(64), None), **PLAIN)
    creating, failed = threading.Event(), []
    create = folder._create

    def slowly(*args):
        creating.set()
        threading.Event().wait(0.5)
        create(*args)

    def first():
        try:
            folder.create_or_extend(store, layout)
        except OSError as error:
            failed.append(error)

    monkeypatch.setattr(folder, "_create", slowly)
    thread = threading.Thread(target=first)
    thread.start()
    creating.wait()
    folder.create_or_extend(store, layout)
    thread.join()
    assert failed == []
    assert folder.points_in(store, layout) == 0
    assert [path.name for path in store.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("step", ["finish", "fix_lanes", "missing", "labelled"])
def test_a_call_that_wakes_up_late_leaves_a_larger_store_whole(store, monkeypatch, step):
    with monkeypatch.context() as patch:
        meanwhile(patch, output.Store, step, lambda: sweep(double, grid(700), store=store))
        data = sweep(double, grid(316), store=store).load()
    np.testing.assert_array_equal(data["y"], 2 * np.arange(316.0))
    is_whole(store, 700, monkeypatch)


def test_a_block_at_the_edge_does_not_replace_a_larger_one(store, monkeypatch):
    def at_the_edge(out, block, rows):
        return block.shape != out.layout.blocks.block

    with monkeypatch.context() as patch:
        meanwhile(patch, output.Store, "write", lambda: sweep(double, grid(320), store=store), at_the_edge)
        data = sweep(double, grid(316), store=store).load()
    np.testing.assert_array_equal(data["y"], 2 * np.arange(316.0))
    is_whole(store, 320, monkeypatch)


def test_a_lock_that_is_never_given_back_is_explained(store, monkeypatch):
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    with (
        folder.locked(store),
        pytest.raises(OSError, match=r"could not create the store .*runs.zarr.lock.* could not be acquired"),
    ):
        sweep(double, grid(3), store=store)


SCRIPT = """
import sys, jax, numpy as np
jax.config.update("jax_enable_x64", True)
import theorysim as ts

def double(x):
    return {"y": 2 * x, "trace": x + np.arange(2.0)}

print("ready", flush=True)
sys.stdin.readline()
ts.sweep(double, ts.Grid(x=np.arange(320.0)), store=sys.argv[1])
"""


def test_two_processes_that_start_together_share_a_store(store, monkeypatch):
    command = [sys.executable, "-c", SCRIPT, str(store)]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **options) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0]
    is_whole(store, 320, monkeypatch)
