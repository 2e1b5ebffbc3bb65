"""WebDAV: the channels as folders that programs mount (RFC 4918), for reading only.

    /dav/                  a folder for each channel
    /dav/Films/Film.mkv    GET leads on to a worker (307), or has the bytes of a small file

PROPFIND tells everything that there is to tell, whatever its body asks for, of a thing (`Depth: 0`)
and of what is right in it (`Depth: 1`). A folder that was not read to its end yet is refused rather
than shown half full: programs that keep two places alike would delete what they do not see.
"""

import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Final, TypeVar
from urllib.parse import quote

from aiohttp import web

from gallery import tokens
from gallery.catalogue import CATALOGUE
from gallery.errors import RETRY_AFTER_S, ApiError, file_not_found
from gallery.files import MediaFile
from gallery.http_file import file_headers
from gallery.index import Index
from gallery.long_answers import XML_HEAD, send_long, xml_text
from gallery.related import Entry, Folder, entries, entry_named, folders
from gallery.safe_names import path_key
from gallery.sign_in import for_programs, refuse_other_sites
from gallery.small_files import Leave, send_file

ALLOWED: Final = ("GET", "HEAD", "OPTIONS", "PROPFIND")
ROOT: Final = "/dav/"
DATE_MAX: Final = 253_402_300_799  # the last second of the year 9999

_MULTISTATUS: Final = f'{XML_HEAD}<D:multistatus xmlns:D="DAV:">\n'.encode()
_FOLDER: Final = "<D:resourcetype><D:collection/></D:resourcetype>"


@for_programs
async def serve_dav(request: web.Request) -> web.StreamResponse:
    """/dav/{channel}/{file}"""
    if request.method == "OPTIONS":
        headers = {"Allow": ", ".join(ALLOWED), "DAV": "1", "MS-Author-Via": "DAV"}
        return web.Response(headers=headers | {"Cache-Control": "no-store"})
    depth = request.headers.get("Depth", "infinity")
    if request.method == "PROPFIND":
        refuse_other_sites(request)
        if depth not in ("0", "1"):
            raise ApiError(403, "bad_depth", "Depth is 0 or 1.")
    names = read_path(request.match_info.get("path", ""))
    if len(names) == 2:
        entry = await _entry(request, *names)
        if request.method == "PROPFIND":
            return await _tell(request, _one(_of_file(_folder_path(names[0]), entry)))
        return await _send(request, entry.file)
    await request.app[CATALOGUE].keep_up()
    inside = await _inside(request, names)
    if request.method != "PROPFIND":
        return await _list(request, inside)
    return await _tell(request, _told(names, inside, with_inside=depth == "1"))


def read_path(path: str) -> list[str]:
    """The names of folder and file in a path, none for the folder of all; raise ApiError (404)."""
    names = path.removesuffix("/").split("/") if path.strip("/") else []
    if len(names) > 2 or not all(names):
        raise file_not_found()
    return names


# -- what is there -------------------------------------------------------------------------------

_Inside = AsyncIterator[list[Folder] | list[Entry]]
_Thing = TypeVar("_Thing")


async def _folder(index: Index, name: str) -> Folder:
    """The channel of this name or id; the id stays when a title is changed, or not known yet."""
    for each in await folders(index):
        if path_key(name) in (path_key(each.name), str(each.channel.chat_id)):
            return each
    raise file_not_found()


async def _inside(request: web.Request, names: list[str]) -> _Inside:
    """What is right in a folder, some at a time; raise ApiError if it is none."""
    index = request.app[CATALOGUE].index
    if not names:
        return _one(await folders(index))
    folder = await _folder(index, names[0])
    _refuse_unread(folder)
    return entries(index, folder.channel.chat_id)


