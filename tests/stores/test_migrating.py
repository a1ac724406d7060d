"""Two stores served as one keep what each store promises, and what only the pair can promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyewall.core.record import Record
from eyewall.core.store import Clock, PrincipalIndex, Scan, SelfCheck, Store
from eyewall.errors import ConfigurationError, DamagedRecordError, StoreUnavailable
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from eyewall.stores.migrating import Migrating, migrating
from eyewall.testing import ManualClock, checks_for
from eyewall.testing.check_kit import Check, MakeStore, new_record, next_version

HOUR = timedelta(hours=1)
Places = tuple[MemoryStore, MemoryStore, Any]


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def places(clock: ManualClock) -> Places:
    """An old store, a new store, and both as one."""
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    return old, new, migrating(old, new)


def name_of(check: Callable[..., Any]) -> str:
    """The part of a check's name that says what is promised."""
    return check.__name__.removeprefix("check_")


def handles(old: str, new: str, folder: Path) -> MakeStore:
    """Handles to one pair of places; a memory store is the same object each time."""
    memories: dict[str, MemoryStore] = {}

    def place(kind: str, name: str, clock: Clock) -> Store:
        if kind == "file":
            return FileStore(folder / name, clock=clock)
        return memories.setdefault(name, MemoryStore(clock=clock))

    async def make(clock: Clock) -> Store:
        return migrating(place(old, "old", clock), place(new, "new", clock))

    return make


ALL_CHECKS = checks_for(type(migrating(MemoryStore(), MemoryStore())))


@pytest.mark.parametrize(
    ("old", "new"), [("memory", "memory"), ("memory", "file"), ("file", "memory"), ("file", "file")]
)
@pytest.mark.parametrize("check", ALL_CHECKS, ids=name_of)
async def test_pair_keeps(check: Check, old: str, new: str, tmp_path: Path) -> None:
    """A site must not be served worse while its sessions move."""
    await check(handles(old, new, tmp_path))


async def test_session_in_use_moves_and_reading_alone_moves_nothing(
    places: Places, clock: ManualClock
) -> None:
    """Loading never writes; but whatever is in use must be in the new store in the end."""
    old, new, pair = places
    record = new_record(clock, principal="alice")
    await old.create(record)
    assert await pair.load(record.digest) == record
    assert len(new) == 0
    assert await pair.touch(record.digest, clock(), clock() + 2 * HOUR)
    moved = await new.load(record.digest)
    assert moved is not None
    assert len(old) == 0
    expected = msgspec.structs.replace(record, version=moved.version, expires_at=clock() + 2 * HOUR)
    assert moved == expected == await pair.load(record.digest)


async def test_first_change_is_refused_once_and_then_kept(places: Places, clock: ManualClock) -> None:
    """Moving is a change of version: the writer loads again, and no change is lost."""
    old, _, pair = places
    record = new_record(clock)
    await old.create(record)
    assert not await pair.replace(next_version(record), version=record.version)
    loaded = await pair.load(record.digest)
    changed = next_version(loaded)
    assert await pair.replace(changed, version=loaded.version)
    assert await pair.load(record.digest) == changed
    assert len(old) == 0


async def test_new_sessions_begin_in_the_new_store(places: Places, clock: ManualClock) -> None:
    """Otherwise the old store would never be empty."""
    old, new, pair = places
    assert await pair.create(new_record(clock))
    assert (len(old), len(new)) == (0, 1)


async def test_digest_of_an_old_session_is_taken(places: Places, clock: ManualClock) -> None:
    """Two sessions under one digest would be one visitor's in the other's hands."""
    old, _, pair = places
    record = new_record(clock, principal="alice")
    await old.create(record)
    assert not await pair.create(new_record(clock, digest=record.digest))
    assert await pair.load(record.digest) == record


async def test_delete_ends_a_session_wherever_it_is(places: Places, clock: ManualClock) -> None:
    """Signing out must not depend on whether the session has moved."""
    old, new, pair = places
    for home in (old, new):
        record = new_record(clock)
        await home.create(record)
        assert await pair.delete(record.digest)
        assert await pair.load(record.digest) is None
        assert not await pair.delete(record.digest)
    assert (len(old), len(new)) == (0, 0)


async def test_dead_old_session_is_neither_served_nor_moved(places: Places, clock: ManualClock) -> None:
    """A move must not be a way round the timeout."""
    old, new, pair = places
    record = new_record(clock)
    await old.create(record)
    clock.advance(HOUR)
    assert await pair.load(record.digest) is None
    assert not await pair.touch(record.digest, clock(), clock() + HOUR)
    assert len(new) == 0


async def test_sweep_clears_both_within_one_limit(places: Places, clock: ManualClock) -> None:
    """Only one of them swept would leave the other growing for as long as the migration lasts."""
    old, new, pair = places
    for home in (old, old, new, new):
        await home.create(new_record(clock))
    clock.advance(HOUR)
    assert await pair.sweep(clock(), 3) == 3
    assert await pair.sweep(clock(), 3) == 1
    assert (len(old), len(new)) == (0, 0)


async def test_lists_have_each_session_once_wherever_it_is(places: Places, clock: ManualClock) -> None:
    """A device page must not lose a device because its session has moved, nor show it twice."""
    old, new, pair = places
    records = [new_record(clock, principal="alice") for _ in range(3)]
    for home, record in zip((old, old, new), records, strict=True):
        await home.create(record)
    await pair.settle(records[1].digest)
    digests = sorted(record.digest for record in records)
    assert sorted(record.digest for record in await pair.find_principal("alice")) == digests
    assert sorted([record.digest async for record in pair.scan()]) == digests
    assert await pair.delete_principal("alice") == 3
    assert (len(old), len(new)) == (0, 0)


