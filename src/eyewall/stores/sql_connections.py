"""Connections of the SQL store: one pool for each event loop of each process, made when first used.

Sockets, and the objects that wait on them, belong to one event loop of one process. So a pool is looked
up by both; a process that was forked, or a second loop, finds none and makes its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from eyewall.store_url import masked_url
from eyewall.stores.sql_calls import Call, may_repeat
from eyewall.stores.sql_urls import SQLITE, Driver
from eyewall.stores.sql_write_batching import WriteBatching

T = TypeVar("T")
Work = Callable[[Connection], T]

RECYCLE_SECONDS: Final = 1800
"""Connections are replaced after half an hour, before firewalls and MySQL forget about them."""

LOCK_SHARE: Final = 0.8
"""The part of the deadline that SQLite may wait for a lock: it gives up before we do."""

SWITCH_SECONDS: Final = 0.2
"""For so long a new SQLite file may be refused because others open it at the same moment."""

PAUSES: Final = (0.02, 0.1, 0.3)
"""Seconds, give or take half, before the second, third and last attempt. The deadline is for all of them."""


_to_close_before_forks: Final[WeakSet[Engine]] = WeakSet()


def _close_idle_sqlite() -> None:
    """Close SQLite's idle connections. A forked process must inherit none, not even unused ones.

    SQLite notes per process which locks it has, and the kernel does not pass them on. So the child would
    believe in locks that only its parent has. Once the parent has closed, somebody else takes away the log
    that the child still writes to, and what the child was told is stored, sign-outs included, is lost.
    """
    for engine in list(_to_close_before_forks):
        engine.dispose()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork either
    os.register_at_fork(before=_close_idle_sqlite)


class Pool:
    """The connections of one event loop. Each call is one transaction: one statement, or a batch of writes.

    Work is written as ordinary blocking code over a SQLAlchemy connection. With asyncpg and asyncmy it runs
    in a greenlet, which waits by giving way to the event loop. With SQLite, whose calls do block, it runs in
    a thread: one change of thread for a whole call, where a driver like aiosqlite makes one for each of
    its steps.

    Args:
        url: as :func:`~eyewall.stores.sql_urls.driver_url` returns it.
        driver: the one of ``url``.
        metadata: holds the table, which is made at the first call if it is not there.
        timeout: seconds that a call may last, waiting for a connection included.
        size: how many connections there may be.
    """

    def __init__(self, url: URL, driver: Driver, metadata: MetaData, *, timeout: float, size: int) -> None:
        self._engine = _engine(url, driver, timeout, size)
        self._driver = driver
        self._place = masked_url(str(url.set(drivername=url.get_backend_name())))
        self._metadata = metadata
        self._timeout = timeout
        self._ready = False
        self._calls: set[Call[Any]] = set()
        self._open: WeakSet[Any] = WeakSet()
        self._writer: AbstractAsyncContextManager[Any] = nullcontext()
        self._threads: ThreadPoolExecutor | None = None
        # Whoever waits for a connection gets the next one. SQLAlchemy's own queue lets newcomers go first: of
        # sixty writers that never rest some would wait until their deadline.
        self._room = asyncio.Semaphore(size)
        if driver.blocks:
            # SQLite lets one write at a time. Queueing for it here and not inside SQLite keeps connections
            # free for readers, who need not wait for writers, and is fair.
            self._writer = asyncio.Lock()
            self._threads = ThreadPoolExecutor(size, thread_name_prefix="eyewall-sqlite")
            event.listen(self._engine, "connect", _set_pragmas)
            _to_close_before_forks.add(self._engine)
        else:
            _watch(self._engine, driver, self._open)
        self.batching: Final = WriteBatching(self.write, timeout)
        """Where writes of single records go."""

    def read(self, work: Work[T]) -> asyncio.Future[T]:
        """Start ``work`` on a connection, again on a fresh one if that is lost; return its outcome."""
        return self._call(work, nullcontext(), repeatable=True)

    def write(
        self,
        work: Work[T],
        *,
        repeatable: bool,
        timeout: float | None = None,
        begin: Callable[[], object] | None = None,
    ) -> asyncio.Future[T]:
        """Start ``work``, which changes something; return its outcome.

        Args:
            work: what to do with the connection.
            repeatable: True when doing it twice is the same as doing it once.
            timeout: seconds, if other than the pool's.
            begin: called, on the event loop, when there is a connection for ``work``.
        """
        return self._call(work, self._writer, repeatable=repeatable, timeout=timeout, begin=begin)

    def _call(
        self,
        work: Work[T],
        turn: AbstractAsyncContextManager[Any],
        *,
        repeatable: bool,
        timeout: float | None = None,
        begin: Callable[[], object] | None = None,
    ) -> asyncio.Future[T]:
        async def attempts(call: Call[T]) -> T:
            for pause in PAUSES:
                try:
                    async with turn:
                        return await self._attempt(call, work, begin)
                except Exception as error:  # drivers raise errors of their own where SQLAlchemy is passed by
                    if not may_repeat(error, lost=call.lost, repeatable=repeatable):
                        raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            async with turn:
                return await self._attempt(call, work, begin)

        seconds = self._timeout if timeout is None else timeout
        call = Call(attempts, seconds=seconds, driver=self._driver, place=self._place)
        self._calls.add(call)
        call.task.add_done_callback(lambda _task: self._calls.discard(call))
        return call.outcome

    async def _attempt(self, call: Call[T], work: Work[T], begin: Callable[[], object] | None) -> T:
        async with self._room:
            if begin:
                begin()
            return await self._off_the_loop(partial(self._connected, call, work))

    def _off_the_loop(self, function: Callable[[], T]) -> Awaitable[T]:
        if self._threads:
            return asyncio.get_running_loop().run_in_executor(self._threads, function)
        return greenlet_spawn(function)

    def _connected(self, call: Call[T], work: Work[T]) -> T:
        if not self._ready and self._driver is SQLITE:
            _make_private(str(self._engine.url.database))
        call.lost = False
        with self._engine.connect() as connection:
            call.connection = connection
            call.still_wanted()
            if not self._ready:
                create_missing(self._metadata, connection)
                self._ready = True
            try:
                return work(connection)
            except Exception as error:
                if not self._driver.blocks:  # half an answer may still be on its way: nobody else may read it
                    call.lost = not isinstance(error, DBAPIError) and self._is_lost(connection, error)
                    connection.invalidate()
                raise

    def _is_lost(self, connection: Connection, error: Exception) -> bool:
        """Tell whether ``error``, one of the driver's own, means that ``connection`` has ended."""
        if connection.invalidated:  # SQLAlchemy has found out
            return True
        raw: Any = error
        return self._engine.dialect.is_disconnect(raw, connection.connection.dbapi_connection, None)

    async def close(self) -> None:
        """Wait for the calls under way, no longer than they may last, and hang up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while self._calls:  # what a batch could not do goes alone, by a call of its own
                    await asyncio.wait([call.task for call in self._calls])
        hanging_up = asyncio.ensure_future(self._off_the_loop(self._engine.dispose))
        await asyncio.wait([hanging_up], timeout=self._timeout)
        hanging_up.cancel()
        self.forget()

    def forget(self) -> None:
        """Drop what is left without a word, also when the event loop is closed."""
        if self._threads:
            self._threads.shutdown(wait=False)
            self._engine.dispose()
        for connection in list(self._open):
            # A closed loop refuses the driver's parting call; the socket goes with its object.
            with contextlib.suppress(RuntimeError):
                self._driver.cut(connection)


class Pools:
    """The pool of this process and this event loop.

    Args:
        make: makes a pool for the running loop.
    """

    def __init__(self, make: Callable[[], Pool]) -> None:
        self._make = make
        self._process = os.getpid()
        self._by_loop: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._inherited: list[Any] = []

    def current(self) -> Pool:
        """Return the running loop's pool."""
        if self._process != os.getpid():
            self._leave_to_parent()
        loop = asyncio.get_running_loop()
        return self._by_loop.get(loop) or self._add(loop)

    async def close(self) -> None:
        """Close the running loop's pool, if there is one, and forget those of closed loops."""
        self._forget_closed()
        if self._process == os.getpid() and (pool := self._by_loop.pop(asyncio.get_running_loop(), None)):
            await pool.close()

    def _add(self, loop: asyncio.AbstractEventLoop) -> Pool:
        self._forget_closed()
        pool = self._by_loop[loop] = self._make()
        return pool

    def _leave_to_parent(self) -> None:
        """Keep what a fork copied, untouched: tidying it up would speak on the parent's sockets."""
        self._inherited.append(self._by_loop)
        self._by_loop = {}
        self._process = os.getpid()

    def _forget_closed(self) -> None:
        for loop in [loop for loop in self._by_loop if loop.is_closed()]:
            self._by_loop.pop(loop).forget()


