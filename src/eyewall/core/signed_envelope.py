"""Signed text that anybody can read and nobody can change: ``ew1s.<key id>.<payload>.<mac>``.

=========  ==========================================================================
field      content
=========  ==========================================================================
``ew1s``   the format; secret scanners can look for it
key id     8 base64url characters; names the key, so that one MAC decides
payload    base64url, unpadded
mac        43 base64url characters: HMAC-SHA256 with the key's sub-key for the
           purpose, over each field of the context and then the payload's text
=========  ==========================================================================

The verbs are those of :class:`~eyewall.crypto.sealer.Sealer`, so that a value can go into either.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer

FORMAT: Final = "ew1s"

_SHAPE: Final = re.compile(rf"{FORMAT}\.([A-Za-z0-9_-]{{8}})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{{43}})")


class SignedEnvelope:
    """Signs and opens payloads for one purpose.

    Args:
        keyring: its newest key signs; all of its keys verify.
        purpose: what the payloads are; a constant of the calling code.
    """

    def __init__(self, keyring: KeyRing, purpose: str) -> None:
        self._signer = Signer(keyring, purpose)

    def seal(self, plaintext: bytes, *context: str) -> str:
        """Return ``plaintext`` as signed text that opens only with the same ``context``."""
        payload = urlsafe_b64encode(plaintext).rstrip(b"=").decode("ascii")
        key_id, mac = self._signer.sign(*context, payload)
        return f"{FORMAT}.{key_id}.{payload}.{mac}"

    def open(self, token: str, *context: str) -> bytes | None:
        """Return what :meth:`seal` was given, or None when we did not sign this for this ``context``.

        Whatever is wrong, the answer is the same None, never an error.
        """
        shape = _SHAPE.fullmatch(token)
        if shape is None:
            return None
        key_id, payload, mac = shape.groups()
        if not self._signer.verify(key_id, mac, *context, payload):
            return None
        return urlsafe_b64decode(payload + "=" * (-len(payload) % 4))

    def is_current(self, sealed: str) -> bool:
        """Return whether the newest key is the one named in ``sealed``; look at opened text only."""
        return self._signer.is_current(sealed.split(".")[1])
