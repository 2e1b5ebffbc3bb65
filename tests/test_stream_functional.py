"""What a viewer gets from /stream: the right bytes, the right headers, for every kind of request.

Method: a worker on the pocket Telegram, real sockets on both sides; every body is compared with the
content made from its own offset.
"""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from conftest import Stage

from telegram_simulator.content import SyntheticContent

MIB = 1 << 20
SIZE = 5 * MIB + 12_345

Viewer = TestClient[Any, Any]


async def test_a_whole_film_arrives_byte_for_byte(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(SIZE)
    response = await viewer.get(stage.path(post))
    assert response.status == 200
    assert response.headers["Content-Length"] == str(SIZE)
    assert await response.read() == SyntheticContent(SIZE, 7).read(0, SIZE)
    assert stage.served(post) == SIZE
