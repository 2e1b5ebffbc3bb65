"""The simulator speaks MTProto 2.0 to the letter, and minds every rule that it knows of.

Goal: what the stock clients never do, because they behave, is refused the way Telegram refuses it.
Method: a bare client of our own over a real socket, which can break each rule by itself.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import secrets
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from telethon.crypto import AES
from telethon.extensions import BinaryReader
from telethon.tl import TLObject, functions, types
from telethon.tl.core import GzipPacked, MessageContainer

from telegram_simulator.cluster import API_HASH, API_ID, TelegramSimulator
from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.faults import Fault, FaultKind
from telegram_simulator.handshake import DH_GENERATOR, DH_PRIME, Handshake, ServerKey
from telegram_simulator.world import Bot, Channel, Document, PhotoSize

KIB, MIB = 1 << 10, 1 << 20
FILM_BYTES = 2 * MIB + 12_345
PATIENCE_S = 5.0
QUIET_S = 0.15
"""How long silence has to last before it counts as an answer that does not come."""


# -- a bare client -----------------------------------------------------------------------------


class Closed(Exception):
    """The server hung up."""


class Intermediate:
    tag = b"\xee\xee\xee\xee"

    def wrap(self, payload: bytes) -> bytes:
        return struct.pack("<I", len(payload)) + payload

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        (length,) = struct.unpack("<I", await reader.readexactly(4))
        return await reader.readexactly(length)


class PaddedIntermediate(Intermediate):
    tag = b"\xdd\xdd\xdd\xdd"

    def wrap(self, payload: bytes) -> bytes:
        return super().wrap(payload + bytes(3))

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        payload = await super().read(reader)
        return payload[: len(payload) & ~3]


class Abridged:
    tag = b"\xef"

    def wrap(self, payload: bytes) -> bytes:
        words = len(payload) // 4
        return (bytes((words,)) if words < 127 else b"\x7f" + words.to_bytes(3, "little")) + payload

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        words = (await reader.readexactly(1))[0]
        if words == 127:
            words = int.from_bytes(await reader.readexactly(3), "little")
        return await reader.readexactly(words * 4)


class Full:
    tag = b""

    def __init__(self) -> None:
        self.sent = self.received = 0

    def wrap(self, payload: bytes) -> bytes:
        packet = struct.pack("<II", len(payload) + 12, self.sent) + payload
        self.sent += 1
        return packet + struct.pack("<I", crc32(packet))

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(8)
        length, number = struct.unpack("<II", head)
        rest = await reader.readexactly(length - 8)
        assert number == self.received
        assert crc32(head + rest[:-4]) == int.from_bytes(rest[-4:], "little")
        self.received += 1
        return rest[:-4]


@dataclass
class Key:
    """What a client keeps of a handshake."""

    secret: bytes
    salt: int

    @property
    def id(self) -> bytes:
        return hashlib.sha1(self.secret).digest()[-8:]  # noqa: S324


class Wire:
    """One connection, one session; every field may be spoilt before a message is sent."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, framing: Any
    ) -> None:
        self.reader, self.writer, self.framing = reader, writer, framing
        self.key = Key(b"", 0)
        self.session_id = secrets.randbits(62)
        self.sent = 0
        self.last_id = 0
        self.expects_old_ids = False
        self.inbox: list[tuple[int, int, Any]] = []
        writer.write(framing.tag)

    # -- packets -------------------------------------------------------------------------------

    def write(self, payload: bytes) -> None:
        self.writer.write(self.framing.wrap(payload))

    async def read(self) -> bytes:
        try:
            packet = await asyncio.wait_for(self.framing.read(self.reader), PATIENCE_S)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed from error
        return bytes(packet)

    async def plain(self, request: Any) -> Any:
        body = bytes(request)
        self.write(bytes(8) + struct.pack("<qi", self.next_id(), len(body)) + body)
        answer = await self.read()
        if len(answer) == 4:
            return int.from_bytes(answer, "little", signed=True)
        assert answer[:8] == bytes(8)
        return BinaryReader(answer[20:]).tgread_object()

    # -- messages ------------------------------------------------------------------------------

    def next_id(self) -> int:
        self.last_id = max(int(time.time() * (1 << 32)) & ~3, self.last_id + 4)
        return self.last_id

    def next_seqno(self, *, numbered: bool) -> int:
        seqno = 2 * self.sent + numbered
        self.sent += numbered
        return seqno

    def seal(self, msg_id: int, seqno: int, body: bytes) -> bytes:
        plain = struct.pack("<qqqii", self.key.salt, self.session_id, msg_id, seqno, len(body))
        plain += body
        plain += secrets.token_bytes(12 + -(len(plain) + 12) % 16)
        msg_key = hashlib.sha256(self.key.secret[88:120] + plain).digest()[8:24]
        encrypted = AES.encrypt_ige(plain, *message_aes(self.key.secret, msg_key, 0))
        return self.key.id + msg_key + bytes(encrypted)

    def send(self, request: Any, *, msg_id: int | None = None, numbered: bool = True) -> int:
        body = request if isinstance(request, bytes) else bytes(request)
        msg_id = msg_id or self.next_id()
        self.write(self.seal(msg_id, self.next_seqno(numbered=numbered), body))
        return msg_id

    async def receive(self) -> Any:
        """The next object that the server sends; its ids and numbers are checked on the way."""
        packet = await self.read()
        if len(packet) == 4:
            return int.from_bytes(packet, "little", signed=True)
        assert packet[:8] == self.key.id
        plain = AES.decrypt_ige(packet[24:], *message_aes(self.key.secret, packet[8:24], 8))
        assert hashlib.sha256(self.key.secret[96:128] + plain).digest()[8:24] == packet[8:24]
        _, session_id, msg_id, seqno, length = struct.unpack_from("<qqqii", plain)
        assert session_id == self.session_id
        assert msg_id % 2 == 1
        assert self.expects_old_ids or all(msg_id > earlier for earlier, _, _ in self.inbox)
        message = BinaryReader(plain[32 : 32 + length]).tgread_object()
        self.inbox.append((msg_id, seqno, message))
        return message

    async def expect(self, kind: Any) -> Any:
        while not isinstance(message := await self.receive(), kind):
            assert not isinstance(message, int), f"transport error {message}"
        return message

    async def result_of(self, msg_id: int) -> Any:
        """What the request with this id is answered: a TL object, or `(code, name)` of an error."""
        while True:
            message = await self.receive()
            assert not isinstance(message, int), f"transport error {message}"
            if getattr(message, "req_msg_id", None) == msg_id:
                if message.error:
                    return message.error.error_code, message.error.error_message
                return BinaryReader(message.body).tgread_object()

    async def call(self, request: Any) -> Any:
        return await self.result_of(self.send(request))

    async def is_silent(self) -> bool:
        """Whether nothing but acknowledgements comes for a while."""
        try:
            while isinstance(await asyncio.wait_for(self.receive(), QUIET_S), types.MsgsAck):
                continue
        except TimeoutError:
            return True
        return False


