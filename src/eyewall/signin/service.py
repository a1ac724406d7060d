"""The manager of an application whose visitors sign in, and may be remembered.

What a handler asks for (:meth:`~eyewall.core.session.Session.sign_in`, ``sign_out``) is noted in the session
and carried out here when the request is saved. What is asked for from outside the session is in
:mod:`eyewall.signin.revoking`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from eyewall.core.browser_cookie import companion_attributes
from eyewall.core.changes import Changes, Identity
from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.draft import CookieAction, Draft
from eyewall.core.events import EventKind
from eyewall.core.ids import digest_of
from eyewall.core.payload import Payload
from eyewall.core.session import Session
from eyewall.core.stored_sessions import SessionMovedError
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import (
    DamagedRecordError,
    SessionEndedError,
    StoreUnavailable,
    TooManySessionsError,
)
from eyewall.signin.devices import handle_of
from eyewall.signin.remember import Redeemed, RememberTokens, Replayed
from eyewall.signin.remember_cookie import PresentedToken
from eyewall.signin.revoking import RevokingManager

REMEMBERED: Final = "remember token"
"""The method of a session that a remember token started."""


class SignInManager(RevokingManager):
    """Opens, saves and ends sessions, and brings back whoever is remembered.

    Args:
        settings: checked settings.
        store: where records are kept.
        clock: returns the current time in UTC.
        cut_off: as for :class:`~eyewall.core.manager.Manager`.
    """

    _tokens: RememberTokens | None = None
    _token_cookies: Mapping[bool, CookieAttributes] = MappingProxyType({})

    def use_keyring(self, keyring: KeyRing) -> None:
        """Sign cookies with the newest key of ``keyring`` from now on, and accept all of its keys."""
        super().use_keyring(keyring)
        if self.why_no_index() is not None or not self.settings.remember_ttl:
            return
        self._tokens = RememberTokens(self.store, self.clock, keyring, self.settings.remember_ttl)
        self._token_cookies = {
            https: companion_attributes(self.settings, "remember", https=https) for https in (True, False)
        }
        for https, cookie in self._cookies.items():
            cookie.token_name = self._token_cookies[https].name

    # -- coming back by a remember token ------------------------------------------------------------------

    async def _bring_back(self, session: Session) -> None:
        """When there is no session (any more), a remember token may bring its owner back. Never raises."""
        try:
            with self._health.watching(self._timeout):
                await self._redeem(session)
        except Exception as error:  # noqa: BLE001 - no error of a store may leave a request unanswered
            # The session cookie is not sent before it is known that nothing was revoked; the next request
            # brings the token's successor and tries again.
            session.draft.forget()
            session.draft.cookie = CookieAction.KEEP
            self._note_failure(session, error)

    async def _redeem(self, session: Session) -> None:
        draft, tokens = session.draft, self._tokens
        cookie = self._token_cookies[draft.https]
        presented = self._presented(draft)
        if tokens is None or presented is None:
            return  # not ours, or signed by a key this process has not got yet: no reason to delete it
        found = await tokens.redeem(cookie.name, presented)
        if isinstance(found, Replayed):
            self.events.emit(EventKind.THEFT, principal=found.principal)
            await self.devices.revoke(found.principal, handle_of(found.device_id))
            await tokens.end(presented)
        session.used = True  # the browser must be told
        if not isinstance(found, Redeemed):
            draft.send_along(cookie.name, cookie.delete())
        else:
            # From here on the browser needs the successor, whether or not the session can be started now.
            draft.send_along(cookie.name, self._kept(cookie, found.value, found.ends_at))
            await self._start_again(draft, found)
            if not await tokens.is_live(presented):
                await self._end_started(draft, found)  # a revocation that ran beside this wins
                draft.send_along(cookie.name, cookie.delete())
            elif draft.moved_from is not None:  # the browser has a newer cookie by now, of a parallel request
                draft.send_along(cookie.name, None)
            elif draft.record is not None:
                draft.brought_back = draft.record.digest

    async def _start_again(self, draft: Draft, found: Redeemed) -> None:
        """Start the session that ``found`` allows, or join the one a parallel request has started from it."""
        try:
            started = await self._started_or_joined(draft, found)
        except TooManySessionsError:
            return  # the token stays good for when there is room
        if started:
            draft.session_id, draft.cookie = found.session_id, CookieAction.SET

    async def _started_or_joined(self, draft: Draft, found: Redeemed) -> bool:
        identity = Identity(found.principal, None, found.device_id, REMEMBERED)
        device = None if draft.whence is None else draft.whence.device()
        async with self._admitted(identity, own=digest_of(found.session_id)):
            step = Changes(identity=identity).apply_to
            issued = await self._writer.create_as(found.session_id, step, device)
        if issued is None:
            return await self._join(draft, found)
        self.events.emit(EventKind.REMEMBERED, digest=issued.record.digest, principal=found.principal)
        draft.settle(issued.record, issued.payload)
        return True

    async def _join(self, draft: Draft, found: Redeemed) -> bool:
        digest = digest_of(found.session_id)
        try:
            stored = await self._writer.load(digest)
        except DamagedRecordError:
            return False
        except SessionMovedError:  # it has another ID by now, and the browser a newer cookie
            draft.moved_from = digest
            return False
        if stored is None or stored[0].principal != found.principal:
            return False
        draft.settle(*stored)
        return True

    async def _end_started(self, draft: Draft, found: Redeemed) -> None:
        # By its exact digest: what has another ID by now was started, and is ended, by somebody else.
        await self.store.delete(digest_of(found.session_id))
        draft.forget()
        draft.cookie = CookieAction.KEEP

    async def _look_again(self, draft: Draft) -> None:
        """Find out whether the session that a token has started is still there, before the browser is told.

        Another request of the same moment may have given it a new ID, or ended it, while this one was being
        answered. Then the browser has newer cookies, or is about to, and these must not take their place.
        """
        digest, draft.brought_back = draft.brought_back, None
        if digest is None or draft.record is None or draft.record.digest != digest:
            return  # what has become of it was this request's own doing
        # When the store fails nobody knows, so the browser is told what it needs.
        with contextlib.suppress(StoreUnavailable), self._health.watching(self._timeout / 2):
            if await self._is_gone(digest):
                self._tell_nothing(draft)

    async def _is_gone(self, digest: bytes) -> bool:
        try:
            return await self._writer.load(digest) is None
        except (SessionMovedError, DamagedRecordError):
            return True

    def _tell_nothing(self, draft: Draft) -> None:
        draft.brought_back, draft.cookie = None, CookieAction.KEEP
        draft.send_along(self._token_cookies[draft.https].name, None)

    def _drop(self, session: Session, error: SessionEndedError) -> None:
        super()._drop(session, error)
        if session.draft.brought_back is not None:
            self._tell_nothing(session.draft)

    # -- carrying out what a request asked for ------------------------------------------------------------

    async def _carry_out(self, draft: Draft, before: Payload, changes: Changes) -> None:
        if draft.leaving:
            await self._end_the_rest(draft)
        if draft.remember is False:
            await self._end_token(draft)
        own = draft.moved_from if draft.record is None else draft.record.digest
        async with self._admitted(changes.identity, own):
            await super()._carry_out(draft, before, changes)
        if draft.remember and changes.sign_in():
            await self._give_token(draft)
        if draft.brought_back is not None:
            await self._look_again(draft)

    async def _end_the_rest(self, draft: Draft) -> None:
        """End what a sign-out ends beside its own session.

        A remembered device may have more than one: whoever has copied its token has another. Its own session
        goes last: should this fail half-way, it is there to try again from.
        """
        while draft.leaving:
            leaving = draft.leaving[0]
            who = leaving.who or await self._writer.identity_at(leaving.digest or b"")
            if who.principal is None:
                pass
            elif leaving.everywhere:
                await self.devices.revoke_all(who.principal, keep=leaving.digest, tokens_of_kept=True)
            elif who.device_id is not None:
                await self.devices.revoke(who.principal, handle_of(who.device_id), keep=leaving.digest)
            draft.leaving = draft.leaving[1:]

    async def _end_token(self, draft: Draft) -> None:
        cookie = self._token_cookies[draft.https]
        await self._end_presented(draft)
        draft.send_along(cookie.name, cookie.delete())
        draft.remember = None

    async def _end_presented(self, draft: Draft) -> None:
        for presented in (self._presented(draft), draft.issued):
            if self._tokens is not None and isinstance(presented, PresentedToken):
                await self._tokens.end(presented)
        draft.remembered, draft.issued = False, None

    def _presented(self, draft: Draft) -> PresentedToken | None:
        if self._tokens is None or not draft.remembered:
            return None
        name = self._token_cookies[draft.https].name
        return self._tokens.read(name, cookie_values(draft.cookie_lines, name))

    async def _give_token(self, draft: Draft) -> None:
        who = draft.identity
        if self._tokens is None or who.principal is None or who.device_id is None:
            draft.remember = None
            return
        await self._end_presented(draft)
        cookie = self._token_cookies[draft.https]
        value, ends_at = await self._tokens.issue(
            cookie.name,
            principal=who.principal,
            device_id=who.device_id,
            device=None if draft.record is None else draft.record.device,
        )
        draft.send_along(cookie.name, self._kept(cookie, value, ends_at))
        draft.issued = self._tokens.read(cookie.name, [value])
        draft.remember = None

    def _kept(self, cookie: CookieAttributes, value: str, ends_at: datetime) -> str:
        return cookie.set(value, max_age=max(ends_at - self.clock(), timedelta(0)))
