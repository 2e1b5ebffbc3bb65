"""Programs that play and fetch films: ffmpeg, VLC, mpv, aria2, wget and curl.

Goal: each opens what it is given, seeks, outlasts its tokens, and takes a broken download up where
it was, to the last byte. Method: the film is a post of the pocket Telegram; ffmpeg is the one of
PyPI's imageio-ffmpeg and reads from the worker, the others are Debian's and follow share links.
Browsers have tests of their own. What is marked `more_players` runs by `make players` only: mpv
reads by the same library as ffmpeg, and would be three times all the others to install.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
import worker
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, StartClient, StartProcess
from players import (
    OpenPlayer,
    Player,
    break_off,
    found,
    has_come_to,
    open_mpv,
    open_vlc,
    run,
)
from rough_line import RoughLine

import backend
from gallery import tokens
from gallery.settings import Settings
from gallery.shares import new_share, write_share
from telegram_simulator.content import FileContent
from telegram_simulator.looped_film import LoopedFilm
from telegram_simulator.world import Document, Post

# The first run makes the sample films, which takes its time on a slow machine.
pytestmark = pytest.mark.timeout(180)
SECONDS = 8.0
INDEX_IN_FRONT, INDEX_AT_THE_END, WEBM = 0, 1, 2


def post_film(stage: Stage, path: Path) -> Post:
    return stage.post(FileContent(path), f"video/{path.suffix[1:]}", file_name=path.name)


async def ffmpeg(*arguments: str, program: str = "") -> str:
    """What ffmpeg has to say; it must end well."""
    path = program or imageio_ffmpeg.get_ffmpeg_exe()
    return await run(path, "-hide_banner", "-nostdin", *arguments)


@pytest.mark.parametrize("film", [INDEX_IN_FRONT, INDEX_AT_THE_END, WEBM])
async def test_ffmpeg_decodes_a_film_to_its_last_frame(
    stage: Stage, start_worker_process: StartProcess, sample_films: list[Path], film: int
) -> None:
    process = await start_worker_process()
    url = process.url + stage.path(post_film(stage, sample_films[film]))
    report = await ffmpeg("-v", "info", "-xerror", "-i", url, "-f", "null", "-")
    assert last_time(report) == pytest.approx(SECONDS, abs=0.3)
    assert "rror" not in report


def last_time(report: str) -> float:
    """How far ffmpeg came, in seconds."""
    return float(re.findall(r"time=00:00:([0-9.]+)", report)[-1])


@pytest.mark.parametrize("film", [INDEX_IN_FRONT, INDEX_AT_THE_END, WEBM])
async def test_ffmpeg_seeks_to_three_quarters_without_reading_the_rest(
    stage: Stage, start_worker_process: StartProcess, sample_films: list[Path], film: int
) -> None:
    process = await start_worker_process()
    url = process.url + stage.path(post_film(stage, sample_films[film]))
    seek = ("-ss", str(SECONDS * 0.75))
    near = await ffmpeg(
        "-v", "error", "-xerror", *seek, "-i", url, "-frames:v", "10", "-f", "md5", "-"
    )
    assert "rror" not in near
    assert re.search(r"range=bytes=[1-9][0-9]*-", process.log), "it never asked for a later range"


# -- Share links: programs of Debian ---------------------------------------------------------------

TOKEN_LIFETIME_S = 2
TURNS = 400  # of a film of 8 s: nearly an hour, of which no player takes half in advance
LINE_BYTES_PER_S = 600_000  # a little more than twice what the film needs
CUT_AFTER_S = 1.2
FILE_BYTES = 24_000_000
BROKEN_AT_BYTES = 9_000_000
RENEWED = re.compile(r"GET /stream/\S+ 307 ")


@dataclass
class Counter:
    """Where share links are handed out, and what the worker behind them had to do."""

    stage: Stage
    gallery: TestClient[Any, Any]
    worker_port: int
    open_gallery: Callable[[str], Awaitable[TestClient[Any, Any]]]
    log: pytest.LogCaptureFixture

    async def link_over(self, line: RoughLine, post: Post, door: str = "v") -> str:
        """A link of a gallery that knows the worker by this line only."""
        return replace(self, gallery=await self.open_gallery(line.url)).link(post, door)

    def link(self, post: Post, door: str = "v") -> str:
        share = write_share(JWT_SECRET, new_share(self.stage.channel.chat_id, post.id, None, 0))
        return str(self.gallery.make_url(f"/{door}/{share}"))

    async def led_to(self, link: str) -> str:
        """The worker's URL behind a link."""
        async with (
            ClientSession() as session,
            session.get(link, allow_redirects=False) as response,
        ):
            return response.headers["Location"]

    @property
    def renewals(self) -> int:
        """How often the worker has sent a client on to a fresh token."""
        return sum(bool(RENEWED.search(record.getMessage())) for record in self.log.records)


