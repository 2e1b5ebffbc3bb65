"""A new JWT_SECRET beside the old one: what was signed before is good for as long as it was.

Method: the same promises for both services, through real HTTP, with the two secrets in either
order, and with the old one taken away again.
"""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import worker
from conftest import JWT_SECRET, Stage, StartClient, make_token
from test_shares import PASSWORD, StartHouse, open_house  # noqa: F401 - fixtures

from gallery.settings import Settings, SettingsError, split_secrets

OLD = "the secret of yesterday: long enough too"
NEW = "the secret of tomorrow: long enough as well"
BOTH = f"{NEW},{OLD}"
WORKER = {"API_ID": "1", "API_HASH": "a", "BOT_TOKEN": "1:a"}
BACKEND = {"BOT_TOKEN": "1:a", "WORKER_URL": "http://w", "CHANNELS": "-100"}


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("x" * 32, ("x" * 32,)),
        (f"{'x' * 32},{'y' * 32}", ("x" * 32, "y" * 32)),
        (JWT_SECRET, (JWT_SECRET,)),  # has a comma, and less than a secret before it
        (f"{'x' * 40},old", (f"{'x' * 40},old",)),
    ],
    ids=["one", "two", "one with a comma", "a rest too short for a secret"],
)
def test_both_services_read_the_secrets_alike(text: str, secrets: tuple[str, ...]) -> None:
    assert worker.Settings.from_env({**WORKER, "JWT_SECRET": text}).jwt_secrets == secrets
    settings = Settings.from_env({**BACKEND, "JWT_SECRET": text})
    assert settings.jwt_secrets == split_secrets(text) == secrets
    assert settings.jwt_secret == secrets[0]


@pytest.mark.parametrize("text", ["short", f"{'x' * 30},", ",".join("abc" * 11 for _ in range(3))])
def test_secrets_that_are_too_short_or_too_many_are_refused(text: str) -> None:
    with pytest.raises(worker.SettingsError, match="JWT_SECRET"):
        worker.Settings.from_env({**WORKER, "JWT_SECRET": text})
    with pytest.raises(SettingsError, match="JWT_SECRET"):
        Settings.from_env({**BACKEND, "JWT_SECRET": text})


@pytest.mark.parametrize("secrets", [(NEW, OLD), (OLD, NEW)])
async def test_the_worker_takes_tokens_of_both_secrets_and_of_no_third(
    stage: Stage, start_worker: StartClient, secrets: tuple[str, ...]
) -> None:
    viewer = await start_worker(jwt_secrets=secrets)
    post = stage.post_synthetic(1000)
    subject = f"{stage.channel.chat_id}/{post.id}"
    third = "neither the one nor the other secret"
    for secret, status in ((OLD, 200), (NEW, 200), (third, 401)):
        token = make_token(subject, secret)
        answer = await viewer.get(f"/stream/{subject}", params={"token": token})
        assert answer.status == status


async def test_a_grant_of_the_old_secret_is_renewed_by_the_new_one(
    stage: Stage, start_worker: StartClient
) -> None:
    viewer = await start_worker(jwt_secrets=(NEW, OLD))
    post, now = stage.post_synthetic(1000), int(time.time())
    subject = f"{stage.channel.chat_id}/{post.id}"
    query = {
        "token": make_token(subject, OLD, iat=now - 3700, exp=now - 100),
        "renew": make_token(subject, OLD, aud="renewal", iat=None, exp=now + 7200),
    }
    answer = await viewer.get(f"/stream/{subject}", params=query, allow_redirects=False)
    assert answer.status == 307
    token = parse_qs(urlsplit(answer.headers["Location"]).query)["token"][0]
    assert jwt.decode(token, NEW, ["HS256"], audience="worker")["sub"] == subject


async def test_links_and_sign_ins_outlast_a_new_secret_and_end_with_the_old_one(
    open_house: StartHouse,  # noqa: F811
    start_worker: StartClient,
    stage: Stage,
) -> None:
    worker_url = str((await start_worker(jwt_secrets=(NEW, OLD))).make_url("/"))
    old = await open_house(JWT_SECRET=OLD, WORKER_URL=worker_url)
    post = stage.post_synthetic(1000)
    link = (await old.make(post))["url"]
    cookies = {
        cookie.key: cookie.value
        for cookie in old.owner.session.cookie_jar.filter_cookies(old.owner.make_url("/")).values()
    }
    for secret, share_status, page_status in ((BOTH, 307, 200), (NEW, 404, 401)):
        house = await open_house(JWT_SECRET=secret, WORKER_URL=worker_url)
        assert (await house.go(urlsplit(link).path)).status == share_status
        answer = await house.visitor.get("/api/files", cookies=cookies)
        assert answer.status == page_status
    rotated = await open_house(JWT_SECRET=BOTH, WORKER_URL=worker_url)
    location = await rotated.location(urlsplit((await rotated.make(post))["url"]).path)
    jwt.decode(location.query["token"], NEW, ["HS256"], audience="worker")


async def test_links_to_small_files_outlast_a_new_secret(
    open_house: StartHouse,  # noqa: F811
    start_worker: StartClient,
    stage: Stage,
) -> None:
    worker_url = str((await start_worker(jwt_secrets=(NEW, OLD))).make_url("/"))
    house = await open_house(JWT_SECRET=BOTH, WORKER_URL=worker_url)
    subject = f"{stage.channel.chat_id}/7"
    claims = {"iss": "backend", "aud": "files", "sub": subject, "exp": int(time.time()) + 60}
    for secret, status in (
        (OLD, 404),
        (NEW, 404),
        ("a third one, long enough for this", 401),
    ):
        token = jwt.encode(claims, secret)
        answer = await house.visitor.get(f"/files/{subject}", params={"token": token})
        assert answer.status == status, await answer.text()
