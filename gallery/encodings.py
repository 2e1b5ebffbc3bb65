"""Encodings: text that somebody wrote with any program of the last thirty years, as text.

What says by itself how it is written (a mark at its start, correct UTF-8) is believed; all else is
judged by charset-normalizer among the encodings that subtitles are known to come in.
"""

import codecs
from collections.abc import Sequence
from typing import Final

from charset_normalizer import from_bytes

SAMPLE_BYTES: Final = 32 << 10  # more of the same tells no more
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CENTRAL_EUROPEAN: Final = ("cp1250", "iso8859_2")
_CENTRAL_EUROPEANS: Final = ("Croatian", "Czech", "Hungarian", "Polish", "Slovak", "Slovene")
_CANDIDATES: Final = (
    *("cp1252", "cp1251", *_CENTRAL_EUROPEAN, "gb18030", "cp932", "big5", "cp949"),
    *("cp1253", "cp1254", "cp1255", "cp1256", "cp874", "koi8_r"),
)
# Where the name of the file says the language there is less to choose from.
_CANDIDATES_OF: Final = {
    **dict.fromkeys(("ru", "uk", "be", "bg", "mk", "sr", "mn", "kk"), ("cp1251", "koi8_r")),
    **dict.fromkeys(("pl", "cs", "sk", "hu", "ro", "hr", "sl", "bs"), _CENTRAL_EUROPEAN),
    **dict.fromkeys(("de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "no"), ("cp1252",)),
    **dict.fromkeys(("fi", "is", "en", "ca", "eu", "gl"), ("cp1252",)),
    "zh": ("gb18030", "big5"),
    "ja": ("cp932",),
    "ko": ("cp949",),
    "el": ("cp1253",),
    "tr": ("cp1254",),
    "he": ("cp1255",),
    "ar": ("cp1256",),
    "fa": ("cp1256",),
    "th": ("cp874",),
}


def decode(raw: bytes, language: str = "") -> str:
    """The text of a file, with `\\ufffd` where even the best guess is wrong."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding, "replace")
    if (wide := _unmarked_utf16(raw)) is not None:
        return raw.decode(wide, "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    return raw.decode(_guess(raw, language), "replace")


def _unmarked_utf16(raw: bytes) -> str | None:
    """UTF-16 without a mark, as every second byte of times and numbers gives away."""
    sample = raw[:4096]
    pairs = len(sample) // 2
    if pairs and sample[1::2].count(0) > 0.3 * pairs > sample[::2].count(0):
        return "utf-16-le"
    if pairs and sample[::2].count(0) > 0.3 * pairs > sample[1::2].count(0):
        return "utf-16-be"
    return None


def _guess(raw: bytes, language: str) -> str:
    """The encoding that makes most sense of the lines which are not plain ASCII."""
    lines = [line for line in raw.splitlines() if not line.isascii()]
    sample = b"\n".join(lines)[:SAMPLE_BYTES]
    sample = sample[: sample.rfind(b"\n")] if len(sample) == SAMPLE_BYTES else sample
    candidates = _CANDIDATES_OF.get(language.partition("-")[0], ())
    possible = [encoding for encoding in candidates if _is_possible(sample, encoding)]
    best = possible[0] if len(possible) == 1 else _likeliest(sample, possible or _CANDIDATES)
    if best in _CENTRAL_EUROPEAN:
        # The two share most letters; where they differ one of them has unprintable marks.
        best = "cp1250" if any(0x80 <= byte < 0xA0 for byte in sample) else "iso8859_2"
    return best


def _is_possible(sample: bytes, encoding: str) -> bool:
    try:
        sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _likeliest(sample: bytes, candidates: Sequence[str]) -> str:
    """The one that reads best; of those that read alike that which the language is written in."""
    found = from_bytes(sample, cp_isolation=list(candidates), threshold=0.5)
    ranks = {
        match.encoding: (
            *(match.chaos, -match.coherence),
            (match.encoding in _CENTRAL_EUROPEAN) != (match.language in _CENTRAL_EUROPEANS),
        )
        for match in found
    }
    known = [encoding for encoding in candidates if encoding in ranks]
    return min(known, key=lambda encoding: ranks[encoding], default=candidates[0])
