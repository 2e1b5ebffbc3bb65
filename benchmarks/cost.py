"""What a MiB costs the worker: CPU, and memory while a film of 2 GB runs."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from .figures import MB, MIB, Findings, Promise, Spread, Table
from .stage import Film, Line, PeakRss, Setup, Worker, open_stage, pin
from .viewers import Viewer

# -- CPU -----------------------------------------------------------------------------------------

FLOOR_SCRIPT = Path(__file__).parent / "floor.py"
WHOLE_BYTES, PIECE_BYTES = MIB, 64 << 10
"""A message in one call; and in calls so small that their memory is never given back and asked
for anew, which costs page faults."""
RUN_BYTES = 512 * MIB
FAR_RUN_BYTES = 256 * MIB
BASELINE_RUN_BYTES = 128 * MIB
WARM_UP_BYTES = 64 * MIB
NEAR, FAR = Line(), Line(0.02)

Costs = dict[str, list[float]]
"""Milliseconds of CPU per MiB, run by run."""


def measure_cpu(setup: Setup) -> Findings:
    """Floor, worker and baseline in turns, so that what the machine does befalls them all."""
    costs: Costs = {"floor": [], "floor in pieces": [], "near": [], "far": [], "baseline": []}
    with open_stage(setup, [RUN_BYTES] * (1 + 2 * setup.repeat)) as stage:
        first, *films = stage.telegram.films
        with stage.worker() as worker, stage.baseline() as baseline:
            for each in (worker, baseline):
                _cpu_ms(each, first, WARM_UP_BYTES)
            for near_film, far_film in zip(films[::2], films[1::2], strict=True):
                costs["floor"].append(floor_ms(setup, RUN_BYTES, WHOLE_BYTES))
                stage.telegram.set_line(NEAR)
                costs["near"].append(_cpu_ms(worker, near_film, RUN_BYTES))
                costs["floor in pieces"].append(floor_ms(setup, RUN_BYTES, PIECE_BYTES))
                costs["baseline"].append(_cpu_ms(baseline, near_film, BASELINE_RUN_BYTES))
                stage.telegram.set_line(FAR)
                costs["far"].append(_cpu_ms(worker, far_film, FAR_RUN_BYTES))
    what = "CPU per MiB proxied"
    times = _ratios(costs["near"], costs["floor"])
    return Findings(
        [_cpu_table(costs)],
        [Promise(what, "{} times the floor", times, at_most=1.2, digits=2)],
        {"cpu_ms_per_mib": costs},
    )


def floor_ms(setup: Setup, total_bytes: int, message_bytes: int) -> float:
    """Milliseconds of CPU per MiB, by the worker's interpreter on the worker's core."""
    command = [
        str(setup.worker_python),
        str(FLOOR_SCRIPT),
        str(total_bytes // MIB),
        str(message_bytes),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, setup.cores.worker)
        printed, _ = process.communicate()
    return float(printed)


def _cpu_ms(worker: Worker, film: Film, size: int) -> float:
    before_s = worker.cpu_s()
    with Viewer(worker, film) as viewer:
        viewer.ask(0, size)
        viewer.read_to_end()
    return (worker.cpu_s() - before_s) * 1000 / (size / MIB)


def _ratios(costs: list[float], floors: list[float]) -> list[float]:
    return [cost / floor for cost, floor in zip(costs, floors, strict=True)]


def _cpu_table(costs: Costs) -> Table:
    names = {
        "floor": "floor: AES-IGE and SHA-256, 1 MiB a call",
        "floor in pieces": "the same, 64 KiB a call",
        "near": f"worker, {NEAR}",
        "far": f"worker, {FAR}",
        "baseline": f"baseline, {NEAR}",
    }
    rows = []
    for name, title in names.items():
        times, times_pieces = (
            Spread.of(_ratios(costs[name], costs[floor])) for floor in ("floor", "floor in pieces")
        )
        rows.append([title, Spread.of(costs[name]).show(2), times.show(2), times_pieces.show(2)])
    return Table(
        "CPU",
        "Milliseconds of CPU, user and system, per MiB. Floor and workers ran in turns, on one"
        f" core, {RUN_BYTES // MIB} MiB each time; {FAR_RUN_BYTES // MIB} MiB at {FAR},"
        f" {BASELINE_RUN_BYTES // MIB} MiB of the baseline.",
        ["", "ms per MiB", "times the floor", "times 64 KiB a call"],
        rows,
    )


# -- memory --------------------------------------------------------------------------------------

FILM_BYTES = 2_000_000_000
SEEKS = 100
SEEK_BYTES = 300_000


def measure_memory(setup: Setup) -> Findings:
    """A film of 2 GB played through, then a hundred seeks in it."""
    with (
        open_stage(setup, [FILM_BYTES]) as stage,
        stage.worker() as worker,
        Viewer(worker, stage.telegram.films[0]) as viewer,
    ):
        idle = worker.rss_bytes()
        with PeakRss(worker) as playing:
            viewer.ask()
            viewer.read_to_end()
        with PeakRss(worker) as seeking:
            dice = random.Random(1)
            for _ in range(SEEKS):
                viewer.seek(dice.randrange(FILM_BYTES - MIB))
                viewer.read(SEEK_BYTES)
    peak = max(playing.bytes, seeking.bytes)
    figures = {"just started": idle, "played through": playing.bytes, "100 seeks": seeking.bytes}
    table = Table(
        "Memory of one viewer",
        "Most resident memory of the worker in MB, a film of 2 GB.",
        ["", "MB"],
        [[what, f"{rss / MB:.1f}"] for what, rss in figures.items()],
    )
    promise = Promise("RSS, one viewer of a 2 GB film", "{} MB", [peak / MB], at_most=100)
    return Findings([table], [promise], {"rss_bytes": figures})
