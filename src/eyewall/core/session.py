"""The session as a handler sees it: a mapping, with verbs.

The verbs are synchronous: they note what is wanted. What was noted is stored before the first byte of the
answer leaves, or at ``await session.save()``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, MutableMapping
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, Protocol

from eyewall.core.changes import Identity
from eyewall.core.codec import encode_value
from eyewall.core.draft import Draft
from eyewall.core.draft_values import MISSING
from eyewall.core.flash import Flash
from eyewall.core.ids import shortened
from eyewall.core.payload import FlashEntry
from eyewall.core.session_use import SessionUse
from eyewall.core.store import Clock
from eyewall.errors import SessionError, UnstorableValueError

MAX_PRINCIPAL_BYTES: Final = 1024
"""Longest principal. It is an identifier, kept with every session and in every store's index."""

_MAX_METHOD_BYTES: Final = 64
_DEVICE_ID_BYTES: Final = 16


class Keeper(Protocol):
    """What a session needs of the manager: a clock, and someone who writes."""

    clock: Clock

    def why_no_index(self) -> str | None:
        """Say why the sessions of a principal cannot be found, or None when they can."""

    async def save(self, session: Session) -> None:
        """Store what ``session`` has noted so far."""

    async def modify(self, session: Session, key: str, function: Callable[[Any], Any], default: Any) -> Any:
        """Apply ``function`` to the stored value of ``key``, atomically."""

    async def take_flash(self, session: Session, key: str | None) -> list[FlashEntry]:
        """Remove the messages under ``key``, or all, atomically; return those that this call removed."""


