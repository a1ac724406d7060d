"""Encryption at rest: a stolen or rewritten store gives nobody a session, and the contract still holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, PrincipalIndex, Scan, Store, utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import DamagedRecordError
from eyewall.stores.encrypted import (
    EncryptedStore,
    IndexedEncryptedStore,
    IndexedScannedEncryptedStore,
    ScannedEncryptedStore,
    encrypted,
)
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from eyewall.testing import DAMAGE_CHECKS, checks_for
from eyewall.testing.check_kit import Check, DamageCheck, MakeStore, new_record, next_version

SECRET: Final = b"Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"
OLDER: Final = b"mR8cX2bN6vL0zQ4wE9tY3uI7oP1aS5dF"
NEW: Final = KeyRing.from_secret(SECRET)
OLD: Final = KeyRing.from_secret(OLDER)
BOTH: Final = KeyRing.from_secret({1: OLDER, 2: SECRET})


def name_of(check: Callable[..., Any]) -> str:
    """The part of a check's name that says what is promised."""
    return check.__name__.removeprefix("check_")


def in_memory() -> MakeStore:
    """Handles to one place in memory."""
    opened: list[MemoryStore] = []

    async def make(clock: Clock) -> Store:
        if not opened:
            opened.append(MemoryStore(clock=clock))
        return encrypted(opened[0], NEW)

    return make


def in_folder(folder: Path) -> MakeStore:
    """Handles to one folder: a new store each time, as other processes would have."""

    async def make(clock: Clock) -> Store:
        return encrypted(FileStore(folder / "sessions", clock=clock), NEW)

    return make


@pytest.mark.parametrize("check", checks_for(IndexedScannedEncryptedStore), ids=name_of)
async def test_over_the_memory_store_it_keeps(check: Check) -> None:
    """Encryption that breaks a promise of the store is worse than none."""
    await check(in_memory())


@pytest.mark.parametrize("check", checks_for(IndexedScannedEncryptedStore), ids=name_of)
async def test_over_the_file_store_it_keeps(check: Check, tmp_path: Path) -> None:
    """As above, with records that are encoded and come back from a disk."""
    await check(in_folder(tmp_path))


@pytest.mark.parametrize("check", DAMAGE_CHECKS, ids=name_of)
async def test_over_the_file_store_it_survives(check: DamageCheck, tmp_path: Path) -> None:
    """Bytes written by somebody else must never be served, run, or turned into a 500."""

    async def plant(digest: bytes, blob: bytes) -> None:
        (tmp_path / "sessions" / "records" / digest.hex()).write_bytes(blob)

    await check(in_folder(tmp_path), plant)


@pytest.mark.parametrize(
    "kind", [EncryptedStore, IndexedEncryptedStore, ScannedEncryptedStore, IndexedScannedEncryptedStore]
)
def test_it_has_exactly_the_capabilities_of_the_inner_store(kind: type[EncryptedStore]) -> None:
    """A capability that is promised and not there fails at "end all sessions", not at start."""
    inner = kind(MemoryStore(), OLD)  # itself a store with these capabilities and no other
    store = encrypted(inner, NEW)
    assert type(store) is kind
    assert isinstance(store, PrincipalIndex) == ("Indexed" in kind.__name__)
    assert isinstance(store, Scan) == ("Scanned" in kind.__name__)


# What lies in the store

PERSONAL: Final = Device("Mozilla/5.0 canary-agent", "2001:db8::ca11")


