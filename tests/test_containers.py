"""The images of `deploy/Dockerfile` and what `deploy/compose.yaml` makes of them.

No Docker runs where the tests do. So the Dockerfile is linted, and carried out by hand: its COPY,
RUN, HEALTHCHECK and CMD lines, in a clean folder with an environment of its own, until a film comes
out of it. The compose file is held against the schema, the Dockerfile and the Caddyfile.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession
from conftest import REPOSITORY, Stage
from proxies import DEPLOY, command, free_port, tracked_files
from test_docs import BACKEND_ENVIRONMENT

from telegram_simulator.content import SyntheticContent

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
TARGETS = ("worker", "backend")
TOOLS = Path(sys.executable).parent


# -- the Dockerfile as values --------------------------------------------------------------------


@dataclass
class Image:
    """One target: what its stage and those below it say, in order."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.all("ENV") for pair in line.split())


def images() -> dict[str, Image]:
    """Every stage of the Dockerfile by its name."""
    found: dict[str, Image] = {}
    current = Image("")
    lines = re.sub(r"(?m)^#.*\n", "", DOCKERFILE).replace("\\\n", "")
    for line in filter(None, lines.splitlines()):
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            source, name = rest.split(" AS ")
            below = found.get(source)
            current = Image(below.base, [*below.steps]) if below else Image(source)
            found[name] = current
        else:
            current.steps.append((instruction, rest))
    return found


IMAGES = images()


def let_through(paths: Iterable[str]) -> set[str]:
    """Which of these files .dockerignore lets through to the builder."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    kept = set()
    for path in paths:
        around = [path, *map(str, Path(path).parents)]
        # The last rule that matches a path or a folder above it counts.
        matching = [
            rule
            for rule in rules
            if any(fnmatch.fnmatchcase(each, rule.removeprefix("!")) for each in around)
        ]
        if not matching or matching[-1].startswith("!"):
            kept.add(path)
    return kept


def context() -> set[str]:
    return let_through(tracked_files())


# -- the Dockerfile ------------------------------------------------------------------------------


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run(
        [TOOLS / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_would_have_something_to_say() -> None:
    """Or its silence means nothing."""
    done = subprocess.run(
        [TOOLS / "hadolint", "-"],
        input="FROM python\nRUN pip install aiohttp\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "DL3006" in done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_pinned_and_runs_as_nobody(target: str) -> None:
    image = IMAGES[target]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image.base)
    user, group = map(int, image.last("USER").split(":"))
    assert min(user, group) >= 1000
    assert image.steps.index(("USER", image.last("USER"))) > max(
        index for index, (name, _) in enumerate(image.steps) if name in ("RUN", "COPY")
    )
    # The exec form: without a shell in between SIGTERM reaches the service.
    (process,) = image.all("CMD")
    assert json.loads(process)[0] == "python"
    (installation,) = [line for line in image.all("RUN") if "install" in line and "pip" in line]
    assert {"--require-hashes", "--no-deps", "requirements.lock"} <= set(json.loads(installation))


def test_the_image_has_the_python_of_the_other_ways() -> None:
    """One that CI tests, and the same as Render's."""
    found = re.search(r"3\.\d+", IMAGES["base"].base)
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()
    assert found
    assert f'"{found[0]}"' in workflow
    assert f"value: {found[0]}." in (REPOSITORY / "render.yaml").read_text()


def test_the_builder_gets_what_is_copied_and_nothing_else() -> None:
    copied = {line.split()[0] for target in TARGETS for line in IMAGES[target].all("COPY")}
    sent = context()
    assert all((REPOSITORY / source).exists() for source in copied)
    assert {path.split("/")[0] for path in sent} == copied
    private = ("rangegram.env", "deploy/.env", ".git/config", "telegram.pem", "a.sqlite")
    useless = (".venv/bin/python", "gallery/__pycache__/api.cpython-313.pyc", "tests/conftest.py")
    assert let_through([*private, *useless]) == set()


# -- the Dockerfile carried out ------------------------------------------------------------------


