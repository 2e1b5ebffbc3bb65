"""Polling: asks Telegram for a bot's updates, as long as nobody else does.

Of several programs that ask for one bot's updates Telegram hears the youngest and ends the request
of the others (409). Those stand by: from time to time they look how many updates lie there, which
disturbs nobody, and ask again only when nobody takes them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from gallery.bot_api import NO_ANSWER, BotApi, BotApiError, wait_politely
from gallery.errors import ApiError
from gallery.files import MALFORMED, clean_line

log = logging.getLogger(__name__)

KINDS: Final = ("message", "callback_query", "channel_post", "edited_channel_post")
POLL_TIMEOUT_S: Final = 50  # what Telegram cuts a longer one down to
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
LOOK_INTERVAL_S: Final = 20.0
IDLE_LOOKS: Final = 3  # in a row with updates that nobody takes: then it is for us to ask

Take = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class WebhookInfo:
    """Where Telegram pushes updates to, how many wait, and when and how that failed last."""

    url: str
    pending: int
    failed_at: int
    failure: str


async def webhook_info(api: BotApi) -> WebhookInfo:
    """What Telegram says of the webhook and of what waits; raise BotApiError."""
    info = await api.call("getWebhookInfo")
    try:
        return WebhookInfo(
            url=str(info["url"]),
            pending=int(info["pending_update_count"]),
            failed_at=int(info.get("last_error_date", 0)),
            failure=clean_line(info.get("last_error_message")),
        )
    except MALFORMED:
        raise BotApiError(NO_ANSWER, "a webhook's description of another kind") from None


class Polling:
    """Hands every update to `take`, in order; what that raises as ApiError is lost."""

    def __init__(self, api: BotApi, take: Take) -> None:
        self._api = api
        self._take = take
        self.stands_by = False

    async def run(self) -> None:
        """Ask for updates for ever; stand by while somebody else does.

        The next request says that these have arrived. So it waits for nothing but the index: how
        long an answer takes is the bot's own affair, and another instance that takes over in the
        meantime is told none of them again.
        """
        offset = 0
        trouble = _Trouble()
        while True:
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
                    await self._take(update)
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
        self.stands_by = True
        waiting, looks = 0, 0
        while looks < IDLE_LOOKS:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                info = await webhook_info(self._api)
            except BotApiError as error:
                await wait_politely(error, 0.0)
                continue
            pending = 0 if info.url else info.pending
            looks = looks + 1 if pending and pending >= waiting else min(pending, 1)
            waiting = pending
        self.stands_by = False
        log.info("nobody takes this bot's updates any more: polling")


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
        self._told.clear()


def _advice(error: BotApiError) -> str:
    return {
        401: " (is BOT_TOKEN right?)",
        409: " (another program has this bot's updates; new posts are found without them, only"
        " later, and the bot answers from there. If that program is gone, end its webhook:"
        " deleteWebhook)",
    }.get(error.code, "")
