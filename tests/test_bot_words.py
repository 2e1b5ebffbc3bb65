"""What the bot reads and writes, without Telegram: links to posts, commands, numbers, buttons.

Goal: nothing is longer than Telegram takes and nothing of others is markup. Method: tables, and
hypothesis for what others may have written.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import JWT_SECRET
from hypothesis import given, settings
from hypothesis import strategies as st

from gallery import bot_words as words
from gallery.bot_words import Film
from gallery.files import MALFORMED, MediaFile
from gallery.messages import Place, command_in, origin_of, places_in
from gallery.shares import Links, Share, new_share, write_share
from telegram_simulator.bot_keyboards import read_reply_markup
from telegram_simulator.bot_text import parse_html

CHAT_ID = -1001234567890
NOW = 1_800_000_000.0


def media_file(**changes: Any) -> MediaFile:
    listed = {
        **{"chat_id": CHAT_ID, "message_id": 7, "name": "film.mp4", "mime_type": "video/mp4"},
        **{"size": 1_400_000_000, "date": 1, "duration": 6720, "width": 1920, "height": 800},
    }
    return MediaFile.from_listing({**listed, **changes})


def film(
    name: str = "film.mp4", base: str = "https://films.example", *, has_ended: bool = False
) -> Film:
    share = new_share(CHAT_ID, 7, 7 * 86400, NOW)
    links = Links(base, write_share(JWT_SECRET, share))
    return Film(media_file(name=name), share, links, has_ended)


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("https://t.me/c/1234567890/55", [Place(CHAT_ID, 55)]),
        ("http://telegram.me/c/1234567890/55?single", [Place(CHAT_ID, 55)]),
        ("t.me/Films_2/55", [Place("films_2", 55)]),
        ("see telegram.dog/films/5, T.ME/s/films/6.", [Place("films", 5), Place("films", 6)]),
        ("https://films.t.me/55", [Place("films", 55)]),
        ("https://t.me/c/1234567890/3/55", [Place(CHAT_ID, 55)]),
        ("https://t.me/films/55?comment=1", [Place("films", 55)]),
        ("tg://privatepost?channel=1234567890&post=55", [Place(CHAT_ID, 55)]),
        ("tg://resolve?domain=films&post=55", [Place("films", 55)]),
        ("https://t.me/films/55 https://t.me/films/55", [Place("films", 55)]),
        ("https://t.me/films", []),
        ("https://t.me/films/0", []),
        ("https://t.me/films/4294967295", []),
        ("https://t.me/films/55a", []),
        ("https://t.me/joinchat/AAAA55", []),
        ("https://evil.example/t.me/films/55", []),
        ("https://not-t.me/films/55", []),
        ("me@t.me/films/55", []),
        ("https://t.me/c/films/55", []),
        ("https://t.me/c/1234567890", []),
        ("", []),
    ],
)  # fmt: skip
def test_links_to_posts_are_found(text: str, places: list[Place]) -> None:
    assert places_in({"text": text}) == places


def test_links_under_other_words_are_found_too() -> None:
    entities = [
        {"type": "text_link", "offset": 0, "length": 4, "url": "https://t.me/films/55"},
        {"type": "bold", "offset": 0, "length": 4},
    ]
    assert places_in({"text": "this", "entities": entities}) == [Place("films", 55)]
    assert places_in({}) == []


@pytest.mark.parametrize(
    ("text", "length", "username", "command"),
    [
        ("/gallery", 8, None, "gallery"),
        ("/Gallery now", 8, None, "gallery"),
        ("/link@Pocket_bot", 16, "pocket_BOT", "link"),
        ("/link@other_bot", 15, "pocket_bot", None),
        ("/link@other_bot", 15, None, "link"),
        ("/link@pocket_bot", 16, "", None),
        ("/link", 5, "", "link"),
    ],
)
def test_commands_are_for_somebody(
    text: str, length: int, username: str | None, command: str | None
) -> None:
    entities = [{"type": "bot_command", "offset": 0, "length": length}]
    assert command_in({"text": text, "entities": entities}, username) == command


def test_a_command_stands_at_the_beginning() -> None:
    entities = [{"type": "bot_command", "offset": 7, "length": 5}]
    assert command_in({"text": "please /link", "entities": entities}) is None
    assert command_in({"text": "/link"}) is None


@pytest.mark.parametrize(
    "origin",
    [
        None,
        {"type": "user", "sender_user": {"id": 5}},
        {"type": "hidden_user", "sender_user_name": "x"},
        {"type": "chat", "sender_chat": {"id": CHAT_ID}},
    ],
)
def test_only_posts_come_from_somewhere(origin: Any) -> None:
    assert origin_of({"forward_origin": origin}) is None


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=3,
)


@settings(max_examples=50)
@given(st.fixed_dictionaries({}, optional={"text": ANYTHING, "entities": ANYTHING,
                                           "forward_origin": ANYTHING}))  # fmt: skip
def test_whatever_a_message_is_it_is_read_or_malformed(message: dict[str, Any]) -> None:
    for read in (command_in, places_in, origin_of):
        try:
            read(message)
        except MALFORMED:
            continue


# -- numbers in words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "told"),
    [(1, "1 B"), (999, "999 B"), (1000, "1 KB"), (5_000_000, "5.0 MB"), (49_900_000, "50 MB"),
     (1_400_000_000, "1.4 GB"), (999_999_999_999, "1.0 TB"), (10**18, "1000000 TB")],
)  # fmt: skip
def test_sizes(size: int, told: str) -> None:
    assert words.size_words(size) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "1 s"), (45, "45 s"), (60, "1 min"), (200, "3 min 20 s"), (3600, "1 h"),
     (6720, "1 h 52 min")],
)  # fmt: skip
def test_lengths(seconds: float, told: str) -> None:
    assert words.length_words(seconds) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(300, "5 minutes"), (1, "1 minute"), (3599.5, "1 hour"), (86399.2, "1 day"),
     (7 * 86400, "7 days"), (82_800, "23 hours"), (0, "no time")],
)  # fmt: skip
def test_what_is_left(seconds: float, told: str) -> None:
    assert words.lasting_words(seconds) == told


def test_ends() -> None:
    share = Share("A" * 12, CHAT_ID, 7, 1_764_792_900)
    now = share.expires_at - 7 * 86400 if share.expires_at else 0
    assert words.end_words(share, now) == "Good for 7 days, until 3 December 2025, 20:15 UTC."
    lasting = Share("A" * 12, CHAT_ID, 7, None)
    assert words.end_words(lasting, now) == "Good until it is revoked."


def test_what_is_unknown_is_left_out() -> None:
    blank = media_file(name="", size=0, duration=None, width=None, height=None)
    assert words.film_html(blank) == "<b>Film</b>"


# -- texts and buttons ---------------------------------------------------------------------------


@given(st.lists(st.text(max_size=300), min_size=1, max_size=25), st.booleans(), st.booleans())
def test_whatever_films_are_called_telegram_takes_the_answer(
    names: list[str], is_local: bool, is_channel: bool
) -> None:
    base = "http://localhost:8080" if is_local else "https://films.example"
    films = [film(name, base, has_ended=not number % 7) for number, name in enumerate(names, 1)]
    answers = words.in_answers(films, NOW)
    assert [each for some in answers for each in some] == films
    for some in answers:
        html = words.links_html(some, NOW)
        text, entities = parse_html(html)
        assert len(text.encode("utf-16-le")) // 2 <= words.TEXT_MAX
        assert words.text_length(html) == len(text.encode("utf-16-le")) // 2
        kinds = {"bold"} if is_local else {"bold", "text_link"}
        assert {each["type"] for each in entities} <= kinds | {"code"}
        markup = {"inline_keyboard": words.links_keyboard(some, for_owner=not is_channel)}
        read_reply_markup({"reply_markup": json.dumps(markup)}, in_channel=is_channel)


def test_ten_films_of_common_names_are_one_answer() -> None:
    name = "A Film of a Rather Long Name, as People Give Them (2026) [1080p].mkv"
    for base in ("https://rangegram-abcd.onrender.com", "http://localhost:8080"):
        films = [film(name, base)] * 10
        assert words.in_answers(films, NOW) == [films]
        assert [len(some) for some in words.in_answers(films * 2, NOW)] == [10, 10]


def test_a_button_says_in_64_bytes_what_it_is_about() -> None:
    keyboard = words.links_keyboard([film(), film(has_ended=True)], for_owner=True)
    data = [button["callback_data"] for row in keyboard for button in row if "url" not in button]
    assert data
    assert all(len(each.encode()) <= words.DATA_MAX_BYTES for each in data)


def test_an_address_that_is_too_long_to_copy_has_no_button_for_it() -> None:
    long = film(base=f"https://films.example/{'x' * 200}")
    texts = [button["text"] for row in words.links_keyboard([long], for_owner=True)
             for button in row]  # fmt: skip
    assert "Copy link" not in texts
    assert "Watch" in texts


@pytest.mark.parametrize(
    ("url", "takes"),
    [("http://localhost:8080/", False), ("http://127.0.0.1:8080/", True), ("http://films/", False),
     ("http://[::1]:8080/", True), ("https://films.example/x", True), ("http://films./", False)],
)  # fmt: skip
def test_telegram_wants_a_dot_in_the_name_of_a_host(url: str, takes: bool) -> None:
    assert words.is_linkable(url) is takes


@given(
    st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=30, unique=True),
    st.lists(st.integers(-(10**15), -1_000_000_000_000), min_size=1, max_size=5),
)
def test_offers_name_every_message_in_what_a_button_holds(ids: list[int], chats: list[int]) -> None:
    groups = words.in_puts(sorted(ids), chats)
    assert [each for group in groups for each in group] == sorted(ids)
    for group in groups:
        for chat_id in chats:
            data = words.put_data(chat_id, group)
            assert len(data) <= words.DATA_MAX_BYTES
            assert words.read_put_data(data) == (chat_id, list(group))


def test_albums_are_offered_as_one() -> None:
    ids = list(range(2_000_000_000, 2_000_009_990, 999))  # strangers write in between
    assert words.in_puts(ids[:10], [CHAT_ID]) == [ids[:10]]


def test_the_names_of_channels_are_cut() -> None:
    ((button,),) = words.put_keyboard([(CHAT_ID, "x" * 500)], [5])
    assert len(button["text"]) == words.BUTTON_TEXT_MAX
