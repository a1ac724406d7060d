"""The Tornado adapter: reads requests, asks the manager, writes headers. No rule of security lives here."""

from eyewall.tornado.mixin import SessionMixin, session_of
from eyewall.tornado.sessions import Sessions

__all__ = ["SessionMixin", "Sessions", "session_of"]
