"""Tables as text that reads well on a terminal and is Markdown too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .figures import Findings, Promise, Table
from .plot import draw

COMMAND = "make bench"


def show(table: Table) -> str:
    """A Markdown table under its title, its columns padded to one width."""
    rows = [table.columns, *table.rows]
    widths = [max(3, *(len(row[place]) for row in rows)) for place in range(len(table.columns))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    note = f"{table.note}\n\n" if table.note else ""
    return f"## {table.title}\n\n{note}" + "\n".join(lines) + "\n"


def promises_table(promises: Sequence[Promise]) -> Table:
    return Table(
        "Promises",
        "Of first bytes the worst round trip counts, of bots and of films the worst of them.",
        ["promise", "limit", "figure", "runs", "met"],
        [promise.row() for promise in promises],
    )


def conditions_table(conditions: Mapping[str, str]) -> Table:
    return Table("Conditions", "", ["", ""], list(conditions.items()))


def write(folder: Path, conditions: Mapping[str, str], findings: Mapping[str, Findings]) -> None:
    """`streaming.md` to read, `streaming.json` to compute with, `streaming.png` to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    promises = [promise for found in findings.values() for promise in found.promises]
    tables = [table for found in findings.values() for table in found.tables]
    tables[:0] = [promises_table(promises), conditions_table(conditions)]
    text = "\n".join(show(table) for table in tables)
    head = f"# Streaming, measured\n\nWritten by `{COMMAND}`.\n\n![Four charts](streaming.png)\n\n"
    (folder / "streaming.md").write_text(head + text)
    figures = {name: found.raw for name, found in findings.items()}
    raw = {
        "conditions": dict(conditions),
        "promises": [
            {"promise": each.what, "limit": each.limit, "runs": each.runs, "met": each.is_met}
            for each in promises
        ],
        "figures": figures,
    }
    (folder / "streaming.json").write_text(json.dumps(raw, indent=1, default=float) + "\n")
    draw(figures, folder / "streaming.png")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
