"""Workers: what is known of each, and whose turn a file is; decisions only, no I/O.

Every file has its own order of the workers: by the hash of the two together, highest first
(rendezvous hashing). All backends find the same order without asking anybody, so a film's chunks
are kept in one worker's cache; and when a worker is lost only its own films move.
"""

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from gallery.files import MediaFile, clean_line

LOOK_FOR_S: Final = 5.0  # so long a look at a worker is good
LOOK_AGAIN_S: Final = 1.0  # a report of trouble makes a look due, but not more often than this
REFUSAL_FOR_S: Final = 60.0  # a worker that did not know our signature is passed over so long
AVOIDED_MAX: Final = 16  # reports that one request may bring
WAIT_MAX_S: Final = 20.0  # a bot that must rest for longer is of no use to who wants to play now
BOTS_MAX: Final = 100
_NEVER: Final = float("-inf")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class BotHealth:
    """One bot of a worker, as the worker's /health tells of it."""

    id: int
    state: str
    wait_s: float
    blind_to: tuple[int, ...]  # channels that it was lately found not to see
    message: str  # why Telegram refuses it

    @property
    def is_able(self) -> bool:
        """Whether a film that is asked for now can come by way of it."""
        return self.state != "refused" and self.wait_s <= WAIT_MAX_S


@dataclass(frozen=True)
class Health:
    """What a worker says of itself."""

    version: str
    viewers: int
    viewers_max: int | None  # None: an older worker, which does not say
    clock_behind_s: float  # behind Telegram's; 0 as long as the worker does not know
    bots: tuple[BotHealth, ...]

    @classmethod
    def from_answer(cls, body: Mapping[str, Any]) -> Self:
        """Read what /health says; if no worker says so raise one of MALFORMED."""
        most = body.get("viewers_max")
        return cls(
            version=clean_line(body["version"])[:40],
            viewers=int(body.get("viewers", 0)),
            viewers_max=None if most is None else int(most),
            clock_behind_s=_finite(body.get("clock_behind_s", 0)),
            bots=tuple(
                BotHealth(
                    int(bot["bot"]),
                    str(bot["state"]),
                    _finite(bot.get("wait_s", 0)),
                    tuple(int(chat_id) for chat_id in bot.get("blind_to", ())),
                    clean_line(bot.get("message")),
                )
                for bot in body["telegram"][:BOTS_MAX]
            ),
        )

    @property
    def is_full(self) -> bool:
        return self.viewers_max is not None and self.viewers >= self.viewers_max

    @property
    def is_able(self) -> bool:
        """Whether any of its bots can fetch a film now."""
        return any(bot.is_able for bot in self.bots)

    @property
    def knows_the_time(self) -> bool:
        """Whether it has heard Telegram's clock, so that `clock_behind_s` means something."""
        return bool(self.clock_behind_s) or any(bot.state == "connected" for bot in self.bots)


@dataclass(frozen=True)
class Look:
    """What was found at a worker's /health: the worker, or what is there in its place."""

    kind: Literal["worker", "silent", "unreachable", "redirects", "foreign"]
    health: Health | None = None
    detail: str = ""  # for people: why it is unreachable, where it leads, what it is
    date: float | None = None  # its Date header, in Unix seconds; a proxy may have written it
    lets_us_read: bool | None = None  # whether pages of the asked-for origin may (CORS)


@dataclass
class _Known:
    """What was learnt of one worker. Until the contrary is known it is worth a try."""

    is_well: bool = True
    is_full: bool = False
    is_suspected: bool = False
    looked_at: float = _NEVER
    refused_at: float = _NEVER


class Workers:
    """What is known of the workers at WORKER_URL, and which of them a file comes from."""

    def __init__(self, urls: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.urls = tuple(dict.fromkeys(urls))
        self._clock = clock
        self._known = {url: _Known() for url in self.urls}
        self._by_address = {address_of(url): url for url in self.urls}

    @property
    def has_choice(self) -> bool:
        return len(self.urls) > 1

    # -- choosing --------------------------------------------------------------------------------

    def order(self, key: str) -> tuple[str, ...]:
        """All workers in the order of this key: the first serves it, the next stand in for it."""
        return tuple(sorted(self.urls, key=lambda url: _weight(url, key), reverse=True))

    def pick(self, key: str, avoid: Collection[str] = (), attempt: int = 0) -> str:
        """The first in the key's order that is well and did not fail whoever asks.

        When all that are well did fail it, they are tried again: it may have been the line. An
        attempt that failed without naming a worker walks on by one.
        """
        order = self.order(key)
        usable = [url for url in order if self.is_usable(url)]
        untried = [url for url in usable if url not in avoid]
        choice = untried or usable or [url for url in order if url not in avoid] or list(order)
        return choice[0 if avoid else attempt % len(choice)]

    def named(self, addresses: Iterable[str]) -> list[str]:
        """Which of the workers these addresses name; all others are passed over."""
        known = (self._by_address.get(address_of(each)) for each in addresses)
        return [url for url in dict.fromkeys(known) if url is not None][:AVOIDED_MAX]

    def is_usable(self, url: str) -> bool:
        """Whether it would serve a viewer now, as far as is known."""
        known = self._known[url]
        has_refused = self._clock() - known.refused_at < REFUSAL_FOR_S
        return known.is_well and not known.is_full and not has_refused

    def is_due(self, url: str) -> bool:
        """Whether it is time to look at it again."""
        known = self._known[url]
        return self._clock() - known.looked_at >= (
            LOOK_AGAIN_S if known.is_suspected else LOOK_FOR_S
        )

    # -- learning --------------------------------------------------------------------------------

    def note_look(self, url: str, health: Health | None) -> None:
        """What a look at its /health found; None: nothing that helps a viewer."""
        known = self._known[url]
        known.is_well = health is not None and health.is_able
        known.is_full = health is not None and health.is_full
        known.is_suspected = False
        known.looked_at = self._clock()

    def note_answer(self, url: str) -> None:
        """It answered something else as it should."""
        self._known[url].is_well = True

    def note_failure(self, url: str) -> None:
        """It did not answer."""
        known = self._known[url]
        known.is_well, known.is_suspected, known.looked_at = False, False, self._clock()

    def note_refusal(self, url: str) -> None:
        """It does not know our signature, and so would refuse every viewer we send."""
        self._known[url].refused_at = self._clock()

    def note_agreement(self, url: str) -> None:
        """It knows our signature."""
        self._known[url].refused_at = _NEVER

    def suspect(self, url: str) -> None:
        """Somebody reports trouble with it: worth a look, but nobody's word alone."""
        self._known[url].is_suspected = True


def key_of(file: MediaFile) -> str:
    """What the workers of a file are ordered by."""
    return f"{file.chat_id}/{file.message_id}"


def address_of(url: str) -> tuple[str, str, int | None, str]:
    """A worker's address, however it is written: browsers leave out a default port."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None, ""
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")


def _weight(url: str, key: str) -> bytes:
    # Of the address, so that two backends whose WORKER_URL is written differently agree.
    return hashlib.blake2b(f"{address_of(url)} {key}".encode(), digest_size=8).digest()


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number
