"""Who and what exists in the pocket Telegram: bots, channels, posts, files.

Both doors, MTProto and the Bot API, look at this one world, so a post made here is seen by both.
Nothing in this module does I/O or waits; those who want to hear of changes subscribe.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from .content import Content

FileKind = Literal["video", "round_video", "audio", "voice", "animation", "document"]
ReferenceState = Literal["valid", "expired", "empty", "invalid"]
CHANNEL_ID_OFFSET = 1_000_000_000_000
"""A channel's Bot API id is minus this, minus its bare id (core.telegram.org/api/bots/ids)."""


@dataclass(frozen=True, slots=True)
class PhotoSize:
    """One size of a photo or a thumbnail: `kind` is Telegram's one letter (s, m, x, y, w)."""

    kind: str
    width: int
    height: int
    content: Content


@dataclass(frozen=True, slots=True)
class Document:
    """A file as Telegram keeps it, in the data centre `dc_id` and in no other."""

    id: int
    dc_id: int
    content: Content
    mime_type: str
    file_name: str | None = None
    kind: FileKind = "document"
    duration_s: float = 0.0
    width: int = 0
    height: int = 0
    thumbnails: tuple[PhotoSize, ...] = ()
    date: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo: the same picture in several sizes, biggest last."""

    id: int
    dc_id: int
    sizes: tuple[PhotoSize, ...]
    date: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Post:
    """One message of a channel; a `service` one («channel created») has neither text nor file."""

    id: int
    channel_id: int
    date: datetime
    text: str = ""
    media: Document | Photo | None = None
    edit_date: datetime | None = None
    service: bool = False
    grouped_id: int | None = None


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """One step of a channel's update sequence; `pts` is the state after it."""

    pts: int
    kind: Literal["new", "edited", "deleted"]
    post: Post


@dataclass(slots=True)
class Channel:
    """A broadcast channel. `id` is the bare, positive one; `chat_id` the Bot API's -100… form."""

    id: int
    title: str
    username: str | None = None
    members: set[int] = field(default_factory=set)
    posts: dict[int, Post] = field(default_factory=dict)
    events: list[ChannelEvent] = field(default_factory=list)
    top_message_id: int = 0
    pts: int = 1

    @property
    def chat_id(self) -> int:
        return -(CHANNEL_ID_OFFSET + self.id)


@dataclass(frozen=True, slots=True)
class Bot:
    """A bot account. Its token opens both doors; only its home data centre lets it log in."""

    id: int
    token: str
    name: str
    username: str
    home_dc: int


Subscriber = Callable[[Channel, ChannelEvent], None]


