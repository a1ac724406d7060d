"""Bounding the wait for a store, and noticing when it stops answering and when it answers again."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from eyewall.core.deadlines import Deadline, Deadlines
from eyewall.core.events import EventKind, EventStream, logger
from eyewall.errors import DamagedRecordError, SessionError, StoreUnavailable

FAILED_READS: Final = 5
"""After so many loads in a row have failed, the store is left alone for a moment."""

LEFT_ALONE: Final = 0.5
"""Seconds for which it is left alone: few, because it may be back, and every request is refused meanwhile."""


class StoreHealth:
    """Watches what the store answers; one event per change of state, however many requests notice.

    Args:
        events: is told of the changes.
    """

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self.is_failing = False
        """Whether its last answer was a failure. Nearly never, so nothing else is asked before each call."""
        self._is_up = True
        self._failed_reads = 0
        self._ask_at = 0.0
        self.left_alone = LEFT_ALONE
        self.deadlines = Deadlines()

    def watching(self, patience: float | None, *, reading: bool = False) -> _Watching:
        """Give the calls inside ``with`` this ``patience`` (seconds); what fails is StoreUnavailable.

        None is for what ends in time by itself; what is returned then may be used again and again.

        A store that fails to read again and again is dead: for a moment it is not asked at all, then by one
        request, and by all when that one was answered. So nobody waits for what others have waited for in
        vain, and the store is not held under while it comes up.

        A driver may time out, or cancel its own call; neither may end the request without an answer. Only
        a cancellation of the request's own task goes on as one.
        """
        return _Watching(self, patience, reading)

    def admit(self, *, reading: bool) -> None:
        """Let a call go to the store, or raise StoreUnavailable at once while the store is left alone."""
        if self._failed_reads < FAILED_READS:
            return
        now = monotonic()
        if now < self._ask_at:
            raise StoreUnavailable("the store has just failed several times; it is asked again in a moment")
        if reading:  # others may have nothing to ask, and would use up the one question
            self._ask_at = now + self.left_alone  # this one finds out; if it hangs, another one later

    def answered(self) -> None:
        """Note that the store answers."""
        self.is_failing = False
        self._failed_reads = 0
        if not self._is_up:
            self._is_up = True
            self._events.emit(EventKind.STORE_BACK)

    def failed(self, error: StoreUnavailable, *, reading: bool) -> None:
        """Note that the store did not answer."""
        self.is_failing = True
        if reading:  # one that is full reads all the same, and must go on doing so
            self._failed_reads += 1
            self._ask_at = monotonic() + self.left_alone
        if self._is_up:
            self._is_up = False
            self._events.emit(EventKind.STORE_DOWN, detail=str(error))


class _Watching(Deadline):
    """The wait for one store call; a class, because a generator with a context manager inside costs more."""

    __slots__ = ("_health", "_patience", "_reading")

    # By position: Python makes a dict of the keywords that a class is called with, and takes it apart.
    def __init__(self, health: StoreHealth, patience: float | None, reading: bool) -> None:  # noqa: FBT001
        self._health = health
        self._patience = patience
        self._reading = reading

    def __enter__(self) -> None:
        health = self._health
        if health.is_failing:
            health.admit(reading=self._reading)
        if self._patience is not None:
            health.deadlines.begin(self, self._patience)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        health = self._health
        expired = self._patience is not None and health.deadlines.end(self, error)
        if error is None and not expired:
            if health.is_failing and self._reading:  # what saves may have had nothing to ask the store
                health.answered()
        elif isinstance(error, StoreUnavailable | TimeoutError | OSError | asyncio.CancelledError):
            self._fail(error, expired=expired)

    # For an ``async with`` that has more to wait for.

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _fail(self, error: BaseException, *, expired: bool) -> None:
        if isinstance(error, asyncio.CancelledError) and _own_task_is_cancelled():
            return  # goes on
        waited = f"{self._patience:.3g} s" if expired and self._patience is not None else ""
        unavailable = _as_unavailable(error, waited)
        self._health.failed(unavailable, reading=self._reading)
        raise unavailable from None


def as_store_failure(error: Exception) -> StoreUnavailable:
    """Return what an unexpected error of a store means to a request: that the store does not work.

    The bug behind it is logged with its traceback.
    """
    if not isinstance(error, StoreUnavailable | SessionError | DamagedRecordError):
        logger.error("the store failed in a way it should not", exc_info=error)
    return StoreUnavailable(f"the store failed: {type(error).__name__}")


def _as_unavailable(error: BaseException, waited: str) -> StoreUnavailable:
    if waited:
        return StoreUnavailable(f"the store did not answer within {waited}")
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnavailable(f"the store failed: {type(error).__name__}: {error}")


def _own_task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
