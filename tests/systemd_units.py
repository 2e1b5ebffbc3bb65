"""The systemd units of `deploy/` as values."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from conftest import REPOSITORY

FOLDER = "/opt/rangegram"  # where the units expect the files


@dataclass(frozen=True)
class Unit:
    """Every value of every key, in order; section names are left out, since no key is in two."""

    values: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> Unit:
        values = defaultdict(list)
        for key, value in re.findall(r"(?m)^(\w+)=(.*)$", path.read_text()):
            values[key].append(value)
        return cls(dict(values))

    def one(self, key: str) -> str:
        (value,) = self.values[key]
        return value

    def seconds(self, key: str) -> int:
        text = self.one(key)
        found = re.fullmatch(r"(\d+)(s|min)", text)
        assert found, text
        return int(found[1]) * {"s": 1, "min": 60}[found[2]]

    @property
    def environment(self) -> dict[str, str]:
        pairs = " ".join(self.values["Environment"]).split()
        return dict(pair.split("=", 1) for pair in pairs)


def unit_path(service: str) -> Path:
    return REPOSITORY / "deploy" / f"rangegram-{service}.service"
