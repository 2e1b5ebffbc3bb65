"""What files are made of: bytes by position, from a disk or from nothing at all."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

SLOT_BYTES = 1 << 20
WORD_BYTES = 8
WORDS_PER_SLOT = SLOT_BYTES // WORD_BYTES
SHARED_BYTE = 5
"""Of a word: half of it comes from the number of the slot, half from the place in the slot."""


class Content(Protocol):
    """The bytes of one file; `read` gives fewer than asked only at the end."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class BytesContent:
    """A file held in memory: thumbnails, tiny test files."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.size = len(body)

    def read(self, offset: int, length: int) -> bytes:
        return self._body[offset : offset + length]


class FileContent:
    """A file on disk, opened for each read so that thousands of posts cost no descriptors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(descriptor, max(0, min(length, self.size - offset)), offset)
        finally:
            os.close(descriptor)


@lru_cache(maxsize=1)
def _slot_pattern() -> bytes:
    """The offset of every word inside one MiB, which fills its three lower bytes at most."""
    return b"".join(
        offset.to_bytes(WORD_BYTES, "big") for offset in range(0, SLOT_BYTES, WORD_BYTES)
    )


class SyntheticContent:
    """A file of any size that costs no disk: each aligned 8-byte word says where it stands.

    A word is big-endian: the file's `seed` in the top 16 bits, the word's own offset in the lower
    48. A wrong byte in a test therefore names the file and the place that it came from.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if not 0 <= size < 1 << 48 or not 0 <= seed < 1 << 16:
            raise ValueError("size must fit 48 bits and seed 16 bits")
        self.size = size
        self.seed = seed

    def read(self, offset: int, length: int) -> bytes:
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        first, last = offset // SLOT_BYTES, (stop - 1) // SLOT_BYTES
        body = b"".join(self._slot(number) for number in range(first, last + 1))
        start = offset - first * SLOT_BYTES
        return body[start : start + stop - offset]

    def _slot(self, number: int) -> bytes:
        # Byte by byte of the word, all words of the slot at once: a MiB takes a quarter of a
        # millisecond, or the simulator, not the worker, would be the slow end of a benchmark.
        high = ((self.seed << 48) | (number * SLOT_BYTES)).to_bytes(WORD_BYTES, "big")
        slot = bytearray(_slot_pattern())
        for place, value in enumerate(high[:SHARED_BYTE]):
            if value:
                slot[place::WORD_BYTES] = bytes((value,)) * WORDS_PER_SLOT
        if shared := high[SHARED_BYTE]:
            both = bytes(low | shared for low in range(256))
            slot[SHARED_BYTE::WORD_BYTES] = slot[SHARED_BYTE::WORD_BYTES].translate(both)
        return bytes(slot)
