"""Answers: JSON of the servers we ask, which may be anything, or no end of it."""

import json
from typing import Any, Final

from aiohttp import ClientResponse

ANSWER_MAX_BYTES: Final = 32 << 20  # a hundred updates, each as long as Telegram makes them
PIECE_BYTES: Final = 64 * 1024


async def read_json(response: ClientResponse) -> Any:
    """The body of an answer as JSON; raise ValueError if it is none or too long."""
    body = bytearray()
    async for piece in response.content.iter_chunked(PIECE_BYTES):
        body += piece
        if len(body) > ANSWER_MAX_BYTES:
            raise ValueError("too long")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
