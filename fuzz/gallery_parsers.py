"""The gallery: what it makes of cursors, searches, listings, Bot API messages, links and tokens."""

from __future__ import annotations

import base64
import json
import math
import sqlite3
import unicodedata
from contextlib import closing
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from gallery import files, http_file, index, messages, presentation, rows, search, shares, tokens
from gallery.errors import ApiError

from .source import Source, Target, json_object, json_value
from .worker_parsers import SECRET, claims_of, made_up_token

CHAT_ID = -1001500000001
LISTED = {
    "chat_id": CHAT_ID,
    "message_id": 2,
    "name": "film.mp4",
    "mime_type": "video/mp4",
    "size": 1000,
    "date": 1_700_000_000,
    "duration": 8.0,
    "width": 640,
    "height": 360,
    "caption": "A film",
    "has_thumbnail": True,
}
NAMES = (
    *("film.mp4", "Amélie (2001).mkv", "Episode 2.mp4", "Episode 10.mp4", "", "....", "映画.mp4"),
    *("a/b\\c", "\u202egpj.exe", "x" * 300, "photo_1.jpg", "12_34.", "\ud800.mp4"),
)


@cache
def shelf() -> sqlite3.Connection:
    """An index with some films in it, more than fit on a page."""
    connection = sqlite3.connect(":memory:")
    for statement in index.SCHEMA:
        connection.execute(statement)
    for number in range(1, index.PAGE_FILES + 12):
        name = NAMES[number % len(NAMES)]
        facts = {"message_id": number, "name": name, "size": number * 7 % 5, "date": number // 3}
        connection.execute(rows.PUT, rows.as_row(files.MediaFile.from_listing(LISTED | facts), 0))
    return connection


# -- searches and cursors ------------------------------------------------------------------------


def made_up_cursor(source: Source, sort: str) -> str:
    """A cursor of ours, one that is nearly ours, or any text."""
    if source.pick((False, False, False, True)):
        return source.text()
    value = source.text() if sort == "name" else source.pick((0, 1.5, 2**63 - 1))
    usual: list[Any] = [sort, value, 3, CHAT_ID]
    for _ in range(source.pick((0, 0, 1, 2))):
        usual[source.number(0, 3)] = json_value(source, 1)
    text = json.dumps(usual[: source.pick((4, 4, 4, 3))])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(sort: str, cursor: str) -> search.Position | None:
    try:
        return search.read_cursor(sort, cursor)
    except ApiError as error:
        refusal = error.status, error.code
    assert refusal == (400, "bad_cursor")
    return None


def check_gallery_search(source: Source) -> None:
    """No query and no cursor breaks the index; a refusal is ours; every page leads to the next."""
    sort = source.pick(tuple(search.ORDERS))
    text, cursor = source.text(), made_up_cursor(source, sort)
    assert all(word == search.fold(word) or not word.isascii() for word in search.words(text))
    assert len(search.name_key(text)) <= search.NAME_KEY_MAX_CHARACTERS
    position = _position(sort, cursor)
    if position is not None:
        assert search.read_cursor(sort, search.write_cursor(sort, position)) == position
    kind = source.pick((None, None, *files.KINDS))
    query = index.Query(source.pick((text, "", "film", "episode 1")), kind, None, sort)
    page = index._page(shelf(), query, position)
    assert len(page.files) <= min(page.total, index.PAGE_FILES)
    if page.next is not None:
        following = index._page(shelf(), query, search.read_cursor(sort, page.next))
        assert following.files
        assert not set(following.files) & set(page.files)


# -- what others say of files --------------------------------------------------------------------


def check_gallery_listing(source: Source) -> None:
    """A listed file is refused as malformed, or fits into the index, a URL, a header and JSON."""
    item = json_object(source, tuple(LISTED), LISTED)
    if source.pick((False, True)):
        item["name"] = source.pick((*NAMES, source.text()))
        item["caption"] = source.text()
    try:
        file = files.MediaFile.from_listing(item)
    except files.MALFORMED:
        return
    _check_file(file)


_MEDIA = {"file_id": "a", "file_unique_id": "b", "file_size": 10, "duration": 3, "length": 4}
_PHOTO = [{**_MEDIA, "width": 90, "height": 60}, {**_MEDIA, "width": 900, "height": 600}]


def check_gallery_updates(source: Source) -> None:
    """So is a file in a message of the Bot API."""
    field = source.pick(messages._FILE_FIELDS)
    names = (*_MEDIA, "file_name", "mime_type", "width", "height", "thumbnail")
    message: dict[str, Any] = {
        "message_id": 2,
        "chat": {"id": CHAT_ID, "title": "Films"},
        "date": 1_700_000_000,
        field: json_object(source, names, _MEDIA),
    }
    if source.pick((False, False, True)):
        message["photo"] = _PHOTO
    message = json_object(source, (*message, "caption", "photo"), message)
    try:
        found = messages.file_in(message)
    except files.MALFORMED:
        return
    if found is not None:
        file, bot_file = found
        _check_file(file)
        assert bot_file.file_id.encode().decode() == bot_file.file_id


def _check_file(file: files.MediaFile) -> None:
    for text, most in ((file.name, files.NAME_MAX_CHARACTERS), (file.mime_type, 255)):
        assert len(text) <= most
        assert "\n" not in text
    assert len(file.caption) <= files.CAPTION_MAX_CHARACTERS
    for character in file.name + file.mime_type + file.caption:
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(character) not in ("RLO", "LRO", "RLE", "LRE", "RLI")
    assert file.kind in files.KINDS
    assert abs(file.chat_id) <= files.INTEGER_MAX
    assert 0 < file.message_id <= files.MESSAGE_ID_MAX
    assert file.duration is None or (math.isfinite(file.duration) and file.duration >= 0)
    json.dumps(file.__dict__, allow_nan=False).encode()
    assert rows.as_file(tuple(rows.as_row(file, 1)[name] for name in rows.FACTS)) == file
    with closing(shelf().cursor()) as cursor:
        cursor.execute("SAVEPOINT before")
        cursor.execute(rows.PUT, rows.as_row(file, 1))
        cursor.execute("ROLLBACK TO before")
    url = urlsplit(files.stream_url("https://worker.example", file, "token"))
    assert (url.netloc, url.query, url.fragment) == ("worker.example", "token=token", "")
    assert len(url.path.split("/")) in (4, 5)
    assert url.path.rpartition("/")[2] not in (".", "..")
    assert url.path.isascii()
    title = presentation.title_of(file)
    assert title.strip()
    assert title.isprintable()
    headers = http_file.file_headers(file, as_download=False)
    assert all(value.isascii() and value.isprintable() for value in headers.values())


# -- links and tokens ----------------------------------------------------------------------------


def check_gallery_shares(source: Source) -> None:
    """Text is no share of ours unless we signed it; what we signed is read as it was written."""
    assert shares.read_share(SECRET, source.text()) is None
    body = (source.piece() + bytes(25))[:25]
    raw = body + shares._tag(source.pick((SECRET, SECRET, "another secret, long enough too")), body)
    text = base64.urlsafe_b64encode(raw).decode()
    share = shares.read_share(SECRET, text)
    if share is not None:
        assert shares.write_share(SECRET, share) == text
        assert share.has_ended(0) is False
        place = source.number(0, shares.SHARE_CHARACTERS - 1)
        spoilt = text[:place] + source.pick("Aa0-_é\n") + text[place + 1 :]
        assert spoilt == text or shares.read_share(SECRET, spoilt) is None


def check_gallery_tokens(source: Source) -> None:
    """Cookies and links are good or not, whatever they hold; those for others are not."""
    token = made_up_token(source, ("gallery", "files", "files", "worker"))
    end = tokens.small_file_token_end(SECRET, CHAT_ID, 2, token)
    if end is not None:
        claims = claims_of(token)
        assert (claims["aud"], claims["sub"]) == ("files", f"{CHAT_ID}/2")
        assert end == int(claims["exp"])
    # The mark in a session cannot be made up here, so none of these is one.
    assert tokens.read_session(SECRET, "a password", token) is None


_JWT_WORDS = (b'{"', b"HS256", b"none", b"backend", b"files", b"gallery", b"eyJ")

TARGETS = (
    Target.of(check_gallery_search, words=(b'"', b"AND", b"NEAR", b"*", b"newest"), runs=7000),
    Target.of(check_gallery_listing, words=(b"name", b"\xe2\x80\xae", b"\r\n"), runs=2500),
    Target.of(check_gallery_updates, words=(b"name", b"\xe2\x80\xae", b"\r\n"), runs=2500),
    Target.of(check_gallery_shares),
    Target.of(check_gallery_tokens, words=_JWT_WORDS, runs=6000),
)
