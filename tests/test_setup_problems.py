"""What is set up wrong is named, with what to do: every code by a test that makes it so.

Goal: the owner sees each problem in the gallery and once in the log, nobody else sees any, nothing
waits long for an answer, and the document has the same table. Method: the settings are wrong for
real, on the pocket Telegram with real workers; what those never say (another Date, a bot that is a
plain member, a host that is no worker) is said by a few lines of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from chromium import no_errors, open_chromium
from conftest import JWT_SECRET, REPOSITORY, Stage, StartClient
from playwright.async_api import expect
from rough_line import RoughLine
from yarl import URL

import backend
from gallery import problems as problems_module
from gallery import state as state_module
from gallery.problem_kinds import KINDS
from gallery.settings import Settings
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.faults import Fault

PASSWORD = "correct horse battery"
OTHER_SECRET = "another secret than the worker has, but long"
NO_CHANNEL = -1009999999999

Client = TestClient[Any, Any]
StartWorker = Callable[..., Awaitable[Client]]
StartServer = Callable[..., Awaitable[TestServer]]

_Test = TypeVar("_Test", bound=Callable[..., Any])
SHOWN: set[str] = set()


def shows(*codes: str) -> Callable[[_Test], _Test]:
    """Marks the test that makes these problems so."""
    SHOWN.update(codes)
    return lambda test: test


@dataclass
class House:
    """The stage, its Bot API, and galleries on it; nothing is wrong unless a test makes it so."""

    stage: Stage
    bot_api: BotApiServer
    start_worker: StartWorker
    start_client: StartClient
    start_server: StartServer
    database: str

    async def open(self, worker: str | None = None, **environment: str) -> Client:
        """A gallery on a worker that is well, or on this address."""
        if worker is None:
            worker = url_of(await self.worker())
        settings = {
            **self.stage.environment(),
            "BOT_API_URL": self.bot_api.url,
            "JWT_SECRET": JWT_SECRET,
            "WORKER_URL": worker,
            "DATABASE": self.database,
            **environment,
        }
        app = await asyncio.to_thread(lambda: backend.create_app(Settings.from_env(settings)))
        return await self.start_client(app)

    async def worker(self, **changes: Any) -> Client:
        """A worker that has logged in, unless it cannot."""
        worker = await self.start_worker(**changes)
        async with asyncio.timeout(10):
            while await bot_states(worker) & {"logging in", "not connected"}:
                await asyncio.sleep(0.01)
        return worker

    async def play(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> str:
        """A server that answers everything so; its address."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        return url_of(await self.start_server(app, shutdown_timeout=0.1))


def url_of(server: Any) -> str:
    return str(server.make_url("/")).rstrip("/")


async def bot_states(worker: Client) -> set[str]:
    async with worker.get("/health") as response:
        return {bot["state"] for bot in (await response.json())["telegram"]}


