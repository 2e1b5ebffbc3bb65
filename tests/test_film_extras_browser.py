"""Frames while seeking, subtitles, and what is said of a film that a browser cannot play.

Goal: each is there where it helps, on the gallery and on the pages of links, and costs nothing
where it does not. Method: a storyboard of plain colours, so that a wrong frame is seen by its
colour; films as ffmpeg makes them, for which Chromium has a decoder or not; every request counted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from chromium import no_errors, open_chromium
from conftest import JWT_SECRET, Stage, StartClient
from playwright.async_api import Locator, Page, expect
from test_films import FFMPEG, make

import backend
from gallery import tokens, visitors
from gallery.settings import Settings
from gallery.shares import new_share, write_share
from telegram_simulator.content import BytesContent, Content, FileContent
from telegram_simulator.ffmpeg import encoders
from telegram_simulator.looped_film import LoopedFilm
from telegram_simulator.renditions import storyboard_frames, with_qualities
from telegram_simulator.world import Post

# The first run makes the films; browsers are slow to start on a busy machine.
pytestmark = pytest.mark.timeout(180)
TURNS = 30  # of a film of 8 s
LENGTH_S = 8.0 * TURNS
FILM = "document.querySelector('video:not(.is-waiting)')"
COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
FRAME = (160, 90)
FOUR_SECONDS = ("testsrc=size=320x180:rate=10:duration=4", "sine=duration=4")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
COLOUR_SHOWN = """([wanted]) => {
  const canvas = document.querySelector(".seek-frame");
  if (canvas.hidden || canvas.closest("[hidden]")) return false;
  const { width, height } = canvas;
  const seen = canvas.getContext("2d").getImageData(width / 2, height / 2, 1, 1).data;
  return wanted.every((each, index) => Math.abs(each - seen[index]) < 40);
}"""
CUE_SHOWN = """(text) => [...%s.textTracks].some((track) => track.mode === "showing" &&
  [...track.activeCues ?? []].some((cue) => cue.text.includes(text)))"""


@dataclass
class House:
    """A gallery on a pocket Telegram, and a browser before it that notes what it asks for."""

    stage: Stage
    gallery: TestClient[Any, Any]
    page: Page
    asked: list[str]
    posts: dict[str, Post]

    def post(self, name: str, content: Content, mime_type: str, **document: Any) -> Post:
        facts = {"kind": "video", "duration_s": 4.0, "width": 320, "height": 180, **document}
        self.posts[name] = self.stage.post(content, mime_type, file_name=name, **facts)
        return self.posts[name]

    async def open(self, name: str) -> None:
        """The film in the gallery."""
        ids = f"{self.stage.channel.chat_id}/{self.posts[name].id}"
        await self.page.goto(str(self.gallery.make_url(f"/?file={ids}")))

    def link(self, name: str, door: str) -> str:
        made = new_share(self.stage.channel.chat_id, self.posts[name].id, None, 0)
        return str(self.gallery.make_url(f"/{door}/{write_share(JWT_SECRET, made)}"))

    def count(self, path: str) -> int:
        """How many requests there were below this path."""
        return sum(path in url for url in self.asked)

    async def plays_beyond(self, at: float) -> None:
        await self.page.wait_for_function(f"(at) => {FILM}?.currentTime > at", arg=at)

    async def position(self) -> float:
        return float(await self.page.evaluate(f"{FILM}.currentTime"))

    async def sees(self, colour: str) -> None:
        """A frame of this colour is shown."""
        await self.page.wait_for_function(COLOUR_SHOWN, arg=[COLOURS[colour]])


@pytest.fixture
async def house(
    stage: Stage,
    start_worker: StartClient,
    aiohttp_client: StartClient,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    monkeypatch.setattr(visitors, "NAME_PATIENCE_S", 30.0)
    worker = await start_worker()
    environment = {**stage.environment(), "WORKER_URL": str(worker.make_url("/"))}
    settings = Settings.from_env(environment)
    gallery = await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))
    flag = "--autoplay-policy=no-user-gesture-required"
    # Without a service worker it is the page that renews, with another element each time.
    viewport = {"width": 1000, "height": 700}
    async with open_chromium(flag, viewport=viewport, service_workers="block") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        with no_errors(page):
            yield House(stage, gallery, page, asked, {})


@pytest.fixture
def storyboard(tmp_path: Path) -> Path:
    """Four frames of one colour each, for the four quarters of the long film."""
    folder = tmp_path / "board.qualities"
    folder.mkdir()
    size = "x".join(map(str, FRAME))
    make(
        folder / "storyboard.jpg",
        *("-filter_complex", f"hstack={len(COLOURS)}", "-frames:v", "1", "-q:v", "2"),
        inputs=tuple(f"color={colour}:s={size}" for colour in COLOURS),
    )
    times = [LENGTH_S * number / len(COLOURS) for number in range(len(COLOURS))]
    (folder / "storyboard.txt").write_text(storyboard_frames(*FRAME, times))
    return folder


def post_long(house: House, film: Path, storyboard: Path, name: str = "Tiled.mp4") -> None:
    """The long film, with what Telegram made of it."""
    world = house.stage.telegram.world
    blank = world.new_document(LoopedFilm(film, TURNS), "video/mp4", 4)
    media = replace(
        with_qualities(world, blank, storyboard),
        file_name=name,
        kind="video",
        duration_s=LENGTH_S,
        width=1280,
        height=720,
    )
    house.posts[name] = world.post(house.stage.channel, media, "")


class Line:
    """The line with seek pictures, as a hand moves along it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.slider: Locator = page.get_by_role("slider", name="Position in the film")

    async def point(self, share: float) -> None:
        box = await self.slider.bounding_box()
        assert box
        await self.page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)

    async def told(self) -> str:
        return await self.slider.get_attribute("aria-valuetext") or ""


