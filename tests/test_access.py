"""Section 3 of the worker: who may read what, and how long.

Method: a table of tokens through the pure function, and the same promises through real HTTP, where
a refused token must not cost a single call to Telegram.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import worker
from aiohttp.test_utils import TestClient
from conftest import JWT_SECRET, Stage, listing_token, make_token

Viewer = TestClient[Any, Any]
SUBJECT = "-1001500000001/2"
NOW = int(time.time())


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


CLAIMS = {"iss": "backend", "aud": "worker", "sub": SUBJECT, "iat": NOW, "exp": NOW + 3600}


def test_a_good_token_grants_its_subject() -> None:
    grant = worker.verify_token(make_token(SUBJECT), (JWT_SECRET,), time.time())
    assert grant == worker.Grant(SUBJECT, "file")
    grant = worker.verify_token(listing_token(-100), (JWT_SECRET,), time.time())
    assert grant == worker.Grant("-100", "list")


def test_a_token_is_good_to_its_last_second() -> None:
    token = make_token(SUBJECT)
    exp = jwt.decode(token, options={"verify_signature": False})["exp"]
    worker.verify_token(token, (JWT_SECRET,), exp - 1)
    with pytest.raises(worker.TokenExpired):
        worker.verify_token(token, (JWT_SECRET,), exp)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("nonsense", id="no JWT"),
        pytest.param("a.b.c", id="three letters"),
        pytest.param("ä.b.c", id="not ASCII"),
        pytest.param(
            make_token(SUBJECT, secret="another secret, also long enough"), id="signature"
        ),
        pytest.param(make_token(SUBJECT) + "A", id="trailing byte"),
        pytest.param(make_token(SUBJECT) + " ", id="trailing space"),
        pytest.param(make_token(SUBJECT)[:-1], id="cut short"),
        pytest.param(unsigned({"alg": "none", "typ": "JWT"}, CLAIMS), id="alg none"),
        pytest.param(jwt.encode(CLAIMS, JWT_SECRET * 2, algorithm="HS512"), id="HS512"),
        pytest.param(make_token(SUBJECT, aud="renewal"), id="another audience"),
        pytest.param(make_token(SUBJECT, aud=["worker", "other"]), id="several audiences"),
        pytest.param(make_token(SUBJECT, aud=None), id="no audience"),
        pytest.param(make_token(SUBJECT, iss="somebody"), id="another issuer"),
        pytest.param(make_token(SUBJECT, iss=None), id="no issuer"),
        pytest.param(make_token(SUBJECT, exp=None), id="no expiry"),
        pytest.param(make_token(SUBJECT, iat=None), id="no time of issue"),
        pytest.param(make_token(SUBJECT, exp=NOW + 3700), id="lives over an hour"),
        pytest.param(make_token(SUBJECT, iat=NOW + 7200, exp=NOW + 9000), id="from the future"),
        pytest.param(make_token(SUBJECT, scope="everything"), id="unknown scope"),
    ],
)
def test_a_bad_token_is_invalid(token: str) -> None:
    with pytest.raises(worker.TokenInvalid):
        worker.verify_token(token, (JWT_SECRET,), time.time())


def status_and_code(response: Any, body: dict[str, Any]) -> tuple[int, str]:
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    return response.status, body["error"]["code"]


async def ask(viewer: Viewer, path: str, **options: Any) -> tuple[int, str]:
    response = await viewer.get(path, **options)
    return status_and_code(response, await response.json())


async def test_no_token_bad_token_and_expired_token_are_three_codes(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(1000)
    bare = stage.path(post).partition("?")[0]
    expired = stage.path(post, iat=NOW - 3700, exp=NOW - 100)
    calls = stage.telegram.counters.methods.copy()
    assert await ask(viewer, bare) == (401, "token_missing")
    assert await ask(viewer, bare + "?token=nonsense") == (401, "token_invalid")
    assert await ask(viewer, expired) == (401, "token_expired")
    two = f"{bare}?token={stage.token(post)}&token={stage.token(post)}"
    assert await ask(viewer, two) == (401, "token_invalid")
    assert stage.telegram.counters.methods["channels.getMessages"] == 0
    assert calls["channels.getMessages"] == 0


async def test_a_token_opens_its_own_file_only(stage: Stage, viewer: Viewer) -> None:
    first, second = stage.post_synthetic(1000), stage.post_synthetic(1000)
    chat_id = stage.channel.chat_id
    for subject in (f"{chat_id}/{second.id}", f"{chat_id}", f"{chat_id}/{first.id}0", ""):
        path = f"/stream/{chat_id}/{first.id}?token={make_token(subject)}"
        assert await ask(viewer, path) == (403, "token_for_another_file")
    listing = f"/stream/{chat_id}/{first.id}?token={listing_token(chat_id)}"
    assert await ask(viewer, listing) == (403, "token_for_another_file")
    assert stage.telegram.counters.methods["channels.getMessages"] == 0


async def test_the_token_may_come_in_a_header(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(1000)
    bare = stage.path(post).partition("?")[0]
    response = await viewer.get(bare, headers={"Authorization": f"Bearer {stage.token(post)}"})
    assert response.status == 200
    assert await ask(viewer, bare, headers={"Authorization": "Basic YTpi"}) == (
        401,
        "token_missing",
    )


async def test_a_response_begun_in_time_runs_to_its_end(stage: Stage, viewer: Viewer) -> None:
    post = stage.post_synthetic(2_000_000)
    stage.telegram.trouble.bytes_per_second = 1_000_000
    response = await viewer.get(stage.path(post, iat=int(time.time()), exp=int(time.time()) + 1))
    assert len(await response.read()) == 2_000_000


# -- renewal grants ------------------------------------------------------------------------------


def grant(stage: Stage, subject: str, **claims: Any) -> str:
    wanted = {"aud": "renewal", "iat": None, "exp": int(time.time()) + 7200, **claims}
    return make_token(subject, **wanted)


async def test_an_expired_token_with_a_grant_is_sent_to_a_fresh_one(
    stage: Stage, viewer: Viewer
) -> None:
    post = stage.post_synthetic(1000)
    subject = f"{stage.channel.chat_id}/{post.id}"
    expired = stage.path(post, iat=NOW - 3700, exp=NOW - 100)
    path = f"{expired}&renew={grant(stage, subject)}&download=1"
    response = await viewer.get(path, headers={"Range": "bytes=0-4"}, allow_redirects=False)
    assert response.status == 307
    assert response.headers["Cache-Control"] == "no-store"
    location = urlsplit(response.headers["Location"])
    assert (location.scheme, location.netloc) == ("", "")
    assert location.path == path.partition("?")[0]
    query = parse_qs(location.query)
    assert query["download"] == ["1"]
    assert query["renew"] == [grant(stage, subject)] or "renew" in query
    claims = jwt.decode(query["token"][0], JWT_SECRET, ["HS256"], audience="worker")
    assert claims["exp"] - claims["iat"] == 3600
    followed = await viewer.get(path, headers={"Range": "bytes=0-4"})
    assert followed.status == 206
    assert len(await followed.read()) == 5


async def test_a_renewed_token_never_outlives_its_grant(stage: Stage, viewer: Viewer) -> None:
    soon = int(time.time()) + 60
    token = worker.renewed_token(
        grant(stage, SUBJECT, exp=soon), SUBJECT, (JWT_SECRET,), time.time()
    )
    assert jwt.decode(token, JWT_SECRET, ["HS256"], audience="worker")["exp"] == soon


async def test_a_grant_opens_no_bytes_and_renews_its_own_file_only(
    stage: Stage, viewer: Viewer
) -> None:
    post, other = stage.post_synthetic(1000), stage.post_synthetic(1000)
    chat_id = stage.channel.chat_id
    mine, others = (grant(stage, f"{chat_id}/{each.id}") for each in (post, other))
    bare = stage.path(post).partition("?")[0]
    expired = stage.path(post, iat=NOW - 3700, exp=NOW - 100)
    dead = grant(stage, f"{chat_id}/{post.id}", exp=NOW - 1)
    eternal = grant(stage, f"{chat_id}/{post.id}", exp=NOW + 14 * 3600)
    assert await ask(viewer, f"{bare}?token={mine}") == (401, "token_invalid")
    assert await ask(viewer, f"{bare}?renew={mine}") == (401, "token_missing")
    assert await ask(viewer, f"{bare}?token=bad&renew={mine}") == (401, "token_invalid")
    assert await ask(viewer, f"{expired}&renew={others}") == (403, "token_for_another_file")
    assert await ask(viewer, f"{expired}&renew={dead}") == (401, "token_expired")
    assert await ask(viewer, f"{expired}&renew={eternal}") == (401, "token_invalid")
    assert await ask(viewer, f"{expired}&renew={stage.token(post)}") == (401, "token_invalid")
    foreign = stage.path(post, iat=NOW - 3700, exp=NOW - 100).replace(
        f"/{post.id}?", f"/{other.id}?"
    )
    assert await ask(viewer, f"{foreign}&renew={mine}") == (403, "token_for_another_file")
