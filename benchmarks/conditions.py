"""What the figures depend on besides the worker: machine, versions, and how quiet it was."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from .cost import PIECE_BYTES, floor_ms
from .figures import MIB, Spread
from .stage import Setup

NOISE_BYTES = 128 * MIB
VERSIONS = """
import importlib.metadata, json, platform
names = ("aiohttp", "cryptg", "Telethon", "uvloop", "PyJWT")
found = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
print(json.dumps({
    platform.python_implementation(): platform.python_version(),
    **{name: found.get(name.lower(), "none") for name in names},
    "packages in all": len(found),
}))
"""
"""Asked of the worker's interpreter, which has an environment of its own."""


def noise_ms(setup: Setup) -> float:
    """Milliseconds of CPU for the same work at any time: they differ as far as the machine does."""
    return floor_ms(setup, NOISE_BYTES, PIECE_BYTES)


def describe(setup: Setup, noise: Sequence[float]) -> dict[str, str]:
    spread = Spread.of(noise)
    swing = (spread.high - spread.low) / spread.median
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()}",
        "cores": "the worker on one; simulator, viewers and browser on another"
        if setup.cores.worker
        else "not pinned: the worker shares its cores with simulator, viewers and browser",
        "worker": f"{setup.worker_script.name}, SHA-256 {_fingerprint(setup.worker_script)}",
        "its environment": _worker_versions(setup),
        "browser": _browser_version(),
        "runs": f"{setup.repeat} of each; figures are medians, in brackets the least and the most",
        "noise": f"64 KiB of IGE and SHA-256 over and over, before each part:"
        f" {spread.show(2)} ms of CPU per MiB, a swing of {swing:.0%};"
        f" load at the end {os.getloadavg()[0]:.1f}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _worker_versions(setup: Setup) -> str:
    command = [str(setup.worker_python), "-c", VERSIONS]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return ", ".join(f"{name} {version}" for name, version in json.loads(printed).items())


def _browser_version() -> str:
    chromium = shutil.which("chromium")
    if chromium is None:
        return "none"
    printed = subprocess.run([chromium, "--version"], capture_output=True, text=True, check=True)
    return " ".join(printed.stdout.split()[:2])


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
