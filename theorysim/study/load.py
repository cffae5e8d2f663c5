"""Find the studies in a folder, and load one."""

import ast
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theorysim.study import references

PRESETS = ("smoke", "laptop", "paper")
PARTS = ("TITLE", "SOURCES", "PRESETS", "simulate", "claims", "draw")


class StudyError(Exception):
    """A file that is not a study, and what it lacks."""


@dataclass(frozen=True)
class Study:
    """A loaded study: see `CONTRIBUTING.md` for what each part is."""

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
    """The study files of a folder, and of its subfolders, the families: all, or those named, or of a family named.

    `StudyError` for a name that is not there, and for one that two studies have, or a study and a family.
    """
    files = [path for place in ("*.py", "*/*.py") for path in sorted(folder.glob(place)) if _is_study(path, folder)]
    if not files:
        raise StudyError(f"no studies in {folder}: run in the folder that holds `studies`, or pass --studies")
    paths: dict[str, Path] = {}
    for path in files:
        if path.stem in paths:
            raise StudyError(f"{path} and {paths[path.stem]} have one name: rename one")
        paths[path.stem] = path
    families = {family for path in files if (family := family_of(path, folder))}
    if clash := families & paths.keys():
        raise StudyError(f"{paths[min(clash)]} has the name of a family of studies: rename it")
    if unknown := set(names) - set(paths) - families:
        raise StudyError(
            f"no study named {', '.join(sorted(unknown))} in {folder}: there are {', '.join(sorted(paths))}"
            + f"; and the families {', '.join(sorted(families))}" * bool(families)
        )
    return [path for path in files if not names or path.stem in names or family_of(path, folder) in names]


def family_of(path: Path, folder: Path) -> str:
    """The subfolder of `folder` that a study lies in; empty where it lies in `folder` itself."""
    return "" if path.parent == folder else path.parent.name


def _is_study(path: Path, folder: Path) -> bool:
    return not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)


def load(path: Path) -> Study:
    """Import a study file; `StudyError` where a part is missing or out of place, or `references.bib` lacks a source."""
    name = f"theorysim_studies.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    _require_parts(path, vars(module))
    if set(module.PRESETS) != set(PRESETS):
        raise StudyError(f"{path} has the presets {sorted(module.PRESETS)}: it needs {', '.join(PRESETS)}")
    if not isinstance(module.SOURCES, tuple | list):
        raise StudyError(f"{path} has SOURCES = {module.SOURCES!r}: write a tuple, with a comma after a single one")
    if unknown := [source for source in module.SOURCES if source not in references.entries(path)]:
        raise StudyError(
            f"{path} names {', '.join(map(repr, unknown))}: add an entry to a references.bib beside the study, "
            "or to that of theorysim"
        )
    functions = (module.simulate, module.claims, module.draw)
    summary = " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())
    return Study(path, str(module.TITLE), tuple(module.SOURCES), module.PRESETS, *functions, summary=summary)


def skim(path: Path) -> tuple[str, tuple[str, ...]]:
    """Title and sources of a study as its file spells them; the file is read, not run.

    **Raises:** `StudyError` where a part is missing, `SyntaxError` where the file is not Python.
    """
    tree = ast.parse(path.read_text(), path)
    parts: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], value):
                parts[name] = value
            case ast.FunctionDef(name):
                parts[name] = node
    _require_parts(path, parts)
    texts = [node.value for node in ast.walk(parts["SOURCES"]) if isinstance(node, ast.Constant)]
    title = parts["TITLE"]
    return str(title.value) if isinstance(title, ast.Constant) else ast.unparse(title), tuple(map(str, texts))


def _require_parts(path: Path, parts: Mapping[str, Any]) -> None:
    if missing := [part for part in PARTS if part not in parts]:
        raise StudyError(f"{path} lacks {', '.join(missing)}: see CONTRIBUTING.md")
