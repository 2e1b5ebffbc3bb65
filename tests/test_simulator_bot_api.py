"""The Bot API door of the simulator, through real sockets.

Goal: what a bot library or the backend meets here is what it would meet at api.telegram.org.
Method: a small world with one bot in one channel; plain HTTP requests; every body is compared with
the content that it was made from, every refusal with Telegram's own text.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from telegram_simulator.bot_api import DOWNLOAD_BYTES_MAX, BotApiServer, byte_range
from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import Bot, Channel, Document, FileKind, PhotoSize, World

TOKEN = "7000000001:a-token-of-no-value"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Door:
    """A running Bot API and one bot's way to call it."""

    server: BotApiServer
    http: aiohttp.ClientSession
    bot: Bot
    channel: Channel
    clock: Clock
    tokens: list[str] = field(default_factory=list)

    @property
    def world(self) -> World:
        return self.server.world

    async def ask(self, method: str, **arguments: object) -> tuple[int, dict[str, Any]]:
        url = f"{self.server.url}/bot{self.bot.token}/{method}"
        async with self.http.post(url, json=arguments) as answer:
            return answer.status, await answer.json()

    async def result(self, method: str, **arguments: object) -> Any:
        status, body = await self.ask(method, **arguments)
        assert status == 200, body
        assert body["ok"] is True
        return body["result"]

    def document(self, size: int, mime: str = "video/mp4", kind: FileKind = "video") -> Document:
        made = self.world.new_document(SyntheticContent(size, seed=3), mime)
        return replace(
            made, file_name="film.mp4", kind=kind, duration_s=61.4, width=640, height=360
        )

    async def file_id_of(self, media: Document) -> str:
        """Post a file and take its id from the update that follows."""
        self.world.post(self.channel, media)
        update = (await self.result("getUpdates", offset=-1))[0]
        kind = next(kind for kind in update["channel_post"] if kind in ("video", "document"))
        return str(update["channel_post"][kind]["file_id"])

    async def download(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        url = f"{self.server.url}/file/bot{self.bot.token}/{path}"
        async with self.http.get(url, headers=headers) as answer:
            return answer.status, dict(answer.headers), await answer.read()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    world, clock = World(), Clock()
    bot = world.add_bot(TOKEN)
    channel = world.add_channel("Films", bot, username="films")
    async with (
        BotApiServer(world, clock=clock, webhook_retry_s=0.01) as server,
        aiohttp.ClientSession() as http,
    ):
        yield Door(server, http, bot, channel, clock)


# -- who may ask, and what -----------------------------------------------------------------------


async def test_the_bot_is_told_who_it_is(door: Door) -> None:
    me = await door.result("getMe")
    assert (me["id"], me["is_bot"], me["username"]) == (door.bot.id, True, door.bot.username)


@pytest.mark.parametrize("token", ["7000000001:wrong", "1:unknown", "nonsense"])
async def test_a_wrong_token_is_401(door: Door, token: str) -> None:
    async with door.http.get(f"{door.server.url}/bot{token}/getMe") as answer:
        body = await answer.json()
    assert answer.status == 401
    assert body == {"ok": False, "error_code": 401, "description": "Unauthorized"}


async def test_an_unknown_method_is_404(door: Door) -> None:
    status, body = await door.ask("sendSpaceship")
    assert (status, body["error_code"]) == (404, 404)
    assert body["description"] == "Not Found: method not found"


@pytest.mark.parametrize("path", ["/", "/bot", "/favicon.ico"])
async def test_any_other_address_is_404_in_telegrams_form(door: Door, path: str) -> None:
    async with door.http.get(door.server.url + path) as answer:
        assert (answer.status, (await answer.json())["description"]) == (404, "Not Found")


async def test_query_json_and_form_say_the_same(door: Door) -> None:
    url = f"{door.server.url}/bot{TOKEN}/getChat"
    arguments = {"chat_id": str(door.channel.chat_id)}
    answers = []
    ways: list[dict[str, Any]] = [{name: arguments} for name in ("params", "json", "data")]
    for how in ways:
        async with door.http.post(url, **how) as answer:
            answers.append(await answer.json())
    async with door.http.get(url, params=arguments) as answer:
        answers.append(await answer.json())
    assert answers == [answers[0]] * 4
    assert answers[0]["result"]["title"] == "Films"


async def test_method_names_are_read_in_any_case(door: Door) -> None:
    assert (await door.result("GETME"))["id"] == door.bot.id


async def test_broken_json_is_400(door: Door) -> None:
    url = f"{door.server.url}/bot{TOKEN}/getMe"
    headers = {"Content-Type": "application/json"}
    async with door.http.post(url, data=b"{", headers=headers) as answer:
        assert answer.status == 400


# -- posts as messages ---------------------------------------------------------------------------


async def test_a_video_comes_with_everything_that_telegram_tells(door: Door) -> None:
    picture = PhotoSize("m", 320, 180, BytesContent(b"jpeg"))
    film = replace(door.document(5000), thumbnails=(picture,))
    post = door.world.post(door.channel, film, "A film")
    (update,) = await door.result("getUpdates")
    message = update["channel_post"]
    assert message["message_id"] == post.id
    assert message["chat"] == message["sender_chat"]
    assert message["chat"] == {
        "id": door.channel.chat_id,
        "title": "Films",
        "type": "channel",
        "username": "films",
    }
    assert message["caption"] == "A film"
    assert "text" not in message
    video = message["video"]
    assert (video["duration"], video["width"], video["height"]) == (61, 640, 360)
    assert (video["file_name"], video["mime_type"]) == ("film.mp4", "video/mp4")
    assert video["file_size"] == 5000
    assert video["thumbnail"]["width"] == 320
    assert len({video["file_id"], video["thumbnail"]["file_id"]}) == 2


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("document", {"document"}),
        ("audio", {"audio"}),
        ("voice", {"voice"}),
        ("round_video", {"video_note"}),
        ("animation", {"animation", "document"}),
    ],
)
async def test_each_kind_has_its_own_field(door: Door, kind: FileKind, fields: set[str]) -> None:
    door.world.post(door.channel, door.document(10, kind=kind))
    (update,) = await door.result("getUpdates")
    common = {"message_id", "sender_chat", "chat", "date"}
    assert update["channel_post"].keys() - common == fields


