"""Tornado's own signed values, read and written, so that an application can move cookie by cookie.

Only format 2 (Tornado 3.2.1 and later). Format 1 has no length in front of its fields and uses SHA-1; it is
never accepted, whatever the application allows elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from tornado.web import Application, create_signed_value, decode_signed_value

from eyewall.core.cookie_values import JarOptions, MaxAge, Reading
from eyewall.core.store import Clock
from eyewall.errors import ConfigurationError, CookieError

TORNADO_MAX_AGE: Final = timedelta(days=31)
"""How old a value may be that ``get_signed_cookie`` accepts by default."""

_FORMAT: Final = 2


class TornadoValues:
    """What ``set_signed_cookie`` writes and ``get_signed_cookie`` reads: bytes with a time and a signature.

    Args:
        application: its ``cookie_secret`` and ``key_version`` are used, as Tornado does.
        clock: returns the current time (UTC).
        max_age: how old a value may be.

    Raises:
        ConfigurationError: the application has no ``cookie_secret``, or several and no ``key_version``.
    """

    def __init__(
        self, application: Application, clock: Clock, *, max_age: timedelta = TORNADO_MAX_AGE
    ) -> None:
        self._secret: Any = application.settings.get("cookie_secret")
        self._key_version: int | None = application.settings.get("key_version")
        self._clock = clock
        self._max_age_days = max_age / timedelta(days=1)
        if not self._secret:
            raise ConfigurationError(
                "Tornado's signed cookies need Application(cookie_secret=...): the secret that signed them"
            )
        if isinstance(self._secret, dict) and self._key_version not in self._secret:
            raise ConfigurationError(
                "cookie_secret has several versions; say which one signs: Application(key_version=...)"
            )

    def encode(self, name: str, value: Any, max_age: MaxAge, options: JarOptions) -> str:  # noqa: ARG002
        """Return ``value`` as Tornado signs it.

        Raises:
            CookieError: it is neither text nor bytes.
        """
        if not isinstance(value, str | bytes):
            raise CookieError(
                f"cookie {name!r}: Tornado's signed values are text or bytes, not a {type(value).__name__}; "
                "jar.signed keeps types"
            )
        version = self._key_version if isinstance(self._secret, dict) else None
        signed = create_signed_value(
            self._secret, name, value, version=_FORMAT, clock=self._seconds, key_version=version
        )
        return signed.decode("ascii")

    def decode(self, name: str, texts: Sequence[str]) -> Reading | None:
        """Return the bytes in the one value among ``texts`` that Tornado signed for ``name``."""
        found = {value for text in texts if (value := self._verified(name, text)) is not None}
        return Reading(found.pop()) if len(found) == 1 else None

    def _verified(self, name: str, text: str) -> bytes | None:
        # Tornado's set_cookie() puts quotes around, because of the "="; nothing inside ever needs escaping.
        value = text[1:-1] if text[:1] == '"' == text[-1:] else text
        return decode_signed_value(
            self._secret,
            name,
            value,
            max_age_days=self._max_age_days,
            clock=self._seconds,
            min_version=_FORMAT,
        )

    def _seconds(self) -> float:
        return self._clock().timestamp()
