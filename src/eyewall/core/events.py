"""What happened that an operator may want to know, in a form that cannot flood a log.

Strangers can cause most of these events as often as they like. So each kind is logged at most once a
minute with the number of times it was held back, while callbacks hear of every one.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from eyewall.core.ids import shortened
from eyewall.core.store import Clock

logger: Final = logging.getLogger("eyewall")

_QUIET: Final = timedelta(minutes=1)


class EventKind(enum.Enum):
    """Kinds of event; the value is the text that logs show."""

    CREATED = "session created"
    REGENERATED = "session ID regenerated"
    DESTROYED = "session destroyed"
    SIGNED_IN = "signed in"
    SIGNED_OUT = "signed out"
    REMEMBERED = "brought back by a remember token"
    EXPIRED = "expired records swept"
    REVOKED = "session ended from outside"
    THEFT = "remember token used twice: stolen, or copied; all of its device ended"
    CSRF_REFUSED = "request refused: no valid CSRF token"
    ATTEMPTS_LIMITED = "sign-in refused: too many attempts"
    SESSIONS_LIMITED = "limit of sessions of one principal reached"
    FORGED_ID = "cookie refused: not signed by us"
    UNKNOWN_ID = "cookie refused: no such session (ended or expired)"
    AMBIGUOUS_COOKIE = "cookie refused: two valid session cookies in one request"
    DAMAGED_RECORD = "stored record refused: damaged or foreign"
    NOT_SAVED = "answer taken back: the session could not be saved"
    WRITE_DROPPED = "change dropped: the session had ended meanwhile"
    CROSS_ORIGIN_REFUSED = "request refused: from another site"
    STORE_DOWN = "store does not answer"
    STORE_BACK = "store answers again"

    # Each kind is one object. Enum's own hash is a function in Python, and runs at every look-up.
    __hash__ = object.__hash__


_LEVELS: Final = {
    EventKind.DAMAGED_RECORD: logging.WARNING,
    EventKind.AMBIGUOUS_COOKIE: logging.WARNING,
    EventKind.FORGED_ID: logging.WARNING,
    EventKind.CROSS_ORIGIN_REFUSED: logging.WARNING,
    EventKind.CSRF_REFUSED: logging.WARNING,
    EventKind.THEFT: logging.WARNING,
    EventKind.ATTEMPTS_LIMITED: logging.WARNING,
    EventKind.SESSIONS_LIMITED: logging.INFO,
    EventKind.STORE_DOWN: logging.ERROR,
    EventKind.NOT_SAVED: logging.ERROR,
    EventKind.STORE_BACK: logging.WARNING,
    EventKind.WRITE_DROPPED: logging.INFO,
}
_AT_ONCE: Final = {EventKind.STORE_DOWN: 3, EventKind.STORE_BACK: 3}
"""How many of a kind may be logged within a minute, where it is not one.

A change of state is worth a line; but a store that reads and does not write changes it twice in every
request.
"""


def _on_one_line(text: str) -> str:
    """Return ``text`` without what could begin a line, move a cursor or turn the reading direction.

    Some of it is what a server or a stranger said (ASVS 16.4.1).
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Args:
        kind: what happened.
        at: when (UTC).
        session: the session's digest, shortened to 48 bits in hex, or None.
        principal: whose session it is, or None. The log shows it as printable ASCII.
        detail: more about it, or ""; already safe to log.
    """

    kind: EventKind
    at: datetime
    session: str | None = None
    detail: str = ""
    principal: str | None = None


class _Logged:
    """What the log has been told of one kind of event."""

    __slots__ = ("_at", "held_back", "level", "quiet_until")

    def __init__(self, kind: EventKind) -> None:
        self.level = _LEVELS.get(kind, logging.DEBUG)
        self._at: deque[datetime] = deque(maxlen=_AT_ONCE.get(kind, 1))
        self.held_back = 0
        self.quiet_until = datetime.min.replace(tzinfo=UTC)
        """Nothing is logged before; what happens meanwhile is counted."""

    def may_tell(self, now: datetime) -> bool:
        """Whether one more line may be logged ``now``, when it is not quiet; notes the answer."""
        if not logger.isEnabledFor(self.level):
            return False
        if self.level != logging.DEBUG:
            self._at.append(now)
            if len(self._at) == self._at.maxlen:
                self.quiet_until = self._at[0] + _QUIET
        return True


class EventStream:
    """Tells callbacks of every event and the log of some."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._callbacks: list[Callable[[Event], None]] = []
        self._logged = {kind: _Logged(kind) for kind in EventKind}

    def subscribe(self, callback: Callable[[Event], None]) -> None:
        """Call ``callback(event)`` for every event from now on; what it raises is logged, no more."""
        self._callbacks.append(callback)

    def emit(
        self,
        kind: EventKind,
        *,
        digest: bytes | None = None,
        detail: str = "",
        principal: str | None = None,
    ) -> None:
        """Report that ``kind`` happened now."""
        now, logged = self._clock(), self._logged[kind]
        if now < logged.quiet_until:  # nearly always, while strangers send what they like
            logged.held_back += 1
            may_tell = False
        else:
            may_tell = logged.may_tell(now)
        if not may_tell and not self._callbacks:
            return
        session = shortened(digest) if digest is not None else None
        event = Event(kind, now, session, _on_one_line(detail), principal)
        if may_tell:
            _log(event, logged)
        for callback in self._callbacks:
            try:
                callback(event)
            except Exception:  # a listener's bug must not fail the request
                logger.exception("a callback for session events failed on %s", kind.name)


def _log(event: Event, logged: _Logged) -> None:
    held_back, logged.held_back = logged.held_back, 0
    more = f" (and {held_back} more like it)" if held_back else ""
    whose = "" if event.principal is None else f" of {ascii(event.principal)[:64]}"
    session = event.session or "-"
    logger.log(logged.level, "%s [session %s%s] %s%s", event.kind.value, session, whose, event.detail, more)
