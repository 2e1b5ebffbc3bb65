"""The backend of Rangegram: shows the gallery, signs what may be watched, streams nothing itself.

    browser -- GET /, /api/files --> backend.py -- GET /files --> render-service-chunked.py
       |                                 |        (listing token)             ^
       | <- worker URL, one-hour JWT ----+                                    |
       +----------------- GET + Range, JWT in the URL ------------------------+

Rules of this file:
1. Only channels named in CHANNELS are ever listed or signed.
2. A secret is in no log line, error text or page; a signed URL goes to the player and nowhere else.
3. Everything that can grow has a limit, and every limit is a named constant with its unit.
4. Settings and values (1-4) do no I/O; the worker and the catalogue (5-6) know nothing of the
   visitor; handlers (7-9) use what stands above them.

Run: `python backend.py`. The settings are the fields of `Settings`; the README has them as a table.
"""

import asyncio
import hashlib
import hmac
import logging
import math
import mimetypes
import os
import sys
import time
import unicodedata
import zlib
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from ipaddress import ip_address
from pathlib import Path
from string import Template
from typing import Any, Final, Protocol, Self
from urllib.parse import quote, urlsplit

import jwt
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web

__version__ = "0.1.0"

log = logging.getLogger("backend")


# ---------------------------------------------------------------------------------------------
# 1. Settings: every environment variable, read once, all problems reported together
# ---------------------------------------------------------------------------------------------

JWT_SECRET_MIN_BYTES: Final = 32  # RFC 7518 section 3.2: a key of the same size as the hash output
PASSWORD_MIN_CHARACTERS: Final = 8  # NIST SP 800-63B section 5.1.1


class SettingsError(Exception):
    """Settings are missing or wrong. `problems` names them all and repeats none of their values."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Settings:
    """What the environment says; `from_env` is the only way in."""

    bot_token: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    worker_urls: tuple[str, ...]
    channels: tuple[int, ...]
    gallery_password: str | None = field(repr=False)
    bot_api_url: str
    public_url: str | None
    host: str
    port: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read everything; raise SettingsError with every problem found."""
        env = _Environment(environ)
        password = env.password("GALLERY_PASSWORD")
        settings = cls(
            bot_token=env.required("BOT_TOKEN"),
            jwt_secret=env.secret("JWT_SECRET"),
            worker_urls=tuple(
                env.url("WORKER_URL", url) for url in env.required_list("WORKER_URL")
            ),
            channels=tuple(env.integer("CHANNELS", chat) for chat in env.required_list("CHANNELS")),
            gallery_password=password,
            bot_api_url=env.url("BOT_API_URL", env.text("BOT_API_URL", "https://api.telegram.org")),
            public_url=env.optional_url("PUBLIC_URL", env.text("RENDER_EXTERNAL_URL")),
            host=env.host("HOST", open_to_all="GALLERY_PASSWORD" in env),
            port=env.port("PORT", "8080"),
        )
        if env.problems:
            raise SettingsError(list(dict.fromkeys(env.problems)))
        return settings


