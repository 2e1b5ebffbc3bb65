"""What is installed, from where, and who may do what when it is tested in public.

Goal: the locks hold all that the requirements ask for and nothing else, `make audit` says what it
knows and no more, and the workflow has no rights that a stranger's pull request could use. Method:
the files are read as pip and the host read them; the audit judges reports as pip-audit writes them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement

from tools import audit

VENDORED = REPOSITORY / "static" / "vendor"
RUN_TIME, DEVELOPMENT = "requirements", "requirements-dev"
BACKEND_ONLY = {"charset-normalizer", "pysubs2"}


@dataclass(frozen=True)
class Locked:
    """One entry of a lock."""

    requirement: Requirement
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]

    @property
    def name(self) -> str:
        return audit.normal(self.requirement.name)

    @property
    def is_for_here(self) -> bool:
        marker = self.requirement.marker
        return marker is None or marker.evaluate()


def lock(stem: str) -> list[Locked]:
    text = (REPOSITORY / f"{stem}.lock").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"\A(#.*\n)+", "", text).strip())
    return [
        Locked(
            Requirement(entry.partition("\\\n")[0].strip()),
            tuple(re.findall(r"--hash=(\S+)", entry)),
            tuple(re.findall(r"#\s+(?:via\s+)?(\S.*)", entry.replace("# via\n", ""))),
        )
        for entry in entries
    ]


def asked_for(stem: str) -> Iterator[Requirement]:
    for line in (REPOSITORY / f"{stem}.txt").read_text().splitlines():
        if line.startswith("-r "):
            yield from asked_for(Path(line[3:]).stem)
        elif line and not line.startswith("#"):
            yield Requirement(line)


# -- The locks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", [RUN_TIME, DEVELOPMENT])
def test_the_lock_holds_what_is_asked_for_in_the_same_version(stem: str) -> None:
    # By version too: another Python may have another version of the same package.
    entries = {
        (each.name, str(each.requirement.specifier)): each.requirement for each in lock(stem)
    }
    for wanted in asked_for(stem):
        found = entries.get((audit.normal(wanted.name), str(wanted.specifier)))
        assert found is not None, f"{wanted}: run make lock"
        assert str(wanted.specifier).startswith("=="), wanted
        assert (found.marker is None) is (wanted.marker is None), wanted


@pytest.mark.parametrize("stem", [RUN_TIME, DEVELOPMENT])
def test_nothing_is_locked_that_nobody_wants(stem: str) -> None:
    entries = lock(stem)
    names = {entry.name for entry in entries}
    files = {f"-r {RUN_TIME}.txt", f"-r {DEVELOPMENT}.txt"}
    for entry in entries:
        assert entry.wanted_by, entry.name
        assert set(entry.wanted_by) <= names | files, entry.name
    direct = {audit.normal(each.name) for each in asked_for(stem)}
    assert {entry.name for entry in entries if files & set(entry.wanted_by)} == direct


@pytest.mark.parametrize("stem", [RUN_TIME, DEVELOPMENT])
def test_every_entry_has_one_version_and_hashes(stem: str) -> None:
    for entry in lock(stem):
        assert re.fullmatch(r"==[\w.]+", str(entry.requirement.specifier)), entry.name
        assert entry.hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in entry.hashes), entry.name


@pytest.mark.parametrize("stem", [RUN_TIME, DEVELOPMENT])
def test_what_is_installed_here_is_what_is_locked(stem: str) -> None:
    """Also what the packages ask for themselves: a lock that lacks one of them installs nothing."""
    locked = {entry.name: entry for entry in lock(stem) if entry.is_for_here}
    waiting = [(each, "") for each in asked_for(stem)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted, extra = waiting.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = audit.normal(wanted.name)
        assert locked[name].requirement.specifier.contains(metadata.version(name)), name
        for chosen in wanted.extras | {""}:
            if (name, chosen) not in seen:
                seen.add((name, chosen))
                inner = metadata.requires(name) or []
                waiting += [(Requirement(each), chosen) for each in inner]
    assert {name for name, _ in seen} == set(locked)


def test_the_development_lock_only_adds_to_the_other() -> None:
    def pins(stem: str) -> set[tuple[str, str, tuple[str, ...]]]:
        return {(each.name, str(each.requirement.specifier), each.hashes) for each in lock(stem)}

    assert pins(RUN_TIME) < pins(DEVELOPMENT)


def test_what_the_workers_head_names_is_locked() -> None:
    """`uv run render-service-chunked.py` has no lock beside it: its head must say the same."""
    source = (REPOSITORY / "render-service-chunked.py").read_text()
    block = re.search(r"^# /// script\n(.*?)^# ///$", source, re.MULTILINE | re.DOTALL)
    assert block
    named = [Requirement(line) for line in re.findall(r'^#   "(.*)",$', block[1], re.MULTILINE)]
    locked = {entry.name: entry.requirement.specifier for entry in lock(RUN_TIME)}
    direct = {audit.normal(each.name) for each in asked_for(RUN_TIME)}
    assert direct - {audit.normal(each.name) for each in named} == BACKEND_ONLY
    assert all(locked[audit.normal(each.name)] == each.specifier for each in named)


@pytest.mark.parametrize("name", [f"{RUN_TIME}.lock", f"{DEVELOPMENT}.lock", f"{RUN_TIME}.txt"])
def test_no_requirement_names_a_place(name: str) -> None:
    """Where packages come from is the business of whoever installs."""
    text = (REPOSITORY / name).read_text()
    assert not re.search(r"://|index-url|find-links|trusted-host|file:| @ |[\s=]/", text)


def test_what_others_wrote_ships_unchanged_with_its_licence() -> None:
    is_well, lines = audit.judge_vendored(VENDORED)
    assert is_well, lines
    (package,) = json.loads((VENDORED / "vendor.json").read_text())
    assert f"licence: hls.js {package['version']}: Apache-2.0" in lines
    assert f'"{package["version"]}"' in (VENDORED / "hls.light.min.mjs").read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda folder: (folder / "hls.light.min.mjs").write_text("alert(1)"), "WAS CHANGED"),
        (lambda folder: (folder / "jquery.js").write_text(""), "NOBODY KNOWS WHOSE"),
        (
            lambda folder: (folder / "vendor.json").write_text(
                (folder / "vendor.json").read_text().replace("Apache-2.0", "SSPL-1.0")
            ),
            "NOT ALLOWED",
        ),
    ],
    ids=["changed", "unknown", "another licence"],
)
def test_the_audit_sees_what_is_wrong_with_it(wrong: Any, said: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(VENDORED, tmp_path / "vendor"))
    wrong(folder)
    is_well, lines = audit.judge_vendored(folder)
    assert not is_well
    assert any(line.endswith(said) for line in lines)


def test_the_environment_is_made_from_the_lock() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    rule = makefile.partition("$(VENV)/.installed: ")[2].partition("\n\n")[0]
    assert rule.splitlines()[0] == "requirements-dev.lock"
    assert "--require-hashes -r $<" in rule


# -- The audit -----------------------------------------------------------------------------------


def package(name: str, *flaws: str, skip: str = "") -> dict[str, Any]:
    if skip:
        return {"name": name, "skip_reason": skip}
    vulns = [{"id": flaw, "fix_versions": ["2.0"], "aliases": []} for flaw in flaws]
    return {"name": name, "version": "1.0", "vulns": vulns}


UNREACHABLE = "Traceback\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(…): Max retries"


@pytest.mark.parametrize(
    ("packages", "said", "is_well", "line"),
    [
        ([package("a"), package("b")], "", True, "none known in 2 packages"),
        ([package("a"), package("b", "CVE-1")], "", False, "b 1.0: CVE-1, mended in 2.0"),
        ([package("a", skip="x"), package("b", skip="x")], "", True, "NOT AUDITED"),
        ([package("a"), package("b", skip="x")], "", False, "b: NOT AUDITED"),
        (None, UNREACHABLE, True, "NOT AUDITED"),
        (None, "ERROR: Could not connect to the vulnerability feed", True, "NOT AUDITED"),
        (None, "usage: pip-audit\nerror: unrecognized arguments", False, "NOT AUDITED"),
        (None, "", False, "NOT AUDITED"),
    ],
)
def test_the_audit_says_what_it_knows_and_no_more(
    packages: list[dict[str, Any]] | None, said: str, is_well: bool, line: str
) -> None:
    report = None if packages is None else {"dependencies": packages, "fixes": []}
    found_well, lines = audit.judge_vulnerabilities(report, said)
    assert found_well is is_well
    assert any(line in each for each in lines)
    assert any("none known" in each for each in lines) is (line == "none known in 2 packages")


@pytest.mark.parametrize(
    ("locked", "licences", "is_well"),
    [
        ({"a": True}, {"a": "MIT"}, True),
        ({"a": True}, {"a": "Apache-2.0 AND MIT"}, True),
        ({"a": True}, {"a": "Apache Software License; MIT License"}, True),
        ({"a": True}, {"a": "MIT AND GPL-3.0-only"}, False),
        ({"a": True}, {"a": "MIT OR GPL-3.0-only"}, False),
        ({"a": True}, {"a": "UNKNOWN"}, False),
        ({"a": True}, {"a": ""}, False),
        ({"a": True}, {"b": "MIT"}, False),
        ({"a": True, "b": False}, {"a": "MIT"}, True),
        ({"a": True, "b": False}, {"a": "MIT", "b": "GPL-3.0-only"}, False),
    ],
)
def test_only_licences_on_the_list_ship(
    locked: dict[str, bool], licences: dict[str, str], is_well: bool
) -> None:
    found_well, lines = audit.judge_licences(locked, licences)
    assert found_well is is_well
    assert any("NOT ALLOWED" in line for line in lines) is not is_well


def test_everything_that_ships_has_an_allowed_licence() -> None:
    """By the real pip-licenses, in the environment that the tests run in."""
    locked = audit.read_lock(REPOSITORY / "requirements.lock")
    assert set(locked) == {entry.name for entry in lock(RUN_TIME)}
    assert {name for name, is_for_all in locked.items() if not is_for_all} == {
        entry.name for entry in lock(RUN_TIME) if entry.requirement.marker
    }
    is_well, lines = audit.judge_licences(locked, audit.run_pip_licenses())
    assert is_well, lines
    assert len(lines) > 10


def test_the_audit_fails_when_something_is_found(tmp_path: Path) -> None:
    """The command as people run it, with a pip-audit that has found a flaw, and with one that has
    not."""
    fake = tmp_path / "run.py"
    for flaws, code in (([], 0), (["CVE-1"], 1)):
        report = {"dependencies": [package("a", *flaws)], "fixes": []}
        fake.write_text(
            "from tools import audit\n"
            f"audit.run_pip_audit = lambda lock: ({report!r}, '')\n"
            "audit.main()\n"
        )
        done = subprocess.run(
            [sys.executable, str(fake)],
            env={"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "licence: aiohttp: Apache-2.0" in done.stdout


# -- The workflow --------------------------------------------------------------------------------

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
RIGHTS = {"contents": "read"}


def problems_of(workflow: dict[Any, Any]) -> list[str]:
    """What in a workflow a stranger's pull request or a hijacked action could make use of."""
    triggers = workflow[True]  # `on` is a yes in YAML 1.1
    text = json.dumps(workflow, default=str)
    found = [
        *(["permissions"] if workflow.get("permissions") != RIGHTS else []),
        *(["pull_request_target"] if "pull_request_target" in triggers else []),
        *(["workflow_run"] if "workflow_run" in triggers else []),
        *(["secrets"] if re.search(r"secrets\.|GITHUB_TOKEN|github\.token", text) else []),
        *(["concurrency"] if "concurrency" not in workflow else []),
    ]
    for job in workflow["jobs"].values():
        found += [] if job.get("permissions", RIGHTS) == RIGHTS else ["permissions"]
        found += [] if 0 < job.get("timeout-minutes", 0) <= 120 else ["time-out"]
        found += [] if job["runs-on"].startswith("ubuntu-") else ["self-hosted"]
        for step in job["steps"]:
            action = step.get("uses", "")
            is_pinned = re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action)
            found += [] if is_pinned or not action else [f"unpinned {action}"]
            # What a title or a branch is called would be run as a command.
            found += ["injection"] if "${{" in step.get("run", "") else []
            keeps = step.get("with", {}).get("persist-credentials") is not False
            found += ["credentials"] if "checkout" in action and keeps else []
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_workflow_has_the_least_rights(path: Path) -> None:
    assert problems_of(yaml.safe_load(path.read_text())) == []


