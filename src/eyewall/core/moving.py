"""A session's new ID and its end: the two that must not miss each other.

A new ID is a new record, and the old record becomes a marker that says where the session went, by the same
compare-and-swap as every change. So no change made under the old ID is lost, no old ID works a moment longer,
and whoever ends the session meanwhile either finds the marker and follows it, or makes the move fail.

Between the two calls there are two live records of one session. The new one names the old as its predecessor,
so whoever counts the sessions of a principal, or spares one of them, knows that they are one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

import msgspec

from eyewall.core.ids import new_session_id
from eyewall.core.payload import Payload, decode_payload, encode_payload
from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, PrincipalIndex, Store
from eyewall.core.stored_sessions import (
    MOST_CONFLICTS,
    TOO_CONTESTED,
    Issued,
    Limits,
    SessionMovedError,
    Step,
    Stored,
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
        self._is_index = isinstance(store, PrincipalIndex)

    # -- a new ID -----------------------------------------------------------------------------------------

    async def move(
        self,
        current: Stored,
        step: Step,
        *,
        restart: bool,
        device: Device | None = None,
        may_follow: Callable[[Payload], bool] = lambda _: False,
    ) -> Issued:
        """Give the session a new ID, with what ``step`` makes of it; the old record becomes a marker.

        Args:
            current: the session as it was loaded.
            step: the change.
            restart: begin both timeouts anew (a principal has just proved who they are).
            device: where the session is from now on; None keeps what the record says.
            may_follow: told what the session holds under the ID that somebody else has given it meanwhile,
                says whether it is moved on from there.

        Raises:
            SessionEndedError: the old record is gone; the new one has been removed again.
            SessionMovedError: it has another ID by now, and may not be followed.
        """
        record, payload = current
        for conflicts in range(MOST_CONFLICTS):
            changed = self._moved_from(record, step(payload))
            began = self._clock() if restart else record.created_at
            session_id = new_session_id()
            target = self._first(session_id, changed, began, device or record.device)
            if not await self._store.create(target):
                continue
            if await self._hand_over(record, payload, target):
                return Issued(session_id, target, changed, record)
            await self._store.delete(target.digest)
            record, payload = await self._reload_or_follow(record.digest, conflicts, may_follow)
        raise StoreUnavailable(TOO_CONTESTED)

    def _moved_from(self, record: Record, payload: Payload) -> Payload:
        if payload.principal is None or not self._is_index:
            return payload  # nobody will find it by its principal
        return msgspec.structs.replace(payload, predecessor=record.digest)

    async def _reload_or_follow(
        self, digest: bytes, conflicts: int, may_follow: Callable[[Payload], bool]
    ) -> Stored:
        try:
            return await self._reload(digest, conflicts)
        except SessionMovedError:
            with contextlib.suppress(DamagedRecordError):
                found = await self.current(digest)
                if found is not None and may_follow(found[1]):
                    return found
            raise

    async def _hand_over(self, record: Record, payload: Payload, target: Record) -> bool:
        """Make ``record`` a marker of ``target``; False when somebody else was first."""
        try:
            return await self._mark_moved(record, payload, target)
        except (StoreUnavailable, asyncio.CancelledError):
            # Nobody will be told the new ID: take the move back, if it has happened, so that the old one
            # goes on; and leave no session behind that nobody can end.
            self._spawn(self._take_back(record, target))
            raise

    async def _mark_moved(self, record: Record, payload: Payload, target: Record) -> bool:
        marker = self._marker(record, payload, target.digest)
        try:
            if await self._store.replace(marker, version=record.version):
                return True
        except StoreUnavailable:
            if await self._was_moved_to(record, target):
                return True  # only the reply was lost
            raise
        # A driver that tries again by itself may find its own marker, and call that a conflict.
        return await self._was_moved_to(record, target)

    def _marker(self, record: Record, payload: Payload, successor: bytes) -> Record:
        # Whose it was stays: whoever ends their sessions must find it, and nobody else's by following it.
        whose = Payload(format=1, principal=payload.principal, device_id=payload.device_id)
        return msgspec.structs.replace(
            record,
            version=record.version + 1,
            payload=encode_payload(whose, record.digest),
            device=None,
            successor=successor,
            expires_at=self._clock() + MARKER_LIFE,
        )

    async def _take_back(self, record: Record, target: Record) -> None:
        """Let the session go on as ``record``, in the place of its marker, unless it has ended since."""
        for pause in _PAUSES:  # the store that has just failed may need a moment
            await asyncio.sleep(pause)
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(self._limits.patience):
                    if await self._went_back(record, target):
                        return
                    break
        await self._discard(target)

    async def _went_back(self, record: Record, target: Record) -> bool:
        """Put ``record`` in the place of its marker; False when nothing may be left of ``target``.

        Others may have followed the marker, and changed the session, moved it on, or ended it.
        """
        marker = await self._found(record.digest)
        if marker is not None and marker.version == record.version:
            # It is not there, but may be on its way: a new version makes it fail when it arrives.
            with contextlib.suppress(StoreUnavailable):
                ahead = msgspec.structs.replace(marker, version=marker.version + 1)
                await self._store.replace(ahead, version=marker.version)
            return False
        if marker is None or marker.successor != target.digest:
            return False
        latest = await self._frozen(target.digest, record.digest)
        if latest is None:
            return True
        restored = self._restored(record, latest, is_changed=latest.payload != target.payload)
        restored = msgspec.structs.replace(restored, version=marker.version + 1)
        if not await self._store.replace(restored, version=marker.version):
            return False
        # What stays for a minute shows the way back to whoever is following the marker at this moment.
        whose = Payload(format=1, principal=latest.principal)
        await self._store.replace(self._marker(latest, whose, record.digest), version=latest.version)
        return True

    async def _frozen(self, digest: bytes, back_to: bytes) -> Record | None:
        """See to it that nobody changes the session of ``digest`` any more; return its record then.

        It becomes a marker that still has its data: should this fail half-way, it can be begun again.
        None when the session was ended, or has got yet another ID.
        """
        for conflicts in range(MOST_CONFLICTS):
            latest = await self._found(digest)
            if latest is None or latest.successor not in (None, back_to):
                return None
            if latest.successor == back_to:
                return latest
            frozen = msgspec.structs.replace(
                latest,
                version=latest.version + 1,
                successor=back_to,
                expires_at=self._clock() + MARKER_LIFE,
            )
            if await self._store.replace(frozen, version=latest.version):
                return frozen
            await pause_after(conflicts)
        return None

    def _restored(self, record: Record, latest: Record, *, is_changed: bool) -> Record:
        """Return ``record`` as it goes on: with what was changed under the new ID, but its own identity."""
        if not is_changed or latest.principal != record.principal:
            return record
        try:
            changed = decode_payload(latest.payload, latest.digest)
            before = decode_payload(record.payload, record.digest)
        except DamagedRecordError:
            return record
        payload = msgspec.structs.replace(before, data=changed.data, flash=changed.flash, predecessor=None)
        return msgspec.structs.replace(
            record,
            payload=encode_payload(payload, record.digest),
            seen_at=latest.seen_at,
            expires_at=self._timeouts.expiry(record.created_at, latest.seen_at),
        )

    async def _was_moved_to(self, record: Record, target: Record) -> bool:
        """Whether the marker was written although the store said otherwise."""
        found = await self._found(record.digest)
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
