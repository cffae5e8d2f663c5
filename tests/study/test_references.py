"""Every source that a study or theory names is in the one references file."""

import re
from pathlib import Path

import pytest

from theorysim.study import cite, load, references

ROOT = Path(__file__).parent.parent.parent


def test_every_entry_has_what_a_bibliography_needs():
    text = references.FILE.read_text()
    assert text.count("@") == len(references.entries())
    for entry in references.entries().values():
        for field in ("title", "author", "year", "eprint"):
            assert re.search(rf"\b{field} = \{{.+\}},", entry), (field, entry)


def test_every_source_of_a_study_is_there():
    for path in load.find(ROOT / "studies"):
        _, sources = load.skim(path)
        assert sources, path
        assert cite(sources).count("@") == len(sources)


def test_every_source_that_the_package_names_is_there():
    named = {
        (path.name, source)
        for path in (ROOT / "theorysim").rglob("*.py")
        for source in references.IDENTIFIER.findall(path.read_text())
    }
    assert {source for _, source in named} >= {"arXiv:1606.05340", "arXiv:1806.07572"}
    assert {(name, source) for name, source in named if source not in references.entries()} == set()


def test_a_function_knows_its_sources_or_its_module_does():
    assert references.sources_of("infinite.phase.chi") == ("arXiv:1606.05340", "arXiv:1611.01232")
    assert references.sources_of("infinite.phase.fixed_point") == ("arXiv:1606.05340", "arXiv:1611.01232")
    assert references.sources_of("theorysim.infinite.erf")[0] == "arXiv:1602.05897"
    assert {"arXiv:2001.08361", "arXiv:2203.15556"} <= set(references.sources_of("scaling"))
    with pytest.raises(KeyError, match=r"references\.bib has no entry for arXiv:9999\.99999"):
        cite(("arXiv:9999.99999",))
