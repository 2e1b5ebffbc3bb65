"""People write to bots and bots answer, through the Bot API.

Goal: a bot that behaves here behaves at Telegram: it hears of everything that people send, and is
refused what Telegram would refuse, in Telegram's words. Method: plain HTTP requests as a bot makes
them; people exist in the world alone; what the bot said is read where a test would read it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from telegram_simulator import world as world_module
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.bot_keyboards import read_reply_markup
from telegram_simulator.bot_text import WrongLink, check_link, command_entities, parse_html
from telegram_simulator.bot_updates import ApiError
from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.world import Bot, Channel, Document, Saying, World

ADA = 42


@dataclass
class Talk:
    """A bot that sees to its updates, one channel that it is in, and people who may write to it."""

    server: BotApiServer
    http: aiohttp.ClientSession
    bot: Bot
    channel: Channel

    @property
    def world(self) -> World:
        return self.server.world

    async def ask(self, method: str, **arguments: object) -> tuple[int, dict[str, Any]]:
        url = f"{self.server.url}/bot{self.bot.token}/{method}"
        async with self.http.post(url, json=arguments) as answer:
            return answer.status, await answer.json()

    async def result(self, method: str, **arguments: object) -> Any:
        status, body = await self.ask(method, **arguments)
        assert (status, body["ok"]) == (200, True), body
        return body["result"]

    async def refusal(self, method: str, **arguments: object) -> tuple[int, str]:
        status, body = await self.ask(method, **arguments)
        assert body["ok"] is False
        assert body["error_code"] == status
        return status, body["description"]

    async def heard(self, kind: str = "message") -> dict[str, Any]:
        """The latest thing that the bot heard of, which must be of this kind."""
        (update,) = await self.result("getUpdates", offset=-1)
        assert update.keys() == {"update_id", kind}
        return dict(update[kind])

    async def control(self, method: str, path: str, **body: object) -> tuple[int, Any]:
        url = f"{self.server.url}/simulator/{path}"
        async with self.http.request(method, url, json=body or None) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.status == 200 else text

    @property
    def last(self) -> Saying:
        return self.world.said[-1]

    def film(self, size: int = 5000) -> Document:
        blank = self.world.new_document(SyntheticContent(size, seed=3), "video/mp4")
        return replace(blank, kind="video", file_name="film.mp4", duration_s=61.4)


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    world = World()
    bot = world.add_bot("7000000001:a-token-of-no-value")
    channel = world.add_channel("Films", bot, username="films")
    world.add_user(ADA, "Ada", username="ada", language_code="en")
    async with BotApiServer(world) as server, aiohttp.ClientSession() as http:
        yield Talk(server, http, bot, channel)


@pytest.fixture
async def started(talk: Talk) -> Talk:
    """Ada has pressed Start, and the bot knows."""
    talk.world.write_to(talk.bot, ADA, "/start")
    await talk.heard()
    return talk


# -- what people send ----------------------------------------------------------------------------


async def test_a_command_comes_with_who_sent_it(talk: Talk) -> None:
    message = talk.world.write_to(talk.bot, ADA, "/start film_7 please")
    told = await talk.heard()
    assert told["message_id"] == message.id == 1
    assert told["from"] == {
        "id": ADA,
        "is_bot": False,
        "first_name": "Ada",
        "username": "ada",
        "language_code": "en",
    }
    assert told["chat"] == {"id": ADA, "first_name": "Ada", "username": "ada", "type": "private"}
    assert told["text"] == "/start film_7 please"
    assert told["entities"] == [{"type": "bot_command", "offset": 0, "length": 6}]
    assert (await talk.result("getChat", chat_id=ADA))["type"] == "private"


async def test_a_forwarded_post_says_where_it_came_from(talk: Talk) -> None:
    film = talk.film()
    post = talk.world.post(talk.channel, film, "A film")
    in_the_channel = (await talk.heard("channel_post"))["video"]
    talk.world.write_to(talk.bot, ADA, forward=post)
    told = await talk.heard()
    assert told["forward_origin"] == {
        "type": "channel",
        "chat": {"id": talk.channel.chat_id, "title": "Films", "type": "channel"}
        | {"username": "films"},
        "message_id": post.id,
        "date": int(post.date.timestamp()),
    }
    assert told["caption"] == "A film"
    assert told["video"] == in_the_channel
    path = (await talk.result("getFile", file_id=told["video"]["file_id"]))["file_path"]
    async with talk.http.get(f"{talk.server.url}/file/bot{talk.bot.token}/{path}") as answer:
        assert await answer.read() == film.content.read(0, 5000)


async def test_a_file_that_a_person_sends_can_be_fetched(talk: Talk) -> None:
    blank = talk.world.new_document(BytesContent(b"1\n00:00"), "application/x-subrip")
    subtitles = replace(blank, file_name="film.srt")
    talk.world.write_to(talk.bot, ADA, "in English", media=subtitles)
    told = await talk.heard()
    assert (told["caption"], told["document"]["file_name"]) == ("in English", "film.srt")
    file = await talk.result("getFile", file_id=told["document"]["file_id"])
    assert file["file_size"] == 7


async def test_a_command_in_a_channel_is_a_post_with_a_command(talk: Talk) -> None:
    talk.world.post(talk.channel, text=f"/list@{talk.bot.username} new")
    told = await talk.heard("channel_post")
    (entity,) = told["entities"]
    assert entity["length"] == len(f"/list@{talk.bot.username}")
    assert "from" not in told


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("/start", ["/start"]),
        ("please /help me", ["/help"]),
        ("😀 /a /b_2", ["/a", "/b_2"]),
        ("http://x/y and a/b and 1/2 and //x", []),
        ("/etc/file", []),
        ("", []),
    ],
)
def test_commands_are_found_as_telegram_finds_them(text: str, commands: list[str]) -> None:
    units = text.encode("utf-16-le")
    found = [
        units[2 * each["offset"] : 2 * (each["offset"] + each["length"])].decode("utf-16-le")
        for each in command_entities(text)
    ]
    assert found == commands


async def test_what_nobody_could_send_is_a_mistake_of_the_test(talk: Talk) -> None:
    post = talk.world.post(talk.channel, text="x")
    wrong: list[dict[str, Any]] = [
        {"text": " "},
        {"text": "mine", "forward": post},
        {"text": "x", "reply_to": 7},
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"nothing|keeps its own|no message 7"):
            talk.world.write_to(talk.bot, ADA, **arguments)
    with pytest.raises(ValueError, match="no person"):
        talk.world.write_to(talk.bot, talk.bot.id, "I am a bot")


async def test_each_bot_hears_what_was_written_to_it_alone(talk: Talk) -> None:
    other = talk.world.add_bot("7000000002:other")
    talk.world.write_to(other, ADA, "for the other")
    assert await talk.result("getUpdates") == []
    talk.bot = other
    assert (await talk.heard())["text"] == "for the other"


async def test_private_messages_are_pushed_and_filtered_like_posts(talk: Talk) -> None:
    assert await talk.result("getUpdates", allowed_updates=["callback_query"]) == []
    talk.world.write_to(talk.bot, ADA, "unheard")
    assert await talk.result("getUpdates") == []
    assert await talk.result("getUpdates", allowed_updates=["message"]) == []
    poll = asyncio.create_task(talk.result("getUpdates", timeout=30))
    async with asyncio.timeout(5):
        while talk.server.counters.methods["bot_api.getUpdates"] < 4:
            await asyncio.sleep(0.005)
        talk.world.write_to(talk.bot, ADA, "heard")
        (update,) = await poll
    assert update["message"]["text"] == "heard"


async def test_a_webhook_hears_of_people_too(
    talk: Talk, aiohttp_server: Callable[[web.Application], Awaitable[TestServer]]
) -> None:
    calls: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        await calls.put(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    hook = await aiohttp_server(app)
    await talk.result("setWebhook", url=str(hook.make_url("/hook")))
    talk.world.write_to(talk.bot, ADA, "/start")
    async with asyncio.timeout(5):
        update = await calls.get()
    assert update["message"]["text"] == "/start"
    status, _description = await talk.refusal("getUpdates")
    assert status == 409
    await talk.result("deleteWebhook")
    talk.world.write_to(talk.bot, ADA, "again")
    assert (await talk.heard())["text"] == "again"


async def test_only_the_latest_of_a_long_talk_is_kept(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "PRIVATE_MESSAGES_KEPT", 2)
    monkeypatch.setattr(world_module, "SAYINGS_KEPT", 2)
    talk.world.write_to(talk.bot, ADA, "/start")
    sent = [await talk.result("sendMessage", chat_id=ADA, text=text) for text in "abc"]
    assert [each["message_id"] for each in sent] == [2, 3, 4]
    kept = [talk.world.private_message(talk.bot, number) for number in range(1, 5)]
    assert [each and each.text for each in kept] == [None, None, "b", "c"]
    assert [(saying.number, saying.text) for saying in talk.world.said] == [(2, "b"), (3, "c")]


# -- what the bot says ---------------------------------------------------------------------------


async def test_an_answer_is_kept_where_tests_read_it(started: Talk) -> None:
    markup = {"inline_keyboard": [[{"text": "Watch", "url": "https://films.example/v/1"}]]}
    sent = await started.result(
        "sendMessage",
        chat_id=ADA,
        text='Here: <a href="https://films.example/v/1">A &amp; B</a>, <b>now</b>',
        parse_mode="HTML",
        reply_markup=markup,
        reply_parameters={"message_id": 1},
        protect_content=True,
    )
    assert sent["text"] == "Here: A & B, now"
    assert sent["entities"] == [
        {"type": "text_link", "offset": 6, "length": 5, "url": "https://films.example/v/1"},
        {"type": "bold", "offset": 13, "length": 3},
    ]
    assert sent["reply_markup"] == markup
    assert (sent["from"]["id"], sent["chat"]["id"]) == (started.bot.id, ADA)
    assert sent["reply_to_message"]["text"] == "/start"
    said = started.last
    assert (said.bot_id, said.method, said.chat_id) == (started.bot.id, "sendMessage", ADA)
    assert (said.message_id, said.text) == (sent["message_id"], sent["text"])
    assert said.reply_markup == markup
    assert said.details == {"reply_to": 1, "protect_content": True}
    # A bot gets no update of what it says itself.
    assert [update["message"]["text"] for update in await started.result("getUpdates")] == [
        "/start"
    ]


@pytest.mark.parametrize(
    ("chat_id", "answer"),
    [
        (99, (400, "Bad Request: chat not found")),
        (ADA, (403, "Forbidden: bot can't initiate conversation with a user")),
        (7000000001, (403, "Forbidden: bots can't send messages to bots")),
    ],
)
async def test_a_bot_cannot_begin_a_conversation(
    talk: Talk, chat_id: int, answer: tuple[int, str]
) -> None:
    assert await talk.refusal("sendMessage", chat_id=chat_id, text="hello?") == answer
    assert talk.world.said == []


async def test_a_message_can_be_edited_by_the_bot_that_wrote_it(started: Talk) -> None:
    sent = await started.result("sendMessage", chat_id=ADA, text="Searching ...")
    place = {"chat_id": ADA, "message_id": sent["message_id"]}
    edited = await started.result("editMessageText", **place, text="Found")
    assert (edited["message_id"], edited["text"]) == (sent["message_id"], "Found")
    assert edited["edit_date"]
    assert (started.last.method, started.last.text) == ("editMessageText", "Found")
    same = await started.refusal("editMessageText", **place, text="Found")
    assert same[0] == 400
    assert same[1].startswith("Bad Request: message is not modified")
    markup = {"inline_keyboard": [[{"text": "Next", "callback_data": "next"}]]}
    edited = await started.result("editMessageReplyMarkup", **place, reply_markup=markup)
    assert (edited["text"], edited["reply_markup"]) == ("Found", markup)
    # Text alone takes the buttons away.
    assert "reply_markup" not in await started.result("editMessageText", **place, text="Done")


@pytest.mark.parametrize(
    ("place", "description"),
    [
        ({"chat_id": ADA, "message_id": 1}, "message can't be edited"),
        ({"chat_id": ADA, "message_id": 9}, "message to edit not found"),
        ({"chat_id": ADA}, "message identifier is not specified"),
        ({"inline_message_id": "x"}, "invalid inline message identifier specified"),
        ({"chat_id": "@films", "message_id": 1}, "there is no text in the message to edit"),
    ],
)
async def test_not_everything_can_be_edited(
    started: Talk, place: dict[str, object], description: str
) -> None:
    got = await started.refusal("editMessageText", **place, text="x")
    assert got == (400, f"Bad Request: {description}")


async def test_a_post_of_the_bot_is_edited_in_the_channel(started: Talk) -> None:
    markup = {"inline_keyboard": [[{"text": "More", "callback_data": "more"}]]}
    channel_id = started.channel.chat_id
    target = started.world.post(started.channel, text="Which film?")
    sent = await started.result(
        "sendMessage",
        chat_id=channel_id,
        text="This one",
        reply_markup=markup,
        reply_to_message_id=target.id,
    )
    assert sent["reply_markup"] == markup
    assert sent["reply_to_message"]["message_id"] == target.id
    place = {"chat_id": channel_id, "message_id": sent["message_id"]}
    await started.result("editMessageText", **place, text="That one")
    post = started.channel.posts[sent["message_id"]]
    assert (post.text, post.reply_markup, post.reply_to) == ("That one", None, target.id)
    heard = await started.result("getUpdates")
    assert [list(update)[1] for update in heard] == ["message", "channel_post"]


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        ({"text": ""}, "message text is empty"),
        ({"text": " \n"}, "message text is empty"),
        ({"text": "<b> </b>", "parse_mode": "HTML"}, "message text is empty"),
        ({"text": "x" * 4097}, "message is too long"),
        ({"text": "<b>" * 30_000, "parse_mode": "HTML"}, "message is too long"),
        ({"text": "x", "parse_mode": "XML"}, "unsupported parse_mode"),
        ({"text": "*x*", "parse_mode": "MarkdownV2"}, "unsupported parse_mode"),
        (
            {"text": "x", "entities": [{"type": "bold", "offset": 0, "length": 1}]},
            "the pocket Telegram reads parse_mode HTML, not entities",
        ),
        ({"text": "x", "reply_parameters": {"message_id": 9}}, "message to be replied not found"),
        ({"text": "x", "reply_to_message_id": 9}, "message to be replied not found"),
        ({"text": "x", "reply_parameters": {"quote": "a"}}, 'can\'t find field "message_id"'),
        ({"text": "x", "reply_parameters": [1]}, "object expected as reply parameters"),
        ({"text": "x", "reply_markup": "{"}, "can't parse reply keyboard markup JSON object"),
    ],
)
async def test_text_is_refused_as_telegram_refuses_it(
    started: Talk, arguments: dict[str, object], description: str
) -> None:
    got = await started.refusal("sendMessage", chat_id=ADA, **arguments)
    assert got == (400, f"Bad Request: {description}")
    assert started.world.said == []


async def test_the_length_counts_what_is_left_of_the_tags(started: Talk) -> None:
    text = "<b>" + "x" * 4096 + "</b>\n"
    sent = await started.result("sendMessage", chat_id=ADA, text=text, parse_mode="HTML")
    assert sent["text"] == "x" * 4096


async def test_a_reply_to_what_is_gone_can_be_sent_all_the_same(started: Talk) -> None:
    optional = {"message_id": 9, "allow_sending_without_reply": True}
    sent = await started.result("sendMessage", chat_id=ADA, text="x", reply_parameters=optional)
    assert "reply_to_message" not in sent


# -- copies and deletions ------------------------------------------------------------------------


async def test_a_film_that_a_person_sent_is_copied_into_a_channel(started: Talk) -> None:
    sent = started.world.write_to(started.bot, ADA, "A film", media=started.film())
    to_channel = {"chat_id": "@films", "from_chat_id": ADA}
    copy = await started.result("copyMessage", **to_channel, message_id=sent.id)
    post = started.channel.posts[copy["message_id"]]
    assert (post.media, post.text) == (sent.media, "A film")
    assert (started.last.method, started.last.message_id) == ("copyMessage", post.id)
    # A bot gets no update of its own post, and a copy says nothing of where it came from.
    told = await started.result("getUpdates", offset=-1)
    assert [list(update)[1] for update in told] == ["message"]
    back = await started.result(
        "copyMessage", chat_id=ADA, from_chat_id="@films", message_id=post.id
    )
    message = started.world.private_message(started.bot, back["message_id"])
    assert message is not None
    assert (message.media, message.forwarded, message.from_bot) == (sent.media, None, True)


async def test_an_album_comes_in_parts_and_is_copied_as_one(started: Talk) -> None:
    group = started.world.new_group()
    parts = [
        started.world.write_to(started.bot, ADA, text, media=started.film(), grouped_id=group)
        for text in ("one", "two")
    ]
    updates = await started.result("getUpdates")
    told = [update["message"].get("media_group_id") for update in updates]
    assert told[-2:] == [str(group)] * 2
    gone = parts[-1].id + 1
    copies = await started.result(
        "copyMessages",
        chat_id="@films",
        from_chat_id=ADA,
        message_ids=[*(part.id for part in parts), gone],
    )
    posts = [started.channel.posts[copy["message_id"]] for copy in copies]
    assert [post.text for post in posts] == ["one", "two"]
    assert posts[0].grouped_id == posts[1].grouped_id
    assert posts[0].grouped_id not in (None, group)


@pytest.mark.parametrize(
    ("method", "arguments", "description"),
    [
        ("copyMessage", {"message_id": 9}, "message to copy not found"),
        ("copyMessage", {"from_chat_id": "@films", "message_id": 1}, "message can't be copied"),
        ("copyMessages", {"message_ids": [8, 9]}, "there are no messages to copy"),
        ("copyMessages", {"message_ids": []}, "message identifiers are not specified"),
        ("copyMessages", {"message_ids": "x"}, "can't parse message_ids JSON object"),
        ("copyMessages", {"message_ids": {}}, "expected an Array of message identifiers"),
        (
            "copyMessages",
            {"message_ids": [2, 1]},
            "message identifiers must be in a strictly increasing order",
        ),
        (
            "copyMessages",
            {"message_ids": [*range(1, 102)]},
            "too many message identifiers specified",
        ),
        ("deleteMessage", {"message_id": 9}, "message to delete not found"),
    ],
)
async def test_copies_and_deletions_are_refused_as_telegram_refuses_them(
    started: Talk, method: str, arguments: dict[str, object], description: str
) -> None:
    place = {"chat_id": "@films", "from_chat_id": ADA}
    got = await started.refusal(method, **{**place, **arguments})
    assert got == (400, f"Bad Request: {description}")


async def test_a_bot_deletes_what_it_may(started: Talk) -> None:
    post = started.world.post(started.channel, text="/link")
    assert await started.result("deleteMessage", chat_id="@films", message_id=post.id) is True
    assert post.id not in started.channel.posts
    assert (started.last.method, started.last.message_id) == ("deleteMessage", post.id)
    assert await started.result("deleteMessage", chat_id=ADA, message_id=1) is True
    assert started.world.private_message(started.bot, 1) is None


async def test_an_administrator_without_rights_is_refused(started: Talk) -> None:
    post = started.world.post(started.channel, text="/link")
    started.channel.rights[started.bot.id] = frozenset()
    member = await started.result("getChatMember", chat_id="@films", user_id=started.bot.id)
    assert (member["status"], member["can_post_messages"]) == ("administrator", False)
    refused = (400, "Bad Request: need administrator rights in the channel chat")
    assert await started.refusal("sendMessage", chat_id="@films", text="x") == refused
    copy = {"chat_id": "@films", "from_chat_id": ADA, "message_id": 1}
    assert await started.refusal("copyMessage", **copy) == refused
    deletion = await started.refusal("deleteMessage", chat_id="@films", message_id=post.id)
    assert deletion == (400, "Bad Request: message can't be deleted")


# -- HTML ----------------------------------------------------------------------------------------


def entities_of(source: str) -> list[tuple[str, str]]:
    """Each entity as its kind and the text that it covers."""
    text, entities = parse_html(source)
    units = text.encode("utf-16-le")
    return [
        (
            each["type"],
            units[2 * each["offset"] : 2 * (each["offset"] + each["length"])].decode("utf-16-le"),
        )
        for each in entities
    ]


@pytest.mark.parametrize(
    ("source", "text", "entities"),
    [
        ("plain", "plain", []),
        ("1 &lt; 2 &amp;&amp; &quot;x&quot;", '1 < 2 && "x"', []),
        ("&#128512;&#x1F600; &copy; & &lt", "😀😀 &copy; & <", []),
        ("😀<b>😀</b>", "😀😀", [("bold", "😀")]),
        ("<B>x</b  >", "x", [("bold", "x")]),
        ("<i>a<b>b</b></i>c", "abc", [("italic", "ab"), ("bold", "b")]),
        ("<strong>x</><em>y</>", "xy", [("bold", "x"), ("italic", "y")]),
        ("<u>a</u><ins>b</ins>", "ab", [("underline", "a"), ("underline", "b")]),
        ("<s>a</s><del>b</del>", "ab", [("strikethrough", "a"), ("strikethrough", "b")]),
        ('<span class="tg-spoiler">x</span>', "x", [("spoiler", "x")]),
        ("<tg-spoiler>x</tg-spoiler>", "x", [("spoiler", "x")]),
        ("<pre><code class='language-py'>x</code></pre>", "x", [("code", "x"), ("pre", "x")]),
        ("<blockquote expandable>x</blockquote>", "x", [("expandable_blockquote", "x")]),
        ("<blockquote cite=a.b-c>x</blockquote>", "x", [("blockquote", "x")]),
        ("<b></b>x", "x", []),
        ("<a href='https://a.example/?x=1&amp;y=2'>x</a>", "x", [("text_link", "x")]),
        ("<a>a.example</a>", "a.example", [("text_link", "a.example")]),
        # Dropped without a word, by Telegram too.
        ("<a href='http://localhost:8080/'>x</a>", "x", []),
        ("<a href='javascript://a.b/'>x</a>", "x", []),
    ],
)
def test_html_is_read(source: str, text: str, entities: list[tuple[str, str]]) -> None:
    assert parse_html(source)[0] == text
    assert entities_of(source) == entities


def test_a_link_keeps_its_address() -> None:
    _text, (link,) = parse_html("<a href='HTTPS://A.example/?x=1&amp;y=2'>x</a>")
    assert link["url"] == "https://a.example/?x=1&y=2"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x < y", 'Unsupported start tag "" at byte offset 2'),
        ("é<br>", 'Unsupported start tag "br" at byte offset 2'),
        ("<script>x</script>", 'Unsupported start tag "script" at byte offset 0'),
        ("<b>x", 'Can\'t find end tag corresponding to start tag "b"'),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("<b>x</i>", 'Unmatched end tag at byte offset 4, expected "</b>", found "</i>"'),
        ("<b><i>x</b></i>", 'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"'),
        ("<b>x</b", "Unclosed end tag at byte offset 4"),
        ("<b", "Unclosed start tag at byte offset 0"),
        ("<a href=", 'Unclosed start tag "a" at byte offset 0'),
        ("<a href='x>y", "Unclosed start tag at byte offset 0"),
        ("<a =x>y</a>", 'Empty attribute name in the tag "a" at byte offset 0'),
        ("<a href=http://x>y</a>", "Unexpected end of name token at byte offset 8"),
        ("<span>x</span>", 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
        ("<tg-emoji>x</tg-emoji>", "Invalid custom emoji identifier specified"),
    ],
)
def test_html_is_refused_in_telegrams_words(source: str, problem: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_html(source)
    assert refused.value.code == 400
    assert refused.value.description == f"Bad Request: can't parse entities: {problem}"


# -- links and buttons ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("https://films.example", "https://films.example/"),
        ("films.example/v/1?t=2#x", "http://films.example/v/1?t=2#x"),
        ("HTTPS://Films.Example:8443/A b", "https://films.example:8443/A%20b"),
        ("http://user:word@films.example/", "http://user:word@films.example/"),
        ("http://127.0.0.1:8080/v", "http://127.0.0.1:8080/v"),
        ("http://[::1]:8080/v", "http://[::1]:8080/v"),
        ("https://films.example?x=1", "https://films.example/?x=1"),
        ("tg://resolve?domain=films", "tg://resolve?domain=films"),
        ("TG:resolve?domain=films", "tg://resolve?domain=films"),
    ],
)
def test_links_are_kept_in_one_form(link: str, kept: str) -> None:
    assert check_link(link) == kept


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("http://localhost:8080/", "Wrong HTTP URL"),
        ("gallery", "Wrong HTTP URL"),
        ("ftp://films.example/", "Unsupported URL protocol"),
        ("javascript://films.example/", "Unsupported URL protocol"),
        ("https://", "URL host is empty"),
        ("", "URL host is empty"),
        ("http://./x", "Host is invalid"),
        ("http://films.example:0/", "Wrong port number specified in the URL"),
        ("http://films.example:99999/", "Wrong port number specified in the URL"),
        ("http://fil ms.example/", "Disallowed character in URL host"),
        ("http://[::x]/", "Disallowed character in URL host"),
        ("tg://resolve:80?domain=x", "Wrong tg URL"),
        ("tg://https://films.example", "Wrong tg URL"),
        ("tg://a.b", "Unallowed characters in URL host"),
    ],
)
def test_links_are_refused_in_telegrams_words(link: str, problem: str) -> None:
    with pytest.raises(WrongLink) as refused:
        check_link(link)
    assert str(refused.value) == problem


def keyboard(*buttons: object, rows: int = 1) -> dict[str, str]:
    return {"reply_markup": json.dumps({"inline_keyboard": [list(buttons)] * rows})}


NO_BUTTON = "can't parse inline keyboard button: "


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            keyboard({"text": "x", "url": "http://localhost:8080/"}),
            "inline keyboard button URL 'http://localhost:8080/' is invalid: Wrong HTTP URL",
        ),
        (
            keyboard({"text": "x", "web_app": {"url": "http://films.example"}}),
            "inline keyboard button Web App URL 'http://films.example' is invalid: "
            "Only HTTPS links are allowed",
        ),
        (keyboard({"text": "x", "callback_data": "x" * 65}), "BUTTON_DATA_INVALID"),
        (keyboard({"text": "x", "callback_data": "é" * 33}), "BUTTON_DATA_INVALID"),
        (keyboard({"text": "x", "copy_text": {"text": ""}}), "BUTTON_COPY_TEXT_INVALID"),
        (keyboard({"text": "x", "pay": True}), "BUTTON_TYPE_INVALID"),
        (
            keyboard({"text": "x"}),
            f"{NO_BUTTON}Text buttons are unallowed in the inline keyboard",
        ),
        (
            keyboard({"text": "x", "callback_data": ""}),
            f"{NO_BUTTON}Text buttons are unallowed in the inline keyboard",
        ),
        (keyboard({"url": "https://a.example"}), f'{NO_BUTTON}Can\'t find field "text"'),
        (
            keyboard({"text": 1, "callback_data": "x"}),
            f'{NO_BUTTON}Field "text" must be of type String',
        ),
        (keyboard({"text": "x", "url": 7}), f'{NO_BUTTON}Field "url" must be of type String'),
        (keyboard("x"), f"{NO_BUTTON}InlineKeyboardButton must be an Object"),
        (
            keyboard({"text": " ", "callback_data": "x"}),
            f"{NO_BUTTON}the text of a button is empty",
        ),
        (
            keyboard({"text": "x", "callback_data": "x", "url": "https://a.example"}),
            f"{NO_BUTTON}exactly one of its optional fields must be used",
        ),
        (keyboard(*[{"text": "x", "callback_data": "x"}] * 9), "reply markup is too long"),
        (
            {
                "reply_markup": json.dumps(
                    {"inline_keyboard": [[{"text": "x", "callback_data": "x"}]] * 101}
                )
            },
            "reply markup is too long",
        ),
        ({"reply_markup": "[]"}, "object expected as reply markup"),
        (
            {"reply_markup": '{"inline_keyboard": 1}'},
            'field "inline_keyboard" must be of type Array',
        ),
        (
            {"reply_markup": '{"inline_keyboard": [1]}'},
            'field "inline_keyboard" of the InlineKeyboardMarkup must be an Array of Arrays',
        ),
        (
            {"reply_markup": '{"remove_keyboard": "yes"}'},
            'field "remove_keyboard" must be of type Boolean',
        ),
        ({"reply_markup": '{"keyboard": [1]}'}, 'field "keyboard" must be an Array of Arrays'),
        ({"reply_markup": '{"x": 1}'}, "can't parse reply keyboard markup JSON object"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_keyboards_are_refused_in_telegrams_words(arguments: dict[str, str], problem: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_reply_markup(arguments, in_channel=False)
    assert (refused.value.code, refused.value.description) == (400, f"Bad Request: {problem}")


def test_a_keyboard_comes_out_as_telegram_keeps_it() -> None:
    buttons = [
        {"text": "Watch", "url": "Films.example"},
        {"text": "Next", "callback_data": "x" * 64, "style": "primary"},
        {"text": "App", "web_app": {"url": "https://films.example/app"}},
        {"text": "Copy", "copy_text": {"text": "code"}},
    ]
    kept = read_reply_markup(keyboard(*buttons), in_channel=False)
    assert kept == {
        "inline_keyboard": [
            [
                {"text": "Watch", "url": "http://films.example/"},
                {"text": "Next", "callback_data": "x" * 64},
                {"text": "App", "web_app": {"url": "https://films.example/app"}},
                {"text": "Copy", "copy_text": {"text": "code"}},
            ]
        ]
    }
    for nothing in ({}, {"reply_markup": ""}, {"reply_markup": "{}"}, keyboard()):
        assert read_reply_markup(nothing, in_channel=False) is None
    for other in ({"remove_keyboard": True}, {"force_reply": True}, {"keyboard": [["A"]]}):
        arguments = {"reply_markup": json.dumps(other)}
        assert read_reply_markup(arguments, in_channel=False) == other
        with pytest.raises(ApiError, match="inline keyboard expected"):
            read_reply_markup(arguments, in_channel=True)
    app = keyboard({"text": "x", "web_app": {"url": "https://films.example"}})
    with pytest.raises(ApiError, match="BUTTON_TYPE_INVALID"):
        read_reply_markup(app, in_channel=True)


async def test_a_pressed_button_is_answered_once(started: Talk) -> None:
    markup = {"inline_keyboard": [[{"text": "Next", "callback_data": "next 2"}]]}
    sent = await started.result("sendMessage", chat_id=ADA, text="1", reply_markup=markup)
    message = started.world.private_message(started.bot, sent["message_id"])
    assert message is not None
    press = started.world.press(started.bot, ADA, message, "next 2")
    query = await started.heard("callback_query")
    assert (query["id"], query["data"], query["from"]["id"]) == (press.id, "next 2", ADA)
    assert query["message"] == sent
    answer = {"callback_query_id": query["id"], "text": "Done", "show_alert": True}
    assert await started.result("answerCallbackQuery", **answer) is True
    assert (started.last.text, started.last.chat_id) == ("Done", ADA)
    assert started.last.details["show_alert"] is True
    assert await started.refusal("answerCallbackQuery", **answer) == (
        400,
        "Bad Request: query is too old and response timeout expired or query ID is invalid",
    )
    with pytest.raises(ValueError, match="no button"):
        started.world.press(started.bot, ADA, message, "something else")


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        ({"text": "x" * 201}, "MESSAGE_TOO_LONG"),
        ({"url": "https://films.example"}, "URL_INVALID"),
        ({}, "query is too old and response timeout expired or query ID is invalid"),
    ],
)
async def test_answers_to_buttons_have_their_rules(
    started: Talk, arguments: dict[str, object], description: str
) -> None:
    got = await started.refusal("answerCallbackQuery", **arguments)
    assert got == (400, f"Bad Request: {description}")


async def test_a_button_under_a_post_can_be_pressed(started: Talk) -> None:
    markup = {"inline_keyboard": [[{"text": "Next", "callback_data": "n"}]]}
    sent = await started.result(
        "sendMessage", chat_id="@films", text="1", reply_markup=json.dumps(markup)
    )
    started.world.press(started.bot, 77, started.channel.posts[sent["message_id"]], "n")
    query = await started.heard("callback_query")
    assert query["message"] == sent
    assert query["from"]["first_name"] == "Person 77"


# -- other signs of life -------------------------------------------------------------------------


async def test_a_chat_action_is_noted(started: Talk) -> None:
    assert await started.result("sendChatAction", chat_id=ADA, action="typing") is True
    assert started.last == Saying(
        started.bot.id, "sendChatAction", ADA, details={"action": "typing"}, number=1
    )
    got = await started.refusal("sendChatAction", chat_id=ADA, action="dancing")
    assert got == (400, "Bad Request: wrong parameter action in request")


async def test_commands_are_kept_by_scope_and_language(started: Talk) -> None:
    commands = [{"command": "start", "description": "Begin"}]
    assert await started.result("setMyCommands", commands=commands) is True
    assert started.last.details["commands"] == commands
    german = [{"command": "/start", "description": "Anfangen"}]
    scope = {"type": "chat", "chat_id": ADA}
    await started.result("setMyCommands", commands=german, scope=scope, language_code="de")
    assert await started.result("getMyCommands") == commands
    (got,) = await started.result("getMyCommands", scope=scope, language_code="de")
    assert got == {"command": "start", "description": "Anfangen"}
    assert await started.result("deleteMyCommands") is True
    assert await started.result("getMyCommands") == []


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        ({"commands": [{"command": "Start", "description": "x"}]}, "BOT_COMMAND_INVALID"),
        ({"commands": [{"command": "a" * 33, "description": "x"}]}, "BOT_COMMAND_INVALID"),
        ({"commands": [{"command": "", "description": "x"}]}, "command must be non-empty"),
        (
            {"commands": [{"command": "a", "description": " "}]},
            "command description must be non-empty",
        ),
        (
            {"commands": [{"command": "a", "description": "x" * 257}]},
            "command description length must not exceed 256",
        ),
        ({"commands": [{"command": "a", "description": "x"}] * 101}, "BOT_COMMANDS_TOO_MUCH"),
        ({"commands": {"a": 1}}, "expected an Array of BotCommand"),
        ({"commands": ["a"]}, "can't parse BotCommand: expected an Object"),
        (
            {"commands": [{"command": "a"}]},
            "can't parse BotCommand: Can't find field \"description\"",
        ),
        ({"commands": "["}, "can't parse commands JSON object"),
        ({"language_code": "German"}, "invalid language code specified"),
        ({"scope": {"type": "x"}}, "can't parse BotCommandScope: Unsupported type specified"),
        ({"scope": "7"}, "can't parse BotCommandScope: expected an Object"),
        ({"scope": {"type": "chat"}}, "chat_id is empty"),
    ],
)
async def test_commands_are_refused_in_telegrams_words(
    talk: Talk, arguments: dict[str, object], description: str
) -> None:
    got = await talk.refusal("setMyCommands", **arguments)
    assert got == (400, f"Bad Request: {description}")


# -- from another process ------------------------------------------------------------------------


async def test_the_control_door_writes_presses_and_reads(talk: Talk) -> None:
    post = talk.world.post(talk.channel, talk.film(), "A film")
    who = {"user_id": 5, "first_name": "Bob", "username": "bob", "language_code": "de"}
    status, written = await talk.control("POST", "write", text="/start", **who)
    assert (status, written) == (200, {"message_id": 1})
    assert (await talk.heard())["from"]["language_code"] == "de"
    place = {"chat_id": talk.channel.chat_id, "message_id": post.id}
    await talk.control("POST", "write", user_id=5, forward=place)
    assert (await talk.heard())["forward_origin"]["message_id"] == post.id
    assert post.media is not None
    file = {"file_id": post.media.id, "text": "mine"}
    await talk.control("POST", "write", user_id=5, **file, reply_to=1, bot_id=talk.bot.id)
    told = await talk.heard()
    assert (told["caption"], told["reply_to_message"]["text"]) == ("mine", "/start")
    _status, posted = await talk.control("POST", "write", **place, text="/list", reply_to=post.id)
    assert talk.channel.posts[posted["message_id"]].text == "/list"
    markup = {"inline_keyboard": [[{"text": "Next", "callback_data": "n"}]]}
    sent = await talk.result("sendMessage", chat_id=5, text="Hello", reply_markup=markup)
    pressed = {"user_id": 5, "message_id": sent["message_id"], "data": "n"}
    _status, press = await talk.control("POST", "press", **pressed)
    assert (await talk.heard("callback_query"))["id"] == press["callback_query_id"]
    status, (said,) = await talk.control("GET", "said")
    assert (said["number"], said["method"], said["text"]) == (1, "sendMessage", "Hello")
    assert said["reply_markup"] == markup
    assert await talk.control("GET", "said?after=1") == (200, [])


async def test_one_can_write_and_wait_for_the_answer(started: Talk) -> None:
    await started.result("sendMessage", chat_id=ADA, text="something before")
    written = {"user_id": ADA, "text": "hello", "timeout_s": 30}
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(started.control("POST", "write", **written))
        while not started.world._listeners:
            await asyncio.sleep(0.005)
        await started.result("sendMessage", chat_id=ADA, text="the answer")
        _status, answer = await waiting
    assert [saying["text"] for saying in answer["said"]] == ["the answer"]
    status, said = await started.control("POST", "write", **written | {"timeout_s": "inf"})
    assert (status, said) == (400, "a time-out is a number of seconds\n")


async def test_one_can_wait_for_what_the_bot_says(started: Talk) -> None:
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(started.control("GET", "said?timeout_s=30"))
        while not started.world._listeners:
            await asyncio.sleep(0.005)
        await started.result("sendMessage", chat_id=ADA, text="at last")
        _status, (said,) = await waiting
        assert said["text"] == "at last"
        assert await started.control("GET", "said?after=1&timeout_s=0.05") == (200, [])
    assert started.world._listeners == []


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("write", {"text": "x"}, "missing or unknown: user_id"),
        ("write", {"user_id": 5}, "nothing in the message"),
        ("write", {"user_id": 5, "file_id": 1}, "no file 1"),
        ("write", {"user_id": 5, "text": "x", "bot_id": 1}, "missing or unknown: 1"),
        ("write", {"user_id": 5, "forward": {"chat_id": -1, "message_id": 1}}, "no channel -1"),
        ("write", {"user_id": "x", "text": "x"}, "invalid literal"),
        ("press", {"user_id": 5, "message_id": 9, "data": "x"}, "no message 9"),
        ("press", {"user_id": 5}, "missing or unknown: message_id"),
    ],
)
async def test_the_control_door_says_what_is_wrong(
    talk: Talk, path: str, body: dict[str, object], problem: str
) -> None:
    status, said = await talk.control("POST", path, **body)
    assert status == 400
    assert problem in said


async def test_with_several_bots_one_must_be_named(talk: Talk) -> None:
    talk.world.add_bot("7000000002:other")
    status, said = await talk.control("POST", "write", user_id=5, text="x")
    assert (status, "several bots" in said) == (400, True)
