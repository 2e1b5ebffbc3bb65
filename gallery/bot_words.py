"""Bot words: what the bot's answers look like, in Telegram's HTML and its buttons. Pure.

Whatever somebody else has written is escaped here, and nothing here is longer than Telegram takes.
The data of a button is a verb of one letter and what it is about. A share is its own proof there:
it is signed, so no table says what a button of last year meant.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape, unescape
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

from gallery.files import MediaFile
from gallery.presentation import title_of
from gallery.shares import Links, Share

Keyboard = list[list[dict[str, Any]]]

# Telegram takes 4096 without the markup, which leaves room for a note. Counted in UTF-16, safely.
TEXT_MAX: Final = 3900
DATA_MAX_BYTES: Final = 64
COPY_TEXT_MAX: Final = 256
BUTTON_TEXT_MAX: Final = 40  # Telegram cuts at the width of the screen
TITLE_MAX: Final = 120
FILMS_MAX: Final = 10  # as many as an album holds
DAY_S: Final = 24 * 3600
LIFETIMES: Final[dict[str, tuple[str, int | None]]] = {
    "d": ("1 day", DAY_S),
    "w": ("7 days", 7 * DAY_S),
    "e": ("No end", None),
}
REVOKE, RENEW, PUT = "r", "n", "p"

HELP: Final = (
    "Send or forward a film, and I answer with links to it: a page to watch it on, and a direct"
    " link for VLC and others. A link to a post of your channels will do as well.\n\n"
    "/gallery: sign in to the gallery, without the password\n"
    "/status: how the workers are\n"
    "/link: in a channel, in reply to a film: links to it\n"
    "/help: this"
)
COMMANDS: Final = (
    {"command": "gallery", "description": "Sign in to the gallery"},
    {"command": "status", "description": "How the workers are"},
    {"command": "help", "description": "What I do"},
)


@dataclass(frozen=True)
class Film:
    """A file and the link to it, as an answer shows them."""

    file: MediaFile
    share: Share
    links: Links
    has_ended: bool


# -- numbers in words ------------------------------------------------------------------------------


def size_words(size: int) -> str:
    """`1.4 GB`, in decimal units as the gallery and Telegram show them."""
    value, units = float(size), ["B", "KB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    digits = 1 if units[0] not in ("B", "KB") and value < 10 else 0
    return f"{value:.{digits}f} {units[0]}"


def length_words(seconds: float) -> str:
    """`1 h 52 min`, `3 min 20 s`, `45 s`."""
    whole = max(1, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{rest} s"


def lasting_words(seconds: float) -> str:
    """`7 days`, `23 hours`, `5 minutes`: about how much time is left."""
    minutes = math.ceil(seconds / 60)  # a link of a day is that even a second later
    for unit_minutes, unit in ((24 * 60, "day"), (60, "hour"), (1, "minute")):
        if minutes >= unit_minutes:
            count = round(minutes / unit_minutes)
            return f"{count} {unit}{'s' * (count > 1)}"
    return "no time"


def end_words(share: Share, now: float) -> str:
    """`Good for 7 days, until 3 December 2026, 20:15 UTC.`"""
    if share.expires_at is None:
        return "Good until it is revoked."
    end = datetime.fromtimestamp(share.expires_at, UTC)
    left = lasting_words(share.expires_at - now)
    return f"Good for {left}, until {end.day} {end:%B %Y, %H:%M} UTC."


def facts_words(file: MediaFile) -> str:
    """What is known of the file's size, length and picture."""
    facts = [size_words(file.size)] if file.size else []
    if file.duration:
        facts.append(length_words(file.duration))
    if file.width and file.height:
        facts.append(f"{file.width}×{file.height}")  # noqa: RUF001 - the sign that is meant
    return ", ".join(facts)


# -- texts -----------------------------------------------------------------------------------------


def title_html(file: MediaFile) -> str:
    title = title_of(file)
    return f"<b>{escape(title if len(title) <= TITLE_MAX else title[:TITLE_MAX] + '…')}</b>"


def film_html(file: MediaFile) -> str:
    """Its title, and below that what else is known of it."""
    return "\n".join(filter(None, (title_html(file), facts_words(file))))


def links_html(films: Sequence[Film], now: float) -> str:
    """The answer to somebody who wants these."""
    if len(films) == 1:
        (film,) = films
        return f"{film_html(film.file)}\n\n{_single_links(film, now)}"
    return "\n\n".join(
        f"{number}. {title_html(film.file)}\n{_links_of_several(film, now)}"
        for number, film in enumerate(films, 1)
    )


def _single_links(film: Film, now: float) -> str:
    if film.has_ended:
        return "The link to it has ended."
    return (
        f"To watch: {link_html(film.links.embed_url)}\n"
        f"For VLC and others: {code_html(film.links.url)}\n\n{end_words(film.share, now)}"
    )


def _links_of_several(film: Film, now: float) -> str:
    if film.has_ended:
        return "The link to it has ended."
    watch, direct = film.links.embed_url, film.links.url
    links = (
        f'<a href="{escape(watch)}">Watch</a>, <a href="{escape(direct)}">direct link</a>'
        if is_linkable(watch)
        else f"{code_html(watch)}\n{code_html(direct)}"
    )
    facts = facts_words(film.file)
    return "\n".join(filter(None, (facts, links, end_words(film.share, now))))


