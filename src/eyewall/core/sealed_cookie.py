"""The cookie of a client-side session: the record itself, sealed.

The request's own cookie is the store here. Its record is read without I/O, every change wins its
compare-and-swap, and what was written leaves with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from eyewall.core.browser_cookie import cookie_attributes
from eyewall.core.client_side import PURPOSE, ClientSideSessions, is_cut_off
from eyewall.core.cookie import cookie_values
from eyewall.core.draft import CookieAction, Draft
from eyewall.core.events import EventKind
from eyewall.core.payload import decode_payload
from eyewall.core.record import Record
from eyewall.core.store import Clock
from eyewall.core.timeouts import Timeouts
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.errors import DamagedRecordError
from eyewall.settings import Settings

CutOff = Callable[[str], datetime | None]
"""Given a principal, returns the time (UTC) before which none of their sessions counts, or None."""


class SealedCookie:
    """Reads and writes the sealed session.

    Args:
        settings: name and attributes of the cookie, and the timeouts.
        keyring: the newest key seals, all open.
        clock: returns the current time (UTC).
        cut_off: says since when the sessions of a principal count; None for all of them.
        https: whether this is for encrypted connections; the two kinds have different names.
    """

    def __init__(
        self, settings: Settings, keyring: KeyRing, clock: Clock, cut_off: CutOff | None, *, https: bool
    ) -> None:
        self._cut_off = cut_off
        attributes = cookie_attributes(settings, https=https)
        self._sessions = ClientSideSessions(Sealer(keyring, PURPOSE), attributes)
        self._timeouts = Timeouts(settings.ttl, settings.absolute_ttl)
        self._clock = clock
        self.name = attributes.name
        self.token_name: str | None = None  # nobody can be remembered without a store

    def read(self, lines: Sequence[str], draft: Draft) -> EventKind | None:
        """Take the record out of the cookies, if it is ours, whole and live."""
        draft.names_sent = [name for name in self._sessions.names if cookie_values(lines, name)]
        if not draft.names_sent:
            return None
        draft.brought_cookie = True
        now = self._clock()
        record = self._sessions.read(lambda name: cookie_values(lines, name), now)
        if record is None:
            return EventKind.UNKNOWN_ID  # forged, expired or foreign: all failures look alike here
        try:
            payload = decode_payload(record.payload, record.digest)
        except DamagedRecordError:
            return EventKind.DAMAGED_RECORD
        if self._timeouts.is_live(record, now) and not self._is_cut_off(record):
            draft.settle(record, payload)
        return None

    def _is_cut_off(self, record: Record) -> bool:
        if self._cut_off is None or record.principal is None:
            return False
        return is_cut_off(record, self._cut_off(record.principal))

    def lines(self, draft: Draft) -> list[str]:
        """Seal the draft's record into the cookies, delete them, or leave them.

        Raises:
            SessionTooLargeError: the record does not fit into the cookies a browser keeps.
        """
        if draft.cookie is CookieAction.KEEP:
            return []
        if draft.cookie is CookieAction.DELETE or draft.record is None:
            return self._sessions.delete_lines(draft.names_sent)
        return self._sessions.to_lines(draft.record, self._clock(), draft.names_sent)