@pytest.fixture
async def house(
    stage: Stage,
    bot_api: BotApiServer,
    start_worker: StartWorker,
    aiohttp_client: StartClient,
    aiohttp_server: StartServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> House:
    for name in ("GOOD_FOR_S", "BAD_FOR_S", "BOT_GOOD_FOR_S"):
        monkeypatch.setattr(state_module, name, 0.0)
    database = str(tmp_path / "gallery.sqlite")
    return House(stage, bot_api, start_worker, aiohttp_client, aiohttp_server, database)


async def state_of(gallery: Client, **headers: str) -> dict[str, Any]:
    async with gallery.get("/api/state", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Cache-Control"] == "no-store"
        text = await response.text()
        assert JWT_SECRET not in text
        assert ":AA" not in text
        return dict(await response.json())


async def problems_in(gallery: Client, **headers: str) -> dict[str, dict[str, str]]:
    """The problems by their codes; each has its words and what to do."""
    found = {}
    for each in (await state_of(gallery, **headers))["problems"]:
        assert set(each) == {"code", "severity", "message", "what_to_do"}
        assert "{" not in each["message"] + each["what_to_do"]
        found[each["code"]] = each
    return found


async def only_problem(gallery: Client, **headers: str) -> dict[str, str]:
    (found,) = (await problems_in(gallery, **headers)).values()
    return found


# -- The table -------------------------------------------------------------------------------------


def test_every_code_has_its_row_and_every_row_its_code_and_its_test() -> None:
    document = (REPOSITORY / "docs" / "setup-problems.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \| (.+) \|$", document, re.MULTILINE)
    expected = [
        (code, kind.severity, re.sub(r"\{\w+\}", "…", kind.message), kind.what_to_do)
        for code, kind in KINDS.items()
    ]
    assert rows == expected
    assert set(KINDS) == SHOWN


async def test_nothing_is_wrong_with_a_house_that_is_set_up_well(house: House) -> None:
    gallery = await house.open()
    state = await state_of(gallery)
    assert state["problems"] == []
    (worker,) = state["workers"]
    assert (worker["state"], worker["version"]) == ("well", "0.1.0")
    assert worker["viewers"] == 0 < worker["viewers_max"]


# -- The address -----------------------------------------------------------------------------------


@shows("worker_unreachable")
async def test_a_worker_where_nobody_listens(house: House) -> None:
    gallery = await house.open("http://127.0.0.1:1")
    problem = await only_problem(gallery)
    assert (problem["code"], problem["severity"]) == ("worker_unreachable", "stops")
    assert "http://127.0.0.1:1 cannot be reached: nobody listens there." in problem["message"]
    assert (await state_of(gallery))["workers"][0]["state"] == "wrong"


async def test_a_worker_that_wakes_up_is_no_problem_until_it_takes_too_long(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gateway(_request: web.Request) -> web.Response:
        return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")

    gallery = await house.open(await house.play(gateway))
    state = await state_of(gallery)
    assert (state["workers"][0]["state"], state["problems"]) == ("waking", [])
    monkeypatch.setattr(problems_module, "WAKING_MAX_S", -1.0)
    problem = await only_problem(gallery)
    assert problem["code"] == "worker_unreachable"
    assert "no answer for 0 s" in problem["message"]
    assert (await state_of(gallery))["workers"][0]["state"] == "away"


async def test_servers_that_say_nothing_are_not_waited_for_long(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "ASK_TIMEOUT_S", 0.2)

    async def hang(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    silent = await house.play(hang)
    gallery = await house.open(silent, BOT_API_URL=silent)
    async with asyncio.timeout(10):
        state = await state_of(gallery)
    assert state["workers"][0]["state"] == "waking"
    assert [each["code"] for each in state["problems"]] == ["bot_api_unreachable"]


@shows("worker_foreign")
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, "<!DOCTYPE html><title>Hello</title>", "text/html"),
        (404, "Not Found", "text/plain"),
        (200, '{"status": "ok", "version": "0.1.0", "uptime_s": 1.5}', "application/json"),
        (200, "[]", "application/json"),
    ],
)
async def test_what_answers_is_no_worker(house: House, status: int, body: str, kind: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type=kind)

    problem = await only_problem(await house.open(await house.play(answer)))
    assert (problem["code"], problem["severity"]) == ("worker_foreign", "stops")
    assert f"({kind}, status {status})" in problem["message"]


@shows("worker_redirects")
async def test_an_address_that_leads_on_is_not_followed(house: House) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    target = await house.play(elsewhere)

    async def lead_on(request: web.Request) -> web.Response:
        location = f"{target}{request.path}?secret=of-the-host"
        return web.Response(status=301, headers={"Location": location})

    problem = await only_problem(await house.open(await house.play(lead_on)))
    assert (problem["code"], problem["severity"]) == ("worker_redirects", "stops")
    assert f"leads on to {target}." in problem["message"]
    assert asked == []


@shows("worker_mixed_content")
async def test_a_page_by_https_and_a_worker_by_http(house: House) -> None:
    worker = await house.worker()
    # The same machine by a name that a browser does not know for its own.
    gallery = await house.open(url_of(worker).replace("127.0.0.1", "0.0.0.0"))
    assert await problems_in(gallery) == {}
    problem = await only_problem(gallery, **{"X-Forwarded-Proto": "https"})
    assert (problem["code"], problem["severity"]) == ("worker_mixed_content", "stops")
    own = await house.open(url_of(worker))
    assert await problems_in(own, **{"X-Forwarded-Proto": "https"}) == {}


@shows("worker_origin_refused")
async def test_a_worker_that_is_for_the_pages_of_another_site(house: House) -> None:
    worker = await house.worker(allowed_origins=("https://elsewhere.example",))
    gallery = await house.open(url_of(worker))
    problem = await only_problem(gallery)
    assert (problem["code"], problem["severity"]) == ("worker_origin_refused", "stops")
    host = {"Host": "localhost", "X-Forwarded-Proto": "https"}
    friend = await house.worker(allowed_origins=("https://localhost",))
    assert await problems_in(await house.open(url_of(friend)), **host) == {}


# -- The secret, and the clocks --------------------------------------------------------------------


@shows("worker_secret_differs")
async def test_different_secrets(house: House, stage: Stage) -> None:
    post = stage.post_synthetic(1000)
    gallery = await house.open(JWT_SECRET=OTHER_SECRET)
    problem = await only_problem(gallery)
    assert (problem["code"], problem["severity"]) == ("worker_secret_differs", "stops")
    assert stage.count(post).requests == 0  # and no call to Telegram finds it out


async def test_another_worker_with_the_right_secret_gets_the_films(
    house: House, stage: Stage
) -> None:
    post = stage.post_synthetic(30 << 20)  # more than the Bot API hands out
    stranger = await house.worker(jwt_secrets=(OTHER_SECRET,))
    friend = await house.worker()
    gallery = await house.open(f"{url_of(stranger)},{url_of(friend)}")
    problem = await only_problem(gallery)
    assert (problem["code"], problem["severity"]) == ("worker_secret_differs", "limits")
    for _ in range(5):
        path = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
        async with gallery.get(path) as response:
            assert (await response.json())["url"].startswith(url_of(friend))


def dated(house: House, behind_s: float, target: str) -> Any:
    """Passes on to a server, under a Date by a clock that is so far behind."""

    async def answer(request: web.Request) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() != "host"}
        body = await request.read()
        async with (
            ClientSession() as session,
            session.request(
                request.method, f"{target}{request.raw_path}", headers=headers, data=body
            ) as passed,
        ):
            date = formatdate(time.time() - behind_s, usegmt=True)
            allowed = passed.headers.get("Access-Control-Allow-Origin", "")
            return web.Response(
                status=passed.status,
                body=await passed.read(),
                content_type=passed.content_type,
                headers={"Date": date, "Access-Control-Allow-Origin": allowed},
            )

    return house.play(answer)


