"""The channels as folders: WebDAV, asked by hand and by the programs that mount it.

Goal: programs list, read, seek and copy; nobody comes in without the password; nothing can be
changed; a folder is never shown half full. Method: a real gallery, worker and Bot API on the pocket
Telegram; Debian's rclone, curl and cadaver, and the ffmpeg of PyPI's imageio-ffmpeg, which reads by
the same code as ffprobe. rclone mounts where this machine has FUSE; elsewhere it only reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import imageio_ffmpeg
import pytest
from aiohttp import ClientResponse, encode_basic_auth
from aiohttp.test_utils import TestClient
from conftest import Stage, StartClient
from players import found, run
from test_backend import on_stage
from test_small_files import open_gallery

from gallery.catalogue import CATALOGUE
from gallery.dav import ALLOWED, read_path
from gallery.errors import ApiError
from gallery.safe_names import NAME_MAX_BYTES, numbered, safe_name
from gallery.sign_in import PATIENCE_PER_ADDRESS, basic_password
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import BytesContent, FileContent, SyntheticContent
from telegram_simulator.world import Post

PASSWORD = "correct:horse:battery"
FILM_BYTES = 21_000_000  # more than the Bot API hands out
SMALL_BYTES = 70_000

Client = TestClient[Any, Any]


# -- Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Film (2019).mkv", "Film (2019).mkv"),
        ('a/b\\c: "d"?.mkv', "a b c 'd' .mkv"),
        ("  . ", "file"),
        ("..", "file"),
        ("CON.mkv", "_CON.mkv"),
        ("trailing. . .", "trailing"),
        ("e\u0301.mkv", "é.mkv"),
        ("映" * 100 + ".mkv", "映" * 65 + ".mkv"),
    ],
)
def test_a_name_is_one_that_every_file_system_takes(name: str, expected: str) -> None:
    assert safe_name(name) == expected
    assert safe_name(expected) == expected
    assert len(numbered(expected, 2**31 - 1).encode()) <= NAME_MAX_BYTES


@pytest.mark.parametrize(
    ("path", "names"),
    [("", []), ("/", []), ("Films", ["Films"]), ("Films/", ["Films"]), ("F/a.mkv", ["F", "a.mkv"])],
)
def test_paths(path: str, names: list[str]) -> None:
    assert read_path(path) == names


@pytest.mark.parametrize("path", ["a/b/c", "a//b", "/a", "a/b//"])
def test_other_paths_lead_nowhere(path: str) -> None:
    with pytest.raises(ApiError):
        read_path(path)


@pytest.mark.parametrize(
    ("header", "password"),
    [
        ("Basic " + b64encode(b"me:a:b").decode(), "a:b"),
        ("basic  " + b64encode("x:ä".encode()).decode(), "ä"),
        ("Basic " + b64encode(b":").decode(), ""),
        ("Basic " + b64encode(b"none").decode(), None),
        ("Basic ?", None),
        ("Bearer eDp5", None),
        ("", None),
    ],
)
def test_the_password_in_a_header(header: str, password: str | None) -> None:
    assert basic_password(header) == password


# -- Asked by hand ---------------------------------------------------------------------------------


@dataclass
class Shelf:
    """A gallery with a password, and a program that may know it."""

    stage: Stage
    client: Client
    password: str | None = PASSWORD

    async def ask(self, method: str, path: str, **headers: str) -> ClientResponse:
        if self.password is not None:
            headers["Authorization"] = encode_basic_auth("anybody", self.password)
        response: ClientResponse = await self.client.request(
            method, path, headers=headers, allow_redirects=False
        )
        await response.read()
        return response

    async def told(self, path: str, depth: str = "1") -> list[dict[str, str]]:
        """What PROPFIND tells, each thing by its properties."""
        response = await self.ask("PROPFIND", path, Depth=depth)
        assert response.status == 207, await response.text()
        assert response.content_type == "application/xml"
        things = []
        for each in ElementTree.fromstring(await response.read()):  # noqa: S314
            assert each.findtext(".//{DAV:}status") == "HTTP/1.1 200 OK"
            properties = each.find(".//{DAV:}prop")
            assert properties is not None
            told = {part.tag.removeprefix("{DAV:}"): part.text or "" for part in properties}
            is_folder = properties.find("{DAV:}resourcetype/{DAV:}collection") is not None
            href = each.findtext("{DAV:}href") or ""
            assert is_folder == href.endswith("/")
            things.append({**told, "href": href})
        return things

    @property
    def url(self) -> str:
        return str(self.client.make_url("/dav/"))


OpenShelf = Callable[..., Awaitable[Shelf]]


@pytest.fixture
def open_shelf(
    stage: Stage, viewer: Client, bot_api: BotApiServer, aiohttp_client: StartClient
) -> OpenShelf:
    async def start(**changes: str) -> Shelf:
        known = {"BOT_TOKEN": stage.bot.token, "BOT_API_URL": bot_api.url}
        usual = {**on_stage(stage, viewer), **known, "GALLERY_PASSWORD": PASSWORD}
        client = await open_gallery(aiohttp_client, **{**usual, **changes})
        await knows_titles(client)
        return Shelf(stage, client)

    return start


async def knows_titles(gallery: Client) -> None:
    """Wait until the Bot API has told what the channel is called."""
    index = gallery.app[CATALOGUE].index
    async with asyncio.timeout(10):
        while [channel.title for channel in await index.channels()] != ["Films"]:
            await asyncio.sleep(0.02)


async def are_small(shelf: Shelf, *posts: Post) -> None:
    """Wait until the Bot API has told of these posts."""
    index = shelf.client.app[CATALOGUE].index
    async with asyncio.timeout(10):
        for post in posts:
            while await index.bot_file(shelf.stage.channel.chat_id, post.id) is None:
                await asyncio.sleep(0.02)


async def test_channels_are_folders_and_posts_are_files(
    stage: Stage, open_shelf: OpenShelf
) -> None:
    stage.post(SyntheticContent(1000, 1), file_name="A & <B> (ü).mkv")
    for name in ("Same.mkv", "same.MKV", "Same.mkv"):
        stage.post(SyntheticContent(1000, 2), file_name=name)
    stage.post(SyntheticContent(500, 3), file_name="Split.mp4.001")
    stage.post(SyntheticContent(400, 4), file_name="Split.mp4.002")
    shelf = await open_shelf()
    root, folder = await shelf.told("/dav/")
    assert (root["href"], folder["href"]) == ("/dav/", "/dav/Films/")
    assert folder["displayname"] == "Films"
    assert await shelf.told("/dav", depth="0") == [root]
    itself, *files = await shelf.told("/dav/Films/")
    assert itself == folder
    assert (await shelf.told(f"/dav/{stage.channel.chat_id}/"))[1]["getcontentlength"] == "1000"
    assert [(file["displayname"], file["getcontentlength"]) for file in files] == [
        ("A & B (ü).mkv", "1000"),
        ("Same.mkv", "1000"),
        ("same [post 4].MKV", "1000"),
        ("Same [post 5].mkv", "1000"),
        ("Split.mp4", "900"),
    ]
    assert files[0]["getcontenttype"] == "video/mp4"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", files[0]["getlastmodified"])
    for file in files:
        assert await shelf.told(file["href"], depth="0") == [file]
    listed = await shelf.ask("GET", "/dav/films")
    assert (await listed.text()).splitlines() == [file["displayname"] for file in files]
    head = await shelf.ask("HEAD", files[0]["href"])
    assert (head.status, head.headers["Content-Length"]) == (200, "1000")
    for path in ("/dav/None/", "/dav/Films/none.mkv", "/dav/Films/Split.mp4.002", "/dav/a/b/c"):
        assert (await shelf.ask("PROPFIND", path, Depth="1")).status == 404


async def test_nothing_can_be_changed(open_shelf: OpenShelf) -> None:
    shelf = await open_shelf()
    for method in ("PUT", "DELETE", "MKCOL", "MOVE", "COPY", "LOCK", "UNLOCK", "PROPPATCH", "POST"):
        response = await shelf.ask(method, "/dav/Films/x.mkv")
        assert response.status == 405, method
        assert set(response.headers["Allow"].split(",")) == set(ALLOWED)
    options = await shelf.ask("OPTIONS", "/dav/")
    assert (options.status, options.headers["DAV"]) == (200, "1")
    for depth in ({}, {"Depth": "infinity"}, {"Depth": "x"}):
        assert (await shelf.ask("PROPFIND", "/dav/", **depth)).status == 403


async def test_large_files_lead_to_the_worker_and_small_ones_are_here(
    stage: Stage, open_shelf: OpenShelf
) -> None:
    stage.post(SyntheticContent(FILM_BYTES, 1), file_name="Film.mkv")
    small = stage.post(SyntheticContent(SMALL_BYTES, 2), file_name="Small.mp4")
    shelf = await open_shelf()
    await shelf.told("/dav/Films/")
    await are_small(shelf, small)
    large = await shelf.ask("GET", "/dav/Films/Film.mkv", Range="bytes=0-1")
    assert large.status == 307
    assert large.headers["Cache-Control"] == "no-store"
    assert "&renew=" in large.headers["Location"]
    async with shelf.client.session.get(
        large.headers["Location"],
        headers={"Range": "bytes=20000000-20000009", "Authorization": "Basic eDp5"},
    ) as response:
        assert response.status == 206
        assert await response.read() == SyntheticContent(FILM_BYTES, 1).read(20_000_000, 10)
    near = await shelf.ask("GET", "/dav/Films/Small.mp4", Range="bytes=5-9")
    assert near.status == 206
    assert await near.read() == SyntheticContent(SMALL_BYTES, 2).read(5, 5)
    assert stage.served(small) == 0


async def test_only_who_knows_the_password_comes_in_and_guessing_is_slow(
    open_shelf: OpenShelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = await open_shelf()
    stranger = Shelf(shelf.stage, shelf.client, None)
    for path in ("/dav/", "/dav/Films/x.mkv", "/playlist.m3u", "/export.zip"):
        refused = await stranger.ask("GET", path)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
    guesser = Shelf(shelf.stage, shelf.client, "wrong password")
    statuses = [(await guesser.ask("GET", "/dav/")).status for _ in range(8)]
    free = PATIENCE_PER_ADDRESS.free_failures
    assert statuses == [401] * free + [429] * (8 - free)
    # What was wrong there counts at the form too, and the other way round.
    form = await shelf.client.post("/sign-in", data={"password": PASSWORD}, allow_redirects=False)
    assert form.status == 429
    waiting = await shelf.ask("GET", "/dav/")
    assert waiting.status == 429
    assert int(waiting.headers["Retry-After"]) >= 1
    assert PASSWORD not in caplog.text
    assert "wrong password" not in caplog.text


async def test_a_folder_that_is_not_read_yet_is_refused(open_shelf: OpenShelf) -> None:
    """Rather than shown empty: who keeps two places alike would delete what is in the other."""
    shelf = await open_shelf(WORKER_URL="http://127.0.0.1:1")
    response = await shelf.ask("PROPFIND", "/dav/-1001/", Depth="1")
    assert response.status == 404
    folders = await shelf.told("/dav/")
    assert [folder["href"] for folder in folders] == ["/dav/", "/dav/Films/"]
    response = await shelf.ask("PROPFIND", "/dav/Films/", Depth="1")
    assert response.status == 503
    assert (await response.json())["error"]["code"] == "still_reading"
    assert "Retry-After" in response.headers
    assert (await shelf.ask("GET", "/dav/Films/x.mkv")).status == 503


# -- Programs --------------------------------------------------------------------------------------


@dataclass
class Rclone:
    """rclone with this gallery as the remote `films:`, by its environment."""

    environment: Mapping[str, str]

    async def __call__(self, *arguments: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *(found("rclone"), *arguments),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaints = await process.communicate()
        assert process.returncode == 0, complaints.decode()
        return said


async def rclone_for(shelf: Shelf, home: Path) -> Rclone:
    hidden = (await run(found("rclone"), "obscure", PASSWORD)).strip()
    return Rclone(
        {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "RCLONE_CONFIG": str(home / "none.conf"),
            "RCLONE_CONFIG_FILMS_TYPE": "webdav",
            "RCLONE_CONFIG_FILMS_URL": shelf.url,
            "RCLONE_CONFIG_FILMS_VENDOR": "other",
            "RCLONE_CONFIG_FILMS_USER": "anybody",
            "RCLONE_CONFIG_FILMS_PASS": hidden,
        }
    )


async def test_rclone_lists_reads_in_the_middle_copies_and_compares(
    stage: Stage, open_shelf: OpenShelf, tmp_path: Path
) -> None:
    content = SyntheticContent(FILM_BYTES, 1)
    stage.post(content, file_name="Film (ü) & more.mkv")
    small = stage.post(SyntheticContent(SMALL_BYTES, 2), file_name="Small.mp4")
    shelf = await open_shelf()
    await shelf.told("/dav/Films/")
    await are_small(shelf, small)
    rclone = await rclone_for(shelf, tmp_path)
    listed = json.loads(await rclone("lsjson", "-R", "films:"))
    assert {each["Path"]: each["Size"] for each in listed if not each["IsDir"]} == {
        "Films/Film (ü) & more.mkv": FILM_BYTES,
        "Films/Small.mp4": SMALL_BYTES,
    }
    place = "films:Films/Film (ü) & more.mkv"
    middle = await rclone("cat", "--offset", "20000000", "--count", "1000", place)
    assert middle == content.read(20_000_000, 1000)
    await rclone("copy", "films:Films", str(tmp_path / "copy"))
    copied = (tmp_path / "copy" / "Film (ü) & more.mkv").read_bytes()
    assert copied == content.read(0, FILM_BYTES)
    await rclone("check", "--download", "films:Films", str(tmp_path / "copy"))


def has_fuse() -> bool:
    return os.access("/dev/fuse", os.R_OK | os.W_OK) and shutil.which("fusermount3") is not None


@asynccontextmanager
async def mounted(rclone: Rclone, folder: Path) -> AsyncIterator[bool]:
    """`films:` in a folder; whether that works here (containers may not mount)."""
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(found("rclone"), "mount", "--read-only", "films:", str(folder)),
        env=rclone.environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(15):
            while process.returncode is None and not folder.is_mount():
                await asyncio.sleep(0.05)
        yield process.returncode is None
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.skipif(not has_fuse(), reason="there is no FUSE here, so nothing can be mounted")
async def test_rclone_mounts_it(stage: Stage, open_shelf: OpenShelf, tmp_path: Path) -> None:
    content = SyntheticContent(FILM_BYTES, 1)
    stage.post(content, file_name="Film.mkv")
    shelf = await open_shelf()
    await shelf.told("/dav/Films/")
    rclone = await rclone_for(shelf, tmp_path)

    def look(film: Path) -> tuple[list[str], bytes]:
        with film.open("rb") as opened:
            opened.seek(20_000_000)
            return os.listdir(film.parent), opened.read(1000)

    async with mounted(rclone, tmp_path / "mount") as is_mounted:
        if not is_mounted:
            pytest.skip("this container may not mount")
        film = tmp_path / "mount" / "Films" / "Film.mkv"
        names, middle = await asyncio.to_thread(look, film)
        assert names == ["Film.mkv"]
        assert middle == content.read(20_000_000, 1000)


async def test_curl_cadaver_and_ffmpeg_read_it(
    stage: Stage, open_shelf: OpenShelf, sample_films: list[Path], tmp_path: Path
) -> None:
    film = stage.post(FileContent(sample_films[0]), file_name="Film.mp4")
    note = stage.post(BytesContent(b"a note"), "text/plain", file_name="Note.txt")
    shelf = await open_shelf()
    await shelf.told("/dav/Films/")
    await are_small(shelf, film, note)
    index = shelf.client.app[CATALOGUE].index
    bot_file = await index.bot_file(stage.channel.chat_id, film.id)
    assert bot_file is not None
    await index.forget_file_id(bot_file.file_id)  # now it comes from the worker, as large ones do
    body = sample_films[0].read_bytes()

    user = f"anybody:{PASSWORD}"
    got = tmp_path / "got.mp4"
    curl = (found("curl"), "-sS", "--fail", "-L", "-u", user, "-o", str(got))
    await run(*curl, "-r", "1000-1999", f"{shelf.url}Films/Film.mp4")
    assert got.read_bytes() == body[1000:2000]

    # What reads by ffmpeg's library forgets the password when it is led elsewhere, not the cookie.
    at = shelf.client.make_url("/")
    url = f"http://anybody:{quote(PASSWORD)}@{at.host}:{at.port}/dav/Films/Film.mp4"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    report = await run(
        *(ffmpeg, "-hide_banner", "-nostdin", "-v", "info", "-xerror"),
        *("-ss", "5", "-i", url, "-frames:v", "3", "-f", "null", "-"),
    )
    assert "Duration: 00:00:08" in report

    netrc = f"machine {at.host}\nlogin anybody\npassword {PASSWORD}\n"
    (tmp_path / ".netrc").write_text(netrc)
    said = await cadaver(tmp_path, f"{shelf.url}Films/", "ls", f"get Note.txt {tmp_path}/note.txt")
    assert re.search(r"Film\.mp4\s+[0-9]+", said), said
    assert (tmp_path / "note.txt").read_bytes() == b"a note"


async def cadaver(home: Path, url: str, *commands: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(found("cadaver"), url),
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate("\n".join([*commands, "quit", ""]).encode())
    return said.decode(errors="replace")
