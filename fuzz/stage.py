"""Both services on a pocket Telegram, over real sockets, and what they may answer at all.

    with open_stage() as stage:
        answer = stage.ask(stage.worker_port, b"GET /health HTTP/1.1\\r\\n\\r\\n")

Everything runs on one event loop, which turns only while something is asked. What the services log
meanwhile is kept: no secret may be in it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jwt
import worker
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

import backend
from gallery.logs import SafeFormatter
from gallery.settings import Settings as GallerySettings
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.cluster import API_HASH, API_ID, TelegramSimulator
from telegram_simulator.content import BytesContent, Content, SyntheticContent
from telegram_simulator.world import Bot, Channel, PhotoSize, Post

JWT_SECRET = "a secret of the fuzzers, long enough"
PASSWORD = "a password of the fuzzers"
PATIENCE_S = 20.0
HEAD_MAX_BYTES = 64 << 10
LOG_MAX_LINES = 1000
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no port stays busy after thousands of requests


@dataclass(frozen=True)
class Answer:
    """What came back; `body` is all of it, however it was framed."""

    status: int
    version: str
    headers: dict[str, str]  # by lower-case name; a name that comes twice is joined with commas
    body: bytes

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json")

    def error_code(self) -> str:
        code: str = json.loads(self.body)["error"]["code"]
        return code


@dataclass
class Stage:
    """The services' ports, the films, and the means to ask."""

    loop: asyncio.AbstractEventLoop
    telegram: TelegramSimulator
    bot: Bot
    channel: Channel
    worker_port: int = 0
    gallery_port: int = 0  # without a password, for this machine only
    locked_port: int = 0  # with PASSWORD
    log: Listener | None = None

    def post(self, content: Content, mime_type: str, file_name: str, **facts: Any) -> Post:
        blank = self.telegram.world.new_document(content, mime_type, 4)
        media = replace(blank, file_name=file_name, **facts)
        return self.telegram.world.post(self.channel, media, "A caption")

    def ask(self, port: int, request: bytes, *, is_head: bool = False) -> Answer:
        return self.loop.run_until_complete(_ask(port, request, is_head))


class Listener(logging.Handler):
    """Keeps the last lines as the two services would have written them."""

    def __init__(self, *secrets: str) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.has_failure = False  # something was raised that nobody thought of
        self._formatters = (
            SafeFormatter(secrets),
            worker.RedactingFormatter("%(levelname)s %(message)s"),
        )

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        # aiohttp tells of requests that are no HTTP, or not packed as they say, in this way too.
        if error is not None and not isinstance(error, (HttpProcessingError, RequestPayloadError)):
            self.has_failure = True
        formatter = self._formatters[record.name.startswith("rangegram")]
        self.lines.append(formatter.format(record))
        del self.lines[:-LOG_MAX_LINES]

    def taken(self) -> tuple[str, bool]:
        """What was written since the last time, and whether something failed in it."""
        text, has_failure = "\n".join(self.lines), self.has_failure
        self.lines.clear()
        self.has_failure = False
        return text, has_failure


# -- asking --------------------------------------------------------------------------------------


def as_head(lines: Iterable[str]) -> bytes:
    """The head of a request. What would end a line is for the HTTP parser, which is not ours."""
    head = "\r\n".join(re.sub(r"[\x00-\x1f\x7f]", " ", line).strip() for line in lines)
    # The upper half of the bytes travels as half characters; the other halves become some of these.
    head = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\udced", head)
    return head.encode("utf-8", "surrogateescape") + b"\r\n\r\n"


async def _ask(port: int, request: bytes, is_head: bool) -> Answer:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=HEAD_MAX_BYTES)
        try:
            writer.write(request)
            return await _read_answer(reader, is_head)
        finally:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.close()


