"""Sign-in: one password, a signed cookie, and patience after wrong guesses."""

import hmac
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from gallery.errors import ApiError
from gallery.pages import PAGES
from gallery.settings import SETTINGS
from gallery.tokens import SESSION_LIFETIME_S, session_is_valid, session_token

log = logging.getLogger(__name__)


COOKIE: Final = "rangegram_session"
FAILURES_FORGOTTEN_S: Final = 900.0
ADDRESSES_MAX: Final = 1000
EVERYONE: Final = ""  # the address that counts the failures of all


@dataclass(frozen=True)
class _Patience:
    """So many failures cost nothing, the next ones 1, 2, 4 … seconds each."""

    free_failures: int
    delay_max_s: float


PATIENCE_PER_ADDRESS: Final = _Patience(free_failures=3, delay_max_s=60.0)
# Addresses can be invented (see _client_address). This many guesses a minute are hopeless, and the
# owner still gets a turn while somebody keeps trying.
PATIENCE_WITH_EVERYONE: Final = _Patience(free_failures=30, delay_max_s=4.0)


class SignInGate:
    """Slows down guessing, for each address by itself and for all together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}  # address: how many, when the last

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before its next attempt is looked at."""
        return max(
            self._wait_s(address, PATIENCE_PER_ADDRESS),
            self._wait_s(EVERYONE, PATIENCE_WITH_EVERYONE),
        )

    def failed(self, address: str) -> None:
        """Count a wrong password."""
        for key in (address, EVERYONE):
            count, last = self._failures.pop(key, (0, 0.0))
            forgotten = self._clock() - last > FAILURES_FORGOTTEN_S
            self._failures[key] = (1 if forgotten else count + 1, self._clock())
        while len(self._failures) > ADDRESSES_MAX:
            del self._failures[next(iter(self._failures))]

    def succeeded(self, address: str) -> None:
        """Forget this address's failures."""
        self._failures.pop(address, None)

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
    return _sign_in_form(request)


async def sign_in(request: web.Request) -> web.Response:
    """POST /sign-in: the right password gets a cookie, a wrong one the form again."""
    refuse_other_sites(request)
    password = request.app[SETTINGS].gallery_password
    if password is None:
        raise web.HTTPSeeOther("/")
    gate, address = request.app[GATE], _client_address(request)
    wait_s = gate.wait_s(address)
    if wait_s:
        seconds = math.ceil(wait_s)
        note = f"Too many wrong passwords. Try again in {seconds} second{'s' * (seconds > 1)}."
        response = _sign_in_form(request, note, status=429)
        response.headers["Retry-After"] = str(seconds)
        return response
    given = (await request.post()).get("password", "")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), password.encode()):
        gate.failed(address)
        log.warning("sign-in failed from %s", address)
        return _sign_in_form(request, "That is not the password.", status=403)
    gate.succeeded(address)
    redirect = web.HTTPSeeOther(_next_path(request))
    redirect.set_cookie(
        COOKIE,
        session_token(request.app[SETTINGS].jwt_secret, password, time.time()),
        max_age=SESSION_LIFETIME_S,
        path="/",
        httponly=True,
        samesite="Lax",
        secure=is_https(request),
    )
    raise redirect


async def sign_out(request: web.Request) -> web.Response:
    """POST /sign-out"""
    refuse_other_sites(request)
    redirect = web.HTTPSeeOther("/sign-in")
    redirect.del_cookie(COOKIE, path="/")
    raise redirect


def is_signed_in(request: web.Request) -> bool:
    settings = request.app[SETTINGS]
    if settings.gallery_password is None:
        return True
    cookie = request.cookies.get(COOKIE, "")
    return session_is_valid(settings.jwt_secret, settings.gallery_password, cookie)


def _sign_in_form(request: web.Request, note: str = "", status: int = 200) -> web.Response:
    values = {"note": note, "invalid": "true" if note else "false"}
    return request.app[PAGES].response("sign-in.html", "Sign in", values, status=status)


def _next_path(request: web.Request) -> str:
    """Where to go after signing in: a path of ours, whatever the link says."""
    path = request.query.get("next", "/")
    is_ours = path.startswith("/") and path.isprintable() and "\\" not in path
    return path if is_ours and not path.startswith("//") else "/"


def is_https(request: web.Request) -> bool:
    """Whether the browser came by https, to us or to the host's proxy in front of us."""
    forwarded = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
    return request.secure or forwarded == "https"


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
    """Who is guessing. Behind a host's proxy all have its address, so what it forwards counts.

    Somebody who invents one gets a fresh allowance, but no more than everyone's together.
    """
    forwarded = request.headers.get("X-Forwarded-For", "").partition(",")[0].strip()
    try:
        return str(ip_address(forwarded))
    except ValueError:
        return request.remote or "unknown"
