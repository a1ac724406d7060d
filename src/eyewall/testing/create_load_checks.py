"""Checks of ``create`` and ``load``: one small function per sentence of :mod:`eyewall.core.store`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from eyewall.core.record import Device, Record
from eyewall.core.store import Store
from eyewall.testing.check_kit import (
    LIFETIME,
    MakeStore,
    clock_of_today,
    created,
    new_record,
    opened,
    require,
)

SECOND: Final = timedelta(seconds=1)
TRICKY_PRINCIPALS: Final = (None, "", "a\0b", " alice ", "Ωλίβια", "e\u0301", "👩‍👩‍👧", "%_*[]", "x" * 255)
TRICKY_DEVICES: Final = (
    None,
    Device(),
    Device(user_agent="Mozilla/5.0 (é; \0; 😀)\r\n", address="2001:db8::7334%eth0"),
    Device(user_agent="u" * 512, address="255.255.255.255"),
)
EVERY_BYTE_64_KB: Final = bytes(range(256)) * 256


async def check_create_stores_a_record(make: MakeStore) -> None:
    """Another handle reads what create acknowledged."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        record = new_record(clock)
        require(await store.create(record) is True, "create returns True for a free digest")
        require(await other.load(record.digest) == record, "an acknowledged create is readable by all")


async def check_create_never_overwrites(make: MakeStore) -> None:
    """An upsert would hand one visitor's session to another who drew the same digest."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        first = new_record(clock)
        await created(store, first)
        second = new_record(clock, digest=first.digest, principal="somebody else")
        require(await store.create(second) is False, "create returns False when the digest is taken")
        require(await store.load(first.digest) == first, "create leaves the record that is there as it was")


async def check_create_never_overwrites_a_dead_record(make: MakeStore) -> None:
    """A dead record that is still there keeps its digest taken."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        clock.advance(2 * LIFETIME)
        again = new_record(clock, digest=record.digest)
        require(await store.create(again) is False, "create returns False for a dead record's digest")
        require(await store.load(record.digest) is None, "a refused create writes nothing")


async def check_create_has_one_winner(make: MakeStore) -> None:
    """Of 20 concurrent calls with one digest, one returns True, and its record is the one kept."""
    clock = clock_of_today()
    async with opened(make, clock) as store, opened(make, clock) as other:
        digest = new_record(clock).digest
        rivals = [new_record(clock, digest=digest) for _ in range(20)]
        handles = (store, other)
        won = await asyncio.gather(*(handles[i % 2].create(rival) for i, rival in enumerate(rivals)))
        require(sum(won) == 1, f"one of 20 concurrent creates wins (here {sum(won)})")
        require(await store.load(digest) == rivals[won.index(True)], "the winner's record is the one kept")


async def check_create_works_again_after_delete(make: MakeStore) -> None:
    """Deleted means gone: the digest is free, and nothing of the old record shines through."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        old = new_record(clock, principal="old", device=Device("old", "old"), successor=bytes(32))
        await created(store, old)
        require(await store.delete(old.digest), "delete returns True when a record was there")
        fresh = new_record(clock, digest=old.digest)
        require(await store.create(fresh), "after delete the digest is free")
        require(await store.load(old.digest) == fresh, "nothing of a deleted record comes back")


async def check_load_of_nothing_is_none(make: MakeStore) -> None:
    """A digest nobody created gives None, not an error."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        require(await store.load(new_record(clock).digest) is None, "load of an unknown digest gives None")


async def check_load_returns_exactly_what_was_written(make: MakeStore) -> None:
    """Every field comes back equal and of the same type, whatever characters it holds."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        for principal in TRICKY_PRINCIPALS:
            await _require_round_trip(store, new_record(clock, principal=principal))
        for device in TRICKY_DEVICES:
            await _require_round_trip(store, new_record(clock, device=device))
        await _require_round_trip(store, new_record(clock, successor=bytes(range(32))))
        await _require_round_trip(store, new_record(clock, version=2**31 - 2))


async def check_load_returns_every_byte_of_a_payload(make: MakeStore) -> None:
    """Empty, every byte value, and 64 KB: a store that treats bytes as text fails here."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        for payload in (b"", b"\0", b"\xff\xfe\0\0", b"\r\n ' \" \\ ; $", EVERY_BYTE_64_KB):
            await _require_round_trip(store, new_record(clock, payload=payload))


async def check_load_returns_microseconds(make: MakeStore) -> None:
    """A time that loses its microseconds makes two readers disagree about who is dead."""
    clock = clock_of_today()
    now = clock().replace(microsecond=123_457)
    times = {"created_at": datetime(2001, 2, 3, 4, 5, 6, 999_999, UTC), "seen_at": now - SECOND / 3}
    async with opened(make, clock) as store:
        for expires_at in (now + LIFETIME, (now + LIFETIME).replace(microsecond=999_999)):
            await _require_round_trip(store, new_record(clock, expires_at=expires_at, **times))


async def _require_round_trip(store: Store, record: Record) -> None:
    await created(store, record)
    loaded = await store.load(record.digest)
    require(loaded == record, f"load gives back exactly what was written: {_difference(loaded, record)}")
    require(
        loaded is not None and loaded.expires_at.utcoffset() == timedelta(0),
        "times come back as aware datetimes in UTC",
    )


def _difference(loaded: Record | None, record: Record) -> str:
    if loaded is None:
        return "load gave None"
    fields = (name for name in record.__struct_fields__ if getattr(loaded, name) != getattr(record, name))
    return "; ".join(
        f"{name} was {getattr(record, name)!r:.80}, is {getattr(loaded, name)!r:.80}" for name in fields
    )


async def check_expired_record_is_never_served(make: MakeStore) -> None:
    """One microsecond before its end it lives, at its end it is dead, though it is still there."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        clock.advance(LIFETIME - timedelta(microseconds=1))
        require(await store.load(record.digest) == record, "a record lives until its expires_at")
        clock.advance(timedelta(microseconds=1))
        require(await store.load(record.digest) is None, "at its expires_at a record is dead")
        clock.advance(365 * 24 * LIFETIME)
        require(await store.load(record.digest) is None, "an expired record is never served")


async def check_loading_never_writes(make: MakeStore) -> None:
    """Loading a dead record neither removes nor extends it."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        clock.advance(LIFETIME)
        require(await store.load(record.digest) is None, "an expired record is never served")
        require(await store.delete(record.digest), "load leaves a dead record where it is")