@shows("worker_clock_off")
@pytest.mark.parametrize(
    ("ahead_s", "direction", "severity"),
    [(600.0, "600 s slow", "stops"), (-600.0, "600 s fast", "limits"), (5.0, None, None)],
)
async def test_a_worker_whose_clock_is_off_knows_it_from_telegram(
    house: House, ahead_s: float, direction: str | None, severity: str | None
) -> None:
    house.stage.telegram.trouble.clock_ahead_s = ahead_s
    found = await problems_in(await house.open())
    assert list(found) == (["worker_clock_off"] if direction else [])
    for problem in found.values():
        assert direction is not None
        assert re.search(rf"{direction[:2]}\d? s {direction[-4:]}", problem["message"])
        assert problem["severity"] == severity


async def test_a_worker_that_is_not_logged_in_is_judged_by_its_date(house: House) -> None:
    trouble = house.stage.telegram.trouble
    trouble.plan(Fault("silence", method="auth.importBotAuthorization", times=99))
    worker = await house.start_worker()
    gallery = await house.open(await dated(house, 600, url_of(worker)))
    problem = await only_problem(gallery)
    assert problem["code"] == "worker_clock_off"
    assert re.search(r"(599|600|601) s slow", problem["message"])


@shows("backend_clock_off")
@pytest.mark.parametrize(
    ("behind_s", "direction", "severity"),
    [(600, "fast", "stops"), (-600, "slow", "limits"), (-3700, "slow", "stops")],
)
async def test_a_gallery_whose_clock_is_off_hears_it_from_the_bot_api(
    house: House, behind_s: int, direction: str, severity: str
) -> None:
    # Seen from a gallery that is so far ahead the Bot API is that far behind.
    bot_api = await dated(house, behind_s, house.bot_api.url)
    problem = await only_problem(await house.open(BOT_API_URL=bot_api))
    assert (problem["code"], problem["severity"]) == ("backend_clock_off", severity)
    seconds = abs(behind_s)
    assert re.search(rf"({seconds - 1}|{seconds}|{seconds + 1}) s {direction}", problem["message"])


