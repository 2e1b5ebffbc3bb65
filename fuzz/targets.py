"""All targets by name. A parser that comes to read strangers' input gets its line here."""

from __future__ import annotations

from . import (
    gallery_parsers,
    gallery_requests,
    simulator_frames,
    worker_films,
    worker_parsers,
    worker_requests,
    worker_wire,
)
from .source import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        worker_parsers,
        worker_films,
        worker_wire,
        worker_requests,
        gallery_parsers,
        gallery_requests,
        simulator_frames,
    )
    for target in module.TARGETS
}
