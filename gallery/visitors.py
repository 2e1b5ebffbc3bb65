"""Visitors: what the holder of a share link may have: that one file, by every usual door.

/v/{share}           the bytes, by way of a redirect to the worker
/v/{share}/poster    the thumbnail, likewise
/watch/{share}       a page for people: the player, what it is, and ways to have it elsewhere
/embed/{share}       a page with nothing but the player, for frames of other sites
/m3u/{share}         a playlist of one, for VLC and its like
/oembed?url=         how to embed it, as JSON (https://oembed.com)
/api/share/{share}/url    a fresh worker URL, for the player page
"""

import asyncio
import functools
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Final
from urllib.parse import quote

from aiohttp import web

from gallery import tokens
from gallery.catalogue import CATALOGUE
from gallery.errors import ApiError
from gallery.files import FILM_TYPE, MediaFile, blank_file, thumbnail_url
from gallery.oembed import describe, oembed_link, read_limit
from gallery.pages import PAGES
from gallery.presentation import opens_in_browser, page_values, title_of
from gallery.previews import preview_tags
from gallery.settings import SETTINGS
from gallery.share_store import SHARES
from gallery.share_urls import end_of, sign
from gallery.shares import Links, Share, read_share
from gallery.sign_in import is_https
from gallery.worker_choice import WORKER_CHOICE

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NAME_PATIENCE_S: Final = 1.0  # a link must work while the worker that knows the name still wakes up
STAGES: Final = {"video": "film", "audio": "song", "image": "picture", "document": "file"}
# Pages elsewhere may use a link as if it were a file of their own; nothing here reads a cookie.
VISITOR_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Retry-After",
    "Cache-Control": "no-store",
    # A page that is cross-origin isolated shows only frames that promise the same.
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Robots-Tag": "noindex",
}
PREFLIGHT_HEADERS: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Range, If-Range, If-None-Match, If-Modified-Since",
    "Access-Control-Max-Age": "86400",
}
EMBED_POLICY: Final = web.AppKey("EMBED_POLICY", str)
_HOST: Final = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


def for_visitors(handler: Handler) -> Handler:
    """Refusals as a page that may stand in a frame too; headers for use from other sites."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            response = await handler(request)
        except ApiError as problem:
            response = _refusal(request, problem)
        response.headers.update(VISITOR_HEADERS)
        response.headers["Content-Security-Policy"] = request.app[EMBED_POLICY]
        return response

    return answer


@for_visitors
async def play_share(request: web.Request) -> web.StreamResponse:
    """GET and HEAD /v/{share}[?download=1]: 307 to the file at the worker, signed afresh."""
    share = await _share_of(request)
    url = (await sign(request, share, await _file_of(request, share))).url
    download = "&download=1" if request.query.get("download") == "1" else ""
    discovery = f'<{oembed_link(_links(request))}>; rel="alternate"; type="application/json+oembed"'
    return web.Response(status=307, headers={"Location": url + download, "Link": discovery})


@for_visitors
async def show_poster(request: web.Request) -> web.StreamResponse:
    """GET /v/{share}/poster: 307 to the file's thumbnail at the worker."""
    share = await _share_of(request)
    file = await _file_of(request, share)
    worker_url = await request.app[WORKER_CHOICE].pick(file)
    settings, now = request.app[SETTINGS], time.time()
    ids = (settings.jwt_secret, share.chat_id, share.message_id)
    token = tokens.visitor_token(*ids, now, end_of(share, now, tokens.TOKEN_LIFETIME_S))
    url = thumbnail_url(worker_url, file, token)
    return web.Response(status=307, headers={"Location": url})


@for_visitors
async def share_url(request: web.Request) -> web.StreamResponse:
    """GET /api/share/{share}/url?avoid=&attempt=: a worker's URL as JSON, for the player page."""
    share = await _share_of(request)
    file = await _file_of(request, share)
    signed = await sign(request, share, file, is_ours=True)
    facts = {"name": file.name, "mime_type": file.mime_type, "size": file.size}
    return web.json_response({**asdict(signed), **facts})


