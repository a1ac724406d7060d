"""Adding the jar's ``Set-Cookie`` lines to a response, in the last moment before its head leaves.

Not earlier, because ``send_error()`` clears what a handler has put into its headers, and because only the
final status tells whether the cookies may be sent. Stands before (or behind) the barrier that holds the
wire for the session; if the session cannot be saved, the answer is replaced and the cookies go with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tornado.concurrent import Future
from tornado.httputil import HTTPConnection, HTTPHeaders, RequestStartLine, ResponseStartLine

from eyewall.core.outgoing_cookies import OutgoingCookies
from eyewall.core.session import Session
from eyewall.errors import CookieError
from eyewall.tornado.answer_headers import make_private


class CookieWriter(HTTPConnection):
    """The connection of one request, adding cookies.

    Args:
        inner: the real connection; attributes we do not know are read from it and set on it.
        outgoing: what the response shall set.
        session: of the request, or None; where it was used, its barrier decides what may be cached.
    """

    _inner: HTTPConnection
    _outgoing: OutgoingCookies
    _session: Session | None
    _refused: bool
    _dropped: bool

    def __init__(self, inner: HTTPConnection, outgoing: OutgoingCookies, session: Session | None) -> None:
        self.__dict__.update(
            _inner=inner, _outgoing=outgoing, _session=session, _refused=False, _dropped=False
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_refused", "_dropped"):
            self.__dict__[name] = value
        else:
            setattr(self._inner, name, value)

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Pass on what to call when the client goes away."""
        self._inner.set_close_callback(callback)  # type: ignore[attr-defined]  # every real one has it

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Future[None]:
        """Send the head with the cookies.

        Raises:
            CookieError: the handler has set one of them by Tornado's means too. The answer is a 500 then.
        """
        if not isinstance(start_line, ResponseStartLine):
            raise TypeError("a server sends response start lines only")
        theirs = {line.partition("=")[0].strip() for line in headers.get_list("Set-Cookie")}
        try:
            lines = [] if self._dropped else self._outgoing.leave(start_line.code, theirs)
        except CookieError:
            self._refuse()
            raise
        for line in lines:
            headers.add("Set-Cookie", line)
        if lines or self._session is None or not self._session.used:
            make_private(headers, no_store=bool(lines))
        return self._inner.write_headers(start_line, headers, chunk)

    def drop_cookies(self) -> None:
        """Send none of them: the answer they belong to has been replaced."""
        self._outgoing.closed = True
        self._dropped = True

    def write(self, chunk: bytes) -> Future[None]:
        """Send a piece of the body."""
        return _nothing() if self._refused else self._inner.write(chunk)

    def finish(self) -> None:
        """End the answer."""
        if not self._refused:
            self._inner.finish()

    def _refuse(self) -> None:
        """Answer 500 ourselves: the handler believes that its headers have left, and cannot any more."""
        self._refused = True
        empty = HTTPHeaders({"Content-Length": "0", "Cache-Control": "no-store"})
        self._inner.write_headers(ResponseStartLine("", 500, "Internal Server Error"), empty)
        self._inner.finish()


def _nothing() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future
