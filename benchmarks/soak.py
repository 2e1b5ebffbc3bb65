"""Does it last? Many viewers who seek, stall and hang up for minutes on end, then strangers.

    python -m benchmarks.soak        # 200 viewers: 8 minutes, 10 that count, then the strangers
    python -m benchmarks.soak --minutes 2 --warm-up-minutes 1

Goal: nothing leaks and nothing breaks. Method: the worker runs as a process against the pocket
Telegram with four bots; every viewer opens a film somewhere, reads at a pace of its own, pauses,
seeks, and leaves politely or by a reset; every byte is compared with what the film has there. Every
few seconds something befalls Telegram that viewers must not notice. Resident memory is looked at
each second, from the start, and judged after the warm-up: it climbs in steps for as long as the
evening's most crowded moment has not come yet, because the allocator keeps what that needed, and
only a leak climbs on. When the viewers are gone, so must be everything that was made for them. At
last come ten thousand connections that say nothing and a thousand that never end their request,
while twenty viewers play on. Exit code 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from telegram_simulator.content import SLOT_BYTES, SyntheticContent

from . import report
from .conditions import describe, noise_ms
from .figures import MB, MIB, Promise, Table
from .stage import REPOSITORY, Cores, Film, Line, Setup, Stage, Worker, open_stage, pin
from .streaming import RESULTS, existing_file, positive
from .viewers import HEAD_END, Refused, body_length, request_for, reset

LINE = Line(0.03, 3e6)
BOTS = 4
FILMS = 40
FILM_BYTES = 2_000_000_000
TROUBLE_EVERY_S = 12.0
TROUBLES: Sequence[dict[str, object]] = (
    {"kind": "error", "code": 420, "message": "FLOOD_WAIT_1"},
    {"kind": "cut_during"},
    {"kind": "error", "code": 500, "message": "INTERNAL", "times": 3},
    {"kind": "short", "times": 2},
    {"kind": "error", "code": -503, "message": "Timeout", "times": 2},
)
WARM_UP_MINUTES = 8.0
SLOPE_MAX_MB = 1.0
SILENT_STRANGERS, SLOW_STRANGERS, PLAYING_ON = 10_000, 1_000, 20
STRANGERS_S = 20.0
LEFT_AFTER_S = 15.0
READ_BYTES = 128 << 10


# -- viewers -------------------------------------------------------------------------------------


@dataclass
class Log:
    """What befell the viewers together."""

    verified_bytes: int = 0
    visits: int = 0
    seeks: int = 0
    stalls: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    breaks: int = 0
    wrong_bytes: int = 0
    longest_wait_s: float = 0.0


@lru_cache(maxsize=512)
def _slot(film: Film, number: int) -> bytes:
    assert film.seed is not None
    return SyntheticContent(film.size, film.seed).read(number * SLOT_BYTES, SLOT_BYTES)


def is_right(film: Film, position: int, piece: bytes) -> bool:
    """Whether these are the film's bytes from that position on."""
    while piece:
        start = position % SLOT_BYTES
        expected = _slot(film, position // SLOT_BYTES)[start : start + len(piece)]
        if piece[: len(expected)] != expected:
            return False
        position, piece = position + len(expected), piece[len(expected) :]
    return True


async def visit(worker: Worker, films: Sequence[Film], dice: random.Random, log: Log) -> None:
    """One evening of one viewer: films one after another, until called off."""
    while True:
        film = dice.choice(films)
        position = dice.choice((0, dice.randrange(film.size - 64 * MIB)))
        pace = dice.choice((200e3, 500e3, 1e6, 8e6))
        log.visits += 1
        for _ in range(dice.randrange(1, 6)):
            size = dice.randrange(64 << 10, 6 * MIB)
            await _watch(worker, film, position, size, pace, dice, log)
            position = dice.randrange(film.size - 64 * MIB)
            log.seeks += 1


async def _watch(
    worker: Worker,
    film: Film,
    start: int,
    size: int,
    pace: float,
    dice: random.Random,
    log: Log,
) -> None:
    """Ask for all from `start` on, read `size` bytes at some pace, and go."""
    reader, writer = await asyncio.open_connection(*worker.address, limit=READ_BYTES)
    try:
        asked_at = time.monotonic()
        writer.write(request_for(worker, film, start, None))
        head = await reader.readuntil(HEAD_END)
        _ = body_length(head)
        position, stop = start, min(film.size, start + size)
        while position < stop:
            piece = await reader.read(READ_BYTES)
            log.longest_wait_s = max(log.longest_wait_s, time.monotonic() - asked_at)
            if not piece:
                log.breaks += 1
                return
            log.wrong_bytes += not is_right(film, position, piece)
            position += len(piece)
            log.verified_bytes += len(piece)
            is_stall = dice.random() < 0.01
            log.stalls += is_stall
            await asyncio.sleep(dice.uniform(2, 15) if is_stall else len(piece) / pace)
            asked_at = time.monotonic()
        if dice.random() < 0.5:
            reset(writer.get_extra_info("socket"))
    except Refused as refusal:
        log.statuses[str(refusal)] += 1
        await asyncio.sleep(1)
    except (ConnectionError, asyncio.IncompleteReadError):
        log.breaks += 1
    finally:
        writer.close()


async def _evening(
    worker: Worker, films: Sequence[Film], viewers: int, seconds: float, log: Log
) -> None:
    dice = random.Random(7)
    tasks = [
        asyncio.create_task(visit(worker, films, random.Random(dice.random()), log))
        for _ in range(viewers)
    ]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError):
            raise AssertionError("a viewer stopped by itself") from outcome


