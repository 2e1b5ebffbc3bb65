"""What chats and social sites find in a page about a share, each by the rules that it publishes.

Goal: a link that somebody pastes shows its title, its picture and, where the platform plays films,
the film. Method: a table of what each platform asks for, with the page where it says so; the tags
are made for files of every kind, under a base of https, and read back as a parser reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from gallery.files import MediaFile
from gallery.pages import Tag
from gallery.previews import CARD, X_PICTURE_MIN_PX, preview_tags
from gallery.shares import Links

BASE = "https://films.example"
LINKS = Links(BASE, "S" * 56)

Tags = dict[str, list[str]]


def file(**facts: Any) -> MediaFile:
    listed = {"chat_id": -1, "message_id": 1, "size": 1_400_000_000, "date": 1}
    film = {"name": "Metropolis (1927).mp4", "mime_type": "video/mp4", "duration": 3723.4}
    size = {"width": 1440, "height": 1080, "has_thumbnail": True}
    return MediaFile.from_listing({**listed, **film, **size, **facts})


KINDS = {
    "film": file(),
    "wide film": file(width=1920, height=1080),
    "film without a picture": file(has_thumbnail=False),
    "film that browsers hardly play": file(name="a.mkv", mime_type="video/x-matroska"),
    "film of an unknown type": file(mime_type="application/octet-stream"),
    "unknown film": file(name="", size=0, duration=None, width=None, height=None),
    "song": file(name="a.mp3", mime_type="audio/mpeg", width=None, height=None),
    "picture": file(name="a.jpg", mime_type="image/jpeg", size=400_000, duration=None),
    "large picture": file(name="a.png", mime_type="image/png", size=9_000_000, duration=None),
    "paper": file(name="a.pdf", mime_type="application/pdf", has_thumbnail=False, duration=None),
}
FILMS = [name for name in KINDS if "film" in name]


class Head(HTMLParser):
    """The tags of a head by their names, in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Tags = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        # X's are names, Open Graph's are properties: each parser looks for its own.
        kind = "name" if (found.get("name") or "").startswith("twitter:") else "property"
        assert tag == "meta"
        self.tags.setdefault(found[kind] or "", []).append(found["content"] or "")


def tags_of(shared: MediaFile, links: Links = LINKS, *, may_be_framed: bool = True) -> Tags:
    made = preview_tags(shared, links, may_be_framed=may_be_framed)
    return Head("".join(tag.html() for tag in made)).tags


def test_every_preview_has_what_open_graph_requires_and_chats_show() -> None:
    """https://ogp.me/#metadata requires four properties. WhatsApp, Telegram, Slack, Signal and
    LinkedIn show title, description, picture and site, and want the address without its query."""
    for name, shared in KINDS.items():
        tags = tags_of(shared)
        for required in ("title", "type", "image", "url", "description", "site_name"):
            (content,) = tags[f"og:{required}"]
            assert content.strip(), (name, required)
        assert tags["og:url"] == [f"{BASE}/watch/{LINKS.share}"]
        assert tags["og:image"] == tags["og:image:secure_url"]
        assert all(each.startswith(BASE) for each in tags["og:image"])
        assert tags["og:image:type"][0].startswith("image/")
        assert tags["og:image:alt"] == tags["og:title"]


@pytest.mark.parametrize("name", FILMS)
def test_a_films_preview_has_what_facebook_asks_of_videos(name: str) -> None:
    """https://developers.facebook.com/docs/sharing/webmasters#media: URL, secure URL, type, width
    and height; the players of one page stand one after the other, each begun by its URL."""
    made = preview_tags(KINDS[name], LINKS, may_be_framed=True)
    players = split_at("og:video", made)
    assert players
    for player in players:
        assert player["og:video"] == player["og:video:url"] == player["og:video:secure_url"]
        assert int(player["og:video:width"]) > 0
        assert int(player["og:video:height"]) > 0
    assert players[-1]["og:video:type"] == "text/html"
    assert players[-1]["og:video"] == LINKS.embed_url
    assert tags_of(KINDS[name])["og:type"] == ["video.other"]


def split_at(name: str, tags: Iterable[Tag]) -> list[dict[str, str]]:
    """The structured values of a property that is there several times (https://ogp.me/#array)."""
    found: list[dict[str, str]] = []
    for tag in tags:
        if tag.name == name:
            found.append({})
        if tag.name.startswith(name):
            found[-1][tag.name] = tag.content
    return found


