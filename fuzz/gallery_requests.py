"""Real requests to a running gallery, with a password and without: no answer is an error of ours.

Whoever has no session and no link gets nothing of the channels; every error is the JSON that
docs/openapi.yaml describes, or a page for people, and is never cached.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlencode

from gallery import shares, tokens
from gallery.sign_in import COOKIE

from .gallery_parsers import made_up_cursor
from .source import Check, Source, Target, json_object, json_value
from .stage import JWT_SECRET, PASSWORD, Answer, Stage, as_head, check_answer, open_stage
from .worker_parsers import made_up_token, range_header
from .worker_requests import EXPECTATIONS

METHODS = ("GET", "GET", "GET", "HEAD", "OPTIONS", "PROPFIND", "POST", "DELETE", "PUT")
HEADERS = (
    *("Accept", "Range", "If-Range", "If-None-Match", "Cookie", "Origin", "Sec-Fetch-Site"),
    *("X-Forwarded-Proto", "X-Forwarded-For", "Host", "Content-Type", "Content-Encoding"),
    *("X-Telegram-Bot-Api-Secret-Token", "User-Agent", "Accept-Encoding", "Expect"),
    *("Depth", "Depth", "Authorization"),
)
VALUES = (
    *("text/html", "application/json", "same-origin", "cross-site", "https", "null", "*", "gzip"),
    *("[", "localhost", "127.0.0.1:99999", "evil.example", "[::1]", "a@b", "bytes=0-1", "deflate"),
    *("application/json; charset=utf-16", "application/json; charset=none", "text/plain"),
    *("0", "1", "infinity", "Basic eDp5"),
)
QUERIES = (
    *(
        "query",
        "kind",
        "channel",
        "sort",
        "cursor",
        "attempt",
        "portable",
        "download",
        "v",
        "token",
    ),
    *("url", "format", "maxwidth", "maxheight", "next"),
)
ORDER = {"chat_id": 0, "message_id": 2, "expires_in_s": 3600}
BODY_MAX_BYTES = 20_000


class Client:
    """Makes requests up, sends them, and judges the answers."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.chat_id = stage.channel.chat_id
        self.message_ids = [str(post_id) for post_id in stage.channel.posts]
        self.shares = {
            name: shares.write_share(JWT_SECRET, shares.new_share(self.chat_id, 2, lifetime_s, now))
            for name, lifetime_s, now in (
                ("good", 3600, time.time()),
                ("eternal", None, time.time()),
                ("ended", 60, time.time() - 7200),
            )
        }
        self.session = tokens.session_token(JWT_SECRET, PASSWORD, time.time())

    def check(self, source: Source) -> None:
        """Only the signed-in see the channels; nobody sees an error of ours."""
        is_locked, is_signed_in = source.pick((False, True)), source.pick((True, True, False))
        method, path = source.pick(METHODS), self._path(source)
        headers = [self._header(source) for _ in range(source.number(0, 3))]
        if is_locked and is_signed_in:
            headers.append(("Cookie", f"{COOKIE}={self.session}"))
        body = self._body(source, headers) if method in ("POST", "PUT") else b""
        port = self.stage.locked_port if is_locked else self.stage.gallery_port
        request = written(method, path, headers, body)
        answer = self.stage.ask(port, request, is_head=method == "HEAD")
        secrets = (JWT_SECRET, PASSWORD, self.session, *self.shares.values())
        check_answer(self.stage, answer, secrets)
        assert answer.status != 501 or path.startswith("/oembed"), answer
        is_html = answer.headers.get("content-type", "").startswith("text/html")
        if answer.status >= 400 and answer.version == "HTTP/1.1" and method != "HEAD":
            assert answer.is_json or is_html or answer.status == 417, answer
        self._check_secrecy(answer, path, is_locked and not is_signed_in)

    def _check_secrecy(self, answer: Answer, path: str, is_stranger: bool) -> None:
        assert JWT_SECRET.encode() not in answer.body
        assert self.stage.bot.token.partition(":")[2].encode() not in answer.body
        has_link = path.startswith(("/v/", "/embed/", "/m3u/", "/oembed", "/api/share/"))
        if is_stranger and not has_link:
            assert b"film.mp4" not in answer.body, answer

    # -- making it up --------------------------------------------------------------------------

    def _path(self, source: Source) -> str:
        ids = "/".join(
            (
                source.pick((str(self.chat_id), str(self.chat_id), "-1", "9" * 20, "%D9%A1")),
                source.pick((*self.message_ids, "0", "2147483648", "9999999999")),
            )
        )
        share = source.pick((*self.shares.values(), "x", source.text()))
        share = quote(share, safe="", errors="replace")
        odd = quote(source.text(), safe="/:@!$*", errors="replace")
        path = source.pick(
            (
                *("/", "/api/files", "/api/files", "/api/channels", "/api/shares", "/health"),
                *(
                    f"/api/files/{ids}",
                    f"/api/files/{ids}/url",
                    f"/files/{ids}",
                    f"/files/{ids}/{odd}",
                ),
                *(f"/v/{share}", f"/v/{share}/poster", f"/embed/{share}", f"/m3u/{share}"),
                *(f"/api/share/{share}/url", f"/api/shares/{share}", "/oembed", "/oembed"),
                *("/sign-in", "/sign-in", "/sign-out", "/telegram/webhook", "/service-worker.js"),
                *(f"/api/files/{ids}/subtitles", f"/subtitles/{ids}.vtt", f"/v/{share}/subtitles"),
                *(
                    "/dav/",
                    "/dav/Films/",
                    "/dav/Films/film.mp4",
                    f"/dav/{odd}",
                    f"/dav/Films/{odd}",
                ),
                *("/playlist.m3u", "/export.zip"),
                *(f"/static/{odd}", f"/{odd}"),
            )
        )
        queries = [self._query(source) for _ in range(source.number(0, 3))]
        return f"{path}?{'&'.join(queries)}" if queries else path

    def _query(self, source: Source) -> str:
        name = source.pick(QUERIES)
        special = {
            "cursor": lambda: made_up_cursor(source, source.pick(("newest", "name"))),
            "token": lambda: made_up_token(source, ("files", "worker")),
            "url": lambda: "http://127.0.0.1" + source.pick(("/v/", "/embed/", "")) + source.text(),
            "next": lambda: "/" + source.text(),
        }
        usual = (
            "video",
            "name",
            "newest",
            "1",
            "0",
            "json",
            "xml",
            "640",
            str(self.chat_id),
            "%ED",
        )
        value = source.pick((source.text(), source.pick(usual)))
        if name in special and source.pick((True, True, False)):
            value = special[name]()
        return urlencode({name: value}, errors="replace")

    def _header(self, source: Source) -> tuple[str, str]:
        name = source.pick(HEADERS)
        if name == "Range":
            return name, range_header(source)
        if name == "Expect":
            return name, source.pick(EXPECTATIONS)
        if name == "Cookie":
            return name, f"{COOKIE}={made_up_token(source, ('gallery',))}"
        return name, source.pick((source.text(), source.pick(VALUES)))

    def _body(self, source: Source, headers: list[tuple[str, str]]) -> bytes:
        kind = source.pick(("order", "order", "json", "form", "noise", "long"))
        if kind in ("order", "json"):
            headers.append(("Content-Type", "application/json"))
            order = json_object(source, tuple(ORDER), {**ORDER, "chat_id": self.chat_id})
            return json.dumps(order if kind == "order" else json_value(source)).encode()
        if kind == "form":
            form = {"password": source.pick((source.text(), PASSWORD)), "x": source.text()}
            return urlencode(form, errors="replace").encode()
        return bytes(BODY_MAX_BYTES) if kind == "long" else source.piece()


def written(method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    named = {"Host": "127.0.0.1"} | dict(headers)
    if body:
        named["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return as_head(lines) + body


@contextmanager
def gallery_requests() -> Iterator[Check]:
    with open_stage() as stage:
        yield Client(stage).check


TARGETS = (
    Target(
        "gallery_requests",
        gallery_requests,
        words=(b"[", b"gzip", b"charset", b"%ed", b"\xff", b"..", b"//"),
        runs=1000,
    ),
)
