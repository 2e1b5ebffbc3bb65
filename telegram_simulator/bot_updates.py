"""How one bot hears of new posts: a queue that is either polled or pushed to a webhook.

Source: core.telegram.org/bots/api, section «Getting updates»; the texts of the errors are those
that Telegram's server (github.com/tdlib/telegram-bot-api) gives.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp

from .world import Json

log = logging.getLogger(__name__)

PENDING_MAX = 100_000
"""Telegram drops updates after 24 hours; here the oldest go when this many wait."""
ANSWER_MAX = 100
POLL_TIMEOUT_MAX_S = 50.0
"""What Telegram's server cuts a longer `timeout` down to."""
HOOK_TIMEOUT_S = 60.0
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0


class ApiError(Exception):
    """A refusal in Telegram's form; `code` is the HTTP status and the error_code in the body."""

    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where updates are pushed to. An empty secret token means that none is sent."""

    url: str
    secret_token: str = ""
    max_connections: int = 40


class UpdateQueue:
    """The updates of one bot that nobody has confirmed yet, in order."""

    def __init__(self, *, retry_first_s: float = RETRY_FIRST_S) -> None:
        self.webhook: Webhook | None = None
        self.allowed: Collection[str] = ()
        self.last_error: tuple[int, str] | None = None
        self._retry_first_s = retry_first_s
        self._pending: deque[Json] = deque(maxlen=PENDING_MAX)
        # Telegram's counters start at a random number; a client must not rely on 1.
        self._next_id = itertools.count(secrets.randbelow(1 << 29) + 1)
        self._arrived = asyncio.Event()
        self._poll: asyncio.Future[ApiError] | None = None
        self._pusher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, kind: str, body: Json) -> None:
        """Queue an update, unless the bot said that it does not want this kind."""
        if not self.allowed or kind in self.allowed:
            self._pending.append({"update_id": next(self._next_id), kind: body})
            self._arrived.set()

    def drop(self) -> None:
        self._pending.clear()

    # -- polled --------------------------------------------------------------------------------

    async def poll(self, offset: int, limit: int, timeout_s: float) -> list[Json]:
        """getUpdates: what waits, or the first thing that comes within the time. Raises ApiError.

        A positive offset confirms everything below it; a negative one forgets all but the last.
        """
        if self.webhook is not None:
            raise ApiError(
                409,
                "Conflict: can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first",
            )
        self._end_poll(
            "Conflict: terminated by other getUpdates request; "
            "make sure that only one bot instance is running"
        )
        self._confirm(offset)
        if not self._pending and timeout_s > 0:
            await self._wait(min(timeout_s, POLL_TIMEOUT_MAX_S))
        return list(itertools.islice(self._pending, max(1, min(limit, ANSWER_MAX))))

    def _confirm(self, offset: int) -> None:
        if offset < 0:
            while len(self._pending) > -offset:
                self._pending.popleft()
        while self._pending and self._pending[0]["update_id"] < offset:
            self._pending.popleft()

    async def _wait(self, timeout_s: float) -> None:
        ended: asyncio.Future[ApiError] = asyncio.get_running_loop().create_future()
        self._poll = ended
        self._arrived.clear()
        arrival = asyncio.create_task(self._arrived.wait())
        either: set[asyncio.Future[Any]] = {ended, arrival}
        try:
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()
            if self._poll is ended:
                self._poll = None
        if ended.done():
            raise ended.result()

    def _end_poll(self, description: str) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(ApiError(409, description))
            self._poll = None

    # -- pushed --------------------------------------------------------------------------------

    def set_webhook(
        self,
        webhook: Webhook | None,
        push: Callable[[Webhook, Json], Coroutine[None, None, str | None]],
    ) -> None:
        """Push to this hook from now on, or to none. `push` answers what went wrong, or None."""
        self._end_poll("Conflict: terminated by setWebhook request")
        if self._pusher is not None:
            self._pusher.cancel()
            self._pusher = None
        self.webhook, self.last_error = webhook, None
        if webhook is not None:
            self._pusher = asyncio.create_task(self._push_all(webhook, push))

    async def _push_all(
        self,
        webhook: Webhook,
        push: Callable[[Webhook, Json], Coroutine[None, None, str | None]],
    ) -> None:
        """Push one update after another for ever; a failure is tried again, later each time."""
        retry_s = self._retry_first_s
        while True:
            while not self._pending:
                self._arrived.clear()
                await self._arrived.wait()
            update = self._pending[0]
            problem = await push(webhook, update)
            if problem is None:
                retry_s = self._retry_first_s
                # drop() may have emptied the queue while the hook was thinking.
                if self._pending and self._pending[0] is update:
                    self._pending.popleft()
                continue
            self.last_error = (int(time.time()), problem)
            log.warning("a webhook failed, next try in %.1f s: %s", retry_s, problem)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_MAX_S)

    async def close(self) -> None:
        self._end_poll("Conflict: terminated by the end of the server")
        if self._pusher is not None:
            self._pusher.cancel()
            await asyncio.gather(self._pusher, return_exceptions=True)
            self._pusher = None


async def push_update(http: aiohttp.ClientSession, webhook: Webhook, update: Json) -> str | None:
    """POST one update to its hook; what went wrong, in Telegram's words, or None."""
    headers = {}
    if webhook.secret_token:
        headers["X-Telegram-Bot-Api-Secret-Token"] = webhook.secret_token
    timeout = aiohttp.ClientTimeout(total=HOOK_TIMEOUT_S)
    try:
        async with http.post(
            webhook.url, json=update, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status // 100 == 2:
                return None
            return f"Wrong response from the webhook: {answer.status} {answer.reason}"
    except TimeoutError:
        return "Read timeout expired"
    except aiohttp.ClientConnectorError:
        return "Connection refused"
    except aiohttp.ClientError as error:
        return f"Connection failed: {type(error).__name__}"