def bytes_in(folder: Path) -> bytes:
    """Everything that lies in a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_stolen_store_shows_no_data_and_no_device(tmp_path: Path) -> None:
    """The reason to encrypt: dumps and backups travel further than servers."""
    store = encrypted(FileStore(tmp_path / "sessions"), NEW)
    record = new_record(utc_now, payload=b"canary-payload", device=PERSONAL, principal="alice")
    assert await store.create(record)
    assert await store.replace(next_version(record, payload=b"canary-second"), version=1)
    await store.close()
    kept = bytes_in(tmp_path)
    for secret in (b"canary", b"Mozilla", b"2001:db8"):
        assert secret not in kept
    assert b"alice" in kept  # stays findable, as documented


async def test_equal_records_are_not_seen_to_be_equal() -> None:
    """Who has the same data as whom is information too."""
    inner = MemoryStore()
    store = encrypted(inner, NEW)
    records = [new_record(utc_now, payload=b"same") for _ in range(2)]
    for record in records:
        await store.create(record)
    one, other = [await inner.load(record.digest) for record in records]
    assert one is not None
    assert other is not None
    assert one.payload != other.payload


@given(
    st.binary(max_size=200), st.none() | st.text(max_size=20), st.none() | st.binary(min_size=32, max_size=32)
)
async def test_every_record_comes_back_as_it_was(
    payload: bytes, principal: str | None, successor: bytes | None
) -> None:
    """Data lost or bent on the way through."""
    store = encrypted(MemoryStore(), NEW)
    record = new_record(utc_now, payload=payload, principal=principal, successor=successor, device=PERSONAL)
    await store.create(record)
    assert await store.load(record.digest) == record


# What somebody can do who writes to the store


async def planted(record: Record, **changes: Any) -> Store:
    """A store with ``record``, changed after it was sealed."""
    source = MemoryStore()
    await encrypted(source, NEW).create(record)
    sealed = await source.load(record.digest)
    assert sealed is not None
    inner = MemoryStore()
    await inner.create(msgspec.structs.replace(sealed, **changes))
    return encrypted(inner, NEW)


async def test_no_byte_of_a_sealed_payload_can_be_changed() -> None:
    """Whoever can write to the store must not be able to write a session."""
    record, source = new_record(utc_now, principal="alice"), MemoryStore()
    await encrypted(source, NEW).create(record)
    sealed = await source.load(record.digest)
    assert sealed is not None
    for place in range(len(sealed.payload)):
        bent = bytearray(sealed.payload)
        bent[place] ^= 1
        store = await planted(record, payload=bytes(bent))
        with pytest.raises(DamagedRecordError, match="seal does not open"):
            await store.load(record.digest)
        assert isinstance(store, IndexedScannedEncryptedStore)
        assert await store.find_principal("alice") == []
        assert [found async for found in store.scan()] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": b""},
        {"payload": b"plain"},
        {"principal": "root"},
        {"principal": None},
        {"principal": ""},
        {"version": 2},
        {"created_at": utc_now() + timedelta(days=300)},
        {"successor": bytes(32)},
    ],
    ids="-".join,
)
async def test_what_the_seal_is_bound_to_cannot_be_changed(changes: dict[str, object]) -> None:
    """Another name on it, a longer absolute life, an ID sent on to the attacker's choice."""
    record = new_record(utc_now, principal="alice")
    store = await planted(record, **changes)
    with pytest.raises(DamagedRecordError):
        await store.load(record.digest)


async def test_no_principal_and_the_empty_one_are_bound_apart() -> None:
    """``""`` is a principal; nobody must become it."""
    record = new_record(utc_now, principal=None)
    store = await planted(record, principal="")
    with pytest.raises(DamagedRecordError):
        await store.load(record.digest)


async def test_the_payload_of_another_record_does_not_open() -> None:
    """The attacker's own cookie must not open the victim's session, copied under its digest."""
    victim, attacker = (new_record(utc_now) for _ in range(2))
    store = await planted(victim, digest=attacker.digest)
    with pytest.raises(DamagedRecordError):
        await store.load(attacker.digest)


async def test_the_payload_before_the_last_change_does_not_come_back() -> None:
    """The signed-in state of before the sign-out, pasted over what is there now."""
    inner = MemoryStore()
    store = encrypted(inner, NEW)
    record = new_record(utc_now)
    await store.create(record)
    before = await inner.load(record.digest)
    assert before is not None
    second = next_version(record)
    await store.replace(second, version=1)
    after = await inner.load(record.digest)
    assert after is not None
    await inner.delete(record.digest)
    await inner.create(msgspec.structs.replace(after, payload=before.payload))
    with pytest.raises(DamagedRecordError):
        await store.load(record.digest)


async def test_touching_does_not_break_the_seal() -> None:
    """The times that every request moves are not bound, and all else comes back."""
    store, end = encrypted(MemoryStore(), NEW), utc_now() + timedelta(hours=5)
    record = new_record(utc_now, device=PERSONAL)
    await store.create(record)
    assert await store.touch(record.digest, record.seen_at, end)
    assert await store.load(record.digest) == msgspec.structs.replace(record, expires_at=end)


async def test_a_record_from_before_encryption_is_never_served() -> None:
    """Accepting plain records beside sealed ones would let a writer skip the seal (Rack CVE-2026-39324)."""
    inner, record = MemoryStore(), new_record(utc_now, principal="alice")
    await inner.create(record)
    store = encrypted(inner, NEW)
    with pytest.raises(DamagedRecordError):
        await store.load(record.digest)
    assert await store.delete(record.digest)


