"""The loads: what the visitors of each ask, and what a right answer is."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

from bench.apps.answers import BARE

NOTE = b"n" * 440
"""Fills a session up to about 500 bytes."""

LARGE = b"x" * 8192
BURST = 100
"""Requests of one page load (W7)."""


class Visitor:
    """One browser: its cookie, and what it knows of its session."""

    __slots__ = ("cookie", "count")

    def __init__(self, cookie: bytes = b"") -> None:
        self.cookie = cookie
        self.count = 0


Accept = Callable[[Visitor, bytes], bool]


class Load(NamedTuple):
    """One load.

    Args:
        name: W0 to W8.
        title: what it does, for the table.
        method: of the request.
        path: of the request.
        body: of the request.
        accept: whether a visitor was given the right answer.
        starts: its visitors have sessions when it starts.
        forged: its visitors have cookies that nobody issued.
        forgets: its visitors throw their cookies away: each request is a new visitor's.
        burst: its requests come in hundreds on one session, each for a key of its own.
        needs_store: a session inside a cookie cannot do it.
        bare: measured on the bare applications only.
    """

    name: str
    title: str
    method: str
    path: str
    body: bytes
    accept: Accept
    starts: bool = True
    forged: bool = False
    forgets: bool = False
    burst: bool = False
    needs_store: bool = False
    bare: bool = False

    def without_sessions(self) -> Load:
        """Return what is asked of a bare application: the same, without cookies, and whatever it answers."""
        return self._replace(accept=anything, starts=False, forged=False)


def _is(text: bytes) -> Accept:
    return lambda _, body: body == text


def _counts(visitor: Visitor, body: bytes) -> bool:
    visitor.count += 1
    return body == b"%d" % visitor.count


def anything(_: Visitor, body: bytes) -> bool:
    """Accept what a bare application says."""
    return body == BARE.encode()


LOADS = [
    Load("W0", "bare handler", "GET", "/bare", b"", anything, starts=False, bare=True),
    Load("W1", "valid cookie, read two values", "GET", "/read", b"", _is(b"alice 0")),
    Load("W2", "read a counter, add one, save", "POST", "/count", b"", _counts),
    Load("W3", "layer installed, no cookie, untouched", "GET", "/bare", b"", anything, starts=False),
    Load("W4", "forged cookie", "GET", "/read", b"", _is(b"nobody"), starts=False, forged=True),
    Load("W5", "sign in: a new ID", "POST", "/login", b"alice", _is(b"alice")),
    Load("W6", "write 8 KB", "POST", "/big", LARGE, _is(b"8192"), needs_store=True),
    Load("W7", "100 writes of one page load", "POST", "/mark", b"", _is(b"marked"), starts=False,
         burst=True, needs_store=True),
    Load("W8", "new visitor, first write", "POST", "/count", b"", _is(b"1"), starts=False, forgets=True),
]  # fmt: skip


def load_called(name: str) -> Load:
    """Return the load ``name``.

    Raises:
        ValueError: there is none.
    """
    for load in LOADS:
        if load.name == name.upper():
            return load
    raise ValueError(f"there is no load {name!r}; there are W0 to W8")


def request_bytes(method: str, path: str, body: bytes = b"", cookie: bytes = b"") -> bytes:
    """Return a request as it goes onto the wire; of the headers only what matters."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: 127.0.0.1"]
    if cookie:
        lines.append(b"Cookie: " + cookie)
    if method == "POST":
        lines += [b"Content-Type: text/plain", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


def forged(cookie: bytes) -> bytes:
    """Return a cookie of the same name and form that was never issued: every letter of its end changed."""
    name, _, value = cookie.partition(b"=")
    keep = min(len(value) // 4, 12)
    invented = secrets.token_urlsafe(len(value)).encode()
    tail = bytes(
        new if old not in b"|:._-" and chr(old).isalnum() else old
        for old, new in zip(value[keep:], invented, strict=False)
    )
    return name + b"=" + value[:keep] + tail
