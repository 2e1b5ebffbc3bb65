"""Bot: hears its owners, and nobody else; each update is answered once, and each chat in its order.

    message          a film, an album, links to posts, a command     from an owner, in private
    callback_query   a button of an answer                           from an owner, in private
    channel_post     /link                                           in a channel of ours

Whoever is no owner costs a look into a set: no call, no row, no line in the log, and gets no answer
that would tell what this is. While there is no owner, /start is told how to become one.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import Any, Final

from aiohttp import ClientSession

from gallery.answered import AnsweredUpdates
from gallery.bot_answers import Answers
from gallery.bot_api import BotApi, BotApiError
from gallery.bot_links import FilmLinks
from gallery.bot_presses import Presses
from gallery.bot_status import Status
from gallery.bot_talk import Talk, told_safely
from gallery.bot_words import COMMANDS, FILMS_MAX, code_html
from gallery.catalogue import Catalogue
from gallery.errors import ApiError
from gallery.files import INTEGER_MAX, MALFORMED
from gallery.messages import Message, command_in
from gallery.settings import Settings
from gallery.share_store import ShareStore

log = logging.getLogger(__name__)

ERRANDS_MAX: Final = 100  # at a time; whatever more comes waits at Telegram
ALBUM_PATIENCE_S: Final = 1.0  # its parts come one by one, and nothing says which is the last
CLOSE_PATIENCE_S: Final = 5.0
HINT_INTERVAL_S: Final = 3600.0
HINTS_MAX: Final = 30  # in that time, to whomever
NOBODY: Final = 0  # the chat in whose turn strangers are told: there are too many to know them

Errand = Callable[[], Awaitable[None]]


@dataclass
class _Album:
    """Parts of an album that have come so far."""

    parts: list[Message] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, part: Message) -> None:
        self.parts.append(part)
        self.arrived.set()

    async def complete(self) -> list[Message]:
        """All of them, in order, once none has come for a while."""
        while len(self.parts) < FILMS_MAX:
            self.arrived.clear()
            try:
                async with asyncio.timeout(ALBUM_PATIENCE_S):
                    await self.arrived.wait()
            except TimeoutError:
                break
        return sorted(self.parts, key=lambda part: int(part["message_id"]))


class Hints:
    """Who was told lately how to become an owner: each person once, and not too many of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: OrderedDict[int, float] = OrderedDict()

    def may_tell(self, user_id: int) -> bool:
        """Whether to tell this person now; if so it is noted."""
        now = self._clock()
        while self._told and next(iter(self._told.values())) + HINT_INTERVAL_S <= now:
            self._told.popitem(last=False)
        if user_id in self._told or len(self._told) >= HINTS_MAX:
            return False
        self._told[user_id] = now
        return True


