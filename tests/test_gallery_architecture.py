"""The rules of the gallery's package, kept by looking at its source.

Method: the docstring of the package lists the modules in order, and the syntax trees say which
module imports which.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import gallery

FOLDER = REPOSITORY / "gallery"
TREES = {path.stem: ast.parse(path.read_text()) for path in FOLDER.glob("*.py")}
ENTRY = ast.parse((REPOSITORY / "backend.py").read_text())


def listed_modules() -> list[str]:
    """The modules in the order of the list: what stands before a gap of two spaces."""
    lines = (gallery.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0].splitlines()
    named = [re.split(r" {2,}", line.strip())[0] for line in lines]
    return [name for line in named for name in re.findall(r"\w+", line)]


def imported_modules(tree: ast.AST) -> set[str]:
    """Every module a file imports; of our own package also those imported as names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            module = node.module or ""
            parts = (
                [f"{module}.{alias.name}" for alias in node.names] if module == "gallery" else []
            )
            found |= set(parts) or {module}
    return found


def test_the_list_names_every_module_once() -> None:
    assert sorted(listed_modules()) == sorted(TREES.keys() - {"__init__"})


def test_each_module_uses_only_those_above_it() -> None:
    order = listed_modules()
    wrong = {
        f"{name} uses {used}"
        for position, name in enumerate(order)
        for used in order[position:]
        if f"gallery.{used}" in imported_modules(TREES[name])
    }
    assert wrong == set()


def test_only_the_standard_library_and_the_requirements_are_imported() -> None:
    requirements = (REPOSITORY / "requirements.txt").read_text().lower()
    named = re.findall(r"^([\w-]+)==", requirements, re.MULTILINE)
    allowed = {name.replace("-", "_") for name in named} | {"gallery", "jwt"}
    assert "pyjwt" in allowed
    roots = {
        module.partition(".")[0]
        for tree in (*TREES.values(), ENTRY)
        for module in imported_modules(tree)
    }
    assert roots - sys.stdlib_module_names <= allowed


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_functions_and_modules_stay_short(path: Path) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(TREES[path.stem])
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno + 1 > 45
    }
    assert long == set()
    assert path.read_text().count("\n") <= 400
    assert ast.get_docstring(TREES[path.stem])
