"""What the backend's doors cost: milliseconds of its CPU for each request, by kind.

    python benchmarks/gallery_doors.py

Goal: how many viewers one backend can send on their way. Method: backend.py as a process of its own
with an index that is filled already and a worker that is away, so that nothing but the backend is
measured; eight connections ask as fast as they can; counted is the CPU time of the process, which a
busy machine does not change much, not the time on the wall. Three rounds, the median and the worst.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from aiohttp import ClientError, ClientSession, TCPConnector

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.gallery_index import made_up_file
from gallery.database import Database
from gallery.index import SCHEMA, Index
from gallery.shares import new_share, write_share

REPOSITORY = Path(__file__).parent.parent
CHANNEL = -1001000000001
SECRET = "a secret of the benchmarks, long enough"
POSTS = 1000
REQUESTS, CONNECTIONS, ROUNDS = 1500, 8, 3


async def fill(path: str) -> None:
    """An index whose one channel was read to its end."""
    dice = random.Random(1)
    files = [made_up_file(2 * number, dice) for number in range(POSTS)]
    index = Index(Database(path, SCHEMA), (CHANNEL,))
    await index.open()
    await index.record(CHANNEL, 0, POSTS, files, time.time())
    await index.advance(CHANNEL, POSTS, is_complete=True)
    await index.close()


async def start_backend(database: str, port: int) -> asyncio.subprocess.Process:
    settings = {
        "BOT_TOKEN": "1:benchmark",
        "JWT_SECRET": SECRET,
        "WORKER_URL": "http://127.0.0.1:9",
        "BOT_API_URL": "http://127.0.0.1:9",
        "CHANNELS": str(CHANNEL),
        "DATABASE": database,
        "PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "backend.py"),
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], **settings},
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with ClientSession() as session:
        while process.returncode is None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/health"):
                    return process
            except ClientError:
                await asyncio.sleep(0.05)
    raise SystemExit("the backend did not start")


async def cost_ms(process: psutil.Process, url: str, status: int) -> float:
    """Milliseconds of the process's CPU for one request of this kind."""
    async with ClientSession(connector=TCPConnector(limit=CONNECTIONS)) as session:

        async def ask() -> None:
            async with session.get(url, allow_redirects=False) as response:
                await response.read()
                if response.status != status:
                    raise SystemExit(f"{response.status} from {url}")

        await ask()
        before = sum(process.cpu_times()[:2])
        for _ in range(REQUESTS // CONNECTIONS):
            await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
        return (sum(process.cpu_times()[:2]) - before) * 1000 / REQUESTS


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder, "index.sqlite"))
        await fill(database)
        running = await start_backend(database, port)
        process = psutil.Process(running.pid)
        share = write_share(SECRET, new_share(CHANNEL, 7, None, 0))
        base = f"http://127.0.0.1:{port}"
        doors = {
            "a share link, sent on (/v/)": (f"{base}/v/{share}", 307),
            "a player page (/embed/)": (f"{base}/embed/{share}", 200),
            "a fresh URL for a page of ours": (f"{base}/api/files/{CHANNEL}/7/url", 200),
            "a page of the list": (f"{base}/api/files", 200),
        }
        print(f"{'':34} {'median':>7} {'worst':>7} {'a second':>9}   ms of CPU, {ROUNDS} rounds")
        for name, (url, status) in doors.items():
            costs = [await cost_ms(process, url, status) for _ in range(ROUNDS)]
            median = statistics.median(costs)
            print(f"{name:34} {median:7.2f} {max(costs):7.2f} {1000 / median:9.0f}")
        running.terminate()
        await running.wait()


if __name__ == "__main__":
    asyncio.run(main())
