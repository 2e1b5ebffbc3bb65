"""Worker client: asks the workers what is in a channel."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from gallery.answers import read_json
from gallery.errors import RETRY_AFTER_S, ApiError, worker_unreachable
from gallery.files import MALFORMED, MESSAGE_ID_MAX, MediaFile, clean_line
from gallery.tokens import listing_token

log = logging.getLogger(__name__)


# A free Render service takes up to a minute to wake and holds the request until it is awake.
LISTING_TIMEOUT: Final = ClientTimeout(total=75, sock_connect=5)
LISTING_LIMIT: Final = 100  # messages per request: what channels.getMessages takes at once
# Gateways say these while the service behind them starts; so does a worker that is shutting down.
ASLEEP_STATUSES: Final = (502, 503, 504)
RETRY_AFTER_MAX_S: Final = 3600.0


@dataclass(frozen=True)
class Listing:
    """One answer of the worker's `/files`: ascending ids, and the next `after`, None at the end."""

    files: tuple[MediaFile, ...]
    next: int | None


class WorkerClient:
    """Lists channels through whichever worker answers first in the order of WORKER_URL."""

    def __init__(self, session: ClientSession, worker_urls: tuple[str, ...], secret: str) -> None:
        self._session = session
        self._worker_urls = worker_urls
        self._secret = secret

    async def files_after(self, chat_id: int, after: int, limit: int = LISTING_LIMIT) -> Listing:
        """List the files of a channel with ids above `after`; raise ApiError when no worker can."""
        token = listing_token(self._secret, chat_id, time.time())
        problem = worker_unreachable()
        for worker_url in self._worker_urls:
            try:
                # The token travels in a header: client errors quote the URL they failed on.
                async with self._session.get(
                    f"{worker_url}/files/{chat_id}",
                    params={"after": after, "limit": limit},
                    headers={"Authorization": f"Bearer {token}"},
                    allow_redirects=False,  # it is asked where the owner says, not where it says
                ) as response:
                    if response.status == 200:
                        return _parse_listing(await read_json(response))
                    problem = await _refusal(response)
            except (ClientError, TimeoutError) as error:
                log.warning("worker %s does not answer: %s", worker_url, type(error).__name__)
            except MALFORMED as error:
                log.warning(
                    "worker %s lists in an unknown form: %s", worker_url, type(error).__name__
                )
                problem = ApiError(502, "bad_listing", "The worker's listing cannot be understood.")
        raise problem


def _parse_listing(body: Mapping[str, Any]) -> Listing:
    following = body["next"]
    files = tuple(MediaFile.from_listing(item) for item in body["files"])
    if following is not None and not 0 <= int(following) <= MESSAGE_ID_MAX:
        raise ValueError
    return Listing(files, None if following is None else int(following))


async def _refusal(response: ClientResponse) -> ApiError:
    """Translate a worker's refusal into what the owner of the gallery can do about it."""
    if response.status in (401, 403):
        return ApiError(
            502,
            "worker_refused",
            "The worker refuses our token: JWT_SECRET differs between the two.",
        )
    if response.status == 404:
        return ApiError(
            502,
            "channel_not_found",
            "The bot cannot see the channel: make it an administrator there.",
        )
    if response.status in (301, 302, 303, 307, 308):
        message = "WORKER_URL only leads on to another address: put that one there."
        return ApiError(502, "worker_redirects", message)
    try:
        reason = clean_line((await read_json(response))["error"]["message"])
    except (ClientError, KeyError, TypeError, ValueError):
        reason = ""
    if response.status == 429 or (response.status in ASLEEP_STATUSES and reason):
        seconds = response.headers.get("Retry-After", "")
        wait_s = min(float(seconds), RETRY_AFTER_MAX_S) if seconds.isdigit() else RETRY_AFTER_S
        return ApiError(503, "worker_busy", reason or "Telegram is busy.", retry_after_s=wait_s)
    if response.status in ASLEEP_STATUSES:
        return worker_unreachable()
    return ApiError(502, "worker_failed", f"The worker answered with status {response.status}.")
