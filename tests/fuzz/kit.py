"""What the targets share: one key ring, one clock, one session of one user, and readers of text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from eyewall.core.ids import digest_of
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.crypto.keyring import KeyRing
from eyewall.testing.clock import ManualClock

Target = Callable[[bytes], bool]
"""Takes any bytes, fails when a rule is broken, and returns whether they were accepted."""

SECRET: Final = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"
NAME: Final = "__Host-session"
CLOCK: Final = ManualClock()
RING: Final = KeyRing.from_secret(SECRET)
DIGEST: Final = hashlib.sha256(b"fuzzed").digest()

USER: Final = "alice"
SESSION_ID: Final = "A" * 43
SESSION_DIGEST: Final = digest_of(SESSION_ID)
COOKIE: Final = SessionCookieSigner(RING).issue("session", SESSION_ID)
"""The value that opens the user's session over plain http; the seeds hold it, so that pages are reached."""


def latin(data: bytes) -> str:
    """Return ``data`` as Tornado gives header lines."""
    return data.decode("latin-1")


def utf8(data: bytes) -> str:
    """Return ``data`` as text that may hold lone surrogates."""
    return data.decode("utf-8", "surrogateescape")
