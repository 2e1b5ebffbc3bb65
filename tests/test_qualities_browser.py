"""The qualities that Telegram made of a film, in Chromium: who chooses, and that it never stops.

Goal: the quality follows the line down and up again, the menu is obeyed, and whatever fails (a
token, a worker, the playlists, this browser) the film goes on where it was. Method: renditions made
by ffmpeg on the pocket Telegram, whose line is made thin and wide again under the running film; the
page itself notes every stop and every step back.
"""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import worker
from aiohttp.test_utils import TestClient
from chromium import no_errors, open_chromium
from conftest import JWT_SECRET, Stage, StartClient
from playwright.async_api import Page, Route, expect
from test_films import FFMPEG

import backend
from gallery import tokens, visitors
from gallery.settings import Settings
from gallery.shares import new_share, write_share
from telegram_simulator.content import BytesContent
from telegram_simulator.looped_film import LoopedFilm
from telegram_simulator.renditions import FRAGMENTS, with_qualities
from telegram_simulator.world import Document, Post

# The first run makes the films; browsers are slow to start on a busy machine.
pytestmark = pytest.mark.timeout(180)

TURNS = 15  # of a film of 8 s: more than a player takes in advance
WIDE, THIN = 2_000_000, 170_000  # bytes a second: at double speed 720p needs 250,000, 360p 105,000
STOP_MS = 1_000
SPEED = 2
TOKEN_LIFETIME_S = 2
FILM = "document.querySelector('video:not(.is-waiting)')"
IS_HLS = f"{FILM}.src.startsWith('blob:')"
# Notes what nobody should notice. What another element does that waits for its turn does not count.
NOTES = """
window.notes = { stops: [], backwards: [], heights: [], elements: new Set() };
let stoppedAt = null;
let before = 0;
setInterval(() => {
  const film = document.querySelector('video:not(.is-waiting)');
  if (!film || film.readyState === 0) return;
  notes.elements.add(film);
  const isStopped = !film.paused && !film.ended && film.readyState < 3;
  const now = performance.now();
  if (isStopped) stoppedAt ??= now;
  else if (stoppedAt !== null) {
    notes.stops.push(Math.round(now - stoppedAt));
    stoppedAt = null;
  }
  if (film.currentTime < before - 0.3) notes.backwards.push([before, film.currentTime]);
  before = film.currentTime;
  if (film.videoHeight !== notes.heights.at(-1)) notes.heights.push(film.videoHeight);
}, 20);
"""


