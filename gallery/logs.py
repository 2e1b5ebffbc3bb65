"""Logs: one record, one line, without secrets, whatever others sent us.

2026-11-23 20:15:00,123 INFO GET /api/files -> 200 in 3 ms
"""

import logging
import re
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
_TOKEN: Final = re.compile(r"eyJ[\w-]*\.[\w-]*\.[\w-]*", re.ASCII)  # a JWT: '{"', base64


class SafeFormatter(logging.Formatter):
    """Cuts out these secrets and every token, in tracebacks too, which quote what went wrong."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(FORMAT)
        self._secrets = tuple(secret for secret in secrets if secret)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"  {_printable(line)}" for line in lines)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return _TOKEN.sub("…", text)


def set_up_logs(secrets: Iterable[str]) -> None:
    """Write to stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("aiohttp.server").addFilter(_shorten)


def _printable(text: str) -> str:
    """What strangers send must neither look like a line of ours nor drive a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _shorten(record: logging.LogRecord) -> bool:
    """Of what is no HTTP aiohttp logs a traceback and the offending line with all that is in it."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg += ": " + type(error).__name__
    return True
