"""The Tornado adapter: reads requests, asks the manager, writes headers. No rule of security lives here."""

from eyewall.tornado.cookies import CookieMixin, jar_of
from eyewall.tornado.mixin import SessionMixin, session_of
from eyewall.tornado.sessions import Sessions
from eyewall.tornado.upgrade import OldSignIn, UpgradingSessions

__all__ = [
    "CookieMixin",
    "OldSignIn",
    "SessionMixin",
    "Sessions",
    "UpgradingSessions",
    "jar_of",
    "session_of",
]
