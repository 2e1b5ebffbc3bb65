"""The arguments of a Bot API call: how they come in, and what is told when they are wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from aiohttp import web

from .bot_updates import ApiError

Arguments = Mapping[str, str]


def refuse(code: int, description: str) -> NoReturn:
    raise ApiError(code, description)


async def read_arguments(request: web.Request) -> dict[str, str]:
    """The arguments of a call as strings, from the query and from the body; the body wins."""
    arguments = dict(request.query)
    if request.content_type == "application/json":
        try:
            body = await request.json()
        except ValueError:
            refuse(400, "Bad Request: can't parse JSON object")
        if not isinstance(body, dict):
            refuse(400, "Bad Request: can't parse JSON object")
        for name, value in body.items():
            arguments[name] = value if isinstance(value, str) else json.dumps(value)
    elif request.can_read_body:
        form = await request.post()
        arguments |= {name: value for name, value in form.items() if isinstance(value, str)}
    return arguments


def number(arguments: Arguments, name: str, default: int) -> int:
    text = arguments.get(name, "")
    # Telegram reads what is no number as if it was not there.
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else default


def truth(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes", "on")


def names(text: str) -> tuple[str, ...]:
    """A JSON list of update kinds; anything else means the default, which is all of them."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        refuse(400, "Bad Request: can't parse allowed updates JSON object")
    return tuple(str(name) for name in found) if isinstance(found, list) else ()


def json_argument(arguments: Arguments, name: str, described: str) -> Any:
    """An argument that is JSON itself; None when it is not there. Raises ApiError."""
    text = arguments.get(name, "").strip()
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        refuse(400, f"Bad Request: can't parse {described} JSON object")