# -- frames while seeking --------------------------------------------------------------------------


async def test_frames_are_shown_before_anything_is_sought_and_fetched_only_then(
    house: House, sample_films: list[Path], storyboard: Path
) -> None:
    page = house.page
    house.post("Plain.mp4", FileContent(sample_films[0]), "video/mp4", duration_s=8.0)
    post_long(house, sample_films[0], storyboard)
    await house.open("Tiled.mp4")
    await house.plays_beyond(0.2)
    await page.keyboard.press("k")
    line = Line(page)
    await expect(line.slider).to_be_visible()
    assert house.count("/storyboard/") == 0
    at = await house.position()
    for share, colour in ((0.1, "red"), (0.3, "lime"), (0.6, "blue"), (0.9, "white")):
        await line.point(share)
        await house.sees(colour)
    await expect(page.locator(".seek-time")).to_have_text("3:36")
    # Only what the browser holds is drawn as such, and pointing fetched nothing of the film.
    held = await page.evaluate(
        f"[...Array({FILM}.buffered.length).keys()].map((each) => 100 *"
        f" ({FILM}.buffered.end(each) - {FILM}.buffered.start(each)) / {FILM}.duration)"
    )
    drawn = await page.locator(".seek-buffered i").evaluate_all(
        "(parts) => parts.map((part) => parseFloat(part.style.width))"
    )
    assert sum(held) < 95
    assert drawn == pytest.approx(held, abs=1)
    await page.mouse.down()
    await line.point(0.3)
    await house.sees("lime")
    assert await house.position() == at  # nothing moves before the hand lets go
    await page.mouse.up()
    await page.wait_for_function(f"() => Math.abs({FILM}.currentTime - {LENGTH_S * 0.3}) < 2")
    await page.mouse.move(500, 200)
    await expect(page.locator(".seek-preview")).to_be_hidden()
    assert house.count("/storyboard/") == 1
    assert house.count("/storyboard.jpg") == 1

    await line.slider.focus()
    for key, told in (("End", "4:00"), ("Home", "0:00"), ("PageUp", "0:24"), ("5", "2:00")):
        await page.keyboard.press(key)
        await expect(line.slider).to_have_attribute("aria-valuetext", f"{told} of 4:00")
    # A seek that takes its time shows its frame, whoever asked for it.
    house.stage.telegram.trouble.round_trip_s = 0.6
    await page.evaluate(f"{FILM}.currentTime = {LENGTH_S * 0.8}")
    await house.sees("white")
    await expect(page.locator(".seek-preview")).to_be_hidden()
    house.stage.telegram.trouble.round_trip_s = 0
    # It leaves while the film plays and nobody moves, and comes back.
    await page.locator("#viewer-close").focus()
    await page.keyboard.press("k")
    await expect(page.locator("#viewer-stage")).not_to_have_class(re.compile("is-seek-shown"))
    await page.wait_for_function(
        "() => getComputedStyle(document.querySelector('.seek')).opacity === '0'"
    )
    await page.mouse.move(520, 220)
    await page.wait_for_function(
        "() => getComputedStyle(document.querySelector('.seek')).opacity === '1'"
    )

    asked = len(house.asked)
    await house.open("Plain.mp4")
    await house.plays_beyond(0.5)
    await page.evaluate(f"{FILM}.currentTime = 6")
    await house.plays_beyond(6.1)
    await expect(page.locator(".seek")).to_have_count(0)
    assert not [url for url in house.asked[asked:] if "/storyboard/" in url or "/tracks/" in url]