def message_aes(secret: bytes, msg_key: bytes, x: int) -> tuple[bytes, bytes]:
    a = hashlib.sha256(msg_key + secret[x : x + 36]).digest()
    b = hashlib.sha256(secret[x + 40 : x + 76] + msg_key).digest()
    return a[:8] + b[8:24] + a[24:32], b[:8] + a[8:24] + b[24:32]


def sha1(text: bytes) -> bytes:
    return hashlib.sha1(text).digest()  # noqa: S324


# -- its handshake -----------------------------------------------------------------------------


def old_padding(data: bytes, power: Callable[[bytes], bytes]) -> bytes:
    return power(sha1(data) + data + bytes(235 - len(data)))


def rsa_pad(data: bytes, power: Callable[[bytes], bytes]) -> bytes:
    padded = data + bytes(192 - len(data))
    while True:
        key = secrets.token_bytes(32)
        hashed = padded[::-1] + hashlib.sha256(key + padded).digest()
        encrypted = AES.encrypt_ige(hashed, key, bytes(32))
        digest = hashlib.sha256(encrypted).digest()
        block = bytes(a ^ b for a, b in zip(key, digest, strict=True)) + encrypted
        if block[0] < 0x80:  # surely below the modulus
            return power(block)


def factor(pq: int) -> tuple[bytes, bytes]:
    """Pollard's rho."""
    x, y, divisor = 2, 2, 1
    while divisor in (1, pq):
        step = secrets.randbelow(pq - 1) + 1
        x = y = secrets.randbelow(pq)
        divisor = 1
        while divisor == 1:
            product = 1
            for _ in range(64):
                x = (x * x + step) % pq
                y = (y * y + step) % pq
                y = (y * y + step) % pq
                product = product * (x - y) % pq
            divisor = gcd(product, pq)
    p, q = sorted((divisor, pq // divisor))
    return p.to_bytes(4, "big"), q.to_bytes(4, "big")


def gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@dataclass
class Courtship:
    """A handshake step by step, each of which a test may spoil."""

    wire: Wire
    public_pem: bytes
    padding: Callable[[bytes, Callable[[bytes], bytes]], bytes] = old_padding
    inner: Any = types.PQInnerData

    async def ask_pq(self, request: Any = functions.ReqPqMultiRequest) -> Any:
        self.nonce = secrets.randbits(120)
        self.res_pq = await self.wire.plain(request(self.nonce))
        assert self.res_pq.nonce == self.nonce
        self.p, self.q = factor(int.from_bytes(self.res_pq.pq, "big"))
        return self.res_pq

    async def ask_dh(self, **fields: int) -> Any:
        self.new_nonce = secrets.token_bytes(31) + b"\x01"
        inner = self.inner(
            pq=self.res_pq.pq,
            p=self.p,
            q=self.q,
            nonce=self.nonce,
            server_nonce=self.res_pq.server_nonce,
            new_nonce=int.from_bytes(self.new_nonce, "little", signed=True),
            **fields,
        )
        self.dh = await self.wire.plain(
            functions.ReqDHParamsRequest(
                nonce=self.nonce,
                server_nonce=self.res_pq.server_nonce,
                p=self.p,
                q=self.q,
                public_key_fingerprint=self.res_pq.server_public_key_fingerprints[0],
                encrypted_data=self.padding(bytes(inner), self._power),
            )
        )
        return self.dh

    async def set_dh(self, g_b: int | None = None) -> Any:
        key, iv = self._temporary_aes()
        plain = AES.decrypt_ige(self.dh.encrypted_answer, key, iv)
        reader = BinaryReader(plain[20:])
        answer = reader.tgread_object()
        assert plain[:20] == sha1(plain[20 : 20 + reader.tell_position()])
        assert (answer.g, int.from_bytes(answer.dh_prime, "big")) == (DH_GENERATOR, DH_PRIME)
        assert abs(answer.server_time - time.time()) < 5
        b = secrets.randbits(2048)
        g_b = pow(answer.g, b, DH_PRIME) if g_b is None else g_b
        inner = bytes(
            types.ClientDHInnerData(
                self.nonce, self.res_pq.server_nonce, 0, g_b.to_bytes(256, "big")
            )
        )
        hashed = sha1(inner) + inner
        hashed += bytes(-len(hashed) % 16)
        g_a = int.from_bytes(answer.g_a, "big")
        self.secret = pow(g_a, b, DH_PRIME).to_bytes(256, "big")
        return await self.wire.plain(
            functions.SetClientDHParamsRequest(
                self.nonce, self.res_pq.server_nonce, AES.encrypt_ige(hashed, key, iv)
            )
        )

    async def whole(self, **fields: int) -> Key:
        await self.ask_pq()
        await self.ask_dh(**fields)
        verdict = await self.set_dh()
        assert isinstance(verdict, types.DhGenOk)
        text = self.new_nonce + b"\x01" + sha1(self.secret)[:8]
        assert verdict.new_nonce_hash1 == int.from_bytes(sha1(text)[-16:], "little", signed=True)
        server_nonce = self.res_pq.server_nonce.to_bytes(16, "little", signed=True)
        salt = bytes(a ^ b for a, b in zip(self.new_nonce[:8], server_nonce[:8], strict=True))
        return Key(self.secret, int.from_bytes(salt, "little", signed=True))

    def _power(self, block: bytes) -> bytes:
        public = load_pem_public_key(self.public_pem)
        assert isinstance(public, RSAPublicKey)
        numbers = public.public_numbers()
        return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")

    def _temporary_aes(self) -> tuple[bytes, bytes]:
        new, server = self.new_nonce, self.res_pq.server_nonce.to_bytes(16, "little", signed=True)
        key = sha1(new + server) + sha1(server + new)[:12]
        return key, sha1(server + new)[12:] + sha1(new + new) + new[:4]


# -- the stage ---------------------------------------------------------------------------------


@dataclass
class Stage:
    """Data centres 1, 2 and 4; a bot at home in 2; a channel with a film in 2 and a photo in 4."""

    telegram: TelegramSimulator
    bot: Bot
    channel: Channel
    film: Document

    @asynccontextmanager
    async def wire(
        self, dc_id: int = 2, framing: Any = Intermediate, key: Key | None = None
    ) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection(*self.telegram.address(dc_id))
        wire = Wire(reader, writer, framing())
        wire.key = key or wire.key
        try:
            yield wire
        finally:
            writer.transport.abort()

    def courtship(self, wire: Wire, **options: Any) -> Courtship:
        return Courtship(wire, self.telegram.rsa_public_pem, **options)

    @asynccontextmanager
    async def logged_in(self, dc_id: int = 2, framing: Any = Intermediate) -> AsyncIterator[Wire]:
        async with self.wire(dc_id, framing) as wire:
            wire.key = await self.courtship(wire).whole()
            await wire.call(initialised(functions.help.GetConfigRequest()))
            answer = await wire.call(self.login())
            assert isinstance(answer, types.auth.Authorization), answer
            yield wire

    def login(self) -> Any:
        return functions.auth.ImportBotAuthorizationRequest(0, API_ID, API_HASH, self.bot.token)

    def location(self, file: Document | None = None, **changes: Any) -> Any:
        file, world = file or self.film, self.telegram.world
        fields = {
            "id": file.id,
            "access_hash": world.access_hash(self.bot.id, file.id),
            "file_reference": world.file_reference(self.bot.id, file.id),
            "thumb_size": "",
        }
        return types.InputDocumentFileLocation(**(fields | changes))

    def get_film(self, offset: int = 0, limit: int = 4 * KIB, **options: Any) -> Any:
        return functions.upload.GetFileRequest(self.location(), offset, limit, **options)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE_S / 0.001)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


def initialised(request: Any) -> Any:
    init = functions.InitConnectionRequest(API_ID, "test", "1", "1", "en", "", "en", request)
    return functions.InvokeWithLayerRequest(229, init)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with TelegramSimulator(dc_ids=(1, 2, 4)) as telegram:
        world = telegram.world
        bot = world.add_bot(home_dc=2)
        channel = world.add_channel("Films", bot)
        film = replace(
            world.new_document(SyntheticContent(FILM_BYTES, seed=5), "video/mp4", dc_id=2),
            thumbnails=(PhotoSize("m", 320, 180, BytesContent(b"thumb")),),
        )
        world.post(channel, film, "A film")
        yield Stage(telegram, bot, channel, film)


# -- transport ---------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [Abridged, Intermediate, PaddedIntermediate, Full])
async def test_every_framing_carries_the_conversation(stage: Stage, framing: Any) -> None:
    async with stage.logged_in(framing=framing) as wire:
        answer = await wire.call(stage.get_film(MIB, MIB))
        assert answer.bytes == stage.film.content.read(MIB, MIB)


async def test_an_unknown_key_is_answered_404_and_hung_up_on(stage: Stage) -> None:
    async with stage.wire(key=Key(secrets.token_bytes(256), 1)) as wire:
        wire.send(functions.PingRequest(1))
        assert await wire.receive() == -404
        with pytest.raises(Closed):
            await wire.receive()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda packet: packet[:-1] + bytes((packet[-1] ^ 1,)), id="checksum"),
        pytest.param(
            lambda packet: (
                (body := packet[:4] + b"\x07" + packet[5:-4]) + struct.pack("<I", crc32(body))
            ),
            id="number",
        ),
        pytest.param(lambda packet: b"\xff\xff\xff\x00" + packet[4:], id="length"),
    ],
)
async def test_a_broken_full_packet_ends_the_connection(
    stage: Stage, spoil: Callable[[bytes], bytes]
) -> None:
    async with stage.wire(framing=Full) as wire:
        body = bytes(functions.ReqPqMultiRequest(1))
        packet = wire.framing.wrap(bytes(8) + struct.pack("<qi", wire.next_id(), len(body)) + body)
        wire.writer.write(spoil(packet))
        with pytest.raises(Closed):
            await wire.read()


