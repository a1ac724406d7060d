"""Saving: what a request asked of its session, carried out in an order in which nothing is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from eyewall.core.background import Background
from eyewall.core.changes import Changes
from eyewall.core.codec import decode_or_default, encode_value
from eyewall.core.draft import CookieAction, Doomed, Draft
from eyewall.core.events import EventKind, EventStream
from eyewall.core.payload import FlashEntry, Payload
from eyewall.core.record import Device, Record
from eyewall.core.session import Session
from eyewall.core.store import Clock, KeepsTime, PrincipalIndex, Store
from eyewall.core.store_health import StoreHealth
from eyewall.core.stored_sessions import Issued, Limits, SessionMovedError, Stored
from eyewall.core.sweeping import Sweeper
from eyewall.core.timeouts import Timeouts
from eyewall.core.watch import SessionWatch
from eyewall.core.writer import Writer
from eyewall.errors import DamagedRecordError, SessionEndedError, StoreUnavailable, TooManySessionsError
from eyewall.settings import Settings

_PATIENCE: Final = 2
"""A request waits at most this many times ``store_timeout`` for loading and saving together."""


class Saving:
    """The half of the manager that writes.

    Args:
        settings: checked settings.
        store: where records are kept.
        clock: returns the current time in UTC.
    """

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.events = EventStream(clock)
        self._timeouts = Timeouts(settings.ttl, settings.absolute_ttl)
        self._timeout = settings.store_timeout.total_seconds()
        self._health = StoreHealth(self.events)
        self._background = Background()
        self.spawn = self._background.spawn
        self._watch: SessionWatch | None = None
        self._use_store(store)

    def _use_store(self, store: Store) -> None:
        self.store = store
        self._unbounded = (
            self._health.watching(None, reading=True) if _keeps_time(store, self._timeout) else None
        )
        limits = Limits(self.settings.max_size, self._timeout)
        self._writer = Writer(store, self._timeouts, self.clock, limits, self.spawn)
        self._sweeper = Sweeper(store, self.clock, self.spawn, self.events)
        if self._watch is None:
            self._watch = SessionWatch(
                store, self._writer, self.clock, spawn=self.spawn, patience=_PATIENCE * self._timeout
            )
        else:
            self._watch.use(store, self._writer)  # what is open stays watched
        self.watch = self._watch

    def needs_commit(self, session: Session, *, status: int = 200, touching: bool = True) -> bool:
        """Whether :meth:`commit` would have anything to write.

        Args:
            session: as the request leaves it.
            status: of the answer.
            touching: whether a touch that is due counts.

        Raises:
            UnstorableValueError: something that cannot be stored was put inside a stored list or dict.
        """
        draft = session.draft
        if not session.used or session.failure is not None:
            return False
        if not session.is_untouched():
            if status < 500:
                draft.notice_nested_changes()
            if draft.has_work() or session.is_being_saved():
                return True
        record = draft.record
        return touching and record is not None and self._timeouts.touch_is_due(record, self.clock())

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
                try:
                    await self._carry_out(draft, before, changes.warranted_by(status))
                except SessionMovedError:
                    await self._go_along(session)
                    await self._carry_out(draft, draft.payload, changes.warranted_by(status))
            except SessionEndedError:
                raise
            except TooManySessionsError:  # refused for good: what else was changed can still be stored
                draft.take_back_sign_in(changes, before)
                raise
            except BaseException:  # also when cancelled: what was not acknowledged can be saved again
                if draft.life is life:
                    draft.give_back(changes, before)
                raise
        self._sweeper.nudge()

    async def _go_along(self, session: Session) -> None:
        """Follow the session to its new ID, where the connection stays open; raises when it may not."""
        draft = session.draft
        stored = None
        if session.stays_open and draft.record is not None:
            stored = await self._writer.current(draft.record.digest)
        if stored is None or draft.record is None or stored[0].principal != draft.record.principal:
            raise SessionMovedError("this session was given a new ID while the request was on its way")
        draft.settle(*stored)

    def why_no_index(self) -> str | None:
        """Say why the sessions of a principal cannot be found, or None when they can."""
        if self.settings.backend == "cookie":
            return "sessions in their own cookies are in no list; use a store"
        if not isinstance(self.store, PrincipalIndex):
            return f"{type(self.store).__name__} cannot find what belongs to a principal (PrincipalIndex)"
        return None

    def is_live(self, session: Session) -> bool:
        """Whether the session has not expired, as far as is known without asking the store."""
        record = session.draft.record
        return record is None or self._timeouts.is_live(record, self.clock())

    async def _carry_out(self, draft: Draft, before: Payload, changes: Changes) -> None:
        """Do what was asked for. What fails can be asked for again; sign-in adds its own to this."""
        await self._delete_doomed(draft)
        await self._write(draft, before, changes)
        self._seal(draft)

    async def _delete_doomed(self, draft: Draft) -> None:
        while draft.doomed:
            digest, principal = draft.doomed[0]
            ended = await self._writer.end(digest)
            draft.doomed = draft.doomed[1:]
            for one in ended:
                self.watch.tell_ended(one, "signed out")
            kind = EventKind.DESTROYED if principal is None else EventKind.SIGNED_OUT
            self.events.emit(kind, digest=digest, principal=principal)

    async def _write(self, draft: Draft, before: Payload, changes: Changes) -> None:
        record = draft.record
        if record is None:
            if not changes.apply_to(before).is_empty():
                await self._begin(draft, changes)
        elif draft.renew:
            await self._move(draft, (record, before), changes)
        elif changes:
            life = draft.life
            draft.settle_if(life, await self._writer.change(record, before, changes.apply_to))
        elif self._timeouts.touch_is_due(record, self.clock()):
            await self._touch(draft, record)

    async def _begin(self, draft: Draft, changes: Changes) -> None:
        """Start a session, or go on with the one that had the ID which the browser has brought."""
        self._refuse_if_moved(draft, changes)
        gone_on = await self._gone_on(draft, changes)
        if gone_on is None:
            await self._create(draft, changes)
        else:
            await self._move(draft, gone_on, changes)

    async def _gone_on(self, draft: Draft, changes: Changes) -> Stored | None:
        if draft.moved_from is None:
            return None
        with contextlib.suppress(DamagedRecordError):
            found = await self._writer.current(draft.moved_from)
            if found is not None and changes.may_follow(None, found[1]):
                return found
        return None

    async def _create(self, draft: Draft, changes: Changes) -> None:
        life = draft.life
        created = await self._writer.create(changes.apply_to, _device_of(draft, changes))
        self._adopt(draft, life, created)
        self.events.emit(EventKind.CREATED, digest=created.record.digest)

    async def _move(self, draft: Draft, current: Stored, changes: Changes) -> None:
        life = draft.life
        try:
            moved = await self._writer.move(
                current,
                changes.apply_to,
                restart=draft.restart and changes.sign_in(),
                device=_device_of(draft, changes),
                may_follow=partial(changes.may_follow, current[1].principal),
            )
        except SessionEndedError:
            if not changes.sign_in():
                raise
            # Whoever has just proved who they are is signed in, with nothing of the session that ended.
            await self._create(draft, changes)
            return
        source = moved.source or current[0]
        # What is open looks, and finds that it goes on under a new ID.
        self.watch.tell_ended(source.digest, "ended")
        self._adopt(draft, life, moved)
        if source.principal is not None and moved.record.principal is None:  # by clear()
            self.events.emit(EventKind.SIGNED_OUT, digest=source.digest, principal=source.principal)
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
            self._cookie_lines(draft)

    def _adopt(self, draft: Draft, life: object, issued: Issued) -> None:
        """Go on under the new ID; unless the session was destroyed while it was being written."""
        if draft.life is not life:
            draft.doomed += (Doomed(issued.record.digest, issued.record.principal),)
            return
        draft.session_id = issued.session_id
        draft.cookie = CookieAction.SET
        if draft.restart and issued.payload.principal is not None:
            who = issued.record.principal
            self.events.emit(EventKind.SIGNED_IN, digest=issued.record.digest, principal=who)
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
                    try:
                        stored = await self._writer.change(draft.record, draft.payload, step)
                    except SessionMovedError:
                        await self._go_along(session)
                        stored = await self._writer.change(draft.record, draft.payload, step)
                    draft.settle_if(life, stored)
            except SessionEndedError as error:
                self._drop(session, error)
                raise
            if draft.life is life:
                draft.note_stored(key, result)
                self._seal(draft)
        return result

    async def take_flash(self, session: Session, key: str | None) -> list[FlashEntry]:
        """``await session.flash.take(key)``."""
        draft, taken = session.draft, list[FlashEntry]()
        if draft.record is None:
            return taken

        def step(payload: Payload) -> Payload:
            taken[:] = [entry for entry in payload.flash if key is None or entry.key == key]
            return Changes(taken={entry.id for entry in taken}).apply_to(payload) if taken else payload

        async with self._health.watching(self._patience_left(session)), session.turn():
            life, current = draft.life, await self._writer.current(draft.record.digest)
            if current is not None and current[0].principal == draft.record.principal:
                draft.settle_if(life, await self._writer.change(*current, step))
        return taken

    def _patience_left(self, session: Session) -> float:
        return _PATIENCE * self._timeout - session.waited

    def _cookie_lines(self, draft: Draft) -> list[str]:
        """Return the ``Set-Cookie`` lines of ``draft``; raises when they cannot be sent."""
        raise NotImplementedError


def _keeps_time(store: Store, patience: float) -> bool:
    # Said by the very class: one that is derived from it may wait for something else.
    says_so = "longest_wait" in vars(type(store))
    return says_so and isinstance(store, KeepsTime) and store.longest_wait <= patience


def _device_of(draft: Draft, changes: Changes) -> Device | None:
    """Return where somebody signs in; whoever merely stores something is not looked at."""
    return draft.whence.device() if changes.sign_in() and draft.whence is not None else None
