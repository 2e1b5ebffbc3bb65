"""Qualities, seek pictures, split films and tracks, as the worker serves them.

Goal: a player that knows HLS plays every quality to its end with nothing but the URL of the
master playlist, however long the film; nothing else is opened by its token. Method: renditions
made by ffmpeg on the pocket Telegram, played by ffmpeg through the worker; bytes compared.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import worker
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, StartProcess, make_token
from test_films import FFMPEG

from telegram_simulator.content import BytesContent, FileContent, SyntheticContent
from telegram_simulator.renditions import with_qualities
from telegram_simulator.world import Document, Post

Viewer = TestClient[Any, Any]
MIB = 1 << 20
# The first run makes films and their qualities, which takes its time on a slow machine.
pytestmark = pytest.mark.timeout(180)


@dataclass
class Film:
    """A posted film with what Telegram made of it, and the signed paths to it."""

    stage: Stage
    post: Post

    @property
    def document(self) -> Document:
        assert isinstance(self.post.media, Document)
        return self.post.media

    def path(self, kind: str, rest: str = "", **claims: Any) -> str:
        ids = f"{self.stage.channel.chat_id}/{self.post.id}"
        return f"/{kind}/{ids}{rest}?token={self.stage.token(self.post, **claims)}"

    def made(self, mime_type: str) -> list[Document]:
        return [each for each in self.document.alternatives if each.mime_type == mime_type]

    @property
    def qualities(self) -> list[Document]:
        return [each for each in self.document.alternatives if each.video_codec]


@pytest.fixture
async def film(stage: Stage, sample_films: list[Path], film_qualities: Path) -> Film:
    world = stage.telegram.world
    blank = world.new_document(FileContent(sample_films[1]), "video/mp4", 4)
    media = replace(
        with_qualities(world, blank, film_qualities),
        file_name="Embers.mp4",
        kind="video",
        duration_s=8.0,
        width=1280,
        height=720,
    )
    return Film(stage, world.post(stage.channel, media, ""))


async def text_of(viewer: Viewer, path: str, status: int = 200) -> str:
    async with viewer.get(path) as response:
        assert response.status == status, await response.text()
        return str(await response.text())


def addresses(playlist: str) -> list[str]:
    return [line for line in playlist.splitlines() if line and not line.startswith("#")]


# -- playlists -------------------------------------------------------------------------------------


async def test_the_master_playlist_has_every_quality_with_its_codecs(
    film: Film, viewer: Viewer
) -> None:
    async with viewer.get(film.path("hls", "/master.m3u8")) as response:
        assert response.content_type == "application/vnd.apple.mpegurl"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        text = await response.text()
    levels = re.findall(r'BANDWIDTH=(\d+),.*CODECS="([^"]+)",RESOLUTION=(\d+x\d+)', text)
    assert [size for _, _, size in levels] == ["1280x720", "640x360", "640x360"]
    kinds = [codecs.partition(".")[0] for _, codecs, _ in levels]
    assert kinds[0] == "avc1"
    assert sorted(kinds[1:])[0] == ("av01" if "av01" in kinds else "avc1")
    assert all(codecs.endswith("mp4a.40.2") for _, codecs, _ in levels)
    assert len(addresses(text)) == 3


async def test_each_quality_is_its_file_segment_by_segment(film: Film, viewer: Viewer) -> None:
    master = film.path("hls", "/master.m3u8")
    qualities = {each.id: each.content for each in film.qualities}
    for address in addresses(await text_of(viewer, master)):
        path = urljoin(master, address)
        content = qualities[int(re.findall(r"/(\d+)\.m3u8", path)[0])]
        playlist = await text_of(viewer, path)
        (url,) = set(addresses(playlist))
        ranges = re.findall(r'BYTERANGE[:="]+(\d+)@(\d+)', playlist)
        position = 0
        for length, start in ((int(a), int(b)) for a, b in ranges):
            assert start == position
            headers = {"Range": f"bytes={start}-{start + length - 1}"}
            async with viewer.get(urljoin(path, url), headers=headers) as response:
                assert response.status == 206
                assert await response.read() == content.read(start, length)
            position += length
        assert position == content.size


async def test_ffmpeg_plays_every_quality_from_the_master_playlist(
    film: Film, stage: Stage, start_worker_process: StartProcess
) -> None:
    process = await start_worker_process()
    url = process.url + film.path("hls", "/master.m3u8")
    for number in range(3):
        # ffmpeg 9 loses its way between byte ranges of one file where a server offers ranges (as
        # with a plain nginx); it is told not to look for them.
        command = ["-v", "error", "-nostdin", "-http_seekable", "0", "-i", url]
        command += ["-map", f"0:v:{number}", "-f", "null", "-"]
        ran = await asyncio.create_subprocess_exec(
            FFMPEG, "-stats", *command, stderr=asyncio.subprocess.PIPE
        )
        _, told = await ran.communicate()
        assert ran.returncode == 0, told.decode()
        frames = re.findall(r"frame=\s*(\d+)", told.decode())
        assert int(frames[-1]) == pytest.approx(8 * 24, abs=60), told.decode()


async def test_a_film_that_outlasts_its_token_goes_on_by_its_grant(
    film: Film, viewer: Viewer
) -> None:
    """The playlist is loaded once and names an hour's token; segments asked later are renewed."""
    now = int(time.time())
    subject = f"{film.stage.channel.chat_id}/{film.post.id}"
    grant = make_token(subject, aud="renewal", iat=None, exp=now + 12 * 3600)
    expired = film.path("hls", "/master.m3u8", iat=now - 3700, exp=now - 100) + f"&renew={grant}"
    async with viewer.get(expired) as response:
        assert response.status == 200
        assert len(response.history) == 1
        master, text = response.url.raw_path_qs, await response.text()
    playlist_url = urljoin(master, addresses(text)[0])
    assert f"renew={grant}" in playlist_url
    segment = addresses(await text_of(viewer, playlist_url))[0]
    old = expired.partition("token=")[2].partition("&")[0]
    stale = re.sub(r"token=[^&]+", f"token={old}", segment)
    path = urljoin(playlist_url, stale)
    async with viewer.get(path, headers={"Range": "bytes=0-99"}) as response:
        assert response.status == 206
        assert len(await response.read()) == 100
    without = re.sub(r"&renew=[^&]+", "", path)
    assert "token_expired" in await text_of(viewer, without, 401)


