"""Programs that play and fetch over HTTP, driven as their users do: VLC, mpv, aria2, wget, curl.

async with open_vlc(url) as player:
    await player.seek(60)
    await player.has_come_to(61)
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

PATIENCE_S = 30.0
ANSWER_PATIENCE_S = 10.0
LOOK_EVERY_S = 0.05
NOBODY = 65534

PACKAGES: Mapping[str, str] = {
    "aria2c": "aria2",
    "cadaver": "cadaver",
    "curl": "curl",
    "cvlc": "vlc-bin vlc-plugin-base",
    "ffmpeg": "ffmpeg",
    "mpv": "mpv",
    "rclone": "rclone",
    "wget": "wget",
}
"""Debian's packages of the programs."""


class Stuck(AssertionError):
    """The player does not play on."""


class Player(Protocol):
    """A player with one film open."""

    async def position_s(self) -> float: ...

    async def seek(self, at: float) -> None: ...


OpenPlayer = Callable[[str], AbstractAsyncContextManager[Player]]


async def has_come_to(player: Player, at: float) -> None:
    """Wait until the film has come there; it must not take longer than anybody waits."""
    position_s = -1.0
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (position_s := await player.position_s()) < at:
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise Stuck(f"at {position_s:.1f} s on the way to {at:.1f} s") from None


def found(program: str) -> str:
    """The path of a program; whoever lacks it is told the package."""
    path = shutil.which(program)
    assert path, f"{program} is missing (Debian: apt install {PACKAGES[program]})"
    return path


async def run(program: str, *arguments: str) -> str:
    """What a program says; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *(program, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    assert process.returncode == 0, text.decode(errors="replace")
    return text.decode(errors="replace")


async def break_off(file: Path, at_bytes: int, program: str, *arguments: str) -> int:
    """Kill a program as soon as the file that it writes has so many bytes; how many there are."""
    process = await asyncio.create_subprocess_exec(
        *(program, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE_S):
        while stored_bytes(file) < at_bytes:
            assert process.returncode is None, f"{program} ended before it could be broken off"
            await asyncio.sleep(LOOK_EVERY_S)
    process.kill()
    await process.wait()
    return stored_bytes(file)


def stored_bytes(file: Path) -> int:
    """What of a file is on the disk: one that is filled from several ends is long at once."""
    return file.stat().st_blocks * 512 if file.exists() else 0


# -- VLC -----------------------------------------------------------------------------------------


class Vlc:
    """VLC without a window, by the remote control that it has for such (`oldrc`)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._has_begun = False

    async def position_s(self) -> float:
        """In whole seconds, as VLC tells it; 0 before a film has begun and after VLC gave it up."""
        await self._say("get_time")
        while True:
            line = await asyncio.wait_for(self._reader.readline(), ANSWER_PATIENCE_S)
            assert line, "VLC is gone"
            text = line.decode(errors="replace").strip("> \r\n")
            if text.isdigit():
                break
        if self._has_begun and not int(text):
            raise Stuck("VLC has given the film up")
        self._has_begun = int(text) > 0
        return float(text)

    async def seek(self, at: float) -> None:
        await self._say(f"seek {at:.0f}")

    async def _say(self, command: str) -> None:
        self._writer.write(f"{command}\n".encode())
        await self._writer.drain()


@asynccontextmanager
async def open_vlc(url: str) -> AsyncIterator[Vlc]:
    with tempfile.TemporaryDirectory() as home:
        remote = Path(home, "remote")
        user = None
        if os.geteuid() == 0:  # VLC refuses to be root
            user = NOBODY
            os.chown(home, user, user)
        process = await asyncio.create_subprocess_exec(
            *(found("cvlc"), "--intf", "oldrc", "--rc-fake-tty", "--rc-unix", str(remote)),
            *("--vout", "dummy", "--aout", "dummy", "--no-color", url),
            env={"PATH": os.environ["PATH"], "HOME": home, "XDG_RUNTIME_DIR": home},
            cwd=home,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with _ended(process):
            reader, writer = await _connect(remote)
            yield Vlc(reader, writer)
            writer.close()


# -- mpv -----------------------------------------------------------------------------------------


class Mpv:
    """mpv without a window, by its JSON IPC (https://mpv.io/manual/stable/#json-ipc)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = count(1)

    async def position_s(self) -> float:
        """-1 before there is a film."""
        answer = await self._ask("get_property", "time-pos")
        return float(answer["data"]) if answer["error"] == "success" else -1.0

    async def seek(self, at: float) -> None:
        answer = await self._ask("seek", at, "absolute")
        assert answer["error"] == "success", answer

    async def _ask(self, *command: object) -> dict[str, Any]:
        number = next(self._numbers)
        order = json.dumps({"command": command, "request_id": number})
        self._writer.write(order.encode() + b"\n")
        await self._writer.drain()
        while True:
            line = await asyncio.wait_for(self._reader.readline(), ANSWER_PATIENCE_S)
            assert line, "mpv is gone"
            answer: dict[str, Any] = json.loads(line)
            if answer.get("request_id") == number and "error" in answer:
                return answer


@asynccontextmanager
async def open_mpv(url: str) -> AsyncIterator[Mpv]:
    with tempfile.TemporaryDirectory() as home:
        remote = Path(home, "remote")
        process = await asyncio.create_subprocess_exec(
            *(found("mpv"), "--no-config", "--vo=null", "--ao=null", "--no-terminal"),
            *(f"--input-ipc-server={remote}", url),
        )
        async with _ended(process):
            reader, writer = await _connect(remote)
            yield Mpv(reader, writer)
            writer.close()


# -- both ----------------------------------------------------------------------------------------


async def _connect(remote: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return await asyncio.open_unix_connection(remote)
            await asyncio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """The process ends with the block, whatever becomes of it."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
