"""The store of client-side sessions: none at all. The browser keeps the record, sealed."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from eyewall.core.record import Record
from eyewall.core.store import Clock
from eyewall.settings import Settings


class InCookie:
    """Stands where a store is expected, for sessions that live in their own cookie.

    A request's own cookie holds the only copy it knows of, so every write succeeds and there is nothing to
    load, list, revoke or sweep. It therefore is no :class:`~eyewall.core.store.Store` in full: what was
    deleted here can come back with a copied cookie, and ``STORE_CHECKS`` does not apply.
    """

    @classmethod
    def from_settings(cls, _settings: Settings, _clock: Clock) -> Self:
        """Return it; there is nothing to set."""
        return cls()

    async def create(self, _record: Record) -> bool:
        """The record will be in the cookie."""
        return True

    async def load(self, _digest: bytes) -> Record | None:
        """Nothing is kept here."""
        return None

    async def replace(self, _record: Record, *, version: int) -> bool:  # noqa: ARG002 - the contract's word
        """No other writer can be seen from here."""
        return True

    async def touch(self, _digest: bytes, _seen_at: datetime, _expires_at: datetime) -> bool:
        """The new times will be in the cookie."""
        return True

    async def delete(self, _digest: bytes) -> bool:
        """The cookie will be deleted."""
        return True

    async def sweep(self, _now: datetime, _limit: int) -> int:
        """Browsers sweep for themselves."""
        return 0

    async def close(self) -> None:
        """Nothing is open."""
