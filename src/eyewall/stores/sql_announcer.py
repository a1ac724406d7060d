"""Announcements by way of PostgreSQL: NOTIFY and LISTEN.

The channel is made from the table's name and its schema, as the connection's ``search_path`` finds it, and
channels are apart for each database; so those hear each other who share a table. Messages travel as base64,
because PostgreSQL carries text without NUL.

Whoever listens needs a connection of its own to the primary server. A pooler between (PgBouncer) must hand
out connections for a whole session, not for a transaction: in between it would drop what is to be heard.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy import URL, Executable, text
from sqlalchemy.util import greenlet_spawn

from eyewall.core.announcing import Listener, Listening, require_sendable
from eyewall.stores import listening
from eyewall.stores.listening import Ear, Listenings
from eyewall.stores.sql_urls import Driver

_CHANNEL: Final = """
'eyewall_' || left(encode(sha256(convert_to(
    coalesce(
        (SELECT relnamespace::regnamespace::text FROM pg_class
            WHERE oid = to_regclass(quote_ident('{table}'))),
        quote_ident(current_schema()), ''
    ) || '.{table}', 'UTF8')), 'hex'), 40)
"""
"""An expression in SQL; a table's name is letters, digits and ``_``, so it needs no quoting."""

Execute = Callable[[Executable, dict[str, Any]], Awaitable[object]]


class SqlAnnouncer:
    """See :class:`eyewall.core.announcing.Announcer`.

    Args:
        url: the store's, as :func:`~eyewall.stores.sql_urls.driver_url` returns it.
        driver: the one of ``url``: asyncpg.
        table: the table's name.
        timeout: longest wait for a connection, and for an answer to LISTEN (seconds).
        execute: executes a statement over the store's connections.
    """

    def __init__(self, url: URL, driver: Driver, *, table: str, timeout: float, execute: Execute) -> None:
        self._url = url
        self._driver = driver
        self._timeout = timeout
        self._execute = execute
        self._channel = _CHANNEL.format(table=table)
        self._notify = text(f"SELECT pg_notify({self._channel}, :message)")
        self._listenings = Listenings()

    async def announce(self, message: bytes) -> None:
        """See :meth:`eyewall.core.announcing.Announcer.announce`."""
        require_sendable(message)
        await self._execute(self._notify, {"message": b64encode(message).decode()})

    def listen(self, listener: Listener) -> Listening:
        """See :meth:`eyewall.core.announcing.Announcer.listen`."""
        return self._listenings.begin(listener, self._attend)

    async def close(self) -> None:
        """End what listens on the running event loop."""
        await self._listenings.close()

    async def _attend(self, ear: Ear) -> None:
        connection = await self._connect()
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _connection: gone.set())
        try:
            await _finished(connection, self._subscribe(connection, ear), self._timeout)
            ear.connected()
            await _until_gone(connection, gone)
        finally:
            connection.terminate()
            await asyncio.sleep(0)  # the socket closes in the event loop's next turn

    async def _connect(self) -> Any:
        """Return one of asyncpg's connections, made with the store's settings, through no pool."""
        kind = self._url.get_dialect()
        dialect = kind(dbapi=kind.import_dbapi())  # type: ignore[call-arg]
        arguments, options = dialect.create_connect_args(self._url)
        options[self._driver.connect_seconds] = self._timeout
        connection: Any = await greenlet_spawn(dialect.connect, *arguments, **options)
        return connection.driver_connection

    async def _subscribe(self, connection: Any, ear: Ear) -> None:
        channel = await connection.fetchval(f"SELECT {self._channel}")

        def notified(_connection: object, _process: int, _channel: str, message: str) -> None:
            try:
                ear.heard(b64decode(message, validate=True))
            except (binascii.Error, ValueError):
                return  # a stranger's

        await connection.add_listener(channel, notified)


async def _until_gone(connection: Any, gone: asyncio.Event) -> None:
    """Wait until the connection has ended, asking now and then whether it really is still there.

    Raises:
        ConnectionError: it has ended.
        TimeoutError: the server does not answer.
    """
    while True:
        try:
            await asyncio.wait_for(gone.wait(), listening.ASK_SECONDS)
        except TimeoutError:
            await _finished(connection, connection.fetchval("SELECT 1"), listening.SILENCE_SECONDS)
        else:
            raise ConnectionError("the connection was closed")


async def _finished(connection: Any, call: Awaitable[None], seconds: float) -> None:
    """Await ``call``; when time is over, or we are cancelled, it ends with its connection.

    To cancel it would make asyncpg open another connection, only to tell a server that may hang.

    Raises:
        TimeoutError: it did not finish within ``seconds``.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds:g} s")
    finally:
        if not task.done():
            connection.terminate()
        await asyncio.gather(task, return_exceptions=True)
    task.result()
