"""Events: enough for an operator to see what happens, and never so many that they see nothing."""

from __future__ import annotations

import logging
from copy import deepcopy

import pytest

from eyewall.core.events import EventKind, EventStream
from eyewall.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def events(clock: ManualClock) -> EventStream:
    """A stream that only the log listens to."""
    return EventStream(clock)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log has been told."""
    return [record.message for record in caplog.records if record.name == "eyewall"]


def test_what_is_held_back_is_counted_and_told_when_the_minute_is_over(
    events: EventStream, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An attack of thousands looks like one mistake, or fills the disk."""
    for _ in range(10):
        events.emit(EventKind.FORGED_ID)
    clock.advance(59.9)
    events.emit(EventKind.FORGED_ID)
    assert len(lines(caplog)) == 1
    clock.advance(0.1)
    events.emit(EventKind.FORGED_ID)
    assert len(lines(caplog)) == 2
    assert "10 more" in lines(caplog)[-1]


def test_one_kind_does_not_silence_another(events: EventStream, caplog: pytest.LogCaptureFixture) -> None:
    """A flood of forged cookies hides that the store is down."""
    for _ in range(3):
        events.emit(EventKind.FORGED_ID)
        events.emit(EventKind.AMBIGUOUS_COOKIE)
    assert len(lines(caplog)) == 2


def test_a_change_of_state_is_told_three_times_in_any_minute(
    events: EventStream, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that comes and goes looks as if it had stayed away, or fills the disk."""
    for expected in (1, 2, 3, 3):
        events.emit(EventKind.STORE_DOWN)
        assert len(lines(caplog)) == expected
        clock.advance(10)
    clock.advance(20)  # a minute after the first, and not after the second
    for _ in range(2):
        events.emit(EventKind.STORE_DOWN)
        assert len(lines(caplog)) == 4
    clock.advance(10)
    events.emit(EventKind.STORE_DOWN)
    assert len(lines(caplog)) == 5


def test_what_no_log_wanted_does_not_keep_it_quiet(
    events: EventStream, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator turns the log on during an attack, and sees nothing for a minute."""
    with caplog.at_level(logging.CRITICAL, "eyewall"):
        events.emit(EventKind.FORGED_ID)
    events.emit(EventKind.FORGED_ID)
    assert len(lines(caplog)) == 1


def test_who_debugs_sees_each_of_what_is_not_worth_a_line_otherwise(
    events: EventStream, caplog: pytest.LogCaptureFixture
) -> None:
    """A developer looks for the second of two sessions, which was never logged."""
    events.emit(EventKind.CREATED)
    with caplog.at_level(logging.DEBUG, "eyewall"):
        events.emit(EventKind.CREATED)
        events.emit(EventKind.CREATED)
    assert len(lines(caplog)) == 2


def test_a_kind_of_event_is_one_key_however_it_was_found() -> None:
    """A callback that counts events by kind counts one kind as two."""
    for kind in EventKind:
        assert {kind: 1}[EventKind(kind.value)] == {kind: 1}[deepcopy(kind)] == 1
