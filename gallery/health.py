"""Health: whether the process serves, for the host's check and for people."""

import time
from typing import Final

from aiohttp import web

from gallery import __version__

STARTED: Final = web.AppKey("STARTED", float)


async def health(request: web.Request) -> web.Response:
    """GET /health: 200 as soon as the process serves, whatever the worker does."""
    uptime_s = round(time.monotonic() - request.app[STARTED], 1)
    body = {"status": "ok", "version": __version__, "uptime_s": uptime_s}
    return web.json_response(body, headers={"Cache-Control": "no-store"})
