"""Checks of a store that was tampered with: its bytes are a stranger's, never code and never a 500."""

from __future__ import annotations

import pickle
import secrets

from eyewall.core.record import Record, encode_record
from eyewall.core.store import PrincipalIndex, Scan, Store
from eyewall.errors import DamagedRecordError
from eyewall.testing.check_kit import (
    LIFETIME,
    MakeStore,
    Plant,
    clock_of_today,
    created,
    new_record,
    next_version,
    opened,
    require,
)


async def check_load_reports_damage(make: MakeStore, plant: Plant) -> None:
    """Truncated, foreign or newer bytes raise DamagedRecordError: not a record, not another error."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        for label, blob in _damaged_blobs(new_record(clock)).items():
            record = new_record(clock)
            await created(store, record)
            await plant(record.digest, blob)
            await _require_damage_reported(store, record, label)


async def check_load_refuses_the_record_of_another(make: MakeStore, plant: Plant) -> None:
    """Whoever can swap two stored values must not be able to swap two people."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        victim, attacker = new_record(clock, principal="root"), new_record(clock, principal="mallory")
        await created(store, victim, attacker)
        await plant(attacker.digest, encode_record(victim))
        await _require_damage_reported(store, attacker, "another session's record")


async def check_damaged_records_are_there_but_not_live(make: MakeStore, plant: Plant) -> None:
    """Not replaced, not touched, not overwritten; and delete clears the place."""
    clock = clock_of_today()
    async with opened(make, clock) as store:
        for label, blob in _damaged_blobs(new_record(clock)).items():
            record = new_record(clock)
            await created(store, record)
            await plant(record.digest, blob)
            end = clock() + LIFETIME
            require(await store.create(record) is False, f"create: the digest is taken ({label})")
            require(await store.replace(next_version(record), version=1) is False, f"no replace ({label})")
            require(await store.touch(record.digest, clock(), end) is False, f"no touch ({label})")
            require(await store.delete(record.digest) is True, f"delete removes damage ({label})")
            require(await store.create(record) is True, f"after delete the digest is free ({label})")


async def check_damage_is_left_out_of_lists(make: MakeStore, plant: Plant) -> None:
    """One damaged record must not take the device page or a migration down."""
    clock = clock_of_today()
    principal = f"alice-{secrets.token_hex(8)}"
    async with opened(make, clock) as store:
        whole, broken = (new_record(clock, principal=principal) for _ in range(2))
        await created(store, whole, broken)
        await plant(broken.digest, b"\x93 damage")
        if isinstance(store, PrincipalIndex):
            require(await store.find_principal(principal) == [whole], "find_principal leaves damage out")
        if isinstance(store, Scan):
            seen = [record.digest async for record in store.scan()]
            require(whole.digest in seen, "scan goes on after a damaged record")
            require(broken.digest not in seen, "scan leaves damage out")


def _damaged_blobs(record: Record) -> dict[str, bytes]:
    good = encode_record(record)
    return {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "one byte short": good[:-1],
        "one byte too long": good + b"\0",
        "zeros": bytes(len(good)),
        "random": bytes(range(255, 0, -1)),
        "pickle": pickle.dumps({"principal": "root"}),
        "JSON": b'{"principal": "root"}',
        "another format version": good.replace(b"\x92\x01", b"\x92\x02", 1),
        "64 KB of nesting": b"\x91" * 65_536,
    }


async def _require_damage_reported(store: Store, record: Record, label: str) -> None:
    try:
        loaded = await store.load(record.digest)
    except DamagedRecordError:
        return
    require(loaded is not None, f"load reports damage ({label}) by DamagedRecordError, not by None")
    require(False, f"load never serves damage ({label})")
