"""Debian's own Chromium, driven by Playwright; its private build of a browser is not needed.

One browser serves all tests of a process that want the same flags, since to start one takes longer
than what many a test does with it. To each test it looks like a fresh one: a context has its own
storage, cache, permissions and service workers.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

FLAGS = (
    *("--headless", "--no-sandbox", "--remote-debugging-port=0", "--no-first-run"),
    *("--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb"),
    # No page is in front of another one, and none is slower than the one that is looked at.
    *("--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows"),
    *("--disable-renderer-backgrounding", "--disable-component-update", "--disable-sync"),
    # A test that presses keys in a row is no abuse.
    *("--disable-ipc-flooding-protection", "--disable-background-networking"),
)


class _Browser:
    """A running Chromium: its process, its profile, and the socket that it is driven by."""

    def __init__(self, flags: tuple[str, ...]) -> None:
        program = shutil.which("chromium")
        assert program, "Chromium is missing (Debian: apt install chromium)"
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        folder = Path(self._profile.name)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, *FLAGS, *flags, f"--user-data-dir={folder}", "about:blank"],
                stdout=log,
                stderr=log,
            )
        note = folder / "DevToolsActivePort"
        while not (note.exists() and note.read_text().count("\n")):
            assert self.is_alive, "Chromium ended at once:\n" + (folder / "log").read_text()
            time.sleep(0.02)
        port, path = note.read_text().split("\n", 1)
        self.address = f"ws://127.0.0.1:{port}{path}"

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._profile.cleanup()


_running: dict[tuple[str, ...], _Browser] = {}


def _address(flags: tuple[str, ...]) -> str:
    if flags not in _running or not _running[flags].is_alive:
        _running[flags] = _Browser(flags)
    return _running[flags].address


def close_browsers() -> None:
    """End those that were started for the tests of this process."""
    while _running:
        _running.popitem()[1].close()


@asynccontextmanager
async def open_chromium(*flags: str, **options: Any) -> AsyncIterator[Page]:
    """A page as of a fresh browser; the options are those of Playwright's `Browser.new_page`."""
    address = await asyncio.to_thread(_address, flags)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(address)
        context = await browser.new_context(**options)
        try:
            yield await context.new_page()
        finally:
            await context.close()
            await browser.close()


@contextmanager
def no_errors(page: Page) -> Iterator[None]:
    """An error that the page's scripts did not catch fails the test."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield
    assert errors == []


@asynccontextmanager
async def open_gallery(url: str, **options: Any) -> AsyncIterator[Page]:
    """The gallery's first page, without errors."""
    async with open_chromium(base_url=url, **options) as page:
        with no_errors(page):
            await page.goto("/")
            yield page
