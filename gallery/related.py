"""Related: what belongs to a file: its subtitles, its album, the name that it has among others.

Films/Film.mkv  Films/Film [post 12].mkv  Films/Film.en.srt     as WebDAV shows a channel
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from gallery.files import MediaFile
from gallery.index import ChannelState, Index, Query
from gallery.rows import FACTS, PART, SHOWN, as_file
from gallery.safe_names import is_numbered, numbered, path_key, read_numbered, safe_name
from gallery.subtitle_names import Track, sequence, tell_apart, track_of

ALBUM_MAX: Final = 100  # Telegram takes ten files in an album
TRACKS_MAX: Final = 100
BATCH_FILES: Final = 500

_FACTS: Final = ", ".join(FACTS)
_SUBTITLES: Final = (
    f"SELECT {_FACTS}, film_stem FROM files WHERE chat_id = ?1 AND film_id = ?2"  # noqa: S608
    f" UNION SELECT {_FACTS}, film_stem FROM files WHERE chat_id = ?1 AND film_stem ="
    " (SELECT stem FROM files WHERE chat_id = ?1 AND message_id = ?2 AND kind = 'video'"
    f" AND hidden = {SHOWN}) ORDER BY message_id LIMIT {TRACKS_MAX}"
)
_ENTRIES: Final = (
    f"SELECT {_FACTS}, EXISTS (SELECT 1 FROM files AS other"  # noqa: S608
    " WHERE other.chat_id = files.chat_id AND other.path_key = files.path_key"
    f" AND other.message_id < files.message_id AND other.hidden <> {PART})"
    f" FROM files WHERE chat_id = ? AND hidden <> {PART}"
)


@dataclass(frozen=True)
class Subtitles:
    """A subtitle file of a film, and what it is called among the others."""

    file: MediaFile
    track: Track
    label: str


@dataclass(frozen=True)
class Folder:
    """A channel under a name that no other channel has, on any file system."""

    name: str
    channel: ChannelState


@dataclass(frozen=True)
class Entry:
    """A file under a name that no other file of its channel has, on any file system."""

    name: str
    file: MediaFile


async def subtitles_of(index: Index, film: MediaFile) -> list[Subtitles]:
    """The subtitle files of a film, in the order in which they are offered."""
    rows = await index.fetch(_SUBTITLES, (film.chat_id, film.message_id))
    found = [(track_of(row[FACTS.index("name")], row[-1]), as_file(row[:-1])) for row in rows]
    found.sort(key=lambda each: sequence(each[0]))
    labels = tell_apart([track for track, _ in found])
    return [
        Subtitles(file, track, label) for (track, file), label in zip(found, labels, strict=True)
    ]


async def album_of(index: Index, file: MediaFile) -> list[int]:
    """The posts of a file's album, in order; none without one."""
    if file.album is None:
        return []
    rows = await index.fetch(
        "SELECT message_id FROM files WHERE chat_id = ? AND album = ? AND hidden <> ?"
        " ORDER BY message_id LIMIT ?",
        (file.chat_id, file.album, PART, ALBUM_MAX),
    )
    return [message_id for (message_id,) in rows]


async def folders(index: Index) -> list[Folder]:
    """All channels, in the order of CHANNELS."""
    found: list[Folder] = []
    taken: set[str] = set()
    for channel in await index.channels():
        name = safe_name(channel.title, "channel")
        if path_key(name) in taken:
            name = f"{name} [{channel.chat_id}]"
        taken.add(path_key(name))
        found.append(Folder(name, channel))
    return found


async def entries(index: Index, chat_id: int) -> AsyncIterator[list[Entry]]:
    """All files of a channel under names of their own, some at a time."""
    after = 0
    while batch := await index.fetch(
        f"{_ENTRIES} AND message_id > ? ORDER BY message_id LIMIT ?", (chat_id, after, BATCH_FILES)
    ):
        found = [_entry(row) for row in batch]
        after = found[-1].file.message_id
        yield found


async def entry_named(index: Index, chat_id: int, name: str) -> Entry | None:
    """The file of this name, however its letters are written."""
    asked = read_numbered(name)
    column, value = ("path_key", path_key(name)) if asked is None else ("message_id", asked[1])
    rows = await index.fetch(
        f"{_ENTRIES} AND {column} = ? ORDER BY message_id LIMIT 1", (chat_id, value)
    )
    if not rows:
        return None
    found = _entry(rows[0])
    names = {found.name, numbered(safe_name(found.file.name), found.file.message_id)}
    return found if path_key(name) in map(path_key, names) else None


def _entry(row: tuple[Any, ...]) -> Entry:
    file = as_file(row[:-1])
    name = safe_name(file.name)
    has_namesake = bool(row[-1])
    is_plain = not has_namesake and not is_numbered(name)
    return Entry(name if is_plain else numbered(name, file.message_id), file)


async def pages(index: Index, query: Query) -> AsyncIterator[tuple[MediaFile, ...]]:
    """All files that a query finds, a page at a time."""
    while True:
        page = await index.page(query)
        yield page.files
        if page.next is None:
            return
        query = Query(query.text, query.kind, query.chat_id, query.sort, page.next)
