"""Programs that play films: ffmpeg reads, decodes and seeks over HTTP as VLC and mpv do.

Method: the worker is a process, the film a post of the pocket Telegram, ffmpeg the one of PyPI's
imageio-ffmpeg. Chromium has test_gallery_browser.py.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import imageio_ffmpeg
import pytest
from conftest import Stage, StartProcess

from telegram_simulator.content import FileContent
from telegram_simulator.world import Post

# The first run makes the sample films, which takes its time on a slow machine.
pytestmark = pytest.mark.timeout(180)
SECONDS = 8.0
INDEX_IN_FRONT, INDEX_AT_THE_END, WEBM = 0, 1, 2


def post_film(stage: Stage, path: Path) -> Post:
    return stage.post(FileContent(path), f"video/{path.suffix[1:]}", file_name=path.name)


async def ffmpeg(*arguments: str) -> str:
    """What ffmpeg has to say; it must end well."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-hide_banner", "-nostdin", *arguments),
        stderr=asyncio.subprocess.PIPE,
    )
    _, text = await process.communicate()
    assert process.returncode == 0, text.decode()
    return text.decode()


@pytest.mark.parametrize("film", [INDEX_IN_FRONT, INDEX_AT_THE_END, WEBM])
async def test_ffmpeg_decodes_a_film_to_its_last_frame(
    stage: Stage, start_worker_process: StartProcess, sample_films: list[Path], film: int
) -> None:
    worker = await start_worker_process()
    url = worker.url + stage.path(post_film(stage, sample_films[film]))
    report = await ffmpeg("-v", "info", "-xerror", "-i", url, "-f", "null", "-")
    times = re.findall(r"time=00:00:([0-9.]+)", report)
    assert float(times[-1]) == pytest.approx(SECONDS, abs=0.3)
    assert "rror" not in report


@pytest.mark.parametrize("film", [INDEX_IN_FRONT, INDEX_AT_THE_END, WEBM])
async def test_ffmpeg_seeks_to_three_quarters_without_reading_the_rest(
    stage: Stage, start_worker_process: StartProcess, sample_films: list[Path], film: int
) -> None:
    worker = await start_worker_process()
    url = worker.url + stage.path(post_film(stage, sample_films[film]))
    seek = ("-ss", str(SECONDS * 0.75))
    near = await ffmpeg(
        "-v", "error", "-xerror", *seek, "-i", url, "-frames:v", "10", "-f", "md5", "-"
    )
    assert "rror" not in near
    assert re.search(r"range=bytes=[1-9][0-9]*-", worker.log), "it never asked for a later range"
