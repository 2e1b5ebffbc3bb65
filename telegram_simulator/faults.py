"""Trouble on request, and the counts of what was asked and served."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

FaultKind = Literal["error", "cut_before", "cut_during", "cut_after", "refuse", "silence", "short"]


@dataclass(slots=True)
class Fault:
    """One planned misfortune; it strikes matching requests `times` times and is then gone.

    `kind`: `error` answers an RPC error (`code`, `message`, such as 420 and `FLOOD_WAIT_3`);
    `cut_before`, `cut_during`, `cut_after` close the TCP connection before, in the middle of, or
    after the answer; `silence` never answers; `short` answers half of a file chunk.
    A filter left at None matches everything. `after` lets that many matching requests pass first.
    """

    kind: FaultKind
    times: int = 1
    after: int = 0
    method: str | None = None
    dc_id: int | None = None
    account_id: int | None = None
    file_id: int | None = None
    code: int = 500
    message: str = "INTERNAL"

    def matches(self, method: str, dc_id: int, account_id: int | None, file_id: int | None) -> bool:
        wanted = (self.method, self.dc_id, self.account_id, self.file_id)
        actual = (method, dc_id, account_id, file_id)
        return all(want is None or want == have for want, have in zip(wanted, actual, strict=True))


class Trouble:
    """The network and the moods of the server; plain attributes, free to change at any time.

    `round_trip_s` delays every answer; `bytes_per_second` is the line of one TCP connection, both
    ways of it together; `down` names data centres that accept no connection and drop the old ones,
    `silent` those that accept whatever comes and say nothing; `clock_ahead_s` is how far the
    server's clock runs ahead of this machine's, which is how a client with a wrong clock sees it.
    """

    def __init__(self) -> None:
        self.round_trip_s = 0.0
        self.bytes_per_second: float | None = None
        self.down: set[int] = set()
        self.silent: set[int] = set()
        self.clock_ahead_s = 0.0
        self.faults: list[Fault] = []

    def now(self) -> float:
        """Unix time by the server's clock."""
        return time.time() + self.clock_ahead_s

    def plan(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def flood_wait(
        self,
        seconds: int,
        *,
        times: int = 1,
        method: str = "upload.getFile",
        premium: bool = False,
        account_id: int | None = None,
        dc_id: int | None = None,
        after: int = 0,
    ) -> Fault:
        """Answer 420 FLOOD_WAIT_X (or FLOOD_PREMIUM_WAIT_X) to the next calls of a method."""
        name = "FLOOD_PREMIUM_WAIT" if premium else "FLOOD_WAIT"
        return self.plan(
            Fault(
                "error",
                times=times,
                after=after,
                method=method,
                account_id=account_id,
                dc_id=dc_id,
                code=420,
                message=f"{name}_{seconds}",
            )
        )

    def strike(
        self, method: str, dc_id: int, account_id: int | None, file_id: int | None
    ) -> Fault | None:
        """The fault that befalls this request, used up by it; None for a good day."""
        for fault in self.faults:
            if not fault.matches(method, dc_id, account_id, file_id):
                continue
            if fault.after:
                fault.after -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            return fault
        return None


@dataclass(slots=True)
class FileCount:
    """What one file cost; `windows` has the (offset, limit) of each request in order."""

    requests: int = 0
    bytes_asked: int = 0
    bytes_served: int = 0
    windows: list[tuple[int, int]] = field(default_factory=list)


class Counters:
    """What was asked and served since the start or the last `reset`.

    `files` are chunks served over MTProto, `downloads` bytes served over the Bot API, by file id.
    """

    def __init__(self) -> None:
        self.methods: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.connections: Counter[int] = Counter()
        self.files: defaultdict[int, FileCount] = defaultdict(FileCount)
        self.downloads: Counter[int] = Counter()

    def reset(self) -> None:
        self.methods.clear()
        self.errors.clear()
        self.connections.clear()
        self.files.clear()
        self.downloads.clear()

    def bytes_served(self, file_ids: Iterable[int] | None = None) -> int:
        """Bytes of file chunks sent, of the named files or of all."""
        chosen = self.files if file_ids is None else file_ids
        return sum(self.files[file_id].bytes_served for file_id in tuple(chosen))