def link_html(url: str) -> str:
    """A link; where Telegram takes it for none, a text that a tap copies."""
    quoted = escape(url)
    return f'<a href="{quoted}">{quoted}</a>' if is_linkable(url) else code_html(url)


def code_html(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def text_length(html: str) -> int:
    """How long Telegram finds a text."""
    plain = unescape(re.sub("<[^>]*>", "", html))
    return len(plain.encode("utf-16-le", "surrogatepass")) // 2


def in_answers(films: Sequence[Film], now: float) -> list[Sequence[Film]]:
    """As few answers as these fit into."""
    fits = len(films) <= FILMS_MAX and text_length(links_html(films, now)) <= TEXT_MAX
    if fits or len(films) == 1:
        return [films]
    middle = FILMS_MAX if len(films) > FILMS_MAX else len(films) // 2
    return [*in_answers(films[:middle], now), *in_answers(films[middle:], now)]


# -- buttons ---------------------------------------------------------------------------------------


def is_linkable(url: str) -> bool:
    """Whether Telegram takes it for a link: not where the host's name has no dot (localhost)."""
    host = urlsplit(url).hostname or ""
    return "." in host.strip(".") or ":" in host


def links_keyboard(films: Sequence[Film], *, for_owner: bool) -> Keyboard:
    """Buttons below an answer; those that change something are for owners."""
    if len(films) == 1:
        rows = _single_rows(films[0], for_owner=for_owner)
    else:
        rows = [
            _row_of_several(number, film, for_owner=for_owner)
            for number, film in enumerate(films, 1)
        ]
    live = next((film for film in films if not film.has_ended), None)
    if for_owner and live is not None:
        rows.append(
            [_press(name, verb + live.links.share) for verb, (name, _) in LIFETIMES.items()]
        )
    return [row for row in rows if row]


def _single_rows(film: Film, *, for_owner: bool) -> Keyboard:
    links = film.links
    if film.has_ended:
        return [[_press("New link", RENEW + links.share)]] if for_owner else []
    rows = [[*_open("Watch", links.embed_url), *_open("Download", f"{links.url}?download=1")]]
    if for_owner:
        copy = [{"text": "Copy link", "copy_text": {"text": links.embed_url}}]
        is_short = len(links.embed_url) <= COPY_TEXT_MAX
        rows.append([*(copy if is_short else []), _press("Revoke", REVOKE + links.share)])
    return rows


def _row_of_several(number: int, film: Film, *, for_owner: bool) -> list[dict[str, Any]]:
    if film.has_ended:
        return [_press(f"New link {number}", RENEW + film.links.share)] if for_owner else []
    revoke = [_press(f"Revoke {number}", REVOKE + film.links.share)] if for_owner else []
    return [*_open(f"Watch {number}", film.links.embed_url), *revoke]


def open_keyboard(text: str, url: str) -> Keyboard:
    """One button that opens an address, if Telegram takes it."""
    row = _open(text, url)
    return [row] if row else []


def put_keyboard(channels: Iterable[tuple[int, str]], message_ids: Sequence[int]) -> Keyboard:
    """One button for each channel that these messages could be copied to."""
    return [
        [_press(_cut(f"Put it into {title}"), put_data(chat_id, message_ids))]
        for chat_id, title in channels
    ]


def put_data(chat_id: int, message_ids: Sequence[int]) -> str:
    """The channel, the first message, and how far each is from the one before."""
    steps = [after - before for before, after in pairwise(message_ids)]
    return PUT + ".".join(map(str, (chat_id, message_ids[0], *steps)))


def in_puts(message_ids: Sequence[int], chat_ids: Iterable[int]) -> list[Sequence[int]]:
    """As few groups of messages as the data of a button can name, for each of these channels."""
    chats = list(chat_ids)
    longest = max(len(put_data(chat_id, message_ids)) for chat_id in chats)
    if len(message_ids) == 1 or (len(message_ids) <= FILMS_MAX and longest <= DATA_MAX_BYTES):
        return [message_ids]
    middle = min(FILMS_MAX, len(message_ids) // 2)
    return [*in_puts(message_ids[:middle], chats), *in_puts(message_ids[middle:], chats)]


def read_put_data(data: str) -> tuple[int, list[int]]:
    """What `put_data` wrote, or somebody else; raise ValueError if nobody could mean it."""
    chat_id, *steps = map(int, data.removeprefix(PUT).split("."))
    ids: list[int] = []
    for step in steps[: FILMS_MAX + 1]:
        ids.append(step + (ids[-1] if ids else 0))
    if not 0 < len(ids) <= FILMS_MAX or min(steps) <= 0:
        raise ValueError
    return chat_id, ids


def without_links(keyboard: Keyboard) -> Keyboard:
    """The buttons that every Telegram takes: those that we are told of when they are pressed."""
    rows = [[button for button in row if "callback_data" in button] for row in keyboard]
    return [row for row in rows if row]


def _press(text: str, data: str) -> dict[str, Any]:
    return {"text": text, "callback_data": data}


def _open(text: str, url: str) -> list[dict[str, Any]]:
    return [{"text": text, "url": url}] if is_linkable(url) else []


def _cut(text: str) -> str:
    return text if len(text) <= BUTTON_TEXT_MAX else f"{text[: BUTTON_TEXT_MAX - 1]}…"
