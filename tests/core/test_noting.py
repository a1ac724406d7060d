"""Noting what a request did to its session: its use, and the room that its changes take."""

from __future__ import annotations

from typing import Any

import pytest

from eyewall.errors import SessionTooLargeError
from tests.core.world import World


@pytest.mark.parametrize(
    "look",
    [
        lambda s: s["here"],
        lambda s: s.get("here"),
        lambda s: s.get("nowhere"),
        lambda s: s.has("nowhere"),
        lambda s: s.all(),
        len,
        list,
        lambda s: "here" in s,
        lambda s: s.principal,
        lambda s: s.is_new,
    ],
)
async def test_each_look_at_a_session_counts_as_its_use(look: Any) -> None:
    """A shared cache hands the page to others, and a session in use runs out (CVE-2026-35192)."""
    browser = World().browser()
    await browser.put(here=1)
    session = await browser.open()
    assert not session.used
    look(session)
    assert session.used


@pytest.mark.parametrize(
    ("grow", "named"),
    [
        (lambda s: s.set("basket", "x" * 3000), r"session\['basket'\] would"),
        (lambda s: s.set("b" * 3000, 1), rf"session\['{'b' * 40}\.\.\.'\] would"),
        (lambda s: s.set("{x}", "x" * 3000), r"session\['{x}'\] would"),
        (lambda s: s.flash("notice", "x" * 3000), "flash message 'notice' would"),
    ],
)
async def test_what_does_not_fit_is_named(grow: Any, named: str) -> None:
    """A developer searches all of a page's keys for the one that is too large."""
    session = await World(max_size=2000).browser().open()
    with pytest.raises(SessionTooLargeError, match=named):
        grow(session)


async def test_an_assignment_makes_room_of_what_it_replaces_and_of_no_more() -> None:
    """A session near its limit is refused what fits, or takes what the store then refuses."""
    session = await World(max_size=2000).browser().open()
    session["text"] = "x" * 1900
    for _ in range(5):
        session["text"] = "y" * 1900
    with pytest.raises(SessionTooLargeError):
        session["text"] = "z" * 2000
    with pytest.raises(SessionTooLargeError):
        session["more"] = "z" * 100
    session["text"] = "x" * 1700
    session["more"] = "z" * 100


async def test_what_has_grown_inside_a_list_leaves_less_room() -> None:
    """The next assignment is taken, and the save then fails for all that the request has changed."""
    session = await World(max_size=2000).browser().open()
    session["items"] = []
    session["items"].append("x" * 1800)
    session.draft.notice_nested_changes()
    with pytest.raises(SessionTooLargeError):
        session["more"] = "y" * 190


async def test_a_value_that_is_set_to_what_it_is_asks_for_no_save() -> None:
    """A page that sets its language each time costs a write each time."""
    world = World()
    browser = world.browser()
    await browser.put(language="ga")
    session = await browser.open()
    session["language"] = "ga"
    assert not world.manager.needs_commit(session)
    session["language"] = "cy"
    assert world.manager.needs_commit(session)
