"""What a channel holds besides films: albums, songs, subtitles, papers, films in parts.

Goal: each is posted as Telegram's own clients would post it, and the samples are what they say.
Method: real ffmpeg and real files in a folder; what is made by hand (a PDF, subtitles) is read back
by something that did not make it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from test_simulator_media import media_world, until

from telegram_simulator.content import BytesContent, FileContent
from telegram_simulator.ffmpeg import FfmpegFailed, find_ffmpeg, probe, probe_blocking, read_report
from telegram_simulator.media_folder import Found, MediaFolder, Stamp, batches, kind_of, mime_type
from telegram_simulator.sample_channel import (
    ALBUM,
    EXTRA_S,
    MORE,
    make_sample_channel,
    make_subtitles,
    pdf,
)
from telegram_simulator.world import Document, Photo, PhotoSize, Post, World

SECONDS = 8
FFMPEG = find_ffmpeg() or "ffmpeg"
# The first run makes all the samples, which takes its time on a slow machine.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="session")
def samples(sample_films: list[Path]) -> Path:
    """A whole sample channel, in the folder of the sample films and kept with them."""
    made = make_sample_channel(sample_films[0].parent, seconds=SECONDS)
    assert made == sample_films
    return sample_films[0].parent


def document(post: Post) -> Document:
    assert isinstance(post.media, Document)
    return post.media


def report(path: Path) -> str:
    """What ffmpeg says of a file."""
    command = [FFMPEG, "-hide_banner", "-nostdin", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


# -- the samples ---------------------------------------------------------------------------------


async def test_everything_is_posted_as_what_it_is(samples: Path, tmp_path: Path) -> None:
    for name in (MORE, ALBUM):
        shutil.copytree(samples / name, tmp_path / name)
    for path in samples.glob("Horizon*"):
        (tmp_path / path.name).symlink_to(path)
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path) as folder:
        posts = folder.posts
    photos = [post for post in posts if isinstance(post.media, Photo)]
    files = {document(post).file_name: document(post) for post in posts if post not in photos}
    assert {name: (file.kind, file.mime_type) for name, file in files.items()} == {
        "Aurora (MKV, sound in AC-3).mkv": ("video", "video/x-matroska"),
        "Interlude.flac": ("audio", "audio/flac"),
        "Overture.mp3": ("audio", "audio/mpeg"),
        "Programme.pdf": ("document", "application/pdf"),
        "Tides (in three parts).mp4.001": ("document", "application/octet-stream"),
        "Tides (in three parts).mp4.002": ("document", "application/octet-stream"),
        "Tides (in three parts).mp4.003": ("document", "application/octet-stream"),
        "Horizon (H.264, index in front).mp4": ("video", "video/mp4"),
        "Horizon (H.264, index in front).en.srt": ("document", "application/x-subrip"),
        "Horizon (H.264, index in front).de.vtt": ("document", "text/vtt"),
    }
    assert [post.text for post in photos] == ["Abstract", "", "", ""]
    assert [post.id for post in photos] == list(range(photos[0].id, photos[0].id + 4))
    assert photos[0].grouped_id
    assert {post.grouped_id for post in photos} == {photos[0].grouped_id}
    assert [post.id for post in posts if post.grouped_id] == [post.id for post in photos]
    for name, title in (("Overture.mp3", "Overture"), ("Interlude.flac", "Interlude")):
        song = files[name]
        assert (song.title, song.performer) == (title, "The Pocket Orchestra")
        assert (song.width, song.height, round(song.duration_s)) == (0, 0, 12)
        (cover,) = song.thumbnails
        assert (cover.width, cover.height) == (320, 320)
        assert cover.content.read(0, 3) == b"\xff\xd8\xff"


def test_samples_are_made_once(samples: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in samples.rglob("*") if path.is_file()}

    before = times()
    told: list[float] = []
    make_sample_channel(samples, lambda _name, share: told.append(share), seconds=SECONDS)
    assert times() == before
    assert set(told) == {1.0}


def test_the_parts_of_a_film_are_the_film(samples: Path, tmp_path: Path) -> None:
    parts = sorted((samples / MORE).glob("Tides*.mp4.*"))
    assert [path.suffix for path in parts] == [".001", ".002", ".003"]
    sizes = [path.stat().st_size for path in parts]
    assert sizes[0] == sizes[1] >= sizes[2] > 0
    with pytest.raises(FfmpegFailed):
        probe_blocking(FFMPEG, parts[1])
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(b"".join(path.read_bytes() for path in parts))
    command = [FFMPEG, "-v", "error", "-i", str(whole), "-map", "0:v", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    frames = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(frames) == EXTRA_S * 24


def test_one_film_is_not_for_browsers(samples: Path) -> None:
    told = report(samples / MORE / "Aurora (MKV, sound in AC-3).mkv")
    assert "Input #0, matroska" in told
    assert "Video: h264" in told
    assert "Audio: ac3" in told


@pytest.mark.parametrize("name", ["en.srt", "de.vtt"])
def test_subtitles_are_read_by_others(samples: Path, name: str) -> None:
    (path,) = samples.glob(f"Horizon*.{name}")
    command = [FFMPEG, "-v", "error", "-i", str(path), "-f", "srt", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert re.findall(r"(\S+) --> (\S+)", done.stdout) == [
        ("00:00:00,000", "00:00:03,000"),
        ("00:00:04,000", "00:00:07,000"),
    ]
    assert ("the <i>line</i> fills" if name == "en.srt" else "<i>Linie</i> füllt") in done.stdout


def test_subtitles_of_long_films_count_minutes(tmp_path: Path) -> None:
    made = make_subtitles(tmp_path / "film.mp4", seconds=64)
    assert [path.name for path in made] == ["film.en.srt", "film.de.vtt"]
    assert made[0].read_bytes().startswith(b"\xef\xbb\xbf1\r\n00:00:00,000 --> ")
    assert b"\r\n00:01:00,000 --> 00:01:03,000\r\n" in made[0].read_bytes()
    assert "\n01:00.000 --> 01:03.000 " in made[1].read_text()


def test_the_pdf_finds_its_objects_where_its_table_says() -> None:
    body = pdf(["A (heading)", "back\\slash"])
    table = int(re.findall(rb"startxref\n(\d+)\n%%EOF\n$", body)[0])
    places = re.findall(rb"(\d{10}) 00000 n \n", body[table:])
    assert body[table:].startswith(b"xref\n0 6\n")
    for number, place in enumerate(places, 1):
        assert body[int(place) :].startswith(b"%d 0 obj\n" % number)
    length, packed = re.findall(rb"/Length (\d+) .*?stream\n(.*)\nendstream", body, re.DOTALL)[0]
    assert len(packed) == int(length)
    text = zlib.decompress(packed).decode()
    assert "(A \\(heading\\)) Tj" in text
    assert "(back\\\\slash) Tj" in text


# -- names and kinds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("film.srt", "application/x-subrip"),
        ("film.VTT", "text/vtt"),
        ("film.ass", "text/x-ssa"),
        ("film.pdf", "application/pdf"),
        ("film.flac", "audio/flac"),
        ("film.mp3", "audio/mpeg"),
        ("film.mkv", "video/x-matroska"),
        ("film.avi", "video/x-msvideo"),
        ("film.mkv.001", "application/octet-stream"),
        ("film.mp4.part1", "application/octet-stream"),
        ("film.mp4.PART02", "application/octet-stream"),
        ("film.unheard-of", "application/octet-stream"),
    ],
)
def test_types_are_those_that_telegram_gives(name: str, mime: str) -> None:
    assert mime_type(Path(name)) == mime


def test_tags_are_the_songs_and_not_the_covers() -> None:
    facts = read_report(
        """Input #0, flac, from 'x.flac':
  Metadata:
    TITLE           : The Song: Part 2
    ARTIST          : Somebody
  Duration: 00:00:12.00, start: 0.000000, bitrate: 600 kb/s
  Stream #0:0: Audio: flac, 48000 Hz, stereo, s16
  Stream #0:1: Video: mjpeg (Baseline), yuvj444p(pc), 600x600, 90k tbr, 90k tbn (attached pic)
    Metadata:
      title           : The Cover
