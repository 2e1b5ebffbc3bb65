"""Four charts of the figures: throughput, first byte, memory and waiting in a crowd."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .crowds import RSS_MAX_MB, SIZES
from .figures import MB
from .first_byte import ROUND_TRIPS

Figures = Mapping[str, Any]
"""What the measurements left for the JSON file, by their names."""

WORKER, BASELINE, THIRD, PALE = "#0b6bcb", "#e07a1f", "#2a9d6f", "#9aa4b2"
SHADES = ("#6aa9e9", "#2f7fd6", "#0b4f9c")
"""From near to far."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7480",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e8ee",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
}
LIMIT: dict[str, Any] = {"color": "black", "linewidth": 1, "linestyle": (0, (2, 2))}
ROUND_TRIPS_MS = (0, 20, 80, 200)
CROWD_SIZES = tuple(map(str, SIZES))


def draw(figures: Figures, path: Path) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 8.6), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15))
        (upper_left, upper_right), (lower_left, lower_right) = figure.subplots(2, 2)
        _draw_throughput(upper_left, figures["throughput"])
        _draw_first_byte(upper_right, figures["first-byte"])
        _draw_memory(lower_left, figures["crowds"])
        _draw_waiting(lower_right, figures["crowds"])
        figure.savefig(path, dpi=120)


def _draw_throughput(axes: Axes, rates: Figures) -> None:
    axes.set_title("One viewer, near and far")
    axes.set_xlabel("round trip to Telegram, ms")
    axes.set_ylabel("MB/s")
    places = range(len(ROUND_TRIPS_MS))
    for cap, style, what in (("", "-", "no cap"), (", 5 MB/s", "--", "5 MB/s a connection")):
        for who, colour in (("worker", WORKER), ("baseline", BASELINE)):
            runs = [rates[who][f"{ms} ms{cap}"] for ms in ROUND_TRIPS_MS]
            values = [statistics.median(each) / MB for each in runs]
            low, high = ([pick(each) / MB for each in runs] for pick in (min, max))
            axes.plot(places, values, style, marker="o", color=colour, label=f"{who}, {what}")
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(places, [str(ms) for ms in ROUND_TRIPS_MS])
    _plain_log(axes, room_above=4)
    axes.legend(ncols=2, loc="upper right", handlelength=3.2)


def _draw_first_byte(axes: Axes, waits: Figures) -> None:
    axes.set_title("First byte")
    axes.set_ylabel("round trips")
    kinds = {"cold": "file never seen", "warm": "known file", "seek": "after a seek"}
    for group, kind in enumerate(kinds):
        for place, ms in enumerate(ROUND_TRIPS_MS[1:]):
            ours, theirs = (
                statistics.median(waits[who][f"{ms} ms"][kind]) * 1000 / ms
                for who in ("worker", "baseline")
            )
            x = group + (place - 1) * 0.26
            axes.bar(x, ours, 0.23, color=SHADES[place], label=_once(group, f"worker, {ms} ms"))
            axes.text(x, 0.06, f"{ours:.2f}", ha="center", color="white", fontsize=9)
            label = _once(group + place, "baseline")
            axes.hlines(theirs, x - 0.115, x + 0.115, color=BASELINE, lw=2.6, label=label)
        at_best, label = ROUND_TRIPS[kind], _once(group, "what Telegram takes")
        axes.hlines(at_best, group - 0.42, group + 0.42, **LIMIT, label=label)
    axes.set_xticks(range(len(kinds)), list(kinds.values()))
    axes.margins(y=0.25)
    axes.legend(ncols=2, loc="upper right", reverse=True)


def _once(number: int, label: str) -> str:
    """The label for the first of its kind; the legend leaves out what begins like the others."""
    return "_" if number else label


def _draw_memory(axes: Axes, crowds: Figures) -> None:
    axes.set_title("Memory of the worker")
    axes.set_ylabel("most resident memory, MB")
    for (kind, visits), colour in zip(crowds.items(), (WORKER, THIRD, BASELINE), strict=True):
        _plot_by_size(axes, visits, "rss_mb", label=kind, color=colour, marker="o")
    axes.axhline(RSS_MAX_MB, **LIMIT)
    axes.text(0, RSS_MAX_MB - 3, "promised at most", fontsize=9, va="top")
    axes.set_ylim(0, None)
    _name_sizes(axes)
    axes.legend(loc="lower right")


def _draw_waiting(axes: Axes, crowds: Figures) -> None:
    axes.set_title("Waiting, 99th percentile")
    axes.set_ylabel("ms")
    for (kind, visits), colour in zip(crowds.items(), (WORKER, THIRD, BASELINE), strict=True):
        _plot_by_size(axes, visits, "first_byte_p99_ms", label=kind, color=colour, marker="o")
        _plot_by_size(axes, visits, "gap_p99_ms", color=colour, marker="o", ls=":", lw=1.6)
    axes.plot([], [], color=PALE, label="first byte")
    axes.plot([], [], color=PALE, ls=":", lw=1.6, label="gap in a body")
    _plain_log(axes, room_above=5)
    _name_sizes(axes)
    axes.legend(ncols=2, loc="upper left")


def _plot_by_size(axes: Axes, visits: Figures, figure: str, **look: Any) -> None:
    places = [CROWD_SIZES.index(size) for size in visits]
    axes.plot(places, [visits[size][figure] for size in visits], **look)


def _name_sizes(axes: Axes) -> None:
    axes.set_xticks(range(len(CROWD_SIZES)), CROWD_SIZES)
    axes.set_xlabel("viewers at once")


def _plain_log(axes: Axes, room_above: float) -> None:
    """A logarithmic axis with plain numbers, and room for a legend: so many times the most."""
    axes.set_yscale("log")
    axes.set_ylim(top=axes.dataLim.y1 * room_above)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
