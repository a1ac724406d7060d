"""Every error Eyewall raises, sorted by the decision its catcher can take.

::

    EyewallError
    ├── ConfigurationError       at start: a setting is wrong; the message says how to mend it
    │   ├── WeakSecretError      the secret could be guessed
    │   └── MissingDriverError   the store's library is not installed; names the extra
    ├── StoreUnavailable         the store did not answer or refused: try again later (HTTP 503)
    ├── DamagedRecordError       stored bytes are not a record of ours: treat as no record
    ├── TooBusyError             more work of one kind than we take on: try again soon (HTTP 503)
    ├── TooManyAttemptsError     too many attempts to sign in: not before ``retry_after`` (HTTP 429)
    ├── UnusablePasswordError    (also ValueError) ask for another password; the message says why
    ├── SessionError             the handler asked for something a session cannot do
    │   ├── UnstorableValueError (also TypeError) the value has a type no store can keep
    │   ├── SessionTooLargeError the session would outgrow ``max_size``
    │   ├── SessionClosedError   the response is finished; nothing can be changed any more
    │   ├── HeadersSentError     needs a cookie, but the headers have left
    │   ├── SessionEndedError    somebody ended this session meanwhile (HTTP 409)
    │   └── TooManySessionsError the principal has as many sessions as they may (HTTP 403)
    └── CookieError              (also ValueError) a cookie no browser would keep, or that could be abused

A missing, expired or forged session is none of these: it is simply a new visitor.
"""

from __future__ import annotations

from datetime import timedelta


class EyewallError(Exception):
    """Base of every error raised by Eyewall."""


class ConfigurationError(EyewallError):
    """A setting is unknown, contradictory or unsafe. Raised at start, never while serving."""


class WeakSecretError(ConfigurationError):
    """The secret is short, repetitive or published somewhere, so it could be guessed."""


class MissingDriverError(ConfigurationError):
    """A store needs a library that is not installed; the message names the extra to install."""


class StoreUnavailable(EyewallError):  # noqa: N818 - named after the condition, as HTTP 503 is
    """The store did not answer in time, refused, or is full. Retrying later may work."""


class DamagedRecordError(EyewallError):
    """Stored bytes cannot be read as a record: truncated, foreign, or of an unknown version."""


class TooBusyError(EyewallError):
    """More callers wait for costly work than are let wait. Retrying soon may work."""


class TooManyAttemptsError(EyewallError):
    """Too many attempts to sign in: refuse this one, without looking at its password.

    Args:
        limit: which limit holds: ``"pair"`` (this account from this address), ``"address"`` (all accounts
            from this address) or ``"account"`` (this account from everywhere). For the operator's log; a
            visitor should be told the waiting time alone.
        retry_after: how long until an attempt has a chance again; never negative.
    """

    def __init__(self, limit: str, retry_after: timedelta) -> None:
        super().__init__(f"too many attempts to sign in (limit per {limit}): retry after {retry_after}")
        self.limit = limit
        self.retry_after = retry_after


class UnusablePasswordError(EyewallError, ValueError):
    """The password cannot be hashed: empty, too long, or not text. The message never shows it."""


class SessionError(EyewallError):
    """Base of the errors a handler can cause by what it asks of its session."""


class UnstorableValueError(SessionError, TypeError):
    """A value, or a value nested inside it, has a type that would not come back as it was."""


class SessionTooLargeError(SessionError):
    """The session's stored form would be larger than the ``max_size`` setting (bytes)."""


class SessionClosedError(SessionError):
    """The response is finished, so a change could no longer be saved before it."""


class HeadersSentError(SessionError):
    """The change needs a new cookie, but the response's headers have already left."""


class SessionEndedError(SessionError):
    """The session was destroyed, revoked or has expired since this request loaded it."""


class TooManySessionsError(SessionError):
    """The principal has as many sessions as they may have; a sign-in beyond that is refused."""


class CookieError(EyewallError, ValueError):
    """A cookie that browsers would drop or that could inject a header. Nothing was sent."""
