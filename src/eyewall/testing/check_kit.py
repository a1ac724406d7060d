"""What the store checks share: opening handles, making records, saying which promise broke."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from eyewall.core.record import Record
from eyewall.core.store import Clock, PrincipalIndex, Scan, Store, utc_now
from eyewall.testing.clock import ManualClock

T = TypeVar("T")

MakeStore = Callable[[Clock], Awaitable[Store]]
"""Opens one more handle to the same place, using the given clock. The check closes it."""

Plant = Callable[[bytes, bytes], Awaitable[None]]
"""``plant(digest, blob)`` overwrites what is stored for ``digest``, behind the store's back."""

Check = Callable[[MakeStore], Coroutine[Any, Any, None]]
DamageCheck = Callable[[MakeStore, Plant], Coroutine[Any, Any, None]]

LIFETIME: Final = timedelta(hours=1)
"""How long the records of the checks live, unless a check says otherwise."""


@runtime_checkable
class IndexedStore(Store, PrincipalIndex, Protocol):
    """A store that is a :class:`~eyewall.core.store.PrincipalIndex`."""


@runtime_checkable
class ScannedStore(Store, Scan, Protocol):
    """A store that is a :class:`~eyewall.core.store.Scan`."""


def require(kept: object, promise: str) -> None:
    """Raise AssertionError with ``promise`` unless it was kept. Unlike ``assert``, survives ``-O``."""
    if not kept:
        raise AssertionError(f"broken promise: {promise}")


def clock_of_today() -> ManualClock:
    """A clock showing the real time, so that a server which expires records by itself agrees with it."""
    return ManualClock(utc_now())


def new_record(clock: Clock, **changes: Any) -> Record:
    """A record with a digest and payload nobody else has, born now, dead after :data:`LIFETIME`."""
    now = clock()
    plain = Record(
        digest=secrets.token_bytes(32),
        version=1,
        payload=secrets.token_bytes(24),
        created_at=now,
        seen_at=now,
        expires_at=now + LIFETIME,
    )
    return msgspec.structs.replace(plain, **changes)


def next_version(record: Record, **changes: Any) -> Record:
    """What a caller hands to ``replace`` after loading ``record``: version + 1, by default a new payload."""
    defaults: dict[str, Any] = {"version": record.version + 1, "payload": secrets.token_bytes(24)}
    return msgspec.structs.replace(record, **(defaults | changes))


@asynccontextmanager
async def opened(make: MakeStore, clock: Clock) -> AsyncIterator[Store]:
    """A handle that is closed when the check is over."""
    store = await make(clock)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_index(make: MakeStore, clock: Clock) -> AsyncIterator[IndexedStore]:
    """A handle that must also be a PrincipalIndex."""
    async with opened(make, clock) as store:
        require(isinstance(store, IndexedStore), f"{type(store).__name__} should be a PrincipalIndex")
        yield cast(IndexedStore, store)


@asynccontextmanager
async def opened_scan(make: MakeStore, clock: Clock) -> AsyncIterator[ScannedStore]:
    """A handle that must also be a Scan."""
    async with opened(make, clock) as store:
        require(isinstance(store, ScannedStore), f"{type(store).__name__} should be a Scan")
        yield cast(ScannedStore, store)


async def created(store: Store, *records: Record) -> None:
    """Create all ``records``, which must be possible."""
    for record in records:
        require(await store.create(record), "create returns True for a free digest")


async def after_turns(turns: int, call: Awaitable[T]) -> T:
    """Await ``call`` after ``turns`` turns of the event loop: one way to vary an interleaving."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return await call


async def cancelled_midway(call: Coroutine[Any, Any, object], chance: random.Random) -> None:
    """Start ``call``, cancel it somewhere on its way, and wait until it is over."""
    task = asyncio.ensure_future(call)
    await after_turns(chance.randrange(6), asyncio.sleep(chance.choice((0, 0, chance.random() / 500))))
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise AssertionError(f"broken promise: a cancelled call raised {outcome!r}") from outcome
