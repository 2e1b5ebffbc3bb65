"""What Telegram makes of a film that is sent to a big channel: `alt_documents`.

Other qualities as fragmented MP4, an HLS playlist for each of them, and pictures for the seek bar.
They lie in a folder beside the film and the media folder hangs them on its post:

    python -m telegram_simulator.renditions film.mp4    # makes film.qualities/ with ffmpeg
    film.qualities/360p h264.mp4                        # any fragmented MP4: one quality each
    film.qualities/storyboard.jpg  storyboard.txt       # tiles, and where each of them is

Every quality has key frames at the same moments, so that a player can change in the middle.

Sources: core.telegram.org/api/files#video-qualities; what Telegram's own clients for Android, iOS
and the web read of playlists and storyboard maps. Not known for certain: the order of the
documents, their names where none is said here, and how long Telegram's segments are.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .content import BytesContent, FileContent
from .ffmpeg import (
    FfmpegFailed,
    Probe,
    encoders,
    need_ffmpeg,
    probe_blocking,
    run_with_progress,
)
from .fragmented_film import Rendition, read_rendition
from .mp4_boxes import BrokenMp4
from .world import Document, World

log = logging.getLogger(__name__)

FOLDER_SUFFIX = ".qualities"
SEGMENT_S = 2
STORYBOARD_BOX = 240
"""Telegram's clients take a storyboard whose frames are at most 230 high."""
STORYBOARD_FRAMES_MAX = 100
STORYBOARD_COLUMNS = 5
STORYBOARD_NAME, STORYBOARD_MAP_NAME = "storyboard.jpg", "storyboard.txt"


# -- playlists and maps --------------------------------------------------------------------------


def media_playlist(file_id: int, rendition: Rendition) -> str:
    """The HLS playlist of a quality, with `mtproto:<document id>` in place of every address."""
    longest_s = max(segment.duration_s for segment in rendition.segments)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{math.ceil(longest_s)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f'#EXT-X-MAP:URI="mtproto:{file_id}",BYTERANGE="{rendition.head_bytes}@0"',
    ]
    for segment in rendition.segments:
        lines += [
            f"#EXTINF:{segment.duration_s:.6f},",
            f"#EXT-X-BYTERANGE:{segment.length}@{segment.offset}",
            f"mtproto:{file_id}",
        ]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def storyboard_map(picture_id: int, frame_lines: str) -> str:
    """The text that says where in the picture which moment of the film is shown.

    The three lines with names, then a line `seconds,left,top` for each frame, are what Telegram's
    clients for Android and the web read. Uncertain: with how many decimals seconds are written,
    and whether anything else may follow.
    """
    return f"file=mtproto:{picture_id}\n{frame_lines}"


def storyboard_frames(width: int, height: int, times_s: Iterable[float]) -> str:
    """Where the frames are, tiled from left to right: a storyboard map but for its first line."""
    lines = [f"frame_width={width}", f"frame_height={height}"]
    for number, time_s in enumerate(times_s):
        row, column = divmod(number, STORYBOARD_COLUMNS)
        lines.append(f"{time_s:g},{column * width},{row * height}")
    return "\n".join([*lines, ""])


def frame_size(frame_lines: str) -> tuple[int, int]:
    """Width and height in a storyboard map. Raises ValueError when they are not in it."""
    named = dict(line.split("=", 1) for line in frame_lines.splitlines() if "=" in line)
    try:
        return int(named["frame_width"]), int(named["frame_height"])
    except KeyError as missing:
        raise ValueError(f"no {missing.args[0]} in it") from None


# -- what a folder holds, as documents -----------------------------------------------------------


def qualities_folder(film: Path) -> Path:
    """Where the qualities of a film lie: `film.mp4` has them in `film.qualities`."""
    return film.with_suffix(FOLDER_SUFFIX)


