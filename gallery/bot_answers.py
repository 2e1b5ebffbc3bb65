"""Bot answers: to films, links to posts and commands."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from gallery import bot_words as words
from gallery.bot_api import BotApiError
from gallery.bot_links import FilmLinks, own_url
from gallery.bot_status import Status
from gallery.bot_talk import Talk, told_safely
from gallery.files import MediaFile, blank_file
from gallery.index import Index
from gallery.messages import Message, Place, command_in, file_in, has_file, places_in
from gallery.settings import Settings
from gallery.shares import DEFAULT_LIFETIME_S
from gallery.sign_in_links import LINK_LIFETIME_S, new_sign_in_link

log = logging.getLogger(__name__)

CHANNELS_ASKED_MAX: Final = 20
CHANNELS_OFFERED_MAX: Final = 5
CHANNEL_LINK_LIFETIME_S: Final = words.DAY_S  # of links that a whole channel can see
OFFERED_MAX: Final = 500  # messages of some KiB each, whose button may still be pressed

NOT_THERE: Final = "I find no file there. It has to be a post of one of the gallery's channels."
NO_CHANNEL: Final = (
    "It is in none of the gallery's channels, and I may post in none of them. Make me an"
    " administrator there who may post, or post it there yourself."
)
NOT_YET: Final = "Not in the gallery yet. Put it into a channel, and it gets a link:"
HOW_TO_LINK: Final = "Send /link in reply to a film, or send me a link to its post."
FOR_ALL: Final = "\n\nWhoever sees this post can open the links."


class Offered:
    """What owners have sent that is in no channel, so that a button says what was copied."""

    def __init__(self) -> None:
        self._messages: OrderedDict[tuple[int, int], Message] = OrderedDict()

    def add(self, message: Message) -> None:
        self._messages[int(message["chat"]["id"]), int(message["message_id"])] = message
        while len(self._messages) > OFFERED_MAX:
            self._messages.popitem(last=False)

    def get(self, chat_id: int, message_id: int) -> Message | None:
        return self._messages.get((chat_id, message_id))


class Answers:
    """What is said to whom; raise ApiError, BotApiError, or one of MALFORMED for odd messages."""

    def __init__(
        self,
        settings: Settings,
        talk: Talk,
        films: FilmLinks,
        index: Index,
        status: Status,
        way: Callable[[], str],
    ) -> None:
        self.offered = Offered()
        self._settings = settings
        self._talk = talk
        self._films = films
        self._index = index
        self._status = status
        self._way = way

    # -- in private ------------------------------------------------------------------------------

    async def to_message(self, message: Message) -> None:
        """Whatever an owner sent."""
        chat_id, message_id = int(message["chat"]["id"]), int(message["message_id"])
        command = command_in(message)
        replied = message.get("reply_to_message")
        if command == "gallery":
            await self._say_how_to_sign_in(chat_id)
        elif command == "status":
            await self._talk.say(chat_id, await self._status.words(self._way()))
        elif command == "link" and replied is not None and has_file(replied):
            await self.to_files([replied])
        elif has_file(message):
            await self.to_files([message])
        elif places := places_in(message):
            await self._to_places(places[: words.FILMS_MAX], chat_id, message_id)
        else:
            html = HOW_TO_LINK if command == "link" else words.HELP
            await self._talk.say(chat_id, escape(html), reply_to=message_id)

    async def to_files(self, messages: Sequence[Message]) -> None:
        """Files that came together: links to those in our channels, offers for the others."""
        chat_id, reply_to = int(messages[0]["chat"]["id"]), int(messages[0]["message_id"])
        files = await asyncio.gather(*map(self._films.meant_by, messages))
        known = list(zip(messages, files, strict=True))
        await self._say_links(chat_id, [file for _, file in known if file is not None], reply_to)
        await self._offer([message for message, file in known if file is None], reply_to)

    async def _to_places(self, places: Iterable[Place], chat_id: int, reply_to: int) -> None:
        files = await asyncio.gather(*map(self._file_at, places))
        found = [file for file in files if file is not None]
        await self._say_links(chat_id, found, reply_to)
        if missing := len(files) - len(found):
            some = f"{missing} of the {len(files)} links: " if found else ""
            await self._talk.say(chat_id, escape(some + NOT_THERE), reply_to=reply_to)

    async def _file_at(self, place: Place) -> MediaFile | None:
        if isinstance(place.channel, str):
            chat_id = await self._talk.channel_called(place.channel)
            if chat_id is None:
                return None
            place = Place(chat_id, place.message_id)
        return await self._films.find(place)

    async def _say_links(self, chat_id: int, files: Sequence[MediaFile], reply_to: int) -> None:
        if not files:
            return
        films = [await self._films.link(file, DEFAULT_LIFETIME_S) for file in files]
        for some in words.in_answers(films, time.time()):
            keyboard = words.links_keyboard(some, for_owner=True)
            await self._talk.say(chat_id, self._films.html(some), keyboard, reply_to=reply_to)

    async def _offer(self, messages: Sequence[Message], reply_to: int) -> None:
        """Say into which channels these could be put, so that they can have a link."""
        if not messages:
            return
        chat_id = int(messages[0]["chat"]["id"])
        channels = await self._channels_to_post_in()
        if not channels:
            html = f"{_films_html(messages)}\n\n{escape(NO_CHANNEL)}"
            await self._talk.say(chat_id, html, reply_to=reply_to)
            return
        by_id = {int(message["message_id"]): message for message in messages}
        for message_ids in words.in_puts(sorted(by_id), [channel for channel, _ in channels]):
            some = [by_id[message_id] for message_id in message_ids]
            for message in some:
                self.offered.add(message)
            html = f"{_films_html(some)}\n\n{escape(NOT_YET)}"
            keyboard = words.put_keyboard(channels, message_ids)
            await self._talk.say(chat_id, html, keyboard, reply_to=message_ids[0])

    async def _channels_to_post_in(self) -> list[tuple[int, str]]:
        """The first few of our channels where the bot may post, and their titles."""
        channels: list[tuple[int, str]] = []
        for state in (await self._index.channels())[:CHANNELS_ASKED_MAX]:
            if len(channels) < CHANNELS_OFFERED_MAX and await self._talk.may_post(state.chat_id):
                channels.append((state.chat_id, state.title))
        return channels

    async def _say_how_to_sign_in(self, chat_id: int) -> None:
        url = own_url(self._settings)
        if self._settings.gallery_password is None:
            html = f"The gallery asks for no password: {words.link_html(url)}"
            await self._talk.say(chat_id, html + self._films.note)
            return
        link = f"{url}/sign-in?once={new_sign_in_link(self._settings.jwt_secret, time.time())}"
        lasts = words.lasting_words(LINK_LIFETIME_S)
        html = f"This signs you in, once and within {lasts}:\n{words.link_html(link)}"
        keyboard = words.open_keyboard("Open the gallery", link)
        # What cannot be sent on cannot be copied either, which is the only way without a button.
        is_secret = bool(keyboard)
        await self._talk.say(chat_id, html + self._films.note, keyboard, is_secret=is_secret)

    # -- in a channel ----------------------------------------------------------------------------

    async def to_link_command(self, post: Message) -> None:
        """`/link` in a channel of ours, in reply to a film or with a link to one."""
        if command_in(post, await self._talk.username()) != "link":
            return
        chat_id = int(post["chat"]["id"])
        replied = post.get("reply_to_message")
        if replied is not None and has_file(replied):
            place = Place(chat_id, int(replied["message_id"]))
            file = await self._films.find(place, file_in(replied))
        else:
            places = places_in(post)
            file = await self._file_at(places[0]) if places else None
        if file is not None and self._settings.channel_links == "channel":
            await self._post_links(chat_id, file)
        else:
            await self._tell_owners(post, file)
        await self._talk.delete(chat_id, int(post["message_id"]))

    async def _post_links(self, chat_id: int, file: MediaFile) -> None:
        film = await self._films.link(file, CHANNEL_LINK_LIFETIME_S)
        keyboard = words.links_keyboard([film], for_owner=False)
        html = self._films.html([film]) + FOR_ALL
        reply_to = file.message_id if file.chat_id == chat_id else None
        await self._talk.say(chat_id, html, keyboard, reply_to=reply_to)

    async def _tell_owners(self, post: Message, file: MediaFile | None) -> None:
        """Whoever asked, if Telegram says who that is and it is an owner; else all owners."""
        sender = post.get("from", {}).get("id")
        owners = self._settings.owner_ids
        for owner in (sender,) if sender in owners else owners:
            if file is None:
                await self._say_if_possible(owner, escape(HOW_TO_LINK), None)
                continue
            film = await self._films.link(file, DEFAULT_LIFETIME_S)
            keyboard = words.links_keyboard([film], for_owner=True)
            if not await self._say_if_possible(owner, self._films.html([film]), keyboard):
                await self._films.revoke(film)

    async def _say_if_possible(
        self, owner: int, html: str, keyboard: words.Keyboard | None
    ) -> bool:
        """A bot can write only to people who have written to it; whether it could."""
        try:
            await self._talk.say(owner, html, keyboard)
        except BotApiError as error:
            log.warning("/link: an owner cannot be told: %s", told_safely(error))
            return False
        return True


def _films_html(messages: Iterable[Message]) -> str:
    """What they are, each in a line or two."""
    return "\n\n".join(words.film_html(_described(message)) for message in messages)


def _described(message: Message) -> MediaFile:
    told = file_in(message)
    return blank_file(0, int(message["message_id"])) if told is None else told[0]
