"""What is written is so: the settings, commands and files in the documents exist, all of them.

A setting cannot ship undocumented, and a documented one cannot be gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import worker
import yaml
from conftest import JWT_SECRET, REPOSITORY, WORKER_SCRIPT

from gallery.settings import Settings as BackendSettings

README = (REPOSITORY / "README.md").read_text()
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

WORKER_ENVIRONMENT = {
    "API_ID": "12345",
    "API_HASH": "0123456789abcdef0123456789abcdef",
    "BOT_TOKEN": "123456:letters",
    "JWT_SECRET": JWT_SECRET,
}
BACKEND_ENVIRONMENT = {
    "BOT_TOKEN": "123456:letters",
    "JWT_SECRET": JWT_SECRET,
    "WORKER_URL": "https://worker.example",
    "CHANNELS": "-1001234567890",
    "GALLERY_PASSWORD": "long enough",
}


class Spy(dict[str, str]):
    """An environment that remembers which variables were asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def table_under(heading: str) -> dict[str, str]:
    """The first column's names of the table under a heading, and its second column."""
    section = README.partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", section, re.MULTILINE)
    return {name: default for names, default in rows for name in re.findall(r"`([A-Z_]+)`", names)}


@pytest.mark.parametrize(
    ("heading", "from_env", "environment"),
    [
        ("Settings of the worker", worker.Settings.from_env, WORKER_ENVIRONMENT),
        ("Settings of the backend", BackendSettings.from_env, BACKEND_ENVIRONMENT),
    ],
    ids=["worker", "backend"],
)
def test_every_setting_is_in_the_readme_and_no_other(
    heading: str,
    from_env: Callable[[Mapping[str, str]], Any],
    environment: dict[str, str],
) -> None:
    spy = Spy(environment)
    from_env(spy)
    # Render's own variable is named as the default of PUBLIC_URL.
    assert set(table_under(heading)) == spy.asked - {"RENDER_EXTERNAL_URL"}


def test_the_help_lists_the_settings_of_the_readme_with_the_same_defaults() -> None:
    told = {name: default for name, default, _ in worker.SETTINGS_HELP}
    table = table_under("Settings of the worker")
    assert told.keys() == table.keys()
    for name, default in told.items():
        assert (default or "empty") in table[name]


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("HOST", f"`{worker.Settings.from_env(WORKER_ENVIRONMENT).host}`"),
        ("PORT", f"`{worker.Settings.from_env(WORKER_ENVIRONMENT).port}`"),
        ("MEMORY_BUDGET_MB", f"`{worker.Settings.from_env(WORKER_ENVIRONMENT).memory_budget_mb}`"),
    ],
)
def test_documented_defaults_are_the_real_ones(name: str, default: str) -> None:
    assert default in table_under("Settings of the worker")[name]


@pytest.mark.parametrize(
    ("service", "heading", "needed"),
    [
        ("rangegram-worker", "Settings of the worker", WORKER_ENVIRONMENT),
        ("rangegram", "Settings of the backend", BACKEND_ENVIRONMENT),
    ],
)
def test_the_blueprint_sets_what_is_needed_and_nothing_unknown(
    service: str, heading: str, needed: dict[str, str]
) -> None:
    blueprint = yaml.safe_load((REPOSITORY / "render.yaml").read_text())
    (found,) = [each for each in blueprint["services"] if each["name"] == service]
    names = {variable["key"] for variable in found["envVars"]}
    assert set(needed) <= names
    assert names - {"PYTHON_VERSION"} <= set(table_under(heading))
    assert (REPOSITORY / found["startCommand"].removeprefix("python ")).is_file()
    assert found["healthCheckPath"] == "/health"


def test_every_make_command_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:^|`)make ([a-z]+)", document.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Any) -> None:
    text = document.read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    paths = re.findall(r"`((?:tests|docs|deploy|static|templates|gallery)/[\w./*-]+)`", text)
    assert [path for path in paths if not list(REPOSITORY.glob(path))] == []


def test_every_error_code_that_is_explained_can_happen() -> None:
    section = README.partition("### When something is set up wrong\n")[2].partition("\n## ")[0]
    text = section + (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
    sources = [WORKER_SCRIPT, *(REPOSITORY / "gallery").glob("*.py")]
    known = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', "".join(map(Path.read_text, sources))))
    assert {"token_expired", "flood_wait", "clocks_differ"} <= named <= known


def test_the_picture_in_the_readme_is_the_one_in_the_worker() -> None:
    picture = re.search(r"```\n(HTTP request\n.*?)```", README, re.DOTALL)
    assert picture
    stripped = re.sub(r" +\([0-9]+\)$", "", worker.__doc__ or "", flags=re.MULTILINE)
    for line in picture[1].splitlines():
        assert line.strip() in stripped
