"""How long a viewer waits for the first byte, in round trips to Telegram."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import cycle

from .figures import MIB, Findings, Promise, Spread, Table
from .stage import Film, Line, Setup, Stage, Worker, open_stage
from .viewers import Viewer

LINES = tuple(Line(ms / 1000) for ms in (0, 20, 80, 200))
THIN_LINE = Line(0.08, 5e6)
"""One that a film at full speed fills, so that a seek finds it full."""

FILM_BYTES = 2_000_000_000
STRIDE_BYTES = 16 * MIB
"""Between two places of a film that are asked for: more than is read or read ahead at either."""
RUN_BYTES, RUN_S = 8 * MIB, 1.0
"""So much of a film, or for so long, has run when the viewer seeks: all windows are open then."""
CACHED_BYTES = 64 << 10
SETTLE_S = 0.1

KINDS = ("cold", "warm", "seek", "cached")
ROUND_TRIPS = {"cold": 2, "warm": 1, "seek": 1}

Waits = dict[str, list[float]]
"""Seconds until the first byte, run by run, for each of KINDS."""


def measure(setup: Setup) -> Findings:
    lines = (*LINES, THIN_LINE)
    cold_films = len(lines) * setup.repeat
    with open_stage(setup, [FILM_BYTES] * (1 + len(lines) + cold_films)) as stage:
        with stage.worker() as worker:
            ours = _waits_by_line(stage, worker, lines, setup.repeat)
        with stage.baseline() as worker:
            theirs = _waits_by_line(stage, worker, lines, setup.repeat)
    return Findings(
        [_table(ours, theirs)],
        [
            _promise("first byte of a known file, warm connection", ours, "warm", allowed_ms=15),
            _promise("first byte of a file never seen", ours, "cold", allowed_ms=25),
            _promise("first byte after a seek", ours, "seek", allowed_ms=20),
        ],
        {"worker": _by_name(ours), "baseline": _by_name(theirs)},
    )


def _waits_by_line(
    stage: Stage, worker: Worker, lines: tuple[Line, ...], repeat: int
) -> dict[Line, Waits]:
    films = iter(stage.telegram.films)
    # Opens the connections to the data centre of the films: it is a file that is never seen, not
    # the first file of all.
    with Viewer(worker, next(films)) as viewer:
        viewer.ask(0, MIB)
    known = {line: next(films) for line in lines}
    return {line: _waits(stage, worker, line, known[line], films, repeat) for line in lines}


def _waits(
    stage: Stage, worker: Worker, line: Line, known: Film, films: Iterator[Film], repeat: int
) -> Waits:
    stage.telegram.set_line(line)
    places = _places_never_fetched()
    with Viewer(worker, known) as viewer:
        viewer.ask(0, MIB)
    waits: Waits = {kind: [] for kind in KINDS}
    for _ in range(repeat):
        with Viewer(worker, next(films)) as viewer:
            waits["cold"].append(viewer.ask())
        _settle(line)
        with Viewer(worker, known) as viewer:
            waits["warm"].append(viewer.ask(next(places)))
        _settle(line)
        with Viewer(worker, known) as viewer:
            viewer.ask(next(places))
            viewer.read(RUN_BYTES, within_s=RUN_S)
            waits["seek"].append(viewer.seek(next(places)))
        _settle(line)
        with Viewer(worker, known) as viewer:
            place = next(places)
            viewer.ask(place, place + CACHED_BYTES)
            viewer.read_to_end()
            waits["cached"].append(viewer.ask(place, place + CACHED_BYTES))
    return waits


def _places_never_fetched() -> Iterator[int]:
    """Places of a film, none near another or near the start, aligned to nothing."""
    dice = random.Random(1)
    starts = list(range(STRIDE_BYTES, FILM_BYTES - STRIDE_BYTES, STRIDE_BYTES))
    dice.shuffle(starts)
    return (start + dice.randrange(MIB) for start in cycle(starts))


def _settle(line: Line) -> None:
    """Let what is still on its way for a viewer who left arrive."""
    in_flight_s = 2 * MIB / line.bytes_per_second if line.bytes_per_second else 0.0
    time.sleep(line.round_trip_s + in_flight_s + SETTLE_S)


# -- what it says --------------------------------------------------------------------------------


def _promise(what: str, waits: dict[Line, Waits], kind: str, allowed_ms: int) -> Promise:
    """Judged by the line on which the wait beyond the round trips is longest."""
    trips = ROUND_TRIPS[kind]
    beyond_ms = {
        line: [(wait_s - trips * line.round_trip_s) * 1000 for wait_s in waits[line][kind]]
        for line in LINES
    }
    worst = max(beyond_ms.values(), key=lambda runs: Spread.of(runs).median)
    measure = f"{trips} round trip{'s' * (trips > 1)} + {{}} ms"
    return Promise(what, measure, worst, at_most=allowed_ms)


def _table(ours: dict[Line, Waits], theirs: dict[Line, Waits]) -> Table:
    rows = [
        [str(line), who, *(_cell(waits[line][kind], line) for kind in KINDS)]
        for line in ours
        for who, waits in (("worker", ours), ("baseline", theirs))
    ]
    return Table(
        "First byte",
        "Milliseconds from connecting to the first byte of the body; in brackets the fastest and"
        " the slowest run, then the same in round trips. Cold: a file never asked for, over"
        " connections that other files have opened. Warm: a known file at a place never fetched."
        " Seek: a film that runs at full speed is hung up on after 8 MiB and another place asked"
        " for at once. Cached: 64 KiB that were just read. On a line of 5 MB/s a chunk of"
        " 128 KiB alone takes 26 ms, and what was asked for before the seek is still on its way.",
        ["round trip", "", *KINDS],
        rows,
    )


def _cell(waits_s: list[float], line: Line) -> str:
    spread = Spread.of(wait_s * 1000 for wait_s in waits_s)
    if not line.round_trip_s:
        return spread.show()
    return f"{spread.show(0)} = {spread.median / 1000 / line.round_trip_s:.2f} RT"


def _by_name(waits: dict[Line, Waits]) -> dict[str, Waits]:
    return {str(line): kinds for line, kinds in waits.items()}
