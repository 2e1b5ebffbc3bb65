"""Which worker serves a file: the order of each file, what is learnt of workers, and the looks.

Goal: films keep to their workers, nobody waits for one that is known to be away, and nothing that a
worker, a page or a stranger may say does harm. Method: decisions by table and property with a clock
that the test moves; looks through real sockets at servers that hang, fail and come back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer, make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from test_backend import media_file

from gallery import worker_choice
from gallery.files import MALFORMED
from gallery.worker_choice import Failures, WorkerChoice
from gallery.worker_client import WorkerClient
from gallery.workers import (
    AVOIDED_MAX,
    LOOK_AGAIN_S,
    LOOK_FOR_S,
    REFUSAL_FOR_S,
    Health,
    Workers,
    address_of,
    key_of,
)

FLEET = tuple(f"https://w{number}.example" for number in range(5))
KEYS = [f"-1001/{number}" for number in range(1000)]
BOT = {"bot": 1, "state": "connected", "wait_s": 0, "message": "", "blind_to": []}
WELL = {
    "status": "ok",
    "version": "0.1.0",
    "viewers": 3,
    "viewers_max": 256,
    "clock_behind_s": 0,
    "telegram": [BOT],
}


def health(**changes: Any) -> Health:
    return Health.from_answer({**WELL, **changes})


# -- The order of a file ---------------------------------------------------------------------------


def test_every_worker_gets_its_share_of_the_films() -> None:
    workers = Workers(FLEET)
    firsts = Counter(workers.pick(key) for key in KEYS)
    assert set(firsts) == set(FLEET)
    # 200 each, with a standard deviation of 12.6: four of those are once in 16,000 tables
    assert all(150 <= count <= 250 for count in firsts.values())


@given(st.integers(0, 4), st.permutations(FLEET))
def test_only_the_films_of_a_lost_worker_move(lost: int, written: list[str]) -> None:
    workers, left = Workers(written), Workers(url for url in FLEET if url != FLEET[lost])
    for key in KEYS[:50]:
        order = [url for url in workers.order(key) if url != FLEET[lost]]
        assert list(left.order(key)) == order
        workers.note_failure(FLEET[lost])
        assert workers.pick(key) == order[0]


def test_two_backends_agree_however_their_setting_is_written() -> None:
    one = Workers(["https://a.example", "http://b.example:81/w"])
    other = Workers(["http://B.example:81/w/", "https://A.example:443"])
    for key in KEYS[:50]:
        assert [address_of(u) for u in one.order(key)] == [address_of(u) for u in other.order(key)]


def test_who_is_asked_to_serve() -> None:
    workers = Workers(FLEET[:3])
    first, second, third = workers.order("-1/1")
    assert workers.pick("-1/1") == first
    assert workers.pick("-1/1", [first]) == second
    assert workers.pick("-1/1", [first, second, third]) == first  # it may have been the line
    workers.note_look(first, health(viewers=256))  # full
    assert workers.pick("-1/1") == second
    workers.note_failure(second)
    assert workers.pick("-1/1") == third
    assert workers.pick("-1/1", [third]) == third  # the only one that is well
    workers.note_failure(third)
    assert workers.pick("-1/1", [first]) == second  # none is: the next that did not fail the page
    workers.note_answer(second)
    assert workers.pick("-1/1") == second


def test_an_attempt_that_names_nobody_walks_on() -> None:
    workers = Workers(FLEET)
    order = workers.order("-1/1")
    assert [workers.pick("-1/1", attempt=n) for n in range(6)] == [*order, order[0]]
    assert workers.pick("-1/1", [order[0]], attempt=3) == order[1]
    assert Workers(FLEET[:1]).pick("-1/1", attempt=99) == FLEET[0]


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        ({}, True),
        ({"viewers": 255}, True),
        ({"viewers": 256}, False),
        ({"viewers_max": None}, True),
        ({"telegram": [{**BOT, "state": "logging in"}]}, True),
        ({"telegram": [{**BOT, "state": "refused"}]}, False),
        ({"telegram": [{**BOT, "state": "flood wait", "wait_s": 900}]}, False),
        ({"telegram": [{**BOT, "state": "flood wait", "wait_s": 5}]}, True),
        ({"telegram": [{**BOT, "state": "refused"}, BOT]}, True),
    ],
)
def test_a_worker_that_cannot_serve_now_is_passed_over(changes: Any, usable: bool) -> None:
    workers = Workers(FLEET)
    workers.note_look(FLEET[0], health(**changes))
    assert workers.is_usable(FLEET[0]) is usable


def test_looks_are_due_when_they_are_old_and_sooner_when_somebody_complains() -> None:
    now = 100.0
    workers = Workers(FLEET, lambda: now)
    assert workers.is_due(FLEET[0])
    workers.note_look(FLEET[0], health())
    now += LOOK_AGAIN_S
    assert not workers.is_due(FLEET[0])
    workers.suspect(FLEET[0])
    assert workers.is_due(FLEET[0])
    assert workers.is_usable(FLEET[0])  # nobody's word alone takes a worker away from the others
    workers.note_look(FLEET[0], health())
    workers.suspect(FLEET[0])
    assert not workers.is_due(FLEET[0])  # and complaints make no more than a look a second
    now += LOOK_FOR_S
    assert workers.is_due(FLEET[0])


def test_a_worker_with_another_secret_is_passed_over_though_it_looks_well() -> None:
    now = 100.0
    workers = Workers(FLEET, lambda: now)
    workers.note_refusal(FLEET[0])
    workers.note_look(FLEET[0], health())
    assert not workers.is_usable(FLEET[0])
    now += REFUSAL_FOR_S
    assert workers.is_usable(FLEET[0])
    workers.note_refusal(FLEET[0])
    workers.note_agreement(FLEET[0])
    assert workers.is_usable(FLEET[0])


# -- What others say -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"status": "ok", "version": "0.1.0", "uptime_s": 1},  # a gallery
        [],
        None,
        "ok",
        {**WELL, "telegram": 5},
        {**WELL, "telegram": [[]]},
        {**WELL, "telegram": [{**BOT, "wait_s": float("inf")}]},
        {**WELL, "telegram": [{**BOT, "blind_to": ["x"]}]},
        {**WELL, "viewers": "many"},
        {**WELL, "clock_behind_s": float("nan")},
    ],
)
def test_what_no_worker_says_is_malformed(body: Any) -> None:
    with pytest.raises(MALFORMED):
        Health.from_answer(body)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("https://w1.example", [FLEET[1]]),
        ("https://W1.example:443/", [FLEET[1]]),
        ("http://w1.example", []),
        ("https://w1.example:8443", []),
        ("https://evil.example", []),
        ("https://[", []),
        ("https://w1.example:99999", []),
        ("", []),
        ("null", []),
    ],
)
def test_only_workers_of_ours_can_be_named(named: str, found: list[str]) -> None:
    assert Workers(FLEET).named([named]) == found


@pytest.mark.parametrize(
    ("query", "failures"),
    [
        ("", Failures()),
        ("attempt=2", Failures((), 2)),
        ("attempt=-1", Failures()),
        ("attempt=x&avoid=", Failures(("",), 0)),
        ("attempt=99999999999", Failures((), 999999)),
        ("avoid=https%3A%2F%2Fa&avoid=b", Failures(("https://a", "b"), 0)),
        ("avoid=" + "x" * 999, Failures(("x" * 300,), 0)),
        ("&".join(["avoid=a"] * 99), Failures(("a",) * AVOIDED_MAX, 0)),
    ],
)
def test_what_a_page_says_has_its_limits(query: str, failures: Failures) -> None:
    assert Failures.from_query(make_mocked_request("GET", f"/?{query}")) == failures


# -- Looks -----------------------------------------------------------------------------------------


class Played:
    """A worker's /health as the test wants it: it answers, fails, or hangs until it is let go."""

    def __init__(self) -> None:
        self.looks = 0
        self.answer: Any = WELL
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def health(self, _request: web.Request) -> web.Response:
        self.looks += 1
        answer = self.answer
        await self.goes_on.wait()
        return web.json_response(answer, status=200 if answer else 503)


