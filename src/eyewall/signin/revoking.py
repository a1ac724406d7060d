"""Ending sessions from outside: by their owner from another device, by an operator, by a new password."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

from eyewall.core.announcements import Message
from eyewall.core.changes import Identity
from eyewall.core.manager import Manager
from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.core.store import Store
from eyewall.errors import ConfigurationError, SessionError
from eyewall.signin.admission import Admission
from eyewall.signin.attempts import Attempts
from eyewall.signin.devices import Devices, SignedInDevice
from eyewall.signin.remember import token_in

_PATIENCE: Final = 2
"""Looking through and ending what a principal has may take this many times what a single call may."""


class RevokingManager(Manager):
    """A manager that knows which sessions belong to a principal, and ends them.

    Args:
        settings: checked settings.
        store: where records are kept.
        clock: returns the current time in UTC.
        cut_off: as for :class:`~eyewall.core.manager.Manager`.
    """

    _devices: Devices | None = None
    _attempts: Attempts | None = None
    _admission: Admission | None = None

    def _use_store(self, store: Store) -> None:
        super()._use_store(store)
        clock, settings = self.clock, self.settings
        if settings.backend == "cookie":
            return
        self._attempts = Attempts(store, clock)
        self._devices = Devices(
            store,
            end=self._end_from_outside,
            lineage=self._writer.lineage,
            token_in=token_in,
            events=self.events,
        )
        if settings.max_sessions is not None:
            if (problem := self.why_no_index()) is not None:
                raise ConfigurationError(f"max_sessions does not work here: {problem}")
            self._admission = Admission(
                store,
                clock,
                most=settings.max_sessions,
                when_full=settings.when_full,
                devices=self._devices,
                events=self.events,
                spawn=self.spawn,
            )

    # -- devices ------------------------------------------------------------------------------------------

    @property
    def devices(self) -> Devices:
        """Lists and ends what is signed in.

        Raises:
            ConfigurationError: the sessions are in their own cookies, so nobody knows which there are.
        """
        if self._devices is None:
            raise ConfigurationError(
                "sessions in their own cookies can be neither listed nor revoked; use a store, or cut_off"
            )
        return self._devices

    @property
    def attempts(self) -> Attempts:
        """Counts attempts to sign in.

        Raises:
            ConfigurationError: the sessions are in their own cookies, so there is nowhere to count.
        """
        if self._attempts is None:
            raise ConfigurationError("attempts to sign in are counted in a store, and there is none; use one")
        return self._attempts

    async def count_attempt(self, account: str, address: str | None) -> None:
        """Count one attempt to sign in; see :meth:`~eyewall.signin.attempts.Attempts.hit`.

        Raises:
            TooManyAttemptsError: refuse it, without looking at the password.
            StoreUnavailable: the store does not answer in time.
        """
        async with self._within(_PATIENCE):
            await self.attempts.hit(account, address)

    async def attempt_succeeded(self, account: str, address: str | None) -> None:
        """Take the attempts back; see :meth:`~eyewall.signin.attempts.Attempts.succeeded`.

        Raises:
            StoreUnavailable: the store does not answer in time.
        """
        async with self._within(_PATIENCE):
            await self.attempts.succeeded(account, address)

    async def of(self, principal: str, *, current: Session | None = None) -> list[SignedInDevice]:
        """Return the devices ``principal`` is signed in on, the one seen last first.

        Args:
            principal: whose.
            current: the session that asks; its device is marked.

        Raises:
            StoreUnavailable: the store does not answer.
            ConfigurationError: the sessions are in their own cookies.
        """
        async with self._within(_PATIENCE):
            return await self.devices.of(principal, current=_device_of(current))

    async def revoke(self, handle: str, *, principal: str) -> bool:
        """End one device of ``principal``: its session and its remember token. It is out at its next request.

        Args:
            handle: from :meth:`of`; any text is safe to pass.
            principal: whose device it must be.

        Returns:
            False when ``principal`` has no such device, whoever else may have it (ASVS 7.5.2, 8.2.2).

        Raises:
            StoreUnavailable: whether it ended is unknown.
        """
        async with self._within(_PATIENCE):
            return await self.devices.revoke(principal, handle)

    async def revoke_others(self, session: Session) -> int:
        """End all other sessions of who is signed in to ``session``; return how many devices they were.

        All remember tokens end, its own too: somebody may have a copy. It goes on as it is, also when another
        request gives it a new ID just then; to shut out a copy of its ID, regenerate it.

        Raises:
            SessionError: nobody is signed in to ``session``.
            StoreUnavailable: whether all of them ended is unknown; it can be called again.
        """
        principal = session.principal
        if principal is None:
            raise SessionError("nobody is signed in to this session, so it has no other devices to end")
        return await self._end_all_but(principal, session)

    async def revoke_all(self, principal: str) -> int:
        """End all sessions and remember tokens of ``principal``; return how many devices they were.

        For an operator, and for an account that was disabled or deleted (ASVS 7.4.2, 7.4.5).

        Raises:
            StoreUnavailable: whether all of them ended is unknown; it can be called again.
        """
        async with self._within(_PATIENCE):
            return await self.devices.revoke_all(principal)

    async def credentials_changed(self, principal: str, *, keep: Session | None = None) -> int:
        """End all other sessions, and all remember tokens: a password or a factor was changed (ASVS 7.4.3).

        Args:
            principal: whose credentials they are.
            keep: the session in which it was done. It goes on under a new ID, and whoever had a copy of any
                ID that it ever had is out; without one all end.

        Returns:
            How many other devices were ended.

        Raises:
            SessionError: ``keep`` is somebody else's session.
            StoreUnavailable: whether all of them ended is unknown; it can be called again.
        """
        if keep is not None and keep.principal != principal:
            raise SessionError("the session to keep is not one of this principal")
        ended = await self._end_all_but(principal, keep)
        if keep is not None:
            keep.regenerate()
            # A copy of its ID may have given it another one just now: that one's ID is not to outlive this.
            keep.draft.pending.goes_along = True
        return ended

    async def _end_all_but(self, principal: str, kept: Session | None) -> int:
        async with self._within(_PATIENCE):
            ended = await self.devices.revoke_all(principal, keep=_digest_of(kept), tokens_of_kept=True)
        if kept is not None and kept.draft.remembered:
            kept.draft.remember = False  # not before: an outage takes no cookie away
        return ended

    def sockets(self, principal: str) -> list[object]:
        """Return the handlers of all that ``principal`` has open in this process: WebSockets and streams."""
        return [watched.owner for watched in self.watch.of(principal)]

    async def send(self, principal: str, content: Any) -> None:
        """Send ``content`` to every WebSocket of ``principal``; in all processes, if the store can announce.

        Delivery is not guaranteed: who is not connected gets nothing. What must arrive is a flash message;
        send a hint, and let the sockets take it by ``await self.session.flash.take(key)``, which gives it to
        exactly one.

        Args:
            principal: whose.
            content: text, bytes, or a dict that JSON can hold; less than 5 KB.

        Raises:
            StoreUnavailable: whether anybody got it is unknown.
            ValueError: it is too long.
        """
        async with self._within(_PATIENCE):
            await self.watch.send(Message(principal, content))

    async def _end_from_outside(self, record: Record) -> None:
        for digest in await self._writer.end_record(record):
            self.watch.tell_ended(digest, "ended from another device")

    def _within(self, times: int) -> AbstractAsyncContextManager[None]:
        """Bound the wait for the store: so many times what a single call may take."""
        return self._health.watching(times * self._timeout)

    def _admitted(self, who: Identity | None, own: bytes | None) -> AbstractAsyncContextManager[None]:
        if self._admission is None or who is None or who.principal is None:
            return nullcontext()
        return self._admission.of(who.principal, own=own, device_id=who.device_id)


def _digest_of(session: Session | None) -> bytes | None:
    record = None if session is None else session.draft.record
    return None if record is None else record.digest


def _device_of(session: Session | None) -> bytes | None:
    return None if session is None else session.draft.identity.device_id
