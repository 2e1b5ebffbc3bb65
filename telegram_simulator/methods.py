"""The methods of the API: a table from request class to handler, and what guards them all.

Strict on purpose. A method that nobody wrote is METHOD_INVALID, one that Telegram keeps from bots
is BOT_METHOD_INVALID, and both are logged loudly: a client that works here works there.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any

from telethon.tl import TLObject, functions, types
from telethon.tl.alltlobjects import LAYER
from telethon.tl.core import GzipPacked

from .content import Content
from .faults import FileCount
from .session import (
    AuthKey,
    Body,
    Outcome,
    RpcFailure,
    Session,
    UnreadableMessage,
    read_object,
    refused,
    serialise,
)
from .world import Bot, Channel, ChannelEvent, Document, Json, Photo, PhotoSize, Post, World

if TYPE_CHECKING:
    from .data_centre import DataCentre, Shared

log = logging.getLogger(__name__)

KIB, MIB = 1 << 10, 1 << 20
OFFSET_STEP_BYTES = 4 * KIB
PRECISE_STEP_BYTES = KIB
HASH_PART_BYTES = 128 * KIB
MESSAGE_IDS_MAX = 200
CHANNEL_DIFFERENCE_MAX = 100_000
"""Of bots; users get 100 (core.telegram.org/method/updates.getChannelDifference)."""
RECENT_MESSAGES = 20
EXPORTED_BYTES = 128
CONFIG_TERM_S = 3600

FILE_CONSTRUCTOR = types.upload.File.CONSTRUCTOR_ID
# Telegram's list of what bots may not call, as far as Telethon's data names it.
USER_NAMESPACES = frozenset({"account", "contacts", "folders", "langpack", "payments", "stats"})
BOTS_MAY_ANYWAY = frozenset({"contacts.resolveUsername"})
USER_METHODS_TEXT = """
    auth.checkPassword auth.resetAuthorizations auth.sendCode auth.signIn auth.signUp
    channels.checkUsername channels.createChannel channels.deleteChannel channels.deleteHistory
    channels.exportMessageLink channels.getAdminLog channels.getAdminedPublicChannels
    channels.getLeftChannels channels.inviteToChannel channels.joinChannel channels.readHistory
    channels.readMessageContents channels.reportSpam channels.toggleSignatures
    channels.updateUsername help.acceptTermsOfService help.getAppConfig help.getAppUpdate
    help.getInviteText help.getSupport help.saveAppLog messages.addChatUser
    messages.checkChatInvite messages.createChat messages.deleteHistory messages.exportChatInvite
    messages.getAllDrafts messages.getAllStickers messages.getAttachedStickers
    messages.getBotCallbackAnswer messages.getCommonChats messages.getDhConfig
    messages.getDialogUnreadMarks messages.getDialogs messages.getHistory
    messages.getInlineBotResults messages.getMessageEditData messages.getMessagesViews
    messages.getOnlines messages.getPeerDialogs messages.getPeerSettings
    messages.getPinnedDialogs messages.getPollResults messages.getRecentLocations
    messages.getReplies messages.getSavedGifs messages.getSearchCounters
    messages.getSearchResultsCalendar messages.getSearchResultsPositions
    messages.getSplitRanges messages.getUnreadMentions messages.getWebPage
    messages.getWebPagePreview messages.importChatInvite messages.markDialogUnread
    messages.migrateChat messages.readHistory messages.readMentions
    messages.readMessageContents messages.receivedMessages messages.report messages.reportSpam
    messages.saveDraft messages.search messages.searchGlobal messages.sendVote
    messages.startBot messages.toggleDialogPin photos.deletePhotos photos.updateProfilePhoto
    upload.getCdnFile upload.getWebFile
