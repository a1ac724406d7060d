"""Encryption at rest: any store, with what it keeps about people sealed.

What the inner store holds then::

    sealed    the payload, and the device facts (agent and address are personal data), as the new payload
    plain     digest, version, the three times, successor: needed to find, compare, swap and expire
    plain     the principal: "end all sessions of alice" must find them without opening every record

So a stolen dump or backup tells which principal has how many sessions and when they were used, and nothing
else. If your principals are e-mail addresses and that is too much, sign in with an opaque identifier.

The seal is bound to everything of the record that no ``touch`` changes: digest, version, ``created_at``,
principal and successor. Somebody who can write to the store can delete records and move ``seen_at`` and
``expires_at``. They cannot give one session's data to another, nor put another principal's name on it, nor
send an ID on to a session of their choice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final, cast

import msgspec

from eyewall.core.announcing import Announcer, announcer_of
from eyewall.core.record import Device, Record
from eyewall.core.store import PrincipalIndex, Scan, SelfCheck, Store
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.errors import DamagedRecordError
from eyewall.stores.migrating import Migrating

PURPOSE: Final = "record at rest"

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[bytes, Device | None])


def encrypted(store: Store, keyring: KeyRing) -> Store:
    """Return ``store`` wrapped so that it keeps sealed records, with the capabilities that it has.

    Of two stores served as one (:func:`~eyewall.stores.migrating.migrating`) each is wrapped: a move changes
    the version, which the seal is bound to, so a record has to be opened and sealed anew on its way.

    Records that lie in the store unsealed are damaged to the wrapped store, and never served: switching
    encryption on ends the sessions there are.

    Args:
        store: any store. The result closes it.
        keyring: its newest key seals; all of its keys open.

    Raises:
        MissingDriverError: the library ``cryptography`` is not installed.
    """
    if isinstance(store, Migrating):
        return store.wrapped(lambda one: encrypted(one, keyring))
    return _KINDS[isinstance(store, PrincipalIndex), isinstance(store, Scan)](store, keyring)


class EncryptedStore:
    """A store that seals records on their way into another one. Made by :func:`encrypted`.

    It answers as the inner store does, with one difference that a caller can see: ``replace`` and ``touch``
    do not open what is there, so a record whose seal was damaged is found by ``load``.

    Args:
        inner: the store that keeps the sealed records.
        keyring: its newest key seals; all of its keys open.

    Raises:
        MissingDriverError: the library ``cryptography`` is not installed.
    """

    def __init__(self, inner: Store, keyring: KeyRing) -> None:
        self.inner: Final = inner
        self._sealer = Sealer(keyring, PURPOSE)

    async def create(self, record: Record) -> bool:
        """See :meth:`eyewall.core.store.Store.create`."""
        return await self.inner.create(self._sealed(record))

    async def load(self, digest: bytes) -> Record | None:
        """See :meth:`eyewall.core.store.Store.load`.

        Raises:
            DamagedRecordError: also when the seal does not open: damaged, another record's, made with a key
                that is not in the ring, or never sealed.
        """
        record = await self.inner.load(digest)
        return None if record is None else self._opened(record)

    async def replace(self, record: Record, *, version: int) -> bool:
        """See :meth:`eyewall.core.store.Store.replace`."""
        return await self.inner.replace(self._sealed(record), version=version)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """See :meth:`eyewall.core.store.Store.touch`."""
        return await self.inner.touch(digest, seen_at, expires_at)

    async def delete(self, digest: bytes) -> bool:
        """See :meth:`eyewall.core.store.Store.delete`."""
        return await self.inner.delete(digest)

    async def sweep(self, now: datetime, limit: int) -> int:
        """See :meth:`eyewall.core.store.Store.sweep`."""
        return await self.inner.sweep(now, limit)

    async def check(self) -> None:
        """See :meth:`eyewall.core.store.SelfCheck.check`. Asks the inner store, if it can be asked."""
        if isinstance(self.inner, SelfCheck):
            await self.inner.check()

    def announcer(self) -> Announcer | None:
        """See :meth:`eyewall.core.announcing.Announcing.announcer`. The inner store's: nothing is sealed."""
        return announcer_of(self.inner)

    async def close(self) -> None:
        """Close the inner store."""
        await self.inner.close()

    def _sealed(self, record: Record) -> Record:
        content = _encoder.encode((record.payload, record.device))
        sealed = self._sealer.seal_bytes(content, *_bound_to(record))
        return msgspec.structs.replace(record, payload=sealed, device=None)

    def _opened(self, record: Record) -> Record:
        content = self._sealer.open_bytes(record.payload, *_bound_to(record))
        if content is None:
            raise DamagedRecordError(
                "the record's seal does not open: damaged, never sealed, or by a key that is no longer there"
            )
        payload, device = _decoder.decode(content)  # sealed by us, so it is as we encoded it
        return msgspec.structs.replace(record, payload=payload, device=device)

    def _opened_if_whole(self, record: Record) -> Record | None:
        try:
            return self._opened(record)
        except DamagedRecordError:
            return None


