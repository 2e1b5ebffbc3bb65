"""Playlists: many films at once for other programs, each by a share link that does not end.

    GET /playlist.m3u?query=&kind=&channel=&sort=    for VLC, Kodi and their like
    GET /export.zip?channel=                         `.strm` and `.nfo` files for Jellyfin and Kodi

All links of one of them have the same id: it is one line in the owner's list of links, and ends as
a whole when that is revoked. Made again it has the same links, after a revocation others.
"""

import time
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from aiohttp import web

from gallery.api import read_query
from gallery.catalogue import CATALOGUE
from gallery.files import NAME_MAX_CHARACTERS, MediaFile
from gallery.index import Query
from gallery.long_answers import XML_HEAD, send_long, xml_text
from gallery.presentation import title_of
from gallery.related import Entry, entries, folders, pages
from gallery.safe_names import numbered, path_key, safe_name, split_extension
from gallery.settings import SETTINGS
from gallery.share_store import SHARES
from gallery.shares import Links, Share, lasting_ids, write_share
from gallery.sign_in import for_programs, refuse_other_sites
from gallery.visitors import base_url

ENTRIES_MAX: Final = 20_000
ZIP_DATE_MAX: Final = 4_000_000_000  # its dates end in 2107


class _Shared:
    """The links of one playlist or export."""

    def __init__(self, request: web.Request, share_id: str, name: str) -> None:
        self._store = request.app[SHARES]
        self._secret = request.app[SETTINGS].jwt_secret
        self._base = base_url(request)
        self._id = share_id
        self._name = name
        self._is_listed = False

    async def link(self, file: MediaFile) -> str:
        share = Share(self._id, file.chat_id, file.message_id, None)
        if not self._is_listed:
            await self._store.add(share, self._name, time.time())
            self._is_listed = True
        return Links(self._base, write_share(self._secret, share)).url


async def _shared(request: web.Request, kind: str, what: str, query: Query) -> _Shared:
    purpose = f"{kind}\0{query.chat_id}\0{query.kind}\0{query.text.strip()}"
    ids = lasting_ids(request.app[SETTINGS].jwt_secret, purpose)
    share_id = await request.app[SHARES].first_good(ids)
    return _Shared(request, share_id, f"{kind}: {what}"[:NAME_MAX_CHARACTERS])


async def _what(request: web.Request, query: Query) -> str:
    """What a query finds, for people."""
    states = await request.app[CATALOGUE].index.channels()
    titles = [state.title for state in states if state.chat_id == query.chat_id]
    return ", ".join([*titles, *filter(None, [query.text.strip()])]) or "all channels"


# -- M3U -----------------------------------------------------------------------------------------


@for_programs
async def make_playlist(request: web.Request) -> web.StreamResponse:
    """GET /playlist.m3u?query=&kind=&channel=&sort="""
    refuse_other_sites(request)
    catalogue = request.app[CATALOGUE]
    query = replace(read_query(request), cursor=None)
    await catalogue.keep_up()
    what = await _what(request, query)
    shared = await _shared(request, "Playlist", what, query)

    async def body() -> AsyncIterator[bytes]:
        count = 0
        yield b"#EXTM3U\n"
        async for files in pages(catalogue.index, query):
            played = [file for file in files if file.kind in ("video", "audio")]
            for file in played[: ENTRIES_MAX - count]:
                yield (await _line(shared, file)).encode()
            count += len(played)
            if count >= ENTRIES_MAX:
                return

    return await send_long(request, _download("audio/x-mpegurl", what, "m3u"), body())


async def _line(shared: _Shared, file: MediaFile) -> str:
    length_s = round(file.duration) if file.duration else -1
    return f"#EXTINF:{length_s},{title_of(file)}\n{await shared.link(file)}\n"


def _download(content_type: str, name: str, extension: str) -> web.StreamResponse:
    file_name = quote(f"{safe_name(name)}.{extension}", safe="")
    return web.StreamResponse(
        headers={
            "Content-Type": f"{content_type}; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{extension}.{extension}";'
            f" filename*=UTF-8''{file_name}",
            "Cache-Control": "no-store",
        }
    )


# -- .strm and .nfo ------------------------------------------------------------------------------


@for_programs
async def make_export(request: web.Request) -> web.StreamResponse:
    """GET /export.zip?channel=: the films of a channel or all, each in a folder of its own."""
    refuse_other_sites(request)
    catalogue = request.app[CATALOGUE]
    query = Query(chat_id=read_query(request).chat_id)
    await catalogue.keep_up()
    what = await _what(request, query)
    shared = await _shared(request, "Export", what, query)

    async def films() -> AsyncIterator[tuple[str, Entry]]:
        for folder in await folders(catalogue.index):
            if query.chat_id in (None, folder.channel.chat_id):
                async for batch in entries(catalogue.index, folder.channel.chat_id):
                    for entry in batch:
                        if entry.file.kind == "video":
                            yield folder.name, entry

    response = _download("application/zip", what, "zip")
    response.headers["Content-Type"] = "application/zip"
    return await send_long(request, response, _zipped(shared, films()))


class _Outlet:
    """Where a ZipFile writes to, which is taken from it as it goes."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, piece: bytes) -> int:
        self._written += piece
        return len(piece)

    def flush(self) -> None:
        """There is nothing behind it."""

    def close(self) -> None:
        """Nor anything to let go of."""

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


async def _zipped(shared: _Shared, films: AsyncIterator[tuple[str, Entry]]) -> AsyncIterator[bytes]:
    outlet = _Outlet()
    taken: set[str] = set()
    with zipfile.ZipFile(outlet, mode="w") as archive:
        async for folder_name, entry in films:
            place = _place(folder_name, entry, taken)
            date = time.gmtime(min(max(entry.file.date, 315_532_800), ZIP_DATE_MAX))[:6]
            for extension, text in (
                ("strm", f"{await shared.link(entry.file)}\n"),
                ("nfo", describe_film(entry.file)),
            ):
                archive.writestr(zipfile.ZipInfo(f"{place}.{extension}", date), text)
            yield outlet.take()
            if len(taken) >= ENTRIES_MAX:
                break
    yield outlet.take()


def _place(folder_name: str, entry: Entry, taken: set[str]) -> str:
    """`Films/Film (2019)/Film (2019)`, another one for each film."""
    stem = split_extension(entry.name)[0]
    if path_key(f"{folder_name}/{stem}") in taken:
        stem = numbered(stem, entry.file.message_id)
    taken.add(path_key(f"{folder_name}/{stem}"))
    return f"{folder_name}/{stem}/{stem}"


def describe_film(file: MediaFile) -> str:
    """A film as Kodi and Jellyfin read of it (https://kodi.wiki/view/NFO_files/Movies)."""
    added = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(min(file.date, ZIP_DATE_MAX)))
    facts = {
        "title": title_of(file),
        "plot": file.caption.strip(),
        "runtime": str(round(file.duration / 60)) if file.duration else "",
        "dateadded": added,
    }
    told = "".join(f"  <{name}>{xml_text(text)}</{name}>\n" for name, text in facts.items() if text)
    return f"{XML_HEAD}<movie>\n{told}</movie>\n"


PROGRAM_HANDLERS: Final = frozenset({make_playlist, make_export})


def playlist_routes() -> list[web.RouteDef]:
    return [web.get("/playlist.m3u", make_playlist), web.get("/export.zip", make_export)]
