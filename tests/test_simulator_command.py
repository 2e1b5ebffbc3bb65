"""`python -m telegram_simulator` as somebody uses it: a process, its output and its exit code.

Goal: what it prints is enough to reach it, what is wrong is said in words, and it ends when asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from telegram_simulator.__main__ import (
    READY_LINE,
    arguments,
    byte_size,
    duration_s,
    looped,
    named_size,
    rate,
)

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Running:
    """A simulator that serves, and what it printed."""

    process: asyncio.subprocess.Process
    environment: dict[str, str]

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        assert self.process.stderr is not None
        said = (await self.process.stderr.read()).decode()
        return await self.process.wait(), said


async def launch(*options: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "telegram_simulator", *options]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)


@asynccontextmanager
async def simulator(*options: str) -> AsyncIterator[Running]:
    """Started, and ready as its last line says."""
    process = await launch(*options)
    assert process.stdout is not None
    environment = {}
    try:
        async with asyncio.timeout(30):
            while (line := (await process.stdout.readline()).decode().strip()) != READY_LINE:
                assert line, "it ended before it served"
                name, _equals, value = line.partition("=")
                (environment[name],) = shlex.split(value)
        yield Running(process, environment)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refused(*options: str) -> str:
    """What it says when it does not start."""
    process = await launch(*options)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert "Traceback" not in err.decode()
    return err.decode()


async def test_it_prints_all_that_a_worker_and_a_backend_need(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    written = tmp_path.with_name("environment")
    async with simulator("--media", str(tmp_path), "--env-file", str(written)) as running:
        environment = running.environment
        assert environment.keys() == {
            *("API_ID", "API_HASH", "BOT_TOKEN", "TELEGRAM_DC", "TELEGRAM_DC_KEY"),
            *("BOT_API_URL", "CHANNELS"),
        }
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
        in_file = dict(line.split("=", 1) for line in written.read_text().splitlines())
        assert in_file == environment
        key = Path(environment["TELEGRAM_DC_KEY"])
        assert "PUBLIC KEY" in key.read_text()
        async with aiohttp.ClientSession() as http:
            url = f"{environment['BOT_API_URL']}/bot{environment['BOT_TOKEN']}/getChat"
            async with http.post(url, json={"chat_id": environment["CHANNELS"]}) as answer:
                assert (await answer.json())["result"]["title"] == "Films"
        code, said = await running.stop()
        assert code == 0
        assert environment["BOT_TOKEN"].partition(":")[2] not in said
        assert not key.exists()


async def test_updates_tell_of_the_first_posts_too(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    async with simulator("--media", str(tmp_path), "--synthetic", "big.bin=2GB") as running:
        environment = running.environment
        url = f"{environment['BOT_API_URL']}/bot{environment['BOT_TOKEN']}/getUpdates"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            updates = (await answer.json())["result"]
    assert len(updates) == 2
    assert all("document" in update["channel_post"] for update in updates)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_it_ends_when_asked(number: int) -> None:
    async with simulator("--synthetic", "x.bin=1MB") as running:
        code, said = await running.stop(number)
    assert code == 0
    assert "Traceback" not in said


async def test_several_bots_are_a_pool() -> None:
    tokens = ["--bot-token", "1:a", "--bot-token", "2:b"]
    async with simulator("--synthetic", "x.bin=1MB", *tokens) as running:
        assert running.environment["BOT_TOKEN"] == "1:a,2:b"


async def test_counters_and_trouble_can_be_had_from_outside() -> None:
    options = ["--synthetic", "x.bin=2GB", "--rtt", "30ms", "--flood-wait", "upload.getFile=3"]
    async with simulator(*options) as running, aiohttp.ClientSession() as http:
        url = f"{running.environment['BOT_API_URL']}/simulator"
        async with http.get(f"{url}/posts") as answer:
            (channel,) = json.loads(await answer.text())
        assert [post["text"] for post in channel["posts"]] == ["", "x"]
        for action in ("expire-references", "drop-connections", "counters/reset"):
            async with http.post(f"{url}/{action}", json={}) as answer:
                assert answer.status == 200
        async with http.post(f"{url}/drop-connections", json={"dc_id": 9}) as answer:
            assert answer.status == 400
        async with http.get(f"{url}/counters") as answer:
            assert (await answer.json())["bytes_served"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to serve"),
        (["--media", "/no/such/folder"], "no such folder: /no/such/folder"),
        (["--synthetic", "x"], "write NAME=SIZE"),
        (["--synthetic", "x=1", "--home-dc", "3"], "--home-dc 3 is none of --dc"),
        (["--synthetic", "x=1", "--down", "3"], "--down 3 is none of --dc"),
        (["--synthetic", "x=1", "--bot-token", "secret"], "a bot token looks like"),
        (["--loop", "/no/film.mp4=3"], "--loop /no/film.mp4: "),
        (["--loop", f"{__file__}=3"], "not an MP4"),
        (["--synthetic", "x=1", "--rtt", "soon"], "no duration"),
        (["--synthetic", "x=1", "--rate", "0"], "0 bytes per second"),
        (["--synthetic", "x=1", "--port", "70000"], "no port"),
        (["--synthetic", "x=1", "--key", "/no/such/folder/key"], "No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_what_is_wrong_is_said(options: list[str], said: str) -> None:
    assert said in await refused(*options)


async def test_a_busy_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "in use" in await refused("--synthetic", "x=1", "--bot-api-port", port)
        assert "in use" in await refused("--synthetic", "x=1", "--port", port, "--dc", "2")


async def test_ctrl_c_works_while_it_still_reads_the_folder(tmp_path: Path) -> None:
    for number in range(200):
        os.symlink(__file__, tmp_path / f"{number}.mp4")
    process = await launch("--media", str(tmp_path))
    assert process.stderr is not None
    await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    assert "Traceback" not in err.decode()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123", 123),
        ("2GB", 2_000_000_000),
        ("2GiB", 2 << 30),
        ("1.5 MB", 1_500_000),
        ("5k", 5000),
        ("20Mbit", 2_500_000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert byte_size(text) == size


def test_other_units_are_read() -> None:
    assert [duration_s(text) for text in ("80ms", "1.5s", "2")] == [0.08, 1.5, 2.0]
    assert [rate(text) for text in ("5MB/s", "20Mbit/s")] == [5e6, 2.5e6]
    assert named_size("a=b.bin=1kB") == ("a=b.bin", 1000)
    loop = looped("films/a=b.mp4=300=Long film.mp4")
    assert (str(loop.path), loop.times, loop.name) == ("films/a=b.mp4", 300, "Long film.mp4")
    assert looped("a.mp4=3").name == "a x 3.mp4"


def test_help_is_readable() -> None:
    text = arguments().format_help()
    assert "--media DIR" in text
    assert "trouble:" in text
