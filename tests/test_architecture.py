"""The rules at the top of the worker, kept by looking at its source.

Method: the numbered banners split the file into sections, and the syntax tree says which section
uses a name of which.
"""

from __future__ import annotations

import ast
import re
import sys
from itertools import pairwise

import pytest
from conftest import REPOSITORY, WORKER_SCRIPT

SOURCE = WORKER_SCRIPT.read_text()
TREE = ast.parse(SOURCE)
PURE, PATH = range(1, 7), range(7, 12)
BANNERS = [
    (int(found[1]), SOURCE.count("\n", 0, found.start()) + 1)
    for found in re.finditer(r"^# ([0-9]+)\. [A-Z]\w+: ", SOURCE, re.MULTILINE)
]


def section_of(node: ast.AST) -> int:
    line = getattr(node, "lineno", 0)
    return max((number for number, start in BANNERS if start <= line), default=0)


def defined_names() -> dict[str, int]:
    """Every class, function and constant of the module, and its section."""
    names: dict[str, int] = {}
    for node in TREE.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names[node.name] = section_of(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    names[target.id] = section_of(node)
    return names


def test_the_worker_that_is_tested_is_the_one_that_is_deployed() -> None:
    """Tools that edit in place put a copy where the link was."""
    assert (REPOSITORY / "tests" / "worker.py").resolve() == WORKER_SCRIPT


def test_the_file_has_its_twelve_sections_in_order() -> None:
    assert [number for number, _ in BANNERS] == list(range(1, 13))


def test_calls_go_down_the_page() -> None:
    names = defined_names()
    upward = {
        f"line {node.lineno}: section {section_of(node)} uses {node.id} of section {names[node.id]}"
        for node in ast.walk(TREE)
        if isinstance(node, ast.Name)
        and node.id in names
        and section_of(node) in PATH
        and names[node.id] in PATH
        and names[node.id] < section_of(node)
    }
    assert upward == set()


def test_pure_sections_stay_pure() -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [node.lineno for node in ast.walk(TREE) if isinstance(node, waiting)
             and section_of(node) in PURE]  # fmt: skip
    assert found == []


def test_pure_sections_use_nothing_of_the_path() -> None:
    names = defined_names()
    found = {
        node.id
        for node in ast.walk(TREE)
        if isinstance(node, ast.Name) and section_of(node) in PURE and names.get(node.id, 0) > 6
    }
    assert found == set()


TELETHON_NAMES = {
    alias.asname or alias.name
    for node in TREE.body
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("telethon")
    for alias in node.names
}


def test_only_the_gateway_touches_telethon() -> None:
    """Two settings are checked with Telethon's own readers; nothing else stands outside."""
    allowed_in_settings = {"StringSession", "telethon_rsa"}
    outside = {
        (section_of(node), node.id)
        for node in ast.walk(TREE)
        if isinstance(node, ast.Name) and node.id in TELETHON_NAMES and section_of(node) != 11
    }
    assert outside == {(1, name) for name in allowed_in_settings}


def worker_requirements() -> list[str]:
    """The lines of requirements.txt but those that are of the backend alone."""
    text = (REPOSITORY / "requirements.txt").read_text()
    shared, comment, rest = text.partition("# Of the backend alone")
    assert comment
    assert rest.count("==") == 2
    return [line for line in shared.splitlines() if line and not line.startswith("#")]


def test_the_worker_imports_only_the_standard_library_and_its_requirements() -> None:
    requirements = "\n".join(worker_requirements())
    allowed = {name.lower() for name in re.findall(r"^([\w-]+)==", requirements, re.MULTILINE)}
    allowed = {"jwt" if name == "pyjwt" else name for name in allowed}
    imported = set()
    for node in ast.walk(TREE):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names <= allowed


def test_inline_metadata_equals_requirements() -> None:
    """`uv run render-service-chunked.py` installs what requirements.txt pins (PEP 723)."""
    block = re.search(r"^# /// script\n(.*?)^# ///$", SOURCE, re.MULTILINE | re.DOTALL)
    assert block
    inline = {
        line.replace("'", '"') for line in re.findall(r'^#   "(.*)",$', block[1], re.MULTILINE)
    }
    assert inline == set(worker_requirements())


@pytest.mark.parametrize("limit", [45])
def test_functions_stay_short(limit: int) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(TREE)
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno + 1 > limit
    }
    assert long == set()


def test_the_banners_leave_no_section_empty() -> None:
    assert all(later - earlier > 10 for (_, earlier), (_, later) in pairwise(BANNERS))
