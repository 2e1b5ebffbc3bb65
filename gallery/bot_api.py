"""Bot API client: calls of methods, and the bytes of small files.

The bot's token is part of every address (core.telegram.org/bots/api#making-requests), and whoever
reads it is the bot. So no error of the HTTP client gets out of here: their texts quote addresses.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import quote

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from gallery.answers import PIECE_BYTES, date_of, read_json, reason_of
from gallery.files import clean_line

DOWNLOAD_BYTES_MAX: Final = 20 << 20
"""getFile refuses more: MAX_DOWNLOAD_FILE_SIZE in github.com/tdlib/telegram-bot-api, Client.h."""
CALL_TIMEOUT_S: Final = 15.0
DOWNLOAD_TIMEOUT: Final = ClientTimeout(total=None, sock_connect=5, sock_read=8)
RETRY_AFTER_MAX_S: Final = 3600.0  # what is longer is asked again once an hour
NO_ANSWER: Final = 0


class BotApiError(Exception):
    """A refusal in Telegram's words, or, with the code NO_ANSWER, what kept the answer away."""

    def __init__(self, code: int, description: str, retry_after_s: float | None = None) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.retry_after_s = retry_after_s

    @property
    def is_final(self) -> bool:
        """Whether asking again gets the same answer."""
        return 400 <= self.code < 500 and self.code not in (404, 409, 429)


class BotApi:
    """One bot at one Bot API server. Neither shows its token, whatever is printed of it."""

    def __init__(self, session: ClientSession, base_url: str, token: str) -> None:
        self._session = session
        self._base_url = base_url
        self._token = token
        self._heard: tuple[float, float] | None = None  # its Date, and when by our steady clock

    @property
    def date(self) -> float | None:
        """The Unix time by its clock, as far as it was heard; which of ours is off it shows."""
        if self._heard is None:
            return None
        date, heard_at = self._heard
        return date + time.monotonic() - heard_at

    async def call(
        self, method: str, *, timeout_s: float = CALL_TIMEOUT_S, **arguments: object
    ) -> Any:
        """The `result` of a method; raise BotApiError."""
        url = f"{self._base_url}/bot{self._token}/{method}"
        timeout = ClientTimeout(total=timeout_s, sock_connect=5)
        try:
            async with self._session.post(
                url, json=arguments, timeout=timeout, allow_redirects=False
            ) as response:
                if (date := date_of(response.headers.get("Date"))) is not None:
                    self._heard = date, time.monotonic()
                return self._result(response.status, await read_json(response))
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            raise BotApiError(NO_ANSWER, reason_of(error)) from None

    def file_url(self, file_path: str) -> str:
        """Where the bytes of a file are; this holds the token. Raise BotApiError if nowhere."""
        # A server in --local mode names a file of its own disk, which it does not serve.
        if file_path.startswith("/") or ".." in file_path:
            raise BotApiError(NO_ANSWER, "the file is on the disk of the Bot API server")
        return f"{self._base_url}/file/bot{self._token}/{quote(file_path)}"

    async def read_file(
        self, file_path: str, start: int, stop: int, size: int
    ) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `stop` of a file of this size, all of them or BotApiError.

        No document promises that Telegram's host knows ranges, so what it sends too much is cut.
        """
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        try:
            async with self._session.get(
                self.file_url(file_path),
                headers=headers,
                timeout=DOWNLOAD_TIMEOUT,
                allow_redirects=False,
            ) as response:
                skip, left = _first_byte(response, start, size), stop - start
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    wanted = piece[skip : skip + left]
                    skip -= min(skip, len(piece))
                    if wanted:
                        left -= len(wanted)
                        yield wanted
                    if not left:
                        return
        except (ClientError, OSError, TimeoutError) as error:
            raise BotApiError(NO_ANSWER, reason_of(error)) from None
        raise BotApiError(NO_ANSWER, "the file ended early")

    def _result(self, status: int, body: Any) -> Any:
        if isinstance(body, dict) and body.get("ok") is True and "result" in body:
            return body["result"]
        if not isinstance(body, dict) or body.get("ok") is not False:
            raise BotApiError(NO_ANSWER, f"an answer of another kind, status {status}")
        # The second half of a token is the secret one, and the first may be written differently.
        description = str(body.get("description", "")).replace(self._token.partition(":")[2], "…")
        raise BotApiError(status, clean_line(description), _retry_after_s(body.get("parameters")))


def _retry_after_s(parameters: Any) -> float | None:
    """How long Telegram asks to wait, if it says so in a number (ResponseParameters)."""
    seconds = parameters.get("retry_after") if isinstance(parameters, dict) else None
    return float(min(seconds, RETRY_AFTER_MAX_S)) if type(seconds) is int else None


def _first_byte(response: ClientResponse, start: int, size: int) -> int:
    """Where in this body the byte at `start` is; raise BotApiError if it is of no use."""
    if response.status == 206:
        first, _, complete = response.headers.get("Content-Range", "").partition("/")
        skip = 0 if first.startswith(f"bytes {start}-") else None
    elif response.status == 200:
        complete, skip = response.headers.get("Content-Length", ""), start
    else:
        raise BotApiError(response.status, "the file host refuses")
    if skip is None or complete != str(size):
        raise BotApiError(NO_ANSWER, "the file host has another file")
    return skip


async def wait_politely(error: BotApiError, patience_s: float) -> None:
    """Sleep as long as Telegram asked, or as long as the caller had in mind."""
    await asyncio.sleep(max(patience_s, error.retry_after_s or 0.0))