@shows("clocks_differ", "bot_api_unreachable")
async def test_without_telegram_nobody_knows_which_clock_is_right(house: House) -> None:
    trouble = house.stage.telegram.trouble
    trouble.plan(Fault("silence", method="auth.importBotAuthorization", times=99))
    worker = await house.start_worker()
    front = await dated(house, 600, url_of(worker))
    found = await problems_in(await house.open(front, BOT_API_URL="http://127.0.0.1:1"))
    assert set(found) == {"clocks_differ", "bot_api_unreachable"}
    assert re.search(r"(599|600|601) s apart", found["clocks_differ"]["message"])
    assert "(nobody listens there)" in found["bot_api_unreachable"]["message"]
    assert found["bot_api_unreachable"]["severity"] == "limits"


# -- The bots --------------------------------------------------------------------------------------


@shows("worker_bot_refused")
async def test_a_token_that_telegram_refuses_the_worker(house: House) -> None:
    worker = await house.worker(bot_tokens=("777:revoked",))
    found = await problems_in(await house.open(url_of(worker)))
    assert set(found) == {"worker_bot_refused", "bot_differs"}
    assert found["worker_bot_refused"]["severity"] == "stops"
    assert "bot 777 " in found["worker_bot_refused"]["message"]
    pool = await house.worker(bot_tokens=("777:revoked", house.stage.bot.token))
    problem = await only_problem(await house.open(url_of(pool)))
    assert (problem["code"], problem["severity"]) == ("worker_bot_refused", "limits")


@shows("flood_wait")
async def test_a_login_flood_with_the_time_of_its_end(house: House) -> None:
    house.stage.telegram.trouble.flood_wait(1500, method="auth.importBotAuthorization", times=9)
    problem = await only_problem(await house.open())
    assert (problem["code"], problem["severity"]) == ("flood_wait", "stops")
    end = time.gmtime(time.time() + 1500)
    minutes = {f"{(end.tm_hour * 60 + end.tm_min + d) % 1440}" for d in (-1, 0, 1)}
    told = re.search(r"until (\d\d):(\d\d) UTC, in 25 min", problem["message"])
    assert told
    assert str(int(told[1]) * 60 + int(told[2])) in minutes


@shows("channel_unknown")
@pytest.mark.parametrize("is_member", [True, False])
async def test_a_channel_that_the_bot_cannot_see(house: House, is_member: bool) -> None:
    world = house.stage.telegram.world
    stranger = world.add_bot(home_dc=2)
    channel = world.add_channel("Others", stranger).chat_id if is_member else NO_CHANNEL
    problem = await only_problem(await house.open(CHANNELS=str(channel)))
    assert (problem["code"], problem["severity"]) == ("channel_unknown", "stops")
    assert f"the channel {channel}," in problem["message"]
    both = f"{house.stage.channel.chat_id},{channel}"
    problem = await only_problem(await house.open(CHANNELS=both))
    assert (problem["code"], problem["severity"]) == ("channel_unknown", "limits")


@shows("bot_not_administrator")
async def test_a_bot_that_is_a_plain_member(house: House) -> None:
    async def bot_api(request: web.Request) -> web.Response:
        method = request.path.rpartition("/")[2]
        results: dict[str, Any] = {"getChatMember": {"status": "member"}, "getUpdates": []}
        if method == "getUpdates":
            await asyncio.sleep(1)
        return web.json_response({"ok": True, "result": results.get(method, {})})

    problem = await only_problem(await house.open(BOT_API_URL=await house.play(bot_api)))
    assert (problem["code"], problem["severity"]) == ("bot_not_administrator", "limits")
    assert str(house.stage.channel.chat_id) in problem["message"]


@shows("worker_bot_blind")
async def test_a_second_bot_that_is_not_in_the_channel(house: House) -> None:
    stranger = house.stage.telegram.world.add_bot(home_dc=2)
    tokens = (stranger.token, house.stage.bot.token)
    worker = await house.worker(bot_tokens=tokens)
    gallery = await house.open(url_of(worker), BOT_TOKEN=house.stage.bot.token)
    post = house.stage.post_synthetic(1000)
    async with worker.get(house.stage.path(post)) as response:
        assert await response.read()
    async with asyncio.timeout(10):
        while not (found := await problems_in(gallery)):
            await asyncio.sleep(0.05)
    assert list(found) == ["worker_bot_blind"]
    message = found["worker_bot_blind"]["message"]
    assert f"Bot {stranger.id} " in message
    assert str(house.stage.channel.chat_id) in message


