"""oEmbed: how a share is embedded, as https://oembed.com has it (version 1.0)."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from gallery.errors import ApiError
from gallery.files import EDGE_MAX_PX, MediaFile
from gallery.presentation import poster_size, shown_size, title_of
from gallery.shares import Links
from gallery.snippets import embed_code

CACHE_AGE_S: Final = 24 * 3600
_TYPES: Final = {"video": "video", "audio": "rich", "image": "rich", "document": "link"}


def oembed_link(links: Links) -> str:
    """Where this share is described, for the discovery of section 4."""
    return f"{links.base}/oembed?{urlencode({'url': links.watch_url, 'format': 'json'})}"


def read_limit(query: Mapping[str, str], name: str) -> int:
    """How many pixels a query allows; raise ApiError (400) for what is no such number."""
    text = query.get(name, str(EDGE_MAX_PX))
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise ApiError(400, "bad_size", f"{name} is a number of pixels.")
    return int(text)


def describe(
    file: MediaFile,
    links: Links,
    limits: tuple[int, int],
    *,
    may_be_framed: bool,
    ends_in_s: int | None,
) -> dict[str, object]:
    """The answer; `limits` are maxwidth and maxheight, which nothing in it exceeds (2.2).

    What no other site may show in a frame is a link, which is also what section 2.3.4.4 is for.
    """
    title = title_of(file)
    body: dict[str, object] = {
        "version": "1.0",
        "type": _TYPES[file.kind] if may_be_framed else "link",
        "title": title,
        "provider_name": "Rangegram",
        "provider_url": links.base,
        "cache_age": CACHE_AGE_S if ends_in_s is None else min(CACHE_AGE_S, ends_in_s),
    }
    if _is_photo_of(file, limits):
        size = {"width": file.width, "height": file.height}
        body |= {"type": "photo", "url": links.url, **size}
    elif body["type"] != "link":
        width, height = shown_size(file, *limits)
        html = embed_code(links, title, file, (width, height))
        body |= {"html": html, "width": width, "height": height}
    return body | _thumbnail(file, links, limits)


def _is_photo_of(file: MediaFile, limits: tuple[int, int]) -> bool:
    """Whether the picture's own size is known and small enough: a photo's URL is taken as it is."""
    if file.kind != "image" or not (file.width and file.height):
        return False
    return file.width <= limits[0] and file.height <= limits[1]


def _thumbnail(file: MediaFile, links: Links, limits: tuple[int, int]) -> dict[str, object]:
    width, height = poster_size(file)
    if not file.has_thumbnail or width > limits[0] or height > limits[1]:
        return {}
    return {
        "thumbnail_url": links.poster_url,
        "thumbnail_width": width,
        "thumbnail_height": height,
    }
