"""A film of any length that costs no disk: a short MP4 played over and over.

    film = LoopedFilm(Path("clock.mp4"), times=300)     # 24 s become two hours, 7 MB become 2 GB

The result is a complete progressive MP4, index (`moov`) in front, that every player can seek in.
The index is built once, from the sample tables of the source; the media after it are the source's
own bytes, repeated, and read from the source when somebody asks for them.

Box layouts: ISO/IEC 14496-12. Sound and picture stay together at every seam: the picture's
duration is the period, a track that is longer loses the samples beyond it, and the last sample of
each turn is stretched or shortened so that the next turn starts exactly on time.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Literal

from .content import FileContent
from .mp4_boxes import BrokenMp4, child, entries, file_boxes, inner_boxes, need

INDEX_BYTES_MAX = 256 << 20
"""A `moov` beyond this is not an index but an attack, or a mistake."""
SAMPLES_MAX = 10_000_000
CHUNK_S = 1.0
"""Sound and picture are interleaved in turns of one second: far fewer chunks than ffmpeg's own,
so the index of a two-hour film stays near 2 MB and its first frame comes soon."""


class NotLoopable(ValueError):
    """The file is no plain MP4; the message says what is in the way."""


class LoopedFilm:
    """The MP4 at `path`, played `times` times over, as the Content of one file."""

    def __init__(self, path: Path, times: int) -> None:
        if times < 1:
            raise ValueError("a film is played at least once")
        self._source = FileContent(path)
        movie = read_movie(self._source)
        turn = _Turn(movie)
        self.times = times
        self.turn_bytes = turn.size
        self.turn_s = float(movie.period_s)
        self.duration_s = self.turn_s * times
        self._extents = turn.extents
        self._extent_starts = [0, *accumulate(length for _start, length in turn.extents)]
        self._head = _head(movie, turn, times)
        self.size = len(self._head) + turn.size * times

    def read(self, offset: int, length: int) -> bytes:
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        head = self._head[offset:stop]
        position = max(0, offset - len(self._head))
        media_stop = stop - len(self._head)
        pieces = [head]
        while position < media_stop:
            piece = self._read_media(position, media_stop - position)
            if not piece:
                raise OSError(f"{self._source.path.name} became shorter while it was served")
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)

    def _read_media(self, position: int, length: int) -> bytes:
        """Bytes of the repeated media from `position`, as far as one stretch of the source goes."""
        place = position % self.turn_bytes
        number = bisect_right(self._extent_starts, place) - 1
        start, extent_bytes = self._extents[number]
        skip = place - self._extent_starts[number]
        return self._source.read(start + skip, min(length, extent_bytes - skip))


# -- reading the source --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One coded frame: where its bytes are and how long it lasts."""

    offset: int
    size: int
    duration: int
    composition_offset: int
    is_sync: bool


