"""Bot links: finds the files that people mean, and makes and ends the links to them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gallery.bot_words import Film, links_html
from gallery.catalogue import Catalogue
from gallery.errors import ApiError
from gallery.files import MediaFile, blank_file
from gallery.messages import Message, Place, Told, file_as_if_in, file_in, origin_of
from gallery.presentation import title_of
from gallery.settings import Settings
from gallery.share_store import ShareStore
from gallery.shares import Links, new_share, read_share, write_share
from gallery.tokens import read_with_any

FIND_PATIENCE_S: Final = 3.0  # an answer must come while the worker that knows more still wakes up
LOCAL_NOTE: Final = (
    "\n\nThis opens on the gallery's own machine only, as long as its PUBLIC_URL is not set."
)


class FilmLinks:
    """Films of the gallery's channels, and links to them."""

    def __init__(self, settings: Settings, catalogue: Catalogue, shares: ShareStore) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._shares = shares

    def html(self, films: Sequence[Film]) -> str:
        """An answer with these links, and what is to be said of all our links."""
        return links_html(films, time.time()) + self.note

    @property
    def note(self) -> str:
        """What whoever gets a link must know."""
        return "" if self._settings.public_url else LOCAL_NOTE

    # -- finding ---------------------------------------------------------------------------------

    async def meant_by(self, message: Message) -> MediaFile | None:
        """The file in a channel of ours that this message is a copy of, if it is one of any."""
        found = origin_of(message)
        if found is not None:
            place, posted_at = found
            if place.channel in self._settings.channels:
                told = file_as_if_in(message, int(place.channel), place.message_id, posted_at)
                file = await self.find(place, told)
                if file is not None:
                    return file
        told = file_in(message)
        same = None if told is None else await self._catalogue.index.find_same(told[1])
        return None if same is None else await self._catalogue.index.whole(same)

    async def find(self, place: Place, told: Told | None = None) -> MediaFile | None:
        """The file of this post; None if there is none, or the channel is not one of ours.

        `told` is what the post's file was when somebody sent it to us: if no worker answers now
        that has to do, and it may say how the Bot API opens the file.
        """
        chat_id = int(place.channel)
        if chat_id not in self._settings.channels:
            return None
        try:
            async with asyncio.timeout(FIND_PATIENCE_S):
                found = await self._catalogue.find(chat_id, place.message_id)
                file = await self._catalogue.index.whole(found)
        except (ApiError, TimeoutError) as problem:
            if isinstance(problem, ApiError) and problem.status == 404:
                return None
            if told is None:
                return blank_file(chat_id, place.message_id)
            file = told[0]
            await self._catalogue.index.put(file)
        if told is not None:
            await self._catalogue.index.note_bot_file(*told)
        return file

    async def remember(self, told: Told) -> MediaFile:
        """A file that is in a channel from now on: we have put it there."""
        await self._catalogue.index.put(*told)
        return told[0]

    # -- making and ending -----------------------------------------------------------------------

    async def link(self, file: MediaFile, lifetime_s: int | None) -> Film:
        """A new link to this file; raise ApiError when there are too many."""
        now = time.time()
        share = new_share(file.chat_id, file.message_id, lifetime_s, now)
        await self._shares.add(share, title_of(file), now)
        text = write_share(self._settings.jwt_secret, share)
        return Film(file, share, Links(own_url(self._settings), text), has_ended=False)

    async def read(self, text: str) -> Film | None:
        """What a button says of a link; None if that was never one of ours."""
        share = read_with_any(self._settings.jwt_secrets, lambda secret: read_share(secret, text))
        if share is None:
            return None
        file = await self.find(Place(share.chat_id, share.message_id))
        has_ended = file is None or share.has_ended(time.time())
        return Film(
            file or blank_file(share.chat_id, share.message_id),
            share,
            Links(own_url(self._settings), text),
            has_ended or await self._shares.is_revoked(share.id),
        )

    async def revoke(self, film: Film) -> Film:
        """End a link for good."""
        await self._shares.revoke(film.share.id, time.time())
        return replace(film, has_ended=True)


def own_url(settings: Settings) -> str:
    """Where the gallery is, as far as it knows: without PUBLIC_URL on its own machine only."""
    return settings.public_url or f"http://localhost:{settings.port}"
