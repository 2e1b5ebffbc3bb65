"""What the gateway uses of Telethon beyond its documented interface, each by name.

An upgrade that changes one of them fails here first, with a name, and not in the middle of a film.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import worker
from telethon import errors
from telethon.crypto import AuthKey, rsa
from telethon.extensions import BinaryReader
from telethon.extensions.messagepacker import MessagePacker
from telethon.network import MTProtoSender
from telethon.network.connection.tcpabridged import AbridgedPacketCodec
from telethon.network.mtprotoplainsender import MTProtoPlainSender
from telethon.network.mtprotostate import MSG_TOO_NEW_DELTA, MSG_TOO_OLD_DELTA, MTProtoState
from telethon.sessions import StringSession
from telethon.tl.core import RpcResult, TLMessage


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def sender() -> MTProtoSender:
    return MTProtoSender(None, loggers=worker._TelethonLoggers())


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
    assert parameters(MTProtoSender.send) == ["self", "request", "ordered"]
    assert not inspect.iscoroutinefunction(MTProtoSender.send)
    assert callable(MTProtoSender.is_connected)
    assert isinstance(inspect.getattr_static(MTProtoSender, "disconnected"), property)
    assert "auth_key" in vars(sender())


def test_a_sender_keeps_its_state_queue_and_acknowledgements_where_the_gateway_reaches() -> None:
    made = sender()
    assert type(made._state) is MTProtoState
    assert type(made._send_queue) is MessagePacker
    assert made._send_queue._state is made._state
    assert made._pending_ack == set()
    assert made._last_acks.maxlen
    # Methods of its own, by which it refers to itself until `let_go`.
    assert {handler.__self__ for handler in made._handlers.values()} == {made}
    source = inspect.getsource(MTProtoSender)
    assert "RequestState(MsgsAck(list(self._pending_ack)))" in source
    assert "self._last_acks.append(ack)" in source


def test_a_sender_uses_of_its_connection_what_the_wire_has() -> None:
    used = set(re.findall(r"self\._connection\.(\w+)", inspect.getsource(MTProtoSender)))
    assert used == {"connect", "disconnect", "send", "recv", "_connected"}
    # The last one is read by this method only, which nobody calls on a bare sender.
    assert "self._connection._connected" in inspect.getsource(MTProtoSender._transport_connected)
    used = set(re.findall(r"self\._connection\.(\w+)", inspect.getsource(MTProtoPlainSender)))
    assert used == {"send", "recv"}
    for name in ("connect", "disconnect", "send", "recv"):
        assert inspect.iscoroutinefunction(getattr(worker._Wire, name))


def test_a_state_decrypts_and_keeps_count_of_messages_as_ours_does() -> None:
    assert parameters(MTProtoState.decrypt_message_data) == ["self", "body"]
    assert parameters(MTProtoState._calc_key) == ["auth_key", "msg_key", "client"]
    state = sender()._state
    assert isinstance(state.id, int)
    assert state.time_offset == state._highest_remote_id == state._ignore_count == 0
    assert state._recent_remote_ids.maxlen
    assert callable(state._count_ignored)
    # The clock of the server, learnt from a refused message and from the exchange of keys.
    assert parameters(MTProtoState.update_time_offset) == ["self", "correct_msg_id"]
    assert "self._state.time_offset =" in inspect.getsource(MTProtoSender._try_gen_auth_key)
    assert "update_time_offset(" in inspect.getsource(MTProtoSender._handle_bad_notification)
    assert len(AuthKey(bytes(worker.AUTH_KEY_BYTES)).key) == worker.AUTH_KEY_BYTES
    assert MSG_TOO_NEW_DELTA > 0
    assert MSG_TOO_OLD_DELTA > 0


def test_a_result_is_read_by_its_request_from_the_body_as_it_is() -> None:
    """A ChunkBody passes through Telethon's reader untouched."""
    body = worker.ChunkBody.of(b"film")
    assert "state.request.read_result(reader)" in inspect.getsource(MTProtoSender)
    assert "with BinaryReader(rpc_result.body) as reader" in inspect.getsource(MTProtoSender)
    with BinaryReader(body) as reader:
        assert worker._GetFile.read_result(reader) is body
    assert RpcResult(7, body, None).body is body
    assert parameters(TLMessage.__init__) == ["self", "msg_id", "seq_no", "obj"]


def test_the_abridged_framing_is_telethons() -> None:
    codec = AbridgedPacketCodec(None)
    assert codec.tag == b"\xef"
    assert codec.encode_packet(bytes(8)) == b"\x02" + bytes(8)
    assert codec.encode_packet(bytes(127 * 4))[:4] == b"\x7f\x7f\x00\x00"


def test_keys_are_added_and_read_as_settings_do() -> None:
    assert parameters(rsa.add_key) == ["pub", "old"]
    assert callable(rsa.rsa.PublicKey.load_pkcs1)
    assert callable(rsa.rsa.PublicKey.load_pkcs1_openssl_pem)


def test_a_session_string_says_where_home_is() -> None:
    session = StringSession()
    for name in ("dc_id", "server_address", "port", "auth_key"):
        assert hasattr(session, name)


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
