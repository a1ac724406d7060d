"""Calls to MongoDB from one event loop: a deadline for each, and shared loads. Knows no driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any, Final, Generic, TypeVar

from eyewall.errors import StoreUnavailable

T = TypeVar("T")
Document = dict[str, Any]
Found = dict[str, Document]
Wanted = dict[str, list[asyncio.Future[Document | None]]]

ASKED_PER_COMMAND: Final = 256


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
        """Await ``work`` until the deadline; a cancelled caller leaves it to its end. See :meth:`settle`.

        Raises:
            StoreUnavailable: no answer in time, or the driver's error.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.settle(answer, work)
        return await answer

    def settle(self, answer: asyncio.Future[T], work: Coroutine[Any, Any, T]) -> None:
        """Begin ``work`` and give ``answer`` its result, or else StoreUnavailable, by the deadline.

        Who cancels ``answer`` leaves the call to its end, so a write is never torn off and the connection
        stays good. At the deadline the call is cancelled, which discards its connection, but not awaited: a
        driver waiting for a hung server need not notice soon.
        """
        task = self.start(work)
        deadline = task.get_loop().call_later(self._timeout, self._give_up, task, answer)
        task.add_done_callback(partial(self._tell, answer, deadline))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin ``work`` without a deadline; nobody need await the task."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self) -> None:
        """Wait, no longer than one call may take, for the calls under way and those that they lead to."""
        await asyncio.sleep(0)  # what this turn has gathered begins now
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while self._running:
                    await asyncio.wait(self._running)

    def failure(self, error: BaseException) -> BaseException:
        """Return what a caller is told of ``error``: StoreUnavailable, if the driver raised it."""
        if not isinstance(error, self._driver_errors):
            return error
        unavailable = StoreUnavailable(f"MongoDB at {self._place}: {named(error)}")
        unavailable.__cause__ = error
        return unavailable

    def _give_up(self, task: asyncio.Task[T], answer: asyncio.Future[T]) -> None:
        task.cancel()
        if not answer.done():
            late = f"MongoDB at {self._place} did not answer within {self._timeout:g} s"
            answer.set_exception(StoreUnavailable(late))

    def _tell(self, answer: asyncio.Future[T], deadline: asyncio.TimerHandle, task: asyncio.Task[T]) -> None:
        deadline.cancel()
        if answer.done():
            return
        if task.cancelled():
            answer.set_exception(StoreUnavailable(f"a call to MongoDB at {self._place} was abandoned"))
        elif (error := task.exception()) is not None:
            answer.set_exception(self.failure(error))
        else:
            answer.set_result(task.result())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: the error of an abandoned call concerns nobody


class Turn(Generic[T]):
    """Gathers what is asked for in one turn of the event loop, to be sent together.

    Args:
        send: takes what was gathered, at most ``ASKED_PER_COMMAND`` at a time.
    """

    def __init__(self, send: Callable[[list[T]], None]) -> None:
        self._send = send
        self._gathered: list[T] = []

    def add(self, asked: T) -> None:
        """Add one to those of this turn."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._end)  # comes after all that is ready in this turn
        self._gathered.append(asked)

    def _end(self) -> None:
        gathered, self._gathered = self._gathered, []
        for start in range(0, len(gathered), ASKED_PER_COMMAND):
            self._send(gathered[start : start + ASKED_PER_COMMAND])


class Loads:
    """Collects the loads of one turn of the event loop into one query; each caller awaits its own future.

    Args:
        calls: runs the queries.
        read: returns what it found of the given keys, by key.
    """

    def __init__(self, calls: Calls, read: Callable[[list[str]], Coroutine[Any, Any, Found]]) -> None:
        self._calls = calls
        self._read = read
        self._turn: Turn[tuple[str, asyncio.Future[Document | None]]] = Turn(self._send)

    def fetch(self, key: str) -> asyncio.Future[Document | None]:
        """Return a future of the document of ``key``, or of None.

        It may be cancelled without harm to others that wait for the same query.
        """
        answer: asyncio.Future[Document | None] = asyncio.get_running_loop().create_future()
        self._turn.add((key, answer))
        return answer

    def _send(self, asked: list[tuple[str, asyncio.Future[Document | None]]]) -> None:
        wanted: Wanted = {}
        for key, answer in asked:
            wanted.setdefault(key, []).append(answer)
        told: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        told.add_done_callback(partial(_hand_out, wanted))
        self._calls.settle(told, self._read(list(wanted)))


def _hand_out(wanted: Wanted, told: asyncio.Future[Found]) -> None:
    error = told.exception()
    for key, answers in wanted.items():
        if error is not None:
            fail(answers, error)
            continue
        found = told.result().get(key)
        for answer in answers:
            if not answer.done():
                answer.set_result(found)


def fail(answers: Iterable[asyncio.Future[Any]], error: BaseException) -> None:
    """Raise ``error`` in every caller: a copy in each, or their tracebacks would grow into one."""
    for answer in answers:
        if not answer.done():
            answer.set_exception(copy(error))


def named(error: BaseException) -> str:
    """Name an error by class and code; its text may quote documents or the whole topology."""
    code = getattr(error, "code", None)
    return type(error).__name__ if code is None else f"{type(error).__name__}, code {code}"
