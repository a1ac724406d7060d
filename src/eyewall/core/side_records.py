"""Side records: what Eyewall itself keeps in the store beside the sessions.

Remember tokens, counters of attempts and the like need a place that all processes share, and changes that
are atomic. A store has both already: every side record is an ordinary record under a digest made from a
kind and a name, changed by compare-and-swap. So a store that keeps sessions keeps these too, and encrypts,
migrates and sweeps them, without a line of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec

from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, Store
from eyewall.errors import DamagedRecordError, StoreUnavailable

_T = TypeVar("_T")

_FORMAT: Final = 1
_CHECKSUM_BYTES: Final = 8
_MOST_CONFLICTS: Final = 200
_PATIENT_CONFLICTS: Final = 3
_encoder: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Kept(Generic[_T]):
    """A value as it is to be kept.

    Args:
        value: what to keep.
        expires_at: from this moment on it is gone (UTC).
        principal: whose it is, so that a search for the principal finds it; or None.
        device: where it came from, or None.
    """

    value: _T
    expires_at: datetime
    principal: str | None = None
    device: Device | None = None


class SideRecordReader(Generic[_T]):
    """Tells the side records of one kind from all other records, and reads them; needs no store.

    Args:
        kind: tells these from other side records; a constant of the calling code.
        value_type: a type that msgspec can decode; older values must decode as it, too.
    """

    def __init__(self, kind: str, value_type: type[_T]) -> None:
        self._kind = kind
        self._decoder = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])
        self._value_decoder = msgspec.msgpack.Decoder(value_type)

    def read(self, record: Record) -> _T | None:
        """Return the value in ``record``, or None when it is no side record of this kind, or damaged."""
        body = record.payload[_CHECKSUM_BYTES:]
        if record.successor != record.digest or record.payload[:_CHECKSUM_BYTES] != _checksum(
            body, record.digest
        ):
            return None
        try:
            version, kind, value = self._decoder.decode(body)
            return self._value_decoder.decode(value) if (version, kind) == (_FORMAT, self._kind) else None
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None


class SideRecords(Generic[_T]):
    """The side records of one kind, found by name.

    Args:
        store: where they are kept.
        clock: returns the current time (UTC).
        kind: tells these from other side records; a constant of the calling code.
        value_type: a type that msgspec can encode and decode; older values must decode as it, too.
    """

    def __init__(self, store: Store, clock: Clock, kind: str, value_type: type[_T]) -> None:
        self._store = store
        self._clock = clock
        self._kind = kind
        self._reader = SideRecordReader(kind, value_type)
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def digest(self, name: str) -> bytes:
        """Return the digest of the record of ``name``; what is hashed for it can be no session ID."""
        # The lengths keep characters from moving between kind and name unnoticed.
        whole = f"eyewall side record {len(self._kind)}:{self._kind} {len(name)}:{name}"
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()

    def read(self, record: Record) -> _T | None:
        """Return the value in ``record``, or None when it is no side record of this kind, or damaged."""
        return self._reader.read(record)

    async def load(self, name: str) -> _T | None:
        """Return the live value of ``name``, or None; a damaged record is none.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        found = await self._load(self.digest(name))
        return None if found is None else self.read(found)

    async def update(self, name: str, change: Callable[[_T | None], Kept[_T] | None]) -> _T | None:
        """Change the value of ``name`` atomically, across all processes.

        Args:
            name: which value.
            change: gets the value as it is now, or None, and returns what is to be kept instead; None leaves
                everything as it is. It may be called several times, so it should do nothing else.

        Returns:
            The value that is kept now, or None when there is none.

        Raises:
            StoreUnavailable: the store does not answer, or the value is too contested. Whether it was
                changed is unknown.
        """
        digest = self.digest(name)
        turn = self._turns.setdefault(digest, asyncio.Lock())
        async with turn:  # those of one process queue up here instead of running into each other
            for conflicts in range(_MOST_CONFLICTS):
                if conflicts >= _PATIENT_CONFLICTS:
                    await asyncio.sleep(random.uniform(0, 0.002 * min(conflicts, 25)))  # noqa: S311 - no secret
                found = await self._load(digest)
                value = None if found is None else self.read(found)
                kept = change(value)
                if kept is None:
                    return value
                if await self._put(digest, found, kept):
                    return kept.value
        raise StoreUnavailable(f"{_MOST_CONFLICTS} conflicts in a row on one side record")

    async def delete(self, name: str) -> bool:
        """Remove the value of ``name``; return whether there was one."""
        return await self._store.delete(self.digest(name))

    async def _load(self, digest: bytes) -> Record | None:
        try:
            return await self._store.load(digest)
        except DamagedRecordError:
            return None

    async def _put(self, digest: bytes, found: Record | None, kept: Kept[_T]) -> bool:
        now = self._clock()
        record = Record(
            digest=digest,
            version=1 if found is None else found.version + 1,
            payload=self._encoded(kept.value, digest),
            created_at=now if found is None else found.created_at,
            seen_at=now,
            expires_at=kept.expires_at,
            principal=kept.principal,
            device=kept.device,
            # Its own successor: as the marker of a regenerated ID it can never be served as a session.
            successor=digest,
        )
        if found is not None:
            return await self._store.replace(record, version=found.version)
        if await self._store.create(record):
            return True
        if await self._load(digest) is None:
            # An expired or damaged record is in the way. Should two processes clear it away at the same
            # moment, one of the two changes is lost: so keep a value longer than anybody relies on it.
            await self._store.delete(digest)
        return False

    def _encoded(self, value: _T, digest: bytes) -> bytes:
        body = _encoder.encode((_FORMAT, self._kind, value))
        return _checksum(body, digest) + body


def _checksum(body: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, key=digest, person=b"side record").digest()
