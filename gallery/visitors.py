"""Visitors: what the holder of a share link may have: that one file, by every usual door.

    /v/{share}           the bytes, by way of a redirect to the worker
    /v/{share}/poster    the thumbnail, likewise
    /embed/{share}       a page with nothing but the player, for frames of other sites
    /m3u/{share}         a playlist of one, for VLC and its like
    /oembed?url=         how to embed it, as JSON (https://oembed.com)
    /api/share/{share}/url    a fresh worker URL, for the player page

The worker's URL carries a token of an hour and a renewal grant, which the worker itself turns into
fresh tokens: at most for twelve hours and until the share ends. So long a film that is open
already may run on after its share was revoked.
"""

import asyncio
import functools
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import quote, urlencode

from aiohttp import web

from gallery import tokens
from gallery.catalogue import CATALOGUE
from gallery.errors import ApiError
from gallery.files import MediaFile, stream_url, thumbnail_url
from gallery.pages import PAGES
from gallery.settings import SETTINGS
from gallery.share_store import SHARES
from gallery.shares import Links, Share, embed_code, read_share
from gallery.sign_in import is_https
from gallery.worker_choice import WORKER_CHOICE, Failures, for_our_page

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NAME_PATIENCE_S: Final = 1.0  # a link must work while the worker that knows the name still wakes up
POSTER_MAX_PX: Final = 320  # Telegram's thumbnails of size "m"
EMBED_SIZE: Final = (640, 360)  # for a film whose own size is unknown
EMBED_MAX_PX: Final = 1280
OEMBED_TYPES: Final = {"video": "video", "audio": "rich", "image": "photo", "document": "link"}
STAGES: Final = {"image": "embed-picture.html", "document": "embed-file.html"}
# Pages elsewhere may use a link as if it were a file of their own; nothing here reads a cookie.
VISITOR_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Retry-After",
    "Cache-Control": "no-store",
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
    url = (await _sign(request, share, await _file_of(request, share))).url
    download = "&download=1" if request.query.get("download") == "1" else ""
    return web.Response(status=307, headers={"Location": url + download})


@for_visitors
async def show_poster(request: web.Request) -> web.StreamResponse:
    """GET /v/{share}/poster: 307 to the file's thumbnail at the worker."""
    share = await _share_of(request)
    file = await _file_of(request, share)
    worker_url = await request.app[WORKER_CHOICE].pick(file)
    settings, now = request.app[SETTINGS], time.time()
    ids = (settings.jwt_secret, share.chat_id, share.message_id)
    token = tokens.visitor_token(*ids, now, _end(share, now, tokens.TOKEN_LIFETIME_S))
    url = thumbnail_url(worker_url, file, token)
    return web.Response(status=307, headers={"Location": url})


@for_visitors
async def share_url(request: web.Request) -> web.StreamResponse:
    """GET /api/share/{share}/url?avoid=&attempt=: a worker's URL as JSON, for the player page."""
    share = await _share_of(request)
    file = await _file_of(request, share)
    signed = await _sign(request, share, file, is_ours=True)
    facts = {"name": file.name, "mime_type": file.mime_type, "size": file.size}
    return web.json_response({**asdict(signed), **facts})


@for_visitors
async def embed_page(request: web.Request) -> web.StreamResponse:
    """GET /embed/{share}: the player and nothing else."""
    share = await _share_of(request)
    file = await _file_of(request, share)
    links = Links(base_url(request), request.match_info["share"])
    width, height = _size_within(file, EMBED_MAX_PX, EMBED_MAX_PX)
    signed = await _sign(request, share, file, is_ours=True)
    values = {
        "source": signed.url,
        "lasts_s": str(signed.lasts_s),
        "picture": f"/v/{links.share}",
        "download": f"/v/{links.share}?download=1",
        "link": links.url,
        "embed_url": links.embed_url,
        "oembed_url": f"{links.base}/oembed?{urlencode({'url': links.url, 'format': 'json'})}",
        "poster": f"/v/{links.share}/poster" if file.has_thumbnail else "",
        "image": links.poster_url if file.has_thumbnail else "",
        "mime_type": file.mime_type,
        "width": str(width),
        "height": str(height),
    }
    stage = STAGES.get(file.kind, "embed-film.html")
    return request.app[PAGES].response(stage, title_of(file), values, frame="embed.html")


