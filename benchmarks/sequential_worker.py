"""The baseline: a streaming worker as most people write one, and as they may well.

    API_ID=… API_HASH=… BOT_TOKEN=… PORT=… python benchmarks/sequential_worker.py

aiohttp in front, one Telethon client behind, `iter_download` between them: one request of 512 KiB,
the most that `iter_download` takes, after another. It knows ranges, remembers messages, keeps its
connections and writes each chunk as soon as it has it. It checks no tokens; that costs next to
nothing. The environment is that of the worker.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from telethon import TelegramClient
from telethon.crypto import rsa
from telethon.sessions import StringSession

CHUNK_BYTES = 512 << 10
CLIENT = web.AppKey("client", TelegramClient)
MESSAGES = web.AppKey("messages", dict[tuple[int, int], Any])


async def logged_in_client(app: web.Application) -> AsyncIterator[None]:
    """One client for the life of the process."""
    session = StringSession()
    if address := os.environ.get("TELEGRAM_DC"):
        dc_id, _at, host_and_port = address.partition("@")
        host, _colon, port = host_and_port.rpartition(":")
        session.set_dc(int(dc_id), host, int(port))
        trust_key(Path(os.environ["TELEGRAM_DC_KEY"]))
    client = TelegramClient(session, int(os.environ["API_ID"]), os.environ["API_HASH"])
    await client.start(bot_token=os.environ["BOT_TOKEN"])
    app[CLIENT], app[MESSAGES] = client, {}
    yield
    await client.disconnect()


def trust_key(path: Path) -> None:
    rsa.add_key(path.read_text(), old=False)


async def find_message(app: web.Application, chat_id: int, message_id: int) -> Any:
    """A message that has a document; Telegram is asked once."""
    known = app[MESSAGES]
    if (chat_id, message_id) not in known:
        message = await app[CLIENT].get_messages(chat_id, ids=message_id)
        if message is None or message.document is None:
            raise web.HTTPNotFound
        known[chat_id, message_id] = message
    return known[chat_id, message_id]


def wanted_range(request: web.Request, size: int) -> tuple[int, int]:
    """The bytes asked for, from start up to stop. Raises HTTPRequestRangeNotSatisfiable."""
    try:
        start, stop, _step = request.http_range.indices(size)
    except ValueError:
        start, stop = size, size
    if start >= stop:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, stop


async def stream(request: web.Request) -> web.StreamResponse:
    chat_id, message_id = (int(request.match_info[name]) for name in ("chat_id", "message_id"))
    message = await find_message(request.app, chat_id, message_id)
    size = message.document.size
    start, stop = wanted_range(request, size)
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    response.content_type = message.document.mime_type
    response.content_length = stop - start
    response.headers["Accept-Ranges"] = "bytes"
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    await response.prepare(request)
    skip, left = start % CHUNK_BYTES, stop - start
    chunks = request.app[CLIENT].iter_download(
        message, offset=start - skip, request_size=CHUNK_BYTES
    )
    async for chunk in chunks:
        piece = chunk[skip : skip + left]
        await response.write(piece)
        skip, left = 0, left - len(piece)
        if not left:
            break
    return response


def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(logged_in_client)
    app.router.add_get("/stream/{chat_id}/{message_id}", stream)
    web.run_app(app, host=os.environ.get("HOST", "0.0.0.0"), port=int(os.environ["PORT"]))


if __name__ == "__main__":
    main()
