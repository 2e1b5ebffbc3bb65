"""Share links: what they open, for how long, and to whom nothing else is open.

Goal: a link made by the owner plays that film in anything that plays URLs, outlasts its tokens,
ends when it should, and opens nothing else. Method: links are followed from the gallery to a real
worker on the pocket Telegram, by an HTTP client without cookies; every body is compared with the
content made from its offset. Players have test_players.py, other sites' pages
test_third_party_page.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, StartClient
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

import backend
from gallery import share_store, tokens, visitors
from gallery.files import MediaFile
from gallery.kept import MEMORY
from gallery.presentation import title_of
from gallery.settings import Settings, SettingsError
from gallery.share_store import SHARES_MAX, ShareStore, is_durable
from gallery.shares import (
    DEFAULT_LIFETIME_S,
    ID_CHARACTERS,
    LIFETIME_MAX_S,
    SHARE_CHARACTERS,
    Share,
    new_share,
    read_share,
    write_share,
)
from telegram_simulator.content import BytesContent
from telegram_simulator.world import Document, PhotoSize, Post

PASSWORD = "correct horse battery"
CHAT_ID = -1001234567890
FILM_BYTES = 700_000
HTML = {"Accept": "text/html,application/xhtml+xml"}

Client = TestClient[Any, Any]


@dataclass
class House:
    """A gallery with a password, its worker, its owner, and a visitor without a cookie."""

    stage: Stage
    owner: Client
    visitor: Client

    async def make(self, post: Post, **order: Any) -> dict[str, Any]:
        ids = {"chat_id": self.stage.channel.chat_id, "message_id": post.id}
        async with self.owner.post("/api/shares", json={**ids, **order}) as response:
            assert response.status == 201, await response.text()
            assert response.headers["Cache-Control"] == "no-store"
            made: dict[str, Any] = await response.json()
            return made

    async def listed(self) -> dict[str, Any]:
        async with self.owner.get("/api/shares") as response:
            assert response.status == 200
            body: dict[str, Any] = await response.json()
            return body

    def signed(self, post: Post, ends_in_s: float | None, share_id: str = "A" * 12) -> str:
        """A share as the gallery would have signed it, with any end."""
        end = None if ends_in_s is None else int(time.time() + ends_in_s)
        return write_share(JWT_SECRET, Share(share_id, self.stage.channel.chat_id, post.id, end))

    async def go(self, path: str, *, method: str = "GET", **headers: str) -> ClientResponse:
        """What a visitor gets, not following where it leads."""
        response: ClientResponse = await self.visitor.request(
            method, path, headers=headers, allow_redirects=False
        )
        await response.read()
        return response

    async def location(self, path: str) -> URL:
        response = await self.go(path)
        assert response.status == 307, await response.text()
        return URL(response.headers["Location"], encoded=True)


StartHouse = Callable[..., Awaitable[House]]


@pytest.fixture
def open_house(
    stage: Stage, aiohttp_client: StartClient, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> StartHouse:
    """Opens a gallery on the stage's channel and signs its owner in."""
    # On a busy machine even a worker that is awake may take a second to say a name.
    monkeypatch.setattr(visitors, "NAME_PATIENCE_S", 30.0)

    async def start(**changes: str) -> House:
        environment = {
            **stage.environment(),
            "WORKER_URL": str(viewer.make_url("/")),
            "GALLERY_PASSWORD": PASSWORD,
            **changes,
        }
        settings = Settings.from_env(environment)
        app = await asyncio.to_thread(backend.create_app, settings)
        owner = await aiohttp_client(app)
        visitor = await aiohttp_client(owner.server)
        async with owner.post("/sign-in", data={"password": PASSWORD}) as response:
            assert response.url.path == "/"
        return House(stage, owner, visitor)

    return start


@pytest.fixture
async def film(stage: Stage) -> Post:
    return stage.post_synthetic(
        FILM_BYTES,
        file_name="Metropolis (1927).mp4",
        kind="video",
        duration_s=61.5,
        width=1440,
        height=1080,
    )


@pytest.fixture
async def house(film: Post, open_house: StartHouse) -> House:
    return await open_house()


def content_of(post: Post) -> bytes:
    assert isinstance(post.media, Document)
    return post.media.content.read(0, FILM_BYTES)


def claims_of(token: str, audience: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, JWT_SECRET, ["HS256"], audience=audience)
    return claims


# -- What a share is ---------------------------------------------------------------------------


@given(
    chat_id=st.integers(-(2**63), 2**63 - 1),
    message_id=st.integers(1, 2**31 - 1),
    lifetime_s=st.none() | st.integers(1, LIFETIME_MAX_S),
)
def test_a_share_says_what_was_written(
    chat_id: int, message_id: int, lifetime_s: int | None
) -> None:
    share = new_share(chat_id, message_id, lifetime_s, time.time())
    text = write_share(JWT_SECRET, share)
    assert re.fullmatch(f"[A-Za-z0-9_-]{{{SHARE_CHARACTERS}}}", text)
    assert text.startswith(share.id)
    assert len(share.id) == ID_CHARACTERS
    assert read_share(JWT_SECRET, text) == share