# -- handshake ---------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [old_padding, rsa_pad])
@pytest.mark.parametrize(
    ("inner", "fields"),
    [
        (types.PQInnerData, {}),
        (types.PQInnerDataDc, {"dc": 2}),
        (types.PQInnerDataTemp, {"expires_in": 3600}),
        (types.PQInnerDataTempDc, {"dc": -10_002, "expires_in": 3600}),
    ],
)
async def test_every_form_of_the_handshake_makes_a_key(
    stage: Stage, padding: Any, inner: Any, fields: dict[str, int]
) -> None:
    async with stage.wire() as wire:
        wire.key = await stage.courtship(wire, padding=padding, inner=inner).whole(**fields)
        wire.send(functions.PingRequest(7))
        assert (await wire.expect(types.Pong)).ping_id == 7


async def test_pq_is_the_product_of_two_31_bit_primes(stage: Stage) -> None:
    async with stage.wire() as wire:
        courtship = stage.courtship(wire)
        answer = await courtship.ask_pq(functions.ReqPqRequest)
        p, q = (int.from_bytes(number, "big") for number in (courtship.p, courtship.q))
        assert p * q == int.from_bytes(answer.pq, "big")
        assert p != q
        assert {p.bit_length(), q.bit_length()} == {31}


async def test_a_key_meant_for_another_data_centre_is_refused(stage: Stage) -> None:
    async with stage.wire() as wire:
        courtship = stage.courtship(wire, inner=types.PQInnerDataDc)
        await courtship.ask_pq()
        assert await courtship.ask_dh(dc=4) == -444


async def test_foreign_nonces_and_wrong_factors_are_refused(stage: Stage) -> None:
    for field in ("nonce", "p"):
        async with stage.wire() as wire:
            courtship = stage.courtship(wire)
            await courtship.ask_pq()
            spoilt: Any = {"nonce": courtship.nonce ^ 1, "p": courtship.q}[field]
            setattr(courtship, field, spoilt)
            assert await courtship.ask_dh() == -404


async def test_a_weak_public_value_fails_the_exchange(stage: Stage) -> None:
    async with stage.wire() as wire:
        courtship = stage.courtship(wire)
        await courtship.ask_pq()
        await courtship.ask_dh()
        assert isinstance(await courtship.set_dh(g_b=1), types.DhGenFail)


def other_fingerprint(courtship: Courtship) -> None:
    courtship.res_pq.server_public_key_fingerprints = [1]


