"""Sign-in: one password, a signed cookie, and patience after wrong guesses.

The bot makes links that sign in once in place of the password. Telegram and mail programs open
links by themselves, to show what is there: so a link shows a button, and the button signs in.
Programs that keep no cookies show the password with each request (Basic, RFC 7617).
"""

import asyncio
import base64
import functools
import hmac
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from gallery.errors import ApiError
from gallery.pages import PAGES
from gallery.sessions import ENDED_SESSIONS
from gallery.settings import SETTINGS
from gallery.sign_in_links import USED_SIGN_IN_LINKS
from gallery.tokens import (
    SESSION_LIFETIME_S,
    Session,
    read_session,
    read_with_any,
    session_token,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

COOKIE: Final = "rangegram_session"
FAILURES_FORGOTTEN_S: Final = 900.0
ADDRESSES_MAX: Final = 1000
EVERYONE: Final = ""  # the address that counts the failures of all
FORM_PATIENCE_S: Final = 10.0  # for a form of one line
CHALLENGE: Final = 'Basic realm="Rangegram: any name, the gallery\'s password", charset="UTF-8"'
LINK_IS_OVER: Final = "This link was used, or is too old. Send the bot /gallery for another one."


@dataclass(frozen=True)
class _Patience:
    """So many failures cost nothing, the next ones 1, 2, 4 … seconds each."""

    free_failures: int
    delay_max_s: float


PATIENCE_PER_ADDRESS: Final = _Patience(free_failures=3, delay_max_s=60.0)
# Somebody may have many addresses. This many guesses a minute are hopeless, and the owner still
# gets a turn while they are made.
PATIENCE_WITH_EVERYONE: Final = _Patience(free_failures=30, delay_max_s=4.0)


class SignInGate:
    """Slows down guessing, for each address by itself and for all together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}  # address: how many, when the last
        self._known: dict[str, None] = {}  # addresses that gave the right password, latest last

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before its next attempt is looked at.

        One that knew the password does not wait because of others: what is mounted there gives it
        with every request.
        """
        wait_s = self._wait_s(address, PATIENCE_PER_ADDRESS)
        if address in self._known:
            return wait_s
        return max(wait_s, self._wait_s(EVERYONE, PATIENCE_WITH_EVERYONE))

    def failed(self, address: str) -> None:
        """Count a wrong password."""
        for key in (address, EVERYONE):
            count, last = self._failures.pop(key, (0, 0.0))
            forgotten = self._clock() - last > FAILURES_FORGOTTEN_S
            self._failures[key] = (1 if forgotten else count + 1, self._clock())
        while len(self._failures) > ADDRESSES_MAX:
            del self._failures[next(iter(self._failures))]

    def succeeded(self, address: str) -> None:
        """Forget this address's failures, and know it."""
        self._failures.pop(address, None)
        self._known.pop(address, None)
        self._known[address] = None
        if len(self._known) > ADDRESSES_MAX:
            del self._known[next(iter(self._known))]

    def _wait_s(self, key: str, patience: _Patience) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        since_s = self._clock() - last
        if count < patience.free_failures or since_s > FAILURES_FORGOTTEN_S:
            return 0.0
        doublings = min(count - patience.free_failures, 10)
        return max(0.0, min(2.0**doublings, patience.delay_max_s) - since_s)


GATE: Final = web.AppKey("GATE", SignInGate)


async def sign_in_page(request: web.Request) -> web.Response:
    """GET /sign-in"""
    if is_signed_in(request):
        raise web.HTTPSeeOther(_next_path(request))
    if (link := request.query.get("once")) is not None:
        if not await request.app[USED_SIGN_IN_LINKS].is_good(link, time.time()):
            return _sign_in_form(request, LINK_IS_OVER, status=410)
        return request.app[PAGES].response("sign-in-once.html", "Sign in", {})
    return _sign_in_form(request)


async def sign_in(request: web.Request) -> web.Response:
    """POST /sign-in: a cookie for the password or a link of the bot's, else the form again."""
    refuse_other_sites(request)
    password = request.app[SETTINGS].gallery_password
    if password is None:
        raise web.HTTPSeeOther("/")
    gate, address = request.app[GATE], _client_address(request)
    form = await _given_form(request)
    link = request.query.get("once")
    if link is not None and "password" not in form:
        if not await request.app[USED_SIGN_IN_LINKS].use(link, time.time()):
            return _sign_in_form(request, LINK_IS_OVER, status=410)
        log.info("signed in with a link of the bot's, from %s", address)
        raise _signed_in(request, password)
    # From here on nothing is awaited: of guesses sent side by side each sees the ones before it.
    wait_s = gate.wait_s(address)
    if wait_s:
        response = _sign_in_form(request, _too_many(wait_s), status=429)
        response.headers["Retry-After"] = str(math.ceil(wait_s))
        return response
    if not _is_right(request, form.get("password", "")):
        return _sign_in_form(request, "That is not the password.", status=403)
    raise _signed_in(request, password)


def _is_right(request: web.Request, given: str) -> bool:
    """Whether this is the password; the gate learns of it."""
    gate, address = request.app[GATE], _client_address(request)
    password = request.app[SETTINGS].gallery_password or ""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), password.encode()):
        gate.failed(address)
        log.warning("sign-in failed from %s", address)
        return False
    gate.succeeded(address)
    return True


def _too_many(wait_s: float) -> str:
    seconds = math.ceil(wait_s)
    return f"Too many wrong passwords. Try again in {seconds} second{'s' * (seconds > 1)}."