"""
USER_METHODS = frozenset(USER_METHODS_TEXT.split())


@dataclass(frozen=True, slots=True)
class Call:
    """Where a request came in: the data centre, and the session and key that it came with."""

    dc: DataCentre
    session: Session

    @property
    def key(self) -> AuthKey:
        return self.session.key

    @property
    def shared(self) -> Shared:
        return self.dc.shared

    @property
    def world(self) -> World:
        return self.dc.shared.world

    @property
    def bot(self) -> Bot:
        if self.key.account is None:
            raise RpcFailure(401, "AUTH_KEY_UNREGISTERED")
        return self.key.account


Handler = Callable[[Call, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """A handler, and whether one must be logged in to call it."""

    handler: Handler
    needs_login: bool


METHODS: dict[type[Any], Method] = {}


def method(request: type[Any], *, needs_login: bool = True) -> Callable[[Handler], Handler]:
    """Enter a handler in the table."""

    def enter(handler: Handler) -> Handler:
        METHODS[request] = Method(handler, needs_login)
        return handler

    return enter


# -- what every request goes through -----------------------------------------------------------


def method_name(request: Any) -> str:
    """The name in Telegram's documentation, such as `upload.getFile`."""
    name = type(request).__name__.removesuffix("Request")
    namespace = type(request).__module__.removeprefix("telethon.tl.functions").strip(".")
    return f"{namespace}.{name[:1].lower()}{name[1:]}".strip(".")


async def invoke(call: Call, request: Any) -> Outcome:
    """Answer one request, with the trouble that is planned for it."""
    counters = call.shared.counters
    try:
        request = await _unwrap(call, request)
        name = method_name(request)
        counters.methods[name] += 1
        account_id = call.key.account.id if call.key.account else None
        file_id = _file_id(request)
        fault = call.shared.trouble.strike(name, call.dc.id, account_id, file_id)
        if fault is not None and fault.kind == "error":
            raise RpcFailure(fault.code, fault.message)
        result = await _perform(call, name, request)
        body: Body = result if isinstance(result, FileChunk) else serialise(result)
    except RpcFailure as failure:
        counters.errors[failure.message] += 1
        return refused(failure)
    except Exception:
        # Our own mistake. The client gets what Telegram would say, the log gets the truth.
        log.exception("%s failed inside the simulator", type(request).__name__)
        counters.errors["INTERNAL"] += 1
        return refused(RpcFailure(500, "INTERNAL"))
    if fault is None or fault.kind == "error":
        return Outcome(body)
    if fault.kind == "short":
        return Outcome(body.halved() if isinstance(body, FileChunk) else body)
    return Outcome(body, cut=fault.kind, refusal=fault.code)


WRAPPERS = (
    functions.InvokeWithLayerRequest,
    functions.InitConnectionRequest,
    functions.InvokeWithoutUpdatesRequest,
    functions.InvokeAfterMsgRequest,
    functions.InvokeAfterMsgsRequest,
)


async def _unwrap(call: Call, request: Any) -> Any:
    """Take off what a request is wrapped in, and do what the wrappers say."""
    while isinstance(request, (*WRAPPERS, GzipPacked)):
        if isinstance(request, GzipPacked):
            request = _read_inner(request.data)
        else:
            await _heed(call, request)
            request = request.query
    return request


async def _heed(call: Call, wrapper: Any) -> None:
    match wrapper:
        case functions.InvokeWithLayerRequest():
            if wrapper.layer <= 0:
                raise RpcFailure(400, "CONNECTION_LAYER_INVALID")
            if wrapper.layer != LAYER:
                log.warning("a client speaks layer %d; only %d is known", wrapper.layer, LAYER)
        case functions.InitConnectionRequest():
            if wrapper.api_id <= 0:
                raise RpcFailure(400, "CONNECTION_API_ID_INVALID")
            call.key.initialised = True
        case functions.InvokeWithoutUpdatesRequest():
            call.session.wants_updates = False
        case functions.InvokeAfterMsgRequest():
            await call.session.wait_for([wrapper.msg_id])
        case _:
            await call.session.wait_for(wrapper.msg_ids)


