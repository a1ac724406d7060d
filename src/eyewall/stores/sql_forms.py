"""How each kind of database takes writes: a lone one, and many that travel together.

- SQLite: statement after statement in one transaction. Going to the thread, beginning and committing cost
  more than the statements.
- PostgreSQL: one prepared statement, executed for each row, all in one round trip and one transaction.
- MariaDB, MySQL: the rows are locked and looked at, then those that are as expected are changed, with one
  statement each. New rows need no look: one INSERT stores all of them or none.

On the servers a batch does not wait for a row that somebody else has locked: it passes it by, and that
write goes alone. So batches make no deadlocks, and a row that is held for long delays its own visitor only.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Final

from sqlalchemy import Connection, Table, select
from sqlalchemy.sql.dml import Delete, Update, UpdateBase
from sqlalchemy.util import await_

from eyewall.core.record import FORMAT_VERSION
from eyewall.stores.sql_calls import UNTOUCHED, codes_of
from eyewall.stores.sql_urls import ASYNCPG, SQLITE, Driver
from eyewall.stores.sql_write_batching import MOST_BYTES
from eyewall.stores.sql_writing import Answers, Form, Write

TAKEN: Final = "1062"
"""MySQL's number for a digest that is there already. INSERT IGNORE would swallow every other error too."""

ONLY_ALONE: Final = re.compile("2[23]...|1062|1064|1264|1366|1406")
"""The codes that say: some of these data cannot be stored, or break a constraint (PostgreSQL's classes 22 and
23, MySQL's numbers); or that the server does not know SKIP LOCKED yet (1064: before MariaDB 10.6, MySQL 8.0).
Nothing of the batch is stored then, and each write has to go alone."""


def form_of(driver: Driver, table: Table) -> Form:
    """Return how the database behind ``driver`` takes writes into ``table``."""
    if driver is SQLITE:
        return SqliteForm()
    return PostgresForm() if driver is ASYNCPG else MysqlForm(table)


class SqliteForm:
    """See :class:`~eyewall.stores.sql_writing.Form`. Straight to ``sqlite3``.

    Batches are small. After each statement the thread waits for Python's lock, up to 5 ms when the event loop
    is busy, and all the while other processes wait for SQLite's. Sixteen save nearly all there is to save.
    """

    mixes_verbs = True
    most = 16

    def many_of(self, statement: UpdateBase, _table: Table) -> UpdateBase:
        """See :meth:`~eyewall.stores.sql_writing.Form.many_of`. The same statements."""
        return statement

    def one(self, connection: Connection, write: Write) -> bool:
        """See :meth:`~eyewall.stores.sql_writing.Form.one`."""
        return _executed(_driver_of(connection), write)

    def many(self, connection: Connection, writes: list[Write]) -> Answers:
        """See :meth:`~eyewall.stores.sql_writing.Form.many`.

        IMMEDIATE: whoever waits for the lock waits here, and never between two statements.
        """
        driver = _driver_of(connection)
        driver.execute("BEGIN IMMEDIATE")
        try:
            answers: Answers = [_executed(driver, write) for write in writes]
            driver.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            if not _is_ones_own(error):
                raise
            return [None] * len(writes)
        finally:
            if driver.in_transaction:
                driver.execute("ROLLBACK")
        return answers


def _is_ones_own(error: Exception) -> bool:
    """Tell whether one write of a batch may be to blame: also a large one, when the disk is nearly full."""
    full = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return full or isinstance(error, sqlite3.DataError | sqlite3.IntegrityError | OverflowError)


def _executed(driver: sqlite3.Connection, write: Write) -> bool:
    text = write.verb.one
    return driver.execute(text.sql, text.arguments(write.values)).rowcount == 1


class PostgresForm:
    """See :class:`~eyewall.stores.sql_writing.Form`. Straight to asyncpg, which keeps statements prepared."""

    mixes_verbs = False
    most = 64

    def many_of(self, statement: UpdateBase, table: Table) -> UpdateBase:
        """See :meth:`~eyewall.stores.sql_writing.Form.many_of`.

        It passes locked rows by, and returns the digests of those that it changed. The conditions are asked
        on both sides of locking, so what somebody changes in between counts.
        """
        if isinstance(statement, Update | Delete) and statement.whereclause is not None:
            free = select(table.c.digest).where(statement.whereclause).with_for_update(skip_locked=True)
            statement = statement.where(table.c.digest == free.scalar_subquery())
        return statement.returning(table.c.digest)

    def one(self, connection: Connection, write: Write) -> bool:
        """See :meth:`~eyewall.stores.sql_writing.Form.one`."""
        text = write.verb.one
        status: str = await_(_driver_of(connection).execute(text.sql, *text.arguments(write.values)))
        return status.endswith(" 1")

    def many(self, connection: Connection, writes: list[Write]) -> Answers:
        """See :meth:`~eyewall.stores.sql_writing.Form.many`."""
        text = writes[0].verb.many
        rows = [text.arguments(write.values) for write in writes]
        try:
            changed = {row[0] for row in await_(_driver_of(connection).fetchmany(text.sql, rows))}
        except Exception as error:
            if _is_undone(error):
                return [None] * len(writes)
            raise
        # A row that did not change was locked, or was not as expected: only alone one can tell.
        return [write.digest in changed or None for write in writes]


