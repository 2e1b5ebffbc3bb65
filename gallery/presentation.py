"""Presentation: what others see of a file: its name, its facts, its size in a page."""

import re
from typing import Final

from gallery.files import MediaFile, guess_type

FILM_SIZE: Final = (640, 360)  # of a film whose own size is unknown
SONG_SIZE: Final = (640, 120)  # a title and a row of controls
FRAME_MAX_PX: Final = 1280
POSTER_MAX_PX: Final = 320  # Telegram's thumbnails of size "m"
_UNITS: Final = ("B", "KB", "MB", "GB", "TB")
_READ_TYPES: Final = ("application/pdf", "text/plain")
_VAGUE_TYPE: Final = "application/octet-stream"


def title_of(file: MediaFile) -> str:
    """A file's name as a person would write it, in one line, as format.js does it."""
    if file.title:
        return "".join(c for c in file.title if c.isprintable()).strip() or "Film"
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", file.name)
    spaced = stem if re.search(r"\s", stem) else re.sub(r"[._]+", " ", stem)
    written = file.caption.strip().partition("\n")[0][:120]
    made_up = re.fullmatch(r"((photo|video)_[\d_-]+)?", stem.strip())
    title = (written if made_up else "") or spaced or written or "Film"
    return "".join(c for c in title if c.isprintable()).strip() or "Film"


def facts_of(file: MediaFile) -> str:
    """Who performs it, length, measures and size as far as known: `1:02:03 · … · 1.4 GB`."""
    measures = f"{file.width} \u00d7 {file.height}" if file.width and file.height else ""
    size = _size(file.size) if file.size else ""
    facts = (file.performer, _length(file.duration), measures, size)
    return " · ".join(fact for fact in facts if fact)


def description_of(file: MediaFile) -> str:
    """The same, and something in any case: chats show no card without a description."""
    return facts_of(file) or title_of(file)


def media_type_of(file: MediaFile) -> str:
    """The media type, by the name where the uploader's program said nothing of use."""
    guessed = guess_type(file.name) if file.mime_type == _VAGUE_TYPE else file.mime_type
    return guessed.strip().lower()


def opens_in_browser(file: MediaFile) -> bool:
    """Whether a browser has a viewer of its own for a document, which runs nothing of it."""
    return media_type_of(file) in _READ_TYPES


def page_values(file: MediaFile) -> dict[str, str]:
    """What the page of a shared file says of it, by whatever link it is opened."""
    width, height = shown_size(file)
    is_read = opens_in_browser(file)
    return {
        "kind": file.kind,
        "name": file.name,
        "performer": file.performer,
        "facts": facts_of(file),
        "description": description_of(file),
        "mime_type": media_type_of(file),
        "size": str(file.size),
        "width": str(width),
        "height": str(height),
        "heights": " ".join(map(str, file.qualities)),
        "has_storyboard": "yes" if file.has_storyboard else "",
        "playlist_hidden": "" if file.kind in ("video", "audio") else "hidden",
        "open_hidden": "" if is_read else "hidden",
        "download_style": "button-quiet" if is_read else "",
    }


def shown_size(
    file: MediaFile, width_max: int = FRAME_MAX_PX, height_max: int = FRAME_MAX_PX
) -> tuple[int, int]:
    """The frame a file needs, made smaller to fit, a picture in its own proportions."""
    width_max, height_max = min(width_max, FRAME_MAX_PX), min(height_max, FRAME_MAX_PX)
    if file.kind == "audio":
        return min(SONG_SIZE[0], width_max), min(SONG_SIZE[1], height_max)
    width, height = (file.width, file.height) if file.width and file.height else FILM_SIZE
    scale = min(1, width_max / width, height_max / height)
    return max(1, int(width * scale)), max(1, int(height * scale))


def poster_size(file: MediaFile) -> tuple[int, int]:
    """How large Telegram has made the thumbnail, as far as the file's own size tells."""
    width, height = (file.width, file.height) if file.width and file.height else FILM_SIZE
    scale = min(1, POSTER_MAX_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _length(duration_s: float | None) -> str:
    if not duration_s:
        return ""
    minutes, seconds = divmod(max(1, round(duration_s)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _size(size: int) -> str:
    """Decimal units, as format.js has them."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{1 if unit > 1 and value < 10 else 0}f} {_UNITS[unit]}"
