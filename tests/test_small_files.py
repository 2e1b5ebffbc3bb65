"""Small files go through the backend: whole, in ranges, and with nobody the wiser about the token.

Goal: what a browser, a player and a stranger get. Method: a real gallery and worker on the pocket
Telegram, both of its doors open; a Bot API host that knows less than Telegram's is played by a few
lines of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from aiohttp import ClientPayloadError, ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from conftest import JWT_SECRET, Stage, StartClient
from test_backend import PASSWORD, environment, error_code, get_json, sign_in
from yarl import URL

import backend
from gallery import small_files
from gallery.bot_api import DOWNLOAD_BYTES_MAX, BotApi, BotApiError
from gallery.catalogue import CATALOGUE
from gallery.database import Database
from gallery.files import MediaFile
from gallery.http_file import (
    ByteRange,
    RangeNotSatisfiableError,
    content_disposition,
    file_headers,
    parse_range,
)
from gallery.index import SCHEMA, BotFile, Index
from gallery.settings import SETTINGS, Settings, SettingsError
from gallery.small_files import SmallFiles
from gallery.tokens import file_token, small_file_token
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import Document, Post

SIZE = 300_000

Gallery = TestClient[Any, Any]
StartGallery = Callable[..., Awaitable[Gallery]]


def content_of(post: Post) -> bytes:
    assert isinstance(post.media, Document)
    return post.media.content.read(0, post.media.content.size)


async def open_gallery(start: StartClient, **changes: str) -> Gallery:
    settings = Settings.from_env(environment(**changes))
    app = await asyncio.to_thread(backend.create_app, settings)
    return await start(app, server_kwargs={"handler_cancellation": True})


@pytest.fixture
def open_films(
    stage: Stage, viewer: Gallery, bot_api: BotApiServer, aiohttp_client: StartClient
) -> StartGallery:
    """Opens a gallery of the stage's channel with worker and Bot API."""

    async def start(**changes: str) -> Gallery:
        on_stage = {
            "WORKER_URL": str(viewer.make_url("/")),
            "BOT_TOKEN": stage.bot.token,
            "BOT_API_URL": bot_api.url,
            "CHANNELS": str(stage.channel.chat_id),
        }
        return await open_gallery(aiohttp_client, **{**on_stage, **changes})

    return start


async def signed(gallery: Gallery, post: Post, query: str = "") -> dict[str, Any]:
    """What the gallery says of a post's URL, once it knows of the post from the Bot API."""
    (chat_id,) = gallery.app[SETTINGS].channels
    async with asyncio.timeout(10):
        while await gallery.app[CATALOGUE].index.bot_file(chat_id, post.id) is None:
            await asyncio.sleep(0.01)
    return await get_json(gallery, f"/api/files/{chat_id}/{post.id}/url{query}")


async def small_url(gallery: Gallery, post: Post, query: str = "") -> URL:
    body = await signed(gallery, post, query)
    assert body["via"] == "bot_api"
    return gallery.make_url("/").join(URL(body["url"], encoded=True))


# -- Which way -----------------------------------------------------------------------------------


async def test_small_files_come_through_the_backend_and_large_ones_from_the_worker(
    stage: Stage, open_films: StartGallery
) -> None:
    small = stage.post_synthetic(DOWNLOAD_BYTES_MAX, file_name="Ein Film: é?.mp4")
    large = stage.post_synthetic(DOWNLOAD_BYTES_MAX + 1)
    films = await open_films()
    before = time.time()
    body = await signed(films, small)
    assert before + 3599 <= body.pop("expires_at") <= time.time() + 3601
    url = body.pop("url")
    assert f"/tracks/{stage.channel.chat_id}/{small.id}?token=" in body.pop("tracks")
    assert url.startswith(
        f"/files/{stage.channel.chat_id}/{small.id}/Ein%20Film%3A%20%C3%A9%3F.mp4?v="
    )
    assert body == {
        "via": "bot_api",
        "name": "Ein Film: é?.mp4",
        "mime_type": "video/mp4",
        "size": DOWNLOAD_BYTES_MAX,
        "hls": None,
        "storyboard": None,
    }
    assert (await signed(films, large))["via"] == "worker"