def _read_inner(data: bytes) -> Any:
    try:
        return read_object(data)
    except UnreadableMessage as error:
        log.error("a packed request cannot be read: %s", error)
        raise RpcFailure(400, "INPUT_FETCH_ERROR") from error


async def _perform(call: Call, name: str, request: Any) -> Any:
    known = METHODS.get(type(request))
    if not call.key.initialised:
        raise RpcFailure(400, "CONNECTION_NOT_INITED")
    if call.key.account is None and (known is None or known.needs_login):
        raise RpcFailure(401, "AUTH_KEY_UNREGISTERED")
    if known is not None:
        result = await known.handler(call, request)
        if call.key.account is not None and call.session.wants_updates is None:
            call.session.wants_updates = True
        return result
    namespace = name.partition(".")[0]
    if name in USER_METHODS or (namespace in USER_NAMESPACES and name not in BOTS_MAY_ANYWAY):
        log.error("%s is for users: Telegram refuses it to bots", name)
        raise RpcFailure(400, "BOT_METHOD_INVALID")
    log.error("%s is not part of the pocket Telegram", name)
    raise RpcFailure(400, "METHOD_INVALID")


def _file_id(request: Any) -> int | None:
    location = getattr(request, "location", None)
    return getattr(location, "id", None)


# -- help.* ------------------------------------------------------------------------------------


@method(functions.help.GetConfigRequest, needs_login=False)
async def get_config(call: Call, request: Any) -> Any:
    now = int(call.dc.now())
    return types.Config(
        date=datetime.fromtimestamp(now, UTC),
        expires=datetime.fromtimestamp(now + CONFIG_TERM_S, UTC),
        test_mode=False,
        this_dc=call.dc.id,
        dc_options=_dc_options(call.shared.data_centres.values()),
        dc_txt_domain_name="",
        chat_size_max=200,
        megagroup_size_max=200_000,
        forwarded_count_max=100,
        online_update_period_ms=210_000,
        offline_blur_timeout_ms=5000,
        offline_idle_timeout_ms=30_000,
        online_cloud_timeout_ms=300_000,
        notify_cloud_delay_ms=30_000,
        notify_default_delay_ms=1500,
        push_chat_period_ms=60_000,
        push_chat_limit=2,
        edit_time_limit=172_800,
        revoke_time_limit=2_147_483_647,
        revoke_pm_time_limit=2_147_483_647,
        rating_e_decay=2_419_200,
        stickers_recent_limit=200,
        channels_read_media_period=604_800,
        call_receive_timeout_ms=20_000,
        call_ring_timeout_ms=90_000,
        call_connect_timeout_ms=30_000,
        call_packet_timeout_ms=10_000,
        me_url_prefix="https://t.me/",
        caption_length_max=1024,
        message_length_max=4096,
        webfile_dc_id=call.dc.id,
    )


def _dc_options(centres: Iterable[DataCentre]) -> list[Any]:
    """Every address; those for media come last, since many clients take the first they see."""
    return [
        types.DcOption(
            id=dc.id,
            ip_address=dc.host,
            port=dc.media_port if is_media else dc.port,
            media_only=is_media,
            this_port_only=True,
        )
        for is_media, dc in product((False, True), centres)
    ]


@method(functions.help.GetNearestDcRequest, needs_login=False)
async def get_nearest_dc(call: Call, request: Any) -> Any:
    return types.NearestDc(country="ZZ", this_dc=call.dc.id, nearest_dc=call.dc.id)


@method(functions.help.GetCdnConfigRequest)
async def get_cdn_config(call: Call, request: Any) -> Any:
    return types.CdnConfig(public_keys=[])


# -- auth.* ------------------------------------------------------------------------------------


