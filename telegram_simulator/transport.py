"""How packets are told apart in a TCP stream: Telegram's framings, recognised by their first bytes.

Source: core.telegram.org/mtproto/mtproto-transports.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

MAX_PACKET_BYTES = 1 << 20
"""The biggest packet a client may send; a full container of 1,044,456 bytes still fits."""
KEY_NOT_FOUND = -404
WRONG_DATA_CENTRE = -444

ENVELOPE_HEADER_BYTES = 24
CIPHER_BLOCK_BYTES = 16


class TransportViolation(Exception):
    """The peer broke the framing; nothing after this point of the stream can be trusted."""


class Framing(Protocol):
    """One way to cut a stream into packets, both ways."""

    async def read(self, reader: asyncio.StreamReader) -> bytes: ...

    def wrap(self, parts: Sequence[bytes]) -> bytes: ...


def error_packet(code: int) -> tuple[bytes]:
    """A transport error: four bytes of negative number where a packet should be."""
    return (struct.pack("<i", code),)


async def detect_framing(reader: asyncio.StreamReader) -> Framing:
    """Read what a client sends first and give the framing that it chose."""
    first = await reader.readexactly(1)
    if first == b"\xef":
        return Abridged()
    head = first + await reader.readexactly(3)
    if head == b"\xee\xee\xee\xee":
        return Intermediate()
    if head == b"\xdd\xdd\xdd\xdd":
        return PaddedIntermediate()
    # The full framing has no tag: what came is already the length of the first packet. An
    # obfuscated stream also ends up here, and its random length is refused.
    return Full(head)


class Abridged:
    """Length in words, in one byte or in 0x7f and three more."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        words = (await reader.readexactly(1))[0]
        if words == 0x7F:
            words = int.from_bytes(await reader.readexactly(3), "little")
        elif words > 0x7F:
            raise TransportViolation("quick acknowledgements are not served")
        return await reader.readexactly(_checked_length(words * 4))

    def wrap(self, parts: Sequence[bytes]) -> bytes:
        words, rest = divmod(sum(map(len, parts)), 4)
        if rest:
            raise ValueError("the abridged framing carries whole words only")
        head = bytes((words,)) if words < 0x7F else b"\x7f" + words.to_bytes(3, "little")
        return b"".join((head, *parts))


class Intermediate:
    """Length in bytes, in four bytes."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        (length,) = struct.unpack("<I", await reader.readexactly(4))
        return await reader.readexactly(_checked_length(length))

    def wrap(self, parts: Sequence[bytes]) -> bytes:
        return b"".join((struct.pack("<I", sum(map(len, parts))), *parts))


class PaddedIntermediate(Intermediate):
    """Intermediate with a few random bytes at the end of each packet, to blur its length."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        packet = await super().read(reader)
        if packet[:8] == bytes(8):
            return packet  # an unencrypted message carries its own length
        return packet[: len(packet) - (len(packet) - ENVELOPE_HEADER_BYTES) % CIPHER_BLOCK_BYTES]

    def wrap(self, parts: Sequence[bytes]) -> bytes:
        # Up to three bytes only: some clients strip what does not fill a word and no more.
        return super().wrap((*parts, secrets.token_bytes(secrets.randbelow(4))))


class Full:
    """Length, sequence number, packet, CRC-32 of them all; numbers and sums are checked."""

    OVERHEAD_BYTES = 12

    def __init__(self, head: bytes = b"") -> None:
        self._head = head
        self._received = 0
        self._sent = 0

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        head = self._head or await reader.readexactly(4)
        self._head = b""
        (length,) = struct.unpack("<I", head)
        if length < self.OVERHEAD_BYTES:
            raise TransportViolation(f"a packet of {length} bytes in the full framing")
        rest = await reader.readexactly(_checked_length(length) - 4)
        number, *_ = struct.unpack_from("<I", rest)
        (checksum,) = struct.unpack_from("<I", rest, len(rest) - 4)
        if checksum != crc32(memoryview(rest)[:-4], crc32(head)):
            raise TransportViolation("wrong CRC-32")
        if number != self._received:
            raise TransportViolation(f"packet {number} where {self._received} was due")
        self._received += 1
        return rest[4:-4]

    def wrap(self, parts: Sequence[bytes]) -> bytes:
        length = self.OVERHEAD_BYTES + sum(map(len, parts))
        head = struct.pack("<II", length, self._sent)
        self._sent += 1
        checksum = crc32(head)
        for part in parts:
            checksum = crc32(part, checksum)
        return b"".join((head, *parts, struct.pack("<I", checksum)))


def _checked_length(length: int) -> int:
    if not 0 < length <= MAX_PACKET_BYTES:
        raise TransportViolation(f"a packet of {length} bytes")
    return length
