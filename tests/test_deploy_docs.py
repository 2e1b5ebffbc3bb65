"""docs/deploy.md, followed to the letter: at the end of every way a film plays.

Goal: no line of the document is wrong, and none is missing. Method: a shell runs its commands in
order and as they stand; only the two names and the repository's address are filled in, and ports
that may be taken here are moved. What would change this machine is done by a stand-in: `sudo` works
below a folder that plays the root of the file system, `git clone` copies these files, `nano` fills
in the settings as a person does. Managers of packages and services are only asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import worker
import yaml
from aiohttp import ClientError, ClientSession, TCPConnector
from conftest import REPOSITORY, Stage, make_token
from proxies import (
    Sites,
    caddy_command,
    free_port,
    running,
    tracked_files,
    write_certificate,
)
from systemd_units import Unit

from gallery.settings import Settings as BackendSettings
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import SyntheticContent
from telegram_simulator.world import Post

DOCUMENT = (REPOSITORY / "docs" / "deploy.md").read_text()
PASSWORD = "correct $horse, battery"
TOOLS = Path(sys.executable).parent
SIZE = 21_000_000  # more than the Bot API gives: it comes from the worker
pytestmark = pytest.mark.timeout(240)


def blocks(part: str) -> list[str]:
    """The commands of a part of the document, block by block."""
    (section,) = re.findall(rf"(?ms)^## {re.escape(part)}\b.*?(?=^## |\Z)", DOCUMENT)
    found: list[str] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found
    return found


# -- the stand-ins -------------------------------------------------------------------------------

STAND_IN = """#!{python}
import json, os, pathlib, shutil, subprocess, sys

name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
root, home = pathlib.Path({root!r}), pathlib.Path({home!r})


def below(text):
    return str(root) + text if text.startswith(("/etc/", "/opt/", "/var/")) else text


with open({journal!r}, "a") as journal:
    journal.write(json.dumps([name, *arguments]) + "\\n")
if name == "sudo":
    arguments = [below(each) for each in arguments]
    os.execvp(arguments[0], arguments)
elif name == "git":
    (order, address, folder) = arguments
    assert (order, address) == ("clone", {address!r})
    for path in {files!r}:
        target = pathlib.Path(folder, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pathlib.Path({repository!r}, path), target)
elif name == "nano":
    (path,) = arguments
    text = pathlib.Path(path).read_text()
    for key, value in {answers!r}.items():
        assert f"\\n{{key}}=\\n" in text, key
        text = text.replace(f"\\n{{key}}=\\n", f"\\n{{key}}={{value}}\\n")
    pathlib.Path(path).write_text(text + {more!r})
elif name == "pipx":
    assert arguments == ["install", "uv"]
    (home / ".local/bin").mkdir(parents=True)
    (home / ".local/bin/uv").symlink_to({uv!r})
elif name == "systemctl":
    order, *names = [each for each in arguments if not each.startswith("-")]
    for each in names if order == "enable" else ():
        assert (root / f"etc/systemd/system/{{each}}.service").is_file(), each