@method(functions.auth.ImportBotAuthorizationRequest, needs_login=False)
async def import_bot_authorization(call: Call, request: Any) -> Any:
    _refuse_temporary_key(call)
    if request.api_id <= 0 or not request.api_hash:
        raise RpcFailure(400, "API_ID_INVALID")
    bot = call.world.bot_by_token(request.bot_auth_token)
    if bot is None:
        raise RpcFailure(400, "ACCESS_TOKEN_INVALID")
    if bot.home_dc != call.dc.id:
        raise RpcFailure(303, f"USER_MIGRATE_{bot.home_dc}")
    call.key.account = bot
    return types.auth.Authorization(user=_user(call, bot))


@method(functions.auth.ExportAuthorizationRequest)
async def export_authorization(call: Call, request: Any) -> Any:
    if request.dc_id == call.dc.id or request.dc_id not in call.shared.data_centres:
        raise RpcFailure(400, "DC_ID_INVALID")
    ticket = secrets.token_bytes(EXPORTED_BYTES)
    call.shared.exported[call.bot.id, ticket] = (call.bot, request.dc_id)
    return types.auth.ExportedAuthorization(id=call.bot.id, bytes=ticket)


@method(functions.auth.ImportAuthorizationRequest, needs_login=False)
async def import_authorization(call: Call, request: Any) -> Any:
    _refuse_temporary_key(call)
    exported = call.shared.exported.pop((request.id, request.bytes), None)
    if exported is None or exported[1] != call.dc.id:
        raise RpcFailure(400, "AUTH_BYTES_INVALID")
    call.key.account = exported[0]
    return types.auth.Authorization(user=_user(call, exported[0]))


@method(functions.auth.LogOutRequest)
async def log_out(call: Call, request: Any) -> Any:
    call.key.account = None
    return types.auth.LoggedOut()


def _refuse_temporary_key(call: Call) -> None:
    # A temporary key logs in through the permanent one that it is bound to, and binding
    # (auth.bindTempAuthKey) is not served.
    if call.key.temporary:
        raise RpcFailure(401, "AUTH_KEY_PERM_EMPTY")


# -- users.* -----------------------------------------------------------------------------------


@method(functions.users.GetUsersRequest)
async def get_users(call: Call, request: Any) -> Any:
    found = (_find_user(call, asked) for asked in request.id)
    return [_user(call, bot) if bot else types.UserEmpty(0) for bot in found]


@method(functions.users.GetFullUserRequest)
async def get_full_user(call: Call, request: Any) -> Any:
    bot = _find_user(call, request.id)
    if bot is None:
        raise RpcFailure(400, "USER_ID_INVALID")
    full = types.UserFull(
        id=bot.id,
        settings=types.PeerSettings(),
        notify_settings=types.PeerNotifySettings(),
        common_chats_count=0,
        bot_info=types.BotInfo(user_id=bot.id),
    )
    return types.users.UserFull(full_user=full, chats=[], users=[_user(call, bot)])


def _find_user(call: Call, asked: Any) -> Bot | None:
    """A bot knows itself, and others only by the access hash that it was given."""
    if isinstance(asked, types.InputUserSelf):
        return call.bot
    if not isinstance(asked, types.InputUser):
        return None
    if asked.user_id == call.bot.id:
        return call.bot
    known = asked.access_hash == call.world.access_hash(call.bot.id, asked.user_id)
    return call.world.bots.get(asked.user_id) if known else None


def _user(call: Call, bot: Bot) -> Any:
    account_id = call.bot.id
    return types.User(
        id=bot.id,
        is_self=bot.id == account_id,
        bot=True,
        access_hash=call.world.access_hash(account_id, bot.id),
        first_name=bot.name,
        username=bot.username,
        bot_info_version=1,
    )


# -- channels.* and messages.* -----------------------------------------------------------------


@method(functions.channels.GetChannelsRequest)
async def get_channels(call: Call, request: Any) -> Any:
    channels = [_find_channel(call, asked) for asked in request.id]
    return types.messages.Chats([_channel(call.world, call.bot, each) for each in channels])


