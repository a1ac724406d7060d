"""Bounding the wait for a store, and noticing when it stops answering and when it answers again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eyewall.core.events import EventKind, EventStream, logger
from eyewall.errors import DamagedRecordError, SessionError, StoreUnavailable


class StoreHealth:
    """Watches what the store answers; one event per change of state, however many requests notice.

    Args:
        events: is told of the changes.
    """

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._is_up = True

    @asynccontextmanager
    async def watching(self, patience: float) -> AsyncIterator[None]:
        """Give the calls inside ``patience`` seconds; whatever fails in the store is StoreUnavailable.

        A driver may time out, or cancel its own call; neither may end the request without an answer. Only
        a cancellation of the request's own task goes on as one.
        """
        scope = asyncio.timeout(patience)
        try:
            async with scope:
                yield
        except (StoreUnavailable, TimeoutError, OSError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _own_task_is_cancelled():
                raise
            unavailable = _as_unavailable(error, f"{patience:.3g} s" if scope.expired() else "")
            self.failed(unavailable)
            raise unavailable from None
        if not self._is_up:
            self._is_up = True
            self._events.emit(EventKind.STORE_BACK)

    def failed(self, error: StoreUnavailable) -> None:
        """Note that the store did not answer."""
        if self._is_up:
            self._is_up = False
            self._events.emit(EventKind.STORE_DOWN, detail=str(error))


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
