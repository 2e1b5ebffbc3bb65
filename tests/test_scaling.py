"""The cache in front of a worker, as docs/scaling.md has it: the text of the document is what runs.

Goal: a second viewer costs the worker no byte, every byte is right, and a token opens its film and
nothing else, whatever is in the cache. Method: nginx with that text and other addresses, a real
worker, and what the worker says it has sent.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession
from conftest import JWT_SECRET, REPOSITORY, Stage, StartProcess, WorkerProcess, make_token
from nginx import NGINX, free_port, running
from yarl import URL

from gallery.tokens import renewal_grant
from telegram_simulator.content import SyntheticContent
from telegram_simulator.world import Post

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="the cache of docs/scaling.md is nginx's, which is not installed here"
)
MIB = 1 << 20
SIZE = 5 * MIB + 12345


@dataclass
class Front:
    """The cache, the worker behind it, and a viewer of both."""

    url: str
    worker: WorkerProcess
    session: ClientSession
    stage: Stage

    def address(self, post: Post, token: str, name: str = "/Ein%20Film.mp4") -> URL:
        path = f"/stream/{self.stage.channel.chat_id}/{post.id}{name}?token={token}"
        return URL(self.url + path, encoded=True)

    async def sent_bytes(self) -> int:
        """Bytes of bodies that the worker has sent so far."""
        async with self.session.get(f"{self.worker.url}/metrics") as response:
            text = await response.text()
        found = re.search(r"^rangegram_sent_bytes_total (\d+)", text, re.MULTILINE)
        assert found
        return int(found[1])


@pytest.fixture
async def front(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> AsyncIterator[Front]:
    worker = await start_worker_process()
    document = (REPOSITORY / "docs" / "scaling.md").read_text()
    (block,) = re.findall(r"```nginx\n(.*?)```", document, re.DOTALL)
    port = free_port()
    block = block.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    block = block.replace("/var/cache/films", str(tmp_path / "films"))
    block = block.replace("http://127.0.0.1:10000", worker.url)
    async with running(block, [port], tmp_path / "nginx"), ClientSession() as session:
        yield Front(f"http://127.0.0.1:{port}", worker, session, stage)


def content(start: int, stop: int) -> bytes:
    return SyntheticContent(SIZE, 7).read(start, stop - start)


async def test_a_second_viewer_is_served_without_the_worker(front: Front, stage: Stage) -> None:
    post = stage.post_synthetic(SIZE)
    ranges = [(1_000_000, 3_500_000), (0, SIZE), (SIZE - 5000, SIZE), (MIB - 1, MIB + 1)]
    for start, stop in [*ranges, *ranges]:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        url = front.address(post, stage.token(post, exp=int(time.time()) + 3000 + start % 500))
        async with front.session.get(url, headers=headers) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert await response.read() == content(start, stop)
    async with front.session.get(front.address(post, stage.token(post))) as response:
        assert (response.status, len(await response.read())) == (200, SIZE)
    assert await front.sent_bytes() == SIZE  # each byte once, for nine viewers
    async with front.session.get(
        URL(f"{front.address(post, stage.token(post))}&download=1", encoded=True)
    ) as response:
        assert response.headers["Content-Disposition"].startswith("attachment")


async def test_a_token_opens_its_own_film_whatever_is_in_the_cache(
    front: Front, stage: Stage
) -> None:
    mine, other = stage.post_synthetic(SIZE), stage.post_synthetic(SIZE - 1)
    for post in (mine, other):
        async with front.session.get(front.address(post, stage.token(post))) as response:
            assert response.status == 200
            await response.read()
    up = "%2F..%2F..%2F..%2Fstream"
    chat = stage.channel.chat_id
    tricks = {
        f"/stream/{chat}/{other.id}/Ein%20Film.mp4": (403, "token_for_another_file"),
        f"/stream/{chat}/{mine.id}/x{up}%2F{chat}%2F{other.id}%2FEin%20Film.mp4": None,
        f"/stream/{chat}/{mine.id}/x/../../{other.id}/Ein%20Film.mp4": None,
        f"//stream/{chat}/{other.id}/Ein%20Film.mp4": None,
        f"/stream//{chat}/{other.id}/Ein%20Film.mp4": None,
    }
    for path, expected in tricks.items():
        url = URL(f"{front.url}{path}?token={stage.token(mine)}", encoded=True)
        async with front.session.get(url) as response:
            body = await response.read()
            assert len(body) != SIZE - 1, path  # the other film's length
            if expected is not None:
                assert response.status == expected[0]
                assert expected[1].encode() in body
    async with front.session.get(front.address(mine, "none")) as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "token_invalid"
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_token_that_has_ended_is_renewed_by_the_worker(front: Front, stage: Stage) -> None:
    post = stage.post_synthetic(SIZE)
    chat, now = stage.channel.chat_id, int(time.time())
    ended = make_token(f"{chat}/{post.id}", iat=now - 3600, exp=now - 1)
    grant = renewal_grant(JWT_SECRET, chat, post.id, now + 600)
    url = URL(f"{front.address(post, ended)}&renew={grant}", encoded=True)
    async with front.session.get(url, allow_redirects=False) as response:
        assert response.status == 307
    async with front.session.get(url, headers={"Range": "bytes=0-9"}) as response:
        assert (response.status, await response.read()) == (206, content(0, 10))
    answers = await asyncio.gather(*(read(front, url) for _ in range(5)))
    assert set(answers) == {content(0, SIZE)}


async def read(front: Front, url: URL) -> bytes:
    async with front.session.get(url) as response:
        return await response.read()


async def test_a_preflight_and_what_is_no_film_reach_the_worker(front: Front, stage: Stage) -> None:
    post = stage.post_synthetic(SIZE)
    async with front.session.options(front.address(post, stage.token(post))) as response:
        assert response.status == 204
        assert "Range" in response.headers["Access-Control-Allow-Headers"]
    async with front.session.get(f"{front.url}/health") as response:
        assert (await response.json())["status"] == "ok"
    async with front.session.get(f"{front.url}/stream/x/y") as response:
        assert response.status == 404
