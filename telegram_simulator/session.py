"""Encrypted messages and the sessions that they belong to.

Three layers, read downwards: the envelope (AES and the checks that keep forgeries out), the
messages inside it (containers, gzip), and the `Session`, which answers or has answered each one.
Source: core.telegram.org/mtproto/description and /mtproto/service_messages.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import secrets
import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from telethon.crypto import AES
from telethon.errors import TypeNotFoundError
from telethon.extensions import BinaryReader
from telethon.tl import TLObject, functions, types
from telethon.tl.core import GzipPacked, MessageContainer

from .handshake import NewKey
from .world import Bot

log = logging.getLogger(__name__)

ENVELOPE_HEADER = struct.Struct("<q16s")
MESSAGE_HEADER = struct.Struct("<qqqii")
INNER_HEADER = struct.Struct("<qii")
PADDING_MIN_BYTES, PADDING_MAX_BYTES = 12, 1024
CONTAINER_MESSAGES_MAX = 1020
UNPACKED_MAX_BYTES = 4 << 20

TOO_OLD_S, TOO_NEW_S = 300, 30
SEEN_IDS_MAX = 2000
ANSWERS_KEPT_MAX = 256
GZIP_FROM_BYTES = 1024
SALT_TERM = timedelta(hours=1)

RPC_RESULT = 0xF35C6D01
VECTOR = 0x1CB5C415
BOOLS = {True: 0x997275B5, False: 0xBC799737}

# Numbers of bad_msg_notification (core.telegram.org/mtproto/service_messages_about_messages).
ID_TOO_LOW, ID_TOO_HIGH, ID_NOT_DIVISIBLE, ID_REPEATED_BY_CONTAINER = 16, 17, 18, 19
ID_FORGOTTEN, SEQNO_NOT_EVEN, SEQNO_NOT_ODD, WRONG_SALT, BAD_CONTAINER = 20, 34, 35, 48, 64


# -- the envelope ------------------------------------------------------------------------------


class BadEnvelope(Exception):
    """A packet that is no message of this key: forged, damaged or cut."""


@dataclass(eq=False, slots=True)
class AuthKey:
    """An authorisation key of one data centre, and what the client did with it so far."""

    secret: bytes
    salt: int
    temporary: bool = False
    account: Bot | None = None
    initialised: bool = False
    dead: bool = False
    later_salts: set[int] = field(default_factory=set)
    sessions: dict[int, Session] = field(default_factory=dict)
    users: dict[Link, int] = field(default_factory=dict)
    """Requests under way on each connection that used this key, the youngest connection last."""

    @classmethod
    def from_handshake(cls, new: NewKey) -> AuthKey:
        return cls(new.secret, new.salt, new.expires_in_s is not None)

    @property
    def id(self) -> int:
        return key_id(self.secret)

    def accepts(self, salt: int) -> bool:
        return salt == self.salt or salt in self.later_salts


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a client: its id, its number in the session, its serialised body."""

    id: int
    seqno: int
    body: bytes

    @property
    def constructor(self) -> int:
        return int.from_bytes(self.body[:4], "little")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an encrypted packet held."""

    salt: int
    session_id: int
    message: Message


def key_id(secret: bytes) -> int:
    return int.from_bytes(hashlib.sha1(secret).digest()[-8:], "little", signed=True)  # noqa: S324


def open_envelope(key: AuthKey, packet: bytes) -> Envelope:
    """Decrypt a client's packet; raises BadEnvelope on whatever does not hold."""
    if len(packet) < ENVELOPE_HEADER.size:
        raise BadEnvelope("too short")
    _, msg_key = ENVELOPE_HEADER.unpack_from(packet)
    encrypted = packet[ENVELOPE_HEADER.size :]
    if len(encrypted) % 16 or len(encrypted) < MESSAGE_HEADER.size + PADDING_MIN_BYTES:
        raise BadEnvelope("not a whole number of AES blocks")
    plain = AES.decrypt_ige(encrypted, *_aes(key.secret, msg_key, 0))
    if hashlib.sha256(key.secret[88:120] + plain).digest()[8:24] != msg_key:
        raise BadEnvelope("wrong msg_key")
    salt, session_id, msg_id, seqno, length = MESSAGE_HEADER.unpack_from(plain)
    padding = len(plain) - MESSAGE_HEADER.size - length
    if length % 4 or not PADDING_MIN_BYTES <= padding <= PADDING_MAX_BYTES:
        raise BadEnvelope("wrong length")
    body = plain[MESSAGE_HEADER.size : MESSAGE_HEADER.size + length]
    return Envelope(salt, session_id, Message(msg_id, seqno, body))


