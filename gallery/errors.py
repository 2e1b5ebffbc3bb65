"""Errors: one type, which knows its status and its code."""

import math
from typing import Final

from aiohttp import web

RETRY_AFTER_S: Final = 3


class ApiError(Exception):
    """An error with an answer: JSON for scripts, a page for people."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    def response(self) -> web.Response:
        """The answer as JSON, never to be cached."""
        body = {"error": {"code": self.code, "message": self.message}}
        headers = {"Cache-Control": "no-store"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return web.json_response(body, status=self.status, headers=headers)


def worker_unreachable() -> ApiError:
    return ApiError(
        503,
        "worker_unreachable",
        "The worker does not answer. On a free host waking up takes it up to a minute.",
        retry_after_s=RETRY_AFTER_S,
    )


def file_not_found() -> ApiError:
    return ApiError(404, "file_not_found", "There is no such file in this gallery's channels.")
