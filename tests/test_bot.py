"""The bot as its owner knows it: a film goes in, links come out, and strangers hear nothing.

Goal: every promise about the bot, and everything that others may send it. Method: a real gallery at
the Bot API of the pocket Telegram, people of the simulator who write and press, and links that are
opened; where it matters the film's bytes come from a real worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar, web
from aiohttp.test_utils import TestClient, TestServer
from conftest import JWT_SECRET, REPOSITORY, Stage, StartClient
from test_backend import environment
from yarl import URL

import backend
from gallery import answered, bot_talk
from gallery import bot as bot_module
from gallery.answered import AnsweredUpdates
from gallery.bot import Hints
from gallery.bot_api import BotApiError
from gallery.catalogue import CATALOGUE
from gallery.settings import Settings
from gallery.share_store import SHARES
from gallery.shares import new_share, write_share
from gallery.tokens import webhook_secret
from gallery.updates import UPDATES, WEBHOOK_PATH
from telegram_simulator import bot_api as simulator
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import SyntheticContent
from telegram_simulator.faults import Fault
from telegram_simulator.world import Document, Post, PrivateMessage, Saying, World

OWNER, STRANGER = 42, 666
PASSWORD = "correct horse battery"
HOME = "http://films.example"  # Telegram takes it for a link, and it is no https: no webhook
MB = 1_000_000

Gallery = TestClient[Any, Any]
StartGallery = Callable[..., Awaitable[Gallery]]
StartServer = Callable[[web.Application], Awaitable[TestServer]]


@dataclass
class Chat:
    """What one bot says, in the order that it says it, and somebody who writes to it."""

    stage: Stage
    seen: int = 0

    @property
    def world(self) -> World:
        return self.stage.telegram.world

    def write(self, text: str = "", *, person: int = OWNER, **message: Any) -> PrivateMessage:
        return self.world.write_to(self.stage.bot, person, text, **message)

    def press(self, saying: Saying, button: str, *, person: int = OWNER) -> None:
        assert saying.message_id is not None
        message = self.world.private_message(self.stage.bot, saying.message_id)
        assert message is not None
        self.world.press(self.stage.bot, person, message, data_of(saying, button))

    def forge(self, saying: Saying, data: str, *, person: int = OWNER) -> None:
        """A press of what is no button of this message, as a strange client can send it."""
        assert saying.message_id is not None
        message = self.world.private_message(self.stage.bot, saying.message_id)
        assert message is not None
        markup = {"inline_keyboard": [[{"text": "?", "callback_data": data}]]}
        self.world.press(self.stage.bot, person, replace(message, reply_markup=markup), data)

    async def said(self, *methods: str) -> Saying:
        """The next thing that the bot does by one of these methods, sendMessage unless named."""
        wanted = methods or ("sendMessage",)
        more = asyncio.Event()
        stop = self.world.listen(lambda _saying: more.set())
        try:
            async with asyncio.timeout(20):
                while True:
                    more.clear()
                    for saying in self.world.said:
                        if saying.number > self.seen and saying.method in wanted:
                            self.seen = saying.number
                            return saying
                    await more.wait()
        finally:
            stop()

    def film(self, size: int = 5 * MB, name: str = "film.mp4", **changes: Any) -> Document:
        blank = self.world.new_document(SyntheticContent(size, seed=7), "video/mp4", 4)
        film = replace(blank, kind="video", file_name=name, duration_s=3723.0, width=1920)
        return replace(film, height=1080, **changes)


def data_of(saying: Saying, button: str) -> str:
    return str(buttons_of(saying)[button]["callback_data"])


def buttons_of(saying: Saying) -> dict[str, dict[str, Any]]:
    rows = (saying.reply_markup or {}).get("inline_keyboard", [])
    return {button["text"]: button for row in rows for button in row}


def link_in(saying: Saying, start: str = "/v/") -> str:
    """The path of the link in an answer that begins like that."""
    found = re.search(rf"{re.escape(start)}[\w?=-]+", saying.text or "")
    assert found, saying.text
    return found[0]


@pytest.fixture
def chat(stage: Stage) -> Chat:
    return Chat(stage)


@pytest.fixture
def open_gallery(stage: Stage, bot_api: BotApiServer, aiohttp_client: StartClient) -> StartGallery:
    """Opens a gallery with the bot of the stage, and, unless WORKER_URL is given, no worker."""

    async def start(**changes: str) -> Gallery:
        on_stage = {
            "BOT_TOKEN": stage.bot.token,
            "BOT_API_URL": bot_api.url,
            "CHANNELS": str(stage.channel.chat_id),
            "OWNER_IDS": str(OWNER),
            "PUBLIC_URL": HOME,
            "GALLERY_PASSWORD": PASSWORD,
        }
        settings = Settings.from_env(environment(**{**on_stage, **changes}))
        return await aiohttp_client(await asyncio.to_thread(backend.create_app, settings))

    return start


@pytest.fixture
async def gallery(open_gallery: StartGallery) -> Gallery:
    """A gallery whose worker is away: what it knows comes by the Bot API."""
    return await open_gallery()


@pytest.fixture
async def streaming(open_gallery: StartGallery, viewer: Gallery) -> Gallery:
    """A gallery with a worker."""
    return await open_gallery(WORKER_URL=str(viewer.make_url("/")).rstrip("/"))


def logged_by_us(caplog: pytest.LogCaptureFixture) -> str:
    """What a gallery logs; the test's own server and client log every address besides."""
    ours = [record for record in caplog.records if record.name.startswith("gallery")]
    return "\n".join(record.getMessage() for record in ours)


async def status_of(gallery: Gallery, path: str) -> int:
    async with gallery.get(path, allow_redirects=False) as response:
        return int(response.status)


async def bytes_behind(gallery: Gallery, path: str, window: str = "bytes=0-999") -> bytes:
    async with gallery.get(path, headers={"Range": window}) as response:
        assert response.status == 206
        return await response.read()


# -- A film goes in, links come out --------------------------------------------------------------


async def test_a_forwarded_film_is_answered_with_links_that_work(
    chat: Chat, streaming: Gallery
) -> None:
    post = chat.world.post(chat.stage.channel, chat.film(), "The film")
    asked = chat.write(forward=post)
    said = await chat.said()
    assert said.chat_id == OWNER
    assert said.details == {"reply_to": asked.id}
    assert said.text is not None
    title, facts, _, watch, direct, _, end = said.text.split("\n")
    assert (title, facts) == ("film", "5.0 MB, 1 h 2 min, 1920×1080")  # noqa: RUF001
    assert re.fullmatch(rf"To watch: {HOME}/embed/[\w-]{{56}}", watch)
    assert re.fullmatch(rf"For VLC and others: {HOME}/v/[\w-]{{56}}", direct)
    assert re.fullmatch(r"Good for 7 days, until \d+ \w+ \d{4}, \d\d:\d\d UTC\.", end)
    buttons = buttons_of(said)
    assert list(buttons) == [
        *("Watch", "Download", "Copy link", "Revoke", "1 day", "7 days", "No end"),
    ]
    assert buttons["Watch"]["url"] == HOME + link_in(said, "/embed/")
    assert buttons["Download"]["url"] == f"{HOME}{link_in(said)}?download=1"
    assert buttons["Copy link"]["copy_text"] == {"text": HOME + link_in(said, "/embed/")}
    async with streaming.get(link_in(said, "/embed/")) as page:
        assert page.status == 200
        assert "<title>film</title>" in await page.text()
    assert await bytes_behind(streaming, link_in(said)) == SyntheticContent(5 * MB, seed=7).read(
        0, 1000
    )
    shares = await streaming.app[SHARES].listed()
    assert [(each.name, each.share.message_id) for each in shares] == [("film", post.id)]


