"""Section 10 of the worker: how it cuts what Telegram sends into packets, and opens them.

The stream is made of good packets and of anything else, and comes in pieces of any size. What the
wire makes of it is compared with a reading of the whole stream at once, written from Telegram's
description (core.telegram.org/mtproto/mtproto-transports#abridged), not from the worker.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import struct
import time
from typing import Any

import cryptg
import worker
from telethon import errors
from telethon.crypto import AuthKey
from telethon.network.mtprotostate import MTProtoState
from telethon.tl import types
from telethon.tl.core import RpcResult

from telegram_simulator.transport import Abridged

from .source import Source, Target

KIB = 1024
DICE = random.Random(5)
SECRET = DICE.randbytes(256)
FILLER = DICE.randbytes(3 << 20)
HERE = worker.DataCentre(2, "127.0.0.1", 1)
SESSION = 0x5EED
NOW = 1_800_000_000
STREAM_MAX_BYTES = 5 << 20

# Where the ways of the worker part: short and long packets, pieces, the longest packet of all.
_SIZES = (
    *(0, 4, 24, 40, 504, 508, 512, 4 * KIB, 64 * KIB),
    *(112 * KIB - 8, 112 * KIB, 112 * KIB + 8, 114 * KIB, 224 * KIB, 1024 * KIB, 2048 * KIB),
)


class Plug(asyncio.Transport):
    """The loop's end of the connection; notes that the worker wants it closed."""

    def __init__(self) -> None:
        super().__init__()
        self.is_pulled = False

    def write(self, data: Any) -> None:
        assert data == b"\xef"  # the tag of the framing is all that is said here

    def abort(self) -> None:
        self.is_pulled = True

    def is_closing(self) -> bool:
        return self.is_pulled


class Line:
    """A wire with or without a key, and what the server that seals packets for it knows."""

    def __init__(self, *, has_key: bool) -> None:
        key = AuthKey(SECRET if has_key else None)
        self.wire = worker._Wire(HERE, key)
        self.plug = Plug()
        self.wire.connection_made(self.plug)
        self.state = worker._State(AuthKey(SECRET), worker._TelethonLoggers(), worker._Clock())
        self.state.id = SESSION
        self.state.time_offset = NOW - time.time()

    def feed(self, stream: bytes, source: Source) -> None:
        """As an event loop does: what there is room for, until the connection is closed."""
        sizes = (1, 2, 3, 5, 24, 700, 9000, 64 * KIB, 112 * KIB, 256 * KIB)
        pattern = [source.pick(sizes) for _ in range(source.number(1, 5))]
        position = turn = 0
        while position < len(stream) and not self.plug.is_pulled:
            room = self.wire.get_buffer(-1)
            assert len(room) > 0, "an event loop gives up a protocol without room"
            # Byte by byte for a while only: half a million calls tell no more than some hundred.
            wanted = pattern[turn % len(pattern)] if turn < 300 else 256 * KIB
            taken = stream[position : position + min(wanted, len(room))]
            room[: len(taken)] = taken
            self.wire.buffer_updated(len(taken))
            position += len(taken)
            turn += 1
            self._check_limits()

    def _check_limits(self) -> None:
        assert len(self.wire._buffer) == worker.RECEIVE_BUFFER_BYTES
        assert 0 <= self.wire._start <= self.wire._end <= worker.RECEIVE_BUFFER_BYTES
        if (sealed := self.wire._sealed) is not None:
            held = sum(map(len, sealed.pieces)) + self.wire._missing
            assert held <= worker.PACKET_MAX_BYTES

    def received(self) -> list[Any]:
        packets = []
        while not self.wire._packets.empty():
            packets.append(self.wire._packets.get_nowait())
        return packets


def cut_at_once(stream: bytes, *, has_key: bool) -> tuple[list[tuple[bool, bytes]], bool]:
    """The packets of a whole stream (is it sealed, its bytes), and whether it breaks the rules."""
    packets: list[tuple[bool, bytes]] = []
    position = 0
    while position < len(stream):
        words, start = stream[position], position + 1
        if words == 0x7F:
            if len(stream) < start + 3:
                break
            words, start = int.from_bytes(stream[start : start + 3], "little"), start + 3
        is_sealed = words * 4 > worker.PIECE_BYTES
        if is_sealed and len(stream) < start + 24:
            break
        if is_sealed and (
            not has_key or words * 4 > worker.PACKET_MAX_BYTES or (words * 4 - 24) % 16
        ):
            return packets, True
        if len(stream) < start + words * 4:
            break
        packets.append((is_sealed, stream[start : start + words * 4]))
        position = start + words * 4
    return packets, False


