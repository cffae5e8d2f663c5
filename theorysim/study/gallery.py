"""The page that shows a folder of figures, and the tables for README."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from theorysim.study.references import link

TEMPLATE = Path(__file__).parent / "gallery.html"


def records(out: Path) -> Iterator[dict[str, Any]]:
    """What each study under `out` left, in alphabetical order."""
    for path in sorted(out.glob("*/claims.json")):
        times = path.with_name("times.json")
        seconds = sum(json.loads(times.read_text()).values()) if times.exists() else None
        yield {**json.loads(path.read_text()), "seconds": seconds}


def write_page(out: Path) -> Path:
    """Write `out`/index.html: figures, claims with their verdicts, sources, run times, provenance."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "link": link}
    page = environment.from_string(TEMPLATE.read_text()).render(studies=list(records(out)), preset=out.name)
    path = out / "index.html"
    path.write_text(page)
    return path


def claims_table(out: Path) -> str:
    """The claims of every study as a Markdown table."""
    rows = ["| study | claim | predicted | measured | tolerance | |", "|---|---|---|---|---|---|"]
    for record in records(out):
        for claim in record["claims"]:
            numbers = (number(claim[column]) for column in ("predicted", "measured", "tolerance"))
            verdict = "holds" if claim["holds"] else "**fails**"
            sentence = claim["sentence"].replace("|", "&#124;")
            rows.append(f"| `{record['study']}` | {sentence} | {' | '.join(numbers)} | {verdict} |")
    return "\n".join(rows)


def number(value: float) -> str:
    """Four digits, short."""
    return f"{value:.4g}"


def update_readme(readme: Path, out: Path) -> None:
    """Put the table of claims between the README's two `claims` marks."""
    before, _, rest = readme.read_text().partition("<!-- claims -->")
    _, _, after = rest.partition("<!-- /claims -->")
    readme.write_text(f"{before}<!-- claims -->\n\n{claims_table(out)}\n\n<!-- /claims -->{after}")
