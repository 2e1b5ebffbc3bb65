"""Who and what exists in the pocket Telegram: bots, channels, posts, files, people who write.

Both doors, MTProto and the Bot API, look at this one world, so a post made here is seen by both.
Nothing in this module does I/O or waits; those who want to hear of changes subscribe.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from .content import Content

Json = dict[str, Any]
FileKind = Literal["video", "round_video", "audio", "voice", "animation", "document"]
ReferenceState = Literal["valid", "expired", "empty", "invalid"]
CHANNEL_ID_OFFSET = 1_000_000_000_000
"""A channel's Bot API id is minus this, minus its bare id (core.telegram.org/api/bots/ids)."""
ADMINISTRATOR_RIGHTS = frozenset(
    {"can_post_messages", "can_edit_messages", "can_delete_messages"},
)


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
    title: str | None = None
    performer: str | None = None
    video_codec: str | None = None
    alternatives: tuple[Document, ...] = ()
    """What Telegram made of a film: other qualities, their playlists, pictures for the seek bar."""
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
    """One message of a channel; a `service` one («channel created») has neither text nor file.

    `reply_to` is the id of another post of the channel; `reply_markup` the buttons under this one,
    in the Bot API's form.
    """

    id: int
    channel_id: int
    date: datetime
    text: str = ""
    media: Document | Photo | None = None
    edit_date: datetime | None = None
    service: bool = False
    grouped_id: int | None = None
    reply_to: int | None = None
    reply_markup: Json | None = None


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
    rights: dict[int, frozenset[str]] = field(default_factory=dict)
    """What a bot may do here, by its id; a bot that is not named may do everything."""
    posts: dict[int, Post] = field(default_factory=dict)
    events: list[ChannelEvent] = field(default_factory=list)
    top_message_id: int = 0
    pts: int = 1

    @property
    def chat_id(self) -> int:
        return -(CHANNEL_ID_OFFSET + self.id)

    def allows(self, bot_id: int, right: str) -> bool:
        """Whether a bot has one of ADMINISTRATOR_RIGHTS here."""
        return right in self.rights.get(bot_id, ADMINISTRATOR_RIGHTS)


@dataclass(frozen=True, slots=True)
class Bot:
    """A bot account. Its token opens both doors; only its home data centre lets it log in."""

    id: int
    token: str
    name: str
    username: str
    home_dc: int


@dataclass(frozen=True, slots=True)
class User:
    """A person. Here only somebody who writes to bots: people do not log in."""

    id: int
    first_name: str
    username: str | None = None
    language_code: str | None = None


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    """One message between a person and a bot; ids count the messages of the bot's account."""

    id: int
    bot_id: int
    user_id: int
    date: datetime
    text: str = ""
    entities: tuple[Json, ...] = ()
    media: Document | Photo | None = None
    forwarded: Post | None = None
    grouped_id: int | None = None
    from_bot: bool = False
    reply_to: int | None = None
    reply_markup: Json | None = None
    edit_date: datetime | None = None


@dataclass(frozen=True, slots=True)
class Press:
    """A person pressed a button of a bot's message, one that carries `data`."""

    id: str
    bot_id: int
    user_id: int
    message: PrivateMessage | Post
    data: str


@dataclass(frozen=True, slots=True)
class Saying:
    """One thing that a bot did through the Bot API for people to see, kept for whoever asks.

    `details` has what fits no other field: the action, the commands, whether an answer is an alert.
    """

    bot_id: int
    method: str
    chat_id: int | None = None
    message_id: int | None = None
    text: str | None = None
    entities: tuple[Json, ...] = ()
    reply_markup: Json | None = None
    details: Json = field(default_factory=dict)
    number: int = 0
    """They are numbered from 1 as they are kept."""


Subscriber = Callable[[Channel, ChannelEvent], None]
PrivateSubscriber = Callable[[Bot, "PrivateMessage | Press"], None]
Listener = Callable[[Saying], None]

SAYINGS_KEPT = PRIVATE_MESSAGES_KEPT = PRESSES_KEPT = 10_000
"""Of a bot that talks all day the latest ones are enough; messages are counted bot by bot."""


