"""Firefox, driven over its own WebDriver BiDi socket: Debian has no geckodriver.

async with open_firefox(profile_folder) as tab:
    await tab.goto("http://127.0.0.1:8080/")
    title = await tab.evaluate("document.title")
    frames = [await frame.evaluate("location.href") for frame in await tab.frames()]
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

START_TIMEOUT_S = 60.0

PREFERENCES: Mapping[str, object] = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "datareporting.healthreport.uploadEnabled": False,
    "toolkit.telemetry.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "media.autoplay.default": 0,  # tests have no finger to press play with
    "media.gmp-manager.url": "",
    "media.gmp-provider.enabled": False,
}


class Firefox:
    """One tab. Expressions are evaluated in its page; promises are awaited."""

    def __init__(
        self, socket: ClientWebSocketResponse, context: str, numbers: Iterator[int]
    ) -> None:
        self._socket = socket
        self._context = context
        self._numbers = numbers

    async def goto(self, url: str) -> None:
        await self._command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def frames(self) -> list[Firefox]:
        """The frames in the page, in their order, whatever their origin."""
        tree = await self._command("browsingContext.getTree", root=self._context)
        (page,) = tree["contexts"]
        return [self._child(each["context"]) for each in page["children"]]

    async def new_tab(self) -> Firefox:
        """Another tab, in front of this one, which is hidden from then on."""
        made = await self._command("browsingContext.create", type="tab")
        tab = self._child(made["context"])
        await tab.show()
        return tab

    async def show(self) -> None:
        """Bring this tab to the front."""
        await self._command("browsingContext.activate", context=self._context)

    def _child(self, context: str) -> Firefox:
        return Firefox(self._socket, context, self._numbers)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression that JSON can say."""
        answer = await self._command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if answer["type"] == "exception":
            raise AssertionError(answer["exceptionDetails"]["text"])
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    async def _command(self, method: str, **parameters: Any) -> Any:
        return await _command(self._socket, next(self._numbers), method, parameters)


async def _command(
    socket: ClientWebSocketResponse, number: int, method: str, parameters: Mapping[str, Any]
) -> Any:
    await socket.send_json({"id": number, "method": method, "params": parameters})
    async for message in socket:
        assert message.type is WSMsgType.TEXT, message
        answer = json.loads(message.data)
        if answer.get("id") == number:
            assert answer["type"] == "success", answer
            return answer["result"]
    raise AssertionError("Firefox is gone")


def write_profile(folder: Path, preferences: Mapping[str, object]) -> None:
    lines = [
        f"user_pref({json.dumps(name)}, {json.dumps(value)});"
        for name, value in {**PREFERENCES, **preferences}.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "user.js").write_text("\n".join(lines) + "\n")


@asynccontextmanager
async def open_firefox(profile: Path, **preferences: object) -> AsyncIterator[Firefox]:
    """A fresh Firefox with this profile, ended at the end of the block."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    assert program, "Firefox is missing (Debian: apt install firefox-esr)"
    await asyncio.to_thread(write_profile, profile, preferences)
    process = await asyncio.create_subprocess_exec(
        program,
        *("--headless", "--no-remote", "--remote-debugging-port", "0"),
        *("--profile", str(profile), "about:blank"),
        # Its home is the profile too: whoever runs this may have none that can be written to.
        env={**os.environ, "HOME": str(profile), "MOZ_CRASHREPORTER_DISABLE": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        address = await asyncio.wait_for(_address_in(process.stderr), START_TIMEOUT_S)
        drain = asyncio.create_task(_drain(process.stderr))
        async with (
            ClientSession() as session,
            session.ws_connect(f"{address}/session", max_msg_size=0) as socket,
        ):
            await _command(socket, 1, "session.new", {"capabilities": {}})
            tree = await _command(socket, 2, "browsingContext.getTree", {})
            yield Firefox(socket, tree["contexts"][0]["context"], count(100))
            await _command(socket, 3, "browser.close", {})
        await process.wait()
        await drain
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _address_in(stream: asyncio.StreamReader) -> str:
    """The address of the socket, which a starting Firefox writes to its standard error."""
    lines = []
    async for line in stream:
        lines.append(line.decode(errors="replace"))
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", lines[-1]):
            return found[1]
    raise AssertionError("Firefox ended at once:\n" + "".join(lines[-20:]))


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass
