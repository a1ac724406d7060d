"""Writes that travel together: none may pay for another's bad luck."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest

from eyewall.errors import StoreUnavailable
from eyewall.stores.sql import SqlStore
from eyewall.stores.sql_write_batching import MOST_BYTES
from eyewall.testing.check_kit import new_record, next_version
from eyewall.testing.clock import ManualClock
from tests.stores.sql_places import Place, batches_of, outcomes_of, stored

HOUR = timedelta(hours=1)

TOO_LARGE = 2**63
"""A version that a record may have and no database can keep."""


@pytest.fixture
async def store(place: Place, clock: ManualClock) -> AsyncIterator[SqlStore]:
    """A store on a fresh table."""
    store = place.store(clock)
    await store.create_schema()
    yield store
    await store.close()


# Travelling together


async def test_writes_of_one_turn_travel_together(store: SqlStore, clock: ManualClock) -> None:
    """Thirty visitors of one moment must not cost thirty transactions."""
    with batches_of(store) as sent:
        records = await stored(store, clock, 30)
        changes = [next_version(r, seen_at=clock() - HOUR) for r in records]
        replaced = await asyncio.gather(*(store.replace(r, version=1) for r in changes))
        touched = await asyncio.gather(*(store.touch(r.digest, clock(), r.expires_at) for r in records))
        changed = await asyncio.gather(*(store.load(r.digest) for r in records))
        deleted = await asyncio.gather(*(store.delete(r.digest) for r in records))
    assert all([*replaced, *touched, *deleted])
    assert changed == [msgspec.structs.replace(r, seen_at=clock()) for r in changes]
    assert await asyncio.gather(*(store.load(r.digest) for r in records)) == [None] * 30
    assert len(sent) <= 8


async def test_writes_that_wait_for_a_connection_travel_together(place: Place, clock: ManualClock) -> None:
    """When the database is slow, many small transactions would make it slower still."""
    store = place.store(clock, connections=1)
    records = await stored(store, clock, 10)
    pool = store._pools.current()
    with batches_of(store) as sent:
        async with pool._room:
            writing = []
            for record in records:
                writing.append(asyncio.ensure_future(store.replace(next_version(record), version=1)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert all(await asyncio.gather(*writing))
    assert len(sent) == 1
    await store.close()


async def test_batches_are_bounded(store: SqlStore, clock: ManualClock) -> None:
    """A herd of large sessions must not make a statement that the database refuses."""
    records = [new_record(clock, payload=bytes(MOST_BYTES // 10)) for _ in range(25)]
    huge = new_record(clock, payload=bytes(2 * MOST_BYTES))
    small = [new_record(clock) for _ in range(150)]
    with batches_of(store) as sent:
        assert all(await asyncio.gather(*map(store.create, [*records, huge, *small])))
    for batch in sent:
        payloads = [len(write.values["payload"]) for write in batch.writes.values()]
        assert len(payloads) <= 64
        assert sum(payloads) <= MOST_BYTES or len(payloads) == 1


async def test_closing_sends_what_has_been_gathered(place: Place, clock: ManualClock) -> None:
    """A process that is told to stop must not forget what it was just told to store."""
    store = place.store(clock)
    await store.create_schema()
    record = new_record(clock)
    creating = asyncio.ensure_future(store.create(record))
    await asyncio.sleep(0)
    await store.close()
    assert await creating is True
    assert await store.load(record.digest) == record
    await store.close()


# Everybody gets an answer of his own


async def test_one_loses_its_compare_and_swap_and_the_others_are_stored(
    store: SqlStore, clock: ManualClock
) -> None:
    """The one would be told that its change is kept, or the others that theirs is not."""
    late, gone, dead, *_ = records = await stored(store, clock, 9)
    assert await store.replace(next_version(late, payload=b"faster"), version=1)
    assert await store.delete(gone.digest)
    assert await store.touch(dead.digest, clock(), clock())
    calls = [store.replace(next_version(r, payload=b"new"), version=1) for r in records]
    assert await asyncio.gather(*calls) == [False] * 3 + [True] * 6
    found = await asyncio.gather(*(store.load(r.digest) for r in records))
    assert [r and r.payload for r in found] == [b"faster", None, None] + [b"new"] * 6


async def test_one_finds_its_place_taken_and_the_others_are_created(
    store: SqlStore, clock: ManualClock
) -> None:
    """A visitor would be given the session of another one, or none."""
    (taken,) = await stored(store, clock, 1)
    rivals = [new_record(clock) for _ in range(5)]
    usurper = msgspec.structs.replace(taken, payload=b"usurped")
    calls = map(store.create, [*rivals[:2], usurper, *rivals[2:]])
    assert await asyncio.gather(*calls) == [True, True, False, True, True, True]
    assert await store.load(taken.digest) == taken
    assert await asyncio.gather(*(store.load(r.digest) for r in rivals)) == rivals


async def test_touches_and_deletes_of_one_turn_are_told_apart(store: SqlStore, clock: ManualClock) -> None:
    """A sign-out that ended nothing, or a prolonged session that is none, must be known as such."""
    gone, *there = await stored(store, clock, 4)
    await store.delete(gone.digest)
    touches = [store.touch(r.digest, clock(), r.expires_at) for r in (gone, *there)]
    assert await asyncio.gather(*touches) == [False, True, True, True]
    assert await asyncio.gather(*(store.delete(r.digest) for r in (gone, *there))) == [
        False,
        True,
        True,
        True,
    ]


async def test_one_is_refused_by_the_database_and_the_others_are_stored(
    store: SqlStore, clock: ManualClock
) -> None:
    """One visitor's impossible data must not cost everybody else of that moment an error page."""
    records = await stored(store, clock, 4)
    replacing = [next_version(r) for r in records]
    replacing[1] = msgspec.structs.replace(replacing[1], version=TOO_LARGE)
    answers = await outcomes_of(*(store.replace(r, version=1) for r in replacing))
    assert answers[:1] + answers[2:] == [True, True, True]
    assert isinstance(answers[1], StoreUnavailable)
    fresh = [new_record(clock), new_record(clock, version=TOO_LARGE), new_record(clock)]
    refused = (await outcomes_of(*map(store.create, fresh))).pop(1)
    assert isinstance(refused, StoreUnavailable)
    assert await store.load(records[1].digest) == records[1]
    found = await asyncio.gather(*(store.load(r.digest) for r in (*replacing, *fresh)))
    assert found == [replacing[0], records[1], replacing[2], replacing[3], fresh[0], None, fresh[2]]


