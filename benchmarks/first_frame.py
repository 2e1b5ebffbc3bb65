"""How long somebody who clicks on a film looks at nothing: the first frame in a real browser."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from telegram_simulator.sample_films import FILMS, make_sample_films

from .figures import Findings, Promise, Spread, Table
from .stage import REPOSITORY, Film, Line, Setup, Worker, open_stage

LINE = Line(0.08, 20e6 / 8)
FIRST_FRAME_MAX_S = 1.0

RECIPES = {"index in front": FILMS[0], "index at the end": FILMS[1]}
FILMS_FOLDER = REPOSITORY / ".demo" / "films"
"""Shared with the demo, which makes the same films."""

PLAY = """url => new Promise((resolve, reject) => {
  const video = document.createElement("video");
  document.body.append(video);
  video.muted = true;
  video.onerror = () => reject(new Error(video.error.message));
  video.requestVideoFrameCallback(() => resolve((performance.now() - askedAt) / 1000));
  const askedAt = performance.now();
  video.src = url;
  video.play();
})"""
"""Seconds from setting `src` to the first frame that was presented."""


def measure(setup: Setup) -> Findings:
    made = make_sample_films(FILMS_FOLDER, recipes=RECIPES.values())
    # Beside the films, since links do not reach from one disk to another.
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=FILMS_FOLDER.parent) as name:
        _lay_out(Path(name), made, setup.repeat)
        with open_stage(setup, media=Path(name)) as stage, stage.worker() as worker:
            stage.telegram.set_line(LINE)
            waits = _first_frames(worker, stage.telegram.films)
    worst = max(waits.values(), key=lambda runs: Spread.of(runs).median)
    table = Table(
        "First frame in Chromium",
        "Seconds from setting `src` of a `<video>` to the first frame presented; H.264, 720p,"
        f" opened for the first time, over {LINE.round_trip_s * 1000:g} ms and 20 Mbit/s.",
        ["", "seconds"],
        [[kind, Spread.of(runs).show(2)] for kind, runs in waits.items()],
    )
    promise = Promise(
        "first frame in Chromium, 80 ms and 20 Mbit/s",
        "{} s",
        worst,
        at_most=FIRST_FRAME_MAX_S,
        digits=2,
    )
    return Findings([table], [promise], {"first_frame_s": waits})


def _lay_out(folder: Path, made: Sequence[Path], repeat: int) -> None:
    """The folder of the channel: a film that comes before all, then each kind in turns.

    They are links to the same few files, which cost nothing; each name becomes a post of its own,
    and a post is opened for the first time but once.
    """
    os.link(made[0], folder / "00.mp4")
    for turn in range(1, 1 + repeat):
        for number, path in enumerate(made):
            os.link(path, folder / f"{turn:02} {number}.mp4")


def _first_frames(worker: Worker, films: Sequence[Film]) -> dict[str, list[float]]:
    """Seconds by kind; the films come in the order in which they were laid out."""
    waits: dict[str, list[float]] = {kind: [] for kind in RECIPES}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        # Neither browser nor connections are new to somebody who clicks on one film of many.
        _first_frame_s(browser, worker, films[0])
        for kind, film in zip(cycle(RECIPES), films[1:], strict=False):
            waits[kind].append(_first_frame_s(browser, worker, film))
        browser.close()
    return waits


def _first_frame_s(browser: Browser, worker: Worker, film: Film) -> float:
    page = browser.new_page()
    # Any page of this machine: one from nowhere may not reach into it.
    page.goto(worker.base_url + "/health")
    seconds = float(page.evaluate(PLAY, worker.base_url + worker.path(film)))
    page.close()
    return seconds