@dataclass
class Container:
    """What the Dockerfile makes of a clean folder: everything at `/` is below `root`."""

    image: Image
    root: Path
    python: Path

    @property
    def folder(self) -> Path:
        return self.root / self.image.last("WORKDIR").lstrip("/")

    def build(self, sent: set[str]) -> None:
        self.folder.mkdir(parents=True)
        for name, rest in self.image.steps:
            if name == "COPY":
                source, target = rest.split()
                self._copy(source, target, sent)
            elif name == "RUN":
                subprocess.run(self._inside(json.loads(rest)), cwd=self.folder, check=True)

    def _copy(self, source: str, target: str, sent: set[str]) -> None:
        for path in sent:
            if path == source or path.startswith(source + "/"):
                inside = "" if target == "./" else target
                to = self.folder / inside / path.removeprefix(source).lstrip("/")
                to = to / path if to.is_dir() else to
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / path, to)

    def _inside(self, arguments: list[str]) -> list[str]:
        """The arguments with this folder in the place of /, and its Python in that of the image."""
        program, *others = (
            str(self.root / each.lstrip("/")) if each.startswith("/") else each
            for each in arguments
        )
        if program == "install" and os.geteuid():
            others = [
                each for each in others if each not in ("-o", "-g", *self._owner())
            ]  # only root gives things away
        beside = self.python.parent / program
        return [str(beside) if beside.exists() else program, *others]

    def _owner(self) -> list[str]:
        return self.image.last("USER").split(":")

    def environment(self, environ: dict[str, str]) -> dict[str, str]:
        own = {
            name: str(self.root / value.lstrip("/")) if value.startswith("/") else value
            for name, value in self.image.environment.items()
        }
        return {"PATH": f"{self.python.parent}:{os.environ['PATH']}", **own, **environ}

    @asynccontextmanager
    async def running(self, **environ: str) -> AsyncIterator[int]:
        """Its CMD at work until the block ends; the port. It must end well when asked to."""
        port = free_port()
        environment = self.environment({**environ, "PORT": str(port)})
        process = await asyncio.create_subprocess_exec(
            *self._inside(json.loads(self.image.last("CMD"))), cwd=self.folder, env=environment
        )
        try:
            while await self.health(environment):
                assert process.returncode is None
            yield port
        finally:
            if process.returncode is None:
                process.terminate()
        assert await process.wait() == 0
        assert await self.health(environment) != 0

    async def health(self, environment: dict[str, str]) -> int:
        """The exit status of its HEALTHCHECK."""
        check = json.loads(self.image.last("HEALTHCHECK").partition(" CMD ")[2])
        asked = await asyncio.create_subprocess_exec(
            *self._inside(check), env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        return await asked.wait()


@pytest.fixture(scope="session")
def fresh_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing installed but pip, for both images: the second installs nothing new."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


@pytest.mark.timeout(180)
async def test_the_workers_image_plays_a_film(
    stage: Stage, fresh_python: Path, tmp_path: Path
) -> None:
    container = Container(IMAGES["worker"], tmp_path / "root", fresh_python)
    await asyncio.to_thread(container.build, context())
    post = stage.post_synthetic(1_000_000)
    async with container.running(**stage.environment()) as port, ClientSession() as session:
        url = f"http://127.0.0.1:{port}{stage.path(post)}"
        async with session.get(url, headers={"Range": "bytes=5000-"}) as film:
            assert film.status == 206
            assert await film.read() == SyntheticContent(1_000_000, 7).read(5000, 995_000)


@pytest.mark.timeout(180)
async def test_the_backends_image_shows_its_pages_and_keeps_its_index(
    fresh_python: Path, tmp_path: Path
) -> None:
    container = Container(IMAGES["backend"], tmp_path / "root", fresh_python)
    await asyncio.to_thread(container.build, context())
    environ = {**BACKEND_ENVIRONMENT, "WORKER_URL": "http://127.0.0.1:9", "HOST": "127.0.0.1"}
    environ["BOT_API_URL"] = "http://127.0.0.1:9"
    async with container.running(**environ) as port, ClientSession() as session:
        for path in ("/sign-in", "/static/gallery.css", "/service-worker.js"):
            async with session.get(f"http://127.0.0.1:{port}{path}") as page:
                assert page.status == 200
                assert await page.read()
    (volume,) = IMAGES["backend"].all("VOLUME")
    kept = container.root / volume.lstrip("/")
    assert list(kept.glob("gallery.sqlite*"))
    assert kept.stat().st_mode & 0o777 == 0o700


# -- the compose file ----------------------------------------------------------------------------


def test_the_compose_file_keeps_to_the_schema() -> None:
    check: list[str | Path] = [
        TOOLS / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "-",
    ]
    for text, is_well in (
        (json.dumps(COMPOSE), True),
        ('{"services": {"a": {"prots": []}}}', False),
    ):
        done = subprocess.run(check, input=text, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is is_well, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_each_service_is_an_image_of_the_dockerfile_and_locked_in(target: str) -> None:
    service = COMPOSE["services"][target]
    assert service["build"]["target"] == target
    assert (DEPLOY / service["build"]["context"]).resolve() == REPOSITORY
    assert (REPOSITORY / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service  # only Caddy is reached from outside
    volumes = [each.split(":")[1] for each in service.get("volumes", [])]
    assert volumes == IMAGES[target].all("VOLUME")
    # Longer than the worker takes to end, twice its shutdown time.
    assert int(service["stop_grace_period"].removesuffix("s")) > 30


def test_caddy_is_told_where_the_services_are(tmp_path: Path) -> None:
    caddy = COMPOSE["services"]["caddy"]
    assert re.fullmatch(r"caddy:\d+\.\d+\.\d+-alpine", caddy["image"])
    asked = set(re.findall(r"\{\$(\w+):", (DEPLOY / "Caddyfile").read_text()))
    told = dict(caddy["environment"])
    assert set(told) == asked
    for target, name in (("worker", "WORKER_ADDRESSES"), ("backend", "GALLERY_ADDRESS")):
        assert told[name] == f"{target}:{IMAGES[target].last('EXPOSE')}"
        assert IMAGES[target].environment["PORT"] == IMAGES[target].last("EXPOSE")
    # Names are given as addresses, as the settings have them.
    wanted = {name: re.sub(r"\$\{(\w+):\?.*\}", r"\1", text) for name, text in told.items()}
    settings = (DEPLOY / "rangegram.env").read_text()
    urls = dict(re.findall(r"(?m)^(\w+)=(https://.*)$", settings))
    environ = {name: urls.get(value, value) for name, value in wanted.items()}
    adapted = subprocess.run(
        [command("caddy"), "adapt", "--config", DEPLOY / "Caddyfile"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"worker.example.org", "films.example.org"} == {
        host
        for route in json.loads(adapted.stdout)["apps"]["http"]["servers"]["srv0"]["routes"]
        for match in route["match"]
        for host in match["host"]
    }
    assert '"dial":"worker:10000"' in adapted.stdout
    assert '"dial":"backend:8080"' in adapted.stdout
    mounted = dict(each.split(":")[:2] for each in caddy["volumes"])
    assert mounted["./Caddyfile"] == "/etc/caddy/Caddyfile"
    assert {each.split(":")[0] for each in caddy["volumes"]} - {"./Caddyfile"} <= set(
        COMPOSE["volumes"]
    )