@given(position=st.integers(0, SHARE_CHARACTERS - 1), character=st.sampled_from("AZaz09_-"))
def test_a_share_with_another_character_anywhere_is_none(position: int, character: str) -> None:
    text = write_share(JWT_SECRET, Share("0123456789ab", CHAT_ID, 7, 2_000_000_000))
    other = text[:position] + character + text[position + 1 :]
    assert (read_share(JWT_SECRET, other) is not None) == (other == text)


@pytest.mark.parametrize("change", [str.swapcase, lambda t: t[:-1], lambda t: t + "A", str.strip])
def test_only_the_whole_share_under_the_same_secret_counts(change: Callable[[str], str]) -> None:
    text = write_share(JWT_SECRET, new_share(CHAT_ID, 7, None, 0))
    assert change(text) == text or read_share(JWT_SECRET, change(text)) is None
    assert read_share(JWT_SECRET[::-1], text) is None


@pytest.mark.parametrize("text", ["", "é" * SHARE_CHARACTERS, "=" * SHARE_CHARACTERS, "A" * 56])
def test_what_was_never_signed_is_no_share(text: str) -> None:
    assert read_share(JWT_SECRET, text) is None


def test_no_token_of_another_kind_is_a_share() -> None:
    now = time.time()
    for token in (
        tokens.file_token(JWT_SECRET, CHAT_ID, 7, now),
        tokens.session_token(JWT_SECRET, PASSWORD, now),
        tokens.renewal_grant(JWT_SECRET, CHAT_ID, 7, int(now) + 60),
    ):
        assert read_share(JWT_SECRET, token) is None


# -- Making, seeing and ending them ------------------------------------------------------------


async def test_a_share_is_made_with_all_its_links(house: House, film: Post) -> None:
    made = await house.make(film)
    base = str(house.owner.make_url("/")).rstrip("/")
    assert made["url"] == f"{base}/v/{made['share']}"
    assert made["embed_url"] == f"{base}/embed/{made['share']}"
    assert made["watch_url"] == f"{base}/watch/{made['share']}"
    assert made["m3u_url"] == f"{base}/m3u/{made['share']}"
    assert made["expires_at"] == pytest.approx(time.time() + DEFAULT_LIFETIME_S, abs=3)
    share = read_share(JWT_SECRET, made["share"])
    assert share == Share(made["id"], house.stage.channel.chat_id, film.id, made["expires_at"])


async def test_the_list_has_the_newest_first_and_what_was_revoked(house: House, film: Post) -> None:
    first = await house.make(film, expires_in_s=3600)
    async with house.owner.delete(f"/api/shares/{first['id']}") as response:
        assert response.status == 204
    second = await house.make(film, expires_in_s=None)
    body = await house.listed()
    assert body["durable"] is False  # the tests' database is in memory
    by_id = {share["id"]: share for share in body["shares"]}
    assert set(by_id) == {first["id"], second["id"]}
    assert [by_id[each["id"]]["revoked"] for each in (first, second)] == [True, False]
    assert by_id[second["id"]]["expires_at"] is None
    assert by_id[second["id"]]["created_at"] == pytest.approx(time.time(), abs=3)
    assert by_id[first["id"]]["url"] == first["url"]
    assert {share["name"] for share in body["shares"]} == {"Metropolis (1927)"}


async def test_public_url_is_the_base_of_every_link(film: Post, open_house: StartHouse) -> None:
    house = await open_house(PUBLIC_URL="https://films.example/tv/")
    made = await house.make(film)
    assert made["url"] == f"https://films.example/tv/v/{made['share']}"
    assert "https://films.example/tv/v/" in await (await house.go(f"/m3u/{made['share']}")).text()


async def test_behind_a_proxy_the_links_are_https(house: House, film: Post) -> None:
    share = house.signed(film, None)
    response = await house.go(f"/m3u/{share}", Host="tv.example", **{"X-Forwarded-Proto": "https"})
    assert f"https://tv.example/v/{share}" in await response.text()
    response = await house.go(f"/m3u/{share}", Host="tv.example/evil")
    assert response.status == 400


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"message_id": 1}, 400, "bad_order"),
        ({"chat_id": "-1", "message_id": 1}, 400, "bad_order"),
        ({"chat_id": -1, "message_id": True}, 400, "bad_order"),
        ({"chat_id": -1, "message_id": 2**31}, 400, "bad_order"),
        ([], 400, "bad_order"),
        ({"chat_id": -1, "message_id": 1, "expires_in_s": 0}, 400, "bad_end"),
        ({"chat_id": -1, "message_id": 1, "expires_in_s": 1e9}, 400, "bad_end"),
        ({"chat_id": -1, "message_id": 1, "expires_in_s": LIFETIME_MAX_S + 1}, 400, "bad_end"),
        ({"chat_id": -1009, "message_id": 1}, 404, "file_not_found"),
    ],
)
async def test_orders_that_make_no_share(house: House, order: Any, status: int, code: str) -> None:
    async with house.owner.post("/api/shares", json=order) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == code
    assert (await house.listed())["shares"] == []


