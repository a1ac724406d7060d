"""The SQL store's promises, on SQLite, two PostgreSQLs and MariaDB."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from eyewall.core.record import Device, Record
from eyewall.errors import ConfigurationError, DamagedRecordError
from eyewall.stores import sql_schema
from eyewall.stores.sql import SWEEP_STEP, SqlStore
from eyewall.stores.sql_batching import MOST_AT_ONCE, padded
from eyewall.testing.check_kit import Check, new_record, next_version
from eyewall.testing.clock import ManualClock
from eyewall.testing.store_checks import checks_for
from tests.stores.sql_places import Place, execute, statements_of

HOUR = timedelta(hours=1)


@pytest.fixture
async def store(place: Place, clock: ManualClock) -> AsyncIterator[SqlStore]:
    """A store on a fresh table."""
    store = place.store(clock)
    await store.create_schema()
    yield store
    await store.close()


@pytest.mark.parametrize("check", checks_for(SqlStore), ids=lambda check: check.__name__)
async def test_the_store_keeps_its_promises(check: Check, place: Place) -> None:
    """A store that breaks the contract loses sessions, or serves them to the wrong people."""
    await check(place.make)


# Batching


async def test_loads_of_one_turn_travel_together(store: SqlStore, clock: ManualClock) -> None:
    """A page of 40 parallel requests must not cost 40 round trips."""
    records = [new_record(clock) for _ in range(40)]
    await asyncio.gather(*map(store.create, records))
    with statements_of(store) as sent:
        loaded = await asyncio.gather(*(store.load(record.digest) for record in records))
    assert loaded == records
    assert len(sent) == 1


async def test_batches_are_bounded(store: SqlStore, clock: ManualClock) -> None:
    """A herd of requests must not make a statement that the database refuses as too long."""
    digests = [secrets.token_bytes(32) for _ in range(MOST_AT_ONCE * 3 + 5)]
    with statements_of(store) as sent:
        assert set(await asyncio.gather(*map(store.load, digests))) == {None}
    assert len(sent) == 4
    assert max(len(values) for _, values in sent) <= MOST_AT_ONCE


async def test_a_lone_load_is_a_plain_select(store: SqlStore, clock: ManualClock) -> None:
    """The usual case must not pay for the crowded one."""
    record = new_record(clock)
    await store.create(record)
    with statements_of(store) as sent:
        twice = [store.load(record.digest), store.load(record.digest)]
        assert await asyncio.gather(*twice) == [record, record]
    ((statement, _),) = sent
    assert " IN " not in statement


async def test_a_cancelled_load_disturbs_nobody_in_its_batch(store: SqlStore, clock: ManualClock) -> None:
    """One visitor who closes the tab must not take the others' pages down."""
    records = [new_record(clock) for _ in range(10)]
    await asyncio.gather(*map(store.create, records))
    tasks = [asyncio.ensure_future(store.load(record.digest)) for record in records]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == records[1::2]
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])


async def test_a_damaged_record_disturbs_nobody_in_its_batch(store: SqlStore, clock: ManualClock) -> None:
    """One broken row must not sign everybody out who comes at the same moment."""
    whole, broken = records = [new_record(clock), new_record(clock)]
    await asyncio.gather(*map(store.create, records))
    await _damage(store, broken, format=99)
    found = await asyncio.gather(*(store.load(r.digest) for r in records), return_exceptions=True)
    assert found[0] == whole
    assert isinstance(found[1], DamagedRecordError)


@pytest.mark.parametrize("many", range(1, MOST_AT_ONCE + 1))
def test_padding_makes_few_sizes_and_changes_no_meaning(many: int) -> None:
    """Each size is a statement that the database must parse and keep."""
    digests = [bytes([i]) for i in range(many)]
    assert set(padded(digests)) == set(digests)
    assert len(padded(digests)) in {1, 2, 4, 8, 16, 32, 64}


async def test_cancel_storm_swaps_no_answers(store: SqlStore, clock: ManualClock) -> None:
    """redis-py once handed one user's answer to another after a cancelled call; no store may do that."""
    chance = random.Random(7)
    alice, bob = [new_record(clock, principal=name, payload=name.encode() * 50) for name in ("alice", "bob")]
    await asyncio.gather(store.create(alice), store.create(bob))

    async def visit(record: Record) -> None:
        verb = chance.randrange(3)
        if verb == 0:
            assert await store.load(record.digest) == record
        elif verb == 1:
            assert await store.touch(record.digest, record.seen_at, record.expires_at)
        else:
            assert await store.find_principal(record.principal or "") == [record]

    for _ in range(25):
        tasks = [asyncio.ensure_future(visit(chance.choice((alice, bob)))) for _ in range(20)]
        await asyncio.sleep(chance.random() / 500)
        for task in chance.sample(tasks, 10):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]


