"""Requests that bring no cookie: nothing is made for them until somebody uses their session.

Most never do (an API called with a token, a health check, a page that shows the same to all), and a session
with its barrier costs four times as much as finding out that there is none. So ``request.session`` begins
with its first use. The barrier that comes so late stands inside the connection itself: whoever has kept
``request.connection``, or a copy of the request, from before meets it all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

from tornado.concurrent import Future
from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError

from eyewall.core.draft import Draft
from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.tornado.attach import Asked
from eyewall.tornado.socket_hold import SocketHold
from eyewall.tornado.stream_hold import StreamHold
from eyewall.tornado.wire import CommitBarrier


class StrangersSession(Session):
    """A session that begins when it is used: when its draft is asked for, as every verb does."""

    has_begun = False

    def __init__(self, manager: Manager, request: HTTPServerRequest, connection: HTTP1Connection) -> None:
        self._keeper = self._manager = manager
        self._request = ref(request)  # weak: the request has the session
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        if name != "draft":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.has_begun, self.draft = True, self._first_draft()
        connection = self._connection
        # The answer may be on its way already: what needs its head, or its end to come, is refused then.
        self.headers_sent = connection._response_start_line is not None  # noqa: SLF001 - told nowhere else
        self.closed = connection._write_finished  # noqa: SLF001
        connection.__class__ = HeldConnection
        connection.barrier = CommitBarrier(_Unheld(connection), self, self._manager)  # type: ignore[attr-defined]
        del self._connection  # it has the barrier now, and the barrier has this
        return self.draft

    def _first_draft(self) -> Draft:
        request = self._request()
        if request is None:
            return self._manager.open([], https=False).draft
        return self._manager.open([], https=request.protocol == "https", whence=Asked(request)).draft

    def _use(self, *, changing: bool = False) -> None:
        _ = self.draft  # so that it is known how far the answer is
        super()._use(changing=changing)

    def refuse_with(self, headers: Mapping[str, str]) -> None:
        """Let an answer of 400 or more carry ``headers``; the barrier adds them, so there has to be one."""
        _ = self.draft
        super().refuse_with(headers)


class HeldConnection(HTTP1Connection):
    """Tornado's own connection, with a barrier that came after others had got to know it."""

    barrier: CommitBarrier

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Future[None]:
        """See :meth:`CommitBarrier.write_headers`."""
        return self.barrier.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> Future[None]:
        """See :meth:`CommitBarrier.write`."""
        return self.barrier.write(chunk)

    def finish(self) -> None:
        """See :meth:`CommitBarrier.finish`."""
        self.barrier.finish()

    def detach(self) -> Any:
        """See :meth:`CommitBarrier.detach`."""
        return self.barrier.detach()

    def hold_stream(self, owner: object) -> StreamHold | SocketHold:
        """See :meth:`CommitBarrier.hold_stream`."""
        return self.barrier.hold_stream(owner)


class _Unheld(HTTPConnection):
    """What a :class:`HeldConnection` was before; for its barrier."""

    def __init__(self, connection: HTTP1Connection) -> None:
        self._weak = ref(connection)  # the connection has the barrier, and the barrier has this

    def _there(self) -> HTTP1Connection:
        connection = self._weak()
        if connection is None:
            raise StreamClosedError
        return connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._weak(), name)  # of None, once the client is gone: nothing is left to cut

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Future[None]:
        return HTTP1Connection.write_headers(self._there(), start_line, headers, chunk)

    def write(self, chunk: bytes) -> Future[None]:
        return HTTP1Connection.write(self._there(), chunk)

    def finish(self) -> None:
        HTTP1Connection.finish(self._there())

    def detach(self) -> Any:
        return HTTP1Connection.detach(self._there())


def let_wait(manager: Manager, request: HTTPServerRequest, target: type) -> bool:
    """Let the session of ``request`` wait for its first use; return whether that is possible.

    Args:
        manager: makes it then.
        request: brings no cookie, and only asks for a page: no other site may cause others unnoticed.
        target: the handler's class. One that takes its body in pieces needs the session from the start.
    """
    connection = request.connection
    if type(connection) is not HTTP1Connection or getattr(target, "_stream_request_body", False):
        return False  # of another connection nobody knows how far its answer is
    request.session = StrangersSession(manager, request, connection)  # type: ignore[attr-defined]
    return True


def is_waiting(session: Session) -> bool:
    """Whether ``session`` waits for its first use."""
    return type(session) is StrangersSession and not session.has_begun
