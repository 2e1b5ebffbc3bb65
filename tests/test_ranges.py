"""Section 4 of the worker: byte ranges and conditional requests as RFC 9110 has them.

Method: tables over the pure functions; the same rows go through real HTTP in
test_stream_functional.py.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import worker
from hypothesis import given
from hypothesis import strategies as st
from worker import ByteRange, RangeNotSatisfiable

WHOLE: tuple[ByteRange, ...] = ()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(None, WHOLE, id="no header"),
        pytest.param("", WHOLE, id="empty header"),
        pytest.param("bytes=0-", ((0, 1000),), id="open from the start"),
        pytest.param("bytes=0-0", ((0, 1),), id="first byte"),
        pytest.param("bytes=0-1", ((0, 2),), id="Safari's probe"),
        pytest.param("bytes=999-999", ((999, 1000),), id="last byte"),
        pytest.param("bytes=500-", ((500, 1000),), id="open from the middle"),
        pytest.param("bytes=100-199", ((100, 200),), id="closed"),
        pytest.param("bytes=0-999", ((0, 1000),), id="exactly everything"),
        pytest.param("bytes=900-5000", ((900, 1000),), id="end beyond the file is clamped"),
        pytest.param("bytes=0-" + "9" * 5000, ((0, 1000),), id="end with 5000 digits"),
        pytest.param("bytes=" + "0" * 5000 + "5-9", ((5, 10),), id="start with 5000 zeros"),
        pytest.param("bytes=-1", ((999, 1000),), id="suffix of one"),
        pytest.param("bytes=-500", ((500, 1000),), id="suffix"),
        pytest.param("bytes=-1000", ((0, 1000),), id="suffix of everything"),
        pytest.param("bytes=-5000", ((0, 1000),), id="suffix longer than the file"),
        pytest.param("BYTES=1-2", ((1, 3),), id="units know no case"),
        pytest.param("bytes= 1-2 ", ((1, 3),), id="white space"),
        pytest.param("bytes=,1-2,,", ((1, 3),), id="empty list members"),
        pytest.param("bytes=0-1,5-6", ((0, 2), (5, 7)), id="two ranges"),
        pytest.param("bytes=-1, 0-0", ((999, 1000), (0, 1)), id="two, in the order asked"),
        pytest.param("bytes=0-1,2000-", ((0, 2),), id="an unsatisfiable one among two"),
        pytest.param("bytes=0-1,1-2", WHOLE, id="overlapping"),
        pytest.param("bytes=0-,0-,0-", WHOLE, id="the whole file three times"),
        pytest.param("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 34, 2)), WHOLE, id="17"),
        pytest.param("items=0-1", WHOLE, id="unknown unit"),
        pytest.param("bytes", WHOLE, id="no equals sign"),
        pytest.param("bytes=", WHOLE, id="no range"),
        pytest.param("bytes=-", WHOLE, id="only a dash"),
        pytest.param("bytes=5", WHOLE, id="no dash"),
        pytest.param("bytes=a-b", WHOLE, id="letters"),
        pytest.param("bytes=2-1", WHOLE, id="backwards"),
        pytest.param("bytes=0-1,2-1", WHOLE, id="a malformed one among two"),
        pytest.param("bytes=--1", WHOLE, id="two dashes"),
        pytest.param("bytes=1-2-3", WHOLE, id="three numbers"),
        pytest.param("bytes=+1-2", WHOLE, id="a sign"),
        pytest.param("bytes=0x1-2", WHOLE, id="hexadecimal"),
        pytest.param("bytes=\uff11-\uff12", WHOLE, id="digits of another script"),
        pytest.param("bytes=0-1;5-6", WHOLE, id="semicolon"),
    ],
)
def test_range_header(header: str | None, expected: tuple[tuple[int, int], ...]) -> None:
    assert worker.parse_range(header, 1000) == tuple(ByteRange(*pair) for pair in expected)


@pytest.mark.parametrize(
    "header",
    ["bytes=1000-", "bytes=1000-1000", "bytes=5000-6000", "bytes=-0", "bytes=1000-,-0,2000-3000"],
)
def test_nothing_satisfiable_is_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        worker.parse_range(header, 1000)
    assert caught.value.complete_length == 1000


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_satisfies_no_range(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        worker.parse_range(header, 0)


@given(st.text(), st.integers(0, 1 << 40))
def test_any_header_gives_ranges_within_the_file(text: str, size: int) -> None:
    try:
        ranges = worker.parse_range("bytes=" + text, size)
    except RangeNotSatisfiable:
        return
    assert len(ranges) <= worker.RANGES_MAX
    assert all(0 <= each.start < each.stop <= size for each in ranges)
    assert sum(each.length for each in ranges) <= size


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_closed_range_is_what_slicing_gives(first: int, last: int, size: int) -> None:
    content = range(size)
    expected = content[first : last + 1]
    try:
        (found,) = worker.parse_range(f"bytes={first}-{last}", size) or (ByteRange(0, size),)
    except RangeNotSatisfiable:
        assert first >= size
        return
    if last >= first:
        assert (found.start, found.stop) == (expected.start, expected.stop)
    else:
        assert found == ByteRange(0, size)


# -- conditional requests ------------------------------------------------------------------------

MODIFIED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FILE = worker.RemoteFile(-100, 1, 0xABC, "", 2, 1000, "video/mp4", "film.mp4", MODIFIED)
TAG = '"abc-3e8"'
OLDER, SAME, NEWER = (f"Fri, 02 Jan 2026 03:04:0{second} GMT" for second in (4, 5, 6))


def test_the_entity_tag_is_strong_and_names_the_document() -> None:
    assert FILE.entity_tag == TAG


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        (TAG, True),
        ('"other"', False),
        (f"W/{TAG}", False),
        (SAME, True),
        (OLDER, False),
        (NEWER, False),
        ("not a date", False),
        ("", False),
    ],
)
def test_if_range(if_range: str | None, applies: bool) -> None:
    assert worker.range_applies(if_range, FILE) is applies


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        pytest.param({}, 200, id="none"),
        pytest.param({"If-None-Match": TAG}, 304, id="known"),
        pytest.param({"If-None-Match": f"W/{TAG}"}, 304, id="known, compared weakly"),
        pytest.param({"If-None-Match": f'"x", {TAG}'}, 304, id="known, in a list"),
        pytest.param({"If-None-Match": "*"}, 304, id="anything is known"),
        pytest.param({"If-None-Match": '"other"'}, 200, id="another is known"),
        pytest.param({"If-Modified-Since": SAME}, 304, id="not modified since"),
        pytest.param({"If-Modified-Since": NEWER}, 304, id="not modified since later"),
        pytest.param({"If-Modified-Since": OLDER}, 200, id="modified since"),
        pytest.param({"If-Modified-Since": "rubbish"}, 200, id="no date"),
        pytest.param(
            {"If-None-Match": '"other"', "If-Modified-Since": NEWER}, 200, id="the tag decides"
        ),
        pytest.param({"If-Match": TAG}, 200, id="match"),
        pytest.param({"If-Match": "*"}, 200, id="match anything"),
        pytest.param({"If-Match": '"other"'}, 412, id="no match"),
        pytest.param({"If-Match": f"W/{TAG}"}, 412, id="a weak tag does not match"),
        pytest.param({"If-Unmodified-Since": SAME}, 200, id="unmodified since"),
        pytest.param({"If-Unmodified-Since": OLDER}, 412, id="modified since then"),
        pytest.param({"If-Match": TAG, "If-Unmodified-Since": OLDER}, 200, id="the match decides"),
        pytest.param({"If-Match": '"other"', "If-None-Match": TAG}, 412, id="412 goes before 304"),
    ],
)
def test_preconditions(headers: dict[str, str], outcome: int) -> None:
    assert _outcome(headers) == outcome


def _outcome(headers: dict[str, Any]) -> int:
    try:
        return 200 if worker.check_preconditions(headers, FILE) else 304
    except worker.PreconditionFailed:
        return 412
