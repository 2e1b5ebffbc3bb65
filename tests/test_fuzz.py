"""Nonsense of every kind into every parser of strangers' input, and into both services as a whole.

Goal: no input raises what its caller does not expect, breaks a limit, opens what it must not, or
gets an answer of 5xx. Method: the targets of fuzz/, each checked with values that hypothesis makes
up, and with inputs that atheris finds its way by; fixed seeds, so that a failure comes again.
`make fuzz` does the same for longer, with other seeds. What they found once stands at the end.
"""

from __future__ import annotations

import base64
import functools
import gzip
import importlib
import inspect
import json
import re
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import worker
from conftest import REPOSITORY
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from telethon.extensions import BinaryReader
from telethon.tl import TLObject
from telethon.tl.core import GzipPacked

from fuzz import engine, worker_parsers, worker_wire
from fuzz.gallery_parsers import CHAT_ID
from fuzz.source import Check, Cuts
from fuzz.stage import Answer, Stage, open_stage, token
from fuzz.targets import TARGETS
from gallery import search
from gallery.errors import ApiError
from telegram_simulator import session

Option = TypeVar("Option")

# What has a meaning to somebody, half characters among it; by chance it would come too seldom.
MARKS = st.sampled_from('\0\t\r\n "%&+,./:;=?[\\_é…\u0661\u202e\ud800\udcff\udfff')
ANY_TEXT = st.one_of(
    st.text(max_size=100),
    st.lists(MARKS, max_size=20).map("".join),
    st.lists(MARKS | st.text(max_size=5), max_size=20).map("".join),
)
THOROUGHLY = hypothesis_settings(max_examples=4 * hypothesis_settings().max_examples)
NEEDS_ATHERIS = pytest.mark.skipif(
    not engine.is_here(), reason="atheris has releases for CPython on Linux and x86-64 only"
)


