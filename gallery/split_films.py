"""Split films: which files posted one after another are one film, as far as their names tell.

    Film.mkv.001, Film.mkv.002, …        cut by a splitter; so are Film.mkv.part1, Film.mkv.part2, …
    Film.part1.mkv, Film.part2.mkv, …    cut, or films that each play by themselves: sizes decide

A 1 begins a film, and whatever follows it up to the next 1 is looked at together. Where two ways of
joining are thinkable nothing is joined: parts by themselves can be had, a wrong film cannot.
Volumes of RAR archives are never joined: their bytes do not follow one another.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Final

# The ids of all parts stand in a token twice (it and its grant), and a URL must stay below 8 KiB.
PARTS_MAX: Final = 100
MISSING_MAX: Final = 20  # how many missing numbers are told

_AT_THE_END: Final = re.compile(
    r"(?P<whole>.+)\.part(?P<number>[0-9]{1,3})"
    r"|(?P<named>.+\.(?=[0-9]{0,4}[a-z])[a-z0-9]{1,5})\.(?P<digits>[0-9]{3})",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_WITHIN: Final = re.compile(
    r"(?P<stem>.+)\.part(?P<number>[0-9]{1,3})(?P<extension>\.[a-z0-9]{1,5})",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_RAR: Final = re.compile(r"\.(rar|r[0-9]{2})(\.|$)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class PartName:
    """What a name says of a part: of which film, which number, and which parts are its like."""

    whole: str
    number: int
    family: str
    may_play_alone: bool


@dataclass(frozen=True)
class Piece:
    """A posted part; `is_measured` if somebody's program took it for a whole film."""

    message_id: int
    number: int
    size: int
    is_measured: bool = False


@dataclass(frozen=True)
class Joined:
    """Parts that are one film, in order."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Apart:
    """Parts that stay by themselves. Why: alone, missing, twice, order, unclear, too_many; empty
    for films that play by themselves."""

    pieces: tuple[Piece, ...]
    reason: str
    missing: tuple[int, ...] = ()


def part_of(name: str) -> PartName | None:
    """What a file's name says of the film that it is a part of; None if it is none."""
    if _RAR.search(name):
        return None
    if match := _AT_THE_END.fullmatch(name):
        whole = match["whole"] or match["named"]
        way = "part" if match["whole"] else "digits"
        return _part_name(whole, match["number"] or match["digits"], way, may_play_alone=False)
    if match := _WITHIN.fullmatch(name):
        whole = match["stem"] + match["extension"]
        return _part_name(whole, match["number"], "within", may_play_alone=True)
    return None


def _part_name(whole: str, digits: str, way: str, *, may_play_alone: bool) -> PartName | None:
    number = int(digits)
    if number == 0 or not whole.strip(". "):
        return None
    family = f"{way} {unicodedata.normalize('NFC', whole.casefold())}"
    return PartName(whole, number, family, may_play_alone)


def sort_out(pieces: Sequence[Piece], *, may_play_alone: bool = False) -> list[Joined | Apart]:
    """All pieces of one family, in the order in which they were posted, as films and leftovers."""
    runs = [_Run(run) for run in _runs(pieces)]
    found: list[Joined | Apart] = []
    for number, run in enumerate(runs):
        before = runs[number - 1] if number else None
        after = runs[number + 1] if number + 1 < len(runs) else None
        if may_play_alone and not run.is_cut:
            found.append(Apart(run.pieces, ""))
        elif not run.is_whole(before, after):
            found.append(Apart(run.pieces, *_reason(run.pieces)))
        elif len(run.film) > PARTS_MAX:
            found.append(Apart(run.pieces, "too_many"))
        else:
            found.append(Joined(run.film))
            if run.rest:
                found.append(Apart(run.rest, *_reason(run.rest)))
    return found


def _runs(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, ...]]:
    """The pieces cut before each that is a first part."""
    starts = [place for place, piece in enumerate(pieces) if piece.number == 1 or place == 0]
    for start, stop in pairwise([*starts, len(pieces)]):
        yield tuple(pieces[start:stop])


class _Run:
    """A first part and what follows it: the numbers that go on from it, and the rest."""

    def __init__(self, pieces: tuple[Piece, ...]) -> None:
        self.pieces = pieces
        counted = enumerate(pieces, 1)
        self.film = tuple(
            piece for _, piece in takewhile(lambda each: each[0] == each[1].number, counted)
        )
        self.rest = pieces[len(self.film) :]

    @property
    def is_ended(self) -> bool:
        """Whether no further part can belong to it: splitters make the last one smaller."""
        return len(self.film) > 1 and self.film[-1].size < self.film[0].size

    @property
    def is_cut(self) -> bool:
        """Whether sizes say that one film was cut, rather than several films numbered."""
        first, *others = self.film or self.pieces
        if not others or any(piece.is_measured for piece in others):
            return False
        sizes = [piece.size for piece in others]
        is_even = all(size == first.size for size in sizes[:-1]) and sizes[-1] <= first.size
        return is_even and (len(sizes) > 1 or first.size % 1000 == 0 or first.size % 1024 == 0)

    def is_whole(self, before: "_Run | None", after: "_Run | None") -> bool:
        """Whether its film can be joined: no other way to sort the parts around it is thinkable."""
        if len(self.film) < 2:
            return False
        if before is not None and before.could_go_on_in(self.rest):
            return False
        if self.rest:
            return self.is_ended and self.rest[0].number <= len(self.film)
        return after is None or not self.could_go_on_in(after.rest)

    def could_go_on_in(self, rest: Sequence[Piece]) -> bool:
        following = len(self.film) + 1
        return (
            bool(self.film)
            and not self.is_ended
            and any(piece.number == following for piece in rest)
        )


def _reason(pieces: Sequence[Piece]) -> tuple[str, tuple[int, ...]]:
    """Why pieces that are no film are none, and which numbers are not there."""
    numbers = [piece.number for piece in pieces]
    if numbers == [1]:
        return "alone", ()
    there = set(numbers)
    missing = tuple(number for number in range(1, max(there)) if number not in there)
    if missing:
        return "missing", missing[:MISSING_MAX]
    if len(there) < len(numbers):
        return "twice", ()
    return ("order" if numbers != sorted(numbers) else "unclear"), ()