class _Environment:
    """Reads one variable after another and collects what is wrong with them, by name only."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def __contains__(self, name: str) -> bool:
        return bool(self.text(name))

    def text(self, name: str, default: str = "") -> str:
        return self._environ.get(name, "").strip() or default

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            self.problems.append(f"{name} is missing")
        return value

    def required_list(self, name: str) -> list[str]:
        value = self.required(name)
        items = [item.strip() for item in value.split(",") if item.strip()]
        if value and not items:
            self.problems.append(f"{name} is missing")
        return items

    def secret(self, name: str) -> str:
        value = self.required(name)
        if value and len(value.encode()) < JWT_SECRET_MIN_BYTES:
            self.problems.append(f"{name} is shorter than {JWT_SECRET_MIN_BYTES} bytes")
        return value

    def password(self, name: str) -> str | None:
        value = self.text(name) or None
        if value is not None and len(value) < PASSWORD_MIN_CHARACTERS:
            self.problems.append(f"{name} is shorter than {PASSWORD_MIN_CHARACTERS} characters")
        return value

    def integer(self, name: str, value: str) -> int:
        try:
            return int(value)
        except ValueError:
            self.problems.append(f"{name} is not a whole number (or several with commas between)")
            return 0

    def port(self, name: str, default: str) -> int:
        port = self.integer(name, self.text(name, default))
        if not 0 <= port <= 65535:
            self.problems.append(f"{name} is not between 0 and 65535")
        return port

    def url(self, name: str, value: str) -> str:
        try:
            parts = urlsplit(value)
            extras = parts.username or parts.password or parts.query or parts.fragment
            well_formed = bool(parts.scheme in ("http", "https") and parts.hostname and not extras)
            well_formed = well_formed and parts.port != 0  # reading a bad port raises ValueError
        except ValueError:
            well_formed = False
        if not well_formed:
            self.problems.append(f"{name} is not an http or https URL")
        return value.rstrip("/")

    def optional_url(self, name: str, default: str) -> str | None:
        value = self.text(name, default)
        return self.url(name, value) if value else None

    def host(self, name: str, *, open_to_all: bool) -> str:
        """Without a password the gallery is for this machine only, whatever HOST says."""
        host = self.text(name, "0.0.0.0" if open_to_all else "127.0.0.1")
        if not open_to_all and not is_loopback(host):
            self.problems.append(
                f"{name} opens the gallery to others, which needs a GALLERY_PASSWORD"
                " (without one leave it empty or at 127.0.0.1)"
            )
        return host


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------
# 2. Tokens: what the worker and the browser's cookie accept, HS256 with one shared secret
# ---------------------------------------------------------------------------------------------

TOKEN_LIFETIME_S: Final = 3600
SESSION_LIFETIME_S: Final = 30 * 24 * 3600
# Thumbnail tokens of one quarter of an hour are the same text, so that the browser's cache knows
# the picture again; the youngest of them is still good for 45 minutes.
THUMBNAIL_TOKEN_STEP_S: Final = 900


def file_token(secret: str, chat_id: int, message_id: int, now: float) -> str:
    """A token that opens this one file at the worker for an hour."""
    return _worker_token(secret, now, sub=f"{chat_id}/{message_id}")


def listing_token(secret: str, chat_id: int, now: float) -> str:
    """A token that lists this one channel at the worker and opens no bytes."""
    return _worker_token(secret, now, sub=str(chat_id), scope="list")


def _worker_token(secret: str, now: float, **claims: str) -> str:
    issued_at = int(now)
    times = {"iat": issued_at, "exp": issued_at + TOKEN_LIFETIME_S}
    return jwt.encode({"iss": "backend", "aud": "worker", **claims, **times}, secret, "HS256")


def session_token(secret: str, password: str, now: float) -> str:
    """What the cookie holds after signing in. Another password makes it worthless."""
    issued_at = int(now)
    claims = {"iss": "backend", "aud": "gallery", "sub": _password_mark(secret, password)}
    times = {"iat": issued_at, "exp": issued_at + SESSION_LIFETIME_S}
    return jwt.encode({**claims, **times}, secret, "HS256")


def session_is_valid(secret: str, password: str, token: str) -> bool:
    """Whether this cookie was given out for this password and has not run out."""
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            issuer="backend",
            audience="gallery",
            options={"require": ["exp", "aud", "sub"]},
        )
    except jwt.InvalidTokenError:
        return False
    return hmac.compare_digest(str(claims["sub"]), _password_mark(secret, password))


def _password_mark(secret: str, password: str) -> str:
    """A keyed fingerprint, so that changing the password signs everybody out."""
    return hmac.new(secret.encode(), b"gallery\0" + password.encode(), hashlib.sha256).hexdigest()


# ---------------------------------------------------------------------------------------------
# 3. Files: what the gallery knows of a file, and where at the worker it is
# ---------------------------------------------------------------------------------------------

KINDS: Final = ("video", "image", "audio", "document")

# Newest first: by date, and the two ids decide between posts of the same second.
SortKey = tuple[int, int, int]


@dataclass(frozen=True)
class MediaFile:
    """One file of one post, as the worker's listing describes it."""

    chat_id: int
    message_id: int
    name: str
    mime_type: str
    size: int
    date: int
    duration: float | None
    width: int | None
    height: int | None
    caption: str
    has_thumbnail: bool

    @classmethod
    def from_listing(cls, item: Mapping[str, Any]) -> Self:
        """Build from one element of `files`; raise KeyError, TypeError or ValueError if wrong."""
        name = str(item["name"] or "")
        return cls(
            chat_id=int(item["chat_id"]),
            message_id=int(item["message_id"]),
            name=name,
            mime_type=str(item["mime_type"] or guess_type(name)),
            size=int(item["size"]),
            date=int(item["date"]),
            duration=None if item.get("duration") is None else float(item["duration"]),
            width=None if item.get("width") is None else int(item["width"]),
            height=None if item.get("height") is None else int(item["height"]),
            caption=str(item.get("caption") or ""),
            has_thumbnail=bool(item.get("has_thumbnail")),
        )

    @property
    def sort_key(self) -> SortKey:
        return (self.date, self.message_id, self.chat_id)

    @property
    def kind(self) -> str:
        """One of KINDS. Films are often sent as octet-stream: the name decides then."""
        for mime_type in (self.mime_type, guess_type(self.name)):
            family = mime_type.partition("/")[0]
            if family in KINDS:
                return family
        return "document"

    @property
    def search_text(self) -> str:
        return fold(f"{self.name} {self.caption}")


