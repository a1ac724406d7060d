"""One lock that somebody holds must not keep all other sessions of a file store from being read."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path

from eyewall.errors import StoreUnavailable
from eyewall.stores.file import THREADS, FileStore
from eyewall.stores.locks import FolderLocks
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record


async def test_reading_does_not_queue_behind_writers_of_a_stuck_record(tmp_path: Path) -> None:
    """A stopped process, or parallel writes to one session, took every thread: 503 for the whole site."""
    clock = ManualClock()
    store = FileStore(tmp_path / "sessions", clock=clock, lock_timeout=timedelta(seconds=30))
    record = new_record(clock, digest=b"\1" * 32)
    await store.create(record)
    with FolderLocks(tmp_path / "sessions" / "locks", timedelta(1)).holding(bytes(32)):
        stuck = [asyncio.ensure_future(store.delete(bytes(32))) for _ in range(2 * THREADS)]
        async with asyncio.timeout(10):
            assert await store.load(record.digest) == record
            assert [found async for found in store.scan()] == [record]
    with contextlib.suppress(StoreUnavailable):
        await asyncio.gather(*stuck)
    await store.close()
