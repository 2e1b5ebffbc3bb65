"""The gallery in a real browser: what a person does and sees.

Goal: browse, search, open, play, seek, come back, and a film that plays on when its worker is
killed under it. Method: headless Chromium on the page of a real backend, whose worker is a process
of its own on the pocket Telegram; looked at are the page and the clock of the film.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import ClientError, ClientSession
from chromium import open_gallery
from conftest import JWT_SECRET, Stage, StartClient
from playwright.async_api import Page, expect

import backend
from gallery import tokens
from gallery.settings import Settings
from telegram_simulator.content import BytesContent
from telegram_simulator.looped_film import LoopedFilm
from telegram_simulator.world import PhotoSize

WORKER = Path(backend.FOLDER, "render-service-chunked.py")
FILM_SECONDS = 8
TURNS = 400  # of the long film: more than any browser takes in advance

# What the film itself says, in one word: how far it is, and whether it runs.
POSITION = "document.querySelector('#viewer video').currentTime"
PLAYS_BEYOND = "(at) => document.querySelector('#viewer video')?.currentTime > at"


@dataclass
class WorkerProcess:
    """A worker that can be killed and started again on the same port."""

    environment: dict[str, str]
    log: Path
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process = await asyncio.to_thread(self._spawn)
        async with ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{self.url}/health"):
                        return
                except ClientError:
                    assert self.process.poll() is None, self.log.read_text()
                    await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {**self.environment, "HOST": "127.0.0.1", "PORT": str(self.port)}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(WORKER)],
                env={"PATH": os.environ["PATH"], **settings},
                stderr=log,
            )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def media(sample_films: list[Path], sample_pictures: list[Path]) -> list[Path]:
    return [*sample_films, sample_pictures[0]]


@pytest.fixture
def long_film(stage: Stage, media: list[Path]) -> str:
    """Nearly an hour of film, posted before the gallery opens; gives its name."""
    film = LoopedFilm(media[0], TURNS)
    stage.post(film, file_name="Long.mp4", duration_s=film.duration_s, kind="video")
    return "Long"


@pytest.fixture
async def films(stage: Stage, media: list[Path]) -> list[int]:
    """The sample films and a picture are posts of the channel; gives their message ids."""
    types = {".mp4": "video/mp4", ".webm": "video/webm", ".jpg": "image/jpeg"}
    thumbnail = PhotoSize("m", 320, 180, BytesContent(media[-1].read_bytes()))
    return [
        stage.post(
            BytesContent(path.read_bytes()),
            types[path.suffix],
            file_name=path.name,
            text=f"Post of {path.stem}",
            thumbnails=(thumbnail,),
        ).id
        for path in media
    ]


@pytest.fixture
async def worker_process(
    stage: Stage, films: list[int], tmp_path: Path
) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess(stage.environment(), tmp_path / "worker.log")
    await worker.start()
    yield worker
    await worker.kill()


@pytest.fixture
async def page(
    stage: Stage, worker_process: WorkerProcess, aiohttp_client: StartClient
) -> AsyncIterator[Page]:
    """The gallery, open in Chromium. Anything it reports as an error fails the test."""
    environment = {**stage.environment(), "WORKER_URL": worker_process.url}
    settings = Settings.from_env({**environment, "JWT_SECRET": JWT_SECRET})
    app = await asyncio.to_thread(backend.create_app, settings)
    gallery = await aiohttp_client(app)
    async with open_gallery(str(gallery.make_url("/"))) as page:
        yield page


async def open_film(page: Page, name: str) -> None:
    await page.locator(".card-link", has_text=name).click()
    await page.wait_for_function(PLAYS_BEYOND, arg=0.3)


# -- Browsing ----------------------------------------------------------------------------------


async def test_the_channel_is_shown_with_its_pictures(page: Page) -> None:
    await expect(page.locator(".card-link")).to_have_count(4)
    await expect(page.locator(".card-thumbnail.is-loaded")).to_have_count(4)
    await expect(page.locator("#summary")).to_have_text("4 files")


async def test_search_and_kinds_narrow_the_list_and_stay_in_the_address(page: Page) -> None:
    await page.keyboard.press("/")
    await page.keyboard.type("embers")
    await expect(page.locator(".card-title")).to_have_text(["Embers (H.264, index at the end)"])
    await expect(page).to_have_url(re.compile(r"/\?query=embers$"))
    await page.reload()
    await expect(page.locator("#query")).to_have_value("embers")
    await expect(page.locator(".card-link")).to_have_count(1)
    await page.locator("#query").fill("")
    await page.get_by_role("radio", name="Pictures").check()
    await expect(page.locator(".card-link")).to_have_count(1)
    await page.locator("#query").fill("nothing of this name")
    await page.get_by_role("button", name="Show everything").click()
    await expect(page.locator(".card-link")).to_have_count(4)


async def test_the_viewer_opens_by_key_and_gives_the_focus_back(page: Page) -> None:
    link = page.locator(".card-link", has_text="Horizon")
    await link.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#viewer")).to_be_visible()
    await expect(page.locator("#viewer-title")).to_contain_text("Horizon")
    await page.keyboard.press("Escape")
    await expect(page.locator("#viewer")).to_be_hidden()
    await expect(link).to_be_focused()
    assert "file=" not in page.url


async def test_back_closes_the_viewer_and_a_deep_link_opens_it(page: Page) -> None:
    await open_film(page, "Horizon")
    deep_link = page.url
    await page.go_back()
    await expect(page.locator("#viewer")).to_be_hidden()
    await page.goto(deep_link)
    await expect(page.locator("#viewer-title")).to_contain_text("Horizon")
    await page.get_by_role("button", name="Back to the gallery").click()
    await expect(page.locator("#viewer")).to_be_hidden()
    await expect(page.locator(".card-link")).to_have_count(4)


async def test_a_picture_is_shown_whole(page: Page) -> None:
    await page.get_by_role("radio", name="Pictures").check()
    await expect(page.locator(".card-link")).to_have_count(1)  # the films are gone by now
    await page.locator(".card-link").click()
    await expect(page.locator("#viewer-stage img")).to_be_visible()
    width = await page.locator("#viewer-stage img").evaluate("(image) => image.naturalWidth")
    assert width > 320


async def test_a_download_keeps_its_name_and_its_bytes(page: Page, media: list[Path]) -> None:
    await open_film(page, "Horizon")
    async with page.expect_download() as begun:
        await page.get_by_role("link", name="Download").click()
    download = await begun.value
    assert download.suggested_filename == media[0].name
    assert Path(await download.path()).read_bytes() == media[0].read_bytes()


# -- Playing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Horizon", "Embers", "Colony"])
async def test_a_film_plays_at_once_and_from_three_quarters_after_a_seek(
    page: Page, name: str
) -> None:
    await open_film(page, name)
    at = FILM_SECONDS * 0.75
    await page.evaluate(f"{POSITION} = {at}")
    await page.wait_for_function(PLAYS_BEYOND, arg=at + 1)
    await expect(page.locator("#viewer-status")).to_be_hidden()


async def test_a_film_plays_on_by_itself_when_its_worker_is_restarted(
    long_film: str, page: Page, worker_process: WorkerProcess
) -> None:
    await open_film(page, long_film)
    await page.evaluate("document.querySelector('#viewer video').playbackRate = 1.25")
    await worker_process.kill()
    at = FILM_SECONDS * TURNS * 0.75
    await page.evaluate(f"{POSITION} = {at}")
    await expect(page.locator("#viewer-status")).to_be_visible()
    await worker_process.start()
    await page.wait_for_function(PLAYS_BEYOND, arg=at + 1)
    await expect(page.locator("#viewer-status")).to_be_hidden()
    rate = await page.evaluate("document.querySelector('#viewer video').playbackRate")
    assert rate == 1.25


async def test_a_film_gets_a_fresh_url_when_its_token_has_run_out(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A token of the past in place of the first one: the worker answers 401 as it does at the hour.
    await expect(page.locator(".card-link")).to_have_count(4)  # listing takes a token as well
    lifetime = tokens.TOKEN_LIFETIME_S
    monkeypatch.setattr(tokens, "TOKEN_LIFETIME_S", -60)
    async with page.expect_response(lambda response: response.status == 401):
        await page.locator(".card-link", has_text="Horizon").click()
    monkeypatch.setattr(tokens, "TOKEN_LIFETIME_S", lifetime)
    await page.wait_for_function(PLAYS_BEYOND, arg=1)


async def test_a_worker_that_is_away_is_named_and_waited_for(
    page: Page, worker_process: WorkerProcess, stage: Stage, aiohttp_client: StartClient
) -> None:
    await worker_process.kill()
    environment = {**stage.environment(), "WORKER_URL": worker_process.url}
    settings = Settings.from_env({**environment, "JWT_SECRET": JWT_SECRET})
    gallery = await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))
    await page.goto(str(gallery.make_url("/")))
    await expect(page.locator("#state")).to_contain_text("cannot be reached: nobody listens there")
    await expect(page.locator("#notice-title")).to_have_text(
        "The worker does not answer", timeout=15_000
    )
    await worker_process.start()
    await expect(page.locator(".card-link")).to_have_count(4, timeout=15_000)
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#state-list")).not_to_contain_text("The worker at", timeout=15_000)


async def test_the_list_says_when_the_person_is_offline_and_goes_on_afterwards(page: Page) -> None:
    await expect(page.locator(".card-link")).to_have_count(4)
    await page.context.set_offline(True)
    await page.locator("#query").fill("emb")
    await expect(page.locator("#notice-title")).to_have_text("You are offline")
    await page.context.set_offline(False)
    await expect(page.locator(".card-link")).to_have_count(1)


# -- Signing in --------------------------------------------------------------------------------


async def test_signing_in_leads_to_the_film_that_was_asked_for(
    stage: Stage, films: list[int], worker_process: WorkerProcess, aiohttp_client: StartClient
) -> None:
    password = "correct horse battery"
    environment = {**stage.environment(), "WORKER_URL": worker_process.url}
    environment |= {"JWT_SECRET": JWT_SECRET, "GALLERY_PASSWORD": password, "HOST": "127.0.0.1"}
    settings = Settings.from_env(environment)
    gallery = await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))
    async with open_gallery(str(gallery.make_url("/"))) as page:
        await page.goto(f"/?file={quote(f'{stage.channel.chat_id}/{films[0]}')}")
        await page.get_by_label("Password").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("That is not the password.")
        await page.get_by_label("Password").fill(password)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#viewer-title")).to_contain_text("Horizon")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Password")).to_be_visible()
