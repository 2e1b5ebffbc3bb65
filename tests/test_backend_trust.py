"""The backend on the open internet: what strangers, Telegram and a worker may send, and get.

Goal: each clause of trust by itself: who comes in, what a page may load, where the bot's token
shows, what a name can do. Method: a gallery behind real sockets; its worker and its Bot API are
played by a few lines of HTTP, since the real ones never misbehave so; whatever must not show is
looked for in everything that comes out. The process itself is run where only it can tell.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from aiohttp import ClientSession, DummyCookieJar, web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from conftest import JWT_SECRET, StartClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yarl import URL

import backend
from gallery import answers, polling, shares, sign_in, updates
from gallery.catalogue import CATALOGUE
from gallery.files import NAME_MAX_CHARACTERS, MediaFile, path_segment
from gallery.http_file import content_disposition
from gallery.logs import SafeFormatter
from gallery.presentation import title_of
from gallery.sessions import EndedSessions
from gallery.settings import Settings
from gallery.sign_in import COOKIE, GATE, PATIENCE_PER_ADDRESS, PATIENCE_WITH_EVERYONE
from gallery.tokens import Session, read_session, session_token, webhook_secret

CHAT_ID = -1001234567890
PASSWORD = "correct horse battery"
BOT_SECRET = "AAE-the_secret-half-of-the-token"
BOT_TOKEN = f"123456:{BOT_SECRET}"
SMALL = b"the bytes of a small file"
HTML = {"Accept": "text/html"}

Client = TestClient[Any, Any]


# -- The stage -----------------------------------------------------------------------------------


class Played:
    """A server whose answers a test writes: by path, else `otherwise`; remembers what came."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        name = request.path.rpartition("/")[2]
        handler = self.answers.get(name) or self.answers.get("otherwise")
        return web.json_response({}, status=404) if handler is None else await handler(request)

    def say(
        self, name: str, body: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answer so: bytes as they are, all else as JSON, in Python's wide sense of it."""

        async def handler(_: web.Request) -> web.Response:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            return web.Response(
                body=raw,
                status=status,
                headers={"Content-Type": "application/json", **(headers or {})},
            )

        self.answers[name] = handler


def listed(number: int = 7, **changes: Any) -> dict[str, Any]:
    """A file as the worker lists it."""
    return {
        "chat_id": CHAT_ID,
        "message_id": number,
        "name": "film.mp4",
        "mime_type": "video/mp4",
        "size": len(SMALL),
        "date": 1,
        "duration": 61.5,
        "width": 640,
        "height": 360,
        "caption": "",
        "has_thumbnail": True,
        **changes,
    }


class House:
    """A gallery, its owner's browser, a stranger's, and the servers it asks."""

    owner: Client
    stranger: Client

    def __init__(self) -> None:
        self.worker, self.bot_api, self.elsewhere = Played(), Played(), Played()
        self.worker_url = self.bot_api_url = self.elsewhere_url = ""

    def list(self, *files: dict[str, Any]) -> None:
        self.worker.say(str(CHAT_ID), {"files": list(files), "next": None})

    async def share(self, message_id: int = 7) -> str:
        order = {"chat_id": CHAT_ID, "message_id": message_id}
        async with self.owner.post("/api/shares", json=order) as response:
            assert response.status == 201, await response.text()
            return str((await response.json())["share"])

    async def know_small_file(self, message_id: int = 7, **document: Any) -> None:
        """Have the gallery know a post by what the Bot API alone says of it."""
        self.worker.say(str(CHAT_ID), {}, 503)
        post = channel_post(message_id, **document)
        await self.owner.app[updates.UPDATES].take({"channel_post": post})


def channel_post(message_id: int = 7, **document: Any) -> dict[str, Any]:
    blank = {
        "file_id": "AgADfile",
        "file_unique_id": "unique",
        "file_name": "film.mp4",
        "mime_type": "video/mp4",
        "file_size": len(SMALL),
    }
    chat = {"id": CHAT_ID, "title": "Films"}
    return {
        "message_id": message_id,
        "chat": chat,
        "date": 1,
        "document": {**blank, **document},
    }


StartHouse = Callable[..., Awaitable[House]]


async def play(aiohttp_server: Any, played: Played) -> TestServer:
    """Let it answer; what it logs is its own and has another name than what we log."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", played.answer)
    logger = logging.getLogger("played")
    server: TestServer = await aiohttp_server(app, access_log=None, logger=logger)
    return server


@pytest.fixture
def open_house(aiohttp_client: StartClient, aiohttp_server: Any) -> StartHouse:
    """Opens a gallery with a password and signs its owner in."""

    async def start(**changes: str) -> House:
        house = House()
        for name in ("worker", "bot_api", "elsewhere"):
            server = await play(aiohttp_server, getattr(house, name))
            setattr(house, f"{name}_url", str(server.make_url("/")).rstrip("/"))
        house.list(listed())
        environment = {
            "BOT_TOKEN": BOT_TOKEN,
            "JWT_SECRET": JWT_SECRET,
            "WORKER_URL": house.worker_url,
            "BOT_API_URL": house.bot_api_url,
            "CHANNELS": str(CHAT_ID),
            "GALLERY_PASSWORD": PASSWORD,
            **changes,
        }
        settings = Settings.from_env(environment)
        app = await asyncio.to_thread(backend.create_app, settings)
        house.owner = await aiohttp_client(app, server_kwargs={"handler_cancellation": True})
        house.stranger = await aiohttp_client(house.owner.server, cookie_jar=DummyCookieJar())
        async with house.owner.post("/sign-in", data={"password": PASSWORD}) as response:
            assert response.url.path == "/"
        return house

    return start


@pytest.fixture
async def house(open_house: StartHouse) -> House:
    return await open_house()


async def guess(client: Client, password: str = "wrong", **headers: str) -> Any:
    return await client.post(
        "/sign-in", data={"password": password}, headers=headers, allow_redirects=False
    )


async def status(client: Client, path: str, method: str = "GET", **options: Any) -> int:
    async with client.request(method, path, allow_redirects=False, **options) as response:
        await response.read()
        return int(response.status)


async def raw_answer(client: Client, request: bytes) -> bytes:
    """What comes back for these very bytes, up to the end of the connection."""
    url = client.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read(-1)
    writer.close()
    return answer


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


# -- Sign-in -------------------------------------------------------------------------------------


async def test_guesses_sent_side_by_side_are_each_counted(house: House) -> None:
    """The forms are held back until all requests are under way, and then come at once."""
    url = house.stranger.make_url("/sign-in")
    form = b"password=wrong"
    head = (
        f"POST /sign-in HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
    ).encode()
    lines = [await asyncio.open_connection(url.host, url.port) for _ in range(20)]
    for _, writer in lines:
        writer.write(head)
    await asyncio.sleep(0.2)  # there is nothing to see of requests that wait for their form
    for _, writer in lines:
        writer.write(form)
    answers = [await reader.read(-1) for reader, _ in lines]
    for _, writer in lines:
        writer.close()
    looked_at = [answer for answer in answers if answer.startswith(b"HTTP/1.1 403")]
    assert len(looked_at) == PATIENCE_PER_ADDRESS.free_failures
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 429")]
    assert len(refused) == len(lines) - len(looked_at)


@pytest.mark.parametrize("says", [True, False])
async def test_only_a_comparison_in_constant_time_opens(
    house: House, monkeypatch: pytest.MonkeyPatch, says: bool
) -> None:
    """Whatever it says goes, and it is given both sides whole."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return says

    monkeypatch.setattr("hmac.compare_digest", compare)
    response = await guess(house.stranger, "wrong")
    assert response.status == (303 if says else 403)
    monkeypatch.undo()
    assert (b"wrong", PASSWORD.encode()) in compared


@pytest.mark.parametrize(
    ("on_render", "behind"), [(False, "{}"), (True, "{}, 104.22.17.40")], ids=["proxy", "Render"]
)
async def test_behind_a_proxy_made_up_addresses_gain_nothing(
    open_house: StartHouse, on_render: bool, behind: str
) -> None:
    house = await open_house(**({"RENDER_EXTERNAL_URL": "https://g.example"} if on_render else {}))

    async def attempt(made_up: str, own: str) -> int:
        forwarded = f"{made_up}, {behind.format(own)}"
        return int((await guess(house.stranger, **{"X-Forwarded-For": forwarded})).status)

    attacker = "93.184.216.34"
    statuses = [await attempt(f"9.9.9.{number}", attacker) for number in range(6)]
    assert statuses == [403, 403, 403, 429, 429, 429]
    assert await attempt("9.9.9.9", "93.184.216.35") == 403


async def test_addresses_of_one_ipv6_network_are_one(house: House) -> None:
    statuses = [
        int((await guess(house.stranger, **{"X-Forwarded-For": f"2606:2800:220:1::{n}"})).status)
        for n in range(5)
    ]
    assert statuses == [403, 403, 403, 429, 429]
    other = await guess(house.stranger, **{"X-Forwarded-For": "2606:2800:220:2::1"})
    assert other.status == 403


@pytest.mark.parametrize(
    ("neighbour", "address"),
    [
        ("93.184.216.34", "93.184.216.34"),  # it came by itself: what it forwards is made up
        ("::ffff:93.184.216.34", "93.184.216.34"),
        ("2606:2800:220:1::5", "2606:2800:220:1::/64"),
        ("10.21.157.68", "8.8.4.4"),
        ("127.0.0.1", "8.8.4.4"),
        ("fd12::1", "8.8.4.4"),
        ("fe80::1%eth0", "8.8.4.4"),
        ("", "unknown"),
        ("garbage", "unknown"),
    ],
)
async def test_only_a_neighbour_in_our_own_network_is_a_proxy(
    house: House, neighbour: str, address: str
) -> None:
    request = make_mocked_request(
        "POST", "/sign-in", headers={"X-Forwarded-For": "8.8.8.8, 8.8.4.4"}, app=house.owner.app
    ).clone(remote=neighbour)
    assert sign_in._client_address(request) == address


async def test_attackers_everywhere_slow_each_other_down_and_not_whoever_is_signed_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "ADDRESSES_MAX", 10)
    free = PATIENCE_WITH_EVERYONE.free_failures
    statuses = [
        (await guess(house.stranger, **{"X-Forwarded-For": f"8.8.{n}.1"})).status
        for n in range(free + 5)
    ]
    assert statuses == [403] * free + [429] * 5
    assert len(house.owner.app[GATE]._failures) <= 10
    assert await status(house.owner, "/") == 200


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("application/x-www-form-urlencoded; charset=klingon", b"password=x"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"password=%f"),
        ("application/x-www-form-urlencoded", b"password=\xff\xfe%ff%00"),
        ("application/x-www-form-urlencoded", b"&&=&password"),
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"password=x"),
        ("application/json", b'{"password": "x"}'),
    ],
)
async def test_a_form_of_any_kind_is_a_wrong_password_at_worst(
    house: House, kind: str, form: bytes
) -> None:
    options = {"data": form, "headers": {"Content-Type": kind}}
    assert await status(house.stranger, "/sign-in", "POST", **options) == 403


