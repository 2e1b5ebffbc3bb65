"""What bots write, read as strictly as Telegram reads it: links, and text with HTML tags.

Sources: core.telegram.org/bots/api, section «Formatting options»; the rules for links and the
words of the refusals are those of Telegram's own library (github.com/tdlib/td).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import NoReturn

from .bot_arguments import Arguments, refuse
from .world import Json

log = logging.getLogger(__name__)

TEXT_LENGTH_MAX = 4096
MARKED_TEXT_LENGTH_MAX = 16 * TEXT_LENGTH_MAX
"""With its tags; more of them than that nobody has to read."""
SPACES = " \t\r\n\0\x0b"
TAGS = {
    **{"b": "bold", "strong": "bold", "i": "italic", "em": "italic"},
    **{"u": "underline", "ins": "underline", "s": "strikethrough", "strike": "strikethrough"},
    **{"del": "strikethrough", "tg-spoiler": "spoiler", "span": "spoiler", "code": "code"},
    **{"pre": "pre", "a": "text_link", "blockquote": "blockquote", "tg-emoji": "custom_emoji"},
}
CHARACTERS = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
"""The only names that Telegram knows; others stay as they are written."""
CHARACTER = re.compile(r"&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(lt|gt|amp|quot));?", re.IGNORECASE)
COMMAND = re.compile(r"(?<![\w/<>])/\w{1,64}(?:@[A-Za-z]\w{2,31})?(?![\w/])", re.ASCII)


# -- links ---------------------------------------------------------------------------------------


class WrongLink(ValueError):
    """Why Telegram takes a link for none; the message is its own."""


@dataclass(frozen=True, slots=True)
class _Url:
    protocol: str
    user_info: str
    host: str
    port: int | None
    rest: str

    def __str__(self) -> str:
        at = f"{self.user_info}@" if self.user_info else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.protocol}://{at}{self.host}{port}{self.rest}"


def check_link(link: str, *, https_only: bool = False) -> str:
    """A link as Telegram keeps it. Raises WrongLink.

    A host needs a dot: `http://localhost:8080/` is refused, `http://127.0.0.1:8080/` is not.
    """
    internal = re.match(r"(tg|ton):(?://)?", link, re.IGNORECASE)
    url = _parse_url(link[internal.end() :] if internal else link)
    if https_only and (internal or url.protocol != "https"):
        raise WrongLink("Only HTTPS links are allowed")
    if internal:
        scheme = internal.group(1).lower()
        if "://" in link[internal.end() :] or url.user_info or url.port:
            raise WrongLink(f"Wrong {scheme} URL")
        if not re.fullmatch(r"[a-z0-9_-]+", url.host):
            raise WrongLink("Unallowed characters in URL host")
        query = url.rest.removeprefix("/") if url.rest.startswith("/?") else url.rest
        return f"{scheme}://{url.host}{query}"
    if "." not in url.host and not url.host.startswith("["):
        raise WrongLink("Wrong HTTP URL")
    return str(url)


def _parse_url(link: str) -> _Url:
    match = re.match(r"([^:/?#@\[\]]*)://", link)
    protocol = match.group(1).lower() if match else "http"
    if protocol not in ("http", "https"):
        raise WrongLink("Unsupported URL protocol")
    after = link[match.end() :] if match else link
    authority = re.match(r"[^/?#]*", after)
    place = authority.group() if authority else ""
    user_info, _at, host_and_port = place.rpartition("@")
    host, colon, port = host_and_port.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = host_and_port, ""
    if colon and port and (not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536):
        raise WrongLink("Wrong port number specified in the URL")
    host = host.lower()
    if not host:
        raise WrongLink("URL host is empty")
    if host == ".":
        raise WrongLink("Host is invalid")
    if not re.fullmatch(r"\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=%-]+", host):
        raise WrongLink("Disallowed character in URL host")
    rest = after[len(place) :].rstrip(SPACES).replace(" ", "%20")
    if not rest.startswith("/"):
        rest = f"/{rest}"
    return _Url(protocol, user_info, host, int(port) if port else None, rest)


# -- text ----------------------------------------------------------------------------------------


def read_text(arguments: Arguments) -> tuple[str, tuple[Json, ...]]:
    """The text of a message that a bot sends, and what is bold or a link in it. Raises ApiError."""
    text, mode = arguments.get("text", ""), arguments.get("parse_mode", "").lower()
    if arguments.get("entities", "[]").strip() not in ("", "[]", "null"):
        log.error("entities of a message are not part of the pocket Telegram")
        refuse(400, "Bad Request: the pocket Telegram reads parse_mode HTML, not entities")
    if mode in ("markdown", "markdownv2"):
        log.error("parse_mode %s is not part of the pocket Telegram, only HTML is", mode)
    if mode not in ("", "none", "html"):
        refuse(400, "Bad Request: unsupported parse_mode")
    if len(text) > MARKED_TEXT_LENGTH_MAX:
        refuse(400, "Bad Request: message is too long")
    entities: tuple[Json, ...] = ()
    if mode == "html":
        text, entities = parse_html(text)
    text, entities = _trimmed(text, entities)
    if not text:
        refuse(400, "Bad Request: message text is empty")
    if len(text) > TEXT_LENGTH_MAX:
        refuse(400, "Bad Request: message is too long")
    return text, entities


def command_entities(text: str) -> list[Json]:
    """The commands that Telegram finds by itself in what people write: `/start`, `/list@bot`."""
    return [
        {
            "type": "bot_command",
            "offset": utf16_length(text[: match.start()]),
            "length": len(match.group()),
        }
        for match in COMMAND.finditer(text)
    ]


def utf16_length(text: str) -> int:
    """How Telegram counts in entities: an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _trimmed(text: str, entities: tuple[Json, ...]) -> tuple[str, tuple[Json, ...]]:
    """Spaces at both ends are cut off, and the entities moved along."""
    stripped = text.strip(SPACES)
    cut = utf16_length(text[: len(text) - len(text.lstrip(SPACES))])
    end = utf16_length(stripped)
    moved = []
    for entity in entities:
        start = max(0, entity["offset"] - cut)
        stop = min(end, entity["offset"] + entity["length"] - cut)
        if stop > start:
            moved.append(entity | {"offset": start, "length": stop - start})
    return stripped, tuple(moved)


