"""How fast one film comes: at a distance, over a thin line, and with several bots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from .figures import MB, MIB, Findings, Promise, Spread, Table
from .stage import Film, Line, Setup, Stage, Worker, open_stage
from .viewers import Viewer

ROUND_TRIPS_S = (0.0, 0.02, 0.08, 0.2)
THIN_BYTES_PER_SECOND = 5e6
LINES = tuple(
    Line(round_trip_s, rate)
    for rate in (None, THIN_BYTES_PER_SECOND)
    for round_trip_s in ROUND_TRIPS_S
)
JUDGED_LINE = Line(0.08)
BOTS_LINE = Line(0.08, THIN_BYTES_PER_SECOND)
BOTS = (1, 2, 3, 4)

FILM_BYTES = 4_000_000_000
WARM_UP_S, WARM_UP_ROUND_TRIPS = 0.3, 6
"""Before the rate is taken: until the windows are as wide as they get."""
MEASURED_S = 1.2
BOTS_WARM_UP_S, BOTS_MEASURED_S = 1.2, 1.5

Rates = dict[Line, list[float]]
"""Bytes per second, run by run."""


# -- one viewer, near and far --------------------------------------------------------------------


def measure(setup: Setup) -> Findings:
    films = 1 + len(LINES) * setup.repeat
    with open_stage(setup, [FILM_BYTES] * films) as stage, ExitStack() as workers:
        worker = workers.enter_context(stage.worker())
        baseline = workers.enter_context(stage.baseline())
        ours, theirs = _rates(stage, (worker, baseline), setup.repeat)
    times = [
        our_rate / their_rate
        for our_rate, their_rate in zip(ours[JUDGED_LINE], theirs[JUDGED_LINE], strict=True)
    ]
    what = "one viewer at 80 ms round trip, no bandwidth cap"
    return Findings(
        [_table(ours, theirs)],
        [Promise(what, "{} times the sequential baseline", times, at_least=6)],
        {"worker": _by_name(ours), "baseline": _by_name(theirs)},
    )


def _rates(stage: Stage, workers: tuple[Worker, ...], repeat: int) -> tuple[Rates, ...]:
    """Of each worker, in turns: what the machine does meanwhile falls on all of them."""
    first, *films = stage.telegram.films
    for worker in workers:
        _play_a_little(worker, first)
    unseen = iter(films)
    rates: tuple[Rates, ...] = tuple({line: [] for line in LINES} for _ in workers)
    for line in LINES:
        stage.telegram.set_line(line)
        warm_up_s = WARM_UP_S + WARM_UP_ROUND_TRIPS * line.round_trip_s
        for _ in range(repeat):
            film = next(unseen)
            for worker, rate in zip(workers, rates, strict=True):
                with Viewer(worker, film) as viewer:
                    viewer.ask()
                    rate[line].append(viewer.rate(warm_up_s, MEASURED_S))
    return rates


def _play_a_little(worker: Worker, film: Film) -> None:
    """Opens its connections to the data centre of the films."""
    with Viewer(worker, film) as viewer:
        viewer.ask(0, MIB)
        viewer.read_to_end()


def _table(ours: Rates, theirs: Rates) -> Table:
    rows = []
    for line in LINES:
        worker, baseline = Spread.of(ours[line]), Spread.of(theirs[line])
        rows.append(
            [
                str(line),
                _megabytes(worker),
                _megabytes(baseline),
                f"{worker.median / baseline.median:.1f}",
            ]
        )
    return Table(
        "Throughput of one viewer",
        "MB/s of a film that runs, after its start; 5 MB/s is the rate of one connection to"
        " Telegram. Without a cap and without a round trip the simulator is the slower end.",
        ["round trip", "worker", "baseline", "times"],
        rows,
    )


def _megabytes(rate: Spread) -> str:
    return Spread(rate.median / MB, rate.low / MB, rate.high / MB).show()


def _by_name(rates: Rates) -> dict[str, list[float]]:
    return {str(line): runs for line, runs in rates.items()}


# -- several bots --------------------------------------------------------------------------------


def measure_bots(setup: Setup) -> Findings:
    """What each further bot adds: its own connection, hence its own 5 MB/s."""
    shares: dict[int, list[float]] = {}
    with open_stage(setup, [FILM_BYTES] * (1 + setup.repeat)) as stage:
        first, *films = stage.telegram.films
        for bots in BOTS:
            stage.telegram.set_line(Line())
            with stage.worker(bots) as worker:
                _play_a_little(worker, first)
                stage.telegram.set_line(BOTS_LINE)
                whole = bots * THIN_BYTES_PER_SECOND
                shares[bots] = [rate / whole for rate in _bots_rates(worker, iter(films))]
    worst = min(shares.values(), key=lambda runs: Spread.of(runs).median)
    rows = [
        [str(bots), Spread.of(share * bots * 5 for share in runs).show(), Spread.of(runs).show(2)]
        for bots, runs in shares.items()
    ]
    note = f"One viewer, {BOTS_LINE} for each connection, each bot with one of its own."
    return Findings(
        [Table("Several bots", note, ["bots", "MB/s", "share of bots x 5 MB/s"], rows)],
        [
            Promise(
                "one viewer with 1 to 4 bots at 5 MB/s per connection",
                "{} times bots x 5 MB/s",
                worst,
                at_least=0.9,
                digits=2,
            )
        ],
        {"share": {str(bots): runs for bots, runs in shares.items()}},
    )


def _bots_rates(worker: Worker, films: Iterator[Film]) -> Iterator[float]:
    for film in films:
        with Viewer(worker, film) as viewer:
            viewer.ask()
            yield viewer.rate(BOTS_WARM_UP_S, BOTS_MEASURED_S)
