"""Tracks: the subtitles that were posted with a film, as a browser shows them.

GET /api/files/{chat_id}/{message_id}/subtitles    which a film has
GET /subtitles/{chat_id}/{message_id}.vtt          one of them, whatever it is, as WebVTT
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gallery.catalogue import CATALOGUE
from gallery.errors import ApiError
from gallery.files import MediaFile
from gallery.http_file import is_known
from gallery.index import Index
from gallery.related import subtitles_of
from gallery.subtitle_names import SUBTITLES_MAX_BYTES, is_subtitles, track_of
from gallery.webvtt import NotSubtitlesError, to_webvtt
from gallery.whole_files import WholeFiles

KEPT_S: Final = 600.0  # an edited post may hold other subtitles of the same length
KEPT_MAX_BYTES: Final = 16 << 20
UNDER_WAY_MAX: Final = 20


@dataclass(frozen=True)
class Written:
    """Subtitles as WebVTT, and the tag of this very text."""

    body: bytes
    tag: str


class Tracks:
    """Turns subtitle files into WebVTT and keeps the latest. Whoever asks for one that is being
    made waits for that."""

    def __init__(self, files: WholeFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._kept: dict[MediaFile, tuple[Written | None, float]] = {}
        self._under_way: dict[MediaFile, asyncio.Task[Written | None]] = {}
        self._turn = asyncio.Lock()  # one is turned at a time, which takes up to two seconds

    async def close(self) -> None:
        """Let go of what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def written(self, file: MediaFile) -> Written:
        """The subtitles of a file; raise ApiError if it holds none, or cannot be had."""
        if not is_subtitles(file.name, file.size):
            raise _no_subtitles()
        written, until = self._kept.get(file, (None, 0.0))
        if until <= self._clock():
            written = await asyncio.shield(self._writing(file))
        if written is None:
            raise _no_subtitles()
        return written

    def _writing(self, file: MediaFile) -> asyncio.Task[Written | None]:
        """The making of these subtitles, begun already or now; raise ApiError if it is too much."""
        task = self._under_way.get(file)
        if task is None:
            if len(self._under_way) >= UNDER_WAY_MAX:
                raise ApiError(503, "worker_busy", "Too much is asked at once.", retry_after_s=3)
            task = self._under_way[file] = asyncio.create_task(self._write(file))
            task.add_done_callback(lambda done: self._note(file, done))
        return task

    async def _write(self, file: MediaFile) -> Written | None:
        raw = await self._files.read(file, SUBTITLES_MAX_BYTES)
        language = track_of(file.name, None).language
        try:
            async with self._turn:
                text = await asyncio.to_thread(to_webvtt, raw, language)
        except NotSubtitlesError:
            return None
        body = text.encode()
        return Written(body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')

    def _note(self, file: MediaFile, done: asyncio.Task[Written | None]) -> None:
        """Keep the latest, as many as there is room for."""
        del self._under_way[file]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept.pop(file, None)
        self._kept[file] = (done.result(), self._clock() + KEPT_S)
        size = sum(len(each.body) if each else 1000 for each, _ in self._kept.values())
        while size > KEPT_MAX_BYTES and len(self._kept) > 1:
            gone, _ = self._kept.pop(next(iter(self._kept)))
            size -= len(gone.body) if gone else 1000


TRACKS: Final = web.AppKey("TRACKS", Tracks)


async def list_subtitles(request: web.Request) -> web.Response:
    """GET /api/files/{chat_id}/{message_id}/subtitles"""
    film = await requested_file(request)
    tracks = await list_tracks(request.app[CATALOGUE].index, film)
    return web.json_response(tracks, headers={"Cache-Control": "no-store"})


async def show_subtitles(request: web.Request) -> web.Response:
    """GET /subtitles/{chat_id}/{message_id}.vtt"""
    return await answer_with(request, await requested_file(request))


async def list_tracks(
    index: Index, film: MediaFile, place: str | None = None
) -> list[dict[str, object]]:
    """A film's subtitles for a player; below `place` if that is not the owner's own."""
    place = place or f"/subtitles/{film.chat_id}"
    return [
        {
            "label": each.label,
            "language": each.track.language,
            "forced": each.track.is_forced,
            "url": f"{place}/{each.file.message_id}.vtt",
            "message_id": each.file.message_id,
        }
        for each in await subtitles_of(index, film)
    ]


async def answer_with(request: web.Request, file: MediaFile) -> web.Response:
    """A subtitle file as WebVTT, or that the browser has it already."""
    written = await request.app[TRACKS].written(file)
    headers = {"ETag": written.tag, "Cache-Control": "private, no-cache"}
    if is_known(request.headers, written.tag):
        return web.Response(status=304, headers=headers)
    response = web.Response(
        body=written.body, content_type="text/vtt", charset="utf-8", headers=headers
    )
    response.enable_compression()
    return response


async def requested_file(request: web.Request) -> MediaFile:
    """The file that the path of a request names."""
    chat_id, message_id = (int(request.match_info[name]) for name in ("chat_id", "message_id"))
    return await request.app[CATALOGUE].find(chat_id, message_id)


def _no_subtitles() -> ApiError:
    return ApiError(422, "not_subtitles", "There are no subtitles in that file.")
