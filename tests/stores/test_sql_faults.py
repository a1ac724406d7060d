"""The SQL store when the database hangs, dies, is locked or misconfigured, and across forks and loops."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from eyewall.errors import StoreUnavailable
from eyewall.stores.sql import SqlStore
from eyewall.testing.check_kit import new_record, next_version
from eyewall.testing.clock import ManualClock
from tests.servers.patience import PATIENCE
from tests.stores.sql_places import DATABASES, Place, execute, give, rival

DEADLINE = 0.4
"""Seconds; short, because these tests wait for it."""

SERVERS = ("postgres", "postgres_debian", "mariadb")


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


@pytest.fixture(params=("postgres", "mariadb"))
def server(request: pytest.FixtureRequest, fresh_server: Callable[[str], Any]) -> Any:
    """A server of this test's own, to be broken."""
    return fresh_server(request.param)


@pytest.fixture
async def store(server: Any, clock: ManualClock) -> AsyncIterator[SqlStore]:
    """A store on the server that is broken; patient until :func:`freeze`."""
    store = Place(server.url).store(clock)
    await store.create_schema()
    yield store
    await store.close()


async def freeze(server: Any, store: SqlStore) -> None:
    """Stop ``server``, wait until all of its threads have heard of it, and give calls only ``DEADLINE``.

    What goes before has time, since it is not what the tests measure, and the machine may be busy.
    """
    server.pause()
    await asyncio.sleep(0.05)
    give(store, DEADLINE)


async def took(call: Any) -> tuple[Any, float]:
    """What ``call`` gave or raised, and in how many seconds."""
    begin = time.perf_counter()
    outcomes = list(await asyncio.gather(call, return_exceptions=True))
    return outcomes[0], time.perf_counter() - begin


async def test_a_frozen_server_is_given_up_at_the_deadline(
    server: Any, store: SqlStore, clock: ManualClock
) -> None:
    """Asyncpg waited over 15 seconds for a stopped server; every visitor would have waited with it."""
    record = new_record(clock)
    await store.create(record)
    await asyncio.gather(*(store.touch(record.digest, clock(), record.expires_at) for _ in range(8)))
    await freeze(server, store)
    calls = [
        store.load(record.digest),
        store.replace(next_version(record), version=1),
        store.sweep(clock(), 9),
    ]
    calls += [store.touch(record.digest, clock(), record.expires_at) for _ in range(12)]
    outcomes = await asyncio.gather(*map(took, calls))
    again, seconds = await took(store.load(record.digest))
    await asyncio.sleep(0.1)
    left = len(asyncio.all_tasks()) - 1
    server.resume()
    assert left == 0, "a call that was given up holds its connection no longer"
    for outcome, waited in [*outcomes, (again, seconds)]:
        assert isinstance(outcome, StoreUnavailable)
        assert waited < DEADLINE + 2  # the machine may be busy


async def test_a_thawed_server_is_used_again(server: Any, store: SqlStore, clock: ManualClock) -> None:
    """Recovery must need no restart, and no connection may be lost for good."""
    record = new_record(clock)
    await store.create(record)
    for _ in range(2):
        await freeze(server, store)
        outcomes = await asyncio.gather(
            *(took(store.touch(record.digest, clock(), record.expires_at)) for _ in range(12))
        )
        assert all(isinstance(outcome, StoreUnavailable) for outcome, _ in outcomes)
        server.resume()
        give(store, PATIENCE)
    assert all(
        await asyncio.gather(*(store.touch(record.digest, clock(), record.expires_at) for _ in range(12)))
    )
    assert await store.load(record.digest) == record
    assert len(asyncio.all_tasks()) == 1


async def test_closing_does_not_wait_for_a_frozen_server(
    server: Any, store: SqlStore, clock: ManualClock
) -> None:
    """A process that is told to stop must stop."""
    record = new_record(clock)
    await store.create(record)
    await asyncio.gather(*(store.touch(record.digest, clock(), record.expires_at) for _ in range(5)))
    await freeze(server, store)
    pending = asyncio.ensure_future(took(store.load(record.digest)))
    await asyncio.sleep(0.01)
    _, seconds = await took(store.close())
    server.resume()
    assert seconds < 2 * DEADLINE + 2  # the machine may be busy
    assert isinstance((await pending)[0], StoreUnavailable)


async def test_a_restarted_server_costs_no_call(server: Any, store: SqlStore, clock: ManualClock) -> None:
    """The connections in the pool are dead; no visitor need know."""
    record = new_record(clock)
    await store.create(record)
    await asyncio.gather(*(store.touch(record.digest, clock(), record.expires_at) for _ in range(5)))
    server.halt()
    server.start()
    assert await store.touch(record.digest, clock(), record.expires_at)
    assert await store.load(record.digest) == record
    server.halt()
    server.start()
    await asyncio.sleep(0.01)  # the loop hears of the hung-up connections, as it does in a running server
    assert await store.replace(next_version(record), version=1)


