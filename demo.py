"""The whole house on this machine, no Telegram account needed: `make demo`.

    python demo.py                      # a channel of samples, with two files of 2 GB
    python demo.py --media ~/Videos     # one's own films
    python demo.py --rtt 80ms --rate 20Mbit/s

Starts, as processes of their own, the simulator (a Telegram that fits on this machine), the
worker (render-service-chunked.py) and the backend (backend.py), just as they would run against
Telegram, and prints the one address to open. The samples are made once and kept in `.demo/films`;
what the processes say is in `.demo/logs`. Ctrl-C, or the end of this process by whatever cause,
ends them all.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
try:
    from telegram_simulator.__main__ import READY_LINE
    from telegram_simulator.ffmpeg import FfmpegFailed
    from telegram_simulator.media_folder import scan
    from telegram_simulator.sample_channel import make_sample_channel
    from telegram_simulator.sample_films import DEFAULT_SECONDS
except ModuleNotFoundError as missing:
    sys.exit(f"demo: {missing.name} is not installed; `make demo` installs what is needed")

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
TWO_HOURS_S = 7200
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
OWNER_ID = 42
"""Somebody of the simulated Telegram, whom the bot answers."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOT_INHERITED = {
    *("SESSION_STRING", "GALLERY_PASSWORD", "PUBLIC_URL", "RENDER_EXTERNAL_URL"),
    *("SMALL_FILES", "ALLOWED_ORIGINS", "MEMORY_BUDGET_MB", "PORT", "HOST"),
    *("OWNER_IDS", "CHANNEL_LINKS"),
}
"""Settings of a real deployment, which somebody's shell may hold, are not the demo's."""


class DemoError(Exception):
    """Why the demo cannot run; told to the user without a traceback, exit code 1."""


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP: the user has seen enough."""


def main() -> int:
    options = read_arguments()
    for number in STOP_SIGNALS:
        signal.signal(number, stop_signals.arrived)
    try:
        run(options)
    except DemoError as problem:
        print(f"\ndemo: {problem}", file=sys.stderr)
        return 1
    except Stopped:
        print("\nStopped.", flush=True)
    return 0


class StopSignals:
    """Turns a signal into `Stopped`, at once or, while it is held, as soon as it is let go."""

    def __init__(self) -> None:
        self._held = False
        self._waiting = False

    def arrived(self, _number: int, _frame: FrameType | None) -> None:
        self._waiting = True
        if not self._held:
            raise Stopped

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the moment between starting a process and noting it down, or none would end it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._waiting:
            raise Stopped


stop_signals = StopSignals()


def run(options: argparse.Namespace) -> None:
    """Everything from the first check to the last goodbye. Raises DemoError or Stopped."""
    if options.media is not None:
        check_media(options.media)
    check_port_is_free(options.port)
    served = serve_media(options) if options.media else serve_samples(options)
    logs = options.work_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with children() as start:
        print("Starting simulator, worker and backend ...", flush=True)
        environment = start_simulator(start, [*served, *trouble(options)], logs)
        environment["JWT_SECRET"] = secrets.token_urlsafe(48)
        worker_url = start_worker(start, environment, logs)
        database = fresh_database(options.work_dir)
        start_backend(start, environment, worker_url, database, options.port, logs)
        announce(options, worker_url, environment["BOT_API_URL"], logs)
        start.watch()


# -- arguments and their faults ------------------------------------------------------------------


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Films from a simulated Telegram, end to end.")
    parser.add_argument("--media", type=_folder, metavar="DIR", help="show these files instead")
    parser.add_argument("--port", type=int, default=None, help="of the gallery; default 8080")
    parser.add_argument("--rtt", metavar="80ms", help="round-trip time to the simulated Telegram")
    parser.add_argument("--rate", metavar="20Mbit/s", help="bandwidth of a connection to it")
    parser.add_argument(
        "--work-dir",
        type=_folder,
        default=HERE / ".demo",
        metavar="DIR",
        help="where sample films and logs are kept; default .demo",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        default=DEFAULT_SECONDS,
        help="length of the sample films, a multiple of 8",
    )
    options = parser.parse_args()
    if options.port is None:
        chosen = os.environ.get("PORT") or str(DEFAULT_PORT)
        if not chosen.isdecimal():
            parser.error(f"PORT is no number: {chosen!r}")
        options.port = int(chosen)
    if not 0 < options.port < 1 << 16:
        parser.error(f"no such port: {options.port}")
    if options.seconds < 8 or options.seconds % 8:
        parser.error("--seconds must be a multiple of 8")
    return options


def _folder(text: str) -> Path | None:
    # `make demo` hands on an empty MEDIA, and a tilde as it is.
    return Path(text).expanduser().resolve() if text else None


def check_media(folder: Path) -> None:
    if not folder.exists():
        raise DemoError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise DemoError(f"{folder} is a file; MEDIA names the folder that it lies in")
    try:
        files = scan(folder)
    except OSError as error:
        raise DemoError(f"cannot read {folder}: {error.strerror}") from None
    if not files:
        raise DemoError(f"the folder {folder} is empty; put a film into it")


def check_port_is_free(port: int) -> None:
    with socket.socket() as probe:
        # As servers do: a port that was in use a moment ago is not busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = "busy" if error.errno == errno.EADDRINUSE else f"no good ({error.strerror})"
            other = port + 1 if port < 65535 else DEFAULT_PORT
            raise DemoError(
                f"port {port} is {reason}; choose another one, "
                f"such as `make demo PORT={other}` or `demo.py --port {other}`"
            ) from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


# -- what is shown -------------------------------------------------------------------------------


def serve_media(options: argparse.Namespace) -> list[str]:
    return ["--media", str(options.media), "--channel", options.media.name or "Films"]


def serve_samples(options: argparse.Namespace) -> list[str]:
    """Make the samples that are not there yet; the simulator's arguments that show them."""
    folder = options.work_dir / "films"
    bar = ProgressBar()
    try:
        films = make_sample_channel(folder, bar.show, seconds=options.seconds)
    except FfmpegFailed as error:
        raise DemoError(f"ffmpeg could not make the sample films: {error}") from None
    except OSError as error:
        raise DemoError(f"cannot write to {folder}: {error.strerror}") from None
    finally:
        bar.close()
    times = TWO_HOURS_S // options.seconds
    gigabytes = films[0].stat().st_size * times / 1e9
    return [
        *("--media", str(folder), "--channel", "Sample films"),
        *("--synthetic", "Numbers (2 GB, made from their own offsets).bin=2GB"),
        *("--loop", f"{films[0]}={times}=Two hours ({gigabytes:.1f} GB, costs no disk).mp4"),
    ]


