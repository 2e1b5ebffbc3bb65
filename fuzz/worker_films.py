"""Section 6 of the worker: heads of films, playlists and maps of seek pictures, from anybody."""

from __future__ import annotations

import re

import worker

from .source import Source, Target

DOCUMENT = 5_000_000_000_000_042
LENGTH = 1 << 20
HEAD_MARKS = (
    *(b"\x00\x00\x00\x10", b"\x00\x00\x00\x01", b"moov", b"trak", b"mdia", b"hdlr", b"mdhd"),
    *(b"minf", b"stbl", b"stsd", b"avc1", b"avcC", b"hvcC", b"mp4a", b"esds", b"vide", b"soun"),
    *(
        b"\x1a\x45\xdf\xa3",
        b"\x18\x53\x80\x67",
        b"\x16\x54\xae\x6b",
        b"\xae",
        b"\x86",
        b"\x83\x81\x01",
    ),
    *(b"\x63\xa2", b"\x84", b"\xff", b"\x00" * 12, b"V_VP9", b"A_AAC"),
)
PLAYLIST_LINES = (
    "#EXTM3U",
    "#EXT-X-VERSION:7",
    "#EXT-X-ENDLIST",
    f'#EXT-X-MAP:URI="mtproto:{DOCUMENT}",BYTERANGE="1000@0"',
    f"mtproto:{DOCUMENT}",
    "#EXTINF:4.0,",
    "#EXTINF:0.5,title",
    "#EXT-X-BYTERANGE:500@1000",
    "#EXT-X-BYTERANGE:99999",
    "#EXT-X-BYTERANGE:999999999999999999@999999999999999999",
    '#EXT-X-KEY:METHOD=AES-128,URI="https://evil.example/"',
    "https://evil.example/",
    "mtproto:7",
    "",
)
BOARD_LINES = (
    f"file=mtproto:{DOCUMENT}",
    *(
        "frame_width=320",
        "frame_height=180",
        "frame_width=0",
        "0,0,0",
        "2.5,320,0",
        "9,9",
        "1e9,1,1",
    ),
)
_WRITTEN = re.compile(
    r"#EXTM3U|#EXT-X-(VERSION:7|TARGETDURATION:\d+|PLAYLIST-TYPE:VOD|INDEPENDENT-SEGMENTS|ENDLIST)"
    r'|#EXT-X-MAP:URI="film\.mp4",BYTERANGE="\d+@\d+"|#EXTINF:\d+\.\d{6},'
    r"|#EXT-X-BYTERANGE:\d+@\d+|film\.mp4"
)


def head_of(source: Source) -> bytes:
    parts = [
        source.pick(HEAD_MARKS) if source.number(0, 4) else source.piece()
        for _ in range(source.number(0, 40))
    ]
    return b"".join(parts)


def check_worker_heads(source: Source) -> None:
    """Tracks in whatever bytes, a few words each; or a broken film, and nothing else."""
    head = head_of(source)
    try:
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            doc_type, tracks = worker.matroska_tracks(head)
            assert isinstance(doc_type, str)
        else:
            tracks = worker.mp4_tracks(head)
    except worker.BrokenFilm:
        return
    assert len(tracks) <= worker.TRACKS_MAX
    for track in tracks:
        assert track.kind in ("video", "audio", "text")
        assert len(track.name) <= 200


def lines_of(source: Source, usual: tuple[str, ...]) -> str:
    lines = [
        source.pick(usual) if source.number(0, 7) else source.text()
        for _ in range(source.number(0, 30))
    ]
    return "\n".join(lines)


def check_worker_playlists(source: Source) -> None:
    """A playlist is refused, or written anew in our own words, within its film, the same again."""
    text = lines_of(source, PLAYLIST_LINES)
    try:
        playlist = worker.parse_media_playlist(f"#EXTM3U\n{text}", DOCUMENT, LENGTH)
    except worker.PlaylistRefused:
        return
    for byte_range in (playlist.head, *(each.byte_range for each in playlist.segments)):
        assert 0 <= byte_range.start < byte_range.stop <= LENGTH
    assert playlist.duration_s > 0
    assert playlist.peak_bits_per_second >= playlist.average_bits_per_second * 0.999
    written = worker.write_media_playlist(playlist, "film.mp4")
    assert all(_WRITTEN.fullmatch(line) for line in written.splitlines())
    again = written.replace("film.mp4", f"mtproto:{DOCUMENT}")
    assert worker.parse_media_playlist(again, DOCUMENT, LENGTH) is not None


def check_worker_storyboards(source: Source) -> None:
    """A map of seek pictures is refused, or has frames by rising time and a size."""
    try:
        board = worker.parse_storyboard(lines_of(source, BOARD_LINES), DOCUMENT)
    except worker.PlaylistRefused:
        return
    assert 0 < len(board.frames) <= worker.STORYBOARD_FRAMES_MAX
    assert list(board.frames) == sorted(board.frames)
    assert 0 < board.frame_width < 10_000
    assert 0 < board.frame_height < 10_000


TARGETS = (
    Target.of(check_worker_heads, words=HEAD_MARKS, runs=15_000),
    Target.of(check_worker_playlists, words=(b"mtproto:", b"#EXTINF:", b"@", b","), runs=15_000),
    Target.of(check_worker_storyboards, words=(b"file=", b"frame_width=", b","), runs=15_000),
)
