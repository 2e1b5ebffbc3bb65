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
from pathlib import Path
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
from telegram_simulator.content import BytesContent, FileContent, SyntheticContent
from telegram_simulator.renditions import with_qualities
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


# -- what a post may have beside its file --------------------------------------------------------


async def test_the_alternatives_of_a_film_come_with_it_and_each_can_be_fetched(
    stage: Stage, sample_films: list[Path], film_qualities: Path
) -> None:
    world = stage.telegram.world
    film = world.new_document(FileContent(sample_films[1]), "video/mp4", dc_id=2)
    film = with_qualities(world, replace(film, kind="video", file_name="film.mp4"), film_qualities)
    post = world.post(stage.channel, film, "In three qualities")
    async with stage.logged_in() as client:
        message = await client.get_messages(stage.channel.chat_id, ids=post.id)
        assert message.file.name == "film.mp4"
        alternatives = message.media.alt_documents
        assert [each.id for each in alternatives] == [each.id for each in film.alternatives]
        for got, kept in zip(alternatives, film.alternatives, strict=True):
            body = kept.content.read(0, kept.content.size)
            assert (got.mime_type, got.size, got.dc_id) == (kept.mime_type, len(body), kept.dc_id)
            assert await client.download_media(got, bytes) == body
            assert stage.telegram.counters.bytes_served([got.id]) == len(body)
        assert {each.dc_id for each in alternatives} == {2, 4}
        assert stage.telegram.counters.bytes_served([film.id]) == 0
        told = [
            (attribute.w, attribute.h, attribute.video_codec, attribute.duration)
            for attribute in attributes(alternatives, types.DocumentAttributeVideo)
        ]
        codec = film.alternatives[2].video_codec
        assert told == [
            (640, 360, "h264", 8.0),
            (640, 360, codec, 8.0),
            (1280, 720, "h264", 8.0),
        ]
        names = attributes(alternatives, types.DocumentAttributeFilename)
        about = [int(each.file_name.removeprefix("mtproto:")) for each in names]
        assert about == [film.alternatives[place].id for place in (0, 2, 4, 6)]
        (size,) = attributes(alternatives, types.DocumentAttributeImageSize)
        assert (size.w, size.h) == (240, 136)


def attributes(documents: list[Any], kind: type[Any]) -> list[Any]:
    return [one for each in documents for one in each.attributes if isinstance(one, kind)]


async def test_references_of_alternatives_expire_with_the_message(
    stage: Stage, sample_films: list[Path], film_qualities: Path
) -> None:
    world = stage.telegram.world
    film = world.new_document(FileContent(sample_films[1]), "video/mp4", dc_id=2)
    post = world.post(stage.channel, with_qualities(world, film, film_qualities))
    async with stage.logged_in() as client:
        message = await client.get_messages(stage.channel.chat_id, ids=post.id)
        world.expire_references(film.id)
        for document in (message.media.document, *message.media.alt_documents):
            with pytest.raises(errors.FileReferenceExpiredError):
                await client.download_file(document_location(document), dc_id=document.dc_id)
        again = await client.get_messages(stage.channel.chat_id, ids=post.id)
        playlist = again.media.alt_documents[1]
        assert (await client.download_media(playlist, bytes)).startswith(b"#EXTM3U")


def document_location(document: Any) -> Any:
    return types.InputDocumentFileLocation(
        document.id, document.access_hash, document.file_reference, thumb_size=""
    )


async def test_a_reply_names_the_post_that_it_answers(stage: Stage) -> None:
    world = stage.telegram.world
    subtitles = replace(
        world.new_document(BytesContent(b"1"), "application/x-subrip"), file_name="film.srt"
    )
    post = world.post(stage.channel, subtitles, reply_to=2)
    world.delete(stage.channel.posts[2])
    async with stage.logged_in() as client:
        message = await client.get_messages(stage.channel.chat_id, ids=post.id)
        assert message.is_reply
        assert message.reply_to.reply_to_msg_id == 2
        # What it answers may be gone by now; the reply says so all the same.
        assert await message.get_reply_message() is None
    with pytest.raises(ValueError, match="no post 2"):
        world.post(stage.channel, text="to nobody", reply_to=2)