async def _read_answer(reader: asyncio.StreamReader, is_head: bool) -> Answer:
    """One answer, read strictly; raises AssertionError for what is no HTTP."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    assert version in ("HTTP/1.0", "HTTP/1.1"), first
    status = int(rest[:3])
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon, line
        assert name.replace("-", "").isalnum(), line
        assert value.isprintable(), line
        known = headers.get(name.lower())
        headers[name.lower()] = value if known is None else f"{known}, {value}"
    if status == 100:
        return await _read_answer(reader, is_head)
    if is_head or status in (204, 304):
        return Answer(status, version, headers, b"")
    return Answer(status, version, headers, await _read_body(reader, headers))


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


def check_answer(stage: Stage, answer: Answer, secrets: tuple[str, ...]) -> None:
    """What holds for every answer of either service, and for what it logs on the way."""
    assert stage.log is not None
    text, has_failure = stage.log.taken()
    for secret in secrets:
        assert secret not in text, f"a secret is in the log: {text}"
    # Nothing is wrong with this Telegram, so 502 and 503 would be as wrong as 500.
    assert answer.status < 500 or answer.status == 501, f"{answer}\n{text}"
    assert not has_failure, text
    if answer.status >= 400 and answer.version == "HTTP/1.1":
        assert answer.headers["cache-control"] == "no-store", answer
        if answer.is_json and answer.body:
            error = json.loads(answer.body)["error"]
            assert set(error) == {"code", "message"}
            assert error["code"] != "internal", answer
            assert error["message"]
    if answer.version == "HTTP/1.1":
        assert answer.headers["x-content-type-options"] == "nosniff", answer
        assert answer.headers["referrer-policy"] == "no-referrer", answer


# -- setting up ----------------------------------------------------------------------------------


@contextmanager
def open_stage() -> Iterator[Stage]:
    """A Telegram with some posts, a worker, a gallery for this machine and one with a password."""
    loop = asyncio.new_event_loop()
    listener = Listener(JWT_SECRET, PASSWORD)
    root = logging.getLogger()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.INFO)
    house = _house(loop, listener)
    try:
        yield loop.run_until_complete(anext(house))
    finally:
        loop.run_until_complete(house.aclose())
        root.setLevel(level)
        root.removeHandler(listener)
        loop.close()


async def _house(loop: asyncio.AbstractEventLoop, listener: Listener) -> AsyncGenerator[Stage]:
    async with (
        TelegramSimulator(dc_ids=(1, 2, 4)) as telegram,
        BotApiServer(telegram.world, telegram.trouble, telegram.counters) as bot_api,
    ):
        # One bot for each gallery: two programs that ask for one bot's updates are in each other's
        # way.
        bot, second = (telegram.world.add_bot(home_dc=2) for _ in range(2))
        channel = telegram.world.add_channel("Films", bot, second)
        stage = Stage(loop, telegram, bot, channel, log=listener)
        fill(stage)
        async with _served(worker.create_app(_worker_settings(stage))) as stage.worker_port:
            gallery = {
                "BOT_TOKEN": bot.token,
                "JWT_SECRET": JWT_SECRET,
                "WORKER_URL": f"http://127.0.0.1:{stage.worker_port}",
                "CHANNELS": str(channel.chat_id),
                "BOT_API_URL": bot_api.url,
            }
            private = {"BOT_TOKEN": second.token, "GALLERY_PASSWORD": PASSWORD}
            async with (
                _served(await _gallery(gallery)) as stage.gallery_port,
                _served(await _gallery({**gallery, **private})) as stage.locked_port,
            ):
                yield stage


def fill(stage: Stage) -> None:
    """Films long and empty, a page with scripts in it, a photo, a text without any file."""
    stage.post(SyntheticContent(300_000, seed=7), "video/mp4", "film.mp4", duration_s=8.0)
    stage.post(BytesContent(b""), "video/mp4", "empty.mp4")
    stage.post(BytesContent(b"<script>1</script>"), "text/html", 'odd "name"\r\n\u202e.html')
    picture = PhotoSize("m", 320, 200, BytesContent(b"\xff\xd8 a picture"))
    photo = stage.telegram.world.new_photo(picture, dc_id=4)
    stage.telegram.world.post(stage.channel, photo, "")
    stage.telegram.world.post(stage.channel, None, "no file")
    stage.post(SyntheticContent(90_000, seed=8), "video/mp4", "", thumbnails=(picture,))
    # Measures are whatever the uploader's program wrote.
    stage.post(BytesContent(b"x"), "video/mp4", "odd.mp4", kind="video", duration_s=float("nan"))


def _worker_settings(stage: Stage) -> worker.Settings:
    host, port = stage.telegram.address(stage.bot.home_dc)
    return worker.Settings(
        api_id=API_ID,
        api_hash=API_HASH,
        bot_tokens=(stage.bot.token,),
        jwt_secrets=(JWT_SECRET,),
        telegram=worker.DataCentre(stage.bot.home_dc, host, port),
        telegram_key_pem=worker.read_rsa_public_key(stage.telegram.rsa_public_pem),
    )


async def _gallery(environment: dict[str, str]) -> web.Application:
    # Templates are read from disk, as they are in `main` before there is an event loop.
    return await asyncio.to_thread(
        lambda: backend.create_app(GallerySettings.from_env(environment))
    )


@asynccontextmanager
async def _served(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def token(subject: str, **claims: Any) -> str:
    """A token of the fuzzers' secret; a claim given as None is left out."""
    now = int(time.time())
    usual = {"iss": "backend", "aud": "worker", "sub": subject, "iat": now, "exp": now + 3600}
    body = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(body, JWT_SECRET, "HS256")
