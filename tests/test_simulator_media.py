"""Files as posts: the media folder, the looped film and the sample films.

Goal: what lies in a folder is in the channel, with what Telegram would tell of it, and a film
played in a loop is a film. Method: real ffmpeg, real files, a folder that changes while watched.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from telegram_simulator import media_folder, sample_channel, sample_films
from telegram_simulator.bot_api import BotApiServer, byte_range
from telegram_simulator.content import FileContent
from telegram_simulator.ffmpeg import FfmpegFailed, find_ffmpeg, probe, read_report
from telegram_simulator.looped_film import LoopedFilm, NotLoopable
from telegram_simulator.media_folder import MediaFolder, natural_order, scan
from telegram_simulator.world import Channel, Document, Photo, World

SECONDS = 8
# The first run makes the sample films, which takes its time on a slow machine.
pytestmark = pytest.mark.timeout(180)
FFMPEG = find_ffmpeg() or "ffmpeg"


@pytest.fixture
def films(sample_films: list[Path]) -> list[Path]:
    return sample_films


# -- the sample films ----------------------------------------------------------------------------


async def test_the_three_films_are_what_they_say(films: list[Path]) -> None:
    front, end, webm = films
    facts = [await probe(FFMPEG, film) for film in films]
    assert [(fact.width, fact.height) for fact in facts] == [(1280, 720), (1280, 720), (854, 480)]
    assert all(abs(fact.duration_s - SECONDS) < 0.05 and fact.has_audio for fact in facts)
    assert front.read_bytes().index(b"moov") < front.read_bytes().index(b"mdat")
    assert end.read_bytes().index(b"mdat") < end.read_bytes().index(b"moov")
    assert webm.read_bytes()[:4] == b"\x1a\x45\xdf\xa3"


def test_films_are_made_once(films: list[Path]) -> None:
    told: list[tuple[str, float]] = []
    before = [film.stat().st_mtime_ns for film in films]
    sample_films.make_sample_films(
        films[0].parent, lambda name, share: told.append((name, share)), seconds=SECONDS
    )
    assert [film.stat().st_mtime_ns for film in films] == before
    assert told == [(film.name, 1.0) for film in films]


def test_progress_goes_up_and_a_broken_recipe_leaves_nothing(tmp_path: Path) -> None:
    shares: list[float] = []
    (webm,) = [recipe for recipe in sample_films.FILMS if recipe.name.endswith(".webm")]
    sample_films.make_sample_films(
        tmp_path, lambda _name, share: shares.append(share), seconds=4, recipes=[webm]
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    broken = replace(webm, name="broken.webm", picture="no_such_source")
    with pytest.raises(FfmpegFailed):
        sample_films.make_sample_films(tmp_path, seconds=4, recipes=[broken])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([webm.name, f".{webm.name}.recipe"])


def test_the_clock_tells_the_time() -> None:
    clock = sample_films.Clock(height=48)
    frames = clock.frames(seconds=2, per_second=10)
    frame_bytes = clock.width * clock.height
    assert len(frames) == 20 * frame_bytes
    pictures = {frames[n * frame_bytes : (n + 1) * frame_bytes] for n in range(20)}
    assert len(pictures) == 20


# -- the looped film -----------------------------------------------------------------------------


def checksums(path: Path | str, *options: str) -> list[str]:
    """The checksum of every decoded picture."""
    command = [FFMPEG, "-v", "error", *options, "-i", str(path), "-an", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    rows = [line.split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    return [row[-1].strip() for row in rows]


@pytest.mark.parametrize("number", [0, 1], ids=["index in front", "index at the end, B-frames"])
def test_a_looped_film_plays_its_source_again_and_again(
    films: list[Path], tmp_path: Path, number: int
) -> None:
    film = LoopedFilm(films[number], 3)
    copy = tmp_path / "looped.mp4"
    copy.write_bytes(film.read(0, film.size))
    assert copy.stat().st_size == film.size
    once = checksums(films[number])
    assert checksums(copy) == once * 3


async def test_a_looped_film_keeps_time_and_sound(films: list[Path], tmp_path: Path) -> None:
    film = LoopedFilm(films[1], 5)
    copy = tmp_path / "looped.mp4"
    copy.write_bytes(film.read(0, film.size))
    facts = await probe(FFMPEG, copy)
    assert facts.duration_s == pytest.approx(5 * SECONDS, abs=0.03)
    assert film.duration_s == pytest.approx(5 * SECONDS, abs=0.001)
    raw = subprocess.run(
        [FFMPEG, "-v", "error", "-i", str(copy), "-f", "s16le", "-ac", "1", "-ar", "48000", "-"],
        capture_output=True,
        check=True,
    )
    assert raw.stderr == b""
    samples = len(raw.stdout) // 2
    assert samples == pytest.approx(5 * SECONDS * 48000, abs=1100)
    # Each turn begins and ends in silence and is loud in the middle: so it did not drift.
    sound = memoryview(raw.stdout).cast("h")
    for turn in range(5):
        start = turn * SECONDS * 48000
        middle = start + SECONDS * 24000
        assert max(map(abs, sound[middle : middle + 48000])) > 1000
        assert max(map(abs, sound[start + 10 : start + 480])) < 300


async def test_a_track_that_is_longer_does_not_drift(tmp_path: Path) -> None:
    """Odd frame rate, sound 0.4 s longer than the picture: what a real file is like."""
    source, copy = tmp_path / "source.mp4", tmp_path / "looped.mp4"
    command = [
        *(FFMPEG, "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x48:r=24000/1001:d=2"),
        *("-f", "lavfi", "-i", "sine=440:d=2.4:r=44100", "-c:v", "libx264", "-c:a", "aac"),
        str(source),
    ]
    subprocess.run(command, check=True)
    film = LoopedFilm(source, 50)
    copy.write_bytes(film.read(0, film.size))
    once = checksums(source)
    assert checksums(copy) == once * 50
    assert film.duration_s == pytest.approx(50 * len(once) * 1001 / 24000, abs=0.01)
    sound = subprocess.run(
        [FFMPEG, "-v", "error", "-i", str(copy), "-vn", "-f", "framecrc", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    last = sound.stdout.splitlines()[-1].split(",")
    ends_s = (int(last[2]) + int(last[3])) / 44100
    assert ends_s == pytest.approx(film.duration_s, abs=0.05)


def test_any_window_of_a_looped_film_is_the_same_film(films: list[Path]) -> None:
    film = LoopedFilm(films[0], 3)
    whole = film.read(0, film.size)
    head = film.size - 3 * film.turn_bytes
    for start, length in [
        (0, 100),
        (head - 10, 20),
        (head + film.turn_bytes - 5, 10),
        (head + 12345, 1 << 20),
        (film.size - 3, 100),
        (film.size, 10),
        (film.size + 10, 10),
    ]:
        assert film.read(start, length) == whole[start : start + length]


async def test_two_hours_cost_no_disk_and_seek_over_http(films: list[Path]) -> None:
    """Well past 4 GiB, so that 64-bit offsets are really needed."""
    times = (5 << 30) // LoopedFilm(films[0], 1).turn_bytes
    film = LoopedFilm(films[0], times)
    assert film.size > 4 << 30
    late = film.duration_s - SECONDS
    async with served(film) as url:
        command = [FFMPEG, "-v", "error", "-ss", f"{late:.3f}", "-i", url, "-an", "-t", "2"]
        process = await asyncio.create_subprocess_exec(
            *command, "-f", "framemd5", "-", stdout=-1, stderr=-1
        )
        out, err = await process.communicate()
    assert err == b""
    rows = [line for line in out.decode().splitlines() if not line.startswith("#")]
    shown = [row.split(",")[-1].strip() for row in rows]
    assert shown == checksums(films[0], "-t", "2")


@asynccontextmanager
async def served(film: LoopedFilm) -> AsyncIterator[str]:
    """The film on a small HTTP server that knows ranges."""

    async def answer(request: web.Request) -> web.StreamResponse:
        window = byte_range(request.headers.get("Range"), film.size)
        assert window is not None
        start, stop = window
        content_range = f"bytes {start}-{stop - 1}/{film.size}"
        response = web.StreamResponse(status=206, headers={"Content-Range": content_range})
        response.content_length = stop - start
        await response.prepare(request)
        while start < stop:
            piece = film.read(start, min(1 << 18, stop - start))
            await response.write(piece)
            start += len(piece)
        return response

    app = web.Application()
    app.router.add_get("/film.mp4", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/film.mp4"
    await runner.cleanup()


@pytest.mark.parametrize(
    "body", [b"", b"not a film at all, but long enough", b"\0\0\0\x10moov" * 9]
)
def test_what_is_no_mp4_is_not_looped(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(body)
    with pytest.raises(NotLoopable):
        LoopedFilm(path, 2)


def test_a_webm_is_not_looped(films: list[Path]) -> None:
    with pytest.raises(NotLoopable):
        LoopedFilm(films[2], 2)


def test_a_fragmented_mp4_is_not_looped(films: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "fragments.mp4"
    flags = ["-c", "copy", "-movflags", "frag_keyframe+empty_moov", str(path)]
    subprocess.run([FFMPEG, "-v", "error", "-i", str(films[0]), *flags], check=True)
    with pytest.raises(NotLoopable, match="fragmented"):
        LoopedFilm(path, 2)


# -- the folder ----------------------------------------------------------------------------------


def media_world() -> tuple[World, Channel]:
    world = World((1, 2, 4))
    return world, world.add_channel("Films", world.add_bot())


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not happened():
            await asyncio.sleep(0.02)


async def test_files_become_posts_with_what_ffmpeg_can_tell(
    films: list[Path], tmp_path: Path
) -> None:
    for number, film in enumerate(films, 1):
        (tmp_path / f"{number} {film.name}").symlink_to(film)
    picture = sample_films.make_sample_pictures(films[0].parent / sample_channel.ALBUM)[0]
    (tmp_path / "9 picture.jpg").symlink_to(picture)
    (tmp_path / "10 notes.txt").write_text("notes")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "half.mp4.part").write_text("x")
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path) as folder:
        posts = folder.posts
        expected = [f"{n} {film.stem}" for n, film in enumerate(films, 1)]
        assert [post.text for post in posts] == [*expected, "9 picture", "10 notes"]
        video, photo, notes = posts[0].media, posts[3].media, posts[4].media
        assert isinstance(video, Document)
        assert (video.kind, video.mime_type) == ("video", "video/mp4")
        assert (video.width, video.height, round(video.duration_s)) == (1280, 720, SECONDS)
        assert sha(video.content.read(0, video.content.size)) == sha(films[0].read_bytes())
        (thumbnail,) = video.thumbnails
        assert (thumbnail.width, thumbnail.height) == (320, 180)
        assert thumbnail.content.read(0, 3) == b"\xff\xd8\xff"
        assert isinstance(photo, Photo)
        assert [(s.kind, s.width, s.height) for s in photo.sizes] == [
            ("m", 320, 213),
            ("x", 800, 533),
            ("y", 1280, 853),
        ]
        assert all(size.content.read(0, 3) == b"\xff\xd8\xff" for size in photo.sizes)
        assert isinstance(notes, Document)
        assert (notes.kind, notes.mime_type) == ("document", "text/plain")
    used = {post.media.dc_id for post in posts if post.media}
    assert used == {1, 2, 4}


async def updates(url: str) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return list((await answer.json())["result"])


async def test_a_dropped_file_becomes_a_post_and_an_update(tmp_path: Path) -> None:
    world, channel = media_world()
    (bot,) = world.bots.values()
    async with (
        BotApiServer(world) as bot_api,
        MediaFolder(world, channel, tmp_path, poll_s=0.05) as folder,
    ):
        url = f"{bot_api.url}/bot{bot.token}/getUpdates"
        path = tmp_path / "new.bin"
        path.write_bytes(b"first")
        await until(lambda: len(folder.posts) == 1)
        (new,) = await updates(url)
        assert new["channel_post"]["document"]["file_name"] == "new.bin"
        path.write_bytes(b"second, longer")
        await until(lambda: folder.posts[0].edit_date is not None)
        _new, edited = await updates(url)
        assert edited["edited_channel_post"]["message_id"] == new["channel_post"]["message_id"]
        assert edited["edited_channel_post"]["document"]["file_size"] == 14
        path.unlink()
        await until(lambda: not folder.posts)
        assert [post.service for post in channel.posts.values()] == [True]


async def test_a_file_that_still_grows_is_not_posted(tmp_path: Path) -> None:
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path, poll_s=0.1) as folder:
        with (tmp_path / "growing.bin").open("ab", buffering=0) as growing:
            for _step in range(12):
                growing.write(b"x" * 100)
                await asyncio.sleep(0.04)
                assert folder.posts == []
        await until(lambda: len(folder.posts) == 1)
        media = folder.posts[0].media
        assert isinstance(media, Document)
        assert media.content.size == 1200


async def test_broken_films_and_pictures_are_posted_all_the_same(tmp_path: Path) -> None:
    for name in ("film.mp4", "picture.jpg", "song.mp3"):
        (tmp_path / name).write_bytes(b"not what the name says")
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path) as folder:
        kinds = [post.media.kind for post in folder.posts if isinstance(post.media, Document)]
    assert kinds == ["video", "document", "audio"]


async def test_without_ffmpeg_files_are_plain(
    films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_folder, "find_ffmpeg", lambda: None)
    (tmp_path / "film.mp4").symlink_to(films[0])
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path) as folder:
        media = folder.posts[0].media
    assert isinstance(media, Document)
    assert (media.kind, media.duration_s, media.thumbnails) == ("video", 0, ())


async def test_trouble_with_one_file_does_not_end_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "first.bin").write_bytes(b"first")
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path, poll_s=0.05) as folder:
        world.delete(folder.posts[0])  # behind the folder's back
        (tmp_path / "first.bin").unlink()
        (tmp_path / "second.bin").write_bytes(b"second")
        await until(lambda: [post.text for post in folder.posts] == ["second"])
    assert "could not be followed" in caplog.text


async def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    world, channel = media_world()
    with pytest.raises(FileNotFoundError):
        async with MediaFolder(world, channel, tmp_path / "nowhere"):
            pass


def test_names_sort_as_people_sort_them(tmp_path: Path) -> None:
    names = ["Part 10.mp4", "part 2.mp4", "Part 1.mp4", "extras/a.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [str(path.relative_to(tmp_path)) for path in scan(tmp_path)]
    assert found == ["extras/a.mp4", "Part 1.mp4", "part 2.mp4", "Part 10.mp4"]
    assert natural_order("a2") < natural_order("a10")


def test_a_turned_film_is_as_high_as_it_is_shown() -> None:
    facts = read_report(
        """Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'x.mov':
  Duration: 01:02:03.50, start: 0.000000, bitrate: 1 kb/s
  Stream #0:0[0x1](und): Video: h264 (avc1 / 0x31637661), yuv420p, 1920x1080, 24 fps
      Side data:
        displaymatrix: rotation of -90.00 degrees
"""
    )
    assert (facts.duration_s, facts.width, facts.height) == (3723.5, 1080, 1920)
    assert (facts.has_picture, facts.has_audio) == (True, False)


def test_a_file_on_disk_reads_as_it_is(films: list[Path]) -> None:
    content = FileContent(films[2])
    assert content.read(100, 1000) == films[2].read_bytes()[100:1100]