# -- Session -------------------------------------------------------------------------------------


def session_cookie(response: Any) -> str:
    found = re.match(rf"{COOKIE}=([^;]+); (.*)", response.headers["Set-Cookie"])
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("public_url", "headers", "secure"),
    [
        ("", {}, False),
        ("", {"X-Forwarded-Proto": "https"}, True),
        ("https://films.example", {"Host": "films.example"}, True),
        ("https://films.example", {"Host": "192.168.1.5:8080"}, False),
        ("http://films.example", {"Host": "films.example"}, False),
    ],
)
async def test_on_https_the_cookie_and_the_browser_stay_there(
    open_house: StartHouse, public_url: str, headers: dict[str, str], secure: bool
) -> None:
    house = await open_house(PUBLIC_URL=public_url)
    response = await guess(house.stranger, PASSWORD, **headers)
    flags = response.headers["Set-Cookie"].split("; ")[1:]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(flags)
    assert not any(flag.startswith("Domain") for flag in flags)
    assert ("Secure" in flags) is secure
    assert ("Strict-Transport-Security" in response.headers) is secure


async def test_signing_in_takes_up_no_session_that_was_planted(house: House) -> None:
    planted = session_token("another secret, of the attacker, long", PASSWORD, time.time())
    headers = {"Cookie": f"{COOKIE}={planted}"}
    assert await status(house.stranger, "/api/files", headers=headers) == 401
    cookies = {session_cookie(await guess(house.stranger, PASSWORD, **headers)) for _ in range(2)}
    assert len(cookies) == 2
    assert planted not in cookies


async def test_signing_out_ends_the_copies_of_the_cookie_and_no_other_session(
    house: House,
) -> None:
    copies = [session_cookie(await guess(house.stranger, PASSWORD)) for _ in range(2)]
    headers = [{"Cookie": f"{COOKIE}={copy}"} for copy in copies]
    assert await status(house.stranger, "/api/files", headers=headers[0]) == 200
    assert await status(house.stranger, "/sign-out", "POST", headers=headers[0]) == 303
    for path in ("/api/files", "/api/shares", f"/api/files/{CHAT_ID}/7/url", f"/files/{CHAT_ID}/7"):
        assert await status(house.stranger, path, headers=headers[0]) == 401, path
    assert await status(house.stranger, "/api/files", headers=headers[1]) == 200


