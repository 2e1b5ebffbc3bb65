"""A page of somebody else's site that shows shared files in every way, in Chromium and Firefox.

Goal: bare elements with and without `crossorigin`, scripts that ask for ranges, frames with and
without an origin of their own play, seek and outlast their tokens. Method:
`pages/third-party.html`, on plain http under a name of a local network, with a policy that allows
it the gallery and the worker and nothing else; the page itself looks whether its elements play.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import worker
from aiohttp import web
from aiohttp.test_utils import TestClient
from browsers import BROWSERS, FIREFOX, Tab, open_tab
from conftest import JWT_SECRET, REPOSITORY, Stage, StartClient
from firefox import open_firefox

import backend
from gallery import tokens, visitors
from gallery.settings import Settings
from gallery.shares import new_share, write_share
from telegram_simulator.content import BytesContent, FileContent
from telegram_simulator.looped_film import LoopedFilm
from telegram_simulator.world import PhotoSize, Post

pytestmark = pytest.mark.timeout(240)
PAGE = (REPOSITORY / "tests" / "pages" / "third-party.html").read_text("utf-8")
TOKEN_LIFETIME_S = 3
TURNS = 400  # of a film of 8 s: nearly an hour, more than any browser takes in advance
FRAMES = ("plain", "sandboxed", "originless")
PLAYS = """new Promise((resolve, reject) => {
  const end = performance.now() + 40_000;
  const look = () => {
    const film = document.querySelector("video");
    if (film.currentTime > %s + 0.2) {
      resolve(window.origin);
    } else if (film.error || performance.now() > end) {
      reject(new Error(`stuck at ${film.currentTime}: ${film.error?.message}`));
    } else {
      setTimeout(look, 20);
    }
  };
  look();
})"""

PICTURE_IS_THERE = """new Promise((resolve) => {
  const look = () => (document.images[0]?.naturalWidth ? resolve() : setTimeout(look, 20));
  look();
})"""


@dataclass
class Blog:
    """Somebody's page, and what is shared with it."""

    stage: Stage
    film: LoopedFilm
    posts: dict[str, Post]
    worker_url: str
    start: StartClient
    log: pytest.LogCaptureFixture
    gallery_url: str = ""
    url: str = ""
    html: str = PAGE
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def renewals(self) -> int:
        """How often the worker has sent a browser on to a fresh token."""
        lines = (record.getMessage() for record in self.log.records)
        return sum(bool(re.search(r"GET /stream/\S+ 307 ", line)) for line in lines)

    async def open_gallery(self, **settings: str) -> str:
        """Another gallery for the same channel; its address."""
        environment = {**self.stage.environment(), "WORKER_URL": self.worker_url, **settings}
        environment["GALLERY_PASSWORD"] = "correct horse battery"
        app = await asyncio.to_thread(backend.create_app, Settings.from_env(environment))
        return f"http://films.lan:{(await self.start(app)).port}"

    async def open(self) -> None:
        """The gallery and the page about it."""

        async def show(_request: web.Request) -> web.Response:
            return web.Response(text=self.page(), content_type="text/html", headers=self.headers)

        app = web.Application()
        app.router.add_get("/", show)
        self.url = f"http://blog.lan:{(await self.start(app)).port}/"
        self.gallery_url = await self.open_gallery()

    def share(self, name: str, lifetime_s: int | None = None) -> str:
        made = new_share(self.stage.channel.chat_id, self.posts[name].id, lifetime_s, 0)
        return write_share(JWT_SECRET, made)

    def page(self) -> str:
        values = {
            "gallery": self.gallery_url,
            "worker": self.worker_url,
            "nonce": "of-the-page",
            **{name: self.share(name) for name in self.posts},
        }
        html = self.html
        for name, value in values.items():
            html = html.replace(f"{{{{{name}}}}}", value)
        return html


@pytest.fixture
async def blog(
    stage: Stage,
    sample_films: list[Path],
    start_worker: Callable[..., Awaitable[TestClient[Any, Any]]],
    aiohttp_client: StartClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sample_pictures: list[Path],
) -> Blog:
    caplog.set_level(logging.INFO, "rangegram.worker")
    # On a busy machine even a worker that is awake may take a second to say a name.
    monkeypatch.setattr(visitors, "NAME_PATIENCE_S", 30.0)
    for module in (tokens, worker):
        monkeypatch.setattr(module, "TOKEN_LIFETIME_S", TOKEN_LIFETIME_S)
    film = LoopedFilm(sample_films[0], TURNS)
    picture = FileContent(sample_pictures[0])
    poster = PhotoSize("m", 320, 180, BytesContent(picture.read(0, picture.size)))
    posts = {
        "film": stage.post(
            film,
            file_name="A night on the horizon.mp4",
            kind="video",
            duration_s=film.duration_s,
            width=1280,
            height=720,
            thumbnails=(poster,),
        ),
        "song": stage.post(film, "audio/mp4", file_name="A song.m4a"),
        "picture": stage.post(picture, "image/jpeg", file_name="Harbour.jpg"),
    }
    worker_url = str((await start_worker()).make_url("")).rstrip("/")
    blog = Blog(stage, film, posts, worker_url, aiohttp_client, caplog)
    await blog.open()
    return blog


