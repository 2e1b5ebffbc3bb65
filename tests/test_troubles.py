"""What Telegram does to a worker on a bad day, and what the viewer sees of it.

Method: the trouble is made by the pocket Telegram, at the wire; bytes are compared with the content
made from its own offset. Each row is one that a careful reader of the worker asked about.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import psutil
import pytest
import worker
from aiohttp import ClientPayloadError, ClientResponse
from aiohttp.test_utils import TestClient
from conftest import Stage, StartClient, listing_token, make_token

from telegram_simulator.content import SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import Bot, Channel, Post

Viewer = TestClient[Any, Any]
MIB = 1 << 20
SIZE = 6 * MIB


def film_bytes(start: int = 0, stop: int = SIZE) -> bytes:
    return SyntheticContent(SIZE, 7).read(start, stop - start)


async def play(viewer: Viewer, path: str) -> bytes:
    response = await viewer.get(path)
    assert response.status == 200, await response.text()
    return await response.read()


async def state_of(viewer: Viewer, bot: Bot) -> dict[str, Any]:
    health = await (await viewer.get("/health")).json()
    (state,) = [each for each in health["telegram"] if each["bot"] == bot.id]
    return dict(state)


def path_of(channel: Channel, post: Post) -> str:
    token = make_token(f"{channel.chat_id}/{post.id}")
    return f"/stream/{channel.chat_id}/{post.id}?token={token}"


# -- bots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("film_dc", [1, 2, 4])
async def test_a_bot_that_lives_elsewhere_is_followed_home(
    stage: Stage, start_worker: StartClient, film_dc: int
) -> None:
    emigrant = stage.telegram.world.add_bot(home_dc=4)
    stage.channel.members.add(emigrant.id)
    viewer = await start_worker(bot_tokens=(emigrant.token,))
    post = stage.post_synthetic(SIZE, dc_id=film_dc)
    assert await play(viewer, stage.path(post)) == film_bytes()
    assert (await state_of(viewer, emigrant))["state"] == "connected"
    assert stage.telegram.counters.errors["AUTH_KEY_DUPLICATED"] == 0


async def test_a_bot_that_cannot_see_the_channel_is_passed_over(
    stage: Stage, start_worker: StartClient
) -> None:
    stranger = stage.telegram.world.add_bot(home_dc=2)
    for tokens in (
        (stage.bot.token, stranger.token),
        (stranger.token, stage.bot.token),
    ):
        viewer = await start_worker(bot_tokens=tokens)
        post = stage.post_synthetic(SIZE)
        assert await play(viewer, stage.path(post)) == film_bytes()
        refused = stage.telegram.counters.errors["CHANNEL_PRIVATE"]
        second = stage.post_synthetic(SIZE)
        assert await play(viewer, stage.path(second)) == film_bytes()
        assert stage.telegram.counters.errors["CHANNEL_PRIVATE"] == refused


async def test_a_revoked_token_among_several_is_passed_over(
    stage: Stage, start_worker: StartClient
) -> None:
    viewer = await start_worker(bot_tokens=("777:revoked", stage.bot.token))
    post = stage.post_synthetic(SIZE)
    assert await play(viewer, stage.path(post)) == film_bytes()
    health = await (await viewer.get("/health")).json()
    assert [each["state"] for each in health["telegram"]] == ["refused", "connected"]
    assert "AccessTokenInvalid" in health["telegram"][0]["message"]


async def test_two_bots_share_the_work(stage: Stage, start_worker: StartClient) -> None:
    second = stage.telegram.world.add_bot(home_dc=1)
    stage.channel.members.add(second.id)
    viewer = await start_worker(bot_tokens=(stage.bot.token, second.token))
    post = stage.post_synthetic(SIZE)
    stage.telegram.trouble.round_trip_s = 0.03
    assert await play(viewer, stage.path(post)) == film_bytes()
    assert stage.served(post) == SIZE
    assert stage.telegram.counters.methods["auth.importAuthorization"] == 2


async def test_a_flooded_bot_leaves_the_work_to_another(
    stage: Stage, start_worker: StartClient
) -> None:
    second = stage.telegram.world.add_bot(home_dc=2)
    stage.channel.members.add(second.id)
    viewer = await start_worker(bot_tokens=(stage.bot.token, second.token))
    stage.telegram.trouble.flood_wait(1000, account_id=stage.bot.id, times=99)
    post = stage.post_synthetic(SIZE)
    assert await play(viewer, stage.path(post)) == film_bytes()
    state = await state_of(viewer, stage.bot)
    assert state["state"] == "flood wait"
    assert 990 <= state["wait_s"] <= 1000


async def test_a_flooded_bot_does_not_hold_up_channels_of_another(
    stage: Stage, start_worker: StartClient
) -> None:
    world = stage.telegram.world
    second = world.add_bot(home_dc=2)
    other = world.add_channel("Others", second)
    viewer = await start_worker(bot_tokens=(stage.bot.token, second.token))
    held, free = stage.post_synthetic(SIZE), world.post(other, stage.post_synthetic(SIZE).media)
    for path in (stage.path(held), path_of(other, free)):
        assert (await viewer.head(path)).status == 200
    stage.telegram.trouble.flood_wait(15, account_id=stage.bot.id, times=99)
    waiting = asyncio.create_task(play(viewer, stage.path(held)))
    async with asyncio.timeout(5):
        while not stage.telegram.counters.errors["FLOOD_WAIT_15"]:
            await asyncio.sleep(0.01)
    assert await play(viewer, path_of(other, free)) == film_bytes()
    assert not waiting.done()
    waiting.cancel()


async def test_an_odd_refusal_of_the_login_is_not_for_ever(
    stage: Stage, start_worker: StartClient
) -> None:
    method = "auth.importBotAuthorization"
    stage.telegram.trouble.plan(
        Fault("error", method=method, code=400, message="MSG_WAIT_FAILED", times=2)
    )
    stage.telegram.trouble.plan(Fault("error", method=method, code=400, message="ODD_THING"))
    viewer = await start_worker()
    async with asyncio.timeout(20):
        while (await state_of(viewer, stage.bot))["state"] != "connected":
            await asyncio.sleep(0.05)
    post = stage.post_synthetic(SIZE)
    assert await play(viewer, stage.path(post)) == film_bytes()


# -- floods --------------------------------------------------------------------------------------


async def test_everybody_in_the_queue_is_told_of_a_long_flood(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(2 << 30)
    assert (await viewer.head(stage.path(post))).status == 200
    stage.telegram.trouble.round_trip_s = 0.2
    stage.telegram.trouble.flood_wait(1000, times=999)

    async def ask(number: int) -> int:
        headers = {"Range": f"bytes={number * 8 * MIB}-"}
        async with viewer.get(stage.path(post), headers=headers) as response:
            return response.status

    async with asyncio.timeout(20):
        assert set(await asyncio.gather(*(ask(number) for number in range(35)))) == {429}


async def test_a_short_flood_does_not_shorten_a_long_one(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    stage.telegram.trouble.flood_wait(600)
    stage.telegram.trouble.flood_wait(1)
    assert (await viewer.get(stage.path(post))).status == 429
    await asyncio.sleep(1.5)
    response = await viewer.get(stage.path(post))
    assert response.status == 429
    assert int(response.headers["Retry-After"]) > 590


async def test_floods_that_follow_one_another_are_not_waited_out_for_ever(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(SIZE)
    stage.telegram.trouble.flood_wait(12, times=999)
    async with asyncio.timeout(worker.HOLD_MAX_S):
        response = await viewer.get(stage.path(post))
    assert response.status == 429
    assert stage.telegram.counters.errors["FLOOD_WAIT_12"] >= 2


async def test_a_short_flood_while_the_film_is_looked_up_is_waited_out(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(SIZE)
    stage.telegram.trouble.flood_wait(1, method="channels.getMessages")
    assert await play(viewer, stage.path(post)) == film_bytes()


# -- lines and keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("dc_id", [2, 4], ids=["home", "foreign"])
async def test_a_silent_connection_is_replaced(stage: Stage, viewer: Viewer, dc_id: int) -> None:
    post = stage.post_synthetic(SIZE, dc_id=dc_id)
    stage.telegram.trouble.plan(Fault("silence", method="upload.getFile", after=3, times=2))
    assert await play(viewer, stage.path(post)) == film_bytes()


async def test_one_answer_that_never_comes_is_asked_again_while_others_flow(
    stage: Stage, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is not silent, so nothing but the request's own time-out tells."""
    monkeypatch.setattr(worker, "REQUEST_TIMEOUT_S", 0.5)
    post, other = stage.post_synthetic(SIZE), stage.post_synthetic(64 * MIB)
    await viewer.head(stage.path(post))
    connections = stage.telegram.counters.connections.total()
    assert post.media is not None
    stage.telegram.trouble.bytes_per_second = 20e6
    stage.telegram.trouble.plan(Fault("silence", method="upload.getFile", file_id=post.media.id))
    async with viewer.get(stage.path(other)) as flowing:
        asked = asyncio.create_task(play(viewer, stage.path(post)))
        while not asked.done():
            await flowing.content.readany()
        flowing.close()
    assert await asked == film_bytes()
    assert stage.telegram.counters.connections.total() == connections + 1  # to the films' DC


