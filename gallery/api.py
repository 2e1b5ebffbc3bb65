"""API: the files as JSON, and URLs that play them."""

import logging
import time
from dataclasses import asdict

from aiohttp import web

from gallery import tokens
from gallery.bot_api import BotApiError
from gallery.catalogue import CATALOGUE
from gallery.errors import ApiError
from gallery.files import KINDS, Hls, MediaFile, hls_url, stream_url, thumbnail_url
from gallery.index import Query
from gallery.related import album_of
from gallery.search import ORDERS
from gallery.settings import SETTINGS
from gallery.small_files import SMALL_FILES, portable_path, small_file_path
from gallery.tracks import list_tracks, requested_file
from gallery.visitors import base_url
from gallery.worker_choice import WORKER_CHOICE, Failures, for_our_page, told_to_our_page

log = logging.getLogger(__name__)


async def list_files(request: web.Request) -> web.Response:
    """GET /api/files?query=&kind=&channel=&sort=&cursor="""
    catalogue = request.app[CATALOGUE]
    page = await catalogue.page(read_query(request))
    body = {
        "files": [_describe(request, file) for file in page.files],
        "next": page.next,
        "total": page.total,
        "index": await catalogue.state(),
    }
    return web.json_response(body, headers={"Cache-Control": "no-store"})


def read_query(request: web.Request) -> Query:
    """What the visitor wants to see; raise ApiError for what there is not."""
    wanted = {name: text for name, text in request.query.items() if text}
    kind, sort = wanted.get("kind"), wanted.get("sort", "newest")
    if kind is not None and kind not in KINDS:
        raise ApiError(400, "bad_kind", f"kind is one of {', '.join(KINDS)}.")
    if sort not in ORDERS:
        raise ApiError(400, "bad_sort", f"sort is one of {', '.join(ORDERS)}.")
    channels = {str(chat_id): chat_id for chat_id in request.app[SETTINGS].channels}
    channel = wanted.get("channel")
    if channel is not None and channel not in channels:
        raise ApiError(400, "bad_channel", "That channel is not in this gallery.")
    chat_id = None if channel is None else channels[channel]
    return Query(wanted.get("query", ""), kind, chat_id, sort, wanted.get("cursor"))


async def list_channels(request: web.Request) -> web.Response:
    """GET /api/channels: the channels in the order of CHANNELS."""
    states = await request.app[CATALOGUE].index.channels()
    channels = [
        {"chat_id": state.chat_id, "title": state.title, "files": state.files} for state in states
    ]
    return web.json_response({"channels": channels}, headers={"Cache-Control": "no-store"})


async def show_file(request: web.Request) -> web.Response:
    """GET /api/files/{chat_id}/{message_id}?avoid=: one element of `files`, and what belongs to it.

    `avoid` names a worker that failed to give the thumbnail.
    """
    file = await requested_file(request)
    failures = Failures.from_query(request)
    worker_url = await request.app[WORKER_CHOICE].pick(file, failures) if failures else None
    index = request.app[CATALOGUE].index
    body = {
        **_describe(request, file, worker_url),
        "album_files": await album_of(index, file),
        "subtitles": await list_tracks(index, file),
    }
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def sign_url(request: web.Request) -> web.Response:
    """GET /api/files/{chat_id}/{message_id}/url?avoid=&attempt=&portable=1: good for an hour.

    A small file's opens for this browser only, and may be kept by it; a portable one opens in any
    player. After a failure a worker serves it, whatever its size: another one than those that
    `avoid`, repeated, names. `hls` is where the film's other qualities are, `storyboard` and
    `tracks` are where a worker tells more of it.
    """
    file = await requested_file(request)
    failures = Failures.from_query(request)
    small = None if failures else await _small_file_url(request, file)
    choice = request.app[WORKER_CHOICE]
    # Nobody need wait for a look at a worker from which nothing is played.
    is_played_there = small is None or file.qualities
    worker_url = await choice.pick(file, failures) if is_played_there else choice.known(file)
    settings, now = request.app[SETTINGS], int(time.time())
    ids = (settings.jwt_secret, file.chat_id, file.message_id)
    token = tokens.file_token(*ids, now, file.parts)
    renewed_until = now + tokens.RENEWAL_LIFETIME_S
    grant = tokens.renewal_grant(*ids, renewed_until, file.parts)
    stream = stream_url(worker_url, file, token)
    master = hls_url(worker_url, file, token, grant)
    if request.query.get("portable") != "1":
        stream, master = for_our_page(stream, choice), for_our_page(master, choice)
    url, via, expires_at = small or (stream, "worker", now + tokens.TOKEN_LIFETIME_S)
    hls = Hls(master, file.qualities, renewed_until) if file.qualities else None
    body = {
        "url": url,
        "via": via,
        "expires_at": expires_at,
        "name": file.name,
        "mime_type": file.mime_type,
        "size": file.size,
        "hls": hls and asdict(hls),
        **told_to_our_page(worker_url, file, token, choice),
    }
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def _small_file_url(request: web.Request, file: MediaFile) -> tuple[str, str, int] | None:
    """The file by way of the Bot API, if that hands it out."""
    settings, small_files = request.app[SETTINGS], request.app[SMALL_FILES]
    bot_file = await small_files.find(file)
    if bot_file is None:
        return None
    now = int(time.time())
    if settings.small_files == "direct":
        try:
            url, lifetime_s = await small_files.direct_url(bot_file)
        except BotApiError as error:
            log.warning("no direct URL: %d %s", error.code, error.description)
            return None
        return url, "bot_api", now + lifetime_s
    expires_at = now + tokens.TOKEN_LIFETIME_S
    if request.query.get("portable") == "1":
        path = portable_path(file, settings.jwt_secret, expires_at)
        return base_url(request) + path, "bot_api", expires_at
    return small_file_path(file, bot_file), "bot_api", expires_at


def _describe(
    request: web.Request, file: MediaFile, worker_url: str | None = None
) -> dict[str, object]:
    """A file as the page needs it; its thumbnail is at this worker, or at the one that is known."""
    thumbnail = None
    if file.has_thumbnail:
        settings, now = request.app[SETTINGS], time.time()
        step = now - now % tokens.THUMBNAIL_TOKEN_STEP_S
        token = tokens.file_token(settings.jwt_secret, file.chat_id, file.message_id, step)
        worker_url = worker_url or request.app[WORKER_CHOICE].known(file)
        thumbnail = thumbnail_url(worker_url, file, token)
    return {
        "chat_id": file.chat_id,
        "channel": file.chat_id,
        "message_id": file.message_id,
        "name": file.name,
        "kind": file.kind,
        "mime_type": file.mime_type,
        "size": file.size,
        "date": file.date,
        "duration": file.duration,
        "width": file.width,
        "height": file.height,
        "caption": file.caption,
        "thumbnail": thumbnail,
        "title": file.title or None,
        "performer": file.performer or None,
        # Longer than a number in JavaScript can be.
        "album": None if file.album is None else str(file.album),
        "reply_to": file.reply_to,
        "qualities": list(file.qualities),
        "has_storyboard": file.has_storyboard,
        "parts": [file.message_id, *file.parts] if file.parts else [],
        "split": {"problem": file.apart, "missing": list(file.missing)} if file.apart else None,
    }
