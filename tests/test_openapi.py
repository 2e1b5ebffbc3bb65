"""docs/openapi.yaml is true: what it describes both services answer, and nothing else.

Goal: every answer has a status, a type, headers and a body that the description has for it; no 5xx
but 502 and 503 (and 501 where oEmbed wants it); errors are the documented JSON and never cached.
Method: schemathesis asks real services on the pocket Telegram, over sockets, whatever the
description allows and forbids; part of the requests are given real ids and good tokens, so that the
answers to these are looked at too. `make fuzz` asks for longer.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import worker
import yaml
from aiohttp import web
from conftest import REPOSITORY
from hypothesis import settings as hypothesis_settings
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

import backend
from fuzz.stage import JWT_SECRET, PASSWORD, Stage, open_stage, token
from gallery import shares, tokens
from gallery.sign_in import COOKIE

DOCUMENT = REPOSITORY / "docs" / "openapi.yaml"
DESCRIPTION: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
METHODS = ("get", "head", "post", "put", "delete", "options", "patch", "trace")

# -- the list of operations ----------------------------------------------------------------------


def described(tag: str) -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, item in DESCRIPTION["paths"].items()
        for method in METHODS
        if tag in item.get(method, {}).get("tags", ())
    }


def plain(path: str) -> str:
    """A route's path without the patterns of its parameters."""
    while (shorter := re.sub(r"\{(\w+):(?:[^{}]|\{[^{}]*\})+\}", r"{\1}", path)) != path:
        path = shorter
    return path


def routed(routes: list[web.RouteDef]) -> set[tuple[str, str]]:
    return {(route.method, plain(route.path)) for route in routes}


def worker_routes() -> set[tuple[str, str]]:
    """Those in its table, and OPTIONS, which it answers on each of its paths."""
    routes = routed(worker.Worker.routes(object.__new__(worker.Worker)))
    return routes | {("OPTIONS", path) for _, path in routes}


@pytest.mark.parametrize(
    ("tag", "routes"),
    [("worker", worker_routes()), ("gallery", routed(backend.routes()))],
    ids=["worker", "gallery"],
)
def test_every_route_is_described_and_no_other(tag: str, routes: set[tuple[str, str]]) -> None:
    found = described(tag)
    if tag == "gallery":
        paths = DESCRIPTION["paths"]
        found |= {("PROPFIND", path) for path, item in paths.items() if "x-propfind" in item}
    # aiohttp answers HEAD wherever it answers GET; it is described where there are bytes behind it.
    heads = {(method, path) for method, path in found if method == "HEAD"}
    assert {path for _, path in heads} <= {path for method, path in routes if method == "GET"}
    both = {("OPTIONS", "/health")} if tag == "gallery" else set()
    assert found - heads == routes | (found & both)