class ProgressBar:
    """One line on a terminal that fills up; on anything else a line per film."""

    WIDTH = 28

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._started: set[str] = set()

    def show(self, name: str, share: float) -> None:
        if share >= 1.0 and name not in self._started:
            return  # made on an earlier day
        if not self._started:
            print("Making sample films, once; the next start finds them ready.", flush=True)
        if name not in self._started:
            self._started.add(name)
            if not self._live:
                print(f"  {name} ...", flush=True)
        if self._live:
            self._draw(name, share)

    def _draw(self, name: str, share: float) -> None:
        done = round(share * self.WIDTH)
        bar = "█" * done + "░" * (self.WIDTH - done)
        room = max(10, shutil.get_terminal_size().columns - self.WIDTH - 10)
        end = "\n" if share >= 1.0 else ""
        print(f"\r  {bar} {share:4.0%}  {name[:room]}", end=end, flush=True)

    def close(self) -> None:
        if self._live and self._started:
            print("\r\033[K", end="", flush=True)


# -- the three processes -------------------------------------------------------------------------


class Children:
    """The processes that were started, in order; each is the leader of its own group."""

    def __init__(self) -> None:
        self._running: list[tuple[str, subprocess.Popen[str], Path]] = []
        # Should this process be killed outright, its end of the pipe closes, and the keeper ends
        # what would otherwise be left behind.
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def __call__(
        self, name: str, command: list[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[str]:
        """Start a process; its standard error, and unless it is read its output, go to the log."""
        inherited = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
        with log.open("w") as log_file, stop_signals.held():
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=HERE,
                env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if name == "simulator" else log_file,
                stderr=log_file,
                text=True,
                # Ctrl-C reaches this process alone, which then ends the others in good order.
                start_new_session=True,
            )
            self._running.append((name, process, log))
            assert self._keeper.stdin is not None  # noqa: S101 - a pipe was asked for
            self._keeper.stdin.write(f"{process.pid}\n")
            self._keeper.stdin.flush()
        return process

    def check(self) -> None:
        """Raise DemoError, with its last words, when one of them is no more."""
        for name, process, log in self._running:
            if process.poll() is not None:
                raise DemoError(
                    f"the {name} ended by itself, exit code {process.returncode}. "
                    f"The end of {log}:\n{last_lines(log)}"
                )

    def watch(self) -> None:
        """Until one of them ends, or the user stops the demo."""
        while True:
            self.check()
            time.sleep(0.2)

    def stop(self) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for _name, process, _log in reversed(self._running):
            self._end(process)
        assert self._keeper.stdin is not None  # noqa: S101 - a pipe was asked for
        self._keeper.stdin.close()
        self._keeper.wait()

    def _end(self, process: subprocess.Popen[str]) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
            try:
                process.wait(STOP_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        if process.stdout is not None:
            process.stdout.close()


KEEPER = """
import os, signal, sys, time
groups = [int(line) for line in sys.stdin]
for number in (signal.SIGTERM, signal.SIGKILL):
    for _attempt in range(20):
        left = []
        for group in groups:
            try:
                os.killpg(group, number)
                left.append(group)
            except (ProcessLookupError, PermissionError):
                continue
        groups = left
        if not groups:
            sys.exit()
        time.sleep(0.25)
"""


@contextmanager
def children() -> Iterator[Children]:
    with stop_signals.held():
        started = Children()
    try:
        yield started
    finally:
        started.stop()


def start_simulator(start: Children, arguments: list[str], logs: Path) -> dict[str, str]:
    """Start it and wait until it serves; the environment that it prints."""
    command = ["-m", "telegram_simulator", *arguments]
    process = start("simulator", command, {}, logs / "simulator.log")
    environment: dict[str, str] = {}
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    for line in process.stdout:
        if line.strip() == READY_LINE:
            return environment
        name, _equals, value = line.strip().partition("=")
        environment[name] = "".join(shlex.split(value))
    process.wait()
    start.check()
    raise DemoError("the simulator closed its output")


def trouble(options: argparse.Namespace) -> list[str]:
    rtt = ["--rtt", options.rtt] if options.rtt else []
    return rtt + (["--rate", options.rate] if options.rate else [])


def start_worker(start: Children, environment: Mapping[str, str], logs: Path) -> str:
    """Start it and wait until it serves; its address."""
    port = free_port()
    settings = {**environment, "SESSION_FILE": "none", "HOST": HOST, "PORT": str(port)}
    start("worker", ["render-service-chunked.py"], settings, logs / "worker.log")
    wait_until_it_answers("worker", port, start.check)
    return f"http://{HOST}:{port}"


def start_backend(
    start: Children,
    environment: Mapping[str, str],
    worker_url: str,
    database: Path,
    port: int,
    logs: Path,
) -> None:
    settings = {
        **environment,
        "WORKER_URL": worker_url,
        "DATABASE": str(database),
        "OWNER_IDS": str(OWNER_ID),
        "HOST": HOST,
        "PORT": str(port),
    }
    start("backend", ["backend.py"], settings, logs / "backend.log")
    wait_until_it_answers("backend", port, start.check)


def fresh_database(folder: Path) -> Path:
    """Where the backend may keep its index; ids of an earlier run's channel mean nothing now."""
    for old in folder.glob("backend.sqlite*"):
        old.unlink()
    return folder / "backend.sqlite"


def wait_until_it_answers(name: str, port: int, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_healthy(port):
        check()
        if time.monotonic() > deadline:
            raise DemoError(f"the {name} did not answer within {START_TIMEOUT_S:.0f} s")
        time.sleep(0.05)


def is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False  # not listening yet
    finally:
        connection.close()


def last_lines(log: Path, count: int = 12) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-count:]) or "  (it said nothing)"


def announce(options: argparse.Namespace, worker_url: str, bot_api_url: str, logs: Path) -> None:
    address = f"http://localhost:{options.port}/"
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    shown = f"your files from {options.media}" if options.media else "sample films"
    print(
        f"\n    {bold}{address}{plain}    <- open this: {shown}\n"
        f"\n    forward a film to the bot:\n      {ask_the_bot(bot_api_url)}\n"
        f"\n    behind it: the worker on {worker_url}; logs in {logs}"
        f"\n    Ctrl-C stops everything.\n",
        flush=True,
    )


def ask_the_bot(bot_api_url: str) -> str:
    """A command that forwards the newest post to the bot, as its owner, and shows the answer."""
    connection = http.client.HTTPConnection(urlsplit(bot_api_url).netloc, timeout=10)
    try:
        connection.request("GET", "/simulator/posts")
        (channel,) = json.load(connection.getresponse())
    finally:
        connection.close()
    post = {"chat_id": channel["chat_id"], "message_id": channel["posts"][-1]["message_id"]}
    body = json.dumps({"user_id": OWNER_ID, "forward": post, "timeout_s": 5})
    return f"curl --json '{body}' {bot_api_url}/simulator/write"


if __name__ == "__main__":
    sys.exit(main())