async def test_a_dead_server_is_said_at_once(server: Any, store: SqlStore, clock: ManualClock) -> None:
    """A refused connection must not cost the deadline, and the message must not hold the password."""
    record = new_record(clock)
    await store.create(record)
    server.kill()
    for call in (store.load(record.digest), store.delete(record.digest), store.check()):
        outcome, _ = await took(call)
        assert isinstance(outcome, StoreUnavailable)
        assert f"{PATIENCE:g} s" not in str(outcome), "it waited for its deadline"
        assert "eyewall:eyewall" not in str(outcome)


async def _end_sessions_that_update(connection: AsyncConnection, table: str) -> None:
    """Have the server end every session that waits in an UPDATE of ``table``."""
    if connection.dialect.name == "postgresql":
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :update"
        end = "SELECT pg_terminate_backend({})"
    else:
        waiting = "SELECT id FROM information_schema.processlist WHERE info LIKE :update"
        end = "KILL {}"
    sessions: list[int] = []
    while not sessions:
        found = await connection.execute(text(waiting), {"update": f"UPDATE {table}%"})
        sessions = list(found.scalars())
        await connection.rollback()
    for session in sessions:
        await connection.execute(text(end.format(session)))


@pytest.mark.parametrize("name", SERVERS)
async def test_only_what_can_be_done_twice_is_repeated_when_the_answer_is_lost(
    request: pytest.FixtureRequest, clock: ManualClock, name: str
) -> None:
    """Repeated, a replace that had worked would say that somebody else was faster."""
    place = Place(request.getfixturevalue(name).url)
    store = place.store(clock)
    record = new_record(clock)
    await store.create(record)
    (table,) = store.metadata.tables.values()
    async with rival(place.url) as operator, rival(place.url) as holding:
        await holding.execute(table.update().where(table.c.digest == record.digest).values(seen_at=1))
        replacing = asyncio.ensure_future(took(store.replace(next_version(record), version=1)))
        await _end_sessions_that_update(operator, place.table)
        outcome, _ = await replacing
        touching = asyncio.ensure_future(store.touch(record.digest, clock(), record.expires_at))
        await _end_sessions_that_update(operator, place.table)
    assert isinstance(outcome, StoreUnavailable)
    assert await touching is True
    assert await store.load(record.digest) == record
    await store.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_failures_that_did_nothing_are_repeated(
    request: pytest.FixtureRequest, clock: ManualClock, name: str
) -> None:
    """A deadlock's victim has only to try again; a visitor should not have to."""
    place = Place(request.getfixturevalue(name).url)
    store = place.store(clock)
    first, second = sorted((new_record(clock, principal="alice") for _ in range(2)), key=lambda r: r.digest)
    heavier = [new_record(clock, principal="bob") for _ in range(50)]  # MariaDB ends the lighter transaction
    await asyncio.gather(*map(store.create, [first, second, *heavier]))
    (table,) = store.metadata.tables.values()
    locking = table.update().values(seen_at=1)
    async with rival(place.url) as holding:
        await holding.execute(locking.where(table.c.digest.in_([r.digest for r in [second, *heavier]])))
        deleting = asyncio.ensure_future(store.delete_principal("alice"))  # takes the first, wants the second
        await asyncio.sleep(0.1)
        await holding.execute(locking.where(table.c.digest == first.digest))  # and we, the other way round
    assert await deleting == 2
    await store.close()


async def test_too_many_connections_are_waited_out(
    fresh_server: Callable[[str], Any], clock: ManualClock
) -> None:
    """A neighbour that hogs the server for a moment must not cost a visitor an error."""
    server = fresh_server("postgres")
    store = Place(server.url).store(clock)
    await store.create_schema()
    await execute(store, text("ALTER SYSTEM SET max_connections = 10"))
    await store.close()
    server.halt()
    server.start()
    hogs = [await asyncpg.connect(server.url) for _ in range(10)]
    creating = asyncio.ensure_future(store.create(new_record(clock)))
    await asyncio.sleep(0.03)
    await asyncio.gather(*(hog.close() for hog in hogs))
    assert await creating is True
    await store.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_cancelled_call_that_waits_for_a_connection_is_not_sent(
    request: pytest.FixtureRequest, clock: ManualClock, name: str
) -> None:
    """A sign-in that was given up must not come to life after the sign-out."""
    store = Place(request.getfixturevalue(name).url).store(clock, connections=1)
    record = new_record(clock)
    await store.create_schema()
    pool = store._pools.current()
    pause = "SELECT pg_sleep(0.2)" if name.startswith("postgres") else "SELECT sleep(0.2)"
    hog = asyncio.ensure_future(execute(store, text(pause)))
    await asyncio.sleep(0.05)
    signing_in = asyncio.ensure_future(store.create(record))
    await asyncio.sleep(0.05)
    signing_in.cancel()
    await hog
    await asyncio.wait([call.task for call in pool._calls])
    assert await store.load(record.digest) is None
    await store.close()


# SQLite's lock