async def test_two_writes_of_one_row_never_share_a_transaction(store: SqlStore, clock: ManualClock) -> None:
    """Both would be told that they had won, and one of two changes would be lost."""
    records = await stored(store, clock, 5)
    with batches_of(store) as sent:
        calls = [
            store.replace(next_version(r, payload=b"%d" % n), version=1) for n in range(4) for r in records
        ]
        answers = await asyncio.gather(*calls)
    assert answers.count(True) == len(records)
    for place, record in enumerate(records):
        winners = [n for n in range(4) if answers[n * len(records) + place]]
        found = await store.load(record.digest)
        assert found is not None
        assert [found.payload] == [b"%d" % n for n in winners]
    assert len(sent) >= 4


async def test_batches_of_two_processes_over_the_same_rows_lose_nothing(
    place: Place, store: SqlStore, clock: ManualClock
) -> None:
    """Two transactions that lock the same rows in two orders would both wait, until one is ended."""
    records = await stored(store, clock, 40)
    other = place.store(clock)
    await other.load(bytes(32))  # whatever it makes at first use is there
    mine = [store.replace(next_version(r, payload=b"mine"), version=1) for r in records]
    theirs = [other.replace(next_version(r, payload=b"theirs"), version=1) for r in reversed(records)]
    answers = await asyncio.gather(*mine, *theirs)
    won = dict(zip((r.digest for r in records), answers[:40], strict=True))
    lost = dict(zip((r.digest for r in reversed(records)), answers[40:], strict=True))
    for record in records:
        assert won[record.digest] is not lost[record.digest]
        found = await store.load(record.digest)
        assert found is not None
        assert found.payload == (b"mine" if won[record.digest] else b"theirs")
    await other.close()


# Cancelled


async def test_one_is_cancelled_and_the_others_are_stored(store: SqlStore, clock: ManualClock) -> None:
    """A visitor who closes the tab must not take others' changes along; and his own is not sent any more."""
    records = await stored(store, clock, 6)
    writing = [asyncio.ensure_future(store.replace(next_version(r), version=1)) for r in records]
    await asyncio.sleep(0)
    for task in writing[::2]:
        task.cancel()
    answers = await outcomes_of(*writing)
    assert answers[1::2] == [True] * 3
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    found = await asyncio.gather(*(store.load(r.digest) for r in records))
    assert [r.version for r in found if r] == [1, 2] * 3


async def test_when_all_are_cancelled_nothing_is_sent(store: SqlStore, clock: ManualClock) -> None:
    """Sign-ins that were given up must not come to life after the sign-out."""
    records = [new_record(clock) for _ in range(3)]
    writing = [asyncio.ensure_future(store.create(r)) for r in records]
    await asyncio.sleep(0)
    for task in writing:
        task.cancel()
    await outcomes_of(*writing)
    await outcomes_of(*(call.task for call in store._pools.current()._calls))
    assert await asyncio.gather(*(store.load(r.digest) for r in records)) == [None] * 3


async def test_a_storm_of_cancelled_writes_loses_and_doubles_none(
    store: SqlStore, clock: ManualClock
) -> None:
    """Every acknowledged change is there once, whoever else gave up in the same transaction."""
    chance = random.Random(11)
    records = await stored(store, clock, 8)
    acknowledged = dict.fromkeys((r.digest for r in records), 0)
    doubtful = dict(acknowledged)

    async def change(digest: bytes) -> None:
        found = await store.load(digest)
        assert found is not None
        try:
            won = await store.replace(next_version(found), version=found.version)
        except asyncio.CancelledError:
            doubtful[digest] += 1
            raise
        acknowledged[digest] += won

    for _ in range(25):
        tasks = [asyncio.ensure_future(change(chance.choice(records).digest)) for _ in range(20)]
        await asyncio.sleep(chance.random() / 300)
        for task in chance.sample(tasks, 8):
            task.cancel()
        for outcome in await outcomes_of(*tasks):
            assert not isinstance(outcome, Exception), outcome
    for record in records:
        found = await store.load(record.digest)
        assert found is not None
        known = acknowledged[record.digest]
        assert known <= found.version - 1 <= known + doubtful[record.digest]
