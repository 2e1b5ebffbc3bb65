"""The index's promises: it finds what was posted, forgets what is gone, and can itself be lost.

Goal: search, sorting, paging and keeping up with the channels. Method: the index alone on files
made up here; reading and walking through a real gallery with a real worker on the pocket Telegram,
or, where the order of events matters, through a worker that a test plays by hand.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from conftest import Stage, StartClient
from hypothesis import given
from hypothesis import strategies as st
from test_backend import environment, get_json, names

import backend
from gallery import catalogue, index
from gallery.catalogue import Catalogue
from gallery.database import Database
from gallery.errors import ApiError, worker_unreachable
from gallery.files import MediaFile
from gallery.index import PAGE_FILES, SCHEMA, BotFile, Index, Page, Query
from gallery.search import (
    ORDERS,
    Position,
    match_expression,
    name_key,
    read_cursor,
    words,
    write_cursor,
)
from gallery.settings import Settings
from gallery.worker_client import Listing, WorkerClient
from gallery.workers import Workers

CHAT_ID, OTHER_CHAT_ID = -1001234567890, -1009876543210

Gallery = TestClient[Any, Any]


def media_file(message_id: int, **facts: Any) -> MediaFile:
    blank: dict[str, Any] = {
        "chat_id": CHAT_ID,
        "name": f"{message_id}.mp4",
        "mime_type": "video/mp4",
        "size": 1000,
        "date": message_id,
        "duration": None,
        "width": None,
        "height": None,
        "caption": "",
        "has_thumbnail": False,
    }
    return MediaFile(**{**blank, **facts, "message_id": message_id})


@pytest.fixture
async def open_index() -> AsyncIterator[Callable[..., Awaitable[Index]]]:
    """Opens indexes, in memory unless a path is given; they are closed at the end."""
    opened: list[Index] = []

    async def start(path: str = ":memory:", channels: tuple[int, ...] = (CHAT_ID,)) -> Index:
        opened.append(Index(Database(path, SCHEMA), channels))
        await opened[-1].open()
        return opened[-1]

    yield start
    for each in opened:
        await each.close()


OpenIndex = Callable[..., Awaitable[Index]]


async def shown(index: Index, text: str = "", **query: Any) -> list[int]:
    page = await index.page(Query(text, **query))
    assert page.total == len(page.files)
    return [file.message_id for file in page.files]


# -- Words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Amélie (2001).mp4", ["amelie", "2001", "mp4"]),
        ("Last_of.us-S01E02", ["last", "of", "us", "s01e02"]),
        ("Die Straße, ÆON", ["die", "strasse", "æon"]),
        ("東京物語 Tokyo", ["東", "京", "物", "語", "tokyo"]),
        ("Ночь Ёлка", ["ночь", "елка"]),
        ("\ufb01lm \uff12", ["film", "2"]),
        ('-- "*" () 🎬', []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("query", "expression"),
    [
        ("amé tau", '"ame" * AND "tau" *'),
        ("last-of-us", '"last of us" *'),
        ('a"b OR NEAR(c', '"a b" * AND "or" * AND "near c" *'),
        ("   ", None),
        ("(", None),
    ],
)
def test_what_is_typed_is_never_syntax(query: str, expression: str | None) -> None:
    assert match_expression(query) == expression


def test_episode_2_comes_before_episode_10() -> None:
    assert sorted(["b 10", "B 2", "á", "b 002 x"], key=name_key) == ["á", "B 2", "b 002 x", "b 10"]


# -- Cursors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 0.5, -(2**63) + 1])
def test_a_cursor_comes_back_as_it_was(value: float) -> None:
    position = Position(value, 7, CHAT_ID)
    assert read_cursor("longest", write_cursor("longest", position)) == position


def test_a_cursor_is_safe_in_a_url() -> None:
    assert (
        write_cursor("name", Position("ä?&=/+ÿ" * 9, 1, 1))
        .replace("-", "")
        .replace("_", "")
        .isalnum()
    )


@pytest.mark.parametrize(
    ("value", "sort"),
    [
        ("text", "newest"),
        (1, "name"),
        (True, "newest"),
        (2**63, "newest"),
        (float("nan"), "longest"),
        (float("inf"), "longest"),
    ],
)
def test_a_forged_cursor_is_refused(value: Any, sort: str) -> None:
    with pytest.raises(ApiError, match="cursor"):
        read_cursor(sort, write_cursor(sort, Position(value, 1, 1)))


def test_a_cursor_of_another_order_is_refused() -> None:
    with pytest.raises(ApiError, match="cursor"):
        read_cursor("oldest", write_cursor("newest", Position(1, 1, 1)))


@given(st.text(max_size=200))
def test_no_text_is_a_cursor_and_none_does_harm(text: str) -> None:
    with pytest.raises(ApiError, match="cursor"):
        read_cursor("newest", text)


@pytest.mark.parametrize("text", ["W1tbW1tb" * 200, "WzEsMSwxLDFd", "bnVsbA", "MQ"])
def test_json_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="cursor"):
        read_cursor("newest", text)


# -- Asking ------------------------------------------------------------------------------------


async def test_every_word_begins_a_word_of_name_or_caption(open_index: OpenIndex) -> None:
    index = await open_index()
    await index.put(media_file(1, name="Amélie.2001.mkv", caption="with Audrey Tautou"))
    await index.put(media_file(2, name="Metropolis.mp4", caption="Fritz Lang\n東京"))
    assert await shown(index, "AME tau") == [1]
    assert await shown(index, "amelie.2001") == [1]
    assert await shown(index, "2001.amelie") == []
    assert await shown(index, "elie") == []
    assert await shown(index, "lang amelie") == []
    assert await shown(index, "京") == [2]
    assert await shown(index, "京東") == []
    assert await shown(index, "-") == []
    assert await shown(index, "  ") == [2, 1]


@pytest.mark.parametrize(
    "text",
    ['"', "'", "*", "a*", "NOT", "a AND", "NEAR(", "search:", "^a", "{a b}", "\0", "a\0b", "\ud800",
     "-a", "+", "%", "😀", "a" * 5000, "a " * 5000, "ཨོཾ", "\U0001d51e\U0001d51f",
     "'; DROP TABLE files; --"],
)  # fmt: skip
async def test_hostile_queries_find_something_or_nothing_and_never_raise(
    open_index: OpenIndex, text: str
) -> None:
    index = await open_index()
    await index.put(media_file(1, name="a b not near search drop table.mp4", caption=text[:50]
                               .encode("utf-8", "replace").decode()))  # fmt: skip
    assert (await index.page(Query(text))).total in (0, 1)


@given(st.text(max_size=60))
def test_any_text_that_has_words_is_found_by_itself(text: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE search USING fts5(text, tokenize = 'ascii')")
        connection.execute("INSERT INTO search VALUES (?)", (" ".join(words(text)),))
        expression = match_expression(text)
        if expression is not None:
            query = "SELECT count(*) FROM search WHERE search MATCH ?"
            assert connection.execute(query, (expression,)).fetchone() == (1,)


async def test_kinds_and_channels_can_be_chosen(open_index: OpenIndex) -> None:
    index = await open_index(channels=(CHAT_ID, OTHER_CHAT_ID))
    await index.put(media_file(1))
    await index.put(media_file(2, mime_type="audio/mpeg", name="a.mp3"))
    await index.put(media_file(3, chat_id=OTHER_CHAT_ID))
    assert await shown(index, kind="video") == [3, 1]
    assert await shown(index, chat_id=CHAT_ID) == [2, 1]
    assert await shown(index, "mp4", kind="video", chat_id=OTHER_CHAT_ID) == [3]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("newest", [3, 1, 2]),
        ("oldest", [2, 1, 3]),
        ("name", [1, 3, 2]),
        ("largest", [2, 3, 1]),
        ("longest", [3, 1, 2]),
    ],
)
async def test_orders(open_index: OpenIndex, sort: str, expected: list[int]) -> None:
    index = await open_index()
    await index.put(media_file(1, date=20, name="b 2", size=1, duration=50.5))
    await index.put(media_file(2, date=10, name="C", size=9, duration=None))
    await index.put(media_file(3, date=30, name="b 10", size=1, duration=51.0))
    assert await shown(index, sort=sort) == expected


@pytest.mark.parametrize("sort", list(ORDERS))
@pytest.mark.parametrize("text", ["", "film"])
async def test_pages_hold_every_file_once_though_all_are_alike_and_more_come(
    open_index: OpenIndex, sort: str, text: str
) -> None:
    index = await open_index()
    count = 2 * PAGE_FILES + 5
    await index.record(CHAT_ID, 0, count, [media_file(n, name="film", date=5, duration=1.0)
                                           for n in range(1, count + 1)], 1.0)  # fmt: skip
    seen: list[int] = []
    page: Page = await index.page(Query(text, sort=sort))
    seen += [file.message_id for file in page.files]
    # What comes before the place one has scrolled to moves nothing.
    first = 0 if sort in ("oldest", "name") else count + 1
    await index.put(media_file(first, name="film", date=5, duration=1.0))
    while page.next is not None:
        page = await index.page(Query(text, sort=sort, cursor=page.next))
        seen += [file.message_id for file in page.files]
        assert page.total == count + 1
    assert sorted(seen) == list(range(1, count + 1))
    assert seen == sorted(seen, reverse=sort not in ("oldest", "name"))


# -- Recording ---------------------------------------------------------------------------------


async def test_a_stretch_read_again_loses_what_is_gone_and_nothing_else(
    open_index: OpenIndex,
) -> None:
    index = await open_index(channels=(CHAT_ID, OTHER_CHAT_ID))
    for number in range(1, 7):
        await index.put(media_file(number))
    await index.put(media_file(3, chat_id=OTHER_CHAT_ID))
    edited = media_file(4, name="New name.mp4")
    assert await index.record(CHAT_ID, 1, 5, [media_file(2), edited], time.time()) == 2
    assert await shown(index, chat_id=CHAT_ID, sort="oldest") == [1, 2, 4, 6]
    assert await shown(index, chat_id=OTHER_CHAT_ID) == [3]
    assert await shown(index, "new") == [4]
    assert await shown(index, "4") == []


async def test_news_is_not_undone_by_a_listing_that_was_asked_for_before(
    open_index: OpenIndex,
) -> None:
    index = await open_index()
    asked_at = time.time()
    await index.put(media_file(1, name="as edited.mp4"))
    await index.put(media_file(2))
    assert await index.record(CHAT_ID, 0, 9, [media_file(1, name="as it was.mp4")], asked_at) == 0
    assert await shown(index, "edited") == [1]
    assert await shown(index, sort="oldest") == [1, 2]


async def test_a_file_id_stays_until_the_file_is_another(open_index: OpenIndex) -> None:
    index = await open_index()
    await index.put(media_file(1), BotFile("id", "unique"))
    await index.record(CHAT_ID, 0, 1, [media_file(1, caption="edited")], time.time())
    assert await index.bot_file(CHAT_ID, 1) == BotFile("id", "unique")
    await index.record(CHAT_ID, 0, 1, [media_file(1, size=2)], time.time())
    assert await index.bot_file(CHAT_ID, 1) is None


async def test_qualities_stay_until_the_file_is_another(open_index: OpenIndex) -> None:
    """An update may leave out what Telegram has made of a film; a listing does not."""
    index = await open_index()
    film, told = media_file(7, qualities=(720, 360)), BotFile("a", "b")

    async def found() -> tuple[int, ...]:
        file = await index.find(CHAT_ID, 7)
        assert file is not None
        return file.qualities

    await index.put(film)
    assert await found() == (720, 360)
    await index.put(media_file(7), told)
    assert await found() == (720, 360)
    await index.put(media_file(7, qualities=(1080, 720, 360)), told)
    assert await found() == (1080, 720, 360)
    await index.put(media_file(7))
    assert await found() == ()
    await index.put(film)
    await index.put(media_file(7, size=5), told)
    assert await found() == ()


async def test_the_oldest_go_when_there_are_too_many(
    open_index: OpenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "FILES_MAX", 3)
    small = await open_index()
    await small.record(CHAT_ID, 0, 5, [media_file(number) for number in range(1, 6)], 1.0)
    assert await shown(small) == [5, 4, 3]
    assert await shown(small, "mp4") == [5, 4, 3]


# -- The file of the database ------------------------------------------------------------------


async def test_a_restart_finds_everything_and_goes_on_where_reading_stopped(
    open_index: OpenIndex, tmp_path: Path
) -> None:
    path = str(tmp_path / "new" / "index.sqlite")
    first = await open_index(path)
    await first.put(media_file(1), BotFile("id", "unique"))
    await first.advance(CHAT_ID, 1, is_complete=False)
    await first.set_title(CHAT_ID, "Films")
    await first.close()
    second = await open_index(path)
    assert await shown(second) == [1]
    (state,) = await second.channels()
    assert (state.title, state.read_to, state.is_complete) == ("Films", 1, False)


async def test_channels_that_are_no_longer_named_are_forgotten(
    open_index: OpenIndex, tmp_path: Path
) -> None:
    path = str(tmp_path / "index.sqlite")
    first = await open_index(path, (CHAT_ID, OTHER_CHAT_ID))
    await first.put(media_file(1))
    await first.put(media_file(2, chat_id=OTHER_CHAT_ID))
    await first.close()
    second = await open_index(path, (OTHER_CHAT_ID,))
    assert await shown(second) == [2]
    assert await shown(second, "mp4") == [2]
    assert [state.chat_id for state in await second.channels()] == [OTHER_CHAT_ID]


def revoke_a_share(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE share_links (id TEXT PRIMARY KEY, revoked_at INTEGER)")
        connection.execute("INSERT INTO share_links VALUES ('abc', 5)")


def revoked_shares(path: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM share_links").fetchall()


async def test_another_schema_starts_anew_and_keeps_the_revoked_shares(
    open_index: OpenIndex, tmp_path: Path
) -> None:
    path = tmp_path / "index.sqlite"
    await asyncio.to_thread(revoke_a_share, path)
    old = Database(str(path), [*SCHEMA, "CREATE TABLE of_old (x)", "CREATE VIEW v AS SELECT 1"])
    await old.open()
    await old.run(lambda c: c.execute("INSERT INTO of_old VALUES (1)"))
    await old.close()
    new = await open_index(str(path))
    await new.put(media_file(1))
    assert await shown(new, "mp4") == [1]
    await new.close()
    assert await asyncio.to_thread(revoked_shares, path) == [("abc", 5)]


def damage(path: Path, kind: str) -> None:
    if kind == "no database":
        path.write_bytes(b"This was a database once." * 100)
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:-8192])
    else:  # everything but the first pages: what kind of file it is, and its list of tables
        body = path.read_bytes()
        path.write_bytes(body[:8192] + b"\xff" * (len(body) - 8192))


@pytest.mark.parametrize("kind", ["no database", "cut off", "overwritten"])
async def test_a_broken_file_is_thrown_away_and_made_anew(
    open_index: OpenIndex, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "index.sqlite"
    first = await open_index(str(path))
    await first.record(CHAT_ID, 0, 500, [media_file(n) for n in range(1, 500)], 1.0)
    await first.close()
    await asyncio.to_thread(damage, path, kind)
    second = await open_index(str(path))
    assert await shown(second) == []
    await second.put(media_file(1))
    assert await shown(second, "mp4") == [1]


async def test_revoked_shares_are_saved_from_a_broken_file(
    open_index: OpenIndex, tmp_path: Path
) -> None:
    path = tmp_path / "index.sqlite"
    await asyncio.to_thread(revoke_a_share, path)
    first = await open_index(str(path))
    await first.record(CHAT_ID, 0, 500, [media_file(n) for n in range(1, 500)], 1.0)
    await first.close()
    await asyncio.to_thread(damage, path, "cut off")
    second = await open_index(str(path))
    assert await shown(second) == []
    await second.close()
    assert await asyncio.to_thread(revoked_shares, path) == [("abc", 5)]


async def test_a_place_where_nothing_can_be_written_is_a_warning(
    open_index: OpenIndex, caplog: pytest.LogCaptureFixture
) -> None:
    index = await open_index("/dev/null/index.sqlite")
    await index.put(media_file(1))
    assert await shown(index) == [1]
    assert "memory has to do" in caplog.text


async def test_a_failing_database_is_a_503_that_says_nothing_of_it() -> None:
    database = Database(":memory:", SCHEMA)
    await database.open()
    with pytest.raises(ApiError, match="index fails") as caught:
        await database.run(lambda c: c.execute("SELECT * FROM nowhere"))
    assert caught.value.status == 503
    await database.close()
    with pytest.raises(ApiError, match="index fails"):
        await database.run(lambda c: c.execute("SELECT 1"))


# -- Reading the channels, with a worker played by hand ----------------------------------------


class ScriptedWorker:
    """A channel as the worker lists it, two files a page; `before` runs ahead of each."""

    def __init__(self, *message_ids: int) -> None:
        self.message_ids = set(message_ids)
        self.asked: list[int] = []
        self.blind_after: int | None = None  # where a stretch of deleted posts hides the rest
        self.problem: ApiError | None = None
        self.before: Callable[[int], Awaitable[None]] | None = None

    async def files_after(self, chat_id: int, after: int, limit: int = 2) -> Listing:
        self.asked.append(after)
        if self.before is not None:
            await self.before(after)
        if self.problem is not None:
            raise self.problem
        found = sorted(number for number in self.message_ids if number > after)
        if self.blind_after is not None and after < self.blind_after:
            found = [number for number in found if number <= self.blind_after]
        files = tuple(media_file(number, chat_id=chat_id) for number in found[:limit])
        return Listing(files, files[-1].message_id if len(found) > limit else None)


@pytest.fixture
async def follow(
    open_index: OpenIndex, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Catalogue]]:
    """Makes catalogues of these workers that lose no time; they are closed at the end."""
    monkeypatch.setattr(catalogue, "WALK_PAUSE_S", 0.0)
    monkeypatch.setattr(catalogue, "RETRY_FIRST_S", 0.0)
    monkeypatch.setattr(catalogue, "REFRESH_INTERVAL_S", 0.0)
    made: list[Catalogue] = []

    def start(source: ScriptedWorker, index: Index) -> Catalogue:
        made.append(Catalogue((CHAT_ID,), source, index))
        return made[-1]

    yield start
    for each in made:
        await each.close()


Follow = Callable[[ScriptedWorker, Index], Catalogue]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.002)


async def test_reading_goes_on_after_a_restart_in_the_middle(
    open_index: OpenIndex, follow: Follow, tmp_path: Path
) -> None:
    path = str(tmp_path / "index.sqlite")
    worker = ScriptedWorker(*range(1, 8))
    reached = asyncio.Event()

    async def hang_at_4(after: int) -> None:
        if after == 4:
            reached.set()
            await asyncio.Event().wait()

    worker.before = hang_at_4
    first_index = await open_index(path)
    first = follow(worker, first_index)
    first.start()
    visit = asyncio.create_task(first.page(Query()))
    await reached.wait()
    assert await first.state() == {"state": "reading", "files": 4, "messages_read": 4}
    visit.cancel()
    await first.close()
    await first_index.close()
    worker.before, worker.asked = None, []
    second = follow(worker, await open_index(path))
    page = await second.page(Query())
    assert (page.total, worker.asked) == (7, [4, 6])
    assert await second.state() == {"state": "ready", "files": 7, "messages_read": 7}


async def test_a_walk_after_the_start_finds_what_changed_meanwhile(
    open_index: OpenIndex, follow: Follow
) -> None:
    index = await open_index()
    await index.record(CHAT_ID, 0, 7, [media_file(n, caption="old") for n in range(1, 8)], 1.0)
    await index.advance(CHAT_ID, 7, is_complete=True)
    kept = follow(ScriptedWorker(1, 2, 4, 5), index)
    kept.start()
    await kept.find(CHAT_ID, 1)

    async def is_done() -> bool:
        return await shown(index, sort="oldest") == [1, 2, 4, 5] and not await shown(index, "old")

    await until(is_done)


async def test_what_lies_beyond_a_stretch_of_deleted_posts_is_asked_for_before_it_is_given_up(
    open_index: OpenIndex, follow: Follow
) -> None:
    index = await open_index()
    await index.record(CHAT_ID, 0, 3000, [media_file(n) for n in (1, 2000, 2001, 2500)], 1.0)
    await index.advance(CHAT_ID, 2500, is_complete=True)
    worker = ScriptedWorker(1, 2001)
    worker.blind_after = 1
    kept = follow(worker, index)
    kept.start()
    await kept.find(CHAT_ID, 1)

    async def is_done() -> bool:
        return await shown(index, sort="oldest") == [1, 2001]

    await until(is_done)
    assert len(worker.asked) <= 6


class FakeTime:
    """A clock that a test moves, and the sleeping that goes by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self._sleepers.append((self.now + seconds, over))
        await over.wait()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for when, over in self._sleepers:
            if when <= self.now:
                over.set()
        self._sleepers = [each for each in self._sleepers if each[0] > self.now]

    async def until_somebody_sleeps(self, seconds: float) -> None:
        """Wait until a sleep of this length has begun."""
        async with asyncio.timeout(10):
            while self.now + seconds not in [when for when, _ in self._sleepers]:
                await asyncio.sleep(0.002)


