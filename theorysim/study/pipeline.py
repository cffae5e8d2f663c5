"""Run a study: simulate where something changed, draw always, check the claims, write it all down."""

import re
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from theorysim.figure import save, style
from theorysim.study import record
from theorysim.study.claim import Claim
from theorysim.study.fingerprint import fingerprint, sketch
from theorysim.study.load import Study, StudyError, load

if TYPE_CHECKING:
    import xarray as xr


class Outcome(NamedTuple):
    """What became of a study: its claims, or why there are none."""

    name: str
    claims: list[Claim]
    simulated: bool
    seconds: float
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether it ran, and every claim holds."""
        return not self.error and all(claim.holds for claim in self.claims)


def run(path: Path, preset: str, out: Path) -> Outcome:
    """Run the study at `path`; what it raises, or is refused for, is an `Outcome`, so that the others go on.

    Writes `out`/STUDY/`data.nc`, its figures as PNG and PDF, and `claims.json`: the same bytes on every run on one
    machine. Run times go to `times.json`.
    """
    start = time.perf_counter()
    claims: list[Claim] = []
    simulated = False
    import matplotlib.pyplot as plt

    path, folder = path.absolute(), out.absolute() / path.stem  # a study may go to another folder
    try:
        with jax.enable_x64(True), plt.rc_context(style()):  # what one study sets, the next does not see
            wanted, drawn_by = fingerprint(path, preset), sketch(path)
            study = load(path)
            data, simulated = _data(study, preset, wanted, folder)
            figures = list(_draw(study, data, folder))
            claims = _claims(study, data)
            _require_unchanged(path, drawn_by)
        record.write(folder / "claims.json", _record(study, drawn_by, claims, figures, data.attrs))
        error = ""
    except (Exception, SystemExit) as exception:
        error = traceback.format_exc()
        fail(path, preset, out, f"{type(exception).__name__}: {exception}")
    return Outcome(path.stem, claims, simulated, time.perf_counter() - start, error)


def fail(path: Path, preset: str, out: Path, error: str) -> None:
    """Record that a study is broken, so that no older record passes for this one."""
    folder = out.absolute() / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    broken = {"study": path.stem, "title": path.stem, "preset": preset, "claims": [], "figures": [], "error": error}
    record.write(folder / "claims.json", broken)


def _data(study: Study, preset: str, wanted: str, folder: Path) -> tuple["xr.DataTree", bool]:
    """The study's data of the fingerprint `wanted`, and whether it was simulated now; always as read from the disk."""
    path = folder / "data.nc"
    if (kept := _read(path)) is not None and kept.attrs.get("fingerprint") == wanted:
        return kept, False
    start = time.perf_counter()
    tree = _simulate(study, preset)
    seconds = time.perf_counter() - start
    if fingerprint(study.path, preset) != wanted:
        raise StudyError(f"{study.path}, or code or data that it uses, changed while it ran: run it again")
    tree.attrs |= {
        "study": study.name,
        "preset": preset,
        "fingerprint": wanted,
        "theorysim": version("theorysim"),
        "jax": version("jax"),
        "jaxlib": version("jaxlib"),
        "device": jax.devices()[0].device_kind,
        "x64": int(jax.numpy.zeros(()).dtype == "float64"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tree.to_netcdf(partial, engine="h5netcdf")
    partial.replace(path)
    record.write(folder / "times.json", {"simulate": seconds})
    written = _read(path)
    if written is None:
        raise OSError(f"{path} cannot be read again: is the disk full?")
    return written, True


def _simulate(study: Study, preset: str) -> "xr.DataTree":
    import xarray as xr

    tree = study.simulate(study.presets[preset])
    if not isinstance(tree, xr.DataTree) or not {"theory", "simulation"} <= set(tree.children):
        raise TypeError(
            f"`simulate` of {study.path} returned {type(tree).__name__}: "
            "it returns an xarray.DataTree with the nodes `theory` and `simulation`"
        )
    if any("computed" in node.coords for node in tree.subtree):
        raise KeyboardInterrupt  # a sweep was interrupted, and returned what it had
    return tree


def _read(path: Path) -> "xr.DataTree | None":
    """None where the file is absent or damaged, in whatever way h5py and xarray say so."""
    import xarray as xr

    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            return tree.load()
    except Exception:
        return None


def _draw(study: Study, data: "xr.DataTree", folder: Path) -> Iterator[str]:
    import matplotlib.pyplot as plt

    for old in (*folder.glob("*.png"), *folder.glob("*.pdf")):
        old.unlink()
    figures = study.draw(data)
    if not isinstance(figures, dict):
        raise TypeError(f"`draw` of {study.path} returned {type(figures).__name__}: it returns figures by name")
    for name, figure in figures.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w=.,+-]*", name):
            raise ValueError(
                f"the figure {name!r} of {study.path} cannot name a file and a link: "
                "use letters, digits and any of _ - + = . ,"
            )
        save(figure, folder / name)
        plt.close(figure)
        yield name


def _claims(study: Study, data: "xr.DataTree") -> list[Claim]:
    claims = list(study.claims(data))
    if not claims:
        raise ValueError(f"{study.path} claims nothing: a study states at least one checked number")
    if others := {type(claim).__name__ for claim in claims if not isinstance(claim, Claim)}:
        raise TypeError(f"`claims` of {study.path} yields {', '.join(sorted(others))}: it yields Claims")
    names = [claim.name for claim in claims]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{study.path} has several claims named {', '.join(sorted(twice))}: rename all but one")
    return claims


def _require_unchanged(path: Path, drawn_by: str) -> None:
    if sketch(path) != drawn_by:
        raise StudyError(f"{path} was edited while it ran: run it again")


def _record(study: Study, drawn_by: str, claims: list[Claim], figures: list[str], attrs: dict) -> dict[str, Any]:
    return {
        "study": study.name,
        "title": study.title,
        "summary": study.summary,
        "sources": study.sources,
        "claims": [
            {**asdict(claim), "deviation": claim.deviation, "numbers": claim.numbers, "holds": claim.holds}
            for claim in claims
        ],
        "figures": figures,
        "sketch": drawn_by,
        **{name: attrs[name] for name in ("preset", "fingerprint", "theorysim", "jax", "jaxlib", "device", "x64")},
    }
