"""The pocket Telegram: how it reads what clients send, before anything is believed of it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import random
import struct
from collections.abc import Coroutine
from typing import Any, TypeVar
from zlib import crc32

from telethon.crypto import AES
from telethon.tl import TLObject, functions, types
from telethon.tl.core import GzipPacked, MessageContainer

from telegram_simulator import session, transport

from .source import Source, Target

Answer = TypeVar("Answer")

SECRET = random.Random(6).randbytes(256)
KEY = session.AuthKey(SECRET, 0)
LOOP = asyncio.new_event_loop()  # streams want one; nothing ever waits on it


def at_once(reading: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of a coroutine that has all it needs and so never waits."""
    try:
        reading.send(None)
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer
    finally:
        reading.close()
    raise AssertionError("it waits, though its stream has ended")


def stream_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20, loop=LOOP)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


# -- framings ------------------------------------------------------------------------------------

_TAGS = (b"\xef", b"\xee" * 4, b"\xdd" * 4, b"")


def check_simulator_framing(source: Source) -> None:
    """A stream is cut into packets of legal length, ends, or is refused; good packets come back."""
    tag = source.pick(_TAGS)
    reader = stream_of(tag + b"".join(_stretch(source, n) for n in range(source.number(0, 3))))
    try:
        framing = at_once(transport.detect_framing(reader))
        while True:
            packet = at_once(framing.read(reader))
            assert len(packet) <= transport.MAX_PACKET_BYTES
    except (asyncio.IncompleteReadError, transport.TransportViolation):
        pass
    whole = source.piece()[: source.number(0, 63) * 4]
    packets = [whole[: len(whole) // 4 * 4] or bytes(4)] * source.number(1, 3)
    _check_round_trip(tag, packets)


def _stretch(source: Source, number: int) -> bytes:
    """Noise, or a packet of one of the framings whose length is right or not."""
    body, kind = source.piece(), source.pick(("noise", "byte", "three", "four", "full"))
    length = source.pick((len(body), source.number(0, 16), source.number(0, 2**32 - 1)))
    if kind == "full":
        head = struct.pack("<II", len(body) + 12, number)
        return head + body + struct.pack("<I", crc32(head + body))
    heads = {
        "byte": (length & 0xFF, 1),
        "three": (0x7F | length % 2**24 << 8, 4),
        "four": (length, 4),
    }
    value, size = heads.get(kind, (0, 0))
    return value.to_bytes(size, "little") + body


def _check_round_trip(tag: bytes, packets: list[bytes]) -> None:
    """What one end wraps the other end reads."""
    writers = {1: transport.Abridged, 0: transport.Full}
    writer: transport.Framing = writers.get(len(tag), transport.Intermediate)()
    # Of a padded packet the reader knows the end by AES's blocks, so it gets whole ones.
    padded = tag[:1] == b"\xdd"
    packets = (
        [packet + bytes(-(len(packet) - 24) % 16) for packet in packets] if padded else packets
    )
    reader = stream_of(tag + b"".join(writer.wrap([packet]) for packet in packets))
    framing = at_once(transport.detect_framing(reader))
    assert [at_once(framing.read(reader)) for _ in packets] == packets


# -- envelopes -----------------------------------------------------------------------------------


def client_packet(plain: bytes) -> bytes:
    """A packet that a client with our key has sealed around any plain text of whole AES blocks."""
    msg_key = hashlib.sha256(SECRET[88:120] + plain).digest()[8:24]
    encrypted = AES.encrypt_ige(plain, *session._aes(SECRET, msg_key, 0))
    return session.ENVELOPE_HEADER.pack(KEY.id, msg_key) + bytes(encrypted)


def check_simulator_envelope(source: Source) -> None:
    """Noise and damage are refused; what a client with the key has sealed is opened, or refused
    for the lengths it names."""
    noise = source.piece()
    try:
        session.open_envelope(KEY, noise)
    except session.BadEnvelope:
        pass
    else:
        raise AssertionError("noise was taken for a message")
    body = source.piece()
    length = source.pick((len(body), source.number(-(2**31), 2**31 - 1), source.number(0, 300)))
    salt, session_id = source.number(-(2**63), 2**63 - 1), source.number(-(2**63), 2**63 - 1)
    head = session.MESSAGE_HEADER.pack(salt, session_id, source.number(0, 2**63 - 1), 1, length)
    plain = head + body + bytes(source.pick((12, 16, 1024, 0)))
    plain += bytes(-len(plain) % 16)
    packet = client_packet(plain)
    try:
        envelope = session.open_envelope(KEY, packet)
    except session.BadEnvelope:
        padding = len(plain) - len(head) - length
        assert length % 4 or not 12 <= padding <= 1024 or len(packet) < 24 + 44
        return
    assert (envelope.salt, envelope.session_id) == (salt, session_id)
    assert envelope.message.body == plain[len(head) : len(head) + length]
    place = source.number(8, len(packet) - 1)
    spoilt = packet[:place] + bytes((packet[place] ^ 1,)) + packet[place + 1 :]
    try:
        session.open_envelope(KEY, spoilt)
    except session.BadEnvelope:
        return
    raise AssertionError("a damaged packet was taken for a message")


# -- messages ------------------------------------------------------------------------------------


def check_simulator_messages(source: Source) -> None:
    """Whatever a message holds, it is read or refused in the words that sessions know."""
    container_id = source.pick((1 << 40, source.number(-(2**63), 2**63 - 1)))
    message = session.Message(container_id, 1, _body(source, 3))
    try:
        message = session.unzipped(message)
    except session.UnreadableMessage:
        return
    assert len(message.body) <= session.UNPACKED_MAX_BYTES
    messages = [message]
    if message.constructor == MessageContainer.CONSTRUCTOR_ID:
        try:
            messages = session.inner_messages(message)
        except session.BadContainer:
            return
        assert len(messages) <= session.CONTAINER_MESSAGES_MAX
        assert sum(len(each.body) + 16 for each in messages) <= len(message.body) - 8
        assert all(each.id < message.id for each in messages)
    for each in messages:
        try:
            read = session.read_object(session.unzipped(each).body)
        except session.UnreadableMessage:
            continue
        assert not isinstance(read, GzipPacked)  # which unpacks to anything


_REQUESTS = tuple(
    bytes(each)
    for each in (
        types.MsgsAck([1, 2]),
        types.MsgResendReq([1]),
        functions.PingRequest(7),
        functions.InvokeWithLayerRequest(200, functions.help.GetConfigRequest()),
        functions.upload.GetFileRequest(
            types.InputDocumentFileLocation(1, 2, b"reference", "m"), 0, 4096
        ),
        functions.channels.GetMessagesRequest(types.InputChannel(1, 2), [types.InputMessageID(3)]),
    )
)


def _body(source: Source, depth: int) -> bytes:
    """The body of a message: noise, a damaged request, a container, gzip of another body."""
    kinds = ("noise", "request", "vector", "container", "gzip", "bomb")
    kind = source.pick(kinds if depth else kinds[:3])
    if kind == "request":
        request = bytearray(source.pick(_REQUESTS))
        for _ in range(source.number(0, 2)):
            request[source.number(0, len(request) - 1)] = source.number(0, 255)
        return bytes(request) + source.piece()
    if kind == "vector":
        return struct.pack("<Ii", session.VECTOR, source.number(-1, 2**31 - 1)) + source.piece()
    if kind == "container":
        count = source.pick((source.number(0, 4), source.number(-(2**31), 2**31 - 1)))
        return struct.pack("<Ii", MessageContainer.CONSTRUCTOR_ID, count) + b"".join(
            _inner(source, depth) for _ in range(source.number(0, 4))
        )
    if kind in ("gzip", "bomb"):
        packed = source.pick(_BOMBS) if kind == "bomb" else gzip.compress(_body(source, depth - 1))
        spoilt = bytearray(packed)
        for _ in range(source.pick((0, 0, 1))):
            spoilt[source.number(0, len(spoilt) - 1)] ^= source.number(0, 255)
        cut = TLObject.serialize_bytes(bytes(spoilt))[: source.pick((None, None, -4, 9))]
        return struct.pack("<I", GzipPacked.CONSTRUCTOR_ID) + bytes(cut)
    return source.piece()


_BOMBS = tuple(
    gzip.compress(bytes(size), 1) for size in (64, session.UNPACKED_MAX_BYTES + 1, 64 << 20)
)


def _inner(source: Source, depth: int) -> bytes:
    body = _body(source, depth - 1)
    body += bytes(-len(body) % 4)
    length = source.pick((len(body), len(body), source.number(-(2**31), 2**31 - 1)))
    head = session.INNER_HEADER.pack(source.number(0, 1 << 41), source.number(0, 9), length)
    return head + body


TARGETS = (
    Target.of(check_simulator_framing, words=(b"\xef", b"\xee\xee\xee\xee", b"\x7f")),
    Target.of(check_simulator_envelope),
    Target.of(
        check_simulator_messages,
        words=(
            struct.pack("<I", GzipPacked.CONSTRUCTOR_ID),
            struct.pack("<I", MessageContainer.CONSTRUCTOR_ID),
            struct.pack("<I", session.VECTOR),
        ),
        runs=8000,
    ),
)
