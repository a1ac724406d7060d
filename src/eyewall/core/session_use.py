"""When a session may be used and changed, and what the adapter tells it about the answer.

Every verb of :class:`~eyewall.core.session.Session` begins by asking here. So there is one place that notes
that a session was used, that raises what went wrong when it was loaded, and that refuses a change which could
no longer be stored, or a cookie which could no longer be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eyewall.core.draft import CookieAction, Draft
from eyewall.core.turns import Turns
from eyewall.errors import HeadersSentError, SessionClosedError


class SessionUse(Turns):
    """How far the answer to a request is, and what that lets its session still do."""

    used = False
    closed = False
    headers_sent = False
    status = 200  # of the answer, as soon as its head leaves
    stays_open = False
    store_failed = False
    refusal_headers: Mapping[str, str] = MappingProxyType({})  # for an answer of 400 or more
    waited = 0.0  # seconds spent on loading
    failure: Exception | None = None
    absent: Exception | None = None  # why this page goes without the session
    draft: Draft

    # -- for the adapter ----------------------------------------------------------------------------------

    def is_untouched(self) -> bool:
        """Whether there cannot be anything to save: nobody changed anything, or read what has an inside."""
        draft = self.draft
        return draft.changes is None and draft.is_idle and draft.seen is None and not self._is_being_saved

    def refuse_with(self, headers: Mapping[str, str]) -> None:
        """Let an answer of 400 or more carry ``headers``."""
        self.refusal_headers = headers

    def close(self) -> None:
        """From now on refuse changes: the response is finished."""
        self.closed = True

    def go_without(self) -> None:
        """Be a stranger's session, since the real one could not be loaded; only changes fail with the reason.

        The browser keeps its cookie, and is who it was as soon as the store answers.
        """
        self.failure, self.absent = None, self.failure

    def stay_open(self) -> None:
        """There is no response any more: the connection has become a WebSocket, and changes go on."""
        self.closed = False
        self.headers_sent = self.stays_open = True
        self.waited = 0.0

    def cookie_due(self) -> CookieAction:
        """What the response must tell the browser about the cookie."""
        return self.draft.cookie

    # -- for the verbs -------------------------------------------------------------------------------------

    def _use(self, *, changing: bool = False) -> None:
        """Note a use, or refuse it. What only reads and has not failed may as well set ``used`` itself."""
        if self.failure is not None:
            self.used = True
            raise self.failure
        if changing and self.absent is not None:
            self.used = True
            raise self.absent
        if changing and self.closed:
            raise SessionClosedError(
                "the response is finished, so this change to the session could not be saved. Change the "
                "session before finish(), redirect() or render()."
            )
        self.used = True

    def _change_needs_cookie(self) -> bool:
        return self.draft.record is None or self.draft.in_cookie

    def _needs_headers(self, what: str) -> None:
        if self.stays_open:
            raise HeadersSentError(
                f"{what} needs a cookie, and an open WebSocket cannot set one. Do this in an HTTP request."
            )
        if self.headers_sent:
            raise HeadersSentError(
                f"{what} needs a cookie, but the response's headers have already left. Do this before the "
                "first flush()."
            )
