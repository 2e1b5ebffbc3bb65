"""One data centre: a TCP server, the keys it knows, and the connections it holds.

A `Connection` moves packets and suffers the trouble of the network; what the packets mean is
decided in `session.py` and `methods.py`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import methods
from .faults import Counters, Trouble
from .handshake import Handshake, HandshakeRefused, ServerKey
from .session import (
    KEY_DUPLICATED,
    AuthKey,
    BadEnvelope,
    Body,
    Envelope,
    Link,
    Outcome,
    RpcFailure,
    Sent,
    Session,
    open_envelope,
    seal_envelope,
)
from .transport import (
    KEY_NOT_FOUND,
    Framing,
    Intermediate,
    TransportViolation,
    detect_framing,
    error_packet,
)
from .world import Bot, Channel, ChannelEvent, World

log = logging.getLogger(__name__)

SESSIONS_PER_KEY_MAX = 64
TASKS_PER_CONNECTION_MAX = 2000
PIECE_BYTES = 32 << 10
"""On a line with a limit a packet travels in pieces of this size, so that it can be cut."""
LINE_SLACK_S = 0.02
"""A timer that fires late by less than this does not slow the line down."""
SEND_BUFFER_BYTES = 4 << 20
DOWN_CHECK_S = 0.02
LINGER_S = 1.0
ORDER_S = 1e-6


@dataclass(slots=True)
class Shared:
    """What all data centres of one Telegram have in common."""

    world: World
    trouble: Trouble
    counters: Counters
    server_key: ServerKey
    data_centres: dict[int, DataCentre] = field(default_factory=dict)
    exported: dict[tuple[int, bytes], tuple[Bot, int]] = field(default_factory=dict)
    """Exported authorisations that nobody imported yet: who, and for which data centre."""


class DataCentre:
    """One of Telegram's data centres, by its number."""

    def __init__(self, dc_id: int, host: str, port: int, shared: Shared) -> None:
        self.id = dc_id
        self.host = host
        self.port = port
        self.media_port = 0
        self.shared = shared
        self.keys: dict[int, AuthKey] = {}
        self.connections: dict[Connection, asyncio.Task[None]] = {}
        self._pushes: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._watch: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        self.port = await self._listen(self.port, is_media=False)
        self.media_port = await self._listen(self.media_port, is_media=True)
        self._watch = asyncio.create_task(self._obey_trouble())
        self._unsubscribe = self.shared.world.subscribe(self._announce)

    async def stop(self) -> None:
        """Close every socket and end every task."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        for server in self._servers:
            server.close()
        tasks = [*self._pushes, *self.connections.values()]
        if self._watch is not None:
            tasks.append(self._watch)
        self.drop_connections()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    async def _listen(self, port: int, *, is_media: bool) -> int:
        accept = partial(self._accept, is_media)
        server = await asyncio.start_server(accept, self.host, port)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def _accept(
        self, is_media: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.is_down:
            writer.transport.abort()
            return
        self.shared.counters.connections[self.id] += 1
        connection = Connection(self, reader, writer, is_media)
        task = asyncio.create_task(connection.serve())
        self.connections[connection] = task
        task.add_done_callback(lambda _: self.connections.pop(connection, None))

    @property
    def is_down(self) -> bool:
        return self.id in self.shared.trouble.down

    async def _obey_trouble(self) -> None:
        """Drop what is connected when the data centre goes down: `down` is a plain set."""
        while True:
            if self.is_down:
                self.drop_connections()
            await asyncio.sleep(DOWN_CHECK_S)

    # -- what a test may do to it --------------------------------------------------------------

    def drop_connections(self) -> None:
        for connection in tuple(self.connections):
            connection.drop()

    def forget_keys(self) -> None:
        self.keys.clear()

    def expire_authorisations(self) -> None:
        for key in self.keys.values():
            key.account = None

    def change_salts(self) -> None:
        for key in self.keys.values():
            key.salt = int.from_bytes(secrets.token_bytes(8), "little", signed=True)
            key.later_salts.clear()

    # -- keys and sessions ---------------------------------------------------------------------

    def add_key(self, key: AuthKey) -> None:
        self.keys[key.id] = key

    def forget_key(self, key: AuthKey) -> bool:
        return self.keys.pop(key.id, None) is not None

    def session(self, key: AuthKey, session_id: int) -> Session:
        session = key.sessions.get(session_id)
        if session is None:
            session = key.sessions[session_id] = Session(key, session_id, self)
            if len(key.sessions) > SESSIONS_PER_KEY_MAX:
                del key.sessions[next(iter(key.sessions))]
        return session

    # -- requests ------------------------------------------------------------------------------

    def begin_request(self, key: AuthKey, link: Link) -> RpcFailure | None:
        """Note a request; refuse it, and kill the key, when two connections use one key at once.

        At once means: a request is under way on another live connection, or an older connection
        speaks again after a younger one spoke. A client that reconnects does neither, even when
        its old socket has not been noticed to be gone. Only the account's home data centre
        minds (core.telegram.org/api/errors#406-not-acceptable); parallel connections to the
        others, and to the media address of any, are for files and allowed.
        """
        if link.is_media:
            return None
        for gone in [user for user in key.users if not user.is_open]:
            del key.users[gone]
        is_home = key.account is not None and key.account.home_dc == self.id
        others = [user for user in key.users if user is not link]
        is_younger_around = link in key.users and next(reversed(key.users)) is not link
        if is_home and (is_younger_around or any(key.users[other] for other in others)):
            log.error("an authorisation key was used on two connections at once: it is dead now")
            self.shared.counters.errors[KEY_DUPLICATED.message] += 1
            key.dead = True
            self.forget_key(key)
            return KEY_DUPLICATED
        key.users[link] = key.users.get(link, 0) + 1
        return None

    def end_request(self, key: AuthKey, link: Link) -> None:
        if key.users.get(link):
            key.users[link] -= 1

    def now(self) -> float:
        return self.shared.trouble.now()

    async def invoke(self, session: Session, request: Any) -> Outcome:
        return await methods.invoke(methods.Call(self, session), request)

    # -- live updates --------------------------------------------------------------------------

    def _announce(self, channel: Channel, event: ChannelEvent) -> None:
        """Tell the logged-in sessions of this home data centre about a change in a channel."""
        for key in self.keys.values():
            bot = key.account
            if bot is None or bot.home_dc != self.id or bot.id not in channel.members:
                continue
            for session in key.sessions.values():
                if session.wants_updates and session.is_connected:
                    updates = methods.updates_of(self.shared.world, bot, channel, event)
                    task = asyncio.create_task(session.push(updates))
                    self._pushes.add(task)
                    task.add_done_callback(self._pushes.discard)


def _leave(leaving: asyncio.Future[None]) -> None:
    if not leaving.done():
        leaving.set_result(None)


class Line:
    """The capacity of one connection, shared by all that travels on it."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def carry(self, size: int, bytes_per_second: float) -> None:
        """Return when `size` bytes more have passed."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - LINE_SLACK_S) + size / bytes_per_second
        await asyncio.sleep(self._free_at - now)


class Connection:
    """One TCP connection of a client."""

    def __init__(
        self,
        dc: DataCentre,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_media: bool,
    ) -> None:
        self.is_media = is_media
        self._dc = dc
        self._shared = dc.shared
        self._reader = reader
        self._writer = writer
        self._framing: Framing = Intermediate()
        self._handshake = Handshake(dc.id, self._shared.server_key, dc.keys.__contains__, dc.now)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._line = Line()
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        return not (self._closed or self._reader.at_eof())

    # -- what comes in -------------------------------------------------------------------------

    async def serve(self) -> None:
        """Read packets until the client leaves or must leave."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            self._framing = await detect_framing(self._reader)
            while not self._closed:
                packet = await self._framing.read(self._reader)
                await self._receive(packet)
                while len(self._tasks) > TASKS_PER_CONNECTION_MAX:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        except (asyncio.IncompleteReadError, ConnectionError):
            log.debug("a client left data centre %d", self._dc.id)
        except TransportViolation as error:
            log.warning("a client of data centre %d broke the framing: %s", self._dc.id, error)
        finally:
            self.close()
            await self._wind_up()

    async def _receive(self, packet: bytes) -> None:
        if self._dc.id in self._shared.trouble.silent:
            return
        arrived = asyncio.get_running_loop().time()
        if (rate := self._shared.trouble.bytes_per_second) is not None:
            await self._line.carry(len(packet), rate)
        if len(packet) < 24:
            raise TransportViolation("a packet too short for any message")
        key_id = int.from_bytes(packet[:8], "little", signed=True)
        if key_id == 0:
            await self._shake_hands(packet, arrived)
            return
        key = self._dc.keys.get(key_id)
        if key is None:
            log.warning("data centre %d does not know the key of a client", self._dc.id)
            await self.refuse(KEY_NOT_FOUND)
            return
        try:
            envelope: Envelope = open_envelope(key, packet)
        except BadEnvelope as error:
            # Answering a forgery would tell the forger something, so it is left unanswered.
            log.warning("dropped a packet: %s", error)
            return
        self._dc.session(key, envelope.session_id).receive(self, envelope, arrived)

    async def _shake_hands(self, packet: bytes, arrived: float) -> None:
        msg_id = int.from_bytes(packet[8:16], "little", signed=True)
        length = int.from_bytes(packet[16:20], "little", signed=True)
        if not 0 < length <= len(packet) - 20:
            raise TransportViolation("an unencrypted message longer than its packet")
        try:
            body = self._handshake.answer(packet[20 : 20 + length])
        except HandshakeRefused as error:
            log.warning("handshake refused: %s", error)
            await self.refuse(error.code)
            return
        if (new_key := self._handshake.new_key) is not None:
            self._dc.add_key(AuthKey.from_handshake(new_key))
            self._handshake.new_key = None
        await self.wait_round_trip(arrived)
        head = bytes(8) + (msg_id | 1).to_bytes(8, "little", signed=True)
        async with self._sending:
            await self._write((head, len(body).to_bytes(4, "little"), body))

    async def refuse(self, code: int) -> None:
        """Say an error by the transport, and hang up."""
        async with self._sending:
            await self._write(error_packet(code))
        self.close()

    # -- what goes out -------------------------------------------------------------------------

    async def wait_round_trip(self, since: float) -> None:
        """Until an answer to what arrived at `since` may leave; answers overlap, none waits."""
        # A moment after the one before: what arrived together leaves in the order it arrived in,
        # and not as the rounding of two timers will have it.
        due = max(since + self._shared.trouble.round_trip_s, self._last_due + ORDER_S)
        loop = asyncio.get_running_loop()
        if due > loop.time():
            self._last_due = due
            leaving = loop.create_future()
            loop.call_at(due, _leave, leaving)
            await leaving

    async def send(
        self, session: Session, body: Body, *, reply: bool, numbered: bool, half: bool = False
    ) -> None:
        # The lock keeps message ids growing on the wire, and lets a costly body be made only
        # when its turn has come: a client that does not read costs no memory.
        async with self._sending:
            if self.is_open:
                sent = session.number(body, reply=reply, numbered=numbered)
                await self._seal_and_write(session, sent, half)

    async def resend(self, session: Session, sent: Sent) -> None:
        async with self._sending:
            if self.is_open:
                await self._seal_and_write(session, sent, half=False)

    async def _seal_and_write(self, session: Session, sent: Sent, half: bool) -> None:
        parts = sent.body.parts()
        packet = seal_envelope(session.key, session.id, sent.msg_id, sent.seqno, parts)
        await self._write(packet, half=half)

    async def _write(self, parts: Sequence[bytes], *, half: bool = False) -> None:
        packet = self._framing.wrap(parts)
        if half:
            packet = packet[: len(packet) // 2]
        rate = self._shared.trouble.bytes_per_second
        try:
            if rate is None:
                self._writer.write(packet)
                await self._writer.drain()
            else:
                await self._write_slowly(packet, rate)
        except ConnectionError:
            self.close()

    async def _write_slowly(self, packet: bytes, rate: float) -> None:
        view = memoryview(packet)
        for start in range(0, len(packet), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            await self._line.carry(len(piece), rate)
            self._writer.write(piece)
            await self._writer.drain()

    # -- the end -------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something for as long as this connection lives."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close_after(self, delay_s: float) -> None:
        """Hang up unless asked again before: ping_delay_disconnect."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.close)

    def close(self) -> None:
        """Hang up; what is written already still leaves."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._writer.close()
        if (task := self._dc.connections.get(self)) not in (None, asyncio.current_task()):
            task.cancel()

    def drop(self) -> None:
        """Hang up in the middle of a word."""
        self._writer.transport.abort()
        self.close()

    async def _wind_up(self) -> None:
        """End the tasks and let the last words leave, for a while."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(LINGER_S):
                await self._writer.wait_closed()
        except (ConnectionError, TimeoutError):
            log.debug("a client did not take our last words")
        finally:
            self._writer.transport.abort()