# Python's own table, not the machine's, so that a file is the same kind everywhere.
MIME_TYPES: Final = mimetypes.MimeTypes()
for _extension, _mime_type in {
    ".flac": "audio/flac",
    ".js": "text/javascript",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".ogg": "audio/ogg",
    ".ts": "video/mp2t",
    ".webp": "image/webp",
}.items():
    MIME_TYPES.add_type(_mime_type, _extension)


def guess_type(name: str) -> str:
    """The media type a file name stands for."""
    return MIME_TYPES.guess_type(name)[0] or "application/octet-stream"


def fold(text: str) -> str:
    """Fold case and accents away, so that `amelie` finds `Amélie`."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def worker_for(worker_urls: tuple[str, ...], file: MediaFile, attempt: int = 0) -> str:
    """The worker that serves this file: always the same one, so that its cache is warm, and the
    next in line for a player that says an attempt has failed."""
    start = zlib.crc32(f"{file.chat_id}/{file.message_id}".encode())
    return worker_urls[(start + attempt) % len(worker_urls)]


def stream_url(worker_url: str, file: MediaFile, token: str) -> str:
    """The URL a player can use, ending in the file's name because players show that."""
    # A slash, even quoted, is undone by some proxies, and a segment of dots is a step upwards.
    name = file.name.replace("/", "_").replace("\\", "_")
    segment = f"/{quote(name, safe='')}" if name.strip(".") else ""
    return f"{worker_url}/stream/{file.chat_id}/{file.message_id}{segment}?token={token}"


def thumbnail_url(worker_url: str, file: MediaFile, token: str) -> str:
    """The URL of the file's Telegram thumbnail."""
    return f"{worker_url}/thumbnail/{file.chat_id}/{file.message_id}?token={token}"


# ---------------------------------------------------------------------------------------------
# 4. Errors: one type, which knows its status and its code
# ---------------------------------------------------------------------------------------------