"""
    )
    assert (facts.title, facts.performer, facts.has_cover) == ("The Song: Part 2", "Somebody", True)
    silent = read_report("Input #0, wav, from 'x.wav':\n  Stream #0:0: Audio: pcm_s16le, mono\n")
    assert (silent.title, silent.performer, silent.has_cover) == (None, None, False)


async def test_a_film_is_no_song_for_having_a_title(samples: Path) -> None:
    facts = await probe(FFMPEG, samples / "Horizon (H.264, index in front).mp4")
    assert (facts.title, facts.has_cover) == ("Horizon", False)


# -- albums --------------------------------------------------------------------------------------


def found(world: World, *names: str) -> list[Found]:
    """Files of a folder as they are before they are posted: photos by .jpg, the rest by name."""
    files: list[Found] = []
    for name in names:
        path = Path("/media", name)
        media: Document | Photo = world.new_photo(PhotoSize("m", 1, 1, BytesContent(b"x")))
        if path.suffix != ".jpg":
            blank = world.new_document(BytesContent(b"x"), mime_type(path))
            media = replace(blank, kind=kind_of(blank.mime_type))
        files.append(Found(path, Stamp(1, 1), media))
    return files


@pytest.mark.parametrize(
    ("names", "batched"),
    [
        (["a.jpg", "b.jpg"], [["a.jpg"], ["b.jpg"]]),
        (["x.album/a.jpg", "x.album/b.mp4"], [["a.jpg", "b.mp4"]]),
        (["x.album/a.jpg", "y.album/a.jpg"], [["a.jpg"], ["a.jpg"]]),
        (
            ["x.album/a.jpg", "x.album/b.pdf", "x.album/c.jpg", "x.album/d.mp3", "z.jpg"],
            [["a.jpg", "c.jpg"], ["b.pdf"], ["d.mp3"], ["z.jpg"]],
        ),
        (
            [f"x.album/{n:02}.jpg" for n in range(23)],
            [[f"{n:02}.jpg" for n in range(first, min(first + 10, 23))] for first in (0, 10, 20)],
        ),
    ],
    ids=["no album", "photos and films", "two albums", "kinds apart", "ten at most"],
)
def test_albums_are_what_telegram_takes_together(
    names: list[str], batched: list[list[str]]
) -> None:
    got = batches(found(World(), *names))
    assert [[each.path.name for each in batch] for batch in got] == batched


async def test_an_album_that_appears_is_one_and_what_comes_later_is_not_in_it(
    tmp_path: Path,
) -> None:
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path, poll_s=0.05) as folder:
        making = tmp_path / ".making"
        making.mkdir()
        for name in ("a.txt", "b.txt"):
            (making / name).write_text(name)
        making.rename(tmp_path / "Papers.album")
        await until(lambda: len(folder.posts) == 2)
        first, second = folder.posts
        assert first.grouped_id == second.grouped_id is not None
        assert (first.text, second.text) == ("Papers", "")
        (tmp_path / "Papers.album" / "c.txt").write_text("c")
        await until(lambda: len(folder.posts) == 3)
        third = folder.posts[2]
        assert (third.grouped_id, third.text) == (None, "c")
        (tmp_path / "Papers.album" / "a.txt").write_text("a, changed")
        await until(lambda: folder.posts[0].edit_date is not None)
        assert folder.posts[0].grouped_id == first.grouped_id


async def test_a_folder_without_an_album_posts_files_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "album" / name).write_text(name)
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path) as folder:
        assert [(post.text, post.grouped_id) for post in folder.posts] == [("a", None), ("b", None)]
        content = document(folder.posts[0]).content
    assert isinstance(content, FileContent)
