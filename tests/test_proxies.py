"""nginx and Caddy in front of the worker, with the configuration that ships in `deploy/`.

Goal: what a viewer gets through a proxy is what the worker sends, byte for byte and header for
header, as soon and no further than the viewer reads; no log of a proxy opens a film. Method: the
real proxies over https, a worker process behind them, the pocket Telegram behind that; every answer
is compared with the one to the same request without the proxy.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import worker as worker_module
from aiohappyeyeballs import AddrInfoType
from aiohttp import ClientPayloadError, ClientResponse, ClientSession, TCPConnector
from conftest import JWT_SECRET, Stage, StartProcess, WorkerProcess, make_token
from proxies import (
    DEPLOY,
    NOBODY,
    Proxy,
    Sites,
    command,
    free_port,
    nginx_command,
    running_proxy,
    write_certificate,
)
from test_stream_functional import broke_off
from yarl import URL

from gallery.shares import Share, write_share
from telegram_simulator.content import SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import Post

MIB = 1 << 20
SIZE = 3 * MIB + 12_345
GIB_2 = 2 << 30
KINDS = ("nginx", "caddy")
FIRST_CHUNK = 128 * 1024

StartProxy = Callable[..., Awaitable[Proxy]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def start_proxy(kind: str, tmp_path: Path) -> AsyncIterator[StartProxy]:
    """Starts a proxy before the given workers."""
    running: list[Any] = []

    async def start(*workers: str, gallery: str = NOBODY) -> Proxy:
        addresses = tuple(each.removeprefix("http://") for each in workers)
        sites = Sites(addresses, gallery.removeprefix("http://"), free_port(), free_port())
        running.append(running_proxy(kind, tmp_path / f"proxy-{len(running)}", sites))
        proxy: Proxy = await running[-1].__aenter__()
        return proxy

    yield start
    for each in reversed(running):
        await each.__aexit__(None, None, None)


@asynccontextmanager
async def visitor(proxy: Proxy, **options: Any) -> AsyncIterator[ClientSession]:
    """An HTTP client that trusts the proxy's certificate and takes bodies as they are."""
    connector = TCPConnector(ssl=proxy.trust, **options)
    async with ClientSession(connector=connector, auto_decompress=False) as session:
        yield session


def film_bytes(start: int, stop: int, size: int = SIZE) -> bytes:
    return SyntheticContent(size, 7).read(start, stop - start)


# -- what comes through --------------------------------------------------------------------------

RANGES = [
    None,
    "bytes=0-",
    "bytes=0-0",
    "bytes=0-1",
    f"bytes=0-{SIZE - 1}",
    f"bytes=0-{SIZE + 10}",
    f"bytes={MIB}-{2 * MIB - 1}",
    f"bytes={MIB - 1}-{MIB}",
    f"bytes={2 * MIB + 777}-",
    f"bytes={SIZE - 1}-",
    "bytes=-1",
    "bytes=-70000",
    f"bytes=-{SIZE + 5}",
    f"bytes={SIZE}-",
    f"bytes={SIZE + 9}-{SIZE + 99}",
    "bytes=-0",
    "bytes=abc",
    "bytes=5-2",
    "items=0-1",
    "bytes=0-5,3-9",
    "bytes=0-9,100-199,-7",
    f"bytes=0-0,{SIZE}-",
    "bytes= 1-2 ",
    "bytes=,1-2,,",
    "bytes=0-1;5-6",
]
# These a proxy writes itself, or they belong to one connection only.
OF_THE_PROXY = {"alt-svc", "connection", "date", "keep-alive", "server", "via"}

Answer = tuple[int, dict[str, str], bytes]


async def answer_of(response: ClientResponse) -> Answer:
    """Status, headers and body; the random boundary of multipart answers is made the same."""
    body = await response.read()
    headers = {name.lower(): value for name, value in response.headers.items()}
    assert len(headers) == len(response.headers), "a header came twice"
    headers = {name: value for name, value in headers.items() if name not in OF_THE_PROXY}
    found = re.search("boundary=([0-9a-f]+)", headers.get("content-type", ""))
    if found:
        body = body.replace(found[1].encode(), b"boundary")
        headers["content-type"] = headers["content-type"].replace(found[1], "boundary")
    if "location" in headers:  # a renewed token says when it was made
        headers["location"] = re.sub(r"\btoken=[^&]+", "token=", headers["location"])
    return response.status, headers, body