class ApiError(Exception):
    """An error with an answer: JSON for scripts, a page for people."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    def response(self) -> web.Response:
        """The answer as JSON, never to be cached."""
        body = {"error": {"code": self.code, "message": self.message}}
        headers = {"Cache-Control": "no-store"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return web.json_response(body, status=self.status, headers=headers)


def worker_unreachable() -> ApiError:
    return ApiError(
        503,
        "worker_unreachable",
        "The worker does not answer. On a free host waking up takes it up to a minute.",
        retry_after_s=RETRY_AFTER_S,
    )


def file_not_found() -> ApiError:
    return ApiError(404, "file_not_found", "There is no such file in this gallery's channels.")


# ---------------------------------------------------------------------------------------------
# 5. Worker: asks the workers what is in a channel
# ---------------------------------------------------------------------------------------------

RETRY_AFTER_S: Final = 3
# A free Render service takes up to a minute to wake and holds the request until it is awake.
LISTING_TIMEOUT: Final = ClientTimeout(total=75, sock_connect=5)
LISTING_LIMIT: Final = 100  # messages per request: what channels.getMessages takes at once
# Gateways say these while the service behind them starts; so does a worker that is shutting down.
ASLEEP_STATUSES: Final = (502, 503, 504)


@dataclass(frozen=True)
class Listing:
    """One answer of the worker's `/files`: ascending ids, and the next `after`, None at the end."""

    files: tuple[MediaFile, ...]
    next: int | None


class WorkerClient:
    """Lists channels through whichever worker answers first in the order of WORKER_URL."""

    def __init__(self, session: ClientSession, worker_urls: tuple[str, ...], secret: str) -> None:
        self._session = session
        self._worker_urls = worker_urls
        self._secret = secret

    async def files_after(self, chat_id: int, after: int, limit: int = LISTING_LIMIT) -> Listing:
        """List the files of a channel with ids above `after`; raise ApiError when no worker can."""
        token = listing_token(self._secret, chat_id, time.time())
        problem = worker_unreachable()
        for worker_url in self._worker_urls:
            try:
                # The token travels in a header: client errors quote the URL they failed on.
                async with self._session.get(
                    f"{worker_url}/files/{chat_id}",
                    params={"after": after, "limit": limit},
                    headers={"Authorization": f"Bearer {token}"},
                ) as response:
                    if response.status == 200:
                        return _parse_listing(await response.json())
                    problem = await _refusal(response)
            except (ClientError, TimeoutError) as error:
                log.warning("worker %s does not answer: %s", worker_url, type(error).__name__)
            except (KeyError, TypeError, ValueError) as error:
                log.warning(
                    "worker %s lists in an unknown form: %s", worker_url, type(error).__name__
                )
                problem = ApiError(502, "bad_listing", "The worker's listing cannot be understood.")
        raise problem


def _parse_listing(body: Mapping[str, Any]) -> Listing:
    following = body["next"]
    files = tuple(MediaFile.from_listing(item) for item in body["files"])
    return Listing(files, None if following is None else int(following))


async def _refusal(response: ClientResponse) -> ApiError:
    """Translate a worker's refusal into what the owner of the gallery can do about it."""
    if response.status in (401, 403):
        return ApiError(
            502,
            "worker_refused",
            "The worker refuses our token: JWT_SECRET differs between the two.",
        )
    if response.status == 404:
        return ApiError(
            502,
            "channel_not_found",
            "The bot cannot see the channel: make it an administrator there.",
        )
    try:
        reason = str((await response.json())["error"]["message"])
    except (ClientError, KeyError, TypeError, ValueError):
        reason = ""
    if response.status == 429 or (response.status in ASLEEP_STATUSES and reason):
        seconds = response.headers.get("Retry-After", "")
        wait_s = float(seconds) if seconds.isdigit() else RETRY_AFTER_S
        return ApiError(503, "worker_busy", reason or "Telegram is busy.", retry_after_s=wait_s)
    if response.status in ASLEEP_STATUSES:
        return worker_unreachable()
    return ApiError(502, "worker_failed", f"The worker answered with status {response.status}.")


