"""Catalogue: keeps the index up with the channels, by asking the workers.

Three ways to learn of a post, and each makes up for the others: the first reading of a channel's
whole history, which goes on where it stopped after a restart; a look at what is new whenever
somebody asks for a page; and every few hours a walk through all of it at a gentle pace, which finds
what was edited or deleted. (Telegram's own news of posts comes by way of `updates`.)

A free host puts a worker to sleep when nobody asks it for anything, and wakes it for whoever does.
So none of this happens without a visitor: whoever asks for a page or a file.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, Protocol

from aiohttp import web

from gallery.errors import ApiError, file_not_found, worker_unreachable
from gallery.files import MESSAGE_ID_MAX, MediaFile
from gallery.index import ChannelState, Index, Page, Query
from gallery.split_films import part_of
from gallery.worker_client import LISTING_LIMIT, Listing

log = logging.getLogger(__name__)

REFRESH_INTERVAL_S: Final = 3.0  # a film dropped into the channel shows up this soon
REFRESH_PATIENCE_S: Final = 10.0  # how long a request waits for the first look at the channels
REFRESH_GRACE_S: Final = 0.5  # and for a later one, when there is already something to show
RETRY_FIRST_S: Final = 5.0  # a channel that could not be read to its end is tried again
RETRY_MAX_S: Final = 300.0
PRESENT_S: Final = 300.0  # who asked for something so lately is taken to be still there
WALK_INTERVAL_S: Final = 6 * 3600.0
WALK_PAUSE_S: Final = 1.0  # 10,000 posts in two minutes, and viewers do not notice
WALK_FAILURES_MAX: Final = 5  # in a row; the rest of the walk is then left to the next one


class ListingSource(Protocol):
    """What the catalogue needs of the worker."""

    async def files_after(self, chat_id: int, after: int, limit: int = ...) -> Listing: ...


class Catalogue:
    """Answers from the index, and looks at the channels behind the answers' backs."""

    def __init__(
        self,
        channels: Iterable[int],
        source: ListingSource,
        index: Index,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.index = index
        self._channels = tuple(dict.fromkeys(channels))
        self._source = source
        self._clock = clock
        self._sleep = sleep
        self._visits = _Visits(clock)
        self._refresh: asyncio.Task[None] | None = None
        self._next_refresh = float("-inf")
        self._keepers: list[asyncio.Task[None]] = []
        self._problems: dict[int, ApiError] = {}  # why a channel's last reading could not finish
        self._walked: set[int] = set()  # channels that were read from their beginning since start

    def start(self) -> None:
        """For visitors: read what was not read yet, then walk through the channels now and then."""
        self._keepers = [
            asyncio.create_task(self._keep(chat_id), name=f"catalogue of {chat_id}")
            for chat_id in self._channels
        ]

    async def close(self) -> None:
        """End what is under way; what was recorded stays."""
        tasks = [*self._keepers, *([self._refresh] if self._refresh else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- asking ----------------------------------------------------------------------------------

    async def page(self, query: Query) -> Page:
        """One page of files; raise ApiError while there is nothing to show and a reason for it."""
        await self.keep_up()
        page = await self.index.page(query)
        if not page.total:
            states = await self.index.channels()
            if not any(state.files for state in states):
                self._explain_emptiness(states)
        return page

    async def find(self, chat_id: int, message_id: int) -> MediaFile:
        """The file of this post, known or asked for; raise ApiError if there is none."""
        if chat_id not in self._channels or message_id > MESSAGE_ID_MAX:
            raise file_not_found()
        self._visits.note()
        known = await self.index.find(chat_id, message_id)
        if known is not None:
            return known
        listing = await self._source.files_after(chat_id, message_id - 1, 1)
        for file in listing.files:
            if (file.chat_id, file.message_id) == (chat_id, message_id):
                await self.index.put(file)
                return await self._completed(file)
        raise file_not_found()

    async def _completed(self, file: MediaFile) -> MediaFile:
        """A file that the index learns of only now; of the first part of a split film that film."""
        name = part_of(file.name)
        if name is None or name.number > 1:
            return file
        chat_id, message_id, asked_at = file.chat_id, file.message_id, time.time()
        listing = await self._source.files_after(chat_id, message_id)
        files = [each for each in listing.files if each.chat_id == chat_id]
        through = max((each.message_id for each in files), default=message_id)
        await self.index.record(chat_id, message_id, through, files, asked_at)
        return await self.index.find(chat_id, message_id) or file

    async def state(self) -> dict[str, object]:
        """How far the index is, for the page."""
        states = await self.index.channels()
        is_reading = any(
            not state.is_complete and state.chat_id not in self._problems for state in states
        )
        return {
            "state": "reading" if is_reading else "ready",
            "files": sum(state.files for state in states),
            "messages_read": sum(state.read_to for state in states),
        }

    def _explain_emptiness(self, states: Iterable[ChannelState]) -> None:
        for problem in self._problems.values():
            raise problem
        if not any(state.read_to or state.is_complete for state in states):
            raise worker_unreachable()

    # -- what is new -----------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """For a visitor: refresh if it is time, and wait for it a while: it goes on behind the
        request's back."""
        self._visits.note()
        is_idle = self._refresh is None or self._refresh.done()
        if is_idle and self._clock() < self._next_refresh:
            return
        has_files = any(state.files for state in await self.index.channels())
        patience_s = REFRESH_GRACE_S if has_files else REFRESH_PATIENCE_S
        await asyncio.wait({self._refreshing()}, timeout=patience_s)

    def _refreshing(self) -> asyncio.Task[None]:
        """The look at the channels that is under way, or a new one."""
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._read_channels(), name="catalogue refresh")
        return self._refresh

    async def _read_channels(self) -> None:
        """Read all channels side by side; one that fails does not keep the others away."""
        states = await self.index.channels()
        results = await asyncio.gather(*map(self._read_on, states), return_exceptions=True)
        self._next_refresh = self._clock() + REFRESH_INTERVAL_S
        for state, error in zip(states, results, strict=True):
            self._problems.pop(state.chat_id, None)
            if isinstance(error, ApiError):
                self._problems[state.chat_id] = error
                log.warning("channel %d: %s: %s", state.chat_id, error.code, error.message)
            elif isinstance(error, BaseException):
                message = "Reading the channels failed here."
                self._problems[state.chat_id] = ApiError(500, "internal_error", message)
                log.error("channel %d: unexpected", state.chat_id, exc_info=error)

    async def _read_on(self, state: ChannelState) -> None:
        """Read on from the last id seen; what was read stays if a later request fails."""
        after: int | None = state.read_to
        while after is not None:
            after = await self._read_page(state.chat_id, after)
        if state.read_to == 0:
            self._walked.add(state.chat_id)

    async def _read_page(self, chat_id: int, after: int) -> int | None:
        """Record one listing. Where to go on; None at the end."""
        asked_at = time.time()
        listing = await self._source.files_after(chat_id, after)
        files = [file for file in listing.files if file.chat_id == chat_id]
        last = max((file.message_id for file in files), default=after)
        if listing.next is not None and listing.next <= after:
            raise ApiError(502, "bad_listing", "The worker's listing does not move on.")
        read_to = last if listing.next is None else max(last, listing.next)
        # A worker that lists to the end has looked at a page's worth of ids behind the last file.
        through = read_to + (LISTING_LIMIT if listing.next is None else 0)
        gone = await self.index.record(chat_id, after, through, files, asked_at)
        await self.index.advance(chat_id, read_to, is_complete=listing.next is None)
        if gone:
            log.info("channel %d: %d files are gone", chat_id, gone)
        return listing.next

    # -- what changed ----------------------------------------------------------------------------

    async def _keep(self, chat_id: int) -> None:
        """See to it that a channel is read to its end, then walk through it for ever.

        A walk without a visitor since the last one would find nothing that anybody waits for.
        """
        patience_s = RETRY_FIRST_S
        while not await self._is_complete(chat_id):
            await self._visits.after(self._clock() - PRESENT_S)
            await asyncio.wait({self._refreshing()})
            if not await self._is_complete(chat_id):
                await self._sleep(patience_s)
                patience_s = min(2 * patience_s, RETRY_MAX_S)
        walked_at = float("-inf")
        while True:
            await self._visits.after(walked_at)
            if chat_id not in self._walked:
                await self._walk(chat_id)
            self._walked.discard(chat_id)
            walked_at = self._clock()
            await self._sleep(WALK_INTERVAL_S)

    async def _is_complete(self, chat_id: int) -> bool:
        with suppress(ApiError):  # the database has logged it, and may be well the next time
            states = await self.index.channels()
            return any(state.chat_id == chat_id and state.is_complete for state in states)
        return False

    async def _walk(self, chat_id: int) -> None:
        """Look at the whole channel again, a page at a time, giving up when nobody answers."""
        after: int | None = 0
        failures = 0
        while after is not None and failures < WALK_FAILURES_MAX:
            wait_s = WALK_PAUSE_S
            try:
                after = await self._walk_page(chat_id, after)
                failures = 0
            except ApiError as error:
                failures += 1
                wait_s = max(WALK_PAUSE_S, error.retry_after_s or 0.0)
                log.warning("channel %d, walk: %s: %s", chat_id, error.code, error.message)
            await self._sleep(wait_s)

    async def _walk_page(self, chat_id: int, after: int) -> int | None:
        """Look at one page again; on from what we know beyond the end, if anything.

        A worker that is not told a channel's last id takes a long stretch of deleted posts for the
        end of it. So what is known beyond is asked for by itself before it is given up.
        """
        asked_at = time.time()
        following = await self._read_page(chat_id, after)
        if following is not None:
            return following
        known = await self.index.next_known(chat_id, after, asked_at)
        return None if known is None else known - 1


class _Visits:
    """When somebody was here last; who wants to can wait for the next one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest = float("-inf")
        self._arrival = asyncio.Event()

    def note(self) -> None:
        self._latest = self._clock()
        self._arrival.set()

    async def after(self, moment: float) -> None:
        """Return when there was a visit after this moment, at once if there was one already."""
        while self._latest <= moment:
            self._arrival.clear()
            await self._arrival.wait()


CATALOGUE: Final = web.AppKey("CATALOGUE", Catalogue)
