"""The draft: what one request holds of a session between loading and saving it.

The draft knows what was loaded, what was changed since, and what must happen to the ID and the cookie. It
does no I/O and knows no clock; the manager reads it to decide what must be written. Handlers never see
it: they hold a :class:`~eyewall.core.session.Session`, which is the same thing as a mapping with verbs.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from eyewall.core.changes import NOBODY, Changes, Identity, identity_of
from eyewall.core.draft_values import DraftValues
from eyewall.core.payload import FlashEntry, Payload, empty_payload
from eyewall.core.record import Device, Record

_FLASH_OVERHEAD: Final = 16
_NO_COOKIES: Final[Mapping[str, str]] = MappingProxyType({})
_T = TypeVar("_T")


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


class _Work(Generic[_T]):
    """A field of a draft that means work for the manager; setting it marks the draft as not idle.

    Nearly no request sets one, and every request asks whether there is work: so it asks for one mark instead
    of each field, and no field can be forgotten.
    """

    def __init__(self, nothing: _T) -> None:
        self._nothing = nothing

    def __set_name__(self, owner: type, name: str) -> None:
        hidden = f"_work_{name}"

        def note(draft: Draft, value: _T) -> None:
            draft.is_idle = False
            setattr(draft, hidden, value)

        setattr(owner, hidden, self._nothing)
        # A property that reads by attrgetter runs no line of Python.
        setattr(owner, name, property(attrgetter(hidden), note))

    if TYPE_CHECKING:

        def __get__(self, draft: Draft, owner: type) -> _T: ...

        def __set__(self, draft: Draft, value: _T) -> None: ...


class Whence(Protocol):
    """Tells about the request behind a draft; asked only where it matters, which is seldom."""

    def device(self) -> Device:
        """Return where the request comes from."""

    def shows_a_page(self) -> bool:
        """Return whether a person will see the answer, so that flash messages it reads are used up.

        Not for HEAD and prefetches.
        """


class Draft(DraftValues):
    """One request's working copy of a session: its values, who is signed in, its messages, its end.

    Args:
        max_size: largest stored form (bytes).
        in_cookie: whether the session lives in its own cookie.
        cookie_lines: the request's ``Cookie`` header lines.
        https: whether the browser's connection is encrypted.
        whence: tells about the request, where there is one.
    """

    # What most requests never touch is not made for them: these stand for "nothing yet".
    record: Record | None
    session_id: str | None
    brought_cookie = False
    moved_from: bytes | None = None
    life: object = "the first"  # another one after destroy(): saves under way must not bring this one back
    names_sent: Sequence[str] = ()
    sealed: tuple[object, Record, list[str]] | None = None  # by which cookie, what, and its Set-Cookie lines
    cookie: CookieAction
    companions: Mapping[str, str]  # Set-Cookie lines of cookies beside ours, by name
    doomed = _Work[tuple[Doomed, ...]](())
    leaving = _Work[tuple[Leaving, ...]](())
    remembered = False  # whether the browser brought a remember token
    brought_back = _Work[bytes | None](None)  # digest of the session a remember token started or joined
    issued: object = None  # the remember token that this request has given it
    remember = _Work[bool | None](None)  # True: give it a new one; False: end the one it brought
    renew = _Work[bool](False)
    restart = False
    if_refused: Callable[[], None] | None = None  # called when a sign-in is taken back
    now_messages: Sequence[FlashEntry] = ()

    def __init__(
        self,
        max_size: int,
        in_cookie: bool = False,  # noqa: FBT001, FBT002 - by position, see Manager.open()
        cookie_lines: Sequence[str] = (),
        https: bool = False,  # noqa: FBT001, FBT002 - as above
        whence: Whence | None = None,
    ) -> None:
        self.max_size = max_size
        self.in_cookie = in_cookie
        self.cookie_lines = cookie_lines
        self.https = https
        self.whence = whence
        # What every request reads is found faster here than as a default of the class.
        self.record = self.session_id = self.changes = self.seen = None
        self.is_idle = True
        self.cookie = CookieAction.KEEP
        self.companions = _NO_COOKIES
        self._values = {}

    # -- who is signed in ---------------------------------------------------------------------------------

    @property
    def principal(self) -> str | None:
        """Who is signed in, as this request sees it."""
        changes = self.changes
        if changes is not None and changes.identity is not None:
            return changes.identity.principal
        return self.payload.principal

    @property
    def identity(self) -> Identity:
        """The principal and when they proved who they are, as this request sees it."""
        if self.changes is not None and self.changes.identity is not None:
            return self.changes.identity
        return identity_of(self.payload)

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

    # -- emptying and ending ------------------------------------------------------------------------------

    def clear(self) -> None:
        """Drop the data, the messages and the principal. With a principal goes the ID."""
        # Also when an earlier clear() of this request has signed them out already, but is not stored yet.
        signed_in = self.principal is not None or self.payload.principal is not None
        self._leave()
        self.changes = Changes(cleared=True, identity=NOBODY if signed_in else None)
        self.renew = self.renew or signed_in
        self._end_remember_token()
        self.forget_values()
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

    def _leave(self, *, everywhere: bool = False) -> None:
        who = self.identity if self.identity.principal is not None else identity_of(self.payload)
        unknown = who.principal is None and self.record is None and self.moved_from is not None
        if (who.principal is not None or unknown) and (everywhere or self.remembered or self.issued):
            digest = self.moved_from if self.record is None else self.record.digest
            self.leaving += (Leaving(digest, None if unknown else who, everywhere),)

    def _end_remember_token(self) -> None:
        self.remember = False if self.remembered or self.issued else None

    # -- flash messages -----------------------------------------------------------------------------------

    def add_flash(self, entry: FlashEntry) -> None:
        """Queue a message for whoever reads it first."""
        texts = len(entry.key.encode()) + len(entry.category.encode()) + memoryview(entry.value).nbytes
        self._make_room(texts + _FLASH_OVERHEAD, "flash message {}", entry.key)
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

    # -- cookies beside ours ------------------------------------------------------------------------------

    def send_along(self, name: str, line: str | None) -> None:
        """Let the answer carry this ``Set-Cookie`` line for the cookie ``name``; None takes it back."""
        others = {known: set_to for known, set_to in self.companions.items() if known != name}
        self.companions = others if line is None else {**others, name: line}

    # -- for the manager ----------------------------------------------------------------------------------

    def has_sweeping_changes(self) -> bool:
        """Whether something is noted that touches more than single keys."""
        cleared = self.changes is not None and (self.changes.cleared or self.changes.identity is not None)
        return bool(cleared or self.doomed or self.renew)

    def settle_if(self, life: object, stored: tuple[Record, Payload]) -> None:
        """Note what is stored now, unless the session was destroyed since ``life`` was looked at."""
        if self.life is life:
            self.settle(*stored)

    def forget(self) -> None:
        """Become a new visitor's draft: what was loaded is gone, and the changes with it."""
        self.life = object()
        self.record, self.payload, self.changes = None, empty_payload(), None
        self.session_id, self.renew, self.restart = None, False, False
        self.forget_values()
        self._size = 0

    def has_unsaved_changes(self) -> bool:
        """Whether anything waits to be stored, changes inside nested values included."""
        self.notice_nested_changes()
        return self._has_changes()

    def has_work(self) -> bool:
        """Whether the answer has to wait for anything (nested changes are not looked at)."""
        if self.changes is None and self.is_idle:
            return False  # nearly always
        return self._has_changes() or self.brought_back is not None

    def _has_changes(self) -> bool:
        if self.changes:
            return True
        if self.is_idle:
            return False
        renewed = self.renew and self.record is not None
        return bool(self.doomed or renewed or self.remember is False or self.leaving)

    def take_changes(self) -> Changes:
        """Hand over the changes; the view stays as if they were stored."""
        changes, self.changes = self.changes, None
        if changes is None:
            return Changes()
        if changes:
            self.payload = changes.apply_to(self.payload)
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

    def take_back_sign_in(self, changes: Changes, payload: Payload) -> None:
        """As :meth:`give_back`, after a sign-in that was refused: without it, and all that came of it."""
        self.renew = self.restart = False
        self.remember = None
        if self.if_refused is not None:
            self.if_refused()
        self.give_back(Changes() if changes.cleared else replace(changes, identity=None), payload)

    def give_back(self, changes: Changes, payload: Payload) -> None:
        """Undo :meth:`take_changes` after a failed save, so that it can be tried again."""
        self.payload = payload
        self.changes = changes.followed_by(self.changes)
