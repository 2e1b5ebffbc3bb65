"""What a viewer gets from /stream: the right bytes and headers, for every kind of request.

Method: a worker on the pocket Telegram, real sockets on both sides; every body is compared with the
content made from its own offset.
"""

from __future__ import annotations

import asyncio
import email.parser
import email.policy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import worker
from aiohttp import ClientPayloadError, ClientResponse
from aiohttp.test_utils import TestClient
from conftest import Stage, StartClient, make_token
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import PhotoSize, Post

MIB = 1 << 20
SIZE = 5 * MIB + 12_345
GIB_2 = 2 << 30

Viewer = TestClient[Any, Any]


async def broke_off(response: ClientResponse, body: bytearray) -> bool:
    """Read on into `body`; whether it ended by a broken connection and not by its last byte."""
    try:
        while piece := await response.content.readany():
            body += piece
    except ClientPayloadError:
        return True
    return False


def film_bytes(start: int, stop: int, size: int = SIZE) -> bytes:
    return SyntheticContent(size, 7).read(start, stop - start)


async def test_a_whole_film_arrives_byte_for_byte(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    response = await viewer.get(stage.path(post))
    assert response.status == 200
    assert response.headers["Content-Length"] == str(SIZE)
    assert response.headers["Accept-Ranges"] == "bytes"
    assert "Content-Range" not in response.headers
    assert "Transfer-Encoding" not in response.headers
    assert "Content-Encoding" not in response.headers
    assert await response.read() == film_bytes(0, SIZE)
    assert stage.served(post) == SIZE


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-", 0, SIZE),
        ("bytes=0-0", 0, 1),
        ("bytes=0-1", 0, 2),
        (f"bytes=0-{SIZE - 1}", 0, SIZE),
        (f"bytes=0-{SIZE + 10}", 0, SIZE),
        (f"bytes={MIB}-{2 * MIB - 1}", MIB, 2 * MIB),
        (f"bytes={MIB - 1}-{MIB}", MIB - 1, MIB + 1),
        (f"bytes=0-{MIB}", 0, MIB + 1),
        (f"bytes={3 * MIB + 777}-", 3 * MIB + 777, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-70000", SIZE - 70000, SIZE),
        (f"bytes=-{SIZE + 5}", 0, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
async def test_one_range_is_206_and_exact(
    stage: Stage, viewer: Viewer, header: str, start: int, stop: int
) -> None:
    post = stage.post_synthetic(SIZE)
    response = await viewer.get(stage.path(post), headers={"Range": header})
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert response.headers["Content-Length"] == str(stop - start)
    assert await response.read() == film_bytes(start, stop)


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE + 9}-{SIZE + 99}"])
async def test_a_range_past_the_end_is_416(stage: Stage, viewer: Viewer, header: str) -> None:
    post = stage.post_synthetic(SIZE)
    response = await viewer.get(stage.path(post), headers={"Range": header})
    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"
    assert response.headers["Cache-Control"] == "no-store"
    assert (await response.json())["error"]["code"] == "range_not_satisfiable"
    assert stage.served(post) == 0


@pytest.mark.parametrize(
    "header", ["bytes=abc", "bytes=5-2", "items=0-1", "bytes=0-5,3-9", "bytes=0-,0-"]
)
async def test_a_range_that_is_ignored_gives_the_whole_file(
    stage: Stage, viewer: Viewer, header: str
) -> None:
    post = stage.post_synthetic(300_000)
    response = await viewer.get(stage.path(post), headers={"Range": header})
    assert response.status == 200
    assert await response.read() == film_bytes(0, 300_000, 300_000)


async def test_two_range_headers_give_the_whole_file(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(1000)
    headers = [("Range", "bytes=0-1"), ("Range", "bytes=5-6")]
    response = await viewer.get(stage.path(post), headers=headers)
    assert response.status == 200


async def test_several_ranges_are_multipart(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    pairs = [(0, 10), (MIB - 3, MIB + 3), (SIZE - 5, SIZE)]
    header = "bytes=" + ",".join(f"{start}-{stop - 1}" for start, stop in pairs)
    response = await viewer.get(stage.path(post), headers={"Range": header})
    body = await response.read()
    assert response.status == 206
    assert "Content-Range" not in response.headers
    assert response.headers["Content-Length"] == str(len(body))
    head = f"Content-Type: {response.headers['Content-Type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    assert message.get_content_type() == "multipart/byteranges"
    parts = message.get_payload()
    assert len(parts) == len(pairs)
    for part, (start, stop) in zip(parts, pairs, strict=True):
        assert part["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert part["Content-Type"] == "video/mp4"
        assert part.get_payload(decode=True) == film_bytes(start, stop)


async def test_many_ranges_never_fetch_more_than_the_file(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    header = "bytes=" + ",".join(f"{n * 7}-{n * 7 + 1}" for n in range(500))
    response = await viewer.get(stage.path(post), headers={"Range": header})
    assert response.status == 200
    assert len(await response.read()) == SIZE
    assert stage.served(post) <= SIZE


@given(start=st.integers(0, GIB_2 - 1), length=st.integers(1, 3 * MIB))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_random_ranges_of_a_2_gib_film_are_exact(
    stage: Stage, viewer: Viewer, start: int, length: int
) -> None:
    posts = list(stage.channel.posts.values())
    post = posts[-1] if posts[-1].media else stage.post_synthetic(GIB_2)
    stop = min(start + length, GIB_2)
    headers = {"Range": f"bytes={start}-{start + length - 1}"}
    response = await viewer.get(stage.path(post), headers=headers)
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{GIB_2}"
    assert await response.read() == film_bytes(start, stop, GIB_2)


async def test_the_same_document_in_two_posts_is_fetched_once(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(MIB)
    twin = stage.telegram.world.post(stage.channel, post.media)
    for each in (post, twin):
        response = await viewer.get(stage.path(each))
        assert await response.read() == film_bytes(0, MIB, MIB)
    assert stage.served(post) == MIB


# -- conditional requests ------------------------------------------------------------------------


async def test_if_range_with_the_tag_or_the_date_resumes(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    first = await viewer.head(stage.path(post))
    for validator in (first.headers["ETag"], first.headers["Last-Modified"]):
        headers = {"Range": "bytes=5-9", "If-Range": validator}
        response = await viewer.get(stage.path(post), headers=headers)
        assert response.status == 206
        assert await response.read() == film_bytes(5, 10)


async def test_if_range_of_a_replaced_film_gives_the_new_one_whole(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(1000)
    headers = {"Range": "bytes=5-9", "If-Range": '"another"'}
    response = await viewer.get(stage.path(post), headers=headers)
    assert response.status == 200
    assert await response.read() == film_bytes(0, 1000, 1000)


async def test_a_known_film_is_304_without_a_byte(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    head = await viewer.head(stage.path(post))
    response = await viewer.get(stage.path(post), headers={"If-None-Match": head.headers["ETag"]})
    assert response.status == 304
    assert await response.read() == b""
    for name in ("ETag", "Last-Modified", "Cache-Control"):
        assert response.headers[name] == head.headers[name]
    assert stage.served(post) == 0


async def test_if_match_of_another_film_is_412(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    response = await viewer.get(stage.path(post), headers={"If-Match": '"another"'})
    assert response.status == 412
    assert (await response.json())["error"]["code"] == "precondition_failed"


async def test_the_entity_tag_changes_with_the_document_only(stage: Stage, viewer: Viewer) -> None:
    first, second = stage.post_synthetic(1000), stage.post_synthetic(1000)
    again = stage.telegram.world.post(stage.channel, first.media)
    tags = [
        (await viewer.head(stage.path(post))).headers["ETag"] for post in (first, second, again)
    ]
    assert tags[0] == tags[2] != tags[1]
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)


# -- methods and headers -------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "bytes=0-", "bytes=10-19", "bytes=-7", "bytes=99999999-"])
async def test_head_equals_get_in_every_header(
    stage: Stage, viewer: Viewer, header: str | None
) -> None:
    post = stage.post_synthetic(SIZE)
    headers = {"Range": header} if header else {}
    head = await viewer.head(stage.path(post), headers=headers)
    assert await head.read() == b""
    assert stage.served(post) == 0
    get = await viewer.get(stage.path(post), headers=headers)
    await get.read()
    drop = {"Date"}
    assert head.status == get.status
    assert {k: v for k, v in head.headers.items() if k not in drop} == {
        k: v for k, v in get.headers.items() if k not in drop
    }


async def test_preflight_allows_range_and_exposes_what_players_read(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(1000)
    asked = {
        "Origin": "https://films.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range",
    }
    response = await viewer.options(stage.path(post).partition("?")[0], headers=asked)
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "range" in response.headers["Access-Control-Allow-Headers"].lower()
    assert {"GET", "HEAD", "OPTIONS"} <= set(
        response.headers["Access-Control-Allow-Methods"].split(", ")
    )
    get = await viewer.get(stage.path(post), headers={"Origin": "https://films.example"})
    exposed = {name.strip() for name in get.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"Content-Range", "Accept-Ranges", "Content-Length", "ETag"} <= exposed
    assert get.headers["Access-Control-Allow-Origin"] == "*"


async def test_only_allowed_origins_are_echoed(stage: Stage, start_worker: StartClient) -> None:
    viewer = await start_worker(allowed_origins=("https://a.example", "https://b.example"))
    post = stage.post_synthetic(1000)
    for origin, allowed in (("https://b.example", True), ("https://c.example", False)):
        response = await viewer.get(stage.path(post), headers={"Origin": origin})
        assert response.headers["Vary"] == "Origin"
        assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405_with_allow(stage: Stage, viewer: Viewer, method: str) -> None:
    post = stage.post_synthetic(1000)
    response = await viewer.request(method, stage.path(post))
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert (await response.json())["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("given_type", "file_name", "expected"),
    [
        ("video/mp4", "film.mp4", "video/mp4"),
        ("video/x-matroska", "film", "video/x-matroska"),
        ("", "film.mkv", "video/x-matroska"),
        ("application/octet-stream", "film.webm", "video/webm"),
        ("application/octet-stream", "film", "application/octet-stream"),
        ("", None, "application/octet-stream"),
        ("video/mp4\r\nX-Evil: 1", "film.webm", "video/webm"),
        ("nonsense", "film.mp4", "video/mp4"),
    ],
)
async def test_content_type(
    stage: Stage, viewer: Viewer, given_type: str, file_name: str | None, expected: str
) -> None:
    post = stage.post(BytesContent(b"film"), given_type, file_name=file_name)
    response = await viewer.get(stage.path(post))
    assert response.headers["Content-Type"] == expected
    assert "X-Evil" not in response.headers
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("film.mp4", 'inline; filename="film.mp4"'),
        ("a b (1).mp4", 'inline; filename="a b (1).mp4"'),
        (
            "Амели.mp4",
            "inline; filename=\"_____.mp4\"; filename*=UTF-8''%D0%90%D0%BC%D0%B5%D0%BB%D0%B8.mp4",
        ),
        ('a"b\\c/d.mp4', "inline; filename=\"a_b c d.mp4\"; filename*=UTF-8''a%22b%20c%20d.mp4"),
        ("a\r\nX-Evil: 1.mp4", 'inline; filename="aX-Evil: 1.mp4"'),
        (
            "映画🎬.mp4",
            "inline; filename=\"___.mp4\"; filename*=UTF-8''%E6%98%A0%E7%94%BB%F0%9F%8E%AC.mp4",
        ),
    ],
)
def test_content_disposition_in_any_script(name: str, disposition: str) -> None:
    assert worker.content_disposition(name, attachment=False) == disposition


async def test_download_is_an_attachment_and_the_path_may_carry_a_name(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(1000, file_name="Amélie.mp4")
    path = stage.path(post).replace("?", "/whatever%20name.mp4?")
    response = await viewer.get(path + "&download=1")
    assert response.status == 200
    assert response.headers["Content-Disposition"] == (
        "attachment; filename=\"Am_lie.mp4\"; filename*=UTF-8''Am%C3%A9lie.mp4"
    )


async def test_a_posted_page_cannot_run_scripts(stage: Stage, viewer: Viewer) -> None:
    post = stage.post(BytesContent(b"<script>"), "text/html", file_name="page.html")
    response = await viewer.get(stage.path(post))
    assert response.headers["Content-Security-Policy"].startswith("sandbox")


@pytest.mark.parametrize(
    "kind", ["video", "round_video", "audio", "voice", "animation", "document"]
)
async def test_every_kind_of_file_streams(stage: Stage, viewer: Viewer, kind: str) -> None:
    post = stage.post_synthetic(200_000, kind=kind, file_name=None, mime_type="video/mp4")
    response = await viewer.get(stage.path(post), headers={"Range": "bytes=100000-"})
    assert response.status == 206
    assert await response.read() == film_bytes(100_000, 200_000, 200_000)
    assert "filename=" in response.headers["Content-Disposition"]


async def test_a_photo_streams_in_its_largest_size(stage: Stage, viewer: Viewer) -> None:
    sizes = [
        PhotoSize("m", 320, 240, SyntheticContent(9_000, 1)),
        PhotoSize("y", 1280, 960, SyntheticContent(190_000, 2)),
        PhotoSize("x", 800, 600, SyntheticContent(80_000, 3)),
    ]
    photo = stage.telegram.world.new_photo(*sizes, dc_id=4)
    post = stage.telegram.world.post(stage.channel, photo)
    response = await viewer.get(stage.path(post))
    assert response.headers["Content-Type"] == "image/jpeg"
    assert await response.read() == SyntheticContent(190_000, 2).read(0, 190_000)
    tile = await viewer.get(stage.path(post, "thumbnail"))
    assert tile.headers["Content-Type"] == "image/jpeg"
    assert await tile.read() == SyntheticContent(9_000, 1).read(0, 9_000)


async def test_a_message_without_a_file_is_404(stage: Stage, viewer: Viewer) -> None:
    post = stage.telegram.world.post(stage.channel, None, "only words")
    response = await viewer.get(stage.path(post))
    assert response.status == 404
    assert (await response.json())["error"]["code"] == "file_missing"


async def test_a_message_that_does_not_exist_is_404(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(1000)
    stage.telegram.world.delete(post)
    assert (await viewer.get(stage.path(post))).status == 404


async def test_a_channel_without_the_bot_is_404(stage: Stage, viewer: Viewer) -> None:
    foreign = stage.telegram.world.add_channel("Not ours")
    post = stage.telegram.world.post(foreign, stage.post_synthetic(1000).media)
    path = f"/stream/{foreign.chat_id}/{post.id}?token="
    response = await viewer.get(path + make_token(f"{foreign.chat_id}/{post.id}"))
    assert response.status == 404
    assert (await response.json())["error"]["code"] == "channel_missing"


@pytest.mark.parametrize("path", ["/", "/stream/abc/1", "/stream/-100/01", "/stream/-100", "/x"])
async def test_unknown_paths_are_404_json(viewer: Viewer, path: str) -> None:
    response = await viewer.get(path)
    assert response.status == 404
    assert (await response.json())["error"]["code"] == "not_found"
    assert response.headers["Cache-Control"] == "no-store"


# -- what it costs Telegram ----------------------------------------------------------------------


async def test_a_probe_of_two_bytes_costs_one_small_chunk(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(GIB_2)
    response = await viewer.get(stage.path(post), headers={"Range": "bytes=0-1"})
    assert await response.read() == film_bytes(0, 2, GIB_2)
    assert stage.served(post) == 128 * 1024


async def test_every_byte_is_fetched_once(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(30 * MIB)
    response = await viewer.get(stage.path(post), headers={"Range": "bytes=0-"})
    assert len(await response.read()) == 30 * MIB
    assert stage.served(post) == 30 * MIB


async def test_viewers_of_the_same_place_share_one_fetch(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(4 * MIB)

    async def watch() -> bytes:
        async with viewer.get(stage.path(post)) as response:
            return await response.read()

    bodies = await asyncio.gather(*(watch() for _ in range(10)))
    assert set(bodies) == {film_bytes(0, 4 * MIB, 4 * MIB)}
    assert stage.served(post) == 4 * MIB


async def test_several_requests_are_in_flight_but_not_too_many(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(24 * MIB)
    count = stage.count(post)
    in_flight = []
    stage.telegram.trouble.round_trip_s = 0.05
    async with viewer.get(stage.path(post)) as response:
        while await response.content.readany():
            in_flight.append(count.bytes_asked - count.bytes_served)
    assert max(in_flight) >= 2 * MIB
    assert max(in_flight) <= 4 * MIB + worker.DEMAND_EXTRA_BYTES


async def test_a_viewer_who_leaves_stops_the_fetching(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(GIB_2)
    response = await viewer.get(stage.path(post))
    await response.content.readexactly(MIB)
    response.close()
    count = stage.count(post)
    settled = -1
    while settled != count.requests:
        settled = count.requests
        await asyncio.sleep(0.3)
    assert stage.served(post) < 16 * MIB
    health = await (await viewer.get("/health")).json()
    assert health["viewers"] == 0


async def test_a_viewer_who_stalls_stops_the_fetching(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(GIB_2)
    async with viewer.get(stage.path(post)) as response:
        await response.content.readexactly(1000)
        count = stage.count(post)
        settled = -1
        while settled != count.requests:
            settled = count.requests
            await asyncio.sleep(0.3)
        assert stage.served(post) < 16 * MIB


async def test_more_viewers_than_memory_get_503(stage: Stage, start_worker: StartClient) -> None:
    viewer = await start_worker(memory_budget_mb=4)
    post = stage.post_synthetic(GIB_2)
    responses = [await viewer.get(stage.path(post)) for _ in range(16)]
    refused = await viewer.get(stage.path(post))
    assert [response.status for response in responses] == [200] * 16
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert (await refused.json())["error"]["code"] == "too_many_viewers"
    for response in responses:
        response.close()


# -- trouble -------------------------------------------------------------------------------------


async def test_an_expired_reference_in_mid_film_is_invisible(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(12 * MIB)
    assert post.media is not None
    async with viewer.get(stage.path(post)) as response:
        body = bytearray(await response.content.readexactly(MIB))
        stage.telegram.world.expire_references(post.media.id)
        body += await response.content.read(-1)
    assert bytes(body) == film_bytes(0, 12 * MIB, 12 * MIB)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("error", method="upload.getFile", code=420, message="FLOOD_WAIT_1", after=2),
        Fault("error", method="upload.getFile", code=420, message="FLOOD_PREMIUM_WAIT_1", after=2),
        Fault("error", method="upload.getFile", code=500, message="TIMEOUT", after=2, times=2),
        Fault("error", method="upload.getFile", code=-503, message="Timeout", after=2, times=2),
        Fault("cut_before", method="upload.getFile", after=2),
        Fault("cut_during", method="upload.getFile", after=2),
        Fault("cut_after", method="upload.getFile", after=2),
        Fault("short", method="upload.getFile", after=2),
        Fault("error", method="upload.getFile", code=401, message="AUTH_KEY_UNREGISTERED", after=2),
    ],
    ids=lambda fault: f"{fault.kind} {fault.message}",
)
@pytest.mark.parametrize("dc_id", [2, 4], ids=["home", "foreign"])
async def test_trouble_in_mid_film_is_invisible(
    stage: Stage, viewer: Viewer, fault: Fault, dc_id: int
) -> None:
    post = stage.post_synthetic(6 * MIB, dc_id=dc_id)
    stage.telegram.trouble.plan(fault)
    response = await viewer.get(stage.path(post))
    assert await response.read() == film_bytes(0, 6 * MIB, 6 * MIB)
    assert fault.times <= 0


async def test_trouble_that_stays_drops_the_connection(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(12 * MIB)
    fault = Fault("error", method="upload.getFile", code=400, message="LOCATION_INVALID", times=99)
    async with viewer.get(stage.path(post)) as response:
        body = bytearray(await response.content.readexactly(MIB))
        stage.telegram.trouble.plan(fault)
        assert await broke_off(response, body)
    assert bytes(body) == film_bytes(0, len(body), 12 * MIB)


async def test_trouble_before_the_first_byte_is_a_clear_error(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(MIB)
    stage.telegram.trouble.plan(
        Fault("error", method="upload.getFile", code=400, message="LOCATION_INVALID", times=9)
    )
    response = await viewer.get(stage.path(post))
    assert response.status == 502
    assert (await response.json())["error"]["code"] == "telegram_failed"


async def test_a_long_flood_wait_is_told_with_retry_after(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(MIB)
    stage.telegram.trouble.flood_wait(300)
    response = await viewer.get(stage.path(post))
    assert response.status == 429
    assert 295 <= int(response.headers["Retry-After"]) <= 300
    assert (await response.json())["error"]["code"] == "flood_wait"


async def test_a_film_that_moved_to_another_data_centre_is_followed(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(3 * MIB, dc_id=4)
    stage.telegram.trouble.plan(
        Fault("error", method="upload.getFile", code=303, message="FILE_MIGRATE_4", dc_id=4)
    )
    response = await viewer.get(stage.path(post))
    assert await response.read() == film_bytes(0, 3 * MIB, 3 * MIB)


async def test_a_film_replaced_in_mid_stream_never_mixes(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(12 * MIB)
    other = stage.telegram.world.new_document(SyntheticContent(12 * MIB, 9), "video/mp4", 4)
    assert post.media is not None
    async with viewer.get(stage.path(post)) as response:
        body = bytearray(await response.content.readexactly(MIB))
        stage.telegram.world.edit(post, media=replace(other, date=datetime.now(UTC)))
        stage.telegram.world.expire_references(post.media.id)
        assert await broke_off(response, body)
    assert bytes(body) == film_bytes(0, len(body), 12 * MIB)


async def test_what_was_just_read_is_still_there_after_the_starts_of_many_films(
    stage: Stage, viewer: Viewer
) -> None:
    """The ends of films are kept longer, but never at the cost of all else."""
    post = stage.post_synthetic(64 * MIB)
    for _ in range(8):
        other = stage.post_synthetic(64 * MIB)
        await read_part(viewer, stage, other, 0, MIB)
    await read_part(viewer, stage, post, 30 * MIB, 30 * MIB + 1000)
    served = stage.served(post)
    await read_part(viewer, stage, post, 30 * MIB, 30 * MIB + 1000)
    assert stage.served(post) == served


async def read_part(viewer: Viewer, stage: Stage, post: Post, start: int, stop: int) -> None:
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    body = await (await viewer.get(stage.path(post), headers=headers)).read()
    assert len(body) == stop - start


async def test_a_name_with_braces_is_a_name_like_any_other(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(1000)
    path = stage.path(post).replace("?", "/film %7B2026%7D.mp4?")
    assert (await viewer.head(path)).status == 200
