"""Real requests to a running worker: paths, ids, queries, tokens and headers in any combination.

Every request is made up together with what it may get, so an answer is not only looked at: bytes
come with a good token for that very file and with no other, and they are the file's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

import worker

from telegram_simulator.world import Document, Post

from .source import Check, Source, Target
from .stage import JWT_SECRET, Answer, Stage, as_head, check_answer, open_stage, token
from .worker_parsers import date_header, made_up_token, range_header

METHODS = ("GET", "GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "DELETE")
HEADERS = (
    *("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since"),
    *("If-Unmodified-Since", "Origin", "Accept", "Accept-Encoding", "User-Agent", "Cookie"),
    *("Access-Control-Request-Method", "Access-Control-Request-Headers", "X-Forwarded-For"),
    "Expect",
)
# aiohttp itself fails (500) on one that is no UTF-8, before any code of ours is asked.
EXPECTATIONS = ("100-continue", "", "nothing", "100-continue, more")
IDS = ("0", "1", "-1", "00", "2147483647", "2147483648", "9999999999", "-1009999999999", "%D9%A1")
SIGNATURE_CHARACTERS = 43  # of a JWT with HS256
STATUSES = {200, 204, 206, 304, 307, 400, 401, 403, 404, 405, 412, 416, 417}


@dataclass
class Wish:
    """A request, and what its token allows."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    tokens: list[str]
    post: Post | None = None  # the film that the path names
    opens: str = ""  # the subject that a good token was made for

    def written(self) -> bytes:
        query = "&".join(f"{name}={value}" for name, value in self.query)
        target = f"{self.path}?{query}" if query else self.path
        lines = [f"{self.method} {target} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return as_head(lines)


class Client:
    """Makes requests up, sends them, and judges the answers."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.posts = list(stage.channel.posts.values())

    def check(self, source: Source) -> None:
        """No request gets anything but what it may, and never an error of ours."""
        wish = self._wish(source)
        answer = self.stage.ask(
            self.stage.worker_port, wish.written(), is_head=wish.method == "HEAD"
        )
        signatures = (each.rpartition(".")[2] for each in wish.tokens)
        secrets = [each for each in signatures if len(each) == SIGNATURE_CHARACTERS]
        check_answer(self.stage, answer, (JWT_SECRET, *secrets))
        assert answer.status in STATUSES, answer
        if answer.version == "HTTP/1.1":
            assert answer.headers["access-control-allow-origin"] == "*"
        self._check_status(wish, answer)

    # -- making it up --------------------------------------------------------------------------

    def _wish(self, source: Source) -> Wish:
        kinds = ("stream", "stream", "stream", "thumbnail", "files", "health", "metrics", "odd")
        kind, post = source.pick(kinds), source.pick(self.posts)
        chat_id = source.pick((str(self.stage.channel.chat_id),) * 4 + (source.pick(IDS),))
        message_id = source.pick((str(post.id),) * 4 + (source.pick(IDS),))
        subject = chat_id if kind == "files" else f"{chat_id}/{message_id}"
        path = {
            "health": "/health",
            "metrics": "/metrics",
            "odd": f"/{quote(source.text(), safe='/:@!$*', errors='replace')}",
        }.get(kind, f"/{kind}/{subject}")
        wish = Wish(source.pick(METHODS), path, [], [], [])
        if kind == "stream" and source.pick((False, True)):
            wish.path += "/" + (quote(source.text(), safe="", errors="replace") or "x")
        if kind in ("stream", "thumbnail") and chat_id == str(self.stage.channel.chat_id):
            named = [each for each in self.posts if str(each.id) == message_id]
            wish.post = named[0] if named else None
        self._add_token(source, wish, subject, kind)
        for _ in range(source.number(0, 3)):
            self._add_query(source, wish)
        for _ in range(source.number(0, 3)):
            self._add_header(source, wish)
        return wish

    def _add_token(self, source: Source, wish: Wish, subject: str, kind: str) -> None:
        now = int(time.time())
        scope = "list" if kind == "files" else None
        quality = source.pick(("good", "good", "good", "expired", "foreign", "odd", "none"))
        if quality == "none":
            return
        if quality == "good":
            text, wish.opens = token(subject, scope=scope), subject
        elif quality == "expired":
            text = token(subject, scope=scope, iat=now - 7200, exp=now - 3600)
        elif quality == "foreign":
            text = token(f"{subject}0", scope=scope)
        else:
            text = made_up_token(source, ("worker", "renewal"))
        wish.tokens.append(text)
        if source.pick((True, True, False)):
            wish.query.append(("token", quote(text, safe="", errors="replace")))
        else:
            wish.headers.append((source.pick(("Authorization", "authorization")), f"Bearer {text}"))
        if quality == "expired" and source.pick((False, True)):
            times = {
                "iat": None,
                "exp": source.pick((now + 60, now + 43_200, now - 1, now + 90_000)),
            }
            grant = token(source.pick((subject, subject, "1/1")), aud="renewal", **times)
            wish.tokens.append(grant)
            wish.query.append(("renew", grant))

    def _add_query(self, source: Source, wish: Wish) -> None:
        name = source.pick(("token", "renew", "download", "after", "limit", "x", "%74oken"))
        value = source.pick(
            ("", "0", "1", "200", "-1", "201", "2147483648", "1e3", "%FF", "%ED%A0")
        )
        if source.pick((False, True)):
            value = quote(source.text(), safe="+;/?", errors="replace")
        if name in ("token", "%74oken"):
            wish.opens = ""  # two tokens open nothing, and an odd one of the two may be first
        wish.query.insert(source.number(0, len(wish.query)), (name, value))

    def _add_header(self, source: Source, wish: Wish) -> None:
        name = source.pick(HEADERS)
        value = source.text()
        if name == "Range":
            value = range_header(source)
        elif name == "Expect":
            value = source.pick(EXPECTATIONS)
        elif name.startswith("If-"):
            tag = f'"{source.number(0, 9)}"' if wish.post is None else _entity_tag(wish.post)
            value = source.pick((date_header(source), tag, f"W/{tag}", "*", f'"x", {tag}', value))
        wish.headers.append((name, value))

    # -- judging -------------------------------------------------------------------------------

    def _check_status(self, wish: Wish, answer: Answer) -> None:
        is_of_a_file = wish.path.startswith(("/stream/", "/thumbnail/", "/files/"))
        if answer.status in (200, 206, 304, 412, 416) and is_of_a_file and wish.opens == "":
            raise AssertionError(f"it opened without a good token: {answer.status}")
        if answer.status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
        if answer.status == 405:
            assert wish.method not in ("GET", "HEAD", "OPTIONS")
            assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
        if answer.status == 307:
            _check_renewal(wish, answer)
        if answer.is_json and answer.body:
            json.loads(answer.body, parse_constant=_no_json)
        media = wish.post.media if wish.post is not None else None
        if wish.path.startswith("/stream/") and isinstance(media, Document):
            _check_body(wish, answer, media)


def _no_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON, whatever Python says")


def _entity_tag(post: Post) -> str:
    media = post.media
    if not isinstance(media, Document):
        return '"none"'
    return f'"{media.id:x}-{media.content.size:x}"'


def _check_renewal(wish: Wish, answer: Answer) -> None:
    """A redirect leads to the same path of the same host, with a token that opens it."""
    location = urlsplit(answer.headers["location"])
    assert (location.scheme, location.netloc, location.path) == ("", "", wish.path)
    fresh = [value for name, value in parse_qsl(location.query) if name == "token"]
    assert len(fresh) == 1
    grant = worker.verify_token(fresh[0], (JWT_SECRET,), time.time())
    assert grant.scope == "file"
    assert wish.path.split("/", 2)[2].startswith(grant.subject)
    assert answer.headers["cache-control"] == "no-store"


_PART = re.compile(rb"\r\nContent-Range: bytes (\d+)-(\d+)/(\d+)\r\n\r\n")


def _check_body(wish: Wish, answer: Answer, media: Document) -> None:
    """The bytes are those of the file, at the place that the answer names."""
    size = media.content.size
    if answer.status == 416:
        assert answer.headers["content-range"] == f"bytes */{size}"
    if answer.status not in (200, 206):
        return
    assert answer.headers["etag"] == f'"{media.id:x}-{size:x}"'
    assert answer.headers["accept-ranges"] == "bytes"
    if wish.method == "HEAD":
        return
    if answer.status == 200:
        assert answer.body == media.content.read(0, size)
        return
    if answer.headers["content-type"].startswith("multipart/byteranges"):
        parts = list(_PART.finditer(answer.body))
        assert 1 < len(parts) <= worker.RANGES_MAX
        for part in parts:
            start, last = int(part[1]), int(part[2])
            wanted = media.content.read(start, last + 1 - start)
            assert answer.body[part.end() : part.end() + len(wanted)] == wanted
        return
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"])
    assert found, answer.headers
    start, last, complete = map(int, found.groups())
    assert 0 <= start <= last < complete == size
    assert answer.body == media.content.read(start, last + 1 - start)


@contextmanager
def worker_requests() -> Iterator[Check]:
    with open_stage() as stage:
        yield Client(stage).check


TARGETS = (
    Target(
        "worker_requests",
        worker_requests,
        words=(b"bytes=0-1", b"GMT", b"W/", b"%ff", b"\xff", b"token"),
        runs=800,
    ),
)
