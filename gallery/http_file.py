"""A file over HTTP: the parts of an answer that need no bytes, after RFC 9110."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gallery.files import MediaFile

_RANGE: Final = re.compile(r"\s*bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.ASCII | re.IGNORECASE)
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
# What a browser shows without running any of it. All else is handed out as a download: text/xsl and
# whatever ends in +xml may be pages too.
_SHOWN_TYPES: Final = re.compile(r"(?:video|audio|image)/(?!svg)[^+]+|application/pdf|text/plain")
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True)
class ByteRange:
    """The bytes from `start` up to, without it, `stop`."""

    start: int
    stop: int


class RangeNotSatisfiableError(Exception):
    """The range begins beyond the end of the file."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range a header asks for; None means the whole file; raise RangeNotSatisfiableError.

    Section 14.2 lets a server ignore what is malformed, of another unit or of several ranges.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    # Python refuses to convert thousands of digits; no file has more than 18 of them.
    first, last = (int(digits.lstrip("0")[:19] or "0") if digits else None
                   for digits in match.groups())  # fmt: skip
    if first is None:
        start, stop = max(0, size - (last or 0)), size
    elif last is not None and last < first:
        return None
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    if start >= stop:
        raise RangeNotSatisfiableError
    return ByteRange(start, stop)


def entity_tag(unique_id: str, size: int) -> str:
    """A strong tag: Telegram's `file_unique_id` is of these very bytes."""
    return f'"{hashlib.sha256(f"{unique_id}/{size}".encode()).hexdigest()[:20]}"'


def is_known(headers: Mapping[str, str], tag: str) -> bool:
    """Whether the client has it already: If-None-Match, section 13.1.2."""
    wanted = headers.get("If-None-Match", "")
    return wanted.strip() == "*" or tag in _TAG.findall(wanted)


def requested_range(headers: Mapping[str, str], tag: str, size: int) -> ByteRange | None:
    """Range, unless If-Range names another state of the file (section 13.1.5)."""
    if headers.get("If-Range", tag) != tag:
        return None
    return parse_range(headers.get("Range"), size)


def file_headers(file: MediaFile, *, as_download: bool) -> dict[str, str]:
    """Type and name, and that nothing in the file may act in the gallery's name."""
    mime_type = file.mime_type.strip().lower()
    mime_type = mime_type if _MEDIA_TYPE.fullmatch(mime_type) else "application/octet-stream"
    is_shown = _SHOWN_TYPES.fullmatch(mime_type) is not None
    headers = {
        "Content-Type": mime_type,
        "Content-Disposition": content_disposition(file.name, as_download or not is_shown),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    if not is_shown:
        headers["Content-Security-Policy"] = "sandbox; default-src 'none'; frame-ancestors 'none'"
    return headers


def content_disposition(name: str, as_download: bool) -> str:
    """Content-Disposition for a name in any script (RFC 6266, RFC 8187)."""
    kind = "attachment" if as_download else "inline"
    name = "".join(" " if c in "/\\" else c for c in name if c.isprintable())
    plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{kind}; filename="{plain}"{extended}'
