"""Shares: links that open one file to whoever holds them, signed so that no database is needed.

A share is 56 characters: a sealed random id (9 bytes, so that the first 12 characters are the id),
the chat (8), the message (4) and the end in Unix seconds (4, zero for never).
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gallery.seals import Seal

DEFAULT_LIFETIME_S: Final = 7 * 24 * 3600
LIFETIME_MIN_S: Final = 60
LIFETIME_MAX_S: Final = 10 * 365 * 24 * 3600  # beyond that say "never"; the end must fit 32 bits
ID_CHARACTERS: Final = 12
LASTING_IDS_MAX: Final = 1000

SEAL: Final = Seal(b"rangegram share link, version 1", ">9sqII")
SHARE_CHARACTERS: Final = SEAL.characters
_LASTING_PURPOSE: Final = b"rangegram lasting share, version 1"


@dataclass(frozen=True)
class Share:
    """What a share link says: which file, and until when (None: until it is revoked)."""

    id: str
    chat_id: int
    message_id: int
    expires_at: int | None

    def has_ended(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True)
class Links:
    """Every address of one share, below the gallery's own."""

    base: str
    share: str

    @property
    def is_secure(self) -> bool:
        return self.base.startswith("https://")

    @property
    def url(self) -> str:
        return f"{self.base}/v/{self.share}"

    @property
    def poster_url(self) -> str:
        return f"{self.url}/poster"

    @property
    def watch_url(self) -> str:
        return f"{self.base}/watch/{self.share}"

    @property
    def embed_url(self) -> str:
        return f"{self.base}/embed/{self.share}"

    @property
    def m3u_url(self) -> str:
        return f"{self.base}/m3u/{self.share}"


def new_share(chat_id: int, message_id: int, lifetime_s: int | None, now: float) -> Share:
    """A share of this file with an id of its own."""
    share_id = secrets.token_urlsafe(9)
    expires_at = None if lifetime_s is None else int(now) + lifetime_s
    return Share(share_id, chat_id, message_id, expires_at)


def lasting_ids(secret: str, purpose: str) -> Iterator[str]:
    """The ids of what is made again and again, such as a playlist: always the same, in this order.

    The first that was not revoked is taken, so that what was made before goes on.
    """
    key = hmac.digest(secret.encode(), _LASTING_PURPOSE, hashlib.sha256)
    for number in range(LASTING_IDS_MAX):
        digest = hmac.digest(key, f"{purpose}\0{number}".encode(), hashlib.sha256)
        yield base64.urlsafe_b64encode(digest[:9]).decode()


def write_share(secret: str, share: Share) -> str:
    """The share as it stands in a URL; the same share is always the same text."""
    identity = base64.urlsafe_b64decode(share.id)
    return SEAL.write(secret, identity, share.chat_id, share.message_id, share.expires_at or 0)


def read_share(secret: str, text: str) -> Share | None:
    """The share this text stands for, whether ended or not; None if we never signed it."""
    values = SEAL.read(secret, text)
    if values is None:
        return None
    _, chat_id, message_id, expires_at = values
    return Share(text[:ID_CHARACTERS], chat_id, message_id, expires_at or None)
