"""A memory store whose n-th call goes wrong, in each of the ways in which a real store's call goes wrong."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from eyewall.core.record import Record
from eyewall.errors import StoreUnavailable
from eyewall.stores.memory import MemoryStore

T = TypeVar("T")


class Fault(enum.Enum):
    """What happens to the call; with "on", to every call after it as well, until the store is mended."""

    REFUSED = "refused"
    REPLY_LOST = "it ran, its reply was lost"
    HUNG = "it never ran and never returns"
    REPLY_HUNG = "it ran and never returns"
    CANCELLED = "its driver cancels it"
    CANCELLED_AFTER = "it ran, and its driver cancels it"
    REFUSED_ON = "refused from now on"
    HUNG_ON = "hung from now on"


_RUNS_FIRST = frozenset({Fault.REPLY_LOST, Fault.REPLY_HUNG, Fault.CANCELLED_AFTER})
_STAYS = frozenset({Fault.REFUSED_ON, Fault.HUNG_ON})


class FailingStore(MemoryStore):
    """Counts the calls of requests (sweeping is not one) and breaks the n-th."""

    def __init__(self) -> None:
        super().__init__()
        self._fault: Fault | None = None
        self._left = self._armed = 0
        self._mended = asyncio.Event()

    def arm(self, fault: Fault, number: int) -> None:
        """Break the call ``number`` from here, counted from 1."""
        self._fault, self._left, self._armed = fault, number, number
        self._mended = asyncio.Event()

    def calls_since_armed(self) -> int:
        """Return how many calls there were since :meth:`arm`."""
        return self._armed - self._left

    def mend(self) -> bool:
        """Work again; return whether anything was broken."""
        was_reached = self._fault is not None and self._left <= 0
        self._fault = None
        self._mended.set()
        return was_reached

    async def _call(self, run: Callable[[], Awaitable[T]]) -> T:
        fault = self._next_fault()
        if fault is None:
            return await run()
        if fault in _RUNS_FIRST:
            await run()
        match fault:
            case Fault.REFUSED | Fault.REPLY_LOST | Fault.REFUSED_ON:
                raise StoreUnavailable("injected")
            case Fault.CANCELLED | Fault.CANCELLED_AFTER:
                raise asyncio.CancelledError
        await self._mended.wait()
        raise StoreUnavailable("injected, and nobody waits for it any more")

    def _next_fault(self) -> Fault | None:
        if self._fault is None:
            return None
        self._left -= 1
        broken = self._left == 0 or (self._left < 0 and self._fault in _STAYS)
        return self._fault if broken else None

    async def create(self, record: Record) -> bool:
        return await self._call(lambda: super(FailingStore, self).create(record))

    async def load(self, digest: bytes) -> Record | None:
        return await self._call(lambda: super(FailingStore, self).load(digest))

    async def replace(self, record: Record, *, version: int) -> bool:
        return await self._call(lambda: super(FailingStore, self).replace(record, version=version))

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        return await self._call(lambda: super(FailingStore, self).touch(digest, seen_at, expires_at))

    async def delete(self, digest: bytes) -> bool:
        return await self._call(lambda: super(FailingStore, self).delete(digest))

    async def find_principal(self, principal: str) -> list[Record]:
        return await self._call(lambda: super(FailingStore, self).find_principal(principal))

    async def delete_principal(self, principal: str) -> int:
        return await self._call(lambda: super(FailingStore, self).delete_principal(principal))

    async def live(self) -> AsyncIterator[Record]:
        """Yield every live session; markers of old IDs and remember tokens are none."""
        async for record in self.scan():
            if record.successor is None:
                yield record
