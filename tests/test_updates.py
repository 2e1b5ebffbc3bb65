"""News from Telegram: a post is in the gallery at once, whoever else listens and however it comes.

Goal: by polling and by webhook, only from Telegram, only of our channels, and politely towards
another instance. Method: a real gallery at the Bot API of the pocket Telegram; where it matters
that the news came from there, the gallery's worker is a port where nobody listens.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, StartClient, listing_token
from test_backend import environment, get_json, names

import backend
from gallery import polling, updates
from gallery.bot_api import BotApi, BotApiError
from gallery.catalogue import CATALOGUE
from gallery.files import MediaFile
from gallery.index import Query
from gallery.messages import file_in
from gallery.settings import Settings, SettingsError
from gallery.tokens import (
    read_session,
    small_file_token,
    small_file_token_end,
    webhook_secret,
)
from gallery.updates import UPDATES, WEBHOOK_PATH
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import PhotoSize

Gallery = TestClient[Any, Any]
StartGallery = Callable[..., Awaitable[Gallery]]


@pytest.fixture
def open_gallery(stage: Stage, bot_api: BotApiServer, aiohttp_client: StartClient) -> StartGallery:
    """Opens a gallery that has the Bot API and, unless WORKER_URL is given, no worker."""

    async def start(**changes: str) -> Gallery:
        on_stage = {
            "BOT_TOKEN": stage.bot.token,
            "BOT_API_URL": bot_api.url,
            "CHANNELS": str(stage.channel.chat_id),
        }
        settings = Settings.from_env(environment(**{**on_stage, **changes}))
        return await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))

    return start


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def known(gallery: Gallery) -> list[str]:
    """The names in the index, without a look at the worker."""
    page = await gallery.app[CATALOGUE].index.page(Query())
    return [file.name for file in page.files]


async def call(bot_api: BotApiServer, stage: Stage, method: str, **arguments: object) -> Any:
    url = f"{bot_api.url}/bot{stage.bot.token}/{method}"
    async with ClientSession() as session, session.post(url, json=arguments) as response:
        return await response.json()


# -- By polling --------------------------------------------------------------------------------


async def test_a_post_is_in_the_gallery_at_once_without_any_worker(
    stage: Stage, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery()
    post = stage.post_synthetic(1000, file_name="new.mp4", text="a caption")

    async def is_known() -> bool:
        return await known(gallery) == ["new.mp4"]

    await until(is_known)
    (file,) = (await get_json(gallery, "/api/files?query=capt"))["files"]
    assert (file["message_id"], file["size"]) == (post.id, 1000)


async def test_posts_made_while_we_were_away_are_told_afterwards(
    stage: Stage, open_gallery: StartGallery
) -> None:
    for number in range(120):  # more than one answer of getUpdates holds
        stage.post_synthetic(10, file_name=f"{number}.mp4")
    gallery = await open_gallery()

    async def are_known() -> bool:
        return bool((await gallery.app[CATALOGUE].state())["files"] == 120)

    await until(are_known)


async def test_edited_posts_change_and_those_that_lost_their_file_go(
    stage: Stage, open_gallery: StartGallery
) -> None:
    first = stage.post_synthetic(10, file_name="first.mp4")
    second = stage.post_synthetic(10, file_name="second.mp4")
    gallery = await open_gallery()

    async def both_are_known() -> bool:
        return await known(gallery) == ["second.mp4", "first.mp4"]

    await until(both_are_known)
    world = stage.telegram.world
    media = replace(world.new_document(SyntheticContent(20), "audio/mpeg"), file_name="song.mp3")
    world.edit(first, media=media, text="other")
    without = replace(second, media=None, text="only words")
    world._publish(stage.channel, "edited", without)

    async def is_changed() -> bool:
        return await known(gallery) == ["song.mp3"]

    await until(is_changed)
    assert await names(gallery, "?query=other&kind=audio") == ["song.mp3"]


async def test_other_channels_of_the_bot_stay_out(stage: Stage, open_gallery: StartGallery) -> None:
    other = stage.telegram.world.add_channel("Private", stage.bot)
    document = stage.telegram.world.new_document(SyntheticContent(10), "video/mp4")
    gallery = await open_gallery()
    stage.telegram.world.post(other, replace(document, file_name="private.mp4"))
    stage.post_synthetic(10, file_name="ours.mp4")

    async def is_known() -> bool:
        return await known(gallery) == ["ours.mp4"]

    await until(is_known)


async def test_trouble_passes(
    stage: Stage, open_gallery: StartGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "RETRY_FIRST_S", 0.0)
    trouble = stage.telegram.trouble
    for kind in ("cut_before", "cut_during"):
        trouble.plan(Fault(kind, method="bot_api.getUpdates"))
    trouble.plan(Fault("error", method="bot_api.getUpdates", code=502, message="Bad Gateway"))
    gallery = await open_gallery()
    stage.post_synthetic(10, file_name="new.mp4")

    async def is_known() -> bool:
        return await known(gallery) == ["new.mp4"]

    await until(is_known)
    assert trouble.faults == []


# -- Another instance --------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands by looks all the time."""
    monkeypatch.setattr(polling, "LOOK_INTERVAL_S", 0.01)


