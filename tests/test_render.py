"""Render, without Render: the Blueprint by its rules, and both services started as it says.

Goal: whoever presses the button gets a gallery with playing films, and nothing asked of them but
what only they know. Method: the Blueprint against a schema written from Render's; then its build
command in a clean folder with an environment of its own, its start commands with exactly the
variables that it and Render give, on the pocket Telegram.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import yaml
from conftest import REPOSITORY, Stage
from proxies import free_port, tracked_files

from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import SyntheticContent

BLUEPRINT: dict[str, Any] = yaml.safe_load((REPOSITORY / "render.yaml").read_text())
SCHEMA = json.loads((REPOSITORY / "tests" / "render-blueprint.schema.json").read_text())
SERVICES: dict[str, Any] = {service["name"]: service for service in BLUEPRINT["services"]}
SIZE = 21_000_000  # more than the Bot API gives: it comes from the worker
README = (REPOSITORY / "README.md").read_text()


# -- the Blueprint by its rules --------------------------------------------------------------------


def test_the_blueprint_keeps_renders_rules() -> None:
    jsonschema.validate(BLUEPRINT, SCHEMA)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda service: service.update(env="python"),
        lambda service: service.update(autoDeploy=True),
        lambda service: service.update(plan="hobby"),
        lambda service: service.update(maxShutdownDelaySeconds=60),
        lambda service: service.pop("startCommand"),
        lambda service: service["envVars"].append({"key": "A"}),
        lambda service: service["envVars"].append({"key": "A", "sync": True}),
        lambda service: service["envVars"].append({"key": "A", "value": "b", "sync": False}),
        lambda service: service["envVars"].append({"key": "A", "fromService": {"name": "x"}}),
    ],
)
def test_the_rules_find_what_render_would_refuse(spoil: Callable[[Any], object]) -> None:
    blueprint = copy.deepcopy(BLUEPRINT)
    spoil(blueprint["services"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(blueprint, SCHEMA)


def test_what_is_taken_from_another_service_is_there() -> None:
    for service in SERVICES.values():
        for variable in service["envVars"]:
            if (source := variable.get("fromService")) is not None:
                keys = {each["key"] for each in SERVICES[source["name"]]["envVars"]}
                assert source["envVarKey"] in keys | {"RENDER_EXTERNAL_URL"}
                # Free services have no private network: browsers and the gallery come from outside.
                assert "property" not in source


def test_python_is_pinned_to_a_version_that_every_wheel_is_made_for() -> None:
    versions = {
        variable["value"]
        for service in SERVICES.values()
        for variable in service["envVars"]
        if variable["key"] == "PYTHON_VERSION"
    }
    assert len(versions) == 1
    assert re.fullmatch(r"3\.1[1-4]\.\d+", versions.pop())


def test_the_button_leads_to_render() -> None:
    (url,) = re.findall(r"\]\((https://render\.com/deploy\?repo=[^)]+)\)", README)
    assert url.startswith("https://render.com/deploy?repo=https://")


# -- both services as the Blueprint starts them ----------------------------------------------------


class Render:
    """A host that knows this Blueprint: builds, hands out variables, starts."""

    def __init__(self, folder: Path, asked: dict[str, str]) -> None:
        self.folder = folder
        self.asked = asked  # of the person, for `sync: false`
        self.ports = {name: free_port() for name in SERVICES}
        self.made: dict[tuple[str, str], str] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        for path in tracked_files():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / path, target, follow_symlinks=False)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def variable(self, name: str, variable: dict[str, Any]) -> str:
        key = variable["key"]
        if "value" in variable:
            return str(variable["value"])
        if "fromService" in variable:
            source = variable["fromService"]
            if source["envVarKey"] == "RENDER_EXTERNAL_URL":
                return self.url(source["name"])
            variables = {each["key"]: each for each in SERVICES[source["name"]]["envVars"]}
            return self.variable(source["name"], variables[source["envVarKey"]])
        if "generateValue" in variable:
            random = base64.b64encode(secrets.token_bytes(32)).decode()
            return self.made.setdefault((name, key), random)
        return self.asked[key]

    def environ(self, name: str, more: dict[str, str]) -> dict[str, str]:
        variables = {
            variable["key"]: self.variable(name, variable) for variable in SERVICES[name]["envVars"]
        }
        return {
            "PATH": f"{self.folder / '.venv' / 'bin'}:{os.environ['PATH']}",
            "RENDER": "true",
            "RENDER_EXTERNAL_URL": self.url(name),
            "PORT": str(self.ports[name]),
            **variables,
            **more,
        }

    def build(self, name: str) -> None:
        """The build command, in a virtual environment such as Render activates."""
        subprocess.run([sys.executable, "-m", "venv", str(self.folder / ".venv")], check=True)
        command = SERVICES[name]["buildCommand"]
        environ = self.environ(name, {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        for variable in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "HOME"):
            if variable in os.environ:  # where packages come from is the machine's business
                environ[variable] = os.environ[variable]
        subprocess.run(shlex.split(command), check=True, cwd=self.folder, env=environ)

    def start(self, name: str, more: dict[str, str]) -> None:
        command = shlex.split(SERVICES[name]["startCommand"])
        environ = self.environ(name, more)
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(command, cwd=self.folder, env=environ, stderr=log, stdout=log)
            )

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(40)


async def until_healthy(session: aiohttp.ClientSession, url: str, path: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                async with session.get(url + path) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
async def test_started_as_the_blueprint_says_a_film_plays(
    stage: Stage, bot_api: BotApiServer, tmp_path: Path
) -> None:
    post = stage.post_synthetic(SIZE)
    environment = stage.environment()
    asked = {name: environment[name] for name in ("API_ID", "API_HASH", "BOT_TOKEN", "CHANNELS")}
    render = await asyncio.to_thread(Render, tmp_path, asked)
    telegram = {name: environment[name] for name in ("TELEGRAM_DC", "TELEGRAM_DC_KEY")}
    worker, gallery = SERVICES
    await asyncio.to_thread(render.build, worker)
    assert SERVICES[worker]["buildCommand"] == SERVICES[gallery]["buildCommand"]
    try:
        await asyncio.to_thread(render.start, worker, telegram)
        await asyncio.to_thread(render.start, gallery, {"BOT_API_URL": bot_api.url})
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            for name in SERVICES:
                await until_healthy(session, render.url(name), SERVICES[name]["healthCheckPath"])
            url = render.url(gallery)
            password = render.made[gallery, "GALLERY_PASSWORD"]
            async with session.post(f"{url}/sign-in", data={"password": password}) as response:
                assert response.status == 200
            signed = f"{url}/api/files/{stage.channel.chat_id}/{post.id}/url"
            async with session.get(signed) as response:
                film_url = (await response.json())["url"]
            assert film_url.startswith(render.url(worker))
            async with session.get(film_url, headers={"Range": "bytes=20000000-"}) as response:
                assert response.status == 206
                expected = SyntheticContent(SIZE, 7).read(20_000_000, SIZE)
                assert await response.read() == expected
    finally:
        await asyncio.to_thread(render.stop)
    assert [process.returncode for process in render.processes] == [0, 0]
