"""Updates: Telegram tells of posts, messages and presses, by webhook or by long polling.

Where PUBLIC_URL is https Telegram calls us, which also wakes a sleeping free host; elsewhere we
ask. Updates bring a post into the index at once, and the `file_id` that opens a small file; what
they miss the catalogue finds, only later and without a `file_id`. The rest is for the bot.

Of several programs that ask for one bot's updates Telegram hears the youngest and ends the request
of the others (409). Those stand by: from time to time they look how many updates lie there, which
disturbs nobody, and ask again only when nobody takes them.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from aiohttp import web

from gallery import tokens
from gallery.bot_api import NO_ANSWER, BotApi, BotApiError, wait_politely
from gallery.errors import ApiError
from gallery.files import MALFORMED, MESSAGE_ID_MAX, clean_line
from gallery.index import Index
from gallery.messages import file_in
from gallery.settings import Settings

log = logging.getLogger(__name__)

WEBHOOK_PATH: Final = "/telegram/webhook"
POST_KINDS: Final = ("channel_post", "edited_channel_post")
KINDS: Final = ("message", "callback_query", *POST_KINDS)
UPDATE_MAX_BYTES: Final = 256 * 1024  # a caption of 4096 characters with all its entities, twice
POLL_TIMEOUT_S: Final = 50  # what Telegram cuts a longer one down to
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
LOOK_INTERVAL_S: Final = 20.0
IDLE_LOOKS: Final = 3  # in a row with updates that nobody takes: then it is for us to ask

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
        self._tasks: list[asyncio.Task[None]] = []
        self.way = ""  # how they come, in words

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

    async def _set_webhook(self) -> None:
        """Tell Telegram where we are, until it has understood; never again after that.

        Two instances of a deploy say the same. Of two deployments the one that started last has
        it: neither takes it back, or they would never come to rest.
        """
        self.way = "by webhook, which Telegram has not confirmed yet"
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
                await wait_politely(error, patience_s)
                patience_s = min(2 * patience_s, RETRY_MAX_S)
            else:
                log.info("Telegram tells of new posts by webhook")
                self.way = "by webhook"
                return

    # -- by long polling -------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Ask for updates for ever; stand by while somebody else does.

        The next request says that these have arrived. So it waits for nothing but the index: how
        long an answer takes is the bot's own affair, and another instance that takes over in the
        meantime is told none of them again.
        """
        offset = 0
        trouble = _Trouble()
        while True:
            self.way = "by long polling"
            try:
                updates = await self._updates_from(offset)
            except BotApiError as error:
                trouble.tell(error)
                if error.code == 409:
                    await self._stand_by()
                else:
                    await wait_politely(error, trouble.wait_s())
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

    async def _stand_by(self) -> None:
        """Wait until there is no webhook and updates lie there that nobody takes."""
        self.way = "not at all, because another program has them; it stands by"
        waiting, looks = 0, 0
        while looks < IDLE_LOOKS:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                pending = await self._pending()
            except BotApiError as error:
                await wait_politely(error, 0.0)
                continue
            looks = looks + 1 if pending and pending >= waiting else min(pending, 1)
            waiting = pending
        log.info("nobody takes this bot's updates any more: polling")

    async def _pending(self) -> int:
        """How many updates lie there, none if a webhook has them; raise BotApiError."""
        info = await self._api.call("getWebhookInfo")
        try:
            return 0 if info.get("url") else int(info["pending_update_count"])
        except MALFORMED:
            raise BotApiError(NO_ANSWER, "a webhook's description of another kind") from None

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

    def __init__(self) -> None:
        self._patience_s = RETRY_FIRST_S
        self._told: set[int] = set()

    def tell(self, error: BotApiError) -> None:
        if error.code not in self._told:
            self._told.add(error.code)
            log.warning("getUpdates: %d %s%s", error.code, error.description, _advice(error))

    def wait_s(self) -> float:
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
        " later, and the bot answers from there. If that program is gone, end its webhook:"
        " deleteWebhook)",
    }.get(error.code, "")


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


def make_updates(settings: Settings, api: BotApi, index: Index, hear: Hear) -> Updates:
    """The way of listening that fits the settings."""
    secrets = [tokens.webhook_secret(each, settings.bot_token) for each in settings.jwt_secrets]
    url = webhook_url(settings.public_url)
    return Updates(api, index, settings.channels, url, secrets, hear)
