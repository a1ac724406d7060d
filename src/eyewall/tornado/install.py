"""``sessions.install(app)``: sessions for applications whose handlers one does not own."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import (
    Application,
    ErrorHandler,
    FallbackHandler,
    RedirectHandler,
    RequestHandler,
    StaticFileHandler,
)

from eyewall.core.csrf import SAFE_METHODS
from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.tornado.attach import (
    attach,
    cross_origin_problem,
    is_handshake,
    is_settled,
    save_for_handshake,
)
from eyewall.tornado.cors import PreflightHandler, begin_cors
from eyewall.tornado.strangers import let_wait
from eyewall.tornado.wire import CommitBarrier

_NEVER = frozenset({StaticFileHandler, ErrorHandler, RedirectHandler, FallbackHandler})
"""Exactly these classes are left out: their subclasses may well want to know who asks."""


def install(application: Application, manager: Manager) -> None:
    """Route every request of ``application`` through a delegate that loads the session first.

    ``Application.get_handler_delegate`` is Tornado's documented seam for it; it is replaced on this one
    application, and no class is touched.
    """
    uninstall(application)
    original = application.get_handler_delegate  # perhaps somebody's who counts requests

    def get_handler_delegate(
        request: HTTPServerRequest, target_class: type[RequestHandler], *args: Any, **kwargs: Any
    ) -> HTTPMessageDelegate:
        if target_class in _NEVER or not getattr(target_class, "uses_session", True):
            return original(request, target_class, *args, **kwargs)
        if begin_cors(manager.cors, request):
            return original(request, PreflightHandler)
        handshake = is_handshake(request)
        careful = handshake or request.method not in SAFE_METHODS
        protected = careful and getattr(target_class, "cross_origin_protection", True)
        if protected and cross_origin_problem(manager, request, handshake=handshake) is not None:
            return original(request, ErrorHandler, {"status_code": 403})
        lines = request.headers.get_list("Cookie")
        can_wait = not lines and not careful and manager.cors is None
        if can_wait and let_wait(manager, request, target_class):
            return original(request, target_class, *args, **kwargs)
        session = attach(manager, request, lines)
        inner = original(request, target_class, *args, **kwargs)
        goes_without = getattr(target_class, "when_store_fails", "if-used") == "anonymous"
        return SessionDelegate(manager, request, session, inner, goes_without=goes_without)

    get_handler_delegate.__wrapped__ = original  # type: ignore[attr-defined]  # as functools.wraps has it
    application.__dict__["get_handler_delegate"] = get_handler_delegate


def uninstall(application: Application) -> None:
    """Undo :func:`install`."""
    original = getattr(application.__dict__.get("get_handler_delegate"), "__wrapped__", None)
    if original is None:
        return  # not installed, or somebody has put theirs before ours since
    del application.__dict__["get_handler_delegate"]
    if original != application.get_handler_delegate:
        application.__dict__["get_handler_delegate"] = original


class SessionDelegate(HTTPMessageDelegate):
    """Loads the session when a request's headers are in, then lets Tornado's own delegate go on."""

    def __init__(
        self,
        manager: Manager,
        request: HTTPServerRequest,
        session: Session,
        inner: HTTPMessageDelegate,
        *,
        goes_without: bool,
    ) -> None:
        self._goes_without = goes_without
        self._manager = manager
        self._session = session
        self._inner = inner
        self._request = request
        self._connection = request.connection

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Load, then start the handler."""
        if is_settled(self._session) and not is_handshake(self._request):
            return self._inner.headers_received(start_line, headers)
        return self._load_then_start(start_line, headers)

    async def _load_then_start(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        await self._manager.load(self._session)
        if is_handshake(self._request):
            await save_for_handshake(self._manager, self._session)
        if self._goes_without and self._session.failure is not None:
            self._session.go_without()
        started = self._inner.headers_received(start_line, headers)
        if started is not None:
            await started

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Pass on a piece of the body, unless the answer is finished and only held back by us."""
        if isinstance(self._connection, CommitBarrier) and self._connection.is_finished:
            return None
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        """The request is complete."""
        self._inner.finish()

    def on_connection_close(self) -> None:
        """The client went away before its request was complete."""
        self._inner.on_connection_close()
