"""The command line as a user types it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.py"))


def theorysim(*arguments, cwd=ROOT):
    command = [sys.executable, "-c", "from theorysim.cli import main; main()", *map(str, arguments)]
    # A user's environment: without what this process's JAX has set, and with one device. (jaxlib can deadlock where
    # eight forced ones call LAPACK in a batch.)
    ours = ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("half", [0, 1])
def test_the_studies_are_drawn_and_their_claims_hold(tmp_path, half):
    studies = STUDIES[half::2]
    done = theorysim("figures", *studies, "--preset", "smoke", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for study in studies:
        assert f"{study} simulated and drawn" in done.stdout
    assert "  fails  " not in done.stdout
    assert done.stdout.count("  holds  ") > 2 * len(studies)
    assert (tmp_path / "smoke" / "index.html").exists()


def test_a_study_is_drawn_again_from_its_data_and_listed(tmp_path):
    for name in ("mine", "other"):
        theorysim("new", name, cwd=tmp_path)
    theorysim("figures", "mine", "--preset", "smoke", cwd=tmp_path)
    again = theorysim("figures", "mine", "--preset", "smoke", cwd=tmp_path)
    assert "mine from its data" in again.stdout
    assert "other" not in again.stdout
    listed = theorysim("list", cwd=tmp_path).stdout
    assert "1 of 1 hold" in listed
    assert "not drawn" in listed
    assert "arXiv:1611.01232" in theorysim("list").stdout


def test_a_broken_and_a_failing_study_do_not_stop_the_others(tmp_path):
    for name in ("aaa_broken", "bbb_failing", "ccc_right"):
        assert theorysim("new", name, cwd=tmp_path).returncode == 0
    studies = tmp_path / "studies"
    (studies / "aaa_broken.py").write_text("1 / 0\n")
    failing = studies / "bbb_failing.py"
    failing.write_text(failing.read_text().replace("predicted=0,", "predicted=100,"))
    done = theorysim("figures", "--preset", "smoke", cwd=tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
    assert "2 of 3 studies fail: aaa_broken, bbb_failing" in done.stdout
    assert (tmp_path / "figures/smoke/ccc_right/variance.pdf").exists()
    assert (tmp_path / "figures/smoke/bbb_failing/variance.pdf").exists()
    listed = theorysim("list", cwd=tmp_path).stdout
    assert "broken" in listed
    assert "0 of 1 hold" in listed
    assert "1 of 1 hold" in listed


def test_a_machine_that_computes_wrong_numbers_draws_nothing(tmp_path):
    code = (
        "from theorysim import doctor\n"
        "def fail(): raise doctor.WrongNumbersError('wrong numbers: use another jaxlib')\n"
        "doctor.self_check = fail\n"
        "from theorysim.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "figures", "--out", str(tmp_path / "figures")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "use another jaxlib" in done.stdout
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("figures", "phase_diagramm"),
            f"no study named phase_diagramm in studies: there are {', '.join(STUDIES)}",
        ),
        (("figures", "--studies", "nowhere"), "no studies in nowhere"),
        (("new", "my-study"), "cannot name a study"),
        (("cite", "infinite.phases"), "no study and no part of theorysim is called infinite.phases"),
    ],
)
def test_a_misuse_is_one_line_and_exit_code_2(arguments, message):
    done = theorysim(*arguments)
    assert done.returncode == 2
    assert message in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_cite_and_doctor_print():
    assert "@inproceedings{jacot2018neural" in theorysim("cite", "ntk_dynamics").stdout
    assert "@inproceedings{poole2016exponential" in theorysim("cite", "infinite.phase.chi").stdout
    assert "jaxlib" in theorysim("doctor").stdout


@pytest.mark.slow
def test_the_studies_run_as_notebooks(tmp_path):
    done = theorysim("notebooks", "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    assert {path.name for path in (tmp_path / "notebooks").iterdir()} == {"ntk_dynamics.ipynb", "phase_diagram.ipynb"}


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
def test_fit_refuses_in_one_line_before_it_fits(own, arguments, message):
    done = theorysim("fit", *arguments.split(), cwd=own)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert sorted(path.name for path in own.iterdir()) == ["curve.csv", "few.csv", "runs.csv", "thesis"]


def test_a_part_of_a_step_is_no_whole_number(own):
    done = theorysim("fit", "curve.csv", "--warmup", "2.5", cwd=own)
    assert done.returncode != 0
    assert "--warmup: give a whole number" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_group_that_cannot_be_fitted_does_not_stop_the_others(own):
    frame = pd.concat([planted(3).assign(kind=".."), planted(40).assign(kind="a b"), planted(40).assign(kind="a/b")])
    frame.to_csv(own / "groups.csv", index=False)
    done = theorysim("fit", "groups.csv", "--group", "kind", "--samples", "20", "--out", "here", cwd=own)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 3 groups cannot be fitted:\n  ..: 3 runs for 5 free parameters" in done.stdout
    assert sorted(path.name for path in (own / "here").iterdir()) == ["a-b", "a-b-2"]


def test_a_users_runs_are_fitted_and_another_run_predicted(tmp_path):
    planted(40).to_csv(tmp_path / "runs.csv", index=False)
    done = theorysim("fit", "runs.csv", "--samples", "100", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "n is the column 'params'" in done.stdout
    assert "of starts end in the optimum" in done.stdout
    assert (tmp_path / "runs-chinchilla" / "frontier.png").exists()
    asked = theorysim("predict", "runs-chinchilla", "--n", "1e9", "--d", "2e10", cwd=tmp_path)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "95% intervals" in asked.stdout
    assert "doubt" not in asked.stdout
    far = theorysim("predict", "runs-chinchilla", "--n", "1e30", "--d", "2e10", cwd=tmp_path)
    assert "doubt: n = 1e+30 is 1" in far.stdout
    none = theorysim("predict", "runs-chinchilla", "--n", "0", "--d", "2e10", cwd=tmp_path)
    assert none.returncode == 2
    assert "n=[0.0]: give positive numbers" in none.stdout
    (tmp_path / "few.csv").write_text("params,tokens,loss\n1e8,1e9,3.0\n")
    refused = theorysim("fit", "few.csv", cwd=tmp_path)
    assert refused.returncode == 2
    assert "1 runs for 5 free parameters of chinchilla" in refused.stdout
    assert not (tmp_path / "few-chinchilla").exists()