async def test_a_films_token_opens_its_own_documents_only(
    film: Film, viewer: Viewer, stage: Stage
) -> None:
    other = stage.post_synthetic(MIB)
    assert other.media is not None
    path = film.path("stream")
    for document_id in (other.media.id, 7, 0):
        answer = await text_of(viewer, f"{path}&document={document_id}", 404)
        assert "file_missing" in answer
    assert "bad_query" in await text_of(viewer, f"{path}&document=x", 400)
    token = stage.token(other)
    master = film.path("hls", "/master.m3u8").partition("?")[0]
    assert "token_for_another_file" in await text_of(viewer, f"{master}?token={token}", 403)
    for kind, rest in (("hls", "/master.m3u8"), ("storyboard", ""), ("tracks", "")):
        path = film.path(kind, rest).partition("?")[0]
        assert "token_missing" in await text_of(viewer, path, 401)


async def test_a_film_without_qualities_says_so(stage: Stage, viewer: Viewer) -> None:
    plain = Film(stage, stage.post_synthetic(MIB))
    assert "file_missing" in await text_of(viewer, plain.path("hls", "/master.m3u8"), 404)
    assert "file_missing" in await text_of(viewer, plain.path("hls", "/7.m3u8"), 404)
    assert "file_missing" in await text_of(viewer, plain.path("storyboard"), 404)


