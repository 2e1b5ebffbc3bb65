"""Kept: a table that must not go with the index, though it lies in the same SQLite file.

The connection is opened when it is first needed, and again after trouble with it. All calls run in
one thread of their own, so the event loop never waits for a disk.
"""

import asyncio
import logging
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from gallery.errors import ApiError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

MEMORY: Final = ":memory:"
BUSY_TIMEOUT_S: Final = 5.0


class KeptTable:
    """What `share_store` and `sessions` have in common: a table of theirs and how to reach it."""

    def __init__(self, database: str, name: str, statement: str) -> None:
        self._database = database
        self._name = name  # what its rows are, for people
        self._statement = statement  # makes the table where there is none
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def close(self) -> None:
        await self._in_thread(self._disconnect)
        self._thread.shutdown(wait=False)

    async def _run(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do this in one transaction; raise ApiError when the database cannot."""

        def transaction() -> Result:
            try:
                connection = self._connected()
                with connection:
                    return action(connection)
            except (sqlite3.Error, OSError):
                self._disconnect()
                raise

        try:
            return await self._in_thread(transaction)
        except (sqlite3.Error, OSError) as error:
            log.error("%s: the database fails: %s", self._name, type(error).__name__)
            message = f"The {self._name} cannot be read now; the log says why."
            code = re.sub(r"\W", "_", f"{self._name}_unavailable")
            raise ApiError(503, code, message, retry_after_s=5) from None

    async def _in_thread(self, action: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._database != MEMORY:
                Path(self._database).parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._database, timeout=BUSY_TIMEOUT_S)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(self._statement)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with closing(self._connection):
                self._connection = None
