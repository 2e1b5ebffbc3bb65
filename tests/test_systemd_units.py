"""The systemd units of `deploy/`: systemd understands them, and they are as locked in as they say.

Method: systemd's own `systemd-analyze`, which needs no running systemd, on the files as they ship;
only the folder that they name is replaced by one that exists.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import worker
from conftest import REPOSITORY
from proxies import DEPLOY, command
from systemd_units import FOLDER, Unit, unit_path

SERVICES = ("worker", "backend")
EXPOSURE_MAX = 1.5
# What systemd before 254 does not know: there it ignores them, and the start limit steps in.
SINCE_254 = {"RestartSteps", "RestartMaxDelaySec"}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def unit(service: str) -> Unit:
    return Unit.read(unit_path(service))


def verify(text: str, service: str, folder: Path) -> list[str]:
    """What systemd says of a unit once its program exists."""
    python = folder / "rangegram" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    if not python.is_symlink():
        python.symlink_to(sys.executable)
    path = folder / f"rangegram-{service}.service"
    path.write_text(text.replace(FOLDER, str(folder / "rangegram")))
    done = subprocess.run(
        [command("systemd-analyze"), "verify", path], capture_output=True, text=True, check=False
    )
    # Of what else this machine has installed it speaks as well.
    return [line for line in done.stderr.splitlines() if path.name in line]


def test_systemd_understands_every_line(service: str, tmp_path: Path) -> None:
    text = unit_path(service).read_text()
    assert FOLDER in text
    said = verify(text, service, tmp_path)
    unknown = {found[1] for line in said if (found := re.search("Unknown key.*'(\\w+)'", line))}
    assert unknown <= SINCE_254, said
    assert len(said) == len(unknown), said
    # A word that nobody knows is said, or silence means nothing.
    assert len(verify(text + "ProtectHomes=yes\n", service, tmp_path)) > len(said)


def test_it_is_as_locked_in_as_the_document_says(service: str) -> None:
    done = subprocess.run(
        [command("systemd-analyze"), "security", "--offline=yes", "--no-pager", unit_path(service)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found, done.stdout
    assert float(found[1]) <= EXPOSURE_MAX, done.stdout
    document = (REPOSITORY / "docs" / "deploy.md").read_text()
    said = re.search(r"rates both (\d\.\d) ", document)
    assert said
    assert abs(float(found[1]) - float(said[1])) < 0.25  # each version of systemd weighs anew


def test_it_starts_what_there_is_where_the_proxies_look_for_it(service: str, unit: Unit) -> None:
    python, script = unit.one("ExecStart").split()
    assert python == f"{FOLDER}/.venv/bin/python"
    assert (REPOSITORY / script.removeprefix(f"{FOLDER}/")).is_file()
    own = unit.environment
    for name in ("nginx.conf", "Caddyfile"):
        assert f"{own['HOST']}:{own['PORT']}" in (DEPLOY / name).read_text()


def test_it_may_end_in_its_own_time_and_never_starts_in_a_hot_loop(
    service: str, unit: Unit
) -> None:
    assert unit.one("KillSignal") == "SIGTERM"
    assert unit.one("Restart") == "on-failure"
    # aiohttp waits twice.
    assert unit.seconds("TimeoutStopSec") > max(30, 2 * worker.SHUTDOWN_TIMEOUT_S)
    assert unit.one("RestartPreventExitStatus") == "2"  # wrong settings
    first_s, burst = unit.seconds("RestartSec"), int(unit.one("StartLimitBurst"))
    last_s, steps = unit.seconds("RestartMaxDelaySec"), int(unit.one("RestartSteps"))
    interval_s = unit.seconds("StartLimitIntervalSec")
    # Without steps ten starts are the end of it; with them there are never so many in the interval.
    assert burst * first_s < interval_s
    waits = [first_s * (last_s / first_s) ** (step / steps) for step in range(burst)]
    assert sum(waits) > interval_s


def test_no_secret_is_in_a_unit(unit: Unit) -> None:
    """Everybody may read what a unit says; only root reads the file that it names."""
    assert set(unit.environment) <= {
        *("HOST", "PORT", "DATABASE", "SESSION_FILE", "PYTHONDONTWRITEBYTECODE")
    }
    assert unit.one("EnvironmentFile") == "/etc/rangegram.env"
