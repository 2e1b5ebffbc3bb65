"""A Telegram on this machine, from the command line.

    python -m telegram_simulator --media ~/Videos

posts the files of a folder in a channel, prints on standard output what a worker and a backend
need to know, one NAME=value a line and fit for a shell, and then the line
`# serving; Ctrl-C stops it`:

    API_ID=...  API_HASH=...  BOT_TOKEN=...  TELEGRAM_DC=2@127.0.0.1:40001
    TELEGRAM_DC_KEY=...  CHANNELS=-100...    BOT_API_URL=http://127.0.0.1:40004

Everything else goes to standard error. A file that appears in the folder meanwhile becomes a
post; one that changes, an edit; one that goes, a deletion. Under BOT_API_URL/simulator/ is a door
for tests: counters and trouble while it runs (see control.py). Exit codes: 0 stopped as asked,
2 wrong arguments, a missing folder or a busy port.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from .bot_api import BotApiServer
from .cluster import TelegramSimulator
from .content import SyntheticContent
from .faults import Fault, Trouble
from .ffmpeg import find_ffmpeg
from .looped_film import LoopedFilm
from .media_folder import MediaFolder, describe, kind_of, mime_type
from .world import Bot, Channel, World

log = logging.getLogger("telegram_simulator")

READY_LINE = "# serving; Ctrl-C stops it"
"""Whoever started this as a child waits for it."""


class CannotServe(Exception):
    """Why there is nothing to serve, or no way to; told to the user, exit code 2."""


def main() -> int:
    options = arguments().parse_args()
    logging.basicConfig(
        level=options.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        asyncio.run(serve(options))
    except CannotServe as problem:
        print(f"telegram_simulator: {problem}", file=sys.stderr)
        return 2
    return 0


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM, which may also come while it is still starting."""
    serving = asyncio.current_task()
    assert serving is not None  # noqa: S101 - a coroutine always runs in a task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    async with AsyncExitStack() as stack:
        try:
            lines = await start(options, stack)
            sys.stdout.write("".join(f"{line}\n" for line in (*lines, READY_LINE)))
            sys.stdout.flush()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.info("stopping")


async def start(options: argparse.Namespace, stack: AsyncExitStack) -> list[str]:
    """Bring everything up, to be taken down by the stack; the environment, line by line."""
    check(options)
    world = World(options.dc)
    bots = [add_bot(world, token, options.home_dc) for token in options.bot_token or [None]]
    channel = world.add_channel(options.channel, *bots)
    ports = {dc: options.port + n for n, dc in enumerate(options.dc)} if options.port else None
    telegram = TelegramSimulator(options.dc, world, options.host, ports)
    plan_trouble(telegram.trouble, options)
    bot_api = BotApiServer(
        world,
        telegram.trouble,
        telegram.counters,
        host=options.host,
        port=options.bot_api_port,
        actions={"drop-connections": telegram.drop_connections},
    )
    # Before there are posts, so that its updates tell of all of them.
    await _open(stack, bot_api, "cannot listen")
    add_synthetic_files(options, world, channel)
    if options.media is not None:
        await _open(stack, MediaFolder(world, channel, options.media), "cannot read the folder")
    await add_looped_films(options, world, channel)
    log.info("%d posts in the channel", len(channel.posts) - 1)
    await _open(stack, telegram, "cannot listen")
    environment = telegram.environment(bots[0], write_key(options, telegram, stack))
    environment["BOT_TOKEN"] = ",".join(bot.token for bot in bots)
    environment["BOT_API_URL"] = bot_api.url
    lines = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    if options.env_file is not None:
        write_secretly(options.env_file, "".join(f"{line}\n" for line in lines))
    return lines


async def _open(
    stack: AsyncExitStack, part: MediaFolder | TelegramSimulator | BotApiServer, problem: str
) -> None:
    try:
        await stack.enter_async_context(part)
    except OSError as error:
        raise CannotServe(f"{problem}: {error.strerror or error}") from None


# -- what is served ------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> None:
    """What argparse cannot see: arguments that do not fit each other or the disk."""
    if options.media is None and not options.synthetic and not options.loop:
        raise CannotServe("nothing to serve: name a folder with --media, or see --help")
    if options.media is not None and not options.media.is_dir():
        raise CannotServe(f"no such folder: {options.media}")
    if options.home_dc not in options.dc:
        raise CannotServe(f"--home-dc {options.home_dc} is none of --dc")
    if unknown := set(options.down or ()) - set(options.dc):
        raise CannotServe(f"--down {min(unknown)} is none of --dc")


def add_bot(world: World, token: str | None, home_dc: int) -> Bot:
    try:
        return world.add_bot(token, home_dc=home_dc)
    except ValueError as error:
        raise CannotServe(f"--bot-token: {error}") from None


def add_synthetic_files(options: argparse.Namespace, world: World, channel: Channel) -> None:
    for number, (name, size) in enumerate(options.synthetic or ()):
        mime = mime_type(Path(name))
        document = world.new_document(SyntheticContent(size, seed=number), mime)
        document = replace(document, file_name=name, kind=kind_of(mime))
        world.post(channel, document, Path(name).stem)


async def add_looped_films(options: argparse.Namespace, world: World, channel: Channel) -> None:
    ffmpeg = find_ffmpeg()
    for loop in options.loop or ():
        try:
            film = await asyncio.to_thread(LoopedFilm, loop.path, loop.times)
        except (OSError, ValueError) as error:
            raise CannotServe(f"--loop {loop.path}: {error}") from None
        document = await describe(world, film, loop.path, ffmpeg=ffmpeg, name=loop.name)
        document = replace(document, duration_s=film.duration_s)
        world.post(channel, document, Path(loop.name).stem)


