"""The manager: settings, store, key ring and clock, and the only place in core that awaits.

The way of a request: :meth:`Manager.open` reads the cookie, :meth:`Manager.load` fetches the record, the
handler works with the session, :meth:`Manager.commit` stores what changed, and
:meth:`Manager.set_cookie_lines` says what the browser must be told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, Final

import msgspec

from eyewall.core.browser_cookie import BrowserCookie, IdCookie
from eyewall.core.changes import Changes
from eyewall.core.codec import decode_value, encode_value
from eyewall.core.draft import CookieAction, Draft
from eyewall.core.events import EventKind, EventStream
from eyewall.core.ids import digest_of
from eyewall.core.payload import Payload
from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.core.store import Clock, Store, utc_now
from eyewall.core.sweeping import Sweeper
from eyewall.core.timeouts import Timeouts
from eyewall.core.writer import SessionMovedError, Writer
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import DamagedRecordError, SessionEndedError, StoreUnavailable
from eyewall.settings import Settings

_PATIENCE: Final = 2
"""A request waits at most this many times ``store_timeout`` for loading and saving together."""


class Manager:
    """Opens, saves and ends sessions. An application makes one.

    Args:
        settings: checked settings.
        store: where records are kept.
        clock: returns the current time in UTC.

    Before it serves, :meth:`use_keyring` gives it the keys that sign the session cookie.
    """

    def __init__(self, settings: Settings, store: Store, clock: Clock = utc_now) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.events = EventStream(clock)
        self._timeouts = Timeouts(settings.ttl, settings.absolute_ttl)
        self._writer = Writer(store, self._timeouts, clock, max_size=settings.max_size, spawn=self.spawn)
        self._cookies: dict[bool, BrowserCookie] = {}
        self._in_cookie = settings.backend == "cookie"
        self._timeout = settings.store_timeout.total_seconds()
        self._store_is_up = True
        self._sweeper = Sweeper(store, clock, self.spawn)
        self._tasks: set[asyncio.Task[Any]] = set()

    def use_keyring(self, keyring: KeyRing) -> None:
        """Sign session cookies with the newest key of ``keyring`` from now on, and accept all of its keys."""
        for https in (True, False):
            self._cookies[https] = self._cookie_with(keyring, https=https)

    def _cookie_with(self, keyring: KeyRing, *, https: bool) -> BrowserCookie:
        if not self._in_cookie:
            return IdCookie(self.settings, keyring, https=https)
        from eyewall.core.sealed_cookie import SealedCookie  # needs the library of the extra "encryption"

        return SealedCookie(self.settings, keyring, self.clock, https=https)

    # -- opening ------------------------------------------------------------------------------------------

    def open(self, cookie_lines: Sequence[str], *, https: bool, consuming: bool = True) -> Session:
        """Return the session of a request, not loaded yet.

        Args:
            cookie_lines: the request's ``Cookie`` header lines.
            https: whether the browser's connection is encrypted.
            consuming: whether this request shows a page to the user, so that flash messages it reads are
                used up (not for HEAD and prefetches).
        """
        draft = Draft(self.settings.max_size, in_cookie=self._in_cookie)
        if cookie_lines:
            problem = self._cookies[https].read(cookie_lines, draft)
            if problem is not None:
                self.events.emit(problem)
        return Session(self, draft, consuming=consuming)

    async def load(self, session: Session) -> None:
        """Load the session's record, if its cookie named one. Never raises.

        When the store does not answer, the session fails at its first use instead: a page that does not
        need the session is not affected.
        """
        draft = session.draft
        if draft.session_id is None:
            return
        digest = digest_of(draft.session_id)
        try:
            async with self._watching_the_store(self._timeout):
                began = monotonic()
                found = await self._writer.load(digest)
                session.waited = monotonic() - began
        except DamagedRecordError as error:
            self.events.emit(EventKind.DAMAGED_RECORD, digest=digest, detail=str(error))
            found = None
        except StoreUnavailable as error:
            session.failure = error
            session.store_failed = True
            return
        if found is None:
            # Never adopt the ID: what this visitor stores gets an ID of ours (ASVS 7.2.4, fixation).
            draft.session_id = None
            self.events.emit(EventKind.UNKNOWN_ID, digest=digest)
        else:
            draft.settle(*found)

    # -- saving -------------------------------------------------------------------------------------------

    def needs_commit(self, session: Session, *, status: int = 200) -> bool:
        """Whether :meth:`commit` would have anything to write.

        Raises:
            UnstorableValueError: something that cannot be stored was put inside a stored list or dict.
        """
        draft = session.draft
        if not session.used or session.failure is not None:
            return False
        if status < 500:
            draft.notice_nested_changes()
        if draft.has_work():
            return True
        return draft.record is not None and self._timeouts.touch_is_due(draft.record, self.clock())

    async def commit(self, session: Session, *, status: int = 200) -> None:
        """Store what the request changed, as far as an answer of ``status`` warrants it.

        An answer of 500 or more keeps no data; ending, signing out and a new ID take effect all the same.
        An answer of 304 uses up no flash message: the browser shows an old page.

        Raises:
            StoreUnavailable: nothing was acknowledged.
            SessionEndedError: only with ``strict``; otherwise changes to an ended session are dropped.
        """
        try:
            await self._save(session, status)
        except SessionEndedError as error:
            self._drop(session, error)
            if self.settings.strict:
                raise

    async def save(self, session: Session) -> None:
        """``await session.save()``."""
        session.draft.notice_nested_changes()
        try:
            await self._save(session, status=200)
        except SessionEndedError as error:
            self._drop(session, error)
            raise

    async def _save(self, session: Session, status: int) -> None:
        draft = session.draft
        async with self._watching_the_store(self._patience_left(session)), session.turn():
            before = draft.payload
            changes = draft.take_changes()
            try:
                await self._delete_doomed(draft)
                await self._write(draft, before, _kept(changes, status))
                self._seal(draft)
            except SessionEndedError:
                raise
            except BaseException:  # also when cancelled: what was not acknowledged can be saved again
                draft.give_back(changes, before)
                raise
        self._sweeper.nudge()

    async def _delete_doomed(self, draft: Draft) -> None:
        while draft.doomed:
            digest = draft.doomed[0]
            await self.store.delete(digest)
            draft.doomed.pop(0)
            self.events.emit(EventKind.DESTROYED, digest=digest)

    async def _write(self, draft: Draft, before: Payload, changes: Changes) -> None:
        record = draft.record
        if record is None:
            if not changes.apply_to(before).is_empty():
                await self._create(draft, changes)
        elif draft.renew:
            await self._move(draft, record, before, changes)
        elif changes:
            draft.settle(*await self._writer.change(record, before, changes.apply_to))
        elif self._timeouts.touch_is_due(record, self.clock()):
            await self._touch(draft, record)

    async def _create(self, draft: Draft, changes: Changes) -> None:
        session_id, record, payload = await self._writer.create(changes.apply_to)
        self._adopt(draft, session_id)
        draft.settle(record, payload)
        self.events.emit(EventKind.CREATED, digest=record.digest)

    async def _move(self, draft: Draft, record: Record, before: Payload, changes: Changes) -> None:
        try:
            session_id, record, payload = await self._writer.move(
                record, before, changes.apply_to, restart=draft.restart
            )
        except SessionEndedError:
            if changes.identity is None or changes.identity.principal is None:
                raise
            # Whoever has just proved who they are is signed in, with nothing of the session that ended.
            await self._create(draft, changes)
            return
        self._adopt(draft, session_id)
        draft.settle(record, payload)
        self.events.emit(EventKind.REGENERATED, digest=record.digest)

    def _seal(self, draft: Draft) -> None:
        """A client-side session changes with its cookie; find out here whether it fits."""
        if draft.in_cookie and draft.record is not None:
            draft.cookie = CookieAction.SET
            self._cookies[True].lines(draft)

    def _adopt(self, draft: Draft, session_id: str) -> None:
        draft.session_id = session_id
        draft.cookie = CookieAction.SET
        draft.renew = draft.restart = False

    async def _touch(self, draft: Draft, record: Record) -> None:
        now = self.clock()
        expires_at = self._timeouts.expiry(record.created_at, now)
        seen = msgspec.structs.replace(record, seen_at=now, expires_at=expires_at)
        try:
            await self.store.touch(seen.digest, seen.seen_at, seen.expires_at)
        except StoreUnavailable as error:
            self._store_failed(error)  # the answer itself needs nothing from the store
        draft.record = seen

    def _drop(self, session: Session, error: SessionEndedError) -> None:
        draft = session.draft
        digest = draft.record.digest if draft.record is not None else None
        self.events.emit(EventKind.WRITE_DROPPED, digest=digest)
        if not isinstance(error, SessionMovedError):
            draft.cookie = CookieAction.DELETE
        draft.forget()

    async def modify(self, session: Session, key: str, function: Callable[[Any], Any], default: Any) -> Any:
        """``await session.modify(key, function)``."""
        draft = session.draft
        if draft.has_sweeping_changes():
            await self.save(session)
        initial = encode_value(key, default)
        async with self._watching_the_store(self._patience_left(session)), session.turn():
            read_encoded = draft.view_of(key)
            result: Any = None

            def step(payload: Payload) -> Payload:
                nonlocal result
                result = function(_decoded_or(initial, read_encoded(payload)))
                return Changes(assigned={key: encode_value(key, result)}).apply_to(payload)

            try:
                if draft.record is None:
                    session_id, record, payload = await self._writer.create(step)
                    self._adopt(draft, session_id)
                else:
                    record, payload = await self._writer.change(draft.record, draft.payload, step)
            except SessionEndedError as error:
                self._drop(session, error)
                raise
            draft.settle_value(key, result, record, payload)
            self._seal(draft)
        return result

    # -- the cookie ---------------------------------------------------------------------------------------

    def set_cookie_lines(self, session: Session, *, https: bool) -> list[str]:
        """Return the ``Set-Cookie`` lines that the response needs."""
        return self._cookies[https].lines(session.draft)

    def cookie_name(self, *, https: bool) -> str:
        """Return the session cookie's name on this kind of connection."""
        return self._cookies[https].name

    # -- the store's health, and work in the background ---------------------------------------------------

    @contextlib.asynccontextmanager
    async def _watching_the_store(self, patience: float) -> AsyncIterator[None]:
        """Bound the time (seconds), and report when the store stops answering and when it answers again."""
        scope = asyncio.timeout(patience)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            error = StoreUnavailable(f"the store did not answer within {patience:.3g} s")
            self._store_failed(error)
            raise error from None
        except StoreUnavailable as error:
            self._store_failed(error)
            raise
        if not self._store_is_up:
            self._store_is_up = True
            self.events.emit(EventKind.STORE_BACK)

    def _patience_left(self, session: Session) -> float:
        return _PATIENCE * self._timeout - session.waited

    def _store_failed(self, error: StoreUnavailable) -> None:
        if self._store_is_up:
            self._store_is_up = False
            self.events.emit(EventKind.STORE_DOWN, detail=str(error))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as a task that is neither garbage-collected nor lost at :meth:`aclose`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Wait until everything under way is stored, then close the store."""
        self._sweeper.stop()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self.store.close()


def _decoded_or(initial: bytes, encoded: bytes | msgspec.Raw | None) -> Any:
    if encoded is not None:
        with contextlib.suppress(DamagedRecordError):
            return decode_value(encoded)
    return decode_value(initial)  # decoded each time: ``function`` may change what it is given


def _kept(changes: Changes, status: int) -> Changes:
    if status >= 500:
        return changes.signing_out_only()
    if status == 304:
        changes.taken.clear()
    return changes
