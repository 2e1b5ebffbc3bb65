"""Sessions: which of them were ended before their time.

A cookie says by itself until when it is good. Signing out must end it for whoever has a copy too,
so that is noted: in memory, where every request looks, and in the database for after a restart and
for other backends on the same file.
"""

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web

from gallery.errors import ApiError
from gallery.kept import MEMORY, KeptTable
from gallery.tokens import Session

log = logging.getLogger(__name__)

ENDED_MAX: Final = 10_000  # some 100 bytes each; only whoever was signed in can make one
KEEP_UP_S: Final = 2.0  # so soon another backend on the same file knows who signed out
KEEP_UP_AFTER_FAILURE_S: Final = 60.0

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS ended_sessions (
    id TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL  -- from then on nobody need remember it
) WITHOUT ROWID
"""


class EndedSessions(KeptTable):
    """Remembers who signed out. A database that fails is in the log and keeps nobody out for long:
    whoever cannot be known not to have signed out signs in again."""

    def __init__(self, database: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(database, "sessions", _TABLE)
        self._clock = clock
        self._ended: dict[str, int] = {}
        self._not_before = 0
        self._next_look = float("-inf")

    async def open(self) -> None:
        """Recall what was ended before this start."""
        try:
            self._ended = await self._kept()
        except ApiError:
            self._not_before = int(time.time())

    async def keep_up(self) -> None:
        """Now and then learn what another backend on the same file has ended."""
        if self._database == MEMORY or self._clock() < self._next_look:
            return
        self._next_look = self._clock() + KEEP_UP_S
        try:
            self._ended |= await self._kept()
        except ApiError:  # which is in the log; what is known stays so
            self._next_look = self._clock() + KEEP_UP_AFTER_FAILURE_S

    def __contains__(self, session: Session) -> bool:
        return session.id in self._ended or session.issued_at < self._not_before

    async def add(self, session: Session, now: float) -> None:
        """End this one for good."""
        known = {**self._ended, session.id: session.expires_at}
        lasting = sorted((end, id_) for id_, end in known.items() if end > now)[-ENDED_MAX:]
        self._ended = {id_: end for end, id_ in lasting}
        rows = list(self._ended.items())  # all of them: the database may have missed some

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO ended_sessions VALUES (?, ?)", rows)
            connection.execute("DELETE FROM ended_sessions WHERE expires_at <= ?", (int(now),))
            connection.execute(
                "DELETE FROM ended_sessions WHERE id NOT IN"
                " (SELECT id FROM ended_sessions ORDER BY expires_at DESC, id DESC LIMIT ?)",
                (ENDED_MAX,),
            )

        try:
            await self._run(insert)
        except ApiError:
            log.warning("a session that was ended now may be good again after a restart")

    async def _kept(self) -> dict[str, int]:
        def select(connection: sqlite3.Connection) -> list[tuple[str, int]]:
            return connection.execute("SELECT id, expires_at FROM ended_sessions").fetchall()

        return dict(await self._run(select))


ENDED_SESSIONS: Final = web.AppKey("ENDED_SESSIONS", EndedSessions)
