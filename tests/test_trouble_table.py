"""The trouble table: what befalls a worker in mid-film, one row a test; docs/troubles.md tells it.

Method: each row has a pocket Telegram, a worker process and three viewers of its own: one reads as
fast as it can, one slowly, one seeks all the time. They do what players do: ask again for the exact
next byte when a connection breaks, go on with If-Range, and compare every byte with the content,
which is made from its own offset. A row says for how long none of them may have waited for anything
(a byte, an answer, a reset), which error answers they may have seen, and how soon all is well
again. Rows wait most of the time, so several run side by side, each in a thread of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import JWT_SECRET, REPOSITORY, WORKER_SCRIPT, make_token

from telegram_simulator.cluster import TelegramSimulator
from telegram_simulator.content import SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import Bot, Post

KIB, MIB = 1 << 10, 1 << 20
BUSY_S = 5.0  # what a machine that runs other tests beside this may add to a wait
FILM_BYTES = 2 << 30
HOME, FOREIGN = 2, 4
NEW_SEED = 9
LINE_BYTES_PER_SECOND = 2_000_000
SLOW_BYTES_PER_SECOND = 200_000
ROWS_AT_ONCE = 8
LOG_LINES_SHOWN = 60
PATIENCE_S = 30.0
"""Until whatever has to happen in a row has happened."""


# -- viewers -------------------------------------------------------------------------------------


class Ended(Exception):
    """A status after which a player gives up for good."""


class Player:
    """One viewer of one film, who behaves as players do and notes what befalls them."""

    def __init__(self, scene: Scene, post: Post, seed: int) -> None:
        self.received_bytes = 0
        self.longest_wait_s = 0.0
        self.statuses: Counter[int] = Counter()
        self.resets = 0
        self.tags: list[str] = []
        self._scene = scene
        self._url = scene.url_of(post)
        self._contents = {FILM_BYTES: SyntheticContent(FILM_BYTES, seed)}
        self._position = 0

    def expect_film_too(self, size: int, seed: int) -> None:
        """What an answer of this length has in it: the film that the first is replaced by."""
        self._contents[size] = SyntheticContent(size, seed)

    async def play(self, pause: Callable[[int], Awaitable[None]]) -> None:
        """Read on for ever, `pause` with the size of each piece between two of them."""
        while True:
            try:
                await self._read_on(pause)
            except aiohttp.ClientError:
                self.resets += 1
                await asyncio.sleep(0.5)
            except Ended:
                return

    async def seek_around(self) -> None:
        """Ask for another place about twice a second."""
        dice = random.Random(self._position)
        while True:
            self._position = dice.randrange(1, FILM_BYTES - MIB)
            try:
                await self._read_on(_no_pause, dice.randrange(64 * KIB, 384 * KIB))
                await asyncio.sleep(0.3)
            except aiohttp.ClientError:
                self.resets += 1
                await asyncio.sleep(0.5)
            except Ended:
                return

    async def _read_on(self, pause: Callable[[int], Awaitable[None]], most: int = 1 << 62) -> None:
        headers = {"Range": f"bytes={self._position}-"}
        if self.tags:
            headers["If-Range"] = self.tags[-1]
        asked_at = time.monotonic()
        try:
            response = await self._scene.session.get(self._url, headers=headers)
        finally:
            self._waited(asked_at)
        async with response:
            if response.status not in (200, 206):
                await self._heed(response)
                return
            content = self._begin(response)
            taken = 0
            while taken < most:
                asked_at = time.monotonic()
                try:
                    piece = await response.content.readany()
                finally:
                    self._waited(asked_at)
                if not piece:
                    return
                assert piece == content.read(self._position, len(piece)), "wrong bytes"
                self._position += len(piece)
                self.received_bytes += len(piece)
                taken += len(piece)
                await pause(len(piece))
            response.close()

    def _begin(self, response: aiohttp.ClientResponse) -> SyntheticContent:
        """Note which film this is; from its start when it is another one than before."""
        tag = response.headers["ETag"]
        if tag not in self.tags:
            self.tags.append(tag)
        if response.status == 200:
            self._position = 0
            return self._contents[int(response.headers["Content-Length"])]
        start, size = re.findall(r"bytes (\d+)-\d+/(\d+)", response.headers["Content-Range"])[0]
        assert int(start) == self._position
        return self._contents[int(size)]

    async def _heed(self, response: aiohttp.ClientResponse) -> None:
        self.statuses[response.status] += 1
        assert response.headers["Cache-Control"] == "no-store"
        if response.status not in (429, 502, 503):
            raise Ended
        await asyncio.sleep(1)

    def _waited(self, since: float) -> None:
        self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - since)

    def __str__(self) -> str:
        return (
            f"{self.received_bytes} bytes, waited {self.longest_wait_s:.1f} s at most,"
            f" {self.resets} resets, statuses {dict(self.statuses)}"
        )


async def _no_pause(_size: int) -> None:
    """Reads as fast as it can."""


async def _slow_pause(size: int) -> None:
    await asyncio.sleep(size / SLOW_BYTES_PER_SECOND)


# -- the scene -----------------------------------------------------------------------------------


@dataclass
class Scene:
    """A pocket Telegram with a worker process on it, and three viewers."""

    row: Row
    telegram: TelegramSimulator
    bots: list[Bot]
    folder: Path
    key_path: Path
    session: aiohttp.ClientSession
    url: str = ""
    process: subprocess.Popen[bytes] | None = None
    players: list[Player] = field(default_factory=list)

    @property
    def bot(self) -> Bot:
        return self.bots[0]

    def __post_init__(self) -> None:
        self.channel = self.telegram.world.add_channel("Films", *self.bots)
        self.posts = [self.post(seed) for seed in range(3)]
        self.telegram.trouble.bytes_per_second = LINE_BYTES_PER_SECOND

    def post(self, seed: int, size: int = FILM_BYTES) -> Post:
        content = SyntheticContent(size, seed)
        film = self.telegram.world.new_document(content, "video/mp4", self.row.film_dc)
        return self.telegram.world.post(self.channel, film)

    def url_of(self, post: Post, worker: str = "") -> str:
        subject = f"{self.channel.chat_id}/{post.id}"
        return f"{worker or self.url}/stream/{subject}?token={make_token(subject)}"

    @asynccontextmanager
    async def worker(self, **environ: str) -> AsyncIterator[str]:
        """A worker process on this Telegram, and its address; it ends well, or the row fails."""
        log = Path(tempfile.mkstemp(prefix="worker-", suffix=".log", dir=self.folder)[1])
        settings = {
            "PATH": os.environ["PATH"],
            **self.telegram.environment(self.bot, self.key_path),
            "BOT_TOKEN": ",".join(bot.token for bot in self.bots),
            "JWT_SECRET": JWT_SECRET,
            "SESSION_FILE": "none",
            "HOST": "127.0.0.1",
            "PORT": "0",
            **environ,
        }
        process = self.process = _start_worker(settings, log)
        try:
            yield await self._address(log, process)
            process.terminate()
            assert await asyncio.to_thread(process.wait, 30) == 0, log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()
        except BaseException as failure:
            failure.add_note("\n".join(log.read_text().splitlines()[-LOG_LINES_SHOWN:]))
            raise
        finally:
            process.kill()
            process.wait()

    async def _address(self, log: Path, process: subprocess.Popen[bytes]) -> str:
        while process.poll() is None:
            if found := re.search(r"serves on (http://\S+)", log.read_text()):
                return found[1]
            await asyncio.sleep(0.05)
        raise AssertionError(log.read_text())

    # -- what rows do ----------------------------------------------------------------------------

    def fault(self, kind: Any, times: int = 1, **options: Any) -> Fault:
        """Plan trouble for the next chunks that are asked for."""
        return self.telegram.trouble.plan(
            Fault(kind, times=times, **{"method": "upload.getFile", **options})
        )

    def expire_references(self) -> None:
        for post in self.posts:
            assert post.media is not None
            self.telegram.world.expire_references(post.media.id)

    async def until(self, happened: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        """Wait until something is so; the viewers' fates are in the failure."""
        try:
            async with asyncio.timeout(within_s):
                while not happened():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            fates = "\n".join(map(str, self.players))
            raise AssertionError(f"not within {within_s} s:\n{fates}") from None

    async def until_everybody_plays(self, within_s: float = PATIENCE_S) -> None:
        """Until each viewer got some more bytes than now."""
        before = [player.received_bytes for player in self.players]
        await self.until(
            lambda: all(
                player.received_bytes > count + 128 * KIB
                for player, count in zip(self.players, before, strict=True)
            ),
            within_s,
        )

    async def until_struck(self, fault: Fault) -> None:
        """Until planned trouble has befallen as many chunks as it was planned for."""
        await self.until(lambda: fault not in self.telegram.trouble.faults)

    async def until_state(self, state: str) -> dict[str, Any]:
        """Until the first bot is in this state; what /health says of it."""
        async with asyncio.timeout(PATIENCE_S):
            while (bot := (await self.health())["telegram"][0])["state"] != state:
                await asyncio.sleep(0.05)
        return dict(bot)

    async def until_told(self, name: str, times: int = 1) -> None:
        """Until Telegram has answered with this error."""
        await self.until(lambda: self.telegram.counters.errors[name] >= times)

    async def newcomer(self, worker: str = "") -> tuple[int, dict[str, str], float]:
        """Status, headers and seconds of somebody who begins a film that nobody has seen."""
        film, asked_at = self.post(NEW_SEED), time.monotonic()
        async with self.session.get(self.url_of(film, worker)) as response:
            status, headers = response.status, dict(response.headers)
            if status == 200:
                body = await response.content.readexactly(64 * KIB)
                assert body == SyntheticContent(FILM_BYTES, NEW_SEED).read(0, 64 * KIB)
                response.close()
        return status, headers, time.monotonic() - asked_at

    async def health(self) -> dict[str, Any]:
        async with self.session.get(self.url + "/health") as response:
            assert response.status == 200
            return dict(await response.json())

    async def check_all_is_well(self) -> None:
        await self.until_everybody_plays(self.row.well_within_s)
        status, _, waited_s = await self.newcomer()
        assert (status, waited_s < 5) == (200, True)
        states = Counter(bot["state"] for bot in (await self.health())["telegram"])
        assert states == Counter(self.row.states)


