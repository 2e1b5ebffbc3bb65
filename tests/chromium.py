"""Debian's own Chromium, driven by Playwright; its private build of a browser is not needed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from playwright.async_api import Page, async_playwright


@asynccontextmanager
async def open_chromium(*flags: str, **options: Any) -> AsyncIterator[Page]:
    """A page of a fresh browser; the options are those of Playwright's `Browser.new_page`."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", *flags]
        )
        yield await browser.new_page(**options)
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