async def test_a_hostile_playlist_is_left_out_and_its_film_plays_on(
    film: Film, viewer: Viewer, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """One quality's playlist leads elsewhere: the others are offered, and that one is a 502."""
    first = film.qualities[0]
    evil = BytesContent(
        f'#EXTM3U\n#EXT-X-MAP:URI="mtproto:{first.id}",BYTERANGE="10@0"\n#EXTINF:2,\n'
        "#EXT-X-BYTERANGE:10@0\nhttps://evil.example/steal\n".encode()
    )
    alternatives = tuple(
        replace(each, content=evil) if each.file_name == f"mtproto:{first.id}" else each
        for each in film.document.alternatives
    )
    media = replace(film.document, alternatives=alternatives)
    hostile = Film(stage, stage.telegram.world.post(stage.channel, media, ""))
    text = await text_of(viewer, hostile.path("hls", "/master.m3u8"))
    assert len(addresses(text)) == 2
    assert f"{first.id}.m3u8" not in text
    refused = await text_of(viewer, hostile.path("hls", f"/{first.id}.m3u8"), 502)
    assert "evil" not in text + refused
    assert f"quality {first.id} is left out" in caplog.text


async def test_an_endless_playlist_is_not_read(film: Film, viewer: Viewer, stage: Stage) -> None:
    long = SyntheticContent(worker.PLAYLIST_MAX_BYTES + 1)
    alternatives = tuple(
        replace(each, content=long) if each.mime_type == "application/x-mpegurl" else each
        for each in film.document.alternatives
    )
    media = replace(film.document, alternatives=alternatives)
    endless = Film(stage, stage.telegram.world.post(stage.channel, media, ""))
    await text_of(viewer, endless.path("hls", "/master.m3u8"), 404)
    assert all(stage.telegram.counters.files[each.id].requests == 0 for each in alternatives)


async def test_expired_references_of_qualities_are_mended(
    film: Film, viewer: Viewer, stage: Stage
) -> None:
    quality = film.qualities[0]
    path = film.path("stream") + f"&document={quality.id}"
    async with viewer.get(path, headers={"Range": "bytes=0-9"}) as response:
        assert response.status == 206
    stage.telegram.world.expire_references(film.document.id)
    for each in film.document.alternatives:
        stage.telegram.world.expire_references(each.id)
    async with viewer.get(path) as response:
        assert await response.read() == quality.content.read(0, quality.content.size)


# -- seek pictures ---------------------------------------------------------------------------------


async def test_seek_pictures_are_told_and_given(film: Film, viewer: Viewer) -> None:
    path = film.path("storyboard")
    async with viewer.get(path) as response:
        board = await response.json()
    assert board["frame_width"] > 0
    assert board["frames"] == sorted(board["frames"])
    assert board["frames"][0][1:] == [0, 0]
    (picture,) = film.made("application/x-tgstoryboard")
    async with viewer.get(urljoin(path, board["url"])) as response:
        assert response.content_type == "image/jpeg"
        assert await response.read() == picture.content.read(0, picture.content.size)


# -- tracks ----------------------------------------------------------------------------------------


async def test_tracks_tell_what_a_browser_must_be_able_to_play(
    stage: Stage, viewer: Viewer, sample_films: list[Path]
) -> None:
    expected = [
        'video/mp4; codecs="avc1.',
        'video/mp4; codecs="avc1.',  # the index at the end
        'video/webm; codecs="vp9, opus"',
    ]
    for path, mime_type in zip(sample_films, expected, strict=True):
        post = stage.post(FileContent(path), "application/octet-stream", file_name=path.name)
        async with viewer.get(Film(stage, post).path("tracks")) as response:
            body = await response.json()
        assert body["type"].startswith(mime_type)
        assert [track["kind"] for track in body["tracks"]] == ["video", "audio"]


@pytest.mark.parametrize(
    "content",
    [
        SyntheticContent(3 * MIB, 7),
        BytesContent(b""),
        BytesContent(b"\x1aE\xdf\xa3"),
        BytesContent(b"\x00\x00\x00\x10ftypisom\x00\x00\x02\x00" * 3),
        BytesContent(b"\x00\x00\x00\x08mdat" * 200),
        BytesContent(b"\x00\x00\x00\x01moov\x00\x00\x7f\xff\xff\xff\xff\xff"),
    ],
    ids=["no film", "empty", "EBML alone", "no index", "too many boxes", "enormous index"],
)
async def test_a_film_that_tells_nothing_has_no_tracks(
    stage: Stage, viewer: Viewer, content: Any
) -> None:
    post = stage.post(content, "video/mp4")
    async with viewer.get(Film(stage, post).path("tracks")) as response:
        assert response.status == 200
        assert (await response.json())["tracks"] == []
    assert stage.served(post) <= MIB + 128 * 1024


# -- split films -----------------------------------------------------------------------------------


def split(stage: Stage, sizes: list[int]) -> tuple[list[Post], bytes]:
    posts, body = [], b""
    for number, size in enumerate(sizes, 1):
        content = SyntheticContent(size, number)
        posts.append(stage.post(content, "", file_name=f"Film.mp4.{number:03}"))
        body += content.read(0, size)
    return posts, body


async def test_parts_are_one_film_under_one_token(stage: Stage, viewer: Viewer) -> None:
    posts, body = split(stage, [3 * MIB + 17, 2 * MIB, 5])
    parts = [post.id for post in posts[1:]]
    path = stage.path(posts[0], parts=parts)
    async with viewer.head(path) as response:
        assert response.headers["Content-Length"] == str(len(body))
        assert response.content_type == "video/mp4"
        assert 'filename="Film.mp4"' in response.headers["Content-Disposition"]
        tag = response.headers["ETag"]
    async with viewer.get(path) as response:
        assert await response.read() == body
    seam = 3 * MIB + 17
    for start, stop in ((seam - 5, seam + 5), (seam, seam + 1), (len(body) - 6, len(body))):
        headers = {"Range": f"bytes={start}-{stop - 1}", "If-Range": tag}
        async with viewer.get(path, headers=headers) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(body)}"
            assert await response.read() == body[start:stop]
    headers = {"Range": f"bytes={seam - 2}-{seam + 1},0-1,-7"}
    async with viewer.get(path, headers=headers) as response:
        assert response.status == 206
        answer = await response.read()
    for wanted in (body[seam - 2 : seam + 2], body[:2], body[-7:]):
        assert wanted in answer


