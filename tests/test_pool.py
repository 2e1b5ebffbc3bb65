"""Section 9 of the worker: whose chunk goes next, over which line, and how much at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import worker
from aiohttp.test_utils import TestClient
from conftest import Stage, StartClient

from telegram_simulator.content import SyntheticContent

KIB, MIB = 1 << 10, 1 << 20
FILE = worker.RemoteFile(
    -100, 1, 1, "", 2, 1 << 30, "video/mp4", "film.mp4", datetime(2026, 1, 2, tzinfo=UTC)
)

Viewer = TestClient[Any, Any]


class Source:
    """Stands below a pool: notes what is asked of it and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[worker.Chunk] = []
        self._answers: dict[worker.Chunk, asyncio.Event] = {}

    def sees(self, _bot_id: int, _chat_id: int) -> bool:
        return True

    async def fetch_chunk(
        self, _bot_id: int, _file: worker.RemoteFile, chunk: worker.Chunk
    ) -> worker.ChunkBody:
        self.asked.append(chunk)
        self._answers[chunk] = asyncio.Event()
        await self._answers[chunk].wait()
        return worker.ChunkBody.of(bytes(chunk.size))

    async def answer(self, chunk: worker.Chunk) -> None:
        self._answers[chunk].set()
        await asyncio.sleep(0.01)


class Queue:
    """One bot's pool with requests in it."""

    def __init__(self) -> None:
        self.source = Source()
        limits = worker.InFlightLimits(MIB, 4 * MIB)
        self.pool = worker.ConnectionPool(2, self.source, [1], limits)
        self.tasks: list[asyncio.Task[worker.ChunkBody]] = []

    async def ask(self, number: int, *, on_demand: bool, size: int = MIB) -> worker.ChunkRequest:
        request = worker.ChunkRequest(FILE, worker.Chunk(number * MIB, size))
        if on_demand:
            request.raise_to_demand(20)
        self.tasks.append(asyncio.create_task(self.pool.fetch(request)))
        await asyncio.sleep(0)
        return request

    def asked(self) -> list[int]:
        return [chunk.offset // MIB for chunk in self.source.asked]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_read_ahead_never_keeps_a_waiting_viewer_in_line() -> None:
    queue = Queue()
    for number in range(20):
        await queue.ask(number, on_demand=False)
    assert queue.asked() == [0, 1]
    await queue.ask(99, on_demand=True, size=128 * KIB)
    assert queue.asked() == [0, 1, 99]
    await queue.close()


async def test_whoever_waits_goes_before_all_read_ahead_also_when_it_was_read_ahead() -> None:
    queue = Queue()
    requests = [await queue.ask(number, on_demand=False) for number in range(8)]
    await queue.ask(50, on_demand=True)
    await queue.ask(51, on_demand=True)
    requests[6].raise_to_demand(20)
    assert queue.asked() == [0, 1, 50]
    await queue.source.answer(requests[0].chunk)
    await queue.source.answer(requests[1].chunk)
    assert queue.asked()[3:5] == [51, 6]
    await queue.close()


async def test_one_who_leaves_the_queue_is_forgotten() -> None:
    queue = Queue()
    requests = [await queue.ask(number, on_demand=False) for number in range(6)]
    for task in queue.tasks[2:5]:
        task.cancel()
    await asyncio.sleep(0)
    await queue.source.answer(requests[0].chunk)
    assert queue.asked() == [0, 1, 5]
    await queue.source.answer(requests[1].chunk)
    assert queue.pool.waiting_requests == 0
    await queue.source.answer(requests[5].chunk)
    assert [each.in_flight_bytes for each in queue.pool.connections] == [0]
    await queue.close()


async def test_read_ahead_that_is_called_off_leaves_the_line_at_once() -> None:
    queue = Queue()
    for number in range(6):
        await queue.ask(number, on_demand=False)
    for number in range(50, 53):
        await queue.ask(number, on_demand=True)
    assert queue.asked() == [0, 1, 50]
    assert queue.pool.waiting_requests == 6
    for task in queue.tasks[2:6]:
        task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert queue.pool.waiting_requests == 2  # the viewers
    await queue.close()


async def test_on_a_thin_line_chunks_are_small_and_little_is_in_flight(
    stage: Stage, viewer: Viewer
) -> None:
    """At 1 MB/s a chunk of 256 KiB takes a quarter of a second; a seek waits for two at most."""
    stage.telegram.trouble.bytes_per_second = 1e6
    stage.telegram.trouble.round_trip_s = 0.05
    post = stage.post_synthetic(64 * MIB)
    count, in_flight = stage.count(post), []
    async with viewer.get(stage.path(post)) as response:
        async with asyncio.timeout(30):
            while count.bytes_served < 5 * MIB:
                await response.content.readany()
                in_flight.append(count.bytes_asked - count.bytes_served)
        response.close()
    sizes = [limit for _offset, limit in count.windows]
    assert sizes[0] == 128 * KIB
    assert max(sizes) <= 512 * KIB
    assert max(sizes[-5:]) <= 256 * KIB
    assert max(in_flight[len(in_flight) // 2 :]) <= 768 * KIB


async def test_a_film_is_spread_over_all_bots_and_none_waits_for_anothers_flood(
    stage: Stage, start_worker: StartClient
) -> None:
    """Each bot is asked (its flood wait strikes), and all of them come back for more."""
    world = stage.telegram.world
    bots = [stage.bot, world.add_bot(home_dc=2), world.add_bot(home_dc=2)]
    stage.channel.members.update(bot.id for bot in bots)
    viewer = await start_worker(bot_tokens=tuple(bot.token for bot in bots))
    post = stage.post_synthetic(24 * MIB)
    await viewer.head(stage.path(post))
    stage.telegram.trouble.round_trip_s = 0.03
    for bot in bots:
        for after in (0, 1):
            stage.telegram.trouble.flood_wait(1, account_id=bot.id, after=after)
    body = await (await viewer.get(stage.path(post))).read()
    assert body == SyntheticContent(24 * MIB, seed=7).read(0, 24 * MIB)
    assert stage.telegram.trouble.faults == []


async def test_a_blind_bot_is_named_in_health_and_skipped(
    stage: Stage, start_worker: StartClient
) -> None:
    blind = stage.telegram.world.add_bot(home_dc=2)
    viewer = await start_worker(bot_tokens=(blind.token, stage.bot.token))
    post = stage.post_synthetic(12 * MIB)
    assert len(await (await viewer.get(stage.path(post))).read()) == 12 * MIB
    states = (await (await viewer.get("/health")).json())["telegram"]
    assert {state["bot"]: state["blind_to"] for state in states} == {
        blind.id: [stage.channel.chat_id],
        stage.bot.id: [],
    }
