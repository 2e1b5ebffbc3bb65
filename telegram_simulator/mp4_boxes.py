"""The boxes that an MP4 is made of, as far as this package reads them (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .content import Content


class BrokenMp4(ValueError):
    """The file is no MP4, or not a whole one; the message says what is in the way."""


@dataclass(frozen=True, slots=True)
class FileBox:
    """A box of the file itself; its body begins after 8 bytes, or 16 when the box is huge."""

    kind: bytes
    start: int
    body_start: int
    stop: int


def file_boxes(source: Content) -> Iterator[FileBox]:
    """The boxes of the file itself, one after another. Raises BrokenMp4."""
    position = 0
    while position + 8 <= source.size:
        head = source.read(position, 16)
        size, kind = struct.unpack_from(">I4s", head)
        body = position + 8
        if size == 1 and len(head) == 16:
            size, body = struct.unpack_from(">Q", head, 8)[0], position + 16
        stop = source.size if size == 0 else position + size
        if stop < body or stop > source.size:
            raise BrokenMp4("broken off, or not an MP4")
        yield FileBox(kind, position, body, stop)
        position = stop


def inner_boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes inside a box, as (kind, body). Raises BrokenMp4."""
    position = 0
    while position + 8 <= len(body):
        size, kind = struct.unpack_from(">I4s", body, position)
        if size < 8 or position + size > len(body):
            raise BrokenMp4("a box that does not fit its parent")
        yield kind, body[position + 8 : position + size]
        position += size


def child(body: bytes, kind: bytes) -> bytes | None:
    return next((inner for name, inner in inner_boxes(body) if name == kind), None)


def need(body: bytes, kind: bytes) -> bytes:
    """A box inside a box. Raises BrokenMp4 when there is none."""
    found = child(body, kind)
    if found is None:
        raise BrokenMp4(f"no {kind.decode()} box")
    return found


def entries(table: bytes, layout: str) -> list[tuple[int, ...]]:
    """The rows of a full box that begins with its version and its number of entries."""
    count = struct.unpack_from(">I", table, 4)[0]
    return list(struct.iter_unpack(layout, table[8 : 8 + count * struct.calcsize(layout)]))
