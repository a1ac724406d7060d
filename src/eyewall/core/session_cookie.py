"""The value of the session cookie: ``ew1.<key id>.<session ID>.<mac>``.

The session ID alone would be unguessable. The MAC in front of the store makes every made-up value cost
microseconds instead of a store call, and ``ew1.`` lets secret scanners find leaked ones. The format is
frozen in the tests: changing it signs everybody out.
"""

from __future__ import annotations

import re
from typing import Final

from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer

_SHAPE: Final = re.compile(r"ew1\.([A-Za-z0-9_-]{8})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


MOST_KNOWN: Final = 4096
"""How many verified cookies are remembered: about 2 MB."""


class SessionCookieSigner:
    """Turns session IDs into cookie values and back.

    A browser sends the same value with every request, so those that were verified are remembered. Only a
    right MAC of the current key gets one in there, and what a session is worth is asked of the store
    all the same.

    Args:
        keyring: its newest key signs; all of its keys verify.
    """

    def __init__(self, keyring: KeyRing) -> None:
        self._signer = Signer(keyring, "session")
        self._known: dict[tuple[str, str], str] = {}

    def issue(self, cookie_name: str, session_id: str) -> str:
        """Return the value to send for ``session_id`` in the cookie ``cookie_name``."""
        key_id, mac = self._signer.sign(cookie_name, session_id)
        return f"ew1.{key_id}.{session_id}.{mac}"

    def read(self, cookie_name: str, value: str) -> str | None:
        """Return the session ID in ``value``, or None when we did not make it for this cookie name.

        Whatever is wrong with the value (shape, key, MAC, cookie name), the answer is the same, and no
        store is asked.
        """
        known = self._known.get((cookie_name, value))
        return self._read(cookie_name, value) if known is None else known

    def _read(self, cookie_name: str, value: str) -> str | None:
        shape = _SHAPE.fullmatch(value)
        if shape is None:
            return None
        key_id, session_id, mac = shape.groups()
        if not self._signer.verify(key_id, mac, cookie_name, session_id):
            return None
        if self._signer.is_current(key_id):  # uses of a retired key are counted one by one
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[cookie_name, value] = session_id
        return session_id