@for_visitors
async def show_playlist(request: web.Request) -> web.StreamResponse:
    """GET /m3u/{share}: a playlist whose one entry is the share link."""
    share = await _share_of(request)
    file = await _file_of(request, share)
    title = title_of(file)
    length_s = round(file.duration) if file.duration else -1
    url = Links(base_url(request), request.match_info["share"]).url
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
    share = await _opened(request, text)
    file = await _file_of(request, share)
    links = Links(base_url(request), text)
    width, height = _size_within(file, *(_limit(request, n) for n in ("maxwidth", "maxheight")))
    body: dict[str, object] = {
        "version": "1.0",
        "type": OEMBED_TYPES[file.kind],
        "title": title_of(file),
        "provider_name": "Rangegram",
        "provider_url": links.base,
        "width": width,
        "height": height,
    }
    if file.kind == "image":
        body["url"] = links.url
    elif file.kind != "document":
        body["html"] = embed_code(links, title_of(file), width, height)
    if file.has_thumbnail:
        size = _size_within(file, POSTER_MAX_PX, POSTER_MAX_PX)
        names = ("thumbnail_url", "thumbnail_width", "thumbnail_height")
        body |= dict(zip(names, (links.poster_url, *size), strict=True))
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
        show_playlist,
        describe_embedding,
        allow_reading,
    }
)


def visitor_routes() -> list[web.RouteDef]:
    doors = {
        "/v/{share}": play_share,
        "/v/{share}/poster": show_poster,
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


def title_of(file: MediaFile) -> str:
    """A file's name as a person would write it, in one line, as format.js does it."""
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", file.name)
    spaced = stem if re.search(r"\s", stem) else re.sub(r"[._]+", " ", stem)
    written = file.caption.strip().partition("\n")[0][:120]
    made_up = re.fullmatch(r"((photo|video)_[\d_-]+)?", stem.strip())
    title = (written if made_up else "") or spaced or written or "Film"
    return "".join(c for c in title if c.isprintable()).strip() or "Film"


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
        return _unknown_film(share)
    except ApiError as error:
        if error.status != 404:
            return _unknown_film(share)
        message = "The file behind this link is no longer there."
        raise ApiError(404, "file_not_found", message) from None


def _unknown_film(share: Share) -> MediaFile:
    ids = {"chat_id": share.chat_id, "message_id": share.message_id}
    blank = {"name": "", "mime_type": "video/mp4", "size": 0, "date": 0}
    return MediaFile.from_listing({**ids, **blank})


@dataclass(frozen=True)
class _Signed:
    """A file at the worker: its URL, when the token in it ends, how long the worker renews it."""

    url: str
    expires_at: int
    lasts_s: int


async def _sign(
    request: web.Request, share: Share, file: MediaFile, *, is_ours: bool = False
) -> _Signed:
    """A URL of a worker that is well; `is_ours` if it is for the player page."""
    choice = request.app[WORKER_CHOICE]
    worker_url = await choice.pick(file, Failures.from_query(request))
    settings, now = request.app[SETTINGS], time.time()
    expires_at = _end(share, now, tokens.TOKEN_LIFETIME_S)
    renewed_until = _end(share, now, tokens.RENEWAL_LIFETIME_S)
    ids = (settings.jwt_secret, share.chat_id, share.message_id)
    grant = tokens.renewal_grant(*ids, renewed_until)
    url = stream_url(worker_url, file, tokens.visitor_token(*ids, now, expires_at))
    url = f"{url}&renew={grant}"
    url = for_our_page(url, choice) if is_ours else url
    return _Signed(url, expires_at, renewed_until - int(now))


def _end(share: Share, now: float, lifetime_s: int) -> int:
    """After this lifetime, or with the share if that ends sooner."""
    end = int(now) + lifetime_s
    return end if share.expires_at is None else min(end, share.expires_at)


def _share_in(request: web.Request, url: str) -> str:
    """The share in a URL of ours; raise ApiError for any other URL."""
    for base in {base_url(request), f"{request.scheme}://{request.host}"}:
        for door in ("/v/", "/embed/", "/m3u/"):
            if url.startswith(base + door):
                return re.split("[?#]", url.removeprefix(base + door), maxsplit=1)[0]
    raise ApiError(404, "foreign_url", "This is no link of this gallery.")


def _limit(request: web.Request, name: str) -> int:
    text = request.query.get(name, str(EMBED_MAX_PX))
    if not re.fullmatch("[1-9][0-9]{0,4}", text):
        raise ApiError(400, "bad_size", f"{name} is a number of pixels.")
    return int(text)


def _size_within(file: MediaFile, width_max: int, height_max: int) -> tuple[int, int]:
    """The picture's size, made smaller to fit, in its own proportions."""
    width, height = (file.width, file.height) if file.width and file.height else EMBED_SIZE
    scale = min(1, width_max / width, height_max / height)
    return max(1, int(width * scale)), max(1, int(height * scale))


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