async def test_without_a_file_id_the_worker_serves_it_whatever_its_size(
    stage: Stage, open_films: StartGallery
) -> None:
    post = stage.post_synthetic(SIZE)
    films = await open_films(BOT_API_URL="http://127.0.0.1:1")
    path = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
    assert (await get_json(films, path))["via"] == "worker"
    url = f"/files/{stage.channel.chat_id}/{post.id}/film.mp4"
    async with films.get(url) as response:
        assert response.status == 200
        assert len(response.history) == 1
        assert await response.read() == content_of(post)


async def test_after_a_failed_attempt_the_worker_gets_a_turn(
    stage: Stage, open_films: StartGallery
) -> None:
    films = await open_films()
    assert (await signed(films, stage.post_synthetic(SIZE), "?attempt=1"))["via"] == "worker"


# -- The answer ----------------------------------------------------------------------------------


async def test_a_whole_file_with_all_that_belongs_to_it(
    stage: Stage, open_films: StartGallery
) -> None:
    post = stage.post_synthetic(SIZE, file_name="é.mp4")
    films = await open_films()
    url = await small_url(films, post)
    async with films.session.get(url) as response:
        assert response.status == 200
        assert await response.read() == content_of(post)
        headers = response.headers
    assert headers["Content-Type"] == "video/mp4"
    assert (
        headers["Content-Disposition"] == "inline; filename=\"_.mp4\"; filename*=UTF-8''%C3%A9.mp4"
    )
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert headers["ETag"] == f'"{url.query["v"]}"'
    assert "Access-Control-Allow-Origin" not in headers
    assert stage.served(post) == 0
    assert post.media is not None
    assert stage.telegram.counters.downloads[post.media.id] == SIZE
    async with films.session.get(url.update_query(download="1")) as response:
        assert response.headers["Content-Disposition"].startswith("attachment;")
    async with films.session.head(url) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, str(SIZE))
        assert response.headers["ETag"] == headers["ETag"]


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-", 0, SIZE),
    ("bytes=1000-1999", 1000, 2000),
    ("bytes=299999-", SIZE - 1, SIZE),
    ("bytes=200000-999999", 200_000, SIZE),
    ("bytes=-1", SIZE - 1, SIZE),
    ("bytes=-999999", 0, SIZE),
    (" BYTES = 5 - 9 ", 5, 10),
    ("bytes=00000000000000000000000000000001-2", 1, 3),
]
WHOLE = ["bytes=2-1", "bytes=-", "bytes=a-b", "bytes=0-1,5-6", "lines=1-2", "bytes", "bytes=0-1,"]
BEYOND = ["bytes=300000-", "bytes=300000-300001", "bytes=-0", "bytes=" + "9" * 500 + "-"]


@pytest.fixture(params=["as told", "host without ranges"])
async def url_of_film(
    request: pytest.FixtureRequest,
    stage: Stage,
    bot_api: BotApiServer,
    open_films: StartGallery,
    aiohttp_server: Callable[..., Awaitable[TestServer]],
) -> tuple[Gallery, URL, Post]:
    """A gallery, a URL of a small film in it, and the film's post."""
    changes = {}
    if request.param == "host without ranges":
        changes["BOT_API_URL"] = await play_host(aiohttp_server, bot_api, ranges=False)
    films = await open_films(**changes)
    post = stage.post_synthetic(SIZE)
    return films, await small_url(films, post), post


