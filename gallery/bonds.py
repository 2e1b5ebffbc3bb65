"""Bonds: which posts belong together: parts that are one film, subtitles and their film.

    with settled(connection, "chat_id = ?", (chat_id,)):
        ...  # rows come, change and go

Whatever was done to those rows, afterwards all that depends on them is right again: also rows far
away, such as the first part of a film whose last one was deleted.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from gallery.files import INTEGER_MAX, MediaFile
from gallery.rows import PART, POSTED, RECAST, SHOWN, SUBTITLES, as_posted, as_row, as_whole
from gallery.split_films import Apart, Joined, Piece, part_of, sort_out
from gallery.subtitle_names import thinkable_stems

_IS_FILM: Final = f"kind = 'video' AND hidden = {SHOWN}"


@dataclass(frozen=True)
class _Bond:
    """What of a row others depend on."""

    chat_id: int
    message_id: int
    family: str | None
    film_stem: str | None  # of a film only
    is_subtitles: int
    hidden: int
    first_part: int | None


@contextmanager
def settled(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> Iterator[None]:
    """Put right, at the end, what depends on the rows that are, or were, where this says."""
    before = _bonds(connection, where, values)
    yield
    after = _bonds(connection, where, values)
    families = {(each.chat_id, each.family) for each in before | after if each.family}
    changed = before ^ after
    for chat_id, family in families:
        changed |= _sort_out(connection, chat_id, family)
    subtitles = {(each.chat_id, each.message_id) for each in after if each.is_subtitles}
    for chat_id, message_id in subtitles | _dependent(connection, changed):
        _bind_subtitles(connection, chat_id, message_id)


def _bonds(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> set[_Bond]:
    rows = connection.execute(
        f"SELECT chat_id, message_id, family, iif({_IS_FILM}, stem, NULL),"  # noqa: S608
        f" is_subtitles, hidden, first_part FROM files WHERE {where}",
        values,
    )
    return {_Bond(*row) for row in rows}


# -- split films ---------------------------------------------------------------------------------


def _sort_out(connection: sqlite3.Connection, chat_id: int, family: str) -> set[_Bond]:
    """Join the parts of one family, or part them again; what was and is of the rows that change."""
    where, values = "chat_id = ? AND family = ?", (chat_id, family)
    before = _bonds(connection, where, values)
    rows = connection.execute(
        f"SELECT {POSTED} FROM files WHERE {where} ORDER BY message_id",  # noqa: S608
        values,
    ).fetchall()
    posted = {file.message_id: file for file in map(as_posted, rows)}
    pieces, may_play_alone = [], False
    for file in posted.values():
        name = part_of(file.name)
        if name is not None:  # which the family says
            may_play_alone = name.may_play_alone
            is_measured = bool(file.duration or file.width or file.qualities)
            pieces.append(Piece(file.message_id, name.number, file.size, is_measured))
    for group in sort_out(pieces, may_play_alone=may_play_alone):
        connection.executemany(RECAST, _recast(group, posted))
    return before ^ _bonds(connection, where, values)


def _recast(group: Joined | Apart, posted: dict[int, MediaFile]) -> Iterator[dict[str, object]]:
    """The rows of pieces as they are now."""
    first, *others = [posted[piece.message_id] for piece in group.pieces]
    if sum(piece.size for piece in group.pieces) > INTEGER_MAX:
        group = Apart(group.pieces, "unclear")
    if isinstance(group, Apart):
        for file in (first, *others):
            apart = replace(file, apart=group.reason, missing=group.missing)
            yield as_row(apart, 0.0, posted=file)
        return
    name = part_of(first.name)
    whole = as_whole(first, others, name.whole if name else first.name)
    yield as_row(whole, 0.0, posted=first)
    for file in others:
        yield as_row(file, 0.0, first_part=first.message_id)


# -- subtitles -----------------------------------------------------------------------------------


def _dependent(connection: sqlite3.Connection, changed: Iterable[_Bond]) -> set[tuple[int, int]]:
    """The subtitles that may belong to what has changed, by its name or as replies to it."""
    found: set[tuple[int, int]] = set()
    stems: dict[int, set[str]] = defaultdict(set)
    for each in changed:
        if each.film_stem:
            stems[each.chat_id].add(each.film_stem)
        replies = connection.execute(
            "SELECT chat_id, message_id FROM files"
            " WHERE chat_id = ? AND reply_to = ? AND is_subtitles",
            (each.chat_id, each.message_id),
        )
        found |= set(replies)
    for chat_id, names in stems.items():
        for stem in names:
            # Nothing or a space may follow, which is the lowest of all signs in a stem.
            found |= set(
                connection.execute(
                    "SELECT chat_id, message_id FROM files WHERE chat_id = ? AND is_subtitles"
                    " AND stem >= ? AND stem < ?",
                    (chat_id, stem, f"{stem}!"),
                )
            )
    return found


def _bind_subtitles(connection: sqlite3.Connection, chat_id: int, message_id: int) -> None:
    """Note the film that a subtitle file belongs to, if there is one."""
    name, reply_to, *noted = connection.execute(
        "SELECT name, reply_to, film_id, film_stem, hidden FROM files"
        " WHERE chat_id = ? AND message_id = ?",
        (chat_id, message_id),
    ).fetchone()
    film_id = None if reply_to is None else _film_at(connection, chat_id, reply_to)
    film_stem = None if film_id is not None else _film_named(connection, chat_id, name)
    is_bound = film_id is not None or film_stem is not None
    wanted: list[Any] = [film_id, film_stem, SUBTITLES if is_bound else SHOWN]
    if wanted != noted:
        connection.execute(
            "UPDATE files SET film_id = ?, film_stem = ?, hidden = ?"
            " WHERE chat_id = ? AND message_id = ?",
            (*wanted, chat_id, message_id),
        )


def _film_at(connection: sqlite3.Connection, chat_id: int, message_id: int) -> int | None:
    """The film of a post, also where that is a later part of it."""
    row = connection.execute(
        f"SELECT CASE WHEN hidden = {PART} THEN first_part"  # noqa: S608
        f" WHEN {_IS_FILM} THEN message_id END FROM files WHERE chat_id = ? AND message_id = ?",
        (chat_id, message_id),
    ).fetchone()
    return None if row is None else row[0]


def _film_named(connection: sqlite3.Connection, chat_id: int, name: str) -> str | None:
    """The longest name of a film that a subtitle file's name begins with."""
    for stem in thinkable_stems(name):
        if connection.execute(
            f"SELECT 1 FROM files WHERE chat_id = ? AND stem = ? AND {_IS_FILM}",  # noqa: S608
            (chat_id, stem),
        ).fetchone():
            return stem
    return None
