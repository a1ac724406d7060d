"""The SQL store: SQLite, PostgreSQL, MySQL and MariaDB (extras ``sqlite``, ``postgres``, ``mysql``).

Each verb is one statement whose WHERE clause carries the whole promise. The rest of the store lies in other
files beside this one:

- ``sql_urls``: the URLs people write, and our driver for each kind of database
- ``sql_schema``: the table; record to row and back
- ``sql_statements``: the statements
- ``sql_batching``: loads of one turn of the event loop travel together
- ``sql_writing``, ``sql_forms`` and ``sql_write_batching``: so do writes
- ``sql_connections`` and ``sql_calls``: pools, deadlines, retries
- ``sql_announcer``: telling every process something (PostgreSQL)
- ``sql_startup``: what to say when a setting is wrong
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Executable, MetaData

from eyewall.core.announcing import Announcer
from eyewall.core.record import Record
from eyewall.core.store import Clock, utc_now
from eyewall.errors import ConfigurationError, DamagedRecordError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.sql_announcer import SqlAnnouncer
from eyewall.stores.sql_batching import Batching, Row, padded
from eyewall.stores.sql_connections import Pool, Pools, create_missing
from eyewall.stores.sql_forms import form_of
from eyewall.stores.sql_schema import (
    DEFAULT_TABLE,
    principal_digest,
    session_table,
    to_micros,
    to_record,
    to_row,
)
from eyewall.stores.sql_startup import explained
from eyewall.stores.sql_statements import Statements
from eyewall.stores.sql_urls import ASYNCPG, driver_url
from eyewall.stores.sql_writing import Values, Verb, Verbs

SWEEP_STEP: Final = 500
"""Rows that go in one statement of a sweep. SQLite's other writers wait that long: milliseconds."""

SCAN_STEP: Final = 200
"""Rows that a scan reads at once."""

SCHEMA_SECONDS: Final = 30.0
"""The deadline of :meth:`SqlStore.create_schema`."""


