"""How long a session lives: rules about instants, each a function of the time it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from eyewall.core.record import Record

_LONGEST_TOUCH_INTERVAL: Final = timedelta(minutes=5)
_MOST_AHEAD: Final = -timedelta(minutes=1)
"""What happened a minute from now may have: clocks differ."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Idle and absolute timeout together, both enforced on the server (ASVS 7.3.1, 7.3.2).

    Args:
        idle: longest silence; every use moves the end of the session this far ahead.
        absolute: longest life since sign-in or start; no use moves it (NIST SP 800-63B-4, 2.2.3).
    """

    idle: timedelta
    absolute: timedelta
    touch_interval: timedelta = field(init=False)
    """How stale ``seen_at`` may be: a tenth of the idle timeout, five minutes at most.

    Touching at every request would make every read a write; this bounds both the writes and the error of the
    idle timeout.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "touch_interval", min(self.idle / 10, _LONGEST_TOUCH_INTERVAL))

    def expiry(self, created_at: datetime, now: datetime) -> datetime:
        """Return when a session that began at ``created_at`` and is used ``now`` ends."""
        return min(now + self.idle, created_at + self.absolute)

    def is_live(self, record: Record, now: datetime) -> bool:
        """Whether ``record`` may be served ``now``, by its own expiry and by the limits in force.

        The second matters after the limits were lowered: old records must obey the new ones. A record that
        was written by a clock far ahead of ours would outlive its limits, so it is not live at all.
        """
        age, silence = now - record.created_at, now - record.seen_at
        return (
            now < record.expires_at
            and _MOST_AHEAD <= silence < self.idle
            and _MOST_AHEAD <= age < self.absolute
        )

    def touch_is_due(self, record: Record, now: datetime) -> bool:
        """Whether ``seen_at`` is stale enough to be written again."""
        return now - record.seen_at >= self.touch_interval
