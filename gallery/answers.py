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
        # What is no UTF-8 is no reason to refuse the rest: the Bot API passes on what the buttons
        # of strange clients carry, byte by byte, and would send the same answer again for ever.
        return json.loads(body.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
