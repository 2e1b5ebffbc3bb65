"""Safe names: names of files and folders that every file system takes, Windows' among them.

A name is cut, never refused: what is not allowed in it becomes a space or `_`. Of several that
would be the same, ignoring case as Windows and macOS do, all but the first say which post they are
of: `Film [post 12].mkv`. What looks like that already always does, so no two are ever the same.
"""

import re
import unicodedata
from typing import Final

# File systems take 255 bytes; some room is left for what programs put behind a name.
NAME_MAX_BYTES: Final = 200

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_DEVICES: Final = re.compile(
    r"(con|prn|aux|nul|(com|lpt)[0-9¹²³]|conin\$|conout\$)\s*(\.|$)", re.ASCII | re.IGNORECASE
)
_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9]{1,11}\Z", re.ASCII)
_NUMBERED: Final = re.compile(
    r" \[post (?P<id>[1-9][0-9]{0,9})\](?=(\.[A-Za-z0-9]{1,11})?\Z)", re.ASCII
)


def safe_name(name: str, default: str = "file") -> str:
    """The name as a file or folder can be called."""
    name = unicodedata.normalize("NFC", name)
    name = " ".join(_FORBIDDEN.sub(" ", name.replace('"', "'")).split())
    name = _cut(name.rstrip(". ")).lstrip(" ").rstrip(". ")
    if not name.strip("."):
        return default
    return f"_{name}" if _DEVICES.match(name) else name


def numbered(name: str, number: int) -> str:
    """A safe name that says which post it is of."""
    stem, extension = split_extension(name)
    mark = f" [post {number}]"
    return _cut(stem, NAME_MAX_BYTES - len((mark + extension).encode())) + mark + extension


def is_numbered(name: str) -> bool:
    """Whether a name looks like one that `numbered` has made."""
    return _NUMBERED.search(name) is not None


def read_numbered(name: str) -> tuple[str, int] | None:
    """The name without its number, and the number; None if it has none."""
    match = _NUMBERED.search(name)
    if match is None:
        return None
    return name[: match.start()] + name[match.end() :], int(match["id"])


def path_key(name: str) -> str:
    """What is equal for names that some file systems take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def split_extension(name: str) -> tuple[str, str]:
    """The name, and its ending with the dot if that looks like one."""
    match = _EXTENSION.search(name)
    return (name[: match.start()], match[0]) if match and match.start() else (name, "")


def _cut(name: str, most: int = NAME_MAX_BYTES) -> str:
    """The name in no more bytes, with its ending."""
    if len(name.encode()) <= most:
        return name
    stem, extension = split_extension(name)
    room = most - len(extension.encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(". ") + extension