async def play_host(
    start: Callable[..., Awaitable[TestServer]],
    bot_api: BotApiServer,
    *,
    ranges: bool = True,
    size: int | None = None,
    cut_at: int | None = None,
) -> str:
    """A Bot API that passes on what it is asked, but for files, which it serves in its own way."""

    async def pass_on(request: web.Request) -> web.Response:
        # Polls are short here, because the end of the test waits for them.
        arguments = {**await request.json(), "timeout": 1}
        async with (
            ClientSession() as session,
            session.post(f"{bot_api.url}{request.path}", json=arguments) as answer,
        ):
            return web.json_response(await answer.json(), status=answer.status)

    async def serve(request: web.Request) -> web.StreamResponse:
        headers = {"Range": request.headers["Range"]} if ranges else {}
        async with (
            ClientSession() as session,
            session.get(f"{bot_api.url}{request.path}", headers=headers) as answer,
        ):
            body = await answer.read()
        response = web.StreamResponse(status=answer.status)
        if "Content-Range" in answer.headers:
            response.headers["Content-Range"] = answer.headers["Content-Range"]
        response.content_length = size or len(body)
        await response.prepare(request)
        await response.write(body[:cut_at])
        if cut_at is not None and request.transport is not None:
            request.transport.close()
        return response

    app = web.Application()
    app.router.add_post("/bot{token}/{method}", pass_on)
    app.router.add_get("/file/bot{token}/{path:.+}", serve)
    return str((await start(app)).make_url("/")).rstrip("/")


async def test_ranges(url_of_film: tuple[Gallery, URL, Post]) -> None:
    films, url, post = url_of_film
    for header, start, stop in RANGES:
        async with films.session.get(url, headers={"Range": header}) as response:
            assert response.status == 206, header
            assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
            assert response.headers["Content-Length"] == str(stop - start)
            assert await response.read() == content_of(post)[start:stop], header
    for header in WHOLE:
        async with films.session.get(url, headers={"Range": header}) as response:
            assert response.status == 200, header
            assert await response.read() == content_of(post), header
    for header in BEYOND:
        async with films.session.get(url, headers={"Range": header}) as response:
            assert response.status == 416, header
            assert response.headers["Content-Range"] == f"bytes */{SIZE}"
            assert response.headers["Cache-Control"] == "no-store"


async def test_only_what_is_asked_for_is_fetched(stage: Stage, open_films: StartGallery) -> None:
    post = stage.post_synthetic(4 << 20)
    films = await open_films()
    async with films.session.get(
        await small_url(films, post), headers={"Range": "bytes=1000000-1000999"}
    ) as response:
        assert len(await response.read()) == 1000
    assert post.media is not None
    assert stage.telegram.counters.downloads[post.media.id] == 1000


