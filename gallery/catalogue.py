"""Catalogue: the files of all channels in memory, newest first."""

import asyncio
import logging
import math
import time
from bisect import bisect_left, insort
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from gallery.errors import ApiError, file_not_found, worker_unreachable
from gallery.files import MediaFile, SortKey, fold
from gallery.worker_client import Listing

log = logging.getLogger(__name__)


FILES_MAX: Final = 50_000  # about 1 KiB each
REFRESH_INTERVAL_S: Final = 3.0  # a film dropped into the channel shows up this soon
REFRESH_PATIENCE_S: Final = 10.0  # how long a request waits for the first look at the channels
REFRESH_GRACE_S: Final = 0.5  # and for a later one, when there is already something to show
PAGE_FILES: Final = 60
QUERY_MAX_CHARACTERS: Final = 200


class ListingSource(Protocol):
    """What the catalogue needs of the worker."""

    async def files_after(self, chat_id: int, after: int, limit: int = ...) -> Listing: ...


@dataclass(frozen=True)
class Page:
    """Some files, newest first, and the cursor of those that follow (None at the end)."""

    files: tuple[MediaFile, ...]
    next: str | None


class Catalogue:
    """Keeps up with the channels on demand, one refresh at a time and not more often than needed.

    It sees what is posted; what was edited or deleted afterwards it learns by starting anew.
    """

    def __init__(self, channels: Iterable[int], source: ListingSource) -> None:
        self._source = source
        self._after = dict.fromkeys(channels, 0)  # the last message id seen, per channel
        self._files: dict[tuple[int, int], tuple[MediaFile, str]] = {}
        self._order: list[SortKey] = []  # ascending, so that new posts are appended
        self._refresh: asyncio.Task[None] | None = None
        self._next_refresh = -math.inf
        self.problem: ApiError | None = None  # why the last refresh could not finish

    @property
    def is_reading(self) -> bool:
        """Whether a look at the channels is under way."""
        return self._refresh is not None and not self._refresh.done()

    async def page(self, query: str, kind: str | None, cursor: str | None) -> Page:
        """The files with every word of the query; raise ApiError while there is nothing to show."""
        position = None if cursor is None else _parse_cursor(cursor)
        await self._keep_up()
        if not self._files and self.problem:
            raise self.problem
        if not self._files and self.is_reading:
            raise worker_unreachable()
        return self._select(fold(query[:QUERY_MAX_CHARACTERS]).split(), kind, position)

    async def find(self, chat_id: int, message_id: int) -> MediaFile:
        """The file of this post, from memory or asked for; raise ApiError if there is none."""
        if chat_id not in self._after:
            raise file_not_found()
        if (chat_id, message_id) not in self._files:
            listing = await self._source.files_after(chat_id, message_id - 1, 1)
            self._add(file for file in listing.files if file.message_id == message_id)
        try:
            return self._files[chat_id, message_id][0]
        except KeyError:
            raise file_not_found() from None

    def start_refresh(self) -> None:
        """Begin to look at the channels, unless that is under way."""
        if not self.is_reading:
            self._refresh = asyncio.create_task(self._read_channels(), name="catalogue refresh")

    async def close(self) -> None:
        """End the refresh under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            with suppress(asyncio.CancelledError):
                await self._refresh

    async def _keep_up(self) -> None:
        """Refresh if it is time, and wait for it a while: it goes on behind the request's back."""
        if not self.is_reading and time.monotonic() < self._next_refresh:
            return
        patience_s = REFRESH_GRACE_S if self._files else REFRESH_PATIENCE_S
        self.start_refresh()
        if self._refresh is not None:
            await asyncio.wait({self._refresh}, timeout=patience_s)

    async def _read_channels(self) -> None:
        """Read all channels side by side; one that fails does not keep the others away."""
        results = await asyncio.gather(
            *map(self._read_channel, self._after), return_exceptions=True
        )
        self._next_refresh = time.monotonic() + REFRESH_INTERVAL_S
        self.problem = None
        for error in results:
            if isinstance(error, ApiError):
                self.problem = error
                log.warning("catalogue: %s: %s", error.code, error.message)
            elif isinstance(error, BaseException):
                self.problem = ApiError(500, "internal_error", "Reading the channels failed here.")
                log.error("catalogue: unexpected", exc_info=error)

    async def _read_channel(self, chat_id: int) -> None:
        """Read on from the last id seen; what was read stays if a later request fails."""
        following: int | None = self._after[chat_id]
        while following is not None:
            listing = await self._source.files_after(chat_id, following)
            self._add(file for file in listing.files if file.chat_id == chat_id)
            last = max((file.message_id for file in listing.files), default=following)
            if listing.next is not None and listing.next <= following:
                raise ApiError(502, "bad_listing", "The worker's listing does not move on.")
            following = listing.next
            self._after[chat_id] = max(last, following or 0)

    def _add(self, files: Iterable[MediaFile]) -> None:
        for file in files:
            identity = (file.chat_id, file.message_id)
            if identity not in self._files:
                insort(self._order, file.sort_key)
            self._files[identity] = (file, file.search_text)
        for _, message_id, chat_id in self._order[: -FILES_MAX or None]:
            del self._files[chat_id, message_id]
        del self._order[:-FILES_MAX]

    def _select(self, words: list[str], kind: str | None, position: SortKey | None) -> Page:
        end = len(self._order) if position is None else bisect_left(self._order, position)
        found: list[MediaFile] = []
        for index in range(end - 1, -1, -1):
            _, message_id, chat_id = self._order[index]
            file, text = self._files[chat_id, message_id]
            if (kind is None or file.kind == kind) and all(word in text for word in words):
                if len(found) == PAGE_FILES:
                    return Page(tuple(found), _format_cursor(found[-1].sort_key))
                found.append(file)
        return Page(tuple(found), None)


def _format_cursor(key: SortKey) -> str:
    return ".".join(map(str, key))


def _parse_cursor(cursor: str) -> SortKey:
    try:
        date, message_id, chat_id = map(int, cursor.split("."))
    except ValueError:
        raise ApiError(400, "bad_cursor", "The cursor is not one of ours.") from None
    return (date, message_id, chat_id)


CATALOGUE: Final = web.AppKey("CATALOGUE", Catalogue)
