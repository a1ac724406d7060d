"""Sweeping beside serving: bounded batches, no live session touched, nobody kept waiting.

``EYEWALL_TEST_SOAK=1`` sweeps a million sessions from SQLite and PostgreSQL and prints what it cost others.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eyewall.core.events import EventStream
from eyewall.core.record import Record
from eyewall.core.sweeping import BATCH, Sweeper
from eyewall.testing.check_kit import created, new_record
from eyewall.testing.clock import ManualClock
from tests.stores.sweep_places import Plant, Store, count, dead_record, open_place

DEAD = 20_000
MILLION = 1_000_000
LIVE = 50
STEP = 90
"""Seconds: longer than a sweeper ever rests."""

Place = tuple[Store, Plant]


class Noting:
    """Passes sweeps on to a store and notes how many records each one took, and how long."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.batches: list[int] = []
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def sweep(self, now: datetime, limit: int) -> int:
        began = time.perf_counter()
        self.batches.append(await self._store.sweep(now, limit))
        self.seconds.append(time.perf_counter() - began)
        return self.batches[-1]


@pytest.fixture
def clock() -> ManualClock:
    """Time that only a test moves."""
    return ManualClock()


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Place]:
    """A store of the kind that the test is parametrised with, and what fills it with dead records."""
    name: str = request.param
    url = f"sqlite:///{tmp_path}/s.db"
    if name in ("postgres", "mongodb"):
        url = request.getfixturevalue(name).url
    store, plant = open_place(name, tmp_path, url, clock)
    yield store, plant
    await store.close()


def living(clock: ManualClock, **facts: Any) -> list[Record]:
    """Sessions that outlive any test, however far it moves the clock."""
    end = clock() + timedelta(days=400)
    return [new_record(clock, expires_at=end, **facts) for _ in range(LIVE)]


async def load_on(store: Store, records: list[Record], swept: asyncio.Event) -> list[float]:
    """Load live records one after another until ``swept``; return how long each took (seconds)."""
    took = []
    while not swept.is_set():
        for record in records:
            began = time.perf_counter()
            assert await store.load(record.digest) == record
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.001)
    return took


async def sweep_all(noting: Noting, clock: ManualClock, swept: asyncio.Event) -> None:
    """Nudge a sweeper as saves do, each time as soon as it may start a batch, until nothing is due."""
    batches: list[asyncio.Task[None]] = []

    def spawn(batch: Coroutine[Any, Any, None]) -> None:
        batches.append(asyncio.ensure_future(batch))

    sweeper = Sweeper(noting, clock, spawn, EventStream(clock))
    while not noting.batches or noting.batches[-1] == BATCH:
        clock.advance(STEP)
        sweeper.nudge()
        await asyncio.gather(*batches)
    sweeper.stop()
    swept.set()


async def swept_beside_loads(
    store: Store, clock: ManualClock, live: list[Record]
) -> tuple[Noting, list[float]]:
    """Sweep everything that is due while others load; return the batches, and how long the loads took."""
    noting, swept = Noting(store), asyncio.Event()
    took, _ = await asyncio.gather(load_on(store, live, swept), sweep_all(noting, clock, swept))
    return noting, took


@pytest.mark.parametrize("place", ["sqlite", "file", "postgres", "mongodb"], indirect=True)
async def test_a_month_of_dead_sessions_goes_in_batches_while_the_living_are_served(
    place: Place, clock: ManualClock
) -> None:
    """Harm: after a crawler's visit every request waits for the clean-up, or loses its session to it."""
    store, plant = place
    live = living(clock, principal="somebody")
    await created(store, *live)
    await plant(store, dead_record(clock), DEAD)
    noting, took = await swept_beside_loads(store, clock, live)
    assert sum(noting.batches) == DEAD
    assert max(noting.batches) == BATCH
    assert await count(store) == LIVE + 1, "the living, and the lease of who sweeps"
    assert len(took) >= LIVE, "nobody was served meanwhile"


def shown(seconds: list[float]) -> str:
    """Median and 99th percentile in milliseconds."""
    hundredths = statistics.quantiles(seconds, n=100)
    return f"p50 {hundredths[49] * 1000:.2f} ms, p99 {hundredths[98] * 1000:.2f} ms, of {len(seconds)} loads"


@pytest.mark.skipif("EYEWALL_TEST_SOAK" not in os.environ, reason="minutes long: EYEWALL_TEST_SOAK=1 runs it")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
async def test_a_million_dead_sessions(
    place: Place, clock: ManualClock, request: pytest.FixtureRequest, capsys: Any
) -> None:
    """Harm: what holds for thousands does not hold for the first sweep of a large site."""
    store, plant = place
    live = living(clock)
    await created(store, *live)
    quiet = asyncio.Event()
    asyncio.get_running_loop().call_later(10, quiet.set)
    alone = await load_on(store, live, quiet)
    await plant(store, dead_record(clock), MILLION)
    began = time.perf_counter()
    noting, took = await swept_beside_loads(store, clock, live)
    seconds = time.perf_counter() - began
    with capsys.disabled():
        sys.stdout.write(
            f"\n{request.node.callspec.id}: {MILLION} records in {seconds:.0f} s, one batch after another\n"
            f"  a batch of {BATCH}: p50 {statistics.median(noting.seconds) * 1000:.0f} ms\n"
            f"  loads alone:      {shown(alone)}\n"
            f"  beside the sweep: {shown(took)}\n"
        )
    assert sum(noting.batches) == MILLION
    assert max(noting.batches) <= BATCH
    assert await count(store) == LIVE + 1, "the living, and the lease of who sweeps"
