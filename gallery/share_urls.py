"""Share URLs: where at a worker a shared file is, signed for whoever holds the link.

The worker's URL carries a token of an hour and a renewal grant, which the worker itself turns into
fresh tokens: at most for twelve hours and until the share ends. So long a film that is open
already may run on after its share was revoked.
"""

import time
from dataclasses import dataclass

from aiohttp import web

from gallery import tokens
from gallery.files import Hls, MediaFile, hls_url, stream_url
from gallery.settings import SETTINGS
from gallery.shares import Share
from gallery.worker_choice import WORKER_CHOICE, Failures, for_our_page, told_to_our_page


@dataclass(frozen=True)
class Signed:
    """A file at the worker: its URL, when the token in it ends, how long the worker renews it, its
    other qualities, and where the worker tells more of it to the player page."""

    url: str
    expires_at: int
    lasts_s: int
    hls: Hls | None
    storyboard: str | None
    tracks: str | None


async def sign(
    request: web.Request, share: Share, file: MediaFile, *, is_ours: bool = False
) -> Signed:
    """A URL of a worker that is well; `is_ours` if it is for the player page."""
    choice = request.app[WORKER_CHOICE]
    worker_url = await choice.pick(file, Failures.from_query(request))
    settings, now = request.app[SETTINGS], time.time()
    expires_at = end_of(share, now, tokens.TOKEN_LIFETIME_S)
    renewed_until = end_of(share, now, tokens.RENEWAL_LIFETIME_S)
    ids = (settings.jwt_secret, share.chat_id, share.message_id)
    grant = tokens.renewal_grant(*ids, renewed_until, file.parts)
    token = tokens.visitor_token(*ids, now, expires_at, file.parts)
    urls = [
        f"{stream_url(worker_url, file, token)}&renew={grant}",
        hls_url(worker_url, file, token, grant),
    ]
    url, master = (for_our_page(each, choice) if is_ours else each for each in urls)
    hls = Hls(master, file.qualities, renewed_until) if file.qualities else None
    told = told_to_our_page(worker_url, file, token, choice)
    return Signed(url, expires_at, renewed_until - int(now), hls, **told)


def end_of(share: Share, now: float, lifetime_s: int) -> int:
    """After this lifetime, or with the share if that ends sooner."""
    end = int(now) + lifetime_s
    return end if share.expires_at is None else min(end, share.expires_at)
