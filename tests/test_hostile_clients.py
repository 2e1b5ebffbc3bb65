"""Strangers at the worker's door: idle, slow, half gone, or shouting; viewers must not notice.

Method: a worker process, raw sockets by the hundreds, and a viewer who plays a film meanwhile.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import aiohttp
import worker
from conftest import Stage, StartProcess, WorkerProcess

from telegram_simulator.content import SyntheticContent

MIB = 1 << 20
STRANGERS = worker.CONNECTIONS_MAX + 200


async def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    stranger = socket.socket()
    stranger.setblocking(False)
    await asyncio.get_running_loop().sock_connect(stranger, (host, int(port)))
    return stranger


@asynccontextmanager
async def strangers(
    url: str, count: int, greeting: bytes = b""
) -> AsyncIterator[list[socket.socket]]:
    """So many connections, each of which has said this and no more."""
    files, ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(ceiling, max(files, 4096)), ceiling))
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sockets.append(stack.enter_context(await connect(url)))
            if greeting:
                await loop.sock_sendall(sockets[-1], greeting)
        yield sockets


async def watch(process: WorkerProcess, stage: Stage) -> None:
    post = stage.post_synthetic(MIB)
    async with (
        aiohttp.ClientSession() as session,
        session.get(process.url + stage.path(post)) as got,
    ):
        assert got.status == 200
        assert await got.read() == SyntheticContent(MIB, 7).read(0, MIB)


async def gone(stranger: socket.socket) -> bool:
    """Whether the worker has closed this connection."""
    try:
        return await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
    except ConnectionError:
        return True


async def test_idle_connections_give_way_to_viewers(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    """More than there is room for: the longest idle go, and whoever asks is served."""
    process = await start_worker_process()
    await watch(process, stage)
    before = process.rss_mib()
    async with strangers(process.url, STRANGERS) as sockets:
        await watch(process, stage)
        assert await gone(sockets[0])
        assert process.rss_mib() - before < 40
    await watch(process, stage)
    assert "Traceback" not in process.log


async def test_headers_that_never_end_give_way_too(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    process = await start_worker_process()
    head = b"GET /health HTTP/1.1\r\nHost: worker\r\nX-Slow: "
    async with strangers(process.url, STRANGERS, head) as sockets:
        await watch(process, stage)
        assert await gone(sockets[0])


async def test_who_is_being_served_never_gives_way(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    process = await start_worker_process()
    post = stage.post_synthetic(4 * MIB)
    stage.telegram.trouble.bytes_per_second = 2 * MIB
    async with (
        aiohttp.ClientSession() as session,
        session.get(process.url + stage.path(post)) as got,
    ):
        body = await got.content.readexactly(1000)
        async with strangers(process.url, STRANGERS):
            body += await got.content.read(-1)
    assert body == SyntheticContent(4 * MIB, 7).read(0, 4 * MIB)


async def test_a_megabyte_of_headers_is_refused_and_forgotten(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    process = await start_worker_process()
    await watch(process, stage)
    before = process.rss_mib()
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 8000) for number in range(130))
    loop = asyncio.get_running_loop()
    for start in (b"GET /health HTTP/1.1\r\nHost: worker\r\n" + fields, b"GET /" + b"x" * MIB):
        for _ in range(20):
            with await connect(process.url) as stranger:
                try:
                    await loop.sock_sendall(stranger, start)
                    answer = await loop.sock_recv(stranger, 64)
                except ConnectionError:
                    continue  # refused before all of it was sent
                assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.0 400"))
    await watch(process, stage)
    assert process.rss_mib() - before < 8
    assert "Traceback" not in process.log
    assert "xxxxxxxx" not in process.log


async def test_headers_that_are_nearly_too_long_cost_little(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    """As many strangers as there may be, each with as much of a request as one may hold back."""
    process = await start_worker_process()
    await watch(process, stage)
    before = process.rss_mib()
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 7000) for number in range(4))
    head = b"GET /health HTTP/1.1\r\nHost: worker\r\n" + fields
    async with strangers(process.url, worker.CONNECTIONS_MAX, head):
        await watch(process, stage)
        assert process.rss_mib() - before < 100


async def test_half_closed_connections_are_closed(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    """Who says that it will send no more is not waited for, in the middle of a film or before."""
    process = await start_worker_process()
    post, loop = stage.post_synthetic(64 * MIB), asyncio.get_running_loop()
    request = f"GET {stage.path(post)} HTTP/1.1\r\nHost: worker\r\n\r\n".encode()
    for said in (b"", b"GET /hea", request):
        with await connect(process.url) as stranger:
            await loop.sock_sendall(stranger, said)
            if said == request:
                assert await loop.sock_recv(stranger, 4)
            stranger.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(10):
                while not await gone(stranger):
                    pass
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        viewers = 1
        while viewers:
            async with session.get(process.url + "/health") as got:
                viewers = (await got.json())["viewers"]
