"""Subtitles that were posted with a film are its tracks, as WebVTT, whatever they were.

Goal: `.srt`, `.vtt` and `.ass` files find their film by name or reply, say their language, and can
be read by a browser and by the holder of a share link, whoever wrote them with whatever program.
Method: names and texts by table; the rest through a real gallery and worker on the pocket Telegram.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from conftest import Stage, StartClient
from test_backend import get_json, names, on_stage
from test_small_files import open_gallery

from gallery.catalogue import CATALOGUE
from gallery.encodings import decode
from gallery.subtitle_names import (
    SUBTITLES_MAX_BYTES,
    is_subtitles,
    stem_key,
    tell_apart,
    thinkable_stems,
    track_of,
)
from gallery.webvtt import CUES_MAX, NotSubtitlesError, to_webvtt
from telegram_simulator.bot_api import BotApiServer
from telegram_simulator.content import BytesContent, SyntheticContent
from telegram_simulator.world import Post

Gallery = TestClient[Any, Any]

SRT = "1\n00:00:01,000 --> 00:00:03,500\n{}\n"


def cue(text: str) -> str:
    return f"WEBVTT\n\n00:00:01.000 --> 00:00:03.500\n{text}\n"


# -- Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("film", "subtitles", "language", "label"),
    [
        ("Film.mkv", "Film.srt", "und", "Subtitles"),
        ("Film (2019).mkv", "Film (2019).en.srt", "en", "English"),
        ("Film (2019).mkv", "Film.2019.GER.srt", "de", "German"),
        (
            "Film.2019.1080p.WEB.mkv",
            "Film 2019 1080p WEB.pt-BR.srt",
            "pt-BR",
            "Portuguese (Brazil)",
        ),
        ("Film.mkv", "Film.eng.sdh.srt", "en", "English (SDH)"),
        ("Film.mkv", "Film.de.forced.ass", "de", "German (forced)"),
        ("Film.mkv", "Film_English.vtt", "en", "English"),
        ("Film.mkv", "film - Français.srt", "fr", "French"),
        ("Film.mkv", "Film.zh-Hant.srt", "zh-Hant", "Chinese (traditional)"),
        ("Film.mkv", "Film.chs.ass", "zh-Hans", "Chinese (simplified)"),
        ("Film.mkv", "Film.en.Director's commentary.srt", "en", "English (Director s commentary)"),
        ("映画.mkv", "映画.ja.srt", "ja", "Japanese"),
        ("Lost.mkv", "Lost.is.srt", "is", "Icelandic"),
    ],
)
def test_a_name_tells_the_film_and_the_language(
    film: str, subtitles: str, language: str, label: str
) -> None:
    stem = stem_key(film)
    assert stem in thinkable_stems(subtitles)
    track = track_of(subtitles, stem)
    assert (track.language, track.label) == (language, label)
    assert track.is_forced == ("forced" in subtitles)


@pytest.mark.parametrize(
    ("film", "subtitles"),
    [
        ("Film.mkv", "Film 2.en.srt"),
        ("Film.mkv", "Film in Space.srt"),
        ("Lost.mkv", "Lost.is.Found.srt"),
        ("Show S01E01.mkv", "Show S01E02.en.srt"),
        ("Film 2.mkv", "Film.en.srt"),
    ],
)
def test_another_films_subtitles_are_not_taken(film: str, subtitles: str) -> None:
    assert stem_key(film) not in thinkable_stems(subtitles)


def test_the_longest_name_is_asked_first_and_labels_differ() -> None:
    assert thinkable_stems("Film English.en.srt") == ["film english en", "film english", "film"]
    assert tell_apart([track_of(f"{n}.en.srt", str(n)) for n in range(3)]) == [
        *("English", "English 2", "English 3")
    ]


def test_what_is_too_long_or_ends_otherwise_is_no_subtitle_file() -> None:
    assert is_subtitles("a.SRT", 5)
    assert is_subtitles("a.ssa", SUBTITLES_MAX_BYTES)
    assert not is_subtitles("a.srt", SUBTITLES_MAX_BYTES + 1)
    assert not is_subtitles("a.srt", 0)
    assert not is_subtitles("srt", 5)


# -- Encodings -------------------------------------------------------------------------------------

RUSSIAN = "\n".join(["Привет, как дела?", "Я не знаю, что сказать.", "Мы идём домой."] * 3)
POLISH = "\n".join(["Część druga: żółw i źdźbło", "Dziękuję bardzo, proszę państwa.", "Nie wiem"])
JAPANESE = "\n".join(["こんにちは、元気ですか。", "私は知りません。", "家に帰りましょう。"] * 3)
CHINESE = "\n".join(["你好,你好吗?", "我不知道该说什么。", "我们回家吧。"] * 3)
GREEK = "\n".join(["Καλημέρα, τι κάνεις;", "Δεν ξέρω τι να πω.", "Πάμε σπίτι."] * 3)  # noqa: RUF001
FRENCH = """Où êtes-vous allé hier soir ?
Je suis désolé, je ne sais pas où il est.
Ça ne fait rien, l'été est là.
Très bien. À demain, mon chéri.
Vous avez déjà mangé ? Non, pas encore.
Il faut que nous parlions de notre fils.
C'est la première fois que je viens ici.
"""


@pytest.mark.parametrize(
    ("text", "encoding", "language"),
    [
        (FRENCH, "utf-8", ""),
        (FRENCH, "utf-8-sig", ""),
        (RUSSIAN, "utf-16", ""),
        ("1\n00:00:01,000 --> 00:00:02,000\nHello\n", "utf-16-le", ""),
        ("1\n00:00:01,000 --> 00:00:02,000\nHello\n", "utf-16-be", ""),
        (RUSSIAN, "cp1251", ""),
        (RUSSIAN, "koi8_r", "ru"),
        (FRENCH, "cp1252", ""),
        (POLISH, "cp1250", "pl"),
        (POLISH, "iso8859_2", "pl"),
        (JAPANESE, "cp932", ""),
        (CHINESE, "gb18030", ""),
        (CHINESE, "big5", "zh"),
        (GREEK, "cp1253", ""),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 12 else None,
)
def test_text_in_any_encoding(text: str, encoding: str, language: str) -> None:
    if encoding == "big5":
        text = text.replace("么", "麼").replace("们", "們").replace("该", "該").replace("说", "說")
        text = text.replace("吗", "嗎")
    assert decode(text.encode(encoding), language) == text


# -- WebVTT ----------------------------------------------------------------------------------------

ASS = """[Script Info]
Title: x
[V4+ Styles]
Format: Name, Fontname
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:01.00,0:00:03.50,Default,,0,0,0,,never shown
Dialogue: 0,0:00:01.00,0:00:03.50,Default,,0,0,0,,{\\pos(1,2)\\i1}Tea{\\i0}, or\\Ncoffee?
Dialogue: 0,0:00:05.00,0:00:06.00,Default,,0,0,0,,{\\p1}m 0 0 l 1 1{\\p0}
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (SRT.format("One\r\ntwo").replace("\n", "\r\n"), cue("One\ntwo")),
        (SRT.format("<i>One</i> <font color=red>two</font>"), cue("<i>One</i> two")),
        (SRT.format("1 < 2 & 3 > 2"), cue("1 &lt; 2 &amp; 3 &gt; 2")),
        (SRT.format("<script>x</script>"), cue("x")),
        (ASS, cue("<i>Tea</i>, or\ncoffee?")),
        (
            "WEBVTT\n\nNOTE x\n\nid\n00:01.000 --> 00:03.500 line:85%\n<v Ann>A &amp; b\n",
            cue("A &amp; b"),
        ),
        (SRT.format("Stays") + "\n2\n00:00:09,000 --> 00:00:08,000\nEnds first\n", cue("Stays")),
    ],
    ids=["srt", "tags", "signs", "script", "ass", "vtt", "backwards"],
)
def test_every_kind_becomes_webvtt(given: str, expected: str) -> None:
    assert to_webvtt(given.encode()) == expected