def other_numbers_inside(courtship: Courtship) -> None:
    courtship.res_pq.pq = bytes(8)


def short_rsa_block(courtship: Courtship) -> None:
    courtship.padding = lambda data, power: bytes(255)


def number_above_the_modulus(courtship: Courtship) -> None:
    courtship.padding = lambda data, power: b"\xff" * 256


def no_padding_scheme(courtship: Courtship) -> None:
    courtship.padding = lambda data, power: power(b"\x01" + bytes(255))


def wrong_inner_hash(courtship: Courtship) -> None:
    courtship.padding = lambda data, power: power(bytes(20) + data + bytes(235 - len(data)))


@pytest.mark.parametrize(
    "spoil",
    [
        other_fingerprint,
        other_numbers_inside,
        short_rsa_block,
        number_above_the_modulus,
        no_padding_scheme,
        wrong_inner_hash,
    ],
)
async def test_a_second_step_that_does_not_hold_is_refused(
    stage: Stage, spoil: Callable[[Courtship], None]
) -> None:
    async with stage.wire() as wire:
        courtship = stage.courtship(wire)
        await courtship.ask_pq()
        spoil(courtship)
        assert await courtship.ask_dh() == -404


@pytest.mark.parametrize(
    "request_",
    [
        functions.PingRequest(1),
        functions.SetClientDHParamsRequest(0, 0, bytes(16)),
        functions.ReqDHParamsRequest(0, 0, b"", b"", 0, b""),
    ],
    ids=["not part of it", "third step first", "second step first"],
)
async def test_steps_out_of_turn_are_refused(stage: Stage, request_: Any) -> None:
    async with stage.wire() as wire:
        assert await wire.plain(request_) == -404


async def test_a_third_step_with_a_wrong_hash_is_refused(stage: Stage) -> None:
    async with stage.wire() as wire:
        courtship = stage.courtship(wire)
        await courtship.ask_pq()
        await courtship.ask_dh()
        request = functions.SetClientDHParamsRequest(
            courtship.nonce, courtship.res_pq.server_nonce, secrets.token_bytes(336)
        )
        assert await wire.plain(request) == -404


async def test_a_key_that_exists_already_is_tried_again() -> None:
    server_key = ServerKey()
    handshake = Handshake(2, server_key, lambda _: True)

    class Direct(Wire):
        def __init__(self) -> None:
            pass

        async def plain(self, request: Any) -> Any:
            return BinaryReader(handshake.answer(bytes(request))).tgread_object()

    courtship = Courtship(Direct(), server_key.public_pem)
    await courtship.ask_pq()
    await courtship.ask_dh()
    assert isinstance(await courtship.set_dh(), types.DhGenRetry)
    assert handshake.new_key is None


# -- messages and sessions ---------------------------------------------------------------------


