"""Section 1 of the worker: settings are read once and checked together, and stay unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
import worker
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gallery.settings import Settings as GallerySettings
from gallery.settings import SettingsError as GallerySettingsError

GOOD = {
    "API_ID": "12345",
    "API_HASH": "0123456789abcdef0123456789abcdef",
    "BOT_TOKEN": "123456:secret-of-one, 123457:secret-of-two",
    "JWT_SECRET": "0123456789abcdef0123456789abcdef",
}


def problems(**changes: str) -> list[str]:
    with pytest.raises(worker.SettingsError) as caught:
        worker.Settings.from_env({**GOOD, **changes})
    return [problem.partition(":")[0] for problem in caught.value.problems]


def test_defaults_are_those_of_the_contract() -> None:
    settings = worker.Settings.from_env(GOOD)
    assert settings.bot_tokens == ("123456:secret-of-one", "123457:secret-of-two")
    assert (settings.host, settings.port) == ("0.0.0.0", 10000)
    assert settings.allowed_origins == ("*",)
    assert settings.memory_budget_mb == 64
    assert (settings.in_flight_min_mb, settings.in_flight_max_mb) == (1, 4)
    assert settings.telegram == worker.TELEGRAM


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(worker.SettingsError) as caught:
        worker.Settings.from_env({})
    names = [problem.partition(":")[0] for problem in caught.value.problems]
    assert names == ["API_ID", "API_HASH", "BOT_TOKEN", "JWT_SECRET"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_ID", "abc"),
        ("API_ID", "0"),
        ("API_HASH", "not a hash"),
        ("BOT_TOKEN", "no-colon"),
        ("BOT_TOKEN", "123:a,,nonsense"),
        ("BOT_TOKEN", "123:a,123:b"),
        ("JWT_SECRET", "x" * 31),
        ("SESSION_STRING", "nonsense"),
        ("SESSION_STRING", "1abc"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("MEMORY_BUDGET_MB", "0"),
        ("IN_FLIGHT_MIN_MB", "0"),
        ("IN_FLIGHT_MAX_MB", "65"),
        ("ALLOWED_ORIGINS", "films.example"),
        ("ALLOWED_ORIGINS", "https://films.example/path"),
        ("TELEGRAM_DC_KEY", "/nowhere"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(name: str, value: str) -> None:
    assert name in problems(**{name: value})
    with pytest.raises(worker.SettingsError) as caught:
        worker.Settings.from_env({**GOOD, name: value})
    if len(value) > 4:
        assert value not in str(caught.value)


@pytest.mark.parametrize("form", ["PKCS1", "SubjectPublicKeyInfo"])
def test_a_data_centre_key_may_have_either_pem_form(tmp_path: Path, form: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, getattr(serialization.PublicFormat, form))
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    environ = {**GOOD, "TELEGRAM_DC": "2@127.0.0.1:4430", "TELEGRAM_DC_KEY": str(path)}
    settings = worker.Settings.from_env(environ)
    assert settings.telegram == worker.DataCentre(2, "127.0.0.1", 4430)
    assert settings.telegram_key_pem is not None
    assert b"BEGIN RSA PUBLIC KEY" in settings.telegram_key_pem
    assert worker.read_rsa_public_key(settings.telegram_key_pem) == settings.telegram_key_pem


@pytest.mark.parametrize("pem", [b"", b"rubbish", b"-----BEGIN RSA PUBLIC KEY-----\nAAAA\n"])
def test_a_broken_key_file_is_named(tmp_path: Path, pem: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    assert problems(TELEGRAM_DC="2@127.0.0.1:443", TELEGRAM_DC_KEY=str(path)) == ["TELEGRAM_DC_KEY"]


@pytest.mark.parametrize("text", ["127.0.0.1:443", "2@host", "2@host:0", "2@host:70000", "x@h:1"])
def test_a_broken_data_centre_is_named(text: str) -> None:
    assert "TELEGRAM_DC" in problems(TELEGRAM_DC=text)


def test_secrets_may_be_in_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(GOOD["JWT_SECRET"] + "\n")
    environ = {name: value for name, value in GOOD.items() if name != "JWT_SECRET"}
    settings = worker.Settings.from_env({**environ, "JWT_SECRET_FILE": str(path)})
    assert settings.jwt_secrets == (GOOD["JWT_SECRET"],)
    backend = {"WORKER_URL": "http://w", "CHANNELS": "-100", "BOT_TOKEN": "1:a"}
    gallery = GallerySettings.from_env({**backend, "JWT_SECRET_FILE": str(path)})
    assert gallery.jwt_secret == GOOD["JWT_SECRET"]
    with pytest.raises(GallerySettingsError, match="JWT_SECRET_FILE"):
        GallerySettings.from_env({**backend, "JWT_SECRET_FILE": "/nowhere"})


def test_a_secret_file_that_is_one_too_many_or_unreadable_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("123:abc")
    assert problems(BOT_TOKEN_FILE=str(path)) == ["BOT_TOKEN_FILE"]
    assert problems(API_HASH="", API_HASH_FILE=str(tmp_path / "none"))[0] == "API_HASH_FILE"
    path.write_bytes(b"\xff\xfe")
    assert problems(API_HASH="", API_HASH_FILE=str(path))[0] == "API_HASH_FILE"


def test_secrets_are_not_in_the_representation() -> None:
    text = repr(worker.Settings.from_env(GOOD))
    for secret in (GOOD["API_HASH"], GOOD["JWT_SECRET"], "secret-of-one"):
        assert secret not in text
