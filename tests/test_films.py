"""Section 6 of the worker: what a film's head says, and playlists that come from elsewhere.

Goal: codecs as browsers take them, and nothing of a hostile playlist in ours. Method: heads that
ffmpeg makes; tables and random damage for everything that is parsed.
"""

from __future__ import annotations

import random
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import worker
from hypothesis import given
from hypothesis import strategies as st

from telegram_simulator.content import FileContent
from telegram_simulator.ffmpeg import encoders, find_ffmpeg
from telegram_simulator.fragmented_film import read_rendition
from telegram_simulator.mp4_boxes import file_boxes
from telegram_simulator.renditions import media_playlist

FFMPEG = find_ffmpeg() or "ffmpeg"
PICTURE = "testsrc=size=320x240:rate=10:duration=1"
SOUND = "sine=duration=1"


def make(path: Path, *options: str, inputs: tuple[str, ...] = (PICTURE, SOUND)) -> bytes:
    """A film of one second, made by ffmpeg; its bytes."""
    given_inputs = [part for each in inputs for part in ("-f", "lavfi", "-i", each)]
    command = [FFMPEG, "-v", "error", "-nostdin", "-y", *given_inputs, *options, str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_bytes()


def index_of(film: Path) -> bytes:
    content = FileContent(film)
    moov = next(box for box in file_boxes(content) if box.kind == b"moov")
    return content.read(moov.body_start, moov.stop - moov.body_start)


# -- codecs and tracks -----------------------------------------------------------------------------


def codecs(tracks: list[worker.Track]) -> list[tuple[str, str]]:
    return [(track.kind, track.codec) for track in tracks]


def test_h264_and_aac_in_mp4(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    h264 = ("-c:v", "libx264", "-profile:v", "high", "-level", "3.1", "-pix_fmt", "yuv420p")
    make(film, *h264, "-c:a", "aac", "-metadata:s:a:0", "language=deu")
    tracks = worker.mp4_tracks(index_of(film))
    assert codecs(tracks) == [("video", "avc1.64001f"), ("audio", "mp4a.40.2")]
    assert [track.language for track in tracks] == ["", "deu"]


@pytest.mark.parametrize(
    ("encoder", "options", "pattern"),
    [
        ("libx265", ("-tag:v", "hvc1", "-x265-params", "log-level=error"),
         r"hvc1\.\d\.[0-9A-F]+\.[LH]\d+(\.[0-9A-F]+)*"),
        ("libvpx-vp9", (), r"vp09\.00\.\d\d\.08"),
        ("libaom-av1", ("-cpu-used", "8"), r"av01\.0\.\d\d[MH]\.08"),
        ("libsvtav1", (), r"av01\.0\.\d\d[MH]\.08"),
        ("mpeg4", (), "mp4v"),
    ],
)  # fmt: skip
def test_other_pictures_in_mp4(
    tmp_path: Path, encoder: str, options: tuple[str, ...], pattern: str
) -> None:
    if encoder not in encoders(FFMPEG):
        pytest.skip(f"this machine's ffmpeg has no {encoder}")
    film = tmp_path / "film.mp4"
    make(film, "-c:v", encoder, *options, "-pix_fmt", "yuv420p", "-an")
    ((kind, codec),) = codecs(worker.mp4_tracks(index_of(film)))
    assert kind == "video"
    assert re.fullmatch(pattern, codec), codec


@pytest.mark.parametrize(
    ("encoder", "codec"),
    [
        ("ac3", "ac-3"),
        ("eac3", "ec-3"),
        ("libmp3lame", "mp3"),
        ("libopus", "opus"),
        ("flac", "flac"),
    ],
)
def test_other_sounds_in_mp4(tmp_path: Path, encoder: str, codec: str) -> None:
    film = tmp_path / "film.mp4"
    make(film, "-c:a", encoder, "-strict", "-2", inputs=(SOUND,))
    assert codecs(worker.mp4_tracks(index_of(film))) == [("audio", codec)]


def test_text_in_mp4_is_a_track(tmp_path: Path) -> None:
    (tmp_path / "film.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    film = tmp_path / "film.mp4"
    command = [FFMPEG, "-v", "error", "-y", "-f", "lavfi", "-i", PICTURE]
    command += ["-i", str(tmp_path / "film.srt"), "-c:v", "mpeg4", "-c:s", "mov_text"]
    command += ["-metadata:s:s:0", "language=swe", str(film)]
    subprocess.run(command, check=True, capture_output=True)
    text = [track for track in worker.mp4_tracks(index_of(film)) if track.kind == "text"]
    assert text == [worker.Track("text", "tx3g", "swe")]


@pytest.mark.parametrize(
    ("suffix", "options", "doc_type", "expected"),
    [
        (".mkv", ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "ac3"), "matroska",
         [("video", r"avc1\.[0-9a-f]{6}"), ("audio", "ac-3")]),
        (".webm", ("-c:v", "libvpx-vp9", "-c:a", "libopus"), "webm",
         [("video", "vp9"), ("audio", "opus")]),
        (".webm", ("-c:v", "libvpx", "-c:a", "libvorbis"), "webm",
         [("video", "vp8"), ("audio", "vorbis")]),
        (".mkv", ("-c:v", "mpeg4", "-c:a", "aac"), "matroska",
         [("video", "V_MPEG4/ISO/ASP"), ("audio", r"mp4a\.40\.2")]),
    ],
)  # fmt: skip
def test_matroska_and_webm(
    tmp_path: Path,
    suffix: str,
    options: tuple[str, ...],
    doc_type: str,
    expected: list[tuple[str, str]],
) -> None:
    head = make(tmp_path / f"film{suffix}", *options)
    found_type, tracks = worker.matroska_tracks(head[: worker.MATROSKA_HEAD_BYTES])
    assert found_type == doc_type
    for (kind, codec), (want_kind, pattern) in zip(codecs(tracks), expected, strict=True):
        assert kind == want_kind
        assert re.fullmatch(pattern, codec), codec


def test_names_and_languages_in_matroska(tmp_path: Path) -> None:
    names = ("-metadata:s:a:0", "title=Director's cut", "-metadata:s:a:0", "language=fre")
    head = make(tmp_path / "film.mkv", "-c:v", "mpeg4", "-c:a", "aac", *names)
    _, tracks = worker.matroska_tracks(head)
    assert (tracks[1].name, tracks[1].language) == ("Director's cut", "fre")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_damaged_heads_are_told_from_whole_ones_and_never_more(tmp_path: Path, suffix: str) -> None:
    """Whatever is cut or changed: tracks, or BrokenFilm, and no other error."""
    film = tmp_path / f"film{suffix}"
    whole = make(film, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac")
    head = whole if suffix == ".mkv" else index_of(film)
    read = worker.matroska_tracks if suffix == ".mkv" else worker.mp4_tracks
    dice = random.Random(7)
    broken = 0
    for _ in range(3000):
        damaged = bytearray(head[: dice.choice((len(head), dice.randrange(len(head))))])
        for _ in range(dice.randrange(4)):
            if damaged:
                damaged[dice.randrange(min(len(damaged), 2000))] = dice.randrange(256)
        try:
            read(bytes(damaged))
        except worker.BrokenFilm:
            broken += 1
    assert broken


@given(st.binary(max_size=400))
def test_any_bytes_are_a_broken_film_at_worst(head: bytes) -> None:
    for read in (worker.mp4_tracks, worker.matroska_tracks):
        try:
            read(head)
        except worker.BrokenFilm:
            continue


# -- playlists -------------------------------------------------------------------------------------

DOCUMENT = 5_000_000_000_000_042
LENGTH = 100_000
LINES = [
    "#EXTM3U",
    "#EXT-X-VERSION:7",
    "#EXT-X-TARGETDURATION:4",
    "#EXT-X-MEDIA-SEQUENCE:0",
    f'#EXT-X-MAP:URI="mtproto:{DOCUMENT}",BYTERANGE="1000@0"',
    "#EXTINF:4.000000,",
    "#EXT-X-BYTERANGE:49000@1000",
    f"mtproto:{DOCUMENT}",
    "#EXTINF:3.500000,",
    "#EXT-X-BYTERANGE:50000",
    f"mtproto:{DOCUMENT}",
    "#EXT-X-ENDLIST",
]


def parse(*lines: str) -> worker.MediaPlaylist:
    return worker.parse_media_playlist("\n".join(lines), DOCUMENT, LENGTH)


def changed(old: str, new: str) -> list[str]:
    assert old in LINES
    return [new if line == old else line for line in LINES]


def test_a_playlist_is_read_and_written_anew() -> None:
    playlist = parse(*LINES)
    assert playlist.head == worker.ByteRange(0, 1000)
    assert [each.byte_range for each in playlist.segments] == [
        worker.ByteRange(1000, 50_000),
        worker.ByteRange(50_000, 100_000),  # right behind the one before
    ]
    assert playlist.duration_s == 7.5
    text = worker.write_media_playlist(playlist, "../film.mp4?token=x")
    again = text.replace("../film.mp4?token=x", f"mtproto:{DOCUMENT}")
    assert parse(*again.splitlines()) == playlist
    assert "mtproto" not in text


def test_what_the_simulator_writes_is_read(film_qualities: Path) -> None:
    for path in film_qualities.glob("*.mp4"):
        content = FileContent(path)
        rendition = read_rendition(content)
        text = media_playlist(DOCUMENT, rendition)
        playlist = worker.parse_media_playlist(text, DOCUMENT, content.size)
        assert len(playlist.segments) == len(rendition.segments)
        assert playlist.segments[-1].byte_range.stop == content.size


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["nonsense"], id="no playlist"),
        pytest.param(LINES[:1], id="no segments"),
        pytest.param([line for line in LINES if "MAP" not in line], id="no head"),
        pytest.param(changed(f"mtproto:{DOCUMENT}", "https://evil.example/x.ts"), id="elsewhere"),
        pytest.param(changed(f"mtproto:{DOCUMENT}", "mtproto:7"), id="another document"),
        pytest.param(changed(f"mtproto:{DOCUMENT}", f"mtproto:{DOCUMENT}?x"), id="more behind it"),
        pytest.param(changed(LINES[4], LINES[4].replace("mtproto", "file")), id="head elsewhere"),
        pytest.param(changed(LINES[4], LINES[4] + ',X="y"'), id="more in the head"),
        pytest.param(changed(LINES[6], "#EXT-X-BYTERANGE:99001@1000"), id="beyond the end"),
        pytest.param(changed(LINES[6], "#EXT-X-BYTERANGE:0@1000"), id="no bytes"),
        pytest.param(changed(LINES[6], "#EXT-X-BYTERANGE:-5@1000"), id="negative"),
        pytest.param(changed(LINES[6], "#EXT-X-VERSION:7"), id="no range"),
        pytest.param(changed(LINES[5], "#EXTINF:0,"), id="no time"),
        pytest.param(changed(LINES[5], "#EXTINF:nan,"), id="no number"),
        pytest.param(
            [*LINES[:4], '#EXT-X-KEY:METHOD=AES-128,URI="https://evil.example"', *LINES[4:]],
            id="a key",
        ),
        pytest.param([*LINES, '#EXT-X-SESSION-DATA:URI="https://evil.example"'], id="session data"),
        pytest.param([*LINES[:-1], *LINES[5:8] * 20_000], id="too many segments"),
    ],
)
def test_a_strange_playlist_is_refused(lines: list[str]) -> None:
    with pytest.raises(worker.PlaylistRefused):
        parse(*lines)


