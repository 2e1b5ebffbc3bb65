"""A stage for every test: a pocket Telegram with a bot, a channel and films, and a worker on it.

Nothing of ours is mocked: the worker speaks MTProto to the simulator and HTTP to the test, both
through real sockets.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jwt
import psutil
import pytest
import worker
from aiohttp.test_utils import TestClient
from blockbuster import BlockBuster
from hypothesis import settings as hypothesis_settings

from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.cluster import TelegramSimulator
from telegram_simulator.content import Content, SyntheticContent
from telegram_simulator.faults import FileCount
from telegram_simulator.renditions import make_qualities
from telegram_simulator.sample_films import make_sample_films, make_sample_pictures
from telegram_simulator.world import Bot, Channel, Post

REPOSITORY = Path(__file__).parent.parent
WORKER_SCRIPT = REPOSITORY / "render-service-chunked.py"
LEAN = REPOSITORY / "tests" / "lean.py"
JWT_SECRET = "a secret of the test suite, long enough"

hypothesis_settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis_settings.register_profile("fuzz", deadline=None)  # of `make fuzz`, with other seeds
hypothesis_settings.load_profile("tests")

LONG_FILES = (
    *("test_trouble_table.py", "test_film_outlasts_token.py", "test_many_workers.py"),
    *("test_fuzz.py", "test_qualities_browser.py", "test_third_party_page.py", "test_process.py"),
    *("test_deploy_docs.py", "test_viewer_browser.py", "test_sleep_and_wake.py"),
)

StartClient = Callable[..., Awaitable[TestClient[Any, Any]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that others run beside them to the end."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A call that blocks the event loop of worker or backend fails the test that made it."""
    guard = BlockBuster(scanned_modules=["worker", "backend", "gallery"])
    guard.activate()
    yield
    guard.deactivate()


@contextmanager
def kept_folder(config: pytest.Config, name: str) -> Iterator[Path]:
    """A folder that is kept between runs; of the processes that test at once, one fills it."""
    assert config.cache is not None
    folder = config.cache.mkdir(name)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def sample_films(pytestconfig: pytest.Config) -> list[Path]:
    """Three films of 8 s: H.264 with the index in front, at the end, VP9."""
    with kept_folder(pytestconfig, "sample-films") as folder:
        return make_sample_films(folder, seconds=8)


@pytest.fixture(scope="session")
def sample_pictures(pytestconfig: pytest.Config) -> list[Path]:
    """Four pictures of 1920 by 1280."""
    with kept_folder(pytestconfig, "sample-pictures") as folder:
        return make_sample_pictures(folder)


@pytest.fixture(scope="session")
def film_qualities(pytestconfig: pytest.Config, sample_films: list[Path]) -> Path:
    """What Telegram would make of the second sample film: the folder beside it."""
    with kept_folder(pytestconfig, "sample-films"):
        return make_qualities(sample_films[1])


@dataclass
class Stage:
    """A pocket Telegram, one bot in one channel, and the means to be a viewer of it."""

    telegram: TelegramSimulator
    bot: Bot
    channel: Channel
    key_path: Path

    def environment(self) -> dict[str, str]:
        return {
            **self.telegram.environment(self.bot, self.key_path),
            "JWT_SECRET": JWT_SECRET,
            "HOST": "127.0.0.1",
            "PORT": "0",
            "SESSION_FILE": "none",
            "BOT_API_URL": "http://127.0.0.1:1",
        }

    def settings(self, **changes: Any) -> worker.Settings:
        return replace(worker.Settings.from_env(self.environment()), **changes)

    def post(
        self,
        content: Content,
        mime_type: str = "video/mp4",
        *,
        file_name: str | None = "film.mp4",
        dc_id: int = 4,
        text: str = "",
        **document: Any,
    ) -> Post:
        """Put a file into the channel."""
        blank = self.telegram.world.new_document(content, mime_type, dc_id)
        media = replace(blank, file_name=file_name, **document)
        return self.telegram.world.post(self.channel, media, text)

    def post_synthetic(self, size: int, **document: Any) -> Post:
        """A film whose bytes say where they stand."""
        return self.post(SyntheticContent(size, seed=7), **document)

    def path(self, post: Post, kind: str = "stream", **claims: Any) -> str:
        """The signed path of a post's file."""
        return f"/{kind}/{self.channel.chat_id}/{post.id}?token={self.token(post, **claims)}"

    def token(self, post: Post, **claims: Any) -> str:
        return make_token(f"{self.channel.chat_id}/{post.id}", **claims)

    def served(self, post: Post) -> int:
        """How many bytes of the file Telegram has sent so far."""
        return self.count(post).bytes_served

    def count(self, post: Post) -> FileCount:
        """What the post's file has cost Telegram so far."""
        assert post.media is not None
        return self.telegram.counters.files[post.media.id]


