"""Locks that all processes share: in the store that they share already, and in nothing else.

A lock is a side record that says who holds it and until when, taken by compare-and-swap. A process that dies
while it holds one is waited for no longer than its lease. Those of one process queue up in memory first, so
that the store sees one contender per process and not one per request.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from eyewall.core.record import Instant
from eyewall.core.side_records import Kept, SideRecords
from eyewall.core.store import Clock, Store
from eyewall.core.writer import Spawn
from eyewall.errors import StoreUnavailable

LEASE: Final = timedelta(seconds=8)
"""For how long others leave a lock to whoever has taken it, should it never be given back."""

LONGEST_HOLD: Final = 5.0
"""Seconds after which a holder is stopped. What is left of its lease covers clocks that differ, and a write
that is still on its way."""

_KEPT: Final = timedelta(days=30)
"""How long the record of a lock stays after its last use.

Long, because clearing an expired one away is the one moment at which two processes could both get in; after
this time no session is left that the lock could have been about.
"""

_NOBODY: Final = b""
_LONGEST_PAUSE: Final = 0.05
_PAUSES: Final = (0.0, 0.3, 1.0)


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """Who holds a lock.

    Args:
        holder: random bytes of the holder's, or empty when it was given back.
        until: when it counts as given back in any case (UTC).
    """

    holder: bytes
    until: Instant


class SharedLocks:
    """Locks by name; one holder at a time, among all processes on one store.

    Args:
        store: keeps them.
        clock: returns the current time (UTC); the clocks of all processes agree to a few seconds.
        kind: tells these from other side records; a constant of the calling code.
        spawn: runs a coroutine as a task that is not lost, and is awaited before ``store`` is closed: it
            gives back the lock of somebody who was cancelled.
        patience: longest that somebody waits for a lock (seconds).
    """

    def __init__(self, store: Store, clock: Clock, kind: str, *, spawn: Spawn, patience: float = 2.0) -> None:
        self._leases = SideRecords(store, clock, kind, Lease)
        self._clock = clock
        self._patience = patience
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._spawn = spawn

    @asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[None]:
        """Hold the lock ``name`` meanwhile.

        Raises:
            StoreUnavailable: it was not to be had within ``patience``, or was held for longer than
                :data:`LONGEST_HOLD`; the work under it has been cancelled then.
        """
        holder = secrets.token_bytes(16)
        turn = self._turns.setdefault(name, asyncio.Lock())
        limit = asyncio.timeout(self._patience)
        try:
            async with limit, turn:
                try:
                    await self._take(name, holder)
                    limit.reschedule(asyncio.get_running_loop().time() + LONGEST_HOLD)
                    yield
                    await self._give_back(name, holder)
                except BaseException:
                    # Nobody waits any more, or what they wait for has failed; and it may have been taken
                    # although nobody said so.
                    self._spawn(self._give_back(name, holder))
                    raise
        except TimeoutError:
            if not limit.expired():
                raise
            raise StoreUnavailable("a lock that all processes share was not to be had in time") from None

    async def _take(self, name: str, holder: bytes) -> None:
        attempt = 0
        while not await self._is_taken(name, holder):
            # Those who try again together would get into each other's way together.
            longest = min(_LONGEST_PAUSE, 0.002 * 2 ** min(attempt, 10))
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - not a secret
            attempt += 1

    async def _is_taken(self, name: str, holder: bytes) -> bool:
        def take(lease: Lease | None) -> Kept[Lease] | None:
            now = self._clock()
            if lease is not None and lease.holder not in (_NOBODY, holder) and now < lease.until:
                return None
            return self._kept(holder, now + LEASE)

        lease = await self._leases.update(name, take)
        return lease is not None and lease.holder == holder

    async def _give_back(self, name: str, holder: bytes) -> None:
        def give_back(lease: Lease | None) -> Kept[Lease] | None:
            if lease is None or lease.holder != holder:
                return None
            return self._kept(_NOBODY, self._clock())

        # If it cannot be given back, its lease runs out; what was done under it is done. But a store that has
        # failed once may answer the second time, and then nobody waits for the lease.
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(self._patience):
                    await self._leases.update(name, give_back)
                return

    def _kept(self, holder: bytes, until: Instant) -> Kept[Lease]:
        return Kept(Lease(holder, until), self._clock() + _KEPT)
