"""``self.jar``: cookies for handlers, with or without a session.

The jar is made at its first use, from the request. A :class:`CookieWriter` then stands before the request's
connection and adds the jar's lines when the head leaves, whatever sends it: ``finish()``, ``redirect()``, an
error page, a WebSocket handshake. Handlers that never ask for the jar pay nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler

from eyewall.core.client_side import MOST_CHUNKS
from eyewall.core.cookie_jar import CookieJar
from eyewall.errors import CookieError
from eyewall.tornado.attach import session_on
from eyewall.tornado.cookie_writer import CookieWriter
from eyewall.tornado.sessions import Sessions
from eyewall.tornado.signed_values import TORNADO_MAX_AGE, TornadoValues

if TYPE_CHECKING:
    _Handler = RequestHandler
else:
    _Handler = object


class HandlerJar(CookieJar):
    """The jar of a handler: :class:`~eyewall.core.cookie_jar.CookieJar`, and Tornado's own signed cookies."""

    def __init__(self, application: Application, request: HTTPServerRequest) -> None:
        sessions = Sessions.serving(application)
        super().__init__(
            request.headers.get_list("Cookie"),
            https=request.protocol == "https",
            formats=sessions.cookie_formats,
            reserved=_names_of(sessions),
        )
        self._application = application
        self._clock = sessions.clock

    def tornado(self, *, max_age: timedelta = TORNADO_MAX_AGE) -> HandlerJar:
        """Return this jar with values as ``set_signed_cookie`` writes them: text or bytes in, bytes out.

        For moving from Tornado's cookies one by one. They have no end of their own and no types, and are not
        re-issued under a newer key.

        Args:
            max_age: how old a value may be; 31 days, as in ``get_signed_cookie``, unless given.

        Raises:
            ConfigurationError: the application has no ``cookie_secret``.
        """
        return self._view(_values=TornadoValues(self._application, self._clock, max_age=max_age))


class CookieMixin(_Handler):
    """Gives a handler ``self.jar``; :class:`~eyewall.tornado.SessionMixin` has it already.

    ::

        class Theme(CookieMixin, tornado.web.RequestHandler):
            def post(self):
                self.jar.permanent.set("theme", self.get_argument("theme"))
    """

    @property
    def jar(self) -> HandlerJar:
        """The cookies of this request and its response.

        Why ``jar``: ``self.cookies`` is Tornado's, a dict of what came in, and changing it sends nothing. A
        jar is what one both takes cookies out of and puts them into; browsers and HTTP clients use the word.
        """
        return jar_of(self)


def jar_of(handler: RequestHandler) -> HandlerJar:
    """Return the jar of ``handler``'s request, also for handlers without a mixin.

    Raises:
        ConfigurationError: the application's settings or its secret are missing or unsafe.
        CookieError: the request has no connection, so nothing can be sent.
    """
    request = handler.request
    jar: HandlerJar | None = getattr(request, "jar", None)
    if jar is None:
        jar = HandlerJar(handler.application, request)
        jar.outgoing.closed = handler._headers_written  # noqa: SLF001 - Tornado tells it nowhere else
        _put_before_the_connection(request, jar)
    return jar


def _put_before_the_connection(request: HTTPServerRequest, jar: HandlerJar) -> None:
    if request.connection is None:
        raise CookieError("a request without a connection cannot be answered, and so has no jar")
    request.connection = CookieWriter(request.connection, jar.outgoing, session_on(request))
    request.jar = jar  # type: ignore[attr-defined]  # requests are open, as for the session


def _names_of(sessions: Sessions) -> frozenset[str]:
    """The names of the session's cookies: all parts of a client-side one, and the sign-in it takes over."""
    names = {sessions.cookie_name(https=https) for https in (True, False)}
    parts = {f"{name}.{number}" for name in names for number in range(1, MOST_CHUNKS)}
    return frozenset(names | parts | getattr(sessions, "names_taken_over", frozenset()))