class MysqlForm:
    """See :class:`~eyewall.stores.sql_writing.Form`. Straight to asyncmy.

    asyncmy sends text, and takes long to put parameters into it. All values here are whole numbers and bytes,
    which need no escaping when they are written as numbers and in hexadecimal.

    Args:
        table: the store's; its name has been checked, so it is safe to write into statements.
    """

    mixes_verbs = False
    most = 64

    def __init__(self, table: Table) -> None:
        self._name = table.name
        self._columns = table.c.keys()

    def many_of(self, statement: UpdateBase, _table: Table) -> UpdateBase:
        """See :meth:`~eyewall.stores.sql_writing.Form.many_of`. A batch has statements of its own."""
        return statement

    def one(self, connection: Connection, write: Write) -> bool:
        """See :meth:`~eyewall.stores.sql_writing.Form.one`."""
        text = write.verb.one
        cursor, values = _driver_of(connection).cursor(), text.arguments(write.values)
        if any(isinstance(value, bytes) and len(value) > MOST_BYTES for value in values):
            sending = cursor.execute(text.sql, values)  # in hexadecimal it might not fit into a packet
        else:
            sending = cursor.execute(text.sql % tuple(map(_literal, values)))
        try:
            changed: int = await_(sending)
        except Exception as error:
            if TAKEN in codes_of(error):
                return False
            raise
        return changed == 1

    def many(self, connection: Connection, writes: list[Write]) -> Answers:
        """See :meth:`~eyewall.stores.sql_writing.Form.many`."""
        driver = _driver_of(connection)
        store = self._create if writes[0].verb.columns == self._columns else self._change
        try:
            return await_(store(driver, writes))
        except Exception as error:
            if not _is_undone(error):
                raise
            await_(driver.rollback())
            return [None] * len(writes)

    async def _create(self, driver: Any, writes: list[Write]) -> Answers:
        rows = (f"({','.join(_literals(write, self._columns))})" for write in writes)
        await driver.cursor().execute(
            f"INSERT INTO {self._name} ({','.join(self._columns)}) VALUES {','.join(rows)}"  # noqa: S608
        )
        return [True] * len(writes)

    async def _change(self, driver: Any, writes: list[Write]) -> Answers:
        await driver.begin()
        found = await self._locked(driver, [write.digest for write in writes])
        fit = [write for write in writes if _is_as_expected(write, found.get(write.digest))]
        if fit:
            await driver.cursor().execute(self._statement(fit))
        await driver.commit()
        changed = {write.digest for write in fit}
        return [write.digest in changed or None for write in writes]

    async def _locked(self, driver: Any, digests: list[bytes]) -> dict[bytes, Any]:
        """Lock the rows that are free. Naming the index keeps small tables from being locked as a whole."""
        cursor = driver.cursor()
        await cursor.execute(
            f"SELECT digest, version, expires_at, format FROM {self._name} FORCE INDEX (PRIMARY) "  # noqa: S608
            f"WHERE digest IN ({','.join(map(_literal, digests))}) FOR UPDATE SKIP LOCKED"
        )
        return {row[0]: row[1:] for row in await cursor.fetchall()}

    def _statement(self, writes: list[Write]) -> str:
        digests = [_literal(write.digest) for write in writes]
        if writes[0].verb.removes:
            # A DELETE takes no index's name, and of a small table would lock every row. A join looks each up.
            gone = " UNION ALL ".join(f"SELECT {digest} AS digest" for digest in digests)
            return (
                f"DELETE {self._name} FROM ({gone}) AS gone STRAIGHT_JOIN {self._name} FORCE INDEX (PRIMARY) "
                f"ON {self._name}.digest = gone.digest"
            )
        columns = writes[0].verb.columns
        rows = [_literals(write, columns) for write in writes]
        changes = [
            f"{column}=CASE digest {' '.join(map('WHEN {} THEN {}'.format, digests, values))} END"
            for column, values in zip(columns, zip(*rows, strict=True), strict=True)
        ]
        return (
            f"UPDATE {self._name} FORCE INDEX (PRIMARY) SET {','.join(changes)} "  # noqa: S608
            f"WHERE digest IN ({','.join(digests)})"
        )


def _is_as_expected(write: Write, found: Any) -> bool:
    if found is None:
        return False
    if write.verb.removes:
        return True
    version, expires_at, layout = found
    expected = write.values.get("expected", version)  # a touch expects no version
    return bool(version == expected and expires_at > write.values["now"] and layout == FORMAT_VERSION)


def _literals(write: Write, columns: Any) -> list[str]:
    return [_literal(write.values[column]) for column in columns]


def _literal(value: bytes | int | None) -> str:
    if value is None:
        return "NULL"
    return f"x'{value.hex()}'" if isinstance(value, bytes) else str(int(value))


def _is_undone(error: Exception) -> bool:
    """Tell whether the database has said that nothing was done, and that each may work alone."""
    codes = codes_of(error)
    return bool(UNTOUCHED & codes) or any(map(ONLY_ALONE.fullmatch, codes))


def _driver_of(connection: Connection) -> Any:
    return connection.connection.driver_connection
