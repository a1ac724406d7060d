"""The Tornado adapter: reads requests, asks the manager, writes headers. No rule of security lives here."""

from eyewall.tornado.cookies import CookieMixin, jar_of
from eyewall.tornado.fresh import fresh
from eyewall.tornado.mixin import SessionMixin, session_of
from eyewall.tornado.next_url import safe_next
from eyewall.tornado.pages import DevicePage, device_pages
from eyewall.tornado.sessions import Sessions
from eyewall.tornado.upgrade import OldSignIn, UpgradingSessions
from eyewall.tornado.websocket import SessionWebSocketMixin, authenticated_socket

__all__ = [
    "CookieMixin",
    "DevicePage",
    "OldSignIn",
    "SessionMixin",
    "SessionWebSocketMixin",
    "Sessions",
    "UpgradingSessions",
    "authenticated_socket",
    "device_pages",
    "fresh",
    "jar_of",
    "safe_next",
    "session_of",
]
