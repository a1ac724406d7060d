"""What a handler of the mixin answers when one of our errors ends its method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from tornado.iostream import StreamClosedError
from tornado.log import app_log
from tornado.web import HTTPError, RequestHandler

from eyewall.core.events import EventKind
from eyewall.core.session import Session
from eyewall.errors import (
    EyewallError,
    SessionEndedError,
    SessionTooLargeError,
    StoreUnavailable,
    TooBusyError,
    TooManyAttemptsError,
    TooManySessionsError,
)
from eyewall.tornado.attach import session_on
from eyewall.tornado.sessions import Sessions

if TYPE_CHECKING:
    _Handler = RequestHandler
else:
    _Handler = object

STATUS_OF: Final[dict[type[EyewallError], int]] = {
    TooManyAttemptsError: 429,
    TooBusyError: 503,
    StoreUnavailable: 503,
    SessionEndedError: 409,
    SessionTooLargeError: 413,
    TooManySessionsError: 403,
}
"""The HTTP status of each error that strangers or circumstances can cause. The others are bugs: 500."""

_SOON: Final = 2
"""Seconds to wait before trying again, where the error does not say."""


class ErrorAnswers(_Handler):
    """Answers our errors with their own status; :class:`~eyewall.tornado.SessionMixin` has it already.

    Who catches them instead decides alone. A stranger can cause most of them, so none fills the log with
    tracebacks.
    """

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Send the error page, with the status and the ``Retry-After`` that one of our errors calls for."""
        error = kwargs.get("exc_info", (None, None))[1]
        if _is_from_leaving(error, self):
            if not self._headers_written:
                self.set_status(status_code)  # it failed all the same: nothing half-done is stored
            self.finish()  # nobody is there to read an error page
            return
        session = session_on(self.request)
        if session is not None:
            _note_when_to_retry(session, error)
            if session.failure is not None:
                self.current_user = None  # an error page asks for it, and nobody knows
        super().send_error(status_of(error) or status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log one of our errors in one line, and a client that has left in none."""
        if _is_from_leaving(value, self):
            return
        ours = status_of(value)
        if ours is None:
            super().log_exception(typ, value, tb)
            return
        if isinstance(value, TooManyAttemptsError):
            Sessions.serving(self.application).events.emit(EventKind.ATTEMPTS_LIMITED, detail=value.limit)
        else:
            app_log.warning("%d %s: %s", ours, self._request_summary(), value)


def status_of(error: object) -> int | None:
    """Return the HTTP status that ``error`` calls for, or None when it is a bug, or says so itself."""
    if isinstance(error, HTTPError):
        return None
    return next((status for kind, status in STATUS_OF.items() if isinstance(error, kind)), None)


def _is_from_leaving(error: object, handler: RequestHandler) -> bool:
    """Whether ``error`` only says that the client has left in the middle of its answer, as clients do."""
    stream = getattr(handler.request.connection, "stream", None)
    return isinstance(error, StreamClosedError) and stream is not None and bool(stream.closed())


def _note_when_to_retry(session: Session, error: object) -> None:
    if isinstance(error, TooManyAttemptsError):
        session.refuse_with({"Retry-After": str(math.ceil(error.retry_after.total_seconds()))})
    elif isinstance(error, StoreUnavailable | TooBusyError):
        session.refuse_with({"Retry-After": str(_SOON)})
