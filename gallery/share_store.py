"""Share store: the owner's list of shares and what was revoked, in SQLite.

A share needs no row to work; a revoked one needs its row to stay revoked. When the database cannot
answer nobody is let through.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from gallery.errors import ApiError
from gallery.kept import MEMORY, KeptTable
from gallery.shares import Share

SHARES_MAX: Final = 10_000  # rows, some 200 bytes each
KEPT_AFTER_END_S: Final = 30 * 24 * 3600  # how long the owner's list still shows an ended share
# What a container's own layers and a machine's memory are called in /proc/mounts: gone with the
# next deploy or restart. A disk that was mounted on purpose is none of these.
PASSING_FILE_SYSTEMS: Final = frozenset({"overlay", "aufs", "tmpfs", "ramfs"})

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS share_links (
    id TEXT PRIMARY KEY,
    chat_id INTEGER,     -- NULL: revoked by its id alone, its file unknown
    message_id INTEGER,
    name TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    expires_at INTEGER,  -- NULL: never
    revoked_at INTEGER
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class ListedShare:
    """A share as its owner sees it."""

    share: Share
    name: str
    created_at: int
    revoked: bool


class ShareStore(KeptTable):
    """The owner's shares; raise ApiError whenever the database fails."""

    def __init__(self, database: str, *, on_render: bool) -> None:
        super().__init__(database, "shares", _TABLE)
        self._on_render = on_render

    async def add(self, share: Share, name: str, now: float) -> None:
        """Put a share into the owner's list, once; raise ApiError when the list is full."""

        def insert(connection: sqlite3.Connection) -> None:
            _make_room(connection, now)
            connection.execute(
                "INSERT INTO share_links VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
                (share.id, share.chat_id, share.message_id, name, int(now), share.expires_at),
            )

        await self._run(insert)

    async def listed(self) -> list[ListedShare]:
        """All shares we remember, newest first."""

        def select(connection: sqlite3.Connection) -> list[ListedShare]:
            rows = connection.execute(
                "SELECT id, chat_id, message_id, expires_at, name, created_at, revoked_at"
                " FROM share_links WHERE chat_id IS NOT NULL ORDER BY created_at DESC, id"
            )
            return [
                ListedShare(Share(*row[:4]), row[4], row[5], row[6] is not None) for row in rows
            ]

        return await self._run(select)

    async def revoke(self, share_id: str, now: float) -> None:
        """End a share for good, also one that this database has never seen."""

        def upsert(connection: sqlite3.Connection) -> None:
            revoked = connection.execute(
                "UPDATE share_links SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?",
                (int(now), share_id),
            )
            if not revoked.rowcount:
                _make_room(connection, now)
                connection.execute(
                    "INSERT INTO share_links (id, created_at, revoked_at) VALUES (?, ?, ?)",
                    (share_id, int(now), int(now)),
                )

        await self._run(upsert)

    async def is_revoked(self, share_id: str) -> bool:
        def select(connection: sqlite3.Connection) -> bool:
            found = connection.execute(
                "SELECT 1 FROM share_links WHERE id = ? AND revoked_at IS NOT NULL", (share_id,)
            )
            return found.fetchone() is not None

        return await self._run(select)

    async def first_good(self, share_ids: Iterable[str]) -> str:
        """The first of these that was not revoked; raise ApiError when all were."""

        def select(connection: sqlite3.Connection) -> str | None:
            revoked = "SELECT 1 FROM share_links WHERE id = ? AND revoked_at IS NOT NULL"
            found = (
                each for each in share_ids if not connection.execute(revoked, (each,)).fetchone()
            )
            return next(found, None)

        share_id = await self._run(select)
        if share_id is None:
            raise ApiError(409, "too_many_shares", "This was revoked too often.")
        return share_id

    async def is_durable(self) -> bool:
        """Whether what is revoked stays so after a restart or a deploy."""
        return await self._in_thread(lambda: is_durable(self._database, on_render=self._on_render))


def _make_room(connection: sqlite3.Connection, now: float) -> None:
    """Forget what ended long ago; refuse when there is no room even so."""
    long_ago = int(now) - KEPT_AFTER_END_S
    connection.execute("DELETE FROM share_links WHERE expires_at < ?", (long_ago,))
    (count,) = connection.execute("SELECT count(*) FROM share_links").fetchone()
    if count >= SHARES_MAX:
        raise ApiError(409, "too_many_shares", f"There are {SHARES_MAX} shared links already.")


def is_durable(database: str, *, on_render: bool, mounts: Path = Path("/proc/mounts")) -> bool:
    """Whether a database at this path outlives restarts and deploys, as far as one can tell.

    Not in memory, and not on the throw-away file system of a container. On Render only a mounted
    disk is kept (https://render.com/docs/disks), whatever the root file system calls itself.
    """
    if database == MEMORY:
        return False
    folder = Path(database).resolve().parent
    below_root = [path for path in (folder, *folder.parents) if path != path.parent]
    if on_render and not any(path.is_mount() for path in below_root):
        return False
    return _file_system(folder, mounts) not in PASSING_FILE_SYSTEMS


def _file_system(folder: Path, mounts: Path) -> str:
    """The type of the file system that holds a folder, as proc(5) names it; "" where unknown."""
    if not mounts.exists():
        return ""
    lines = (line.split() for line in mounts.read_text("utf-8", "replace").splitlines())
    points = [(Path(fields[1]), fields[2]) for fields in lines if len(fields) > 2]
    # The deepest mount point counts, and of two at the same place the later: it hides the other.
    holding = [entry for entry in reversed(points) if folder.is_relative_to(entry[0])]
    return max(holding, key=lambda entry: len(entry[0].parts), default=(folder, ""))[1]


SHARES: Final = web.AppKey("SHARES", ShareStore)