# Rows


PRINCIPALS = ["", "a\0b", "\ud800", "Ωmega", "x" * 100_000, "'; DROP TABLE session; --"]


@pytest.mark.parametrize("principal", PRINCIPALS, ids=lambda principal: ascii(principal[:9]))
async def test_any_principal_comes_back(store: SqlStore, clock: ManualClock, principal: str) -> None:
    """A principal that the database alters belongs to nobody, or to somebody else."""
    record = new_record(clock, principal=principal, device=Device("a\0\xff", "::1"))
    assert await store.create(record)
    assert await store.load(record.digest) == record
    assert await store.find_principal(principal) == [record]
    assert await store.delete_principal(principal) == 1


async def test_principals_match_exactly(store: SqlStore, clock: ManualClock) -> None:
    """MySQL's collations take alice, ALICE and "alice " for one: she would see the others' devices."""
    names = ["alice", "ALICE", "alice ", "alicé", "alice\0", "alic", "alice%"]
    records = {name: new_record(clock, principal=name) for name in names}
    await asyncio.gather(*map(store.create, records.values()))
    for name, record in records.items():
        assert await store.find_principal(name) == [record]
    assert await store.delete_principal("alice") == 1
    assert await store.load(records["ALICE"].digest) is not None


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
async def test_any_time_comes_back_to_the_microsecond(
    store: SqlStore, clock: ManualClock, moment: datetime
) -> None:
    """A time that is rounded or converted ends a session early, or never."""
    record = new_record(clock, created_at=moment, seen_at=moment)
    await store.create(record)
    assert await store.load(record.digest) == record


async def test_a_large_payload_comes_back(store: SqlStore, clock: ManualClock) -> None:
    """MySQL's BLOB ends at 64 KiB, and cuts silently when it is not strict."""
    record = new_record(clock, payload=secrets.token_bytes(4 * 1024 * 1024))
    await store.create(record)
    assert await store.load(record.digest) == record


@pytest.mark.parametrize(
    "columns",
    [
        {"format": 99},
        {"version": 0},
        {"created_at": 2**62},
        {"principal": b"\xff\xfe"},
        {"device": b"\x93 damage"},
        {"device": b"\xc1"},
        {"device": b"\xa4text"},
    ],
    ids=str,
)
async def test_damage_is_reported_and_left_out_of_lists(
    store: SqlStore, clock: ManualClock, columns: dict[str, Any]
) -> None:
    """A damaged row is a new visitor plus an event, never a 500."""
    broken, whole = new_record(clock, principal="alice"), new_record(clock, principal="alice")
    await asyncio.gather(store.create(broken), store.create(whole))
    await _damage(store, broken, **columns)
    with pytest.raises(DamagedRecordError):
        await store.load(broken.digest)
    assert await store.find_principal("alice") == [whole]
    assert [record async for record in store.scan()] == [whole]
    assert await store.delete(broken.digest) is True


async def test_a_row_of_another_format_is_there_but_not_live(store: SqlStore, clock: ManualClock) -> None:
    """An older Eyewall, still running beside a newer one, must not write into rows it cannot read."""
    record = new_record(clock)
    await store.create(record)
    await _damage(store, record, format=99)
    assert await store.replace(next_version(record), version=1) is False
    assert await store.touch(record.digest, record.seen_at, record.expires_at + HOUR) is False
    assert await store.create(record) is False


async def _damage(store: SqlStore, record: Record, **columns: Any) -> None:
    (table,) = store.metadata.tables.values()
    await execute(store, update(table).where(table.c.digest == record.digest).values(columns))


@given(
    st.builds(
        Record,
        digest=st.binary(min_size=32, max_size=32),
        version=st.integers(1, 2**63 - 1),
        payload=st.binary(max_size=50),
        created_at=st.datetimes(timezones=st.just(UTC)),
        seen_at=st.datetimes(timezones=st.just(UTC)),
        expires_at=st.datetimes(timezones=st.just(UTC)),
        principal=st.none() | st.text(st.characters()),
        device=st.none() | st.builds(Device, st.text(), st.text()),
        successor=st.none() | st.binary(min_size=32, max_size=32),
    )
)
def test_every_record_is_a_row_and_back(record: Record) -> None:
    """What cannot come back exactly must not be stored."""
    assert sql_schema.to_record(list(sql_schema.to_row(record).values())) == record


