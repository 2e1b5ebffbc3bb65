"""What bots do in chats through the Bot API: write, edit, answer a button, tell their commands.

Everything that people would see is noted in the world (`World.said`), so that a test can read it.
Source: core.telegram.org/bots/api, section «Available methods»; refusals have Telegram's words.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .bot_api_objects import FileIds, Messages, chat, person_chat, user
from .bot_arguments import Arguments, json_argument, number, refuse, truth
from .bot_keyboards import read_reply_markup
from .bot_text import read_text
from .world import (
    ADMINISTRATOR_RIGHTS,
    Bot,
    Channel,
    Json,
    Post,
    PrivateMessage,
    Saying,
    User,
    World,
)

Method = Callable[[Bot, Arguments], Awaitable[Json]]

CHAT_ACTIONS = frozenset(
    {
        *("typing", "upload_photo", "record_video", "upload_video", "record_voice"),
        *("upload_voice", "upload_document", "choose_sticker", "find_location"),
        *("record_video_note", "upload_video_note"),
    }
)
CALLBACK_ANSWER_LENGTH_MAX = 200
COMMANDS_MAX = 100
COMMAND = re.compile(r"[a-z0-9_]{1,32}")
COMMAND_DESCRIPTION_LENGTH_MAX = 256
SCOPES = frozenset(
    {
        *("default", "all_private_chats", "all_group_chats", "all_chat_administrators"),
        *("chat", "chat_administrators", "chat_member"),
    }
)
SCOPES_WITH_CHAT = frozenset({"chat", "chat_administrators", "chat_member"})
NOT_MODIFIED = (
    "Bad Request: message is not modified: specified new message content and reply markup are "
    "exactly the same as a current content and reply markup of the message"
)
OLD_QUERY = "Bad Request: query is too old and response timeout expired or query ID is invalid"


class BotChats:
    """The methods that have to do with chats. `speaker` is the bot that posts right now."""

    def __init__(self, world: World, ids: FileIds) -> None:
        self.world = world
        self.speaker: Bot | None = None
        self._ids = ids
        self._commands: dict[tuple[int, str, str], list[Json]] = {}

    def methods(self) -> dict[str, Method]:
        return {
            "getMe": self._get_me,
            "sendMessage": self._send_message,
            "editMessageText": self._edit_message_text,
            "editMessageReplyMarkup": self._edit_message_reply_markup,
            "answerCallbackQuery": self._answer_callback_query,
            "sendChatAction": self._send_chat_action,
            "setMyCommands": self._set_my_commands,
            "getMyCommands": self._get_my_commands,
            "deleteMyCommands": self._delete_my_commands,
            "getChat": self._get_chat,
            "getChatMember": self._get_chat_member,
            "getChatAdministrators": self._get_chat_administrators,
        }

    # -- writing -------------------------------------------------------------------------------

    async def _send_message(self, bot: Bot, arguments: Arguments) -> Json:
        text, entities = read_text(arguments)
        target = self.target(bot, arguments)
        markup = read_reply_markup(arguments, in_channel=isinstance(target, Channel))
        reply_to = self._reply_to(bot, target, arguments)
        if isinstance(target, Channel):
            message: Post | PrivateMessage = self._post(bot, target, text, reply_to, markup)
        else:
            message = self.world.answer(
                bot, target.id, text, entities=entities, reply_to=reply_to, reply_markup=markup
            )
        protected = truth(arguments.get("protect_content"))
        details = {"protect_content": True} if protected else {}
        self.note(bot, "sendMessage", target, message, entities, details)
        return _result(self._told(bot, message))

    def _post(
        self, bot: Bot, channel: Channel, text: str, reply_to: int | None, markup: Json | None
    ) -> Post:
        with self.speaking(bot, channel):
            return self.world.post(channel, text=text, reply_to=reply_to, reply_markup=markup)

    @contextmanager
    def speaking(self, bot: Bot, channel: Channel) -> Iterator[None]:
        """While a bot posts: it hears nothing of its own post, as at Telegram. Raises ApiError."""
        if not channel.allows(bot.id, "can_post_messages"):
            refuse(400, "Bad Request: need administrator rights in the channel chat")
        self.speaker = bot
        try:
            yield
        finally:
            self.speaker = None

    def _reply_to(self, bot: Bot, target: Channel | User, arguments: Arguments) -> int | None:
        asked = json_argument(arguments, "reply_parameters", "reply parameters")
        if asked is None:
            asked = {"message_id": number(arguments, "reply_to_message_id", 0)}
            optional = truth(arguments.get("allow_sending_without_reply"))
        elif not isinstance(asked, dict):
            refuse(400, "Bad Request: object expected as reply parameters")
        elif "message_id" not in asked:
            refuse(400, 'Bad Request: can\'t find field "message_id"')
        else:
            optional = asked.get("allow_sending_without_reply") is True
        message_id = asked["message_id"]
        if not message_id:
            return None
        message_id = message_id if isinstance(message_id, int) else 0
        message = self.find(bot, target, message_id)
        if message is None and not optional:
            refuse(400, "Bad Request: message to be replied not found")
        return message.id if message else None

    async def _edit_message_text(self, bot: Bot, arguments: Arguments) -> Json:
        text, entities = read_text(arguments)
        target, message = self._editable(bot, arguments)
        if message.media is not None or not message.text:
            refuse(400, "Bad Request: there is no text in the message to edit")
        markup = read_reply_markup(
            arguments, in_channel=isinstance(target, Channel), only_inline=True
        )
        return self._edit(bot, "editMessageText", target, message, text, entities, markup)

    async def _edit_message_reply_markup(self, bot: Bot, arguments: Arguments) -> Json:
        target, message = self._editable(bot, arguments)
        markup = read_reply_markup(
            arguments, in_channel=isinstance(target, Channel), only_inline=True
        )
        entities = message.entities if isinstance(message, PrivateMessage) else ()
        method = "editMessageReplyMarkup"
        return self._edit(bot, method, target, message, message.text, entities, markup)

    def _edit(
        self,
        bot: Bot,
        method: str,
        target: Channel | User,
        message: Post | PrivateMessage,
        text: str,
        entities: tuple[Json, ...],
        markup: Json | None,
    ) -> Json:
        was = message.entities if isinstance(message, PrivateMessage) else entities
        if (message.text, message.reply_markup, was) == (text, markup, entities):
            refuse(400, NOT_MODIFIED)
        edited: Post | PrivateMessage
        if isinstance(message, Post):
            with self.speaking(bot, self.world.channels[message.channel_id]):
                edited = self.world.edit(message, text=text, reply_markup=markup or {})
        else:
            edited = self.world.rewrite(message, text, entities=entities, reply_markup=markup)
        self.note(bot, method, target, edited, entities)
        return _result(self._told(bot, edited))

    def _editable(
        self, bot: Bot, arguments: Arguments
    ) -> tuple[Channel | User, Post | PrivateMessage]:
        if arguments.get("inline_message_id"):
            refuse(400, "Bad Request: invalid inline message identifier specified")
        message_id = number(arguments, "message_id", 0)
        if not message_id:
            refuse(400, "Bad Request: message identifier is not specified")
        target = self.target(bot, arguments)
        message = self.find(bot, target, message_id)
        if message is None:
            refuse(400, "Bad Request: message to edit not found")
        if isinstance(message, PrivateMessage) and not message.from_bot:
            refuse(400, "Bad Request: message can't be edited")
        return target, message

    def find(
        self, bot: Bot, target: Channel | User, message_id: int
    ) -> Post | PrivateMessage | None:
        if isinstance(target, Channel):
            return target.posts.get(message_id)
        message = self.world.private_message(bot, message_id)
        return message if message is not None and message.user_id == target.id else None

    # -- other signs of life -------------------------------------------------------------------

    async def _answer_callback_query(self, bot: Bot, arguments: Arguments) -> Json:
        text, url = arguments.get("text", ""), arguments.get("url", "")
        if len(text) > CALLBACK_ANSWER_LENGTH_MAX:
            refuse(400, "Bad Request: MESSAGE_TOO_LONG")
        if url and not url.startswith((f"https://t.me/{bot.username}?", f"t.me/{bot.username}?")):
            # Games aside, a button may open nothing but the bot itself.
            refuse(400, "Bad Request: URL_INVALID")
        press = self.world.take_press(bot, arguments.get("callback_query_id", ""))
        if press is None:
            refuse(400, OLD_QUERY)
        details: Json = {"show_alert": truth(arguments.get("show_alert")), "url": url or None}
        self.world.note(
            Saying(
                bot.id,
                "answerCallbackQuery",
                press.user_id,
                press.message.id,
                text or None,
                details=details | {"callback_query_id": press.id},
            )
        )
        return _result(True)

    async def _send_chat_action(self, bot: Bot, arguments: Arguments) -> Json:
        action = arguments.get("action", "")
        if action not in CHAT_ACTIONS:
            refuse(400, "Bad Request: wrong parameter action in request")
        target = self.target(bot, arguments)
        details = {"action": action}
        self.world.note(Saying(bot.id, "sendChatAction", _chat_id(target), details=details))
        return _result(True)

    async def _set_my_commands(self, bot: Bot, arguments: Arguments) -> Json:
        commands = _read_commands(json_argument(arguments, "commands", "commands"))
        scope, language = self._command_list(bot, arguments)
        self._commands[bot.id, scope, language] = commands
        details = {"commands": commands, "scope": scope, "language_code": language}
        self.world.note(Saying(bot.id, "setMyCommands", details=details))
        return _result(True)

    async def _get_my_commands(self, bot: Bot, arguments: Arguments) -> Json:
        return _result(self._commands.get((bot.id, *self._command_list(bot, arguments)), []))

    async def _delete_my_commands(self, bot: Bot, arguments: Arguments) -> Json:
        scope, language = self._command_list(bot, arguments)
        self._commands.pop((bot.id, scope, language), None)
        details = {"scope": scope, "language_code": language}
        self.world.note(Saying(bot.id, "deleteMyCommands", details=details))
        return _result(True)

    def _command_list(self, bot: Bot, arguments: Arguments) -> tuple[str, str]:
        """Which list of commands is meant: for whom, and in which language."""
        language = arguments.get("language_code", "")
        if language and not re.fullmatch(r"[a-z]{2}", language):
            refuse(400, "Bad Request: invalid language code specified")
        scope = json_argument(arguments, "scope", "BotCommandScope")
        if scope is None:
            return "default", language
        if not isinstance(scope, dict):
            refuse(400, "Bad Request: can't parse BotCommandScope: expected an Object")
        kind = scope.get("type")
        if kind not in SCOPES:
            refuse(400, "Bad Request: can't parse BotCommandScope: Unsupported type specified")
        if kind not in SCOPES_WITH_CHAT:
            return str(kind), language
        target = self.target(bot, {"chat_id": str(scope.get("chat_id", ""))})
        return f"{kind} {_chat_id(target)}", language

    # -- who is who ----------------------------------------------------------------------------

    async def _get_me(self, bot: Bot, _arguments: Arguments) -> Json:
        abilities = {
            "can_join_groups": True,
            "can_read_all_group_messages": False,
            "supports_inline_queries": False,
        }
        return _result(user(bot) | abilities)

    async def _get_chat(self, bot: Bot, arguments: Arguments) -> Json:
        details = {"accent_color_id": 0, "max_reaction_count": 11}
        target = self.target(bot, arguments)
        if isinstance(target, User):
            return _result(person_chat(target) | details)
        return _result(chat(target) | details | {"has_visible_history": True})

    async def _get_chat_member(self, bot: Bot, arguments: Arguments) -> Json:
        channel = self._channel(bot, arguments)
        member = self.world.bots.get(number(arguments, "user_id", 0))
        if member is None:
            refuse(400, "Bad Request: user not found")
        if member.id not in channel.members:
            return _result({"user": user(member), "status": "left"})
        return _result(_administrator(member, channel))

    async def _get_chat_administrators(self, bot: Bot, arguments: Arguments) -> Json:
        channel = self._channel(bot, arguments)
        members = (self.world.bots[bot_id] for bot_id in sorted(channel.members))
        return _result([_administrator(member, channel) for member in members])

    def target(self, bot: Bot, arguments: Arguments) -> Channel | User:
        """The channel or the person that `chat_id` names. Raises ApiError.

        A bot can write to those who have written to it, and to nobody else.
        """
        wanted = arguments.get("chat_id", "").strip()
        if not wanted.isdecimal():
            return self._channel(bot, arguments)
        person = self.world.users.get(int(wanted))
        if int(wanted) in self.world.bots:
            refuse(403, "Forbidden: bots can't send messages to bots")
        if person is None:
            refuse(400, "Bad Request: chat not found")
        if not self.world.has_written(person.id, bot):
            refuse(403, "Forbidden: bot can't initiate conversation with a user")
        return person

    def _channel(self, bot: Bot, arguments: Arguments) -> Channel:
        """The channel that `chat_id` names, as a number or as @username. Raises ApiError."""
        wanted = arguments.get("chat_id", "").strip()
        if not wanted:
            refuse(400, "Bad Request: chat_id is empty")
        for channel in self.world.channels.values():
            if wanted in (str(channel.chat_id), f"@{channel.username}"):
                break
        else:
            refuse(400, "Bad Request: chat not found")
        if bot.id not in channel.members:
            refuse(403, "Forbidden: bot is not a member of the channel chat")
        return channel

    # -- what is told --------------------------------------------------------------------------

    def _told(self, bot: Bot, message: Post | PrivateMessage) -> Json:
        messages = Messages(self._ids, bot, self.world)
        if isinstance(message, PrivateMessage):
            return messages.private(message)
        return messages.message(self.world.channels[message.channel_id], message)

    def note(
        self,
        bot: Bot,
        method: str,
        target: Channel | User,
        message: Post | PrivateMessage,
        entities: tuple[Json, ...],
        details: Json | None = None,
    ) -> None:
        self.world.note(
            Saying(
                bot.id,
                method,
                _chat_id(target),
                message.id,
                message.text,
                entities,
                message.reply_markup,
                ({"reply_to": message.reply_to} if message.reply_to else {}) | (details or {}),
            )
        )


def _chat_id(target: Channel | User) -> int:
    return target.chat_id if isinstance(target, Channel) else target.id


def _result(result: object) -> Json:
    return {"result": result}


def _administrator(bot: Bot, channel: Channel) -> Json:
    rights = {right: channel.allows(bot.id, right) for right in sorted(ADMINISTRATOR_RIGHTS)}
    return {"user": user(bot), "status": "administrator", "can_be_edited": False} | rights


def _read_commands(asked: Any) -> list[Json]:
    """The commands of a list, checked. Raises ApiError."""
    if asked is None:
        return []
    if not isinstance(asked, list):
        refuse(400, "Bad Request: expected an Array of BotCommand")
    if len(asked) > COMMANDS_MAX:
        refuse(400, "Bad Request: BOT_COMMANDS_TOO_MUCH")
    return [_read_command(each) for each in asked]


def _read_command(asked: Any) -> Json:
    if not isinstance(asked, dict):
        refuse(400, "Bad Request: can't parse BotCommand: expected an Object")
    for name in ("command", "description"):
        if not isinstance(asked.get(name), str):
            refuse(400, f"Bad Request: can't parse BotCommand: Can't find field \"{name}\"")
    command, description = asked["command"].removeprefix("/"), asked["description"].strip()
    if not command:
        refuse(400, "Bad Request: command must be non-empty")
    if not COMMAND.fullmatch(command):
        refuse(400, "Bad Request: BOT_COMMAND_INVALID")
    if not description:
        refuse(400, "Bad Request: command description must be non-empty")
    if len(description) > COMMAND_DESCRIPTION_LENGTH_MAX:
        refuse(
            400,
            "Bad Request: command description length must not exceed "
            f"{COMMAND_DESCRIPTION_LENGTH_MAX}",
        )
    return {"command": command, "description": description}
