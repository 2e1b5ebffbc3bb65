"""Around every request: access log, errors, who may come in, security headers."""

import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from aiohttp import web

from gallery.dav import serve_dav
from gallery.errors import ApiError
from gallery.health import health
from gallery.pages import PAGES, service_worker, static_file
from gallery.playlists import PROGRAM_HANDLERS
from gallery.sessions import ENDED_SESSIONS
from gallery.settings import SETTINGS, Settings, is_loopback
from gallery.share_tracks import SHARE_TRACK_HANDLERS
from gallery.shares import ID_CHARACTERS, SHARE_CHARACTERS
from gallery.sign_in import is_https, is_signed_in, sign_in, sign_in_page, sign_out
from gallery.small_files import send_small_file
from gallery.updates import receive_update
from gallery.visitors import VISITOR_HANDLERS

log = logging.getLogger(__name__)


OPEN_TO_ALL: Final = (
    VISITOR_HANDLERS
    | SHARE_TRACK_HANDLERS
    | PROGRAM_HANDLERS  # these ask for the password by themselves, as WebDAV does
    | {
        serve_dav,
        sign_in_page,
        sign_in,
        sign_out,
        static_file,
        service_worker,
        health,
        send_small_file,  # looks for itself who asks: a token opens it too
        receive_update,
    }
)
# A share link opens its file to whoever reads it: the log has only its beginning, the id.
_SHARE_IN_PATH: Final = re.compile(
    rf"([\w-]{{{ID_CHARACTERS}}})[\w-]{{{SHARE_CHARACTERS - ID_CHARACTERS}}}", re.ASCII
)


@web.middleware
async def log_request(request: web.Request, handler: Any) -> web.StreamResponse:
    """One line per request. The query is left out: there may be search words and tokens in it."""
    start = time.monotonic()
    status = 499  # nginx's number for a visitor who left; all else is an answer by now
    try:
        response: web.StreamResponse = await handler(request)
        status = response.status
        return response
    except web.HTTPRedirection as redirect:
        status = redirect.status
        raise
    finally:
        duration_ms = (time.monotonic() - start) * 1000
        log.info("%s %s -> %d in %.0f ms", request.method, _path(request), status, duration_ms)


def _path(request: web.Request) -> str:
    # Written anew: a share whose letters were percent-encoded would not be known for one.
    return _SHARE_IN_PATH.sub(r"\1…", quote(request.path))


@web.middleware
async def answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turn what was raised into an answer: JSON under /api, a page elsewhere."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except web.HTTPRedirection as redirect:
        redirect.headers["Cache-Control"] = "no-store"
        raise
    except ApiError as error:
        problem = error
    except web.HTTPException as error:
        code = error.reason.lower().replace(" ", "_")
        problem = ApiError(error.status, code, f"{error.reason}.")
        allow = error.headers.get("Allow")
        return _problem_response(request, problem, {"Allow": allow} if allow else {})
    except Exception:
        log.exception("%s %s failed", request.method, _path(request))
        problem = ApiError(500, "internal_error", "Something went wrong here; the log says what.")
    return _problem_response(request, problem, {})


def _problem_response(
    request: web.Request, problem: ApiError, headers: Mapping[str, str]
) -> web.Response:
    response = problem.response()
    if not request.path.startswith("/api/") and "text/html" in request.headers.get("Accept", ""):
        title = "Not found" if problem.status == 404 else "Something is wrong"
        values = {"title": title, "message": problem.message}
        response = request.app[PAGES].response("problem.html", title, values, problem.status)
    response.headers.update(headers)
    return response


@web.middleware
async def check_visitor(request: web.Request, handler: Any) -> web.StreamResponse:
    """With a password: let the signed-in through. Without one: let nobody in but this machine."""
    settings = request.app[SETTINGS]
    if settings.gallery_password is None:
        _refuse_foreign_names(request, settings)
    else:
        await request.app[ENDED_SESSIONS].keep_up()
        # What is no path or method of WebDAV is 404 or 405: programs take a form for success.
        is_open = request.match_info.handler in OPEN_TO_ALL or request.path.startswith("/dav")
        if not is_open and not is_signed_in(request):
            if request.path.startswith("/api/"):
                raise ApiError(401, "sign_in_required", "Sign in first.")
            raise web.HTTPSeeOther(f"/sign-in?next={quote(request.path_qs, safe='')}")
    response: web.StreamResponse = await handler(request)
    return response


def _refuse_foreign_names(request: web.Request, settings: Settings) -> None:
    """DNS rebinding: a page elsewhere can point its name at 127.0.0.1 and read us through it."""
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:  # brackets with no address in them
        name = ""
    public_name = urlsplit(settings.public_url or "").hostname
    if not is_loopback(name) and name != public_name:
        raise ApiError(
            403, "foreign_host", "Without a password the gallery is for this machine only."
        )


CONTENT_POLICY: Final = web.AppKey("CONTENT_POLICY", str)
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(),"
    " payment=(), usb=()",
}
YEAR_S: Final = 365 * 24 * 3600


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Nothing inline, nothing from elsewhere, media from the workers only, in no one's frame."""
    response.headers.setdefault("Content-Security-Policy", request.app[CONTENT_POLICY])
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if response.status >= 400:
        response.headers.setdefault("Cache-Control", "no-store")
    if is_https(request):
        response.headers["Strict-Transport-Security"] = f"max-age={YEAR_S}"


def content_policy(
    worker_urls: Iterable[str],
    frame_ancestors: str = "'none'",
    *,
    framed_urls: Iterable[str] = (),
) -> str:
    """The Content-Security-Policy that lets the pages do what they do and nothing more.

    `framed_urls` are the workers whose PDFs the page shows within itself. `blob:` is what browsers
    call a MediaSource, into which hls.js writes the segments of a film: for media alone, where it
    can show nothing that a script of ours has not put there.
    """
    workers, framed = _origins(worker_urls), _origins(framed_urls) or "'none'"
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "worker-src 'self'",
            "style-src 'self'",
            f"img-src 'self' {workers}",
            f"media-src 'self' blob: {workers}",
            f"connect-src 'self' {workers}",
            f"frame-src {framed}",
            "form-action 'self'",
            "base-uri 'none'",
            f"frame-ancestors {frame_ancestors}",
        ]
    )


def _origins(urls: Iterable[str]) -> str:
    parts = [urlsplit(url) for url in urls]
    return " ".join(dict.fromkeys(f"{part.scheme}://{part.netloc}" for part in parts))
