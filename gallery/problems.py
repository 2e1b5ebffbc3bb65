"""Problems: what is wrong with the settings; decisions only, no I/O.

Facts about the workers and the bot go in, problems come out, the worst first.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from gallery.files import clean_line
from gallery.problem_kinds import SEVERITIES, Problem, Severity, problem
from gallery.tokens import TOKEN_LIFETIME_S
from gallery.workers import BotHealth, Health, Look

CLOCK_OFF_S: Final = 30.0  # a Date header is a second coarse, and was under way for two at most
TOKEN_SKEW_S: Final = 60.0  # what the worker forgives a backend whose clock runs ahead
WAKING_MAX_S: Final = 90.0  # a free host takes a minute to wake; after that it is no sleep
LONG_WAIT_S: Final = 30.0  # a shorter flood wait is over before anybody has read of it
WEBHOOK_TROUBLE_FOR_S: Final = 3600.0


@dataclass(frozen=True)
class WorkerFacts:
    """What was found at one address of WORKER_URL."""

    url: str
    look: Look
    silent_s: float = 0.0  # for how long it has not answered
    knows_our_signature: bool | None = None

    @property
    def state(self) -> str:
        """In one word, for the page."""
        if self.look.health is None:
            is_waking = self.look.kind == "silent" and self.silent_s <= WAKING_MAX_S
            return "waking" if is_waking else "away" if self.look.kind == "silent" else "wrong"
        return "full" if self.look.health.is_full else "well"

    @property
    def is_well(self) -> bool:
        health = self.look.health
        refuses = self.knows_our_signature is False or self.look.lets_us_read is False
        return health is not None and health.is_able and not refuses


@dataclass(frozen=True)
class BotFacts:
    """What the Bot API says of the gallery's bot."""

    bot_id: int
    refusal: tuple[int, str] | None = None  # of getMe; code 0: nobody answered
    date: float | None = None  # its Date header, in Unix seconds
    standing: Mapping[int, str] = field(default_factory=dict)  # by channel; "unknown": not seen
    webhook: Mapping[str, Any] | None = None  # getWebhookInfo
    webhook_url: str | None = None  # where we want to be told; None: we ask
    webhook_refusal: str = ""  # what setWebhook last said against it


@dataclass(frozen=True)
class Facts:
    """All that was found, at one moment of the gallery's own clock."""

    workers: tuple[WorkerFacts, ...]
    bot: BotFacts
    channels: tuple[int, ...]
    version: str
    now: float
    forgets: bool = False  # the database is in memory though the machine has a disk


def problems_of(facts: Facts) -> list[Problem]:
    """Everything that is wrong, the worst first."""
    found = [
        *_clock_problems(facts),
        *(each for worker in facts.workers for each in _worker_problems(facts, worker)),
        *_bot_problems(facts),
        *([problem("database_in_memory")] if facts.forgets else []),
    ]
    unique = {(each.code, each.about): each for each in found}
    return sorted(unique.values(), key=lambda each: SEVERITIES.index(each.severity))


def mixed_content(worker_url: str) -> Problem:
    """For a page that was opened by https and a worker that has none."""
    return problem("worker_mixed_content", about=worker_url, worker=worker_url)


# -- workers -------------------------------------------------------------------------------------


def _worker_problems(facts: Facts, worker: WorkerFacts) -> Iterator[Problem]:
    url, look = worker.url, worker.look
    others = [each for each in facts.workers if each is not worker and each.is_well]
    severity: Severity = "limits" if others else "stops"
    words: dict[str, Any] = {"about": url, "worker": url, "severity": severity}
    if look.kind == "unreachable":
        yield problem("worker_unreachable", reason=look.detail, **words)
    elif look.kind == "silent" and worker.state != "waking":
        reason = f"no answer for {worker.silent_s:.0f} s"
        yield problem("worker_unreachable", reason=reason, **words)
    elif look.kind == "redirects":
        yield problem("worker_redirects", target=look.detail or "another page", **words)
    elif look.kind == "foreign":
        yield problem("worker_foreign", reason=look.detail, **words)
    if look.lets_us_read is False:
        yield problem("worker_origin_refused", **words)
    if worker.knows_our_signature is False:
        yield problem("worker_secret_differs", **words)
    if look.health is not None:
        yield from _health_problems(facts, worker, look.health, severity)


def _health_problems(
    facts: Facts, worker: WorkerFacts, health: Health, severity: Severity
) -> Iterator[Problem]:
    if health.is_able:
        severity = "limits"  # another bot of this worker plays
    for bot in health.bots:
        yield from _worker_bot_problems(facts, worker, bot, severity)
    if health.bots and facts.bot.bot_id not in [bot.id for bot in health.bots]:
        bot_id = facts.bot.bot_id
        yield problem("bot_differs", about=worker.url, worker=worker.url, bot=bot_id)
    if health.version != facts.version:
        is_older = _number(health.version) < _number(facts.version)
        yield problem(
            "worker_older" if is_older else "backend_older",
            about=worker.url,
            worker=worker.url,
            theirs=health.version,
            ours=facts.version,
        )


