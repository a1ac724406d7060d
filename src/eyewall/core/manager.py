"""The manager: settings, store, key ring and clock, and the way of a request through them.

The way of a request: :meth:`Manager.open` reads the cookie, :meth:`Manager.load` fetches the record, the
handler works with the session, :meth:`Manager.commit` stores what changed, and
:meth:`Manager.set_cookie_lines` says what the browser must be told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic

from eyewall.core.browser_cookie import BrowserCookie, IdCookie
from eyewall.core.cookie_jar import CookieFormats
from eyewall.core.cors import CorsPolicy
from eyewall.core.csrf_token import CsrfTokens
from eyewall.core.draft import CookieAction, Draft, Whence
from eyewall.core.events import EventKind
from eyewall.core.ids import digest_of
from eyewall.core.opening import encrypted_store
from eyewall.core.saving import Saving
from eyewall.core.session import Session
from eyewall.core.store import Clock, SelfCheck, Store, utc_now
from eyewall.core.store_health import as_store_failure
from eyewall.core.stored_sessions import SessionMovedError
from eyewall.crypto.key_use import KeyUse, Use
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import DamagedRecordError, StoreUnavailable
from eyewall.settings import Settings


class Manager(Saving):
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
        super().__init__(settings, store, clock)
        self._cut_off = cut_off
        self.cors = CorsPolicy.from_settings(settings)
        self._cookies: dict[bool, BrowserCookie] = {}
        self._key_use = KeyUse((), clock)
        self._in_cookie = settings.backend == "cookie"
        self._max_size = settings.max_size
        self._given_store = store

    def use_keyring(self, keyring: KeyRing) -> None:
        """Sign session cookies with the newest key of ``keyring`` from now on, and accept all of its keys."""
        self._key_use = keyring.count_uses(self.clock)
        self.cookie_formats = CookieFormats(keyring, self.clock)
        self.csrf_tokens = CsrfTokens(keyring, self.settings, self.clock)
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

    def open(self, cookie_lines: Sequence[str], *, https: bool, whence: Whence | None = None) -> Session:
        """Return the session of a request, not loaded yet.

        Args:
            cookie_lines: the request's ``Cookie`` header lines.
            https: whether the browser's connection is encrypted.
            whence: tells about the request; without it, a page is shown by nobody in particular.
        """
        # By position: Python makes a dict of the keywords that a class is called with, and takes it apart.
        draft = Draft(self._max_size, self._in_cookie, cookie_lines, https, whence)
        if cookie_lines:
            problem = self._cookies[https].read(cookie_lines, draft)
            if problem is not None:
                self.events.emit(problem)
        return Session(self, draft)

    async def load(self, session: Session) -> None:
        """Load the session that the cookie named, else bring back who is remembered. Never raises.

        When the store does not answer, the session fails at its first use instead: a page that does not
        need the session is not affected.
        """
        draft = session.draft
        if draft.session_id is not None:
            digest = digest_of(draft.session_id)
            try:
                with self._unbounded or self._health.watching(self._timeout, reading=True):
                    began = monotonic()
                    record = await self.store.load(digest)
                    session.waited = monotonic() - began
                found = self._writer.opened(record, digest)
            except Exception as error:  # noqa: BLE001 - no error of a store may leave a request unanswered
                self._note_why_not(session, digest, error)
            else:
                if found is not None:
                    draft.settle(*found)
                else:
                    self._note_unknown(draft, digest)
        if draft.remembered and draft.record is None and session.failure is None and draft.moved_from is None:
            await self._bring_back(session)

    def _note_unknown(self, draft: Draft, digest: bytes) -> None:
        # Never adopt the ID: what this visitor stores gets an ID of ours (ASVS 7.2.4, fixation).
        draft.session_id = None
        self.events.emit(EventKind.UNKNOWN_ID, digest=digest)

    def _note_why_not(self, session: Session, digest: bytes, error: Exception) -> None:
        if isinstance(error, DamagedRecordError):
            self.events.emit(EventKind.DAMAGED_RECORD, digest=digest, detail=str(error))
        elif isinstance(error, SessionMovedError):
            session.draft.moved_from = digest
        else:
            self._note_failure(session, error)
            return
        self._note_unknown(session.draft, digest)

    def _note_failure(self, session: Session, error: Exception) -> None:
        """Let the session's first use fail: the store has."""
        failure = error if isinstance(error, StoreUnavailable) else as_store_failure(error)
        session.failure = self._as_answer(failure)
        session.store_failed = True

    def _as_answer(self, failure: StoreUnavailable) -> Exception:
        """Return ``failure`` as the framework can answer it."""
        return failure

    async def _bring_back(self, session: Session) -> None:
        """Start the session again whose owner is remembered; sign-in knows how. Never raises."""

    # -- the cookie ---------------------------------------------------------------------------------------

    def set_cookie_lines(self, session: Session, *, https: bool) -> list[str]:
        """Return the ``Set-Cookie`` lines that the response needs, those of companion cookies too."""
        draft = session.draft
        self.csrf_tokens.end_pre_session(draft)
        if draft.cookie is CookieAction.KEEP and not draft.companions:
            return []  # nearly always
        return [*self._cookies[https].lines(draft), *draft.companions.values()]

    def _cookie_lines(self, draft: Draft) -> list[str]:
        return self._cookies[draft.https].lines(draft)

    def cookie_name(self, *, https: bool) -> str:
        """Return the session cookie's name on this kind of connection."""
        return self._cookies[https].name

    # -- the store's health, and work in the background ---------------------------------------------------

    async def check(self) -> None:
        """Find out before serving whether the store can be used, if it is one that can tell.

        Raises:
            ConfigurationError: a person must mend something (address, password, database, rights); one line.
            StoreUnavailable: nobody answers, which may pass; serving can begin all the same.
        """
        if isinstance(self.store, SelfCheck):
            await self.store.check()

    async def drain(self, patience: timedelta = timedelta(seconds=10)) -> None:
        """Close what stays open, because this process stops: WebSockets with 1001, streams by ending them.

        The sessions go on. What is opened from now on is closed at once. Call it when the server takes no new
        connection; :meth:`aclose` begins with it.

        Args:
            patience: the longest wait for messages that are being handled, and until all is stored. A client
                that does not answer the close is waited for one second.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                await self.watch.still_open.end()
                await self._background.drained()

    async def aclose(self) -> None:
        """Close what stays open, wait until everything under way is stored, then close the store."""
        self._sweeper.stop()
        await self.drain()
        await self.watch.aclose()
        await self._background.drained()
        await self.store.close()