# ---------------------------------------------------------------------------------------------
# 6. Catalogue: the files of all channels in memory, newest first
# ---------------------------------------------------------------------------------------------

FILES_MAX: Final = 50_000  # about 1 KiB each
REFRESH_INTERVAL_S: Final = 3.0  # a film dropped into the channel shows up this soon
REFRESH_PATIENCE_S: Final = 10.0  # how long a request waits for the first look at the channels
REFRESH_GRACE_S: Final = 0.5  # and for a later one, when there is already something to show
PAGE_FILES: Final = 60
QUERY_MAX_CHARACTERS: Final = 200


class ListingSource(Protocol):
    """What the catalogue needs of the worker."""

    async def files_after(self, chat_id: int, after: int, limit: int = ...) -> Listing: ...


@dataclass(frozen=True)
class Page:
    """Some files, newest first, and the cursor of those that follow (None at the end)."""

    files: tuple[MediaFile, ...]
    next: str | None


class Catalogue:
    """Keeps up with the channels on demand, one refresh at a time and not more often than needed.

    It sees what is posted; what was edited or deleted afterwards it learns by starting anew.
    """

    def __init__(self, channels: Iterable[int], source: ListingSource) -> None:
        self._source = source
        self._after = dict.fromkeys(channels, 0)  # the last message id seen, per channel
        self._files: dict[tuple[int, int], tuple[MediaFile, str]] = {}
        self._order: list[SortKey] = []  # ascending, so that new posts are appended
        self._refresh: asyncio.Task[None] | None = None
        self._next_refresh = -math.inf
        self.problem: ApiError | None = None  # why the last refresh could not finish

    @property
    def is_reading(self) -> bool:
        """Whether a look at the channels is under way."""
        return self._refresh is not None and not self._refresh.done()

    async def page(self, query: str, kind: str | None, cursor: str | None) -> Page:
        """The files with every word of the query; raise ApiError while there is nothing to show."""
        position = None if cursor is None else _parse_cursor(cursor)
        await self._keep_up()
        if not self._files and self.problem:
            raise self.problem
        if not self._files and self.is_reading:
            raise worker_unreachable()
        return self._select(fold(query[:QUERY_MAX_CHARACTERS]).split(), kind, position)

    async def find(self, chat_id: int, message_id: int) -> MediaFile:
        """The file of this post, from memory or asked for; raise ApiError if there is none."""
        if chat_id not in self._after:
            raise file_not_found()
        if (chat_id, message_id) not in self._files:
            listing = await self._source.files_after(chat_id, message_id - 1, 1)
            self._add(file for file in listing.files if file.message_id == message_id)
        try:
            return self._files[chat_id, message_id][0]
        except KeyError:
            raise file_not_found() from None

    def start_refresh(self) -> None:
        """Begin to look at the channels, unless that is under way."""
        if not self.is_reading:
            self._refresh = asyncio.create_task(self._read_channels(), name="catalogue refresh")

    async def close(self) -> None:
        """End the refresh under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            with suppress(asyncio.CancelledError):
                await self._refresh

    async def _keep_up(self) -> None:
        """Refresh if it is time, and wait for it a while: it goes on behind the request's back."""
        if not self.is_reading and time.monotonic() < self._next_refresh:
            return
        patience_s = REFRESH_GRACE_S if self._files else REFRESH_PATIENCE_S
        self.start_refresh()
        if self._refresh is not None:
            await asyncio.wait({self._refresh}, timeout=patience_s)

    async def _read_channels(self) -> None:
        """Read all channels side by side; one that fails does not keep the others away."""
        results = await asyncio.gather(
            *map(self._read_channel, self._after), return_exceptions=True
        )
        self._next_refresh = time.monotonic() + REFRESH_INTERVAL_S
        self.problem = None
        for error in results:
            if isinstance(error, ApiError):
                self.problem = error
                log.warning("catalogue: %s: %s", error.code, error.message)
            elif isinstance(error, BaseException):
                self.problem = ApiError(500, "internal_error", "Reading the channels failed here.")
                log.error("catalogue: unexpected", exc_info=error)

    async def _read_channel(self, chat_id: int) -> None:
        """Read on from the last id seen; what was read stays if a later request fails."""
        following: int | None = self._after[chat_id]
        while following is not None:
            listing = await self._source.files_after(chat_id, following)
            self._add(file for file in listing.files if file.chat_id == chat_id)
            last = max((file.message_id for file in listing.files), default=following)
            if listing.next is not None and listing.next <= following:
                raise ApiError(502, "bad_listing", "The worker's listing does not move on.")
            following = listing.next
            self._after[chat_id] = max(last, following or 0)

    def _add(self, files: Iterable[MediaFile]) -> None:
        for file in files:
            identity = (file.chat_id, file.message_id)
            if identity not in self._files:
                insort(self._order, file.sort_key)
            self._files[identity] = (file, file.search_text)
        for _, message_id, chat_id in self._order[: -FILES_MAX or None]:
            del self._files[chat_id, message_id]
        del self._order[:-FILES_MAX]

    def _select(self, words: list[str], kind: str | None, position: SortKey | None) -> Page:
        end = len(self._order) if position is None else bisect_left(self._order, position)
        found: list[MediaFile] = []
        for index in range(end - 1, -1, -1):
            _, message_id, chat_id = self._order[index]
            file, text = self._files[chat_id, message_id]
            if (kind is None or file.kind == kind) and all(word in text for word in words):
                if len(found) == PAGE_FILES:
                    return Page(tuple(found), _format_cursor(found[-1].sort_key))
                found.append(file)
        return Page(tuple(found), None)


