"""Carrying out: what one request asked of its session, as calls on the store.

In an order in which nothing is lost: what fails half-way leaves a state to go on from.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from functools import partial
from typing import Final

import msgspec

from eyewall.core.background import Background
from eyewall.core.changes import Changes
from eyewall.core.draft import CookieAction, Doomed, Draft
from eyewall.core.events import EventKind, EventStream
from eyewall.core.payload import Payload
from eyewall.core.record import Device, Record
from eyewall.core.session import Session
from eyewall.core.store import Clock, KeepsTime, Store
from eyewall.core.store_health import StoreHealth
from eyewall.core.stored_sessions import Issued, Limits, SessionMovedError, Stored
from eyewall.core.sweeping import Sweeper
from eyewall.core.timeouts import Timeouts
from eyewall.core.watch import SessionWatch
from eyewall.core.writer import Writer
from eyewall.errors import DamagedRecordError, SessionEndedError, StoreUnavailable
from eyewall.settings import Settings

PATIENCE: Final = 2
"""A request waits at most this many times ``store_timeout`` for loading and saving together."""


class CarryingOut(ABC):
    """What the manager does to the store when a session is saved, one step after the other.

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
                store, self._writer, self.clock, spawn=self.spawn, patience=PATIENCE * self._timeout
            )
        else:
            self._watch.use(store, self._writer)  # what is open stays watched
        self.watch = self._watch

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

    async def _write(
        self, draft: Draft, before: Payload, changes: Changes, after: Payload | None = None
    ) -> None:
        """Write ``changes`` over ``before``; ``after`` is what comes of it, where that is known already."""
        record = draft.record
        if record is None:
            if after is None:
                after = changes.apply_to(before)
            if not after.is_empty():
                await self._begin(draft, changes)
        elif draft.renew:
            await self._move(draft, (record, before), changes)
        elif changes:
            life = draft.life
            stored = await self._writer.change(record, before, changes.apply_to, after)
            draft.settle_if(life, stored)
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
        with contextlib.suppress(StoreUnavailable), self._health.watching(self._timeout / 2):
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

    @abstractmethod
    def _cookie_lines(self, draft: Draft) -> list[str]:
        """Return the ``Set-Cookie`` lines of ``draft``; raises when they cannot be sent."""


def _keeps_time(store: Store, patience: float) -> bool:
    # Said by the very class: one that is derived from it may wait for something else.
    says_so = "longest_wait" in vars(type(store))
    return says_so and isinstance(store, KeepsTime) and store.longest_wait <= patience


def _device_of(draft: Draft, changes: Changes) -> Device | None:
    """Return where somebody signs in; whoever merely stores something is not looked at."""
    return draft.whence.device() if changes.sign_in() and draft.whence is not None else None
