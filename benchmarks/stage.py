"""A stage to measure on: a pocket Telegram and the worker, each as a process of its own.

    with open_stage(setup, film_sizes=[2_000_000_000]) as stage, stage.worker() as worker:
        stage.telegram.set_line(Line(round_trip_s=0.08))
        ... a viewer of worker and stage.telegram.films[0] ...

Where there are two cores the worker has one for itself; Telegram, viewers and browser share the
other, so that nothing but the worker is measured. All processes end with the block.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import psutil

from telegram_simulator.__main__ import READY_LINE

REPOSITORY = Path(__file__).parent.parent
BASELINE_SCRIPT = Path(__file__).parent / "sequential_worker.py"

BOT_TOKENS = tuple(f"{7_000_000_000 + number}:a-bot-of-the-benchmarks" for number in range(4))
JWT_SECRET = "a secret of the benchmarks, long enough"
START_TIMEOUT_S = 20.0
END_TIMEOUT_S = 3.0
RSS_LOOK_S = 0.02
WORD_BYTES = 8


class StageFailed(Exception):
    """A process did not start, or not as it should; the message has the end of its log."""


# -- what is measured, and where it runs ---------------------------------------------------------


@dataclass(frozen=True)
class Cores:
    """The core that the worker has for itself and the one that all others share; maybe none."""

    worker: frozenset[int] = frozenset()
    others: frozenset[int] = frozenset()

    @classmethod
    def divided(cls) -> Cores:
        """Two of the cores that we may use; empty where there are no two or no pinning."""
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(usable) < 2:
            return cls()
        return cls(worker=frozenset(usable[1:2]), others=frozenset(usable[:1]))


def pin(pid: int, cores: frozenset[int]) -> None:
    """Keep a process, 0 for this one, and all it starts from now on to these cores."""
    if cores:
        os.sched_setaffinity(pid, cores)


@dataclass(frozen=True)
class Setup:
    """Which worker is measured, run by which interpreter, on which cores, and how often."""

    worker_script: Path
    worker_python: Path
    repeat: int
    cores: Cores


@dataclass(frozen=True)
class Line:
    """The way to Telegram: its round trip, and the rate of one connection, None for no limit."""

    round_trip_s: float = 0.0
    bytes_per_second: float | None = None

    def __str__(self) -> str:
        rate = f", {self.bytes_per_second / 1e6:g} MB/s" if self.bytes_per_second else ""
        return f"{self.round_trip_s * 1000:g} ms{rate}"


@dataclass(frozen=True)
class Film:
    """A post of the channel; `size` and `seed` are known of synthetic files only."""

    chat_id: int
    message_id: int
    file_id: int
    title: str
    size: int = 0
    seed: int | None = None

    def excerpt(self, start: int, length: int) -> bytes:
        """The bytes of a synthetic file as they must be: each aligned word says where it stands."""
        assert self.seed is not None
        first = start - start % WORD_BYTES
        words = (self.seed << 48 | offset for offset in range(first, start + length, WORD_BYTES))
        body = b"".join(word.to_bytes(WORD_BYTES, "big") for word in words)
        return body[start - first : start - first + length]


# -- the stage -----------------------------------------------------------------------------------


@contextmanager
def open_stage(
    setup: Setup, film_sizes: Sequence[int] = (), media: Path | None = None
) -> Iterator[Stage]:
    """A Telegram with synthetic films of these sizes, then the files of a folder, in one channel.

    Its four bots are members of that channel and live in another data centre than the films do.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        environment_file, log = folder / "environment", folder / "telegram.log"
        command = [sys.executable, "-m", "telegram_simulator", "--log-level", "warning"]
        command += [f"--env-file={environment_file}"]
        command += [f"--bot-token={token}" for token in BOT_TOKENS]
        command += [f"--synthetic=film-{n}.mp4={size}" for n, size in enumerate(film_sizes)]
        command += [f"--media={media}"] if media is not None else []
        with _running(command, os.environ, setup.cores.others, log) as process:
            _wait(process, log, lambda: READY_LINE in log.read_text(errors="replace"))
            yield Stage(setup, Telegram(_read_environment(environment_file), film_sizes), folder)