DAY_S = 24 * 3600.0


async def test_no_worker_is_asked_for_anything_while_nobody_is_there(open_index: OpenIndex) -> None:
    """Whatever a timer of ours asked of the worker would stand in the list of what it was asked."""
    fake = FakeTime()
    index = await open_index()
    worker = ScriptedWorker(1, 2, 3)
    kept = Catalogue((CHAT_ID,), worker, index, fake.clock, fake.sleep)
    kept.start()
    fake.advance(DAY_S)
    assert (await kept.page(Query())).total == 3
    reading = [0, 2]
    assert worker.asked == reading
    walk = [0, 2]
    expected = reading
    for _ in range(2):
        await fake.until_somebody_sleeps(catalogue.WALK_INTERVAL_S)
        fake.advance(DAY_S)  # several walks are due, and nobody is there
        await kept.find(CHAT_ID, 1)  # somebody comes: one walk
        for _ in walk:
            await fake.until_somebody_sleeps(catalogue.WALK_PAUSE_S)
            fake.advance(catalogue.WALK_PAUSE_S)
        expected = expected + walk
        assert worker.asked == expected
    await kept.close()


async def test_whoever_was_there_since_the_last_walk_gets_the_next_one_in_time(
    open_index: OpenIndex,
) -> None:
    fake = FakeTime()
    index = await open_index()
    worker = ScriptedWorker(1, 2)
    kept = Catalogue((CHAT_ID,), worker, index, fake.clock, fake.sleep)
    kept.start()
    await kept.page(Query())
    await fake.until_somebody_sleeps(catalogue.WALK_INTERVAL_S)
    worker.asked.clear()
    fake.advance(3600)
    await kept.find(CHAT_ID, 1)
    fake.advance(catalogue.WALK_INTERVAL_S - 3600)
    await fake.until_somebody_sleeps(catalogue.WALK_PAUSE_S)
    assert worker.asked == [0]
    await kept.close()


