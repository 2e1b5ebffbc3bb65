"""Rows: a file as it stands in the index's table, and the table itself.

A row has the facts of a file as the gallery shows it, what they were when it was posted (of the
first part of a split film that is something else), and what it is found and sorted by.
"""

import json
from dataclasses import fields, replace
from typing import Any, Final

from gallery.files import MediaFile, guess_type
from gallery.safe_names import path_key, safe_name
from gallery.search import ORDERS, name_key, words
from gallery.split_films import part_of
from gallery.subtitle_names import is_subtitles, stem_key

SEARCH_TEXT_MAX_CHARACTERS: Final = 4096  # a caption has 1024, or 4096 from a premium account

# What `hidden` says: why a file is not among the others.
SHOWN: Final = 0
PART: Final = 1  # of a film that its first part stands for
SUBTITLES: Final = 2  # of a film

IDS: Final = "message_id, chat_id"
FACTS: Final = tuple(field.name for field in fields(MediaFile))
_LISTS: Final = ("qualities", "parts", "missing")
_COLUMNS: Final = (
    *(*FACTS, "kind", "name_key", "length_s", "search_text", "seen_at"),
    *("posted_name", "posted_size", "posted_mime_type", "hidden", "first_part"),
    *("family", "stem", "is_subtitles", "film_id", "film_stem", "path_key"),
)

SCHEMA: Final = (
    """CREATE TABLE files (
        id INTEGER PRIMARY KEY,
        chat_id INTEGER NOT NULL,
        message_id INTEGER NOT NULL,
        hidden INTEGER NOT NULL,       -- up here, where it is read without the long texts
        name TEXT NOT NULL,
        mime_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        date INTEGER NOT NULL,
        duration REAL,
        width INTEGER,
        height INTEGER,
        caption TEXT NOT NULL,
        has_thumbnail INTEGER NOT NULL,
        title TEXT NOT NULL,
        performer TEXT NOT NULL,
        album INTEGER,
        reply_to INTEGER,
        qualities TEXT NOT NULL,       -- JSON, as are parts and missing
        has_storyboard INTEGER NOT NULL,
        parts TEXT NOT NULL,
        apart TEXT NOT NULL,
        missing TEXT NOT NULL,
        kind TEXT NOT NULL,
        name_key TEXT NOT NULL,
        length_s REAL NOT NULL,
        search_text TEXT NOT NULL,
        seen_at REAL NOT NULL,
        posted_name TEXT NOT NULL,
        posted_size INTEGER NOT NULL,
        posted_mime_type TEXT NOT NULL,
        first_part INTEGER,            -- of the film that this is a later part of
        family TEXT,                   -- of a part: what is equal for all that may belong together
        stem TEXT NOT NULL,            -- what a film and its subtitles are compared by
        is_subtitles INTEGER NOT NULL,
        film_id INTEGER,               -- of subtitles: the film that they reply to, or
        film_stem TEXT,                -- the films whose name they bear
        path_key TEXT NOT NULL,
        file_id TEXT,
        file_unique_id TEXT,
        UNIQUE (chat_id, message_id)
    )""",
    *(
        f"CREATE INDEX files_by_{order.column} ON files ({order.column}, {IDS})"
        for order in (ORDERS["newest"], ORDERS["name"], ORDERS["largest"], ORDERS["longest"])
    ),
    "CREATE INDEX files_by_kind ON files (chat_id, hidden, kind)",
    "CREATE INDEX files_by_family ON files (chat_id, family) WHERE family IS NOT NULL",
    "CREATE INDEX files_by_stem ON files (chat_id, stem)",
    "CREATE INDEX subtitles_by_stem ON files (chat_id, stem) WHERE is_subtitles",
    "CREATE INDEX files_by_film ON files (chat_id, film_id) WHERE film_id IS NOT NULL",
    "CREATE INDEX files_by_film_stem ON files (chat_id, film_stem) WHERE film_stem IS NOT NULL",
    "CREATE INDEX files_by_album ON files (chat_id, album) WHERE album IS NOT NULL",
    "CREATE INDEX files_by_reply ON files (chat_id, reply_to) WHERE reply_to IS NOT NULL",
    "CREATE INDEX files_by_path ON files (chat_id, path_key, message_id)",
    # Our own words are in it, with spaces between: the tokenizer has nothing left to decide.
    """CREATE VIRTUAL TABLE search USING fts5(
        search_text, content = 'files', content_rowid = 'id', tokenize = 'ascii', prefix = '1 2 3'
    )""",
    """CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
        INSERT INTO search (rowid, search_text) VALUES (new.id, new.search_text);
    END""",
    """CREATE TRIGGER file_gone AFTER DELETE ON files BEGIN
        INSERT INTO search (search, rowid, search_text)
        VALUES ('delete', old.id, old.search_text);
    END""",
    """CREATE TRIGGER file_changed AFTER UPDATE OF search_text ON files
    WHEN old.search_text IS NOT new.search_text BEGIN
        INSERT INTO search (search, rowid, search_text)
        VALUES ('delete', old.id, old.search_text);
        INSERT INTO search (rowid, search_text) VALUES (new.id, new.search_text);
    END""",
    """CREATE TABLE channels (
        chat_id INTEGER PRIMARY KEY,
        title TEXT,
        read_to INTEGER NOT NULL DEFAULT 0,
        is_complete INTEGER NOT NULL DEFAULT 0
    )""",
)

