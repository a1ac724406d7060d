"""Eyewall: sessions, cookies and sign-in for Tornado.

The names below are the public interface; everything else may change between versions.
"""

from eyewall.errors import (
    ConfigurationError,
    CookieError,
    EyewallError,
    HeadersSentError,
    MissingDriverError,
    SessionClosedError,
    SessionEndedError,
    SessionError,
    SessionTooLargeError,
    StoreUnavailable,
    UnstorableValueError,
    WeakSecretError,
)
from eyewall.settings import Settings
from eyewall.tornado import SessionMixin, Sessions, session_of

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "CookieError",
    "EyewallError",
    "HeadersSentError",
    "MissingDriverError",
    "SessionClosedError",
    "SessionEndedError",
    "SessionError",
    "SessionMixin",
    "SessionTooLargeError",
    "Sessions",
    "Settings",
    "StoreUnavailable",
    "UnstorableValueError",
    "WeakSecretError",
    "__version__",
    "session_of",
]
