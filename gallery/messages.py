"""Messages: what the Bot API tells of one: its file, where it comes from, what it asks for.

They are JSON of any form. If one is not what it should be these raise one of MALFORMED.
"""

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gallery.files import MESSAGE_ID_MAX, MediaFile, clean_text, guess_type
from gallery.index import BotFile

Message = Mapping[str, Any]
Told = tuple[MediaFile, BotFile]

# Of an animation Telegram says both, for bots older than the field: the document comes last.
_FILE_FIELDS: Final = ("video", "animation", "audio", "voice", "video_note", "document")
_TYPES: Final = {"video": "video/mp4", "video_note": "video/mp4", "voice": "audio/ogg"}
_CHANNEL_ID_OFFSET: Final = 1_000_000_000_000  # core.telegram.org/api/bots/ids
_USERNAME: Final = r"[A-Za-z][A-Za-z0-9_]{3,31}"
# core.telegram.org/api/links#message-links. Between the two numbers there may be a topic's.
_POST_LINK: Final = re.compile(
    r"(?<![\w.@/-])(?:https?://)?(?:"
    r"(?:t\.me|telegram\.(?:me|dog))/"
    rf"(?:c/(?P<id>[0-9]{{1,13}})|(?:s/)?(?P<name>{_USERNAME}))(?:/[0-9]{{1,10}})?"
    rf"|(?P<host>{_USERNAME})\.t\.me"
    r")/(?P<post>[0-9]{1,10})(?![\w/])"
    r"|tg://privatepost\?channel=(?P<tg_id>[0-9]{1,13})&post=(?P<tg_post>[0-9]{1,10})(?!\d)"
    rf"|tg://resolve\?domain=(?P<tg_name>{_USERNAME})&post=(?P<tg_named_post>[0-9]{{1,10}})(?!\d)",
    re.ASCII | re.IGNORECASE,
)


def file_in(message: Message) -> Told | None:
    """The file of a message and what the Bot API calls it; None if it has none.

    It is described as the worker's listing describes it.
    """
    message_id = int(message["message_id"])
    if "photo" in message:
        media = max(message["photo"], key=lambda size: int(size["width"]) * int(size["height"]))
        media = {**media, "file_name": f"photo_{message_id}.jpg", "mime_type": "image/jpeg"}
    else:
        field = next((field for field in _FILE_FIELDS if field in message), None)
        if field is None:
            return None
        media = {"mime_type": _TYPES.get(field, ""), **message[field]}
    if "file_size" not in media:
        return None  # Telegram may leave it out; the worker knows it
    edge = media.get("length", 0)
    name = media.get("file_name") or ""
    mime_type = media["mime_type"]
    if mime_type in ("", "application/octet-stream"):
        mime_type = guess_type(name)
    if not name:
        suffix = mimetypes.guess_extension(mime_type) or ""
        name = f"{mime_type.partition('/')[0]}_{message_id}{suffix}"
    file = MediaFile.from_listing(
        {
            "chat_id": message["chat"]["id"],
            "message_id": message_id,
            "name": name,
            "mime_type": mime_type,
            "size": media["file_size"],
            "date": message["date"],
            "duration": media.get("duration", 0),
            "width": media.get("width", edge),
            "height": media.get("height", edge),
            "caption": message.get("caption"),
            "has_thumbnail": "thumbnail" in media or "photo" in message,
            **_bonds(message, media),
        }
    )
    return file, BotFile(clean_text(media["file_id"]), clean_text(media["file_unique_id"]))


def _bonds(message: Message, media: Mapping[str, Any]) -> dict[str, Any]:
    """What binds the file to others, and what else is told of some."""
    album = str(message.get("media_group_id", ""))
    replied = message.get("reply_to_message")
    qualities = media.get("qualities")
    return {
        "album": int(album) if re.fullmatch("-?[0-9]{1,19}", album) else None,
        "reply_to": replied.get("message_id") if isinstance(replied, dict) else None,
        "title": media.get("title"),
        "performer": media.get("performer"),
        "qualities": [each["height"] for each in qualities or ()],
    }


def has_file(message: Message) -> bool:
    """Whether there is a file in it, told of whole or not."""
    return "photo" in message or any(field in message for field in _FILE_FIELDS)


@dataclass(frozen=True)
class Place:
    """Where a post is: in a channel, known by its number or by its username."""

    channel: int | str
    message_id: int


def file_as_if_in(message: Message, chat_id: int, message_id: int, date: int) -> Told | None:
    """The same file as the post there has it, of which this message is a copy."""
    return file_in({**message, "chat": {"id": chat_id}, "message_id": message_id, "date": date})


def origin_of(message: Message) -> tuple[Place, int] | None:
    """Which channel's post a message was forwarded from, and when that was posted."""
    origin = message.get("forward_origin")
    if origin is None or origin["type"] != "channel":
        return None
    place = Place(int(origin["chat"]["id"]), _message_id(origin["message_id"]))
    return place, int(origin["date"])


def command_in(message: Message, username: str | None = None) -> str | None:
    """The command that a message begins with, without its slash, if it is for this bot.

    Without a username every bot is meant, as in a private chat.
    """
    for entity in message.get("entities", ()):
        if (entity["type"], entity["offset"]) == ("bot_command", 0):
            command = str(message["text"])[1 : int(entity["length"])]
            name, _, addressee = command.partition("@")
            is_ours = not addressee or username is None or addressee.lower() == username.lower()
            return name.lower() if is_ours else None
    return None


def places_in(message: Message) -> list[Place]:
    """The posts that the links in a text lead to, those under other words too."""
    texts = [str(message.get("text", ""))]
    texts += [str(entity["url"]) for entity in message.get("entities", ()) if "url" in entity]
    found = [_place(match) for text in texts for match in _POST_LINK.finditer(text)]
    return list(dict.fromkeys(place for place in found if place is not None))


def _place(match: re.Match[str]) -> Place | None:
    groups = match.groupdict()
    message_id = int(groups["post"] or groups["tg_post"] or groups["tg_named_post"])
    if not 0 < message_id <= MESSAGE_ID_MAX:
        return None
    if number := groups["id"] or groups["tg_id"]:
        return Place(-(_CHANNEL_ID_OFFSET + int(number)), message_id)
    return Place((groups["name"] or groups["host"] or groups["tg_name"]).lower(), message_id)


def _message_id(value: Any) -> int:
    message_id = int(value)
    if not 0 < message_id <= MESSAGE_ID_MAX:
        raise ValueError
    return message_id
