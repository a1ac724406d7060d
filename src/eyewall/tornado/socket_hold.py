"""One WebSocket and its session, from before the handshake until the socket is closed.

Tornado hands the stream over at the 101 and the handler lives on, for hours. So whoever has signed out, was
revoked, or has been idle for too long would go on talking, unless somebody closes the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Awaitable
from typing import Any, Final
from weakref import ref

from tornado.gen import convert_yielded
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from eyewall.core.events import EventKind
from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.core.watched import Watched
from eyewall.errors import EyewallError, SessionClosedError, SessionEndedError, StoreUnavailable

CLOSE_CODE: Final = 4401
"""The code a WebSocket is closed with when its session has ended: 401, in the range for applications."""

GOING_AWAY: Final = 1001
"""The code it is closed with when the process stops (RFC 6455 7.4.1); the session goes on."""

_HOOK_PATIENCE: Final = 2.0
_CLOSE_PATIENCE: Final = 1.0
"""Seconds that a process which stops waits for a client to answer the close."""

_LONGEST_REASON: Final = 120
"""Bytes; a close frame has room for 123 (RFC 6455 5.5)."""


class SocketHold:
    """One WebSocket handler and its session, from before the handshake until the socket is closed.

    It stands between Tornado and the handler by attributes of the handler object; no class is touched.

    Args:
        handler: just being made.
        session: not loaded yet.
        manager: saves the session and watches it.
    """

    def __init__(self, handler: WebSocketHandler, session: Session, manager: Manager) -> None:
        self._handler = ref(handler)  # the handler holds on to this object, not the other way round
        self._session = session
        self._manager = manager
        self._watched: Watched | None = None
        self._ended = False
        self._is_busy = False
        self._is_leaving = False
        self._is_gone = False
        self._reason: asyncio.Future[str | None] | None = None
        handler.__dict__["get"] = self._get
        handler.__dict__["open"] = self._open
        handler.__dict__["on_message"] = self._on_message
        handler.__dict__["on_connection_close"] = self._on_connection_close
        if getattr(handler, "session_activity", "messages") == "any":
            handler.__dict__["write_message"] = self._write_message

    async def _get(self, *args: Any, **kwargs: Any) -> None:
        """Store what ``prepare()`` changed, because a 101 cannot wait for it; then shake hands."""
        handler, session = self._owner(), self._session
        brought = session.draft.session_id is not None or session.draft.remembered
        if session.failure is not None and brought:
            raise session.failure  # without its session it would fail at every message, and never end
        if session.failure is None and session.draft.has_unsaved_changes():
            await self._manager.save(session)
        result = type(handler).get(handler, *args, **kwargs)
        if result is not None:
            await result

    def opened(self) -> None:
        """Note that the stream was handed over: from now on there is no response, only messages."""
        session = self._session
        session.stay_open()
        self._manager.watch.still_open.add(self)
        if session.draft.record is not None and not session.draft.in_cookie:
            self._watched = Watched(session, self._end, self._deliver, self._owner())
            self._manager.watch.add(self._watched)
            # It may have ended since it was loaded, and been announced before we listened.
            self._manager.watch.look_soon([self._watched.digest], "ended")

    async def _open(self, *args: Any, **kwargs: Any) -> None:
        self._is_busy = True
        await self._to_its_end(self._open_then_store(*args, **kwargs))

    async def _open_then_store(self, *args: Any, **kwargs: Any) -> None:
        handler = self._owner()
        try:
            result = type(handler).open(handler, *args, **kwargs)
            if result is not None:
                await convert_yielded(result)
        except BaseException as error:
            if _is_from_the_close(error, handler):
                return
            self._on_connection_close()  # Tornado cuts the connection, and tells nobody
            raise
        if self._session.failure is None and self._manager.needs_commit(self._session):
            await self._store()

    # -- messages -----------------------------------------------------------------------------------------

    def _on_message(self, message: str | bytes) -> Awaitable[None] | None:
        if self._ended:
            return None  # the client has not heard yet that the socket is closed
        is_live = self._manager.is_live(self._session)
        handling = self._serve(message) if is_live else self._look_first(message)
        if handling is None:
            return None
        self._is_busy = True
        return self._to_its_end(handling)

    async def _to_its_end(self, handling: Awaitable[None]) -> None:
        """Let nothing that is being handled be cut short by a process that stops."""
        try:
            await handling
        finally:
            self._is_busy = False
            if self._is_gone:
                self._manager.watch.still_open.remove(self)
            elif self._is_leaving:
                self._leave()

    async def _look_first(self, message: str | bytes) -> None:
        """Find out whether the session has really expired: another connection may have used it since."""
        if self._watched is not None:
            await self._manager.watch.look_at([self._watched.digest], "expired")
        if not self._ended and not self._manager.is_live(self._session):
            self._end("expired")
        if not self._ended:
            served = self._serve(message)
            if served is not None:
                await served

    def _serve(self, message: str | bytes) -> Awaitable[None] | None:
        handler = self._owner()
        self._session.used = False
        try:
            result = type(handler).on_message(handler, message)
        except BaseException:
            self._manager.spawn(self._commit_failed())
            raise
        if result is not None:
            return self._await_then_store(result)
        return self._store() if self._is_due() else None

    def _is_due(self) -> bool:
        activity = getattr(self._owner(), "session_activity", "messages")
        self._session.used = activity != "none" or self._session.draft.has_unsaved_changes()
        return self._manager.needs_commit(self._session)

    async def _await_then_store(self, result: Any) -> None:
        try:
            await convert_yielded(result)
        except BaseException as error:
            await self._commit_failed()
            if _is_from_the_close(error, self._owner()):
                return
            raise
        if self._is_due():
            await self._store()

    async def _commit_failed(self) -> None:
        """As after a 500: no data is kept, but ending the session takes effect."""
        self._session.used = True
        if self._session.failure is None and self._session.draft.has_work():
            with contextlib.suppress(EyewallError):
                await self._manager.commit(self._session, status=500)
        if self._session.draft.record is None and self._watched is not None:
            self._end("signed out")

    async def _store(self) -> None:
        try:
            await self._manager.save(self._session)
        except StoreUnavailable as error:  # the changes are kept, and stored with the next message
            self._manager.events.emit(EventKind.NOT_SAVED, detail=f"WebSocket: {error}")
        except SessionEndedError:
            self._end("ended")
        if self._session.draft.record is None and self._watched is not None:
            self._end("signed out")  # by this very message
        elif not self._session.draft.has_unsaved_changes():
            self._session.draft.forget_values()

    def _write_message(self, *args: Any, **kwargs: Any) -> Any:
        handler = self._owner()
        if self._session.draft.record is not None and not self._ended:
            self._session.used = True
            if self._manager.needs_commit(self._session):
                self._manager.spawn(self._store())
        return type(handler).write_message(handler, *args, **kwargs)

    def _deliver(self, content: Any) -> None:
        handler = self._owner()
        receive = getattr(handler, "on_session_message", None)
        if receive is None:
            write_to(handler, content)
        else:
            self._manager.spawn(_called(handler, receive, content))

    # -- the end ------------------------------------------------------------------------------------------

    def waiter(self) -> asyncio.Future[str | None]:
        """See :meth:`StreamHold.waiter`."""
        if self._reason is None:
            self._reason = asyncio.get_running_loop().create_future()
            if self._ended:
                self._tell(None)
        return asyncio.shield(self._reason)

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._forget()
        self._session.close()
        self._tell(reason)
        handler = self._handler()
        if handler is not None:
            self._manager.spawn(_close(handler, reason))

    def go_away(self) -> None:
        """Close the socket, because the process stops; a message that is being handled is answered first."""
        self._is_leaving = True
        if not self._is_busy:
            self._leave()

    def _leave(self) -> None:
        handler = self._handler()
        if not self._ended and handler is not None:
            self._ended = True
            self._forget()
            self._tell(None)
            _close_now(handler, GOING_AWAY, "the server stops")
        # Who does not answer the close keeps nobody waiting.
        asyncio.get_running_loop().call_later(_CLOSE_PATIENCE, self._manager.watch.still_open.remove, self)

    def _on_connection_close(self) -> None:
        self._ended = self._is_gone = True
        self._forget()
        self._session.close()
        self._tell(None)
        if not self._is_busy:
            self._manager.watch.still_open.remove(self)
        handler = self._owner()
        type(handler).on_connection_close(handler)

    def _tell(self, reason: str | None) -> None:
        if self._reason is not None and not self._reason.done():
            self._reason.set_result(reason)

    def _forget(self) -> None:
        if self._watched is not None:
            self._manager.watch.remove(self._watched)

    def _owner(self) -> WebSocketHandler:
        handler = self._handler()
        if handler is None:
            raise RuntimeError("the handler of this WebSocket is gone")
        return handler


async def _close(handler: WebSocketHandler, reason: str) -> None:
    hook = getattr(handler, "on_session_end", None)
    try:
        if hook is not None:
            await _called(handler, hook, reason)
    finally:
        _close_now(handler, CLOSE_CODE, reason)


def _close_now(handler: WebSocketHandler, code: int, reason: str) -> None:
    handler.close(code, reason.encode("ascii", "replace")[:_LONGEST_REASON].decode("ascii"))


def _is_from_the_close(error: BaseException, handler: WebSocketHandler) -> bool:
    """Whether ``error`` only says that the socket is closed; clients that leave are nobody's bug."""
    if not isinstance(error, WebSocketClosedError | StreamClosedError | SessionClosedError):
        return False
    return handler.ws_connection is None or handler.ws_connection.is_closing()


async def _called(handler: WebSocketHandler, hook: Any, argument: Any) -> None:
    """Call what an application may have overridden; its bug must not keep a socket open, nor hang."""
    try:
        async with asyncio.timeout(_HOOK_PATIENCE):
            result = hook(argument)
            if inspect.isawaitable(result):
                await result
    except WebSocketClosedError:
        pass
    except asyncio.CancelledError:
        pass
    except Exception:  # noqa: BLE001 - logged as Tornado logs what goes wrong in on_message()
        handler.log_exception(*sys.exc_info())


def write_to(handler: WebSocketHandler, content: Any) -> None:
    """Send ``content``, unless the socket is closed by now."""
    with contextlib.suppress(WebSocketClosedError):
        handler.write_message(content, binary=isinstance(content, bytes))
