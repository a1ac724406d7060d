"""What the browser holds of a session, read and written: here the session ID, signed.

:class:`~eyewall.core.sealed_cookie.SealedCookie` is the other kind: the whole session, sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.draft import CookieAction, Draft
from eyewall.core.events import EventKind
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.crypto.keyring import KeyRing
from eyewall.settings import Settings

MOST_KNOWN: Final = 4096
"""How many ``Cookie`` lines are remembered: about 3 MB, 10 MB if they are long."""

LONGEST_KNOWN: Final = 2048
"""Characters; a longer line is read each time."""


class BrowserCookie(Protocol):
    """Reads a session out of a request's cookies, and says what the response must set."""

    name: str
    token_name: str | None

    def read(self, lines: Sequence[str], draft: Draft) -> EventKind | None:
        """Note in ``draft`` what the ``Cookie`` header lines say; return what was wrong with them, if so."""

    def lines(self, draft: Draft) -> list[str]:
        """Return the ``Set-Cookie`` lines that the response needs."""


class IdCookie:
    """The cookie of a server-side session: the signed session ID.

    A browser sends the same ``Cookie`` line with every request, so lines are remembered with the ID that was
    found in them. Only a right MAC of the current key gets one in there, and what a session is worth is asked
    of the store all the same.

    Args:
        settings: name and attributes of the cookie.
        keyring: the newest key signs, all verify.
        https: whether this is for encrypted connections; the two kinds have different names.
    """

    def __init__(self, settings: Settings, keyring: KeyRing, *, https: bool) -> None:
        self._attributes = cookie_attributes(settings, https=https)
        self._signer = SessionCookieSigner(keyring)
        self._known: dict[str, tuple[str, bool]] = {}
        self.name = self._attributes.name
        self.token_name: str | None = None
        """Name of the remember token's cookie, where there are remember tokens."""

    def read(self, lines: Sequence[str], draft: Draft) -> EventKind | None:
        """Note the session ID, if exactly one of the values was signed by us for this cookie.

        Two valid ones mean that one was planted, and there is no telling which (RFC 6265bis 4.2.2: the
        order of duplicates means nothing). Neither is used then.
        """
        if len(lines) == 1 and (known := self._known.get(lines[0])) is not None:
            draft.brought_cookie = True
            draft.session_id, draft.remembered = known
            return None
        if self.token_name is not None:
            draft.remembered = self.token_name in "\n".join(lines)
        values = cookie_values(lines, self.name)
        if not values:
            return None
        draft.brought_cookie = True
        if len(values) > 1:
            return self._read_several(values, draft)
        session_id = self._signer.read(self.name, values[0])
        if session_id is None:
            return EventKind.FORGED_ID
        draft.session_id = session_id
        self._remember(lines, values[0], (session_id, draft.remembered))
        return None

    def _read_several(self, values: Sequence[str], draft: Draft) -> EventKind | None:
        found = {i for value in set(values) if (i := self._signer.read(self.name, value)) is not None}
        if len(found) == 1:
            draft.session_id = found.pop()
            return None
        return EventKind.AMBIGUOUS_COOKIE if found else EventKind.FORGED_ID

    def _remember(self, lines: Sequence[str], value: str, found: tuple[str, bool]) -> None:
        if len(lines) > 1 or len(lines[0]) > LONGEST_KNOWN or not self._signer.is_current(value):
            return  # uses of a retired key are counted one by one
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[lines[0]] = found

    def lines(self, draft: Draft) -> list[str]:
        """Set the cookie to the draft's session ID, delete it, or leave it."""
        if draft.cookie is CookieAction.KEEP:
            return []
        if draft.cookie is CookieAction.DELETE or draft.session_id is None:
            return [self._attributes.delete()]
        return [self._attributes.set(self._signer.issue(self.name, draft.session_id))]


def cookie_attributes(settings: Settings, *, https: bool) -> CookieAttributes:
    """Return the session cookie's attributes on encrypted or on plain connections."""
    return _attributes(settings, settings.cookie_name(https), https=https, httponly=settings.httponly)


def companion_attributes(settings: Settings, suffix: str, *, https: bool) -> CookieAttributes:
    """Return the attributes of a cookie that goes with the session's: its name, a hyphen and ``suffix``.

    No script ever needs such a one, so it is HttpOnly whatever the session's is.
    """
    return _attributes(settings, f"{settings.cookie_name(https)}-{suffix}", https=https, httponly=True)


def _attributes(settings: Settings, name: str, *, https: bool, httponly: bool) -> CookieAttributes:
    return CookieAttributes(
        name,
        path=settings.cookie_path,
        domain=settings.domain,
        secure=settings.cookie_secure(https),
        httponly=httponly,
        samesite=settings.samesite,
        partitioned=settings.partitioned,
    )
