"""The backend's promises: when it refuses to start, whom it lets in, what it signs and lists.

Goal: everything a visitor, an owner or the worker relies on. Method: pure parts by table, the rest
through real sockets; listings come from a real worker on the pocket Telegram, and an absent worker
is a port where nobody listens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, StartClient
from yarl import URL

import backend
from gallery import catalogue
from gallery.files import MediaFile, stream_url
from gallery.index import PAGE_FILES
from gallery.settings import Settings, SettingsError
from gallery.sign_in import (
    ADDRESSES_MAX,
    FAILURES_FORGOTTEN_S,
    PATIENCE_PER_ADDRESS,
    PATIENCE_WITH_EVERYONE,
    SignInGate,
)
from gallery.tokens import (
    SESSION_LIFETIME_S,
    file_token,
    listing_token,
    read_session,
    session_token,
)
from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.renditions import with_qualities
from telegram_simulator.world import Document, PhotoSize

CHAT_ID = -1001234567890
PASSWORD = "correct horse battery"
FILM_BYTES = 300_000

Gallery = TestClient[Any, Any]
StartGallery = Callable[..., Awaitable[Gallery]]


def environment(**changes: str) -> dict[str, str]:
    blank = {
        "BOT_TOKEN": "1:token",
        "JWT_SECRET": JWT_SECRET,
        "WORKER_URL": "http://127.0.0.1:1",
        "CHANNELS": str(CHAT_ID),
        "BOT_API_URL": "http://127.0.0.1:1",
    }
    return {**blank, **changes}


def settings(**changes: str) -> Settings:
    return Settings.from_env(environment(**changes))


def media_file(**changes: Any) -> MediaFile:
    listed = {
        "chat_id": CHAT_ID,
        "message_id": 7,
        "name": "film.mp4",
        "mime_type": "video/mp4",
        "size": 1,
        "date": 1,
        "next": None,
    }
    return MediaFile.from_listing({**listed, **changes})


@pytest.fixture
def start_gallery(aiohttp_client: StartClient) -> StartGallery:
    """Starts a gallery with these settings and gives an HTTP client of it."""

    async def start(**changes: str) -> Gallery:
        # Templates are read from disk, as they are in `main` before there is an event loop.
        app = await asyncio.to_thread(lambda: backend.create_app(settings(**changes)))
        return await aiohttp_client(app)

    return start


@pytest.fixture
async def gallery(start_gallery: StartGallery) -> Gallery:
    """A gallery without a password, whose worker is away."""
    return await start_gallery()


@pytest.fixture
async def locked(start_gallery: StartGallery) -> Gallery:
    """A gallery with a password, whose worker is away."""
    return await start_gallery(GALLERY_PASSWORD=PASSWORD)


@pytest.fixture
def open_films(stage: Stage, viewer: Gallery, start_gallery: StartGallery) -> StartGallery:
    """Opens a gallery of the stage's channel as it is now, with a real worker."""

    async def start(**changes: str) -> Gallery:
        return await start_gallery(**{**on_stage(stage, viewer), **changes})

    return start


def on_stage(stage: Stage, viewer: Gallery) -> dict[str, str]:
    return {"WORKER_URL": str(viewer.make_url("/")), "CHANNELS": str(stage.channel.chat_id)}


async def get_json(gallery: Gallery, path: str, status: int = 200) -> dict[str, Any]:
    async with gallery.get(path) as response:
        body: dict[str, Any] = await response.json()
        assert response.status == status, body
        assert response.headers["Cache-Control"] == "no-store"
        return body


async def error_code(gallery: Gallery, path: str, status: int) -> str:
    code: str = (await get_json(gallery, path, status))["error"]["code"]
    return code


async def names(gallery: Gallery, query: str = "") -> list[str]:
    return [file["name"] for file in (await get_json(gallery, f"/api/files{query}"))["files"]]


# -- Settings ----------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once_by_name_only() -> None:
    wrong = {
        "JWT_SECRET": "short-secret",
        "WORKER_URL": "ftp://private.example",
        "CHANNELS": "-100123,films",
        "GALLERY_PASSWORD": "letmein",
        "PORT": "80800",
    }
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(wrong)
    text = "\n".join(caught.value.problems)
    for name in (*wrong, "BOT_TOKEN"):
        assert name in text
    for value in wrong.values():
        assert value not in text


