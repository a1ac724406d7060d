"""The value of the remember cookie: ``ewr1.<key id>.<selector>.<verifier>.<mac>``.

=========  =====================================================================================
field      content
=========  =====================================================================================
``ewr1``   the format; secret scanners can look for it
key id     8 base64url characters; names the key, so that one MAC decides
selector   128 random bits, base64url: finds the stored half of the token, and proves nothing
verifier   256 bits, base64url: proves that the browser is the one the token was given to
mac        43 base64url characters: HMAC-SHA256 with the key's sub-key for remember tokens, over
           the cookie's name, the selector and the verifier
=========  =====================================================================================

As with the session cookie the MAC keeps made-up values away from the store. The format is frozen in the
tests: changing it makes everybody type their password again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer

_SHAPE: Final = re.compile(
    r"ewr1\.([A-Za-z0-9_-]{8})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})"
)


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """A remember token as a browser brings it. Its ``repr`` shows nothing of it, so no log does.

    Args:
        selector: finds what is stored (22 base64url characters).
        verifier: the secret half (43 base64url characters).
    """

    selector: str = field(repr=False)
    verifier: str = field(repr=False)


class RememberCookieSigner:
    """Turns remember tokens into cookie values and back.

    Args:
        keyring: its newest key signs; all of its keys verify.
    """

    def __init__(self, keyring: KeyRing) -> None:
        self._signer = Signer(keyring, "remember token")

    def issue(self, cookie_name: str, token: PresentedToken) -> str:
        """Return the value to send for ``token`` in the cookie ``cookie_name``."""
        key_id, mac = self._signer.sign(cookie_name, token.selector, token.verifier)
        return f"ewr1.{key_id}.{token.selector}.{token.verifier}.{mac}"

    def read(self, cookie_name: str, values: Iterable[str]) -> PresentedToken | None:
        """Return the token in ``values``, or None unless there is exactly one that we made for this name.

        Two different ones mean that one was planted, and there is no telling which (RFC 6265bis 4.2.2: the
        order of duplicates means nothing). Neither is used then. Never raises, whatever the values are.
        """
        found = {token for value in values if (token := self._read_one(cookie_name, value)) is not None}
        return found.pop() if len(found) == 1 else None

    def _read_one(self, cookie_name: str, value: str) -> PresentedToken | None:
        shape = _SHAPE.fullmatch(value)
        if shape is None:
            return None
        key_id, selector, verifier, mac = shape.groups()
        genuine = self._signer.verify(key_id, mac, cookie_name, selector, verifier)
        return PresentedToken(selector, verifier) if genuine else None
