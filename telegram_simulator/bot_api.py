"""The Bot API over HTTP, on the same world as the data centres.

    async with BotApiServer(world, trouble) as bot_api:
        print(bot_api.url)              # http://127.0.0.1:40001, in place of api.telegram.org

`/bot<token>/<method>` takes GET and POST with query, JSON or form; `/file/bot<token>/<path>`
serves what getFile named, Range included. Refusals have Telegram's own words. Faults of `Trouble`
strike here under the names `bot_api.<method>` and `bot_api.download`, in data centre 0. Tokens
are part of every address, so requests are logged by bot number only.

Other than Telegram: a webhook may be plain HTTP, on any port and on this machine, as with
Telegram's own server in its `--local` mode.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from . import control
from .bot_api_objects import FileIds, FilePlace, Messages, find_content, folder_and_suffix
from .bot_arguments import Arguments, names, number, read_arguments, refuse, truth
from .bot_chats import BotChats, Method
from .bot_copies import BotCopies
from .bot_updates import ApiError, UpdateQueue, Webhook, push_update
from .content import Content
from .faults import Counters, Fault, Trouble
from .world import Bot, Channel, ChannelEvent, Json, Press, PrivateMessage, World

log = logging.getLogger(__name__)

DOWNLOAD_BYTES_MAX = 20 << 20
"""getFile refuses more: MAX_DOWNLOAD_FILE_SIZE of Telegram's server."""
FILE_PATH_LIFETIME_S = 3600.0
"""«It is guaranteed that the link will be valid for at least 1 hour»; here it is exactly that."""
PIECE_BYTES = 256 << 10
REQUEST_BYTES_MAX = 1 << 20
SECRET_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class BotApiServer:
    """The HTTP door; an async context manager. What bots say through it is in `World.said`."""

    def __init__(
        self,
        world: World,
        trouble: Trouble | None = None,
        counters: Counters | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        actions: Mapping[str, control.Action] | None = None,
        clock: Callable[[], float] = time.monotonic,
        webhook_retry_s: float = 1.0,
    ) -> None:
        self.world = world
        self.trouble = trouble or Trouble()
        self.counters = counters or Counters()
        self._host, self._port = host, port
        self._actions = actions or {}
        self._clock = clock
        self._webhook_retry_s = webhook_retry_s
        self._ids = FileIds()
        self._chats = BotChats(world, self._ids)
        self._queues: dict[int, UpdateQueue] = {}
        self._paths: dict[tuple[int, str], tuple[FilePlace, float]] = {}
        self._path_numbers: dict[tuple[int, FilePlace], int] = {}
        self._methods: dict[str, Method] = {
            "getFile": self._get_file,
            "getUpdates": self._get_updates,
            "setWebhook": self._set_webhook,
            "deleteWebhook": self._delete_webhook,
            "getWebhookInfo": self._get_webhook_info,
            **self._chats.methods(),
            **BotCopies(world, self._chats).methods(),
        }
        self._spellings = {name.lower(): name for name in self._methods}

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=REQUEST_BYTES_MAX)
        app.router.add_route("*", "/bot{token}/{method}", self._answer_method)
        app.router.add_get("/file/bot{token}/{path:.+}", self._answer_file)
        control.add_routes(app, self.world, self.trouble, self.counters, self._actions)
        app.router.add_route("*", "/{anything:.*}", self._answer_nothing)
        # No access log: the address of every request holds a bot token.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host, self._port)
            await site.start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]
        self._http = aiohttp.ClientSession()
        self._subscriptions = (
            self.world.subscribe(self._on_event),
            self.world.subscribe_to_private(self._on_private),
        )
        return self

    async def __aexit__(self, *_reason: object) -> None:
        for end in self._subscriptions:
            end()
        for queue in self._queues.values():
            await queue.close()
        await self._runner.cleanup()
        await self._http.close()

    # -- requests ------------------------------------------------------------------------------

    async def _answer_method(self, request: web.Request) -> web.StreamResponse:
        try:
            bot = self._authorize(request)
            name = self._spellings.get(request.match_info["method"].lower(), "unknown")
            self.counters.methods[f"bot_api.{name}"] += 1
            fault = await self._strike(request, name, bot, None)
            if name not in self._methods:
                refuse(404, "Not Found: method not found")
            result = await self._methods[name](bot, await read_arguments(request))
        except ApiError as error:
            return self._refusal(error)
        response = _answer({"ok": True} | result)
        if fault is not None:
            return await _break_off(request, response, fault)
        return response

    async def _answer_file(self, request: web.Request) -> web.StreamResponse:
        try:
            bot = self._authorize(request)
            self.counters.methods["bot_api.download"] += 1
            place, expires = self._paths.get(
                (bot.id, request.match_info["path"]), (FilePlace(0), float("-inf"))
            )
            content = find_content(self.world, place)
            fault = await self._strike(request, "download", bot, place.file_id)
            if content is None or self._clock() >= expires:
                refuse(404, "Not Found")
        except ApiError as error:
            return self._refusal(error)
        return await self._send_file(request, content, place, fault)

    async def _answer_nothing(self, _request: web.Request) -> web.StreamResponse:
        return self._refusal(ApiError(404, "Not Found"))

    def _authorize(self, request: web.Request) -> Bot:
        bot = self.world.bot_by_token(request.match_info["token"])
        if bot is None:
            refuse(401, "Unauthorized")
        return bot

    def _refusal(self, error: ApiError) -> web.Response:
        self.counters.errors[f"{error.code} {error.description}"] += 1
        body: Json = {"ok": False, "error_code": error.code, "description": error.description}
        if error.parameters:
            body["parameters"] = error.parameters
        return _answer(body, error.code)

    async def _strike(
        self, request: web.Request, name: str, bot: Bot, file_id: int | None
    ) -> Fault | None:
        """Wait out the round trip, then suffer what is planned; the rest of a cut is returned."""
        await asyncio.sleep(self.trouble.round_trip_s)
        fault = self.trouble.strike(f"bot_api.{name}", 0, bot.id, file_id)
        if fault is None:
            return None
        log.info("bot %d %s: planned trouble, %s", bot.id, name, fault.kind)
        if fault.kind == "error":
            raise _api_error(fault)
        if fault.kind == "cut_before" and request.transport is not None:
            request.transport.abort()
        if fault.kind in ("silence", "cut_before"):
            # Until the connection is gone, which cancels this handler.
            await asyncio.Event().wait()
        return fault

    # -- files ---------------------------------------------------------------------------------

    async def _get_file(self, bot: Bot, arguments: Arguments) -> Json:
        file_id = arguments.get("file_id", "")
        if not file_id:
            refuse(400, "Bad Request: file_id not specified")
        place = self._ids.place(bot, file_id)
        content = find_content(self.world, place) if place else None
        if place is None or content is None:
            refuse(400, "Bad Request: invalid file_id")
        if content.size > DOWNLOAD_BYTES_MAX:
            refuse(400, "Bad Request: file is too big")
        return _result(
            {
                "file_id": file_id,
                "file_unique_id": self._ids.unique_id(place),
                "file_size": content.size,
                "file_path": self._open_path(bot, place),
            }
        )

    def _open_path(self, bot: Bot, place: FilePlace) -> str:
        """The path that serves a file for the next hour; the same one when asked again."""
        now = self._clock()
        self._paths = {key: entry for key, entry in self._paths.items() if entry[1] > now}
        folder, suffix = folder_and_suffix(self.world, place)
        number = self._path_numbers.setdefault((bot.id, place), len(self._path_numbers))
        path = f"{folder}/file_{number}{suffix}"
        self._paths[bot.id, path] = (place, now + FILE_PATH_LIFETIME_S)
        return path

    async def _send_file(
        self, request: web.Request, content: Content, place: FilePlace, fault: Fault | None
    ) -> web.StreamResponse:
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        window = byte_range(request.headers.get("Range"), content.size)
        if window is None:
            headers["Content-Range"] = f"bytes */{content.size}"
            return web.Response(status=416, headers=headers)
        start, stop = window
        response = web.StreamResponse(headers=headers)
        response.content_length = stop - start
        if "Range" in request.headers and _is_partial(request.headers["Range"]):
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        end = stop if fault is None or fault.kind == "cut_after" else (start + stop) // 2
        async for piece in self._paced(content, start, end):
            await response.write(piece)
            self.counters.downloads[place.file_id] += len(piece)
        if fault is not None and request.transport is not None:
            # Gracefully, so that what was written still arrives, and no more than that.
            request.transport.close()
        return response

    async def _paced(self, content: Content, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes of a window, no faster than `bytes_per_second`."""
        while start < stop:
            piece = await asyncio.to_thread(content.read, start, min(PIECE_BYTES, stop - start))
            if self.trouble.bytes_per_second:
                await asyncio.sleep(len(piece) / self.trouble.bytes_per_second)
            yield piece
            start += len(piece)

    # -- updates -------------------------------------------------------------------------------

    def _on_event(self, channel: Channel, event: ChannelEvent) -> None:
        """A post in a channel becomes an update for each of its bots but the one that wrote it."""
        if event.kind == "deleted":
            return  # The Bot API tells nobody.
        kind = "channel_post" if event.kind == "new" else "edited_channel_post"
        for bot_id in channel.members:
            if self._chats.speaker is None or bot_id != self._chats.speaker.id:
                bot = self.world.bots[bot_id]
                told = Messages(self._ids, bot, self.world).message(channel, event.post)
                self._queue(bot).add(kind, told)

    def _on_private(self, bot: Bot, what: PrivateMessage | Press) -> None:
        """What a person writes to a bot, or presses, becomes an update of that bot."""
        messages = Messages(self._ids, bot, self.world)
        if isinstance(what, Press):
            self._queue(bot).add("callback_query", messages.press(what))
        else:
            self._queue(bot).add("message", messages.private(what))

    def _queue(self, bot: Bot) -> UpdateQueue:
        if bot.id not in self._queues:
            self._queues[bot.id] = UpdateQueue(retry_first_s=self._webhook_retry_s)
        return self._queues[bot.id]

    async def _get_updates(self, bot: Bot, arguments: Arguments) -> Json:
        queue = self._queue(bot)
        if "allowed_updates" in arguments:
            queue.allowed = names(arguments["allowed_updates"])
        timeout_s = float(number(arguments, "timeout", 0))
        offset, limit = number(arguments, "offset", 0), number(arguments, "limit", 100)
        return _result(await queue.poll(offset, limit, timeout_s))

    async def _set_webhook(self, bot: Bot, arguments: Arguments) -> Json:
        url = arguments.get("url", "").strip()
        if not url:
            return await self._delete_webhook(bot, arguments)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            refuse(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
        secret = arguments.get("secret_token", "")
        if len(secret) > 256:
            refuse(400, "Bad Request: secret token is too long")
        if secret and not SECRET_TOKEN.fullmatch(secret):
            refuse(400, "Bad Request: secret token contains unallowed characters")
        queue = self._queue(bot)
        if "allowed_updates" in arguments:
            queue.allowed = names(arguments["allowed_updates"])
        if truth(arguments.get("drop_pending_updates")):
            queue.drop()
        webhook = Webhook(url, secret, max(1, min(number(arguments, "max_connections", 40), 100)))
        if webhook == queue.webhook:
            return {"result": True, "description": "Webhook is already set"}
        queue.set_webhook(webhook, self._push)
        return {"result": True, "description": "Webhook was set"}

    async def _delete_webhook(self, bot: Bot, arguments: Arguments) -> Json:
        queue = self._queue(bot)
        if truth(arguments.get("drop_pending_updates")):
            queue.drop()
        if queue.webhook is None:
            return {"result": True, "description": "Webhook is already deleted"}
        queue.set_webhook(None, self._push)
        return {"result": True, "description": "Webhook was deleted"}

    async def _get_webhook_info(self, bot: Bot, _arguments: Arguments) -> Json:
        queue = self._queue(bot)
        hook = queue.webhook
        info: Json = {
            "url": hook.url if hook else "",
            "has_custom_certificate": False,
            "pending_update_count": len(queue),
        }
        if hook:
            info["max_connections"] = hook.max_connections
        if queue.last_error:
            info["last_error_date"], info["last_error_message"] = queue.last_error
        if queue.allowed:
            info["allowed_updates"] = list(queue.allowed)
        return _result(info)

    async def _push(self, webhook: Webhook, update: Json) -> str | None:
        return await push_update(self._http, webhook, update)


# -- requests and answers ------------------------------------------------------------------------


def _result(result: object) -> Json:
    return {"result": result}


def _answer(body: Json, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)


def _api_error(fault: Fault) -> ApiError:
    """A planned RPC error as the Bot API would tell it; a flood wait becomes 429."""
    flood = re.fullmatch(r"FLOOD_(?:PREMIUM_)?WAIT_(\d+)", fault.message)
    if flood:
        seconds = int(flood.group(1))
        return ApiError(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
    return ApiError(fault.code, fault.message)


async def _break_off(
    request: web.Request, response: web.Response, fault: Fault
) -> web.StreamResponse:
    """Send the whole answer (`cut_after`) or half of it, under its full length, and hang up."""
    body = response.body if isinstance(response.body, bytes) else b""
    broken = web.StreamResponse(headers={"Content-Type": "application/json"})
    broken.content_length = len(body)
    await broken.prepare(request)
    await broken.write(body if fault.kind == "cut_after" else body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return broken


# -- ranges --------------------------------------------------------------------------------------


def _is_partial(header: str) -> bool:
    match = RANGE.fullmatch(header.strip())
    return match is not None and match.groups() != ("", "")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open window that one Range header asks for; None when it can't be satisfied.

    No header, several ranges and what cannot be read mean the whole file (RFC 9110, 14.2).
    """
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        suffix_bytes = int(last)
        return (max(0, size - suffix_bytes), size) if suffix_bytes and size else None
    if last and int(last) < int(first):
        return 0, size
    start = int(first)
    return (start, min(int(last) + 1, size) if last else size) if start < size else None
