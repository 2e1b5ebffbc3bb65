"""The gallery: what it makes of cursors, searches, listings, Bot API messages, links and tokens."""

from __future__ import annotations

import base64
import json
import math
import re
import sqlite3
import unicodedata
from contextlib import closing, suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from gallery import (
    dav,
    files,
    http_file,
    index,
    long_answers,
    messages,
    presentation,
    rows,
    safe_names,
    search,
    shares,
    sign_in,
    split_films,
    subtitle_names,
    tokens,
    webvtt,
)
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


# -- what names say ------------------------------------------------------------------------------

_SUBTITLE_NAMES = ("Film.en.srt", "Film (2019).pt-BR.forced.ass", "film_2 English sdh.vtt", ".srt")


def check_gallery_names(source: Source) -> None:
    """Any name is one that file systems take; what it tells of films and languages is within
    bounds."""
    name = files.clean_line(source.pick((source.text(), *NAMES, *_SUBTITLE_NAMES)))
    safe = safe_names.safe_name(name)
    assert safe_names.safe_name(safe) == safe
    assert len(safe.encode()) <= safe_names.NAME_MAX_BYTES + 1
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('<>:"/\\|?*\0')
    numbered = safe_names.numbered(safe, source.number(1, files.MESSAGE_ID_MAX))
    assert len(numbered.encode()) <= safe_names.NAME_MAX_BYTES
    assert safe_names.is_numbered(numbered)
    assert dav.read_path(f"{safe}/{numbered}") == [safe, numbered]
    stems = subtitle_names.thinkable_stems(name)
    assert len(stems) <= subtitle_names.STEM_MAX_WORDS
    for stem in (None, *stems):
        track = subtitle_names.track_of(name, stem)
        assert re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,4})?", track.language)
        assert 0 < len(track.label) < 200
    part = split_films.part_of(name)
    assert part is None or (0 < part.number < 1000 and name.startswith(part.whole[:1]))


def check_gallery_parts(source: Source) -> None:
    """However parts were posted, each is told of once, and what is joined counts from one."""
    pieces = [
        split_films.Piece(
            place, source.number(1, 4), source.pick((1024, 1024, 5)), source.pick((False, True))
        )
        for place in range(1, source.number(0, 12) + 1)
    ]
    found = split_films.sort_out(pieces, may_play_alone=source.pick((False, True)))
    told = [piece for group in found for piece in group.pieces]
    assert sorted(told, key=lambda piece: piece.message_id) == pieces
    for group in found:
        numbers = [piece.number for piece in group.pieces]
        if isinstance(group, split_films.Joined):
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) > 1
        else:
            assert not set(group.missing) & set(numbers)


_SUBTITLE_HEADS = (
    *(b"", b"\xff\xfe", b"1\n00:00:01,0 --> 00:00:02,0\n"),
    b"WEBVTT\n\n00:01.000 --> 00:02.000\n",
    b"[Events]\nDialogue: 0,0:00:01.00,0:00:02.00,,,0,0,0,,",
)
_CUE = re.compile(r"(\d\d+:\d\d:\d\d\.\d{3}) --> (\d\d+:\d\d:\d\d\.\d{3})\n((?:.+\n)+)")


def check_gallery_subtitles(source: Source) -> None:
    """Bytes are no subtitles, or WebVTT in which nothing but times, text and three tags stands."""
    piece = source.pick((source.piece(), source.text().encode("utf-8", "replace")))
    given = source.pick(_SUBTITLE_HEADS) + piece
    try:
        text = webvtt.to_webvtt(given, source.pick(("", "ru", "ja", "pl")))
    except webvtt.NotSubtitlesError:
        return
    head, _, cues = text.partition("\n\n")
    assert head == "WEBVTT"
    for block in cues.removesuffix("\n").split("\n\n"):
        cue = _CUE.fullmatch(f"{block}\n")
        assert cue, block
        assert "-->" not in cue[3]
        assert not re.sub("</?[ibu]>", "", cue[3]).count("<")
        assert not re.search("&(?!amp;|lt;|gt;)", cue[3])


def check_gallery_programs(source: Source) -> None:
    """Paths of WebDAV and passwords in headers are read or refused; XML holds any text."""
    with suppress(ApiError):
        names = dav.read_path(source.text())
        assert len(names) <= 2
        assert all(names)
    password = source.text()
    pair = base64.b64encode(f"me:{password}".encode("utf-8", "replace")).decode()
    shown = sign_in.basic_password(f"Basic {pair}")
    assert shown == password.encode("utf-8", "replace").decode()
    sign_in.basic_password(source.pick((source.text(), f"Basic {source.text()}")))
    text = source.text()
    element = ElementTree.fromstring(f'<a b="{long_answers.xml_text(text)}"/>')  # noqa: S314
    assert len(element.get("b") or "") <= len(text)


# -- links and tokens ----------------------------------------------------------------------------


def check_gallery_shares(source: Source) -> None:
    """Text is no share of ours unless we signed it; what we signed is read as it was written."""
    assert shares.read_share(SECRET, source.text()) is None
    body = (source.piece() + bytes(25))[:25]
    secret = source.pick((SECRET, SECRET, "another secret, long enough too"))
    raw = body + shares.SEAL.tag(secret, body)
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


_SUBTITLE_WORDS = (b"{\\i1}", b"{\\p1}", b"<i>", b"-->", b"\\N", b"&amp;", b"Dialogue: ", b"\xe2")
_JWT_WORDS = (b'{"', b"HS256", b"none", b"backend", b"files", b"gallery", b"eyJ")

TARGETS = (
    Target.of(check_gallery_search, words=(b'"', b"AND", b"NEAR", b"*", b"newest"), runs=7000),
    Target.of(check_gallery_listing, words=(b"name", b"\xe2\x80\xae", b"\r\n"), runs=2500),
    Target.of(check_gallery_updates, words=(b"name", b"\xe2\x80\xae", b"\r\n"), runs=2500),
    Target.of(check_gallery_names, words=(b".part1", b".001", b" [post 2]", b"CON"), runs=4000),
    Target.of(check_gallery_parts, runs=10_000),
    Target.of(check_gallery_subtitles, words=_SUBTITLE_WORDS, runs=1000),
    Target.of(check_gallery_programs, words=(b"Basic ", b"//", b"&", b"\xef\xbf\xbf"), runs=10_000),
    Target.of(check_gallery_shares),
    Target.of(check_gallery_tokens, words=_JWT_WORDS, runs=6000),
)
