"""Carries sessions from store to store in bounded batches, each by itself, so that it can be resumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TextIO, TypeVar, cast, runtime_checkable

import msgspec

from eyewall.cli.progress import Progress
from eyewall.core.record import Record
from eyewall.core.store import Clock, Scan, Store
from eyewall.crypto.sealer import FORMAT
from eyewall.errors import ConfigurationError, DamagedRecordError, StoreUnavailable
from eyewall.stores.migrating import Migrating, migrating

T = TypeVar("T")
Outcome = Literal["copied", "updated", "skipped"]

_SEALED: Final = f"{FORMAT}.".encode()

IN_FLIGHT: Final = 32
"""Most records under way at once; memory is bounded by as many."""


@runtime_checkable
class ScannedStore(Store, Scan, Protocol):
    """A store that can be walked over."""


@dataclass
class Tally:
    """What became of the records."""

    copied: int = 0
    updated: int = 0
    skipped: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        setattr(self, outcome, getattr(self, outcome) + 1)


class Copier:
    """Copies what one store has to another, while no site uses either.

    Args:
        source: is only read.
        target: may have some of the records already.
        clock: tells which records have died meanwhile.
    """

    def __init__(self, source: ScannedStore, target: Store, clock: Clock) -> None:
        self._source = source
        self._target = target
        self._clock = clock

    async def copy_all(self, stream: TextIO) -> Tally:
        """Copy every live record; ``stream`` shows the progress."""
        tally = Tally()
        progress = Progress("copied", await count(self._source), stream)
        async for batch in batches(self._source.scan()):
            for outcome in await each(self.copy, batch):
                tally.add(outcome)
            progress.add(len(batch))
        progress.finish()
        return tally

    async def copy(self, record: Record) -> Outcome:
        """Copy one record; leave one that is there and newer, bring one that is older up to date."""
        if await self._target.create(record):
            return "copied"
        there = await _readable(self._target, record.digest)
        if there is not None and _is_up_to_date(there, record):
            return "skipped"
        if there is not None and _differs_in_times_only(there, record):
            await self._target.touch(record.digest, record.seen_at, record.expires_at)
            return "updated"
        # Not by replace, which asks for the very next version. What is lost if we are killed between these
        # two lines is still in the source, and the next run brings it.
        await self._target.delete(record.digest)
        if not await self._target.create(record):
            raise StoreUnavailable("somebody else is writing to TO at the same time")
        return "updated"

    async def verify(self, stream: TextIO) -> tuple[int, int]:
        """Read every record back; return how many are right and how many are not."""
        right = wrong = 0
        progress = Progress("verified", await count(self._source), stream)
        async for batch in batches(self._source.scan()):
            good = sum(await each(self._has_arrived, batch))
            right, wrong = right + good, wrong + len(batch) - good
            progress.add(len(batch))
        progress.finish()
        return right, wrong

    async def _has_arrived(self, record: Record) -> bool:
        there = await _readable(self._target, record.digest)
        if there is None:
            return record.expires_at <= self._clock()
        return _is_up_to_date(there, record)

    def target_can_be_listed(self) -> bool:
        """Whether :meth:`extra` can be asked for."""
        return isinstance(self._target, Scan)

    async def extra(self, *, end: bool) -> int:
        """Return how many sessions only the target has, having ended them if told so."""
        extra = 0
        async for batch in batches(cast(ScannedStore, self._target).scan()):
            for record, there in zip(batch, await each(self._from_source, batch), strict=True):
                if there is None and record.expires_at > self._clock():
                    extra += 1
                    if end:
                        await self._target.delete(record.digest)
        return extra

    async def _from_source(self, record: Record) -> Record | None:
        return await _readable(self._source, record.digest)


class Mover:
    """Moves what is left in the old store of a site that serves both stores as one.

    Args:
        old: the store that is emptied.
        new: the store that is filled.
    """

    def __init__(self, old: ScannedStore, new: Store) -> None:
        self._old = old
        self._pair = cast(Migrating, migrating(old, new))

    async def move_all(self, stream: TextIO) -> int:
        """Move every live session, and complete moves that were interrupted; return how many were moved.

        Raises:
            ConfigurationError: the sessions are sealed, and a move would break their seals. Give stores that
                open them (``encrypted_store``) instead.
        """
        moved = 0
        walk = self._pair.scan() if isinstance(self._pair, Scan) else self._old.scan()
        progress = Progress("moved", await count(self._old), stream)
        async for batch in batches(walk):
            if any(record.payload.startswith(_SEALED) for record in batch):
                raise ConfigurationError(
                    "the sessions in FROM are sealed; set EYEWALL_ENCRYPT=true and the keys of the site for "
                    "this command too, so that it can seal them anew"
                )
            before = await each(self._is_old, batch)
            after = await each(self._settle, batch)
            arrived = sum(was_old and is_new for was_old, is_new in zip(before, after, strict=True))
            moved += arrived
            progress.add(arrived)
        progress.finish()
        return moved

    async def _is_old(self, record: Record) -> bool:
        return await _readable(self._old, record.digest) is not None

    async def _settle(self, record: Record) -> bool:
        return await self._pair.settle(record.digest)


async def batches(records: AsyncIterator[Record]) -> AsyncIterator[list[Record]]:
    """Yield ``records`` in lists of at most :data:`IN_FLIGHT`."""
    batch: list[Record] = []
    async for record in records:
        batch.append(record)
        if len(batch) == IN_FLIGHT:
            yield batch
            batch = []
    if batch:
        yield batch


async def each(work: Callable[[Record], Coroutine[Any, Any, T]], batch: list[Record]) -> list[T]:
    """Await ``work`` for all of ``batch`` at once; the first failure ends the rest."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(record)) for record in batch]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def count(store: Scan) -> int:
    """Return how many live records ``store`` has."""
    total = 0
    async for _ in store.scan():
        total += 1
    return total


async def _readable(store: Store, digest: bytes) -> Record | None:
    try:
        return await store.load(digest)
    except DamagedRecordError:
        return None


def _is_up_to_date(there: Record, record: Record) -> bool:
    return there == record or (there.version, there.seen_at) > (record.version, record.seen_at)


def _differs_in_times_only(there: Record, record: Record) -> bool:
    return msgspec.structs.replace(there, seen_at=record.seen_at, expires_at=record.expires_at) == record