async def test_conditional_requests(stage: Stage, open_films: StartGallery) -> None:
    films = await open_films()
    url = await small_url(films, stage.post_synthetic(SIZE))
    tag = f'"{url.query["v"]}"'
    for header, value, status in [
        ("If-None-Match", tag, 304),
        ("If-None-Match", f'"other", W/{tag}', 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", '"other"', 206),
        ("If-Range", tag, 206),
        ("If-Range", f"W/{tag}", 200),
        ("If-Range", '"other"', 200),
        ("If-Range", "Mon, 23 Nov 2026 07:00:00 GMT", 200),
    ]:
        headers = {"Range": "bytes=0-9", header: value}
        async with films.session.get(url, headers=headers) as response:
            assert response.status == status, (header, value)
            assert response.headers["ETag"] == tag
            assert len(await response.read()) == {304: 0, 206: 10, 200: SIZE}[status]


async def test_another_file_in_the_post_is_another_url_and_the_old_one_is_checked_again(
    stage: Stage, open_films: StartGallery
) -> None:
    post = stage.post_synthetic(SIZE)
    films = await open_films()
    before = await small_url(films, post)
    media = replace(
        stage.telegram.world.new_document(SyntheticContent(SIZE, seed=99), "video/mp4"),
        file_name="film.mp4",
    )
    edited = stage.telegram.world.edit(post, media=media)
    async with asyncio.timeout(10):
        while (after := await small_url(films, post)) == before:
            await asyncio.sleep(0.01)
    assert after.path == before.path
    async with films.session.get(before) as response:
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert await response.read() == content_of(edited)


@pytest.mark.parametrize(
    ("mime_type", "name", "is_shown"),
    [
        ("video/mp4", "a.mp4", True),
        ("image/jpeg", "a.jpg", True),
        ("text/plain", "a.txt", True),
        ("text/html", "a.html", False),
        ("image/svg+xml", "a.svg", False),
        ("text/javascript", "a.js", False),
        ("application/xhtml+xml", "a.xhtml", False),
        ("image/any+xml", "a.jpg", False),
        ("video/any+xml", "a.mp4", False),
        ("text/html; x=video/mp4", "a", False),
        ("video/mp4\r\nX: y", "a", False),
    ],
)
def test_nothing_posted_acts_in_the_gallerys_name(
    mime_type: str, name: str, is_shown: bool
) -> None:
    file = MediaFile(-1, 1, name, mime_type, 1, 1, None, None, None, "", False)
    headers = file_headers(file, as_download=False)
    assert headers["Content-Disposition"].startswith("inline" if is_shown else "attachment")
    assert ("sandbox" in headers.get("Content-Security-Policy", "")) != is_shown
    assert all("\n" not in value for value in headers.values())


async def test_the_sandbox_replaces_the_pages_own_policy(
    stage: Stage, open_films: StartGallery
) -> None:
    post = stage.post_synthetic(SIZE, file_name="a.html", mime_type="text/html")
    films = await open_films()
    async with films.session.get(await small_url(films, post)) as response:
        assert response.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        (None, 0, None),
        ("bytes=0-", 10, ByteRange(0, 10)),
        ("bytes=-5", 3, ByteRange(0, 3)),
        ("bytes=٣-٤", 10, None),
    ],
)
def test_parse_range(header: str | None, size: int, expected: ByteRange | None) -> None:
    assert parse_range(header, size) == expected


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_no_range_of_an_empty_file_can_be_had(header: str) -> None:
    with pytest.raises(RangeNotSatisfiableError):
        parse_range(header, 0)


def test_names_cannot_break_out_of_their_header() -> None:
    assert content_disposition('a"b\\c\r\nd.mp4', as_download=True) == (
        "attachment; filename=\"a_b cd.mp4\"; filename*=UTF-8''a%22b%20cd.mp4"
    )


# -- Who may -------------------------------------------------------------------------------------


async def test_a_small_file_is_for_whoever_is_signed_in(
    stage: Stage, open_films: StartGallery
) -> None:
    films = await open_films(GALLERY_PASSWORD=PASSWORD)
    post = stage.post_synthetic(SIZE)
    path = f"/files/{stage.channel.chat_id}/{post.id}/film.mp4"
    async with films.get(path, allow_redirects=False) as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "sign_in_required"
    await sign_in(films, PASSWORD)
    async with films.session.get(await small_url(films, post)) as response:
        assert await response.read() == content_of(post)


async def test_a_portable_url_opens_in_any_player_for_an_hour(
    stage: Stage, open_films: StartGallery
) -> None:
    films = await open_films(GALLERY_PASSWORD=PASSWORD)
    post, other = stage.post_synthetic(SIZE), stage.post_synthetic(SIZE)
    await sign_in(films, PASSWORD)
    body = await signed(films, post, "?portable=1")
    url = URL(body["url"], encoded=True)
    assert url.is_absolute()
    async with ClientSession() as stranger:
        async with stranger.get(url, headers={"Range": "bytes=5-9"}) as response:
            assert response.status == 206
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "immutable" not in response.headers["Cache-Control"]
            assert await response.read() == content_of(post)[5:10]
        async with stranger.get(str(url).replace(f"/{post.id}/", f"/{other.id}/")) as response:
            assert response.status == 401


