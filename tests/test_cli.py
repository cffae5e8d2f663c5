"""The command line as a user types it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theorysim import cli, doctor
from theorysim.study import load, pipeline

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path.stem for path in load.find(ROOT / "studies"))
# A study without JAX: its one claim is set by its name.
QUICK = '''"""Does a line agree with $x^2$? It is quick."""

import matplotlib.pyplot as plt
import xarray as xr

import theorysim as ts

TITLE = "A quick study of $x_0$"
SOURCES = ("arXiv:1606.05340",)
PRESETS = {"smoke": 1, "laptop": 2, "paper": 3}


def simulate(preset):
    node = xr.Dataset({"y": ("x", [0.0, preset])})
    return xr.DataTree.from_dict({"theory": node, "simulation": node})


def claims(data):
    yield ts.study.Claim("one", "a line", predicted=0, measured=-0.0, tolerance=0.1, why="a choice")


def draw(data):
    figure, panel = plt.subplots()
    panel.plot(data["theory"]["y"])
    return {"line": figure}


if __name__ == "__main__":
    data = simulate(PRESETS["smoke"])
    draw(data)
    for claim in claims(data):
        print(claim)
'''


def quick(folder, name, before="", after=""):
    """Write a quick study, changed in one place."""
    path = folder / "studies" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    assert before in QUICK
    path.write_text(QUICK.replace(before, after, 1))


def drawn(folder, name, preset):
    assert pipeline.run(folder / "studies" / f"{name}.py", preset, folder / "figures" / preset).holds


def theorysim(*arguments, cwd=ROOT):
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "theorysim", *map(str, arguments)]
    # A user's environment: without what this process's JAX has set, and with one device. (jaxlib can deadlock where
    # eight forced ones call LAPACK in a batch.)
    ours = ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """The command line in this process: called with its words, it returns the exit code and what it printed."""

    def call(*arguments, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        try:
            code = cli.call(*map(str, arguments))
        except SystemExit as end:  # what cyclopts refuses
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


@pytest.mark.parametrize("half", [0, 1])
def test_the_studies_are_drawn_and_their_claims_hold(tmp_path, half):
    studies = STUDIES[half::2]
    done = theorysim("figures", *studies, "--preset", "smoke", "--jobs", "1", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for study in studies:
        assert f"{study} simulated and drawn" in done.stdout
    assert "  fails  " not in done.stdout
    assert done.stdout.count("  holds  ") > 2 * len(studies)
    assert (tmp_path / "smoke" / "index.html").exists()


def test_a_new_study_is_drawn_again_from_its_data_and_listed(tmp_path, here):
    assert here("new", "mine", "--family", "things")[0] == 0
    assert here("new", "other") == (0, "studies/other.py: draw it with `theorysim figures other --preset smoke`\n")
    assert (tmp_path / "studies/things/mine.py").exists()
    first = theorysim("figures", "things", "--preset", "smoke", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr == ""
    again = here("figures", "mine", "--preset", "smoke")[1]
    assert "1/1 mine from its data" in again
    assert "other" not in again
    listed = here("list")[1]
    assert "1 of 1 hold\n" in listed
    assert "not drawn" in listed
    assert "arXiv:1611.01232" in here("list", cwd=ROOT)[1]


def test_a_study_that_fails_breaks_or_dies_does_not_touch_the_others(tmp_path, here):
    """They run in processes of their own, two at once, and are told in order."""
    quick(tmp_path, "a_broken", "TITLE =", "1 / 0\nTITLE =")
    quick(tmp_path, "b_failing", "predicted=0", "predicted=100")
    quick(tmp_path, "c_dies", "    node =", "    import os\n    os._exit(3)\n    node =")
    quick(tmp_path, "d_moves", "TITLE =", "import os\nos.chdir('/')\nos.environ['SEEN'] = 'x'\nprint('moved')\nTITLE =")
    quick(tmp_path, "e_odd", '"one", "a line"', 'None, "a line"')
    quick(tmp_path, "f_right", "TITLE =", "import os\nassert 'SEEN' not in os.environ\nTITLE =")
    code, printed = here("figures", "--preset", "smoke", "--jobs", "2")
    assert code == 1
    assert "4 of 6 studies fail: a_broken, b_failing, c_dies, e_odd" in printed
    for shown in ("ZeroDivisionError", "0 for 100 within 0.1", "exit code 3", "moved", "a claim has name=None"):
        assert shown in printed
    names = ("a_broken", "b_failing", "c_dies", "d_moves", "e_odd", "f_right")
    told = [printed.index(f"{place}/6 {name}") for place, name in enumerate(names, 1)]
    assert told == sorted(told)
    assert "6 studies, 3 claims" in printed
    for name in ("b_failing", "d_moves", "f_right"):
        assert (tmp_path / "figures/smoke" / name / "line.pdf").exists()
    listed = here("list")[1]
    assert listed.count("  smoke   broken") == 3
    assert "0 of 1 hold" in listed
    assert "1 of 1 hold" in listed


def test_a_machine_that_computes_wrong_numbers_draws_nothing(tmp_path, monkeypatch, here):
    def fail(function):
        raise doctor.WrongNumbersError("wrong numbers: use another jaxlib")

    quick(tmp_path, "demo")
    monkeypatch.setattr("theorysim.study.apart.call", fail)
    code, printed = here("figures")
    assert code == 2
    assert "use another jaxlib" in printed
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("platform", "cores", "jobs"), [("gpu", 64, 1), ("cpu", 2, 1), ("cpu", 64, 4), ("cpu", None, 1)]
)
def test_how_many_studies_run_at_once(tmp_path, monkeypatch, here, platform, cores, jobs):
    asked = []

    def outcomes(paths, preset, out, at_once):
        asked.append(at_once)
        return ((pipeline.Outcome(path.stem, [], simulated=True, seconds=0.0), "") for path in paths)

    for name in "abcdef":
        quick(tmp_path, name)
    monkeypatch.setattr("theorysim.study.apart.call", lambda function: platform)
    monkeypatch.setattr("theorysim.study.apart.outcomes", outcomes)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert here("figures", "--preset", "smoke")[0] == 0
    assert here("figures", "--preset", "smoke", "--jobs", "3")[0] == 0
    assert asked == [jobs, 3]


def test_an_interrupted_study_stops_all(tmp_path, here):
    for name in ("a", "b"):
        quick(tmp_path, name, "    node =", "    raise KeyboardInterrupt\n    node =")
    code, printed = here("figures", "--preset", "smoke", "--jobs", "1")
    assert code == 130
    assert "interrupted; what was simulated before is kept" in printed
    assert "2/2 b" not in printed
    assert not (tmp_path / "figures/smoke/b").exists()


def test_the_gallery_waits_for_every_study_and_shows_all_by_family(tmp_path, here):
    quick(tmp_path, "one")
    quick(tmp_path, "family/two", "predicted=0", 'kind="at most", predicted=1')
    gallery = tmp_path / "figures/gallery"
    gallery.mkdir(parents=True)
    (gallery / "old-line.png").touch()
    drawn(tmp_path, "one", "laptop")
    code, printed = here("gallery")
    assert code == 2
    assert "1 of 2 studies cannot be shown:\n  two: not drawn" in printed
    assert [path.name for path in gallery.iterdir()] == ["old-line.png"]
    drawn(tmp_path, "family/two", "laptop")
    assert here("gallery") == (0, "figures/gallery/README.md is up to date\n")
    assert sorted(path.name for path in gallery.iterdir()) == ["README.md", "one-line.png", "two-line.png"]
    text = (gallery / "README.md").read_text()
    assert "## family\n\n### A quick study of $x_0$\n\nDoes a line agree with $x^2$? It is quick." in text
    assert "](two-line.png)" in text
    assert "| one | a line | 1 | 0 | at least 0.1 below | holds |" in text
    assert "| one | a line | 0 | 0 | ± 0.1 | holds |" in text
    study = tmp_path / "studies/one.py"
    study.write_text(study.read_text().replace("a line", "another line"))
    assert "one: stale: it was edited" in here("gallery")[1]


def test_a_folder_of_a_study_that_is_gone_is_named_and_not_shown(tmp_path, here):
    quick(tmp_path, "kept")
    quick(tmp_path, "renamed")
    drawn(tmp_path, "renamed", "smoke")
    (tmp_path / "studies/renamed.py").unlink()
    printed = here("figures", "--preset", "smoke")[1]
    assert "figures/smoke/renamed is of a study that is gone" in printed
    assert "renamed" not in (tmp_path / "figures/smoke/index.html").read_text()
    assert "figures/smoke/renamed is of a study that is gone" in here("list")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("figures", "phase_diagramm"),
            "no study named phase_diagramm in studies: there are abc_atlas, ",
        ),
        (("figures", "--studies", "nowhere"), "no studies in nowhere"),
        (("figures", "--jobs", "0"), "--jobs 0: give a whole number >= 1"),
        (("new", "my-study"), "cannot name a study"),
        (("cite", "infinite.phases"), "no study and no part of theorysim is called infinite.phases"),
    ],
)
def test_a_misuse_is_one_line_and_exit_code_2(here, arguments, message):
    code, printed = here(*arguments, cwd=ROOT)
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed


def test_the_exit_code_and_the_message_leave_the_process():
    done = theorysim("new", "my-study")
    assert done.returncode == 2
    assert "cannot name a study" in done.stdout
    assert done.stderr == ""
    assert re.search(r"x64 +on", theorysim("doctor").stdout)


def test_help_and_list_import_no_numerical_library(tmp_path):
    for name in range(60):
        quick(tmp_path, f"family/study_{name}", "import theorysim", "import nothing_like_this\nimport theorysim")
    for command in ("--help", "list"):
        code = (
            "import sys\nfrom theorysim import cli\n"
            f"assert cli.call({command!r}) == 0\n"
            "heavy = {'jax', 'jaxlib', 'numpy', 'scipy', 'xarray', 'pandas', 'matplotlib', 'jinja2'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.count("not drawn") == 180


def test_cite_and_doctor_print(here):
    assert "@inproceedings{jacot2018neural" in here("cite", "ntk_dynamics", cwd=ROOT)[1]
    assert "@inproceedings{poole2016exponential" in here("cite", "infinite.phase.chi")[1]
    assert here("cite", "scaling")[1].count("\n@") > 10
    assert "jaxlib" in here("doctor")[1]


def test_a_study_runs_as_a_notebook_with_its_pictures_and_claims(tmp_path, here, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")  # as the command line sets it
    quick(tmp_path, "family/right")
    quick(
        tmp_path,
        "silent",
        '    data = simulate(PRESETS["smoke"])\n    draw(data)\n',
        "    data = {}\n    claims = dict\n",
    )
    code, printed = here("notebooks")
    assert code == 1
    assert "figures/notebooks/silent.ipynb shows no picture" in printed
    assert "1 notebooks fail: silent" in printed
    notebook = json.loads((tmp_path / "figures/notebooks/family/right.ipynb").read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "image/png" in str(notebook["cells"])
    assert "holds: a line: 0 for 0 within 0.1" in str(notebook["cells"])


@pytest.mark.slow
def test_the_studies_run_as_notebooks(tmp_path):
    done = theorysim("notebooks", "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    assert sorted(path.stem for path in (tmp_path / "notebooks").rglob("*.ipynb")) == STUDIES


def test_make_help_lists_the_verbs():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for verb in ("setup", "figures", "gallery", "test", "test-all", "lint", "bench", "notebooks", "clean"):
        assert f"\n{verb} " in f"\n{printed}"


def planted(count):
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9, count), 10 ** rng.uniform(9, 11, count)
    loss = (1.8 + 480 / n**0.35 + 2000 / d**0.37) * np.exp(0.003 * rng.standard_normal(count))
    return pd.DataFrame({"params": n, "tokens": d, "loss": loss})


@pytest.fixture
def own(tmp_path):
    planted(40).to_csv(tmp_path / "runs.csv", index=False)
    pd.DataFrame({"step": range(50), "lr": 0.1, "loss": 3.0}).to_csv(tmp_path / "curve.csv", index=False)
    planted(3).assign(step=9, lr=0.1).to_csv(tmp_path / "few.csv", index=False)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("runs.csv --out thesis", "thesis: it exists and holds no report; name another folder"),
        ("runs.csv --out runs.csv/x", "runs.csv/x: it cannot be written (Not a directory); name another folder"),
        ("runs.csv --samples 0", "samples=0: give at least 2"),
        ("runs.csv --warmup 2", "--warmup: chinchilla is fitted to a table of runs; leave it out, or say --law anneal"),
        ("curve.csv --n lr --objective huber", "--n, --objective: annealing is fitted to training curves; leave it"),
        ("curve.csv --level 95", "level=95.0: give a share in (0, 1)"),
        ("curve.csv --out thesis", "thesis: it exists and holds no report"),
        ("few.csv", "3 runs for 5 free parameters of chinchilla"),
    ],
)
def test_fit_refuses_in_one_line_before_it_fits(own, here, arguments, message):
    code, printed = here("fit", *arguments.split(), cwd=own)
    assert code == 2, printed
    assert message in printed
    assert "Traceback" not in printed
    assert sorted(path.name for path in own.iterdir()) == ["curve.csv", "few.csv", "runs.csv", "thesis"]


def test_a_part_of_a_step_is_no_whole_number(own, here):
    code, printed = here("fit", "curve.csv", "--warmup", "2.5", cwd=own)
    assert code != 0
    assert "--warmup: give a whole number" in printed
    assert "Traceback" not in printed


def test_a_group_that_cannot_be_fitted_does_not_stop_the_others(own, here):
    frame = pd.concat([planted(3).assign(kind=".."), planted(40).assign(kind="a b"), planted(40).assign(kind="a/b")])
    frame.to_csv(own / "groups.csv", index=False)
    code, printed = here("fit", "groups.csv", "--group", "kind", "--samples", "20", "--out", "here", cwd=own)
    assert code == 1, printed
    assert "1 of 3 groups cannot be fitted:\n  ..: 3 runs for 5 free parameters" in printed
    assert sorted(path.name for path in (own / "here").iterdir()) == ["a-b", "a-b-2"]


def test_a_users_runs_are_fitted_and_another_run_predicted(tmp_path, here):
    planted(40).to_csv(tmp_path / "runs.csv", index=False)
    done = theorysim("fit", "runs.csv", "--samples", "100", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "n is the column 'params'" in done.stdout
    assert "of starts end in the optimum" in done.stdout
    assert (tmp_path / "runs-chinchilla" / "frontier.png").exists()
    code, asked = here("predict", "runs-chinchilla", "--n", "1e9", "--d", "2e10")
    assert code == 0, asked
    assert "95% intervals" in asked
    assert "doubt" not in asked
    assert "doubt: n = 1e+30 is 1" in here("predict", "runs-chinchilla", "--n", "1e30", "--d", "2e10")[1]
    code, none = here("predict", "runs-chinchilla", "--n", "0", "--d", "2e10")
    assert code == 2
    assert "n=[0.0]: give positive numbers" in none
    (tmp_path / "few.csv").write_text("params,tokens,loss\n1e8,1e9,3.0\n")
    code, refused = here("fit", "few.csv")
    assert code == 2
    assert "1 runs for 5 free parameters of chinchilla" in refused
    assert not (tmp_path / "few-chinchilla").exists()