class Stand:
    """Three played workers and a choice among them, in the order of one file."""

    def __init__(self, choice: WorkerChoice, order: list[tuple[str, Played]]) -> None:
        self.choice = choice
        self.urls = [url for url, _ in order]
        self.played = [played for _, played in order]

    async def pick(self, **failures: Any) -> int:
        """The place of the picked one in the file's order."""
        return self.urls.index(await self.choice.pick(media_file(), Failures(**failures)))

    @property
    def looks(self) -> list[int]:
        return [played.looks for played in self.played]


@pytest.fixture
async def stand(
    aiohttp_server: Callable[..., Awaitable[TestServer]], clock: list[float]
) -> AsyncIterator[Stand]:
    players: dict[str, Played] = {}
    for _ in range(3):
        played = Played()
        app = web.Application()
        app.router.add_get("/health", played.health)
        players[str((await aiohttp_server(app)).make_url("")).rstrip("/")] = played
    workers = Workers(players, lambda: clock[0])
    async with ClientSession() as session:
        choice = WorkerChoice(workers, WorkerClient(session, workers, "x" * 32))
        order = [(url, players[url]) for url in workers.order(key_of(media_file()))]
        yield Stand(choice, order)
        for played in players.values():
            played.goes_on.set()
        await choice.close()


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