@pytest.mark.parametrize("kind", ["expired", "worker's", "forged", "empty"])
async def test_other_tokens_open_nothing_though_one_is_signed_in(
    stage: Stage, open_films: StartGallery, kind: str
) -> None:
    films = await open_films()
    ids = (stage.channel.chat_id, stage.post_synthetic(SIZE).id)
    token = {
        "expired": small_file_token(JWT_SECRET, *ids, int(time.time()) - 1),
        "worker's": file_token(JWT_SECRET, *ids, time.time()),
        "forged": small_file_token(JWT_SECRET[::-1], *ids, int(time.time()) + 60),
        "empty": "",
    }[kind]
    async with films.get(f"/files/{ids[0]}/{ids[1]}/a.mp4?token={token}") as response:
        assert response.status == 401
        assert response.headers["Cache-Control"] == "no-store"


async def test_the_worker_gets_visitors_for_no_longer_than_their_token_says(
    stage: Stage, open_films: StartGallery, viewer: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_files, "STREAMS_MAX", 0)
    films = await open_films()
    post = stage.post_synthetic(SIZE)
    expires_at = int(time.time()) + 60
    token = small_file_token(JWT_SECRET, stage.channel.chat_id, post.id, expires_at)
    path = f"/files/{stage.channel.chat_id}/{post.id}/film.mp4?download=1&token={token}"
    async with films.get(path, allow_redirects=False) as response:
        assert response.status == 307
        url = URL(response.headers["Location"])
    claims = backend_claims(url.query["token"])
    assert claims["exp"] == expires_at
    async with viewer.session.get(url) as response:
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert await response.read() == content_of(post)


def backend_claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, JWT_SECRET, algorithms=["HS256"], audience="worker")
    return claims


async def test_other_channels_are_not_served(open_films: StartGallery) -> None:
    films = await open_films()
    async with films.get("/files/-1009/7/a.mp4") as response:
        assert response.status == 404


