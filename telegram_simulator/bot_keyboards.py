"""The buttons under what bots write, checked as strictly as Telegram does or stricter.

Sources: core.telegram.org/bots/api#inlinekeyboardmarkup; the words are those of Telegram's server.
Buttons of kinds that nobody here needs (payments, games, inline queries, logins) are refused.
"""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from .bot_arguments import Arguments, json_argument, refuse
from .bot_text import WrongLink, check_link
from .world import Json

log = logging.getLogger(__name__)

BUTTONS_MAX, BUTTONS_IN_A_ROW_MAX = 100, 8
CALLBACK_DATA_BYTES_MAX = 64
COPY_TEXT_LENGTH_MAX = 256
ACTIONS = ("url", "callback_data", "web_app", "copy_text")
OTHER_ACTIONS = frozenset(
    {
        *("login_url", "switch_inline_query", "switch_inline_query_current_chat", "pay"),
        *("switch_inline_query_chosen_chat", "callback_game"),
    }
)


def read_reply_markup(
    arguments: Arguments, *, in_channel: bool, only_inline: bool = False
) -> Json | None:
    """The `reply_markup` of a call; None when there is none, or an empty one. Raises ApiError."""
    markup = json_argument(arguments, "reply_markup", "reply keyboard markup")
    if markup is None:
        return None
    if not isinstance(markup, dict):
        refuse(400, "Bad Request: object expected as reply markup")
    if "inline_keyboard" in markup:
        rows = _inline_rows(markup["inline_keyboard"], in_channel=in_channel)
        return {"inline_keyboard": rows} if rows else None
    if not markup:
        return None
    if only_inline or in_channel:
        refuse(400, "Bad Request: inline keyboard expected")
    return _other_markup(markup)


def _inline_rows(rows: Any, *, in_channel: bool) -> list[list[Json]]:
    if not isinstance(rows, list):
        refuse(400, 'Bad Request: field "inline_keyboard" must be of type Array')
    if any(not isinstance(row, list) for row in rows):
        refuse(
            400,
            'Bad Request: field "inline_keyboard" of the InlineKeyboardMarkup '
            "must be an Array of Arrays",
        )
    checked = [[_button(button, in_channel=in_channel) for button in row] for row in rows if row]
    if any(len(row) > BUTTONS_IN_A_ROW_MAX for row in checked):
        refuse(400, "Bad Request: reply markup is too long")
    if sum(map(len, checked)) > BUTTONS_MAX:
        refuse(400, "Bad Request: reply markup is too long")
    return checked


def _button(button: Any, *, in_channel: bool) -> Json:
    if not isinstance(button, dict):
        _no_button("InlineKeyboardButton must be an Object")
    if "text" not in button:
        _no_button('Can\'t find field "text"')
    text = button["text"]
    if not isinstance(text, str):
        _no_button('Field "text" must be of type String')
    if not text.strip():
        # Telegram leaves such a button out without a word; here it is a mistake that is found.
        _no_button("the text of a button is empty")
    if others := button.keys() & OTHER_ACTIONS:
        log.error("buttons with %s are not part of the pocket Telegram", ", ".join(sorted(others)))
        refuse(400, "Bad Request: BUTTON_TYPE_INVALID")
    actions = [name for name in ACTIONS if button.get(name)]
    if not actions:
        _no_button("Text buttons are unallowed in the inline keyboard")
    if len(actions) > 1:
        # Telegram takes one of them and forgets the other.
        _no_button("exactly one of its optional fields must be used")
    (action,) = actions
    return {"text": text, action: _action(action, button[action], in_channel=in_channel)}


def _action(action: str, value: Any, *, in_channel: bool) -> Any:
    match action:
        case "url":
            return _link("URL", value)
        case "callback_data":
            if len(_string(action, value).encode()) > CALLBACK_DATA_BYTES_MAX:
                refuse(400, "Bad Request: BUTTON_DATA_INVALID")
            return value
        case "web_app":
            if in_channel:
                refuse(400, "Bad Request: BUTTON_TYPE_INVALID")
            url = value.get("url") if isinstance(value, dict) else None
            return {"url": _link("Web App URL", url, https_only=True)}
        case _:
            copied = value.get("text") if isinstance(value, dict) else None
            if not 0 < len(_string("text", copied)) <= COPY_TEXT_LENGTH_MAX:
                refuse(400, "Bad Request: BUTTON_COPY_TEXT_INVALID")
            return {"text": copied}


def _link(described: str, value: Any, *, https_only: bool = False) -> str:
    link = _string("url", value)
    try:
        return check_link(link, https_only=https_only)
    except WrongLink as problem:
        where = f"inline keyboard button {described} '{link}'"
        refuse(400, f"Bad Request: {where} is invalid: {problem}")


def _other_markup(markup: Json) -> Json:
    """A keyboard in place of the letters, its end, or a request to reply."""
    if "keyboard" in markup:
        rows = markup["keyboard"]
        if not isinstance(rows, list) or any(not isinstance(row, list) for row in rows):
            refuse(400, 'Bad Request: field "keyboard" must be an Array of Arrays')
        return markup
    wanted = [name for name in ("remove_keyboard", "force_reply") if name in markup]
    if not wanted:
        refuse(400, "Bad Request: can't parse reply keyboard markup JSON object")
    for name in wanted:
        if not isinstance(markup[name], bool):
            refuse(400, f'Bad Request: field "{name}" must be of type Boolean')
    return markup


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        _no_button(f'Field "{name}" must be of type String')
    return value


def _no_button(problem: str) -> NoReturn:
    refuse(400, f"Bad Request: can't parse inline keyboard button: {problem}")