def _start_worker(settings: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        command = [sys.executable, str(WORKER_SCRIPT)]
        return subprocess.Popen(command, env=settings, cwd=REPOSITORY, stderr=output)


# -- the table -----------------------------------------------------------------------------------

Strike = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One trouble, and what it may mean to viewers while it lasts and after it."""

    name: str
    strike: Strike
    wait_max_s: float
    """The longest that a viewer may have waited for a byte, an answer or a reset."""
    statuses: frozenset[int] = frozenset()
    resets_max: int = 0
    well_within_s: float = 10.0
    ends_well: bool = True
    film_dc: int = FOREIGN
    states: tuple[str, ...] = ("connected",)  # of the bots, in the end
    before: Callable[[Scene], None] = lambda _: None
    environ: Callable[[Scene], dict[str, str]] = lambda _: {}


ROWS: list[Row] = []


def row(name: str, wait_max_s: float, **options: Any) -> Callable[[Strike], Strike]:
    """Enter a strike in the table."""

    def enter(strike: Strike) -> Strike:
        ROWS.append(Row(name, strike, wait_max_s, **options))
        return strike

    return enter


async def play_row(row: Row, folder: Path) -> None:
    """Set the scene, let the trouble strike, see how the viewers fared and that all is well."""
    async with AsyncExitStack() as stack:
        telegram = await stack.enter_async_context(TelegramSimulator())
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        )
        session._retry_connection = False  # as aiohttp's own test client: a reset is to be seen
        bots = [telegram.world.add_bot(home_dc=HOME) for _ in row.states]
        key_path = telegram.write_key(folder / "telegram.pem")
        scene = Scene(row, telegram, bots, folder, key_path, session)
        row.before(scene)
        scene.url = await stack.enter_async_context(scene.worker(**row.environ(scene)))
        scene.players = [Player(scene, post, seed) for seed, post in enumerate(scene.posts)]
        fast, slow, seeking = scene.players
        async with asyncio.TaskGroup() as playing:
            tasks = [
                playing.create_task(fast.play(_no_pause)),
                playing.create_task(slow.play(_slow_pause)),
                playing.create_task(seeking.seek_around()),
            ]
            await row.strike(scene)
            if row.ends_well:
                await scene.check_all_is_well()
            for task in tasks:
                task.cancel()
        for player in scene.players:
            assert player.longest_wait_s <= row.wait_max_s + BUSY_S, str(player)
            assert player.statuses.keys() <= row.statuses, str(player)
            assert player.resets <= row.resets_max, str(player)


# Rows that take long come first, so that they are not waited for at the end.


@row("a data centre is silent for two minutes", 66, resets_max=20, well_within_s=20)
async def _silent(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.silent.add(FOREIGN)
    status, _, waited_s = await scene.newcomer()
    assert (status, waited_s < 21) == (502, True)
    await asyncio.sleep(120 - waited_s)
    scene.telegram.trouble.silent.clear()


@row("SIGTERM while films run", 3, resets_max=99, ends_well=False)
async def _sigterm(scene: Scene) -> None:
    await scene.until_everybody_plays()
    assert scene.process is not None
    scene.process.terminate()
    await asyncio.sleep(1)
    with pytest.raises(aiohttp.ClientError):
        await scene.newcomer()
    slow = scene.players[1]
    before = slow.received_bytes
    assert await asyncio.to_thread(scene.process.wait, 28) == 0
    assert slow.received_bytes - before > 15 * SLOW_BYTES_PER_SECOND


@row("FLOOD_WAIT of 60 s", 62, resets_max=5)
async def _flood_60(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.flood_wait(60)
    await scene.until_state("flood wait")
    status, headers, waited_s = await scene.newcomer()
    assert (status, waited_s < 2) == (429, True)
    assert 50 <= int(headers["Retry-After"]) <= 60
    await asyncio.sleep(2)  # what was asked before it was told has arrived
    asked = scene.telegram.counters.methods["upload.getFile"]
    await asyncio.sleep(48)
    assert scene.telegram.counters.methods["upload.getFile"] == asked
    await scene.until_everybody_plays()


@row("FLOOD_WAIT of 1000 s, no other bot", 22, resets_max=10, ends_well=False)
async def _flood_1000(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.flood_wait(1000, times=999)
    await scene.until_state("flood wait")
    fast, slow, seeking = scene.players
    await scene.until(lambda: seeking.resets >= 1)
    status, headers, waited_s = await scene.newcomer()
    assert (status, waited_s < 2) == (429, True)
    assert 950 <= int(headers["Retry-After"]) <= 1000
    await asyncio.sleep(2)  # what was asked before it was told has arrived
    asked = scene.telegram.counters.methods["upload.getFile"]
    await scene.until(lambda: min(fast.resets, slow.resets, seeking.resets) >= 2)
    await scene.until(lambda: seeking.resets >= 3)
    assert scene.telegram.counters.methods["upload.getFile"] == asked
    state = await scene.until_state("flood wait")
    assert 900 <= state["wait_s"] <= 1000


@row("FLOOD_WAIT of 1000 s, another bot is there", 3, states=("flood wait", "connected"))
async def _flood_of_one(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.flood_wait(1000, account_id=scene.bot.id, times=999)
    assert (await scene.until_state("flood wait"))["bot"] == scene.bot.id


@row("FLOOD_WAIT of 3 s", 5)
async def _flood_3(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.flood_wait(3)
    await scene.until_told("FLOOD_WAIT_3")


@row("FLOOD_PREMIUM_WAIT of 3 s", 5)
async def _flood_premium(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.flood_wait(3, premium=True)
    await scene.until_told("FLOOD_PREMIUM_WAIT_3")


def _login_flood(scene: Scene) -> None:
    scene.telegram.trouble.flood_wait(6, method="auth.importBotAuthorization")


@row("a login flood at the start", 10, before=_login_flood)
async def _flood_at_login(scene: Scene) -> None:
    assert (await scene.until_state("flood wait"))["wait_s"] <= 6
    assert scene.telegram.counters.methods["auth.importBotAuthorization"] == 1
    await scene.until_everybody_plays()
    assert scene.telegram.counters.methods["auth.importBotAuthorization"] == 2


@row("FILE_REFERENCE_EXPIRED", 2)
async def _references(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.expire_references()
    await scene.until_told("FILE_REFERENCE_EXPIRED")


@row("FILE_REFERENCE_INVALID and _EMPTY", 3)
async def _odd_references(scene: Scene) -> None:
    await scene.until_everybody_plays()
    for name in ("FILE_REFERENCE_INVALID", "FILE_REFERENCE_EMPTY"):
        scene.fault("error", code=400, message=name, times=2)
        await scene.until_told(name, 2)
        await scene.until_everybody_plays()


@row("FILE_MIGRATE", 3)
async def _migrate(scene: Scene) -> None:
    await scene.until_everybody_plays()
    for post in scene.posts:
        assert post.media is not None
        scene.telegram.world.move_file(post.media.id, 1)
    await scene.until_told("FILE_MIGRATE_1")


@row("TIMEOUT, as 500 and as -503", 4)
async def _timeouts(scene: Scene) -> None:
    await scene.until_everybody_plays()
    for code, name in ((500, "TIMEOUT"), (-503, "Timeout")):
        scene.fault("error", code=code, message=name, times=2)
        await scene.until_told(name, 2)
        await scene.until_everybody_plays()


@row("RPC errors of 500", 6)
async def _internal(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.fault("error", code=500, message="INTERNAL", times=4)
    scene.fault("error", code=500, message="WORKER_BUSY_TOO_LONG_RETRY", times=2)
    await scene.until_told("INTERNAL", 4)
    await scene.until_told("WORKER_BUSY_TOO_LONG_RETRY", 2)


@row("an answer that is too short before the end", 4)
async def _short(scene: Scene) -> None:
    await scene.until_everybody_plays()
    await scene.until_struck(scene.fault("short", times=3))


@row("connections cut before, in and after an answer", 5)
async def _cuts(scene: Scene) -> None:
    await scene.until_everybody_plays()
    for kind in ("cut_before", "cut_during", "cut_after"):
        await scene.until_struck(scene.fault(kind))
        await scene.until_everybody_plays()


@row("a server that closes on every request", 16, well_within_s=15)
async def _closes(scene: Scene) -> None:
    await scene.until_everybody_plays()
    before = scene.telegram.counters.connections[FOREIGN]
    scene.fault("cut_before", times=1 << 30, dc_id=FOREIGN)
    await asyncio.sleep(10)
    scene.telegram.trouble.faults.clear()
    # 0.2 s, then twice as long each time up to 5 s: no hot loop of connections.
    assert 2 <= scene.telegram.counters.connections[FOREIGN] - before <= 8


@row("a data centre is down for 8 s", 15, well_within_s=15)
async def _down(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.down.add(FOREIGN)
    await asyncio.sleep(8)
    scene.telegram.trouble.down.clear()


@row("home is down while the films are elsewhere", 3)
async def _home_down(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.trouble.down.add(HOME)
    await scene.until(lambda: not scene.telegram.data_centre(HOME).connections)
    status, _, waited_s = await scene.newcomer()
    assert (status, waited_s < 21) == (502, True)
    await scene.until_everybody_plays()
    scene.telegram.trouble.down.clear()
    await asyncio.sleep(5)  # until the next attempt at home, which nobody sees


@row("AUTH_KEY_UNREGISTERED at a foreign data centre", 4)
async def _unregistered(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.telegram.expire_authorisations(FOREIGN)
    await scene.until_told("AUTH_KEY_UNREGISTERED")


def _shared_session(scene: Scene) -> dict[str, str]:
    return {"SESSION_STRING": scene.telegram.session_string(scene.bot)}


@row("AUTH_KEY_DUPLICATED", 6, film_dc=HOME)
async def _duplicated(scene: Scene) -> None:
    """Two workers with one session string and nobody to keep them apart."""
    await scene.until_everybody_plays()
    session = scene.telegram.session_string(scene.bot)
    async with (
        scene.worker(SESSION_STRING=session) as first,
        scene.worker(SESSION_STRING=session) as second,
    ):
        for url in (first, second, first, second):
            status, _, _ = await scene.newcomer(url)
            assert status == 200
    await scene.until_told("AUTH_KEY_DUPLICATED")


@row("the key is not known any more, transport -404", 6)
async def _key_forgotten(scene: Scene) -> None:
    await scene.until_everybody_plays()
    for dc_id in (FOREIGN, HOME):
        scene.telegram.forget_keys(dc_id)
    await scene.until(lambda: scene.telegram.counters.connections[FOREIGN] >= 2)


@row("too many requests for the transport, -429", 6)
async def _transport_flood(scene: Scene) -> None:
    await scene.until_everybody_plays()
    await scene.until_struck(scene.fault("refuse", code=-429, times=2))


def _fast_clock(scene: Scene) -> None:
    scene.telegram.trouble.clock_ahead_s = 600


def _slow_clock(scene: Scene) -> None:
    scene.telegram.trouble.clock_ahead_s = -600


@row("the clock is 10 min slow", 4, before=_fast_clock)
async def _slow(scene: Scene) -> None:
    await scene.until_everybody_plays()
    assert abs((await scene.health())["clock_behind_s"] - 600) <= 5


@row("the clock is 10 min fast, with a session string", 4, before=_slow_clock,
     environ=_shared_session, film_dc=HOME)  # fmt: skip
async def _fast(scene: Scene) -> None:
    await scene.until_everybody_plays()
    assert abs((await scene.health())["clock_behind_s"] + 600) <= 5
    assert scene.telegram.counters.methods["auth.importBotAuthorization"] == 0


@row("the messages are deleted", 3, statuses=frozenset({404}), resets_max=1, ends_well=False)
async def _deleted(scene: Scene) -> None:
    await scene.until_everybody_plays()
    for post in scene.posts:
        scene.telegram.world.delete(post)
    scene.expire_references()
    await scene.until(lambda: all(player.statuses[404] for player in scene.players))
    status, _, _ = await scene.newcomer()
    assert status == 200


@row("the films are replaced by others", 4, resets_max=1)
async def _replaced(scene: Scene) -> None:
    await scene.until_everybody_plays()
    size = FILM_BYTES - 1
    for seed, (post, player) in enumerate(zip(scene.posts, scene.players, strict=True)):
        content = SyntheticContent(size, 20 + seed)
        player.expect_film_too(size, 20 + seed)
        film = scene.telegram.world.new_document(content, "video/mp4", FOREIGN)
        scene.telegram.world.edit(post, media=replace(film, date=datetime.now(UTC)))
    scene.expire_references()
    await scene.until(lambda: all(len(player.tags) == 2 for player in scene.players))


@row("the channel is lost, and found again after a minute", 3, statuses=frozenset({404}),
     resets_max=1, ends_well=False)  # fmt: skip
async def _channel_lost(scene: Scene) -> None:
    await scene.until_everybody_plays()
    scene.channel.members.discard(scene.bot.id)
    scene.expire_references()
    await scene.until(lambda: all(player.statuses[404] for player in scene.players))
    (state,) = (await scene.health())["telegram"]
    assert state["blind_to"] == [scene.channel.chat_id]
    scene.channel.members.add(scene.bot.id)
    status, waited_s = 404, 0.0
    while status == 404 and waited_s < 65:
        await asyncio.sleep(2)
        waited_s += 2
        status, _, _ = await scene.newcomer()
    assert status == 200


# -- the tests -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """The rows that are to be tested, all of them under way."""
    wanted = {str(item.name) for item in request.session.items}
    folder = Path(tempfile.mkdtemp(prefix="troubles-"))
    with ThreadPoolExecutor(ROWS_AT_ONCE) as pool:
        yield {
            each.name: pool.submit(_play_in_thread, each, folder / str(number))
            for number, each in enumerate(ROWS)
            if f"test_viewers_live_through[{each.name}]" in wanted
        }
        pool.shutdown(cancel_futures=True)
    shutil.rmtree(folder)


def _play_in_thread(row: Row, folder: Path) -> None:
    folder.mkdir()
    asyncio.run(play_row(row, folder))


def test_the_document_tells_every_row_and_its_wait() -> None:
    table = (REPOSITORY / "docs/troubles.md").read_text().partition("\n## ")[0]
    told = dict(re.findall(r"^\| (.+?) \| .* \| (\d+) s \|$", table, re.MULTILINE))
    assert told == {row.name: str(row.wait_max_s) for row in ROWS}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_viewers_live_through(row: Row, outcomes: dict[str, Future[None]]) -> None:
    outcomes[row.name].result()