def test_a_wrong_start_exits_with_2_and_names_the_settings() -> None:
    done = subprocess.run(
        [sys.executable, backend.__file__],
        env={"PATH": os.environ["PATH"], "JWT_SECRET": "short-secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert {line.split()[1] for line in done.stderr.splitlines()} == {
        "BOT_TOKEN",
        "JWT_SECRET",
        "WORKER_URL",
        "CHANNELS",
    }
    assert "short-secret" not in done.stderr


def test_a_taken_port_is_a_clear_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, backend.__file__],
            env={"PATH": os.environ["PATH"], **environment(PORT=port)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_defaults() -> None:
    chosen = settings(RENDER_EXTERNAL_URL="https://films.example/", BOT_API_URL="")
    assert (chosen.host, chosen.port) == ("127.0.0.1", 8080)
    assert chosen.bot_api_url == "https://api.telegram.org"
    assert chosen.public_url == "https://films.example"
    assert settings(GALLERY_PASSWORD=PASSWORD).host == "0.0.0.0"


def test_several_workers_and_channels() -> None:
    chosen = settings(WORKER_URL="https://a.example/, http://b.example:81", CHANNELS="-1001, -1002")
    assert chosen.worker_urls == ("https://a.example", "http://b.example:81")
    assert chosen.channels == (-1001, -1002)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "films.example"])
def test_without_a_password_the_gallery_is_not_opened_to_others(host: str) -> None:
    with pytest.raises(SettingsError, match=r"HOST .* needs a GALLERY_PASSWORD"):
        settings(HOST=host)
    assert settings(HOST=host, GALLERY_PASSWORD=PASSWORD).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_without_a_password_any_loopback_address_will_do(host: str) -> None:
    assert settings(HOST=host).host == host


@pytest.mark.parametrize(
    "url", ["worker.example", "http://", "http://a:b@c.example", "http://c.example:0", "http://["]
)
def test_worker_urls_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="WORKER_URL"):
        settings(WORKER_URL=url)


def test_a_list_of_commas_is_missing() -> None:
    with pytest.raises(SettingsError, match="CHANNELS is missing"):
        settings(CHANNELS=" , ")


def test_settings_do_not_show_their_secrets() -> None:
    text = repr(settings(GALLERY_PASSWORD=PASSWORD))
    assert JWT_SECRET not in text
    assert PASSWORD not in text
    assert "1:token" not in text


# -- Tokens ------------------------------------------------------------------------------------


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        token,
        JWT_SECRET,
        algorithms=["HS256"],
        audience="worker",
        options={"verify_exp": False, "verify_iat": False},
    )
    return claims


def test_a_file_token_is_what_the_worker_expects() -> None:
    assert claims_of(file_token(JWT_SECRET, CHAT_ID, 7, 1_000.9)) == {
        "iss": "backend",
        "aud": "worker",
        "sub": f"{CHAT_ID}/7",
        "iat": 1000,
        "exp": 4600,
    }


def test_a_listing_token_opens_no_file() -> None:
    claims = claims_of(listing_token(JWT_SECRET, CHAT_ID, 1_000))
    assert (claims["sub"], claims["scope"]) == (str(CHAT_ID), "list")


def test_a_session_ends_with_its_password_its_secret_and_its_time() -> None:
    now = time.time()
    token = session_token(JWT_SECRET, PASSWORD, now)
    assert read_session(JWT_SECRET, PASSWORD, token)
    assert not read_session(JWT_SECRET, "another password", token)
    assert not read_session(JWT_SECRET[::-1], PASSWORD, token)
    old = session_token(JWT_SECRET, PASSWORD, now - SESSION_LIFETIME_S - 1)
    assert not read_session(JWT_SECRET, PASSWORD, old)


def test_a_worker_token_is_no_session() -> None:
    token = file_token(JWT_SECRET, CHAT_ID, 7, time.time())
    assert not read_session(JWT_SECRET, PASSWORD, token)
    assert not read_session(JWT_SECRET, PASSWORD, "")


# -- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("film.mp4", "/film.mp4"),
        ("a b?c#d%.mp4", "/a%20b%3Fc%23d%25.mp4"),
        ("Ночь.mp4", "/%D0%9D%D0%BE%D1%87%D1%8C.mp4"),
        ("../../etc/passwd", "/.._.._etc_passwd"),
        ("..", ""),
        ("", ""),
    ],
)
def test_a_stream_url_ends_in_the_name_and_never_climbs(name: str, segment: str) -> None:
    url = stream_url("http://w", media_file(name=name), "t")
    assert url == f"http://w/stream/{CHAT_ID}/7{segment}?token=t"


