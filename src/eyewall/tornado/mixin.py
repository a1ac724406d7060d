"""``SessionMixin``: sessions for the handlers of your own application."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, ClassVar, NamedTuple
from weakref import WeakMethod

from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall.core.csrf import SAFE_METHODS
from eyewall.core.session import Session
from eyewall.errors import SessionError
from eyewall.tornado.attach import (
    OutagePolicy,
    attach,
    cross_origin_problem,
    is_handshake,
    meet_outage,
    save_for_handshake,
    session_on,
)
from eyewall.tornado.cookies import CookieMixin
from eyewall.tornado.cors import answer_preflight, begin_cors
from eyewall.tornado.error_answers import ErrorAnswers
from eyewall.tornado.preparing import prepare_as_ever, prepare_by
from eyewall.tornado.sessions import Sessions
from eyewall.tornado.signing_in import SignInMixin, has_own_loader, load_current_user
from eyewall.tornado.strangers import is_waiting, let_wait
from eyewall.tornado.wire import CommitBarrier
from eyewall.tornado.xsrf import XsrfMixin, demand_token

_Execute = Coroutine[Any, Any, None]


class SessionMixin(SignInMixin, XsrfMixin, ErrorAnswers, CookieMixin):
    """Gives a handler ``self.session``, ``self.sign_in()``, ``self.sign_out()`` and ``self.jar``.

    ::

        class Counter(SessionMixin, tornado.web.RequestHandler):
            def get(self):
                self.session["n"] = self.session.get("n", 0) + 1
                self.write(str(self.session["n"]))

    Works with sync and async handlers; ``prepare()``, ``finish()`` and the rest stay as they are. It
    overrides only ``_execute``, so the session is there before Tornado's XSRF check and ``prepare()``,
    even if a subclass forgets ``super().prepare()``.
    """

    uses_session: ClassVar[bool] = True
    """Set to False on a handler that must have no session and cost nothing."""

    cross_origin_protection: ClassVar[bool] = True
    """Set to False on a handler that other sites may post to. It must not rely on cookies then."""

    when_store_fails: ClassVar[OutagePolicy] = "if-used"
    """What happens when the session cannot be loaded: ``"if-used"``, a 503 once the handler uses it;
    ``"required"``, a 503 in any case; ``"anonymous"``, the page as a stranger sees it, and a 503 only if
    something is to be stored. The visitor's cookie is left alone by all of them."""

    needs_principal: ClassVar[bool] = False
    """Whether a WebSocket handshake is refused when nobody is signed in; see ``authenticated_socket``."""

    @property
    def session_ended(self) -> asyncio.Future[str | None]:
        """Tells when an answer that stays open for long has to end; its result is the reason.

        ::

            async def get(self):                        # server-sent events
                ended = self.session_ended
                while not ended.done():
                    await asyncio.wait({next_event(), ended}, return_when=FIRST_COMPLETED)

        The result is None when the session goes on: the client has left, the answer is finished, or the
        server stops. A handler that has asked for it and goes on regardless has its connection cut a second
        later. Without a stored session only None can come.
        """
        _ = self.session.draft  # begins it, where it has waited
        connection = self.request.connection
        hold_stream = getattr(connection, "hold_stream", None)  # the barrier's, also behind a CookieWriter
        if hold_stream is None:
            raise SessionError(f"{type(self).__name__} has no session that could end: use SessionMixin")
        ended: asyncio.Future[str | None] = hold_stream(self).waiter()
        return ended

    @property
    def session(self) -> Session:
        """The session of this request."""
        try:
            return self.request.session  # type: ignore[attr-defined,no-any-return]  # requests are open
        except AttributeError:
            raise _without_session(type(self)) from None

    def _execute(self, transforms: list[Any], *args: bytes, **kwargs: bytes) -> Coroutine[Any, Any, None]:
        execute = super()._execute(transforms, *args, **kwargs)
        if not type(self).uses_session:
            return execute
        try:
            return _begin(self, execute)
        except Exception as error:  # noqa: BLE001 - Tornado answers none from here, and the client hangs
            _instead_of_prepare(self, error)
            return _execute_otherwise(self, execute)


def session_of(handler: RequestHandler) -> Session:
    """Return the session of ``handler``'s request, whichever way it came in.

    Raises:
        SessionError: the handler has none: it uses no SessionMixin and ``install()`` was not called, or it
            opted out.
    """
    session = session_on(handler.request)
    if session is None:
        raise SessionError(
            f"{type(handler).__name__} has no session: add SessionMixin to it, or call sessions.install(app)"
        )
    return session


def _without_session(kind: type[SessionMixin]) -> SessionError:
    if not kind.uses_session:
        return SessionError(f"{kind.__name__} has uses_session = False, so it has no session")
    return SessionError(
        f"{kind.__name__} has no session: put SessionMixin before RequestHandler, as in "
        f"class {kind.__name__}(SessionMixin, RequestHandler)"
    )


