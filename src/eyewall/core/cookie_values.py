"""What stands between ``=`` and ``;``: the formats of a cookie's value, and the plain one.

Plain values are text, and two promises about them pull in opposite directions: what we set is read back
exactly, whatever it holds, and what others set (a script, a proxy, another program) is read as it is. A
value is therefore sent as it stands wherever a browser would keep it so. Only what it would not (spaces,
``;``, quotes, anything beyond ASCII) is percent-encoded, and then says so in front::

    theme=dark                    jar.set("theme", "dark")
    city=ew1p.S%C3%A3o%20Paulo    jar.set("city", "São Paulo")

Without the mark, a foreign ``100%25`` could not be told from our ``100%``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, Protocol, TypedDict
from urllib.parse import quote, unquote_to_bytes

from eyewall.core.cookie import MAX_PAIR_BYTES, SameSite
from eyewall.errors import CookieError

MaxAge = int | timedelta | None
"""Life of a cookie: seconds, a timedelta, or None for one that ends with the browser."""

PLAIN_MARK: Final = "ew1p."
"""In front of a plain value that had to be percent-encoded."""

_OCTETS: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
"""The cookie-octets of RFC 6265 4.1.1."""

_KEPT: Final = "!#$&'()*+-./:<=>?@[]^_`{|}~"
"""Cookie-octets, beside letters and digits, that stay as they are inside a percent-encoded value."""


class JarOptions(TypedDict, total=False):
    """The attributes a cookie may be set and deleted with.

    Args:
        path: URL path below which it is sent; ``/`` unless given.
        domain: also send it to this domain's subdomains; only the very host unless given.
        secure: send it over HTTPS only; ``"auto"``, the default, does so when the request came by HTTPS.
        httponly: hide it from scripts; True unless given (ASVS 3.3.4).
        samesite: ``"Lax"`` (the default), ``"Strict"``, ``"None"``; None leaves it to the browser.
        partitioned: one copy for each site that embeds us (CHIPS); False unless given.
    """

    path: str
    domain: str | None
    secure: bool | Literal["auto"]
    httponly: bool
    samesite: SameSite | None
    partitioned: bool


@dataclass(frozen=True, slots=True)
class Renewal:
    """The same value under the newest key, and how to send it so that it replaces the old one."""

    text: str
    max_age: MaxAge
    options: JarOptions


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that was read, and its renewal if a retired key had made it."""

    value: Any
    renewal: Renewal | None = None


class ValueFormat(Protocol):
    """One way to write a cookie's value. ``name`` is always the cookie's full name."""

    def encode(self, name: str, value: Any, max_age: MaxAge, options: JarOptions) -> str:
        """Return the text to send. ``max_age`` is above 0 and checked.

        Raises:
            CookieError: this format cannot carry ``value``.
        """

    def decode(self, name: str, texts: Sequence[str]) -> Reading | None:
        """Return what the request's cookies of this name say, or None; never raises.

        Args:
            name: the cookie's name.
            texts: every value sent under it, as they came (latin-1); there may be none.
        """


class PlainValues:
    """Text that anybody can read and change."""

    def encode(self, name: str, value: Any, max_age: MaxAge, options: JarOptions) -> str:  # noqa: ARG002
        """Return ``value`` as it stands, or marked and percent-encoded where it must be.

        Raises:
            CookieError: it is not text, or has lone surrogates.
        """
        if not isinstance(value, str):
            raise CookieError(
                f"cookie {name!r}: its value is a {type(value).__name__}; give text, or use jar.signed or "
                "jar.encrypted, which keep types"
            )
        if _OCTETS.fullmatch(value) and not value.startswith(PLAIN_MARK):
            return value
        try:
            return PLAIN_MARK + quote(value, safe=_KEPT)
        except UnicodeEncodeError:
            raise CookieError(
                f"cookie {name!r}: its value has lone surrogates, which are no characters; leave them out"
            ) from None

    def decode(self, name: str, texts: Sequence[str]) -> Reading | None:  # noqa: ARG002
        """Read the first value: browsers send the one with the longest path first (RFC 6265bis 5.8.3)."""
        return Reading(_plain(texts[0])) if texts else None


def _plain(text: str) -> str:
    body = text.removeprefix(PLAIN_MARK)
    # No browser keeps so long a value of ours, and decoding 64 KB of percent signs takes milliseconds.
    is_ours = body != text and len(text) <= MAX_PAIR_BYTES
    decoded = _as_utf8(unquote_to_bytes(body)) if is_ours else None
    if decoded is not None and quote(decoded, safe=_KEPT) == body:
        return decoded
    # Scripts put UTF-8 into document.cookie, and header lines are read as latin-1.
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _as_utf8(octets: bytes) -> str | None:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