def plan_trouble(trouble: Trouble, options: argparse.Namespace) -> None:
    trouble.round_trip_s = options.rtt
    trouble.bytes_per_second = options.rate
    trouble.down.update(options.down or ())
    for method, seconds in options.flood_wait or ():
        trouble.flood_wait(seconds, method=method)
    for method, times in options.cut or ():
        trouble.plan(Fault("cut_during", times=times, method=method))


def write_key(
    options: argparse.Namespace, telegram: TelegramSimulator, stack: AsyncExitStack
) -> Path:
    """The public key that clients have to know, where --key says or in a folder that goes."""
    if options.key is None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="telegram-simulator-"))
        return telegram.write_key(Path(folder) / "server-key.pem")
    try:
        return telegram.write_key(options.key.absolute())
    except OSError as error:
        raise CannotServe(f"--key {options.key}: {error.strerror}") from None


def write_secretly(path: Path, text: str) -> None:
    """Write a file that only its owner can read: there are tokens in it."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise CannotServe(f"--env-file {path}: {error.strerror}") from None


# -- the command line ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loop:
    """A film to be played over and over, and the name of the result."""

    path: Path
    times: int
    name: str


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m telegram_simulator",
        description="A Telegram on this machine: data centres that speak MTProto, and the Bot API.",
        epilog="Prints the environment for a worker and a backend, then serves until Ctrl-C.",
    )
    add = parser.add_argument_group("what is in the channel").add_argument
    add("--media", type=folder, metavar="DIR", help="a folder whose files become posts")
    add(
        "--synthetic",
        type=named_size,
        action="append",
        metavar="NAME=SIZE",
        help="a file of any size, made from its own offsets: big.bin=2GB",
    )
    add(
        "--loop",
        type=looped,
        action="append",
        metavar="FILE=TIMES[=NAME]",
        help="an MP4 played over and over as one long film: short.mp4=300",
    )
    add("--channel", default="Films", metavar="TITLE", help="title of the channel")
    add = parser.add_argument_group("who serves it, and where").add_argument
    add("--dc", type=dc_list, default=(1, 2, 4), metavar="1,2,4", help="data centres")
    add("--home-dc", type=int, default=2, metavar="DC", help="where the bots are at home")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=port, default=0, help="of the first data centre; the others follow")
    add("--bot-api-port", type=port, default=0, metavar="PORT", help="of the Bot API")
    add("--bot-token", action="append", metavar="T", help="repeat it for several bots")
    add("--key", type=Path, metavar="FILE", help="where to write the server's public key")
    add("--env-file", type=Path, metavar="FILE", help="where to write the environment too")
    add = parser.add_argument_group("trouble").add_argument
    add("--rtt", type=duration_s, default=0.0, metavar="80ms", help="round-trip time")
    add("--rate", type=rate, metavar="5MB/s", help="bandwidth of one connection; 20Mbit/s too")
    add(
        "--flood-wait",
        type=method_number,
        action="append",
        metavar="METHOD=SECONDS",
        help="answer FLOOD_WAIT once: upload.getFile=3",
    )
    add(
        "--cut",
        type=method_times,
        action="append",
        metavar="METHOD[=TIMES]",
        help="cut the connection in the middle of an answer: upload.getFile=2",
    )
    add("--down", type=int, action="append", metavar="DC", help="a data centre that is down")
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", choices=levels, default="info")
    return parser


def folder(text: str) -> Path:
    # `make MEDIA=~/Videos` hands the tilde on as it is.
    return Path(text).expanduser()


def port(text: str) -> int:
    if text.isdecimal() and int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"no port: {text!r}")


def dc_list(text: str) -> tuple[int, ...]:
    numbers = tuple(dict.fromkeys(int(n) for n in text.split(",") if n.strip().isdecimal()))
    if not numbers or 0 in numbers:
        raise argparse.ArgumentTypeError("data centres are numbers with commas, such as 1,2,4")
    return numbers


def duration_s(text: str) -> float:
    """Seconds from `80ms`, `0.08s` or `0.08`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|)", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"no duration: {text!r}; write 80ms or 1.5s")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def byte_size(text: str) -> int:
    """Bytes from `2GB`, `700MiB`, `20Mbit` or a plain number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b|bit|)", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"no size: {text!r}; write 2GB, 700MiB or 123456")
    number, prefix, binary, unit = match.groups()
    step = (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
    return int(float(number) * step / (8 if unit == "bit" else 1))


def rate(text: str) -> float:
    bytes_per_second = byte_size(text.strip().removesuffix("/s"))
    if not bytes_per_second:
        raise argparse.ArgumentTypeError("nothing comes through a line of 0 bytes per second")
    return float(bytes_per_second)


def named_size(text: str) -> tuple[str, int]:
    """`NAME=SIZE`: a file of any size whose bytes come from their own offsets."""
    name, equals, size = text.rpartition("=")
    if not (equals and name) or not 0 < byte_size(size) < 1 << 48:
        raise argparse.ArgumentTypeError(f"write NAME=SIZE, such as big.bin=2GB, not {text!r}")
    return name, byte_size(size)


def looped(text: str) -> Loop:
    match = re.fullmatch(r"(.+)=([1-9]\d{0,5})(?:=([^=]+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"write FILE=TIMES, such as film.mp4=300, not {text!r}")
    path = folder(match[1])
    return Loop(path, int(match[2]), match[3] or f"{path.stem} x {match[2]}{path.suffix}")


def method_number(text: str) -> tuple[str, int]:
    method, _equals, number = text.partition("=")
    if not method or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"write it as upload.getFile=3, not {text!r}")
    return method, int(number)


def method_times(text: str) -> tuple[str, int]:
    return method_number(text if "=" in text else f"{text}=1")


if __name__ == "__main__":
    sys.exit(main())
