"""What the short way of a save, the one of nearly all, must not lose: it computes the result only once."""

from __future__ import annotations

import copy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.changes import Changes, Identity
from eyewall.core.codec import encode_value
from eyewall.core.payload import FlashEntry, Payload
from tests.core.world import World


async def test_a_304_stores_what_changed_and_uses_up_no_message() -> None:
    """The browser shows an old page: a message it never showed would be lost."""
    browser = World().browser()
    session = await browser.open()
    session["n"] = 1
    session.flash("message", "hello")
    await browser.end(session)
    session = await browser.open()
    assert session.flash("message") == "hello"
    session["n"] += 1
    await browser.end(session, status=304)
    session = await browser.open()
    assert session["n"] == 2
    assert session.flash("message") == "hello"


async def test_a_500_starts_no_session_and_keeps_nothing_of_one() -> None:
    """Half of what a handler meant to do would be stored; and errors of strangers would fill the store."""
    world = World()
    browser = world.browser()
    session = await browser.open()
    session["half"] = "done"
    assert await browser.end(session, status=500) is None
    assert await world.records() == []
    await browser.put(n=1)
    session = await browser.open()
    session["n"] = 2
    await browser.end(session, status=500)
    assert await browser.data() == {"n": 1}


async def test_what_was_computed_once_is_computed_anew_after_a_conflict() -> None:
    """The result for the record that was loaded would take back what another process has stored since."""
    world = World()
    browser = world.browser()
    await browser.put(mine=0, theirs=0)
    session = await browser.open()
    session["mine"] = 1
    elsewhere = world.browser()
    elsewhere.manager, elsewhere.cookie = world.another_process(), browser.cookie
    await elsewhere.put(theirs=1)
    await browser.end(session)
    assert await browser.data() == {"mine": 1, "theirs": 1}


async def test_a_save_that_failed_can_be_repeated_with_what_was_set_since() -> None:
    """The first attempt's result must not stand for the second one's."""
    world = World()
    browser = world.browser()
    await browser.put(n=0)
    session = await browser.open()
    session["n"] = 1
    real = world.store.replace

    async def failing(*_args: object, **_options: object) -> bool:
        raise OSError("gone")

    world.store.replace = failing  # type: ignore[method-assign]
    with pytest.raises(Exception, match="the store failed"):
        await session.save()
    world.store.replace = real  # type: ignore[method-assign]
    session["more"] = True
    await browser.end(session)
    assert await browser.data() == {"n": 1, "more": True}


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(0, 3).map(lambda number: encode_value("k", number))
READ, NEW = [b"1", b"2"], [b"3", b"4"]  # nobody reads a message that the same request adds


def _messages(ids: list[bytes]) -> st.SearchStrategy[list[FlashEntry]]:
    entries = [FlashEntry(id=each, key="k", category="", value=msgspec.Raw(b"\x01")) for each in ids]
    return st.lists(st.sampled_from(entries), unique_by=lambda entry: entry.id)


PAYLOADS = st.builds(
    Payload,
    format=st.just(1),
    data=st.dictionaries(KEYS, VALUES.map(msgspec.Raw)),
    flash=_messages(READ + NEW),
    principal=st.sampled_from([None, "alice"]),
)
CHANGES = st.builds(
    Changes,
    cleared=st.booleans(),
    deleted=st.sets(KEYS),
    assigned=st.dictionaries(KEYS, VALUES),
    flashed=_messages(NEW),
    taken=st.sets(st.sampled_from(READ)),
    identity=st.sampled_from([None, Identity(None, None), Identity("bob", None, b"d", "password")]),
)


@given(base=PAYLOADS, first=CHANGES, second=CHANGES)
def test_changes_leave_alone_what_they_are_applied_to(base: Payload, first: Changes, second: Changes) -> None:
    """Results share parts with what they came from, which is what a failed save goes back to."""
    before, wanted = copy.deepcopy(base), copy.deepcopy((first, second))
    once = first.apply_to(base)
    after_first = copy.deepcopy(once)
    second.apply_to(once)
    assert (base, once) == (before, after_first)
    assert (first, second) == wanted


@given(base=PAYLOADS, changes=CHANGES)
def test_changes_applied_again_have_the_effect_of_once(base: Payload, changes: Changes) -> None:
    """A save that was given up may have happened after all."""
    once = changes.apply_to(base)
    assert changes.apply_to(once) == once
    kept = [] if changes.cleared else [e for e in base.flash if e.id not in changes.taken]
    assert once.flash[: len(kept)] == kept
    assert {e.id for e in once.flash} == {e.id for e in kept} | {e.id for e in changes.flashed}
    data = {} if changes.cleared else {k: bytes(v) for k, v in base.data.items() if k not in changes.deleted}
    assert {key: bytes(value) for key, value in once.data.items()} == data | changes.assigned