async def test_broken_json_and_other_types_are_refused(house: House) -> None:
    kind = {"Content-Type": "application/json"}
    for headers, status in ((kind, 400), ({"Content-Type": "text/plain"}, 415)):
        async with house.owner.post("/api/shares", data=b"{", headers=headers) as response:
            assert response.status == status


async def test_only_the_owner_makes_sees_and_ends_shares(house: House, film: Post) -> None:
    made = await house.make(film)
    for method, path in (
        ("POST", "/api/shares"),
        ("GET", "/api/shares"),
        ("DELETE", f"/api/shares/{made['id']}"),
    ):
        response = await house.go(path, method=method)
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "sign_in_required"
    assert (await house.go(f"/v/{made['share']}")).status == 307


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
)
async def test_pages_of_other_sites_cannot_make_or_end_shares(
    house: House, film: Post, headers: dict[str, str]
) -> None:
    made = await house.make(film)
    ids = {"chat_id": house.stage.channel.chat_id, "message_id": film.id}
    async with house.owner.post("/api/shares", json=ids, headers=headers) as response:
        assert response.status == 403
    async with house.owner.delete(f"/api/shares/{made['id']}", headers=headers) as response:
        assert response.status == 403
    assert (await house.go(f"/v/{made['share']}")).status == 307


async def test_our_own_pages_are_known_without_fetch_metadata(house: House, film: Post) -> None:
    origin = str(house.owner.make_url("/")).rstrip("/")
    ids = {"chat_id": house.stage.channel.chat_id, "message_id": film.id}
    for sender in (origin, "null"):
        headers = {"Origin": sender}
        async with house.owner.post("/api/shares", json=ids, headers=headers) as response:
            assert response.status == 201


# -- Playing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("span", ["bytes=0-", "bytes=0-1", "bytes=300000-499999", "bytes=-1000"])
async def test_a_visitor_plays_any_range(house: House, film: Post, span: str) -> None:
    made = await house.make(film)
    async with house.visitor.get(f"/v/{made['share']}", headers={"Range": span}) as response:
        assert response.status == 206
        first, last = re.findall(r"[0-9]+", response.headers["Content-Range"])[:2]
        assert await response.read() == content_of(film)[int(first) : int(last) + 1]


async def test_the_redirect_is_fresh_each_time_and_names_the_film(house: House, film: Post) -> None:
    made = await house.make(film)
    response = await house.go(f"/v/{made['share']}", Range="bytes=0-1")
    assert response.status == 307
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["X-Robots-Tag"] == "noindex"
    url = URL(response.headers["Location"], encoded=True)
    assert url.name == "Metropolis (1927).mp4"
    token = claims_of(url.query["token"], "worker")
    subject = f"{house.stage.channel.chat_id}/{film.id}"
    assert token["sub"] == subject
    assert token["exp"] == token["iat"] + 3600
    grant = claims_of(url.query["renew"], "renewal")
    assert grant["exp"] == pytest.approx(time.time() + 12 * 3600, abs=3)
    assert grant == {"iss": "backend", "aud": "renewal", "sub": subject, "exp": grant["exp"]}


async def test_head_and_download_are_passed_on(house: House, film: Post) -> None:
    path = f"/v/{house.signed(film, 600)}"
    response = await house.go(path, method="HEAD")
    assert response.status == 307
    async with house.visitor.head(path, allow_redirects=True) as response:
        assert (response.status, response.content_length) == (200, FILM_BYTES)
    async with house.visitor.get(f"{path}?download=1") as response:
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert await response.read() == content_of(film)


async def test_the_film_outlasts_its_token_by_the_grant(house: House, film: Post) -> None:
    url = await house.location(f"/v/{house.signed(film, None)}")
    past = {"iat": int(time.time()) - 3700, "exp": int(time.time()) - 100}
    expired = url.update_query(token=house.stage.token(film, **past))
    async with house.visitor.session.get(expired, headers={"Range": "bytes=5-9"}) as response:
        assert response.status == 206
        assert response.history[0].status == 307
        assert response.url.origin() == expired.origin()
        assert await response.read() == content_of(film)[5:10]
    async with house.visitor.session.get(expired.without_query_params("renew")) as response:
        assert response.status == 401


async def test_nothing_outlives_the_share(house: House, film: Post) -> None:
    share = house.signed(film, 600)
    end = read_share(JWT_SECRET, share)
    assert end is not None
    query = (await house.location(f"/v/{share}")).query
    assert claims_of(query["token"], "worker")["exp"] == end.expires_at
    assert claims_of(query["renew"], "renewal")["exp"] == end.expires_at
    body = await (await house.go(f"/api/share/{share}/url")).json()
    assert body["expires_at"] == end.expires_at
    assert body["lasts_s"] in (599, 600)


