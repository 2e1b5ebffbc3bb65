"""The creation of an authorisation key: RSA to hide the client's nonce, Diffie-Hellman for the key.

Source: core.telegram.org/mtproto/auth_key. One `Handshake` lives as long as its connection.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from telethon.crypto import AES
from telethon.errors import TypeNotFoundError
from telethon.extensions import BinaryReader
from telethon.tl import TLObject, functions, types

from .transport import KEY_NOT_FOUND, WRONG_DATA_CENTRE

DH_GENERATOR = 3
# The prime that Telegram itself has used for years; clients know it and skip testing it.
DH_PRIME = int(
    "C71CAEB9C6B1C9048E6C522F70F13F73980D40238E3E21C14934D037563D930F"
    "48198A0AA7C14058229493D22530F4DBFA336F6E0AC925139543AED44CCE7C37"
    "20FD51F69458705AC68CD4FE6B6B13ABDC9746512969328454F18FAF8C595F64"
    "2477FE96BB2A941D5BCD1D4AC8CC49880708FA9B378E3C4F3A9060BEE67CF9A4"
    "A4A695811051907E162753B56B0F6B410DBA74D8A84B2A14B3144E0EF1284754"
    "FD17ED950D5965B4B9DD46582DB1178D169C6BC465B0D6FF9CA3928FEF5B9AE4"
    "E418FC15E83EBEA0F87FA9FF5EED70050DED2849F47BF959D956850CE929851F"
    "0D8115F635B105EE2E4E15D04B2454BF6F4FADF034B10403119CD8E3B92FCC5B",
    16,
)
DH_SAFETY = 1 << (2048 - 64)
"""How far from both ends of the group a public value has to stay."""

RSA_BYTES = 256
TEST_DC_SHIFT = 10_000


class HandshakeRefused(Exception):
    """The client's step does not add up; the answer is the transport error `code`."""

    def __init__(self, reason: str, code: int = KEY_NOT_FOUND) -> None:
        super().__init__(reason)
        self.code = code