async def test_names_and_captions_are_no_markup(chat: Chat, gallery: Gallery) -> None:
    name = "<b>&amp;</b> <a href='http://evil.example'>\"x\"</a>\u202e.mp4"
    post = chat.world.post(chat.stage.channel, chat.film(name=name), "</b><script>")
    chat.write(forward=post)
    said = await chat.said()
    assert said.text is not None
    assert said.text.split("\n")[0] == "<b>&amp;</b> <a href='http://evil.example'>\"x\"</a>"
    assert [entity["type"] for entity in said.entities] == ["bold", "text_link", "code"]


async def test_an_album_is_answered_once_and_in_order(
    chat: Chat, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_module, "ALBUM_PATIENCE_S", 0.3)
    posts = [
        chat.world.post(chat.stage.channel, chat.film(name=f"part {number}.mp4"))
        for number in range(1, 11)
    ]
    group = chat.world.new_group()
    for post in posts:
        chat.write(forward=post, grouped_id=group)
    said = await chat.said()
    assert said.text is not None
    assert re.findall(r"^\d+\. (.*)$", said.text, re.MULTILINE) == [
        f"part {number}" for number in range(1, 11)
    ]
    links = [each["url"] for each in said.entities if each["type"] == "text_link"]
    assert len(set(links)) == 20
    assert {link.split("/")[3] for link in links} == {"embed", "v"}
    assert [*buttons_of(said)][-5:] == ["Watch 10", "Revoke 10", "1 day", "7 days", "No end"]
    chat.write("/help")
    assert (await chat.said()).text != said.text
    assert [saying.method for saying in chat.world.said].count("sendMessage") == 2


async def test_links_to_posts_will_do(chat: Chat, gallery: Gallery) -> None:
    chat.stage.channel.username = "films"
    first = chat.world.post(chat.stage.channel, chat.film(name="first.mp4"))
    second = chat.world.post(chat.stage.channel, chat.film(name="second.mp4"))
    bare_id = chat.stage.channel.id
    chat.write(f"look: https://t.me/c/{bare_id}/{first.id} and t.me/Films/{second.id}?single")
    said = await chat.said()
    assert said.text is not None
    assert re.findall(r"^\d\. (.*)$", said.text, re.MULTILINE) == ["first", "second"]
    chat.write(f"/link tg://privatepost?channel={bare_id}&post={second.id}")
    assert str((await chat.said()).text).startswith("second\n")


@pytest.mark.parametrize(
    "link",
    ["https://t.me/c/1999999999/2", "https://t.me/nobody_here/2", "https://t.me/c/{bare_id}/77"],
)
async def test_links_to_nothing_of_ours_get_no_link(
    chat: Chat, streaming: Gallery, link: str
) -> None:
    other = chat.world.add_channel("Private", chat.stage.bot, username="private_one")
    film = chat.world.post(other, chat.film())
    for text in (link.format(bare_id=chat.stage.channel.id), f"https://t.me/private_one/{film.id}"):
        chat.write(text)
        assert (await chat.said()).text == (
            "I find no file there. It has to be a post of one of the gallery's channels."
        )
    assert await streaming.app[SHARES].listed() == []


async def test_a_reply_with_link_is_about_what_it_replies_to(chat: Chat, gallery: Gallery) -> None:
    post = chat.world.post(chat.stage.channel, chat.film(name="first.mp4"))
    forwarded = chat.write(forward=post)
    await chat.said()
    chat.write("/link", reply_to=forwarded.id)
    assert str((await chat.said()).text).startswith("first\n")


async def test_what_is_no_film_gets_a_short_help(chat: Chat, gallery: Gallery) -> None:
    for text in ("hello", "/start", "/help", "/nonsense", "/start@some_other_bot x"):
        chat.write(text)
        assert str((await chat.said()).text).startswith("Send or forward a film")
    chat.write("/link")
    assert str((await chat.said()).text).startswith("Send /link in reply")


async def test_the_commands_are_shown_to_the_owner_alone(chat: Chat, gallery: Gallery) -> None:
    chat.write("/start")
    said = await chat.said("setMyCommands")
    assert said.details["scope"] == f"chat {OWNER}"
    assert [each["command"] for each in said.details["commands"]] == ["gallery", "status", "help"]
    chat.write("/start")
    await chat.said()
    chat.write("/start")
    await chat.said()
    assert [saying.method for saying in chat.world.said].count("setMyCommands") == 1


async def test_a_sleeping_worker_keeps_no_link_away(
    chat: Chat, open_gallery: StartGallery, unused_tcp_port_factory: Callable[[], int]
) -> None:
    gallery = await open_gallery(WORKER_URL=f"http://127.0.0.1:{unused_tcp_port_factory()}")
    other = chat.world.add_bot()
    chat.stage.channel.members = {other.id}  # so that no update tells of the post
    post = chat.world.post(chat.stage.channel, chat.film(name="unheard.mp4"))
    chat.write(forward=post)
    said = await chat.said()
    assert said.text is not None
    assert said.text.startswith("unheard\n5.0 MB")
    async with gallery.get(link_in(said), allow_redirects=False) as response:
        assert response.status == 307
    chat.write(f"https://t.me/c/{chat.stage.channel.id}/{post.id + 1}")
    assert str((await chat.said()).text).startswith("Film\n")


async def test_a_worker_that_never_answers_keeps_no_link_away(
    chat: Chat,
    open_gallery: StartGallery,
    monkeypatch: pytest.MonkeyPatch,
    aiohttp_server: StartServer,
) -> None:
    monkeypatch.setattr("gallery.bot_links.FIND_PATIENCE_S", 0.05)
    end = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        await end.wait()
        return web.Response()

    silent = web.Application()
    silent.router.add_get("/{anything:.*}", wait)
    worker = await aiohttp_server(silent)
    await open_gallery(WORKER_URL=str(worker.make_url("/")).rstrip("/"))
    chat.write(f"https://t.me/c/{chat.stage.channel.id}/5")
    assert str((await chat.said()).text).startswith("Film\n")
    end.set()


# -- Small files go by the Bot API ---------------------------------------------------------------


async def test_a_small_film_that_is_forwarded_goes_by_the_bot_api(
    chat: Chat, streaming: Gallery
) -> None:
    other = chat.world.add_bot()
    members, chat.stage.channel.members = chat.stage.channel.members, {other.id}
    post = chat.world.post(chat.stage.channel, chat.film())
    chat.stage.channel.members = members
    index, place = streaming.app[CATALOGUE].index, (chat.stage.channel.chat_id, post.id)
    await streaming.app[CATALOGUE].find(*place)
    assert await index.bot_file(*place) is None
    chat.write(forward=post)
    await chat.said()
    assert await index.bot_file(*place) is not None
    await streaming.post("/sign-in", data={"password": PASSWORD})
    async with streaming.get(f"/api/files/{place[0]}/{place[1]}/url") as response:
        signed = await response.json()
    assert signed["via"] == "bot_api"
    expected = SyntheticContent(5 * MB, seed=7).read(1000, 1000)
    assert await bytes_behind(streaming, signed["url"], "bytes=1000-1999") == expected


async def test_the_file_id_of_a_copy_is_not_taken_for_another_file(
    chat: Chat, gallery: Gallery
) -> None:
    post = chat.world.post(chat.stage.channel, chat.film(size=3 * MB))
    place = chat.stage.channel.chat_id, post.id
    old = replace(post)
    chat.world.edit(post, media=chat.film(size=4 * MB, name="other.mp4"))
    index = gallery.app[CATALOGUE].index
    while (file := await index.find(*place)) is None or file.size != 4 * MB:
        await asyncio.sleep(0.01)
    told = await index.bot_file(*place)
    chat.write(forward=old)
    assert str((await chat.said()).text).startswith("other\n")
    assert await index.bot_file(*place) == told


# -- A film that is in no channel ----------------------------------------------------------------


async def test_a_film_that_is_sent_is_put_into_a_channel_and_gets_its_link(
    chat: Chat, streaming: Gallery
) -> None:
    chat.write("My own film", media=chat.film(name="mine.mp4"))
    offer = await chat.said()
    assert offer.text is not None
    assert offer.text.startswith("mine\n5.0 MB, 1 h 2 min")
    assert "Not in the gallery yet" in offer.text
    assert list(buttons_of(offer)) == ["Put it into Films"]
    assert await streaming.app[SHARES].listed() == []
    chat.press(offer, "Put it into Films")
    chat.press(offer, "Put it into Films")
    answer = await chat.said("editMessageText")
    assert answer.message_id == offer.message_id
    assert (await chat.said("answerCallbackQuery")).text == "It is in the channel."
    assert answer.text is not None
    assert answer.text.startswith("mine\n")
    (copy,) = [post for post in chat.stage.channel.posts.values() if post.media]
    assert (copy.text, copy.media and copy.media.id) == ("My own film", chat_media(chat, 1))
    expected = SyntheticContent(5 * MB, seed=7).read(0, 1000)
    assert await bytes_behind(streaming, link_in(answer)) == expected
    place = (chat.stage.channel.chat_id, copy.id)
    assert await streaming.app[CATALOGUE].index.bot_file(*place) is not None
    # The second press came too late to copy anything.
    await chat.said("answerCallbackQuery")
    assert [saying.method for saying in chat.world.said].count("copyMessage") == 1


def chat_media(chat: Chat, message_id: int) -> int | None:
    message = chat.world.private_message(chat.stage.bot, message_id)
    return message.media.id if message and message.media else None


async def test_an_album_from_elsewhere_is_put_there_as_one(
    chat: Chat, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_module, "ALBUM_PATIENCE_S", 0.3)
    elsewhere = chat.world.add_channel("Elsewhere")
    posts = [chat.world.post(elsewhere, chat.film(name=f"part {n}.mp4")) for n in (1, 2, 3)]
    group = chat.world.new_group()
    for post in posts:
        chat.write(forward=post, grouped_id=group)
    offer = await chat.said()
    chat.press(offer, "Put it into Films")
    answer = await chat.said("editMessageText")
    assert answer.text is not None
    assert re.findall(r"^\d\. (.*)$", answer.text, re.MULTILINE) == ["part 1", "part 2", "part 3"]
    copies = [post for post in chat.stage.channel.posts.values() if post.media]
    assert len({post.grouped_id for post in copies}) == 1
    files = await gallery.app[SHARES].listed()
    assert {each.share.message_id for each in files} == {post.id for post in copies}


async def test_after_a_restart_the_offer_still_stands(
    chat: Chat, open_gallery: StartGallery, viewer: Gallery
) -> None:
    worker = str(viewer.make_url("/")).rstrip("/")
    first = await open_gallery(WORKER_URL=worker)
    chat.write(media=chat.film(name="mine.mp4"))
    offer = await chat.said()
    await first.close()
    second = await open_gallery(WORKER_URL=worker)
    chat.press(offer, "Put it into Films")
    answer = await chat.said("editMessageText")
    assert answer.text is not None
    assert answer.text.startswith("mine\n")
    assert await status_of(second, link_in(answer, "/embed/")) == 200


async def test_a_film_that_is_in_a_channel_already_is_known_again(
    chat: Chat, gallery: Gallery
) -> None:
    film = chat.film(name="known.mp4")
    post = chat.world.post(chat.stage.channel, film)
    while await gallery.app[CATALOGUE].index.find(chat.stage.channel.chat_id, post.id) is None:
        await asyncio.sleep(0.01)
    chat.write("from somewhere else", media=film)
    assert str((await chat.said()).text).startswith("known\n")
    (listed,) = await gallery.app[SHARES].listed()
    assert listed.share.message_id == post.id


async def test_a_post_that_was_deleted_can_be_put_back(chat: Chat, streaming: Gallery) -> None:
    other = chat.world.add_bot()
    members, chat.stage.channel.members = chat.stage.channel.members, {other.id}
    post = chat.world.post(chat.stage.channel, chat.film(name="gone.mp4"))
    chat.world.delete(post)
    chat.stage.channel.members = members
    chat.write(forward=post)
    assert "Not in the gallery yet" in str((await chat.said()).text)


async def test_where_the_bot_may_not_post_it_says_so(chat: Chat, gallery: Gallery) -> None:
    chat.stage.channel.rights[chat.stage.bot.id] = frozenset({"can_delete_messages"})
    chat.write(media=chat.film())
    said = await chat.said()
    assert said.reply_markup is None
    assert "I may post in none of them" in str(said.text)


async def test_a_copy_that_telegram_refuses_leaves_the_offer(chat: Chat, gallery: Gallery) -> None:
    sent = chat.write(media=chat.film())
    offer = await chat.said()
    chat.stage.channel.rights[chat.stage.bot.id] = frozenset()
    chat.press(offer, "Put it into Films")
    said = await chat.said("answerCallbackQuery")
    assert said.text == (
        "Telegram refuses: 400 Bad Request: need administrator rights in the channel chat"
    )
    assert said.details["show_alert"] is True
    del chat.stage.channel.rights[chat.stage.bot.id]
    chat.world.erase(sent)
    chat.press(offer, "Put it into Films")
    said = await chat.said("answerCallbackQuery")
    assert said.text == "The film is no longer in this chat. Send it again."


async def test_what_may_have_been_copied_is_not_copied_again(chat: Chat, gallery: Gallery) -> None:
    chat.write(media=chat.film())
    offer = await chat.said()
    trouble, method = chat.stage.telegram.trouble, "bot_api.copyMessage"
    for fault in (Fault("cut_during", method=method), Fault("error", method=method, code=502)):
        trouble.plan(fault)
        chat.press(offer, "Put it into Films")
        said = await chat.said("answerCallbackQuery")
        assert "Look into the channel before you try again" in str(said.text)
    assert chat.stage.telegram.counters.methods[method] == 2


