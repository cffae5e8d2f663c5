"""The works that studies and theory name, in one BibTeX file."""

import importlib
import re
from pathlib import Path

FILE = Path(__file__).parent / "references.bib"
IDENTIFIER = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\S+?(?=[\s,;)\]\"']|\.?$)")


def entries() -> dict[str, str]:
    """BibTeX entries by identifier, as in `arXiv:1806.07572`."""
    found = {}
    for entry in re.split(r"\n(?=@)", FILE.read_text().strip()):
        eprint = re.search(r"eprint\s*=\s*\{([^}]+)\}", entry)
        doi = re.search(r"doi\s*=\s*\{([^}]+)\}", entry)
        if eprint:
            found[f"arXiv:{eprint[1]}"] = entry
        if doi:
            found[f"doi:{doi[1]}"] = entry
    return found


def cite(sources: tuple[str, ...]) -> str:
    """The BibTeX entries of some identifiers; `KeyError` for one that `references.bib` lacks."""
    known = entries()
    if unknown := [source for source in sources if source not in known]:
        raise KeyError(f"{FILE.name} has no entry for {', '.join(unknown)}: add it there")
    return "\n\n".join(dict.fromkeys(known[source] for source in sources))


def sources_of(name: str) -> tuple[str, ...]:
    """What a module, function or class of theorysim names in its docstring, or its module's: `infinite.phase.chi`."""
    thing = importlib.import_module("theorysim")
    for attribute in name.removeprefix("theorysim.").split("."):
        if not hasattr(thing, attribute):
            raise KeyError(f"no study and no part of theorysim is called {name}: `theorysim list` shows the studies")
        thing = getattr(thing, attribute)
    own = IDENTIFIER.findall(thing.__doc__ or "")
    home = importlib.import_module(getattr(thing, "__module__", None) or thing.__name__)
    return tuple(dict.fromkeys(own or IDENTIFIER.findall(home.__doc__ or "")))


def link(source: str) -> str:
    """The address of an identifier."""
    kind, _, number = source.partition(":")
    return f"https://arxiv.org/abs/{number}" if kind == "arXiv" else f"https://doi.org/{number}"
