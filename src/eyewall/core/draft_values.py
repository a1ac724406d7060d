"""The values of one session as one request sees them: what was loaded, and on top of it what it changed.

A value is decoded at its first use, and encoded when it is set, so that what cannot be stored is refused
where it is put in. Lists, dicts and sets are encoded again before saving and compared, because a handler may
change their inside without telling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from eyewall.core.changes import Changes
from eyewall.core.codec import MUTABLE_TYPES, decode_value, encode_value
from eyewall.core.payload import Payload, empty_payload
from eyewall.errors import DamagedRecordError, SessionTooLargeError, UnstorableValueError

MISSING: Final = object()
"""Stands for "no such key"; None is a value like any other."""

_KEY_OVERHEAD: Final = 4


class DraftValues:
    """The keys and values of a draft, and the room they take."""

    # What most requests never touch is not made for them: these stand for "nothing yet".
    payload: Payload = empty_payload()
    changes: Changes | None
    seen: dict[str, bytes] | None  # the encoded form of the values read that can change in place
    _size = 0

    # Set by the draft itself: one is made for each request, and a second __init__ would be a call more.
    max_size: int
    is_idle: bool
    _values: dict[str, Any]

    # -- reading ------------------------------------------------------------------------------------------

    def read(self, key: str, default: Any = MISSING) -> Any:
        """Return the value of ``key``, decoding it at the first use, or ``default``."""
        values = self._values
        if key in values:
            return values[key]
        raw = self.payload.data.get(key) if self.changes is None else self._encoded(key)
        if raw is None:
            return default
        try:
            value = decode_value(raw)
        except DamagedRecordError:
            # The payload's checksum held, so someone with access to the store wrote this on purpose.
            return default
        values[key] = value
        if type(value) in MUTABLE_TYPES:
            self._look_at(key, raw)
        return value

    def has(self, key: str) -> bool:
        """Whether ``key`` is set, without decoding its value."""
        return key in self._values or self._encoded(key) is not None

    def names(self) -> Iterator[str]:
        """Yield the keys as this request sees them: stored ones in their order, then new ones."""
        changes = self.changes
        if changes is None:
            yield from list(self.payload.data)
            return
        stored = [] if changes.cleared else [k for k in self.payload.data if k not in changes.deleted]
        yield from stored
        known = set(stored)
        yield from [key for key in changes.assigned if key not in known]

    def _encoded(self, key: str) -> bytes | msgspec.Raw | None:
        changes = self.changes
        if changes is not None:
            if key in changes.assigned:
                return changes.assigned[key]
            if changes.cleared or key in changes.deleted:
                return None
        return self.payload.data.get(key)

    # -- changing -----------------------------------------------------------------------------------------

    @property
    def pending(self) -> Changes:
        """The change set, made at the first change."""
        if self.changes is None:
            self.changes = Changes()
        return self.changes

    def assign(self, key: str, value: object) -> None:
        """Set ``key``; raises UnstorableValueError or SessionTooLargeError and then changes nothing."""
        encoded = encode_value(key, value)
        self._make_room(self._growth(key, encoded), "session[{}]", key)
        self._record_assignment(key, encoded)
        self._remember(key, value, encoded)

    def delete(self, key: str) -> bool:
        """Remove ``key``; return whether it was there."""
        if not self.has(key):
            return False
        self._size -= self._length(key)
        self._forget(key)
        self.pending.assigned.pop(key, None)
        if key in self.payload.data and not self.pending.cleared:
            self.pending.deleted.add(key)
        return True

    def _record_assignment(self, key: str, encoded: bytes) -> None:
        changes = self.pending
        stored = self.payload.data.get(key)
        if stored is not None and not changes.cleared and bytes(stored) == encoded:
            # As it already is: nothing to write, and nothing to put over a parallel request's value.
            changes.assigned.pop(key, None)
        else:
            changes.assigned[key] = encoded
        changes.deleted.discard(key)

    # -- watching values that can change in place ---------------------------------------------------------

    def _remember(self, key: str, value: Any, encoded: bytes | msgspec.Raw) -> None:
        self._values[key] = value
        if type(value) in MUTABLE_TYPES:
            self._look_at(key, encoded)
        elif self.seen is not None:
            self.seen.pop(key, None)

    def _look_at(self, key: str, encoded: bytes | msgspec.Raw) -> None:
        if self.seen is None:
            self.seen = {}
        self.seen[key] = bytes(encoded)

    def _forget(self, key: str) -> None:
        self._values.pop(key, None)
        if self.seen is not None:
            self.seen.pop(key, None)

    def forget_values(self) -> None:
        """Read everything anew from what is stored."""
        self._values.clear()
        self.seen = None

    def notice_nested_changes(self) -> None:
        """Turn changes inside lists, dicts and sets into assignments.

        Raises:
            UnstorableValueError: something that cannot be stored was put inside.
        """
        if self.seen is None:
            return  # nearly always
        for key, seen in list(self.seen.items()):
            encoded = self._encoded_again(key, seen)
            if encoded != seen:
                self._size += self._growth(key, encoded)
                self._record_assignment(key, encoded)
                self.seen[key] = encoded

    def _encoded_again(self, key: str, seen: bytes) -> bytes:
        try:
            return encode_value(key, self._values[key])
        except UnstorableValueError:
            # Somebody else may have stored what we would have refused, such as deeper lists. Whoever has only
            # looked at it can do nothing about that, so it stays as it is.
            if _is_still(self._values[key], seen):
                return seen
            raise

    # -- size ---------------------------------------------------------------------------------------------

    def _length(self, key: str) -> int:
        raw = self._encoded(key)
        return 0 if raw is None else _stored_length(key, raw)

    def _growth(self, key: str, encoded: bytes) -> int:
        raw = self._encoded(key)
        return _stored_length(key, encoded) if raw is None else len(encoded) - memoryview(raw).nbytes

    def _make_room(self, growth: int, what: str, key: str) -> None:
        """Count ``growth`` (bytes), or refuse it: ``what`` has ``{}`` where ``key`` is to be shown."""
        if growth > 0 and self._size + growth > self.max_size:
            raise SessionTooLargeError(
                f"{what.format(shown(key))} would make this session {self._size + growth} bytes; max_size is "
                f"{self.max_size}. Keep large data elsewhere and its key in the session, or raise max_size."
            )
        self._size += growth

    # -- for the manager ----------------------------------------------------------------------------------

    def view_of(self, key: str) -> Callable[[Payload], bytes | msgspec.Raw | None]:
        """Return how to find ``key``'s encoded value in a payload, seen through this request's changes."""
        self.notice_nested_changes()
        changes = self.changes
        if changes is not None and key in changes.assigned:
            mine = changes.assigned[key]
            return lambda _: mine
        if changes is not None and key in changes.deleted:
            return lambda _: None
        return lambda payload: payload.data.get(key)

    def note_stored(self, key: str, value: Any) -> None:
        """Note that ``value`` is stored under ``key``; other changes still wait."""
        if self.changes is not None:
            self.changes.assigned.pop(key, None)
            self.changes.deleted.discard(key)
        # Compared with this request's own value: what is stored may be a later one, written together with it.
        self._remember(key, value, encode_value(key, value))


def _is_still(value: object, encoded: bytes) -> bool:
    # As text: 1 and True are equal, NaN is not equal to itself, and a list that contains itself has an end.
    try:
        return repr(value) == repr(decode_value(encoded))
    except (DamagedRecordError, RecursionError):
        return False


def _stored_length(key: str, encoded: bytes | msgspec.Raw) -> int:
    return memoryview(encoded).nbytes + len(key.encode()) + _KEY_OVERHEAD


def shown(key: str) -> str:
    """Return ``key`` for an error message: quoted, and not at any length."""
    return repr(key if len(key) <= 40 else f"{key[:40]}...")
