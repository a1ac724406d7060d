"""One call to the database, which is over at its deadline whatever the database does.

A server that hangs answers nothing, also not to a polite request to cancel: drivers that are cancelled
wait for just that (asyncpg under ``wait_for`` was still waiting after 15 seconds). So the work is a task
of its own, on a connection of its own; at the deadline the caller gets its answer, the connection's
socket is dropped, and the task is left to find out. (SQLite's thread cannot be stopped. It ends by
itself, because SQLite waits for a lock no longer than it is told.)

A caller that is cancelled leaves a statement under way that goes on to its end, and so a connection that
is whole. A statement that was still waiting for a connection is not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from eyewall.errors import ConfigurationError, EyewallError, StoreUnavailable
from eyewall.stores.sql_urls import Driver

T = TypeVar("T")

UNTOUCHED: Final = frozenset(
    {
        "40001",  # PostgreSQL: serialization failure
        "40P01",  # PostgreSQL: deadlock
        "53300",  # PostgreSQL: too many connections
        "57P03",  # PostgreSQL: starting up
        "1020",  # MariaDB: the row has changed since it was read
        "1040",  # MySQL: too many connections
        "1213",  # MySQL: deadlock
    }
)
"""Codes that promise that nothing was done, and that the same may work in a moment."""


class Call(Generic[T]):
    """A call in progress.

    Args:
        work: does it; sets :attr:`connection` while it holds one, and :attr:`lost` when it has lost it.
        seconds: from now to the deadline.
        driver: knows how to drop a connection.
        place: the database, for messages; without a password.
    """

    def __init__(
        self, work: Callable[[Call[T]], Coroutine[Any, Any, T]], *, seconds: float, driver: Driver, place: str
    ) -> None:
        loop = asyncio.get_running_loop()
        self.connection: Connection | None = None
        self.lost = False
        self.outcome: asyncio.Future[T] = loop.create_future()
        self.task = loop.create_task(work(self))
        self.task.add_done_callback(self._end)
        self._timer = loop.call_later(seconds, self._give_up)
        self._driver = driver
        self._place = place

    def still_wanted(self) -> None:
        """Stop here, before the statement is sent, if nobody waits for it any more.

        Else a cancelled ``create`` that had to wait for a connection could come after the ``delete`` of a
        later call.

        Raises:
            StoreUnavailable: the deadline has passed, or the caller was cancelled.
        """
        if self.outcome.done():
            raise StoreUnavailable(f"{self._place}: given up before it began")

    def _give_up(self) -> None:
        """The deadline has come."""
        if not self.outcome.done():
            self.outcome.set_exception(StoreUnavailable(f"{self._place}: did not answer in time"))
        if not self._driver.blocks:
            self._cut()
        self.task.cancel()

    def _cut(self) -> None:
        held = self.connection
        if held and not held.closed and not held.invalidated:
            self._driver.cut(held.connection.driver_connection)

    def _end(self, task: asyncio.Task[T]) -> None:
        self._timer.cancel()
        error = None if task.cancelled() else task.exception()
        if self.outcome.done():
            return
        if task.cancelled():
            self.outcome.set_exception(StoreUnavailable(f"{self._place}: the store was closed meanwhile"))
        elif error is None:
            self.outcome.set_result(task.result())
        else:
            self.outcome.set_exception(self._translated(error))

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
            return ConfigurationError(f"{self._place}: the URL has an option no driver knows: {error}")
        # Given bytes that make no sense, drivers raise whatever their parser stumbles over.
        if isinstance(error, EyewallError) or not isinstance(error, Exception):
            return error
        unavailable = StoreUnavailable(f"{self._place}: {reason_of(error)}")
        unavailable.__cause__ = error
        return unavailable


def may_repeat(error: Exception, *, lost: bool, repeatable: bool) -> bool:
    """Tell whether the work that ended with ``error`` may be done again.

    Args:
        error: what it ended with.
        lost: whether it lost its connection; what went through SQLAlchemy says so itself.
        repeatable: whether doing it twice is the same as doing it once. Only then it may be repeated
            after a lost connection, because nobody knows what the server still did.
    """
    lost = lost or (isinstance(error, DBAPIError) and error.connection_invalidated)
    return bool(UNTOUCHED & codes_of(error)) or (repeatable and lost)


def codes_of(error: BaseException) -> set[str]:
    """Return the databases' own codes (SQLSTATE, or MySQL's number) of ``error`` and its causes."""
    found: set[str] = set()
    for link in chain_of(error):
        first = link.args[0] if link.args else None
        found.update(str(code) for code in (getattr(link, "sqlstate", None), first) if code)
    return found


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield ``error`` and what caused it, as far as it goes."""
    while error is not None:
        yield error
        original = error.orig if isinstance(error, DBAPIError) else None
        error = original or error.__cause__ or error.__context__


def reason_of(error: BaseException) -> str:
    """Return in one line what the database or the system said."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig else error
    if isinstance(said, TimeoutError):
        return "did not answer in time"
    lines = str(said).splitlines()
    return lines[0] if lines else type(said).__name__
