"""What the tests of the engine share."""

import pytest

from theorysim.engine.program import Executable


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C as the sixth tile starts, in the block of a `with`."""

    def interrupting(self, index, call=Executable.__call__):
        calls.append(index)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return call(self, index)

    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(Executable, "__call__", interrupting)
        yield patch


@pytest.fixture
def computed(monkeypatch):
    """Grid points computed, one entry a tile."""
    tiles = []

    def counting(self, index, call=Executable.__call__):
        tiles.append(len(index))
        return call(self, index)

    monkeypatch.setattr(Executable, "__call__", counting)
    return tiles
