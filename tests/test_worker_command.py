"""The worker's own commands: --help, --version, --check and --session, as an operator runs them."""

from __future__ import annotations

import asyncio
import sys

import worker
from conftest import WORKER_SCRIPT, Stage, StartProcess
from test_telegram_sessions import LOGIN, watch

from telegram_simulator.faults import Fault


async def run(stage: Stage, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WORKER_SCRIPT),
        *arguments,
        env={**stage.environment(), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode is not None
    for secret in (stage.bot.token, stage.environment()["JWT_SECRET"]):
        assert secret not in out.decode() + errors.decode()
    return process.returncode, out.decode(), errors.decode()


async def test_help_names_every_setting_and_needs_none(stage: Stage) -> None:
    code, text, _ = await run(stage, "--help", API_ID="", JWT_SECRET="")
    assert code == 0
    for name, _, meaning in worker.SETTINGS_HELP:
        assert name in text
        assert meaning in text


async def test_version(stage: Stage) -> None:
    assert await run(stage, "--version") == (0, f"{worker.__version__}\n", "")


async def test_check_says_what_can_be_reached(stage: Stage) -> None:
    post = stage.post_synthetic(1000)
    code, text, _ = await run(stage, "--check", str(stage.channel.chat_id))
    assert code == 0
    bot, channel = f"bot {stage.bot.id}", stage.channel.chat_id
    lines = text.splitlines()
    assert lines[:2] == [
        f"ok    {bot} is logged in at DC 2",
        f"ok    {bot}, channel {channel}: seen, newest message {post.id}",
    ]
    reached = [line.partition(": reached in ")[0] for line in lines[2:]]
    assert reached == [f"ok    {bot}, DC {dc_id}" for dc_id in (1, 2, 4)]


async def test_check_says_what_to_do_about_a_channel_that_is_not_seen(stage: Stage) -> None:
    stranger = stage.telegram.world.add_channel("Not ours")
    code, text, _ = await run(stage, "--check", str(stage.channel.chat_id), str(stranger.chat_id))
    assert code == 1
    (line,) = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert str(stranger.chat_id) in line
    assert "make the bot an administrator there" in line


async def test_check_says_what_to_do_about_a_wrong_token(stage: Stage) -> None:
    code, text, _ = await run(stage, "--check", BOT_TOKEN="777:revoked")
    assert code == 1
    assert text.startswith("FAIL  bot 777: Telegram refuses the login: AccessTokenInvalid")
    assert "@BotFather" in text
    assert "revoked" not in text


async def test_check_says_what_to_do_about_a_login_flood(stage: Stage) -> None:
    stage.telegram.trouble.flood_wait(2000, method=LOGIN)
    code, text, _ = await run(stage, "--check")
    assert code == 1
    assert "Telegram asks to wait 2000 s." in text
    assert "SESSION_FILE" in text


async def test_check_names_a_data_centre_that_is_down(stage: Stage) -> None:
    stage.telegram.trouble.down.add(4)
    code, text, _ = await run(stage, "--check")
    assert code == 1
    (line,) = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert f"bot {stage.bot.id}, DC 4: " in line


async def test_check_names_a_wrong_clock(stage: Stage) -> None:
    stage.telegram.trouble.clock_ahead_s = 3600
    code, text, _ = await run(stage, "--check")
    assert code == 1
    assert "clock is +3600 s off" in text.replace("3599", "3600")


async def test_check_with_wrong_settings_names_them(stage: Stage) -> None:
    code, text, errors = await run(stage, "--check", API_ID="x")
    assert (code, text) == (2, "")
    assert "API_ID" in errors


async def test_a_session_is_printed_and_logs_in(
    stage: Stage, start_worker_process: StartProcess
) -> None:
    code, session, errors = await run(stage, "--session")
    assert (code, errors) == (0, "")
    process = await start_worker_process(SESSION_STRING=session.strip())
    await watch(process.url, stage, dc_id=2)
    assert stage.telegram.counters.methods[LOGIN] == 1
    assert session.strip() not in process.log


async def test_no_session_says_why(stage: Stage) -> None:
    fault = Fault("error", method=LOGIN, code=400, message="API_ID_INVALID")
    stage.telegram.trouble.plan(fault)
    code, session, errors = await run(stage, "--session")
    assert (code, session) == (1, "")
    assert "ApiIdInvalid" in errors
