"""Writing records: compare-and-swap, merge on conflict, delete wins.

All concurrency between requests, processes and machines is decided with nothing but the six verbs of the
store contract:

- a change is computed from a record and swapped in only if the record's version is still the same; on a
  conflict the newer record is loaded and the change is computed again from it;
- changes that wait for each other in one process are written together, in the order they came: a hundred
  requests of one page on one session cost a handful of writes, not a hundred rounds of conflict;
- a record that is gone stays gone: the change fails with SessionEndedError;
- a new ID and the end follow the same rules; they are one layer below (:mod:`eyewall.core.moving`). How
  records are read and made is two layers below (:mod:`eyewall.core.stored_sessions`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from eyewall.core.ids import new_session_id
from eyewall.core.moving import Moving
from eyewall.core.payload import Payload, empty_payload
from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, Store
from eyewall.core.stored_sessions import MOST_CONFLICTS, TOO_CONTESTED, Issued, Limits, Step, Stored
from eyewall.core.timeouts import Timeouts
from eyewall.errors import SessionTooLargeError, StoreUnavailable

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class _Change:
    """One request's change that waits to be written, together with others."""

    __slots__ = ("_broken", "_future", "_result", "_step")

    def __init__(self, step: Step) -> None:
        self._step = step
        self._result: Stored | BaseException | None = None
        self._future: asyncio.Future[None] | None = None
        self._broken = False

    def applied_to(self, payload: Payload) -> Payload:
        """Return what the step makes of ``payload``; one that raises changes nothing, and fails alone."""
        try:
            changed = self._step(payload)
        except Exception as error:  # noqa: BLE001 - raised again where the change was asked for
            self._result, self._broken = error, True
            return payload
        self._broken = False
        return changed

    def succeed(self, stored: Stored) -> None:
        """Note what is stored now."""
        if not self._broken:
            self._result = stored
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Note that nothing was acknowledged."""
        self._result = error
        self._wake()

    def is_given_up(self) -> bool:
        """Whether nobody waits for it any more: then it must not happen behind their back."""
        return self._future is not None and self._future.cancelled()

    async def wait(self) -> Stored:
        """Wait for another task to write it."""
        self._future = asyncio.get_running_loop().create_future()
        await self._future
        return self.outcome()

    def outcome(self) -> Stored:
        """Return what is stored, or raise what went wrong."""
        if isinstance(self._result, tuple):
            return self._result
        raise self._result or StoreUnavailable("nothing was written")

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Writer(Moving):
    """Carries out changes on the records of one store.

    Args:
        store: where the records are.
        timeouts: decide when what is written expires.
        clock: returns the current time (UTC).
        limits: how large and how slow it may get.
        spawn: runs a coroutine as a task that is not lost.
    """

    def __init__(self, store: Store, timeouts: Timeouts, clock: Clock, limits: Limits, spawn: Spawn) -> None:
        super().__init__(store, timeouts, clock, limits, spawn)
        self._queues: dict[bytes, list[_Change]] = {}

    async def create(self, step: Step, device: Device | None = None) -> Issued:
        """Start a session, on ``device``."""
        payload = step(empty_payload())
        for _ in range(3):
            session_id = new_session_id()
            record = self._first(session_id, payload, self._clock(), device)
            if await self._store.create(record):
                return Issued(session_id, record, payload)
        raise StoreUnavailable("the store says of three fresh 256-bit digests that they are taken")

    async def create_as(self, session_id: str, step: Step, device: Device | None) -> Issued | None:
        """Start a session under an ID that was derived rather than drawn; None when it is taken.

        Only for IDs that nobody can guess and that several processes must arrive at independently.
        """
        payload = step(empty_payload())
        record = self._first(session_id, payload, self._clock(), device)
        created = await self._store.create(record)
        return Issued(session_id, record, payload) if created else None

    async def change(
        self, record: Record, payload: Payload, step: Step, changed: Payload | None = None
    ) -> Stored:
        """Swap in what ``step`` makes of the session; returns what is stored then.

        Args:
            record: the session as it is known.
            payload: what is in it.
            step: the change.
            changed: what ``step`` makes of ``payload``, if somebody has computed it already.

        Raises:
            SessionEndedError: the record is gone.
        """
        digest = record.digest
        queue = self._queues.get(digest)
        if queue is not None:  # somebody is writing this session: be part of the next write
            change = _Change(step)
            queue.append(change)
            return await change.wait()
        self._queues[digest] = []
        try:  # nearly every change is alone, and its first attempt succeeds
            changed = step(payload) if changed is None else changed
            if changed is payload:
                return record, payload
            successor = self._next(record, changed)
            if await self._store.replace(successor, version=record.version):
                return successor, changed
            return await self._swap(step, await self._reload(digest, conflicts=0), conflicts=1)
        finally:
            self._serve_queue(digest)

    async def _swap(self, step: Step, current: Stored, conflicts: int = 0) -> Stored:
        """Write what ``step`` makes of ``current`` by compare-and-swap; starts over from the newer record."""
        while conflicts < MOST_CONFLICTS:
            record, payload = current
            changed = step(payload)
            if changed is payload:
                return current
            successor = self._next(record, changed)
            if await self._store.replace(successor, version=record.version):
                return successor, changed
            current = await self._reload(record.digest, conflicts)
            conflicts += 1
        raise StoreUnavailable(TOO_CONTESTED)

    def _serve_queue(self, digest: bytes) -> None:
        changes = self._queues.pop(digest)
        if changes:
            self._queues[digest] = []
            self._spawn(self._write_queued(digest, changes))

    async def _write_queued(self, digest: bytes, changes: list[_Change]) -> None:
        changes = [change for change in changes if not change.is_given_up()]
        try:
            async with asyncio.timeout(self._limits.patience):
                await self._write_together(digest, changes)
        except SessionTooLargeError:
            for change in changes:  # together they do not fit; alone most of them may
                await self._write_alone(digest, change)
        except TimeoutError:
            for change in changes:
                change.fail(StoreUnavailable("the store did not answer"))
        except Exception as error:  # noqa: BLE001 - each of those who wait raises it as their own
            for change in changes:
                change.fail(error)
        finally:
            self._serve_queue(digest)

    async def _write_together(self, digest: bytes, changes: list[_Change]) -> None:
        """Write all ``changes``, in the order they came, in one compare-and-swap."""

        def step(payload: Payload) -> Payload:
            for change in changes:
                payload = change.applied_to(payload)
            return payload

        stored = await self._swap(step, await self._reload(digest, conflicts=0))
        for change in changes:
            change.succeed(stored)

    async def _write_alone(self, digest: bytes, change: _Change) -> None:
        try:
            await self._write_together(digest, [change])
        except Exception as error:  # noqa: BLE001 - as above
            change.fail(error)