@pytest.mark.parametrize("name", ["film", "wide film", "film of an unknown type"])
def test_discord_and_telegram_find_the_file_itself_first(name: str) -> None:
    """They play no frames of unknown sites, only a file that they can play, and want a picture with
    it (discord/discord-api-docs issues 734 and 5737: a large summary card keeps the film away)."""
    tags = tags_of(KINDS[name])
    assert tags["og:video"][0] == LINKS.url
    assert tags["og:video:type"][0] == "video/mp4"
    assert tags["og:image"]
    assert tags["twitter:card"] == ["player"]


def test_what_a_chat_cannot_play_is_left_to_the_player() -> None:
    tags = tags_of(KINDS["film that browsers hardly play"])
    assert tags["og:video"] == [LINKS.embed_url]
    assert "twitter:player:stream" not in tags


@pytest.mark.parametrize("name", [*FILMS, "song"])
def test_films_and_songs_have_what_x_asks_of_player_cards(name: str) -> None:
    """https://developer.x.com/en/docs/x-for-websites/cards/overview/player-card: all by https, and
    a picture of 68,600 pixels or more. `twitter:site` would be the account of the gallery's owner,
    which is asked of nobody."""
    tags = tags_of(KINDS[name])
    assert tags["twitter:card"] == ["player"]
    assert tags["twitter:player"] == [LINKS.embed_url]
    assert LINKS.embed_url.startswith("https://")
    for required in ("title", "description", "image", "image:alt", "player:width", "player:height"):
        (content,) = tags[f"twitter:{required}"]
        assert content.strip(), required
    if tags["twitter:image"] == tags["og:image"]:
        width, height = int(tags["og:image:width"][0]), int(tags["og:image:height"][0])
        assert width * height >= X_PICTURE_MIN_PX
    assert len(tags["twitter:title"][0]) <= 300
    if "twitter:player:stream" in tags:
        assert tags["twitter:player:stream"] == [LINKS.url]
        assert tags["twitter:player:stream:content_type"][0] in ("video/mp4", "audio/mpeg")


def test_a_small_picture_stays_where_small_pictures_are_shown() -> None:
    tags = tags_of(KINDS["wide film"])
    assert tags["og:image"] == [LINKS.poster_url]
    assert (tags["og:image:width"], tags["og:image:height"]) == (["320"], ["180"])
    assert tags["twitter:image"] == [f"{BASE}/static/{CARD[0]}"]
    assert tags_of(KINDS["film"])["twitter:image"] == [LINKS.poster_url]


def test_songs_and_pictures_are_what_they_are() -> None:
    song = tags_of(KINDS["song"])
    assert song["og:type"] == ["music.song"]
    assert song["og:audio"] == [LINKS.url]
    assert song["og:audio:type"] == ["audio/mpeg"]
    picture = tags_of(KINDS["picture"])
    assert picture["og:image"] == picture["twitter:image"] == [LINKS.url]
    assert (picture["og:image:width"], picture["og:image:height"]) == (["1440"], ["1080"])
    assert picture["twitter:card"] == ["summary_large_image"]
    assert tags_of(KINDS["large picture"])["og:image"] == [LINKS.poster_url]
    for name in ("picture", "paper"):
        assert not [tag for tag in tags_of(KINDS[name]) if "video" in tag or "player" in tag]


def test_facts_are_told_in_words_and_the_length_in_seconds() -> None:
    tags = tags_of(KINDS["film"])
    assert tags["og:description"] == ["1:02:03 · 1440 × 1080 · 1.4 GB"]  # noqa: RUF001
    assert tags["video:duration"] == ["3723"]
    assert tags_of(KINDS["unknown film"])["og:description"] == ["Film"]


def test_without_https_nothing_says_that_it_is_secure() -> None:
    tags = tags_of(KINDS["film"], Links("http://films.lan:8080", LINKS.share))
    assert not [tag for tag in tags if "secure" in tag]
    assert tags["og:video"][0] == f"http://films.lan:8080/v/{LINKS.share}"


def test_where_frames_are_forbidden_no_player_is_offered() -> None:
    tags = tags_of(KINDS["film"], may_be_framed=False)
    assert tags["og:video"] == [LINKS.url]
    assert not [tag for tag in tags if tag.startswith("twitter:player")]
    assert tags["twitter:card"] == ["summary"]


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_name_or_caption_breaks_out_of_its_tag(name: str, caption: str) -> None:
    shared = file(name=name, caption=caption)
    tags = tags_of(shared)
    assert len(tags["og:title"]) == 1
    assert set(tags) == set(tags_of(KINDS["film"]))


def test_the_card_is_as_large_as_it_is_said_to_be() -> None:
    """1200 x 630 is what Facebook and LinkedIn recommend; WhatsApp shows none beyond 300 KB."""
    content = (REPOSITORY / "static" / CARD[0]).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == CARD[1:] == (1200, 630)
    assert len(content) < 300_000
