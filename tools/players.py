"""Every program that plays or fetches by share links, tried; the outcome goes into docs/players.md.

    make players

Runs tests/test_players.py whole, also what the suite leaves out, and makes a table of it: a column
for each program, a row for each thing that its users do. Exit status 1: something that should work
does not.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import imageio_ffmpeg

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "players.md"
BEGIN, END = "<!-- made by `make players`: begin -->", "<!-- end -->"

ROWS = {
    "test_a_player_opens_a_link_and_seeks_to_the_middle": "opens a link, seeks to the middle",
    "test_a_player_opens_a_film_whose_index_is_at_its_end": "opens one with its index at the end",
    "test_ffmpeg_plays_a_link_and_seeks_in_it": "plays a link to its last frame, and seeks",
    "test_a_player_seeks_when_its_token_has_ended": "seeks when its token has ended",
    "test_a_player_given_the_workers_url_is_renewed": "the same, given the worker's URL",
    "test_a_player_goes_on_when_its_line_breaks": "goes on when its line breaks",
    "test_ffmpeg_goes_on_when_line_and_token_end": "goes on when line and token end",
    "test_aria2_fetches_by_eight_connections_over_the_ends_of_its_tokens": (
        "fetches by 8 connections over the ends of its tokens, byte for byte"
    ),
    "test_a_download_that_broke_off_goes_on_where_it_was": "goes on with a broken download",
}
PROGRAMS = {
    "vlc": ("VLC", ("cvlc", "--version")),
    "mpv": ("mpv", ("mpv", "--version")),
    "ffmpeg": ("ffmpeg", (imageio_ffmpeg.get_ffmpeg_exe(), "-version")),
    "Debian's ffmpeg": ("Debian's ffmpeg", ("ffmpeg", "-version")),
    "aria2c": ("aria2", ("aria2c", "--version")),
    "wget": ("wget", ("wget", "--version")),
    "curl": ("curl", ("curl", "--version")),
}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = ["-m", "pytest", "tests/test_players.py", "-q", "-m", "", f"--junitxml={report}"]
        ended = subprocess.run([sys.executable, *command], cwd=REPOSITORY, check=False)  # noqa: S603
        outcomes = dict(read_outcomes(report))
    text = "\n".join(table(outcomes))
    before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")
    print(text)
    return ended.returncode


def read_outcomes(report: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """What became of each test, by its name and the program it is about."""
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest has written it
        name, _, program = case.get("name", "").rstrip("]").partition("[")
        if name in ROWS:
            yield (name, program), outcome_of(case)


def outcome_of(case: ElementTree.Element) -> str:
    """In one word: what was expected to fail did so for a reason that the document tells."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "**failed**"
    return "yes" if case.find("skipped") is None else "no"


def table(outcomes: dict[tuple[str, str], str]) -> Iterator[str]:
    yield f"{datetime.now(UTC):%Y-%m-%d}, {system()}:"
    yield ""
    yield f"| | {' | '.join(f'{name} {version_of(ask)}' for name, ask in PROGRAMS.values())} |"
    yield "| --- " * (1 + len(PROGRAMS)) + "|"
    for test, what in ROWS.items():
        cells = (outcomes.get((test, program), "") for program in PROGRAMS)
        yield f"| {what} | {' | '.join(cells)} |"


def version_of(command: tuple[str, ...]) -> str:
    """The version as the program tells it, or its package where it talks to no root (VLC)."""
    if command[0] == "cvlc":
        command = ("dpkg-query", "--show", "--showformat=${Version}", "vlc-bin")
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    found = re.search(r"\d+\.\d+(\.\d+)*", printed)
    return found[0] if found else ""


def system() -> str:
    facts = Path("/etc/os-release").read_text("utf-8")
    found = re.search(r'^PRETTY_NAME="(.*)"$', facts, re.MULTILINE)
    return found[1] if found else sys.platform


if __name__ == "__main__":
    sys.exit(main())
