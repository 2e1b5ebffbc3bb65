"""Whole files: the few bytes of a small thing, such as subtitles, for ourselves.

From the Bot API where that hands the file out, else from the worker that serves it.
"""

import logging
import time
from contextlib import aclosing
from typing import Final

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from gallery import tokens
from gallery.answers import PIECE_BYTES
from gallery.bot_api import BotApiError
from gallery.errors import RETRY_AFTER_S, ApiError, file_not_found, worker_unreachable
from gallery.files import MediaFile
from gallery.http_file import ByteRange
from gallery.settings import Settings
from gallery.small_files import SmallFiles
from gallery.worker_choice import Failures, WorkerChoice

log = logging.getLogger(__name__)

READ_TIMEOUT: Final = ClientTimeout(total=20, sock_connect=5)
WORKERS_ASKED_MAX: Final = 3


class WholeFiles:
    """Reads files at one go; whoever asks says how long they may be."""

    def __init__(
        self,
        session: ClientSession,
        settings: Settings,
        small_files: SmallFiles,
        choice: WorkerChoice,
    ) -> None:
        self._session = session
        self._settings = settings
        self._small_files = small_files
        self._choice = choice

    async def read(self, file: MediaFile, most_bytes: int) -> bytes:
        """All bytes of a file; raise ApiError."""
        if file.size > most_bytes or file.parts:
            raise ApiError(422, "too_long", "The file is too long for that.")
        bot_file = await self._small_files.find(file)
        if bot_file is not None:
            try:
                pieces = self._small_files.read(bot_file, ByteRange(0, file.size), file.size)
                async with aclosing(pieces):
                    return b"".join([piece async for piece in pieces])
            except BotApiError as error:
                log.info("the Bot API does not hand a file out: %d", error.code)
        return await self._read_at_a_worker(file)

    async def _read_at_a_worker(self, file: MediaFile) -> bytes:
        failed: tuple[str, ...] = ()
        problem = worker_unreachable()
        while len(failed) < WORKERS_ASKED_MAX:
            worker_url = await self._choice.pick(file, Failures(failed))
            if worker_url in failed:
                break
            try:
                return await self._ask(worker_url, file)
            except ApiError as error:
                problem = error
            except (ClientError, OSError, TimeoutError) as error:
                log.warning("worker %s: a small file: %s", worker_url, type(error).__name__)
            failed = (*failed, worker_url)
        raise problem

    async def _ask(self, worker_url: str, file: MediaFile) -> bytes:
        ids = (file.chat_id, file.message_id)
        token = tokens.file_token(self._settings.jwt_secret, *ids, time.time())
        # The token travels in a header: client errors quote the URL they failed on.
        async with self._session.get(
            f"{worker_url}/stream/{ids[0]}/{ids[1]}",
            headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
            timeout=READ_TIMEOUT,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise _refusal(response.status)
            return await _body(response, file.size)


async def _body(response: ClientResponse, size: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(PIECE_BYTES):
        body += piece
        if len(body) > size:
            break
    if len(body) != size:
        raise ApiError(502, "worker_failed", "The worker has another file there.")
    return bytes(body)


def _refusal(status: int) -> ApiError:
    if status == 404:
        return file_not_found()
    if status in (429, 502, 503, 504):
        message = "Telegram or the worker is busy."
        return ApiError(503, "worker_busy", message, retry_after_s=RETRY_AFTER_S)
    return ApiError(502, "worker_failed", f"The worker answered with status {status}.")
