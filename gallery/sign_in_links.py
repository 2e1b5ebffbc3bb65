"""Sign-in links: they sign in once, within five minutes, without the password.

A link is 30 bytes in URL-safe base64, 40 characters: a random id (9 bytes), its end in Unix seconds
(4) and an HMAC-SHA256 of both, cut to 136 bits as with shares. What was used is remembered until
its end. A table that was made after a link cannot know whether that was used: it opens nothing. So
a link works once wherever the DATABASE is kept, and once for each gallery where each has its own.
"""

import base64
import hashlib
import hmac
import re
import secrets
import sqlite3
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gallery.errors import ApiError
from gallery.kept import KeptTable
from gallery.tokens import read_with_any

LINK_LIFETIME_S: Final = 300
USED_MAX: Final = 1_000  # more links than that in five minutes is nobody's need

_BODY: Final = struct.Struct(">9sI")
_TAG_BYTES: Final = 17
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{40}", re.ASCII)
# A key of its own, so that nothing else that the secret signs can pass for one, nor back.
_KEY_PURPOSE: Final = b"rangegram sign-in link, version 1"

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS used_sign_in_links (
    id TEXT PRIMARY KEY,         -- empty: stands for the table itself
    expires_at INTEGER NOT NULL  -- there: when it was made
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class SignInLink:
    """What such a link says: which one it is, and until when it is good."""

    id: str
    expires_at: int

    @property
    def issued_at(self) -> int:
        return self.expires_at - LINK_LIFETIME_S


def new_sign_in_link(secret: str, now: float) -> str:
    """A link as it stands in a URL."""
    body = _BODY.pack(secrets.token_bytes(9), int(now) + LINK_LIFETIME_S)
    return base64.urlsafe_b64encode(body + _tag(secret, body)).decode()


def read_sign_in_link(secret: str, text: str, now: float) -> SignInLink | None:
    """The link this text stands for; None if we never signed it or it has run out."""
    if not _FORM.fullmatch(text):
        return None
    raw = base64.urlsafe_b64decode(text)
    body, tag = raw[: _BODY.size], raw[_BODY.size :]
    if not hmac.compare_digest(tag, _tag(secret, body)):
        return None
    identity, expires_at = _BODY.unpack(body)
    return SignInLink(identity.hex(), expires_at) if now < expires_at else None


def _tag(secret: str, body: bytes) -> bytes:
    key = hmac.digest(secret.encode(), _KEY_PURPOSE, hashlib.sha256)
    return hmac.digest(key, body, hashlib.sha256)[:_TAG_BYTES]


class UsedSignInLinks(KeptTable):
    """Knows which links may still be used; raise ApiError whenever the database fails."""

    def __init__(self, database: str, secrets: Iterable[str]) -> None:
        super().__init__(database, "sign-in links", _TABLE)
        self._secrets = tuple(secrets)

    async def open(self) -> None:
        """Note when the table was made, if that is now. What fails is made up for at first use."""

        def note(connection: sqlite3.Connection) -> None:
            _made_at(connection, time.time())

        try:
            await self._run(note)
        except ApiError:
            return  # it is in the log; links from before the table's making open nothing

    async def is_good(self, text: str, now: float) -> bool:
        """Whether this link would sign in; asking uses nothing up."""
        link = self._read(text, now)

        def look(connection: sqlite3.Connection) -> bool:
            if link is None or not _would_know(connection, link, now):
                return False
            used = connection.execute("SELECT 1 FROM used_sign_in_links WHERE id = ?", (link.id,))
            return used.fetchone() is None

        return link is not None and await self._run(look)

    async def use(self, text: str, now: float) -> bool:
        """Whether this link signs in, for this once."""
        link = self._read(text, now)

        def use(connection: sqlite3.Connection) -> bool:
            if link is None or not _would_know(connection, link, now):
                return False
            connection.execute(
                "DELETE FROM used_sign_in_links WHERE id != '' AND expires_at <= ?", (int(now),)
            )
            (count,) = connection.execute("SELECT count(*) FROM used_sign_in_links").fetchone()
            if count > USED_MAX:
                return False
            used = connection.execute(
                "INSERT OR IGNORE INTO used_sign_in_links VALUES (?, ?)",
                (link.id, link.expires_at),
            )
            return used.rowcount == 1

        return link is not None and await self._run(use)

    def _read(self, text: str, now: float) -> SignInLink | None:
        return read_with_any(self._secrets, lambda secret: read_sign_in_link(secret, text, now))


def _would_know(connection: sqlite3.Connection, link: SignInLink, now: float) -> bool:
    """Whether this table would know it if the link had been used."""
    return link.issued_at >= _made_at(connection, now)


def _made_at(connection: sqlite3.Connection, now: float) -> int:
    """When the table was made: from before that it remembers nothing."""
    connection.execute("INSERT OR IGNORE INTO used_sign_in_links VALUES ('', ?)", (int(now),))
    row = connection.execute("SELECT expires_at FROM used_sign_in_links WHERE id = ''").fetchone()
    return int(row[0])


USED_SIGN_IN_LINKS: Final = web.AppKey("USED_SIGN_IN_LINKS", UsedSignInLinks)
