"""Expired sessions go, and only they, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from eyewall.cli.sweep import sweep_all
from eyewall.core.store import utc_now
from eyewall.core.sweeping import BATCH
from eyewall.stores.memory import MemoryStore
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record
from tests.cli.command import eyewall, file_url, fill, kept, sqlite_url


@pytest.mark.parametrize("make_url", [file_url, sqlite_url])
def test_sweep_removes_what_is_due_and_says_how_many(make_url: Callable[[Path], str], tmp_path: Path) -> None:
    """A store that only grows fills the disk; a live session swept signs somebody out."""
    url = make_url(tmp_path / "sessions")
    now = utc_now()
    dead = [new_record(utc_now, expires_at=now - timedelta(hours=1)) for _ in range(5)]
    live = new_record(utc_now)
    fill(url, *dead, live)
    assert (
        eyewall("sweep", "--url", url, "--limit", "2", folder=tmp_path).out == "2 expired records removed\n"
    )
    assert eyewall("sweep", folder=tmp_path, EYEWALL_URL=url).out == "3 expired records removed\n"
    assert eyewall("sweep", folder=tmp_path, EYEWALL_URL=url).out == "0 expired records removed\n"
    assert kept(url, live) == [live]


def test_limit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """A slip must not sweep everything."""
    answer = eyewall("sweep", "--limit", "many", folder=tmp_path)
    assert answer.code == 2
    assert "'many' is not a number of sessions" in answer.err


class Counting(MemoryStore):
    """Remembers how much was asked of it at once."""

    asked: list[int]

    async def sweep(self, now: datetime, limit: int) -> int:
        self.asked.append(limit)
        return await super().sweep(now, limit)


async def test_large_backlog_goes_in_batches_so_that_no_request_waits() -> None:
    """One statement over a million rows would stop the site."""
    clock = ManualClock(utc_now() - timedelta(days=1))
    store = Counting(clock=clock, max_records=10_000)
    store.asked = []
    for _ in range(2 * BATCH + 1):
        await store.create(new_record(clock))
    assert await sweep_all(store, BATCH + 10) == BATCH + 10
    assert store.asked == [BATCH, 10]
    assert await sweep_all(store) == BATCH - 9
    assert len(store) == 0
