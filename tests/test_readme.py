"""The README's example runs, prints what it says, and shows the claims of the gallery."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_prints_what_the_readme_shows():
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    assert len([line for line in code.splitlines() if line]) <= 10
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for ours, theirs in zip(printed.splitlines()[2:], shown.splitlines()[2:], strict=True):
        np.testing.assert_allclose(*(np.array(row.split(), float) for row in (ours, theirs)), atol=0.011)
        _, simulation, theory = map(float, theirs.split())
        assert abs(simulation - theory) < 0.03


def test_the_fit_prints_what_the_readme_shows():
    code, shown = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)[1]
    assert "jax.config.update" in README
    first = 'import jax, theorysim as ts\njax.config.update("jax_enable_x64", True)\n'
    printed = subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True, check=True).stdout
    numbers = [np.array(re.findall(r"0\.\d+", text), float) for text in (printed, shown)]
    np.testing.assert_allclose(*numbers, atol=0.0011)
    assert numbers[0][1] < 0.37 / 0.72 < numbers[0][2]


def test_what_the_readme_links_to_is_there():
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / target).exists(), target
