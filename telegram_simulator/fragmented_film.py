"""Where the segments of a fragmented MP4 are, and how it is coded (ISO/IEC 14496-12, 8.8)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .content import Content
from .mp4_boxes import BrokenMp4, FileBox, child, file_boxes, inner_boxes, need

INDEX_BYTES_MAX = 64 << 20
"""Of one moov or moof: a fragment of seconds needs a few KB."""
NOT_FRAGMENTED = "not fragmented; make it with -movflags frag_keyframe+empty_moov"
CODECS = {
    **{b"avc1": "h264", b"avc3": "h264", b"hvc1": "h265", b"hev1": "h265"},
    **{b"av01": "av1"},
}
"""Telegram's word for what the sample description of an MP4 says."""
DURATION_IN_TFHD, FLAGS_IN_TFHD = 0x8, 0x20
FIRST_FLAGS_IN_TRUN, DURATION_IN_TRUN, SIZE_IN_TRUN, FLAGS_IN_TRUN, SHIFT_IN_TRUN = (
    *(0x4, 0x100, 0x200),
    *(0x400, 0x800),
)
NOT_A_KEY_FRAME = 0x10000


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a fragmented MP4 that begins with a key frame."""

    offset: int
    length: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Rendition:
    """One quality of a film: how it is coded, and where in the file its segments are."""

    codec: str
    width: int
    height: int
    head_bytes: int
    segments: tuple[Segment, ...]

    @property
    def duration_s(self) -> float:
        return sum(segment.duration_s for segment in self.segments)


@dataclass(frozen=True, slots=True)
class _Track:
    """The track that is looked at; the defaults hold where a fragment says nothing else."""

    id: int
    timescale: int
    default_duration: int
    default_flags: int


def read_rendition(source: Content) -> Rendition:
    """Find the segments of a fragmented MP4. Raises BrokenMp4."""
    try:
        return _read_rendition(source)
    except struct.error:
        raise BrokenMp4("its index is damaged") from None


def _read_rendition(source: Content) -> Rendition:
    boxes = list(file_boxes(source))
    head = next((box for box in boxes if box.kind == b"moov"), None)
    if head is None:
        raise BrokenMp4("no moov box: this is not an MP4")
    track, description = _picture_track(_index(source, head))
    codec, width, height = _coding(description)
    segments = _segments(source, boxes[boxes.index(head) + 1 :], track)
    return Rendition(codec, width, height, head.stop, tuple(segments))


def _segments(source: Content, boxes: Sequence[FileBox], track: _Track) -> list[Segment]:
    """One from each fragment that begins with a key frame to the next such one."""
    segments: list[Segment] = []
    start: int | None = None
    for box in boxes:
        if box.kind in (b"styp", b"moof"):
            start = box.start if start is None else start
        if box.kind == b"moof":
            duration, is_key = _fragment(_index(source, box), track)
            if is_key:
                segments.append(Segment(start or 0, 0, 0.0))
            elif not segments:
                raise BrokenMp4("its first picture is no key frame")
            longer_s = segments[-1].duration_s + duration / track.timescale
            segments[-1] = replace(segments[-1], duration_s=longer_s)
        elif box.kind == b"mdat" and segments:
            segments[-1] = replace(segments[-1], length=box.stop - segments[-1].offset)
            start = None
    if not segments:
        raise BrokenMp4(NOT_FRAGMENTED)
    return segments


def _index(source: Content, box: FileBox) -> bytes:
    length = box.stop - box.body_start
    if length > INDEX_BYTES_MAX:
        raise BrokenMp4(f"an index of {length} bytes")
    return source.read(box.body_start, length)


def _picture_track(moov: bytes) -> tuple[_Track, bytes]:
    """The first picture track and its sample description."""
    for kind, trak in inner_boxes(moov):
        if kind != b"trak":
            continue
        mdia = need(trak, b"mdia")
        if need(mdia, b"hdlr")[8:12] != b"vide":
            continue
        tkhd, mdhd = need(trak, b"tkhd"), need(mdia, b"mdhd")
        number = struct.unpack_from(">I", tkhd, 20 if tkhd[0] else 12)[0]
        timescale = struct.unpack_from(">I", mdhd, 20 if mdhd[0] else 12)[0]
        mvex = child(moov, b"mvex")
        if not timescale or mvex is None:
            raise BrokenMp4(NOT_FRAGMENTED)
        duration, flags = _defaults(mvex, number)
        stbl = need(need(mdia, b"minf"), b"stbl")
        return _Track(number, timescale, duration, flags), need(stbl, b"stsd")
    raise BrokenMp4("there is no picture in it")


def _defaults(mvex: bytes, track_id: int) -> tuple[int, int]:
    for kind, body in inner_boxes(mvex):
        if kind == b"trex" and struct.unpack_from(">I", body, 4)[0] == track_id:
            duration, _size, flags = struct.unpack_from(">III", body, 12)
            return duration, flags
    return 0, 0


def _coding(stsd: bytes) -> tuple[str, int, int]:
    kind, entry = next(inner_boxes(stsd[8:]), (b"", b""))
    if kind not in CODECS:
        raise BrokenMp4(f"its picture is coded as {kind.decode('latin-1')!r}")
    width, height = struct.unpack_from(">HH", entry, 24)
    return CODECS[kind], width, height


def _fragment(moof: bytes, track: _Track) -> tuple[int, bool]:
    """How long the pictures of a fragment last, and whether the first is a key frame."""
    for kind, traf in inner_boxes(moof):
        tfhd = need(traf, b"tfhd") if kind == b"traf" else b""
        if tfhd and struct.unpack_from(">I", tfhd, 4)[0] == track.id:
            return _run(traf, tfhd, track)
    return 0, False


def _run(traf: bytes, tfhd: bytes, track: _Track) -> tuple[int, bool]:
    default_duration, default_flags = _fragment_defaults(tfhd, track)
    total, first_flags = 0, None
    for kind, trun in inner_boxes(traf):
        if kind != b"trun":
            continue
        flags, count = struct.unpack_from(">II", trun)
        flags &= 0xFFFFFF
        position = 8 + (4 if flags & 0x1 else 0)
        flags_of_first = default_flags
        if flags & FIRST_FLAGS_IN_TRUN:
            flags_of_first = struct.unpack_from(">I", trun, position)[0]
            position += 4
        fields = (DURATION_IN_TRUN, SIZE_IN_TRUN, FLAGS_IN_TRUN, SHIFT_IN_TRUN)
        present = [field for field in fields if flags & field]
        row = struct.Struct(f">{len(present)}I")
        if not present:
            total += count * default_duration
        for number in range(count if present else 0):
            values = dict(zip(present, row.unpack_from(trun, position), strict=True))
            position += row.size
            total += values.get(DURATION_IN_TRUN, default_duration)
            if number == 0:
                flags_of_first = values.get(FLAGS_IN_TRUN, flags_of_first)
        if first_flags is None:
            first_flags = flags_of_first
    return total, first_flags is not None and not first_flags & NOT_A_KEY_FRAME


def _fragment_defaults(tfhd: bytes, track: _Track) -> tuple[int, int]:
    flags = struct.unpack_from(">I", tfhd)[0] & 0xFFFFFF
    # In this order, each there only if its flag is: base offset, description, duration, size.
    position = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
    duration, sample_flags = track.default_duration, track.default_flags
    if flags & DURATION_IN_TFHD:
        duration = struct.unpack_from(">I", tfhd, position)[0]
        position += 4
    position += 4 if flags & 0x10 else 0
    if flags & FLAGS_IN_TFHD:
        sample_flags = struct.unpack_from(">I", tfhd, position)[0]
    return duration, sample_flags