@pytest.mark.parametrize(
    ("mime_type", "name", "kind"),
    [
        ("video/mp4", "a.mp4", "video"),
        ("application/octet-stream", "a.mkv", "video"),
        ("application/octet-stream", "a.FLAC", "audio"),
        ("image/jpeg", "", "image"),
        ("", "a.webp", "image"),
        ("application/pdf", "a.pdf", "document"),
        ("text/plain", "no extension", "document"),
    ],
)
def test_kinds(mime_type: str, name: str, kind: str) -> None:
    assert media_file(mime_type=mime_type, name=name).kind == kind


# -- Pages and headers -------------------------------------------------------------------------


async def test_the_page_loads_nothing_from_elsewhere(gallery: Gallery) -> None:
    async with gallery.get("/") as response:
        html = await response.text()
        assert response.status == 200
        assert response.content_type == "text/html"
        policy = response.headers["Content-Security-Policy"]
    # Where the workers are is told to scripts; nothing is loaded from there but films and pictures.
    html = html.replace("http-equiv", "").replace('data-workers="http://127.0.0.1:1"', "")
    assert "http" not in html
    assert "default-src 'none'; script-src 'self'" in policy
    assert "media-src 'self' blob: http://127.0.0.1:1;" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/api/files", "/health", "/static/icon.svg", "/nowhere"])
async def test_every_answer_is_guarded(gallery: Gallery, path: str) -> None:
    async with gallery.get(path) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "Content-Security-Policy" in response.headers


async def test_everything_the_page_names_exists_and_may_be_kept(gallery: Gallery) -> None:
    html = await (await gallery.get("/")).text()
    paths = [part.split('"')[0] for part in html.split('="/static/')[1:]]
    assert len(paths) >= 3
    for path in paths:
        async with gallery.get(f"/static/{path}") as response:
            assert response.status == 200, path
            assert "immutable" in response.headers["Cache-Control"]


async def test_static_files_without_a_version_are_checked_again(gallery: Gallery) -> None:
    async with gallery.get("/static/gallery.js") as response:
        assert response.content_type == "text/javascript"
        assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "000000000000/gallery.js", "../backend.py", "%2e%2e/backend.py", "a/../b"],
)
async def test_static_serves_nothing_else(gallery: Gallery, path: str) -> None:
    url = URL(f"{gallery.make_url('/')}static/{path}", encoded=True)
    async with gallery.session.get(url) as response:
        assert response.status == 404


async def test_people_get_a_page_and_scripts_get_json_when_nothing_is_there(
    gallery: Gallery,
) -> None:
    async with gallery.get("/nowhere", headers={"Accept": "text/html"}) as response:
        assert response.status == 404
        assert "Not found" in await response.text()
    assert await error_code(gallery, "/api/nowhere", 404) == "not_found"


async def test_a_wrong_method_is_told_the_right_one(gallery: Gallery) -> None:
    async with gallery.post("/api/files") as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]


async def test_health_does_not_wait_for_the_worker(gallery: Gallery) -> None:
    assert (await get_json(gallery, "/health"))["status"] == "ok"


