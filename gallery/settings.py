"""Settings: every environment variable, read once, all problems reported together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from aiohttp import web

JWT_SECRET_MIN_BYTES: Final = 32  # RFC 7518 section 3.2: a key of the same size as the hash output
SECRET_NAMES: Final = ("BOT_TOKEN", "JWT_SECRET", "GALLERY_PASSWORD")
JWT_SECRETS_MAX: Final = 2  # the one that signs, and the one before it
PASSWORD_MIN_CHARACTERS: Final = 8  # NIST SP 800-63B section 5.1.1
USER_ID_MAX: Final = 2**52  # core.telegram.org/bots/api#user: at most 52 significant bits
_BOT_TOKEN: Final = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")
_FRAME_SOURCE: Final = re.compile(r"(https?://)?(\*\.)?[A-Za-z0-9.-]+(:([0-9]{1,5}|\*))?")


class SettingsError(Exception):
    """Settings are missing or wrong. `problems` names them all and repeats none of their values."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Settings:
    """What the environment says; `from_env` is the only way in."""

    bot_token: str = field(repr=False)
    jwt_secrets: tuple[str, ...] = field(repr=False)  # the first signs, all are believed
    worker_urls: tuple[str, ...]
    channels: tuple[int, ...]
    gallery_password: str | None = field(repr=False)
    bot_api_url: str
    public_url: str | None
    host: str
    port: int
    database: str
    frame_ancestors: str  # as Content-Security-Policy wants it
    small_files: str  # proxy: through us; direct: the owner gets Telegram's URL, token and all
    owner_ids: tuple[int, ...]  # people at Telegram whom the bot answers
    channel_links: str  # owners: /link in a channel is answered in private; channel: there
    on_render: bool

    @property
    def jwt_secret(self) -> str:
        """The secret that signs."""
        return self.jwt_secrets[0]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read everything; raise SettingsError with every problem found."""
        env = _Environment(environ)
        env.read_secret_files()
        password = env.password("GALLERY_PASSWORD")
        settings = cls(
            bot_token=env.bot_token("BOT_TOKEN"),
            jwt_secrets=env.secrets("JWT_SECRET"),
            worker_urls=tuple(
                dict.fromkeys(env.url("WORKER_URL", url) for url in env.required_list("WORKER_URL"))
            ),
            channels=tuple(env.integer("CHANNELS", chat) for chat in env.required_list("CHANNELS")),
            gallery_password=password,
            bot_api_url=env.url("BOT_API_URL", env.text("BOT_API_URL", "https://api.telegram.org")),
            public_url=env.optional_url("PUBLIC_URL", env.text("RENDER_EXTERNAL_URL")),
            host=env.host("HOST", open_to_all="GALLERY_PASSWORD" in env),
            port=env.port("PORT", "8080"),
            database=env.text("DATABASE", ":memory:"),
            frame_ancestors=env.frame_ancestors("FRAME_ANCESTORS", "*"),
            small_files=env.choice("SMALL_FILES", ("proxy", "direct")),
            owner_ids=env.user_ids("OWNER_IDS"),
            channel_links=env.choice("CHANNEL_LINKS", ("owners", "channel")),
            on_render="RENDER_EXTERNAL_URL" in env,
        )
        if env.problems:
            raise SettingsError(list(dict.fromkeys(env.problems)))
        return settings


class _Environment:
    """Reads one variable after another and collects what is wrong with them, by name only."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def read_secret_files(self) -> None:
        """Take secrets from files where NAME_FILE names one, as systemd and Docker do it."""
        found = {}
        for name in SECRET_NAMES:
            path = self.text(f"{name}_FILE")
            if path and name in self:
                self.problems.append(f"{name}_FILE is given beside {name}; one will do")
            elif path:
                try:
                    found[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
                except (OSError, ValueError):
                    self.problems.append(f"{name}_FILE cannot be read")
        self._environ = {**self._environ, **found} if found else self._environ

    def __contains__(self, name: str) -> bool:
        return bool(self.text(name))

    def text(self, name: str, default: str = "") -> str:
        return self._environ.get(name, "").strip() or default

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            self.problems.append(f"{name} is missing")
        return value

    def required_list(self, name: str) -> list[str]:
        value = self.required(name)
        items = [item.strip() for item in value.split(",") if item.strip()]
        if value and not items:
            self.problems.append(f"{name} is missing")
        return items

    def bot_token(self, name: str) -> str:
        """The first of a pool: the worker uses them all, the backend needs one."""
        tokens = self.required_list(name)
        if not all(_BOT_TOKEN.fullmatch(token) for token in tokens):
            self.problems.append(f"{name} is not like 123456:letters (or several with commas)")
        return tokens[0] if tokens else ""

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, choices[0])
        if value not in choices:
            self.problems.append(f"{name} is not one of {', '.join(choices)}")
        return value

    def secrets(self, name: str) -> tuple[str, ...]:
        """The secret, and after a comma the old one that is still believed."""
        values = split_secrets(self.required(name))
        if values[0] and len(values[0].encode()) < JWT_SECRET_MIN_BYTES:
            self.problems.append(f"{name} is shorter than {JWT_SECRET_MIN_BYTES} bytes")
        if len(values) > JWT_SECRETS_MAX:
            self.problems.append(f"{name} holds more than {JWT_SECRETS_MAX} secrets")
        return values

    def password(self, name: str) -> str | None:
        value = self.text(name) or None
        if value is not None and len(value) < PASSWORD_MIN_CHARACTERS:
            self.problems.append(f"{name} is shorter than {PASSWORD_MIN_CHARACTERS} characters")
        return value

    def integer(self, name: str, value: str) -> int:
        try:
            return int(value)
        except ValueError:
            self.problems.append(f"{name} is not a whole number (or several with commas between)")
            return 0

    def user_ids(self, name: str) -> tuple[int, ...]:
        """People's ids at Telegram, which are positive; channels' and groups' are not."""
        items = [item.strip() for item in self.text(name).split(",") if item.strip()]
        numbers = [int(item) if re.fullmatch("[0-9]{1,16}", item) else 0 for item in items]
        if not all(0 < number < USER_ID_MAX for number in numbers):
            self.problems.append(f"{name} is not a person's id, such as 123456789 (or several)")
        return tuple(dict.fromkeys(numbers))

    def port(self, name: str, default: str) -> int:
        port = self.integer(name, self.text(name, default))
        if not 0 <= port <= 65535:
            self.problems.append(f"{name} is not between 0 and 65535")
        return port

    def url(self, name: str, value: str) -> str:
        try:
            parts = urlsplit(value)
            extras = parts.username or parts.password or parts.query or parts.fragment
            well_formed = bool(parts.scheme in ("http", "https") and parts.hostname and not extras)
            well_formed = well_formed and parts.port != 0  # reading a bad port raises ValueError
        except ValueError:
            well_formed = False
        if not well_formed:
            self.problems.append(f"{name} is not an http or https URL")
        return value.rstrip("/")

    def optional_url(self, name: str, default: str) -> str | None:
        value = self.text(name, default)
        return self.url(name, value) if value else None

    def frame_ancestors(self, name: str, default: str) -> str:
        """Sources for CSP's frame-ancestors (CSP 3 section 6.4.2): `*`, `none`, `self` or sites."""
        # CSP wants its keywords in quotes and takes a bare `self` for the name of a host.
        quoted = {"none": "'none'", "self": "'self'"}
        items = [item.strip().strip("'") for item in self.text(name, default).split(",")]
        if not all(item == "*" or _FRAME_SOURCE.fullmatch(item) for item in items):
            self.problems.append(f"{name} is not *, none, self, or sites with commas between")
        return " ".join(quoted.get(item, item) for item in items)

    def host(self, name: str, *, open_to_all: bool) -> str:
        """Without a password the gallery is for this machine only, whatever HOST says."""
        host = self.text(name, "0.0.0.0" if open_to_all else "127.0.0.1")
        if not open_to_all and not is_loopback(host):
            self.problems.append(
                f"{name} opens the gallery to others, which needs a GALLERY_PASSWORD"
                " (without one leave it empty or at 127.0.0.1)"
            )
        return host


def split_secrets(text: str) -> tuple[str, ...]:
    """The secrets in a text with commas between, as the worker reads it.

    A comma with less than a secret beside it is part of one secret.
    """
    secrets = tuple(text.split(","))
    is_list = all(len(secret.encode()) >= JWT_SECRET_MIN_BYTES for secret in secrets)
    return secrets if is_list else (text,)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


SETTINGS: Final = web.AppKey("SETTINGS", Settings)
