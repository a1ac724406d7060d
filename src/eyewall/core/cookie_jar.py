"""The jar: the cookies of one request and of its response, plain, signed or encrypted.

It decides and keeps; it does no I/O. The adapter hands it the request's ``Cookie`` lines and takes the
``Set-Cookie`` lines out when the response's head leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import Any, Self, Unpack, cast

from eyewall.core.cookie import MAX_LIFETIME, CookieAttributes, CookieOptions, cookie_values
from eyewall.core.cookie_values import JarOptions, MaxAge, PlainValues, Renewal, ValueFormat
from eyewall.core.outgoing_cookies import OutgoingCookies
from eyewall.core.signed_envelope import SignedEnvelope
from eyewall.core.stamped_values import PURPOSE, StampedValues
from eyewall.core.store import Clock
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.errors import CookieError


class CookieFormats:
    """The formats of a jar's values, made once for an application.

    Args:
        keyring: its newest key signs and seals; all of its keys read.
        clock: returns the current time (UTC).
    """

    def __init__(self, keyring: KeyRing, clock: Clock) -> None:
        self._keyring = keyring
        self._clock = clock
        self.plain: ValueFormat = PlainValues()

    @cached_property
    def signed(self) -> ValueFormat:
        """Typed, readable by anybody, changeable by nobody."""
        return StampedValues(SignedEnvelope(self._keyring, PURPOSE), self._clock)

    @cached_property
    def encrypted(self) -> ValueFormat:
        """Typed, neither readable nor changeable.

        Raises:
            MissingDriverError: the extra ``encryption`` is not installed.
        """
        return StampedValues(Sealer(self._keyring, PURPOSE), self._clock)


class CookieJar:
    """Reads the cookies of a request and sets those of its response.

    ::

        theme = jar.get("theme", "light")
        jar.set("theme", "dark", max_age=365 * 24 * 60 * 60).set("language", "pt")
        jar.signed.set("seen", datetime.now(UTC))
        jar.permanent.encrypted.set("price", Decimal("12.50"))
        jar.delete("theme")

    :attr:`signed`, :attr:`encrypted` and :attr:`permanent` give the same jar in another manner, and combine.
    What was set is sent with the response's head, unless its status is 500 or more. Reading sees the
    request's cookies only, not what this response sets.

    Args:
        lines: the request's ``Cookie`` header lines, decoded as latin-1.
        https: whether the browser's connection is encrypted.
        formats: how values are written.
        reserved: names that belong to the session.
    """

    def __init__(
        self, lines: Sequence[str], *, https: bool, formats: CookieFormats, reserved: Collection[str] = ()
    ) -> None:
        self._lines = lines
        self._https = https
        self._formats = formats
        self._values = formats.plain
        self._lifetime: timedelta | None = None
        self.outgoing = OutgoingCookies(reserved)
        """What the response will set; for the adapter."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of the request's cookie ``name``, or ``default``.

        A signed or encrypted value that is missing, expired, altered, moved from another cookie or
        application, or sent twice with different contents, gives ``default``: all faults look alike. One
        that a retired key had made is sent again under the newest key, with the end it had.

        Args:
            name: exact name, case and prefix included.
            default: what to return for no value.
        """
        reading = self._values.decode(name, cookie_values(self._lines, name))
        if reading is None:
            return default
        if reading.renewal is not None:
            self._renew(name, reading.renewal)
        return reading.value

    def set(self, name: str, value: Any, *, max_age: MaxAge = None, **options: Unpack[JarOptions]) -> Self:
        """Set the cookie ``name`` with the response, and return the jar.

        Args:
            name: an RFC 6265 token.
            value: text; for :attr:`signed` and :attr:`encrypted`, anything a session can hold.
            max_age: seconds (int) or a timedelta, up to 400 days; 0 deletes. Without it the cookie ends with
                the browser, and a signed or encrypted value after 31 days at the latest.
            options: see :class:`~eyewall.core.cookie_values.JarOptions`.

        Raises:
            CookieError: a browser would drop this cookie, it could be abused, this response sets another of
                its name, or the headers have left. The message says how to mend it; nothing is sent of it.
        """
        if max_age is not False and max_age in (0, timedelta(0)):
            return self.delete(name, **options)
        max_age = self._lifetime if max_age is None else max_age
        cookie = self._attributes(name, options)
        cookie.set("", max_age=max_age)  # what has a wrong life must not be signed for it
        text = self._values.encode(name, value, max_age, options)
        self.outgoing.put(cookie, cookie.set(text, max_age=max_age))
        return self

    def delete(self, name: str, **options: Unpack[JarOptions]) -> Self:
        """Delete the cookie ``name`` with the response, and return the jar.

        Args:
            name: as it was set.
            options: those it was set with. Browsers delete a cookie only when path, domain and partition are
                the same, and accept the line only where they would have accepted the cookie.

        Raises:
            CookieError: as :meth:`set`.
        """
        cookie = self._attributes(name, options)
        self.outgoing.put(cookie, cookie.delete())
        return self

    @property
    def signed(self) -> Self:
        """This jar with typed values that the browser can read and not change."""
        return self._view(_values=self._formats.signed)

    @property
    def encrypted(self) -> Self:
        """This jar with typed values that the browser can neither read nor change.

        Raises:
            MissingDriverError: the extra ``encryption`` is not installed.
        """
        return self._view(_values=self._formats.encrypted)

    @property
    def permanent(self) -> Self:
        """This jar with cookies that last 400 days, the longest a browser keeps any (RFC 6265bis 5.5)."""
        return self._view(_lifetime=MAX_LIFETIME)

    def _view(self, **changes: Any) -> Self:
        view = object.__new__(type(self))  # copy.copy() takes five times as long
        view.__dict__.update(self.__dict__, **changes)  # what came in and what goes out stay shared
        return view

    def _attributes(self, name: str, options: JarOptions) -> CookieAttributes:
        chosen = options.get("secure", "auto")
        secure = self._https if chosen == "auto" else chosen
        return CookieAttributes(name, **cast(CookieOptions, {**options, "secure": secure}))

    def _renew(self, name: str, renewal: Renewal) -> None:
        # The client chooses over which connection it sends a value; one that could not have been set here
        # is read, and left alone.
        with suppress(CookieError):
            cookie = self._attributes(name, renewal.options)
            self.outgoing.renew(name, cookie.set(renewal.text, max_age=renewal.max_age))
