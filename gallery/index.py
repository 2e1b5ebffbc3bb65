"""Index: what the channels hold, in SQLite; a cache that can be lost at any time.

    put, record           <- catalogue and updates say what a channel holds
    page, find, channels  -> the API asks

Every row knows when it was last seen. Recording a stretch of a channel's history deletes the rows
of that stretch that were not seen in it, so reading once more is how deleted posts are found.
"""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from gallery.bonds import settled
from gallery.database import Database
from gallery.files import MediaFile
from gallery.rows import FACTS, IDS, PUT, SHOWN, SUBTITLES, as_file, as_row
from gallery.rows import SCHEMA as SCHEMA
from gallery.search import ORDERS, Order, Position, match_expression, read_cursor, write_cursor

FILES_MAX: Final = 100_000  # about 1 KiB each
PAGE_FILES: Final = 60

_FIND: Final = f"SELECT {', '.join(FACTS)} FROM files WHERE chat_id = ? AND message_id = ?"  # noqa: S608 - made of our own column names


@dataclass(frozen=True)
class Query:
    """Which files, in which order, and after which cursor."""

    text: str = ""
    kind: str | None = None
    chat_id: int | None = None
    sort: str = "newest"
    cursor: str | None = None


@dataclass(frozen=True)
class Page:
    """Some files, the cursor of those that follow (None at the end), how many there are in all."""

    files: tuple[MediaFile, ...]
    next: str | None
    total: int


@dataclass(frozen=True)
class ChannelState:
    """How far a channel was read: `read_to` is the last message id, `is_complete` the end once."""

    chat_id: int
    title: str
    files: int
    read_to: int
    is_complete: bool


@dataclass(frozen=True)
class BotFile:
    """What the Bot API calls a file: the id that opens it for our bot, and the lasting one."""

    file_id: str
    unique_id: str


