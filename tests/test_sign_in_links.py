"""Sign-in links: good once, for five minutes, wherever what was used is remembered.

Method: the table itself, on files and in memory, as several galleries and restarts use it; what a
browser sees of it is in test_bot.py.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import JWT_SECRET

from gallery import sign_in_links
from gallery.database import Database
from gallery.errors import ApiError
from gallery.index import SCHEMA
from gallery.shares import read_share
from gallery.sign_in_links import LINK_LIFETIME_S, UsedSignInLinks, new_sign_in_link
from gallery.tokens import read_session

OpenTable = Callable[..., Awaitable[UsedSignInLinks]]
NOW = 2_000_000_000.0


@pytest.fixture
async def open_table(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenTable]:
    """Opens tables, as each gallery has one; `at` is when it starts."""
    opened = []

    async def start(
        database: str = ":memory:", at: float = NOW, secrets: tuple[str, ...] = (JWT_SECRET,)
    ) -> UsedSignInLinks:
        monkeypatch.setattr("gallery.sign_in_links.time.time", lambda: at)
        table = UsedSignInLinks(database, secrets)
        await table.open()
        opened.append(table)
        return table

    yield start
    for table in opened:
        await table.close()


async def test_a_link_is_good_once_and_for_five_minutes(open_table: OpenTable) -> None:
    table = await open_table()
    link = new_sign_in_link(JWT_SECRET, NOW)
    assert len(link) == 40
    assert [await table.is_good(link, NOW) for _ in range(2)] == [True, True]
    assert [await table.use(link, NOW + 1) for _ in range(2)] == [True, False]
    assert not await table.is_good(link, NOW + 1)
    late = new_sign_in_link(JWT_SECRET, NOW)
    assert await table.is_good(late, NOW + LINK_LIFETIME_S - 1)
    assert not await table.is_good(late, NOW + LINK_LIFETIME_S)
    assert not await table.use(late, NOW + LINK_LIFETIME_S)


async def test_what_we_did_not_sign_is_no_link(open_table: OpenTable) -> None:
    table = await open_table()
    ours = new_sign_in_link(JWT_SECRET, NOW)
    foreign = new_sign_in_link(JWT_SECRET[::-1], NOW)
    for link in ("", "A" * 40, "A" * 39, "é" * 40, "\0" * 40, foreign, f"{ours}\n", ours[:-1]):
        assert not await table.is_good(link, NOW)
        assert not await table.use(link, NOW)
    assert await table.use(ours, NOW)


def test_every_letter_of_a_link_counts() -> None:
    link = new_sign_in_link(JWT_SECRET, NOW)
    for place, letter in enumerate(link):
        other = link[:place] + ("A" if letter != "A" else "B") + link[place + 1 :]
        assert sign_in_links.read_sign_in_link(JWT_SECRET, other, NOW) is None


def test_a_link_is_nothing_else() -> None:
    link = new_sign_in_link(JWT_SECRET, NOW)
    assert read_share(JWT_SECRET, link) is None
    assert read_session(JWT_SECRET, "password", link) is None


async def test_the_secret_of_before_is_believed(open_table: OpenTable) -> None:
    table = await open_table(secrets=("a new secret", JWT_SECRET))
    assert await table.use(new_sign_in_link(JWT_SECRET, NOW), NOW)


async def test_of_many_at_once_one_signs_in(open_table: OpenTable, tmp_path: Path) -> None:
    database = str(tmp_path / "gallery.sqlite")
    tables = [await open_table(database) for _ in range(3)]
    link = new_sign_in_link(JWT_SECRET, NOW)
    used = await asyncio.gather(*(table.use(link, NOW) for table in tables * 5))
    assert sum(used) == 1


async def test_a_restart_remembers_in_a_file(open_table: OpenTable, tmp_path: Path) -> None:
    database = str(tmp_path / "gallery.sqlite")
    before = await open_table(database)
    used, unused = (new_sign_in_link(JWT_SECRET, NOW) for _ in range(2))
    assert await before.use(used, NOW)
    after = await open_table(database, at=NOW + 10)
    assert not await after.use(used, NOW + 20)
    assert await after.use(unused, NOW + 20)


async def test_a_restart_that_forgets_opens_nothing_of_before(open_table: OpenTable) -> None:
    link = new_sign_in_link(JWT_SECRET, NOW)
    after = await open_table(at=NOW + 10)
    assert not await after.is_good(link, NOW + 20)
    assert not await after.use(link, NOW + 20)
    assert await after.use(new_sign_in_link(JWT_SECRET, NOW + 10), NOW + 20)


async def test_what_is_remembered_goes_with_its_end_and_is_limited(
    open_table: OpenTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in_links, "USED_MAX", 3)
    database = str(tmp_path / "gallery.sqlite")
    table = await open_table(database)
    links = [new_sign_in_link(JWT_SECRET, NOW) for _ in range(5)]
    assert [await table.use(link, NOW) for link in links] == [True, True, True, False, False]
    later = NOW + LINK_LIFETIME_S
    assert await table.use(new_sign_in_link(JWT_SECRET, later), later)

    def rows() -> int:
        with closing(sqlite3.connect(database)) as connection:
            return int(connection.execute("SELECT count(*) FROM used_sign_in_links").fetchone()[0])

    assert await asyncio.to_thread(rows) == 2  # that one, and the table's own


async def test_where_nothing_can_be_remembered_nobody_signs_in(
    open_table: OpenTable, tmp_path: Path
) -> None:
    database = tmp_path / "gallery.sqlite"
    await asyncio.to_thread(database.write_bytes, b"no database at all" * 100)
    table = await open_table(str(database))
    with pytest.raises(ApiError) as caught:
        await table.use(new_sign_in_link(JWT_SECRET, NOW), NOW)
    assert (caught.value.status, caught.value.code) == (503, "sign_in_links_unavailable")


async def test_a_new_index_takes_none_of_it_away(open_table: OpenTable, tmp_path: Path) -> None:
    database = str(tmp_path / "gallery.sqlite")
    table = await open_table(database)
    link = new_sign_in_link(JWT_SECRET, NOW)
    assert await table.use(link, NOW)
    index = Database(database, [*SCHEMA, "CREATE TABLE another (x)"])
    await index.open()
    await index.close()
    assert not await table.use(link, NOW)