@for_visitors
async def embed_page(request: web.Request) -> web.StreamResponse:
    """GET /embed/{share}: the player and nothing else."""
    share = await _share_of(request)
    return await _player_page(request, share, await _file_of(request, share), "embed")


@for_visitors
async def watch_page(request: web.Request) -> web.StreamResponse:
    """GET /watch/{share}: the page that people send to each other."""
    share = await _share_of(request)
    return await _player_page(request, share, await _file_of(request, share), "watch")


async def _player_page(
    request: web.Request, share: Share, file: MediaFile, place: str
) -> web.Response:
    links = _links(request)
    signed = await sign(request, share, file, is_ours=True)
    has_player = file.kind in ("video", "audio")
    poster = f"/v/{links.share}/poster" if file.has_thumbnail else ""
    opens = opens_in_browser(file)
    values = {
        **page_values(file),
        "place": place,
        "source": signed.url,
        "lasts_s": str(signed.lasts_s),
        # With qualities to choose from the page says what is loaded, before anything is.
        "preload": "none" if signed.hls else "metadata",
        "hls": signed.hls.url if signed.hls else "",
        "ends_at": str(share.expires_at or ""),
        "link": links.url,
        "path": f"/v/{links.share}",
        "playlist": f"/m3u/{links.share}",
        "playlist_hidden": "" if has_player else "hidden",
        "watch_url": links.watch_url,
        "oembed_url": oembed_link(links),
        "poster": poster,
        "cover": poster or f"/static/{request.app[PAGES].version}/song.svg",
        "open_hidden": "" if opens else "hidden",
        "download_style": "button-quiet" if opens else "",
    }
    return request.app[PAGES].response(
        f"embed-{STAGES[file.kind]}.html",
        title_of(file),
        values,
        frame="embed.html",
        below="watch.html" if place == "watch" and file.kind != "document" else None,
        tags=preview_tags(file, links, may_be_framed=_may_be_framed(request)),
    )


@for_visitors
async def show_playlist(request: web.Request) -> web.StreamResponse:
    """GET /m3u/{share}: a playlist whose one entry is the share link."""
    share = await _share_of(request)
    file = await _file_of(request, share)
    title = title_of(file)
    length_s = round(file.duration) if file.duration else -1
    url = _links(request).url
    name = quote(f"{title.replace('/', '_')}.m3u", safe="")
    return web.Response(
        text=f"#EXTM3U\n#EXTINF:{length_s},{title}\n{url}\n",
        content_type="audio/x-mpegurl",
        charset="utf-8",
        headers={
            "Content-Disposition": f"attachment; filename=\"film.m3u\"; filename*=UTF-8''{name}"
        },
    )


@for_visitors
async def describe_embedding(request: web.Request) -> web.StreamResponse:
    """GET /oembed?url=&maxwidth=&maxheight=&format=json, as https://oembed.com has it."""
    if request.query.get("format", "json") != "json":
        raise ApiError(501, "only_json", "Only format=json is offered.")
    text = _share_in(request, request.query.get("url", ""))
    limits = (read_limit(request.query, "maxwidth"), read_limit(request.query, "maxheight"))
    try:
        share = await _opened(request, text)
    except ApiError as problem:
        # Of the two words for "gone" the specification knows this one (2.3.5).
        status = 404 if problem.status == 410 else problem.status
        raise ApiError(
            status, problem.code, problem.message, retry_after_s=problem.retry_after_s
        ) from None
    body = describe(
        await _file_of(request, share),
        Links(base_url(request), text),
        limits,
        may_be_framed=_may_be_framed(request),
        ends_in_s=None if share.expires_at is None else share.expires_at - int(time.time()),
    )
    return web.json_response(body)


@for_visitors
async def allow_reading(request: web.Request) -> web.StreamResponse:
    """OPTIONS: scripts of other sites may ask for ranges."""
    return web.Response(status=204, headers=PREFLIGHT_HEADERS)


VISITOR_HANDLERS: Final = frozenset(
    {
        play_share,
        show_poster,
        share_url,
        embed_page,
        watch_page,
        show_playlist,
        describe_embedding,
        allow_reading,
    }
)


