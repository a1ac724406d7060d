"""Holding the wire: no byte of an answer leaves before what it tells is stored.

:class:`CommitBarrier` stands where Tornado expects the request's connection. Everything a handler does
(``finish()``, ``redirect()``, ``render()``, ``flush()``, an error page, an early ``Finish``) ends in three
calls on that connection: ``write_headers``, ``write`` and ``finish``. While the session has nothing to
store they pass straight through. Otherwise they wait here, in order, until the store has acknowledged;
handlers and Tornado's own state machine notice nothing and stay synchronous.

``docs/design.md`` tells which other places were tried and what broke in each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tornado.concurrent import Future, future_set_result_unless_cancelled
from tornado.httputil import HTTPConnection, HTTPHeaders, RequestStartLine, ResponseStartLine
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler

from eyewall.core.draft import CookieAction
from eyewall.core.events import EventKind, logger
from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.errors import SessionError, StoreUnavailable
from eyewall.tornado.answer_headers import (
    add_ours,
    as_said,
    replacement,
    status_for,
)
from eyewall.tornado.socket_hold import SocketHold
from eyewall.tornado.stream_hold import StreamHold

_Call = tuple[Callable[[], Any], "Future[None] | None"]
_OWN: Final = frozenset({"_held", "_given_up", "_refusal", "_socket", "_stream"})
_SWITCHING_PROTOCOLS: Final = 101
_set_own: Final = object.__setattr__


class CommitBarrier(HTTPConnection):
    """The connection of one request, with the session's save in front of it.

    Args:
        inner: the real connection; attributes we do not know are read from it and set on it.
        session: the request's session.
        manager: saves it.
    """

    # Python is slow at reading attributes of what answers for another's. So there is one, read once a call.
    _parts: tuple[Any, Session, Manager]  # Any: a real connection has more than HTTPConnection says
    _is_plain = True  # nothing has happened to the answer that any of the following would tell
    _held: list[_Call] | None = None
    _given_up = False  # the answer was replaced by an error, or the connection was cut
    _refusal: SessionError | None = None
    _socket: SocketHold | None = None
    _stream: StreamHold | None = None

    def __init__(self, inner: HTTPConnection, session: Session, manager: Manager) -> None:
        # One is made for each request. Asking for its __dict__ would make Python build one, slower to read.
        _set_own(self, "_parts", (inner, session, manager))

    def __getattr__(self, name: str) -> Any:
        inner, _, _ = self._parts
        return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            _set_own(self, "_is_plain", False)
            _set_own(self, name, value)
        else:
            inner, _, _ = self._parts
            setattr(inner, name, value)

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Pass on what to call when the client goes away.

        It is a handler's own method, by which a handler makes itself known: what a WebSocket needs must be in
        place before it is opened.
        """
        if callback is not None:
            self.hold_socket(getattr(callback, "__self__", None))
        inner, _, _ = self._parts
        inner.set_close_callback(callback)

    def hold_socket(self, handler: object) -> None:
        """Let the WebSocket of ``handler`` end with its session; nothing happens when it is none."""
        if isinstance(handler, WebSocketHandler) and self._socket is None:
            _, session, manager = self._parts
            self._socket = SocketHold(handler, session, manager)

    def hold_stream(self, owner: object) -> StreamHold | SocketHold:
        """Let this answer end with its session; returns what knows when."""
        if self._socket is not None:
            return self._socket
        if self._stream is None:
            inner, session, manager = self._parts
            self._stream = StreamHold(session, manager, self._cut_stream, owner)
            stream = getattr(inner, "stream", None)
            if session.closed or (stream is not None and stream.closed()):  # nobody would tell again
                self._stream.done()
            else:
                inner.set_close_callback(partial(self._gone, owner))
        return self._stream

    def _gone(self, owner: Any) -> None:
        if self._stream is not None:
            self._stream.done()
        owner.on_connection_close()

    def _cut_stream(self) -> None:
        inner, _, _ = self._parts
        stream = getattr(inner, "stream", None)
        if stream is not None:
            stream.close()

    @property
    def is_finished(self) -> bool:
        """Whether the handler has finished its answer, on the wire or not."""
        _, session, _ = self._parts
        return session.closed or self._given_up

    # -- the three calls of an HTTPConnection -------------------------------------------------------------

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Future[None]:
        """Send the head of the answer, once the session is stored."""
        if not isinstance(start_line, ResponseStartLine):
            raise TypeError("a server sends response start lines only")
        inner, session, manager = self._parts
        session.status = start_line.code
        if start_line.code == _SWITCHING_PROTOCOLS:
            self._refuse_unsaved("a WebSocket handshake")
        if not session.used or not self._must_hold(touching=True):
            add_ours(session, manager, start_line.code, headers)
            return inner.write_headers(start_line, headers, chunk)  # type: ignore[no-any-return]  # see _parts
        said = list(headers.get_all())  # the handler may go on changing its own
        head: Future[None] = Future()
        self._hold(partial(_send_as_said, self._parts, said, start_line, headers, chunk), head)
        return head

    def _refuse_unsaved(self, what: str) -> None:
        """Fail where the stream is handed over within one call, so that nothing can wait for a save."""
        _, session, _ = self._parts
        if session.failure is not None or not session.draft.has_unsaved_changes():
            return
        session.used = True  # by whoever took an old sign-in over; what comes next must be held
        problem = f"the session was changed before {what}; `await self.session.save()` there"
        self._replace_answer(500, problem)
        raise SessionError(problem)

    def write(self, chunk: bytes) -> Future[None]:
        """Send a piece of the body, once what the session was told before it is stored."""
        inner, session, _ = self._parts
        if not session.used or not self._must_hold():
            return inner.write(chunk)  # type: ignore[no-any-return]  # see _parts
        written: Future[None] = Future()
        self._hold(partial(inner.write, chunk), written)
        return written

    def finish(self) -> None:
        """End the answer. From here on the session refuses changes."""
        inner, session, _ = self._parts
        session.closed = True
        if self._is_plain and session.is_untouched():
            inner.finish()  # nearly always
            return
        if self._stream is not None:
            self._stream.done()
        if not session.used or not self._must_hold():
            inner.finish()
        else:
            self._hold(inner.finish, None)

    def detach(self) -> Any:
        """Hand over the stream. Nothing can wait for a save any more, so there must be none to wait for.

        Raises:
            SessionError: the session was changed and not saved.
        """
        self._refuse_unsaved("detach()")
        inner, _, _ = self._parts
        stream = inner.detach()
        if self._stream is not None:
            self._stream.done()
        if self._socket is not None:
            self._socket.opened()
        return stream

    # -- holding ------------------------------------------------------------------------------------------

    def _must_hold(self, *, touching: bool = False) -> bool:
        """Whether what comes next must wait. Asked of a session that was used: no other is ever saved."""
        if not self._is_plain and (self._held is not None or self._given_up):
            return True
        _, session, manager = self._parts
        if session.status < 200 or (not touching and session.is_untouched()):
            return False
        try:
            return manager.needs_commit(session, status=session.status, touching=touching)
        except SessionError as error:
            self._refusal = error
            return True

    def _hold(self, call: Callable[[], Any], future: Future[None] | None) -> None:
        """Let ``call`` wait for the save; ``future`` ends as what it returns, if anybody waits for that."""
        if self._given_up:
            _end(future)
        elif self._held is not None:
            self._held.append((call, future))
        else:
            _set_own(self, "_is_plain", False)
            _set_own(self, "_held", [(call, future)])
            _, _, manager = self._parts
            manager.spawn(self._commit_then_release())

    async def _commit_then_release(self) -> None:
        _, session, manager = self._parts
        try:
            self._raise_refusal()
            await manager.commit(session, status=session.status)
            while session.draft.has_unsaved_changes():  # by a streaming handler, meanwhile
                await manager.commit(session, status=session.status)
        except asyncio.CancelledError:
            self._replace_answer(503, "the save was cancelled")
            raise
        except (SessionError, StoreUnavailable) as error:
            self._replace_answer(status_for(error), str(error))
        except Exception:  # noqa: BLE001 - a bug, of ours or of a store: the client must still get an answer
            logger.exception("the session could not be saved")
            self._replace_answer(500, "unexpected error")
        else:
            self._release()

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _release(self) -> None:
        held = self._held or []
        _set_own(self, "_held", None)
        for call, future in held:
            if self._given_up:
                _end(future)
                continue
            try:
                done = call()
                if future is not None:
                    _chain(done, future)
            except Exception as error:  # noqa: BLE001 - a wrong Content-Length, or a client that is gone
                gone = isinstance(error, StreamClosedError)
                logger.log(logging.DEBUG if gone else logging.ERROR, "an answer could not be sent: %s", error)
                self._cut()
                _end(future)

    def _replace_answer(self, status: int, reason: str) -> None:
        # The access log has the handler's status already, so this event is the only trace of the real one.
        kind = EventKind.SESSIONS_LIMITED if status == 403 else EventKind.NOT_SAVED
        _, session, manager = self._parts
        manager.events.emit(kind, detail=f"{status}: {reason}")
        held, self._held = self._held or [], None
        for _, future in held:
            _end(future)
        if session.headers_sent:
            self._cut()
            return
        self._given_up = True
        session.close()
        try:
            self._send_replacement(status)
        except Exception:  # noqa: BLE001 - nothing is left to say; but the connection must not hang
            logger.debug("an answer could not be replaced", exc_info=True)
            self._cut()

    def _send_replacement(self, status: int) -> None:
        inner, session, manager = self._parts
        drop_cookies = getattr(inner, "drop_cookies", None)  # a CookieWriter's, if it stands behind us
        if drop_cookies is not None:
            drop_cookies()
        start_line, headers, body = replacement(status)
        if session.cookie_due() is CookieAction.SET and not session.draft.in_cookie:
            # An ID that was stored earlier in this request: without it the browser would hold a dead one.
            for line in manager.set_cookie_lines(session, https=session.draft.https):
                headers.add("Set-Cookie", line)
        inner.write_headers(start_line, headers, self._unless_head(body))
        inner.finish()

    def _unless_head(self, body: bytes) -> bytes | None:
        inner, _, _ = self._parts
        request_line = getattr(inner, "_request_start_line", None)
        return None if request_line is not None and request_line.method == "HEAD" else body

    def _cut(self) -> None:
        self._given_up = True
        _, session, _ = self._parts
        session.close()
        self._cut_stream()


def _send_as_said(
    parts: tuple[Any, Session, Manager],
    said: list[tuple[str, str]],
    start_line: ResponseStartLine,
    headers: HTTPHeaders,
    chunk: bytes | None,
) -> Future[None]:
    inner, session, manager = parts
    headers = as_said(headers, said)
    add_ours(session, manager, start_line.code, headers)
    return inner.write_headers(start_line, headers, chunk)  # type: ignore[no-any-return]  # see _parts


def _end(future: Future[None] | None) -> None:
    if future is not None:
        future_set_result_unless_cancelled(future, None)


def _chain(source: Future[None] | None, target: Future[None]) -> None:
    """Let ``target`` end as ``source`` does; connections of others may return nothing and have ended."""
    if source is None:
        _end(target)
    elif source.done():  # nearly always: a small answer fits into the socket's buffer
        _copy(target, source)
    else:
        source.add_done_callback(partial(_copy, target))


def _copy(target: Future[None], source: Future[None]) -> None:
    error = None if source.cancelled() else source.exception()
    if target.done():
        return
    if error is None:
        target.set_result(None)
    else:
        target.set_exception(error)
        target.exception()  # nobody has to look: as in Tornado, a vanished client is no error
