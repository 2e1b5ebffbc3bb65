"""The whole house behind nginx and behind Caddy, as it stands on somebody's server.

Goal: over https and HTTP/2 one signs in, a film plays and seeks, a link for others works, and a
film outlives a broken connection; the gallery knows who comes although the proxy stands between.
Method: `backend.py` and the worker as processes, the shipped configuration, Chromium.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector
from chromium import no_errors, open_chromium
from conftest import REPOSITORY, Stage, StartProcess
from playwright.async_api import Page, expect
from proxies import NOBODY, Proxy, Sites, free_port, running_proxy
from rough_line import RoughLine

from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.looped_film import LoopedFilm

PASSWORD = "correct horse battery"
FILM = "document.querySelector('#viewer video')"
PLAYS_BEYOND = f"(at) => {FILM}?.currentTime > at"
TURNS = 400  # of a film of 8 s: more than any browser takes in advance
CUT_AFTER_S = 1.2
LINE_BYTES_PER_S = 600_000  # twice what the film needs


@dataclass(frozen=True)
class House:
    """A gallery and a worker behind a proxy."""

    film: LoopedFilm
    proxy: Proxy
    backend_log: Path

    @property
    def url(self) -> str:
        return self.proxy.gallery_url


@pytest.fixture(params=("nginx", "caddy"))
async def house(
    request: pytest.FixtureRequest,
    stage: Stage,
    bot_api: BotApiServer,
    sample_films: list[Path],
    start_worker_process: StartProcess,
    tmp_path: Path,
) -> AsyncIterator[House]:
    film = LoopedFilm(sample_films[0], TURNS)
    stage.post(film, file_name="Long.mp4", duration_s=film.duration_s, kind="video")
    worker = await start_worker_process()
    gallery_port = free_port()
    address = worker.url.removeprefix("http://")
    sites = Sites((address,), f"127.0.0.1:{gallery_port}", free_port(), free_port())
    log_path = tmp_path / "backend.log"
    async with running_proxy(request.param, tmp_path / "proxy", sites) as proxy:
        environ = {
            **stage.environment(),
            "PATH": os.environ["PATH"],
            "BOT_API_URL": bot_api.url,
            "CHANNELS": str(stage.channel.chat_id),
            "WORKER_URL": proxy.worker_url,
            "PUBLIC_URL": proxy.gallery_url,
            "GALLERY_PASSWORD": PASSWORD,
            "PORT": str(gallery_port),
            # The backend asks the worker by its public name, so it meets the test's certificate.
            "SSL_CERT_FILE": str(proxy.authority_path),
        }
        with log_path.open("wb") as log:
            backend = await asyncio.create_subprocess_exec(
                sys.executable, str(REPOSITORY / "backend.py"), env=environ, stderr=log
            )
        try:
            await _until_healthy(f"http://127.0.0.1:{gallery_port}", backend, log_path)
            yield House(film, proxy, log_path)
        finally:
            backend.send_signal(signal.SIGTERM)
            await backend.wait()


async def _until_healthy(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/health") as response:
                    assert response.status == 200
                    return
            except ClientError:
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)


@pytest.fixture
async def page(house: House) -> AsyncIterator[Page]:
    """Chromium, which takes the test's certificate as a service worker's too."""
    async with open_chromium("--ignore-certificate-errors", base_url=house.url) as page:
        with no_errors(page):
            yield page


async def sign_in(page: Page) -> None:
    await page.goto("/")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator(".card-link")).to_have_count(1)


async def test_one_signs_in_and_a_film_plays_over_http_2(house: House, page: Page) -> None:
    await sign_in(page)
    (cookie,) = await page.context.cookies()
    assert cookie["secure"]
    assert cookie["httpOnly"]
    await page.locator(".card-link").click()
    await page.wait_for_function(PLAYS_BEYOND, arg=0.3)
    await page.evaluate(f"{FILM}.currentTime = 2000")
    await page.wait_for_function(PLAYS_BEYOND, arg=2001)
    protocols = await page.evaluate(
        "performance.getEntries().filter((each) => each.nextHopProtocol)"
        ".map((each) => each.nextHopProtocol)"
    )
    assert set(protocols) == {"h2"}
    assert "token=" not in house.proxy.logs


async def test_a_link_for_others_works_and_guesses_are_counted_by_the_real_address(
    house: House, stage: Stage
) -> None:
    connector = TCPConnector(ssl=house.proxy.trust)
    host = {"Host": house.url.removeprefix("https://")}
    base = f"https://127.0.0.1:{house.proxy.sites.https_port}"
    named: dict[str, Any] = {"server_hostname": house.proxy.sites.gallery_name}
    async with ClientSession(connector=connector) as session:

        async def sign_in(password: str) -> Any:
            headers = {**host, "X-Forwarded-For": "192.0.2.7", "Origin": house.url}
            form = {"password": password}
            return await session.post(
                f"{base}/sign-in", data=form, headers=headers, allow_redirects=False, **named
            )

        assert (await sign_in("a wrong guess")).status == 403
        assert "sign-in failed from 127.0.0.1" in house.backend_log.read_text()
        assert "192.0.2.7" not in house.backend_log.read_text()
        signed_in = await sign_in(PASSWORD)
        assert signed_in.status == 303
        assert signed_in.headers["Strict-Transport-Security"]
        cookie = signed_in.headers["Set-Cookie"]
        assert "; Secure" in cookie
        (post,) = [each for each in stage.channel.posts.values() if each.media]
        async with session.post(
            f"{base}/api/shares",
            json={"chat_id": stage.channel.chat_id, "message_id": post.id},
            headers={**host, "Cookie": cookie.partition(";")[0]},
            **named,
        ) as made:
            assert made.status == 201
            link = (await made.json())["url"]
        assert link.startswith(f"{house.url}/v/")
        async with session.get(
            link.replace(house.url, base), headers=host, allow_redirects=False, **named
        ) as answer:
            assert answer.status == 307
            target = answer.headers["Location"]
        assert target.startswith(f"{house.proxy.worker_url}/stream/")
        async with session.get(target, headers={"Range": "bytes=1000-1999"}) as film:
            assert film.status == 206
            assert await film.read() == house.film.read(1000, 1000)
    assert link.rpartition("/")[2] not in house.proxy.logs
    assert re.search("/v/[\\w-]{12}", house.proxy.logs)
    assert "token" not in house.proxy.logs


PLAYS_ALONE = """(url) => {
  const film = document.createElement("video");
  film.muted = true;
  film.src = url;
  document.body.replaceChildren(film);
  return film.play();
}"""


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
async def test_a_player_without_our_script_plays_over_broken_connections(
    stage: Stage,
    sample_films: list[Path],
    start_worker_process: StartProcess,
    tmp_path: Path,
    kind: str,
) -> None:
    """A break must reach the player as one: it asks again for what is missing."""
    film = LoopedFilm(sample_films[0], TURNS)
    post = stage.post(film, file_name="Long.mp4", duration_s=film.duration_s, kind="video")
    worker = await start_worker_process()
    port = int(worker.url.rpartition(":")[2])
    async with RoughLine(port, LINE_BYTES_PER_S, CUT_AFTER_S).listening() as line:
        sites = Sites((line.url.removeprefix("http://"),), NOBODY, free_port(), free_port())
        async with (
            running_proxy(kind, tmp_path / "proxy", sites) as proxy,
            open_chromium("--ignore-certificate-errors", service_workers="block") as page,
        ):
            await page.goto(f"{proxy.worker_url}/health")
            await page.evaluate(PLAYS_ALONE, proxy.worker_url + stage.path(post))
            # What one connection brings does not last so long, and the next ones break as well.
            bytes_per_s = film.size / film.duration_s
            await page.wait_for_function(
                "(at) => document.querySelector('video').currentTime > at",
                arg=1.5 * CUT_AFTER_S * LINE_BYTES_PER_S / bytes_per_s,
            )
            assert await page.evaluate("document.querySelector('video').error") is None
    assert line.cuts >= 2