@method(functions.channels.GetFullChannelRequest)
async def get_full_channel(call: Call, request: Any) -> Any:
    channel = _find_channel(call, request.channel)
    full = types.ChannelFull(
        id=channel.id,
        about="",
        read_inbox_max_id=channel.top_message_id,
        read_outbox_max_id=channel.top_message_id,
        unread_count=0,
        chat_photo=types.PhotoEmpty(0),
        notify_settings=types.PeerNotifySettings(),
        bot_info=[],
        pts=channel.pts,
        participants_count=len(channel.members),
        admins_count=len(channel.members),
    )
    return types.messages.ChatFull(
        full_chat=full, chats=[_channel(call.world, call.bot, channel)], users=[]
    )


@method(functions.channels.GetMessagesRequest)
async def get_channel_messages(call: Call, request: Any) -> Any:
    channel = _find_channel(call, request.channel)
    if not request.id:
        raise RpcFailure(400, "MESSAGE_IDS_EMPTY")
    if len(request.id) > MESSAGE_IDS_MAX:
        raise RpcFailure(400, "LIMIT_INVALID")
    ids = [asked.id if isinstance(asked, types.InputMessageID) else 0 for asked in request.id]
    messages = [_message_or_hole(call, channel, each) for each in ids]
    return types.messages.ChannelMessages(
        pts=channel.pts,
        count=len(messages),
        messages=messages,
        topics=[],
        chats=[_channel(call.world, call.bot, channel)],
        users=[],
    )


@method(functions.messages.GetMessagesRequest)
async def get_messages(call: Call, request: Any) -> Any:
    """Messages of private chats and basic groups: what people write to bots comes by the Bot API
    alone, so here there are none."""
    if not request.id:
        raise RpcFailure(400, "MESSAGE_IDS_EMPTY")
    if len(request.id) > MESSAGE_IDS_MAX:
        raise RpcFailure(400, "LIMIT_INVALID")
    holes = [types.MessageEmpty(getattr(asked, "id", 0), peer_id=None) for asked in request.id]
    return types.messages.Messages(messages=holes, topics=[], chats=[], users=[])


def _find_channel(call: Call, asked: Any) -> Channel:
    """The channel meant; a bot may leave the access hash at 0 for those that it is in."""
    # The peer form is accepted as well, as Telegram does: pyrogram and its kin send that one.
    if not isinstance(asked, (types.InputChannel, types.InputPeerChannel)):
        raise RpcFailure(400, "CHANNEL_INVALID")
    channel = call.world.channels.get(asked.channel_id)
    access_hash = call.world.access_hash(call.bot.id, asked.channel_id)
    if channel is None or asked.access_hash not in (0, access_hash):
        raise RpcFailure(400, "CHANNEL_INVALID")
    if call.bot.id not in channel.members:
        raise RpcFailure(400, "CHANNEL_PRIVATE")
    return channel


def _message_or_hole(call: Call, channel: Channel, message_id: int) -> Any:
    post = channel.posts.get(message_id)
    if post is None:
        return types.MessageEmpty(message_id, peer_id=types.PeerChannel(channel.id))
    return _message(call.world, call.bot, channel, post)


# -- updates.* ---------------------------------------------------------------------------------


@method(functions.updates.GetStateRequest)
async def get_state(call: Call, request: Any) -> Any:
    return types.updates.State(pts=1, qts=0, date=datetime.now(UTC), seq=0, unread_count=0)


@method(functions.updates.GetDifferenceRequest)
async def get_difference(call: Call, request: Any) -> Any:
    """Nothing happens outside channels, so there is never anything to catch up with."""
    return types.updates.DifferenceEmpty(date=datetime.now(UTC), seq=0)


