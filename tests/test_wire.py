"""The worker's own end of an MTProto connection: whatever is forged, damaged or cut is refused.

Packets are sealed with the simulator's cipher, which is written for itself, and fed to the worker
as the event loop feeds it: in pieces of any size.
"""

from __future__ import annotations

import os
import random
import struct
import time
from typing import Any

import pytest
import worker
from hypothesis import given
from hypothesis import strategies as st
from telethon import errors
from telethon.crypto import AuthKey
from telethon.tl import types

from telegram_simulator.session import AuthKey as ServerKey
from telegram_simulator.session import Plain, seal_envelope
from telegram_simulator.transport import Abridged

KIB = 1024
SECRET = random.Random(5).randbytes(256)
HERE = worker.DataCentre(2, "127.0.0.1", 1)


def film(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Line:
    """A wire with a key, the state behind it, and a server that seals packets for them."""

    def __init__(self) -> None:
        key = AuthKey(SECRET)
        self.wire = worker._Wire(HERE, key)
        self.state = worker._State(key, worker._TelethonLoggers(), worker._Clock())
        self.server = ServerKey(SECRET, 0)

    def packet(self, body: bytes, message_id: int | None = None, session: int = 0) -> bytes:
        """One framed packet of the server."""
        message_id = message_id or (int(time.time()) << 32) | 1
        parts = seal_envelope(self.server, session or self.state.id, message_id, 1, [body])
        return Abridged().wrap(parts)

    def feed(self, stream: bytes, sizes: Any) -> None:
        """As a socket does: so many bytes at a time, never more than there is room for."""
        position = 0
        while position < len(stream):
            room = self.wire.get_buffer(-1)
            taken = stream[position : position + max(1, min(next(sizes), len(room)))]
            room[: len(taken)] = taken
            self.wire.buffer_updated(len(taken))
            position += len(taken)

    def received(self) -> list[Any]:
        packets = []
        while not self.wire._packets.empty():
            packets.append(self.wire._packets.get_nowait())
        return packets


def file_result(body: bytes, request_id: int = 77) -> bytes:
    answer = types.upload.File(types.storage.FileMp4(), 0, body)
    return struct.pack("<Iq", 0xF35C6D01, request_id) + bytes(answer)


def forever(size: int) -> Any:
    while True:
        yield size


def content(body: worker.ChunkBody) -> bytes:
    taken = bytearray()
    while len(taken) < len(body):
        taken += body.view(len(taken), len(body))
    return bytes(taken)


@given(st.lists(st.integers(0, 300 * KIB), min_size=1, max_size=4), st.randoms())
def test_packets_come_through_whatever_pieces_they_come_in(
    sizes: list[int], dice: random.Random
) -> None:
    line = Line()
    first_id = int(time.time()) << 32
    stream = b"".join(
        line.packet(file_result(film(size), number), first_id + 4 * number + 1)
        for number, size in enumerate(sizes)
    )
    line.feed(stream, iter(lambda: dice.choice((1, 3, 700, 9000, 70_000, 300_000)), None))
    for number, (size, packet) in enumerate(zip(sizes, line.received(), strict=True)):
        message = line.state.decrypt_message_data(packet)
        assert message.obj.req_msg_id == number
        result = message.obj.body
        if isinstance(result, worker.ChunkBody):
            assert content(result) == film(size)
        else:
            assert film(size) in result


@given(st.integers(1, 400 * KIB), st.data())
def test_a_chunks_body_is_seen_through_views(size: int, data: st.DataObject) -> None:
    whole, body = film(size), worker.ChunkBody.of(film(size))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size + 5))
    view = body.view(start, stop)
    assert 0 < len(view) <= worker.PIECE_BYTES
    assert view == whole[start : min(stop, start + len(view))]


def accept(line: Line, framed: bytes) -> Any:
    line.feed(framed, forever(50_000))
    (packet,) = line.received()
    return line.state.decrypt_message_data(packet)


@pytest.mark.parametrize("place", [4 + 9, 4 + 24, 4 + 200_000, -1])
def test_a_bit_that_flipped_anywhere_spoils_the_packet(place: int) -> None:
    line = Line()
    framed = bytearray(line.packet(file_result(film(256 * KIB))))
    framed[place] ^= 1
    with pytest.raises(errors.SecurityError):
        accept(line, bytes(framed))


@pytest.mark.parametrize(
    "changes",
    [{"session": 12345}, {"message_id": (int(time.time()) << 32) | 2}],
    ids=["another session", "the id of a client's message"],
)
def test_a_genuine_packet_for_somebody_else_is_refused(changes: dict[str, int]) -> None:
    line = Line()
    with pytest.raises(errors.SecurityError):
        accept(line, line.packet(file_result(film(256 * KIB)), **changes))


@pytest.mark.parametrize("seconds", [-400, 100])
def test_a_packet_of_another_time_is_ignored(seconds: int) -> None:
    line = Line()
    message_id = (int(time.time()) + seconds << 32) | 1
    assert accept(line, line.packet(file_result(film(256 * KIB)), message_id)) is None


def test_a_packet_that_is_played_again_is_ignored() -> None:
    line = Line()
    framed = line.packet(file_result(film(256 * KIB)))
    assert accept(line, framed) is not None
    assert accept(line, framed) is None


def test_a_long_message_that_is_no_file_is_read_as_any_other() -> None:
    line = Line()
    nothing = [types.MessageEmpty(number, None) for number in range(20_000)]
    answer = types.messages.Messages(nothing, [], [], [])
    body = struct.pack("<Iq", 0xF35C6D01, 9) + bytes(answer)
    assert len(body) > worker.PIECE_BYTES
    message = accept(line, line.packet(body))
    assert message.obj.req_msg_id == 9
    assert message.obj.body.startswith(bytes(answer)[:100])
    assert Plain(body).parts() == (body,)


def test_a_long_packet_before_there_is_a_key_ends_the_connection() -> None:
    line = Line()
    line.wire = worker._Wire(HERE, AuthKey(None))
    line.feed(line.packet(file_result(film(256 * KIB)))[:1000], forever(1000))
    assert line.received() == []
    assert line.wire._sealed is None


@pytest.mark.parametrize("words", [0xFFFFFE, (2 << 20) // 4 + 2, 50_001])
def test_a_packet_of_an_impossible_length_is_not_begun(words: int) -> None:
    line = Line()
    line.feed(b"\x7f" + words.to_bytes(3, "little") + os.urandom(24), forever(1000))
    assert line.wire._sealed is None
    assert line.received() == []