class Drawn:
    """A source of values that hypothesis makes up, and makes smaller when they fail."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def number(self, least: int, most: int) -> int:
        return self._data.draw(st.integers(least, most))

    def pick(self, options: Sequence[Option]) -> Option:
        return self._data.draw(st.sampled_from(options))

    def piece(self) -> bytes:
        return self._data.draw(st.binary(max_size=255))

    def text(self) -> str:
        return self._data.draw(ANY_TEXT)


@pytest.fixture(scope="module")
def check(request: pytest.FixtureRequest) -> Iterator[Check]:
    """The check of one target, with its stage."""
    with TARGETS[request.param].start() as check:
        yield check


@pytest.mark.parametrize("check", TARGETS, indirect=True)
@THOROUGHLY
@given(data=st.data())
def test_whatever_is_made_up_what_must_hold_holds(check: Check, data: st.DataObject) -> None:
    check(Drawn(data))


# -- atheris -------------------------------------------------------------------------------------


def run_fuzz(*arguments: str, timeout_s: int = 280) -> subprocess.CompletedProcess[str]:
    """`python -m fuzz` as `make fuzz` runs it; it wants a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        cwd=REPOSITORY,
        env={"PYTHONPATH": "tests", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


@pytest.fixture(scope="module")
def brief_report(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = run_fuzz("--briefly", f"--folder={tmp_path_factory.mktemp('fuzz')}")
    return done.stdout + done.stderr


@NEEDS_ATHERIS
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing(name: str, brief_report: str) -> None:
    line = re.search(rf"^atheris +{name} +([0-9,]+) inputs, ([0-9]+) places +(.*)$",
                     brief_report, re.MULTILINE)  # fmt: skip
    assert line, brief_report
    runs, places, verdict = line.groups()
    assert verdict == "nothing found", brief_report
    assert int(runs.replace(",", "")) >= TARGETS[name].runs
    assert int(places) > 5  # it sees where its inputs lead


# -- that they would find something --------------------------------------------------------------

# One slip each, of the kind that is made: in what, what was there, what is there now; and as what
# the target of that name must notice it.
SLIPS = {
    "worker_ranges": (
        *("worker:_parse_range_spec", "min(_clamped_int(last) + 1, complete_length)"),
        *("_clamped_int(last) + 1", AssertionError),
    ),
    "worker_wire": (
        *("worker:_Wire._take_packet", "length * 4 > PACKET_MAX_BYTES or "),
        *("", AssertionError),
    ),
    "gallery_search": (
        *("gallery.search:read_cursor", "str(value).encode()"),
        *("str(value)", UnicodeEncodeError),
    ),
    "simulator_framing": (
        *("telegram_simulator.transport:Full.read", "< self.OVERHEAD_BYTES"),
        *("< 4", struct.error),
    ),
}


def slip(place: str, old: str, new: str) -> tuple[Any, str, Any]:
    """The owner of a function, its name there, and the function with a slip in it."""
    module_name, _, path = place.partition(":")
    module = importlib.import_module(module_name)
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, module)
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1
    names = dict(function.__globals__)
    exec(source.replace(old, new), names)  # noqa: S102 - our own source
    return owner, name, names[name]


BROKEN = """
import functools, importlib, inspect, json, sys, textwrap
from pathlib import Path
from typing import Any
from fuzz import engine
{slip}
targets = engine.load_targets()
for target, *change in json.loads(sys.argv[1]):
    owner, name, broken = slip(*change)
    whole = getattr(owner, name)
    setattr(owner, name, broken)
    found = engine.fuzz(targets[target], Path(sys.argv[2]), seed=1, seconds_each=None)
    print(target, found.input and found.input.name, found.problem)
    setattr(owner, name, whole)
"""


@pytest.fixture(scope="module")
def report_on_slips(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("slips")
    script = folder / "broken.py"
    script.write_text(BROKEN.format(slip=inspect.getsource(slip)))
    changes = json.dumps([[name, *change] for name, (*change, _) in SLIPS.items()])
    done = subprocess.run(
        [sys.executable, str(script), changes, str(folder / "fuzz")],
        env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@NEEDS_ATHERIS
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SLIPS)
def test_atheris_finds_a_slip(name: str, report_on_slips: str) -> None:
    error = SLIPS[name][-1]
    found = rf"^{name} crash-\w+ ([a-z]+\.)?{error.__name__}: "
    assert re.search(found, report_on_slips, re.MULTILINE), report_on_slips


@pytest.mark.parametrize("name", SLIPS)
def test_hypothesis_finds_a_slip(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *change, error = SLIPS[name]
    monkeypatch.setattr(*slip(*change))

    @hypothesis_settings(max_examples=5000, phases=[Phase.generate], report_multiple_bugs=False)
    @given(st.data())
    def what_must_hold(data: st.DataObject) -> None:
        check(Drawn(data))

    with TARGETS[name].start() as check, pytest.raises(error):
        what_must_hold()


def test_there_is_no_target_of_that_name() -> None:
    done = run_fuzz("--replay", "pyproject.toml", "no_such_target")
    assert done.returncode == 2
    assert "worker_ranges" in done.stdout


def test_an_input_is_run_once_more(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"\0\1bytes=0-1")
    done = run_fuzz("--replay", str(tmp_path / "input"), "worker_ranges")
    assert (done.returncode, done.stdout) == (0, "this input is well now\n")


def test_values_are_cut_from_the_front_and_then_come_zeros() -> None:
    cuts = Cuts(b"\x03abc\x05\xff\x01\x02")
    assert cuts.piece() == b"abc"
    assert cuts.number(10, 19) == 15
    assert cuts.pick("abcd") == "d"
    assert cuts.number(0, 70_000) == 0x0201
    assert (cuts.piece(), cuts.text(), cuts.number(-5, 5)) == (b"", "", -5)


# -- what was found, once each -------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> Iterator[Stage]:
    with open_stage() as stage:
        yield stage


def asked(stage: Stage, port: int, head: str, body: bytes = b"") -> Answer:
    request = head.replace("\n", "\r\n").encode("utf-8", "surrogateescape")
    answer = stage.ask(port, request + b"\r\n\r\n" + body)
    assert stage.log is not None
    text, has_failure = stage.log.taken()
    assert not has_failure, text
    return answer


def test_a_range_that_is_no_text_is_passed_over(services: Stage) -> None:
    """It was to be written into the log, and the answer was 500."""
    path = f"/stream/{services.channel.chat_id}/2"
    head = f"GET {path}?token={token(path[8:])} HTTP/1.1\nHost: x\nRange: bytes=\udcff"
    assert asked(services, services.worker_port, head).status == 200
    head = "GET /health HTTP/1.1\nHost: x\nRange: \udcff"
    assert asked(services, services.worker_port, head).status == 200


def test_a_listing_is_json_whatever_an_uploader_has_measured(services: Stage) -> None:
    """A film of NaN seconds made it unreadable to all but Python."""
    chat_id = services.channel.chat_id
    path = f"/files/{chat_id}?token={token(str(chat_id), scope='list')}"
    answer = asked(services, services.worker_port, f"GET {path} HTTP/1.1\nHost: x")
    listed = json.loads(answer.body, parse_constant=pytest.fail)["files"]
    assert [file["duration"] for file in listed if file["name"] == "odd.mp4"] == [0]


@pytest.mark.parametrize("service", ["worker", "gallery"])
def test_an_unknown_expectation_is_refused_and_not_cached(services: Stage, service: str) -> None:
    port = services.worker_port if service == "worker" else services.gallery_port
    answer = asked(services, port, "GET /health HTTP/1.1\nHost: 127.0.0.1\nExpect: miracles")
    assert (answer.status, answer.headers["cache-control"]) == (417, "no-store")


@pytest.mark.parametrize("host", ["[", "]", "[::1", "\u2100"])
def test_a_host_that_is_none_is_a_foreign_one(services: Stage, host: str) -> None:
    head = f"GET /health HTTP/1.1\nHost: {host}"
    answer = asked(services, services.gallery_port, head)
    assert (answer.status, answer.error_code()) == (403, "foreign_host")


def test_an_order_that_is_not_packed_as_it_says_is_bad(services: Stage) -> None:
    head = (
        "POST /api/shares HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 3\n"
        "Content-Type: application/json\nContent-Encoding: gzip"
    )
    answer = asked(services, services.gallery_port, head, b"abc")
    assert (answer.status, answer.error_code()) == (400, "bad_order")


@pytest.mark.parametrize(
    "fields",
    [
        ["newest", 10**400, 3, CHAT_ID],
        ["newest", 1, 10**400, CHAT_ID],
        ["newest", float("nan"), 3, CHAT_ID],
        ["longest", float("-inf"), 3, CHAT_ID],
        ["name", "\ud800", 3, CHAT_ID],
    ],
    ids=["huge value", "huge id", "NaN", "infinity", "half a character"],
)
def test_no_cursor_brings_the_database_to_fail(fields: list[Any]) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
    with pytest.raises(ApiError) as refusal:
        search.read_cursor(fields[0], cursor)
    assert (refusal.value.status, refusal.value.code) == (400, "bad_cursor")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("claim", ["exp", "iat"])
def test_no_token_is_good_for_ever(claim: str, odd: float) -> None:
    """Python's JSON knows NaN, and nothing is later than that."""
    now = time.time()
    usual = {"iss": "backend", "sub": "1/2", "iat": now, "exp": now + 60, claim: odd}
    signed = worker_parsers.signed({"alg": "HS256"}, {**usual, "aud": "worker"})
    with pytest.raises(worker.TokenInvalid):
        worker.verify_token(signed, (worker_parsers.SECRET,), now)
    if claim == "exp":
        grant = worker_parsers.signed({"alg": "HS256"}, {**usual, "aud": "renewal"})
        with pytest.raises(worker.TokenInvalid):
            worker.renewed_token(grant, "1/2", (worker_parsers.SECRET,), now)


def test_a_chunk_that_names_more_bytes_than_came_is_no_chunk() -> None:
    line = worker_wire.Line(has_key=True)
    answer = bytearray(worker_wire._file_answer(Cuts(bytes([11]))))
    place = worker.FILE_HEADER.size - 3
    named = int.from_bytes(answer[place : place + 3], "little")
    assert worker.PIECE_BYTES < named < len(answer)
    answer[place : place + 3] = (named + 100_000).to_bytes(3, "little")
    line.feed(worker_wire.sealed(bytes(answer), 0), Cuts(b"\0\7"))
    (packet,) = line.received()
    result = line.state.decrypt_message_data(packet).obj.body
    assert not isinstance(result, worker.ChunkBody)
    with pytest.raises(BufferError):  # as for any answer that is cut short
        worker._GetFile.read_result(BinaryReader(result))


def test_the_simulator_refuses_a_packet_too_short_for_any_message() -> None:
    key = session.AuthKey(bytes(256), 0)
    with pytest.raises(session.BadEnvelope):
        session.open_envelope(key, bytes(23))


def test_the_simulator_unpacks_no_bomb_within_a_bomb() -> None:
    def packed(body: bytes) -> bytes:
        head = GzipPacked.CONSTRUCTOR_ID.to_bytes(4, "little")
        return bytes(head + TLObject.serialize_bytes(gzip.compress(body)))

    bomb = session.Message(4, 1, packed(packed(bytes(session.UNPACKED_MAX_BYTES * 2))))
    with pytest.raises(session.UnreadableMessage):
        session.read_object(session.unzipped(bomb).body)