def test_there_is_a_workflow_that_runs_what_every_submission_must_pass() -> None:
    (path,) = WORKFLOWS
    workflow = yaml.safe_load(path.read_text())
    assert set(workflow[True]) == {"push", "pull_request"}
    (job,) = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    pythons = [tuple(map(int, each.split("."))) for each in job["strategy"]["matrix"]["python"]]
    promised = re.search(r"Python (\d+)\.(\d+) or newer", (REPOSITORY / "README.md").read_text())
    assert promised
    assert pythons[0] == tuple(map(int, promised.groups()))
    assert pythons == [(3, minor) for minor in range(pythons[0][1], pythons[-1][1] + 1)]
    rendered = re.findall(r"value: (3\.\d+)\.\d+", (REPOSITORY / "render.yaml").read_text())
    assert rendered
    assert {tuple(map(int, each.split("."))) for each in rendered} <= set(pythons)


GOOD: dict[Any, Any] = {
    True: {"pull_request": None},
    "permissions": {"contents": "read"},
    "concurrency": {"group": "x"},
    "jobs": {
        "a": {
            "runs-on": "ubuntu-24.04",
            "timeout-minutes": 5,
            "steps": [
                {
                    "uses": f"actions/checkout@{'a' * 40}",
                    "with": {"persist-credentials": False},
                },
                {"run": "make"},
            ],
        }
    },
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda flow, job: flow.pop("permissions"), "permissions"),
        (lambda flow, job: flow.update(permissions="write-all"), "permissions"),
        (lambda flow, job: flow["permissions"].update(packages="write"), "permissions"),
        (lambda flow, job: job.update(permissions={"contents": "write"}), "permissions"),
        (lambda flow, job: flow[True].update(pull_request_target=None), "pull_request_target"),
        (lambda flow, job: job.update(env={"A": "${{ secrets.A }}"}), "secrets"),
        (lambda flow, job: job.pop("timeout-minutes"), "time-out"),
        (lambda flow, job: job.update({"runs-on": "self-hosted"}), "self-hosted"),
        (lambda flow, job: flow.pop("concurrency"), "concurrency"),
        (lambda flow, job: job["steps"].append({"uses": "a/b@v1"}), "unpinned a/b@v1"),
        (lambda flow, job: job["steps"][1].update(run="x ${{ github.head_ref }}"), "injection"),
        (lambda flow, job: job["steps"][0]["with"].clear(), "credentials"),
    ],
)
def test_each_wrong_in_a_workflow_is_seen(change: Any, problem: str) -> None:
    workflow = deepcopy(GOOD)
    job = workflow["jobs"]["a"]
    assert problems_of(workflow) == []
    change(workflow, job)
    assert problems_of(workflow) == [problem]