async def test_the_bots_token_reaches_no_browser_and_no_log(
    stage: Stage, open_films: StartGallery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    post = stage.post_synthetic(SIZE)
    films = await open_films()
    seen: list[str] = [
        str(await signed(films, post)),
        str(await signed(films, post, "?portable=1")),
    ]
    url = await small_url(films, post)
    for fault in (None, Fault("error", code=404, method="bot_api.download", times=2)):
        if fault is not None:
            stage.telegram.trouble.plan(fault)
        async with films.session.get(url) as response:
            seen += [str(response.headers), str([each.headers for each in response.history])]
            assert stage.bot.token.encode() not in await response.read()
    secret = stage.bot.token.partition(":")[2]
    assert all(secret not in text for text in seen)
    ours = [
        each.getMessage() for each in caplog.records if each.name.startswith(("gallery", "back"))
    ]
    assert ours
    assert all(secret not in line for line in ours)


# -- Trouble -------------------------------------------------------------------------------------


async def test_what_the_bot_api_refuses_comes_from_the_worker_then_and_afterwards(
    stage: Stage, open_films: StartGallery
) -> None:
    post = stage.post_synthetic(SIZE)
    films = await open_films()
    url = await small_url(films, post)
    stage.telegram.trouble.plan(
        Fault("error", code=400, message="Bad Request: invalid file_id", method="bot_api.getFile")
    )
    async with films.session.get(url, headers={"Range": "bytes=7-9"}) as response:
        assert response.status == 206
        assert [each.status for each in response.history] == [307]
        assert response.history[0].headers["Cache-Control"] == "no-store"
        assert await response.read() == content_of(post)[7:10]
    path = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
    assert (await get_json(films, path))["via"] == "worker"


@pytest.mark.parametrize("method", ["bot_api.getFile", "bot_api.download"])
@pytest.mark.parametrize("kind", ["error", "cut_before"])
async def test_a_failing_bot_api_is_not_noticed(
    stage: Stage, open_films: StartGallery, method: str, kind: Any
) -> None:
    post = stage.post_synthetic(SIZE)
    films = await open_films()
    url = await small_url(films, post)
    stage.telegram.trouble.plan(Fault(kind, code=500, method=method, times=9))
    async with films.session.get(url) as response:
        assert [each.status for each in response.history] == [307]
        assert await response.read() == content_of(post)
    stage.telegram.trouble.faults.clear()
    async with films.session.get(url) as response:
        assert response.history == ()
        assert await response.read() == content_of(post)


async def test_a_wait_that_telegram_asks_for_is_not_waited_for(
    stage: Stage, open_films: StartGallery
) -> None:
    post = stage.post_synthetic(SIZE)
    films = await open_films()
    url = await small_url(films, post)
    stage.telegram.trouble.flood_wait(300, method="bot_api.getFile")
    async with films.session.get(url) as response:
        assert await response.read() == content_of(post)
    assert stage.telegram.counters.methods["bot_api.getFile"] == 1


async def test_a_download_that_breaks_off_goes_on_where_it_was(
    stage: Stage, open_films: StartGallery
) -> None:
    post = stage.post_synthetic(SIZE)
    films = await open_films()
    url = await small_url(films, post)
    stage.telegram.trouble.plan(Fault("cut_during", method="bot_api.download"))
    async with films.session.get(url, headers={"Range": "bytes=100-"}) as response:
        assert response.status == 206
        assert response.history == ()
        assert await response.read() == content_of(post)[100:]
    assert stage.telegram.counters.methods["bot_api.download"] == 2


async def test_a_body_that_cannot_be_finished_never_looks_complete(
    stage: Stage,
    bot_api: BotApiServer,
    open_films: StartGallery,
    aiohttp_server: Callable[..., Awaitable[TestServer]],
) -> None:
    host = await play_host(aiohttp_server, bot_api, ranges=False, cut_at=1000)
    films = await open_films(BOT_API_URL=host)
    url = await small_url(films, stage.post_synthetic(SIZE))
    async with films.session.get(url) as response:
        assert response.status == 200
        with pytest.raises(ClientPayloadError):
            await response.read()


async def test_another_file_under_the_path_is_not_taken_for_ours(
    stage: Stage,
    bot_api: BotApiServer,
    open_films: StartGallery,
    aiohttp_server: Callable[..., Awaitable[TestServer]],
) -> None:
    host = await play_host(aiohttp_server, bot_api, ranges=False, size=SIZE + 1)
    films = await open_films(BOT_API_URL=host)
    post = stage.post_synthetic(SIZE)
    async with films.session.get(await small_url(films, post)) as response:
        assert [each.status for each in response.history] == [307]
        assert await response.read() == content_of(post)


async def test_a_path_that_has_run_out_is_renewed_quietly(
    stage: Stage, open_films: StartGallery, bot_api: BotApiServer
) -> None:
    post = stage.post_synthetic(SIZE)
    films = await open_films()
    url = await small_url(films, post)
    for _ in range(2):
        async with films.session.get(url) as response:
            assert await response.read() == content_of(post)
    assert stage.telegram.counters.methods["bot_api.getFile"] == 1
    bot_api._clock = lambda: time.monotonic() + 3600
    async with films.session.get(url) as response:
        assert response.history == ()
        assert await response.read() == content_of(post)
    assert stage.telegram.counters.methods["bot_api.getFile"] == 2


class ScriptedApi(BotApi):
    """Counts what is asked of it and names a new path each time."""

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, method: str, *, timeout_s: float = 0, **arguments: object) -> Any:
        self.asked += 1
        return {"file_path": f"videos/{arguments['file_id']}_{self.asked}"}

    def file_url(self, file_path: str) -> str:
        return file_path


