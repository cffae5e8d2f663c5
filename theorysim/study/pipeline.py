"""Run a study: simulate where something changed, draw always, check the claims, write it all down."""

import json
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from theorysim.figure import save, style
from theorysim.study.claim import Claim
from theorysim.study.fingerprint import fingerprint
from theorysim.study.load import Study, load

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
    """Run the study at `path`; what it raises is an `Outcome`, so that the others go on.

    Writes `out`/STUDY/`data.nc`, its figures as PNG and PDF, and `claims.json`: the same bytes on every run on one
    machine. Run times go to `times.json`.
    """
    start = time.perf_counter()
    claims: list[Claim] = []
    simulated = False
    import matplotlib.pyplot as plt

    try:
        with jax.enable_x64(True), plt.rc_context(style()):  # what one study sets, the next does not see
            study = load(path)
            folder = out / study.name
            data, simulated = _data(study, preset, folder)
            figures = list(_draw(study, data, folder))
            claims = _claims(study, data)
        _write_json(folder / "claims.json", _record(study, preset, claims, figures, data.attrs))
        error = ""
    except (Exception, SystemExit) as exception:
        error = traceback.format_exc()
        (out / path.stem).mkdir(parents=True, exist_ok=True)
        _write_json(out / path.stem / "claims.json", _broken(path, preset, exception))
    seconds = time.perf_counter() - start
    return Outcome(path.stem, claims, simulated, seconds, error)


def is_current(path: Path, preset: str, out: Path) -> bool:
    """Whether the data of a study is that of its code as it stands; False where it does not load."""
    record = out / path.stem / "claims.json"
    if not record.exists():
        return False
    try:
        return json.loads(record.read_text()).get("fingerprint") == fingerprint(path, load(path).presets[preset])
    except (Exception, SystemExit):
        return False


def _data(study: Study, preset: str, folder: Path) -> tuple["xr.DataTree", bool]:
    """The study's data, and whether it was simulated now; always as read from the disk."""
    import xarray as xr

    path, wanted = folder / "data.nc", fingerprint(study.path, study.presets[preset])
    if path.exists():
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            if tree.attrs.get("fingerprint") == wanted:
                return tree.load(), False
    start = time.perf_counter()
    tree = study.simulate(study.presets[preset])
    seconds = time.perf_counter() - start
    if not isinstance(tree, xr.DataTree) or not {"theory", "simulation"} <= set(tree.children):
        raise TypeError(
            f"`simulate` of {study.path} returned {type(tree).__name__}: "
            "it returns an xarray.DataTree with the nodes `theory` and `simulation`"
        )
    if any("computed" in node.coords for node in tree.subtree):
        raise KeyboardInterrupt  # a sweep was interrupted, and returned what it had
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
    _write_json(folder / "times.json", {"simulate": seconds})
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load(), True


def _draw(study: Study, data: "xr.DataTree", folder: Path) -> Iterator[str]:
    import matplotlib.pyplot as plt

    for old in (*folder.glob("*.png"), *folder.glob("*.pdf")):
        old.unlink()
    figures = study.draw(data)
    if not isinstance(figures, dict):
        raise TypeError(f"`draw` of {study.path} returned {type(figures).__name__}: it returns figures by name")
    for name, figure in figures.items():
        if Path(name).name != name or name.startswith("."):
            raise ValueError(f"the figure {name!r} of {study.path} cannot name a file: leave out slashes")
        save(figure, folder / name)
        plt.close(figure)
        yield name


def _claims(study: Study, data: "xr.DataTree") -> list[Claim]:
    claims = list(study.claims(data))
    if not claims:
        raise ValueError(f"{study.path} claims nothing: a study states at least one checked number")
    names = [claim.name for claim in claims]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{study.path} has several claims named {', '.join(sorted(twice))}: rename all but one")
    return claims


def _record(study: Study, preset: str, claims: list[Claim], figures: list[str], attrs: dict) -> dict[str, Any]:
    return {
        "study": study.name,
        "title": study.title,
        "summary": study.summary,
        "sources": study.sources,
        "preset": preset,
        "claims": [{**asdict(claim), "holds": claim.holds} for claim in claims],
        "figures": figures,
        **{name: attrs[name] for name in ("fingerprint", "theorysim", "jax", "jaxlib", "device", "x64")},
    }


def _broken(path: Path, preset: str, exception: BaseException) -> dict[str, Any]:
    """So that no older record passes for this one."""
    error = f"{type(exception).__name__}: {exception}"
    return {"study": path.stem, "title": path.stem, "preset": preset, "claims": [], "figures": [], "error": error}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=_plain) + "\n")
    partial.replace(path)


def _plain(value: Any) -> Any:
    return value.item()  # NumPy's numbers


def copy_pictures(out: Path, gallery: Path) -> None:
    """Copy every study's PNGs, under the study's name, and drop those that are no longer drawn."""
    gallery.mkdir(parents=True, exist_ok=True)
    for old in gallery.glob("*.png"):
        old.unlink()
    for picture in sorted(out.glob("*/*.png")):
        shutil.copyfile(picture, gallery / f"{picture.parent.name}-{picture.name}")
