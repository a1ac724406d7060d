"""Threads for hashing passwords: few at work, not many waiting, and none after a fork.

A hash takes tens of milliseconds and as many megabytes, on purpose. On the event loop it would hold up
everybody; without bounds, a stranger who posts the sign-in form a thousand times would take all memory.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from eyewall.errors import ConfigurationError, TooBusyError

_T = TypeVar("_T")


class HashingThreads:
    """Runs functions in threads of its own, a bounded number at once.

    One object may serve several event loops. After a fork the child gets threads of its own.

    Args:
        at_once: how many run at the same time; the memory needed is that many times one hash's.
        most_waiting: how many more may wait for their turn.

    Raises:
        ConfigurationError: ``at_once`` is below 1, or ``most_waiting`` below 0.
    """

    def __init__(self, *, at_once: int, most_waiting: int) -> None:
        if at_once < 1 or most_waiting < 0:
            raise ConfigurationError(
                f"at_once must be 1 or more and most_waiting 0 or more, not {at_once} and {most_waiting}"
            )
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._crew: _Crew | None = None

    async def run(self, function: Callable[[], _T]) -> _T:
        """Return what ``function()`` returns, or raise what it raises; it runs in a thread.

        Raises:
            TooBusyError: as many as may wait are waiting.
        """
        return await asyncio.wrap_future(self._own_crew().submit(function))

    def close(self) -> None:
        """Let the threads end after what they are at; who waits is cancelled. Later calls start new ones."""
        with self._lock:
            crew, self._crew = self._crew, None
        if crew is not None and crew.pid == os.getpid():
            crew.executor.shutdown(wait=False, cancel_futures=True)

    def _own_crew(self) -> _Crew:
        with self._lock:
            if self._crew is None or self._crew.pid != os.getpid():
                # No thread survives a fork; the executor that came along would wait for its own for ever.
                self._crew = _Crew(self._at_once, self._most_waiting)
            return self._crew


class _Crew:
    """The threads of one process, and how much more they take on."""

    def __init__(self, at_once: int, most_waiting: int) -> None:
        self.pid: Final = os.getpid()
        self.executor: Final = ThreadPoolExecutor(at_once, thread_name_prefix="eyewall-passwords")
        self._room = threading.BoundedSemaphore(at_once + most_waiting)

    def submit(self, function: Callable[[], _T]) -> Future[_T]:
        if not self._room.acquire(blocking=False):
            raise TooBusyError("too many passwords wait to be hashed; try again in a moment")
        try:
            future = self.executor.submit(function)
        except RuntimeError:  # closed meanwhile, or the interpreter ends
            self._room.release()
            raise TooBusyError("passwords are no longer hashed: the threads were just closed") from None
        # The future is done, also when its caller gave up, only once its thread is free again.
        future.add_done_callback(lambda _: self._room.release())
        return future
