"""The session-bound CSRF token behind Tornado's own names, which call it XSRF.

With ``Application(xsrf_cookies=True)`` Tornado asks for it, with the setting ``strict`` we do; never both.
Tornado's ``_xsrf`` cookie is neither set nor read.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from tornado.web import HTTPError, RequestHandler

from eyewall.core.changes import Identity
from eyewall.core.csrf import SAFE_METHODS
from eyewall.core.events import EventKind
from eyewall.core.session import Session
from eyewall.errors import HeadersSentError, SessionError
from eyewall.tornado.attach import session_on
from eyewall.tornado.preparing import Preparing, prepare_by
from eyewall.tornado.sessions import Sessions

if TYPE_CHECKING:
    _Handler = RequestHandler
else:
    _Handler = object

_HOW_TO_SEND = "put {% module xsrf_form_html() %} into the form, or send it in the header X-XSRFToken"


class XsrfMixin(Preparing, _Handler):
    """Binds Tornado's XSRF token to the session; :class:`~eyewall.tornado.SessionMixin` has it already.

    A handler with ``uses_session = False`` keeps Tornado's own token and cookie.
    """

    _made: tuple[object, Identity, bytes] | None = None

    @property
    def xsrf_token(self) -> bytes:
        """The CSRF token for this page: 104 ASCII characters, bound to the session, masked anew per response.

        The page is marked as private. A visitor without a session gets a cookie that is good for 15
        minutes, and nothing is stored.

        Raises:
            HeadersSentError: the headers have left, so the page may be in a shared cache already.
            StoreUnavailable: the session could not be loaded (answered as 503).
        """
        if _opted_out(self):
            return super().xsrf_token
        session = _session_of(self)
        life, who = session.draft.life, session.draft.identity
        if self._made is None or self._made[:2] != (life, who):  # after a sign-in the first one is no good
            self._made = life, who, self._make_token(session)
        return self._made[2]

    def check_xsrf_cookie(self) -> None:
        """Refuse the request unless it carries a token of this session.

        It is taken from the body argument ``_xsrf`` (a form, also multipart) or from the header
        ``X-XSRFToken`` or ``X-CSRFToken``; never from the query, which ends up in logs and in ``Referer``.
        While a body is still being streamed only the headers count.

        Raises:
            HTTPError: 403, and the log says why.
            StoreUnavailable: the session could not be loaded (answered as 503).
        """
        if _opted_out(self):
            super().check_xsrf_cookie()
            return
        problem = token_problem(self)
        if problem is not None:
            raise HTTPError(403, "%s", problem)

    def _make_token(self, session: Session) -> bytes:
        if self._headers_written:
            raise HeadersSentError(
                "a page with a CSRF token must not be cached, but its headers have already left. Read "
                "self.xsrf_token before the first flush()."
            )
        token = Sessions.serving(self.application).csrf_tokens.make(session).encode("ascii")
        if "Cache-Control" not in self._headers:
            self.set_header("Cache-Control", "private, no-store")
        return token


def demand_token(handler: XsrfMixin, sessions: Sessions) -> None:
    """Let ``handler`` check the token before its ``prepare()``, where ``strict`` wants that.

    Not now: Tornado 6.5 and later parse the body on the way to ``prepare()``. Nothing happens where Tornado
    checks it anyway (``xsrf_cookies``), and where the handler has ``cross_origin_protection = False``.
    ``check_xsrf_cookie()`` is called, so whoever has overridden it, as Tornado's documentation says, stays
    exempt.
    """
    if not sessions.settings.strict:
        return
    exempt = handler.request.method in SAFE_METHODS or not getattr(handler, "cross_origin_protection", True)
    if exempt or handler.settings.get("xsrf_cookies"):
        return
    prepare = handler.prepare

    def check_then_prepare() -> Awaitable[None] | None:
        handler.check_xsrf_cookie()
        return prepare()

    prepare_by(handler, check_then_prepare)


def token_problem(handler: RequestHandler) -> str | None:
    """Return why ``handler``'s request has no valid token, or None when it has one. Emits an event.

    Raises:
        StoreUnavailable: the session could not be loaded, so nobody knows whose it is.
    """
    sessions, session = Sessions.serving(handler.application), _session_of(handler)
    _ = session.principal  # raises here if nobody knows, before there is a token that a traceback could show
    token = _token_sent(handler)
    if token and sessions.csrf_tokens.accepts(session, token):
        return None
    problem = _why_refused(handler, token)
    record = session.draft.record
    digest = None if record is None else record.digest
    sessions.events.emit(EventKind.CSRF_REFUSED, digest=digest, detail=problem)
    return problem


def _token_sent(handler: RequestHandler) -> str | None:
    headers = handler.request.headers
    in_body = handler.get_body_argument("_xsrf", None)
    return in_body or headers.get("X-XSRFToken") or headers.get("X-CSRFToken")


def _why_refused(handler: RequestHandler, token: str | None) -> str:
    """Say it without the token: this ends up in logs."""
    if token:
        return (
            "CSRF token refused: it was made for another session (before signing in or out?), more than 15 "
            "minutes ago for a visitor without a session, or not by us; load the page again"
        )
    if "_xsrf" in handler.request.query_arguments:
        return f"CSRF token in the query, where it would end up in logs; {_HOW_TO_SEND}"
    return f"CSRF token missing; {_HOW_TO_SEND}"


def _session_of(handler: RequestHandler) -> Session:
    Sessions.serving(handler.application)  # if that is why there is no session, this raises the reason
    session = session_on(handler.request)
    if session is None:
        name = type(handler).__name__
        raise SessionError(
            f"{name} has no session to bind a CSRF token to: use SessionMixin, as in "
            f"class {name}(SessionMixin, RequestHandler), or sessions.install(app)"
        )
    return session


def _opted_out(handler: RequestHandler) -> bool:
    return not getattr(type(handler), "uses_session", True)
