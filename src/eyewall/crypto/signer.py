"""The signer: proves that a few texts were put together by us, for one purpose.

A MAC is HMAC-SHA256, with the purpose's sub-key, over all fields, each with its length in front::

    mac = base64url(HMAC(sub-key, "3:abc" "2:de" ...))        43 characters, unpadded

The lengths keep characters from moving between neighbouring fields unnoticed (Tornado 1.0.1 and 3.2.1 had to
learn that), and the sub-key keeps a value made for one purpose from being accepted for another.
"""

from __future__ import annotations

import hmac
import secrets
from binascii import b2a_base64
from typing import Final

from eyewall.crypto.keyring import KeyRing

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class Signer:
    """Signs and verifies texts for one purpose with a key ring.

    Args:
        keyring: its current key signs, all its keys verify.
        purpose: what a signature shall prove, e.g. ``"session cookie"``; a constant of the calling code.
    """

    __slots__ = ("_current_id", "_note_use", "_stand_in", "_started")

    def __init__(self, keyring: KeyRing, purpose: str) -> None:
        # An HMAC that has taken in its key can be copied, which halves the time of a request's check.
        self._started = {key.id: hmac.new(key.derive(purpose), digestmod="sha256") for key in keyring}
        self._current_id = keyring.current.id
        self._note_use = keyring.note_use
        self._stand_in = hmac.new(secrets.token_bytes(32), digestmod="sha256")

    def sign(self, *fields: str) -> tuple[str, str]:
        """Return the ID of the key that signed, and the MAC (43 base64url characters) over ``fields``."""
        mac = _mac(self._started[self._current_id], fields)
        return self._current_id, mac.decode("ascii")

    def verify(self, key_id: str, mac: str, *fields: str) -> bool:
        """Return whether ``mac`` is exactly what :meth:`sign` gave for ``fields``.

        Takes the same time wherever the first difference is (ASVS 11.2.4), and about the same for an
        unknown key, so that nobody can probe which keys are in the ring. Any text is safe to pass in: what
        is not a MAC is False, never an error.
        """
        started = self._started.get(key_id)
        expected = _mac(started or self._stand_in, fields)
        same = hmac.compare_digest(expected, mac.encode("utf-8", "surrogatepass"))
        if not same or started is None:
            return False
        if key_id != self._current_id:
            self._note_use(key_id)  # so that one learns when a retired key can go
        return True

    def is_current(self, key_id: str) -> bool:
        """Return whether the current key has this ID; what a retired key signed should be signed anew."""
        return key_id == self._current_id


def _mac(started: hmac.HMAC, fields: tuple[str, ...]) -> bytes:
    running, text = started.copy(), ""
    for field in fields:
        text += f"{len(field)}:{field}"
    # Lone surrogates, which no honest client sends, get bytes of their own too instead of an exception.
    running.update(text.encode("utf-8", "surrogatepass"))
    # 32 bytes are 43 characters and one "=". Comparing text with text leaves no second spelling of a MAC,
    # which decoding the client's would.
    return b2a_base64(running.digest(), newline=False)[:43].translate(_URL_SAFE)