async def test_a_channel_that_cannot_be_read_is_left_alone_when_nobody_waits_for_it(
    open_index: OpenIndex,
) -> None:
    fake = FakeTime()
    worker = ScriptedWorker(1)
    worker.problem = worker_unreachable()
    kept = Catalogue((CHAT_ID,), worker, await open_index(), fake.clock, fake.sleep)
    kept.start()
    with pytest.raises(ApiError, match="does not answer"):
        await kept.page(Query())
    wait_s = catalogue.RETRY_FIRST_S
    while fake.now < 1000 + catalogue.PRESENT_S:
        await fake.until_somebody_sleeps(wait_s)
        fake.advance(wait_s)
        wait_s = min(2 * wait_s, catalogue.RETRY_MAX_S)
    tries = len(worker.asked)
    assert tries > 3
    fake.advance(DAY_S)
    worker.problem = None
    assert (await kept.page(Query())).total == 1
    assert worker.asked[tries:] in (
        [0],
        [0, 1],
    )  # the keeper's look may have been shared or its own
    await kept.close()


async def test_a_worker_that_fails_in_a_walk_deletes_nothing(
    open_index: OpenIndex, follow: Follow
) -> None:
    index = await open_index()
    await index.record(CHAT_ID, 0, 3, [media_file(n) for n in (1, 2, 3)], 1.0)
    await index.advance(CHAT_ID, 3, is_complete=True)
    worker = ScriptedWorker()
    worker.problem = ApiError(503, "worker_busy", "Telegram is busy.")
    kept = follow(worker, index)
    kept.start()
    await kept.find(CHAT_ID, 1)

    async def has_given_up() -> bool:
        return len(worker.asked) == catalogue.WALK_FAILURES_MAX

    await until(has_given_up)
    assert await shown(index, sort="oldest") == [1, 2, 3]


