"""Subtitle names: which film a subtitle file belongs to, and what it is, as far as its name tells.

    Film (2019).mkv    Film.2019.srt, Film (2019).en.srt, Film_2019 German forced.vtt

A name is compared by its words. Behind the film's name a language must stand, or a word that only
subtitles have: `Film 2.srt` is not of `Film.mkv`, and neither is `Film in Space.srt`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gallery.languages import (
    UNDETERMINED,
    label_of,
    language_by_code,
    language_by_name,
    with_place,
)
from gallery.search import fold, words

SUBTITLES_MAX_BYTES: Final = 2 << 20
STEM_MAX_WORDS: Final = 60
EXTRA_MAX_CHARACTERS: Final = 60
_EXTENSION: Final = re.compile(r"\.(srt|vtt|ass|ssa)$", re.ASCII | re.IGNORECASE)
_ANY_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9]{1,5}$", re.ASCII)
_WORD: Final = re.compile(r"[^\W_]+")
_YEAR: Final = re.compile(r"(19|20|21)[0-9]{2}", re.ASCII)


def _set_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FLAGS: Final = {
    "forced": "forced",
    "foreign": "forced",
    "sdh": "SDH",
    "hi": "SDH",
    "hearing": "SDH",
    "impaired": "SDH",
    "cc": "CC",
}
# Codes that stand in titles too: `Lost.is.Found.srt` is not the Icelandic `Lost`.
_ALSO_WORDS: Final = _set_of(
    "am be da de el es et he hi id is it la ma me mi mr ms my ne no nor pa per por si so tel"
)
_EMPTY_WORDS: Final = _set_of(
    "subtitle subtitles sub subs caption captions srt vtt ass ssa full default track utf8 utf und"
    " untertitel legendas subtitulos"
)
_RELEASE_WORDS: Final = _set_of(
    "2160p 1080p 1080i 720p 576p 480p 360p 4k uhd hd hdr hdr10 dv sdr bluray blu ray brrip bdrip"
    " bdremux remux web webrip dl webdl hdtv dvd dvdrip x264 x265 h264 h265 h 264 265 hevc avc av1"
    " xvid divx aac ac3 eac3 ddp5 dts flac opus 10bit 8bit mkv mp4 avi webm m4v mov"
)


@dataclass(frozen=True)
class Track:
    """What a subtitle file is: its language as BCP 47 has it, and what people are told of it."""

    language: str
    label: str
    is_forced: bool = False
    is_for_the_deaf: bool = False


@dataclass(frozen=True)
class _Word:
    """A word of a name, and what stands before it."""

    before: str
    text: str

    @property
    def folded(self) -> str:
        return fold(self.text)


def is_subtitles(name: str, size: int) -> bool:
    return 0 < size <= SUBTITLES_MAX_BYTES and _EXTENSION.search(name) is not None


def stem_key(name: str) -> str:
    """What a film and its subtitles are compared by: the words of the name without its ending."""
    return " ".join(words(_ANY_EXTENSION.sub("", name))[:STEM_MAX_WORDS])


def thinkable_stems(name: str) -> list[str]:
    """The keys of the films whose subtitles a file of this name may be, the longest first."""
    found = stem_key(name).split()
    return [
        " ".join(found[:count])
        for count in range(len(found), 0, -1)
        if count == len(found) or _tells_subtitles(_rest(name, count))
    ]


def track_of(name: str, film_stem: str | None) -> Track:
    """What a subtitle file is; without the film's key the whole name may tell it."""
    count = 0 if film_stem is None else len(film_stem.split(" "))
    rest = _rest(name, count)
    if film_stem is None and len(rest) > 1:
        rest = rest[1:]  # a name of one word may be a language, the first of several is a title
    return _describe(_without_release_words(rest))


def tell_apart(tracks: Sequence[Track]) -> list[str]:
    """The labels of a film's tracks, each another one."""
    labels: list[str] = []
    for track in tracks:
        label, number = track.label, 1
        while label in labels:
            number += 1
            label = f"{track.label} {number}"
        labels.append(label)
    return labels


def sequence(track: Track) -> tuple[bool, str, bool, bool, str]:
    """In which order tracks are offered: by language, the usual before the special."""
    name = label_of(track.language)
    return (not name, name, track.is_forced, track.is_for_the_deaf, track.label)


def _rest(name: str, count: int) -> list[_Word]:
    """The words of a name behind the first so many, as they were written."""
    found: list[_Word] = []
    passed, stop = 0, 0
    stem = _ANY_EXTENSION.sub("", name)
    for match in _WORD.finditer(stem):
        before = stem[stop : match.start()]
        stop = match.end()
        inner = words(match[0])
        kept = inner[max(0, count - passed) :]
        passed += len(inner)
        if len(kept) == len(inner) and kept:
            found.append(_Word(before, match[0]))
        elif kept:  # a language without spaces: the film's name ends within
            found.append(_Word("", "".join(kept)))
    return found


def _without_release_words(rest: Sequence[_Word]) -> list[_Word]:
    return [
        word
        for place, word in enumerate(rest)
        if not (word.folded in _RELEASE_WORDS or (place == 0 and _YEAR.fullmatch(word.text)))
    ]


def _tells_subtitles(rest: Sequence[_Word]) -> bool:
    """Whether what stands behind a film's name says that this is a subtitle file of it."""
    left = _without_release_words(rest)
    return not left or _is_known(left[0]) or _language_at(left, 0) is not None


def _is_known(word: _Word) -> bool:
    return word.folded in _EMPTY_WORDS or (word.folded in _FLAGS and word.folded != "hi")


def _language_at(rest: Sequence[_Word], place: int) -> tuple[str, int] | None:
    """The language that is named there, and by how many words."""
    word = rest[place]
    tag = language_by_name(word.text)
    if tag is None and _may_be_code(rest, place):
        tag = language_by_code(word.text)
    if tag is None:
        return None
    following = rest[place + 1] if place + 1 < len(rest) else None
    if following is not None and following.before in ("-", "_", " (", "(", " "):
        named = language_by_name(following.text)
        if named is not None and named.partition("-")[0] == tag:
            return named, 2  # Portuguese (Brazilian), Chinese simplified
        is_joined = following.before in ("-", "_")
        narrowed = with_place(tag, following.text) if is_joined else None
        if narrowed is not None:
            return narrowed, 2
    return tag, 1


def _may_be_code(rest: Sequence[_Word], place: int) -> bool:
    """Whether two or three letters are a language rather than a word between others."""
    word, others = rest[place], rest[place + 1 :]
    if " " not in word.before and word.folded not in _ALSO_WORDS:
        return True
    return all(_is_known(other) or other.folded == "hi" or other.text.isdigit() for other in others)


def _describe(rest: Sequence[_Word]) -> Track:
    language, flags, extra = "", [], []
    place = 0
    while place < len(rest):
        word = rest[place]
        found = _language_at(rest, place) if not language else None
        if found is not None:
            language, used = found
            place += used
            continue
        place += 1
        if (flag := _FLAGS.get(word.folded)) is not None:
            flags.append(flag)
        elif word.folded not in _EMPTY_WORDS:
            extra.append(word.text)
    name = label_of(language) if language else "Subtitles"
    notes = [*dict.fromkeys(flags), " ".join(extra)[:EXTRA_MAX_CHARACTERS].strip()]
    told = ", ".join(filter(None, notes))
    return Track(
        language or UNDETERMINED,
        f"{name} ({told})" if told else name,
        is_forced="forced" in flags,
        is_for_the_deaf="SDH" in flags or "CC" in flags,
    )
