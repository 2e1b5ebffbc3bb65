"""The files of a folder as the posts of a channel, kept in step while it runs.

    async with MediaFolder(world, channel, Path("~/Videos").expanduser()) as folder:
        ...                     # a file that appears becomes a post, one that goes is deleted

Files are posted by name, subfolders included, and spread over the data centres, so that clients
have to follow. What ffmpeg can tell (duration, size, thumbnail, who sings) is in the posts; without
ffmpeg they are plain files. Bytes stay on disk and are read when somebody asks.

    Holiday.album/                  its files are one album, the caption is «Holiday»
    film.mp4  film.qualities/       other qualities of the film, see renditions.py
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import mimetypes
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from .content import BytesContent, Content, FileContent
from .ffmpeg import FfmpegFailed, Probe, find_ffmpeg, probe, scaled_pictures, thumbnail
from .renditions import FOLDER_SUFFIX, qualities_folder, with_qualities
from .world import Channel, Document, FileKind, Photo, PhotoSize, Post, World

log = logging.getLogger(__name__)

FILES_MAX = 5000
"""More than a channel of films has; it keeps a folder chosen by mistake from taking all day."""
POLL_S = 1.0
PROBES_AT_ONCE = max(2, os.cpu_count() or 1)
THUMBNAIL_BOX = 320
PHOTO_BOXES = {"m": 320, "x": 800, "y": 1280}
"""Telegram's letters for the boxes that a photo is scaled into (core.telegram.org/api/files)."""
PHOTO_TYPES = {"image/jpeg", "image/png", "image/webp"}
MIME_TYPES = {
    **{".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"},
    **{".mkv": "video/x-matroska", ".webm": "video/webm", ".avi": "video/x-msvideo"},
    **{".mpg": "video/mpeg", ".ts": "video/mp2t", ".wmv": "video/x-ms-wmv", ".ogv": "video/ogg"},
    **{".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".ogg": "audio/ogg", ".opus": "audio/ogg"},
    **{".flac": "audio/flac", ".wav": "audio/x-wav", ".webp": "image/webp"},
    **{".srt": "application/x-subrip", ".vtt": "text/vtt", ".ass": "text/x-ssa"},
    **{".ssa": "text/x-ssa", ".pdf": "application/pdf", ".txt": "text/plain"},
}
"""What must not depend on the machine's own table, which Python's mimetypes reads."""
PART_OF_A_FILE = re.compile(r"\.(?:\d{3}|part\d+)", re.IGNORECASE)
"""What splitters append: film.mkv.001, film.mkv.part1. Nobody can tell what is in it."""
UNFINISHED = {".part", ".crdownload", ".download", ".tmp", ".!qb"}
ALBUM_SUFFIX = ".album"
SEEN_KINDS = {"photo", "video"}
ALBUM_FILES_MAX = 10
"""What Telegram puts into one album (core.telegram.org/method/messages.sendMultiMedia)."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file, and of its qualities, from another."""

    size: int
    changed_ns: int
    qualities: tuple[tuple[str, int, int], ...] = ()

    def is_same_file(self, other: Stamp) -> bool:
        return (self.size, self.changed_ns) == (other.size, other.changed_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is to be posted, and what ffmpeg made of it."""

    path: Path
    stamp: Stamp
    media: Document | Photo


class MediaFolder:
    """One folder and its channel; an async context manager that loads, then watches."""

    def __init__(
        self, world: World, channel: Channel, folder: Path, *, poll_s: float = POLL_S
    ) -> None:
        self.world = world
        self.channel = channel
        self.folder = folder
        self._poll_s = poll_s
        self._ffmpeg = find_ffmpeg()
        self._probing = asyncio.Semaphore(PROBES_AT_ONCE)
        self._posts: dict[Path, tuple[Stamp, Post]] = {}
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        # Scaled photos live here: a folder of holiday pictures would fill the memory.
        self._pictures = tempfile.TemporaryDirectory(prefix="telegram-simulator-")
        try:
            await self._load()
        except BaseException:
            self._pictures.cleanup()
            raise
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_reason: object) -> None:
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)
        self._pictures.cleanup()

    @property
    def posts(self) -> list[Post]:
        """The posts of the files that are there now, in the order of the channel."""
        return sorted((post for _stamp, post in self._posts.values()), key=lambda post: post.id)

    # -- what is there at the start ------------------------------------------------------------

    async def _load(self) -> None:
        """Post every file, in the order of the names; probing runs ahead of posting."""
        stamps = await asyncio.to_thread(scan, self.folder)
        if self._ffmpeg is None:
            log.warning("no ffmpeg found: posts come without duration, size and thumbnail")
        async with asyncio.TaskGroup() as probing:
            tasks = [
                (path, stamp, probing.create_task(self._media(path)))
                for path, stamp in stamps.items()
            ]
            found: list[Found] = []
            for number, (path, stamp, task) in enumerate(tasks, 1):
                media = await task
                if media is not None:
                    found.append(Found(path, stamp, media))
                if number % 50 == 0:
                    log.info("read %d of %d files", number, len(tasks))
        self._post(found)

    # -- what changes afterwards ---------------------------------------------------------------

    async def _watch(self) -> None:
        """Look again and again; act on what looks the same twice running."""
        before: dict[Path, Stamp] = {}
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                now = await asyncio.to_thread(scan, self.folder)
                await self._follow(now, before)
                before = now
            except OSError as error:
                log.warning("cannot read the media folder now: %s", error.strerror)
            except Exception:
                # One odd file must not end the watch over all the others.
                log.exception("a change in the media folder could not be followed")

    async def _follow(self, now: dict[Path, Stamp], before: dict[Path, Stamp]) -> None:
        for path in self._posts.keys() - now.keys():
            _stamp, post = self._posts.pop(path)
            self.world.delete(post)
            log.info("gone: %s, post %d", path.name, post.id)
        fresh: list[Found] = []
        for path, stamp in now.items():
            known = self._posts.get(path)
            still_growing = before.get(path) != stamp
            if still_growing or (known and known[0] == stamp):
                continue
            same = known is not None and known[0].is_same_file(stamp)
            media = await self._media(path, known[1].media if known and same else None)
            if media is None:
                continue
            if known is None:
                fresh.append(Found(path, stamp, media))
                log.info("new: %s", path.name)
            else:
                post = self.world.edit(known[1], media=media)
                self._posts[path] = (stamp, post)
                log.info("replaced: %s, post %d", path.name, post.id)
        self._post(fresh)

    def _post(self, files: list[Found]) -> None:
        for batch in batches(files):
            is_album = len(batch) > 1
            grouped_id = self.world.new_group() if is_album else None
            for number, found in enumerate(batch):
                text = found.path.stem
                if is_album:
                    # Clients show the caption of the first file as that of the album.
                    text = "" if number else found.path.parent.name.removesuffix(ALBUM_SUFFIX)
                post = self.world.post(self.channel, found.media, text, grouped_id=grouped_id)
                self._posts[found.path] = (found.stamp, post)

    # -- one file ------------------------------------------------------------------------------

    async def _media(
        self, path: Path, unchanged: Document | Photo | None = None
    ) -> Document | Photo | None:
        """What to post for a file; None when it went away in the meantime.

        A film that is `unchanged` has got other qualities, and stays the document that it was.
        """
        try:
            media = unchanged or await self._read(path)
        except FileNotFoundError:
            return None
        if isinstance(media, Document) and media.kind == "video":
            folder = qualities_folder(path)
            media = await asyncio.to_thread(with_qualities, self.world, media, folder)
        return media

    async def _read(self, path: Path) -> Document | Photo:
        number = next(self._numbers)
        dc_id = self.world.dc_ids[number % len(self.world.dc_ids)]
        async with self._probing:
            if mime_type(path) in PHOTO_TYPES and self._ffmpeg:
                photo = await self._photo(path, number, self._ffmpeg, dc_id)
                if photo is not None:
                    return photo
            content = FileContent(path)
            return await describe(self.world, content, path, ffmpeg=self._ffmpeg, dc_id=dc_id)

    async def _photo(self, path: Path, number: int, ffmpeg: str, dc_id: int) -> Photo | None:
        """The picture in Telegram's sizes; None when ffmpeg cannot read it."""
        folder = Path(self._pictures.name)
        outputs = {box: folder / f"{number}-{kind}.jpg" for kind, box in PHOTO_BOXES.items()}
        try:
            original = await probe(ffmpeg, path)
            await scaled_pictures(ffmpeg, path, outputs)
        except FfmpegFailed as error:
            log.warning("%s is posted as a file: %s", path.name, error)
            return None
        sizes: list[PhotoSize] = []
        for kind, box in PHOTO_BOXES.items():
            width, height = fit(original.width, original.height, box)
            if not sizes or width > sizes[-1].width or height > sizes[-1].height:
                sizes.append(PhotoSize(kind, width, height, FileContent(outputs[box])))
        return self.world.new_photo(*sizes, dc_id=dc_id)


async def describe(
    world: World,
    content: Content,
    path: Path,
    *,
    ffmpeg: str | None,
    dc_id: int | None = None,
    name: str | None = None,
) -> Document:
    """A document for `content`, with what ffmpeg can tell of the file at `path`."""
    document = world.new_document(content, mime_type(path), dc_id)
    facts = Probe()
    thumbnails: tuple[PhotoSize, ...] = ()
    if ffmpeg is not None and document.mime_type.startswith(("video/", "audio/")):
        try:
            facts = await probe(ffmpeg, path)
            thumbnails = await _thumbnails(ffmpeg, path, facts)
        except FfmpegFailed as error:
            log.warning("%s is posted without details: %s", path.name, error)
    kind = kind_of(document.mime_type)
    described = replace(
        document,
        file_name=name or path.name,
        kind=kind,
        duration_s=facts.duration_s,
        thumbnails=thumbnails,
    )
    if kind == "audio":
        return replace(described, title=facts.title, performer=facts.performer)
    return replace(described, width=facts.width, height=facts.height)


async def _thumbnails(ffmpeg: str, path: Path, facts: Probe) -> tuple[PhotoSize, ...]:
    if not facts.has_picture or not facts.width:
        return ()
    # The very first frame of a film is black more often than not; a cover is all there is.
    at_s = 0.0 if facts.has_cover else min(facts.duration_s / 4, 30.0)
    picture = await thumbnail(ffmpeg, path, at_s, THUMBNAIL_BOX)
    width, height = fit(facts.width, facts.height, THUMBNAIL_BOX)
    return (PhotoSize("m", width, height, BytesContent(picture)),)


# -- names and numbers ---------------------------------------------------------------------------


def scan(folder: Path) -> dict[Path, Stamp]:
    """The files under a folder by name; empty, hidden and half-downloaded ones are left out.

    Raises OSError when the folder itself cannot be read.
    """
    found: dict[Path, Stamp] = {}
    os.listdir(folder)  # os.walk keeps silent about a folder that is not there
    for place, folders, names in os.walk(folder):
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in shown if not name.endswith(FOLDER_SUFFIX)]
        qualities = {Path(place, name) for name in shown if name.endswith(FOLDER_SUFFIX)}
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in UNFINISHED:
                continue
            stamp = _stamp(path, with_qualities=qualities_folder(path) in qualities)
            if stamp is not None:
                found[path] = stamp
    if len(found) > FILES_MAX:
        log.warning("%d files; only the first %d are posted", len(found), FILES_MAX)
    ordered = sorted(found, key=lambda path: natural_order(str(path.relative_to(folder))))
    return {path: found[path] for path in ordered[:FILES_MAX]}


def _stamp(path: Path, *, with_qualities: bool) -> Stamp | None:
    """None for what is empty, no regular file, or gone before it could be looked at."""
    try:
        status = path.stat()
        beside = sorted(qualities_folder(path).glob("[!.]*")) if with_qualities else []
        states = [(each.name, each.stat()) for each in beside]
    except OSError:
        return None
    if not path.is_file() or not status.st_size:
        return None
    qualities = tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    return Stamp(status.st_size, status.st_mtime_ns, qualities)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts «Part 2» before «Part 10», whatever the case."""
    parts: Iterable[str] = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def mime_type(path: Path) -> str:
    suffix = path.suffix.lower()
    if PART_OF_A_FILE.fullmatch(suffix):
        return "application/octet-stream"
    known = MIME_TYPES.get(suffix) or mimetypes.guess_type(path.name)[0]
    return known or "application/octet-stream"


def kind_of(mime: str) -> FileKind:
    if mime.startswith("video/"):
        return "video"
    return "audio" if mime.startswith("audio/") else "document"


def batches(files: Iterable[Found]) -> list[list[Found]]:
    """Files in the order in which they are posted; those of one album are together.

    Telegram takes photos and films together, songs with songs, files with files, ten at most.
    """
    together: dict[tuple[Path, str], list[Found]] = {}
    for found in files:
        key = (found.path, "")
        if found.path.parent.suffix == ALBUM_SUFFIX:
            kind = "photo" if isinstance(found.media, Photo) else found.media.kind
            key = (found.path.parent, "seen" if kind in SEEN_KINDS else kind)
        together.setdefault(key, []).append(found)
    return [
        members[start : start + ALBUM_FILES_MAX]
        for members in together.values()
        for start in range(0, len(members), ALBUM_FILES_MAX)
    ]


def fit(width: int, height: int, box: int) -> tuple[int, int]:
    """A size scaled down into a box, never up."""
    scale = min(1.0, box / max(width, height, 1))
    return max(1, round(width * scale)), max(1, round(height * scale))
