"""Search: what words a text is found by, in which orders files can be had, and where a page ended.

Names and queries are cut into words here, not by SQLite, so that both sides always agree and
nothing that a visitor types is ever syntax.
"""

import base64
import binascii
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from gallery.errors import ApiError
from gallery.files import INTEGER_MAX

QUERY_MAX_CHARACTERS: Final = 200
CURSOR_MAX_CHARACTERS: Final = 2000
NAME_KEY_MAX_CHARACTERS: Final = 255  # what is compared when sorting; also bounds a cursor
# Chinese and Japanese are written without spaces: there each character is a word.
_WORD: Final = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)
_NUMBER: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Order:
    """A way to sort: by this column, and posts of the same value by their ids."""

    column: str
    descending: bool


ORDERS: Final = {
    "newest": Order("date", descending=True),
    "oldest": Order("date", descending=False),
    "name": Order("name_key", descending=False),
    "largest": Order("size", descending=True),
    "longest": Order("length_s", descending=True),
}


def fold(text: str) -> str:
    """Fold case and accents away, so that `amelie` finds `Amélie`."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def words(text: str) -> list[str]:
    """The folded words of a text, in order."""
    return _WORD.findall(fold(text))


def match_expression(query: str) -> str | None:
    """The query for FTS5: each word of it begins a word of the text. None when it has no words.

    What stands together (`last-of-us`) is found together. Words hold letters and digits only, and
    are quoted (https://sqlite.org/fts5.html section 3.1), so nothing in them is an operator.
    """
    phrases = [words(part) for part in query[:QUERY_MAX_CHARACTERS].split()]
    return " AND ".join(f'"{" ".join(phrase)}" *' for phrase in phrases if phrase) or None


def name_key(name: str) -> str:
    """What names are sorted by: without case and accents, and episode 2 before episode 10."""
    padded = _NUMBER.sub(lambda number: number[0].lstrip("0").zfill(10), fold(name))
    return padded[:NAME_KEY_MAX_CHARACTERS]


@dataclass(frozen=True)
class Position:
    """The last file of a page: its value in the column sorted by, and its ids."""

    value: int | float | str
    message_id: int
    chat_id: int


def write_cursor(sort: str, position: Position) -> str:
    """A position as text for a URL; it means something together with its sort only."""
    fields = [sort, position.value, position.message_id, position.chat_id]
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def read_cursor(sort: str, cursor: str) -> Position:
    """The position that a cursor names; raise ApiError for what is none of ours."""
    try:
        padding = "=" * (-len(cursor) % 4)
        if len(cursor) > CURSOR_MAX_CHARACTERS:
            raise ValueError
        text = base64.b64decode(cursor + padding, altchars=b"-_", validate=True)
        written_for, value, message_id, chat_id = json.loads(text)
        str(value).encode()  # half characters are no text to the database
    except (binascii.Error, RecursionError, TypeError, ValueError):
        raise _bad_cursor() from None
    wanted = (str,) if sort == "name" else (int, float)
    numbers = [number for number in (value, message_id, chat_id) if type(number) is not str]
    is_ours = (
        written_for == sort
        and type(value) in wanted
        and type(message_id) is type(chat_id) is int
        and all(abs(number) <= INTEGER_MAX for number in numbers)  # no infinity, no NaN either
    )
    if not is_ours:
        raise _bad_cursor()
    return Position(value, message_id, chat_id)


def _bad_cursor() -> ApiError:
    return ApiError(400, "bad_cursor", "The cursor is not one of ours.")