async def test_a_new_session_is_announced_once_and_requests_are_acknowledged(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        await wire.call(stage.get_film())
        kinds = [type(message) for _, _, message in wire.inbox]
        assert kinds.count(types.NewSessionCreated) == 1
        assert kinds.count(types.MsgsAck) == 3
        numbered = [seqno for _, seqno, _ in wire.inbox if seqno % 2]
        assert numbered == [1, 3, 5, 7]


async def test_a_wrong_salt_is_corrected_and_the_message_not_processed(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        good, wire.key.salt = wire.key.salt, wire.key.salt ^ 1
        before = stage.telegram.counters.methods.total()
        msg_id = wire.send(functions.help.GetConfigRequest())
        answer = await wire.expect(types.BadServerSalt)
        assert (answer.bad_msg_id, answer.error_code) == (msg_id, 48)
        assert answer.new_server_salt == good
        assert stage.telegram.counters.methods.total() == before


async def test_a_forged_message_is_dropped_in_silence(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        packet = wire.seal(wire.next_id(), 1, bytes(functions.PingRequest(1)))
        wire.write(packet[:-1] + bytes((packet[-1] ^ 1,)))
        assert await wire.is_silent()


async def test_a_message_of_a_wrong_length_is_dropped_in_silence(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        wire.send(bytes(functions.PingRequest(1)) + b"x")
        wire.write(wire.key.id + secrets.token_bytes(16 + 20))
        assert await wire.is_silent()


async def test_a_packet_too_short_or_too_long_ends_the_connection(stage: Stage) -> None:
    for packet in (b"1234", struct.pack("<qqi", 0, 4, 100) + bytes(4)):
        async with stage.wire() as wire:
            wire.write(packet)
            with pytest.raises(Closed):
                await wire.read()


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<Ii", MessageContainer.CONSTRUCTOR_ID, -1),
        struct.pack("<Ii", MessageContainer.CONSTRUCTOR_ID, 5000),
        struct.pack("<Ii", MessageContainer.CONSTRUCTOR_ID, 1),
        struct.pack("<Iiqii", MessageContainer.CONSTRUCTOR_ID, 1, 4, 1, 400),
    ],
    ids=["negative", "too many", "cut short", "longer than itself"],
)
async def test_a_container_that_does_not_add_up_is_refused(stage: Stage, body: bytes) -> None:
    async with stage.logged_in() as wire:
        wire.send(body, numbered=False)
        assert (await wire.expect(types.BadMsgNotification)).error_code == 64


async def test_a_container_cannot_be_repeated(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        msg_id = wire.send(container([]), numbered=False)
        wire.send(container([]), msg_id=msg_id, numbered=False)
        assert (await wire.expect(types.BadMsgNotification)).error_code == 19


async def test_a_destroyed_key_is_an_unknown_key(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        wire.send(functions.DestroyAuthKeyRequest())
        await wire.expect(types.DestroyAuthKeyOk)
        wire.send(functions.PingRequest(1))
        assert await wire.receive() == -404


async def test_another_session_of_the_key_can_be_destroyed(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        old, wire.session_id, wire.sent = wire.session_id, 5, 0
        wire.send(functions.DestroySessionRequest(old))
        assert (await wire.expect(types.DestroySessionOk)).session_id == old


@pytest.mark.parametrize(
    ("shift_s", "low_bits", "code"),
    [(-310, 0, 16), (40, 0, 17), (0, 1, 18)],
    ids=["too old", "too new", "not divisible by four"],
)
async def test_an_impossible_message_id_is_refused(
    stage: Stage, shift_s: int, low_bits: int, code: int
) -> None:
    async with stage.logged_in() as wire:
        msg_id = (int(time.time() + shift_s) << 32) + low_bits
        wire.send(functions.PingRequest(1), msg_id=msg_id)
        answer = await wire.expect(types.BadMsgNotification)
        assert (answer.bad_msg_id, answer.error_code) == (msg_id, code)


async def test_a_request_needs_an_odd_number_and_an_acknowledgement_an_even_one(
    stage: Stage,
) -> None:
    async with stage.logged_in() as wire:
        wire.send(functions.help.GetConfigRequest(), numbered=False)
        assert (await wire.expect(types.BadMsgNotification)).error_code == 35
        wire.send(types.MsgsAck([1]), numbered=True)
        assert (await wire.expect(types.BadMsgNotification)).error_code == 34


async def test_a_repeated_request_is_answered_again_but_done_once(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        request = functions.auth.ExportAuthorizationRequest(4)
        msg_id = wire.send(request)
        first = await wire.result_of(msg_id)
        wire.expects_old_ids = True
        wire.send(request, msg_id=msg_id)
        assert (await wire.result_of(msg_id)).bytes == first.bytes
        assert stage.telegram.counters.methods["auth.exportAuthorization"] == 1


async def test_containers_and_gzip_are_unpacked(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        film = bytes(GzipPacked(bytes(stage.get_film())))
        ping = bytes(functions.PingRequest(11))
        messages = [(wire.next_id(), wire.next_seqno(numbered=True), body) for body in (film, ping)]
        wire.send(container(messages), numbered=False)
        seen = [await wire.receive() for _ in range(3)]
        kinds = {type(message).__name__: message for message in seen}
        assert kinds.keys() == {"MsgsAck", "Pong", "RpcResult"}
        assert kinds["MsgsAck"].msg_ids == [msg_id for msg_id, _, _ in messages]
        answer = BinaryReader(kinds["RpcResult"].body).tgread_object()
        assert answer.bytes == stage.film.content.read(0, 4 * KIB)


async def test_a_container_in_a_container_is_refused(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        ping = (wire.next_id(), wire.next_seqno(numbered=True), bytes(functions.PingRequest(1)))
        inner = (wire.next_id(), 2, container([ping]))
        wire.send(container([inner]), numbered=False)
        assert (await wire.expect(types.BadMsgNotification)).error_code == 64


def container(messages: list[tuple[int, int, bytes]]) -> bytes:
    head = struct.pack("<Ii", MessageContainer.CONSTRUCTOR_ID, len(messages))
    return head + b"".join(
        struct.pack("<qii", msg_id, seqno, len(body)) + body for msg_id, seqno, body in messages
    )


async def test_a_gzip_bomb_is_refused(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        bomb = GzipPacked.CONSTRUCTOR_ID.to_bytes(4, "little")
        bomb += TLObject.serialize_bytes(gzip.compress(bytes(64 * MIB)))
        assert await wire.call(bomb) == (400, "INPUT_CONSTRUCTOR_INVALID")


async def test_big_answers_come_packed(stage: Stage) -> None:
    for number in range(60):
        stage.telegram.world.post(stage.channel, text=f"a message, number {number}")
    async with stage.logged_in() as wire:
        msg_id = wire.send(
            functions.channels.GetMessagesRequest(
                types.InputChannel(stage.channel.id, 0),
                [types.InputMessageID(each) for each in range(1, 61)],
            )
        )
        packet = await wire.read()
        while len(packet) < 300:
            packet = await wire.read()
        plain = AES.decrypt_ige(packet[24:], *message_aes(wire.key.secret, packet[8:24], 8))
        assert int.from_bytes(plain[36:44], "little") == msg_id
        assert int.from_bytes(plain[44:48], "little") == GzipPacked.CONSTRUCTOR_ID


async def test_service_messages_are_answered(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        msg_id = wire.send(functions.GetFutureSaltsRequest(3))
        salts = await wire.expect(types.FutureSalts)
        assert (salts.req_msg_id, len(salts.salts)) == (msg_id, 3)
        wire.key.salt = salts.salts[1].salt
        wire.send(types.MsgsStateReq([msg_id, 5]))
        assert (await wire.expect(types.MsgsStateInfo)).info == "\x04\x01"
        wire.send(functions.DestroySessionRequest(77))
        assert isinstance(
            await wire.expect((types.DestroySessionOk, types.DestroySessionNone)),
            types.DestroySessionNone,
        )
        assert isinstance(
            await wire.call(functions.RpcDropAnswerRequest(5)), types.RpcAnswerUnknown
        )


async def test_a_dropped_answer_is_not_sent(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.trouble.round_trip_s = 0.1
        unwanted = wire.send(stage.get_film())
        answer = await wire.call(functions.RpcDropAnswerRequest(unwanted))
        assert isinstance(answer, types.RpcAnswerDroppedRunning)
        assert await wire.is_silent()
        assert stage.telegram.counters.bytes_served() == 0


async def test_an_unacknowledged_answer_can_be_asked_for_again(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        await wire.call(stage.get_film())
        answer_id, _, answer = wire.inbox[-1]
        wire.expects_old_ids = True
        wire.send(types.MsgResendReq([answer_id]))
        again = await wire.expect(type(answer))
        assert again.body == answer.body
        wire.send(types.MsgsAck([answer_id]), numbered=False)
        wire.send(types.MsgResendReq([answer_id]), numbered=False)
        assert await wire.is_silent()


async def test_a_delayed_disconnect_comes_unless_pinged_again(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        wire.send(functions.PingDelayDisconnectRequest(1, 0))
        await wire.expect(types.Pong)
        with pytest.raises(Closed):
            await wire.receive()


async def test_an_unknown_constructor_is_an_error_and_not_a_silence(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.logged_in() as wire:
        assert await wire.call(b"\x78\x56\x34\x12") == (400, "INPUT_CONSTRUCTOR_INVALID")
    assert "0x12345678" in caplog.text


async def test_invoke_after_waits_and_fails_with_what_it_waits_for(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        first = wire.send(functions.messages.GetHistoryRequest(*(types.InputPeerEmpty(), *[0] * 7)))
        second = wire.send(functions.InvokeAfterMsgRequest(first, stage.get_film()))
        assert await wire.result_of(first) == (400, "BOT_METHOD_INVALID")
        assert await wire.result_of(second) == (400, "MSG_WAIT_FAILED")


async def test_the_connection_must_be_initialised_and_logged_in(stage: Stage) -> None:
    async with stage.wire() as wire:
        wire.key = await stage.courtship(wire).whole()
        assert await wire.call(stage.login()) == (400, "CONNECTION_NOT_INITED")
        await wire.call(initialised(functions.help.GetConfigRequest()))
        assert await wire.call(stage.get_film()) == (401, "AUTH_KEY_UNREGISTERED")


# -- accounts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"api_id": 0}, (400, "API_ID_INVALID")),
        ({"api_hash": ""}, (400, "API_ID_INVALID")),
        ({"bot_auth_token": "1:x"}, (400, "ACCESS_TOKEN_INVALID")),
        ({"bot_auth_token": "nonsense"}, (400, "ACCESS_TOKEN_INVALID")),
    ],
)
async def test_a_login_that_does_not_hold_is_refused(
    stage: Stage, changes: dict[str, Any], error: tuple[int, str]
) -> None:
    async with stage.wire() as wire:
        wire.key = await stage.courtship(wire).whole()
        request = stage.login()
        vars(request).update(changes)
        assert await wire.call(initialised(request)) == error


async def test_an_authorisation_is_exported_once_to_one_data_centre(stage: Stage) -> None:
    async with stage.logged_in() as home, stage.wire(4) as away, stage.wire(1) as wrong:
        for dc_id in (2, 3):
            request = functions.auth.ExportAuthorizationRequest(dc_id)
            assert await home.call(request) == (400, "DC_ID_INVALID")
        tickets = [await home.call(functions.auth.ExportAuthorizationRequest(4)) for _ in range(2)]
        away.key = await stage.courtship(away).whole()
        wrong.key = await stage.courtship(wrong).whole()
        imports = [functions.auth.ImportAuthorizationRequest(t.id, t.bytes) for t in tickets]
        assert isinstance(await away.call(initialised(imports[0])), types.auth.Authorization)
        assert await away.call(imports[0]) == (400, "AUTH_BYTES_INVALID")
        assert await wrong.call(initialised(imports[1])) == (400, "AUTH_BYTES_INVALID")
        migrate = (303, "FILE_MIGRATE_2")
        assert await away.call(stage.get_film()) == migrate
        stage.telegram.expire_authorisations(4)
        assert await away.call(stage.get_film()) == (401, "AUTH_KEY_UNREGISTERED")


async def test_a_login_in_a_foreign_data_centre_migrates(stage: Stage) -> None:
    async with stage.wire(1) as wire:
        wire.key = await stage.courtship(wire).whole()
        assert await wire.call(initialised(stage.login())) == (303, "USER_MIGRATE_2")


async def test_one_key_on_two_connections_at_home_is_dead(stage: Stage) -> None:
    async with stage.logged_in() as one, stage.wire(key=one.key) as two:
        assert (await two.call(stage.get_film())).bytes
        # The younger connection took over; the older one must not speak again.
        assert await one.call(stage.get_film()) == (406, "AUTH_KEY_DUPLICATED")
        two.send(stage.get_film())
        assert await two.receive() == -404


async def test_parallel_requests_on_two_connections_kill_the_key(stage: Stage) -> None:
    async with stage.logged_in() as one, stage.wire(key=one.key) as two:
        stage.telegram.trouble.round_trip_s = 0.1
        msg_id = one.send(stage.get_film())
        await until(lambda: stage.telegram.counters.methods["upload.getFile"] == 1)
        assert await two.call(stage.get_film()) == (406, "AUTH_KEY_DUPLICATED")
        assert await one.result_of(msg_id) == (406, "AUTH_KEY_DUPLICATED")


async def test_a_reconnection_is_no_duplication(stage: Stage) -> None:
    async with stage.logged_in() as one:
        stage.telegram.trouble.round_trip_s = 0.1
        one.send(stage.get_film())
        await until(lambda: stage.telegram.counters.methods["upload.getFile"] == 1)
        one.writer.transport.abort()
        async with stage.wire(key=one.key) as two:
            assert (await two.call(stage.get_film())).bytes
            assert (await two.call(stage.get_film())).bytes


async def test_a_lingering_old_connection_is_no_duplication(stage: Stage) -> None:
    async with stage.logged_in() as one, stage.wire(key=one.key) as two:
        for _ in range(3):
            assert (await two.call(stage.get_film())).bytes


async def test_the_media_address_allows_parallel_connections_at_home(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        config = await wire.call(functions.help.GetConfigRequest())
        assert [option.id for option in config.dc_options] == [1, 2, 4, 1, 2, 4]
        (media,) = [each for each in config.dc_options if each.media_only and each.id == 2]
        reader, writer = await asyncio.open_connection(media.ip_address, media.port)
        other = Wire(reader, writer, Intermediate())
        other.key = wire.key
        for _ in range(3):
            answers = await asyncio.gather(
                wire.call(stage.get_film()), other.call(stage.get_film())
            )
            assert [len(answer.bytes) for answer in answers] == [4 * KIB] * 2
        writer.transport.abort()


async def test_foreign_data_centres_allow_parallel_connections(stage: Stage) -> None:
    film = stage.telegram.world.new_document(SyntheticContent(MIB, 6), "video/mp4", dc_id=4)
    stage.telegram.world.post(stage.channel, film)
    async with stage.logged_in() as home, stage.wire(4) as one:
        ticket = await home.call(functions.auth.ExportAuthorizationRequest(4))
        one.key = await stage.courtship(one).whole()
        request = functions.auth.ImportAuthorizationRequest(ticket.id, ticket.bytes)
        await one.call(initialised(request))
        request = functions.upload.GetFileRequest(stage.location(film), 0, MIB)
        async with stage.wire(4, key=one.key) as two:
            for _ in range(3):
                answers = await asyncio.gather(one.call(request), two.call(request))
                assert [len(answer.bytes) for answer in answers] == [MIB, MIB]


# -- messages and updates of channels ----------------------------------------------------------


async def test_channels_open_to_members_only(stage: Stage) -> None:
    world = stage.telegram.world
    private = world.add_channel("Private")
    ids = [types.InputMessageID(1)]
    async with stage.logged_in() as wire:
        for channel, error in [
            (types.InputChannel(private.id, 0), (400, "CHANNEL_PRIVATE")),
            (types.InputChannel(stage.channel.id, 5), (400, "CHANNEL_INVALID")),
            (types.InputChannel(42, 0), (400, "CHANNEL_INVALID")),
        ]:
            assert await wire.call(functions.channels.GetMessagesRequest(channel, ids)) == error
            assert await wire.call(functions.channels.GetChannelsRequest([channel])) == error


async def test_at_most_200_messages_come_at_once_and_holes_stay_holes(stage: Stage) -> None:
    channel = types.InputChannel(stage.channel.id, 0)
    async with stage.logged_in() as wire:
        ids = [types.InputMessageID(each) for each in range(1, 202)]
        request = functions.channels.GetMessagesRequest(channel, ids)
        assert await wire.call(request) == (400, "LIMIT_INVALID")
        answer = await wire.call(functions.channels.GetMessagesRequest(channel, ids[:200]))
        kinds = [type(message).__name__ for message in answer.messages]
        assert kinds == ["MessageService", "Message"] + ["MessageEmpty"] * 198
        answer = await wire.call(functions.messages.GetMessagesRequest(ids[:2]))
        assert {type(message).__name__ for message in answer.messages} == {"MessageEmpty"}


async def test_the_difference_of_a_channel_is_what_happened_since(stage: Stage) -> None:
    world = stage.telegram.world
    pts = stage.channel.pts
    world.edit(stage.channel.posts[2], text="A better film")
    fresh = world.post(stage.channel, text="fresh")
    gone = world.post(stage.channel, text="gone")
    world.delete(gone)

    def difference(pts: int, limit: int = 100) -> Any:
        return functions.updates.GetChannelDifferenceRequest(
            types.InputChannel(stage.channel.id, 0),
            types.ChannelMessagesFilterEmpty(),
            pts,
            limit,
        )

    async with stage.logged_in() as wire:
        answer = await wire.call(difference(pts))
        assert [message.id for message in answer.new_messages] == [fresh.id]
        assert [type(update) for update in answer.other_updates] == [types.UpdateEditChannelMessage]
        assert answer.pts == stage.channel.pts == pts + 4
        too_long = await wire.call(difference(pts, limit=4))
        assert too_long.dialog.top_message == gone.id
        assert (await wire.call(difference(pts, limit=5))).pts == pts + 4
        empty = await wire.call(difference(pts + 4))
        assert isinstance(empty, types.updates.ChannelDifferenceEmpty)
        assert (await wire.call(difference(0)))[1] == "PERSISTENT_TIMESTAMP_EMPTY"


async def test_a_new_post_is_pushed_to_members_at_home(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        post = stage.telegram.world.post(stage.channel, text="live")
        updates = await wire.expect(types.Updates)
        assert updates.updates[0].message.message == "live"
        assert updates.updates[0].pts == stage.channel.pts
        assert updates.updates[0].message.id == post.id


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "limit", "precise", "error"),
    [
        (0, 4 * KIB, False, None),
        (0, MIB, False, None),
        (MIB, 512 * KIB, False, None),
        (4 * KIB, 4 * KIB, False, None),
        (2 * KIB, 4 * KIB, False, "OFFSET_INVALID"),
        (-4 * KIB, 4 * KIB, False, "OFFSET_INVALID"),
        (0, 0, False, "LIMIT_INVALID"),
        (0, 5000, False, "LIMIT_INVALID"),
        (0, 12 * KIB, False, "LIMIT_INVALID"),
        (0, 2 * MIB, False, "LIMIT_INVALID"),
        (MIB - 4 * KIB, 8 * KIB, False, "LIMIT_INVALID"),
        (512 * KIB, MIB, False, "LIMIT_INVALID"),
        (KIB, 3 * KIB, True, None),
        (0, MIB, True, None),
        (512, KIB, True, "OFFSET_INVALID"),
        (0, 1000, True, "LIMIT_INVALID"),
        (0, MIB + KIB, True, "LIMIT_INVALID"),
        (MIB - KIB, 2 * KIB, True, "LIMIT_INVALID"),
    ],
)
async def test_the_rules_of_get_file(
    stage: Stage, offset: int, limit: int, precise: bool, error: str | None
) -> None:
    async with stage.logged_in() as wire:
        answer = await wire.call(stage.get_film(offset, limit, precise=precise))
        if error is None:
            assert answer.bytes == stage.film.content.read(offset, limit)
        else:
            assert answer == (400, error)


async def test_the_end_of_a_file_is_short_and_what_follows_is_empty(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        answer = await wire.call(stage.get_film(2 * MIB, MIB))
        assert answer.bytes == stage.film.content.read(2 * MIB, MIB)
        assert len(answer.bytes) == FILM_BYTES - 2 * MIB
        assert (await wire.call(stage.get_film(3 * MIB, MIB))).bytes == b""


@pytest.mark.parametrize("seed", [0, 1, 0xABCD])
@pytest.mark.parametrize("start", [0, 8, MIB - 8, 15 * MIB, 16 * MIB, 300 * MIB + 4096, 2 << 40])
def test_every_word_of_synthetic_content_says_where_it_stands(seed: int, start: int) -> None:
    content = SyntheticContent(3 << 40, seed)
    words = struct.unpack(">4Q", content.read(start, 32))
    assert words == tuple(seed << 48 | start + 8 * place for place in range(4))
    assert content.read(start + 3, 9) == content.read(start, 16)[3:12]


async def test_references_open_files_until_they_expire(stage: Stage) -> None:
    world = stage.telegram.world
    other = world.add_bot()

    async with stage.logged_in() as wire:

        async def error_for(**changes: Any) -> Any:
            location = stage.location(**changes)
            return await wire.call(functions.upload.GetFileRequest(location, 0, 4 * KIB))

        assert await error_for(file_reference=b"") == (400, "FILE_REFERENCE_EMPTY")
        assert await error_for(file_reference=b"x" * 20) == (400, "FILE_REFERENCE_INVALID")
        foreign = world.file_reference(other.id, stage.film.id)
        assert await error_for(file_reference=foreign) == (400, "FILE_REFERENCE_INVALID")
        assert await error_for(access_hash=1) == (400, "FILE_ID_INVALID")
        assert await error_for(id=1) == (400, "FILE_ID_INVALID")
        assert await error_for(thumb_size="z") == (400, "LOCATION_INVALID")
        assert (await error_for(thumb_size="m")).bytes == b"thumb"
        stale = world.file_reference(stage.bot.id, stage.film.id)
        world.expire_references(stage.film.id)
        assert await error_for(file_reference=stale) == (400, "FILE_REFERENCE_EXPIRED")
        assert (await error_for()).bytes


async def test_a_photo_is_fetched_by_its_size(stage: Stage) -> None:
    world = stage.telegram.world
    sizes = (PhotoSize("m", 320, 180, BytesContent(b"small")),)
    photo = world.new_photo(*sizes, dc_id=2)
    world.post(stage.channel, photo)
    location = types.InputPhotoFileLocation(
        photo.id,
        world.access_hash(stage.bot.id, photo.id),
        world.file_reference(stage.bot.id, photo.id),
        "m",
    )
    peer = types.InputPeerPhotoFileLocation(types.InputPeerSelf(), 1)
    async with stage.logged_in() as wire:
        get = functions.upload.GetFileRequest
        assert (await wire.call(get(location, 0, 4 * KIB))).bytes == b"small"
        assert await wire.call(get(peer, 0, 4 * KIB)) == (400, "LOCATION_INVALID")


async def test_hashes_of_a_file_are_those_of_its_parts(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        msg_id = wire.send(functions.upload.GetFileHashesRequest(stage.location(), 2 * MIB))
        (part,) = await wire.result_of(msg_id)
        body = stage.film.content.read(2 * MIB, 128 * KIB)
        assert (part.offset, part.limit) == (2 * MIB, len(body))
        assert part.hash == hashlib.sha256(body).digest()


# -- trouble and counters ----------------------------------------------------------------------


async def test_answers_are_a_round_trip_away_but_overlap(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.trouble.round_trip_s = 0.2
        started = time.monotonic()
        ids = [wire.send(stage.get_film(n * 4 * KIB)) for n in range(10)]
        answered: set[int] = set()
        while answered != set(ids):
            message = await wire.receive()
            answered.add(getattr(message, "req_msg_id", ids[0]))
            assert time.monotonic() - started >= 0.2
        assert time.monotonic() - started < 1.2


async def test_the_line_of_one_connection_does_not_slow_another(stage: Stage) -> None:
    async with stage.logged_in() as one, stage.logged_in() as two:
        stage.telegram.trouble.bytes_per_second = 2 * MIB
        started = time.monotonic()
        answers = await asyncio.gather(*(wire.call(stage.get_film(0, MIB)) for wire in (one, two)))
        took_s = time.monotonic() - started
        assert [len(answer.bytes) for answer in answers] == [MIB, MIB]
        assert 0.45 <= took_s < 0.9


async def test_answers_queue_on_a_thin_line(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.trouble.bytes_per_second = 4 * MIB
        started = time.monotonic()
        ids = {wire.send(stage.get_film(0, MIB)), wire.send(stage.get_film(MIB, MIB))}
        while ids:
            ids.discard(getattr(await wire.receive(), "req_msg_id", 0))
        assert time.monotonic() - started >= 0.45


async def test_a_data_centre_that_is_down_drops_and_refuses_connections(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.trouble.down.add(2)
        with pytest.raises(Closed):
            await wire.receive()
        async with stage.wire() as refused:
            with pytest.raises(Closed):
                await refused.plain(functions.ReqPqMultiRequest(1))
        stage.telegram.trouble.down.clear()
        async with stage.wire(key=wire.key) as again:
            assert (await again.call(stage.get_film())).bytes


async def test_a_planned_error_strikes_as_often_as_planned(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.trouble.flood_wait(3, times=2, after=1)
        answers = [await wire.call(stage.get_film()) for _ in range(4)]
        flood = (420, "FLOOD_WAIT_3")
        assert answers[1:3] == [flood, flood]
        assert answers[0].bytes
        assert answers[3].bytes
        assert stage.telegram.counters.errors["FLOOD_WAIT_3"] == 2


async def test_a_connection_can_be_cut_before_during_or_after_an_answer(stage: Stage) -> None:
    whole = len(stage.film.content.read(0, MIB))
    cuts: list[tuple[FaultKind, int, int]] = [
        ("cut_before", 0, 400),
        ("cut_during", whole // 2, whole // 2 + 400),
        ("cut_after", whole, whole + 600),
    ]
    for kind, least, most in cuts:
        async with stage.logged_in() as wire:
            stage.telegram.trouble.plan(Fault(kind, method="upload.getFile"))
            wire.send(stage.get_film(0, MIB))
            rest = await asyncio.wait_for(wire.reader.read(), PATIENCE_S)
            assert least <= len(rest) <= most, kind


async def test_silence_and_short_answers(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.trouble.plan(Fault("silence", method="upload.getFile"))
        stage.telegram.trouble.plan(Fault("short", method="upload.getFile", file_id=stage.film.id))
        wire.send(stage.get_film())
        assert await wire.is_silent()
        assert len((await wire.call(stage.get_film(0, MIB))).bytes) == MIB // 2


async def test_what_was_asked_and_served_is_counted(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.counters.reset()
        await wire.call(stage.get_film(0, MIB))
        await wire.call(stage.get_film(2 * MIB, MIB))
        await wire.call(stage.get_film(1, MIB))
    counters = stage.telegram.counters
    film = counters.files[stage.film.id]
    assert counters.methods["upload.getFile"] == 3
    assert counters.errors == {"OFFSET_INVALID": 1}
    assert film.windows == [(0, MIB), (2 * MIB, MIB)]
    assert (film.requests, film.bytes_asked) == (2, 2 * MIB)
    assert film.bytes_served == counters.bytes_served() == FILM_BYTES - MIB


async def test_forgotten_keys_are_unknown_keys(stage: Stage) -> None:
    async with stage.logged_in() as wire:
        stage.telegram.forget_keys(2)
        wire.send(stage.get_film())
        assert await wire.receive() == -404


# -- the face of it ----------------------------------------------------------------------------


async def test_nothing_is_left_when_it_stops(tmp_path: Any) -> None:
    before = asyncio.all_tasks()
    async with TelegramSimulator(dc_ids=(2,)) as telegram:
        bot = telegram.world.add_bot()
        telegram.world.add_channel("Films", bot)
        stalled = await asyncio.open_connection(*telegram.address(2))
        environment = telegram.environment(bot, telegram.write_key(tmp_path / "key.pem"))
        assert environment["TELEGRAM_DC"] == "2@{}:{}".format(*telegram.address(2))
        assert environment["CHANNELS"] == "-1001500000001"
        assert (tmp_path / "key.pem").read_bytes().startswith(b"-----BEGIN RSA PUBLIC KEY-----")
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert await stalled[0].read() == b""
    stalled[1].transport.abort()


async def test_a_key_and_a_port_can_be_kept_across_runs() -> None:
    async with TelegramSimulator(dc_ids=(2,)) as first:
        pem, port, fingerprint = first.rsa_private_pem, first.address(2)[1], first.rsa_fingerprint
    async with TelegramSimulator(dc_ids=(2,), ports={2: port}, rsa_key_pem=pem) as second:
        assert (second.address(2)[1], second.rsa_fingerprint) == (port, fingerprint)