def seal_envelope(
    key: AuthKey, session_id: int, msg_id: int, seqno: int, body: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """Encrypt one message of the server; the big body is copied once, into the plain text."""
    length = sum(map(len, body))
    header = MESSAGE_HEADER.pack(key.salt, session_id, msg_id, seqno, length)
    padding = PADDING_MIN_BYTES + -(MESSAGE_HEADER.size + length + PADDING_MIN_BYTES) % 16
    plain = b"".join((header, *body, secrets.token_bytes(padding)))
    digest = hashlib.sha256(key.secret[96:128])
    digest.update(plain)
    msg_key = digest.digest()[8:24]
    encrypted = AES.encrypt_ige(plain, *_aes(key.secret, msg_key, 8))
    return ENVELOPE_HEADER.pack(key.id, msg_key), encrypted


def _aes(secret: bytes, msg_key: bytes, x: int) -> tuple[bytes, bytes]:
    """AES key and vector of a message; `x` is 0 from client to server and 8 the other way."""
    a = hashlib.sha256(msg_key + secret[x : x + 36]).digest()
    b = hashlib.sha256(secret[x + 40 : x + 76] + msg_key).digest()
    return a[:8] + b[8:24] + a[24:32], b[:8] + a[8:24] + b[24:32]


# -- messages ----------------------------------------------------------------------------------


class UnreadableMessage(Exception):
    """A body with a constructor that nobody here knows, or cut short; the text is for the log."""


class BadContainer(Exception):
    """A container inside a container, too many messages, or lengths that do not add up."""


class RpcFailure(Exception):
    """An answer rpc_error: Telegram's number and name of what went wrong."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


KEY_DUPLICATED = RpcFailure(406, "AUTH_KEY_DUPLICATED")


class Body(Protocol):
    """What a message carries; `parts` is called when the line is free, and may be costly."""

    def parts(self) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A body that is small or serialised already."""

    serialised: bytes

    def parts(self) -> Sequence[bytes]:
        return (self.serialised,)


@dataclass(frozen=True, slots=True)
class Answer:
    """An rpc_result: the answer to the request with this message id."""

    request_id: int
    result: Body

    def parts(self) -> Sequence[bytes]:
        return (struct.pack("<Iq", RPC_RESULT, self.request_id), *self.result.parts())


Cut = Literal["cut_before", "cut_during", "cut_after", "refuse", "silence"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one request, and what is to befall its way back."""

    result: Body
    failed: bool = False
    cut: Cut | None = None
    refusal: int = 0  # what `refuse` says


def serialise(value: Any) -> Plain:
    """A result as it travels; packed with gzip when that pays."""
    body = _serialise(value)
    if len(body) >= GZIP_FROM_BYTES:
        packed = GzipPacked.CONSTRUCTOR_ID.to_bytes(4, "little") + TLObject.serialize_bytes(
            gzip.compress(body, 6)
        )
        body = min(body, packed, key=len)
    return Plain(body)


def refused(failure: RpcFailure) -> Outcome:
    return Outcome(serialise(types.RpcError(failure.code, failure.message)), failed=True)


def _serialise(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I", BOOLS[value])
    if isinstance(value, list):
        head = struct.pack("<Ii", VECTOR, len(value))
        return b"".join((head, *(_serialise(item) for item in value)))
    return bytes(value)


class _Reader(BinaryReader):  # type: ignore[misc]  # Telethon has no types
    """Telethon's, but for gzip_packed, which it unpacks to any size; ours is off by now."""

    def tgread_object(self) -> Any:
        constructor = self.stream[self.position : self.position + 4]
        if constructor == GzipPacked.CONSTRUCTOR_ID.to_bytes(4, "little"):
            raise UnreadableMessage("gzip_packed within a message")
        return super().tgread_object()


def read_object(body: bytes) -> Any:
    """The object that a body starts with; raises UnreadableMessage."""
    try:
        return _Reader(body).tgread_object()
    except TypeNotFoundError as error:
        raise UnreadableMessage(f"unknown constructor {error.invalid_constructor_id:#x}") from error
    except (BufferError, struct.error, ValueError, RuntimeError, OSError, EOFError) as error:
        raise UnreadableMessage(f"a damaged object: {error}") from error


def unzipped(message: Message) -> Message:
    if message.constructor != GzipPacked.CONSTRUCTOR_ID:
        return message
    try:
        packed = BinaryReader(message.body[4:]).tgread_bytes()
        unpacker = zlib.decompressobj(wbits=31)
        body = unpacker.decompress(packed, UNPACKED_MAX_BYTES)
    except (BufferError, struct.error, zlib.error) as error:
        raise UnreadableMessage("damaged gzip_packed") from error
    if not unpacker.eof:
        raise UnreadableMessage("gzip_packed unpacks to too much")
    return Message(message.id, message.seqno, body)


def inner_messages(container: Message) -> list[Message]:
    """The messages in a container; raises BadContainer."""
    body, position, messages = container.body, 8, []
    (count,) = struct.unpack_from("<i", body, 4) if len(body) >= position else (-1,)
    if not 0 <= count <= CONTAINER_MESSAGES_MAX:
        raise BadContainer(f"{count} messages")
    for _ in range(count):
        if position + INNER_HEADER.size > len(body):
            raise BadContainer("cut short")
        msg_id, seqno, length = INNER_HEADER.unpack_from(body, position)
        position += INNER_HEADER.size
        if length % 4 or not 4 <= length <= len(body) - position:
            raise BadContainer("a wrong length inside")
        message = Message(msg_id, seqno, body[position : position + length])
        if message.constructor == MessageContainer.CONSTRUCTOR_ID or msg_id >= container.id:
            raise BadContainer("a container, or a message younger than its container, inside")
        messages.append(message)
        position += length
    return messages


# -- sessions ----------------------------------------------------------------------------------


class Link(Protocol):
    """The live connection through which a session speaks."""

    is_media: bool

    @property
    def is_open(self) -> bool: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...

    async def wait_round_trip(self, since: float) -> None: ...

    async def send(
        self, session: Session, body: Body, *, reply: bool, numbered: bool, half: bool = False
    ) -> None: ...

    async def resend(self, session: Session, sent: Sent) -> None: ...

    async def refuse(self, code: int) -> None: ...

    def close(self) -> None: ...

    def close_after(self, delay_s: float) -> None: ...


class Rpc(Protocol):
    """What answers the requests of a session: a data centre."""

    def now(self) -> float: ...

    def begin_request(self, key: AuthKey, link: Link) -> RpcFailure | None: ...

    def end_request(self, key: AuthKey, link: Link) -> None: ...

    async def invoke(self, session: Session, request: Any) -> Outcome: ...

    def forget_key(self, key: AuthKey) -> bool: ...


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of ours that may have to be sent again, under the same id."""

    msg_id: int
    seqno: int
    body: Body


class Session:
    """One run of a client under one key: what it asked, what was answered, what is due.

    Source: core.telegram.org/mtproto/description#session.
    """

    def __init__(self, key: AuthKey, session_id: int, rpc: Rpc) -> None:
        self.key = key
        self.id = session_id
        self.link: Link | None = None
        self.wants_updates: bool | None = None
        self._rpc = rpc
        self._announced = False
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._forgotten_up_to = 0
        self._running: dict[int, asyncio.Event] = {}
        self._dropped: set[int] = set()
        self._failed: deque[int] = deque(maxlen=ANSWERS_KEPT_MAX)
        self._answers: OrderedDict[int, Sent] = OrderedDict()
        self._last_msg_id = 0
        self._numbered_sent = 0

    @property
    def is_connected(self) -> bool:
        return self.link is not None and self.link.is_open

    # -- what comes in -------------------------------------------------------------------------

    def receive(self, link: Link, envelope: Envelope, arrived: float) -> None:
        """Take one decrypted packet; all answers follow in tasks of the link."""
        self.link = link
        message = envelope.message
        trouble = self._trouble_with_id(message)
        if trouble is None and not self.key.accepts(envelope.salt):
            trouble = WRONG_SALT
        if trouble is not None:
            link.spawn(self._reject(link, message, trouble, arrived))
            return
        try:
            message = unzipped(message)
            is_container = message.constructor == MessageContainer.CONSTRUCTOR_ID
            messages = inner_messages(message) if is_container else [message]
        except BadContainer as error:
            log.warning("bad container: %s", error)
            link.spawn(self._reject(link, message, BAD_CONTAINER, arrived))
            return
        except UnreadableMessage as error:
            self._unreadable(link, message, error, arrived)
            return
        if is_container:
            if message.id in self._seen:
                link.spawn(self._reject(link, message, ID_REPEATED_BY_CONTAINER, arrived))
                return
            self._remember(message.id)
        self._announce(link, messages[0].id if messages else message.id)
        acks = [each.id for each in messages if each.seqno % 2]
        if acks:
            link.spawn(self._reply(link, types.MsgsAck(acks), arrived, numbered=False))
        for each in messages:
            self._take(link, each, arrived)

    def _trouble_with_id(self, message: Message) -> int | None:
        sent_s, now_s = message.id >> 32, self._rpc.now()
        if sent_s < now_s - TOO_OLD_S:
            return ID_TOO_LOW
        if sent_s > now_s + TOO_NEW_S:
            return ID_TOO_HIGH
        if message.id % 4:
            return ID_NOT_DIVISIBLE
        if message.id <= self._forgotten_up_to and message.id not in self._seen:
            return ID_FORGOTTEN
        return None

    def _remember(self, msg_id: int) -> None:
        self._seen[msg_id] = None
        while len(self._seen) > SEEN_IDS_MAX:
            forgotten, _ = self._seen.popitem(last=False)
            self._forgotten_up_to = max(self._forgotten_up_to, forgotten)

    def _take(self, link: Link, message: Message, arrived: float) -> None:
        trouble = self._trouble_with_id(message)
        if trouble is not None:
            link.spawn(self._reject(link, message, trouble, arrived))
            return
        if message.id in self._seen:
            # Never done twice; if it was answered, the answer may have been lost.
            if message.id in self._answers:
                link.spawn(self._answer_again(link, message.id, arrived))
            return
        self._remember(message.id)
        try:
            request = read_object(unzipped(message).body)
        except UnreadableMessage as error:
            self._unreadable(link, message, error, arrived)
            return
        if self._serve(link, message, request, arrived):
            return
        if message.seqno % 2 == 0:
            link.spawn(self._reject(link, message, SEQNO_NOT_ODD, arrived))
            return
        self._running[message.id] = asyncio.Event()
        link.spawn(self._run(link, message.id, request, arrived))

    def _unreadable(
        self, link: Link, message: Message, error: UnreadableMessage, arrived: float
    ) -> None:
        log.error("message %#x cannot be read: %s", message.constructor, error)
        outcome = refused(RpcFailure(400, "INPUT_CONSTRUCTOR_INVALID"))
        link.spawn(self._deliver(link, message.id, outcome, arrived))

    # -- service messages ----------------------------------------------------------------------

    def _serve(self, link: Link, message: Message, request: Any, arrived: float) -> bool:
        """Handle what belongs to the protocol itself; False for a request of the API."""
        match request:
            case types.MsgsAck():
                if message.seqno % 2:
                    link.spawn(self._reject(link, message, SEQNO_NOT_EVEN, arrived))
                for msg_id in request.msg_ids:
                    self._forget_answer(msg_id)
            case types.HttpWait() | types.MsgsStateInfo() | types.MsgsAllInfo():
                pass  # for HTTP, and answers to questions that this server never asks
            case types.MsgResendReq():
                for msg_id in request.msg_ids:
                    link.spawn(self._resend(link, msg_id, arrived))
            case functions.RpcDropAnswerRequest():
                result = Outcome(serialise(self._drop_answer(request.req_msg_id)))
                link.spawn(self._deliver(link, message.id, result, arrived))
            case _:
                reply = self._reply_to(link, message, request)
                if reply is None:
                    return False
                link.spawn(self._reply(link, reply, arrived, numbered=False))
        return True

    def _reply_to(self, link: Link, message: Message, request: Any) -> Any:
        """The answer that a service message gets without any rpc_result around it, if any."""
        match request:
            case functions.PingRequest():
                return types.Pong(message.id, request.ping_id)
            case functions.PingDelayDisconnectRequest():
                link.close_after(request.disconnect_delay)
                return types.Pong(message.id, request.ping_id)
            case functions.GetFutureSaltsRequest():
                return self._future_salts(message.id, request.num)
            case types.MsgsStateReq():
                info = "".join("\x04" if each in self._seen else "\x01" for each in request.msg_ids)
                return types.MsgsStateInfo(message.id, info)
            case functions.DestroySessionRequest():
                return self._destroy_session(request.session_id)
            case functions.DestroyAuthKeyRequest():
                known = self._rpc.forget_key(self.key)
                return types.DestroyAuthKeyOk() if known else types.DestroyAuthKeyNone()
            case _:
                return None

    def _future_salts(self, msg_id: int, count: int) -> Any:
        """The salt of now and those of later hours; all of them are good already."""
        salts = [self.key.salt, *self.key.later_salts]
        while len(salts) < min(count, 64):
            salts.append(int.from_bytes(secrets.token_bytes(8), "little", signed=True))
        self.key.later_salts.update(salts[1:])
        now = datetime.now(UTC)
        terms = [
            types.FutureSalt(now + SALT_TERM * hour, now + SALT_TERM * (hour + 2), salt)
            for hour, salt in enumerate(salts[: max(1, count)])
        ]
        return types.FutureSalts(msg_id, int(now.timestamp()), terms)

    def _destroy_session(self, session_id: int) -> Any:
        if session_id == self.id or self.key.sessions.pop(session_id, None) is None:
            return types.DestroySessionNone(session_id)
        return types.DestroySessionOk(session_id)

    def _drop_answer(self, request_id: int) -> Any:
        if request_id in self._running:
            self._dropped.add(request_id)
            return types.RpcAnswerDroppedRunning()
        if (sent := self._answers.pop(request_id, None)) is not None:
            return types.RpcAnswerDropped(sent.msg_id, sent.seqno, 0)
        return types.RpcAnswerUnknown()

    def _forget_answer(self, msg_id: int) -> None:
        for request_id, sent in self._answers.items():
            if sent.msg_id == msg_id:
                del self._answers[request_id]
                return

    # -- requests of the API -------------------------------------------------------------------

    async def _run(self, link: Link, request_id: int, request: Any, arrived: float) -> None:
        refusal = self._rpc.begin_request(self.key, link)
        try:
            if refusal is None:
                outcome = await self._rpc.invoke(self, request)
            else:
                outcome = refused(refusal)
            if outcome.failed:
                self._failed.append(request_id)
            await self._deliver(link, request_id, outcome, arrived)
        finally:
            self._rpc.end_request(self.key, link)
            self._running.pop(request_id).set()

    async def wait_for(self, request_ids: Sequence[int]) -> None:
        """Until these requests are through; raises RpcFailure when one of them was refused."""
        for done in [self._running[each] for each in request_ids if each in self._running]:
            await done.wait()
        if not set(request_ids).isdisjoint(self._failed):
            raise RpcFailure(400, "MSG_WAIT_FAILED")

    async def _deliver(self, link: Link, request_id: int, outcome: Outcome, arrived: float) -> None:
        await link.wait_round_trip(arrived)
        if outcome.cut == "refuse":
            await link.refuse(outcome.refusal)
            return
        if outcome.cut == "cut_before":
            link.close()
        if request_id in self._dropped or outcome.cut in ("cut_before", "silence"):
            self._dropped.discard(request_id)
            return
        result = outcome.result
        if self.key.dead:
            result = refused(KEY_DUPLICATED).result
        body, half = Answer(request_id, result), outcome.cut == "cut_during"
        await link.send(self, body, reply=True, numbered=True, half=half)
        if outcome.cut is not None:
            link.close()

    # -- what goes out -------------------------------------------------------------------------

    def number(self, body: Body, *, reply: bool, numbered: bool) -> Sent:
        """Give a message of ours its id and its number in the session, at the moment of sending.

        Ids end in binary 01 for replies and 11 for the rest, and always grow.
        """
        msg_id = (int(self._rpc.now() * (1 << 32)) & ~3) | (1 if reply else 3)
        if msg_id <= self._last_msg_id:
            msg_id = (self._last_msg_id & ~3) + 4 | (1 if reply else 3)
        self._last_msg_id = msg_id
        seqno = 2 * self._numbered_sent + numbered
        self._numbered_sent += numbered
        sent = Sent(msg_id, seqno, body)
        if isinstance(body, Answer):
            self._answers[body.request_id] = sent
            while len(self._answers) > ANSWERS_KEPT_MAX:
                self._answers.popitem(last=False)
        return sent

    async def push(self, updates: Any) -> None:
        """Send what nobody asked for, if somebody is listening."""
        if self.link is not None:
            await self.link.send(self, serialise(updates), reply=False, numbered=True)

    def _announce(self, link: Link, first_msg_id: int) -> None:
        if self._announced:
            return
        self._announced = True
        unique_id = int.from_bytes(secrets.token_bytes(8), "little", signed=True)
        created = types.NewSessionCreated(first_msg_id, unique_id, self.key.salt)
        link.spawn(link.send(self, Plain(bytes(created)), reply=False, numbered=True))

    async def _reject(self, link: Link, message: Message, number: int, arrived: float) -> None:
        if number == WRONG_SALT:
            reply = types.BadServerSalt(message.id, message.seqno, number, self.key.salt)
        else:
            log.warning("bad message %d from a client: code %d", message.id, number)
            reply = types.BadMsgNotification(message.id, message.seqno, number)
        await self._reply(link, reply, arrived, numbered=False)

    async def _reply(self, link: Link, reply: Any, arrived: float, *, numbered: bool) -> None:
        await link.wait_round_trip(arrived)
        await link.send(self, Plain(bytes(reply)), reply=True, numbered=numbered)

    async def _answer_again(self, link: Link, request_id: int, arrived: float) -> None:
        await link.wait_round_trip(arrived)
        if (sent := self._answers.get(request_id)) is not None:
            await link.resend(self, sent)

    async def _resend(self, link: Link, msg_id: int, arrived: float) -> None:
        """Answer msg_resend_req, which names messages of ours."""
        for request_id, sent in tuple(self._answers.items()):
            if sent.msg_id == msg_id:
                await self._answer_again(link, request_id, arrived)
