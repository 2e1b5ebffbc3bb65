"""Bot status: how the gallery and its workers are, in words."""

import asyncio
from collections.abc import Iterator
from html import escape
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout

from gallery import __version__
from gallery.answers import read_json
from gallery.bot_words import length_words
from gallery.catalogue import Catalogue
from gallery.files import MALFORMED, clean_line
from gallery.workers import BotHealth, Health

HEALTH_TIMEOUT: Final = ClientTimeout(total=10, sock_connect=5)
WORKERS_MAX: Final = 10
BOTS_MAX: Final = 10
REASON_MAX: Final = 120
ASLEEP: Final = "does not answer. A free host may be asleep; this has called it."
STATES: Final = {
    "connected": "is connected",
    "logging in": "logs in",
    "not connected": "is not connected",
}


class Status:
    """Asks the workers how they are."""

    def __init__(
        self, session: ClientSession, worker_urls: tuple[str, ...], catalogue: Catalogue
    ) -> None:
        self._session = session
        self._worker_urls = worker_urls
        self._catalogue = catalogue

    async def words(self, way: str) -> str:
        """All of it; `way` is how updates come. Raise ApiError when the index fails."""
        workers = self._worker_urls[:WORKERS_MAX]
        told = await asyncio.gather(*map(self._worker, workers))
        lines = [await self._gallery(), *told, f"Telegram's news come {escape(way)}."]
        if left := len(self._worker_urls) - len(workers):
            lines.insert(-1, f"And {left} more workers.")
        return "\n\n".join(lines)

    async def _gallery(self) -> str:
        states = await self._catalogue.index.channels()
        files = sum(state.files for state in states)
        is_reading = (await self._catalogue.state())["state"] == "reading"
        count = f"{files:,} file{'s' * (files != 1)}"
        place = f"{len(states)} channel{'s' * (len(states) != 1)}"
        more = ", and reads on" if is_reading else ""
        return f"<b>Gallery</b> (version {__version__}): knows {count} in {place}{more}."

    async def _worker(self, url: str) -> str:
        name = f"<b>Worker {escape(urlsplit(url).netloc)}</b>"
        try:
            async with self._session.get(
                f"{url}/health", timeout=HEALTH_TIMEOUT, allow_redirects=False
            ) as response:
                if response.status != 200:
                    return f"{name} {ASLEEP}"
                health = await read_json(response)
        except (ClientError, OSError, TimeoutError, ValueError):
            return f"{name} {ASLEEP}"
        try:
            return f"{name}: " + " ".join(_health_words(Health.from_answer(health)))
        except MALFORMED:
            return f"{name} answers, but not as a worker of this version does."


def _health_words(health: Health) -> Iterator[str]:
    viewers = health.viewers
    most = "" if health.viewers_max is None else f" of at most {health.viewers_max}"
    yield f"{viewers} viewer{'s' * (viewers != 1)}{most}."
    for bot in health.bots[:BOTS_MAX]:
        yield f"Bot {bot.id} {_state_words(bot)}."
        if blind := len(bot.blind_to):
            yield f"It cannot see {blind} of the channels: is it an administrator there?"
    if behind_s := int(health.clock_behind_s):
        yield f"Its clock is {length_words(abs(behind_s))} {'slow' if behind_s > 0 else 'fast'}."


def _state_words(bot: BotHealth) -> str:
    if bot.state == "flood wait":
        return f"rests for {length_words(bot.wait_s)}, because Telegram says so"
    if bot.state == "refused":
        return f"is refused by Telegram: {escape(bot.message[:REASON_MAX])}"
    known = STATES.get(bot.state)
    return known or f"is in a state of another version: {escape(clean_line(bot.state))}"