async def test_reading_is_tried_again_without_anybody_asking_twice(
    open_index: OpenIndex, follow: Follow
) -> None:
    index = await open_index()
    worker = ScriptedWorker(1)
    worker.problem = worker_unreachable()
    kept = follow(worker, index)
    kept.start()
    with pytest.raises(ApiError, match="does not answer"):
        await kept.page(Query())

    async def has_failed_twice() -> bool:
        return len(worker.asked) >= 2

    await until(has_failed_twice)
    worker.problem = None

    async def has_it() -> bool:
        return await shown(index) == [1]

    await until(has_it)


async def test_a_listing_that_stands_still_ends_the_reading(
    open_index: OpenIndex, follow: Follow
) -> None:
    class Standing(ScriptedWorker):
        async def files_after(self, chat_id: int, after: int, limit: int = 2) -> Listing:
            return Listing((), after)

    with pytest.raises(ApiError, match="does not move on"):
        await follow(Standing(), await open_index()).page(Query())


async def test_a_worker_that_still_wakes_is_said_to_and_not_taken_for_an_empty_channel(
    open_index: OpenIndex, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "REFRESH_PATIENCE_S", 0.0)
    worker = ScriptedWorker(1)
    awake = asyncio.Event()

    async def wake(_after: int) -> None:
        await awake.wait()

    worker.before = wake
    kept = follow(worker, await open_index())
    with pytest.raises(ApiError, match="does not answer"):
        await kept.page(Query())
    assert (await kept.state())["state"] == "reading"
    awake.set()

    async def has_it() -> bool:
        return await shown(kept.index) == [1]

    await until(has_it)


