"""The limit of sessions per principal: counted and made room for under a lock that all processes share.

Counting first and creating afterwards lets fifty sign-ins of one moment all count four. So whoever signs in
takes the principal's lock, counts, makes room or is refused, creates the session, and gives the lock back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final, Literal

from eyewall.core.events import EventKind, EventStream
from eyewall.core.store import Clock, Store
from eyewall.core.writer import Spawn
from eyewall.errors import ConfigurationError, StoreUnavailable, TooManySessionsError
from eyewall.signin.devices import MOST_PASSES, DeviceRecords, Devices
from eyewall.signin.shared_lock import SharedLocks

WhenFull = Literal["end-oldest", "refuse"]
"""What a sign-in beyond the limit does: end the device that was not used for longest, or be refused."""

_TOLD: Final = {"end-oldest": "the device not used for longest was ended", "refuse": "sign-in refused"}


class Admission:
    """Lets a principal have so many sessions and no more (ASVS 7.1.2), among all processes on one store.

    Args:
        store: keeps the lock.
        clock: returns the current time (UTC).
        most: how many sessions one principal may have at a time.
        when_full: what happens to a sign-in beyond that.
        devices: finds and ends the sessions.
        events: hears when the limit is reached.
        spawn: runs a coroutine as a task that is not lost, and is awaited before ``store`` is closed.
        patience: longest that a sign-in waits for others of the same principal (seconds).

    Raises:
        ConfigurationError: ``most`` is below 1, or there is no such ``when_full``.
    """

    def __init__(  # noqa: PLR0913 - two are settings, the rest is what it works with
        self,
        store: Store,
        clock: Clock,
        *,
        most: int,
        when_full: WhenFull,
        devices: Devices,
        events: EventStream,
        spawn: Spawn,
        patience: float = 2.0,
    ) -> None:
        if most < 1:
            raise ConfigurationError(f"the limit of sessions must be 1 or more, not {most}")
        if when_full not in _TOLD:
            raise ConfigurationError(f"when_full is one of {', '.join(_TOLD)}, not {when_full!r}")
        self._most = most
        self._when_full = when_full
        self._devices = devices
        self._events = events
        self._locks = SharedLocks(store, clock, "sign-in of one principal", spawn=spawn, patience=patience)

    @asynccontextmanager
    async def of(
        self, principal: str, *, own: bytes | None, device_id: bytes | None = None
    ) -> AsyncIterator[None]:
        """Have room for one session of ``principal``; the caller creates it inside, or moves one there.

        When there is no room, sessions of the same device go first, whatever ``when_full`` says: they are
        what a closed browser has left behind, and its own next session takes their place.

        Args:
            principal: who is signing in.
            own: digest of the session that becomes theirs, which is not counted; None when there is none.
            device_id: of the session that is to be, when known. The remember token of this device is spared.

        Raises:
            TooManySessionsError: there is no room, and sign-ins beyond the limit are refused.
            StoreUnavailable: the store does not answer, or too many sign in as this principal at once.
        """
        async with self._locks.held(principal):
            await self._make_room(principal, own, device_id)
            yield

    async def _make_room(self, principal: str, own: bytes | None, device_id: bytes | None) -> None:
        is_second_look = False
        for _ in range(MOST_PASSES):  # a session that gets a new ID meanwhile is found at the next look
            found = _Found(await self._devices.find(principal), own)
            excess = len(found.counted) - self._most + 1
            if excess <= 0:
                # It may have got its new ID between two calls of a store that lists and then reads.
                if is_second_look or excess + len(found.unseen) <= 0:
                    return
                is_second_look = True
                continue
            if own is not None and not found.has_own and (newer := await self._newer(own)) != own:
                own = newer
                continue
            mine, others = found.split(device_id)
            excess -= await self._end_left_behind(mine, found.counted, excess)
            if excess <= 0:
                continue
            self._events.emit(EventKind.SESSIONS_LIMITED, principal=principal, detail=_TOLD[self._when_full])
            if self._when_full == "refuse":
                raise TooManySessionsError(
                    f"this principal has {self._most} sessions, which is the limit; one must end first"
                )
            await self._end_oldest(others, found.counted, excess)
        raise StoreUnavailable("sessions of this principal come as fast as they are ended; try again")

    async def _newer(self, own: bytes) -> bytes:
        """Return the digest that the session of ``own`` has by now."""
        lineage = await self._devices.lineage(own)
        return lineage[-1] if lineage else own

    async def _end_left_behind(
        self, mine: list[DeviceRecords], counted: Collection[bytes], excess: int
    ) -> int:
        sessions = [record for device in mine for record, _ in device.sessions if record.digest in counted]
        sessions.sort(key=lambda record: (record.seen_at, record.digest))
        for record in sessions[:excess]:
            await self._devices.end_session(record)
        return min(excess, len(sessions))

    async def _end_oldest(self, others: list[DeviceRecords], counted: Collection[bytes], excess: int) -> None:
        there = [device for device in others if device.is_there()]
        for device in sorted(there, key=lambda one: (one.seen_at(), one.handle)):
            if excess <= 0:
                return
            if device.sessions:  # a token alone takes no room
                await self._devices.end(device)
                excess -= sum(record.digest in counted for record, _ in device.sessions)


class _Found:
    """What one look at the devices of a principal has found, for counting."""

    def __init__(self, devices: list[DeviceRecords], own: bytes | None) -> None:
        self._devices = devices
        sessions = {record.digest: payload for device in devices for record, payload in device.sessions}
        moves = {one.digest: one.successor for device in devices for one in device.markers}
        while own in moves:  # it has got a new ID since it was loaded
            own = moves.pop(own)
        self._own = own
        self.has_own = own in sessions
        # One that is just getting a new ID has two records, and is one session.
        self.counted = {
            digest
            for digest, payload in sessions.items()
            if digest != own and payload.predecessor not in sessions
        }
        self.unseen = {to for to in moves.values() if to not in sessions and to not in moves}

    def split(self, device_id: bytes | None) -> tuple[list[DeviceRecords], list[DeviceRecords]]:
        """Return the device that signs in, and the others."""
        mine: list[DeviceRecords] = []
        others: list[DeviceRecords] = []
        for device in self._devices:
            is_mine = device_id is not None and device.device_id == device_id
            is_mine = is_mine or any(record.digest == self._own for record, _ in device.sessions)
            (mine if is_mine else others).append(device)
        return mine, others