class SqlStore:
    """Keeps records in one table of a relational database.

    The table is made at the first call if it is not there; several processes may start at once. Where the
    database user may not do that, apply :func:`~eyewall.stores.sql_schema.schema_sql`, or let Alembic
    make it from :attr:`metadata`.

    A call lasts at most ``timeout``, also when the database hangs. Calls that can be done twice without
    harm are repeated once or twice on a fresh connection when theirs is lost; deadlocks and serialization
    failures are repeated always.

    SQLite runs in threads, with a write-ahead log; its file is made readable for its owner only. A crash
    of the process loses nothing; a power failure may undo the last changes before it, sign-outs included.

    Args:
        url: ``sqlite:///relative``, ``sqlite:////absolute``, ``postgresql://``, ``postgres://``,
            ``mysql://`` or ``mariadb://``; see :func:`~eyewall.stores.sql_urls.driver_url`.
        clock: the current time.
        table: the table's name: up to 40 ASCII letters, digits and ``_``.
        timeout: seconds that a call may last.
        connections: how many there may be, per process and event loop.

    Raises:
        ConfigurationError: an argument is wrong; nothing has been connected to yet, see :meth:`check`.
        MissingDriverError: the database's driver is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = utc_now,
        table: str = DEFAULT_TABLE,
        timeout: float = 1.0,
        connections: int = 5,
    ) -> None:
        if timeout <= 0 or connections < 1:
            raise ConfigurationError("timeout must be more than 0 seconds, connections at least 1")
        database, driver = driver_url(url)
        self.metadata: Final = MetaData()
        """Holds the table, for migration tools."""
        self._clock = clock
        sessions = session_table(self.metadata, table)
        self._sql = Statements(sessions, database.get_backend_name())
        self._verbs = Verbs(self._sql, sessions, database.get_dialect()(), form_of(driver, sessions))
        self._pools = Pools(lambda: Pool(database, driver, self.metadata, timeout=timeout, size=connections))
        self._batching = Batching(self._fetch)
        self._announcer = None
        if driver is ASYNCPG:
            self._announcer = SqlAnnouncer(
                database, driver, table=table, timeout=timeout, execute=self._change
            )

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock = utc_now) -> SqlStore:
        """Make the store that ``settings.url`` names, with ``settings.store_timeout`` as its deadline.

        Raises:
            ConfigurationError: ``settings.url`` is missing or cannot be used.
            MissingDriverError: the database's driver is not installed.
        """
        if settings.url is None:
            raise ConfigurationError("the database backend needs a URL, e.g. sqlite:///sessions.db")
        return cls(settings.url, clock=clock, timeout=settings.store_timeout.total_seconds())

    # The six verbs

    async def create(self, record: Record) -> bool:
        """See :meth:`eyewall.core.store.Store.create`."""
        return await self._write(self._verbs.create, record.digest, to_row(record))

    async def load(self, digest: bytes) -> Record | None:
        """See :meth:`eyewall.core.store.Store.load`."""
        record = await self._batching.load(digest)
        return record if record is not None and record.expires_at > self._clock() else None

    async def replace(self, record: Record, *, version: int) -> bool:
        """See :meth:`eyewall.core.store.Store.replace`."""
        values = to_row(record)
        values["expected"], values["now"] = version, self._now()
        return await self._write(self._verbs.replace, record.digest, values)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """See :meth:`eyewall.core.store.Store.touch`."""
        values = {"seen_at": to_micros(seen_at), "expires_at": to_micros(expires_at), "now": self._now()}
        return await self._write(self._verbs.touch, digest, values)

    async def delete(self, digest: bytes) -> bool:
        """See :meth:`eyewall.core.store.Store.delete`.

        When the connection is lost while it is under way and the repetition finds nothing more to delete,
        it returns False.
        """
        return await self._write(self._verbs.delete, digest, {})

    async def sweep(self, now: datetime, limit: int) -> int:
        """See :meth:`eyewall.core.store.Store.sweep`. Goes in steps, between which others get their turn."""
        gone = 0
        while gone < limit:
            step = min(SWEEP_STEP, limit - gone)
            went = await self._change(self._sql.sweep, {"now": to_micros(now), "limit": step})
            gone += went
            if went < step:
                break
        return gone

    # PrincipalIndex and Scan

    async def find_principal(self, principal: str) -> list[Record]:
        """See :meth:`eyewall.core.store.PrincipalIndex.find_principal`."""
        values = {"principal_digest": principal_digest(principal), "now": self._now()}
        return list(_undamaged(await self._select(self._sql.find_principal, values)))

    async def delete_principal(self, principal: str) -> int:
        """See :meth:`eyewall.core.store.PrincipalIndex.delete_principal`."""
        return await self._change(
            self._sql.delete_principal, {"principal_digest": principal_digest(principal)}
        )

    async def scan(self) -> AsyncIterator[Record]:
        """See :meth:`eyewall.core.store.Scan.scan`. Walks by digest; between its steps it holds nothing."""
        after = b""
        while True:
            values = {"after": after, "now": self._now(), "limit": SCAN_STEP}
            rows = await self._select(self._sql.scan, values)
            for record in _undamaged(rows):
                yield record
            if len(rows) < SCAN_STEP:
                return
            after = rows[-1][0]

    def announcer(self) -> Announcer | None:
        """See :meth:`eyewall.core.announcing.Announcing.announcer`. PostgreSQL has one."""
        return self._announcer

    # From start to end

    async def check(self) -> None:
        """Connect, and see that the table is there and of our layout. Meant for the start.

        Raises:
            ConfigurationError: the host's name, the user, the password, the database or the table is
                wrong; one line, without the password.
            StoreUnavailable: nothing answers, which may pass.
        """
        try:
            await self._select(self._sql.probe, {})
        except StoreUnavailable as error:
            raise explained(error) from error.__cause__

    async def create_schema(self) -> None:
        """Make the table and its indexes, as far as they are not there. May run in many processes at once.

        Raises:
            ConfigurationError, StoreUnavailable: as :meth:`check`.
        """
        try:
            await self._pools.current().write(
                partial(create_missing, self.metadata), repeatable=True, timeout=SCHEMA_SECONDS
            )
        except StoreUnavailable as error:
            raise explained(error) from error.__cause__

    async def close(self) -> None:
        """See :meth:`eyewall.core.store.Store.close`. Closes what the running event loop uses."""
        if self._announcer is not None:
            await self._announcer.close()
        await self._pools.close()

    def _now(self) -> int:
        return to_micros(self._clock())

    def _fetch(self, digests: list[bytes]) -> asyncio.Future[list[Row]]:
        if len(digests) == 1:
            return self._select(self._sql.load, {"wanted": digests[0]})
        return self._select(self._sql.load_many, {"wanted": padded(digests)})

    def _select(self, statement: Executable, values: dict[str, Any]) -> asyncio.Future[list[Row]]:
        return self._pools.current().read(partial(_rows, statement, values))

    def _change(self, statement: Executable, values: dict[str, Any]) -> asyncio.Future[int]:
        return self._pools.current().write(partial(_count, statement, values), repeatable=True)

    def _write(self, verb: Verb, digest: bytes, values: Values) -> asyncio.Future[bool]:
        values["wanted"] = digest
        return self._pools.current().batching.write(verb, values)


def _rows(statement: Executable, values: dict[str, Any], connection: Connection) -> list[Row]:
    return list(connection.execute(statement, values))


def _count(statement: Executable, values: dict[str, Any], connection: Connection) -> int:
    return connection.execute(statement, values).rowcount


def _undamaged(rows: Iterable[Row]) -> Iterator[Record]:
    for row in rows:
        try:
            yield to_record(row)
        except DamagedRecordError:
            continue
