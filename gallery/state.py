"""State: whether everything is set up well, found out when the owner asks and not before.

    GET /api/state  ->  {"workers": [...], "problems": [...]}

Workers are asked for their /health and shown a token that opens nothing, the Bot API is asked about
our bot; all side by side, each for a second or two at most, and what was found is good for some
seconds. Each problem is in the log once, and once more when it is over.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiohttp import web

from gallery import __version__
from gallery.bot_api import NO_ANSWER, BotApi, BotApiError
from gallery.database import MEMORY
from gallery.problem_kinds import Problem
from gallery.problems import BotFacts, Facts, WorkerFacts, mixed_content, problems_of
from gallery.settings import SETTINGS, Settings, is_loopback
from gallery.sign_in import is_https
from gallery.updates import Updates
from gallery.worker_client import WorkerClient
from gallery.workers import Look, address_of

log = logging.getLogger(__name__)

GOOD_FOR_S: Final = 3.0
BAD_FOR_S: Final = 1.0  # while a worker is not well somebody waits to see that it is
BOT_GOOD_FOR_S: Final = 60.0  # what the Bot API says, when nothing is wrong with it
ASK_TIMEOUT_S: Final = 2.0
ASKED_AT_ONCE_MAX: Final = 8
SILENCE_FORGOTTEN_S: Final = 120.0  # nobody asked for so long: it may well have slept meanwhile
NOT_THERE: Final = frozenset({"left", "kicked"})


class State:
    """Finds out how things are; those who ask together share one look."""

    def __init__(
        self,
        settings: Settings,
        client: WorkerClient,
        api: BotApi,
        updates: Updates,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._client = client
        self._api = api
        self._updates = updates
        self._clock = clock
        self._bot_id = int(settings.bot_token.partition(":")[0])
        self._gathering: asyncio.Task[Facts] | None = None  # the latest, done or not
        self._gatherings: set[asyncio.Task[Facts]] = set()
        self._origin = ""
        self._good_until = float("-inf")
        self._bot: tuple[BotFacts, float] | None = None
        self._silent: dict[str, tuple[float, float]] = {}  # by worker: since when, last asked when
        self._told: dict[tuple[str, str], Problem] = {}

    async def facts(self, origin: str) -> Facts:
        """What is the case now, or was a few seconds ago, for a page of this origin."""
        is_other = origin != self._origin
        if self._gathering is None or is_other or self._is_stale(self._gathering):
            self._origin = origin
            self._gathering = asyncio.create_task(self._gather(origin), name="state")
            self._gatherings.add(self._gathering)
            self._gathering.add_done_callback(self._gatherings.discard)
        return await asyncio.shield(self._gathering)

    def tell(self, problems: list[Problem]) -> None:
        """Put into the log what is new, and what is over."""
        current = {(problem.code, problem.about): problem for problem in problems}
        for key, problem in current.items():
            if key not in self._told:
                level = logging.INFO if problem.severity == "note" else logging.WARNING
                log.log(level, "%s: %s %s", problem.code, problem.message, problem.what_to_do)
        for key in self._told.keys() - current.keys():
            log.info("%s is over: %s", key[0], self._told[key].message)
        self._told = current

    async def close(self) -> None:
        for gathering in self._gatherings:
            gathering.cancel()
        await asyncio.gather(*self._gatherings, return_exceptions=True)

    def _is_stale(self, gathering: asyncio.Task[Facts]) -> bool:
        return gathering.done() and time.monotonic() >= self._good_until

    async def _gather(self, origin: str) -> Facts:
        settings = self._settings
        asked = (self._worker_facts(url, origin) for url in settings.worker_urls)
        bot, workers = await asyncio.gather(self._bot_facts(), asyncio.gather(*asked))
        is_well = all(worker.is_well for worker in workers)
        self._good_until = time.monotonic() + (GOOD_FOR_S if is_well else BAD_FOR_S)
        forgets = settings.database == MEMORY and not settings.on_render
        version, now = __version__, self._clock()
        return Facts(tuple(workers), bot, settings.channels, version, now, forgets)

    # -- workers ---------------------------------------------------------------------------------

    async def _worker_facts(self, url: str, origin: str) -> WorkerFacts:
        look, knows_us = await asyncio.gather(
            self._client.look(url, ASK_TIMEOUT_S, origin),
            self._client.knows_our_signature(url, ASK_TIMEOUT_S),
        )
        return WorkerFacts(url, look, self._silent_s(url, look), knows_us)

    def _silent_s(self, url: str, look: Look) -> float:
        """For how long it did not answer, as far as anybody asked."""
        if look.kind != "silent":
            self._silent.pop(url, None)
            return 0.0
        now = time.monotonic()
        since, last = self._silent.get(url, (now, now))
        since = now if now - last > SILENCE_FORGOTTEN_S else since
        self._silent[url] = (since, now)
        return now - since

    # -- the bot ---------------------------------------------------------------------------------

    async def _bot_facts(self) -> BotFacts:
        """What the Bot API says, kept for a minute while nothing is wrong with it."""
        if self._bot is None or time.monotonic() >= self._bot[1]:
            channels = dict.fromkeys(self._settings.channels)
            refusal, webhook, standing = await asyncio.gather(
                self._refusal(), self._webhook(), self._standings(channels)
            )
            is_well = refusal is None and set(standing.values()) <= {"administrator", "creator"}
            until = time.monotonic() + (BOT_GOOD_FOR_S if is_well else GOOD_FOR_S)
            self._bot = BotFacts(self._bot_id, refusal, None, standing, webhook), until
        known, _ = self._bot
        return BotFacts(
            known.bot_id,
            known.refusal,
            self._api.date,
            known.standing,
            known.webhook,
            self._updates.webhook_url,
            self._updates.webhook_refusal,
        )

    async def _refusal(self) -> tuple[int, str] | None:
        try:
            await self._api.call("getMe", timeout_s=ASK_TIMEOUT_S)
        except BotApiError as error:
            # A token of another form than Telegram's gets 404.
            is_token = error.code in (401, 404)
            return (401 if is_token else error.code), error.description
        return None

    async def _webhook(self) -> dict[str, Any] | None:
        try:
            info = await self._api.call("getWebhookInfo", timeout_s=ASK_TIMEOUT_S)
        except BotApiError:
            return None
        return info if isinstance(info, dict) else None

    async def _standings(self, channels: Iterable[int]) -> dict[int, str]:
        """What our bot is in each channel, of those that were answered for in time."""
        turn = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

        async def ask(chat_id: int) -> str | None:
            async with turn:
                return await self._standing(chat_id)

        asked = {chat_id: asyncio.create_task(ask(chat_id)) for chat_id in channels}
        try:
            done, _ = await asyncio.wait(asked.values(), timeout=ASK_TIMEOUT_S)
        finally:
            for task in asked.values():
                task.cancel()
        found = {chat_id: task.result() for chat_id, task in asked.items() if task in done}
        return {chat_id: each for chat_id, each in found.items() if each is not None}

    async def _standing(self, chat_id: int) -> str | None:
        """What our bot is in a channel; `unknown` where it is nothing, None if nobody says."""
        arguments = {"chat_id": chat_id, "user_id": self._bot_id}
        try:
            member = await self._api.call("getChatMember", timeout_s=ASK_TIMEOUT_S, **arguments)
            status = str(member["status"])
        except BotApiError as error:
            return None if error.code in (NO_ANSWER, 429) or error.code >= 500 else "unknown"
        except (LookupError, TypeError):
            return None
        return "unknown" if status in NOT_THERE else status


STATE: Final = web.AppKey("STATE", State)


async def show_state(request: web.Request) -> web.Response:
    """GET /api/state: the workers, and every problem with what to do about it, the worst first."""
    state = request.app[STATE]
    scheme = "https" if is_https(request) else "http"
    facts = await state.facts(f"{scheme}://{request.host}")
    problems = _mixed_content_problems(request) + problems_of(facts)
    state.tell(problems)
    body = {
        "workers": [_describe(worker) for worker in facts.workers],
        "problems": [
            {
                "code": problem.code,
                "severity": problem.severity,
                "message": problem.message,
                "what_to_do": problem.what_to_do,
            }
            for problem in problems
        ],
    }
    return web.json_response(body, headers={"Cache-Control": "no-store"})


def _mixed_content_problems(request: web.Request) -> list[Problem]:
    """A page by https loads nothing by http but from its own machine (Secure Contexts, 3.1)."""
    if not is_https(request):
        return []
    urls = request.app[SETTINGS].worker_urls
    parts = ((url, *address_of(url)[:2]) for url in urls)
    return [
        mixed_content(url)
        for url, scheme, host in parts
        if scheme == "http" and not is_loopback(host)
    ]


def _describe(worker: WorkerFacts) -> dict[str, object]:
    health = worker.look.health
    return {
        "url": worker.url,
        "state": worker.state,
        "version": health.version if health else None,
        "viewers": health.viewers if health else None,
        "viewers_max": health.viewers_max if health else None,
    }