async def test_a_flood_wait_is_waited_out_before_a_copy(chat: Chat, gallery: Gallery) -> None:
    chat.write(media=chat.film())
    offer = await chat.said()
    chat.stage.telegram.trouble.flood_wait(1, method="bot_api.copyMessage")
    chat.press(offer, "Put it into Films")
    assert (await chat.said("answerCallbackQuery")).text == "It is in the channel."


# -- The buttons under an answer -----------------------------------------------------------------


@pytest.fixture
async def answer(chat: Chat, gallery: Gallery) -> Saying:
    """An answer about one film."""
    chat.write(forward=chat.world.post(chat.stage.channel, chat.film()))
    return await chat.said()


async def test_a_link_can_be_revoked_and_made_anew(
    chat: Chat, gallery: Gallery, answer: Saying
) -> None:
    assert await status_of(gallery, link_in(answer)) == 307
    chat.press(answer, "Revoke")
    ended = await chat.said("editMessageText")
    assert str(ended.text).endswith("The link to it has ended.")
    assert list(buttons_of(ended)) == ["New link"]
    assert str((await chat.said("answerCallbackQuery")).text).startswith("The link has ended.")
    assert await status_of(gallery, link_in(answer)) == 410
    chat.press(ended, "New link")
    fresh = await chat.said("editMessageText")
    assert (await chat.said("answerCallbackQuery")).text == "Here is a new link."
    assert await status_of(gallery, link_in(fresh)) == 307
    assert await status_of(gallery, link_in(answer)) == 410


@pytest.mark.parametrize(
    ("button", "lifetime_s", "words"),
    [
        ("1 day", 86400, "Good for 1 day, until"),
        ("7 days", 7 * 86400, "Good for 7 days, until"),
        ("No end", None, "Good until it is revoked."),
    ],
)
async def test_another_lifetime_is_another_link_in_the_place_of_this(
    chat: Chat, gallery: Gallery, answer: Saying, button: str, lifetime_s: int | None, words: str
) -> None:
    chat.press(answer, button)
    fresh = await chat.said("editMessageText")
    said = await chat.said("answerCallbackQuery")
    assert said.text == "Here is a new link. The one before it has ended."
    assert words in str(fresh.text)
    assert await status_of(gallery, link_in(fresh)) == 307
    assert await status_of(gallery, link_in(answer)) == 410
    (live,) = [each for each in await gallery.app[SHARES].listed() if not each.revoked]
    ends = live.share.expires_at
    assert (ends and ends - live.created_at) == lifetime_s


async def test_each_link_of_an_album_can_be_revoked_by_itself(
    chat: Chat, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_module, "ALBUM_PATIENCE_S", 0.3)
    group = chat.world.new_group()
    for name in ("one.mp4", "two.mp4", "three.mp4"):
        post = chat.world.post(chat.stage.channel, chat.film(name=name))
        chat.write(forward=post, grouped_id=group)
    answer = await chat.said()
    chat.press(answer, "Revoke 2")
    second = await chat.said("editMessageText")
    assert "2. two\nThe link to it has ended." in str(second.text)
    assert [*buttons_of(second)][:5] == ["Watch 1", "Revoke 1", "New link 2", "Watch 3", "Revoke 3"]
    chat.press(second, "1 day")
    third = await chat.said("editMessageText")
    assert str(third.text).count("Good for 1 day") == 2
    chat.press(third, "New link 2")
    fourth = await chat.said("editMessageText")
    assert str(fourth.text).count("Good for 1 day") == 2
    assert str(fourth.text).count("Good for 7 days") == 1
    live = [each for each in await gallery.app[SHARES].listed() if not each.revoked]
    assert len(live) == 3


async def test_a_button_works_after_a_restart_that_forgot_everything(
    chat: Chat, open_gallery: StartGallery
) -> None:
    first = await open_gallery(JWT_SECRET="the-first-secret-of-this-gallery-" * 2)
    chat.write(forward=chat.world.post(chat.stage.channel, chat.film()))
    answer = await chat.said()
    await first.close()
    secrets = ",".join(
        ["another-secret-that-is-long-enough", "the-first-secret-of-this-gallery-" * 2]
    )
    second = await open_gallery(JWT_SECRET=secrets)
    assert await status_of(second, link_in(answer)) == 307
    chat.press(answer, "Revoke")
    await chat.said("answerCallbackQuery")
    assert await status_of(second, link_in(answer)) == 410


async def test_nothing_changes_if_the_answer_cannot_be_changed(
    chat: Chat, gallery: Gallery, answer: Saying
) -> None:
    assert answer.message_id is not None
    message = chat.world.private_message(chat.stage.bot, answer.message_id)
    assert message is not None
    markup = data_of(answer, "1 day")
    chat.world.press(chat.stage.bot, OWNER, message, markup)
    chat.world.erase(message)
    said = await chat.said("answerCallbackQuery")
    assert "nothing is changed" in str(said.text)
    assert await status_of(gallery, link_in(answer)) == 307
    live = [each for each in await gallery.app[SHARES].listed() if not each.revoked]
    assert len(live) == 1


async def lose(chat: Chat, gallery: Gallery, post: Post) -> None:
    """Delete a post, and have the gallery know: after its first reading, which may have seen it."""
    catalogue = gallery.app[CATALOGUE]
    async with asyncio.timeout(20):
        while (await catalogue.state())["state"] != "ready":
            await asyncio.sleep(0.02)
    chat.world.delete(post)
    await catalogue.index.forget(chat.stage.channel.chat_id, post.id)


async def test_of_an_album_of_which_one_is_gone_no_link_is_left_over(
    chat: Chat, streaming: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_module, "ALBUM_PATIENCE_S", 0.3)
    posts = [chat.world.post(chat.stage.channel, chat.film(name=name)) for name in ("a", "b")]
    group = chat.world.new_group()
    for post in posts:
        chat.write(forward=post, grouped_id=group)
    answer = await chat.said()
    await lose(chat, streaming, posts[1])
    chat.press(answer, "Revoke 1")
    changed = await chat.said("editMessageText")
    assert list(buttons_of(changed)) == ["New link 1", "New link 2"]
    chat.press(changed, "New link 2")
    assert str((await chat.said("answerCallbackQuery")).text).startswith("The link has ended")
    assert (await chat.said("answerCallbackQuery")).text == "The film is no longer there."
    live = [each for each in await streaming.app[SHARES].listed() if not each.revoked]
    assert [each.share.message_id for each in live] == [posts[1].id]  # nobody can open that


async def test_the_film_of_a_button_may_be_gone(chat: Chat, streaming: Gallery) -> None:
    post = chat.world.post(chat.stage.channel, chat.film())
    chat.write(forward=post)
    answer = await chat.said()
    await lose(chat, streaming, post)
    chat.press(answer, "1 day")
    assert (await chat.said("answerCallbackQuery")).text == "The film is no longer there."


