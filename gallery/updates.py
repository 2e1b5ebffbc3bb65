"""Updates: Telegram tells of new and edited posts, by webhook or by long polling.

Where PUBLIC_URL is https Telegram calls us, which also wakes a sleeping free host; elsewhere we
ask. Updates bring a post into the index at once, and the `file_id` that opens a small file. Nothing
depends on them: what they miss the catalogue finds, only later and without a `file_id`.
"""

import asyncio
import hmac
import json
import logging
import mimetypes
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aiohttp import web

from gallery import tokens
from gallery.bot_api import NO_ANSWER, BotApi, BotApiError, wait_politely
from gallery.errors import ApiError
from gallery.files import MALFORMED, MESSAGE_ID_MAX, MediaFile, clean_line, clean_text, guess_type
from gallery.index import BotFile, Index
from gallery.settings import Settings

log = logging.getLogger(__name__)

WEBHOOK_PATH: Final = "/telegram/webhook"
KINDS: Final = ("channel_post", "edited_channel_post")
UPDATE_MAX_BYTES: Final = 256 * 1024  # a caption of 4096 characters with all its entities, twice
POLL_TIMEOUT_S: Final = 50  # what Telegram cuts a longer one down to
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
CONFLICT_WAIT_FIRST_S: Final = 60.0
CONFLICT_WAIT_MAX_S: Final = 900.0
CONFLICT_FORGOTTEN_S: Final = 3600.0
# Of an animation Telegram says both, for bots older than the field: the document comes last.
_FILE_FIELDS: Final = ("video", "animation", "audio", "voice", "video_note", "document")
_TYPES: Final = {"video": "video/mp4", "video_note": "video/mp4", "voice": "audio/ogg"}


class Updates:
    """Hears of posts in these channels and puts their files into the index."""

    def __init__(
        self,
        api: BotApi,
        index: Index,
        channels: Iterable[int],
        webhook_url: str | None,
        secret: str,
    ) -> None:
        self._api = api
        self._index = index
        self._channels = frozenset(channels)
        self._webhook_url = webhook_url
        self._secret = secret
        self.webhook_refusal = ""  # what Telegram last said against our webhook
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def webhook_url(self) -> str | None:
        """Where Telegram is to call us; None where we ask."""
        return self._webhook_url

    def start(self) -> None:
        """Begin to listen, and to ask for the channels' titles."""
        listening = self._poll() if self._webhook_url is None else self._set_webhook()
        self._tasks = [asyncio.create_task(each) for each in (listening, self._read_titles())]

    async def close(self) -> None:
        # A webhook stays set: during a deploy it is the next instance's, later it wakes us.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take(self, update: Any) -> None:
        """Note what an update tells; what is not about a file of ours, or odd, is passed over."""
        try:
            message = next(update[kind] for kind in KINDS if kind in update)
            chat_id, message_id = int(message["chat"]["id"]), int(message["message_id"])
            title = clean_line(message["chat"].get("title"))
            found = file_in(message)
            if not 0 < message_id <= MESSAGE_ID_MAX:
                raise ValueError
        except (StopIteration, *MALFORMED) as error:
            log.info("an update of no use: %s", type(error).__name__)
            return
        if chat_id not in self._channels:
            return
        if title:
            await self._index.set_title(chat_id, title)
        if found is not None:
            await self._index.put(*found)
        elif "edited_channel_post" in update:
            await self._index.forget(chat_id, message_id)

    # -- by webhook ------------------------------------------------------------------------------

    def is_from_telegram(self, given_secret: str) -> bool:
        given = given_secret.encode(errors="surrogateescape")  # a header may hold any bytes
        return hmac.compare_digest(given, self._secret.encode())

    async def _set_webhook(self) -> None:
        """Tell Telegram where we are, until it has understood."""
        patience_s = RETRY_FIRST_S
        while True:
            try:
                await self._api.call(
                    "setWebhook",
                    url=self._webhook_url,
                    secret_token=self._secret,
                    allowed_updates=KINDS,
                )
            except BotApiError as error:
                log.warning("setWebhook: %d %s", error.code, error.description)
                self.webhook_refusal = error.description
                await wait_politely(error, patience_s)
                patience_s = min(2 * patience_s, RETRY_MAX_S)
            else:
                log.info("Telegram tells of new posts by webhook")
                self.webhook_refusal = ""
                return

    # -- by long polling -------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Ask for updates for ever; step back when somebody else does."""
        offset = 0
        trouble = _Trouble()
        while True:
            try:
                updates = await self._updates_from(offset)
            except BotApiError as error:
                await wait_politely(error, trouble.wait_s(error))
                continue
            trouble.is_over()
            for update_id, update in updates:
                try:
                    await self.take(update)
                except ApiError as error:
                    log.warning("an update is lost: %s", error.code)
                offset = update_id + 1

    async def _updates_from(self, offset: int) -> list[tuple[int, Any]]:
        """The updates that follow, each with its number; raise BotApiError."""
        answer = await self._api.call(
            "getUpdates",
            timeout_s=POLL_TIMEOUT_S + 10,
            offset=offset,
            timeout=POLL_TIMEOUT_S,
            allowed_updates=KINDS,
        )
        try:
            return [(int(update["update_id"]), update) for update in answer]
        except MALFORMED:
            raise BotApiError(NO_ANSWER, "updates of another kind") from None

    # -- titles ----------------------------------------------------------------------------------

    async def _read_titles(self) -> None:
        """Ask once for each channel's title. Until then, and without, its id stands for it."""
        for chat_id in self._channels:
            try:
                chat = await self._api.call("getChat", chat_id=chat_id)
                await self._index.set_title(chat_id, clean_line(chat["title"]))
            except (ApiError, BotApiError, LookupError, TypeError) as error:
                log.info("the title of %d stays unknown: %s", chat_id, error)


