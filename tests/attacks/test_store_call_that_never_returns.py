"""One lost call to the store: it must cost one request, not the session, and not the shutdown."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from eyewall import Settings
from eyewall.errors import StoreUnavailable
from eyewall.testing.clock import ManualClock
from tests.core.world import World
from tests.tornado.site import SECRET, Handler, WatchedStore, serving

PATIENCE = timedelta(seconds=0.05)


def _world(patience: timedelta = PATIENCE) -> tuple[World, WatchedStore]:
    world = World(store_timeout=patience)
    world.store = store = WatchedStore(clock=world.clock)
    world.manager = world.another_process()
    world.manager.events.subscribe(world.events.append)
    return world, store


async def test_a_lost_write_does_not_lock_a_session_for_ever() -> None:
    """Changes that queued behind it waited for ever, and so did every later one: 503 until a restart."""
    world, store = _world()
    browser = world.browser()
    await browser.put(n=0)
    arrived, never = store.gate("replace")
    sessions = [await browser.open() for _ in range(2)]
    outcomes = await asyncio.gather(
        *(session.modify("n", lambda n: n + 1) for session in sessions), return_exceptions=True
    )
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    await asyncio.sleep(0.15)
    store.gates.clear()  # the store answers again; the calls it swallowed are lost
    try:
        session = await browser.open()
        await session.modify("n", lambda n: n + 1)
        async with asyncio.timeout(10):
            await world.manager.aclose()
    finally:
        never.set()
        assert arrived.is_set()


async def test_a_change_given_up_before_it_was_begun_is_not_written_later() -> None:
    """Its caller was told that it failed and pays again: twice in all."""
    world, store = _world(timedelta(seconds=10))
    browser = world.browser()
    await browser.put(n=0)
    arrived, release = store.gate("replace")
    first, second = await browser.open(), await browser.open()
    writing = asyncio.ensure_future(first.modify("n", lambda n: n + 1))
    await arrived.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await second.modify("n", lambda n: n + 100)
    release.set()
    assert await writing == 1
    await world.manager.aclose()
    assert (await browser.data())["n"] == 1


async def test_a_hung_touch_fails_no_page() -> None:
    """Reading needs nothing more from the store, whether the touch fails or hangs."""

    class Read(Handler):
        def get(self) -> None:
            self.write(str(self.s.get("k")))

    clock = ManualClock()
    settings = Settings(backend="memory", cookie_secret=SECRET, store_timeout=PATIENCE)
    async with serving("mixin", [("/", Read)], clock=clock, settings=settings) as site:
        await site.sign_on(k="v")
        clock.advance(timedelta(minutes=30))
        site.store.gate("touch")
        assert await site.text("/") == "v"


async def test_a_timeout_in_the_middle_of_signing_in_leaves_no_signed_in_record() -> None:
    """Nobody was told its ID, so nobody can end it; the list of devices shows a stranger for a day."""
    world, store = _world()
    browser = world.browser()
    await browser.put(cart=[1])
    _, release = store.gate("replace")
    session = await browser.open()
    session.sign_in("alice")
    with pytest.raises(StoreUnavailable):
        await session.save()
    store.gates.clear()
    await world.manager.aclose()
    release.set()
    assert [record.principal for record in await world.records()] == [None]