@method(functions.updates.GetChannelDifferenceRequest)
async def get_channel_difference(call: Call, request: Any) -> Any:
    channel = _find_channel(call, request.channel)
    if request.pts <= 0:
        raise RpcFailure(400, "PERSISTENT_TIMESTAMP_EMPTY")
    if request.pts > channel.pts:
        raise RpcFailure(400, "PERSISTENT_TIMESTAMP_INVALID")
    if not 0 < request.limit <= CHANNEL_DIFFERENCE_MAX:
        raise RpcFailure(400, "LIMIT_INVALID")
    if request.pts == channel.pts:
        return types.updates.ChannelDifferenceEmpty(pts=channel.pts, final=True, timeout=30)
    if channel.pts - request.pts >= request.limit:
        return _too_long(call, channel)
    missed = [event for event in channel.events if event.pts > request.pts]
    fresh = {event.post.id for event in missed if event.kind == "new"}
    return types.updates.ChannelDifference(
        pts=channel.pts,
        new_messages=[
            _message(call.world, call.bot, channel, channel.posts[post_id])
            for post_id in sorted(fresh & channel.posts.keys())
        ],
        other_updates=[
            _update(call.world, call.bot, channel, event)
            for event in missed
            if event.kind != "new" and event.post.id not in fresh
        ],
        chats=[_channel(call.world, call.bot, channel)],
        users=[],
        final=True,
        timeout=30,
    )


def _too_long(call: Call, channel: Channel) -> Any:
    """Too much was missed: where the channel stands now, and its latest messages."""
    latest = sorted(channel.posts)[: -RECENT_MESSAGES - 1 : -1]
    dialog = types.Dialog(
        peer=types.PeerChannel(channel.id),
        top_message=channel.top_message_id,
        read_inbox_max_id=channel.top_message_id,
        read_outbox_max_id=channel.top_message_id,
        unread_count=0,
        unread_mentions_count=0,
        unread_reactions_count=0,
        unread_poll_votes_count=0,
        notify_settings=types.PeerNotifySettings(),
        pts=channel.pts,
    )
    return types.updates.ChannelDifferenceTooLong(
        dialog=dialog,
        messages=[_message(call.world, call.bot, channel, channel.posts[each]) for each in latest],
        chats=[_channel(call.world, call.bot, channel)],
        users=[],
        final=True,
        timeout=30,
    )


def updates_of(world: World, bot: Bot, channel: Channel, event: ChannelEvent) -> Any:
    """What a logged-in session of a member hears of a change."""
    return types.Updates(
        updates=[_update(world, bot, channel, event)],
        users=[],
        chats=[_channel(world, bot, channel)],
        date=datetime.now(UTC),
        seq=0,
    )


def _update(world: World, bot: Bot, channel: Channel, event: ChannelEvent) -> Any:
    if event.kind == "deleted":
        return types.UpdateDeleteChannelMessages(
            channel_id=channel.id, messages=[event.post.id], pts=event.pts, pts_count=1
        )
    kind = types.UpdateNewChannelMessage if event.kind == "new" else types.UpdateEditChannelMessage
    return kind(message=_message(world, bot, channel, event.post), pts=event.pts, pts_count=1)


# -- how the world looks to one account --------------------------------------------------------


def _channel(world: World, bot: Bot, channel: Channel) -> Any:
    return types.Channel(
        id=channel.id,
        title=channel.title,
        photo=types.ChatPhotoEmpty(),
        date=channel.posts[min(channel.posts)].date if channel.posts else datetime.now(UTC),
        broadcast=True,
        access_hash=world.access_hash(bot.id, channel.id),
        username=channel.username,
        admin_rights=types.ChatAdminRights(post_messages=True, edit_messages=True),
    )