async def test_the_player_page_can_ask_for_a_fresh_url(house: House, film: Post) -> None:
    response = await house.go(f"/api/share/{house.signed(film, None)}/url?attempt=1")
    body = await response.json()
    assert (body["name"], body["size"]) == ("Metropolis (1927).mp4", FILM_BYTES)
    assert body["expires_at"] == pytest.approx(time.time() + 3600, abs=3)
    async with house.visitor.session.get(URL(body["url"], encoded=True)) as played:
        assert await played.read() == content_of(film)


async def test_a_link_works_while_the_worker_is_away(film: Post, open_house: StartHouse) -> None:
    house = await open_house(WORKER_URL="http://127.0.0.1:1")
    share = house.signed(film, None)
    url = await house.location(f"/v/{share}")
    assert (url.port, url.path) == (1, f"/stream/{house.stage.channel.chat_id}/{film.id}")
    assert "<title>Film</title>" in await (await house.go(f"/embed/{share}")).text()


async def test_a_link_does_not_wait_for_a_worker_that_wakes_up(
    film: Post, open_house: StartHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitors, "NAME_PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        house = await open_house(WORKER_URL=f"http://127.0.0.1:{port}")
        url = await house.location(f"/v/{house.signed(film, None)}")
        assert (url.port, url.name) == (port, str(film.id))


# -- Ends --------------------------------------------------------------------------------------

DOORS = ["/v/{}", "/v/{}/poster", "/watch/{}", "/embed/{}", "/m3u/{}", "/api/share/{}/url"]


@pytest.mark.parametrize("door", DOORS)
async def test_an_ended_and_a_revoked_share_look_the_same(
    house: House, film: Post, door: str
) -> None:
    revoked = await house.make(film)
    async with house.owner.delete(f"/api/shares/{revoked['id']}") as response:
        assert response.status == 204
    bodies = set()
    for share in (house.signed(film, -1), revoked["share"]):
        response = await house.go(door.format(share))
        assert response.status == 410
        assert response.headers["Cache-Control"] == "no-store"
        bodies.add(await response.text())
    assert len(bodies) == 1
    assert json.loads(bodies.pop())["error"]["code"] == "share_ended"


@pytest.mark.parametrize("door", DOORS)
async def test_a_garbled_share_is_a_404(house: House, film: Post, door: str) -> None:
    share = house.signed(film, None)
    for garbled in (share[:-1], share.swapcase(), "x", "%00", "../api/files"):
        response = await house.go(door.format(garbled))
        assert response.status in (401, 404), garbled
    response = await house.go(door.format(share[:-1]))
    assert (await response.json())["error"]["code"] == "share_not_found"


async def test_people_get_a_page_that_may_stand_in_a_frame(house: House, film: Post) -> None:
    for share, status, title in (
        (house.signed(film, -1), 410, "No longer open"),
        ("x", 404, "Nothing here"),
    ):
        response = await house.go(f"/embed/{share}", **HTML)
        assert response.status == status
        text = await response.text()
        assert title in text
        assert 'href="/"' not in text  # the gallery is not for visitors
        assert "frame-ancestors *" in response.headers["Content-Security-Policy"]
        assert response.headers["Cache-Control"] == "no-store"


async def test_a_share_the_database_never_saw_is_revoked_by_its_beginning(
    house: House, film: Post
) -> None:
    share = house.signed(film, None)
    assert (await house.go(f"/v/{share}")).status == 307
    async with house.owner.delete(f"/api/shares/{share}") as response:
        assert response.status == 204
    assert (await house.go(f"/v/{share}")).status == 410
    assert (await house.listed())["shares"] == []  # nothing is known of it but its id


async def test_a_deleted_post_and_a_dropped_channel_end_their_shares(
    house: House, film: Post, open_house: StartHouse
) -> None:
    chat_id = house.stage.channel.chat_id
    missing = write_share(JWT_SECRET, new_share(chat_id, film.id + 1, None, 0))
    response = await house.go(f"/v/{missing}")
    assert (response.status, (await response.json())["error"]["code"]) == (404, "file_not_found")
    elsewhere = await open_house(CHANNELS="-1009999999999")
    assert (await elsewhere.go(f"/v/{house.signed(film, None)}")).status == 410


async def test_another_secret_ends_every_share(film: Post, open_house: StartHouse) -> None:
    house = await open_house(JWT_SECRET="another secret than the share was signed with")
    assert (await house.go(f"/v/{house.signed(film, None)}")).status == 404


# -- HTML for other pages ----------------------------------------------------------------------


class Element(HTMLParser):
    """The one element in a snippet: its name and its attributes, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        ((self.name, self.attributes),) = self.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


async def test_snippets_fit_their_column_in_the_proportions_of_the_film(
    house: House, film: Post
) -> None:
    made = await house.make(film)
    for key, name, source in (
        ("embed_code", "iframe", "embed_url"),
        ("media_code", "video", "url"),
    ):
        element = Element(made[key])
        assert element.name == name
        assert element.attributes["src"] == made[source]
        assert (element.attributes["width"], element.attributes["height"]) == ("1280", "960")
        style = element.attributes["style"] or ""
        assert "width:100%;max-width:1280px;height:auto;aspect-ratio:1280/960" in style
        assert "Metropolis (1927)" in (
            element.attributes["title" if name == "iframe" else "aria-label"] or ""
        )
    frame = Element(made["embed_code"]).attributes
    assert {"autoplay", "fullscreen", "picture-in-picture"} <= set(
        (frame["allow"] or "").split("; ")
    )
    assert frame["loading"] == "lazy"
    assert frame["referrerpolicy"] == "no-referrer"
    video = Element(made["media_code"]).attributes
    assert {"controls", "playsinline"} <= set(video)
    assert video["preload"] == "metadata"
    assert "poster" not in video  # there is none
    (listed,) = (await house.listed())["shares"]
    assert {key: listed[key] for key in made} == made


@pytest.mark.parametrize(
    ("mime_type", "name", "element"),
    [
        ("audio/mpeg", "a.mp3", "audio"),
        ("image/png", "a.png", "img"),
        ("application/pdf", "a.pdf", "a"),
        ("application/octet-stream", "a.mkv", "video"),
    ],
)
async def test_every_kind_of_file_has_its_element(
    house: House, stage: Stage, mime_type: str, name: str, element: str
) -> None:
    picture = PhotoSize("m", 320, 180, BytesContent(b"\xff\xd8picture"))
    post = stage.post_synthetic(10, mime_type=mime_type, file_name=name, thumbnails=(picture,))
    made = await house.make(post)
    snippet = Element(made["media_code"])
    assert snippet.name == element
    address = snippet.attributes.get("src") or snippet.attributes["href"]
    assert address == made["url"] + ("?download=1" if element == "a" else "")
    assert snippet.attributes.get("poster") == (
        f"{made['url']}/poster" if element == "video" else None
    )


# -- What a visitor does not see ---------------------------------------------------------------


async def test_a_share_opens_its_film_and_nothing_else(house: House, film: Post) -> None:
    other = house.stage.post_synthetic(FILM_BYTES, file_name="other.mp4")
    share = house.signed(film, None)
    response = await house.go(f"/embed/{share}")
    assert "Set-Cookie" not in response.headers
    chat_id = house.stage.channel.chat_id
    for path in (
        "/api/files",
        f"/api/files/{chat_id}/{film.id}",
        f"/api/files/{chat_id}/{other.id}/url",
        "/api/shares",
    ):
        for headers in ({}, {"Authorization": f"Bearer {share}"}):
            response = await house.go(f"{path}?share={share}&token={share}", **headers)
            assert response.status == 401, path
    assert (await house.go("/")).status == 303
    url = await house.location(f"/v/{share}")
    moved = url.with_path(f"/stream/{chat_id}/{other.id}").with_query(url.query)
    async with house.visitor.session.get(moved) as refused:
        assert refused.status == 403
    listing = url.with_path(f"/files/{chat_id}").with_query(url.query)
    async with house.visitor.session.get(listing) as refused:
        assert refused.status == 403


async def test_shares_stay_out_of_the_log(
    house: House, film: Post, caplog: pytest.LogCaptureFixture
) -> None:
    made = await house.make(film)
    with caplog.at_level(logging.INFO):
        for door in (*DOORS, "/nowhere/{}/x"):
            await house.go(door.format(made["share"]))
        await house.go(f"/oembed?url={made['url']}")
        async with house.owner.delete(f"/api/shares/{made['share']}"):
            pass
    # The test server has an access log of its own, which `main` switches off.
    records = [each for each in caplog.records if each.name.startswith("gallery")]
    gallery_log = "\n".join(record.getMessage() for record in records)
    assert f"GET /v/{made['id']}… -> 307" in gallery_log
    assert made["share"] not in gallery_log


# -- Pages and descriptions --------------------------------------------------------------------


async def test_the_player_page_is_only_a_player(house: House, film: Post) -> None:
    share = house.signed(film, None)
    response = await house.go(f"/embed/{share}")
    html = await response.text()
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert policy.endswith("frame-ancestors *")
    assert "unsafe" not in policy
    assert response.headers["Cache-Control"] == "no-store"
    base = str(house.visitor.make_url("/")).rstrip("/")
    assert "<title>Metropolis (1927)</title>" in html
    assert f'property="og:video" content="{base}/v/{share}"' in html
    assert f'name="twitter:player" content="{base}/embed/{share}"' in html
    source = re.search(r'src="(http[^"]+)"', html)
    assert source
    async with house.visitor.session.get(
        URL(source[1].replace("&amp;", "&"), encoded=True), headers={"Range": "bytes=0-3"}
    ) as played:
        assert await played.read() == content_of(film)[:4]


async def test_the_page_for_people_has_the_film_its_facts_and_ways_to_have_it(
    house: House, film: Post
) -> None:
    share = house.signed(film, 3600)
    response = await house.go(f"/watch/{share}")
    html = await response.text()
    assert response.headers["Content-Security-Policy"].endswith("frame-ancestors *")
    assert "Set-Cookie" not in response.headers
    for words in (
        "Metropolis (1927)",
        "1:02 · 1440 \u00d7 1080 · 700 KB",
        f"/v/{share}?download=1",
    ):
        assert words in html
    assert f'href="/m3u/{share}"' in html
    end = read_share(JWT_SECRET, share)
    assert end is not None
    assert f'data-at="{end.expires_at}"' in html
    base = str(house.visitor.make_url("/")).rstrip("/")
    for door in ("watch", "embed"):
        page = await (await house.go(f"/{door}/{share}")).text()
        assert f'<link rel="canonical" href="{base}/watch/{share}">' in page
        assert 'type="application/json+oembed"' in page


async def test_frames_can_be_kept_to_some_sites(film: Post, open_house: StartHouse) -> None:
    house = await open_house(FRAME_ANCESTORS="https://blog.example, *.other.example:8443")
    response = await house.go(f"/embed/{house.signed(film, None)}")
    policy = response.headers["Content-Security-Policy"]
    assert policy.endswith("frame-ancestors https://blog.example *.other.example:8443")
    async with house.owner.get("/") as page:
        assert page.headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")


@pytest.mark.parametrize(
    ("value", "policy"),
    [("", "*"), ("none", "'none'"), ("'none'", "'none'"), ("self, a.example", "'self' a.example")],
)
def test_frame_ancestors_keywords_need_no_quotes(value: str, policy: str, stage: Stage) -> None:
    environment = {**stage.environment(), "WORKER_URL": "http://w", "FRAME_ANCESTORS": value}
    assert Settings.from_env(environment).frame_ancestors == policy


@pytest.mark.parametrize("value", ["*; script-src *", "https://a.example b", "javascript:", "a,,b"])
def test_frame_ancestors_cannot_write_other_policies(value: str, stage: Stage) -> None:
    environment = {**stage.environment(), "WORKER_URL": "http://w", "FRAME_ANCESTORS": value}
    with pytest.raises(SettingsError, match="FRAME_ANCESTORS"):
        Settings.from_env(environment)


async def test_our_own_files_may_be_used_by_a_frame_without_an_origin(house: House) -> None:
    for name, mime_type in (
        ("embed.js", "text/javascript; charset=utf-8"),
        ("embed.css", "text/css; charset=utf-8"),
        ("card.png", "image/png"),
    ):
        response = await house.go(f"/static/{name}", Origin="null")
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert response.headers["Content-Type"] == mime_type


async def test_a_name_is_never_markup(house: House, stage: Stage) -> None:
    post = stage.post_synthetic(10, file_name='"><script>alert(1)</script>.mp4')
    made = await house.make(post)
    assert "<script>" not in made["embed_code"] + made["media_code"]
    for door in ("embed", "watch"):
        assert "<script>" not in await (await house.go(f"/{door}/{made['share']}")).text()


@pytest.mark.parametrize(
    ("mime_type", "name", "elements"),
    [
        ("video/mp4", "a.mp4", ["<video"]),
        ("audio/mpeg", "a.mp3", ["<audio", "<img"]),
        ("image/png", "a.png", ["<img"]),
        ("application/pdf", "a.pdf", ["?download=1"]),
    ],
)
async def test_every_kind_of_file_has_its_page(
    house: House, stage: Stage, mime_type: str, name: str, elements: list[str]
) -> None:
    post = stage.post_synthetic(10, mime_type=mime_type, file_name=name)
    html = await (await house.go(f"/embed/{house.signed(post, None)}")).text()
    known = ("<video", "<audio", "<img", "?download=1")
    assert [each for each in known for _ in range(html.count(each))] == elements


async def test_the_playlist_has_one_entry(house: House, film: Post) -> None:
    made = await house.make(film)
    response = await house.go(f"/m3u/{made['share']}")
    assert response.headers["Content-Type"] == "audio/x-mpegurl; charset=utf-8"
    assert "filename*=UTF-8''Metropolis%20%281927%29.m3u" in response.headers["Content-Disposition"]
    assert await response.text() == f"#EXTM3U\n#EXTINF:62,Metropolis (1927)\n{made['url']}\n"


async def test_the_poster_is_the_thumbnail(house: House, stage: Stage) -> None:
    picture = PhotoSize("m", 320, 180, BytesContent(b"\xff\xd8picture"))
    post = stage.post_synthetic(10, thumbnails=(picture,))
    share = house.signed(post, None)
    async with house.visitor.get(f"/v/{share}/poster") as response:
        assert await response.read() == b"\xff\xd8picture"
    assert f'poster="/v/{share}/poster"' in await (await house.go(f"/embed/{share}")).text()


# -- oEmbed ------------------------------------------------------------------------------------


async def oembed(
    house: House, status: int = 200, query: dict[str, str] | None = None, **more: str
) -> dict[str, Any]:
    response = await house.go(str(URL("/oembed").with_query({**(query or {}), **more})))
    assert response.status == status, await response.text()
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    body: dict[str, Any] = await response.json()
    return body


async def test_oembed_describes_the_film(house: House, film: Post) -> None:
    made = await house.make(film, expires_in_s=None)
    for url in (
        *(made[name] for name in ("url", "watch_url", "embed_url", "m3u_url")),
        f"{made['url']}?download=1",
        f"{made['url']}/poster",
        f"{made['watch_url']}?t=90#x",
    ):
        body = await oembed(house, url=url, format="json")
        assert (body["version"], body["type"]) == ("1.0", "video")
        assert body["title"] == "Metropolis (1927)"
        assert f'<iframe src="{made["embed_url"]}"' in body["html"]
        assert (body["width"], body["height"]) == (1280, 960)
        assert body["cache_age"] == 24 * 3600
        assert "thumbnail_url" not in body


async def test_oembed_is_kept_no_longer_than_the_share_lasts(house: House, film: Post) -> None:
    made = await house.make(film, expires_in_s=600)
    assert (await oembed(house, url=made["url"]))["cache_age"] in range(590, 601)


async def test_oembed_is_found_from_the_pages_and_from_the_link(house: House, film: Post) -> None:
    share = house.signed(film, None)
    page = await (await house.go(f"/watch/{share}")).text()
    written = re.search(r'href="([^"]+/oembed[^"]+)"', page)
    header = (await house.go(f"/v/{share}")).headers["Link"]
    named = re.fullmatch(r'<(.+)>; rel="alternate"; type="application/json\+oembed"', header)
    assert written
    assert named
    assert named[1] == unescape(written[1])
    response = await house.go(URL(named[1], encoded=True).path_qs)
    assert (await response.json())["title"] == "Metropolis (1927)"


async def test_oembed_keeps_to_the_size_that_is_asked_for(house: House, film: Post) -> None:
    made = await house.make(film)
    for limits, size in (
        ({"maxwidth": "400", "maxheight": "240"}, (320, 240)),
        ({"maxwidth": "400"}, (400, 300)),
        ({"maxheight": "100"}, (133, 100)),
        ({"maxwidth": "99999"}, (1280, 960)),
        ({"maxwidth": "1"}, (1, 1)),
    ):
        body = await oembed(house, query={"url": made["url"], **limits})
        assert (body["width"], body["height"]) == size
        frame = Element(body["html"]).attributes
        assert (frame["width"], frame["height"]) == tuple(map(str, size))
    for limit in ("none", "0", "-1", "1.5", ""):
        for name in ("maxwidth", "maxheight"):
            await oembed(house, 400, query={"url": made["url"], name: limit})


@pytest.mark.parametrize(
    ("mime_type", "name", "kind", "keys"),
    [
        ("audio/mpeg", "a.mp3", "rich", {"html", "width", "height"}),
        ("image/png", "a.png", "rich", {"html", "width", "height"}),
        ("application/pdf", "a.pdf", "link", set[str]()),
    ],
)
async def test_oembed_of_other_files(
    house: House, stage: Stage, mime_type: str, name: str, kind: str, keys: set[str]
) -> None:
    picture = PhotoSize("m", 320, 180, BytesContent(b"\xff\xd8picture"))
    post = stage.post_synthetic(10, mime_type=mime_type, file_name=name, thumbnails=(picture,))
    made = await house.make(post)
    body = await oembed(house, url=made["url"])
    assert body["type"] == kind
    assert body["title"] == "a"
    assert keys == {"html", "url", "width", "height"} & set(body)
    assert body["thumbnail_url"] == f"{made['url']}/poster"
    assert (body["thumbnail_width"], body["thumbnail_height"]) == (320, 180)
    assert "thumbnail_url" not in await oembed(house, url=made["url"], maxwidth="300")


async def test_a_picture_is_a_photo_where_its_own_size_fits(house: House, stage: Stage) -> None:
    """A photo's URL is shown as it is: one that is too large would break the page."""
    sizes = (
        PhotoSize("m", 320, 213, BytesContent(b"\xff\xd8small")),
        PhotoSize("y", 1280, 853, BytesContent(b"\xff\xd8large")),
    )
    world = stage.telegram.world
    made = await house.make(world.post(stage.channel, world.new_photo(*sizes, dc_id=4)))
    body = await oembed(house, url=made["url"])
    assert (body["type"], body["url"]) == ("photo", made["url"])
    assert (body["width"], body["height"]) == (1280, 853)
    body = await oembed(house, url=made["url"], maxwidth="600")
    assert (body["type"], body["width"], body["height"]) == ("rich", 600, 399)


@pytest.mark.parametrize("ancestors", ["none", "self"])
async def test_what_no_site_may_frame_is_described_as_a_link(
    film: Post, open_house: StartHouse, ancestors: str
) -> None:
    house = await open_house(FRAME_ANCESTORS=ancestors)
    made = await house.make(film)
    body = await oembed(house, url=made["url"])
    assert body["type"] == "link"
    assert "html" not in body
    page = await (await house.go(f"/watch/{made['share']}")).text()
    assert "twitter:player" not in page
    assert "text/html" not in page
    assert f'property="og:video" content="{made["url"]}"' in page


async def test_oembed_of_what_is_not_ours_is_private_or_has_ended(house: House, film: Post) -> None:
    made = await house.make(film)
    await oembed(house, 404, url=f"https://elsewhere.example/v/{made['share']}")
    await oembed(house, 404, url="")
    await oembed(house, 404, url=made["url"][:-1])
    base = made["url"].partition("/v/")[0]
    for path in ("/", f"/?file={house.stage.channel.chat_id}/{film.id}", "/api/files"):
        body = await oembed(house, 401, url=base + path)
        assert body["error"]["code"] == "not_public"
    for form in ("xml", "JSON", ""):
        await oembed(house, 501, url=made["url"], format=form)
    async with house.owner.delete(f"/api/shares/{made['id']}"):
        pass
    body = await oembed(house, 404, url=made["url"])
    assert body["error"]["code"] == "share_ended"


async def test_scripts_of_other_sites_may_ask_for_ranges(house: House, film: Post) -> None:
    response = await house.go(
        f"/v/{house.signed(film, None)}",
        method="OPTIONS",
        Origin="https://blog.example",
        **{"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"},
    )
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Range" in response.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize(
    ("name", "caption", "title"),
    [
        ("The.Big_Film.mkv", "", "The Big Film"),
        ("a. b.mp4", "", "a. b"),
        ("video_2026-01-02.mp4", "A caption\nmore", "A caption"),
        ("", "", "Film"),
        (".mp4", "Said so", "Said so"),
        ("line\nbreak\x07.mp4", "", "line break"),
    ],
)
def test_titles(name: str, caption: str, title: str) -> None:
    listed = {"chat_id": 1, "message_id": 1, "mime_type": "video/mp4", "size": 1, "date": 1}
    file = MediaFile.from_listing({**listed, "name": name, "caption": caption})
    assert title_of(file) == title


