"""The store contract: six verbs over records, and the capabilities a store may add.

A store only keeps, compares and swaps. Merging, timeouts and cookies are decided elsewhere, once.
``eyewall.testing.STORE_CHECKS`` turns every sentence below into a check that any store can run.

Words used below. A record is *there* when the store holds it; it is *live* when it is there and its
``expires_at`` is later than the store's clock. Every store takes ``clock``, a callable that returns the
current time as an aware UTC ``datetime``; the server's own clock decides nothing.

Every method may raise :class:`~eyewall.errors.StoreUnavailable` when the store cannot be reached or
refuses; then the effect is unknown (for writes) but never partial: a record is the old one or the new
one. Methods may be called concurrently, from many processes, and may be cancelled at any point; a
cancelled call leaves no damage and never hands its result to another call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from eyewall.core.record import Record

Clock = Callable[[], datetime]
"""Returns the current time as an aware ``datetime`` in UTC."""


def utc_now() -> datetime:
    """The real clock: the current time in UTC."""
    return datetime.now(UTC)


class Store(Protocol):
    """A place that keeps records."""

    async def create(self, record: Record) -> bool:
        """Insert ``record``; never overwrite.

        Returns:
            True when it was inserted; False when a record with this digest is already there, even a
            dead one. The record that is there is left exactly as it was. Of many concurrent calls with
            one digest, one returns True.
        """

    async def load(self, digest: bytes) -> Record | None:
        """Return the live record of ``digest`` exactly as it was written, or None.

        A record that is there but not live gives None. Loading never writes.

        Raises:
            DamagedRecordError: something is there but cannot be read as a record (truncated, foreign,
                another format version).
        """

    async def replace(self, record: Record, *, version: int) -> bool:
        """Compare-and-swap: put ``record`` in the place of the one with its digest.

        Happens only if a record is there, is live, and has version ``version``. ``record.version`` is
        ``version + 1``; the caller sees to that. ``record.expires_at`` may lie in the past: then no later
        call finds the record live, and the store may drop it at once.

        Returns:
            True when it was replaced; False when the record is gone, dead, damaged or changed since.
            It never brings a deleted record back. Of many concurrent calls with one version, one
            returns True.
        """

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """Set ``seen_at`` and ``expires_at`` of a live record, leaving all else, also its version.

        Returns:
            False when the record is not live (or damaged); it is not brought back.
        """

    async def delete(self, digest: bytes) -> bool:
        """Remove the record; wins over everything in flight.

        After it returns no ``replace`` or ``touch`` brings the record back, however early that call
        began.

        Returns:
            True when a record was there, dead or damaged ones included; False when none was.
        """

    async def sweep(self, now: datetime, limit: int) -> int:
        """Remove at most ``limit`` records whose ``expires_at`` is at or before ``now``.

        Live records are never touched. A store whose server expires records by itself may find nothing.

        Returns:
            How many records went. Fewer than ``limit`` means nothing more was due.
        """

    async def close(self) -> None:
        """Release connections, files and threads. Closing twice does nothing more."""


@runtime_checkable
class KeepsTime(Protocol):
    """Capability: every call ends by itself in time, so that nobody else needs to watch the clock for it."""

    longest_wait: float
    """Seconds after which any call has ended: done, or failed with StoreUnavailable.

    Counts where the store's own class has it; derived classes have to say it again.
    """


@runtime_checkable
class SelfCheck(Protocol):
    """Capability: says at the application's start whether the store can be used."""

    async def check(self) -> None:
        """Do what serving will need: connect, sign in, read; or write where the records will be.

        May be called more than once and leaves nothing behind but what the store would make at first use.

        Raises:
            ConfigurationError: a person must mend something: the host's name, the password, the database,
                a folder's rights. One line that says what, without the password.
            StoreUnavailable: nobody answers in time, which may pass without anybody's doing.
        """


@runtime_checkable
class PrincipalIndex(Protocol):
    """Capability: finds the records of one principal without looking at all records."""

    async def find_principal(self, principal: str) -> list[Record]:
        """Return every live record of ``principal``, in no particular order; empty when none.

        Damaged records are left out.
        """

    async def delete_principal(self, principal: str) -> int:
        """Delete every record of ``principal``; return how many there were."""


@runtime_checkable
class Scan(Protocol):
    """Capability: walks over all live records, for migration and operators' pages."""

    def scan(self) -> AsyncIterator[Record]:
        """Yield every live record that is there during the whole walk at least once.

        Records created or deleted meanwhile may or may not come. Damaged records are left out.
        """
