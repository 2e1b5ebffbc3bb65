#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "aiohttp==3.14.5",
#   "cryptg==0.6.0",
#   "PyJWT==2.15.1",
#   "Telethon==1.45.0",
#   "uvloop==0.23.0; sys_platform != 'win32' and platform_python_implementation == 'CPython'",
# ]
# ///
"""Rangegram worker: plays Telegram-hosted files over HTTP, one byte range at a time.

A request such as

    GET /stream/-1001234567890/42/film.mp4?token=<JWT>        Range: bytes=1000000-

becomes a few `upload.getFile` calls over MTProto and is answered `206 Partial Content`, so that a
<video> tag, VLC or curl plays at once and seeks anywhere in a 2 GB film, in little memory.

    HTTP request
      | Worker            authorise, locate, parse the range, answer   one per process     (7)
      v RangeReader       order, read-ahead window, back-pressure      one per response    (8)
      v ChunkCache        byte-bounded LRU, single flight              one per process     (9)
      v ConnectionPool    queue, in-flight limits, flood waits         one per data centre (10)
      v TelegramGateway   the only code that knows Telethon            one per process     (11)
    Telegram              bytes come back as return values, never by callback

Rules of this file:
1. Calls go down the page; bytes come back up as results. No layer knows one above it.
2. Decide without `await`, then do the I/O: shared state is never left half-changed, so there are
   no locks to order.
3. Everything that can grow has a limit, and every limit is a named constant or a setting with its
   unit.
4. Only the gateway touches Telethon, and only the gateway turns its errors into ours.

Sections 1-6 are pure; 7-11 are the request's path read downwards; 12 assembles.

Run it: set the variables of `Settings` below (README.md has the table), then

    pip install -r requirements.txt && python render-service-chunked.py
    uv run render-service-chunked.py            # needs nothing else: see the lines at the top
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import itertools
import json
import logging
import math
import mimetypes
import os
import platform
import re
import secrets
import signal
import socket
import struct
import sys
import time
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import quote, urlencode

try:
    import fcntl
    import resource
except ImportError:  # Windows: no lock on the session file, no limit on open files to raise
    fcntl = resource = None  # type: ignore[assignment]  # to the type checker they are modules

import cryptg  # Telethon would do without, by AES in pure Python, 200 times too slow for video
import jwt
from aiohttp import ClientError, ClientSession, ClientTimeout, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from telethon import errors as telethon_errors
from telethon.crypto import AuthKey
from telethon.crypto import rsa as telethon_rsa
from telethon.extensions import BinaryReader
from telethon.extensions.messagepacker import MessagePacker
from telethon.network import MTProtoSender
from telethon.network.mtprotostate import MSG_TOO_NEW_DELTA, MSG_TOO_OLD_DELTA, MTProtoState
from telethon.network.requeststate import RequestState
from telethon.sessions import StringSession
from telethon.tl import functions, types
from telethon.tl.alltlobjects import LAYER
from telethon.tl.core import RpcResult, TLMessage
from telethon.utils import stripped_photo_to_jpg

__version__ = "0.1.0"

KIB = 1024
MIB = 1024 * KIB

log = logging.getLogger("rangegram.worker")


# ------------------------------------------------------------------------------------------------
# 1. Settings: every environment variable, read once, all problems reported together
# ------------------------------------------------------------------------------------------------


class SettingsError(Exception):
    """Settings that cannot work; `problems` holds one «NAME: what to do» line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class DataCentre:
    """Where a Telegram data centre listens."""

    dc_id: int
    host: str
    port: int


TELEGRAM = DataCentre(2, "149.154.167.51", 443)
"""Telegram's own entrance; it says where the other data centres are (help.getConfig)."""

JWT_SECRET_MIN_BYTES = 32  # RFC 7518 section 3.2: an HS256 key has at least the hash's 256 bits
SECRET_NAMES = ("API_HASH", "BOT_TOKEN", "JWT_SECRET", "SESSION_STRING")
JWT_SECRETS_MAX = 2  # the one that signs, and the one before it
SESSION_FILE_NAME = "rangegram-worker.session"
MEMORY_BUDGET_MIN_MB = 4
IN_FLIGHT_MOST_MB = 64


