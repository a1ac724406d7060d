"""Checks of ``replace``, ``touch`` and ``delete``: one small function per sentence of the contract."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Final

import msgspec

from eyewall.core.record import Device
from eyewall.testing.check_kit import (
    LIFETIME,
    MakeStore,
    after_turns,
    clock_of_today,
    created,
    new_record,
    next_version,
    opened,
    require,
)

SECOND: Final = timedelta(seconds=1)
PAYLOAD_64_KB: Final = bytes(range(256)) * 256


async def check_replace_swaps_the_whole_record(make: MakeStore) -> None:
    """Every field but the digest is the new record's, for every reader."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        old = new_record(clock, principal="alice", device=Device("a", "1.2.3.4"))
        await created(store, old)
        new = next_version(old, principal=None, device=None, successor=b"s" * 32, seen_at=clock() + SECOND)
        require(await store.replace(new, version=1) is True, "replace returns True when the version fits")
        require(await other.load(old.digest) == new, "an acknowledged replace is readable by all")
        newer = next_version(
            new, principal="bob", device=Device("b", "::1"), expires_at=clock() + 2 * LIFETIME
        )
        require(await other.replace(newer, version=2), "versions count on: 1, 2, 3")
        require(await store.load(old.digest) == newer, "an acknowledged replace is readable by all")


async def check_replace_refuses_another_version(make: MakeStore) -> None:
    """Older or newer than what is there: nothing happens, so no change is lost."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        first = new_record(clock)
        await created(store, first)
        second = next_version(first)
        require(await store.replace(second, version=1), "replace returns True when the version fits")
        for wrong in (1, 3, 2**31 - 2):
            stale = next_version(first, version=wrong + 1)
            require(await store.replace(stale, version=wrong) is False, "replace refuses another version")
        require(await store.load(first.digest) == second, "a refused replace changes nothing")


async def check_replace_creates_nothing(make: MakeStore) -> None:
    """A digest that was never there stays free."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        require(await store.replace(next_version(record), version=1) is False, "replace creates nothing")
        require(await store.load(record.digest) is None, "replace creates nothing")
        require(await store.delete(record.digest) is False, "replace creates nothing, not even hidden")


async def check_replace_never_brings_a_deleted_record_back(make: MakeStore) -> None:
    """A slow request that saves after sign-out must not sign the visitor in again."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        record = new_record(clock, principal="alice")
        await created(store, record)
        await other.delete(record.digest)
        require(await store.replace(next_version(record), version=1) is False, "replace resurrects nothing")
        require(await store.load(record.digest) is None, "a deleted record stays deleted")


async def check_replace_never_revives_a_dead_record(make: MakeStore) -> None:
    """A dead record is not replaced, though its version fits and the new one would live."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        clock.advance(LIFETIME)
        revived = next_version(record, expires_at=clock() + LIFETIME)
        require(await store.replace(revived, version=1) is False, "replace returns False for a dead record")
        require(await store.load(record.digest) is None, "replace never revives a dead record")


async def check_replace_into_the_past_makes_it_dead(make: MakeStore) -> None:
    """A record whose new expires_at has passed is dead for every later call."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        for past in (clock(), clock() - SECOND, clock() - 30 * 24 * LIFETIME):
            record = new_record(clock)
            await created(store, record)
            ended = next_version(record, expires_at=past)
            require(await store.replace(ended, version=1), "replace accepts an expires_at in the past")
            require(await store.load(record.digest) is None, "a record replaced into the past is dead")
            revived = next_version(ended, expires_at=clock() + LIFETIME)
            require(not await store.replace(revived, version=2), "a record replaced into the past stays dead")


async def check_replace_has_one_winner(make: MakeStore) -> None:
    """Of 20 concurrent swaps of one version, one returns True, and its record is the one kept."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        record = new_record(clock)
        await created(store, record)
        handles = (store, other)
        for _ in range(5):
            rivals = [next_version(record) for _ in range(20)]
            swaps = (handles[i % 2].replace(r, version=record.version) for i, r in enumerate(rivals))
            won = await asyncio.gather(*swaps)
            require(sum(won) == 1, f"one of 20 concurrent replaces of one version wins (here {sum(won)})")
            record = rivals[won.index(True)]
            require(await other.load(record.digest) == record, "the winner's record is the one kept")


