"""Worker client: asks the workers what is in a channel, and each of them how it is."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web

from gallery.answers import date_of, read_json, reason_of
from gallery.errors import RETRY_AFTER_S, ApiError, worker_unreachable
from gallery.files import MALFORMED, MESSAGE_ID_MAX, MediaFile, clean_line
from gallery.tokens import listing_token, probe_token
from gallery.workers import Health, Look, Workers

log = logging.getLogger(__name__)


# A free Render service takes up to a minute to wake and holds the request until it is awake.
LISTING_TIMEOUT: Final = ClientTimeout(total=75, sock_connect=5)
# With others to ask one is not waited for so long; it wakes up all the same.
LISTING_TIMEOUT_WITH_OTHERS: Final = ClientTimeout(total=10, sock_connect=2)
LISTING_LIMIT: Final = 100  # messages per request: what channels.getMessages takes at once
# Gateways say these while the service behind them starts; so does a worker that is shutting down.
ASLEEP_STATUSES: Final = (502, 503, 504)
REDIRECTS: Final = (301, 302, 303, 307, 308)
RETRY_AFTER_MAX_S: Final = 3600.0
HEALTH_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True)
class Listing:
    """One answer of the worker's `/files`: ascending ids, and the next `after`, None at the end."""

    files: tuple[MediaFile, ...]
    next: int | None


class WorkerClient:
    """Asks workers, and notes in `Workers` who answered."""

    def __init__(self, session: ClientSession, workers: Workers, secret: str) -> None:
        self._session = session
        self._workers = workers
        self._secret = secret

    async def files_after(self, chat_id: int, after: int, limit: int = LISTING_LIMIT) -> Listing:
        """List the files of a channel with ids above `after`; raise ApiError when no worker can."""
        problem = worker_unreachable()
        order = self._workers.order(str(chat_id))
        # Those that are well first; among them each channel has a worker of its own.
        for worker_url in sorted(order, key=self._workers.is_usable, reverse=True):
            try:
                listing = await self._list(worker_url, chat_id, after, limit)
            except (ClientError, TimeoutError) as error:
                log.warning("worker %s does not answer: %s", worker_url, type(error).__name__)
                self._workers.note_failure(worker_url)
            except ApiError as error:
                problem = error
            else:
                self._workers.note_answer(worker_url)
                return listing
        raise problem

    async def _list(self, worker_url: str, chat_id: int, after: int, limit: int) -> Listing:
        """The listing of one worker; raise ApiError, ClientError or TimeoutError."""
        token = listing_token(self._secret, chat_id, time.time())
        has_others = self._workers.has_choice
        # The token travels in a header: client errors quote the URL they failed on.
        async with self._session.get(
            f"{worker_url}/files/{chat_id}",
            params={"after": after, "limit": limit},
            headers={"Authorization": f"Bearer {token}"},
            timeout=LISTING_TIMEOUT_WITH_OTHERS if has_others else LISTING_TIMEOUT,
            allow_redirects=False,  # it is asked where the owner says, not where it says
        ) as response:
            if response.status != 200:
                if response.status == 401:
                    self._workers.note_refusal(worker_url)
                raise await _refusal(response)
            try:
                return _parse_listing(await read_json(response))
            except MALFORMED as error:
                log.warning(
                    "worker %s lists in an unknown form: %s", worker_url, type(error).__name__
                )
                message = "The worker's listing cannot be understood."
                raise ApiError(502, "bad_listing", message) from None

    async def look(self, worker_url: str, timeout_s: float, origin: str | None = None) -> Look:
        """One look at a worker's /health, and a note of what it means for viewers.

        With an origin it is asked as a page there would ask it.
        """
        look = await self._look(worker_url, timeout_s, origin)
        self._workers.note_look(worker_url, look.health)
        return look

    async def _look(self, worker_url: str, timeout_s: float, origin: str | None) -> Look:
        timeout = ClientTimeout(total=timeout_s)
        headers = {} if origin is None else {"Origin": origin}
        try:
            async with self._session.get(
                f"{worker_url}/health", headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return await _read_look(response, origin)
        except TimeoutError:
            return Look("silent")
        except ClientError as error:
            return Look("unreachable", detail=reason_of(error))

    async def knows_our_signature(self, worker_url: str, timeout_s: float) -> bool | None:
        """Whether the worker's JWT_SECRET is ours; None when it does not say.

        It is shown a token for nothing, which costs it no call to Telegram: who knows the signature
        answers that it is for another file (403), who does not that it is no token (401).
        """
        headers = {"Authorization": f"Bearer {probe_token(self._secret, time.time())}"}
        try:
            async with self._session.get(
                f"{worker_url}/stream/-1/1",
                headers=headers,
                timeout=ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                code = (await read_json(response))["error"]["code"]
        except (ClientError, TimeoutError, *MALFORMED):
            return None
        verdict = {"token_for_another_file": True, "token_expired": True, "token_invalid": False}
        if verdict.get(code) is False:
            self._workers.note_refusal(worker_url)
        elif code in verdict:
            self._workers.note_agreement(worker_url)
        return verdict.get(code)


WORKER_CLIENT: Final = web.AppKey("WORKER_CLIENT", WorkerClient)


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
    if response.status in REDIRECTS:
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


async def _read_look(response: ClientResponse, origin: str | None) -> Look:
    date = date_of(response.headers.get("Date"))
    if response.status in REDIRECTS:
        return Look("redirects", detail=_origin(response.headers.get("Location", "")), date=date)
    if response.status in ASLEEP_STATUSES:
        return Look("silent", date=date)
    what = f"{clean_line(response.content_type)}, status {response.status}"
    foreign = Look("foreign", detail=what, date=date)
    if response.status != 200:
        return foreign
    try:
        health = Health.from_answer(await read_json(response, HEALTH_BYTES_MAX))
    except MALFORMED:
        return foreign
    allowed = response.headers.get("Access-Control-Allow-Origin")
    lets_us_read = None if origin is None else allowed in ("*", origin)
    return Look("worker", health, date=date, lets_us_read=lets_us_read)


def _origin(location: str) -> str:
    """Where a redirect leads, without what else is in it; empty if it stays on its host."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    is_elsewhere = parts.scheme in ("http", "https") and parts.hostname
    return clean_line(f"{parts.scheme}://{parts.netloc}") if is_elsewhere else ""