@dataclass(frozen=True, slots=True)
class Track:
    """One track of the source; `boxes` has the parts that are copied as they are."""

    kind: bytes
    timescale: int
    samples: list[Sample]
    boxes: dict[bytes, bytes]
    media_start: int
    has_sync_table: bool
    composition_version: int

    @property
    def duration(self) -> int:
        return sum(sample.duration for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Movie:
    """The source's header and its sound and picture tracks."""

    header: bytes
    brands: bytes
    timescale: int
    tracks: list[Track]

    @property
    def period(self) -> tuple[int, int]:
        """How long one turn lasts, as (duration, timescale) of the track that leads."""
        leading = next((track for track in self.tracks if track.kind == b"vide"), self.tracks[0])
        return leading.duration, leading.timescale

    @property
    def period_s(self) -> float:
        duration, timescale = self.period
        return duration / timescale

    def turns_in(self, turns: int, timescale: int) -> int:
        """The length of so many turns in another timescale, rounded once and so never adrift."""
        duration, own_timescale = self.period
        return (turns * duration * timescale + own_timescale // 2) // own_timescale


def read_movie(source: FileContent) -> Movie:
    """The tables of an MP4; raises NotLoopable."""
    try:
        top = {box.kind: (box.body_start, box.stop) for box in file_boxes(source)}
        if b"moov" not in top:
            raise NotLoopable("no moov box: this is not an MP4")
        start, stop = top[b"moov"]
        if stop - start > INDEX_BYTES_MAX:
            raise NotLoopable(f"an index of {stop - start} bytes")
        return _read_moov(source, source.read(start, stop - start), top)
    except BrokenMp4 as problem:
        raise NotLoopable(str(problem)) from None
    except struct.error:
        raise NotLoopable("its index is damaged") from None


def _read_moov(source: FileContent, moov: bytes, top: dict[bytes, tuple[int, int]]) -> Movie:
    if child(moov, b"mvex") is not None:
        raise NotLoopable("a fragmented MP4; remux it with -movflags faststart")
    header = need(moov, b"mvhd")
    timescale = struct.unpack_from(">I", header, 20 if header[0] else 12)[0]
    traks = [body for kind, body in inner_boxes(moov) if kind == b"trak"]
    tracks = [track for track in map(_read_track, traks) if track is not None]
    if not tracks or not all(track.samples for track in tracks):
        raise NotLoopable("no sound and no picture in it")
    brands = source.read(*_span(top[b"ftyp"])) if b"ftyp" in top else b"isom\0\0\2\0isommp41"
    return Movie(header, brands, timescale, tracks)


def _read_track(trak: bytes) -> Track | None:
    """A sound or picture track; None for subtitles, chapters and the like."""
    mdia = need(trak, b"mdia")
    kind = need(mdia, b"hdlr")[8:12]
    if kind not in (b"vide", b"soun"):
        return None
    minf = need(mdia, b"minf")
    stbl = need(minf, b"stbl")
    mdhd = need(mdia, b"mdhd")
    media_header = b"vmhd" if kind == b"vide" else b"smhd"
    boxes = {b"tkhd": need(trak, b"tkhd"), b"mdhd": mdhd, b"hdlr": need(mdia, b"hdlr")}
    boxes |= {name: need(minf, name) for name in (media_header, b"dinf")}
    boxes[b"stsd"] = need(stbl, b"stsd")
    ctts = child(stbl, b"ctts")
    return Track(
        kind,
        struct.unpack_from(">I", mdhd, 20 if mdhd[0] else 12)[0],
        _read_samples(stbl),
        boxes,
        _media_start(trak),
        child(stbl, b"stss") is not None,
        ctts[0] if ctts else 0,
    )


def _read_samples(stbl: bytes) -> list[Sample]:
    sizes = _sample_sizes(need(stbl, b"stsz"))
    count = len(sizes)
    durations = _runs(need(stbl, b"stts"), ">II", count)
    ctts = child(stbl, b"ctts")
    signed = ">Ii" if ctts and ctts[0] else ">II"
    shifts = _runs(ctts, signed, count) if ctts else [0] * count
    stss = child(stbl, b"stss")
    sync = set(range(count)) if stss is None else {n - 1 for (n,) in entries(stss, ">I")}
    offsets = list(_sample_offsets(stbl, sizes))
    if not len(durations) == len(shifts) == len(offsets) == count:
        raise NotLoopable("its sample tables disagree")
    return [Sample(offsets[n], sizes[n], durations[n], shifts[n], n in sync) for n in range(count)]


def _sample_sizes(stsz: bytes) -> list[int]:
    same, count = struct.unpack_from(">II", stsz, 4)
    if count > SAMPLES_MAX:
        raise NotLoopable(f"{count} samples")
    if same:
        return [same] * count
    return list(struct.unpack_from(f">{count}I", stsz, 12))


def _sample_offsets(stbl: bytes, sizes: list[int]) -> Iterator[int]:
    """Where each sample begins, from the chunk table and the samples-to-chunk runs."""
    stco, co64 = child(stbl, b"stco"), child(stbl, b"co64")
    table = entries(stco, ">I") if stco is not None else entries(co64 or b"", ">Q")
    chunks = [offset for (offset,) in table]
    runs = entries(need(stbl, b"stsc"), ">III")
    if any(description != 1 for _first, _count, description in runs):
        raise NotLoopable("its coding changes on the way")
    ends = [first - 1 for first, _count, _description in runs[1:]] + [len(chunks)]
    number = 0
    for (first, per_chunk, _description), end in zip(runs, ends, strict=True):
        for offset in chunks[first - 1 : end]:
            for size in sizes[number : number + per_chunk]:
                yield offset
                offset += size
            number += per_chunk


def _media_start(trak: bytes) -> int:
    """Where the edit list starts to play: the samples that an encoder puts before time zero."""
    edts = child(trak, b"edts")
    elst = child(edts, b"elst") if edts else None
    if elst is None:
        return 0
    edits = entries(elst, ">Qqi" if elst[0] else ">Iii")
    # An empty edit (-1) delays a track; a delay of a few samples is not worth keeping in a loop.
    starts = [media_time for _duration, media_time, _rate in edits if media_time >= 0]
    if len(starts) > 1:
        raise NotLoopable("its edit list cuts the film")
    return starts[0] if starts else 0


# -- one turn ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _TurnChunk:
    """Samples of one track that lie together; `offset` counts from the start of the turn."""

    offset: int
    sample_count: int


class _Turn:
    """One pass through the film: the samples that it keeps, and the order of their bytes."""

    def __init__(self, movie: Movie) -> None:
        self.samples = [_samples_of_turn(track, movie) for track in movie.tracks]
        self.chunks: list[list[_TurnChunk]] = [[] for _track in movie.tracks]
        self.extents: list[tuple[int, int]] = []
        self.size = 0
        pending = []
        for number, track in enumerate(movie.tracks):
            seconds = _groups_by_second(self.samples[number], track.timescale)
            pending += [(second, number, samples) for second, samples in seconds]
        for _second, number, samples in sorted(pending, key=lambda entry: entry[:2]):
            self.chunks[number].append(_TurnChunk(self.size, len(samples)))
            for sample in samples:
                self._append(sample.offset, sample.size)

    def _append(self, offset: int, length: int) -> None:
        if self.extents and sum(self.extents[-1]) == offset:
            start, before = self.extents[-1]
            self.extents[-1] = (start, before + length)
        elif length:
            self.extents.append((offset, length))
        self.size += length


def _samples_of_turn(track: Track, movie: Movie) -> list[Sample]:
    """The samples that begin within the period, so at least one."""
    limit = max(1, movie.turns_in(1, track.timescale))
    starts = accumulate((sample.duration for sample in track.samples), initial=0)
    return [sample for start, sample in zip(starts, track.samples, strict=False) if start < limit]


def _groups_by_second(samples: list[Sample], timescale: int) -> Iterator[tuple[int, list[Sample]]]:
    """The samples that go into one chunk together, with the second in which they begin."""
    starts = accumulate((sample.duration for sample in samples), initial=0)
    seconds = (int(start / timescale / CHUNK_S) for start in starts)
    timed = zip(seconds, samples, strict=False)
    for second, run in groupby(timed, lambda pair: pair[0]):
        yield second, [sample for _second, sample in run]


# -- writing the index ---------------------------------------------------------------------------


def _head(movie: Movie, turn: _Turn, times: int) -> bytes:
    """Everything before the media: ftyp, moov and the header of a 64-bit mdat."""
    ftyp = _box(b"ftyp", movie.brands)
    # co64 entries have a fixed width, so the length of the index is known before its offsets are.
    moov = _moov(movie, turn, times, 0)
    media_start = len(ftyp) + len(moov) + 16
    moov = _moov(movie, turn, times, media_start)
    mdat = struct.pack(">I4sQ", 1, b"mdat", 16 + turn.size * times)
    return ftyp + moov + mdat


def _moov(movie: Movie, turn: _Turn, times: int, media_start: int) -> bytes:
    duration = movie.turns_in(times, movie.timescale)
    tracks = [
        _trak(
            movie, track, turn.samples[number], turn.chunks[number], turn.size, times, media_start
        )
        for number, track in enumerate(movie.tracks)
    ]
    mvhd = _with_duration(movie.header, duration, times_at=4, length_at=16)
    return _box(b"moov", _box(b"mvhd", mvhd), *tracks)


def _trak(
    movie: Movie,
    track: Track,
    samples: list[Sample],
    chunks: list[_TurnChunk],
    turn_bytes: int,
    times: int,
    media_start: int,
) -> bytes:
    movie_duration = movie.turns_in(times, movie.timescale)
    media_duration = movie.turns_in(times, track.timescale)
    copied = track.boxes
    tkhd = _with_duration(copied[b"tkhd"], movie_duration, times_at=4, length_at=20)
    mdhd = _with_duration(copied[b"mdhd"], media_duration, times_at=4, length_at=16)
    stbl = [_box(b"stsd", copied[b"stsd"]), _stts(movie, track, samples, times)]
    if any(sample.composition_offset for sample in samples):
        stbl.append(_ctts(track, samples, times))
    if track.has_sync_table:
        stbl.append(_stss(samples, times))
    stbl += [_stsc(chunks, times), _stsz(samples, times)]
    stbl.append(_co64(chunks, turn_bytes, times, media_start))
    media_header = b"vmhd" if track.kind == b"vide" else b"smhd"
    minf = _box(
        b"minf",
        _box(media_header, copied[media_header]),
        _box(b"dinf", copied[b"dinf"]),
        _box(b"stbl", *stbl),
    )
    mdia = _box(b"mdia", _box(b"mdhd", mdhd), _box(b"hdlr", copied[b"hdlr"]), minf)
    elst = struct.pack(">B3xIQqi", 1, 1, movie_duration, track.media_start, 1 << 16)
    return _box(b"trak", _box(b"tkhd", tkhd), _box(b"edts", _box(b"elst", elst)), mdia)


def _with_duration(header: bytes, duration: int, *, times_at: int, length_at: int) -> bytes:
    """mvhd, tkhd or mdhd with a new duration, rewritten as version 1, whose durations are 64 bit.

    The two times at the front grow with it; what lies between them and the duration, and what
    follows, is the same in both versions.
    """
    if header[0]:
        between, rest = header[20 : length_at + 8], header[length_at + 16 :]
        created, changed = struct.unpack_from(">QQ", header, times_at)
    else:
        between, rest = header[12:length_at], header[length_at + 4 :]
        created, changed = struct.unpack_from(">II", header, times_at)
    front = struct.pack(">B3sQQ", 1, header[1:4], created, changed)
    return front + between + struct.pack(">Q", duration) + rest


def _stts(movie: Movie, track: Track, samples: list[Sample], times: int) -> bytes:
    """Durations; the last sample of each turn is as long as the turn has room for."""
    before = sum(sample.duration for sample in samples[:-1])
    turn_runs = [
        (len(list(run)), delta) for delta, run in groupby(s.duration for s in samples[:-1])
    ]
    runs: list[tuple[int, int]] = []
    for number in range(times):
        start = movie.turns_in(number, track.timescale)
        length = movie.turns_in(number + 1, track.timescale) - start
        for count, delta in [*turn_runs, (1, length - before)]:
            if runs and runs[-1][1] == delta:
                runs[-1] = (runs[-1][0] + count, delta)
            else:
                runs.append((count, delta))
    return _table(b"stts", 0, b"".join(struct.pack(">II", *run) for run in runs), len(runs))


def _ctts(track: Track, samples: list[Sample], times: int) -> bytes:
    shifts = groupby(sample.composition_offset for sample in samples)
    layout = ">Ii" if track.composition_version else ">II"
    runs = [struct.pack(layout, len(list(run)), shift) for shift, run in shifts]
    return _table(b"ctts", track.composition_version, b"".join(runs) * times, len(runs) * times)


def _stss(samples: list[Sample], times: int) -> bytes:
    in_turn = [number for number, sample in enumerate(samples, 1) if sample.is_sync]
    numbers = (turn * len(samples) + number for turn in range(times) for number in in_turn)
    return _table(b"stss", 0, _big_endian("I", numbers), len(in_turn) * times)


def _stsc(chunks: list[_TurnChunk], times: int) -> bytes:
    runs: list[tuple[int, int]] = []
    for number, chunk in enumerate(chunks * times, 1):
        if not runs or runs[-1][1] != chunk.sample_count:
            runs.append((number, chunk.sample_count))
    body = b"".join(struct.pack(">III", first, count, 1) for first, count in runs)
    return _table(b"stsc", 0, body, len(runs))


def _stsz(samples: list[Sample], times: int) -> bytes:
    sizes = _big_endian("I", (sample.size for sample in samples)) * times
    return _box(b"stsz", struct.pack(">III", 0, 0, len(samples) * times), sizes)


def _co64(chunks: list[_TurnChunk], turn_bytes: int, times: int, media_start: int) -> bytes:
    offsets = (
        media_start + turn * turn_bytes + chunk.offset for turn in range(times) for chunk in chunks
    )
    return _table(b"co64", 0, _big_endian("Q", offsets), len(chunks) * times)


# -- boxes ---------------------------------------------------------------------------------------


def _box(kind: bytes, *bodies: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, bodies)), kind) + b"".join(bodies)


def _table(kind: bytes, version: int, entries: bytes, count: int) -> bytes:
    return _box(kind, struct.pack(">B3xI", version, count), entries)


def _big_endian(typecode: Literal["I", "Q"], numbers: Iterator[int]) -> bytes:
    # array's native words are swapped in C: packing 300,000 sizes one by one takes far longer.
    words = array(typecode, numbers)
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()


def _span(place: tuple[int, int]) -> tuple[int, int]:
    return place[0], place[1] - place[0]


def _runs(table: bytes, layout: str, count_max: int) -> list[int]:
    """A run-length table spelled out, one value per sample."""
    rows = entries(table, layout)
    if sum(row[0] for row in rows) > count_max:
        raise NotLoopable("its sample tables disagree")
    return [row[1] for row in rows for _repeat in range(row[0])]
