"""Files: what the gallery knows of a file, and where at the worker it is."""

import mimetypes
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

KINDS: Final = ("video", "image", "audio", "document")


@dataclass(frozen=True)
class MediaFile:
    """One file of one post, as the worker's listing describes it."""

    chat_id: int
    message_id: int
    name: str
    mime_type: str
    size: int
    date: int
    duration: float | None
    width: int | None
    height: int | None
    caption: str
    has_thumbnail: bool

    @classmethod
    def from_listing(cls, item: Mapping[str, Any]) -> Self:
        """Build from one element of `files`; raise KeyError, TypeError or ValueError if wrong."""
        name = clean_text(item["name"])
        return cls(
            chat_id=int(item["chat_id"]),
            message_id=int(item["message_id"]),
            name=name,
            mime_type=clean_text(item["mime_type"]) or guess_type(name),
            size=int(item["size"]),
            date=int(item["date"]),
            duration=None if item.get("duration") is None else float(item["duration"]),
            width=None if item.get("width") is None else int(item["width"]),
            height=None if item.get("height") is None else int(item["height"]),
            caption=clean_text(item.get("caption")),
            has_thumbnail=bool(item.get("has_thumbnail")),
        )

    @property
    def kind(self) -> str:
        """One of KINDS. Films are often sent as octet-stream: the name decides then."""
        for mime_type in (self.mime_type, guess_type(self.name)):
            family = mime_type.partition("/")[0]
            if family in KINDS:
                return family
        return "document"


def clean_text(value: object) -> str:
    """Text that every encoding can write: JSON may hold halves of characters."""
    return str(value or "").encode("utf-8", "replace").decode()


# Python's own table, not the machine's, so that a file is the same kind everywhere.
MIME_TYPES: Final = mimetypes.MimeTypes()
for _extension, _mime_type in {
    ".flac": "audio/flac",
    ".js": "text/javascript",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".ogg": "audio/ogg",
    ".ts": "video/mp2t",
    ".webp": "image/webp",
}.items():
    MIME_TYPES.add_type(_mime_type, _extension)


def guess_type(name: str) -> str:
    """The media type a file name stands for."""
    return MIME_TYPES.guess_type(name)[0] or "application/octet-stream"


def worker_for(worker_urls: tuple[str, ...], file: MediaFile, attempt: int = 0) -> str:
    """The worker that serves this file: always the same one, so that its cache is warm, and the
    next in line for a player that says an attempt has failed."""
    start = zlib.crc32(f"{file.chat_id}/{file.message_id}".encode())
    return worker_urls[(start + attempt) % len(worker_urls)]


def stream_url(worker_url: str, file: MediaFile, token: str) -> str:
    """The URL at the worker that a player can use."""
    segment = path_segment(file.name)
    return f"{worker_url}/stream/{file.chat_id}/{file.message_id}{segment}?token={token}"


def path_segment(name: str) -> str:
    """The file's name as the end of a path, because players show that; empty if it has none."""
    # A slash, even quoted, is undone by some proxies, and a segment of dots is a step upwards.
    name = name.replace("/", "_").replace("\\", "_")
    return f"/{quote(name, safe='')}" if name.strip(".") else ""


def thumbnail_url(worker_url: str, file: MediaFile, token: str) -> str:
    """The URL of the file's Telegram thumbnail."""
    return f"{worker_url}/thumbnail/{file.chat_id}/{file.message_id}?token={token}"