async def test_a_thin_line_is_not_mistaken_for_a_dead_one(stage: Stage, viewer: Viewer) -> None:
    """A MiB takes longer here than a silence may last."""
    post = stage.post_synthetic(MIB)
    stage.telegram.trouble.bytes_per_second = 150_000
    assert await play(viewer, stage.path(post)) == SyntheticContent(MIB, 7).read(0, MIB)
    assert stage.served(post) == MIB


async def test_a_foreign_key_forgotten_while_nobody_watched_is_replaced(
    stage: Stage, viewer: Viewer
) -> None:
    first, second = stage.post_synthetic(SIZE), stage.post_synthetic(SIZE)
    assert await play(viewer, stage.path(first)) == film_bytes()
    stage.telegram.forget_keys(4)
    stage.telegram.drop_connections(4)
    assert await play(viewer, stage.path(second)) == film_bytes()


@pytest.mark.parametrize("dc_id", [2, 4], ids=["home", "foreign"])
@pytest.mark.parametrize("what", ["forget_keys", "expire_authorisations", "drop_connections"])
async def test_losing_a_key_or_a_line_in_mid_film_is_invisible(
    stage: Stage, viewer: Viewer, what: str, dc_id: int
) -> None:
    post = stage.post_synthetic(SIZE, dc_id=dc_id)
    stage.telegram.trouble.bytes_per_second = 6 * MIB
    async with viewer.get(stage.path(post)) as response:
        body = await response.content.readexactly(MIB)
        getattr(stage.telegram, what)(dc_id)
        body += await response.content.read(-1)
    assert body == film_bytes()
    assert stage.telegram.counters.errors["AUTH_KEY_DUPLICATED"] == 0


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is collected, and what would be is kept for a look when it is asked for."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_trouble_leaves_nothing_to_the_garbage_collector(
    stage: Stage, viewer: Viewer
) -> None:
    """It comes by so rarely that errors, and lines that were lost, would pile up to megabytes."""
    post = stage.post_synthetic(30 * MIB)
    stage.telegram.trouble.bytes_per_second = 20 * MIB
    for start in (0, 10 * MIB, 20 * MIB):
        assert post.media is not None
        stage.telegram.world.expire_references(post.media.id)
        async with viewer.get(stage.path(post), headers={"Range": f"bytes={start}-"}) as response:
            await response.content.readexactly(2 * MIB)
            stage.telegram.drop_connections()
            await response.content.readexactly(4 * MIB)
            response.close()  # while more is read ahead
    assert stage.telegram.counters.errors["FILE_REFERENCE_EXPIRED"] >= 3
    assert stage.telegram.counters.connections[4] >= 4
    assert await garbage_of_worker() == set()


