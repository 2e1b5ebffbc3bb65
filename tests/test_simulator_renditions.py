"""What Telegram makes of a film: other qualities, their playlists, pictures for the seek bar.

Goal: a player that follows the playlists sees the film, changes quality at any segment, and finds
each moment in the storyboard. Method: real ffmpeg makes them and plays them back; what it decodes
through a playlist is compared with what it decodes from the file itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_simulator_media import media_world, until, updates

from telegram_simulator import renditions
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import BytesContent, FileContent
from telegram_simulator.ffmpeg import FfmpegFailed, encoders, find_ffmpeg, probe_blocking
from telegram_simulator.fragmented_film import Rendition, Segment, read_rendition
from telegram_simulator.media_folder import MediaFolder, scan
from telegram_simulator.mp4_boxes import BrokenMp4
from telegram_simulator.renditions import make_qualities, media_playlist, with_qualities
from telegram_simulator.world import Document, World

SECONDS = 8
FFMPEG = find_ffmpeg() or "ffmpeg"
# The first run makes films and their qualities, which takes its time on a slow machine.
pytestmark = pytest.mark.timeout(180)


def ffmpeg(*arguments: object) -> bytes:
    command = [FFMPEG, "-v", "error", "-nostdin", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b"", done.stderr
    return done.stdout


def decoded(*source: object) -> dict[str, list[str]]:
    """The checksum of every decoded frame, by number of the stream."""
    frames: dict[str, list[str]] = {}
    for line in ffmpeg(*source, "-f", "framemd5", "-").decode().splitlines():
        if not line.startswith("#"):
            stream, *_times, checksum = line.split(",")
            frames.setdefault(stream, []).append(checksum.strip())
    return frames


def film_in_a_world(film: Path, folder: Path) -> tuple[World, Document]:
    """A film that is kept in data centre 4, the last one, with its alternatives."""
    world = World((1, 2, 4))
    document = world.new_document(FileContent(film), "video/mp4", dc_id=4)
    return world, with_qualities(world, document, folder)


def text(document: Document) -> str:
    return document.content.read(0, document.content.size).decode()


def qualities_of(film: Document) -> dict[Document, Document]:
    """Each quality and its playlist, found as clients find it: by the name of the playlist."""
    films = {each.id: each for each in film.alternatives if each.video_codec}
    lists = [each for each in film.alternatives if each.mime_type == "application/x-mpegurl"]
    named = {int((each.file_name or "").removeprefix("mtproto:")): each for each in lists}
    assert named.keys() == films.keys()
    return {films[number]: named[number] for number in films}


# -- playing them --------------------------------------------------------------------------------


def test_each_quality_plays_through_its_playlist(
    sample_films: list[Path], film_qualities: Path, tmp_path: Path
) -> None:
    _world, film = film_in_a_world(sample_films[1], film_qualities)
    for quality, playlist in qualities_of(film).items():
        assert isinstance(quality.content, FileContent)
        path = tmp_path / "list.m3u8"
        target = path.with_name("film.mp4")
        target.unlink(missing_ok=True)
        target.symlink_to(quality.content.path)
        written = re.sub(r"mtproto:(\d+)", target.name, text(playlist))
        assert text(playlist).count(f"mtproto:{quality.id}") == written.count(target.name) > 2
        path.write_text(written)
        through_the_list = decoded("-i", path)
        assert through_the_list == decoded("-i", quality.content.path)
        assert len(through_the_list["0"]) == SECONDS * 24
        assert len(through_the_list["1"]) * 1024 / 48000 == pytest.approx(SECONDS, abs=0.05)


def test_qualities_are_what_their_names_say(sample_films: list[Path], film_qualities: Path) -> None:
    _world, film = film_in_a_world(sample_films[1], film_qualities)
    other = "h265" if "libx265" in encoders(FFMPEG) else "av1"
    found = {(each.height, each.video_codec): each for each in qualities_of(film)}
    assert found.keys() == {(720, "h264"), (360, "h264"), (360, other)}
    for quality in found.values():
        assert isinstance(quality.content, FileContent)
        facts = probe_blocking(FFMPEG, quality.content.path)
        assert (facts.width, facts.height) == (quality.width, quality.height)
        assert quality.width * 9 == quality.height * 16
        assert facts.has_audio
        assert quality.duration_s == pytest.approx(SECONDS, abs=0.001)
    sizes = {key: each.content.size for key, each in found.items()}
    assert sizes[360, other] < sizes[360, "h264"] < sizes[720, "h264"]
    # A client has to look where each document is: none of these is where the film is.
    assert {each.dc_id for pair in qualities_of(film).items() for each in pair} == {1}


def test_a_player_can_change_quality_at_every_segment(
    sample_films: list[Path], film_qualities: Path, tmp_path: Path
) -> None:
    """The boundaries are the same, and each segment can be decoded with the head alone."""
    read: list[Rendition] = []
    for path in sorted(film_qualities.glob("*.mp4")):
        rendition = read_rendition(FileContent(path))
        read.append(rendition)
        body = path.read_bytes()
        assert rendition.segments[0].offset == rendition.head_bytes
        for before, after in zip(rendition.segments, rendition.segments[1:], strict=False):
            assert before.offset + before.length == after.offset
        assert rendition.segments[-1].offset + rendition.segments[-1].length == len(body)
        assert sum(segment.duration_s for segment in rendition.segments) == pytest.approx(SECONDS)
        whole = decoded("-i", path, "-map", "0:v")["0"]
        pictures: list[str] = []
        for segment in rendition.segments:
            alone = tmp_path / "segment.mp4"
            stop = segment.offset + segment.length
            alone.write_bytes(body[: rendition.head_bytes] + body[segment.offset : stop])
            pictures += decoded("-i", alone, "-map", "0:v")["0"]
        assert pictures == whole
    durations = [[round(each.duration_s, 3) for each in one.segments] for one in read]
    assert durations == [[2.0, 2.0, 2.0, 2.0]] * 3


def test_a_playlist_is_as_telegrams_clients_read_it() -> None:
    rendition = Rendition("h264", 640, 360, 128, (Segment(128, 1024, 2.0), Segment(1152, 9, 1.25)))
    assert media_playlist(201, rendition).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-MEDIA-SEQUENCE:0",
        '#EXT-X-MAP:URI="mtproto:201",BYTERANGE="128@0"',
        "#EXTINF:2.000000,",
        "#EXT-X-BYTERANGE:1024@128",
        "mtproto:201",
        "#EXTINF:1.250000,",
        "#EXT-X-BYTERANGE:9@1152",
        "mtproto:201",
        "#EXT-X-ENDLIST",
    ]


# -- the storyboard ------------------------------------------------------------------------------


def test_the_storyboard_shows_each_moment_where_its_map_says(
    sample_films: list[Path], film_qualities: Path
) -> None:
    _world, film = film_in_a_world(sample_films[1], film_qualities)
    (picture,) = [x for x in film.alternatives if x.mime_type == "application/x-tgstoryboard"]
    (board,) = [x for x in film.alternatives if x.mime_type == "application/x-tgstoryboardmap"]
    assert board.file_name == f"mtproto:{picture.id}"
    assert {picture.dc_id, board.dc_id} == {4}
    first, width_line, height_line, *frames = text(board).splitlines()
    assert first == f"file=mtproto:{picture.id}"
    width, height = (int(line.partition("=")[2]) for line in (width_line, height_line))
    assert (board.width, board.height) == (width, height) == (240, 136)
    places = [line.split(",") for line in frames]
    assert [float(time_s) for time_s, _left, _top in places] == list(range(SECONDS))

    def grey(*source: object, crop: str = "") -> bytes:
        chain = f"{crop}scale={width}:{height},format=gray"
        return ffmpeg(*source, "-vf", chain, "-frames:v", "1", "-f", "rawvideo", "-")

    def difference(one: bytes, other: bytes) -> float:
        return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)

    path = film_qualities / "storyboard.jpg"
    shown = {float(t): grey("-ss", t, "-i", sample_films[1]) for t, _left, _top in places}
    for time_s, left, top in places:
        tile = grey("-i", path, crop=f"crop={width}:{height}:{left}:{top},")
        nearest = min(shown, key=lambda each: difference(shown[each], tile))
        assert nearest == float(time_s)


def test_a_storyboard_without_a_size_is_left_out(
    sample_films: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "storyboard.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "storyboard.txt").write_text("frame_width=240\n0,0,0\n")
    _world, film = film_in_a_world(sample_films[1], tmp_path)
    assert film.alternatives == ()
    assert "cannot be used: no frame_height in it" in caplog.text


# -- reading fragmented films --------------------------------------------------------------------


def test_only_fragmented_films_are_qualities(sample_films: list[Path], tmp_path: Path) -> None:
    for film in sample_films:
        with pytest.raises(BrokenMp4):
            read_rendition(FileContent(film))
    sound = tmp_path / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-movflags", "frag_keyframe+empty_moov", sound)
    with pytest.raises(BrokenMp4, match="no picture"):
        read_rendition(FileContent(sound))
    other = tmp_path / "other.mp4"
    flags = ("-movflags", "frag_keyframe+empty_moov")
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x48", "-c:v", "mpeg4", *flags, other)
    with pytest.raises(BrokenMp4, match="mp4v"):
        read_rendition(FileContent(other))


@given(cut=st.integers(0, 5000), changes=st.lists(st.tuples(st.integers(0, 4000), st.binary())))
def test_a_damaged_film_is_refused_and_nothing_else(
    cut: int, changes: list[tuple[int, bytes]]
) -> None:
    body = bytearray(_fragmented_film()[:cut])
    for place, replaced in changes:
        if place < len(body):
            body[place : place + len(replaced)] = replaced
    try:
        rendition = read_rendition(BytesContent(bytes(body)))
    except BrokenMp4:
        return
    assert rendition.segments


_made: list[bytes] = []


def _fragmented_film() -> bytes:
    """A tiny one, made once."""
    if not _made:
        source = ("-f", "lavfi", "-i", "testsrc=d=1:s=64x48:r=8", "-g", "4", "-c:v", "libx264")
        flags = ("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-f", "mp4")
        _made.append(ffmpeg(*source, *flags, "-"))
    return _made[0]


@pytest.mark.parametrize(
    "flags",
    ["frag_keyframe+empty_moov", "cmaf+frag_keyframe", "frag_every_frame+empty_moov+dash"],
)
def test_other_layouts_of_fragments_are_read(tmp_path: Path, flags: str) -> None:
    """With `styp` and `sidx` boxes, or a fragment for every frame: segments are the same."""
    path = tmp_path / "film.mp4"
    source = ("-f", "lavfi", "-i", "testsrc=d=6:s=64x48:r=10", "-g", "20", "-c:v", "libx264")
    ffmpeg(*source, "-movflags", flags, path)
    rendition = read_rendition(FileContent(path))
    assert [round(each.duration_s, 3) for each in rendition.segments] == [2.0, 2.0, 2.0]
    assert (rendition.codec, rendition.width, rendition.height) == ("h264", 64, 48)


# -- making them ---------------------------------------------------------------------------------


def test_qualities_are_made_once(sample_films: list[Path], film_qualities: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in film_qualities.iterdir()}
    assert make_qualities(sample_films[1]) == film_qualities
    assert {path.name: path.stat().st_mtime_ns for path in film_qualities.iterdir()} == before


def test_a_small_silent_film_gets_qualities_of_its_own_size(tmp_path: Path) -> None:
    film = tmp_path / "small.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=3:s=160x120:r=10", film)
    shares: list[float] = []
    folder = make_qualities(film, shares.append)
    assert shares == sorted(shares)
    read = [read_rendition(FileContent(path)) for path in sorted(folder.glob("*.mp4"))]
    assert {(one.width, one.height) for one in read} == {(160, 120)}
    assert [round(each.duration_s) for each in read[0].segments] == [2, 1]
    film.write_bytes(film.read_bytes() + b"\0\0\0\x08free")
    before = (folder / "storyboard.jpg").stat().st_mtime_ns
    make_qualities(film)
    assert (folder / "storyboard.jpg").stat().st_mtime_ns > before


def test_the_command_makes_them_and_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "no film.mp4").write_bytes(b"not a film")
    command = [sys.executable, "-m", "telegram_simulator.renditions", str(tmp_path / "no film.mp4")]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no film.mp4" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["no film.mp4"]


def test_an_ffmpeg_without_h265_makes_av1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = encoders(FFMPEG) - {"libx265"}
    if "libsvtav1" not in known:
        pytest.skip("this ffmpeg has no AV1 encoder")
    monkeypatch.setattr(renditions, "encoders", lambda _ffmpeg: known)
    film = tmp_path / "small.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=2:s=64x64:r=10", film)
    folder = make_qualities(film)
    codecs = {read_rendition(FileContent(path)).codec for path in folder.glob("*.mp4")}
    assert codecs == {"h264", "av1"}


def test_a_song_has_no_qualities(tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", song)
    with pytest.raises(FfmpegFailed, match="no film"):
        make_qualities(song)


# -- in a media folder ---------------------------------------------------------------------------


async def test_qualities_lie_beside_the_film_and_are_no_posts(
    sample_films: list[Path],
    film_qualities: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copy(sample_films[1], tmp_path / "film.mp4")
    shutil.copytree(film_qualities, tmp_path / "film.qualities")
    (tmp_path / "film.qualities" / "broken.mp4").write_bytes(b"not a film")
    (tmp_path / "lonely.qualities").mkdir()
    (tmp_path / "lonely.qualities" / "360p.mp4").write_bytes(b"of no film")
    world, channel = media_world()
    async with MediaFolder(world, channel, tmp_path) as folder:
        (post,) = folder.posts
    assert isinstance(post.media, Document)
    assert len(qualities_of(post.media)) == 3
    assert len(post.media.alternatives) == 8
    assert all(world.file(each.id) is each for each in post.media.alternatives)
    assert "broken.mp4 is no quality of a film" in caplog.text


async def test_qualities_that_come_later_are_an_edit_of_the_same_film(
    sample_films: list[Path], film_qualities: Path, tmp_path: Path
) -> None:
    (tmp_path / "film.mp4").symlink_to(sample_films[1])
    world, channel = media_world()
    (bot,) = world.bots.values()
    async with (
        BotApiServer(world) as bot_api,
        MediaFolder(world, channel, tmp_path, poll_s=0.05) as folder,
    ):
        before = folder.posts[0].media
        assert isinstance(before, Document)
        assert before.alternatives == ()
        shutil.copytree(film_qualities, tmp_path / "film.qualities")
        await until(lambda: folder.posts[0].edit_date is not None)
        after = folder.posts[0].media
        assert isinstance(after, Document)
        assert (after.id, len(after.alternatives)) == (before.id, 8)
        first_edit = folder.posts[0].edit_date
        url = f"{bot_api.url}/bot{bot.token}/getUpdates"
        _new, edited = await updates(url)
        qualities = edited["edited_channel_post"]["video"]["qualities"]
        assert [quality["height"] for quality in qualities] == [360, 360, 720]
        shutil.rmtree(tmp_path / "film.qualities")
        await until(lambda: folder.posts[0].edit_date != first_edit)
        gone = folder.posts[0].media
        assert isinstance(gone, Document)
        assert (gone.id, gone.alternatives) == (before.id, ())


def test_a_change_of_a_quality_is_a_change_of_the_film(tmp_path: Path) -> None:
    film, folder = tmp_path / "film.mp4", tmp_path / "film.qualities"
    film.write_bytes(b"film")
    folder.mkdir()
    (folder / "360p.mp4").write_bytes(b"one")
    (before,) = scan(tmp_path).values()
    (folder / "360p.mp4").write_bytes(b"two")
    os.utime(folder / "360p.mp4", ns=(1, 1))
    (after,) = scan(tmp_path).values()
    assert before != after
    assert before.is_same_file(after)