# -- films that the browser cannot play ------------------------------------------------------------


async def test_what_a_browser_cannot_play_is_told_with_ways_out(
    house: House, tmp_path: Path
) -> None:
    page = house.page

    def film(name: str, *options: str, inputs: tuple[str, ...] = FOUR_SECONDS) -> FileContent:
        make(tmp_path / name, *options, inputs=inputs)
        return FileContent(tmp_path / name)

    house.post("Sound.mkv", film("Sound.mkv", *H264, "-c:a", "ac3"), "video/x-matroska")
    house.post("Box.avi", film("Box.avi", "-c:v", "mpeg4", "-c:a", "mp3"), "video/x-msvideo")
    house.post("Hidden.mp4", film("Hidden.mp4", *H264, "-c:a", "ac3"), "video/mp4")
    house.post("Fine.mkv", film("Fine.mkv", *H264, "-c:a", "aac"), "application/octet-stream")
    house.post("Mute.mp4", film("Mute.mp4", *H264, inputs=FOUR_SECONDS[:1]), "video/mp4")
    house.post("Noise.mkv", BytesContent(bytes(range(256)) * 64), "video/x-matroska")
    told = page.locator(".ways-out [role=alert]")
    no_ac3 = "Your browser has no decoder for AC-3 sound. The picture would play without sound."

    # Before it is played: nothing but the head is asked for.
    await house.open("Sound.mkv")
    await expect(told).to_have_text(no_ac3)
    assert house.count("/stream/") == 0
    ways = page.locator(".ways-list .button")
    await expect(ways).to_have_text(
        ["Open in VLC", "Open in mpv", "Playlist (m3u)", "Download", "Play anyway"]
    )
    async with page.expect_download() as begun:
        await page.get_by_role("button", name="Playlist (m3u)").last.click()
    assert Path(await (await begun.value).path()).read_text().startswith("#EXTM3U")
    await page.get_by_role("button", name="Play anyway").click()
    await house.plays_beyond(1.6)  # beyond where a silent film is noticed
    await expect(told).to_have_count(0)

    await house.open("Box.avi")
    await expect(told).to_have_text("Your browser cannot open AVI files.")
    # A name that tells nothing: noticed by what is not heard.
    await house.open("Hidden.mp4")
    await expect(told).to_have_text(no_ac3)
    assert await page.evaluate(f"{FILM}.paused")
    await page.keyboard.press("k")  # is "play anyway" too
    await house.plays_beyond(2.5)
    await expect(told).to_have_count(0)
    # Nothing is said of films that do play, with a sound or made without one.
    for name in ("Fine.mkv", "Mute.mp4"):
        await house.open(name)
        await house.plays_beyond(3)
        await expect(told).to_have_count(0)
    await house.open("Noise.mkv")
    await expect(told).to_contain_text("This browser cannot play this kind of file.")

    if "libx265" in encoders(FFMPEG):
        hevc = ("-c:v", "libx265", "-tag:v", "hvc1", "-x265-params", "log-level=error")
        house.post("Odd.mp4", film("Odd.mp4", *hevc, "-pix_fmt", "yuv420p"), "video/mp4")
        await house.open("Odd.mp4")
        hevc_type = 'video/mp4; codecs="hvc1.1.6.L93.B0"'
        if await page.evaluate(f"document.createElement('video').canPlayType('{hevc_type}')"):
            await house.plays_beyond(1.5)
            await expect(told).to_have_count(0)
        else:
            await expect(told).to_contain_text("Your browser has no decoder for HEVC (H.265)")

    await page.goto(house.link("Box.avi", "watch"))
    await expect(told).to_have_text("Your browser cannot open AVI files.")
    await expect(ways).to_have_text(["Playlist (m3u)", "Download", "Play anyway"])
    share = page.url.rpartition("/")[2]
    await expect(ways.first).to_have_attribute("href", f"/m3u/{share}")


# -- subtitles -------------------------------------------------------------------------------------


def subrip(text: str) -> BytesContent:
    cue = f"1\n00:00:00,000 --> 00:{int(LENGTH_S) // 60:02}:59,000\n{text}\n"
    return BytesContent(cue.encode())


