"""WebVTT: subtitles of every usual kind as the one kind that browsers show.

pysubs2 reads SubRip, WebVTT and SubStation. What it is given was made harmless before: lines of a
bounded length, no runs of spaces and no bracket without its other half, over which its expressions
would take time that grows with the square; of a SubStation file nothing but the lines that are
spoken. What comes out is written here: times, text, and `<i>`, `<b>`, `<u>`, nothing else.
"""

import re
from collections.abc import Iterable, Iterator
from html import unescape
from itertools import groupby
from typing import Final

from pysubs2 import SSAEvent, SSAFile
from pysubs2.formats.substation import parse_tags

from gallery.encodings import decode

CUES_MAX: Final = 20_000  # a film of three hours has 3,000
CUE_MAX_CHARACTERS: Final = 1000
LINE_MAX_CHARACTERS: Final = 500
OVERRIDES_MAX: Final = 10  # changes of style within a line
CUE_LINES_MAX: Final = 30
TIME_MAX_MS: Final = 1000 * 3600 * 1000

_LINE_ENDS: Final = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
_SPACES: Final = re.compile(r"[ \t]{2,}|\t")
_SUBSTATION: Final = re.compile(
    r"^\[(Script Info|V4\+? Styles|Events)\]", re.IGNORECASE | re.MULTILINE
)
_SUBSTATION_TIME: Final = r"\s*([0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}[.,][0-9]{1,3})\s*,"
# Layer, start, end, style, name, three margins, effect, text.
_SPOKEN: Final = re.compile(
    rf"Dialogue:[^,]*,{_SUBSTATION_TIME}{_SUBSTATION_TIME}(?:[^,]*,){{6}}(.*)", re.ASCII
)
_OVERRIDE: Final = re.compile(r"\{[^}]*\}")
_SHOWN_OVERRIDE: Final = re.compile(r"\\[ibupr]")
_VTT_TIMES: Final = re.compile(
    r"(([0-9]{1,4}:)?[0-9]{2}:[0-9]{2}\.[0-9]{3})\s*-->\s*(([0-9]{1,4}:)?[0-9]{2}:[0-9]{2}\.[0-9]{3})",
    re.ASCII,
)
_VTT_MOMENT: Final = re.compile(r"<[0-9:.]{1,20}>", re.ASCII)
# Stand for brackets that open nothing, while pysubs2 looks for those that do.
_LONE_ANGLE, _LONE_BRACE = "\ue000", "\ue001"


class NotSubtitlesError(Exception):
    """There is no line in it that is shown at a time."""


def to_webvtt(raw: bytes, language: str = "") -> str:
    """Subtitles as WebVTT; raise NotSubtitlesError."""
    text = _SPACES.sub(" ", _CONTROLS.sub("", _LINE_ENDS.sub("\n", decode(raw, language))))
    lines = [line.strip()[:LINE_MAX_CHARACTERS] for line in text.split("\n")]
    is_webvtt = text.lstrip().startswith("WEBVTT")
    if is_webvtt:
        subtitles = _read("\n".join(_webvtt_lines(lines)), "vtt")
    elif _SUBSTATION.search(text):
        subtitles = _read("\n".join(_substation_lines(lines)), "ass")
    else:
        subtitles = _read("\n".join(_subrip_lines(lines)), "srt")
    cues = sorted(_cues(subtitles, with_entities=is_webvtt))
    if not cues:
        raise NotSubtitlesError
    written = (f"{_time(start)} --> {_time(end)}\n{said}\n" for start, end, said in cues)
    return "\n".join(("WEBVTT\n", *written))


def _read(text: str, kind: str) -> SSAFile:
    return SSAFile.from_string(text, format_=kind)


# -- making it harmless --------------------------------------------------------------------------


def _subrip_lines(lines: Iterable[str]) -> Iterator[str]:
    """No more lines of a cue than anybody can read, nor more cues than there are in a film."""
    cues, count, number = 0, 0, ""
    for line in lines:
        if "-->" in line:
            cues, count = cues + 1, 0
            yield number  # what stands before the times is no line of the cue before
        if cues > CUES_MAX:
            return
        count += 1
        if count <= CUE_LINES_MAX:
            yield _harmless(line)
        number = line if line.isdecimal() and count > CUE_LINES_MAX else ""


def _webvtt_lines(lines: Iterable[str]) -> Iterator[str]:
    """Cues without identifiers, settings and notes; numbered, as pysubs2 expects it."""
    cues = 0
    for has_text, block in groupby(lines, key=bool):
        if not has_text or cues >= CUES_MAX:
            continue
        for times in map(_VTT_TIMES.match, block):
            if times is None:
                continue
            cues += 1
            yield f"{cues}\n{times[1]} --> {times[3]}"
            for line, _ in zip(block, range(CUE_LINES_MAX), strict=False):
                yield _harmless(_VTT_MOMENT.sub("", line.replace("-->", "")))
            yield ""
    yield str(cues + 1)


def _substation_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines that are spoken, with nothing of theirs but when and what."""
    spoken = filter(None, map(_SPOKEN.match, lines))
    for match, _ in zip(spoken, range(CUES_MAX), strict=False):
        yield f"Dialogue: 0,{match[1]},{match[2]},,,0,0,0,,{_harmless(match[3])}"


def _harmless(line: str) -> str:
    """The line without overrides that change nothing here, and each bracket that nothing closes
    turned into a sign that is none."""
    for opening, closing, lone in (("<", ">", _LONE_ANGLE), ("{", "}", _LONE_BRACE)):
        end = line.rfind(closing) + 1
        line = line[:end] + line[end:].replace(opening, lone)
    overrides = _OVERRIDE.findall(line)
    if len(overrides) > OVERRIDES_MAX:
        return _OVERRIDE.sub("", line)
    return _OVERRIDE.sub(lambda found: found[0] * bool(_SHOWN_OVERRIDE.search(found[0])), line)


# -- writing -------------------------------------------------------------------------------------


def _cues(subtitles: SSAFile, *, with_entities: bool) -> Iterator[tuple[int, int, str]]:
    for event in subtitles.events:
        start, end = max(0, int(event.start)), int(event.end)
        said = _said(event, with_entities)
        if said and start < end <= TIME_MAX_MS:
            yield start, end, said


def _said(event: SSAEvent, with_entities: bool) -> str:
    """What is shown, marked up with nothing but `<i>`, `<b>` and `<u>`; no line of it is blank."""
    parts: list[str] = []
    room = CUE_MAX_CHARACTERS
    for text, style in parse_tags(event.text):
        if style.drawing:
            continue
        plain = re.sub(r"\\[Nn]", "\n", text.replace(r"\h", "\u00a0"))[:room]
        room -= len(plain)
        plain = unescape(plain) if with_entities else plain
        plain = plain.replace(_LONE_ANGLE, "<").replace(_LONE_BRACE, "{")
        names = [name for name, is_on in (("i", style.italic), ("b", style.bold),
                                          ("u", style.underline)) if is_on]  # fmt: skip
        for line in re.split("(\n)", _CONTROLS.sub("", plain)):
            parts.append(_marked_up(line, names) if line.strip() else line)
    lines = (line.strip() for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if re.sub("</?[ibu]>", "", line))


def _marked_up(text: str, names: Iterable[str]) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for name in names:
        text = f"<{name}>{text}</{name}>"
    return text


def _time(moment_ms: int) -> str:
    seconds, milliseconds = divmod(moment_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}"
