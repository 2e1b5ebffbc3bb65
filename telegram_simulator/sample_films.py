"""Three short films and four pictures of our own, made by ffmpeg from nothing.

They are what the demo shows and what the tests play: H.264/AAC with the index (`moov`) in front,
the same with the index at the end, and VP9/Opus in WebM. Each shows a running clock and a line
that fills up, so that a wrong seek is seen at once, over a soft chord that fades in and out.

    films = make_sample_films(Path(".demo/films"))
    films = make_sample_films(tmp_path, seconds=8)      # short ones for a test

What is already there and made by the same recipe is not made again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .ffmpeg import need_ffmpeg, run_with_progress

FRAMES_PER_SECOND = 24
CLOCK_FRAMES_PER_SECOND = 10
DEFAULT_SECONDS = 24
"""A multiple of 8: then 48 kHz AAC, 1024 samples a frame, ends on a frame together with the
picture (8 s are 375 frames), and the film can be looped without a drift."""

Progress = Callable[[str, float], None]
"""Told a file's name and how much of it is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one film is made: a picture that moves, a chord that sounds, a codec that packs both."""

    name: str
    width: int
    height: int
    picture: str
    notes_hz: tuple[float, ...]
    codec: tuple[str, ...]


H264 = ("-c:v", "libx264", "-preset", "superfast")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1")
AAC = ("-c:a", "aac", "-b:a", "128k")

# What is smooth is drawn small and scaled up, which costs a tenth of the time and looks the same.
# Noise in the first one is not only film grain: it hides the steps that eight bits make of a
# smooth gradient, and it gives the encoder enough to do to reach a real film's bit rate.
FILMS = (
    Recipe(
        "Horizon (H.264, index in front).mp4",
        1280,
        720,
        "gradients=s=320x180:r={fps}:n=4:c0=0x0b1a3a:c1=0x1f6f8b:c2=0xf2a365:c3=0x5b2a86"
        ":speed=0.008:seed=7,vignette=PI/5,scale={width}:{height}:flags=bicubic,format=yuv420p"
        ",noise=alls=6:allf=t",
        (220.0, 277.18, 329.63, 440.0),
        # No B-frames: the table of composition offsets would make a looped film's index half
        # as big again, and its first frame that much later.
        (*H264, "-b:v", "2035k", "-bf", "0", *AAC, "-movflags", "+faststart"),
    ),
    Recipe(
        "Embers (H.264, index at the end).mp4",
        1280,
        720,
        "perlin=s=160x90:r={fps}:octaves=2:persistence=0.5:xscale=4:yscale=3:tscale=0.4"
        ":random_mode=seed:random_seed=3,format=gray,scale=640:360:flags=bicubic"
        ",lut=y='clip(240-abs(val-128)*4,0,255)',format=yuv444p,pseudocolor=preset=magma"
        ",vignette=PI/5,scale={width}:{height}:flags=bicubic,format=yuv420p",
        (196.0, 246.94, 293.66, 392.0),
        (*H264, "-b:v", "1600k", *AAC),
    ),
    Recipe(
        "Colony (VP9 and Opus).webm",
        854,
        480,
        "life=s=214x120:r={fps}:mold=12:ratio=0.12:seed=5:life_color=0xffd9a0"
        ":death_color=0x3a1d6e:mold_color=0x07101f,scale={width}:{height}:flags=neighbor"
        ",format=gbrp,split[sharp][soft];[soft]gblur=sigma=10[glow]"
        ";[sharp][glow]blend=all_mode=screen,format=yuv420p,vignette=PI/5",
        (174.61, 220.0, 261.63, 349.23),
        (*VP9, "-b:v", "1000k", "-c:a", "libopus", "-b:a", "96k"),
    ),
)

PICTURES = {
    "Dusk.jpg": "gradients=s=1920x1280:n=5:c0=0x10002b:c1=0x5a189a:c2=0xe85d75:c3=0xffb56b"
    ":c4=0x14213d:x0=200:y0=0:x1=1500:y1=1280:seed=11,vignette=PI/5",
    "Filaments.jpg": "perlin=s=960x640:octaves=5:persistence=0.5:xscale=5:yscale=5:tscale=1"
    ":random_mode=seed:random_seed=8,format=gray,lut=y='clip(255-abs(val-128)*9,0,255)'"
    ",scale=1920:1280:flags=bicubic,format=yuv444p,pseudocolor=preset=viridis,vignette",
    "Nebula.jpg": "perlin=s=480x320:octaves=6:persistence=0.6:xscale=3:yscale=3:tscale=1"
    ":random_mode=seed:random_seed=21,format=gray,lut=y='clip((val-70)*1.9,0,255)'"
    ",scale=1920:1280:flags=bicubic,format=yuv444p,pseudocolor=preset=plasma,vignette=PI/4",
    "Ripples.jpg": "gradients=s=1920x1280:type=spiral:n=6:c0=0x03071e:c1=0x6a040f:c2=0xe85d04"
    ":c3=0xffba08:c4=0x023e8a:c5=0x0077b6:seed=5,gblur=sigma=3,vignette=PI/4",
}