async def test_without_parts_in_its_token_a_part_is_itself(stage: Stage, viewer: Viewer) -> None:
    posts, _ = split(stage, [1000, 500])
    async with viewer.get(stage.path(posts[0])) as response:
        assert len(await response.read()) == 1000
    refused = stage.path(posts[1]).replace(stage.token(posts[1]), stage.token(posts[0], parts=[3]))
    assert "token_for_another_file" in await text_of(viewer, refused, 403)


async def test_a_missing_part_is_a_missing_film(stage: Stage, viewer: Viewer) -> None:
    posts, _ = split(stage, [1000, 500])
    stage.telegram.world.delete(posts[1])
    assert "file_missing" in await text_of(viewer, stage.path(posts[0], parts=[posts[1].id]), 404)


@pytest.mark.parametrize(
    "parts", ["x", [0], [-1], [1.5], ["2"], [True], [2**31], {"a": 1}, list(range(1, 300))]
)
def test_parts_that_are_none_are_refused(parts: Any) -> None:
    token = make_token("-100/2", parts=parts)
    with pytest.raises(worker.TokenInvalid):
        worker.verify_token(token, (JWT_SECRET,), time.time())


async def test_a_grant_renews_the_parts_too(stage: Stage, viewer: Viewer) -> None:
    posts, body = split(stage, [1000, 500])
    now, parts = int(time.time()), [posts[1].id]
    subject = f"{stage.channel.chat_id}/{posts[0].id}"
    grant = make_token(subject, aud="renewal", iat=None, exp=now + 7200, parts=parts)
    path = stage.path(posts[0], iat=now - 3700, exp=now - 100, parts=parts) + f"&renew={grant}"
    async with viewer.get(path) as response:
        assert await response.read() == body


# -- the listing -----------------------------------------------------------------------------------


async def test_the_listing_tells_what_there_is_of_a_film(
    film: Film, stage: Stage, viewer: Viewer
) -> None:
    song = stage.post(
        BytesContent(b"x"), "audio/mpeg", file_name="song.mp3", kind="audio",
        title="Ode", performer="L. v. B.",
    )  # fmt: skip
    reply = stage.telegram.world.post(stage.channel, song.media, "", reply_to=film.post.id)
    chat_id = stage.channel.chat_id
    token = make_token(str(chat_id), scope="list")
    async with viewer.get(f"/files/{chat_id}", params={"token": token}) as response:
        files = {file["message_id"]: file for file in (await response.json())["files"]}
    assert files[film.post.id]["qualities"] == [720, 360]
    assert files[film.post.id]["has_storyboard"] is True
    assert (files[song.id]["title"], files[song.id]["performer"]) == ("Ode", "L. v. B.")
    assert files[reply.id]["reply_to"] == film.post.id
    assert "qualities" not in files[song.id]
