"""CORS on the wire: preflights are answered, and every answer says who may read it.

What is allowed stands in :mod:`eyewall.core.cors`. Here a connection stands before the real one and adds the
headers to whatever head passes: an answer of the handler, an error page, our own 503.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tornado.concurrent import Future
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import RequestHandler

from eyewall.core.cors import CorsPolicy, is_preflight


def begin_cors(policy: CorsPolicy | None, request: HTTPServerRequest) -> bool:
    """Let the answer to ``request`` carry its CORS headers; return whether it is a preflight.

    A preflight carries no cookies, and must be answered before anything looks at it: an error there would
    stop the request that it announces.

    Args:
        policy: None where the application has no CORS settings; then nothing happens.
        request: not answered yet.
    """
    if policy is None or request.connection is None:
        return False
    origin = request.headers.get("Origin")
    preflight = is_preflight(
        method=request.method,
        origin=origin,
        requested_method=request.headers.get("Access-Control-Request-Method"),
    )
    granted = policy.preflight_headers(origin) if preflight else policy.actual_headers(origin)
    request.connection = CorsConnection(request.connection, granted)
    return preflight


def answer_preflight(handler: RequestHandler) -> None:
    """Answer 204 No Content; :class:`CorsConnection` adds what counts."""
    handler.__dict__["on_finish"] = _nothing  # the handler's own may look for the session, and there is none
    handler.set_status(204)
    handler.finish()


def _nothing() -> None:
    pass


class PreflightHandler(RequestHandler):
    """Answers a preflight in place of the handler that was asked for."""

    def prepare(self) -> None:
        """Answer."""
        answer_preflight(self)


class CorsConnection(HTTPConnection):
    """The connection of one request, which adds CORS headers to the answer's head.

    Args:
        inner: the real connection; attributes we do not know are read from it and set on it.
        granted: the headers to add, replacing what the handler has set of that name.
    """

    _inner: HTTPConnection
    _granted: Mapping[str, str]

    def __init__(self, inner: HTTPConnection, granted: Mapping[str, str]) -> None:
        self.__dict__.update(_inner=inner, _granted=granted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Future[None]:
        """Send the head of the answer with our headers."""
        if self._granted:
            # A handler that had allowed cookies to another origin must not allow them to ours by that.
            headers.pop("Access-Control-Allow-Credentials", None)
        for name, value in self._granted.items():
            headers[name] = value
        _vary_by_origin(headers)
        return self._inner.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> Future[None]:
        """Send a piece of the body."""
        return self._inner.write(chunk)

    def finish(self) -> None:
        """End the answer."""
        self._inner.finish()


def _vary_by_origin(headers: HTTPHeaders) -> None:
    """Keep caches from giving one origin's answer to another, or to a request that names none."""
    vary = headers.get("Vary", "")
    fields = [field.strip().lower() for field in vary.split(",")]
    if "*" not in fields and "origin" not in fields:
        headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
