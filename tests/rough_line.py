"""A poor line between browser and worker: only so fast, and cut again and again.

Without it a browser takes a short film in one answer, and no later request would ever meet an
expired token. It hands bytes through and knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PIECE_BYTES = 16 * 1024
UNREAD_BYTES = 64 * 1024
"""What the kernel may hold of what the worker has sent: by default megabytes, which would go on
arriving for seconds after the worker is gone."""


class RoughLine:
    """Listens on a port of its own and connects each caller to the worker."""

    def __init__(
        self, target_port: int, bytes_per_second: int, cut_after_s: float | None = None
    ) -> None:
        self.target_port = target_port
        self._bytes_per_second = bytes_per_second
        self._cut_after_s = cut_after_s
        self._port = 0
        self._connections: set[asyncio.Task[None]] = set()
        self.cuts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[RoughLine]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        yield self
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            worker_reader, worker_writer = await self._reach_worker()
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.timeout(self._cut_after_s):
                directions = (
                    asyncio.create_task(self._copy(reader, worker_writer)),
                    asyncio.create_task(self._copy(worker_reader, writer, self._bytes_per_second)),
                )
                try:
                    await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for each in directions:
                        each.cancel()
                    await asyncio.gather(*directions, return_exceptions=True)
        except TimeoutError:
            self.cuts += 1
        finally:
            # A reset, not an end: what was on its way must not look complete.
            writer.transport.abort()
            worker_writer.transport.abort()

    async def _reach_worker(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
        connection.setblocking(False)
        try:
            address = ("127.0.0.1", self.target_port)
            await asyncio.get_running_loop().sock_connect(connection, address)
            return await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int | None = None
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                writer.write(piece)
                await writer.drain()
                if rate:
                    await asyncio.sleep(len(piece) / rate)
