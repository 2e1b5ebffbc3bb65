"""Small files: what the Bot API hands out (20 MB at most) goes through the backend.

    GET /files/{chat_id}/{message_id}/{name}?v=…            for whoever is signed in
    GET /files/{chat_id}/{message_id}/{name}?token=…        for players, for as long as it says

The address of the bytes at Telegram holds the bot's token, so browsers never see it. Whatever goes
wrong before the first byte is answered with a redirect to the worker, which has every file; after
that the rest is asked for again, and if that fails too the connection breaks.
"""

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gallery import tokens
from gallery.bot_api import DOWNLOAD_BYTES_MAX, BotApi, BotApiError
from gallery.catalogue import CATALOGUE
from gallery.errors import ApiError
from gallery.files import MediaFile, clean_text, path_segment, stream_url
from gallery.http_file import (
    ByteRange,
    RangeNotSatisfiableError,
    entity_tag,
    file_headers,
    is_known,
    requested_range,
)
from gallery.index import BotFile, Index
from gallery.settings import SETTINGS
from gallery.sign_in import is_signed_in
from gallery.worker_choice import WORKER_CHOICE

log = logging.getLogger(__name__)

FILE_PATH_LIFETIME_S: Final = 50 * 60.0  # Telegram promises an hour
FILE_PATHS_MAX: Final = 5_000
FAILURES_MAX: Final = 2  # in a row, without a byte between
STREAMS_MAX: Final = 100  # each holds some 100 KiB; one more is sent to the worker
YEAR_S: Final = 365 * 24 * 3600


