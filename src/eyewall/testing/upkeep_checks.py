"""Checks of ``sweep``, ``close`` and cancellation: what keeps a store healthy for months."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import Final

from eyewall.core.record import Record
from eyewall.core.store import Store
from eyewall.testing.check_kit import (
    LIFETIME,
    MakeStore,
    cancelled_midway,
    clock_of_today,
    created,
    new_record,
    next_version,
    opened,
    require,
)

LONG_AGO: Final = timedelta(days=30)
"""The sweeping checks happen this far in the past, so that they find no other check's records due."""


async def check_sweep_never_touches_live_records(make: MakeStore) -> None:
    """However often it sweeps, a record stays until the very moment of its end, extensions included."""
    clock = clock_of_today()
    clock.advance(-LONG_AGO)
    async with opened(make, clock) as store:
        far = clock() + 2 * LONG_AGO
        alive, touched, replaced = records = [new_record(clock, expires_at=far) for _ in range(3)]
        await created(store, *records)
        await store.touch(touched.digest, clock(), far + LIFETIME)
        await store.replace(next_version(replaced, expires_at=far + LIFETIME), version=1)
        for step in (timedelta(0), LIFETIME, LONG_AGO):
            await store.sweep(clock() + step, 1000)
        for record in (alive, touched, replaced):
            require(await store.load(record.digest), "sweep never touches a live record")


async def check_sweep_spares_records_whose_life_was_extended(make: MakeStore) -> None:
    """A store that remembers the old end beside the record would sweep a visitor out mid-visit."""
    clock = clock_of_today()
    clock.advance(-LONG_AGO)
    async with opened(make, clock) as store:
        touched, replaced = new_record(clock), new_record(clock)
        await created(store, touched, replaced)
        await store.touch(touched.digest, clock(), clock() + 3 * LIFETIME)
        await store.replace(next_version(replaced, expires_at=clock() + 3 * LIFETIME), version=1)
        clock.advance(2 * LIFETIME)
        await store.sweep(clock(), 1000)
        require(await store.load(touched.digest), "sweep goes by the end that touch has set")
        require(await store.load(replaced.digest), "sweep goes by the end that replace has set")


async def check_sweep_keeps_to_its_limit(make: MakeStore) -> None:
    """A sweep that does more than it was told holds up everybody else's requests."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        clock.advance(-LONG_AGO)
        await created(store, *(new_record(clock) for _ in range(5)))
        clock.advance(2 * LIFETIME)
        for limit in (0, 1, 2, 100):
            went = await store.sweep(clock(), limit)
            require(0 <= went <= limit, f"sweep removes at most {limit} records (here {went})")


async def check_sweep_removes_all_that_is_due(make: MakeStore) -> None:
    """In steps of the limit; fewer than the limit means that nothing more was due."""
    clock = clock_of_today()
    clock.advance(-LONG_AGO)
    async with opened(make, clock) as store, opened(make, clock) as other:
        await _swept(store, clock() + LIFETIME / 2)
        due = [new_record(clock, expires_at=clock() + LIFETIME - LIFETIME * i / 20) for i in range(7)]
        live = new_record(clock, expires_at=clock() + LIFETIME + timedelta(microseconds=1000))
        await created(store, *due, live)
        clock.advance(LIFETIME)
        require(await _swept(other, clock()) == 7, "sweep says how many went, and takes those just due")
        for record in due:
            require(not await store.delete(record.digest), "a swept record is gone")
        require(await store.load(live.digest) == live, "sweep never touches a live record")


async def _swept(store: Store, now: datetime) -> int:
    """Sweep in steps of three until fewer go; return how many went."""
    total = 0
    for _ in range(1000):
        went = await store.sweep(now, 3)
        require(0 <= went <= 3, f"sweep removes at most 3 records (here {went})")
        total += went
        if went < 3:
            break
    return total


async def check_close_twice_does_nothing_more(make: MakeStore) -> None:
    """Shutting down twice, as signal handlers do, is not an error; nor is closing an unused store."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        await store.close()
        await store.close()
    async with opened(make, clock) as unused:
        await unused.close()
    async with opened(make, clock) as reader:
        require(await reader.load(record.digest) == record, "closing loses no acknowledged record")


async def check_cancelled_loads_swap_no_answers(make: MakeStore) -> None:
    """After 200 cancelled calls every reader still gets its own session and nobody else's."""
    clock = clock_of_today()
    chance = random.Random(2023)
    async with opened(make, clock) as store:
        records = [new_record(clock) for _ in range(10)]
        await created(store, *records)
        for _ in range(40):
            doomed = [cancelled_midway(store.load(chance.choice(records).digest), chance) for _ in range(5)]
            asked = chance.sample(records, 5)
            answers = await asyncio.gather(*(store.load(record.digest) for record in asked), *doomed)
            require(answers[:5] == asked, "a cancelled call never hands its result to another call")
        for record in records:
            require(await store.load(record.digest) == record, "cancelled calls leave the store usable")


async def check_cancelled_writes_are_whole_or_nothing(make: MakeStore) -> None:
    """A visitor who closes the tab mid-save leaves the old record or the new one."""
    clock = clock_of_today()
    chance = random.Random(2024)
    async with opened(make, clock) as store:
        for _ in range(40):
            old = new_record(clock, principal="alice")
            new = next_version(old, principal="bob")
            await cancelled_midway(store.create(old), chance)
            await store.create(old)
            await cancelled_midway(store.replace(new, version=1), chance)
            await _require_old_or_new_then_swap(store, old, new)
            await cancelled_midway(store.delete(old.digest), chance)
            await store.delete(old.digest)
            require(await store.load(old.digest) is None, "cancelled calls leave the store usable")


async def _require_old_or_new_then_swap(store: Store, old: Record, new: Record) -> None:
    """Swap what the cancelled write left; once more if that write was still on its way and came between."""
    for _ in range(20):
        found = await store.load(old.digest)
        if found is None or found not in (old, new):
            raise AssertionError("broken promise: a cancelled write leaves the old or the new record, whole")
        if await store.replace(next_version(found), version=found.version):
            return
    raise AssertionError("broken promise: cancelled calls leave the store usable")
