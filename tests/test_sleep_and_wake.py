"""A free host puts the worker to sleep: who wakes it, who keeps it awake, and who lets it sleep.

Goal: the page wakes it when it opens and says how far that is; a film that was clicked meanwhile
plays by itself; a film that plays keeps it awake and nothing else does. Method: a host that starts
a real worker process when it is asked and writes down every request; Chromium with a clock that the
test moves. That nobody asked is told by the next one who does: the count has no room for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from chromium import no_errors, open_chromium
from conftest import JWT_SECRET, Stage, StartClient, StartProcess
from playwright.async_api import Page, expect
from sleepy_host import SleepyHost

import backend
from gallery.settings import Settings
from gallery.shares import new_share, write_share
from gallery.tokens import webhook_secret
from gallery.updates import WEBHOOK_PATH
from telegram_simulator.looped_film import LoopedFilm

pytestmark = pytest.mark.timeout(120)
TURNS = 40  # of a film of 8 s
KEEP_AWAKE_MS = 4 * 60_000
IDLE_MS = 5 * 60_000
PLAYS_BEYOND = "(at) => document.querySelector('video')?.currentTime > at"
BOOT_PATIENCE_MS = 40_000


@dataclass
class House:
    """A gallery with one film, whose worker is on a sleepy host."""

    stage: Stage
    host: SleepyHost
    gallery: TestClient[Any, Any]
    message_id: int

    @property
    def url(self) -> str:
        return str(self.gallery.make_url("/"))

    def embed_url(self) -> str:
        share = new_share(self.stage.channel.chat_id, self.message_id, None, 0)
        return f"{self.url}embed/{write_share(JWT_SECRET, share)}"

    async def know_the_film(self) -> None:
        """Have the gallery read the channel, for which the worker is awake."""
        self.host.may_start.set()
        async with asyncio.timeout(30):
            while (await (await self.gallery.get("/api/files")).json()).get("total") != 1:
                await asyncio.sleep(0.05)


@pytest.fixture
async def open_house(
    stage: Stage,
    sample_films: list[Path],
    start_worker_process: StartProcess,
    aiohttp_client: StartClient,
) -> Callable[..., Any]:
    film = LoopedFilm(sample_films[0], TURNS)
    post = stage.post(film, file_name="Long.mp4", duration_s=film.duration_s, kind="video")

    @asynccontextmanager
    async def start(*, holds: bool = True, **environment: str) -> AsyncIterator[House]:
        async with SleepyHost(start_worker_process, holds=holds).serving() as host:
            on_stage = {**stage.environment(), "JWT_SECRET": JWT_SECRET, "WORKER_URL": host.url}
            settings = Settings.from_env({**on_stage, **environment})
            app = await asyncio.to_thread(backend.create_app, settings)
            yield House(stage, host, await aiohttp_client(app), post.id)

    return start


@asynccontextmanager
async def open_page(url: str, **options: Any) -> AsyncIterator[Page]:
    async with open_chromium(**options) as page:
        with no_errors(page):
            await page.clock.install()
            await page.goto(url)
            yield page


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


# -- Waking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holds", "service_workers"),
    [(True, "allow"), (False, "block")],
    ids=["a host that holds requests", "a host that answers 502"],
)
async def test_the_page_wakes_the_worker_and_plays_what_was_clicked_meanwhile(
    open_house: Callable[..., Any], holds: bool, service_workers: Any
) -> None:
    async with open_house(holds=holds) as house:
        await house.know_the_film()
        await house.host.put_to_sleep()
        async with open_chromium(service_workers=service_workers) as page:
            with no_errors(page):
                await page.goto(house.url)
                await expect(page.locator("#notice-title")).to_have_text("Waking the worker…")
                await expect(page.locator("#notice-text")).to_contain_text("s so far.")
                assert house.host.times("/health", "page") >= 1
                bar = page.locator("#notice-bar")
                share = float(await bar.get_attribute("value") or 0)
                await page.wait_for_function(
                    "(share) => document.querySelector('#notice-bar').value > share", arg=share
                )
                await page.locator(".card-link").click()
                await expect(page.locator("#viewer-waking")).to_be_visible()
                await expect(page.locator("#viewer-waking-text")).to_contain_text(
                    "starts by itself"
                )
                house.host.may_start.set()
                await page.wait_for_function(PLAYS_BEYOND, arg=0.3, timeout=BOOT_PATIENCE_MS)
                await expect(page.locator("#viewer-waking")).to_be_hidden()
                await expect(page.locator("#notice")).to_be_hidden()


async def test_an_empty_list_waits_for_the_worker_and_fills_by_itself(
    open_house: Callable[..., Any],
) -> None:
    async with open_house() as house, open_chromium() as page:
        with no_errors(page):
            await page.goto(house.url)
            await expect(page.locator("#notice-text")).to_contain_text("The list shows up here")
            assert house.host.times("/health", "page") == 1  # held, and so not asked again
            house.host.may_start.set()
            await expect(page.locator(".card-link")).to_have_count(1, timeout=BOOT_PATIENCE_MS)
            await expect(page.locator("#notice")).to_be_hidden()


async def test_a_shared_film_waits_for_its_worker_too(open_house: Callable[..., Any]) -> None:
    async with open_house(holds=False) as house:
        await house.know_the_film()
        await house.host.put_to_sleep()
        async with open_chromium("--autoplay-policy=no-user-gesture-required") as page:
            with no_errors(page):
                await page.goto(house.embed_url() + "?autoplay=1")
                await expect(page.locator("#status")).to_contain_text("Waking the worker… ")
                house.host.may_start.set()
                await page.wait_for_function(PLAYS_BEYOND, arg=0.3, timeout=BOOT_PATIENCE_MS)
                await expect(page.locator("#status")).to_be_hidden()


# -- Keeping awake, and letting sleep --------------------------------------------------------------


@pytest.mark.parametrize("door", ["gallery", "embed"])
async def test_a_film_keeps_its_worker_awake_while_it_plays_and_not_while_it_is_paused(
    open_house: Callable[..., Any], door: str
) -> None:
    async with open_house() as house:
        await house.know_the_film()
        film_url = f"{house.url}?file={house.stage.channel.chat_id}/{house.message_id}"
        url = film_url if door == "gallery" else house.embed_url() + "?autoplay=1"
        async with open_page(url, service_workers="block") as page:
            await page.locator("video").wait_for()
            await page.evaluate("document.querySelector('video').muted = true")
            await page.evaluate("document.querySelector('video').play().catch(() => null)")
            await page.wait_for_function(PLAYS_BEYOND, arg=0.2)
            before = house.host.times("/health", "page")
            assert before == 1  # the knock at the door

            async def pass_minutes() -> None:
                await page.clock.fast_forward(KEEP_AWAKE_MS)

            await pass_minutes()
            await until(lambda: house.host.times("/health", "page") == before + 1)
            await page.evaluate("document.querySelector('video').pause()")
            for _ in range(3):
                await pass_minutes()
            await page.evaluate("document.querySelector('video').play()")
            await page.wait_for_function("() => !document.querySelector('video').paused")
            await pass_minutes()
            await until(lambda: house.host.times("/health", "page") > before + 1)
            # Had the paused minutes asked, there would be more by now: those came first.
            assert house.host.times("/health", "page") == before + 2


async def test_an_idle_tab_and_a_hidden_one_ask_for_nothing_until_the_person_is_back(
    open_house: Callable[..., Any],
) -> None:
    async with open_house() as house:
        await house.know_the_film()
        asked: list[str] = []
        answered: list[str] = []
        async with open_chromium() as page:
            with no_errors(page):
                await page.clock.install()
                page.on("request", lambda request: asked.append(request.url.split("?")[0]))
                page.on("requestfinished", lambda request: answered.append(request.url))
                await page.goto(house.url)
                await expect(page.locator(".card-link")).to_have_count(1)

                def looks() -> int:
                    return asked.count(f"{house.url}api/files")

                async def knocks_are_answered() -> None:
                    # Or the clock would jump over minutes in which a worker seems to be asleep, and
                    # the list would be looked at once more when it wakes.
                    knock = f"{house.host.url}/health"
                    await until(lambda: 0 < asked.count(knock) == answered.count(knock))

                assert looks() == 1
                await knocks_are_answered()
                await page.mouse.move(10, 10)
                await page.clock.fast_forward(25_000)
                await until(lambda: looks() == 2)  # somebody is there: new posts show up

                # nobody moves
                knocks = house.host.times("/health", "page")
                await page.clock.fast_forward(IDLE_MS + 1)
                for _ in range(5):
                    await page.clock.fast_forward(60_000)
                await page.mouse.move(50, 50)
                await until(lambda: looks() == 3)  # at once, and no other in all that time
                await until(lambda: house.host.times("/health", "page") == knocks + 1)
                await knocks_are_answered()

                # another tab is looked at
                await page.evaluate(HIDE % "true")
                for _ in range(5):
                    await page.clock.fast_forward(60_000)
                await page.evaluate(HIDE % "false")
                await until(lambda: looks() == 4)
                await expect(page.locator(".card-link")).to_have_count(1)
                assert looks() == 4


HIDE = """(() => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => %s });
  document.dispatchEvent(new Event("visibilitychange"));
})()"""


async def test_the_backend_asks_no_worker_before_somebody_comes(
    open_house: Callable[..., Any],
) -> None:
    password = "correct horse battery"
    async with open_house(GALLERY_PASSWORD=password, HOST="127.0.0.1") as house:
        # strangers, the host's own health check, and Telegram with a new post
        for path in ("/", "/sign-in", "/health", "/api/files", "/api/state", "/embed/x", "/v/x"):
            async with house.gallery.get(path):
                pass
        secret = webhook_secret(JWT_SECRET, house.stage.bot.token)
        headers = {"X-Telegram-Bot-Api-Secret-Token": secret}
        async with house.gallery.post(WEBHOOK_PATH, json={}, headers=headers) as response:
            assert response.status == 200
        async with house.gallery.post("/sign-in", data={"password": password}) as response:
            assert response.status == 200
        house.host.may_start.set()
        async with house.gallery.get("/api/files") as response:
            assert (await response.json())["total"] == 1
        asked = [each.path for each in house.host.asked]
        assert asked == [f"/files/{house.stage.channel.chat_id}"]