class Index:
    """The files of these channels and no others."""

    def __init__(self, database: Database, channels: Iterable[int]) -> None:
        self._database = database
        self._channels = tuple(dict.fromkeys(channels))

    async def open(self) -> None:
        """Begin with what is there of these channels; whatever was of others goes."""

        def adopt(connection: sqlite3.Connection) -> None:
            marks = ", ".join("?" * len(self._channels))
            for table in ("files", "channels"):
                statement = f"DELETE FROM {table} WHERE chat_id NOT IN ({marks})"  # noqa: S608
                connection.execute(statement, self._channels)
            connection.executemany(
                "INSERT OR IGNORE INTO channels (chat_id) VALUES (?)",
                [(chat_id,) for chat_id in self._channels],
            )

        await self._database.open()
        await self._database.run(adopt)

    async def close(self) -> None:
        await self._database.close()

    # -- filling ---------------------------------------------------------------------------------

    async def put(self, file: MediaFile, bot_file: BotFile | None = None) -> None:
        """A file as it is now, and what the Bot API calls it."""
        row = as_row(file, time.time(), is_update=bot_file is not None)

        def upsert(connection: sqlite3.Connection) -> None:
            with settled(connection, *_one(file.chat_id, file.message_id)):
                connection.execute(PUT, row)
            if bot_file is not None:
                connection.execute(
                    "UPDATE files SET file_id = ?, file_unique_id = ?"
                    " WHERE chat_id = ? AND message_id = ?",
                    (bot_file.file_id, bot_file.unique_id, file.chat_id, file.message_id),
                )
            _trim(connection)

        await self._database.run(upsert)

    async def record(
        self, chat_id: int, after: int, through: int, files: Iterable[MediaFile], asked_at: float
    ) -> int:
        """The files with ids above `after` and up to `through`, all of them, as seen at `asked_at`.

        What became known later than that is left alone. The answer counts the rows that went.
        """
        rows = [as_row(file, asked_at) for file in files]
        stretch, places = (
            "chat_id = ? AND message_id > ? AND message_id <= ?",
            (chat_id, after, through),
        )

        def replace(connection: sqlite3.Connection) -> int:
            with settled(connection, stretch, places):
                connection.executemany(PUT, rows)
                gone = connection.execute(
                    f"DELETE FROM files WHERE {stretch} AND seen_at < ?",  # noqa: S608
                    (*places, asked_at),
                )
            _trim(connection)
            return gone.rowcount

        return await self._database.run(replace)

    async def advance(self, chat_id: int, read_to: int, *, is_complete: bool) -> None:
        """Note how far a channel was read; once complete it stays so."""
        await self._execute(
            "UPDATE channels SET read_to = max(read_to, ?), is_complete = max(is_complete, ?)"
            " WHERE chat_id = ?",
            (read_to, is_complete, chat_id),
        )

    async def forget(self, chat_id: int, message_id: int) -> None:
        """A post that holds no file any more."""
        where, values = _one(chat_id, message_id)

        def delete(connection: sqlite3.Connection) -> None:
            with settled(connection, where, values):
                connection.execute(f"DELETE FROM files WHERE {where}", values)  # noqa: S608

        await self._database.run(delete)

    async def note_bot_file(self, file: MediaFile, bot_file: BotFile) -> None:
        """What the Bot API calls a file that is known, unless that is known or the file another."""
        await self._execute(
            "UPDATE files SET file_id = ?, file_unique_id = ?"
            " WHERE chat_id = ? AND message_id = ? AND posted_size = ? AND file_id IS NULL",
            (bot_file.file_id, bot_file.unique_id, file.chat_id, file.message_id, file.size),
        )

    async def forget_file_id(self, file_id: str) -> None:
        """The Bot API does not open this file: from now on it comes from the worker."""
        await self._execute("UPDATE files SET file_id = NULL WHERE file_id = ?", (file_id,))

    async def set_title(self, chat_id: int, title: str) -> None:
        await self._execute("UPDATE channels SET title = ? WHERE chat_id = ?", (title, chat_id))

    # -- asking ----------------------------------------------------------------------------------

    async def page(self, query: Query) -> Page:
        """One page of the files that have every word of the query; raise ApiError (400)."""
        position = None if query.cursor is None else read_cursor(query.sort, query.cursor)
        return await self._database.run(lambda connection: _page(connection, query, position))

    async def find(self, chat_id: int, message_id: int) -> MediaFile | None:
        """The file of this post; of the first part of a split film that film."""
        found = await self.fetch(_FIND, (chat_id, message_id))
        return as_file(found[0]) if found else None

    async def find_all(self, posts: Iterable[tuple[int, int]]) -> dict[tuple[int, int], MediaFile]:
        """Those of these posts' files that are known."""

        def select(connection: sqlite3.Connection) -> list[MediaFile]:
            rows = (connection.execute(_FIND, post).fetchone() for post in posts)
            return [as_file(row) for row in rows if row is not None]

        found = await self._database.run(select)
        return {(file.chat_id, file.message_id): file for file in found}

    async def bot_file(self, chat_id: int, message_id: int) -> BotFile | None:
        """What the Bot API calls the file of this post, if it ever said."""
        found = await self.fetch(
            "SELECT file_id, file_unique_id FROM files"
            " WHERE chat_id = ? AND message_id = ? AND file_id IS NOT NULL",
            (chat_id, message_id),
        )
        return BotFile(*found[0]) if found else None

    async def find_same(self, bot_file: BotFile) -> MediaFile | None:
        """The newest post that holds this very file, as far as the Bot API told of it."""
        return await self._first(
            "WHERE file_unique_id = ? AND file_id IS NOT NULL ORDER BY date DESC LIMIT 1",
            (bot_file.unique_id,),
        )

    async def whole(self, file: MediaFile) -> MediaFile:
        """The film that a file is a part of; the file itself if it is none."""
        film = await self._first(
            "WHERE chat_id = ? AND message_id ="
            " (SELECT first_part FROM files WHERE chat_id = ? AND message_id = ?)",
            (file.chat_id, file.chat_id, file.message_id),
        )
        return film or file

    async def _first(self, rest: str, values: tuple[object, ...]) -> MediaFile | None:
        found = await self.fetch(
            f"SELECT {', '.join(FACTS)} FROM files {rest}",  # noqa: S608
            values,
        )
        return as_file(found[0]) if found else None

    async def next_known(self, chat_id: int, after: int, seen_before: float) -> int | None:
        """The lowest id above `after` that was known before this moment."""
        ((message_id,),) = await self.fetch(
            "SELECT min(message_id) FROM files"
            " WHERE chat_id = ? AND message_id > ? AND seen_at < ?",
            (chat_id, after, seen_before),
        )
        return None if message_id is None else int(message_id)

    async def channels(self) -> list[ChannelState]:
        """Every channel in the order of CHANNELS, with its id for want of a title."""
        rows = await self.fetch(
            "SELECT chat_id, coalesce(title, chat_id),"
            " (SELECT count(*) FROM files"
            "  WHERE files.chat_id = channels.chat_id AND hidden = ?),"
            " read_to, is_complete FROM channels",
            (SHOWN,),
        )
        states = {
            row[0]: ChannelState(row[0], str(row[1]), row[2], row[3], bool(row[4])) for row in rows
        }
        return [states[chat_id] for chat_id in self._channels]

    async def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        await self._database.run(lambda connection: connection.execute(statement, values))

    async def fetch(self, query: str, values: tuple[object, ...]) -> list[Any]:
        """The rows of a question that other modules have; see `rows`."""
        return await self._database.run(
            lambda connection: connection.execute(query, values).fetchall()
        )


