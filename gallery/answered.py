"""Answered: which updates the bot has taken on, so that each is answered once.

Telegram sends an update again when our answer to its webhook is late or lost, and two instances may
see the same one when the younger takes over. The number of an update tells: in memory, and in the
database for instances that share it.
"""

import logging
import sqlite3
import time
from typing import Final

from gallery.errors import ApiError
from gallery.kept import KeptTable

log = logging.getLogger(__name__)

REMEMBERED_S: Final = 2 * 24 * 3600  # Telegram itself keeps an update for a day
REMEMBERED_MAX: Final = 10_000  # in memory; only what owners send is remembered at all

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS answered_updates (
    update_id INTEGER PRIMARY KEY,
    taken_at INTEGER NOT NULL
)
"""


class AnsweredUpdates(KeptTable):
    """Remembers updates by their numbers. A database that fails is in the log and stops nothing."""

    def __init__(self, database: str) -> None:
        super().__init__(database, "answered updates", _TABLE)
        self._taken: dict[int, None] = {}

    async def take(self, update_id: int) -> bool:
        """Whether nobody had this update yet; from now on somebody has."""
        if update_id in self._taken:
            return False
        self._taken[update_id] = None
        while len(self._taken) > REMEMBERED_MAX:
            del self._taken[next(iter(self._taken))]
        now = int(time.time())

        def insert(connection: sqlite3.Connection) -> bool:
            connection.execute(
                "DELETE FROM answered_updates WHERE taken_at < ?", (now - REMEMBERED_S,)
            )
            taken = connection.execute(
                "INSERT OR IGNORE INTO answered_updates VALUES (?, ?)", (update_id, now)
            )
            return taken.rowcount == 1

        try:
            return await self._run(insert)
        except ApiError:
            return True
