"""Tokens: what the worker and the browser's cookie accept, HS256 with one shared secret."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import jwt

TOKEN_LIFETIME_S: Final = 3600
RENEWAL_LIFETIME_S: Final = 12 * 3600  # what the worker takes at most; longer than any evening
SESSION_LIFETIME_S: Final = 30 * 24 * 3600
# Thumbnail tokens of one quarter of an hour are the same text, so that the browser's cache knows
# the picture again; the youngest of them is still good for 45 minutes.
THUMBNAIL_TOKEN_STEP_S: Final = 900


_Read = TypeVar("_Read")


def read_with_any(secrets: Iterable[str], read: Callable[[str], _Read | None]) -> _Read | None:
    """What the first secret that can makes of something signed; None when none can."""
    return next((found for secret in secrets if (found := read(secret)) is not None), None)


def file_token(
    secret: str, chat_id: int, message_id: int, now: float, parts: Sequence[int] = ()
) -> str:
    """A token that opens this one file at the worker for an hour; `parts` are those of a split
    film behind its first, which are opened with it as one file."""
    return visitor_token(secret, chat_id, message_id, now, int(now) + TOKEN_LIFETIME_S, parts=parts)


def visitor_token(
    secret: str, chat_id: int, message_id: int, now: float, exp: int, parts: Sequence[int] = ()
) -> str:
    """A token that opens this one file until `exp`, at most an hour from `now`."""
    claims = {"iss": "backend", "aud": "worker", **_subject(chat_id, message_id, parts)}
    return jwt.encode({**claims, "iat": int(now), "exp": exp}, secret, "HS256")


def renewal_grant(
    secret: str, chat_id: int, message_id: int, exp: int, parts: Sequence[int] = ()
) -> str:
    """What the worker turns into fresh tokens for this one file until `exp`; opens no bytes."""
    claims = {"iss": "backend", "aud": "renewal", **_subject(chat_id, message_id, parts)}
    return jwt.encode({**claims, "exp": exp}, secret, "HS256")


def _subject(chat_id: int, message_id: int, parts: Sequence[int]) -> dict[str, Any]:
    subject = {"sub": f"{chat_id}/{message_id}"}
    return {**subject, "parts": list(parts)} if parts else subject


def listing_token(secret: str, chat_id: int, now: float) -> str:
    """A token that lists this one channel at the worker and opens no bytes."""
    return _worker_token(secret, now, sub=str(chat_id), scope="list")


def probe_token(secret: str, now: float) -> str:
    """A token that opens nothing: by its refusal a worker tells whether it knows the signature.

    In the middle of its hour, so that a clock that is off by less than half of one is no reason.
    """
    middle = now - TOKEN_LIFETIME_S / 2
    return _worker_token(secret, middle, sub="nothing")


def _worker_token(secret: str, now: float, **claims: str) -> str:
    issued_at = int(now)
    times = {"iat": issued_at, "exp": issued_at + TOKEN_LIFETIME_S}
    return jwt.encode({"iss": "backend", "aud": "worker", **claims, **times}, secret, "HS256")


def small_file_token(secret: str, chat_id: int, message_id: int, exp: int) -> str:
    """A token that opens this one file at the backend until `exp`; worthless at the worker."""
    claims = {"iss": "backend", "aud": "files", "sub": f"{chat_id}/{message_id}"}
    return jwt.encode({**claims, "exp": exp}, secret, "HS256")


def small_file_token_end(secret: str, chat_id: int, message_id: int, token: str) -> int | None:
    """Until when this token opens this file at the backend; None if it does not."""
    claims = _claims(secret, token, "files")
    if claims is None or claims["sub"] != f"{chat_id}/{message_id}":
        return None
    return int(claims["exp"])


def webhook_secret(secret: str, bot_token: str) -> str:
    """What Telegram shows with every update, so that nobody else can send us any.

    Letters and digits only, as core.telegram.org/bots/api#setwebhook wants it.
    """
    return hmac.new(secret.encode(), b"webhook\0" + bot_token.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Session:
    """What a cookie of ours says: which session, from when, until when."""

    id: str
    issued_at: int
    expires_at: int


def session_token(secret: str, password: str, now: float) -> str:
    """What the cookie holds after signing in. Another password makes it worthless."""
    issued_at = int(now)
    claims = {"iss": "backend", "aud": "gallery", "sub": _password_mark(secret, password)}
    times = {"iat": issued_at, "exp": issued_at + SESSION_LIFETIME_S}
    return jwt.encode({**claims, **times, "jti": secrets.token_urlsafe(9)}, secret, "HS256")


def read_session(secret: str, password: str, token: str) -> Session | None:
    """The session of this cookie; None if it was not given out for this password or has run out."""
    claims = _claims(secret, token, "gallery", "iat", "jti")
    if claims is None:
        return None
    if not hmac.compare_digest(str(claims["sub"]), _password_mark(secret, password)):
        return None
    return Session(str(claims["jti"]), int(claims["iat"]), int(claims["exp"]))


def _claims(secret: str, token: str, audience: str, *also: str) -> dict[str, Any] | None:
    """What a token of ours for this audience says, if it is one and has not run out."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            issuer="backend",
            audience=audience,
            options={"require": ["exp", "aud", "sub", *also]},
        )
    except (jwt.InvalidTokenError, UnicodeEncodeError):  # a cookie may hold any bytes
        return None
    return claims


def _password_mark(secret: str, password: str) -> str:
    """A keyed fingerprint, so that changing the password signs everybody out."""
    return hmac.new(secret.encode(), b"gallery\0" + password.encode(), hashlib.sha256).hexdigest()
