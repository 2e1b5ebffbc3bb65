"""Playlists and exports: many films at once for other programs, ended all together.

Method: a real gallery and worker on the pocket Telegram; what was made is read as programs read it,
and its links are followed by somebody without a cookie.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from aiohttp import ClientSession, encode_basic_auth
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, StartClient
from test_backend import media_file, on_stage
from test_dav import knows_titles
from test_small_files import open_gallery

from gallery import playlists
from gallery.playlists import describe_film
from gallery.shares import ID_CHARACTERS, lasting_ids
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import BytesContent, SyntheticContent

PASSWORD = "correct horse battery"
AUTH = {"Authorization": encode_basic_auth("anybody", PASSWORD)}

Gallery = TestClient[Any, Any]
OpenGallery = Callable[..., Awaitable[Gallery]]


@pytest.fixture
def open_films(
    stage: Stage, viewer: Gallery, bot_api: BotApiServer, aiohttp_client: StartClient
) -> OpenGallery:
    async def start() -> Gallery:
        known = {"BOT_TOKEN": stage.bot.token, "BOT_API_URL": bot_api.url}
        usual = {**on_stage(stage, viewer), **known, "GALLERY_PASSWORD": PASSWORD}
        gallery = await open_gallery(aiohttp_client, **usual)
        await knows_titles(gallery)
        return gallery

    return start


async def playlist(gallery: Gallery, query: str = "") -> list[tuple[str, str]]:
    """The entries: what is said of each, and its link."""
    async with gallery.get(f"/playlist.m3u{query}", headers=AUTH) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "audio/x-mpegurl"
        head, *lines = (await response.text()).splitlines()
    assert head == "#EXTM3U"
    return list(zip(lines[::2], lines[1::2], strict=True))


async def bytes_of(url: str) -> tuple[int, bytes]:
    async with ClientSession() as session, session.get(url) as response:
        return response.status, await response.read()


async def test_a_playlist_plays_without_the_password_until_it_is_revoked(
    stage: Stage, open_films: OpenGallery
) -> None:
    stage.post(SyntheticContent(1000, 1), file_name="First_film.mkv", duration_s=61.4, kind="video")
    stage.post(BytesContent(b"x"), "text/plain", file_name="Note.txt")
    stage.post(SyntheticContent(1000, 2), "audio/mpeg", file_name="Song.mp3")
    gallery = await open_films()
    entries = await playlist(gallery, "?sort=name")
    assert [told for told, _ in entries] == ["#EXTINF:61,First film", "#EXTINF:-1,Song"]
    assert await bytes_of(entries[0][1]) == (200, SyntheticContent(1000, 1).read(0, 1000))
    assert await playlist(gallery, "?sort=name") == entries
    (song,) = await playlist(gallery, f"?query=song&channel={stage.channel.chat_id}")
    async with gallery.get("/api/shares", headers=AUTH) as refused:
        assert refused.status == 401  # the password in a header opens what is for programs only
    await gallery.post("/sign-in", data={"password": PASSWORD}, allow_redirects=False)
    async with gallery.get("/api/shares") as response:
        shares = (await response.json())["shares"]
    assert {share["name"] for share in shares} == {
        "Playlist: all channels",
        "Playlist: Films, song",
    }
    (listed,) = [share for share in shares if share["name"] == "Playlist: all channels"]
    async with gallery.delete(f"/api/shares/{listed['id']}") as response:
        assert response.status == 204
    assert [(await bytes_of(link))[0] for _, link in entries] == [410, 410]
    assert (await bytes_of(song[1]))[0] == 200
    fresh = await playlist(gallery, "?sort=name")
    assert {link for _, link in fresh}.isdisjoint(link for _, link in entries)
    assert (await bytes_of(fresh[1][1]))[0] == 200


async def test_other_sites_cannot_have_one_made(stage: Stage, open_films: OpenGallery) -> None:
    gallery = await open_films()
    for path in ("/playlist.m3u", "/export.zip"):
        headers = {"Sec-Fetch-Site": "cross-site"}
        async with gallery.get(path, headers=AUTH | headers) as response:
            assert response.status == 403
        async with gallery.head(path, headers=AUTH) as response:
            assert response.status == 200
    async with gallery.get("/playlist.m3u?kind=x", headers=AUTH) as response:
        assert response.status == 400
    assert await playlist(gallery) == []


async def test_an_export_is_a_library_of_films(
    stage: Stage, open_films: OpenGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "A caption\nwith & and <b>"
    stage.post(
        SyntheticContent(700, 1),
        file_name="Film (2019).mkv",
        text=text,
        duration_s=5400.0,
        kind="video",
    )
    stage.post(SyntheticContent(800, 2), file_name="Film (2019).mp4")
    stage.post(BytesContent(b"x"), "text/plain", file_name="Note.txt")
    gallery = await open_films()

    async def export() -> zipfile.ZipFile:
        async with gallery.get("/export.zip", headers=AUTH) as response:
            assert response.content_type == "application/zip"
            archive = zipfile.ZipFile(io.BytesIO(await response.read()))
        assert archive.testzip() is None
        return archive

    archive = await export()
    first, second = (
        "Films/Film (2019)/Film (2019)",
        "Films/Film (2019) [post 3]/Film (2019) [post 3]",
    )
    assert archive.namelist() == [f"{p}.{e}" for p in (first, second) for e in ("strm", "nfo")]
    for place, body in ((first, (700, 1)), (second, (800, 2))):
        link = archive.read(f"{place}.strm").decode()
        assert link.endswith("\n")
        assert await bytes_of(link.strip()) == (200, SyntheticContent(*body).read(0, body[0]))
    film = ElementTree.fromstring(archive.read(f"{first}.nfo"))  # noqa: S314
    assert film.tag == "movie"
    assert film.findtext("title") == "Film (2019)"
    assert film.findtext("plot") == text
    assert film.findtext("runtime") == "90"
    monkeypatch.setattr(playlists, "ENTRIES_MAX", 1)
    assert (await export()).namelist() == [f"{first}.strm", f"{first}.nfo"]


def test_a_film_is_described_whatever_its_caption_holds() -> None:
    film = media_file(name="x\uffff.mkv", caption="\uffff]]>\u0085 &amp; \x0b", date=2**62)
    told = ElementTree.fromstring(describe_film(film))  # noqa: S314
    assert told.findtext("plot") == "]]>\n &amp;"


def test_lasting_ids_are_ids_and_always_the_same() -> None:
    ids = list(lasting_ids(JWT_SECRET, "a"))
    assert ids == list(lasting_ids(JWT_SECRET, "a"))
    assert len(set(ids) | set(lasting_ids(JWT_SECRET, "b"))) == 2 * len(ids)
    assert all(re.fullmatch(rf"[\w-]{{{ID_CHARACTERS}}}", each) for each in ids)
    assert not set(ids) & set(lasting_ids(f"{JWT_SECRET}, another", "a"))