def _message(world: World, bot: Bot, channel: Channel, post: Post) -> Any:
    peer = types.PeerChannel(channel.id)
    if post.service:
        return types.MessageService(
            id=post.id,
            peer_id=peer,
            date=post.date,
            post=True,
            action=types.MessageActionChannelCreate(channel.title),
        )
    return types.Message(
        id=post.id,
        peer_id=peer,
        date=post.date,
        message=post.text,
        post=True,
        media=_media(world, bot, post.media),
        reply_to=post.reply_to and types.MessageReplyHeader(reply_to_msg_id=post.reply_to),
        reply_markup=post.reply_markup and _reply_markup(post.reply_markup),
        views=1,
        forwards=0,
        edit_date=post.edit_date,
        grouped_id=post.grouped_id,
    )


def _reply_markup(markup: Json) -> Any:
    """The buttons under a post; the Bot API lets only these three kinds into a channel."""
    rows = [
        types.KeyboardInlineButtonRow(
            [types.KeyboardInlineButton(button["text"], _button_type(button)) for button in row]
        )
        for row in markup["inline_keyboard"]
    ]
    return types.ReplyInlineMarkup(rows)


def _button_type(button: Json) -> Any:
    if "url" in button:
        return types.InlineButtonTypeUrl(button["url"])
    if "copy_text" in button:
        return types.InlineButtonTypeCopy(button["copy_text"]["text"])
    return types.InlineButtonTypeCallback(button["callback_data"].encode())


def _media(world: World, bot: Bot, media: Document | Photo | None) -> Any:
    match media:
        case None:
            return None
        case Photo():
            return types.MessageMediaPhoto(
                photo=types.Photo(
                    id=media.id,
                    access_hash=world.access_hash(bot.id, media.id),
                    file_reference=world.file_reference(bot.id, media.id),
                    date=media.date,
                    sizes=_photo_sizes(media.sizes),
                    dc_id=media.dc_id,
                )
            )
        case Document():
            return types.MessageMediaDocument(
                document=_document(world, bot, media),
                alt_documents=[_document(world, bot, each) for each in media.alternatives] or None,
                video=media.kind in ("video", "round_video") or None,
                round=media.kind == "round_video" or None,
                voice=media.kind == "voice" or None,
            )


def _document(world: World, bot: Bot, document: Document) -> Any:
    return types.Document(
        id=document.id,
        access_hash=world.access_hash(bot.id, document.id),
        file_reference=world.file_reference(bot.id, document.id),
        date=document.date,
        mime_type=document.mime_type,
        size=document.content.size,
        dc_id=document.dc_id,
        attributes=_attributes(document),
        thumbs=_photo_sizes(document.thumbnails) or None,
    )


def _attributes(document: Document) -> list[Any]:
    attributes: list[Any] = []
    if document.kind in ("video", "round_video", "animation"):
        attributes.append(
            types.DocumentAttributeVideo(
                duration=document.duration_s,
                w=document.width,
                h=document.height,
                round_message=document.kind == "round_video",
                supports_streaming=document.kind == "video",
                nosound=document.kind == "animation",
                video_codec=document.video_codec,
            )
        )
    if document.kind == "animation":
        attributes.append(types.DocumentAttributeAnimated())
    if document.kind in ("audio", "voice"):
        attributes.append(
            types.DocumentAttributeAudio(
                duration=round(document.duration_s),
                voice=document.kind == "voice",
                title=document.title,
                performer=document.performer,
            )
        )
    if document.kind == "document" and document.width:
        attributes.append(types.DocumentAttributeImageSize(w=document.width, h=document.height))
    if document.file_name is not None:
        attributes.append(types.DocumentAttributeFilename(document.file_name))
    return attributes


def _photo_sizes(sizes: Sequence[PhotoSize]) -> list[Any]:
    return [
        types.PhotoSize(type=size.kind, w=size.width, h=size.height, size=size.content.size)
        for size in sizes
    ]


