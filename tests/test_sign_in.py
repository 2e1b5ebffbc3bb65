"""Sign-in where several browsers, proxies and sites meet; the rest is in test_backend.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import DummyCookieJar
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, StartClient

import backend
from gallery.settings import Settings

PASSWORD = "correct horse battery"
ENVIRONMENT = {
    "BOT_TOKEN": "1:token",
    "JWT_SECRET": JWT_SECRET,
    "WORKER_URL": "http://127.0.0.1:1",
    "CHANNELS": "-1001234567890",
    "GALLERY_PASSWORD": PASSWORD,
    "PUBLIC_URL": "https://films.example",
}

Browser = TestClient[Any, Any]


@pytest.fixture
async def browser(aiohttp_client: StartClient) -> Browser:
    """A browser in front of a gallery with a password."""
    app = await asyncio.to_thread(backend.create_app, Settings.from_env(ENVIRONMENT))
    return await aiohttp_client(app)


async def sign_in(browser: Browser, **headers: str) -> Any:
    return await browser.post(
        "/sign-in", data={"password": PASSWORD}, headers=headers, allow_redirects=False
    )


async def status(browser: Browser, path: str = "/") -> int:
    async with browser.get(path, allow_redirects=False) as response:
        return int(response.status)


async def test_several_browsers_are_signed_in_and_out_each_by_itself(
    browser: Browser, aiohttp_client: StartClient
) -> None:
    other = await aiohttp_client(browser.server)
    await sign_in(browser)
    assert (await status(browser), await status(other)) == (200, 303)
    await sign_in(other)
    assert (await status(browser), await status(other)) == (200, 200)
    async with browser.post("/sign-out"):
        pass
    assert (await status(browser), await status(other)) == (303, 200)


@pytest.mark.parametrize("path", ["/api/files", "/api/shares", "/api/nothing"])
async def test_scripts_are_told_and_people_are_led(browser: Browser, path: str) -> None:
    async with browser.get(path, headers={"Accept": "text/html"}) as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "sign_in_required"
        assert response.headers["Cache-Control"] == "no-store"
    assert await status(browser, "/?file=-1001234567890%2F7") == 303


@pytest.mark.parametrize(("forwarded", "secure"), [("https, http", True), ("http", False)])
async def test_the_browsers_own_line_decides_whether_the_cookie_needs_https(
    browser: Browser, forwarded: str, secure: bool
) -> None:
    response = await sign_in(browser, **{"X-Forwarded-Proto": forwarded})
    assert ("Secure" in response.headers["Set-Cookie"]) is secure


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://evil.example", 403),
        ("http://films.example.evil", 403),
        ("", 403),
        ("null", 303),  # what our own form says, since our pages send no referrer
        ("https://films.example", 303),
    ],
)
async def test_without_fetch_metadata_the_origin_decides(
    browser: Browser, origin: str, expected: int
) -> None:
    assert (await sign_in(browser, Origin=origin)).status == expected


async def test_a_cookie_of_another_password_is_none(
    browser: Browser, aiohttp_client: StartClient
) -> None:
    cookie = (await sign_in(browser)).headers["Set-Cookie"].partition(";")[0]
    changed = {**ENVIRONMENT, "GALLERY_PASSWORD": "another password"}
    app = await asyncio.to_thread(backend.create_app, Settings.from_env(changed))
    other = await aiohttp_client(app, cookie_jar=DummyCookieJar())
    async with other.get("/api/files", headers={"Cookie": cookie}) as response:
        assert response.status == 401
