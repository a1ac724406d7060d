"""Sweeping: removing expired records a bounded batch at a time, beside the serving of requests."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final

from eyewall.core.events import logger
from eyewall.core.store import Clock, Store
from eyewall.errors import StoreUnavailable

BATCH: Final = 1000
"""Most records one batch removes; small enough that no request waits for it noticeably."""

_INTERVAL: Final = timedelta(minutes=1)
_WHILE_BEHIND: Final = timedelta(seconds=1)


class Sweeper:
    """Decides when the next batch is due. Saving a session nudges it, so an idle application does nothing.

    Args:
        store: what is swept.
        clock: returns the current time (UTC).
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._due_at = clock() + self._jittered()

    def is_due(self) -> bool:
        """Whether a batch should be started now; says so once per batch."""
        now = self._clock()
        if now < self._due_at:
            return False
        self._due_at = now + self._jittered()
        return True

    async def sweep_once(self) -> None:
        """Remove one batch; come back soon when there was more."""
        try:
            removed = await self._store.sweep(self._clock(), BATCH)
        except StoreUnavailable as error:
            logger.debug("sweep put off: %s", error)
            return
        if removed >= BATCH:
            self._due_at = self._clock() + _WHILE_BEHIND

    def _jittered(self) -> timedelta:
        # Processes started together must not sweep together.
        return _INTERVAL * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret
