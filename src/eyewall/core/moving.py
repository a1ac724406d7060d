"""A session's new ID and its end: the two that must not miss each other.

A new ID is a new record, and the old record becomes a marker that says where the session went, by the same
compare-and-swap as every change. So no change made under the old ID is lost, no old ID works a moment longer,
and whoever ends the session meanwhile either finds the marker and follows it, or makes the move fail.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

import msgspec

from eyewall.core.ids import new_session_id
from eyewall.core.payload import Payload, encode_payload
from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, Store
from eyewall.core.stored_sessions import (
    MOST_CONFLICTS,
    TOO_CONTESTED,
    Issued,
    Limits,
    Step,
    StoredSessions,
    pause_after,
)
from eyewall.core.timeouts import Timeouts
from eyewall.errors import DamagedRecordError, StoreUnavailable

MARKER_LIFE: Final = timedelta(minutes=1)
"""How long the marker of a regenerated ID stays.

It tells requests that were in flight under the old ID that the session moved on rather than ended, so
that they leave the browser's new cookie alone. It serves no data and opens no session.
"""

_PAUSES: Final = (0.0, 0.2, 1.0, 3.0)


class Moving(StoredSessions):
    """Gives sessions new IDs, and ends them.

    Args:
        store, timeouts, clock, limits: as for :class:`~eyewall.core.stored_sessions.StoredSessions`.
        spawn: runs a coroutine as a task that is not lost.
    """

    def __init__(
        self,
        store: Store,
        timeouts: Timeouts,
        clock: Clock,
        limits: Limits,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        super().__init__(store, timeouts, clock, limits)
        self._spawn = spawn

    # -- a new ID -----------------------------------------------------------------------------------------

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
        for conflicts in range(MOST_CONFLICTS):
            changed = step(payload)
            began = self._clock() if restart else record.created_at
            session_id = new_session_id()
            target = self._first(session_id, changed, began, device or record.device)
            if not await self._store.create(target):
                continue
            # A driver that tries again by itself may find its own marker, and call that a conflict.
            if await self._mark_moved(record, payload, target) or await self._was_moved_to(record, target):
                return Issued(session_id, target, changed)
            await self._store.delete(target.digest)
            record, payload = await self._reload(record.digest, conflicts)
        raise StoreUnavailable(TOO_CONTESTED)

    async def _mark_moved(self, record: Record, payload: Payload, target: Record) -> bool:
        # Whose it was stays: whoever ends their sessions must find it, and nobody else's by following it.
        whose = Payload(format=1, principal=payload.principal, device_id=payload.device_id)
        marker = msgspec.structs.replace(
            record,
            version=record.version + 1,
            payload=encode_payload(whose, record.digest),
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
            self._spawn(self._discard(target) if was_moved is False else self._take_back(record, target))
            raise
        except asyncio.CancelledError:
            # Nobody will be told the new ID: take the move back, if it has happened, so that the old one
            # goes on; and leave no session behind that nobody can end.
            self._spawn(self._take_back(record, target))
            raise

    async def _take_back(self, record: Record, target: Record) -> None:
        """Put ``record`` back in the place of its marker, unless somebody has ended the session since."""
        for pause in _PAUSES:  # the store that has just failed may need a moment
            await asyncio.sleep(pause)
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(self._limits.patience):
                    found = await self._found(record.digest)
                    if found is not None and found.successor == target.digest:  # ours, and nobody ended it
                        restored = msgspec.structs.replace(record, version=found.version + 1)
                        await self._store.replace(restored, version=found.version)
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

    # -- the end -------------------------------------------------------------------------------------------

    async def end(self, digest: bytes) -> list[bytes]:
        """Delete the session of ``digest``, also under the ID that it may have got meanwhile.

        Returns the digests it had.

        A sign-out beside a regeneration must end what the user sees as one session. So a live record first
        expires by compare-and-swap: whoever gives it a new ID at the same moment is either seen here, and
        followed, or fails there. Somebody else who has signed in since is left alone.
        """
        return await self._end(digest, await self._found(digest))

    async def end_record(self, record: Record) -> list[bytes]:
        """As :meth:`end`, for a session whose record was looked up just now."""
        return await self._end(record.digest, record)

    async def _end(self, digest: bytes, found: Record | None) -> list[bytes]:
        ended: list[bytes] = []
        whose: str | None = None
        for conflicts in range(MOST_CONFLICTS):
            if found is not None:
                if whose is not None and found.principal != whose:
                    return ended
                whose = found.principal
            if found is None or found.successor is not None or await self._expire(found):
                await self._store.delete(digest)
                ended.append(digest)
                if found is None or found.successor in (None, digest):
                    return ended
                digest = found.successor or digest
            else:
                await pause_after(conflicts)
            found = await self._found(digest)
        raise StoreUnavailable(TOO_CONTESTED)

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
