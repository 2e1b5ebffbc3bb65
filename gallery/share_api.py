"""Share API: the owner makes links, sees them and ends them."""

import json
import time
from typing import Final

from aiohttp import web

from gallery.catalogue import CATALOGUE
from gallery.errors import ApiError
from gallery.files import FILM_TYPE, MESSAGE_ID_MAX, MediaFile, blank_file
from gallery.presentation import title_of
from gallery.settings import SETTINGS
from gallery.share_store import SHARES
from gallery.shares import (
    DEFAULT_LIFETIME_S,
    ID_CHARACTERS,
    LIFETIME_MAX_S,
    LIFETIME_MIN_S,
    Links,
    Share,
    new_share,
    write_share,
)
from gallery.sign_in import refuse_other_sites
from gallery.snippets import embed_code, media_code
from gallery.visitors import base_url

NO_STORE: Final = {"Cache-Control": "no-store"}


async def make_share(request: web.Request) -> web.Response:
    """POST /api/shares {"chat_id", "message_id", "expires_in_s"}: a link to that file.

    `expires_in_s` null means never, left out a week.
    """
    refuse_other_sites(request)
    chat_id, message_id, lifetime_s = await _order(request)
    file = await request.app[CATALOGUE].find(chat_id, message_id)
    now = time.time()
    share = new_share(chat_id, message_id, lifetime_s, now)
    await request.app[SHARES].add(share, title_of(file), now)
    body = _describe(request, share, title_of(file), file)
    return web.json_response(body, status=201, headers=NO_STORE)


async def list_shares(request: web.Request) -> web.Response:
    """GET /api/shares: what was shared, newest first, and whether that is remembered for good."""
    store = request.app[SHARES]
    listed = await store.listed()
    posts = {(each.share.chat_id, each.share.message_id) for each in listed}
    files = await request.app[CATALOGUE].index.find_all(posts)
    shares = [
        {
            **_describe(
                request,
                each.share,
                each.name,
                files.get((each.share.chat_id, each.share.message_id)),
            ),
            "created_at": each.created_at,
            "revoked": each.revoked,
        }
        for each in listed
    ]
    body = {"shares": shares, "durable": await store.is_durable()}
    return web.json_response(body, headers=NO_STORE)


async def revoke_share(request: web.Request) -> web.Response:
    """DELETE /api/shares/{id}: end it, known or not. The whole share will do: it begins so."""
    refuse_other_sites(request)
    share_id = request.match_info["id"][:ID_CHARACTERS]
    await request.app[SHARES].revoke(share_id, time.time())
    return web.Response(status=204, headers=NO_STORE)


async def _order(request: web.Request) -> tuple[int, int, int | None]:
    """What the owner asks for, each of the right kind; raise ApiError otherwise."""
    # A form of another site cannot send this type without asking first (CORS preflight).
    if request.content_type != "application/json":
        raise ApiError(415, "not_json", "Send application/json.")
    try:
        order = json.loads(await request.text())
        chat_id, message_id = order["chat_id"], order["message_id"]
        lifetime_s = order.get("expires_in_s", DEFAULT_LIFETIME_S)
    except (
        *(AttributeError, LookupError, RecursionError, TypeError, ValueError),
        web.RequestPayloadError,  # it is not packed as its Content-Encoding says
    ):
        raise ApiError(400, "bad_order", "chat_id and message_id are needed.") from None
    if not (type(chat_id) is type(message_id) is int and 0 < message_id <= MESSAGE_ID_MAX):
        raise ApiError(400, "bad_order", "chat_id and message_id are whole numbers.")
    if lifetime_s is not None and (
        type(lifetime_s) is not int or not LIFETIME_MIN_S <= lifetime_s <= LIFETIME_MAX_S
    ):
        message = f"expires_in_s is null or from {LIFETIME_MIN_S} to {LIFETIME_MAX_S}."
        raise ApiError(400, "bad_end", message)
    return chat_id, message_id, lifetime_s


def _describe(
    request: web.Request, share: Share, name: str, file: MediaFile | None
) -> dict[str, object]:
    text = write_share(request.app[SETTINGS].jwt_secret, share)
    links = Links(base_url(request), text)
    known = file or blank_file(share.chat_id, share.message_id, FILM_TYPE)
    return {
        "id": share.id,
        "chat_id": share.chat_id,
        "message_id": share.message_id,
        "name": name,
        "share": text,
        "url": links.url,
        "watch_url": links.watch_url,
        "embed_url": links.embed_url,
        "m3u_url": links.m3u_url,
        "media_code": media_code(links, name, known),
        "embed_code": embed_code(links, name, known),
        "expires_at": share.expires_at,
    }


def share_api_routes() -> list[web.RouteDef]:
    return [
        web.post("/api/shares", make_share),
        web.get("/api/shares", list_shares),
        web.delete("/api/shares/{id:[A-Za-z0-9_-]{12,56}}", revoke_share),
    ]
