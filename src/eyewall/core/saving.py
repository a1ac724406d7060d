"""Saving: what of a request's changes is stored, and what becomes of them when that fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

from eyewall.core.carrying_out import PATIENCE, CarryingOut
from eyewall.core.changes import Changes
from eyewall.core.codec import decode_or_default, encode_value
from eyewall.core.events import EventKind
from eyewall.core.payload import FlashEntry, Payload
from eyewall.core.session import Session
from eyewall.core.store import PrincipalIndex
from eyewall.core.stored_sessions import SessionMovedError
from eyewall.errors import SessionEndedError, TooManySessionsError

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Saving(CarryingOut):
    """The half of the manager that writes.

    Args:
        settings: checked settings.
        store: where records are kept.
        clock: returns the current time in UTC.
    """

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
            await self._in_turn(self._save, session, status)
        except SessionEndedError as error:
            self._drop(session, error)
            if self.settings.strict:
                raise

    async def save(self, session: Session) -> None:
        """``await session.save()``."""
        session.draft.notice_nested_changes()
        try:
            await self._in_turn(self._save, session, 200)
        except SessionEndedError as error:
            self._drop(session, error)
            raise

    async def _in_turn(
        self,
        save: Callable[[Session, *_Args], Awaitable[_T]],
        session: Session,
        *args: *_Args,
    ) -> _T:
        """Return ``await save(session, ...)``: one save of a request at a time, in the time it has left."""
        with self._health.watching(PATIENCE * self._timeout - session.waited):
            if not session.begin_turn():
                await session.stand_in_line()
            try:
                result = await save(session, *args)
            finally:
                session.end_turn()
        self._sweeper.nudge()
        return result

    async def _save(self, session: Session, status: int) -> None:
        draft = session.draft
        before, life = draft.payload, draft.life
        changes = draft.take_changes()
        warranted = changes.warranted_by(status)
        after = draft.payload if warranted is changes else None
        try:
            try:
                if draft.is_idle:  # nearly always: nothing but data has changed, so that a write is all
                    await self._write(draft, before, warranted, after)
                    self._seal(draft)
                else:
                    await self._carry_out(draft, before, warranted)
            except SessionMovedError:
                await self._go_along(session)
                await self._carry_out(draft, draft.payload, warranted)
        except SessionEndedError:
            raise
        except TooManySessionsError:  # refused for good: what else was changed can still be stored
            draft.take_back_sign_in(changes, before)
            raise
        except BaseException:  # also when cancelled: what was not acknowledged can be saved again
            if draft.life is life:
                draft.give_back(changes, before)
            raise

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

    async def modify(self, session: Session, key: str, function: Callable[[Any], Any], default: Any) -> Any:
        """``await session.modify(key, function)``."""
        if session.draft.has_sweeping_changes():
            await self.save(session)
        return await self._in_turn(self._modify, session, key, function, encode_value(key, default))

    async def _modify(
        self, session: Session, key: str, function: Callable[[Any], Any], initial: bytes
    ) -> Any:
        draft = session.draft
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
        return [] if session.draft.record is None else await self._in_turn(self._take_flash, session, key)

    async def _take_flash(self, session: Session, key: str | None) -> list[FlashEntry]:
        draft, taken = session.draft, list[FlashEntry]()

        def step(payload: Payload) -> Payload:
            taken[:] = [entry for entry in payload.flash if key is None or entry.key == key]
            return Changes(taken={entry.id for entry in taken}).apply_to(payload) if taken else payload

        if draft.record is not None:
            life, current = draft.life, await self._writer.current(draft.record.digest)
            if current is not None and current[0].principal == draft.record.principal:
                draft.settle_if(life, await self._writer.change(*current, step))
        return taken