def visitor_routes() -> list[web.RouteDef]:
    doors = {
        "/v/{share}": play_share,
        "/v/{share}/poster": show_poster,
        "/watch/{share}": watch_page,
        "/embed/{share}": embed_page,
        "/m3u/{share}": show_playlist,
        "/oembed": describe_embedding,
        "/api/share/{share}/url": share_url,
    }
    return [
        *(web.get(path, handler) for path, handler in doors.items()),
        *(web.options(path, allow_reading) for path in doors),
    ]


def base_url(request: web.Request) -> str:
    """Where visitors reach us: PUBLIC_URL, else as this visitor did.

    Without PUBLIC_URL a made-up Host reaches only whoever sent it: none of this is ever cached.
    """
    public_url = request.app[SETTINGS].public_url
    if public_url is not None:
        return public_url
    if not _HOST.fullmatch(request.host):
        raise ApiError(400, "bad_host", "The Host header is none.")
    return f"{'https' if is_https(request) else 'http'}://{request.host}"


def _links(request: web.Request) -> Links:
    return Links(base_url(request), request.match_info["share"])


def _may_be_framed(request: web.Request) -> bool:
    """Whether pages of any other site may show the player."""
    return request.app[SETTINGS].frame_ancestors not in ("'none'", "'self'")


async def shared_file(request: web.Request) -> MediaFile:
    """The file of the share in the path, if that still opens anything."""
    return await _file_of(request, await _share_of(request))


async def _share_of(request: web.Request) -> Share:
    text = request.match_info["share"]
    return await _opened(request, text)


async def _opened(request: web.Request, text: str) -> Share:
    """The share, if it still opens anything. The same words whether it ran out or was revoked."""
    secrets = request.app[SETTINGS].jwt_secrets
    share = tokens.read_with_any(secrets, lambda secret: read_share(secret, text))
    if share is None:
        raise ApiError(404, "share_not_found", "This link is incomplete or was never one of ours.")
    gone = share.has_ended(time.time()) or share.chat_id not in request.app[SETTINGS].channels
    if gone or await request.app[SHARES].is_revoked(share.id):
        raise ApiError(
            410, "share_ended", "This link has ended. Whoever sent it can make a new one."
        )
    return share


async def _file_of(request: web.Request, share: Share) -> MediaFile:
    """What the gallery knows of the file; next to nothing while the worker is asleep."""
    try:
        async with asyncio.timeout(NAME_PATIENCE_S):
            return await request.app[CATALOGUE].find(share.chat_id, share.message_id)
    except TimeoutError:
        return blank_file(share.chat_id, share.message_id, FILM_TYPE)
    except ApiError as error:
        if error.status != 404:
            return blank_file(share.chat_id, share.message_id, FILM_TYPE)
        message = "The file behind this link is no longer there."
        raise ApiError(404, "file_not_found", message) from None


def _share_in(request: web.Request, url: str) -> str:
    """The share in a URL of ours; raise ApiError for any other URL."""
    for base in {base_url(request), f"{request.scheme}://{request.host}"}:
        if not url.startswith(f"{base}/"):
            continue
        door, _, rest = url.removeprefix(f"{base}/").partition("/")
        if door in ("v", "watch", "embed", "m3u"):
            return re.split("[/?#]", rest, maxsplit=1)[0]
        raise ApiError(401, "not_public", "That is no share link: it is for the owner alone.")
    raise ApiError(404, "foreign_url", "This is no link of this gallery.")


def _refusal(request: web.Request, problem: ApiError) -> web.Response:
    """JSON for players and scripts, a page for people."""
    is_api = request.path.startswith(("/api/", "/oembed"))
    if is_api or "text/html" not in request.headers.get("Accept", ""):
        return problem.response()
    title = {404: "Nothing here", 410: "No longer open"}.get(problem.status, "Not now")
    page = "share-problem.html", title, {"message": problem.message}, problem.status
    response = request.app[PAGES].response(*page)
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = problem.response().headers["Retry-After"]
    return response