async def test_a_film_lists_its_qualities_and_each_can_be_had(door: Door) -> None:
    blank = door.world.new_document
    quality = replace(
        blank(SyntheticContent(3000, seed=4), "video/mp4"),
        kind="video",
        width=640,
        height=360,
        video_codec="h265",
    )
    playlist = replace(
        blank(BytesContent(b"#EXTM3U"), "application/x-mpegurl"), file_name=f"mtproto:{quality.id}"
    )
    film = replace(door.document(5000), alternatives=(quality, playlist))
    door.world.post(door.channel, film)
    (update,) = await door.result("getUpdates")
    (told,) = update["channel_post"]["video"]["qualities"]
    assert (told["width"], told["height"], told["codec"]) == (640, 360, "h265")
    assert told["file_size"] == 3000
    assert told["file_id"] != update["channel_post"]["video"]["file_id"]
    path = (await door.result("getFile", file_id=told["file_id"]))["file_path"]
    assert path.startswith("videos/")
    assert (await door.download(path))[2] == quality.content.read(0, 3000)
    async with door.http.get(f"{door.server.url}/simulator/posts") as answer:
        (channel,) = await answer.json()
    listed = channel["posts"][-1]["alternatives"]
    assert [each["file_id"] for each in listed] == [quality.id, playlist.id]
    assert listed[0]["video_codec"] == "h265"
    assert listed[1]["file_name"] == f"mtproto:{quality.id}"


async def test_a_song_has_a_title_a_performer_and_a_cover(door: Door) -> None:
    cover = PhotoSize("m", 320, 320, BytesContent(b"jpeg"))
    song = replace(
        door.document(100, "audio/mpeg", "audio"),
        title="Overture",
        performer="The Band",
        thumbnails=(cover,),
    )
    door.world.post(door.channel, song)
    (update,) = await door.result("getUpdates")
    audio = update["channel_post"]["audio"]
    assert (audio["title"], audio["performer"], audio["duration"]) == ("Overture", "The Band", 61)
    assert audio["thumbnail"]["height"] == 320


