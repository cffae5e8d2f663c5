"""Write a report's files whole or not at all, and nobody else's."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from theorysim.checks import DataError

WRITTEN = (
    *("fit.json", "frontier.csv"),
    *(f"{name}.{kind}" for name in ("fit", "residuals", "isoflop", "frontier") for kind in ("png", "pdf")),
)


def require_free(folder: Path | str) -> None:
    """Refuse a folder that holds something else than a report, or that cannot be written; it is not made."""
    folder = Path(folder)
    try:
        if folder.exists() and not (folder / "fit.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: it exists and holds no report; name another folder")
        nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        with tempfile.TemporaryDirectory(dir=nearest):
            pass
    except OSError as error:
        raise DataError(f"{folder}: it cannot be written ({error.strerror}); name another folder") from error


def write(folder: Path | str, fill: Callable[[Path], None]) -> Path:
    """Let `fill` write into a new folder, and put its files into `folder`, where those of an earlier report go.

    Where `fill` fails, everything stays as it was. Files that no report writes stay in any case.

    **Raises:** as [`require_free`].
    """
    folder = Path(folder)
    require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder if folder.exists() else folder.parent, prefix=".report-") as partial:
        new = Path(partial) / "new"
        new.mkdir()
        fill(new)
        if not folder.exists():
            new.rename(folder)
            return folder
        files = {file.name: file for file in new.iterdir()}
        for name in WRITTEN:
            if name not in files:
                (folder / name).unlink(missing_ok=True)
        # Last the one by which a folder is known for a report: an interrupted write can be done again.
        for name in sorted(files, key="fit.json".__eq__):
            files[name].replace(folder / name)
    return folder


def names(groups: Sequence[str]) -> list[str]:
    """A folder's name for each group: letters, digits, dots and dashes, and distinct in any letter case."""
    found: list[str] = []
    taken: set[str] = set()
    for group in groups:
        plain = re.sub(r"[^\w.-]+", "-", group).strip(".-")[:100] or "group"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        found.append(name)
    return found
