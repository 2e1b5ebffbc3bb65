"""Where a target's values come from, so that one target serves every engine.

atheris hands out bytes and learns which of them reach new code; `Cuts` takes values from the front
of these. hypothesis hands out the values themselves (`Drawn` in tests/test_fuzz.py) and finds the
smallest that fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Option = TypeVar("Option")

PIECE_MAX_BYTES = 255
NEST_MAX = 4  # levels, of values like JSON's
ITEMS_MAX = 4  # on each of them


class Source(Protocol):
    """Makes up values; any of them may come, so a target must expect all."""

    def number(self, least: int, most: int) -> int: ...

    def pick(self, options: Sequence[Option]) -> Option: ...

    def piece(self) -> bytes:
        """Up to PIECE_MAX_BYTES bytes."""
        ...

    def text(self) -> str:
        """Any characters, halves of surrogate pairs among them."""
        ...


class Cuts:
    """Takes values from the front of a fuzzer's bytes; when these run out, zeros follow."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def number(self, least: int, most: int) -> int:
        span = most - least + 1
        taken = self._take(((span - 1).bit_length() + 7) // 8)
        return least + int.from_bytes(taken, "little") % span

    def pick(self, options: Sequence[Option]) -> Option:
        return options[self.number(0, len(options) - 1)]

    def piece(self) -> bytes:
        return self._take(self.number(0, PIECE_MAX_BYTES))

    def text(self) -> str:
        return self.piece().decode("utf-8", "surrogateescape")

    def _take(self, size: int) -> bytes:
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken


Check = Callable[[Source], None]


@dataclass(frozen=True)
class Target:
    """Something to be fuzzed: `check` raises when what must hold does not."""

    name: str
    start: Callable[[], AbstractContextManager[Check]]
    words: tuple[bytes, ...] = ()  # what the grammar is made of, for a fuzzer's dictionary
    runs: int = 50_000  # under atheris in `make test`; about a second and a half

    @classmethod
    def of(cls, check: Check, **facts: Any) -> Target:
        """A target without a stage, named after its check."""
        name = check.__name__.removeprefix("check_")
        return cls(name, lambda: nullcontext(check), **facts)


def json_value(source: Source, depth: int = NEST_MAX) -> Any:
    """A value such as JSON may hold: also what Python reads and no standard knows, like NaN."""
    kind = source.pick(("text", "integer", "odd", "list", "object") if depth else ("text", "odd"))
    if kind == "text":
        return source.text()
    if kind == "integer":
        return source.number(-(2**70), 2**70)
    if kind == "odd":
        return source.pick(_ODD_VALUES)
    many = range(source.number(0, ITEMS_MAX))
    if kind == "list":
        return [json_value(source, depth - 1) for _ in many]
    return {source.text(): json_value(source, depth - 1) for _ in many}


def json_object(source: Source, fields: Sequence[str], usual: dict[str, Any]) -> dict[str, Any]:
    """An object near a usual one: some of these fields are gone, some hold anything."""
    made = dict(usual)
    for _ in range(source.number(0, ITEMS_MAX)):
        name = source.pick(fields)
        if source.pick((False, False, True)):
            made.pop(name, None)
        else:
            made[name] = json_value(source)
    return made


_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, 1e308, -0.0),
    *(2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 10**20, 10**400),
    *(float("inf"), float("-inf"), float("nan")),
    *("", "0", "1", "1e5", "NaN", "\u0661", " 7 ", "9" * 5000),
)