class ServerKey:
    """The RSA key by which clients know that they talk to this Telegram and to no other."""

    def __init__(self, private_pem: bytes | None = None) -> None:
        key = (
            rsa.generate_private_key(public_exponent=65537, key_size=RSA_BYTES * 8)
            if private_pem is None
            else serialization.load_pem_private_key(private_pem, password=None)
        )
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != RSA_BYTES * 8:
            raise ValueError("the server key must be an RSA key of 2048 bits")
        self._numbers = key.private_numbers()
        self.public_pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
        )
        self.private_pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )

    @property
    def fingerprint(self) -> int:
        """The last 64 bits of the SHA-1 of modulus and exponent, as a signed number."""
        public = self._numbers.public_numbers
        text = b"".join(
            TLObject.serialize_bytes(number.to_bytes((number.bit_length() + 7) // 8, "big"))
            for number in (public.n, public.e)
        )
        return int.from_bytes(hashlib.sha1(text).digest()[-8:], "little", signed=True)  # noqa: S324

    def decrypt(self, encrypted: bytes) -> bytes:
        """Plain RSA, without any padding scheme of its own; 256 bytes in, 256 bytes out."""
        cipher, numbers = int.from_bytes(encrypted, "big"), self._numbers
        if len(encrypted) != RSA_BYTES or cipher >= numbers.public_numbers.n:
            raise HandshakeRefused("the RSA block has the wrong size")
        # By the Chinese remainder theorem, four times faster than one power modulo n.
        by_p = pow(cipher, numbers.dmp1, numbers.p)
        by_q = pow(cipher, numbers.dmq1, numbers.q)
        plain = by_q + (by_p - by_q) * numbers.iqmp % numbers.p * numbers.q
        return plain.to_bytes(RSA_BYTES, "big")


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a handshake ends with: the shared secret, the first salt, and the term of the key."""

    secret: bytes
    salt: int
    expires_in_s: int | None


class Handshake:
    """The three questions of a client on one connection, answered in order."""

    def __init__(
        self,
        dc_id: int,
        key: ServerKey,
        has_key: Callable[[int], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._dc_id = dc_id
        self._key = key
        self._has_key = has_key
        self._now = now
        self._nonce = self._server_nonce = 0
        self._new_nonce = b""
        self._primes = (0, 0)
        self._exponent = 0
        self._expires_in_s: int | None = None
        self.new_key: NewKey | None = None

    def answer(self, body: bytes) -> bytes:
        """The answer to one unencrypted message; raises HandshakeRefused."""
        request = _read_object(body)
        match request:
            case functions.ReqPqMultiRequest() | functions.ReqPqRequest():
                return self._res_pq(request)
            case functions.ReqDHParamsRequest():
                return self._server_dh_params(request)
            case functions.SetClientDHParamsRequest():
                return self._dh_gen(request)
            case _:
                name = type(request).__name__
                raise HandshakeRefused(f"{name} may not be sent unencrypted")

    # -- step 1: a number to factor, so that opening connections is not free ---------------------

    def _res_pq(self, request: Any) -> bytes:
        self._nonce = request.nonce
        self._server_nonce = int.from_bytes(secrets.token_bytes(16), "little", signed=True)
        p, q = sorted((_random_prime(), _random_prime()))
        while p == q:
            p, q = sorted((p, _random_prime()))
        self._primes = (p, q)
        return bytes(
            types.ResPQ(
                nonce=self._nonce,
                server_nonce=self._server_nonce,
                pq=(p * q).to_bytes(8, "big"),
                server_public_key_fingerprints=[self._key.fingerprint],
            )
        )

    # -- step 2: the client proves that it knows the server's key --------------------------------

    def _server_dh_params(self, request: Any) -> bytes:
        self._check_nonces(request)
        factors = tuple(int.from_bytes(number, "big") for number in (request.p, request.q))
        if factors != self._primes:
            raise HandshakeRefused("these are not the factors of pq")
        if request.public_key_fingerprint != self._key.fingerprint:
            raise HandshakeRefused("encrypted for another key")
        inner = self._open_inner_data(self._key.decrypt(request.encrypted_data))
        self._check_nonces(inner)
        self._check_data_centre(getattr(inner, "dc", None))
        self._new_nonce = inner.new_nonce.to_bytes(32, "little", signed=True)
        self._expires_in_s = getattr(inner, "expires_in", None)
        self._exponent, g_a = _key_pair()
        answer = bytes(
            types.ServerDHInnerData(
                nonce=self._nonce,
                server_nonce=self._server_nonce,
                g=DH_GENERATOR,
                dh_prime=DH_PRIME.to_bytes(256, "big"),
                g_a=g_a.to_bytes(256, "big"),
                server_time=int(self._now()),
            )
        )
        hashed = _sha1(answer) + answer
        padded = hashed + secrets.token_bytes(-len(hashed) % 16)
        return bytes(
            types.ServerDHParamsOk(
                nonce=self._nonce,
                server_nonce=self._server_nonce,
                encrypted_answer=AES.encrypt_ige(padded, *self._temporary_aes()),
            )
        )

    def _open_inner_data(self, block: bytes) -> Any:
        """Both ways to pad: RSA_PAD of today, and SHA-1 and random bytes as of old."""
        data = _rsa_unpad(block)
        if data is None:
            if block[0]:
                raise HandshakeRefused("neither RSA_PAD nor the old padding")
            digest, data = block[1:21], block[21:]
            reader = BinaryReader(data)
            inner = _read_object(data, reader)
            if digest != _sha1(data[: reader.tell_position()]):
                raise HandshakeRefused("wrong hash of the inner data")
        else:
            inner = _read_object(data)
        known = (
            types.PQInnerData,
            types.PQInnerDataDc,
            types.PQInnerDataTemp,
            types.PQInnerDataTempDc,
        )
        if not isinstance(inner, known):
            raise HandshakeRefused("no p_q_inner_data inside")
        p, q = self._primes
        if (inner.pq, inner.p, inner.q) != (
            (p * q).to_bytes(8, "big"),
            p.to_bytes(4, "big"),
            q.to_bytes(4, "big"),
        ):
            raise HandshakeRefused("the inner data names other numbers")
        return inner

    def _check_data_centre(self, dc: int | None) -> None:
        # Test data centres count from 10,000, media clusters are negative.
        if dc is not None and abs(dc) % TEST_DC_SHIFT != self._dc_id:
            raise HandshakeRefused(f"meant for data centre {dc}", WRONG_DATA_CENTRE)

    # -- step 3: the key itself ------------------------------------------------------------------

    def _dh_gen(self, request: Any) -> bytes:
        self._check_nonces(request)
        if not self._exponent or len(request.encrypted_data) % 16:
            raise HandshakeRefused("set_client_DH_params out of turn")
        plain = AES.decrypt_ige(request.encrypted_data, *self._temporary_aes())
        reader = BinaryReader(plain[20:])
        inner = _read_object(plain[20:], reader)
        if not isinstance(inner, types.ClientDHInnerData):
            raise HandshakeRefused("no client_DH_inner_data inside")
        if plain[:20] != _sha1(plain[20 : 20 + reader.tell_position()]):
            raise HandshakeRefused("wrong hash of client_DH_inner_data")
        self._check_nonces(inner)
        g_b = int.from_bytes(inner.g_b, "big")
        secret = pow(g_b, self._exponent, DH_PRIME).to_bytes(256, "big")
        digest = _sha1(secret)
        if not DH_SAFETY <= g_b <= DH_PRIME - DH_SAFETY:
            return self._verdict(types.DhGenFail, 3, digest)
        if self._has_key(int.from_bytes(digest[-8:], "little")):
            return self._verdict(types.DhGenRetry, 2, digest)
        server_nonce = self._server_nonce.to_bytes(16, "little", signed=True)
        salt = _xor(self._new_nonce[:8], server_nonce[:8])
        self.new_key = NewKey(
            secret, int.from_bytes(salt, "little", signed=True), self._expires_in_s
        )
        self._exponent = 0
        return self._verdict(types.DhGenOk, 1, digest)

    def _verdict(self, kind: Any, number: int, digest: bytes) -> bytes:
        text = self._new_nonce + struct.pack("<B", number) + digest[:8]
        new_nonce_hash = int.from_bytes(_sha1(text)[-16:], "little", signed=True)
        return bytes(kind(self._nonce, self._server_nonce, new_nonce_hash))

    # -- shared ----------------------------------------------------------------------------------

    def _check_nonces(self, message: Any) -> None:
        if not self._server_nonce or (message.nonce, message.server_nonce) != (
            self._nonce,
            self._server_nonce,
        ):
            raise HandshakeRefused("the nonces belong to another handshake")

    def _temporary_aes(self) -> tuple[bytes, bytes]:
        """Key and vector for the two encrypted halves of the Diffie-Hellman exchange."""
        server, new = self._server_nonce.to_bytes(16, "little", signed=True), self._new_nonce
        new_server, server_new = _sha1(new + server), _sha1(server + new)
        key = new_server + server_new[:12]
        return key, server_new[12:] + _sha1(new + new) + new[:4]


def _read_object(body: bytes, reader: Any = None) -> Any:
    try:
        return (reader or BinaryReader(body)).tgread_object()
    except (TypeNotFoundError, BufferError, struct.error, ValueError, RuntimeError) as error:
        raise HandshakeRefused("an unreadable message") from error


def _rsa_unpad(block: bytes) -> bytes | None:
    """The 192 bytes inside an RSA_PAD block, or None when it is not one.

    Source: core.telegram.org/mtproto/auth_key, section 4.1.
    """
    hidden_key, encrypted = block[:32], block[32:]
    temporary_key = _xor(hidden_key, hashlib.sha256(encrypted).digest())
    plain = AES.decrypt_ige(encrypted, temporary_key, bytes(32))
    data, digest = plain[:192][::-1], plain[192:]
    return data if hashlib.sha256(temporary_key + data).digest() == digest else None


def _key_pair() -> tuple[int, int]:
    while True:
        exponent = secrets.randbits(2048)
        g_a = pow(DH_GENERATOR, exponent, DH_PRIME)
        if DH_SAFETY <= g_a <= DH_PRIME - DH_SAFETY:
            return exponent, g_a


def _random_prime() -> int:
    while True:
        candidate = secrets.randbits(29) << 1 | 1 << 30 | 1
        if _is_prime(candidate):
            return candidate


def _is_prime(number: int) -> bool:
    """Miller-Rabin; these four bases decide for every number below 3,215,031,751."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7):
        power = pow(base, odd, number)
        if power not in (1, number - 1) and not any(
            (power := power * power % number) == number - 1 for _ in range(twos - 1)
        ):
            return False
    return True


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text).digest()  # noqa: S324 - the protocol asks for it
