"""Snippets: HTML that people paste into pages of their own.

Both fit the column they stand in and keep their proportions; where a page's policy forbids the
style, `width` and `height` remain.
"""

from html import escape

from gallery.files import MediaFile
from gallery.presentation import shown_size
from gallery.shares import Links


def embed_code(
    links: Links, title: str, file: MediaFile, size: tuple[int, int] | None = None
) -> str:
    """The player in a frame. It never learns which page it stands on."""
    width, height = size or shown_size(file)
    return (
        f'<iframe src="{escape(links.embed_url)}" title="{escape(title)}"'
        f' width="{width}" height="{height}" style="border:0;{_fit(file, width, height)}"'
        ' loading="lazy" allow="autoplay; fullscreen; picture-in-picture" allowfullscreen'
        ' referrerpolicy="no-referrer"></iframe>'
    )


def media_code(links: Links, title: str, file: MediaFile) -> str:
    """The file itself in the element that shows it."""
    source, label = f'src="{escape(links.url)}"', escape(title)
    width, height = shown_size(file)
    size = f'width="{width}" height="{height}" style="{_fit(file, width, height)}"'
    if file.kind == "image":
        return f'<img {source} alt="{label}" {size}>'
    if file.kind == "audio":
        return f'<audio {source} controls preload="metadata" aria-label="{label}"></audio>'
    if file.kind == "video":
        poster = f' poster="{escape(links.poster_url)}"' if file.has_thumbnail else ""
        return (
            f'<video {source}{poster} controls playsinline preload="metadata"'
            f' aria-label="{label}" {size}></video>'
        )
    return f'<a href="{escape(links.url)}?download=1">{label}</a>'


def _fit(file: MediaFile, width: int, height: int) -> str:
    if file.kind == "audio":
        return f"width:100%;max-width:{width}px"
    return f"width:100%;max-width:{width}px;height:auto;aspect-ratio:{width}/{height}"
