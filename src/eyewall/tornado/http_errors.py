"""Errors of the core as Tornado answers them: still our classes, and an ``HTTPError`` with the status."""

from __future__ import annotations

from tornado.web import HTTPError

from eyewall.errors import SessionEndedError, StoreUnavailable


class SessionUnavailableResponse(StoreUnavailable, HTTPError):  # noqa: N818 - it is a response
    """The store did not answer: 503, with ``Retry-After``; the cookie is left alone."""

    def __init__(self, reason: str) -> None:
        HTTPError.__init__(self, 503, "%s", reason)


class SessionEndedResponse(SessionEndedError, HTTPError):  # noqa: N818 - it is a response
    """The session was ended meanwhile: 409."""

    def __init__(self, reason: str) -> None:
        HTTPError.__init__(self, 409, "%s", reason)
