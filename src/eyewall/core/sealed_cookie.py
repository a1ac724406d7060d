"""The cookie of a client-side session: the record itself, sealed.

The request's own cookie is the store here. Its record is read without I/O, every change wins its
compare-and-swap, and what was written leaves with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from eyewall.core.browser_cookie import cookie_attributes
from eyewall.core.client_side import PURPOSE, ClientSideSessions, is_cut_off, is_live
from eyewall.core.cookie import cookie_values
from eyewall.core.draft import CookieAction, Draft
from eyewall.core.events import EventKind
from eyewall.core.payload import Payload, decode_payload
from eyewall.core.record import Record
from eyewall.core.store import Clock
from eyewall.core.timeouts import Timeouts
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.errors import DamagedRecordError
from eyewall.settings import Settings

MOST_KNOWN_BYTES: Final = 8 * 1024 * 1024
"""How much memory opened cookies take: 2,000 sessions of 500 bytes, 250 of those that fill three cookies."""

_BYTES_PER_SESSION: Final = 1536
_BYTES_PER_VALUE: Final = 256
"""What Python adds to the characters: measured, and rounded up."""

CutOff = Callable[[str], datetime | None]
"""Given a principal, returns the time (UTC) before which none of their sessions counts, or None."""


class Opened(NamedTuple):
    """A session as it was found in a request's cookies. Requests share it, so nobody changes it.

    Args:
        record: its stored form, whose times and principal are looked at for every request.
        payload: its data; whoever changes something makes another payload of it.
        names_sent: the names of its cookies.
    """

    record: Record
    payload: Payload
    names_sent: Sequence[str]

    def memory(self) -> int:
        """How much memory it takes (bytes), about: the values are there twice, as sealed and as decoded."""
        values = len(self.payload.data) + len(self.payload.flash)
        return _BYTES_PER_SESSION + 2 * len(self.record.payload) + _BYTES_PER_VALUE * values


class KnownLines:
    """``Cookie`` lines with the session that was found in them: a browser sends the same one every time."""

    def __init__(self) -> None:
        self._opened: dict[str, Opened] = {}
        self._room = MOST_KNOWN_BYTES

    def find(self, lines: Sequence[str]) -> Opened | None:
        """Return what was opened in these lines before."""
        return self._opened.get(lines[0]) if len(lines) == 1 else None

    def remember(self, lines: Sequence[str], opened: Opened) -> None:
        """Keep what was found in ``lines``; when there is no more room, all others are forgotten."""
        if len(lines) > 1:
            return
        needed = len(lines[0]) + opened.memory()
        if needed > self._room:
            self._opened.clear()
            self._room = MOST_KNOWN_BYTES
        self._room -= needed
        self._opened[lines[0]] = opened


class SealedCookie:
    """Reads and writes the sealed session.

    Opening costs more than all else that reading does, so lines that were opened are remembered with what was
    in them. Only what the current key has sealed gets there, and whether it counts is asked every time.

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
        self._known = KnownLines()
        self.name = attributes.name
        self.token_name: str | None = None  # nobody can be remembered without a store

    def read(self, lines: Sequence[str], draft: Draft) -> EventKind | None:
        """Take the record out of the cookies, if it is ours, whole and live."""
        now = self._clock()
        found = self._known.find(lines) or self._found(lines, draft, now)
        if not isinstance(found, Opened):
            return found
        draft.brought_cookie, draft.names_sent = True, found.names_sent
        record = found.record
        if self._timeouts.is_live(record, now):
            if not self._is_cut_off(record):
                draft.settle(record, found.payload)
        elif not is_live(record, now):
            return EventKind.UNKNOWN_ID
        return None

    def _found(self, lines: Sequence[str], draft: Draft, now: datetime) -> Opened | EventKind | None:
        """Open the cookies; return what is in them, or what is wrong with them, or None without cookies."""
        values = {name: sent for name in self._sessions.names if (sent := cookie_values(lines, name))}
        if not values:
            return None
        draft.brought_cookie, draft.names_sent = True, tuple(values)
        record = self._sessions.read(lambda name: values.get(name, ()), now)
        if record is None:
            return EventKind.UNKNOWN_ID  # forged, expired or foreign: all failures look alike here
        try:
            opened = Opened(record, decode_payload(record.payload, record.digest), draft.names_sent)
        except DamagedRecordError:
            return EventKind.DAMAGED_RECORD
        if all(self._sessions.is_current(first) for first in values[self.name]):
            self._known.remember(lines, opened)  # uses of a retired key are counted one by one
        return opened

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
        return self._sealed(draft, draft.record)

    def _sealed(self, draft: Draft, record: Record) -> list[str]:
        """Seal each record once: before saving, to see whether it fits, and then for the answer."""
        if draft.sealed is None or draft.sealed[0] is not self or draft.sealed[1] is not record:
            draft.sealed = self, record, self._sessions.to_lines(record, self._clock(), draft.names_sent)
        return draft.sealed[2]
