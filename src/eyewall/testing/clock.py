"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

DEFAULT_START: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)


class ManualClock:
    """A clock for tests: calling it returns the time, and only :meth:`advance` changes that.

    Args:
        start: the first time it shows; aware, converted to UTC. Give it the real time when the store
            under test lets its server expire records by the server's own clock (Redis, MongoDB).

    Raises:
        ValueError: ``start`` has no time zone.

    >>> clock = ManualClock()
    >>> clock.advance(timedelta(hours=1))
    datetime.datetime(2026, 1, 1, 13, 0, tzinfo=datetime.timezone.utc)
    """

    def __init__(self, start: datetime = DEFAULT_START) -> None:
        if start.tzinfo is None:
            raise ValueError(f"the clock's start {start!r} has no time zone; add tzinfo=UTC")
        self._now = start.astimezone(UTC)

    def __call__(self) -> datetime:
        """Return the time it shows (aware, UTC)."""
        return self._now

    def advance(self, step: timedelta | float) -> datetime:
        """Move by ``step``, a timedelta or seconds, and return the new time. Negative steps go back."""
        self._now += step if isinstance(step, timedelta) else timedelta(seconds=step)
        return self._now