@given(st.lists(st.one_of(st.sampled_from(LINES), st.text(max_size=60)), max_size=20))
def test_nothing_of_a_hostile_playlist_is_handed_on(lines: list[str]) -> None:
    try:
        playlist = parse("#EXTM3U", *lines)
    except worker.PlaylistRefused:
        return
    written = worker.write_media_playlist(playlist, "film.mp4")
    tags = re.compile(r'#EXT[A-Z0-9-]*(:[0-9.@",A-Z=a-z4]*)?|film\.mp4')
    assert all(tags.fullmatch(line.replace('URI="film.mp4"', "")) for line in written.splitlines())
    assert all(0 <= each.byte_range.start < each.byte_range.stop <= LENGTH
               for each in playlist.segments)  # fmt: skip


def level(number: int, height: int, codec: str, size: int) -> worker.Level:
    segment = worker.Segment(4.0, worker.ByteRange(0, size))
    playlist = worker.MediaPlaylist(worker.ByteRange(0, 10), (segment,))
    return worker.Level(number, height * 16 // 9, height, (codec, "mp4a.40.2"), playlist)


def test_the_best_level_comes_first_and_the_lighter_of_two_alike_stays() -> None:
    levels = [
        level(1, 360, "avc1.64001e", 90_000),
        level(2, 720, "avc1.64001f", 200_000),
        level(3, 360, "avc1.64001e", 80_000),
        level(4, 360, "hvc1.1.6.L93.B0", 50_000),
    ]
    assert [each.document_id for each in worker.best_levels(levels)] == [2, 3, 4]


def test_a_master_playlist_tells_bandwidth_size_and_codecs() -> None:
    text = worker.write_master_playlist([level(7, 720, "avc1.64001f", 200_000)], "?token=x")
    assert text.splitlines()[-2:] == [
        "#EXT-X-STREAM-INF:BANDWIDTH=400000,AVERAGE-BANDWIDTH=400000"
        ',CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720',
        "7.m3u8?token=x",
    ]


# -- storyboards -----------------------------------------------------------------------------------

BOARD = "file=mtproto:9\nframe_width=320\nframe_height=180\n0,0,0\n2.5,320,0\n"


def test_a_storyboard_is_read() -> None:
    board = worker.parse_storyboard(BOARD, 9)
    assert (board.frame_width, board.frame_height) == (320, 180)
    assert board.frames == ((0.0, 0, 0), (2.5, 320, 0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        BOARD.replace("mtproto:9", "mtproto:8"),
        BOARD.replace("mtproto:9", "https://evil.example/"),
        BOARD.replace("320\n", "0\n", 1),
        BOARD + "nonsense\n",
        BOARD + "1,2\n",
        "file=mtproto:9\nframe_width=320\nframe_height=180\n",
        BOARD + "1,2,3\n" * 5000,
    ],
)
def test_a_strange_storyboard_is_refused(text: str) -> None:
    with pytest.raises(worker.PlaylistRefused):
        worker.parse_storyboard(text, 9)


# -- split films -----------------------------------------------------------------------------------


def part(number: int, size: int) -> worker.RemoteFile:
    name = f"Film.mkv.{number:03}"
    modified = datetime(2026, 1, number, tzinfo=UTC)
    return worker.RemoteFile(-100, number, number, "", 4, size, "", name, modified)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.data())
def test_a_joined_film_is_its_parts_end_to_end(sizes: list[int], data: st.DataObject) -> None:
    joined = worker.JoinedFile(tuple(part(n, size) for n, size in enumerate(sizes, 1)))
    whole = [(n, byte) for n, size in enumerate(sizes, 1) for byte in range(size)]
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    found = [
        (file.message_id, byte)
        for file, span in joined.spans(worker.ByteRange(start, stop))
        for byte in range(span.start, span.stop)
    ]
    assert found == whole[start:stop]
    assert joined.complete_length == len(whole)


def test_a_joined_film_has_the_name_type_and_tag_of_the_whole() -> None:
    joined = worker.JoinedFile((part(1, 10), part(2, 5)))
    assert (joined.name, joined.mime_type) == ("Film.mkv", "video/x-matroska")
    assert joined.modified.day == 2
    assert joined.entity_tag != worker.JoinedFile((part(1, 10), part(3, 5))).entity_tag
