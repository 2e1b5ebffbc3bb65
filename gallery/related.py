"""Related: what belongs to a file: its album."""

from typing import Final

from gallery.files import MediaFile
from gallery.index import Index

ALBUM_MAX: Final = 100  # Telegram takes ten files in an album


async def album_of(index: Index, file: MediaFile) -> list[int]:
    """The posts of a file's album, in order; none without one."""
    if file.album is None:
        return []
    rows = await index.fetch(
        "SELECT message_id FROM files WHERE chat_id = ? AND album = ? ORDER BY message_id LIMIT ?",
        (file.chat_id, file.album, ALBUM_MAX),
    )
    return [message_id for (message_id,) in rows]
