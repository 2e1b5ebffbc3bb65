"""Music, albums and documents, in Chromium: in the gallery and for whoever was sent a link.

Goal: an album is one card and one walk; songs follow one another, wherever one looks meanwhile;
papers are read in the browser, and nothing that was posted ever runs as a page. Method: a folder of
real songs with covers, pictures, a PDF and a hostile page, posted to the pocket Telegram.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from chromium import no_errors, open_chromium, open_gallery
from conftest import JWT_SECRET, Stage, StartClient
from playwright.async_api import Locator, Page, Request, expect

import backend
from gallery import visitors
from gallery.settings import Settings
from gallery.shares import new_share, write_share
from telegram_simulator.content import FileContent
from telegram_simulator.ffmpeg import need_ffmpeg, run_with_progress
from telegram_simulator.media_folder import MediaFolder
from telegram_simulator.sample_channel import pdf
from telegram_simulator.sample_films import make_once, make_sample_pictures, soundtrack
from telegram_simulator.world import Document

SONG_S = 8
PERFORMER = "The Pocket Orchestra"
SONGS = {"One.mp3": "libmp3lame", "Two.m4a": "aac", "Three.mp3": "libmp3lame"}
NOTES = "Ein Blatt für später, Жизнь\nand a second line\n"
EVIL = "document.title = 'evil'"
# Each runs where nothing forbids it, which the test sees at a careless server first.
XHTML = (
    '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>a page</title></head>'
    f"<body><script>{EVIL}</script></body></html>"
)
HOSTILE = {
    "page.html": ("text/html", f"<!DOCTYPE html><title>a page</title><script>{EVIL}</script>"),
    "drawing.svg": (
        "image/svg+xml",
        f'<svg xmlns="http://www.w3.org/2000/svg"><script>{EVIL}</script></svg>',
    ),
    "page.xhtml": ("application/xhtml+xml", XHTML),
    "page.xsl": ("text/xsl", XHTML),
}
SONG = "document.querySelector('#music audio')"
WIDTH = "(image) => image.decode().then(() => image.naturalWidth)"
PLAYS = f"(at) => {SONG}.currentTime > at && !{SONG}.paused"


def make_song(path: Path, codec: str, cover: Path, number: int) -> None:
    """A short song that knows its title, who plays, and what it looks like."""
    command = [
        *(
            need_ffmpeg(),
            "-f",
            "lavfi",
            "-i",
            soundtrack((196.0, 247.0, 294.0, 392.0 + number), SONG_S),
        ),
        *("-i", f"file:{cover}", "-map", "0:a", "-map", "1:v", "-vf", "crop=ih:ih,scale=400:400"),
        *("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-disposition:v", "attached_pic"),
        *("-c:a", codec, "-metadata", f"title={path.stem}", "-metadata", f"artist={PERFORMER}"),
    ]
    make_once(
        [path],
        repr(command),
        lambda target: run_with_progress([*command, f"file:{target}"], SONG_S, lambda _share: None),
    )


@pytest.fixture(scope="session")
def media(pytestconfig: pytest.Config, sample_films: list[Path]) -> Path:
    """A folder whose posts are, the oldest first: three songs, a film, papers, an album."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("media")
    pictures = make_sample_pictures(folder / "9 Weather.album")
    for number, (name, codec) in enumerate(SONGS.items()):
        path = folder / str(number) / name
        path.parent.mkdir(exist_ok=True)
        make_song(path, codec, pictures[number], number)
    film = folder / "5 Film.mp4"
    if not film.exists():
        film.symlink_to(sample_films[0])
    (folder / "6 Programme.pdf").write_bytes(pdf(["Programme", "Overture", "Interlude"]))
    (folder / "7 Notes.txt").write_text(NOTES)
    return folder