# -- The store ---------------------------------------------------------------------------------

WEEK = 7 * 24 * 3600


async def test_revocations_outlive_a_restart_and_other_tables_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "gallery.sqlite3"
    share = new_share(CHAT_ID, 7, WEEK, time.time())
    for _ in range(2):
        store = ShareStore(str(path), on_render=False)
        if not await store.is_revoked(share.id):
            await store.add(share, "Film", time.time())
            await store.revoke(share.id, time.time())
            await store.revoke(share.id, time.time() + 5)
        assert await store.is_revoked(share.id)
        assert [listed.share for listed in await store.listed()] == [share]
        await store.close()
    assert await asyncio.to_thread(table_names, path) == [("share_links",)]


def table_names(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return names.fetchall()


async def test_old_shares_are_forgotten_and_there_is_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SHARES_MAX >= 1000
    monkeypatch.setattr(share_store, "SHARES_MAX", 2)
    store = ShareStore(MEMORY, on_render=False)
    now = time.time()
    for _ in range(2):
        await store.add(new_share(CHAT_ID, 7, 60, now), "Film", now)
    with pytest.raises(Exception, match="already"):
        await store.add(new_share(CHAT_ID, 7, 60, now), "Film", now)
    much_later = now + share_store.KEPT_AFTER_END_S + 3600
    kept = new_share(CHAT_ID, 7, None, much_later)
    await store.add(kept, "Film", much_later)
    assert [listed.share for listed in await store.listed()] == [kept]
    await store.close()


async def test_without_its_database_nobody_is_let_in_and_afterwards_all_is_well(
    film: Post, open_house: StartHouse, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "folder"
    in_the_way.touch()
    house = await open_house(DATABASE=str(in_the_way / "gallery.sqlite3"))
    share = house.signed(film, None)
    for headers in ({}, HTML):
        response = await house.go(f"/v/{share}", **headers)
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
    in_the_way.unlink()
    assert (await house.go(f"/v/{share}")).status == 307


MOUNTS = """\
overlay / overlay rw 0 0
/dev/sdb /var/data ext4 rw 0 0
tmpfs /var/data/fast tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("database", "durable"),
    [
        (MEMORY, False),
        ("/srv/gallery.sqlite3", False),
        ("/var/data/gallery.sqlite3", True),
        ("/var/data/fast/gallery.sqlite3", False),
        ("/var/database/gallery.sqlite3", False),
    ],
)
def test_what_lasts_is_told_by_the_file_system(
    database: str, durable: bool, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert is_durable(database, on_render=False, mounts=mounts) is durable


def test_on_render_only_a_mounted_disk_lasts(tmp_path: Path) -> None:
    nowhere = tmp_path / "no such file"
    assert is_durable("/srv/gallery.sqlite3", on_render=False, mounts=nowhere)
    assert not is_durable("/srv/gallery.sqlite3", on_render=True, mounts=nowhere)
    assert is_durable("/proc/gallery.sqlite3", on_render=True, mounts=nowhere)  # a mount point


def test_render_is_known_by_its_own_variable(stage: Stage) -> None:
    environment = {**stage.environment(), "WORKER_URL": "http://w"}
    assert not Settings.from_env(environment).on_render
    environment["RENDER_EXTERNAL_URL"] = "https://films.onrender.example"
    assert replace(Settings.from_env(environment), port=1).on_render