async def test_a_locked_sqlite_is_unavailable_for_writes_only(tmp_path: Path, clock: ManualClock) -> None:
    """A backup that holds the lock must not stop the reading pages, nor hang the writing ones."""
    store = SqlStore(f"sqlite:///{tmp_path}/s.db", clock=clock, timeout=DEADLINE)
    record = new_record(clock)
    await store.create(record)
    rival = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    rival.execute("BEGIN EXCLUSIVE")
    writes = [took(store.replace(next_version(record), version=1)) for _ in range(8)]
    reads = [took(store.load(record.digest)) for _ in range(8)]
    outcomes = await asyncio.gather(*writes, *reads)
    rival.execute("ROLLBACK")
    rival.close()
    for outcome, seconds in outcomes[:8]:
        assert isinstance(outcome, StoreUnavailable)
        assert seconds < DEADLINE + 2
    for outcome, _ in outcomes[8:]:
        assert outcome == record
    await asyncio.sleep(DEADLINE)  # calls that were given up still find out in their threads
    found = await store.load(record.digest)
    assert found is not None
    assert await store.replace(next_version(found), version=found.version)
    await store.close()


async def test_sqlite_never_holds_the_event_loop(tmp_path: Path, clock: ManualClock) -> None:
    """A store that works on the loop stops every other visitor meanwhile."""
    store = SqlStore(f"sqlite:///{tmp_path}/s.db", clock=clock)
    await store.create_schema()
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # so that the call has to wait inside SQLite
        task = asyncio.ensure_future(store.create(new_record(clock)))
        for _ in range(1000):
            await asyncio.sleep(0)  # on the loop, the call would never let this line be reached
        assert not task.done()
        other.execute("ROLLBACK")
        assert await task is True
    await store.close()


# Loops and processes


@pytest.mark.parametrize("name", DATABASES)
def test_each_event_loop_has_connections_of_its_own(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, name: str
) -> None:
    """Applications are tested with one loop per test; a connection of a closed loop hangs for ever."""
    url = f"sqlite:///{tmp_path}/s.db" if name == "sqlite" else request.getfixturevalue(name).url
    store = Place(url).store(clock)
    record = new_record(clock)

    async def first() -> None:
        await store.create(record)
        await store.close()

    async def second() -> None:
        assert await store.load(record.digest) == record
        await store.close()

    asyncio.run(first())
    asyncio.run(second())
    asyncio.run(second())


FORKING = """
    import asyncio, os, sys
    from eyewall.stores.sql import SqlStore
    from eyewall.testing.check_kit import new_record, utc_now

    store = SqlStore(sys.argv[1], table=sys.argv[2], timeout=10)
    mine = new_record(utc_now)

    async def visit(other):
        for _ in range(20):
            record = new_record(utc_now)
            assert await store.create(record)
            found = await asyncio.gather(store.load(record.digest), store.load(other.digest))
            assert found == [record, other]

    with asyncio.Runner() as runner:
        runner.run(store.create(mine))
        children = []
        for _ in range(3):
            if not (child := os.fork()):
                asyncio.run(visit(mine))
                os._exit(0)
            children.append(child)
        runner.run(visit(mine))
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        runner.run(visit(mine))
        runner.run(store.close())
    print("all well")
"""


@pytest.mark.parametrize("name", DATABASES)
def test_forked_processes_share_no_connection(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """Two processes that write on one socket read each other's answers: each other's sessions."""
    url = f"sqlite:///{tmp_path}/s.db" if name == "sqlite" else request.getfixturevalue(name).url
    command = [sys.executable, "-c", textwrap.dedent(FORKING), url, f"forked_{name}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "all well\n", done.stderr


def test_a_store_that_nobody_closed_lets_the_process_end(tmp_path: Path) -> None:
    """A thread per connection must not keep a finished program alive."""
    program = """
        import asyncio, sys
        from eyewall.stores.sql import SqlStore
        asyncio.run(SqlStore(sys.argv[1]).check())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), f"sqlite:///{tmp_path}/s.db"]
    assert subprocess.run(command, timeout=20, check=False).returncode == 0


async def test_the_pool_keeps_to_its_size(mariadb: Any, clock: ManualClock) -> None:
    """A herd of visitors must not open a connection each."""
    store = Place(mariadb.url).store(clock, connections=3)
    await asyncio.gather(*(store.find_principal(str(number)) for number in range(60)))
    assert len(store._pools.current()._open) <= 3
    await store.close()


@pytest.mark.parametrize("database", ["postgres", "mariadb"])
async def test_visitors_who_never_rest_are_served_in_turn(
    database: str, request: pytest.FixtureRequest, clock: ManualClock
) -> None:
    """Newcomers went first: of forty that read and wrote all the time some waited a second, and got 503."""
    store = Place(request.getfixturevalue(database).url).store(clock, connections=1)
    await store.load(bytes(32))  # whatever it makes at first use is there
    served = [0] * 20

    async def visit(number: int) -> None:
        while sum(served) < 400:
            await store.load(bytes([number]) * 32)
            await store.touch(bytes([number]) * 32, clock(), clock())
            served[number] += 1

    await asyncio.gather(*map(visit, range(len(served))))
    await store.close()
    assert max(served) - min(served) <= 5, served