def _worker_bot_problems(
    facts: Facts, worker: WorkerFacts, bot: BotHealth, severity: Severity
) -> Iterator[Problem]:
    words: dict[str, Any] = {"worker": worker.url, "bot": bot.id, "about": f"{worker.url} {bot.id}"}
    if bot.state == "refused":
        yield problem("worker_bot_refused", severity=severity, **words)
    elif bot.wait_s >= LONG_WAIT_S:
        until = datetime.fromtimestamp(facts.now + min(bot.wait_s, 7 * 86400.0), UTC)
        minutes = max(1, round(bot.wait_s / 60))
        words |= {"until": f"{until:%H:%M}", "minutes": minutes}
        yield problem("flood_wait", severity=severity, **words)
    for channel in bot.blind_to:
        standing = facts.bot.standing.get(channel)
        is_told = bot.id == facts.bot.bot_id and standing == "unknown"
        if channel in facts.channels and not is_told:
            words["about"] = f"{worker.url} {bot.id} {channel}"
            yield problem("worker_bot_blind", channel=channel, **words)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version))


# -- clocks --------------------------------------------------------------------------------------


def _clock_problems(facts: Facts) -> Iterator[Problem]:
    """Which clock is off: Telegram's own time, by whichever way it is heard, is the right one."""
    ours = _backend_behind_s(facts)
    if ours is not None and abs(ours) > CLOCK_OFF_S:
        severity: Severity = "stops" if _spoils_tokens(-ours) else "limits"
        yield problem("backend_clock_off", severity=severity, **_off_by(ours))
    for worker in facts.workers:
        theirs = _worker_behind_s(facts, worker)
        url, date = worker.url, worker.look.date
        if theirs is not None and abs(theirs) > CLOCK_OFF_S:
            has_others = any(each.is_well for each in facts.workers if each is not worker)
            severity = "stops" if _spoils_tokens(theirs) and not has_others else "limits"
            words = {"about": url, "worker": url, **_off_by(theirs)}
            yield problem("worker_clock_off", severity=severity, **words)
        elif theirs is ours is None and date is not None and worker.look.health is not None:
            apart_s = abs(date - facts.now)
            if apart_s > CLOCK_OFF_S:
                yield problem("clocks_differ", about=url, worker=url, seconds=round(apart_s))


def _backend_behind_s(facts: Facts) -> float | None:
    """How far our clock is behind Telegram's; None if nobody can say."""
    if facts.bot.date is not None:
        return facts.bot.date - facts.now
    for worker in facts.workers:
        health, date = worker.look.health, worker.look.date
        if health is not None and date is not None and health.knows_the_time:
            return date + health.clock_behind_s - facts.now
    return None


def _worker_behind_s(facts: Facts, worker: WorkerFacts) -> float | None:
    """How far a worker's clock is behind Telegram's; None if nobody can say."""
    health, date = worker.look.health, worker.look.date
    if health is None:
        return None
    if health.knows_the_time:
        return health.clock_behind_s
    if facts.bot.date is None or date is None:
        return None
    return facts.bot.date - date


def _spoils_tokens(ahead_s: float) -> bool:
    """Whether tokens are refused when the clock that signs is so far ahead of the one that reads.

    Ahead they are not good yet, and an hour behind they have run out.
    """
    return ahead_s > TOKEN_SKEW_S or ahead_s < -TOKEN_LIFETIME_S


def _off_by(behind_s: float) -> dict[str, Any]:
    return {"seconds": round(abs(behind_s)), "direction": "slow" if behind_s > 0 else "fast"}


# -- the bot -------------------------------------------------------------------------------------


def _bot_problems(facts: Facts) -> Iterator[Problem]:
    bot = facts.bot
    if bot.refusal is not None:
        code, description = bot.refusal
        if code == 401:
            yield problem("bot_token_refused")
        elif code == 0:
            yield problem("bot_api_unreachable", reason=clean_line(description))
        return
    for channel, standing in bot.standing.items():
        words: dict[str, Any] = {"about": str(channel), "channel": channel}
        if standing == "unknown":
            others = any(_sees(worker, channel, bot.bot_id) for worker in facts.workers)
            is_all = len(bot.standing) == 1 and not others
            severity: Severity = "stops" if is_all else "limits"
            yield problem("channel_unknown", severity=severity, **words)
        elif standing not in ("administrator", "creator"):
            yield problem("bot_not_administrator", **words)
    yield from _webhook_problems(facts)


def _sees(worker: WorkerFacts, channel: int, but: int) -> bool:
    """Whether another bot of this worker may see the channel."""
    bots = worker.look.health.bots if worker.look.health else ()
    return any(bot.is_able and bot.id != but and channel not in bot.blind_to for bot in bots)


def _webhook_problems(facts: Facts) -> Iterator[Problem]:
    bot = facts.bot
    if bot.webhook_refusal:
        yield problem("webhook_failing", reason=clean_line(bot.webhook_refusal))
    if bot.webhook is None:
        return
    url = str(bot.webhook.get("url", ""))
    if url and url != bot.webhook_url:
        yield problem("webhook_taken")
    elif url and (reason := bot.webhook.get("last_error_message")):
        failed_at = bot.webhook.get("last_error_date")
        is_recent = isinstance(failed_at, int) and facts.now - failed_at < WEBHOOK_TROUBLE_FOR_S
        if is_recent and bot.webhook.get("pending_update_count"):
            yield problem("webhook_failing", reason=clean_line(reason))