# -- beside the viewers ----------------------------------------------------------------------------


async def _sample_rss(worker: Worker, samples: list[tuple[float, float]]) -> None:
    """Megabytes each second, with the second."""
    began_at = time.monotonic()
    while True:
        samples.append((time.monotonic() - began_at, worker.rss_bytes() / MB))
        await asyncio.sleep(1)


async def _make_trouble(stage: Stage) -> None:
    """Something every few seconds; nothing of it may be noticed."""
    for number in range(1 << 30):
        await asyncio.sleep(TROUBLE_EVERY_S)
        planned = TROUBLES[number % len(TROUBLES)] | {"method": "upload.getFile"}
        await asyncio.to_thread(stage.telegram.make_trouble, {"faults": [planned]})
        if number % 5 == 2:
            await asyncio.to_thread(stage.telegram.expire_references)
        if number % 5 == 4:
            await asyncio.to_thread(stage.telegram.drop_connections)


async def _silent(worker: Worker, said: bytes) -> asyncio.StreamWriter | None:
    try:
        _, writer = await asyncio.open_connection(*worker.address)
    except OSError:
        return None
    writer.write(said)
    return writer


async def _strangers(worker: Worker) -> list[asyncio.StreamWriter]:
    """Connections that say nothing, and some that begin a request and leave it at that."""
    open_files = SILENT_STRANGERS + SLOW_STRANGERS + 1000
    _, ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(open_files, ceiling), ceiling))
    begun = b"GET /health HTTP/1.1\r\nHost: worker\r\nX-Slow: "
    kinds = [b""] * SILENT_STRANGERS + [begun] * SLOW_STRANGERS
    writers = [await _silent(worker, said) for said in kinds]
    return [writer for writer in writers if writer is not None]


# -- the two acts ----------------------------------------------------------------------------------


@dataclass
class Soaked:
    """What the run found out."""

    log: Log
    samples: list[tuple[float, float]]
    warm_up_s: float
    left: dict[str, float]
    strangers: Log
    strangers_rss_mb: float

    @property
    def warm_samples(self) -> list[tuple[float, float]]:
        return [sample for sample in self.samples if sample[0] >= self.warm_up_s]


def soak(setup: Setup, viewers: int, warm_up_s: float, seconds: float) -> Soaked:
    with open_stage(setup, [FILM_BYTES] * FILMS) as stage, stage.worker(BOTS) as worker:
        stage.telegram.set_line(LINE)
        films = stage.telegram.films
        _connect(worker, films)
        before = _footprint(worker)
        log, samples = Log(), list[tuple[float, float]]()
        whole_s = warm_up_s + seconds
        asyncio.run(_first_act(stage, worker, films, viewers, whole_s, log, samples))
        left = _left_behind(worker, before)
        strangers, rss_mb = asyncio.run(_second_act(worker, films))
        return Soaked(log, samples, warm_up_s, left, strangers, rss_mb)


def _connect(worker: Worker, films: Sequence[Film]) -> None:
    """Let all bots get their connections, which stay when the viewers go."""

    async def play() -> None:
        await _evening(worker, films, 40, 5.0, Log())

    asyncio.run(play())
    time.sleep(LEFT_AFTER_S / 3)


async def _first_act(
    stage: Stage,
    worker: Worker,
    films: Sequence[Film],
    viewers: int,
    seconds: float,
    log: Log,
    samples: list[tuple[float, float]],
) -> None:
    beside = [
        asyncio.create_task(_sample_rss(worker, samples)),
        asyncio.create_task(_make_trouble(stage)),
    ]
    await _evening(worker, films, viewers, seconds, log)
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    stage.telegram.make_trouble({"faults": []})


async def _second_act(worker: Worker, films: Sequence[Film]) -> tuple[Log, float]:
    log, samples = Log(), list[tuple[float, float]]()
    sampling = asyncio.create_task(_sample_rss(worker, samples))
    playing = asyncio.create_task(_evening(worker, films, PLAYING_ON, STRANGERS_S, log))
    writers = await _strangers(worker)
    await playing
    sampling.cancel()
    for writer in writers:
        writer.transport.abort()
    return log, max(rss_mb for _, rss_mb in samples)


def _footprint(worker: Worker) -> dict[str, float]:
    metrics = worker.metrics()
    return {
        "tasks": metrics["rangegram_tasks"],
        "open files": worker.open_files(),
        "viewers": metrics["rangegram_viewers"],
        "window bytes": metrics["rangegram_window_bytes"],
    }