def make_token(subject: str, secret: str = JWT_SECRET, **claims: Any) -> str:
    """A token as the backend makes it; a claim given as None is left out."""
    now = int(time.time())
    body = {"iss": "backend", "aud": "worker", "sub": subject, "iat": now, "exp": now + 3600}
    body.update(claims)
    return jwt.encode({name: value for name, value in body.items() if value is not None}, secret)


def listing_token(chat_id: int) -> str:
    return make_token(str(chat_id), scope="list")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A pocket Telegram with data centres 1, 2 and 4; the bot lives in 2."""
    async with TelegramSimulator(dc_ids=(1, 2, 4)) as telegram:
        bot = telegram.world.add_bot(home_dc=2)
        channel = telegram.world.add_channel("Films", bot)
        yield Stage(telegram, bot, channel, telegram.write_key(tmp_path / "telegram.pem"))


@pytest.fixture
async def bot_api(stage: Stage) -> AsyncIterator[BotApiServer]:
    """The stage's Telegram by its other door, the Bot API."""
    telegram = stage.telegram
    async with BotApiServer(telegram.world, telegram.trouble, telegram.counters) as server:
        yield server


@pytest.fixture
def start_worker(stage: Stage, aiohttp_client: StartClient) -> StartClient:
    """Starts a worker on the stage and gives an HTTP client of it."""

    async def start(**changes: Any) -> TestClient[Any, Any]:
        # Settings read a key file, as they do in `main` before there is an event loop.
        settings = await asyncio.to_thread(stage.settings, **changes)
        app = worker.create_app(settings)
        return await aiohttp_client(app, server_kwargs={"handler_cancellation": True})

    return start


@pytest.fixture
async def viewer(start_worker: StartClient) -> TestClient[Any, Any]:
    """An HTTP client of a worker with default settings."""
    return await start_worker()


class WorkerProcess:
    """The worker as users run it: a process of its own, on a free port."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log_path: Path) -> None:
        self.process = process
        self.url = url
        self._log_path = log_path

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    def rss_mib(self) -> float:
        """Resident memory now, in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / (1 << 20)

    async def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Ask it to end, and give its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal_number)
        return await self.process.wait()


StartProcess = Callable[..., Awaitable[WorkerProcess]]


@pytest.fixture
async def start_worker_process(stage: Stage, tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Starts workers as real processes; those still running at the end are killed."""
    started: list[WorkerProcess] = []

    async def start(
        *,
        python: str = sys.executable,
        script: Path = WORKER_SCRIPT,
        lean: bool = False,
        **environ: str,
    ) -> WorkerProcess:
        log_path = tmp_path / f"worker-{len(started)}.log"
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *[python, *([str(LEAN)] if lean else []), str(script)],
                env={"PATH": os.environ["PATH"], **stage.environment(), **environ},
                cwd=script.parent,
                stderr=log,
            )
        url = await _address_in(log_path, process)
        started.append(WorkerProcess(process, url, log_path))
        return started[-1]

    yield start
    for each in started:
        await each.stop(signal.SIGKILL)


async def _address_in(log_path: Path, process: asyncio.subprocess.Process) -> str:
    """The address that a starting process writes into its log."""
    while process.returncode is None:
        if found := re.search(r"serves on (http://\S+)", log_path.read_text()):
            return found[1]
        await asyncio.sleep(0.02)
    raise AssertionError(f"the process ended at once:\n{log_path.read_text()}")