def make_sample_films(
    folder: Path,
    progress: Progress | None = None,
    *,
    seconds: int = DEFAULT_SECONDS,
    recipes: Iterable[Recipe] = FILMS,
) -> list[Path]:
    """Make the films that are not there yet; their paths. Raises FfmpegFailed."""
    tell = progress or (lambda _name, _share: None)
    films: list[Path] = []
    for recipe in recipes:
        films.append(folder / recipe.name)
        make_film(films[-1], recipe, seconds, partial(tell, recipe.name))
        tell(recipe.name, 1.0)
    return films


def make_film(
    film: Path, recipe: Recipe, seconds: int, tell: Callable[[float], None] = lambda _share: None
) -> None:
    """Make one film, unless it is there. Raises FfmpegFailed."""

    def make(target: Path) -> None:
        command = _film_command(recipe, seconds, target.parent)
        run_with_progress([*command, f"file:{target}"], seconds, tell)

    make_once([film], f"{recipe!r} {seconds}", make)


def make_sample_pictures(folder: Path) -> list[Path]:
    """Make the still pictures that are not there yet; their paths. Raises FfmpegFailed."""
    for name, source in PICTURES.items():
        make_once([folder / name], source, partial(_draw_still, source))
    return [folder / name for name in PICTURES]


def _draw_still(source: str, target: Path) -> None:
    still = ("-frames:v", "1", "-q:v", "3", "-pix_fmt", "yuvj420p", f"file:{target}")
    command = [need_ffmpeg(), "-f", "lavfi", "-i", source, *still]
    run_with_progress(command, 1, lambda _share: None)


def make_once(paths: Sequence[Path], made_from: str, make: Callable[[Path], None]) -> None:
    """Have files made, unless they are there and were made from the same.

    `make` writes the first of them into a workshop, under its own name, and the others beside it;
    all of them are there in the end, or none is.
    """
    note = _note(paths[0])
    fingerprint = hashlib.sha256(made_from.encode()).hexdigest()
    if note.is_file() and note.read_text() == fingerprint and all(map(Path.is_file, paths)):
        return
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as workshop:
        make(Path(workshop) / paths[0].name)
        for path in paths:
            (Path(workshop) / path.name).replace(path)
    note.write_text(fingerprint)


def _note(film: Path) -> Path:
    """Where the fingerprint of a film's recipe is kept; hidden, so that nobody posts it."""
    return film.with_name(f".{film.name}.recipe")