def _left_behind(worker: Worker, before: dict[str, float]) -> dict[str, float]:
    """What there is more of than before the viewers came, a while after they went."""
    left: dict[str, float] = {}
    give_up_at = time.monotonic() + LEFT_AFTER_S
    while time.monotonic() < give_up_at:
        time.sleep(1)
        left = {name: value - before[name] for name, value in _footprint(worker).items()}
        if not any(value > 0 for value in left.values()):
            break
    return left


def slope_mb_per_10_min(samples: Sequence[tuple[float, float]]) -> float:
    """How fast memory grows, by the line that fits best."""
    seconds, megabytes = zip(*samples, strict=True)
    slope, _ = statistics.linear_regression(seconds, megabytes)
    return slope * 600


# -- what it says ----------------------------------------------------------------------------------


def promises(soaked: Soaked) -> list[Promise]:
    log, strangers = soaked.log, soaked.strangers
    errors = log.statuses.total() + log.breaks + strangers.statuses.total() + strangers.breaks
    grown = max(*soaked.left.values(), 0.0)
    return [
        Promise(
            "wrong bytes", "{}", [log.wrong_bytes + strangers.wrong_bytes], at_most=0, digits=0
        ),
        Promise("errors and broken answers that viewers saw", "{}", [errors], at_most=0, digits=0),
        Promise(
            "growth of resident memory after the warm-up",
            "{} MB in 10 min",
            [slope_mb_per_10_min(soaked.warm_samples)],
            at_most=SLOPE_MAX_MB,
            digits=2,
        ),
        Promise(
            "tasks, sockets, windows left when all are gone", "{}", [grown], at_most=0, digits=0
        ),
        Promise("RSS with 11,000 strangers", "{} MB", [soaked.strangers_rss_mb], at_most=200),
    ]


def tables(soaked: Soaked, viewers: int) -> list[Table]:
    log = soaked.log
    warm = [mb for _, mb in soaked.warm_samples]
    whole_s, warm_up_s = soaked.samples[-1][0], soaked.warm_up_s
    rows = [
        [
            "viewers at once, minutes, of these warm-up",
            f"{viewers}, {whole_s / 60:.1f}, {warm_up_s / 60:.1f}",
        ],
        ["bytes verified", f"{log.verified_bytes / 1e9:.2f} GB"],
        ["films opened, seeks, stalls", f"{log.visits}, {log.seeks}, {log.stalls}"],
        ["longest wait for a piece", f"{log.longest_wait_s:.1f} s"],
        ["statuses", ", ".join(f"{k}: {n}" for k, n in log.statuses.items()) or "none"],
        ["answers that broke off", str(log.breaks)],
        ["RSS after warm-up, least to most", f"{min(warm):.0f} to {max(warm):.0f} MB"],
        ["left when all were gone", ", ".join(f"{k} {v:+.0f}" for k, v in soaked.left.items())],
        [
            f"with strangers: {PLAYING_ON} viewers, bytes verified",
            f"{soaked.strangers.verified_bytes / 1e6:.0f} MB",
        ],
    ]
    note = (
        f"{BOTS} bots, {LINE} for each; every {TROUBLE_EVERY_S:g} s a flood of 1 s, a cut, errors,"
        " short answers, expired references or lost connections."
    )
    return [Table("What happened", note, ["", ""], rows)]


def main() -> int:
    options = arguments().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    setup = Setup(options.worker, options.worker_python, 1, Cores.divided())
    pin(0, setup.cores.others)
    noise = [noise_ms(setup)]
    soaked = soak(setup, options.viewers, options.warm_up_minutes * 60, options.minutes * 60)
    noise.append(noise_ms(setup))
    kept = promises(soaked)
    shown = [
        Table(
            "Promises", "", ["promise", "limit", "figure", "runs", "met"], [p.row() for p in kept]
        ),
        report.conditions_table(describe(setup, noise)),
        *tables(soaked, options.viewers),
    ]
    text = "\n".join(report.show(table) for table in shown)
    print(text)
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        samples = [[round(second), round(mb, 1)] for second, mb in soaked.samples]
        (options.results / "soak.json").write_text(json.dumps({"rss_mb_by_second": samples}))
        (options.results / "soak.md").write_text(
            f"# Ten minutes of many viewers\n\nWritten by `make soak`.\n\n{text}"
        )
    return 0 if all(promise.is_met for promise in kept) else 1


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description="Many viewers for minutes on end."
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="that count, after the warm-up")
    add("--warm-up-minutes", type=float, default=WARM_UP_MINUTES)
    add("--viewers", type=positive, default=200)
    add("--worker", type=existing_file, default=REPOSITORY / "render-service-chunked.py")
    add("--worker-python", type=existing_file, default=Path(sys.executable))
    add("--results", type=Path, default=None, metavar="FOLDER", help=f"such as {RESULTS.name}")
    return parser


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(128 + signal.SIGINT)
