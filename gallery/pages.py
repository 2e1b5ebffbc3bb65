"""Pages: templates and static files, and the frame they are shown in."""

import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from aiohttp import web

from gallery.files import guess_type
from gallery.settings import SETTINGS


class Tag(NamedTuple):
    """A `<meta>` element: whether it is known by `name` or `property`, which, and what it says."""

    attribute: str
    name: str
    content: str

    def html(self) -> str:
        return f'<meta {self.attribute}="{escape(self.name)}" content="{escape(self.content)}">'


class Pages:
    """Templates and static files, read once: no request costs a disk read or names another file."""

    def __init__(self, folder: Path) -> None:
        self._templates = {
            path.name: Template(path.read_text("utf-8"))
            for path in sorted((folder / "templates").glob("*.html"))
        }
        static = folder / "static"
        self.static = {
            path.relative_to(static).as_posix(): path.read_bytes()
            for path in sorted(static.rglob("*"))
            if path.is_file()
        }
        # Modules import each other by relative path, so the version of one is the version of all.
        self.version = hashlib.sha256(repr(self.static).encode()).hexdigest()[:12]

    def response(
        self,
        name: str,
        title: str,
        values: Mapping[str, str],
        status: int = 200,
        frame: str = "base.html",
        *,
        below: str | None = None,
        tags: Iterable[Tag] = (),
    ) -> web.Response:
        """The page in its frame, with another part below it and tags in its head if there are any.

        Every value is escaped; only templates are markup.
        """
        static = f"/static/{self.version}"
        escaped = {key: escape(value) for key, value in {**values, "title": title}.items()}
        main, rest = (
            self._templates[part].substitute(escaped, static=static) if part else ""
            for part in (name, below)
        )
        head = "\n        ".join(tag.html() for tag in tags)
        html = self._templates[frame].substitute(
            escaped, main=main, below=rest, tags=head, static=static
        )
        response = web.Response(
            text=html,
            status=status,
            content_type="text/html",
            headers={"Cache-Control": "no-store"},
        )
        response.enable_compression()
        return response


PAGES: Final = web.AppKey("PAGES", Pages)
# The player may stand in a frame without an origin of its own (`sandbox`), for which even our own
# script is another site's. There is nothing in these files that is not public.
STATIC_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


async def gallery_page(request: web.Request) -> web.Response:
    """GET /"""
    settings = request.app[SETTINGS]
    values = {
        "sign_out": "hidden" if settings.gallery_password is None else "",
        "workers": " ".join(settings.worker_urls),  # which the page wakes at once
    }
    return request.app[PAGES].response("gallery.html", "Rangegram", values)


async def static_file(request: web.Request) -> web.Response:
    """GET /static/[{version}/]{name}: with the version in the path it may be cached for good."""
    pages = request.app[PAGES]
    path = request.match_info["path"]
    name = path.removeprefix(f"{pages.version}/")
    content = pages.static.get(name)
    if content is None:
        raise web.HTTPNotFound
    mime_type = guess_type(name)
    is_text = mime_type != "image/png"
    charset = "utf-8" if is_text else None
    response = web.Response(
        body=content, content_type=mime_type, charset=charset, headers=STATIC_HEADERS
    )
    lifetime = "no-cache" if name == path else "public, max-age=31536000, immutable"
    response.headers["Cache-Control"] = lifetime
    if is_text:
        response.enable_compression()
    return response


async def service_worker(request: web.Request) -> web.Response:
    """GET /service-worker.js: it may look after the folder it lies in, so it lies at the top."""
    response = web.Response(
        body=request.app[PAGES].static["service-worker.js"],
        content_type="text/javascript",
        charset="utf-8",
    )
    response.headers["Cache-Control"] = "no-cache"
    return response
