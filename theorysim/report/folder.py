"""Write a folder whole or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from theorysim.scaling import RunsError


def write(folder: Path | str, fill: Callable[[Path], None]) -> Path:
    """Let `fill` write into a new folder beside `folder`, and put it in its place; a report that was there goes.

    Where `fill` fails, everything stays as it was. A folder that holds something else than a report is refused.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "fit.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunsError(f"{folder}: it exists and holds no report; name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as partial:
        new = Path(partial) / "new"
        new.mkdir()
        fill(new)
        if folder.exists():
            folder.rename(Path(partial) / "old")
        new.rename(folder)
    return folder
