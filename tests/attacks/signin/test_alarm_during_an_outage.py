"""The store fails in the middle of ending a device, and it is tried again."""

from __future__ import annotations

from datetime import timedelta

from eyewall.errors import StoreUnavailable
from eyewall.signin.remember import GRACE
from eyewall.testing.client import Browser
from tests.signin.kit import REMEMBER, SESSION, Deployment, Process, cookies, drop, replayed, user

DOWN = StoreUnavailable("connection refused")


async def robbed(here: Deployment) -> tuple[Process, Browser, Browser]:
    """An owner, and a thief whom a copy of the owner's token has brought in."""
    process = await here.process()
    owner = await here.signed_in(process, here.ann, remember="1")
    thief = here.browser(process)
    assert await replayed(thief, f"{REMEMBER}={cookies(owner)[REMEMBER]}") == here.ann
    return process, owner, thief


async def test_a_replay_met_by_an_outage_is_told_again_until_the_thief_is_out(here: Deployment) -> None:
    """The alarm deletes the family first; when the rest fails, it never rings again and the thief stays."""
    process, owner, thief = await robbed(here)
    drop(owner, SESSION)
    here.clock.advance(GRACE + timedelta(seconds=1))
    process.store.fail("find_principal", DOWN)
    assert (await owner.get("/")).code == 503
    process.store.meddle = None
    assert await user(owner) is None
    assert await user(thief) is None


async def test_a_sign_out_that_failed_half_way_can_be_done_again(here: Deployment) -> None:
    """503, try again, 200: and the copy's session lives on, because nothing was left to find it by."""
    process, owner, thief = await robbed(here)
    process.store.fail("find_principal", DOWN)
    assert (await owner.post("/out")).code == 503
    process.store.meddle = None
    assert (await owner.post("/out")).code == 200
    assert await user(thief) is None
