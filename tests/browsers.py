"""Chromium and Firefox, driven the same way, with names of a local network for this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from chromium import open_chromium
from firefox import open_firefox
from playwright.async_api import Frame, Page

BROWSERS = ("chromium", "firefox")
# Plain http under names like these is what people have at home: no secure context.
NAMES = ("films.lan", "blog.lan")
FIREFOX = {
    "network.dns.localDomains": ",".join(NAMES),
    "media.autoplay.default": 1,
    # A film that plays holds a connection, and HTTP/1.1 has six to a host. A host in front of a
    # deployment speaks HTTP/2, which has no such limit.
    "network.http.max-persistent-connections-per-server": 24,
}


class Tab(Protocol):
    """A page, or a frame in it."""

    async def goto(self, url: str) -> None: ...

    async def evaluate(self, expression: str) -> Any: ...

    async def frames(self) -> Sequence[Tab]: ...


@dataclass
class Chromium:
    frame: Frame

    async def goto(self, url: str) -> None:
        await self.frame.goto(url)

    async def evaluate(self, expression: str) -> Any:
        return await self.frame.evaluate(expression)

    async def frames(self) -> list[Chromium]:
        return [Chromium(child) for child in self.frame.child_frames]


@asynccontextmanager
async def open_tab(browser: str, profile: Path) -> AsyncIterator[Tab]:
    """A fresh browser with its own rules for playing by itself: without sound it may."""
    if browser == "firefox":
        async with open_firefox(profile, **FIREFOX) as tab:
            yield tab
        return
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in NAMES)
    async with open_chromium(f"--host-resolver-rules={rules}") as page:
        yield Chromium(main_frame(page))


def main_frame(page: Page) -> Frame:
    return page.main_frame
