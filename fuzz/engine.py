"""atheris: tries inputs, keeps those that ran lines no other input ran, and goes on from there.

Each target runs in a process of its own, since an input that fails ends the process, but all of
them come from one in which our modules were instrumented as they were imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import random
import re
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .source import Cuts, Target

INSTRUMENTED = ("worker", "backend", "gallery", "telegram_simulator", "jwt")
INPUT_MAX_BYTES = 2048
MEMORY_MAX_MB = 1024
PATIENCE_S = 30  # for one input
FIRST_INPUTS = 60


@dataclass(frozen=True)
class Outcome:
    """How one target went: `problem` is empty when nothing was found."""

    name: str
    runs: int
    places: int  # in the code, that some input reached
    problem: str
    input: Path | None
    log: Path


def is_here() -> bool:
    """Whether atheris is installed; it has releases for Linux on x86-64 only."""
    return importlib.util.find_spec("atheris") is not None


def load_targets() -> dict[str, Target]:
    """The targets, with the modules that they test instrumented. Before these are imported!"""
    atheris = importlib.import_module("atheris")
    early = sorted(name for name in INSTRUMENTED if name in sys.modules)
    if early:
        raise RuntimeError(f"imported before they could be instrumented: {', '.join(early)}")
    with (
        redirect_stderr(io.StringIO()),  # it names each module
        atheris.instrument_imports(include=list(INSTRUMENTED)),
    ):
        module = importlib.import_module("fuzz.targets")
    targets: dict[str, Target] = module.TARGETS
    return targets


def fuzz(target: Target, folder: Path, *, seed: int, seconds_each: int | None) -> Outcome:
    """Run a target for so long, or for the number of inputs that it names itself."""
    corpus, found, log = (folder / kind / target.name for kind in ("corpus", "found", "log"))
    for path in (corpus, found, log.parent):
        path.mkdir(parents=True, exist_ok=True)
    known = set(found.iterdir())
    arguments = [
        sys.argv[0],
        f"-seed={seed}",
        f"-max_total_time={seconds_each}" if seconds_each else f"-runs={target.runs}",
        f"-max_len={INPUT_MAX_BYTES}",
        "-len_control=0",
        f"-rss_limit_mb={MEMORY_MAX_MB}",
        f"-timeout={PATIENCE_S}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    if target.words:
        arguments.append(f"-dict={_write_words(target, log.with_suffix('.dict'))}")
    arguments.append(str(corpus))
    _plant(corpus, seed)
    sys.stdout.flush()
    process_id = os.fork()
    if process_id == 0:
        _become_fuzzer(target, arguments, log)
    _, status = os.waitpid(process_id, 0)
    new = sorted(set(found.iterdir()) - known)
    return _judged(target, log, os.waitstatus_to_exitcode(status), new[0] if new else None)


def _become_fuzzer(target: Target, arguments: list[str], log: Path) -> None:
    """Never returns: the fuzzer ends the process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    atheris: Any = importlib.import_module("atheris")
    with target.start() as check:
        atheris.Setup(arguments, lambda data: check(Cuts(data)))
        atheris.Fuzz()
    os._exit(0)


def _plant(corpus: Path, seed: int) -> None:
    """Noise to go on from: every target makes sense of any bytes."""
    dice = random.Random(seed)
    for number in range(FIRST_INPUTS):
        data = dice.randbytes(dice.choice((10, 40, 160, 640)))
        (corpus / f"noise-{seed}-{number}").write_bytes(data)


def _write_words(target: Target, path: Path) -> Path:
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in target.words)
    path.write_text("\n".join([*lines, ""]))
    return path


def _judged(target: Target, log: Path, code: int, new: Path | None) -> Outcome:
    text = log.read_text("utf-8", "replace")
    runs = re.findall(r"stat::number_of_executed_units: (\d+)", text) or re.findall(
        r"^#(\d+)", text
    )
    places = re.findall(r" cov: (\d+)", text)
    raised = re.search(r"Uncaught Python exception: ===\s+(.+)", text)
    ended = re.search(r"ERROR: libFuzzer: (.+)", text)
    problem = ""
    if code != 0 or new is not None:
        words = raised or ended
        problem = words[1][:120] if words else f"it ended with code {code}"
    return Outcome(
        name=target.name,
        runs=int(runs[-1]) if runs else 0,
        places=int(places[-1]) if places else 0,
        problem=problem,
        input=new,
        log=log,
    )
