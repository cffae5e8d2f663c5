"""What `theorysim fit` is to do with a user's files: everything is checked before anything is fitted."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from theorysim import scaling
from theorysim.checks import DataError
from theorysim.report import curves as training
from theorysim.report import folder as folders
from theorysim.report import table as tables
from theorysim.report.report import Report, require_intervals
from theorysim.report.scaling import fit_runs
from theorysim.scaling.fit import named

SAMPLES = {"curves": 200, "runs": 1000}  # bootstrap fits


class Job(NamedTuple):
    """A report to be: where it goes, what was taken for what, and the fit itself."""

    folder: Path
    notes: tuple[str, ...]
    fit: Callable[[], Report]


def jobs(
    files: Sequence[Path],
    *,
    law: str | None = None,
    columns: Mapping[str, str],
    group: Sequence[str] | None = None,
    best: bool = False,
    warmup: int | None = None,
    objective: Literal["huber", "least_absolute", "least_squares"] | None = None,
    samples: int | None = None,
    level: float | int = 0.95,
    seed: int = 0,
    out: Path | None = None,
) -> list[Job]:
    """One job for each configuration of a table of runs, or one for training curves, as the arguments of `fit` say.

    **Raises:** `DataError` for files, columns, options and folders that do not fit each other.
    """
    read = [tables.read(file) for file in files]
    are_curves = all(map(training.are_curves, read)) and not {"n", "d"} <= set(columns)
    law = law or ("annealing" if are_curves else "chinchilla")
    are_curves = law in training.LAWS
    _require_used(
        law, are_curves, {**columns, "group": group, "objective": objective, "best": best or None}, {"warmup": warmup}
    )
    samples = SAMPLES["curves" if are_curves else "runs"] if samples is None else samples
    require_intervals(samples, level)
    drawn = {"samples": samples, "level": level, "seed": seed}
    out = out or files[0].with_name(f"{files[0].stem}-{law}")
    if are_curves:
        folders.require_free(out)
        found = training.read_curves(files, warmup=warmup or 0)
        return [Job(out, found.notes, partial(training.fit_read, found, law, **drawn))]
    chosen, kind = named(law), getattr(scaling, objective or "huber")()
    runs = tables.find(tables.concatenate(read, files), chosen, named=columns, group=group or (), best=best)
    places = [out / name for name in folders.names([one.group for one in runs])] if group else [out]
    for place in places:
        folders.require_free(place)
    return [
        Job(place, one.notes, partial(fit_runs, one, chosen, objective=kind, **drawn))
        for place, one in zip(places, runs, strict=True)
    ]


def _require_used(law: str, are_curves: bool, of_runs: Mapping[str, Any], of_curves: Mapping[str, Any]) -> None:
    """Refuse options that the law has no use for."""
    idle = [f"--{name}" for name, value in (of_runs if are_curves else of_curves).items() if value is not None]
    if idle:
        kind, other = ("training curves", "chinchilla") if are_curves else ("a table of runs", "annealing")
        raise DataError(f"{', '.join(idle)}: {law} is fitted to {kind}; leave it out, or say --law {other}")