async def test_what_was_signed_out_stays_so_after_a_restart_with_a_database(
    open_house: StartHouse, tmp_path: Path
) -> None:
    database = str(tmp_path / "gallery.sqlite3")
    house = await open_house(DATABASE=database)
    ended, running = [session_cookie(await guess(house.stranger, PASSWORD)) for _ in range(2)]
    ended_headers = {"Cookie": f"{COOKIE}={ended}"}
    await status(house.stranger, "/sign-out", "POST", headers=ended_headers)
    await house.owner.close()

    def outdate_the_index() -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("PRAGMA user_version = 1")

    await asyncio.to_thread(outdate_the_index)
    again = await open_house(DATABASE=database)
    assert await status(again.stranger, "/api/files", headers=ended_headers) == 401
    running_headers = {"Cookie": f"{COOKIE}={running}"}
    assert await status(again.stranger, "/api/files", headers=running_headers) == 200


async def test_ended_sessions_are_forgotten_with_their_end_and_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gallery.sessions.ENDED_MAX", 3)
    ended = EndedSessions(str(tmp_path / "gallery.sqlite3"))
    await ended.open()
    sessions = [Session(str(number), 0, 100 + number) for number in range(4)]
    for session in sessions:
        await ended.add(session, now=50)
    assert [session in ended for session in sessions] == [False, True, True, True]
    await ended.add(Session("new", 0, 200), now=102)
    assert [session in ended for session in sessions] == [False, False, False, True]
    await ended.close()


async def test_when_it_is_not_known_who_signed_out_older_cookies_are_worth_nothing(
    open_house: StartHouse, tmp_path: Path
) -> None:
    database = tmp_path / "gallery.sqlite3"

    def spoil() -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE ended_sessions (something_else)")

    await asyncio.to_thread(spoil)
    old = session_token(JWT_SECRET, PASSWORD, time.time() - 60)
    assert read_session(JWT_SECRET, PASSWORD, old)
    house = await open_house(DATABASE=str(database))
    headers = {"Cookie": f"{COOKIE}={old}"}
    assert await status(house.stranger, "/api/files", headers=headers) == 401
    assert await status(house.owner, "/api/files") == 200
    assert await status(house.owner, "/sign-out", "POST") == 303
    assert await status(house.owner, "/api/files") == 401


@pytest.mark.parametrize("cookie", [b"\xff\xfe", b"a.b.c", b'"\\377"', b"e30.e30.\xc3", b""])
async def test_a_cookie_of_any_bytes_is_a_stranger(house: House, cookie: bytes) -> None:
    request = b"GET /api/files HTTP/1.1\r\nHost: g\r\nConnection: close\r\n"
    request += b"Cookie: %s=%s\r\n\r\n" % (COOKIE.encode(), cookie)
    assert (await raw_answer(house.stranger, request)).startswith(b"HTTP/1.1 401")


# -- Other sites ---------------------------------------------------------------------------------