async def test_an_album_has_one_id_and_a_reply_shows_what_it_answers(door: Door) -> None:
    sizes = (PhotoSize("m", 90, 90, BytesContent(b"x")),)
    group = door.world.new_group()
    first = door.world.post(door.channel, door.world.new_photo(*sizes), "Us", grouped_id=group)
    second = door.world.post(door.channel, door.document(10), grouped_id=group)
    reply = door.world.post(door.channel, text="Nice", reply_to=first.id)
    door.world.post(door.channel, text="Indeed", reply_to=reply.id)
    updates = [update["channel_post"] for update in await door.result("getUpdates")]
    assert [each.get("media_group_id") for each in updates] == [str(group)] * 2 + [None] * 2
    assert [each["message_id"] for each in updates[:2]] == [first.id, second.id]
    answered = updates[2]["reply_to_message"]
    assert (answered["message_id"], answered["caption"]) == (first.id, "Us")
    assert answered["photo"][0]["file_id"] == updates[0]["photo"][0]["file_id"]
    # One step only: what a reply's own reply answers is not told.
    assert "reply_to_message" not in updates[3]["reply_to_message"]


async def test_a_photo_lists_its_sizes_and_each_can_be_had(door: Door) -> None:
    small, big = BytesContent(b"small"), BytesContent(b"bigger")
    photo = door.world.new_photo(PhotoSize("m", 320, 200, small), PhotoSize("x", 800, 500, big))
    door.world.post(door.channel, photo)
    (update,) = await door.result("getUpdates")
    bodies = []
    for size in update["channel_post"]["photo"]:
        path = (await door.result("getFile", file_id=size["file_id"]))["file_path"]
        assert path.startswith("photos/")
        bodies.append((await door.download(path))[2])
    assert bodies == [b"small", b"bigger"]


async def test_text_is_text_and_an_edit_is_another_update(door: Door) -> None:
    post = door.world.post(door.channel, text="before")
    door.world.edit(post, text="after")
    first, second = await door.result("getUpdates")
    assert first["channel_post"]["text"] == "before"
    assert second["edited_channel_post"]["text"] == "after"
    assert second["edited_channel_post"]["edit_date"]


# -- files ---------------------------------------------------------------------------------------


async def test_a_file_comes_whole_and_by_range(door: Door) -> None:
    film = door.document(1_000_000)
    answer = await door.result("getFile", file_id=await door.file_id_of(film))
    assert answer["file_size"] == 1_000_000
    status, headers, body = await door.download(answer["file_path"])
    assert (status, body) == (200, film.content.read(0, film.content.size))
    assert headers["Accept-Ranges"] == "bytes"
    status, headers, body = await door.download(answer["file_path"], Range="bytes=777-99999")
    assert (status, headers["Content-Range"]) == (206, "bytes 777-99999/1000000")
    assert body == film.content.read(777, 99999 - 777 + 1)
    status, headers, _body = await door.download(answer["file_path"], Range="bytes=1000000-")
    assert (status, headers["Content-Range"]) == (416, "bytes */1000000")


