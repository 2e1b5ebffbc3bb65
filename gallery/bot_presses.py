"""Bot presses: what the buttons under the bot's answers do. All of them are for owners.

What a button is about is in its data, and what else an answer shows is in its other buttons. So no
answer has to be remembered, and one of last year still works.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final

from gallery import bot_words as words
from gallery.bot_answers import Offered
from gallery.bot_api import BotApiError
from gallery.bot_links import FilmLinks
from gallery.bot_talk import Talk, told_safely
from gallery.bot_words import Film
from gallery.files import MediaFile, blank_file
from gallery.messages import Message, Place, file_as_if_in
from gallery.settings import Settings
from gallery.shares import DEFAULT_LIFETIME_S

REFUSAL_MAX: Final = 120  # of the 200 characters that Telegram shows
GONE: Final = "The film is no longer there."
OTHER_GALLERY: Final = "This button is of another gallery, or of one with another secret."
NOT_OURS: Final = "That channel is no longer in this gallery."
NO_LONGER_HERE: Final = "The film is no longer in this chat. Send it again."
NOT_NOW: Final = "Telegram did not answer. Look into the channel before you try again."
UNCHANGED: Final = "Telegram does not let me change this message, so nothing is changed."


class Presses:
    """Answers presses; raise ApiError, BotApiError, or one of MALFORMED for odd ones."""

    def __init__(self, settings: Settings, talk: Talk, films: FilmLinks, offered: Offered) -> None:
        self._settings = settings
        self._talk = talk
        self._films = films
        self._offered = offered

    async def answer(self, query: Message) -> None:
        """Do what the button says, and tell whoever pressed it."""
        press_id, data = str(query["id"]), str(query["data"])
        message = query["message"]
        verb, text = data[:1], data[1:]
        if verb == words.PUT:
            said, loudly = await self._put(message, data)
        elif verb == words.REVOKE:
            said, loudly = await self._revoke(message, text)
        elif verb == words.RENEW or verb in words.LIFETIMES:
            said, loudly = await self._renew(message, verb, text)
        else:
            said, loudly = OTHER_GALLERY, True
        await self._talk.acknowledge(press_id, said, loudly=loudly)

    # -- links -----------------------------------------------------------------------------------

    async def _revoke(self, message: Message, text: str) -> tuple[str, bool]:
        pressed = await self._films.read(text)
        if pressed is None:
            return OTHER_GALLERY, True
        shown = await self._shown_in(message, pressed)
        ended = await self._films.revoke(pressed)
        said = "The link has ended. A film that is open already may run on."
        try:
            await self._show(message, [ended if _is_same(each, ended) else each for each in shown])
        except BotApiError:
            return f"{said} This message cannot be changed and still shows it.", True
        return said, False

    async def _renew(self, message: Message, verb: str, text: str) -> tuple[str, bool]:
        """Other links in the place of these; those end once the others are to be seen."""
        pressed = await self._films.read(text)
        if pressed is None:
            return OTHER_GALLERY, True
        shown = await self._shown_in(message, pressed)
        lifetime_s = words.LIFETIMES[verb][1] if verb in words.LIFETIMES else DEFAULT_LIFETIME_S
        is_alone = verb == words.RENEW
        chosen = [pressed] if is_alone else [each for each in shown if not each.has_ended]
        fresh: dict[str, Film] = {}
        for each in chosen or [pressed]:
            file = await self._films.find(Place(each.share.chat_id, each.share.message_id))
            if file is None:
                return await self._give_up(fresh.values(), GONE)
            fresh[each.share.id] = await self._films.link(file, lifetime_s)
        try:
            await self._show(message, [fresh.get(each.share.id, each) for each in shown])
        except BotApiError:
            return await self._give_up(fresh.values(), UNCHANGED)
        replaced = [each for each in shown if each.share.id in fresh and not each.has_ended]
        for film in replaced:
            await self._films.revoke(film)
        return "Here is a new link." + (" The one before it has ended." if replaced else ""), False

    async def _give_up(self, films: Iterable[Film], why: str) -> tuple[str, bool]:
        """Nobody has seen these links, and nobody shall."""
        for film in films:
            await self._films.revoke(film)
        return why, True

    async def _shown_in(self, message: Message, pressed: Film) -> list[Film]:
        """Every film of an answer, by its buttons; the one that was pressed if it has none."""
        rows = message.get("reply_markup", {}).get("inline_keyboard", ())
        data = [str(button.get("callback_data", "")) for row in rows for button in row]
        texts = [each[1:] for each in data if each[:1] in (words.REVOKE, words.RENEW)]
        unlike = list(dict.fromkeys(texts))[: words.FILMS_MAX]
        films = await asyncio.gather(*map(self._films.read, unlike))
        shown = [film for film in films if film is not None]
        return shown if any(_is_same(film, pressed) for film in shown) else [pressed]

    async def _show(self, message: Message, films: Sequence[Film]) -> None:
        """Change the answer to show these; raise BotApiError."""
        await self._talk.rewrite(
            int(message["chat"]["id"]),
            int(message["message_id"]),
            self._films.html(films),
            words.links_keyboard(films, for_owner=True),
        )

    # -- films that are in no channel yet --------------------------------------------------------

    async def _put(self, message: Message, data: str) -> tuple[str, bool]:
        channel, message_ids = words.read_put_data(data)
        if channel not in self._settings.channels:
            return NOT_OURS, True
        chat_id = int(message["chat"]["id"])
        sent = {each: self._offered.get(chat_id, each) for each in message_ids}
        # Pressed twice, or meanwhile posted by somebody: then it is there, and copied no more.
        files = {
            each: None if told is None else await self._films.meant_by(told)
            for each, told in sent.items()
        }
        missing = [each for each, file in files.items() if file is None]
        try:
            copies = await self._talk.copy(chat_id, missing, channel) if missing else []
        except BotApiError as error:
            return _refusal(error), True
        found = [file for file in files.values() if file is not None]
        told = [sent[each] for each in missing]
        if len(copies) != len(missing):  # Telegram left some out and does not say which
            told = [None] * len(copies)
        for copy, original in zip(copies, told, strict=True):
            found.append(await self._copied(channel, copy, original))
        films = [await self._films.link(file, DEFAULT_LIFETIME_S) for file in found]
        try:
            await self._show(message, films)
        except BotApiError:
            keyboard = words.links_keyboard(films, for_owner=True)
            await self._talk.say(chat_id, self._films.html(films), keyboard)
        return "It is in the channel.", False

    async def _copied(self, channel: int, copy: int, original: Message | None) -> MediaFile:
        """What is now in the channel, as far as known."""
        told = original and file_as_if_in(original, channel, copy, int(time.time()))
        if told:
            return await self._films.remember(told)
        return await self._films.find(Place(channel, copy)) or blank_file(channel, copy)


def _is_same(one: Film, other: Film) -> bool:
    return one.share.id == other.share.id


def _refusal(error: BotApiError) -> str:
    if not error.is_final:
        return NOT_NOW
    if "to copy" in error.description:
        return NO_LONGER_HERE
    return f"Telegram refuses: {told_safely(error)[:REFUSAL_MAX]}"
