"""Writing records: compare-and-swap, merge on conflict, delete wins.

All concurrency between requests, processes and machines is decided here, with nothing but the six verbs
of the store contract:

- a change is computed from a record and swapped in only if the record's version is still the same; on a
  conflict the newer record is loaded and the change is computed again from it;
- changes that wait for each other in one process are written together, in the order they came: a hundred
  requests of one page on one session cost a handful of writes, not a hundred rounds of conflict;
- a record that is gone stays gone: the change fails with SessionEndedError;
- a new ID is a new record, and the old record becomes a marker by the same compare-and-swap, so that no
  change made under the old ID is lost and no old ID works a moment longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from eyewall.core.ids import digest_of, new_session_id
from eyewall.core.payload import Payload, decode_payload, empty_payload, encode_payload
from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, Store
from eyewall.core.timeouts import Timeouts
from eyewall.errors import DamagedRecordError, SessionEndedError, SessionTooLargeError, StoreUnavailable

Step = Callable[[Payload], Payload]
"""A change: given the payload as it is now, returns the payload as it is to be."""

MARKER_LIFE: Final = timedelta(minutes=1)
"""How long the marker of a regenerated ID stays.

It tells requests that were in flight under the old ID that the session moved on rather than ended, so
that they leave the browser's new cookie alone. It serves no data and opens no session.
"""

Stored = tuple[Record, Payload]
"""What a store holds: a record, and its payload decoded."""


class Limits(NamedTuple):
    """Largest payload (bytes), and seconds that a write may take which no single request waits for."""

    max_size: int
    patience: float


class Issued(NamedTuple):
    """A session under an ID that nobody has been told yet."""

    session_id: str
    record: Record
    payload: Payload


Spawn = Callable[[Coroutine[Any, Any, None]], object]

_MOST_MOVES: Final = 64
_MOST_CONFLICTS: Final = 200
_MOVED: Final = "this session was given a new ID while the request was being answered"
_TOO_CONTESTED: Final = f"{_MOST_CONFLICTS} conflicts in a row on one session"
_PATIENT_CONFLICTS: Final = 3
_PAUSES: Final = (0.0, 0.2, 1.0)


class SessionMovedError(SessionEndedError):
    """The session's ID was regenerated meanwhile: this ID has ended, the session has not."""


class _Change:
    """One request's change on its way into the store, alone or with others."""

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


