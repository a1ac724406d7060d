"""Typed values with their dates inside, signed or sealed: what ``jar.signed`` and ``jar.encrypted`` write.

When a value was issued, when it ends and which cookie it is in (path, domain, flags, as far as they are not
the defaults) stand inside the authenticated part. So a browser that ignores ``Max-Age`` gains nothing, and a
value made with a retired key can be sent again under the newest one as the very same cookie, which the
request itself does not tell. The payload is a msgpack map:

====  =========================================================================================
key   content
====  =========================================================================================
i     issued at, seconds since 1970
e     ends at, seconds since 1970
v     the value, as :mod:`~eyewall.core.codec` writes session data
m     true: the cookie has a ``Max-Age``; left out: it ends with the browser
p     path, d domain, s secure (left out: auto), h httponly, x samesite, c partitioned
====  =========================================================================================

All but the first three are left out where they have the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal, Protocol

import msgspec

from eyewall.core.client_side import CLOCK_SKEW
from eyewall.core.codec import decode_value, encode_value
from eyewall.core.cookie import SameSite
from eyewall.core.cookie_values import JarOptions, MaxAge, Reading, Renewal
from eyewall.core.store import Clock
from eyewall.errors import CookieError, DamagedRecordError, UnstorableValueError

PURPOSE: Final = "cookie"
"""The purpose that signed and sealed cookie values are made for."""

LIFE_WITHOUT_MAX_AGE: Final = timedelta(days=31)
"""How long a value is good for whose cookie ends with the browser. Browsers that restore their tabs keep
such cookies for ever, so the value needs an end of its own; Tornado's signed cookies have the same one."""


class Envelope(Protocol):
    """Proves that bytes are ours, for one purpose and context: a signed envelope or a sealer."""

    def seal(self, plaintext: bytes, *context: str) -> str:
        """Return ``plaintext`` as text that opens only with the same ``context``."""

    def open(self, token: str, *context: str) -> bytes | None:
        """Return what was sealed, or None whatever is wrong."""

    def is_current(self, sealed: str) -> bool:
        """Return whether the newest key made this text, which has been opened."""


class _Stamped(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    issued: int = msgspec.field(name="i")
    ends: int = msgspec.field(name="e")
    value: msgspec.Raw = msgspec.field(name="v")
    has_max_age: bool = msgspec.field(name="m", default=False)
    path: str = msgspec.field(name="p", default="/")
    domain: str | None = msgspec.field(name="d", default=None)
    secure: bool | Literal["auto"] = msgspec.field(name="s", default="auto")
    httponly: bool = msgspec.field(name="h", default=True)
    samesite: SameSite | None = msgspec.field(name="x", default="Lax")
    partitioned: bool = msgspec.field(name="c", default=False)

    def options(self) -> JarOptions:
        return {
            "path": self.path,
            "domain": self.domain,
            "secure": self.secure,
            "httponly": self.httponly,
            "samesite": self.samesite,
            "partitioned": self.partitioned,
        }


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Stamped)


class StampedValues:
    """Writes and reads typed values that end by themselves.

    Args:
        envelope: made for :data:`PURPOSE`; the cookie's name is its context.
        clock: returns the current time (UTC).
    """

    def __init__(self, envelope: Envelope, clock: Clock) -> None:
        self._envelope = envelope
        self._clock = clock

    def encode(self, name: str, value: Any, max_age: MaxAge, options: JarOptions) -> str:
        """Return ``value`` with its dates, signed or sealed.

        Raises:
            CookieError: ``value`` has a type that would not come back as it was.
        """
        now = self._clock().timestamp()
        stamped = _Stamped(
            issued=int(now),
            ends=math.ceil(now + _seconds(LIFE_WITHOUT_MAX_AGE if max_age is None else max_age)),
            value=msgspec.Raw(_encoded(name, value)),
            has_max_age=max_age is not None,
            **options,
        )
        return self._envelope.seal(_encoder.encode(stamped), name)

    def decode(self, name: str, texts: Sequence[str]) -> Reading | None:
        """Return the one value among ``texts`` that is ours and live.

        Two of them mean that one was planted by a sibling subdomain, and there is no telling which
        (RFC 6265bis 4.2.2), so they count as none. Every other fault gives the same None.
        """
        found = [
            (text, stamped)
            for text in dict.fromkeys(texts)
            if (stamped := self._live(name, text)) is not None
        ]
        if len(found) != 1:
            return None
        text, stamped = found[0]
        try:
            value = decode_value(stamped.value)
        except DamagedRecordError:  # ours, so a later version of Eyewall wrote it
            return None
        return Reading(value, None if self._envelope.is_current(text) else self._renewal(name, stamped))

    def _live(self, name: str, text: str) -> _Stamped | None:
        payload = self._envelope.open(text, name)
        if payload is None:
            return None
        try:
            stamped = _decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError):  # as above
            return None
        now = self._clock().timestamp()
        return stamped if stamped.issued - now <= CLOCK_SKEW.total_seconds() and now < stamped.ends else None

    def _renewal(self, name: str, stamped: _Stamped) -> Renewal:
        left = math.ceil(stamped.ends - self._clock().timestamp())
        text = self._envelope.seal(_encoder.encode(stamped), name)
        return Renewal(text, left if stamped.has_max_age else None, stamped.options())


def _seconds(max_age: int | timedelta) -> float:
    return max_age.total_seconds() if isinstance(max_age, timedelta) else max_age


def _encoded(name: str, value: Any) -> bytes:
    try:
        return encode_value(name, value)
    except UnstorableValueError as error:
        reason = str(error).partition(": ")[2]
        raise CookieError(f"cookie {name!r}: its value cannot be kept: {reason}") from None
