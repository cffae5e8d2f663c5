"""What a folder of figures shows: a page for the browser, and the tracked gallery for readers of the repository."""

import re
import shutil
import struct
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from theorysim.study import record, references
from theorysim.study.load import StudyError, family_of, find
from theorysim.study.tex import to_html

TEMPLATE = Path(__file__).parent / "gallery.html"


def write_page(out: Path, studies: Path) -> Path:
    """Write `out`/index.html: a summary, then by family each study with its figures, claims, sources and provenance."""
    from jinja2 import Environment

    from theorysim.study.claim import number

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "formulas": to_html,  # it escapes
        "number": number,
        "margin": margin,
        "work": work,
        "link": references.link,
        "plural": plural,
    }
    paths = find(studies)
    shown = [entry for path in paths if (entry := _entry(path, studies, out))]
    claims = [claim for entry in shown for claim in entry["claims"]]
    page = environment.from_string(TEMPLATE.read_text()).render(
        families=_by_family(shown),
        studies=shown,
        claims=claims,
        failing=[entry for entry in shown if not entry["holds"]],
        failing_claims=[claim for claim in claims if not claim["holds"]],
        absent=len(paths) - len(shown),
        preset=out.name,
    )
    path = out / "index.html"
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return path


def write_gallery(out: Path, studies: Path, gallery: Path) -> Path:
    """Copy every study's pictures to `gallery`, and write its README.md: by family, the studies and their claims.

    **Raises:** `StudyError` unless every study is drawn under `out` as it stands; the gallery is then left alone.
    """
    paths = find(studies)
    if flaws := {path: flaw for path in paths if (flaw := record.flaw(path, out.name, out))}:
        reasons = "".join(f"\n  {path.stem}: {flaw}" for path, flaw in flaws.items())
        raise StudyError(
            f"{len(flaws)} of {plural(len(paths), 'study', 'studies')} cannot be shown:{reasons}\n"
            f"Run `theorysim figures --preset {out.name}` first"
        )
    entries = [entry for path in paths if (entry := _entry(path, studies, out))]
    gallery.mkdir(parents=True, exist_ok=True)
    for old in gallery.glob("*.png"):
        old.unlink()
    for entry in entries:
        for name in entry["figures"]:
            shutil.copyfile(out / entry["study"] / f"{name}.png", gallery / f"{entry['study']}-{name}.png")
    text = "\n\n".join(["# Gallery", _gallery_summary(entries, out.name), *map(_section, _by_family(entries))])
    path = gallery / "README.md"
    path.write_text(f"{text}\n")
    return path


def plural(count: int, one: str, many: str) -> str:
    """A number of things: 1 study, 2 studies."""
    return f"{count} {one if count == 1 else many}"


def margin(claim: dict[str, Any]) -> str:
    """How far from the prediction the measured number may be, or has to be."""
    from theorysim.study.claim import number

    size = number(claim["tolerance"], 2)
    return {"equal": f"± {size}", "at least": f"at least {size} above", "at most": f"at least {size} below"}[
        claim["kind"]
    ]


def work(entry: str) -> str:
    """Title and year of a BibTeX entry, as HTML-free text without its braces."""
    title = re.sub(r"\$\\?(\w+)\$", r"\1", references.field(entry, "title"))
    return f"{re.sub(r'[{}]', '', title)} ({references.field(entry, 'year')})"


def _entry(path: Path, studies: Path, out: Path) -> dict[str, Any] | None:
    """What the page says of a study; None where it is not drawn."""
    found = record.read(out / path.stem)
    if found is None:
        return None
    known = references.entries(path)
    broken = "error" in found
    return {
        **found,
        "family": family_of(path, studies),
        "broken": broken,
        "holds": not broken and all(claim["holds"] for claim in found["claims"]),
        "sizes": {name: _size(out / path.stem / f"{name}.png") for name in found["figures"]},
        "works": [(source, known.get(source, "")) for source in found.get("sources", ())],
    }


def _size(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG, so that a page keeps its place free; zeros where it is gone."""
    head = picture.read_bytes()[:24] if picture.exists() else b""
    return struct.unpack(">II", head[16:24]) if len(head) == 24 else (0, 0)


def _by_family(entries: Iterable[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    def family(entry: dict[str, Any]) -> str:
        return entry["family"]

    return [(name, list(group)) for name, group in groupby(sorted(entries, key=family), key=family)]


def _gallery_summary(entries: list[dict[str, Any]], preset: str) -> str:
    claims = [claim for entry in entries for claim in entry["claims"]]
    held = sum(claim["holds"] for claim in claims)
    return (
        f"{plural(len(entries), 'study', 'studies')}, {plural(len(claims), 'claim', 'claims')}, of which {held} hold: "
        f"what `make figures PRESET={preset}` draws and checks. `make gallery` writes this page."
    )


def _section(family: tuple[str, list[dict[str, Any]]]) -> str:
    name, entries = family
    return "\n\n".join([f"## {name or 'studies'}", *map(_study, entries)])


def _study(entry: dict[str, Any]) -> str:
    from theorysim.study.claim import number

    pictures = [f"![{entry['title']}: {name}]({entry['study']}-{name}.png)" for name in entry["figures"]]
    rows = ["| claim | | predicted | measured | tolerance or margin | |", "|---|---|---|---|---|---|"]
    for claim in entry["claims"]:
        texts = claim["name"], claim["sentence"], number(claim["predicted"]), number(claim["measured"]), margin(claim)
        cells = [text.replace("|", r"\|").replace("\n", " ") for text in texts]
        rows.append(f"| {' | '.join(cells)} | {'holds' if claim['holds'] else '**fails**'} |")
    return "\n\n".join([f"### {entry['title']}", entry["summary"], *pictures, "\n".join(rows)])