class Failing(MemoryStore):
    """Answers so many calls of ``delete`` by StoreUnavailable."""

    failures = 0

    async def delete(self, digest: bytes) -> bool:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("not now")
        return await super().delete(digest)


async def test_interrupted_move_is_served_listed_once_and_completed_later(clock: ManualClock) -> None:
    """A store that fails in the middle of a move costs that request, not the session."""
    old, new = Failing(clock=clock), MemoryStore(clock=clock)
    pair: Any = migrating(old, new)
    record = new_record(clock, principal="alice", successor=None)
    await old.create(record)
    old.failures = 1
    with pytest.raises(StoreUnavailable):
        await pair.touch(record.digest, clock(), clock() + HOUR)
    loaded = await pair.load(record.digest)
    assert msgspec.structs.replace(loaded, version=1) == record
    assert await pair.find_principal("alice") == [loaded]
    assert [each async for each in pair.scan()] == [record]
    assert await pair.touch(record.digest, clock(), clock() + 2 * HOUR)
    assert len(old) == 0


async def test_failed_delete_is_not_acknowledged_and_touches_no_copy(clock: ManualClock) -> None:
    """A sign-out that only reached one store would be undone by the other."""
    old, new = Failing(clock=clock), MemoryStore(clock=clock)
    pair = migrating(old, new)
    record = new_record(clock)
    await new.create(record)
    old.failures = 1
    with pytest.raises(StoreUnavailable):
        await pair.delete(record.digest)
    assert await pair.load(record.digest) == record


class Damaged(MemoryStore):
    """Everything it has is damaged."""

    async def load(self, digest: bytes) -> Record | None:
        if self._there(digest) is not None:
            raise DamagedRecordError("not a session record")
        return None


async def test_damage_in_the_old_store_is_reported_and_never_moved(clock: ManualClock) -> None:
    """Somebody who could write bytes to the old store must not get them into the new one."""
    old, new = Damaged(clock=clock), MemoryStore(clock=clock)
    pair = migrating(old, new)
    record = new_record(clock)
    await old.create(record)
    with pytest.raises(DamagedRecordError):
        await pair.load(record.digest)
    assert not await pair.touch(record.digest, clock(), clock() + HOUR)
    assert not await pair.replace(next_version(record), version=1)
    assert not await pair.create(record)
    assert len(new) == 0
    assert await pair.delete(record.digest)


class Plain:
    """A store without capabilities."""

    def __init__(self, clock: Clock) -> None:
        store = MemoryStore(clock=clock)
        self.create, self.load, self.replace = store.create, store.load, store.replace
        self.touch, self.delete, self.sweep, self.close = store.touch, store.delete, store.sweep, store.close


class Indexed(Plain):
    """A store that can find, but not walk."""

    async def find_principal(self, principal: str) -> list[Record]:
        return []

    async def delete_principal(self, principal: str) -> int:
        return 0


class Scanned(Plain):
    """A store that can walk, but not find."""

    async def scan(self) -> AsyncIterator[Record]:
        return
        yield


@pytest.mark.parametrize(
    ("kind", "indexed", "scanned"),
    [(Plain, False, False), (Indexed, True, False), (Scanned, False, True), (MemoryStore, True, True)],
)
def test_pair_offers_a_capability_only_when_both_have_it(
    kind: Callable[..., Store], indexed: bool, scanned: bool, clock: ManualClock
) -> None:
    """A page that asks the pair must not fail at its half."""
    whole = MemoryStore(clock=clock)
    for pair in (migrating(kind(clock=clock), whole), migrating(whole, kind(clock=clock))):
        assert isinstance(pair, PrincipalIndex) == indexed
        assert isinstance(pair, Scan) == scanned


class Unusable(Plain):
    """A store whose password is wrong."""

    async def check(self) -> None:
        raise ConfigurationError("wrong password")


async def test_wrong_setting_of_either_store_is_found_at_start(clock: ManualClock) -> None:
    """Found by the first visitor it would be an outage."""
    plain, unusable = Plain(clock), Unusable(clock)
    for pair in (migrating(plain, unusable), migrating(unusable, plain)):
        assert isinstance(pair, SelfCheck)
        with pytest.raises(ConfigurationError):
            await pair.check()
    await Migrating(plain, plain).check()


class Closing(MemoryStore):
    """Counts how often it was closed, and fails to."""

    closed = 0

    async def close(self) -> None:
        self.closed += 1
        raise StoreUnavailable("connection lost")


async def test_both_stores_are_closed_even_if_one_fails_to(clock: ManualClock) -> None:
    """A connection that stays open keeps the process from ending."""
    old, new = Closing(clock=clock), Closing(clock=clock)
    with pytest.raises(StoreUnavailable):
        await migrating(old, new).close()
    assert (old.closed, new.closed) == (1, 1)


async def test_migration_can_be_turned_round(places: Places, clock: ManualClock) -> None:
    """The way back must be as safe as the way there."""
    old, new, pair = places
    here, there = new_record(clock), new_record(clock)
    await old.create(here)
    await old.create(there)
    await pair.settle(there.digest)
    back: Any = migrating(new, old)
    for record in (here, there):
        assert await back.settle(record.digest)
        moved = await old.load(record.digest)
        assert moved is not None
        assert msgspec.structs.replace(moved, version=1) == record
    assert len(new) == 0


def test_pair_is_made_by_one_function(places: Places) -> None:
    """Settings will call it with two stores and nothing else."""
    assert isinstance(places[2], Migrating)