def _format_cursor(key: SortKey) -> str:
    return ".".join(map(str, key))


def _parse_cursor(cursor: str) -> SortKey:
    try:
        date, message_id, chat_id = map(int, cursor.split("."))
    except ValueError:
        raise ApiError(400, "bad_cursor", "The cursor is not one of ours.") from None
    return (date, message_id, chat_id)


# ---------------------------------------------------------------------------------------------
# 7. Sign-in: one password, a signed cookie, and patience after wrong guesses
# ---------------------------------------------------------------------------------------------

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


async def sign_in_page(request: web.Request) -> web.Response:
    """GET /sign-in"""
    if _is_signed_in(request):
        raise web.HTTPSeeOther(_next_path(request))
    return _sign_in_form(request)


async def sign_in(request: web.Request) -> web.Response:
    """POST /sign-in: the right password gets a cookie, a wrong one the form again."""
    _refuse_other_sites(request)
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
        secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
    )
    raise redirect


async def sign_out(request: web.Request) -> web.Response:
    """POST /sign-out"""
    _refuse_other_sites(request)
    redirect = web.HTTPSeeOther("/sign-in")
    redirect.del_cookie(COOKIE, path="/")
    raise redirect


def _is_signed_in(request: web.Request) -> bool:
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


def _refuse_other_sites(request: web.Request) -> None:
    """Forms are sent from our own pages only. Browsers name the sender's site in this header."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise ApiError(403, "cross_site", "This form was not sent from this site.")


def _client_address(request: web.Request) -> str:
    """Who is guessing. Behind a host's proxy all have its address, so what it forwards counts.

    Somebody who invents one gets a fresh allowance, but no more than everyone's together.
    """
    forwarded = request.headers.get("X-Forwarded-For", "").partition(",")[0].strip()
    try:
        return str(ip_address(forwarded))
    except ValueError:
        return request.remote or "unknown"


# ---------------------------------------------------------------------------------------------
# 8. API and pages: what the browser asks for
# ---------------------------------------------------------------------------------------------


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
    token = file_token(settings.jwt_secret, file.chat_id, file.message_id, now)
    worker_url = worker_for(
        settings.worker_urls, file, int(attempt[:6]) if attempt.isdecimal() else 0
    )
    body = {
        "url": stream_url(worker_url, file, token),
        "via": "worker",
        "expires_at": int(now) + TOKEN_LIFETIME_S,
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
        step = now - now % THUMBNAIL_TOKEN_STEP_S
        token = file_token(settings.jwt_secret, file.chat_id, file.message_id, step)
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


async def gallery_page(request: web.Request) -> web.Response:
    """GET /"""
    has_password = request.app[SETTINGS].gallery_password is not None
    values = {"sign_out": "" if has_password else "hidden"}
    return request.app[PAGES].response("gallery.html", "Rangegram", values)


async def static_file(request: web.Request) -> web.Response:
    """GET /static/[{version}/]{name}: with the version in the path it may be cached for good."""
    pages = request.app[PAGES]
    version, _, name = request.match_info["path"].rpartition("/")
    content = pages.static.get(name)
    if content is None or version not in ("", pages.version):
        raise web.HTTPNotFound
    response = web.Response(body=content, content_type=guess_type(name), charset="utf-8")
    lifetime = "public, max-age=31536000, immutable" if version else "no-cache"
    response.headers["Cache-Control"] = lifetime
    response.enable_compression()
    return response


async def health(request: web.Request) -> web.Response:
    """GET /health: 200 as soon as the process serves, whatever the worker does."""
    uptime_s = round(time.monotonic() - request.app[STARTED], 1)
    body = {"status": "ok", "version": __version__, "uptime_s": uptime_s}
    return web.json_response(body, headers={"Cache-Control": "no-store"})


class Pages:
    """Templates and static files, read once: no request costs a disk read or names another file."""

    def __init__(self, folder: Path) -> None:
        self._templates = {
            path.name: Template(path.read_text("utf-8"))
            for path in sorted((folder / "templates").glob("*.html"))
        }
        self.static = {
            path.name: path.read_bytes() for path in sorted((folder / "static").iterdir())
        }
        # Modules import each other by relative path, so the version of one is the version of all.
        self.version = hashlib.sha256(repr(self.static).encode()).hexdigest()[:12]

    def response(
        self, name: str, title: str, values: Mapping[str, str], status: int = 200
    ) -> web.Response:
        """The page in the frame of base.html. Every value is escaped; only templates are markup."""
        static = f"/static/{self.version}"
        escaped = {key: escape(value) for key, value in values.items()}
        main = self._templates[name].substitute(escaped, static=static)
        html = self._templates["base.html"].substitute(
            title=escape(title), main=main, static=static
        )
        return web.Response(
            text=html,
            status=status,
            content_type="text/html",
            headers={"Cache-Control": "no-store"},
        )


# ---------------------------------------------------------------------------------------------
# 9. Around every request: access log, errors, who may come in, security headers
# ---------------------------------------------------------------------------------------------

OPEN_TO_ALL: Final = frozenset({sign_in_page, sign_in, sign_out, static_file, health})


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
        path, duration_ms = request.rel_url.raw_path, (time.monotonic() - start) * 1000
        log.info("%s %s -> %d in %.0f ms", request.method, path, status, duration_ms)


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
        log.exception("%s %s failed", request.method, request.rel_url.raw_path)
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
    elif request.match_info.handler not in OPEN_TO_ALL and not _is_signed_in(request):
        if request.path.startswith("/api/"):
            raise ApiError(401, "sign_in_required", "Sign in first.")
        raise web.HTTPSeeOther(f"/sign-in?next={quote(request.path_qs, safe='')}")
    response: web.StreamResponse = await handler(request)
    return response


def _refuse_foreign_names(request: web.Request, settings: Settings) -> None:
    """DNS rebinding: a page elsewhere can point its name at 127.0.0.1 and read us through it."""
    name = urlsplit(f"//{request.host}").hostname or ""
    public_name = urlsplit(settings.public_url or "").hostname
    if not is_loopback(name) and name != public_name:
        raise ApiError(
            403, "foreign_host", "Without a password the gallery is for this machine only."
        )


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Nothing inline, nothing from elsewhere, media from the workers only, in no one's frame."""
    response.headers.setdefault("Content-Security-Policy", request.app[CONTENT_POLICY])
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")


