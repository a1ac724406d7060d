"""Requests that bring no cookie: nothing is made for them until somebody asks for their session.

Most never are (an API called with a token, a health check, a page that shows the same to all), and a session
with its barrier costs four times as much as finding out that there is none. The first use of
``request.session`` makes both, as if they had been there from the start.
"""

from __future__ import annotations

from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest

from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.tornado.attach import attach


class StrangersRequest(HTTPServerRequest):
    """A request whose session nobody has asked for yet."""

    sessions: Manager

    @property
    def session(self) -> Session:
        """The session, made now; the request is an ordinary one from here on."""
        manager = self.sessions
        self.__class__ = HTTPServerRequest  # type: ignore[assignment]  # as it was
        connection: Any = self.connection
        session = attach(manager, self)
        # The answer may be on its way already: what needs its head, or its end to come, is refused then.
        session.headers_sent = connection._response_start_line is not None  # noqa: SLF001 - told nowhere else
        session.closed = connection._write_finished  # noqa: SLF001
        return session


def let_wait(manager: Manager, request: HTTPServerRequest, target: type) -> bool:
    """Put the session of ``request`` off until it is asked for; return whether that is possible.

    Args:
        manager: makes it then.
        request: only asks for a page: no other site may cause others unnoticed.
        target: the handler's class. One that takes its body in pieces needs the session from the start.
    """
    if (
        request.headers.get_list("Cookie")
        or type(request.connection) is not HTTP1Connection  # another one may not tell how far the answer is
        or type(request) is not HTTPServerRequest
        or getattr(target, "_stream_request_body", False)
    ):
        return False
    request.sessions = manager  # type: ignore[attr-defined]  # requests are open
    request.__class__ = StrangersRequest
    return True


def has_waiting_session(request: HTTPServerRequest) -> bool:
    """Whether nobody has asked for the session of ``request`` yet."""
    return type(request) is StrangersRequest
