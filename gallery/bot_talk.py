"""Bot talk: what the bot does at Telegram, with the patience that Telegram asks for.

An answer that is lost on its way back is asked for again, so in a bad moment something may be said
twice; what is copied into a channel is copied once or not at all.
"""

import logging
import re
from typing import Any, Final

from gallery.bot_api import NO_ANSWER, BotApi, BotApiError, wait_politely
from gallery.bot_words import Keyboard, without_links
from gallery.files import MALFORMED

log = logging.getLogger(__name__)

PATIENCE_S: Final = (1.0, 5.0, 25.0, 125.0)
# In refusals Telegram quotes what it does not like, and the links in it are nobody else's business.
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*")


class Talk:
    """One bot, speaking."""

    def __init__(self, api: BotApi, bot_id: int) -> None:
        self._api = api
        self._bot_id = bot_id
        self._username: str | None = None

    async def say(
        self,
        chat_id: int,
        html: str,
        keyboard: Keyboard | None = None,
        *,
        reply_to: int | None = None,
        is_secret: bool = False,
    ) -> None:
        """Write to a chat; a secret cannot be sent on from there."""
        arguments: dict[str, Any] = {"chat_id": chat_id, **_text(html)}
        if reply_to is not None:
            reply = {"message_id": reply_to, "allow_sending_without_reply": True}
            arguments["reply_parameters"] = reply
        if is_secret:
            arguments["protect_content"] = True
        await self._write("sendMessage", arguments, keyboard or [])

    async def rewrite(self, chat_id: int, message_id: int, html: str, keyboard: Keyboard) -> None:
        """Put something else in the place of what the bot wrote."""
        arguments = {"chat_id": chat_id, "message_id": message_id, **_text(html)}
        try:
            await self._write("editMessageText", arguments, keyboard)
        except BotApiError as error:
            if "message is not modified" not in error.description:
                raise

    async def acknowledge(self, press_id: str, words: str, *, loudly: bool = False) -> None:
        """Answer whoever pressed a button, if they still wait for it."""
        arguments: dict[str, Any] = {
            "callback_query_id": press_id,
            "text": words,
            "show_alert": loudly,
        }
        try:
            await self._api.call("answerCallbackQuery", **arguments)
        except BotApiError as error:
            log.info("a press stays without an answer: %s", told_safely(error))

    async def delete(self, chat_id: int, message_id: int) -> None:
        """Take a message away, if the bot may."""
        try:
            await self.ask("deleteMessage", chat_id=chat_id, message_id=message_id)
        except BotApiError as error:
            log.info("a command stays in the channel: %s", told_safely(error))

    async def copy(self, from_chat_id: int, message_ids: list[int], chat_id: int) -> list[int]:
        """Copy messages to another chat, an album as one; their ids there. Raise BotApiError."""
        place = {"chat_id": chat_id, "from_chat_id": from_chat_id}
        if len(message_ids) == 1:
            # The older of the two methods: a server of one's own may not know the other.
            answer = [await self._once("copyMessage", **place, message_id=message_ids[0])]
        else:
            answer = await self._once("copyMessages", **place, message_ids=message_ids)
        try:
            return [int(each["message_id"]) for each in answer]
        except MALFORMED:
            raise BotApiError(NO_ANSWER, "copies of another kind") from None

    async def may_post(self, chat_id: int) -> bool:
        """Whether the bot is an administrator there with the right to post."""
        try:
            member = await self.ask("getChatMember", chat_id=chat_id, user_id=self._bot_id)
            return bool(member["status"] == "administrator" and member["can_post_messages"])
        except (BotApiError, *MALFORMED) as error:
            log.info("no right to post in %d: %s", chat_id, type(error).__name__)
            return False

    async def channel_called(self, username: str) -> int | None:
        """The id of the channel with this username, if there is one that the bot may know."""
        try:
            return int((await self.ask("getChat", chat_id=f"@{username}"))["id"])
        except (BotApiError, *MALFORMED):
            return None

    async def username(self) -> str:
        """What the bot is called, asked for once; empty while Telegram does not say."""
        if self._username is None:
            try:
                self._username = str((await self._api.call("getMe"))["username"])
            except (BotApiError, *MALFORMED):
                return ""
        return self._username

    async def ask(self, method: str, **arguments: Any) -> Any:
        """The result of a method; raise BotApiError when it is refused, or stays away for long."""
        for patience_s in PATIENCE_S:
            try:
                return await self._api.call(method, **arguments)
            except BotApiError as error:
                if error.is_final:
                    raise
                log.warning("%s: %s", method, told_safely(error))
                await wait_politely(error, patience_s)
        return await self._api.call(method, **arguments)

    async def _once(self, method: str, **arguments: Any) -> Any:
        """The same for what must not happen twice: asked again only if it surely did not happen."""
        for patience_s in PATIENCE_S:
            try:
                return await self._api.call(method, **arguments)
            except BotApiError as error:
                if error.code != 429:
                    raise
                await wait_politely(error, patience_s)
        return await self._api.call(method, **arguments)

    async def _write(self, method: str, arguments: dict[str, Any], keyboard: Keyboard) -> None:
        """With all of the buttons, or without those that this Telegram does not take."""
        try:
            await self.ask(method, **arguments, **_markup(keyboard))
        except BotApiError as error:
            is_about_buttons = re.search("button|keyboard", error.description, re.IGNORECASE)
            if error.code != 400 or not is_about_buttons:
                raise
            log.warning("buttons are left out: %s", told_safely(error))
            await self.ask(method, **arguments, **_markup(without_links(keyboard)))


def told_safely(error: BotApiError) -> str:
    """A refusal without what it quotes."""
    return f"{error.code} {_QUOTED.sub('…', error.description)}"


def _text(html: str) -> dict[str, Any]:
    # Whoever makes previews would open the links before the owner does.
    return {
        "text": html,
        "parse_mode": "HTML",
        "link_preview_options": {"is_disabled": True},
    }


def _markup(keyboard: Keyboard) -> dict[str, Any]:
    return {"reply_markup": {"inline_keyboard": keyboard}} if keyboard else {}
