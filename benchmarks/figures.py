"""Figures with their spread, tables of them, and promises that they keep or break."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20
MB = 1_000_000


@dataclass(frozen=True)
class Spread:
    """The median of a few runs, and the least and the most of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        runs = sorted(values)
        return cls(statistics.median(runs), runs[0], runs[-1])

    def show(self, digits: int = 1) -> str:
        """`12.3 (11.9-13.0)`, or only the figure where there was no spread."""
        return f"{self.median:.{digits}f}{self.show_range(digits)}"

    def show_range(self, digits: int = 1) -> str:
        low, high = f"{self.low:.{digits}f}", f"{self.high:.{digits}f}"
        return "" if low == high else f" ({low}-{high})"


@dataclass(frozen=True)
class Promise:
    """One of the project's promises, and what was measured of it.

    `measure` has a place for the figure, such as `{} times the floor`; the median must not be
    above `at_most`, or not below `at_least`.
    """

    what: str
    measure: str
    runs: Sequence[float]
    at_most: float | None = None
    at_least: float | None = None
    digits: int = 1

    @property
    def is_met(self) -> bool:
        median = Spread.of(self.runs).median
        too_much = self.at_most is not None and median > self.at_most
        too_little = self.at_least is not None and median < self.at_least
        return not (too_much or too_little)

    @property
    def limit(self) -> str:
        if self.at_most is not None:
            return f"<= {self.measure.format(f'{self.at_most:g}')}"
        return f">= {self.measure.format(f'{self.at_least:g}')}"

    def row(self) -> list[str]:
        spread = Spread.of(self.runs)
        figure = self.measure.format(f"{spread.median:.{self.digits}f}")
        runs = spread.show_range(self.digits).strip(" ()") or "-"
        return [self.what, self.limit, figure, runs, "yes" if self.is_met else "NO"]


@dataclass(frozen=True)
class Table:
    """Something to read: a title, what it shows and how it was measured, rows of text."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Findings:
    """What one measurement brings home; `raw` is for the JSON file and the plot."""

    tables: list[Table] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 when there are none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] if ranked else 0.0
