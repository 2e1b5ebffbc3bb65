"""Clients that know nothing of the simulator use it as they would use Telegram.

Goal: a stock Telethon and a stock kurigram, given an address and an RSA key, log in as a bot, read
a channel and download files byte for byte. Method: their public interfaces only; what the simulator
is told to do wrong must come out as their own exceptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from telethon import TelegramClient, errors, events, functions, types
from telethon.crypto import rsa
from telethon.network import (
    ConnectionTcpAbridged,
    ConnectionTcpFull,
    ConnectionTcpIntermediate,
)
from telethon.sessions import StringSession

from telegram_simulator.cluster import API_HASH, API_ID, TelegramSimulator
from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.world import Bot, Channel, Document, FileKind, PhotoSize

FILM_BYTES = 3 * (1 << 20) + 12_345


@dataclass
class Stage:
    """A Telegram with one bot, in data centre 2, and one channel, whose film is kept in 4."""

    telegram: TelegramSimulator
    bot: Bot
    channel: Channel
    film: Document

    def client(self, session: str = "", **options: Any) -> TelegramClient:
        login = StringSession(session)
        if not session:
            login.set_dc(self.bot.home_dc, *self.telegram.address(self.bot.home_dc))
        return TelegramClient(login, API_ID, API_HASH, **options)

    @asynccontextmanager
    async def logged_in(self, **options: Any) -> AsyncIterator[TelegramClient]:
        client = self.client(**options)
        await client.connect()
        try:
            await client.sign_in(bot_token=self.bot.token)
            yield client
        finally:
            await client.disconnect()


@pytest.fixture
def forgetful_telethon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Telethon keeps addresses on the class and keys in a module; both are of one cluster only."""
    keys = dict(rsa._server_keys)
    monkeypatch.setattr(TelegramClient, "_config", None)
    yield
    rsa._server_keys.clear()
    rsa._server_keys.update(keys)


@pytest.fixture
async def stage(forgetful_telethon: None) -> AsyncIterator[Stage]:
    async with TelegramSimulator(dc_ids=(1, 2, 4)) as telegram:
        rsa.add_key(telegram.rsa_public_pem.decode(), old=False)
        bot = telegram.world.add_bot(home_dc=2)
        channel = telegram.world.add_channel("Films", bot, username="films")
        film = replace(
            telegram.world.new_document(SyntheticContent(FILM_BYTES, seed=3), "video/mp4", dc_id=4),
            file_name="film.mp4",
            kind="video",
            duration_s=61.5,
            width=1280,
            height=720,
            thumbnails=(PhotoSize("m", 320, 180, BytesContent(b"\xff\xd8picture")),),
        )
        telegram.world.post(channel, film, "A film")
        yield Stage(telegram, bot, channel, film)


# -- Telethon ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing", [ConnectionTcpFull, ConnectionTcpAbridged, ConnectionTcpIntermediate]
)
async def test_telethon_downloads_from_a_foreign_dc_over_every_framing(
    stage: Stage, framing: Any
) -> None:
    async with stage.logged_in(connection=framing) as client:
        me = await client.get_me()
        assert (me.id, me.bot, me.username) == (stage.bot.id, True, stage.bot.username)
        channel = await client.get_entity(stage.channel.chat_id)
        assert (channel.title, channel.broadcast) == ("Films", True)
        service, message, hole = await client.get_messages(stage.channel.chat_id, ids=[1, 2, 3])
        assert isinstance(service, types.MessageService)
        assert hole is None
        assert message.message == "A film"
        assert message.file.name == "film.mp4"
        assert (message.file.width, message.file.height) == (1280, 720)
        assert message.file.duration == 61.5
        assert await client.download_media(message, bytes) == stage.film.content.read(0, FILM_BYTES)
        assert await client.download_media(message, bytes, thumb=0) == b"\xff\xd8picture"
    assert stage.telegram.counters.bytes_served([stage.film.id]) == FILM_BYTES
    assert "FILE_MIGRATE_4" in stage.telegram.counters.errors


async def test_iter_download_reads_from_any_aligned_offset(stage: Stage) -> None:
    async with stage.logged_in() as client:
        message = await client.get_messages(stage.channel.chat_id, ids=2)
        offset = (1 << 20) + 4096 * 128
        pieces = [
            bytes(piece)
            async for piece in client.iter_download(
                message.document, offset=offset, request_size=512 << 10
            )
        ]
    assert b"".join(pieces) == stage.film.content.read(offset, FILM_BYTES)


