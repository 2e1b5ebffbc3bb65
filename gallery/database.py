"""Database: one SQLite file, used by one thread, so that the event loop never waits for a disk.

The tables of this module's users are a cache: when their schema changes, or the file is broken,
they are made anew and filled again. What others keep in the same file, such as the revoked shares,
is never dropped, and is carried over from a broken file as far as it can still be read.
"""

import asyncio
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from gallery.errors import ApiError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

MEMORY: Final = ":memory:"
BUSY_TIMEOUT_S: Final = 5.0  # another process on the same file, as during a deploy
KEPT_TABLES: Final = (
    "share_links",
    "ended_sessions",
    "used_sign_in_links",
    "answered_updates",
)


class Database:
    """Runs what is handed to it, one transaction after another."""

    def __init__(self, path: str, schema: Iterable[str]) -> None:
        self._path = path
        self._schema = tuple(schema)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._connection: sqlite3.Connection | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Be ready, with an empty database in memory if the file cannot be used."""
        await self._in_thread(self._open)

    async def run(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do this in one transaction; raise ApiError when the database fails."""

        def transaction() -> Result:
            if self._connection is None:
                raise sqlite3.OperationalError("not open")
            with self._connection:
                return action(self._connection)

        try:
            return await self._in_thread(transaction)
        except sqlite3.Error as error:
            log.error("database: %s: %s", type(error).__name__, error)
            raise ApiError(
                503, "index_unavailable", "The gallery's index fails; its log says why."
            ) from None

    async def close(self) -> None:
        """Finish what was handed in; from then on `run` fails."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown(wait=False)

    async def _in_thread(self, action: Callable[[], Result]) -> Result:
        if self._is_closed:
            raise sqlite3.OperationalError("closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    def _open(self) -> None:
        try:
            self._connection = self._opened(self._path)
        except (OSError, sqlite3.Error) as error:
            log.warning("DATABASE cannot be used, so memory has to do: %s", error)
            self._connection = self._opened(MEMORY)

    def _opened(self, path: str) -> sqlite3.Connection:
        if path != MEMORY:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connected(path)
        except sqlite3.DatabaseError as error:
            # Exactly this class says that the file is broken or no database; those derived from
            # it say that it is locked, may not be written and the like, which a new one is too.
            if type(error) is not sqlite3.DatabaseError:
                raise
        kept = _salvage(path)
        for suffix in ("", "-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)
        log.warning("DATABASE was broken and is made anew, with %d rows saved", _row_count(kept))
        connection = self._connected(path)
        with connection:
            _restore(connection, kept)
        return connection

    def _connected(self, path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # WAL: consistent, maybe not newest
            check = connection.execute("PRAGMA quick_check(1)").fetchone()
            if check != ("ok",):
                raise sqlite3.DatabaseError("damaged")
            self._make_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        """Make the tables of this schema, unless the file has them: its number says so."""
        number = zlib.crc32("\n".join(self._schema).encode()) & 0x7FFFFFFF
        if connection.execute("PRAGMA user_version").fetchone() == (number,):
            return
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            for kind, name in _droppable(connection):
                connection.execute(f'DROP {kind} IF EXISTS "{name}"')
            for statement in self._schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _droppable(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """All but the kept tables; virtual ones first, because they take their inner tables along."""
    rows = connection.execute(
        "SELECT upper(type), name FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite%' ORDER BY sql LIKE 'CREATE VIRTUAL%' DESC"
    )
    return [(kind, name) for kind, name in rows if name not in KEPT_TABLES]


_Kept = list[tuple[str, str, list[tuple[object, ...]]]]


def _salvage(path: str) -> _Kept:
    """The kept tables of a broken file: their names, how they were made, the rows that can be read.

    Taken one by one, so that a bad page costs no more than what comes after it.
    """
    kept: _Kept = []
    try:
        with closing(sqlite3.connect(path)) as connection:
            # Without this a file that was cut short is not even opened.
            connection.execute("PRAGMA writable_schema = ON")
            for name in KEPT_TABLES:
                query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
                for (sql,) in connection.execute(query, (name,)).fetchall():
                    rows: list[tuple[object, ...]] = []
                    kept.append((name, sql, rows))
                    rows.extend(connection.execute(f'SELECT * FROM "{name}"'))  # noqa: S608
    except sqlite3.Error as error:
        log.warning("DATABASE: not all of the shared links could be read: %s", error)
    return kept


def _restore(connection: sqlite3.Connection, kept: _Kept) -> None:
    for name, sql, rows in kept:
        connection.execute(sql)
        marks = ", ".join("?" * len(rows[0])) if rows else ""
        connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)  # noqa: S608


def _row_count(kept: _Kept) -> int:
    return sum(len(rows) for _, _, rows in kept)
