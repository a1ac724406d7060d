"""What we put on an answer, and the answer that takes its place when the session could not be saved."""

from __future__ import annotations

import http.client
from typing import Final

from tornado.httputil import HTTPHeaders, ResponseStartLine

from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.errors import (
    SessionEndedError,
    SessionTooLargeError,
    StoreUnavailable,
    TooManySessionsError,
)

RETRY_AFTER: Final = "2"
"""Seconds after which a browser may try again when the store did not answer."""

_REPLACEMENT_HEADERS: Final = {
    "Content-Type": "text/plain; charset=UTF-8",
    "Cache-Control": "no-store",
    "Vary": "Cookie",
}

_STATUSES: Final = (
    (StoreUnavailable, 503),
    (SessionEndedError, 409),
    (SessionTooLargeError, 413),
    (TooManySessionsError, 403),
)


def add_ours(session: Session, manager: Manager, status: int, headers: HTTPHeaders) -> None:
    """Add to a head that leaves now what the session has to say."""
    session.headers_sent = True
    draft = session.draft
    if session.used:
        lines = manager.set_cookie_lines(session, https=draft.https)
        if lines:
            _set_our_cookies(headers, lines)
        make_private(headers, no_store=bool(lines) or draft.principal is not None)
    elif draft.record is not None and not headers.get_list("Content-Length"):
        make_private(headers, no_store=False)  # it goes on, and may use the session when this has left
    if status >= 400:
        _add_refusal_headers(headers, status, session)


def _set_our_cookies(headers: HTTPHeaders, lines: list[str]) -> None:
    """Add our cookies, and never a second one of a name (RFC 6265bis 4.1.1)."""
    ours = {line.partition("=")[0] for line in lines}
    others = [line for line in headers.get_list("Set-Cookie") if line.partition("=")[0] not in ours]
    headers.pop("Set-Cookie", None)  # reads it first: Tornado 6.5 cannot delete a list it has not joined
    for line in (*others, *lines):
        headers.add("Set-Cookie", line)


def make_private(headers: HTTPHeaders, *, no_store: bool) -> None:
    """Keep shared caches from handing one visitor's page to another (Flask's CVE-2023-30861).

    Any use of the session counts, also one that found it empty. Directives of the application stay,
    except those that would make the answer public.
    """
    if not headers.get_list("Vary") and not headers.get_list("Cache-Control"):  # nearly always
        headers["Vary"] = "Cookie"
        headers["Cache-Control"] = "private, no-store" if no_store else "private, no-cache"
        return
    vary = headers.get("Vary", "")
    if vary != "*" and "cookie" not in [field.strip().lower() for field in vary.split(",")]:
        headers["Vary"] = f"{vary}, Cookie" if vary else "Cookie"
    directives = [part.strip() for part in headers.get("Cache-Control", "").split(",") if part.strip()]
    kept = [d for d in directives if d.lower() != "public" and not d.lower().startswith("s-maxage")]
    if not directives:
        kept = ["no-store"] if no_store else ["no-cache"]
    if not any(d.lower() == "private" for d in kept):
        kept.insert(0, "private")
    headers["Cache-Control"] = ", ".join(kept)


def as_said(headers: HTTPHeaders, said: list[tuple[str, str]]) -> HTTPHeaders:
    """Return headers that are as they were when ``said`` was read off ``headers``: nearly always these."""
    if list(headers.get_all()) == said:
        return headers
    again = HTTPHeaders()  # not headers.copy() in the first place: it costs more than the whole barrier
    for name, value in said:
        again.add(name, value)
    return again


def _add_refusal_headers(headers: HTTPHeaders, status: int, session: Session) -> None:
    """Add what an answer of 400 or more must say.

    As late as the head leaves, because Tornado's ``send_error()`` drops what was set before.
    """
    if status == 503 and session.used and session.store_failed:
        headers["Retry-After"] = RETRY_AFTER
    for name, value in session.refusal_headers.items():
        headers[name] = value


def status_for(error: Exception) -> int:
    """Return the status of the answer that tells the browser about ``error``."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def replacement(status: int) -> tuple[ResponseStartLine, HTTPHeaders, bytes]:
    """Return the answer of ``status`` that is sent in the place of one whose session could not be saved."""
    phrase = http.client.responses[status]
    body = f"{status}: {phrase}. What you sent may not have been saved; please try again.\n".encode()
    headers = HTTPHeaders(_REPLACEMENT_HEADERS)
    headers["Content-Length"] = str(len(body))
    if status == 503:
        headers["Retry-After"] = RETRY_AFTER
    return ResponseStartLine("", status, phrase), headers, body
