"""Data folders that take a database seconds to make: made once in a process, then copied."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

_templates: dict[str, Path] = {}


def fill(target: Path, name: str, make: Callable[[], None]) -> None:
    """Have ``make`` fill the folder ``target``; the next time, copy what it made.

    Args:
        target: does not exist yet: into a folder that exists, a copy would go one level too deep.
        name: the kind of content; the same name stands for the same content.
        make: fills ``target``, which no server uses meanwhile.
    """
    if name in _templates:
        _copy(_templates[name], target)
        return
    make()
    folder = Path(tempfile.mkdtemp(prefix=f"eyewall-{name}-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _copy(target, folder / "data")
    _templates[name] = folder / "data"


def _copy(source: Path, target: Path) -> None:
    """Copy with owners and modes, which databases insist on."""
    subprocess.run(["cp", "-a", source, target], check=True)
