"""A study that runs, to start from."""

import keyword
import shutil
from pathlib import Path

from theorysim.study.load import StudyError, find

TEMPLATE = Path(__file__).parent / "template.py"


def write(name: str, folder: Path, family: str = "") -> Path:
    """Copy the template study to `folder`/`family`/NAME.py; an existing file is left alone.

    **Raises:** `StudyError` for a name that is taken, or is none.
    """
    for what, word in (("study", name), ("family", family or "none")):
        if not word.isidentifier() or keyword.iskeyword(word) or word.startswith("_"):
            raise StudyError(f"{word!r} cannot name a {what}: use letters, digits and underscores, as in my_{what}")
    taken = {path.stem: path for path in find(folder)} if any(folder.glob("**/*.py")) else {}
    path = folder / family / f"{name}.py"
    if path.exists() or name in taken:
        raise StudyError(f"{taken.get(name, path)} is there already: choose another name")
    if name == family or (folder / name).is_dir():
        raise StudyError(f"{name!r} is the name of a family of studies: choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATE, path)
    return path
