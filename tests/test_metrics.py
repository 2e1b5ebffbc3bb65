"""GET /metrics: read by Prometheus' own parser, and true."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import worker
from aiohttp.test_utils import TestClient
from conftest import Stage, StartClient
from prometheus_client.parser import text_string_to_metric_families

from telegram_simulator.content import SyntheticContent

MIB = 1 << 20
SIZE = 3 * MIB

Viewer = TestClient[Any, Any]


async def scraped(viewer: Viewer) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus writes them."""
    response = await viewer.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for family in text_string_to_metric_families(await response.text()):
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def test_every_name_keeps_to_the_conventions(viewer: Viewer) -> None:
    """One prefix, base units, `_total` for what grows (prometheus.io/docs/practices/naming)."""
    text = await (await viewer.get("/metrics")).text()
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("rangegram_")
        assert not family.name.endswith(("_ms", "_kb", "_mb", "_count"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


async def test_a_film_played_twice_counts_once_at_telegram(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    for _ in range(2):
        assert len(await (await viewer.get(stage.path(post))).read()) == SIZE
    assert (await viewer.get("/stream/-1001/1")).status == 401
    samples = await scraped(viewer)
    assert samples["rangegram_sent_bytes_total"] == 2 * SIZE
    assert samples["rangegram_fetched_bytes_total"] == SIZE
    assert samples["rangegram_cache_hit_bytes_total"] == SIZE
    assert samples["rangegram_cache_hits_total"] == samples["rangegram_cache_misses_total"] > 0
    assert samples["rangegram_cache_bytes"] == SIZE
    assert samples["rangegram_viewers"] == samples["rangegram_window_bytes"] == 0
    assert samples['rangegram_http_requests_total{status="200"}'] == 2
    assert samples['rangegram_http_requests_total{status="401"}'] == 1
    line = f'bot="{stage.bot.id}",dc="4"'
    assert samples[f"rangegram_in_flight_bytes{{{line}}}"] == 0
    assert MIB <= samples[f"rangegram_in_flight_limit_bytes{{{line}}}"] <= 4 * MIB
    assert samples['rangegram_chunks_waiting{dc="4"}'] == 0


async def test_the_first_byte_is_timed_from_the_request(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    await viewer.head(stage.path(post))
    stage.telegram.trouble.round_trip_s = 0.15
    await (await viewer.get(stage.path(post), headers={"Range": "bytes=0-1"})).read()
    await (await viewer.get(stage.path(post), headers={"Range": "bytes=0-1"})).read()
    samples = await scraped(viewer)
    assert samples["rangegram_first_byte_seconds_count"] == 2
    assert samples["rangegram_first_byte_seconds_sum"] >= 0.15
    assert samples['rangegram_first_byte_seconds_bucket{le="0.1"}'] <= 1
    assert samples['rangegram_first_byte_seconds_bucket{le="+Inf"}'] == 2
    bounds = [str(bound) for bound in worker.FIRST_BYTE_BOUNDS_S]
    buckets = [samples[f'rangegram_first_byte_seconds_bucket{{le="{each}"}}'] for each in bounds]
    assert buckets == sorted(buckets)


async def test_floods_and_failures_are_counted_by_bot(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    await viewer.head(stage.path(post))
    stage.telegram.trouble.flood_wait(1)
    await (await viewer.get(stage.path(post))).read()
    samples = await scraped(viewer)
    assert samples[f'rangegram_flood_waits_total{{bot="{stage.bot.id}"}}'] == 1
    assert samples[f'rangegram_flood_wait_seconds_total{{bot="{stage.bot.id}"}}'] == 1
    assert samples[f'rangegram_chunk_failures_total{{bot="{stage.bot.id}",dc="4"}}'] == 1


async def test_what_is_being_played_shows_while_it_plays(
    stage: Stage, start_worker: StartClient
) -> None:
    viewer = await start_worker()
    post = stage.post_synthetic(1 << 30)
    async with viewer.get(stage.path(post)) as response:
        await response.content.read(MIB)
        samples = await scraped(viewer)
        assert samples["rangegram_viewers"] == 1
        assert samples["rangegram_window_bytes"] > 0
        assert samples["rangegram_sent_bytes_total"] > 0
        response.close()


@pytest.mark.parametrize("budget_mb", [4])
async def test_a_stalled_viewer_makes_room_when_memory_is_short(
    stage: Stage, start_worker: StartClient, budget_mb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two paused films fill a small budget; the third viewer gets it, and they resume exactly."""
    monkeypatch.setattr(worker, "STALL_S", 0.2)
    viewer = await start_worker(memory_budget_mb=budget_mb)
    posts = [stage.post_synthetic(64 * MIB) for _ in range(2)]
    paused = [await viewer.get(stage.path(post)) for post in posts]
    begun = [await each.content.readexactly(1000) for each in paused]
    async with asyncio.timeout(20):
        while (samples := await scraped(viewer))["rangegram_resting_viewers"] < 1:
            await asyncio.sleep(0.05)
    assert samples["rangegram_viewers"] == 2
    assert samples["rangegram_window_bytes"] <= budget_mb * MIB // 2
    bodies = [start + await each.read() for start, each in zip(begun, paused, strict=True)]
    assert bodies[0] == bodies[1] == SyntheticContent(64 * MIB, 7).read(0, 64 * MIB)
    assert (await scraped(viewer))["rangegram_resting_viewers"] == 0