def way_of(gallery: Gallery) -> str:
    return str(gallery.app[UPDATES].way)


async def is_standing_by(gallery: Gallery) -> bool:
    return "stands by" in way_of(gallery)


@pytest.fixture
async def two(stage: Stage, open_gallery: StartGallery) -> tuple[Gallery, Gallery]:
    """Two galleries with one bot: the first stands by, the second has the updates."""
    first = await open_gallery()
    asked = stage.telegram.counters.methods

    async def has_polled() -> bool:
        return asked["bot_api.getUpdates"] >= 1

    await until(has_polled)
    second = await open_gallery()
    await until(lambda: is_standing_by(first))
    return first, second


@pytest.mark.usefixtures("often")
async def test_a_webhook_of_another_instance_is_left_alone_and_told_once(
    stage: Stage,
    bot_api: BotApiServer,
    open_gallery: StartGallery,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await call(bot_api, stage, "setWebhook", url="http://127.0.0.1:1/other")
    stage.post_synthetic(10, file_name="new.mp4")
    counters = stage.telegram.counters.methods
    gallery = await open_gallery()

    async def has_looked_again() -> bool:
        return counters["bot_api.getWebhookInfo"] > 5

    await until(has_looked_again)
    assert counters["bot_api.getUpdates"] == 1
    told = [record for record in caplog.records if "409" in record.getMessage()]
    assert len(told) == 1
    assert "another program has this bot's updates" in told[0].getMessage()
    info = await call(bot_api, stage, "getWebhookInfo")
    assert info["result"]["url"] == "http://127.0.0.1:1/other"

    # As soon as that webhook is gone, whoever stood by asks.
    await call(bot_api, stage, "deleteWebhook")

    async def is_known() -> bool:
        return await known(gallery) == ["new.mp4"]

    await until(is_known)
    assert way_of(gallery) == "by long polling"


@pytest.mark.usefixtures("often")
async def test_two_that_poll_do_not_fight(stage: Stage, two: tuple[Gallery, Gallery]) -> None:
    first, second = two
    asked = stage.telegram.counters.methods
    stage.post_synthetic(10, file_name="new.mp4")

    async def is_known() -> bool:
        return await known(second) == ["new.mp4"]

    await until(is_known)
    looks = asked["bot_api.getWebhookInfo"]

    async def has_looked_on() -> bool:
        return asked["bot_api.getWebhookInfo"] > looks + 5

    await until(has_looked_on)
    assert (await known(first), way_of(second)) == ([], "by long polling")
    assert asked["bot_api.getUpdates"] == 3  # one each, and what confirms the post


@pytest.mark.usefixtures("often")
async def test_whoever_stands_by_takes_over_when_updates_are_left_lying(
    stage: Stage, two: tuple[Gallery, Gallery]
) -> None:
    first, second = two
    await second.close()
    stage.post_synthetic(10, file_name="new.mp4")

    async def is_known() -> bool:
        return await known(first) == ["new.mp4"]

    await until(is_known)
    assert way_of(first) == "by long polling"


@pytest.mark.usefixtures("often")
async def test_trouble_while_standing_by_passes(stage: Stage, two: tuple[Gallery, Gallery]) -> None:
    first, second = two
    trouble = stage.telegram.trouble
    for kind in ("cut_before", "cut_during"):
        trouble.plan(Fault(kind, method="bot_api.getWebhookInfo"))
    trouble.plan(Fault("error", method="bot_api.getWebhookInfo", code=502, message="Bad Gateway"))
    await second.close()
    stage.post_synthetic(10, file_name="new.mp4")

    async def is_known() -> bool:
        return await known(first) == ["new.mp4"]

    await until(is_known)
    assert trouble.faults == []


def test_trouble_is_met_with_ever_more_patience() -> None:
    trouble = polling._Trouble()
    assert [trouble.wait_s() for _ in range(10)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    trouble.is_over()
    assert trouble.wait_s() == 1


async def test_telegram_says_how_long_to_wait(
    stage: Stage, open_gallery: StartGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("gallery.bot_api.asyncio", type("Noted", (), {"sleep": staticmethod(note)}))
    stage.telegram.trouble.flood_wait(77, method="bot_api.getUpdates")
    await open_gallery()

    async def has_slept() -> bool:
        return 77.0 in slept

    await until(has_slept)


# -- By webhook --------------------------------------------------------------------------------


def secret_of(stage: Stage) -> str:
    return webhook_secret(JWT_SECRET, stage.bot.token)


async def test_where_the_gallery_has_https_telegram_is_told_to_call(
    stage: Stage, bot_api: BotApiServer, open_gallery: StartGallery
) -> None:
    stage.telegram.trouble.plan(Fault("error", method="bot_api.setWebhook", message="busy"))
    await open_gallery(PUBLIC_URL="https://127.0.0.1:1/base")

    async def is_told() -> bool:
        info = await call(bot_api, stage, "getWebhookInfo")
        return bool(info["result"]["url"] == "https://127.0.0.1:1/base/telegram/webhook")

    await until(is_told)
    assert stage.telegram.counters.methods["bot_api.getUpdates"] == 0
    queue = bot_api._queues[stage.bot.id]
    assert queue.webhook is not None
    assert queue.webhook.secret_token == secret_of(stage)
    assert set(queue.allowed) == {
        *("message", "callback_query", "channel_post", "edited_channel_post"),
    }


async def test_what_telegram_posts_to_the_webhook_is_in_the_gallery(
    stage: Stage, bot_api: BotApiServer, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery(GALLERY_PASSWORD="correct horse", PUBLIC_URL="https://127.0.0.1:1")
    while gallery.app[UPDATES].way != "by webhook":
        await asyncio.sleep(0.01)
    url = str(gallery.make_url(WEBHOOK_PATH))
    await call(bot_api, stage, "setWebhook", url=url, secret_token=secret_of(stage))
    stage.post_synthetic(10, file_name="new.mp4")

    async def is_known() -> bool:
        return await known(gallery) == ["new.mp4"]

    await until(is_known)


async def test_it_is_told_when_telegram_cannot_reach_us_or_tells_somebody_else(
    stage: Stage,
    bot_api: BotApiServer,
    open_gallery: StartGallery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(updates, "WATCH_INTERVAL_S", 0.05)
    # As if the clock stood still: no failure is long ago.
    monkeypatch.setattr("gallery.updates.time", SimpleNamespace(time=lambda: 0.0))
    gallery = await open_gallery(PUBLIC_URL="https://127.0.0.1:1")
    counted = stage.telegram.counters.methods

    async def told(way: str) -> bool:
        return way in way_of(gallery)

    await until(lambda: told("by webhook"))
    stage.telegram.trouble.plan(Fault("error", method="bot_api.getWebhookInfo", code=502))
    stage.post_synthetic(10)
    await until(lambda: told("by webhook, but Telegram cannot reach it: Connection refused"))
    url = {"url": "https://127.0.0.1:1/other"}
    await call(bot_api, stage, "setWebhook", **url)
    await until(lambda: told("by webhook, but Telegram tells another program, or nobody"))
    looks = counted["bot_api.getWebhookInfo"]

    async def has_looked_on() -> bool:
        return counted["bot_api.getWebhookInfo"] > looks + 3

    await until(has_looked_on)
    assert counted["bot_api.setWebhook"] == 2  # the gallery's one, and that of the other
    problems = [each for each in caplog.messages if each.startswith("the webhook: ")]
    assert len(problems) == 2  # each once, however often it was seen


@pytest.mark.parametrize("secret", ["", "wrong", "ünicode"])
async def test_nobody_else_can_post_there(
    stage: Stage, open_gallery: StartGallery, secret: str
) -> None:
    gallery = await open_gallery()
    message = {"chat": {"id": stage.channel.chat_id}, "message_id": 5, "date": 1,
               "video": {"file_id": "a", "file_unique_id": "b", "file_size": 1}}  # fmt: skip
    headers = {"X-Telegram-Bot-Api-Secret-Token": secret}
    async with gallery.post(
        WEBHOOK_PATH, json={"channel_post": message}, headers=headers
    ) as response:
        assert response.status == 403
    assert await known(gallery) == []
    headers = {"X-Telegram-Bot-Api-Secret-Token": secret_of(stage)}
    async with gallery.post(
        WEBHOOK_PATH, json={"channel_post": message}, headers=headers
    ) as response:
        assert response.status == 200
    assert await known(gallery) == ["video_5.mp4"]


async def test_while_the_secret_changes_telegram_may_still_show_the_old_one(
    stage: Stage, open_gallery: StartGallery
) -> None:
    old, new = "the-old-secret-of-this-gallery-here", "the-new-secret-of-this-gallery-here"
    gallery = await open_gallery(JWT_SECRET=f"{new},{old}")
    for secret, status in ((new, 200), (old, 200), (JWT_SECRET, 403)):
        given = webhook_secret(secret, stage.bot.token)
        headers = {"X-Telegram-Bot-Api-Secret-Token": given}
        async with gallery.post(WEBHOOK_PATH, json={}, headers=headers) as response:
            assert response.status == status


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"channel_post": 5}', b'{"channel_post": {"chat": []}}',
     b'{"channel_post": {"chat": {"id": 1}, "message_id": "x"}}', b"\xff", b'"' + b"x" * 300_000],
    ids=lambda body: body[:30].decode("latin-1"),
)  # fmt: skip
async def test_odd_updates_are_passed_over_so_that_they_are_not_sent_again(
    stage: Stage, open_gallery: StartGallery, body: bytes
) -> None:
    gallery = await open_gallery()
    headers = {"X-Telegram-Bot-Api-Secret-Token": secret_of(stage)}
    async with gallery.post(WEBHOOK_PATH, data=body, headers=headers) as response:
        assert response.status == 200


async def test_a_long_update_is_read_though_forms_are_kept_short(
    stage: Stage, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery()
    message = {"chat": {"id": stage.channel.chat_id}, "message_id": 5, "date": 1,
               "caption_entities": ["x" * 1000] * 100,
               "video": {"file_id": "a", "file_unique_id": "b", "file_size": 1}}  # fmt: skip
    headers = {"X-Telegram-Bot-Api-Secret-Token": secret_of(stage)}
    async with gallery.post(
        WEBHOOK_PATH, json={"channel_post": message}, headers=headers
    ) as response:
        assert response.status == 200
    assert await known(gallery) == ["video_5.mp4"]


def test_the_webhooks_secret_is_one_that_telegram_takes() -> None:
    secret = webhook_secret(JWT_SECRET, "1:token")
    assert len(secret) <= 256
    assert secret.isalnum()
    assert secret not in (JWT_SECRET, webhook_secret(JWT_SECRET, "2:token"))


# -- What is told ------------------------------------------------------------------------------


async def test_updates_and_listings_describe_a_file_alike(
    stage: Stage, viewer: Gallery, bot_api: BotApiServer
) -> None:
    picture = PhotoSize("m", 320, 180, BytesContent(b"\xff\xd8small"))
    large = PhotoSize("y", 1280, 720, BytesContent(b"\xff\xd8a larger one"))
    film = {"kind": "video", "duration_s": 61.0, "width": 1280, "height": 720}
    stage.post_synthetic(10, file_name="film.mp4", text="words", thumbnails=(picture,), **film)
    stage.post_synthetic(20, file_name=None, **film)
    stage.post_synthetic(30, file_name="song.mp3", mime_type="audio/mpeg", kind="audio",
                         duration_s=7.0)  # fmt: skip
    stage.post_synthetic(40, file_name="notes.pdf", mime_type="application/pdf")
    stage.post_synthetic(50, file_name="scan.MKV", mime_type="application/octet-stream")
    stage.post_synthetic(60, file_name="cat.mp4", kind="animation", duration_s=2.0, width=320,
                         height=320)  # fmt: skip
    stage.post_synthetic(70, file_name=None, mime_type="audio/ogg", kind="voice", duration_s=3.0)
    world = stage.telegram.world
    world.post(stage.channel, world.new_photo(picture, large), "a photo")
    chat_id = stage.channel.chat_id
    headers = {"Authorization": f"Bearer {listing_token(chat_id)}"}
    async with viewer.get(f"/files/{chat_id}", headers=headers) as response:
        listed = [MediaFile.from_listing(item) for item in (await response.json())["files"]]
    told = (await call(bot_api, stage, "getUpdates"))["result"]
    found = [file_in(update["channel_post"]) for update in told]
    assert [each[0] for each in found if each] == listed


async def test_channels_have_their_titles(stage: Stage, open_gallery: StartGallery) -> None:
    gallery = await open_gallery()

    async def title() -> Any:
        return (await get_json(gallery, "/api/channels"))["channels"][0]["title"]

    async def is_known() -> bool:
        return bool(await title() == "Films")

    await until(is_known)
    stage.channel.title = "Pictures"
    stage.post_synthetic(10)

    async def is_changed() -> bool:
        return bool(await title() == "Pictures")

    await until(is_changed)


# -- The token ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["nobody listens", "refused", "no Bot API", "redirect"])
async def test_no_error_and_no_log_line_holds_the_token(
    bot_api: BotApiServer,
    viewer: Gallery,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    token = "123456:the-token-of-this-test"
    base_url = {
        "nobody listens": "http://127.0.0.1:1",
        "refused": bot_api.url,
        "no Bot API": str(viewer.make_url("/")).rstrip("/"),
        "redirect": "http://[::1",
    }[where]
    caplog.set_level(logging.DEBUG)
    async with ClientSession() as session:
        api = BotApi(session, base_url, token)
        with pytest.raises(BotApiError) as caught:
            await api.call("getMe")
        with pytest.raises(BotApiError) as caught_in_file:
            async for _ in api.read_file("videos/file_1.mp4", 0, 10, 10):
                pass
    assert token not in repr(api)
    for error in (caught.value, caught_in_file.value):
        assert token not in "".join(traceback.format_exception(error))
    ours = [record for record in caplog.records if record.name.startswith("gallery")]
    assert all(token not in record.getMessage() for record in ours)


def test_a_pool_of_bots_has_its_first_for_the_gallery() -> None:
    pool = Settings.from_env(environment(BOT_TOKEN="1:first, 2:second"))
    assert pool.bot_token == "1:first"


@pytest.mark.parametrize("token", ["token", "1:a b", "1:a/../b", "1:a,b", "1:", ":a"])
def test_what_is_no_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environment(BOT_TOKEN=token))
    assert "BOT_TOKEN" in str(caught.value)
    assert token not in str(caught.value).replace("123456:letters", "")


def test_tokens_for_small_files_are_for_nothing_else() -> None:
    token = small_file_token(JWT_SECRET, -1001, 7, 4_000_000_000)
    assert small_file_token_end(JWT_SECRET, -1001, 7, token) == 4_000_000_000
    assert small_file_token_end(JWT_SECRET, -1001, 8, token) is None
    assert small_file_token_end(JWT_SECRET[::-1], -1001, 7, token) is None
    assert not read_session(JWT_SECRET, "password", token)
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, JWT_SECRET, algorithms=["HS256"], audience="worker")
