"""The command line: the only module that prints."""

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

# Before jaxlib loads. A program from the compilation cache is greeted with pages of CPU features that XLA itself
# asked for and then does not find; errors that matter arrive as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cyclopts
import jax
import platformdirs
from rich.console import Console
from rich.markup import escape

from theorysim import doctor as _doctor
from theorysim.scaling.runs import RunsError
from theorysim.study import Outcome, StudyError, load, pipeline, references
from theorysim.study import gallery as _gallery
from theorysim.study import new as _new
from theorysim.study import notebook as _notebook

app = cyclopts.App(name="theorysim", help="What deep-learning theory predicts, beside what finite systems do.")
console = Console(highlight=False, soft_wrap=True)

Preset = Literal["smoke", "laptop", "paper"]
StudyNames = Annotated[list[str], cyclopts.Parameter(help="Names of studies; all of them by default.")]
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
def new(name: str, /, *, studies: Path = STUDIES) -> None:
    """Write a study that runs, to start from."""
    path = _new.write(name, studies)
    console.print(f"{path}: draw it with `theorysim figures {name} --preset smoke`")


@app.command
def cite(name: str, /, *, studies: Path = STUDIES) -> None:
    """Print the BibTeX entries of a study, or of a part of theorysim such as infinite.phase.fixed_point."""
    path = studies / f"{name}.py"
    sources = load.load(path).sources if path.exists() else references.sources_of(name)
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
    warmup: Annotated[int, cyclopts.Parameter(help="Steps of warm-up of training curves.")] = 0,
    objective: Literal["huber", "least_absolute", "least_squares"] = "huber",
    samples: Annotated[int | None, cyclopts.Parameter(help="Bootstrap fits: 1000, or 200 for curves.")] = None,
    level: float = 0.95,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Fit a scaling law to a table of runs (CSV, JSON lines or parquet), and write a report beside it.

    Columns go by their usual names (params, tokens, flops, val_loss, ...); --n, --d, --c, --x and --loss name others.
    The law is chinchilla unless another is named. Training curves (step, lr, loss; one a file) go to the laws of
    schedules, annealing or multi_power.
    """
    from theorysim import report, scaling

    columns = {"n": n, "d": d, "c": c, "x": x, "loss": loss}
    columns = {name: column for name, column in columns.items() if column is not None}
    tables = [report.read(file) for file in files]
    curves = all(report.are_curves(table) for table in tables)
    law = law or ("annealing" if curves else "chinchilla")
    drawn = {"samples": samples or (200 if curves else 1000), "level": level, "seed": seed}
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", scaling.RunsWarning)
        if curves:
            reports = [report.fit_curves(files, law, warmup=warmup, **drawn)]
        else:
            runs = report.concatenate(tables, files)
            chosen = getattr(scaling, objective)()
            reports = report.fit(runs, law, columns=columns, group=group or (), objective=chosen, **drawn)
    for doubt in doubts:
        console.print(f"[yellow]doubt:[/] {escape(str(doubt.message))}")
    for note in reports[0].notes:
        console.print(f"[dim]{escape(note)}[/]")
    out = out or files[0].with_name(f"{files[0].stem}-{law}")
    for one in reports:
        folder = one.write(out / re.sub(r"[^\w.-]+", "-", one.group) if one.group else out)
        console.print(f"\n[bold]{escape(f'{law} {one.group}'.strip())}[/]  {folder}")
        console.print(one.table().to_string(float_format="{:.4g}".format), markup=False)
        for sentence in one.sentences():
            console.print(sentence, markup=False)


@app.command
def predict(
    saved: Path,
    /,
    *,
    schedule: Annotated[Path | None, cyclopts.Parameter(help="A table of step and lr, for a law of schedules.")] = None,
    warmup: int = 0,
    **inputs: Annotated[float, cyclopts.Parameter(help="An input of the law, such as --n 1e9 --d 2e10.")],
) -> None:
    """Predict the loss of another run from a report that `fit` wrote, with intervals for the law and for one run."""
    from theorysim import report

    fitted = report.load(saved)
    if isinstance(fitted, report.CurveReport):
        if schedule is None or inputs:
            raise RunsError(f"{saved} is of a law of schedules: say --schedule FILE, a table of step and lr")
        predicted = fitted.predict(report.read_rates(report.read(schedule), warmup))
    elif schedule is not None:
        raise RunsError(f"--schedule: {saved} is of the law {fitted.law.name}, which takes {list(fitted.law.inputs)}")
    else:
        predicted = fitted.predict(**inputs)
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
    except (StudyError, RunsError, _doctor.WrongNumbersError, AttributeError, KeyError, FileExistsError) as error:
        console.print(f"[red]{type(error).__name__}:[/] {escape(str(error.args[0]))}")
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; what was simulated before is kept")
        sys.exit(130)