async def _entry(request: web.Request, folder_name: str, name: str) -> Entry:
    catalogue = request.app[CATALOGUE]
    chat_id = (await _folder(catalogue.index, folder_name)).channel.chat_id
    entry = await entry_named(catalogue.index, chat_id, name)
    if entry is None:
        await catalogue.keep_up()
        entry = await entry_named(catalogue.index, chat_id, name)
    if entry is None:
        _refuse_unread(await _folder(catalogue.index, folder_name))
        raise file_not_found()
    return entry


def _refuse_unread(folder: Folder) -> None:
    if not folder.channel.is_complete:
        message = "The channel is still being read."
        raise ApiError(503, "still_reading", message, retry_after_s=RETRY_AFTER_S)


async def _one(thing: _Thing) -> AsyncIterator[_Thing]:
    yield thing


# -- telling of it -------------------------------------------------------------------------------


async def _tell(request: web.Request, told: AsyncIterator[str]) -> web.StreamResponse:
    """207 with an element for each thing (section 13)."""

    async def body() -> AsyncIterator[bytes]:
        first = _MULTISTATUS
        async for text in told:
            yield first + text.encode()
            first = b""
        yield first + b"</D:multistatus>\n"

    headers = {"Content-Type": "application/xml; charset=utf-8", "Cache-Control": "no-store"}
    return await send_long(request, web.StreamResponse(status=207, headers=headers), body())


async def _told(names: list[str], inside: _Inside, *, with_inside: bool) -> AsyncIterator[str]:
    """A folder, and what is right in it."""
    path = _folder_path(names[0]) if names else ROOT
    yield _of_folder(path, names[0] if names else "Rangegram")
    if not with_inside:
        return
    async for things in inside:
        yield "".join(
            _of_folder(_folder_path(each.name), each.name)
            if isinstance(each, Folder)
            else _of_file(path, each)
            for each in things
        )


def _folder_path(name: str) -> str:
    return f"{ROOT}{quote(name, safe='')}/"


def _of_folder(path: str, name: str) -> str:
    return _response(path, f"{_FOLDER}<D:displayname>{xml_text(name)}</D:displayname>")


def _of_file(folder_path: str, entry: Entry) -> str:
    file = entry.file
    properties = (
        "<D:resourcetype/>"
        f"<D:displayname>{xml_text(entry.name)}</D:displayname>"
        f"<D:getcontentlength>{file.size}</D:getcontentlength>"
        f"<D:getcontenttype>{xml_text(file.mime_type)}</D:getcontenttype>"
        f"<D:getlastmodified>{_date(file)}</D:getlastmodified>"
    )
    return _response(folder_path + quote(entry.name, safe=""), properties)


def _response(path: str, properties: str) -> str:
    return (
        f"<D:response><D:href>{path}</D:href><D:propstat><D:prop>{properties}</D:prop>"
        "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
    )


def _date(file: MediaFile) -> str:
    return formatdate(min(file.date, DATE_MAX), usegmt=True)


# -- handing it out ------------------------------------------------------------------------------


async def _list(request: web.Request, inside: _Inside) -> web.StreamResponse:
    """GET of a folder: the names in it, one in each line."""

    async def body() -> AsyncIterator[bytes]:
        async for things in inside:
            yield "".join(f"{each.name}\n" for each in things).encode()

    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return await send_long(request, web.StreamResponse(headers=headers), body())


async def _send(request: web.Request, file: MediaFile) -> web.StreamResponse:
    if request.method == "HEAD":
        # Told here, since not all who ask so follow a redirect.
        headers = file_headers(file, as_download=False) | {"Last-Modified": _date(file)}
        response = web.StreamResponse(headers=headers | {"Cache-Control": "private, no-cache"})
        response.content_length = file.size
        return response
    now = int(time.time())
    leave = Leave(now + tokens.TOKEN_LIFETIME_S, now + tokens.RENEWAL_LIFETIME_S)
    return await send_file(request, file, leave)


def dav_routes() -> list[web.RouteDef]:
    methods = ("GET", "OPTIONS", "PROPFIND")
    return [
        web.route(method, path, serve_dav)
        for path in ("/dav", "/dav/{path:.*}")
        for method in methods
    ]
