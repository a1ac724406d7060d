"""Runs the ``eyewall`` command as a user does, and fills the stores it works on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eyewall.core.opening import open_store
from eyewall.core.record import Record
from eyewall.core.store import Store, utc_now
from eyewall.settings import Settings

T = TypeVar("T")


@dataclass
class Answer:
    """What the command said."""

    code: int
    out: str
    err: str


def eyewall(*words: str, folder: Path, **variables: str) -> Answer:
    """Run ``eyewall`` with ``words`` in ``folder``, with no other EYEWALL_ variables than these."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EYEWALL_")}
    done = subprocess.run(
        [sys.executable, "-m", "eyewall.cli.main", *words],
        cwd=folder,
        env=environ | variables | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def in_store(url: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """Await ``work(store)`` on the store at ``url``."""

    async def opened() -> T:
        store = open_store(Settings(url=url), utc_now)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def fill(url: str, *records: Record) -> None:
    """Create ``records`` in the store at ``url``."""

    async def create(store: Store) -> None:
        for record in records:
            assert await store.create(record)

    in_store(url, create)


def kept(url: str, *records: Record) -> list[Record | None]:
    """Return what the store at ``url`` has under the digests of ``records``."""

    async def load(store: Store) -> list[Record | None]:
        return [await store.load(record.digest) for record in records]

    return in_store(url, load)


def file_url(folder: Path) -> str:
    """The URL of a file store."""
    return folder.absolute().as_uri()


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite store."""
    return f"sqlite:///{path.absolute()}"