def changing_routes(app: web.Application) -> list[tuple[str, str]]:
    """Every method and path that may change something; nothing is left out by hand."""
    return [
        (route.method, route.resource.canonical.replace("{id}", "A" * 12))
        for route in app.router.routes()
        if route.method not in ("GET", "HEAD", "OPTIONS") and route.resource is not None
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port, another subdomain
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
async def test_pages_of_other_sites_change_nothing_even_with_the_cookie(
    house: House, headers: dict[str, str]
) -> None:
    routes = changing_routes(house.owner.app)
    assert len(routes) >= 5
    order = {"chat_id": CHAT_ID, "message_id": 7, "password": PASSWORD}
    for method, path in routes:
        options = {"json": order, "headers": headers}
        assert await status(house.owner, path, method, **options) == 403, (method, path)
    assert await status(house.owner, "/api/files") == 200
    async with house.owner.get("/api/shares") as response:
        assert (await response.json())["shares"] == []


async def test_asking_changes_nothing(house: House) -> None:
    """Lax cookies travel with links from anywhere, so no GET may do anything.

    A playlist's links stand in the list of links, where they can be revoked: that is all.
    """
    share = await house.share()
    for route in house.owner.app.router.routes():
        if route.method == "GET" and route.resource is not None:
            path = route.resource.canonical.replace("{share}", share).replace("{id}", share[:12])
            path = path.replace("{chat_id}", str(CHAT_ID)).replace("{message_id}", "7")
            await status(house.owner, re.sub(r"\{\w+\}", "x", path))
    async with house.owner.get("/api/shares") as response:
        listed = {each["name"]: each["revoked"] for each in (await response.json())["shares"]}
    made = [name for name in listed if name.startswith(("Playlist: ", "Export: "))]
    assert len(made) == 2
    assert list(listed.values()) == [False] * 3


async def test_pages_of_other_sites_read_nothing_of_the_owners(house: House) -> None:
    await house.know_small_file()
    origin = {"Origin": "https://evil.example"}
    for path in ("/", "/api/files", "/api/shares", "/api/channels", f"/files/{CHAT_ID}/7"):
        async with house.owner.get(path, headers=origin, allow_redirects=False) as response:
            assert "Access-Control-Allow-Origin" not in response.headers, path
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


# -- What a page may load ------------------------------------------------------------------------


async def every_answer(house: House) -> list[tuple[str, Any, bytes]]:
    """One answer of each kind: pages, JSON, files, redirects and refusals of every status."""
    await house.know_small_file()
    await house.know_small_file(8, file_name="page.html", mime_type="text/html")
    await house.know_small_file(9, file_name="large.mp4", file_size=1 << 30)
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": "documents/file_1.mp4"}})
    house.bot_api.say("file_1.mp4", SMALL, headers={"Content-Type": "video/mp4"})
    share, ended = await house.share(), await house.share()
    assert await status(house.owner, f"/api/shares/{ended}", "DELETE") == 204
    doors = ["/v/{}", "/v/{}/poster", "/watch/{}", "/embed/{}", "/m3u/{}", "/api/share/{}/url"]
    url = quote(f"{house.owner.make_url('/')}v/{share}", safe="")
    paths = [
        "/",
        "/sign-in",
        "/health",
        "/nothing",
        "/service-worker.js",
        "/static/gallery.js",
        "/static/icon.svg",
        "/api/files",
        "/api/files?kind=x",
        "/api/channels",
        "/api/shares",
        "/api/nothing",
        *(f"/api/files/{CHAT_ID}/{number}" for number in (7, 70)),
        *(f"/api/files/{CHAT_ID}/{number}/url?portable=1" for number in (7, 8, 9)),
        *(f"/files/{CHAT_ID}/{number}" for number in (7, 8, 9, 70)),
        f"/oembed?url={url}",
        "/oembed?url=https%3A%2F%2Fevil.example",
        *(door.format(given) for door in doors for given in (share, ended, "x" * 56)),
    ]
    found = []
    for client, path, extra in [
        *((client, path, HTML) for client in (house.owner, house.stranger) for path in paths),
        *((house.owner, path, {}) for path in paths),
        (house.owner, f"/files/{CHAT_ID}/7", {"Range": "bytes=99999-"}),
        (house.stranger, "/", {"Expect": "x"}),
    ]:
        async with client.get(path, headers=extra, allow_redirects=False) as response:
            found.append((f"{response.status} {path}", response.headers, await response.read()))
    for path in ("/", "/api/files", "/v/x"):
        async with house.owner.put(path, data=b"", headers=HTML) as response:
            found.append((f"{response.status} {path}", response.headers, await response.read()))
    async with house.stranger.post("/sign-in", data=b"a" * 20_000) as response:
        found.append((f"{response.status} /sign-in", response.headers, await response.read()))
    statuses = {"200", "303", "307", "400", "401", "404", "405", "410", "413", "416", "417", "503"}
    assert {name[:3] for name, _, _ in found} == statuses
    return found


async def test_every_answer_forbids_what_is_not_needed(house: House) -> None:
    worker = house.worker_url
    for name, headers, _ in await every_answer(house):
        policy = {
            directive.partition(" ")[0]: set(directive.split()[1:])
            for directive in headers["Content-Security-Policy"].split("; ")
        }
        assert policy["default-src"] == {"'none'"}, name
        for directive, allowed in policy.items():
            loose = {"'unsafe-inline'", "'unsafe-eval'", "data:", "blob:", "https:"}
            if directive == "media-src":
                loose.remove("blob:")  # what hls.js plays from; no script can come that way
            assert not loose & allowed, (name, directive)
            if directive != "frame-ancestors":
                assert "*" not in allowed, (name, directive)
        if "sandbox" not in policy:
            for directive in ("media-src", "connect-src", "img-src"):
                assert policy[directive] - {"blob:"} == {"'self'", worker}, (name, directive)
            for directive in ("script-src", "style-src", "worker-src", "form-action"):
                assert policy[directive] == {"'self'"}, (name, directive)
            assert policy["base-uri"] == {"'none'"}
        is_for_visitors = re.match(r"\d+ /(v|watch|embed|m3u|oembed|api/share)\b", name)
        may_be_framed = is_for_visitors and name[:3] != "405"
        assert policy["frame-ancestors"] == ({"*"} if may_be_framed else {"'none'"}), name
        assert headers["X-Content-Type-Options"] == "nosniff", name
        assert headers["Referrer-Policy"] == "no-referrer", name
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin", name
        assert "camera=()" in headers["Permissions-Policy"], name
        assert "Strict-Transport-Security" not in headers, name
        if name[0] not in "23":
            assert headers["Cache-Control"] == "no-store", name


class Inline(HTMLParser):
    """Finds what a page holds that the policy would have to make an exception for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        self._in_script = tag == "script"
        self.found += [f"{tag} {name}" for name in names if name.startswith("on")]
        self.found += [f"{tag} style"] if "style" in names or tag == "style" else []
        self.found += ["script"] if tag == "script" and "src" not in names else []
        self.found += [f"{tag} {value}" for _, value in attrs if (value or "").startswith("java")]

    def handle_data(self, data: str) -> None:
        self.found += [data] if self._in_script and data.strip() else []


async def test_no_page_holds_script_or_style_of_its_own(house: House) -> None:
    pages = [
        (name, body.decode())
        for name, headers, body in await every_answer(house)
        if headers.get("Content-Type", "").startswith("text/html") and "/files/" not in name
    ]
    assert len(pages) > 10
    assert [(name, Inline(page).found) for name, page in pages if Inline(page).found] == []


async def test_a_file_of_any_type_cannot_act_as_a_page_of_ours(house: House) -> None:
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": "a.html"}})
    house.bot_api.say("a.html", SMALL)
    for number, mime_type in enumerate(
        ["text/html", "image/svg+xml", "text/xml", "text/javascript", "TEXT/HTML;a", "x"], 1
    ):
        await house.know_small_file(number, mime_type=mime_type, file_name="a.html")
        async with house.owner.get(f"/files/{CHAT_ID}/{number}") as response:
            assert await response.read() == SMALL
            assert response.headers["Content-Disposition"].startswith("attachment;")
            assert response.headers["Content-Security-Policy"].startswith("sandbox;")


# -- The bot's token -----------------------------------------------------------------------------


def quoted(request: web.Request) -> str:
    """The address that was asked for, as a careless server would put it into its error."""
    return f"{request.url} {request.raw_path} {quote(request.path)}"


async def drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def answer_not_http(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 " + quoted(request).encode() + b"\r\n\r\n")
    return web.Response()


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(quoted(request).encode()[:10])
    return await drop(request)


async def refuse(request: web.Request) -> web.StreamResponse:
    body = {"ok": False, "error_code": 400, "description": f"Bad Request: {quoted(request)}"}
    return web.json_response(body, status=400)


async def fail(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text=f"<h1>{quoted(request)}</h1>", content_type="text/html")


async def lead_away(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": f"{request.url}/again"})


async def garble(request: web.Request) -> web.StreamResponse:
    return web.Response(body=quoted(request), headers={"Content-Encoding": "gzip"})


BOT_API_MISBEHAVES = [drop, answer_not_http, break_off, refuse, fail, lead_away, garble]


@pytest.mark.parametrize("misbehaviour", BOT_API_MISBEHAVES, ids=lambda handler: handler.__name__)
@pytest.mark.parametrize("direct", [False, True], ids=["proxy", "direct"])
async def test_the_bots_token_shows_nowhere_whatever_the_bot_api_does(
    open_house: StartHouse,
    caplog: pytest.LogCaptureFixture,
    misbehaviour: Callable[[web.Request], Awaitable[web.StreamResponse]],
    direct: bool,
) -> None:
    """In all that comes out, and in all that anybody logs, at the loudest level there is."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    house = await open_house(SMALL_FILES="direct" if direct else "proxy")
    await house.know_small_file()
    house.bot_api.answers["otherwise"] = misbehaviour
    seen = [str(headers) + repr(body) for _, headers, body in await crawl(house)]
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": "documents/file_1.mp4"}})
    await house.know_small_file()
    for path in (f"/files/{CHAT_ID}/7", f"/files/{CHAT_ID}/7?download=1"):
        async with house.owner.get(path, allow_redirects=False) as response:
            assert response.status == 307
            seen.append(str(response.headers) + repr(await response.read()))
    assert sum(BOT_SECRET in asked for asked in house.bot_api.asked) > 3
    assert [text for text in seen if BOT_SECRET in text] == []
    plain = logging.Formatter()
    lines = [plain.format(record) for record in caplog.records if record.name != "played"]
    assert any("Bot API" in line or "direct" in line for line in lines)
    assert [line for line in lines if BOT_SECRET in line] == []


async def crawl(house: House) -> list[tuple[str, Any, bytes]]:
    """What owner and stranger get at every door of one file."""
    share = await house.share()
    paths = [
        *("/", "/sign-in", "/health", "/nothing", "/api/files", "/api/channels", "/api/shares"),
        *(f"/api/files/{CHAT_ID}/7", f"/api/files/{CHAT_ID}/7/url"),
        *(f"/api/files/{CHAT_ID}/7/url?portable=1", f"/files/{CHAT_ID}/7"),
        *(f"/v/{share}", f"/v/{share}/poster", f"/embed/{share}", f"/m3u/{share}"),
        *(f"/api/share/{share}/url", f"/oembed?url={house.owner.make_url('/')}v/{share}"),
    ]
    found = []
    for client in (house.owner, house.stranger):
        for path in paths:
            async with client.get(path, headers=HTML, allow_redirects=False) as response:
                found.append((path, response.headers, await response.read()))
    return found


async def test_direct_gives_the_bots_token_to_the_owner_alone(open_house: StartHouse) -> None:
    house = await open_house(SMALL_FILES="direct")
    await house.know_small_file()
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": "documents/file_1.mp4"}})
    async with house.owner.get(f"/api/files/{CHAT_ID}/7/url") as response:
        assert BOT_SECRET in (await response.json())["url"]
        assert response.headers["Cache-Control"] == "no-store"
    for path, headers, body in await crawl(house):
        is_owners = path.startswith(f"/api/files/{CHAT_ID}/7/url") and b'"url"' in body
        assert is_owners or BOT_SECRET not in str(headers) + repr(body), path


def test_logs_are_one_line_a_record_and_without_secrets() -> None:
    formatter = SafeFormatter([BOT_SECRET])

    def record(message: str, *values: object, error: BaseException | None = None) -> str:
        info = None if error is None else (type(error), error, None)
        made = logging.LogRecord("name", logging.INFO, "path", 1, message, values, info)
        return formatter.format(made)

    forged = record("a %s", "b\n2026-11-23 20:15:00,123 INFO c\r\x1b[31m\u2028\u202e")
    assert len(forged.splitlines()) == 1
    assert not re.search("[\x00-\x1f\u202e]", forged)
    told = record("it %s", "failed", error=ValueError(f"https://x/bot1:{BOT_SECRET}/y\nINFO z"))
    assert "ValueError" in told
    assert BOT_SECRET not in told
    assert all(line.startswith("  ") for line in told.splitlines()[1:])
    token = session_token(JWT_SECRET, PASSWORD, 1)
    assert token.partition(".")[0] not in record("GET /?token=%s HTTP/1.1", token)


# -- Names ---------------------------------------------------------------------------------------

TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
SPECIAL = "\r\n\t\0\x1b\x7f\x85\u2028\"'<>&;,%/\\.:?#$={}`@ "
# A list, since an alphabet of `st.text` that mixes strategies makes the special ones rare.
hostile_text = st.lists(
    st.one_of(
        st.characters(),  # halves of characters too
        st.sampled_from(TURNING),
        st.sampled_from(SPECIAL),
    ),
    max_size=40,
).map("".join)
NASTY_NAMES = [
    '"><script>alert(1)</script>.mp4',
    "a\r\nSet-Cookie: x=y\r\n\r\n<h1>.mp4",
    "\n#EXTINF:1,x\nfile:///etc/passwd\n.mp4",
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "..",
    "//evil.example/x.mp4",
    "https://evil.example/x.mp4?a#b",
    "invoice\u202egpj.exe",
    "\u2066\u200f\u202d.mp4",
    "half \ud800 a character.mp4",
    "nul\0byte.mp4",
    "${static}$$ %s {0} {{x}}.mp4",
    "é" * 2000 + ".mp4",
    "",
]


@given(hostile_text, hostile_text)
def test_names_and_captions_come_in_as_plain_text(name: str, caption: str) -> None:
    file = MediaFile.from_listing(listed(name=name * 100, caption=caption, mime_type=name))
    for text in (file.name, file.mime_type, file.caption):
        text.encode()
        assert not set(TURNING) & set(text)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
    assert "\n" not in file.name + file.mime_type
    assert len(file.name) <= NAME_MAX_CHARACTERS
    title = title_of(file)
    assert title.strip()
    assert title.isprintable()


@given(hostile_text)
def test_no_name_leaves_its_place_in_a_header_or_a_path(name: str) -> None:
    file = MediaFile.from_listing(listed(name=name))
    for given_name in (file.name, name.encode("utf-8", "replace").decode()):
        header = content_disposition(given_name, as_download=True)
        pattern = r"attachment; filename=\"([^\"\\]*)\"(; filename\*=UTF-8''([\w%.~-]*))?"
        found = re.fullmatch(pattern, header, re.ASCII)
        assert found
        written = found[1] if found[3] is None else unquote(found[3])
        assert written.isprintable()
        assert not set("/\\") & set(written)
    segment = path_segment(file.name)
    assert re.fullmatch(r"(/[\w%.~-]+)?", segment, re.ASCII)
    assert not re.search("%2f|%5c", segment, re.IGNORECASE)  # some proxies undo these
    joined = URL("https://w.example").join(URL(f"/stream/1/2{segment}", encoded=True))
    assert joined.raw_parts[:4] == ("/", "stream", "1", "2")
    assert len(joined.raw_parts) <= 5


@pytest.mark.parametrize("name", NASTY_NAMES, ids=range(len(NASTY_NAMES)))
async def test_no_name_does_harm_at_any_door(house: House, name: str) -> None:
    house.list(listed(70, name=name, caption=name))
    share = await house.share(70)
    base = f"{house.owner.make_url('/')}"
    for path in (f"/embed/{share}", "/"):
        async with house.owner.get(path, headers=HTML) as response:
            page = await response.text()
        assert "<script>alert" not in page
        assert Inline(page).found == []
        assert not set(TURNING) & set(page)
    async with house.stranger.get(f"/m3u/{share}") as response:
        lines = (await response.text()).split("\n")
        assert [line[:8] for line in lines] == ["#EXTM3U", "#EXTINF:", base[:8], ""]
        assert lines[2] == f"{base}v/{share}"
        assert not set(TURNING) & set("".join(lines))
        assert "Set-Cookie" not in response.headers
    async with house.stranger.get("/oembed", params={"url": f"{base}v/{share}"}) as response:
        described = await response.json()
        assert response.content_type == "application/json"
        assert described["title"].isprintable()
        tags = re.findall(r"<[^>]*>", described["html"])
        assert [tag[:8] for tag in tags] == ["<iframe ", "</iframe"]
    async with house.owner.get("/api/files") as response:
        files = (await response.json())["files"]
    for file in files:
        assert not set(TURNING + "\r\0\x1b") & set(file["name"] + file["caption"])
    async with house.stranger.get(f"/v/{share}", allow_redirects=False) as response:
        location = response.headers["Location"]
        path = re.escape(f"{house.worker_url}/stream/{CHAT_ID}/70")
        assert re.fullmatch(rf"{path}(/[\w%.~-]+)?\?token=[\w.&=-]+", location, re.ASCII)


async def has_file(house: House, message_id: int) -> bool:
    return await house.owner.app[CATALOGUE].index.find(CHAT_ID, message_id) is not None


@pytest.mark.parametrize("name", NASTY_NAMES, ids=range(len(NASTY_NAMES)))
async def test_no_name_does_harm_to_a_small_file(house: House, name: str) -> None:
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": "documents/file_1.mp4"}})
    house.bot_api.say("file_1.mp4", SMALL)
    await house.know_small_file(9, file_name=name)
    async with house.owner.get(f"/api/files/{CHAT_ID}/9/url") as response:
        url = (await response.json())["url"]
    async with house.owner.get(URL(url, encoded=True), allow_redirects=False) as response:
        assert (response.status, await response.read()) == (200, SMALL)
        assert "Set-Cookie" not in response.headers
        assert re.fullmatch(r"[ -~]+", response.headers["Content-Disposition"])


# -- What Telegram says --------------------------------------------------------------------------


async def test_the_webhooks_secret_is_compared_in_constant_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return given == right

    monkeypatch.setattr("hmac.compare_digest", compare)
    right = webhook_secret(JWT_SECRET, BOT_TOKEN)
    for secret, expected in (("wrong", 403), (right[:-1], 403), (right, 200)):
        headers = {"X-Telegram-Bot-Api-Secret-Token": secret}
        found = await status(house.stranger, "/telegram/webhook", "POST", json={}, headers=headers)
        assert found == expected
    assert [(b"wrong", right.encode()), (right[:-1].encode(), right.encode())] == compared[:2]
    request = b"POST /telegram/webhook HTTP/1.1\r\nHost: g\r\nConnection: close\r\n"
    request += b"X-Telegram-Bot-Api-Secret-Token: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}"
    assert (await raw_answer(house.stranger, request)).startswith(b"HTTP/1.1 403")


NESTED = b"[" * 100_000
ODD_ANSWERS: list[Any] = [
    True,
    5,
    "text",
    {"a": 1},
    [5],
    [None],
    [{}],
    [{"update_id": "x"}],
    [{"update_id": float("inf")}],
    [{"update_id": float("nan")}],
    [{"update_id": [1]}],
]
ODD_POSTS: list[Any] = [
    None,
    [],
    "text",
    {},
    {"chat": None, "message_id": 1},
    {"chat": {"id": [1]}, "message_id": 1},
    {"chat": {"id": CHAT_ID}, "message_id": 10**30},
    {"chat": {"id": CHAT_ID}, "message_id": float("inf")},
    {**channel_post(), "message_id": -1},
    channel_post(file_size=10**30),
    channel_post(file_size=-1),
    channel_post(file_id="\ud800", file_unique_id="\ud800"),
    channel_post(file_name={"a": 1}, mime_type=["x"]),
    {**channel_post(), "date": 10**30},
    {**channel_post(), "document": None},
    {**channel_post(), "photo": []},
    {**channel_post(), "photo": [{"width": "x"}]},
]


async def test_no_update_ends_the_hearing_of_updates(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all that is odd, in one kind of post and in the other, a good one is still heard."""
    monkeypatch.setattr(polling, "RETRY_FIRST_S", 0.0)
    monkeypatch.setattr(polling, "RETRY_MAX_S", 0.01)
    odd = [
        {"update_id": number, kind: post}
        for number, (kind, post) in enumerate(
            (kind, post) for kind in polling.KINDS for post in ODD_POSTS
        )
    ]
    good = {"update_id": 1000, "channel_post": channel_post(70, duration=1e400)}
    rounds = [{"ok": True, "result": answer} for answer in (*ODD_ANSWERS, odd, [good])]
    script: list[Any] = [NESTED, b"", b"\xff", b"null", *rounds]

    async def tell(_: web.Request) -> web.Response:
        body = script.pop(0) if script else {"ok": True, "result": []}
        if not script:
            await asyncio.sleep(0.05)
        return web.Response(body=body if isinstance(body, bytes) else json.dumps(body).encode())

    house.bot_api.answers["getUpdates"] = tell
    async with asyncio.timeout(10):
        # The poll in use was answered with an error and rests; a new one starts at once.
        await house.owner.app[updates.UPDATES].close()
        house.owner.app[updates.UPDATES].start()
        await until(lambda: has_file(house, 70))
    async with house.owner.get(f"/api/files/{CHAT_ID}/70") as response:
        assert (await response.json())["duration"] is None


@pytest.mark.parametrize("body", [NESTED, b"", b"\xff", b"5", b'{"channel_post": [[]]}'])
async def test_an_odd_post_to_the_webhook_is_taken_and_forgotten(house: House, body: bytes) -> None:
    headers = {
        "X-Telegram-Bot-Api-Secret-Token": webhook_secret(JWT_SECRET, BOT_TOKEN),
        "Content-Type": "application/json; charset=klingon",
    }
    path = "/telegram/webhook"
    assert await status(house.stranger, path, "POST", data=body, headers=headers) == 200


PATHS = [
    "documents/../../../secret",
    "..",
    "/etc/passwd",
    "//{elsewhere}/x",
    "\\\\{elsewhere}\\x",
    "http://{elsewhere}/x",
    "@{elsewhere}/x",
    ":80@{elsewhere}/x",
    "x?y=http://{elsewhere}",
    "x#y",
    "%2e%2e/%2e%2e/x",
    "x\r\nHost: {elsewhere}\r\n\r\n",
    "half \ud800",
    "x\0y",
    "é/ü",
    5,
    None,
    ["a"],
]


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("mode", ["proxy", "direct"])
async def test_no_file_path_leads_to_another_place(
    open_house: StartHouse, mode: str, path: Any
) -> None:
    house = await open_house(SMALL_FILES=mode)
    await house.know_small_file()
    if isinstance(path, str):
        path = path.replace("{elsewhere}", house.elsewhere_url.partition("://")[2])
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": path}})
    before = len(house.bot_api.asked)
    assert await status(house.owner, f"/files/{CHAT_ID}/7") == 307  # the worker has it
    async with house.owner.get(f"/api/files/{CHAT_ID}/7/url") as response:
        url = URL((await response.json())["url"], encoded=True)
    root = f"/file/bot{BOT_TOKEN}/"
    if mode == "direct" and url.host and str(url.origin()) != house.worker_url:
        assert str(url.origin()) == house.bot_api_url
        assert url.raw_path.startswith(root)
        assert not url.raw_query_string + url.raw_fragment
    asked = [each for each in house.bot_api.asked[before:] if "/file/" in each]
    for each in asked:
        assert each.startswith(root)
        assert not re.search(r"[?#\\]|\.\.|%2e", each.removeprefix(root), re.IGNORECASE)
    assert house.elsewhere.asked == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_nobody_leads_us_on_to_another_place(house: House, code: int) -> None:
    await house.know_small_file()
    location = {"Location": f"{house.elsewhere_url}/x"}
    house.elsewhere.say("x", {"ok": True, "result": {"file_path": "x"}, "files": [], "next": None})
    house.bot_api.say("getFile", {}, code, location)
    assert await status(house.owner, f"/files/{CHAT_ID}/7") == 307
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": "file_1.mp4"}})
    house.bot_api.say("file_1.mp4", b"", code, location)
    assert await status(house.owner, f"/files/{CHAT_ID}/7") == 307
    house.worker.say(str(CHAT_ID), {}, code, location)
    async with house.owner.get(f"/api/files/{CHAT_ID}/70") as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "worker_redirects"
    assert len(house.bot_api.asked) > 3
    assert house.elsewhere.asked == []


# -- What a worker says --------------------------------------------------------------------------


NO_NUMBERS: list[Any] = [float("inf"), float("nan"), 10**30, -(10**30), "x", None, [], {}]
BAD_LISTINGS: list[Any] = [
    b"",
    b"no JSON",
    b"\xff\xfe",
    NESTED,
    None,
    [],
    {"files": 5, "next": None},
    {"files": [None], "next": None},
    {"files": [], "next": float("inf")},
    {"files": [], "next": -1},
    {"files": [], "next": 10**30},
    {"files": [], "next": {}},
    {"files": [{}], "next": None},
    *(
        {"files": [listed(70, **{field: value})], "next": None}
        for field in ("chat_id", "message_id", "size", "date")
        for value in NO_NUMBERS
    ),
    {"files": [listed(0)], "next": None},
    {"files": [listed(70, duration="x")], "next": None},
]


@pytest.mark.parametrize("listing", BAD_LISTINGS, ids=lambda listing: repr(listing)[:60])
async def test_a_listing_of_another_kind_is_a_502_and_the_next_one_is_read(
    house: House, listing: Any
) -> None:
    house.worker.say(str(CHAT_ID), listing)
    async with house.owner.get(f"/api/files/{CHAT_ID}/70") as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "bad_listing"
    house.list(listed(70))
    assert await status(house.owner, f"/api/files/{CHAT_ID}/70") == 200


async def test_measures_that_make_no_sense_are_left_out(house: House) -> None:
    nonsense = (float("nan"), float("inf"), -1, 1e300)
    for number, value in enumerate(nonsense, 70):
        house.list(listed(number, duration=value, width=value, height=value))
        async with house.owner.get(f"/api/files/{CHAT_ID}/{number}") as response:
            assert response.status == 200
            file = json.loads(await response.read(), parse_constant=pytest.fail)
        assert [file[name] for name in ("duration", "width", "height")] == [None] * 3
        share = await house.share(number)
        for door in ("/m3u/{}", "/embed/{}"):
            assert await status(house.stranger, door.format(share)) == 200


@pytest.mark.parametrize("bomb", [False, True], ids=["long", "compressed"])
async def test_an_answer_without_end_is_not_kept(
    house: House, monkeypatch: pytest.MonkeyPatch, bomb: bool
) -> None:
    monkeypatch.setattr(answers, "ANSWER_MAX_BYTES", 1 << 20)
    body = b'{"files": [], "next": null, "x": "' + b"x" * (2 << 20) + b'"}'
    if bomb:
        body = gzip.compress(body)
        house.worker.say(str(CHAT_ID), body, headers={"Content-Encoding": "gzip"})
    else:
        house.worker.say(str(CHAT_ID), body)
    async with house.owner.get(f"/api/files/{CHAT_ID}/70") as response:
        assert response.status == 502
    house.bot_api.say("getFile", {"ok": True, "result": {"file_path": "x" * (2 << 20)}})
    await house.know_small_file()
    assert await status(house.owner, f"/files/{CHAT_ID}/7") == 307


@pytest.mark.parametrize("retry_after", ["9" * 400, "-1", "nan", "x"])
async def test_a_workers_words_are_short_and_its_patience_has_an_end(
    house: House, retry_after: str
) -> None:
    words = {"error": {"message": "wait\r\n2026-11-23 INFO forged \x1b[31m" + "x" * 5000}}
    house.worker.say(str(CHAT_ID), words, 503, {"Retry-After": retry_after})
    async with house.owner.get(f"/api/files/{CHAT_ID}/70") as response:
        assert response.status == 503
        assert 1 <= int(response.headers["Retry-After"]) <= 3600
        message = (await response.json())["error"]["message"]
    assert message.isprintable()
    assert len(message) < 300


# -- Shares --------------------------------------------------------------------------------------


async def test_shares_cannot_be_guessed_from_one_another(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """72 random bits tell two shares of a film apart, and 136 of a keyed hash make them good."""
    made = [await house.share() for _ in range(30)]
    assert len({share[: shares.ID_CHARACTERS] for share in made}) == 30
    assert len({share[-20:] for share in made}) == 30
    compared: list[int] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append(min(len(given), len(right)))
        return given == right

    monkeypatch.setattr("hmac.compare_digest", compare)
    for position in range(0, shares.SHARE_CHARACTERS, 5):
        other = "A" if made[0][position] != "A" else "B"
        garbled = made[0][:position] + other + made[0][position + 1 :]
        assert await status(house.stranger, f"/v/{garbled}") == 404
    assert await status(house.stranger, f"/v/{made[0]}") == 307
    assert min(compared) >= 16


async def test_a_share_in_the_log_opens_nothing_however_it_was_written(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    share = await house.share()
    written = "".join(f"%{ord(c):02x}" if n % 3 else c for n, c in enumerate(share))
    url = URL(f"{house.stranger.make_url('/v/')}{written}", encoded=True)
    async with house.stranger.session.get(url, allow_redirects=False) as response:
        assert response.status == 307
    line = next(line for line in caplog.messages if line.startswith("GET /v/"))
    assert share[: shares.ID_CHARACTERS] in line
    assert share not in unquote(line)


# -- Requests ------------------------------------------------------------------------------------

paths = st.lists(
    st.sampled_from(["/", "//", "\\", ".", "..", "@", ":", "\t", "\n", "\r", " ", "%09", "%2f"])
    | st.sampled_from(["evil.example", "https:", "javascript:", "?", "#", "\ud800", "\u2028", "é"]),
    max_size=6,
).map("".join)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(paths)
async def test_signing_in_never_leads_to_another_site(house: House, path: str) -> None:
    """As browsers read it: tabs and line ends are dropped, a backslash is a slash."""
    query = quote(path.encode("utf-8", "surrogatepass"), safe="")
    headers = {"Cookie": ""}
    response = await house.stranger.post(
        URL(f"/sign-in?next={query}", encoded=True),
        data={"password": PASSWORD},
        headers=headers,
        allow_redirects=False,
    )
    assert response.status == 303
    location = re.sub(r"[\t\n\r]", "", response.headers["Location"]).replace("\\", "/").strip()
    assert re.match(r"/(?!/)", location), location


async def test_what_is_too_large_or_too_slow_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "FORM_PATIENCE_S", 0.1)
    start = b"POST /sign-in HTTP/1.1\r\nHost: g\r\nConnection: close\r\n"
    url = house.stranger.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(start + b"Content-Length: 14\r\n\r\npass")
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
    large = b"a" * (backend.BODY_MAX_BYTES + 1)
    assert await status(house.stranger, "/sign-in", "POST", data=large) == 413
    assert await status(house.owner, "/api/shares", "POST", json=large.decode()) == 413
    squeezed = {"data": gzip.compress(b"a" * (1 << 20)), "headers": {"Content-Encoding": "gzip"}}
    assert await status(house.stranger, "/sign-in", "POST", **squeezed) == 413
    for head in (
        b"GET /%s HTTP/1.1\r\nHost: g\r\n\r\n" % (b"a" * 10_000),
        b"GET / HTTP/1.1\r\nHost: g\r\nX: %s\r\n\r\n" % (b"a" * 10_000),
        b"GET / HTTP/1.1\r\nHost: g\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    ):
        assert (await raw_answer(house.stranger, head)).startswith(b"HTTP/1.0 400")


@pytest.mark.parametrize("body", [NESTED[:10_000], b"", b"5", b"\xff", b'{"chat_id": 1e999}'])
async def test_an_odd_order_is_a_400(house: House, body: bytes) -> None:
    headers = {"Content-Type": "application/json; charset=klingon"}
    assert await status(house.owner, "/api/shares", "POST", data=body, headers=headers) == 400


@pytest.mark.parametrize("extra", [{}, HTML], ids=["script", "person"])
async def test_an_error_of_ours_is_told_without_its_text(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    extra: dict[str, str],
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("text that only the log may have")

    index = house.owner.app[CATALOGUE].index
    monkeypatch.setattr(index, "channels", fail)
    monkeypatch.setattr(index, "find", fail)
    for path in ("/api/channels", f"/api/files/{CHAT_ID}/7", f"/files/{CHAT_ID}/7"):
        async with house.owner.get(path, headers=extra) as response:
            assert response.status == 500
            text = await response.text()
        assert not re.search(r"only the log|Traceback|\.py|RuntimeError", text)
    assert "text that only the log may have" in caplog.text


# -- The process ---------------------------------------------------------------------------------


@asynccontextmanager
async def running_backend(tmp_path: Path, **changes: str) -> AsyncIterator[tuple[str, Path]]:
    """The backend as people start it, here with every debugging aid of Python: address and log."""
    log_path = tmp_path / "log"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONDEVMODE": "1",
        "BOT_TOKEN": BOT_TOKEN,
        "JWT_SECRET": JWT_SECRET,
        "WORKER_URL": "http://127.0.0.1:1",
        "CHANNELS": str(CHAT_ID),
        "GALLERY_PASSWORD": PASSWORD,
        "HOST": "127.0.0.1",
        **changes,
    }
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, backend.__file__, env=environment, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{environment['PORT']}", log_path
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def test_the_process_tells_neither_secrets_nor_versions(
    tmp_path: Path, aiohttp_server: Any, unused_tcp_port: int
) -> None:
    """A Bot API that misbehaves, visitors that speak no HTTP, and a stop while a call is open."""
    played = Played()
    misbehaviours = iter([refuse, lead_away, break_off])

    async def misbehave(request: web.Request) -> web.StreamResponse:
        handler = next(misbehaviours, None)
        if handler is None:
            await asyncio.sleep(60)
            return web.Response()
        return await handler(request)

    played.answers["otherwise"] = misbehave
    server = await play(aiohttp_server, played)
    api_url = str(server.make_url("/")).rstrip("/")
    token = session_token(JWT_SECRET, PASSWORD, time.time())
    port = unused_tcp_port
    requests = [
        b"GET / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: g\r\nConnection: close\r\nAccept: text/html\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: g\r\nCookie: %s\r\n\r\n" % (token.encode() * 40),
        b"GET /files/-1/7?token=%s\xff HTTP/1.1\r\nHost: g\r\n\r\n" % token.encode(),
        b"GET / HTTP/1.1\r\nHost: g\r\nCookie: x=%s\r\nBad\0: 1\r\n\r\n" % token.encode(),
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"HELO %s\r\n\r\n" % token.encode(),
    ]
    async with running_backend(tmp_path, PORT=str(port), BOT_API_URL=api_url) as (url, log_path):
        async with ClientSession() as session:
            await until(lambda: is_up(session, url))
        await until(lambda: is_asked(played, 4))
        for request in requests:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            async with asyncio.timeout(10):
                answer = await reader.read(-1)
            writer.close()
            head = answer.partition(b"\r\n\r\n")[0]
            assert head.startswith(b"HTTP/1."), answer
            assert b"\r\nServer: Rangegram" in head
            assert not re.search(rb"python|aiohttp|traceback", answer, re.IGNORECASE)
    log = log_path.read_text()
    assert "Error handling request" in log
    assert "Traceback" not in log
    for secret in (BOT_SECRET, JWT_SECRET, PASSWORD, token[-40:], token[:30]):
        assert secret not in log


async def is_up(session: ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except OSError:
        return False


async def is_asked(played: Played, times: int) -> bool:
    return len(played.asked) >= times