@shows("bot_token_refused")
async def test_a_token_that_telegram_refuses_the_gallery(house: House) -> None:
    bot_id = house.stage.bot.token.partition(":")[0]
    problem = await only_problem(await house.open(BOT_TOKEN=f"{bot_id}:AAwrong"))
    assert (problem["code"], problem["severity"]) == ("bot_token_refused", "limits")


@shows("bot_differs")
async def test_another_bot_than_the_workers(house: House) -> None:
    other = house.stage.telegram.world.add_bot(home_dc=2)
    house.stage.channel.members.add(other.id)
    problem = await only_problem(await house.open(BOT_TOKEN=other.token))
    assert (problem["code"], problem["severity"]) == ("bot_differs", "limits")
    assert f"bot {other.id} " in problem["message"]


async def call(house: House, method: str, **arguments: object) -> None:
    url = f"{house.bot_api.url}/bot{house.stage.bot.token}/{method}"
    async with ClientSession() as session, session.post(url, json=arguments) as response:
        assert (await response.json())["ok"]


@shows("webhook_taken")
async def test_another_program_has_the_webhook(house: House) -> None:
    await call(house, "setWebhook", url="https://127.0.0.1:1/of/another/program")
    problem = await only_problem(await house.open())
    assert (problem["code"], problem["severity"]) == ("webhook_taken", "limits")
    assert "another/program" not in str(problem)  # it may hold a secret of that program's


@shows("webhook_failing")
async def test_a_webhook_that_telegram_cannot_reach(house: House) -> None:
    gallery = await house.open(PUBLIC_URL="https://127.0.0.1:1")
    async with asyncio.timeout(10):
        while not house.bot_api.counters.methods["bot_api.setWebhook"]:
            await asyncio.sleep(0.01)
    assert await problems_in(gallery) == {}
    house.stage.post_synthetic(1000)
    async with asyncio.timeout(10):
        while not (found := await problems_in(gallery)):
            await asyncio.sleep(0.05)
    assert list(found) == ["webhook_failing"]
    assert found["webhook_failing"]["severity"] == "limits"


async def test_a_webhook_that_telegram_refuses(house: House) -> None:
    refusal = "Bad Request: bad webhook: Webhook can be set up only on ports 80, 88, 443 or 8443"
    fault = Fault("error", method="bot_api.setWebhook", code=400, message=refusal, times=99)
    house.stage.telegram.trouble.plan(fault)
    gallery = await house.open(PUBLIC_URL="https://films.example:444")
    async with asyncio.timeout(10):
        while not (found := await problems_in(gallery)):
            await asyncio.sleep(0.05)
    assert "only on ports 80, 88, 443 or 8443" in found["webhook_failing"]["message"]


# -- Versions, and what is kept --------------------------------------------------------------------


@shows("worker_older", "backend_older")
@pytest.mark.parametrize(
    ("ours", "code", "advice"),
    [
        ("0.2.0", "worker_older", "Copy the newer render-service-chunked.py"),
        ("0.10.0", "worker_older", "Copy the newer render-service-chunked.py"),
        ("0.0.9", "backend_older", "Deploy the gallery again"),
    ],
)
async def test_versions_that_differ(
    house: House, monkeypatch: pytest.MonkeyPatch, ours: str, code: str, advice: str
) -> None:
    monkeypatch.setattr(state_module, "__version__", ours)
    problem = await only_problem(await house.open())
    assert (problem["code"], problem["severity"]) == (code, "limits")
    assert ours in problem["message"]
    assert "0.1.0" in problem["message"]
    assert advice in problem["what_to_do"]


@shows("database_in_memory")
async def test_a_database_in_memory_is_a_note_where_there_is_a_disk(house: House) -> None:
    problem = await only_problem(await house.open(DATABASE=":memory:"))
    assert (problem["code"], problem["severity"]) == ("database_in_memory", "note")
    on_render = await house.open(DATABASE=":memory:", RENDER_EXTERNAL_URL="http://localhost")
    assert await problems_in(on_render) == {}