def for_programs(handler: Handler) -> Handler:
    """Let in whoever is signed in or shows the password with the request, and ask others for it."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        if is_signed_in(request):
            return await handler(request)
        given = basic_password(request.headers.get("Authorization", ""))
        wait_s = 0.0 if given is None else request.app[GATE].wait_s(_client_address(request))
        if wait_s:
            raise ApiError(429, "too_many_guesses", _too_many(wait_s), retry_after_s=wait_s)
        if given is None or not _is_right(request, given):
            message = "The gallery's password is needed, with any name."
            response: web.StreamResponse = ApiError(401, "password_required", message).response()
            response.headers["WWW-Authenticate"] = CHALLENGE
            return response
        response = await handler(request)
        if response.status == 307:
            # Who was led elsewhere and comes back for another range often knows the password no
            # more: ffmpeg and what reads by it. Cookies it keeps.
            _remember(request, response, given, f"/{request.path.split('/')[1]}")
        return response

    return answer


def basic_password(header: str) -> str | None:
    """The password in an Authorization header, whatever the name; None if there is none."""
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(credentials.strip(), validate=True).decode("utf-8", "replace")
    except ValueError:
        return None
    _, colon, password = pair.partition(":")
    return password if colon else None


def _signed_in(request: web.Request, password: str) -> web.HTTPSeeOther:
    """On to where the visitor wanted to go, with a cookie."""
    redirect = web.HTTPSeeOther(_next_path(request))
    _remember(request, redirect, password, "/")
    return redirect


def _remember(request: web.Request, response: web.StreamResponse, password: str, path: str) -> None:
    """Give a session's cookie along, which is shown below this path only."""
    response.set_cookie(
        COOKIE,
        session_token(request.app[SETTINGS].jwt_secret, password, time.time()),
        max_age=SESSION_LIFETIME_S,
        path=path,
        httponly=True,
        samesite="Lax",
        secure=is_https(request),
    )


async def sign_out(request: web.Request) -> web.Response:
    """POST /sign-out: the session ends, also for whoever has a copy of the cookie."""
    refuse_other_sites(request)
    session = _session(request)
    if session is not None:
        await request.app[ENDED_SESSIONS].add(session, time.time())
    redirect = web.HTTPSeeOther("/sign-in")
    redirect.del_cookie(COOKIE, path="/")
    raise redirect


def is_signed_in(request: web.Request) -> bool:
    return request.app[SETTINGS].gallery_password is None or _session(request) is not None


def _session(request: web.Request) -> Session | None:
    """The session of this visitor's cookie, if that is good."""
    settings = request.app[SETTINGS]
    cookie = request.cookies.get(COOKIE, "")
    password = settings.gallery_password or ""
    session = read_with_any(
        settings.jwt_secrets, lambda secret: read_session(secret, password, cookie)
    )
    return None if session is None or session in request.app[ENDED_SESSIONS] else session


async def _given_form(request: web.Request) -> dict[str, str]:
    """What the form says, whatever was sent in its place; raise ApiError if nothing comes."""
    try:
        async with asyncio.timeout(FORM_PATIENCE_S):
            form = await request.read()
    except TimeoutError:
        raise ApiError(408, "too_slow", "The form did not arrive.") from None
    except web.RequestPayloadError:
        raise ApiError(400, "bad_form", "The form cannot be read.") from None
    return dict(parse_qsl(form.decode(errors="replace"), keep_blank_values=True))


def _sign_in_form(request: web.Request, note: str = "", status: int = 200) -> web.Response:
    values = {"note": note, "invalid": "true" if note else "false"}
    return request.app[PAGES].response("sign-in.html", "Sign in", values, status=status)


def _next_path(request: web.Request) -> str:
    """Where to go after signing in: a path of ours, whatever the link says."""
    path = request.query.get("next", "/")
    is_ours = path.startswith("/") and path.isprintable() and "\\" not in path
    return path if is_ours and not path.startswith("//") else "/"


def is_https(request: web.Request) -> bool:
    """Whether the browser came by https, to us or to the host's proxy in front of us.

    A proxy that does not say so is believed to be what PUBLIC_URL names.
    """
    forwarded = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
    public = urlsplit(request.app[SETTINGS].public_url or "")
    is_public = not forwarded and (public.scheme, public.netloc) == ("https", request.host)
    return request.secure or forwarded == "https" or is_public


def refuse_other_sites(request: web.Request) -> None:
    """What changes something is asked from our own pages only.

    Browsers name the sender's site in Sec-Fetch-Site, but not to plain http on another machine.
    There Origin tells; it is `null` for our own forms, because our pages send no referrer.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        sender = request.headers.get("Origin", "null").rpartition("://")[2]
        public_name = urlsplit(request.app[SETTINGS].public_url or "").netloc
        is_ours = sender in ("null", request.host, public_name or request.host)
    else:
        is_ours = site in ("same-origin", "none")
    if not is_ours:
        raise ApiError(403, "cross_site", "This was not sent from a page of this site.")


def _client_address(request: web.Request) -> str:
    """Who is guessing: the nearest address that nobody can make up.

    Each proxy appends who spoke to it to X-Forwarded-For, and before that stands whatever the
    visitor wrote. It counts only if our neighbour is a proxy, which is one in our own network.
    """
    address = _ip_address(request.remote or "")
    if address is not None and not address.is_global:
        lines = request.headers.getall("X-Forwarded-For", [])
        chain = [_ip_address(entry) for entry in ",".join(lines).split(",")]
        # Render's services stand behind Cloudflare and a proxy of Render's: two are appended.
        appended = 2 if request.app[SETTINGS].on_render else 1
        address = (chain[-appended] if len(chain) >= appended else None) or address
    if isinstance(address, IPv6Address):  # whoever has one has the 2^64 beside it
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address or "unknown")


def _ip_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
