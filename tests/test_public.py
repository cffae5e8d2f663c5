"""What every public function owes its user: a docstring that says what is refused, and examples that run."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent / "theorysim"
REFUSING = re.compile(r"^(require_|_require|_check|check$|checked$)")
ENGINE = ("finite.py", "grid.py", "sweep.py")  # whose names are public
PUBLIC = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name not in ("cli.py", "template.py", "checks.py") and (path.parent.name != "engine" or path.name in ENGINE)
]


def functions(path):
    """Public functions and methods of a file, by qualified name."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method


def refuses(function):
    """Whether it raises, or calls a check, or is decorated by one."""
    if any(REFUSING.match(ast.unparse(decorator)) for decorator in function.decorator_list):
        return True
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if isinstance(node, ast.Call) and REFUSING.match(ast.unparse(node.func).split(".")[-1]):
            return True
    return False


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_can_refuse_says_so(path):
    silent = [
        name
        for name, function in functions(path)
        if refuses(function)
        and not re.search(r"Raises|`\w+Error`|Refuse|refused?\b", ast.get_docstring(function) or "")
    ]
    assert not silent, f"{path}: {', '.join(silent)} can refuse, and their docstrings have no **Raises:**"


def examples():
    for path in PUBLIC:
        for name, function in functions(path):
            for code in re.findall(r"```python\n(.*?)```", ast.get_docstring(function) or "", re.DOTALL):
                if "import " in code:
                    yield pytest.param(code, id=f"{path.relative_to(ROOT)}:{name}")


@pytest.mark.parametrize("code", list(examples()))
def test_examples_run(code):
    """Those that import what they show."""
    exec(code, {"jax": jax, "jnp": jnp, "np": np})
