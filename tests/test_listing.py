"""/files and /thumbnail: what a gallery is filled from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from conftest import Stage, listing_token, make_token

from telegram_simulator.content import SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import PhotoSize

Viewer = TestClient[Any, Any]


async def list_page(stage: Stage, viewer: Viewer, **query: int) -> dict[str, Any]:
    chat_id = stage.channel.chat_id
    params = {"token": listing_token(chat_id), **{k: str(v) for k, v in query.items()}}
    response = await viewer.get(f"/files/{chat_id}", params=params)
    assert response.status == 200
    body: dict[str, Any] = await response.json()
    return body


async def list_all(stage: Stage, viewer: Viewer, limit: int) -> list[int]:
    found, after = [], 0
    while True:
        page = await list_page(stage, viewer, after=after, limit=limit)
        assert len(page["files"]) <= limit
        found += [each["message_id"] for each in page["files"]]
        if page["next"] is None:
            return found
        assert page["next"] > after
        after = page["next"]


async def test_an_entry_has_every_field_of_the_contract(stage: Stage, viewer: Viewer) -> None:
    thumbnail = PhotoSize("m", 320, 180, SyntheticContent(5000, 1))
    post = stage.post_synthetic(
        123_456,
        text="A film & more",
        file_name="Film.mp4",
        kind="video",
        duration_s=61.5,
        width=1280,
        height=720,
        thumbnails=(thumbnail,),
    )
    page = await list_page(stage, viewer)
    assert page == {
        "files": [
            {
                "chat_id": stage.channel.chat_id,
                "message_id": post.id,
                "name": "Film.mp4",
                "mime_type": "video/mp4",
                "size": 123_456,
                "date": int(post.date.timestamp()),
                "duration": 61.5,
                "width": 1280,
                "height": 720,
                "caption": "A film & more",
                "has_thumbnail": True,
            }
        ],
        "next": None,
    }


async def test_pages_join_without_gap_or_repeat(stage: Stage, viewer: Viewer) -> None:
    world, expected = stage.telegram.world, []
    for number in range(250):
        if number % 3 == 0:
            world.post(stage.channel, None, "words")
        elif number % 7 == 0:
            world.skip_message_ids(stage.channel, 150)
        else:
            expected.append(stage.post_synthetic(1000 + number).id)
    for limit in (1, 7, 100, 200):
        if limit == 1:
            assert (await list_page(stage, viewer, limit=1))["files"][0]["message_id"] == expected[
                0
            ]
        else:
            assert await list_all(stage, viewer, limit) == expected


async def test_a_long_stretch_without_files_is_left_and_resumed(
    stage: Stage, viewer: Viewer
) -> None:
    stage.telegram.world.skip_message_ids(stage.channel, 4000)
    post = stage.post_synthetic(1000)
    page = await list_page(stage, viewer)
    assert page["files"] == []
    assert 0 < page["next"] < post.id
    assert await list_all(stage, viewer, 100) == [post.id]


async def test_new_posts_come_after_the_last_page(stage: Stage, viewer: Viewer) -> None:
    first = stage.post_synthetic(1000)
    assert await list_all(stage, viewer, 100) == [first.id]
    second = stage.post_synthetic(1000)
    page = await list_page(stage, viewer, after=first.id)
    assert [each["message_id"] for each in page["files"]] == [second.id]


async def test_an_empty_channel_lists_nothing(stage: Stage, viewer: Viewer) -> None:
    assert await list_page(stage, viewer) == {"files": [], "next": None}


async def test_without_the_last_id_the_end_is_found_by_walking(
    stage: Stage, viewer: Viewer
) -> None:
    method = "updates.getChannelDifference"
    stage.telegram.trouble.plan(
        Fault("error", times=99, method=method, code=400, message="CHANNEL_INVALID_FOR_TEST")
    )
    posts = [stage.post_synthetic(1000).id for _ in range(130)]
    assert await list_all(stage, viewer, 50) == posts


async def test_what_was_listed_plays_without_reading_its_message_again(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(1000)
    await list_page(stage, viewer)
    before = stage.telegram.counters.methods["channels.getMessages"]
    response = await viewer.get(stage.path(post))
    assert len(await response.read()) == 1000
    assert stage.telegram.counters.methods["channels.getMessages"] == before


@pytest.mark.parametrize(
    "query", [{"after": "-1"}, {"after": "x"}, {"limit": "0"}, {"limit": "201"}, {"limit": ""}]
)
async def test_a_bad_query_is_400(stage: Stage, viewer: Viewer, query: dict[str, str]) -> None:
    chat_id = stage.channel.chat_id
    params = {"token": listing_token(chat_id), **query}
    response = await viewer.get(f"/files/{chat_id}", params=params)
    assert response.status == 400
    assert (await response.json())["error"]["code"] == "bad_query"


async def test_only_a_listing_token_of_this_channel_lists(stage: Stage, viewer: Viewer) -> None:
    chat_id = stage.channel.chat_id
    for token in (make_token(str(chat_id)), listing_token(chat_id - 1), make_token(f"{chat_id}/2")):
        response = await viewer.get(f"/files/{chat_id}", params={"token": token})
        assert response.status == 403
    assert (await viewer.get(f"/files/{chat_id}")).status == 401


async def test_a_thumbnail_is_a_cacheable_jpeg(stage: Stage, viewer: Viewer) -> None:
    small = PhotoSize("s", 90, 60, SyntheticContent(900, 1))
    medium = PhotoSize("m", 320, 180, SyntheticContent(20_000, 2))
    post = stage.post_synthetic(1000, thumbnails=(small, medium))
    response = await viewer.get(stage.path(post, "thumbnail"))
    assert response.status == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["Cache-Control"] == "private, max-age=86400"
    assert await response.read() == SyntheticContent(20_000, 2).read(0, 20_000)
    known = {"If-None-Match": response.headers["ETag"]}
    assert (await viewer.get(stage.path(post, "thumbnail"), headers=known)).status == 304


async def test_no_thumbnail_is_404(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(1000)
    response = await viewer.get(stage.path(post, "thumbnail"))
    assert response.status == 404


async def test_listing_connects_to_where_the_files_are(stage: Stage, viewer: Viewer) -> None:
    stage.post_synthetic(1000, dc_id=4)
    await list_page(stage, viewer)
    async with asyncio.timeout(10):
        while not stage.telegram.counters.methods["auth.importAuthorization"]:
            await asyncio.sleep(0.01)