FOREIGN_SHARE = write_share("a secret of another gallery, long", new_share(-1001, 7, None, 0))


async def test_forged_buttons_do_nothing(chat: Chat, gallery: Gallery, answer: Saying) -> None:
    foreign, none = f"r{FOREIGN_SHARE}", "A" * 56
    for data in ("", "r", "x", "é", foreign, f"n{none}", f"d{none}", "r" + "é" * 28):
        chat.forge(answer, data)
        said = await chat.said("answerCallbackQuery")
        assert said.text == "This button is of another gallery, or of one with another secret."
    assert await status_of(gallery, link_in(answer)) == 307
    assert len(await gallery.app[SHARES].listed()) == 1


async def test_forged_offers_copy_nothing(chat: Chat, gallery: Gallery, answer: Saying) -> None:
    channel = chat.stage.channel.chat_id
    for numbers in ("", "1", f"{channel}", f"{channel}.0", f"{channel}.5.0", "1.2.x",
                    f"{channel}{'.1' * 11}", f"{channel}.-5", "é", "9" * 60):  # fmt: skip
        chat.forge(answer, f"p{numbers}")
    chat.write("/help")
    await chat.said()
    counted = chat.stage.telegram.counters.methods
    assert counted["bot_api.copyMessage"] == counted["bot_api.copyMessages"] == 0


async def test_an_offer_leads_into_channels_of_the_gallery_only(
    chat: Chat, gallery: Gallery, answer: Saying
) -> None:
    other = chat.world.add_channel("Private", chat.stage.bot)
    chat.forge(answer, f"p{other.chat_id}.1")
    said = await chat.said("answerCallbackQuery")
    assert said.text == "That channel is no longer in this gallery."
    assert chat.stage.telegram.counters.methods["bot_api.copyMessage"] == 0


# -- /gallery ------------------------------------------------------------------------------------


async def post_once(gallery: Gallery, path: str) -> Any:
    return await gallery.post(path, allow_redirects=False)


