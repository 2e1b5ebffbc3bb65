"""`demo.py` as a newcomer meets it: one command, one address, and nothing left behind.

Goal: the printed address shows films that come from the worker; a fault is said in one line; no
process outlives the demo, however it ends. Method: the real demo as a process, with short films.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 8
# The first run makes the sample films, which takes its time on a slow machine.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def work_dir(sample_films: list[Path], tmp_path: Path) -> Path:
    """A demo's folder in which the films have been made already."""
    (tmp_path / "films").symlink_to(sample_films[0].parent)
    return tmp_path


@dataclass
class Demo:
    """A demo that runs: its process, the processes that it started, what it printed."""

    process: psutil.Process
    family: list[psutil.Process]
    address: str
    worker: str
    printed: str

    def child(self, word: str) -> psutil.Process:
        (found,) = [one for one in self.family if word in " ".join(one.cmdline())]
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def demo(*options: str) -> Iterator[tuple[Demo, subprocess.Popen[str]]]:
    command = [sys.executable, "demo.py", "--port", str(free_port()), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            printed = ""
            for line in process.stdout:
                printed += line
                if "Ctrl-C" in line:
                    break
            address = re.search(r"http://localhost:\d+/", printed)
            worker = re.search(r"the worker on (http://127\.0\.0\.1:\d+)", printed)
            assert address, printed + (process.stderr.read() if process.stderr else "")
            assert worker
            running = psutil.Process(process.pid)
            family = running.children(recursive=True)
            yield Demo(running, family, address.group(), worker[1], printed), process
        finally:
            process.kill()


async def all_files(http: aiohttp.ClientSession, running: Demo) -> list[dict[str, Any]]:
    """What the gallery lists, once it has read the whole channel."""
    async with asyncio.timeout(20):
        while True:
            async with http.get(f"{running.address}api/files") as answer:
                listing = await answer.json()
            if listing["index"]["state"] == "ready":
                return list(listing["files"])
            await asyncio.sleep(0.1)


async def signed_url(
    http: aiohttp.ClientSession, running: Demo, file: dict[str, Any], query: str, via: str
) -> str:
    """The file's URL once the gallery has it come this way."""
    path = f"api/files/{file['chat_id']}/{file['message_id']}/url{query}"
    async with asyncio.timeout(20):
        while True:
            async with http.get(running.address + path) as answer:
                signed = await answer.json()
            if signed["via"] == via:
                return str(urljoin(running.address, signed["url"]))
            await asyncio.sleep(0.1)


def all_gone(family: list[psutil.Process]) -> bool:
    """Whether every process ends within a few seconds; zombies that init must reap are gone."""
    deadline = time.monotonic() + 10
    while any(one.is_running() and one.status() != "zombie" for one in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


async def test_the_address_shows_films_that_the_worker_serves(work_dir: Path) -> None:
    options = ("--work-dir", str(work_dir), "--seconds", str(SECONDS))
    with demo(*options) as (running, process):
        async with aiohttp.ClientSession() as http:
            async with http.get(running.address) as page:
                assert page.status == 200
                assert "<html" in await page.text()
            async with http.get(f"{running.worker}/health") as health:
                assert (await health.json())["status"] == "ok"
            files = {file["name"]: file for file in await all_files(http, running)}
            loops = [file for name, file in files.items() if name.startswith("Two hours")]
            assert [round(file["duration"]) for file in loops] == [7200]
            assert sum(name.endswith((".mp4", ".webm")) for name in files) == 5
            assert len(files["Tides (in three parts).mp4"]["parts"]) == 3
            (front,) = [
                file for name, file in files.items() if name.endswith("index in front).mp4")
            ]
            path = f"api/files/{front['chat_id']}/{front['message_id']}/subtitles"
            async with http.get(running.address + path) as tracks:
                assert [track["label"] for track in await tracks.json()] == ["English", "German"]
            on_disk = (work_dir / "films" / front["name"]).read_bytes()
            # Small ones come through the backend, and from the worker all the same.
            for query, via in (("", "bot_api"), ("?attempt=1", "worker")):
                url = await signed_url(http, running, front, query, via)
                async with http.get(url, headers={"Range": "bytes=1000-70000"}) as film:
                    assert film.status == 206
                    assert await film.read() == on_disk[1000:70001]
            url = await signed_url(http, running, loops[0], "", "worker")
            async with http.get(url, headers={"Range": "bytes=1000000000-1000000099"}) as film:
                assert film.status == 206
                assert len(await film.read()) == 100
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert all_gone(running.family)
        assert process.stdout is not None
        assert process.stdout.read().strip() == "Stopped."


async def test_the_printed_command_has_the_bot_answer_with_links_that_play(work_dir: Path) -> None:
    options = ("--work-dir", str(work_dir), "--seconds", str(SECONDS))
    with demo(*options) as (running, process):
        command = re.search(r"curl --json '(.*)' (\S+)", running.printed)
        assert command
        async with aiohttp.ClientSession() as http:
            async with http.post(command[2], json=json.loads(command[1])) as response:
                answer = await response.json()
            text = answer["said"][0]["text"]
            embed, direct = re.findall(r"http://localhost:\d+/(?:embed|v)/\S+", text)
            assert embed.startswith(running.address)
            async with http.get(embed) as page:
                assert page.status == 200
                assert text.split("\n")[0] in await page.text()
            async with http.get(direct, headers={"Range": "bytes=0-99"}) as film:
                assert film.status == 206
                assert len(await film.read()) == 100
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


async def test_ones_own_films_are_shown(sample_films: list[Path], tmp_path: Path) -> None:
    media = tmp_path / "my films"
    media.mkdir()
    (media / "holiday.mp4").symlink_to(sample_films[0])
    with demo("--media", str(media), "--work-dir", str(tmp_path / "work")) as (running, process):
        async with aiohttp.ClientSession() as http:
            files = await all_files(http, running)
        assert [file["name"] for file in files] == ["holiday.mp4"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert all_gone(running.family)


def _kill_the_demo(running: Demo) -> None:
    running.process.kill()


def _kill_the_worker(running: Demo) -> None:
    running.child("render-service-chunked.py").kill()


@pytest.mark.parametrize("end", [_kill_the_demo, _kill_the_worker])
def test_no_process_is_left_however_it_ends(work_dir: Path, end: Callable[[Demo], None]) -> None:
    options = ("--work-dir", str(work_dir), "--seconds", str(SECONDS))
    with demo(*options) as (running, process):
        end(running)
        process.wait(20)
        assert process.returncode != 0
        assert all_gone(running.family)
        assert process.stderr is not None
        if end is _kill_the_worker:
            assert "the worker ended by itself" in process.stderr.read()


def refused(*options: str) -> str:
    command = [sys.executable, "demo.py", *options]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_busy_port_is_said_and_another_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port))
    assert f"port {port} is busy" in said
    assert f"--port {port + 1}" in said


def test_a_missing_an_empty_and_a_wrong_folder_are_said(tmp_path: Path) -> None:
    port = ("--port", str(free_port()))
    assert "there is no folder /no/such" in refused("--media", "/no/such", *port)
    assert "is empty" in refused("--media", str(tmp_path), *port)
    assert "is a file" in refused("--media", __file__, *port)


def test_a_simulator_that_refuses_is_quoted(sample_films: list[Path], tmp_path: Path) -> None:
    said = refused(
        *("--media", str(sample_films[0].parent), "--rtt", "soon"),
        *("--work-dir", str(tmp_path), "--port", str(free_port())),
    )
    assert "the simulator ended by itself, exit code 2" in said
    assert "no duration: 'soon'" in said


@pytest.mark.parametrize("options", [["--port", "0"], ["--seconds", "7"], ["--what"]])
def test_wrong_arguments_are_said(options: list[str]) -> None:
    assert "usage:" in refused(*options)
