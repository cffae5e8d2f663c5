"""The works that studies and theory name, in one BibTeX file."""

import importlib
import re
from pathlib import Path

FILE = Path(__file__).parent / "references.bib"
IDENTIFIER = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\S+?(?=[\s,;)\]\"']|\.?$)")


def entries(study: Path | None = None) -> dict[str, str]:
    """BibTeX entries by identifier, as in `arXiv:1806.07572`.

    A study adds those of a `references.bib` that stands in its folder or in the one above.
    """
    own = [place / FILE.name for place in study.absolute().parents[:2]] if study else []
    texts = [path.read_text().strip() for path in (FILE, *own) if path.exists()]
    found = {}
    for entry in (entry for text in texts for entry in re.split(r"\n(?=@)", text)):
        for kind, name in (("eprint", "arXiv"), ("doi", "doi")):
            if identifier := field(entry, kind):
                found[f"{name}:{identifier}"] = entry
    return found


def field(entry: str, name: str) -> str:
    """A field of a BibTeX entry, such as its title; empty where it has none."""
    found = re.search(rf"^\s*{name}\s*=\s*\{{(.+)\}}", entry, re.MULTILINE)
    return found[1] if found else ""


def cite(sources: tuple[str, ...], study: Path | None = None) -> str:
    """The BibTeX entries of some identifiers; `KeyError` for one that `references.bib` lacks."""
    known = entries(study)
    if unknown := [source for source in sources if source not in known]:
        raise KeyError(f"{FILE.name} has no entry for {', '.join(unknown)}: add it there")
    return "\n\n".join(dict.fromkeys(known[source] for source in sources))


def sources_of(name: str) -> tuple[str, ...]:
    """What a module, function or class of theorysim names in its docstring, or its module's: `infinite.phase.chi`.

    Of a package that names none itself: what its modules name. `KeyError` for what is no part of theorysim.
    """
    thing = importlib.import_module("theorysim")
    for attribute in name.removeprefix("theorysim.").split("."):
        if not hasattr(thing, attribute):
            raise KeyError(f"no study and no part of theorysim is called {name}: `theorysim list` shows the studies")
        thing = getattr(thing, attribute)
    own = IDENTIFIER.findall(thing.__doc__ or "")
    home = importlib.import_module(getattr(thing, "__module__", None) or thing.__name__)
    found = own or IDENTIFIER.findall(home.__doc__ or "")
    if not found and hasattr(thing, "__path__"):
        files = sorted(Path(thing.__path__[0]).rglob("*.py"))
        known = entries()
        found = [source for file in files for source in IDENTIFIER.findall(file.read_text()) if source in known]
    return tuple(dict.fromkeys(found))


def link(source: str) -> str:
    """The address of an identifier."""
    kind, _, number = source.partition(":")
    return f"https://arxiv.org/abs/{number}" if kind == "arXiv" else f"https://doi.org/{number}"