@pytest.mark.usefixtures("uncollected")
async def test_refusals_leave_nothing_to_the_garbage_collector(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(30 * MIB)
    stage.telegram.trouble.bytes_per_second = 20 * MIB
    async with viewer.get(stage.path(post)) as response:
        await response.content.readexactly(2 * MIB)
        stage.telegram.trouble.flood_wait(1000, times=99)
        with pytest.raises(ClientPayloadError):
            await response.content.read()
    stage.telegram.world.delete(post)
    assert (await viewer.get(stage.path(stage.post_synthetic(MIB)))).status == 429
    assert await garbage_of_worker() == set()


async def garbage_of_worker() -> set[str]:
    """What of the worker's is to be collected, a moment after all is over."""
    await asyncio.sleep(1)
    gc.collect()
    return {type(each).__name__ for each in gc.garbage if is_of_the_worker(each)}


def is_of_the_worker(thing: object) -> bool:
    """Whether it is one of the worker's objects, or where an error came through its code."""
    if isinstance(thing, TracebackType):
        return thing.tb_frame.f_code.co_filename == worker.__file__
    return type(thing).__module__ == worker.__name__


async def test_a_lost_line_holds_no_memory_though_nobody_asks_for_another(
    stage: Stage, viewer: Viewer
) -> None:
    assert await play(viewer, stage.path(stage.post_synthetic(SIZE))) == film_bytes()
    wires = [each for each in gc.get_objects() if isinstance(each, worker._Wire) and each._buffer]
    assert len(wires) >= 2
    stage.telegram.drop_connections()
    async with asyncio.timeout(10):
        while any(wire._buffer for wire in wires):
            await asyncio.sleep(0.01)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries give freed memory back unasked"
)
async def test_what_a_crowd_needed_is_given_back(
    start_worker: StartClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GIVE_BACK_EVERY_S", 0.2)
    await start_worker()
    process = psutil.Process()
    pieces = [bytes(1 << 12) * (worker.PIECE_BYTES >> 12) for _ in range(1000)]
    kept = pieces[::10]  # so that what is freed lies between what is in use
    crowded_bytes = process.memory_info().rss
    del pieces
    async with asyncio.timeout(20):
        while process.memory_info().rss > crowded_bytes - 60 * MIB:
            await asyncio.sleep(0.1)
    assert len(kept) == 100


async def test_a_film_plays_on_while_home_is_down(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE, dc_id=4)
    assert (await viewer.get(stage.path(post), headers={"Range": "bytes=0-1"})).status == 206
    stage.telegram.trouble.down.add(2)
    assert await play(viewer, stage.path(post)) == film_bytes()


# -- viewers -------------------------------------------------------------------------------------


async def test_a_chunk_that_nobody_waits_for_is_not_tried_again(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(SIZE)
    assert (await viewer.head(stage.path(post))).status == 200
    fault = Fault("error", method="upload.getFile", code=500, message="INTERNAL", times=999)
    stage.telegram.trouble.plan(fault)
    asking = asyncio.create_task(viewer.get(stage.path(post)))
    errors = stage.telegram.counters.errors
    async with asyncio.timeout(10):
        while not errors["INTERNAL"]:
            await asyncio.sleep(0.01)
    asking.cancel()
    settled = -1
    while settled != errors["INTERNAL"]:
        settled = errors["INTERNAL"]
        await asyncio.sleep(1)
    assert settled <= 6


async def test_a_failed_read_ahead_is_tried_anew_when_it_is_asked_for() -> None:
    """The order of the two answers decides, so they are given by hand here, not over a wire."""
    content, asked = SyntheticContent(SIZE, 7), list[worker.Chunk]()
    read_ahead_failed = asyncio.Event()

    class Fetcher:
        def pace(self, _file: worker.RemoteFile) -> worker.Pace:
            return worker.Pace(MIB, 4 * MIB)

        async def fetch(self, request: worker.ChunkRequest) -> worker.ChunkBody:
            asked.append(request.chunk)
            if len(asked) == 2:
                read_ahead_failed.set()
                raise worker.UpstreamFailed("The second chunk fails the first time.")
            await read_ahead_failed.wait()
            return worker.ChunkBody.of(content.read(request.chunk.offset, request.chunk.size))

    modified = datetime(2026, 1, 2, tzinfo=UTC)
    file = worker.RemoteFile(-100, 1, 1, "", 2, SIZE, "video/mp4", "film.mp4", modified)
    cache = worker.ChunkCache(Fetcher(), 64 * MIB)
    body = bytearray()
    async with worker.RangeReader(cache, file, worker.ByteRange(0, SIZE)) as reader:
        while piece := await reader.read():
            body += piece
    assert bytes(body) == film_bytes()
    assert asked.count(asked[1]) == 2


async def test_viewers_who_come_and_go_leave_nothing_behind(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(2 << 30)
    assert (await viewer.head(stage.path(post))).status == 200

    async def glance(number: int) -> None:
        headers = {"Range": f"bytes={number % 7 * 3 * MIB}-"}
        async with viewer.get(stage.path(post), headers=headers) as response:
            for _ in range(number % 5):
                await response.content.readany()
            response.close()

    for batch in range(10):
        await asyncio.gather(*(glance(batch * 20 + number) for number in range(20)))
    async with asyncio.timeout(10):
        while (await (await viewer.get("/health")).json())["viewers"]:
            await asyncio.sleep(0.05)
    body = await read_range(viewer, stage, post, 3 * MIB, 9 * MIB)
    assert body == SyntheticContent(2 << 30, 7).read(3 * MIB, 6 * MIB)


async def read_range(viewer: Viewer, stage: Stage, post: Post, start: int, stop: int) -> bytes:
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    response: ClientResponse = await viewer.get(stage.path(post), headers=headers)
    assert response.status == 206
    return await response.read()


# -- listings and odd headers --------------------------------------------------------------------


async def test_a_listing_that_failed_is_not_a_short_one(stage: Stage, viewer: Viewer) -> None:
    stage.telegram.world.skip_message_ids(stage.channel, 900)
    stage.post_synthetic(SIZE)
    method = "updates.getChannelDifference"
    stage.telegram.trouble.plan(Fault("error", method=method, times=3, code=500))
    chat_id = stage.channel.chat_id
    response = await viewer.get(f"/files/{chat_id}", params={"token": listing_token(chat_id)})
    assert response.status == 502
    assert (await response.json())["error"]["code"] == "telegram_unreachable"


@pytest.mark.parametrize("name", ["If-Range", "If-Modified-Since", "If-Unmodified-Since"])
async def test_a_date_beyond_all_calendars_is_ignored(
    stage: Stage, viewer: Viewer, name: str
) -> None:
    post = stage.post_synthetic(SIZE)
    date = "Fri, 02 Jan 2026 03:04:05 +999999999999999999"
    response = await viewer.get(stage.path(post), headers={name: date, "Range": "bytes=0-1"})
    assert response.status == (200 if name == "If-Range" else 206)


async def test_a_tag_may_be_in_any_of_several_lines(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    tag = (await viewer.head(stage.path(post))).headers["ETag"]
    for name, status in (("If-None-Match", 304), ("If-Match", 200), ("if-none-match", 304)):
        headers = [(name, '"another"'), (name, tag)]
        assert (await viewer.head(stage.path(post), headers=headers)).status == status


async def test_a_header_sent_along_does_not_spoil_the_renewal(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    now = int(time.time())
    subject = f"{stage.channel.chat_id}/{post.id}"
    grant = make_token(subject, aud="renewal", iat=None, exp=now + 7200)
    expired = make_token(subject, iat=now - 3700, exp=now - 100)
    path = stage.path(post).partition("?")[0] + f"?renew={grant}"
    response = await viewer.get(path, headers={"Authorization": f"Bearer {expired}"})
    assert response.status == 200
