"""Expired records go by themselves, a batch at a time, without anybody waiting."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from eyewall.core.events import EventStream
from eyewall.core.sweeping import BATCH, Sweeper
from eyewall.errors import DamagedRecordError, StoreUnavailable
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.core.world import World


class Counting(MemoryStore):
    """Says that there were as many expired records as it is told."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.batches: list[int] = []
        self.due = 0

    async def sweep(self, now: datetime, limit: int) -> int:
        removed = min(self.due, limit)
        self.due -= removed
        self.batches.append(removed)
        return removed


async def test_saving_starts_a_batch_about_once_a_minute_and_no_more() -> None:
    """A sweep per save would be worse than none."""
    world = World()
    browser = world.browser()
    swept: list[int] = []
    real = world.store.sweep

    async def sweep(now: datetime, limit: int) -> int:
        swept.append(limit)
        return await real(now, limit)

    world.store.sweep = sweep  # type: ignore[method-assign]
    for number in range(600):
        await browser.put(n=number)
        world.pass_time(seconds=1)
        await asyncio.sleep(0)
    assert 5 <= len(swept) <= 20
    assert set(swept) == {BATCH}


async def test_while_there_is_more_it_comes_back_every_second() -> None:
    """A million expired records must not take a thousand minutes."""
    clock = ManualClock()
    store = Counting(clock)
    store.due = 3 * BATCH + 5
    sweeper = Sweeper(store, clock, asyncio.ensure_future, EventStream(clock))
    clock.advance(timedelta(minutes=2))
    for _ in range(10):
        sweeper.nudge()
        await asyncio.sleep(0)
        clock.advance(timedelta(seconds=1))
    sweeper.stop()
    assert store.batches == [BATCH, BATCH, BATCH, 5]


async def test_a_store_that_does_not_answer_is_swept_later() -> None:
    """Sweeping is nobody's request: its failure is nobody's error."""
    clock = ManualClock()
    store = Counting(clock)

    async def fail(_now: datetime, _limit: int) -> int:
        raise StoreUnavailable("down")

    store.sweep = fail  # type: ignore[assignment,method-assign]
    await Sweeper(store, clock, asyncio.ensure_future, EventStream(clock)).sweep_once()


async def test_the_timer_sweeps_where_nobody_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Visitors who only read leave expired records behind, too."""
    clock = ManualClock()
    store = Counting(clock)
    loop = asyncio.get_running_loop()
    delays: list[float] = []

    def call_soon_instead(delay: float, callback: object) -> object:
        delays.append(delay)
        if len(delays) > 1:
            return real(3600, lambda: None)
        clock.advance(timedelta(minutes=2))
        return loop.call_soon(callback)  # type: ignore[arg-type]

    real = loop.call_later
    monkeypatch.setattr(loop, "call_later", call_soon_instead)
    sweeper = Sweeper(store, clock, asyncio.ensure_future, EventStream(clock))
    sweeper.nudge()
    for _ in range(10):
        await asyncio.sleep(0)
    monkeypatch.undo()
    sweeper.stop()
    assert store.batches
    assert all(30 <= delay <= 90 for delay in delays)


async def test_of_several_processes_one_sweeps_and_another_follows_when_it_is_gone() -> None:
    """Four workers that sweep one table get in each other's way for nothing."""
    clock = ManualClock()
    store = Counting(clock)
    workers = [Sweeper(store, clock, asyncio.ensure_future, EventStream(clock)) for _ in range(4)]

    async def rounds(alive: list[Sweeper]) -> int:
        before = len(store.batches)
        for worker in alive:
            await worker.sweep_once()
        return len(store.batches) - before

    assert await rounds(workers) == 1
    assert await rounds(workers) == 1
    clock.advance(timedelta(seconds=100))
    assert await rounds(workers[1:]) == 0, "the first has the lease still"
    clock.advance(timedelta(seconds=100))
    assert await rounds(workers[1:]) == 1
    assert [record async for record in store.scan() if record.successor is None] == []


async def test_a_damaged_lease_does_not_stop_the_sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is only a record."""
    clock = ManualClock()
    store = Counting(clock)
    await Sweeper(store, clock, asyncio.ensure_future, EventStream(clock)).sweep_once()

    async def damaged(_digest: bytes) -> None:
        raise DamagedRecordError("bent")

    monkeypatch.setattr(store, "load", damaged)
    await Sweeper(store, clock, asyncio.ensure_future, EventStream(clock)).sweep_once()
    assert len(store.batches) == 2