def _film_command(recipe: Recipe, seconds: int, workshop: Path) -> list[str]:
    """The ffmpeg call without its last word, the name of the output."""
    clock = Clock(height=recipe.height // 10)
    clock_path = workshop / "clock.gray"
    clock_path.write_bytes(clock.frames(seconds, CLOCK_FRAMES_PER_SECOND))
    clock_size, fps = f"{clock.width}x{clock.height}", CLOCK_FRAMES_PER_SECOND
    picture = recipe.picture.format(fps=FRAMES_PER_SECOND, width=recipe.width, height=recipe.height)
    margin, line = recipe.height // 15, recipe.height // 120
    size = f"{recipe.width}x{line}"
    graph = (
        f"{picture}[film]"
        f";color=white:s={clock_size}:r={FRAMES_PER_SECOND}[white]"
        f";[0:v]fps={FRAMES_PER_SECOND}[digits];[white][digits]alphamerge,"
        f"colorchannelmixer=aa=0.85[clock]"
        f";color=white:s={size}:r={FRAMES_PER_SECOND},format=rgba,colorchannelmixer=aa=0.7[line]"
        f";[film][clock]overlay=x={margin}:y=H-h-{margin}:shortest=1[clocked]"
        f";[clocked][line]overlay=x='-w+w*t/{seconds}':y=H-h,format=yuv420p[picture]"
        f";{soundtrack(recipe.notes_hz, seconds)}[sound]"
    )
    clock_input = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", clock_size, "-r", str(fps))
    return [
        *(need_ffmpeg(), *clock_input, "-i", f"file:{clock_path}", "-filter_complex", graph),
        *("-map", "[picture]", "-map", "[sound]", "-t", str(seconds)),
        # A key frame every two seconds, as films made for the web have: a seek is then quick.
        *("-g", str(2 * FRAMES_PER_SECOND), "-ar", "48000", "-ac", "2"),
        *recipe.codec,
        *("-metadata", f"title={recipe.name.partition(' (')[0]}"),
    ]


def soundtrack(notes_hz: tuple[float, ...], seconds: int) -> str:
    """A chord that breathes, a plucked note on every half second, silence at both ends."""
    left = "+".join(
        f"0.05*sin(2*PI*{note / 2}*t)*(0.6+0.4*sin(2*PI*t/{period}))"
        for note, period in zip(notes_hz, (8, 6, 12, 4), strict=True)
    )
    right = left.replace("0.6+0.4*sin", "0.6-0.4*sin")
    first, second, third, fourth = notes_hz
    step = "mod(floor(2*t),4)"
    note = (
        f"({first}*eq({step},0)+{third}*eq({step},1)+{second}*eq({step},2)+{fourth}*eq({step},3))"
    )
    pluck = f"0.10*exp(-7*mod(t,0.5))*sin(2*PI*{note}*mod(t,0.5))"
    return (
        f"aevalsrc='{left}+{pluck}|{right}+{pluck}':s=48000:d={seconds}"
        f",aecho=0.8:0.7:60|190:0.3|0.2,lowpass=f=3000"
        f",afade=in:d=1,afade=out:st={seconds - 1.2}:d=1.1,atrim=end={seconds}"
    )


# -- the clock -----------------------------------------------------------------------------------

# Drawn here rather than by ffmpeg's drawtext: that needs a font, and a bare server has none.
_SEGMENTS = {
    **{"0": "abcdef", "1": "bc", "2": "abdeg", "3": "abcdg", "4": "bcfg"},
    **{"5": "acdfg", "6": "acdefg", "7": "abc", "8": "abcdefg", "9": "abcdfg"},
}
"""The seven bars of a digital clock, a at the top and then clockwise, g in the middle."""


class Clock:
    """Frames of a digital clock, mm:ss.t, as 8-bit grey pictures to be used as a mask."""

    def __init__(self, height: int) -> None:
        self.height = height
        digit, point = height * 9 // 16, height // 4
        glyphs = {sign: _digit(bars, digit, height) for sign, bars in _SEGMENTS.items()}
        middle = height // 3
        glyphs[":"] = _dots(point, height, (middle, height - middle))
        glyphs["."] = _dots(point, height, (height - height // 11,))
        self._glyphs = glyphs
        self.width = 5 * digit + 2 * point
        # yuv420 halves the chroma, so sizes must be even.
        self._padding = bytes(self.width % 2)
        self.width += self.width % 2

    def frames(self, seconds: int, per_second: int) -> bytes:
        """All frames of `seconds`, one after another, as ffmpeg's rawvideo wants them."""
        return b"".join(
            self._frame(
                f"{index // per_second // 60:02}:{index // per_second % 60:02}"
                f".{index % per_second * 10 // per_second}"
            )
            for index in range(seconds * per_second)
        )

    def _frame(self, text: str) -> bytes:
        rows = zip(*(self._glyphs[sign] for sign in text), strict=True)
        return b"".join(b"".join(row) + self._padding for row in rows)


def _digit(bars: str, width: int, height: int) -> list[bytes]:
    """One digit: every pixel's grey from its distance to the nearest lit bar, so edges are soft."""
    radius = height / 22
    left, right = width * 0.16, width * 0.84
    top, middle, bottom = radius * 2, height / 2, height - radius * 2
    gap = radius * 1.3
    lines = {
        "a": (left + gap, top, right - gap, top),
        "b": (right, top + gap, right, middle - gap),
        "c": (right, middle + gap, right, bottom - gap),
        "d": (left + gap, bottom, right - gap, bottom),
        "e": (left, middle + gap, left, bottom - gap),
        "f": (left, top + gap, left, middle - gap),
        "g": (left + gap, middle, right - gap, middle),
    }
    return _draw([lines[bar] for bar in bars], radius, width, height)


def _dots(width: int, height: int, rows: tuple[int, ...]) -> list[bytes]:
    return _draw([(width / 2, row, width / 2, row) for row in rows], height / 18, width, height)


def _draw(
    lines: list[tuple[float, float, float, float]], radius: float, width: int, height: int
) -> list[bytes]:
    """Thick lines with round ends; all are level, upright or a point, which keeps it simple."""
    rows = []
    for y in range(height):
        row = bytearray(width)
        for x in range(width):
            distance = min(
                (
                    (x - min(max(x, x0), x1)) ** 2 + (y - min(max(y, y0), y1)) ** 2
                    for x0, y0, x1, y1 in lines
                ),
            )
            row[x] = round(255 * min(1.0, max(0.0, radius + 0.5 - distance**0.5)))
        rows.append(bytes(row))
    return rows