async def test_a_saved_session_needs_no_second_login(stage: Stage) -> None:
    async with stage.logged_in() as client:
        saved = client.session.save()
    again = stage.client(saved)
    await again.connect()
    try:
        assert (await again.get_me()).id == stage.bot.id
    finally:
        await again.disconnect()
    assert stage.telegram.counters.methods["auth.importBotAuthorization"] == 1
    assert not stage.telegram.counters.errors["AUTH_KEY_DUPLICATED"]


async def test_a_login_elsewhere_migrates_home(stage: Stage) -> None:
    client = stage.client()
    client.session.set_dc(1, *stage.telegram.address(1))
    await client.connect()
    try:
        await client.sign_in(bot_token=stage.bot.token)
        assert client.session.dc_id == stage.bot.home_dc
    finally:
        await client.disconnect()


async def test_a_wrong_token_is_refused(stage: Stage) -> None:
    client = stage.client()
    await client.connect()
    try:
        with pytest.raises(errors.AccessTokenInvalidError):
            await client.sign_in(bot_token=f"{stage.bot.id}:nonsense")
    finally:
        await client.disconnect()


async def test_what_telegram_keeps_from_bots_is_kept_from_bots(stage: Stage) -> None:
    async with stage.logged_in() as client:
        with pytest.raises(errors.BotMethodInvalidError):
            await client.get_messages(stage.channel.chat_id, limit=10)
        with pytest.raises(errors.MethodInvalidError):
            await client(functions.messages.GetEmojiGroupsRequest(0))


async def test_a_short_flood_wait_is_slept_through(stage: Stage) -> None:
    async with stage.logged_in() as client:
        message = await client.get_messages(stage.channel.chat_id, ids=2)
        flood = stage.telegram.trouble.flood_wait(1)
        assert await client.download_media(message, bytes) == stage.film.content.read(0, FILM_BYTES)
        assert flood.times == 0


async def test_a_dropped_connection_is_survived(stage: Stage) -> None:
    async with stage.logged_in(retry_delay=0) as client:
        message = await client.get_messages(stage.channel.chat_id, ids=2)
        stage.telegram.drop_connections()
        assert await client.download_media(message, bytes) == stage.film.content.read(0, FILM_BYTES)
    assert not stage.telegram.counters.errors["AUTH_KEY_DUPLICATED"]


async def test_new_salts_are_picked_up_without_the_client_noticing(stage: Stage) -> None:
    async with stage.logged_in() as client:
        stage.telegram.change_salts()
        assert (await client.get_me()).id == stage.bot.id


async def test_live_posts_edits_and_deletions_arrive(stage: Stage) -> None:
    heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    async with stage.logged_in() as client:
        await client.get_entity(stage.channel.chat_id)

        async def on_new(event: Any) -> None:
            await heard.put(("new", event.message.message))

        async def on_edit(event: Any) -> None:
            await heard.put(("edited", event.message.message))

        async def on_delete(event: Any) -> None:
            await heard.put(("deleted", event.deleted_ids))

        client.add_event_handler(on_new, events.NewMessage)
        client.add_event_handler(on_edit, events.MessageEdited)
        client.add_event_handler(on_delete, events.MessageDeleted)

        post = stage.telegram.world.post(stage.channel, text="fresh")
        assert await asyncio.wait_for(heard.get(), 5) == ("new", "fresh")
        stage.telegram.world.edit(post, text="stale")
        assert await asyncio.wait_for(heard.get(), 5) == ("edited", "stale")
        stage.telegram.world.delete(post)
        assert await asyncio.wait_for(heard.get(), 5) == ("deleted", [post.id])


async def test_a_client_that_wants_no_updates_gets_none(stage: Stage) -> None:
    async with stage.logged_in(receive_updates=False):
        (key,) = stage.telegram.data_centre(2).keys.values()
        assert [session.wants_updates for session in key.sessions.values()] == [False]


async def test_the_top_of_a_channel_can_be_asked_for(stage: Stage) -> None:
    async with stage.logged_in() as client:
        channel = await client.get_input_entity(stage.channel.chat_id)
        answer = await client(
            functions.updates.GetChannelDifferenceRequest(
                channel, types.ChannelMessagesFilterEmpty(), pts=1, limit=1
            )
        )
    assert isinstance(answer, types.updates.ChannelDifferenceTooLong)
    assert answer.dialog.top_message == 2


