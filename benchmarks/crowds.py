"""Many viewers at once: of one film, of many films, and half of them asleep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .figures import MB, MIB, Findings, Promise, Table, percentile
from .stage import Film, Line, PeakRss, Setup, Stage, open_stage
from .viewers import Audience, Experience, Viewer, watch_together

LINE = Line(0.02)
SIZES = (1, 10, 50, 200)
SECONDS = 6.0
FILM_BYTES = 2_000_000_000
RSS_MAX_MB = 200

Gather = Callable[[Sequence[Film], int], Audience]
"""Makes an audience of so many viewers, who may watch these films."""


@dataclass(frozen=True)
class Kind:
    """A kind of crowd; a single viewer is a crowd only of the first kind that has one."""

    name: str
    gather: Gather
    least: int = 1


KINDS = (
    Kind("same film", lambda films, size: Audience([films[0]] * size)),
    Kind("different films", lambda films, size: Audience(films[:size])),
    Kind(
        "different films, half stalled",
        lambda films, size: Audience(films[:size], stalled=range(0, size, 2)),
        least=2,
    ),
)


@dataclass(frozen=True)
class Visit:
    """What a crowd saw, and what it cost."""

    kind: str
    size: int
    seen: Experience
    rss_mb: float
    fetched_bytes: int
    cpu_share: float

    @property
    def figures(self) -> dict[str, float]:
        """All of it as plain numbers, in MB, MB/s and milliseconds."""
        first_ms = [wait_s * 1000 for wait_s in self.seen.first_byte_s]
        gaps_ms = [gap_s * 1000 for gap_s in self.seen.gaps_s]
        return {
            "rss_mb": self.rss_mb,
            "cpu_share": self.cpu_share,
            "mb_per_second": self.seen.delivered_bytes / self.seen.seconds / MB,
            "fetched_mb": self.fetched_bytes / MB,
            "delivered_mb": self.seen.delivered_bytes / MB,
            "furthest_mb": self.seen.furthest_bytes / MB,
            "first_byte_p50_ms": percentile(first_ms, 0.5),
            "first_byte_p99_ms": percentile(first_ms, 0.99),
            "gap_p50_ms": percentile(gaps_ms, 0.5),
            "gap_p99_ms": percentile(gaps_ms, 0.99),
            "failed": self.seen.failed,
        }


def measure(setup: Setup) -> Findings:
    with open_stage(setup, [FILM_BYTES] * (1 + max(SIZES))) as stage:
        stage.telegram.set_line(LINE)
        visits = [
            _visit(stage, kind, size) for kind in KINDS for size in SIZES if size >= kind.least
        ]
    largest = visits[-1]
    return Findings(
        [_table(visits)],
        [
            Promise(
                f"RSS, {largest.size} viewers, half of them stalled",
                "{} MB",
                [largest.rss_mb],
                at_most=RSS_MAX_MB,
            )
        ],
        {
            kind.name: {str(v.size): v.figures for v in visits if v.kind == kind.name}
            for kind in KINDS
        },
    )


def _visit(stage: Stage, kind: Kind, size: int) -> Visit:
    """A fresh worker for each crowd: memory that one has left behind is not the next one's."""
    first, *films = stage.telegram.films
    with stage.worker() as worker:
        with Viewer(worker, first) as viewer:
            viewer.ask(0, MIB)
            viewer.read_to_end()
        stage.telegram.reset_counters()
        cpu_before_s = worker.cpu_s()
        with PeakRss(worker) as peak:
            seen = asyncio.run(watch_together(worker, kind.gather(films, size), SECONDS))
        return Visit(
            kind=kind.name,
            size=size,
            seen=seen,
            rss_mb=peak.bytes / MB,
            fetched_bytes=stage.telegram.all_fetched_bytes(),
            cpu_share=(worker.cpu_s() - cpu_before_s) / seen.seconds,
        )


def _table(visits: Sequence[Visit]) -> Table:
    rows = []
    for visit in visits:
        figures = visit.figures
        first = f"{figures['first_byte_p50_ms']:.0f} / {figures['first_byte_p99_ms']:.0f}"
        gap = f"{figures['gap_p50_ms']:.2f} / {figures['gap_p99_ms']:.0f}"
        rows.append(
            [
                visit.kind,
                str(visit.size),
                f"{figures['rss_mb']:.0f}",
                f"{figures['cpu_share']:.0%}",
                f"{figures['mb_per_second']:.0f}",
                f"{figures['fetched_mb']:.0f}",
                f"{figures['furthest_mb']:.0f}",
                first,
                gap,
                str(visit.seen.failed),
            ]
        )
    return Table(
        "Crowds",
        f"All come at once, to a fresh worker at a round trip of {LINE}, and read as fast as they"
        f" can for {SECONDS:g} s; who stalls stops reading after 256 KiB and keeps the connection."
        " RSS and megabytes are MB: the most held, delivered to all per second, fetched, and how"
        " far the first of them came. First byte and gap between two pieces of a body: median /"
        " 99th percentile in ms. Failed: got no byte, or was cut off.",
        [
            "",
            "viewers",
            "RSS",
            "CPU",
            "MB/s",
            "fetched",
            "furthest",
            "first byte",
            "gap",
            "failed",
        ],
        rows,
    )
