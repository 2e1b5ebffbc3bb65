"""Worker choice: finds the worker for a file, and looks first where there is a choice.

With one worker there is nothing to choose, and it is never asked. With several a signed URL should
not lead to one that is gone or full; so the file's own worker is looked at, at most every few
seconds and for a second at most, and the next in the file's order when it is not well.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

from gallery.files import MediaFile, told_urls
from gallery.worker_client import WorkerClient
from gallery.workers import AVOIDED_MAX, Look, Workers, key_of

LOOK_TIMEOUT_S: Final = 1.0
ADDRESS_MAX_CHARACTERS: Final = 300
ATTEMPT_MAX_DIGITS: Final = 6


@dataclass(frozen=True)
class Failures:
    """What a page says went wrong before it asks for another URL."""

    avoid: tuple[str, ...] = ()  # addresses of workers that failed it
    attempt: int = 0  # how often something failed that it cannot name

    @classmethod
    def from_query(cls, request: web.Request) -> Self:
        """`avoid=` (repeated) and `attempt=` of a request; what is no such thing is left out."""
        attempt = request.query.get("attempt", "0")
        return cls(
            tuple(
                address[:ADDRESS_MAX_CHARACTERS]
                for address in request.query.getall("avoid", [])[:AVOIDED_MAX]
            ),
            int(attempt[:ATTEMPT_MAX_DIGITS]) if attempt.isdecimal() else 0,
        )

    def __bool__(self) -> bool:
        return bool(self.avoid or self.attempt)


NO_FAILURES: Final = Failures()


class WorkerChoice:
    """Picks workers. What it learns by looking is in `Workers`, and serves all that ask later."""

    def __init__(self, workers: Workers, client: WorkerClient) -> None:
        self._workers = workers
        self._client = client
        self._looks: dict[str, asyncio.Task[Look]] = {}

    @property
    def has_choice(self) -> bool:
        """Whether a player that its worker fails has others to go to."""
        return self._workers.has_choice

    def known(self, file: MediaFile) -> str:
        """The worker of a file as far as is known: for pictures, which are not waited for."""
        return self._workers.pick(key_of(file))

    async def pick(self, file: MediaFile, failures: Failures = NO_FAILURES) -> str:
        """The worker that a player is sent to; not one that failed it, if there is another."""
        key = key_of(file)
        avoid = self._workers.named(failures.avoid)
        if self._workers.has_choice:
            for url in avoid:
                self._workers.suspect(url)
                self._look_if_due(url)  # for the others; whoever asks goes elsewhere anyway
            await self._find_well(url for url in self._workers.order(key) if url not in avoid)
        return self._workers.pick(key, avoid, failures.attempt)

    async def close(self) -> None:
        for look in self._looks.values():
            look.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)

    async def _find_well(self, candidates: Iterable[str]) -> None:
        """Go down the order until one is known to be well.

        One that was not well the last time is looked at too, but not waited for: when it is back
        the next one to ask finds it so.
        """
        for url in candidates:
            was_usable = self._workers.is_usable(url)
            look = self._look_if_due(url)
            if look is not None and was_usable:
                await asyncio.wait({look})
            if was_usable and self._workers.is_usable(url):
                return

    def _look_if_due(self, url: str) -> asyncio.Task[Look] | None:
        """The look at this worker that is under way, or a new one if it is time for it."""
        look = self._looks.get(url)
        if look is None and self._workers.is_due(url):
            look = asyncio.create_task(self._client.look(url, LOOK_TIMEOUT_S), name=f"look {url}")
            self._looks[url] = look
            look.add_done_callback(lambda _: self._looks.pop(url))
        return look


def for_our_page(url: str, choice: WorkerChoice) -> str:
    """A worker's URL for a page that goes elsewhere when it fails.

    Such a page is better told of trouble at once than held. Other players would stop at an error.
    """
    return f"{url}&hold=0" if choice.has_choice else url


def told_to_our_page(
    worker_url: str, file: MediaFile, token: str, choice: WorkerChoice
) -> dict[str, str | None]:
    """The URLs of `told_urls` for such a page."""
    urls = told_urls(worker_url, file, token)
    return {name: url and for_our_page(url, choice) for name, url in urls.items()}


WORKER_CHOICE: Final = web.AppKey("WORKER_CHOICE", WorkerChoice)