def _one(chat_id: int, message_id: int) -> tuple[str, tuple[int, int]]:
    return "chat_id = ? AND message_id = ?", (chat_id, message_id)


def _trim(connection: sqlite3.Connection) -> None:
    """Let the oldest go when there are too many."""
    (count,) = connection.execute("SELECT count(*) FROM files").fetchone()
    if count > FILES_MAX:
        rows = connection.execute(
            f"SELECT id FROM files ORDER BY date, {IDS} LIMIT ?",  # noqa: S608
            (count - FILES_MAX,),
        )
        where = f"id IN ({', '.join(str(row[0]) for row in rows)})"
        with settled(connection, where, ()):
            connection.execute(f"DELETE FROM files WHERE {where}")  # noqa: S608


def _page(connection: sqlite3.Connection, query: Query, position: Position | None) -> Page:
    source, conditions, values = _selection(query)
    where = " AND ".join(conditions)
    (total,) = connection.execute(
        f"SELECT count(*) FROM {source} WHERE {where}",  # noqa: S608
        values,
    ).fetchone()
    order = ORDERS[query.sort]
    if position is not None:
        comparison = "<" if order.descending else ">"
        where += f" AND (files.{order.column}, {IDS}) {comparison} (?, ?, ?)"
        values = [*values, position.value, position.message_id, position.chat_id]
    # What is sorted is narrow; of a search that may be all files there are.
    rows = connection.execute(
        f"SELECT {', '.join(FACTS)}, {order.column} FROM (SELECT files.id AS chosen"  # noqa: S608
        f" FROM {source} WHERE {where} ORDER BY {_sequence(order)} LIMIT {PAGE_FILES + 1})"
        f" JOIN files ON files.id = chosen ORDER BY {_sequence(order)}",
        values,
    ).fetchall()
    files = tuple(as_file(row[:-1]) for row in rows[:PAGE_FILES])
    if len(rows) <= PAGE_FILES:
        return Page(files, None, total)
    last = Position(rows[PAGE_FILES - 1][-1], files[-1].message_id, files[-1].chat_id)
    return Page(files, write_cursor(query.sort, last), total)


def _sequence(order: Order) -> str:
    direction = "DESC" if order.descending else "ASC"
    return f"files.{order.column} {direction}, message_id {direction}, chat_id {direction}"


def _selection(query: Query) -> tuple[str, list[str], list[Any]]:
    """Where from, under which conditions, with which values."""
    source, conditions, values = "files", [], list[Any]()
    if (expression := match_expression(query.text)) is not None:
        source = "search CROSS JOIN files ON files.id = search.rowid"
        conditions, values = ["search MATCH ?"], [expression]
    elif query.text.strip():
        conditions = ["FALSE"]  # signs only, which no text is found by
    # Subtitles are among their films' tracks; who looks for documents finds them there too.
    has_subtitles = query.kind == "document"
    conditions.append(f"hidden IN ({SHOWN}, {SUBTITLES})" if has_subtitles else f"hidden = {SHOWN}")
    if query.kind is not None:
        conditions.append("kind = ?")
        values.append(query.kind)
    if query.chat_id is not None:
        conditions.append("chat_id = ?")
        values.append(query.chat_id)
    return source, conditions, values