async def test_what_nobody_thought_of_is_logged_and_ends_in_a_500(
    open_index: OpenIndex, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(ScriptedWorker):
        async def files_after(self, chat_id: int, after: int, limit: int = 2) -> Listing:
            raise LookupError("odd")

    with pytest.raises(ApiError, match="failed here") as caught:
        await follow(Odd(), await open_index()).page(Query())
    assert caught.value.status == 500
    assert "LookupError" in caplog.text


@pytest.mark.parametrize(
    ("status", "body", "headers", "code", "wait_s"),
    [
        (401, {}, {}, "worker_refused", None),
        (403, {}, {}, "worker_refused", None),
        (404, {}, {}, "channel_not_found", None),
        (429, {}, {"Retry-After": "17"}, "worker_busy", 17),
        (503, {"error": {"message": "A flood wait."}}, {}, "worker_busy", 3),
        (502, "<html>", {}, "worker_unreachable", 3),
        (500, {}, {}, "worker_failed", None),
        (200, {}, {}, "bad_listing", None),
        (200, {"files": [{"chat_id": "x"}], "next": None}, {}, "bad_listing", None),
    ],
)
async def test_what_a_worker_says_becomes_what_the_owner_can_do(
    aiohttp_server: Callable[..., Awaitable[TestServer]],
    status: int,
    body: Any,
    headers: dict[str, str],
    code: str,
    wait_s: float | None,
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    app = web.Application()
    app.router.add_get("/files/{chat_id}", answer)
    url = str((await aiohttp_server(app)).make_url("/")).rstrip("/")
    async with ClientSession() as session:
        with pytest.raises(ApiError) as caught:
            await WorkerClient(session, Workers((url,)), "x" * 32).files_after(CHAT_ID, 0)
    assert (caught.value.code, caught.value.retry_after_s) == (code, wait_s)


# -- Through the API, with a real worker on the pocket Telegram --------------------------------


@pytest.fixture
def open_films(stage: Stage, viewer: Gallery, aiohttp_client: StartClient) -> StartClient:
    """Opens a gallery of the stage's channel with a real worker."""

    async def start(**changes: str) -> Gallery:
        on_stage = {
            "WORKER_URL": str(viewer.make_url("/")),
            "CHANNELS": str(stage.channel.chat_id),
        }
        settings = Settings.from_env(environment(**{**on_stage, **changes}))
        return await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))

    return start


