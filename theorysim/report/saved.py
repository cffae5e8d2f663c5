"""Read a report again."""

import json
from pathlib import Path
from typing import Any

from theorysim.checks import DataError
from theorysim.report import curves, scaling
from theorysim.report.report import FORMAT


def load(path: Path | str) -> scaling.RunReport | curves.CurveReport:
    """A report from its fit.json, or from the folder that holds it.

    **Raises:** `DataError` for a file that is missing, or no report.
    """
    path = Path(path)
    path = path / "fit.json" if path.is_dir() else path
    try:
        return _of_json(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; `theorysim fit` writes it") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a report of `theorysim fit` ({error}); fit again") from error


def _of_json(saved: Any) -> scaling.RunReport | curves.CurveReport:
    if saved["format"] != FORMAT:
        raise DataError(f"format {saved['format']}, and this theorysim reads {FORMAT}; fit again")
    return (curves if saved["law"] in curves.LAWS else scaling).of_json(saved)