class Writer:
    """Carries out changes on the records of one store.

    Args:
        store: where the records are.
        timeouts: decide when what is written expires.
        clock: returns the current time (UTC).
        limits: how large and how slow it may get.
        spawn: runs a coroutine as a task that is not lost.
    """

    def __init__(self, store: Store, timeouts: Timeouts, clock: Clock, limits: Limits, spawn: Spawn) -> None:
        self._store = store
        self._timeouts = timeouts
        self._clock = clock
        self._limits = limits
        self._spawn = spawn
        self._queues: dict[bytes, list[_Change]] = {}

    async def load(self, digest: bytes) -> Stored | None:
        """Return the live session of ``digest``, or None.

        Raises:
            DamagedRecordError: there is a record, but it is not what was written under this digest.
            SessionMovedError: the session has another ID by now.
        """
        record = await self._store.load(digest)
        if record is None or not self._timeouts.is_live(record, self._clock()):
            return None
        if record.successor is not None:
            raise SessionMovedError(_MOVED)
        return record, _payload_of(record, digest)

    async def current(self, digest: bytes) -> Stored | None:
        """Return the live session that had ``digest``, also under the ID that it may have got since.

        Raises:
            DamagedRecordError: there is a record, but it is not what was written under this digest.
        """
        for _ in range(_MOST_MOVES):
            record = await self._store.load(digest)
            if record is None or not self._timeouts.is_live(record, self._clock()):
                return None
            if record.successor is None:
                return record, _payload_of(record, digest)
            digest = record.successor
        return None

    async def live_digest(self, digest: bytes) -> bytes | None:
        """Return the digest that the live session has now which had ``digest``, or None."""
        try:
            found = await self.current(digest)
        except DamagedRecordError:
            return None
        return None if found is None else found[0].digest

    async def end(self, digest: bytes) -> list[bytes]:
        """Delete the session of ``digest``, also under the ID that it may have got meanwhile.

        Returns the digests it had.

        A sign-out beside a regeneration must end what the user sees as one session. So a live record first
        expires by compare-and-swap: whoever gives it a new ID at the same moment is either seen here, and
        followed, or fails there.
        """
        return await self._end(digest, await self._found(digest))

    async def end_record(self, record: Record) -> list[bytes]:
        """As :meth:`end`, for a session whose record was looked up just now."""
        return await self._end(record.digest, record)

    async def _end(self, digest: bytes, found: Record | None) -> list[bytes]:
        ended: list[bytes] = []
        for conflicts in range(_MOST_CONFLICTS):
            if found is None or found.successor is not None or await self._expire(found):
                await self._store.delete(digest)
                ended.append(digest)
                if found is None or found.successor in (None, digest):
                    return ended
                digest = found.successor or digest
            elif conflicts >= _PATIENT_CONFLICTS:
                await _pause(conflicts)
            found = await self._found(digest)
        raise StoreUnavailable(_TOO_CONTESTED)

    async def _found(self, digest: bytes) -> Record | None:
        try:
            return await self._store.load(digest)
        except DamagedRecordError:
            return None

    async def _expire(self, record: Record) -> bool:
        ended = msgspec.structs.replace(record, version=record.version + 1, expires_at=self._clock())
        try:
            return await self._store.replace(ended, version=record.version)
        except StoreUnavailable:
            return True  # a store that is full can still delete; one that is down will say so again

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

    async def change(self, record: Record, payload: Payload, step: Step) -> Stored:
        """Swap in what ``step`` makes of the session; returns what is stored then.

        Raises:
            SessionEndedError: the record is gone.
        """
        digest = record.digest
        change = _Change(step)
        queue = self._queues.get(digest)
        if queue is not None:  # somebody is writing this session: be part of the next write
            queue.append(change)
            return await change.wait()
        self._queues[digest] = []
        try:
            await self._swap([change], (record, payload))
        finally:
            self._serve_queue(digest)
        return change.outcome()

    def _serve_queue(self, digest: bytes) -> None:
        changes = self._queues.pop(digest)
        if changes:
            self._queues[digest] = []
            self._spawn(self._write_queued(digest, changes))

    async def _write_queued(self, digest: bytes, changes: list[_Change]) -> None:
        changes = [change for change in changes if not change.is_given_up()]
        try:
            async with asyncio.timeout(self._limits.patience):
                await self._swap(changes, await self._reload(digest, conflicts=0))
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

    async def _write_alone(self, digest: bytes, change: _Change) -> None:
        try:
            await self._swap([change], await self._reload(digest, conflicts=0))
        except Exception as error:  # noqa: BLE001 - as above
            change.fail(error)

    async def _swap(self, changes: list[_Change], current: Stored) -> None:
        """Write all ``changes`` in one compare-and-swap; starts over from the newer record on a conflict."""
        for conflicts in range(_MOST_CONFLICTS):
            record, payload = current
            for change in changes:
                payload = change.applied_to(payload)
            successor = record if payload is current[1] else self._next(record, payload)
            if successor is record or await self._store.replace(successor, version=record.version):
                for change in changes:
                    change.succeed((successor, payload))
                return
            current = await self._reload(record.digest, conflicts)
        raise StoreUnavailable(_TOO_CONTESTED)

    async def move(
        self, record: Record, payload: Payload, step: Step, *, restart: bool, device: Device | None = None
    ) -> Issued:
        """Give the session a new ID, with what ``step`` makes of it; the old record becomes a marker.

        Args:
            record: the record as it was loaded.
            payload: its payload.
            step: the change.
            restart: begin both timeouts anew (a principal has just proved who they are).
            device: where the session is from now on; None keeps what the record says.

        Raises:
            SessionEndedError: the old record is gone; the new one has been removed again.
        """
        for conflicts in range(_MOST_CONFLICTS):
            changed = step(payload)
            began = self._clock() if restart else record.created_at
            session_id = new_session_id()
            target = self._first(session_id, changed, began, device or record.device)
            if not await self._store.create(target):
                continue
            if await self._mark_moved(record, target):
                return Issued(session_id, target, changed)
            await self._store.delete(target.digest)
            record, payload = await self._reload(record.digest, conflicts)
        raise StoreUnavailable(_TOO_CONTESTED)

    async def _mark_moved(self, record: Record, target: Record) -> bool:
        marker = msgspec.structs.replace(
            record,
            version=record.version + 1,
            payload=b"",
            principal=None,
            device=None,
            successor=target.digest,
            expires_at=self._clock() + MARKER_LIFE,
        )
        try:
            return await self._store.replace(marker, version=record.version)
        except StoreUnavailable:
            was_moved = await self._was_moved_to(record, target)
            if was_moved:
                return True  # only the reply was lost
            self._spawn(
                self._discard(target) if was_moved is False else self._take_back(marker, record, target)
            )
            raise
        except asyncio.CancelledError:
            # Nobody will be told the new ID: take the move back, if it has happened, so that the old one
            # goes on; and leave no session behind that nobody can end.
            self._spawn(self._take_back(marker, record, target))
            raise

    async def _take_back(self, marker: Record, record: Record, target: Record) -> None:
        """Put ``record`` back in the place of its marker, unless somebody has ended the session since."""
        restored = msgspec.structs.replace(record, version=marker.version + 1)
        for pause in _PAUSES:  # the store that has just failed may need a moment
            await asyncio.sleep(pause)
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(self._limits.patience):
                    await self._store.replace(restored, version=marker.version)
                    break
        await self._discard(target)

    async def _was_moved_to(self, record: Record, target: Record) -> bool | None:
        """Whether the marker was written although the store said otherwise; None when it does not say."""
        try:
            found = await self._store.load(record.digest)
        except StoreUnavailable:
            return None
        except DamagedRecordError:
            return False
        return found is not None and found.successor == target.digest

    async def _discard(self, target: Record) -> None:
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(self._limits.patience):
                await self._store.delete(target.digest)

    async def _reload(self, digest: bytes, conflicts: int) -> Stored:
        if conflicts >= _PATIENT_CONFLICTS:
            await _pause(conflicts)
        try:
            record = await self._store.load(digest)
            if record is None or not self._timeouts.is_live(record, self._clock()):
                raise SessionEndedError("this session was ended while the request was being answered")
            if record.successor is not None:
                raise SessionMovedError(_MOVED)
            return record, _payload_of(record, digest)
        except DamagedRecordError as error:
            raise SessionEndedError("this session's record is damaged") from error

    def _first(
        self, session_id: str, payload: Payload, created_at: datetime, device: Device | None = None
    ) -> Record:
        now = self._clock()
        digest = digest_of(session_id)
        return Record(
            digest=digest,
            version=1,
            payload=self._encoded(payload, digest),
            created_at=created_at,
            seen_at=now,
            expires_at=self._timeouts.expiry(created_at, now),
            principal=payload.principal,
            device=device,
        )

    def _next(self, record: Record, payload: Payload) -> Record:
        now = self._clock()
        return msgspec.structs.replace(
            record,
            version=record.version + 1,
            payload=self._encoded(payload, record.digest),
            seen_at=now,
            expires_at=self._timeouts.expiry(record.created_at, now),
            principal=payload.principal,
        )

    def _encoded(self, payload: Payload, digest: bytes) -> bytes:
        encoded = encode_payload(payload, digest)
        if len(encoded) > self._limits.max_size:
            raise SessionTooLargeError(
                f"this session would take {len(encoded)} bytes; max_size is {self._limits.max_size}. Keep "
                "large data elsewhere and its key in the session, or raise max_size."
            )
        return encoded


async def _pause(conflicts: int) -> None:
    # Losers of a race that start again together would race again together.
    await asyncio.sleep(random.uniform(0, 0.002 * min(conflicts, 25)))  # noqa: S311 - not a secret


def _payload_of(record: Record, digest: bytes) -> Payload:
    if record.digest != digest:
        raise DamagedRecordError("the store answered with another session's record")
    payload = decode_payload(record.payload, digest)
    if payload.principal != record.principal:
        raise DamagedRecordError("the record's principal is not the one in its payload")
    return payload
