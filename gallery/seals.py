"""Seals: a few bytes and what signs them, short enough for a link that people paste.

A sealed text is URL-safe base64 of packed values and an HMAC-SHA256 of them, cut to 136 bits
(RFC 2104 section 5 asks for 80 and half the hash). A JWT of the same would be five times as long.
"""

import base64
import hashlib
import hmac
import re
import struct
from typing import Any, Final

TAG_BYTES: Final = 17


class Seal:
    """Signs values of one form for one purpose.

    Each purpose has a key of its own, so that nothing else that the secret signs, JWTs among it,
    can pass for what this seals, nor back.
    """

    def __init__(self, purpose: bytes, form: str) -> None:
        """`form` is that of `struct`; with the tag it must come to a multiple of three bytes."""
        self._purpose = purpose
        self._body = struct.Struct(form)
        self.characters: Final = (self._body.size + TAG_BYTES) // 3 * 4
        self._text = re.compile(rf"[A-Za-z0-9_-]{{{self.characters}}}", re.ASCII)

    def write(self, secret: str, *values: Any) -> str:
        """These values as they stand in a URL; the same values are always the same text."""
        body = self._body.pack(*values)
        return base64.urlsafe_b64encode(body + self.tag(secret, body)).decode()

    def read(self, secret: str, text: str) -> tuple[Any, ...] | None:
        """The values this text stands for; None if this secret never signed it."""
        if not self._text.fullmatch(text):
            return None
        raw = base64.urlsafe_b64decode(text)
        body, tag = raw[: self._body.size], raw[self._body.size :]
        is_ours = hmac.compare_digest(tag, self.tag(secret, body))
        return self._body.unpack(body) if is_ours else None

    def tag(self, secret: str, body: bytes) -> bytes:
        """What signs these bytes."""
        key = hmac.digest(secret.encode(), self._purpose, hashlib.sha256)
        return hmac.digest(key, body, hashlib.sha256)[:TAG_BYTES]
