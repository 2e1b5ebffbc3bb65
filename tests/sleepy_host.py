"""A host like a free plan: it puts a service away, starts it when it is asked, and notes by whom.

What such hosts do while the service starts differs: some hold the request until it is up, some
answer 502 with a page of their own, without the headers that a page of another origin may read.
How long the start takes is the test's to say, by an event and not by a clock.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from conftest import StartProcess, WorkerProcess

NOT_PASSED_ON = {"host", "connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Asked:
    """One request that came to the host."""

    path: str
    by: str  # "page" for a browser, "backend" for our server


class SleepyHost:
    """Stands in front of a worker process that need not run."""

    def __init__(self, start_worker: StartProcess, *, holds: bool = True) -> None:
        self.holds = holds
        self.asked: list[Asked] = []
        self.may_start = asyncio.Event()
        self.url = ""
        self._start_worker = start_worker
        self._worker: WorkerProcess | None = None
        self._is_up = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SleepyHost]:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        timeout = ClientTimeout(total=None, sock_connect=5)
        async with ClientSession(auto_decompress=False, timeout=timeout) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                if self._starting is not None:
                    self._starting.cancel()
                    await asyncio.gather(self._starting, return_exceptions=True)
                await runner.cleanup()

    def times(self, path: str, by: str) -> int:
        """How often somebody asked for a path, so far."""
        return self.asked.count(Asked(path, by))

    async def put_to_sleep(self) -> None:
        """Nobody asked for a quarter of an hour."""
        self.may_start.clear()
        self._is_up.clear()
        self._starting = None
        if self._worker is not None:
            await self._worker.stop(signal.SIGKILL)
        self.asked.clear()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        by = "page" if "Mozilla" in request.headers.get("User-Agent", "") else "backend"
        self.asked.append(Asked(request.path, by))
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        if not self._is_up.is_set() and not self.holds:
            return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")
        await self._is_up.wait()
        return await self._pass_on(request)

    async def _start(self) -> None:
        await self.may_start.wait()
        self._worker = await self._start_worker()
        self._is_up.set()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        assert self._worker is not None
        sent = {k: v for k, v in request.headers.items() if k.lower() not in NOT_PASSED_ON}
        url = f"{self._worker.url}{request.raw_path}"
        try:
            async with self._session.request(
                request.method, url, headers=sent, allow_redirects=False
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in NOT_PASSED_ON}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for piece in answer.content.iter_chunked(64 * 1024):
                    await response.write(piece)
                return response
        except ClientError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)