@pytest.fixture
async def asked() -> AsyncIterator[tuple[ScriptedApi, SmallFiles, list[float]]]:
    """Small files at a played Bot API, and a clock that a test can set."""
    api, now = ScriptedApi(), [0.0]
    index = Index(Database(":memory:", SCHEMA), (-1,))
    await index.open()
    yield api, SmallFiles(api, index, lambda: now[0]), now
    await index.close()


async def test_a_path_is_asked_for_anew_before_its_hour_is_over(
    asked: tuple[ScriptedApi, SmallFiles, list[float]],
) -> None:
    _, files, now = asked
    assert await files.direct_url(BotFile("a", "u")) == ("videos/a_1", 3000)
    now[0] = 2999
    assert await files.direct_url(BotFile("a", "u")) == ("videos/a_1", 1)
    now[0] = 3000
    assert await files.direct_url(BotFile("a", "u")) == ("videos/a_2", 3000)


async def test_no_more_paths_are_remembered_than_fit(
    asked: tuple[ScriptedApi, SmallFiles, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_files, "FILE_PATHS_MAX", 2)
    api, files, _ = asked
    for name in ("a", "b", "a", "c", "a"):
        await files.direct_url(BotFile(name, "u"))
    assert (api.asked, list(files._paths)) == (3, ["c", "a"])


@pytest.mark.parametrize("answer", [None, [], {}, {"file_path": ""}, {"file_path": 5}])
async def test_an_answer_without_a_path_is_trouble(
    asked: tuple[ScriptedApi, SmallFiles, list[float]],
    monkeypatch: pytest.MonkeyPatch,
    answer: object,
) -> None:
    api, files, _ = asked

    async def call(*_: object, **__: object) -> object:
        return answer

    monkeypatch.setattr(api, "call", call)
    with pytest.raises(BotApiError, match="names no path"):
        await files.direct_url(BotFile("a", "u"))


@pytest.mark.parametrize("path", ["/var/lib/telegram/file.mp4", "../../x", "a/../../b"])
async def test_paths_on_the_servers_own_disk_are_not_asked_for(path: str) -> None:
    async with ClientSession() as session:
        with pytest.raises(BotApiError, match="disk"):
            BotApi(session, "http://127.0.0.1:1", "1:a").file_url(path)


# -- Direct --------------------------------------------------------------------------------------


async def test_direct_gives_the_owner_and_nobody_else_the_bot_apis_own_url(
    stage: Stage, open_films: StartGallery, bot_api: BotApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    films = await open_films(SMALL_FILES="direct", GALLERY_PASSWORD=PASSWORD)
    assert "SMALL_FILES=direct" in caplog.text
    post = stage.post_synthetic(SIZE)
    path = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
    assert await error_code(films, path, 401) == "sign_in_required"
    await sign_in(films, PASSWORD)
    body = await signed(films, post)
    assert body["via"] == "bot_api"
    assert body["url"].startswith(f"{bot_api.url}/file/bot{stage.bot.token}/")
    assert time.time() + 2900 < body["expires_at"] <= time.time() + 3001
    async with films.session.get(body["url"]) as response:
        assert await response.read() == content_of(post)
    async with films.get("/") as page:
        assert (
            f"media-src 'self' blob: {films.app[SETTINGS].worker_urls[0]} {bot_api.url};"
            in (page.headers["Content-Security-Policy"])
        )
    messages = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    assert all(stage.bot.token not in message for message in messages)


async def test_direct_falls_back_to_the_worker(stage: Stage, open_films: StartGallery) -> None:
    films = await open_films(SMALL_FILES="direct")
    stage.telegram.trouble.plan(Fault("error", code=500, method="bot_api.getFile"))
    assert (await signed(films, stage.post_synthetic(SIZE)))["via"] == "worker"


def test_proxy_is_the_default_and_a_third_way_is_a_problem() -> None:
    assert Settings.from_env(environment()).small_files == "proxy"
    with pytest.raises(SettingsError, match="SMALL_FILES is not one of proxy, direct"):
        Settings.from_env(environment(SMALL_FILES="redirect"))
