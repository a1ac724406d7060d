"""WebSockets that have a session, and end with it: the interface for handlers of one's own.

``sessions.install(app)`` does the same for handlers one does not own; :mod:`eyewall.tornado.socket_hold` does
the work for both.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, ClassVar, Literal, TypeVar

from tornado.websocket import WebSocketHandler

from eyewall.tornado.mixin import SessionMixin
from eyewall.tornado.sessions import Sessions
from eyewall.tornado.socket_hold import write_to

_C = TypeVar("_C", bound=type)


class SessionWebSocketMixin(SessionMixin):
    """Gives a WebSocket handler ``self.session``, and closes the socket when the session ends.

    ::

        @authenticated_socket
        class Chat(SessionWebSocketMixin, tornado.websocket.WebSocketHandler):
            async def on_message(self, message):
                self.session["drafts"] = message        # stored when on_message is done
                self.write_message(f"{self.current_user}: {message}")

            def on_session_end(self, reason):           # optional; just before the close
                self.write_message("You have been signed out.")

    The session is there in ``prepare()``, ``open()`` and every ``on_message()``. What was changed is stored
    before the 101, and at the end of each message; ``await self.session.save()`` and ``modify()`` store at
    once. What cannot work on an open socket, because no cookie can be set, is refused with an error that
    says so: a new session, and a new ID. Signing out works.

    When the session ends, in whatever process and for whatever reason, the socket is closed with code 4401
    and the reason. When the session gets a new ID, the socket goes along; when somebody else signs in, it is
    closed. Pages of other origins cannot open one (``trusted_origins`` can).
    """

    session_activity: ClassVar[Literal["messages", "any", "none"]] = "messages"
    """What keeps the session from idling away: messages that arrive; also those that are sent; or nothing.
    Pings and pongs never do."""

    def on_session_end(self, reason: str) -> Awaitable[None] | None:
        """Called when the session has ended, before the socket is closed; may write a last message."""

    def on_session_message(self, content: Any) -> Awaitable[None] | None:
        """Called for what ``sessions.send(principal, content)`` sends; by default it goes to the client."""
        if isinstance(self, WebSocketHandler):
            write_to(self, content)
        return None

    def check_origin(self, origin: str) -> bool:
        """Say yes: other origins were refused before ``prepare()``; see ``trusted_origins``."""
        settings = Sessions.serving(self.application).settings
        if type(self).cross_origin_protection and settings.cross_origin_protection:
            return True
        return bool(super().check_origin(origin))  # type: ignore[misc]  # Tornado's own, by its own rule


def authenticated_socket(handler_class: _C) -> _C:
    """Refuse a handshake with 401 unless somebody is signed in; for classes with a SessionMixin.

    ``@tornado.web.authenticated`` on ``open()`` would refuse after the 101, when the client believes that it
    is connected.
    """
    if not issubclass(handler_class, SessionMixin):
        raise TypeError(f"{handler_class.__name__} needs SessionWebSocketMixin, before WebSocketHandler")
    handler_class.needs_principal = True
    return handler_class
