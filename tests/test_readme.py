"""The README's examples run and print what it says, and what it names is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from theorysim import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def run(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_example_prints_what_the_readme_shows(tmp_path):
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    assert len([line for line in code.splitlines() if line]) <= 10
    printed = run(["-c", code], tmp_path)
    for ours, theirs in zip(printed.splitlines()[2:], shown.splitlines()[2:], strict=True):
        np.testing.assert_allclose(*(np.array(row.split(), float) for row in (ours, theirs)), atol=0.011)
        _, simulation, theory = map(float, theirs.split())
        assert abs(simulation - theory) < 0.03


def test_the_fit_prints_what_the_readme_shows_and_its_runs_raise_no_doubt(tmp_path, monkeypatch, capsys):
    code, shown = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)[1]
    printed = run(["-c", code], tmp_path)
    numbers = [np.array(re.findall(r"0\.\d+", text), float) for text in (printed, shown)]
    np.testing.assert_allclose(*numbers, atol=0.0011)
    assert numbers[0][1] < 0.37 / 0.72 < numbers[0][2]
    commands = re.findall(r"^theorysim ((?:fit|predict) runs.*?)(?:  +#.*)?$", README, re.MULTILINE)
    assert len(commands) == 2
    monkeypatch.chdir(tmp_path)
    for command in commands:
        fewer = ["--samples", "50"] if command.startswith("fit") else []
        assert cli.call(*command.split(), *fewer) == 0
        printed = capsys.readouterr()
        assert "doubt" not in printed.out + printed.err
    assert "95% intervals" in printed.out


def test_the_commands_of_the_table_exist():
    commands = set(re.findall(r"theorysim ([a-z]+)", README)) - {"as"}
    assert commands == {"cite", "doctor", "figures", "fit", "gallery", "list", "new", "notebooks", "predict"}
    assert all(hasattr(cli, command) or command == "list" for command in commands)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_what_the_readme_links_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
