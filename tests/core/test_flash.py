"""Flash messages are read once, by a page that somebody sees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eyewall.errors import UnstorableValueError
from tests.core.world import Browser, World


async def flashed(browser: Browser, *messages: tuple[str, Any], category: str = "info") -> None:
    """One request that leaves messages."""
    session = await browser.open()
    for key, value in messages:
        session.flash(key, value, category=category)
    await browser.end(session)


async def read(browser: Browser, key: str | None = None, *, status: int = 200, consuming: bool = True) -> Any:
    """One request that reads messages."""
    session = await browser.open(consuming=consuming)
    found = session.flash.messages(key)
    await browser.end(session, status)
    return [value for _, value in found]


async def test_a_message_is_shown_exactly_once() -> None:
    """The chapter's gotcha 7: shown again after a refresh."""
    browser = World().browser()
    await flashed(browser, ("message", "Added"))
    assert await read(browser, "message") == ["Added"]
    assert await read(browser, "message") == []


@pytest.mark.parametrize("value", [None, "", 0, [], {"a": (1,)}])
async def test_anything_that_can_be_stored_can_be_flashed(value: Any) -> None:
    """None and empty values too: reading is told from writing by the number of arguments."""
    browser = World().browser()
    await flashed(browser, ("k", value))
    session = await browser.open()
    assert session.flash.messages("k") == [("info", value)]


async def test_several_messages_under_one_key_are_all_kept() -> None:
    """Two actions, one page: both deserve an answer."""
    browser = World().browser()
    await flashed(browser, ("m", "one"))
    await flashed(browser, ("m", "two"), category="error")
    session = await browser.open()
    assert session.flash.messages("m") == [("info", "one"), ("error", "two")]


async def test_the_chapters_form_reads_the_newest_and_ends_the_key() -> None:
    """``flash(key)`` has one value to return; an older one must not turn up on a later page."""
    browser = World().browser()
    await flashed(browser, ("m", "one"), ("m", "two"), ("other", "x"))
    session = await browser.open()
    assert session.flash("m") == "two"
    assert session.flash("m") is None
    assert session.flash("other") == "x"


async def test_a_message_nobody_reads_waits() -> None:
    """Pages without messages, AJAX calls and redirects must not age them (Laravel's do)."""
    browser = World().browser()
    await flashed(browser, ("m", "waits"))
    for _ in range(5):
        await browser.put(other=1)
    assert await read(browser) == ["waits"]


async def test_head_and_prefetch_use_nothing_up() -> None:
    """Nobody has seen the page."""
    browser = World().browser()
    await flashed(browser, ("m", "seen?"))
    assert await read(browser, consuming=False) == ["seen?"]
    assert await read(browser) == ["seen?"]


@pytest.mark.parametrize("status", [304, 500, 503])
async def test_an_answer_that_shows_no_new_page_uses_nothing_up(status: int) -> None:
    """A 304 shows an old page, a 500 an error page."""
    browser = World().browser()
    await flashed(browser, ("m", "seen?"))
    assert await read(browser, status=status) == ["seen?"]
    assert await read(browser) == ["seen?"]


async def test_peek_leaves_the_message_waiting() -> None:
    """A layout may want to know whether there is anything."""
    browser = World().browser()
    await flashed(browser, ("m", "here"))
    session = await browser.open()
    assert session.flash.peek("m") == "here"
    assert session.flash.peek("none", "default") == "default"
    await browser.end(session)
    assert await read(browser) == ["here"]


async def test_keep_lets_the_next_page_read_it_too() -> None:
    """A redirect after reading."""
    browser = World().browser()
    await flashed(browser, ("a", 1), ("b", 2))
    session = await browser.open()
    session.flash.messages()
    session.flash.keep("a")
    await browser.end(session)
    assert await read(browser) == [1]
    await flashed(browser, ("a", 1), ("b", 2))
    session = await browser.open()
    session.flash.messages()
    session.flash.keep()
    await browser.end(session)
    assert await read(browser) == [1, 2]


async def test_keep_also_keeps_what_this_request_wrote_and_read() -> None:
    """The message was on its way to the store; reading it must not be its end."""
    browser = World().browser()
    session = await browser.open()
    session.flash("a", 1)
    assert session.flash("a") == 1
    session.flash.keep()
    await browser.end(session)
    assert await read(browser) == [1]


async def test_now_is_for_this_page_and_never_stored() -> None:
    """A form that is shown again with its errors."""
    world = World()
    browser = world.browser()
    session = await browser.open()
    session.flash.now("m", "wrong password", category="error")
    assert session.flash.messages() == [("error", "wrong password")]
    await browser.end(session)
    assert await world.records() == []
    assert browser.cookie is None


async def test_a_message_written_and_read_in_one_request_is_never_stored() -> None:
    """It has been seen."""
    world = World()
    browser = world.browser()
    session = await browser.open()
    session.flash("m", 1)
    assert session.flash("m") == 1
    await browser.end(session)
    assert await world.records() == []


async def test_fifty_parallel_messages_all_arrive() -> None:
    """Each is a change of its own, merged on conflict."""
    browser = World().browser()
    await browser.put(started=True)
    sessions = [await browser.open() for _ in range(50)]
    for number, session in enumerate(sessions):
        session.flash("m", number)
    await asyncio.gather(*(browser.end(session) for session in sessions))
    assert sorted(await read(browser)) == list(range(50))


async def test_reading_while_another_request_writes_loses_neither() -> None:
    """Taking old messages and adding a new one are different changes."""
    browser = World().browser()
    await flashed(browser, ("m", "old"))
    reader, writer = await browser.open(), await browser.open()
    assert reader.flash("m") == "old"
    writer.flash("m", "new")
    await browser.end(writer)
    await browser.end(reader)
    assert await read(browser) == ["new"]


async def test_clear_drops_messages_and_destroy_too() -> None:
    """They may be about data that is gone."""
    browser = World().browser()
    await flashed(browser, ("m", 1))
    session = await browser.open()
    session.clear()
    assert session.flash("m") is None
    await browser.end(session)
    assert await read(browser) == []


async def test_what_cannot_be_stored_cannot_be_flashed() -> None:
    """At once, naming the key."""
    session = await World().browser().open()
    with pytest.raises(UnstorableValueError, match="'m'"):
        session.flash("m", object())
    with pytest.raises(UnstorableValueError):
        session.flash("m", "text", category="\ud800")
