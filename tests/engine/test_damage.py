"""A store on a broken machine: damaged chunks are computed again, lost files are repaired or named."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from theorysim import Grid, sweep
from theorysim.engine import folder

KEY = jax.random.key(5)
GRID = Grid(x=np.arange(21) / 10, y=np.array([1.0, 2.0, 3.0]))
OPTIONS = {
    "key": KEY,
    "dims": {"trace": ["time"], "word": ["name"]},
    "coords": {"time": np.array([0, 1]), "name": ["a"]},
}


def fn(x, y, key):
    return {"z": x * y + jax.random.normal(key), "trace": x + jnp.arange(2.0), "word": jnp.zeros(1)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store, and its results."""
    store = tmp_path_factory.mktemp("finished") / "runs.zarr"
    return store, sweep(fn, GRID, store=store, **OPTIONS).load()


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished store, to be damaged; its results."""
    store, data = finished
    shutil.copytree(store, tmp_path / "runs.zarr")
    return tmp_path / "runs.zarr", data


def chunks(store, name):
    return sorted(path for path in (store / name).iterdir() if not path.name.startswith("."))


def empty(x):
    return {"no": x > 5, "zero": 0 * x, "nan": x * jnp.nan, "none": jnp.int32(0)}


def test_blocks_of_fill_values_are_done_when_they_are_done(tmp_path, computed):
    first = sweep(empty, Grid(x=np.arange(3.0)), store=tmp_path / "runs.zarr").load()
    assert sum(computed) == 3
    xr.testing.assert_identical(sweep(empty, Grid(x=np.arange(3.0)), store=tmp_path / "runs.zarr").load(), first)
    assert sum(computed) == 3


def test_a_finished_store_is_read_where_nothing_can_be_written(copied, monkeypatch, computed):
    import filelock
    import zarr

    async def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    def unlocked(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    store, data = copied
    monkeypatch.setattr(zarr.storage.LocalStore, "set", refused)
    monkeypatch.setattr(filelock.FileLock, "acquire", unlocked)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    xr.testing.assert_identical(sweep(fn, GRID, store=store, **OPTIONS).load(), data)
    assert computed == []


def damages(content):
    """The file cut short at several places, and with one bit flipped at several."""
    size = len(content)
    for length in {0, 1, 4, 7, size // 3, size // 2, size - 4, size - 1}:
        yield content[:length]
    for position in {0, 4, 5, 8, size // 2, size - 5, size - 1}:
        for bit in (1, 64):
            yield content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :]


@pytest.mark.parametrize("name", ["z", "trace", "word", "ledger/points", "ledger/nonfinite"])
@pytest.mark.parametrize("place", [0, -1])
def test_no_damage_passes_for_a_number(copied, name, place):
    """Each damage is seen or does no harm: a bit that no decoder reads."""
    store, _ = copied
    chunk = chunks(store, name)[place]
    whole, seen, tried = chunk.read_bytes(), 0, 0
    group = folder.opened(store)
    expected = group[name][...]
    for damaged in damages(whole):
        chunk.write_bytes(damaged)
        tried += 1
        try:
            np.testing.assert_array_equal(folder.array_in(group, name)[...], expected)
        except folder.TORN:
            seen += 1
    assert seen >= tried - 2


@pytest.mark.parametrize("name", ["z", "trace", "word", "ledger/points", "ledger/nonfinite", "x", "time", "name"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "lost"])
def test_a_damaged_chunk_is_computed_again(copied, name, harm, computed):
    store, data = copied
    for chunk in (chunks(store, name)[0], chunks(store, name)[-1]):
        content = chunk.read_bytes()
        if harm == "lost":
            chunk.unlink(missing_ok=True)
        elif chunk.exists():
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :]
            chunk.write_bytes(content[:middle] if harm == "cut" else flipped)
        if len(chunks(store, name)) <= 1:
            break
    xr.testing.assert_identical(sweep(fn, GRID, store=store, **OPTIONS).load(), data)
    assert (0 < sum(computed) < GRID.size) == (name not in OPTIONS["coords"] and name != "x")
    with xr.open_zarr(store, chunks=None) as again:
        xr.testing.assert_equal(again.load(), data)


REPAIRED = [
    *(".zmetadata", "ledger/.zgroup", "ledger/points/.zarray", "ledger/nonfinite/.zarray"),
    *(
        "z/.zarray",
        "z/.zattrs",
        "trace/.zarray",
        "trace/.zattrs",
        "x/.zarray",
        "x/.zattrs",
        "time/.zarray",
        "name",
        "y",
    ),
]


@pytest.mark.parametrize("lost", REPAIRED)
def test_lost_metadata_is_written_again(copied, lost, computed):
    store, data = copied
    shutil.rmtree(store / lost) if (store / lost).is_dir() else (store / lost).unlink()
    assert sweep(fn, GRID, store=store, dry_run=True, **OPTIONS).points == GRID.size
    computed.clear()
    xr.testing.assert_identical(sweep(fn, GRID, store=store, **OPTIONS).load(), data)
    assert computed == []


@pytest.mark.parametrize("lost", [".zgroup", ".zattrs", "ledger"])
def test_what_cannot_be_repaired_is_named(copied, lost):
    store, _ = copied
    shutil.rmtree(store / lost) if (store / lost).is_dir() else (store / lost).unlink()
    with pytest.raises(ValueError, match=rf"runs.zarr is not the store of a sweep, or it lost '{lost}': .*from a copy"):
        sweep(fn, GRID, store=store, **OPTIONS)


@pytest.mark.parametrize("damaged", ["z/.zarray", "x/.zattrs", "ledger/.zgroup", "ledger/points/.zarray", ".zmetadata"])
def test_damaged_metadata_is_named_and_written_again_where_it_is_removed(copied, damaged, computed):
    store, data = copied
    (store / damaged).write_text((store / damaged).read_text()[:20])
    with pytest.raises(ValueError, match=rf"runs.zarr/{damaged} is damaged: remove it, and the same call"):
        sweep(fn, GRID, store=store, **OPTIONS)
    (store / damaged).unlink()
    xr.testing.assert_identical(sweep(fn, GRID, store=store, **OPTIONS).load(), data)
    assert computed == []


@pytest.mark.parametrize("damaged", [".zattrs", ".zgroup"])
def test_damaged_metadata_of_the_whole_store_is_named(copied, damaged):
    store, _ = copied
    (store / damaged).write_text((store / damaged).read_text()[:10])
    with pytest.raises(ValueError, match=rf"runs.zarr/{damaged} is damaged: put it back from a copy"):
        sweep(fn, GRID, store=store, **OPTIONS)


def test_a_lost_coordinate_is_not_replaced_by_another_grids(copied):
    store, _ = copied
    shutil.rmtree(store / "x")
    with pytest.raises(ValueError, match="another grid along 'x': 21 values there, 21 values"):
        sweep(fn, Grid(x=1 + np.arange(21) / 10, y=np.array([1.0, 2.0, 3.0])), store=store, **OPTIONS)


@pytest.mark.parametrize("address", ["s3://bucket/runs.zarr", "gs://bucket/x", "memory://x"])
def test_an_address_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is an address, and a store is a folder"):
        sweep(fn, GRID, store=address, **OPTIONS)
    assert list(tmp_path.iterdir()) == []
