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
from eyewall.tornado import (
    CookieMixin,
    OldSignIn,
    SessionMixin,
    Sessions,
    UpgradingSessions,
    jar_of,
    session_of,
)

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "CookieError",
    "CookieMixin",
    "EyewallError",
    "HeadersSentError",
    "MissingDriverError",
    "OldSignIn",
    "SessionClosedError",
    "SessionEndedError",
    "SessionError",
    "SessionMixin",
    "SessionTooLargeError",
    "Sessions",
    "Settings",
    "StoreUnavailable",
    "UnstorableValueError",
    "UpgradingSessions",
    "WeakSecretError",
    "__version__",
    "jar_of",
    "session_of",
]
