"""Sign-in links: they sign in once, within five minutes, without the password.

A link is 40 characters: a sealed random id (9 bytes) and its end in Unix seconds (4). What was
used is remembered until its end. A table that was made after a link cannot know whether that was
used: it opens nothing. So a link works once wherever the DATABASE is kept, and once for each
gallery where each has its own.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gallery.errors import ApiError
from gallery.kept import KeptTable
from gallery.seals import Seal
from gallery.tokens import read_with_any

LINK_LIFETIME_S: Final = 300
USED_MAX: Final = 1_000  # more links than that in five minutes is nobody's need

_SEAL: Final = Seal(b"rangegram sign-in link, version 1", ">9sI")

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
    return _SEAL.write(secret, secrets.token_bytes(9), int(now) + LINK_LIFETIME_S)


def read_sign_in_link(secret: str, text: str, now: float) -> SignInLink | None:
    """The link this text stands for; None if we never signed it or it has run out."""
    values = _SEAL.read(secret, text)
    if values is None:
        return None
    identity, expires_at = values
    return SignInLink(identity.hex(), expires_at) if now < expires_at else None


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