class World:
    """Everything that exists, and the secrets (access hashes, file references) that guard it."""

    def __init__(self, dc_ids: tuple[int, ...] = (1, 2)) -> None:
        self.dc_ids = dc_ids
        self.bots: dict[int, Bot] = {}
        self.channels: dict[int, Channel] = {}
        self._secret = secrets.token_bytes(32)
        self._ids = itertools.count(5_000_000_000_000_001)
        self._files: dict[int, Document | Photo] = {}
        self._reference_generation: dict[int, int] = {}
        self._subscribers: list[Subscriber] = []

    # -- making things -----------------------------------------------------------------------

    def add_bot(self, token: str | None = None, *, name: str = "Pocket", home_dc: int = 2) -> Bot:
        """A new bot; a token is made up when none is given. Raises ValueError on a bad one."""
        token = token or f"{7_000_000_000 + len(self.bots)}:{secrets.token_urlsafe(26)}"
        number, colon, secret = token.partition(":")
        if not (colon and number.isdecimal() and secret):
            raise ValueError("a bot token looks like 123456:letters")
        if int(number) in self.bots:
            raise ValueError(f"bot {number} exists already")
        bot = Bot(int(number), token, name, f"{name.lower()}_{number}_bot", home_dc)
        self.bots[bot.id] = bot
        return bot

    def add_channel(self, title: str, *members: Bot, username: str | None = None) -> Channel:
        """A new channel; its first message is the service message that Telegram puts there."""
        channel = Channel(1_500_000_001 + len(self.channels), title, username)
        channel.members.update(bot.id for bot in members)
        self.channels[channel.id] = channel
        self._publish(channel, "new", Post(1, channel.id, datetime.now(UTC), service=True))
        return channel

    def new_document(self, content: Content, mime_type: str, dc_id: int | None = None) -> Document:
        """A document with a fresh id, the rest to be filled in with `dataclasses.replace`."""
        return Document(next(self._ids), dc_id or self.dc_ids[-1], content, mime_type)

    def new_photo(self, *sizes: PhotoSize, dc_id: int | None = None) -> Photo:
        return Photo(next(self._ids), dc_id or self.dc_ids[-1], sizes)

    def post(
        self,
        channel: Channel,
        media: Document | Photo | None = None,
        text: str = "",
        *,
        grouped_id: int | None = None,
        date: datetime | None = None,
    ) -> Post:
        """Publish a message in a channel and tell every subscriber."""
        if media is not None:
            self._files[media.id] = media
        when = date or datetime.now(UTC)
        post = Post(
            channel.top_message_id + 1, channel.id, when, text, media, None, False, grouped_id
        )
        self._publish(channel, "new", post)
        return post

    def skip_message_ids(self, channel: Channel, count: int) -> None:
        """Leave a hole in the ids, as deleted messages do."""
        channel.top_message_id += count

    def edit(
        self, post: Post, *, text: str | None = None, media: Document | Photo | None = None
    ) -> Post:
        """Replace the caption, the file, or both."""
        channel = self.channels[post.channel_id]
        current = channel.posts[post.id]
        if media is not None:
            self._files[media.id] = media
        edited = replace(
            current,
            text=current.text if text is None else text,
            media=current.media if media is None else media,
            edit_date=datetime.now(UTC),
        )
        self._publish(channel, "edited", edited)
        return edited

    def delete(self, post: Post) -> None:
        channel = self.channels[post.channel_id]
        self._publish(channel, "deleted", channel.posts[post.id])

    def _publish(
        self, channel: Channel, kind: Literal["new", "edited", "deleted"], post: Post
    ) -> None:
        if kind == "deleted":
            del channel.posts[post.id]
        else:
            channel.posts[post.id] = post
        channel.top_message_id = max(channel.top_message_id, post.id)
        channel.pts += 1
        event = ChannelEvent(channel.pts, kind, post)
        channel.events.append(event)
        for subscriber in tuple(self._subscribers):
            subscriber(channel, event)

    # -- finding things ----------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Hear of every change in every channel; the answer ends the subscription."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def bot_by_token(self, token: str) -> Bot | None:
        number = token.partition(":")[0]
        bot = self.bots.get(int(number)) if number.isdecimal() else None
        return bot if bot and hmac.compare_digest(bot.token.encode(), token.encode()) else None

    def channels_of(self, bot: Bot) -> Iterator[Channel]:
        return (channel for channel in self.channels.values() if bot.id in channel.members)

    def file(self, file_id: int) -> Document | Photo | None:
        return self._files.get(file_id)

    # -- what guards them --------------------------------------------------------------------

    def access_hash(self, account_id: int, object_id: int) -> int:
        """The signed 64-bit access hash of an object, different for every account."""
        digest = self._digest(b"access", account_id, object_id)
        return int.from_bytes(digest[:8], "big", signed=True)

    def file_reference(self, account_id: int, file_id: int) -> bytes:
        """The reference that opens a file now, for this account.

        Source: core.telegram.org/api/file_reference.
        """
        return self._reference(account_id, file_id, self._reference_generation.get(file_id, 0))

    def reference_state(self, account_id: int, file_id: int, reference: bytes) -> ReferenceState:
        """What a file reference that a client shows is worth now."""
        if not reference:
            return "empty"
        generation = int.from_bytes(reference[:4], "big")
        if not hmac.compare_digest(reference, self._reference(account_id, file_id, generation)):
            return "invalid"
        current = self._reference_generation.get(file_id, 0)
        return "valid" if generation == current else "expired"

    def _reference(self, account_id: int, file_id: int, generation: int) -> bytes:
        digest = self._digest(b"reference", account_id, file_id, generation)
        return generation.to_bytes(4, "big") + digest[:16]

    def move_file(self, file_id: int, dc_id: int) -> None:
        """Take a file to another data centre, which its messages do not tell (FILE_MIGRATE_X)."""
        self._files[file_id] = replace(self._files[file_id], dc_id=dc_id)

    def expire_references(self, file_id: int) -> None:
        """From now on only messages read again give a reference that opens the file."""
        self._reference_generation[file_id] = self._reference_generation.get(file_id, 0) + 1

    def _digest(self, purpose: bytes, *numbers: int) -> bytes:
        text = purpose + b"".join(b"/%d" % number for number in numbers)
        return hmac.digest(self._secret, text, hashlib.sha256)