def opened(packet: bytes) -> bytes:
    """The plain text of a sealed packet, all in one."""
    key, vector = MTProtoState._calc_key(SECRET, packet[8:24], False)
    return bytes(cryptg.decrypt_ige(packet[24:], key, vector))


def sealed(body: bytes, number: int, session: int = SESSION) -> bytes:
    """A framed packet of the server, the same for the same arguments: random padding would make a
    failure that comes of bytes misread come only once."""
    head = worker.MESSAGE_HEADER.pack(0, session, (NOW << 32) + 4 * number + 1, 1, len(body))
    plain = head + body + bytes(12)
    plain += bytes(-len(plain) % 16)
    msg_key = hashlib.sha256(SECRET[96:128] + plain).digest()[8:24]
    encrypted = cryptg.encrypt_ige(plain, *MTProtoState._calc_key(SECRET, msg_key, False))
    return Abridged().wrap((bytes(8), msg_key, encrypted))


def _file_answer(source: Source) -> bytes:
    """An answer with a file in it, whose length may be a lie."""
    size = source.pick(_SIZES) + source.number(0, 16)
    answer = bytes(types.upload.File(types.storage.FileMp4(), 0, FILLER[:size]))
    head = bytearray(struct.pack("<Iq", RpcResult.CONSTRUCTOR_ID, 77) + answer)
    if source.pick((False, False, False, True)):
        place = source.number(0, worker.FILE_HEADER.size - 1)
        head[place] = source.number(0, 255)
    return bytes(head)


def _stretch(source: Source, number: int) -> bytes:
    """A part of the stream: a packet, the beginning of one, or noise."""
    kind = source.pick(("noise", "short", "answer", "answer", "odd", "cut"))
    if kind == "noise":
        return source.piece()
    if kind == "short":
        body = source.piece()
        return Abridged().wrap((body, bytes(-len(body) % 4)))
    if kind == "answer":
        session = source.pick((SESSION, SESSION, SESSION, 7))
        return sealed(_file_answer(source), number, session)
    size = source.pick(_SIZES) + source.pick((0, 0, 4, 8, 12))
    packet = b"\x7f" + (size // 4).to_bytes(3, "little") + FILLER[: size // 4 * 4]
    return packet[: source.number(0, len(packet))] if kind == "cut" else packet


def check_worker_wire(source: Source) -> None:
    """No stream makes the wire raise, hold more than its limits, or find other packets than there
    are, in whatever pieces it comes."""
    has_key = source.pick((True, True, True, False))
    stream = b"".join(_stretch(source, number) for number in range(source.number(1, 5)))
    stream = stream[:STREAM_MAX_BYTES]
    line = Line(has_key=has_key)
    line.feed(stream, source)
    expected, is_broken = cut_at_once(stream, has_key=has_key)
    assert line.plug.is_pulled is is_broken
    received = line.received()
    assert len(received) == len(expected)
    for packet, (is_sealed, whole) in zip(received, expected, strict=True):
        if not is_sealed:
            assert packet == whole
            continue
        assert b"".join(packet.pieces) == opened(whole)
        _check_message(line, packet)


def _check_message(line: Line, packet: Any) -> None:
    """A packet is refused as Telethon refuses, or what it holds is all there."""
    try:
        message = line.state.decrypt_message_data(packet)
    except (errors.SecurityError, errors.TypeNotFoundError):
        return
    except (BufferError, RuntimeError, struct.error, ValueError):
        # Signed by Telegram and yet no message: Telethon's receiving loop ends the connection.
        assert packet.is_genuine()
        return
    if message is None or not isinstance(message.obj, RpcResult):
        return
    body = message.obj.body
    if isinstance(body, worker.ChunkBody):
        position = 0
        while position < len(body):
            view = body.view(position, len(body))
            assert 0 < len(view) <= worker.PIECE_BYTES + worker.PIECE_REST_BYTES
            position += len(view)


TARGETS = (
    Target.of(check_worker_wire, words=(b"\x7f", b"\x7f\xff\xff\xff", b"\x7e", b"\x80"), runs=500),
)
