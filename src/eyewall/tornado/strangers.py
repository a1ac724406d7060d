"""Requests that bring no cookie: nothing is made for them until somebody asks for their session.

Most never are (an API called with a token, a health check, a page that shows the same to all), and a session
with its barrier costs four times as much as finding out that there is none. The first use of
``request.session`` makes both, as if they had been there from the start.

One thing is different: a handler that has kept ``request.connection`` from before that first use, and answers
over what it kept, goes past the barrier. Handlers answer by ``finish()`` and its like, which look it up anew.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Self

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest

from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.tornado.attach import attach


class StrangersRequest(HTTPServerRequest):
    """A request whose session nobody has asked for yet."""

    _put_off: tuple[Manager, HTTP1Connection]
    # Tornado's own connection is kept, because the application may have put another before it.

    @property
    def session(self) -> Session:
        """The session, made now; the request is an ordinary one from here on."""
        manager, connection = self._put_off
        self.__class__ = HTTPServerRequest  # type: ignore[assignment]  # as it was
        session = attach(manager, self)
        # The answer may be on its way already: what needs its head, or its end to come, is refused then.
        session.headers_sent = connection._response_start_line is not None  # noqa: SLF001 - told nowhere else
        session.closed = connection._write_finished  # noqa: SLF001
        return session

    @session.setter
    def session(self, other: Any) -> None:
        """Let an application have something of its own under this name, as on any other request."""
        self.__class__ = HTTPServerRequest  # type: ignore[assignment]
        self.session = other

    def __copy__(self) -> Self:
        _ = self.session  # made before, or a copy would have another one
        return copy(self)


def let_wait(manager: Manager, request: HTTPServerRequest, target: type) -> bool:
    """Put the session of ``request`` off until it is asked for; return whether that is possible.

    Args:
        manager: makes it then.
        request: brings no cookie, and only asks for a page: no other site may cause others unnoticed.
        target: the handler's class. One that takes its body in pieces needs the session from the start.
    """
    if (
        type(request.connection) is not HTTP1Connection  # another one may not tell how far the answer is
        or type(request) is not HTTPServerRequest
        or getattr(target, "_stream_request_body", False)
    ):
        return False
    request.__class__ = StrangersRequest
    request._put_off = manager, request.connection  # type: ignore[attr-defined]  # noqa: SLF001 - ours
    return True


def has_waiting_session(request: HTTPServerRequest) -> bool:
    """Whether nobody has asked for the session of ``request`` yet."""
    return type(request) is StrangersRequest
