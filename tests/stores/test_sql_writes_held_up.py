"""Writes that travel together and are held up: by a lock, a deadline or a connection that dies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from eyewall.errors import StoreUnavailable
from eyewall.stores.sql_forms import MysqlForm
from eyewall.testing.check_kit import next_version
from eyewall.testing.clock import ManualClock
from tests.servers.patience import PATIENCE
from tests.stores.sql_places import Place, batches_of, give, outcomes_of, rival, stored


async def test_who_comes_late_does_not_share_the_deadline_of_who_came_early(
    place: Place, clock: ManualClock
) -> None:
    """Joined to a batch that has waited for long, a write would be given up long before its own time."""
    store = place.store(clock, connections=1)
    early, late = await stored(store, clock, 2)
    give(store, 2.0)
    async with store._pools.current()._room:
        first = asyncio.ensure_future(store.replace(next_version(early), version=1))
        await asyncio.sleep(1.2)
        second = asyncio.ensure_future(store.replace(next_version(late), version=1))
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await first
    assert await second is True
    assert await store.load(early.digest) == early
    await store.close()


@dataclass(frozen=True)
class _Sql:
    """What a test of locks says to a server."""

    lock_table: str
    waiting: str
    end: str


POSTGRES = _Sql(
    "LOCK TABLE {} IN EXCLUSIVE MODE",
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
    "SELECT pg_terminate_backend({})",
)
MARIADB = _Sql(
    "LOCK TABLES {} WRITE",
    "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting%' AND info LIKE '%FROM {}%'",
    "KILL {}",
)
SERVERS = {"postgres": POSTGRES, "postgres_debian": POSTGRES, "mariadb": MARIADB}


async def _end_who_waits(operator: Any, sql: _Sql, table: str) -> None:
    sessions: list[int] = []
    while not sessions:
        sessions = list((await operator.execute(text(sql.waiting.format(table)))).scalars())
        await operator.rollback()
    for session in sessions:
        await operator.execute(text(sql.end.format(session)))


@pytest.mark.parametrize("name", SERVERS)
async def test_when_the_connection_dies_nothing_is_acknowledged_and_nothing_is_half_done(
    request: pytest.FixtureRequest, clock: ManualClock, name: str
) -> None:
    """A change that nobody may rely on would be taken for kept; or, repeated, for somebody else's."""
    place, sql = Place(request.getfixturevalue(name).url), SERVERS[name]
    store = place.store(clock)
    records = await stored(store, clock, 3)
    async with rival(place.url) as operator, rival(place.url) as holding:
        await holding.execute(text(sql.lock_table.format(place.table)))
        replacing = asyncio.ensure_future(
            outcomes_of(*(store.replace(next_version(r), version=1) for r in records))
        )
        await _end_who_waits(operator, sql, place.table)
        answers = await asyncio.wait_for(replacing, PATIENCE / 2)  # repeated, they would wait for the lock
        touching = asyncio.gather(*(store.touch(r.digest, clock(), r.expires_at) for r in records))
        await _end_who_waits(operator, sql, place.table)
        if name == "mariadb":
            await holding.execute(text("UNLOCK TABLES"))
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert len(set(map(id, answers))) == 3, "each has an error of its own, with a traceback of its own"
    assert await touching == [True] * 3, "what can be done twice is repeated"
    assert await asyncio.gather(*(store.load(r.digest) for r in records)) == records
    await store.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_row_that_somebody_holds_delays_its_own_visitor_only(
    request: pytest.FixtureRequest, clock: ManualClock, name: str
) -> None:
    """One locked row would have stopped everybody who wrote at that moment."""
    place = Place(request.getfixturevalue(name).url)
    store = place.store(clock)
    held, *_ = records = await stored(store, clock, 6)
    (table,) = store.metadata.tables.values()
    async with rival(place.url) as holding:
        await holding.execute(table.update().where(table.c.digest == held.digest).values(seen_at=1))
        with batches_of(store) as sent:
            changes = [next_version(r) for r in records]
            writing = [asyncio.ensure_future(store.replace(r, version=1)) for r in changes]
            assert all(await asyncio.gather(*writing[1:]))
        assert len(sent[0].writes) == 6
        assert not writing[0].done()
        assert await asyncio.gather(*(store.load(r.digest) for r in records)) == [held, *changes[1:]]
    assert await writing[0] is True
    await store.close()


async def test_a_server_that_cannot_pass_by_locked_rows_gets_each_write_alone(
    mariadb: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On MySQL 5.7 or MariaDB 10.5 every change of a busy moment would be an error page."""

    async def as_before(_form: MysqlForm, driver: Any, _digests: list[bytes]) -> dict[bytes, Any]:
        await driver.cursor().execute("SELECT 1 FOR UPDATE SKIP WHATEVER")
        raise AssertionError("a syntax error was expected")

    monkeypatch.setattr(MysqlForm, "_locked", as_before)
    store = Place(mariadb.url).store(clock)
    records = await stored(store, clock, 5)
    changes = [next_version(r) for r in records]
    assert await asyncio.gather(*(store.replace(r, version=1) for r in changes)) == [True] * 5
    assert await asyncio.gather(*(store.load(r.digest) for r in records)) == changes
    await store.close()