def content_policy(worker_urls: Iterable[str]) -> str:
    """The Content-Security-Policy that lets the pages do what they do and nothing more."""
    parts = [urlsplit(url) for url in worker_urls]
    workers = " ".join(dict.fromkeys(f"{part.scheme}://{part.netloc}" for part in parts))
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' {workers}",
            f"media-src 'self' {workers}",
            f"connect-src 'self' {workers}",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


# ---------------------------------------------------------------------------------------------
# 10. Assembly: the application, and the process around it
# ---------------------------------------------------------------------------------------------

SETTINGS: Final = web.AppKey("SETTINGS", Settings)
CATALOGUE: Final = web.AppKey("CATALOGUE", Catalogue)
GATE: Final = web.AppKey("GATE", SignInGate)
PAGES: Final = web.AppKey("PAGES", Pages)
CONTENT_POLICY: Final = web.AppKey("CONTENT_POLICY", str)
STARTED: Final = web.AppKey("STARTED", float)

BODY_MAX_BYTES: Final = 16 * 1024  # the largest thing anybody sends us is a password
FOLDER: Final = Path(__file__).resolve().parent


def create_app(settings: Settings) -> web.Application:
    """The application for these settings, ready to be served."""
    app = web.Application(
        middlewares=[log_request, answer_errors, check_visitor], client_max_size=BODY_MAX_BYTES
    )
    app[SETTINGS] = settings
    app[GATE] = SignInGate()
    app[PAGES] = Pages(FOLDER)
    app[CONTENT_POLICY] = content_policy(settings.worker_urls)
    app[STARTED] = time.monotonic()
    app.cleanup_ctx.append(catalogue_lifespan)
    app.on_response_prepare.append(add_security_headers)
    file = r"/api/files/{chat_id:-?\d{1,20}}/{message_id:[1-9]\d{0,9}}"
    app.add_routes(
        [
            web.get("/", gallery_page),
            web.get("/api/files", list_files),
            web.get(file, show_file),
            web.get(f"{file}/url", sign_url),
            web.get("/sign-in", sign_in_page),
            web.post("/sign-in", sign_in),
            web.post("/sign-out", sign_out),
            web.get("/static/{path:.+}", static_file),
            web.get("/health", health),
        ]
    )
    return app


async def catalogue_lifespan(app: web.Application) -> AsyncIterator[None]:
    """Start reading the channels at once: the first visitor finds them read and a worker awake."""
    settings = app[SETTINGS]
    async with ClientSession(timeout=LISTING_TIMEOUT) as session:
        worker = WorkerClient(session, settings.worker_urls, settings.jwt_secret)
        catalogue = app[CATALOGUE] = Catalogue(settings.channels, worker)
        catalogue.start_refresh()
        yield
        await catalogue.close()


def main() -> None:
    """Serve until stopped. Exit status 2: the settings are wrong; 1: the port is taken."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            print(f"backend: {problem}", file=sys.stderr)
        sys.exit(2)
    log.info("gallery on http://%s:%d", settings.host, settings.port)
    try:
        web.run_app(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            access_log=None,
            print=None,
            handler_cancellation=True,
        )
    except OSError as error:
        log.error("cannot listen on %s:%d: %s", settings.host, settings.port, error.strerror)
        sys.exit(1)


if __name__ == "__main__":
    main()
