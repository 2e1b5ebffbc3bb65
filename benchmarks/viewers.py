"""Viewers by hand: HTTP/1.1 over bare sockets.

The clock stops at the first byte of a body and not when a library has looked at it, and the driver
costs next to nothing beside the worker: pieces land in one buffer and are counted, not kept. Of
each answer the first and the last bytes are compared with what the film has there.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import struct
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from .stage import WORD_BYTES, Film, Worker

BUFFER_BYTES = 256 << 10
PATIENCE_S = 30.0
HEAD_END = b"\r\n\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no time: what a closed tab looks like


class Refused(Exception):
    """The worker answered something else than the bytes."""


def request_for(worker: Worker, film: Film, start: int, stop: int | None) -> bytes:
    """A GET of the bytes from `start` up to `stop`, None for the end of the film."""
    last = "" if stop is None else stop - 1
    return (
        f"GET {worker.path(film)} HTTP/1.1\r\nHost: worker\r\nRange: bytes={start}-{last}\r\n\r\n"
    ).encode()


class Answer:
    """What arrived of one answer: how much, and the pieces at both ends of it."""

    def __init__(self, film: Film, start: int) -> None:
        self.received_bytes = 0
        self._film = film
        self._start = start
        self._head = b""
        self._length = -1
        self._first = b""
        self._last = b""

    @property
    def left_bytes(self) -> int:
        """What the body still lacks; nothing is known, hence -1, before it begins."""
        return self._length if self._length < 0 else self._length - self.received_bytes

    def take(self, piece: memoryview) -> bool:
        """Note what arrived; whether there are bytes of the body in it. Raises Refused."""
        if self._length < 0:
            self._head += piece
            head, end, body = self._head.partition(HEAD_END)
            if not (end and body):
                return False
            self._length = body_length(head)
            piece = memoryview(body)
            self._first = bytes(piece[:WORD_BYTES])
        self.received_bytes += len(piece)
        self._last = bytes(piece[-WORD_BYTES:])
        return True

    def check(self) -> None:
        """Fail unless both ends of what arrived are the bytes of a synthetic film there."""
        if self._film.seed is None:
            return
        stop = self._start + self.received_bytes
        assert self._first == self._film.excerpt(self._start, len(self._first)), "wrong bytes"
        last = self._film.excerpt(stop - len(self._last), len(self._last))
        assert self._last == last, "wrong bytes"


def body_length(head: bytes) -> int:
    """Raises Refused for any status but 200 and 206."""
    status, _line_end, fields = head.partition(b"\r\n")
    if b" 200 " not in status and b" 206 " not in status:
        raise Refused(status.decode())
    length = re.search(rb"(?im)^content-length: *([0-9]+)", fields)
    assert length, "a film's answer says how long it is"
    return int(length[1])


# -- one viewer ----------------------------------------------------------------------------------


class Viewer:
    """One viewer of one film: asks, reads, seeks, goes away. Hangs up when its block is left."""

    def __init__(
        self, worker: Worker, film: Film, *, receive_buffer_bytes: int | None = None
    ) -> None:
        self.delivered_bytes = 0
        self._worker = worker
        self._film = film
        self._receive_buffer_bytes = receive_buffer_bytes
        self._socket: socket.socket | None = None
        self._answer = Answer(film, 0)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.hang_up()

    def ask(self, start: int = 0, stop: int | None = None) -> float:
        """Ask for a range; the seconds until the first byte of its body. Raises Refused.

        A connection whose last answer was read to its end is used again, a cut one is opened anew.
        """
        request = request_for(self._worker, self._film, start, stop)
        asked_at = time.perf_counter()
        if self._socket is None:
            self._socket = self._connect()
        else:
            assert not self._answer.left_bytes, "one answer at a time on a connection"
        self._answer = Answer(self._film, start)
        self._socket.sendall(request)
        while not self._answer.received_bytes:
            self._take()
        return time.perf_counter() - asked_at

    def seek(self, start: int) -> float:
        """Hang up and ask for another place at once; the seconds until its first byte."""
        self.hang_up()
        return self.ask(start)

    def read(self, size: int, within_s: float = math.inf) -> None:
        """Read at least so many bytes more, or to the end of the body or of the time."""
        goal = self._answer.received_bytes + min(size, self._answer.left_bytes)
        until = time.perf_counter() + within_s
        while self._answer.received_bytes < goal and time.perf_counter() < until:
            self._take()

    def read_to_end(self) -> None:
        self.read(self._answer.left_bytes)

    def rate(self, after_s: float, for_s: float) -> float:
        """Bytes per second, measured for a while that begins after a while.

        From the arrival of one piece to that of another, so that a gap is in it or is not.
        """
        began_at = self._read_until(time.perf_counter() + after_s)
        began_with = self._answer.received_bytes
        ended_at = self._read_until(began_at + for_s)
        return (self._answer.received_bytes - began_with) / (ended_at - began_at)

    def read_slowly(self, bytes_per_second: float, seconds: float) -> None:
        """Read no faster than that, a little every hundredth of a second."""
        began_at = time.perf_counter()
        while (elapsed_s := time.perf_counter() - began_at) < seconds:
            due = int(elapsed_s * bytes_per_second) - self._answer.received_bytes
            if due > 0:
                self._take(due)
            else:
                time.sleep(0.01)

    def hang_up(self) -> None:
        """Go away, with a reset if there is more to come."""
        if self._socket is not None:
            reset(self._socket)
            self._socket.close()
            self._socket = None
            self._answer.check()

    def _connect(self) -> socket.socket:
        connection = socket.socket()
        if self._receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        connection.settimeout(PATIENCE_S)
        connection.connect(self._worker.address)
        return connection

    def _read_until(self, moment: float) -> float:
        """Read until the first piece after that moment; when it came."""
        while (now := time.perf_counter()) < moment:
            self._take()
        return now

    def _take(self, most: int = BUFFER_BYTES) -> None:
        assert self._socket is not None
        count = self._socket.recv_into(self._buffer[:most])
        if not count:
            raise ConnectionError("an answer broke off")
        before = self._answer.received_bytes
        self._answer.take(self._buffer[:count])
        self.delivered_bytes += self._answer.received_bytes - before


def reset(connection: socket.socket) -> None:
    """Make the next close a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