@pytest.mark.parametrize("given", [b"", b"\x00" * 100, b"Hello", b"WEBVTT\n", ASS[:120].encode()])
def test_what_says_nothing_is_no_subtitles(given: bytes) -> None:
    with pytest.raises(NotSubtitlesError):
        to_webvtt(given)


def test_the_worst_file_is_turned_in_bounded_time_and_size() -> None:
    """Two mebibytes of what regular expressions fear; CPU, not the clock, is what is counted."""
    cues = SRT.format("x") * (SUBTITLES_MAX_BYTES // len(SRT))
    assert to_webvtt(cues.encode()).count("-->") <= CUES_MAX
    for piece in ("<", "{", "{\\i1", "00:00:01,000 --> ", "  ", "<i>{\\b1}"):
        many = SRT.format(piece * (SUBTITLES_MAX_BYTES // len(piece) - 20))
        before = time.process_time()
        with suppress(NotSubtitlesError):
            assert len(to_webvtt(many.encode())) < SUBTITLES_MAX_BYTES
        assert time.process_time() - before < 10


# -- In the gallery --------------------------------------------------------------------------------


def post_text(stage: Stage, name: str, text: str | bytes = SRT.format("Hi"), **facts: Any) -> Post:
    raw = text.encode() if isinstance(text, str) else text
    world = stage.telegram.world
    blank = world.new_document(BytesContent(raw), "application/x-subrip", 4)
    return world.post(stage.channel, replace(blank, file_name=name), "", **facts)


@pytest.fixture
def open_films(
    stage: Stage, viewer: Gallery, aiohttp_client: StartClient
) -> Callable[..., Awaitable[Gallery]]:
    async def start(**changes: str) -> Gallery:
        return await open_gallery(aiohttp_client, **{**on_stage(stage, viewer), **changes})

    return start


async def text_of(gallery: Gallery, path: str, status: int = 200) -> str:
    async with gallery.get(path) as response:
        assert response.status == status, await response.text()
        if status == 200:
            assert response.content_type == "text/vtt"
        return await response.text()


async def test_subtitles_are_tracks_of_their_film_and_of_nobody_elses(
    stage: Stage, open_films: Callable[..., Awaitable[Gallery]]
) -> None:
    film = stage.post(SyntheticContent(1000, 1), file_name="Film (2019).mkv")
    other = stage.post(SyntheticContent(1000, 2), file_name="Other.mkv")
    german = post_text(stage, "Film.2019.de.forced.srt", SRT.format("Grüße").encode("cp1252"))
    english = post_text(stage, "film 2019 English.ass", ASS)
    reply = post_text(stage, "what I made.vtt", f"WEBVTT\n\n{cue('Mine')[8:]}", reply_to=film.id)
    alone = post_text(stage, "Nobody's.en.srt", b"nothing")
    gallery = await open_films()
    assert await names(gallery) == ["Nobody's.en.srt", "Other.mkv", "Film (2019).mkv"]
    assert len(await names(gallery, "?kind=document")) == 4
    chat_id = stage.channel.chat_id
    path = f"/api/files/{chat_id}/{film.id}"
    async with gallery.get(f"{path}/subtitles") as response:
        tracks = await response.json()
    assert [(each["label"], each["language"], each["forced"]) for each in tracks] == [
        ("English", "en", False),
        ("German (forced)", "de", True),
        ("Subtitles (I made)", "und", False),
    ]
    assert [each["message_id"] for each in tracks] == [english.id, german.id, reply.id]
    assert (await get_json(gallery, path))["subtitles"] == tracks
    async with gallery.get(f"/api/files/{chat_id}/{other.id}/subtitles") as response:
        assert await response.json() == []
    assert [await text_of(gallery, each["url"]) for each in tracks] == [
        cue("<i>Tea</i>, or\ncoffee?"),
        cue("Grüße"),
        cue("Mine"),
    ]
    for post, status in ((alone, 422), (film, 422)):
        await text_of(gallery, f"/subtitles/{chat_id}/{post.id}.vtt", status)
    await text_of(gallery, f"/subtitles/{chat_id}/999.vtt", 404)


async def test_the_holder_of_a_link_has_the_tracks_of_that_film(
    stage: Stage, open_films: Callable[..., Awaitable[Gallery]]
) -> None:
    film = stage.post(SyntheticContent(1000, 1), file_name="Film.mkv")
    mine = post_text(stage, "Film.en.srt")
    other = post_text(stage, "Other.en.srt")
    gallery = await open_films(GALLERY_PASSWORD="correct horse battery")
    chat_id = stage.channel.chat_id
    sign_in = await gallery.post(
        "/sign-in", data={"password": "correct horse battery"}, allow_redirects=False
    )
    assert sign_in.status == 303
    await names(gallery)
    order = {"chat_id": chat_id, "message_id": film.id}
    async with gallery.post("/api/shares", json=order) as response:
        share = (await response.json())["share"]
    gallery.session.cookie_jar.clear()
    async with gallery.get(f"/subtitles/{chat_id}/{mine.id}.vtt", allow_redirects=False) as refused:
        assert refused.status == 303
    async with gallery.get(f"/v/{share}/subtitles") as response:
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        (track,) = await response.json()
    assert track["url"] == str(gallery.make_url(f"/v/{share}/subtitles/{mine.id}.vtt"))
    async with gallery.get(f"/v/{share}/subtitles/{mine.id}.vtt") as response:
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.content_type == "text/vtt"
        assert await response.text() == cue("Hi")
    await text_of(gallery, f"/v/{share}/subtitles/{other.id}.vtt", 404)
    await text_of(gallery, f"/v/{'A' * 56}/subtitles/{mine.id}.vtt", 404)


async def test_a_browser_that_has_a_track_is_told_so_and_one_that_is_made_is_waited_for(
    stage: Stage, open_films: Callable[..., Awaitable[Gallery]], bot_api: BotApiServer
) -> None:
    """By way of the Bot API; one fetch, however many ask at once."""
    stage.post(SyntheticContent(1000, 1), file_name="Film.mkv")
    post = post_text(stage, "Film.en.srt")
    gallery = await open_films(BOT_TOKEN=stage.bot.token, BOT_API_URL=bot_api.url)
    await names(gallery)
    path = f"/subtitles/{stage.channel.chat_id}/{post.id}.vtt"
    index = gallery.app[CATALOGUE].index
    async with asyncio.timeout(10):
        while await index.bot_file(stage.channel.chat_id, post.id) is None:
            await asyncio.sleep(0.02)
    texts = await asyncio.gather(*(text_of(gallery, path) for _ in range(5)))
    assert texts == [cue("Hi")] * 5
    assert post.media is not None
    assert stage.telegram.counters.downloads[post.media.id] == len(SRT.format("Hi"))
    assert stage.served(post) == 0
    async with gallery.get(path) as response:
        tag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "private, no-cache"
    async with gallery.get(path, headers={"If-None-Match": tag}) as response:
        assert response.status == 304
