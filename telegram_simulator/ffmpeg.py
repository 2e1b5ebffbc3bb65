"""What ffmpeg says of a file, and the small pictures it makes; all of it in child processes.

ffmpeg is a convenience here, not a need: `find_ffmpeg` answers None where there is none, and a
media folder then posts its files plainly.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROBE_TIMEOUT_S = 20.0
"""A file on a sleeping network drive or a broken one must not hold up all the others for long."""

_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_VIDEO = re.compile(r"Stream #\S+.*?: Video: (.*)")
_SIZE = re.compile(r"\b(\d{2,5})x(\d{2,5})\b")
_TAG = r"^\s+{name}\s*: (\S.*)$"
_TURNED = re.compile(r"rotation of -?(?:90|270)\b")


class FfmpegFailed(Exception):
    """ffmpeg could not do what was asked; the message is the last line that it wrote."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What one file holds; zeros for what ffmpeg could not tell."""

    duration_s: float = 0.0
    width: int = 0
    height: int = 0
    has_picture: bool = False
    has_audio: bool = False
    has_cover: bool = False
    """The picture is one that belongs to a song, not a film."""
    title: str | None = None
    performer: str | None = None


def find_ffmpeg() -> str | None:
    """The path of imageio-ffmpeg's binary, else of the one on the PATH, else None."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


async def probe(ffmpeg: str, path: Path) -> Probe:
    """Duration, picture size and tracks of a file; raises FfmpegFailed when it is not media."""
    # `-i` without an output always exits 1; what matters is what it printed on the way.
    _code, _out, report = await _run(ffmpeg, "-hide_banner", "-i", _name(path))
    if "Input #0" not in report:
        raise FfmpegFailed(_last_line(report))
    return read_report(report)


def read_report(report: str) -> Probe:
    """The facts in the text that `ffmpeg -i` prints about its input."""
    duration = _DURATION.search(report)
    seconds = 0.0
    if duration:
        hours, minutes, rest = duration.groups()
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    picture = _VIDEO.search(report)
    size = _SIZE.search(picture.group(1)) if picture else None
    width, height = (int(size.group(1)), int(size.group(2))) if size else (0, 0)
    if _TURNED.search(report):
        # Phones film sideways and note a rotation; players, and Telegram, give the turned size.
        width, height = height, width
    # A cover has a title of its own, which is not the song's.
    tags = report[: picture.start()] if picture else report
    return Probe(
        seconds,
        width,
        height,
        has_picture=picture is not None,
        has_audio=re.search(r"Stream #\S+.*?: Audio: ", report) is not None,
        has_cover=picture is not None and "(attached pic)" in picture.group(1),
        title=_tag(tags, "title"),
        performer=_tag(tags, "artist"),
    )


def _tag(report: str, name: str) -> str | None:
    found = re.search(_TAG.format(name=name), report, re.MULTILINE | re.IGNORECASE)
    return found.group(1).strip() if found else None


async def thumbnail(ffmpeg: str, path: Path, at_s: float, box: int = 320) -> bytes:
    """One frame as a JPEG no wider and no higher than `box`; raises FfmpegFailed."""
    seek = ("-ss", f"{at_s:.3f}") if at_s > 0 else ()
    output = ("-frames:v", "1", *_jpeg(box), "-f", "image2pipe", "-")
    code, picture, report = await _run(
        ffmpeg, "-v", "error", *seek, "-i", _name(path), "-an", "-sn", *output
    )
    if code or not picture:
        raise FfmpegFailed(_last_line(report))
    return picture


async def scaled_pictures(ffmpeg: str, path: Path, outputs: dict[int, Path]) -> None:
    """The picture scaled into each box (never enlarged), written as JPEG to the path beside it."""
    arguments: list[str] = []
    for box, target in outputs.items():
        arguments += ["-frames:v", "1", *_jpeg(box), "-f", "image2", "-update", "1", _name(target)]
    code, _out, report = await _run(ffmpeg, "-v", "error", "-y", "-i", _name(path), *arguments)
    if code:
        raise FfmpegFailed(_last_line(report))


def _jpeg(box: int) -> tuple[str, ...]:
    fit = f"scale='min({box},iw)':'min({box},ih)':force_original_aspect_ratio=decrease"
    return ("-vf", f"{fit}:out_range=full,format=yuvj420p", "-c:v", "mjpeg", "-q:v", "4")


def _name(path: Path) -> str:
    # The prefix keeps a file called `-x.mp4` or `a:b.mp4` from being read as something else.
    return f"file:{path}"


async def _run(*command: str) -> tuple[int, bytes, str]:
    """Run to the end and answer exit code, standard output and the text on standard error."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise FfmpegFailed(f"no answer within {PROBE_TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out, err.decode(errors="replace")


# -- for those who make films, and can wait ------------------------------------------------------


def need_ffmpeg() -> str:
    """The path of ffmpeg. Raises FfmpegFailed where there is none."""
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        raise FfmpegFailed("ffmpeg is missing; `pip install imageio-ffmpeg` brings one")
    return ffmpeg


def probe_blocking(ffmpeg: str, path: Path) -> Probe:
    """As `probe`, for code that has no event loop."""
    command = [ffmpeg, "-hide_banner", "-nostdin", "-i", _name(path)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=PROBE_TIMEOUT_S)  # noqa: S603
    report = done.stderr.decode(errors="replace")
    if "Input #0" not in report:
        raise FfmpegFailed(_last_line(report))
    return read_report(report)


def encoders(ffmpeg: str) -> set[str]:
    """The names of the encoders that this ffmpeg was built with."""
    command = [ffmpeg, "-hide_banner", "-nostdin", "-encoders"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return {words[1] for line in listing.splitlines() if len(words := line.split()) > 1}


def run_with_progress(command: list[str], seconds: float, tell: Callable[[float], None]) -> None:
    """Run ffmpeg to its end and tell, as it goes, which share of `seconds` is done."""
    flags = ["-hide_banner", "-nostdin", "-y", "-v", "error", "-nostats", "-progress", "pipe:1"]
    with (
        subprocess.Popen(  # noqa: S603 - the command is put together above, from constants
            [command[0], *flags, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process
    ):
        complaint = "no output"
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            for line in process.stdout:
                key, _equals, value = line.strip().partition("=")
                if key == "out_time_us" and value.isdecimal():
                    tell(min(0.99, int(value) / 1e6 / seconds))
                elif line[:1] == "[" or not _equals:
                    complaint = line.strip()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise FfmpegFailed(complaint)


def _last_line(report: str) -> str:
    lines = report.strip().splitlines()
    return lines[-1].strip() if lines else "no output"
