"""Several backends with the same secret and password, behind any load balancer.

Goal: whoever signed in at one is known to the other; a link that one made opens at the other; with
one DATABASE what was ended at one is ended at the other, and without it is not, as the documents
say. Method: two real backends behind nginx, which sends requests to them in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, StartClient
from nginx import fronts

import backend
from gallery import sessions
from gallery.settings import Settings

PASSWORD = "correct horse battery"
TURNS = 10


@dataclass
class Pair:
    """Two backends: each by itself, and both by turns at one address."""

    each: list[TestClient[Any, Any]]
    front: str

    def session(self) -> ClientSession:
        """A browser with cookies of its own."""
        return ClientSession(cookie_jar=CookieJar(unsafe=True))

    async def statuses(self, session: ClientSession, path: str) -> set[int]:
        """What the front says to ten requests in a row, which go to both backends."""
        found = set()
        for _ in range(TURNS):
            async with session.get(self.front + path, allow_redirects=False) as response:
                found.add(response.status)
        return found


async def sign_in(session: ClientSession, address: str) -> None:
    form = {"password": PASSWORD}
    async with session.post(f"{address}/sign-in", data=form, allow_redirects=False) as response:
        assert response.status == 303


OpenPair = Callable[..., Any]


@pytest.fixture
def open_pair(
    stage: Stage,
    start_worker: Callable[..., Awaitable[TestClient[Any, Any]]],
    aiohttp_client: StartClient,
    tmp_path: Path,
) -> OpenPair:
    @asynccontextmanager
    async def start(*databases: str) -> AsyncIterator[Pair]:
        worker = await start_worker()
        on_stage = {
            **stage.environment(),
            "JWT_SECRET": JWT_SECRET,
            "WORKER_URL": str(worker.make_url("/")),
            "GALLERY_PASSWORD": PASSWORD,
            "HOST": "127.0.0.1",
        }
        each = []
        for database in databases:
            settings = Settings.from_env({**on_stage, "DATABASE": database})
            app = await asyncio.to_thread(backend.create_app, settings)
            each.append(await aiohttp_client(app))
        urls = [str(one.make_url("/")).rstrip("/") for one in each]
        async with fronts([urls], tmp_path / "nginx") as (front,):
            yield Pair(each, front)

    return start


async def test_whoever_signed_in_at_one_is_known_to_the_other(
    open_pair: OpenPair, stage: Stage
) -> None:
    post = stage.post_synthetic(1000)
    async with open_pair(":memory:", ":memory:") as pair, pair.session() as owner:
        first, second = pair.each
        await sign_in(owner, str(first.make_url("")))
        film = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
        async with owner.get(second.make_url(film)) as response:
            url = (await response.json())["url"]
        async with owner.get(url) as response:
            assert len(await response.read()) == 1000
        for path in ("/", "/api/files", film, "/api/shares"):
            assert await pair.statuses(owner, path) == {200}
        async with pair.session() as stranger:
            assert await pair.statuses(stranger, film) == {401}


async def test_a_link_that_one_made_opens_at_the_other(open_pair: OpenPair, stage: Stage) -> None:
    post = stage.post_synthetic(1000)
    order = {"chat_id": stage.channel.chat_id, "message_id": post.id}
    async with open_pair(":memory:", ":memory:") as pair, pair.session() as owner:
        first, second = pair.each
        await sign_in(owner, pair.front)
        async with owner.post(first.make_url("/api/shares"), json=order) as response:
            share = (await response.json())["share"]
        async with pair.session() as visitor:
            assert await pair.statuses(visitor, f"/v/{share}") == {307}
            async with visitor.get(second.make_url(f"/v/{share}")) as response:
                assert len(await response.read()) == 1000


async def test_with_one_database_what_was_ended_at_one_is_ended_at_the_other(
    open_pair: OpenPair, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "KEEP_UP_S", 0.0)
    post = stage.post_synthetic(1000)
    order = {"chat_id": stage.channel.chat_id, "message_id": post.id}
    database = str(tmp_path / "gallery.sqlite")
    async with open_pair(database, database) as pair, pair.session() as owner:
        first, second = pair.each
        await sign_in(owner, pair.front)
        async with owner.post(first.make_url("/api/shares"), json=order) as response:
            made = await response.json()
        async with owner.get(second.make_url("/api/shares")) as response:
            assert [each["id"] for each in (await response.json())["shares"]] == [made["id"]]
        async with owner.delete(second.make_url(f"/api/shares/{made['id']}")) as response:
            assert response.status == 204
        assert await pair.statuses(owner, f"/v/{made['share']}") == {410}
        for ending, other in ((first, second), (second, first)):
            async with pair.session() as browser:
                await sign_in(browser, pair.front)
                kept = browser.cookie_jar.filter_cookies(ending.make_url("/"))
                cookie = {"Cookie": "; ".join(f"{m.key}={m.value}" for m in kept.values())}
                assert await pair.statuses(browser, "/api/files") == {200}
                async with browser.post(ending.make_url("/sign-out"), allow_redirects=False):
                    pass
                async with other.session.get(
                    other.make_url("/api/files"), headers=cookie
                ) as response:
                    assert response.status == 401
        assert await pair.statuses(owner, "/api/files") == {200}  # another session, not ended


async def test_without_a_common_database_each_forgets_what_the_other_ended(
    open_pair: OpenPair, stage: Stage
) -> None:
    post = stage.post_synthetic(1000)
    order = {"chat_id": stage.channel.chat_id, "message_id": post.id}
    async with open_pair(":memory:", ":memory:") as pair, pair.session() as owner:
        first, second = pair.each
        await sign_in(owner, pair.front)
        async with owner.post(first.make_url("/api/shares"), json=order) as response:
            made = await response.json()
        async with owner.delete(first.make_url(f"/api/shares/{made['id']}")):
            pass
        statuses = []
        for each in (first, second):
            async with owner.get(
                each.make_url(f"/v/{made['share']}"), allow_redirects=False
            ) as response:
                statuses.append(response.status)
        assert statuses == [410, 307]
