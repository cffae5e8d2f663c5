"""The command line: the only module that prints."""

import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
import platformdirs
from rich.console import Console
from rich.markup import escape

from theorysim import doctor as _doctor
from theorysim.study import apart, load, record, references
from theorysim.study import gallery as _gallery
from theorysim.study import new as _new
from theorysim.study import notebook as _notebook

if TYPE_CHECKING:
    from theorysim.study import Outcome

app = cyclopts.App(
    name="theorysim",
    help="What deep-learning theory predicts, beside what finite systems do.",
    suppress_keyboard_interrupt=False,  # `call` says what is kept
)
console = Console(highlight=False, soft_wrap=True)

Preset = Literal["smoke", "laptop", "paper"]
StudyNames = Annotated[list[str], cyclopts.Parameter(help="Names of studies or families; all by default.")]
STUDIES, FIGURES = Path("studies"), Path("figures")


@app.command
def figures(
    names: StudyNames | None = None,
    /,
    *,
    preset: Preset = "laptop",
    jobs: Annotated[
        int | None, cyclopts.Parameter(help="Studies at once: half the cores, at most 4; 1 on an accelerator.")
    ] = None,
    studies: Path = STUDIES,
    out: Path = FIGURES,
) -> int:
    """Draw the studies, check their claims, and write the gallery page. Exit with 1 where a claim fails.

    Each runs in a process of its own.
    """
    if jobs is not None and jobs < 1:
        raise load.StudyError(f"--jobs {jobs}: give a whole number >= 1")
    paths, folder, start = load.find(studies, tuple(names or ())), out / preset, time.perf_counter()
    platform = apart.call(apart.machine)
    at_once = jobs or (max(1, min(4, (os.cpu_count() or 1) // 2)) if platform == "cpu" else 1)
    outcomes = []
    found = apart.outcomes(paths, preset, folder, min(at_once, len(paths)))
    for place, path in enumerate(paths, 1):
        console.print(f"[dim]{place}/{len(paths)}[/] [bold]{path.stem}[/]", end=" ")
        outcome, printed = next(found)
        _report(outcome, printed)
        outcomes.append(outcome)
    console.print(f"\n{_gallery.write_page(folder, studies)}")
    for old in record.gone(folder, load.find(studies)):
        console.print(f"[yellow]{old} is of a study that is gone:[/] it is not shown; delete it")
    return _total(outcomes, time.perf_counter() - start)


@app.command(name="list")
def list_studies(*, studies: Path = STUDIES, out: Path = FIGURES) -> None:
    """List the studies, their sources, and the state of their figures and claims for each preset."""
    paths = load.find(studies)
    for path in paths:
        try:
            title, sources = load.skim(path)
            states = {preset: _state(path, preset, out / preset) for preset in load.PRESETS}
        except (load.StudyError, SyntaxError) as error:
            console.print(f"[bold]{path.stem}[/]  [red]broken:[/] {escape(str(error))}")
            continue
        console.print(f"[bold]{path.stem}[/]  {escape(title)}  [dim]{', '.join(sources)}[/]")
        for preset, state in states.items():
            console.print(f"  {preset:8}{state}")
    for preset in load.PRESETS:
        for old in record.gone(out / preset, paths):
            console.print(f"[yellow]{old} is of a study that is gone:[/] delete it")


@app.command
def new(name: str, /, *, family: str = "", studies: Path = STUDIES) -> None:
    """Write a study that runs, to start from; in the folder of a family where one is named."""
    path = _new.write(name, studies, family)
    console.print(f"{path}: draw it with `theorysim figures {name} --preset smoke`")


@app.command
def cite(name: str, /, *, studies: Path = STUDIES) -> None:
    """Print the BibTeX entries of a study, a family, or a part of theorysim such as infinite.phase.fixed_point."""
    paths = {path.stem: path for path in load.find(studies)} if studies.is_dir() else {}
    path = paths.get(name)
    sources = load.skim(path)[1] if path else references.sources_of(name)
    console.print(references.cite(sources, path), markup=False)


@app.command
def gallery(*, preset: Preset = "laptop", studies: Path = STUDIES, out: Path = FIGURES) -> None:
    """Copy the pictures to figures/gallery, and write its README.md: all studies with their claims.

    Refused unless every study is drawn at this preset as it stands.
    """
    console.print(f"{_gallery.write_gallery(out / preset, studies, out / 'gallery')} is up to date")


@app.command
def notebooks(names: StudyNames | None = None, /, *, studies: Path = STUDIES, out: Path = FIGURES) -> int:
    """Turn the studies into notebooks and execute them, at smoke size, under figures/notebooks/FAMILY."""
    failed = []
    for path in load.find(studies, tuple(names or ())):
        try:
            written = _notebook.execute(path, out / "notebooks" / load.family_of(path, studies))
            console.print(f"{written}", markup=False)
        except Exception as error:
            failed.append(path.stem)
            console.print(f"[red]{path.stem} fails as a notebook[/]\n{escape(str(error))}")
    if failed:
        console.print(f"[red]{len(failed)} notebooks fail:[/] {', '.join(failed)}")
    return 1 if failed else 0


def _whole(_: type, tokens: Sequence[cyclopts.Token]) -> int:
    """A whole number as it is typed: 2.5 is refused, not cut."""
    if not re.fullmatch(r"[+-]?\d+", tokens[0].value):
        raise ValueError("give a whole number")
    return int(tokens[0].value)


Whole = Annotated[int, cyclopts.Parameter(converter=_whole)]


@app.command
def fit(
    files: list[Path],
    /,
    *,
    law: str | None = None,
    n: str | None = None,
    d: str | None = None,
    c: str | None = None,
    x: str | None = None,
    loss: str | None = None,
    group: Annotated[list[str] | None, cyclopts.Parameter(help="Columns that tell configurations apart.")] = None,
    best: Annotated[bool, cyclopts.Parameter(negative="", help="Keep the lowest loss of each size and data.")] = False,
    warmup: Annotated[Whole | None, cyclopts.Parameter(help="Steps of warm-up of training curves: 0.")] = None,
    objective: Annotated[
        Literal["huber", "least_absolute", "least_squares"] | None, cyclopts.Parameter(help="huber, for tables.")
    ] = None,
    samples: Annotated[Whole | None, cyclopts.Parameter(help="Bootstrap fits: 1000, or 200 for curves.")] = None,
    level: float = 0.95,
    seed: Whole = 0,
    out: Path | None = None,
) -> int:
    """Fit a scaling law to a table of runs (CSV, JSON lines or parquet), and write a report beside it.

    Columns go by their usual names (params, tokens, flops, val_loss, ...); --n, --d, --c, --x and --loss name others.
    The law is chinchilla unless another is named. Training curves (step, lr, loss; one a file) go to the laws of
    schedules, annealing or multi_power. Exit with 1 where the runs of a group cannot be fitted.
    """
    from theorysim import report
    from theorysim.checks import DataError

    columns = {"n": n, "d": d, "c": c, "x": x, "loss": loss}
    jobs = report.jobs(
        files,
        law=law,
        columns={name: column for name, column in columns.items() if column is not None},
        group=group,
        best=best,
        warmup=warmup,
        objective=objective,
        samples=samples,
        level=level,
        seed=seed,
        out=out,
    )
    for note in jobs[0].notes:
        console.print(f"[dim]{escape(note)}[/]")
    refused = []
    for job in jobs:
        try:
            _write(job)
        except DataError as error:
            if not group:
                raise
            refused.append(str(error))
    if refused:
        console.print(f"\n[red]{len(refused)} of {len(jobs)} groups cannot be fitted:[/]")
    for reason in refused:
        console.print(f"  {reason}", markup=False)
    return 1 if refused else 0


def _write(job: Any) -> None:
    """Fit, write and print one report, and the doubts that came up."""
    from theorysim.checks import DataWarning

    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", DataWarning)
        one = job.fit()
    one.write(job.folder)
    console.print(f"\n[bold]{escape(one.title)}[/]  {escape(str(job.folder))}")
    for doubt in doubts:
        console.print(f"[yellow]doubt:[/] {escape(str(doubt.message))}")
    console.print(one.table().to_string(float_format="{:.4g}".format), markup=False)
    for sentence in one.sentences():
        console.print(sentence, markup=False)


@app.command
def predict(
    saved: Path,
    /,
    *,
    schedule: Annotated[Path | None, cyclopts.Parameter(help="A table of step and lr, for a law of schedules.")] = None,
    warmup: Whole | None = None,
    **inputs: Annotated[float, cyclopts.Parameter(help="An input of the law, such as --n 1e9 --d 2e10.")],
) -> None:
    """Predict the loss of another run from a report that `fit` wrote, with intervals for the law and for one run."""
    import numpy as np

    from theorysim import report
    from theorysim.checks import DataError

    fitted = report.load(saved)
    if isinstance(fitted, report.CurveReport):
        if schedule is None or inputs:
            raise DataError(f"{saved} is of a law of schedules: say --schedule FILE, a table of step and lr")
        rates = report.read_rates(report.read(schedule), warmup or 0, schedule.stem)
        predicted, far = fitted.predict(rates), fitted.beyond(rates)
    else:
        idle = "--warmup" if schedule is None else "--schedule"
        if schedule is not None or warmup is not None:
            raise DataError(f"{idle}: {saved} is of the law {fitted.law.name}, which takes {list(fitted.law.inputs)}")
        predicted, far = fitted.predict(**inputs), fitted.beyond(**inputs)
    for sentence in far:
        console.print(f"[yellow]doubt:[/] {sentence}")
    console.print(f"loss {predicted.loss[0]:.4g}, {fitted.level:.0%} intervals:", markup=False)
    shown = {"the law": predicted.law, "one run": predicted.run}
    if not np.array_equal(predicted.run, predicted.in_sample):
        shown["one run, were it among the others"] = predicted.in_sample
    for name, (low, high) in shown.items():
        console.print(f"  {name}  {low[0]:.4g} to {high[0]:.4g}", markup=False)


@app.command
def doctor() -> None:
    """Print versions, devices and settings, and check the kernels that jaxlib 0.10.2 gets wrong."""
    for name, value in _doctor.describe().items():
        console.print(f"{name:16} {value}", markup=False)
    for check in _doctor.self_check():
        console.print(f"right            {check.kernel}, {check.rows} rows", markup=False)


def _report(outcome: "Outcome", printed: str) -> None:
    how = "simulated" if outcome.simulated else "from its data"
    console.print("" if outcome.error else f"{how} and drawn in {outcome.seconds:.1f} s")
    if printed:
        console.print(printed.rstrip(), markup=False)
    for claim in outcome.claims:
        verdict = "[green]holds[/]" if claim.holds else "[red]fails[/]"
        console.print(f"  {verdict}  {escape(claim.sentence)}: {claim.numbers}")
    if outcome.error:
        console.print(outcome.error, style="red", markup=False)


def _total(outcomes: "Sequence[Outcome]", seconds: float) -> int:
    """Print what became of all studies; 1 where one fails."""
    count = _gallery.plural(sum(len(outcome.claims) for outcome in outcomes), "claim", "claims")
    console.print(f"{_gallery.plural(len(outcomes), 'study', 'studies')}, {count}, {seconds:.0f} s")
    failed = [outcome.name for outcome in outcomes if not outcome.holds]
    if failed:
        console.print(f"[red]{len(failed)} of {len(outcomes)} studies fail:[/] {', '.join(failed)}")
    return 1 if failed else 0


def _state(path: Path, preset: str, out: Path) -> str:
    flaw = record.flaw(path, preset, out)
    found = record.read(out / path.stem)
    if found is None or "error" in found:
        return flaw
    held = sum(claim["holds"] for claim in found["claims"])
    return f"{held} of {len(found['claims'])} hold{f', {flaw}' if flaw else ''}"


def call(*tokens: str) -> int:
    """Run one command; the exit code. What the user can mend is said in one line, with exit code 2."""
    try:
        return app(tokens, result_action="return_value") or 0
    except KeyboardInterrupt:
        console.print("interrupted; what was simulated before is kept")
        return 130
    except Exception as error:
        from theorysim.checks import DataError  # with jax: only where something went wrong

        expected = (load.StudyError, DataError, _doctor.WrongNumbersError, AttributeError, KeyError, OSError)
        if not isinstance(error, expected):
            raise
        message = error if isinstance(error, OSError) else error.args[0]
        console.print(f"[red]{type(error).__name__}:[/] {escape(str(message))}")
        return 2


def set_environment() -> None:
    """float64, compiled programs kept in the user's cache folder: for this process, before it imports jax, and others.

    A program from that cache is greeted with pages of CPU features that XLA itself asked for and then does not find, so
    its messages are off; errors that matter arrive as exceptions.
    """
    _doctor.switch_bad_fusion_off()
    cache = Path(platformdirs.user_cache_dir("theorysim")) / f"jaxlib-{_doctor.version('jaxlib')}"
    for name, value in {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_ENABLE_X64": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "MPLBACKEND": "agg",
    }.items():
        os.environ.setdefault(name, value)


def main() -> None:
    """Run the command line."""
    set_environment()
    sys.exit(call(*sys.argv[1:]))