class _Trouble:
    """How long to wait after a failed poll; each kind of trouble is told once, not every time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._patience_s = RETRY_FIRST_S
        self._conflict_wait_s = CONFLICT_WAIT_FIRST_S
        self._last_conflict = float("-inf")
        self._told: set[int] = set()

    def wait_s(self, error: BotApiError) -> float:
        if error.code not in self._told:
            self._told.add(error.code)
            log.warning("getUpdates: %d %s%s", error.code, error.description, _advice(error))
        if error.code == 409:
            # Two that poll end each other's request. The one that waits longer leaves it alone.
            if self._clock() - self._last_conflict > CONFLICT_FORGOTTEN_S:
                self._conflict_wait_s = CONFLICT_WAIT_FIRST_S
            wait_s = self._conflict_wait_s
            self._conflict_wait_s = min(2 * wait_s, CONFLICT_WAIT_MAX_S)
            self._last_conflict = self._clock()
            return wait_s
        wait_s = self._patience_s
        self._patience_s = min(2 * wait_s, RETRY_MAX_S)
        return wait_s

    def is_over(self) -> None:
        self._patience_s = RETRY_FIRST_S
        self._told &= {409}


def _advice(error: BotApiError) -> str:
    return {
        401: " (is BOT_TOKEN right?)",
        409: " (another program has this bot's updates; new posts are found without them, only"
        " later. If that program is gone, end its webhook: deleteWebhook)",
    }.get(error.code, "")


def file_in(message: Mapping[str, Any]) -> tuple[MediaFile, BotFile] | None:
    """The file of a Bot API message and what the Bot API calls it; None if it has none.

    It is described as the worker's listing describes it. Raise KeyError & co. if it is malformed.
    """
    message_id = int(message["message_id"])
    if "photo" in message:
        media = max(message["photo"], key=lambda size: int(size["width"]) * int(size["height"]))
        media = {**media, "file_name": f"photo_{message_id}.jpg", "mime_type": "image/jpeg"}
    else:
        field = next((field for field in _FILE_FIELDS if field in message), None)
        if field is None:
            return None
        media = {"mime_type": _TYPES.get(field, ""), **message[field]}
    if "file_size" not in media:
        return None  # Telegram may leave it out; the worker knows it
    edge = media.get("length", 0)
    name = media.get("file_name") or ""
    mime_type = media["mime_type"]
    if mime_type in ("", "application/octet-stream"):
        mime_type = guess_type(name)
    if not name:
        suffix = mimetypes.guess_extension(mime_type) or ""
        name = f"{mime_type.partition('/')[0]}_{message_id}{suffix}"
    file = MediaFile.from_listing(
        {
            "chat_id": message["chat"]["id"],
            "message_id": message_id,
            "name": name,
            "mime_type": mime_type,
            "size": media["file_size"],
            "date": message["date"],
            "duration": media.get("duration", 0),
            "width": media.get("width", edge),
            "height": media.get("height", edge),
            "caption": message.get("caption"),
            "has_thumbnail": "thumbnail" in media or "photo" in message,
        }
    )
    return file, BotFile(clean_text(media["file_id"]), clean_text(media["file_unique_id"]))


UPDATES: Final = web.AppKey("UPDATES", Updates)


async def receive_update(request: web.Request) -> web.Response:
    """POST /telegram/webhook: an update, from Telegram if it knows our secret."""
    updates = request.app[UPDATES]
    if not updates.is_from_telegram(request.headers.get("X-Telegram-Bot-Api-Secret-Token", "")):
        raise ApiError(403, "not_telegram", "This is for Telegram only.")
    try:
        update = json.loads(await request.clone(client_max_size=UPDATE_MAX_BYTES).read())
    except (RecursionError, ValueError, web.HTTPRequestEntityTooLarge):
        # Any other answer than success and Telegram sends the same thing again for a day.
        log.warning("an update that cannot be read is passed over")
    else:
        await updates.take(update)
    return web.Response(headers={"Cache-Control": "no-store"})


def webhook_url(public_url: str | None) -> str | None:
    """Where Telegram can call us: it insists on https."""
    if public_url is None or not public_url.startswith("https://"):
        return None
    return public_url + WEBHOOK_PATH


def make_updates(settings: Settings, api: BotApi, index: Index) -> Updates:
    """The way of listening that fits the settings."""
    secret = tokens.webhook_secret(settings.jwt_secret, settings.bot_token)
    return Updates(api, index, settings.channels, webhook_url(settings.public_url), secret)
