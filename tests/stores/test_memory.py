"""What the memory store promises beyond the contract: it is bounded, and fair to those signed in."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.record import Record
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.memory import BATCH, MemoryStore
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record, next_version

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


async def test_flood_of_visitors_is_bounded_and_signs_nobody_out(clock: ManualClock) -> None:
    """Strangers without a session could otherwise fill the memory, or throw everybody out."""
    store = MemoryStore(clock=clock, max_records=500)
    signed_in = [new_record(clock, principal=f"p{i}") for i in range(100)]
    for record in signed_in:
        await store.create(record)
    for _ in range(20_000):
        assert await store.create(new_record(clock))
        assert len(store) <= 500
    for record in signed_in:
        assert await store.load(record.digest) == record


async def test_flood_drops_the_visitor_unused_for_longest(clock: ManualClock) -> None:
    """A visitor who is filling a cart must outlive those who left."""
    store = MemoryStore(clock=clock, max_records=3)
    loaded, touched, left = records = [new_record(clock) for _ in range(3)]
    for record in records:
        await store.create(record)
    await store.touch(touched.digest, clock(), clock() + HOUR)
    await store.load(loaded.digest)
    await store.create(new_record(clock))
    assert await store.load(left.digest) is None
    assert await store.load(loaded.digest) is not None
    assert await store.load(touched.digest) is not None


async def test_dead_records_go_before_any_visitor(clock: ManualClock) -> None:
    """Dropping the living while the dead take up room would be absurd."""
    store = MemoryStore(clock=clock, max_records=2)
    dying = new_record(clock, principal="alice", expires_at=clock() + HOUR / 2)
    oldest_visitor = new_record(clock)
    await store.create(oldest_visitor)
    await store.create(dying)
    clock.advance(HOUR / 2)
    await store.create(new_record(clock))
    assert await store.load(oldest_visitor.digest) is not None
    assert len(store) == 2


async def test_store_full_of_signed_in_sessions_refuses_and_names_the_cap(clock: ManualClock) -> None:
    """Signing somebody else out to let one in would let attackers choose whom."""
    store = MemoryStore(clock=clock, max_records=2)
    signed_in = [new_record(clock, principal="alice") for _ in range(2)]
    for record in signed_in:
        await store.create(record)
    with pytest.raises(StoreUnavailable, match="max_records=2"):
        await store.create(new_record(clock))
    assert await store.replace(next_version(signed_in[0]), version=1), "the others are served on"
    await store.delete(signed_in[1].digest)
    assert await store.create(new_record(clock)), "and there is room again after a sign-out"


async def test_store_sweeps_itself_while_it_is_used(clock: ManualClock) -> None:
    """Nobody starts a timer for a store in memory; it must not grow for ever without one."""
    store = MemoryStore(clock=clock)
    for _ in range(100):
        await store.create(new_record(clock))
    clock.advance(HOUR)
    for _ in range(10):
        await store.create(new_record(clock))
    assert len(store) == 10


async def test_long_work_lets_others_run(clock: ManualClock) -> None:
    """A store that is busy for 100 ms at a time makes every request wait."""
    store = MemoryStore(clock=clock)
    for _ in range(10 * BATCH):
        await store.create(new_record(clock, principal="alice"))
    assert await _turns_others_get(_count(store)) >= 10
    assert await _turns_others_get(store.delete_principal("alice")) >= 10
    for _ in range(10 * BATCH):
        await store.create(new_record(clock))
    clock.advance(HOUR)
    assert await _turns_others_get(store.sweep(clock(), 10 * BATCH)) >= 10
    assert len(store) == 0


async def _count(store: MemoryStore) -> int:
    return len([record async for record in store.scan()])


async def _turns_others_get(work: Any) -> int:
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert task.result() == 10 * BATCH
    return turns


VERBS = st.sampled_from(
    ["create", "sign in", "sign out", "touch", "load", "delete", "revoke", "sweep", "wait"]
)


@given(st.lists(st.tuples(VERBS, st.integers(0, 5), st.integers(-3, 9)), max_size=60))
def test_no_sequence_of_calls_leaves_the_books_wrong(calls: list[tuple[str, int, int]]) -> None:
    """A forgotten entry is a leak in a process that runs for months."""
    asyncio.run(_play(calls))


async def _play(calls: list[tuple[str, int, int]]) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock, max_records=4)
    digests = [secrets.token_bytes(32) for _ in range(6)]
    for verb, who, minutes in calls:
        with_end = clock() + timedelta(minutes=minutes)
        try:
            await _do(store, clock, verb, digests[who], with_end)
        except StoreUnavailable:
            assert len(store) == 4
        _require_books_agree(store)


async def _do(store: MemoryStore, clock: ManualClock, verb: str, digest: bytes, end: Any) -> None:
    principal = {"sign in": f"p{digest[0] % 2}", "sign out": None}
    if verb == "create":
        await store.create(new_record(clock, digest=digest, expires_at=end))
    elif verb in principal:
        old = await store.load(digest)
        if old is not None:
            await store.replace(
                next_version(old, principal=principal[verb], expires_at=end), version=old.version
            )
    elif verb == "touch":
        await store.touch(digest, clock(), end)
    elif verb == "load":
        await store.load(digest)
    elif verb == "delete":
        await store.delete(digest)
    elif verb == "revoke":
        await store.delete_principal("p0")
    elif verb == "sweep":
        await store.sweep(clock(), 2)
    else:
        clock.advance(timedelta(minutes=1))


def _require_books_agree(store: MemoryStore) -> None:
    records: dict[bytes, Record] = {**store._anonymous, **store._signed_in}
    assert len(records) == len(store._anonymous) + len(store._signed_in) <= 4
    assert store._by_end == sorted((record.expires_at, digest) for digest, record in records.items())
    assert all(record.principal is None for record in store._anonymous.values())
    owned: dict[str, set[bytes]] = {}
    for record in store._signed_in.values():
        assert record.principal is not None
        owned.setdefault(record.principal, set()).add(record.digest)
    assert store._by_principal == owned


def test_store_without_room_is_refused_at_the_start() -> None:
    """A cap of nothing would answer every visitor with a 503."""
    with pytest.raises(ConfigurationError, match="max_records is 0"):
        MemoryStore(max_records=0)


async def test_store_is_made_from_settings(clock: ManualClock) -> None:
    """The application chooses its store by settings alone."""
    store = MemoryStore.from_settings(Settings(backend="memory"), clock)
    record = new_record(clock)
    await store.create(record)
    assert await store.load(record.digest) == msgspec.structs.replace(record)
