"""Fuzz for a while, and say at the end what was run and found.

    make fuzz SECONDS=600                     atheris, hypothesis, schemathesis, a third each
    python -m fuzz --seconds 60 worker_wire   one target, by atheris alone
    python -m fuzz --briefly                  each target briefly, the same inputs every time
    python -m fuzz --replay .fuzz/found/worker_wire/crash-… worker_wire     one input once more

What atheris learns is kept in .fuzz/corpus and used again; inputs that failed are in .fuzz/found.
Exit status 0: nothing was found; 1: something was; 2: there is no such target.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import engine
from .source import Cuts

REPOSITORY = Path(__file__).resolve().parent.parent
FIXED_SEED = 1
SEED_MAX = 2**31 - 1

NOT_HERE = "atheris: not run; it has releases for CPython on Linux and x86-64 only"


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    kind: str
    name: str
    amount: str
    problem: str = ""

    def __str__(self) -> str:
        found = f"FOUND: {self.problem}" if self.problem else "nothing found"
        return f"{self.kind:<13} {self.name:<20} {self.amount:<34} {found}"


def main() -> int:
    options = _options()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.replay:
        return _replay(options.replay, options.targets)
    seed = FIXED_SEED if options.briefly else random.randint(1, SEED_MAX)
    is_all = not (options.targets or options.briefly)
    share_s = options.seconds / 3 if is_all else options.seconds
    results = list(_with_atheris(options, folder, seed, share_s))
    if is_all:
        for kind, arguments in (
            ("hypothesis", ["tests", "--ignore=tests/test_openapi.py", "-m", "hypothesis"]),
            ("schemathesis", ["tests/test_openapi.py", "-k", "answers_as_described"]),
        ):
            results.append(_in_rounds(kind, arguments, folder, seed, share_s))
    print(f"\nseed {seed}; logs in {_short(folder / 'log')}")
    print(*results, sep="\n")
    return 1 if any(result.problem for result in results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=600, help="in all (600)")
    parser.add_argument("--briefly", action="store_true", help="what `make test` does")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input alone")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".fuzz", help="(.fuzz)")
    return parser.parse_args()


# -- atheris -------------------------------------------------------------------------------------


def _with_atheris(
    options: argparse.Namespace, folder: Path, seed: int, share_s: float
) -> Iterator[Result]:
    if not engine.is_here():
        print(NOT_HERE)
        return
    targets = engine.load_targets()
    names = options.targets or list(targets)
    if unknown := [name for name in names if name not in targets]:
        print(f"no such target: {', '.join(unknown)}; there are {', '.join(targets)}")
        sys.exit(2)
    seconds_each = None if options.briefly else max(1, round(share_s / len(names)))
    for name in names:
        outcome = engine.fuzz(targets[name], folder, seed=seed, seconds_each=seconds_each)
        problem = outcome.problem
        if outcome.input is not None:
            problem += f" (python -m fuzz --replay {_short(outcome.input)} {name})"
        amount = f"{outcome.runs:,} inputs, {outcome.places} places"
        result = Result("atheris", name, amount, problem)
        print(result, flush=True)
        yield result


def _replay(path: Path, names: list[str]) -> int:
    """Run one input without any engine; whatever it raises is shown."""
    from .targets import TARGETS

    if len(names) != 1 or names[0] not in TARGETS:
        print(f"--replay wants one of {', '.join(TARGETS)}")
        return 2
    with TARGETS[names[0]].start() as check:
        check(Cuts(path.read_bytes()))
    print("this input is well now")
    return 0


# -- hypothesis and schemathesis, by way of pytest -----------------------------------------------


def _in_rounds(kind: str, arguments: list[str], folder: Path, seed: int, share_s: float) -> Result:
    """Run the tests with one seed after another until the time is over, once at least."""
    ends_at, rounds, passed = time.monotonic() + share_s, 0, 0
    log = folder / "log" / kind
    problems: list[str] = []
    while not problems and (rounds == 0 or time.monotonic() < ends_at):
        done = subprocess.run(  # noqa: S603 - our own tests
            [
                *(sys.executable, "-m", "pytest", "-q", "--no-header", "--timeout=600"),
                *("--hypothesis-profile=fuzz", f"--hypothesis-seed={seed + rounds}"),
                *arguments,
            ],
            cwd=REPOSITORY,
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        rounds += 1
        log.write_text(done.stdout)
        passed += sum(map(int, re.findall(r"(\d+) passed", done.stdout)))
        problems = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode and not problems:
            problems = [f"pytest ended with code {done.returncode}"]
    found = f"{', '.join(dict.fromkeys(problems))}; see {_short(log)}" if problems else ""
    amount = f"{rounds} rounds, {passed} properties held"
    result = Result(kind, "tests", amount, found)
    print(result, flush=True)
    return result


def _short(path: Path) -> str:
    return os.path.relpath(path, REPOSITORY)


if __name__ == "__main__":
    sys.exit(main())
