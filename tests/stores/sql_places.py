"""What the tests of the SQL store share: the databases, and looking over the store's shoulder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from eyewall.core.record import Record
from eyewall.core.store import Clock
from eyewall.stores import sql_urls
from eyewall.stores.sql import SqlStore
from eyewall.stores.sql_write_batching import Batch
from eyewall.testing.check_kit import new_record
from eyewall.testing.clock import ManualClock
from tests.servers.patience import PATIENCE

DATABASES: Final = ("sqlite", "postgres", "postgres_debian", "mariadb")
_numbers = count(1)


@dataclass(frozen=True)
class Place:
    """A table of its own in one of the databases."""

    url: str
    table: str = field(default_factory=lambda: f"session_{next(_numbers)}")

    def store(self, clock: Clock, *, timeout: float = PATIENCE, connections: int = 5) -> SqlStore:
        """Open a handle to this place."""
        return SqlStore(self.url, clock=clock, table=self.table, timeout=timeout, connections=connections)

    @property
    def make(self) -> Callable[[Clock], Awaitable[SqlStore]]:
        """The factory that the store checks ask for."""

        async def make(clock: Clock) -> SqlStore:
            return self.store(clock)

        return make


def engine_of(store: SqlStore) -> Engine:
    """The engine behind ``store`` in this event loop."""
    return store._pools.current()._engine


@contextmanager
def statements_of(store: SqlStore) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements (and parameters) that ``store`` sends meanwhile."""
    sent: list[tuple[str, Any]] = []

    def listen(_connection: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        sent.append((statement, values))

    engine = engine_of(store)
    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", listen)


@contextmanager
def batches_of(store: SqlStore) -> Iterator[list[Batch]]:
    """Collect the batches of writes that ``store`` sends meanwhile."""
    sent: list[Batch] = []
    batching = store._pools.current().batching
    send = batching._send

    def listen(work: Any, **options: Any) -> Any:
        sent.append(work.__self__)
        return send(work, **options)

    batching._send = listen
    try:
        yield sent
    finally:
        batching._send = send


async def execute(store: SqlStore, statement: Any, values: Any = None) -> None:
    """Execute ``statement`` behind the store's back; what it makes at first use is not made."""
    pool = store._pools.current()

    def run() -> None:
        with pool._engine.connect() as connection:
            connection.execute(statement, values)

    await pool._off_the_loop(run)


def give(store: SqlStore, seconds: float) -> None:
    """Have the calls of ``store`` last at most so long from now on."""
    pool = store._pools.current()
    pool._timeout = pool.batching._timeout = seconds


async def stored(store: SqlStore, clock: ManualClock, many: int) -> list[Record]:
    """Create ``many`` records."""
    records = [new_record(clock, payload=b"old") for _ in range(many)]
    assert all(await asyncio.gather(*map(store.create, records)))
    return records


async def outcomes_of(*calls: Any) -> list[Any]:
    """What each of ``calls`` gave or raised."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


@asynccontextmanager
async def rival(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection of somebody else's, in a transaction that is undone at the end."""
    engine = create_async_engine(sql_urls.driver_url(url)[0])
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()
    await engine.dispose()