async def test_every_kind_of_post_is_recognised(stage: Stage) -> None:
    world = stage.telegram.world
    kinds: tuple[FileKind, ...] = ("round_video", "audio", "voice", "animation", "document")
    for kind in kinds:
        file = world.new_document(BytesContent(b"body"), "application/octet-stream", dc_id=2)
        world.post(stage.channel, replace(file, kind=kind, duration_s=7.0), grouped_id=9)
    sizes = tuple(PhotoSize(kind, 90, 90, BytesContent(kind.encode())) for kind in "mx")
    world.post(stage.channel, world.new_photo(*sizes, dc_id=4), "A photo")
    async with stage.logged_in() as client:
        messages = await client.get_messages(stage.channel.chat_id, ids=list(range(3, 9)))
        round_video, audio, voice, animation, document, photo = messages
        assert round_video.video_note
        assert audio.audio
        assert voice.voice
        assert animation.gif
        assert document.document
        assert not document.video
        assert {message.grouped_id for message in messages[:5]} == {9}
        assert [message.file.duration for message in messages[:3]] == [7, 7, 7]
        assert await client.download_media(photo, bytes) == b"x"
        assert await client.download_media(photo, bytes, thumb="m") == b"m"


async def test_the_rest_of_what_a_bot_may_ask(stage: Stage) -> None:
    other = stage.telegram.world.add_bot(name="Other")
    async with stage.logged_in() as client:
        full = await client(functions.channels.GetFullChannelRequest(stage.channel.chat_id))
        assert full.full_chat.pts == stage.channel.pts
        me = await client(functions.users.GetFullUserRequest("me"))
        assert me.full_user.id == stage.bot.id
        nearest = await client(functions.help.GetNearestDcRequest())
        assert nearest.nearest_dc == 2
        assert (await client(functions.help.GetCdnConfigRequest())).public_keys == []
        stranger = types.InputUser(other.id, 1)
        assert isinstance(
            (await client(functions.users.GetUsersRequest([stranger])))[0], types.UserEmpty
        )
        with pytest.raises(errors.UserIdInvalidError):
            await client(functions.users.GetFullUserRequest(stranger))
        assert await client(functions.auth.LogOutRequest())
        with pytest.raises(errors.AuthKeyUnregisteredError):
            await client(functions.updates.GetStateRequest())


# -- kurigram ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dc_id", [2, 4], ids=["at home", "in a foreign dc"])
async def test_kurigram_logs_in_and_downloads(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, dc_id: int
) -> None:
    from pyrogram import Client
    from pyrogram.connection import Connection
    from pyrogram.crypto import rsa as kurigram_rsa

    public = load_pem_public_key(stage.telegram.rsa_public_pem)
    assert isinstance(public, RSAPublicKey)
    numbers = public.public_numbers()
    monkeypatch.setitem(
        kurigram_rsa.server_public_keys,
        stage.telegram.rsa_fingerprint,
        kurigram_rsa.PublicKey(numbers.n, numbers.e),
    )

    class RightAddress(Connection):
        """The address of its first data centre is built in; the others it asks for."""

        def __init__(self, dc_id: int, server_address: str, port: int, **options: Any) -> None:
            if server_address != "127.0.0.1":
                server_address, port = stage.telegram.address(dc_id)
            super().__init__(dc_id, server_address, port, **options)

    world = stage.telegram.world
    # Its AES is in pure Python here, so the document is small.
    paper = replace(
        world.new_document(SyntheticContent(100_001, seed=9), "application/pdf", dc_id=dc_id),
        file_name="paper.pdf",
    )
    post = world.post(stage.channel, paper, "A paper")
    client: Any = Client(
        "kurigram",
        API_ID,
        API_HASH,
        bot_token=stage.bot.token,
        in_memory=True,
        no_updates=True,
        connection_factory=RightAddress,
    )
    async with client:
        me = await client.get_me()
        assert me.id == stage.bot.id
        message = await client.get_messages(stage.channel.chat_id, post.id)
        assert message.document.file_name == "paper.pdf"
        body = await client.download_media(message, in_memory=True)
        # It stops its sessions for files, but not those that it exported itself through.
        for session in client.sessions.values():
            await session.stop()
    assert not stage.telegram.counters.errors["AUTH_KEY_DUPLICATED"]
    assert body.getvalue() == paper.content.read(0, paper.content.size)