@given(st.lists(st.none() | st.integers() | st.binary() | st.text() | st.floats(), min_size=11, max_size=11))
def test_any_other_row_is_damage(row: list[Any]) -> None:
    """SQLite puts anything into any column; nothing of it may become another exception."""
    with pytest.raises(DamagedRecordError):
        sql_schema.to_record([*row[:-1], 1])


# Schema


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "postgres", "mysql", "mariadb"])
def test_the_schema_can_be_printed_without_a_server(dialect: str) -> None:
    """Where the application may not make tables, somebody must be able to read what to make."""
    ddl = sql_schema.schema_sql(dialect, table="visits")
    assert ddl.count("CREATE TABLE visits") == 1
    assert "CREATE INDEX visits_principal ON visits (principal_digest);" in ddl
    assert "CREATE INDEX visits_expiry ON visits (expires_at);" in ddl


async def test_the_printed_schema_is_the_one_that_works(place: Place, clock: ManualClock) -> None:
    """A printed schema that differs from the made one fails in production only."""
    store = place.store(clock)
    kind = place.url.partition(":")[0]
    try:
        for statement in sql_schema.schema_sql(kind, table=place.table).split(";\n"):
            if statement.strip():
                await execute(store, text(statement))
        with statements_of(store) as sent:
            await store.check()
            assert await store.create(new_record(clock))
        assert not [statement for statement, _ in sent if statement.lstrip().startswith("CREATE")]
    finally:
        await store.close()


@pytest.mark.parametrize("dialect", ["oracle", "", "sqlite3"])
def test_the_schema_of_a_stranger_is_refused(dialect: str) -> None:
    """A typing error must name the choices."""
    with pytest.raises(ConfigurationError, match="postgresql"):
        sql_schema.schema_sql(dialect)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a;b", 'a"b', "ä", "a" * 41, "a\n"])
def test_table_names_cannot_inject(name: str) -> None:
    """A name from a configuration must not become SQL."""
    with pytest.raises(ConfigurationError, match="table"):
        SqlStore("sqlite:///sessions.db", table=name)


def test_migration_tools_find_the_table() -> None:
    """Alembic would drop a table that it does not know."""
    assert list(sql_schema.metadata.tables) == ["eyewall_session"]


async def test_many_processes_may_make_the_table_at_once(place: Place, clock: ManualClock) -> None:
    """Eight workers that start together must all start."""
    stores = [place.store(clock) for _ in range(8)]
    try:
        starts = [*(store.create_schema() for store in stores[:4]), *(store.check() for store in stores[4:])]
        await asyncio.gather(*starts)
        records = [new_record(clock) for _ in stores]
        await asyncio.gather(*(store.create(record) for store, record in zip(stores, records, strict=True)))
        assert await stores[0].load(records[-1].digest) == records[-1]
    finally:
        await asyncio.gather(*(store.close() for store in stores))


# Sweeping

DEAD = 10_000


async def test_a_sweep_goes_in_steps_while_loads_go_on(store: SqlStore, clock: ManualClock) -> None:
    """A sweep of a month's sessions in one statement would stop the site (``test_sweeping`` has a month)."""
    live, dead = new_record(clock), new_record(clock, expires_at=clock() - HOUR)
    await store.create(live)
    (table,) = store.metadata.tables.values()
    row = sql_schema.to_row(dead)
    rows = [row | {"digest": secrets.token_bytes(32)} for _ in range(DEAD)]
    await execute(store, table.insert(), rows)
    served = 0
    with statements_of(store) as sent:
        sweep = asyncio.ensure_future(store.sweep(clock(), 1_000_000))
        while not sweep.done():
            assert await store.load(live.digest) == live
            served += 1
    assert await sweep == DEAD
    assert sum("DELETE" in statement for statement, _ in sent) == DEAD // SWEEP_STEP + 1
    assert served >= 5, "nobody was served meanwhile"
    assert [record async for record in store.scan()] == [live]


async def test_sweepers_side_by_side_are_no_error(store: SqlStore, clock: ManualClock) -> None:
    """Every worker sweeps; deadlocks between them must not reach anybody."""
    records = [new_record(clock, expires_at=clock() - HOUR) for _ in range(200)]
    await asyncio.gather(*map(store.create, records))
    went = await asyncio.gather(*(store.sweep(clock(), 50) for _ in range(8)))
    while last := await store.sweep(clock(), 50):
        went.append(last)
    assert sum(went) == 200


def test_records_know_nothing_of_rows() -> None:
    """A field added to Record without a column would be lost in silence."""
    columns = list(sql_schema.metadata.tables["eyewall_session"].c.keys())
    assert columns[:-2] == [each.name for each in msgspec.structs.fields(Record)]
