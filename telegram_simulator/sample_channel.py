"""What a channel of films holds besides films: everything that the demo shows, made from nothing.

    make_sample_channel(Path(".demo/films"))        # a folder for `--media`

The three sample films, one of them in several qualities and one with subtitles beside it; a film
cut into three parts, one that browsers cannot play, an album of pictures, songs with a cover and a
small PDF. It is all made by ffmpeg or here, and what is there already is not made again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .ffmpeg import need_ffmpeg, run_with_progress
from .media_folder import ALBUM_SUFFIX
from .renditions import make_qualities
from .sample_films import (
    AAC,
    DEFAULT_SECONDS,
    H264,
    PICTURES,
    Progress,
    Recipe,
    make_film,
    make_once,
    make_sample_films,
    make_sample_pictures,
    soundtrack,
)

ALBUM = f"Abstract{ALBUM_SUFFIX}"
MORE = "Bits and pieces"
"""A folder whose name comes before the films': newest first, the films are on top."""
PARTS = 3
EXTRA_S = 8
"""How long the extra films are: long enough to see that they play."""
CUE_EVERY_S, CUE_S = 4, 3
SONG_S = 12
SUBTITLES = {
    "en": ("English", "{seconds} seconds have passed", "and the <i>line</i> fills up"),
    "de": ("Deutsch", "{seconds} Sekunden sind um", "und die <i>Linie</i> füllt sich"),
}

SPLIT = Recipe(
    "Tides (in three parts).mp4",
    640,
    360,
    "gradients=s=160x90:r={fps}:type=circular:n=4:c0=0x031926:c1=0x1b6b72:c2=0x9dbebb:c3=0x0b132b"
    ":speed=0.02:seed=4,scale={width}:{height}:flags=bicubic,format=yuv420p,vignette=PI/5",
    (164.81, 207.65, 246.94, 329.63),
    (*H264, "-b:v", "500k", *AAC, "-movflags", "+faststart"),
)
NOT_FOR_BROWSERS = Recipe(
    "Aurora (MKV, sound in AC-3).mkv",
    640,
    360,
    "gradients=s=160x90:r={fps}:type=spiral:n=4:c0=0x05070f:c1=0x0f8b6d:c2=0x7df9aa:c3=0x3a1d6e"
    ":speed=0.015:seed=9,scale={width}:{height}:flags=bicubic,format=yuv420p,vignette=PI/4",
    (146.83, 185.0, 220.0, 293.66),
    (*H264, "-b:v", "500k", "-c:a", "ac3", "-b:a", "192k"),
)
SONGS = {
    "Overture.mp3": (("-c:a", "libmp3lame", "-b:a", "128k", "-id3v2_version", "3"), "Dusk.jpg"),
    "Interlude.flac": (("-c:a", "flac"), "Nebula.jpg"),
}
PERFORMER = "The Pocket Orchestra"
COVER_SIDE = 600
Tell = Callable[[float], None]


def _silently(_share: float) -> None:
    return None


def make_sample_channel(
    folder: Path, progress: Progress | None = None, *, seconds: int = DEFAULT_SECONDS
) -> list[Path]:
    """Make what is not there yet; the paths of the three sample films. Raises FfmpegFailed."""
    tell = progress or (lambda _name, _share: None)
    films = make_sample_films(folder, progress, seconds=seconds)
    with_subtitles, with_qualities, _webm = films
    make_subtitles(with_subtitles, seconds)
    name = f"{with_qualities.stem} in other qualities"
    make_qualities(with_qualities, partial(tell, name))
    tell(name, 1.0)
    pictures = make_sample_pictures(folder / ALBUM)
    more = folder / MORE
    for recipe, make in ((NOT_FOR_BROWSERS, make_unplayable_film), (SPLIT, make_split_film)):
        make(more, partial(tell, recipe.name))
        tell(recipe.name, 1.0)
    make_songs(more, dict(zip(PICTURES, pictures, strict=True)))
    paper = pdf(["What is in this channel", *(path.stem for path in films), SPLIT.name])
    make_once([more / "Programme.pdf"], repr(paper), partial(_write, paper))
    return films


def make_subtitles(film: Path, seconds: int) -> list[Path]:
    """Subtitles beside a film, named after it: English as SubRip, German as WebVTT."""
    made = [film.with_name(f"{film.stem}.en.srt"), film.with_name(f"{film.stem}.de.vtt")]
    for path, text in zip(made, (_subrip(seconds), _webvtt(seconds)), strict=True):
        make_once([path], text, partial(_write, text.encode()))
    return made


