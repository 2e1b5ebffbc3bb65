"""Updates: Telegram tells of posts, messages and presses, by webhook or by long polling.

Where PUBLIC_URL is https Telegram calls us, which also wakes a sleeping free host; elsewhere we
ask. Updates bring a post into the index at once, and the `file_id` that opens a small file; what
they miss the catalogue finds, only later and without a `file_id`. The rest is for the bot.
"""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from aiohttp import web

from gallery import tokens
from gallery.bot_api import BotApi, BotApiError, wait_politely
from gallery.errors import ApiError
from gallery.files import MALFORMED, MESSAGE_ID_MAX, clean_line
from gallery.index import Index
from gallery.messages import file_in
from gallery.polling import KINDS, RETRY_FIRST_S, RETRY_MAX_S, Polling, WebhookInfo, webhook_info
from gallery.settings import Settings

log = logging.getLogger(__name__)

WEBHOOK_PATH: Final = "/telegram/webhook"
POST_KINDS: Final = ("channel_post", "edited_channel_post")
UPDATE_MAX_BYTES: Final = 256 * 1024  # a caption of 4096 characters with all its entities, twice
WATCH_INTERVAL_S: Final = 600.0

Hear = Callable[[Any], Awaitable[None]]


class Updates:
    """Hears of posts in these channels, puts their files into the index, and tells the bot all."""

    def __init__(
        self,
        api: BotApi,
        index: Index,
        channels: Iterable[int],
        webhook_url: str | None,
        secrets: Iterable[str],
        hear: Hear,
    ) -> None:
        self._api = api
        self._index = index
        self._channels = frozenset(channels)
        self._webhook_url = webhook_url
        self._secrets = tuple(secrets)  # the first is told to Telegram, all are believed
        self._hear = hear
        self._polling = Polling(api, self.take)
        self._webhook_state = "which Telegram has not confirmed yet"
        self.webhook_refusal = ""  # what Telegram last said against our webhook
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def webhook_url(self) -> str | None:
        """Where Telegram is to call us; None where we ask."""
        return self._webhook_url

    @property
    def way(self) -> str:
        """How updates come, in words."""
        if self._webhook_url is not None:
            return ", ".join(filter(None, ("by webhook", self._webhook_state)))
        if self._polling.stands_by:
            return "to another program, while this one stands by"
        return "by long polling"

    def start(self) -> None:
        """Begin to listen, and to ask for the channels' titles."""
        listening = self._polling.run() if self._webhook_url is None else self._keep_webhook()
        self._tasks = [asyncio.create_task(each) for each in (listening, self._read_titles())]

    async def close(self) -> None:
        # A webhook stays set: during a deploy it is the next instance's, later it wakes us.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take(self, update: Any) -> None:
        """Note what an update tells of posts, then hand it on; what is odd is passed over."""
        if isinstance(update, dict):
            if any(kind in update for kind in POST_KINDS):
                await self._note_post(update)
            await self._hear(update)

    async def _note_post(self, update: dict[str, Any]) -> None:
        try:
            message = next(update[kind] for kind in POST_KINDS if kind in update)
            chat_id, message_id = int(message["chat"]["id"]), int(message["message_id"])
            title = clean_line(message["chat"].get("title"))
            found = file_in(message)
            if not 0 < message_id <= MESSAGE_ID_MAX:
                raise ValueError
        except MALFORMED as error:
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
        return any(hmac.compare_digest(given, secret.encode()) for secret in self._secrets)

    async def _keep_webhook(self) -> None:
        """Set it once, and say in the log if no updates come by it.

        Two instances of a deploy say the same. Of two deployments the one that started last has
        it: neither takes it back, or they would never come to rest.
        """
        await self._set_webhook()
        told = ""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            try:
                problem = _webhook_problem(await webhook_info(self._api), self._webhook_url)
            except BotApiError as error:
                await wait_politely(error, 0.0)
                continue
            if problem != told:
                log.warning("the webhook: %s", problem or "all is well again")
            told = problem
            self._webhook_state = f"but {problem}" if problem else ""

    async def _set_webhook(self) -> None:
        """Tell Telegram where we are, until it has understood."""
        patience_s = RETRY_FIRST_S
        while True:
            try:
                await self._api.call(
                    "setWebhook",
                    url=self._webhook_url,
                    secret_token=self._secrets[0],
                    allowed_updates=KINDS,
                )
            except BotApiError as error:
                log.warning("setWebhook: %d %s", error.code, error.description)
                self.webhook_refusal = error.description
                await wait_politely(error, patience_s)
                patience_s = min(2 * patience_s, RETRY_MAX_S)
            else:
                log.info("Telegram tells of new posts by webhook")
                self._webhook_state = self.webhook_refusal = ""
                return

    # -- titles ----------------------------------------------------------------------------------

    async def _read_titles(self) -> None:
        """Ask once for each channel's title. Until then, and without, its id stands for it."""
        for chat_id in self._channels:
            try:
                chat = await self._api.call("getChat", chat_id=chat_id)
                await self._index.set_title(chat_id, clean_line(chat["title"]))
            except (ApiError, BotApiError, LookupError, TypeError) as error:
                log.info("the title of %d stays unknown: %s", chat_id, error)


UPDATES: Final = web.AppKey("UPDATES", Updates)


async def receive_update(request: web.Request) -> web.Response:
    """POST /telegram/webhook: an update, from Telegram if it knows our secret."""
    updates = request.app[UPDATES]
    if not updates.is_from_telegram(request.headers.get("X-Telegram-Bot-Api-Secret-Token", "")):
        raise ApiError(403, "not_telegram", "This is for Telegram only.")
    try:
        update = json.loads(await request.clone(client_max_size=UPDATE_MAX_BYTES).read())
    except (
        *(RecursionError, ValueError),
        *(web.HTTPRequestEntityTooLarge, web.RequestPayloadError),
    ):
        # Any other answer than success and Telegram sends the same thing again for a day.
        log.warning("an update that cannot be read is passed over")
    else:
        await updates.take(update)
    return web.Response(headers={"Cache-Control": "no-store"})


def _webhook_problem(info: WebhookInfo, url: str | None) -> str:
    """Why no updates come by this webhook; empty if none is known."""
    if info.url != url:
        return "Telegram tells another program, or nobody; a restart of this one takes it back"
    if info.pending and info.failed_at > time.time() - 2 * WATCH_INTERVAL_S:
        return f"Telegram cannot reach it: {info.failure}"
    return ""


def webhook_url(public_url: str | None) -> str | None:
    """Where Telegram can call us: it insists on https."""
    if public_url is None or not public_url.startswith("https://"):
        return None
    return public_url + WEBHOOK_PATH


def make_updates(settings: Settings, api: BotApi, index: Index, hear: Hear) -> Updates:
    """The way of listening that fits the settings."""
    secrets = [tokens.webhook_secret(each, settings.bot_token) for each in settings.jwt_secrets]
    url = webhook_url(settings.public_url)
    return Updates(api, index, settings.channels, url, secrets, hear)
