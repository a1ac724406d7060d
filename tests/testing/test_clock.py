"""The clock that tests move by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from eyewall.testing import ManualClock


def test_clock_moves_only_when_told() -> None:
    """Tests of expiry must not depend on the speed of the machine."""
    clock = ManualClock()
    before = clock()
    assert clock() == before
    assert clock.advance(1.5) == clock() == before + timedelta(seconds=1.5)
    assert clock.advance(timedelta(days=-1)) == before + timedelta(seconds=1.5, days=-1)


def test_clock_shows_utc_wherever_it_starts() -> None:
    """A store that is handed another time zone would compare and keep the wrong hour."""
    start = datetime(2026, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert ManualClock(start)().tzinfo is UTC
    assert ManualClock(start)() == start


def test_clock_refuses_a_time_without_zone() -> None:
    """A naive time means another moment on every machine."""
    with pytest.raises(ValueError, match="no time zone"):
        ManualClock(datetime(2026, 7, 1))  # noqa: DTZ001 - that is the mistake
