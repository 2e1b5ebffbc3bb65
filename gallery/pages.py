"""Pages: templates and static files, and the frame they are shown in."""

import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from aiohttp import web

from gallery.files import guess_type
from gallery.settings import SETTINGS


class Pages:
    """Templates and static files, read once: no request costs a disk read or names another file."""

    def __init__(self, folder: Path) -> None:
        self._templates = {
            path.name: Template(path.read_text("utf-8"))
            for path in sorted((folder / "templates").glob("*.html"))
        }
        self.static = {
            path.name: path.read_bytes() for path in sorted((folder / "static").iterdir())
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
    ) -> web.Response:
        """The page in its frame. Every value is escaped; only templates are markup."""
        static = f"/static/{self.version}"
        escaped = {key: escape(value) for key, value in {**values, "title": title}.items()}
        main = self._templates[name].substitute(escaped, static=static)
        html = self._templates[frame].substitute(escaped, main=main, static=static)
        response = web.Response(
            text=html,
            status=status,
            content_type="text/html",
            headers={"Cache-Control": "no-store"},
        )
        response.enable_compression()
        return response


PAGES: Final = web.AppKey("PAGES", Pages)


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
    version, _, name = request.match_info["path"].rpartition("/")
    content = pages.static.get(name)
    if content is None or version not in ("", pages.version):
        raise web.HTTPNotFound
    response = web.Response(body=content, content_type=guess_type(name), charset="utf-8")
    lifetime = "public, max-age=31536000, immutable" if version else "no-cache"
    response.headers["Cache-Control"] = lifetime
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