def _engine(url: URL, driver: Driver, timeout: float, size: int) -> Engine:
    options: dict[str, Any] = {
        "connect_args": {driver.connect_seconds: timeout * LOCK_SHARE},
        "isolation_level": "AUTOCOMMIT",
        "skip_autocommit_rollback": True,
        "pool_reset_on_return": None,
        "pool_size": size,
        "max_overflow": 0,
        "pool_timeout": timeout,
        "pool_recycle": RECYCLE_SECONDS,
        "pool_use_lifo": True,
        "hide_parameters": True,
    }
    return create_engine(url, **options) if driver.blocks else create_async_engine(url, **options).sync_engine


def _watch(engine: Engine, driver: Driver, opened: WeakSet[Any]) -> None:
    """Remember connections when they are made, and check them when they are taken from the pool."""

    @event.listens_for(engine, "connect")
    def remember(connection: Any, _record: object) -> None:
        opened.add(connection.driver_connection)

    @event.listens_for(engine, "checkout")
    def refuse_dead(connection: Any, _record: object, _proxy: object) -> None:
        if driver.has_hung_up(connection.driver_connection):
            raise DisconnectionError("the server has hung up")


def _set_pragmas(connection: Any, _record: object) -> None:
    """Write-ahead log: readers and the writer do not wait for each other.

    ``synchronous=NORMAL`` then promises: a crash of the process loses nothing; a power failure damages
    nothing, but may undo the last changes before it.
    """
    cursor = connection.cursor()
    _begin_log(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin_log(cursor: sqlite3.Cursor) -> None:
    """Switch to the write-ahead log. When two connections do so at once, SQLite refuses one and waits not.

    So we wait for it, in the thread in which the connection is opened, and never in the event loop's.
    """
    end = time.monotonic() + SWITCH_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(SWITCH_SECONDS / 20)
        else:
            return


def _make_private(path: str) -> None:
    """Make the database file for its owner alone, if it is not there. SQLite's other files follow it."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def create_missing(metadata: MetaData, connection: Connection) -> None:
    """Make what is missing. A process that does so at the same moment makes this fail; then look again."""
    for _ in range(3):
        try:
            return metadata.create_all(connection)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
    return metadata.create_all(connection)