async def check_touch_moves_times_only(make: MakeStore) -> None:
    """A touch keeps payload, principal and version, so a writer in flight meets no conflict."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        record = new_record(clock, principal="alice", device=Device("a", "::1"), payload=PAYLOAD_64_KB)
        await created(store, record)
        seen, end = clock() + SECOND * 1.25, clock() + 3 * LIFETIME + SECOND / 7
        require(await store.touch(record.digest, seen, end) is True, "touch returns True for a live record")
        touched = msgspec.structs.replace(record, seen_at=seen, expires_at=end)
        require(await other.load(record.digest) == touched, "touch changes seen_at and expires_at, no more")
        require(await other.replace(next_version(touched), version=1), "touch leaves the version as it was")


async def check_touch_extends_life(make: MakeStore) -> None:
    """A touched record lives past the end it had before; one touched into the past is dead."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        await store.touch(record.digest, clock(), clock() + 3 * LIFETIME)
        clock.advance(2 * LIFETIME)
        require(await store.load(record.digest) is not None, "a touched record lives until its new end")
        await store.touch(record.digest, clock(), clock())
        require(await store.load(record.digest) is None, "a record touched into the past is dead")


async def check_touch_revives_nothing(make: MakeStore) -> None:
    """Unknown, deleted and dead records stay what they are."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        unknown, deleted, dead = (new_record(clock) for _ in range(3))
        await created(store, deleted, dead)
        await store.delete(deleted.digest)
        clock.advance(LIFETIME)
        for record in (unknown, deleted, dead):
            revived = await store.touch(record.digest, clock(), clock() + LIFETIME)
            require(revived is False, "touch returns False when the record is not live")
            require(await store.load(record.digest) is None, "touch brings nothing back")


async def check_touch_undoes_no_replace(make: MakeStore) -> None:
    """A touch that read the old record must not write it back over a newer one."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        for turns in range(20):
            record = new_record(clock)
            await created(store, record)
            new = next_version(record)
            swapped, _, _ = await asyncio.gather(
                after_turns(turns % 5, store.replace(new, version=1)),
                other.touch(record.digest, clock(), clock() + 2 * LIFETIME),
                after_turns(turns % 3, store.touch(record.digest, clock(), clock() + 2 * LIFETIME)),
            )
            require(swapped, "a touch makes no replace fail")
            loaded = await store.load(record.digest)
            require(loaded is not None and loaded.payload == new.payload, "a touch undoes no replace")


async def check_delete_removes(make: MakeStore) -> None:
    """True once, then False; gone for every handle."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        record, neighbour = new_record(clock), new_record(clock)
        await created(store, record, neighbour)
        require(await store.delete(record.digest) is True, "delete returns True when a record was there")
        require(await other.load(record.digest) is None, "a deleted record is gone for all")
        require(await other.delete(record.digest) is False, "delete returns False when none was there")
        require(await other.load(neighbour.digest) == neighbour, "delete removes one record, not others")


async def check_delete_sees_dead_records(make: MakeStore) -> None:
    """A dead record that is still there counts as there."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        clock.advance(2 * LIFETIME)
        require(await store.delete(record.digest) is True, "delete returns True for a dead record")
        require(await store.delete(record.digest) is False, "delete returns False when none was there")


async def check_delete_has_one_winner(make: MakeStore) -> None:
    """Of 20 concurrent deletes, one returns True: a sign-out is reported once."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        record = new_record(clock)
        await created(store, record)
        handles = (store, other)
        won = await asyncio.gather(*(handles[i % 2].delete(record.digest) for i in range(20)))
        require(sum(won) == 1, f"one of 20 concurrent deletes returns True (here {sum(won)})")


async def check_delete_wins_over_everything_in_flight(make: MakeStore) -> None:
    """Signed out means signed out, whatever else was under way at that moment."""
    clock = clock_of_today()
    chance = random.Random(7)
    async with opened(make, clock) as store, opened(make, clock) as other:
        for _ in range(40):
            record = new_record(clock, principal="alice")
            await created(store, record)
            calls = [
                store.delete(record.digest),
                store.replace(next_version(record), version=1),
                other.replace(next_version(record), version=1),
                other.touch(record.digest, clock(), clock() + LIFETIME),
            ]
            chance.shuffle(calls)
            await asyncio.gather(*(after_turns(chance.randrange(4), call) for call in calls))
            require(await other.load(record.digest) is None, "delete wins over replace and touch in flight")
            require(not await other.delete(record.digest), "nothing of a deleted record stays behind")