# -- many viewers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Audience:
    """Who watches what: a film for each viewer, where they stop, and which of them stall.

    One that stalls stops reading after `stall_after_bytes` and keeps its connection.
    """

    films: Sequence[Film]
    stop: int | None = None
    stalled: Collection[int] = ()
    stall_after_bytes: int = 256 << 10


@dataclass
class Experience:
    """What the viewers of a crowd saw together."""

    seconds: float = 0.0
    delivered_bytes: int = 0
    furthest_bytes: int = 0
    failed: int = 0
    """Viewers who got no byte, or whose body broke off."""
    first_byte_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    """Between one piece of a body and the next, of viewers that read."""


async def watch_together(worker: Worker, audience: Audience, seconds: float) -> Experience:
    """All come at once, and leave when they have their bytes or the time is over."""
    experience = Experience()
    buffer = bytearray(BUFFER_BYTES)
    viewers = [
        _CrowdViewer(
            request=request_for(worker, film, 0, audience.stop),
            answer=Answer(film, 0),
            stall_after_bytes=audience.stall_after_bytes if number in audience.stalled else None,
            buffer=buffer,
            experience=experience,
        )
        for number, film in enumerate(audience.films)
    ]
    began_at = time.perf_counter()
    connecting = [asyncio.create_task(viewer.connect(worker)) for viewer in viewers]
    watching = [asyncio.create_task(viewer.over.wait()) for viewer in viewers]
    await asyncio.wait([*connecting, *watching], timeout=seconds)
    experience.seconds = time.perf_counter() - began_at
    for task in (*connecting, *watching):
        task.cancel()
    for viewer in viewers:
        viewer.leave()
    return experience


class _CrowdViewer(asyncio.BufferedProtocol):
    """One of many; all share one buffer, since a piece is done with when it was counted."""

    def __init__(
        self,
        *,
        request: bytes,
        answer: Answer,
        stall_after_bytes: int | None,
        buffer: bytearray,
        experience: Experience,
    ) -> None:
        self.over = asyncio.Event()
        self._request = request
        self._answer = answer
        self._stall_after_bytes = stall_after_bytes
        self._buffer = buffer
        self._experience = experience
        self._transport: asyncio.Transport | None = None
        self._broke_off = False
        self._asked_at = 0.0
        self._last_at = 0.0

    async def connect(self, worker: Worker) -> None:
        self._asked_at = time.perf_counter()
        await asyncio.get_running_loop().create_connection(lambda: self, *worker.address)

    def leave(self) -> None:
        """Hang up with a reset, and add what was seen to the experience of all."""
        if self._transport is not None and not self._transport.is_closing():
            reset(self._transport.get_extra_info("socket"))
            self._transport.abort()
        self._answer.check()
        received = self._answer.received_bytes
        self._experience.failed += self._broke_off or not received
        self._experience.delivered_bytes += received
        self._experience.furthest_bytes = max(self._experience.furthest_bytes, received)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def get_buffer(self, _size_hint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        now = time.perf_counter()
        is_first = not self._answer.received_bytes
        try:
            if not self._answer.take(memoryview(self._buffer)[:count]):
                return
        except Refused:
            self.over.set()
            return
        if is_first:
            self._experience.first_byte_s.append(now - self._asked_at)
        elif self._stall_after_bytes is None:
            self._experience.gaps_s.append(now - self._last_at)
        self._last_at = now
        self._stop_if_done()

    def connection_lost(self, _error: Exception | None) -> None:
        self._broke_off = self._answer.left_bytes != 0
        self.over.set()

    def _stop_if_done(self) -> None:
        stall_after = self._stall_after_bytes
        if stall_after is not None and self._answer.received_bytes >= stall_after:
            assert self._transport is not None
            self._transport.pause_reading()
        if not self._answer.left_bytes:
            self.over.set()