# -- upload.* ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileChunk:
    """A piece of a file on its way; it is read only when the line is free for it."""

    content: Content
    offset: int
    length: int
    storage: bytes
    count: FileCount | None

    def parts(self) -> Sequence[bytes]:
        # Written out by hand rather than by the TL class, which would copy a MiB twice.
        body = self.content.read(self.offset, self.length)
        if self.count is not None:
            self.count.bytes_served += len(body)
        head = struct.pack("<I4sI", FILE_CONSTRUCTOR, self.storage, 0)
        if len(body) < 254:
            return (head, TLObject.serialize_bytes(body))
        return (head, b"\xfe" + len(body).to_bytes(3, "little"), body, bytes(-len(body) % 4))

    def halved(self) -> FileChunk:
        actual = max(0, min(self.length, self.content.size - self.offset))
        return replace(self, length=actual // 2)


PARTIAL = bytes(types.storage.FilePartial())
JPEG = bytes(types.storage.FileJpeg())


@method(functions.upload.GetFileRequest)
async def get_file(call: Call, request: Any) -> Any:
    check_window(request.offset, request.limit, precise=bool(request.precise))
    content, counted = _locate(call, request.location)
    count = None
    if counted:
        count = call.shared.counters.files[request.location.id]
        count.requests += 1
        count.bytes_asked += request.limit
        count.windows.append((request.offset, request.limit))
    storage = PARTIAL if isinstance(request.location, types.InputDocumentFileLocation) else JPEG
    return FileChunk(content, request.offset, request.limit, storage, count)


@method(functions.upload.GetFileHashesRequest)
async def get_file_hashes(call: Call, request: Any) -> Any:
    """SHA-256 of the 128 KiB parts in the MiB that starts at, or contains, the offset."""
    if request.offset < 0 or request.offset % HASH_PART_BYTES:
        raise RpcFailure(400, "OFFSET_INVALID")
    content, _ = _locate(call, request.location)
    stop = min(content.size, (request.offset // MIB + 1) * MIB)
    hashes = []
    for offset in range(request.offset, stop, HASH_PART_BYTES):
        body = content.read(offset, HASH_PART_BYTES)
        hashes.append(types.FileHash(offset, len(body), hashlib.sha256(body).digest()))
    return hashes


def check_window(offset: int, limit: int, *, precise: bool) -> None:
    """What may be asked of a file at once (core.telegram.org/api/files#downloading-files)."""
    step = PRECISE_STEP_BYTES if precise else OFFSET_STEP_BYTES
    if offset < 0 or offset % step:
        raise RpcFailure(400, "OFFSET_INVALID")
    if not 0 < limit <= MIB or limit % step or (not precise and MIB % limit):
        raise RpcFailure(400, "LIMIT_INVALID")
    if offset // MIB != (offset + limit - 1) // MIB:
        raise RpcFailure(400, "LIMIT_INVALID")


def _locate(call: Call, location: Any) -> tuple[Content, bool]:
    """The bytes meant, and whether they are the file itself rather than its thumbnail."""
    match location:
        case types.InputDocumentFileLocation():
            kind: type[Document] | type[Photo] = Document
        case types.InputPhotoFileLocation():
            kind = Photo
        case _:
            raise RpcFailure(400, "LOCATION_INVALID")
    file = call.world.file(location.id)
    access_hash = call.world.access_hash(call.bot.id, location.id)
    if not isinstance(file, kind) or location.access_hash != access_hash:
        raise RpcFailure(400, "FILE_ID_INVALID")
    if file.dc_id != call.dc.id:
        raise RpcFailure(303, f"FILE_MIGRATE_{file.dc_id}")
    state = call.world.reference_state(call.bot.id, file.id, location.file_reference)
    if state != "valid":
        raise RpcFailure(400, f"FILE_REFERENCE_{state.upper()}")
    if isinstance(file, Document) and not location.thumb_size:
        return file.content, True
    sizes = file.thumbnails if isinstance(file, Document) else file.sizes
    for size in sizes:
        if size.kind == location.thumb_size:
            return size.content, isinstance(file, Photo)
    raise RpcFailure(400, "LOCATION_INVALID")
