"""A study that runs, to start from."""

import keyword
import shutil
from pathlib import Path

from theorysim.study.load import StudyError

TEMPLATE = Path(__file__).parent / "template.py"


def write(name: str, folder: Path) -> Path:
    """Copy the template study to `folder`/NAME.py; an existing file is left alone."""
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise StudyError(f"{name!r} cannot name a study: use letters, digits and underscores, as in my_study")
    path = folder / f"{name}.py"
    if path.exists():
        raise StudyError(f"{path} is there already: choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATE, path)
    return path
