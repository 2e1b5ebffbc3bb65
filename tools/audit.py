"""`make audit`: known vulnerabilities of all that is locked, and the licences of all that ships.

    python tools/audit.py            # 0: nothing found; 1: something to look at

Where the database of vulnerabilities cannot be reached this says so, and nothing was audited then:
pip-audit itself reports "no known vulnerabilities" also of packages that it could not look up.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# Whoever passes Rangegram on may do so with these at hand; none asks for more than its own text.
ALLOWED_LICENCES = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "PSF-2.0"),
    # The same in the words of PyPI's classifiers.
    "Apache Software License",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication",
    "MIT License",
    "Python Software Foundation License",
}
Verdict = tuple[bool, list[str]]  # whether all is well, and what to say


def main() -> None:
    verdicts = [
        judge_vulnerabilities(*run_pip_audit(REPOSITORY / "requirements-dev.lock")),
        judge_licences(read_lock(REPOSITORY / "requirements.lock"), run_pip_licenses()),
        judge_vendored(REPOSITORY / "static" / "vendor"),
    ]
    for _, lines in verdicts:
        print(*lines, sep="\n")
    sys.exit(0 if all(is_well for is_well, _ in verdicts) else 1)


def run_pip_audit(lock: Path) -> tuple[Any, str]:
    """Its report, None if it made none, and what it said meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = ["--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json"]
        done = run("pip-audit", *options, f"--requirement={lock}", f"--output={report}")
        return json.loads(report.read_text()) if report.exists() else None, done.stderr


def judge_vulnerabilities(report: Any, said: str) -> Verdict:
    """What is known of the packages. It is a fault if only some of them could be looked up."""
    if report is None:
        last = (said.strip().splitlines() or ["pip-audit said nothing"])[-1][:200]
        is_far = re.search(r"requests\.exceptions\.|Could not connect|timed out", said) is not None
        return is_far, [f"vulnerabilities: NOT AUDITED: {last}"]
    packages = report["dependencies"]
    known = [package for package in packages if "skip_reason" not in package]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if not known:
        return True, ["vulnerabilities: NOT AUDITED: the database knows none of the packages here"]
    lines = [
        f"vulnerabilities: {package['name']} {package['version']}: {flaw['id']},"
        f" mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for package in known
        for flaw in package["vulns"]
    ]
    unknown = "NOT AUDITED: the database does not know it"
    lines += [f"vulnerabilities: {name}: {unknown}" for name in skipped]
    return not lines, lines or [f"vulnerabilities: none known in {len(known)} packages"]


def read_lock(lock: Path) -> dict[str, bool]:
    """The names of the packages in a lock, and whether each is for every platform and Python."""
    lines = re.findall(r"^([\w.-]+)==[^ ]+ (;?)", lock.read_text(), re.MULTILINE)
    return {name: not marker for name, marker in lines}


def run_pip_licenses() -> dict[str, str]:
    """The licence of every package that is installed here, by its name as locks write it."""
    done = run("pip-licenses", "--from=mixed", "--format=json", "--with-system")
    return {normal(package["Name"]): package["License"] for package in json.loads(done.stdout)}


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A tool of the environment that this runs in."""
    command = [str(BIN / name), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def judge_licences(locked: Mapping[str, bool], licences: Mapping[str, str]) -> Verdict:
    """A list of them; one that is not allowed or not known is a fault."""
    lines, is_well = [], True
    for name, is_for_all in sorted(locked.items()):
        if name not in licences and not is_for_all:
            continue  # for another platform or Python
        licence = licences.get(name, "not installed here")
        is_allowed = all(part in ALLOWED_LICENCES for part in parts_of(licence))
        is_well = is_well and is_allowed
        lines.append(f"licence: {name}: {licence}{'' if is_allowed else '  <- NOT ALLOWED'}")
    return is_well, lines


def judge_vendored(folder: Path) -> Verdict:
    """What is kept here as others made it: its licence, and that nobody has changed a byte."""
    lines, is_well = [], True
    listed = json.loads((folder / "vendor.json").read_text())
    for package in listed:
        licence = package["licence"]
        is_allowed = all(part in ALLOWED_LICENCES for part in parts_of(licence))
        changed = [
            name
            for name, digest in package["sha256"].items()
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest
        ]
        is_well = is_well and is_allowed and not changed
        notes = ["" if is_allowed else "NOT ALLOWED", *(f"{name} WAS CHANGED" for name in changed)]
        note = ", ".join(filter(None, notes))
        title = f"{package['name']} {package['version']}"
        lines.append(f"licence: {title}: {licence}{f'  <- {note}' if note else ''}")
    known = {"vendor.json", *(name for package in listed for name in package["sha256"])}
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in known)
    lines += [f"licence: {folder.name}/{name}  <- NOBODY KNOWS WHOSE" for name in strangers]
    return is_well and not strangers, lines


def parts_of(licence: str) -> Iterable[str]:
    """Each licence that an expression names: all must be allowed, even those one may choose."""
    return re.split(r"\s*;\s*|\s+(?:AND|OR)\s+", licence)


if __name__ == "__main__":
    main()
