"""The value of the session cookie: ``ew1.<key id>.<session ID>.<mac>``.

The session ID alone would be unguessable. The MAC in front of the store makes every made-up value cost
microseconds instead of a store call, and ``ew1.`` lets secret scanners find leaked ones. The format is
frozen in the tests: changing it signs everybody out.
"""

from __future__ import annotations

from typing import Final

from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer

_FORMAT: Final = "ew1"
_LENGTH: Final = 100
"""Characters of a value: 3, 8, 43 and 43, and the dots between them."""


class SessionCookieSigner:
    """Turns session IDs into cookie values and back.

    Args:
        keyring: its newest key signs; all of its keys verify.
    """

    def __init__(self, keyring: KeyRing) -> None:
        self._signer = Signer(keyring, "session")

    def issue(self, cookie_name: str, session_id: str) -> str:
        """Return the value to send for ``session_id`` in the cookie ``cookie_name``."""
        key_id, mac = self._signer.sign(cookie_name, session_id)
        return f"{_FORMAT}.{key_id}.{session_id}.{mac}"

    def read(self, cookie_name: str, value: str) -> str | None:
        """Return the session ID in ``value``, or None when we did not make it for this cookie name.

        Whatever is wrong with the value (shape, key, MAC, cookie name), the answer is the same, and no
        store is asked.
        """
        parts = value.split(".") if len(value) == _LENGTH else ()
        if len(parts) != 4 or parts[0] != _FORMAT:
            return None
        _, key_id, session_id, mac = parts  # whatever characters these have: the MAC is right for one alone
        return session_id if self._signer.verify(key_id, mac, cookie_name, session_id) else None

    def is_current(self, value: str) -> bool:
        """Whether ``value``, which :meth:`read` has accepted, was signed by the newest key."""
        return self._signer.is_current(value.split(".")[1])