@dataclass
class House:
    """A gallery that anybody on this machine may use, and where its files come from."""

    stage: Stage
    gallery: TestClient[Any, Any]
    worker: TestClient[Any, Any]

    @property
    def url(self) -> str:
        return str(self.gallery.make_url("/"))

    def post_id(self, name: str) -> str:
        """The file as addresses name it."""
        for post in self.stage.channel.posts.values():
            if isinstance(post.media, Document) and post.media.file_name == name:
                return f"{self.stage.channel.chat_id}/{post.id}"
        raise LookupError(name)

    def link(self, name: str, door: str) -> str:
        chat_id, post_id = self.post_id(name).split("/")
        share = write_share(JWT_SECRET, new_share(int(chat_id), int(post_id), None, 0))
        return str(self.gallery.make_url(f"/{door}/{share}"))


@pytest.fixture
async def house(
    stage: Stage,
    start_worker: StartClient,
    aiohttp_client: StartClient,
    media: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    # On a busy machine even a worker that is awake may take a second to say a name.
    monkeypatch.setattr(visitors, "NAME_PATIENCE_S", 30.0)
    worker = await start_worker()
    environment = {"JWT_SECRET": JWT_SECRET, "WORKER_URL": str(worker.make_url("/"))}
    settings = Settings.from_env({**stage.environment(), **environment})
    gallery = await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))
    async with MediaFolder(stage.telegram.world, stage.channel, media):
        yield House(stage, gallery, worker)


