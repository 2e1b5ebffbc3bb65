"""API: the files as JSON, and URLs that play them."""

import time

from aiohttp import web

from gallery import tokens
from gallery.catalogue import CATALOGUE
from gallery.errors import ApiError
from gallery.files import KINDS, MediaFile, stream_url, thumbnail_url, worker_for
from gallery.settings import SETTINGS, Settings


async def list_files(request: web.Request) -> web.Response:
    """GET /api/files?query=&kind=&cursor="""
    kind = request.query.get("kind") or None
    if kind is not None and kind not in KINDS:
        raise ApiError(400, "bad_kind", f"kind is one of {', '.join(KINDS)}.")
    catalogue = request.app[CATALOGUE]
    cursor = request.query.get("cursor") or None
    page = await catalogue.page(request.query.get("query", ""), kind, cursor)
    files = [_describe(request.app[SETTINGS], file) for file in page.files]
    body = {"files": files, "next": page.next, "reading": catalogue.is_reading}
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def show_file(request: web.Request) -> web.Response:
    """GET /api/files/{chat_id}/{message_id}: one element of `files`, for a deep link."""
    file = await _requested_file(request)
    body = _describe(request.app[SETTINGS], file)
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def sign_url(request: web.Request) -> web.Response:
    """GET /api/files/{chat_id}/{message_id}/url?attempt=: a URL that plays for an hour."""
    settings = request.app[SETTINGS]
    file = await _requested_file(request)
    attempt = request.query.get("attempt", "0")
    now = time.time()
    token = tokens.file_token(settings.jwt_secret, file.chat_id, file.message_id, now)
    worker_url = worker_for(
        settings.worker_urls, file, int(attempt[:6]) if attempt.isdecimal() else 0
    )
    body = {
        "url": stream_url(worker_url, file, token),
        "via": "worker",
        "expires_at": int(now) + tokens.TOKEN_LIFETIME_S,
        "name": file.name,
        "mime_type": file.mime_type,
        "size": file.size,
    }
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def _requested_file(request: web.Request) -> MediaFile:
    chat_id, message_id = (int(request.match_info[name]) for name in ("chat_id", "message_id"))
    return await request.app[CATALOGUE].find(chat_id, message_id)


def _describe(settings: Settings, file: MediaFile) -> dict[str, object]:
    thumbnail = None
    if file.has_thumbnail:
        now = time.time()
        step = now - now % tokens.THUMBNAIL_TOKEN_STEP_S
        token = tokens.file_token(settings.jwt_secret, file.chat_id, file.message_id, step)
        thumbnail = thumbnail_url(worker_for(settings.worker_urls, file), file, token)
    return {
        "chat_id": file.chat_id,
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
    }
