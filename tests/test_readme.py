"""The README's example runs, prints what it says, and shows the claims of the gallery."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_prints_what_the_readme_shows():
    code, printed = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    assert len(code.strip().splitlines()) <= 12
    output = StringIO()
    with redirect_stdout(output):
        exec(code, {})
    assert output.getvalue().split() == printed.split()
    rows = [line.split() for line in printed.splitlines()[2:]]
    assert all(abs(float(simulation) - float(theory)) < 0.05 for _, simulation, theory in rows)


def test_what_the_readme_links_to_is_there():
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / target).exists(), target