@dataclass
class House:
    """A gallery with a film in several qualities, and a browser that notes what it asks for."""

    stage: Stage
    post: Post
    page: Page
    start_worker: StartClient
    start_gallery: StartClient
    gallery: TestClient[Any, Any] | None = None
    workers: list[TestClient[Any, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def begin(self, workers: int = 1) -> None:
        self.workers = [await self.start_worker() for _ in range(workers)]
        urls = ",".join(str(each.make_url("/")) for each in self.workers)
        environment = {**self.stage.environment(), "WORKER_URL": urls, "JWT_SECRET": JWT_SECRET}
        app = await asyncio.to_thread(backend.create_app, Settings.from_env(environment))
        self.gallery = await self.start_gallery(app)

    async def go(self, path: str) -> None:
        assert self.gallery is not None
        self.asked.clear()
        await self.page.goto(str(self.gallery.make_url(path)))

    async def open(self, post: Post | None = None) -> None:
        await self.go(f"/?file={self.stage.channel.chat_id}/{(post or self.post).id}")

    def link(self, door: str) -> str:
        made = new_share(self.stage.channel.chat_id, self.post.id, None, 0)
        return f"/{door}/{write_share(JWT_SECRET, made)}"

    def carry(self, bytes_per_second: int | None) -> None:
        """Make the line to Telegram that wide from now on."""
        self.stage.telegram.trouble.bytes_per_second = bytes_per_second

    async def is_true(self, condition: str) -> None:
        await self.page.wait_for_function(f"() => {FILM} && ({condition})", timeout=40_000)

    async def plays_on(self, seconds: float = 0.5) -> None:
        await self.is_true(f"{FILM}.currentTime > {await self.position() + seconds}")

    async def position(self) -> float:
        await self.is_true("true")
        return float(await self.page.evaluate(f"{FILM}.currentTime"))

    async def runs(self, seconds: float) -> None:
        """It plays from the start, which whoever looks at stops does not count."""
        await self.is_true(f"{FILM}.currentTime > {seconds}")
        await self.page.evaluate("notes.stops.length = 0")

    async def notes(self) -> dict[str, Any]:
        copy = "({ ...notes, elements: notes.elements.size })"
        found: dict[str, Any] = await self.page.evaluate(copy)
        print(found)  # shown by `pytest -rP`
        return found

    async def never_stopped(self) -> bool:
        notes = await self.notes()
        return notes["backwards"] == [] and max(notes["stops"], default=0) <= STOP_MS

    def has_asked_for(self, pattern: str) -> bool:
        return any(re.search(pattern, url) for url in self.asked)


@pytest.fixture(scope="session")
def long_qualities(film_qualities: Path) -> Path:
    """The qualities of a film of two minutes: those of the short one over and over, copied."""
    folder = film_qualities.with_name("long.qualities")
    folder.mkdir(exist_ok=True)
    for path in film_qualities.glob("*.mp4"):
        target = folder / path.name
        if not target.exists() or target.stat().st_mtime < path.stat().st_mtime:
            command = ["-v", "error", "-y", "-stream_loop", str(TURNS - 1), "-i", str(path)]
            command += ["-c", "copy", "-movflags", FRAGMENTS, str(target)]
            subprocess.run([FFMPEG, *command], check=True)
    return folder


@pytest.fixture
async def house(
    stage: Stage,
    sample_films: list[Path],
    long_qualities: Path,
    start_worker: StartClient,
    aiohttp_client: StartClient,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    # On a busy machine even a worker that is awake may take a second to say a name.
    monkeypatch.setattr(visitors, "NAME_PATIENCE_S", 30.0)
    film = new_film(stage, sample_films[0], long_qualities)
    post = stage.telegram.world.post(stage.channel, film, "")
    by_itself = "--autoplay-policy=no-user-gesture-required"  # as on a page that one has clicked on
    async with open_chromium(by_itself, viewport={"width": 1280, "height": 800}) as page:
        await page.add_init_script(NOTES)
        house = House(stage, post, page, start_worker, aiohttp_client)
        page.on("request", lambda request: house.asked.append(request.url))
        with no_errors(page):
            yield house


def new_film(stage: Stage, original: Path, qualities: Path) -> Document:
    """Two minutes in 720p, and what Telegram made of them; not posted yet."""
    film = LoopedFilm(original, TURNS)
    document = stage.telegram.world.new_document(film, "video/mp4", 4)
    document = replace(
        document,
        file_name="Embers.mp4",
        kind="video",
        duration_s=film.duration_s,
        width=1280,
        height=720,
    )
    return with_qualities(stage.telegram.world, document, qualities)


async def choose(page: Page, name: str | re.Pattern[str]) -> None:
    """By keyboard and by what a screen reader is told."""
    await page.get_by_role("button", name="More").click()
    choices = page.get_by_role("radiogroup", name="Quality")
    await choices.get_by_role("radio", name=name, exact=True).focus()
    await page.keyboard.press("Space")
    await page.keyboard.press("Escape")


async def test_the_quality_follows_the_line_down_and_up_without_a_stop(house: House) -> None:
    house.carry(WIDE)
    await house.begin()
    await house.open()
    await house.is_true(f"{FILM}.videoHeight === 720")
    await house.runs(1)
    await house.page.evaluate(f"{FILM}.playbackRate = {SPEED}")
    house.carry(THIN)
    await house.is_true(f"{FILM}.videoHeight === 360")
    await house.page.get_by_role("button", name="More").click()
    choices = house.page.get_by_role("radiogroup", name="Quality")
    await expect(choices.get_by_role("radio")).to_have_count(4)
    await expect(choices.get_by_role("radio", name="Auto · 360p")).to_be_checked()
    house.carry(WIDE)
    await house.is_true(f"{FILM}.videoHeight === 720")
    await expect(choices.get_by_role("radio", name="Auto · 720p")).to_be_checked()
    assert await house.never_stopped()
    notes = await house.notes()
    assert notes["heights"][-3:] == [720, 360, 720]
    assert notes["elements"] == 1
    assert await house.page.evaluate(f"{FILM}.playbackRate") == SPEED
    # of the original, which nobody asked for, not one byte
    assert not house.has_asked_for(r"/stream/[^?]*Embers")


async def test_the_choice_is_obeyed_kept_and_costs_neither_place_nor_sound(house: House) -> None:
    await house.begin()
    page = house.page
    await house.open()
    await house.runs(0.5)
    await page.evaluate(
        f"Object.assign({FILM}, {{ currentTime: 60, volume: 0.25, playbackRate: 1.25 }})"
    )
    await choose(page, "360p")
    await house.is_true(f"{FILM}.videoHeight === 360 && {FILM}.currentTime > 60")
    await page.keyboard.press("k")
    at = await house.position()
    await choose(page, re.compile("^Original · [0-9.]+ .B$"))
    await house.is_true(f"!{IS_HLS} && {FILM}.readyState >= 2")
    seen = await page.evaluate(
        f"[{FILM}.paused, {FILM}.volume, {FILM}.playbackRate, {FILM}.videoHeight]"
    )
    assert seen == [True, 0.25, 1.25, 720]
    assert await house.position() == pytest.approx(at, abs=0.2)
    await page.keyboard.press("k")
    await house.plays_on()
    # the next film, or the next day
    await house.open()
    await house.plays_on()
    assert await page.evaluate(f"!{IS_HLS}")
    assert not house.has_asked_for(r"/hls/|vendor")
    await choose(page, "Auto")
    await house.is_true(IS_HLS)
    await house.plays_on()
    notes = await house.notes()
    assert notes["backwards"] == []


async def test_whatever_fails_the_film_goes_on_where_it_was(
    house: House, sample_films: list[Path], long_qualities: Path
) -> None:
    media = new_film(house.stage, sample_films[0], long_qualities)
    evil = BytesContent(b"#EXTM3U\n#EXTINF:2,\nhttps://evil.example/steal\n")
    alternatives = tuple(
        replace(each, content=evil) if each.mime_type == "application/x-mpegurl" else each
        for each in media.alternatives
    )
    media = replace(media, alternatives=alternatives)
    hostile = house.stage.telegram.world.post(house.stage.channel, media, "")
    await house.begin(workers=2)
    page = house.page
    # no playlist that we would hand on: the original
    await house.open(hostile)
    await house.plays_on()
    assert await page.evaluate(f"!{IS_HLS}")
    await page.get_by_role("button", name="More").click()
    await expect(page.get_by_role("radio", name="Auto · Original")).to_be_checked()
    # a lost worker: the other one's qualities
    await house.open()
    await house.runs(1)
    port = int(re.findall(r":(\d+)/hls/", " ".join(house.asked))[0])
    (lost,) = (each for each in house.workers if each.port == port)
    await lost.close()
    await page.evaluate(f"{FILM}.playbackRate = {SPEED}")
    await house.is_true("notes.elements.size === 2")
    await house.plays_on()
    assert await page.evaluate(IS_HLS)
    assert house.has_asked_for(r"/url\?.*avoid=")

    # documents that are gone in mid-film: the original again
    async def is_gone(route: Route) -> None:
        await route.fulfill(status=404, headers={"Access-Control-Allow-Origin": "*"}, body="{}")

    await page.route(re.compile(r"/stream/.*document="), is_gone)
    await house.is_true(f"!{IS_HLS}")
    await house.plays_on()
    assert await house.never_stopped()


async def test_a_shared_film_has_its_qualities_and_outlasts_its_token(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokens, "TOKEN_LIFETIME_S", TOKEN_LIFETIME_S)
    monkeypatch.setattr(worker, "TOKEN_LIFETIME_S", TOKEN_LIFETIME_S)
    caplog.set_level(logging.INFO, "rangegram.worker")
    await house.begin()
    page = house.page
    await house.go(house.link("watch"))
    menu = page.get_by_role("combobox", name="Quality")
    await expect(menu).to_have_value("auto")
    assert not house.has_asked_for("/hls/|/stream/")  # there may be ten such films on a page
    await page.keyboard.press("k")
    await house.is_true(f"{IS_HLS} && {FILM}.videoHeight === 720")
    await expect(menu.locator("option")).to_have_text(
        ["Auto · 720p", "720p", "360p", re.compile("Original · ")]
    )
    await house.runs(TOKEN_LIFETIME_S + 1)
    await page.evaluate(f"{FILM}.currentTime = 60")  # where nothing was fetched yet
    await house.plays_on()
    lines = [record.getMessage() for record in caplog.records]
    assert any(re.search(r"GET /stream/\S+ 307 ", line) for line in lines)
    assert not house.has_asked_for("/url")  # the worker renews, the gallery is not asked
    await menu.select_option("360")
    await house.is_true(f"{FILM}.videoHeight === 360 && {FILM}.currentTime > 60")
    await menu.select_option("original")
    await house.is_true(f"!{IS_HLS} && {FILM}.videoHeight === 720 && {FILM}.currentTime > 60")
    await house.plays_on()
    await house.go(house.link("embed"))
    await expect(menu).to_have_value("original")
    await house.is_true(f"{FILM}.readyState >= 1")
    assert not house.has_asked_for("/hls/")