def with_qualities(world: World, document: Document, folder: Path) -> Document:
    """The film with what its folder holds as alternatives; what cannot be used is said and left.

    Qualities and playlists are kept in the data centre after the film's own, storyboards beside
    the film: a client has to look where each document is.
    """
    after = world.dc_ids.index(document.dc_id) + 1
    elsewhere = world.dc_ids[after % len(world.dc_ids)]
    alternatives: list[Document] = []
    for path in sorted(folder.glob("[!.]*.mp4")):
        try:
            alternatives += _quality(world, path, elsewhere)
        except (BrokenMp4, OSError) as problem:
            log.warning("%s is no quality of a film: %s", path.name, problem)
    try:
        alternatives += _storyboard(world, folder, document.dc_id)
    except (ValueError, OSError) as problem:
        log.warning("the storyboard in %s cannot be used: %s", folder.name, problem)
    return replace(document, alternatives=tuple(alternatives))


def _quality(world: World, path: Path, dc_id: int) -> list[Document]:
    content = FileContent(path)
    rendition = read_rendition(content)
    film = replace(
        world.new_document(content, "video/mp4", dc_id),
        kind="video",
        duration_s=rendition.duration_s,
        width=rendition.width,
        height=rendition.height,
        video_codec=rendition.codec,
    )
    playlist = media_playlist(film.id, rendition).encode()
    return [film, _named_after(world, film, playlist, "application/x-mpegurl")]


def _storyboard(world: World, folder: Path, dc_id: int) -> list[Document]:
    picture, frames = folder / STORYBOARD_NAME, folder / STORYBOARD_MAP_NAME
    if not picture.is_file() or not frames.is_file():
        return []
    frame_lines = frames.read_text()
    width, height = frame_size(frame_lines)
    tiles = world.new_document(FileContent(picture), "application/x-tgstoryboard", dc_id)
    body = storyboard_map(tiles.id, frame_lines).encode()
    described = _named_after(world, tiles, body, "application/x-tgstoryboardmap")
    return [tiles, replace(described, width=width, height=height)]


def _named_after(world: World, other: Document, body: bytes, mime_type: str) -> Document:
    """A small text document that tells by its name which document it is about."""
    document = world.new_document(BytesContent(body), mime_type, other.dc_id)
    return replace(document, file_name=f"mtproto:{other.id}")


# -- making them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quality:
    """How one quality is made; left out where ffmpeg has no such encoder."""

    name: str
    height: int
    encoder: str
    options: tuple[str, ...]
    sound_rate: str


_X264 = ("-preset", "ultrafast", "-bf", "0", "-sc_threshold", "0")
_X265 = ("-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params")
# One thread is enough for a picture so small; several of them cost more than they save.
_X265_PARAMS = (
    "log-level=error:scenecut=0:bframes=0:open-gop=0:pools=none:frame-threads=1:wpp=0:ctu=16"
)
QUALITIES = (
    Quality("720p h264", 720, "libx264", (*_X264, "-b:v", "900k"), "96k"),
    Quality("360p h264", 360, "libx264", (*_X264, "-b:v", "350k"), "64k"),
    # Lighter than the one of the same height, and not for every player: who picks by size alone
    # has to find out.
    Quality("360p h265", 360, "libx265", (*_X265, _X265_PARAMS, "-b:v", "200k"), "64k"),
)
AV1 = Quality("360p av1", 360, "libsvtav1", ("-preset", "12", "-b:v", "200k"), "64k")
"""In place of H.265 where ffmpeg cannot make that."""
FRAGMENTS = "+frag_keyframe+empty_moov+default_base_moof+delay_moov+skip_trailer"


