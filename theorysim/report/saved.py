"""Read a report again."""

import json
from pathlib import Path

from theorysim.report import curves, scaling
from theorysim.scaling import RunsError


def load(path: Path | str) -> scaling.Report | curves.CurveReport:
    """A report from its fit.json, or from the folder that holds it."""
    path = Path(path)
    path = path / "fit.json" if path.is_dir() else path
    try:
        saved = json.loads(path.read_text())
        if saved["format"] != scaling.FORMAT:
            raise RunsError(f"{path}: format {saved['format']}, and this theorysim reads {scaling.FORMAT}; fit again")
        return (curves if saved["law"] in curves.LAWS else scaling).of_json(saved)
    except FileNotFoundError as error:
        raise RunsError(f"{path}: there is no such file; `theorysim fit` writes it") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RunsError(f"{path}: not a report of `theorysim fit` ({error})") from error
