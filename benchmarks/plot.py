"""Four charts of the figures: throughput, first byte, memory and waiting in a crowd."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter

from .crowds import RSS_MAX_MB
from .figures import MB

Figures = Mapping[str, Any]
"""What the measurements left for the JSON file, by their names."""

WORKER, BASELINE, THIRD, PALE = "#0b6bcb", "#e07a1f", "#2a9d6f", "#9aa4b2"
SHADES = ("#8fc1f2", "#3d8ee0", "#0b4f9c")
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
ROUND_TRIPS_MS = (0, 20, 80, 200)


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
    for who, colour in (("worker", WORKER), ("baseline", BASELINE)):
        for cap, style, what in (("", "-", "no cap"), (", 5 MB/s", "--", "5 MB/s a connection")):
            runs = [rates[who][f"{ms} ms{cap}"] for ms in ROUND_TRIPS_MS]
            values = [statistics.median(each) / MB for each in runs]
            axes.plot(range(4), values, style, marker="o", color=colour, label=f"{who}, {what}")
            axes.fill_between(
                range(4),
                [min(each) / MB for each in runs],
                [max(each) / MB for each in runs],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
    axes.set_xticks(range(4), [str(ms) for ms in ROUND_TRIPS_MS])
    _plain_log(axes)
    axes.legend()


def _draw_first_byte(axes: Axes, waits: Figures) -> None:
    axes.set_title("First byte, in round trips")
    kinds = {"cold": "file never seen", "warm": "known file", "seek": "after a seek"}
    far_ms = ROUND_TRIPS_MS[1:]
    for group, kind in enumerate(kinds):
        for place, ms in enumerate(far_ms):
            ours, theirs = (
                statistics.median(waits[who][f"{ms} ms"][kind]) * 1000 / ms
                for who in ("worker", "baseline")
            )
            x = group + (place - 1) * 0.26
            label = "_" if group else f"worker, {ms} ms"
            axes.bar(x, ours, width=0.23, color=SHADES[place], label=label)
            axes.text(x, ours + 0.04, f"{ours:.2f}", ha="center", va="bottom", fontsize=8.5)
            label = "_" if group or place else "baseline"
            axes.hlines(theirs, x - 0.115, x + 0.115, color=BASELINE, lw=2.4, label=label)
    for group, trips in enumerate((2, 1, 1)):
        label = "_" if group else "what it takes"
        axes.hlines(
            trips, group - 0.42, group + 0.42, color="black", lw=1, ls=(0, (2, 2)), label=label
        )
    axes.set_xticks(range(len(kinds)), list(kinds.values()))
    axes.set_ylabel("round trips")
    axes.margins(y=0.16)
    axes.legend(ncols=2, loc="upper right")


def _draw_memory(axes: Axes, crowds: Figures) -> None:
    axes.set_title("Memory of the worker")
    axes.set_ylabel("most resident memory, MB")
    for (kind, visits), colour in zip(crowds.items(), (WORKER, THIRD, BASELINE), strict=True):
        _plot_by_size(axes, visits, "rss_mb", label=kind, color=colour, marker="o")
    axes.axhline(RSS_MAX_MB, color="black", lw=1, ls=(0, (2, 2)))
    axes.text(0, RSS_MAX_MB - 3, "promised at most", fontsize=8.5, va="top")
    axes.set_ylim(0, None)
    _name_sizes(axes, crowds)
    axes.legend(loc="lower right")


def _draw_waiting(axes: Axes, crowds: Figures) -> None:
    axes.set_title("Waiting, 99th percentile")
    axes.set_ylabel("ms")
    for (kind, visits), colour in zip(crowds.items(), (WORKER, THIRD, BASELINE), strict=True):
        _plot_by_size(axes, visits, "first_byte_p99_ms", label=kind, color=colour, marker="o")
        _plot_by_size(axes, visits, "gap_p99_ms", color=colour, marker="o", ls=":", lw=1.6)
    axes.plot([], [], color=PALE, label="first byte")
    axes.plot([], [], color=PALE, ls=":", lw=1.6, label="gap in a body")
    _plain_log(axes)
    _name_sizes(axes, crowds)
    axes.legend(ncols=2)


def _plot_by_size(axes: Axes, visits: Figures, figure: str, **look: Any) -> None:
    sizes = list(visits)
    places = [_ALL_SIZES.index(size) for size in sizes]
    axes.plot(places, [visits[size][figure] for size in sizes], **look)


_ALL_SIZES: Sequence[str] = ("1", "10", "50", "200")


def _name_sizes(axes: Axes, crowds: Figures) -> None:
    axes.set_xticks(range(len(_ALL_SIZES)), _ALL_SIZES)
    axes.set_xlabel("viewers at once")


def _plain_log(axes: Axes) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 of each decade."""
    axes.set_yscale("log", base=10)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
