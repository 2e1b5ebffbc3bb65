"""How fast, how soon and how cheaply films come: the worker measured against its promises.

    python -m benchmarks.streaming                       # everything, about eight minutes
    python -m benchmarks.streaming --only first-byte,cpu # some of it, written nowhere
    python -m benchmarks.streaming --list

Goal: every promise of the project as one row, with its figure and whether it is kept; exit code 1
when one is not. Method: the worker runs as a process against the pocket Telegram, on a core of its
own; a round trip and a line are set there; viewers are bare sockets. Whatever can be is a ratio
within one run, to what is measured at the same time on the same machine: a round trip, the
sequential worker that everybody ships, the CPU that the cryptography alone takes.

    stage.py                what runs, and where            viewers.py  who watches
    sequential_worker.py    the baseline                    floor.py    the least that a byte costs
    first_byte.py throughput.py cost.py fetched.py crowds.py first_frame.py   the measurements
    figures.py conditions.py report.py plot.py                               the results
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from . import cost, crowds, fetched, first_byte, first_frame, report, throughput
from .conditions import describe, noise_ms
from .figures import Findings
from .stage import REPOSITORY, Cores, Setup, StageFailed, pin
from .viewers import Refused

MEASUREMENTS: Mapping[str, Callable[[Setup], Findings]] = {
    "first-byte": first_byte.measure,
    "throughput": throughput.measure,
    "cpu": cost.measure_cpu,
    "fetched": fetched.measure,
    "memory": cost.measure_memory,
    "crowds": crowds.measure,
    "first-frame": first_frame.measure,
    "bots": throughput.measure_bots,
}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    options = arguments().parse_args()
    if options.list:
        print("\n".join(MEASUREMENTS))
        return 0
    # A polite end, so that no process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    setup = Setup(options.worker, options.worker_python, options.repeat, Cores.divided())
    pin(0, setup.cores.others)
    noise: list[float] = []
    findings: dict[str, Findings] = {}
    for name in options.only or MEASUREMENTS:
        noise.append(noise_ms(setup))
        try:
            findings[name] = measure(name, setup)
        except (StageFailed, Refused, OSError) as problem:
            print(f"{name}: {problem}", file=sys.stderr)
            return 2
        print("\n".join(report.show(table) for table in findings[name].tables))
    conditions = describe(setup, noise)
    promises = [promise for found in findings.values() for promise in found.promises]
    print(report.show(report.conditions_table(conditions)))
    print(report.show(report.promises_table(promises)))
    if findings.keys() == MEASUREMENTS.keys():
        report.write(options.results, conditions, findings)
    return 0 if all(promise.is_met for promise in promises) else 1


def measure(name: str, setup: Setup) -> Findings:
    print(f"{name} ...", file=sys.stderr, flush=True)
    began_at = time.monotonic()
    findings = MEASUREMENTS[name](setup)
    print(f"{name}: {time.monotonic() - began_at:.0f} s", file=sys.stderr, flush=True)
    return findings


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description="Measures the worker against the pocket Telegram, and its promises.",
    )
    add = parser.add_argument
    add("--only", type=names, metavar="NAME,…", help="some of the measurements; writes no results")
    add("--list", action="store_true", help="name the measurements")
    add(
        "--worker",
        type=existing_file,
        default=REPOSITORY / "render-service-chunked.py",
        metavar="PATH",
        help="another worker than the one of this repository",
    )
    add(
        "--worker-python",
        type=existing_file,
        default=Path(sys.executable),
        metavar="PATH",
        help="the interpreter that runs the worker: one that has requirements.txt and no more",
    )
    add("--repeat", type=positive, default=3, metavar="N", help="runs of each; default 3")
    add("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: %(default)s")
    return parser


def names(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - MEASUREMENTS.keys():
        raise argparse.ArgumentTypeError(f"no such measurement: {', '.join(sorted(unknown))}")
    return chosen


def existing_file(text: str) -> Path:
    # Not resolved: the interpreter of an environment is a link, and means its environment.
    path = Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return path


def positive(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"a number of runs, please, not {text!r}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