async def test_a_look_is_good_for_some_seconds_and_only_the_files_own_worker_is_looked_at(
    stand: Stand, clock: list[float]
) -> None:
    assert [await stand.pick() for _ in range(5)] == [0] * 5
    assert stand.looks == [1, 0, 0]
    clock[0] += LOOK_FOR_S
    assert await stand.pick() == 0
    assert stand.looks == [2, 0, 0]


async def test_those_who_ask_together_share_a_look(stand: Stand) -> None:
    stand.played[0].goes_on.clear()
    asking = [asyncio.create_task(stand.pick()) for _ in range(20)]
    async with asyncio.timeout(10):
        while not stand.played[0].looks:
            await asyncio.sleep(0.005)
    stand.played[0].goes_on.set()
    assert set(await asyncio.gather(*asking)) == {0}
    assert stand.looks == [1, 0, 0]


async def test_a_worker_that_hangs_is_waited_for_once_and_comes_back(
    stand: Stand, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_choice, "LOOK_TIMEOUT_S", 0.1)
    stand.played[0].goes_on.clear()
    assert await stand.pick() == 1
    # From now on a look at it would never end; who asks is not held up by it.
    monkeypatch.setattr(worker_choice, "LOOK_TIMEOUT_S", 1000.0)
    clock[0] += LOOK_FOR_S
    assert await stand.pick() == 1
    async with asyncio.timeout(10):
        while stand.looks != [2, 2, 0]:
            await asyncio.sleep(0.005)
    stand.played[0].goes_on.set()
    async with asyncio.timeout(10):
        while await stand.pick() != 0:
            await asyncio.sleep(0.005)


async def test_one_that_fails_and_one_that_is_full_are_passed_over(stand: Stand) -> None:
    stand.played[0].answer = None
    stand.played[1].answer = {**WELL, "viewers": 256}
    assert await stand.pick() == 2
    assert stand.looks == [1, 1, 1]


async def test_a_complaint_is_looked_into_but_moves_only_whoever_complains(
    stand: Stand, clock: list[float]
) -> None:
    assert await stand.pick() == 0
    clock[0] += LOOK_AGAIN_S
    assert await stand.pick(avoid=(stand.urls[0],)) == 1
    async with asyncio.timeout(10):
        while stand.looks[0] < 2:
            await asyncio.sleep(0.005)
    assert await stand.pick() == 0
    for _ in range(10):
        assert await stand.pick(avoid=(stand.urls[0],)) == 1
    assert stand.looks[0] == 2  # however many complain within a second
