"""Clearing a session more than once: a habit of handlers whose base class already did."""

from __future__ import annotations

import pytest

from eyewall.errors import StoreUnavailable
from tests.core.world import Browser, World


async def _signed_in(world: World) -> Browser:
    browser = world.browser()
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    return browser


@pytest.mark.parametrize("times", [2, 3, 4])
async def test_clearing_twice_signs_out_as_clearing_once_does(times: int) -> None:
    """The second clear() forgot that the first signed somebody out: they stayed signed in."""
    world = World()
    browser = await _signed_in(world)
    session = await browser.open()
    for _ in range(times):
        session.clear()
    assert session.principal is None
    await browser.end(session)
    assert (await browser.open()).principal is None
    assert [record.principal for record in await world.records()] == [None]


async def test_clearing_again_after_a_failed_save_still_signs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that retries its sign-out must not undo it."""
    world = World()
    browser = await _signed_in(world)
    session = await browser.open()
    session.clear()
    create = world.store.create

    async def down(_: object) -> bool:
        session.clear()  # another coroutine of the same request, while the save is under way
        raise StoreUnavailable("gone fishing")

    monkeypatch.setattr(world.store, "create", down)
    with pytest.raises(StoreUnavailable):
        await session.save()
    monkeypatch.setattr(world.store, "create", create)
    await browser.end(session)
    assert (await browser.open()).principal is None