class Telegram:
    """The pocket Telegram by its control door: its films, its line, what it has served."""

    def __init__(self, environment: dict[str, str], film_sizes: Sequence[int]) -> None:
        self.environment = environment
        self._door = environment["BOT_API_URL"].removeprefix("http://")
        self.films = self._posted(film_sizes)

    def set_line(self, line: Line) -> None:
        trouble = {
            "round_trip_s": line.round_trip_s,
            "bytes_per_second": line.bytes_per_second,
        }
        self.make_trouble(trouble)

    def make_trouble(self, trouble: Mapping[str, Any]) -> None:
        """What the control door knows as trouble: faults, floods, a silence."""
        self._ask("POST", "trouble", trouble)

    def expire_references(self) -> None:
        """From now on the files open with references read anew only."""
        self._ask("POST", "expire-references", {})

    def drop_connections(self) -> None:
        """Cut every connection of every client."""
        self._ask("POST", "drop-connections", {})

    def fetched_bytes(self, film: Film) -> int:
        """How many bytes of the film were served since the start or the last reset."""
        counts = self._ask("GET", "counters")["files"].get(str(film.file_id))
        return int(counts["bytes_served"]) if counts else 0

    def all_fetched_bytes(self) -> int:
        """The same of all films together."""
        return int(self._ask("GET", "counters")["bytes_served"])

    def reset_counters(self) -> None:
        self._ask("POST", "counters/reset")

    def _posted(self, sizes: Sequence[int]) -> list[Film]:
        (channel,) = self._ask("GET", "posts")
        posts = [post for post in channel["posts"] if post["file_id"] is not None]
        films = []
        for number, post in enumerate(posts):
            size, seed = (sizes[number], number) if number < len(sizes) else (0, None)
            ids = (channel["chat_id"], post["message_id"], post["file_id"])
            films.append(Film(*ids, post["text"], size, seed))
        return films

    def _ask(self, method: str, what: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self._door, timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"}
            connection.request(method, f"/simulator/{what}", text, headers)
            response = connection.getresponse()
            assert response.status == 200, f"{what}: {response.read().decode()}"
            return json.load(response)
        finally:
            connection.close()


class Stage:
    """A Telegram that serves, and the means to start workers on it."""

    def __init__(self, setup: Setup, telegram: Telegram, folder: Path) -> None:
        self.telegram = telegram
        self._setup = setup
        self._folder = folder
        self._started = 0

    @contextmanager
    def worker(self, bots: int = 1) -> Iterator[Worker]:
        """The worker that is measured, fresh, with this many bots."""
        with self._serving(self._setup.worker_script, bots) as worker:
            yield worker

    @contextmanager
    def baseline(self) -> Iterator[Worker]:
        """The sequential worker of the kind that everybody ships."""
        with self._serving(BASELINE_SCRIPT, bots=1) as worker:
            yield worker

    @contextmanager
    def _serving(self, script: Path, bots: int) -> Iterator[Worker]:
        self._started += 1
        log = self._folder / f"worker-{self._started}.log"
        port = _free_port()
        environment = {
            "PATH": os.environ["PATH"],
            **self.telegram.environment,
            "BOT_TOKEN": ",".join(BOT_TOKENS[:bots]),
            "JWT_SECRET": JWT_SECRET,
            "SESSION_FILE": "none",
            "HOST": "127.0.0.1",
            "PORT": str(port),
        }
        command = [str(self._setup.worker_python), str(script)]
        with _running(command, environment, self._setup.cores.worker, log) as process:
            _wait(process, log, lambda: _is_listening(port))
            yield Worker(psutil.Process(process.pid), ("127.0.0.1", port))


class Worker:
    """A worker as its viewers and its host see it: an address, and what it costs."""

    def __init__(self, process: psutil.Process, address: tuple[str, int]) -> None:
        self.address = address
        self._process = process

    def path(self, film: Film) -> str:
        """The signed path of a film."""
        now = int(time.time())
        subject = f"{film.chat_id}/{film.message_id}"
        claims = {"iss": "backend", "aud": "worker", "sub": subject, "iat": now, "exp": now + 3600}
        return f"/stream/{subject}?token={jwt.encode(claims, JWT_SECRET)}"

    def metrics(self) -> dict[str, float]:
        """All metrics without labels, by name, as /metrics tells them."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines if "{" not in name}

    def open_files(self) -> int:
        """Files and sockets that the process has open."""
        return int(self._process.num_fds())

    @property
    def base_url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    def cpu_s(self) -> float:
        """Seconds of CPU spent so far, in itself and in the kernel on its behalf."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return int(self._process.memory_info().rss)


class PeakRss:
    """`with PeakRss(worker) as peak: ...` and then `peak.bytes`: the most that it ever held."""

    def __init__(self, worker: Worker) -> None:
        self.bytes = 0
        self._worker = worker
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> PeakRss:
        self._looking.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self._over.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._over.wait(RSS_LOOK_S):
            self.bytes = max(self.bytes, self._worker.rss_bytes())


# -- processes -----------------------------------------------------------------------------------


@contextmanager
def _running(
    command: list[str], environment: Mapping[str, str], cores: frozenset[int], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is gone when the block is left, however that comes about."""
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us alone: we end our children, in order.
            start_new_session=True,
        )
    try:
        pin(process.pid, cores)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    """Until a child serves. Raises StageFailed when it ends instead, or takes too long."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > give_up_at:
            last_words = log.read_text(errors="replace").splitlines()[-12:]
            raise StageFailed("a process did not start to serve:\n" + "\n".join(last_words))
        time.sleep(0.02)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _read_environment(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text().splitlines())
    return {name: "".join(shlex.split(value)) for name, _equals, value in pairs}
