"""Runs a script as if nothing but the packages of requirements.lock were installed.

`python tests/lean.py render-service-chunked.py`: Telethon and PyJWT load whatever else they find
(Pillow, cryptography), 15 MB that a deployed worker does not have.
"""

import re
import runpy
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def hide_what_is_not_locked() -> None:
    """Makes every import of another package raise ModuleNotFoundError."""
    locked = {_normal(name) for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)}
    for module, distributions in packages_distributions().items():
        if module not in sys.modules and locked.isdisjoint(map(_normal, distributions)):
            # None there is how an import is forbidden; the type checker knows of modules only.
            sys.modules[module] = None  # type: ignore[assignment]


if __name__ == "__main__":
    hide_what_is_not_locked()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
