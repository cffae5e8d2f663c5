"""The command line: the only module that prints."""

import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

# Before jaxlib loads. A program from the compilation cache is greeted with pages of CPU features that XLA itself
# asked for and then does not find; errors that matter arrive as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cyclopts
import jax
import platformdirs
from rich.console import Console
from rich.markup import escape

from theorysim import doctor as _doctor
from theorysim.checks import DataError, DataWarning
from theorysim.study import Outcome, StudyError, load, pipeline, references
from theorysim.study import gallery as _gallery
from theorysim.study import new as _new
from theorysim.study import notebook as _notebook

app = cyclopts.App(name="theorysim", help="What deep-learning theory predicts, beside what finite systems do.")
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
    studies: Path = STUDIES,
    out: Path = FIGURES,
) -> int:
    """Draw the studies, check their claims, and write the gallery page. Exit with 1 where a claim fails."""
    _doctor.self_check()
    folder = out / preset
    outcomes = []
    for path in load.find(studies, tuple(names or ())):
        console.print(f"[bold]{path.stem}[/]", end=" ")
        outcomes.append(pipeline.run(path, preset, folder))
        _report(outcomes[-1])
    console.print(f"\n{_gallery.write_page(folder)}")
    failed = [outcome.name for outcome in outcomes if not outcome.holds]
    if failed:
        console.print(f"[red]{len(failed)} of {len(outcomes)} studies fail:[/] {', '.join(failed)}")
    return 1 if failed else 0


@app.command(name="list")
def list_studies(*, studies: Path = STUDIES, out: Path = FIGURES) -> None:
    """List the studies, their sources, and the state of their figures and claims for each preset."""
    for path in load.find(studies):
        try:
            study = load.load(path)
        except (Exception, SystemExit) as error:
            console.print(f"[bold]{path.stem}[/]  [red]broken:[/] {escape(str(error))}")
            continue
        console.print(f"[bold]{study.name}[/]  {escape(study.title)}  [dim]{', '.join(study.sources)}[/]")
        for preset in load.PRESETS:
            console.print(f"  {preset:8}{_state(path, preset, out / preset)}")


@app.command
def new(name: str, /, *, family: str = "", studies: Path = STUDIES) -> None:
    """Write a study that runs, to start from; in the folder of a family where one is named."""
    path = _new.write(name, studies, family)
    console.print(f"{path}: draw it with `theorysim figures {name} --preset smoke`")


@app.command
def cite(name: str, /, *, studies: Path = STUDIES) -> None:
    """Print the BibTeX entries of a study, or of a part of theorysim such as infinite.phase.fixed_point."""
    paths = {path.stem: path for path in load.find(studies)} if studies.is_dir() else {}
    sources = load.load(paths[name]).sources if name in paths else references.sources_of(name)
    console.print(references.cite(sources), markup=False)


@app.command
def gallery(*, preset: Preset = "laptop", out: Path = FIGURES, readme: Path = Path("README.md")) -> None:
    """Copy the pictures to figures/gallery, and the claims into the README."""
    pipeline.copy_pictures(out / preset, out / "gallery")
    _gallery.update_readme(readme, out / preset)
    console.print(f"{out / 'gallery'} and {readme} are up to date")


@app.command
def notebooks(names: StudyNames | None = None, /, *, studies: Path = STUDIES, out: Path = FIGURES) -> int:
    """Turn the studies into notebooks and execute them, at smoke size, under figures/notebooks."""
    failed = 0
    for path in load.find(studies, tuple(names or ())):
        try:
            console.print(f"{_notebook.execute(path, out / 'notebooks')}")
        except Exception as error:
            failed += 1
            console.print(f"[red]{path.stem} fails as a notebook[/]\n{escape(str(error))}")
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

    columns = {"n": n, "d": d, "c": c, "x": x, "loss": loss}
    jobs = report.jobs(
        files,
        law=law,
        columns={name: column for name, column in columns.items() if column is not None},
        group=group,
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
    from theorysim import report

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
    (law_low, law_high), (run_low, run_high) = predicted.law[:, 0], predicted.run[:, 0]
    console.print(f"loss {predicted.loss[0]:.4g}, {fitted.level:.0%} intervals:", markup=False)
    console.print(
        f"  the law  {law_low:.4g} to {law_high:.4g}\n  one run  {run_low:.4g} to {run_high:.4g}", markup=False
    )


@app.command
def doctor() -> None:
    """Print versions, devices and settings, and check the kernels that jaxlib 0.10.2 gets wrong."""
    for name, value in _doctor.describe().items():
        console.print(f"{name:16} {value}", markup=False)
    for check in _doctor.self_check():
        console.print(f"right            {check.kernel}, {check.rows} rows", markup=False)


def _report(outcome: Outcome) -> None:
    how = "simulated" if outcome.simulated else "from its data"
    console.print("" if outcome.error else f"{how} and drawn in {outcome.seconds:.1f} s")
    for claim in outcome.claims:
        verdict = "[green]holds[/]" if claim.holds else "[red]fails[/]"
        numbers = f"{claim.measured:.4g} for {claim.predicted:.4g} within {claim.tolerance:.2g}"
        console.print(f"  {verdict}  {escape(claim.sentence)}: {numbers}")
    if outcome.error:
        console.print(outcome.error, style="red", markup=False)


def _state(path: Path, preset: str, out: Path) -> str:
    record = next((r for r in _gallery.records(out) if r["study"] == path.stem), None)
    if record is None:
        return "not drawn"
    if "error" in record:
        return "broken"
    held = sum(claim["holds"] for claim in record["claims"])
    stale = "" if pipeline.is_current(path, preset, out) else ", stale"
    return f"{held} of {len(record['claims'])} hold{stale}"


def main() -> None:
    """Run the command line: float64, compiled programs kept in the user's cache folder, errors in one line."""
    _doctor.switch_bad_fusion_off()
    jax.config.update("jax_enable_x64", True)
    cache = Path(platformdirs.user_cache_dir("theorysim")) / f"jaxlib-{_doctor.version('jaxlib')}"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        sys.exit(app())
    except (StudyError, DataError, _doctor.WrongNumbersError, AttributeError, KeyError, OSError) as error:
        message = error if isinstance(error, OSError) else error.args[0]
        console.print(f"[red]{type(error).__name__}:[/] {escape(str(message))}")
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; what was simulated before is kept")
        sys.exit(130)