# Rotation


async def test_rotation_loses_nothing_until_the_old_key_is_dropped() -> None:
    """Old keys still open, writes use the newest."""
    inner, record = MemoryStore(), new_record(utc_now)
    await encrypted(inner, OLD).create(record)
    both, new = encrypted(inner, BOTH), encrypted(inner, NEW)
    assert await both.load(record.digest) == record
    with pytest.raises(DamagedRecordError):
        await new.load(record.digest)
    second = next_version(record)
    assert await both.replace(second, version=1)
    assert await new.load(record.digest) == second


async def scanned_store(inner: Store, keyring: KeyRing) -> ScannedEncryptedStore:
    """``inner`` wrapped, known to be a Scan."""
    store = encrypted(inner, keyring)
    assert isinstance(store, ScannedEncryptedStore)
    return store


@pytest.mark.parametrize("inner_type", [MemoryStore, FileStore])
async def test_resealing_makes_the_old_key_dispensable(inner_type: type, tmp_path: Path) -> None:
    """After a key has leaked it must go at once, and nobody wants to sign everybody out for it."""
    inner = MemoryStore() if inner_type is MemoryStore else FileStore(tmp_path / "sessions")
    records = [new_record(utc_now, device=PERSONAL) for _ in range(20)]
    for number, record in enumerate(records):
        await encrypted(inner, OLD if number % 2 else NEW).create(record)
    both = await scanned_store(inner, BOTH)
    done = [digest async for digest in both.reseal()]
    assert sorted(done) == sorted(record.digest for record in records[1::2])
    assert [digest async for digest in both.reseal()] == []
    new = encrypted(inner, NEW)
    for number, record in enumerate(records):
        expected = msgspec.structs.replace(record, version=2 if number % 2 else 1)
        assert await new.load(record.digest) == expected


async def test_resealing_may_stop_and_begin_again() -> None:
    """A migration that can only be done in one go is never begun."""
    inner = MemoryStore()
    for _ in range(5):
        await encrypted(inner, OLD).create(new_record(utc_now))
    both = await scanned_store(inner, BOTH)
    async for _digest in both.reseal():
        break
    assert len([digest async for digest in both.reseal()]) == 4


async def test_resealing_undoes_no_change_and_brings_nothing_back() -> None:
    """A request that changes or ends its session meanwhile must win."""

    class Racing(MemoryStore):
        async def replace(self, record: Record, *, version: int) -> bool:
            if record.digest == changed.digest and version == 1 and record.payload[5:13] == new_id:
                assert theirs is not None
                assert await super().replace(theirs, version=1)
            if record.digest == deleted.digest:
                await self.delete(deleted.digest)
            return await super().replace(record, version=version)

    new_id = NEW.current.id.encode()
    inner, workshop = Racing(), MemoryStore()
    changed, deleted = (new_record(utc_now) for _ in range(2))
    second = next_version(changed)
    await encrypted(workshop, NEW).create(second)
    theirs = await workshop.load(second.digest)
    for record in (changed, deleted):
        await encrypted(inner, OLD).create(record)
    both = await scanned_store(inner, BOTH)
    assert [digest async for digest in both.reseal()] == []
    assert await both.load(changed.digest) == second
    assert await both.load(deleted.digest) is None


async def test_resealing_leaves_what_does_not_open() -> None:
    """One damaged record must not stop the migration of all others."""
    inner = MemoryStore()
    foreign = new_record(utc_now, payload=b"plain")
    await inner.create(foreign)
    await encrypted(inner, OLD).create(new_record(utc_now))
    both = await scanned_store(inner, BOTH)
    assert len([digest async for digest in both.reseal()]) == 1
    assert await inner.load(foreign.digest) == foreign


async def test_closing_closes_the_inner_store() -> None:
    """Connections that nobody closes are reported as leaks, or run out."""
    closed = 0

    class Closing(MemoryStore):
        async def close(self) -> None:
            nonlocal closed
            closed += 1

    await encrypted(Closing(), NEW).close()
    assert closed == 1


def test_a_time_is_bound_by_its_instant_not_by_its_zone() -> None:
    """A store may give the same time back in another zone's words."""
    record = new_record(utc_now)
    elsewhere = record.created_at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    store = EncryptedStore(MemoryStore(), NEW)
    sealed = store._sealed(record)
    assert store._opened(msgspec.structs.replace(sealed, created_at=elsewhere)).payload == record.payload