def test_every_error_code_is_described() -> None:
    """By the code that the services' sources name."""
    sources = [REPOSITORY / "render-service-chunked.py", *(REPOSITORY / "gallery").glob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    codes = set(re.findall(r'(?:status, code = \d+|ApiError\(\s*\d+), "([a-z_]+)"', text))
    codes |= set(re.findall(r'code = "([a-z_]+)"', text))
    assert len(codes) > 30
    codes -= {"internal", "internal_error"}  # there must be none of these
    assert {code for code in codes if f"`{code}`" not in DOCUMENT.read_text()} == set()


# -- the services --------------------------------------------------------------------------------


class House:
    """The services, running in a thread of their own, and what opens their doors."""

    def __init__(self, stage: Stage) -> None:
        self.urls = {
            "worker": f"http://127.0.0.1:{stage.worker_port}",
            "open": f"http://127.0.0.1:{stage.gallery_port}",
            "locked": f"http://127.0.0.1:{stage.locked_port}",
        }
        self.chat_id = stage.channel.chat_id
        self.message_ids = list(stage.channel.posts)
        now = time.time()
        lifetimes = ((3600, now), (None, now), (60, now - 3600))
        self.shares = [
            shares.write_share(
                JWT_SECRET, shares.new_share(self.chat_id, post_id, lifetime_s, made)
            )
            for lifetime_s, made in lifetimes
            for post_id in (*self.message_ids, max(self.message_ids) + 1)
        ]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with open_stage() as stage:
        thread = threading.Thread(target=stage.loop.run_forever)
        thread.start()
        try:
            yield House(stage)
        finally:
            stage.loop.call_soon_threadsafe(stage.loop.stop)
            thread.join()


class Dice:
    """Choices that depend on the case alone, so that a failure comes again."""

    def __init__(self, case: Any) -> None:
        made = (case.path_parameters, case.query, case.headers, case.cookies, case.body)
        self._number = zlib.crc32(repr([str(part) for part in made]).encode("utf-8", "replace"))

    def pick(self, options: Sequence[Any]) -> Any:
        self._number = (self._number * 1103515245 + 12345) % 2**31
        return options[(self._number >> 16) % len(options)]


MOSTLY = (True, True, True, False)
STATIC_PATHS = ("gallery.css", "gallery.js", "0/gallery.css")
DAV_PATHS = ("", "Films", "Films/film.mp4", "Films/film.mp4", "Films/empty.mp4", "Films/odd.mp4")


def lend_ids(case: Any, house: House, dice: Dice) -> None:
    """Put what exists in the place of what was made up, mostly."""
    for name, real in (
        ("chat_id", house.chat_id),
        ("message_id", dice.pick(house.message_ids)),
        ("share", dice.pick(house.shares)),
        ("path", dice.pick(DAV_PATHS if case.path.startswith("/dav") else STATIC_PATHS)),
    ):
        if name in case.path_parameters and dice.pick(MOSTLY):
            case.path_parameters[name] = real
        if isinstance(case.body, dict) and name in case.body and dice.pick(MOSTLY):
            case.body[name] = real
    if case.path == "/oembed" and dice.pick(MOSTLY):
        door = dice.pick(("/v/", "/embed/", "/m3u/"))
        case.query["url"] = house.urls["open"] + door + dice.pick(house.shares)


CONDITIONS = {
    "Range": ("bytes=0-1", "bytes=-3", "bytes=0-1,5-6", "bytes=99999999-"),
    "If-Range": ('"x"', "Fri, 02 Jan 2026 03:04:05 GMT"),
    "If-Match": ("*", "*", "*", '"x"'),
    "If-None-Match": ('"x"', '"x"', "*"),
    "If-Modified-Since": ("Fri, 02 Jan 2026 03:04:05 GMT", "Fri, 02 Jan 2099 03:04:05 GMT"),
    "If-Unmodified-Since": ("Fri, 02 Jan 2099 03:04:05 GMT",),
}


def lend_conditions(case: Any, dice: Dice) -> None:
    for name, values in CONDITIONS.items():
        if name in case.headers and dice.pick(MOSTLY):
            case.headers[name] = dice.pick(values)


def lend_token(case: Any, dice: Dice, audience: str = "worker") -> None:
    """A token that opens what the path names, one that has expired with its grant, or what was
    made up."""
    ids = case.path_parameters
    subject = "/".join(str(ids[name]) for name in ("chat_id", "message_id") if name in ids)
    claims = {} if "message_id" in ids else {"scope": "list"}
    now = int(time.time())
    kind = dice.pick(("good", "good", "good", "renewal", "expired", "made up"))
    if kind == "good":
        case.query["token"] = token(subject, aud=audience, **claims)
    elif kind != "made up":
        times = {"iat": now - 7200, "exp": now - 3600}
        case.query["token"] = token(subject, aud=audience, **claims, **times)
        if kind == "renewal":
            case.query["renew"] = token(subject, aud="renewal", iat=None, exp=now + 3600)


# -- asking --------------------------------------------------------------------------------------

SCHEMA = schemathesis.openapi.from_path(DOCUMENT)
CHECKS = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


# Of each operation; on top of what schemathesis derives from the description without any chance.
FEWER = hypothesis_settings(max_examples=hypothesis_settings().max_examples // 4)


# HTTP's own, which say nothing of ours.
USUAL_HEADERS = {
    *("connection", "content-length", "content-type", "date", "server"),
    *("content-encoding", "transfer-encoding"),
}


def described_headers(case: Any, status: int) -> set[str] | None:
    """Those of the answer to this operation with this status; None where none is described."""
    description = case.operation.schema.raw_schema
    operation = description["paths"][case.path].get(case.method.lower(), {})
    answer = operation.get("responses", {}).get(str(status))
    if answer is not None and "$ref" in answer:
        answer = description["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return None if answer is None else {name.lower() for name in answer.get("headers", {})}


def ask(case: Any, url: str) -> None:
    response = case.call(base_url=url, allow_redirects=False, timeout=20)
    case.validate_response(response, checks=CHECKS)
    described = described_headers(case, response.status_code)
    if described is not None:
        sent = {name.lower() for name in response.headers}
        unknown = sent - described - USUAL_HEADERS
        assert not unknown, f"{case.method} {case.path}: headers without a description: {unknown}"
    # Nothing is wrong with this Telegram, so 502 and 503 would be as wrong as 500.
    is_wanted = response.status_code == 501 and case.path == "/oembed"
    assert response.status_code < 500 or is_wanted, response.content


def ask_the_worker(case: Any, house: House) -> None:
    dice = Dice(case)
    lend_ids(case, house, dice)
    lend_conditions(case, dice)
    if "chat_id" in case.path_parameters:
        lend_token(case, dice)
    ask(case, house.urls["worker"])


def ask_the_gallery(case: Any, house: House) -> None:
    dice = Dice(case)
    lend_ids(case, house, dice)
    lend_conditions(case, dice)
    if case.path.startswith("/files/") and dice.pick(MOSTLY):
        lend_token(case, dice, "files")
    door = dice.pick(("open", "locked", "locked"))
    if dice.pick(MOSTLY):
        case.headers.pop("Cookie", None)  # one that was made up would go before
        # A new one each time, since signing out ends it.
        case.cookies[COOKIE] = tokens.session_token(JWT_SECRET, PASSWORD, time.time())
    ask(case, house.urls[door])


def asking(method: str, path: str, ask_it: Callable[[Any, House], None]) -> Any:
    @SCHEMA.include(method=method, path=path).parametrize()
    @FEWER
    def test(case: Any, house: House) -> None:
        ask_it(case, house)

    return test


# Each operation in a test under a name of its own: schemathesis gives all operations of one test
# the same id, and of tests with the same id pytest-xdist runs one.
for _service, _ask in (("worker", ask_the_worker), ("gallery", ask_the_gallery)):
    for _method, _path in sorted(described(_service)):
        _slug = re.sub(r"\W+", "_", f"{_method} {_path}").strip("_").lower()
        globals()[f"test_{_service}_answers_as_described_{_slug}"] = asking(_method, _path, _ask)


def test_no_operation_is_left_out(request: pytest.FixtureRequest) -> None:
    ids = [item.nodeid for item in request.session.items if item.path == Path(__file__)]
    assert len(ids) == len(set(ids))
    is_whole = any("test_every_error_code" in each for each in ids)
    if is_whole:  # and not some tests by name
        asked = sum("_answers_as_described_" in each for each in ids)
        assert asked == len(described("worker")) + len(described("gallery"))


# -- that it would find something ----------------------------------------------------------------


def altered(change: Callable[[dict[str, Any]], object]) -> Any:
    """GET /health by a description with a lie in it."""
    description = deepcopy(DESCRIPTION)
    change(description["paths"]["/health"]["get"]["responses"])
    return schemathesis.openapi.from_dict(description)["/health"]["GET"].Case()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answers: answers.pop("200"), "Undocumented status code"),
        (lambda answers: answers["200"].update(content={"text/html": {}}), "Content-Type"),
        (lambda answers: answers["200"]["headers"].update(X={"required": True}), "header"),
        (lambda answers: answers["200"]["headers"].pop("Cache-Control"), "without a description"),
        (
            lambda answers: answers["200"]["content"]["application/json"].update(
                schema={"required": ["news"]}
            ),
            "violates schema",
        ),
    ],
    ids=["status", "type", "header", "unknown header", "body"],
)
def test_a_lie_in_the_description_is_found(
    change: Callable[[dict[str, Any]], object], said: str, house: House
) -> None:
    ask(altered(lambda answers: None), house.urls["worker"])
    with pytest.raises((FailureGroup, AssertionError), match=said):
        ask(altered(change), house.urls["worker"])
