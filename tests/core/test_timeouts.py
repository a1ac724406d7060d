"""Timeouts: until when a record counts, and how far clocks may differ."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest

from eyewall.core.record import Record
from eyewall.core.timeouts import Timeouts
from eyewall.testing import ManualClock

NOW: Final = ManualClock()()
RULES: Final = Timeouts(timedelta(hours=1), timedelta(hours=24))
INSTANT: Final = timedelta(microseconds=1)


def is_live(*, age: timedelta, silence: timedelta, left: timedelta = timedelta(days=9)) -> bool:
    """Whether a record counts that began ``age`` ago and was used ``silence`` ago."""
    record = Record(
        digest=bytes(32),
        version=1,
        payload=b"",
        created_at=NOW - age,
        seen_at=NOW - silence,
        expires_at=NOW + left,
    )
    return RULES.is_live(record, NOW)


def test_each_limit_ends_a_session_to_the_instant() -> None:
    """A record whose own expiry is years away outlives limits that were lowered (ASVS 7.3.1, 7.3.2)."""
    hour, day, none = timedelta(hours=1), timedelta(hours=24), timedelta(0)
    assert is_live(age=day - INSTANT, silence=hour - INSTANT, left=INSTANT)
    assert not is_live(age=day - INSTANT, silence=hour)
    assert not is_live(age=day, silence=none)
    assert not is_live(age=none, silence=none, left=none)


@pytest.mark.parametrize(("age", "silence"), [(-1, 0), (0, -1), (-1, -1)])
def test_a_record_from_the_future_counts_as_far_as_clocks_may_differ(age: int, silence: int) -> None:
    """A clock far ahead gives sessions that nothing ends; one a little ahead must sign nobody out."""
    minute = timedelta(minutes=1)
    assert is_live(age=age * minute, silence=silence * minute)
    beyond = minute + INSTANT
    assert not is_live(age=age * beyond, silence=silence * beyond)