def card(page: Page, name: str) -> Locator:
    return page.locator(".card-link", has_text=name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def fetched(page: Page) -> list[str]:
    """Fills with the posts whose pictures are fetched from now on, in this order."""
    seen: list[str] = []

    def note(request: Request) -> None:
        found = re.search(r"/stream/(-?\d+/\d+)", request.url)
        if found and request.resource_type == "image" and found[1] not in seen:
            seen.append(found[1])

    page.on("request", note)
    return seen


# -- Albums --------------------------------------------------------------------------------------


async def test_an_album_is_one_card_and_one_walk(house: House) -> None:
    async with open_gallery(house.url) as page:
        album = card(page, "9 Weather")
        await expect(album.locator(".card-facts")).to_contain_text("4 pictures")
        await expect(album.locator(".card-badge")).to_have_text("4")
        await expect(page.locator(".card:not(.card-skeleton)")).to_have_count(7)
        await expect(page.locator("#summary")).to_have_text("10 files")
        pictures = fetched(page)
        await album.click()
        place = page.locator("#viewer-strip-place")
        await expect(place).to_have_text("1 of 4")
        entries = page.get_by_role("navigation", name="Album").get_by_role("button")
        await expect(entries).to_have_count(4)
        await page.locator("#viewer-stage .picture").wait_for()
        first = urlsplit(page.url).query.removeprefix("file=")
        chat_id, number = first.split("/")
        posts = [f"{chat_id}/{int(number) + step}" for step in range(4)]
        await until(lambda: pictures == posts[:2])  # the one that is seen and the one after it
        await page.keyboard.press("ArrowRight")
        await expect(place).to_have_text("2 of 4")
        await until(lambda: pictures == posts[:3])
        await entries.nth(3).click()
        await expect(place).to_have_text("4 of 4")
        await expect(entries.nth(3)).to_have_attribute("aria-current", "true")
        await page.keyboard.press("n")  # on, to the next card of the list
        await expect(page.locator("#viewer-strip")).to_be_hidden()
        await expect(page.locator("#viewer-title")).to_have_text("7 Notes")
        await page.keyboard.press("p")
        await expect(place).to_have_text("4 of 4")
        await page.keyboard.press("Escape")
        await expect(album).to_be_focused()
        await page.get_by_role("searchbox").fill("weather")  # the caption is the first one's
        await expect(page.locator("#summary")).to_have_text("1 file")
        await page.locator(".card-link").click()
        await expect(place).to_have_text("1 of 4")
        await page.keyboard.press("ArrowRight")
        await expect(place).to_have_text("2 of 4")
        await page.keyboard.press("Escape")
        await expect(page.locator(".card-link")).to_be_focused()
        # By a link, while the list shows something else: its album comes with it.
        await page.goto(f"/?kind=audio&file={posts[1]}")
        await expect(place).to_have_text("2 of 4")
        await page.keyboard.press("ArrowRight")
        await expect(place).to_have_text("3 of 4")
        await page.keyboard.press("Escape")
        await expect(page.locator("#viewer")).to_be_hidden()


async def test_fingers_swipe_pinch_and_tap(house: House) -> None:
    async with open_chromium(
        base_url=house.url, has_touch=True, viewport={"width": 390, "height": 844}
    ) as page:
        with no_errors(page):
            await page.goto("/")
            await card(page, "9 Weather").tap()
            place = page.locator("#viewer-strip-place")
            picture = page.locator("#viewer-stage .picture")
            await picture.wait_for()
            hand = await page.context.new_cdp_session(page)

            async def touch(kind: str, *points: tuple[int, int]) -> None:
                touches = [{"x": x, "y": y, "id": each} for each, (x, y) in enumerate(points)]
                await hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

            await touch("touchStart", (300, 400))
            await touch("touchMove", (200, 405))
            await touch("touchMove", (100, 405))
            await touch("touchEnd")
            await expect(place).to_have_text("2 of 4")
            await picture.wait_for()
            await touch("touchStart", (180, 400), (210, 400))
            await touch("touchMove", (100, 400), (290, 400))
            await touch("touchEnd")
            await expect(picture).to_have_class(re.compile("is-zoomed"))
            for _ in range(2):
                await page.touchscreen.tap(195, 400)
            await expect(picture).not_to_have_class(re.compile("is-zoomed"))
            await expect(place).to_have_text("2 of 4")
            frame = page.locator("#viewer-frame")
            await page.touchscreen.tap(195, 400)  # all else away, and back
            await expect(frame).to_have_class(re.compile("is-bare"))
            await expect(page.locator(".viewer-bar")).not_to_be_visible()
            whole = await picture.bounding_box()
            assert whole
            assert whole["width"] == pytest.approx(390, abs=1)
            await page.touchscreen.tap(195, 400)
            await expect(frame).not_to_have_class(re.compile("is-bare"))
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# -- Music ---------------------------------------------------------------------------------------

NOTE_MEDIA_KEYS = """window.keys = {};
const set = navigator.mediaSession.setActionHandler.bind(navigator.mediaSession);
navigator.mediaSession.setActionHandler = (name, action) => {
  window.keys[name] = action;
  set(name, action);
};"""
ANNOUNCED = """(({ title, artist, artwork }) => [title, artist, artwork.length])(
  navigator.mediaSession.metadata)"""


async def test_songs_follow_one_another_wherever_one_looks_meanwhile(house: House) -> None:
    async with open_gallery(house.url) as page:
        await page.add_init_script(NOTE_MEDIA_KEYS)
        await page.goto("/")
        await expect(card(page, "Three").locator(".card-facts")).to_have_text(PERFORMER)
        await card(page, "Three").click()
        sheet = page.locator(".music-sheet")
        await expect(sheet.locator(".music-name")).to_have_text("Three")
        await expect(sheet.locator(".music-by")).to_have_text(PERFORMER)
        await page.wait_for_function(PLAYS, arg=0.2)
        cover = sheet.locator(".music-art img")
        assert await cover.evaluate(WIDTH) == 320
        await expect(sheet.locator(".music-entry-title")).to_have_text(["Two", "One"])
        assert await page.evaluate(ANNOUNCED) == ["Three", PERFORMER, 1]

        await page.keyboard.press("Escape")  # and it plays on
        bar = page.get_by_role("region", name="Music")
        title = bar.locator("#music-title")
        await expect(title).to_have_text("Three")
        at = await page.evaluate(f"{SONG}.currentTime")
        await page.wait_for_function(PLAYS, arg=at + 0.3)
        await card(page, "9 Weather").click()  # over a picture too
        await page.locator("#viewer-stage .picture").wait_for()
        at = await page.evaluate(f"{SONG}.currentTime")
        await page.wait_for_function(PLAYS, arg=at + 0.3)
        await page.keyboard.press("Escape")
        await expect(page.locator("#viewer")).to_be_hidden()

        await page.evaluate(f"{SONG}.currentTime = {SONG_S - 0.3}")  # and on to the next
        await expect(title).to_have_text("Two")
        await page.wait_for_function(PLAYS, arg=0.2)
        assert urlsplit(page.url).query == ""
        await page.evaluate("window.keys.nexttrack()")
        await expect(title).to_have_text("One")
        assert (await page.evaluate(ANNOUNCED))[0] == "One"
        await page.wait_for_function(PLAYS, arg=0.2)
        await bar.get_by_role("button", name="Next song").click()  # it is the last
        await bar.get_by_role("button", name="Pause").click()
        assert await page.evaluate(f"{SONG}.paused")
        await bar.get_by_role("button", name="Previous song").click()
        await expect(title).to_have_text("Two")

        await bar.get_by_role("link").click()  # in the viewer its address follows it
        await expect(page.locator("#viewer-title")).to_have_text("Two")
        await page.keyboard.press("n")
        await expect(sheet.locator(".music-name")).to_have_text("One")
        await expect(page).to_have_url(re.compile(house.post_id("One.mp3")))
        await page.wait_for_function(PLAYS, arg=0.2)
        back = sheet.get_by_role("button", name="Previous song")
        await back.focus()
        await page.keyboard.press("Enter")
        await expect(sheet.locator(".music-name")).to_have_text("Two")
        await expect(back).to_be_focused()
        await sheet.get_by_role("button", name="Repeat", exact=True).click()
        await sheet.get_by_role("button", name="Repeat: all songs").click()
        await page.wait_for_function(PLAYS, arg=0.2)
        await sheet.get_by_label("Position in the song").fill(str(SONG_S - 0.4))
        await page.wait_for_function(f"() => {SONG}.currentTime < 2")
        await expect(sheet.locator(".music-name")).to_have_text("Two")  # once more
        shuffle = sheet.get_by_role("button", name="Shuffle")
        await shuffle.click()
        await expect(shuffle).to_have_attribute("aria-pressed", "true")
        await expect(sheet.locator(".music-entry-title")).to_have_count(2)
        await sheet.locator(".music-entry", has_text="Three").click()
        await expect(sheet.locator(".music-name")).to_have_text("Three")
        await page.wait_for_function(PLAYS, arg=0.2)
        await page.go_back()
        await expect(page.locator("#viewer")).to_be_hidden()

        await card(page, "5 Film").click()  # which is heard instead
        await page.wait_for_function(
            "() => document.querySelector('#viewer video')?.currentTime > 0.1"
        )
        assert await page.evaluate(f"{SONG}.paused")
        await page.keyboard.press("Escape")
        for width in (320, 390, 1280):
            await page.set_viewport_size({"width": width, "height": 700})
            await page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
            await expect(bar.get_by_role("button", name="Play")).to_be_in_viewport()
        await bar.get_by_role("button", name="Stop the music").click()
        await expect(bar).to_be_hidden()
        assert await page.evaluate(f"{SONG}.getAttribute('src')") is None


# -- Documents -----------------------------------------------------------------------------------


async def test_papers_are_read_in_the_browser(house: House) -> None:
    async with open_gallery(house.url) as page:
        await card(page, "6 Programme").click()
        frame = page.locator("#viewer-stage iframe")
        source = await frame.get_attribute("src") or ""
        assert source.startswith(str(house.worker.make_url("/stream/")))
        async with house.worker.session.get(source) as answer:
            assert answer.headers["Content-Type"] == "application/pdf"
            assert answer.headers["Content-Disposition"].startswith("inline;")
        await page.get_by_role("button", name="More").click()
        async with page.context.expect_page() as opening:
            await page.get_by_role("link", name="Open in a new tab").click()
        tab = await opening.value
        await tab.wait_for_url("**/stream/**")  # by way of the gallery, which signs it anew
        assert await tab.evaluate("document.contentType") == "application/pdf"
        await tab.close()
        await page.get_by_role("button", name="Back to the gallery").click()

        await card(page, "7 Notes").click()
        await expect(page.locator("#viewer-stage pre")).to_have_text(NOTES)
        await page.keyboard.press("Escape")
        await page.set_viewport_size({"width": 390, "height": 844})  # a phone has no room for it
        await card(page, "6 Programme").click()
        await expect(page.locator("#viewer-stage iframe")).to_have_count(0)
        opened = page.locator(".viewer-sheet").get_by_role("link", name="Open")
        await expect(opened).to_have_attribute("target", "_blank")
        await expect(opened).to_have_attribute(
            "href", f"/files/{house.post_id('6 Programme.pdf')}/6%20Programme.pdf"
        )


async def test_what_is_posted_never_runs_as_a_page(
    house: House, tmp_path: Path, aiohttp_client: StartClient
) -> None:
    for name, (_type, body) in HOSTILE.items():
        (tmp_path / name).write_text(body)

    async def careless(request: web.Request) -> web.Response:
        mime_type, body = HOSTILE.get(request.match_info["name"], ("text/plain", ""))
        return web.Response(text=body, content_type=mime_type)

    app = web.Application()
    app.router.add_get("/{name}", careless)
    elsewhere = await aiohttp_client(app)
    posts = {
        name: house.stage.post(FileContent(tmp_path / name), mime_type, file_name=name)
        for name, (mime_type, _body) in HOSTILE.items()
    }
    async with open_gallery(house.url) as page:
        for name, post in posts.items():
            await page.goto(str(elsewhere.make_url(f"/{name}")))
            assert await page.evaluate("document.title") == "evil", name
            await page.goto(str(house.worker.make_url(house.stage.path(post))))
            assert "/stream/" in page.url
            assert await page.evaluate("document.title") != "evil", name
        await page.goto("/")
        await card(page, "page").first.click()  # that of page.xsl
        await expect(page.locator("#viewer-stage pre")).to_contain_text(EVIL)
        assert await page.evaluate("document.title") != "evil"


# -- For whoever was sent a link -----------------------------------------------------------------


async def test_a_shared_song_has_its_cover_and_a_shared_paper_its_viewer(house: House) -> None:
    async with open_chromium() as page:
        with no_errors(page):
            for door in ("watch", "embed"):
                await page.goto(house.link("Two.m4a", door))
                await expect(page).to_have_title("Two")
                await expect(page.get_by_role("heading")).to_have_text(["Two"])
                cover = page.locator(".song-cover")
                assert await cover.evaluate(WIDTH) == 320
                await page.evaluate("document.querySelector('audio').muted = true")
                await page.keyboard.press("k")
                await page.wait_for_function(
                    "() => document.querySelector('audio').currentTime > 0.2"
                )
                assert await page.evaluate(ANNOUNCED) == ["Two", PERFORMER, 1]
                for size in ((320, 120), (390, 844), (1280, 800)):
                    await page.set_viewport_size({"width": size[0], "height": size[1]})
                    across = "() => document.documentElement.scrollWidth <= innerWidth"
                    await page.wait_for_function(across)
            await expect(page.locator(".song-performer")).to_have_text(PERFORMER)
            await page.goto(house.link("6 Programme.pdf", "watch"))
            async with page.context.expect_page() as opening:
                await page.get_by_role("link", name="Open").click()
            paper = await opening.value
            await paper.wait_for_url("**/stream/**")
            assert await paper.evaluate("document.contentType") == "application/pdf"
            await expect(page.get_by_role("link", name="Download")).to_be_visible()
