"""Calls to MongoDB from one event loop: a deadline for each, and shared loads. Knows no driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from copy import copy
from typing import Any, Final, TypeVar

from eyewall.errors import StoreUnavailable

T = TypeVar("T")
Document = dict[str, Any]
Answer = asyncio.Future[Document | None]
Found = dict[str, Document]
Wanted = dict[str, list[Answer]]

LOADS_PER_QUERY: Final = 256


class Calls:
    """Runs calls in tasks of their own, so that a deadline holds whatever the driver does.

    Args:
        place: hosts of the server, for messages.
        timeout: seconds for each call.
        driver_errors: what the driver may raise; becomes StoreUnavailable.
    """

    def __init__(self, place: str, timeout: float, driver_errors: tuple[type[Exception], ...]) -> None:
        self._place = place
        self._timeout = timeout
        self._driver_errors = driver_errors
        self._running: set[asyncio.Task[Any]] = set()

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` until the deadline.

        A cancelled caller leaves the call to its end, so a write is never torn off and the connection stays
        good. At the deadline the call is cancelled, which discards its connection, but not awaited: a driver
        waiting for a hung server need not notice soon.

        Raises:
            StoreUnavailable: no answer in time, or the driver's error.
        """
        task = self.start(work)
        await asyncio.wait({task}, timeout=self._timeout)
        if not task.done():
            task.cancel()
            raise StoreUnavailable(f"MongoDB at {self._place} did not answer within {self._timeout:g} s")
        try:
            return task.result()
        except asyncio.CancelledError:
            raise StoreUnavailable(f"a call to MongoDB at {self._place} was abandoned") from None
        except self._driver_errors as error:
            raise StoreUnavailable(f"MongoDB at {self._place}: {named(error)}") from error

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin ``work`` without a deadline; nobody need await the task."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self) -> None:
        """Wait, no longer than one call may take, for the calls under way."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._timeout)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: the error of an abandoned call concerns nobody


class Loads:
    """Collects the loads of one turn of the event loop into one query; each caller awaits its own future.

    Args:
        calls: runs the queries.
        read: returns what it found of the given keys, by key.
    """

    def __init__(self, calls: Calls, read: Callable[[list[str]], Coroutine[Any, Any, Found]]) -> None:
        self._calls = calls
        self._read = read
        self._wanted: Wanted = {}

    def fetch(self, key: str) -> Answer:
        """Return a future of the document of ``key``, or of None.

        It may be cancelled without harm to others that wait for the same query.
        """
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        if not self._wanted:
            loop.call_soon(self._send)  # comes after all that is ready in this turn
        self._wanted.setdefault(key, []).append(answer)
        return answer

    def _send(self) -> None:
        wanted = list(self._wanted.items())
        self._wanted = {}
        for start in range(0, len(wanted), LOADS_PER_QUERY):
            self._calls.start(self._answer(dict(wanted[start : start + LOADS_PER_QUERY])))

    async def _answer(self, wanted: Wanted) -> None:
        try:
            found = await self._calls.finish(self._read(list(wanted)))
        except Exception as error:  # noqa: BLE001 - raised in the callers, who would hang without an answer
            _fail(wanted, error)
        else:
            _satisfy(wanted, found)


def _satisfy(wanted: Wanted, found: Found) -> None:
    for key, answers in wanted.items():
        for answer in answers:
            if not answer.done():
                answer.set_result(found.get(key))


def _fail(wanted: Wanted, error: Exception) -> None:
    """Raise ``error`` in every caller: a copy in each, or their tracebacks would grow into one."""
    for answers in wanted.values():
        for answer in answers:
            if not answer.done():
                answer.set_exception(copy(error))


def named(error: BaseException) -> str:
    """Name an error by class and code; its text may quote documents or the whole topology."""
    code = getattr(error, "code", None)
    return type(error).__name__ if code is None else f"{type(error).__name__}, code {code}"
