"""Answers: what the servers we ask say, which may be anything, or no end of it, or nothing."""

import json
from email.utils import parsedate_to_datetime
from typing import Any, Final

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientResponse,
    ClientSSLError,
)

ANSWER_MAX_BYTES: Final = 32 << 20  # a hundred updates, each as long as Telegram makes them
PIECE_BYTES: Final = 64 * 1024


async def read_json(response: ClientResponse, bytes_max: int | None = None) -> Any:
    """The body of an answer as JSON; raise ValueError if it is none or too long."""
    body = bytearray()
    async for piece in response.content.iter_chunked(PIECE_BYTES):
        body += piece
        if len(body) > (bytes_max or ANSWER_MAX_BYTES):
            raise ValueError("too long")
    try:
        # What is no UTF-8 is no reason to refuse the rest: the Bot API passes on what the buttons
        # of strange clients carry, byte by byte, and would send the same answer again for ever.
        return json.loads(body.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def date_of(header: str | None) -> float | None:
    """A Date header in Unix seconds (RFC 9110 section 6.6.1); None if it is none."""
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except (OverflowError, TypeError, ValueError):
        return None


def reason_of(error: Exception) -> str:
    """Why there is no answer, in words of ours: the errors' own quote addresses."""
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        (TimeoutError, "no answer in time"),
        (ClientConnectorDNSError, "there is no host of this name"),
        ((ClientConnectorCertificateError, ClientSSLError), "its certificate is not good"),
        (ClientConnectorError, "nobody listens there"),
        (ValueError, "an answer that cannot be read"),
    )
    reasons = (reason for kind, reason in kinds if isinstance(error, kind))
    return next(reasons, "the connection breaks off")