@pytest.mark.parametrize(
    ("header", "window"),
    [
        (None, (0, 100)),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=99-", (99, 100)),
        ("bytes=10-1000", (10, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=-0", None),
        ("bytes=100-", None),
        ("bytes=100-200", None),
        ("bytes=20-10", (0, 100)),
        ("bytes=-", (0, 100)),
        ("bytes=a-b", (0, 100)),
        ("bytes=0-1,5-6", (0, 100)),
        ("items=0-1", (0, 100)),
    ],
)
def test_the_range_table(header: str | None, window: tuple[int, int] | None) -> None:
    assert byte_range(header, 100) == window


@pytest.mark.parametrize(
    ("size", "status"), [(DOWNLOAD_BYTES_MAX, 200), (DOWNLOAD_BYTES_MAX + 1, 400)]
)
async def test_get_file_stops_at_20_mb(door: Door, size: int, status: int) -> None:
    got, body = await door.ask("getFile", file_id=await door.file_id_of(door.document(size)))
    assert got == status
    if status == 400:
        expected = "Bad Request: file is too big"
        assert body == {"ok": False, "error_code": 400, "description": expected}


@pytest.mark.parametrize("file_id", ["x", "AAAA", "not base64!", "ä"])
async def test_a_made_up_file_id_is_refused(door: Door, file_id: str) -> None:
    status, body = await door.ask("getFile", file_id=file_id)
    assert (status, body["description"]) == (400, "Bad Request: invalid file_id")


async def test_a_file_id_opens_nothing_for_another_bot(door: Door) -> None:
    other = door.world.add_bot("7000000002:other")
    door.channel.members.add(other.id)
    mine = await door.file_id_of(door.document(10))
    door.bot = other
    update = (await door.result("getUpdates"))[0]
    theirs = update["channel_post"]["video"]
    assert theirs["file_id"] != mine
    assert (await door.ask("getFile", file_id=mine))[0] == 400
    assert (await door.ask("getFile", file_id=theirs["file_id"]))[0] == 200


async def test_a_file_path_lives_one_hour(door: Door) -> None:
    file_id = await door.file_id_of(door.document(10))
    path = (await door.result("getFile", file_id=file_id))["file_path"]
    door.clock.now += 3599
    assert (await door.download(path))[0] == 200
    door.clock.now += 2
    assert (await door.download(path))[0] == 404
    assert (await door.result("getFile", file_id=file_id))["file_path"] == path
    assert (await door.download(path))[0] == 200


async def test_a_file_path_is_of_no_use_to_another_bot(door: Door) -> None:
    file_id = await door.file_id_of(door.document(10))
    path = (await door.result("getFile", file_id=file_id))["file_path"]
    door.bot = door.world.add_bot("7000000002:other")
    assert (await door.download(path))[0] == 404


# -- polling -------------------------------------------------------------------------------------


async def test_an_offset_confirms_what_is_below_it(door: Door) -> None:
    for text in "abc":
        door.world.post(door.channel, text=text)
    first, *_rest = updates = await door.result("getUpdates", limit=2)
    assert [update["channel_post"]["text"] for update in updates] == ["a", "b"]
    assert await door.result("getUpdates", limit=1) == [first]
    last = updates[-1]["update_id"]
    (third,) = await door.result("getUpdates", offset=last + 1)
    assert (third["update_id"], third["channel_post"]["text"]) == (last + 1, "c")


async def test_a_negative_offset_forgets_all_but_the_last(door: Door) -> None:
    for text in "abc":
        door.world.post(door.channel, text=text)
    (update,) = await door.result("getUpdates", offset=-1)
    assert update["channel_post"]["text"] == "c"
    assert await door.result("getUpdates") == [update]


async def test_a_long_poll_answers_as_soon_as_something_comes(door: Door) -> None:
    poll = asyncio.create_task(door.result("getUpdates", timeout=30))
    await _until(lambda: door.server.counters.methods["bot_api.getUpdates"] == 1)
    door.world.post(door.channel, text="now")
    async with asyncio.timeout(2):
        (update,) = await poll
    assert update["channel_post"]["text"] == "now"


async def test_a_long_poll_that_nothing_answers_is_empty(door: Door) -> None:
    assert await door.result("getUpdates", timeout=1) == []


async def test_a_second_poll_ends_the_first(door: Door) -> None:
    first = asyncio.create_task(door.ask("getUpdates", timeout=30))
    await _until(lambda: door.server.counters.methods["bot_api.getUpdates"] == 1)
    await asyncio.sleep(0.05)
    assert await door.result("getUpdates") == []
    status, body = await first
    assert status == 409
    assert body["description"] == (
        "Conflict: terminated by other getUpdates request; "
        "make sure that only one bot instance is running"
    )


async def test_kinds_that_the_bot_does_not_want_are_not_kept(door: Door) -> None:
    assert await door.result("getUpdates", allowed_updates=["edited_channel_post"]) == []
    post = door.world.post(door.channel, text="a")
    door.world.edit(post, text="b")
    (update,) = await door.result("getUpdates")
    assert update["edited_channel_post"]["text"] == "b"


async def test_a_deleted_post_is_not_told(door: Door) -> None:
    post = door.world.post(door.channel, text="a")
    await door.result("getUpdates", offset=-1)
    door.world.delete(post)
    assert len(await door.result("getUpdates")) == 1


# -- webhooks ------------------------------------------------------------------------------------


@dataclass
class Hook:
    """A web server that a bot's owner would run; it fails as often as told."""

    url: str
    failures: int = 0
    calls: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture(name="hook")
async def running_hook() -> AsyncIterator[Hook]:
    hook = Hook("")

    async def receive(request: web.Request) -> web.Response:
        secret = request.headers.get("X-Telegram-Bot-Api-Secret-Token")
        hook.calls.append((secret, await request.json()))
        if hook.failures:
            hook.failures -= 1
            return web.Response(status=500)
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield hook
    await runner.cleanup()


async def test_a_webhook_gets_updates_in_order_with_its_secret(door: Door, hook: Hook) -> None:
    door.world.post(door.channel, text="waiting")
    status, body = await door.ask("setWebhook", url=hook.url, secret_token="s-3_cret")
    assert (status, body["description"]) == (200, "Webhook was set")
    door.world.post(door.channel, text="later")
    await _until(lambda: len(hook.calls) == 2)
    assert [secret for secret, _update in hook.calls] == ["s-3_cret"] * 2
    texts = [update["channel_post"]["text"] for _secret, update in hook.calls]
    assert texts == ["waiting", "later"]
    assert (await door.result("getWebhookInfo"))["pending_update_count"] == 0


async def test_a_failing_webhook_is_tried_again(door: Door, hook: Hook) -> None:
    hook.failures = 2
    await door.result("setWebhook", url=hook.url)
    door.world.post(door.channel, text="once")
    await _until(lambda: len(hook.calls) == 3)
    assert len({update["update_id"] for _secret, update in hook.calls}) == 1
    info = await door.result("getWebhookInfo")
    expected = "Wrong response from the webhook: 500 Internal Server Error"
    assert info["last_error_message"] == expected


async def test_a_webhook_that_is_not_there_is_reported(door: Door, unused_tcp_port: int) -> None:
    await door.result("setWebhook", url=f"http://127.0.0.1:{unused_tcp_port}/")
    door.world.post(door.channel, text="lost?")
    queue_info: dict[str, Any] = {}
    async with asyncio.timeout(5):
        while "last_error_message" not in queue_info:
            queue_info = await door.result("getWebhookInfo")
    assert queue_info["last_error_message"] == "Connection refused"
    assert queue_info["pending_update_count"] == 1


async def test_polling_and_a_webhook_exclude_each_other(door: Door, hook: Hook) -> None:
    poll = asyncio.create_task(door.ask("getUpdates", timeout=30))
    await _until(lambda: door.server.counters.methods["bot_api.getUpdates"] == 1)
    await asyncio.sleep(0.05)
    await door.result("setWebhook", url=hook.url)
    status, body = await poll
    assert (status, body["description"]) == (409, "Conflict: terminated by setWebhook request")
    status, body = await door.ask("getUpdates")
    assert status == 409
    assert "can't use getUpdates method while webhook is active" in body["description"]
    _status, body = await door.ask("deleteWebhook")
    assert body["description"] == "Webhook was deleted"
    assert await door.result("getUpdates") == []


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        ({"url": "ftp://x/"}, "bad webhook: An HTTPS URL must be provided for webhook"),
        ({"url": "http://x/", "secret_token": "a b"}, "secret token contains unallowed characters"),
        ({"url": "http://x/", "secret_token": "a" * 257}, "secret token is too long"),
    ],
)
async def test_bad_webhooks_are_refused(
    door: Door, arguments: dict[str, str], description: str
) -> None:
    status, body = await door.ask("setWebhook", **arguments)
    assert (status, body["description"]) == (400, f"Bad Request: {description}")


