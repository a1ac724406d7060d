"""The cookies that one response will set: each checked before it is noted, no two of one name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from eyewall.core.cookie import CookieAttributes
from eyewall.errors import CookieError

_FIRST_STATUS_WITHOUT: Final = 500


class OutgoingCookies:
    """Collects ``Set-Cookie`` lines until the response's head leaves.

    Args:
        reserved: names that belong to the session.
    """

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._reserved = reserved
        self._noted: dict[str, tuple[CookieAttributes, str]] = {}
        self._renewals: dict[str, str] = {}
        self.closed = False
        """Whether the head has left."""

    def put(self, cookie: CookieAttributes, line: str) -> None:
        """Note ``line``; it replaces an earlier one of the very same cookie.

        Raises:
            CookieError: the head has left, the name is the session's, or another cookie of this name (another
                path, domain or partition) is noted already.
        """
        name = cookie.name
        if self.closed:
            raise CookieError(
                f"cookie {name!r}: the headers have left; set it before flush(), finish(), render() and "
                "redirect()"
            )
        if name in self._reserved:
            raise CookieError(
                f"cookie {name!r}: this is the session's own cookie; choose another name, and keep what "
                "belongs to the session in self.session"
            )
        self._refuse_second(cookie)
        self._noted[name] = cookie, line

    def _refuse_second(self, cookie: CookieAttributes) -> None:
        earlier = self._noted.get(cookie.name)
        if earlier is not None and _identity(earlier[0]) != _identity(cookie):
            raise CookieError(
                f"cookie {cookie.name!r}: this response sets one of that name with another path, domain or "
                "partition already, and only one is allowed (RFC 6265bis 4.1.1); use two names, or set the "
                "second in the next response"
            )

    def renew(self, name: str, line: str) -> None:
        """Note ``line`` for want of anything better: whatever else sets ``name`` goes before it."""
        if not self.closed:
            self._renewals[name] = line

    def leave(self, status: int, others: Collection[str] = ()) -> list[str]:
        """Return the lines to send; from here on the jar is closed.

        An answer of 500 or more sets none: what the handler meant to say has not been said.

        Args:
            status: of the response.
            others: names of the cookies that the response sets by other means.

        Raises:
            CookieError: one of ``others`` is noted here too.
        """
        self.closed = True
        if status >= _FIRST_STATUS_WITHOUT:
            return []
        for name in self._noted.keys() & set(others):
            raise CookieError(
                f"cookie {name!r}: the response sets it twice, by the jar and by set_cookie() or a header of "
                "its own; use the jar alone"
            )
        renewed = self._renewals.keys() - self._noted.keys() - set(others)
        lines = [line for _, line in self._noted.values()]
        return lines + [line for name, line in self._renewals.items() if name in renewed]


def _identity(cookie: CookieAttributes) -> tuple[str, str, bool]:
    """What makes two cookies of one name the same to a browser (RFC 6265bis 5.7, CHIPS)."""
    return cookie.path, (cookie.domain or "").lower(), cookie.partitioned
