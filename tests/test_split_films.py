"""Parts that were posted one after another are one film: in the list, in search, in URLs and links.

Goal: whatever is whole is one film of one length, with exact ranges across its seams; whatever is
not whole stays as it is, and the owner is told why. Method: names and orders by table; that posts
come, change and go in any order by hypothesis, against an index that learnt of all at once; bytes
through a real gallery and worker on the pocket Telegram.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient
from conftest import Stage, StartClient
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backend import get_json, names, on_stage
from test_gallery_index import CHAT_ID, media_file
from test_small_files import open_gallery

from gallery.database import Database
from gallery.files import MediaFile
from gallery.index import SCHEMA, Index, Query
from gallery.related import subtitles_of
from gallery.split_films import PARTS_MAX, Apart, Joined, Piece, part_of, sort_out
from telegram_simulator.content import SyntheticContent
from telegram_simulator.world import Post

Gallery = TestClient[Any, Any]

# -- Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "whole", "number"),
    [
        ("film.mkv.001", "film.mkv", 1),
        ("film.mkv.012", "film.mkv", 12),
        ("film.mkv.part1", "film.mkv", 1),
        ("Film.MP4.Part03", "Film.MP4", 3),
        ("film.part2.mkv", "film.mkv", 2),
        ("a.7z.001", "a.7z", 1),
    ],
)
def test_a_part_is_known_by_its_name(name: str, whole: str, number: int) -> None:
    part = part_of(name)
    assert part is not None
    assert (part.whole, part.number) == (whole, number)


@pytest.mark.parametrize(
    "name",
    [
        "film.mkv",
        "film.001",
        "film.2019",
        "film.mkv.000",
        "a.part1.rar",
        "a.rar.001",
        "part1",
        ".001",
    ],
)
def test_other_names_are_no_parts(name: str) -> None:
    assert part_of(name) is None


# -- Orders ----------------------------------------------------------------------------------------


def pieces(*numbers: int, size: int = 100, last: int = 50) -> list[Piece]:
    """Parts in this order, each last one of a film smaller."""
    following = (*numbers[1:], 1)
    return [
        Piece(place, number, last if following[place - 1] <= number else size)
        for place, number in enumerate(numbers, 1)
    ]


def told(found: Sequence[Joined | Apart]) -> list[tuple[Any, ...]]:
    return [
        tuple(piece.message_id for piece in group.pieces)
        if isinstance(group, Joined)
        else (group.reason, *group.missing)
        for group in found
    ]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1, 2, 3), [(1, 2, 3)]),
        ((1, 2, 1, 2), [(1, 2), (3, 4)]),
        ((1,), [("alone",)]),
        ((2, 3), [("missing", 1)]),
        ((1, 3, 4), [("missing", 2)]),
        ((1, 2, 2), [(1, 2), ("missing", 1)]),
        ((1, 3, 2), [("order",)]),
        ((1, 1, 2, 2), [("alone",), ("twice",)]),
    ],
)
def test_what_is_joined_and_what_is_said_of_the_rest(
    numbers: tuple[int, ...], expected: list[Any]
) -> None:
    found = sort_out(pieces(*numbers))
    assert sum(len(group.pieces) for group in found) == len(numbers)
    assert told(found) == expected


def test_films_that_play_by_themselves_are_no_parts() -> None:
    same = [Piece(1, 1, 700 << 20), Piece(2, 2, 700 << 20), Piece(3, 3, 5)]
    assert told(sort_out(same, may_play_alone=True)) == [(1, 2, 3)]
    measured = [Piece(1, 1, 700, True), Piece(2, 2, 650, True)]
    assert told(sort_out(measured, may_play_alone=True)) == [("",)]


def test_more_parts_than_a_token_holds_stay_apart() -> None:
    many = pieces(*range(1, PARTS_MAX + 2))
    assert told(sort_out(many)) == [("too_many",)]
    assert told(sort_out(many[:PARTS_MAX])) == [tuple(range(1, PARTS_MAX + 1))]


# -- The index, whatever happens -------------------------------------------------------------------

NAMES = ("A.mkv.001", "A.mkv.002", "A.mkv.003", "A.mkv", "A.en.srt", "B.part1.mkv", "B.part2.mkv")
POSTS = tuple(
    media_file(
        number,
        name=name,
        mime_type="application/octet-stream",
        size=1024 if name.endswith(("1", "2", "part1.mkv")) else 600,
        reply_to=reply_to,
    )
    for number, (name, reply_to) in enumerate(
        [
            *((name, None) for name in NAMES[:3]),
            (NAMES[4], None),
            ("Notes.srt", 2),
            *((name, None) for name in NAMES[:2]),
            (NAMES[3], None),
            *((name, None) for name in NAMES[5:]),
            ("B.de.srt", None),
        ],
        1,
    )
)


async def state_of(index: Index) -> object:
    """All that the index shows of the files, and which subtitles they have."""
    pages = [await index.page(Query("", kind)) for kind in (None, "document")]
    films = [file for file in pages[0].files if file.kind == "video"]
    found = [await index.find(CHAT_ID, post.message_id) for post in POSTS]
    return (
        [page.files for page in pages],
        found,
        [[each.file.message_id for each in await subtitles_of(index, film)] for film in films],
        [file.message_id for file in (await index.page(Query("a mkv"))).files],
    )


async def opened() -> Index:
    index = Index(Database(":memory:", SCHEMA), (CHAT_ID,))
    await index.open()
    return index


async def same_as_at_once(steps: list[tuple[str, int]]) -> None:
    there: dict[int, MediaFile] = {}
    one_by_one, at_once = await opened(), await opened()
    try:
        for what, place in steps:
            post = POSTS[place]
            if what == "gone":
                there.pop(post.message_id, None)
                await one_by_one.forget(CHAT_ID, post.message_id)
            else:
                there[post.message_id] = post
                await one_by_one.put(post)
        files = [there[number] for number in sorted(there)]
        await at_once.record(CHAT_ID, 0, 1000, files, 1.0)
        assert await state_of(one_by_one) == await state_of(at_once)
    finally:
        await one_by_one.close()
        await at_once.close()


@given(
    st.lists(
        st.tuples(st.sampled_from(["there", "there", "gone"]), st.integers(0, len(POSTS) - 1)),
        max_size=25,
    )
)
@settings(max_examples=60)
def test_posts_may_come_and_go_in_any_order(steps: list[tuple[str, int]]) -> None:
    asyncio.run(same_as_at_once(steps))


async def test_a_film_comes_together_and_apart() -> None:
    """What the property above compares is right in the first place."""
    index = await opened()
    try:
        await index.record(CHAT_ID, 0, 1000, POSTS, 1.0)
        shown = {file.message_id: file for file in (await index.page(Query())).files}
        assert sorted(shown) == [1, 6, 8, 9]
        assert (shown[1].name, shown[1].size, shown[1].parts) == ("A.mkv", 2648, (2, 3))
        assert (shown[6].name, shown[6].parts) == ("A.mkv", (7,))
        assert (shown[9].name, shown[9].parts) == ("B.mkv", (10,))
        tracks = [
            [each.file.message_id for each in await subtitles_of(index, shown[film])]
            for film in (1, 8, 9)
        ]
        assert tracks == [[4, 5], [4], [11]]
        later = await index.find(CHAT_ID, 2)
        assert later is not None
        assert await index.whole(later) == shown[1]
        await index.forget(CHAT_ID, 2)
        first = await index.find(CHAT_ID, 1)
        assert first is not None
        assert (first.name, first.apart, first.missing) == ("A.mkv.001", "missing", (2,))
    finally:
        await index.close()


# -- In the gallery --------------------------------------------------------------------------------

SIZES = (300_000, 300_000, 77_777)
SEAM = SIZES[0]


@pytest.fixture
def open_films(
    stage: Stage, viewer: Gallery, aiohttp_client: StartClient
) -> Callable[..., Awaitable[Gallery]]:
    async def start(**changes: str) -> Gallery:
        return await open_gallery(aiohttp_client, **{**on_stage(stage, viewer), **changes})

    return start


def post_parts(stage: Stage, name: str = "Film (2019).mkv") -> tuple[list[Post], bytes]:
    posts, body = [], b""
    for number, size in enumerate(SIZES, 1):
        content = SyntheticContent(size, seed=number)
        posts.append(stage.post(content, "", file_name=f"{name}.{number:03}"))
        body += content.read(0, size)
    return posts, body


async def reads_whole(url: str, body: bytes) -> None:
    """A URL gives the film, and any range of it, also across a seam."""
    async with ClientSession() as session:
        async with session.get(url) as response:
            assert response.status == 200
            assert response.content_length == len(body)
            assert await response.read() == body
        for start, stop in ((SEAM - 3, SEAM + 4), (2 * SEAM, 2 * SEAM + 1), (5, len(body))):
            headers = {"Range": f"bytes={start}-{stop - 1}"}
            async with session.get(url, headers=headers) as response:
                assert response.status == 206
                assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(body)}"
                assert await response.read() == body[start:stop]


async def test_a_split_film_is_one_film_everywhere(
    stage: Stage, open_films: Callable[..., Awaitable[Gallery]]
) -> None:
    posts, body = post_parts(stage)
    gallery = await open_films()
    (film,) = (await get_json(gallery, "/api/files?query=film+2019"))["files"]
    assert (film["name"], film["kind"], film["size"]) == ("Film (2019).mkv", "video", len(body))
    assert film["parts"] == [post.id for post in posts]
    assert film["split"] is None
    assert (await get_json(gallery, "/api/channels"))["channels"][0]["files"] == 1
    path = f"/api/files/{stage.channel.chat_id}/{posts[0].id}"
    signed = await get_json(gallery, f"{path}/url")
    assert (signed["via"], signed["size"]) == ("worker", len(body))
    await reads_whole(signed["url"], body)
    order = {"chat_id": stage.channel.chat_id, "message_id": posts[0].id}
    async with gallery.post("/api/shares", json=order) as response:
        await reads_whole((await response.json())["url"], body)


async def test_a_link_to_parts_that_the_gallery_has_not_read_yet_opens_the_film(
    stage: Stage, open_films: Callable[..., Awaitable[Gallery]]
) -> None:
    posts, body = post_parts(stage)
    gallery = await open_films()
    signed = await get_json(gallery, f"/api/files/{stage.channel.chat_id}/{posts[0].id}/url")
    await reads_whole(signed["url"], body)


async def test_the_owner_is_told_which_part_is_missing(
    stage: Stage, open_films: Callable[..., Awaitable[Gallery]]
) -> None:
    posts, _ = post_parts(stage)
    stage.telegram.world.delete(posts[1])
    gallery = await open_films()
    files = (await get_json(gallery, "/api/files?sort=oldest"))["files"]
    assert [file["name"] for file in files] == ["Film (2019).mkv.001", "Film (2019).mkv.003"]
    assert [file["split"] for file in files] == [{"problem": "missing", "missing": [2]}] * 2
    assert all(file["parts"] == [] for file in files)
    assert await names(gallery, "?query=mkv+003") == ["Film (2019).mkv.003"]
