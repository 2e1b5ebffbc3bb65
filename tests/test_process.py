"""The worker as a process: how it starts, what it logs, how it ends, how much memory it takes."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from conftest import REPOSITORY, WORKER_SCRIPT, Stage, StartProcess

from telegram_simulator.content import SyntheticContent

MIB = 1 << 20
GIB_2 = 2 << 30


def test_three_wrong_settings_are_reported_by_one_start() -> None:
    environ = {
        "API_ID": "twelve",
        "API_HASH": "0123456789abcdef0123456789abcdef",
        "BOT_TOKEN": "nonsense-value",
        "JWT_SECRET": "too short",
    }
    done = subprocess.run(
        [sys.executable, WORKER_SCRIPT], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    for name in ("API_ID", "BOT_TOKEN", "JWT_SECRET"):
        assert f"setting {name}:" in done.stderr
    for value in ("twelve", "nonsense-value", "too short"):
        assert value not in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_busy_port_is_a_clear_message(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    first = await start_worker_process()
    port = first.url.rpartition(":")[2]
    environ = {**stage.environment(), "PORT": port}
    second = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER_SCRIPT), env=environ, stderr=asyncio.subprocess.PIPE
    )
    _, text = await second.communicate()
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in text.decode()
    assert "Traceback" not in text.decode()


@pytest.mark.timeout(180)
async def test_it_runs_alone_in_an_empty_folder(
    stage: Stage, start_worker_process: StartProcess, tmp_path: Path
) -> None:
    """One file, and an environment in which only requirements.txt was installed."""
    folder = tmp_path / "alone"
    folder.mkdir()
    script = shutil.copy(WORKER_SCRIPT, folder)
    install = (
        f"{sys.executable} -m venv {folder}/venv && {folder}/venv/bin/pip install --quiet "
        f"--disable-pip-version-check -r {REPOSITORY}/requirements.txt"
    )
    installation = await asyncio.create_subprocess_shell(install)
    assert await installation.wait() == 0
    worker = await start_worker_process(python=f"{folder}/venv/bin/python", script=Path(script))
    post = stage.post_synthetic(MIB)
    async with (
        aiohttp.ClientSession() as session,
        session.get(worker.url + stage.path(post)) as got,
    ):
        assert await got.read() == SyntheticContent(MIB, 7).read(0, MIB)
    assert await worker.stop() == 0


async def test_logs_tell_range_and_bytes_and_never_a_secret(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    worker = await start_worker_process()
    post = stage.post_synthetic(MIB)
    token = stage.token(post)
    path = f"{worker.url}/stream/{stage.channel.chat_id}/{post.id}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{path}?token={token}", headers={"Range": "bytes=5-104"}) as got:
            assert len(await got.read()) == 100
        async with session.get(f"{path}?token={token}broken") as got:
            assert token not in await got.text()
        async with session.get(f"{path}?token={token}{'x' * 9000}") as got:
            assert got.status == 400
            assert token not in await got.text()
    await worker.stop()
    lines = [line for line in worker.log.splitlines() if "range=bytes=5-104" in line]
    assert len(lines) == 1
    assert " 206 " in lines[0]
    assert "bytes=100 " in lines[0]
    assert "ms=" in lines[0]
    for secret in (token, token.split(".")[2], stage.bot.token, stage.environment()["JWT_SECRET"]):
        assert secret not in worker.log


async def test_health_answers_while_telegram_is_down(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    stage.telegram.trouble.down.update((1, 2, 4))
    worker = await start_worker_process()
    async with aiohttp.ClientSession() as session, session.get(worker.url + "/health") as got:
        assert got.status == 200
        body = await got.json()
    assert body["status"] == "ok"
    assert body["version"]
    assert body["uptime_s"] >= 0
    assert body["telegram"][0]["bot"] == stage.bot.id
    assert body["telegram"][0]["state"] in ("logging in", "not connected")


async def test_a_login_flood_is_waited_out_and_shown(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    stage.telegram.trouble.flood_wait(600, method="auth.importBotAuthorization")
    worker = await start_worker_process()
    post = stage.post_synthetic(1000)
    async with aiohttp.ClientSession() as session:
        state = {"state": ""}
        while state["state"] != "flood wait":
            async with session.get(worker.url + "/health") as got:
                assert got.status == 200
                state = (await got.json())["telegram"][0]
        assert 590 <= int(state["wait_s"]) <= 600
        async with session.get(worker.url + stage.path(post)) as got:
            assert got.status == 429
            assert 590 <= int(got.headers["Retry-After"]) <= 600
    assert stage.telegram.counters.methods["auth.importBotAuthorization"] == 1


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_running_response_ends_before_the_process_does(
    stage: Stage, start_worker_process: StartProcess, signal_number: int
) -> None:
    worker = await start_worker_process()
    post = stage.post_synthetic(4 * MIB)
    stage.telegram.trouble.bytes_per_second = 4 * MIB
    async with (
        aiohttp.ClientSession() as session,
        session.get(worker.url + stage.path(post)) as got,
    ):
        start = await got.content.readexactly(1000)
        stopped = asyncio.create_task(worker.stop(signal_number))
        body = start + await got.read()
    assert body == SyntheticContent(4 * MIB, 7).read(0, 4 * MIB)
    assert await stopped == 0


PLAYED_BYTES = 512 * MIB  # `make bench` plays it whole


@pytest.mark.timeout(240)
async def test_a_2_gib_film_played_and_sought_in_stays_under_100_mib(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    worker = await start_worker_process(lean=True)
    post = stage.post_synthetic(GIB_2)
    content, peak = SyntheticContent(GIB_2, 7), 0.0
    async with aiohttp.ClientSession() as session:
        async with session.get(worker.url + stage.path(post)) as got:
            received = 0
            async for piece in got.content.iter_any():
                # One byte in 64 pieces is compared here; the exactness of all has its own tests.
                if received // MIB % 64 == 0:
                    assert piece == content.read(received, len(piece))
                if (received + len(piece)) // (128 * MIB) > received // (128 * MIB):
                    peak = max(peak, worker.rss_mib())
                received += len(piece)
                if received >= PLAYED_BYTES:
                    break
            got.close()
        chooser = random.Random(1)
        for _ in range(100):
            start = chooser.randrange(GIB_2)
            headers = {"Range": f"bytes={start}-"}
            async with session.get(worker.url + stage.path(post), headers=headers) as got:
                wanted = min(300_000, GIB_2 - start)
                body = await got.content.readexactly(wanted)
                assert body == content.read(start, wanted)
                got.close()
            peak = max(peak, worker.rss_mib())
    assert peak <= 100
