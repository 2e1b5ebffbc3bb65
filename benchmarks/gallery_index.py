"""How long the gallery's index takes with 10,000 posts: a page, a search as one types, a walk.

    python benchmarks/gallery_index.py

Goal: first page under 100 ms, search under 50 ms. Method: a file on this machine's disk, 10,000
made-up films in two channels, each question asked 200 times as the backend asks it, through its
thread; median and 95th percentile, and how much the machine itself wavers (the same for an empty
question), so that a busy machine is not taken for a slow index.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gallery.database import Database
from gallery.files import MediaFile
from gallery.index import SCHEMA, Index, Query

POSTS = 10_000
RUNS = 200
CHANNELS = (-1001000000001, -1001000000002)
WORDS = (
    "night river amélie garden metropolis summer winter train harbour lighthouse violin desert"
    " mountain letter window orchard silence thunder island market bridge crystal ember horizon"
)
KINDS = (("video/mp4", "mp4"), ("image/jpeg", "jpg"), ("audio/mpeg", "mp3"), ("x/pdf", "pdf"))
QUESTIONS = {
    "first page, newest": Query(),
    "first page, by name": Query(sort="name"),
    "first page, longest, one kind, one channel": Query(
        kind="video", chat_id=CHANNELS[0], sort="longest"
    ),
    "search, one letter": Query("m"),
    "search, a word half typed": Query("metrop"),
    "search, two words, by name": Query("amelie gard", sort="name"),
    "search, nothing found": Query("zzz"),
}


def made_up_file(number: int, dice: random.Random) -> MediaFile:
    mime_type, suffix = dice.choices(KINDS, (6, 3, 1, 1))[0]
    title = " ".join(dice.choices(WORDS.split(), k=3))
    return MediaFile(
        chat_id=CHANNELS[number % 2],
        message_id=1 + number // 2,
        name=f"{title} {number}.{suffix}",
        mime_type=mime_type,
        size=dice.randrange(1 << 32),
        date=1_600_000_000 + number * 600,
        duration=dice.uniform(10, 9000) if mime_type[0] in "va" else None,
        width=1280,
        height=720,
        caption=" ".join(dice.choices(WORDS.split(), k=12)),
        has_thumbnail=True,
    )


async def fill(index: Index, files: list[MediaFile]) -> float:
    """Record them as the worker lists them, a hundred at a time; the seconds that took."""
    started = time.perf_counter()
    for chat_id in CHANNELS:
        mine = [file for file in files if file.chat_id == chat_id]
        for first in range(0, len(mine), 100):
            page = mine[first : first + 100]
            after, through = page[0].message_id - 1, page[-1].message_id
            await index.record(chat_id, after, through, page, time.time())
    return time.perf_counter() - started


async def timed(question: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each run, the fastest first."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        await question()
        times.append((time.perf_counter() - started) * 1000)
    return sorted(times)


def show(name: str, times: list[float]) -> None:
    median, p95 = statistics.median(times), times[int(len(times) * 0.95)]
    print(f"{name:45} {median:8.2f} {p95:8.2f}")


async def main() -> None:
    dice = random.Random(1)
    files = [made_up_file(number, dice) for number in range(POSTS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.sqlite")
        index = Index(Database(str(path), SCHEMA), CHANNELS)
        await index.open()
        first_s, again_s = await fill(index, files), await fill(index, files)
        print(f"{POSTS} posts: filled in {first_s:.2f} s, walked again in {again_s:.2f} s")
        size_bytes = (await asyncio.to_thread(path.stat)).st_size
        print(f"{size_bytes / (1 << 20):.1f} MiB on disk\n")
        print(f"{'':45} {'median':>8} {'p95':>8}   ms, {RUNS} runs")
        show("(the machine: an empty question)", await timed(partial(index.find, 0, 0)))
        for name, query in QUESTIONS.items():
            show(name, await timed(partial(index.page, query)))
        cursor = None
        for _ in range(100):
            cursor = (await index.page(Query(cursor=cursor))).next
        show("page 101", await timed(partial(index.page, Query(cursor=cursor))))
        await index.close()


if __name__ == "__main__":
    asyncio.run(main())