class Bot:
    """Decides who is answered, and when."""

    def __init__(
        self,
        settings: Settings,
        talk: Talk,
        answers: Answers,
        presses: Presses,
        answered: AnsweredUpdates,
    ) -> None:
        self._owners = frozenset(settings.owner_ids)
        self._channels = frozenset(settings.channels)
        self._talk = talk
        self._answers = answers
        self._presses = presses
        self._answered = answered
        self._hints = Hints()
        self._room = asyncio.Semaphore(ERRANDS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: dict[int, asyncio.Lock] = {}  # of owners and of our channels
        self._albums: dict[tuple[int, str], _Album] = {}
        self._greeted: set[int] = set()
        if not self._owners:
            log.info("OWNER_IDS is empty: the bot answers nobody, but tells who sends it /start")

    async def hear(self, update: dict[str, Any]) -> None:
        """Begin to answer what is for us, pass over the rest; waits only when there is too much."""
        try:
            errand = self._errand_in(update)
            update_id = 0 if errand is None else int(update["update_id"])
        except MALFORMED as error:
            log.info("an update of no use: %s", type(error).__name__)
            return
        if errand is None or not 0 < update_id <= INTEGER_MAX:
            return
        await self._room.acquire()
        task = asyncio.create_task(self._take_on(update_id, errand))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def close(self) -> None:
        """Finish what was begun, if that does not take long: nobody else will."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_PATIENCE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._answered.close()

    # -- who is heard ----------------------------------------------------------------------------

    def _errand_in(self, update: dict[str, Any]) -> Errand | None:
        """What there is to do for an update; None if nothing. Raise one of MALFORMED."""
        if "message" in update:
            return self._errand_of_message(update["message"])
        if "callback_query" in update:
            query = update["callback_query"]
            person = int(query["from"]["id"])
            # In a private chat the chat has the person's id.
            if person not in self._owners or int(query["message"]["chat"]["id"]) != person:
                return None
            return partial(self._in_turn, person, partial(self._presses.answer, query))
        if "channel_post" in update:
            post = update["channel_post"]
            chat_id = int(post["chat"]["id"])
            is_command = str(post.get("text", "")).lower().startswith("/link")
            if not is_command or not self._owners or chat_id not in self._channels:
                return None
            return partial(self._in_turn, chat_id, partial(self._answers.to_link_command, post))
        return None

    def _errand_of_message(self, message: Message) -> Errand | None:
        chat = message["chat"]
        person = int(message["from"]["id"]) if chat["type"] == "private" else 0
        if not person or int(chat["id"]) != person:
            return None
        if person in self._owners:
            if "media_group_id" in message:
                return partial(self._collect, person, message)
            return partial(self._in_turn, person, partial(self._answers.to_message, message))
        if self._owners or command_in(message) != "start" or not self._hints.may_tell(person):
            return None
        return partial(self._in_turn, NOBODY, partial(self._tell_how_to_own, person))

    # -- what is done ----------------------------------------------------------------------------

    async def _take_on(self, update_id: int, errand: Errand) -> None:
        if await self._answered.take(update_id):
            await errand()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _collect(self, chat_id: int, part: Message) -> None:
        """An album comes in parts; whoever brings the first of them answers for all."""
        key = chat_id, str(part["media_group_id"])
        if key in self._albums:
            self._albums[key].add(part)
            return
        album = self._albums[key] = _Album([part])
        parts = await album.complete()
        del self._albums[key]
        await self._in_turn(chat_id, partial(self._answers.to_files, parts))

    async def _in_turn(self, chat_id: int, errand: Errand) -> None:
        """Do it when all that was begun for this chat is done; what fails is told or logged."""
        async with self._turns.setdefault(chat_id, asyncio.Lock()):
            try:
                await self._carefully(chat_id, errand)
                if chat_id in self._owners and chat_id not in self._greeted:
                    await self._greet(chat_id)
            except BotApiError as error:
                log.warning("the bot cannot answer: %s", told_safely(error))
            except MALFORMED as error:
                log.info("an update of no use: %s", type(error).__name__)
            except Exception:
                log.exception("the bot failed")

    async def _carefully(self, chat_id: int, errand: Errand) -> None:
        try:
            await errand()
        except ApiError as problem:
            log.warning("the bot cannot help: %s", problem.code)
            if chat_id in self._owners:
                await self._talk.say(chat_id, escape(problem.message))

    async def _greet(self, owner: int) -> None:
        """Show the commands to this owner, once; nobody else gets to see them."""
        self._greeted.add(owner)
        scope = {"type": "chat", "chat_id": owner}
        await self._talk.ask("setMyCommands", commands=COMMANDS, scope=scope)

    async def _tell_how_to_own(self, person: int) -> None:
        html = (
            "The gallery that I belong to does not know its owner yet. If that is you, set"
            f" {code_html(f'OWNER_IDS={person}')} where it runs; that number is you."
        )
        await self._talk.say(person, html)


def make_bot(
    settings: Settings,
    api: BotApi,
    session: ClientSession,
    catalogue: Catalogue,
    shares: ShareStore,
    way: Callable[[], str],
) -> Bot:
    """The bot of these settings; `way` says how its updates come."""
    # The first half of a token is the bot's own id.
    talk = Talk(api, int(settings.bot_token.partition(":")[0]))
    films = FilmLinks(settings, catalogue, shares)
    status = Status(session, settings.worker_urls, catalogue)
    answers = Answers(settings, talk, films, catalogue.index, status, way)
    presses = Presses(settings, talk, films, answers.offered)
    return Bot(settings, talk, answers, presses, AnsweredUpdates(settings.database))
