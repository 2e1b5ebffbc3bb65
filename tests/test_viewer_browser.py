"""What a person does with an open file, and with a list of ten thousand, in Chromium.

Goal: resume, step, zoom, share, keys and statistics do what they say, and a long list stays light.
Method: the gallery on a worker on the pocket Telegram; for the long list its API is played by the
test, because ten thousand posts are not what is tested.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from chromium import open_gallery
from conftest import JWT_SECRET, Stage, StartClient
from playwright.async_api import Page, Route, expect

import backend
from gallery.settings import Settings
from telegram_simulator.content import FileContent
from telegram_simulator.looped_film import LoopedFilm

FILM = "document.querySelector('#viewer video')"
TURNS = 30  # of a film of 8 s
LIST_LENGTH = 10_000
PAGE_LENGTH = 200


@pytest.fixture
async def page(
    stage: Stage,
    start_worker: StartClient,
    aiohttp_client: StartClient,
    sample_films: list[Path],
    sample_pictures: list[Path],
) -> AsyncIterator[Page]:
    """The gallery with a picture and two films, newest last. Errors of the page fail the test."""
    picture = sample_pictures[0]
    stage.post(FileContent(picture), "image/jpeg", file_name=picture.name)
    film = LoopedFilm(sample_films[0], TURNS)
    stage.post(film, file_name="Long.mp4", duration_s=film.duration_s, kind="video")
    stage.post(FileContent(sample_films[1]), file_name="Short.mp4", duration_s=8.0, kind="video")
    worker = await start_worker()
    environment = {"JWT_SECRET": JWT_SECRET, "WORKER_URL": str(worker.make_url("/"))}
    settings = Settings.from_env({**stage.environment(), **environment})
    app = await asyncio.to_thread(backend.create_app, settings)
    url = str((await aiohttp_client(app)).make_url("/"))
    permissions = ["clipboard-read", "clipboard-write"]
    async with open_gallery(url, permissions=permissions) as page:
        yield page


async def open_file(page: Page, name: str) -> None:
    await page.locator(".card-link", has_text=name).click()
    await expect(page.locator("#viewer-title")).to_have_text(name)


async def plays_beyond(page: Page, at: float) -> None:
    await page.wait_for_function(f"(at) => {FILM}?.currentTime > at", arg=at)


async def test_a_film_goes_on_where_it_was_left_and_can_start_over(page: Page) -> None:
    await open_file(page, "Long")
    await plays_beyond(page, 0.2)
    await page.evaluate(f"{FILM}.currentTime = 100")
    await plays_beyond(page, 100)
    await page.keyboard.press("k")
    await page.keyboard.press("Escape")
    await expect(page.locator(".card-progress:not([hidden])")).to_have_count(1)
    await open_file(page, "Long")
    await expect(page.locator("#viewer-resumed")).to_contain_text("Resumed at 1:4")
    await plays_beyond(page, 100)
    await page.get_by_role("button", name="Start over").click()
    await page.wait_for_function(f"() => {FILM}.currentTime < 50")
    await expect(page.locator("#viewer-resumed")).to_be_hidden()


async def test_next_and_previous_walk_the_list_and_back_still_leads_to_it(page: Page) -> None:
    await open_file(page, "Short")
    await page.keyboard.press("n")
    await expect(page.locator("#viewer-title")).to_have_text("Long")
    await page.get_by_role("button", name="Next file").click()
    await expect(page.locator("#viewer-title")).to_have_text("Dusk")
    await page.keyboard.press("n")  # the end of the list
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#viewer-title")).to_have_text("Long")
    await page.go_back()
    await expect(page.locator("#viewer")).to_be_hidden()
    await expect(page.locator(".card-link", has_text="Long")).to_be_focused()


async def test_keys_pause_seek_mute_and_change_the_speed(page: Page) -> None:
    await open_file(page, "Long")
    await plays_beyond(page, 0.2)
    await page.keyboard.press("Space")
    assert await page.evaluate(f"{FILM}.paused")
    await page.keyboard.press("5")
    await page.wait_for_function(f"() => Math.abs({FILM}.currentTime - {4 * TURNS}) < 1")
    await page.keyboard.press("j")
    await page.wait_for_function(f"() => Math.abs({FILM}.currentTime - {4 * TURNS - 10}) < 1")
    await page.keyboard.press("m")
    await page.keyboard.press(">")
    assert await page.evaluate(f"[{FILM}.muted, {FILM}.playbackRate]") == [True, 1.25]
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#viewer")).to_be_visible()
    await page.keyboard.press("f")
    await page.wait_for_function("() => document.fullscreenElement?.id === 'viewer-frame'")


async def test_the_statistics_tell_what_plays(page: Page) -> None:
    await open_file(page, "Long")
    await plays_beyond(page, 0.2)
    await page.keyboard.press("i")
    panel = page.locator("#viewer-stats")
    await expect(panel).to_contain_text(re.compile(r"1280 . 720"))
    await expect(panel).to_contain_text("Worker")
    await expect(panel).to_contain_text(re.compile(r"Dropped\d+ of \d+ frames"))
    await page.keyboard.press("i")
    await expect(panel).to_be_hidden()


async def test_a_picture_zooms_by_wheel_and_double_click_and_goes_back(page: Page) -> None:
    await open_file(page, "Dusk")
    picture = page.locator("#viewer-stage .picture")
    await picture.wait_for()
    whole = await picture.bounding_box()
    assert whole
    await page.mouse.move(whole["x"] + 300, whole["y"] + 200)
    await page.mouse.wheel(0, -400)
    await expect(picture).to_have_class(re.compile("is-zoomed"))
    zoomed = await picture.bounding_box()
    assert zoomed
    factor = zoomed["width"] / whole["width"]
    assert factor > 2
    # what was under the mouse still is
    assert zoomed["x"] + 300 * factor == pytest.approx(whole["x"] + 300, abs=1)
    await page.keyboard.press("0")
    await expect(picture).not_to_have_class(re.compile("is-zoomed"))
    await picture.dblclick()
    await expect(picture).to_have_class(re.compile("is-zoomed"))


async def test_a_link_is_made_copied_listed_and_ended(page: Page) -> None:
    await open_file(page, "Long")
    await page.keyboard.press("s")
    await page.get_by_role("radio", name="30 days").check()
    await page.get_by_role("button", name="Make a link").click()
    link = await page.get_by_label("Link", exact=True).input_value()
    assert "/watch/" in link  # what people send to each other shows a card in chats
    await expect(page.get_by_role("button", name="Copy link")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    await expect(page.get_by_role("status").filter(has_text="Link copied")).to_be_attached()
    assert await page.evaluate("navigator.clipboard.readText()") == link
    await page.keyboard.press("Escape")
    await page.keyboard.press("s")
    await expect(page.locator(".share-entry")).to_have_count(1)
    await expect(page.get_by_role("link", name="Open")).to_have_attribute("href", link)
    await page.get_by_role("button", name="End now").click()
    await expect(page.locator(".share-entry")).to_have_count(0)
    for door in ("/watch/", "/v/"):
        answer = await page.request.get(link.replace("/watch/", door), max_redirects=0)
        assert answer.status == 410


WAYS = {
    "Direct link, for players and downloads": r"http://\S+/v/\S{56}",
    "HTML: <video>": r"<video src=\".+/v/\S{56}\" .*</video>",
    "HTML: <iframe> with the player": r"<iframe src=\".+/embed/\S{56}\" .*</iframe>",
    "Playlist (m3u), for VLC and others": r"http://\S+/m3u/\S{56}",
}


async def make_link(page: Page) -> None:
    await open_file(page, "Long")
    await page.keyboard.press("s")
    await page.get_by_role("button", name="Make a link").click()
    await page.get_by_text("For pages and players").click()


async def test_every_way_to_share_is_copied_and_said_aloud(page: Page) -> None:
    await make_link(page)
    said = page.locator("#share-said")
    for way, pattern in WAYS.items():
        await page.get_by_role("button", name=f"Copy {way}", exact=True).click()
        await expect(said).to_have_text(f"{way} copied")
        await expect(page.get_by_role("button", name=f"Copied {way}", exact=True)).to_be_visible()
        text = await page.evaluate("navigator.clipboard.readText()")
        assert re.fullmatch(pattern, text)
        assert await page.get_by_role("textbox", name=way, exact=True).input_value() == text
    assert await said.get_attribute("role") == "status"


async def test_sharing_copies_on_plain_http_and_selects_where_nothing_may_be_copied(
    page: Page,
) -> None:
    await make_link(page)
    await page.evaluate(
        """() => {
          window.kept = navigator.clipboard;
          Object.defineProperty(navigator, "clipboard", { value: undefined });
        }"""
    )
    way = "HTML: <video>"
    copy = page.get_by_role("button", name=f"Copy {way}", exact=True)
    field = page.get_by_role("textbox", name=way, exact=True)
    await copy.click()
    await expect(page.locator("#share-said")).to_have_text(f"{way} copied")
    assert await page.evaluate("window.kept.readText()") == await field.input_value()
    await expect(copy).to_be_visible()  # the button says "Copy" again
    await page.evaluate("document.execCommand = () => false")
    await copy.click()
    await expect(page.locator("#share-said")).to_have_text(
        "Not copied. It is selected: press Ctrl+C."
    )
    await expect(field).to_be_focused()
    selected = "(field) => field.value.slice(field.selectionStart, field.selectionEnd)"
    assert await field.evaluate(selected) == await field.input_value()


async def test_the_share_sheet_fits_small_screens(page: Page) -> None:
    await make_link(page)
    for width in (320, 390, 1280):
        await page.set_viewport_size({"width": width, "height": 700})
        sheet = await page.locator("#share").element_handle()
        fits = "(sheet) => sheet.scrollWidth <= sheet.clientWidth"
        await page.wait_for_function(fits, arg=sheet)


async def test_the_menu_opens_the_film_in_another_player(page: Page) -> None:
    await open_file(page, "Long")
    await page.get_by_role("button", name="More").click()
    await expect(page.locator("#menu-players .menu-item")).to_have_text(
        ["VLC", "mpv", "Playlist (m3u)"]
    )
    async with page.expect_download() as begun:
        await page.get_by_role("button", name="Playlist (m3u)").click()
    playlist = Path(await (await begun.value).path()).read_text()
    assert playlist.startswith("#EXTM3U")


# -- A long list -------------------------------------------------------------------------------


def fake_file(index: int) -> dict[str, Any]:
    return {
        "chat_id": -1001,
        "message_id": LIST_LENGTH - index,
        "name": f"File number {index}.mkv",
        "kind": "video",
        "mime_type": "video/x-matroska",
        "size": 1_000_000_000 + index,
        "date": 1_790_000_000 - index,
        "duration": 5400.0,
        "width": 1920,
        "height": 1080,
        "caption": "",
        "thumbnail": None,
    }


async def answer_listing(route: Route) -> None:
    query = parse_qs(urlsplit(route.request.url).query)
    start = int(query.get("cursor", ["0"])[0])
    stop = min(start + PAGE_LENGTH, LIST_LENGTH)
    body = {
        "files": [fake_file(index) for index in range(start, stop)],
        "next": str(stop) if stop < LIST_LENGTH else None,
        "total": LIST_LENGTH,
        "index": {"state": "ready", "files": LIST_LENGTH, "messages_read": LIST_LENGTH},
    }
    await route.fulfill(body=json.dumps(body), content_type="application/json")


SCROLL_TO_THE_END = """new Promise((resolve) => {
  const times = [];
  let before = performance.now();
  let most = 0;
  const step = (now) => {
    times.push(now - before);
    before = now;
    most = Math.max(most, document.querySelectorAll('*').length);
    const last = document.querySelector(`.card[aria-posinset="${%d}"]`);
    if (last) {
      times.sort((one, other) => one - other);
      resolve({ nodes: most, median: times[times.length >> 1], p95: times[times.length * 0.95 | 0],
                frames: times.length, shift: window.shift });
    } else {
      scrollBy(0, 4000);
      requestAnimationFrame(step);
    }
  };
  requestAnimationFrame(step);
})"""
WATCH_SHIFTS = """window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({ type: 'layout-shift', buffered: true });"""


async def test_ten_thousand_files_stay_light_and_nothing_jumps(page: Page) -> None:
    await page.route("**/api/files?*", answer_listing)
    await page.add_init_script(WATCH_SHIFTS)
    await page.goto("/")
    await expect(page.locator("#summary")).to_have_text("10,000 files")
    seen = await page.evaluate(SCROLL_TO_THE_END % LIST_LENGTH)
    print(seen)  # shown by `pytest -rP`
    assert seen["nodes"] < 2_500
    assert seen["shift"] < 0.01
    await page.locator(f'.card[aria-posinset="{LIST_LENGTH}"] a').focus()
    await page.keyboard.press("Home")
    await expect(page.locator('.card[aria-posinset="1"] a')).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowRight")
    focused = await page.evaluate(
        "document.activeElement.closest('.card').getAttribute('aria-posinset')"
    )
    assert int(focused) > 2


async def test_a_thumbnail_whose_token_has_ended_is_asked_for_again(page: Page) -> None:
    asked: list[str] = []

    async def refuse_the_first(route: Route) -> None:
        asked.append(route.request.url)
        token = parse_qs(urlsplit(route.request.url).query)["token"]
        if token == ["stale"]:
            await route.fulfill(status=401, body="{}")
        else:
            await route.fulfill(
                body=b"<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'/>",
                content_type="image/svg+xml",
            )

    def with_thumbnail(token: str) -> dict[str, Any]:
        return {**fake_file(0), "thumbnail": f"/thumbnail/1/1?token={token}"}

    async def list_one(route: Route) -> None:
        index = {"state": "ready", "files": 1, "messages_read": 1}
        body = {"files": [with_thumbnail("stale")], "next": None, "total": 1, "index": index}
        await route.fulfill(body=json.dumps(body), content_type="application/json")

    async def show_one(route: Route) -> None:
        body = json.dumps(with_thumbnail("fresh"))
        await route.fulfill(body=body, content_type="application/json")

    await page.route("**/thumbnail/**", refuse_the_first)
    await page.route("**/api/files?*", list_one)
    await page.route(re.compile(r"/api/files/-1001/\d+$"), show_one)
    await page.goto("/")
    await expect(page.locator(".card-thumbnail.is-loaded")).to_have_count(1)
    assert [url.rpartition("=")[2] for url in asked] == ["stale", "fresh"]


async def test_the_page_says_how_far_the_index_has_read(page: Page) -> None:
    async def reading(route: Route) -> None:
        index = {"state": "reading", "files": 0, "messages_read": 12_345}
        body: dict[str, Any] = {"files": [], "next": None, "total": 0, "index": index}
        await route.fulfill(body=json.dumps(body), content_type="application/json")

    await page.route("**/api/files?*", reading)
    await page.goto("/")
    await expect(page.locator("#summary")).to_have_text("0 files · 12,345 messages read…")
    assert await page.locator(".card-skeleton").count() > 3
