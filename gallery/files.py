"""Files: what the gallery knows of a file, and where at the worker it is.

Names, captions and measures are whatever somebody once sent to Telegram, so all of them come in by
`MediaFile.from_listing`, which lets nothing through that is no plain text or no sensible number.
"""

import math
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

FILM_TYPE: Final = "video/mp4"  # what a file is taken for that is not known yet
KINDS: Final = ("video", "image", "audio", "document")
# What comes of reading JSON whose parts are not what they should be; infinity is OverflowError.
MALFORMED: Final = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
MESSAGE_ID_MAX: Final = 2**31 - 1
INTEGER_MAX: Final = 2**63 - 1  # SQLite's
NAME_MAX_CHARACTERS: Final = 255  # as file systems have it; percent-encoded it still fits a URL
CAPTION_MAX_CHARACTERS: Final = 4096  # what a premium account may write
EDGE_MAX_PX: Final = 100_000
QUALITIES_MAX: Final = 16
DURATION_MAX_S: Final = 10 * 365 * 86400.0
# Marks that turn the reading direction (UAX #9 section 2). Unseen themselves, they show the name
# `gpj.exe` as `exe.jpg`; scripts that read from the right need none of them to be read so.
_TURNING_MARKS: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LINE_ENDS: Final = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class MediaFile:
    """One file of one post, as the worker's listing describes it; or of several posts that are one
    split film, which the index makes of them: then `parts` are the posts behind the first."""

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
    title: str = ""  # of a piece of music, as are those who perform it
    performer: str = ""
    album: int | None = None  # equal for all files of an album
    reply_to: int | None = None
    qualities: tuple[int, ...] = ()  # heights of those that Telegram has made, the largest first
    has_storyboard: bool = False
    parts: tuple[int, ...] = ()
    apart: str = ""  # why a part of a split film stays by itself; see `split_films`
    missing: tuple[int, ...] = ()  # the numbers of the parts that are not there

    @classmethod
    def from_listing(cls, item: Mapping[str, Any]) -> Self:
        """Build from one element of `files`; if that is wrong raise one of MALFORMED."""
        name = clean_line(item["name"])
        return cls(
            chat_id=_whole(item["chat_id"], -INTEGER_MAX, INTEGER_MAX),
            message_id=_whole(item["message_id"], 1, MESSAGE_ID_MAX),
            name=name,
            mime_type=clean_line(item["mime_type"]) or guess_type(name),
            size=_whole(item["size"], 0, INTEGER_MAX),
            date=_whole(item["date"], 0, INTEGER_MAX),
            duration=_measure(item.get("duration"), DURATION_MAX_S),
            width=_edge(item.get("width")),
            height=_edge(item.get("height")),
            caption=clean_text(item.get("caption"))[:CAPTION_MAX_CHARACTERS],
            has_thumbnail=bool(item.get("has_thumbnail")),
            title=clean_line(item.get("title")),
            performer=clean_line(item.get("performer")),
            album=_number(item.get("album"), -INTEGER_MAX, INTEGER_MAX),
            reply_to=_number(item.get("reply_to"), 1, MESSAGE_ID_MAX),
            qualities=_heights(item.get("qualities")),
            has_storyboard=item.get("has_storyboard") is True,
        )

    @property
    def kind(self) -> str:
        """One of KINDS. Films are often sent as octet-stream: the name decides then."""
        for mime_type in (self.mime_type, guess_type(self.name)):
            family = mime_type.partition("/")[0]
            if family in KINDS:
                return family
        return "document"


def blank_file(chat_id: int, message_id: int, mime_type: str = "") -> MediaFile:
    """What is known of a file of which only the place is known."""
    place = {"chat_id": chat_id, "message_id": message_id}
    facts = {"name": "", "mime_type": mime_type, "size": 0, "date": 0}
    return MediaFile.from_listing({**place, **facts})


def clean_text(value: object) -> str:
    """Text of any number of lines that shows what it says and that every encoding can write."""
    text = str(value or "").encode("utf-8", "replace").decode()  # JSON may hold half characters
    return _CONTROLS.sub(" ", _LINE_ENDS.sub("\n", _TURNING_MARKS.sub("", text)))


def clean_line(value: object) -> str:
    """The same in one line, and not too long; what is too long loses its middle."""
    line = clean_text(value).replace("\n", " ").strip()
    if len(line) <= NAME_MAX_CHARACTERS:
        return line
    half = NAME_MAX_CHARACTERS // 2
    return f"{line[:half]}…{line[-half:]}"


def _whole(value: Any, least: int, most: int) -> int:
    number = int(value)
    if not least <= number <= most:
        raise ValueError
    return number


def _number(value: Any, least: int, most: int) -> int | None:
    """A number that may be left out; nonsense is none."""
    return value if type(value) is int and least <= value <= most else None


def _heights(value: Any) -> tuple[int, ...]:
    """The heights that make sense, the largest first."""
    heights = value if isinstance(value, list) else []
    sensible = {each for each in heights if type(each) is int and 0 < each <= EDGE_MAX_PX}
    return tuple(sorted(sensible, reverse=True)[:QUALITIES_MAX])


def _measure(value: Any, most: float) -> float | None:
    """A measure that the uploader's program has written down; nonsense is none."""
    number = 0.0 if value is None else float(value)
    is_sensible = value is not None and math.isfinite(number) and 0 <= number <= most
    return number if is_sensible else None


def _edge(value: Any) -> int | None:
    number = _measure(value, EDGE_MAX_PX)
    return None if number is None else int(number)


# Python's own table, not the machine's, so that a file is the same kind everywhere.
MIME_TYPES: Final = mimetypes.MimeTypes()
for _extension, _mime_type in {
    ".ass": "text/x-ssa",
    ".flac": "audio/flac",
    ".js": "text/javascript",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".mjs": "text/javascript",
    ".mkv": "video/x-matroska",
    ".ogg": "audio/ogg",
    ".srt": "application/x-subrip",
    ".ssa": "text/x-ssa",
    ".ts": "video/mp2t",
    ".vtt": "text/vtt",
    ".webp": "image/webp",
}.items():
    MIME_TYPES.add_type(_mime_type, _extension)


def guess_type(name: str) -> str:
    """The media type a file name stands for."""
    return MIME_TYPES.guess_type(name)[0] or "application/octet-stream"


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


def told_urls(worker_url: str, file: MediaFile, token: str) -> dict[str, str | None]:
    """Where the worker tells more of a film: its seek pictures, if Telegram made some, and what its
    head says of codecs and tracks."""
    ids = f"{file.chat_id}/{file.message_id}?token={token}"
    is_played = file.kind in ("video", "audio")
    return {
        "storyboard": f"{worker_url}/storyboard/{ids}" if file.has_storyboard else None,
        "tracks": f"{worker_url}/tracks/{ids}" if is_played else None,
    }


@dataclass(frozen=True)
class Hls:
    """The qualities that Telegram has made of a film, as HLS: where at the worker, which heights,
    and until when the worker renews the token in the URL."""

    url: str
    heights: tuple[int, ...]
    expires_at: int


def hls_url(worker_url: str, file: MediaFile, token: str, grant: str) -> str:
    """The URL of the master playlist. Its token goes along to every segment, and so does what
    renews it: the playlist is loaded once and may be played for longer than an hour."""
    ids = f"{file.chat_id}/{file.message_id}"
    return f"{worker_url}/hls/{ids}/master.m3u8?token={token}&renew={grant}"
