"""The ID was changed and stored; then the rest of the request fails. The browser must still be told."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from eyewall.core.record import Record
from eyewall.errors import StoreUnavailable
from eyewall.testing.clock import ManualClock
from tests.core.world import World
from tests.tornado.site import Handler, serving


async def test_a_failure_after_a_saved_regeneration_does_not_lose_the_session() -> None:
    """The old ID is dead, the new one was never told: cart and sign-in are gone because of a 503."""

    class SignIn(Handler):
        async def get(self) -> None:
            self.s.sign_in("alice")
            await self.s.save()
            site.store.failures["replace"] = StoreUnavailable("gone fishing")
            self.s["welcome"] = True
            self.write("told")

    async with serving("mixin", [("/", SignIn)]) as site:
        await site.sign_on(cart=[1])
        assert (await site.fetch("/")).code == 503
        site.store.failures.clear()
        assert (await site.stored()).get("cart") == [1]


async def test_a_failed_reauthentication_does_not_extend_the_absolute_timeout() -> None:
    """A 500 discards the sign-in, but its fresh timeouts stayed: a session without end, by failing daily."""

    class Reauthenticate(Handler):
        def get(self) -> None:
            self.s.sign_in("alice")
            raise RuntimeError("the audit log is down")

    class SignIn(Handler):
        def get(self) -> None:
            self.s.sign_in("alice")

    class Who(Handler):
        def get(self) -> None:
            self.write(str(self.s.principal))

    clock = ManualClock()
    routes = [("/in", SignIn), ("/again", Reauthenticate), ("/who", Who)]
    async with serving("mixin", routes, clock=clock) as site:
        await site.fetch("/in")
        for _ in range(46):
            clock.advance(timedelta(minutes=30))
            assert await site.text("/who") == "alice"
        assert (await site.fetch("/again")).code == 500
        for _ in range(4):
            clock.advance(timedelta(minutes=30))
            await site.fetch("/who")
        assert await site.text("/who") == "None", "25 hours after the only sign-in that succeeded"


async def test_a_lost_reply_while_the_id_changes_does_not_lose_the_data() -> None:
    """The store had moved the session, its reply was lost: we then removed the only copy of the cart."""
    world = World()
    browser = world.browser()
    await browser.put(cart=[1])
    session = await browser.open()
    session.sign_in("alice")
    replace = world.store.replace

    async def reply_lost(record: Record, *, version: int) -> bool:
        await replace(record, version=version)
        raise StoreUnavailable("connection reset")

    world.store.replace = reply_lost  # type: ignore[method-assign]
    with contextlib.suppress(StoreUnavailable):
        await session.save()
    world.store.replace = replace  # type: ignore[method-assign]
    await browser.end(session)
    assert await browser.data() == {"cart": [1]}