# -- Who hears of it -------------------------------------------------------------------------------


async def test_only_whoever_is_signed_in_may_ask(house: House) -> None:
    gallery = await house.open(GALLERY_PASSWORD=PASSWORD, HOST="127.0.0.1")
    async with gallery.get("/api/state") as response:
        assert response.status == 401
        assert "workers" not in await response.text()
    async with gallery.post("/sign-in", data={"password": PASSWORD}):
        pass
    assert (await state_of(gallery))["problems"] == []


async def test_each_problem_is_in_the_log_once_and_when_it_is_over(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gallery.state")
    trouble = house.stage.telegram.trouble
    gallery = await house.open(DATABASE=":memory:")
    assert set(await problems_in(gallery)) == {"database_in_memory"}
    trouble.plan(Fault("error", method="bot_api.getMe", code=401, message="Unauthorized", times=3))
    for _ in range(3):
        assert set(await problems_in(gallery)) == {"bot_token_refused", "database_in_memory"}
    for _ in range(2):
        assert set(await problems_in(gallery)) == {"database_in_memory"}
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    told = [(level, text) for level, text in told if "bot_token_refused" in text]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert "Put the token that BotFather shows now into BOT_TOKEN" in told[0][1]
    assert "is over" in told[1][1]
    assert sum("database_in_memory" in record.getMessage() for record in caplog.records) == 1


async def test_those_who_ask_together_share_a_look(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "GOOD_FOR_S", 100.0)
    gallery = await house.open()
    house.bot_api.counters.reset()
    states = await asyncio.gather(*(state_of(gallery) for _ in range(10)))
    assert all(state == states[0] for state in states)
    assert house.bot_api.counters.methods["bot_api.getMe"] == 1


async def test_the_page_opens_the_panel_for_what_stops_films_and_until_it_is_mended(
    house: House, stage: Stage
) -> None:
    stage.post_synthetic(1000)
    stranger = await house.worker(jwt_secrets=(OTHER_SECRET,))
    # Cut now and then, so that nobody keeps a connection to the worker that was there before.
    line = RoughLine(URL(url_of(stranger)).port or 0, 50_000_000, cut_after_s=1.0)
    async with line.listening(), open_chromium() as page:
        gallery = await house.open(line.url, DATABASE=":memory:")
        with no_errors(page):
            await page.goto(url_of(gallery))
            panel, mark = page.locator("#state"), page.locator("#state-mark")
            await expect(panel).to_be_visible()  # by itself
            await expect(page.locator(".state-message").first).to_contain_text("refuses what this")
            await expect(page.locator(".state-advice").first).to_contain_text("same JWT_SECRET")
            await expect(mark).to_have_attribute("data-severity", "stops")
            await page.get_by_role("button", name="Close").click()
            await expect(panel).to_be_hidden()
            friend = await house.worker()
            line.target_port = URL(url_of(friend)).port or 0
            await expect(mark).to_have_attribute("data-severity", "note", timeout=20_000)
            await expect(panel).to_be_hidden()  # it opened once, and what is left is no trouble


async def test_what_is_only_good_to_know_stays_behind_its_mark(house: House) -> None:
    house.stage.post_synthetic(1000)
    gallery = await house.open(DATABASE=":memory:")
    async with open_chromium() as page:
        with no_errors(page):
            await page.goto(url_of(gallery))
            mark = page.get_by_role("button", name="How things are set up")
            await expect(mark).to_have_attribute("data-severity", "note")
            await expect(page.locator("#state")).to_be_hidden()
            await mark.click()
            await expect(page.locator("#state-lead")).to_have_text(
                "All is well. One thing to know:"
            )
            await expect(page.locator(".state-advice")).to_contain_text("Set DATABASE")
            await page.keyboard.press("Escape")
            await expect(page.locator("#state")).to_be_hidden()
    quiet = await house.open()
    async with open_chromium() as page:
        with no_errors(page):
            async with page.expect_response("**/api/state"):
                await page.goto(url_of(quiet))
            await expect(page.locator(".card-link")).to_have_count(1)
            await expect(page.locator("#state-mark")).to_be_hidden()
