"""Sessions as their store holds them: found, checked, and made ready to be written.

What is read here is never trusted as it comes: a record that is expired, that belongs to another digest, or
that names another principal than its payload does, is no session. Writing is left to the layers above:
:class:`~eyewall.core.moving.Moving` and :class:`~eyewall.core.writer.Writer`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from eyewall.core.changes import NOBODY, Identity, identity_of
from eyewall.core.ids import digest_of
from eyewall.core.payload import PREDECESSOR_BYTES, Payload, decode_payload, encode_payload
from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, Store
from eyewall.core.timeouts import Timeouts
from eyewall.errors import DamagedRecordError, SessionEndedError, SessionTooLargeError

Step = Callable[[Payload], Payload]
"""A change: given the payload as it is now, returns the payload as it is to be."""

Stored = tuple[Record, Payload]
"""What a store holds: a record, and its payload decoded."""


class Limits(NamedTuple):
    """Largest payload (bytes), and seconds that a write may take which no single request waits for."""

    max_size: int
    patience: float


class Issued(NamedTuple):
    """A session under an ID that nobody has been told yet; ``source`` is the record it had before, if any."""

    session_id: str
    record: Record
    payload: Payload
    source: Record | None = None


MOST_CONFLICTS: Final = 200
"""A change that has lost so many races in a row is given up."""

TOO_CONTESTED: Final = f"{MOST_CONFLICTS} conflicts in a row on one session"
"""What is said then."""

_MOST_MOVES: Final = 64
_MOVED: Final = "this session was given a new ID while the request was being answered"
_PATIENT_CONFLICTS: Final = 3


class SessionMovedError(SessionEndedError):
    """The session's ID was regenerated meanwhile: this ID has ended, the session has not."""


class StoredSessions:
    """Finds the sessions of one store, and makes the records that are to be written.

    Args:
        store: where the records are.
        timeouts: decide when what is written expires.
        clock: returns the current time (UTC).
        limits: how large and how slow it may get.
    """

    def __init__(self, store: Store, timeouts: Timeouts, clock: Clock, limits: Limits) -> None:
        self._store = store
        self._timeouts = timeouts
        self._clock = clock
        self._limits = limits

    async def load(self, digest: bytes) -> Stored | None:
        """Return the live session of ``digest``, or None.

        Raises:
            DamagedRecordError: there is a record, but it is not what was written under this digest.
            SessionMovedError: the session has another ID by now.
        """
        return self.opened(await self._store.load(digest), digest)

    def opened(self, record: Record | None, digest: bytes) -> Stored | None:
        """Return what the store has answered for ``digest``, checked and decoded; as :meth:`load`."""
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
        return (await self._followed(digest))[1]

    async def lineage(self, digest: bytes) -> list[bytes]:
        """Return ``digest`` and those that its session has had since, the live one last.

        Empty when the session has ended.
        """
        try:
            followed, found = await self._followed(digest)
        except DamagedRecordError:
            return []
        return [] if found is None else followed

    async def _followed(self, digest: bytes) -> tuple[list[bytes], Stored | None]:
        followed: list[bytes] = []
        for moves in range(_MOST_MOVES):
            if digest in followed:  # a move is being taken back just now
                followed.remove(digest)
                await pause_after(moves)
            followed.append(digest)
            record = await self._store.load(digest)
            if record is None or not self._timeouts.is_live(record, self._clock()):
                break
            if record.successor is None:
                return followed, (record, _payload_of(record, digest))
            digest = record.successor
        return followed, None

    async def identity_at(self, digest: bytes) -> Identity:
        """Return who was signed in under the ID of ``digest``, also if the session has another one by now."""
        try:
            record = await self._store.load(digest)
            return NOBODY if record is None else identity_of(decode_payload(record.payload, digest))
        except DamagedRecordError:
            return NOBODY

    async def _reload(self, digest: bytes, conflicts: int) -> Stored:
        await pause_after(conflicts)
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
        size = len(encoded) - (0 if payload.predecessor is None else PREDECESSOR_BYTES)
        if size > self._limits.max_size:
            raise SessionTooLargeError(
                f"this session would take {size} bytes; max_size is {self._limits.max_size}. Keep "
                "large data elsewhere and its key in the session, or raise max_size."
            )
        return encoded


async def pause_after(conflicts: int) -> None:
    """Wait a moment once several conflicts have come in a row.

    Losers of a race that start again together would race again together.
    """
    if conflicts >= _PATIENT_CONFLICTS:
        await asyncio.sleep(random.uniform(0, 0.002 * min(conflicts, 25)))  # noqa: S311 - not a secret


def _payload_of(record: Record, digest: bytes) -> Payload:
    if record.digest != digest:
        raise DamagedRecordError("the store answered with another session's record")
    payload = decode_payload(record.payload, digest)
    if payload.principal != record.principal:
        raise DamagedRecordError("the record's principal is not the one in its payload")
    return payload
