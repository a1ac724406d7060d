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
    TooBusyError,
    TooManyAttemptsError,
    TooManySessionsError,
    UnstorableValueError,
    UnusablePasswordError,
    WeakSecretError,
)
from eyewall.settings import Settings
from eyewall.tornado import (
    CookieMixin,
    DevicePage,
    OldSignIn,
    SessionMixin,
    Sessions,
    SessionWebSocketMixin,
    UpgradingSessions,
    authenticated_socket,
    device_pages,
    fresh,
    jar_of,
    safe_next,
    session_of,
)

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "CookieError",
    "CookieMixin",
    "DevicePage",
    "EyewallError",
    "HeadersSentError",
    "MissingDriverError",
    "OldSignIn",
    "SessionClosedError",
    "SessionEndedError",
    "SessionError",
    "SessionMixin",
    "SessionTooLargeError",
    "SessionWebSocketMixin",
    "Sessions",
    "Settings",
    "StoreUnavailable",
    "TooBusyError",
    "TooManyAttemptsError",
    "TooManySessionsError",
    "UnstorableValueError",
    "UnusablePasswordError",
    "UpgradingSessions",
    "WeakSecretError",
    "__version__",
    "authenticated_socket",
    "device_pages",
    "fresh",
    "jar_of",
    "safe_next",
    "session_of",
]