# -- The page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("browser", BROWSERS)
async def test_everything_on_the_page_works(blog: Blog, browser: str, tmp_path: Path) -> None:
    async with open_tab(browser, tmp_path / "profile") as tab:
        await tab.goto(blog.url)
        assert await tab.evaluate("isSecureContext") is False
        await elements_play(blog, tab)
        await scripts_read(blog, tab)
        await frames_play(blog, tab)
        await all_outlast_their_tokens(blog, tab)
        assert await tab.evaluate("refused") == []


async def elements_play(blog: Blog, tab: Tab) -> None:
    for name in ("bare", "with-crossorigin", "with-source"):
        await tab.evaluate(f"plays('{name}')")
    assert await tab.evaluate("at('preload-none').readyState") == 0
    await tab.evaluate("until('preload-metadata', (film) => film.readyState > 0)")
    await tab.evaluate("until('preload-auto', isAhead)")
    await tab.evaluate("until('at-a-time', (film) => film.readyState > 0)")
    assert await tab.evaluate("at('at-a-time').currentTime") == 90
    for name in ("preload-metadata", "preload-auto"):
        duration_s = await tab.evaluate(f"at('{name}').duration")
        assert duration_s == pytest.approx(blog.film.duration_s, abs=0.1)
        assert await tab.evaluate(f"at('{name}').paused")
    for name in ("preload-none", "song"):
        await tab.evaluate(f"(at('{name}').muted = true, at('{name}').play())")
        await tab.evaluate(f"plays('{name}')")
    for name in ("picture", "readable-picture", "poster"):
        await tab.evaluate(f"until('{name}', (image) => image.complete)")
        assert await tab.evaluate(f"at('{name}').naturalWidth") > 300
    for name in ("with-crossorigin", "readable-picture"):
        assert (await tab.evaluate(f"pixelOf(at('{name}'))"))[3] == 255  # no error, that is


