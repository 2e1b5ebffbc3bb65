"""Previews: what chats and social sites read of a page to show it as a card, perhaps with a player.

Open Graph (https://ogp.me) and X's cards, which others fall back to. Each platform reads its own
share of this; docs/embedding.md has what each documents, and the tests hold the tags to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gallery.files import MediaFile
from gallery.pages import Tag
from gallery.presentation import description_of, media_type_of, poster_size, shown_size, title_of
from gallery.shares import Links

CARD: Final = ("card.png", 1200, 630)  # in static/: for whatever has no picture of its own
X_PICTURE_MIN_PX: Final = 68_600  # in all: with a smaller picture X shows no player card
PICTURE_MAX_BYTES: Final = 5_000_000  # X's limit; Facebook's is 8 MB
_PICTURE_TYPES: Final = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
# What players in chats can be expected to play; others get the page with our player.
_PLAYED_TYPES: Final = frozenset({"video/mp4", "video/webm", "audio/mpeg", "audio/mp4"})
_KINDS: Final = {"video": "video.other", "audio": "music.song"}


@dataclass(frozen=True)
class _Picture:
    """A picture that stands for the file; its size where it is known."""

    url: str
    mime_type: str
    size: tuple[int, int] | None


def preview_tags(file: MediaFile, links: Links, *, may_be_framed: bool) -> list[Tag]:
    """All of it, for the head of a page about this share."""
    properties = (*_open_graph(file, links), *_players(file, links, may_be_framed=may_be_framed))
    names = _card(file, links, may_be_framed=may_be_framed)
    return [
        *(Tag("property", name, value) for name, value in properties),
        *(Tag("name", name, value) for name, value in names),
    ]


def _open_graph(file: MediaFile, links: Links) -> Iterator[tuple[str, str]]:
    yield "og:site_name", "Rangegram"
    yield "og:type", _KINDS.get(file.kind, "website")
    yield "og:url", links.watch_url
    yield "og:title", title_of(file)
    yield "og:description", description_of(file)
    picture = _picture(file, links)
    yield "og:image", picture.url
    if links.is_secure:
        yield "og:image:secure_url", picture.url
    yield "og:image:type", picture.mime_type
    if picture.size is not None:
        yield "og:image:width", str(picture.size[0])
        yield "og:image:height", str(picture.size[1])
    yield "og:image:alt", title_of(file)


def _players(file: MediaFile, links: Links, *, may_be_framed: bool) -> Iterator[tuple[str, str]]:
    """The file first, which some chats play by themselves; then the page that holds our player."""
    if file.kind not in _KINDS:
        return
    size = shown_size(file)
    if media_type_of(file) in _PLAYED_TYPES:
        yield from _player(file.kind, links, links.url, media_type_of(file), size)
    if may_be_framed:
        yield from _player("video", links, links.embed_url, "text/html", size)
    if file.duration:
        prefix = "video" if file.kind == "video" else "music"
        yield f"{prefix}:duration", str(max(1, round(file.duration)))


def _player(
    kind: str, links: Links, url: str, mime_type: str, size: tuple[int, int]
) -> Iterator[tuple[str, str]]:
    yield f"og:{kind}", url
    yield f"og:{kind}:url", url
    if links.is_secure:
        yield f"og:{kind}:secure_url", url
    yield f"og:{kind}:type", mime_type
    if kind == "video":
        yield "og:video:width", str(size[0])
        yield "og:video:height", str(size[1])


def _card(file: MediaFile, links: Links, *, may_be_framed: bool) -> Iterator[tuple[str, str]]:
    """X's own tags. `twitter:site`, which it asks for too, is an account that we do not have."""
    has_player = file.kind in _KINDS and may_be_framed
    picture = _picture(file, links)
    if has_player and _is_too_small(picture):
        picture = _stand_in(links)
    still = "summary_large_image" if file.kind == "image" else "summary"
    yield "twitter:card", "player" if has_player else still
    yield "twitter:title", title_of(file)
    yield "twitter:description", description_of(file)
    yield "twitter:image", picture.url
    yield "twitter:image:alt", title_of(file)
    if not has_player:
        return
    width, height = shown_size(file)
    yield "twitter:player", links.embed_url
    yield "twitter:player:width", str(width)
    yield "twitter:player:height", str(height)
    if media_type_of(file) in _PLAYED_TYPES:
        yield "twitter:player:stream", links.url
        yield "twitter:player:stream:content_type", media_type_of(file)


def _is_too_small(picture: _Picture) -> bool:
    return picture.size is not None and picture.size[0] * picture.size[1] < X_PICTURE_MIN_PX


def _picture(file: MediaFile, links: Links) -> _Picture:
    """The picture itself if it is one; else the thumbnail; else what stands in for all of them."""
    is_picture = media_type_of(file) in _PICTURE_TYPES and 0 < file.size <= PICTURE_MAX_BYTES
    if is_picture:
        size = (file.width, file.height) if file.width and file.height else None
        return _Picture(links.url, media_type_of(file), size)
    if file.has_thumbnail:
        return _Picture(links.poster_url, "image/jpeg", poster_size(file))
    return _stand_in(links)


def _stand_in(links: Links) -> _Picture:
    name, width, height = CARD
    return _Picture(f"{links.base}/static/{name}", "image/png", (width, height))
