"""``destroy()`` while a save of the same request is waiting for the store: the ending must win."""

from __future__ import annotations

import asyncio

import pytest

from eyewall.errors import StoreUnavailable
from tests.core.world import World
from tests.tornado.site import WatchedStore


@pytest.mark.parametrize("outcome", ["acknowledged", "failed"])
@pytest.mark.parametrize("known", [True, False], ids=["known visitor", "new visitor"])
async def test_destroying_during_a_sign_in_leaves_nobody_signed_in(known: bool, outcome: str) -> None:
    """The save that was under way brought the session back, signed in, with a cookie."""
    world = World()
    world.store = store = WatchedStore(clock=world.clock)
    world.manager = world.another_process()
    browser = world.browser()
    if known:
        await browser.put(cart=[1])
    session = await browser.open()
    arrived, release = store.gate("create")
    session.sign_in("alice")
    saving = asyncio.ensure_future(session.save())
    await arrived.wait()
    session.destroy()
    if outcome == "failed":
        store.failures["create"] = StoreUnavailable("gone fishing")
    release.set()
    await asyncio.gather(saving, return_exceptions=True)
    store.failures.clear()
    await browser.end(session)
    assert (await browser.open()).principal is None
    assert [record for record in await world.records() if record.principal] == []
