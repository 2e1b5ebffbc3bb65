"""How many bytes Telegram is asked for, against how many a viewer gets."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from .figures import MB, MIB, Findings, Promise, Spread, Table
from .stage import Film, Line, Setup, Stage, Worker, open_stage
from .viewers import Audience, Viewer, watch_together

LINE = Line(0.02)
THIN_LINE = Line(0.02, 5e6)
SETTLE_S = 0.3
"""Until what is on the way when a viewer leaves was served, and hence counted."""

PLAYED_BYTES = 100_000_001
FILM_BYTES = 2_000_000_000

SEEKS = 100
TAB_OPEN_S = 2.0
TAB_BYTES_PER_SECOND = 1e6
TAB_BUFFER_BYTES = 128 << 10
"""The socket buffer of the viewer who reads slowly, so that the kernel hoards little for it."""
HEAD_BYTES, INDEX_BYTES = 64 << 10, 500_000
CROWD = 50
CROWD_BYTES = 16 * MIB
CROWD_PATIENCE_S = 60.0


def measure(setup: Setup) -> Findings:
    sizes = [habit.film_bytes for habit in HABITS for _ in range(setup.repeat)]
    counts: dict[Habit, list[Count]] = {}
    with open_stage(setup, [FILM_BYTES, *sizes]) as stage, stage.worker() as worker:
        first, *films = stage.telegram.films
        probe(worker, first)
        unseen = iter(films)
        for habit in HABITS:
            stage.telegram.set_line(habit.line)
            counts[habit] = [
                _count(stage, worker, habit, next(unseen)) for _ in range(setup.repeat)
            ]
    played = [count.ratio for count in counts[PLAY]]
    together = [
        crowd.fetched / one.fetched
        for crowd, one in zip(counts[IN_STEP], counts[ALONE], strict=True)
    ]
    return Findings(
        [_table(counts)],
        [
            Promise(
                "bytes fetched / bytes delivered, film played through",
                "{}",
                played,
                at_most=1.02,
                digits=3,
            ),
            Promise(
                f"{CROWD} viewers of the same film at the same place",
                "{} times one viewer's fetches",
                together,
                at_most=1.02,
                digits=3,
            ),
        ],
        {
            habit.name: [[count.fetched, count.delivered] for count in runs]
            for habit, runs in counts.items()
        },
    )


# -- ways to watch; each returns how many bytes the viewers got ----------------------------------


def play_through(worker: Worker, film: Film) -> int:
    with Viewer(worker, film) as viewer:
        viewer.ask()
        viewer.read_to_end()
    return viewer.delivered_bytes


def probe(worker: Worker, film: Film) -> int:
    """What Safari does first."""
    with Viewer(worker, film) as viewer:
        viewer.ask(0, 2)
    return viewer.delivered_bytes


def seek_around(worker: Worker, film: Film) -> int:
    """Each seek asks for all the rest, as players do, and hangs up when it has read enough."""
    dice = random.Random(1)
    with Viewer(worker, film) as viewer:
        for _ in range(SEEKS):
            viewer.seek(dice.randrange(film.size - 2 * MIB))
            viewer.read(dice.randrange(MIB // 2, 3 * MIB // 2))
    return viewer.delivered_bytes


def close_the_tab(worker: Worker, film: Film) -> int:
    with Viewer(worker, film, receive_buffer_bytes=TAB_BUFFER_BYTES) as viewer:
        viewer.ask()
        viewer.read_slowly(TAB_BYTES_PER_SECOND, TAB_OPEN_S)
    return viewer.delivered_bytes


def play_with_index_last(worker: Worker, film: Film) -> int:
    """What browsers do with an MP4 whose index is behind its pictures."""
    with Viewer(worker, film) as viewer:
        viewer.ask()
        viewer.read(HEAD_BYTES)
        viewer.seek(film.size - INDEX_BYTES)
        viewer.read_to_end()
        viewer.seek(0)
        viewer.read_to_end()
    return viewer.delivered_bytes


def watch_alone(worker: Worker, film: Film) -> int:
    with Viewer(worker, film) as viewer:
        viewer.ask(0, CROWD_BYTES)
        viewer.read_to_end()
    return viewer.delivered_bytes


def watch_in_step(worker: Worker, film: Film) -> int:
    audience = Audience([film] * CROWD, stop=CROWD_BYTES)
    crowd = asyncio.run(watch_together(worker, audience, CROWD_PATIENCE_S))
    assert crowd.delivered_bytes == CROWD * CROWD_BYTES, f"{crowd.failed} viewers failed"
    return crowd.delivered_bytes


@dataclass(frozen=True)
class Habit:
    """A way to watch, the line and the film that it is tried on."""

    name: str
    watch: Callable[[Worker, Film], int]
    line: Line = LINE
    film_bytes: int = FILM_BYTES


PLAY = Habit("played through", play_through, film_bytes=PLAYED_BYTES)
ALONE = Habit("16 MiB, one viewer", watch_alone)
IN_STEP = Habit(f"the same, {CROWD} viewers at once", watch_in_step)
HABITS = (
    PLAY,
    Habit("probe of 2 bytes", probe),
    Habit(f"{SEEKS} random seeks, about 1 MiB each", seek_around),
    Habit("tab closed after 2 s, read at 1 MB/s", close_the_tab, THIN_LINE),
    Habit("index at the end: head, tail, all", play_with_index_last, film_bytes=PLAYED_BYTES),
    ALONE,
    IN_STEP,
)


# -- what it says --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """Bytes that Telegram sent and bytes that viewers got."""

    fetched: int
    delivered: int

    @property
    def ratio(self) -> float:
        return self.fetched / self.delivered

    @property
    def beyond(self) -> int:
        return self.fetched - self.delivered


def _count(stage: Stage, worker: Worker, habit: Habit, film: Film) -> Count:
    stage.telegram.reset_counters()
    delivered = habit.watch(worker, film)
    time.sleep(SETTLE_S)
    return Count(stage.telegram.fetched_bytes(film), delivered)


def _table(counts: dict[Habit, list[Count]]) -> Table:
    rows = []
    for habit, runs in counts.items():
        ratio = Spread.of(count.ratio for count in runs)
        beyond = Spread.of(count.beyond / MB for count in runs)
        rows.append(
            [
                habit.name,
                str(habit.line),
                Spread.of(count.fetched / MB for count in runs).show(2),
                Spread.of(count.delivered / MB for count in runs).show(2),
                ratio.show(3) if ratio.median < 1000 else "-",
                beyond.show(2) if beyond.median >= 0 else "-",
            ]
        )
    return Table(
        "Bytes fetched",
        "MB that Telegram served and MB that viewers read. The viewer of the closed tab has a"
        f" socket buffer of {TAB_BUFFER_BYTES >> 10} KiB; what the worker's side of the connection"
        " holds is fetched and not read.",
        ["", "round trip", "fetched", "delivered", "ratio", "beyond"],
        rows,
    )