async def test_the_index_tells_how_far_it_is(stage: Stage, open_films: StartClient) -> None:
    for number in range(3):
        stage.post_synthetic(10, file_name=f"{number}.mp4")
    films = await open_films()
    body = await get_json(films, "/api/files?query=1")
    assert body["total"] == 1
    assert body["index"] == {"state": "ready", "files": 3, "messages_read": 4}


async def test_channels_are_listed_with_their_ids_while_nobody_tells_their_titles(
    stage: Stage, open_films: StartClient
) -> None:
    stage.post_synthetic(10)
    films = await open_films(CHANNELS=f"{stage.channel.chat_id},-1009999999999")
    await names(films)
    channels = (await get_json(films, "/api/channels"))["channels"]
    assert [(channel["chat_id"], channel["files"]) for channel in channels] == [
        (stage.channel.chat_id, 1),
        (-1009999999999, 0),
    ]
    assert channels[1]["title"] == "-1009999999999"


@pytest.mark.parametrize(
    ("query", "code"),
    [("sort=best", "bad_sort"), ("channel=-1", "bad_channel"), ("channel=x", "bad_channel")],
)
async def test_what_there_is_not_cannot_be_asked_for(
    open_films: StartClient, query: str, code: str
) -> None:
    body = await get_json(await open_films(), f"/api/files?{query}", 400)
    assert body["error"]["code"] == code