def post_subtitles(house: House, stem: str) -> None:
    for language, text in (("en", "Good evening"), ("de", "Guten Abend")):
        name = f"{stem}.{language}.srt"
        house.stage.post(subrip(text), "application/x-subrip", file_name=name, kind="document")


async def test_subtitles_are_chosen_once_and_survive_what_happens_to_the_element(
    house: House,
    sample_films: list[Path],
    storyboard: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "TOKEN_LIFETIME_S", 3)
    page = house.page
    post_long(house, sample_films[0], storyboard, "Evening.mp4")
    post_subtitles(house, "Evening")
    house.post("Other.mp4", FileContent(sample_films[1]), "video/mp4", duration_s=8.0)
    post_subtitles(house, "Other")
    (tmp_path / "inner.srt").write_text("1\n00:00:00,000 --> 00:00:04,000\nInside\n")
    film = tmp_path / "Inner.mkv"
    both = ("-i", str(tmp_path / "inner.srt"), "-map", "0", "-map", "1", "-map", "2")
    codecs = (*H264, "-c:a", "aac", "-c:s", "srt", "-metadata:s:s:0", "language=ger")
    make(film, *both, *codecs, inputs=FOUR_SECONDS)
    house.post("Inner.mkv", FileContent(film), "video/x-matroska")

    async def sees_cue(text: str) -> None:
        await page.wait_for_function(CUE_SHOWN % FILM, arg=text)

    async def sees_none() -> None:
        showing = f"() => ![...{FILM}.textTracks].some(({{ mode }}) => mode === 'showing')"
        await page.wait_for_function(showing)

    await house.open("Evening.mp4")
    await house.plays_beyond(0.2)
    await sees_none()
    await page.get_by_role("button", name="More").click()
    await page.get_by_role("radio", name="German").check()
    await sees_cue("Guten Abend")
    await page.keyboard.press("Escape")
    # The page moves the film to a fresh URL, and another element takes this one's place.
    await page.evaluate(f"window.before = {FILM}")
    await page.wait_for_function(f"() => {FILM} !== window.before && {FILM}.currentTime > 3")
    await sees_cue("Guten Abend")
    await page.evaluate(f"{FILM}.load()")  # as after a fault, where no other may take its place
    await sees_cue("Guten Abend")
    await page.keyboard.press("c")
    await sees_none()
    await page.keyboard.press("c")
    await sees_cue("Guten Abend")
    await house.open("Other.mp4")
    await sees_cue("Guten Abend")
    # By the browser's own menu, which changes the modes of the tracks.
    await page.evaluate(f"for (const each of {FILM}.textTracks) each.mode = 'disabled'")
    await page.wait_for_function("() => localStorage['rangegram.subtitles'] === '\"off\"'")
    await page.goto(house.link("Evening.mp4", "watch") + "?autoplay=1")
    await house.plays_beyond(0.2)
    await sees_none()
    await page.keyboard.press("c")
    await sees_cue("Good evening")  # the browser's own language

    await house.open("Inner.mkv")
    await house.plays_beyond(0.2)
    await page.keyboard.press("c")
    await expect(page.locator(".film-note")).to_have_text(
        "Inside the file, shown by players such as VLC: German."
    )


# -- the pages of links ----------------------------------------------------------------------------


async def test_the_page_of_a_link_shows_frames_right_above_the_films_controls(
    house: House, sample_films: list[Path], storyboard: Path
) -> None:
    post_long(house, sample_films[0], storyboard)
    page = house.page
    line = Line(page)
    for width, height in ((390, 844), (1280, 800)):
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(house.link("Tiled.mp4", "watch"))
        await page.wait_for_function(f"() => {FILM}.readyState >= 1")
        await page.locator("video").hover()
        await line.point(0.6)
        await house.sees("blue")
        film, bar, shown = [
            await page.locator(each).bounding_box() for each in ("video", ".seek", ".seek-frame")
        ]
        assert film and bar and shown  # noqa: PT018
        assert 0 < film["y"] + film["height"] - (bar["y"] + bar["height"]) < 100
        assert shown["x"] >= 0
        assert shown["x"] + shown["width"] <= width
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.set_viewport_size({"width": 320, "height": 180})
    await page.goto(house.link("Tiled.mp4", "embed"))
    await page.wait_for_function(f"() => {FILM}.readyState >= 1")
    await expect(line.slider).to_be_hidden()