async def _execute_after(
    handler: SessionMixin,
    execute: _Execute,
    session: Session,
    loader: Sessions | None,
    caution: _Caution | None,
) -> None:
    """Await the session, then let Tornado go on. What goes wrong is the handler's own error page.

    Args:
        handler: nothing of it has run.
        execute: what Tornado does.
        session: the request's.
        loader: loads it; None where it is loaded.
        caution: None for a request that only asks for a page.
    """
    try:
        if loader is not None:
            await loader.load(session)
            if caution is not None and caution.handshake:
                await save_for_handshake(loader, session)
        if session.failure is not None:
            meet_outage(session, type(handler).when_store_fails)
        if has_own_loader(handler) and (caution is None or caution.problem is None):
            await load_current_user(handler, session)
        if caution is not None:
            _check(handler, caution)
    except Exception as error:  # noqa: BLE001 - as in _execute
        _instead_of_prepare(handler, error)
    except BaseException:
        execute.close()  # never begun, and not to be: the task was cancelled
        raise
    if handler.prepares_otherwise:
        await _execute_otherwise(handler, execute)
    else:
        await execute


async def _execute_otherwise(handler: SessionMixin, execute: _Execute) -> None:
    """Let Tornado go on, and take away what :func:`prepare_by` has put there."""
    try:
        await execute
    finally:
        prepare_as_ever(handler)


def _begin(handler: SessionMixin, execute: _Execute) -> _Execute:
    """Give the request its session; return ``execute``, or what has something to await before it."""
    sessions, request = Sessions.serving(handler.application), handler.request
    handshake = is_handshake(request)
    careful = handshake or request.method not in SAFE_METHODS
    session, loader = getattr(request, "session", None), None
    if session is None:
        lines = request.headers.get_list("Cookie")
        if sessions.cors is None:
            if not lines and not careful and let_wait(sessions, request, type(handler)):
                return execute
        elif begin_cors(sessions.cors, request):
            prepare_by(handler, partial(answer_preflight, handler))
            return _execute_otherwise(handler, execute)
        session = attach(sessions, request, lines)
        draft = session.draft
        if draft.session_id is not None or draft.remembered or handshake:
            loader = sessions
        _guard_what_streams(handler)
    elif is_waiting(session):  # install() has let it wait
        return execute
    caution = _look_closer(handler, sessions, session, handshake=handshake) if careful else None
    if loader is not None or has_own_loader(handler):
        return _execute_after(handler, execute, session, loader, caution)
    if caution is None:
        return execute
    _check(handler, caution)
    return _execute_otherwise(handler, execute) if handler.prepares_otherwise else execute


class _Caution(NamedTuple):
    """What is to be looked at where a request may change something, and another site may have caused it."""

    sessions: Sessions
    handshake: bool
    problem: str | None


def _look_closer(handler: SessionMixin, sessions: Sessions, session: Session, *, handshake: bool) -> _Caution:
    """Find out whether another site has caused the request."""
    problem = None
    if type(handler).cross_origin_protection:
        # Tornado 6.6 asks this of a handler; honouring it makes both protections agree, and on older
        # versions a handler may define it for us.
        trusts = getattr(handler, "check_trusted_origin", None)
        problem = cross_origin_problem(sessions, handler.request, handshake=handshake, is_trusted=trusts)
    if problem is not None:
        session.draft.remembered = False  # another site's request must not use the token up
    return _Caution(sessions, handshake, problem)


def _check(handler: SessionMixin, caution: _Caution) -> None:
    """Put in place of ``prepare()`` what must come before it."""
    if caution.problem is not None:
        _instead_of_prepare(handler, HTTPError(403, "%s", caution.problem))
        return
    if caution.handshake and type(handler).needs_principal:
        _refuse_strangers(handler)
    demand_token(handler, caution.sessions)


def _refuse_strangers(handler: SessionMixin) -> None:
    """Answer a handshake with 401 (503 when nobody knows) while there is an answer to give."""
    session = handler.session
    if session.failure is not None:
        _instead_of_prepare(handler, session.failure)
    elif not handler.current_user:
        _instead_of_prepare(handler, HTTPError(401, "nobody is signed in, so this WebSocket is not opened"))


def _instead_of_prepare(handler: SessionMixin, error: Exception) -> None:
    """Let the handler fail with ``error`` before ``prepare()``, where Tornado turns it into an answer."""

    def refuse() -> None:
        raise error

    prepare_by(handler, refuse)


def _guard_what_streams(handler: SessionMixin) -> None:
    if getattr(type(handler), "_stream_request_body", False):
        _guard_streamed_body(handler)
    elif isinstance(handler, WebSocketHandler) and isinstance(handler.request.connection, CommitBarrier):
        handler.request.connection.hold_socket(handler)


def _guard_streamed_body(handler: RequestHandler) -> None:
    """Drop body data that arrives after the answer is finished.

    Tornado stops feeding a handler once its answer is on the wire; while we hold the answer back it
    does not know yet.
    """
    session = session_of(handler)
    method = WeakMethod(handler.data_received)  # weak: the handler must not hold on to itself

    def data_received(chunk: bytes) -> Any:
        receive = None if session.closed else method()
        return None if receive is None else receive(chunk)

    handler.__dict__["data_received"] = data_received
