"""Section 5 of the worker: no request breaks Telegram's rules, and the chunks make up the range."""

from __future__ import annotations

import pytest
import worker
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20
KIB_128 = 128 * 1024
POSITIONS = st.integers(0, 4 << 30)
FAST = worker.Pace(MIB, 6 * MIB)
PACES = st.builds(
    lambda speed, most: worker.Pace(worker.largest_chunk_bytes(speed), most),
    st.floats(0, 1e9) | st.just(float("inf")),
    st.integers(0, 64 * MIB),
)
SIZES = st.sampled_from([KIB_128, 2 * KIB_128, 4 * KIB_128, 8 * KIB_128]) | st.integers(0, 2 * MIB)


@given(POSITIONS, SIZES, st.integers(1, 1 << 30))
def test_every_chunk_keeps_telegrams_rules(position: int, wanted: int, length: int) -> None:
    chunk = worker.chunk_at(position, wanted, position + length)
    assert chunk.offset % 4096 == 0
    assert chunk.size % 4096 == 0
    assert MIB % chunk.size == 0
    assert chunk.offset // MIB == (chunk.stop - 1) // MIB


@given(POSITIONS, SIZES, st.integers(1, 1 << 30))
def test_a_chunk_holds_its_position_and_little_beyond_the_end(
    position: int, wanted: int, length: int
) -> None:
    stop = position + length
    chunk = worker.chunk_at(position, wanted, stop)
    assert chunk.offset <= position < chunk.stop
    assert chunk.size == KIB_128 or chunk.offset + chunk.size // 2 < stop
    assert chunk.size <= max(wanted, KIB_128)
    assert chunk in worker.covering_chunks(position)


@given(
    st.integers(0, 50 * MIB), st.integers(1, 20 * MIB), st.integers(0, 64 * MIB), st.lists(PACES)
)
def test_chunks_in_a_row_cover_a_range_without_gap_or_overlap(
    start: int, length: int, share: int, paces: list[worker.Pace]
) -> None:
    """However the lines change on the way, whatever the memory: legal chunks, end to end."""
    stop, position, planned = start + length, start, 0
    while position < stop:
        pace = paces.pop() if paces else FAST
        width = worker.window_bytes(planned, share, pace)
        wanted = worker.next_chunk_bytes(planned, width, pace)
        chunk = worker.chunk_at(position, wanted, stop)
        assert chunk.offset == position or position == start
        assert chunk.offset % 4096 == chunk.size % 4096 == MIB % chunk.size == 0
        assert chunk.offset // MIB == (chunk.stop - 1) // MIB
        assert chunk.size <= pace.chunk_bytes
        planned += chunk.stop - position
        position = chunk.stop
    assert position - stop < MIB


def test_a_run_starts_small_and_grows_to_the_largest_chunk() -> None:
    sizes, position, planned = [], 0, 0
    while position < 8 * MIB:
        width = worker.window_bytes(planned, 64 * MIB, FAST)
        wanted = worker.next_chunk_bytes(planned, width, FAST)
        chunk = worker.chunk_at(position, wanted, 1 << 40)
        sizes.append(chunk.size)
        planned += chunk.size
        position = chunk.stop
    assert sizes[:2] == [KIB_128, KIB_128]
    assert sizes == sorted(sizes)
    assert sizes[-1] == MIB


def test_the_window_is_small_after_a_seek_and_bounded_by_its_share() -> None:
    assert worker.window_bytes(0, 64 * MIB, FAST) == worker.WINDOW_MIN_BYTES
    assert worker.window_bytes(1 << 40, 64 * MIB, FAST) == FAST.window_bytes
    assert worker.window_bytes(1 << 40, MIB, FAST) == MIB
    assert worker.window_bytes(1 << 40, 0, FAST) == worker.CHUNK_MIN_BYTES


@pytest.mark.parametrize(
    ("bytes_per_second", "chunk_bytes"),
    [(0, KIB_128), (600_000, KIB_128), (2.5e6, MIB // 2), (5e6, MIB), (float("inf"), MIB)],
)
def test_the_largest_chunk_takes_a_quarter_of_a_second(
    bytes_per_second: float, chunk_bytes: int
) -> None:
    assert worker.largest_chunk_bytes(bytes_per_second) == chunk_bytes