class World:
    """Everything that exists, and the secrets (access hashes, file references) that guard it."""

    def __init__(self, dc_ids: tuple[int, ...] = (1, 2)) -> None:
        self.dc_ids = dc_ids
        self.bots: dict[int, Bot] = {}
        self.channels: dict[int, Channel] = {}
        self.users: dict[int, User] = {}
        self.said: list[Saying] = []
        self._private: dict[int, dict[int, PrivateMessage]] = {}
        self._private_ids: Counter[int] = Counter()
        self._started: set[tuple[int, int]] = set()
        self._presses: dict[str, Press] = {}
        self._saying_numbers = itertools.count(1)
        self._secret = secrets.token_bytes(32)
        self._ids = itertools.count(5_000_000_000_000_001)
        self._files: dict[int, Document | Photo] = {}
        self._reference_generation: dict[int, int] = {}
        self._subscribers: list[Subscriber] = []
        self._private_subscribers: list[PrivateSubscriber] = []
        self._listeners: list[Listener] = []

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
        reply_to: int | None = None,
        reply_markup: Json | None = None,
    ) -> Post:
        """Publish a message in a channel and tell every subscriber.

        Raises ValueError when `reply_to` is no post of the channel.
        """
        if reply_to is not None and reply_to not in channel.posts:
            raise ValueError(f"there is no post {reply_to} to reply to")
        self._keep(media)
        post = Post(
            channel.top_message_id + 1,
            channel.id,
            date or datetime.now(UTC),
            text,
            media,
            grouped_id=grouped_id,
            reply_to=reply_to,
            reply_markup=reply_markup,
        )
        self._publish(channel, "new", post)
        return post

    def new_group(self) -> int:
        """An id that makes one album of the posts that share it."""
        return next(self._ids)

    def skip_message_ids(self, channel: Channel, count: int) -> None:
        """Leave a hole in the ids, as deleted messages do."""
        channel.top_message_id += count

    def edit(
        self,
        post: Post,
        *,
        text: str | None = None,
        media: Document | Photo | None = None,
        reply_markup: Json | None = None,
    ) -> Post:
        """Replace the caption, the file, the buttons; what is None stays. {} takes buttons away."""
        channel = self.channels[post.channel_id]
        current = channel.posts[post.id]
        self._keep(media)
        edited = replace(
            current,
            text=current.text if text is None else text,
            media=current.media if media is None else media,
            reply_markup=current.reply_markup if reply_markup is None else reply_markup or None,
            edit_date=datetime.now(UTC),
        )
        self._publish(channel, "edited", edited)
        return edited

    def delete(self, post: Post) -> None:
        channel = self.channels[post.channel_id]
        self._publish(channel, "deleted", channel.posts[post.id])

    def _keep(self, media: Document | Photo | None) -> None:
        """Enter a file, and what was made of it, among those that can be fetched."""
        if media is None:
            return
        self._files[media.id] = media
        if isinstance(media, Document):
            self._files.update((each.id, each) for each in media.alternatives)

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

    # -- people and bots ---------------------------------------------------------------------

    def add_user(
        self,
        user_id: int,
        first_name: str,
        *,
        username: str | None = None,
        language_code: str | None = None,
    ) -> User:
        """Somebody with a name; who writes without having been added is called «Person 42»."""
        user = User(user_id, first_name, username, language_code)
        self.users[user_id] = user
        return user

    def write_to(
        self,
        bot: Bot,
        user_id: int,
        text: str = "",
        *,
        media: Document | Photo | None = None,
        forward: Post | None = None,
        grouped_id: int | None = None,
        reply_to: int | None = None,
    ) -> PrivateMessage:
        """A person writes to a bot: text, a file with or without a caption, or a post forwarded.

        Messages that share a `grouped_id` (see `new_group`) are one album. Raises ValueError on
        what nobody could send.
        """
        if user_id <= 0 or user_id in self.bots:
            raise ValueError(f"{user_id} is no person's id")
        if forward is not None and (text or media is not None):
            raise ValueError("a forwarded post keeps its own text and file")
        if forward is None and media is None and not text.strip():
            raise ValueError("there is nothing in the message")
        if reply_to is not None and reply_to not in self._private.get(bot.id, {}):
            raise ValueError(f"there is no message {reply_to} to reply to")
        if user_id not in self.users:
            self.add_user(user_id, f"Person {user_id}")
        self._keep(media)
        message = PrivateMessage(
            self._next_private_id(bot),
            bot.id,
            user_id,
            datetime.now(UTC),
            forward.text if forward else text,
            media=forward.media if forward else media,
            forwarded=forward,
            grouped_id=grouped_id,
            reply_to=reply_to,
        )
        self._started.add((bot.id, user_id))
        self._keep_private(message)
        self._tell_bot(bot, message)
        return message

    def press(self, bot: Bot, user_id: int, message: PrivateMessage | Post, data: str) -> Press:
        """A person presses a button of a message. Raises ValueError when it has no such button."""
        rows = (message.reply_markup or {}).get("inline_keyboard", ())
        if all(button.get("callback_data") != data for row in rows for button in row):
            raise ValueError(f"message {message.id} has no button with the data {data!r}")
        if user_id not in self.users:
            self.add_user(user_id, f"Person {user_id}")
        press = Press(str(next(self._ids)), bot.id, user_id, message, data)
        self._presses[press.id] = press
        if len(self._presses) > PRESSES_KEPT:
            del self._presses[next(iter(self._presses))]
        self._tell_bot(bot, press)
        return press

    def take_press(self, bot: Bot, press_id: str) -> Press | None:
        """The press that a bot answers; None when it is not this bot's or is answered already."""
        press = self._presses.get(press_id)
        if press is None or press.bot_id != bot.id:
            return None
        return self._presses.pop(press_id)

    def has_written(self, user_id: int, bot: Bot) -> bool:
        """Whether a person started the chat: before that, a bot may not write to them."""
        return (bot.id, user_id) in self._started

    def answer(
        self,
        bot: Bot,
        user_id: int,
        text: str,
        *,
        entities: tuple[Json, ...] = (),
        media: Document | Photo | None = None,
        reply_to: int | None = None,
        reply_markup: Json | None = None,
    ) -> PrivateMessage:
        """A bot writes to a person."""
        message = PrivateMessage(
            self._next_private_id(bot),
            bot.id,
            user_id,
            datetime.now(UTC),
            text,
            entities,
            media,
            from_bot=True,
            reply_to=reply_to,
            reply_markup=reply_markup,
        )
        self._keep_private(message)
        return message

    def rewrite(
        self,
        message: PrivateMessage,
        text: str,
        *,
        entities: tuple[Json, ...] = (),
        reply_markup: Json | None = None,
    ) -> PrivateMessage:
        """A bot edits what it wrote; buttons that are not given anew are gone."""
        edited = replace(
            message,
            text=text,
            entities=entities,
            reply_markup=reply_markup,
            edit_date=datetime.now(UTC),
        )
        self._private[message.bot_id][message.id] = edited
        return edited

    def erase(self, message: PrivateMessage) -> None:
        """Take a message out of a private chat; nobody is told."""
        self._private[message.bot_id].pop(message.id, None)

    def private_message(self, bot: Bot, message_id: int) -> PrivateMessage | None:
        return self._private.get(bot.id, {}).get(message_id)

    def note(self, saying: Saying) -> None:
        """Keep what a bot did where tests can read it, and tell those who listen."""
        self.said.append(replace(saying, number=next(self._saying_numbers)))
        del self.said[:-SAYINGS_KEPT]
        for listener in tuple(self._listeners):
            listener(self.said[-1])

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hear of everything that bots say; the answer ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def subscribe_to_private(self, subscriber: PrivateSubscriber) -> Callable[[], None]:
        """Hear of everything that people send to bots; the answer ends the subscription."""
        self._private_subscribers.append(subscriber)
        return lambda: self._private_subscribers.remove(subscriber)

    def _next_private_id(self, bot: Bot) -> int:
        self._private_ids[bot.id] += 1
        return self._private_ids[bot.id]

    def _keep_private(self, message: PrivateMessage) -> None:
        messages = self._private.setdefault(message.bot_id, {})
        messages[message.id] = message
        if len(messages) > PRIVATE_MESSAGES_KEPT:
            del messages[next(iter(messages))]

    def _tell_bot(self, bot: Bot, what: PrivateMessage | Press) -> None:
        for subscriber in tuple(self._private_subscribers):
            subscriber(bot, what)

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
        """From now on only messages read again give a reference that opens the file.

        What was made of a film comes with the same message and expires with it.
        """
        file = self._files.get(file_id)
        alternatives = file.alternatives if isinstance(file, Document) else ()
        for each in (file_id, *(alternative.id for alternative in alternatives)):
            self._reference_generation[each] = self._reference_generation.get(each, 0) + 1

    def _digest(self, purpose: bytes, *numbers: int) -> bytes:
        text = purpose + b"".join(b"/%d" % number for number in numbers)
        return hmac.digest(self._secret, text, hashlib.sha256)
