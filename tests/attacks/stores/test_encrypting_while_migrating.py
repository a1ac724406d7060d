"""Encryption and migration switched on together must not sign anybody out."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eyewall.core.store import PrincipalIndex, Scan
from eyewall.crypto.keyring import Key, KeyRing
from eyewall.errors import DamagedRecordError
from eyewall.stores.encrypted import encrypted
from eyewall.stores.memory import MemoryStore
from eyewall.stores.migrating import migrating
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record, next_version

KEYRING = KeyRing([Key(b"k" * 32)])


async def test_an_encrypted_session_survives_its_move() -> None:
    """With ``encrypt`` and ``migrate_from`` the first touch of a session damaged it: everybody signed out."""
    clock = ManualClock()
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    record = new_record(clock, principal="alice", payload=b"cart")
    await encrypted(old, KEYRING).create(record)
    store = encrypted(migrating(old, new), KEYRING)
    assert await store.load(record.digest) == record
    assert await store.touch(record.digest, clock(), clock() + timedelta(hours=2))
    moved = await store.load(record.digest)
    assert moved is not None
    assert (moved.payload, moved.principal) == (b"cart", "alice")
    assert await store.replace(next_version(moved, payload=b"more"), version=moved.version)
    assert len(old) == 0


async def test_both_stores_hold_only_sealed_records() -> None:
    """A copy on its way must be no plainer than the record it was made from."""
    clock = ManualClock()
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    record = new_record(clock, payload=b"a secret that nobody may read in a dump")
    await encrypted(old, KEYRING).create(record)
    store = encrypted(migrating(old, new), KEYRING)
    await store.touch(record.digest, clock(), record.expires_at)
    held = await new.load(record.digest)
    assert held is not None
    assert b"secret" not in held.payload


async def test_the_pair_keeps_its_capabilities() -> None:
    """Revoking all sessions of somebody must reach both stores, sealed or not."""
    store = encrypted(migrating(MemoryStore(), MemoryStore()), KEYRING)
    assert isinstance(store, PrincipalIndex)
    assert isinstance(store, Scan)


async def test_unsealed_records_are_still_refused() -> None:
    """Whoever can write to the old store must not plant a session in the clear."""
    clock = ManualClock()
    old = MemoryStore(clock=clock)
    record = new_record(clock)
    await old.create(record)
    with pytest.raises(DamagedRecordError):
        await encrypted(migrating(old, MemoryStore(clock=clock)), KEYRING).load(record.digest)