def _write(body: bytes, target: Path) -> None:
    target.write_bytes(body)


def _cues(language: str, seconds: int) -> list[tuple[int, str]]:
    """When each is shown, and its two lines."""
    _name, first, second = SUBTITLES[language]
    starts = range(0, seconds, CUE_EVERY_S)
    return [(start, f"{first.format(seconds=start)}\n{second}") for start in starts]


def _subrip(seconds: int) -> str:
    """As most programs write it: with a mark at the start and Windows' line ends."""
    blocks = [
        f"{number}\n00:{_time(start)},000 --> 00:{_time(start + CUE_S)},000\n{text}\n"
        for number, (start, text) in enumerate(_cues("en", seconds), 1)
    ]
    return "\ufeff" + "\n".join(blocks).replace("\n", "\r\n")


def _webvtt(seconds: int) -> str:
    blocks = [
        f"{_time(start)}.000 --> {_time(start + CUE_S)}.000 line:85%\n{text}\n"
        for start, text in _cues("de", seconds)
    ]
    return "\n".join(["WEBVTT\nLanguage: de\n", *blocks])


def _time(seconds: int) -> str:
    return f"{seconds // 60:02}:{seconds % 60:02}"


def make_unplayable_film(folder: Path, tell: Tell = _silently) -> Path:
    """A film whose sound no browser knows, in a box that most of them do not open."""
    film = folder / NOT_FOR_BROWSERS.name
    make_film(film, NOT_FOR_BROWSERS, EXTRA_S, tell)
    return film


def make_split_film(folder: Path, tell: Tell = _silently) -> list[Path]:
    """A film cut into parts of one size, the last one shorter, as splitters do it."""
    parts = [folder / f"{SPLIT.name}.{number:03}" for number in range(1, PARTS + 1)]

    def make(target: Path) -> None:
        whole = target.with_suffix("")
        make_film(whole, SPLIT, EXTRA_S, tell)
        body = whole.read_bytes()
        size = -(-len(body) // PARTS)
        for number, part in enumerate(parts):
            (target.parent / part.name).write_bytes(body[number * size : (number + 1) * size])

    make_once(parts, f"{SPLIT!r} {EXTRA_S} {PARTS}", make)
    return parts


def make_songs(folder: Path, pictures: dict[str, Path]) -> list[Path]:
    """An MP3 and a FLAC that know their title, who plays, and what they look like."""
    made: list[Path] = []
    for number, (name, (codec, cover)) in enumerate(SONGS.items()):
        notes_hz = tuple(note * (1 + number / 4) for note in (196.0, 246.94, 293.66, 392.0))
        title = Path(name).stem
        sound = soundtrack(notes_hz, SONG_S)
        square = f"crop=ih:ih,scale={COVER_SIDE}:{COVER_SIDE}"
        command = [
            *(need_ffmpeg(), "-f", "lavfi", "-i", sound, "-i", f"file:{pictures[cover]}"),
            *("-map", "0:a", "-map", "1:v", "-vf", square, "-c:v", "mjpeg", "-q:v", "4"),
            *("-pix_fmt", "yuvj420p", "-disposition:v", "attached_pic", *codec),
            *("-metadata", f"title={title}", "-metadata", f"artist={PERFORMER}"),
        ]
        make_once([folder / name], repr((codec, cover, square, sound)), partial(_sing, command))
        made.append(folder / name)
    return made


def _sing(command: list[str], target: Path) -> None:
    run_with_progress([*command, f"file:{target}"], SONG_S, lambda _share: None)


def pdf(lines: list[str]) -> bytes:
    """A page with a heading and lines of text, in a font that every reader has (ISO 32000-1)."""
    heading, *others = [line.translate({40: r"\(", 41: r"\)", 92: r"\\"}) for line in lines]
    text = [f"BT /F1 24 Tf 56 760 Td ({heading}) Tj /F1 12 Tf 0 -20 Td"]
    text += [f"0 -20 Td ({line}) Tj" for line in others]
    page = zlib.compress("\n".join([*text, "ET"]).encode("latin-1", "replace"))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return body + (
        b"xref\n0 %d\n0000000000 65535 f \n%s" % (count, table)
        + b"trailer\n<< /Size %d /Root 1 0 R >>\n" % count
        + b"startxref\n%d\n%%%%EOF\n" % len(body)
    )