async def test_pending_updates_can_be_dropped(door: Door) -> None:
    door.world.post(door.channel, text="old")
    await door.result("deleteWebhook", drop_pending_updates=True)
    assert await door.result("getUpdates") == []


# -- messages and chats --------------------------------------------------------------------------


async def test_a_message_to_a_channel_is_a_post_that_the_others_hear_of(door: Door) -> None:
    other = door.world.add_bot("7000000002:other")
    door.channel.members.add(other.id)
    sent = await door.result("sendMessage", chat_id=door.channel.chat_id, text="hello")
    assert door.channel.posts[sent["message_id"]].text == "hello"
    assert await door.result("getUpdates") == []
    door.bot = other
    (update,) = await door.result("getUpdates")
    assert update["channel_post"]["text"] == "hello"


@pytest.mark.parametrize(
    ("chat_id", "status", "description"),
    [
        ("", 400, "Bad Request: chat_id is empty"),
        ("-1001", 400, "Bad Request: chat not found"),
        ("@nobody", 400, "Bad Request: chat not found"),
        ("-1001500000002", 403, "Forbidden: bot is not a member of the channel chat"),
    ],
)
async def test_chats_that_the_bot_cannot_reach(
    door: Door, chat_id: str, status: int, description: str
) -> None:
    door.world.add_channel("Others")
    got, body = await door.ask("sendMessage", chat_id=chat_id, text="x")
    assert (got, body["description"]) == (status, description)