async def scripts_read(blog: Blog, tab: Tab) -> None:
    link, size = f"/v/{blog.share('film')}", blog.film.size

    async def ask(path: str = link, method: str = "GET", **headers: str) -> dict[str, Any]:
        options = json.dumps({"method": method, "headers": headers})
        answer: dict[str, Any] = await tab.evaluate(f"read('{path}', {options})")
        return answer

    # A browser sends the first kind at once; the others it asks for first, here and at the worker.
    tag = ""
    for span, start, stop in (
        ("bytes=1000-1063", 1000, 1064),
        (f"bytes={size - 64}-", size - 64, size),
        ("bytes=-64", size - 64, size),
    ):
        answer = await ask(Range=span)
        assert answer["status"] == 206
        assert bytes(answer["bytes"]) == blog.film.read(start, stop - start)
        assert answer["headers"]["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
        assert answer["headers"]["Content-Length"] == "64"
        assert answer["headers"]["Content-Type"] == "video/mp4"
        assert answer["headers"]["Accept-Ranges"] == "bytes"
        tag = answer["headers"]["ETag"]
    assert (await ask(**{"Range": "bytes=0-63", "If-Range": tag}))["status"] == 206
    assert (await ask(**{"If-None-Match": tag}))["status"] == 304
    head = await ask(method="HEAD")
    assert (head["status"], head["headers"]["Content-Length"]) == (200, str(size))
    beyond = await ask(Range=f"bytes={size}-")
    assert (beyond["status"], beyond["headers"]["Content-Range"]) == (416, f"bytes */{size}")
    for path in (f"{link}/poster", f"/m3u/{blog.share('film')}", f"/watch/{blog.share('film')}"):
        assert (await ask(path))["status"] == 200
    embedding = await ask(f"/oembed?url={blog.gallery_url}{link}")
    assert bytes(embedding["bytes"]).startswith(b'{"version": "1.0"')
    ended = await ask(f"/v/{blog.share('film', lifetime_s=1)}")
    assert (ended["status"], bytes(ended["bytes"])[:33]) == (
        410,
        b'{"error": {"code": "share_ended",',
    )


async def frames_play(blog: Blog, tab: Tab) -> None:
    frames = dict(zip((*FRAMES, "scriptless", "unreferred"), await tab.frames(), strict=True))
    origins = {name: await frames[name].evaluate(PLAYS % 0) for name in FRAMES}
    for name in FRAMES:
        title = await frames[name].evaluate("document.title")
        assert title == "A night on the horizon"
    assert origins == {
        "plain": blog.gallery_url,
        "sandboxed": blog.gallery_url,
        "originless": "null",
    }
    # Without scripts the film is the browser's own element, ready to be played by its controls.
    film = "document.querySelector('video')"
    assert await frames["scriptless"].evaluate(f"{film}.readyState > 0 && {film}.controls")
    await tab.evaluate("at('unreferred').scrollIntoView()")
    await frames["unreferred"].evaluate(PICTURE_IS_THERE)


async def all_outlast_their_tokens(blog: Blog, tab: Tab) -> None:
    """Each jumps to where nothing was fetched yet, by an address whose token has ended.

    Bare elements live by the grant alone; a frame's player may be quicker and ask the gallery.
    """
    await asyncio.sleep(TOKEN_LIFETIME_S + 1)
    renewals = blog.renewals
    elements = ("bare", "with-crossorigin", "with-source", "preload-none", "song")
    frames = (await tab.frames())[: len(FRAMES)]
    at = blog.film.duration_s / 2
    for name in elements:
        await tab.evaluate(f"playsFrom('{name}', {at})")
    for frame in frames:
        await frame.evaluate(f"document.querySelector('video').currentTime = {at}")
        await frame.evaluate(PLAYS % at)
    assert blog.renewals - renewals >= len(elements)


# -- Which pages may show the player ---------------------------------------------------------------

# A frame that is refused has loaded too: what the browser shows in its place.
ADD_FRAMES = """Promise.all(%s.map((src) => new Promise((resolve) => {
  const frame = document.createElement("iframe");
  frame.addEventListener("load", resolve);
  frame.src = src;
  document.body.append(frame);
}))).then(() => null)"""
HAS_FILM = "document.querySelector('#film') !== null"


@pytest.mark.parametrize("browser", BROWSERS)
async def test_only_the_sites_that_are_named_may_frame_the_player(
    blog: Blog, browser: str, tmp_path: Path
) -> None:
    """A refused frame holds the browser's own page in place of ours."""
    here = blog.url.rstrip("/")
    wanted = {
        "*": True,
        here: True,
        f"https://other.example, {here}": True,
        "blog.lan:*": True,
        "none": False,
        "self": False,
        "https://other.example": False,
        "films.lan:*": False,
    }
    galleries = [await blog.open_gallery(FRAME_ANCESTORS=value) for value in wanted]
    players = [f"{gallery}/embed/{blog.share('film')}" for gallery in galleries]
    blog.html = "<!DOCTYPE html><title>Frames</title>"
    async with open_tab(browser, tmp_path / "profile") as tab:
        await tab.goto(blog.url)
        await tab.evaluate(ADD_FRAMES % json.dumps(players))
        shown = [await frame.evaluate(HAS_FILM) for frame in await tab.frames()]
    assert dict(zip(wanted, shown, strict=True)) == wanted


# -- A page that is cross-origin isolated ----------------------------------------------------------

ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


@pytest.mark.parametrize("browser", BROWSERS)
async def test_an_isolated_page_shows_film_picture_and_player(
    blog: Blog, browser: str, tmp_path: Path
) -> None:
    """Only a secure context can be isolated: this machine's own names count as one."""
    gallery, film = blog.gallery_url.replace("films.lan", "127.0.0.1"), blog.share("film")
    blog.headers = ISOLATED
    blog.html = f"""<!DOCTYPE html><title>Isolated</title>
      <video src="{gallery}/v/{film}" muted autoplay width="320"></video>
      <img src="{gallery}/v/{film}/poster" alt="">
      <iframe src="{gallery}/embed/{film}?autoplay=1&amp;muted=1" allow="autoplay"></iframe>"""
    async with open_tab(browser, tmp_path / "profile") as tab:
        await tab.goto(blog.url.replace("blog.lan", "localhost"))
        assert await tab.evaluate("crossOriginIsolated")
        await tab.evaluate(PLAYS % 0)
        await tab.evaluate(PICTURE_IS_THERE)
        (frame,) = await tab.frames()
        await frame.evaluate(PLAYS % 0)


# -- Out of sight ----------------------------------------------------------------------------------


async def test_a_tab_in_the_background_plays_on_over_the_end_of_its_token(
    blog: Blog, tmp_path: Path
) -> None:
    """In Firefox: a headless Chromium has no background."""
    film = "document.querySelector('video')"
    async with open_firefox(tmp_path / "profile", **FIREFOX) as tab:
        await tab.goto(f"{blog.gallery_url}/embed/{blog.share('film')}?autoplay=1&muted=1")
        await tab.evaluate(PLAYS % 0)
        await tab.new_tab()
        assert await tab.evaluate("document.visibilityState") == "hidden"
        hidden_at = await tab.evaluate(f"{film}.currentTime")
        await asyncio.sleep(TOKEN_LIFETIME_S + 1)
        await tab.evaluate(PLAYS % hidden_at)
        at = blog.film.duration_s / 2
        await tab.evaluate(f"{film}.currentTime = {at}")
        await tab.evaluate(PLAYS % at)
        await tab.show()
        assert await tab.evaluate("document.visibilityState") == "visible"
        await tab.evaluate(PLAYS % (at + 1))
