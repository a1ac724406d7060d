"""The manager: settings, store, key ring and clock, and the way of a request through them.

The way of a request: :meth:`Manager.open` reads the cookie, :meth:`Manager.load` fetches the record, the
handler works with the session, :meth:`Manager.commit` stores what changed, and
:meth:`Manager.set_cookie_lines` says what the browser must be told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, Final

import msgspec

from eyewall.core.background import Background
from eyewall.core.browser_cookie import BrowserCookie, IdCookie
from eyewall.core.changes import Changes
from eyewall.core.codec import decode_or_default, encode_value
from eyewall.core.cookie_jar import CookieFormats
from eyewall.core.cors import CorsPolicy
from eyewall.core.draft import CookieAction, Draft
from eyewall.core.events import EventKind, EventStream
from eyewall.core.ids import digest_of
from eyewall.core.opening import encrypted_store
from eyewall.core.payload import Payload
from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.core.store import Clock, SelfCheck, Store, utc_now
from eyewall.core.store_health import StoreHealth, as_store_failure
from eyewall.core.sweeping import Sweeper
from eyewall.core.timeouts import Timeouts
from eyewall.core.writer import Issued, Limits, SessionMovedError, Writer
from eyewall.crypto.key_use import KeyUse, Use
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
        cut_off: for sealed cookies, which cannot be taken back: given a principal, returns the time (UTC)
            before which none of their sessions counts, or None. Move it to now to end all of them.

    Before it serves, :meth:`use_keyring` gives it the keys that sign the session cookie.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock = utc_now,
        cut_off: Callable[[str], datetime | None] | None = None,
    ) -> None:
        self._cut_off = cut_off
        self.settings = settings
        self.clock = clock
        self.events = EventStream(clock)
        self.cors = CorsPolicy.from_settings(settings)
        self._timeouts = Timeouts(settings.ttl, settings.absolute_ttl)
        self._cookies: dict[bool, BrowserCookie] = {}
        self._key_use = KeyUse((), clock)
        self._in_cookie = settings.backend == "cookie"
        self._timeout = settings.store_timeout.total_seconds()
        self._health = StoreHealth(self.events)
        self._background = Background()
        self.spawn = self._background.spawn
        self._given_store = store
        self._use_store(store)

    def _use_store(self, store: Store) -> None:
        self.store = store
        limits = Limits(self.settings.max_size, self._timeout)
        self._writer = Writer(store, self._timeouts, self.clock, limits, self.spawn)
        self._sweeper = Sweeper(store, self.clock, self.spawn)

    def use_keyring(self, keyring: KeyRing) -> None:
        """Sign session cookies with the newest key of ``keyring`` from now on, and accept all of its keys."""
        self._key_use = keyring.count_uses(self.clock)
        self.cookie_formats = CookieFormats(keyring, self.clock)
        if self.settings.encrypt:
            self._use_store(encrypted_store(self._given_store, keyring))
        for https in (True, False):
            self._cookies[https] = self._cookie_with(keyring, https=https)

    def key_use(self) -> dict[str, Use]:
        """Return what each retired key has verified since the start, by key ID: what is unused can go."""
        return self._key_use.by_key()

    def _cookie_with(self, keyring: KeyRing, *, https: bool) -> BrowserCookie:
        if not self._in_cookie:
            return IdCookie(self.settings, keyring, https=https)
        from eyewall.core.sealed_cookie import SealedCookie  # needs the library of the extra "encryption"

        return SealedCookie(self.settings, keyring, self.clock, self._cut_off, https=https)

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
            async with self._health.watching(self._timeout):
                began = monotonic()
                found = await self._writer.load(digest)
                session.waited = monotonic() - began
        except DamagedRecordError as error:
            self.events.emit(EventKind.DAMAGED_RECORD, digest=digest, detail=str(error))
            found = None
        except SessionMovedError:
            draft.moved_from = digest
            found = None
        except Exception as error:  # noqa: BLE001 - no error of a store may leave a request unanswered
            session.failure = error if isinstance(error, StoreUnavailable) else as_store_failure(error)
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
        if draft.has_work() or session.is_being_saved():
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
        async with self._health.watching(self._patience_left(session)), session.turn():
            before, life = draft.payload, draft.life
            changes = draft.take_changes()
            try:
                await self._delete_doomed(draft)
                await self._write(draft, before, changes.warranted_by(status))
                self._seal(draft)
            except SessionEndedError:
                raise
            except BaseException:  # also when cancelled: what was not acknowledged can be saved again
                if draft.life is life:
                    draft.give_back(changes, before)
                raise
        self._sweeper.nudge()

    async def _delete_doomed(self, draft: Draft) -> None:
        while draft.doomed:
            digest = draft.doomed[0]
            await self._writer.end(digest)
            draft.doomed.pop(0)
            self.events.emit(EventKind.DESTROYED, digest=digest)

    async def _write(self, draft: Draft, before: Payload, changes: Changes) -> None:
        record = draft.record
        if record is None:
            if not changes.apply_to(before).is_empty():
                self._refuse_if_moved(draft, changes)
                await self._create(draft, changes)
        elif draft.renew:
            await self._move(draft, record, before, changes)
        elif changes:
            life = draft.life
            draft.settle_if(life, await self._writer.change(record, before, changes.apply_to))
        elif self._timeouts.touch_is_due(record, self.clock()):
            await self._touch(draft, record)

    async def _create(self, draft: Draft, changes: Changes) -> None:
        life = draft.life
        created = await self._writer.create(changes.apply_to)
        self._adopt(draft, life, created)
        self.events.emit(EventKind.CREATED, digest=created.record.digest)

    async def _move(self, draft: Draft, record: Record, before: Payload, changes: Changes) -> None:
        life = draft.life
        signs_in = changes.sign_in()
        try:
            moved = await self._writer.move(
                record, before, changes.apply_to, restart=draft.restart and signs_in
            )
        except SessionEndedError:
            if not signs_in:
                raise
            # Whoever has just proved who they are is signed in, with nothing of the session that ended.
            await self._create(draft, changes)
            return
        self._adopt(draft, life, moved)
        self.events.emit(EventKind.REGENERATED, digest=moved.record.digest)

    def _refuse_if_moved(self, draft: Draft, changes: Changes) -> None:
        """Start no session for a request that was on its way while its own got another ID.

        The browser has the cookie of that one by now; a new cookie would take its place, and undo a sign-in.
        """
        if draft.moved_from is not None and not changes.sign_in():
            raise SessionMovedError("this session was given a new ID while the request was on its way")

    def _seal(self, draft: Draft) -> None:
        """A client-side session changes with its cookie; find out here whether it fits."""
        if draft.in_cookie and draft.record is not None:
            draft.cookie = CookieAction.SET
            self._cookies[True].lines(draft)

    def _adopt(self, draft: Draft, life: object, issued: Issued) -> None:
        """Go on under the new ID; unless the session was destroyed while it was being written."""
        if draft.life is not life:
            draft.doomed.append(issued.record.digest)
            return
        draft.session_id = issued.session_id
        draft.cookie = CookieAction.SET
        if draft.restart and issued.payload.principal is not None:
            self.events.emit(EventKind.SIGNED_IN, digest=issued.record.digest)
        draft.renew = draft.restart = False
        draft.settle(issued.record, issued.payload)

    async def _touch(self, draft: Draft, record: Record) -> None:
        now = self.clock()
        expires_at = self._timeouts.expiry(record.created_at, now)
        seen = msgspec.structs.replace(record, seen_at=now, expires_at=expires_at)
        # Whether it fails or hangs: the answer itself needs nothing more from the store.
        with contextlib.suppress(StoreUnavailable):
            async with self._health.watching(self._timeout / 2):
                await self.store.touch(seen.digest, seen.seen_at, seen.expires_at)
        draft.record = seen

    def _drop(self, session: Session, error: SessionEndedError) -> None:
        draft = session.draft
        digest = draft.record.digest if draft.record is not None else None
        damage = error.__cause__
        if isinstance(damage, DamagedRecordError):
            self.events.emit(EventKind.DAMAGED_RECORD, digest=digest, detail=str(damage))
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
        async with self._health.watching(self._patience_left(session)), session.turn():
            read_encoded, life = draft.view_of(key), draft.life
            result: Any = None

            def step(payload: Payload) -> Payload:
                nonlocal result
                result = function(decode_or_default(read_encoded(payload), initial))
                return Changes(assigned={key: encode_value(key, result)}).apply_to(payload)

            try:
                if draft.record is None:
                    self._refuse_if_moved(draft, Changes())
                    issued = await self._writer.create(step)
                    self._adopt(draft, life, issued)
                    self.events.emit(EventKind.CREATED, digest=issued.record.digest)
                else:
                    stored = await self._writer.change(draft.record, draft.payload, step)
                    draft.settle_if(life, stored)
            except SessionEndedError as error:
                self._drop(session, error)
                raise
            if draft.life is life:
                draft.note_stored(key, result)
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

    def _patience_left(self, session: Session) -> float:
        return _PATIENCE * self._timeout - session.waited

    async def check(self) -> None:
        """Find out before serving whether the store can be used, if it is one that can tell.

        Raises:
            ConfigurationError: a person must mend something (address, password, database, rights); one line.
            StoreUnavailable: nobody answers, which may pass; serving can begin all the same.
        """
        if isinstance(self.store, SelfCheck):
            await self.store.check()

    async def aclose(self) -> None:
        """Wait until everything under way is stored, then close the store."""
        self._sweeper.stop()
        await self._background.drained()
        await self.store.close()