class SmallFiles:
    """Reads files by way of the Bot API and remembers their paths while those are valid."""

    def __init__(
        self, api: BotApi, index: Index, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._index = index
        self._clock = clock
        self._paths: dict[str, tuple[str, float]] = {}  # file_id: file_path, until when
        self.streams = 0

    async def find(self, file: MediaFile) -> BotFile | None:
        """What the Bot API calls this file, if it hands it out at all."""
        if file.parts or not 0 < file.size <= DOWNLOAD_BYTES_MAX:
            return None
        return await self._index.bot_file(file.chat_id, file.message_id)

    async def direct_url(self, bot_file: BotFile) -> tuple[str, int]:
        """The Bot API's own URL, which holds the token, and for how long it is good."""
        path, until = await self._path(bot_file.file_id)
        return self._api.file_url(path), int(until - self._clock())

    async def read(
        self, bot_file: BotFile, wanted: ByteRange, size: int
    ) -> AsyncGenerator[bytes, None]:
        """These bytes, all of them or BotApiError. What breaks off is asked for again."""
        position, failures = wanted.start, 0
        while position < wanted.stop:
            try:
                path, _ = await self._path(bot_file.file_id)
                pieces = self._api.read_file(path, position, wanted.stop, size)
                async with aclosing(pieces):
                    async for piece in pieces:
                        position += len(piece)
                        failures = 0
                        yield piece
            except BotApiError as error:
                failures += 1
                self._paths.pop(bot_file.file_id, None)  # it may have ended before its time
                log.warning("Bot API: a small file: %d %s", error.code, error.description)
                if failures >= FAILURES_MAX or error.is_final or error.retry_after_s:
                    raise

    async def _path(self, file_id: str) -> tuple[str, float]:
        """Where the file is now and until when; asked for anew before the hour is over."""
        path, until = self._paths.pop(file_id, ("", 0.0))
        if until <= self._clock():
            try:
                answer = await self._api.call("getFile", file_id=file_id)
            except BotApiError as error:
                if error.is_final and error.code == 400:
                    await self._index.forget_file_id(file_id)
                raise
            path, until = _file_path(answer), self._clock() + FILE_PATH_LIFETIME_S
        self._paths[file_id] = (path, until)  # the latest used at the end
        while len(self._paths) > FILE_PATHS_MAX:
            del self._paths[next(iter(self._paths))]
        return path, until


def _file_path(answer: object) -> str:
    path = answer.get("file_path") if isinstance(answer, dict) else None
    if not isinstance(path, str) or not path:
        raise BotApiError(0, "getFile names no path")
    return clean_text(path)


SMALL_FILES: Final = web.AppKey("SMALL_FILES", SmallFiles)


@dataclass(frozen=True)
class Leave:
    """Until when somebody may have a file: the end of a token, and how long it may be renewed."""

    expires_at: int
    renewed_until: int | None = None


def small_file_path(file: MediaFile, bot_file: BotFile) -> str:
    """The path for whoever is signed in. It changes with the file, so browsers may keep it."""
    version = entity_tag(bot_file.unique_id, file.size).strip('"')
    return f"{_path_of(file)}?v={version}"


def portable_path(file: MediaFile, secret: str, expires_at: int) -> str:
    """The path that opens for anybody until then: for players outside of the browser."""
    token = tokens.small_file_token(secret, file.chat_id, file.message_id, expires_at)
    return f"{_path_of(file)}?token={token}"


def _path_of(file: MediaFile) -> str:
    return f"/files/{file.chat_id}/{file.message_id}{path_segment(file.name)}"


async def send_small_file(request: web.Request) -> web.StreamResponse:
    """GET and HEAD /files/{chat_id}/{message_id}[/{name}][?download=1]"""
    chat_id, message_id = (int(request.match_info[name]) for name in ("chat_id", "message_id"))
    leave = Leave(_authorised_until(request, chat_id, message_id))
    file = await request.app[CATALOGUE].find(chat_id, message_id)
    return await send_file(request, file, leave)


async def send_file(request: web.Request, file: MediaFile, leave: Leave) -> web.StreamResponse:
    """A file for somebody who may have it: its bytes if it is small, else the way to a worker."""
    small_files = request.app[SMALL_FILES]
    bot_file = await small_files.find(file)
    if bot_file is None or small_files.streams >= STREAMS_MAX:
        return await _to_worker(request, file, leave)
    tag = entity_tag(bot_file.unique_id, file.size)
    headers = _headers(request, file, tag)
    if is_known(request.headers, tag):
        del headers["Content-Type"]
        return web.Response(status=304, headers=headers)
    try:
        wanted = requested_range(request.headers, tag, file.size)
    except RangeNotSatisfiableError:
        return _not_satisfiable(file.size)
    response = _response(wanted, file.size, headers)
    if request.method == "HEAD":
        return response
    whole = ByteRange(0, file.size)
    return await _stream(request, response, file, bot_file, wanted or whole, leave)


def _authorised_until(request: web.Request, chat_id: int, message_id: int) -> int:
    """Until when this visitor may have the file; raise ApiError (401) if never."""
    now = int(time.time())
    if (token := request.query.get("token")) is not None:
        expires_at = tokens.read_with_any(
            request.app[SETTINGS].jwt_secrets,
            lambda secret: tokens.small_file_token_end(secret, chat_id, message_id, token),
        )
        if expires_at is None:
            raise ApiError(401, "token_invalid", "This link has run out or was never ours.")
        return min(expires_at, now + tokens.TOKEN_LIFETIME_S)
    if not is_signed_in(request):
        raise ApiError(401, "sign_in_required", "Sign in first.")
    return now + tokens.TOKEN_LIFETIME_S


def _headers(request: web.Request, file: MediaFile, tag: str) -> dict[str, str]:
    headers = file_headers(file, as_download=request.query.get("download") == "1")
    is_this = request.query.get("v") == tag.strip('"')
    lifetime = f"max-age={YEAR_S}, immutable" if is_this else "no-cache"
    headers |= {"ETag": tag, "Cache-Control": f"private, {lifetime}"}
    if "token" in request.query:
        # The token is all that opens it, no cookie does, so any page may use it, as at the worker.
        headers["Access-Control-Allow-Origin"] = "*"
        headers["Access-Control-Expose-Headers"] = "Accept-Ranges, Content-Range, ETag"
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return headers


def _response(wanted: ByteRange | None, size: int, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=206 if wanted else 200, headers=headers)
    response.content_length = wanted.stop - wanted.start if wanted else size
    if wanted:
        response.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
    return response


def _not_satisfiable(size: int) -> web.Response:
    problem = ApiError(416, "range_not_satisfiable", f"The file has {size} bytes.").response()
    problem.headers["Content-Range"] = f"bytes */{size}"
    return problem


async def _to_worker(request: web.Request, file: MediaFile, leave: Leave) -> web.Response:
    """The same file from a worker, for no longer than this visitor may have it."""
    worker_url = await request.app[WORKER_CHOICE].pick(file)
    settings = request.app[SETTINGS]
    ids = (settings.jwt_secret, file.chat_id, file.message_id)
    token = tokens.visitor_token(*ids, time.time(), leave.expires_at, file.parts)
    url = stream_url(worker_url, file, token)
    if leave.renewed_until is not None:
        url += f"&renew={tokens.renewal_grant(*ids, leave.renewed_until, file.parts)}"
    download = "&download=1" if request.query.get("download") == "1" else ""
    headers = {"Location": url + download, "Cache-Control": "no-store"}
    if "token" in request.query:
        headers["Access-Control-Allow-Origin"] = "*"
    return web.Response(status=307, headers=headers)


async def _stream(
    request: web.Request,
    response: web.StreamResponse,
    file: MediaFile,
    bot_file: BotFile,
    wanted: ByteRange,
    leave: Leave,
) -> web.StreamResponse:
    """Send the bytes; the status line leaves with the first of them."""
    small_files = request.app[SMALL_FILES]
    small_files.streams += 1
    try:
        async with aclosing(small_files.read(bot_file, wanted, file.size)) as pieces:
            async for piece in pieces:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(piece)
        await response.write_eof()
    except BotApiError:
        if not response.prepared:
            return await _to_worker(request, file, leave)
        # A body that ends early must never look complete.
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        log.debug("the visitor left")
    finally:
        small_files.streams -= 1
    return response
