"""Problem kinds: everything that can be wrong with the settings, in words for the owner.

docs/setup-problems.md has the same table, and a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Severity = Literal["stops", "limits", "note"]

SEVERITIES: Final[tuple[Severity, ...]] = ("stops", "limits", "note")


@dataclass(frozen=True)
class Kind:
    """One thing that can be wrong: how bad it is, what is said of it, and what to do."""

    severity: Severity  # at its worst: with another worker that is well nothing stops
    message: str
    what_to_do: str


KINDS: Final[Mapping[str, Kind]] = {
    "worker_unreachable": Kind(
        "stops",
        "The worker at {worker} cannot be reached: {reason}.",
        "See whether it runs (its log tells), and whether WORKER_URL is its address.",
    ),
    "worker_foreign": Kind(
        "stops",
        "What answers at {worker} is no worker ({reason}).",
        "Put the worker's own address into WORKER_URL, as its host shows it, without a path.",
    ),
    "worker_redirects": Kind(
        "stops",
        "{worker} only leads on to {target}.",
        "Put the address that it leads to into WORKER_URL.",
    ),
    "worker_mixed_content": Kind(
        "stops",
        "The gallery is open by https and {worker} is http, which browsers do not load.",
        "Give the worker https too, and WORKER_URL an address that begins with https.",
    ),
    "worker_origin_refused": Kind(
        "stops",
        "The worker at {worker} does not let the pages of this gallery read it.",
        "Add the address of this gallery, as the browser shows it, to the worker's ALLOWED_ORIGINS,"
        " or leave that empty.",
    ),
    "worker_secret_differs": Kind(
        "stops",
        "The worker at {worker} refuses what this gallery signs.",
        "Give both services the same JWT_SECRET and restart the one that was changed.",
    ),
    "worker_clock_off": Kind(
        "stops",
        "The clock of the worker at {worker} is {seconds} s {direction}.",
        "Set the clock of the worker's machine by the network (timedatectl set-ntp true).",
    ),
    "backend_clock_off": Kind(
        "stops",
        "The clock of this gallery's machine is {seconds} s {direction}.",
        "Set the clock of the gallery's machine by the network (timedatectl set-ntp true).",
    ),
    "clocks_differ": Kind(
        "stops",
        "The clocks of the gallery and of the worker at {worker} are {seconds} s apart, and"
        " Telegram cannot be asked which one is right.",
        "Set both machines' clocks by the network (timedatectl set-ntp true).",
    ),
    "worker_bot_refused": Kind(
        "stops",
        "Telegram refuses bot {bot} of the worker at {worker}.",
        "Put the token that BotFather shows now into BOT_TOKEN, on both services.",
    ),
    "flood_wait": Kind(
        "stops",
        "Telegram makes bot {bot} of the worker at {worker} wait until {until} UTC, in {minutes}"
        " min: it logged in or asked too often.",
        "Wait, and do not restart the worker: every login makes it longer. Give it a SESSION_FILE"
        " on a disk that is kept, or a SESSION_STRING, so that a restart does not log in.",
    ),
    "channel_unknown": Kind(
        "stops",
        "The bot is not in the channel {channel}, or there is no such channel.",
        "Make the bot an administrator of the channel, and see whether CHANNELS has the channel's"
        " id, which begins with -100.",
    ),
    "bot_not_administrator": Kind(
        "limits",
        "The bot is in the channel {channel}, but not as an administrator.",
        "Make the bot an administrator of the channel; it needs none of the rights.",
    ),
    "worker_bot_blind": Kind(
        "limits",
        "Bot {bot} of the worker at {worker} cannot see the channel {channel}.",
        "Make that bot an administrator of the channel too.",
    ),
    "bot_token_refused": Kind(
        "limits",
        "Telegram refuses this gallery's BOT_TOKEN, so new posts and small files come by way of the"
        " worker only.",
        "Put the token that BotFather shows now into BOT_TOKEN, on both services.",
    ),
    "bot_differs": Kind(
        "limits",
        "This gallery's bot {bot} is none of the bots of the worker at {worker}.",
        "Put the same BOT_TOKEN on both services.",
    ),
    "bot_api_unreachable": Kind(
        "limits",
        "The Bot API cannot be reached ({reason}), so new posts and small files come by way of the"
        " worker only.",
        "See whether BOT_API_URL is right, and whether this machine can reach it.",
    ),
    "webhook_taken": Kind(
        "limits",
        "Telegram tells another address of this bot's new posts; here they show up later.",
        "End that webhook (deleteWebhook) and restart the gallery, or give the gallery a bot of its"
        " own.",
    ),
    "webhook_failing": Kind(
        "limits",
        "Telegram cannot tell this gallery of new posts: {reason}.",
        "See whether PUBLIC_URL is this gallery's address on the open internet, by https with a"
        " good certificate.",
    ),
    "worker_older": Kind(
        "limits",
        "The worker at {worker} is version {theirs}, older than this gallery, {ours}.",
        "Copy the newer render-service-chunked.py to the worker's machine and restart it; on Render"
        " deploy the worker again.",
    ),
    "backend_older": Kind(
        "limits",
        "This gallery is version {ours}, older than the worker at {worker}, {theirs}.",
        "Deploy the gallery again from the newer version.",
    ),
    "database_in_memory": Kind(
        "note",
        "Which share links were ended and who signed out is forgotten at a restart.",
        "Set DATABASE to the path of a file on a disk that is kept.",
    ),
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong now. `about` tells two of one code apart."""

    code: str
    severity: Severity
    message: str
    what_to_do: str
    about: str = field(default="", compare=False)


def problem(
    code: str, *, about: str = "", severity: Severity | None = None, **words: object
) -> Problem:
    """One of KINDS with these words in it; less bad than it can be, if `severity` says so."""
    kind = KINDS[code]
    message, what_to_do = (text.format(**words) for text in (kind.message, kind.what_to_do))
    return Problem(code, severity or kind.severity, message, what_to_do, about)
