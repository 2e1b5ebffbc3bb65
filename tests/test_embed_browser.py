"""Our player in a frame of another site, and the page for people, in Chromium.

Goal: the player plays over the ends of its tokens, mends itself, obeys the keyboard and fits every
screen; the page around it does not get in its way, nor it in the page's. Method: a site on another
origin holds the link; tokens live for seconds; each jump goes to where nothing was fetched yet, so
that the browser has to ask the address it knows, whose token has ended. What other pages do with
bare links has test_third_party_page.py, for both browsers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import worker
from aiohttp import web
from aiohttp.test_utils import TestClient
from chromium import no_errors, open_chromium
from conftest import JWT_SECRET, Stage, StartClient
from playwright.async_api import Page, Request, expect

import backend
from gallery import tokens, visitors
from gallery.settings import Settings
from gallery.share_store import SHARES
from gallery.shares import new_share, write_share
from telegram_simulator.content import BytesContent
from telegram_simulator.looped_film import LoopedFilm
from telegram_simulator.world import PhotoSize, Post

# The first run makes the sample films; browsers are slow to start on a busy machine.
pytestmark = pytest.mark.timeout(180)
TOKEN_LIFETIME_S = 2
EXPIRIES = 2
TURNS = 400  # of a film of 8 s: nearly an hour, more than any browser takes in advance
PATIENCE_S = 30

HAS_COME_TO = """new Promise((resolve, reject) => {
  const end = performance.now() + %(patience)s * 1000;
  const look = () => {
    const film = document.querySelector("video");
    if (film.currentTime >= %(at)s && film.readyState >= 3) {
      resolve(film.currentTime);
    } else if (performance.now() > end) {
      reject(new Error(`stuck at ${film.currentTime}: ${film.error?.message ?? "no error"}`));
    } else {
      setTimeout(look, 20);
    }
  };
  look();
})"""


class Tab(Protocol):
    """A page, or a frame in it, in one of the browsers."""

    async def evaluate(self, expression: str) -> Any: ...


async def has_come_to(tab: Tab, at: float) -> None:
    await tab.evaluate(HAS_COME_TO % {"at": at, "patience": PATIENCE_S})


@dataclass
class Site:
    """A shared film, the gallery it is shared from, and a site of another origin."""

    stage: Stage
    post: Post
    film: LoopedFilm
    gallery: TestClient[Any, Any]
    elsewhere: TestClient[Any, Any]
    pages: dict[str, str]

    def link(self, door: str = "v", lifetime_s: int | None = None) -> str:
        """A link that never ends, or one that did long ago."""
        made = new_share(self.stage.channel.chat_id, self.post.id, lifetime_s, 0)
        return str(self.gallery.make_url(f"/{door}/{write_share(JWT_SECRET, made)}"))

    def page(self, body: str) -> str:
        """The address of a page with this body on the other site."""
        path = f"/{len(self.pages)}"
        self.pages[path] = f"<!DOCTYPE html><title>Elsewhere</title><body>{body}</body>"
        return str(self.elsewhere.make_url(path)).replace("127.0.0.1", "localhost")

    async def watch_over_expiries(self, tab: Tab) -> None:
        """Play; then, each time the token has ended, jump to a place never fetched."""
        await has_come_to(tab, 0.3)
        for turn in range(1, EXPIRIES + 1):
            await asyncio.sleep(TOKEN_LIFETIME_S + 1)
            at = self.film.duration_s * turn / (EXPIRIES + 1)
            await tab.evaluate(f"document.querySelector('video').currentTime = {at}")
            await has_come_to(tab, at + 0.5)


@pytest.fixture(scope="session")
def film(sample_films: list[Path]) -> LoopedFilm:
    return LoopedFilm(sample_films[0], TURNS)


@pytest.fixture(scope="session")
def poster(sample_pictures: list[Path]) -> bytes:
    return sample_pictures[0].read_bytes()


@pytest.fixture
async def site(
    stage: Stage,
    film: LoopedFilm,
    poster: bytes,
    start_worker: Callable[..., Awaitable[TestClient[Any, Any]]],
    aiohttp_client: StartClient,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    # On a busy machine even a worker that is awake may take a second to say a name.
    monkeypatch.setattr(visitors, "NAME_PATIENCE_S", 30.0)
    monkeypatch.setattr(tokens, "TOKEN_LIFETIME_S", TOKEN_LIFETIME_S)
    monkeypatch.setattr(worker, "TOKEN_LIFETIME_S", TOKEN_LIFETIME_S)
    post = stage.post(
        film,
        file_name="A night on the horizon.mp4",
        kind="video",
        duration_s=film.duration_s,
        width=1280,
        height=720,
        thumbnails=(PhotoSize("m", 320, 180, BytesContent(poster)),),
    )
    stream = await start_worker()
    environment = {**stage.environment(), "WORKER_URL": str(stream.make_url("/"))}
    settings = Settings.from_env({**environment, "GALLERY_PASSWORD": "correct horse battery"})
    gallery = await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))
    pages: dict[str, str] = {}

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=pages.get(request.path, ""), content_type="text/html")

    elsewhere = web.Application()
    elsewhere.router.add_get("/{path:.*}", show)
    return Site(stage, post, film, gallery, await aiohttp_client(elsewhere), pages)


@asynccontextmanager
async def open_page(**options: Any) -> AsyncIterator[Page]:
    flag = "--autoplay-policy=no-user-gesture-required"
    async with open_chromium(flag, **options) as page:
        with no_errors(page):
            yield page


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with open_page(viewport={"width": 960, "height": 600}) as page:
        yield page


def statuses_of(page: Page, path: str) -> list[int]:
    """Fills with the status of every answer below this path."""
    seen: list[int] = []

    def note(response: Any) -> None:
        if path in response.url:
            seen.append(response.status)

    page.on("response", note)
    return seen


# -- The link itself, in pages that know nothing of us ------------------------------------------


async def test_a_script_elsewhere_reads_a_range_and_an_errors_code(site: Site, page: Page) -> None:
    await page.goto(site.page(""))
    read = """async ([url, range]) => {
      const response = await fetch(url, { headers: { Range: range } });
      return [response.status, [...new Uint8Array(await response.arrayBuffer())]];
    }"""
    for span in ("bytes=1000-1009", "bytes=1000-1004,1005-1009"):  # the second asks for a preflight
        status, content = await page.evaluate(read, [site.link(), span])
        assert status == 206
        if "," not in span:
            assert bytes(content) == site.film.read(1000, 10)
    code = await page.evaluate(
        "async (url) => (await (await fetch(url)).json()).error.code", site.link(lifetime_s=1)
    )
    assert code == "share_ended"


# -- The player in a frame ----------------------------------------------------------------------


async def open_frame(site: Site, page: Page, query: str = "?autoplay=1", **link: Any) -> Any:
    source = site.link("embed", **link) + query
    allow = 'allow="autoplay; fullscreen" allowfullscreen'
    await page.goto(site.page(f'<iframe src="{source}" width=640 height=360 {allow}></iframe>'))
    return page.frames[1]


async def test_the_player_in_a_frame_plays_over_expiries(site: Site, page: Page) -> None:
    refused: list[Request] = []
    page.on("requestfailed", lambda request: refused.append(request))
    frame = await open_frame(site, page)
    await site.watch_over_expiries(frame)
    assert await frame.title() == "A night on the horizon"
    assert [each.url for each in refused if "/stream/" not in each.url] == []


async def test_the_player_has_a_fresh_address_before_the_grant_ends(
    site: Site, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "RENEWAL_LIFETIME_S", TOKEN_LIFETIME_S)
    renewals = statuses_of(page, "/api/share/")
    bytes_of_film = statuses_of(page, "/stream/")
    frame = await open_frame(site, page)
    await frame.evaluate("document.querySelector('video').playbackRate = 1.25")
    await site.watch_over_expiries(frame)
    assert len(renewals) >= EXPIRIES
    assert set(renewals) == {200}
    assert 401 not in bytes_of_film
    assert await frame.evaluate("document.querySelector('video').playbackRate") == 1.25
    await expect(frame.locator("#status")).to_be_hidden()


async def test_the_player_goes_on_when_the_gallery_was_away_as_the_grant_ended(
    site: Site, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "RENEWAL_LIFETIME_S", TOKEN_LIFETIME_S)
    frame = await open_frame(site, page)
    await has_come_to(frame, 0.3)
    await frame.evaluate("document.querySelector('video').playbackRate = 1.25")
    await page.route("**/api/share/**", lambda route: route.abort())
    await asyncio.sleep(TOKEN_LIFETIME_S + 1)
    at = site.film.duration_s / 2
    await frame.evaluate(f"document.querySelector('video').currentTime = {at}")
    await expect(frame.locator("#status")).to_have_text("Reconnecting…", timeout=15_000)
    await page.unroute("**/api/share/**")
    await has_come_to(frame, at + 0.5)
    assert await frame.evaluate("document.querySelector('video').playbackRate") == 1.25
    await expect(frame.locator("#status")).to_be_hidden()


async def test_the_player_says_when_the_link_was_ended(
    site: Site, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "RENEWAL_LIFETIME_S", TOKEN_LIFETIME_S)
    frame = await open_frame(site, page)
    await has_come_to(frame, 0.3)
    share_id = frame.url.rpartition("/")[2][:12]
    app: Any = site.gallery.app
    await app[SHARES].revoke(share_id, 1)
    await asyncio.sleep(TOKEN_LIFETIME_S + 1)
    await frame.evaluate("document.querySelector('video').currentTime = 2000")
    await expect(frame.get_by_role("alert")).to_contain_text("This link has ended.")
    await expect(frame.get_by_role("button")).to_be_hidden()  # trying again would not help


async def test_an_ended_link_is_a_friendly_page_in_the_frame(site: Site, page: Page) -> None:
    frame = await open_frame(site, page, lifetime_s=1)
    await expect(frame.get_by_role("heading")).to_have_text("No longer open")
    await expect(frame.locator("main")).to_contain_text("Whoever sent it can make a new one.")


async def test_the_player_opens_at_a_time_and_waits_for_its_viewer(site: Site, page: Page) -> None:
    await page.goto(site.link("embed") + "?t=90")
    await has_come_to(page, 90)
    assert await page.evaluate("document.querySelector('video').paused")
    poster = page.locator("video")
    assert (await poster.get_attribute("poster") or "").endswith("/poster")


async def test_the_keyboard_works_wherever_the_focus_is_and_once_for_each_key(
    site: Site, page: Page
) -> None:
    async def state(name: str) -> Any:
        return await page.evaluate(f"document.querySelector('video').{name}")

    for focus in ("document.activeElement.blur()", "document.querySelector('video').focus()"):
        await page.goto(site.link("embed") + "?t=100")
        await has_come_to(page, 100)
        await page.evaluate(focus)
        for key, change in (("ArrowRight", 5), ("l", 10), ("j", -10), ("ArrowLeft", -5)):
            before = await state("currentTime")
            await page.keyboard.press(key)
            assert await state("currentTime") == pytest.approx(before + change, abs=0.1), key
        await page.keyboard.press("m")
        assert await state("muted")
        await page.keyboard.press("ArrowDown")
        assert await state("volume") == pytest.approx(0.9)
        for key in ("k", " "):
            await page.keyboard.press(key)
            assert not await state("paused")
            await page.keyboard.press(key)
            assert await state("paused")
        await page.keyboard.press("f")
        await page.wait_for_function("() => document.fullscreenElement?.id === 'stage'")
        await page.keyboard.press("F")
        await page.wait_for_function("() => !document.fullscreenElement")


async def test_the_player_fits_phones_and_wide_screens(site: Site, page: Page) -> None:
    for width, height in ((390, 844), (1440, 900), (320, 180)):
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(site.link("embed"))
        await has_come_to(page, 0)
        box = await page.locator("video").bounding_box()
        assert box == {"x": 0, "y": 0, "width": width, "height": height}
        assert await page.evaluate("document.documentElement.scrollHeight <= innerHeight")


# -- The page for people -------------------------------------------------------------------------


async def test_the_page_for_people_plays_and_leaves_buttons_and_scrolling_their_keys(
    site: Site, page: Page
) -> None:
    await page.set_viewport_size({"width": 390, "height": 260})  # the page is longer than that
    await page.goto(site.link("watch") + "?t=100")
    await has_come_to(page, 100)
    film = page.locator("video")
    await page.keyboard.press("ArrowDown")
    await page.wait_for_function("() => scrollY > 0")
    assert await film.evaluate("(film) => film.volume") == 1
    await page.keyboard.press("ArrowRight")  # no page moves by this one
    assert await film.evaluate("(film) => film.currentTime") == pytest.approx(105, abs=0.1)
    await page.get_by_role("button", name="Copy link").focus()
    await page.keyboard.press("Space")
    await expect(page.get_by_role("button", name="Copied")).to_be_focused()
    assert await film.evaluate("(film) => film.paused")
    await film.focus()
    await page.keyboard.press("ArrowDown")
    assert await film.evaluate("(film) => film.volume") == pytest.approx(0.9)
    await page.keyboard.press("Space")
    await has_come_to(page, 105.3)


async def test_the_page_for_people_is_one_page_to_whoever_hears_it(site: Site, page: Page) -> None:
    await page.goto(site.link("watch"))
    await expect(page.get_by_role("heading")).to_have_text(["A night on the horizon"])
    await expect(page.get_by_role("main")).to_have_count(1)
    await expect(page).to_have_title("A night on the horizon")
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    await expect(page.get_by_label("A night on the horizon")).to_have_count(1)
    for control in (
        page.get_by_role("link", name="Download"),
        page.get_by_role("button", name="Copy link"),
        page.get_by_role("link", name="Playlist"),
    ):
        while not await control.evaluate("(each) => each === document.activeElement"):
            await page.keyboard.press("Tab")
        style = "(each) => [getComputedStyle(each).outlineStyle, each.offsetHeight]"
        outline, height = await control.evaluate(style)
        assert (outline, height) == ("solid", 44)


async def test_the_page_for_people_copies_its_address_alone_and_says_so(site: Site) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    async with open_page(permissions=permissions) as page:
        await page.goto(site.link("watch") + "?t=100")
        await page.get_by_role("button", name="Copy link").click()
        await expect(page.get_by_role("status").filter(has_text="Link copied")).to_be_attached()
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == page.url.partition("?")[0]


async def test_the_page_for_people_fits_every_screen_and_a_zoom_of_200_percent(
    site: Site, page: Page
) -> None:
    link = site.link("watch")
    for width, height in ((320, 568), (390, 844), (844, 390), (640, 400), (1280, 800)):
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(link)
        await has_come_to(page, 0)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        film = await page.locator("video").bounding_box()
        button = await page.get_by_role("link", name="Download").bounding_box()
        assert film
        assert button
        assert (film["x"], film["width"]) == (0, width)
        assert film["y"] >= 0
        assert film["y"] + film["height"] <= button["y"]
        assert button["y"] + button["height"] <= height  # seen without scrolling


PHONE = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/130.0 Mobile Safari/537.36"


async def test_a_phone_is_offered_its_players_and_tells_when_the_link_ends(site: Site) -> None:
    made = new_share(site.stage.channel.chat_id, site.post.id, 3600, time.time())
    share = write_share(JWT_SECRET, made)
    async with open_page(user_agent=PHONE, viewport={"width": 390, "height": 844}) as page:
        await page.goto(str(site.gallery.make_url(f"/watch/{share}")))
        players = page.get_by_role("link", name="Open in")
        await expect(players).to_have_text(["Open in VLC", "Open in mpv", "Open in MX Player"])
        address = await players.first.get_attribute("href") or ""
        assert address.startswith(f"intent://127.0.0.1:{site.gallery.port}/v/{share}#Intent;")
        await expect(page.locator(".facts")).to_contain_text("This link ends on ")
    async with open_page() as page:
        await page.goto(site.link("watch"))
        await expect(page.get_by_role("button", name="Copy link")).to_be_visible()
        await expect(page.get_by_role("link", name="Open in")).to_have_count(0)
        await expect(page.locator("#ends")).to_be_hidden()


# -- How a frame begins --------------------------------------------------------------------------


async def test_a_frame_may_begin_without_sound_and_begin_again(site: Site) -> None:
    """With Chromium's own rule: nothing that sounds begins unasked."""
    async with open_chromium() as page:
        with no_errors(page):
            await page.goto(site.link("embed") + "?autoplay=1")
            await page.wait_for_function("() => document.querySelector('video').readyState >= 2")
            assert await page.evaluate("document.querySelector('video').paused")
            await page.goto(site.link("embed") + "?autoplay=1&muted=1&loop=1")
            await has_come_to(page, 0.3)
            state = "(({ muted, loop, paused }) => [muted, loop, paused])"
            found = await page.evaluate(f"{state}(document.querySelector('video'))")
            assert found == [True, True, False]