"""
STANDING_IN = (
    *("sudo", "apt-get", "git", "nano", "pipx", "systemctl", "certbot", "nginx", "docker", "curl"),
)


@dataclass
class Machine:
    """A folder that plays a fresh server, and the shell that is typed into."""

    folder: Path
    stage: Stage
    bot_api_url: str
    https_port: int = field(default_factory=free_port)
    worker_port: int = field(default_factory=free_port)
    backend_port: int = field(default_factory=free_port)
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def checkout(self) -> Path:
        return self.home / "rangegram"

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.out")))

    @property
    def names(self) -> dict[str, str]:
        return {
            "FILMS": f"films.localhost:{self.https_port}",
            "WORKER": f"localhost:{self.https_port}",
            "REPOSITORY": "https://git.example.org/somebody/rangegram.git",
        }

    @property
    def settings(self) -> dict[str, str]:
        """What the person ended up with in the settings file."""
        text = (self.checkout / "rangegram.env").read_text()
        return {key: value.strip("'") for key, value in re.findall(r"(?m)^(\w+)=(.*)$", text)}

    def asked(self, name: str) -> list[list[str]]:
        lines = map(json.loads, (self.folder / "journal").read_text().splitlines())
        return [arguments for called, *arguments in lines if called == name]

    def set_up(self) -> None:
        """Lay out what a fresh Debian has, and the stand-ins."""
        for path in ("etc/systemd/system", "etc/caddy", "etc/nginx/conf.d", "opt", "var/lib"):
            (self.root / path).mkdir(parents=True)
        self.home.mkdir()
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        environ = self.stage.environment()
        telegram = ("TELEGRAM_DC", "TELEGRAM_DC_KEY")
        more = [f"{name}={environ[name]}" for name in telegram]
        more += [f"BOT_API_URL={self.bot_api_url}", f"SSL_CERT_FILE={self.folder}/authority.pem"]
        script = STAND_IN.format(
            python=sys.executable,
            root=str(self.root),
            home=str(self.home),
            journal=str(self.folder / "journal"),
            address=self.names["REPOSITORY"],
            files=tracked_files(),
            repository=str(REPOSITORY),
            answers={
                **{name: environ[name] for name in ("API_ID", "API_HASH", "BOT_TOKEN")},
                "CHANNELS": str(self.stage.channel.chat_id),
                "GALLERY_PASSWORD": f"'{PASSWORD}'",
            },
            more="\n".join([*more, ""]),
            uv=str(TOOLS / "uv"),
        )
        for name in STANDING_IN:
            (bin_folder / name).write_text(script)
            (bin_folder / name).chmod(0o755)

    async def type(self, *commands: str) -> None:
        """Run the commands in one shell until its end; what it started goes on."""
        script = "\n".join(commands)
        for name, value in self.names.items():
            script = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", script)
        ports = [self.worker_port, self.backend_port]
        script = re.sub(
            "(?m)^HOST=127.0.0.1 ", lambda found: f"{found[0]}PORT={ports.pop(0)} ", script
        )
        (self.folder / "typed").write_text(script)
        settings = {
            *(name for name, _, _ in worker.SETTINGS_HELP),
            "CHANNELS",
            "WORKER_URL",
            "PUBLIC_URL",
            "DATABASE",
        }
        environ = {name: value for name, value in os.environ.items() if name not in settings}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environ |= {"HOME": str(self.home), "PATH": path, "PYTHONUNBUFFERED": "1"}
        # What was downloaded once need not be again.
        for name, folder in (("PIP_CACHE_DIR", "pip"), ("UV_CACHE_DIR", "uv")):
            environ.setdefault(name, str(Path.home() / ".cache" / folder))
        await self.start(
            ["bash", "-euo", "pipefail", str(self.folder / "typed")], environ, cwd=self.home
        )
        assert await self.processes[-1].wait() == 0, self.log

    async def start(self, arguments: list[str], environ: dict[str, str], cwd: Path) -> None:
        with (self.folder / f"{len(self.processes)}.out").open("wb") as output:
            self.processes.append(
                await asyncio.create_subprocess_exec(
                    *arguments,
                    env=environ,
                    cwd=cwd,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    @property
    def is_at_work(self) -> bool:
        """Whether anything that was started last is still there, its shell or what that began."""
        return self._signal(self.processes[-1], 0)

    async def stop(self) -> None:
        for process in self.processes:
            self._signal(process, signal.SIGTERM)
            while self._signal(process, 0):
                await asyncio.sleep(0.05)

    def _signal(self, process: asyncio.subprocess.Process, number: int) -> bool:
        """Send a signal to a process and all that it began; whether there was any."""
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return False
        return True

    # -- systemd's part ----------------------------------------------------------------------

    async def start_units(self) -> None:
        """What systemd does with the units that were enabled, but for locking them in."""
        for name, port in (("worker", self.worker_port), ("backend", self.backend_port)):
            path = self.root / f"etc/systemd/system/rangegram-{name}.service"
            unit = Unit.read(path)
            environ = {
                key: value.replace("%S", str(self.root / "var/lib"))
                for key, value in unit.environment.items()
            }
            settings = self.root / unit.one("EnvironmentFile").lstrip("/")
            assert settings.stat().st_mode & 0o777 == 0o600
            assert environ["PORT"] in {"10000", "8080"}
            environ |= {**self.settings, "PORT": str(port)}
            for folder in unit.values.get("StateDirectory", []):
                (self.root / "var/lib" / folder).mkdir()
            program = [f"{self.root}{each}" for each in unit.one("ExecStart").split()]
            assert all(os.stat(each).st_mode & 0o004 for each in program), "not its own user's"
            await self.start(program, environ, cwd=Path("/"))


@pytest.fixture
async def machine(stage: Stage, bot_api: BotApiServer, tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path / "machine", stage, bot_api.url)
    machine.set_up()
    yield machine
    await machine.stop()


@pytest.fixture
def film(stage: Stage) -> Post:
    return stage.post_synthetic(SIZE, kind="video", duration_s=60.0)


# -- what a person sees at the end ---------------------------------------------------------------


async def until_answered(session: ClientSession, url: str, machine: Machine) -> None:
    try:
        async with asyncio.timeout(90):
            while not await _is_healthy(session, url):
                assert machine.is_at_work, machine.log
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{url} does not answer:\n{machine.log}") from None


async def _is_healthy(session: ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except ClientError:
        return False


async def film_plays(session: ClientSession, url: str) -> None:
    async with session.get(url, headers={"Range": "bytes=20000000-20000999"}) as response:
        assert response.status == 206
        assert await response.read() == SyntheticContent(SIZE, 7).read(20_000_000, 1000)


async def signed_in(session: ClientSession, url: str, **options: Any) -> str:
    """The cookie of the gallery, for the password of the settings file."""
    async with session.post(
        f"{url}/sign-in", data={"password": PASSWORD}, allow_redirects=False, **options
    ) as response:
        assert response.status == 303
        return response.headers["Set-Cookie"].partition(";")[0]


@pytest.mark.parametrize("way", ["2a", "2b"])
async def test_by_hand_a_film_plays(way: str, machine: Machine, film: Post) -> None:
    await machine.type(*blocks("1"), *blocks(way))
    assert (machine.checkout / "rangegram.env").stat().st_mode & 0o777 == 0o600
    async with ClientSession() as session:
        for port in (machine.worker_port, machine.backend_port):
            await until_answered(session, f"http://127.0.0.1:{port}", machine)
        subject = f"{machine.stage.channel.chat_id}/{film.id}"
        token = make_token(subject, machine.settings["JWT_SECRET"])
        path = f"/stream/{subject}?token={token}"
        await film_plays(session, f"http://127.0.0.1:{machine.worker_port}{path}")
        assert await signed_in(session, f"http://127.0.0.1:{machine.backend_port}")
    if way == "2a":
        # The worker's own list of requirements, and the backend's lock, made the environments.
        assert "Installed" in machine.log


async def test_with_systemd_and_caddy_a_film_plays_from_the_gallery(
    machine: Machine, film: Post
) -> None:
    caddy, nginx, check = blocks("3")
    await machine.type(*blocks("1"), *blocks("2c"), caddy, nginx, check)
    assert machine.asked("systemctl") == [
        ["daemon-reload"],
        ["enable", "--now", "rangegram-worker", "rangegram-backend"],
        ["reload", "caddy"],
        ["reload", "nginx"],
    ]
    sites = Sites(
        (f"127.0.0.1:{machine.worker_port}",),
        f"127.0.0.1:{machine.backend_port}",
        free_port(),
        machine.https_port,
    )
    written = machine.root / "etc" / "caddy" / "Caddyfile"
    proxy_folder = machine.folder / "proxy"
    proxy_folder.mkdir()
    trust = write_certificate(proxy_folder, (sites.worker_name, sites.gallery_name))
    shutil.copy(proxy_folder / "authority.pem", machine.folder / "authority.pem")
    arguments = caddy_command(proxy_folder, sites, written)
    async with running(arguments, proxy_folder, sites):
        await machine.start_units()
        await _watch_from_the_gallery(machine, sites, trust)
    assert list((machine.root / "var/lib/rangegram").glob("gallery.sqlite*"))


async def _watch_from_the_gallery(machine: Machine, sites: Sites, trust: ssl.SSLContext) -> None:
    base = f"https://127.0.0.1:{sites.https_port}"
    there: dict[str, Any] = {
        "headers": {"Host": machine.names["FILMS"]},
        "server_hostname": sites.gallery_name,
    }
    async with ClientSession(connector=TCPConnector(ssl=trust)) as session:
        await until_answered(session, f"https://{machine.names['WORKER']}", machine)
        await until_answered(session, f"http://127.0.0.1:{machine.backend_port}", machine)
        there["headers"]["Cookie"] = await signed_in(session, base, **there)
        files: list[dict[str, Any]] = []
        while not files:
            async with session.get(f"{base}/api/files", **there) as listing:
                files = (await listing.json())["files"]
        (file,) = files
        path = f"/api/files/{file['chat_id']}/{file['message_id']}/url"
        async with session.get(base + path, **there) as signed:
            url = (await signed.json())["url"]
        assert url.startswith(f"https://{machine.names['WORKER']}/stream/")
        await film_plays(session, url)


async def test_nginx_gets_the_shipped_file_with_the_names_filled_in(machine: Machine) -> None:
    _, nginx, _ = blocks("3")
    await machine.type(*blocks("1"), nginx)
    written = (machine.root / "etc" / "nginx" / "conf.d" / "rangegram.conf").read_text()
    shipped = (REPOSITORY / "deploy" / "nginx.conf").read_text()
    films, worker_name = machine.names["FILMS"], machine.names["WORKER"]
    assert written == shipped.replace("films.example.org", films).replace(
        "worker.example.org", worker_name
    )
    (certificate,) = machine.asked("certbot")
    assert certificate[certificate.index("--cert-name") + 1] == "rangegram"
    assert "/etc/letsencrypt/live/rangegram/" in shipped
    answers = certificate[certificate.index("-w") + 1].removeprefix(str(machine.root))
    assert f"root {answers};" in shipped
    assert [each for each in certificate if each.endswith("localhost") or ":" in each] == [
        films,
        worker_name,
    ]
    assert machine.asked("nginx") == [["-t"]]


async def test_docker_compose_is_given_files_that_exist_and_every_setting(
    machine: Machine,
) -> None:
    await machine.type(*blocks("1"), *blocks("2d"))
    (order,) = machine.asked("docker")
    assert order[0] == "compose"
    given = machine.checkout / order[order.index("-f") + 1]
    assert (machine.checkout / order[order.index("--env-file") + 1]).is_file()
    compose = yaml.safe_load(given.read_text())
    settings = machine.settings
    for service in ("worker", "backend"):
        file = given.parent / compose["services"][service]["env_file"]
        assert file.resolve() == machine.checkout / "rangegram.env"
    for name in re.findall(r"\$\{(\w+):\?", given.read_text()):
        assert settings[name]
    # What the containers get is all that they need.
    BackendSettings.from_env(settings)
    await asyncio.to_thread(worker.Settings.from_env, settings)
