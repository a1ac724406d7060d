"""Two stores served as one, so that sessions move from the old to the new while the site runs.

New sessions begin in the new store. A session of the old store stays there while it is only read, and moves
when it is first written to or touched; every session in use is touched now and then. What nobody uses dies
in the old store at its own timeout. After the absolute timeout at the latest the old store is empty.

No transaction spans two stores. These steps, each one call to one store, take its place:

====  =========  ================================================================================
step  store      what happens
====  =========  ================================================================================
1     old        the record is loaded
2     new        ``create`` of a copy that is *pending*, under a version nobody has used before
3     old        is the record still there? If not, the copy is void: somebody deleted the session
4     new        ``replace`` of this very copy by the same, *decided*
5     old        ``delete``
6     new        ``replace`` of the decided copy by the record as it is to be from now on: *settled*
====  =========  ================================================================================

What makes this safe, whoever is interrupted or killed wherever:

- **Nobody is signed out.** A pending copy counts only while the old record is there, a decided or settled
  one counts by itself; so at every moment exactly one of the two stores answers. A reader who finds nothing
  in the new store and then nothing in the old looks into the new once more: it may have moved in between.
- **What was destroyed stays destroyed.** ``delete`` goes to the old store first, then to the new. A copy that
  is created after that is void, as nobody can see the old record after the copy any more (step 3). A copy
  that was created before is gone, and step 4 cannot take another copy for it, because the versions of two
  copies differ: the number is random. Nothing here depends on time, on locks or on who is alive.
- **Nothing acknowledged is lost.** The old record never changes, it only goes. The first change happens in
  the new store after step 5, so the old record can never come to light again in its outdated form.
- **It can be resumed, by anybody.** The steps depend on nothing but what the two stores hold, so any process
  completes what another began, and two may do it at once.

A move changes the version, as a concurrent ``replace`` would: whoever loaded the session before has to load
it again, which the writer in core does by itself. All processes of a site must switch to this store at the
same time: one that still writes to the old store alone knows nothing of the copies.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final, cast

import msgspec

from eyewall.core.announcing import Announcer, announcer_of
from eyewall.core.record import Record
from eyewall.core.store import PrincipalIndex, Scan, SelfCheck, Store
from eyewall.errors import DamagedRecordError, StoreUnavailable

_PENDING: Final = hashlib.sha256(b"eyewall: a copy that counts while the old record is there").digest()
_DECIDED: Final = hashlib.sha256(b"eyewall: a copy that counts by itself").digest()
_NO_SUCCESSOR: Final = bytes(32)

_MOST_ROUNDS: Final = 50
"""A move takes four rounds; more happen only when others move and delete the same session meanwhile."""

Nonce = Callable[[], int]
"""Returns a number nobody has used before: by how much the version grows when a record moves."""


def _random_step() -> int:
    return 1 + secrets.randbelow(2**48)


def migrating(old: Store, new: Store) -> Store:
    """Return one store that serves the sessions of both and moves those in use from ``old`` to ``new``.

    It is a ``PrincipalIndex``, and a ``Scan``, where both of them are.

    Args:
        old: where the sessions are so far. Nothing is created or changed there any more, only deleted.
        new: where they go. It may have sessions of its own.
    """
    indexed = isinstance(old, PrincipalIndex) and isinstance(new, PrincipalIndex)
    scanned = isinstance(old, Scan) and isinstance(new, Scan)
    return _CLASSES[indexed, scanned](old, new)


class Migrating:
    """Serves two stores as one; see the top of this file. Made by :func:`migrating`.

    Args:
        old: the store that is emptied.
        new: the store that is filled.
        nonce: for tests that replay a move.
    """

    def __init__(self, old: Store, new: Store, *, nonce: Nonce = _random_step) -> None:
        self._old = old
        self._new = new
        self._nonce = nonce

    def wrapped(self, wrap: Callable[[Store], Store]) -> Store:
        """Return the same pair, each of its two stores within what ``wrap`` makes of it."""
        return migrating(wrap(self._old), wrap(self._new))

    async def create(self, record: Record) -> bool:
        """See :meth:`eyewall.core.store.Store.create`. The old store must not have the digest either."""
        try:
            if await self._old.load(record.digest) is not None:
                return False
        except DamagedRecordError:
            return False
        return await self._new.create(record)

    async def load(self, digest: bytes) -> Record | None:
        """See :meth:`eyewall.core.store.Store.load`. Moves nothing, because loading never writes."""
        found = _counting(await self._new.load(digest))
        if found is not None:
            return found
        left = await self._load_old(digest)
        if left is not None:
            return left
        return _counting(await self._new.load(digest))  # it may have moved between the two looks

    async def replace(self, record: Record, *, version: int) -> bool:
        """See :meth:`eyewall.core.store.Store.replace`.

        The first call for a session of the old store moves it and returns False: its version has changed.
        """
        if await self._new.replace(record, version=version):
            return True
        return await self.settle(record.digest) and await self._new.replace(record, version=version)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """See :meth:`eyewall.core.store.Store.touch`. Moves the session first."""
        return await self.settle(digest) and await self._new.touch(digest, seen_at, expires_at)

    async def delete(self, digest: bytes) -> bool:
        """See :meth:`eyewall.core.store.Store.delete`.

        Of several calls during a move, two may return True: one for each copy.
        """
        was_old = await self._old.delete(digest)  # first, so that a copy made from now on is void
        was_new = await self._new.delete(digest)
        return was_old or was_new

    async def sweep(self, now: datetime, limit: int) -> int:
        """See :meth:`eyewall.core.store.Store.sweep`. Sweeps the old store, then the new."""
        went = await self._old.sweep(now, limit)
        return went + await self._new.sweep(now, limit - went)

    async def check(self) -> None:
        """See :meth:`eyewall.core.store.SelfCheck.check`. Asks those of the two that can be asked."""
        for store in (self._old, self._new):
            if isinstance(store, SelfCheck):
                await store.check()

    def announcer(self) -> Announcer | None:
        """See :meth:`eyewall.core.announcing.Announcing.announcer`. The new store's, else the old one's."""
        return announcer_of(self._new) or announcer_of(self._old)

    async def close(self) -> None:
        """Close both stores."""
        try:
            await self._old.close()
        finally:
            await self._new.close()

    async def settle(self, digest: bytes) -> bool:
        """Move the session wholly to the new store, from wherever its move stands.

        Returns:
            False when neither store has it, live and readable.

        Raises:
            StoreUnavailable: one of the stores did not answer; calling again goes on from there.
        """
        for _ in range(_MOST_ROUNDS):
            try:
                found = await self._new.load(digest)
                if found is not None and not _is_copy(found):
                    return True
                if found is not None and found.successor == _DECIDED:
                    await self._finish(found)
                elif not await self._advance(digest, found):
                    return False
            except DamagedRecordError:
                return False
        raise StoreUnavailable(f"a session could not be moved in {_MOST_ROUNDS} attempts")

    async def _advance(self, digest: bytes, pending: Record | None) -> bool:
        """Make the copy, or decide ``pending``; False when there is nothing that could be moved."""
        left = await self._load_old(digest)
        if left is None:
            return await self._was_moved(digest)
        if pending is None:
            await self._new.create(_copy_of(left, left.version + self._nonce()))
        else:
            await self._new.replace(_next(pending, successor=_DECIDED), version=pending.version)
        return True

    async def _was_moved(self, digest: bytes) -> bool:
        found = await self._new.load(digest)
        if _counting(found) is not None:
            return True
        if found is not None:
            # A pending copy without its old record: what it was made from has been deleted since.
            await self._new.delete(digest)
        return False

    async def _finish(self, decided: Record) -> None:
        await self._old.delete(decided.digest)
        await self._new.replace(_settled(decided), version=decided.version)

    async def _load_old(self, digest: bytes) -> Record | None:
        # Copies are met here when a migration was turned round before it was complete.
        return _counting(await self._old.load(digest))


class _Indexed(Migrating):
    """With the capability ``PrincipalIndex``."""

    async def find_principal(self, principal: str) -> list[Record]:
        """See :meth:`eyewall.core.store.PrincipalIndex.find_principal`."""
        old, new = cast(PrincipalIndex, self._old), cast(PrincipalIndex, self._new)
        # The old store first: what moves in between is then found twice rather than not at all.
        left = [counting for record in await old.find_principal(principal) if (counting := _counting(record))]
        here = [counting for record in await new.find_principal(principal) if (counting := _counting(record))]
        return list({record.digest: record for record in (*left, *here)}.values())

    async def delete_principal(self, principal: str) -> int:
        """See :meth:`eyewall.core.store.PrincipalIndex.delete_principal`.

        A session that is being moved at this moment may count twice.
        """
        old, new = cast(PrincipalIndex, self._old), cast(PrincipalIndex, self._new)
        went = await old.delete_principal(principal)  # first, as in delete
        return went + await new.delete_principal(principal)


class _Scanned(Migrating):
    """With the capability ``Scan``."""

    async def scan(self) -> AsyncIterator[Record]:
        """See :meth:`eyewall.core.store.Scan.scan`. Only what moves during the walk may come twice."""
        async for record in cast(Scan, self._old).scan():
            if (counting := _counting(record)) is not None:
                yield counting
        async for record in cast(Scan, self._new).scan():
            if (counting := _counting(record)) is None:
                continue
            if _is_copy(record) and await self._is_left(record.digest):
                continue  # it has come already
            yield counting

    async def _is_left(self, digest: bytes) -> bool:
        try:
            return await self._load_old(digest) is not None
        except DamagedRecordError:
            return False


class _IndexedAndScanned(_Indexed, _Scanned):
    """With both capabilities."""


_CLASSES: Final[dict[tuple[bool, bool], type[Migrating]]] = {
    (False, False): Migrating,
    (True, False): _Indexed,
    (False, True): _Scanned,
    (True, True): _IndexedAndScanned,
}


def _copy_of(record: Record, version: int) -> Record:
    """Return the pending copy.

    It takes the place of the successor, so that a process that knows nothing of the move sees a marker and
    serves nothing. The true successor goes in front of the payload.
    """
    payload = (record.successor or _NO_SUCCESSOR) + record.payload
    return msgspec.structs.replace(record, version=version, payload=payload, successor=_PENDING)


def _is_copy(record: Record) -> bool:
    return record.successor in (_PENDING, _DECIDED)


def _counting(record: Record | None) -> Record | None:
    """Return what a record of either store stands for by itself: a pending copy for nothing."""
    if record is None or record.successor == _PENDING:
        return None
    return _settled(record) if record.successor == _DECIDED else record


def _settled(decided: Record) -> Record:
    """Return the record as step 6 leaves it; readers see it so from step 4 on."""
    cut = len(_NO_SUCCESSOR)
    successor, payload = decided.payload[:cut], decided.payload[cut:]
    return _next(decided, payload=payload, successor=None if successor == _NO_SUCCESSOR else successor)


def _next(record: Record, *, successor: bytes | None, payload: bytes | None = None) -> Record:
    return msgspec.structs.replace(
        record,
        version=record.version + 1,
        payload=record.payload if payload is None else payload,
        successor=successor,
    )