async def test_sorts_channels_and_searches_are_answered(
    stage: Stage, open_films: StartClient
) -> None:
    stage.post_synthetic(30, file_name="b.mp4")
    stage.post_synthetic(10, file_name="a.mp4")
    films = await open_films()
    assert await names(films, "?sort=name") == ["a.mp4", "b.mp4"]
    assert await names(films, "?sort=largest") == ["b.mp4", "a.mp4"]
    assert await names(films, f"?channel={stage.channel.chat_id}&query=b") == ["b.mp4"]


async def test_edited_and_deleted_posts_are_found_again_after_a_restart(
    stage: Stage, open_films: StartClient, tmp_path: Path
) -> None:
    database = str(tmp_path / "index.sqlite")
    kept = stage.post_synthetic(10, file_name="kept.mp4", text="as it was")
    gone = stage.post_synthetic(10, file_name="gone.mp4")
    last = stage.post_synthetic(10, file_name="last.mp4")
    films = await open_films(DATABASE=database)
    assert await names(films) == ["last.mp4", "gone.mp4", "kept.mp4"]
    await films.close()
    stage.telegram.world.edit(kept, text="as it is")
    stage.telegram.world.delete(gone)
    stage.telegram.world.delete(last)
    films = await open_films(DATABASE=database)

    async def is_done() -> bool:
        return await names(films) == ["kept.mp4"]

    await until(is_done)
    assert await names(films, "?query=is") == ["kept.mp4"]
    assert await names(films, "?query=was") == []
