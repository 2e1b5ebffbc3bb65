"""The world as the Bot API tells it: messages, chats and files as JSON, and the ids of files.

Sources: core.telegram.org/bots/api, sections «Available types» and «getFile».
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import secrets
import struct
from dataclasses import dataclass

from .bot_text import command_entities
from .content import Content
from .world import (
    Bot,
    Channel,
    Document,
    Json,
    Photo,
    PhotoSize,
    Post,
    Press,
    PrivateMessage,
    User,
    World,
)

_FOLDERS = {
    "video": "videos",
    "round_video": "video_notes",
    "audio": "music",
    "voice": "voice",
    "animation": "animations",
    "document": "documents",
}


@dataclass(frozen=True, slots=True)
class FilePlace:
    """One downloadable thing: a file, or, when `size_kind` is set, that size of its pictures."""

    file_id: int
    size_kind: str = ""


class FileIds:
    """Makes the opaque `file_id` strings and reads them back.

    As with Telegram's, each bot has its own id for a file and no bot can read another's, while
    the `file_unique_id` is the same for all and opens nothing.
    """

    _PLACE = struct.Struct(">Q4s")
    _TAG_BYTES = 12

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def file_id(self, bot: Bot, place: FilePlace) -> str:
        packed = self._PLACE.pack(place.file_id, place.size_kind.encode())
        # The tag both proves the id and, hashed again, hides what is in it.
        tag = self._digest(b"tag", bot.id, packed)[: self._TAG_BYTES]
        mask = self._digest(b"mask", bot.id, tag)
        body = bytes(a ^ b for a, b in zip(packed, mask, strict=False))
        return base64.urlsafe_b64encode(tag + body).decode()

    def place(self, bot: Bot, file_id: str) -> FilePlace | None:
        """What a `file_id` names; None when it is no id of this bot's."""
        try:
            raw = base64.b64decode(file_id.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return None
        tag, body = raw[: self._TAG_BYTES], raw[self._TAG_BYTES :]
        if len(body) != self._PLACE.size:
            return None
        mask = self._digest(b"mask", bot.id, tag)
        packed = bytes(a ^ b for a, b in zip(body, mask, strict=False))
        if not hmac.compare_digest(self._digest(b"tag", bot.id, packed)[: self._TAG_BYTES], tag):
            return None
        number, size_kind = self._PLACE.unpack(packed)
        return FilePlace(number, size_kind.rstrip(b"\0").decode())

    def unique_id(self, place: FilePlace) -> str:
        packed = self._PLACE.pack(place.file_id, place.size_kind.encode())
        return base64.urlsafe_b64encode(self._digest(b"unique", 0, packed)[:12]).decode()

    def _digest(self, purpose: bytes, bot_id: int, message: bytes) -> bytes:
        return hmac.digest(self._secret, b"%s/%d/%s" % (purpose, bot_id, message), hashlib.sha256)


def find_content(world: World, place: FilePlace) -> Content | None:
    """The bytes of a place, or None when the world has no such file or size."""
    media = world.file(place.file_id)
    if media is None:
        return None
    if isinstance(media, Document) and not place.size_kind:
        return media.content
    sizes = media.thumbnails if isinstance(media, Document) else media.sizes
    return next((size.content for size in sizes if size.kind == place.size_kind), None)


def folder_and_suffix(world: World, place: FilePlace) -> tuple[str, str]:
    """The folder that Telegram keeps a file in, and how its path ends: ("videos", ".mp4")."""
    media = world.file(place.file_id)
    if isinstance(media, Photo):
        return "photos", ".jpg"
    if media is None or place.size_kind:
        return "thumbnails", ".jpg"
    _stem, dot, suffix = (media.file_name or "").rpartition(".")
    return _FOLDERS[media.kind], f".{suffix}" if dot and suffix.isalnum() else ""


def user(bot: Bot) -> Json:
    return {"id": bot.id, "is_bot": True, "first_name": bot.name, "username": bot.username}


def chat(channel: Channel) -> Json:
    described: Json = {"id": channel.chat_id, "title": channel.title, "type": "channel"}
    if channel.username:
        described["username"] = channel.username
    return described


def person(who: User) -> Json:
    described: Json = {"id": who.id, "is_bot": False, "first_name": who.first_name}
    if who.username:
        described["username"] = who.username
    if who.language_code:
        described["language_code"] = who.language_code
    return described


def person_chat(who: User) -> Json:
    """The chat of a bot with a person; it has the person's id."""
    described: Json = {"id": who.id, "first_name": who.first_name, "type": "private"}
    if who.username:
        described["username"] = who.username
    return described


class Messages:
    """Posts and private messages as the `Message` objects that one bot gets to see."""

    def __init__(self, ids: FileIds, bot: Bot, world: World) -> None:
        self._ids = ids
        self._bot = bot
        self._world = world

    def message(self, channel: Channel, post: Post, *, with_reply: bool = True) -> Json:
        """A post. What it replies to is in it, but not what that one replied to in its turn."""
        where = chat(channel)
        told: Json = {
            "message_id": post.id,
            "sender_chat": where,
            "chat": where,
            "date": int(post.date.timestamp()),
        }
        if post.edit_date is not None:
            told["edit_date"] = int(post.edit_date.timestamp())
        if post.grouped_id is not None:
            told["media_group_id"] = str(post.grouped_id)
        replied = channel.posts.get(post.reply_to) if post.reply_to else None
        if replied is not None and with_reply:
            told["reply_to_message"] = self.message(channel, replied, with_reply=False)
        if post.service:
            told["channel_chat_created"] = True
        return told | self._body(post, command_entities(post.text))

    def private(self, message: PrivateMessage, *, with_reply: bool = True) -> Json:
        """What a person wrote to the bot, or the bot to a person."""
        who = self._world.users[message.user_id]
        told: Json = {
            "message_id": message.id,
            "from": user(self._bot) if message.from_bot else person(who),
            "chat": person_chat(who),
            "date": int(message.date.timestamp()),
        }
        if message.edit_date is not None:
            told["edit_date"] = int(message.edit_date.timestamp())
        if message.grouped_id is not None:
            told["media_group_id"] = str(message.grouped_id)
        if message.forwarded is not None:
            told["forward_origin"] = self._origin(message.forwarded)
        if message.reply_to and with_reply:
            replied = self._world.private_message(self._bot, message.reply_to)
            if replied is not None:
                told["reply_to_message"] = self.private(replied, with_reply=False)
        entities = list(message.entities) if message.from_bot else command_entities(message.text)
        return told | self._body(message, entities)

    def press(self, press: Press) -> Json:
        """A `CallbackQuery`: somebody pressed one of the bot's buttons."""
        message = press.message
        if isinstance(message, PrivateMessage):
            told = self.private(message)
        else:
            told = self.message(self._world.channels[message.channel_id], message)
        return {
            "id": press.id,
            "from": person(self._world.users[press.user_id]),
            "message": told,
            "chat_instance": str(told["chat"]["id"]),
            "data": press.data,
        }

    def _origin(self, post: Post) -> Json:
        return {
            "type": "channel",
            "chat": chat(self._world.channels[post.channel_id]),
            "message_id": post.id,
            "date": int(post.date.timestamp()),
        }

    def _body(self, message: Post | PrivateMessage, entities: list[Json]) -> Json:
        told = {} if message.media is None else self._media(message.media)
        kind = "text" if message.media is None else "caption"
        if message.text:
            told[kind] = message.text
        if entities:
            told["entities" if kind == "text" else "caption_entities"] = entities
        if message.reply_markup and "inline_keyboard" in message.reply_markup:
            told["reply_markup"] = message.reply_markup
        return told

    def _media(self, media: Document | Photo) -> Json:
        if isinstance(media, Photo):
            return {"photo": [self._picture(media.id, size) for size in media.sizes]}
        told = self._file(FilePlace(media.id), media.content) | {"mime_type": media.mime_type}
        if media.file_name:
            told["file_name"] = media.file_name
        if media.thumbnails:
            told["thumbnail"] = self._picture(media.id, media.thumbnails[-1])
        # An uploader may have written NaN; the Bot API speaks in whole seconds.
        timed = {"duration": round(media.duration_s) if math.isfinite(media.duration_s) else 0}
        moving = timed | {"width": media.width, "height": media.height}
        match media.kind:
            case "video":
                qualities = [self._quality(each) for each in media.alternatives if each.video_codec]
                return {"video": told | moving | ({"qualities": qualities} if qualities else {})}
            case "animation":
                # Telegram sends both, for bots older than the field.
                return {"animation": told | moving, "document": told}
            case "round_video":
                return {"video_note": told | timed | {"length": media.width}}
            case "audio":
                named = {"title": media.title, "performer": media.performer}
                named = {name: value for name, value in named.items() if value}
                return {"audio": told | timed | named}
            case "voice":
                return {"voice": told | timed}
            case "document":
                return {"document": told}

    def _quality(self, film: Document) -> Json:
        """A `VideoQuality`; playlists and storyboards are not told of."""
        measures = {"width": film.width, "height": film.height, "codec": film.video_codec}
        return self._file(FilePlace(film.id), film.content) | measures

    def _picture(self, file_id: int, size: PhotoSize) -> Json:
        place = FilePlace(file_id, size.kind)
        return self._file(place, size.content) | {"width": size.width, "height": size.height}

    def _file(self, place: FilePlace, content: Content) -> Json:
        return {
            "file_id": self._ids.file_id(self._bot, place),
            "file_unique_id": self._ids.unique_id(place),
            "file_size": content.size,
        }