# A file_id stays while the file is the same; a listing does not name it, but tells its size. Of
# what Telegram makes of a film an update tells less than a listing.
_KEPT: Final = {
    "file_id": "CASE WHEN posted_size = excluded.posted_size THEN file_id END",
    "qualities": "CASE WHEN :is_update AND posted_size = excluded.posted_size"
    " AND excluded.qualities = '[]' THEN qualities ELSE excluded.qualities END",
    "has_storyboard": "CASE WHEN :is_update AND posted_size = excluded.posted_size"
    " THEN has_storyboard ELSE excluded.has_storyboard END",
}
_CHANGES: Final = {name: f"excluded.{name}" for name in _COLUMNS} | _KEPT
PUT: Final = f"""
INSERT INTO files ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT (chat_id, message_id) DO UPDATE SET
    {", ".join(f"{name} = {value}" for name, value in _CHANGES.items())}
WHERE seen_at <= excluded.seen_at
"""  # noqa: S608 - made of our own column names

# Everything that depends on which posts are one film.
_CAST: Final = (
    *("name", "mime_type", "size", "kind", "name_key", "search_text", "stem", "path_key"),
    *("parts", "apart", "missing", "hidden", "first_part"),
)
RECAST: Final = (
    f"UPDATE files SET {', '.join(f'{name} = :{name}' for name in _CAST)}"  # noqa: S608
    " WHERE chat_id = :chat_id AND message_id = :message_id"
)
POSTED: Final = f"{', '.join(FACTS)}, posted_name, posted_size, posted_mime_type"


def as_row(
    file: MediaFile,
    seen_at: float,
    *,
    posted: MediaFile | None = None,
    first_part: int | None = None,
    is_update: bool = False,
) -> dict[str, object]:
    """The values of all columns, for PUT and RECAST; `posted` if the file was posted as another."""
    posted = posted or file
    part = part_of(posted.name)
    text = " ".join(words(f"{file.name} {file.title} {file.performer} {file.caption}"))
    return {
        **{name: getattr(file, name) for name in FACTS},
        **{name: json.dumps(getattr(file, name)) for name in _LISTS},
        "kind": file.kind,
        "name_key": name_key(file.name),
        "length_s": file.duration or 0.0,
        "search_text": text[:SEARCH_TEXT_MAX_CHARACTERS],
        "seen_at": seen_at,
        "posted_name": posted.name,
        "posted_size": posted.size,
        "posted_mime_type": posted.mime_type,
        "hidden": SHOWN if first_part is None else PART,
        "first_part": first_part,
        "family": part and part.family,
        "stem": stem_key(file.name),
        "is_subtitles": is_subtitles(file.name, file.size),
        "film_id": None,
        "film_stem": None,
        "path_key": path_key(safe_name(file.name)),
        "is_update": is_update,
    }


def as_file(row: tuple[Any, ...]) -> MediaFile:
    """The file of a row of FACTS."""
    facts = dict(zip(FACTS, row, strict=True))
    facts |= {name: tuple(json.loads(facts[name])) for name in _LISTS}
    facts |= {name: bool(facts[name]) for name in ("has_thumbnail", "has_storyboard")}
    return MediaFile(**facts)


def as_posted(row: tuple[Any, ...]) -> MediaFile:
    """The file of a row of POSTED as it was posted, by itself."""
    name, size, mime_type = row[-3:]
    file = replace(as_file(row[:-3]), parts=(), apart="", missing=())
    return replace(file, name=name, size=size, mime_type=mime_type)


def as_whole(first: MediaFile, others: list[MediaFile], name: str) -> MediaFile:
    """A split film as one file; its first part tells what else is known of it."""
    return replace(
        first,
        name=name,
        mime_type=guess_type(name),
        size=first.size + sum(other.size for other in others),
        parts=tuple(other.message_id for other in others),
    )