async def test_requests_are_logged_without_their_query(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gallery"):
        async with gallery.get("/api/files?query=private&token=private"):
            pass
    assert "GET /api/files -> 503 in" in caplog.text
    assert "private" not in caplog.text


async def test_without_a_password_other_names_for_this_machine_are_refused(
    start_gallery: StartGallery,
) -> None:
    gallery = await start_gallery(PUBLIC_URL="https://films.example")
    for host, status in (("rebound.example", 403), ("films.example", 200), ("localhost:80", 200)):
        async with gallery.get("/", headers={"Host": host}) as response:
            assert response.status == status, host


# -- Sign-in -----------------------------------------------------------------------------------


async def sign_in(gallery: Gallery, password: str, path: str = "/sign-in", **headers: str) -> Any:
    form = {"password": password}
    return await gallery.post(path, data=form, headers=headers, allow_redirects=False)


async def test_strangers_see_the_sign_in_page_and_scripts_a_401(locked: Gallery) -> None:
    async with locked.get(f"/?file={CHAT_ID}/7", allow_redirects=False) as response:
        assert response.status == 303
        target = URL(response.headers["Location"])
        assert (target.path, target.query["next"]) == ("/sign-in", f"/?file={CHAT_ID}/7")
    for path in ("/api/files", f"/api/files/{CHAT_ID}/7", f"/api/files/{CHAT_ID}/7/url"):
        assert await error_code(locked, path, 401) == "sign_in_required"


async def test_the_password_opens_the_gallery_and_leads_back_to_the_deep_link(
    locked: Gallery,
) -> None:
    response = await sign_in(locked, PASSWORD, f"/sign-in?next=%2F%3Ffile%3D{CHAT_ID}%2F7")
    assert response.status == 303
    assert response.headers["Location"] == f"/?file={CHAT_ID}/7"
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Max-Age=2592000" in cookie
    assert "Secure" not in cookie
    assert PASSWORD not in cookie
    async with locked.get("/", allow_redirects=False) as page:
        assert page.status == 200
        assert 'action="sign-out"' in await page.text()


async def test_behind_https_the_cookie_stays_there(locked: Gallery) -> None:
    response = await sign_in(locked, PASSWORD, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in response.headers["Set-Cookie"]


async def test_signing_out_closes_the_gallery(locked: Gallery) -> None:
    await sign_in(locked, PASSWORD)
    async with locked.post("/sign-out", allow_redirects=False) as response:
        assert response.headers["Location"] == "/sign-in"
    assert await error_code(locked, "/api/files", 401) == "sign_in_required"


async def test_a_wrong_password_gets_the_form_again_and_no_cookie(
    locked: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    response = await sign_in(locked, "not the password")
    assert response.status == 403
    assert "That is not the password." in await response.text()
    assert "Set-Cookie" not in response.headers
    assert "not the password" not in caplog.text


async def test_guessing_is_slowed_down_even_for_the_right_password(locked: Gallery) -> None:
    for _ in range(PATIENCE_PER_ADDRESS.free_failures):
        assert (await sign_in(locked, "wrong")).status == 403
    response = await sign_in(locked, PASSWORD)
    assert response.status == 429
    assert int(response.headers["Retry-After"]) >= 1
    assert "Try again in 1 second." in await response.text()


def test_delays_double_and_are_forgotten() -> None:
    now = 0.0
    gate = SignInGate(lambda: now)
    waits = []
    for _ in range(12):
        gate.failed("1.2.3.4")
        waits.append(gate.wait_s("1.2.3.4"))
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert gate.wait_s("5.6.7.8") == 0
    now = 61
    assert gate.wait_s("1.2.3.4") == 0
    now += FAILURES_FORGOTTEN_S
    gate.failed("1.2.3.4")
    assert gate.wait_s("1.2.3.4") == 0


def test_inventing_addresses_does_not_help_and_does_not_lock_the_owner_out() -> None:
    gate = SignInGate(lambda: 0.0)
    for number in range(3_000):
        gate.failed(f"10.0.{number // 250}.{number % 250}")
    assert 0 < gate.wait_s("the owner") <= PATIENCE_WITH_EVERYONE.delay_max_s
    assert len(gate._failures) <= ADDRESSES_MAX


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil", "/a\n", ""]
)
async def test_signing_in_leads_to_no_other_site(locked: Gallery, target: str) -> None:
    path = str(URL("/sign-in").with_query(next=target))
    assert (await sign_in(locked, PASSWORD, path)).headers["Location"] == "/"


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
async def test_forms_of_other_sites_are_refused(locked: Gallery, path: str) -> None:
    response = await sign_in(locked, PASSWORD, path, **{"Sec-Fetch-Site": "cross-site"})
    assert response.status == 403
    assert "Set-Cookie" not in response.headers


async def test_whoever_is_signed_in_is_not_asked_again(locked: Gallery) -> None:
    await sign_in(locked, PASSWORD)
    async with locked.get("/sign-in?next=/x", allow_redirects=False) as response:
        assert response.headers["Location"] == "/x"


async def test_what_a_visitor_sends_is_never_markup(locked: Gallery) -> None:
    async with locked.get("/sign-in?next=/%22%3E%3Cscript%3E") as response:
        assert "<script>" not in await response.text()


# -- Listing without a worker ------------------------------------------------------------------


async def test_an_absent_worker_is_a_503_that_says_when_to_ask_again(gallery: Gallery) -> None:
    async with gallery.get("/api/files") as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert (await response.json())["error"]["code"] == "worker_unreachable"
    assert await error_code(gallery, f"/api/files/{CHAT_ID}/7/url", 503) == "worker_unreachable"


@pytest.mark.parametrize(
    ("query", "code"),
    [("kind=film", "bad_kind"), ("cursor=x", "bad_cursor"), ("cursor=1.2", "bad_cursor")],
)
async def test_bad_queries_are_refused(gallery: Gallery, query: str, code: str) -> None:
    assert await error_code(gallery, f"/api/files?{query}", 400) == code


async def test_other_channels_are_never_signed(gallery: Gallery) -> None:
    assert await error_code(gallery, "/api/files/-1009/7/url", 404) == "file_not_found"


# -- Listing with a real worker on the pocket Telegram -----------------------------------------


async def test_files_are_listed_newest_first_with_all_their_facts(
    stage: Stage, open_films: StartGallery
) -> None:
    picture = PhotoSize("m", 320, 180, BytesContent(b"\xff\xd8picture"))
    stage.post_synthetic(FILM_BYTES, file_name="first.mp4")
    post = stage.post_synthetic(
        FILM_BYTES,
        file_name="second.mp4",
        text="A caption",
        kind="video",
        duration_s=61.5,
        width=1280,
        height=720,
        thumbnails=(picture,),
    )
    films = await open_films()
    body = await get_json(films, "/api/files")
    second, first = body["files"]
    assert body["next"] is None
    assert (first["name"], first["thumbnail"]) == ("first.mp4", None)
    thumbnail = second.pop("thumbnail")
    assert second == {
        "chat_id": stage.channel.chat_id,
        "channel": stage.channel.chat_id,
        "message_id": post.id,
        "name": "second.mp4",
        "kind": "video",
        "mime_type": "video/mp4",
        "size": FILM_BYTES,
        "date": second["date"],
        "duration": 61.5,
        "width": 1280,
        "height": 720,
        "caption": "A caption",
        **dict.fromkeys(("title", "performer", "album", "reply_to", "split")),
        **{"qualities": [], "has_storyboard": False, "parts": []},
    }
    async with films.session.get(thumbnail) as response:
        assert response.status == 200
        assert await response.read() == b"\xff\xd8picture"


async def test_the_signed_url_plays_from_the_worker(stage: Stage, open_films: StartGallery) -> None:
    post = stage.post_synthetic(FILM_BYTES, file_name="Ein Film: 100 %/é.mp4")
    before = time.time()
    path = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
    films = await open_films()
    body = await get_json(films, path)
    url, tracks = (URL(body.pop(name), encoded=True) for name in ("url", "tracks"))
    assert before + 3599 <= body.pop("expires_at") <= time.time() + 3601
    assert body == {
        "via": "worker",
        "name": "Ein Film: 100 %/é.mp4",
        "mime_type": "video/mp4",
        "size": FILM_BYTES,
        "hls": None,
        "storyboard": None,
    }
    async with films.session.get(tracks) as response:
        assert await response.json() == {"type": "video/mp4", "tracks": []}
    async with films.session.get(url, headers={"Range": "bytes=1000-1999"}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes 1000-1999/{FILM_BYTES}"
        assert isinstance(post.media, Document)
        assert await response.read() == post.media.content.read(1000, 1000)


async def test_a_film_in_several_qualities_is_signed_with_their_playlist(
    stage: Stage, film_qualities: Path, open_films: StartGallery
) -> None:
    world = stage.telegram.world
    blank = world.new_document(SyntheticContent(FILM_BYTES), "video/mp4", 4)
    film = replace(blank, kind="video", file_name="film.mp4")
    post = world.post(stage.channel, with_qualities(world, film, film_qualities), "")
    films = await open_films()
    (listed,) = (await get_json(films, "/api/files"))["files"]
    assert listed["qualities"] == [720, 360]
    path = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
    hls = (await get_json(films, path))["hls"]
    assert hls["heights"] == [720, 360]
    grant = URL(hls["url"]).query["renew"]
    claims = jwt.decode(grant, JWT_SECRET, ["HS256"], audience="renewal")
    assert claims["sub"] == f"{stage.channel.chat_id}/{post.id}"
    assert claims["exp"] == hls["expires_at"] <= time.time() + 12 * 3600
    async with films.session.get(URL(hls["url"], encoded=True)) as response:
        assert response.status == 200
        playlist = await response.text()
    assert playlist.count(f"renew={grant}") == playlist.count("#EXT-X-STREAM-INF") == 3


async def test_search_wants_every_word_in_name_or_caption(
    stage: Stage, open_films: StartGallery
) -> None:
    stage.post_synthetic(10, file_name="Amélie (2001).mp4", text="with Audrey Tautou")
    stage.post_synthetic(10, file_name="Metropolis.mp4", text="Fritz Lang")
    films = await open_films()
    assert await names(films, "?query=AMELIE tautou") == ["Amélie (2001).mp4"]
    assert await names(films, "?query=lang amelie") == []
    assert await names(films, "?query=") == ["Metropolis.mp4", "Amélie (2001).mp4"]


async def test_kinds_can_be_chosen(stage: Stage, open_films: StartGallery) -> None:
    stage.post_synthetic(10, file_name="film.mp4")
    stage.post_synthetic(10, file_name="song.mp3", mime_type="audio/mpeg")
    stage.post_synthetic(10, file_name="notes.pdf", mime_type="application/pdf")
    films = await open_films()
    assert await names(films, "?kind=audio") == ["song.mp3"]
    assert await names(films, "?kind=document") == ["notes.pdf"]


async def test_pages_follow_each_other_without_gap_or_repetition(
    stage: Stage, open_films: StartGallery
) -> None:
    count = 2 * PAGE_FILES + 5
    for number in range(count):
        stage.post_synthetic(10, file_name=f"{number}.mp4")
    seen: list[str] = []
    cursor: str | None = ""
    sizes = []
    films = await open_films()
    while cursor is not None:
        page = await get_json(films, f"/api/files?cursor={cursor}")
        seen += [file["name"] for file in page["files"]]
        sizes.append(len(page["files"]))
        cursor = page["next"]
    assert seen == [f"{number}.mp4" for number in reversed(range(count))]
    assert sizes == [60, 60, 5]


async def test_a_new_post_shows_up_by_itself(
    stage: Stage, open_films: StartGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "REFRESH_INTERVAL_S", 0.0)
    stage.post_synthetic(10, file_name="old.mp4")
    films = await open_films()
    assert await names(films) == ["old.mp4"]
    stage.post_synthetic(10, file_name="new.mp4")
    while await names(films) == ["old.mp4"]:
        continue  # an answer may be from before the refresh that it started
    assert await names(films) == ["new.mp4", "old.mp4"]


async def test_the_list_stays_when_the_worker_goes(
    stage: Stage, open_films: StartGallery, viewer: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "REFRESH_INTERVAL_S", 0.0)
    post = stage.post_synthetic(10, file_name="film.mp4")
    films = await open_films()
    assert await names(films) == ["film.mp4"]
    await viewer.close()
    assert await names(films) == ["film.mp4"]
    path = f"/api/files/{stage.channel.chat_id}/{post.id}/url"
    assert "token=" in (await get_json(films, path))["url"]


async def test_a_deep_link_is_found_before_the_channel_is_read(
    stage: Stage, open_films: StartGallery
) -> None:
    stage.post_synthetic(10, file_name="first.mp4")
    post = stage.post_synthetic(10, file_name="second.mp4")
    films = await open_films()
    path = f"/api/files/{stage.channel.chat_id}/{post.id}"
    assert (await get_json(films, path))["name"] == "second.mp4"
    path = f"/api/files/{stage.channel.chat_id}/{post.id + 1}"
    assert await error_code(films, path, 404) == "file_not_found"


async def test_the_second_worker_lists_when_the_first_is_away(
    stage: Stage, viewer: Gallery, open_films: StartGallery
) -> None:
    stage.post_synthetic(10, file_name="film.mp4")
    films = await open_films(WORKER_URL=f"http://127.0.0.1:1,{viewer.make_url('/')}")
    assert await names(films) == ["film.mp4"]


async def test_another_secret_than_the_workers_is_named_as_the_cause(
    open_films: StartGallery,
) -> None:
    films = await open_films(JWT_SECRET="another secret than the worker has, but long")
    body = await get_json(films, "/api/files", 502)
    assert body["error"]["code"] == "worker_refused"
    assert "JWT_SECRET" in body["error"]["message"]


async def test_a_channel_the_bot_cannot_see_does_not_hide_the_others(
    stage: Stage, open_films: StartGallery
) -> None:
    stage.post_synthetic(10, file_name="film.mp4")
    films = await open_films(CHANNELS=f"-1009999999999,{stage.channel.chat_id}")
    assert await names(films) == ["film.mp4"]


def test_the_templates_hold_no_inline_script() -> None:
    for template in Path(backend.FOLDER, "templates").glob("*.html"):
        text = template.read_text("utf-8")
        assert "style=" not in text
        assert text.count("<script") == text.count('<script type="module" src=')