async def test_a_song_tells_its_title_and_shows_its_cover(stage: Stage) -> None:
    world = stage.telegram.world
    cover = PhotoSize("m", 320, 320, BytesContent(b"\xff\xd8cover"))
    song = replace(
        world.new_document(BytesContent(b"ID3"), "audio/mpeg", dc_id=4),
        kind="audio",
        title="Overture",
        performer="The Band",
        thumbnails=(cover,),
    )
    post = world.post(stage.channel, song)
    async with stage.logged_in() as client:
        message = await client.get_messages(stage.channel.chat_id, ids=post.id)
        assert message.audio
        assert (message.file.title, message.file.performer) == ("Overture", "The Band")
        assert await client.download_media(message, bytes, thumb=0) == b"\xff\xd8cover"


async def test_an_album_is_one_to_those_who_look_for_it(stage: Stage) -> None:
    world = stage.telegram.world
    sizes = (PhotoSize("x", 90, 90, BytesContent(b"x")),)
    group = world.new_group()
    mixed = (world.new_photo(*sizes), stage.film, world.new_photo(*sizes))
    posts = [world.post(stage.channel, each, grouped_id=group) for each in mixed]
    world.post(stage.channel, world.new_photo(*sizes))
    async with stage.logged_in() as client:
        found = await client.get_messages(stage.channel.chat_id, ids=list(range(1, 8)))
        album = [each for each in found if each and each.grouped_id == group]
        assert [each.id for each in album] == [post.id for post in posts]
        assert [bool(each.photo) for each in album] == [True, False, True]


async def test_buttons_under_a_post_are_told(stage: Stage) -> None:
    rows = [
        [
            {"text": "Watch", "url": "https://a.example/"},
            {"text": "Next", "callback_data": "n"},
        ],
        [{"text": "Copy", "copy_text": {"text": "a code"}}],
    ]
    markup = {"inline_keyboard": rows}
    post = stage.telegram.world.post(stage.channel, text="A film", reply_markup=markup)
    async with stage.logged_in() as client:
        message = await client.get_messages(stage.channel.chat_id, ids=post.id)
    watch, following = message.reply_markup.rows[0].buttons
    (copy,) = message.reply_markup.rows[1].buttons
    assert (watch.text, watch.type.url) == ("Watch", "https://a.example/")
    assert following.type.data == b"n"
    assert copy.type.copy_text == "a code"


# -- kurigram ----------------------------------------------------------------------------------


@pytest.fixture
async def kurigram(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A kurigram that has logged in to the stage's Telegram as its bot."""
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
        yield client
        # It stops its sessions for files, but not those that it exported itself through.
        for session in client.sessions.values():
            await session.stop()


@pytest.mark.parametrize("dc_id", [2, 4], ids=["at home", "in a foreign dc"])
async def test_kurigram_logs_in_and_downloads(stage: Stage, kurigram: Any, dc_id: int) -> None:
    world = stage.telegram.world
    # Its AES is in pure Python here, so the document is small.
    paper = replace(
        world.new_document(SyntheticContent(100_001, seed=9), "application/pdf", dc_id=dc_id),
        file_name="paper.pdf",
    )
    post = world.post(stage.channel, paper, "A paper")
    me = await kurigram.get_me()
    assert me.id == stage.bot.id
    message = await kurigram.get_messages(stage.channel.chat_id, post.id)
    assert message.document.file_name == "paper.pdf"
    body = await kurigram.download_media(message, in_memory=True)
    assert not stage.telegram.counters.errors["AUTH_KEY_DUPLICATED"]
    assert body.getvalue() == paper.content.read(0, paper.content.size)


async def test_kurigram_sees_qualities_replies_and_albums(
    stage: Stage, kurigram: Any, sample_films: list[Path], film_qualities: Path
) -> None:
    world = stage.telegram.world
    film = world.new_document(FileContent(sample_films[1]), "video/mp4", dc_id=2)
    film = with_qualities(world, replace(film, kind="video"), film_qualities)
    sizes = (PhotoSize("x", 90, 90, BytesContent(b"x")),)
    group = world.new_group()
    world.post(stage.channel, film, "A film", grouped_id=group)
    photo = world.post(stage.channel, world.new_photo(*sizes), grouped_id=group)
    reply = world.post(stage.channel, text="Its end", reply_to=photo.id)
    message = await kurigram.get_messages(stage.channel.chat_id, photo.id - 1)
    told = {(each.height, each.codec) for each in message.video.alternative_videos}
    assert told == {(each.height, each.video_codec) for each in film.alternatives[0:6:2]}
    album = await kurigram.get_media_group(stage.channel.chat_id, photo.id)
    assert [each.id for each in album] == [photo.id - 1, photo.id]
    answer = await kurigram.get_messages(stage.channel.chat_id, reply.id)
    assert answer.reply_to_message_id == photo.id