def parse_html(text: str) -> tuple[str, tuple[Json, ...]]:
    """Text and entities of a message in Telegram's HTML. Raises ApiError as Telegram would."""
    return _Html(text).parse()


@dataclass(frozen=True, slots=True)
class _OpenTag:
    name: str
    attributes: dict[str, str]
    offset: int
    """Where what it encloses begins, in the text that comes out, in UTF-16 units."""
    place: int
    """The same, as an index into that text."""


class _Html:
    """One pass over a text with tags; `_at` is where it has got to."""

    def __init__(self, source: str) -> None:
        # The zero at the end is what Telegram's parser stops at as well.
        self._source = source + "\0"
        self._size = len(source)
        self._at = 0
        self._text = ""
        self._open: list[_OpenTag] = []
        self._entities: list[Json] = []

    def parse(self) -> tuple[str, tuple[Json, ...]]:
        while self._at < self._size:
            if self._source[self._at] != "<":
                self._text += self._character()
            elif self._source[self._at + 1] == "/":
                self._end_tag()
            else:
                self._start_tag()
        if self._open:
            name = self._open[-1].name
            _cannot_parse(f'Can\'t find end tag corresponding to start tag "{name}"')
        ordered = sorted(self._entities, key=lambda each: (each["offset"], -each["length"]))
        return self._text, tuple(ordered)

    def _character(self) -> str:
        """The next character, which may be written as `&lt;` or `&#60;`."""
        match = CHARACTER.match(self._source, self._at)
        if match is not None:
            written, decoded = match.group(), _decoded(match)
            if decoded:
                self._at += len(written)
                return decoded
        self._at += 1
        return self._source[self._at - 1]

    def _start_tag(self) -> None:
        begin = self._at
        self._at += 1
        name = self._until(SPACES + ">").lower()
        if self._is_at_end():
            _cannot_parse(f"Unclosed start tag at byte offset {self._byte_offset(begin)}")
        if name not in TAGS:
            place = self._byte_offset(begin)
            _cannot_parse(f'Unsupported start tag "{name}" at byte offset {place}')
        attributes = self._attributes(name, begin)
        if name == "span" and attributes.get("class") != "tg-spoiler":
            place = self._byte_offset(begin)
            _cannot_parse(f'Tag "span" must have class "tg-spoiler" at byte offset {place}')
        self._at += 1
        tag = _OpenTag(name, attributes, utf16_length(self._text), len(self._text))
        self._open.append(tag)

    def _attributes(self, tag: str, begin: int) -> dict[str, str]:
        found: dict[str, str] = {}
        while True:
            self._skip_spaces()
            if self._source[self._at] == ">":
                return found
            name = self._until(SPACES + "=>").lower()
            if not name and not self._is_at_end():
                place = self._byte_offset(begin)
                _cannot_parse(f'Empty attribute name in the tag "{tag}" at byte offset {place}')
            self._skip_spaces()
            value = ""
            if self._source[self._at] == "=":
                self._at += 1
                self._skip_spaces()
                value = self._value(tag, begin)
            if self._is_at_end():
                self._unclosed(tag, begin)
            found[name] = value

    def _value(self, tag: str, begin: int) -> str:
        if self._is_at_end():
            self._unclosed(tag, begin)
        quote = self._source[self._at]
        if quote not in "'\"":
            start = self._at
            token = re.compile(r"[A-Za-z0-9.-]*").match(self._source, start)
            value = token.group() if token else ""
            self._at += len(value)
            if self._source[self._at] not in SPACES + ">" or self._is_at_end():
                place = self._byte_offset(start)
                _cannot_parse(f"Unexpected end of name token at byte offset {place}")
            return value.lower()
        self._at += 1
        value = ""
        while self._source[self._at] != quote and not self._is_at_end():
            value += self._character()
        if self._is_at_end():
            _cannot_parse(f"Unclosed start tag at byte offset {self._byte_offset(begin)}")
        self._at += 1
        return value

    def _end_tag(self) -> None:
        begin = self._at
        place = self._byte_offset(begin)
        if not self._open:
            _cannot_parse(f"Unexpected end tag at byte offset {place}")
        self._at += 2
        name = self._until(SPACES + ">")
        self._skip_spaces()
        if self._source[self._at] != ">":
            _cannot_parse(f"Unclosed end tag at byte offset {place}")
        self._at += 1
        tag = self._open.pop()
        if name and name != tag.name:
            _cannot_parse(
                f'Unmatched end tag at byte offset {place}, expected "</{tag.name}>", '
                f'found "</{name}>"'
            )
        self._close(tag)

    def _close(self, tag: _OpenTag) -> None:
        """The entity that a tag makes of what it encloses; an empty one makes none."""
        inside = self._text[tag.place :]
        if not inside:
            return
        entity: Json = {
            "type": TAGS[tag.name],
            "offset": tag.offset,
            "length": utf16_length(inside),
        }
        if tag.name == "a":
            try:
                entity["url"] = check_link(tag.attributes.get("href") or inside)
            except WrongLink as problem:
                # Telegram says nothing either: the text is sent and is no link.
                log.warning("a link that Telegram drops without a word: %s", problem)
                return
        elif tag.name == "tg-emoji":
            entity["custom_emoji_id"] = tag.attributes.get("emoji-id", "")
            if not entity["custom_emoji_id"].isdecimal():
                _cannot_parse("Invalid custom emoji identifier specified")
        elif tag.name == "blockquote" and "expandable" in tag.attributes:
            entity["type"] = "expandable_blockquote"
        self._entities.append(entity)

    def _until(self, signs: str) -> str:
        start = self._at
        while self._source[self._at] not in signs:
            self._at += 1
        return self._source[start : self._at]

    def _skip_spaces(self) -> None:
        while not self._is_at_end() and self._source[self._at] in SPACES:
            self._at += 1

    def _unclosed(self, tag: str, begin: int) -> NoReturn:
        place = self._byte_offset(begin)
        _cannot_parse(f'Unclosed start tag "{tag}" at byte offset {place}')

    def _is_at_end(self) -> bool:
        return self._at >= self._size

    def _byte_offset(self, place: int) -> int:
        return len(self._source[:place].encode("utf-8", "surrogatepass"))


def _decoded(match: re.Match[str]) -> str:
    hexadecimal, decimal, name = match.groups()
    if name:
        return CHARACTERS[name.lower()]
    code = int(hexadecimal, 16) if hexadecimal else int(decimal)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else ""


def _cannot_parse(problem: str) -> NoReturn:
    refuse(400, f"Bad Request: can't parse entities: {problem}")
