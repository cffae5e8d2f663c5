"""What a study leaves on the disk beside its data and pictures, and whether that is of the study as it stands."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from theorysim.study.fingerprint import fingerprint, sketch

FIELDS = {"study", "title", "preset", "claims", "figures"}


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a study's folder, with the seconds it took; None where there is none, or what is no record."""
    record, times = _json(folder / "claims.json"), _json(folder / "times.json")
    if not record.keys() >= FIELDS:
        return None
    return {**record, "seconds": times.get("simulate")}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON at once or not at all; null stands for NaN and infinities, which JSON lacks."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(path)


def flaw(path: Path, preset: str, out: Path) -> str:
    """Why the folder `out`/STUDY does not show the study at `path` as it stands; empty where it does."""
    record = read(out / path.stem)
    if record is None:
        return "not drawn"
    if "error" in record:
        return "broken"
    if not (out / path.stem / "data.nc").exists() or record.get("fingerprint") != fingerprint(path, preset):
        return "stale: its code or data changed after it was simulated"
    if record.get("sketch") != sketch(path):
        return "stale: it was edited after it was drawn"
    return ""


def gone(out: Path, studies: Sequence[Path]) -> Iterator[Path]:
    """Folders under `out` of studies that are no more."""
    names = {path.stem for path in studies}
    yield from (path.parent for path in sorted(out.glob("*/claims.json")) if path.parent.name not in names)


def _json(path: Path) -> dict[str, Any]:
    """Empty where the file is absent or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(part) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(part) for part in content]
    if isinstance(content, str | int | None):
        return content
    number = float(content)  # NumPy's numbers, too
    return number if math.isfinite(number) else None
