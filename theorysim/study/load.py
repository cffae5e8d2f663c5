"""Find the studies in a folder, and load one."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRESETS = ("smoke", "laptop", "paper")


class StudyError(Exception):
    """A file that is not a study, and what it lacks."""


@dataclass(frozen=True)
class Study:
    """A loaded study: see `studies/README.md` for what each part is."""

    path: Path
    title: str
    sources: tuple[str, ...]
    presets: Mapping[str, Any]
    simulate: Callable[[Any], Any]
    claims: Callable[[Any], Any]
    draw: Callable[[Any], Any]
    summary: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.stem


def find(folder: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """The study files of a folder, all or those named; `StudyError` for a name that is not there."""
    paths = {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
    if not paths:
        raise StudyError(f"no studies in {folder}: run in the folder that holds `studies`, or pass --studies")
    if unknown := set(names) - set(paths):
        raise StudyError(f"no study named {', '.join(sorted(unknown))} in {folder}: there are {', '.join(paths)}")
    return [path for name, path in paths.items() if not names or name in names]


def load(path: Path) -> Study:
    """Import a study file; `StudyError` where a part is missing or out of place."""
    name = f"theorysim_studies.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    parts = ("TITLE", "SOURCES", "PRESETS", "simulate", "claims", "draw")
    if missing := [part for part in parts if not hasattr(module, part)]:
        raise StudyError(f"{path} lacks {', '.join(missing)}: see studies/README.md")
    if set(module.PRESETS) != set(PRESETS):
        raise StudyError(f"{path} has the presets {sorted(module.PRESETS)}: it needs {', '.join(PRESETS)}")
    functions = (module.simulate, module.claims, module.draw)
    summary = (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return Study(path, module.TITLE, tuple(module.SOURCES), module.PRESETS, *functions, summary=summary)