def make_qualities(film: Path, progress: Callable[[float], None] | None = None) -> Path:
    """Make the qualities and the storyboard of a film, unless they are there; their folder.

    Raises FfmpegFailed.
    """
    ffmpeg, folder = need_ffmpeg(), qualities_folder(film)
    known = encoders(ffmpeg)
    recipes = [quality for quality in QUALITIES if quality.encoder in known]
    if len(recipes) < len(QUALITIES) and AV1.encoder in known:
        recipes.append(AV1)
    stamp = film.stat()
    made_from = f"{recipes!r} {SEGMENT_S} {STORYBOARD_BOX} {stamp.st_size} {stamp.st_mtime_ns}"
    fingerprint = hashlib.sha256(made_from.encode()).hexdigest()
    note = folder / ".recipe"
    if note.is_file() and note.read_text() == fingerprint:
        return folder
    facts = probe_blocking(ffmpeg, film)
    if not facts.has_picture or not facts.duration_s:
        raise FfmpegFailed("there is no film in it")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as workshop:
        made = Path(workshop)
        _encode(ffmpeg, film, facts, recipes, made, progress or (lambda _share: None))
        _draw_storyboard(ffmpeg, film, facts, made)
        for path in made.iterdir():
            path.replace(folder / path.name)
    note.write_text(fingerprint)
    return folder


def _encode(
    ffmpeg: str,
    film: Path,
    facts: Probe,
    recipes: list[Quality],
    folder: Path,
    tell: Callable[[float], None],
) -> None:
    """All qualities in one go, so that the film is decoded once; none is larger than the film."""
    # A film smaller than all of them gets the smallest, in its own size.
    low = min(quality.height for quality in recipes)
    wanted = [q for q in recipes if q.height <= max(facts.height, low)]
    splits = "".join(f"[s{number}]" for number in range(len(wanted)))
    graph = [f"[0:v:0]split={len(wanted)}{splits}"]
    command: list[str] = []
    for number, quality in enumerate(wanted):
        height = min(quality.height, facts.height - facts.height % 2)
        graph.append(f"[s{number}]scale=-2:{height},format=yuv420p[v{number}]")
        command += [
            *("-map", f"[v{number}]", "-map", "0:a:0?"),
            *("-c:v", quality.encoder, *quality.options),
            # Key frames only where they are forced: at the same moments in every quality.
            *("-g", "9999", "-force_key_frames", f"expr:gte(t,n_forced*{SEGMENT_S})"),
            *("-c:a", "aac", "-b:a", quality.sound_rate, "-ac", "2", "-ar", "48000"),
            *("-movflags", FRAGMENTS, f"file:{folder / quality.name}.mp4"),
        ]
    start = [ffmpeg, "-i", f"file:{film}", "-filter_complex", ";".join(graph)]
    run_with_progress([*start, *command], facts.duration_s, tell)


def _draw_storyboard(ffmpeg: str, film: Path, facts: Probe, folder: Path) -> None:
    step_s = max(1.0, math.ceil(facts.duration_s / STORYBOARD_FRAMES_MAX))
    count = max(1, math.ceil(facts.duration_s / step_s))
    scale = STORYBOARD_BOX / max(facts.width, facts.height)
    width, height = (max(2, round(side * scale / 2) * 2) for side in (facts.width, facts.height))
    rows = math.ceil(count / STORYBOARD_COLUMNS)
    # Rounded up, the frame of a moment is the one that is shown at that moment.
    tiles = (
        f"fps=1/{step_s:g}:round=up:start_time=0,scale={width}:{height},format=rgb24"
        f",tile={STORYBOARD_COLUMNS}x{rows}:nb_frames={count},format=yuvj420p"
    )
    picture = ("-frames:v", "1", "-q:v", "5", "-update", "1", f"file:{folder / STORYBOARD_NAME}")
    command = [ffmpeg, "-i", f"file:{film}", "-an", "-vf", tiles]
    run_with_progress([*command, *picture], facts.duration_s, lambda _share: None)
    times_s = [number * step_s for number in range(count)]
    (folder / STORYBOARD_MAP_NAME).write_text(storyboard_frames(width, height, times_s))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m telegram_simulator.renditions",
        description="Make what Telegram makes of a film in a big channel, in a folder beside it.",
    )
    parser.add_argument("films", type=Path, nargs="+", metavar="FILM")
    for film in parser.parse_args().films:
        try:
            print(make_qualities(film))
        except (FfmpegFailed, OSError) as problem:
            print(f"renditions: {film}: {problem}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
