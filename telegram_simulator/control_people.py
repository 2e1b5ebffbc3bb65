"""The part of the control door where people write to bots, and one reads what bots said.

POST /simulator/write   {"user_id": 42, "text": "/start"}: a person writes to the bot
                        instead of a text: "forward": {"chat_id": -100…, "message_id": 5},
                        or "file_id": a file's id from /simulator/posts, with "text" as caption
                        further: "bot_id" where there are several bots, "reply_to",
                        "grouped_id" that makes one album of several messages,
                        "first_name", "username", "language_code" of the person;
                        "timeout_s" waits that long for what the bot says, and answers with it
                        {"chat_id": -100…, "text": "/list"}: somebody posts in a channel
POST /simulator/press   {"user_id": 42, "message_id": 3, "data": "next"}: a person presses a
                        button; "chat_id" names the channel, if the message is a post
GET  /simulator/said    what bots said, oldest first; ?after=7 only what is numbered higher,
                        &timeout_s=5 waits that long for something
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from .world import Bot, Channel, Post, PrivateMessage, Saying, World

ReadObject = Callable[[web.Request], Awaitable[dict[str, Any]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TIMEOUT_MAX_S = 60.0


def people_routes(world: World, read_object: ReadObject) -> list[tuple[str, str, Handler]]:
    """Method, path below /simulator/ and handler of each; `read_object` reads a JSON body."""

    async def write(request: web.Request) -> web.Response:
        wanted = await read_object(request)
        with _checked():
            timeout_s = _timeout_s(wanted.get("timeout_s", 0))
            before = world.said[-1].number if world.said else 0
            message = _post(world, wanted) if "chat_id" in wanted else _write(world, wanted)
        answer: dict[str, Any] = {"message_id": message.id}
        if timeout_s:
            answer["said"] = _told(await _sayings(world, before, timeout_s))
        return web.json_response(answer)

    async def press(request: web.Request) -> web.Response:
        wanted = await read_object(request)
        with _checked():
            bot, message_id = _bot(world, wanted), int(wanted["message_id"])
            message = _message(world, bot, wanted.get("chat_id"), message_id)
            pressed = world.press(bot, int(wanted["user_id"]), message, str(wanted["data"]))
        return web.json_response({"callback_query_id": pressed.id})

    async def said(request: web.Request) -> web.Response:
        with _checked():
            after = int(request.query.get("after", "0"))
            timeout_s = _timeout_s(request.query.get("timeout_s", "0"))
        return web.json_response(_told(await _sayings(world, after, timeout_s)))

    return [("POST", "write", write), ("POST", "press", press), ("GET", "said", said)]


@contextmanager
def _checked() -> Iterator[None]:
    """Turns what is missing or makes no sense in a request into a 400."""
    try:
        yield
    except KeyError as missing:
        raise web.HTTPBadRequest(text=f"missing or unknown: {missing.args[0]}\n") from None
    except (TypeError, ValueError) as problem:
        raise web.HTTPBadRequest(text=f"{problem}\n") from None


def _write(world: World, wanted: dict[str, Any]) -> PrivateMessage:
    bot, user_id = _bot(world, wanted), int(wanted["user_id"])
    if "first_name" in wanted:
        world.add_user(
            user_id,
            str(wanted["first_name"]),
            username=wanted.get("username"),
            language_code=wanted.get("language_code"),
        )
    forward = wanted.get("forward")
    file_id = wanted.get("file_id")
    media = None if file_id is None else world.file(int(file_id))
    if file_id is not None and media is None:
        raise ValueError(f"there is no file {file_id}")
    return world.write_to(
        bot,
        user_id,
        str(wanted.get("text", "")),
        media=media,
        forward=None if forward is None else _find_post(world, forward),
        grouped_id=wanted.get("grouped_id"),
        reply_to=wanted.get("reply_to"),
    )


def _post(world: World, wanted: dict[str, Any]) -> Post:
    channel = _channel(world, wanted["chat_id"])
    return world.post(channel, text=str(wanted["text"]), reply_to=wanted.get("reply_to"))


def _bot(world: World, wanted: dict[str, Any]) -> Bot:
    if "bot_id" in wanted:
        return world.bots[int(wanted["bot_id"])]
    if len(world.bots) != 1:
        raise ValueError("there are several bots: name one with bot_id")
    return next(iter(world.bots.values()))


def _channel(world: World, chat_id: Any) -> Channel:
    for channel in world.channels.values():
        if channel.chat_id == int(chat_id):
            return channel
    raise ValueError(f"there is no channel {chat_id}")


def _find_post(world: World, wanted: dict[str, Any]) -> Post:
    message_id = int(wanted["message_id"])
    post = _channel(world, wanted["chat_id"]).posts.get(message_id)
    if post is None:
        raise ValueError(f"there is no post {message_id}")
    return post


def _message(world: World, bot: Bot, chat_id: Any, message_id: int) -> PrivateMessage | Post:
    if chat_id is not None:
        return _find_post(world, {"chat_id": chat_id, "message_id": message_id})
    message = world.private_message(bot, message_id)
    if message is None:
        raise ValueError(f"there is no message {message_id}")
    return message


def _timeout_s(wanted: Any) -> float:
    timeout_s = float(wanted)
    if not math.isfinite(timeout_s):
        raise ValueError("a time-out is a number of seconds")
    return min(timeout_s, TIMEOUT_MAX_S)


def _told(sayings: list[Saying]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(saying) for saying in sayings]


async def _sayings(world: World, after: int, timeout_s: float) -> list[Saying]:
    """What bots said after a number, or, if nothing yet, the first that they say in time."""
    heard = asyncio.Event()
    stop = world.listen(lambda _saying: heard.set())
    try:
        if timeout_s > 0 and not any(saying.number > after for saying in world.said):
            async with asyncio.timeout(timeout_s):
                await heard.wait()
    except TimeoutError:
        return []
    finally:
        stop()
    return [saying for saying in world.said if saying.number > after]
