"""What a study's numbers depend on: its code above `claims`, one preset, the theorysim modules it names."""

import ast
import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from theorysim import ENGINE

ROOT = Path(__file__).parent.parent
_NOT_NUMBERS = {"TITLE", "SOURCES", "PRESETS"}


def fingerprint(study: Path, preset: object) -> str:
    """A hash of code, not of dates: comments, docstrings, other presets, `claims` and `draw` leave it alone.

    jax and jaxlib belong to it: a release that computed wrong numbers must not leave them behind.
    """
    above = _above_claims(ast.parse(study.read_text()))
    digest = hashlib.sha256(f"{version('jax')} {version('jaxlib')} {preset!r} {_code(above)}".encode())
    for path in sorted(modules(above)):
        digest.update(f"{path.relative_to(ROOT)} {_code(ast.parse(path.read_text()))}".encode())
    return digest.hexdigest()[:16]


def modules(tree: ast.Module) -> set[Path]:
    """The files of the package that some code names, and those that they import in turn.

    A lazy family is named by attribute (`ts.infinite.phase`): only what is named counts.
    """
    found: set[Path] = set()
    todo = [path for name in _names(tree) for path in _files(name)]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += [path for name in _names(ast.parse(path.read_text())) for path in _files(name)]
    return found


def _above_claims(tree: ast.Module) -> ast.Module:
    body = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in ("claims", "draw"):
            break
        if isinstance(node, ast.Assign) and {ast.unparse(target) for target in node.targets} & _NOT_NUMBERS:
            continue
        body.append(node)
    return ast.Module(body, [])


def _names(tree: ast.Module) -> Iterator[tuple[str, ...]]:
    """Dotted names below the package, as the code imports or spells them."""
    package, aliases = ROOT.name, dict[str, tuple[str, ...]]()
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                parts = tuple(name.name.split("."))
                if parts[0] == package:
                    yield parts[1:]
                    aliases[name.asname or package] = parts[1:] if name.asname else ()
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            for name in node.names:
                parts = (*node.module.split(".")[1:], name.name)
                yield parts
                aliases[name.asname or name.name] = parts
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.Attribute):
            base, *attributes = ast.unparse(node).split(".")
            if base in aliases:
                yield (*aliases[base], *attributes)


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _runtime_nodes(node)


def _files(name: tuple[str, ...]) -> Iterator[Path]:
    """The modules along a dotted name, as far as it names modules."""
    yield ROOT / "__init__.py"
    name = ("engine",) if name and name[0] in ENGINE else name
    for depth in range(1, len(name) + 1):
        path = ROOT.joinpath(*name[:depth])
        if (path / "__init__.py").exists():
            yield path / "__init__.py"
            continue
        if path.with_suffix(".py").exists():
            yield path.with_suffix(".py")
        return


def _code(tree: ast.Module) -> str:
    """The code without comments, positions and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return ast.dump(tree)