class Session(SessionUse, MutableMapping[str, Any]):
    """What one browser's requests share.

    A mapping from text keys to values (None, bool, int, float, str, bytes, list, tuple, dict, set,
    datetime, date, timedelta, UUID, Decimal, nested as you like). A change inside a nested list, dict or
    set is noticed. Parallel requests lose nothing: changes are kept per key and merged.

    Handlers find it as ``self.session`` and ``self.request.session``. Without a cookie from the browser it
    is empty, and stays unknown to the store until something is put into it.

    Any method may raise :class:`~eyewall.errors.StoreUnavailable` (answered as 503) when the session
    could not be loaded; a change after the response is finished raises
    :class:`~eyewall.errors.SessionClosedError`.
    """

    _flash: Flash | None = None

    def __init__(self, keeper: Keeper, draft: Draft) -> None:
        """Made by the manager, never by applications."""
        self._keeper = keeper
        self.draft = draft
        # What every request reads is found faster here than as a default of the class.
        self.used = self.closed = self.headers_sent = False
        self.failure = None

    # -- the mapping --------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if self.failure is not None:
            self._use()
        self.used = True  # all that _use() does where nothing is changed and nothing has failed
        value = self.draft.read(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._use(changing=True)
        if type(key) is not str:
            _refuse_key(key)
        if self._change_needs_cookie():
            self._needs_headers("a new session")
        self.draft.assign(key, value)

    def __delitem__(self, key: str) -> None:
        self._use(changing=True)
        if self.draft.in_cookie:
            self._needs_headers("a session in its own cookie")
        if not self.draft.delete(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        self._use()
        return isinstance(key, str) and self.draft.has(key)

    def __iter__(self) -> Iterator[str]:
        self._use()
        return iter([key for key in self.draft.names() if self.draft.read(key) is not MISSING])

    def __len__(self) -> int:
        self._use()
        return sum(1 for _ in self.draft.names())

    def __repr__(self) -> str:
        """Never shows the ID, keys or values: reprs end up in logs."""
        record = self.draft.record
        return f"<Session {shortened(record.digest) if record else 'new'}>"

    # -- the verbs of data --------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default``."""
        if self.failure is not None:
            self._use()
        self.used = True  # as in __getitem__
        return self.draft.read(key, default)

    def set(self, key: str, value: Any) -> None:
        """Store ``value`` under ``key``; the same as ``session[key] = value``.

        Raises:
            UnstorableValueError: at once, naming the key and the type, when it could not come back as is.
            SessionTooLargeError: at once, when the session would outgrow ``max_size``.
        """
        self[key] = value

    def delete(self, key: str) -> None:
        """Remove ``key``; nothing happens when it is not there."""
        if key in self:
            del self[key]

    def has(self, key: str) -> bool:
        """Whether ``key`` is set (to anything, None included)."""
        return key in self

    def all(self) -> dict[str, Any]:
        """Return all data as a dict of its own; changing the dict changes no session."""
        self._use()
        return {key: self.draft.read(key) for key in self}

    def clear(self) -> None:
        """Empty the session: data, flash messages, and who is signed in. The session itself stays.

        Signing out by ``clear()`` alone is a habit of many frameworks' users, so it has to work: if
        someone was signed in, they no longer are, and the ID is regenerated.
        """
        self._use(changing=True)
        if self.draft.principal is not None:
            self._needs_headers("a new session ID")
        elif self.draft.in_cookie:
            self._needs_headers("a session in its own cookie")
        self.draft.clear()

    @property
    def flash(self) -> Flash:
        """Messages that are read once: ``flash(key, value)`` writes, ``flash(key)`` reads."""
        if self._flash is None:
            consuming = self.draft.whence is None or self.draft.whence.shows_a_page()
            self._flash = Flash(self.draft, self._use_flash, self._take_flash, consuming=consuming)
        return self._flash

    # -- who is signed in ---------------------------------------------------------------------------------

    @property
    def principal(self) -> str | None:
        """The stable identifier of who is signed in, or None."""
        self._use()
        return self.draft.principal

    @property
    def authenticated_at(self) -> datetime | None:
        """When the principal last proved who they are (UTC), or None."""
        self._use()
        return self.draft.identity.authenticated_at

    @property
    def is_remembered(self) -> bool:
        """Whether this browser has a remember token, so that it will be brought back after this session."""
        self._use()
        return (self.draft.remembered or self.draft.issued is not None) and self.draft.remember is not False

    def is_fresh(self, within: timedelta = timedelta(minutes=10)) -> bool:
        """Whether the principal has proved who they are ``within`` this time (ASVS 7.5.1, 7.5.3).

        Never for a session that a remember token started, and not for an anonymous one.
        """
        since = self.authenticated_at
        return since is not None and timedelta(0) <= self._keeper.clock() - since < within

    def sign_in(self, principal: str, *, remember: bool = False, method: str = "password") -> None:
        """Attach ``principal``: new ID, both timeouts start again (ASVS 7.2.4).

        Data of an anonymous visitor is carried on (a cart survives signing in). When somebody else was
        signed in, all of theirs is dropped first. The old ID is dead at once, without grace. Called for who
        is signed in already, it says that they have proved it again.

        Args:
            principal: the stable identifier of who it is, at most 1024 bytes.
            remember: bring them back later without asking, for ``remember_ttl``; such a session is never
                fresh.
            method: how they proved it, at most 64 bytes; the list of devices shows it.

        Raises:
            UnstorableValueError: ``principal`` or ``method`` is not text, is empty, or too long.
            HeadersSentError: the response's headers have left, so the new ID could not be told.
            SessionError: ``remember``, where the sessions of a principal cannot be found.
        """
        self._use(changing=True)
        _check_text("a principal", principal, MAX_PRINCIPAL_BYTES)
        _check_text("a method of signing in", method, _MAX_METHOD_BYTES)
        self._needs_headers("a new session ID")
        if remember:
            self._needs_index("remember=True")
        identity = Identity(principal, self._keeper.clock(), secrets.token_bytes(_DEVICE_ID_BYTES), method)
        self.draft.identify(identity, remember=remember)

    def sign_out(self, *, everywhere: bool = False) -> None:
        """End the session: the record goes, the cookie goes, the ID is of no use to anyone (ASVS 7.4.1).

        What is set afterwards (a farewell flash message) starts a new, anonymous session.

        Args:
            everywhere: end every session of who is signed in, on all devices, and forget all of them.

        Raises:
            SessionError: ``everywhere``, where the sessions of a principal cannot be found.
        """
        if everywhere:
            self._needs_index("everywhere=True")
        self._end(everywhere=everywhere)

    # -- the life of the session --------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether nothing is stored for this visitor yet."""
        self._use()
        return self.draft.record is None

    def regenerate(self) -> None:
        """Give the session a new ID with the same data; the old ID opens nothing any more, without grace.

        Do it at every change of privilege; :meth:`sign_in` does it by itself.

        Raises:
            HeadersSentError: the response's headers have left, so the new ID could not be told.
        """
        self._use(changing=True)
        self._needs_headers("a new session ID")
        self.draft.renew = True

    def destroy(self) -> None:
        """End the session. It takes effect even if the handler fails later (a 500)."""
        self._end()

    def _end(self, *, everywhere: bool = False) -> None:
        self._use(changing=True)
        self.draft.destroy(everywhere=everywhere)

    async def save(self) -> None:
        """Store now what was changed so far, instead of when the answer leaves.

        Raises:
            StoreUnavailable: whether it was stored is unknown; the changes are kept, and can be saved again
                without harm.
            SessionEndedError: the session was ended meanwhile; the changes are dropped.
        """
        self._use(changing=True)
        await self._keeper.save(self)

    async def modify(self, key: str, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Change one value atomically, across all requests and processes.

        Args:
            key: the key to change.
            function: gets the stored value and returns the new one. It may be called several times, each
                time with the value as it is then, so it should do nothing else. Not async.
            default: what ``function`` gets when the key is not set.

        Returns:
            The value that was stored; by then it has been stored.

        Raises:
            UnstorableValueError, SessionTooLargeError: for what ``function`` returned; nothing changed.
            StoreUnavailable: whether it was stored is unknown.
            SessionEndedError: the session was ended meanwhile; nothing was stored.
        """
        self._use(changing=True)
        if type(key) is not str:
            _refuse_key(key)
        if self._change_needs_cookie():
            self._needs_headers("a new session")
        return await self._keeper.modify(self, key, function, default)

    def _use_flash(self, *, changing: bool) -> None:
        self._use(changing=changing)
        if changing and self._change_needs_cookie():
            self._needs_headers("a new session")

    async def _take_flash(self, key: str | None) -> list[FlashEntry]:
        self._use(changing=True)
        return await self._keeper.take_flash(self, key)

    def _needs_index(self, what: str) -> None:
        problem = self._keeper.why_no_index()
        if problem is not None:
            raise SessionError(f"{what} does not work here: {problem}")


def _check_text(what: str, text: object, longest: int) -> None:
    if type(text) is not str or not text:
        raise UnstorableValueError(f"{what} is text that is not empty, not {text!r}")
    encode_value(what, text)  # text that cannot be stored is refused here
    if len(text.encode()) > longest:
        raise UnstorableValueError(f"{what} has at most {longest} bytes; use an identifier")


def _refuse_key(key: object) -> NoReturn:
    raise UnstorableValueError(f"session keys are text; {key!r} is a {type(key).__qualname__}")
