"""What bots do with messages that are there already: copy them to another chat, delete them.

Source: core.telegram.org/bots/api#copymessage, #copymessages and #deletemessage; refusals have
Telegram's words.
"""

from __future__ import annotations

from .bot_arguments import Arguments, json_argument, number, refuse
from .bot_chats import BotChats, Method
from .world import Bot, Channel, Json, Post, PrivateMessage, Saying, User, World

COPIES_MAX = 100
"""How many messages one call may name."""


class BotCopies:
    """The methods; `chats` knows who and what is meant, and who speaks."""

    def __init__(self, world: World, chats: BotChats) -> None:
        self._world = world
        self._chats = chats

    def methods(self) -> dict[str, Method]:
        return {
            "copyMessage": self._copy_message,
            "copyMessages": self._copy_messages,
            "deleteMessage": self._delete_message,
        }

    async def _copy_message(self, bot: Bot, arguments: Arguments) -> Json:
        target = self._chats.target(bot, arguments)
        source = self._source(bot, arguments)
        message = self._chats.find(bot, source, number(arguments, "message_id", 0))
        if message is None:
            refuse(400, "Bad Request: message to copy not found")
        if not _can_be_copied(message):
            refuse(400, "Bad Request: message can't be copied")
        copy = self._copy(bot, target, message, None)
        self._chats.note(bot, "copyMessage", target, copy, ())
        return {"result": {"message_id": copy.id}}

    async def _copy_messages(self, bot: Bot, arguments: Arguments) -> Json:
        """What is not there is left out without a word; albums stay albums."""
        target = self._chats.target(bot, arguments)
        source = self._source(bot, arguments)
        ids = _message_ids(arguments)
        found = [self._chats.find(bot, source, message_id) for message_id in ids]
        messages = [each for each in found if each is not None and _can_be_copied(each)]
        if not messages:
            refuse(400, "Bad Request: there are no messages to copy")
        groups = {each.grouped_id for each in messages if each.grouped_id is not None}
        albums = {group: self._world.new_group() for group in groups}
        copies = []
        for message in messages:
            album = None if message.grouped_id is None else albums[message.grouped_id]
            copies.append(self._copy(bot, target, message, album))
            self._chats.note(bot, "copyMessages", target, copies[-1], ())
        return {"result": [{"message_id": copy.id} for copy in copies]}

    async def _delete_message(self, bot: Bot, arguments: Arguments) -> Json:
        target = self._chats.target(bot, arguments)
        message = self._chats.find(bot, target, number(arguments, "message_id", 0))
        if message is None:
            refuse(400, "Bad Request: message to delete not found")
        if isinstance(message, PrivateMessage):
            self._world.erase(message)
        elif isinstance(target, Channel) and not target.allows(bot.id, "can_delete_messages"):
            refuse(400, "Bad Request: message can't be deleted")
        else:
            self._world.delete(message)
        chat_id = target.chat_id if isinstance(target, Channel) else target.id
        self._world.note(Saying(bot.id, "deleteMessage", chat_id, message.id))
        return {"result": True}

    def _source(self, bot: Bot, arguments: Arguments) -> Channel | User:
        return self._chats.target(bot, {"chat_id": arguments.get("from_chat_id", "")})

    def _copy(
        self,
        bot: Bot,
        target: Channel | User,
        message: Post | PrivateMessage,
        album: int | None,
    ) -> Post | PrivateMessage:
        if isinstance(target, Channel):
            with self._chats.speaking(bot, target):
                return self._world.post(target, message.media, message.text, grouped_id=album)
        return self._world.answer(bot, target.id, message.text, media=message.media)


def _can_be_copied(message: Post | PrivateMessage) -> bool:
    return not (isinstance(message, Post) and message.service)


def _message_ids(arguments: Arguments) -> list[int]:
    ids = json_argument(arguments, "message_ids", "message_ids")
    if not isinstance(ids, list) or not all(type(each) is int for each in ids):
        refuse(400, "Bad Request: expected an Array of message identifiers")
    if not ids:
        refuse(400, "Bad Request: message identifiers are not specified")
    if len(ids) > COPIES_MAX:
        refuse(400, "Bad Request: too many message identifiers specified")
    if sorted(set(ids)) != ids:
        refuse(400, "Bad Request: message identifiers must be in a strictly increasing order")
    return ids
