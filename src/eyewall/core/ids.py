"""Session IDs, and the digests that stand for them everywhere but in the cookie."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Final

ID_BYTES: Final = 32
"""256 bits from the operating system's generator (ASVS 7.2.3 asks for 128 at least)."""


def new_session_id() -> str:
    """Return a fresh session ID: 256 random bits as 43 characters of unpadded base64url."""
    return urlsafe_b64encode(secrets.token_bytes(ID_BYTES)).rstrip(b"=").decode("ascii")


MOST_DIGESTS: Final = 4096
"""How many are remembered: about 1 MB. A browser sends the same ID with every request."""


@lru_cache(MOST_DIGESTS)
def digest_of(session_id: str) -> bytes:
    """Return the SHA-256 digest of ``session_id`` (32 bytes).

    The digest is all that is ever stored or logged, so a dump of the store cannot be replayed as
    cookies and a look-up cannot leak the ID by its timing (Rack's CVE-2019-16782).
    """
    return hashlib.sha256(session_id.encode("ascii")).digest()


def shortened(digest: bytes) -> str:
    """Return the first 48 bits of ``digest`` in hex: enough to tell sessions apart in a log."""
    return digest[:6].hex()
