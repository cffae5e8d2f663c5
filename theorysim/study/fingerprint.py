"""What a study's numbers depend on: the code behind `simulate` and one preset, the modules and data files it names."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent


def fingerprint(study: Path, preset: str) -> str:
    """A hash of code and data, not of dates: comments, docstrings, other presets, `claims` and `draw` leave it alone.

    jax and jaxlib belong to it: a release that computed wrong numbers must not leave them behind.
    """
    code = _behind_simulate(_parsed(study.read_text()), preset)
    beside = _beside(code, study.parent)
    trees = [code, *(ast.parse(path.read_text()) for path in beside)]
    digest = hashlib.sha256(f"{version('jax')} {version('jaxlib')} {_code(code)}".encode())
    for path in sorted({path for tree in trees for path in modules(tree)}):
        digest.update(f"{path.relative_to(ROOT)} {_code_of(path.read_text())}".encode())
    for path in beside:
        digest.update(f"{path.name} {_code_of(path.read_text())}".encode())
    for path in sorted({path for tree in trees for path in _data_files(tree, study.parent)}):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def sketch(study: Path) -> str:
    """A hash of the whole study, with its sentences: what its claims and pictures on the disk were made by."""
    return _sketch_of(study.read_text())


def modules(tree: ast.Module) -> set[Path]:
    """The files of the package that some code names, and those that they import in turn.

    A lazy family is named by attribute (`ts.infinite.phase`): only what is named counts.
    """
    found: set[Path] = set()
    todo = [path for name in set(_names(tree)) for path in _files(ROOT, name)]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += [path for name in _names_in(path.read_text()) for path in _files(ROOT, name)]
    return found


# By text, not by date: a folder of studies shares most modules, and a study's presets most of its code.
@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def _sketch_of(source: str) -> str:
    return hashlib.sha256(ast.dump(ast.parse(source)).encode()).hexdigest()[:16]


@cache
def _names_in(source: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_names(ast.parse(source)))


@cache
def _code_of(source: str) -> str:
    return _code(ast.parse(source))


def _behind_simulate(tree: ast.Module, preset: str) -> ast.Module:
    """What `simulate` needs, and the preset; all presets where `simulate` names them."""
    body = [node for node in tree.body if not _is_main(node)]
    code = _needed(body, {"simulate"})
    if not any("PRESETS" in _defined(node) for node in code):
        code = _needed([_only(node, preset) for node in body], {"simulate", "PRESETS"})
    return ast.Module(code, [])


def _needed(body: list[ast.stmt], used: set[str]) -> list[ast.stmt]:
    """The statements that define a name that is used, and those that define the names they use, and so on.

    A statement that defines nothing (a call, a loop) may do anything: it counts.
    """
    defined = {id(node): set(_defined(node)) for node in body}
    needed: set[int] = set()
    while more := [n for n in body if id(n) not in needed and (not defined[id(n)] or defined[id(n)] & used)]:
        for node in more:
            needed.add(id(node))
            used |= _used(node)
    return [node for node in body if id(node) in needed]


@cache
def _used(statement: ast.stmt) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(statement) if isinstance(node, ast.Name))


def _only(node: ast.stmt, preset: str) -> ast.stmt:
    """`PRESETS = {...}` without the other presets; any other statement as it is."""
    match node:
        case ast.Assign([ast.Name("PRESETS")], ast.Dict(keys, values)):
            pairs = zip(keys, values, strict=True)
            chosen = [(k, v) for k, v in pairs if not isinstance(k, ast.Constant) or k.value == preset]
            return ast.Assign(node.targets, ast.Dict([k for k, _ in chosen], [v for _, v in chosen]))
    return node


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
    """Modules that stand beside the study and are imported by it, or by one of them."""
    found: set[Path] = set()
    todo = [tree]
    while todo:
        imports = [n for n in ast.walk(todo.pop()) if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in imports if isinstance(n, ast.ImportFrom) and n.module}
        files = {place / f"{name.split('.')[0]}.py" for name in names for place in (folder, Path())}
        new = {file for file in files if file.exists()} - found
        found |= new
        todo += [ast.parse(file.read_text()) for file in new]
    return sorted(found)


def _data_files(tree: ast.Module, folder: Path) -> Iterator[Path]:
    """Files that code spells out, "runs.csv" or HERE / "data" / "runs.csv", from the study's folder or from here."""
    for name in {name for statement in tree.body for name in _all_spelled(statement)}:
        if name.isprintable() and len(name) < 256 and not Path(name).is_absolute():
            yield from (path for path in (folder / name, Path(name)) if path.is_file())


@cache
def _all_spelled(statement: ast.stmt) -> frozenset[str]:
    return frozenset(map(_spelled, ast.walk(statement)))


def _spelled(node: ast.AST) -> str:
    """The relative path that an expression ends in; empty where it is none."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.BinOp(left, ast.Div(), right):
            parts = (left, right)
        case ast.Call(_, parts):
            pass
        case _:
            return ""
    return "/".join(spelled for part in parts if (spelled := _spelled(part)))


def _names(tree: ast.Module) -> Iterator[tuple[str, ...]]:
    """Dotted names below the package, as the code imports or spells them."""
    package, aliases = ROOT.name, dict[str, tuple[str, ...]]()
    imports, attributes = zip(*map(_naming, tree.body), strict=True) if tree.body else ((), ())
    for node in (node for statement in imports for node in statement):
        if isinstance(node, ast.Import):
            for name in node.names:
                parts = tuple(name.name.split("."))
                if parts[0] == package:
                    yield parts[1:]
                    aliases[name.asname or package] = parts[1:] if name.asname else ()
        elif node.module and node.module.split(".")[0] == package:
            for name in node.names:
                parts = (*node.module.split(".")[1:], name.name)
                yield parts
                aliases[name.asname or name.name] = parts
    for base, *rest in {dotted for statement in attributes for dotted in statement}:
        if base in aliases:
            yield (*aliases[base], *rest)


@cache
def _naming(statement: ast.stmt) -> tuple[list[ast.Import | ast.ImportFrom], set[tuple[str, ...]]]:
    """The imports of a statement, and the dotted names that it spells; those for type checkers do not count."""
    imports, attributes = [], set[tuple[str, ...]]()
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.Attribute):
            attributes.add(tuple(ast.unparse(node).split(".")))
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            todo += reversed(list(ast.iter_child_nodes(node)))
    return imports, attributes


@cache
def _files(root: Path, name: tuple[str, ...]) -> tuple[Path, ...]:
    """The modules along a dotted name, as far as it names modules, or what a package loads when it is first named."""
    found = [root / "__init__.py"]
    for depth in range(1, len(name) + 1):
        path = root.joinpath(*name[:depth])
        if (path / "__init__.py").exists():
            found.append(path / "__init__.py")
            continue
        if path.with_suffix(".py").exists():
            found.append(path.with_suffix(".py"))
        elif (init := path.parent / "__init__.py").exists():
            home = _loaded_lazily(init.read_text()).get(name[depth - 1])
            found += _files(root, home) if home else ()
        break
    return tuple(found)


@cache
def _loaded_lazily(source: str) -> dict[str, tuple[str, ...]]:
    """Where a package's `__init__` has names from that it imports for type checkers only."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom) and n.module]
    return {a.name: (*str(n.module).split(".")[1:], a.name) for n in imports for a in n.names}


def _code(tree: ast.Module) -> str:
    """The code without comments, positions and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return ast.dump(tree)
