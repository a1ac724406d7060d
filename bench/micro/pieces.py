"""The pieces of a request, each as a function that can be called again and again.

:mod:`bench.micro.core_pieces` times them, :mod:`bench.instructions` counts their instructions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tornado.concurrent import Future
from tornado.httputil import HTTPConnection, HTTPHeaders, RequestStartLine, ResponseStartLine

from eyewall.core.changes import Changes
from eyewall.core.codec import decode_value, encode_value
from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.manager import Manager
from eyewall.core.payload import decode_payload, empty_payload, encode_payload
from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.settings import Settings
from eyewall.stores.memory import MemoryStore
from eyewall.tornado.wire import CommitBarrier

SECRET = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"  # noqa: S105 - protects nothing but a benchmark
DIGEST = bytes(range(32))
OTHERS = "theme=dark; _ga=GA1.1.1234567890.1700000000; consent=yes"

Piece = Callable[[], object]


class Sink(HTTPConnection):
    """A connection that takes everything and sends nothing."""

    def __init__(self) -> None:
        self._done: Future[None] = Future()

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,  # noqa: ARG002 - Tornado's arguments
        headers: HTTPHeaders,  # noqa: ARG002
        chunk: bytes | None = None,  # noqa: ARG002
    ) -> Future[None]:
        """Take the head."""
        return self._done

    def write(self, chunk: bytes) -> Future[None]:  # noqa: ARG002
        """Take a piece of the body."""
        return self._done

    def finish(self) -> None:
        """Take the end."""


def stored(size: int) -> bytes:
    """Return the payload of a session of about ``size`` bytes, in values of a hundred."""
    values: dict[str, Any] = {"user": "alice", "n": 7}
    values |= {f"note{i}": "x" * 90 for i in range(size // 100)}
    changes = Changes(assigned={key: encode_value(key, value) for key, value in values.items()})
    return encode_payload(changes.apply_to(empty_payload()), DIGEST)


def one_key_of(size: int) -> Piece:
    """Open a stored session and decode one of its values."""
    blob = stored(size)
    return lambda: decode_value(decode_payload(blob, DIGEST).data["user"])


def make_manager() -> Manager:
    """Return a manager over a memory store."""
    manager = Manager(Settings(backend="memory", cookie_secret=SECRET), MemoryStore())
    manager.use_keyring(KeyRing.from_secret(SECRET))
    return manager


def loaded_session(manager: Manager) -> Session:
    """Return a session as it is after loading, with one value read."""
    now = utc_now()
    blob = stored(500)
    record = Record(
        digest=DIGEST,
        version=1,
        payload=blob,
        created_at=now,
        seen_at=now,
        expires_at=now + timedelta(hours=1),
    )
    session = manager.open([], https=False)
    session.draft.settle(record, decode_payload(blob, DIGEST))
    session.get("user")
    return session


def barrier(manager: Manager) -> Piece:
    """Put a barrier before a connection and send an answer through it, the session untouched."""
    sink, head, headers = Sink(), ResponseStartLine("", 200, "OK"), HTTPHeaders()

    def answer() -> None:
        wire = CommitBarrier(sink, manager.open([], https=False), manager)
        wire.write_headers(head, headers, b"body")
        wire.finish()

    return answer


def pieces() -> dict[str, Piece]:
    """Return the pieces by name."""
    keyring, manager = KeyRing.from_secret(SECRET), make_manager()
    signer, sealer = SessionCookieSigner(keyring), Sealer(keyring, "bench")
    session_id = secrets.token_urlsafe(32)
    value, plain = signer.issue("session", session_id), bytes(500)
    lines, sealed = [f"{OTHERS}; session={value}"], sealer.seal(plain, "session")
    attributes, session = CookieAttributes("session"), loaded_session(manager)
    return {
        "cookie parse": lambda: cookie_values(lines, "session"),
        "cookie render": lambda: attributes.set(value),
        "sign": lambda: signer.issue("session", session_id),
        "verify": lambda: signer.read("session", value),
        "seal 500 bytes": lambda: sealer.seal(plain, "session"),
        "open 500 bytes": lambda: sealer.open(sealed, "session"),
        "one key of 500 bytes": one_key_of(500),
        "one key of 32 KB": one_key_of(32 * 1024),
        "open from cookie": lambda: manager.open(lines, https=False),
        "commit, unchanged": lambda: manager.needs_commit(session),
        "barrier": barrier(manager),
    }