async def test_a_sign_in_link_signs_in_once_and_looking_at_it_uses_nothing_up(
    chat: Chat, gallery: Gallery, aiohttp_client: StartClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chat.write("/gallery")
    said = await chat.said()
    assert said.text is not None
    assert said.text.startswith("This signs you in, once and within 5 minutes:\n")
    assert said.details["protect_content"] is True
    path = link_in(said, "/sign-in?once=")
    assert buttons_of(said)["Open the gallery"]["url"] == HOME + path
    for method in ("HEAD", "GET", "GET"):
        async with gallery.request(method, path) as page:
            assert page.status == 200
            assert "Set-Cookie" not in page.headers
            assert page.headers["Referrer-Policy"] == "no-referrer"
            assert page.headers["Cache-Control"] == "no-store"
    assert "This link signs you in, once." in await (await gallery.get(path)).text()
    assert await status_of(gallery, "/") == 303
    signed_in = await post_once(gallery, path)
    assert (signed_in.status, signed_in.headers["Location"]) == (303, "/")
    assert await status_of(gallery, "/") == 200
    stranger = await aiohttp_client(gallery.server)
    again = await post_once(stranger, path)
    assert again.status == 410
    assert "Send the bot /gallery for another one" in await again.text()
    assert await status_of(stranger, path) == 410
    assert await status_of(stranger, "/") == 303
    assert path.partition("once=")[2] not in logged_by_us(caplog)


async def test_where_a_link_is_over_the_password_still_signs_in(
    chat: Chat, gallery: Gallery
) -> None:
    path = "/sign-in?once=" + "A" * 40
    async with gallery.post(path, data={"password": PASSWORD}, allow_redirects=False) as response:
        assert response.status == 303
    assert await status_of(gallery, "/") == 200


async def test_another_site_cannot_use_a_sign_in_link(chat: Chat, gallery: Gallery) -> None:
    chat.write("/gallery")
    path = link_in(await chat.said(), "/sign-in?once=")
    async with gallery.post(path, headers={"Sec-Fetch-Site": "cross-site"}) as response:
        assert response.status == 403
    assert (await post_once(gallery, path)).status == 303


async def test_without_a_password_there_is_nothing_to_sign_in_to(
    chat: Chat, open_gallery: StartGallery
) -> None:
    await open_gallery(GALLERY_PASSWORD="")
    chat.write("/gallery")
    assert (await chat.said()).text == f"The gallery asks for no password: {HOME}"


async def test_where_the_gallery_does_not_know_its_address_links_are_text(
    chat: Chat, open_gallery: StartGallery
) -> None:
    await open_gallery(PUBLIC_URL="", PORT="8081")
    chat.write("/gallery")
    said = await chat.said()
    assert said.reply_markup is None
    assert [entity["type"] for entity in said.entities] == ["code"]
    assert "http://localhost:8081/sign-in?once=" in str(said.text)
    assert "protect_content" not in said.details  # or the text could not be copied
    assert str(said.text).endswith("as long as its PUBLIC_URL is not set.")
    chat.write(forward=chat.world.post(chat.stage.channel, chat.film()))
    said = await chat.said()
    assert [entity["type"] for entity in said.entities] == ["bold", "code", "code"]
    assert list(buttons_of(said)) == ["Copy link", "Revoke", "1 day", "7 days", "No end"]


# -- /status -------------------------------------------------------------------------------------


async def test_status_tells_how_all_is_in_words(
    chat: Chat,
    open_gallery: StartGallery,
    viewer: Gallery,
    unused_tcp_port_factory: Callable[[], int],
) -> None:
    worker = str(viewer.make_url("/")).rstrip("/")
    asleep = f"127.0.0.1:{unused_tcp_port_factory()}"
    await open_gallery(WORKER_URL=f"{worker},http://{asleep}")
    chat.write("/status")
    said = await chat.said()
    gallery, awake, sleeping, way = str(said.text).split("\n\n")
    assert re.fullmatch(r"Gallery \(version [\d.]+\): knows 0 files in 1 channel.*\.", gallery)
    assert awake.startswith(f"Worker {URL(worker).authority}: 0 viewers of at most ")
    assert f"Bot {chat.stage.bot.id} is connected." in awake
    assert (
        sleeping
        == f"Worker {asleep} does not answer. A free host may be asleep; this has called it."
    )
    assert way == "Telegram's news come by long polling."


async def finished(chat: Chat, gallery: Gallery) -> None:
    """Once the owner is answered all before that was heard, once it is closed all is done."""
    chat.write("/help")
    assert (await chat.said()).chat_id == OWNER
    await gallery.close()


# -- Strangers -----------------------------------------------------------------------------------


def calls_of(stage: Stage) -> dict[str, int]:
    """How often a bot called each method, but for the polling."""
    counted = stage.telegram.counters.methods.items()
    return {
        name: count
        for name, count in counted
        if name.startswith("bot_api.") and name != "bot_api.getUpdates"
    }


async def test_strangers_hear_nothing_and_cost_nothing(chat: Chat, gallery: Gallery) -> None:
    chat.write("/help")
    await chat.said("setMyCommands")
    before = calls_of(chat.stage)
    post = chat.world.post(chat.stage.channel, text="words")
    for text in ("/start", "/help", "/gallery", "/status", f"https://t.me/c/1500000001/{post.id}"):
        for _ in range(50):
            chat.write(text, person=STRANGER)
    chat.write(person=STRANGER, forward=chat.world.post(chat.stage.channel, chat.film()))
    chat.write(person=STRANGER, media=chat.film(), grouped_id=chat.world.new_group())
    await finished(chat, gallery)
    after = calls_of(chat.stage)
    assert after == before | {"bot_api.sendMessage": before["bot_api.sendMessage"] + 1}
    assert {each.chat_id for each in chat.world.said} <= {OWNER, None}


async def test_a_stranger_who_presses_a_button_changes_nothing(
    chat: Chat, gallery: Gallery, answer: Saying
) -> None:
    chat.press(answer, "Revoke", person=STRANGER)
    await finished(chat, gallery)
    for method in ("answerCallbackQuery", "editMessageText"):
        assert chat.stage.telegram.counters.methods[f"bot_api.{method}"] == 0


async def test_whoever_was_given_a_link_can_neither_prolong_nor_end_it(
    chat: Chat, gallery: Gallery, answer: Saying
) -> None:
    """The link is in the data of the buttons, and strange clients send what they like."""
    share = data_of(answer, "Revoke")[1:]
    chat.write("/start", person=STRANGER)
    theirs = chat.world.answer(chat.stage.bot, STRANGER, "something that the bot once said")
    for verb in "rndwe":
        markup = {"inline_keyboard": [[{"text": "?", "callback_data": verb + share}]]}
        message = replace(theirs, reply_markup=markup)
        chat.world.press(chat.stage.bot, STRANGER, message, verb + share)
    await finished(chat, gallery)
    for method in ("answerCallbackQuery", "editMessageText"):
        assert chat.stage.telegram.counters.methods[f"bot_api.{method}"] == 0


async def test_as_long_as_there_is_no_owner_start_tells_how_to_become_one(
    chat: Chat, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery(OWNER_IDS="")
    post = chat.world.post(chat.stage.channel, chat.film())
    chat.write("hello", person=STRANGER)
    chat.write(person=STRANGER, forward=post)
    for _ in range(20):
        chat.write("/start", person=STRANGER)
    said = await chat.said()
    assert f"OWNER_IDS={STRANGER}" in str(said.text)
    chat.write("/gallery", person=OWNER)
    chat.write("/start", person=OWNER)
    said = await chat.said()
    assert (said.chat_id, f"OWNER_IDS={OWNER}" in str(said.text)) == (OWNER, True)
    chat.world.post(chat.stage.channel, text="/link", reply_to=post.id)
    await gallery.close()
    assert [saying.method for saying in chat.world.said] == ["sendMessage"] * 2


def test_hints_are_few() -> None:
    now = 0.0
    hints = Hints(lambda: now)
    assert [hints.may_tell(1), hints.may_tell(1), hints.may_tell(2)] == [True, False, True]
    assert sum(hints.may_tell(person) for person in range(1000)) == bot_module.HINTS_MAX - 2
    now = bot_module.HINT_INTERVAL_S
    assert hints.may_tell(1)
    assert len(hints._told) == 1


# -- /link in a channel --------------------------------------------------------------------------


async def test_link_in_a_channel_is_answered_in_private_and_taken_away(
    chat: Chat, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery(OWNER_IDS=f"{OWNER},43")
    for owner in (OWNER, 43):
        chat.write("/help", person=owner)
        await chat.said()
    film = chat.world.post(chat.stage.channel, chat.film())
    command = chat.world.post(
        chat.stage.channel, text=f"/link@{chat.stage.bot.username}", reply_to=film.id
    )
    said = [await chat.said(), await chat.said()]
    assert [each.chat_id for each in said] == [OWNER, 43]
    assert (await chat.said("deleteMessage")).message_id == command.id
    assert command.id not in chat.stage.channel.posts
    links = [link_in(each) for each in said]
    assert links[0] != links[1]
    assert [await status_of(gallery, link) for link in links] == [307, 307]
    assert "Revoke" in buttons_of(said[0])


async def test_an_owner_who_never_wrote_cannot_be_told_and_gets_no_link(
    chat: Chat, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    film = chat.world.post(chat.stage.channel, chat.film())
    chat.world.post(chat.stage.channel, text="/link", reply_to=film.id)
    await chat.said("deleteMessage")
    assert "an owner cannot be told: 400 Bad Request: chat not found" in caplog.text
    assert [each.revoked for each in await gallery.app[SHARES].listed()] == [True]


async def test_link_can_be_answered_in_the_channel_for_a_day(
    chat: Chat, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery(CHANNEL_LINKS="channel")
    film = chat.world.post(chat.stage.channel, chat.film())
    chat.world.post(chat.stage.channel, text="/link", reply_to=film.id)
    said = await chat.said()
    assert (said.chat_id, said.details) == (chat.stage.channel.chat_id, {"reply_to": film.id})
    assert "Good for 1 day, until" in str(said.text)
    assert str(said.text).endswith("Whoever sees this post can open the links.")
    # What changes something is no button here: everybody could press it.
    assert list(buttons_of(said)) == ["Watch", "Download"]
    assert await status_of(gallery, link_in(said)) == 307
    (listed,) = await gallery.app[SHARES].listed()
    assert listed.share.expires_at == listed.created_at + 86400


@pytest.mark.parametrize("mode", ["owners", "channel"])
async def test_link_without_a_film_is_explained_to_the_owner(
    chat: Chat, open_gallery: StartGallery, mode: str
) -> None:
    await open_gallery(CHANNEL_LINKS=mode)
    chat.write("/help")
    await chat.said()
    words = chat.world.post(chat.stage.channel, text="words")
    chat.world.post(chat.stage.channel, text="/link", reply_to=words.id)
    said = await chat.said()
    assert (said.chat_id, str(said.text)[:23]) == (OWNER, "Send /link in reply to ")


async def test_link_with_a_link_to_a_post_is_about_that(
    chat: Chat, open_gallery: StartGallery
) -> None:
    await open_gallery(CHANNEL_LINKS="channel")
    film = chat.world.post(chat.stage.channel, chat.film(name="that.mp4"))
    chat.world.post(chat.stage.channel, text=f"/link t.me/c/{chat.stage.channel.id}/{film.id}")
    assert str((await chat.said()).text).startswith("that\n")


async def test_commands_for_others_and_elsewhere_are_not_ours(
    chat: Chat, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery(CHANNEL_LINKS="channel")
    film = chat.world.post(chat.stage.channel, chat.film())
    other = chat.world.add_channel("Private", chat.stage.bot)
    foreign = chat.world.post(other, chat.film())
    chat.world.post(other, text="/link", reply_to=foreign.id)
    for text in ("/link@another_bot", "/linked", "please /link", "/help"):
        chat.world.post(chat.stage.channel, text=text, reply_to=film.id)
    await finished(chat, gallery)
    assert [each.method for each in chat.world.said] == ["sendMessage", "setMyCommands"]


async def test_a_command_that_may_not_be_deleted_stays(chat: Chat, gallery: Gallery) -> None:
    chat.write("/help")
    await chat.said()
    chat.stage.channel.rights[chat.stage.bot.id] = frozenset({"can_post_messages"})
    film = chat.world.post(chat.stage.channel, chat.film())
    command = chat.world.post(chat.stage.channel, text="/link", reply_to=film.id)
    await chat.said()
    chat.write("/help")
    await chat.said()
    assert command.id in chat.stage.channel.posts


# -- Odd updates ---------------------------------------------------------------------------------


def private(**changes: Any) -> dict[str, Any]:
    blank = {
        "message_id": 5,
        "date": 1,
        "from": {"id": OWNER, "is_bot": False, "first_name": "Ada"},
        "chat": {"id": OWNER, "type": "private"},
        "text": "/help",
    }
    return {**blank, **changes}


ODD_UPDATES: list[dict[str, Any]] = [
    {"message": private(chat={"id": -5, "type": "group"})},
    {"message": private(chat={"id": -1005, "type": "supergroup"})},
    {"message": private(chat={"id": 43, "type": "private"})},
    {"message": private(chat=[])},
    {"message": private(**{"from": None})},
    {"message": None},
    {"message": 5},
    {"edited_message": private()},
    {"callback_query": {"id": "1", "from": {"id": OWNER}, "data": "r"}},
    {"callback_query": {"id": "1", "from": {"id": OWNER}, "data": "r", "message": None}},
    {
        "callback_query": {
            **{"id": "1", "from": {"id": OWNER}, "data": "r"},
            "message": {"message_id": 5, "chat": {"id": -1001500000001}, "date": 0},
        }
    },
    {"callback_query": {"id": "1", "from": {"id": STRANGER}, "message": private(), "data": "r"}},
    {"channel_post": {"chat": {"id": -1001500000001}, "message_id": "x", "text": "/link"}},
    {"my_chat_member": {"from": {"id": OWNER}}},
    {"update_id": 2**63, "message": private()},
    {"update_id": "x", "message": private()},
    {"update_id": None, "message": private()},
]
ODD_MESSAGES: list[dict[str, Any]] = [
    private(entities=5),
    private(entities=[{"type": "bot_command", "offset": 0}]),
    private(text=None, video={"file_id": "x"}),
    private(text=None, video=5),
    private(video={"file_size": 5, "file_id": "x"}),
    private(photo=[]),
    private(forward_origin=5),
    private(video={}, forward_origin={"type": "channel", "chat": {}, "message_id": 5}),
    private(
        video={},
        forward_origin={"type": "channel", "chat": {"id": -1001500000001}, "message_id": 2**40},
    ),
    private(text="/link", reply_to_message=5),
    private(text="https://t.me/c/1500000001/5", message_id="x"),
]


async def receive(gallery: Gallery, stage: Stage, update: dict[str, Any]) -> int:
    """An update as Telegram pushes it."""
    headers = {"X-Telegram-Bot-Api-Secret-Token": webhook_secret(JWT_SECRET, stage.bot.token)}
    async with gallery.post(WEBHOOK_PATH, data=json.dumps(update), headers=headers) as response:
        return int(response.status)


async def test_odd_updates_are_passed_over(
    chat: Chat, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    chat.write("/help")
    await chat.said("setMyCommands")
    for number, update in enumerate(ODD_UPDATES, 1):
        assert await receive(gallery, chat.stage, {"update_id": number, **update}) == 200
    chat.write("/status")
    assert str((await chat.said()).text).startswith("Gallery")
    assert chat.stage.telegram.counters.methods["bot_api.answerCallbackQuery"] == 0
    for number, message in enumerate(ODD_MESSAGES, 100):
        assert await receive(gallery, chat.stage, {"update_id": number, "message": message}) == 200
    chat.write("/status")
    while not str((await chat.said()).text).startswith("Gallery"):
        pass
    assert "Traceback" not in caplog.text
    assert "the bot failed" not in caplog.text


async def test_a_button_that_carries_no_utf8_does_not_stop_the_updates(
    chat: Chat, gallery: Gallery, bot_api: BotApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telegram passes on the data of strange clients byte by byte, in the middle of the JSON."""
    bot_api._queue(chat.stage.bot).add(
        "callback_query",
        {"id": "1", "from": {"id": STRANGER}, "message": private(), "data": "POISON"},
    )
    plain = simulator._answer

    def poisoned(body: dict[str, Any], status: int = 200) -> Any:
        response = plain(body, status)
        if isinstance(response.body, bytes):
            response.body = response.body.replace(b"POISON", b"\xff\xfe")
        return response

    monkeypatch.setattr(simulator, "_answer", poisoned)
    chat.write("/help")
    assert (await chat.said()).chat_id == OWNER


# -- Once, whatever happens ----------------------------------------------------------------------


async def test_an_update_that_comes_again_is_answered_once(chat: Chat, gallery: Gallery) -> None:
    chat.write("/start")
    await chat.said("setMyCommands")
    update = {"update_id": 5_000, "message": private(text="/help")}
    for _ in range(3):
        assert await receive(gallery, chat.stage, update) == 200
    chat.write("/status")
    texts = [str((await chat.said()).text), str((await chat.said()).text)]
    assert texts[0].startswith("Send or forward")
    assert texts[1].startswith("Gallery")


async def test_two_instances_with_one_database_answer_once(
    chat: Chat, open_gallery: StartGallery, tmp_path: Path
) -> None:
    shared = {"DATABASE": str(tmp_path / "gallery.sqlite"), "PUBLIC_URL": "https://127.0.0.1:1"}
    galleries = [await open_gallery(**shared), await open_gallery(**shared)]
    chat.world.write_to(chat.stage.bot, OWNER, "/start")  # so that the bot may write at all
    for number in range(5_000, 5_010):
        update = {"update_id": number, "message": private(text="/help")}
        statuses = await asyncio.gather(*(receive(each, chat.stage, update) for each in galleries))
        assert statuses == [200, 200]
    for each in galleries:
        await each.close()
    assert [saying.method for saying in chat.world.said].count("sendMessage") == 10


async def test_what_was_answered_is_remembered_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "gallery.sqlite"
    first, second = AnsweredUpdates(str(database)), AnsweredUpdates(str(database))
    assert [await first.take(5), await first.take(5), await second.take(5)] == [True, False, False]
    monkeypatch.setattr(answered, "REMEMBERED_S", -1)  # as if it was long ago
    assert await second.take(6)
    later = AnsweredUpdates(str(database))
    assert await later.take(5)
    monkeypatch.setattr(answered, "REMEMBERED_MAX", 1)
    assert [await later.take(7), len(later._taken)] == [True, 1]
    for each in (first, second, later):
        await each.close()
    # Where nothing can be remembered an answer twice is better than none.
    await asyncio.to_thread(database.write_bytes, b"no database at all" * 500)
    broken = AnsweredUpdates(str(database))
    assert [await broken.take(5), await broken.take(5)] == [True, False]
    assert "answered updates: the database fails" in caplog.text
    await broken.close()


async def test_what_was_begun_is_finished_before_the_end(chat: Chat, gallery: Gallery) -> None:
    chat.write("/start")
    await chat.said("setMyCommands")
    chat.stage.telegram.trouble.round_trip_s = 0.2
    update = {"update_id": 5_000, "message": private(text="/help")}
    assert await receive(gallery, chat.stage, update) == 200
    await gallery.close()
    assert str((await chat.said()).text).startswith("Send or forward")


async def test_by_webhook_the_bot_answers_too(
    chat: Chat, bot_api: BotApiServer, open_gallery: StartGallery
) -> None:
    gallery = await open_gallery(PUBLIC_URL="https://127.0.0.1:1")
    while gallery.app[UPDATES].way != "by webhook":
        await asyncio.sleep(0.01)
    hook = {
        "url": str(gallery.make_url(WEBHOOK_PATH)),
        "secret_token": webhook_secret(JWT_SECRET, chat.stage.bot.token),
    }
    url = f"{bot_api.url}/bot{chat.stage.bot.token}/setWebhook"
    async with gallery.session.post(url, json=hook) as response:
        assert response.status == 200
    chat.write(forward=chat.world.post(chat.stage.channel, chat.film()))
    said = await chat.said()
    assert str(said.text).startswith("film\n")
    chat.write("/status")
    assert str((await chat.said()).text).endswith("Telegram's news come by webhook.")
    assert chat.stage.telegram.counters.methods["bot_api.getUpdates"] == 0


# -- As a process --------------------------------------------------------------------------------


@pytest.fixture
async def start_backend(
    chat: Chat, bot_api: BotApiServer, viewer: Gallery, unused_tcp_port: int
) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts backend.py as users run it, and gives its address."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(**changes: str) -> str:
        environ = {
            "PATH": os.environ["PATH"],
            "BOT_TOKEN": chat.stage.bot.token,
            "JWT_SECRET": JWT_SECRET,
            "BOT_API_URL": bot_api.url,
            "WORKER_URL": str(viewer.make_url("/")).rstrip("/"),
            "CHANNELS": str(chat.stage.channel.chat_id),
            "GALLERY_PASSWORD": PASSWORD,
            "OWNER_IDS": str(OWNER),
            "HOST": "127.0.0.1",
            "PORT": str(unused_tcp_port),
        }
        command = sys.executable, str(REPOSITORY / "backend.py")
        processes.append(
            await asyncio.create_subprocess_exec(
                *command, env={**environ, **changes}, stderr=asyncio.subprocess.PIPE
            )
        )
        log = processes[-1].stderr
        assert log is not None
        while b"gallery on" not in (line := await log.readline()):
            assert line, "the process ended at once"
        return f"http://127.0.0.1:{unused_tcp_port}"

    yield start
    for process in processes:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
        assert process.returncode == 0


@pytest.mark.parametrize("way", ["polling", "webhook"])
async def test_a_backend_as_a_process_answers(
    chat: Chat,
    bot_api: BotApiServer,
    start_backend: Callable[..., Awaitable[str]],
    way: str,
) -> None:
    url = await start_backend(PUBLIC_URL="https://127.0.0.1:1" if way == "webhook" else HOME)
    counted = chat.stage.telegram.counters.methods
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as http:
        if way == "webhook":
            while not counted["bot_api.setWebhook"]:
                await asyncio.sleep(0.01)
            # Telegram cannot reach that address, but the same gallery is at this one.
            hook = {
                "url": url + WEBHOOK_PATH,
                "secret_token": webhook_secret(JWT_SECRET, chat.stage.bot.token),
            }
            api = f"{bot_api.url}/bot{chat.stage.bot.token}/setWebhook"
            async with http.post(api, json=hook) as response:
                assert response.status == 200
        chat.write(forward=chat.world.post(chat.stage.channel, chat.film()))
        said = await chat.said()
        window = {"Range": "bytes=100-199"}
        async with http.get(url + link_in(said), headers=window) as response:
            assert response.status == 206
            assert await response.read() == SyntheticContent(5 * MB, seed=7).read(100, 100)
        chat.write("/gallery")
        once = url + link_in(await chat.said(), "/sign-in?once=")
        async with http.get(once) as page:
            assert page.status == 200
        async with http.post(once) as page:
            assert (page.status, page.url.path) == (200, "/")
    assert (counted["bot_api.getUpdates"] > 0) is (way == "polling")


# -- A bad day at Telegram -----------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot_talk, "PATIENCE_S", (0.0, 0.0, 0.0, 0.0))


@pytest.mark.usefixtures("impatient")
async def test_trouble_with_an_answer_passes(chat: Chat, gallery: Gallery) -> None:
    trouble, method = chat.stage.telegram.trouble, "bot_api.sendMessage"
    trouble.plan(Fault("error", method=method, code=502, message="Bad Gateway"))
    trouble.plan(Fault("cut_before", method=method))
    trouble.flood_wait(1, method=method)
    start = time.monotonic()
    chat.write("/help")
    await chat.said()
    assert time.monotonic() - start >= 1.0
    assert trouble.faults == []


@pytest.mark.usefixtures("impatient")
async def test_trouble_that_lasts_is_logged_and_ends_with_it(
    chat: Chat, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    fault = Fault("error", times=5, method="bot_api.sendMessage", code=502, message="Bad Gateway")
    chat.stage.telegram.trouble.plan(fault)
    chat.write("/gallery")
    while "the bot cannot answer: 502 Bad Gateway" not in caplog.text:
        await asyncio.sleep(0.01)
    chat.write("/help")
    assert str((await chat.said()).text).startswith("Send or forward")


async def test_buttons_that_telegram_does_not_take_are_left_out(
    chat: Chat, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    quoted = f"{HOME}/embed/secret-link"
    message = f"Bad Request: inline keyboard button URL '{quoted}' is invalid: Wrong HTTP URL"
    fault = Fault("error", method="bot_api.sendMessage", code=400, message=message)
    chat.stage.telegram.trouble.plan(fault)
    chat.write(forward=chat.world.post(chat.stage.channel, chat.film()))
    said = await chat.said()
    assert list(buttons_of(said)) == ["Revoke", "1 day", "7 days", "No end"]
    assert "buttons are left out: 400 Bad Request: inline keyboard button URL" in caplog.text
    assert "secret-link" not in caplog.text


async def test_a_list_of_links_that_is_full_is_said(
    chat: Chat, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gallery.share_store.SHARES_MAX", 0)
    chat.write(forward=chat.world.post(chat.stage.channel, chat.film()))
    assert (await chat.said()).text == "There are 0 shared links already."


async def test_links_and_tokens_reach_no_log(
    chat: Chat, gallery: Gallery, answer: Saying, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chat.press(answer, "1 day")
    fresh = await chat.said("editMessageText")
    await gallery.get(link_in(fresh), allow_redirects=False)
    ours = logged_by_us(caplog)
    for secret in (link_in(answer)[-44:], link_in(fresh)[-44:], chat.stage.bot.token):
        assert secret not in ours


def test_a_refusal_is_told_without_what_it_quotes() -> None:
    error = BotApiError(400, "Bad Request: URL 'http://x/v/1' is bad, see http://y/z \"too\"")
    told = bot_talk.told_safely(error)
    assert told == "400 Bad Request: URL … is bad, see … …"
