"""Sections 3, 4 and 6 of the worker: what it makes of headers, tokens and names."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import worker

from gallery import http_file

from .source import Source, Target, json_object, json_value

SECRET = "a secret of the fuzzers, long enough"
NOW = 1_800_000_000.5
SUBJECT = "-1001500000001/2"
MODIFIED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FILE = worker.RemoteFile(-100, 1, 0xABC, "", 2, 1000, "video/mp4", "film.mp4", MODIFIED)


# -- ranges and conditions -----------------------------------------------------------------------

_RANGE_MARKS = ("0", "1", "999", "1000", "18446744073709551616", "-", "-", ",", " ", "=", "\t", ";")


def range_header(source: Source) -> str:
    """A Range header, mostly one that is nearly right."""
    if source.pick((False, False, False, True)):
        return source.text()
    marks = (source.pick(_RANGE_MARKS) for _ in range(source.number(1, 40)))
    return source.pick(("bytes=", "Bytes =", "items=")) + "".join(marks)


def check_worker_ranges(source: Source) -> None:
    """Ranges lie within the file, apart from each other, and mean the same when written anew."""
    header, size = range_header(source), source.pick((1000, source.number(0, 1 << 45)))
    try:
        ranges = worker.parse_range(header, size)
    except worker.RangeNotSatisfiable as error:
        refusal = error
    else:
        _check_ranges(ranges, size)
        return
    assert refusal.complete_length == size


def _check_ranges(ranges: tuple[worker.ByteRange, ...], size: int) -> None:
    assert len(ranges) <= worker.RANGES_MAX
    assert all(0 <= each.start < each.stop <= size for each in ranges)
    in_order = sorted(ranges, key=lambda each: each.start)
    assert all(left.stop <= right.start for left, right in pairwise(in_order))
    if ranges:
        anew = ",".join(f"{each.start}-{each.stop - 1}" for each in ranges)
        assert worker.parse_range(f"bytes={anew}", size) == ranges
        written = worker.content_range(ranges[0], size)
        assert re.fullmatch(r"bytes [0-9]+-[0-9]+/[0-9]+", written)


_PLAIN_RANGE = re.compile(r"bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")


def check_gallery_ranges(source: Source) -> None:
    """The gallery's range lies within the file; of a header of the usual form the worker's too."""
    header, size = range_header(source), source.pick((1000, source.number(0, 20 << 20)))
    try:
        found = http_file.parse_range(header, size)
    except http_file.RangeNotSatisfiableError:
        found = None
        is_satisfiable = False
    else:
        is_satisfiable = True
    if found is not None:
        assert 0 <= found.start < found.stop <= size
    if _PLAIN_RANGE.fullmatch(header):
        try:
            others = worker.parse_range(header, size)
        except worker.RangeNotSatisfiable:
            assert not is_satisfiable
            return
        assert is_satisfiable
        assert [(each.start, each.stop) for each in others] == (
            [(found.start, found.stop)] if found else []
        )
    tag = http_file.entity_tag(source.text().encode("utf-8", "replace").decode(), size)
    headers = {"Range": header, "If-Range": source.pick((tag, f"W/{tag}", source.text()))}
    try:
        wanted = http_file.requested_range(headers, tag, size)
    except http_file.RangeNotSatisfiableError:
        return
    assert wanted is None or headers["If-Range"] == tag
    assert http_file.is_known({"If-None-Match": f'"x", W/{tag}'}, tag)
    assert http_file.is_known({"If-None-Match": source.text()}, tag) in (True, False)


_DATE_MARKS = (
    *("Fri, ", "Sat", ",", " ", "02 ", "31", "Jan ", "Feb", "2026 ", "0000", "9999", "99"),
    *("03:04:05", "23:59:60", "::", ":", "-", " GMT", " -0000", " +0000", "+2359", "-9999", "("),
)


def date_header(source: Source) -> str:
    """An HTTP date, or what is left of one."""
    kind = source.pick(("text", "marks", "marks", "date"))
    if kind == "text":
        return source.text()
    if kind == "date":
        return format_datetime(MODIFIED, usegmt=True)
    return "".join(source.pick(_DATE_MARKS) for _ in range(source.number(1, 12)))


def tag_header(source: Source) -> str:
    """A list of entity tags, ours among them or not."""
    marks = (FILE.entity_tag, '"x"', '"', "W/", "*", ",", " ", source.text())
    return "".join(source.pick(marks) for _ in range(source.number(0, 8)))


def check_worker_conditions(source: Source) -> None:
    """Conditions give yes, no or 412; dates that are none are ignored; a known tag is known."""
    date = worker._parse_date(date_header(source))
    if date is not None:
        assert date.tzinfo is not None
        assert (date == MODIFIED) + (date < MODIFIED) + (date > MODIFIED) == 1
    headers = {
        str(name): date_header(source) if name.endswith("-Since") else tag_header(source)
        for name in worker.CONDITIONAL_HEADERS
        if source.pick((False, True))
    }
    try:
        assert worker.check_preconditions(headers, FILE) in (True, False)
        known = {**headers, "If-None-Match": f'"x", {FILE.entity_tag}'}
        assert worker.check_preconditions(known, FILE) is False
    except worker.PreconditionFailed:
        assert {"If-Match", "If-Unmodified-Since"} & set(headers)
    if_range = source.pick((tag_header(source), date_header(source)))
    if worker.range_applies(if_range, FILE) and '"' in if_range:
        assert if_range == FILE.entity_tag


# -- tokens --------------------------------------------------------------------------------------

CLAIMS = ("iss", "aud", "sub", "iat", "exp", "nbf", "jti", "scope")
_TIMES = tuple(int(NOW) + step for step in (-7200, -1, 0, 1, 3600, 3601, 43_200, 86_400))


def encoded(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")


def signed(header: Any, claims: Any, secret: str = SECRET) -> str:
    """A token with a good signature over anything at all."""
    body = f"{encoded(header)}.{encoded(claims)}"
    signature = hmac.digest(secret.encode(), body.encode(), hashlib.sha256)
    return f"{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def made_up_token(source: Source, audiences: tuple[str, ...]) -> str:
    """Text that is no token, or a token signed with our secret over odd claims."""
    if source.pick((False, False, False, True)):
        return source.pick((source.text(), ".".join(source.text() for _ in range(3))))
    usual = {
        "iss": "backend",
        "aud": source.pick(audiences),
        "sub": SUBJECT,
        "iat": source.pick(_TIMES),
        "exp": source.pick(_TIMES),
    }
    claims: Any = json_object(source, CLAIMS, usual)
    if source.pick((False,) * 7 + (True,)):
        claims = source.pick((json_value(source), source.text()))
    header = {"alg": "HS256", "typ": "JWT"}
    if source.pick((False,) * 7 + (True,)):
        header = json_object(source, ("alg", "typ", "crit", "b64", "kid"), header)
    token = signed(header, claims)
    return token[: -source.number(1, 3)] if source.pick((False,) * 7 + (True,)) else token


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def check_worker_tokens(source: Source) -> None:
    """What is granted was signed by us, for the worker, and is good now and for an hour at most."""
    token = made_up_token(source, ("worker", "worker", "renewal", "gallery", "files"))
    try:
        grant = worker.verify_token(token, (SECRET,), NOW)
    except (worker.TokenInvalid, worker.TokenExpired):
        pass
    else:
        claims = claims_of(token)
        assert (claims["iss"], claims["aud"], claims["sub"]) == ("backend", "worker", grant.subject)
        assert claims.get("scope", "file") == grant.scope
        assert math.isfinite(claims["exp"])
        assert NOW < claims["exp"] <= NOW + worker.TOKEN_LIFETIME_S + worker.CLOCK_SKEW_S
        assert claims["exp"] - claims["iat"] <= worker.TOKEN_LIFETIME_S
    renewal = made_up_token(source, ("renewal", "renewal", "worker"))
    try:
        fresh = worker.renewed_token(renewal, SUBJECT, (SECRET,), NOW)
    except (worker.TokenInvalid, worker.TokenExpired, worker.NotAllowed):
        return
    claims = claims_of(renewal)
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("backend", "renewal", SUBJECT)
    assert worker.verify_token(fresh, (SECRET,), NOW) == worker.Grant(SUBJECT, "file")
    assert claims_of(fresh)["exp"] <= claims["exp"]


# -- names ---------------------------------------------------------------------------------------

_DISPOSITION = re.compile(
    r'(inline|attachment); filename="([ !#-\[\]-~]*)"(?:; filename\*=UTF-8\'\'([\w.%~-]+))?',
    re.ASCII,
)


def check_file_names(source: Source) -> None:
    """Any name fits into a header, says the same to old and new browsers, in both services."""
    name, as_download = source.text(), source.pick((False, True))
    header = worker.content_disposition(name, attachment=as_download)
    assert header == http_file.content_disposition(name, as_download)
    found = _DISPOSITION.fullmatch(header)
    assert found, header
    kind, plain, extended = found.groups()
    assert kind == ("attachment" if as_download else "inline")
    shown = plain if extended is None else unquote(extended, errors="strict")
    assert shown.isprintable()
    assert not set(shown) & set("/\\")
    assert len(plain) == len(shown)
    assert worker.content_disposition(shown, attachment=as_download) == header
    mime_type = worker.mime_type_of(source.text(), name)
    assert re.fullmatch(r"[!-~]+/[!-~]+", mime_type)
    assert mime_type == mime_type.lower()


_JWT_WORDS = (b'{"', b"HS256", b"none", b"backend", b"worker", b"renewal", b"list", b"eyJ")

TARGETS = (
    Target.of(check_worker_ranges, words=(b"bytes=", b"-", b",", b"0-0")),
    Target.of(check_gallery_ranges, words=(b"bytes=", b"-", b'W/"', b'"')),
    Target.of(
        check_worker_conditions, words=(b'W/"', b" GMT", b"Jan", b"Fri, ", b"+0000"), runs=30_000
    ),
    Target.of(check_worker_tokens, words=_JWT_WORDS, runs=6000),
    Target.of(check_file_names, words=(b"\xe2\x80\xae", b'"', b"\\", b"%", b"\r\n", b"\xed")),
)
