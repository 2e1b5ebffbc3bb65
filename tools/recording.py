"""The README's recording: a film of the demo that starts, is sought in, and plays on.

    python -m tools.recording              # writes docs/images/recording.webp

Chromium tells of every picture that it paints and when; those make an animation at the speed at
which it happened, with nothing cut out. Telegram is at a distance, on a capped line (RTT, RATE).
The pointer is drawn, because a browser without a screen has none.
"""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from playwright.async_api import CDPSession, Locator, Page, async_playwright

from tools.screenshots import IMAGES, demo

RTT = "60ms"
RATE = "6MB/s"
SIZE = (1120, 700)
WIDTH = 800  # of the recording
FRAME_MS = 125
LENGTH_S = 20.0
QUALITY = 58
BYTES_MAX = 4_000_000
FILM = "Two hours"
SEEK_BAR = 0.975  # where Chromium draws it, in shares of the film's height
GLIDE_STEPS = 18

POINTER = """() => {
  const dot = document.createElement("div");
  Object.assign(dot.style, {
    position: "fixed", left: "0", top: "0", width: "22px", height: "22px", zIndex: 2147483647,
    margin: "-11px 0 0 -11px", borderRadius: "50%", pointerEvents: "none",
    background: "rgba(255, 255, 255, 0.85)", boxShadow: "0 0 0 2px rgba(0, 0, 0, 0.55)",
    transition: "width 0.1s, height 0.1s, margin 0.1s",
  });
  const host = () => document.querySelector("dialog[open]") ?? document.body;
  addEventListener("mousemove", (event) => {
    if (dot.parentNode !== host()) host().append(dot);
    dot.style.transform = `translate(${event.clientX}px, ${event.clientY}px)`;
  }, true);
  addEventListener("mousedown", () => Object.assign(dot.style, {
    width: "14px", height: "14px", margin: "-7px 0 0 -7px" }), true);
  addEventListener("mouseup", () => Object.assign(dot.style, {
    width: "22px", height: "22px", margin: "-11px 0 0 -11px" }), true);
}"""


@dataclass
class Recorder:
    """Collects what a page paints, each picture with its time in seconds."""

    session: CDPSession
    painted: list[tuple[float, bytes]] = field(default_factory=list)
    _acknowledging: list[asyncio.Future[Any]] = field(default_factory=list)

    async def start(self) -> None:
        self.session.on("Page.screencastFrame", self._keep)
        await self.session.send(
            "Page.startScreencast",
            {"format": "jpeg", "quality": 90, "maxWidth": SIZE[0], "maxHeight": SIZE[1]},
        )

    async def stop(self) -> None:
        await self.session.send("Page.stopScreencast")
        await asyncio.gather(*self._acknowledging)

    def _keep(self, frame: dict[str, Any]) -> None:
        self.painted.append((frame["metadata"]["timestamp"], base64.b64decode(frame["data"])))
        acknowledged = self.session.send(
            "Page.screencastFrameAck", {"sessionId": frame["sessionId"]}
        )
        self._acknowledging.append(asyncio.ensure_future(acknowledged))

    def at_even_times(self) -> list[bytes]:
        """What was to be seen every FRAME_MS, for LENGTH_S at most."""
        frames, place, start = [], 0, self.painted[0][0]
        for number in range(int(LENGTH_S * 1000 / FRAME_MS)):
            now = start + number * FRAME_MS / 1000
            if now > self.painted[-1][0]:
                break
            while place + 1 < len(self.painted) and self.painted[place + 1][0] <= now:
                place += 1
            frames.append(self.painted[place][1])
        return frames


async def main() -> None:
    async with demo("--rtt", RTT, "--rate", RATE) as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        context = await browser.new_context(
            viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="dark"
        )
        page = await context.new_page()
        await page.goto(url)
        await page.locator(".card-thumbnail.is-loaded").nth(6).wait_for()
        await page.evaluate(POINTER)
        recorder = Recorder(await context.new_cdp_session(page))
        await recorder.start()
        await watch_a_film(page)
        await recorder.stop()
        await browser.close()
    write(recorder.at_even_times())


async def watch_a_film(page: Page) -> None:
    """Click a film, see it run, look at the figures, click twice into its seek bar."""
    await page.mouse.move(SIZE[0] / 2, SIZE[1] / 2)
    await page.wait_for_timeout(900)
    await click(page, page.locator(".card-link", has_text=FILM), 0.5, 0.3)
    video = page.locator("#viewer video")
    await video.evaluate(
        "async (film) => { while (!film.currentTime) await new Promise(setTimeout) }"
    )
    await page.wait_for_timeout(3000)
    await page.keyboard.press("i")
    await page.wait_for_timeout(1500)
    for share in 0.5, 0.8:
        await click(page, video, share, SEEK_BAR)
        await page.wait_for_timeout(4500)
    await page.wait_for_timeout(3000)


async def click(page: Page, target: Locator, across: float, down: float) -> None:
    """Glide to a place in an element, given in shares of its size, and click there."""
    box = await target.bounding_box()
    if box is None:
        raise SystemExit("recording: what is to be clicked is not on the page")
    place = box["x"] + across * box["width"], box["y"] + down * box["height"]
    await page.mouse.move(*place, steps=GLIDE_STEPS)
    await page.wait_for_timeout(400)
    await page.mouse.down()
    await page.mouse.up()


def write(frames: list[bytes]) -> None:
    pictures = []
    for frame in frames:
        picture = Image.open(io.BytesIO(frame)).convert("RGB")
        height = round(picture.height * WIDTH / picture.width)
        pictures.append(picture.resize((WIDTH, height), Image.Resampling.LANCZOS))
    path = IMAGES / "recording.webp"
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=FRAME_MS,
        loop=0,
        quality=QUALITY,
        method=6,
        kmax=100,
    )
    size = path.stat().st_size
    print(f"{path.name}  {len(pictures) * FRAME_MS / 1000:.1f} s  {size / 1e6:.1f} MB")
    if size > BYTES_MAX:
        raise SystemExit(f"recording: larger than {BYTES_MAX} bytes")


if __name__ == "__main__":
    asyncio.run(main())
