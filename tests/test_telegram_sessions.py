"""Logging in as seldom as can be: the session kept beside the worker, the session string, deploys.

Method: real worker processes on the pocket Telegram, which counts logins and kills a key that two
connections use at home at once, as Telegram does.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import worker
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from conftest import JWT_SECRET, Stage, StartClient, StartProcess, WorkerProcess

from telegram_simulator.content import SyntheticContent

MIB = 1 << 20
LOGIN = "auth.importBotAuthorization"
IMPORT = "auth.importAuthorization"


async def watch(url: str, stage: Stage, **document: Any) -> None:
    """Play a film that nobody has seen, to its end."""
    post = stage.post_synthetic(MIB, **document)
    async with aiohttp.ClientSession() as session, session.get(url + stage.path(post)) as got:
        assert got.status == 200, await got.text()
        assert await got.read() == SyntheticContent(MIB, 7).read(0, MIB)


# -- the session file ----------------------------------------------------------------------------


async def test_a_restart_neither_logs_in_nor_exports_again(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> None:
    path = tmp_path / "kept.session"
    for _ in range(2):
        process = await start_worker_process(SESSION_FILE=str(path))
        await watch(process.url, stage, dc_id=4)
        assert await process.stop() == 0
    assert stage.telegram.counters.methods[LOGIN] == 1
    assert stage.telegram.counters.methods[IMPORT] == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_killed_worker_has_kept_its_session(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> None:
    path = tmp_path / "kept.session"
    process = await start_worker_process(SESSION_FILE=str(path))
    await watch(process.url, stage, dc_id=4)
    async with asyncio.timeout(5):
        while b'"4"' not in path.read_bytes():
            await asyncio.sleep(0.02)
    await process.stop(9)
    process = await start_worker_process(SESSION_FILE=str(path))
    await watch(process.url, stage, dc_id=4)
    assert stage.telegram.counters.methods[LOGIN] == 1


async def test_a_key_that_is_good_no_longer_costs_a_login_and_is_replaced_in_the_file(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> None:
    path = tmp_path / "kept.session"
    process = await start_worker_process(SESSION_FILE=str(path))
    await watch(process.url, stage)
    await process.stop()
    for dc_id in (2, 4):
        stage.telegram.forget_keys(dc_id)
    for logins in (2, 2):
        process = await start_worker_process(SESSION_FILE=str(path))
        await watch(process.url, stage)
        await process.stop()
        assert stage.telegram.counters.methods[LOGIN] == logins


async def test_two_workers_do_not_share_a_file(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> None:
    path = tmp_path / "kept.session"
    first = await start_worker_process(SESSION_FILE=str(path))
    second = await start_worker_process(SESSION_FILE=str(path))
    for process in (first, second, first):
        await watch(process.url, stage, dc_id=2)
    assert "another worker has the session file" in second.log
    assert stage.telegram.counters.methods[LOGIN] == 2
    assert stage.telegram.counters.errors["AUTH_KEY_DUPLICATED"] == 0


@pytest.mark.parametrize(
    "text",
    ["nonsense", "{}", '{"telegram": 1}', "[1]", "\x00" * 99, '{"telegram": "x", "sessions": []}'],
)
async def test_a_damaged_file_costs_a_login_and_no_more(
    stage: Stage, start_worker: StartClient, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "kept.session"
    path.write_text(text)
    viewer = await start_worker(session_file=path)
    await watch(str(viewer.make_url("")), stage)
    async with asyncio.timeout(5):
        while "sessions" not in (kept := json.loads(path.read_text() or "{}")):
            await asyncio.sleep(0.02)
    assert kept["sessions"][0]["bot"] == stage.bot.id


async def test_a_damaged_key_in_the_file_costs_a_login_and_no_more(
    stage: Stage, start_worker: StartClient, tmp_path: Path
) -> None:
    path = tmp_path / "kept.session"
    settings = await asyncio.to_thread(stage.settings, session_file=path)
    body = {
        "telegram": worker._SessionFile(settings)._telegram,
        "sessions": [{"bot": stage.bot.id, "home_dc": 2, "keys": {"2": "00"}, "data_centres": []}],
    }
    path.write_text(json.dumps(body))
    viewer = await start_worker(session_file=path)
    await watch(str(viewer.make_url("")), stage)


async def test_a_folder_that_cannot_be_written_is_said_and_survived(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> None:
    process = await start_worker_process(SESSION_FILE=str(tmp_path / "nowhere" / "kept.session"))
    await watch(process.url, stage)
    assert "the session is not kept" in process.log


async def test_no_secret_of_the_session_reaches_the_log(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> None:
    path = tmp_path / "kept.session"
    process = await start_worker_process(SESSION_FILE=str(path))
    await watch(process.url, stage)
    await process.stop()
    for key in json.loads(path.read_text())["sessions"][0]["keys"].values():
        assert key not in process.log


# -- the session string, and the deploy of a new worker --------------------------------------------


async def test_a_session_string_needs_no_login(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    session = stage.telegram.session_string(stage.bot)
    process = await start_worker_process(SESSION_STRING=session)
    assert stage.telegram.counters.connections.total() == 0  # until somebody comes
    await watch(process.url, stage, dc_id=2)
    await watch(process.url, stage, dc_id=4)
    assert stage.telegram.counters.methods[LOGIN] == 0


class Platform:
    """A host that sends visitors to the newest worker that is well, as Render does at a deploy."""

    def __init__(self) -> None:
        self.worker: WorkerProcess | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        async with TestServer(app) as server, aiohttp.ClientSession() as self._session:
            yield str(server.make_url("")).rstrip("/")

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if self.worker is None:
            return web.Response(status=502)
        url, headers = self.worker.url + request.raw_path, dict(request.headers)
        async with self._session.request(request.method, url, headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), headers={"X-Passed": "on"},
                content_type=answer.content_type,
            )  # fmt: skip


async def test_a_deploy_leaves_the_session_to_the_new_worker(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    """Old and new run side by side, both with one session string, while a film runs on the old."""
    session = stage.telegram.session_string(stage.bot)
    platform = Platform()
    async with platform.serving() as url, aiohttp.ClientSession() as viewer:
        environ = {"SESSION_STRING": session, "HANDOVER_URL": url}
        old = platform.worker = await start_worker_process(**environ)
        post = stage.post_synthetic(8 * MIB, dc_id=2)
        stage.telegram.trouble.bytes_per_second = 2_000_000
        async with viewer.get(old.url + stage.path(post)) as running:
            body = await running.content.readexactly(MIB)
            new = await start_worker_process(**environ)
            async with asyncio.timeout(10):
                while "leaves the session" not in new.log:
                    await asyncio.sleep(0.02)
            platform.worker = new
            await watch(new.url, stage, dc_id=2)
            body += await running.content.read(-1)
        assert body == SyntheticContent(8 * MIB, 7).read(0, 8 * MIB)
        await watch(new.url, stage, dc_id=2)
        assert await old.stop() == 0
        await watch(new.url, stage, dc_id=2)
    counters = stage.telegram.counters
    assert counters.errors["AUTH_KEY_DUPLICATED"] == 0
    assert counters.methods[LOGIN] == 1  # of the old one, which still had a film to play


async def test_a_worker_that_answers_itself_keeps_its_session(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    """A worker that wakes is asked by the platform at once, and finds only itself."""
    session = stage.telegram.session_string(stage.bot)
    port = unused_port()
    process = await start_worker_process(
        SESSION_STRING=session, PORT=str(port), HANDOVER_URL=f"http://127.0.0.1:{port}"
    )
    await watch(process.url, stage, dc_id=2)
    assert stage.telegram.counters.methods[LOGIN] == 0


async def test_nobody_at_the_public_url_is_no_trouble(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    session = stage.telegram.session_string(stage.bot)
    process = await start_worker_process(
        SESSION_STRING=session, RENDER_EXTERNAL_URL="http://127.0.0.1:1"
    )
    await watch(process.url, stage, dc_id=2)
    assert stage.telegram.counters.methods[LOGIN] == 0


def handover(secret: str = JWT_SECRET, **changes: Any) -> str:
    now = int(time.time())
    claims = {"iss": "worker", "aud": "handover", "sub": "another", "iat": now, "exp": now + 60}
    return jwt.encode({**claims, **changes}, secret)


@pytest.mark.parametrize(
    ("token", "status"),
    [
        pytest.param(lambda: "", 401, id="none"),
        pytest.param(lambda: "nonsense", 401, id="no JWT"),
        pytest.param(lambda: handover("another secret, long enough for all"), 401, id="signature"),
        pytest.param(lambda: handover(aud="worker"), 401, id="another audience"),
        pytest.param(lambda: handover(iss="backend"), 401, id="of the backend"),
        pytest.param(lambda: handover(exp=int(time.time()) - 1), 401, id="expired"),
        pytest.param(handover, 200, id="good"),
    ],
)
async def test_only_who_knows_the_secret_may_take_the_session(
    stage: Stage, start_worker: StartClient, token: Callable[[], str], status: int
) -> None:
    session = stage.telegram.session_string(stage.bot)
    viewer = await start_worker(session_strings=(session,))
    await watch(str(viewer.make_url("")), stage)
    answer = await viewer.post("/handover", headers={"Authorization": f"Bearer {token()}"})
    assert answer.status == status
    await watch(str(viewer.make_url("")), stage, dc_id=2)
    assert stage.telegram.counters.methods[LOGIN] == (status == 200)


def test_the_default_place_is_beside_the_worker() -> None:
    environ = {
        "API_ID": "1",
        "API_HASH": "a",
        "BOT_TOKEN": "1:a",
        "JWT_SECRET": "x" * 32,
    }
    path = worker.Settings.from_env(environ).session_file
    assert path == Path(worker.__file__).with_name("rangegram-worker.session")
    assert worker.Settings.from_env({**environ, "SESSION_FILE": "none"}).session_file is None
    assert os.path.isabs(str(path))
