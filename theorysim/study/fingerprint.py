"""What a study's numbers depend on: the code behind `simulate`, one preset, the modules it names."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from theorysim import ENGINE

ROOT = Path(__file__).parent.parent


def fingerprint(study: Path, preset: object) -> str:
    """A hash of code, not of dates: comments, docstrings, other presets, `claims` and `draw` leave it alone.

    jax and jaxlib belong to it: a release that computed wrong numbers must not leave them behind.
    """
    code = _behind_simulate(ast.parse(study.read_text()))
    digest = hashlib.sha256(f"{version('jax')} {version('jaxlib')} {preset!r} {_code(code)}".encode())
    for path in sorted(modules(code)):
        digest.update(f"{path.relative_to(ROOT)} {_code_of(path.read_text())}".encode())
    for path in _beside(code, study.parent):
        digest.update(f"{path.name} {_code_of(path.read_text())}".encode())
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
            todo += [path for name in _names_in(path.read_text()) for path in _files(name)]
    return found


# By text, not by date: a folder of studies shares most modules.
@cache
def _names_in(source: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_names(ast.parse(source)))


@cache
def _code_of(source: str) -> str:
    return _code(ast.parse(source))


def _behind_simulate(tree: ast.Module) -> ast.Module:
    """The top-level statements that `simulate` needs: those that define a name it uses, and theirs, and so on.

    A statement that defines nothing (a call, a loop) may do anything: it counts.
    """
    defined = {id(node): set(_defined(node)) for node in tree.body}
    used, needed = {"simulate"}, set()
    while True:
        more = [n for n in tree.body if id(n) not in needed and (not defined[id(n)] or defined[id(n)] & used)]
        more = [node for node in more if not _is_main(node)]
        if not more:
            return ast.Module([node for node in tree.body if id(node) in needed], [])
        for node in more:
            needed.add(id(node))
            used |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def _beside(tree: ast.Module, folder: Path) -> list[Path]:
    """Modules that stand beside the study and are imported by it."""
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in imports if isinstance(n, ast.ImportFrom) and n.module}
    files = {place / f"{name.split('.')[0]}.py" for name in names for place in (folder, Path())}
    return sorted(file for file in files if file.exists())


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
    todo = [tree]
    while todo:
        node = todo.pop()
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            todo += reversed(list(ast.iter_child_nodes(node)))


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