class IndexedEncryptedStore(EncryptedStore):
    """An encrypted store whose inner store is a ``PrincipalIndex``."""

    async def find_principal(self, principal: str) -> list[Record]:
        """See :meth:`eyewall.core.store.PrincipalIndex.find_principal`."""
        found = await cast(PrincipalIndex, self.inner).find_principal(principal)
        opened = map(self._opened_if_whole, found)
        return [record for record in opened if record is not None]

    async def delete_principal(self, principal: str) -> int:
        """See :meth:`eyewall.core.store.PrincipalIndex.delete_principal`."""
        return await cast(PrincipalIndex, self.inner).delete_principal(principal)


class ScannedEncryptedStore(EncryptedStore):
    """An encrypted store whose inner store is a ``Scan``."""

    async def scan(self) -> AsyncIterator[Record]:
        """See :meth:`eyewall.core.store.Scan.scan`."""
        async for record in cast(Scan, self.inner).scan():
            opened = self._opened_if_whole(record)
            if opened is not None:
                yield opened

    async def reseal(self) -> AsyncIterator[bytes]:
        """Seal anew, with the newest key, every record that a retired key has sealed.

        Needed before a retired key is dropped, if sessions live longer than the rotation took. One record
        at a time, while requests go on; the caller sets the pace, may stop, and may begin again::

            async for digest in store.reseal():
                ...

        A record that changed meanwhile is left to whoever changed it, and what does not open is left as it
        is. As long as some process still seals with the retired key there may be more: run it after the
        last one was restarted.

        Yields:
            The digest of each record that was sealed anew.
        """
        async for record in cast(Scan, self.inner).scan():
            if self._sealer.is_current(record.payload):
                continue
            opened = self._opened_if_whole(record)
            if opened is not None and await self._replaced_by_itself(opened):
                yield record.digest

    async def _replaced_by_itself(self, record: Record) -> bool:
        following = msgspec.structs.replace(record, version=record.version + 1)
        return await self.replace(following, version=record.version)


class IndexedScannedEncryptedStore(IndexedEncryptedStore, ScannedEncryptedStore):
    """An encrypted store whose inner store is both."""


# isinstance() must tell the truth about a capability, so each pair of answers has a class of its own.
_KINDS: Final[dict[tuple[bool, bool], type[EncryptedStore]]] = {
    (False, False): EncryptedStore,
    (True, False): IndexedEncryptedStore,
    (False, True): ScannedEncryptedStore,
    (True, True): IndexedScannedEncryptedStore,
}


def _bound_to(record: Record) -> tuple[str, str, str, str, str]:
    """Everything that ``touch`` leaves, as text."""
    return (
        record.digest.hex(),
        str(record.version),
        record.created_at.astimezone(UTC).isoformat(),
        "" if record.principal is None else f"={record.principal}",  # "" is a principal too
        "" if record.successor is None else record.successor.hex(),
    )