@pytest.fixture
async def counter(
    stage: Stage,
    start_worker: Callable[..., Awaitable[TestClient[Any, Any]]],
    aiohttp_client: StartClient,
    caplog: pytest.LogCaptureFixture,
) -> Counter:
    caplog.set_level(logging.INFO, "rangegram.worker")
    started = await start_worker()

    async def open_gallery(worker_url: str) -> TestClient[Any, Any]:
        environment = {**stage.environment(), "WORKER_URL": worker_url}
        settings = Settings.from_env({**environment, "GALLERY_PASSWORD": "correct horse battery"})
        return await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))

    gallery = await open_gallery(str(started.make_url("/")))
    return Counter(stage, gallery, started.port or 0, open_gallery, caplog)


@pytest.fixture
def short_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of the gallery and those that the worker makes of renewal grants."""
    for module in (tokens, worker):
        monkeypatch.setattr(module, "TOKEN_LIFETIME_S", TOKEN_LIFETIME_S)


@pytest.fixture
def long_film(stage: Stage, sample_films: list[Path]) -> tuple[Post, float]:
    """A film and its length."""
    film = LoopedFilm(sample_films[0], TURNS)
    post = stage.post(film, file_name="Long.mp4", kind="video", duration_s=film.duration_s)
    return post, film.duration_s


PLAYERS = [
    pytest.param(open_vlc, "m3u", id="vlc"),
    pytest.param(open_mpv, "v", id="mpv", marks=pytest.mark.more_players),
]


@pytest.mark.parametrize(("open_player", "door"), PLAYERS)
async def test_a_player_opens_a_link_and_seeks_to_the_middle(
    counter: Counter, long_film: tuple[Post, float], open_player: OpenPlayer, door: str
) -> None:
    post, duration_s = long_film
    async with open_player(counter.link(post, door)) as player:
        await has_come_to(player, 1)
        await player.seek(duration_s / 2)
        await has_come_to(player, duration_s / 2 + 1)
        await player.seek(30)
        await has_come_to(player, 31)


@pytest.mark.parametrize(("open_player", "door"), PLAYERS)
async def test_a_player_opens_a_film_whose_index_is_at_its_end(
    counter: Counter, sample_films: list[Path], open_player: OpenPlayer, door: str
) -> None:
    post = post_film(counter.stage, sample_films[INDEX_AT_THE_END])
    async with open_player(counter.link(post, door)) as player:
        await has_come_to(player, 1)
        await player.seek(5)
        await has_come_to(player, 6)


@pytest.mark.usefixtures("short_tokens")
@pytest.mark.parametrize(
    ("open_player", "door"),
    [pytest.param(open_vlc, "m3u", id="vlc"), PLAYERS[1]],
)
async def test_a_player_seeks_when_its_token_has_ended(
    counter: Counter, long_film: tuple[Post, float], open_player: OpenPlayer, door: str
) -> None:
    post, duration_s = long_film
    async with open_player(counter.link(post, door)) as player:
        await seeks_over_expiries(player, duration_s)


@pytest.mark.usefixtures("short_tokens")
@pytest.mark.parametrize(
    "open_player",
    [
        pytest.param(open_vlc, id="vlc", marks=pytest.mark.more_players),
        pytest.param(open_mpv, id="mpv", marks=pytest.mark.more_players),
    ],
)
async def test_a_player_given_the_workers_url_is_renewed(
    counter: Counter, long_film: tuple[Post, float], open_player: OpenPlayer
) -> None:
    """mpv asks the link itself again; here it has only what that led to, with the grant in it.

    VLC follows no redirect in mid-film; the worker goes there for it, which is no renewal to see.
    """
    post, duration_s = long_film
    async with open_player(await counter.led_to(counter.link(post))) as player:
        await seeks_over_expiries(player, duration_s)
    assert counter.renewals >= 2 or open_player is open_vlc


async def seeks_over_expiries(player: Player, duration_s: float) -> None:
    await has_come_to(player, 1)
    for part in (0.5, 0.25):
        await asyncio.sleep(TOKEN_LIFETIME_S + 1)
        await player.seek(duration_s * part)
        await has_come_to(player, duration_s * part + 1)


@pytest.mark.parametrize(("open_player", "door"), PLAYERS)
async def test_a_player_goes_on_when_its_line_breaks(
    counter: Counter, sample_films: list[Path], open_player: OpenPlayer, door: str
) -> None:
    post = post_film(counter.stage, sample_films[INDEX_IN_FRONT])
    line = RoughLine(counter.worker_port, LINE_BYTES_PER_S, CUT_AFTER_S)
    async with line.listening(), open_player(await counter.link_over(line, post, door)) as player:
        await has_come_to(player, SECONDS - 1)
    assert line.cuts >= 2


FFMPEGS = [
    pytest.param("", id="ffmpeg"),
    pytest.param("ffmpeg", id="Debian's ffmpeg", marks=pytest.mark.more_players),
]


@pytest.mark.parametrize("program", FFMPEGS)
async def test_ffmpeg_plays_a_link_and_seeks_in_it(
    counter: Counter, sample_films: list[Path], program: str
) -> None:
    url = counter.link(post_film(counter.stage, sample_films[INDEX_AT_THE_END]))
    report = await ffmpeg("-v", "info", "-xerror", "-i", url, "-f", "null", "-", program=program)
    assert last_time(report) == pytest.approx(SECONDS, abs=0.3)
    seek = ("-xerror", "-ss", "6", "-i", url, "-frames:v", "10", "-f", "md5", "-")
    assert "rror" not in await ffmpeg("-v", "error", *seek, program=program)


@pytest.mark.usefixtures("short_tokens")
@pytest.mark.parametrize("program", FFMPEGS)
async def test_ffmpeg_goes_on_when_line_and_token_end(
    counter: Counter, sample_films: list[Path], program: str
) -> None:
    """With `-reconnect`: without it ffmpeg takes a broken line for the end of the film."""
    post = post_film(counter.stage, sample_films[INDEX_IN_FRONT])
    line = RoughLine(counter.worker_port, LINE_BYTES_PER_S, CUT_AFTER_S)
    async with line.listening():
        url = await counter.link_over(line, post)
        again = ("-reconnect", "1", "-i", url, "-f", "null", "-")
        report = await ffmpeg("-v", "info", *again, program=program)
    assert last_time(report) == pytest.approx(SECONDS, abs=0.3)
    assert line.cuts >= 2


@pytest.mark.usefixtures("short_tokens")
@pytest.mark.parametrize(
    "is_link",
    [
        pytest.param(True, id="aria2c"),
        pytest.param(False, id="aria2c, the worker's URL", marks=pytest.mark.more_players),
    ],
)
async def test_aria2_fetches_by_eight_connections_over_the_ends_of_its_tokens(
    counter: Counter, tmp_path: Path, is_link: bool
) -> None:
    """Each connection is cut after its token has ended, so that it has to ask again."""
    post = counter.stage.post_synthetic(FILE_BYTES)
    line = RoughLine(counter.worker_port, LINE_BYTES_PER_S, TOKEN_LIFETIME_S + 0.5)
    eight = ("--max-connection-per-server=8", "--split=8", "--min-split-size=1M", "--max-tries=0")
    target = ("--dir", str(tmp_path), "--out", "film.mp4")
    async with line.listening():
        link = await counter.link_over(line, post)
        url = link if is_link else await counter.led_to(link)
        await run(found("aria2c"), "--quiet", *eight, *target, url)
    assert_same(post, tmp_path / "film.mp4")
    assert line.cuts >= 8
    assert is_link or counter.renewals >= 8


RESUMED = {
    "aria2c": (
        *("--quiet", "--continue", "--max-connection-per-server=4", "--min-split-size=1M"),
        "--file-allocation=none",  # so that what is on the disk is what was fetched
        *("--auto-save-interval=1", "--max-overall-download-limit={rate}"),
        *("--dir", "{folder}", "--out", "{name}", "{url}"),
    ),
    "wget": ("--quiet", "--continue", "--limit-rate={rate}", "-O", "{folder}/{name}", "{url}"),
    "curl": (
        *("--silent", "--show-error", "--fail", "--location", "--continue-at", "-"),
        *("--limit-rate", "{rate}", "--output", "{folder}/{name}", "{url}"),
    ),
}


@pytest.mark.usefixtures("short_tokens")
@pytest.mark.parametrize("program", RESUMED)
async def test_a_download_that_broke_off_goes_on_where_it_was(
    counter: Counter, tmp_path: Path, program: str
) -> None:
    post = counter.stage.post_synthetic(FILE_BYTES)
    file = tmp_path / "film.mp4"

    def arguments(rate: int) -> list[str]:
        values = {"folder": tmp_path, "name": file.name, "url": counter.link(post), "rate": rate}
        return [argument.format_map(values) for argument in RESUMED[program]]

    slow, fast = FILE_BYTES // 6, 1 << 30
    await break_off(file, BROKEN_AT_BYTES, found(program), *arguments(slow))
    fetched = counter.stage.served(post)
    await run(found(program), *arguments(fast))
    assert_same(post, file)
    assert counter.stage.served(post) - fetched < FILE_BYTES - BROKEN_AT_BYTES / 2


def assert_same(post: Post, file: Path) -> None:
    assert isinstance(post.media, Document)
    assert file.read_bytes() == post.media.content.read(0, FILE_BYTES)