SETTINGS_HELP = (
    ("API_ID", "required", "of your application, from my.telegram.org"),
    ("API_HASH", "required", "likewise"),
    ("BOT_TOKEN", "required", "one bot token of @BotFather, or several separated by commas"),
    (
        "JWT_SECRET",
        "required",
        "at least 32 bytes, the same as the backend's; new,old to change it",
    ),
    ("SESSION_FILE", SESSION_FILE_NAME, "where the keys are kept between starts; none for nowhere"),
    ("SESSION_STRING", "", "one session per bot, for hosts without a disk; --session makes it"),
    (
        "HANDOVER_URL",
        "RENDER_EXTERNAL_URL",
        "where the worker before this one is asked for its session",
    ),
    ("HOST", "0.0.0.0", "where it listens"),
    ("PORT", "10000", "likewise"),
    ("ALLOWED_ORIGINS", "*", "which pages may read it by script, separated by commas"),
    ("MEMORY_BUDGET_MB", "64", "everything held for viewers, in MiB"),
    (
        "IN_FLIGHT_MIN_MB",
        "1",
        "how much one bot asks of one data centre at a time, at least, in MiB",
    ),
    ("IN_FLIGHT_MAX_MB", "4", "the same, at most"),
    ("TELEGRAM_DC", "", "dc_id@host:port of a server other than Telegram's own"),
    ("TELEGRAM_DC_KEY", "", "the path of its RSA public key, PEM"),
    ("API_HASH_FILE", "", "a file with API_HASH in it; likewise the next three"),
    ("BOT_TOKEN_FILE", "", "for BOT_TOKEN"),
    ("JWT_SECRET_FILE", "", "for JWT_SECRET"),
    ("SESSION_STRING_FILE", "", "for SESSION_STRING"),
)
"""Name, default and meaning of every setting, for --help; a test compares them with the README."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says."""

    api_id: int
    api_hash: str = field(repr=False)
    bot_tokens: tuple[str, ...] = field(repr=False)
    jwt_secrets: tuple[str, ...] = field(repr=False)
    session_strings: tuple[str, ...] = field(default=(), repr=False)
    session_file: Path | None = None
    handover_url: str = ""
    host: str = "0.0.0.0"
    port: int = 10000
    allowed_origins: tuple[str, ...] = ("*",)
    memory_budget_mb: int = 64
    in_flight_min_mb: int = 1
    in_flight_max_mb: int = 4
    telegram: DataCentre = TELEGRAM
    telegram_key_pem: bytes | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check everything; raises SettingsError with all that is wrong, never a value."""
        reader = _EnvironmentReader(environ)
        reader.read_secret_files()
        in_flight_min_mb = reader.number("IN_FLIGHT_MIN_MB", 1, 1, IN_FLIGHT_MOST_MB)
        in_flight_max_mb = reader.number(
            "IN_FLIGHT_MAX_MB", max(4, in_flight_min_mb), in_flight_min_mb, IN_FLIGHT_MOST_MB
        )
        settings = cls(
            api_id=reader.number("API_ID", None, 1, 2**31 - 1),
            api_hash=reader.text("API_HASH", r"\w+", "the api_hash of your application"),
            bot_tokens=reader.words(
                "BOT_TOKEN", r"[0-9]+:[\w-]+", "123456:letters, from @BotFather"
            ),
            jwt_secrets=reader.jwt_secrets(),
            session_strings=reader.session_strings(),
            session_file=reader.session_file(),
            handover_url=reader.handover_url(),
            host=reader.environ.get("HOST") or "0.0.0.0",
            port=reader.number("PORT", 10000, 0, 65535),
            allowed_origins=reader.origins(),
            memory_budget_mb=reader.number("MEMORY_BUDGET_MB", 64, MEMORY_BUDGET_MIN_MB, 2**20),
            in_flight_min_mb=in_flight_min_mb,
            in_flight_max_mb=in_flight_max_mb,
            telegram=reader.data_centre(),
            telegram_key_pem=reader.data_centre_key(),
        )
        if reader.problems:
            raise SettingsError(reader.problems)
        return settings


class _EnvironmentReader:
    """Reads one variable at a time and remembers what was wrong, naming names and no values."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []

    def read_secret_files(self) -> None:
        """Take secrets from files where NAME_FILE names one, as systemd and Docker do it."""
        found = {}
        for name in SECRET_NAMES:
            path = self.environ.get(f"{name}_FILE", "").strip()
            if path and self.environ.get(name, "").strip():
                self.problems.append(f"{name}_FILE: is given beside {name}; one will do")
            elif path:
                try:
                    found[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
                except (OSError, ValueError):
                    self.problems.append(f"{name}_FILE: cannot be read")
        self.environ = {**self.environ, **found} if found else self.environ

    def number(self, name: str, default: int | None, least: int, most: int) -> int:
        text = self.environ.get(name, "").strip()
        if not text and default is not None:
            return default
        if re.fullmatch(r"[0-9]{1,12}", text) and least <= int(text) <= most:
            return int(text)
        self.problems.append(f"{name}: must be a whole number from {least} to {most}")
        return least

    def text(self, name: str, pattern: str, form: str) -> str:
        text = self.environ.get(name, "").strip()
        if not re.fullmatch(pattern, text):
            self.problems.append(f"{name}: must be {form}")
        return text

    def words(self, name: str, pattern: str, form: str) -> tuple[str, ...]:
        words = tuple(
            word.strip() for word in self.environ.get(name, "").split(",") if word.strip()
        )
        if not words or not all(re.fullmatch(pattern, word, re.ASCII) for word in words):
            self.problems.append(f"{name}: must be one or more, separated by commas, of {form}")
        elif len({word.partition(":")[0] for word in words}) < len(words):
            self.problems.append(f"{name}: names one bot twice")
        return words

    def jwt_secrets(self) -> tuple[str, ...]:
        """The secret that signs, and after a comma the old one that is still believed."""
        secrets = split_secrets(self.environ.get("JWT_SECRET", ""))
        if len(secrets[0].encode()) < JWT_SECRET_MIN_BYTES:
            self.problems.append(f"JWT_SECRET: must have at least {JWT_SECRET_MIN_BYTES} bytes")
        if len(secrets) > JWT_SECRETS_MAX:
            self.problems.append(f"JWT_SECRET: must be one secret, or {JWT_SECRETS_MAX} at most")
        return secrets

    def session_strings(self) -> tuple[str, ...]:
        words = [word.strip() for word in self.environ.get("SESSION_STRING", "").split(",")]
        try:
            for word in filter(None, words):
                StringSession(word)
        except (ValueError, struct.error):
            self.problems.append("SESSION_STRING: is not a Telethon StringSession")
            return ()
        return tuple(words) if any(words) else ()

    def session_file(self) -> Path | None:
        text = self.environ.get("SESSION_FILE", "").strip()
        if text.lower() == "none":
            return None
        return Path(text) if text else Path(__file__).with_name(SESSION_FILE_NAME)

    def handover_url(self) -> str:
        text = self.environ.get("HANDOVER_URL") or self.environ.get("RENDER_EXTERNAL_URL") or ""
        url = text.strip().rstrip("/")
        if url and not re.fullmatch(r"https?://[^/?#\s]+", url):
            self.problems.append("HANDOVER_URL: must be https://… without a path")
        return url

    def origins(self) -> tuple[str, ...]:
        text = self.environ.get("ALLOWED_ORIGINS", "").strip() or "*"
        origins = tuple(origin.strip().rstrip("/") for origin in text.split(","))
        if not all(re.fullmatch(r"\*|null|https?://[^/\s]+", origin) for origin in origins):
            self.problems.append(
                "ALLOWED_ORIGINS: must be *, null, or https://… origins without a path"
            )
        return origins

    def data_centre(self) -> DataCentre:
        text = self.environ.get("TELEGRAM_DC", "").strip()
        if not text:
            return TELEGRAM
        match = re.fullmatch(r"([1-9][0-9]{0,4})@(\[[^\]]+\]|[^:\s]+):([0-9]{1,5})", text)
        if not match or not 0 < int(match[3]) < 65536:
            self.problems.append("TELEGRAM_DC: must look like 2@127.0.0.1:443")
            return TELEGRAM
        return DataCentre(int(match[1]), match[2].strip("[]"), int(match[3]))

    def data_centre_key(self) -> bytes | None:
        path = self.environ.get("TELEGRAM_DC_KEY", "").strip()
        if bool(path) != bool(self.environ.get("TELEGRAM_DC", "").strip()):
            self.problems.append("TELEGRAM_DC_KEY: goes together with TELEGRAM_DC")
        if not path:
            return None
        try:
            return read_rsa_public_key(Path(path).read_bytes())
        except (OSError, ValueError):
            self.problems.append(
                "TELEGRAM_DC_KEY: must be the path of an RSA public key in PEM form"
            )
            return None


def split_secrets(text: str) -> tuple[str, ...]:
    """The secrets in a text with commas between.

    A comma with less than a secret beside it is part of one secret.
    """
    secrets = tuple(text.split(","))
    is_list = all(len(secret.encode()) >= JWT_SECRET_MIN_BYTES for secret in secrets)
    return secrets if is_list else (text,)


def read_rsa_public_key(pem: bytes) -> bytes:
    """The key as PKCS#1 PEM, from PKCS#1 or SubjectPublicKeyInfo; raises ValueError otherwise."""
    # Telethon's own dependency does the parsing, so that the worker needs nothing more installed.
    public_key = telethon_rsa.rsa.PublicKey
    try:
        if b"BEGIN RSA PUBLIC KEY" in pem:
            key = public_key.load_pkcs1(pem)
        else:
            key = public_key.load_pkcs1_openssl_pem(pem)
    except Exception as error:  # its ASN.1 reader raises types of its own for broken input
        raise ValueError("not an RSA public key") from error
    return bytes(key.save_pkcs1())


# ------------------------------------------------------------------------------------------------
# 2. Vocabulary: Telegram's limits, the values that travel through the layers, what can go wrong
# ------------------------------------------------------------------------------------------------

# Telegram's rules (core.telegram.org/api/files): offset and limit are multiples of 4 KiB, 1 MiB is
# a multiple of the limit, and no request crosses a 1 MiB boundary. Chunks whose size is a power of
# two and that stand at a multiple of their own size keep all three rules.
CHUNK_MAX_BYTES = MIB
CHUNK_MIN_BYTES = 128 * KIB

PIECE_BYTES = 112 * KIB
"""How bytes travel through the worker: decrypted, kept and handed to the socket in such pieces.
Small enough that malloc serves them from memory it has (fresh pages from the system cost a third
of the decryption), and that a stalled viewer holds little in the kernel's reach."""

MESSAGE_ID_MAX = 2**31 - 1  # TL's `int`

HOLD_MAX_S = 20.0
"""Players wait about this long for an answer; a longer flood wait is told to them at once."""
HOLD_MIDWAY_S = 65.0
"""Once bytes flow a silence is nothing to a player with a full buffer, and an error would end the
film: a flood wait of a minute is waited out."""
BACK_OFF_START_S = 0.2
BACK_OFF_MAX_S = 5.0

TOKEN_LIFETIME_S = 3600
RENEWAL_LIFETIME_S = 12 * 3600
HANDOVER_LIFETIME_S = 60
PARTS_MAX = 200  # of one split film; Telegram takes 2 GB a file
CLOCK_SKEW_S = 60  # how far ahead the clock of the one that signs may run


OCTET_STREAM = "application/octet-stream"

_MIME_BY_SUFFIX = mimetypes.MimeTypes(filenames=())
for _suffix, _type in (
    (".mkv", "video/x-matroska"),
    (".webm", "video/webm"),
    (".m4v", "video/mp4"),
    (".ts", "video/mp2t"),
    (".flac", "audio/flac"),
    (".opus", "audio/ogg"),
    (".ogg", "audio/ogg"),
    (".webp", "image/webp"),
    (".srt", "application/x-subrip"),
    (".vtt", "text/vtt"),
):
    _MIME_BY_SUFFIX.add_type(_type, _suffix)


def mime_type_of(given: str, name: str) -> str:
    """The document's own type when it has a usable one, else by the name's suffix."""
    given = given.strip().lower()
    if re.fullmatch(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", given) and given != OCTET_STREAM:
        return given
    return _MIME_BY_SUFFIX.guess_type(name)[0] or OCTET_STREAM


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Chunk(NamedTuple):
    """What one `upload.getFile` asks for: `size` bytes at a multiple of `size`."""

    offset: int
    size: int

    @property
    def stop(self) -> int:
        return self.offset + self.size


class ChunkBody:
    """The bytes of one chunk, left in the pieces in which they were decrypted.

    `pieces` are all of PIECE_BYTES, the last one may be longer or shorter; the chunk's own bytes
    begin after `skip` bytes of the first and are `length` in all.
    """

    __slots__ = ("_length", "_pieces", "_skip")

    def __init__(self, pieces: Sequence[bytes], skip: int, length: int) -> None:
        self._pieces = pieces
        self._skip = skip
        self._length = length

    @classmethod
    def of(cls, body: bytes) -> ChunkBody:
        pieces = [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)]
        return cls(pieces, 0, len(body))

    def __len__(self) -> int:
        return self._length

    def view(self, start: int, stop: int) -> memoryview:
        """The bytes from `start` to the end of their piece, or to `stop` if that comes first."""
        start, stop = start + self._skip, min(stop, self._length) + self._skip
        number = min(start // PIECE_BYTES, len(self._pieces) - 1)
        before = number * PIECE_BYTES
        return memoryview(self._pieces[number])[start - before : stop - before]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at Telegram, the same for every bot: no access hash and no file reference in it."""

    chat_id: int
    message_id: int
    media_id: int
    variant: str  # "" for the file itself, else Telegram's letter of a photo size or thumbnail
    dc_id: int
    complete_length: int
    mime_type: str
    name: str
    modified: datetime

    @property
    def key(self) -> tuple[int, str]:
        """What makes its bytes its own: another message with the same document shares them."""
        return self.media_id, self.variant

    @property
    def entity_tag(self) -> str:
        """A strong ETag (RFC 9110 section 8.8.3): Telegram never changes a document in place."""
        return f'"{self.media_id:x}{self.variant}-{self.complete_length:x}"'

    def spans(self, wanted: ByteRange) -> Iterator[tuple[RemoteFile, ByteRange]]:
        """Where those bytes lie: in this file."""
        yield self, wanted


@dataclass(frozen=True, slots=True)
class JoinedFile:
    """Files posted one after another, `film.mkv.001` and so on, that are one film together."""

    parts: tuple[RemoteFile, ...]

    @property
    def name(self) -> str:
        return _PART_SUFFIX.sub("", self.parts[0].name)

    @property
    def mime_type(self) -> str:
        return mime_type_of("", self.name)

    @property
    def complete_length(self) -> int:
        return sum(part.complete_length for part in self.parts)

    @property
    def modified(self) -> datetime:
        return max(part.modified for part in self.parts)

    @property
    def entity_tag(self) -> str:
        tags = "".join(part.entity_tag for part in self.parts)
        return f'"{sha256(tags.encode()).hexdigest()[:24]}"'

    def spans(self, wanted: ByteRange) -> Iterator[tuple[RemoteFile, ByteRange]]:
        """Where those bytes lie: which of each file, in order."""
        before = 0
        for part in self.parts:
            start = max(wanted.start - before, 0)
            stop = min(wanted.stop - before, part.complete_length)
            if start < stop:
                yield part, ByteRange(start, stop)
            before += part.complete_length


_PART_SUFFIX = re.compile(r"\.(part)?[0-9]{1,4}$", re.IGNORECASE)

AnyFile = RemoteFile | JoinedFile
"""Whatever is served by ranges under one entity tag."""


@dataclass(frozen=True, slots=True)
class Quality:
    """A film as Telegram's server coded it anew, and the playlist that belongs to it."""

    video: RemoteFile
    playlist: RemoteFile
    codec: str  # Telegram's word: h264, h265, av1
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class StoryboardFiles:
    """Small pictures of a film's moments in one picture, and the text that says which is where."""

    picture: RemoteFile
    map: RemoteFile


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One entry of a channel's listing: the file, and what a gallery wants to know of it."""

    file: RemoteFile
    duration_s: float
    width: int
    height: int
    caption: str
    date: datetime
    has_thumbnail: bool
    title: str = ""
    performer: str = ""
    reply_to: int | None = None
    album: int | None = None
    qualities: tuple[Quality, ...] = ()
    storyboard: StoryboardFiles | None = None

    def document(self, document_id: int) -> RemoteFile:
        """The file itself or one that Telegram made of it; raises FileMissing."""
        made = [file for quality in self.qualities for file in (quality.video, quality.playlist)]
        made += [self.storyboard.picture, self.storyboard.map] if self.storyboard else []
        for file in (self.file, *made):
            if file.media_id == document_id:
                return file
        raise FileMissing("Telegram has no such document of this file.")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows: `subject` and nothing else.

    `parts` are the messages of the same chat whose files go on where the subject's file ends.
    """

    subject: str
    scope: Literal["file", "list"]
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What --check found of one thing, and what to do if it is not well."""

    is_well: bool
    text: str


class StreamError(Exception):
    """Something the viewer should hear of; knows its HTTP status and its code in the error JSON."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"


class TokenMissing(StreamError):
    status, code = 401, "token_missing"


class TokenInvalid(StreamError):
    status, code = 401, "token_invalid"


class TokenExpired(StreamError):
    status, code = 401, "token_expired"


class NotAllowed(StreamError):
    status, code = 403, "token_for_another_file"


class BadQuery(StreamError):
    status, code = 400, "bad_query"


class FileMissing(StreamError):
    status, code = 404, "file_missing"


class FileReplaced(FileMissing):
    """The message holds another file by now; who asked for the first bytes gets that one."""


class ChannelMissing(StreamError):
    status, code = 404, "channel_missing"


class PreconditionFailed(StreamError):
    status, code = 412, "precondition_failed"


class RangeNotSatisfiable(StreamError):
    status, code = 416, "range_not_satisfiable"

    def __init__(self, complete_length: int) -> None:
        super().__init__(f"The file has {complete_length} bytes.")
        self.complete_length = complete_length


class UpstreamFailed(StreamError):
    """Telegram answered with something that asking again will not mend."""

    status, code = 502, "telegram_failed"


class TemporaryFailure(StreamError):
    """A time-out, a lost connection, an internal error at Telegram: asking again may help."""

    status, code = 502, "telegram_unreachable"


class UpstreamBusy(StreamError):
    status, code = 503, "telegram_busy"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class FloodWait(UpstreamBusy):
    """Telegram wants this account to pause for exactly `retry_after_s`."""

    status, code = 429, "flood_wait"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"Telegram asks to wait {retry_after_s:.0f} s.", retry_after_s)


class TooManyViewers(UpstreamBusy):
    code = "too_many_viewers"


def back_off_s(failures: int) -> float:
    """How long to pause after so many failures in a row."""
    return min(BACK_OFF_MAX_S, BACK_OFF_START_S * 2.0 ** max(0, failures - 1))


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Remembered(OrderedDict[_Key, _Value]):
    """A dict that forgets what was put in longest ago once it holds `most` entries."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: _Key, value: _Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)


def consume_exception(task: asyncio.Future[Any]) -> None:
    """Whoever waited has seen the exception; when nobody did, it is of no interest to anyone."""
    if not task.cancelled() and isinstance(error := task.exception(), StreamError):
        let_go_of_frames(error)


def let_go_of_frames(error: Exception) -> None:
    """Forget where an error came from that needs no explanation.

    These frames often refer to what holds the error, and to pieces of films: all of it would wait
    for the garbage collector, which comes by so rarely that a bad day would cost megabytes.
    """
    error.__traceback__ = None


# ------------------------------------------------------------------------------------------------
# 3. Access: tokens in, grants out
# ------------------------------------------------------------------------------------------------

_COMPACT_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


def verify_token(token: str, secrets: tuple[str, ...], now: float) -> Grant:
    """What the token, signed with any of the secrets, allows at `now` (Unix seconds).

    Raises TokenInvalid, or TokenExpired for one that was good until its `exp`. HS256 only; `iss`,
    `aud`, `sub`, `iat` and `exp` are required, and no token lives longer than an hour (RFC 7519).
    """
    claims = _verified_claims(token, secrets, "worker")
    issued, expires = claims.get("iat"), claims["exp"]
    if not isinstance(issued, (int, float)):
        raise TokenInvalid("The token does not say when it was issued.")
    if issued > now + CLOCK_SKEW_S:
        raise TokenInvalid("The token was issued in the future: a clock here or there is wrong.")
    if expires - issued > TOKEN_LIFETIME_S:
        raise TokenInvalid("The token lives too long.")
    scope = claims.get("scope", "file")
    if scope not in ("file", "list"):
        raise TokenInvalid("The token has an unknown scope.")
    if expires <= now:
        raise TokenExpired("The token has expired.")
    return Grant(claims["sub"], scope, _parts(claims))


def _parts(claims: Mapping[str, Any]) -> tuple[int, ...]:
    parts = claims.get("parts", [])
    if not isinstance(parts, list) or len(parts) >= PARTS_MAX:
        raise TokenInvalid("The token names its parts in no way that is known here.")
    if not all(type(part) is int and 0 < part <= MESSAGE_ID_MAX for part in parts):
        raise TokenInvalid("The token names a part that is none.")
    return tuple(parts)


def renewed_token(grant: str, subject: str, secrets: tuple[str, ...], now: float) -> str:
    """A fresh token for `subject`, bought with a renewal grant; never outlives the grant.

    Raises TokenInvalid, TokenExpired, or NotAllowed for a grant of another file.
    """
    claims = _verified_claims(grant, secrets, "renewal")
    if claims["exp"] > now + RENEWAL_LIFETIME_S + CLOCK_SKEW_S:
        raise TokenInvalid("The renewal grant lives too long.")
    if claims["exp"] <= now:
        raise TokenExpired("The renewal grant has expired.")
    if claims["sub"] != subject:
        raise NotAllowed("The renewal grant is for another file.")
    issued = int(now)
    expires = min(issued + TOKEN_LIFETIME_S, claims["exp"])
    fresh = {"iss": "backend", "aud": "worker", "sub": subject, "iat": issued, "exp": expires}
    if parts := _parts(claims):
        fresh["parts"] = list(parts)
    return jwt.encode(fresh, secrets[0], algorithm="HS256")


def handover_token(instance: str, secrets: tuple[str, ...], now: float) -> str:
    """What a worker of this id shows to the one before it, to be given the session at Telegram."""
    issued = int(now)
    claims = {"iss": "worker", "aud": "handover", "sub": instance, "iat": issued}
    claims["exp"] = issued + HANDOVER_LIFETIME_S
    return jwt.encode(claims, secrets[0], algorithm="HS256")


def verify_handover(token: str, secrets: tuple[str, ...], now: float) -> str:
    """The id of the worker that asks for the session; raises TokenInvalid or TokenExpired."""
    claims = _verified_claims(token, secrets, "handover", issuer="worker")
    if claims["exp"] <= now:
        raise TokenExpired("The token has expired.")
    return str(claims["sub"])


def _verified_claims(
    token: str, secrets: tuple[str, ...], audience: str, issuer: str = "backend"
) -> dict[str, Any]:
    """The claims of a token with a good signature and form; its times are not looked at."""
    if not _COMPACT_JWT.fullmatch(token):
        raise TokenInvalid("The token is malformed.")
    options: Any = {"require": ["iss", "aud", "sub", "exp"], "strict_aud": True}
    options |= {"verify_exp": False, "verify_iat": False}
    for secret in secrets:
        try:
            claims: dict[str, Any] = jwt.decode(
                token, secret, ["HS256"], options=options, audience=audience, issuer=issuer
            )
        except jwt.InvalidSignatureError:
            continue  # perhaps it is signed with the other secret
        except jwt.InvalidTokenError as error:
            raise TokenInvalid("The token is not valid here.") from error
        # Python's JSON also has NaN, which is later than nothing, and whole numbers of any size.
        times = (claims["exp"], claims.get("iat", 0))
        are_times = all(isinstance(each, (int, float)) and abs(each) < 2**53 for each in times)
        if not are_times or not isinstance(claims["sub"], str):
            raise TokenInvalid("The token is malformed.")
        return claims
    raise TokenInvalid("The token is not valid here.")


# ------------------------------------------------------------------------------------------------
# 4. Ranges: conditional requests and byte ranges, RFC 9110 sections 8.8, 13 and 14
# ------------------------------------------------------------------------------------------------

RANGES_MAX = 16  # a player asks for one; more than this is answered with the whole file
_RANGE_SPEC = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")
_ENTITY_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def parse_range(header: str | None, complete_length: int) -> tuple[ByteRange, ...]:
    """The satisfiable ranges a Range header asks for; none of them means the whole file.

    Raises RangeNotSatisfiable. RFC 9110 section 14.2 lets a server ignore a header that it finds
    malformed, of an unknown unit, of many ranges or of overlapping ones, and so it is done here:
    the answer to those is the whole file, never an error and never more work than the file itself.
    """
    unit, equals, range_set = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    specs = [spec.strip(" \t") for spec in range_set.split(",")]
    ranges = [_parse_range_spec(spec, complete_length) for spec in specs if spec]
    if not ranges or None in ranges or len(ranges) > RANGES_MAX:
        return ()
    satisfiable = [wanted for wanted in ranges if wanted is not None and wanted.length > 0]
    if not satisfiable:
        raise RangeNotSatisfiable(complete_length)
    in_order = sorted(satisfiable, key=lambda wanted: wanted.start)
    if any(left.stop > right.start for left, right in itertools.pairwise(in_order)):
        return ()
    return tuple(satisfiable)


def _parse_range_spec(spec: str, complete_length: int) -> ByteRange | None:
    """One range, clamped to the file (empty when unsatisfiable); None for a malformed one."""
    match = _RANGE_SPEC.fullmatch(spec)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(_clamped_int(suffix), complete_length)
        return ByteRange(complete_length - length, complete_length)
    start = _clamped_int(first)
    if last and _clamped_int(last) < start:
        return None
    stop = min(_clamped_int(last) + 1, complete_length) if last else complete_length
    return ByteRange(min(start, complete_length), stop)


def _clamped_int(digits: str) -> int:
    # Python refuses to convert thousands of digits; no file has more than 18 of them.
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= 18 else 10**18


def content_range(byte_range: ByteRange, complete_length: int) -> str:
    return f"bytes {byte_range.start}-{byte_range.stop - 1}/{complete_length}"


def range_applies(if_range: str | None, file: AnyFile) -> bool:
    """Whether If-Range, if any, names this very state of the file (RFC 9110 section 13.1.5).

    Only a strong entity tag or the exact Last-Modified date does; a weak tag never.
    """
    if if_range is None:
        return True
    if if_range.startswith(('"', "W/")):
        return if_range == file.entity_tag
    return _parse_date(if_range) == file.modified


CONDITIONAL_HEADERS = (
    hdrs.IF_MATCH,
    hdrs.IF_UNMODIFIED_SINCE,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
)


def check_preconditions(headers: Mapping[str, str], file: AnyFile) -> bool:
    """Evaluate If-Match & co. in the order of RFC 9110 section 13.2.2.

    True: go on. False: answer 304, the client has it already. Raises PreconditionFailed for 412.
    """
    if (wanted := headers.get(hdrs.IF_MATCH)) is not None:
        if not _tag_listed(wanted, file.entity_tag, weak=False):
            raise PreconditionFailed("The file is not the one in If-Match.")
    elif (when := _parse_date(headers.get(hdrs.IF_UNMODIFIED_SINCE))) and file.modified > when:
        raise PreconditionFailed("The file was modified since.")
    if (known := headers.get(hdrs.IF_NONE_MATCH)) is not None:
        return not _tag_listed(known, file.entity_tag, weak=True)
    when = _parse_date(headers.get(hdrs.IF_MODIFIED_SINCE))
    return when is None or file.modified > when


def _tag_listed(header: str, entity_tag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    return any(
        tag == entity_tag and (weak or not is_weak) for is_weak, tag in _ENTITY_TAG.findall(header)
    )


def _parse_date(text: str | None) -> datetime | None:
    """An HTTP date, or None for none and for one that is not a date, which is to be ignored."""
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


# ------------------------------------------------------------------------------------------------
# 5. Chunks: how a range becomes requests, and how far to read ahead
# ------------------------------------------------------------------------------------------------

CHUNK_TIME_S = 0.25
"""How long the largest chunk may be on a line: on a thin one a big chunk would hold up the next
viewer's first byte."""
WINDOW_MIN_BYTES = 2 * CHUNK_MIN_BYTES


@dataclass(frozen=True, slots=True)
class Pace:
    """What the lines to a data centre bear: the largest chunk, the widest window of one reader."""

    chunk_bytes: int
    window_bytes: int


def largest_chunk_bytes(bytes_per_second: float) -> int:
    """The largest legal chunk that such a line carries within CHUNK_TIME_S."""
    size = CHUNK_MAX_BYTES
    while size > CHUNK_MIN_BYTES and size > bytes_per_second * CHUNK_TIME_S:
        size //= 2
    return size


def chunk_at(position: int, wanted_bytes: int, stop: int) -> Chunk:
    """The chunk to ask for when the bytes from `position` are wanted and none beyond `stop`.

    The largest legal one that starts at `position` (rounded down to the smallest chunk), is not
    larger than `wanted_bytes`, and of which no half lies beyond `stop`.
    """
    offset = position - position % CHUNK_MIN_BYTES
    size = CHUNK_MAX_BYTES
    while size > CHUNK_MIN_BYTES and (
        size > wanted_bytes or offset % size or offset + size // 2 >= stop
    ):
        size //= 2
    return Chunk(offset, size)


def covering_chunks(position: int) -> tuple[Chunk, ...]:
    """Every legal chunk that holds the byte at `position`, the largest first."""
    sizes = [CHUNK_MAX_BYTES]
    while sizes[-1] > CHUNK_MIN_BYTES:
        sizes.append(sizes[-1] // 2)
    return tuple(Chunk(position - position % size, size) for size in sizes)


def next_chunk_bytes(planned_bytes: int, width: int, pace: Pace) -> int:
    """How large the next chunk may be after so many bytes planned in one run.

    Small first, so that the first byte leaves after one round trip even on a thin line; never more
    than all that was asked for before, so that the sizes double; and no more than half of the
    window, so that one chunk can be on its way while another is sent.
    """
    return max(CHUNK_MIN_BYTES, min(pace.chunk_bytes, planned_bytes, width // 2))


def window_bytes(delivered_bytes: int, share_bytes: int, pace: Pace) -> int:
    """How far a reader may run ahead once it has delivered so many bytes in one run.

    Little straight after a start or a seek, since players probe; then twice what was delivered, up
    to what the lines bear and the reader's fair share of the memory budget.
    """
    most = max(CHUNK_MIN_BYTES, min(pace.window_bytes, share_bytes))
    return min(most, max(WINDOW_MIN_BYTES, 2 * delivered_bytes))


# ------------------------------------------------------------------------------------------------
# 6. Films: codecs and tracks in a film's head; Telegram's playlists and seek pictures
# ------------------------------------------------------------------------------------------------

BOX_HEAD_BYTES = 16
TOP_BOXES_MAX = 64  # of an MP4 until its index; a player would not look farther either
INDEX_MAX_BYTES = 8 * MIB  # a film of ten hours has half of it
MATROSKA_HEAD_BYTES = MIB  # tracks come before the first picture
TRACKS_MAX = 64
PLAYLIST_MAX_BYTES = 2 * MIB
SEGMENT_MIN_S = 0.001
SEGMENTS_MAX = 20_000  # a film of eleven hours in segments of two seconds
STORYBOARD_MAX_BYTES = 256 * KIB
STORYBOARD_FRAMES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Track:
    """One track of a film. `codec` is what `canPlayType` takes, or the container's own word."""

    kind: Literal["video", "audio", "text"]
    codec: str
    language: str = ""
    name: str = ""


class BrokenFilm(Exception):
    """The head of a film is not what its container wants it to be."""


# -- MP4 (ISO/IEC 14496-12) ------------------------------------------------------------------------


class Box(NamedTuple):
    """One box of an MP4: its kind, where its body begins and where it ends."""

    kind: bytes
    start: int
    stop: int


def read_box(head: bytes, offset: int, limit: int) -> Box:
    """The box whose first bytes are `head`, at `offset` of a file or body that ends at `limit`."""
    if len(head) < 8:
        raise BrokenFilm("a box is cut off")
    size, kind = struct.unpack_from(">I4s", head)
    start = offset + 8
    if size == 1 and len(head) >= BOX_HEAD_BYTES:
        size, start = struct.unpack_from(">Q", head, 8)[0], offset + BOX_HEAD_BYTES
    stop = limit if size == 0 else offset + size
    if stop < start or stop > limit:
        raise BrokenFilm("a box does not fit")
    return Box(kind, start, stop)


def _boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes in a body, as kind and body."""
    offset = 0
    while offset + 8 <= len(body):
        box = read_box(body[offset : offset + BOX_HEAD_BYTES], offset, len(body))
        yield box.kind, body[box.start : box.stop]
        offset = box.stop


def _box(body: bytes, *path: bytes) -> bytes:
    """The first box at this path; raises BrokenFilm when there is none."""
    for kind in path:
        body = next((inner for name, inner in _boxes(body) if name == kind), b"")
        if not body:
            raise BrokenFilm(f"there is no {kind.decode()} box")
    return body


def mp4_tracks(index: bytes) -> list[Track]:
    """The tracks that an MP4's index (the body of its `moov`) tells of; raises BrokenFilm."""
    try:
        tracks = [_mp4_track(body) for kind, body in _boxes(index) if kind == b"trak"]
    except (struct.error, IndexError) as error:
        raise BrokenFilm("its index is cut off") from error
    return [track for track in tracks[:TRACKS_MAX] if track]


def _mp4_track(trak: bytes) -> Track | None:
    handler = _box(trak, b"mdia", b"hdlr")[8:12]
    header = _box(trak, b"mdia", b"mdhd")
    packed = struct.unpack_from(">H", header, 32 if header[0] else 20)[0]
    letters = [0x60 + (packed >> shift & 31) for shift in (10, 5, 0)]
    language = bytes(letters).decode("ascii", "replace")
    language = language if language.isalpha() and language != "und" else ""
    kind, entry = next(_boxes(_box(trak, b"mdia", b"minf", b"stbl", b"stsd")[8:]), (b"", b""))
    word = kind.decode("latin-1").strip()
    if handler == b"vide":
        return Track("video", _mp4_video_codec(word, entry), language)
    if handler == b"soun":
        return Track("audio", _mp4_audio_codec(word, entry), language)
    if handler in (b"text", b"sbtl", b"subt"):
        return Track("text", word, language)
    return None


def _mp4_video_codec(word: str, entry: bytes) -> str:
    inner = dict(_boxes(entry[78:]))
    if word in ("avc1", "avc3") and (config := inner.get(b"avcC")):
        return f"{word}.{config[1:4].hex()}"
    if word in ("hvc1", "hev1") and (config := inner.get(b"hvcC")):
        return hevc_codec(word, config)
    if word == "av01" and (config := inner.get(b"av1C")):
        return av1_codec(config)
    if word == "vp09" and (config := inner.get(b"vpcC")):
        return f"vp09.{config[4]:02}.{config[5]:02}.{config[6] >> 4:02}"
    return word


def _mp4_audio_codec(word: str, entry: bytes) -> str:
    if word == "mp4a":
        # The sample entry of QuickTime has 16 more bytes in its version 1, and 36 in version 2.
        version = struct.unpack_from(">H", entry, 8)[0]
        inner = entry[28 + {1: 16, 2: 36}.get(version, 0) :]
        return _esds_codec(_box(inner, b"esds"))
    return {"fLaC": "flac", "Opus": "opus", ".mp3": "mp3"}.get(word, word)


def _esds_codec(esds: bytes) -> str:
    """`mp4a.40.2` and its like, from an elementary stream descriptor (ISO/IEC 14496-1, 7.2.6)."""
    position, object_type = 4, 0
    while position + 2 < len(esds):
        tag, position = esds[position], position + 1
        length = 0
        for _ in range(4):
            byte, position = esds[position], position + 1
            length = length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if tag == 0x03:  # an elementary stream: its own fields, then more descriptors
            flags = esds[position + 2]
            position += 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
            if flags & 0x40:
                position += 1 + esds[position]
        elif tag == 0x04:  # how it is coded
            object_type = esds[position]
            position += 13
        elif tag == 0x05 and object_type == 0x40:
            return f"mp4a.40.{aac_object_type(esds[position : position + length])}"
        else:
            position += length
    return {0x69: "mp3", 0x6B: "mp3"}.get(object_type, f"mp4a.{object_type:02x}")


def aac_object_type(config: bytes) -> int:
    """The audio object type of an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1)."""
    kind = config[0] >> 3
    return kind if kind != 31 else 32 + ((config[0] & 7) << 3 | config[1] >> 5)


def hevc_codec(word: str, config: bytes) -> str:
    """`hvc1.1.6.L93.B0` and its like, from an hvcC (ISO/IEC 14496-15, annex E.3)."""
    space = ("", "A", "B", "C")[config[1] >> 6]
    profile, tier = config[1] & 31, "H" if config[1] & 32 else "L"
    flags = int(f"{int.from_bytes(config[2:6], 'big'):032b}"[::-1], 2)
    constraints = config[6:12].rstrip(b"\0")
    parts = [word, f"{space}{profile}", f"{flags:X}", f"{tier}{config[12]}"]
    return ".".join([*parts, *(f"{byte:X}" for byte in constraints)])


def av1_codec(config: bytes) -> str:
    """`av01.0.05M.08` and its like, from an av1C (AV1 codec ISO media file format binding, 5)."""
    profile, level = config[1] >> 5, config[1] & 31
    tier, is_high, is_twelve = config[2] >> 7, config[2] >> 6 & 1, config[2] >> 5 & 1
    depth = 8 if not is_high else 12 if profile == 2 and is_twelve else 10
    return f"av01.{profile}.{level:02}{'H' if tier else 'M'}.{depth:02}"


# -- Matroska and WebM (RFC 9559, RFC 8794) --------------------------------------------------------

_EBML, _SEGMENT, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
_DOC_TYPE, _TRACK_ENTRY = 0x4282, 0xAE
_TRACK_TYPE, _CODEC_ID, _CODEC_PRIVATE = 0x83, 0x86, 0x63A2
_LANGUAGE, _LANGUAGE_BCP47, _NAME = 0x22B59C, 0x22B59D, 0x536E
_MATROSKA_KINDS: Mapping[int, Literal["video", "audio", "text"]] = {
    1: "video",
    2: "audio",
    0x11: "text",
}
_MATROSKA_CODECS = {
    "V_VP8": "vp8",
    "V_VP9": "vp9",
    "A_OPUS": "opus",
    "A_VORBIS": "vorbis",
    "A_FLAC": "flac",
    "A_AC3": "ac-3",
    "A_EAC3": "ec-3",
    "A_MPEG/L3": "mp3",
    "S_TEXT/UTF8": "srt",
    "S_TEXT/ASS": "ass",
    "S_TEXT/SSA": "ass",
    "S_TEXT/WEBVTT": "webvtt",
}


def matroska_tracks(head: bytes) -> tuple[str, list[Track]]:
    """The document type (`matroska`, `webm`) and the tracks in a film's head; raises BrokenFilm."""
    doc_type = "matroska"
    for kind, start, stop in _elements(head, 0, len(head)):
        if kind == _EBML:
            for inner, inner_start, inner_stop in _elements(head, start, stop):
                if inner == _DOC_TYPE:
                    doc_type = head[inner_start:inner_stop].decode("ascii", "replace").strip("\0")
        elif kind == _SEGMENT:
            for inner, inner_start, inner_stop in _elements(head, start, stop):
                if inner == _TRACKS:
                    return doc_type, list(_matroska_entries(head, inner_start, inner_stop))
                if inner == _CLUSTER:
                    break
    raise BrokenFilm("no tracks are told of in its head")


def _matroska_entries(head: bytes, start: int, stop: int) -> Iterator[Track]:
    entries = (each for each in _elements(head, start, stop) if each[0] == _TRACK_ENTRY)
    for _, entry_start, entry_stop in itertools.islice(entries, TRACKS_MAX):
        fields = {kind: head[a:b] for kind, a, b in _elements(head, entry_start, entry_stop)}
        kind = _MATROSKA_KINDS.get(int.from_bytes(fields.get(_TRACK_TYPE, b"\0"), "big"))
        if kind is not None:
            language = fields.get(_LANGUAGE_BCP47) or fields.get(_LANGUAGE, b"eng")
            codec_id, private = fields.get(_CODEC_ID, b""), fields.get(_CODEC_PRIVATE, b"")
            codec = _matroska_codec(_ebml_text(codec_id), private)
            name = _ebml_text(fields.get(_NAME, b""))
            yield Track(kind, codec, _ebml_text(language).replace("und", ""), name[:200])


def _ebml_text(raw: bytes) -> str:
    return "".join(c for c in raw.rstrip(b"\0").decode("utf-8", "replace") if c.isprintable())


def _matroska_codec(codec_id: str, private: bytes) -> str:
    try:
        if codec_id == "V_MPEG4/ISO/AVC" and len(private) > 3:
            return f"avc1.{private[1:4].hex()}"
        if codec_id == "V_MPEGH/ISO/HEVC" and private:
            return hevc_codec("hvc1", private)
        if codec_id == "V_AV1" and private:
            return av1_codec(private)
        if codec_id.startswith("A_AAC"):
            return f"mp4a.40.{aac_object_type(private) if private else 2}"
    except IndexError as error:
        raise BrokenFilm("a track is told of in part only") from error
    return _MATROSKA_CODECS.get(codec_id, codec_id)


def _elements(head: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The EBML elements from `start` on, as (id, start of the data, its end); those cut off too."""
    while start < stop:
        kind, start = _variable_number(head, start, keep_marker=True)
        size, start = _variable_number(head, start, keep_marker=False)
        end = stop if size < 0 else min(start + size, stop)
        yield kind, start, end
        start = end


def _variable_number(head: bytes, position: int, *, keep_marker: bool) -> tuple[int, int]:
    """A number of RFC 8794 section 4 and the position behind it; -1 for an unknown size."""
    first = head[position] if position < len(head) else 0
    length = 9 - first.bit_length()
    if not first or position + length > len(head):
        raise BrokenFilm("it breaks off")
    number = int.from_bytes(head[position : position + length], "big")
    if keep_marker:
        return number, position + length
    ones = (1 << 7 * length) - 1
    return (-1 if number & ones == ones else number & ones), position + length


# -- what Telegram's server made of a film (core.telegram.org/api/files#video-qualities) -----------


class PlaylistRefused(Exception):
    """A playlist or storyboard that says something which we will not repeat."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a quality that can be played by itself, after the quality's head."""

    duration_s: float
    byte_range: ByteRange


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """Where in one quality's file its head and its segments are."""

    head: ByteRange
    segments: tuple[Segment, ...]

    @property
    def duration_s(self) -> float:
        return sum(segment.duration_s for segment in self.segments)

    @property
    def peak_bits_per_second(self) -> float:
        """The most that a player must be able to receive (BANDWIDTH, RFC 8216 section 4.3.4.2)."""
        return max(8 * each.byte_range.length / each.duration_s for each in self.segments)

    @property
    def average_bits_per_second(self) -> float:
        total = sum(segment.byte_range.length for segment in self.segments)
        return 8 * total / self.duration_s


_MAP = re.compile(r'#EXT-X-MAP:URI="([^"]*)",BYTERANGE="([^"]*)"')
_BYTE_RANGE = re.compile(r"([0-9]{1,18})(?:@([0-9]{1,18}))?")
_SEGMENT_TIME = re.compile(r"#EXTINF:([0-9]{1,6}(?:\.[0-9]{1,9})?),.*")
_HARMLESS_TAGS = re.compile(
    r"#EXTM3U|#EXT-X-(VERSION|TARGETDURATION|MEDIA-SEQUENCE|PLAYLIST-TYPE|INDEPENDENT-SEGMENTS"
    r"|ENDLIST|ALLOW-CACHE)(:.*)?|#(?!EXT).*"
)


def parse_media_playlist(text: str, document_id: int, complete_length: int) -> MediaPlaylist:
    """Read Telegram's playlist of one quality, whose every address must be `mtproto:<that id>`.

    Nothing of the text is handed on: what players get is written anew from what is returned here.
    Raises PlaylistRefused for other addresses, unknown tags, ranges outside the file.
    """
    if not text.startswith("#EXTM3U"):
        raise PlaylistRefused("it is no playlist")
    head, segments, duration_s, wanted = None, list[Segment](), 0.0, ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if found := _MAP.fullmatch(line):
            _check_address(found[1], document_id)
            head = _byte_range(found[2], 0, complete_length)
        elif found := _SEGMENT_TIME.fullmatch(line):
            duration_s = float(found[1])
        elif line.startswith("#EXT-X-BYTERANGE:"):
            wanted = line.partition(":")[2]
        elif not line.startswith("#"):
            _check_address(line, document_id)
            after = segments[-1].byte_range.stop if segments else 0
            segments.append(Segment(duration_s, _byte_range(wanted, after, complete_length)))
            duration_s, wanted = 0.0, ""
            if segments[-1].duration_s < SEGMENT_MIN_S or len(segments) > SEGMENTS_MAX:
                raise PlaylistRefused("its segments make no sense")
        elif not _HARMLESS_TAGS.fullmatch(line):
            raise PlaylistRefused("it has a tag that is not known here")
    if head is None or not segments:
        raise PlaylistRefused("it has no segments")
    return MediaPlaylist(head, tuple(segments))


def _check_address(address: str, document_id: int) -> None:
    if address != f"mtproto:{document_id}":
        raise PlaylistRefused("it has an address that is not its own film")


def _byte_range(text: str, after: int, complete_length: int) -> ByteRange:
    """`length@start`, or `length` right behind `after` (RFC 8216 section 4.3.2.2)."""
    found = _BYTE_RANGE.fullmatch(text)
    start = after if not found or found[2] is None else int(found[2])
    length = int(found[1]) if found else 0
    if not length or start + length > complete_length:
        raise PlaylistRefused("it has a range outside its film")
    return ByteRange(start, start + length)


def write_media_playlist(playlist: MediaPlaylist, url: str) -> str:
    """The playlist for players (RFC 8216), each segment a byte range of `url`."""
    longest_s = max(segment.duration_s for segment in playlist.segments)
    head = playlist.head
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{math.ceil(longest_s)}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{url}",BYTERANGE="{head.length}@{head.start}"',
    ]
    for segment in playlist.segments:
        wanted = segment.byte_range
        lines.append(f"#EXTINF:{segment.duration_s:.6f},")
        lines.append(f"#EXT-X-BYTERANGE:{wanted.length}@{wanted.start}")
        lines.append(url)
    return "\n".join((*lines, "#EXT-X-ENDLIST", ""))


@dataclass(frozen=True, slots=True)
class Level:
    """One quality as a master playlist offers it."""

    document_id: int
    width: int
    height: int
    codecs: tuple[str, ...]
    playlist: MediaPlaylist


def write_master_playlist(levels: Iterable[Level], query: str) -> str:
    """The master playlist (RFC 8216 section 4.3.4), the best quality first; `query` goes along."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for level in levels:
        peak = math.ceil(level.playlist.peak_bits_per_second)
        average = math.ceil(level.playlist.average_bits_per_second)
        lines.append(
            f"#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}"
            f',CODECS="{",".join(level.codecs)}",RESOLUTION={level.width}x{level.height}'
        )
        lines.append(f"{level.document_id}.m3u8{query}")
    return "\n".join((*lines, ""))


def best_levels(levels: Iterable[Level]) -> list[Level]:
    """The best first, and of each height and kind of codec the one that costs least."""
    cheapest: dict[tuple[int, str], Level] = {}
    for level in sorted(levels, key=lambda level: level.playlist.average_bits_per_second):
        cheapest.setdefault((level.height, level.codecs[0].partition(".")[0]), level)
    return sorted(
        cheapest.values(),
        key=lambda level: (level.height, level.playlist.average_bits_per_second),
        reverse=True,
    )


@dataclass(frozen=True, slots=True)
class Storyboard:
    """Where in one picture of tiles the frames are: (seconds, left, top), by rising time."""

    frame_width: int
    frame_height: int
    frames: tuple[tuple[float, int, int], ...]


_FRAME = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?),([0-9]{1,5}),([0-9]{1,5})")


def parse_storyboard(text: str, picture_id: int) -> Storyboard:
    """Read Telegram's map of seek pictures; raises PlaylistRefused."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = dict(line.split("=", 1) for line in lines if "=" in line)
    found = [match for line in lines if (match := _FRAME.fullmatch(line))]
    width, height = (named.get(name, "") for name in ("frame_width", "frame_height"))
    if named.get("file") != f"mtproto:{picture_id}" or len(found) + len(named) != len(lines):
        raise PlaylistRefused("it is no map of these pictures")
    if not (re.fullmatch("[1-9][0-9]{0,3}", width) and re.fullmatch("[1-9][0-9]{0,3}", height)):
        raise PlaylistRefused("its frames have no size")
    frames = sorted((float(each[1]), int(each[2]), int(each[3])) for each in found)
    if not 0 < len(frames) <= STORYBOARD_FRAMES_MAX:
        raise PlaylistRefused("it has no frames, or too many")
    return Storyboard(int(width), int(height), tuple(frames))


# ------------------------------------------------------------------------------------------------
# 7. HTTP: one request, from the token to the last byte
# ------------------------------------------------------------------------------------------------

LISTING_LIMIT_MAX = 200
VIEWER_MIN_BYTES = 2 * CHUNK_MIN_BYTES
"""What the memory budget must spare for each viewer: one chunk being sent and one on its way."""

PLAYED_MAX = 10_000
PLAYED_FOR_S = 3600.0
"""Of a film that was begun so lately a range that is not its beginning is asked by its player."""
HOLD_STEP_S = 1.0
FILMS_MAX = 500  # of which is remembered what their heads and playlists say
HEADS_AT_ONCE = 2  # each may take INDEX_MAX_BYTES beyond the memory budget
REPLACEMENTS_MAX = 2  # of a file while one request for it waits for its first byte

HEAD_MAX_BYTES = 32 * KIB
"""Of one request; players send one or two. What nobody has finished saying is held in memory."""
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
UNSENT_MAX_BYTES = 256 * KIB
FIRST_BYTE_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0)

_STARTED = web.RequestKey("started", float)
_SENT_BYTES = web.RequestKey("sent_bytes", int)
_DROPPED = web.RequestKey("dropped", bool)
_PLAYS = web.RequestKey("plays", str)  # of which post
_EXPOSED_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Retry-After"
)
_REQUEST_HEADERS = "Authorization, If-Match, If-Modified-Since, If-None-Match, If-Range, Range"
_SHOWN_TYPE = re.compile(r"(?:video|audio|image)/(?!svg)[^+]+|application/pdf|text/plain")
"""What a browser shows without running any of it. To Chromium text/xsl is a page, +xml may be."""
_FOLLOWS_NO_REDIRECT = re.compile(r"\bVLC/")
"""Players that give a film up at a redirect in its middle, as VLC 3 does: for them the worker goes
where it would have sent them."""


class Worker:
    """The HTTP handlers: what they need, and what they counted."""

    def __init__(
        self,
        settings: Settings,
        cache: ChunkCache,
        pools: ConnectionPools,
        gateway: TelegramGateway,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._pools = pools
        self._gateway = gateway
        self._films = Films(cache)
        self.instance = secrets.token_hex(8)
        self._started = time.monotonic()
        self._started_at = time.time()
        self._viewers_max = settings.memory_budget_mb * MIB // VIEWER_MIN_BYTES
        self._responses: Counter[int] = Counter()
        self._sent_bytes = 0
        self._played: Remembered[str, float] = Remembered(PLAYED_MAX)  # when, monotonic clock
        self._first_bytes = _Histogram(
            "first_byte_seconds", "From a request for bytes to the first.", FIRST_BYTE_BOUNDS_S
        )

    def routes(self) -> list[web.RouteDef]:
        """All paths. Ids are matched in their canonical form only, since tokens name them so."""
        chat = r"{chat_id:-?[1-9][0-9]{0,17}}"
        post = chat + r"/{message_id:[1-9][0-9]{0,9}}"
        return [
            web.get(f"/stream/{post}", self.stream_file),
            web.get(f"/stream/{post}/{{filename:[^/]+}}", self.stream_file),
            web.get(f"/thumbnail/{post}", self.thumbnail),
            web.get(f"/hls/{post}/master.m3u8", self.master_playlist),
            web.get(f"/hls/{post}/{{document_id:[1-9][0-9]{{0,18}}}}.m3u8", self.media_playlist),
            web.get(f"/storyboard/{post}", self.storyboard),
            web.get(f"/tracks/{post}", self.tracks),
            web.get(f"/files/{chat}", self.list_files),
            web.get("/health", self.health),
            web.get("/metrics", self.metrics),
            web.post("/handover", self.hand_over),
        ]

    # -- the handlers, in the order of their importance --------------------------------------

    async def stream_file(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD of a file, whole or by ranges (RFC 9110 sections 13 and 14).

        `?document=` is one that Telegram's server made of it, such as another quality.
        """
        chat_id, message_id = _post_ids(request)
        grant = self._authorise_file(request, chat_id, message_id)
        if isinstance(grant, web.Response):
            return grant
        request[_PLAYS] = f"{chat_id}/{message_id}"
        replacements = 0
        while True:
            try:
                file = await self._find(request, grant, chat_id, message_id)
                return await self._answer(request, file, _file_headers(file, request.query))
            except FileReplaced:
                replacements += 1
                if replacements > REPLACEMENTS_MAX:
                    raise
            except (UpstreamBusy, TemporaryFailure) as trouble:
                if not self._is_played_on(request):
                    raise
                if (held_s := time.monotonic() - request[_STARTED]) >= HOLD_MAX_S:
                    return self._drop(request, trouble)
                await asyncio.sleep(min(HOLD_STEP_S, HOLD_MAX_S - held_s))

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD of the thumbnail that Telegram made of a file, as image/jpeg."""
        chat_id, message_id = _post_ids(request)
        grant = self._authorise_file(request, chat_id, message_id)
        if isinstance(grant, web.Response):
            return grant
        found = await self._gateway.find_thumbnail(chat_id, message_id)
        if isinstance(found, bytes):
            headers: dict[str, str] = {hdrs.CACHE_CONTROL: "private, max-age=86400"}
            return web.Response(body=found, content_type="image/jpeg", headers=headers)
        headers = _file_headers(found, {})
        headers[hdrs.CACHE_CONTROL] = "private, max-age=86400"
        return await self._answer(request, found, headers)

    async def master_playlist(self, request: web.Request) -> web.StreamResponse:
        """GET the qualities of a film that Telegram's server made, as HLS (RFC 8216)."""
        chat_id, message_id = _post_ids(request)
        grant = self._authorise_file(request, chat_id, message_id)
        if isinstance(grant, web.Response):
            return grant
        listed = await self._gateway.find(chat_id, message_id)
        levels = await self._films.levels(listed)
        return _playlist(write_master_playlist(levels, f"?{_carried(request)}"))

    async def media_playlist(self, request: web.Request) -> web.StreamResponse:
        """GET the segments of one quality: byte ranges of `/stream` under the same token."""
        chat_id, message_id = _post_ids(request)
        grant = self._authorise_file(request, chat_id, message_id)
        if isinstance(grant, web.Response):
            return grant
        listed = await self._gateway.find(chat_id, message_id)
        document_id = int(request.match_info["document_id"])
        playlist = await self._films.playlist(listed, document_id)
        name = f"{document_id}.mp4?document={document_id}&{_carried(request)}"
        return _playlist(
            write_media_playlist(playlist, f"../../../stream/{chat_id}/{message_id}/{name}")
        )

    async def storyboard(self, request: web.Request) -> web.StreamResponse:
        """GET where the seek pictures of a film are, as JSON; `url` is relative to this one."""
        chat_id, message_id = _post_ids(request)
        grant = self._authorise_file(request, chat_id, message_id)
        if isinstance(grant, web.Response):
            return grant
        listed = await self._gateway.find(chat_id, message_id)
        picture, board = await self._films.storyboard(listed)
        name = f"storyboard.jpg?document={picture.media_id}&{_carried(request)}"
        body = {
            "url": f"../../stream/{chat_id}/{message_id}/{name}",
            "frame_width": board.frame_width,
            "frame_height": board.frame_height,
            "frames": board.frames,
        }
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def tracks(self, request: web.Request) -> web.StreamResponse:
        """GET what a film's head tells of its codecs and tracks, as JSON."""
        chat_id, message_id = _post_ids(request)
        grant = self._authorise_file(request, chat_id, message_id)
        if isinstance(grant, web.Response):
            return grant
        file = await self._find(request, grant, chat_id, message_id)
        mime_type, tracks = await self._films.tracks(file)
        body = {"type": mime_type, "tracks": [asdict(track) for track in tracks]}
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "private, max-age=3600"})

    async def list_files(self, request: web.Request) -> web.StreamResponse:
        """GET the files of a channel after a message id, oldest first."""
        chat_id = int(request.match_info["chat_id"])
        if self._verified(request) != Grant(str(chat_id), "list"):
            raise NotAllowed("The token is not for listing this channel.")
        after = _query_number(request, "after", 0, 0, MESSAGE_ID_MAX)
        limit = _query_number(request, "limit", 100, 1, LISTING_LIMIT_MAX)
        files, following = await self._gateway.list_files(chat_id, after, limit)
        body = {"files": [_listing_entry(entry) for entry in files], "next": following}
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "private, no-cache"})

    async def health(self, request: web.Request) -> web.StreamResponse:
        """GET the state of this process; never waits for Telegram."""
        body = {
            "status": "ok",
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "instance": self.instance,
            "viewers": self._cache.readers,
            "viewers_max": self._viewers_max,
            "clock_behind_s": round(self._gateway.clock_behind_s),
            "telegram": self._gateway.states(),
        }
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def hand_over(self, request: web.Request) -> web.StreamResponse:
        """POST by the worker that takes this one's place: leave the session at Telegram to it.

        Two workers with one session string would kill its key (AUTH_KEY_DUPLICATED).
        """
        token = _bearer(request)
        successor = verify_handover(token, self._settings.jwt_secrets, time.time())
        if is_other := successor != self.instance:
            await self._gateway.leave_sessions()
        body = {"instance": self.instance, "left": is_other}
        return web.json_response(body, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """GET the counters in Prometheus text format 0.0.4."""
        body = "".join((*self._own_metrics(), *self._cache_metrics(), *self._telegram_metrics()))
        headers = {hdrs.CONTENT_TYPE: "text/plain; version=0.0.4", hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(text=body, headers=headers)

    def _own_metrics(self) -> Iterator[str]:
        version = {f'version="{__version__}"': 1}
        statuses = {f'status="{status}"': count for status, count in self._responses.items()}
        yield _metric("build_info", "gauge", "The worker's version.", version)
        yield _metric("start_time_seconds", "gauge", "Unix time of the start.", self._started_at)
        yield _metric("http_requests_total", "counter", "Requests answered.", statuses)
        yield _metric("sent_bytes_total", "counter", "Body bytes sent.", self._sent_bytes)
        yield _metric("tasks", "gauge", "Things under way.", len(asyncio.all_tasks()))
        yield self._first_bytes.exposition()

    def _cache_metrics(self) -> Iterator[str]:
        cache = self._cache
        for name, kind, text, value in (
            ("viewers", "gauge", "Responses being sent.", cache.readers),
            ("resting_viewers", "gauge", "Stalled, without a window.", cache.resting_readers),
            ("window_bytes", "gauge", "Held for viewers, read ahead.", cache.window_bytes),
            ("cache_bytes", "gauge", "Held though nobody reads it.", cache.idle_bytes),
            ("memory_budget_bytes", "gauge", "Most for the two.", cache.budget_bytes),
            ("cache_hits_total", "counter", "Chunks that were there already.", cache.hits),
            ("cache_hit_bytes_total", "counter", "Bytes of those chunks.", cache.hit_bytes),
            ("cache_misses_total", "counter", "Chunks asked of Telegram.", cache.misses),
            ("fetched_bytes_total", "counter", "Bytes from Telegram.", cache.fetched_bytes),
        ):
            yield _metric(name, kind, text, value)

    def _telegram_metrics(self) -> Iterator[str]:
        waiting, in_flight, limits, troubles = {}, {}, {}, {}
        for pool in self._pools:
            waiting[f'dc="{pool.dc_id}"'] = pool.waiting_requests
            for each in pool.connections:
                line = f'bot="{each.bot_id}",dc="{pool.dc_id}"'
                in_flight[line] = each.in_flight_bytes
                limits[line] = each.in_flight_max_bytes
                troubles[line] = each.troubles
        yield _metric("chunks_waiting", "gauge", "Not asked of Telegram yet.", waiting)
        yield _metric("in_flight_bytes", "gauge", "Asked of Telegram.", in_flight)
        yield _metric("in_flight_limit_bytes", "gauge", "Most of these at present.", limits)
        yield _metric("chunk_failures_total", "counter", "Chunks to be asked again.", troubles)
        floods = self._gateway.flood_waits()
        counts = {f'bot="{bot_id}"': count for bot_id, (count, _) in floods.items()}
        seconds = {f'bot="{bot_id}"': wait_s for bot_id, (_, wait_s) in floods.items()}
        yield _metric("flood_waits_total", "counter", "Flood waits by Telegram.", counts)
        yield _metric("flood_wait_seconds_total", "counter", "Seconds of those.", seconds)

    # -- who may -----------------------------------------------------------------------------

    def _authorise_file(
        self, request: web.Request, chat_id: int, message_id: int
    ) -> Grant | web.Response:
        """What the token of this file allows; a redirect when a renewal grant mends it."""
        subject = f"{chat_id}/{message_id}"
        try:
            grant = self._verified(request)
        except TokenExpired:
            if "renew" not in request.query:
                raise
            fresh = self._renewed_token(request, subject)
            if not _FOLLOWS_NO_REDIRECT.search(request.headers.get(hdrs.USER_AGENT, "")):
                return _redirected(request, fresh)
            grant = verify_token(fresh, self._settings.jwt_secrets, time.time())
        if (grant.subject, grant.scope) != (subject, "file"):
            raise NotAllowed("The token is for another file.")
        return grant

    def _verified(self, request: web.Request) -> Grant:
        # The one in the URL counts when there are two: a client that sends its header along a
        # renewal's redirect means the fresh one.
        tokens = request.query.getall("token", [])
        if len(tokens) > 1:
            raise TokenInvalid("There must be one token.")
        token = tokens[0] if tokens else _bearer(request)
        return verify_token(token, self._settings.jwt_secrets, time.time())

    def _renewed_token(self, request: web.Request, subject: str) -> str:
        grants = request.query.getall("renew")
        if len(grants) > 1:
            raise TokenInvalid("There must be one renewal grant.")
        return renewed_token(grants[0], subject, self._settings.jwt_secrets, time.time())

    # -- answering ---------------------------------------------------------------------------

    async def _find(
        self, request: web.Request, grant: Grant, chat_id: int, message_id: int
    ) -> AnyFile:
        """The file that is asked for: the message's own, one made of it, or all its parts."""
        if grant.parts:
            ids = (message_id, *grant.parts)
            found = await asyncio.gather(*(self._gateway.find(chat_id, each) for each in ids))
            return JoinedFile(tuple(listed.file for listed in found))
        listed = await self._gateway.find(chat_id, message_id)
        if (document_id := request.query.get("document")) is None:
            return listed.file
        if not re.fullmatch(r"[0-9]{1,19}", document_id, re.ASCII):
            raise BadQuery("document must be the number of one.")
        return listed.document(int(document_id))

    def _is_played_on(self, request: web.Request) -> bool:
        """Whether a player asks for a later range of a film that it plays.

        Any error would end that film at once, while who comes for its beginning is better told, and
        so is a page that has other workers to go to and says so (`hold=0`).
        """
        if request.query.get("hold") == "0":
            return False
        is_beginning = re.match(r"bytes=0+-", request.headers.get(hdrs.RANGE, "bytes=0-"))
        played_at = self._played.get(request[_PLAYS], -math.inf)
        return not is_beginning and time.monotonic() - played_at < PLAYED_FOR_S

    def _drop(self, request: web.Request, trouble: StreamError) -> web.Response:
        """Hang up on a player that waited as long as players wait: it asks again by itself."""
        log.info("a player was held for %.0f s: %s", HOLD_MAX_S, trouble)
        _reset_connection(request)
        request[_DROPPED] = True
        return _error_response(trouble)  # goes nowhere

    async def _answer(
        self, request: web.Request, file: AnyFile, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Decide between 304, 206, multipart and 200, then send."""
        conditions: dict[str, str] = {
            name: ", ".join(request.headers.getall(name))
            for name in CONDITIONAL_HEADERS
            if name in request.headers
        }
        if not check_preconditions(conditions, file):
            del headers[hdrs.CONTENT_TYPE]
            return web.Response(status=304, headers=headers)
        ranges: tuple[ByteRange, ...] = ()
        range_headers = request.headers.getall(hdrs.RANGE, [])
        if len(range_headers) == 1 and range_applies(request.headers.get(hdrs.IF_RANGE), file):
            ranges = parse_range(range_headers[0], file.complete_length)
        response = web.StreamResponse(status=206 if ranges else 200, headers=headers)
        if len(ranges) > 1:
            parts = _multipart_parts(ranges, file, headers[hdrs.CONTENT_TYPE], response)
        else:
            wanted = ranges[0] if ranges else ByteRange(0, file.complete_length)
            if ranges:
                response.headers[hdrs.CONTENT_RANGE] = content_range(wanted, file.complete_length)
            parts = [wanted]
        response.content_length = sum(
            len(part) if isinstance(part, bytes) else part.length for part in parts
        )
        if request.method == hdrs.METH_HEAD:
            await response.prepare(request)
            return response
        return await self._send(request, response, file, parts)

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        file: AnyFile,
        parts: Iterable[bytes | ByteRange],
    ) -> web.StreamResponse:
        """Send literal bytes and byte ranges; the status line leaves with the first byte."""
        if self._cache.readers >= self._viewers_max:
            raise TooManyViewers("Too many viewers for the memory budget.", 5)
        try:
            await self._write_parts(request, response, file, parts)
            if not response.prepared:  # an empty file
                await response.prepare(request)
            await response.write_eof()
        except Exception as error:
            if not response.prepared:
                raise
            # A body that ends early must never look complete, nor keep the client waiting on an
            # open connection: resetting it makes players ask again for what is missing.
            _reset_connection(request)
            request[_DROPPED] = True
            if isinstance(error, StreamError):
                log.warning("dropped a response in the middle: %s", error)
                let_go_of_frames(error)
            elif not isinstance(error, ConnectionError):
                log.warning("dropped a response in the middle: %s", error, exc_info=True)
        return response

    async def _write_parts(
        self,
        request: web.Request,
        response: web.StreamResponse,
        file: AnyFile,
        parts: Iterable[bytes | ByteRange],
    ) -> None:
        sent_bytes = 0
        try:
            for part in parts:
                if isinstance(part, bytes):
                    await self._begin(request, response)
                    await response.write(part)
                    sent_bytes += len(part)
                    self._sent_bytes += len(part)
                    continue
                for each, wanted in file.spans(part):
                    async with RangeReader(self._cache, each, wanted) as reader:
                        while piece := await reader.read():
                            if not sent_bytes:
                                await self._begin(request, response)
                            await response.write(piece)
                            sent_bytes += len(piece)
                            self._sent_bytes += len(piece)
        finally:
            request[_SENT_BYTES] = sent_bytes

    async def _begin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Send the status line and the headers; nothing when they are out."""
        if not response.prepared:
            self._first_bytes.observe(time.monotonic() - request[_STARTED])
            if _PLAYS in request:
                self._played[request[_PLAYS]] = time.monotonic()
            _limit_unsent(request)
            await response.prepare(request)

    # -- what every response shares ----------------------------------------------------------

    @web.middleware
    async def envelope(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Errors as JSON, the preflight, and one log line per request without its query."""
        request[_STARTED] = time.monotonic()
        outcome = "left"
        try:
            try:
                with _busy(request):
                    response = await self._handled(request, handler)
            except StreamError as error:
                response = _error_response(error)
                let_go_of_frames(error)
            self._responses[response.status] += 1
            outcome = f"{response.status} dropped" if _DROPPED in request else str(response.status)
            return response
        finally:
            log.info(
                "%s %s %s range=%s bytes=%d ms=%.0f",
                request.method,
                request.rel_url.raw_path,
                outcome,
                quote(request.headers.get(hdrs.RANGE, "-")[:80], safe="=-,", errors="replace"),
                request.get(_SENT_BYTES, 0),
                (time.monotonic() - request[_STARTED]) * 1000,
            )

    async def _handled(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allowed = {*error.allowed_methods, hdrs.METH_OPTIONS}
            if request.method == hdrs.METH_OPTIONS:
                return _preflight(allowed)
            methods = " or ".join(sorted(error.allowed_methods))
            response = _json_error(405, "method_not_allowed", f"Use {methods}.")
            response.headers[hdrs.ALLOW] = ", ".join(sorted(allowed))
            return response
        except web.HTTPException as error:
            return _json_error(error.status, error.reason.lower().replace(" ", "_"), error.reason)
        except (StreamError, ConnectionError):
            raise
        except Exception:
            log.exception("a request failed for a reason that nobody thought of")
            raise StreamError("Something went wrong here; the log says what.") from None

    async def add_shared_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """CORS and nosniff on whatever is sent, errors included: pages read the error's code."""
        headers = response.headers
        headers[hdrs.SERVER] = "Rangegram"  # aiohttp tells its version and Python's otherwise
        headers[hdrs.X_CONTENT_TYPE_OPTIONS] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED_HEADERS
        if response.status >= 400:  # also aiohttp's own answers, which pass by the envelope
            headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        origins = self._settings.allowed_origins
        if "*" in origins:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
            return
        headers[hdrs.VARY] = hdrs.ORIGIN
        if (origin := request.headers.get(hdrs.ORIGIN)) in origins:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin


def _metric(name: str, kind: str, text: str, values: float | Mapping[str, float]) -> str:
    """One metric with its samples, by label where there are several.

    Source: prometheus.io/docs/instrumenting/exposition_formats.
    """
    name = f"rangegram_{name}"
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    if isinstance(values, Mapping):
        lines += [f"{name}{{{labels}}} {value}" for labels, value in sorted(values.items())]
    else:
        lines.append(f"{name} {values}")
    return "\n".join((*lines, ""))


class _Histogram:
    """How often something took how many seconds."""

    def __init__(self, name: str, text: str, bounds_s: tuple[float, ...]) -> None:
        self._name = name
        self._text = text
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def exposition(self) -> str:
        totals = list(itertools.accumulate(self._counts))
        bounds = (*map(str, self._bounds_s), "+Inf")
        name = f"rangegram_{self._name}"
        lines = [f"# HELP {name} {self._text}", f"# TYPE {name} histogram"]
        for bound, total in zip(bounds, totals, strict=True):
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        lines += [f"{name}_sum {self._sum_s:.6f}", f"{name}_count {totals[-1]}"]
        return "\n".join((*lines, ""))


def _bearer(request: web.Request) -> str:
    """The token of an Authorization header (RFC 6750); raises TokenMissing."""
    scheme, _, credentials = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer":
        raise TokenMissing("A token is needed: ?token=… or Authorization: Bearer.")
    return credentials.strip()


def _redirected(request: web.Request, token: str) -> web.Response:
    """To the same file with a fresh token.

    Browsers follow this in mid-film because it stays within the worker's own origin, hence the
    path without a host.
    """
    query = urlencode({**request.query, "token": token})
    location = f"{request.rel_url.raw_path}?{query}"
    headers = {hdrs.LOCATION: location, hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(status=307, headers=headers)


def _post_ids(request: web.Request) -> tuple[int, int]:
    message_id = int(request.match_info["message_id"])
    if message_id > MESSAGE_ID_MAX:
        raise FileMissing("There is no such message.")
    return int(request.match_info["chat_id"]), message_id


def _query_number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise BadQuery(f"{name} must be a whole number from {least} to {most}.")
    return int(text)


def _file_headers(file: AnyFile, query: Mapping[str, str]) -> dict[str, str]:
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: file.mime_type,
        hdrs.CONTENT_DISPOSITION: content_disposition(
            file.name, attachment=query.get("download") == "1"
        ),
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.ETAG: file.entity_tag,
        hdrs.LAST_MODIFIED: format_datetime(file.modified, usegmt=True),
        hdrs.CACHE_CONTROL: "private, no-cache",
    }
    if not _SHOWN_TYPE.fullmatch(file.mime_type):
        # A page or a drawing that somebody posted must not run scripts under this origin.
        headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return headers


def content_disposition(name: str, *, attachment: bool) -> str:
    """Content-Disposition for a name in any script (RFC 6266, RFC 8187)."""
    kind = "attachment" if attachment else "inline"
    name = "".join(
        " " if character in "/\\" else character for character in name if character.isprintable()
    )
    plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
    disposition = f'{kind}; filename="{plain}"'
    if plain != name:
        disposition += f"; filename*=UTF-8''{quote(name, safe='')}"
    return disposition


def _multipart_parts(
    ranges: tuple[ByteRange, ...], file: AnyFile, mime_type: str, response: web.StreamResponse
) -> list[bytes | ByteRange]:
    """The body of a multipart/byteranges answer (RFC 9110 section 14.6), and its Content-Type."""
    boundary = secrets.token_hex(16)
    response.headers[hdrs.CONTENT_TYPE] = f"multipart/byteranges; boundary={boundary}"
    parts: list[bytes | ByteRange] = []
    for wanted in ranges:
        where = content_range(wanted, file.complete_length)
        head = f"--{boundary}\r\nContent-Type: {mime_type}\r\nContent-Range: {where}\r\n\r\n"
        parts += [head.encode(), wanted, b"\r\n"]
    return [*parts, f"--{boundary}--\r\n".encode()]


def _listing_entry(entry: ListedFile) -> dict[str, Any]:
    """The fields that every file has, and of the others those that this one has."""
    more = {
        "title": entry.title,
        "performer": entry.performer,
        "reply_to": entry.reply_to,
        "album": entry.album,
        "qualities": sorted({quality.height for quality in entry.qualities}, reverse=True),
        "has_storyboard": entry.storyboard is not None,
    }
    return {
        "chat_id": entry.file.chat_id,
        "message_id": entry.file.message_id,
        "name": entry.file.name,
        "mime_type": entry.file.mime_type,
        "size": entry.file.complete_length,
        "date": int(entry.date.timestamp()),
        "duration": entry.duration_s,
        "width": entry.width,
        "height": entry.height,
        "caption": entry.caption,
        "has_thumbnail": entry.has_thumbnail,
        **{name: value for name, value in more.items() if value},
    }


def _carried(request: web.Request) -> str:
    """What of a query goes along to the addresses in a playlist: what opens them."""
    names = ("token", "renew", "hold")
    return urlencode({name: request.query[name] for name in names if name in request.query})


def _playlist(text: str) -> web.Response:
    # It holds tokens, so nobody may keep it.
    headers: dict[str, str] = {hdrs.CACHE_CONTROL: "no-store"}
    mime_type = "application/vnd.apple.mpegurl"
    return web.Response(text=text, content_type=mime_type, headers=headers)


def _preflight(allowed: Iterable[str]) -> web.Response:
    """The answer to a CORS preflight (and to any OPTIONS): what may be asked, good for a day."""
    methods = ", ".join(sorted(allowed))
    headers = {
        hdrs.ALLOW: methods,
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: methods,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: "86400",
    }
    return web.Response(status=204, headers=headers)


def _error_response(error: StreamError) -> web.Response:
    response = _json_error(error.status, error.code, str(error))
    if error.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if isinstance(error, UpstreamBusy):
        response.headers[hdrs.RETRY_AFTER] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, RangeNotSatisfiable):
        response.headers[hdrs.CONTENT_RANGE] = f"bytes */{error.complete_length}"
        response.headers[hdrs.ACCEPT_RANGES] = "bytes"
    return response


def _json_error(status: int, code: str, message: str) -> web.Response:
    # Not cacheable: browsers were seen to keep an error and to answer from it later.
    body = {"error": {"code": code, "message": message}}
    return web.json_response(body, status=status, headers={hdrs.CACHE_CONTROL: "no-store"})


def _limit_unsent(request: web.Request) -> None:
    """Keep the kernel from taking megabytes that a stalled or leaving viewer never gets."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux and macOS
        _set_option(request, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX_BYTES)


def _reset_connection(request: web.Request) -> None:
    _set_option(request, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if request.transport:
        request.transport.abort()


def _set_option(request: web.Request, level: int, option: int, value: int | bytes) -> None:
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is not None:
        with contextlib.suppress(OSError):  # the client may have closed it first
            sock.setsockopt(level, option, value)


# -- what is in a film ----------------------------------------------------------------------------


class Films:
    """What is read of films to tell about them: their heads, and what Telegram made of them."""

    def __init__(self, cache: ChunkCache) -> None:
        self._cache = cache
        self._playlists: Remembered[int, MediaPlaylist] = Remembered(FILMS_MAX)
        self._codecs: Remembered[int, tuple[str, ...]] = Remembered(FILMS_MAX)
        self._tracks: Remembered[str, tuple[str, list[Track]]] = Remembered(FILMS_MAX)
        self._reading = asyncio.Semaphore(HEADS_AT_ONCE)

    async def levels(self, listed: ListedFile) -> list[Level]:
        """The qualities that can be offered, the best first; raises FileMissing for none."""
        found = await asyncio.gather(*(self._level(quality) for quality in listed.qualities))
        levels = best_levels(level for level in found if level is not None)
        if not levels:
            raise FileMissing("Telegram has made no other quality of this file.")
        return levels

    async def _level(self, quality: Quality) -> Level | None:
        """None for one that is told of in a way that we do not hand on."""
        document_id = quality.video.media_id
        try:
            playlist = await self._playlist(quality)
            if document_id not in self._codecs:
                head = await self._read(quality.video, playlist.head)
                self._codecs[document_id] = _codecs_of(mp4_tracks(_box(head, b"moov")))
        except (PlaylistRefused, BrokenFilm, UnicodeDecodeError) as refusal:
            log.warning("quality %d is left out: %s", document_id, refusal)
            return None
        codecs = self._codecs[document_id]
        return Level(document_id, quality.width, quality.height, codecs, playlist)

    async def playlist(self, listed: ListedFile, document_id: int) -> MediaPlaylist:
        """The segments of one quality; raises FileMissing, or UpstreamFailed for a strange list."""
        for quality in listed.qualities:
            if quality.video.media_id == document_id:
                try:
                    return await self._playlist(quality)
                except (PlaylistRefused, UnicodeDecodeError) as refusal:
                    raise UpstreamFailed(f"The playlist is refused: {refusal}.") from refusal
        raise FileMissing("Telegram has no such quality of this file.")

    async def _playlist(self, quality: Quality) -> MediaPlaylist:
        document_id = quality.video.media_id
        if document_id not in self._playlists:
            text = await self._text(quality.playlist, PLAYLIST_MAX_BYTES)
            length = quality.video.complete_length
            self._playlists[document_id] = parse_media_playlist(text, document_id, length)
        return self._playlists[document_id]

    async def storyboard(self, listed: ListedFile) -> tuple[RemoteFile, Storyboard]:
        """The picture and what is where in it; raises FileMissing or UpstreamFailed."""
        files = listed.storyboard
        if files is None:
            raise FileMissing("Telegram has made no seek pictures of this file.")
        try:
            text = await self._text(files.map, STORYBOARD_MAX_BYTES)
            return files.picture, parse_storyboard(text, files.picture.media_id)
        except (PlaylistRefused, UnicodeDecodeError) as refusal:
            raise UpstreamFailed(f"The seek pictures are refused: {refusal}.") from refusal

    async def tracks(self, file: AnyFile) -> tuple[str, list[Track]]:
        """The type that `canPlayType` takes, and the tracks; none when the head tells nothing."""
        if file.entity_tag not in self._tracks:
            async with self._reading:
                container, tracks = await self._read_tracks(file)
            codecs = ", ".join(_codecs_of(tracks))
            mime_type = f'{container}; codecs="{codecs}"' if codecs else container
            self._tracks[file.entity_tag] = mime_type, tracks
        return self._tracks[file.entity_tag]

    async def _read_tracks(self, file: AnyFile) -> tuple[str, list[Track]]:
        start = await self._read(file, ByteRange(0, min(BOX_HEAD_BYTES, file.complete_length)))
        try:
            if start.startswith(_EBML.to_bytes(4, "big")):
                stop = min(MATROSKA_HEAD_BYTES, file.complete_length)
                doc_type, tracks = matroska_tracks(await self._read(file, ByteRange(0, stop)))
                return f"video/{'webm' if doc_type == 'webm' else 'x-matroska'}", tracks
            if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                is_quick_time = start[8:12] == b"qt  "
                tracks = mp4_tracks(await self._mp4_index(file))
                return "video/quicktime" if is_quick_time else "video/mp4", tracks
            if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
                return "video/x-msvideo", []
        except BrokenFilm as broken:
            log.info("the head of a film tells nothing: %s", broken)
        return file.mime_type, []

    async def _mp4_index(self, file: AnyFile) -> bytes:
        """The body of the `moov` box, wherever it is; raises BrokenFilm."""
        offset, length = 0, file.complete_length
        for _ in range(TOP_BOXES_MAX):
            stop = min(offset + BOX_HEAD_BYTES, length)
            box = read_box(await self._read(file, ByteRange(offset, stop)), offset, length)
            if box.kind == b"moov":
                if box.stop - box.start > INDEX_MAX_BYTES:
                    break
                return await self._read(file, ByteRange(box.start, box.stop))
            offset = box.stop
        raise BrokenFilm("there is no index, or an enormous one")

    async def _text(self, file: RemoteFile, most_bytes: int) -> str:
        if file.complete_length > most_bytes:
            raise PlaylistRefused("it is too long")
        return (await self._read(file, ByteRange(0, file.complete_length))).decode()

    async def _read(self, file: AnyFile, wanted: ByteRange) -> bytes:
        body = bytearray()
        for each, span in file.spans(wanted):
            async with RangeReader(self._cache, each, span) as reader:
                while piece := await reader.read():
                    body += piece
        return bytes(body)


def _codecs_of(tracks: Iterable[Track]) -> tuple[str, ...]:
    """The codecs of picture and sound, each once, the picture's first."""
    codecs = [each.codec for kind in ("video", "audio") for each in tracks if each.kind == kind]
    return tuple(dict.fromkeys(codecs))


# -- the clients' connections ---------------------------------------------------------------------


class Lobby:
    """All clients' connections, at most so many: a new one takes the place of the longest idle.

    Idle is who asks for nothing at present: is between two requests, has not sent the whole of
    one, or never sends any. Make one per server and use it as its protocol factory.
    """

    def __init__(self, factory: Callable[[], asyncio.Protocol], most: int) -> None:
        self._factory = factory
        self._most = most
        self._idle: OrderedDict[Guest, None] = OrderedDict()  # the longest idle first
        self._busy: set[Guest] = set()

    def __call__(self) -> Guest:
        return Guest(self, self._factory())

    def admit(self, guest: Guest) -> bool:
        """Whether there is room for one more, made by showing an idle one out if need be."""
        if len(self._idle) + len(self._busy) >= self._most:
            if not self._idle:
                return False
            longest, _ = self._idle.popitem(last=False)
            longest.show_out()
        self._idle[guest] = None
        return True

    def leave(self, guest: Guest) -> None:
        self._idle.pop(guest, None)
        self._busy.discard(guest)

    def become_busy(self, guest: Guest) -> None:
        if guest in self._idle:
            del self._idle[guest]
            self._busy.add(guest)
        guest.said_bytes = 0

    def become_idle(self, guest: Guest) -> None:
        if guest in self._busy:
            self._busy.remove(guest)
            self._idle[guest] = None


class Guest(asyncio.Protocol):
    """One client's connection, counted by the lobby; all else is aiohttp's protocol inside."""

    def __init__(self, lobby: Lobby, inside: asyncio.Protocol) -> None:
        self.lobby = lobby
        self._inside = inside
        self._transport: asyncio.Transport | None = None
        self._is_in = False
        self.said_bytes = 0  # since the last request began

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_in = self.lobby.admit(self)
        if self._is_in:
            self._inside.connection_made(transport)
        else:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_in:
            self.lobby.leave(self)
            self._inside.connection_lost(error)

    def show_out(self) -> None:
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._is_in:
            return
        self.said_bytes += len(data)
        if self.said_bytes <= HEAD_MAX_BYTES:
            self._inside.data_received(data)
        elif self._transport and not self._transport.is_closing():
            self._transport.write(HEAD_TOO_LARGE)
            self._transport.close()

    def eof_received(self) -> bool | None:
        return self._inside.eof_received()

    def pause_writing(self) -> None:
        self._inside.pause_writing()

    def resume_writing(self) -> None:
        self._inside.resume_writing()


@contextlib.contextmanager
def _busy(request: web.Request) -> Iterator[None]:
    """While this lasts the connection of a request is not idle."""
    guest = request.transport.get_protocol() if request.transport else None
    if not isinstance(guest, Guest):  # a server without a lobby
        yield
        return
    guest.lobby.become_busy(guest)
    try:
        yield
    finally:
        guest.lobby.become_idle(guest)


# ------------------------------------------------------------------------------------------------
# 8. Reading: the bytes of one range, in order, with a window that runs ahead
# ------------------------------------------------------------------------------------------------


STALL_S = 5.0
"""A viewer that took nothing for so long is paused or gone: others may have its read-ahead."""


class RangeReader:
    """One response's way through a file. Use `async with`: leaving it gives up what is unread.

    Back-pressure is the pull itself: nothing is planned but by `read`, so a viewer that stops
    taking bytes stops the fetching once its window is full. When memory is short it then loses
    the window too, and starts small again if it ever reads on.
    """

    def __init__(self, cache: ChunkCache, file: RemoteFile, byte_range: ByteRange) -> None:
        self._cache = cache
        self._file = file
        self._position = byte_range.start
        self._stop = byte_range.stop
        self._delivered_bytes = 0  # in this run; a stall ends it
        self._planned_bytes = 0
        self._patience_s = HOLD_MAX_S
        self._window: deque[CacheEntry] = deque()
        self._body: ChunkBody | None = None  # of the chunk that holds the position
        self._left_at: float | None = None  # when the viewer went off with a piece, loop's clock
        self._stall_check: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> RangeReader:
        self._cache.readers += 1
        self._check_again_in(STALL_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cache.readers -= 1
        self._leave_window()
        if self._stall_check:
            self._stall_check.cancel()
        else:
            self._cache.resting_readers -= 1

    async def read(self) -> memoryview:
        """The next piece; empty at the end of the range. Raises StreamError."""
        self._left_at = None
        if self._body is None or self._position >= self._window[0].chunk.stop:
            if self._position >= self._stop:
                return memoryview(b"")
            self._body = await self._next_body()
        offset = self._window[0].chunk.offset
        piece = self._body.view(self._position - offset, self._stop - offset)
        self._position += len(piece)
        self._delivered_bytes += len(piece)
        self._patience_s = HOLD_MIDWAY_S
        self._left_at = asyncio.get_running_loop().time()
        return piece

    async def _next_body(self) -> ChunkBody:
        """The body of the chunk that holds the position, with more of them asked for behind it."""
        if self._stall_check is None:
            self._cache.resting_readers -= 1
            self._check_again_in(STALL_S)
        if self._window and self._window[0].chunk.stop <= self._position:
            self._cache.leave(self._window.popleft())
        if self._window and self._window[0].failed:
            # It failed while it was only read ahead; now that it is asked for, it is tried anew.
            self._leave_window()
        self._fill_window()
        head = self._window[0]
        if head.body is not None:
            return head.body
        return await self._cache.wait_for(head, self._patience_s)

    def _fill_window(self) -> None:
        """Plan chunks until the window is as wide as it may be; the head chunk in any case."""
        pace = self._cache.pace(self._file)
        width = window_bytes(self._delivered_bytes, self._cache.share_bytes(), pace)
        while True:
            position = self._window[-1].chunk.stop if self._window else self._position
            if position >= self._stop:
                return
            wanted = next_chunk_bytes(self._planned_bytes, width, pace)
            ahead = position - self._position
            if self._window and (ahead + wanted > width or not self._cache.has_room(wanted)):
                return
            if not self._cache.has_room(wanted):
                wanted = CHUNK_MIN_BYTES
            entry = self._cache.join(self._file, position, wanted, self._stop)
            self._planned_bytes += entry.chunk.stop - position
            self._window.append(entry)

    def _leave_window(self) -> None:
        # The farthest first: if memory is short, what is needed last goes first.
        while self._window:
            self._cache.leave(self._window.pop())
        self._body = None

    def _check_again_in(self, seconds: float) -> None:
        self._stall_check = asyncio.get_running_loop().call_later(seconds, self._check_stall)

    def _check_stall(self) -> None:
        """Give the window up when the viewer has stalled and memory is short."""
        now = asyncio.get_running_loop().time()
        idle_s = 0.0 if self._left_at is None else now - self._left_at
        if idle_s < STALL_S or not self._cache.is_tight():
            self._check_again_in(max(1.0, STALL_S - idle_s))
            return
        self._stall_check = None
        self._cache.resting_readers += 1
        self._leave_window()
        self._delivered_bytes = self._planned_bytes = 0


# ------------------------------------------------------------------------------------------------
# 9. Cache: every chunk at hand or on its way, shared by all who want it
# ------------------------------------------------------------------------------------------------

EDGE_BYTES = 2 * MIB
"""The ends of a file: its index (`moov`, Cues) is in one of them and is asked for at every start
and every seek, so they are given up last."""
IDLE_BASE_BYTES = 4 * MIB
IDLE_PER_READER_BYTES = MIB
"""What stays in memory once nobody reads it, within the budget: enough for the ends of a few films
and for viewers who follow one another, and no more than that, since a small host has little."""


class CacheEntry:
    """One chunk of one file: on its way until `body` is there, pinned while anybody reads it."""

    __slots__ = ("body", "chunk", "is_edge", "key", "readers", "request", "task")

    def __init__(self, request: ChunkRequest) -> None:
        file, chunk = request.file, request.chunk
        self.key = (file.key, chunk)
        self.chunk = chunk
        self.is_edge = chunk.offset < EDGE_BYTES or chunk.stop > file.complete_length - EDGE_BYTES
        self.request = request
        self.readers = 0
        self.body: ChunkBody | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def failed(self) -> bool:
        return self.body is None and self.task is None


class ChunkFetcher(Protocol):
    """What the cache needs from the layer below."""

    def pace(self, file: RemoteFile) -> Pace: ...

    async def fetch(self, request: ChunkRequest) -> ChunkBody: ...


class ChunkCache:
    """Chunks of all files within one budget of bytes; each is fetched once however many wait."""

    def __init__(self, fetcher: ChunkFetcher, budget_bytes: int) -> None:
        self._fetcher = fetcher
        self.budget_bytes = budget_bytes
        self._entries: dict[tuple[tuple[int, str], Chunk], CacheEntry] = {}
        # Entries that nobody reads, the longest unread first; the middles of films go before edges
        # as long as those leave them half of the room.
        self._idle: OrderedDict[CacheEntry, None] = OrderedDict()
        self._idle_edges: OrderedDict[CacheEntry, None] = OrderedDict()
        self.idle_bytes = 0
        self._idle_edge_bytes = 0
        self.readers = 0
        self.resting_readers = 0  # those of them that gave their window up
        self.held_bytes = 0
        self.fetched_bytes = 0
        self.hits = 0
        self.hit_bytes = 0
        self.misses = 0

    def pace(self, file: RemoteFile) -> Pace:
        return self._fetcher.pace(file)

    @property
    def window_bytes(self) -> int:
        """What readers hold at present, all their windows together."""
        return self.held_bytes - self.idle_bytes

    def share_bytes(self) -> int:
        """One reader's fair share of the budget."""
        return self.budget_bytes // max(1, self.readers - self.resting_readers)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes fit once everything that nobody reads is given up."""
        return self.window_bytes + size <= self.budget_bytes

    def is_tight(self) -> bool:
        """Whether windows fill so much of the budget that one who stalls should give way."""
        return self.window_bytes > self.budget_bytes // 2

    def join(self, file: RemoteFile, position: int, wanted_bytes: int, stop: int) -> CacheEntry:
        """The entry that holds `position`, found or begun, and pinned until `leave`."""
        for chunk in covering_chunks(position):
            if entry := self._entries.get((file.key, chunk)):
                self.hits += 1
                self.hit_bytes += chunk.size
                self._pin(entry)
                return entry
        self.misses += 1
        return self._begin(file, chunk_at(position, wanted_bytes, stop))

    def leave(self, entry: CacheEntry) -> None:
        """Undo one `join`. A fetch that nobody waits for is called off unless it is on the wire."""
        entry.readers -= 1
        if entry.readers:
            return
        entry.request.wanted = False
        if entry.body is not None:
            self._make_idle(entry)
        elif entry.task is not None and not entry.request.on_the_wire:
            # Out of the table before the cancellation runs, or the next one to want this chunk
            # would join a fetch that is about to end.
            entry.task.cancel()
            self._forget(entry)

    async def wait_for(self, entry: CacheEntry, patience_s: float) -> ChunkBody:
        """The body of a pinned entry, asked for before all read-ahead. Raises StreamError."""
        entry.request.raise_to_demand(patience_s)
        if entry.task is not None:
            await asyncio.shield(entry.task)
        if entry.body is None:
            raise TemporaryFailure("The chunk was called off.")
        return entry.body

    def _begin(self, file: RemoteFile, chunk: Chunk) -> CacheEntry:
        entry = CacheEntry(ChunkRequest(file, chunk))
        entry.readers = 1
        self._entries[entry.key] = entry
        self.held_bytes += chunk.size
        self._evict()
        entry.task = asyncio.create_task(self._load(entry))
        entry.task.add_done_callback(consume_exception)
        return entry

    async def _load(self, entry: CacheEntry) -> None:
        try:
            body = await self._fetcher.fetch(entry.request)
        except BaseException:
            self._forget(entry)
            raise
        finally:
            entry.task = None
        entry.body = body
        self.fetched_bytes += len(body)
        if not entry.readers:
            self._make_idle(entry)

    def _pin(self, entry: CacheEntry) -> None:
        if not entry.readers and entry.body is not None:
            self._take_from_idle(entry)
        entry.readers += 1
        entry.request.wanted = True

    def _make_idle(self, entry: CacheEntry) -> None:
        (self._idle_edges if entry.is_edge else self._idle)[entry] = None
        self.idle_bytes += entry.chunk.size
        self._idle_edge_bytes += entry.chunk.size if entry.is_edge else 0
        self._evict()

    def _take_from_idle(self, entry: CacheEntry) -> None:
        del (self._idle_edges if entry.is_edge else self._idle)[entry]
        self.idle_bytes -= entry.chunk.size
        self._idle_edge_bytes -= entry.chunk.size if entry.is_edge else 0

    def _evict(self) -> None:
        idle_max_bytes = IDLE_BASE_BYTES + IDLE_PER_READER_BYTES * self.readers
        while self.idle_bytes and (
            self.held_bytes > self.budget_bytes or self.idle_bytes > idle_max_bytes
        ):
            are_edges_many = self._idle_edge_bytes > idle_max_bytes // 2
            victims = self._idle_edges if are_edges_many or not self._idle else self._idle
            entry = next(iter(victims))
            self._take_from_idle(entry)
            self._forget(entry)

    async def close(self) -> None:
        """Call off every fetch, those on the wire too."""
        tasks = [entry.task for entry in self._entries.values() if entry.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, entry: CacheEntry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self.held_bytes -= entry.chunk.size


# ------------------------------------------------------------------------------------------------
# 10. Connections: which chunk next, over which bot's connection, and after what pause
# ------------------------------------------------------------------------------------------------

IN_FLIGHT_GROWTH = 1 / 8
"""By which part of each chunk that came in well the limit grows; trouble halves it."""
IN_FLIGHT_TRIPS = 2
"""Read-ahead is never more than a line carries in so many round trips: more of it would make no
film faster and hold up every seek."""
DEMAND_EXTRA_BYTES = 512 * KIB
"""Room beyond the limit that only a waiting viewer's chunk may take: it need not queue behind
read-ahead. Official clients have up to 4.5 MiB in flight for an account."""
WINDOW_SLACK_BYTES = 2 * MIB  # of a window, beyond what is in flight: what is being sent
RATE_MEMORY = 0.8  # how much of a line's past counts with each new chunk
TRIP_GROWTH = 1.002  # how fast a round trip is forgotten, with each chunk, on a line never at rest
RETRY_SHARE = 0.7
"""For which part of its patience a failing chunk is tried again; the last try takes the rest."""


class ChunkRequest:
    """One chunk that somebody wants: on demand once a viewer waits for it, else to read ahead."""

    __slots__ = (
        "chunk",
        "file",
        "on_demand",
        "on_the_wire",
        "patience_s",
        "promote",
        "refusals",
        "since",
        "wanted",
    )

    def __init__(self, file: RemoteFile, chunk: Chunk) -> None:
        self.file = file
        self.chunk = chunk
        self.on_demand = False
        self.on_the_wire = False
        self.wanted = True  # when nobody is left, it is not tried again
        self.since = time.monotonic()
        self.patience_s = HOLD_MAX_S
        self.promote: Callable[[], None] | None = None
        self.refusals: dict[int, StreamError] = {}  # by bot: what another bot may still give

    def raise_to_demand(self, patience_s: float) -> None:
        self.patience_s = max(self.patience_s, patience_s)
        if not self.on_demand:
            self.on_demand = True
            self.since = time.monotonic()
            if self.promote:
                self.promote()


@dataclass(frozen=True, slots=True)
class InFlightLimits:
    """Between what the bytes in flight of one bot at one data centre may vary."""

    min_bytes: int
    max_bytes: int

    @property
    def start_bytes(self) -> int:
        return (self.min_bytes + self.max_bytes) // 2


class ChunkSource(Protocol):
    """What a pool needs from the layer below."""

    def sees(self, bot_id: int, chat_id: int) -> bool: ...

    async def fetch_chunk(self, bot_id: int, file: RemoteFile, chunk: Chunk) -> ChunkBody: ...


class Connection:
    """One bot's connection to a data centre, as the pool sees it: its room, speed and rest."""

    def __init__(self, bot_id: int, limits: InFlightLimits) -> None:
        self.bot_id = bot_id
        self.in_flight_bytes = 0
        self.in_flight_max_bytes = limits.start_bytes
        self.rest_until = 0.0  # on time.monotonic's clock
        self.reason: StreamError | None = None  # why it rests
        self.troubles = 0
        self._limits = limits
        self._failures = 0  # in a row
        self._answered_at = 0.0
        self._timed_bytes = 0.0  # came in during
        self._timed_s = 0.0  # so many seconds, the past counting less and less
        self._trip_s = math.inf  # how long an answer takes on a line that is free

    @property
    def bytes_per_second(self) -> float:
        """The line's speed as far as it was seen; infinite before anything was."""
        return self._timed_bytes / self._timed_s if self._timed_s else math.inf

    def has_room(self, request: ChunkRequest) -> bool:
        return (
            not self.in_flight_bytes
            or self.in_flight_bytes + request.chunk.size <= self._room_bytes(request.on_demand)
        )

    def _room_bytes(self, on_demand: bool) -> float:
        if on_demand:
            return self.in_flight_max_bytes + DEMAND_EXTRA_BYTES
        speed = self.bytes_per_second
        # Two of the largest chunks at least, and one beyond what is on the way, or the line would
        # idle between them.
        chunk_bytes = largest_chunk_bytes(speed)
        on_the_way_bytes = IN_FLIGHT_TRIPS * self._trip_s * speed
        return min(self.in_flight_max_bytes, chunk_bytes + max(chunk_bytes, on_the_way_bytes))

    def answered(self, size: int, asked_at: float, *, was_alone: bool) -> None:
        """A chunk came in.

        The line's speed shows when it came right behind another one. Its round trip shows when it
        was asked for while nothing else was in flight; others only make it shorter, or the time
        that a full line takes would pass for distance, and more be asked for ever.
        """
        now = time.monotonic()
        if self._answered_at > asked_at:
            self._timed_bytes = RATE_MEMORY * self._timed_bytes + size
            self._timed_s = RATE_MEMORY * self._timed_s + now - self._answered_at
        self._answered_at = now
        known_s = math.inf if was_alone else self._trip_s * TRIP_GROWTH
        self._trip_s = min(now - asked_at, known_s)
        self._failures = 0
        grown = self.in_flight_max_bytes + int(size * IN_FLIGHT_GROWTH)
        self.in_flight_max_bytes = min(self._limits.max_bytes, grown)

    def flooded(self, wait: FloodWait) -> bool:
        """Rest as long as Telegram says; whether that is longer than it was going to anyway."""
        return self._rest(wait.retry_after_s, wait)

    def failed(self, failure: TemporaryFailure) -> bool:
        """Rest a while, the longer the more failures came in a row; whether that is new.

        What was in flight together fails together, and counts as one failure.
        """
        if self.rest_until > time.monotonic():
            return False
        self._failures += 1
        return self._rest(back_off_s(self._failures), failure)

    def _rest(self, seconds: float, reason: StreamError) -> bool:
        self.troubles += 1
        until = time.monotonic() + seconds
        is_news = until > self.rest_until + 1.0 or self.rest_until <= time.monotonic()
        if until > self.rest_until:
            self.rest_until, self.reason = until, reason
        self.in_flight_max_bytes = max(self._limits.min_bytes, self.in_flight_max_bytes // 2)
        return is_news


@dataclass(slots=True, eq=False)
class _Turn:
    """A request in the queue, and the connection that it is given at last."""

    request: ChunkRequest
    granted: asyncio.Future[Connection]


class ConnectionPool:
    """The bots' connections to one data centre, and the requests that wait for room in them."""

    def __init__(
        self, dc_id: int, source: ChunkSource, bot_ids: Iterable[int], limits: InFlightLimits
    ) -> None:
        self.dc_id = dc_id
        self.connections = [Connection(bot_id, limits) for bot_id in bot_ids]
        self._source = source
        # Two queues: what a viewer waits for goes before all that is read ahead.
        self._demand: deque[_Turn] = deque()
        self._ahead: deque[_Turn] = deque()
        self._wake_up: asyncio.TimerHandle | None = None

    @property
    def waiting_requests(self) -> int:
        return len(self._demand) + len(self._ahead)

    def pace(self, chat_id: int) -> Pace:
        seeing = [each for each in self.connections if self._source.sees(each.bot_id, chat_id)]
        lines = seeing or self.connections
        window = WINDOW_SLACK_BYTES + sum(each.in_flight_max_bytes for each in lines)
        return Pace(largest_chunk_bytes(max(each.bytes_per_second for each in lines)), window)

    async def fetch(self, request: ChunkRequest) -> ChunkBody:
        """The chunk's bytes, through flood waits and failures; raises StreamError in the end."""
        while True:
            connection = await self._turn(request)
            asked_at = time.monotonic()
            was_alone = connection.in_flight_bytes == request.chunk.size
            try:
                body = await self._source.fetch_chunk(
                    connection.bot_id, request.file, request.chunk
                )
            except FloodWait as wait:
                self._report(connection, wait, is_news=connection.flooded(wait))
            except TemporaryFailure as failure:
                self._report(connection, failure, is_news=connection.failed(failure))
                if time.monotonic() - request.since > RETRY_SHARE * request.patience_s:
                    raise
            except (UpstreamFailed, FileMissing, ChannelMissing) as refusal:
                request.refusals[connection.bot_id] = refusal
                if len(request.refusals) == len(self.connections):
                    raise
            else:
                connection.answered(len(body), asked_at, was_alone=was_alone)
                return body
            finally:
                connection.in_flight_bytes -= request.chunk.size
                self._grant_turns()
            if not request.wanted:
                raise TemporaryFailure("Nobody waits for this chunk any more.")

    def _report(self, connection: Connection, trouble: StreamError, *, is_news: bool) -> None:
        if is_news:
            log.warning("bot %d, DC %d: %s", connection.bot_id, self.dc_id, trouble)
        self._dismiss_hopeless()

    async def _turn(self, request: ChunkRequest) -> Connection:
        """Wait in the queue for a connection with room; raises StreamError when none will come."""
        request.on_the_wire = False
        if refusal := self._hopeless(request, time.monotonic()):
            raise refusal
        turn = _Turn(request, asyncio.get_running_loop().create_future())
        (self._demand if request.on_demand else self._ahead).append(turn)
        request.promote = lambda: self._promote(turn)
        self._grant_turns()
        try:
            return await turn.granted
        except BaseException:
            self._withdraw(turn)
            raise
        finally:
            request.promote = None

    def _withdraw(self, turn: _Turn) -> None:
        """Take out of the line what was called off or refused, where it might stay for hours: while
        viewers wait nothing that is read ahead comes to the front."""
        granted = turn.granted
        if granted.done() and not granted.cancelled() and not granted.exception():
            # Granted and called off in the same turn of the loop: give the room back.
            granted.result().in_flight_bytes -= turn.request.chunk.size
        else:
            for queue in (self._demand, self._ahead):
                with contextlib.suppress(ValueError):
                    queue.remove(turn)
        self._grant_turns()

    def _promote(self, turn: _Turn) -> None:
        """A viewer waits now for what was only read ahead."""
        if not turn.granted.done():
            self._ahead.remove(turn)
            self._demand.append(turn)
            self._grant_turns()

    def _grant_turns(self) -> None:
        """Hand out connections, to what is on demand first and then in order. Never waits."""
        now = time.monotonic()
        full: set[int] = set()  # bots for whose room somebody earlier in line waits
        for queue in (self._demand, self._ahead):
            passed_over = []
            while queue and len(full) < len(self.connections):
                turn = queue.popleft()
                if not turn.granted.done() and not self._grant(turn, now, full):
                    passed_over.append(turn)
            queue.extendleft(reversed(passed_over))
        self._schedule_wake_up(now)

    def _grant(self, turn: _Turn, now: float, full: set[int]) -> bool:
        """Give the turn to the least loaded connection with room; if none has any, note which."""
        usable = self._usable(turn.request)
        free = [
            each
            for each in usable
            if each.bot_id not in full and each.rest_until <= now and each.has_room(turn.request)
        ]
        if not free:
            full.update(each.bot_id for each in usable)
            return False
        chosen = min(free, key=lambda each: each.in_flight_bytes)
        chosen.in_flight_bytes += turn.request.chunk.size
        turn.request.on_the_wire = True
        turn.granted.set_result(chosen)
        return True

    def _usable(self, request: ChunkRequest) -> list[Connection]:
        """The connections whose bots see the channel and did not refuse the chunk yet."""
        willing = [each for each in self.connections if each.bot_id not in request.refusals]
        chat_id = request.file.chat_id
        return [each for each in willing if self._source.sees(each.bot_id, chat_id)] or willing

    def _dismiss_hopeless(self) -> None:
        """Tell those in line for whom a connection's new rest is too long."""
        now = time.monotonic()
        for turn in (*self._demand, *self._ahead):
            refusal = None if turn.granted.done() else self._hopeless(turn.request, now)
            if refusal:
                turn.granted.set_exception(refusal)

    def _hopeless(self, request: ChunkRequest, now: float) -> StreamError | None:
        """Why a request should wait no longer: every bot refused it or rests for too long."""
        usable = self._usable(request)
        if not usable:
            return next(iter(request.refusals.values()))
        soonest = min(usable, key=lambda each: each.rest_until)
        if soonest.rest_until <= max(now, request.since + request.patience_s):
            return None
        if isinstance(soonest.reason, FloodWait):
            return FloodWait(soonest.rest_until - now)
        return soonest.reason

    def _schedule_wake_up(self, now: float) -> None:
        """Look again when the first resting connection may work; a busy one calls by itself."""
        if self._wake_up:
            self._wake_up.cancel()
            self._wake_up = None
        rests = [each.rest_until for each in self.connections if each.rest_until > now]
        if rests and self.waiting_requests:
            loop = asyncio.get_running_loop()
            self._wake_up = loop.call_later(min(rests) - now + 0.001, self._grant_turns)


class ConnectionPools:
    """The pools of all data centres, each made when its first file is asked for."""

    def __init__(self, source: ChunkSource, bot_ids: Iterable[int], limits: InFlightLimits) -> None:
        self._source = source
        self._bot_ids = tuple(bot_ids)
        self._limits = limits
        self._pools: dict[int, ConnectionPool] = {}

    def __iter__(self) -> Iterator[ConnectionPool]:
        return iter(self._pools.values())

    def pace(self, file: RemoteFile) -> Pace:
        return self._pool(file).pace(file.chat_id)

    async def fetch(self, request: ChunkRequest) -> ChunkBody:
        return await self._pool(request.file).fetch(request)

    def _pool(self, file: RemoteFile) -> ConnectionPool:
        if file.dc_id not in self._pools:
            pool = ConnectionPool(file.dc_id, self._source, self._bot_ids, self._limits)
            self._pools[file.dc_id] = pool
        return self._pools[file.dc_id]


# ------------------------------------------------------------------------------------------------
# 11. Telegram: the only code that knows Telethon
# ------------------------------------------------------------------------------------------------

CONNECT_TIMEOUT_S = 6.0
SILENCE_MAX_S = 5.0
"""A connection that was silent for so long while something was asked of it is replaced."""
REQUEST_TIMEOUT_S = 15.0
"""One answer that does not come while others do. So long takes a chunk of 128 KiB with another one
before it on a line of 17 KB/s, on which no film plays."""
WATCH_EVERY_S = 0.5
PING_EVERY_S = 60.0
RECEIVE_BUFFER_BYTES = 256 * KIB
PACKET_MAX_BYTES = 2 * MIB  # until it is whole nothing vouches for a packet, so it has a limit
AUTH_KEY_BYTES = 256
SESSION_FILE_MAX_BYTES = MIB
CLOCK_STEP_S = 5.0
SEALED_HEADER_BYTES = 24  # auth_key_id and msg_key
MESSAGE_HEADER = struct.Struct("<qqqii")  # salt, session, message id, number, length
FILE_HEADER = struct.Struct("<IqIIII")  # rpc_result, request, upload.file, type, mtime, 0xfe length
PIECE_REST_BYTES = 2 * KIB  # headers and padding around the bytes of a chunk are less than this
CALL_ATTEMPTS = 3
HOME_MOVES_MAX = 3
MESSAGE_IDS_MAX = 100  # ids per channels.getMessages; the server takes 200, clients send 100
LISTING_WINDOWS_MAX = 20
"""Windows of ids read for one listing request; the caller goes on from the `next` it is given."""
EMPTY_WINDOWS_MAX = 3
"""How many windows without any message end a listing when Telegram does not tell the last id."""
MESSAGE_LIFETIME_S = 600.0
MESSAGES_MAX = 10_000
CHANNELS_MAX = 1000
BLIND_FOR_S = 60.0
THUMBNAIL_EDGE_PX = 320
PLAYLIST_TYPES = frozenset({"application/x-mpegurl", "application/vnd.apple.mpegurl"})
CHANNEL_ID_OFFSET = 1_000_000_000_000  # core.telegram.org/api/bots/ids

_Answer = TypeVar("_Answer")


class _ReferenceExpired(Exception):
    """The file reference is stale; a new one comes with the message read again.

    Source: core.telegram.org/api/file_reference.
    """


class _KeyRefused(TemporaryFailure):
    """The authorization key is not, or no longer, good at this data centre."""


class _LoginRefused(Exception):
    """The bot token or the application's id is wrong; asking again will not mend that."""


class _Moved(Exception):
    """What was asked for lives in another data centre (a 303 of core.telegram.org/api/errors)."""

    def __init__(self, dc_id: int) -> None:
        super().__init__(f"moved to DC {dc_id}")
        self.dc_id = dc_id


class _FileMoved(_Moved):
    """FILE_MIGRATE_X."""


class _BotMoved(_Moved):
    """USER_MIGRATE_X."""


@dataclass(frozen=True, slots=True)
class _Message:
    """What one bot knows of one message with a file: the file, and what opens it for this bot."""

    listed: ListedFile
    media: Any  # the Document or Photo, with this bot's access hash and file reference
    read_at: float  # on time.monotonic's clock
    made: tuple[Any, ...] = ()  # the Documents that Telegram's server made of it

    def document(self, media_id: int) -> Any | None:
        """The document or photo of that id, None when the message holds it no more."""
        return next((each for each in (self.media, *self.made) if each.id == media_id), None)


def _location(media: Any, variant: str) -> Any:
    kind = (
        types.InputDocumentFileLocation
        if isinstance(media, types.Document)
        else types.InputPhotoFileLocation
    )
    return kind(media.id, media.access_hash, media.file_reference, variant)


class TelegramGateway:
    """All bots, and what they can do for the layers above: find, list, fetch."""

    def __init__(self, settings: Settings) -> None:
        if settings.telegram_key_pem:
            telethon_rsa.add_key(settings.telegram_key_pem, old=False)
        self._clock = _Clock()
        self._session_file = _SessionFile(settings)
        sessions = dict(enumerate(settings.session_strings))
        self._bots = {
            bot.id: bot
            for bot in (
                _Bot(settings, token, sessions.get(index, ""), self._clock, self._keep_sessions)
                for index, token in enumerate(settings.bot_tokens)
            )
        }
        self._messages: Remembered[tuple[int, int, int], _Message] = Remembered(MESSAGES_MAX)
        self._reading: dict[tuple[int, int, int], asyncio.Task[_Message]] = {}
        self._blind_until: Remembered[tuple[int, int], float] = Remembered(CHANNELS_MAX)
        self._moved: Remembered[int, int] = Remembered(MESSAGES_MAX)

    @property
    def bot_ids(self) -> tuple[int, ...]:
        return tuple(self._bots)

    def states(self) -> list[dict[str, Any]]:
        """One entry per bot for /health: its id, its state, the seconds it has to wait."""
        return [bot.describe() | {"blind_to": self._blind_to(bot)} for bot in self._bots.values()]

    def _blind_to(self, bot: _Bot) -> list[int]:
        """The channels that the bot was lately found not to see."""
        channels = [chat_id for bot_id, chat_id in self._blind_until if bot_id == bot.id]
        return [chat_id for chat_id in channels if not self.sees(bot.id, chat_id)]

    def flood_waits(self) -> dict[int, tuple[int, float]]:
        """By bot: how many flood waits Telegram gave, and their seconds in all."""
        return {bot.id: (bot.flood_waits, bot.flood_wait_s) for bot in self._bots.values()}

    @property
    def clock_behind_s(self) -> float:
        """How far this machine's clock is behind Telegram's; 0 as long as that is not known."""
        return self._clock.behind_s

    async def start(self, handover: asyncio.Future[None] | None = None) -> None:
        """Begin to log in where that endangers no key; never waits for Telegram.

        A session string is used once `handover` is over, since the worker before this one may
        use the same.
        """
        kept = await asyncio.to_thread(self._session_file.open)
        for bot in self._bots.values():
            bot.start(kept.get(bot.id), handover)

    async def leave_sessions(self) -> None:
        """Stop using the session strings: another worker is about to."""
        await asyncio.gather(*(bot.leave_session() for bot in self._bots.values()))

    def _keep_sessions(self) -> None:
        self._session_file.keep([bot.session() for bot in self._bots.values()])

    async def close(self) -> None:
        await asyncio.gather(*(bot.close() for bot in self._bots.values()))
        await self._session_file.close()

    # -- looking after itself ------------------------------------------------------------------

    async def check(self, channels: Sequence[int]) -> AsyncIterator[Finding]:
        """What each bot can reach: its login, these channels, every data centre."""
        for bot in self._bots.values():
            async for finding in bot.check(channels):
                yield finding

    async def session_strings(self) -> str:
        """What SESSION_STRING takes, of a login of each bot; raises StreamError."""
        return ",".join([await bot.session_string() for bot in self._bots.values()])

    # -- finding -----------------------------------------------------------------------------

    async def find(self, chat_id: int, message_id: int) -> ListedFile:
        """The file of a message; raises FileMissing, ChannelMissing, UpstreamFailed or -Busy."""
        return (await self._message_of_any_bot(chat_id, message_id)).listed

    async def find_thumbnail(self, chat_id: int, message_id: int) -> RemoteFile | bytes:
        """The thumbnail of a message's file, or its very bytes where Telegram put them inline."""
        message = await self._message_of_any_bot(chat_id, message_id)
        thumbnail = _thumbnail(message.listed.file, message.media)
        if thumbnail is None:
            raise FileMissing("Telegram has no thumbnail of this file.")
        return thumbnail

    async def list_files(
        self, chat_id: int, after: int, limit: int
    ) -> tuple[list[ListedFile], int | None]:
        """Up to `limit` files of messages above `after`, and where to go on: None at the end.

        Bots cannot read a history (messages.getHistory is for users), so the ids are walked.
        """
        return await self._with_any_bot(
            chat_id, lambda bot: self._list_files(bot, chat_id, after, limit)
        )

    async def _list_files(
        self, bot: _Bot, chat_id: int, after: int, limit: int
    ) -> tuple[list[ListedFile], int | None]:
        files: list[ListedFile] = []
        top = await bot.top_message_id(chat_id)
        end = MESSAGE_ID_MAX if top is None else top
        empty_windows = 0
        for _ in range(LISTING_WINDOWS_MAX):
            if after >= end:
                return files, None
            last = min(after + MESSAGE_IDS_MAX, end)
            messages = await bot.read_messages(chat_id, range(after + 1, last + 1))
            empty_windows = 0 if messages else empty_windows + 1
            if top is None and empty_windows == EMPTY_WINDOWS_MAX:
                return files, None
            for raw in messages:
                if (message := _file_message(chat_id, raw)) is None:
                    continue
                if len(files) == limit:
                    return files, files[-1].file.message_id
                self._remember(bot, message)
                files.append(message.listed)
            after = last
        return files, after

    async def _message_of_any_bot(self, chat_id: int, message_id: int) -> _Message:
        try:
            async with asyncio.timeout(HOLD_MAX_S):
                return await self._with_any_bot(
                    chat_id, lambda bot: self._message(bot, chat_id, message_id)
                )
        except TimeoutError:
            raise TemporaryFailure("Telegram does not answer.") from None

    async def _with_any_bot(
        self, chat_id: int, action: Callable[[_Bot], Awaitable[_Answer]]
    ) -> _Answer:
        """What the first bot that can says; else the failure that leaves the most hope."""
        failures: list[StreamError] = []
        seeing = [bot for bot in self._bots.values() if self.sees(bot.id, chat_id)]
        for bot in sorted(seeing, key=lambda bot: bot.wait_s()):
            try:
                return await action(bot)
            except ChannelMissing:
                self._note_blind(bot, chat_id)
            except FileMissing as missing:
                failures.append(missing)
                if chat_id <= -CHANNEL_ID_OFFSET:
                    break  # in a channel all bots see the same; in a private chat each its own
            except (UpstreamBusy, TemporaryFailure, UpstreamFailed) as trouble:
                failures.append(trouble)
        for kind in (UpstreamBusy, TemporaryFailure, UpstreamFailed, FileMissing):
            for failure in failures:
                if isinstance(failure, kind):
                    raise failure
        raise ChannelMissing("None of the bots can see this channel.")

    def _note_blind(self, bot: _Bot, chat_id: int) -> None:
        log.warning("bot %d cannot see channel %d", bot.id, chat_id)
        self._blind_until[bot.id, chat_id] = time.monotonic() + BLIND_FOR_S

    def sees(self, bot_id: int, chat_id: int) -> bool:
        """Whether the bot is not known to be blind to the channel."""
        blind_until = self._blind_until.get((bot_id, chat_id))
        if blind_until is not None and blind_until <= time.monotonic():
            del self._blind_until[bot_id, chat_id]
            blind_until = None
        return blind_until is None

    # -- messages, remembered for each bot since access hashes and references are its own -------

    async def _message(self, bot: _Bot, chat_id: int, message_id: int) -> _Message:
        """The message as it is remembered; an old memory is good once more while it is renewed."""
        known = self._messages.get((bot.id, chat_id, message_id))
        if known is None:
            return await self._read_message(bot, chat_id, message_id)
        if known.read_at < time.monotonic() - MESSAGE_LIFETIME_S:
            _ = self._begin_reading(bot, chat_id, message_id)
        return known

    async def _read_message(self, bot: _Bot, chat_id: int, message_id: int) -> _Message:
        """Ask Telegram, once for all who want the same message at the same time."""
        return await asyncio.shield(self._begin_reading(bot, chat_id, message_id))

    def _begin_reading(self, bot: _Bot, chat_id: int, message_id: int) -> asyncio.Task[_Message]:
        key = (bot.id, chat_id, message_id)
        if (task := self._reading.get(key)) is None:
            task = asyncio.create_task(self._read_message_alone(bot, chat_id, message_id))
            self._reading[key] = task
            task.add_done_callback(lambda _: self._reading.pop(key, None))
            task.add_done_callback(consume_exception)
        return task

    async def _read_message_alone(self, bot: _Bot, chat_id: int, message_id: int) -> _Message:
        found = await bot.read_messages(chat_id, [message_id])
        message = _file_message(chat_id, found[0]) if found else None
        if message is None:
            self._messages.pop((bot.id, chat_id, message_id), None)
            raise FileMissing("There is no such message." if not found else "It holds no file.")
        self._remember(bot, message)
        return message

    def _remember(self, bot: _Bot, message: _Message) -> None:
        file = message.listed.file
        self._messages[bot.id, file.chat_id, file.message_id] = message
        bot.warm(file.dc_id)

    # -- fetching ----------------------------------------------------------------------------

    async def fetch_chunk(self, bot_id: int, file: RemoteFile, chunk: Chunk) -> ChunkBody:
        """One `upload.getFile` (core.telegram.org/method/upload.getFile), whole or an error.

        Raises FloodWait, TemporaryFailure, UpstreamFailed, FileMissing, ChannelMissing.
        """
        bot = self._bots[bot_id]
        try:
            message = await self._message_of(bot, file)
            try:
                body = await self._get_file(bot, message, file, chunk)
            except _ReferenceExpired:
                newer = await self._newer_message(bot, file, message)
                body = await self._get_file(bot, newer, file, chunk)
        except _ReferenceExpired as refusal:
            raise TemporaryFailure("Telegram refuses a fresh file reference.") from refusal
        except ChannelMissing:
            self._note_blind(bot, file.chat_id)
            raise
        expected = min(chunk.stop, file.complete_length) - chunk.offset
        if len(body) != expected:
            raise TemporaryFailure(f"Telegram sent {len(body)} bytes instead of {expected}.")
        return body

    async def _message_of(self, bot: _Bot, file: RemoteFile) -> _Message:
        # However old: what it names does not change, and a stale file reference says so itself.
        message = self._messages.get((bot.id, file.chat_id, file.message_id))
        if message is None or message.document(file.media_id) is None:
            message = await self._read_message(bot, file.chat_id, file.message_id)
        self._check_same(message, file)
        return message

    async def _newer_message(self, bot: _Bot, file: RemoteFile, stale: _Message) -> _Message:
        # Another chunk may have brought a newer reference while this one was on its way.
        newer = self._messages.get((bot.id, file.chat_id, file.message_id))
        if newer is None or newer is stale:
            newer = await self._read_message(bot, file.chat_id, file.message_id)
        self._check_same(newer, file)
        return newer

    @staticmethod
    def _check_same(message: _Message, file: RemoteFile) -> None:
        if message.document(file.media_id) is None:
            raise FileReplaced("The file was replaced by another one.")

    async def _get_file(
        self, bot: _Bot, message: _Message, file: RemoteFile, chunk: Chunk
    ) -> ChunkBody:
        location = _location(message.document(file.media_id), file.variant)
        request = _GetFile(location, chunk.offset, chunk.size)
        for _ in range(2):
            dc_id = self._moved.get(file.media_id, file.dc_id)
            try:
                answer = await bot.call(request, dc_id)
            except _FileMoved as moved:
                self._moved[file.media_id] = moved.dc_id
                continue
            if not isinstance(answer, ChunkBody):
                # Bots may not read Telegram's CDN (upload.getCdnFile is for users).
                raise UpstreamFailed("Telegram wants this file to be read from its CDN.")
            return answer
        raise UpstreamFailed("Telegram moves this file from one data centre to another.")


class _Door:
    """A bot's way into one data centre: its key there, its link, and when to try again."""

    def __init__(self, key: Any = None) -> None:
        self.key = key
        self._opening: asyncio.Task[_Link] | None = None
        self._failures = 0
        self._retry_at = 0.0  # on time.monotonic's clock

    @property
    def link(self) -> _Link | None:
        """The open link, if there is one."""
        task = self._opening
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result() if task.result().is_open() else None

    @property
    def is_opening(self) -> bool:
        return self._opening is not None and not self._opening.done()

    async def enter(self, connect: Callable[[_Door], Awaitable[_Link]]) -> _Link:
        """The open link, or a new one: opened once for all who need it at the same time."""
        if self._opening is None or (self._opening.done() and not self.link):
            self._opening = asyncio.create_task(self._open(connect))
            self._opening.add_done_callback(consume_exception)
        return await asyncio.shield(self._opening)

    async def _open(self, connect: Callable[[_Door], Awaitable[_Link]]) -> _Link:
        if (pause_s := self._retry_at - time.monotonic()) > 0:
            await asyncio.sleep(pause_s)
        # Counted before it is tried and forgotten at the first answer to a caller: a server that
        # accepts and then closes must not be met by a hot loop.
        self._failures += 1
        self._retry_at = time.monotonic() + back_off_s(self._failures)
        return await connect(self)

    def answered(self) -> None:
        """Forget the failures: it works."""
        self._failures = 0
        self._retry_at = 0.0

    async def refused(self, key: Any) -> None:
        """Forget a key that is good no longer, unless another took its place already."""
        if self.key is key:
            self.key = None
        await self.close()

    async def close(self) -> None:
        link = self.link
        if self._opening:
            self._opening.cancel()
            self._opening = None
        if link:
            await link.close()


class _Bot:
    """One bot account: its login at home, its keys and links at other data centres.

    It connects lazily with a session string, since the instance that it replaces may still use the
    same key, and two connections with one key at the home data centre kill it
    (AUTH_KEY_DUPLICATED, core.telegram.org/api/errors). A fresh login endangers nobody and is begun
    at once, as is a session from the file, which is locked.
    """

    def __init__(
        self,
        settings: Settings,
        token: str,
        session_string: str,
        clock: _Clock,
        keep: Callable[[], None],
    ) -> None:
        self.id = int(token.partition(":")[0])
        self._token = token
        self._api_id = settings.api_id
        self._api_hash = settings.api_hash
        self._data_centres = {settings.telegram.dc_id: settings.telegram}
        self._home_dc = settings.telegram.dc_id  # known for certain once it has logged in
        self._logged_in = False
        self._home = _Door()
        self._abroad: dict[int, _Door] = {}
        self._channels: Remembered[int, Any] = Remembered(CHANNELS_MAX)
        self._background: set[asyncio.Task[Any]] = set()
        self._login_after = 0.0
        self._flooded_until = 0.0
        self._ask_after: dict[type[Any], float] = {}  # by method, on time.monotonic's clock
        self._refused = ""
        self._clock = clock
        self._keep = keep
        self._shared_key: Any = None  # of the session string, which another worker may have too
        self._handover: asyncio.Future[None] | None = None
        self.flood_waits = 0
        self.flood_wait_s = 0.0
        if session_string:
            session = StringSession(session_string)
            self._home_dc = session.dc_id
            self._home.key = self._shared_key = session.auth_key
            self._data_centres.setdefault(
                session.dc_id, DataCentre(session.dc_id, session.server_address, session.port)
            )

    def start(self, kept: _KeptSession | None, handover: asyncio.Future[None] | None) -> None:
        """Begin with what was kept, if anything; see `TelegramGateway.start`."""
        self._handover = handover
        if kept:
            self._take_up(kept)
        if self._home.key is None or self._home.key is not self._shared_key:
            self._in_background(self._log_in_patiently())

    def _take_up(self, kept: _KeptSession) -> None:
        for dc_id, where in kept.data_centres.items():
            self._data_centres.setdefault(dc_id, where)
        keys = {dc_id: AuthKey(key) for dc_id, key in kept.keys.items()}
        if home_key := keys.pop(kept.home_dc, None):
            self._home_dc, self._home.key = kept.home_dc, home_key
        for dc_id, key in keys.items():
            self._abroad[dc_id] = _Door(key)

    def session(self) -> _KeptSession:
        """What is to be kept, so that the next start need not log in nor export anything."""
        doors = dict(self._abroad)
        if self._home.key is not self._shared_key:
            doors[self._home_dc] = self._home
        keys = {dc_id: bytes(door.key.key) for dc_id, door in doors.items() if door.key}
        return _KeptSession(self.id, self._home_dc, keys, dict(self._data_centres))

    async def leave_session(self) -> None:
        """Leave the session string to another worker; home is logged in to anew if needed."""
        if self._shared_key and self._home.key is self._shared_key:
            log.info("bot %d leaves its session to another worker", self.id)
            await self._home.refused(self._shared_key)

    def warm(self, dc_id: int) -> None:
        """Begin to connect where a file was seen: a first connection takes eight round trips."""
        if dc_id == self._home_dc:
            return
        door = self._abroad.setdefault(dc_id, _Door())
        if not (door.link or door.is_opening):
            self._in_background(self._link(dc_id))

    async def close(self) -> None:
        for task in tuple(self._background):
            task.cancel()
        for door in (self._home, *self._abroad.values()):
            await door.close()

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(consume_exception)

    def _count(self, wait: FloodWait) -> None:
        self.flood_waits += 1
        self.flood_wait_s += wait.retry_after_s

    def wait_s(self) -> float:
        """How long Telegram asked this bot to be quiet, from now."""
        return max(0.0, max(self._login_after, self._flooded_until) - time.monotonic())

    def describe(self) -> dict[str, Any]:
        if self._refused:
            state = "refused"
        elif self.wait_s():
            state = "flood wait"
        elif self._home.link:
            state = "connected"
        else:
            state = "logging in" if self._home.is_opening else "not connected"
        return {
            "bot": self.id,
            "state": state,
            "wait_s": round(self.wait_s()),
            "message": self._refused,
        }

    async def _log_in_patiently(self) -> None:
        """Log in before the first viewer comes; wait as long as Telegram asks, never give up."""
        while not self._refused:
            try:
                await self._link(None)
                return
            except FloodWait as wait:
                log.warning("bot %d may log in again in %.0f s", self.id, wait.retry_after_s)
                await asyncio.sleep(wait.retry_after_s)
            except TemporaryFailure as failure:  # the door makes the pauses
                log.warning("bot %d is not logged in yet: %s", self.id, failure)
            except UpstreamFailed as refusal:
                log.error("bot %d cannot log in: %s", self.id, refusal)

    # -- looking after itself ------------------------------------------------------------------

    async def check(self, channels: Sequence[int]) -> AsyncIterator[Finding]:
        """Log in, look at these channels, and knock at every data centre."""
        try:
            link = await self._link(None)
        except StreamError as refusal:
            yield Finding(False, f"bot {self.id}: {refusal} {self._advice(refusal)}")
            return
        yield Finding(True, f"bot {self.id} is logged in at DC {link.dc_id}")
        if abs(self._clock.behind_s) > CLOCK_SKEW_S:
            text = f"this machine's clock is {self._clock.behind_s:+.0f} s off: set it by NTP"
            yield Finding(False, text)
        for chat_id in channels:
            yield await self._check_channel(chat_id)
        for dc_id in sorted(self._data_centres):
            yield await self._check_data_centre(dc_id)

    def _advice(self, refusal: StreamError) -> str:
        if self._refused:
            return "See API_ID and API_HASH at my.telegram.org, BOT_TOKEN at @BotFather."
        if isinstance(refusal, FloodWait):
            return "It logged in too often; keep SESSION_FILE, or set a SESSION_STRING."
        return "Is Telegram reachable from this host?"

    async def _check_channel(self, chat_id: int) -> Finding:
        what = f"bot {self.id}, channel {chat_id}"
        try:
            channel = await self._channel(chat_id)
            top = await self.top_message_id(chat_id)
        except ChannelMissing:
            return Finding(False, f"{what}: not seen; make the bot an administrator there")
        except StreamError as refusal:
            return Finding(False, f"{what}: {refusal}")
        if not (channel.admin_rights or channel.creator):
            text = f"{what}: seen, but the bot is no administrator, so new posts go unheard"
            return Finding(False, text)
        return Finding(True, f"{what}: seen, newest message {top or 'unknown'}")

    async def _check_data_centre(self, dc_id: int) -> Finding:
        began_at = time.monotonic()
        try:
            await self._link(dc_id)
        except StreamError as refusal:
            return Finding(False, f"bot {self.id}, DC {dc_id}: {refusal}")
        passed_ms = (time.monotonic() - began_at) * 1000
        return Finding(True, f"bot {self.id}, DC {dc_id}: reached in {passed_ms:.0f} ms")

    async def session_string(self) -> str:
        link = await self._link(None)
        session, where = StringSession(), self._data_centres[link.dc_id]
        session.set_dc(where.dc_id, where.host, where.port)
        session.auth_key = link.key
        return str(session.save())

    # -- what a bot can ask ------------------------------------------------------------------

    async def top_message_id(self, chat_id: int) -> int | None:
        """The id of the newest message of a channel, None when Telegram does not tell.

        A difference from the very first state is «too long», and that answer names the newest
        message (core.telegram.org/method/updates.getChannelDifference).
        """
        if chat_id > -CHANNEL_ID_OFFSET:
            return None
        channel = await self._input_channel(chat_id)
        request = functions.updates.GetChannelDifferenceRequest(
            channel, types.ChannelMessagesFilterEmpty(), pts=1, limit=1
        )
        try:
            difference = await self._ask(request)
        except UpstreamFailed as refusal:
            log.info("the newest message of %d stays unknown: %s", chat_id, refusal)
            return None
        if isinstance(difference, types.updates.ChannelDifferenceTooLong):
            return int(difference.dialog.top_message)
        return None

    async def read_messages(self, chat_id: int, message_ids: Iterable[int]) -> list[Any]:
        """Those of the messages that exist, by rising id; raises ChannelMissing."""
        ids = [types.InputMessageID(message_id) for message_id in message_ids]
        if chat_id <= -CHANNEL_ID_OFFSET:
            channel = await self._input_channel(chat_id)
            answer = await self._ask(functions.channels.GetMessagesRequest(channel, ids))
        else:
            # Ids of private chats and basic groups are this bot's own, one row for all its chats.
            answer = await self._ask(functions.messages.GetMessagesRequest(ids))
        found = [
            message
            for message in answer.messages
            if isinstance(message, types.Message) and _chat_id(message.peer_id) == chat_id
        ]
        return sorted(found, key=lambda message: int(message.id))

    async def _input_channel(self, chat_id: int) -> Any:
        if chat_id not in self._channels:
            channel = await self._channel(chat_id)
            self._channels[chat_id] = types.InputChannel(channel.id, channel.access_hash)
        return self._channels[chat_id]

    async def _channel(self, chat_id: int) -> Any:
        # Bots may ask with an access hash of 0 for the channels that they are in.
        unknown = types.InputChannel(-chat_id - CHANNEL_ID_OFFSET, 0)
        answer = await self._ask(functions.channels.GetChannelsRequest([unknown]))
        channel = answer.chats[0] if answer.chats else None
        if not isinstance(channel, types.Channel):
            raise ChannelMissing("The bot is not in this channel.")
        return channel

    async def _ask(self, query: Any) -> Any:
        """A call to the home data centre, tried again after a short wait or a bad moment."""
        request, kind = functions.InvokeWithoutUpdatesRequest(query), type(query)
        for attempt in itertools.count(1):
            if (wait_s := self._ask_after.get(kind, 0.0) - time.monotonic()) > 0:
                if wait_s > HOLD_MAX_S:
                    raise FloodWait(wait_s)
                await asyncio.sleep(wait_s)
            try:
                return await self.call(request, None)
            except FloodWait as wait:
                self._ask_after[kind] = time.monotonic() + wait.retry_after_s
                if attempt == CALL_ATTEMPTS:
                    raise
            except TemporaryFailure as failure:
                if attempt == CALL_ATTEMPTS:
                    raise
                log.info("bot %d asks again: %s", self.id, failure)
                await asyncio.sleep(back_off_s(attempt))
        raise AssertionError("the loop ends by return or raise")

    async def call(self, request: Any, dc_id: int | None) -> Any:
        """One request to one data centre, to home when None; raises our errors only."""
        link = await self._link(dc_id)
        door = self._home if link.dc_id == self._home_dc else self._abroad[link.dc_id]
        try:
            answer = await link.call(request)
        except _KeyRefused:
            await door.refused(link.key)
            self._keep()
            raise
        except FloodWait as wait:
            self._flooded_until = max(self._flooded_until, time.monotonic() + wait.retry_after_s)
            self._count(wait)
            raise
        door.answered()
        return answer

    # -- doors: one to home, one to each other data centre -------------------------------------

    async def _link(self, dc_id: int | None) -> _Link:
        if self._refused:
            raise UpstreamFailed(self._refused)
        if dc_id is None or not self._logged_in or dc_id == self._home_dc:
            if self._home.link is None and self._login_after > time.monotonic():
                raise FloodWait(self._login_after - time.monotonic())
            home = await self._home.enter(self._open_home)
            if dc_id is None or dc_id == self._home_dc:
                return home
        door = self._abroad.setdefault(dc_id, _Door())
        return await door.enter(lambda door: self._open_abroad(dc_id, door))

    async def _open_home(self, door: _Door) -> _Link:
        """Log in, following the account to the data centre where it lives."""
        if self._handover and door.key and door.key is self._shared_key:
            await asyncio.shield(self._handover)
        for _ in range(HOME_MOVES_MAX):
            link = await self._connect(self._home_dc, door.key)
            try:
                await self._introduce(link)
                await self._authorise(link, door)
            except _BotMoved as moved:
                await link.close()
                door.key = None
                # A key that was brought there from abroad must not meet the one of this login.
                if stale := self._abroad.pop(moved.dc_id, None):
                    await stale.close()
                self._home_dc = moved.dc_id
                continue
            except _KeyRefused:
                log.warning("bot %d: its key is refused at DC %d", self.id, self._home_dc)
                await link.close()
                door.key = None
                continue
            except BaseException:
                await link.close()
                raise
            self._logged_in = True
            self._abroad.pop(self._home_dc, None)
            self._keep()
            log.info("bot %d is logged in at DC %d", self.id, self._home_dc)
            return link
        raise TemporaryFailure("Telegram sends the bot from one data centre to another.")

    async def _authorise(self, link: _Link, door: _Door) -> None:
        """Log in with the bot token, unless the key that the link began with is still good."""
        if door.key:
            await link.call(functions.users.GetUsersRequest([types.InputUserSelf()]))
            return
        login = functions.auth.ImportBotAuthorizationRequest(
            0, self._api_id, self._api_hash, self._token
        )
        try:
            await link.call(functions.InvokeWithoutUpdatesRequest(login))
        except FloodWait as wait:
            self._login_after = time.monotonic() + wait.retry_after_s
            self._count(wait)
            raise
        except _LoginRefused as refusal:
            self._refused = f"Telegram refuses the login: {refusal}"
            raise UpstreamFailed(self._refused) from refusal
        except UpstreamFailed as oddity:
            raise TemporaryFailure(f"The login failed: {oddity}") from oddity
        door.key = link.key

    async def _open_abroad(self, dc_id: int, door: _Door) -> _Link:
        """Connect to a data centre that is not home, and bring the authorization there once.

        Source: core.telegram.org/api/datacenter#authorization-on-multiple-dcs.
        """
        link = await self._connect(dc_id, door.key)
        try:
            if door.key:
                await self._introduce(link)
            else:
                exported = await self._ask(functions.auth.ExportAuthorizationRequest(dc_id))
                query = functions.auth.ImportAuthorizationRequest(exported.id, exported.bytes)
                await link.call(self._with_introduction(query))
                door.key = link.key
                self._keep()
        except _KeyRefused:
            door.key = None
            await link.close()
            raise
        except BaseException:
            await link.close()
            raise
        return link

    async def _connect(self, dc_id: int, key: Any) -> _Link:
        if dc_id not in self._data_centres:
            raise UpstreamFailed(f"Telegram names DC {dc_id} but not its address.")
        return await _Link.open(self._data_centres[dc_id], key, self._clock)

    async def _introduce(self, link: _Link) -> None:
        """Say who we are and learn where the data centres are (help.getConfig)."""
        config = await link.call(self._with_introduction(functions.help.GetConfigRequest()))
        for option in config.dc_options:
            if not (option.ipv6 or option.cdn or option.media_only or option.tcpo_only):
                where = DataCentre(option.id, option.ip_address, option.port)
                self._data_centres.setdefault(option.id, where)

    def _with_introduction(self, query: Any) -> Any:
        introduction = functions.InitConnectionRequest(
            api_id=self._api_id,
            device_model="Rangegram worker",
            system_version=platform.release() or "unknown",
            app_version=__version__,
            system_lang_code="en",
            lang_pack="",
            lang_code="en",
            query=functions.InvokeWithoutUpdatesRequest(query),
        )
        return functions.InvokeWithLayerRequest(LAYER, introduction)


@dataclass(frozen=True, slots=True)
class _KeptSession:
    """What one bot needs to go on where it stopped."""

    bot_id: int
    home_dc: int
    keys: dict[int, bytes] = field(repr=False)  # authorised keys by data centre
    data_centres: dict[int, DataCentre]


class _SessionFile:
    """The keys of all bots, kept beside the worker: worth as much as the bots' tokens.

    The file is locked while the worker runs: two that used the same keys would kill them. Whatever
    is wrong with it costs a login, nothing else.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.session_file
        where = f"{settings.telegram} {settings.api_id}".encode()
        # Keys of one Telegram are of no use at another, such as the next simulator on this port.
        self._telegram = sha256(where + (settings.telegram_key_pem or b"")).hexdigest()
        self._file: IO[str] | None = None
        self._unwritten: list[_KeptSession] | None = None
        self._writing: asyncio.Task[None] | None = None

    def open(self) -> dict[int, _KeptSession]:
        """Lock the file and read it; the sessions by bot, none when it cannot be used. Blocks."""
        if self._path is None:
            return {}
        try:
            opened = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            self._file = file = os.fdopen(opened, "r+", encoding="utf-8")
            if fcntl:
                os.fchmod(opened, 0o600)
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = file.read(SESSION_FILE_MAX_BYTES)
        except BlockingIOError:
            log.info("another worker has the session file; this one logs in and keeps nothing")
        except (OSError, UnicodeDecodeError) as error:
            log.info("the session is not kept: %s", error)
        else:
            return self._read(text)
        self._shut()
        return {}

    def _read(self, text: str) -> dict[int, _KeptSession]:
        if not text:
            return {}
        try:
            body = json.loads(text)
            if body["telegram"] != self._telegram:
                return {}
            sessions = [_read_session(entry) for entry in body["sessions"]]
        except (ValueError, TypeError, KeyError, AttributeError):
            log.warning("the session file is damaged; it is written anew")
            return {}
        return {session.bot_id: session for session in sessions}

    def keep(self, sessions: list[_KeptSession]) -> None:
        """Write them soon; never waits."""
        if self._file:
            self._unwritten = sessions
            if self._writing is None or self._writing.done():
                self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        while (sessions := self._unwritten) is not None and self._file:
            self._unwritten = None
            try:
                await asyncio.to_thread(self._write, self._file, sessions)
            except OSError as error:
                log.warning("the session is not kept: %s", error)

    def _write(self, file: IO[str], sessions: list[_KeptSession]) -> None:
        entries = [_written_session(session) for session in sessions]
        text = json.dumps({"telegram": self._telegram, "sessions": entries})
        file.seek(0)
        file.write(text)
        file.truncate()
        file.flush()

    async def close(self) -> None:
        """Write what is to be written, and give the lock back."""
        if self._writing:
            await self._writing
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def _written_session(session: _KeptSession) -> dict[str, Any]:
    return {
        "bot": session.bot_id,
        "home_dc": session.home_dc,
        "keys": {str(dc_id): key.hex() for dc_id, key in session.keys.items()},
        "data_centres": [[dc.dc_id, dc.host, dc.port] for dc in session.data_centres.values()],
    }


def _read_session(entry: Any) -> _KeptSession:
    """Raises ValueError, TypeError, KeyError or AttributeError for what is no written session."""
    keys = {int(dc_id): bytes.fromhex(key) for dc_id, key in entry["keys"].items()}
    if any(len(key) != AUTH_KEY_BYTES for key in keys.values()):
        raise ValueError("a key of the wrong length")
    data_centres = [
        DataCentre(int(dc_id), str(host), int(port)) for dc_id, host, port in entry["data_centres"]
    ]
    by_id = {dc.dc_id: dc for dc in data_centres}
    return _KeptSession(int(entry["bot"]), int(entry["home_dc"]), keys, by_id)


class _Clock:
    """How far this machine's clock is behind Telegram's, known to all connections."""

    def __init__(self) -> None:
        self.behind_s = 0.0

    def learn(self, behind_s: float) -> None:
        """Take note of a difference that matters; what the line's delay makes does not."""
        if abs(behind_s - self.behind_s) < CLOCK_STEP_S:
            return
        self.behind_s = behind_s
        if abs(behind_s) > CLOCK_SKEW_S:
            log.warning(
                "this machine's clock is %.0f s %s: tokens may seem expired, or not yet good",
                abs(behind_s),
                "slow" if behind_s > 0 else "fast",
            )


class _DiscardedUpdates:
    """Stands where Telethon puts updates; the worker asked for none and keeps none."""

    def put_nowait(self, update: object) -> None:
        """Forget it."""


class _TelethonLoggers(dict[str, logging.Logger]):
    """What Telethon looks its loggers up in, by module name."""

    def __missing__(self, name: str) -> logging.Logger:
        return logging.getLogger(name)


class _SealedPacket:
    """A long encrypted packet, decrypted piece by piece while the rest is still on its way.

    Nothing of it may be believed before `is_genuine`. The bytes of a MiB would cost three times
    their decryption if they were joined and copied, as Telethon does, in memory fresh from the
    system; pieces of this size stay in memory that the process has already.
    Source: core.telegram.org/mtproto/description#encrypted-message.
    """

    def __init__(self, auth_key: bytes, header: bytes) -> None:
        self._msg_key = header[8:]
        self._cipher_key, self._vector = MTProtoState._calc_key(auth_key, self._msg_key, False)
        self._digest = sha256(auth_key[96:128])
        self.pieces: list[bytes] = []

    def feed(self, encrypted: bytes) -> None:
        """Decrypt the next piece, a whole number of AES blocks."""
        plain = cryptg.decrypt_ige(encrypted, self._cipher_key, self._vector)
        self._vector = encrypted[-16:] + plain[-16:]
        self._digest.update(plain)
        self.pieces.append(plain)

    def is_genuine(self) -> bool:
        return compare_digest(self._digest.digest()[8:24], self._msg_key)


class _Wire(asyncio.BufferedProtocol):
    """One TCP connection in the abridged framing; stands where Telethon has its `Connection`.

    Telethon's takes a packet through a stream, two queues and two tasks. This one also knows when
    it last heard anything: a line on which a MiB takes half a minute differs from a dead one by
    its pieces only. Source: core.telegram.org/mtproto/mtproto-transports#abridged.
    """

    def __init__(self, where: DataCentre, auth_key: Any) -> None:
        self.heard_at = 0.0  # on time.monotonic's clock
        self._where = where
        self._auth_key = auth_key  # Telethon's AuthKey; empty until a key is agreed on
        self._transport: asyncio.Transport | None = None
        self._packets: asyncio.Queue[bytes | _SealedPacket | Exception] = asyncio.Queue()
        self._buffer = bytearray(RECEIVE_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # what of the buffer is received and not yet taken
        self._sealed: _SealedPacket | None = None
        self._missing = 0  # bytes of the sealed packet still to be fed

    # -- as Telethon's senders use it ----------------------------------------------------------

    async def connect(self, timeout: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            await loop.create_connection(lambda: self, self._where.host, self._where.port)

    async def disconnect(self) -> None:
        while not self._packets.empty():
            self._packets.get_nowait()
        self._abort()
        if self._transport is None:
            self._let_go()

    async def send(self, packet: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("not connected")
        words = len(packet) // 4
        length = bytes((words,)) if words < 0x7F else b"\x7f" + words.to_bytes(3, "little")
        self._transport.write(length + packet)

    async def recv(self) -> bytes | _SealedPacket:
        packet = await self._packets.get()
        try:
            if isinstance(packet, Exception):
                raise packet
            return packet
        finally:
            del packet  # or the error refers to this frame, and this frame to the error

    # -- as the event loop uses it ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"\xef")

    def connection_lost(self, error: Exception | None) -> None:
        self._packets.put_nowait(error or ConnectionError("Telegram closed the connection"))
        self._let_go()

    def get_buffer(self, _size_hint: int) -> memoryview:
        if self._start and len(self._buffer) - self._end < PIECE_BYTES:
            rest = self._end - self._start
            self._buffer[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def buffer_updated(self, size: int) -> None:
        self.heard_at = time.monotonic()
        self._end += size
        while self._take_sealed(self._sealed) if self._sealed else self._take_packet():
            pass
        if self._start == self._end:
            self._start = self._end = 0

    def _abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def _let_go(self) -> None:
        """Free what is large: the door keeps a lost link until another one is asked for."""
        self._buffer = bytearray()
        self._view = memoryview(self._buffer)
        self._sealed = None

    # -- cutting the stream into packets -----------------------------------------------------------

    def _take_packet(self) -> bool:
        """Take a short packet, or the head of a long one; False when it is not all there yet."""
        length, start = self._buffer[self._start], self._start + 1
        if length == 0x7F:
            length, start = int.from_bytes(self._buffer[start : start + 3], "little"), start + 3
        is_sealed = length * 4 > PIECE_BYTES
        stop = start + (SEALED_HEADER_BYTES if is_sealed else length * 4)
        if stop > self._end:
            return False
        packet = bytes(self._view[start:stop])
        self._start = stop
        if not is_sealed:
            self._packets.put_nowait(packet)
        elif not self._auth_key or length * 4 > PACKET_MAX_BYTES or length % 4 != 2:
            self._abort()  # nothing that Telegram sends; a packet is 24 bytes and AES blocks
            return False
        else:
            self._sealed = _SealedPacket(self._auth_key.key, packet)
            self._missing = length * 4 - SEALED_HEADER_BYTES
        return self._start < self._end

    def _take_sealed(self, sealed: _SealedPacket) -> bool:
        """Decrypt the next piece of a long packet; False when it is not all there yet."""
        # The last piece is a little longer rather than a few bytes short of being sent alone.
        size = PIECE_BYTES if self._missing >= PIECE_BYTES + PIECE_REST_BYTES else self._missing
        stop = self._start + size
        if stop > self._end:
            return False
        sealed.feed(bytes(self._view[self._start : stop]))
        self._start, self._missing = stop, self._missing - size
        if not self._missing:
            self._packets.put_nowait(sealed)
            self._sealed = None
        return self._start < self._end


class _State(MTProtoState):  # type: ignore[misc]  # Telethon has no types
    """Telethon's protocol state, taking long packets as the wire decrypted them."""

    _highest_remote_id: int

    def __init__(self, auth_key: Any, loggers: _TelethonLoggers, clock: _Clock) -> None:
        super().__init__(auth_key, loggers=loggers)
        self._clock = clock
        self.time_offset = clock.behind_s

    def update_time_offset(self, correct_msg_id: int) -> Any:
        """Telethon's, told to the other connections too."""
        offset_s = super().update_time_offset(correct_msg_id)
        self._clock.learn(offset_s)
        return offset_s

    def decrypt_message_data(self, packet: bytes | _SealedPacket) -> Any:
        """The message in a packet, None for one to be ignored; raises Telethon's SecurityError.

        The checks of a long packet are Telethon's for a short one, and the padding's length.
        Source: core.telegram.org/mtproto/security_guidelines.
        """
        if isinstance(packet, bytes):
            return super().decrypt_message_data(packet)
        if not packet.is_genuine():
            raise telethon_errors.SecurityError("the msg_key is wrong")
        head = packet.pieces[0]
        _salt, session_id, message_id, seqno, length = MESSAGE_HEADER.unpack_from(head)
        padding = sum(map(len, packet.pieces)) - MESSAGE_HEADER.size - length
        if session_id != self.id or message_id % 2 == 0 or not 12 <= padding <= 1024:
            raise telethon_errors.SecurityError("a packet of another session, or a malformed one")
        ahead_s = (message_id >> 32) - (time.time() + self.time_offset)
        is_repeated = (
            message_id <= self._highest_remote_id and message_id in self._recent_remote_ids
        )
        if is_repeated or not -MSG_TOO_OLD_DELTA <= ahead_s <= MSG_TOO_NEW_DELTA:
            self._count_ignored()
            return None
        self._recent_remote_ids.append(message_id)
        self._highest_remote_id = message_id
        self._ignore_count = 0
        return TLMessage(message_id, seqno, _file_result(packet.pieces) or _joined(packet.pieces))


def _file_result(pieces: Sequence[bytes]) -> RpcResult | None:
    """An rpc_result with an upload.file in it; None when the message is anything else."""
    constructor, request_id, kind, _type, _mtime, length = FILE_HEADER.unpack_from(
        pieces[0], MESSAGE_HEADER.size
    )
    # A TL string of 254 bytes or more: 0xfe, its length in three bytes, its bytes.
    if constructor != RpcResult.CONSTRUCTOR_ID or kind != types.upload.File.CONSTRUCTOR_ID:
        return None
    start, length_bytes = MESSAGE_HEADER.size + FILE_HEADER.size, length >> 8
    if length & 0xFF != 0xFE or start + length_bytes > sum(map(len, pieces)):
        return None
    return RpcResult(request_id, ChunkBody(pieces, start, length_bytes), None)


def _joined(pieces: Sequence[bytes]) -> Any:
    return BinaryReader(b"".join(pieces)[MESSAGE_HEADER.size :]).tgread_object()


class _GetFile(functions.upload.GetFileRequest):  # type: ignore[misc]  # Telethon has no types
    """upload.getFile; its result is a ChunkBody."""

    @staticmethod
    def read_result(reader: Any) -> Any:
        if isinstance(reader.stream, ChunkBody):
            return reader.stream
        answer = reader.tgread_object()
        return ChunkBody.of(answer.bytes) if isinstance(answer, types.upload.File) else answer


class _Sender(MTProtoSender):  # type: ignore[misc]  # Telethon has no types
    """Telethon's sender with our state in it."""

    def __init__(self, key: Any, loggers: _TelethonLoggers, clock: _Clock) -> None:
        super().__init__(
            key,
            loggers=loggers,
            retries=1,  # Telethon fails one key exchange in 256, for a leading zero byte
            delay=0,
            auto_reconnect=False,
            connect_timeout=CONNECT_TIMEOUT_S,
            updates_queue=_DiscardedUpdates(),
        )
        self._state = _State(self.auth_key, loggers, clock)
        self._send_queue = MessagePacker(self._state, loggers=loggers)

    @property
    def time_offset_s(self) -> int:
        """Telegram's clock minus this machine's, as the exchange of keys told it."""
        return int(self._state.time_offset)

    def send(self, request: Any, ordered: bool = False) -> Any:
        """Telethon's, with the acknowledgements that are due in the same packet, not one more."""
        if self._pending_ack:
            acks = RequestState(types.MsgsAck(list(self._pending_ack)))
            self._pending_ack.clear()
            self._last_acks.append(acks)
            self._send_queue.append(acks)
        return super().send(request, ordered)

    def let_go(self) -> None:
        """Refer to itself no more, or all it remembers would wait for the garbage collector."""
        self._handlers.clear()


class _Link:
    """One encrypted connection of one bot to one data centre; never reconnects by itself.

    Telethon's sender does the protocol. It has neither a time-out for a request nor a word for its
    caller when the connection goes while a request is still in its queue; both are added here.
    """

    def __init__(self, sender: _Sender, wire: _Wire, dc_id: int) -> None:
        self.dc_id = dc_id
        self._sender = sender
        self._wire = wire
        self._waiting: dict[asyncio.Future[Any], float] = {}  # since when, the longest first
        self._why_lost = "The connection to Telegram was lost."
        self._lost: asyncio.Future[None] = sender.disconnected
        self._lost.add_done_callback(consume_exception)
        self._lost.add_done_callback(lambda _: self._give_up_all())
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._keep_alive())]

    @classmethod
    async def open(cls, where: DataCentre, key: Any, clock: _Clock) -> _Link:
        """Connect, agree on a key when there is none yet; raises TemporaryFailure."""
        sender = _Sender(key, _TelethonLoggers(), clock)
        wire = _Wire(where, sender.auth_key)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await sender.connect(wire)
        except BaseException as error:
            await wire.disconnect()
            sender.let_go()
            if not isinstance(error, Exception):
                raise
            raise TemporaryFailure(f"DC {where.dc_id} cannot be reached.") from error
        clock.learn(sender.time_offset_s)
        return cls(sender, wire, where.dc_id)

    @property
    def key(self) -> Any:
        """The authorization key in use, to be kept for the next connection."""
        return self._sender.auth_key

    def is_open(self) -> bool:
        return bool(self._sender.is_connected()) and not self._lost.done()

    async def call(self, request: Any) -> Any:
        """The answer to one request; raises our errors, TemporaryFailure after a silence."""
        now = time.monotonic()
        if not self._waiting:
            self._wire.heard_at = now
        try:
            answer = self._sender.send(request)
        except ConnectionError as error:
            raise TemporaryFailure("The connection to Telegram is closed.") from error
        self._waiting[answer] = now
        try:
            return await answer
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise TemporaryFailure(self._why_lost) from None
        except Exception as refusal:
            let_go_of_frames(refusal)  # this one refers to the future, which holds the error
            raise _translated(refusal) from refusal
        finally:
            del self._waiting[answer]

    async def _watch(self) -> None:
        """Give up a line that is silent, and a request that was passed over."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if not self._waiting:
                continue
            now = time.monotonic()
            if now - self._wire.heard_at > SILENCE_MAX_S:
                self._why_lost = "Telegram is silent."
                await self.close()
                return
            for answer, since in tuple(self._waiting.items()):
                if now - since > REQUEST_TIMEOUT_S:
                    answer.cancel()

    async def _keep_alive(self) -> None:
        """Ping now and then: a line that died unheard is found before a viewer needs it."""
        with contextlib.suppress(TemporaryFailure, UpstreamFailed):
            while True:
                await asyncio.sleep(PING_EVERY_S)
                await self.call(functions.PingRequest(secrets.randbits(62)))

    def _give_up_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        for answer in self._waiting:
            answer.cancel()
        self._sender.let_go()

    async def close(self) -> None:
        await self._sender.disconnect()


def _named(*names: str) -> tuple[type[Any], ...]:
    return tuple(getattr(telethon_errors, name) for name in names)


# Telethon's errors, the first group that fits (core.telegram.org/api/errors).
_FLOODS = _named("FloodWaitError", "FloodPremiumWaitError")
_STALE_REFERENCES = _named(
    "FileReferenceExpiredError",
    "FileReferenceInvalidError",
    "FileReferenceEmptyError",
    "FilerefUpgradeNeededError",
)
_FILE_MOVES = _named("FileMigrateError")
_BOT_MOVES = _named("UserMigrateError", "NetworkMigrateError", "PhoneMigrateError")
_LOGIN_REFUSALS = _named(
    "AccessTokenInvalidError",
    "AccessTokenExpiredError",
    "ApiIdInvalidError",
    "ApiIdPublishedFloodError",
)
_KEY_REFUSALS = _named("UnauthorizedError", "AuthKeyDuplicatedError", "AuthKeyNotFound")
_CHANNEL_REFUSALS = _named("ChannelInvalidError", "ChannelPrivateError", "PeerIdInvalidError")
_PASSING_TROUBLE = _named(
    *("ServerError", "TimedOutError", "InputFetchFailError", "MsgWaitFailedError"),
    *("InvalidBufferError", "InvalidChecksumError", "SecurityError", "BadMessageError"),
)
_PASSING_TEXTS = frozenset({"API_GATEWAY_TOO_BUSY"})  # Telethon has no class for it


def _translated(error: BaseException) -> Exception:
    """Telethon's error in the words of this file."""
    # Errors that Telethon has a class for are named by it; the others carry Telegram's own text.
    name = vars(error).get("message") or type(error).__name__.removesuffix("Error")
    if isinstance(error, _FLOODS):
        return FloodWait(max(1, error.seconds))
    for classes, translation in (
        (_STALE_REFERENCES, _ReferenceExpired(name)),
        (_LOGIN_REFUSALS, _LoginRefused(name)),
        (_KEY_REFUSALS, _KeyRefused(f"Telegram refuses the key: {name}.")),
        (_CHANNEL_REFUSALS, ChannelMissing("The bot cannot see this channel.")),
        (_PASSING_TROUBLE, TemporaryFailure(f"Telegram has trouble: {name}.")),
        ((OSError, EOFError), TemporaryFailure("The connection to Telegram was lost.")),
    ):
        if isinstance(error, classes):
            return translation
    if isinstance(error, _FILE_MOVES):
        return _FileMoved(error.new_dc)
    if isinstance(error, _BOT_MOVES):
        return _BotMoved(error.new_dc)
    if name in _PASSING_TEXTS:
        return TemporaryFailure(f"Telegram has trouble: {name}.")
    return UpstreamFailed(f"Telegram refuses: {name}.")


# -- from Telegram's messages to our values ------------------------------------------------------


def _chat_id(peer: Any) -> int:
    """The Bot API form of a peer's id (core.telegram.org/api/bots/ids)."""
    if isinstance(peer, types.PeerChannel):
        return -CHANNEL_ID_OFFSET - int(peer.channel_id)
    if isinstance(peer, types.PeerChat):
        return -int(peer.chat_id)
    return int(peer.user_id)


def _file_message(chat_id: int, message: Any) -> _Message | None:
    """What a message says of its file; None when it holds none."""
    media = getattr(message.media, "document", None) or getattr(message.media, "photo", None)
    if isinstance(message.media, types.MessageMediaDocument) and isinstance(media, types.Document):
        others = message.media.alt_documents or []
        made = tuple(each for each in others if isinstance(each, types.Document))
        listed = _listed_document(chat_id, message, media, made)
        return _Message(listed, media, time.monotonic(), made)
    if isinstance(message.media, types.MessageMediaPhoto) and isinstance(media, types.Photo):
        photo = _listed_photo(chat_id, message, media)
        return _Message(photo, media, time.monotonic()) if photo else None
    return None


def _finite(seconds: float) -> float:
    """Whatever the uploader's program wrote; JSON has no word for what is no number."""
    return float(seconds) if math.isfinite(seconds) else 0.0


@dataclass(slots=True)
class _Attributes:
    """What the attributes of a document say, all kinds of them together."""

    name: str = ""
    duration_s: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    title: str = ""
    performer: str = ""

    @classmethod
    def of(cls, document: Any) -> _Attributes:
        found = cls()
        for attribute in document.attributes:
            if isinstance(attribute, types.DocumentAttributeFilename):
                found.name = attribute.file_name
            elif isinstance(attribute, types.DocumentAttributeVideo):
                found.duration_s = _finite(attribute.duration)
                found.width, found.height = attribute.w, attribute.h
                found.codec = attribute.video_codec or ""
            elif isinstance(attribute, types.DocumentAttributeAudio):
                found.duration_s = _finite(attribute.duration)
                found.title, found.performer = attribute.title or "", attribute.performer or ""
            elif isinstance(attribute, types.DocumentAttributeImageSize):
                found.width, found.height = attribute.w, attribute.h
        return found


def _document_file(chat_id: int, message_id: int, document: Any, name: str) -> RemoteFile:
    mime_type = mime_type_of(document.mime_type, name)
    if not name:
        suffix = mimetypes.guess_extension(mime_type) or ""
        name = f"{mime_type.partition('/')[0]}_{message_id}{suffix}"
    return RemoteFile(
        chat_id=chat_id,
        message_id=message_id,
        media_id=document.id,
        variant="",
        dc_id=document.dc_id,
        complete_length=document.size,
        mime_type=mime_type,
        name=name,
        modified=document.date,
    )


def _listed_document(
    chat_id: int, message: Any, document: Any, made: tuple[Any, ...]
) -> ListedFile:
    found = _Attributes.of(document)
    file = _document_file(chat_id, message.id, document, found.name)
    return ListedFile(
        file,
        found.duration_s,
        found.width,
        found.height,
        message.message or "",
        message.date,
        has_thumbnail=_thumbnail(file, document) is not None,
        title=found.title,
        performer=found.performer,
        reply_to=getattr(message.reply_to, "reply_to_msg_id", None),
        album=message.grouped_id,
        qualities=tuple(_qualities(chat_id, message.id, made)),
        storyboard=_storyboard_files(chat_id, message.id, made),
    )


def _qualities(chat_id: int, message_id: int, made: tuple[Any, ...]) -> Iterator[Quality]:
    """Each film among the documents that has its playlist among them too, in their order.

    A playlist's name is `mtproto:` and the id of its film. Source: TDLib's VideosManager, as
    core.telegram.org/api/files#video-qualities has it in words.
    """
    playlists = _named_by_id(made, PLAYLIST_TYPES)
    for document in made:
        found = _Attributes.of(document)
        if document.id in playlists and found.codec and found.width > 0 and found.height > 0:
            video = _document_file(chat_id, message_id, document, f"{found.height}p.mp4")
            playlist = _document_file(chat_id, message_id, playlists[document.id], "")
            yield Quality(video, playlist, found.codec, found.width, found.height)


def _storyboard_files(
    chat_id: int, message_id: int, made: tuple[Any, ...]
) -> StoryboardFiles | None:
    maps = _named_by_id(made, frozenset({"application/x-tgstoryboardmap"}))
    for document in made:
        if document.mime_type == "application/x-tgstoryboard" and document.id in maps:
            picture = _document_file(chat_id, message_id, document, "storyboard.jpg")
            map_file = _document_file(chat_id, message_id, maps[document.id], "")
            return StoryboardFiles(replace(picture, mime_type="image/jpeg"), map_file)
    return None


def _named_by_id(made: tuple[Any, ...], mime_types: frozenset[str]) -> dict[int, Any]:
    """The documents of these types, by the id of the one that they belong to."""
    named = {}
    for document in made:
        found = re.fullmatch(r"mtproto:([0-9]{1,19})", _Attributes.of(document).name, re.ASCII)
        if found and document.mime_type.lower() in mime_types:
            named[int(found[1])] = document
    return named


def _listed_photo(chat_id: int, message: Any, photo: Any) -> ListedFile | None:
    sizes = _stored_sizes(photo.sizes)
    if not sizes:
        return None
    best = sizes[-1]
    file = _photo_size_file(chat_id, message.id, photo, best, f"photo_{message.id}.jpg")
    return ListedFile(
        file,
        0.0,
        best.w,
        best.h,
        message.message or "",
        message.date,
        has_thumbnail=True,
        reply_to=getattr(message.reply_to, "reply_to_msg_id", None),
        album=message.grouped_id,
    )


def _thumbnail(file: RemoteFile, media: Any) -> RemoteFile | bytes | None:
    """The smallest size that fills a gallery tile; failing that, what is there."""
    sizes = (media.thumbs if isinstance(media, types.Document) else media.sizes) or []
    stored = _stored_sizes(sizes)
    fitting = [size for size in stored if max(size.w, size.h) >= THUMBNAIL_EDGE_PX] or stored[-1:]
    if fitting:
        name = f"thumbnail_{file.message_id}.jpg"
        return _photo_size_file(file.chat_id, file.message_id, media, fitting[0], name)
    for size in sizes:
        if isinstance(size, types.PhotoCachedSize):
            return bytes(size.bytes)
    for size in sizes:
        if isinstance(size, types.PhotoStrippedSize):
            return bytes(stripped_photo_to_jpg(size.bytes))
    return None


def _stored_sizes(sizes: Iterable[Any]) -> list[Any]:
    """The sizes that can be fetched, the smallest first."""
    stored = [
        size for size in sizes if isinstance(size, (types.PhotoSize, types.PhotoSizeProgressive))
    ]
    return sorted(stored, key=lambda size: int(size.w * size.h))


def _photo_size_file(chat_id: int, message_id: int, media: Any, size: Any, name: str) -> RemoteFile:
    progressive = isinstance(size, types.PhotoSizeProgressive)
    return RemoteFile(
        chat_id=chat_id,
        message_id=message_id,
        media_id=media.id,
        variant=size.type,
        dc_id=media.dc_id,
        complete_length=size.sizes[-1] if progressive else size.size,
        mime_type="image/jpeg",
        name=name,
        modified=media.date,
    )


# ------------------------------------------------------------------------------------------------
# 12. Assembly: the parts put together, started and stopped
# ------------------------------------------------------------------------------------------------

CONNECTIONS_MAX = 1024  # of clients; four for each viewer of the default memory budget
FILES_MAX_USUAL = 1024  # what Linux gives where nobody has said anything else
FILES_FOR_OTHERS = 128  # open files beside them: Telegram's connections, the interpreter's own
HANDOVER_TIMEOUT_S = 5.0
SHUTDOWN_TIMEOUT_S = 12.0  # aiohttp waits twice; Render kills a process after 30 s
KEEP_ALIVE_S = 75.0
GIVE_BACK_EVERY_S = 20.0  # half a millisecond each time; ten when a crowd has left
_SECRETS = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*|\b\d{4,}:[\w-]{20,}|(?<=token=)[^&\s\"']+", re.ASCII
)


class RedactingFormatter(logging.Formatter):
    """Takes out whatever looks like a JWT or a bot token, wherever in a line it came from."""

    def format(self, record: logging.LogRecord) -> str:
        return _SECRETS.sub("[secret]", super().format(record))


def shorten_complaint(record: logging.LogRecord) -> bool:
    """Of what is no HTTP aiohttp logs a traceback with all that strangers sent; a line will do."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg += f": {type(error).__name__}"
    return True


def create_app(settings: Settings) -> web.Application:
    """The whole worker as an aiohttp application."""
    gateway = TelegramGateway(settings)
    limits = InFlightLimits(settings.in_flight_min_mb * MIB, settings.in_flight_max_mb * MIB)
    pools = ConnectionPools(gateway, gateway.bot_ids, limits)
    cache = ChunkCache(pools, settings.memory_budget_mb * MIB)
    worker = Worker(settings, cache, pools, gateway)

    async def lifespan(_: web.Application) -> AsyncIterator[None]:
        handover = None
        if settings.session_strings and settings.handover_url:
            handover = asyncio.create_task(take_over(settings, worker.instance))
        await gateway.start(handover)
        giving_back = asyncio.create_task(give_memory_back())
        yield
        giving_back.cancel()
        await cache.close()
        await gateway.close()
        if handover:
            handover.cancel()

    app = web.Application(middlewares=[worker.envelope])
    app.add_routes(worker.routes())
    app.on_response_prepare.append(worker.add_shared_headers)
    app.cleanup_ctx.append(lifespan)
    return app


async def give_memory_back() -> None:
    """Give the system what was freed, now and then, until this is called off.

    Left alone glibc keeps most of what a crowd needed, since it lies between pieces that are in use
    (malloc_trim(3)). Other C libraries do this by themselves.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    while trim is not None:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        trim(0)


async def take_over(settings: Settings, instance: str) -> None:
    """Ask the worker that still serves our address, if any, to leave us the session; never raises.

    At a deploy the platform keeps the old worker running until the new one is known to be well.
    """
    token = handover_token(instance, settings.jwt_secrets, time.time())
    headers = {hdrs.AUTHORIZATION: f"Bearer {token}"}
    timeout = ClientTimeout(total=HANDOVER_TIMEOUT_S)
    try:
        async with (
            ClientSession(timeout=timeout) as session,
            session.post(
                f"{settings.handover_url}/handover", headers=headers, allow_redirects=False
            ) as answer,
        ):
            if answer.status == 200 and (await answer.json()).get("left") is True:
                log.info("the worker before this one leaves the session")
    except (ClientError, TimeoutError, ValueError, AttributeError) as error:
        log.info("no other worker answers at HANDOVER_URL: %s", type(error).__name__)


class _LobbySite(web.BaseSite):
    """aiohttp's TCPSite, with a lobby before the server."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner, backlog=CONNECTIONS_MAX)
        self._host = host
        self._port = port

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = cast(web.Server, self._runner.server)  # the runner is set up
        self._server = await asyncio.get_running_loop().create_server(
            Lobby(server, _connections_max()), self._host, self._port, backlog=self._backlog
        )


def _connections_max() -> int:
    """How many clients may be connected; the system's limit on open files is raised if it can."""
    if resource is None:
        return CONNECTIONS_MAX
    wanted, files_max = CONNECTIONS_MAX + FILES_FOR_OTHERS, FILES_MAX_USUAL
    # A hardened service may neither change its limits nor look at them.
    with contextlib.suppress(OSError, ValueError):
        files_max, ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files_max < wanted:
            raised = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, ceiling))
            files_max = raised
    return max(1, min(CONNECTIONS_MAX, files_max - FILES_FOR_OTHERS))


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; running responses may then end in their own time."""
    runner = web.AppRunner(
        create_app(settings),
        handler_cancellation=True,  # a viewer who leaves ends the fetching
        access_log=None,  # the worker logs its own line per request, without the query
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        keepalive_timeout=KEEP_ALIVE_S,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows ends the process by itself
            loop.add_signal_handler(signal_number, stop.set)
    await runner.setup()
    # The 80,000 objects of the libraries stay as they are. Without them garbage is collected sooner
    # and in no time, where every look at them would hold up all viewers for 40 ms.
    gc.collect()
    gc.freeze()
    try:
        await _LobbySite(runner, settings.host, settings.port).start()
        host, port = runner.addresses[0][:2]
        log.info("worker %s serves on http://%s:%d", __version__, host, port)
        await stop.wait()
        log.info("stopping")
    finally:
        await runner.cleanup()


async def check(settings: Settings, channels: Sequence[int]) -> bool:
    """Print what can be reached, and what to do about what cannot; whether all is well."""
    gateway = TelegramGateway(replace(settings, session_file=None))
    all_is_well = True
    async for finding in gateway.check(channels):
        print(("ok    " if finding.is_well else "FAIL  ") + finding.text, flush=True)
        all_is_well = all_is_well and finding.is_well
    await gateway.close()
    return all_is_well


async def make_session(settings: Settings) -> str:
    """A SESSION_STRING of new logins, one for each bot."""
    gateway = TelegramGateway(replace(settings, session_file=None, session_strings=()))
    try:
        return await gateway.session_strings()
    finally:
        await gateway.close()


def main() -> int:
    """Exit codes: 0 stopped as asked or all is well, 1 could not serve, 2 settings are wrong."""
    options = _arguments().parse_args()
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = logging.ERROR if options.check or options.session else logging.INFO
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("aiohttp.server").addFilter(shorten_complaint)
    logging.getLogger("telethon").setLevel(logging.CRITICAL)  # the gateway reports what matters
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            log.error("setting %s", problem)
        return 2
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if options.check is not None:
            return 0 if runner.run(check(settings, options.check)) else 1
        if options.session:
            return _print_session(runner, settings)
        try:
            runner.run(serve(settings))
        except OSError as error:
            where = f"{settings.host} port {settings.port}"
            log.error("cannot listen on %s: %s", where, error.strerror)
            return 1
    return 0


def _print_session(runner: asyncio.Runner, settings: Settings) -> int:
    try:
        print(runner.run(make_session(settings)))
    except StreamError as refusal:
        log.error("no session: %s", refusal)
        return 1
    return 0


def _arguments() -> argparse.ArgumentParser:
    names = "\n".join(
        f"  {name:<17} {meaning}" + (f" ({default})" if default else "")
        for name, default, meaning in SETTINGS_HELP
    )
    parser = argparse.ArgumentParser(
        description="Plays Telegram-hosted files over HTTP ranges.",
        epilog=f"settings, all of them environment variables:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    only_one = parser.add_mutually_exclusive_group()
    only_one.add_argument(
        "--check",
        nargs="*",
        type=int,
        metavar="CHANNEL",
        help="log in, say which bots, channels (-100...) and data centres can be reached, and end",
    )
    only_one.add_argument(
        "--session",
        action="store_true",
        help="log in and print a SESSION_STRING, which is worth as much as the bot's token",
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: some 10-20 % less CPU per byte."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    uvloop = importlib.import_module("uvloop")
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main())
