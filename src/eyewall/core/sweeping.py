"""Sweeping: removing expired records a bounded batch at a time, beside the serving of requests."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final

from eyewall.core.events import EventKind, EventStream, logger
from eyewall.core.record import Record
from eyewall.core.store import Clock, Store
from eyewall.errors import DamagedRecordError, StoreUnavailable

BATCH: Final = 1000
"""Most records one batch removes; small enough that no request waits for it noticeably."""

LEASE: Final = hashlib.sha256(b"eyewall: the process that sweeps").digest()
"""Digest of the record that says that somebody sweeps; what is hashed for it is no session ID."""

_TERM: Final = timedelta(minutes=2)
_INTERVAL: Final = timedelta(minutes=1)
_LONGEST: Final = timedelta(seconds=30)
_WHILE_BEHIND: Final = timedelta(seconds=1)


class Sweeper:
    """Starts batches: about once a minute, once a second while it is behind.

    One process at a time sweeps; they elect it through the store. Saving a session nudges the sweeper, and
    from the first save on a timer does so too, so that records also go where visitors only read. Processes
    started together do not sweep together.

    Args:
        store: what is swept.
        clock: returns the current time (UTC).
        spawn: runs a batch as a task that is not lost.
        events: hears how many went.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        events: EventStream,
    ) -> None:
        self._events = events
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._due_at = clock() + _jittered(_INTERVAL)
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[Any] | None = None
        self._stopped = False
        self._elected_until = clock()

    def nudge(self) -> None:
        """Start a batch if one is due, and see to it that the timer runs on this event loop."""
        loop = asyncio.get_running_loop()
        if self._timer_loop is not loop:
            self._timer_loop = loop
            self._timer = None  # one of another loop is not ours to touch
            self._set_timer(_jittered(_INTERVAL))
        if self.is_due():
            self._spawn(self.sweep_once())

    def is_due(self) -> bool:
        """Whether a batch should be started now; says so once per batch."""
        now = self._clock()
        if now < self._due_at:
            return False
        self._due_at = now + _jittered(_INTERVAL)
        return True

    async def sweep_once(self) -> None:
        """Remove one batch; come back soon when there was more."""
        if self._sweeping is not None:
            return  # the last one still waits for the store
        self._sweeping = asyncio.current_task()
        try:
            async with asyncio.timeout(_LONGEST.total_seconds()):
                if not await self._is_elected():
                    return
                removed = await self._store.sweep(self._clock(), BATCH)
        except (StoreUnavailable, TimeoutError) as error:
            logger.debug("sweep put off: %s", error)
            return
        except Exception:  # noqa: BLE001 - sweeping is nobody's request: nobody else would report it
            logger.exception("a sweep failed in a way it should not")
            return
        finally:
            self._sweeping = None
        if removed:
            self._events.emit(EventKind.EXPIRED, detail=f"{removed} expired records removed")
        if removed >= BATCH:
            self._due_at = self._clock() + _WHILE_BEHIND
            self._set_timer(_WHILE_BEHIND)

    async def _is_elected(self) -> bool:
        """Whether this process is the one that sweeps.

        Who can create the lease is, until the lease expires; a process that dies is followed by another.
        Should two of them clear away an expired lease at the same moment, both sweep for a while, which
        does no harm.
        """
        now = self._clock()
        if now < self._elected_until:
            return True
        lease = _lease(now)
        elected = await self._store.create(lease)
        if not elected and await self._is_vacant():
            await self._store.delete(LEASE)
            elected = await self._store.create(lease)
        if elected:
            self._elected_until = lease.expires_at
        return elected

    async def _is_vacant(self) -> bool:
        try:
            return await self._store.load(LEASE) is None
        except DamagedRecordError:
            return True

    def stop(self) -> None:
        """Start no more batches."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._stopped = True

    def _set_timer(self, delay: timedelta) -> None:
        # A timer, not a sleeping task: one that is pending when the loop ends is simply dropped.
        if self._timer is not None:
            self._timer.cancel()
        if not self._stopped:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay.total_seconds(), self._wake)

    def _wake(self) -> None:
        self._set_timer(_jittered(_INTERVAL))
        if self.is_due():
            self._spawn(self.sweep_once())


def _lease(now: datetime) -> Record:
    # Its own successor: as the marker of a regenerated ID it can never be taken for a session.
    return Record(
        digest=LEASE,
        version=1,
        payload=b"",
        created_at=now,
        seen_at=now,
        expires_at=now + _TERM,
        successor=LEASE,
    )


def _jittered(interval: timedelta) -> timedelta:
    return interval * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret
