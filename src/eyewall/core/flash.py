"""Flash messages: written by one request, read once by the next page."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from eyewall.core.codec import decode_value, encode_value
from eyewall.core.draft import Draft
from eyewall.core.draft_values import MISSING
from eyewall.core.payload import FlashEntry
from eyewall.errors import DamagedRecordError


class UseNote(Protocol):
    """Tells the session that it is used; refuses when it cannot be."""

    def __call__(self, *, changing: bool) -> None:
        """Note a use that does or does not change the session."""


TakeStored = Callable[[str | None], Awaitable[list[FlashEntry]]]
"""Removes the stored messages under a key, or all; returns those that this call removed."""


class FlashMessage(NamedTuple):
    """One message as read back."""

    category: str
    value: Any


class Flash:
    """The messages of one session: ``session.flash``.

    ``flash(key, value)`` writes and ``flash(key)`` reads once. A message that nobody reads waits until it
    is read or the session ends. Several messages may wait under one key; :meth:`messages` reads them all.

    Requests that show nothing to the user never use a message up: HEAD, an answer of 304, a prefetch
    (``Sec-Purpose: prefetch``), and an answer of 500 or more.
    """

    __slots__ = ("_consuming", "_draft", "_read", "_take_stored", "_use")

    def __init__(self, draft: Draft, use: UseNote, take_stored: TakeStored, *, consuming: bool) -> None:
        self._take_stored = take_stored
        self._draft = draft
        self._use = use
        self._consuming = consuming
        self._read: list[FlashEntry] = []

    def __call__(self, key: str, value: Any = MISSING, *, category: str = "info") -> Any:
        """With a value: queue it under ``key``. Without: read ``key`` once.

        Args:
            key: any text.
            value: anything a session can store, None included.
            category: what kind of message it is, for :meth:`messages`; "info", "success", "error", ….

        Returns:
            When reading: the newest message under ``key``, or None. All messages under ``key`` are read
            by that; use :meth:`messages` to see each.
        """
        if value is not MISSING:
            self._use(changing=True)
            self._draft.add_flash(_entry(key, value, category))
            return None
        found = self._take(key)
        return found[-1].value if found else None

    def messages(self, key: str | None = None) -> list[FlashMessage]:
        """Read once: every message under ``key`` (or under any key), oldest first."""
        return self._take(key)

    async def take(self, key: str | None = None) -> list[FlashMessage]:
        """Read once, across all connections and processes: each stored message is given to exactly one taker.

        For WebSockets and streams, which stay open while messages come; a page has :meth:`messages`.

        Raises:
            StoreUnavailable: whether they were taken is unknown.
        """
        return _readable(await self._take_stored(key))

    def peek(self, key: str, default: Any = None) -> Any:
        """Return the newest message under ``key`` and leave it waiting."""
        self._use(changing=False)
        found = _readable(self._waiting(key))
        return found[-1].value if found else default

    def keep(self, key: str | None = None) -> None:
        """Let messages that this request has read (under ``key``, or all) be read again by the next."""
        self._use(changing=True)
        kept = [entry for entry in self._read if key is None or entry.key == key]
        self._draft.keep_flash(kept)
        self._read = [entry for entry in self._read if entry not in kept]

    def now(self, key: str, value: Any, *, category: str = "info") -> None:
        """Show a message on the page being rendered by this very request; it is never stored."""
        self._use(changing=False)
        self._draft.now_messages = [*self._draft.now_messages, _entry(key, value, category)]

    def _waiting(self, key: str | None) -> list[FlashEntry]:
        return [entry for entry in self._draft.unread_flash() if key is None or entry.key == key]

    def _take(self, key: str | None) -> list[FlashMessage]:
        self._use(changing=False)
        found = self._waiting(key)
        if found and self._consuming:
            self._use(changing=True)
            self._draft.take_flash(found)
            self._read += found
        return _readable(found)


def _readable(entries: list[FlashEntry]) -> list[FlashMessage]:
    messages = []
    for entry in entries:
        # A value that was tampered with in the store is left out; the page must still come.
        with contextlib.suppress(DamagedRecordError):
            messages.append(FlashMessage(entry.category, decode_value(entry.value)))
    return messages


def _entry(key: str, value: Any, category: str) -> FlashEntry:
    encoded = encode_value(key, value)
    encode_value(key, [key, category])  # both must be text that can be stored
    return FlashEntry(secrets.token_bytes(6), key, category, msgspec.Raw(encoded))