def requests_for(
    stage: Stage, post: Post, etag: str, modified: str
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Method, path and headers of every kind of request there is."""
    path, bare = stage.path(post), stage.path(post).partition("?")[0]
    origin = ("Origin", "https://films.example")
    requests = [
        (method, path, [] if value is None else [("Range", value)])
        for method in ("GET", "HEAD")
        for value in RANGES
    ]
    for headers in (
        [("If-None-Match", etag)],
        [("If-None-Match", '"another"')],
        [("If-Modified-Since", modified)],
        [("If-Match", '"another"')],
        [("If-Match", etag), ("Range", "bytes=5-9")],
        [("If-Unmodified-Since", "Thu, 01 Jan 2009 00:00:00 GMT")],
        [("If-Range", etag), ("Range", "bytes=5-9")],
        [("If-Range", modified), ("Range", "bytes=5-9")],
        [("If-Range", '"another"'), ("Range", "bytes=5-9")],
        [("If-None-Match", etag), ("Range", "bytes=5-9")],
        [("Range", "bytes=0-1"), ("Range", "bytes=5-6")],
        [("Accept-Encoding", "gzip, br"), ("Range", "bytes=5-9")],
        [origin, ("Range", "bytes=5-9")],
    ):
        requests += [("GET", path, headers), ("HEAD", path, headers)]
    renewal = stage.token(post, aud="renewal", iat=None, exp=int(time.time()) + 7200)
    expired = stage.path(post, exp=1_700_000_000)
    return [
        *requests,
        ("GET", bare, [("Authorization", f"Bearer {stage.token(post)}"), ("Range", "bytes=5-9")]),
        ("GET", path + "&download=1", [("Range", "bytes=5-9")]),
        ("GET", path.replace("?", "/Am%C3%A9lie%20%7B1%7D.mp4?"), [("Range", "bytes=5-9")]),
        ("GET", path.replace("?", "/a%0Ab%09c%2Fd%3Fe.mp4?"), [("Range", "bytes=5-9")]),
        ("GET", path.replace("/stream/", "//stream/"), []),
        ("GET", path.replace("/stream/", "/stream/../stream/"), []),
        ("GET", bare, []),
        ("GET", bare + "?token=nonsense", []),
        ("GET", expired, []),
        ("GET", f"{bare}?token={make_token('-1/1')}", [origin]),
        ("GET", path.replace(f"/{post.id}?", "/999999?"), []),
        ("GET", f"{expired}&renew={renewal}", [("Range", "bytes=5-9")]),
        ("GET", stage.path(post, "thumbnail"), []),
        ("GET", f"/files/{stage.channel.chat_id}?limit=0", []),
        ("OPTIONS", bare, [origin, ("Access-Control-Request-Method", "GET")]),
        ("POST", path, []),
        ("DELETE", path, []),
        ("GET", "/", []),
    ]


async def test_every_kind_of_request_comes_through_unchanged(
    stage: Stage, start_worker_process: StartProcess, start_proxy: StartProxy
) -> None:
    worker = await start_worker_process()
    proxy = await start_proxy(worker.url)
    post = stage.post_synthetic(SIZE)
    seen: set[int] = set()
    async with visitor(proxy) as session, ClientSession(auto_decompress=False) as direct:
        head = await session.head(proxy.worker_url + stage.path(post))
        etag, modified = head.headers["ETag"], head.headers["Last-Modified"]
        for method, path, headers in requests_for(stage, post, etag, modified):
            said = f"{method} {path.partition('token=')[0]} {headers}"
            answers = [
                await answer_of(
                    await each.request(
                        method,
                        URL(base + path, encoded=True),
                        headers=headers,
                        allow_redirects=False,
                    )
                )
                for each, base in ((direct, worker.url), (session, proxy.worker_url))
            ]
            assert answers[0] == answers[1], said
            seen.add(answers[0][0])
    assert seen >= {200, 204, 206, 304, 307, 401, 403, 404, 405, 412, 416}


async def test_browsers_are_offered_http_2_and_a_modern_tls(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(NOBODY)
    for oldest, offered in ((ssl.TLSVersion.TLSv1_2, ["h2", "http/1.1"]), (None, ["http/1.1"])):
        trust = ssl.create_default_context(cafile=str(proxy.authority_path))
        trust.minimum_version = oldest or ssl.TLSVersion.TLSv1_3
        trust.set_alpn_protocols(offered)
        _, writer = await asyncio.open_connection(
            "127.0.0.1", proxy.sites.https_port, ssl=trust, server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == offered[0]
        writer.close()


async def test_plain_http_leads_to_https(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(NOBODY)
    async with visitor(proxy) as session:
        url = f"http://localhost:{proxy.sites.http_port}/stream/-1/1?token=abc"
        response = await session.get(url, allow_redirects=False)
    assert response.status in (301, 308)
    target = URL(response.headers["Location"])
    assert (target.scheme, target.host, target.path_qs) == (
        "https",
        "localhost",
        "/stream/-1/1?token=abc",
    )


# -- how it comes through ------------------------------------------------------------------------


@pytest.fixture
async def worker(start_worker_process: StartProcess) -> WorkerProcess:
    return await start_worker_process()


@pytest.fixture
async def proxy(worker: WorkerProcess, start_proxy: StartProxy) -> Proxy:
    return await start_proxy(worker.url)


async def settle(stage: Stage, post: Post) -> int:
    """How much Telegram has served once it is asked for no more."""
    count = stage.count(post)
    settled = -1
    while settled != count.requests:
        settled = count.requests
        await asyncio.sleep(0.3)
    return stage.served(post)


def near_viewer(info: AddrInfoType) -> socket.socket:
    """A socket that takes little in advance: what is read ahead is then others' doing."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
    return made


def most_ahead_bytes() -> int:
    """How far Telegram may be ahead of one who does not read: a proxy that keeps answers would be
    a GiB ahead and more.

    What the proxy has not read of the worker, and what either has not sent, is in the system's
    buffers, whose limits count in their own way; hence twice. The worker's window comes on top,
    and again after each long stall, since it is given up meanwhile.
    """
    rmem, wmem = (Path(f"/proc/sys/net/ipv4/tcp_{name}mem").read_text().split() for name in "rw")
    return 2 * (int(rmem[2]) + 2 * int(wmem[2])) + 32 * MIB


async def test_a_slow_viewer_makes_nobody_fetch_the_film(stage: Stage, proxy: Proxy) -> None:
    post = stage.post_synthetic(GIB_2)
    async with (
        visitor(proxy, socket_factory=near_viewer) as session,
        session.get(proxy.worker_url + stage.path(post)) as response,
    ):
        read_bytes = 0
        for wanted in (MIB, 15 * MIB, MIB):
            body = await response.content.readexactly(wanted)
            assert (body == film_bytes(read_bytes, read_bytes + wanted, GIB_2)) is True
            read_bytes += wanted
            assert await settle(stage, post) - read_bytes < most_ahead_bytes()


async def test_a_viewer_who_leaves_stops_the_fetching(stage: Stage, proxy: Proxy) -> None:
    post = stage.post_synthetic(GIB_2)
    async with visitor(proxy) as session:
        response = await session.get(proxy.worker_url + stage.path(post))
        await response.content.readexactly(MIB)
        response.close()
        viewers = 1
        while viewers:
            async with session.get(f"{proxy.worker_url}/health") as health:
                viewers = (await health.json())["viewers"]
    assert await settle(stage, post) < most_ahead_bytes()


async def test_the_first_bytes_do_not_wait_for_the_rest(stage: Stage, proxy: Proxy) -> None:
    """Telegram gives the first chunk of 128 KiB and holds all others back."""
    post = stage.post_synthetic(SIZE)
    rest = stage.telegram.trouble.flood_wait(15, after=1, times=99)
    async with (
        visitor(proxy) as session,
        session.get(proxy.worker_url + stage.path(post)) as response,
    ):
        assert response.status == 200
        start = await response.content.readexactly(FIRST_CHUNK)
        assert (start == film_bytes(0, FIRST_CHUNK)) is True
        assert stage.served(post) == FIRST_CHUNK
        stage.telegram.trouble.faults.remove(rest)


async def test_a_body_that_breaks_off_does_not_look_complete(
    stage: Stage, worker: WorkerProcess, proxy: Proxy
) -> None:
    post = stage.post_synthetic(12 * MIB)
    trouble = Fault("error", method="upload.getFile", code=400, message="LOCATION_INVALID")
    async with (
        visitor(proxy) as session,
        session.get(proxy.worker_url + stage.path(post)) as response,
    ):
        body = bytearray(await response.content.readexactly(MIB))
        trouble.times = 99
        stage.telegram.trouble.plan(trouble)
        assert await broke_off(response, body)
    assert len(body) < 12 * MIB
    assert (bytes(body) == film_bytes(0, len(body), 12 * MIB)) is True
    assert "dropped" in worker.log


# -- several workers, and one that is away -------------------------------------------------------


async def answered(workers: list[WorkerProcess], answers: int) -> list[int]:
    """How many of so many answers each worker has sent; it writes its line after the last byte."""
    while True:
        counts = [each.log.count("GET /stream/") for each in workers]
        if sum(counts) >= answers:
            return counts
        await asyncio.sleep(0.02)


async def test_a_film_stays_with_one_worker_and_moves_on_when_that_is_gone(
    stage: Stage, start_worker_process: StartProcess, start_proxy: StartProxy
) -> None:
    small = 100_000  # all of them fit into a worker's cache
    workers = [await start_worker_process() for _ in range(2)]
    proxy = await start_proxy(*(each.url for each in workers))
    posts = [stage.post_synthetic(small) for _ in range(20)]

    async def watch_all(session: ClientSession, lifetime_s: int) -> None:
        for post in posts:
            # Each time with another token, as real viewers come.
            path = stage.path(post, exp=int(time.time()) + lifetime_s)
            async with session.get(proxy.worker_url + path) as response:
                assert response.status == 200
                assert (await response.read() == film_bytes(0, small, small)) is True

    async with visitor(proxy) as session:
        await watch_all(session, 1000)
        once = await answered(workers, len(posts))
        await watch_all(session, 2000)
        # Both have work, and each film was fetched once though it was watched twice.
        assert min(once) > 0
        assert await answered(workers, 2 * len(posts)) == [2 * count for count in once]
        assert [stage.served(post) for post in posts] == [small] * len(posts)
        await workers[0].stop()
        await watch_all(session, 3000)
        assert await answered(workers[1:], 2 * once[1] + len(posts)) == [2 * once[1] + len(posts)]


async def test_a_worker_that_is_away_is_a_passing_trouble(
    stage: Stage, start_worker_process: StartProcess, start_proxy: StartProxy
) -> None:
    first = await start_worker_process()
    proxy = await start_proxy(first.url)
    post = stage.post_synthetic(1000)
    async with visitor(proxy) as session:
        url = proxy.worker_url + stage.path(post)
        async with session.get(url) as response:
            assert response.status == 200
        await first.stop()
        async with session.get(url) as response:
            assert response.status in (502, 503)
        await start_worker_process(PORT=first.url.rpartition(":")[2])
        status = 0
        while status != 200:
            async with session.get(url) as response:
                status = response.status
                assert status in (200, 502, 503)


# -- what the logs say ---------------------------------------------------------------------------


async def test_no_log_of_a_proxy_opens_a_film(
    stage: Stage, worker: WorkerProcess, start_proxy: StartProxy
) -> None:
    """After answers, refusals, breaks, and with nobody behind it."""
    proxy = await start_proxy(worker.url)
    post = stage.post_synthetic(12 * MIB)
    token, share = stage.token(post), write_share(JWT_SECRET, Share("a" * 12, -1, post.id, None))
    path, fresh = stage.path(post), stage.path(stage.post_synthetic(12 * MIB))
    renewal = f"{path}&renew={stage.token(post, aud='renewal')}"
    async with visitor(proxy) as session:

        async def ask(url: str, **headers: str) -> int:
            try:
                async with session.get(URL(url, encoded=True), headers=headers) as response:
                    await response.read()
                    return response.status
            except ClientPayloadError:
                return 0

        assert await ask(proxy.worker_url + path, Range="bytes=0-9") == 206
        assert (
            await ask(proxy.worker_url + renewal, Referer=f"https://a.example/embed/{share}") == 200
        )
        assert await ask(f"{proxy.worker_url}{path}broken") == 401
        assert await ask(f"{proxy.worker_url}{path}{'x' * 9000}") >= 400
        for door in (f"/v/{share}", f"/embed/{share}", f"/m3u/{share}/", f"/api/share/{share}/url"):
            assert await ask(f"{proxy.worker_url}{door}?token={token}") == 404
            headers = {"Host": f"{proxy.sites.gallery_name}:{proxy.sites.https_port}"}
            url = f"{proxy.worker_url}{door}?url={share}&token={token}"
            async with session.get(
                url, headers=headers, server_hostname=proxy.sites.gallery_name
            ) as away:
                assert away.status in (502, 503)
        assert await ask(proxy.worker_url + fresh, Range="bytes=0-9") == 206
        stage.telegram.trouble.plan(
            Fault("error", method="upload.getFile", code=400, message="LOCATION_INVALID", times=99)
        )
        assert await ask(proxy.worker_url + fresh, Range="bytes=9000000-") == 502
        assert await ask(proxy.worker_url + fresh) == 0
        await worker.stop()
        assert await ask(proxy.worker_url + path) in (502, 503)
    logs = proxy.logs
    assert logs.count(path.partition("?")[0]) >= 4
    assert f"/v/{share[:12]}" in logs
    for secret in (token.split(".")[2], "token=", share[12:30], share[30:], "a.example"):
        assert secret not in logs


# -- the files themselves ------------------------------------------------------------------------


def test_caddy_finds_its_file_valid_and_in_shape(tmp_path: Path) -> None:
    shipped = DEPLOY / "Caddyfile"
    environ = {"HOME": str(tmp_path)}
    done = subprocess.run(
        [command("caddy"), "validate", "--adapter", "caddyfile", "--config", shipped],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"level":"warn"' not in done.stderr
    shape = subprocess.run(
        [command("caddy"), "fmt", shipped], env=environ, capture_output=True, text=True, check=True
    )
    assert shape.stdout == shipped.read_text()


def test_nginx_finds_its_file_valid(tmp_path: Path) -> None:
    sites = Sites(("127.0.0.1:10000",), "127.0.0.1:8080", free_port(), free_port())
    write_certificate(tmp_path, (sites.worker_name,))
    done = subprocess.run(
        [*nginx_command(tmp_path, sites), "-t"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "[" in line]
    # From 1.25 on nginx has another word for it, which older ones refuse.
    assert [
        line for line in said if 'the "listen ... http2" directive is deprecated' not in line
    ] == []


def test_a_proxy_is_more_patient_than_the_worker_and_forgets_connections_sooner() -> None:
    """A limit that is shorter shows only after a minute of silence, so the numbers are compared."""
    nginx, caddy = ((DEPLOY / name).read_text() for name in ("nginx.conf", "Caddyfile"))
    waits = re.findall(r"proxy_read_timeout (\d+)s|response_header_timeout (\d+)s", nginx + caddy)
    assert len(waits) == 3
    assert all(int("".join(each)) > worker_module.HOLD_MIDWAY_S for each in waits)
    kept = re.findall(r"keepalive_timeout (\d+)s|\bkeepalive (\d+)s", nginx + caddy)
    assert len(kept) == 3
    assert all(int("".join(each)) < worker_module.KEEP_ALIVE_S for each in kept)
