"""Records in this process's memory: for development, tests and one-process services.

Everything is gone when the process ends, and no other process sees it. The store is bounded, because
strangers decide how many sessions there are. When it is full it drops, in this order: dead records, then
the anonymous record unused for longest. It never drops a signed-in one, so a flood of visitors signs
nobody out. Use one store from one event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import msgspec

from eyewall.core.announcing import Announcer
from eyewall.core.record import Record
from eyewall.core.store import Clock, utc_now
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.stores.local_announcer import LocalAnnouncer

if TYPE_CHECKING:
    from eyewall.settings import Settings

SWEPT_PER_CREATE: Final = 10
"""Dead records dropped at each create: more than come in, so the store cleans itself without a timer."""

BATCH: Final = 200
"""Records handled before other tasks get their turn: a few milliseconds at most."""


class MemoryStore:
    """Keeps records in memory; also a ``PrincipalIndex`` and a ``Scan``.

    Args:
        clock: returns the current time (aware, UTC).
        max_records: how many records it holds at most, dead ones included.

    Raises:
        ConfigurationError: ``max_records`` is less than 1.
    """

    longest_wait = 0.0  # it never waits

    def __init__(self, *, clock: Clock = utc_now, max_records: int = 100_000) -> None:
        if max_records < 1:
            raise ConfigurationError(
                f"max_records is {max_records}; the memory store needs room for 1 at least"
            )
        self._clock = clock
        self._max_records = max_records
        # Both in the order of last use, oldest first: finding whom to drop takes one step.
        self._anonymous: OrderedDict[bytes, Record] = OrderedDict()
        self._signed_in: OrderedDict[bytes, Record] = OrderedDict()
        self._by_principal: dict[str, set[bytes]] = {}
        self._by_end: list[tuple[datetime, bytes]] = []  # sorted
        self._announcer = LocalAnnouncer()

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock) -> MemoryStore:  # noqa: ARG003 - all stores alike
        """Make the store that ``settings`` ask for; it needs none of them."""
        return cls(clock=clock)

    def __len__(self) -> int:
        """How many records are there, dead ones included."""
        return len(self._by_end)

    async def check(self) -> None:
        """See :meth:`eyewall.core.store.SelfCheck.check`. Nothing can be wrong with it."""

    async def create(self, record: Record) -> bool:
        """See :meth:`eyewall.core.store.Store.create`.

        Raises:
            StoreUnavailable: ``max_records`` records are there and all of them are signed in.
        """
        if self._there(record.digest) is not None:
            return False
        self._drop_due(self._clock(), SWEPT_PER_CREATE)
        self._make_room()
        self._put(record)
        return True

    async def load(self, digest: bytes) -> Record | None:
        """See :meth:`eyewall.core.store.Store.load`."""
        shelf = self._anonymous if digest in self._anonymous else self._signed_in
        record = shelf.get(digest)
        if record is None or record.expires_at <= self._clock():
            return None
        shelf.move_to_end(digest)
        return record

    async def replace(self, record: Record, *, version: int) -> bool:
        """See :meth:`eyewall.core.store.Store.replace`."""
        old = self._live(record.digest)
        if old is None or old.version != version:
            return False
        self._drop(old)
        self._put(record)
        return True

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """See :meth:`eyewall.core.store.Store.touch`."""
        old = self._live(digest)
        if old is None:
            return False
        self._drop(old)
        self._put(msgspec.structs.replace(old, seen_at=seen_at, expires_at=expires_at))
        return True

    async def delete(self, digest: bytes) -> bool:
        """See :meth:`eyewall.core.store.Store.delete`."""
        record = self._there(digest)
        if record is None:
            return False
        self._drop(record)
        return True

    async def sweep(self, now: datetime, limit: int) -> int:
        """See :meth:`eyewall.core.store.Store.sweep`."""
        went = 0
        while went < limit:
            batch = self._drop_due(now, min(BATCH, limit - went))
            if batch == 0:
                break
            went += batch
            await asyncio.sleep(0)
        return went

    async def close(self) -> None:
        """End what listens; the records stay until the store itself goes."""
        await self._announcer.close()

    def announcer(self) -> Announcer:
        """See :meth:`eyewall.core.announcing.Announcing.announcer`. It is heard in this process."""
        return self._announcer

    async def find_principal(self, principal: str) -> list[Record]:
        """See :meth:`eyewall.core.store.PrincipalIndex.find_principal`."""
        return [record async for record in self._records_of(principal) if self._is_live(record)]

    async def delete_principal(self, principal: str) -> int:
        """See :meth:`eyewall.core.store.PrincipalIndex.delete_principal`."""
        deleted = 0
        async for record in self._records_of(principal):
            self._drop(record)
            deleted += 1
        return deleted

    async def scan(self) -> AsyncIterator[Record]:
        """See :meth:`eyewall.core.store.Scan.scan`."""
        async for record in self._in_batches([digest for _, digest in self._by_end]):
            if self._is_live(record):
                yield record

    async def _records_of(self, principal: str) -> AsyncIterator[Record]:
        async for record in self._in_batches(list(self._by_principal.get(principal, ()))):
            if record.principal == principal:  # it may have changed meanwhile
                yield record

    async def _in_batches(self, digests: list[bytes]) -> AsyncIterator[Record]:
        """Yield the records still there, letting other tasks run now and then."""
        for count, digest in enumerate(digests, 1):
            record = self._there(digest)
            if record is not None:
                yield record
            if count % BATCH == 0:
                await asyncio.sleep(0)

    def _there(self, digest: bytes) -> Record | None:
        return self._anonymous.get(digest) or self._signed_in.get(digest)

    def _live(self, digest: bytes) -> Record | None:
        record = self._there(digest)
        return record if record is not None and self._is_live(record) else None

    def _is_live(self, record: Record) -> bool:
        return record.expires_at > self._clock()

    def _shelf(self, record: Record) -> OrderedDict[bytes, Record]:
        # A record that is its own successor is no visitor's: a counter or a lock; no flood may push it out.
        is_anonymous = record.principal is None and record.successor != record.digest
        return self._anonymous if is_anonymous else self._signed_in

    def _put(self, record: Record) -> None:
        self._shelf(record)[record.digest] = record
        insort(self._by_end, (record.expires_at, record.digest))
        if record.principal is not None:
            self._by_principal.setdefault(record.principal, set()).add(record.digest)

    def _drop(self, record: Record) -> None:
        del self._by_end[bisect_left(self._by_end, (record.expires_at, record.digest))]
        self._forget(record)

    def _forget(self, record: Record) -> None:
        """Take ``record`` out of everything but the order of ends."""
        del self._shelf(record)[record.digest]
        if record.principal is None:
            return
        digests = self._by_principal[record.principal]
        digests.remove(record.digest)
        if not digests:
            del self._by_principal[record.principal]

    def _drop_due(self, now: datetime, limit: int) -> int:
        """Drop at most ``limit`` records that are dead at ``now``; return how many."""
        due = min(bisect_right(self._by_end, now, key=itemgetter(0)), limit)
        for _, digest in self._by_end[:due]:
            self._forget(self._anonymous.get(digest) or self._signed_in[digest])
        del self._by_end[:due]
        return due

    def _make_room(self) -> None:
        if len(self) < self._max_records:
            return
        if not self._anonymous:
            raise StoreUnavailable(
                f"the memory store is full: max_records={self._max_records} signed-in sessions; "
                "raise max_records or choose a store outside the process"
            )
        self._drop(next(iter(self._anonymous.values())))
