"""Sessions: which of them were ended before their time.

A cookie says by itself until when it is good. Signing out must end it for whoever has a copy too,
so that is noted: in memory, where every request looks, and in the database for after a restart.
"""

import logging
import sqlite3
import time
from typing import Final

from aiohttp import web

from gallery.errors import ApiError
from gallery.kept import KeptTable
from gallery.tokens import Session

log = logging.getLogger(__name__)

ENDED_MAX: Final = 10_000  # some 100 bytes each; only whoever was signed in can make one

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS ended_sessions (
    id TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL  -- from then on nobody need remember it
) WITHOUT ROWID
"""


class EndedSessions(KeptTable):
    """Remembers who signed out. A database that fails is in the log and keeps nobody out for long:
    whoever cannot be known not to have signed out signs in again."""

    def __init__(self, database: str) -> None:
        super().__init__(database, "sessions", _TABLE)
        self._ended: dict[str, int] = {}
        self._not_before = 0

    async def open(self) -> None:
        """Recall what was ended before this start."""

        def select(connection: sqlite3.Connection) -> list[tuple[str, int]]:
            return connection.execute("SELECT id, expires_at FROM ended_sessions").fetchall()

        try:
            self._ended = dict(await self._run(select))
        except ApiError:
            self._not_before = int(time.time())

    def __contains__(self, session: Session) -> bool:
        return session.id in self._ended or session.issued_at < self._not_before

    async def add(self, session: Session, now: float) -> None:
        """End this one for good."""
        self._ended = {id_: end for id_, end in self._ended.items() if end > now}
        self._ended[session.id] = session.expires_at
        while len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        rows = list(self._ended.items())

        def replace(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM ended_sessions")
            connection.executemany("INSERT INTO ended_sessions VALUES (?, ?)", rows)

        try:
            await self._run(replace)
        except ApiError:
            log.warning("a session that was ended now may be good again after a restart")


ENDED_SESSIONS: Final = web.AppKey("ENDED_SESSIONS", EndedSessions)
