"""Pictures of the gallery for the README: the demo in Chromium, wide and narrow, light and dark.

    python tools/screenshots.py            # writes docs/images/*.jpg
    python tools/screenshots.py card       # writes static/card.png

The films are the demo's own, so everybody's pictures look the same. Each stays below 150 KB. The
card is what chats show of a shared file that has no picture.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGES = REPOSITORY / "docs" / "images"
BYTES_MAX = 150_000
QUALITY = 82
POSITION_S = 6
SIZES = {"wide": (1440, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
CARD = REPOSITORY / "static" / "card.png"
CARD_SIZE = (1200, 630)  # what Facebook asks for; see gallery/previews.py


async def main() -> None:
    if sys.argv[1:] == ["card"]:
        await draw_card()
        return
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with demo() as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for size in SIZES:
            for scheme in SCHEMES:
                await take_all(browser, url, size, scheme)
        await browser.close()


@asynccontextmanager
async def demo(*options: str) -> AsyncIterator[str]:
    """The whole house, for as long as the block lasts; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "demo.py", "--port", str(port), *options),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    try:
        async for line in process.stdout:
            if found := re.search(rb"http://localhost:\d+/", line):
                yield found[0].decode()
                break
        else:
            raise SystemExit("screenshots: the demo did not start")
    finally:
        process.terminate()
        await process.communicate()


async def draw_card() -> None:
    icon = (REPOSITORY / "static" / "icon.svg").read_text("utf-8")
    style = "margin: 0; height: 100vh; display: grid; place-content: center; background: #0d1017"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = await browser.new_page(
            viewport={"width": CARD_SIZE[0], "height": CARD_SIZE[1]}, color_scheme="dark"
        )
        sized = icon.replace("<svg ", '<svg width="280" height="280" ', 1)
        await page.set_content(f'<body style="{style}">{sized}</body>')
        await page.screenshot(path=CARD)
        await browser.close()


async def take_all(browser: Browser, url: str, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=size == "phone",
    )
    page = await context.new_page()
    await page.goto(url)
    await page.locator(".card-thumbnail.is-loaded").nth(6).wait_for()
    await take(page, f"gallery-{size}-{scheme}")
    # The viewer is dark whatever the system says: a cinema. One set of its pictures is enough.
    if scheme == "dark":
        await open_film(page)
        for name, prepare in VIEWER.items():
            await prepare(page)
            await take(page, f"{name}-{size}")
    await context.close()


async def open_film(page: Page) -> None:
    await page.locator(".card-link", has_text="Two hours").click()
    await page.wait_for_function("() => document.querySelector('#viewer video')?.currentTime > 0")
    await page.evaluate(f"document.querySelector('#viewer video').currentTime = {POSITION_S}")
    await page.wait_for_function(
        f"() => document.querySelector('#viewer video').currentTime > {POSITION_S + 0.2}"
    )
    await page.keyboard.press("k")


async def show_statistics(page: Page) -> None:
    await page.keyboard.press("i")
    await page.locator("#viewer-stats dd").first.wait_for()


async def show_menu(page: Page) -> None:
    await page.keyboard.press("i")
    await page.locator("#viewer-more").click()


async def show_keys(page: Page) -> None:
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")


async def show_sharing(page: Page) -> None:
    await page.keyboard.press("Escape")
    await page.keyboard.press("s")
    await page.locator("#share-make").click()
    await page.locator(".share-entry").first.wait_for()


async def show_watch_page(page: Page) -> None:
    await page.goto(
        await page.get_by_label("Link", exact=True).first.input_value() + f"?t={POSITION_S}"
    )
    film = "document.querySelector('video')"
    await page.wait_for_function(f"() => {film}.readyState > 1 && !{film}.seeking")


async def nothing(_page: Page) -> None:
    """The film as it is."""


VIEWER: dict[str, Callable[[Page], Awaitable[None]]] = {
    "viewer": nothing,
    "statistics": show_statistics,
    "menu": show_menu,
    "keys": show_keys,
    "share": show_sharing,
    "watch": show_watch_page,
}


async def take(page: Page, name: str) -> None:
    # Pictures fade in; a screenshot waits until nothing moves any more.
    moving = "document.getAnimations().map((each) => each.finished)"
    await page.evaluate(f"Promise.allSettled({moving}).then(() => null)")
    path = IMAGES / f"{name}.jpg"
    for quality in range(QUALITY, 40, -8):
        picture = await page.screenshot(type="jpeg", quality=quality)
        if len(picture) <= BYTES_MAX:
            path.write_bytes(picture)
            print(f"{path.relative_to(REPOSITORY)}  {len(picture) / 1000:.0f} KB")
            return
    raise SystemExit(f"screenshots: {name} is larger than {BYTES_MAX} bytes")


if __name__ == "__main__":
    asyncio.run(main())
