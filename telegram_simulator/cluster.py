"""The pocket Telegram as Python sees it: several data centres over one world, in one process."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from telethon.crypto import AuthKey as TelethonKey
from telethon.sessions import StringSession

from .data_centre import DataCentre, Shared
from .faults import Counters, Trouble
from .handshake import ServerKey
from .session import AuthKey
from .world import Bot, World

DC_IDS = (1, 2, 4)
KEY_BYTES = 256
API_ID = 12345
API_HASH = "0123456789abcdef0123456789abcdef"
"""Any number and any text log in here; these are what `environment` hands out."""


class TelegramSimulator:
    """A Telegram on this machine. Use it as `async with TelegramSimulator() as telegram:`.

    Fill `world` before or while it runs, make `trouble`, and read `counters`. Clients need the
    `address` of their home data centre and the key that `write_key` writes; the addresses of
    the others they ask for (help.getConfig). `dc_ids` are those of the world, or 1, 2 and 4;
    `ports` fixes ports, which are otherwise free ones.
    """

    def __init__(
        self,
        dc_ids: tuple[int, ...] | None = None,
        world: World | None = None,
        host: str = "127.0.0.1",
        ports: Mapping[int, int] | None = None,
        rsa_key_pem: bytes | None = None,
    ) -> None:
        self.world = world if world is not None else World(dc_ids or DC_IDS)
        self.trouble = Trouble()
        self.counters = Counters()
        self._key = ServerKey(rsa_key_pem)
        self._shared = Shared(self.world, self.trouble, self.counters, self._key)
        for dc_id in dc_ids or self.world.dc_ids:
            port = (ports or {}).get(dc_id, 0)
            self._shared.data_centres[dc_id] = DataCentre(dc_id, host, port, self._shared)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen in every data centre, or in none when one of them cannot."""
        try:
            for dc in self._shared.data_centres.values():
                await dc.start()
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close every connection and end every task."""
        for dc in self._shared.data_centres.values():
            await dc.stop()

    # -- what clients need to know -------------------------------------------------------------

    @property
    def rsa_public_pem(self) -> bytes:
        """The public half of the server key: PEM, PKCS#1."""
        return self._key.public_pem

    @property
    def rsa_private_pem(self) -> bytes:
        """What `rsa_key_pem` takes, for a Telegram with the same key tomorrow."""
        return self._key.private_pem

    @property
    def rsa_fingerprint(self) -> int:
        """By which clients choose among the keys that they know."""
        return self._key.fingerprint

    def write_key(self, path: Path) -> Path:
        path.write_bytes(self.rsa_public_pem)
        return path

    def address(self, dc_id: int) -> tuple[str, int]:
        dc = self.data_centre(dc_id)
        return dc.host, dc.port

    def data_centre(self, dc_id: int) -> DataCentre:
        return self._shared.data_centres[dc_id]

    def environment(self, bot: Bot, key_path: Path) -> dict[str, str]:
        """The settings that point a worker and a backend at this Telegram, as this bot."""
        host, port = self.address(bot.home_dc)
        chat_ids = (channel.chat_id for channel in self.world.channels_of(bot))
        return {
            "API_ID": str(API_ID),
            "API_HASH": API_HASH,
            "BOT_TOKEN": bot.token,
            "TELEGRAM_DC": f"{bot.home_dc}@{host}:{port}",
            "TELEGRAM_DC_KEY": str(key_path),
            "CHANNELS": ",".join(map(str, chat_ids)),
        }

    def session_string(self, bot: Bot) -> str:
        """A Telethon StringSession of this bot, as it has one that logged in before."""
        home = self.data_centre(bot.home_dc)
        key = AuthKey(secrets.token_bytes(KEY_BYTES), salt=secrets.randbits(62), account=bot)
        home.add_key(key)
        session = StringSession()
        session.set_dc(home.id, home.host, home.port)
        session.auth_key = TelethonKey(key.secret)
        return str(session.save())

    # -- more trouble --------------------------------------------------------------------------

    def drop_connections(self, dc_id: int | None = None) -> None:
        """Cut every TCP connection to one data centre or to all; clients may come back."""
        for dc in self._chosen(dc_id):
            dc.drop_connections()

    def forget_keys(self, dc_id: int) -> None:
        """From now on the authorisation keys of this data centre are unknown (-404)."""
        self.data_centre(dc_id).forget_keys()

    def expire_authorisations(self, dc_id: int) -> None:
        """Log everybody out of one data centre; their keys stay (AUTH_KEY_UNREGISTERED)."""
        self.data_centre(dc_id).expire_authorisations()

    def change_salts(self, dc_id: int | None = None) -> None:
        """Server salts change every hour; this is the hour (bad_server_salt)."""
        for dc in self._chosen(dc_id):
            dc.change_salts()

    def _chosen(self, dc_id: int | None) -> Iterable[DataCentre]:
        centres = self._shared.data_centres
        return centres.values() if dc_id is None else (centres[dc_id],)