async def test_a_chat_is_found_by_name_and_tells_its_members(door: Door) -> None:
    assert (await door.result("getChat", chat_id="@films"))["id"] == door.channel.chat_id
    members = await door.result("getChatAdministrators", chat_id="@films")
    assert [member["user"]["id"] for member in members] == [door.bot.id]
    stranger = door.world.add_bot("7000000002:other")
    answer = await door.result("getChatMember", chat_id="@films", user_id=stranger.id)
    assert answer["status"] == "left"


# -- trouble -------------------------------------------------------------------------------------


async def test_a_planned_flood_wait_is_429_with_seconds(door: Door) -> None:
    door.server.trouble.flood_wait(3, method="bot_api.getMe")
    status, body = await door.ask("getMe")
    assert status == 429
    assert body["description"] == "Too Many Requests: retry after 3"
    assert body["parameters"] == {"retry_after": 3}
    assert (await door.ask("getMe"))[0] == 200


async def test_a_download_can_break_off_in_the_middle(door: Door) -> None:
    file_id = await door.file_id_of(door.document(600_000))
    path = (await door.result("getFile", file_id=file_id))["file_path"]
    door.server.trouble.plan(Fault("cut_during", method="bot_api.download"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await door.download(path)
    assert (await door.download(path))[0] == 200


@pytest.mark.parametrize("kind", ["cut_before", "cut_during"])
async def test_an_answer_can_be_lost(door: Door, kind: Any) -> None:
    door.server.trouble.plan(Fault(kind, method="bot_api.getChat"))
    with pytest.raises(aiohttp.ClientError):
        await door.ask("getChat", chat_id="@films")
    assert (await door.ask("getChat", chat_id="@films"))[0] == 200


async def test_tokens_are_in_no_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await door.ask("getMe")
    await door.ask("getFile", file_id="x")
    door.server.trouble.plan(Fault("cut_during", method="bot_api.getMe"))
    with pytest.raises(aiohttp.ClientError):
        await door.ask("getMe")
    assert TOKEN.partition(":")[2] not in caplog.text


# -- the control door ----------------------------------------------------------------------------


async def test_the_control_door_counts_and_makes_trouble(door: Door) -> None:
    await door.result("getMe")
    url = f"{door.server.url}/simulator"
    async with door.http.get(f"{url}/counters") as answer:
        assert (await answer.json())["methods"] == {"bot_api.getMe": 1}
    trouble = {"round_trip_s": 0.01, "down": [2], "faults": [{"kind": "error", "code": 500}]}
    async with door.http.post(f"{url}/trouble", json=trouble) as answer:
        assert answer.status == 200
    assert door.server.trouble.round_trip_s == 0.01
    assert door.server.trouble.down == {2}
    assert (await door.ask("getMe"))[0] == 500
    media = door.document(10)
    door.world.post(door.channel, media)
    before = door.world.file_reference(door.bot.id, media.id)
    async with door.http.post(f"{url}/expire-references") as answer:
        assert answer.status == 200
    assert door.world.file_reference(door.bot.id, media.id) != before
    async with door.http.get(f"{url}/posts") as answer:
        (channel,) = await answer.json()
    assert channel["posts"][-1]["file_id"] == media.id
    assert channel["posts"][-1]["alternatives"] == []


@pytest.mark.parametrize(
    "wanted", [{"rtt": 1}, {"round_trip_s": -1}, {"faults": [{"kind": "rain"}]}, {"down": 3}]
)
async def test_the_control_door_refuses_what_it_does_not_know(
    door: Door, wanted: dict[str, Any]
) -> None:
    async with door.http.post(f"{door.server.url}/simulator/trouble", json=wanted) as answer:
        assert answer.status == 400
    assert door.server.trouble.round_trip_s == 0
    assert not door.server.trouble.faults


async def _until(happened: Callable[[], bool]) -> None:
    """Wait for a condition that another task brings about."""
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.005)


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """A port on which nobody listens, held by a socket that only binds it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
