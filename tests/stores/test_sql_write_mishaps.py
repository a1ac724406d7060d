"""Batches of writes that end otherwise than they should: nobody waits for ever, or for a stranger's row."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from eyewall.errors import StoreUnavailable
from eyewall.testing.check_kit import new_record, next_version
from eyewall.testing.clock import ManualClock
from tests.servers.patience import PATIENCE
from tests.stores.sql_places import Place, outcomes_of, rival, stored
from tests.stores.test_sql_writes_held_up import SERVERS


async def test_nobody_joins_a_batch_that_ended_before_it_began(place: Place, clock: ManualClock) -> None:
    """At the end of a process, whose tasks are all cancelled, a sign-out would hang without a deadline."""
    store = place.store(clock)
    early, late = await stored(store, clock, 2)
    writing = asyncio.ensure_future(store.delete(early.digest))
    await asyncio.sleep(0)
    for call in store._pools.current()._calls:
        call.task.cancel()
    with pytest.raises(StoreUnavailable):
        await writing
    assert await asyncio.wait_for(store.delete(late.digest), PATIENCE)
    await store.close()


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("verb", ["replace", "touch", "delete"])
async def test_nobody_waits_for_a_row_of_others(
    request: pytest.FixtureRequest, clock: ManualClock, name: str, verb: str
) -> None:
    """Sign-outs that scan a small table would wait for a row that is not theirs, until their deadline."""
    place = Place(request.getfixturevalue(name).url)
    store = place.store(clock)
    held, *records = await stored(store, clock, 8)
    calls = {
        "replace": lambda r: store.replace(next_version(r), version=1),
        "touch": lambda r: store.touch(r.digest, clock(), r.expires_at),
        "delete": lambda r: store.delete(r.digest),
    }
    (table,) = store.metadata.tables.values()
    async with rival(place.url) as holding:
        await holding.execute(table.update().where(table.c.digest == held.digest).values(seen_at=1))
        writing = asyncio.gather(*map(calls[verb], records))
        assert await asyncio.wait_for(writing, PATIENCE / 2) == [True] * 7
    await store.close()


async def test_closing_waits_for_what_a_batch_could_not_do(place: Place, clock: ManualClock) -> None:
    """Who comes last before a process stops would lose a change because of others' bad luck."""
    store = place.store(clock)
    gone, *there = await stored(store, clock, 4)
    await store.delete(gone.digest)
    replacing = [asyncio.ensure_future(store.replace(next_version(r), version=1)) for r in (gone, *there)]
    await asyncio.sleep(0)
    await store.close()
    assert await outcomes_of(*replacing) == [False, True, True, True]


@pytest.mark.parametrize("name", SERVERS)
async def test_closing_waits_for_a_row_that_somebody_holds(
    request: pytest.FixtureRequest, clock: ManualClock, name: str
) -> None:
    """The change would be given up at once, with most of its time left."""
    place = Place(request.getfixturevalue(name).url)
    store = place.store(clock)
    records = await stored(store, clock, 3)
    (table,) = store.metadata.tables.values()
    async with rival(place.url) as holding:
        await holding.execute(table.update().where(table.c.digest == records[0].digest).values(seen_at=1))
        touching = [asyncio.ensure_future(store.touch(r.digest, clock(), r.expires_at)) for r in records]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0.1)
    assert await outcomes_of(*touching) == [True] * 3
    await closing


def _leave_little_room(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    (pages,) = driver.execute("PRAGMA page_count").fetchone()
    driver.execute(f"PRAGMA max_page_count={pages + 3}")


async def test_one_that_finds_no_room_keeps_nobody_from_signing_out(
    tmp_path: Path, clock: ManualClock
) -> None:
    """On a disk that is nearly full every large session would take the sign-outs of its moment along."""
    store = Place(f"sqlite:///{tmp_path}/sessions.db").store(clock, connections=1)
    small, large = new_record(clock), new_record(clock, payload=bytes(100_000))
    records = await stored(store, clock, 4)
    await store._pools.current().write(_leave_little_room, repeatable=False)
    refused, *answers = await outcomes_of(
        store.create(large), store.create(small), *(store.delete(r.digest) for r in records)
    )
    assert isinstance(refused, StoreUnavailable)
    assert answers == [True] * 5
    assert await store.load(small.digest) == small
    assert await asyncio.gather(*(store.load(r.digest) for r in (large, *records))) == [None] * 5
    await store.close()


async def test_the_largest_sessions_fit_into_a_packet(mariadb: Any, clock: ManualClock) -> None:
    """Written as hexadecimal, a session of more than half of MariaDB's 16 MiB could not be stored."""
    store = Place(mariadb.url).store(clock, timeout=40)  # 45 MiB are a lot for a busy machine
    record = new_record(clock, payload=random.Random(5).randbytes(15 * 1024 * 1024))
    assert await store.create(record)
    changed = next_version(record)
    assert await store.replace(changed, version=1)
    assert await store.load(record.digest) == changed
    await store.close()
