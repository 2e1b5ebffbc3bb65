"""A door for tests that run the simulator as a process: look at the counts, make trouble.

It hangs on the Bot API's server and opens to this machine only.

    GET  /simulator/counters            what was asked and served, as JSON
    POST /simulator/counters/reset
    GET  /simulator/posts               channels and posts, with the ids of their files and of
                                        what Telegram made of them
    POST /simulator/trouble             any of {"round_trip_s": 0.08, "bytes_per_second": 5e6,
                                        "down": [4], "silent": [4], "clock_ahead_s": 600,
                                        "faults": [{"kind": "cut_during", ...}]};
                                        a fault has the fields of `faults.Fault`; "faults" adds
                                        to the plan, an empty list empties it
    POST /simulator/expire-references   {"file_ids": [...]}, or {} for every file
    POST /simulator/drop-connections    {"dc_id": 2}, or {} for every data centre

People write to bots, and bots answer, under further names: see control_people.py.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args

from aiohttp import web

from .control_people import people_routes
from .faults import Counters, Fault, FaultKind, Trouble
from .world import Channel, Document, Post, World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Action = Callable[[int | None], None]
"""Something done to one data centre, or, for None, to all."""


def add_routes(
    app: web.Application,
    world: World,
    trouble: Trouble,
    counters: Counters,
    actions: Mapping[str, Action],
) -> None:
    """Hang the door on an application; `actions` are further names and what they do."""

    async def get_counters(_request: web.Request) -> web.Response:
        return web.json_response(count_report(counters))

    async def reset_counters(_request: web.Request) -> web.Response:
        counters.reset()
        return web.json_response({"ok": True})

    async def get_posts(_request: web.Request) -> web.Response:
        return web.json_response([_channel(channel) for channel in world.channels.values()])

    async def make_trouble(request: web.Request) -> web.Response:
        apply_trouble(trouble, await _object(request))
        return web.json_response({"ok": True})

    async def expire_references(request: web.Request) -> web.Response:
        wanted = (await _object(request)).get("file_ids")
        everything = [post.media.id for post in _posts(world) if post.media is not None]
        for file_id in everything if wanted is None else wanted:
            world.expire_references(int(file_id))
        return web.json_response({"ok": True})

    for name, action in actions.items():
        app.router.add_post(f"/simulator/{name}", _local(_handler(action)))
    app.router.add_get("/simulator/counters", _local(get_counters))
    app.router.add_post("/simulator/counters/reset", _local(reset_counters))
    app.router.add_get("/simulator/posts", _local(get_posts))
    app.router.add_post("/simulator/trouble", _local(make_trouble))
    app.router.add_post("/simulator/expire-references", _local(expire_references))
    for method, name, handler in people_routes(world, _object):
        app.router.add_route(method, f"/simulator/{name}", _local(handler))


def _handler(action: Action) -> Handler:
    async def act(request: web.Request) -> web.Response:
        dc_id = (await _object(request)).get("dc_id")
        try:
            action(None if dc_id is None else int(dc_id))
        except (KeyError, TypeError, ValueError):
            raise web.HTTPBadRequest(text="no such data centre\n") from None
        return web.json_response({"ok": True})

    return act


def count_report(counters: Counters) -> dict[str, Any]:
    """The counters as JSON; `files` is keyed by file id, `downloads` are those of the Bot API."""
    return {
        "methods": dict(counters.methods),
        "errors": dict(counters.errors),
        "connections": {str(dc_id): count for dc_id, count in counters.connections.items()},
        "files": {
            str(file_id): dataclasses.asdict(count) for file_id, count in counters.files.items()
        },
        "downloads": {str(file_id): count for file_id, count in counters.downloads.items()},
        "bytes_served": counters.bytes_served(),
    }


def apply_trouble(trouble: Trouble, wanted: dict[str, Any]) -> None:
    """Change what is named, after all of it was found good. Raises HTTPBadRequest."""
    try:
        known = {
            *("round_trip_s", "bytes_per_second", "down", "silent", "clock_ahead_s", "faults"),
        }
        if unknown := wanted.keys() - known:
            raise ValueError(f"no such trouble: {', '.join(sorted(unknown))}")
        round_trip_s = _positive(wanted.get("round_trip_s", trouble.round_trip_s))
        rate = wanted.get("bytes_per_second", trouble.bytes_per_second)
        rate = None if not rate else _positive(rate)
        down = {int(dc_id) for dc_id in wanted.get("down", trouble.down)}
        silent = {int(dc_id) for dc_id in wanted.get("silent", trouble.silent)}
        clock_ahead_s = _number(wanted.get("clock_ahead_s", trouble.clock_ahead_s))
        faults = [Fault(**fault) for fault in wanted.get("faults", ())]
        if any(fault.kind not in get_args(FaultKind) for fault in faults):
            raise ValueError(f"a fault's kind is one of {', '.join(get_args(FaultKind))}")
    except (TypeError, ValueError) as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None
    trouble.round_trip_s, trouble.bytes_per_second = round_trip_s, rate
    trouble.down, trouble.silent, trouble.clock_ahead_s = down, silent, clock_ahead_s
    if "faults" in wanted and not faults:
        trouble.faults.clear()
    trouble.faults.extend(faults)


def _positive(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError("numbers are not negative")
    return number


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("numbers are finite")
    return number


def _local(handler: Handler) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        address = ipaddress.ip_address(request.remote or "0.0.0.0")
        if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
            raise web.HTTPForbidden(text="this door opens to this machine only\n")
        return await handler(request)

    return guarded


async def _object(request: web.Request) -> dict[str, Any]:
    if not request.can_read_body:
        return {}
    # A web page can POST here without asking, but not with this content type.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="application/json, please\n")
    try:
        body = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text="that is no JSON\n") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="a JSON object, please\n")
    return body


def _posts(world: World) -> list[Post]:
    return [post for channel in world.channels.values() for post in channel.posts.values()]


def _channel(channel: Channel) -> dict[str, Any]:
    posts = [
        {
            "message_id": post.id,
            "text": post.text,
            "file_id": post.media.id if post.media else None,
            "dc_id": post.media.dc_id if post.media else None,
            "grouped_id": post.grouped_id,
            "reply_to": post.reply_to,
            "alternatives": _alternatives(post),
        }
        for post in channel.posts.values()
    ]
    return {"chat_id": channel.chat_id, "title": channel.title, "posts": posts}


def _alternatives(post: Post) -> list[dict[str, Any]]:
    """What Telegram made of a film: qualities, playlists, storyboards."""
    documents = post.media.alternatives if isinstance(post.media, Document) else ()
    return [
        {
            "file_id": document.id,
            "dc_id": document.dc_id,
            "mime_type": document.mime_type,
            "file_name": document.file_name,
            "size": document.content.size,
            "width": document.width,
            "height": document.height,
            "video_codec": document.video_codec,
        }
        for document in documents
    ]
