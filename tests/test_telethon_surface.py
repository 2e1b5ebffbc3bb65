"""What the gateway uses of Telethon beyond its documented interface, each by name.

An upgrade that changes one of them fails here first, with a name, and not in the middle of a film.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import worker
from telethon import errors
from telethon.crypto import rsa
from telethon.network import ConnectionTcpAbridged, MTProtoSender
from telethon.network.connection.tcpabridged import AbridgedPacketCodec
from telethon.sessions import StringSession


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_a_sender_is_made_connected_and_asked_as_the_gateway_does() -> None:
    made_with = parameters(MTProtoSender.__init__)
    for name in (
        "auth_key",
        "loggers",
        "retries",
        "delay",
        "auto_reconnect",
        "connect_timeout",
        "updates_queue",
    ):
        assert name in made_with
    assert inspect.iscoroutinefunction(MTProtoSender.connect)
    assert inspect.iscoroutinefunction(MTProtoSender.disconnect)
    assert not inspect.iscoroutinefunction(MTProtoSender.send)
    assert callable(MTProtoSender.is_connected)
    assert isinstance(inspect.getattr_static(MTProtoSender, "disconnected"), property)
    assert "auth_key" in vars(MTProtoSender(None, loggers=worker._TelethonLoggers()))


def test_a_connection_is_made_as_the_gateway_does() -> None:
    assert parameters(ConnectionTcpAbridged.__init__)[1:5] == ["ip", "port", "dc_id", "loggers"]
    assert inspect.iscoroutinefunction(ConnectionTcpAbridged.disconnect)


def test_keys_are_added_and_read_as_settings_do() -> None:
    assert parameters(rsa.add_key) == ["pub", "old"]
    assert callable(rsa.rsa.PublicKey.load_pkcs1)
    assert callable(rsa.rsa.PublicKey.load_pkcs1_openssl_pem)


def test_a_session_string_says_where_home_is() -> None:
    session = StringSession()
    for name in ("dc_id", "server_address", "port", "auth_key"):
        assert hasattr(session, name)


def test_a_codec_reads_packets_for_its_connection() -> None:
    """The worker's own reads the same framing and tells the connection of every piece."""
    assert parameters(AbridgedPacketCodec.read_packet) == ["self", "reader"]
    connection = object()
    assert AbridgedPacketCodec(connection)._conn is connection
    assert ConnectionTcpAbridged.packet_codec is AbridgedPacketCodec


def test_a_connection_has_a_writer_whose_transport_can_be_aborted() -> None:
    loggers = worker._TelethonLoggers()
    assert ConnectionTcpAbridged("127.0.0.1", 1, 2, loggers=loggers)._writer is None
    assert "self._reader, self._writer = " in inspect.getsource(ConnectionTcpAbridged._connect)


@pytest.mark.parametrize(
    "group",
    [
        worker._FLOODS,
        worker._STALE_REFERENCES,
        worker._FILE_MOVES,
        worker._BOT_MOVES,
        worker._LOGIN_REFUSALS,
        worker._KEY_REFUSALS,
        worker._CHANNEL_REFUSALS,
        worker._PASSING_TROUBLE,
    ],
)
def test_every_translated_error_is_one_of_telethons(group: tuple[type[Exception], ...]) -> None:
    """Their names are looked up when the worker is loaded, so a missing one is told at once."""
    assert all(issubclass(each, Exception) for each in group)
    assert all(getattr(errors, each.__name__) is each for each in group)


def test_a_wait_and_a_migration_carry_their_number() -> None:
    assert errors.FloodWaitError(request=None, capture=7).seconds == 7
    assert errors.FloodPremiumWaitError(request=None, capture=7).seconds == 7
    assert errors.FileMigrateError(request=None, capture=4).new_dc == 4
    assert errors.UserMigrateError(request=None, capture=4).new_dc == 4
