"""The draft: what one request holds of a session between loading and saving it.

The draft knows what was loaded, what was changed since, and what must happen to the ID and the cookie. It
does no I/O and knows no clock; the manager reads it to decide what must be written. Handlers never see
it: they hold a :class:`~eyewall.core.session.Session`, which is the same thing as a mapping with verbs.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec

from eyewall.core.changes import NOBODY, Changes, Identity, identity_of
from eyewall.core.codec import MUTABLE_TYPES, decode_value, encode_value
from eyewall.core.payload import FlashEntry, Payload, empty_payload
from eyewall.core.record import Device, Record
from eyewall.errors import DamagedRecordError, SessionTooLargeError

MISSING: Final = object()
"""Stands for "no such key"; None is a value like any other."""

_KEY_OVERHEAD: Final = 4
_FLASH_OVERHEAD: Final = 16


class CookieAction(enum.Enum):
    """What the response has to tell the browser about the session cookie."""

    KEEP = "keep"
    SET = "set"
    DELETE = "delete"


class Doomed(NamedTuple):
    """A session that must go, and who was signed in to it."""

    digest: bytes
    principal: str | None


class Leaving(NamedTuple):
    """A sign-out that ends more than its own session.

    Args:
        digest: of its own session, which goes last; None when it is not stored.
        who: was signed in; None when that has to be found out, because the session got a new ID meanwhile.
        everywhere: whether all devices go, or the other sessions and the token of this one.
    """

    digest: bytes | None
    who: Identity | None
    everywhere: bool


class Draft:
    """One request's working copy of a session.

    Args:
        max_size: largest stored form (bytes).
        in_cookie: whether the session lives in its own cookie.
        cookie_lines: the request's ``Cookie`` header lines.
        https: whether the browser's connection is encrypted.
    """

    # What most requests never touch is not made for them: these stand for "nothing yet".
    record: Record | None = None
    payload: Payload = empty_payload()
    changes: Changes | None = None
    session_id: str | None = None
    brought_cookie = False
    moved_from: bytes | None = None
    life: object = "the first"  # another one after destroy(): saves under way must not bring this one back
    names_sent: Sequence[str] = ()
    whence: Callable[[], Device] | None = None  # tells where the request comes from
    cookie = CookieAction.KEEP
    doomed: tuple[Doomed, ...] = ()
    leaving: tuple[Leaving, ...] = ()
    remembered = False  # whether the browser brought a remember token
    issued: object = None  # the remember token that this request has given it
    remember: bool | None = None  # True: give it a new one; False: end the one it brought
    renew = False
    restart = False
    now_messages: Sequence[FlashEntry] = ()
    _size = 0

    def __init__(
        self,
        max_size: int,
        *,
        in_cookie: bool = False,
        cookie_lines: Sequence[str] = (),
        https: bool = False,
    ) -> None:
        self.max_size = max_size
        self.in_cookie = in_cookie
        self.cookie_lines = cookie_lines
        self.https = https
        self.companions: dict[str, str] = {}  # Set-Cookie lines of the cookies beside ours, by their names
        self._values: dict[str, Any] = {}
        self._seen: dict[str, bytes] = {}

    # -- reading ------------------------------------------------------------------------------------------

    @property
    def principal(self) -> str | None:
        """Who is signed in, as this request sees it."""
        return self.identity.principal

    @property
    def identity(self) -> Identity:
        """The principal and when they proved who they are, as this request sees it."""
        if self.changes is not None and self.changes.identity is not None:
            return self.changes.identity
        return identity_of(self.payload)

    def read(self, key: str) -> Any:
        """Return the value of ``key``, decoding it at the first use, or MISSING."""
        value = self._values.get(key, MISSING)
        if value is not MISSING:
            return value
        raw = self._encoded(key)
        if raw is None:
            return MISSING
        try:
            value = decode_value(raw)
        except DamagedRecordError:
            # The payload's checksum held, so someone with access to the store wrote this on purpose.
            return MISSING
        self._remember(key, value, raw)
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

    def _encoded(self, key: str) -> bytes | None:
        changes = self.changes
        if changes is not None:
            if key in changes.assigned:
                return changes.assigned[key]
            if changes.cleared or key in changes.deleted:
                return None
        raw = self.payload.data.get(key)
        return None if raw is None else bytes(raw)

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
        self._make_room(_stored_length(key, encoded) - self._length(key), f"session[{_shown(key)}]")
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

    def clear(self) -> None:
        """Drop the data, the messages and the principal. With a principal goes the ID."""
        # Also when an earlier clear() of this request has signed them out already, but is not stored yet.
        signed_in = self.principal is not None or self.payload.principal is not None
        self._leave()
        self.changes = Changes(cleared=True, identity=NOBODY if signed_in else None)
        self.renew = self.renew or signed_in
        self._end_remember_token()
        self._values.clear()
        self._seen.clear()
        self.now_messages = ()
        self._size = 0

    def destroy(self, *, everywhere: bool = False) -> None:
        """Note that the record must go; what is set afterwards starts a new session.

        Args:
            everywhere: all other sessions of who is signed in must go, too.
        """
        self._leave(everywhere=everywhere)
        if self.record is not None:
            self.doomed += (Doomed(self.record.digest, self.record.principal),)
        elif self.moved_from is not None:
            self.doomed += (Doomed(self.moved_from, None),)
        self._end_remember_token()
        if self.brought_cookie or self.record is not None:
            self.cookie = CookieAction.DELETE
        self.now_messages = ()
        self.forget()

    def identify(self, identity: Identity, *, remember: bool = False) -> None:
        """Attach a principal: a new ID, fresh timeouts, and nothing of anybody else's data.

        Args:
            identity: who, with a device ID for the case that the session has none yet.
            remember: give the browser a remember token, once this is stored.
        """
        before = self.identity
        if before.principal not in (None, identity.principal):
            self.clear()
        elif before.principal is not None and before.device_id is not None:
            identity = replace(identity, device_id=before.device_id)  # proven again, on the same device
        elif before.principal is None:
            self._end_remember_token()  # whoever was remembered here before
        self.pending.identity = identity
        self.renew = self.restart = True
        self.remember = True if remember else self.remember

    def _leave(self, *, everywhere: bool = False) -> None:
        who = self.identity if self.identity.principal is not None else identity_of(self.payload)
        unknown = who.principal is None and self.record is None and self.moved_from is not None
        if (who.principal is not None or unknown) and (everywhere or self.remembered or self.issued):
            digest = self.moved_from if self.record is None else self.record.digest
            self.leaving += (Leaving(digest, None if unknown else who, everywhere),)

    def _end_remember_token(self) -> None:
        self.remember = False if self.remembered or self.issued else None

    def add_flash(self, entry: FlashEntry) -> None:
        """Queue a message for whoever reads it first."""
        texts = len(entry.key.encode()) + len(entry.category.encode()) + memoryview(entry.value).nbytes
        self._make_room(texts + _FLASH_OVERHEAD, f"flash message {_shown(entry.key)}")
        self.pending.flashed.append(entry)

    def unread_flash(self) -> list[FlashEntry]:
        """The messages that wait, oldest first: this request's own and those just for now included."""
        changes = self.changes
        if changes is None:
            return [*self.payload.flash, *self.now_messages]
        stored = [] if changes.cleared else [e for e in self.payload.flash if e.id not in changes.taken]
        return [*stored, *changes.flashed, *self.now_messages]

    def take_flash(self, entries: list[FlashEntry]) -> None:
        """Mark messages as read. Those never stored simply vanish."""
        ids = {entry.id for entry in entries}
        self.now_messages = [entry for entry in self.now_messages if entry.id not in ids]
        stored = {entry.id for entry in self.payload.flash} & ids
        if self.changes is not None:
            self.changes.flashed = [entry for entry in self.changes.flashed if entry.id not in ids]
        if stored:
            self.pending.taken |= stored

    def keep_flash(self, entries: list[FlashEntry]) -> None:
        """Take back that messages were read, so that the next page finds them too."""
        waiting = {entry.id for entry in self.unread_flash()}
        stored = {entry.id for entry in self.payload.flash}
        for entry in entries:
            if entry.id in stored:
                self.pending.taken.discard(entry.id)
            elif entry.id not in waiting:
                self.add_flash(entry)

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

    def _remember(self, key: str, value: Any, encoded: bytes) -> None:
        self._values[key] = value
        if type(value) in MUTABLE_TYPES:
            self._seen[key] = encoded
        else:
            self._seen.pop(key, None)

    def _forget(self, key: str) -> None:
        self._values.pop(key, None)
        self._seen.pop(key, None)

    def notice_nested_changes(self) -> None:
        """Turn changes inside lists, dicts and sets into assignments.

        Raises:
            UnstorableValueError: something that cannot be stored was put inside.
        """
        for key, seen in list(self._seen.items()):
            encoded = encode_value(key, self._values[key])
            if encoded != seen:
                self._size += len(encoded) - self._length(key)
                self._record_assignment(key, encoded)
                self._seen[key] = encoded

    # -- size ---------------------------------------------------------------------------------------------

    def _length(self, key: str) -> int:
        raw = self._encoded(key)
        return 0 if raw is None else _stored_length(key, raw)

    def _make_room(self, growth: int, what: str) -> None:
        if growth > 0 and self._size + growth > self.max_size:
            raise SessionTooLargeError(
                f"{what} would make this session {self._size + growth} bytes; max_size is {self.max_size}. "
                "Keep large data elsewhere and its key in the session, or raise max_size."
            )
        self._size += growth

    # -- for the manager ----------------------------------------------------------------------------------

    def has_sweeping_changes(self) -> bool:
        """Whether something is noted that touches more than single keys."""
        cleared = self.changes is not None and (self.changes.cleared or self.changes.identity is not None)
        return bool(cleared or self.doomed or self.renew)

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

    def settle_if(self, life: object, stored: tuple[Record, Payload]) -> None:
        """Note what is stored now, unless the session was destroyed since ``life`` was looked at."""
        if self.life is life:
            self.settle(*stored)

    def note_stored(self, key: str, value: Any) -> None:
        """Note that ``value`` is stored under ``key``; other changes still wait."""
        if self.changes is not None:
            self.changes.assigned.pop(key, None)
            self.changes.deleted.discard(key)
        # Compared with this request's own value: what is stored may be a later one, written together with it.
        self._remember(key, value, encode_value(key, value))

    def forget(self) -> None:
        """Become a new visitor's draft: what was loaded is gone, and the changes with it."""
        self.life = object()
        self.record, self.payload, self.changes = None, empty_payload(), None
        self.session_id, self.renew, self.restart = None, False, False
        self._values.clear()
        self._seen.clear()
        self._size = 0

    def has_unsaved_changes(self) -> bool:
        """Whether anything waits to be stored, changes inside nested values included."""
        self.notice_nested_changes()
        return self.has_work()

    def has_work(self) -> bool:
        """Whether anything was asked for that has not been stored yet (nested changes not looked at)."""
        return bool(
            self.changes
            or self.doomed
            or (self.renew and self.record is not None)
            or self.remember is False
            or self.leaving
        )

    def take_changes(self) -> Changes:
        """Hand over the changes; the view stays as if they were stored."""
        changes = self.changes or Changes()
        self.changes = None
        self.payload = changes.apply_to(self.payload) if changes else self.payload
        return changes

    def settle(self, record: Record | None, payload: Payload) -> None:
        """Note what is stored now. Values already read stay as this request saw them."""
        self.record, self.payload = record, payload
        self._size = len(record.payload) if record is not None else 0

    def refresh(self, record: Record, payload: Payload) -> None:
        """Take over what others have stored since; what this one changed and has not stored stays."""
        known = self.record
        if known is not None and record.digest == known.digest and record.version <= known.version:
            if record.version == known.version and record.seen_at >= known.seen_at:
                self.record = record  # only its times can differ
            return  # an answer that was on its way while this one stored something
        unsaved = self.has_unsaved_changes()
        self.settle(record, payload)
        if not unsaved:
            self.forget_values()

    def forget_values(self) -> None:
        """Read everything anew from what is stored."""
        self._values.clear()
        self._seen.clear()

    def take_back_sign_in(self, changes: Changes, payload: Payload) -> None:
        """As :meth:`give_back`, after a sign-in that was refused: without it, and all that came of it."""
        self.renew = self.restart = False
        self.remember = None
        self.give_back(Changes() if changes.cleared else replace(changes, identity=None), payload)

    def give_back(self, changes: Changes, payload: Payload) -> None:
        """Undo :meth:`take_changes` after a failed save, so that it can be tried again."""
        self.payload = payload
        self.changes = changes.followed_by(self.changes)


def _stored_length(key: str, encoded: bytes) -> int:
    return len(encoded) + len(key.encode()) + _KEY_OVERHEAD


def _shown(key: str) -> str:
    return repr(key if len(key) <= 40 else f"{key[:40]}...")
